//! Days rewritten in a real store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Rewriter;
use crate::model::time::{DAY, HOUR, MINUTE, SECOND};
use crate::model::{MatchOp, Matcher, TimeRange};
use crate::store::chunk::ChunkReader;
use crate::store::index::{WordDemand, WordPlan};
use crate::store::layout::{Layout, Signal};
use crate::store::partition::Partition;
use crate::store::retention::{Rule, Rules};
use crate::store::tests::{batch, options, push, read, wait_recovered};
use crate::store::{LogSnapshot, Options, Store};

const FIRST: i64 = 20_000 * DAY;

#[track_caller]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn day(store: &Store, n: usize) -> Arc<Partition> {
    let open = store.0.shared.open.lock();
    let mut days = open
        .partitions
        .values()
        .filter(|p| p.id.signal == Signal::Logs);
    days.nth(n).unwrap().clone()
}

fn chunks(snapshot: &LogSnapshot) -> usize {
    snapshot.days.iter().map(|day| day.chunks.len()).sum()
}

/// Lines that a snapshot leads to, whatever happened since it was taken.
fn count(snapshot: &LogSnapshot) -> usize {
    let lines = |day: &crate::store::snapshot::LogDay| -> usize {
        let lines = day.chunks.iter().map(|meta| {
            let read = day.partition.data(meta.number, |bytes| {
                ChunkReader::new(bytes).unwrap().lines().unwrap().len()
            });
            read.unwrap()
        });
        lines.sum()
    };
    snapshot.days.iter().map(lines).sum()
}

fn rewritten(store: &Store) -> u64 {
    store.0.shared.metrics.days_rewritten.get()
}

/// Small chunks of three streams: `rounds` of them each, some lines of them late.
async fn fill(store: &Store, start: i64, rounds: i64) {
    for round in 0..rounds {
        for app in ["a", "b", "c"] {
            let mut lines: Vec<(i64, String)> = (0..5)
                .map(|i| {
                    let at = start + round * MINUTE + i * SECOND;
                    (at, format!("word{app} number {round} {i}"))
                })
                .collect();
            // Of one time, from several chunks.
            lines.push((start + 30 * MINUTE, format!("same time {round:03}")));
            push(store, batch(app, &lines)).await;
        }
        store.flush().await.unwrap();
    }
}

#[tokio::test]
async fn small_chunks_of_a_cold_day_become_few_and_every_line_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path());
    let clock = first.clock.clone();
    clock.set(FIRST + DAY / 2);
    let store = Store::open(first).unwrap();
    wait_recovered(&store);
    fill(&store, FIRST, 20).await;
    fill(&store, FIRST + DAY, 20).await;
    let before = read(&store);
    let held = store.logs(TimeRange::all(), None).unwrap();
    assert_eq!((chunks(&held), count(&held)), (120, 720));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rewritten(&store), 0, "the day is not over");
    clock.set(FIRST + DAY + 4 * HOUR);
    wait("the first day", || rewritten(&store) == 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rewritten(&store), 1, "the second day is not over");
    assert_eq!(read(&store), before);
    let snapshot = store.logs(TimeRange::all(), None).unwrap();
    assert_eq!((chunks(&snapshot), count(&snapshot)), (63, 720));
    // Who looked before still reads what was there, which goes with them.
    assert_eq!((chunks(&held), count(&held)), (120, 720));
    let old_index = Layout::new(dir.path()).index_dir(day(&store, 0).id);
    assert!(old_index.exists());
    drop(held);
    assert!(!old_index.exists());
    let merged = day(&store, 0);
    assert_eq!((merged.generation, merged.next_number()), (1, 3));
    // Lines of one time are in the order in which they came.
    for meta in snapshot.days[0].chunks.iter() {
        let same: Vec<String> = merged
            .data(meta.number, |bytes| {
                let lines = ChunkReader::new(bytes).unwrap().lines().unwrap();
                assert!(lines.at.is_sorted());
                let lines = (0..lines.len()).map(|i| String::from_utf8_lossy(lines.line(i)).into());
                lines.filter(|l: &String| l.starts_with("same")).collect()
            })
            .unwrap();
        assert_eq!((same.len(), same.is_sorted()), (20, true));
    }
    // The index knows each by its words.
    let view = merged.index.view().unwrap().unwrap();
    assert_eq!(view.indexed_below, 3);
    let word = WordPlan::Word {
        demand: WordDemand::Exact("wordb".into()),
        folded: false,
    };
    let found = view.search(&word, "", "").unwrap().unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), [1]);
    // Late lines come to what is there now, and a few of them change nothing.
    push(&store, batch("a", &[(FIRST + 5, "late".into())])).await;
    store.flush().await.unwrap();
    assert_eq!(day(&store, 0).next_number(), 4);
    clock.set(clock.now() + HOUR);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rewritten(&store), 1);
    let before = read(&store);
    drop(snapshot);
    drop(merged);
    store.stop().unwrap();
    drop(store);

    let again = Options {
        clock: clock.clone(),
        ..options(dir.path())
    };
    let store = Store::open(again).unwrap();
    wait_recovered(&store);
    assert_eq!(read(&store), before);
    assert_eq!(day(&store, 0).generation, 1);
    // Many late lines do. The day is looked at once before they come, and as it is.
    std::thread::sleep(Duration::from_millis(2500));
    fill(&store, FIRST + HOUR, 20).await;
    // Seen before the clock goes on: five minutes behind it nothing came.
    std::thread::sleep(Duration::from_millis(1500));
    clock.set(clock.now() + HOUR);
    wait("the first day again", || rewritten(&store) == 1);
    assert_eq!(day(&store, 0).generation, 2);
    assert_eq!(day(&store, 0).next_number(), 3);
    let all: usize = read(&store).values().map(Vec::len).sum();
    assert_eq!(all, 720 + 1 + 360);
    store.stop().unwrap();
}

