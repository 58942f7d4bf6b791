//! Patterns of lines: what sealing found, added up, and what is not sealed mined now.
//!
//! P1. Counts are those of all lines where the chunk, or what of it is open, is no larger than
//!     a sample; else each line looked at stands for its neighbours. Of more chunks than
//!     [`MAX_CHUNKS`], every n-th stands for n.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::Querier;
use super::answer::QueryError;
use super::limits::Running;
use super::prune::{Part, Unit, candidates, internal};
use crate::model::need::Need;
use crate::model::time::SECOND;
use crate::model::{Matcher, TimeRange, Timestamp};
use crate::runtime::pool::{Lane, Pool};
use crate::store::chunk::{ChunkReader, LineBlock};
use crate::store::deletion::{Deletion, any_of};
use crate::store::partition::Read;
use crate::store::patterns::{Miner, SAMPLE, SLOT, decode, level_of, sample};
use crate::store::{Store, StoreError, Stream};

/// Chunks that a query looks at.
const MAX_CHUNKS: usize = 4096;
/// Chunks without a record (sealed while mining was off) that a query reads; of more, every
/// n-th stands for n.
const MAX_UNMINED: usize = 256;
/// Open lines that a query looks at, and at least so many of each head.
const OPEN_LINES: usize = 100_000;
const OPEN_LINES_A_HEAD: usize = SAMPLE;
/// Units that one task takes: some milliseconds.
const UNITS_A_TASK: usize = 128;
/// Different templates that are told apart before they are merged, and counts of all. What
/// goes beyond is left out: the rarest, as a rule.
const MAX_TEMPLATES: usize = 16 << 10;
const MAX_COUNTS: usize = 256 << 10;
/// Memory of these at most, bytes.
const MEMORY: usize = 16 << 20;
/// Patterns of an answer: Loki's Drilldown shows no more.
const MAX_ANSWER: usize = 300;

/// When, and counted by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternQuery {
    pub range: TimeRange,
    /// Nanoseconds; less than 10 s means 10 s.
    pub step: i64,
}

impl PatternQuery {
    /// Start of the step that an instant lies in, Unix seconds.
    fn step_of(&self, at: Timestamp) -> i64 {
        let step = self.step.max(SLOT) / SECOND;
        at.div_euclid(SECOND).div_euclid(step).saturating_mul(step)
    }

    /// Start of a slot, when any of it lies in the range.
    fn slot(&self, slot: i64) -> Option<Timestamp> {
        let start = slot.checked_mul(SLOT)?;
        let last = start.saturating_add(SLOT - 1);
        self.range.overlaps(start, last).then_some(start)
    }
}

/// How often lines of one level followed a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternCounts {
    /// As LogQL's `|>` takes it.
    pub pattern: String,
    pub level: String,
    /// Unix seconds at which a step begins, and lines; only steps that have any.
    pub samples: Vec<(i64, u64)>,
}

impl Querier {
    /// Patterns, the most frequent first.
    pub async fn patterns(
        &self,
        tenant: &str,
        matchers: Vec<Matcher>,
        query: PatternQuery,
    ) -> Result<Vec<PatternCounts>, QueryError> {
        let run = async {
            let running = self.admission.enter().await?;
            run(&self.store, &self.pool, &running, tenant, matchers, query).await
        };
        self.metrics.count("patterns", run.await, |_| None)
    }
}

async fn run(
    store: &Store,
    pool: &Pool,
    running: &Running,
    tenant: &str,
    matchers: Vec<Matcher>,
    query: PatternQuery,
) -> Result<Vec<PatternCounts>, QueryError> {
    let _permit = running
        .account
        .try_take(MEMORY)
        .map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
    let (store, tenant) = (store.clone(), tenant.to_owned());
    let found = on_pool(pool, move || {
        candidates(
            &store,
            &tenant,
            &matchers,
            query.range,
            &Need::Anything,
            Part::ALL,
        )
    })
    .await??;
    let heads = found.units.iter().filter(|u| matches!(u, Unit::Head(_)));
    let heads = heads.count();
    let chunks = found.units.len() - heads;
    let every = chunks.div_ceil(MAX_CHUNKS).max(1);
    let mut seen = 0;
    let mut units: Vec<Unit> = found
        .units
        .into_iter()
        .filter(|unit| {
            let is_chunk = matches!(unit, Unit::Chunk { .. });
            seen += usize::from(is_chunk);
            !is_chunk || seen % every == 0
        })
        .collect();

    let mut tally = Tally::new(query, every as u64);
    tally.a_head = (OPEN_LINES / heads.max(1)).max(OPEN_LINES_A_HEAD);
    while !units.is_empty() {
        let some = units.split_off(units.len().saturating_sub(UNITS_A_TASK));
        let deadline = running.deadline;
        tally = on_pool(pool, move || tally.add(some, deadline)).await??;
        running.check()?;
    }
    tally = on_pool(pool, move || tally.add_unmined()).await??;
    running.check()?;
    on_pool(pool, move || tally.answer()).await
}

