//! What the index is told of a block, and what a search asks of it.
//!
//! One document per block. Its terms, each a letter, a colon and the parts with the unit
//! separator between them (a term that is long or has white space is replaced by its hash):
//!
//! | Term | The block has |
//! |---|---|
//! | `s:` service | a span of the service |
//! | `o:` service, operation | a span of both |
//! | `n:` operation | a span of the operation |
//! | `k:` key | a tag with the key |
//! | `t:` key, text | the tag, if the key has few values |
//! | `w:` key | the key, with so many values that they are not terms (*wide*) |
//! | `p:` hash of service, operation, key, text | a span of all of them, the tag on the span or in a log |
//! | `P:` hash of service, key, text | a span of the service with the tag on its process |
//! | `q:` key | the key, of whose tags there are no `p:` and `P:` |
//! | `p:*` | so many `p:` that they were left out |
//! | `S:` hash of service, key, text | a span of the service with the tag on it or in a log (since terms 1) |
//! | `d:` service, duration | spans of the service, the longest of which takes about so long (since terms 1) |
//! | `D:` service, operation, duration | the same of spans of both (since terms 1) |
//! | `e:` service, text, duration | the same of spans with the text under the key `error`, on the span, its process or in a log (since terms 1) |
//! | `E:` service, operation, text, duration | the same of spans of both (since terms 1) |
//! | `x:` word | a tag with the word in key or text ([`crate::store::index::analyze`]) |
//!
//! A duration is two hexadecimal digits: 0 below a microsecond, else four steps from each power
//! of two microseconds to the next. Such a term is never hashed whole, so that a range of
//! durations is a range of terms. Blocks from before terms 1 lack what says so.
//!
//! The filter of a block is that of the text `\nkey:text\n` of all tags; that of a run of blocks
//! has the hashes of such lines ([`super::run`]).

use std::collections::hash_map::Entry;
use std::fmt::Write;

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet, HashSetExt};
use xxhash_rust::xxh3::xxh3_64;

use super::run::TagHash;
use super::{Part, SpanBlock, Value};
use crate::model::need::Need;
use crate::model::search::{SpanMatcher, TagMatcher, ValueRef};
use crate::model::trace::TraceQuery;
use crate::store::index::analyze::{Analyzer, ChunkFlags, OVERFLOW_TERM};
use crate::store::index::filter::FilterView;
use crate::store::index::needle::{NeedlePlan, WordDemand, WordPlan};

/// The terms that blocks get, for their metas.
pub const TERMS: u8 = 1;

/// The key of the tag that says whether a span failed, for which few spans are looked through:
/// they are told apart by their durations.
const ERROR: &str = "error";

/// A key with more values in one block is wide there.
const BLOCK_VALUES: usize = 64;
/// A key with more values in the blocks of a census is wide until the census forgets.
const SEEN_VALUES: usize = 512;
/// A census forgets after so many blocks: about a day of a busy small cluster.
const CENSUS_BLOCKS: usize = 4096;
/// A key with more values in a block has no terms of operation and tag.
const PAIR_VALUES: usize = 16;
/// More terms of operation and tag in one block are left out.
const BLOCK_PAIRS: usize = 4096;
/// And all when so many would be possible: 256 KiB to find out which there are.
const PAIR_BITS: usize = 1 << 21;
/// What a census remembers at most: keys, and values of all keys.
const CENSUS_KEYS: usize = 2048;
const CENSUS_VALUES: usize = 128 << 10;
/// Longer terms are hashed.
const TERM_BYTES: usize = 200;

/// Which keys have too many values for the index. What it decides is written into each block,
/// so there may be several, and they may forget: each does after [`CENSUS_BLOCKS`].
#[derive(Debug, Default)]
pub struct TagCensus {
    /// Hashes of the values seen; `None`: the key is wide.
    keys: HashMap<Box<str>, Option<HashSet<u64>>>,
    values: usize,
    blocks: usize,
}

