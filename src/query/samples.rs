//! Metric queries: range aggregations over lines, or over what is known of chunks without
//! reading a line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::ahead::Ahead;
use super::answer::{MetricAnswer, MetricQuery, QueryError, QueryStats};
use super::limits::{QueryLimits, Running};
use super::logs::{add, compile_error};
use super::partials::{Keeping, MAX_SERIES, Partials};
use super::prune::{Candidates, Part, Unit, candidates, internal, uncounted};
use super::scan::{Leveler, Sieve, scan};
use crate::logql::ast::MetricExpr;
use crate::logql::eval::{self, Accumulator, EvalError, Sampler};
use crate::logql::plan::{Group, Leaf, leaves};
use crate::model::TimeRange;
use crate::model::series::{Grid, Matrix};
use crate::model::time::MINUTE;
use crate::runtime::permits::Permit;
use crate::runtime::pool::{Lane, Pool};
use crate::store::chunk::ChunkReader;
use crate::store::partition::Read;
use crate::store::{Store, Stream};

/// Units read by one task: enough to pay for its start, few enough to let sealing in between.
const UNITS_A_TASK: usize = 16;
/// The same when no line is read.
const COUNTED_UNITS_A_TASK: usize = 1024;
/// Less is evaluated at once: going to the pool and back would take longer.
const INLINE_BYTES: usize = 32 << 10;
/// Series of more steps are not made for every task anew.
const MANY_STEPS: usize = 2000;

/// Runs a metric query.
pub async fn run(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    partials: &Partials,
    running: &Running,
    tenant: &str,
    query: MetricQuery,
) -> Result<MetricAnswer, QueryError> {
    let mut stats = QueryStats {
        queued: running.queued,
        ..QueryStats::default()
    };
    let mut results = Vec::new();
    for leaf in leaves(&query.expr).map_err(compile_error)? {
        let leaf = Arc::new(leaf);
        let matrix = range(
            store, pool, limits, partials, running, tenant, &leaf, query.grid, &mut stats,
        )
        .await?;
        results.push(matrix);
    }
    let mut matrix = eval::evaluate(&query.expr, query.grid, results).map_err(eval_error)?;
    if query.grid.len() == 1 {
        eval::sort_instant(&query.expr, &mut matrix);
    }
    if matrix.len() > limits.max_series && !matches!(query.expr, MetricExpr::Number(_)) {
        return Err(too_many_series(limits.max_series));
    }
    stats.entries_returned = matrix.len() as u64;
    stats.elapsed = running.began.elapsed();
    Ok(MetricAnswer {
        matrix,
        warnings: stats.warnings(),
        stats,
    })
}

fn too_many_series(limit: usize) -> QueryError {
    QueryError::TooMuch(format!(
        "maximum number of series ({limit}) reached for a single query; reduce cardinality with \
         an aggregation or a narrower selector"
    ))
}

fn eval_error(error: EvalError) -> QueryError {
    match error {
        EvalError::Pipeline { .. } | EvalError::Unsupported(_) => {
            QueryError::Invalid(error.to_string())
        }
        EvalError::Matching(text) => QueryError::Matching(text),
    }
}

/// What every task of a range aggregation shares.
struct Job {
    leaf: Arc<Leaf>,
    grid: Grid,
    /// Add `detected_level`.
    levels: bool,
    /// Metas say it all: no line is needed.
    counted: bool,
    max_series: usize,
    max_bytes: usize,
    deadline: Instant,
    cancelled: AtomicBool,
    /// Parts of chunks from queries before.
    keeping: Option<Keeping>,
}

impl Job {
    /// What lines may count.
    fn reach(&self) -> TimeRange {
        self.leaf.time_range(self.grid)
    }
}

