//! The program broken on purpose, one class of bug at a time: each must be found. Two more are
//! in `crash.rs`, which needs nothing below the process.

use super::report;
use crate::crash::{Outcome, Plan, Power, crash};
use crate::oracle::{Finding, Load, seed};

const CUTS: Plan = Plan {
    kills: 6,
    rounds: 1,
    kill_points: &[],
    power: Power::Cut(100),
    ..Plan::CUTS
};

/// Runs a plan with a bug until it is found, a few times at most: what a power cut leaves is
/// chosen at random, and may be everything.
#[track_caller]
fn find(bug: &str, plan: &Plan, found: fn(&Outcome) -> bool) {
    for n in 0..10 {
        let outcome = crash(plan, seed() + n);
        if outcome.kills + outcome.deaths == 0 {
            // Nothing can stand below the process here.
            return;
        }
        if found(&outcome) {
            report::found_bug(bug);
            return;
        }
    }
    panic!("{bug}: not found");
}

#[test]
#[ignore = "long: make torture"]
fn a_sync_that_is_skipped_is_found_out() {
    let plan = Plan {
        always: "sync-skipped=return",
        ..CUTS
    };
    find("sync skipped", &plan, |o| o.lost() > 0);
}

#[test]
#[ignore = "long: make torture"]
fn a_directory_that_is_not_synced_is_found_out() {
    let plan = Plan {
        always: "journal-segment-bytes=return(20000);directory-not-synced=return",
        ..CUTS
    };
    find("directory of the journal not synced", &plan, |o| {
        o.lost() > 0
    });
}

#[test]
#[ignore = "long: make torture"]
fn a_data_directory_that_is_not_synced_is_found_out() {
    let plan = Plan {
        always: "parents-not-synced=return",
        ..CUTS
    };
    find("names of directories not synced", &plan, |o| o.lost() > 0);
}

#[test]
#[ignore = "long: make torture"]
fn an_end_of_the_journal_that_is_replayed_and_not_synced_is_found_out() {
    let plan = Plan {
        kills: 16,
        alive: (50, 300),
        always: "tail-not-synced=return",
        power: Power::Cut(30),
        // Where zeros were overwritten, what is lost are zeros again, and no longer at the end.
        noticed: Some("are damaged and left out"),
        ..CUTS
    };
    find("replayed and not synced", &plan, |o| {
        o.findings.iter().any(|f| matches!(f, Finding::Start(_))) || o.lost() > 0
    });
}

#[test]
#[ignore = "long: make torture"]
fn data_that_is_safe_before_its_journal_is_found_out() {
    // Only what is being synced at that moment can be in the data already: syncs take long, and the
    // process often ends where a checkpoint has just made data and positions safe.
    let plan = Plan {
        kills: 40,
        alive: (200, 800),
        always: "data-before-journal=return;journal-sync=sleep(300)",
        kill_points: &["checkpoint-before-forget"],
        // A start after a cut is looked at, and doesn't end at a point.
        power: Power::Cut(60),
        load: Load {
            pace: 200,
            ..CUTS.load
        },
        ..CUTS
    };
    find("data safe before its journal", &plan, |o| {
        !o.findings.is_empty()
    });
}

#[test]
#[ignore = "long: make torture"]
fn a_manifest_that_is_not_synced_is_found_out() {
    let plan = Plan {
        power: Power::CutBlind(100, "/db/MANIFEST"),
        ..CUTS
    };
    find("RocksDB's manifest not synced", &plan, |o| {
        !o.findings.is_empty()
    });
}

#[test]
#[ignore = "long: make torture"]
fn an_index_that_is_committed_before_its_data_is_found_out() {
    let plan = Plan {
        kills: 12,
        alive: (300, 900),
        always: "index-before-flush=return;checkpoint-before-flush=sleep(200)",
        sometimes: &[],
        checks: 0,
        rounds: 2,
        ..Plan::KILLS
    };
    find("index committed before its data", &plan, |o| {
        !o.findings.is_empty()
    });
}
