//! What a chunk's text gives to the index: its words, and the filter of its grams.
//!
//! One look at each byte. Case is folded for ASCII letters only; nothing here knows where a
//! query's needle will begin or end, so every rule depends on neighbouring bytes alone:
//!
//! A1. An *id run* is a maximal run of `[0-9a-f-]` with at least 16 hexadecimal digits. The
//!     minimizers of its eight-byte grams are in the filter.
//! A2. A *gram* is any five bytes of `[a-z_0-9.:]` and from 0x80, with at least one digit, not
//!     wholly inside an id run. Every gram is in the filter.
//! A3. A *word* is a maximal run of at least three of `[a-z_]` and from 0x80, not wholly inside
//!     an id run. Every word is in the words, unless the chunk is flagged as overflowing.
//! A4. Nothing joins the end of a line to the start of the next.
//! A5. No digit reaches the words: ids and numbers are what makes an index of logs large.

mod classes;

use std::sync::LazyLock;

use memchr::memmem::Finder;

use self::classes::{Masks, split};
pub use self::classes::{is_digit, is_gram, is_hex, is_letter};
use super::filter::{FilterBuilder, gram_bit, id_bits, minimizers};

/// Hexadecimal digits that make a run of `[0-9a-f-]` an id.
pub const ID_DIGITS: usize = 16;
/// Shortest word, bytes.
pub const MIN_WORD: usize = 3;
/// Bytes of a gram.
pub const GRAM: usize = 5;
/// A chunk with more distinct words, or a longer word, or more text in words, is flagged
/// instead of indexed: base64 and tokens split into random words, which no one looks for but
/// which would fill the dictionary.
const MAX_WORDS: usize = 4096;
const MAX_WORD_BYTES: usize = 1024;
const MAX_WORDS_BYTES: usize = 64 * 1024;

/// Stands for the words of a chunk with [`ChunkFlags::OVERFLOW`]: candidates for every word.
/// No word can equal it: `*` is in none.
pub const OVERFLOW_TERM: &str = "*overflow";
/// Is among the words of a chunk with [`ChunkFlags::FOLDS`]: candidates for every folded need.
pub const FOLDS_TERM: &str = "*folds";

/// What pruning and scanning have to know about a chunk's text. Stored as one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkFlags(u8);

impl ChunkFlags {
    /// The words are not indexed: the chunk is a candidate for every word.
    pub const OVERFLOW: Self = Self(1);
    /// Holds U+212A or U+017F, which Unicode folds to `k` and `s`: the chunk is a candidate for
    /// every folded need.
    pub const FOLDS: Self = Self(2);
    /// Some line holds a newline.
    pub const NEWLINE: Self = Self(4);
    /// Some line holds a backslash: values in it may be escaped.
    pub const BACKSLASH: Self = Self(8);

    /// Whether all of `flag` is set.
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// These and `flag`.
    #[must_use]
    pub fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    /// As stored.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// As stored; bits of later versions are kept.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// What [`Analyzer::analyze`] found; borrows its scratch space.
#[derive(Clone, Copy, Debug)]
pub struct Analysis<'a> {
    /// Distinct words, a space between them, in order of first appearance; bytes that are not
    /// UTF-8 replaced. May hold [`OVERFLOW_TERM`] (then nothing else but [`FOLDS_TERM`]).
    pub words: &'a str,
    /// The filter as [`super::filter::FilterView`] reads it.
    pub filter: &'a [u8],
    pub flags: ChunkFlags,
}

/// Analyses chunks; keep one and use it again, its scratch space is 0.3 MiB and grows with
/// the longest chunk.
#[derive(Debug, Default)]
pub struct Analyzer {
    lower: Vec<u8>,
    masks: Vec<Masks>,
    /// Bit n of entry m: byte 64 m + n begins a line.
    breaks: Vec<u64>,
    /// Bytes that lie in an id run.
    ids: Vec<u64>,
    /// First and last bytes of words.
    starts: Vec<u32>,
    ends: Vec<u32>,
    set: WordSet,
    filter: FilterBuilder,
    words: String,
    stored: Vec<u8>,
}

