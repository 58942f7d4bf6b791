//! Live queries: the last lines before now, then every line as it is taken.
//!
//! T1. Each line once: the tap is set first, then the past is read; what a snapshot of the
//!     past holds already is left out of what the tap brings (`AsOf`). Lines of streams that
//!     were not there when the past was read come by the tap alone.
//! T2. Lines of one stream keep the order in which they were taken, unless they wait for
//!     each other (`delay`): what is sent together is sorted by time.
//! T3. [`Tail::next`] may be dropped at any time; nothing is lost by that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Querier;
use super::answer::{LogQuery, QueryError, QueryStats};
use super::logs::{collect, compile_error};
use super::prune::{AsOf, Unit};
use super::scan::{Leveler, Sieve, scan};
use crate::logql::ast::LogExpr;
use crate::logql::pipeline::{Pipeline, Runner};
use crate::model::{Day, Direction, Labels, TimeRange, Timestamp};
use crate::runtime::permits::Permit;
use crate::runtime::pool::{Lane, Pool, PoolError};
use crate::store::Store;
use crate::store::snapshot::HeadView;
use crate::store::tail::{Dropped, Listener, Run};

/// After a first line others are waited for so long: they share a message, and a wake.
const GATHER: Duration = Duration::from_millis(20);
/// Lines in memory that go through the pipeline at a time: what comes out of short lines is
/// several times as large.
const AT_A_TIME_BYTES: usize = 512 << 10;
/// With more text than this they do so on the pool.
const INLINE_BYTES: usize = 64 << 10;
/// What a tail holds besides lines: pipeline, buffers of its connection.
const WORK_BYTES: usize = 128 << 10;
/// Bytes of lines that may wait for their time; more stay with the tap.
const WAITING_BYTES: usize = 2 << 20;

/// What to follow.
#[derive(Clone, Debug)]
pub struct TailQuery {
    pub expr: LogExpr,
    /// From here on the past counts.
    pub start: Timestamp,
    /// Lines of the past.
    pub limit: usize,
    /// Nanoseconds that lines wait for others of their time.
    pub delay: i64,
    /// As in `LogQuery`.
    pub categorize: bool,
}

/// A line.
#[derive(Clone, Debug)]
pub struct TailEntry {
    pub at: Timestamp,
    pub labels: Labels,
    pub line: Bytes,
    /// Filled only when the query categorizes.
    pub structured: Labels,
    pub parsed: Labels,
}

/// What came since the last one: lines in the order they are to be shown.
#[derive(Default)]
pub struct TailBatch {
    pub entries: Vec<TailEntry>,
    /// Lines that there was no room for, with the labels of their streams; not all of them
    /// when there are many.
    pub dropped: Vec<(Timestamp, Labels)>,
}

/// A line that waits for its time.
struct Waiting {
    due: Timestamp,
    entry: TailEntry,
}

/// A live query that runs.
pub struct Tail {
    listener: Listener,
    lines: Arc<Through>,
    store: Store,
    pool: Pool,
    delay: i64,
    /// The past, until it is asked for, with the memory it takes.
    past: Option<(Vec<TailEntry>, Permit)>,
    /// What the past holds; until the first line that is newer for certain.
    as_of: Option<AsOf>,
    /// Taken from the tap and not yet through the pipeline.
    runs: VecDeque<Arc<Run>>,
    /// What the pool is doing for us.
    work: Option<Work>,
    /// In order of arrival.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    dropped: Vec<Dropped>,
    memory: Permit,
}

type Work = oneshot::Receiver<Result<Result<Vec<TailEntry>, QueryError>, PoolError>>;

/// The way of a line to its listener.
struct Through {
    pipeline: Pipeline,
    categorize: bool,
    discover_levels: bool,
}

