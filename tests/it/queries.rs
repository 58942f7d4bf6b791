//! Answers that the cases of `loki_cases` leave to chance, or do not ask for.

use serde_json::json;

use crate::appliance::{Appliance, Setup, encoded, now, streams_of};

fn ask(appliance: &Appliance, logql: &str, rest: &str) -> Vec<String> {
    let path = format!("/loki/api/v1/query_range?query={}&{rest}", encoded(logql));
    let answer = appliance.get("loki.listen", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    streams_of(&answer.json())
        .into_iter()
        .map(|(_, line)| line)
        .collect()
}

/// A limit in the middle of an instant took other lines with every tenant: the streams stood
/// in the order of their ids, which are hashes.
#[test]
fn lines_of_one_instant_are_in_the_order_of_their_labels_and_backwards_the_reverse() {
    let appliance = Setup::default().start();
    let at = now().to_string();
    let streams: Vec<_> = (10..30)
        .map(|n| {
            json!({ "stream": { "job": "tie", "n": n.to_string() },
                         "values": [[at, n.to_string()]] })
        })
        .collect();
    assert_eq!(appliance.push(&json!({ "streams": streams })).status, 204);
    for _ in 0..2 {
        let first = ask(&appliance, "{job=\"tie\"}", "limit=3&direction=forward");
        assert_eq!(first, ["10", "11", "12"]);
        let last = ask(&appliance, "{job=\"tie\"}", "limit=3&direction=backward");
        assert_eq!(last, ["27", "28", "29"]);
        appliance.flush();
    }
}

/// Levels were not looked for where only a filter behind `unwrap` named them.
#[test]
fn a_filter_of_unwrapped_samples_sees_the_level_of_the_line() {
    let appliance = Setup::default().start();
    let lines = [("info", 11), ("error", 7)].map(|(level, n)| format!("level={level} n={n}"));
    let at = now();
    let values: Vec<_> = (0..)
        .zip(&lines)
        .map(|(i, l)| json!([(at - i).to_string(), l]))
        .collect();
    let push = json!({ "streams": [{ "stream": { "job": "unwrapped" }, "values": values }] });
    assert_eq!(appliance.push(&push).status, 204);
    for query in [
        "max_over_time({job=\"unwrapped\"} | logfmt | unwrap n | detected_level != `info` [5m]) by (job)",
        "sum by (job) (sum_over_time({job=\"unwrapped\"} | logfmt | unwrap n | detected_level = `error` [5m]))",
    ] {
        let path = format!("/loki/api/v1/query?query={}", encoded(query));
        let answer = appliance.get("loki.listen", &path).json();
        assert_eq!(
            answer["data"]["result"][0]["value"][1], "7",
            "{query}: {answer}"
        );
    }
}

/// Its line stayed until the next start.
#[test]
fn a_checkpoint_that_failed_is_told_by_ready_until_one_succeeds() {
    let mut appliance = Setup::default()
        .env("FAILPOINTS", "checkpoint-fails=1*return->off")
        .start();
    appliance.expect_log("checkpoint failed");
    appliance.expect_log("flush failed");
    let at = now().to_string();
    let streams = json!([{ "stream": { "job": "kept" }, "values": [[at, "line"]] }]);
    assert_eq!(appliance.push(&json!({ "streams": streams })).status, 204);
    let flush = || appliance.post("loki.listen", "/flush", &[], b"").status;
    let ready = || appliance.get("loki.listen", "/ready").text();
    assert_eq!(flush(), 500);
    assert!(ready().contains("checkpoint failed"), "{}", ready());
    assert_eq!(flush(), 204);
    assert!(!ready().contains("checkpoint failed"), "{}", ready());
    assert_eq!(ask(&appliance, "{job=\"kept\"}", "limit=3"), ["line"]);
}
