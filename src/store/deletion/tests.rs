//! Random pushes, deletions, flushes and crashes against a list of what must be there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::model::time::{DAY, SECOND};
use crate::model::{MatchOp, TimeRange};
use crate::store::chunk::{ChunkReader, LineBlock};
use crate::store::tests::{abandon, batch, copy_dir, options, push, wait_recovered};
use crate::store::{Options, Store};

/// Lines that hold a word; all for "".
struct Holds(String);

impl SelectLines for Holds {
    fn bind<'a>(&'a self, _: &'a Labels) -> LineTest<'a> {
        Box::new(|_, line, _| memchr::memmem::find(line, self.0.as_bytes()).is_some())
    }
}

/// A language of its own: `app word`.
fn read_selection(text: &str) -> Result<Selection, String> {
    let (app, word) = text.split_once(' ').ok_or("no blank")?;
    Ok(Selection {
        matchers: vec![Matcher {
            name: "app".into(),
            op: MatchOp::Equal,
            value: app.into(),
            regex: None,
        }],
        lines: (!word.is_empty()).then(|| Box::new(Holds(word.into())) as Box<dyn SelectLines>),
        need: if word.is_empty() {
            Need::Anything
        } else {
            Need::Literal(word.into())
        },
    })
}

fn deleting(path: &Path, cancel_period: Duration) -> Options {
    Options {
        deletion: DeletionOptions {
            read: Arc::new(read_selection),
            cancel_period,
            erase: true,
        },
        ..options(path)
    }
}

type Lines = BTreeMap<String, Vec<(i64, String)>>;

/// What a reader sees who applies the requests.
fn visible(store: &Store) -> Lines {
    let snapshot = store.logs(TimeRange::all(), None).unwrap();
    let mut all = Lines::new();
    let mut add = |labels: &Labels, block: &LineBlock, deletions: &[Arc<Deletion>]| {
        let mut is_deleted = any_of(deletions, labels);
        let lines = all
            .entry(labels.get("app").unwrap_or("").to_owned())
            .or_default();
        for i in 0..block.len() {
            let (at, line) = (block.at[i], block.line(i));
            if !is_deleted(at, line, block.metadata_of(i)) {
                lines.push((at, String::from_utf8_lossy(line).into_owned()));
            }
        }
    };
    for day in &snapshot.days {
        for meta in day.chunks.iter() {
            let stream = store.0.shared.streams.get(meta.stream).unwrap();
            let deletions = match snapshot.left(&stream, meta) {
                Left::All => Vec::new(),
                Left::Lines(deletions) => deletions,
                Left::Nothing => continue,
            };
            let read = day.partition.data(meta.number, |bytes| {
                ChunkReader::new(bytes).unwrap().lines().unwrap()
            });
            // Removed since the snapshot was taken: then its lines are deleted.
            if let Ok(block) = read {
                add(&stream.labels, &block, &deletions);
            }
        }
    }
    for head in &snapshot.heads {
        for block in &head.blocks {
            add(&head.stream.labels, block, &head.deletions);
        }
    }
    all.retain(|_, lines| !lines.is_empty());
    all.values_mut().for_each(|lines| lines.sort());
    all
}

fn wait_processed(store: &Store) {
    for _ in 0..3000 {
        let all = store.delete_requests("");
        let done = |r: &DeleteRequest| matches!(r.state, DeleteState::Processed { .. });
        if all.iter().all(done) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never processed: {:?}", store.delete_requests(""));
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut generation = 0;
    let path = |generation: i32| dir.path().join(generation.to_string());
    let hour = Duration::from_secs(3600);
    let first = deleting(&path(0), hour);
    let clock = first.clock.clone();
    let mut store = Store::open(first).unwrap();
    wait_recovered(&store);
    let mut expected = Lines::new();
    let mut number = 0;
    for step in 0..40 {
        let app = ["a", "b"][random.random_range(0..2)];
        let day = 20_000 * DAY + random.random_range(0..2) * DAY;
        match random.random_range(0..10) {
            0..=3 => {
                let count = random.random_range(1..80);
                let lines: Vec<(i64, String)> = (0..count)
                    .map(|_| {
                        number += 1;
                        let at = day + random.random_range(0..1000) * SECOND / 10;
                        let word = ["red", "green", "blue"][random.random_range(0..3)];
                        (at, format!("{word} {number} {}", "x".repeat(number % 90)))
                    })
                    .collect();
                push(&store, batch(app, &lines)).await;
                let all = expected.entry(app.to_owned()).or_default();
                all.extend(lines);
                all.sort();
            }
            4..=6 => {
                let word = ["", "red", "green"][random.random_range(0..3)];
                let start = day + random.random_range(-50..100) * SECOND;
                let end = start + random.random_range(0..150) * SECOND;
                let query = format!("{app} {word}");
                store.delete("", &query, start, end).unwrap();
                if let Some(all) = expected.get_mut(app) {
                    let deleted =
                        |at: i64, line: &str| (start..=end).contains(&at) && line.contains(word);
                    all.retain(|(at, line)| !deleted(*at, line));
                }
                expected.retain(|_, lines| !lines.is_empty());
            }
            7 => store.flush().await.unwrap(),
            8 => {
                clock.set(clock.now() + 3600 * SECOND);
                wait_processed(&store);
            }
            _ => {
                // As kill -9 would leave it. The eraser is idle: a copy file by file of a
                // database at work fits nothing (tests/it/delete.rs kills it at work).
                generation += 1;
                copy_dir(&path(generation - 1), &path(generation));
                abandon(store);
                let next = Options {
                    clock: clock.clone(),
                    ..deleting(&path(generation), hour)
                };
                store = Store::open(next).unwrap();
                wait_recovered(&store);
            }
        }
        assert_eq!(visible(&store), expected, "seed {seed}, step {step}");
    }
    clock.set(clock.now() + 3600 * SECOND);
    wait_processed(&store);
    assert_eq!(visible(&store), expected, "seed {seed}, at the end");
    store.stop().unwrap();
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_the_right_lines_are_there() {
    let fixed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seeds = match fixed {
        Some(seed) => seed..=seed,
        None if std::env::var_os("SLOW").is_some() => 1..=60,
        None => 1..=6,
    };
    for seed in seeds {
        run(seed).await;
    }
}

#[tokio::test]
async fn requests_wait_out_their_cancel_period_and_processed_ones_are_listed_for_a_month() {
    let dir = tempfile::tempdir().unwrap();
    let options = deleting(dir.path(), Duration::from_secs(3600));
    let clock = options.clock.clone();
    let store = Store::open(options).unwrap();
    wait_recovered(&store);
    let at = 20_000 * DAY;
    push(&store, batch("a", &[(at, "red".into())])).await;
    store.delete("", "a ", at, at).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let all = store.delete_requests("");
    assert_eq!(all[0].state, DeleteState::NEW, "{all:?}");
    assert!(matches!(
        store.cancel_delete("other", &all[0].id, true),
        Err(DeleteError::NotFound)
    ));
    assert!(store.delete("", "unreadable", at, at).is_err());
    clock.set(clock.now() + 3600 * SECOND);
    wait_processed(&store);
    assert_eq!(store.delete_requests("")[0].erased, 1);
    assert!(matches!(
        store.cancel_delete("", &all[0].id, true),
        Err(DeleteError::Processed)
    ));
    clock.set(clock.now() + 31 * DAY);
    log::tidy(&store.0.shared).unwrap();
    assert!(store.delete_requests("").is_empty());
    store.stop().unwrap();
}
