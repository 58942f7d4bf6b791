//! The open block of spans of one day of arrival.
//!
//! H3. Spans enter in journal order, so what a seal covers is a prefix of it.

use foldhash::fast::RandomState;

use super::Through;
use crate::model::Day;
use crate::model::trace::Span;
use crate::store::span::{SpanBlockBuilder, SpanHashes};

/// Spans of one day that are not sealed.
pub struct SpanHead {
    pub block: SpanBlockBuilder,
    /// First record that it holds a span of.
    pub first_seq: u64,
    /// Last span that entered, kept or dropped as a repetition.
    pub through: Through,
    pub opened_at: i64,
}

/// A span head that takes no more and is being sealed.
pub struct FrozenSpans {
    pub day: Day,
    /// How many heads were frozen before.
    pub order: u64,
    pub block: SpanBlockBuilder,
    pub first_seq: u64,
    pub through: Through,
    pub memory: usize,
}

impl SpanHead {
    /// `hasher` is that of the hashes that spans come with.
    pub fn new(first_seq: u64, now: i64, hasher: RandomState) -> Self {
        Self {
            block: SpanBlockBuilder::with_hasher(hasher),
            first_seq,
            through: Through::default(),
            opened_at: now,
        }
    }

    pub fn push(&mut self, span: &Span, hashes: &SpanHashes, through: Through) {
        self.block.append_hashed(span, hashes);
        self.through = through;
    }

    pub fn is_full(&self) -> bool {
        self.block.is_full()
    }

    pub fn memory(&self) -> usize {
        self.block.memory()
    }

    /// `order`: how many heads were frozen before.
    pub fn freeze(self, day: Day, order: u64) -> FrozenSpans {
        let memory = self.memory();
        FrozenSpans {
            day,
            order,
            block: self.block,
            first_seq: self.first_seq,
            through: self.through,
            memory,
        }
    }
}
