//! Real files, a real thread, a sink in memory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::position::{decode_all, encode_all};
use super::*;
use crate::ingest::refusal::RefusalKind;
use crate::model::{LogBatch, Timestamp};

/// Lines by `filename`, each with its timestamp.
type Lines = BTreeMap<String, Vec<(Timestamp, String)>>;

#[derive(Default)]
struct Memory {
    lines: Mutex<Lines>,
    /// Encoded, as a store would keep them.
    positions: Mutex<Vec<u8>>,
    refuse: Mutex<Option<RefusalKind>>,
    offers: AtomicUsize,
    hang: AtomicBool,
}

impl FileSink for Memory {
    async fn append_lines(
        &self,
        batch: LogBatch,
        positions: Vec<FilePosition>,
    ) -> Result<(), Refusal> {
        self.offers.fetch_add(1, Ordering::SeqCst);
        while self.hang.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(kind) = *self.refuse.lock()
            && (batch.entry_count() > 0 || kind != RefusalKind::Invalid)
        {
            return Err(Refusal {
                kind,
                reason: "test",
                message: "refused by the test".into(),
            });
        }
        assert!(
            batch.text.len() <= 2 * batch::BATCH_BYTES,
            "batches are bounded"
        );
        let mut lines = self.lines.lock();
        for stream in &batch.streams {
            let name = stream
                .labels
                .get("filename")
                .expect("a filename")
                .to_owned();
            let kept = lines.entry(name).or_default();
            for entry in &stream.entries {
                let line = String::from_utf8_lossy(batch.line(entry)).into_owned();
                kept.push((entry.at, line));
            }
        }
        let mut known = Positions::default();
        known.extend(decode_all(&self.positions.lock()).expect("positions decode"));
        known.extend(positions);
        *self.positions.lock() = encode_all(known.iter());
        Ok(())
    }

    fn positions(&self) -> Vec<FilePosition> {
        decode_all(&self.positions.lock()).expect("positions decode")
    }
}

/// A directory, a sink and the thread between them.
struct Bench {
    dir: tempfile::TempDir,
    sink: Arc<Memory>,
    runtime: tokio::runtime::Runtime,
    options: FollowOptions,
    tables: Vec<FilesOptions>,
    metrics: FilesMetrics,
    follower: Option<Follower>,
}

impl Bench {
    fn new(pattern: &str) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let paths = vec![dir.path().join(pattern).to_string_lossy().into_owned()];
        Self {
            sink: Arc::default(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("runtime"),
            options: FollowOptions {
                look_every: Duration::from_millis(100),
                gather: Duration::from_millis(5),
                linger: Duration::from_secs(30),
                ..FollowOptions::default()
            },
            tables: vec![FilesOptions {
                paths,
                ..FilesOptions::default()
            }],
            metrics: FilesMetrics::new(&Metrics::default()),
            follower: None,
            dir,
        }
    }

    fn start(&mut self) {
        let follower = Follower::start(
            &self.tables,
            self.options.clone(),
            self.sink.clone(),
            Clock::system(),
            self.metrics.clone(),
            self.runtime.handle().clone(),
        );
        self.follower = Some(follower.expect("follower starts"));
    }

    fn stop(&mut self) {
        self.follower.take().expect("was started").stop();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        append(&self.path(name), text);
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let name = self.path(name).to_string_lossy().into_owned();
        let lines = self.sink.lines.lock();
        lines
            .get(&name)
            .into_iter()
            .flatten()
            .map(|(_, line)| line.clone())
            .collect()
    }

    /// Waits until the lines of `name` are `expected`, then a little for surplus ones.
    #[track_caller]
    fn expect(&self, name: &str, expected: &[&str]) {
        self.wait(&format!("{name}: {expected:?}"), || {
            self.lines(name).len() >= expected.len()
        });
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(self.lines(name), expected, "lines of {name}");
        self.expect_order();
    }

