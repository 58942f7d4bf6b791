//! Kills and power cuts by the hundred.

use std::time::{Duration, Instant};

use serde_json::json;

use super::report;
use crate::crash::{KILL_POINTS, Outcome, Plan, Power, crash};
use crate::oracle::{Finding, Load, seed};

/// Adds a run to the report; fails when something was found.
#[track_caller]
fn conclude(mode: &str, outcome: &Outcome) {
    let of = |which: fn(&Finding) -> bool| outcome.findings.iter().filter(|f| which(f)).count();
    let counts = outcome.counts;
    report::add(
        mode,
        json!({
            "kills at random moments": outcome.kills,
            "kills at named points": outcome.deaths,
            "power cuts": outcome.cuts,
            "syncs seen": outcome.synced,
            "doors": outcome.doors.join(", "),
            "pushes": counts.pushes,
            "lines sent": counts.sent_lines,
            "lines acknowledged": counts.lines,
            "traces sent": counts.sent_traces,
            "traces acknowledged": counts.traces,
            "archived": counts.archived,
            "lost of the last moment, as durability flush may": counts.given,
            "lost": outcome.lost(),
            "twice or out of order": of(|f| matches!(f, Finding::OutOfOrder(_))),
            "not as sent": of(|f| matches!(f, Finding::NotSent(_))),
            "scan and index differ": of(|f| matches!(f, Finding::Index(_))),
        }),
    );
    assert_eq!(outcome.findings, []);
}

/// Runs of a plan until `KILLS` kills were made, or for `KILLS_S` seconds.
fn repeat(mode: &str, plan: &Plan, default: u64) {
    let wanted = report::number("KILLS", default) as usize;
    let seconds = report::number("KILLS_S", u64::from(u32::MAX));
    let until = Instant::now() + Duration::from_secs(seconds);
    let plan = Plan {
        until: Some(until),
        ..plan.clone()
    };
    let mut kills = 0;
    for n in 0.. {
        if kills >= wanted || Instant::now() > until {
            break;
        }
        let outcome = crash(&plan, seed() + n);
        kills += outcome.kills + outcome.deaths;
        conclude(mode, &outcome);
        if outcome.kills + outcome.deaths == 0 {
            // Nothing can stand below the process here.
            break;
        }
    }
}

/// Many short lives: few lines in each, since all that was ever sent is checked, and anew after
/// some.
const MANY: Plan = Plan {
    kills: 100,
    alive: (10, 250),
    checks: 3,
    rounds: 2,
    load: Load {
        pace: 200,
        flushes: true,
    },
    ..Plan::KILLS
};

#[test]
#[ignore = "long: make torture"]
fn kills() {
    repeat("Kills", &MANY, 600);
}

#[test]
#[ignore = "long: make torture"]
fn kills_at_named_points() {
    let plan = Plan {
        kill_points: KILL_POINTS,
        ..MANY
    };
    repeat("Kills at named points", &plan, 300);
}

#[test]
#[ignore = "long: make torture"]
fn power_cuts() {
    let plan = Plan {
        kill_points: KILL_POINTS,
        power: Power::Cut(20),
        ..MANY
    };
    repeat("Power cuts", &plan, 300);
}
