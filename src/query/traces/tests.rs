//! Searches on a real store, its index included; the algorithm has its own tests.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::model::Timestamp;
use crate::model::time::{DAY, MINUTE};
use crate::model::trace::{Process, Span, SpanBatch, SpanId, Tag, TagValue};
use crate::runtime::clock::Clock;
use crate::runtime::permits::Budget;
use crate::runtime::pool::Pool;
use crate::store::deletion::DeletionOptions;
use crate::store::{Body, Durability, Options, Payload, RecordKind};
use crate::telemetry::metrics::Metrics;

const NOW: Timestamp = 20_000 * DAY + DAY / 2;

fn querier(path: &Path) -> Querier {
    querier_of(path, Clock::fixed(NOW), None)
}

fn querier_of(path: &Path, clock: Clock, retention: Option<Duration>) -> Querier {
    let (pool, budget, metrics) = (
        Pool::new(2).unwrap(),
        Budget::new(256 << 20),
        Metrics::default(),
    );
    let options = Options {
        path: path.to_owned(),
        durability: Durability::Sync,
        retention,
        retention_rules: Default::default(),
        max_bytes: None,
        min_free_bytes: 0,
        mine_patterns: true,
        deletion: DeletionOptions::default(),
        decoder: Arc::new(|_| Err("no protocol here".into())),
        on_failure: Arc::new(|error| panic!("{error}")),
        clock,
        pool: pool.clone(),
        budget: budget.clone(),
        metrics: metrics.clone(),
    };
    let store = Store::open(options).unwrap();
    // What comes before would be decoded again from the journal, and there is no decoder.
    while !store.is_recovered() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Querier::new(store, pool, QueryLimits::default(), &budget, &metrics)
}

async fn push(querier: &Querier, spans: Vec<Span>) {
    let body = Body {
        kind: RecordKind::SpansAsReceived,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::from_static(b"spans"),
    };
    let pending = querier
        .store
        .append(Payload::Spans(SpanBatch { spans }), body, None)
        .unwrap();
    pending.wait().await.unwrap();
}

