//! Kills the program at random moments while it is written to, and checks that everything
//! it acknowledged is there, once and in order, and that nothing is there that was not sent.
//!
//! Each line carries its stream's name and a number, from which its whole text follows, so
//! a line that comes back can be judged by itself. Lines of one stream are sent one push
//! after the other and never again, so their numbers grow in the order of their arrival.
//!
//! The seed is printed; `SEED=n` repeats its choices (not the machine's timing), `SLOW=1`
//! does it ten times. The last tests break the program on purpose and check
//! that the loss is found.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::appliance::{
    Addresses, Appliance, PATIENCE, Setup, agent, encoded, locked, now, request,
};
use crate::senders::{SentSpan, gzip, loki_protobuf, otlp_json, otlp_protobuf};

const DAY: i64 = 86_400_000_000_000;

/// What a check found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Acknowledged and not there.
    Lost(String),
    /// There more than once, or before one that was sent earlier.
    OutOfOrder(String),
    /// There and never sent, or not as it was sent.
    NotSent(String),
    /// Found by scan and not by index, or the other way round.
    Index(String),
}

/// What was sent to a stream so far: whether each number is acknowledged.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<bool>,
    last_at: i64,
}

struct LogStream {
    name: String,
    /// Added to the clock: late lines go to a day of their own.
    shift: i64,
    ledger: Mutex<Ledger>,
}

/// A service whose traces are numbered.
struct Service {
    name: String,
    number: u64,
    acknowledged: Mutex<Vec<bool>>,
}

/// What all threads of a run share.
struct Run {
    id: u64,
    addresses: Addresses,
    streams: Vec<LogStream>,
    /// Lines of a followed file: acknowledged is what was written to it whole.
    file: LogStream,
    services: Vec<Service>,
    stop: AtomicBool,
    /// Answers that no sender should get.
    complaints: Mutex<Vec<String>>,
    pushes: AtomicU64,
}

/// What one thread does until the run ends, with a seed of its own.
type Sender = Box<dyn FnOnce(&Run, u64) + Send>;

/// What a run does.
#[derive(Clone)]
struct Plan {
    kills: usize,
    /// Milliseconds from being ready to the kill.
    alive: (u64, u64),
    /// Fail points of every start.
    always: &'static str,
    /// Fail points of which a start may get one.
    sometimes: &'static [&'static str],
    flushes: bool,
}

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
/// Many segments, so that some are removed and some are not.
const SMALL_SEGMENTS: &str = "journal-segment-bytes=return(100000)";

/// The text of a line: what finds it by its number, a word that no other line has, and
/// something to compress.
fn line(run: u64, stream: &str, number: usize) -> String {
    let mut random = StdRng::seed_from_u64(run ^ number as u64 ^ (stream.len() as u64) << 40);
    let words = [
        "GET",
        "POST",
        "connection",
        "refused",
        "déjà",
        "took",
        "upstream",
        "42ms",
    ];
    let mut text = format!("{} {};", needle(run, stream, number), word(stream, number));
    for _ in 0..random.random_range(0..30) {
        text.push(' ');
        text.push_str(words[random.random_range(0..words.len())]);
    }
    text
}

fn needle(run: u64, stream: &str, number: usize) -> String {
    format!("seq={run:x}-{stream}-{number};")
}

