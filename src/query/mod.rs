//! Which data, how much, how fast: running queries over snapshots of the store.
//!
//! ```text
//! LogQL → need, matchers → prune (streams → days → times → words → grams) → scan on the
//! pool → pipeline → merge, or sums per window → evaluate
//! ```

mod ahead;
pub mod answer;
pub mod certain;
pub mod deletion;
pub mod export;
pub mod fields;
mod labels;
pub mod limits;
mod logs;
mod partials;
pub mod patterns;
mod prune;
mod samples;
mod scan;
mod service_metrics;
mod sharing;
pub mod tail;
pub mod traces;
pub mod volume;

pub use answer::{
    AnswerEntry, AnswerStream, IndexStats, LogAnswer, LogQuery, MetricAnswer, MetricQuery,
    QueryError, QueryStats,
};
pub use limits::QueryLimits;

use std::sync::Arc;

use futures::FutureExt;

use crate::model::{Labels, Matcher, TimeRange};
use crate::runtime::permits::Budget;
use crate::runtime::pool::{Lane, Pool};
use crate::store::Store;
use crate::telemetry::metrics::{Counter, Family, Histogram, Metrics};
use certain::{Certain, Growing};
use limits::{Admission, Running};
use partials::Partials;
use sharing::{Asked, Sharing};

/// Answers queries over one store. Cheap to clone.
#[derive(Clone)]
pub struct Querier {
    store: Store,
    pool: Pool,
    limits: QueryLimits,
    admission: Admission,
    metrics: QueryMetrics,
    partials: Partials,
    blocks: traces::Blocks,
    shared_logs: Sharing<LogAnswer, Arc<Certain>>,
    shared_metrics: Sharing<MetricAnswer>,
}

type Kind = [(&'static str, &'static str); 1];

/// What was asked and what it cost.
#[derive(Clone)]
struct QueryMetrics {
    queries: Family<Kind, Counter>,
    failed: Family<Kind, Counter>,
    lines: Counter,
    bytes: Counter,
    chunks: Counter,
    seconds: Histogram,
}

impl QueryMetrics {
    fn new(m: &Metrics) -> Self {
        let buckets = [
            0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0,
        ];
        Self {
            queries: m.register("queries", "Queries by kind", Family::default()),
            failed: m.register(
                "queries_failed",
                "Queries without an answer",
                Family::default(),
            ),
            lines: m.counter("query_lines", "Lines that queries looked at"),
            bytes: m.counter("query_bytes", "Bytes of lines that queries looked at"),
            chunks: m.counter("query_chunks", "Chunks that queries decoded"),
            seconds: m.register("query_seconds", "Time of queries", Histogram::new(buckets)),
        }
    }

    fn count<T>(
        &self,
        kind: &'static str,
        result: Result<T, QueryError>,
        stats: impl FnOnce(&T) -> Option<QueryStats>,
    ) -> Result<T, QueryError> {
        self.queries.get_or_create(&[("kind", kind)]).inc();
        match &result {
            Ok(answer) => {
                if let Some(stats) = stats(answer) {
                    self.lines.inc_by(stats.lines);
                    self.bytes.inc_by(stats.bytes);
                    self.chunks.inc_by(stats.chunks_decoded);
                    self.seconds.observe(stats.elapsed.as_secs_f64());
                }
            }
            Err(_) => {
                self.failed.get_or_create(&[("kind", kind)]).inc();
            }
        }
        result
    }
}

impl Querier {
    pub fn new(
        store: Store,
        pool: Pool,
        limits: QueryLimits,
        budget: &Budget,
        metrics: &Metrics,
    ) -> Self {
        let admission = Admission::new(&limits, budget.account("queries"));
        let shared = metrics.counter(
            "queries_shared",
            "Queries answered by one that was running already",
        );
        Self {
            store,
            pool,
            admission,
            metrics: QueryMetrics::new(metrics),
            partials: Partials::new(limits.kept_parts, budget, metrics),
            blocks: traces::Blocks::new(limits.kept_parts, budget, metrics),
            shared_logs: Sharing::new(shared.clone()),
            shared_metrics: Sharing::new(shared),
            limits,
        }
    }

    /// Nothing that was found before is used again, and no query joins one that runs. To be
    /// called when delete requests changed and new snapshots show it.
    fn forget_results(&self) {
        self.partials.forget_all();
    }

    /// By which equal questions are known.
    fn question(&self, tenant: &str, query: &impl std::fmt::Debug) -> String {
        format!("{} {tenant}\n{query:?}", self.partials.generation())
    }

