//! Followed files, as loggers and logrotate treat them: each line once and in order.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::appliance::{Appliance, Setup};

/// Follows `logs/*.log`.
fn setup() -> (Appliance, PathBuf) {
    let mut appliance = Setup::default().prepare();
    let logs = appliance.dir().join("logs");
    std::fs::create_dir(&logs).expect("a directory");
    let glob = logs.join("*.log");
    appliance.change(|setup| {
        let table = format!("[[files]]\npaths = [{glob:?}]\nlabels = {{ job = \"files\" }}\n");
        setup.table(&table)
    });
    (appliance, logs)
}

/// A program that logs: numbered lines, to whatever file it has open.
struct Logger {
    path: PathBuf,
    file: File,
    next: usize,
}

impl Logger {
    fn new(path: PathBuf) -> Self {
        let file = open(&path);
        Self {
            path,
            file,
            next: 0,
        }
    }

    fn log(&mut self, lines: usize) {
        for _ in 0..lines {
            // In two writes, as buffers break them.
            let line = format!("line {} of {}\n", self.next, self.name());
            let (a, b) = line.split_at(self.next % line.len());
            self.file.write_all(a.as_bytes()).expect("written");
            self.file.write_all(b.as_bytes()).expect("written");
            self.next += 1;
        }
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    }

    fn reopen(&mut self) {
        self.file = open(&self.path);
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a log file")
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Every line of the file once, in order, with its name as a label.
#[track_caller]
fn arrives(appliance: &Appliance, logger: &Logger) {
    let query = format!("{{job=\"files\",filename={:?}}}", logger.path);
    let lines = || -> Vec<String> {
        appliance
            .lines(&query)
            .into_iter()
            .map(|(_, line)| line)
            .collect()
    };
    let wanted: Vec<String> = (0..logger.next)
        .map(|n| format!("line {n} of {}", logger.name()))
        .collect();
    let begun = std::time::Instant::now();
    while lines().len() < wanted.len() && begun.elapsed() < Duration::from_secs(10) {
        pause(50);
    }
    let found = lines();
    if found != wanted {
        let at = found.iter().zip(&wanted).position(|(a, b)| a != b);
        let at = at.unwrap_or(found.len().min(wanted.len()));
        let near = |lines: &[String]| {
            lines[at.saturating_sub(2).min(lines.len())..(at + 3).min(lines.len())].to_vec()
        };
        panic!(
            "{}: {} lines instead of {}; at {at}: {:?} instead of {:?}",
            logger.name(),
            found.len(),
            wanted.len(),
            near(&found),
            near(&wanted)
        );
    }
}

#[test]
fn each_line_comes_once_and_in_order_however_files_are_rotated() {
    let (mut appliance, logs) = setup();
    let mut early = Logger::new(logs.join("early.log"));
    early.log(1000);
    appliance.start();

    std::thread::scope(|scope| {
        let rename = scope.spawn(|| {
            let mut logger = Logger::new(logs.join("renamed.log"));
            for round in 0..3 {
                logger.log(200);
                // A name that is there for less than a second may never be seen.
                pause(1100);
                logger.log(50);
                let old = logs.join(format!("renamed.log.{round}"));
                std::fs::rename(&logger.path, old).expect("renamed");
                // Until it is told to, a program writes on to what it has open.
                logger.log(50);
                pause(300);
                logger.log(20);
                logger.reopen();
            }
            logger.log(10);
            logger
        });
        let truncate = scope.spawn(|| {
            let mut logger = Logger::new(logs.join("truncated.log"));
            for round in 0..3 {
                logger.log(200);
                pause(1100);
                // What is written between the two is lost to anyone; nothing is, here.
                let copy = logs.join(format!("truncated.log.{round}"));
                std::fs::copy(&logger.path, copy).expect("copied");
                logger.file.set_len(0).expect("truncated");
            }
            logger.log(10);
            logger
        });
        let recreate = scope.spawn(|| {
            let mut logger = Logger::new(logs.join("recreated.log"));
            for _ in 0..3 {
                logger.log(200);
                pause(1100);
                std::fs::remove_file(&logger.path).expect("removed");
                // Still open, so still readable.
                logger.log(30);
                pause(300);
                logger.reopen();
            }
            logger.log(10);
            logger
        });
        let created = scope.spawn(|| {
            pause(700);
            let mut logger = Logger::new(logs.join("later.log"));
            logger.log(5);
            logger
        });
        for logger in [rename, truncate, recreate, created] {
            let logger = logger.join().expect("a logger");
            arrives(&appliance, &logger);
        }
    });
    arrives(&appliance, &early);
    assert_eq!(appliance.metric("files_refused_lines", &[]), 0.0);
    // And again from chunks, after a restart.
    appliance.flush();
    assert!(appliance.stop().success());
    appliance.start();
    appliance.wait_recovered();
    arrives(&appliance, &early);
}

#[test]
fn a_new_file_is_seen_within_a_second() {
    let (mut appliance, logs) = setup();
    appliance.start();
    pause(300);
    let mut logger = Logger::new(logs.join("new.log"));
    logger.log(1);
    let begun = std::time::Instant::now();
    appliance.wait("the line", || {
        (!appliance.lines("{job=\"files\"}").is_empty()).then_some(())
    });
    // Half a second of grace for a busy machine.
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn positions_survive_stops_and_kills_and_what_happens_meanwhile() {
    let (mut appliance, logs) = setup();
    let mut steady = Logger::new(logs.join("steady.log"));
    let mut rotated = Logger::new(logs.join("rotated.log"));
    for round in 0..6 {
        appliance.start();
        for _ in 0..10 {
            steady.log(20);
            rotated.log(20);
            pause(20);
        }
        // At a random moment of the reading; every other time with a flush before.
        if round % 3 == 2 {
            appliance.flush();
        }
        if round % 2 == 0 {
            appliance.kill();
        } else {
            assert!(appliance.stop().success());
        }
        steady.log(50);
        rotated.log(50);
        // Below the same glob, so that it is found after the start.
        let old = logs.join(format!("rotated.{round}.old.log"));
        std::fs::rename(&rotated.path, old).expect("renamed");
        rotated.reopen();
        rotated.log(50);
    }
    appliance.expect_log("cut a torn record");
    appliance.start();
    arrives(&appliance, &steady);
    // What was rotated while nobody looked may come under the name it had when it was
    // found; its lines are each there once all the same.
    let wanted: std::collections::BTreeSet<String> = (0..rotated.next)
        .map(|n| format!("line {n} of rotated.log"))
        .collect();
    let found = || -> Vec<String> {
        let lines = appliance.lines("{job=\"files\",filename!~\".*steady.log\"}");
        lines.into_iter().map(|(_, line)| line).collect()
    };
    let begun = std::time::Instant::now();
    while found().len() < wanted.len() && begun.elapsed() < Duration::from_secs(10) {
        pause(50);
    }
    let found = found();
    assert_eq!(found.len(), wanted.len());
    assert_eq!(
        found.into_iter().collect::<std::collections::BTreeSet<_>>(),
        wanted
    );
}
