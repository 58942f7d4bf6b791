//! How many bytes of lines there are, by labels and by time, without reading a line.
//!
//! V1. What lies in whole minutes, or in whole chunks, comes from the chunks' metas and is
//!     exact. Where the range or a step cuts a minute of a chunk, the times of its lines
//!     decide, for as many chunks as [`EXACT_CHUNKS`]; of the chunks beyond, a cut minute
//!     counts by the share of its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use super::Querier;
use super::answer::QueryError;
use super::prune::internal;
use crate::model::time::MINUTE;
use crate::model::{Labels, Matcher, StreamId, TimeRange, Timestamp};
use crate::store::chunk::{ChunkMeta, ChunkReader, LineBlock};
use crate::store::deletion::{Deletion, Left, any_of};
use crate::store::partition::{Partition, Read};
use crate::store::{Store, Stream};

/// Chunks whose times are read because an edge cuts one of their minutes: about 0.1 ms each.
const EXACT_CHUNKS: usize = 2_000;
/// Sums of an answer: groups times the steps in which they have lines.
const MAX_SUMS: usize = 1_000_000;
/// How often the clock is looked at, in chunks read.
const CHECK_EVERY: usize = 64;

/// By what volumes are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateBy {
    /// Label sets.
    Series,
    /// Names of labels.
    Labels,
}

/// A question for volumes.
#[derive(Clone, Debug)]
pub struct VolumeQuery {
    pub matchers: Vec<Matcher>,
    pub steps: Steps,
    /// Only streams that have all of these, and only these labels. Empty: the labels that
    /// the selector names.
    pub targets: Vec<String>,
    pub by: AggregateBy,
    /// Groups of the answer, the largest ones.
    pub limit: usize,
}

/// A range of time, both ends inclusive, cut behind the multiples of a step: a step excludes
/// its first instant and includes its last, as the minutes of chunks do (chunk/meta.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    start: Timestamp,
    end: Timestamp,
    /// 0: not cut.
    step: i64,
}

impl Steps {
    /// The range as one.
    pub fn whole(start: Timestamp, end: Timestamp) -> Self {
        Self {
            start,
            end,
            step: 0,
        }
    }

    /// Cut behind each multiple of `step` nanoseconds.
    pub fn every(step: i64, start: Timestamp, end: Timestamp) -> Self {
        Self { start, end, step }
    }

    pub fn range(&self) -> TimeRange {
        TimeRange::inclusive(self.start, self.end)
    }

    /// The step that an instant of the range belongs to, from 0.
    fn of(&self, at: Timestamp) -> u32 {
        if self.step <= 0 {
            return 0;
        }
        let first = self.start.div_euclid(self.step);
        // The range's first instant may lie on a cut; it has no step before it.
        u32::try_from(at.saturating_sub(1).div_euclid(self.step) - first).unwrap_or(0)
    }

    /// Last nanosecond of a step.
    fn last(&self, number: u32) -> Timestamp {
        if self.step <= 0 {
            return self.end;
        }
        let next = self.start.div_euclid(self.step) + i64::from(number) + 1;
        self.end.min(next.saturating_mul(self.step))
    }

    /// The time by which Loki shows a step: a millisecond before its end, and the end of the
    /// range for the last.
    pub fn shown(&self, number: u32) -> Timestamp {
        match self.last(number) {
            last if last >= self.end => self.end,
            last => last - 1_000_000,
        }
    }
}

/// Bytes of one group by step, in order of the steps; steps without lines are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub labels: Labels,
    pub bytes: Vec<(Timestamp, u64)>,
}

impl Querier {
    /// Volumes, the largest first.
    pub async fn volume(
        &self,
        tenant: &str,
        query: VolumeQuery,
    ) -> Result<Vec<Volume>, QueryError> {
        let (tenant, timeout) = (tenant.to_owned(), self.limits.timeout);
        let work = move |store: &Store| volumes(store, &tenant, &query, timeout);
        self.metrics
            .count("volume", self.on_pool(work).await, |_| None)
    }
}

/// Which groups the streams belong to.
struct Groups {
    labels: Vec<Labels>,
    of_stream: HashMap<StreamId, Vec<u32>>,
}