async fn on_pool<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueryError> {
    let done = pool.run(Lane::Second, work).await;
    done.map_err(|e| QueryError::Internal(e.to_string()))
}

/// The lines that no delete request takes.
fn left_of<'a>(
    block: &'a LineBlock,
    deletions: &[Arc<Deletion>],
    stream: &Stream,
) -> Cow<'a, LineBlock> {
    if deletions.is_empty() {
        return Cow::Borrowed(block);
    }
    let mut is_deleted = any_of(deletions, &stream.labels);
    let mut left = LineBlock::default();
    for i in 0..block.len() {
        let (at, line, metadata) = (block.at[i], block.line(i), block.metadata_of(i));
        if !is_deleted(at, line, metadata) {
            left.push(at, line, metadata);
        }
    }
    Cow::Owned(left)
}

/// Lines by step.
type Counts = HashMap<i64, u64>;

/// Templates found so far, by level and text.
struct Tally {
    query: PatternQuery,
    /// What a chunk counts.
    weight: u64,
    /// Open lines looked at of each head.
    a_head: usize,
    by_level: HashMap<String, HashMap<String, Counts>>,
    templates: usize,
    counts: usize,
    /// Chunks that have no record.
    unmined: Vec<Unit>,
}

impl Tally {
    fn new(query: PatternQuery, weight: u64) -> Self {
        Self {
            query,
            weight,
            a_head: OPEN_LINES,
            by_level: HashMap::new(),
            templates: 0,
            counts: 0,
            unmined: Vec::new(),
        }
    }

    fn add(mut self, units: Vec<Unit>, deadline: Instant) -> Result<Self, QueryError> {
        for unit in units {
            if Instant::now() >= deadline {
                break; // whoever waits looks at the clock
            }
            match &unit {
                // Its record counts what is deleted as well.
                Unit::Chunk { deletions, .. } if !deletions.is_empty() => self.unmined.push(unit),
                Unit::Chunk {
                    partition, meta, ..
                } => {
                    let read = partition.patterns(meta.number, |record| {
                        decode(record, |found| {
                            for (slot, lines) in found.counts {
                                if let Some(at) = self.query.slot(slot) {
                                    let lines = lines.saturating_mul(self.weight);
                                    self.count(found.level, found.template, at, lines);
                                }
                            }
                        })
                    });
                    match read {
                        Ok(Some(Ok(()))) => {}
                        Ok(None) => self.unmined.push(unit),
                        Ok(Some(Err(what))) => {
                            // It is worth no more than its chunk's lines, which are there.
                            tracing::warn!(partition = %partition.name, chunk = meta.number,
                                "pattern record not used: {what}");
                            self.unmined.push(unit);
                        }
                        // Retention was quicker than the query.
                        Err(StoreError::Gone(_)) => {}
                        Err(error) => return Err(internal(error)),
                    }
                }
                Unit::Head(head) => {
                    let lines: usize = head.blocks.iter().map(|b| b.len()).sum();
                    for block in &head.blocks {
                        let most = (block.len() * self.a_head).div_ceil(lines.max(1));
                        let left = left_of(block, &head.deletions, &head.stream);
                        self.mine(&head.stream, &left, most, 1);
                    }
                }
            }
        }
        Ok(self)
    }

    /// Mines the chunks that have no record.
    fn add_unmined(mut self) -> Result<Self, QueryError> {
        let unmined = std::mem::take(&mut self.unmined);
        let every = unmined.len().div_ceil(MAX_UNMINED).max(1);
        for unit in unmined.iter().step_by(every) {
            let Unit::Chunk {
                partition,
                meta,
                stream,
                deletions,
            } = unit
            else {
                continue;
            };
            let read = partition.read(meta.number, |bytes| ChunkReader::new(bytes)?.lines());
            if let Read::Whole(block) = read.map_err(internal)? {
                let weight = self.weight.saturating_mul(every as u64);
                let left = left_of(&block, deletions, stream);
                self.mine(stream, &left, SAMPLE, weight);
            }
        }
        Ok(self)
    }

    fn mine(&mut self, stream: &Stream, block: &LineBlock, most: usize, weight: u64) {
        let mut miner = Miner::default();
        let mut counts: Vec<Counts> = Vec::new();
        sample(block, most, |index, lines| {
            let at = block.at[index];
            if !self.query.range.contains(at) {
                return;
            }
            let line = block.line(index);
            let metadata = block.metadata_of(index);
            let level = level_of(&stream.labels, metadata.map_or(&[], |m| &m[..]), line);
            if let Some(number) = miner.add_line(line, level) {
                counts.resize(miner.len().max(counts.len()), Counts::new());
                *counts[number].entry(self.query.step_of(at)).or_default() +=
                    lines.saturating_mul(weight);
            }
        });
        for (number, counts) in counts.into_iter().enumerate() {
            let (template, level) = miner.template(number);
            for (step, lines) in counts {
                self.count_step(level, &template, step, lines);
            }
        }
    }

