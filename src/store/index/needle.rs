//! What a query needs in a line, as demands on the words and the gram filter of a chunk.
//!
//! The counterpart of [`super::analyze`]. Both sides prune on their own; a chunk is a candidate
//! when both let it pass.
//!
//! N1. No chunk with a line that holds what is needed is ever ruled out.
//! N2. What may lie inside an id run of the line demands nothing but minimizers: a piece of the
//!     needle may do so when it lies in one run of `[0-9a-f-]` of the needle which touches an
//!     end of the needle (it may go on in the line) or is an id run itself.
//! N3. A word which touches an end of the needle may go on there.

use std::ops::Range;

use super::analyze::{ChunkFlags, GRAM, ID_DIGITS, MIN_WORD, is_digit, is_gram, is_hex, is_letter};
use super::filter::{FilterView, gram_bit, id_bits, minimizers};
use crate::model::need::Need;

/// Needs nested deeper than this demand nothing.
const MAX_DEPTH: usize = 64;

/// How a word of the dictionary must look. Lower-case; the text has no space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WordDemand {
    /// The word itself.
    Exact(String),
    /// A word which begins so.
    Prefix(String),
    /// A word which ends so.
    Suffix(String),
    /// A word which holds this.
    Infix(String),
    /// A word from the first to the second, both included.
    Range(String, String),
}

impl WordDemand {
    /// Whether a word is as demanded.
    pub fn accepts(&self, word: &str) -> bool {
        match self {
            Self::Exact(text) => word == text,
            Self::Prefix(text) => word.starts_with(text.as_str()),
            Self::Suffix(text) => word.ends_with(text.as_str()),
            Self::Infix(text) => memchr::memmem::find(word.as_bytes(), text.as_bytes()).is_some(),
            Self::Range(first, last) => (first.as_str()..=last.as_str()).contains(&word),
        }
    }
}

/// Demands on the words of a chunk.
///
/// Chunks with [`ChunkFlags::OVERFLOW`] (whose words are
/// [`OVERFLOW_TERM`](super::analyze::OVERFLOW_TERM)) meet every `Word`; those with
/// [`ChunkFlags::FOLDS`] ([`FOLDS_TERM`](super::analyze::FOLDS_TERM)) every `Word` that is
/// `folded`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordPlan {
    /// Every chunk will do.
    Anything,
    Word {
        demand: WordDemand,
        folded: bool,
    },
    All(Vec<WordPlan>),
    /// At least one; empty: no chunk will do.
    Any(Vec<WordPlan>),
}

/// Demands on the gram filter of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GramPlan {
    Anything,
    Bits { bits: Vec<u32>, folded: bool },
    All(Vec<GramPlan>),
    Any(Vec<GramPlan>),
}

/// A compiled [`Need`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedlePlan {
    /// To be answered by whoever knows the words of the chunks.
    pub words: WordPlan,
    grams: GramPlan,
}

impl NeedlePlan {
    pub fn compile(need: &Need) -> Self {
        let (words, grams) = compile(need, 0);
        Self { words, grams }
    }

    /// Whether neither words nor filters can rule out any chunk.
    pub fn prunes_nothing(&self) -> bool {
        self.words == WordPlan::Anything && self.grams == GramPlan::Anything
    }

    /// Whether filters can rule out chunks.
    pub fn needs_filter(&self) -> bool {
        self.grams != GramPlan::Anything
    }

    /// Whether a chunk with this filter and these flags may hold a line that is needed.
    pub fn may_match(&self, filter: &FilterView<'_>, flags: ChunkFlags) -> bool {
        self.grams.may_match(filter, flags)
    }
}

impl WordPlan {
    /// Whether a chunk may hold a line that is needed; `has` tells whether any of its words is
    /// as demanded.
    pub fn may_match(&self, flags: ChunkFlags, has: &mut dyn FnMut(&WordDemand) -> bool) -> bool {
        match self {
            Self::Anything => true,
            Self::Word { demand, folded } => {
                flags.has(ChunkFlags::OVERFLOW)
                    || (*folded && flags.has(ChunkFlags::FOLDS))
                    || has(demand)
            }
            Self::All(plans) => plans.iter().all(|p| p.may_match(flags, has)),
            Self::Any(plans) => plans.iter().any(|p| p.may_match(flags, has)),
        }
    }

    /// All of `plans`, without those that ask for nothing.
    pub fn all(plans: Vec<Self>) -> Self {
        let mut kept: Vec<Self> = plans.into_iter().filter(|p| *p != Self::Anything).collect();
        match kept.len() {
            0 => Self::Anything,
            1 => kept.remove(0),
            _ => Self::All(kept),
        }
    }

