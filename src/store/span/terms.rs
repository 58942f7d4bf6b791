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

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet, HashSetExt};
use xxhash_rust::xxh3::xxh3_64;

use super::run::TagHash;
use super::{Part, SpanBlock, Value};
use crate::model::need::Need;
use crate::model::search::{SpanMatcher, TagMatcher};
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
        let mut terms = Vec::new();

        // Tags.
        let texts: Vec<_> = self.tags.iter().map(|row| self.value(row).text()).collect();
        let mut keys = vec![KeyUse::default(); self.names.len()];
        let mut lines = String::new();
        let mut tags = Vec::with_capacity(self.tags.len());
        for (row, text) in self.tags.iter().zip(&texts) {
            let key = &mut keys[row.key as usize];
            let name = self.names.get(row.key);
            key.values += 1;
            key.wide |= key.values > BLOCK_VALUES || census.see(name, text);
            let start = lines.len();
            push_line(&mut lines, name, text);
            tags.push(TagHash::of_line(&lines[start..]));
        }
        for (n, key) in keys.iter().enumerate() {
            let name = self.names.get(n as u32);
            if key.values > 0 {
                terms.push(term("k", &[name]));
                if key.wide {
                    terms.push(term("w", &[name]));
                }
                if !key.has_pairs() {
                    terms.push(term("q", &[name]));
                }
            }
        }
        let mut narrow = HashSet::with_hasher(hasher.clone());
        for (row, text) in self.tags.iter().zip(&texts) {
            // One text may have several types: the integer 1 and the text "1".
            if !keys[row.key as usize].wide && narrow.insert((row.key, text)) {
                terms.push(term("t", &[self.names.get(row.key), text]));
            }
        }
        let found = analyzer.analyze(lines.as_bytes(), &[]);
        let words = found.words.split(' ').filter(|w| !w.is_empty());
        terms.extend(words.map(|word| term("x", &[word])));
        debug_assert!(found.flags.has(ChunkFlags::OVERFLOW) == found.words.contains(OVERFLOW_TERM));
        let filter = found.filter.to_vec();

        // Services, operations, and which tags they have.
        let mut places: HashMap<(u32, u32), u32> = HashMap::with_hasher(hasher.clone());
        let mut pairs = HashSet::with_hasher(hasher.clone());
        let mut durations = HashMap::with_hasher(hasher.clone());
        let mut errors = HashMap::with_hasher(hasher.clone());
        let error = self.names.position(ERROR);
        let mut many_pairs = false;
        for span in &self.spans {
            let service = self.processes[span.process as usize].service;
            let next = places.len() as u32;
            let place = match places.entry((service, span.operation)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => *free.insert(next),
            };
            let longest = durations.entry(place).or_insert(span.duration);
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
            let mut pair = |part: Part| {
                for n in &self.tag_lists[part.range()] {
                    if !many_pairs && keys[self.tags[*n as usize].key as usize].has_pairs() {
                        pairs.insert((place, *n));
                        many_pairs = pairs.len() > BLOCK_PAIRS;
                    }
                }
            };
            pair(span.tags);
            self.logs[span.logs.range()]
                .iter()
                .for_each(|log| pair(log.fields));
        }
        let mut by_place = vec![(0, 0); places.len()];
        for (names, place) in &places {
            by_place[*place as usize] = *names;
        }
        let mut services: Vec<&str> = by_place
            .iter()
            .map(|(service, _)| self.names.get(*service))
            .collect();
        services.sort_unstable();
        services.dedup();
        terms.extend(services.iter().map(|name| term("s", &[name])));
        for (service, operation) in &by_place {
            terms.push(term(
                "o",
                &[self.names.get(*service), self.names.get(*operation)],
            ));
        }
        let mut names: Vec<u32> = by_place.iter().map(|(_, operation)| *operation).collect();
        names.sort_unstable();
        names.dedup();
        terms.extend(names.iter().map(|n| term("n", &[self.names.get(*n)])));

        let mut longest: HashMap<String, u64> = HashMap::with_hasher(hasher);
        let mut takes = |term: String, duration: u64| {
            let known = longest.entry(term).or_insert(duration);
            *known = duration.max(*known);
        };
        for (place, duration) in durations {
            let (service, operation) = by_place[place as usize];
            let (service, name) = (self.names.get(service), self.names.get(operation));
            takes(term("d", &[service]), duration);
            takes(term("D", &[service, name]), duration);
        }
        for ((place, n), duration) in errors {
            let (service, operation) = by_place[place as usize];
            let (service, name) = (self.names.get(service), self.names.get(operation));
            let text = &texts[n as usize];
            takes(term("e", &[service, text]), duration);
            takes(term("E", &[service, name, text]), duration);
        }
        let longest = longest.into_iter();
        terms.extend(longest.map(|(term, d)| with_duration(&term, duration_step(d / 1000))));

        let mut hashed = HashSet::new();
        if many_pairs {
            terms.push("p:*".into());
        } else {
            for (place, n) in pairs {
                let (service, operation) = by_place[place as usize];
                let key = self.names.get(self.tags[n as usize].key);
                let parts = [
                    self.names.get(service),
                    self.names.get(operation),
                    key,
                    &texts[n as usize],
                ];
                hashed.insert(hashed_term("p", &parts));
                let [service, _, key, text] = parts;
                hashed.insert(hashed_term("S", &[service, key, text]));
            }
        }
        for process in &self.processes {
            for n in &self.tag_lists[process.tags.range()] {
                let key = self.tags[*n as usize].key;
                if keys[key as usize].has_pairs() {
                    let service = self.names.get(process.service);
                    let parts = [service, self.names.get(key), &texts[*n as usize]];
                    hashed.insert(hashed_term("P", &parts));
                }
            }
        }
        terms.extend(hashed);

        BlockTerms {
            words: terms.join(" "),
            filter,
            tags,
            operations: self.operations(),
        }
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

fn term(letter: &str, parts: &[&str]) -> String {
    let size: usize = parts.iter().map(|part| part.len() + 1).sum();
    if size > TERM_BYTES || parts.iter().any(|part| part.contains(char::is_whitespace)) {
        return hashed_term(letter, parts);
    }
    let mut term = String::with_capacity(letter.len() + size);
    term.push_str(letter);
    for (n, part) in parts.iter().enumerate() {
        term.push(if n == 0 { ':' } else { '\x1f' });
        term.push_str(part);
    }
    term
}

fn hashed_term(letter: &str, parts: &[&str]) -> String {
    format!("{letter}:#{:016x}", xxh3_64(parts.join("\0").as_bytes()))
}
