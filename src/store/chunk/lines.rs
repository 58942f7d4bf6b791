//! Lines of one stream in memory: what a head collects and what a chunk decodes to.

use std::mem::size_of;

use crate::model::log::Metadata;

/// Lines in columns.
///
/// L1. `ends[i]` is where line i ends in `text`; a `\n` follows it, and the next line follows
///     that. The `\n` is ours: it makes whole-buffer search possible and belongs to no line.
/// L2. `at`, `ends` have one element a line; `metadata` as well, or is empty when no line
///     has any. 0 is none, n is `sets[n - 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineBlock {
    pub at: Vec<i64>,
    pub ends: Vec<u32>,
    pub text: Vec<u8>,
    pub metadata: Vec<u32>,
    pub sets: Vec<Metadata>,
}

impl LineBlock {
    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The `index`-th line, without our `\n`.
    #[inline]
    pub fn line(&self, index: usize) -> &[u8] {
        line_of(&self.text, &self.ends, index)
    }

    /// Structured metadata of the `index`-th line.
    #[inline]
    pub fn metadata_of(&self, index: usize) -> Option<&Metadata> {
        match self.metadata.get(index) {
            None | Some(0) => None,
            Some(n) => self.sets.get(*n as usize - 1),
        }
    }

    /// Appends a line.
    pub fn push(&mut self, at: i64, line: &[u8], metadata: Option<&Metadata>) {
        if let Some(set) = metadata {
            if self.metadata.is_empty() {
                self.metadata.resize(self.at.len(), 0);
            }
            // Clients repeat a set from line to line; the last one is worth a look.
            if self.sets.last() != Some(set) {
                self.sets.push(set.clone());
            }
            self.metadata.push(self.sets.len() as u32);
        } else if !self.metadata.is_empty() {
            self.metadata.push(0);
        }
        self.at.push(at);
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len() as u32);
        self.text.push(b'\n');
    }

    /// Appends all lines of `other`.
    pub fn append(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        if !self.metadata.is_empty() || !other.metadata.is_empty() {
            let base = self.sets.len() as u32;
            self.metadata.resize(self.at.len(), 0);
            self.metadata.extend(
                other
                    .metadata
                    .iter()
                    .map(|n| if *n == 0 { 0 } else { n + base }),
            );
            self.sets.extend_from_slice(&other.sets);
        }
        let base = self.text.len() as u32;
        self.at.extend_from_slice(&other.at);
        self.ends.extend(other.ends.iter().map(|end| end + base));
        self.text.extend_from_slice(&other.text);
        if !self.metadata.is_empty() {
            self.metadata.resize(self.at.len(), 0);
        }
    }

    /// Sorts by time; lines of equal time keep their order.
    pub fn sort_by_time(&mut self) {
        if self.at.is_sorted() {
            return;
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|i| self.at[*i as usize]);
        let mut sorted = Self {
            at: Vec::with_capacity(self.len()),
            ends: Vec::with_capacity(self.len()),
            text: Vec::with_capacity(self.text.len()),
            metadata: Vec::with_capacity(self.metadata.len()),
            sets: std::mem::take(&mut self.sets),
        };
        for i in order {
            let i = i as usize;
            sorted.at.push(self.at[i]);
            sorted.text.extend_from_slice(self.line(i));
            sorted.ends.push(sorted.text.len() as u32);
            sorted.text.push(b'\n');
            if let Some(n) = self.metadata.get(i) {
                sorted.metadata.push(*n);
            }
        }
        *self = sorted;
    }

    /// Bytes of all lines, without our `\n`s.
    pub fn line_bytes(&self) -> u64 {
        (self.text.len() - self.len()) as u64
    }

    /// Memory that it holds, bytes.
    pub fn memory(&self) -> usize {
        let sets: usize = self
            .sets
            .iter()
            .flat_map(|s| s.iter())
            .map(|(n, v)| n.len() + v.len() + 64)
            .sum();
        self.text.capacity()
            + self.at.capacity() * size_of::<i64>()
            + (self.ends.capacity() + self.metadata.capacity()) * size_of::<u32>()
            + sets
    }
}

/// The `index`-th line of a buffer laid out as L1 says.
#[inline]
pub fn line_of<'a>(text: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 {
        0
    } else {
        ends[index - 1] as usize + 1
    };
    &text[start..ends[index] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn set(value: &str) -> Metadata {
        Arc::from(vec![("k".into(), value.into())])
    }

    #[test]
    fn sorting_is_stable_and_keeps_lines_with_their_metadata() {
        let mut block = LineBlock::default();
        block.push(5, b"a", None);
        block.push(3, b"b\nb", Some(&set("1")));
        block.push(5, b"", None);
        block.push(3, b"d", Some(&set("2")));
        block.sort_by_time();
        let lines: Vec<_> = (0..4).map(|i| (block.at[i], block.line(i))).collect();
        assert_eq!(lines, [(3, &b"b\nb"[..]), (3, b"d"), (5, b"a"), (5, b"")]);
        assert_eq!(block.metadata_of(0), Some(&set("1")));
        assert_eq!(block.metadata_of(1), Some(&set("2")));
        assert_eq!(block.metadata_of(3), None);
    }

    #[test]
    fn appending_blocks_equals_pushing_their_lines() {
        let (mut one, mut two, mut all) = Default::default();
        let push = |b: &mut LineBlock, at, line: &[u8], m: Option<&str>| {
            b.push(at, line, m.map(set).as_ref());
        };
        for (b, at, line, m) in [
            (0, 1, &b"x"[..], None),
            (0, 2, b"y", Some("1")),
            (1, 3, b"z", None),
            (1, 4, b"", Some("2")),
        ] {
            push(if b == 0 { &mut one } else { &mut two }, at, line, m);
            push(&mut all, at, line, m);
        }
        let mut joined: LineBlock = one;
        joined.append(&two);
        assert_eq!(joined, all);
        let mut plain = LineBlock::default();
        plain.push(0, b"p", None);
        plain.append(&all);
        assert_eq!(
            (plain.metadata_of(0), plain.metadata_of(2)),
            (None, Some(&set("1")))
        );
    }
}