/// Two spans, of two services, with tags of few and of many values.
fn spans(trace: u64) -> Vec<Span> {
    let start = NOW - 60 * MINUTE + trace as i64 * 1000;
    let span = |id: u64, service: &str, operation: &str, tags: Vec<Tag>| Span {
        trace_id: TraceId(u128::from(trace) << 64 | 7),
        span_id: SpanId(trace << 8 | id),
        operation: operation.into(),
        references: vec![],
        flags: 1,
        start,
        duration: 1000 * (1 + trace % 50),
        tags,
        logs: vec![],
        process: Arc::new(Process {
            service: service.into(),
            tags: vec![],
        }),
        warnings: vec![],
    };
    let status = Tag {
        key: "status".into(),
        value: TagValue::Int64(200 + (trace % 3) as i64),
    };
    let id = format!("{:016x}", trace.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    vec![
        span(
            1,
            "web",
            if trace.is_multiple_of(2) {
                "GET /"
            } else {
                "POST /"
            },
            vec![status],
        ),
        span(2, "api", "load all", vec![Tag::string("request.id", id)]),
    ]
}

fn query(service: &str, operation: &str, tags: &[(&str, &str)], limit: usize) -> TraceQuery {
    TraceQuery {
        service: service.into(),
        operation: operation.into(),
        tags: tags
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect(),
        start_min: i64::MIN,
        start_max: i64::MAX,
        limit,
        ..TraceQuery::default()
    }
}

/// The numbers of the traces found; every trace must be whole.
async fn find(querier: &Querier, query: TraceQuery) -> Vec<u64> {
    let found = querier.find_traces(query).await.unwrap();
    let number = |trace: &Trace| {
        let number = (trace.id.0 >> 64) as u64;
        assert_eq!(trace.spans, spans(number));
        number
    };
    found.iter().map(number).collect()
}

#[tokio::test]
async fn searches_find_the_same_in_heads_and_in_sealed_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let querier = querier(dir.path());
    const TRACES: u64 = 3000;
    for sealed in [0, 1, 2] {
        if sealed == 0 {
            for trace in 0..TRACES {
                push_later(&querier, trace);
            }
            push(&querier, vec![]).await;
        } else {
            querier.store.flush().await.unwrap();
        }
        let last = TRACES - 1;
        assert_eq!(
            find(&querier, query("web", "", &[], 3)).await,
            [last, last - 1, last - 2]
        );
        assert_eq!(
            find(&querier, query("api", "load all", &[], 1)).await,
            [last]
        );
        assert!(
            find(&querier, query("api", "GET /", &[], 1))
                .await
                .is_empty()
        );
        let even = query("web", "GET /", &[("status", "201")], 2);
        assert_eq!(find(&querier, even).await, [2998, 2992]);
        let both = query("web", "", &[("status", "20[0-9]")], 4);
        assert_eq!(find(&querier, both).await.len(), 4);
        let id = format!("{:016x}", 1234u64.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        assert_eq!(
            find(&querier, query("", "", &[("request.id", &id)], 20)).await,
            [1234]
        );
        assert!(
            find(&querier, query("web", "", &[("request.id", &id)], 20))
                .await
                .is_empty()
        );
        let slow = TraceQuery {
            duration_min: Some(50_000),
            ..query("web", "", &[], 2)
        };
        assert_eq!(find(&querier, slow).await, [2999, 2949]);

        let id = TraceId(u128::from(17u64) << 64 | 7);
        assert_eq!(querier.trace(id).await.unwrap().unwrap().spans, spans(17));
        assert_eq!(querier.trace(TraceId(5)).await.unwrap(), None);
        assert_eq!(querier.services().await.unwrap(), ["api", "web"]);
        let operations = querier.operations("web", None).await.unwrap();
        let names: Vec<&str> = operations
            .iter()
            .map(|operation| &*operation.name)
            .collect();
        assert_eq!(names, ["GET /", "POST /"]);
    }
    // What comes after a flush is found beside what was sealed, and a repetition once.
    push(&querier, spans(TRACES)).await;
    push(&querier, spans(TRACES - 1)).await;
    assert_eq!(
        find(&querier, query("web", "", &[], 2)).await,
        [TRACES, TRACES - 1]
    );

    // The index is asked, and answers.
    let snapshot = Source {
        snapshot: Arc::new(querier.store.spans().unwrap()),
        pool: querier.pool.clone(),
        blocks: querier.blocks.clone(),
    };
    let candidates = |query: &TraceQuery| {
        let need = query_terms(query);
        snapshot
            .candidates(&SpanMatcher::new(query), &need)
            .unwrap()
            .into_iter()
            .map(|group| (group.list)().len())
            .sum::<usize>()
    };
    assert!(candidates(&query("web", "", &[], 1)) >= 5);
    assert_eq!(candidates(&query("other", "", &[], 1)), 0);
    assert_eq!(candidates(&query("web", "", &[("status", "404")], 1)), 0);
    assert_eq!(candidates(&query("api", "", &[("status", "201")], 1)), 0);
    for operation in ["", "GET /"] {
        let slow = |least: u64| TraceQuery {
            duration_min: Some(least),
            ..query("web", operation, &[], 1)
        };
        assert!(candidates(&slow(45_000)) >= 5);
        assert_eq!(candidates(&slow(70_000)), 0);
    }
    querier.store.stop().unwrap();
}

async fn listed(querier: &Querier) -> (Vec<String>, Vec<String>) {
    let operations = querier.operations("web", None).await.unwrap();
    let names = operations.into_iter().map(|operation| operation.name);
    (querier.services().await.unwrap(), names.collect())
}

#[tokio::test]
async fn services_and_operations_of_a_day_from_before_are_listed_with_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |services: &[&str], operations: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        (own(services), own(operations))
    };
    let named = |service: &str, operation: &str| Span {
        operation: operation.into(),
        process: Arc::new(Process {
            service: service.into(),
            tags: vec![],
        }),
        ..spans(0).remove(0)
    };
    for asked_first in [true, false] {
        let path = dir.path().join(asked_first.to_string());
        let querier = self::querier(&path);
        push(&querier, vec![named("web", "one"), named("api", "two")]).await;
        querier.store.flush().await.unwrap();
        querier.store.stop().unwrap();
        drop(querier);
        let querier = self::querier(&path);
        if asked_first {
            assert_eq!(listed(&querier).await, pair(&["api", "web"], &["one"]));
        }
        push(&querier, vec![named("web", "three"), named("web", "one")]).await;
        let all = pair(&["api", "web"], &["one", "three"]);
        if asked_first {
            assert_eq!(listed(&querier).await, all);
        }
        querier.store.flush().await.unwrap();
        assert_eq!(listed(&querier).await, all);
        // More than are kept at hand.
        let many = (0..700).map(|n| named("many", &format!("{n:0100}")));
        push(&querier, many.collect()).await;
        querier.store.flush().await.unwrap();
        for _ in 0..2 {
            let many = querier.operations("many", None).await.unwrap();
            assert_eq!(many.len(), 700);
            let all = pair(&["api", "many", "web"], &["one", "three"]);
            assert_eq!(listed(&querier).await, all);
        }
        querier.store.stop().unwrap();
    }
}