impl TagCensus {
    pub fn new() -> Self {
        Self::default()
    }

    fn begin_block(&mut self) {
        self.blocks += 1;
        if self.blocks > CENSUS_BLOCKS {
            *self = Self::default();
        }
    }

    /// Takes note of a value; whether the key is wide.
    fn see(&mut self, key: &str, text: &str) -> bool {
        if !self.keys.contains_key(key) {
            if self.keys.len() >= CENSUS_KEYS {
                return true;
            }
            self.keys.insert(key.into(), Some(HashSet::new()));
        }
        let Some(slot) = self.keys.get_mut(key) else {
            return true;
        };
        let Some(values) = slot else { return true };
        if values.insert(xxh3_64(text.as_bytes())) {
            self.values += 1;
            if values.len() > SEEN_VALUES || self.values > CENSUS_VALUES {
                self.values -= values.len();
                *slot = None;
                return true;
            }
        }
        false
    }
}

/// What the index is told of a block.
#[derive(Clone, Debug)]
pub struct BlockTerms {
    /// The terms, distinct, a space between them.
    pub words: String,
    /// As [`FilterView`] reads it.
    pub filter: Vec<u8>,
    /// Of all tags, for the filter of the run (run.rs).
    pub tags: Vec<TagHash>,
    /// Service, operation and kind, with a zero byte between them; distinct, sorted.
    pub operations: Vec<Vec<u8>>,
}

/// What is known of a key in one block.
#[derive(Clone, Copy, Default)]
struct KeyUse {
    values: usize,
    wide: bool,
}

impl KeyUse {
    fn has_pairs(self) -> bool {
        !self.wide && self.values <= PAIR_VALUES
    }
}

impl SpanBlock {
    /// What the index is to be told; for sealing, and for rebuilding an index.
    pub fn terms(&self, analyzer: &mut Analyzer, census: &mut TagCensus) -> BlockTerms {
        census.begin_block();
        let hasher = RandomState::default();
        let mut terms = Terms::default();

        // Tags.
        let mut keys = vec![KeyUse::default(); self.names.len()];
        let mut lines = String::new();
        let mut tags = Vec::with_capacity(self.tags.len());
        // Where in the lines the text of each tag is.
        let mut texts = Vec::with_capacity(self.tags.len());
        for row in &self.tags {
            let key = &mut keys[row.key as usize];
            let name = self.names.get(row.key);
            let start = lines.len();
            lines.extend(["\n", name, ":"]);
            let text = lines.len();
            match self.value(row) {
                ValueRef::Int64(value) => {
                    let _ = write!(lines, "{value}"); // a String takes everything
                }
                value => lines.push_str(&value.text()),
            }
            let text = text..lines.len();
            lines.push('\n');
            key.values += 1;
            key.wide |= key.values > BLOCK_VALUES || census.see(name, &lines[text.clone()]);
            tags.push(TagHash::of_line(&lines[start..]));
            texts.push(text);
        }
        let text_of = |n: u32| &lines[texts[n as usize].clone()];
        for (n, key) in keys.iter().enumerate() {
            let name = self.names.get(n as u32);
            if key.values > 0 {
                terms.push("k", &[name]);
                if key.wide {
                    terms.push("w", &[name]);
                }
                if !key.has_pairs() {
                    terms.push("q", &[name]);
                }
            }
        }
        let mut narrow = HashSet::with_hasher(hasher.clone());
        for (row, n) in self.tags.iter().zip(0..) {
            let text = text_of(n);
            // One text may have several types: the integer 1 and the text "1".
            if !keys[row.key as usize].wide && narrow.insert((row.key, text)) {
                terms.push("t", &[self.names.get(row.key), text]);
            }
        }
        let found = analyzer.analyze(lines.as_bytes(), &[]);
        let words = found.words.split(' ').filter(|w| !w.is_empty());
        words.for_each(|word| terms.push("x", &[word]));
        debug_assert!(found.flags.has(ChunkFlags::OVERFLOW) == found.words.contains(OVERFLOW_TERM));
        let filter = found.filter.to_vec();

        // Services, operations, and which tags they have.
        let mut places: HashMap<(u32, u32), u32> = HashMap::with_hasher(hasher.clone());
        let mut by_place = Vec::new();
        // Longest duration of each.
        let mut durations: Vec<u64> = Vec::new();
        let mut errors = HashMap::with_hasher(hasher.clone());
        let error = self.names.position(ERROR);
        let mut place_of = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let service = self.processes[span.process as usize].service;
            let place = match places.entry((service, span.operation)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => {
                    by_place.push((service, span.operation));
                    durations.push(0);
                    *free.insert(by_place.len() as u32 - 1)
                }
            };
            place_of.push(place);
            let longest = &mut durations[place as usize];
            *longest = span.duration.max(*longest);
            if let Some(key) = error {
                let process = self.processes[span.process as usize].tags;
                let logs = &self.logs[span.logs.range()];
                let parts = [span.tags, process].into_iter();
                for part in parts.chain(logs.iter().map(|log| log.fields)) {
                    let tags = self.tag_lists[part.range()].iter();
                    let of_key = tags.filter(|n| self.tags[**n as usize].key == key);
                    for n in of_key {
                        let longest = errors.entry((place, *n)).or_insert(span.duration);
                        *longest = span.duration.max(*longest);
                    }
                }
            }
        }
        let pairs = self.pairs(&place_of, by_place.len(), |key| {
            keys[key as usize].has_pairs()
        });
        let mut services: Vec<&str> = by_place
            .iter()
            .map(|(service, _)| self.names.get(*service))
            .collect();
        services.sort_unstable();
        services.dedup();
        services.iter().for_each(|name| terms.push("s", &[name]));
        for (service, operation) in &by_place {
            let parts = [self.names.get(*service), self.names.get(*operation)];
            terms.push("o", &parts);
        }
        let mut names: Vec<u32> = by_place.iter().map(|(_, operation)| *operation).collect();
        names.sort_unstable();
        names.dedup();
        names
            .iter()
            .for_each(|n| terms.push("n", &[self.names.get(*n)]));

