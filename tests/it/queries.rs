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