impl Analyzer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Analyses a chunk: `text` is its lines without anything between them, `line_ends` the
    /// offset after each line, ascending. Fewer ends than lines cost precision, not truth.
    pub fn analyze(&mut self, text: &[u8], line_ends: &[u32]) -> Analysis<'_> {
        assert!(
            u32::try_from(text.len()).is_ok(),
            "a chunk is far smaller than 4 GiB"
        );
        let seen = split(text, &mut self.lower, &mut self.masks);
        self.mark_breaks(line_ends);
        self.find_runs();
        self.collect_grams();

        let mut flags = ChunkFlags::default();
        self.words.clear();
        if self.collect_words().is_err() {
            flags = flags.with(ChunkFlags::OVERFLOW);
            self.words.clear();
            self.words.push_str(OVERFLOW_TERM);
        }
        self.set.clear();
        if seen.high && holds_folding(text) {
            flags = flags.with(ChunkFlags::FOLDS);
            push_word(&mut self.words, FOLDS_TERM);
        }
        if seen.newline {
            flags = flags.with(ChunkFlags::NEWLINE);
        }
        if seen.backslash {
            flags = flags.with(ChunkFlags::BACKSLASH);
        }
        self.filter.finish(&mut self.stored);
        Analysis {
            words: &self.words,
            filter: &self.stored,
            flags,
        }
    }

    fn mark_breaks(&mut self, line_ends: &[u32]) {
        self.breaks.clear();
        self.breaks.resize(self.masks.len(), 0);
        for &end in line_ends {
            if let Some(word) = self.breaks.get_mut(end as usize / 64) {
                *word |= 1 << (end % 64);
            }
        }
    }

    /// Finds the words (their first and last bytes) and the id runs, whose minimizers go to the
    /// filter. A byte is *linked* when it and its predecessor are of the class and no line
    /// begins there: k links in a row end a run of at least k + 1 bytes.
    fn find_runs(&mut self) {
        self.starts.clear();
        self.ends.clear();
        self.ids.clear();
        self.ids.resize(self.masks.len(), 0);

        let mut letter_before = 0; // last block's letters
        let mut link = 0; // this block's links, computed one block ahead
        let mut link_before = 0;
        let mut hex_before = 0;
        let (mut x1_before, mut x2_before, mut x4_before, mut x8_before) = (0, 0, 0, 0);
        let mut long_before = 0;
        let mut id_start = 0;
        if let (Some(first), Some(cut)) = (self.masks.first(), self.breaks.first()) {
            link = links(first.letter, letter_before, *cut);
        }
        for block in 0..self.masks.len() {
            let base = block * 64;
            let cut = self.breaks[block];
            let masks = self.masks[block];

            // Words. The last block is all zeros, so that what ends with the text ends.
            let next = self.masks.get(block + 1).copied().unwrap_or_default();
            let next_cut = self.breaks.get(block + 1).copied().unwrap_or_default();
            let next_link = links(next.letter, masks.letter, next_cut);
            let after1 = link >> 1 | next_link << 63;
            let after2 = link >> 2 | next_link << 62;
            let starts = masks.letter & !link & after1 & after2;
            let ends = link & shift(link, link_before, 1) & !after1;
            push_bits(&mut self.starts, starts, base);
            push_bits(&mut self.ends, ends, base);
            letter_before = masks.letter;
            link_before = link;
            link = next_link;

            // Runs of 16 bytes or more of the ids' class.
            let x1 = links(masks.hex, hex_before, cut);
            let x2 = x1 & shift(x1, x1_before, 1);
            let x4 = x2 & shift(x2, x2_before, 2);
            let x8 = x4 & shift(x4, x4_before, 4);
            let long = x8 & shift(x8, x8_before, 7);
            let mut edges = long ^ shift(long, long_before, 1);
            hex_before = masks.hex;
            (x1_before, x2_before, x4_before, x8_before) = (x1, x2, x4, x8);
            long_before = long;
            while edges != 0 {
                let bit = edges.trailing_zeros() as usize;
                edges &= edges - 1;
                if long >> bit & 1 == 1 {
                    id_start = base + bit + 1 - ID_DIGITS;
                } else {
                    self.keep_id(id_start, base + bit);
                }
            }
        }
        debug_assert_eq!(letter_before, 0);
        debug_assert_eq!(self.starts.len(), self.ends.len());
    }

    /// Takes the run `start..end` as an id if it has the digits.
    fn keep_id(&mut self, start: usize, end: usize) {
        let run = &self.lower[start..end];
        let dashes = run.iter().filter(|b| **b == b'-').count();
        if run.len() - dashes < ID_DIGITS {
            return;
        }
        minimizers(run, |rank| {
            id_bits(rank)
                .into_iter()
                .for_each(|bit| self.filter.set(bit))
        });
        for block in start / 64..=(end - 1) / 64 {
            let base = block * 64;
            let from = start.saturating_sub(base);
            let to = (end - base).min(64);
            self.ids[block] |= (u64::MAX << from) & (u64::MAX >> (64 - to));
        }
    }

    fn collect_grams(&mut self) {
        let mut before = Masks::default();
        let (mut x1_before, mut x2_before) = (0, 0);
        let mut id_before = 0;
        for block in 0..self.masks.len() {
            let masks = self.masks[block];
            let id = self.ids[block];
            let x1 = links(masks.gram, before.gram, self.breaks[block]);
            let x2 = x1 & shift(x1, x1_before, 1);
            // Bit n: the five bytes that end with byte n are of the class, on one line.
            let mut grams = x2 & shift(x2, x2_before, 2);
            (x1_before, x2_before) = (x1, x2);
            if grams != 0 {
                let mut digits = masks.digit;
                for n in 1..GRAM as u32 {
                    digits |= shift(masks.digit, before.digit, n);
                }
                grams &= digits;
                if id | id_before != 0 {
                    let mut inside = id;
                    for n in 1..GRAM as u32 {
                        inside &= shift(id, id_before, n);
                    }
                    grams &= !inside;
                }
                while grams != 0 {
                    let end = block * 64 + grams.trailing_zeros() as usize;
                    grams &= grams - 1;
                    let gram = load(&self.lower, end + 1 - GRAM) & ((1 << (8 * GRAM)) - 1);
                    self.filter.set(gram_bit(gram));
                }
            }
            before = masks;
            id_before = id;
        }
    }

    fn collect_words(&mut self) -> Result<(), Overflow> {
        for (&start, &end) in self.starts.iter().zip(&self.ends) {
            let (start, end) = (start as usize, end as usize);
            let word = start..end + 1;
            if self.ids[start / 64] >> (start % 64) & 1 == 1
                && self.lower[word.clone()].iter().all(|b| is_hex(*b))
            {
                continue; // wholly inside an id run
            }
            if self.set.insert(&self.lower, word.clone())? {
                push_word(&mut self.words, &String::from_utf8_lossy(&self.lower[word]));
                if self.words.len() > MAX_WORDS_BYTES {
                    return Err(Overflow);
                }
            }
        }
        Ok(())
    }
}

