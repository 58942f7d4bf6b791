//! The store as a whole, on a real directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::chunk::ChunkReader;
use super::head::logs::HEAD_OVERHEAD;
use super::index::{WordDemand, WordPlan};
use super::layout::Layout;
use super::*;
use crate::model::labels::Labels;
use crate::model::log::{LogBatch, LogEntry, StreamEntries};
use crate::model::time::DAY;
use crate::runtime::clock::Clock;
use crate::runtime::permits::Budget;
use crate::runtime::pool::Pool;
use crate::telemetry::metrics::Metrics;

pub(super) fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        durability: Durability::Sync,
        retention: None,
        retention_rules: Default::default(),
        max_bytes: None,
        min_free_bytes: 0,
        mine_patterns: true,
        deletion: deletion::DeletionOptions::default(),
        decoder: Arc::new(|_| Err("no protocol here".into())),
        on_failure: Arc::new(|error| panic!("{error}")),
        clock: Clock::fixed(20_000 * DAY + DAY / 2),
        pool: Pool::new(2).unwrap(),
        budget: Budget::new(256 << 20),
        metrics: Metrics::default(),
    }
}

pub(super) fn batch(app: &str, lines: &[(i64, String)]) -> LogBatch {
    let labels = Labels::from_pairs([("app", app)]);
    let mut text = Vec::new();
    let mut entries = Vec::new();
    for (at, line) in lines {
        let (start, len) = (text.len() as u32, line.len() as u32);
        entries.push(LogEntry {
            at: *at,
            start,
            len,
            metadata: 0,
        });
        text.extend_from_slice(line.as_bytes());
    }
    let id = StreamId::of("", &labels);
    let streams = vec![StreamEntries {
        id,
        labels,
        entries,
    }];
    LogBatch {
        tenant: "".into(),
        text: text.into(),
        metadata: Vec::new(),
        streams,
    }
}

pub(super) async fn push(store: &Store, batch: LogBatch) {
    let body = Body {
        kind: RecordKind::LogsOwn,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::from(encode_batch(&batch, &[])),
    };
    let pending = store
        .append(Payload::Logs(batch, Vec::new()), body, None)
        .unwrap();
    pending.wait().await.unwrap();
}

/// All lines by stream label, in the order that a reader sees them.
pub(super) fn read(store: &Store) -> BTreeMap<String, Vec<(i64, String)>> {
    let snapshot = store.logs(TimeRange::all(), None).unwrap();
    let mut all: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    for day in &snapshot.days {
        for meta in day.chunks.iter() {
            let stream = store.0.shared.streams.get(meta.stream).unwrap();
            if let deletion::Left::Nothing = snapshot.left(&stream, meta) {
                continue;
            }
            let block = day
                .partition
                .data(meta.number, |bytes| {
                    ChunkReader::new(bytes).unwrap().lines().unwrap()
                })
                .unwrap();
            let lines = all.entry(stream.labels.to_string()).or_default();
            lines.extend((0..block.len()).map(|i| (block.at[i], text(block.line(i)))));
        }
    }
    for head in &snapshot.heads {
        let lines = all.entry(head.stream.labels.to_string()).or_default();
        for block in &head.blocks {
            lines.extend((0..block.len()).map(|i| (block.at[i], text(block.line(i)))));
        }
    }
    all.values_mut().for_each(|lines| lines.sort());
    all
}