        let mut longest: HashMap<String, u64> = HashMap::with_hasher(hasher);
        let mut takes = |term: String, duration: u64| {
            let known = longest.entry(term).or_insert(duration);
            *known = duration.max(*known);
        };
        for ((service, operation), duration) in by_place.iter().zip(durations) {
            let (service, name) = (self.names.get(*service), self.names.get(*operation));
            takes(term("d", &[service]), duration);
            takes(term("D", &[service, name]), duration);
        }
        for ((place, n), duration) in errors {
            let (service, operation) = by_place[place as usize];
            let (service, name) = (self.names.get(service), self.names.get(operation));
            takes(term("e", &[service, text_of(n)]), duration);
            takes(term("E", &[service, name, text_of(n)]), duration);
        }
        for (term, duration) in longest {
            terms.push_whole(&with_duration(&term, duration_step(duration / 1000)));
        }

        let mut hashed = HashSet::new();
        let mut joined = String::new();
        match pairs {
            None => terms.push_whole("p:*"),
            Some(pairs) => {
                for (place, n) in pairs {
                    let (service, operation) = by_place[place as usize];
                    let (service, operation) = (self.names.get(service), self.names.get(operation));
                    let key = self.names.get(self.tags[n as usize].key);
                    let parts = [service, operation, key, text_of(n)];
                    hashed.insert(("p", hash_of(&parts, &mut joined)));
                    let parts = [service, key, text_of(n)];
                    hashed.insert(("S", hash_of(&parts, &mut joined)));
                }
            }
        }
        for process in &self.processes {
            for n in &self.tag_lists[process.tags.range()] {
                let key = self.tags[*n as usize].key;
                if keys[key as usize].has_pairs() {
                    let service = self.names.get(process.service);
                    let parts = [service, self.names.get(key), text_of(*n)];
                    hashed.insert(("P", hash_of(&parts, &mut joined)));
                }
            }
        }
        for (letter, hash) in hashed {
            terms.push_hashed(letter, hash);
        }