/// Cancels the tasks of a query that nobody waits for any more.
struct CancelOnDrop(Arc<Job>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

#[allow(clippy::too_many_arguments)]
async fn range(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    partials: &Partials,
    running: &Running,
    tenant: &str,
    leaf: &Arc<Leaf>,
    grid: Grid,
    stats: &mut QueryStats,
) -> Result<Matrix, QueryError> {
    let levels = limits.discover_levels && may_use_level(leaf);
    let job = Arc::new(Job {
        leaf: leaf.clone(),
        grid,
        levels,
        counted: !leaf.needs_lines() && !levels,
        max_series: limits.max_series,
        max_bytes: limits.max_result_bytes,
        deadline: running.deadline,
        cancelled: AtomicBool::new(false),
        keeping: partials.begin(leaf, levels, grid),
    });
    let _cancel = CancelOnDrop(job.clone());
    let permit = running
        .account
        .try_take(0)
        .map_err(|e| QueryError::Busy(e.to_string()))?;

    let mut gathering = Gathering {
        store,
        pool,
        running,
        tenant,
        job: job.clone(),
        total: Accumulator::new(&leaf.aggregation, grid),
        permit,
    };
    let mut streams = 0;
    for part in Part::each(running.parts) {
        streams += gathering.add(part, stats).await?;
    }
    stats.streams = stats.streams.max(streams);
    let Gathering { total, permit, .. } = gathering;
    let _held = permit;
    if total.memory() < INLINE_BYTES {
        return total.finish().map_err(eval_error);
    }
    // Quantiles of many samples take their time.
    let finished = pool.run(Lane::Second, move || total.finish()).await;
    finished
        .map_err(|e| QueryError::Internal(e.to_string()))?
        .map_err(eval_error)
}

/// What was gathered for a leaf so far.
struct Gathering<'a> {
    store: &'a Store,
    pool: &'a Pool,
    running: &'a Running,
    tenant: &'a str,
    job: Arc<Job>,
    total: Accumulator,
    /// Covers `total`.
    permit: Permit,
}

impl Gathering<'_> {
    /// Adds what a part of the streams has; the number of these.
    async fn add(&mut self, part: Part, stats: &mut QueryStats) -> Result<u64, QueryError> {
        let (pool, job) = (self.pool, &self.job);
        let (store, tenant) = (self.store.clone(), self.tenant.to_owned());
        let of_job = job.clone();
        let pruned = pool
            .run(Lane::Second, move || {
                if of_job.counted {
                    return count_runs(&of_job, &store, &tenant, part);
                }
                let total = Accumulator::new(&of_job.leaf.aggregation, of_job.grid);
                let (leaf, reach) = (&of_job.leaf, of_job.reach());
                let found =
                    candidates(&store, &tenant, leaf.selector(), reach, &leaf.need(), part)?;
                Ok((found, total))
            })
            .await;
        let (pruned, counted) = pruned.map_err(|e| QueryError::Internal(e.to_string()))??;
        self.merge(counted)?;
        stats.chunks_total += pruned.stats.chunks_total;
        stats.chunks_candidate += pruned.stats.chunks_candidate;

        let job = &self.job;
        let per_task = if job.counted {
            COUNTED_UNITS_A_TASK
        } else {
            UNITS_A_TASK
        };
        let mut units = pruned.units;
        if job.counted || job.grid.len() > MANY_STEPS {
            // Streams together: a task then has few series, and merging them is cheap.
            units.sort_by_key(|unit| unit.stream().id);
        } else {
            // As they lie on the disk, which then reads ahead.
            units.sort_by_key(|unit| match unit {
                Unit::Chunk {
                    partition, meta, ..
                } => (partition.id.day, meta.number),
                Unit::Head(head) => (head.day, u32::MAX),
            });
        }
        let all = units.len();
        let mut units = units.into_iter();
        let mut tasks = VecDeque::new();
        let mut ahead = Ahead::default();
        loop {
            while tasks.len() < 2 * pool.threads() && !units.as_slice().is_empty() {
                let some: Vec<Unit> = units.by_ref().take(per_task).collect();
                let job = self.job.clone();
                tasks.push_back(pool.spawn(Lane::Second, move || read(&job, &some)));
            }
            let Some(task) = tasks.pop_front() else { break };
            let result = task
                .await
                .map_err(|_| QueryError::Busy("shutting down".into()))?;
            let (part, cost) = result.map_err(|e| QueryError::Internal(e.to_string()))??;
            add(stats, &cost);
            self.running.check()?;
            ahead.learn(&cost);
            ahead.read(units.as_slice(), all);
            self.merge(part)?;
        }
        Ok(pruned.stats.streams)
    }

    fn merge(&mut self, part: Accumulator) -> Result<(), QueryError> {
        self.total.merge(part);
        check_size(&self.total, &self.job)?;
        cover(&mut self.permit, self.total.memory())
    }
}