pub(super) fn wait_recovered(store: &Store) {
    for _ in 0..2000 {
        if store.is_recovered() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("replay does not end");
}

fn lines(from: i64, n: i64, width: usize) -> Vec<(i64, String)> {
    (from..from + n)
        .map(|i| (20_000 * DAY + i, format!("line {i} {}", "x".repeat(width))))
        .collect()
}

/// Ends a store as kill -9 would: nothing is flushed any more.
pub(super) fn abandon(store: Store) {
    // The threads go on, but on files that the copy below no longer shares.
    std::mem::forget(store);
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // Obsolete and removed meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_sealed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir.path().join("a"))).unwrap();
    let mut expected = BTreeMap::new();
    for (app, n, width) in [("small", 10, 5), ("large", 3000, 400)] {
        let all = lines(0, n, width);
        for some in all.chunks(100) {
            push(&store, batch(app, some)).await;
        }
        expected.insert(format!("{{app=\"{app}\"}}"), all);
    }
    assert_eq!(read(&store), expected);
    copy_dir(&dir.path().join("a"), &dir.path().join("crashed"));
    store.flush().await.unwrap();
    assert_eq!(read(&store), expected);
    let more = lines(5000, 50, 100);
    push(&store, batch("small", &more)).await;
    expected
        .get_mut("{app=\"small\"}")
        .unwrap()
        .extend(more.clone());
    copy_dir(&dir.path().join("a"), &dir.path().join("flushed"));
    abandon(store);

    let store = Store::open(options(&dir.path().join("flushed"))).unwrap();
    wait_recovered(&store);
    assert_eq!(read(&store), expected);
    // Twice the same push: a retry after a lost answer.
    push(&store, batch("small", &more)).await;
    assert_eq!(read(&store), expected);
    store.stop().unwrap();
    drop(store);
    let store = Store::open(options(&dir.path().join("flushed"))).unwrap();
    wait_recovered(&store);
    assert_eq!(read(&store), expected);

    let store = Store::open(options(&dir.path().join("crashed"))).unwrap();
    wait_recovered(&store);
    expected.get_mut("{app=\"small\"}").unwrap().truncate(10);
    assert_eq!(read(&store), expected);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let second = Store::open(options(dir.path())).map(|_| ());
    assert!(matches!(second, Err(StoreError::Locked(_))), "{second:?}");
    store.stop().unwrap();
}

#[tokio::test]
async fn a_torn_record_is_cut_off_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(&dir.path().join("a"))).unwrap();
    push(&store, batch("a", &lines(0, 5, 1))).await;
    push(&store, batch("a", &lines(5, 5, 1))).await;
    copy_dir(&dir.path().join("a"), &dir.path().join("b"));
    abandon(store);
    let journal = Layout::new(dir.path().join("b")).journal_dir();
    let segment = journal::append::list_segments(&journal)
        .unwrap()
        .pop()
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment.path)
        .unwrap();
    // Zeros follow it, for records to come.
    let end = std::fs::read(&segment.path).unwrap();
    let end = end.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    file.set_len(end - 3).unwrap();
    let store = Store::open(options(&dir.path().join("b"))).unwrap();
    wait_recovered(&store);
    assert_eq!(read(&store)["{app=\"a\"}"], lines(0, 5, 1));
    push(&store, batch("a", &lines(5, 5, 1))).await;
    assert_eq!(read(&store)["{app=\"a\"}"], lines(0, 10, 1));
    store.stop().unwrap();
}

#[tokio::test]
async fn expired_days_are_dropped_with_their_files_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.retention = Some(Duration::from_secs(3 * 86_400));
    let clock = options.clock.clone();
    let store = Store::open(options).unwrap();
    wait_recovered(&store);
    push(&store, batch("old", &lines(0, 5, 1))).await;
    let new: Vec<_> = lines(0, 5, 1)
        .into_iter()
        .map(|(at, l)| (at + 4 * DAY, l))
        .collect();
    push(&store, batch("new", &new)).await;
    store.flush().await.unwrap();
    assert_eq!(store.partitions(Signal::Logs).len(), 2);
    let held = store.logs(TimeRange::all(), None).unwrap();
    clock.set(20_004 * DAY + DAY / 2);
    store.0.shared.inbox.push_internal(Internal::Retain);
    for _ in 0..500 {
        if store.partitions(Signal::Logs).len() == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(read(&store).keys().collect::<Vec<_>>(), ["{app=\"new\"}"]);
    assert_eq!(store.select("", &[]).len(), 1);
    // Who looked before still can, and the files go when they have.
    let day = &held.days[0];
    assert!(day.partition.data(0, |b| b.len()).unwrap() > 0);
    let index = Layout::new(dir.path()).index_dir(day.partition.id);
    assert!(index.exists());
    drop(held);
    assert!(!index.exists());
    store.stop().unwrap();
}

#[tokio::test]
async fn a_lost_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    push(&store, batch("a", &lines(0, 100, 10))).await;
    store.flush().await.unwrap();
    let id = store
        .0
        .shared
        .open
        .lock()
        .partitions
        .keys()
        .next()
        .copied()
        .unwrap();
    store.stop().unwrap();
    drop(store);
    std::fs::remove_dir_all(Layout::new(dir.path()).index_dir(id)).unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let partition = store.0.shared.open.lock().partitions[&id].clone();
    for _ in 0..1000 {
        if partition.index.indexed_below() == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let view = partition.index.view().unwrap().unwrap();
    let line = WordPlan::Word {
        demand: WordDemand::Exact("line".into()),
        folded: false,
    };
    assert!(view.search(&line, "", "").unwrap().unwrap().contains(0));
    store.stop().unwrap();
}

