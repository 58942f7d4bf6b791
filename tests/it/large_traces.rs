//! Traces of many spans, read within the memory budget; traces that are kept beyond retention;
//! spans that are sent twice.

use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, now};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// OTLP JSON with these spans of a trace; each has about `text` bytes.
fn batch(trace: &str, spans: std::ops::Range<u64>, text: usize) -> Vec<u8> {
    let span = |n: u64| {
        let start = 1_000_000_000 * 60 * 60 * 24 * 20_000 + n * 1_000_000;
        let mut span = json!({
            "traceId": trace,
            "spanId": format!("{:016x}", n + 1),
            "name": format!("step {}", n % 50),
            "kind": 1 + n % 3,
            "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 500_000).to_string(),
            "attributes": [
                {"key": "text", "value": {"stringValue": format!("{n:0>text$}")}},
                {"key": "n", "value": {"intValue": n.to_string()}},
            ],
        });
        if n > 0 {
            span["parentSpanId"] = format!("{:016x}", n / 4 + 1).into();
        }
        span
    };
    let spans: Vec<Value> = spans.map(span).collect();
    let service = json!({"key": "service.name", "value": {"stringValue": "long"}});
    let batch = json!({"resourceSpans": [{
        "resource": {"attributes": [service]},
        "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}],
    }]});
    batch.to_string().into_bytes()
}

