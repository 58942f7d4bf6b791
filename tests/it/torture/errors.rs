//! Every call to the disk fails once: with EIO, and with ENOSPC from there on. Whatever is not
//! refused must be there afterwards, also when the power goes right then, since a failed sync may
//! have dropped what it was to write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::below::Below;
use super::disk::{Bytes, Names};
use super::report;
use crate::appliance::{Appliance, Setup, now, request};
use crate::oracle::seed;
use crate::senders::{SentSpan, otlp_json};

/// A request that takes longer hangs: pushes without memory wait 5 s until they are refused.
const PATIENCE: Duration = Duration::from_secs(15);

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What was sent, and whether it was acknowledged.
#[derive(Default)]
struct Sent {
    lines: Vec<bool>,
    trace: bool,
    archived: bool,
}

/// What became of a workload in which a call failed.
struct Case {
    /// Class and path of the call; `None` when there are not so many.
    failed: Option<String>,
    /// The process ended by itself, and how.
    exit: Option<i32>,
    refused: usize,
    /// What must not be.
    wrong: Vec<String>,
    calls: i64,
}

const TRACE: u128 = 0x7047;

struct Workload<'a> {
    appliance: &'a mut Appliance,
    agent: ureq::Agent,
    sent: Sent,
    refused: usize,
    wrong: Vec<String>,
}

impl Workload<'_> {
    /// Whether a request was answered with success.
    fn ask(&mut self, key: &str, path: &str, body: &str) -> bool {
        let Some(address) = self.appliance.address(key) else {
            return false;
        };
        let url = format!("http://{address}{path}");
        let json = [("Content-Type", "application/json")];
        let begun = Instant::now();
        match request(&self.agent, "POST", &url, &json, body.as_bytes()) {
            Ok(answer) if (200..300).contains(&answer.status) => true,
            Ok(answer) if answer.status >= 500 => {
                self.refused += 1;
                false
            }
            Ok(answer) => {
                self.wrong.push(format!(
                    "{path}: status {}: {}",
                    answer.status,
                    answer.text()
                ));
                false
            }
            Err(error) => {
                if begun.elapsed() >= PATIENCE {
                    self.wrong.push(format!("{path} hangs: {error}"));
                }
                false
            }
        }
    }

    fn push(&mut self) {
        let number = self.sent.lines.len();
        let values = json!([[now().to_string(), format!("line {number}")]]);
        let body = json!({ "streams": [{ "stream": { "job": "errors" }, "values": values }] });
        let taken = self.ask("loki.listen", "/loki/api/v1/push", &body.to_string());
        self.sent.lines.push(taken);
    }

    fn run(&mut self) {
        self.push();
        self.push();
        let span = SentSpan {
            trace: TRACE,
            span: 1,
            parent: 0,
            name: "op".into(),
            start: now(),
            seq: "1".into(),
        };
        let body = otlp_json("errors", &[span]).to_string();
        self.sent.trace = self.ask("otlp.http", "/v1/traces", &body);
        if self.sent.trace {
            let path = format!("/api/archive/{TRACE:032x}");
            self.sent.archived = self.ask("jaeger.query.http", &path, "");
        }
        self.ask("loki.listen", "/flush", "");
        self.push();
        self.push();
        self.ask("loki.listen", "/flush", "");
        self.push();
    }
}

