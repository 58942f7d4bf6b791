//! Hours in short: ingest and queries side by side at the smallest memory limit, and whether the
//! process grows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::report;
use crate::appliance::{Appliance, Setup, agent, encoded, now, request};
use crate::oracle::{self, Load, Run, Senders, seed};

/// What the process takes beside `memory.limit` (docs/operating.md, "Memory").
const BESIDE: u64 = 120 << 20;
/// Memory that a process may gain an hour once it has warmed up: what fragmentation gives, and
/// too little to fill a machine between two updates.
const GROWTH: f64 = 16.0 * 1024.0 * 1024.0;
/// Accounts that fill up to a bound for as long as there is something new to keep, hours at the
/// pace of a soak: what they hold is no growth, what they should not hold is.
const CACHES: [&str; 3] = ["rocksdb_cache", "span_blocks", "query_parts"];

/// What the process occupied at one time, bytes.
struct Sample {
    /// Since the beginning.
    seconds: f64,
    resident: f64,
    /// Without mapped files, which grow with the data and the kernel may take back.
    own: f64,
    /// What caches hold of that by their accounts.
    cached: f64,
    /// What the allocator was asked for.
    allocated: f64,
}

impl Sample {
    fn take(appliance: &Appliance, begun: Instant) -> Self {
        let held = |account| appliance.metric("memory_used_bytes", &[("account", account)]);
        Self {
            seconds: begun.elapsed().as_secs_f64(),
            resident: appliance.resident().0 as f64,
            own: appliance.own_memory() as f64,
            cached: CACHES.map(held).iter().sum(),
            allocated: appliance.metric("allocated_bytes", &[]),
        }
    }
}

fn slope_of(samples: &[Sample], what: impl Fn(&Sample) -> f64) -> f64 {
    let points: Vec<_> = samples.iter().map(|s| (s.seconds, what(s))).collect();
    slope(&points)
}

/// Least-squares slope of points `(seconds, bytes)`, bytes per hour.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let top: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let bottom: f64 = points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    top / bottom * 3600.0
}

#[test]
fn a_slope_is_what_is_gained_an_hour() {
    let points: Vec<_> = (0..100)
        .map(|n| (f64::from(n), 7.0 + 2.0 * f64::from(n)))
        .collect();
    assert!((slope(&points) - 7200.0).abs() < 1e-6);
}

/// Asks what dashboards and people ask, until told to stop.
fn ask(appliance: &Appliance, stop: &AtomicBool, asked: &AtomicU64, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let agent = agent();
    let mut wrong = Vec::new();
    let queries = [
        "{job=\"crash\"} |= \"refused\"",
        "{job=\"crash\",stream=\"pa\"} |~ \"took .*ms\"",
        "{job=~\".+\"} |= \"seq=\" != \"GET\"",
        "sum by (stream) (count_over_time({job=\"crash\"}[1m]))",
        "sum(rate({service_name=~\".+\"} |= \"upstream\" [5m]))",
    ];
    while !stop.load(Ordering::Relaxed) {
        let (Some(loki), Some(jaeger)) = (
            appliance.address("loki.listen"),
            appliance.address("jaeger.query.http"),
        ) else {
            break;
        };
        let query = encoded(queries[random.random_range(0..queries.len())]);
        let from = now() - random.random_range(60..3600) * 1_000_000_000;
        let urls = [
            format!("http://{loki}/loki/api/v1/query_range?query={query}&start={from}&limit=500"),
            format!("http://{jaeger}/api/traces?service=crash-1&limit=20&lookback=1h"),
        ];
        let url = &urls[random.random_range(0..urls.len())];
        match request(&agent, "GET", url, &[], b"") {
            // Refused for want of memory is an answer; anything else is not.
            Ok(answer) if [200, 429, 503].contains(&answer.status) => {}
            Ok(answer) => wrong.push(format!("{url}: {}: {}", answer.status, answer.text())),
            Err(error) => wrong.push(error),
        }
        asked.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(random.random_range(20..400)));
    }
    wrong
}

