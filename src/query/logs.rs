//! Log queries: the newest (or oldest) lines that come through a pipeline.
//!
//! Units are read in the order of the query's direction, a few at a time, and reading stops
//! when no unit that is left can hold a line that belongs into the answer. What no unit that
//! is left can change is told before (`certain.rs`).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering as Atomic};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::Xxh3;

use super::answer::{AnswerEntry, AnswerStream, LogAnswer, LogQuery, QueryError, QueryStats};
use super::certain::Certain;
use super::limits::{QueryLimits, Running};
use super::prune::{AsOf, Part, Unit, candidates};
use super::scan::{Leveler, Sieve, scan};
use crate::logql::pipeline::{CompileError, Pipeline};
use crate::model::{Direction, Labels, StreamId, TimeRange, Timestamp};
use crate::runtime::permits::Permit;
use crate::runtime::pool::{Lane, Pool};
use crate::store::{Store, Stream};

/// A line that came through, with all that its place in the answer depends on.
pub(super) struct Found {
    pub at: Timestamp,
    stream: Arc<Stream>,
    /// Order of arrival within the stream: unit, then block and line within it.
    unit: u32,
    index: u32,
    pub line: Bytes,
    pub labels: Labels,
    pub structured: Labels,
    pub parsed: Labels,
    /// Of time, line and metadata as stored: two finds of one stream that agree are one line.
    identity: u64,
}

impl Found {
    /// By time, then labels of the stream, then arrival: ids would make another order of
    /// what happened at one instant with every tenant.
    fn order(&self, other: &Self) -> Ordering {
        self.at
            .cmp(&other.at)
            .then_with(|| match self.stream.id == other.stream.id {
                true => Ordering::Equal,
                false => self.stream.labels.cmp(&other.stream.labels),
            })
            .then_with(|| (self.unit, self.index).cmp(&(other.unit, other.index)))
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.line.len() + 32
    }

    /// Its place in an answer: labels, and the line beneath them. Shares its bytes.
    fn told(&self) -> (Labels, AnswerEntry) {
        let entry = AnswerEntry {
            at: self.at,
            line: self.line.clone(),
            structured: self.structured.clone(),
            parsed: self.parsed.clone(),
        };
        (self.labels.clone(), entry)
    }
}

/// What every task of a query shares.
struct Job {
    pipeline: Pipeline,
    range: TimeRange,
    limit: usize,
    direction: Direction,
    categorize: bool,
    discover_levels: bool,
    /// Lines beyond this time no longer matter: as many as the limit asks for lie before it.
    bound: AtomicI64,
    deadline: Instant,
}

/// Where lines come from, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub store: &'a Store,
    pub pool: &'a Pool,
    pub limits: &'a QueryLimits,
    pub running: &'a Running,
    pub tenant: &'a str,
}

/// Runs a log query. With an interval nothing is certain before all of it is: what a line is
/// skipped for may be found in the last unit.
pub async fn run(
    source: Source<'_>,
    query: LogQuery,
    certain: &Certain,
) -> Result<LogAnswer, QueryError> {
    let mut stats = QueryStats {
        queued: source.running.queued,
        ..QueryStats::default()
    };
    let (mut found, permit) = if query.interval > 0 {
        spaced(source, &query, &mut stats).await?
    } else {
        let (found, permit, _) =
            collect(source, &query, query.range, &mut stats, Some(certain)).await?;
        (found, permit)
    };
    found.truncate(query.limit);
    stats.entries_returned = found.len() as u64;
    stats.elapsed = source.running.began.elapsed();
    Ok(LogAnswer {
        streams: group(found),
        stats,
        memory: Some(Arc::new(permit)),
    })
}