impl Groups {
    fn of(streams: &[Arc<Stream>], query: &VolumeQuery) -> Self {
        let named: Vec<&str> = match &query.targets[..] {
            [] => query.matchers.iter().map(|m| m.name.as_str()).collect(),
            targets => targets.iter().map(String::as_str).collect(),
        };
        let mut groups = Self {
            labels: Vec::new(),
            of_stream: HashMap::with_capacity(streams.len()),
        };
        let mut numbers: HashMap<Labels, u32> = HashMap::new();
        for stream in streams {
            let wanted = stream.labels.pairs().iter().filter(|(name, _)| {
                // By names every label counts that was not ruled out; by sets, those named.
                let all = named.is_empty() || query.by == AggregateBy::Labels;
                (all && query.targets.is_empty()) || named.contains(&&**name)
            });
            let keys: Vec<Labels> = match query.by {
                AggregateBy::Series => vec![Labels::from_pairs(wanted.cloned())],
                AggregateBy::Labels => wanted
                    .map(|(name, _)| Labels::from_pairs([(name.clone(), "")]))
                    .collect(),
            };
            let numbers = keys.into_iter().map(|key| {
                *numbers.entry(key).or_insert_with_key(|key| {
                    groups.labels.push(key.clone());
                    groups.labels.len() as u32 - 1
                })
            });
            groups.of_stream.insert(stream.id, numbers.collect());
        }
        groups
    }
}

/// Sums by group and step.
struct Sums<'a> {
    steps: Steps,
    groups: &'a Groups,
    bytes: HashMap<(u32, u32), u64>,
}

impl Sums<'_> {
    fn add(&mut self, groups: &[u32], step: u32, bytes: u64) {
        for group in groups {
            *self.bytes.entry((*group, step)).or_default() += bytes;
        }
    }

    /// Lines with their times.
    fn add_lines(&mut self, groups: &[u32], times: &[Timestamp], ends: &[u32]) {
        let range = self.steps.range();
        let (mut step, mut sum, mut any) = (0, 0, false);
        let mut start = 0;
        for (at, end) in times.iter().zip(ends) {
            let bytes = u64::from(end - start);
            start = end + 1;
            if !range.contains(*at) {
                continue;
            }
            let this = self.steps.of(*at);
            if any && this != step {
                self.add(groups, step, sum);
                sum = 0;
            }
            (step, any) = (this, true);
            sum += bytes;
        }
        if any {
            self.add(groups, step, sum);
        }
    }

    /// The lines of a block that no delete request takes.
    fn add_left(
        &mut self,
        groups: &[u32],
        block: &LineBlock,
        deletions: &[Arc<Deletion>],
        stream: &Stream,
    ) {
        let range = self.steps.range();
        let mut is_deleted = any_of(deletions, &stream.labels);
        for i in 0..block.len() {
            let (at, line) = (block.at[i], block.line(i));
            if range.contains(at) && !is_deleted(at, line, block.metadata_of(i)) {
                self.add(groups, self.steps.of(at), line.len() as u64);
            }
        }
    }

    /// Takes a chunk by what its meta says. False: an edge cuts a minute, nothing was added.
    fn add_whole(&mut self, groups: &[u32], meta: &ChunkMeta) -> bool {
        let range = self.steps.range();
        let one = |first, last| self.steps.of(first) == self.steps.of(last);
        if range.covers(meta.min, meta.max) && one(meta.min, meta.max) {
            self.add(groups, self.steps.of(meta.min), meta.line_bytes);
            return true;
        }
        let cut = |(first, last, _): (Timestamp, Timestamp, u64)| {
            range.overlaps(first, last)
                && !(range.covers(first, last) && self.steps.of(first) == self.steps.of(last))
        };
        if minutes(meta).any(cut) {
            return false;
        }
        for (first, last, bytes) in minutes(meta) {
            if range.covers(first, last) {
                self.add(groups, self.steps.of(first), bytes);
            }
        }
        true
    }

    /// Takes a chunk by what its meta says; of a minute that is cut, by shares of its time.
    fn add_shares(&mut self, groups: &[u32], meta: &ChunkMeta) {
        let range = self.steps.range();
        for (first, last, bytes) in minutes(meta) {
            if !range.overlaps(first, last) {
                continue;
            }
            let length = (last - first) as f64 + 1.0;
            let until = last.min(range.end - 1);
            let mut from = first.max(range.start);
            while from <= until {
                let step = self.steps.of(from);
                let to = self.steps.last(step).min(until);
                let share = ((to - from) as f64 + 1.0) / length;
                self.add(groups, step, (bytes as f64 * share).round() as u64);
                from = to + 1;
            }
        }
    }
}

/// First and last instant that a chunk's minutes can have lines of, and their bytes.
fn minutes(meta: &ChunkMeta) -> impl Iterator<Item = (Timestamp, Timestamp, u64)> + '_ {
    meta.minutes.iter(meta.min).map(|minute| {
        let first = minute.start.saturating_add(1).max(meta.min);
        let last = minute.start.saturating_add(MINUTE).min(meta.max);
        (first, last, minute.bytes)
    })
}