/// Lets it run for `seconds`; the last of them decide.
fn soak(seconds: u64, load: Load, check_slope: bool) {
    let seed = seed();
    eprintln!("soak: SEED={seed}, {seconds} s");
    let mut appliance = Setup::default().set("memory.limit", "\"128MiB\"").prepare();
    oracle::prepare(&mut appliance);
    appliance.start();
    let senders = Senders::start(&appliance, load, seed);
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let mut samples = Vec::new();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|n| {
                scope.spawn({
                    let (appliance, stop, asked) = (&appliance, &stop, &asked);
                    move || ask(appliance, stop, asked, seed + n)
                })
            })
            .collect();
        while begun.elapsed().as_secs() < seconds {
            std::thread::sleep(Duration::from_secs(1));
            samples.push(Sample::take(&appliance, begun));
        }
        stop.store(true, Ordering::Relaxed);
        let answers = askers
            .into_iter()
            .map(|asker| asker.join().expect("an asker"));
        answers.flatten().collect()
    });
    let peak = appliance.resident().1;
    let run: std::sync::Arc<Run> = senders.stop();
    // What it takes to get warm, arenas and stacks, is no growth.
    let warm = &samples[samples.len() / 2..];
    let (first, last) = (&warm[0], &warm[warm.len() - 1]);
    let mean = warm.iter().map(|s| s.resident).sum::<f64>() / warm.len() as f64;
    let growth = slope_of(warm, |s| s.own - s.cached);
    let counts = run.counts();
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    report::add(
        "Soak at memory.limit 128MiB",
        json!({
            "seconds": seconds.to_string(),
            "lines acknowledged": counts.lines,
            "traces acknowledged": counts.traces,
            "queries": asked.load(Ordering::Relaxed),
            "queries failed": wrong.len(),
            "resident, mean of the second half": mib(mean),
            "resident, peak": mib(peak as f64),
            "caches at half time, at the end": format!("{}, {}", mib(first.cached), mib(last.cached)),
            "second half, slope of own memory":
                format!("{} an hour", mib(slope_of(warm, |s| s.own))),
            "second half, slope of resident":
                format!("{} an hour", mib(slope_of(warm, |s| s.resident))),
            "second half, slope of own memory without caches": format!("{} an hour", mib(growth)),
            "second half, slope of what is allocated":
                format!("{} an hour", mib(slope_of(warm, |s| s.allocated))),
        }),
    );
    // What the check asks for at once may be more than a fifth of that.
    assert!(appliance.stop().success());
    appliance.change(|setup| setup.set("memory.limit", "\"2GiB\""));
    appliance.start();
    appliance.wait_recovered();
    let mut random = StdRng::seed_from_u64(seed);
    let findings = run.check_all(&appliance, &mut random);
    report::add(
        "Soak at memory.limit 128MiB, read back",
        json!({ "findings": findings.len() }),
    );
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(findings, []);
    assert!(peak < (128 << 20) + BESIDE, "resident {peak}");
    assert!(!check_slope || growth < GROWTH, "{growth} bytes an hour");
}

#[test]
#[ignore = "long: make torture"]
fn the_smallest_memory_limit_holds_with_queries_beside_ingest() {
    let load = Load {
        pace: 20,
        flushes: true,
    };
    soak(5, load, false);
}

/// `SOAK_S` seconds; `SOAK_PACE` is the longest pause of a sender in milliseconds.
#[test]
#[ignore = "long: make torture"]
fn soak_at_the_memory_limit() {
    let load = Load {
        pace: report::number("SOAK_PACE", 20),
        flushes: false,
    };
    // A slope of less than ten minutes says nothing.
    let seconds = report::number("SOAK_S", 1800);
    soak(seconds, load, seconds >= 600);
}