#[tokio::test]
async fn a_past_day_that_begins_while_the_process_runs_is_not_cold_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path());
    let clock = first.clock.clone();
    clock.set(FIRST + 3 * DAY);
    let store = Store::open(first).unwrap();
    wait_recovered(&store);
    let mut rewriter = Rewriter::new(&store.0.shared);
    fill(&store, FIRST, 20).await;
    let due = rewriter.next_due(&store.0.shared);
    assert!(due.is_none(), "seen for the first time: more may come");
    // Seen by the store's own as well before the clock goes on.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(rewritten(&store), 0);
    clock.set(clock.now() + HOUR);
    wait("the day", || rewritten(&store) == 1);
    store.stop().unwrap();
}

fn with_rules(path: &Path, rules: &[(&str, Option<i64>)]) -> Options {
    let rule = |(app, period): &(&str, Option<i64>)| Rule {
        matchers: vec![Matcher {
            name: "app".into(),
            op: MatchOp::Equal,
            value: (*app).into(),
            regex: None,
        }],
        period: period.map(|ns| Duration::from_nanos(ns as u64)),
        priority: 0,
    };
    Options {
        retention: Some(Duration::from_nanos(10 * DAY as u64)),
        retention_rules: Rules {
            logs: rules.iter().map(rule).collect(),
            spans: None,
        },
        ..options(path)
    }
}

#[tokio::test]
async fn expired_streams_leave_answers_at_once_and_the_disk_soon() {
    let dir = tempfile::tempdir().unwrap();
    let rules = [("short", Some(DAY)), ("long", Some(40 * DAY))];
    let first = with_rules(dir.path(), &rules);
    let clock = first.clock.clone();
    clock.set(FIRST + DAY / 2);
    let store = Store::open(first).unwrap();
    wait_recovered(&store);
    let at = FIRST + DAY / 2;
    let noise = |n: i64| format!("{n} {}", "abcdefgh".repeat(50));
    let many: Vec<_> = (0..2000).map(|n| (at + n, noise(n))).collect();
    push(&store, batch("short", &many)).await;
    push(&store, batch("other", &[(at, "other".into())])).await;
    push(&store, batch("long", &[(at, "long".into())])).await;
    // Still open when it expires.
    let other_day = FIRST + DAY / 3;
    store.flush().await.unwrap();
    push(&store, batch("short", &[(other_day, "open".into())])).await;
    let apps = |store: &Store| -> Vec<String> { read(store).into_keys().collect() };
    let (long, other) = ("{app=\"long\"}", "{app=\"other\"}");
    assert_eq!(apps(&store).len(), 3);
    assert_eq!(read(&store)["{app=\"short\"}"].len(), 2001);
    let held = store.logs(TimeRange::all(), None).unwrap();

    // Behind the newest line of each chunk and head.
    clock.set(other_day + DAY + 1);
    assert_eq!(read(&store)["{app=\"short\"}"].len(), 2000);
    clock.set(at + 2000 + DAY);
    assert_eq!(apps(&store), [long, other]);
    wait("the day", || rewritten(&store) == 1);
    assert_eq!(apps(&store), [long, other]);
    assert_eq!(store.0.shared.metrics.expired_lines.get(), 2000);
    assert_eq!(count(&held), 2002);
    drop(held);
    let left = day(&store, 0);
    assert_eq!(left.next_number(), 2);
    assert!(left.disk_bytes() < 20_000, "{}", left.disk_bytes());
    drop(left);
    // What is sealed late would go at once; then nobody knows the stream any more.
    store.flush().await.unwrap();
    assert_eq!(day(&store, 0).next_number(), 2);

    // The default holds for whole days, a longer rule beyond it.
    clock.set(FIRST + 11 * DAY - 1);
    assert_eq!(apps(&store), [long, other]);
    clock.set(FIRST + 11 * DAY);
    assert_eq!(apps(&store), [long]);
    wait("the day again", || rewritten(&store) == 2);
    wait("the streams", || store.select("", &[]).len() == 1);
    assert_eq!(apps(&store), [long]);
    store.stop().unwrap();
}

#[tokio::test]
async fn a_day_of_which_everything_has_expired_goes_although_others_are_kept_longer() {
    let dir = tempfile::tempdir().unwrap();
    let first = with_rules(dir.path(), &[("a", Some(DAY)), ("audit", None)]);
    let clock = first.clock.clone();
    clock.set(FIRST + DAY / 2);
    let store = Store::open(first).unwrap();
    wait_recovered(&store);
    push(&store, batch("a", &[(FIRST, "x".into())])).await;
    push(&store, batch("audit", &[(FIRST + DAY, "y".into())])).await;
    store.flush().await.unwrap();
    assert_eq!(store.partitions(Signal::Logs).len(), 2);
    clock.set(FIRST + 100 * DAY);
    wait("the day", || store.partitions(Signal::Logs).len() == 1);
    let left: Vec<String> = read(&store).into_keys().collect();
    assert_eq!(left, ["{app=\"audit\"}"]);
    assert_eq!(store.select("", &[]).len(), 1);
    store.stop().unwrap();
}