/// Counts what runs of chunks have of each stream as a whole, and finds what has to be looked
/// at more closely.
fn count_runs(
    job: &Job,
    store: &Store,
    tenant: &str,
    part: Part,
) -> Result<(Candidates, Accumulator), QueryError> {
    let mut sampler = Sampler::new(&job.leaf, job.grid);
    let mut bound = None;
    let left = uncounted(
        store,
        tenant,
        job.leaf.selector(),
        job.reach(),
        part,
        |stream, sum| {
            if job.leaf.needs_metadata() && sum.has_metadata {
                return false;
            }
            if bound != Some(stream.id) {
                sampler.bind(&stream.labels);
                bound = Some(stream.id);
            }
            sampler.add_counted(sum.min, sum.max, sum.lines, sum.bytes)
        },
    )?;
    Ok((left, sampler.into_accumulator()))
}

/// Makes a permit hold at least `bytes`.
fn cover(permit: &mut Permit, bytes: usize) -> Result<(), QueryError> {
    let more = bytes.saturating_sub(permit.bytes());
    permit
        .try_grow(more)
        .map_err(|e| QueryError::Busy(format!("{e}; try again")))
}

fn check_size(sums: &Accumulator, job: &Job) -> Result<(), QueryError> {
    if sums.series_count() > job.max_series {
        return Err(too_many_series(job.max_series));
    }
    if sums.memory() > job.max_bytes {
        return Err(QueryError::TooMuch(
            "the query gathers too many samples; ask with a larger step, a shorter range, or \
             fewer series"
                .into(),
        ));
    }
    Ok(())
}

/// Reads units into sums of their own.
fn read(job: &Job, units: &[Unit]) -> Result<(Accumulator, QueryStats), QueryError> {
    let mut sampler = Sampler::new(&job.leaf, job.grid);
    let mut stats = QueryStats::default();
    let mut leveler = Leveler::new();
    let mut series = 0;
    let mut bound: Option<&Arc<Stream>> = None;
    for unit in units {
        if job.cancelled.load(Ordering::Relaxed) || Instant::now() >= job.deadline {
            break; // whoever waits looks at the clock
        }
        let stream = unit.stream();
        if !bound.is_some_and(|bound| Arc::ptr_eq(bound, stream)) {
            sampler.bind(&stream.labels);
            bound = Some(stream);
        }
        if !job.leaf.needs_lines() && !job.levels && count(job, unit, &mut sampler, &mut stats)? {
            continue;
        }
        if !take_part(job, unit, &mut sampler, &mut leveler, &mut stats)? {
            let all = usize::MAX;
            read_lines(job, unit, &mut sampler, &mut leveler, &mut stats, all)?;
        }
        if sampler.series_count() != series {
            series = sampler.series_count();
            check_size(sampler.accumulator(), job)?;
        }
    }
    check_size(sampler.accumulator(), job)?;
    Ok((sampler.into_accumulator(), stats))
}

/// Adds a chunk by way of its part, which is made and kept if need be. False: nothing was added.
fn take_part(
    job: &Job,
    unit: &Unit,
    sampler: &mut Sampler<'_>,
    leveler: &mut Leveler,
    stats: &mut QueryStats,
) -> Result<bool, QueryError> {
    let Unit::Chunk {
        partition,
        meta,
        stream,
        ..
    } = unit
    else {
        return Ok(false);
    };
    let Some(keeping) = &job.keeping else {
        return Ok(false);
    };
    if !unit.deletions().is_empty() {
        return Ok(false); // the chunk is about to change (C2)
    }
    let alike = sampler.same_windows(meta.min, meta.max);
    let Some(wanted) = keeping.wanted(meta, alike) else {
        return Ok(false);
    };
    if let Some(part) = keeping.get(partition, &wanted) {
        sampler.add_part(&part);
        return Ok(true);
    }
    let mut of_chunk = Sampler::of_part(&job.leaf, wanted.grid, wanted.range);
    of_chunk.bind(&stream.labels);
    let damaged = stats.damaged;
    if !read_lines(job, unit, &mut of_chunk, leveler, stats, MAX_SERIES)? {
        keeping.give_up();
        return Ok(false);
    }
    if stats.damaged > damaged {
        return Ok(true); // nothing to add, and every query is to hear of it
    }
    // An error may lie outside of the query's windows.
    let Some(part) = of_chunk.into_accumulator().into_part() else {
        return Ok(false);
    };
    sampler.add_part(&part);
    keeping.put(partition, &wanted, Arc::new(part));
    Ok(true)
}