/// A word of letters alone, unlike a number found by the index of words.
fn word(stream: &str, number: usize) -> String {
    let letters = stream
        .bytes()
        .filter(u8::is_ascii_lowercase)
        .map(char::from);
    let mut word: String = letters.collect();
    let mut rest = number;
    for _ in 0..5 {
        word.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    word
}

/// Number of a line, if it is one of the stream's and just as it was sent.
fn number_of(run: u64, stream: &str, text: &str) -> Option<usize> {
    let rest = text.strip_prefix(&format!("seq={run:x}-{stream}-"))?;
    let number = rest.split_once(';')?.0.parse().ok()?;
    (line(run, stream, number) == text).then_some(number)
}

fn trace_id(run: u64, service: u64, number: usize) -> u128 {
    u128::from(run) << 64 | u128::from(service) << 48 | number as u128
}

fn spans_of(run: u64, service: &Service, number: usize, start: i64) -> Vec<SentSpan> {
    let span = |n: u64| (number as u64) << 8 | n;
    (0..1 + number as u64 % 4)
        .map(|n| SentSpan {
            trace: trace_id(run, service.number, number),
            span: span(n + 1),
            parent: if n == 0 { 0 } else { span(1) },
            name: format!("op-{}", number % 5),
            start: start + n as i64 * 1000,
            seq: number.to_string(),
        })
        .collect()
}

impl Run {
    fn address(&self, key: &str) -> Option<String> {
        locked(&self.addresses).get(key).map(ToString::to_string)
    }

    fn going_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Posts something; whether it was acknowledged.
    fn post(&self, agent: &ureq::Agent, url: &str, headers: &[(&str, &str)], body: &[u8]) -> bool {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        match request(agent, "POST", url, headers, body) {
            Ok(answer) if (200..300).contains(&answer.status) => true,
            // On its way out: what it said of the rest counts as not known.
            Ok(answer) if answer.status == 503 => false,
            Ok(answer) => {
                let text = format!("{url}: status {}: {}", answer.status, answer.text());
                locked(&self.complaints).push(text);
                false
            }
            Err(_) => false,
        }
    }

    /// Pushes lines to some of the streams until the run ends. `encoding` cycles through
    /// what clients use.
    fn push_lines(&self, mine: &[usize], encoding: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let agent = agent();
        while self.going_on() {
            let Some(address) = self.address("loki.listen") else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let mut sent: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
            let mut lines: Vec<Vec<(i64, String)>> = Vec::new();
            for at in mine {
                if random.random_bool(0.4) && mine.len() > 1 {
                    continue;
                }
                let stream = &self.streams[*at];
                let mut ledger = locked(&stream.ledger);
                let first = ledger.acknowledged.len();
                let numbers = first..first + random.random_range(1..25);
                ledger.last_at = ledger.last_at.max(now() + stream.shift);
                let entries = numbers.clone().map(|number| {
                    // Every other line has the time of the one before.
                    ledger.last_at += i64::from(number % 2 == 0);
                    (ledger.last_at, line(self.id, &stream.name, number))
                });
                lines.push(entries.collect());
                ledger.acknowledged.resize(numbers.end, false);
                sent.push((*at, numbers));
            }
            if sent.is_empty() {
                continue;
            }
            let parts = sent
                .iter()
                .map(|(at, _)| &self.streams[*at].name)
                .zip(&lines);
            let (body, kind, coding) =
                if encoding == 0 {
                    let streams: Vec<_> = parts
                        .map(|(name, lines)| {
                            let labels = format!("{{job=\"crash\", stream=\"{name}\"}}");
                            (
                                labels,
                                lines.iter().map(|(at, l)| (*at, l.as_bytes())).collect(),
                            )
                        })
                        .collect();
                    (loki_protobuf(&streams), "application/x-protobuf", "")
                } else {
                    let streams: Vec<_> = parts
                    .map(|(name, lines)| {
                        let values: Vec<_> =
                            lines.iter().map(|(at, line)| json!([at.to_string(), line])).collect();
                        json!({ "stream": { "job": "crash", "stream": name }, "values": values })
                    })
                    .collect();
                    let body = json!({ "streams": streams }).to_string().into_bytes();
                    match encoding {
                        1 => (body, "application/json", ""),
                        _ => (gzip(&body), "application/json", "gzip"),
                    }
                };
            let headers = [("Content-Type", kind), ("Content-Encoding", coding)];
            let url = format!("http://{address}/loki/api/v1/push");
            if self.post(
                &agent,
                &url,
                &headers[..1 + usize::from(!coding.is_empty())],
                &body,
            ) {
                for (at, numbers) in sent {
                    locked(&self.streams[at].ledger).acknowledged[numbers].fill(true);
                }
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..20)));
        }
    }

    fn export_spans(&self, service: &Service, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let agent = agent();
        while self.going_on() {
            let Some(address) = self.address("otlp.http") else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let first = {
                let mut acknowledged = locked(&service.acknowledged);
                let first = acknowledged.len();
                acknowledged.resize(first + random.random_range(1..6), false);
                first..acknowledged.len()
            };
            let start = now();
            let spans: Vec<SentSpan> = first
                .clone()
                .flat_map(|n| spans_of(self.id, service, n, start))
                .collect();
            let url = format!("http://{address}/v1/traces");
            let (body, kind) = if service.number == 0 {
                (
                    otlp_json(&service.name, &spans).to_string().into_bytes(),
                    "application/json",
                )
            } else {
                (
                    otlp_protobuf(&service.name, &spans),
                    "application/x-protobuf",
                )
            };
            if self.post(&agent, &url, &[("Content-Type", kind)], &body) {
                locked(&service.acknowledged)[first].fill(true);
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..30)));
        }
    }

    /// Appends to the followed file, at times half a line.
    fn write_file(&self, path: &std::path::Path, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = std::fs::File::create(path).expect("a file to follow");
        while self.going_on() {
            for _ in 0..random.random_range(1..10) {
                let number = locked(&self.file.ledger).acknowledged.len();
                let text = line(self.id, &self.file.name, number) + "\n";
                let half = random.random_range(0..=text.len());
                for part in [&text.as_bytes()[..half], &text.as_bytes()[half..]] {
                    file.write_all(part).expect("a line");
                }
                locked(&self.file.ledger).acknowledged.push(true);
            }
            std::thread::sleep(Duration::from_millis(random.random_range(1..30)));
        }
    }

    fn flush_at_times(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let agent = agent();
        while self.going_on() {
            std::thread::sleep(Duration::from_millis(random.random_range(30..500)));
            if let Some(address) = self.address("loki.listen") {
                // Whether it comes to an end does not matter.
                let _ = request(&agent, "POST", &format!("http://{address}/flush"), &[], b"");
            }
        }
    }

    /// Compares a stream with what was sent. `complete`: what is acknowledged must be there.
    fn check_stream(
        &self,
        appliance: &Appliance,
        stream: &LogStream,
        complete: bool,
    ) -> Vec<Finding> {
        let acknowledged = locked(&stream.ledger).acknowledged.clone();
        let lines = appliance.lines(&format!("{{job=\"crash\",stream=\"{}\"}}", stream.name));
        let sent = locked(&stream.ledger).acknowledged.len();
        let mut findings = Vec::new();
        let mut there = vec![false; sent];
        let mut before = None;
        for (_, text) in &lines {
            // A line of a file may be counted only after it was written and read.
            let number = number_of(self.id, &stream.name, text);
            let Some(number) = number.filter(|n| *n < sent || (!complete && *n == sent)) else {
                findings.push(Finding::NotSent(format!("{}: {text}", stream.name)));
                continue;
            };
            if before.is_some_and(|before| number <= before) {
                let text = format!("{}: {number} after {before:?}", stream.name);
                findings.push(Finding::OutOfOrder(text));
            }
            before = Some(number);
            if let Some(there) = there.get_mut(number) {
                *there = true;
            }
        }
        if complete {
            let lost = acknowledged.iter().zip(&there).enumerate();
            let lost = lost.filter(|(_, (acknowledged, there))| **acknowledged && !**there);
            findings.extend(lost.map(|(n, _)| Finding::Lost(format!("{} {n}", stream.name))));
        }
        findings
    }

    /// By scan; while senders go on.
    fn check_logs(&self, appliance: &Appliance) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .streams
            .iter()
            .flat_map(|s| self.check_stream(appliance, s, true))
            .collect();
        findings.extend(self.check_stream(appliance, &self.file, false));
        findings
    }

    /// Acknowledged lines are found by their number and by their word, each alone.
    fn check_index(&self, appliance: &Appliance, random: &mut StdRng) -> Vec<Finding> {
        let mut findings = Vec::new();
        for stream in &self.streams {
            let acknowledged: Vec<usize> = {
                let ledger = locked(&stream.ledger);
                let numbers = ledger.acknowledged.iter().enumerate();
                numbers
                    .filter(|(_, acknowledged)| **acknowledged)
                    .map(|(n, _)| n)
                    .collect()
            };
            for _ in 0..acknowledged.len().min(8) {
                let number = acknowledged[random.random_range(0..acknowledged.len())];
                for needle in [
                    needle(self.id, &stream.name, number),
                    word(&stream.name, number),
                ] {
                    let query = format!("{{job=\"crash\"}} |= \"{needle}\"");
                    let found = appliance.lines(&query);
                    if found.len() != 1 || found[0].1 != line(self.id, &stream.name, number) {
                        let found: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
                        findings.push(Finding::Index(format!("{query}: {found:?}")));
                    }
                }
            }
        }
        findings
    }

    /// Counts come from what chunks say of themselves, not from their lines.
    fn check_count(&self, appliance: &Appliance) -> Vec<Finding> {
        let scanned = appliance.lines("{job=\"crash\"}").len();
        let query = encoded("sum(count_over_time({job=\"crash\"}[3d]))");
        let path = format!("/loki/api/v1/query?query={query}&time={}", now());
        let counted = appliance.get("loki.listen", &path).json();
        let counted = counted["data"]["result"][0]["value"][1]
            .as_str()
            .unwrap_or("0")
            .to_owned();
        if counted == scanned.to_string() {
            return Vec::new();
        }
        vec![Finding::Index(format!(
            "counted {counted} lines, scanned {scanned}"
        ))]
    }

    /// Traces by id: `some` of them, or all.
    fn check_traces(
        &self,
        appliance: &Appliance,
        some: Option<usize>,
        random: &mut StdRng,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for service in &self.services {
            let acknowledged = locked(&service.acknowledged).clone();
            let numbers: Vec<usize> = match some {
                Some(_) if acknowledged.is_empty() => Vec::new(),
                Some(n) => (0..n)
                    .map(|_| random.random_range(0..acknowledged.len()))
                    .collect(),
                None => (0..acknowledged.len()).collect(),
            };
            for number in numbers {
                let id = trace_id(self.id, service.number, number);
                let answer = appliance.get("jaeger.query.http", &format!("/api/traces/{id:032x}"));
                let what = format!("{} {number}", service.name);
                if answer.status == 404 {
                    if acknowledged[number] {
                        findings.push(Finding::Lost(what));
                    }
                    continue;
                }
                let trace = answer.json();
                let spans = trace["data"][0]["spans"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let mut found: Vec<&str> =
                    spans.iter().filter_map(|s| s["spanID"].as_str()).collect();
                found.sort_unstable();
                let wanted: Vec<String> = spans_of(self.id, service, number, 0)
                    .iter()
                    .map(|s| format!("{:016x}", s.span))
                    .collect();
                if found != wanted {
                    let text = format!("{what}: spans {found:?} instead of {wanted:?}: {trace}");
                    findings.push(Finding::OutOfOrder(text));
                }
            }
        }
        findings
    }

    /// Traces by search: of the service all, and by tag one.
    fn check_search(&self, appliance: &Appliance, random: &mut StdRng) -> Vec<Finding> {
        let mut findings = Vec::new();
        let search = |query: &str| -> Vec<String> {
            let answer = appliance.get("jaeger.query.http", &format!("/api/traces?{query}"));
            assert_eq!(answer.status, 200, "{query}: {}", answer.text());
            let answer = answer.json();
            let traces = answer["data"].as_array().expect("traces");
            traces
                .iter()
                .map(|t| t["traceID"].as_str().expect("an id").to_owned())
                .collect()
        };
        for service in &self.services {
            let acknowledged = locked(&service.acknowledged).clone();
            let mut all: HashMap<String, usize> = HashMap::new();
            for id in search(&format!(
                "service={}&limit=1000000&lookback=2d",
                service.name
            )) {
                *all.entry(id).or_default() += 1;
            }
            for (number, acknowledged) in acknowledged.iter().enumerate() {
                let id = format!("{:032x}", trace_id(self.id, service.number, number));
                match all.remove(&id) {
                    None if *acknowledged => {
                        findings.push(Finding::Lost(format!(
                            "{} {number} by search",
                            service.name
                        )));
                    }
                    None | Some(1) => {}
                    Some(n) => findings.push(Finding::OutOfOrder(format!("{id}: {n} times"))),
                }
            }
            findings.extend(
                all.into_keys()
                    .map(|id| Finding::NotSent(format!("trace {id}"))),
            );
            for _ in 0..acknowledged.len().min(20) {
                let number = random.random_range(0..acknowledged.len());
                if !acknowledged[number] {
                    continue;
                }
                let tags = encoded(&json!({ "seq": number.to_string() }).to_string());
                let operation = format!("op-{}", number % 5);
                let found = search(&format!(
                    "service={}&operation={operation}&tags={tags}&lookback=2d",
                    service.name
                ));
                let id = format!("{:032x}", trace_id(self.id, service.number, number));
                if found != [id] {
                    let text = format!("{} by tag seq={number}: {found:?}", service.name);
                    findings.push(Finding::Index(text));
                }
            }
        }
        findings
    }
}

fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .map(|s| s.parse().expect("SEED is a number"));
    given.unwrap_or_else(|| now() as u64 % 1_000_000_000)
}

/// Kills the program as planned; what the checks on the way and at the end found.
fn crash(plan: &Plan, seed: u64) -> Vec<Finding> {
    eprintln!("crash: SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut appliance = Setup::default().prepare();
    let logs = appliance.dir().join("logs");
    std::fs::create_dir(&logs).expect("a directory");
    let glob = logs.join("*.log");
    appliance.change(|setup| {
        setup.table(&format!(
            "[[files]]\npaths = [{glob:?}]\nlabels = {{ job = \"crash\", stream = \"file\" }}\n"
        ))
    });
    // What dying in the middle of something says, here and at the next start.
    let dying = [
        "panic",
        "RUST_BACKTRACE",
        "fatal: ",
        "shutting down",
        "cut a torn record",
    ];
    for expected in dying {
        appliance.expect_log(expected);
    }
    let stream = |name: &str, shift| LogStream {
        name: name.to_owned(),
        shift,
        ledger: Mutex::default(),
    };
    let service = |number| Service {
        name: format!("crash-{number}"),
        number,
        acknowledged: Mutex::default(),
    };
    let run = Arc::new(Run {
        id: seed,
        addresses: appliance.addresses(),
        streams: vec![
            stream("pa", 0),
            stream("pb", -DAY),
            stream("pc", 0),
            stream("ja", 0),
            stream("jb", -DAY),
            stream("zip", 0),
        ],
        file: stream("file", 0),
        services: vec![service(0), service(1)],
        stop: AtomicBool::new(false),
        complaints: Mutex::default(),
        pushes: AtomicU64::new(0),
    });
    let mut threads = Vec::new();
    let mut spawn = |work: Sender| {
        let (run, seed) = (run.clone(), random.random());
        threads.push(std::thread::spawn(move || work(&run, seed)));
    };
    spawn(Box::new(|run, seed| run.push_lines(&[0, 1], 0, seed)));
    spawn(Box::new(|run, seed| run.push_lines(&[2], 0, seed)));
    spawn(Box::new(|run, seed| run.push_lines(&[3, 4], 1, seed)));
    spawn(Box::new(|run, seed| run.push_lines(&[5], 2, seed)));
    spawn(Box::new(|run, seed| {
        run.export_spans(&run.services[0], seed)
    }));
    spawn(Box::new(|run, seed| {
        run.export_spans(&run.services[1], seed)
    }));
    let followed = logs.join("followed.log");
    spawn(Box::new(move |run, seed| run.write_file(&followed, seed)));
    if plan.flushes {
        spawn(Box::new(|run, seed| run.flush_at_times(seed)));
    }

    let mut findings = Vec::new();
    let (mut kills, mut deaths) = (0, 0);
    while kills < plan.kills && findings.is_empty() {
        let check = random.random_bool(0.25);
        let mut points = plan.sometimes.to_vec();
        if check {
            // It must live until it has answered.
            points.retain(|p| !p.contains("panic"));
        }
        let point = match points.len() {
            0 => "",
            n => points[random.random_range(0..n)],
        };
        appliance.set_fail_points(&format!("{};{point}", plan.always));
        let durability = if random.random_bool(0.5) {
            "\"sync\""
        } else {
            "\"flush\""
        };
        appliance.change(|setup| setup.set("storage.durability", durability));
        if let Err(why) = appliance.try_start() {
            assert!(point.contains("panic"), "{why}");
            appliance.kill();
            deaths += 1;
            continue;
        }
        if check {
            appliance.wait_recovered();
            findings.extend(run.check_logs(&appliance));
            findings.extend(run.check_traces(&appliance, Some(50), &mut random));
        }
        std::thread::sleep(Duration::from_millis(
            random.random_range(plan.alive.0..plan.alive.1),
        ));
        if appliance.kill() {
            kills += 1;
        } else {
            deaths += 1;
        }
    }

    // At last in peace, until all senders are done.
    appliance.set_fail_points(plan.always);
    appliance.start();
    appliance.wait_recovered();
    std::thread::sleep(Duration::from_millis(100));
    run.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a sender");
    }
    if findings.is_empty() {
        let written = locked(&run.file.ledger).acknowledged.len();
        let begun = std::time::Instant::now();
        while appliance.lines("{stream=\"file\"}").len() < written && begun.elapsed() < PATIENCE / 3
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        for round in [
            "in heads and chunks",
            "in chunks alone",
            "after a graceful stop",
        ] {
            let mut found = run.check_logs(&appliance);
            found.extend(run.check_stream(&appliance, &run.file, true));
            // By search all, every time.
            let some = (round != "in chunks alone").then_some(300);
            found.extend(run.check_traces(&appliance, some, &mut random));
            found.extend(run.check_search(&appliance, &mut random));
            found.extend(run.check_index(&appliance, &mut random));
            found.extend(run.check_count(&appliance));
            if !found.is_empty() {
                eprintln!("crash: found {round}");
            }
            findings.extend(found);
            if round == "in heads and chunks" {
                appliance.flush();
            } else {
                assert!(appliance.stop().success());
                appliance.start();
                appliance.wait_recovered();
            }
        }
    }
    let complaints = std::mem::take(&mut *locked(&run.complaints));
    assert!(complaints.is_empty(), "senders were told: {complaints:?}");
    let lines = run.streams.iter().chain([&run.file]);
    let lines: usize = lines.map(|s| locked(&s.ledger).acknowledged.len()).sum();
    let traces: usize = run
        .services
        .iter()
        .map(|s| locked(&s.acknowledged).len())
        .sum();
    eprintln!(
        "crash: {kills} kills and {deaths} deaths by fail point, {lines} lines and {traces} traces \
         in {} pushes",
        run.pushes.load(Ordering::Relaxed),
    );
    if !findings.is_empty() {
        eprintln!(
            "crash: {} findings, such as {:?}",
            findings.len(),
            &findings[..findings.len().min(20)]
        );
    }
    findings
}

