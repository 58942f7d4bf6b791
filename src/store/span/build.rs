//! A block while it grows, and its sealing.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::likeness::{SpanHashes, hash_tag};
use super::links::Links;
use super::run::TagHash;
use super::terms::{BlockTerms, TERMS, TagCensus};
use super::{BlockMeta, LogRow, Part, ProcessRow, SpanBlock, SpanRow, TagRow, Value};
use crate::model::search::ValueRef;
use crate::model::trace::{Process, Span, Tag, TraceId};
use crate::store::index::analyze::Analyzer;

/// A block with one of these is full. Larger blocks are fewer and pack better, smaller ones
/// are found more exactly and decoded faster; [`MAX_EXPANDED`] bounds what decoding all spans
/// of one takes when large tags repeat.
const FULL_SPANS: usize = 512;
const FULL_BYTES: usize = 256 << 10;
const MAX_EXPANDED: usize = 4 << 20;

/// Takes spans in order of arrival.
#[derive(Debug, Default)]
pub struct SpanBlockBuilder {
    block: SpanBlock,
    hasher: RandomState,
    name_table: HashTable<u32>,
    tag_table: HashTable<u32>,
    trace_table: HashTable<u32>,
    process_table: HashTable<u32>,
    /// The last span's process: the spans of a batch share one.
    last_process: Option<(Arc<Process>, u32)>,
    last_trace: Option<u32>,
    scratch: Vec<u32>,
    hashes: SpanHashes,
    /// Bytes of the spans as they came.
    expanded: usize,
}

/// A block in the form it is stored in, and what the index and the trace table need to know.
#[derive(Clone, Debug)]
pub struct SealedSpanBlock {
    /// Its number is given by the partition.
    pub meta: BlockMeta,
    /// For [`SpanBlock::decode`].
    pub bytes: Vec<u8>,
    /// Gram filter of the tags.
    pub filter: Vec<u8>,
    /// Of all tags, for the filter of the run (run.rs).
    pub tags: Vec<TagHash>,
    /// Index terms, a space between them; [`super::BlockNeed`] asks for them.
    pub words: String,
    /// Distinct, sorted.
    pub trace_ids: Vec<u128>,
    /// Distinct service, operation and kind, with a zero byte between them.
    pub operations: Vec<Vec<u8>>,
    /// What it says of services (summary.rs).
    pub summary: Vec<u8>,
    /// What links its spans to others.
    pub links: Links,
}

