//! The open chunk of one stream and day.
//!
//! H1. Lines enter in journal order, so what a seal covers is a prefix of it ([`Through`]).
//! H2. A line equal to one of the head in time, text and metadata is dropped.

use std::sync::Arc;

use hashbrown::HashSet;
use xxhash_rust::xxh3::Xxh3;

use super::Through;
use crate::model::log::Metadata;
use crate::model::{Day, StreamId, Timestamp};
use crate::store::chunk::LineBlock;
use crate::store::streams::Stream;

/// A head with this much text is sealed. 1 MiB would save 3 % of disk and cost four times
/// the memory and the decoding per needle (docs/benchmarks.md).
pub const HEAD_BYTES: usize = 256 << 10;
/// Text of a part that no longer changes. Smaller means less to copy for a snapshot.
const PART_BYTES: usize = 64 << 10;
/// Bytes of a head itself, its place in the table of heads, and what its vectors begin with.
pub const HEAD_OVERHEAD: usize = 480;
/// So many lines of one time are compared one by one before a set of hashes is built.
const COMPARE_AT_MOST: usize = 16;

/// Which head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadKey {
    pub day: Day,
    pub stream: StreamId,
}

/// Lines of one stream and day that are not sealed.
pub struct Head {
    pub stream: Arc<Stream>,
    parts: Vec<Arc<LineBlock>>,
    tail: LineBlock,
    /// First record that it holds a line of.
    pub first_seq: u64,
    /// Last line that entered, kept or dropped as a repetition.
    pub through: Through,
    pub min: Timestamp,
    pub max: Timestamp,
    lines: usize,
    text: usize,
    /// When it was opened and last written to, by the clock.
    pub opened_at: i64,
    pub touched_at: i64,
    /// Hashes of all its lines; built when the first line comes that may repeat one.
    seen: Option<HashSet<u64>>,
}

/// A head that takes no more lines and is being sealed.
pub struct FrozenHead {
    pub key: HeadKey,
    /// How many heads were frozen before.
    pub order: u64,
    pub stream: Arc<Stream>,
    pub parts: Vec<Arc<LineBlock>>,
    pub first_seq: u64,
    pub through: Through,
    pub min: Timestamp,
    pub max: Timestamp,
    pub memory: usize,
}

impl Head {
    pub fn new(stream: Arc<Stream>, first_seq: u64, now: i64) -> Self {
        Self {
            stream,
            parts: Vec::new(),
            tail: LineBlock::default(),
            first_seq,
            through: Through::default(),
            min: Timestamp::MAX,
            max: Timestamp::MIN,
            lines: 0,
            text: 0,
            opened_at: now,
            touched_at: now,
            seen: None,
        }
    }

    /// Adds a line; false when it repeats one (H2).
    pub fn push(
        &mut self,
        at: Timestamp,
        line: &[u8],
        metadata: Option<&Metadata>,
        through: Through,
    ) -> bool {
        self.through = through;
        if (at <= self.max || self.seen.is_some()) && self.repeats(at, line, metadata) {
            return false;
        }
        if self.tail.text.len() + line.len() >= PART_BYTES && !self.tail.is_empty() {
            let mut part = std::mem::take(&mut self.tail);
            part.text.shrink_to_fit();
            self.parts.push(Arc::new(part));
        }
        self.tail.push(at, line, metadata);
        self.min = self.min.min(at);
        self.max = self.max.max(at);
        self.lines += 1;
        self.text += line.len() + 1;
        true
    }

