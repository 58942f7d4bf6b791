//! Who may run, how long, and with how much memory, on a real store.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::logql::ast::Expr;
use crate::model::log::{LogBatch, LogEntry, StreamEntries};
use crate::model::series::Grid;
use crate::model::time::{DAY, SECOND};
use crate::model::{Direction, StreamId, Timestamp};
use crate::runtime::clock::Clock;
use crate::store::{Body, Durability, Options, Payload, RecordKind, encode_batch};

const NOW: Timestamp = 20_000 * DAY + DAY / 2;
/// Lines of the store, and bytes of each.
const LINES: usize = 1000;
const LINE: usize = 100;

struct Fixture {
    querier: Querier,
    pool: Pool,
    budget: Budget,
}

async fn fixture(path: &Path, limits: QueryLimits) -> Fixture {
    let (pool, budget, metrics) = (
        Pool::new(1).unwrap(),
        Budget::new(64 << 20),
        Metrics::default(),
    );
    let options = Options {
        path: path.to_owned(),
        durability: Durability::Flush,
        retention: None,
        retention_rules: Default::default(),
        max_bytes: None,
        min_free_bytes: 0,
        mine_patterns: true,
        deletion: crate::store::deletion::DeletionOptions::default(),
        decoder: Arc::new(|_| Err("no protocol here".into())),
        on_failure: Arc::new(|error| panic!("{error}")),
        clock: Clock::fixed(NOW),
        pool: pool.clone(),
        budget: budget.clone(),
        metrics: metrics.clone(),
    };
    let store = Store::open(options).unwrap();
    while !store.is_recovered() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    append(&store, &[("x", NOW - LINES as i64 * SECOND, LINES)]).await;
    Fixture {
        querier: Querier::new(store, pool.clone(), limits, &budget, &metrics),
        pool,
        budget,
    }
}

/// Appends lines a second apart: name of the app, time of the first, how many.
async fn append(store: &Store, apps: &[(&str, Timestamp, usize)]) {
    let mut streams = Vec::new();
    let mut start = 0;
    for (app, first, lines) in apps {
        let labels = Labels::from_pairs([("app", *app)]);
        let entry = |i: usize| LogEntry {
            at: first + i as i64 * SECOND,
            start: ((start + i) * LINE) as u32,
            len: LINE as u32,
            metadata: 0,
        };
        streams.push(StreamEntries {
            id: StreamId::of("", &labels),
            entries: (0..*lines).map(entry).collect(),
            labels,
        });
        start += lines;
    }
    let batch = LogBatch {
        tenant: "".into(),
        text: vec![b'x'; start * LINE].into(),
        metadata: Vec::new(),
        streams,
    };
    let body = Body {
        kind: RecordKind::LogsOwn,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::from(encode_batch(&batch, &[])),
    };
    let pending = store.append(Payload::Logs(batch, Vec::new()), body, None);
    pending.unwrap().wait().await.unwrap();
}

fn query(text: &str, limit: usize) -> LogQuery {
    let Ok(Expr::Log(expr)) = crate::logql::parse(text) else {
        panic!("{text}")
    };
    LogQuery {
        expr,
        range: TimeRange::all(),
        limit,
        direction: Direction::Backward,
        interval: 0,
        categorize: false,
    }
}

impl Fixture {
    async fn lines(&self, text: &str, limit: usize) -> Result<u64, QueryError> {
        let answer = self.querier.logs("", query(text, limit)).await?;
        Ok(answer.stats.entries_returned)
    }

    /// What running queries hold of the budget.
    fn held(&self) -> usize {
        let usage = self.budget.usage();
        let queries = usage.iter().find(|u| u.account == "queries");
        queries.map_or(0, |u| u.used)
    }
}

#[tokio::test]
async fn queries_wait_for_their_turn_and_one_that_nobody_awaits_gives_up_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueryLimits {
        concurrent: 1,
        ..QueryLimits::default()
    };
    let fixture = fixture(dir.path(), limits).await;
    let (go, gate) = std::sync::mpsc::channel::<()>();
    fixture.pool.detach(Lane::First, move || {
        let _ = gate.recv();
    });
    let ask = |text: &'static str| {
        let querier = fixture.querier.clone();
        tokio::spawn(async move { querier.logs("", query(text, 1)).await })
    };
    let first = ask("{app=\"x\"}");
    while fixture.held() == 0 {
        tokio::task::yield_now().await;
    }
    let held = fixture.held();
    let second = ask("{app=\"x\"} |= \"x\"");
    // Asked for the same: it needs no turn of its own.
    let joined = ask("{app=\"x\"}");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.held(), held, "the second has no turn yet");
    // As when the connection of whoever asked is closed.
    first.abort();
    let _ = first.await;
    assert_eq!(fixture.held(), held, "somebody still waits for the first");
    joined.abort();
    let _ = joined.await;
    drop(go);
    assert_eq!(second.await.unwrap().unwrap().stats.entries_returned, 1);
    assert_eq!(fixture.held(), 0);
}

