//! Frozen heads become chunks and blocks: CPU work, done on the pool.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::chunk::{ChunkMeta, LineBlock, encode};
use super::error::StoreError;
use super::head::Through;
use super::head::logs::{FrozenHead, HeadKey};
use super::head::spans::FrozenSpans;
use super::index::{Analyzer, ChunkFlags};
use super::patterns;
use super::span::links::Links;
use super::span::run::TagHash;
use super::span::{BlockMeta, SpanBlock, TagCensus};
use super::streams::Stream;
use crate::model::Day;

thread_local! {
    /// One analyser a thread: its scratch space grows with the longest chunk.
    static ANALYZER: RefCell<Analyzer> = RefCell::new(Analyzer::new());
}

/// A chunk ready for its partition.
pub struct SealedChunk {
    pub key: HeadKey,
    pub stream: Arc<Stream>,
    /// Its number is given by the partition.
    pub meta: ChunkMeta,
    pub chunk: Vec<u8>,
    pub filter: Vec<u8>,
    /// What its lines have in common (patterns/record.rs); `None`: not mined.
    pub patterns: Option<Vec<u8>>,
    /// Distinct words with a blank between them.
    pub words: String,
    pub through: Through,
}

/// A block of spans ready for its partition.
pub struct SealedBlock {
    pub day: Day,
    /// Its number is given by the partition.
    pub meta: BlockMeta,
    pub block: Vec<u8>,
    pub filter: Vec<u8>,
    /// Of all tags, for the filter of the run (span/run.rs).
    pub tags: Vec<TagHash>,
    /// Index terms with a blank between them.
    pub words: String,
    /// Distinct trace ids, sorted.
    pub trace_ids: Vec<u128>,
    /// Distinct `service 00 operation 00 kind`.
    pub operations: Vec<Vec<u8>>,
    /// What it says of services (span/summary.rs).
    pub summary: Vec<u8>,
    /// What links its spans to others; for the linker, not stored.
    pub links: Links,
    pub through: Through,
}

/// Sorts, compresses and analyses the lines of a head; mines their patterns if asked to.
pub fn seal_logs(head: &FrozenHead, mine: bool) -> Result<SealedChunk, StoreError> {
    let mut block = LineBlock::default();
    for part in &head.parts {
        block.append(part);
    }
    block.sort_by_time();
    let chunk =
        encode(&block).map_err(|e| StoreError::Failed(format!("compressing a chunk: {e}")))?;
    let (filter, words, flags) = analyze(&block);
    let meta = ChunkMeta::of(&block, head.key.stream, chunk.len() as u32, flags.bits());
    Ok(SealedChunk {
        key: head.key,
        stream: head.stream.clone(),
        meta,
        chunk,
        filter,
        patterns: mine.then(|| patterns::mine(&head.stream.labels, &block)),
        words,
        through: head.through,
    })
}

/// Filter, words and flags of lines; for sealing, and for rebuilding an index.
pub fn analyze(block: &LineBlock) -> (Vec<u8>, String, ChunkFlags) {
    ANALYZER.with_borrow_mut(|analyzer| {
        // The newline after each line belongs to no word or gram, so it parts them as well
        // as line ends would.
        let found = analyzer.analyze(&block.text, &[]);
        let newlines = memchr::memchr_iter(b'\n', &block.text).count();
        let flags = if newlines == block.len() {
            ChunkFlags::from_bits(found.flags.bits() & !ChunkFlags::NEWLINE.bits())
        } else {
            found.flags.with(ChunkFlags::NEWLINE)
        };
        (found.filter.to_vec(), found.words.to_owned(), flags)
    })
}

/// Compresses and analyses the spans of a head. `census` is that of its day.
pub fn seal_spans(head: &FrozenSpans, census: &Mutex<TagCensus>) -> SealedBlock {
    let sealed = ANALYZER.with_borrow_mut(|analyzer| head.block.seal(analyzer, &mut census.lock()));
    SealedBlock {
        day: head.day,
        meta: sealed.meta,
        block: sealed.bytes,
        filter: sealed.filter,
        tags: sealed.tags,
        words: sealed.words,
        trace_ids: sealed.trace_ids,
        operations: sealed.operations,
        summary: sealed.summary,
        links: sealed.links,
        through: head.through,
    }
}

/// Index terms of spans with a blank between them; for rebuilding an index. They may differ
/// from those at sealing by which keys have too many values, which changes no answer.
pub fn span_words(block: &SpanBlock) -> String {
    ANALYZER
        .with_borrow_mut(|analyzer| block.terms(analyzer, &mut TagCensus::new()))
        .words
}