/// Appends without waiting for the sync, which one later append waits for.
fn push_later(querier: &Querier, trace: u64) {
    let body = Body {
        kind: RecordKind::SpansAsReceived,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::from_static(b"spans"),
    };
    let batch = SpanBatch {
        spans: spans(trace),
    };
    loop {
        match querier
            .store
            .append(Payload::Spans(batch.clone()), body.clone(), None)
        {
            Ok(_) => return,
            Err(StoreError::Full(_)) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn parts(querier: &Querier, id: TraceId, which: Where) -> Vec<Vec<Span>> {
    let parts: Vec<_> = querier.trace_parts(id, which).collect().await;
    parts.into_iter().map(Result::unwrap).collect()
}

/// One of many spans of a trace, with a text so long.
fn one_of_many(n: u64, text: usize) -> Span {
    Span {
        trace_id: TraceId(9),
        span_id: SpanId(n),
        start: NOW - n as i64,
        tags: vec![Tag::string("text", format!("{n:0text$}"))],
        ..spans(0).remove(0)
    }
}

#[tokio::test]
async fn a_large_trace_comes_in_pieces_each_span_once_and_always_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let querier = querier(dir.path());
    let id = TraceId(9);
    assert!(parts(&querier, id, Where::Both).await.is_empty());
    let all: Vec<Span> = (0..3000).map(|n| one_of_many(n, 1000)).collect();
    for batch in all.chunks(500) {
        push(&querier, batch.to_vec()).await;
        push(&querier, spans(77)).await;
    }
    // What is sent again is no longer recognised after a start, and left out in reading.
    let before = parts(&querier, id, Where::Both).await;
    assert!(before.len() >= 4, "{} pieces", before.len());
    assert_eq!(before.concat(), all);
    querier.store.flush().await.unwrap();
    assert_eq!(parts(&querier, id, Where::Both).await, before);
    querier.store.stop().unwrap();
    drop(querier);
    let querier = self::querier(dir.path());
    push(&querier, all[..700].to_vec()).await;
    assert_eq!(parts(&querier, id, Where::Both).await.concat(), all);
    assert_eq!(querier.trace(id).await.unwrap().unwrap().spans.len(), 3000);
    // Who stops listening gives back what was booked.
    let account = &querier.admission;
    let mut stream = querier.trace_parts(id, Where::Both);
    stream.next().await.unwrap().unwrap();
    assert!(account.used() >= 2 << 20);
    drop(stream);
    assert_eq!(account.used(), 0);
    querier.store.stop().unwrap();
}

#[tokio::test]
async fn an_archived_trace_outlives_retention() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, kept) = (Clock::fixed(NOW), Some(Duration::from_secs(2 * 86_400)));
    let querier = querier_of(dir.path(), clock.clone(), kept);
    let id = TraceId(9);
    assert!(!querier.archive(id).await.unwrap());
    assert!(!dir.path().join("db/archive").exists());
    let all: Vec<Span> = (0..2000).map(|n| one_of_many(n, 100)).collect();
    push(&querier, all[..1500].to_vec()).await;
    push(&querier, spans(5)).await;
    let of_five = spans(5)[0].trace_id;
    assert!(querier.archive(id).await.unwrap());
    querier.store.flush().await.unwrap();
    // Again, and with spans that came late.
    assert!(querier.archive(id).await.unwrap());
    push(&querier, all[1500..].to_vec()).await;
    let archived = parts(&querier, id, Where::Archive).await.concat();
    assert_eq!(archived, all[..1500]);
    assert_eq!(parts(&querier, id, Where::Both).await.concat(), all);
    assert!(querier.archive(id).await.unwrap());
    let archived = parts(&querier, id, Where::Archive).await.concat();
    assert_eq!(archived, all);
    // Single spans, twice, one of them known.
    let single = [all[3].clone(), spans(5)[1].clone(), spans(5)[1].clone()];
    querier.archive_spans(single.to_vec()).await.unwrap();
    querier.archive_spans(single.to_vec()).await.unwrap();
    assert_eq!(parts(&querier, id, Where::Archive).await.concat(), all);
    let five = parts(&querier, of_five, Where::Archive).await.concat();
    assert_eq!(five, [spans(5)[1].clone()]);
    assert_eq!(
        querier.trace(of_five).await.unwrap().unwrap().spans,
        spans(5)
    );

    querier.store.stop().unwrap();
    drop(querier);
    clock.set(NOW + 10 * DAY);
    let querier = querier_of(dir.path(), clock, kept);
    while !querier
        .store
        .partitions(crate::store::layout::Signal::Spans)
        .is_empty()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(parts(&querier, id, Where::Kept).await.is_empty());
    let mut by_start = all.clone();
    by_start.sort_by_key(|span| span.start);
    assert_eq!(querier.trace(id).await.unwrap().unwrap().spans, by_start);
    assert!(find(&querier, query("web", "", &[], 9)).await.is_empty());
    assert!(querier.archive(id).await.unwrap(), "it is there");
    assert!(!querier.archive(TraceId(1)).await.unwrap());
    querier.store.stop().unwrap();
}