        BlockTerms {
            words: terms.0,
            filter,
            tags,
            operations: self.operations(),
        }
    }

    /// Which tags stand on spans of which place or in their logs, of keys that have pairs, each
    /// once; `None` when there are too many.
    fn pairs(
        &self,
        place_of: &[u32],
        places: usize,
        has_pairs: impl Fn(u32) -> bool,
    ) -> Option<Vec<(u32, u32)>> {
        // Those tags are few: a bit for each of them and each place.
        const NONE: u32 = u32::MAX;
        let mut count = 0;
        let column_of = |row: &super::TagRow| match has_pairs(row.key) {
            true => {
                count += 1;
                count - 1
            }
            false => NONE,
        };
        let columns: Vec<u32> = self.tags.iter().map(column_of).collect();
        let columns_of_place = count as usize;
        if places.saturating_mul(columns_of_place) > PAIR_BITS {
            return None;
        }
        let mut seen = vec![0u64; (places * columns_of_place).div_ceil(64)];
        let mut pairs = Vec::new();
        for (span, place) in self.spans.iter().zip(place_of) {
            let first = *place as usize * columns_of_place;
            let mut take = |part: Part| {
                for n in &self.tag_lists[part.range()] {
                    let column = columns[*n as usize];
                    if column == NONE {
                        continue;
                    }
                    let bit = first + column as usize;
                    let (word, mask) = (&mut seen[bit / 64], 1 << (bit % 64));
                    if *word & mask == 0 {
                        *word |= mask;
                        pairs.push((*place, *n));
                    }
                }
            };
            take(span.tags);
            let logs = &self.logs[span.logs.range()];
            logs.iter().for_each(|log| take(log.fields));
            if pairs.len() > BLOCK_PAIRS {
                return None;
            }
        }
        Some(pairs)
    }

    /// Service, operation and kind of the spans, with a zero byte between them; distinct, sorted.
    pub fn operations(&self) -> Vec<Vec<u8>> {
        let kind = self.names.position("span.kind");
        let mut found = HashSet::new();
        for span in &self.spans {
            let is_kind = |n: &&u32| {
                let row = &self.tags[**n as usize];
                Some(row.key) == kind && matches!(row.value, Value::Text(..))
            };
            let kind = self.tag_lists[span.tags.range()]
                .iter()
                .find(is_kind)
                .copied();
            let service = self.processes[span.process as usize].service;
            found.insert((service, span.operation, kind));
        }
        let mut operations: Vec<Vec<u8>> = found
            .into_iter()
            .map(|(service, operation, kind)| {
                let kind = kind.map(|n| self.value(&self.tags[n as usize]).text());
                let (service, name) = (self.names.get(service), self.names.get(operation));
                [service, name, kind.as_deref().unwrap_or("")]
                    .join("\0")
                    .into_bytes()
            })
            .collect();
        operations.sort_unstable();
        operations.dedup();
        operations
    }
}

/// What a block must have to hold a span that a search looks for. Necessary, never sufficient.
#[derive(Clone, Debug)]
pub struct BlockNeed {
    /// Of the terms of a block. Blocks whose words overflow and folding need no care: what
    /// concerns them is in the plan.
    pub words: WordPlan,
    /// The same of blocks that have [`TERMS`], besides.
    pub newer: WordPlan,
    grams: NeedlePlan,
    /// Tags that it must have.
    tags: Vec<TagHash>,
}

impl BlockNeed {
    /// Whether the filter of a block lets it pass.
    pub fn may_match(&self, filter: &FilterView<'_>) -> bool {
        self.grams.may_match(filter, ChunkFlags::default())
    }

