//! What chunks gave to metric queries is kept. That must never show, whatever is pushed
//! meanwhile.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, encoded, now};

const MINUTE: u64 = 60_000_000_000;
/// Of lines; more than an hour behind their stream they would be refused.
const MINUTES: u64 = 50;

const RANGE_QUERIES: [&str; 8] = [
    "sum by (status) (count_over_time({job=\"kept\"} | json [5m]))",
    "sum by (n) (rate({job=\"kept\"} |= \"a\" [1m]))",
    "sum(bytes_over_time({job=\"kept\"} != \"a\" [10m] offset 90s))",
    "count_over_time({n=\"1\"} | json | status >= 500 [7m])",
    "quantile_over_time(0.9, {job=\"kept\"} | json | unwrap took [5m]) by (n)",
    "sum by (n) (sum_over_time({job=\"kept\"} | json | unwrap took [30m]))",
    "sum by (detected_level) (count_over_time({job=\"kept\"} |= \"level\" [5m]))",
    "absent_over_time({n=\"2\"} |= \"rare\" [2m])",
];

const INSTANT_QUERIES: [&str; 3] = [
    "sum(count_over_time({job=\"kept\"} |= \"a\" [3h]))",
    "sum by (status) (count_over_time({job=\"kept\"} | json [2h]))",
    "max_over_time({job=\"kept\"} | json | unwrap took [3h]) by (n)",
];

fn result(appliance: &Appliance, path: &str) -> Value {
    let answer = appliance.get("loki.listen", path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["data"]["result"].clone()
}

#[test]
fn answers_with_kept_results_equal_those_without_while_lines_come_late() {
    let seed = now() as u64;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let keeps = Setup::default().start();
    let reads = Setup::default()
        .set("memory.kept_results", "\"0B\"")
        .start();
    let end = now() as u64 / MINUTE * MINUTE;
    for round in 0..6 {
        let streams: Vec<_> = (0..3)
            .map(|n| {
                let values: Vec<_> = (0..60)
                    .map(|_| {
                        // On the bounds of windows as well.
                        let back = random.random_range(0..MINUTES) * MINUTE;
                        let past =
                            [0, 1, random.random_range(0..MINUTE)][random.random_range(0..3)];
                        let line = format!(
                            "{{\"status\":{},\"level\":\"{}\",\"took\":0.{},\"x\":\"{}\"}}",
                            [200, 404, 500, 503][random.random_range(0..4)],
                            ["info", "error"][random.random_range(0..2)],
                            random.random_range(1..1000),
                            ["a", "b", "rare"][random.random_range(0..3)],
                        );
                        json!([(end - back - past).to_string(), line])
                    })
                    .collect();
                json!({ "stream": { "job": "kept", "n": n.to_string() }, "values": values })
            })
            .collect();
        let body = json!({ "streams": streams });
        for appliance in [&keeps, &reads] {
            assert_eq!(appliance.push(&body).status, 204);
            if round % 2 == 0 {
                appliance.flush();
            }
        }
        let (first, last) = (end - 60 * MINUTE, end);
        let ranges = RANGE_QUERIES.iter().flat_map(|query| {
            // In whole minutes, finer, and not in step with the windows.
            [60, 15, 450].map(|step| {
                let query = encoded(query);
                format!(
                    "/loki/api/v1/query_range?query={query}&start={first}&end={last}&step={step}"
                )
            })
        });
        let instants = INSTANT_QUERIES.iter().flat_map(|query| {
            [0, 7 * MINUTE + 3].map(|back| {
                format!(
                    "/loki/api/v1/query?query={}&time={}",
                    encoded(query),
                    end - back
                )
            })
        });
        for path in ranges.chain(instants) {
            let expected = result(&reads, &path);
            for _ in 0..2 {
                assert_eq!(result(&keeps, &path), expected, "seed {seed}: {path}");
            }
        }
    }
    let metrics = keeps.get("loki.listen", "/metrics").text();
    let hits = metrics
        .lines()
        .find_map(|line| line.strip_prefix("watchpost_query_parts_hits_total "))
        .and_then(|value| value.parse::<u64>().ok());
    assert!(hits.is_some_and(|hits| hits > 100), "{hits:?}");
}
