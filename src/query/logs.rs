//! Log queries: the newest (or oldest) lines that come through a pipeline.
//!
//! Units are read in the order of the query's direction, a few at a time, and reading stops
//! when no unit that is left can hold a line that belongs into the answer.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering as Atomic};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::Xxh3;

use super::answer::{AnswerEntry, AnswerStream, LogAnswer, LogQuery, QueryError, QueryStats};
use super::limits::{QueryLimits, Running};
use super::prune::{AsOf, Unit, candidates};
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

/// Runs a log query.
pub async fn run(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    running: &Running,
    tenant: &str,
    query: LogQuery,
) -> Result<LogAnswer, QueryError> {
    let mut stats = QueryStats {
        queued: running.queued,
        ..QueryStats::default()
    };
    let mut found = if query.interval > 0 {
        spaced(store, pool, limits, running, tenant, &query, &mut stats).await?
    } else {
        collect(
            store,
            pool,
            limits,
            running,
            tenant,
            &query,
            query.range,
            &mut stats,
        )
        .await?
        .0
    };
    found.truncate(query.limit);
    stats.entries_returned = found.len() as u64;
    stats.elapsed = running.began.elapsed();
    Ok(LogAnswer {
        streams: group(found),
        stats,
    })
}

/// Lines at least an interval apart: asks again behind each stretch that is skipped.
async fn spaced(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    running: &Running,
    tenant: &str,
    query: &LogQuery,
    stats: &mut QueryStats,
) -> Result<Vec<Found>, QueryError> {
    let mut kept: Vec<Found> = Vec::new();
    let mut range = query.range;
    while kept.len() < query.limit && !range.is_empty() {
        let (page, _permit, _) =
            collect(store, pool, limits, running, tenant, query, range, stats).await?;
        let exhausted = page.len() < query.limit;
        for found in page {
            let far = kept
                .last()
                .is_none_or(|last| found.at.abs_diff(last.at) >= query.interval as u64);
            if far && kept.len() < query.limit {
                kept.push(found);
            }
        }
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
    Ok(kept)
}

/// The first `limit` lines of `range` in the query's direction, and the instant of which
/// that is true. The permit covers the lines.
#[allow(clippy::too_many_arguments)]
pub(super) async fn collect(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    running: &Running,
    tenant: &str,
    query: &LogQuery,
    range: TimeRange,
    stats: &mut QueryStats,
) -> Result<(Vec<Found>, Permit, AsOf), QueryError> {
    let pipeline = Pipeline::compile(&query.expr).map_err(compile_error)?;
    let direction = query.direction;
    let mut permit = running
        .account
        .try_take(0)
        .map_err(|e| QueryError::Busy(e.to_string()))?;

    let (store, tenant) = (store.clone(), tenant.to_owned());
    let (expr, need) = (query.expr.matchers.clone(), query.expr.need());
    let pruned = pool
        .run(Lane::Second, move || {
            candidates(&store, &tenant, &expr, range, &need)
        })
        .await
        .map_err(|e| QueryError::Internal(e.to_string()))??;
    let counted = pruned.stats;
    stats.streams = counted.streams;
    stats.chunks_total += counted.chunks_total;
    stats.chunks_candidate += counted.chunks_candidate;

    // Rank first: it says in which order lines of one stream arrived.
    let mut units: Vec<(u32, Unit)> = (0..).zip(pruned.units).collect();
    match direction {
        Direction::Backward => units.sort_by_key(|(_, unit)| std::cmp::Reverse(unit.max())),
        Direction::Forward => units.sort_by_key(|(_, unit)| unit.min()),
    }
    let job = Arc::new(Job {
        pipeline,
        range,
        limit: query.limit,
        direction,
        categorize: query.categorize,
        discover_levels: limits.discover_levels,
        bound: AtomicI64::new(match direction {
            Direction::Backward => i64::MIN,
            Direction::Forward => i64::MAX,
        }),
        deadline: running.deadline,
    });

    let mut best: Vec<Found> = Vec::new();
    let mut identities: HashSet<(StreamId, u64)> = HashSet::new();
    let mut units = units.into_iter();
    let mut reading = VecDeque::new();
    let mut ended = false;
    loop {
        while !ended && reading.len() < 2 * pool.threads() {
            let Some((rank, unit)) = units.next() else {
                ended = true;
                break;
            };
            let bound = job.bound.load(Atomic::Relaxed);
            let beyond = match direction {
                Direction::Backward => unit.max() < bound,
                Direction::Forward => unit.min() > bound,
            };
            if beyond {
                // Units come in order: none that follows matters either.
                ended = true;
                break;
            }
            let job = job.clone();
            reading.push_back(pool.spawn(Lane::Second, move || read(&job, rank, &unit)));
        }
        let Some(next) = reading.pop_front() else {
            break;
        };
        let result = next
            .await
            .map_err(|_| QueryError::Busy("shutting down".into()))?;
        let (lines, cost) = result.map_err(|e| QueryError::Internal(e.to_string()))??;
        add(stats, &cost);
        running.check()?;
        if lines.is_empty() {
            continue;
        }
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
        let bytes: usize = best.iter().map(Found::memory).sum();
        if bytes > limits.max_result_bytes {
            return Err(QueryError::TooMuch(format!(
                "the answer would hold more than {} bytes of lines; ask for fewer lines with `limit`",
                limits.max_result_bytes
            )));
        }
        if bytes > permit.bytes() {
            let more = bytes - permit.bytes();
            permit
                .try_grow(more)
                .map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
        }
    }
    Ok((best, permit, pruned.as_of))
}

/// Reads one unit: its first `limit` lines, in the direction, that come through.
fn read(job: &Job, rank: u32, unit: &Unit) -> Result<(Vec<Found>, QueryStats), QueryError> {
    let mut stats = QueryStats::default();
    let mut found = Vec::new();
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
                let beyond = match job.direction {
                    Direction::Backward => at < bound,
                    Direction::Forward => at > bound,
                };
                if beyond || in_order && found.len() >= job.limit {
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
}

/// A query that reads well but can't be run.
pub fn compile_error(error: CompileError) -> QueryError {
    QueryError::Invalid(error.to_string())
}
