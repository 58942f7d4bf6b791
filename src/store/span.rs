//! The stored form of spans: blocks in order of arrival, and what the index is told of them.
//!
//! A block is one thing in three states: it grows in memory ([`SpanBlockBuilder`]), it is
//! sealed into bytes ([`SealedSpanBlock`]) and read back ([`SpanBlock::decode`]). What repeats
//! (keys, operations, processes, whole tags) is kept once per block, so that a search looks at
//! each distinct tag once.
//!
//! B1. Decoding gives back every span exactly, in order of arrival.
//! B2. Bytes that were not written by [`SpanBlock::encode`] are refused, or give a block whose
//!     every index is valid; never a panic.
//! B3. The terms and the filter of a block never rule it out when a span in it matches
//!     ([`terms`]).

mod build;
mod codec;
mod fingerprint;
mod likeness;
pub mod links;
pub mod run;
pub mod summary;
mod terms;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use self::build::{SealedSpanBlock, SpanBlockBuilder};
pub use self::codec::SpanCodecError;
pub use self::fingerprint::Fingerprints;
pub use self::likeness::{Likeness, SpanHashes};
pub use self::terms::{BlockNeed, BlockTerms, TERMS, TagCensus, query_terms};
use crate::model::search::{SpanMatcher, ValueRef};
use crate::model::time::Timestamp;
use crate::model::trace::{Process, Span, SpanId, SpanLog, SpanRef, Tag, TagValue, TraceId};

/// What is known of a block without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMeta {
    pub number: u32,
    pub spans: u32,
    /// Of the spans as they came, about.
    pub raw_bytes: u64,
    pub stored_bytes: u32,
    pub min_start: Timestamp,
    pub max_start: Timestamp,
    /// Nanoseconds.
    pub min_duration: u64,
    pub max_duration: u64,
    /// Which terms the index has of it: 0 for those of older blocks, else [`TERMS`].
    pub terms: u8,
}

impl BlockMeta {
    /// Whether it stands for a block that was taken out.
    pub fn is_removed(&self) -> bool {
        self.spans == 0
    }

    /// Times and durations between which those of all blocks lie.
    pub fn around(blocks: &[Arc<Self>]) -> Self {
        let mut blocks = blocks.iter().filter(|block| !block.is_removed());
        let Some(first) = blocks.next() else {
            return Self::default();
        };
        blocks.fold(Self::clone(first), |all, block| Self {
            spans: all.spans.saturating_add(block.spans),
            min_start: all.min_start.min(block.min_start),
            max_start: all.max_start.max(block.max_start),
            min_duration: all.min_duration.min(block.min_duration),
            max_duration: all.max_duration.max(block.max_duration),
            ..all
        })
    }

    /// Whether times and durations let the block hold what a search looks for.
    pub fn may_match(&self, matcher: &SpanMatcher) -> bool {
        matcher.starts_match(self.min_start, self.max_start)
            && matcher.durations_match(self.min_duration, self.max_duration)
    }
}

/// Of a process's tag, for its text where that is longer than the tag itself holds.
const MADE_TEXT: usize = 16;

/// Spans with their dictionaries. All indices are valid (B2).
#[derive(Clone, Debug, Default)]
pub struct SpanBlock {
    /// Keys, operations, services, warnings: distinct.
    names: Texts,
    /// Values of text tags, one after the other.
    values: String,
    blobs: Vec<u8>,
    /// Distinct by key, type and value.
    tags: Vec<TagRow>,
    processes: Vec<ProcessRow>,
    /// Distinct.
    traces: Vec<TraceId>,
    spans: Vec<SpanRow>,
    /// Tags of processes, spans and logs, as indices.
    tag_lists: Vec<u32>,
    refs: Vec<SpanRef>,
    logs: Vec<LogRow>,
    /// Warnings of spans, as indices of names.
    warnings: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct TagRow {
    key: u32,
    value: Value,
}

/// Text and bytes are ranges of `values` and `blobs`.
#[derive(Clone, Copy, Debug)]
enum Value {
    Text(u32, u32),
    Bool(bool),
    Int(i64),
    Float(f64),
    Blob(u32, u32),
}

#[derive(Clone, Debug)]
struct ProcessRow {
    service: u32,
    tags: Part,
    /// Made when first asked for, then shared by the spans of this block.
    made: OnceLock<Arc<Process>>,
}

#[derive(Clone, Copy, Debug)]
struct SpanRow {
    span_id: SpanId,
    start: Timestamp,
    duration: u64,
    trace: u32,
    process: u32,
    operation: u32,
    flags: u32,
    refs: Part,
    tags: Part,
    logs: Part,
    warnings: Part,
}

#[derive(Clone, Copy, Debug)]
struct LogRow {
    at: Timestamp,
    fields: Part,
}

/// A range of another table.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    start: u32,
    end: u32,
}

