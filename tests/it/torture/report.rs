//! Figures of long runs: each mode appends a line to the file `TORTURE_OUT`, and the last test
//! writes the table of all of them to the file `TORTURE_REPORT`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

/// What the report begins with: sums over all modes.
const TOGETHER: [(&str, &[&str]); 9] = [
    (
        "kills",
        &["kills at random moments", "kills at named points"],
    ),
    (
        "lines and traces acknowledged",
        &["lines acknowledged", "traces acknowledged"],
    ),
    ("of these lost", &["lost"]),
    ("twice or out of order", &["twice or out of order"]),
    ("power cuts", &["power cuts"]),
    ("injected errors", &["injected errors"]),
    ("damaged bytes", &["flips"]),
    (
        "wrong answers, panics or hangs of all these",
        &["wrong", "panic or wrong line", "not as sent"],
    ),
    ("deliberate bugs found", &["bugs found"]),
];

/// Adds figures of a mode; numbers with the same name are summed in the report, texts are
/// collected.
pub fn add(mode: &str, figures: Value) {
    eprintln!("torture: {mode}: {figures}");
    let Some(path) = std::env::var_os("TORTURE_OUT") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let line = json!({ "mode": mode, "figures": figures });
    writeln!(file.expect("TORTURE_OUT"), "{line}").expect("TORTURE_OUT");
}

/// A bug that was made on purpose was found.
pub fn found_bug(bug: &str) {
    add("Deliberate bugs", json!({ "bugs found": 1, bug: "found" }));
}

/// A number of the environment, for the long modes.
pub fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |n| {
        n.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
    })
}

/// One cell: a sum, or what was collected.
fn merge(into: &mut Map<String, Value>, figures: &Map<String, Value>) {
    for (name, value) in figures {
        let known = into.entry(name.clone()).or_insert(Value::Null);
        *known = match (&*known, value) {
            (Value::Null, value) => value.clone(),
            (Value::Number(a), Value::Number(b)) => {
                json!(a.as_i64().unwrap_or(0) + b.as_i64().unwrap_or(0))
            }
            (Value::String(a), Value::String(b)) => {
                let mut all: Vec<&str> = a.split(", ").chain(b.split(", ")).collect();
                all.sort_unstable();
                all.dedup();
                json!(all.join(", "))
            }
            (Value::Object(a), Value::Object(b)) => {
                let mut a = a.clone();
                merge(&mut a, b);
                Value::Object(a)
            }
            (_, value) => value.clone(),
        };
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(parts) => {
            let parts = parts
                .iter()
                .map(|(name, value)| format!("{name}: {}", text(value)));
            parts.collect::<Vec<_>>().join("; ")
        }
        value => value.to_string(),
    }
}

#[test]
#[ignore = "writes the report of a run of `make torture`"]
fn write_report() {
    let results = std::env::var("TORTURE_OUT").expect("TORTURE_OUT");
    let lines = std::fs::read_to_string(&results).expect("results");
    let mut modes: BTreeMap<String, (u64, Map<String, Value>)> = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("a result");
        let mode = line["mode"].as_str().expect("a mode").to_owned();
        let (runs, figures) = modes.entry(mode).or_default();
        *runs += 1;
        merge(figures, line["figures"].as_object().expect("figures"));
    }
    let sum = |names: &[&str]| -> i64 {
        let of = |name: &&str| -> i64 {
            let parts = modes.values().filter_map(|(_, figures)| figures.get(*name));
            parts.filter_map(Value::as_i64).sum()
        };
        names.iter().map(of).sum()
    };
    let mut out = String::from(include_str!("report.md"));
    for (what, names) in TOGETHER {
        out.push_str(&format!("| {what} | {} |\n", sum(names)));
    }
    for (mode, (runs, figures)) in &modes {
        out.push_str(&format!("\n## {mode}\n\n| | {runs} runs |\n|---|---|\n"));
        for (name, value) in figures {
            out.push_str(&format!("| {name} | {} |\n", text(value)));
        }
    }
    let report = std::env::var("TORTURE_REPORT").expect("TORTURE_REPORT");
    std::fs::write(report, out).expect("the report");
}