/// Lines at least an interval apart: asks again behind each stretch that is skipped.
async fn spaced(
    source: Source<'_>,
    query: &LogQuery,
    stats: &mut QueryStats,
) -> Result<(Vec<Found>, Permit), QueryError> {
    let mut kept: Vec<Found> = Vec::new();
    let mut held = nothing(source.running)?;
    let mut range = query.range;
    while kept.len() < query.limit && !range.is_empty() {
        let (page, _permit, _) = collect(source, query, range, stats, None).await?;
        let exhausted = page.len() < query.limit;
        for found in page {
            let far = kept
                .last()
                .is_none_or(|last| found.at.abs_diff(last.at) >= query.interval as u64);
            if far && kept.len() < query.limit {
                kept.push(found);
            }
        }
        hold(&mut held, &kept, 0, source.limits)?;
        let Some(last) = kept.last() else { break };
        if exhausted {
            break;
        }
        match query.direction {
            Direction::Forward => range.start = last.at.saturating_add(query.interval),
            Direction::Backward => {
                range.end = last.at.saturating_sub(query.interval).saturating_add(1);
            }
        }
    }
    Ok((kept, held))
}

fn nothing(running: &Running) -> Result<Permit, QueryError> {
    let nothing = running.account.try_take(0);
    nothing.map_err(|e| QueryError::Busy(e.to_string()))
}

/// Makes `permit` cover the lines, and as many that were told already.
fn hold(
    permit: &mut Permit,
    lines: &[Found],
    told: usize,
    limits: &QueryLimits,
) -> Result<(), QueryError> {
    let bytes: usize = lines.iter().map(Found::memory).sum();
    if bytes > limits.max_result_bytes {
        return Err(QueryError::TooMuch(format!(
            "the answer would hold more than {} bytes of lines; ask for fewer lines with `limit`",
            limits.max_result_bytes
        )));
    }
    let bytes = bytes + told * size_of::<AnswerEntry>();
    if bytes > permit.bytes() {
        let more = bytes - permit.bytes();
        permit
            .try_grow(more)
            .map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
    }
    Ok(())
}

/// The first `limit` lines of `range` in the query's direction, and the instant of which
/// that is true. The permit covers the lines.
pub(super) async fn collect(
    source: Source<'_>,
    query: &LogQuery,
    range: TimeRange,
    stats: &mut QueryStats,
    certain: Option<&Certain>,
) -> Result<(Vec<Found>, Permit, AsOf), QueryError> {
    let pipeline = Pipeline::compile(&query.expr).map_err(compile_error)?;
    let direction = query.direction;
    let job = Arc::new(Job {
        pipeline,
        range,
        limit: query.limit,
        direction,
        categorize: query.categorize,
        discover_levels: source.limits.discover_levels,
        bound: AtomicI64::new(match direction {
            Direction::Backward => i64::MIN,
            Direction::Forward => i64::MAX,
        }),
        deadline: source.running.deadline,
    });
    let mut collecting = Collecting {
        source,
        query,
        job,
        best: Vec::new(),
        identities: HashSet::new(),
        permit: nothing(source.running)?,
    };
    if source.running.parts == 1 {
        let (as_of, streams) = collecting.add(Part::ALL, stats, certain).await?;
        stats.streams = streams;
        return Ok((collecting.best, collecting.permit, as_of));
    }
    stats.streams = 0;
    for part in Part::each(source.running.parts) {
        // Lines of a later part may come before those that are known.
        let (_, streams) = collecting.add(part, stats, None).await?;
        stats.streams += streams;
    }
    // Parts are of different instants: nobody can go on from there, and tails are never in parts.
    Ok((collecting.best, collecting.permit, AsOf::default()))
}

/// The first lines that were found so far.
struct Collecting<'a> {
    source: Source<'a>,
    query: &'a LogQuery,
    job: Arc<Job>,
    best: Vec<Found>,
    identities: HashSet<(StreamId, u64)>,
    /// Covers `best`.
    permit: Permit,
}