    /// F5 for every stream.
    #[track_caller]
    fn expect_order(&self) {
        for (name, lines) in self.sink.lines.lock().iter() {
            assert!(
                lines.is_sorted_by(|a, b| a.0 < b.0),
                "timestamps of {name} increase"
            );
        }
    }

    #[track_caller]
    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !done() {
            let now = || {
                let lines = self.sink.lines.lock();
                lines
                    .iter()
                    .map(|(name, l)| (name.clone(), l.len()))
                    .collect::<Vec<_>>()
            };
            assert!(
                Instant::now() < until,
                "waited in vain for {what}; there are {:?}",
                now()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("open");
    file.write_all(text.as_bytes()).expect("write");
}

#[test]
fn lines_of_existing_and_new_files_arrive_once_and_in_order() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "1\n\n2\r\n");
    bench.start();
    bench.expect("a.log", &["1", "", "2\r"]);
    bench.append("b.log", "x\n");
    bench.append("a.log", "3\n");
    bench.append("c.txt", "not matched\n");
    bench.expect("a.log", &["1", "", "2\r", "3"]);
    bench.expect("b.log", &["x"]);
    assert_eq!(bench.sink.lines.lock().len(), 2);
}

#[test]
fn a_new_file_is_seen_within_a_second_with_the_usual_settings() {
    let mut bench = Bench::new("**/*.log");
    bench.options = FollowOptions::default();
    bench.start();
    std::thread::sleep(Duration::from_millis(300));
    fs::create_dir(bench.path("deep")).expect("mkdir");
    bench.append("deep/a.log", "1\n");
    let began = Instant::now();
    bench.wait("the line", || !bench.lines("deep/a.log").is_empty());
    // A sweep each second, and as much again for a machine that is busy.
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "took {:?}",
        began.elapsed()
    );
}

#[test]
fn a_last_line_waits_for_its_newline() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "1\nhal");
    bench.start();
    bench.expect("a.log", &["1"]);
    bench.append("a.log", "f");
    bench.expect("a.log", &["1"]);
    bench.append("a.log", " done\n2\n");
    bench.expect("a.log", &["1", "half done", "2"]);
}

#[test]
fn rename_and_create_loses_nothing_and_late_writes_to_the_old_file_count() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "1\n");
    bench.start();
    bench.expect("a.log", &["1"]);
    let mut old = OpenOptions::new()
        .append(true)
        .open(bench.path("a.log"))
        .expect("open");
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).expect("rename");
    old.write_all(b"2\n").expect("write");
    bench.expect("a.log", &["1", "2"]);
    bench.append("a.log", "3\n");
    bench.expect("a.log", &["1", "2", "3"]);
    old.write_all(b"late\n").expect("write");
    bench.expect("a.log", &["1", "2", "3", "late"]);
}

#[test]
fn a_renamed_file_that_still_matches_is_not_read_again() {
    let mut bench = Bench::new("a.log*");
    bench.append("a.log", "1\n2\n");
    bench.start();
    bench.expect("a.log", &["1", "2"]);
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).expect("rename");
    bench.append("a.log", "3\n");
    bench.expect("a.log", &["1", "2", "3"]);
    fs::rename(bench.path("a.log.1"), bench.path("a.log.2")).expect("rename");
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).expect("rename");
    bench.append("a.log", "4\n");
    bench.expect("a.log", &["1", "2", "3", "4"]);
    assert_eq!(
        bench.sink.lines.lock().len(),
        1,
        "no lines under a rotated name"
    );
    // The same after a restart, which knows the files by their positions only.
    bench.stop();
    fs::rename(bench.path("a.log"), bench.path("a.log.3")).expect("rename");
    append(&bench.path("a.log.3"), "5\n");
    bench.append("a.log", "6\n");
    bench.start();
    bench.expect("a.log", &["1", "2", "3", "4", "5", "6"]);
    assert_eq!(bench.sink.lines.lock().len(), 1);
}