/// Waits until `is_so`, some seconds at most.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

/// The same lines as many days later.
fn days_later(lines: &[(i64, String)], days: i64) -> Vec<(i64, String)> {
    let later = |(at, line): &(i64, String)| (at + days * DAY, line.clone());
    lines.iter().map(later).collect()
}

/// Lines that hardly compress.
fn noise(n: i64) -> Vec<(i64, String)> {
    use rand::SeedableRng;
    use rand::distr::{Alphanumeric, SampleString};
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let line = |i| (20_000 * DAY + i, Alphanumeric.sample_string(&mut rng, 1000));
    (0..n).map(line).collect()
}

#[tokio::test]
async fn above_max_bytes_the_oldest_days_go_and_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let lines = noise(2000);
    let mut opened = options(dir.path());
    let store = Store::open(opened.clone()).unwrap();
    wait_recovered(&store);
    for day in 0..3 {
        push(&store, batch("a", &days_later(&lines, day))).await;
    }
    store.flush().await.unwrap();
    store.stop().unwrap();
    drop(store);
    let whole = room::bytes_below(dir.path());

    // Two days and a half.
    opened.max_bytes = Some(whole - whole / 6);
    opened.metrics = Metrics::default();
    let store = Store::open(opened.clone()).unwrap();
    wait_until("the first day goes", || {
        store.partitions(Signal::Logs).len() == 2
    });
    assert_eq!(
        store.partitions(Signal::Logs),
        ["log-20241005", "log-20241006"]
    );
    wait_until("its files go", || {
        room::bytes_below(dir.path()) <= whole - whole / 6
    });
    let dropped = &store.0.shared.metrics.partitions_dropped_for_room;
    assert_eq!(dropped.get(), 1);
    // What is there fits: pushes are taken.
    push(&store, batch("a", &days_later(&noise(1), 2))).await;
    store.stop().unwrap();
    drop(store);

    // Less than a day: the newest stays, and nothing is taken any more.
    opened.max_bytes = Some(1 << 20);
    opened.metrics = Metrics::default();
    let store = Store::open(opened).unwrap();
    wait_until("only the newest day stays", || {
        store.partitions(Signal::Logs).len() == 1
    });
    wait_until("no room", || store.no_room() == Some(NoRoom::Limit));
    assert_eq!(read(&store)["{app=\"a\"}"].len(), 2001);
    let body = Body {
        kind: RecordKind::LogsOwn,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: "".into(),
        bytes: Bytes::from(encode_batch(&batch("a", &lines[..1]), &[])),
    };
    let payload = Payload::Logs(batch("a", &lines[..1]), Vec::new());
    let refused = store.append(payload, body, None).unwrap().wait().await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    store.stop().unwrap();
}

#[tokio::test]
async fn a_dropped_day_that_begins_again_while_it_is_read_keeps_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    wait_recovered(&store);
    push(&store, batch("a", &lines(0, 5, 1))).await;
    push(&store, batch("a", &days_later(&lines(0, 5, 1), 1))).await;
    store.flush().await.unwrap();
    let held = store.logs(TimeRange::all(), None).unwrap();
    let first = held.days[0].partition.id;
    store
        .0
        .shared
        .inbox
        .push_internal(Internal::Drop(vec![first]));
    wait_until("the day is out of sight", || {
        store.partitions(Signal::Logs).len() == 1
    });
    // Late lines begin it again, are sealed into it, and it goes on after the reader left.
    push(&store, batch("a", &lines(100, 5, 1))).await;
    store.flush().await.unwrap();
    drop(held);
    push(&store, batch("a", &lines(200, 5, 1))).await;
    store.flush().await.unwrap();
    let all = read(&store);
    let found: Vec<_> = all["{app=\"a\"}"]
        .iter()
        .map(|(_, line)| line.as_str())
        .collect();
    for line in lines(100, 5, 1).iter().chain(&lines(200, 5, 1)) {
        assert!(found.contains(&line.1.as_str()), "{line:?} of {found:?}");
    }
    store.stop().unwrap();
}