impl Collecting<'_> {
    /// Adds lines of a part of the streams; the instant of which that is true and how many
    /// streams they are.
    async fn add(
        &mut self,
        part: Part,
        stats: &mut QueryStats,
        certain: Option<&Certain>,
    ) -> Result<(AsOf, u64), QueryError> {
        let Source {
            store,
            pool,
            limits,
            running,
            tenant,
        } = self.source;
        let Self {
            query,
            job,
            best,
            identities,
            permit,
            ..
        } = self;
        let (range, direction) = (job.range, job.direction);
        let (store, tenant) = (store.clone(), tenant.to_owned());
        let (expr, need) = (query.expr.matchers.clone(), query.expr.need());
        let pruned = pool
            .run(Lane::Second, move || {
                candidates(&store, &tenant, &expr, range, &need, part)
            })
            .await
            .map_err(|e| QueryError::Internal(e.to_string()))??;
        let counted = pruned.stats;
        stats.chunks_total += counted.chunks_total;
        stats.chunks_candidate += counted.chunks_candidate;

        // Rank first: it says in which order lines of one stream arrived.
        let mut units: Vec<(u32, Unit)> = (0..).zip(pruned.units).collect();
        match direction {
            Direction::Backward => units.sort_by_key(|(_, unit)| std::cmp::Reverse(unit.max())),
            Direction::Forward => units.sort_by_key(|(_, unit)| unit.min()),
        }
        let mut units = units.into_iter();
        let mut reading = VecDeque::new();
        let mut ended = false;
        let edge = |unit: &Unit| match direction {
            Direction::Backward => unit.max(),
            Direction::Forward => unit.min(),
        };
        // Lines at the head of `best` that were looked at when telling, and those told.
        let (mut settled, mut told) = (0, 0);
        loop {
            while !ended && reading.len() < 2 * pool.threads() {
                let Some((rank, unit)) = units.next() else {
                    ended = true;
                    break;
                };
                let bound = job.bound.load(Atomic::Relaxed);
                let at = edge(&unit);
                if is_beyond(direction, at, bound) {
                    // Units come in order: none that follows matters either.
                    ended = true;
                    break;
                }
                let job = job.clone();
                let read = pool.spawn(Lane::Second, move || read(&job, rank, &unit));
                reading.push_back((at, read));
            }
            let Some((_, next)) = reading.pop_front() else {
                break;
            };
            let result = next
                .await
                .map_err(|_| QueryError::Busy("shutting down".into()))?;
            let (lines, cost) = result.map_err(|e| QueryError::Internal(e.to_string()))??;
            add(stats, &cost);
            running.check()?;
            if !lines.is_empty() {
                for found in lines {
                    if identities.insert((found.stream.id, found.identity)) {
                        best.push(found);
                    }
                }
                match direction {
                    Direction::Backward => best.sort_by(|a, b| b.order(a)),
                    Direction::Forward => best.sort_by(Found::order),
                }
                for gone in best.drain(query.limit.min(best.len())..) {
                    identities.remove(&(gone.stream.id, gone.identity));
                }
                if best.len() == query.limit
                    && let Some(last) = best.last()
                {
                    job.bound.store(last.at, Atomic::Relaxed);
                }
                hold(permit, best, told, limits)?;
            }
            if let Some(certain) = certain.filter(|certain| certain.is_wanted())
            // The next unit is the one that reaches furthest. With none the answer is there.
            && let Some(next) = match reading.front() {
                Some((at, _)) => Some(*at),
                None if ended => None,
                None => units.as_slice().first().map(|(_, unit)| edge(unit)),
            } {
                let until = best.partition_point(|found| is_beyond(direction, next, found.at));
                told += certain.tell(best[settled..until].iter().map(Found::told));
                settled = until;
                hold(permit, best, told, limits)?;
            }
        }
        Ok((pruned.as_of, counted.streams))
    }
}

/// Whether a time comes behind another one in this direction.
fn is_beyond(direction: Direction, at: Timestamp, other: Timestamp) -> bool {
    match direction {
        Direction::Backward => at < other,
        Direction::Forward => at > other,
    }
}