#[tokio::test]
async fn a_query_over_its_budget_fails_alone_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueryLimits {
        max_result_bytes: LINE * LINES / 2,
        timeout: Duration::from_millis(300),
        ..QueryLimits::default()
    };
    let fixture = fixture(dir.path(), limits).await;
    let (much, little) = tokio::join!(
        fixture.lines("{app=\"x\"}", LINES),
        fixture.lines("{app=\"x\"}", 10)
    );
    let Err(QueryError::TooMuch(text)) = much else {
        panic!("{much:?}")
    };
    assert!(text.ends_with("ask for fewer lines with `limit`"), "{text}");
    assert_eq!(little, Ok(10));
    // No memory for anybody: wait, then say so.
    let others = fixture.budget.account("others");
    let all = others.try_take(others.free()).unwrap();
    let refused = fixture.lines("{app=\"x\"}", 10).await;
    let Err(QueryError::Busy(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.ends_with("try again"), "{text}");
    drop(all);
    assert_eq!(fixture.lines("{app=\"x\"}", 10).await, Ok(10));
    assert_eq!(fixture.held(), 0);
}

#[tokio::test]
async fn what_is_kept_of_chunks_gives_way_to_queries_and_is_forgotten_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixture(dir.path(), QueryLimits::default()).await;
    fixture.querier.store.flush().await.unwrap();
    let count = || async {
        let Ok(Expr::Metric(expr)) =
            crate::logql::parse("sum(count_over_time({app=\"x\"} |= \"xx\" [1h]))")
        else {
            panic!("a metric query")
        };
        let grid = Grid::instant(NOW);
        let query = MetricQuery { expr, grid };
        let answer = fixture.querier.metric("", query).await.unwrap();
        (answer.matrix[0].points[0], answer.stats.lines)
    };
    let kept = || {
        let usage = fixture.budget.usage();
        let parts = usage.iter().find(|u| u.account == "query_parts");
        parts.map_or(0, |u| u.used)
    };
    let all = Some(LINES as f64);
    assert_eq!(count().await, (all, LINES as u64));
    assert!(kept() > 0);
    assert_eq!(count().await, (all, 0), "no line is read again");
    fixture.querier.forget_results();
    assert_eq!(kept(), 0);
    assert_eq!(count().await, (all, LINES as u64));
    let others = fixture.budget.account("others");
    let most = others.try_take(others.free() + kept() / 2);
    assert!(most.is_ok() && kept() == 0);
    drop(most);
    assert_eq!(count().await, (all, LINES as u64));
}

#[tokio::test]
async fn what_is_looked_at_part_by_part_is_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixture(dir.path(), QueryLimits::default()).await;
    let querier = &fixture.querier;
    let names: Vec<String> = (0..40).map(|n| format!("a{n}")).collect();
    let apps: Vec<_> = (names.iter().zip(1..))
        .map(|(name, n)| (name.as_str(), NOW - 100 * SECOND - n, 5))
        .collect();
    append(&querier.store, &apps).await;
    querier.store.flush().await.unwrap();
    // Some are sealed and some are not.
    append(&querier.store, &apps[..20]).await;

    let in_parts = async |parts| {
        let mut running = querier.admission.enter().await.unwrap();
        running.parts = parts;
        running
    };
    let lines = async |parts, direction| {
        let running = in_parts(parts).await;
        let mut query = query("{app=~\"a.*\"}", 37);
        query.direction = direction;
        let source = querier.source(&running, "");
        let answer = logs::run(source, query, &Certain::default()).await.unwrap();
        let counts = (answer.stats.streams, answer.stats.chunks_total);
        (format!("{:?}", answer.streams), counts)
    };
    for direction in [Direction::Backward, Direction::Forward] {
        let whole = lines(1, direction).await;
        assert_eq!(whole.1, (40, 40));
        for parts in [2, 7, 64] {
            assert_eq!(lines(parts, direction).await, whole, "{parts} parts");
        }
    }
    let samples = async |parts, text| {
        let running = in_parts(parts).await;
        let Ok(Expr::Metric(expr)) = crate::logql::parse(text) else {
            panic!("{text}")
        };
        let grid = Grid::instant(NOW);
        let (store, pool, limits) = (&querier.store, &querier.pool, &querier.limits);
        let query = MetricQuery { expr, grid };
        let answer = samples::run(store, pool, limits, &querier.partials, &running, "", query);
        let answer = answer.await.unwrap();
        (format!("{:?}", answer.matrix), answer.stats.streams)
    };
    for text in [
        "sum(count_over_time({app=~\".+\"}[1h]))",
        "sum by (app) (count_over_time({app=~\".+\"} |= \"xx\" [1h]))",
        "topk(3, sum by (app) (bytes_over_time({app=~\"a.*\"}[1h])))",
    ] {
        let whole = samples(1, text).await;
        assert!(whole.1 >= 40);
        for parts in [2, 7, 64] {
            assert_eq!(samples(parts, text).await, whole, "{text} in {parts} parts");
        }
    }
}