impl SpanBlockBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose spans are hashed by another as well.
    pub fn with_hasher(hasher: RandomState) -> Self {
        Self {
            hasher,
            ..Self::default()
        }
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.block.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.block.spans.is_empty()
    }

    /// Whether it is time to seal.
    pub fn is_full(&self) -> bool {
        self.len() >= FULL_SPANS || self.expanded >= MAX_EXPANDED || self.memory() >= FULL_BYTES
    }

    /// Bytes of memory that the spans take, about.
    pub fn memory(&self) -> usize {
        let b = &self.block;
        b.names.text.len()
            + b.values.len()
            + b.blobs.len()
            + (b.names.len() + b.tag_lists.len() + b.warnings.len()) * 4
            + b.tags.len() * (size_of::<TagRow>() + 5)
            + b.processes.len() * size_of::<ProcessRow>()
            + b.traces.len() * (size_of::<TraceId>() + 5)
            + b.spans.len() * size_of::<SpanRow>()
            + b.refs.len() * size_of::<crate::model::trace::SpanRef>()
            + b.logs.len() * size_of::<LogRow>()
    }

    /// Bytes of the spans as they came, about.
    pub fn raw_bytes(&self) -> usize {
        self.expanded
    }

    /// What has come so far, to search and read in.
    pub fn block(&self) -> &SpanBlock {
        &self.block
    }

    pub fn append(&mut self, span: &Span) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.take(&self.hasher, span);
        self.append_hashed(span, &hashes);
        self.hashes = hashes;
    }

    /// The same with the hashes of the span, which were taken with this hasher.
    pub fn append_hashed(&mut self, span: &Span, hashes: &SpanHashes) {
        let process = self.process(&span.process);
        let trace = self.trace(span.trace_id);
        let operation = self.name_hashed(&span.operation, hashes.operation());
        let mut hashes = hashes.tags();
        let tags = self.tag_list(&span.tags, &mut hashes);

        let logs_start = self.block.logs.len() as u32;
        for log in &span.logs {
            let fields = self.tag_list(&log.fields, &mut hashes);
            self.block.logs.push(LogRow { at: log.at, fields });
        }
        let warnings_start = self.block.warnings.len() as u32;
        for warning in &span.warnings {
            let warning = self.name(warning);
            self.block.warnings.push(warning);
        }
        let refs_start = self.block.refs.len() as u32;
        self.block.refs.extend_from_slice(&span.references);

        self.expanded += span.operation.len() + 64;
        self.block.spans.push(SpanRow {
            span_id: span.span_id,
            start: span.start,
            duration: span.duration,
            trace,
            process,
            operation,
            flags: span.flags,
            refs: Part {
                start: refs_start,
                end: self.block.refs.len() as u32,
            },
            tags,
            logs: Part {
                start: logs_start,
                end: self.block.logs.len() as u32,
            },
            warnings: Part {
                start: warnings_start,
                end: self.block.warnings.len() as u32,
            },
        });
    }

    /// What has come, ready to be stored. `census` remembers which keys have too many values
    /// for the index.
    pub fn seal(&self, analyzer: &mut Analyzer, census: &mut TagCensus) -> SealedSpanBlock {
        let block = &self.block;
        let BlockTerms {
            words,
            filter,
            tags,
            operations,
        } = block.terms(analyzer, census);
        let bytes = block.encode();
        let starts = block.spans.iter().map(|s| s.start);
        let durations = block.spans.iter().map(|s| s.duration);
        let meta = BlockMeta {
            number: 0,
            spans: block.len() as u32,
            raw_bytes: self.expanded as u64,
            stored_bytes: bytes.len() as u32,
            min_start: starts.clone().min().unwrap_or(0),
            max_start: starts.max().unwrap_or(0),
            min_duration: durations.clone().min().unwrap_or(0),
            max_duration: durations.max().unwrap_or(0),
            terms: TERMS,
        };
        let mut trace_ids: Vec<u128> = block.traces.iter().map(|id| id.0).collect();
        // In order of keys, which enter the memtable at less cost so.
        trace_ids.sort_unstable();
        SealedSpanBlock {
            meta,
            bytes,
            filter,
            tags,
            words,
            trace_ids,
            operations,
            summary: block.summary(),
            links: block.links(),
        }
    }

    /// Forgets what has come; keeps the space for what comes next.
    pub fn clear(&mut self) {
        let block = &mut self.block;
        block.names.clear();
        block.values.clear();
        block.blobs.clear();
        block.tags.clear();
        block.processes.clear();
        block.traces.clear();
        block.spans.clear();
        block.tag_lists.clear();
        block.refs.clear();
        block.logs.clear();
        block.warnings.clear();
        self.name_table.clear();
        self.tag_table.clear();
        self.trace_table.clear();
        self.process_table.clear();
        self.last_process = None;
        self.last_trace = None;
        self.expanded = 0;
        // One huge span must not be paid for for ever.
        if self.block.values.capacity() + self.block.blobs.capacity() > 4 * FULL_BYTES {
            *self = Self::with_hasher(self.hasher.clone());
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        self.name_hashed(name, self.hasher.hash_one(name))
    }

    fn name_hashed(&mut self, name: &str, hash: u64) -> u32 {
        let names = &mut self.block.names;
        let hasher = &self.hasher;
        if let Some(found) = self.name_table.find(hash, |n| names.get(*n) == name) {
            return *found;
        }
        let new = names.push(name);
        self.name_table
            .insert_unique(hash, new, |n| hasher.hash_one(names.get(*n)));
        new
    }

    fn trace(&mut self, id: TraceId) -> u32 {
        let traces = &mut self.block.traces;
        if let Some(last) = self.last_trace
            && traces[last as usize] == id
        {
            return last;
        }
        let hasher = &self.hasher;
        let hash = hasher.hash_one(id);
        let found = match self.trace_table.find(hash, |n| traces[*n as usize] == id) {
            Some(found) => *found,
            None => {
                let new = traces.len() as u32;
                traces.push(id);
                self.trace_table
                    .insert_unique(hash, new, |n| hasher.hash_one(traces[*n as usize]));
                new
            }
        };
        self.last_trace = Some(found);
        found
    }

    fn process(&mut self, process: &Arc<Process>) -> u32 {
        if let Some((last, n)) = &self.last_process
            && Arc::ptr_eq(last, process)
        {
            return *n;
        }
        let service = self.name(&process.service);
        let mut tags = std::mem::take(&mut self.scratch);
        tags.clear();
        for tag in &process.tags {
            let hash = hash_tag(&self.hasher, &tag.key, ValueRef::from(&tag.value));
            tags.push(self.tag(tag, hash));
        }
        let block = &mut self.block;
        let hasher = &self.hasher;
        let hash = hasher.hash_one((service, &tags));
        let same = |n: &u32| {
            let row = &block.processes[*n as usize];
            row.service == service && block.tag_lists[row.tags.range()] == tags
        };
        let found = match self.process_table.find(hash, same) {
            Some(found) => *found,
            None => {
                let new = block.processes.len() as u32;
                let start = block.tag_lists.len() as u32;
                block.tag_lists.extend_from_slice(&tags);
                let tags = Part {
                    start,
                    end: block.tag_lists.len() as u32,
                };
                let made = Arc::clone(process).into();
                block.processes.push(ProcessRow {
                    service,
                    tags,
                    made,
                });
                let (processes, lists) = (&block.processes, &block.tag_lists);
                self.process_table.insert_unique(hash, new, |n| {
                    let row = &processes[*n as usize];
                    hasher.hash_one((row.service, &lists[row.tags.range()]))
                });
                new
            }
        };
        self.scratch = tags;
        self.last_process = Some((Arc::clone(process), found));
        found
    }

    fn tag_list(&mut self, tags: &[Tag], hashes: &mut std::slice::Iter<'_, u64>) -> Part {
        let start = self.block.tag_lists.len() as u32;
        for (tag, hash) in tags.iter().zip(hashes) {
            let tag = self.tag(tag, *hash);
            self.block.tag_lists.push(tag);
        }
        Part {
            start,
            end: self.block.tag_lists.len() as u32,
        }
    }

    fn tag(&mut self, tag: &Tag, hash: u64) -> u32 {
        let value = ValueRef::from(&tag.value);
        let block = &self.block;
        let same = |n: &u32| {
            let row = &block.tags[*n as usize];
            same_value(block.value(row), value) && block.names.get(row.key) == &*tag.key
        };
        let found = self.tag_table.find(hash, same).copied();
        self.expanded += tag.key.len() + 32;
        self.expanded += match value {
            ValueRef::String(text) => text.len(),
            ValueRef::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        if let Some(found) = found {
            return found;
        }
        let key = self.name(&tag.key);
        let block = &mut self.block;
        let value = match value {
            ValueRef::Bool(value) => Value::Bool(value),
            ValueRef::Int64(value) => Value::Int(value),
            ValueRef::Float64(value) => Value::Float(value),
            ValueRef::String(text) => {
                let start = block.values.len() as u32;
                block.values.push_str(text);
                Value::Text(start, block.values.len() as u32)
            }
            ValueRef::Binary(bytes) => {
                let start = block.blobs.len() as u32;
                block.blobs.extend_from_slice(bytes);
                Value::Blob(start, block.blobs.len() as u32)
            }
        };
        let new = block.tags.len() as u32;
        block.tags.push(TagRow { key, value });
        let hasher = &self.hasher;
        let block = &self.block;
        self.tag_table.insert_unique(hash, new, |n| {
            let row = &block.tags[*n as usize];
            hash_tag(hasher, block.names.get(row.key), block.value(row))
        });
        new
    }
}

/// Same type and same value; floats by their bits.
fn same_value(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::String(a), ValueRef::String(b)) => a == b,
        (ValueRef::Bool(a), ValueRef::Bool(b)) => a == b,
        (ValueRef::Int64(a), ValueRef::Int64(b)) => a == b,
        (ValueRef::Float64(a), ValueRef::Float64(b)) => a.to_bits() == b.to_bits(),
        (ValueRef::Binary(a), ValueRef::Binary(b)) => a == b,
        _ => false,
    }
}
