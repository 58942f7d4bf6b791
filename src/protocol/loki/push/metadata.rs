//! Structured metadata: names made acceptable, sets shared within a batch.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use crate::model::Metadata;

use super::DecodeError;

/// What a pair occupies beside its text: two fat pointers, counters, allocator's overhead.
const PAIR_COST: usize = 96;
/// What a set occupies beside its pairs.
const SET_COST: usize = 48;

/// The metadata sets of one batch; equal bytes of a request become one set.
#[derive(Default)]
pub struct Interner {
    sets: Vec<Metadata>,
    /// The hash of the bytes a set was decoded from, and where they lie in the request.
    seen: HashTable<Seen>,
    /// Names as sent, and what they become.
    names: HashMap<Box<[u8]>, Arc<str>, foldhash::fast::FixedState>,
    /// Sets by content: in JSON equal sets do not show by their bytes.
    known: HashTable<(u64, u32)>,
    /// Reused between sets.
    pairs: Vec<(Arc<str>, Arc<str>)>,
    last: Option<Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    hash: u64,
    start: usize,
    len: usize,
    /// As in `LogEntry::metadata`.
    number: u32,
}

impl Interner {
    /// The number of the set that was made of `source[start..end]` before, if any.
    pub fn find(&mut self, source: &[u8], start: usize, end: usize) -> Option<u32> {
        let wanted = source.get(start..end)?;
        // Neighbours are often equal.
        if let Some(last) = self.last
            && last.len == wanted.len()
            && source.get(last.start..last.start + last.len) == Some(wanted)
        {
            return Some(last.number);
        }
        let hash = hash_of(wanted);
        let found = *self.seen.find(hash, |s| {
            s.hash == hash && source.get(s.start..s.start + s.len) == Some(wanted)
        })?;
        self.last = Some(found);
        Some(found.number)
    }

    /// Remembers that `source[start..end]` gave set `number`.
    pub fn remember(&mut self, source: &[u8], start: usize, end: usize, number: u32) {
        let Some(bytes) = source.get(start..end) else {
            return;
        };
        let seen = Seen {
            hash: hash_of(bytes),
            start,
            len: bytes.len(),
            number,
        };
        self.seen.insert_unique(seen.hash, seen, |s| s.hash);
        self.last = Some(seen);
    }

    /// Adds a pair to the set being made; of equal names the last one wins. Returns the
    /// bytes it will occupy.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<usize, DecodeError> {
        let (name, _) = self.normal_name(name)?;
        let value: Arc<str> = clean_value(value).as_ref().into();
        let cost = PAIR_COST + name.len() + value.len();
        self.add_pair(name, value);
        Ok(cost)
    }

    /// The name that `name` is stored under, and whether it is new here.
    pub fn normal_name(&mut self, name: &[u8]) -> Result<(Arc<str>, bool), DecodeError> {
        if let Some(known) = self.names.get(name) {
            return Ok((known.clone(), false));
        }
        let normal: Arc<str> = normalize_name(name)?.into();
        self.names.insert(name.into(), normal.clone());
        Ok((normal, true))
    }

    /// Adds a pair whose name is normal already; of equal names the last one wins.
    pub fn add_pair(&mut self, name: Arc<str>, value: Arc<str>) {
        match self.pairs.binary_search_by(|(n, _)| n.cmp(&name)) {
            Ok(at) => self.pairs[at].1 = value,
            Err(at) => self.pairs.insert(at, (name, value)),
        }
    }

    /// Begins a set anew, with pairs that many sets share: sorted, names unique.
    pub fn begin(&mut self, shared: &[(Arc<str>, Arc<str>)]) {
        self.pairs.clear();
        self.pairs.extend_from_slice(shared);
    }

    /// The pairs of the set being made, which is given up.
    pub fn take_pairs(&mut self) -> Vec<(Arc<str>, Arc<str>)> {
        std::mem::take(&mut self.pairs)
    }

    /// Closes the set being made. Returns its number (0 when it is empty) and what it
    /// occupies beside its pairs.
    pub fn close(&mut self) -> (u32, usize) {
        if self.pairs.is_empty() {
            return (0, 0);
        }
        let hash = FixedState::default().hash_one(&self.pairs);
        let same = |(h, n): &(u64, u32)| {
            *h == hash
                && self
                    .sets
                    .get(*n as usize - 1)
                    .is_some_and(|s| **s == *self.pairs)
        };
        if let Some((_, number)) = self.known.find(hash, same) {
            let number = *number;
            self.pairs.clear();
            return (number, 0);
        }
        self.sets.push(self.pairs.drain(..).collect());
        // A set takes more bytes of the request than one: u32 is enough (D2).
        let number = self.sets.len() as u32;
        self.known.insert_unique(hash, (hash, number), |(h, _)| *h);
        (number, SET_COST)
    }

    pub fn into_sets(self) -> Vec<Metadata> {
        self.sets
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    FixedState::default().hash_one(bytes)
}

/// The name a metadata key is stored under: each run of characters outside `[a-zA-Z0-9]`
/// becomes one `_`, and a leading digit gets `key_` in front.
pub fn normalize_name(name: &[u8]) -> Result<String, DecodeError> {
    let mut normal = String::with_capacity(name.len() + 4);
    if name.first().is_some_and(u8::is_ascii_digit) {
        normal.push_str("key_");
    }
    let mut in_run = false;
    let mut any = false;
    for b in name {
        if b.is_ascii_alphanumeric() {
            normal.push(char::from(*b));
            in_run = false;
            any = true;
        } else if !in_run {
            normal.push('_');
            in_run = true;
        }
    }
    if !any {
        return Err(DecodeError::invalid(format!(
            "structured metadata name {:?} has no letter or digit",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(normal)
}

/// The text of a value: each byte that is not UTF-8 becomes a blank, as does U+FFFD.
pub fn clean_value(value: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(value) {
        Ok(text) if !text.contains('\u{fffd}') => Cow::Borrowed(text),
        _ => {
            let mut clean = String::with_capacity(value.len());
            for chunk in value.utf8_chunks() {
                clean.extend(
                    chunk
                        .valid()
                        .chars()
                        .map(|c| if c == '\u{fffd}' { ' ' } else { c }),
                );
                clean.extend(chunk.invalid().iter().map(|_| ' '));
            }
            Cow::Owned(clean)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized_as_loki_does() {
        for (name, normal) in [
            ("trace_id", "trace_id"),
            ("a..b", "a_b"),
            ("__y", "_y"),
            ("_y", "_y"),
            ("A B", "A_B"),
            ("9x", "key_9x"),
            ("a.", "a_"),
            ("é1", "_1"),
        ] {
            assert_eq!(normalize_name(name.as_bytes()).as_deref(), Ok(normal));
        }
        for name in ["", "-", "é", "__"] {
            assert!(normalize_name(name.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_become_blanks() {
        assert_eq!(clean_value(b"a\xff\xfeb\xc3"), "a  b ");
        assert_eq!(clean_value("é\u{fffd}".as_bytes()), "é ");
    }
}