    /// Any of `plans`; one that asks for nothing makes the whole do so.
    pub fn any(mut plans: Vec<Self>) -> Self {
        if plans.contains(&Self::Anything) {
            return Self::Anything;
        }
        if plans.len() == 1 {
            plans.remove(0)
        } else {
            Self::Any(plans)
        }
    }
}

impl GramPlan {
    fn may_match(&self, filter: &FilterView<'_>, flags: ChunkFlags) -> bool {
        match self {
            Self::Anything => true,
            Self::Bits { bits, folded } => {
                (*folded && flags.has(ChunkFlags::FOLDS)) || bits.iter().all(|b| filter.has(*b))
            }
            Self::All(plans) => plans.iter().all(|p| p.may_match(filter, flags)),
            Self::Any(plans) => plans.iter().any(|p| p.may_match(filter, flags)),
        }
    }

    fn all(plans: Vec<Self>) -> Self {
        let mut kept: Vec<Self> = plans.into_iter().filter(|p| *p != Self::Anything).collect();
        match kept.len() {
            0 => Self::Anything,
            1 => kept.remove(0),
            _ => Self::All(kept),
        }
    }

    fn any(mut plans: Vec<Self>) -> Self {
        if plans.contains(&Self::Anything) {
            return Self::Anything;
        }
        if plans.len() == 1 {
            plans.remove(0)
        } else {
            Self::Any(plans)
        }
    }
}

fn compile(need: &Need, depth: usize) -> (WordPlan, GramPlan) {
    if depth > MAX_DEPTH {
        return (WordPlan::Anything, GramPlan::Anything);
    }
    match need {
        Need::Anything => (WordPlan::Anything, GramPlan::Anything),
        Need::Literal(bytes) => compile_needle(bytes, false),
        // Unicode folds more than ASCII; the index does not.
        Need::Folded(bytes) if !bytes.is_ascii() => (WordPlan::Anything, GramPlan::Anything),
        Need::Folded(bytes) => compile_needle(bytes, true),
        Need::All(needs) => {
            let (words, grams) = needs.iter().map(|n| compile(n, depth + 1)).unzip();
            (WordPlan::all(words), GramPlan::all(grams))
        }
        Need::Any(needs) => {
            let (words, grams) = needs.iter().map(|n| compile(n, depth + 1)).unzip();
            (WordPlan::any(words), GramPlan::any(grams))
        }
    }
}

fn compile_needle(needle: &[u8], folded: bool) -> (WordPlan, GramPlan) {
    let needle = needle.to_ascii_lowercase();
    let mut bits = Vec::new();
    // N2: where pieces of the needle may lie in an id run of the line.
    let mut maybe_ids: Vec<Range<usize>> = Vec::new();
    for run in runs(&needle, is_hex) {
        let digits = needle[run.clone()].iter().filter(|b| **b != b'-').count();
        if digits >= ID_DIGITS {
            minimizers(&needle[run.clone()], |rank| bits.extend(id_bits(rank)));
        }
        if digits >= ID_DIGITS || run.start == 0 || run.end == needle.len() {
            maybe_ids.push(run);
        }
    }
    let maybe_id = |piece: &Range<usize>| {
        maybe_ids
            .iter()
            .any(|r| r.start <= piece.start && piece.end <= r.end)
    };

    for (start, gram) in needle.windows(GRAM).enumerate() {
        let counts = gram.iter().all(|b| is_gram(*b)) && gram.iter().any(|b| is_digit(*b));
        if counts && !maybe_id(&(start..start + GRAM)) {
            let number = gram.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
            bits.push(gram_bit(number));
        }
    }
    bits.sort_unstable();
    bits.dedup();

    let mut words = Vec::new();
    for run in runs(&needle, is_letter) {
        if run.len() < MIN_WORD || maybe_id(&run) {
            continue;
        }
        // Stored words are UTF-8, what was not replaced. What is UTF-8 in the needle is found
        // whole in them, whatever surrounds it; a needle cut inside a character is not.
        let Ok(text) = std::str::from_utf8(&needle[run.clone()]) else {
            continue;
        };
        let text = text.to_owned();
        let demand = match (run.start > 0, run.end < needle.len()) {
            (true, true) => WordDemand::Exact(text),
            (true, false) => WordDemand::Prefix(text),
            (false, true) => WordDemand::Suffix(text),
            (false, false) => WordDemand::Infix(text),
        };
        let word = WordPlan::Word { demand, folded };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let grams = if bits.is_empty() {
        GramPlan::Anything
    } else {
        GramPlan::Bits { bits, folded }
    };
    (WordPlan::all(words), grams)
}

/// The maximal runs of bytes of a class.
fn runs(bytes: &[u8], class: impl Fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|b| class(*b))?;
        let end = bytes[start..]
            .iter()
            .position(|b| !class(*b))
            .map_or(bytes.len(), |n| start + n);
        at = end;
        Some(start..end)
    })
}

#[cfg(test)]
mod tests;
