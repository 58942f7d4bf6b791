//! What a day of spans has of services, operations and kinds: lists of them are asked for by every
//! page of a trace viewer, and the family would be searched for them table by table.
//!
//! O1. What is written to the family is what has not been written before, as far as is known.
//! O2. What is kept at hand is all that the family lists, or nothing.

use std::collections::BTreeSet;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// So many operations of a day are known as written already.
const KNOWN: usize = 16 << 10;
/// Bytes of a day's operations that are kept at hand; a day with more is read anew each time.
/// Thirty such days take less than a hundredth of the smallest budget.
const MAX_KEPT: usize = 32 << 10;
/// What an entry takes beside its bytes.
const ENTRY: usize = 32;

/// Operations as `service 00 operation 00 kind`.
#[derive(Debug, Default)]
pub struct Operations {
    /// Hashes of those that this process wrote to the family. They are flushed before or
    /// with what is written later, so they need not be written again.
    written: HashSet<u64>,
    listed: Listed,
    kept: usize,
}

#[derive(Debug, Default)]
enum Listed {
    /// Nobody has asked yet.
    #[default]
    Unread,
    /// All that the family has (O2).
    All(BTreeSet<Box<[u8]>>),
    TooMany,
}

impl Operations {
    /// Those of a day that has none.
    pub fn none() -> Self {
        Self {
            listed: Listed::All(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// Whether the family has it, as far as is known.
    pub fn is_written(&self, operation: &[u8]) -> bool {
        self.written.contains(&xxh3_64(operation))
    }

    /// Notes what the family has from now on.
    pub fn wrote(&mut self, operations: Vec<Vec<u8>>) {
        for operation in operations {
            if self.written.len() < KNOWN {
                self.written.insert(xxh3_64(&operation));
            }
            self.keep(&operation);
        }
    }

    /// All that the family has, if it is at hand.
    pub fn at_hand(&self) -> Option<&BTreeSet<Box<[u8]>>> {
        match &self.listed {
            Listed::All(operations) => Some(operations),
            Listed::Unread | Listed::TooMany => None,
        }
    }

    /// Begins to read all from the family; each is told with [`Self::keep`].
    pub fn begin(&mut self) {
        if matches!(self.listed, Listed::Unread) {
            self.listed = Listed::All(BTreeSet::new());
        }
    }

    /// Not all could be read.
    pub fn forget(&mut self) {
        self.listed = Listed::Unread;
        self.kept = 0;
    }

    pub fn keep(&mut self, operation: &[u8]) {
        if let Listed::All(operations) = &mut self.listed
            && !operations.contains(operation)
        {
            self.kept += operation.len() + ENTRY;
            operations.insert(operation.into());
            if self.kept > MAX_KEPT {
                self.listed = Listed::TooMany;
                self.kept = 0;
            }
        }
    }

    /// Bytes of memory, about.
    pub fn memory(&self) -> usize {
        self.kept + self.written.len() * 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(operations: &Operations) -> Option<Vec<&[u8]>> {
        let at_hand = operations.at_hand()?;
        Some(at_hand.iter().map(|o| &**o).collect())
    }

    #[test]
    fn a_new_day_has_what_was_written() {
        let mut operations = Operations::none();
        assert_eq!(all(&operations), Some(vec![]));
        operations.wrote(vec![b"b".to_vec(), b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(all(&operations), Some(vec![&b"a"[..], b"b"]));
        assert!(operations.is_written(b"a"));
        assert!(!operations.is_written(b"c"));
    }

    #[test]
    fn an_older_day_has_nothing_at_hand_until_all_was_read() {
        let mut operations = Operations::default();
        operations.wrote(vec![b"late".to_vec()]);
        assert_eq!(all(&operations), None);
        operations.begin();
        operations.keep(b"early");
        operations.keep(b"late");
        assert_eq!(all(&operations), Some(vec![&b"early"[..], b"late"]));
        operations.forget();
        assert_eq!(all(&operations), None);
        assert!(operations.is_written(b"late"));
    }

    #[test]
    fn too_many_are_not_kept() {
        let mut operations = Operations::none();
        operations.wrote(
            (0..KNOWN + 1)
                .map(|n| format!("o{n}").into_bytes())
                .collect(),
        );
        assert_eq!(all(&operations), None);
        assert!(operations.is_written(b"o1"));
        assert!(!operations.is_written(format!("o{KNOWN}").as_bytes()));
        operations.begin();
        operations.keep(b"o1");
        assert_eq!(all(&operations), None, "begun anew");
        assert!(operations.memory() < 160 << 10);
    }
}