impl Part {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Texts one after the other.
#[derive(Clone, Debug, Default)]
struct Texts {
    text: String,
    ends: Vec<u32>,
}

impl Texts {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn push(&mut self, text: &str) -> u32 {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
        self.ends.len() as u32 - 1
    }

    fn get(&self, n: u32) -> &str {
        let n = n as usize;
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        &self.text[start as usize..self.ends[n] as usize]
    }

    fn position(&self, text: &str) -> Option<u32> {
        (0..self.len() as u32).find(|n| self.get(*n) == text)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

impl SpanBlock {
    /// Number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of memory that it takes, about, with the processes that are made of it.
    pub fn memory(&self) -> usize {
        let numbers = self.names.ends.capacity() + self.tag_lists.capacity();
        // What is made of them when somebody asks, which is later than this is booked.
        let made = |row: &ProcessRow| row.tags.range().len() * (size_of::<Tag>() + MADE_TEXT);
        size_of::<Self>()
            + self.names.text.capacity()
            + self.values.capacity()
            + self.blobs.capacity()
            + (numbers + self.warnings.capacity()) * size_of::<u32>()
            + self.tags.capacity() * size_of::<TagRow>()
            + self.processes.capacity() * (size_of::<ProcessRow>() + size_of::<Process>())
            + self.traces.capacity() * size_of::<TraceId>()
            + self.spans.capacity() * size_of::<SpanRow>()
            + self.refs.capacity() * size_of::<SpanRef>()
            + self.logs.capacity() * size_of::<LogRow>()
            + self.processes.iter().map(made).sum::<usize>()
    }

    /// The distinct traces, in order of first appearance.
    pub fn traces(&self) -> &[TraceId] {
        &self.traces
    }

    /// The trace of the `n`th span, `n < len()`.
    pub fn trace_of(&self, n: usize) -> TraceId {
        self.traces[self.spans[n].trace as usize]
    }

    /// The start of the `n`th span, `n < len()`.
    pub fn start_of(&self, n: usize) -> Timestamp {
        self.spans[n].start
    }

    /// The `n`th span in full, `n < len()`.
    pub fn span(&self, n: usize) -> Span {
        let row = &self.spans[n];
        Span {
            trace_id: self.traces[row.trace as usize],
            span_id: row.span_id,
            operation: self.names.get(row.operation).into(),
            references: self.refs[row.refs.range()].to_vec(),
            flags: row.flags,
            start: row.start,
            duration: row.duration,
            tags: self.tag_list(row.tags),
            logs: self.logs[row.logs.range()]
                .iter()
                .map(|log| SpanLog {
                    at: log.at,
                    fields: self.tag_list(log.fields),
                })
                .collect(),
            process: Arc::clone(self.process(row.process)),
            warnings: self.warnings[row.warnings.range()]
                .iter()
                .map(|n| self.names.get(*n).into())
                .collect(),
        }
    }

    /// All spans, in order of arrival.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span> {
        (0..self.len()).map(|n| self.span(n))
    }

    /// The spans of one trace, in order of arrival. Builds no others.
    pub fn spans_of(&self, trace: TraceId) -> impl Iterator<Item = Span> {
        let index = self.traces.iter().position(|t| *t == trace);
        let rows = if index.is_some() {
            &self.spans[..]
        } else {
            &[]
        };
        rows.iter()
            .enumerate()
            .filter(move |(_, row)| Some(row.trace as usize) == index)
            .map(|(n, _)| self.span(n))
    }

    /// The places of the spans that a search looks for. Builds no span: each distinct tag is
    /// looked at once, then spans are compared by number.
    pub fn search(&self, matcher: &SpanMatcher) -> Vec<usize> {
        let Some(wanted) = Wanted::new(self, matcher) else {
            return Vec::new();
        };
        let matches = |row: &SpanRow| {
            matcher.times_match(row.start, row.duration)
                && wanted.processes[row.process as usize]
                && wanted.operation.is_none_or(|n| n == row.operation)
                && wanted.tags.iter().all(|tag| {
                    let held = |part: Part| {
                        self.tag_lists[part.range()]
                            .iter()
                            .any(|n| tag.tags[*n as usize])
                    };
                    tag.processes[row.process as usize]
                        || held(row.tags)
                        || self.logs[row.logs.range()]
                            .iter()
                            .any(|log| held(log.fields))
                })
        };
        (0..self.len())
            .filter(|n| matches(&self.spans[*n]))
            .collect()
    }

    fn tag_list(&self, part: Part) -> Vec<Tag> {
        self.tag_lists[part.range()]
            .iter()
            .map(|n| self.tag(*n))
            .collect()
    }

    fn tag(&self, n: u32) -> Tag {
        let row = &self.tags[n as usize];
        let value = match self.value(row) {
            ValueRef::String(text) => TagValue::String(text.into()),
            ValueRef::Bool(value) => TagValue::Bool(value),
            ValueRef::Int64(value) => TagValue::Int64(value),
            ValueRef::Float64(value) => TagValue::Float64(value),
            ValueRef::Binary(bytes) => TagValue::Binary(bytes.into()),
        };
        Tag {
            key: self.names.get(row.key).into(),
            value,
        }
    }

    fn value(&self, row: &TagRow) -> ValueRef<'_> {
        match row.value {
            Value::Text(start, end) => ValueRef::String(&self.values[start as usize..end as usize]),
            Value::Bool(value) => ValueRef::Bool(value),
            Value::Int(value) => ValueRef::Int64(value),
            Value::Float(value) => ValueRef::Float64(value),
            Value::Blob(start, end) => ValueRef::Binary(&self.blobs[start as usize..end as usize]),
        }
    }