#[test]
fn copytruncate_is_noticed_when_the_file_is_shorter_and_when_it_has_grown_past() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "first 1\nfirst 2\n");
    bench.start();
    bench.expect("a.log", &["first 1", "first 2"]);
    let file = OpenOptions::new()
        .append(true)
        .open(bench.path("a.log"))
        .expect("open");
    file.set_len(0).expect("truncate");
    bench.append("a.log", "x\n");
    bench.expect("a.log", &["first 1", "first 2", "x"]);
    // Truncated and grown past the old offset before anybody looks: one write.
    bench.stop();
    let longer = "other 1\nother 2\nother 3\nother 4\n";
    fs::write(bench.path("a.log"), longer).expect("rewrite");
    bench.start();
    let all = [
        "first 1", "first 2", "x", "other 1", "other 2", "other 3", "other 4",
    ];
    bench.expect("a.log", &all);
    assert!(bench.metrics.truncations.get() >= 1);
}

#[test]
fn a_file_truncated_and_grown_past_while_followed_is_read_from_its_beginning() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "first\n");
    bench.start();
    bench.expect("a.log", &["first"]);
    // The thread is held up in the sink, so it can't look in between.
    bench.sink.hang.store(true, Ordering::SeqCst);
    bench.append("a.log", "second\n");
    let offers = bench.sink.offers.load(Ordering::SeqCst);
    bench.wait("an offer", || {
        bench.sink.offers.load(Ordering::SeqCst) > offers
    });
    fs::write(bench.path("a.log"), "new first line\nnew second line\n").expect("rewrite");
    bench.sink.hang.store(false, Ordering::SeqCst);
    bench.expect(
        "a.log",
        &["first", "second", "new first line", "new second line"],
    );
    assert_eq!(bench.metrics.truncations.get(), 1);
}

#[test]
fn the_copy_of_copytruncate_is_not_read_again_but_gives_what_was_missed() {
    let mut bench = Bench::new("a.log*");
    bench.append("a.log", "this is line number 1\nthis is line number 2\n");
    bench.start();
    bench.expect("a.log", &["this is line number 1", "this is line number 2"]);
    bench.stop();
    bench.append("a.log", "this is line number 3\n");
    fs::copy(bench.path("a.log"), bench.path("a.log.1")).expect("copy");
    let file = OpenOptions::new()
        .append(true)
        .open(bench.path("a.log"))
        .expect("open");
    file.set_len(0).expect("truncate");
    bench.append("a.log", "this is line number 4\n");
    bench.start();
    bench.wait("four lines", || bench.lines("a.log").len() >= 4);
    // While running: the copy is there before the truncation.
    fs::copy(bench.path("a.log"), bench.path("a.log.0")).expect("copy");
    std::thread::sleep(Duration::from_millis(300));
    file.set_len(0).expect("truncate");
    bench.append("a.log", "this is line number 5\n");
    bench.wait("five lines", || bench.lines("a.log").len() >= 5);
    std::thread::sleep(Duration::from_millis(400));
    let mut lines = bench.lines("a.log");
    lines.sort();
    let expected: Vec<String> = (1..=5)
        .map(|n| format!("this is line number {n}"))
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(
        bench.sink.lines.lock().len(),
        1,
        "nothing under the copies' names"
    );
}

#[test]
fn a_file_with_the_same_beginning_is_another_file() {
    let mut bench = Bench::new("*.log");
    let text = "the same banner in both\nand the same line\n";
    bench.append("a.log", text);
    bench.append("b.log", text);
    bench.start();
    for name in ["a.log", "b.log"] {
        bench.expect(name, &["the same banner in both", "and the same line"]);
    }
}

#[test]
fn a_deleted_file_made_anew_is_read_from_its_beginning() {
    let mut bench = Bench::new("*.log");
    bench.options.linger = Duration::ZERO;
    bench.append("a.log", "1\n");
    bench.start();
    bench.expect("a.log", &["1"]);
    fs::remove_file(bench.path("a.log")).expect("remove");
    bench.wait("the handle to close", || bench.metrics.followed.get() == 0);
    bench.append("a.log", "2\n3\n");
    bench.expect("a.log", &["1", "2", "3"]);
}

