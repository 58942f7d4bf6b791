//! Kills the program at random moments while it is written to, and checks that everything
//! it acknowledged is there, once and in order, and that nothing is there that was not sent
//! (`oracle`). With a plan that says so the power is cut as well (`torture/below.rs`).
//!
//! The seed is printed; `SEED=n` repeats its choices (not the machine's timing), `SLOW=1`
//! does it ten times. The last tests break the program on purpose and check
//! that the loss is found. The long runs are in `torture`.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::appliance::{Appliance, Setup};
use crate::oracle::{self, Counts, Cut, Finding, Load, Senders, seed};
use crate::torture::below::Below;
use crate::torture::report;

/// What a run does.
#[derive(Clone)]
pub struct Plan {
    pub kills: usize,
    /// Milliseconds from being ready to the kill.
    pub alive: (u64, u64),
    /// Fail points of every start.
    pub always: &'static str,
    /// Fail points of which a start may get one.
    pub sometimes: &'static [&'static str],
    /// Points at which a start may be killed.
    pub kill_points: &'static [&'static str],
    pub load: Load,
    pub power: Power,
    /// Of 100 starts, so many are checked before the next kill; after a power cut all are.
    pub checks: u32,
    /// Times that all is checked in the end: with heads, with chunks alone, after a stop.
    pub rounds: usize,
    /// No kills after this moment.
    pub until: Option<Instant>,
    /// What the log says where a bug that is switched on was noticed by the program itself.
    pub noticed: Option<&'static str>,
}

/// Whether the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Stays,
    /// After so many of 100 kills.
    Cut(u32),
    /// The same, and syncs of files with this in their path are not made.
    CutBlind(u32, &'static str),
}

impl Plan {
    /// Kills, and no more.
    pub const KILLS: Self = Self {
        kills: 50,
        alive: (20, 600),
        always: SMALL_SEGMENTS,
        sometimes: SLEEPS,
        kill_points: &[],
        load: Load {
            pace: 60,
            flushes: true,
        },
        power: Power::Stays,
        checks: 25,
        rounds: 3,
        until: None,
        noticed: None,
    };
    /// Kills, and half of the times the power goes with the process.
    pub const CUTS: Self = Self {
        kills: 12,
        alive: (100, 600),
        kill_points: KILL_POINTS,
        power: Power::Cut(50),
        checks: 0,
        ..Self::KILLS
    };
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub kills: usize,
    /// Deaths at a fail point.
    pub deaths: usize,
    pub cuts: usize,
    pub synced: u64,
    pub counts: Counts,
    pub doors: Vec<String>,
}

impl Outcome {
    pub fn lost(&self) -> usize {
        let lost = |f: &&Finding| matches!(f, Finding::Lost(_) | Finding::Hole(_));
        self.findings.iter().filter(lost).count()
    }

    /// What becomes of it where nothing can stand below the process.
    fn left_out() -> Self {
        Self::default()
    }
}

/// What the log says of a list of RocksDB's files that was lost.
const RESTORED: &str = "was damaged and is restored from its copy";
/// They widen the windows between two steps.
const SLEEPS: &[&str] = &[
    "",
    "",
    "journal-sync=20%sleep(15)",
    "seal-write=20%sleep(5)",
    "checkpoint-before-flush=50%sleep(60)",
    "checkpoint-before-index=50%sleep(60)",
    "checkpoint-before-mark=50%sleep(60)",
    "checkpoint-before-forget=50%sleep(60)",
    "index-commit=50%sleep(60)",
    "journal-forget=50%sleep(30)",
];
/// They end the process in the middle of a step.
const PANICS: &[&str] = &[
    "journal-sync=1%panic",
    "seal-write=10%panic",
    "checkpoint-before-flush=50%panic",
    "checkpoint-before-index=50%panic",
    "checkpoint-before-mark=50%panic",
    "checkpoint-before-forget=50%panic",
    "index-commit=50%panic",
    "journal-forget=50%panic",
];
/// Where a process may be killed: before and after each step that a crash could tear.
pub const KILL_POINTS: &[&str] = &[
    "journal-write",
    "journal-written",
    "journal-sync",
    "journal-synced",
    "journal-forget",
    "journal-forgot",
    "segment-created",
    "segment-synced",
    "segment-named",
    "seal-write",
    "seal-written",
    "family-create",
    "family-created",
    "family-flush",
    "family-flushed",
    "meta-write",
    "meta-written",
    "log-write",
    "log-written",
    "log-sync",
    "log-synced",
    "index-commit",
    "index-committed",
    "checkpoint-before-flush",
    "checkpoint-before-index",
    "checkpoint-before-mark",
    "checkpoint-before-forget",
    "links-write",
];
/// Many segments, so that some are removed and some are not.
const SMALL_SEGMENTS: &str = "journal-segment-bytes=return(100000)";