/// Runs: more with SLOW=1.
fn times() -> u64 {
    if std::env::var_os("SLOW").is_some_and(|v| v != "0") {
        10
    } else {
        1
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_once_and_in_order() {
    let plan = Plan {
        kills: 50,
        alive: (20, 600),
        always: SMALL_SEGMENTS,
        sometimes: SLEEPS,
        flushes: true,
    };
    // Anew each time: what is checked after every few kills is all that was ever sent.
    for n in 0..times() {
        assert_eq!(crash(&plan, seed() + n).len(), 0);
    }
}

#[test]
fn what_was_acknowledged_survives_ends_in_the_middle_of_any_step() {
    let plan = Plan {
        kills: 8,
        alive: (200, 700),
        always: SMALL_SEGMENTS,
        sometimes: PANICS,
        flushes: true,
    };
    // Anew each time: what is checked after every few kills is all that was ever sent.
    for n in 0..times() {
        assert_eq!(crash(&plan, seed() + n).len(), 0);
    }
}

fn lost(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|f| matches!(f, Finding::Lost(_)))
        .count()
}

#[test]
fn an_acknowledgement_before_the_journal_is_written_is_found_out() {
    let plan = Plan {
        kills: 3,
        alive: (200, 300),
        always: "ack-before-journal=20%return",
        sometimes: &[],
        flushes: false,
    };
    assert_ne!(lost(&crash(&plan, seed())), 0);
}

#[test]
fn a_segment_that_replay_leaves_out_is_found_out() {
    let plan = Plan {
        kills: 3,
        alive: (300, 400),
        always: "journal-segment-bytes=return(20000);replay-skip-segment=1*return",
        sometimes: &[],
        flushes: false,
    };
    assert_ne!(lost(&crash(&plan, seed())), 0);
}