#[test]
fn a_restart_goes_on_behind_the_last_acknowledged_line() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "1\n2\nhal");
    bench.start();
    bench.expect("a.log", &["1", "2"]);
    bench.stop();
    bench.append("a.log", "f\n3\n");
    bench.start();
    bench.expect("a.log", &["1", "2", "half", "3"]);
}

#[test]
fn lines_not_acknowledged_at_a_stop_come_again() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "1\n");
    *bench.sink.refuse.lock() = Some(RefusalKind::Unavailable);
    bench.start();
    bench.wait("an offer", || bench.sink.offers.load(Ordering::SeqCst) > 0);
    bench.stop();
    *bench.sink.refuse.lock() = None;
    bench.start();
    bench.expect("a.log", &["1"]);
}

#[test]
fn a_file_renamed_out_of_sight_while_we_were_down_is_read_to_its_end_first() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "1\n");
    bench.start();
    bench.expect("a.log", &["1"]);
    bench.stop();
    bench.append("a.log", "2\n");
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).expect("rename");
    bench.append("a.log", "3\n");
    bench.start();
    bench.expect("a.log", &["1", "2", "3"]);
}

#[test]
fn a_busy_store_holds_reading_up_and_loses_nothing_over_rotations() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "1\n");
    *bench.sink.refuse.lock() = Some(RefusalKind::Limited);
    bench.start();
    bench.wait("an offer", || bench.sink.offers.load(Ordering::SeqCst) > 0);
    for n in 2..6 {
        fs::rename(bench.path("a.log"), bench.path(&format!("old.{n}"))).expect("rename");
        bench.append("a.log", &format!("{n}\n"));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(bench.lines("a.log").is_empty());
    *bench.sink.refuse.lock() = None;
    bench.expect("a.log", &["1", "2", "3", "4", "5"]);
    assert!(bench.metrics.retries.get() > 0);
}

#[test]
fn refused_lines_are_counted_and_do_not_come_again() {
    let mut bench = Bench::new("a.log");
    *bench.sink.refuse.lock() = Some(RefusalKind::Invalid);
    bench.append("a.log", "bad\n");
    bench.start();
    bench.wait("the refusal", || bench.metrics.refused.get() == 1);
    bench.wait("the position", || !bench.sink.positions().is_empty());
    *bench.sink.refuse.lock() = None;
    bench.append("a.log", "good\n");
    bench.expect("a.log", &["good"]);
    bench.stop();
    bench.start();
    bench.expect("a.log", &["good"]);
}

#[test]
fn lines_too_long_are_skipped_and_counted_and_the_next_line_is_whole() {
    for max_line_size in [1000, 256 << 10] {
        let mut bench = Bench::new("a.log");
        bench.options.max_line_size = max_line_size;
        let exact = "e".repeat(max_line_size);
        let over = "o".repeat(max_line_size + 1);
        let huge = "h".repeat(3 << 20);
        bench.append(
            "a.log",
            &format!("1\n{over}\n2\n{huge}\n{exact}\n3\n{over}"),
        );
        bench.start();
        bench.expect("a.log", &["1", "2", &exact, "3"]);
        bench.append("a.log", "\n4\n");
        bench.expect("a.log", &["1", "2", &exact, "3", "4"]);
        assert_eq!(bench.metrics.skipped_long.get(), 3);
    }
}