/// Runs the workload with the `n`-th call failing; none with 0.
fn case(n: i64, error: i32) -> Option<Case> {
    let mut appliance = Setup::default().prepare();
    // Whatever it says: a panic is looked for below.
    appliance.expect_log("");
    let mut below = Below::new(&mut appliance)?;
    appliance.set_fail_points("journal-segment-bytes=return(100)");
    if n > 0 {
        let count = if error == ENOSPC { 1_000_000 } else { 1 };
        appliance.set_env("DISK_FAIL", &format!("{error} * {n} {count}"));
    }
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build();
    let started = appliance.try_start();
    let mut wrong = Vec::new();
    let (mut sent, mut refused) = (Sent::default(), 0);
    match started {
        Ok(()) => {
            let mut workload = Workload {
                appliance: &mut appliance,
                agent: ureq::Agent::new_with_config(config),
                sent: Sent::default(),
                refused: 0,
                wrong: Vec::new(),
            };
            workload.run();
            (sent, refused, wrong) = (workload.sent, workload.refused, workload.wrong);
            // It may be about to end, and answer for a moment, or no more.
            std::thread::sleep(Duration::from_millis(250));
            let asked = Instant::now();
            while appliance.exited().is_none()
                && let Err(error) = appliance.try_get("loki.listen", "/ready")
            {
                if asked.elapsed() > PATIENCE {
                    wrong.push(format!("does not answer, and does not end: {error}"));
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Err(why) if appliance.exited().is_none() => wrong.push(why),
        Err(_) => {}
    }
    let exit = appliance.exited().map(|status| status.code().unwrap_or(-1));
    appliance.kill();
    below.take();
    let failed = below.disk.failed.first().cloned();
    let calls = below.disk.calls;
    if exit.is_some_and(|code| ![1, 74].contains(&code)) {
        wrong.push(format!("ended with {exit:?}"));
    }
    let synced_journal = |f: &String| f.starts_with("s ") && f.contains("/data/journal");
    if failed.as_ref().is_some_and(synced_journal) && exit.is_none() {
        wrong.push("goes on after a failed sync of the journal".into());
    }
    // And the power goes.
    below.disk.cut(Names::Synced, Bytes::Synced, &mut |_| false);
    appliance.set_env("DISK_FAIL", "");
    match appliance.try_start() {
        Ok(()) => {
            appliance.wait_recovered();
            wrong.extend(missing(&appliance, &sent));
        }
        Err(why) => wrong.push(format!("does not start again: {why}")),
    }
    let log = appliance.log_text();
    if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
        wrong.push(line.to_owned());
    }
    if !wrong.is_empty() {
        wrong.push(format!("log:\n{log}"));
    }
    appliance.kill();
    Some(Case {
        failed,
        exit,
        refused,
        wrong,
        calls,
    })
}

/// What is not as it was acknowledged.
fn missing(appliance: &Appliance, sent: &Sent) -> Vec<String> {
    let mut wrong = Vec::new();
    let found = appliance.lines("{job=\"errors\"}");
    for (number, acknowledged) in sent.lines.iter().enumerate() {
        let text = format!("line {number}");
        let times = found.iter().filter(|(_, line)| *line == text).count();
        if times > 1 || (*acknowledged && times == 0) {
            wrong.push(format!("{text}: {times} times"));
        }
    }
    if found.len() > sent.lines.len() {
        wrong.push(format!("{found:?}"));
    }
    let there = appliance.get("jaeger.query.http", &format!("/api/traces/{TRACE:032x}"));
    if (sent.trace || sent.archived) && there.status != 200 {
        wrong.push(format!("trace: {}", there.text()));
    }
    wrong
}

/// Tries calls with an error; a summary by class of call, and what was wrong.
fn try_calls(calls: &[(i64, i32)]) -> (BTreeMap<String, usize>, Vec<String>) {
    let next = AtomicUsize::new(0);
    let results = std::sync::Mutex::new((BTreeMap::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((n, error)) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(case) = case(*n, *error) else { return };
                    let Some(failed) = case.failed else { continue };
                    let name = if *error == EIO { "EIO" } else { "ENOSPC" };
                    let what = match failed.as_bytes()[0] {
                        b'w' => "write",
                        b's' => "sync",
                        b'o' => "open",
                        b'r' => "rename",
                        b'u' => "remove",
                        b'm' => "mkdir",
                        b't' => "truncate",
                        _ => "link",
                    };
                    let end = match (case.exit, case.refused) {
                        (Some(74), _) => "ended with 74",
                        (Some(_), _) => "did not start",
                        (None, 0) => "went on, nothing refused",
                        (None, _) => "went on, refused",
                    };
                    let mut results = crate::appliance::locked(&results);
                    *results
                        .0
                        .entry(format!("{what} {name}: {end}"))
                        .or_insert(0) += 1;
                    if !case.wrong.is_empty() {
                        let wrong = case.wrong.join("\n");
                        results
                            .1
                            .push(format!("call {n} ({failed}) with {name}: {wrong}"));
                    }
                }
            });
        }
    });
    results.into_inner().expect("no panic")
}

#[track_caller]
fn conclude(calls: &[(i64, i32)]) {
    let (summary, wrong) = try_calls(calls);
    for what in &wrong {
        eprintln!("wrong: {}", what.lines().next().unwrap_or_default());
    }
    report::add(
        "Failing calls",
        json!({ "injected errors": summary.values().sum::<usize>(), "outcomes": summary,
                "wrong": wrong.len() }),
    );
    assert!(
        wrong.is_empty(),
        "{} are wrong, such as {}",
        wrong.len(),
        wrong[0]
    );
}

#[test]
fn a_call_that_fails_costs_no_acknowledged_line() {
    let Some(all) = case(0, EIO) else { return };
    assert_eq!(all.wrong, Vec::<String>::new(), "without a failure");
    let mut random = StdRng::seed_from_u64(seed());
    let mut pick = |error| (random.random_range(1..=all.calls), error);
    let calls: Vec<_> = (0..16)
        .map(|n| pick(if n % 2 == 0 { EIO } else { ENOSPC }))
        .collect();
    conclude(&calls);
}

/// In parts, since it takes long: `PARTS` and which of them, `PART`.
#[test]
#[ignore = "long: make torture"]
fn every_call_that_fails() {
    let Some(all) = case(0, EIO) else { return };
    let (parts, part) = (report::number("PARTS", 1), report::number("PART", 0));
    let calls: Vec<_> = (1..=all.calls)
        .flat_map(|n| [(n, EIO), (n, ENOSPC)])
        .skip(part as usize)
        .step_by(parts as usize)
        .collect();
    conclude(&calls);
}