impl Querier {
    /// Begins a live query.
    pub async fn tail(&self, tenant: &str, query: TailQuery) -> Result<Tail, QueryError> {
        let pipeline = Pipeline::compile(&query.expr).map_err(compile_error)?;
        let memory = self.store.listener_memory(WORK_BYTES).ok_or_else(|| {
            QueryError::Busy("no memory for another live tail; try again later".into())
        })?;
        let listener = {
            let (tenant, matchers) = (tenant.to_owned(), query.expr.matchers.clone());
            self.store.listen(move |stream| {
                *stream.tenant == *tenant
                    && matchers.iter().all(|m| m.matches_labels(&stream.labels))
            })
        };
        let (past, as_of) = self.past(tenant, &query).await?;
        Ok(Tail {
            listener,
            lines: Arc::new(Through {
                pipeline,
                categorize: query.categorize,
                discover_levels: self.limits.discover_levels,
            }),
            store: self.store.clone(),
            pool: self.pool.clone(),
            delay: query.delay,
            past: Some(past),
            as_of: Some(as_of),
            runs: VecDeque::new(),
            work: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            dropped: Vec::new(),
            memory,
        })
    }

    async fn past(
        &self,
        tenant: &str,
        query: &TailQuery,
    ) -> Result<((Vec<TailEntry>, Permit), AsOf), QueryError> {
        let query = LogQuery {
            expr: query.expr.clone(),
            // Lines ahead of our clock are there as well.
            range: TimeRange::new(query.start, Timestamp::MAX),
            limit: query.limit,
            direction: Direction::Backward,
            interval: 0,
            categorize: query.categorize,
        };
        let run = async {
            let running = self.admission.enter().await?;
            let mut stats = QueryStats {
                queued: running.queued,
                ..QueryStats::default()
            };
            let source = self.source(&running, tenant);
            let (found, permit, as_of) =
                collect(source, &query, query.range, &mut stats, None).await?;
            stats.elapsed = running.began.elapsed();
            Ok((found, permit, as_of, stats))
        };
        let (found, permit, as_of, _) = self
            .metrics
            .count("tail", run.await, |(.., stats)| Some(*stats))?;
        let oldest_first = found.into_iter().rev().map(|found| TailEntry {
            at: found.at,
            labels: found.labels,
            line: found.line,
            structured: found.structured,
            parsed: found.parsed,
        });
        Ok(((oldest_first.collect(), permit), as_of))
    }
}

