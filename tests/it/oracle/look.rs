//! Looks at what a program answers that may have lost or damaged something: what it answers
//! must be right, what it does not answer is counted.

use std::collections::HashSet;

use super::{Run, Service, number_of, spans_of, trace_id};
use crate::appliance::{Answer, Appliance, encoded, locked, now, streams_of};

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Acknowledged, and not in an answer that was given.
    pub missing: usize,
    /// Queries that were answered with an error.
    pub refused: usize,
    /// Lines and traces that were not sent, or not so.
    pub wrong: Vec<String>,
}

impl Seen {
    /// Whether there is an answer to look at.
    fn answered(&mut self, answer: &Result<Answer, String>, what: &str) -> bool {
        match answer {
            Ok(answer) if answer.status == 200 => true,
            Ok(answer) if answer.status >= 500 => {
                self.refused += 1;
                false
            }
            Ok(answer) => {
                self.wrong.push(format!("{what}: status {}", answer.status));
                false
            }
            // An answer that had begun is broken off.
            Err(_) => {
                self.refused += 1;
                false
            }
        }
    }
}

impl Run {
    /// Asks for all that was sent.
    pub fn see(&self, appliance: &Appliance) -> Seen {
        let mut seen = Seen::default();
        for stream in &self.streams {
            let now = now();
            let path = format!(
                "/loki/api/v1/query_range?query={}&start={}&end={}&limit=1000000&direction=forward",
                encoded(&stream.selector()),
                now - 2 * super::DAY,
                now + super::DAY
            );
            let answer = appliance.try_get("loki.listen", &path);
            if !seen.answered(&answer, &path) {
                continue;
            }
            let answer = answer.expect("answered");
            let mut lines = streams_of(&answer.json());
            lines.sort_by_key(|(at, _)| *at);
            let fates = locked(&stream.ledger).fates.clone();
            let mut there = HashSet::new();
            let mut before = None;
            for (_, text) in lines {
                let number = number_of(self.id, &stream.name, &text);
                let Some(number) = number.filter(|n| *n < fates.len()) else {
                    seen.wrong.push(format!("{}: {text}", stream.name));
                    continue;
                };
                if before.is_some_and(|before| number <= before) {
                    let text = format!("{}: {number} after {before:?}", stream.name);
                    seen.wrong.push(text);
                }
                before = Some(number);
                there.insert(number);
            }
            let acknowledged = (0..fates.len()).filter(|n| fates[*n].is_acknowledged());
            seen.missing += acknowledged.filter(|n| !there.contains(n)).count();
        }
        for service in &self.services {
            self.see_traces(appliance, service, &mut seen);
        }
        seen
    }

    fn see_traces(&self, appliance: &Appliance, service: &Service, seen: &mut Seen) {
        let path = format!(
            "/api/traces?service={}&limit=1000000&lookback=2d",
            service.name
        );
        let answer = appliance.try_get("jaeger.query.http", &path);
        if !seen.answered(&answer, &path) {
            return;
        }
        let answer = answer.expect("answered").json();
        let fates = locked(&service.ledger).fates.clone();
        let mut there = HashSet::new();
        for trace in answer["data"].as_array().into_iter().flatten() {
            let id = trace["traceID"].as_str().unwrap_or_default();
            let id = u128::from_str_radix(id, 16).unwrap_or(0);
            let number = (0..fates.len()).find(|n| trace_id(self.id, service.number, *n) == id);
            let Some(number) = number else {
                seen.wrong
                    .push(format!("trace {id:032x} of {}", service.name));
                continue;
            };
            there.insert(number);
            let sent: HashSet<String> = spans_of(self.id, service, number, 0)
                .iter()
                .map(|s| format!("{:016x} {}", s.span, s.name))
                .collect();
            let mut found = HashSet::new();
            for span in trace["spans"].as_array().into_iter().flatten() {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                let span = format!("{} {}", text("spanID"), text("operationName"));
                if !sent.contains(&span) || !found.insert(span.clone()) {
                    seen.wrong.push(format!("trace {id:032x}: {span}"));
                }
            }
            seen.missing += sent.len() - found.len().min(sent.len());
        }
        let acknowledged = (0..fates.len()).filter(|n| fates[*n].is_acknowledged());
        seen.missing += acknowledged.filter(|n| !there.contains(n)).count();
    }
}
