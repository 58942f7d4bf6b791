//! Against looking at all spans at once, on a real store.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::model::time::{DAY, SECOND};
use crate::model::trace::{Process, RefType, Span, SpanBatch, SpanRef, Tag};
use crate::runtime::clock::Clock;
use crate::runtime::permits::Budget;
use crate::runtime::pool::Pool;
use crate::store::deletion::DeletionOptions;
use crate::store::{Body, Decoded, Durability, Options, Payload, RecordKind, Store};
use crate::telemetry::metrics::Metrics;

const NOW: i64 = 20_000 * DAY + DAY / 2;

/// Batches by the number that stands for them in the journal.
type Sent = Arc<Mutex<Vec<SpanBatch>>>;

fn open(path: &Path, sent: &Sent) -> Store {
    let sent = sent.clone();
    let options = Options {
        path: path.to_owned(),
        durability: Durability::Flush,
        retention: None,
        retention_rules: Default::default(),
        max_bytes: None,
        min_free_bytes: 0,
        mine_patterns: false,
        deletion: DeletionOptions::default(),
        decoder: Arc::new(move |record| {
            let number = record.body[..].try_into().map(u64::from_le_bytes);
            let number = number.map_err(|_| "a number".to_owned())?;
            Ok(Decoded::Spans(sent.lock()[number as usize].clone()))
        }),
        on_failure: Arc::new(|error| panic!("{error}")),
        clock: Clock::fixed(NOW),
        pool: Pool::new(1).unwrap(),
        budget: Budget::new(64 << 20),
        metrics: Metrics::default(),
    };
    let store = Store::open(options).unwrap();
    while !store.is_recovered() {
        std::thread::sleep(Duration::from_millis(1));
    }
    store
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn send(store: &Store, sent: &Sent, spans: Vec<Span>) {
    let number = {
        let mut sent = sent.lock();
        sent.push(SpanBatch {
            spans: spans.clone(),
        });
        sent.len() as u64 - 1
    };
    let body = Body {
        kind: RecordKind::SpansAsReceived,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::copy_from_slice(&number.to_le_bytes()),
    };
    let batch = Payload::Spans(SpanBatch { spans });
    block_on(store.append(batch, body, None).unwrap().wait()).unwrap();
}

/// Notes and links all that is sealed.
fn link_all(store: &Store) {
    let (shared, linker) = (&store.0.shared, &store.0.linker);
    linker.pass(shared).unwrap();
    let mut state = linker.state.lock();
    let days = span_days(shared);
    let state = state.as_mut().unwrap();
    state.allowance = Duration::from_secs(9);
    state.link(shared, &days, Which::All).unwrap();
}

/// Forgets the spans of all but the newest blocks.
fn forget_most(store: &Store) {
    if let Some(state) = store.0.linker.state.lock().as_mut() {
        state.recent = Recent::new(1);
    }
}

fn found(store: &Store, range: TimeRange) -> Vec<(String, String, u64)> {
    let links = store.dependencies(range).unwrap();
    links
        .into_iter()
        .map(|l| (l.parent, l.child, l.calls))
        .collect()
}

fn naive(spans: &[Span], range: TimeRange) -> Vec<(String, String, u64)> {
    let mut calls = BTreeMap::new();
    for (n, child) in spans.iter().enumerate() {
        let minutes = minute_of(range.start)..=minute_of(range.end - 1);
        if spans[..n].contains(child) || !minutes.contains(&minute_of(child.start)) {
            continue;
        }
        let with_id = |id: SpanId| {
            spans
                .iter()
                .filter(move |span| span.trace_id == child.trace_id && span.span_id == id)
        };
        let client = with_id(child.span_id).find(|span| span.kind() == "client");
        let parent = match client.filter(|_| child.kind() == "server") {
            Some(client) => Some(client),
            None => child.parent().and_then(|id| {
                let server = with_id(id).find(|span| span.kind() == "server");
                server.or_else(|| with_id(id).next())
            }),
        };
        if let Some(parent) = parent
            && parent.process.service != child.process.service
        {
            let names = (
                parent.process.service.to_string(),
                child.process.service.to_string(),
            );
            *calls.entry(names).or_insert(0) += 1;
        }
    }
    calls
        .into_iter()
        .map(|((parent, child), n)| (parent, child, n))
        .collect()
}

fn span(trace: u128, id: u64, parent: Option<u64>, service: &str, kind: &str) -> Span {
    let trace_id = TraceId(trace);
    let references = parent.map(|parent| SpanRef {
        kind: RefType::ChildOf,
        trace_id,
        span_id: SpanId(parent),
    });
    Span {
        trace_id,
        span_id: SpanId(id),
        operation: "op".into(),
        references: references.into_iter().collect(),
        flags: 1,
        start: NOW,
        duration: 1000,
        tags: vec![Tag::string("span.kind", kind)],
        logs: vec![],
        process: Arc::new(Process {
            service: service.into(),
            tags: vec![],
        }),
        warnings: vec![],
    }
}

/// Groups of spans that come together: one span, or the two that share an id.
fn traces(random: &mut StdRng) -> Vec<Vec<Span>> {
    let services = ["a", "b", "c", "d"];
    let mut groups = Vec::new();
    for trace in 0..random.random_range(1..40u128) {
        let trace = if trace % 2 == 0 {
            trace + 1
        } else {
            trace << 70 | 5
        };
        // Its id, and who is behind it for its children.
        let mut known: Vec<(u64, &str)> = Vec::new();
        for id in 1..=random.random_range(1..12u64) {
            let service = services[random.random_range(0..services.len())];
            let parent = known.get(random.random_range(0..=known.len()));
            let start = NOW - random.random_range(0..3 * 3600) * SECOND;
            let mut group = Vec::new();
            match parent {
                Some((parent, caller)) if random.random_bool(0.2) => {
                    group.push(span(trace, id, Some(*parent), caller, "client"));
                    group.push(span(trace, id, Some(*parent), service, "server"));
                }
                Some((parent, _)) => group.push(span(trace, id, Some(*parent), service, "")),
                None if random.random_bool(0.1) => {
                    group.push(span(trace, id, Some(0xdead), service, "client"));
                }
                None => group.push(span(trace, id, None, service, "server")),
            }
            group.iter_mut().for_each(|span| span.start = start);
            known.push((id, service));
            groups.push(group);
        }
    }
    groups
}

#[test]
fn calls_are_those_of_all_spans_together_in_whatever_order_they_come() {
    let seeds = if std::env::var_os("SLOW").is_some() {
        0..300
    } else {
        0..12
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (dir, sent) = (tempfile::tempdir().unwrap(), Sent::default());
        let mut store = open(dir.path(), &sent);
        let mut groups = traces(&mut random);
        let repeats = random.random_range(0..5) * (seed % 2);
        for _ in 0..repeats {
            let again = groups[random.random_range(0..groups.len())].clone();
            groups.push(again);
        }
        groups.shuffle(&mut random);
        let mut so_far = Vec::new();
        let mut rest = &groups[..];
        while !rest.is_empty() {
            let (some, later) = rest.split_at(random.random_range(1..=rest.len().min(30)));
            rest = later;
            let spans: Vec<Span> = some.iter().flatten().cloned().collect();
            so_far.extend(spans.iter().cloned());
            send(&store, &sent, spans);
            if random.random_bool(0.5) {
                block_on(store.flush()).unwrap();
            }
            if random.random_bool(0.4) {
                link_all(&store);
            }
            // Then parents are looked for by the trace-id keys, once their children are sealed;
            // and repetitions are not known.
            if repeats == 0 && random.random_bool(0.3) {
                forget_most(&store);
            }
            if repeats == 0 {
                block_on(store.flush()).unwrap();
            }
            if random.random_bool(0.2) {
                store.stop().unwrap();
                drop(store);
                store = open(dir.path(), &sent);
            }
            let all = TimeRange::all();
            if repeats == 0 || random.random_bool(0.5) {
                link_all(&store);
            }
            assert_eq!(found(&store, all), naive(&so_far, all), "seed {seed}");
            let some = TimeRange::new(NOW - 5000 * SECOND, NOW - 3000 * SECOND);
            assert_eq!(found(&store, some), naive(&so_far, some), "seed {seed}");
        }
        store.stop().unwrap();
    }
}

#[test]
fn a_parent_may_come_before_or_after_in_blocks_long_gone() {
    let (dir, sent) = (tempfile::tempdir().unwrap(), Sent::default());
    let mut store = open(dir.path(), &sent);
    let all = TimeRange::all();
    let is = |expected: &[(&str, &str, u64)]| -> Vec<(String, String, u64)> {
        expected
            .iter()
            .map(|(p, c, n)| ((*p).into(), (*c).into(), *n))
            .collect()
    };
    // Before: its block has left the table.
    send(&store, &sent, vec![span(1, 1, None, "web", "server")]);
    block_on(store.flush()).unwrap();
    link_all(&store);
    for other in 2..6 {
        forget_most(&store);
        send(&store, &sent, vec![span(other, 1, None, "web", "server")]);
        block_on(store.flush()).unwrap();
        link_all(&store);
    }
    send(&store, &sent, vec![span(1, 2, Some(1), "api", "server")]);
    block_on(store.flush()).unwrap();
    link_all(&store);
    assert_eq!(found(&store, all), is(&[("web", "api", 1)]));
    // After: the children wait, also over a restart.
    let children = (10..13).map(|id| span(7, id, Some(1), "db", "server"));
    send(&store, &sent, children.collect());
    block_on(store.flush()).unwrap();
    link_all(&store);
    store.stop().unwrap();
    drop(store);
    store = open(dir.path(), &sent);
    send(&store, &sent, vec![span(7, 1, None, "api", "server")]);
    // Not sealed yet, then sealed, then linked: the same.
    let expected = is(&[("api", "db", 3), ("web", "api", 1)]);
    assert_eq!(found(&store, all), expected);
    block_on(store.flush()).unwrap();
    assert_eq!(found(&store, all), expected);
    link_all(&store);
    assert_eq!(found(&store, all), expected);
    store.stop().unwrap();
    drop(store);
    store = open(dir.path(), &sent);
    assert_eq!(found(&store, all), expected);
    link_all(&store);
    assert_eq!(found(&store, all), expected);
    store.stop().unwrap();
}

/// Too many to be looked for one by one.
#[test]
fn one_reading_of_all_blocks_finds_many_parents() {
    let (dir, sent) = (tempfile::tempdir().unwrap(), Sent::default());
    let store = open(dir.path(), &sent);
    let many = SWEEP_FROM as u128 + 100;
    for traces in [1..many / 2, many / 2..many] {
        let roots = traces.map(|trace| span(trace, 1, None, "web", "server"));
        send(&store, &sent, roots.collect());
    }
    block_on(store.flush()).unwrap();
    link_all(&store);
    forget_most(&store);
    // A later block leaves none of them in the table, and no time for lookups.
    send(&store, &sent, vec![span(1 << 80, 1, None, "web", "server")]);
    let children = (1..many).map(|trace| span(trace, 2, Some(1), "api", "server"));
    send(&store, &sent, children.collect());
    block_on(store.flush()).unwrap();
    let (shared, linker) = (&store.0.shared, &store.0.linker);
    linker.pass(shared).unwrap();
    {
        let mut state = linker.state.lock();
        let state = state.as_mut().unwrap();
        let days = span_days(shared);
        state.allowance = Duration::ZERO;
        state.link(shared, &days, Which::All).unwrap();
        assert!(state.lookups.len() >= SWEEP_FROM, "{}", state.lookups.len());
        state.allowance = Duration::from_secs(60);
        state.look_up(&days).unwrap();
        assert!(state.lookups.is_empty() && state.sweep.is_none());
        assert!(state.orphans.is_empty());
    }
    let expected = [("web".to_owned(), "api".to_owned(), many as u64 - 1)];
    assert_eq!(found(&store, TimeRange::all()), expected);
    store.stop().unwrap();
    drop(store);
    // Stored, although no block came since.
    let store = open(dir.path(), &sent);
    assert_eq!(found(&store, TimeRange::all()), expected);
    store.stop().unwrap();
}

#[test]
fn many_children_of_one_missing_parent_cost_little() {
    let mut orphans = Orphans::new(1 << 16);
    let begun = Instant::now();
    for n in 0..1_000_000u32 {
        orphans.push(Orphan {
            parent: 77,
            service: n % 3,
            minute: 5,
            calls: 1,
        });
    }
    assert_eq!(
        (orphans.len(), orphans.of(77).map(|o| o.calls).sum()),
        (3, 1_000_000)
    );
    println!("{:?}", begun.elapsed());
}