fn volumes(
    store: &Store,
    tenant: &str,
    query: &VolumeQuery,
    timeout: Duration,
) -> Result<Vec<Volume>, QueryError> {
    let deadline = Instant::now() + timeout;
    let range = query.steps.range();
    let mut streams = store.select(tenant, &query.matchers);
    streams.retain(|stream| {
        let has = |name: &String| stream.labels.get(name).is_some_and(|v| !v.is_empty());
        query.targets.iter().all(has)
    });
    if streams.is_empty() || range.is_empty() {
        return Ok(Vec::new());
    }
    let groups = Groups::of(&streams, query);
    let ids: HashSet<StreamId> = groups.of_stream.keys().copied().collect();
    let snapshot = store.logs(range, Some(&ids)).map_err(internal)?;
    let by_id: HashMap<StreamId, &Arc<Stream>> = match snapshot.leaves_all() {
        true => HashMap::new(),
        false => streams.iter().map(|s| (s.id, s)).collect(),
    };
    let mut sums = Sums {
        steps: query.steps,
        groups: &groups,
        bytes: HashMap::new(),
    };
    let mut read = 0;
    let mut buffers = (Vec::new(), Vec::new(), Vec::new());
    for day in &snapshot.days {
        for meta in day.chunks.iter().filter(|meta| meta.overlaps(range)) {
            let Some(of) = groups.of_stream.get(&meta.stream) else {
                continue;
            };
            if !snapshot.leaves_all()
                && let Some(stream) = by_id.get(&meta.stream)
            {
                match snapshot.left(stream, meta) {
                    Left::All => {}
                    Left::Nothing => continue,
                    Left::Lines(deletions) => {
                        add_left(&day.partition, meta, stream, &deletions, of, &mut sums)?;
                        check_time(deadline, timeout)?;
                        continue;
                    }
                }
            }
            if sums.add_whole(of, meta) {
                continue;
            }
            if read == EXACT_CHUNKS {
                sums.add_shares(of, meta);
            } else {
                read += 1;
                add_exactly(&day.partition, meta, of, &mut sums, &mut buffers)?;
            }
            if read % CHECK_EVERY == 0 {
                check_time(deadline, timeout)?;
            }
            check_size(sums.bytes.len())?;
        }
    }
    for head in &snapshot.heads {
        if let Some(of) = groups.of_stream.get(&head.stream.id) {
            for block in &head.blocks {
                if head.deletions.is_empty() {
                    sums.add_lines(of, &block.at, &block.ends);
                } else {
                    sums.add_left(of, block, &head.deletions, &head.stream);
                }
            }
            check_size(sums.bytes.len())?;
        }
    }
    Ok(largest(sums, query.limit))
}

/// Reads a chunk of which delete requests take some lines.
fn add_left(
    partition: &Partition,
    meta: &ChunkMeta,
    stream: &Stream,
    deletions: &[Arc<Deletion>],
    groups: &[u32],
    sums: &mut Sums<'_>,
) -> Result<(), QueryError> {
    let read = partition.read(meta.number, |bytes| ChunkReader::new(bytes)?.lines());
    if let Read::Whole(block) = read.map_err(internal)? {
        sums.add_left(groups, &block, deletions, stream);
    }
    Ok(())
}

fn check_time(deadline: Instant, timeout: Duration) -> Result<(), QueryError> {
    if Instant::now() >= deadline {
        return Err(QueryError::Timeout(timeout));
    }
    Ok(())
}

fn check_size(sums: usize) -> Result<(), QueryError> {
    if sums <= MAX_SUMS {
        return Ok(());
    }
    Err(QueryError::TooMuch(format!(
        "the volumes would be more than {MAX_SUMS} numbers; ask with a larger step, fewer \
         targetLabels or a narrower selector"
    )))
}

type Buffers = (Vec<u8>, Vec<i64>, Vec<u32>);

fn add_exactly(
    partition: &Partition,
    meta: &ChunkMeta,
    groups: &[u32],
    sums: &mut Sums<'_>,
    (scratch, times, ends): &mut Buffers,
) -> Result<(), QueryError> {
    let read = partition.read(meta.number, |bytes| {
        let chunk = ChunkReader::new(bytes)?;
        chunk.times(scratch, times)?;
        chunk.ends(scratch, ends)
    });
    // Retention may have been quicker than the query.
    if let Read::Whole(()) = read.map_err(internal)? {
        sums.add_lines(groups, times, ends);
    }
    Ok(())
}