    fn process(&self, n: u32) -> &Arc<Process> {
        let row = &self.processes[n as usize];
        row.made.get_or_init(|| {
            Arc::new(Process {
                service: self.names.get(row.service).into(),
                tags: self.tag_list(row.tags),
            })
        })
    }
}

/// A search in the numbers of one block.
struct Wanted {
    operation: Option<u32>,
    /// Processes of the service.
    processes: Vec<bool>,
    tags: Vec<WantedTag>,
}

/// Which tags, and which processes by their tags, meet one condition.
struct WantedTag {
    tags: Vec<bool>,
    processes: Vec<bool>,
}

impl Wanted {
    /// `None` when no span of the block can match.
    fn new(block: &SpanBlock, matcher: &SpanMatcher) -> Option<Self> {
        let operation = match matcher.operation.as_str() {
            "" => None,
            name => Some(block.names.position(name)?),
        };
        let service = match matcher.service.as_str() {
            "" => None,
            name => Some(block.names.position(name)?),
        };
        let processes: Vec<bool> = block
            .processes
            .iter()
            .map(|p| service.is_none_or(|n| n == p.service))
            .collect();
        if !processes.contains(&true) {
            return None;
        }
        let mut tags = Vec::with_capacity(matcher.tags.len());
        for wanted in &matcher.tags {
            let key = block.names.position(&wanted.key)?;
            let held: Vec<bool> = block
                .tags
                .iter()
                .map(|row| row.key == key && wanted.matches_text(&block.value(row).text()))
                .collect();
            if !held.contains(&true) {
                return None;
            }
            let processes = block
                .processes
                .iter()
                .map(|p| {
                    block.tag_lists[p.tags.range()]
                        .iter()
                        .any(|n| held[*n as usize])
                })
                .collect();
            tags.push(WantedTag {
                tags: held,
                processes,
            });
        }
        Some(Self {
            operation,
            processes,
            tags,
        })
    }
}

#[cfg(test)]
mod tests;