/// Reads the lines of a unit. False: they have more series than `max_series`, and only some of
/// them were added.
fn read_lines(
    job: &Job,
    unit: &Unit,
    sampler: &mut Sampler<'_>,
    leveler: &mut Leveler,
    stats: &mut QueryStats,
    max_series: usize,
) -> Result<bool, QueryError> {
    let stream = unit.stream();
    let pipeline = job.leaf.pipeline();
    let counts_only = pipeline.is_only_filters() && !job.leaf.needs_values() && !job.levels;
    // All lines of most chunks lie in the same windows: then their times say nothing.
    let alike = match unit {
        Unit::Chunk { meta, .. } if job.leaf.ignores_times() => {
            let alike = sampler.same_windows(meta.min, meta.max);
            alike.then_some(meta.min)
        }
        _ => None,
    };
    let mut sieve = Sieve::of(pipeline, &stream.labels);
    sieve.times = alike.is_none();
    let mut matched = 0;
    let mut few = true;
    scan(unit, sieve, stats, |lines, hits| {
        if let Some(at) = alike
            && counts_only
            && (lines.sets.is_empty() || !job.leaf.groups_by_labels())
        {
            let bytes = hits.iter().map(|i| lines.line(*i as usize).len() as u64);
            sampler.add_alike(at, hits.len() as u64, bytes.sum());
            matched += hits.len() as u64;
            return Ok(());
        }
        for index in hits {
            let i = *index as usize;
            let at = alike.unwrap_or_else(|| lines.at[i]);
            if !sampler.wants(at) {
                continue;
            }
            let line = lines.line(i);
            let stored = lines.metadata_of(i);
            let leveled;
            let metadata = if job.levels {
                leveled = leveler.level(&stream.labels, stored, line);
                Some(&leveled)
            } else {
                stored
            };
            matched += u64::from(sampler.add_rest(at, line, metadata));
            if sampler.series_count() > max_series {
                few = false;
                break;
            }
        }
        Ok(())
    })?;
    stats.lines_matched += matched;
    Ok(few)
}

/// Counts a unit without reading its lines; false when that is not possible for it.
fn count(
    job: &Job,
    unit: &Unit,
    sampler: &mut Sampler<'_>,
    stats: &mut QueryStats,
) -> Result<bool, QueryError> {
    let Unit::Chunk {
        partition, meta, ..
    } = unit
    else {
        return Ok(false);
    };
    if !unit.deletions().is_empty() {
        return Ok(false); // the meta counts what is deleted as well
    }
    if job.leaf.needs_metadata() && meta.has_metadata() {
        return Ok(false);
    }
    if sampler.add_counted(meta.min, meta.max, u64::from(meta.lines), meta.line_bytes) {
        return Ok(true);
    }
    // Either every minute counts as a whole or none does: what was added can't be taken back.
    let minutes = || {
        meta.minutes.iter(meta.min).map(|minute| {
            // What the chunk has of a minute may be narrower than the minute.
            let first = (minute.start + 1).max(meta.min);
            (first, (minute.start + MINUTE).min(meta.max), minute)
        })
    };
    if minutes().all(|(first, last, _)| sampler.add_counted(first, last, 0, 0)) {
        for (first, last, minute) in minutes() {
            sampler.add_counted(first, last, minute.lines, minute.bytes);
        }
        return Ok(true);
    }
    // Some minute is cut: the times decide, still without reading text.
    let (mut scratch, mut at, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let read = partition.read(meta.number, |bytes| {
        let chunk = ChunkReader::new(bytes)?;
        chunk.times(&mut scratch, &mut at)?;
        chunk.ends(&mut scratch, &mut ends)
    });
    match read.map_err(internal)? {
        Read::Whole(()) => {}
        Read::Damaged => {
            stats.damaged += 1;
            return Ok(true);
        }
        // Retention was quicker than the query.
        Read::Gone => return Ok(true),
    }
    stats.chunks_decoded += 1;
    stats.compressed_bytes += u64::from(meta.stored_bytes);
    let mut start = 0;
    for (at, end) in at.iter().zip(&ends) {
        sampler.add_unread(*at, u64::from(end - start), None);
        start = end + 1;
    }
    Ok(true)
}

/// Whether `detected_level` can make a difference.
fn may_use_level(leaf: &Leaf) -> bool {
    let in_labels = match &leaf.group {
        Group::By(names) => names.iter().any(|name| name == "detected_level"),
        Group::All | Group::Without(_) => true,
    };
    // A stage, or a filter of what is unwrapped, that names it has it somewhere in its text; a
    // false alarm costs time only.
    let names_it = format!("{:?}", leaf.aggregation).contains("detected_level");
    in_labels || names_it
}