/// The `limit` groups with most bytes, equal ones by their labels' text.
fn largest(sums: Sums<'_>, limit: usize) -> Vec<Volume> {
    let mut by_group: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
    for ((group, step), bytes) in sums.bytes {
        by_group.entry(group).or_default().push((step, bytes));
    }
    let mut ranked: Vec<(u64, String, u32)> = by_group
        .iter()
        .map(|(group, steps)| {
            let total = steps.iter().map(|(_, bytes)| bytes).sum();
            let name = sums.groups.labels[*group as usize].to_string();
            (total, name, *group)
        })
        .collect();
    ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranked.truncate(limit);
    let volumes = ranked.into_iter().map(|(_, _, group)| {
        let mut bytes = by_group.remove(&group).unwrap_or_default();
        bytes.sort_unstable();
        Volume {
            labels: sums.groups.labels[group as usize].clone(),
            bytes: bytes
                .into_iter()
                .map(|(step, bytes)| (sums.steps.shown(step), bytes))
                .collect(),
        }
    });
    volumes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;
    use crate::store::chunk::LineBlock;

    const MILLI: i64 = 1_000_000;

    #[test]
    fn steps_are_cut_at_multiples_and_shown_a_millisecond_before_their_end() {
        let steps = Steps::every(60 * SECOND, 90 * SECOND, 200 * SECOND);
        assert_eq!((steps.of(90 * SECOND), steps.of(120 * SECOND)), (0, 0));
        assert_eq!((steps.of(120 * SECOND + 1), steps.of(200 * SECOND)), (1, 2));
        assert_eq!(steps.shown(0), 120 * SECOND - MILLI);
        assert_eq!(steps.shown(1), 180 * SECOND - MILLI);
        assert_eq!(steps.shown(2), 200 * SECOND);
        assert_eq!(Steps::whole(5, 9).shown(0), 9);
        let aligned = Steps::every(60 * SECOND, 60 * SECOND, 180 * SECOND);
        assert_eq!((aligned.of(60 * SECOND), aligned.of(180 * SECOND)), (0, 1));
        assert_eq!(aligned.shown(1), 180 * SECOND);
    }

    /// Random lines, ranges and steps: metas and times give what counting lines gives.
    #[test]
    fn metas_give_the_sums_of_the_lines_or_refuse() {
        let mut state = 5u64;
        let mut random = |below: i64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as i64 % below
        };
        let groups = Groups {
            labels: Vec::new(),
            of_stream: HashMap::new(),
        };
        let mut taken = 0;
        for _ in 0..500 {
            let mut block = LineBlock::default();
            let mut at = random(7200) * SECOND / 2;
            for _ in 0..1 + random(50) {
                at += random(240) * SECOND / 2;
                block.push(at, &b"0123456789"[..random(10) as usize], None);
            }
            let meta = ChunkMeta::of(&block, StreamId(1), 1, 0);
            let start = random(7200) * SECOND;
            let end = start + random(7200) * SECOND;
            let steps = match random(3) {
                0 => Steps::whole(start, end),
                1 => Steps::every(MINUTE * (1 + random(30)), start, end),
                _ => Steps::every(SECOND * (1 + random(100)), start, end),
            };
            let sums = || Sums {
                steps,
                groups: &groups,
                bytes: HashMap::new(),
            };
            let (mut lines, mut whole, mut shares) = (sums(), sums(), sums());
            lines.add_lines(&[0], &block.at, &block.ends);
            if whole.add_whole(&[0], &meta) {
                taken += 1;
                let nonzero = |sums: &Sums<'_>| {
                    let mut all: Vec<_> = sums.bytes.iter().map(|(k, v)| (*k, *v)).collect();
                    all.sort_unstable();
                    all
                };
                assert_eq!(nonzero(&whole), nonzero(&lines), "{steps:?}");
                shares.add_shares(&[0], &meta);
                assert_eq!(nonzero(&shares), nonzero(&lines), "{steps:?}");
            } else {
                assert!(whole.bytes.is_empty());
                shares.add_shares(&[0], &meta);
                let sum = |sums: &Sums<'_>| sums.bytes.values().sum::<u64>() as i64;
                // Two cut minutes at most are off, and every rounding by one.
                assert!((sum(&shares) - sum(&lines)).abs() <= 200 + 100, "{steps:?}");
            }
        }
        assert!(taken > 100, "{taken} of 500");
    }
}