/// Too many or too long words.
struct Overflow;

fn push_word(words: &mut String, word: &str) {
    if !words.is_empty() {
        words.push(' ');
    }
    words.push_str(word);
}

/// Bytes of the class whose predecessor is of the class and on the same line.
#[inline(always)]
fn links(class: u64, before: u64, cut: u64) -> u64 {
    class & shift(class, before, 1) & !cut
}

/// Every bit `n` places later; the first come from the block before. 0 < n < 64.
#[inline(always)]
fn shift(bits: u64, before: u64, n: u32) -> u64 {
    bits << n | before >> (64 - n)
}

#[inline(always)]
fn push_bits(out: &mut Vec<u32>, mut bits: u64, base: usize) {
    while bits != 0 {
        out.push(base as u32 + bits.trailing_zeros());
        bits &= bits - 1;
    }
}

/// Eight bytes as a number, the first lowest; zeros beyond the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8) {
        Some(eight) => u64::from_le_bytes(eight.try_into().unwrap_or_default()),
        None => 0,
    }
}

fn holds_folding(text: &[u8]) -> bool {
    static KELVIN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\u{212A}"));
    static LONG_S: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\u{17F}"));
    KELVIN.find(text).is_some() || LONG_S.find(text).is_some()
}

/// The distinct words of a chunk: a table of places in its text, open addressing.
#[derive(Debug)]
struct WordSet {
    slots: Box<[Slot]>,
    used: Vec<u32>,
}

/// A word: its first and last eight bytes, which decide for all up to 16 bytes, and its place.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    head: u64,
    tail: u64,
    start: u32,
    /// 0: the slot is free.
    len: u32,
}

const SLOTS: usize = 2 * MAX_WORDS;

impl Default for WordSet {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS].into_boxed_slice(),
            used: Vec::new(),
        }
    }
}

impl WordSet {
    /// Whether the word is new. `text` must go on for eight bytes after the word.
    #[inline]
    fn insert(&mut self, text: &[u8], word: std::ops::Range<usize>) -> Result<bool, Overflow> {
        let len = word.len();
        let mut head = load(text, word.start);
        let mut tail = 0;
        if len < 8 {
            head &= (1 << (8 * len)) - 1;
        } else {
            tail = load(text, word.end - 8);
        }
        let hash = (head ^ tail.rotate_left(29) ^ len as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = (hash >> (64 - SLOTS.ilog2())) as usize;
        loop {
            let slot = self.slots[at & (SLOTS - 1)];
            if slot.len == 0 {
                break;
            }
            if slot.head == head
                && slot.tail == tail
                && slot.len as usize == len
                && (len <= 16 || text[slot.start as usize..][..len] == text[word.clone()])
            {
                return Ok(false);
            }
            at += 1;
        }
        if self.used.len() >= MAX_WORDS || len > MAX_WORD_BYTES {
            return Err(Overflow);
        }
        at &= SLOTS - 1;
        self.slots[at] = Slot {
            head,
            tail,
            start: word.start as u32,
            len: len as u32,
        };
        self.used.push(at as u32);
        Ok(true)
    }

    fn clear(&mut self) {
        for at in self.used.drain(..) {
            self.slots[at as usize].len = 0;
        }
    }
}

#[cfg(test)]
mod tests;