    fn count(&mut self, level: &str, template: &str, at: Timestamp, lines: u64) {
        let step = self.query.step_of(at);
        self.count_step(level, template, step, lines);
    }

    fn count_step(&mut self, level: &str, template: &str, step: i64, lines: u64) {
        let of_level = self.by_level.entry_ref(level).or_default();
        let counts = match of_level.get_mut(template) {
            Some(counts) => counts,
            None if self.templates >= MAX_TEMPLATES => return,
            None => {
                self.templates += 1;
                of_level.entry_ref(template).or_default()
            }
        };
        if let Some(count) = counts.get_mut(&step) {
            *count += lines;
        } else if self.counts < MAX_COUNTS {
            self.counts += 1;
            counts.insert(step, lines);
        }
    }

    /// Merges what chunks and heads called by different templates.
    fn answer(self) -> Vec<PatternCounts> {
        let mut found: Vec<(u64, String, String, Counts)> = Vec::with_capacity(self.templates);
        for (level, templates) in self.by_level {
            for (template, counts) in templates {
                found.push((counts.values().sum(), level.clone(), template, counts));
            }
        }
        // The most frequent first: they give the others their shape.
        found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1, &a.2).cmp(&(&b.1, &b.2))));
        let mut miner = Miner::default();
        let mut merged: Vec<Counts> = Vec::new();
        for (_, level, template, counts) in found {
            let Some(number) = miner.add_template(&template, &level) else {
                continue;
            };
            merged.resize(miner.len().max(merged.len()), Counts::new());
            for (step, lines) in counts {
                *merged[number].entry(step).or_default() += lines;
            }
        }
        let mut ranked: Vec<(u64, usize)> =
            merged.iter().map(|c| c.values().sum()).zip(0..).collect();
        ranked.sort_unstable_by_key(|(lines, number)| (std::cmp::Reverse(*lines), *number));
        ranked.truncate(MAX_ANSWER);
        let patterns = ranked.into_iter().map(|(_, number)| {
            let (pattern, level) = miner.template(number);
            let mut samples: Vec<(i64, u64)> = merged[number].drain().collect();
            samples.sort_unstable();
            PatternCounts {
                pattern,
                level: level.to_owned(),
                samples,
            }
        });
        patterns.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::stage::pattern::LinePattern;
    use proptest::prelude::*;

    proptest! {
        /// M2. Text that looks like a capture, next to brackets that are none, may come out as
        /// a template that misses its line; it must be a template all the same.
        #[test]
        fn templates_are_taken_by_logql_and_match_their_lines(
            lines in proptest::collection::vec(
                r#"(ab|user|x5|7|é|k=| |"|:|/|,|=|<|_|>|<a>|\{|\[|\t){1,12}"#, 1..20
            )
        ) {
            let mut miner = Miner::default();
            let found: Vec<Option<usize>> =
                lines.iter().map(|line| miner.add_line(line.as_bytes(), "")).collect();
            for (line, number) in lines.iter().zip(found) {
                let template = miner.template(number.expect("UTF-8")).0;
                let pattern = LinePattern::parse(&template);
                prop_assert!(pattern.is_ok(), "{:?}: {:?}", template, pattern);
                if !line.contains('<') && let Ok(pattern) = pattern {
                    prop_assert!(pattern.matches(line.as_bytes()), "{:?} in {:?}", template, line);
                }
            }
        }
    }

    fn query(step: i64) -> PatternQuery {
        PatternQuery {
            range: TimeRange::new(0, 1000 * SECOND),
            step: step * SECOND,
        }
    }

    #[test]
    fn steps_begin_at_their_multiples_and_are_ten_seconds_at_least() {
        assert_eq!(query(60).step_of(119 * SECOND), 60);
        assert_eq!(query(1).step_of(119 * SECOND), 110);
        let half = PatternQuery {
            step: 10 * SECOND + SECOND / 2,
            ..query(0)
        };
        assert_eq!(half.step_of(25 * SECOND), 20);
        assert_eq!(query(1).slot(100), None);
        assert_eq!(query(1).slot(99), Some(990 * SECOND));
    }

    #[test]
    fn templates_of_many_chunks_are_merged() {
        let mut tally = Tally::new(query(60), 1);
        for (template, at, lines) in [
            ("user ann has logged in", 5, 1),
            ("user <_> has logged in", 70, 20),
            ("user bob has logged in", 70, 2),
            ("bye", 5, 3),
        ] {
            tally.count("info", template, at * SECOND, lines);
        }
        let pattern = |text: &str, samples: &[(i64, u64)]| PatternCounts {
            pattern: text.into(),
            level: "info".into(),
            samples: samples.to_vec(),
        };
        assert_eq!(
            tally.answer(),
            [
                pattern("user <_> has logged in", &[(0, 1), (60, 22)]),
                pattern("bye", &[(0, 3)]),
            ]
        );
    }
}
