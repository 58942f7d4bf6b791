//! Metric queries: range aggregations over lines, or over what is known of chunks without
//! reading a line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::answer::{MetricAnswer, MetricQuery, QueryError, QueryStats};
use super::limits::{QueryLimits, Running};
use super::logs::{add, compile_error};
use super::prune::{Unit, candidates, internal};
use super::scan::{Leveler, scan};
use crate::logql::ast::{LogExpr, RangeAggregation, Stage};
use crate::logql::eval::range::Additive;
use crate::logql::eval::{self, EvalError, Leaf, SeriesLabels};
use crate::logql::pipeline::{Extract, Pipeline};
use crate::model::Labels;
use crate::model::need::Need;
use crate::model::series::{Grid, Matrix};
use crate::model::time::MINUTE;
use crate::runtime::pool::{Lane, Pool};
use crate::store::chunk::ChunkReader;
use crate::store::{Store, StoreError};

/// Units read by one task: enough to pay for its start, few enough to let sealing in between.
const UNITS_A_TASK: usize = 16;
/// Points that the series of one range aggregation may have together.
const MAX_POINTS: usize = 4 << 20;

/// Runs a metric query.
pub async fn run(
    store: &Store,
    pool: &Pool,
    limits: &QueryLimits,
    running: &Running,
    tenant: &str,
    query: MetricQuery,
) -> Result<MetricAnswer, QueryError> {
    let mut stats = QueryStats { queued: running.queued, ..QueryStats::default() };
    let mut results = Vec::new();
    let leaves = eval::leaves(&query.expr).map_err(eval_error)?;
    for leaf in &leaves {
        let matrix =
            range(store, pool, limits, running, tenant, leaf, query.grid, &mut stats).await?;
        results.push(matrix);
    }
    let mut matrix = eval::evaluate(&query.expr, query.grid, results).map_err(eval_error)?;
    if query.grid.len() != 1 || !eval::is_sorted(&query.expr) {
        matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    if matrix.len() > limits.max_series {
        return Err(too_many_series(limits.max_series));
    }
    stats.entries_returned = matrix.len() as u64;
    stats.elapsed = running.began.elapsed();
    Ok(MetricAnswer { matrix, stats, warnings: Vec::new() })
}

fn too_many_series(limit: usize) -> QueryError {
    QueryError::TooMuch(format!(
        "maximum number of series ({limit}) reached for a single query; reduce cardinality with \
         an aggregation or a narrower selector"
    ))
}

fn eval_error(error: EvalError) -> QueryError {
    match error {
        EvalError::Unsupported(_) => QueryError::Invalid(error.to_string()),
        EvalError::Matching(text) => QueryError::Matching(text),
    }
}

/// What every task of a range aggregation shares.
struct Job {
    pipeline: Pipeline,
    labels: SeriesLabels,
    empty: Additive,
    /// Counts of chunks are enough: every line passes, and its series is its stream's.
    counts: bool,
    levels: bool,
    max_series: usize,
    deadline: Instant,
    cancelled: AtomicBool,
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
    running: &Running,
    tenant: &str,
    leaf: &Leaf<'_>,
    grid: Grid,
    stats: &mut QueryStats,
) -> Result<Matrix, QueryError> {
    let stages = needed_stages(leaf.range, &leaf.labels);
    let extract = match &leaf.labels {
        SeriesLabels::By(names) => Extract::only(names),
        SeriesLabels::All | SeriesLabels::Without(_) => Extract::All,
    };
    let pipeline = Pipeline::of_stages(&stages, extract).map_err(compile_error)?;
    let levels = limits.discover_levels && may_use_level(&stages, &leaf.labels);
    let empty = Additive::new(leaf.range, grid);
    let reach = empty.windows.reach();
    let log = LogExpr { matchers: leaf.range.over.log.matchers.clone(), stages };
    let need = log.need();
    let job = Arc::new(Job {
        counts: pipeline.is_only_filters() && pipeline.leading_filters().is_empty() && !levels,
        pipeline,
        labels: leaf.labels.clone(),
        empty,
        levels,
        max_series: limits.max_series,
        deadline: running.deadline,
        cancelled: AtomicBool::new(false),
    });
    let _cancel = CancelOnDrop(job.clone());

    let (store, tenant, matchers) = (store.clone(), tenant.to_owned(), log.matchers);
    let counts = job.counts;
    let pruned = pool
        .run(Lane::Second, move || {
            let need = if counts { Need::Anything } else { need };
            candidates(&store, &tenant, &matchers, reach, &need)
        })
        .await
        .map_err(|e| QueryError::Internal(e.to_string()))??;
    stats.streams = stats.streams.max(pruned.stats.streams);
    stats.chunks_total += pruned.stats.chunks_total;
    stats.chunks_candidate += pruned.stats.chunks_candidate;

    let per_task = if counts { 1024 } else { UNITS_A_TASK };
    let mut units = pruned.units;
    let mut tasks = std::collections::VecDeque::new();
    let mut total = job.empty.clone();
    loop {
        while tasks.len() < 2 * pool.threads() && !units.is_empty() {
            let some = units.split_off(units.len().saturating_sub(per_task));
            let job = job.clone();
            tasks.push_back(pool.spawn(Lane::Second, move || read(&job, &some)));
        }
        let Some(task) = tasks.pop_front() else { break };
        let result = task.await.map_err(|_| QueryError::Busy("shutting down".into()))?;
        let (part, cost) = result.map_err(|e| QueryError::Internal(e.to_string()))??;
        add(stats, &cost);
        running.check()?;
        total.merge(part);
        check_size(&total, &job)?;
    }
    Ok(total.finish())
}

fn check_size(sums: &Additive, job: &Job) -> Result<(), QueryError> {
    if sums.len() > job.max_series {
        return Err(too_many_series(job.max_series));
    }
    if sums.points() > MAX_POINTS {
        return Err(QueryError::TooMuch(
            "the result has too many points; ask with a larger step or fewer series".into(),
        ));
    }
    Ok(())
}

/// Reads units into sums of their own.
fn read(job: &Job, units: &[Unit]) -> Result<(Additive, QueryStats), QueryError> {
    let mut sums = job.empty.clone();
    let mut stats = QueryStats::default();
    let mut runner = job.pipeline.runner();
    let mut leveler = Leveler::new();
    for unit in units {
        if job.cancelled.load(Ordering::Relaxed) || Instant::now() >= job.deadline {
            break; // whoever waits looks at the clock
        }
        if job.counts && count(job, unit, &mut sums, &mut stats)? {
            continue;
        }
        let stream = unit.stream();
        let reach = sums.windows.reach();
        runner.bind(&stream.labels);
        let mut last: Option<(Labels, usize)> = None;
        let mut matched = 0;
        scan(unit, job.pipeline.leading_filters(), &mut stats, |lines, hits| {
            for index in hits {
                let i = *index as usize;
                let at = lines.at[i];
                if !reach.contains(at) {
                    continue;
                }
                let windows = sums.windows.of(at);
                if windows.0 >= windows.1 {
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
                let Some(mut outcome) = runner.run_rest(at, line, metadata) else { continue };
                matched += 1;
                let labels = outcome.labels();
                let series = match &last {
                    Some((same, series)) if same.is_same(&labels) => *series,
                    _ => {
                        check_error(&labels, &job.labels)?;
                        let series = sums.series(&job.labels.of_labels(&labels));
                        check_size(&sums, job)?;
                        last = Some((labels, series));
                        series
                    }
                };
                let bytes = outcome.line().len() as u64;
                sums.add(series, windows, 1, bytes);
            }
            Ok(())
        })?;
        stats.lines_matched += matched;
    }
    Ok((sums, stats))
}

/// Counts a unit without reading its lines; false when that is not possible for it.
fn count(
    job: &Job,
    unit: &Unit,
    sums: &mut Additive,
    stats: &mut QueryStats,
) -> Result<bool, QueryError> {
    let Unit::Chunk { partition, meta, stream } = unit else { return Ok(false) };
    let by_metadata = match &job.labels {
        SeriesLabels::By(names) => !names.is_empty(),
        SeriesLabels::All | SeriesLabels::Without(_) => true,
    };
    if by_metadata && meta.has_metadata() {
        return Ok(false);
    }
    let series = sums.series(&job.labels.of_labels(&stream.labels));
    check_size(sums, job)?;
    if let Some(windows) = sums.windows.of_all(meta.min.saturating_sub(1), meta.max) {
        if windows.0 < windows.1 {
            sums.add(series, windows, u64::from(meta.lines), meta.line_bytes);
        }
        return Ok(true);
    }
    let mut whole = Vec::new();
    for minute in meta.minutes.iter(meta.min) {
        // What the chunk has of a minute may be narrower than the minute.
        let after = minute.start.max(meta.min.saturating_sub(1));
        let until = (minute.start + MINUTE).min(meta.max);
        match sums.windows.of_all(after, until) {
            Some(windows) => whole.push((windows, minute)),
            None => {
                whole.clear();
                break;
            }
        }
    }
    if !whole.is_empty() {
        for (windows, minute) in whole {
            if windows.0 < windows.1 {
                sums.add(series, windows, minute.lines, minute.bytes);
            }
        }
        return Ok(true);
    }
    // Some minute is cut: the times decide, still without reading text.
    let (mut scratch, mut at, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let read = partition.data(meta.number, |bytes| {
        let chunk = ChunkReader::new(bytes)?;
        chunk.times(&mut scratch, &mut at)?;
        chunk.ends(&mut scratch, &mut ends)
    });
    match read {
        Ok(Ok(())) => {}
        Ok(Err(what)) => {
            let place = format!("{} chunk {}", partition.name, meta.number);
            return Err(internal(StoreError::corrupt(place, what)));
        }
        Err(StoreError::Gone(_)) => return Ok(true),
        Err(error) => return Err(internal(error)),
    }
    stats.chunks_decoded += 1;
    stats.compressed_bytes += u64::from(meta.stored_bytes);
    let mut start = 0;
    for (at, end) in at.iter().zip(&ends) {
        let windows = sums.windows.of(*at);
        if windows.0 < windows.1 {
            sums.add(series, windows, 1, u64::from(end - start));
        }
        start = end + 1;
    }
    Ok(true)
}

/// A line that a parser could not read fails the query, unless the error is asked for.
fn check_error(labels: &Labels, series: &SeriesLabels) -> Result<(), QueryError> {
    let Some(error) = labels.get("__error__").filter(|error| !error.is_empty()) else {
        return Ok(());
    };
    if let SeriesLabels::By(names) = series
        && names.iter().any(|name| name == "__error__")
    {
        return Ok(());
    }
    Err(QueryError::Invalid(format!(
        "pipeline error: '{error}' for series: '{labels}'; leave such lines out with a label \
         filter behind the stage that fails, such as | __error__=\"\""
    )))
}

/// The stages that change the result: a query that needs no label does not run its parsers,
/// and a last `line_format` matters only to bytes (reference/logql.md 4.7).
fn needed_stages(range: &RangeAggregation, labels: &SeriesLabels) -> Vec<Stage> {
    let mut stages = range.over.log.stages.clone();
    let needs_labels = *labels != SeriesLabels::By(Vec::new())
        || stages.iter().any(|stage| match stage {
            Stage::Label(_) | Stage::LabelFormat(_) => true,
            Stage::LineFormat(template) => template.contains("{{"),
            _ => false,
        });
    if !needs_labels {
        stages.retain(|stage| {
            !matches!(
                stage,
                Stage::Json(_)
                    | Stage::Logfmt(_)
                    | Stage::Regexp(_)
                    | Stage::Pattern(_)
                    | Stage::Drop(_)
                    | Stage::Keep(_)
            )
        });
    }
    if !range.function.counts_bytes() {
        while let Some(Stage::LineFormat(_) | Stage::Decolorize) = stages.last() {
            stages.pop();
        }
    }
    stages
}

/// Whether `detected_level` can make a difference.
fn may_use_level(stages: &[Stage], labels: &SeriesLabels) -> bool {
    let in_labels = match labels {
        SeriesLabels::By(names) => names.iter().any(|name| name == "detected_level"),
        SeriesLabels::All | SeriesLabels::Without(_) => true,
    };
    // A stage that names it has it somewhere in its text; a false alarm costs time only.
    in_labels || stages.iter().any(|stage| format!("{stage:?}").contains("detected_level"))
}