    /// Tags of which a block must have all.
    pub fn tags(&self) -> &[TagHash] {
        &self.tags
    }

    /// Whether filters can rule out blocks.
    pub fn needs_filter(&self) -> bool {
        self.grams.needs_filter()
    }
}

/// What a search needs in a block, its times apart.
pub fn query_terms(query: &TraceQuery) -> BlockNeed {
    let matcher = SpanMatcher::new(query);
    let (service, operation) = (matcher.service.as_str(), matcher.operation.as_str());
    let mut needs = Vec::new();
    match (service.is_empty(), operation.is_empty()) {
        (true, true) => {}
        (false, true) => needs.push(has(term("s", &[service]))),
        (true, false) => needs.push(has(term("n", &[operation]))),
        (false, false) => needs.push(has(term("o", &[service, operation]))),
    }
    let mut newer = Vec::new();
    let least = matcher.least_duration();
    if least > 0 && !service.is_empty() {
        let mut takes = |before: String| {
            newer.push(WordPlan::Word {
                demand: WordDemand::Range(
                    with_duration(&before, duration_step(least)),
                    with_duration(&before, u8::MAX),
                ),
                folded: false,
            });
        };
        takes(match operation {
            "" => term("d", &[service]),
            operation => term("D", &[service, operation]),
        });
        let errors = matcher.tags.iter().filter(|tag| tag.key == ERROR);
        for tag in errors.filter(|tag| tag.regex.is_none()) {
            takes(match operation {
                "" => term("e", &[service, &tag.text]),
                operation => term("E", &[service, operation, &tag.text]),
            });
        }
    }
    let (mut lines, mut tags) = (Vec::new(), Vec::new());
    for tag in &matcher.tags {
        let (key, text) = (tag.key.as_str(), tag.text.as_str());
        let line = if tag.regex.is_some() {
            needs.push(has(term("k", &[key])));
            Need::any([line_need(key, text), regex_need(tag)])
        } else {
            needs.push(WordPlan::Any(vec![
                has(term("t", &[key, text])),
                has(term("w", &[key])),
            ]));
            if !service.is_empty() && operation.is_empty() {
                newer.push(WordPlan::Any(vec![
                    has(hashed_term("S", &[service, key, text])),
                    has(hashed_term("P", &[service, key, text])),
                    has(term("q", &[key])),
                    has("p:*".into()),
                ]));
            }
            if !service.is_empty() && !operation.is_empty() {
                needs.push(WordPlan::Any(vec![
                    has(hashed_term("p", &[service, operation, key, text])),
                    has(hashed_term("P", &[service, key, text])),
                    has(term("q", &[key])),
                    has("p:*".into()),
                ]));
            }
            let line = tag_line(key, text);
            tags.push(TagHash::of_line(&line));
            Need::Literal(line.into_bytes())
        };
        needs.push(words_need(&NeedlePlan::compile(&line).words));
        lines.push(line);
    }
    BlockNeed {
        words: WordPlan::all(needs),
        newer: WordPlan::all(newer),
        grams: NeedlePlan::compile(&Need::all(lines)),
        tags,
    }
}

/// A duration in microseconds as terms tell it; grows with it.
fn duration_step(micros: u64) -> u8 {
    let Some(power) = micros.checked_ilog2() else {
        return 0;
    };
    // The two bits below the highest.
    let quarter = match power {
        0 => 0,
        1 => (micros & 1) << 1,
        _ => (micros >> (power - 2)) & 3,
    };
    u8::try_from(1 + 4 * u64::from(power) + quarter).unwrap_or(u8::MAX)
}

fn with_duration(term: &str, step: u8) -> String {
    format!("{term}\x1f{step:02x}")
}

fn has(term: String) -> WordPlan {
    WordPlan::Word {
        demand: WordDemand::Exact(term),
        folded: false,
    }
}

fn line_need(key: &str, text: &str) -> Need {
    Need::Literal(tag_line(key, text).into_bytes())
}