fn send(appliance: &Appliance, body: &[u8]) {
    let json = [("content-type", "application/json")];
    let answer = appliance.post("otlp.http", "/v1/traces", &json, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The spans of the only trace of an answer, each checked and known by its number.
fn numbers(answer: &Value) -> Vec<u64> {
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(1));
    let spans = answer["data"][0]["spans"].as_array().expect("spans");
    let mut numbers: Vec<u64> = spans
        .iter()
        .map(|span| {
            let tags = span["tags"].as_array().expect("tags");
            let tag = |key: &str| tags.iter().find(|t| t["key"] == key).map(|t| &t["value"]);
            let n = tag("n").and_then(Value::as_u64).expect("a number");
            assert_eq!(span["spanID"], format!("{:016x}", n + 1));
            let text = tag("text").and_then(Value::as_str).expect("a text");
            assert_eq!(text.trim_start_matches('0').parse().unwrap_or(0), n);
            if n > 0 {
                let parent = format!("{:016x}", n / 4 + 1);
                assert_eq!(span["references"][0]["spanID"], parent);
            }
            n
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn trace(appliance: &Appliance, id: &str, parameters: &str) -> Value {
    let path = format!("/api/traces/{id}{parameters}");
    let answer = appliance.get("jaeger.query.http", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Sends a trace and reads it from heads, blocks, and after kill -9.
fn check_large(spans: u64, text: usize, memory: &str) -> (u64, u64) {
    let mut appliance = Setup::default()
        .set("memory.limit", format!("{memory:?}"))
        .start();
    for from in (0..spans).step_by(500) {
        send(&appliance, &batch(TRACE, from..spans.min(from + 500), text));
    }
    let all: Vec<u64> = (0..spans).collect();
    for round in 0..3 {
        for parameters in ["", "?raw=true"] {
            let found = trace(&appliance, TRACE, parameters);
            assert!(numbers(&found) == all, "round {round}{parameters}");
            let skewed = found.to_string().contains("clock skew");
            assert_eq!(skewed, parameters.is_empty(), "adjusted unless raw");
        }
        // A search finds it as well, whatever its size.
        let search = "/api/traces?service=long&start=1&end=1799999999999999";
        let found = appliance.get("jaeger.query.http", search);
        assert!(numbers(&found.json()) == all, "round {round}, search");
        match round {
            0 => appliance.flush(),
            1 => {
                appliance.kill();
                appliance.start();
                appliance.wait_recovered();
            }
            _ => {}
        }
    }
    appliance.resident()
}

#[test]
fn a_trace_of_more_spans_than_elasticsearch_has_on_a_page_is_whole() {
    check_large(10_008, 100, "128MiB");
}

/// `SLOW=1 cargo test --test it -- --ignored --nocapture a_hundred_thousand`
#[test]
#[ignore = "takes a minute"]
fn a_hundred_thousand_spans_are_answered_within_the_budget() {
    let (now, peak) = check_large(100_000, 1000, "128MiB");
    println!(
        "RSS at the end {} MiB, at most {} MiB",
        now >> 20,
        peak >> 20
    );
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
}

#[test]
fn an_archived_trace_survives_a_kill_and_is_there_once() {
    let mut appliance = Setup::default().start();
    let archive = |appliance: &Appliance, id: &str| {
        let path = format!("/api/archive/{id}");
        appliance.post("jaeger.query.http", &path, &[], b"")
    };
    assert_eq!(archive(&appliance, TRACE).status, 404);
    send(&appliance, &batch(TRACE, 0..1200, 50));
    for _ in 0..2 {
        let answer = archive(&appliance, TRACE);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["errors"], json!([]));
    }
    send(&appliance, &batch(TRACE, 1200..1300, 50));
    assert_eq!(archive(&appliance, TRACE).status, 200);
    assert_eq!(
        appliance.metric("watchpost_archived_spans_total", &[]),
        1300.0
    );
    appliance.kill();
    // As if retention had dropped everything.
    let data = appliance.data_dir();
    std::fs::remove_dir_all(data.join("journal")).expect("the journal");
    appliance.start();
    appliance.wait_recovered();
    let all: Vec<u64> = (0..1300).collect();
    assert!(numbers(&trace(&appliance, TRACE, "")) == all);
    // No search looks into the archive.
    let end = now() / 1000;
    let search = format!("/api/traces?service=long&start=1&end={end}");
    let found = appliance.get("jaeger.query.http", &search).json();
    assert_eq!(found["data"], json!([]));
}

#[test]
fn what_a_sender_repeats_is_stored_once() {
    let mut appliance = Setup::default().start();
    let stored = |a: &Appliance| {
        [
            a.metric("watchpost_spans_stored_total", &[]),
            a.metric("watchpost_spans_repeated_total", &[]),
        ]
    };
    send(&appliance, &batch(TRACE, 0..3000, 50));
    send(&appliance, &batch(TRACE, 1000..2000, 50));
    assert_eq!(stored(&appliance), [3000.0, 1000.0]);
    // Other content under the same ids is another span.
    send(&appliance, &batch(TRACE, 7..8, 60));
    assert_eq!(stored(&appliance), [3001.0, 1000.0]);
    let with_both: Vec<u64> = (0..=7).chain(7..3000).collect();
    assert!(numbers(&trace(&appliance, TRACE, "")) == with_both);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    assert!(numbers(&trace(&appliance, TRACE, "")) == with_both);
    // What was recognised before the kill is recognised by the replay, and after it.
    assert_eq!(stored(&appliance), [3001.0, 1000.0]);
    send(&appliance, &batch(TRACE, 0..10, 50));
    assert_eq!(stored(&appliance), [3001.0, 1010.0]);
    appliance.flush();
    assert!(numbers(&trace(&appliance, TRACE, "")) == with_both);
}

#[test]
fn a_short_id_is_found_however_it_is_written() {
    let appliance = Setup::default().start();
    let id = format!("{:0>32}", "abc123");
    send(&appliance, &batch(&id, 0..3, 10));
    for sealed in [false, true] {
        let padded = format!("{:0>16}", "abc123");
        for written in ["abc123", "0abc123", &padded, &id, "ABC123"] {
            let found = trace(&appliance, written, "");
            assert_eq!(numbers(&found), [0, 1, 2], "{written}, sealed: {sealed}");
            assert_eq!(found["data"][0]["traceID"], padded);
        }
        let other = appliance.get("jaeger.query.http", &format!("/api/traces/1{id:0>31.31}"));
        assert_ne!(other.status, 200);
        appliance.flush();
    }
}