/// Reads one unit: its first `limit` lines, in the direction, that come through.
fn read(job: &Job, rank: u32, unit: &Unit) -> Result<(Vec<Found>, QueryStats), QueryError> {
    let mut stats = QueryStats::default();
    let mut found = Vec::new();
    fail::fail_point!("scan-unit");
    if Instant::now() >= job.deadline {
        return Ok((found, stats)); // whoever waits looks at the clock
    }
    let stream = unit.stream();
    let mut runner = job.pipeline.runner();
    runner.bind(&stream.labels);
    let mut leveler = Leveler::new();
    let mut base = 0u32;
    let mut matched = 0;
    // A head has its lines in order of arrival, in several blocks.
    let in_order = matches!(unit, Unit::Chunk { .. });
    scan(
        unit,
        Sieve::of(&job.pipeline, &stream.labels),
        &mut stats,
        |lines, hits| {
            // True: no line behind this one is wanted.
            let mut visit = |index: u32| -> bool {
                let i = index as usize;
                let at = lines.at[i];
                let bound = job.bound.load(Atomic::Relaxed);
                if is_beyond(job.direction, at, bound) || in_order && found.len() >= job.limit {
                    return in_order;
                }
                if !job.range.contains(at) {
                    return false;
                }
                let line = lines.line(i);
                let stored = lines.metadata_of(i);
                let leveled;
                let metadata = if job.discover_levels {
                    leveled = leveler.level(&stream.labels, stored, line);
                    Some(&leveled)
                } else {
                    stored
                };
                let Some(mut outcome) = runner.run_rest(at, line, metadata) else {
                    return false;
                };
                matched += 1;
                let mut identity = Xxh3::new();
                identity.update(&at.to_le_bytes());
                identity.update(line);
                for (name, value) in stored.iter().flat_map(|set| set.iter()) {
                    identity.update(&[0xff]);
                    identity.update(name.as_bytes());
                    identity.update(&[0xff]);
                    identity.update(value.as_bytes());
                }
                let (labels, structured, parsed) = if job.categorize {
                    (
                        outcome.stream_labels(),
                        outcome.structured(),
                        outcome.parsed(),
                    )
                } else {
                    (outcome.labels(), Labels::empty(), Labels::empty())
                };
                found.push(Found {
                    at,
                    stream: stream.clone(),
                    unit: rank,
                    index: base + index,
                    line: Bytes::copy_from_slice(outcome.line()),
                    labels,
                    structured,
                    parsed,
                    identity: identity.digest(),
                });
                false
            };
            match job.direction {
                Direction::Forward => {
                    let _ = hits.iter().any(|index| visit(*index));
                }
                Direction::Backward => {
                    let _ = hits.iter().rev().any(|index| visit(*index));
                }
            }
            base += lines.ends.len() as u32;
            Ok(())
        },
    )?;
    stats.lines_matched = matched;
    match job.direction {
        Direction::Backward => found.sort_by(|a, b| b.order(a)),
        Direction::Forward => found.sort_by(Found::order),
    }
    found.truncate(job.limit);
    Ok((found, stats))
}

/// Groups lines by final labels; streams sorted by their rendered labels.
fn group(found: Vec<Found>) -> Vec<AnswerStream> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut streams: Vec<(String, AnswerStream)> = Vec::new();
    for found in found {
        let place = *places.entry(found.labels.clone()).or_insert_with(|| {
            let stream = AnswerStream {
                labels: found.labels.clone(),
                entries: Vec::new(),
            };
            streams.push((found.labels.to_string(), stream));
            streams.len() - 1
        });
        streams[place].1.entries.push(AnswerEntry {
            at: found.at,
            line: found.line,
            structured: found.structured,
            parsed: found.parsed,
        });
    }
    streams.sort_by(|(a, _), (b, _)| a.cmp(b));
    streams.into_iter().map(|(_, stream)| stream).collect()
}

/// Adds what a part of a query cost.
pub fn add(total: &mut QueryStats, part: &QueryStats) {
    total.lines += part.lines;
    total.bytes += part.bytes;
    total.lines_matched += part.lines_matched;
    total.chunks_decoded += part.chunks_decoded;
    total.compressed_bytes += part.compressed_bytes;
    total.decompressed_bytes += part.decompressed_bytes;
    total.head_lines += part.head_lines;
    total.head_bytes += part.head_bytes;
    total.slow_reads += part.slow_reads;
    total.damaged += part.damaged;
}

/// A query that reads well but can't be run.
pub fn compile_error(error: CompileError) -> QueryError {
    QueryError::Invalid(error.to_string())
}