/// Changes the configuration at random, as an operator might between two starts; whether an
/// acknowledgement waits for the disk from then on.
fn reconfigure(appliance: &mut Appliance, random: &mut StdRng) -> Cut {
    let flush = random.random_bool(0.5);
    let mut pick = |values: &[&'static str]| values[random.random_range(0..values.len())];
    let settings = [
        (
            "storage.durability",
            if flush { "\"flush\"" } else { "\"sync\"" },
        ),
        (
            "memory.limit",
            pick(&["\"128MiB\"", "\"192MiB\"", "\"256MiB\""]),
        ),
        (
            "memory.kept_results",
            pick(&["\"0B\"", "\"8MiB\"", "\"32MiB\""]),
        ),
        ("storage.retention", pick(&["\"30d\"", "\"8d\"", "\"\""])),
        ("storage.max_bytes", pick(&["\"\"", "\"4GiB\""])),
        ("loki.patterns", pick(&["true", "false"])),
        ("loki.discover_log_levels", pick(&["true", "false"])),
        (
            "jaeger.sampling.type",
            pick(&["\"file\"", "\"file\"", "\"adaptive\""]),
        ),
    ];
    for (key, value) in settings {
        appliance.change(|setup| setup.set(key, value));
    }
    Cut {
        at: Instant::now(),
        flush,
    }
}

/// Kills the program as planned; what the checks on the way and at the end found.
pub fn crash(plan: &Plan, seed: u64) -> Outcome {
    eprintln!("crash: SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut appliance = Setup::default().prepare();
    oracle::prepare(&mut appliance);
    let mut below = match plan.power {
        Power::Stays => None,
        Power::Cut(_) | Power::CutBlind(..) => match Below::new(&mut appliance) {
            Some(below) => Some(below),
            None => return Outcome::left_out(),
        },
    };
    if let Power::CutBlind(_, path) = plan.power {
        appliance.set_env("DISK_BLIND", path);
        appliance.expect_log("rocksdb: Corruption");
        appliance.expect_log(RESTORED);
    }
    if let Some(noticed) = plan.noticed {
        appliance.expect_log(noticed);
    }
    let senders = Senders::start(&appliance, plan.load, seed);
    let run = senders.run.clone();
    let mut outcome = Outcome::default();
    let mut cut: Option<Cut> = None;
    while outcome.kills + outcome.deaths < plan.kills
        && outcome.findings.is_empty()
        && plan.until.is_none_or(|until| Instant::now() < until)
    {
        let check = cut.is_some() || random.random_ratio(plan.checks, 100);
        let mut points = plan.sometimes.to_vec();
        let mut kill_point = String::new();
        if check {
            // It must live until it has answered.
            points.retain(|p| !p.contains("panic"));
        } else if !plan.kill_points.is_empty() && random.random_bool(0.7) {
            let name = plan.kill_points[random.random_range(0..plan.kill_points.len())];
            kill_point = format!("{name}={}", random.random_range(1..3));
        }
        let point = match points.len() {
            0 => "",
            n => points[random.random_range(0..n)],
        };
        appliance.set_fail_points(&format!("{};{point}", plan.always));
        appliance.set_env("KILLPOINTS", &kill_point);
        let this = reconfigure(&mut appliance, &mut random);
        if let Err(why) = appliance.try_start() {
            if !point.contains("panic") && kill_point.is_empty() {
                outcome.findings.push(Finding::Start(why));
            }
        } else {
            if check {
                appliance.wait_recovered();
                let found = run.check_some(&appliance, cut.take(), &mut random);
                outcome.findings.extend(found);
            }
            let (least, most) = plan.alive;
            let until = Instant::now() + Duration::from_millis(random.random_range(least..most));
            while Instant::now() < until && appliance.exited().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let at = Instant::now();
        if (outcome.kills + outcome.deaths) % 10 == 9 {
            eprintln!(
                "crash: {} kills, {:?}",
                outcome.kills + outcome.deaths + 1,
                run.counts()
            );
        }
        match appliance.kill() {
            true => outcome.kills += 1,
            false => outcome.deaths += 1,
        }
        run.mark();
        if let Some(below) = &mut below {
            below.take();
            let (Power::Cut(part) | Power::CutBlind(part, _)) = plan.power else {
                continue;
            };
            if cut.is_none() && random.random_ratio(part, 100) {
                let left = below.cut(&mut random);
                eprintln!("crash: power cut, left: {left:?}");
                outcome.cuts += 1;
                cut = Some(Cut { at, ..this });
            }
        }
    }

    // At last in peace, until all senders are done.
    appliance.set_fail_points(plan.always);
    appliance.set_env("KILLPOINTS", "");
    if let Some(below) = &mut below {
        // A kill may have come between a rename and the note of it, and no power is cut any more.
        below.disk.begin_anew();
    }
    if outcome.findings.is_empty() {
        appliance.start();
        appliance.wait_recovered();
        if cut.is_some() {
            let found = run.check_some(&appliance, cut, &mut random);
            outcome.findings.extend(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let run = senders.stop();
    if outcome.findings.is_empty() {
        for round in [
            "in heads and chunks",
            "in chunks alone",
            "after a graceful stop",
        ]
        .into_iter()
        .take(plan.rounds)
        {
            let found = run.check_all(&appliance, &mut random);
            if !found.is_empty() {
                eprintln!("crash: found {round}");
            }
            outcome.findings.extend(found);
            if round == "in heads and chunks" {
                appliance.flush();
            } else {
                assert!(appliance.stop().success());
                if let Some(below) = &mut below {
                    // Nothing got past the library.
                    below.take();
                    assert_eq!(below.differences(), Vec::<String>::new());
                }
                appliance.start();
                appliance.wait_recovered();
            }
        }
    }
    if matches!(plan.power, Power::CutBlind(..)) && appliance.log_text().contains(RESTORED) {
        // Elsewhere the log says what nobody expects.
        outcome.findings.push(Finding::Start(RESTORED.into()));
    }
    if let Some(noticed) = plan
        .noticed
        .filter(|part| appliance.log_text().contains(part))
    {
        outcome.findings.push(Finding::Start(noticed.into()));
    }
    outcome.synced = below.map_or(0, |below| below.disk.synced);
    outcome.counts = run.counts();
    outcome.doors = run.doors();
    let Outcome {
        kills,
        deaths,
        cuts,
        counts,
        ..
    } = &outcome;
    eprintln!(
        "crash: {kills} kills, {deaths} deaths by fail point, {cuts} power cuts; {counts:?} \
         through {:?}",
        outcome.doors
    );
    let findings = &outcome.findings;
    if !findings.is_empty() {
        eprintln!(
            "crash: {} findings, such as {:?}",
            findings.len(),
            &findings[..findings.len().min(20)]
        );
    }
    outcome
}

/// Runs: more with SLOW=1.
fn times() -> u64 {
    if std::env::var_os("SLOW").is_some_and(|v| v != "0") {
        10
    } else {
        1
    }
}

/// Every door took something, or the run says nothing of it.
#[track_caller]
fn check_doors(outcome: &Outcome) {
    // Loki's protobuf, JSON and zipped JSON; OTLP logs by three; the file; spans by eight; archive.
    assert_eq!(outcome.doors.len(), 16, "{:?}", outcome.doors);
}

#[test]
fn what_was_acknowledged_survives_kill_9_once_and_in_order() {
    // Anew each time: what is checked after every few kills is all that was ever sent.
    for n in 0..times() {
        let outcome = crash(&Plan::KILLS, seed() + n);
        assert_eq!(outcome.findings, []);
        check_doors(&outcome);
    }
}

#[test]
fn what_was_acknowledged_survives_ends_in_the_middle_of_any_step() {
    for (sometimes, kill_points) in [(PANICS, &[][..]), (SLEEPS, KILL_POINTS)] {
        let plan = Plan {
            kills: 8,
            alive: (200, 700),
            sometimes,
            kill_points,
            ..Plan::KILLS
        };
        for n in 0..times() {
            assert_eq!(crash(&plan, seed() + n).findings, []);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    for n in 0..times() {
        assert_eq!(crash(&Plan::CUTS, seed() + n).findings, []);
    }
}

#[test]
fn an_acknowledgement_before_the_journal_is_written_is_found_out() {
    let plan = Plan {
        kills: 3,
        alive: (200, 300),
        always: "ack-before-journal=20%return",
        sometimes: &[],
        rounds: 1,
        ..Plan::KILLS
    };
    assert_ne!(crash(&plan, seed()).lost(), 0);
    report::found_bug("acknowledged before it is written");
}

#[test]
fn a_segment_that_replay_leaves_out_is_found_out() {
    let plan = Plan {
        kills: 3,
        alive: (300, 400),
        always: "journal-segment-bytes=return(20000);replay-skip-segment=1*return",
        sometimes: &[],
        load: Load {
            flushes: false,
            ..Plan::KILLS.load
        },
        rounds: 1,
        ..Plan::KILLS
    };
    assert_ne!(crash(&plan, seed()).lost(), 0);
    report::found_bug("a segment that replay leaves out");
}