    fn repeats(&mut self, at: Timestamp, line: &[u8], metadata: Option<&Metadata>) -> bool {
        let hash = |at: Timestamp, line: &[u8], metadata: Option<&Metadata>| {
            let mut hash = Xxh3::new();
            hash.update(&at.to_le_bytes());
            hash.update(line);
            for (name, value) in metadata.iter().flat_map(|set| set.iter()) {
                hash.update(&[0xff]);
                hash.update(name.as_bytes());
                hash.update(&[0xff]);
                hash.update(value.as_bytes());
            }
            hash.digest()
        };
        let same = |block: &LineBlock, i: usize| {
            block.at[i] == at && block.line(i) == line && block.metadata_of(i) == metadata
        };
        if self.seen.is_none() && at == self.max {
            // The usual case of equal times: the last few lines of the head.
            let run = self.tail.at.iter().rev().take_while(|t| **t == at).count();
            if run < self.tail.len() && run <= COMPARE_AT_MOST {
                let len = self.tail.len();
                return (len - run..len).any(|i| same(&self.tail, i));
            }
        }
        let blocks = || self.parts.iter().map(|p| &**p).chain([&self.tail]);
        let seen = match &mut self.seen {
            Some(seen) => seen,
            None => {
                let mut seen = HashSet::with_capacity(self.lines * 2);
                for block in blocks() {
                    for i in 0..block.len() {
                        seen.insert(hash(block.at[i], block.line(i), block.metadata_of(i)));
                    }
                }
                self.seen.insert(seen)
            }
        };
        if seen.insert(hash(at, line, metadata)) {
            return false;
        }
        // Equal hashes are not yet equal lines.
        let blocks = || self.parts.iter().map(|p| &**p).chain([&self.tail]);
        blocks().any(|block| (0..block.len()).any(|i| same(block, i)))
    }

    pub fn lines(&self) -> usize {
        self.lines
    }

    pub fn is_full(&self) -> bool {
        self.text >= HEAD_BYTES
    }

    /// Memory that it holds, bytes; an estimate that is cheap.
    pub fn memory(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |s| s.capacity() * 9);
        let growing = self
            .tail
            .text
            .capacity()
            .saturating_sub(self.tail.text.len());
        HEAD_OVERHEAD + self.text + growing + self.lines * 16 + seen
    }

    /// Its lines as they are now, in order of arrival.
    pub fn view(&self) -> Vec<Arc<LineBlock>> {
        let mut parts = self.parts.clone();
        if !self.tail.is_empty() {
            parts.push(Arc::new(self.tail.clone()));
        }
        parts
    }

    /// `order`: how many heads were frozen before.
    pub fn freeze(mut self, key: HeadKey, order: u64) -> FrozenHead {
        let memory = self.memory();
        if !self.tail.is_empty() {
            self.parts.push(Arc::new(self.tail));
        }
        FrozenHead {
            key,
            order,
            stream: self.stream,
            parts: self.parts,
            first_seq: self.first_seq,
            through: self.through,
            min: self.min,
            max: self.max,
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;
    use crate::store::streams::Streams;
    use std::collections::HashSet as Oracle;

    fn head() -> Head {
        let labels = Labels::from_pairs([("a", "1")]);
        let stream = Streams::default().register(&"".into(), StreamId::of("", &labels), &labels);
        Head::new(stream, 1, 0)
    }

    #[test]
    fn a_repetition_is_dropped_wherever_the_first_one_is() {
        let mut head = head();
        let mut oracle = Oracle::new();
        let mut state = 7u64;
        for entry in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 60) as i64 + entry / 500;
            let line = format!("line {}", (state >> 33) % 40);
            let kept = head.push(
                at,
                line.as_bytes(),
                None,
                Through {
                    seq: 1,
                    entry: entry as u32,
                },
            );
            assert_eq!(kept, oracle.insert((at, line)), "entry {entry}");
        }
        let lines: usize = head.view().iter().map(|b| b.len()).sum();
        assert_eq!((lines, head.lines()), (oracle.len(), oracle.len()));
        assert_eq!(head.through.entry, 19_999);
    }

    #[test]
    fn other_metadata_makes_another_line() {
        let mut head = head();
        let set: Metadata = Arc::from(vec![("k".into(), "v".into())]);
        let at = Through::default();
        assert!(head.push(5, b"x", None, at));
        assert!(head.push(5, b"x", Some(&set), at));
        assert!(!head.push(5, b"x", Some(&set), at));
        assert!(head.push(4, b"x", Some(&set), at));
        assert!(!head.push(4, b"x", Some(&set), at));
    }
}
