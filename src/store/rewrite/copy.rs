//! A day on its way into a family of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Stop;
use crate::model::StreamId;
use crate::store::chunk::{ChunkMeta, ChunkReader, LineBlock, encode};
use crate::store::error::StoreError;
use crate::store::head::logs::HEAD_BYTES;
use crate::store::index::WRITER_HEAP;
use crate::store::layout::{LOW_WATER_KEY, META_FAMILY};
use crate::store::partition::{Partition, StoredChunk};
use crate::store::patterns;
use crate::store::seal::analyze;
use crate::store::streams::Stream;
use crate::store::writer::Shared;

/// Documents that are indexed at a time, and bytes of their words.
const INDEX_AT_ONCE: usize = 1000;
const INDEX_BYTES: usize = 4 << 20;
/// For each second of work so many without: beside what comes in, and when nothing does.
const REST_BUSY: u32 = 4;
const REST_IDLE: u32 = 1;
/// Work between two rests.
const STRETCH: Duration = Duration::from_millis(20);

/// Memory that copying takes, bytes: the largest chunk decoded, sorted and compressed, words that
/// wait for the index, and who writes it.
pub fn memory(groups: &[Vec<Arc<ChunkMeta>>]) -> usize {
    let text = |group: &Vec<Arc<ChunkMeta>>| group.iter().map(|m| m.line_bytes as usize).sum();
    let largest: usize = groups.iter().map(text).max().unwrap_or(0);
    largest.max(HEAD_BYTES) * 4 + INDEX_BYTES + WRITER_HEAP
}

pub struct Copy<'a> {
    shared: &'a Shared,
    old: &'a Arc<Partition>,
    new: Arc<Partition>,
    /// Dropped unless it was switched to.
    kept: bool,
    pause: &'a dyn Fn(Duration) -> bool,
    rested_at: Instant,
    words: usize,
    documents: usize,
}

impl<'a> Copy<'a> {
    pub fn begin(
        shared: &'a Shared,
        old: &'a Arc<Partition>,
        pause: &'a dyn Fn(Duration) -> bool,
    ) -> Result<Self, Stop> {
        let (kv, layout) = (shared.kv.clone(), &shared.layout);
        let new = Partition::create(old.id, old.generation + 1, kv, layout)?;
        let copy = Self {
            shared,
            old,
            new: Arc::new(new),
            kept: false,
            pause,
            rested_at: Instant::now(),
            words: 0,
            documents: 0,
        };
        if copy.new.next_number() > 0 {
            // Of an attempt that failed, and could not be dropped then. It goes with this one.
            return Err(Stop::GivenUp);
        }
        copy.new.index.reset()?;
        Ok(copy)
    }

    pub fn partition(&self) -> Arc<Partition> {
        self.new.clone()
    }

    /// It was switched to.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Copies chunks of one stream as one.
    pub fn add(&mut self, group: &[Arc<ChunkMeta>]) -> Result<(), Stop> {
        self.rest()?;
        let Some(first) = group.first() else {
            return Ok(());
        };
        let Some(stream) = self.shared.streams.get(first.stream) else {
            return Err(Stop::Damaged(unknown(first.stream)));
        };
        let chunk = match group {
            [meta] => self.as_it_is(meta)?,
            group => self.merged(group, &stream)?,
        };
        self.words += chunk.words.len();
        self.documents += 1;
        self.new.add_rewritten(chunk, &stream)?;
        fail::fail_point!("rewrite-chunk");
        if self.documents >= INDEX_AT_ONCE || self.words >= INDEX_BYTES {
            self.index()?;
        }
        Ok(())
    }