/// Enough tags that no other span has for runs of blocks to be full.
#[tokio::test]
async fn runs_of_blocks_rule_out_what_no_block_has() {
    let dir = tempfile::tempdir().unwrap();
    const TRACES: u64 = 100_000;
    let id = |trace: u64| format!("{:016x}", trace.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let without = |querier: &Querier, id: &str| -> u32 {
        let need = query_terms(&query("api", "", &[("request.id", id)], 20));
        let snapshot = querier.store.spans().unwrap();
        let ranges = snapshot.days.iter().map(|day| super::without(day, &need));
        ranges.flatten().map(|range| range.len() as u32).sum()
    };
    let querier = querier(dir.path());
    for begun in [0, TRACES] {
        for from in (begun..begun + TRACES).step_by(2000) {
            push(&querier, (from..from + 2000).flat_map(spans).collect()).await;
        }
        querier.store.flush().await.unwrap();
        let all = (begun + TRACES) as u32 * 2 / 512;
        let absent: Vec<u32> = (0..10)
            .map(|n| without(&querier, &format!("{n:x}absent")))
            .collect();
        // A hundredth of others passes.
        let most = absent.iter().max().copied().unwrap_or(0);
        assert!(
            most > all * 3 / 4 && most < all,
            "{absent:?} of {all} blocks"
        );
        for trace in (0..begun + TRACES).step_by(7919) {
            let tag = id(trace);
            assert!(without(&querier, &tag) <= most, "{trace}");
            let found = find(&querier, query("api", "", &[("request.id", &tag)], 20)).await;
            assert_eq!(found, [trace]);
        }
        assert!(
            find(&querier, query("api", "", &[("request.id", "none")], 20))
                .await
                .is_empty()
        );
        assert!(
            find(&querier, query("web", "", &[("request.id", &id(5))], 20))
                .await
                .is_empty()
        );
        let both = [("request.id", &*id(5)), ("status", "202")];
        assert!(find(&querier, query("", "", &both, 20)).await.is_empty());
    }
}