#[test]
fn a_thousand_files_arrive_complete() {
    let mut bench = Bench::new("**/*.log");
    for n in 0..1000 {
        let dir = bench.path(&format!("d{}", n % 10));
        fs::create_dir_all(&dir).expect("mkdir");
        append(&dir.join(format!("{n}.log")), &format!("{n} a\n{n} b\n"));
    }
    bench.start();
    let count = || {
        bench
            .sink
            .lines
            .lock()
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    bench.wait("2000 lines", || count() >= 2000);
    for n in 0..1000 {
        append(
            &bench.path(&format!("d{}/{n}.log", n % 10)),
            &format!("{n} c\n"),
        );
    }
    bench.wait("3000 lines", || count() >= 3000);
    for n in 0..1000 {
        let expected = ["a", "b", "c"].map(|l| format!("{n} {l}"));
        assert_eq!(bench.lines(&format!("d{}/{n}.log", n % 10)), expected);
    }
    bench.expect_order();
    assert_eq!(bench.metrics.followed.get(), 1000);
}

#[test]
fn a_large_backlog_arrives_complete_while_the_file_grows_and_rotates() {
    let mut bench = Bench::new("a.log");
    let line = |n: usize| format!("line {n} {}\n", "x".repeat(n % 300));
    let mut file = File::create(bench.path("a.log")).expect("create");
    for n in 0..20_000 {
        file.write_all(line(n).as_bytes()).expect("write");
    }
    bench.start();
    for n in 20_000..40_000 {
        if n % 5_000 == 0 {
            std::thread::sleep(Duration::from_millis(250));
            fs::rename(bench.path("a.log"), bench.path(&format!("a.{n}"))).expect("rename");
            file = File::create(bench.path("a.log")).expect("create");
        }
        file.write_all(line(n).as_bytes()).expect("write");
    }
    bench.wait("all lines", || bench.lines("a.log").len() >= 40_000);
    let lines = bench.lines("a.log");
    assert_eq!(lines.len(), 40_000);
    let wrong = (0..40_000).find(|n| lines[*n] != line(*n).trim_end_matches('\n'));
    assert_eq!(wrong, None, "first line out of place");
    bench.expect_order();
}

/// Numbered lines, written in pieces, while names shift at random and we restart at random.
#[test]
fn random_rotations_and_restarts_repeat_and_lose_nothing() {
    let seed = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut bench = Bench::new("a.log*");
    bench.start();
    let mut file = File::create(bench.path("a.log")).expect("create");
    let mut written = 0;
    let mut rotated_at = vec![0; 3];
    for _ in 0..400 {
        for _ in 0..random(50) {
            let line = format!("{written} {}\n", "y".repeat(random(400) as usize));
            let (begin, end) = line.split_at(random(line.len() as u64) as usize);
            file.write_all(begin.as_bytes()).expect("write");
            file.write_all(end.as_bytes()).expect("write");
            written += 1;
        }
        match random(20) {
            0 | 1 => {
                // The last five files are kept, as any rotation does; what nobody looked at
                // by then is lost, so don't rotate faster than that.
                let read = || {
                    bench
                        .sink
                        .lines
                        .lock()
                        .values()
                        .map(Vec::len)
                        .sum::<usize>()
                };
                let oldest = rotated_at[rotated_at.len() - 3];
                bench.wait("reading to keep up", || read() >= oldest);
                rotated_at.push(written);
                for n in (0..5).rev() {
                    let name = |n| {
                        if n == 0 {
                            "a.log".into()
                        } else {
                            format!("a.log.{n}")
                        }
                    };
                    // All but the first rotation find some names missing.
                    let _ = fs::rename(bench.path(&name(n)), bench.path(&name(n + 1)));
                }
                // The writer goes on for a moment before it opens the new file.
                writeln!(file, "{written}").expect("write");
                written += 1;
                file = File::create(bench.path("a.log")).expect("create");
            }
            2 => {
                bench.stop();
                bench.start();
            }
            3..8 => std::thread::sleep(Duration::from_millis(random(60))),
            _ => {}
        }
    }
    let count = || {
        bench
            .sink
            .lines
            .lock()
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    bench.wait("all lines", || count() >= written);
    std::thread::sleep(Duration::from_millis(300));
    let number = |line: &str| line.split(' ').next().and_then(|n| n.parse::<usize>().ok());
    let mut all = Vec::new();
    for (name, lines) in bench.sink.lines.lock().iter() {
        let numbers: Vec<usize> = lines.iter().filter_map(|(_, line)| number(line)).collect();
        let back = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(back, None, "{name}: order within a stream");
        all.extend(numbers);
    }
    all.sort_unstable();
    let wrong = all.iter().enumerate().find(|(i, n)| i != *n);
    assert_eq!((wrong, all.len()), (None, written), "each line once");
    bench.expect_order();
}

#[test]
fn a_table_may_start_at_the_end_but_later_files_begin_at_the_beginning() {
    let mut bench = Bench::new("*.log");
    bench.tables[0].start = StartAt::End;
    bench.append("a.log", "old\nhal");
    bench.start();
    bench.wait("the position", || !bench.sink.positions().is_empty());
    bench.append("a.log", "f\nnew\n");
    bench.append("b.log", "first\n");
    bench.expect("a.log", &["half", "new"]);
    bench.expect("b.log", &["first"]);
    bench.stop();
    bench.append("a.log", "while down\n");
    bench.append("c.log", "first\n");
    bench.start();
    bench.expect("a.log", &["half", "new", "while down"]);
    bench.expect("c.log", &["first"]);
}

#[test]
fn a_link_is_followed_by_name_and_read_once() {
    let mut bench = Bench::new("*.log");
    fs::create_dir(bench.path("real")).expect("mkdir");
    bench.append("real/one", "1\n");
    bench.append("real/two", "2\n");
    std::os::unix::fs::symlink(bench.path("real/one"), bench.path("a.log")).expect("link");
    std::os::unix::fs::symlink(bench.path("real/one"), bench.path("b.log")).expect("link");
    bench.start();
    bench.expect("a.log", &["1"]);
    fs::remove_file(bench.path("a.log")).expect("remove");
    fs::remove_file(bench.path("b.log")).expect("remove");
    std::os::unix::fs::symlink(bench.path("real/two"), bench.path("a.log")).expect("link");
    bench.expect("a.log", &["1", "2"]);
    assert_eq!(bench.sink.lines.lock().len(), 1);
}

#[test]
fn two_tables_each_get_the_lines_and_changed_labels_do_not_repeat_them() {
    let mut bench = Bench::new("a.log");
    let label = |value: &str| vec![("job".to_owned(), value.to_owned())];
    bench.tables.push(bench.tables[0].clone());
    bench.tables[0].labels = label("one");
    bench.tables[1].labels = label("two");
    bench.append("a.log", "1\n");
    bench.start();
    bench.wait("both", || bench.lines("a.log").len() == 2);
    bench.stop();
    bench.tables.truncate(1);
    bench.tables[0].labels = label("three");
    bench.append("a.log", "2\n");
    bench.start();
    bench.wait("the next", || bench.lines("a.log").len() >= 3);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bench.lines("a.log"), ["1", "1", "2"]);
}

#[test]
fn what_can_not_be_read_is_counted_and_does_not_hold_others_up() {
    let mut bench = Bench::new("*.log");
    // A pipe would block a careless reader; a directory and a dangling link match as well.
    // (Permissions can't be taken from root, under whom tests may run.)
    let pipe = bench.path("pipe.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("pipe");
    fs::create_dir(bench.path("dir.log")).expect("mkdir");
    std::os::unix::fs::symlink("nowhere", bench.path("link.log")).expect("link");
    bench.append("a.log", "1\n");
    bench.append("locked.log", "2\n");
    set_mode(&bench.path("locked.log"), 0);
    let is_root = File::open(bench.path("locked.log")).is_ok();
    bench.start();
    bench.expect("a.log", &["1"]);
    if !is_root {
        assert!(bench.lines("locked.log").is_empty());
        bench.wait("the count", || bench.metrics.unreadable.get() == 1);
        set_mode(&bench.path("locked.log"), 0o600);
    }
    bench.expect("locked.log", &["2"]);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}