    /// Lines.
    pub async fn logs(&self, tenant: &str, query: LogQuery) -> Result<LogAnswer, QueryError> {
        self.growing_logs(tenant, query).answer.await
    }

    /// Lines, and those that are certain before the answer is complete.
    pub fn growing_logs(&self, tenant: &str, query: LogQuery) -> Growing {
        let name = self.question(tenant, &query);
        let (me, tenant) = (self.clone(), tenant.to_owned());
        let applied = self.store.logs_applied();
        let Asked { execution, answer } =
            self.shared_logs.ask(name, applied, |execution| async move {
                let (me, tenant, query, execution) = (&me, &tenant, &query, &execution);
                let run = |running: Running| async move {
                    execution.begins_to_look(me.store.logs_applied());
                    let source = me.source(&running, tenant);
                    logs::run(source, query.clone(), &execution.progress).await
                };
                me.admission.run(run).await
            });
        let metrics = self.metrics.clone();
        let answer =
            async move { metrics.count("logs", answer.await, |answer| Some(answer.stats)) };
        Growing {
            certain: execution.progress.clone(),
            answer: answer.boxed(),
        }
    }

    fn source<'a>(&'a self, running: &'a Running, tenant: &'a str) -> logs::Source<'a> {
        logs::Source {
            store: &self.store,
            pool: &self.pool,
            limits: &self.limits,
            running,
            tenant,
        }
    }

    /// Samples.
    pub async fn metric(
        &self,
        tenant: &str,
        query: MetricQuery,
    ) -> Result<MetricAnswer, QueryError> {
        let name = self.question(tenant, &query);
        let (me, tenant) = (self.clone(), tenant.to_owned());
        let applied = self.store.logs_applied();
        let asked = self
            .shared_metrics
            .ask(name, applied, |execution| async move {
                let (me, tenant, query, execution) = (&me, &tenant, &query, &execution);
                let run = |running: Running| async move {
                    execution.begins_to_look(me.store.logs_applied());
                    samples::run(
                        &me.store,
                        &me.pool,
                        &me.limits,
                        &me.partials,
                        &running,
                        tenant,
                        query.clone(),
                    )
                    .await
                };
                me.admission.run(run).await
            });
        self.metrics
            .count("metric", asked.answer.await, |answer| Some(answer.stats))
    }

    /// Names of labels of streams with data in `range`, sorted.
    pub async fn label_names(
        &self,
        tenant: &str,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        let (tenant, matchers) = (tenant.to_owned(), matchers.to_vec());
        let work = move |store: &Store| {
            Ok(labels::names(&labels::streams(
                store, &tenant, &matchers, range,
            )?))
        };
        self.metrics
            .count("labels", self.on_pool(work).await, |_| None)
    }

    /// Values of a label of streams with data in `range`, sorted.
    pub async fn label_values(
        &self,
        tenant: &str,
        name: &str,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        let (tenant, name, matchers) = (tenant.to_owned(), name.to_owned(), matchers.to_vec());
        let work = move |store: &Store| {
            Ok(labels::values(
                &labels::streams(store, &tenant, &matchers, range)?,
                &name,
            ))
        };
        self.metrics
            .count("label_values", self.on_pool(work).await, |_| None)
    }

    /// Label sets of streams with data in `range` that any selector matches; all for none.
    pub async fn series(
        &self,
        tenant: &str,
        range: TimeRange,
        selectors: Vec<Vec<Matcher>>,
    ) -> Result<Vec<Labels>, QueryError> {
        let tenant = tenant.to_owned();
        let work = move |store: &Store| labels::series(store, &tenant, range, &selectors);
        self.metrics
            .count("series", self.on_pool(work).await, |_| None)
    }

    /// How much data a selector has in `range`.
    pub async fn index_stats(
        &self,
        tenant: &str,
        matchers: Vec<Matcher>,
        range: TimeRange,
    ) -> Result<IndexStats, QueryError> {
        let tenant = tenant.to_owned();
        let work = move |store: &Store| labels::index_stats(store, &tenant, &matchers, range);
        self.metrics
            .count("index_stats", self.on_pool(work).await, |_| None)
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let store = self.store.clone();
        let done = self.pool.run(Lane::Second, move || work(&store)).await;
        done.map_err(|e| QueryError::Internal(e.to_string()))?
    }
}

#[cfg(test)]
mod tests;