    fn as_it_is(&self, meta: &Arc<ChunkMeta>) -> Result<StoredChunk, Stop> {
        let data: Box<[u8]> = self.old.data(meta.number, |bytes| bytes.into())?;
        let lines = ChunkReader::new(&data)
            .and_then(|chunk| chunk.lines())
            .map_err(|what| damaged(meta, &what))?;
        let (filter, words, _) = analyze(&lines);
        let stored = self
            .old
            .filter(meta.number, |bytes| Box::<[u8]>::from(bytes))?;
        Ok(StoredChunk {
            meta: ChunkMeta::clone(meta),
            data,
            filter: stored.unwrap_or_else(|| filter.into()),
            patterns: self.old.patterns(meta.number, |bytes| bytes.into())?,
            words,
        })
    }

    fn merged(&self, group: &[Arc<ChunkMeta>], stream: &Stream) -> Result<StoredChunk, Stop> {
        let mut block = LineBlock::default();
        for meta in group {
            let lines = self
                .old
                .data(meta.number, |bytes| ChunkReader::new(bytes)?.lines())?;
            let lines = lines.map_err(|what| damaged(meta, &what))?;
            if lines.len() != meta.lines as usize {
                return Err(damaged(
                    meta,
                    "it has another number of lines than its meta says",
                ));
            }
            // One by one: sets of metadata that chunks have in common are kept once.
            for i in 0..lines.len() {
                block.push(lines.at[i], lines.line(i), lines.metadata_of(i));
            }
        }
        block.sort_by_time();
        let data = encode(&block)
            .map_err(|e| StoreError::Failed(format!("compressing a merged chunk: {e}")))?;
        let (filter, words, flags) = analyze(&block);
        let first = group.first().map_or(StreamId(0), |meta| meta.stream);
        let size = data.len() as u32;
        let mine = self.shared.options.mine_patterns;
        Ok(StoredChunk {
            meta: ChunkMeta {
                seq: group.iter().map(|meta| meta.seq).max().unwrap_or(0),
                ..ChunkMeta::of(&block, first, size, flags.bits())
            },
            data: data.into(),
            filter: filter.into(),
            patterns: mine.then(|| patterns::mine(&stream.labels, &block).into()),
            words,
        })
    }

    /// Makes all of it safe: chunks, index, and what the journal need not bring again (N1).
    pub fn finish(&mut self) -> Result<(), Stop> {
        let low_water = self.shared.kv.get(META_FAMILY, LOW_WATER_KEY, |value| {
            value.try_into().map(u64::from_be_bytes).unwrap_or(0)
        })?;
        self.new
            .copy_sealed_through(self.old, low_water.unwrap_or(0))?;
        self.index()
    }

    fn index(&mut self) -> Result<(), Stop> {
        (self.words, self.documents) = (0, 0);
        self.new.take_dirty();
        self.new.flush()?;
        let below = self.new.next_number();
        let documents = self.new.take_unindexed(below);
        fail::fail_point!("rewrite-before-index");
        if !documents.is_empty() {
            self.new.index.commit(&documents, below)?;
        }
        Ok(())
    }

    /// Gives way to what comes in. Ends the copying when the day is no longer wanted.
    fn rest(&mut self) -> Result<(), Stop> {
        let worked = self.rested_at.elapsed();
        if worked < STRETCH {
            return Ok(());
        }
        let shared = self.shared;
        let (is_current, is_busy) = {
            let open = shared.open.lock();
            let current = open.partitions.get(&self.old.id);
            let is_current = current.is_some_and(|p| Arc::ptr_eq(p, self.old));
            (is_current, !open.frozen.is_empty())
        };
        if !is_current || shared.no_room().is_some() {
            return Err(Stop::GivenUp);
        }
        let is_busy = is_busy || shared.inbox.waiting() > 0;
        let factor = if is_busy { REST_BUSY } else { REST_IDLE };
        if (self.pause)(worked * factor) {
            return Err(Stop::Stopped);
        }
        self.rested_at = Instant::now();
        Ok(())
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.new.mark_dropped();
        }
    }
}

fn damaged(meta: &ChunkMeta, what: &str) -> Stop {
    Stop::Damaged(format!("chunk {}: {what}", meta.number))
}

fn unknown(stream: StreamId) -> String {
    format!("the labels of stream {:032x} are not known", stream.0)
}
