//! Asks the running program for everything that was sent.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;

use super::grpc::Grpc;
use super::{
    Cut, FLUSH_PROMISE, Fate, Finding, Ledger, LogStream, Run, line, needle, number_of, spans_of,
    trace_id, word,
};
use crate::appliance::{Appliance, PATIENCE, encoded, locked, now};

/// Compares what was acknowledged with what is there. `fates` is what was known before
/// anybody asked.
fn judge(
    name: &str,
    ledger: &Mutex<Ledger>,
    fates: &[Fate],
    there: &[bool],
    cut: Option<Cut>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ledger = locked(ledger);
    let old = ledger.old.min(fates.len());
    let last_there = there[..old].iter().rposition(|there| *there);
    for (number, (fate, there)) in fates.iter().zip(there).enumerate() {
        match fate {
            Fate::Acknowledged(at) if !there => {
                let given = cut.is_some_and(|cut| {
                    let promise = cut.at.checked_sub(FLUSH_PROMISE);
                    cut.flush && number < old && promise.is_none_or(|promise| *at >= promise)
                });
                if !given {
                    findings.push(Finding::Lost(format!("{name} {number}")));
                } else if last_there > Some(number) {
                    let text = format!("{name} {number}, though {last_there:?} is there");
                    findings.push(Finding::Hole(text));
                } else {
                    ledger.fates[number] = Fate::Given;
                }
            }
            // It was on the disk when the process began, and must stay.
            Fate::Sent if *there && number < old => {
                ledger.fates[number] = Fate::Acknowledged(Instant::now());
            }
            _ => {}
        }
    }
    findings
}

/// Traces of a service that are asked for at once.
const MOST_LISTED: usize = 20_000;

impl Run {
    /// Everything, when nothing is sent any more. Empty when all is well.
    pub fn check_all(&self, appliance: &Appliance, random: &mut StdRng) -> Vec<Finding> {
        let written = locked(&self.file.ledger).acknowledged();
        let begun = Instant::now();
        while appliance.lines(&self.file.selector()).len() < written
            && begun.elapsed() < PATIENCE / 3
        {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let mut found = self.check_logs(appliance, None);
        found.extend(self.check_stream(appliance, &self.file, true, None));
        found.extend(self.check_traces(appliance, Some(30), random));
        found.extend(self.check_search(appliance, None, random));
        found.extend(self.check_index(appliance, random));
        found.extend(self.check_archive(appliance));
        found.extend(self.check_count(appliance));
        found
    }

    /// What can be asked while senders go on. After a power cut, `cut` says what it may cost.
    pub fn check_some(
        &self,
        appliance: &Appliance,
        cut: Option<Cut>,
        random: &mut StdRng,
    ) -> Vec<Finding> {
        let mut found = self.check_logs(appliance, cut);
        found.extend(self.check_search(appliance, cut, random));
        found.extend(self.check_traces(appliance, Some(4), random));
        found.extend(self.check_archive(appliance));
        found
    }

    /// Compares a stream with what was sent. `complete`: what is acknowledged must be there.
    fn check_stream(
        &self,
        appliance: &Appliance,
        stream: &LogStream,
        complete: bool,
        cut: Option<Cut>,
    ) -> Vec<Finding> {
        let fates = locked(&stream.ledger).fates.clone();
        let lines = appliance.lines(&stream.selector());
        let sent = locked(&stream.ledger).fates.len();
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
            findings.extend(judge(&stream.name, &stream.ledger, &fates, &there, cut));
        }
        findings
    }

    /// By scan; while senders go on.
    fn check_logs(&self, appliance: &Appliance, cut: Option<Cut>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .streams
            .iter()
            .flat_map(|s| self.check_stream(appliance, s, true, cut))
            .collect();
        findings.extend(self.check_stream(appliance, &self.file, false, None));
        findings
    }