impl Tail {
    /// Waits for lines, or for the news that some were dropped.
    pub async fn next(&mut self) -> Result<TailBatch, QueryError> {
        if let Some((entries, _memory)) = self.past.take()
            && !entries.is_empty()
        {
            return Ok(TailBatch {
                entries,
                dropped: Vec::new(),
            });
        }
        loop {
            self.absorb().await?;
            let now = self.store.now();
            let batch = self.due(now);
            if !batch.entries.is_empty() || !batch.dropped.is_empty() {
                return Ok(batch);
            }
            let next_due = self.waiting.iter().map(|w| w.due).min();
            let patience = next_due.map(|due| due.saturating_sub(now).max(1_000_000) as u64);
            match patience {
                None => self.listener.heard().await,
                Some(nanoseconds) => {
                    let patience = Duration::from_nanos(nanoseconds);
                    let heard = tokio::time::timeout(patience, self.listener.heard());
                    if heard.await.is_err() {
                        continue;
                    }
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Takes what the tap has and sends it through the pipeline.
    async fn absorb(&mut self) -> Result<(), QueryError> {
        if self.runs.is_empty() {
            let heard = self.listener.take();
            self.runs = heard.runs;
            self.dropped.extend(heard.dropped);
        }
        while self.waiting_bytes < WAITING_BYTES {
            let entries = if let Some(work) = &mut self.work {
                let done = work.await;
                self.work = None;
                let done = done.map_err(|_| QueryError::Busy("shutting down".into()))?;
                done.map_err(|e| QueryError::Internal(e.to_string()))??
            } else {
                let runs = self.some_runs();
                let bytes: usize = runs.iter().map(|run| run.lines.text.len()).sum();
                if runs.is_empty() {
                    break;
                }
                if bytes > INLINE_BYTES {
                    let lines = self.lines.clone();
                    self.work = Some(self.pool.spawn(Lane::Second, move || lines.run(&runs)));
                    continue;
                }
                self.lines.run(&runs)?
            };
            let now = self.store.now();
            for entry in entries {
                self.waiting_bytes += entry.memory();
                self.waiting.push(Waiting {
                    // A line ahead of our clock waits no longer than others.
                    due: entry.at.min(now).saturating_add(self.delay),
                    entry,
                });
            }
        }
        // Booked after the fact: it is there, and it is bounded.
        let wanted = WORK_BYTES + self.waiting_bytes;
        if wanted > self.memory.bytes() {
            let _ = self.memory.try_grow(wanted - self.memory.bytes());
        } else {
            self.memory.shrink_to(wanted);
        }
        Ok(())
    }

    /// The next runs that are no past, as many as go through the pipeline at a time.
    fn some_runs(&mut self) -> Vec<Arc<Run>> {
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while bytes < AT_A_TIME_BYTES
            && let Some(run) = self.runs.pop_front()
        {
            if let Some(as_of) = &self.as_of {
                if run.seq >= as_of.applied {
                    // Runs come in the order of the journal.
                    self.as_of = None;
                } else if as_of.streams.contains(&run.stream.id) {
                    continue;
                }
            }
            bytes += run.lines.memory();
            runs.push(run);
        }
        runs
    }

    /// Lines whose time has come, by time; of one time in the order they came.
    fn due(&mut self, now: Timestamp) -> TailBatch {
        let ready = |waiting: &mut Waiting| waiting.due <= now;
        let ready = self.waiting.extract_if(.., ready);
        let mut entries: Vec<TailEntry> = ready.map(|waiting| waiting.entry).collect();
        let bytes: usize = entries.iter().map(TailEntry::memory).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        entries.sort_by_key(|entry| entry.at);
        let dropped = self.dropped.drain(..);
        TailBatch {
            entries,
            dropped: dropped.map(|d| (d.at, d.stream.labels.clone())).collect(),
        }
    }
}

impl TailEntry {
    fn memory(&self) -> usize {
        size_of::<Waiting>() + self.line.len() + 32
    }
}

impl Through {
    /// The lines that come through.
    fn run(&self, runs: &[Arc<Run>]) -> Result<Vec<TailEntry>, QueryError> {
        let mut entries = Vec::new();
        let mut runner = self.pipeline.runner();
        for run in runs {
            runner.bind(&run.stream.labels);
            self.run_one(run, &mut runner, &mut entries)?;
        }
        Ok(entries)
    }

    fn run_one(
        &self,
        run: &Run,
        runner: &mut Runner<'_>,
        entries: &mut Vec<TailEntry>,
    ) -> Result<(), QueryError> {
        let stream = &run.stream;
        let mut leveler = Leveler::new();
        let lines = Unit::Head(HeadView {
            stream: stream.clone(),
            // Nobody looks at these: all lines are wanted.
            day: Day(0),
            min: Timestamp::MIN,
            max: Timestamp::MAX,
            blocks: vec![run.lines.clone()],
            // Delete requests mean only what was there before them.
            deletions: Vec::new(),
        });
        let mut stats = QueryStats::default();
        scan(
            &lines,
            Sieve::of(&self.pipeline, &stream.labels),
            &mut stats,
            |lines, hits| {
                for index in hits {
                    let i = *index as usize;
                    let (at, line, stored) = (lines.at[i], lines.line(i), lines.metadata_of(i));
                    let leveled;
                    let metadata = if self.discover_levels {
                        leveled = leveler.level(&stream.labels, stored, line);
                        Some(&leveled)
                    } else {
                        stored
                    };
                    let Some(mut outcome) = runner.run_rest(at, line, metadata) else {
                        continue;
                    };
                    let (labels, structured, parsed) = if self.categorize {
                        (
                            outcome.stream_labels(),
                            outcome.structured(),
                            outcome.parsed(),
                        )
                    } else {
                        (outcome.labels(), Labels::empty(), Labels::empty())
                    };
                    entries.push(TailEntry {
                        at,
                        labels,
                        line: Bytes::copy_from_slice(outcome.line()),
                        structured,
                        parsed,
                    });
                }
                Ok(())
            },
        )
    }
}