/// The tag as the filters know it.
fn tag_line(key: &str, text: &str) -> String {
    let mut line = String::with_capacity(key.len() + text.len() + 3);
    push_line(&mut line, key, text);
    line
}

fn push_line(out: &mut String, key: &str, text: &str) {
    out.extend(["\n", key, ":", text, "\n"]);
}

/// Words of tags as terms. What does not ask for a whole word asks for nothing.
fn words_need(plan: &WordPlan) -> WordPlan {
    match plan {
        WordPlan::Word {
            demand: WordDemand::Exact(word),
            ..
        } => WordPlan::Any(vec![
            has(term("x", &[word])),
            has(term("x", &[OVERFLOW_TERM])),
        ]),
        WordPlan::Word { .. } | WordPlan::Anything => WordPlan::Anything,
        WordPlan::All(plans) => WordPlan::all(plans.iter().map(words_need).collect()),
        WordPlan::Any(plans) => WordPlan::any(plans.iter().map(words_need).collect()),
    }
}

/// What the line of every tag holds that the expression matches.
fn regex_need(tag: &TagMatcher) -> Need {
    use regex_syntax::hir::{Hir, HirKind};

    fn need(hir: &Hir) -> Need {
        match hir.kind() {
            HirKind::Literal(literal) => Need::Literal(literal.0.to_vec()),
            HirKind::Concat(parts) => Need::all(parts.iter().map(need)),
            HirKind::Alternation(parts) => Need::any(parts.iter().map(need)),
            HirKind::Capture(capture) => need(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min > 0 => need(&repetition.sub),
            _ => Need::Anything,
        }
    }
    // With what surrounds the value, which bounds its words and numbers. The nesting is
    // bounded by the parser.
    let line = format!("\n{}:(?:{})\n", regex::escape(&tag.key), tag.text);
    regex_syntax::Parser::new()
        .parse(&line)
        .map_or(Need::Anything, |hir| need(&hir))
}

/// Terms with a space between them.
#[derive(Default)]
struct Terms(String);

impl Terms {
    fn push(&mut self, letter: &str, parts: &[&str]) {
        self.begin();
        push_term(&mut self.0, letter, parts);
    }

    fn push_hashed(&mut self, letter: &str, hash: u64) {
        self.begin();
        push_hash(&mut self.0, letter, hash);
    }

    fn push_whole(&mut self, term: &str) {
        self.begin();
        self.0.push_str(term);
    }

    fn begin(&mut self) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
    }
}

fn push_term(out: &mut String, letter: &str, parts: &[&str]) {
    let size: usize = parts.iter().map(|part| part.len() + 1).sum();
    if size > TERM_BYTES || parts.iter().any(|part| part.contains(char::is_whitespace)) {
        push_hash(out, letter, hash_of(parts, &mut String::new()));
        return;
    }
    out.push_str(letter);
    for (n, part) in parts.iter().enumerate() {
        out.push(if n == 0 { ':' } else { '\x1f' });
        out.push_str(part);
    }
}

fn push_hash(out: &mut String, letter: &str, hash: u64) {
    out.extend([letter, ":#"]);
    for digit in (0..16).rev().map(|n| (hash >> (4 * n)) as usize & 0xf) {
        out.push(char::from(b"0123456789abcdef"[digit]));
    }
}

/// The hash of the parts with a zero byte between them; `joined` is space for that.
fn hash_of(parts: &[&str], joined: &mut String) -> u64 {
    joined.clear();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            joined.push('\0');
        }
        joined.push_str(part);
    }
    xxh3_64(joined.as_bytes())
}

fn term(letter: &str, parts: &[&str]) -> String {
    let mut term = String::new();
    push_term(&mut term, letter, parts);
    term
}

fn hashed_term(letter: &str, parts: &[&str]) -> String {
    let mut term = String::new();
    push_hash(&mut term, letter, hash_of(parts, &mut String::new()));
    term
}
