//! Damaged files: a byte of a data directory is not what was written. The program starts or says
//! what is damaged, answers no line that was not sent, and serves the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::report;
use crate::appliance::{Appliance, Setup};
use crate::oracle::{self, Load, Run, Seen, Senders, seed};

/// A directory to damage: chunks and blocks on the disk, an index, an archive, and a journal.
fn prepare(seed: u64) -> (Appliance, std::sync::Arc<Run>) {
    let mut appliance = Setup::default().prepare();
    oracle::prepare(&mut appliance);
    // Whatever it says of damage: a panic is looked for below.
    appliance.expect_log("");
    appliance.set_fail_points("journal-segment-bytes=return(100000)");
    appliance.start();
    let load = Load {
        pace: 60,
        flushes: false,
    };
    let senders = Senders::start(&appliance, load, seed);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        appliance.flush();
    }
    std::thread::sleep(Duration::from_millis(500));
    let run = senders.stop();
    assert!(appliance.stop().success());
    (appliance, run)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy");
        }
    }
}

fn files(below: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if entry.metadata().is_ok_and(|m| m.len() > 0) {
            out.push(path);
        }
    }
    out.sort();
}

/// Figures of all rounds.
#[derive(Default)]
struct Tally {
    flips: usize,
    refused: usize,
    whole: usize,
    /// Something is missing, and a query, `/ready` or the log says that something is wrong.
    told: usize,
    /// Something is missing and nothing says so.
    silent: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    /// Flips bits of one byte of a file and looks.
    fn round(&mut self, appliance: &mut Appliance, run: &Run, file: &Path, random: &mut StdRng) {
        let mut bytes = std::fs::read(file).expect("a file");
        let at = random.random_range(0..bytes.len());
        let flip = random.random_range(1..=255u8);
        bytes[at] ^= flip;
        std::fs::write(file, &bytes).expect("a file");
        let name = file.strip_prefix(appliance.data_dir()).expect("below");
        let what = format!(
            "{} byte {at} of {} ^ {flip:#x}",
            name.display(),
            bytes.len()
        );
        self.flips += 1;
        let before = appliance.log_text().len();
        let started = appliance.try_start();
        let mut seen = Seen::default();
        match &started {
            Ok(()) => {
                // What is damaged may never be replayed; then it stays "replaying".
                appliance.wait_recovered();
                seen = run.see(appliance);
            }
            Err(why) if appliance.exited().is_none() => {
                self.wrong.push(format!("{what}: {why}"));
            }
            Err(_) => {
                self.refused += 1;
                let log = appliance.log_text();
                if log[before..].trim().is_empty() {
                    self.wrong
                        .push(format!("{what}: does not start and says nothing"));
                }
            }
        }
        let ready = appliance
            .try_get("loki.listen", "/ready")
            .map(|a| a.text())
            .unwrap_or_default();
        appliance.kill();
        let log = appliance.log_text();
        let log = &log[before..];
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            self.wrong.push(format!("{what}: {line}"));
        }
        for wrong in seen.wrong {
            self.wrong.push(format!("{what}: {wrong}"));
        }
        if started.is_err() {
            return;
        }
        let says = |level: &str| log.lines().any(|line| line.starts_with(level));
        let told = seen.refused > 0 || ready.contains("degraded") || says("ERROR") || says("WARN");
        match (seen.missing, told) {
            (0, false) => self.whole += 1,
            (_, true) => self.told += 1,
            (missing, false) => self.silent.push(format!("{what}: {missing} missing")),
        }
    }
}

/// Damages each file `rounds` times, `most` files at most.
fn flip(rounds: usize, most: usize, points: &str) -> Tally {
    let seed = seed();
    eprintln!("flips: SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut appliance, run) = prepare(seed);
    appliance.set_fail_points(points);
    let (data, kept) = (appliance.data_dir(), appliance.dir().join("kept"));
    std::fs::rename(&data, &kept).expect("renamed");
    let mut all = Vec::new();
    files(&kept, &mut all);
    while all.len() > most {
        all.remove(random.random_range(0..all.len()));
    }
    let mut tally = Tally::default();
    for file in all.iter().cycle().take(all.len() * rounds) {
        let _ = std::fs::remove_dir_all(&data);
        copy(&kept, &data);
        let file = data.join(file.strip_prefix(&kept).expect("below"));
        tally.round(&mut appliance, &run, &file, &mut random);
    }
    tally
}

#[track_caller]
fn conclude(tally: &Tally) {
    report::add(
        "Damaged bytes",
        json!({
            "flips": tally.flips,
            "start refused, with what is damaged": tally.refused,
            "everything served": tally.whole,
            "told by a query, /ready or the log": tally.told,
            "something missing without a word": tally.silent.len(),
            "panic or wrong line": tally.wrong.len(),
        }),
    );
    for silent in &tally.silent {
        eprintln!("flips: silent: {silent}");
    }
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
}

#[test]
fn a_damaged_byte_is_no_panic_and_no_wrong_line() {
    conclude(&flip(1, 12, ""));
}

/// The journal is all that a line stands in until it is sealed.
#[test]
#[ignore = "long: make torture"]
fn a_journal_without_checksums_is_found_out() {
    let seed = seed();
    let (mut appliance, run) = prepare(seed);
    appliance.set_fail_points("checksum-off=return");
    let (data, kept) = (appliance.data_dir(), appliance.dir().join("kept"));
    std::fs::rename(&data, &kept).expect("renamed");
    let mut journal = Vec::new();
    files(&kept.join("journal"), &mut journal);
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let _ = std::fs::remove_dir_all(&data);
        copy(&kept, &data);
        let file = &journal[random.random_range(0..journal.len())];
        let file = data.join(file.strip_prefix(&kept).expect("below"));
        tally.round(&mut appliance, &run, &file, &mut random);
        if !tally.wrong.is_empty() {
            report::found_bug("checksum off");
            return;
        }
    }
    panic!("checksum off: not found");
}

#[test]
#[ignore = "long: make torture"]
fn damaged_bytes() {
    let rounds = report::number("ROUNDS", 5) as usize;
    conclude(&flip(rounds, usize::MAX, ""));
}
