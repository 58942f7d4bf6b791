use std::path::PathBuf;
use std::sync::Arc;

use super::super::tests::{batch, copy_dir, options, push, wait_recovered};
use super::super::{Store, repair};
use super::*;
use crate::model::TimeRange;
use crate::model::time::DAY;
use crate::store::partition::Read;

const FIRST: i64 = 20_000 * DAY;

fn decoder() -> Decoder {
    Arc::new(|_| Err("no protocol here".into()))
}

/// Lines that do not compress, so that a chunk is a blob.
fn lines(day: i64, from: i64, n: i64) -> Vec<(i64, String)> {
    let text = |i: i64| -> String {
        // Seeds that differ in one bit give noise that is alike.
        let mut x = ((day * 7919 + i) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..300)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                format!("{:02x}", x & 0xff)
            })
            .collect()
    };
    (from..from + n)
        .map(|i| (FIRST + day * DAY + i, format!("{day} {i} {}", text(i))))
        .collect()
}

/// What a store shows of a day, as a query would: damaged chunks are left out.
fn shown(store: &Store, day: i64) -> usize {
    let start = FIRST + day * DAY;
    let snapshot = store
        .logs(TimeRange::new(start, start + DAY), None)
        .unwrap();
    let mut count = 0;
    for of_day in &snapshot.days {
        for meta in of_day.chunks.iter() {
            let read = of_day
                .partition
                .read(meta.number, |bytes| ChunkReader::new(bytes)?.lines());
            if let Read::Whole(block) = read.unwrap() {
                count += block.len();
            }
        }
    }
    let heads = snapshot.heads.iter().flat_map(|head| &head.blocks);
    count + heads.map(|block| block.len()).sum::<usize>()
}

/// Two days of 200 lines each in two chunks.
async fn written(dir: &Path) {
    let mut options = options(dir);
    options.clock = crate::runtime::clock::Clock::fixed(FIRST + 2 * DAY);
    let store = Store::open(options).unwrap();
    wait_recovered(&store);
    for from in [0, 100] {
        for day in [0, 1] {
            push(&store, batch("a", &lines(day, from, 100))).await;
        }
        store.flush().await.unwrap();
    }
    store.stop().unwrap();
}