#[tokio::test]
async fn what_many_small_heads_take_is_booked_as_long_as_they_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    wait_recovered(&store);
    let used = || store.0.shared.heads_account.used();
    let until = |holds: &dyn Fn(usize) -> bool| {
        for _ in 0..500 {
            if holds(used()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    };
    let before = used();
    // What sealing gives back is what opening took: also the second time.
    for round in 0..3 {
        for app in 0..200 {
            push(&store, batch(&format!("app{app}"), &lines(round, 1, 10))).await;
        }
        assert!(
            until(&|used| used >= before + 200 * HEAD_OVERHEAD),
            "{round}: {}",
            used()
        );
        store.flush().await.unwrap();
        assert!(
            until(&|used| used < before + 50 * HEAD_OVERHEAD),
            "{round}: {}",
            used()
        );
    }
    store.stop().unwrap();
}

/// One line each of many streams, in one record.
fn many(apps: std::ops::Range<usize>, at: i64) -> LogBatch {
    let mut text = Vec::new();
    let streams = apps.map(|app| {
        let labels = Labels::from_pairs([("app", format!("app{app}"))]);
        let line = format!("line of {app} at {at}");
        let entry = LogEntry {
            at,
            start: text.len() as u32,
            len: line.len() as u32,
            metadata: 0,
        };
        text.extend_from_slice(line.as_bytes());
        StreamEntries {
            id: StreamId::of("", &labels),
            labels,
            entries: vec![entry],
        }
    });
    let streams = streams.collect();
    LogBatch {
        tenant: "".into(),
        text: text.into(),
        metadata: Vec::new(),
        streams,
    }
}

#[tokio::test]
async fn a_day_with_very_many_chunks_is_read_without_all_of_its_catalog_in_memory() {
    const APPS: usize = 3000;
    let at = 20_000 * DAY;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options {
        budget: Budget::new(4 << 20),
        ..options(dir.path())
    })
    .unwrap();
    wait_recovered(&store);
    for from in (0..APPS).step_by(500) {
        push(&store, many(from..from + 500, at)).await;
    }
    store.flush().await.unwrap();
    let day = {
        let open = store.0.shared.open.lock();
        open.partitions.values().next().unwrap().clone()
    };
    for _ in 0..500 {
        if day.is_large() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(day.is_large());
    let all = read(&store);
    assert_eq!(all.len(), APPS);
    assert!(all.values().all(|lines| lines.len() == 1));
    let labels = Labels::from_pairs([("app", "app7")]);
    let one = HashSet::from_iter([StreamId::of("", &labels)]);
    let snapshot = store.logs(TimeRange::all(), Some(&one)).unwrap();
    assert_eq!(snapshot.days[0].chunks.len(), 1);
    drop(snapshot);
    let later = TimeRange::new(at + 1, at + 2);
    assert!(store.logs(later, None).unwrap().days[0].chunks.is_empty());
    // What comes while it is read is added.
    let wants = |meta: &chunk::ChunkMeta| one.contains(&meta.stream);
    let account = &store.0.shared.readers_account;
    let now = day_now(&store);
    let wanted = day.wanted(now, &wants, account).unwrap();
    push(&store, many(5..10, at + 1)).await;
    store.flush().await.unwrap();
    let wanted = day.catch_up(wanted, now, &wants).unwrap();
    let chunks: Vec<_> = wanted.catalog.iter().collect();
    assert_eq!(chunks.len(), 2);
    assert!(0 < chunks[0].seq && chunks[0].seq < chunks[1].seq);
    // It books what it holds.
    let held: usize = chunks.iter().map(|meta| meta.memory()).sum();
    assert_eq!(account.used(), held);
    drop(wanted);
    let budget = &store.0.shared.options.budget;
    let rest = budget.limit() - budget.used() - (64 << 10);
    let taken = account.try_take(rest).unwrap();
    let refused = store.logs(TimeRange::all(), None).err().unwrap();
    assert!(matches!(refused, StoreError::Memory(_)), "{refused}");
    drop(taken);
    assert_eq!(read(&store).len(), APPS);
    store.stop().unwrap();
    drop(day);
    drop(store);

    // With more memory it is kept again.
    let store = Store::open(options(dir.path())).unwrap();
    wait_recovered(&store);
    assert_eq!(read(&store).values().map(Vec::len).sum::<usize>(), APPS + 5);
    store.stop().unwrap();
}

fn day_now(store: &Store) -> i64 {
    store.0.shared.options.clock.now()
}
