//! Which spans came lately: an exact repetition, which a sender's retry is, is stored once.
//!
//! H4. Only what was stored before, or was dropped for what was, makes a span a repetition: the
//!     first of equal spans is in a head or a block, behind it in the journal. What is not
//!     recognised (after a change of day, after so many others, after a start) is left out when
//!     a trace is read, so replay need not decide as the first time.

use hashbrown::HashTable;

use crate::model::Day;
use crate::store::span::Likeness;

/// Spans of a generation; two are remembered. The tables are just full then, 1.1 MB each.
const GENERATION: usize = 57_344;

/// Likenesses of the last spans of one day: at least 57,344 of them, at most twice as many.
#[derive(Default)]
pub struct RecentSpans {
    day: Option<Day>,
    newer: HashTable<Likeness>,
    older: HashTable<Likeness>,
}

impl RecentSpans {
    /// Takes note of a span; whether it is a repetition.
    pub fn repeats(&mut self, day: Day, span: Likeness) -> bool {
        if Some(day) != self.day {
            self.day = Some(day);
            self.newer.clear();
            self.older.clear();
        }
        let hash = hash(&span);
        let known = |table: &HashTable<Likeness>| table.find(hash, |s| *s == span).is_some();
        if known(&self.newer) || known(&self.older) {
            return true;
        }
        if self.newer.len() >= GENERATION {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert_unique(hash, span, self::hash);
        false
    }

    /// Memory that it holds, bytes.
    pub fn memory(&self) -> usize {
        (self.newer.capacity() + self.older.capacity()) * (size_of::<Likeness>() + 1) * 8 / 7
    }
}

fn hash(span: &Likeness) -> u64 {
    (span.0 >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_spans_are_remembered_and_memory_is_bounded() {
        let span = |n: usize| Likeness((n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060));
        let mut recent = RecentSpans::default();
        for n in 0..3 * GENERATION {
            assert!(!recent.repeats(Day(1), span(n)), "{n}");
            let back = n.saturating_sub(GENERATION - 1);
            assert!(recent.repeats(Day(1), span(back)), "{back} at {n}");
        }
        assert!(recent.memory() < 3 << 20, "{}", recent.memory());
        assert!(!recent.repeats(Day(1), span(0)), "long ago");
        assert!(!recent.repeats(Day(2), span(3 * GENERATION - 1)));
    }
}