fn found(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    directory(dir, &decoder(), &mut |f| found.push(f.to_string())).unwrap();
    found
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("db")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

/// Damages a file, and holds that all but one day is served, that the day takes more, also over
/// restarts, and that repairing makes the directory whole without taking what is served.
async fn damage(base: &Path, file: &Path, damage: impl Fn(&mut Vec<u8>)) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(base, dir.path());
    let path = dir.path().join(file.strip_prefix(base).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();

    let named = found(dir.path());
    let mut left = (0, 0);
    for round in 0..3 {
        let store = Store::open(options(dir.path())).unwrap();
        wait_recovered(&store);
        let more = round as usize * 10;
        let now = (shown(&store, 0) - more, shown(&store, 1) - more);
        if round == 0 {
            left = now;
            assert!(left.0 == 200 || left.1 == 200, "{left:?} {named:?}");
            if left != (200, 200) {
                assert!(!named.is_empty(), "{} not found", file.display());
                assert!(store.degraded().iter().any(|d| d.starts_with("damaged:")));
            }
        } else {
            assert_eq!(now, left, "{} round {round}", file.display());
        }
        for day in [0, 1] {
            push(&store, batch("b", &lines(day, 1_000 + 10 * round, 10))).await;
        }
        let both = (shown(&store, 0), shown(&store, 1));
        assert_eq!(both, (left.0 + more + 10, left.1 + more + 10), "{round}");
        store.stop().unwrap();
    }
    let mut said = Vec::new();
    let done = repair::directory(dir.path(), &decoder(), &mut |s| said.push(s.to_owned()));
    let done = done.unwrap();
    assert!(done.left.is_empty(), "{:?} {said:?}", done.left);
    // Of `meta` there is a copy.
    let costs = named.iter().any(|what| !what.starts_with("meta "));
    assert_eq!(done.lost.is_empty(), !costs, "{said:?} {named:?}");
    assert_eq!(found(dir.path()), Vec::<String>::new(), "{said:?}");
    let store = Store::open(options(dir.path())).unwrap();
    wait_recovered(&store);
    let after = (shown(&store, 0), shown(&store, 1));
    // Of a table that can't be opened nothing can be copied, nor of those beside it.
    let opened = !said.iter().any(|s| s.contains("; 0 rows are left"));
    if opened {
        assert!(
            after.0 >= left.0 && after.1 >= left.1,
            "{after:?} {left:?} {said:?}"
        );
    }
    assert_eq!(store.degraded(), Vec::<String>::new());
    store.stop().unwrap();
    left
}

#[tokio::test]
async fn a_damaged_table_costs_rows_of_its_day_and_no_start() {
    let base = tempfile::tempdir().unwrap();
    written(base.path()).await;
    assert_eq!(found(base.path()), Vec::<String>::new());
    let tables = files(base.path(), "sst");
    assert!(tables.len() >= 3, "{tables:?}");
    let mut costly = 0;
    for table in &tables {
        for share in [0.02, 0.3, 0.6, 0.99] {
            let left = damage(base.path(), table, |bytes| {
                let at = (bytes.len() as f64 * share) as usize;
                bytes[at] ^= 0x40;
            })
            .await;
            costly += usize::from(left != (200, 200));
        }
    }
    assert!(costly >= 4, "{costly}: the flips hit nothing");
}

#[tokio::test]
async fn a_damaged_blob_costs_its_chunk() {
    let base = tempfile::tempdir().unwrap();
    written(base.path()).await;
    let blobs = files(base.path(), "blob");
    assert!(blobs.len() >= 2, "{blobs:?}");
    for blob in &blobs {
        // In the first value, and in the last.
        for at_end in [false, true] {
            let left = damage(base.path(), blob, |bytes| {
                let at = if at_end { bytes.len() - 500 } else { 200 };
                bytes[at] ^= 1;
            })
            .await;
            assert_eq!(left.0 + left.1, 300, "{left:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_table_costs_its_day_and_no_start() {
    let base = tempfile::tempdir().unwrap();
    written(base.path()).await;
    for table in files(base.path(), "sst") {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(base.path(), dir.path());
        std::fs::remove_file(dir.path().join(table.strip_prefix(base.path()).unwrap())).unwrap();
        let store = Store::open(options(dir.path())).unwrap();
        wait_recovered(&store);
        let left = (shown(&store, 0), shown(&store, 1));
        assert!(left.0 == 200 || left.1 == 200, "{left:?}");
        push(&store, batch("b", &lines(0, 500, 5))).await;
        assert_eq!(shown(&store, 0), left.0 + 5);
        store.stop().unwrap();
    }
}

#[tokio::test]
async fn zeros_that_a_kill_leaves_behind_the_journal_are_no_damage_and_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let (live, killed) = (dir.path().join("live"), dir.path().join("killed"));
    let store = Store::open(options(&live)).unwrap();
    wait_recovered(&store);
    push(&store, batch("a", &lines(0, 0, 3))).await;
    copy_dir(&live, &killed);
    store.stop().unwrap();
    let segment = |dir: &Path| {
        let mut segments = list_segments(&Layout::new(dir).journal_dir()).unwrap();
        segments.pop().unwrap()
    };
    let (stopped, left) = (segment(&live), segment(&killed));
    assert!(stopped.bytes < left.bytes, "cut off by a stop alone");
    let repaired = || {
        let done = repair::directory(&killed, &decoder(), &mut |_| {}).unwrap();
        (done.left.len(), done.lost.len())
    };
    assert_eq!(found(&live), Vec::<String>::new());
    assert_eq!(found(&killed), Vec::<String>::new());
    assert_eq!(repaired(), (0, 0));
    assert_eq!(segment(&killed).bytes, left.bytes, "nothing to be done");

    let mut bytes = std::fs::read(&left.path).unwrap();
    bytes[left.bytes as usize - 100] = 1;
    std::fs::write(&left.path, &bytes).unwrap();
    assert_eq!(found(&killed).len(), 1);
    assert_eq!(repaired(), (0, 1));
    assert_eq!(segment(&killed).bytes, stopped.bytes);
    let store = Store::open(options(&killed)).unwrap();
    wait_recovered(&store);
    assert_eq!(shown(&store, 0), 3);
    store.stop().unwrap();
}