    /// Acknowledged lines are found by their number and by their word, each alone.
    fn check_index(&self, appliance: &Appliance, random: &mut StdRng) -> Vec<Finding> {
        let mut findings = Vec::new();
        for stream in &self.streams {
            let acknowledged: Vec<usize> = {
                let ledger = locked(&stream.ledger);
                let numbers = ledger.fates.iter().enumerate();
                let numbers = numbers.filter(|(_, fate)| fate.is_acknowledged());
                numbers.map(|(n, _)| n).collect()
            };
            for _ in 0..acknowledged.len().min(6) {
                let number = acknowledged[random.random_range(0..acknowledged.len())];
                for needle in [
                    needle(self.id, &stream.name, number),
                    word(&stream.name, number),
                ] {
                    let query = format!("{} |= \"{needle}\"", stream.selector());
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
        let mut findings = Vec::new();
        for stream in &self.streams {
            let selector = stream.selector();
            let scanned = appliance.lines(&selector).len();
            let query = encoded(&format!("sum(count_over_time({selector}[3d]))"));
            let path = format!("/loki/api/v1/query?query={query}&time={}", now());
            let counted = appliance.get("loki.listen", &path).json();
            let counted = counted["data"]["result"][0]["value"][1]
                .as_str()
                .unwrap_or("0")
                .to_owned();
            if counted != scanned.to_string() {
                let text = format!("{selector}: counted {counted} lines, scanned {scanned}");
                findings.push(Finding::Index(text));
            }
        }
        findings
    }

    /// Traces by id: `some` of each service, or all.
    fn check_traces(
        &self,
        appliance: &Appliance,
        some: Option<usize>,
        random: &mut StdRng,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for service in &self.services {
            let fates = locked(&service.ledger).fates.clone();
            let numbers: Vec<usize> = match some {
                Some(_) if fates.is_empty() => Vec::new(),
                Some(n) => (0..n)
                    .map(|_| random.random_range(0..fates.len()))
                    .collect(),
                None => (0..fates.len()).collect(),
            };
            for number in numbers {
                let id = trace_id(self.id, service.number, number);
                let answer = appliance.get("jaeger.query.http", &format!("/api/traces/{id:032x}"));
                let what = format!("{} {number}", service.name);
                if answer.status == 404 {
                    // An archived trace is found by its id wherever it is; others must be there.
                    if fates[number].is_acknowledged() {
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
    fn check_search(
        &self,
        appliance: &Appliance,
        cut: Option<Cut>,
        random: &mut StdRng,
    ) -> Vec<Finding> {
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
            let fates = locked(&service.ledger).fates.clone();
            // More do not fit into one answer; a soak has them, and reads some by their ids.
            if fates.len() <= MOST_LISTED {
                let mut all: HashMap<String, usize> = HashMap::new();
                for id in search(&format!(
                    "service={}&limit=1000000&lookback=2d",
                    service.name
                )) {
                    *all.entry(id).or_default() += 1;
                }
                let sent = locked(&service.ledger).fates.len();
                let there: Vec<bool> = (0..sent)
                    .map(|number| {
                        let id = format!("{:032x}", trace_id(self.id, service.number, number));
                        let times = all.remove(&id).unwrap_or(0);
                        if times > 1 {
                            findings.push(Finding::OutOfOrder(format!("{id}: {times} times")));
                        }
                        times > 0
                    })
                    .collect();
                let name = format!("{} by search", service.name);
                findings.extend(judge(&name, &service.ledger, &fates, &there, cut));
                findings.extend(
                    all.into_keys()
                        .map(|id| Finding::NotSent(format!("trace {id}"))),
                );
            }
            for _ in 0..fates.len().min(3) {
                let number = random.random_range(0..fates.len());
                if !locked(&service.ledger).fates[number].is_acknowledged() {
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

    /// What was archived is in the archive, once.
    fn check_archive(&self, appliance: &Appliance) -> Vec<Finding> {
        let archived = locked(&self.archived).clone();
        let mut grpc = Grpc::new();
        let mut findings = Vec::new();
        let Some(address) = appliance.address("jaeger.storage.grpc") else {
            return findings;
        };
        for (trace, wanted) in archived {
            let what = format!("archived trace {trace:032x}");
            match grpc.archived(address, trace) {
                Ok(found) if found == wanted => {}
                Ok(found) if found.len() > wanted.len() => {
                    findings.push(Finding::OutOfOrder(format!("{what}: {found:x?}")));
                }
                Ok(found) => {
                    let text = format!("{what}: {found:x?} instead of {wanted:x?}");
                    findings.push(Finding::Lost(text));
                }
                Err(status) => findings.push(Finding::Index(format!("{what}: {status}"))),
            }
        }
        findings
    }
}
