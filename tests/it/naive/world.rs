//! The engine under test: a store of its own in a temporary directory, and queries on it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use watchpost::logql::ast::Expr;
use watchpost::model::log::{LogBatch, LogEntry, Metadata, StreamEntries};
use watchpost::model::series::Grid;
use watchpost::model::time::DAY;
use watchpost::model::{Direction, Labels, StreamId, TimeRange};
use watchpost::query::QueryLimits;
use watchpost::query::{LogAnswer, LogQuery, MetricAnswer, MetricQuery, Querier, QueryError};
use watchpost::runtime::clock::Clock;
use watchpost::runtime::permits::Budget;
use watchpost::runtime::pool::Pool;
use watchpost::store::deletion::DeletionOptions;
use watchpost::store::{Body, Durability, Options, Payload, RecordKind, Store, encode_batch};
use watchpost::telemetry::metrics::Metrics;

use super::data::{BASE, Data, Line};

/// A query with everything that is asked beside its text.
#[derive(Clone, Debug)]
pub struct Question {
    pub text: String,
    /// Of a log query, half open.
    pub range: (i64, i64),
    pub limit: usize,
    pub backward: bool,
    pub interval: i64,
    pub categorize: bool,
    /// Of a metric query.
    pub grid: Grid,
}

pub enum Answer {
    Logs(LogAnswer),
    Metric(MetricAnswer),
}

pub struct World {
    store: Store,
    querier: Querier,
    pool: Pool,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn of(data: &Data, levels: bool, dir: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let pool = Pool::new(2).expect("threads");
        let (budget, metrics) = (Budget::new(512 << 20), Metrics::default());
        let store = Store::open(Options {
            path: dir.to_owned(),
            durability: Durability::Flush,
            retention: None,
            retention_rules: Default::default(),
            max_bytes: None,
            min_free_bytes: 0,
            mine_patterns: true,
            deletion: DeletionOptions::default(),
            decoder: Arc::new(|_| Err("nothing is replayed here".into())),
            on_failure: Arc::new(|error| panic!("{error}")),
            clock: Clock::fixed(BASE + 5 * DAY),
            pool: pool.clone(),
            budget: budget.clone(),
            metrics: metrics.clone(),
        })
        .expect("a store");
        while !store.is_recovered() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let limits = QueryLimits {
            max_series: usize::MAX,
            discover_levels: levels,
            ..QueryLimits::default()
        };
        let querier = Querier::new(store.clone(), pool.clone(), limits, &budget, &metrics);
        for (number, phase) in data.phases.iter().enumerate() {
            if number > 0 {
                runtime.block_on(store.flush()).expect("a flush");
            }
            for some in phase.chunks(17) {
                let batch = batch(data, some);
                let body = Body {
                    kind: RecordKind::LogsOwn,
                    format: 0,
                    coding: 0,
                    flags: 0,
                    tenant: "".into(),
                    bytes: encode_batch(&batch, &[]).into(),
                };
                let pending = store
                    .append(Payload::Logs(batch, Vec::new()), body, None)
                    .expect("room");
                runtime.block_on(pending.wait()).expect("stored");
            }
        }
        Self {
            store,
            querier,
            pool,
            runtime,
        }
    }

    pub fn ask(&self, question: &Question, expr: Expr) -> Result<Answer, QueryError> {
        match expr {
            Expr::Log(expr) => {
                let query = LogQuery {
                    expr,
                    range: TimeRange::new(question.range.0, question.range.1),
                    limit: question.limit,
                    direction: match question.backward {
                        true => Direction::Backward,
                        false => Direction::Forward,
                    },
                    interval: question.interval,
                    categorize: question.categorize,
                };
                let answer = self.runtime.block_on(self.querier.logs("", query))?;
                Ok(Answer::Logs(answer))
            }
            Expr::Metric(expr) => {
                let grid = question.grid;
                let query = MetricQuery { expr, grid };
                let answer = self.runtime.block_on(self.querier.metric("", query))?;
                Ok(Answer::Metric(answer))
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.store.stop();
        self.pool.stop();
    }
}

fn batch(data: &Data, lines: &[Line]) -> LogBatch {
    let mut batch = LogBatch::default();
    let mut text = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for line in lines {
        let place = *places.entry(line.stream).or_insert_with(|| {
            let labels = Labels::from_pairs(
                data.streams[line.stream]
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str())),
            );
            batch.streams.push(StreamEntries {
                id: StreamId::of("", &labels),
                labels,
                entries: Vec::new(),
            });
            batch.streams.len() - 1
        });
        let mut metadata = 0;
        if !line.metadata.is_empty() {
            let pairs = line.metadata.iter();
            let set: Metadata = pairs
                .map(|(n, v)| (n.as_str().into(), v.as_str().into()))
                .collect();
            batch.metadata.push(set);
            metadata = batch.metadata.len() as u32;
        }
        batch.streams[place].entries.push(LogEntry {
            at: line.at,
            start: text.len() as u32,
            len: line.text.len() as u32,
            metadata,
        });
        text.extend_from_slice(line.text.as_bytes());
    }
    batch.text = text.into();
    batch
}
