//! What Grafana's Explore and Logs Drilldown send, asked of the real program.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, encoded, now, streams_of};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

/// A service with JSON lines, one with logfmt, one with plain text, over ten minutes.
struct Shop {
    appliance: Appliance,
    /// A whole minute, ten minutes before the last line.
    start: i64,
    end: i64,
}

fn shop() -> Shop {
    let mut shop = Shop {
        appliance: Setup::default().start(),
        start: 0,
        end: 0,
    };
    shop.start = (now() - 15 * MINUTE) / MINUTE * MINUTE;
    shop.end = shop.start + 10 * MINUTE;
    let mut values: [Vec<Value>; 3] = Default::default();
    for n in 0..300 {
        let at = shop.start + n * 2 * SECOND + 7;
        let level = if n % 10 == 0 { "error" } else { "info" };
        let lines = [
            format!(
                r#"{{"level":"{level}","req":{{"a\"b":"x{n}","status":{}}},"took":"{n}ms"}}"#,
                200 + n % 3
            ),
            format!(
                r#"level={level} msg="user {n} logged in from 10.0.0.{n}" took={n}ms size=2KB"#
            ),
            format!("worker {n} finished job number {n} in {n} seconds"),
        ];
        for (values, line) in values.iter_mut().zip(lines) {
            values.push(json!([at.to_string(), line, {"trace_id": format!("t{}", n % 5)}]));
        }
    }
    let streams: Vec<Value> = ["cart", "login", "worker"]
        .iter()
        .zip(values)
        .map(|(app, values)| {
            json!({"stream": {"app": app, "env": "prod", "pod": "7"}, "values": values})
        })
        .collect();
    let answer = shop.appliance.push(&json!({ "streams": streams }));
    assert_eq!(answer.status, 204, "{}", answer.text());
    shop
}

impl Shop {
    /// Asks with Drilldown's header, by GET and by POST, which must say the same.
    #[track_caller]
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let form: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let form = form.join("&");
        let got = self.appliance.get("loki.listen", &format!("{path}?{form}"));
        assert_eq!(got.status, 200, "{path}?{form}: {}", got.text());
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Query-Tags", "Source=grafana-lokiexplore-app"),
        ];
        let posted = self
            .appliance
            .post("loki.listen", path, &headers, form.as_bytes());
        assert_eq!(posted.status, 200, "{path}: {}", posted.text());
        let [mut got, mut posted] = [got.json(), posted.json()];
        for answer in [&mut got, &mut posted] {
            if let Some(data) = answer.get_mut("data").and_then(Value::as_object_mut) {
                data.remove("stats");
            }
        }
        assert_eq!(got, posted, "{path}?{form}");
        got
    }

    /// Asks about the ten minutes.
    #[track_caller]
    fn about(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let (start, end) = (self.start.to_string(), self.end.to_string());
        let mut all = vec![("start", start.as_str()), ("end", end.as_str())];
        all.extend_from_slice(parameters);
        self.ask(path, &all)
    }

    /// Lines that a log query gives in the ten minutes.
    #[track_caller]
    fn lines(&self, query: &str) -> usize {
        let path = "/loki/api/v1/query_range";
        let limit = [("query", query), ("limit", "5000")];
        streams_of(&self.about(path, &limit)).len()
    }
}

#[test]
fn drilldown_learns_what_the_server_can() {
    let shop = shop();
    let limits = shop.ask("/loki/api/v1/drilldown-limits", &[]);
    assert_eq!(limits["version"], "3.7.6");
    assert_eq!(limits["pattern_ingester_enabled"], true);
    assert_eq!(limits["limits"]["volume_enabled"], true);
    assert_eq!(limits["limits"]["retention_period"], "30d");
    assert_eq!(limits["limits"]["discover_service_name"][1], "app");
    let build = shop
        .appliance
        .get("loki.listen", "/loki/api/v1/status/buildinfo");
    assert_eq!(build.json()["version"], "3.7.6");
}

#[test]
fn volumes_are_exact_before_and_after_sealing() {
    let shop = shop();
    let whole = "/loki/api/v1/index/volume";
    let services = [
        ("query", r#"{service_name=~".+"}"#),
        ("limit", "5000"),
        ("targetLabels", "service_name"),
    ];
    let open = shop.about(whole, &services);
    let result = open["data"]["result"].as_array().expect("a vector");
    assert_eq!(open["data"]["resultType"], "vector");
    let names: Vec<_> = result
        .iter()
        .map(|r| r["metric"]["service_name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["login", "cart", "worker"], "by size: {open}");
    assert_eq!(result[0]["value"][0], json!(shop.end / SECOND));
    shop.appliance.flush();
    assert_eq!(shop.about(whole, &services), open);

    // Any range: what the volume says is what the statistics count.
    let bytes_of = |answer: &Value| -> i64 {
        let result = answer["data"]["result"].as_array().expect("a result");
        let samples = result.iter().flat_map(|r| match r["values"].as_array() {
            Some(values) => values.clone(),
            None => vec![r["value"].clone()],
        });
        samples
            .map(|s| {
                s[1].as_str()
                    .and_then(|n| n.parse::<i64>().ok())
                    .expect("a number")
            })
            .sum()
    };
    for (from, until) in [(0, 600), (7, 311), (120, 180), (59, 61), (0, 1), (599, 600)] {
        let (start, end) = (
            (shop.start + from * SECOND).to_string(),
            (shop.start + until * SECOND).to_string(),
        );
        let range = [
            ("query", r#"{app="login"}"#),
            ("start", start.as_str()),
            ("end", end.as_str()),
        ];
        let stats = shop.ask("/loki/api/v1/index/stats", &range);
        let volume = shop.ask(whole, &range);
        assert_eq!(json!(bytes_of(&volume)), stats["bytes"], "{from} {until}");
        for step in ["7", "60", "1m30s"] {
            let mut stepwise = range.to_vec();
            stepwise.push(("step", step));
            let volumes = shop.ask("/loki/api/v1/index/volume_range", &stepwise);
            assert_eq!(
                json!(bytes_of(&volumes)),
                stats["bytes"],
                "{from} {until} {step}"
            );
        }
    }

    let minutes = [("query", r#"{app="worker"}"#), ("step", "60")];
    let minutes = shop.about("/loki/api/v1/index/volume_range", &minutes);
    assert_eq!(minutes["data"]["resultType"], "matrix");
    let values = minutes["data"]["result"][0]["values"]
        .as_array()
        .expect("values");
    assert_eq!(values.len(), 10);
    let first = ((shop.start + MINUTE) / SECOND) as f64 - 0.001;
    let shown = values[0][0].as_f64().expect("a time");
    assert!((shown - first).abs() < 1e-4, "{shown} {first}");
    assert_eq!(values[9][0], json!(shop.end / SECOND));

    let labels = [("query", "{}"), ("aggregateBy", "labels"), ("limit", "2")];
    let labels = shop.about(whole, &labels);
    let metrics: Vec<_> = labels["data"]["result"]
        .as_array()
        .expect("a vector")
        .iter()
        .map(|r| r["metric"].clone())
        .collect();
    assert_eq!(metrics, [json!({"app": ""}), json!({"env": ""})]);
    let none = [("query", r#"{app="nope"}"#)];
    let none = shop.about(whole, &none);
    assert_eq!(none["data"], json!({"resultType": "vector", "result": []}));
}

#[test]
fn fields_lead_to_queries_that_find_their_values() {
    let shop = shop();
    let labels = shop.about("/loki/api/v1/detected_labels", &[]);
    let mut cardinality: BTreeMap<String, i64> = BTreeMap::new();
    for label in labels["detectedLabels"].as_array().expect("labels") {
        let name = label["label"].as_str().expect("a name").to_owned();
        cardinality.insert(name, label["cardinality"].as_i64().expect("a number"));
    }
    let expected = [("app", 3), ("env", 1), ("pod", 1), ("service_name", 3)];
    assert_eq!(
        cardinality,
        expected.map(|(name, n)| (name.to_owned(), n)).into()
    );

    let query = ("query", r#"{service_name="cart"} | detected_level != """#);
    let answer = shop.about("/loki/api/v1/detected_fields", &[query]);
    let field = |name: &str| {
        let fields = answer["fields"].as_array().expect("fields");
        let field = fields.iter().find(|f| f["label"] == name);
        field
            .unwrap_or_else(|| panic!("no {name}: {answer}"))
            .clone()
    };
    assert_eq!(answer["limit"], 1000);
    assert_eq!(
        field("took"),
        json!({"label": "took", "type": "duration", "cardinality": 100,
               "parsers": ["json"], "jsonPath": ["took"]})
    );
    assert_eq!(field("trace_id")["parsers"], Value::Null);
    assert_eq!(field("detected_level")["cardinality"], 2);
    let path = &field("req_a_b")["jsonPath"];
    assert_eq!(*path, json!(["req", "a\"b"]));

    // Drilldown makes an expression of the path.
    let parsed = r#"{service_name="cart"} | json x="[\"req\"][\"a\\\"b\"]" | x="x17""#;
    assert_eq!(shop.lines(parsed), 1);
    let status = [query, ("limit", "2")];
    let values = shop.about("/loki/api/v1/detected_field/req_status/values", &status);
    assert_eq!(values, json!({"values": ["200", "201"], "limit": 2}));
    let levels = shop.about(
        "/loki/api/v1/detected_field/detected_level/values",
        &[query],
    );
    assert_eq!(levels["values"], json!(["error", "info"]));
    let sizes = [("query", r#"{app="login"} | logfmt"#), ("line_limit", "5")];
    let sizes = shop.about("/loki/api/v1/detected_field/size/values", &sizes);
    assert_eq!(sizes["values"], json!(["2.0kB"]));
    let none = shop.about("/loki/api/v1/detected_field/nope/values", &[query]);
    assert_eq!(none, json!({}));

    let by_field = r#"sum(count_over_time({service_name="cart"} | detected_level != "" | json | logfmt | drop __error__, __error_details__ | req_status!="" [10m])) by (req_status)"#;
    let by_field = [("query", by_field), ("step", "600")];
    let counts = shop.about("/loki/api/v1/query_range", &by_field);
    let series = counts["data"]["result"].as_array().expect("a matrix");
    assert_eq!(series.len(), 3, "{counts}");
}

/// Pattern, level and sum of an answer for patterns.
fn patterns_of(answer: &Value) -> Vec<(String, String, u64)> {
    assert_eq!(answer["status"], "success");
    let data = answer["data"].as_array().expect("patterns");
    let patterns = data.iter().map(|p| {
        let samples = p["samples"].as_array().expect("samples");
        let lines = samples
            .iter()
            .map(|s| s[1].as_u64().expect("a count"))
            .sum();
        let text = |name: &str| p[name].as_str().expect("a text").to_owned();
        (text("pattern"), text("level"), lines)
    });
    patterns.collect()
}

/// As Drilldown writes times.
pub fn rfc3339(at: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at)).expect("a time");
    format!("{at:.3}")
}

#[test]
fn patterns_count_the_lines_that_they_filter_and_outlive_a_restart() {
    let mut shop = shop();
    let selector = r#"{env="prod"}"#;
    let ask = |shop: &Shop| {
        let (start, end) = (rfc3339(shop.start), rfc3339(shop.end));
        let parameters = [
            ("query", selector),
            ("start", start.as_str()),
            ("end", end.as_str()),
            ("step", "60s"),
        ];
        shop.ask("/loki/api/v1/patterns", &parameters)
    };
    let open = ask(&shop);
    let found = patterns_of(&open);
    let login = r#"level=info msg="user <_> logged in from <_>" took=<_> size=<_>"#;
    let expected = (login.to_owned(), "info".to_owned(), 270);
    assert!(found.contains(&expected), "{found:#?}");
    assert_eq!(found.len(), 5, "two levels twice, one without: {found:#?}");
    for (pattern, level, lines) in &found {
        let query = format!("{selector} |> `{pattern}` | detected_level=`{level}`");
        assert_eq!(shop.lines(&query) as u64, *lines, "{query}");
    }
    let samples = open["data"][0]["samples"].as_array().expect("samples");
    assert_eq!(samples.len(), 10);
    assert_eq!(samples[0], json!([shop.start / SECOND, 30]));

    // Sealed, counts are those of a sample that stands for all lines.
    shop.appliance.flush();
    let sealed = patterns_of(&ask(&shop));
    let sum = |found: &[(String, String, u64)]| found.iter().map(|f| f.2).sum::<u64>();
    assert_eq!(sum(&sealed), sum(&found));
    for (pattern, level, lines) in &sealed {
        let before = found.iter().find(|(p, l, _)| p == pattern && l == level);
        let (_, _, exact) = before.unwrap_or_else(|| panic!("new: {pattern}"));
        assert!(
            lines.abs_diff(*exact) <= exact / 3 + 20,
            "{pattern}: {lines} {exact}"
        );
    }
    shop.appliance.kill();
    shop.appliance.start();
    shop.appliance.wait_recovered();
    assert_eq!(patterns_of(&ask(&shop)), sealed);

    let one = [("query", r#"{app="nope"}"#)];
    assert_eq!(shop.about("/loki/api/v1/patterns", &one)["data"], json!([]));
}

#[test]
fn patterns_of_chunks_without_a_record_are_mined_when_asked_for() {
    let mut shop = shop();
    shop.appliance.kill();
    shop.appliance
        .change(|setup| setup.set("loki.patterns", false));
    shop.appliance.start();
    shop.appliance.wait_recovered();
    shop.appliance.flush();
    let path = "/loki/api/v1/patterns?query=%7Benv%3D%22prod%22%7D";
    let off = shop.appliance.get("loki.listen", path);
    assert_eq!((off.status, off.text()), (404, String::new()));
    shop.appliance.stop();
    shop.appliance
        .change(|setup| setup.set("loki.patterns", true));
    shop.appliance.start();
    shop.appliance.wait_recovered();
    let answer = shop.about("/loki/api/v1/patterns", &[("query", r#"{env="prod"}"#)]);
    let found = patterns_of(&answer);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert_eq!(found.iter().map(|f| f.2).sum::<u64>(), 900);
}

#[test]
fn explore_gets_its_labels_histogram_and_sample() {
    let shop = shop();
    let data = |answer: Value| answer["data"].clone();
    for _ in 0..2 {
        let labels = shop.about("/loki/api/v1/labels", &[]);
        assert_eq!(data(labels), json!(["app", "env", "pod", "service_name"]));
        let worker = ("query", r#"{app="worker"}"#);
        let values = shop.about("/loki/api/v1/label/service_name/values", &[worker]);
        assert_eq!(data(values), json!(["worker"]));
        let either = [
            ("match[]", r#"{app="cart"}"#),
            ("match[]", r#"{app="worker", env="prod"}"#),
            ("match", r#"{app="nope"}"#),
        ];
        let series = shop.about("/loki/api/v1/series", &either);
        let of = |app: &str| json!({"app": app, "env": "prod", "pod": "7", "service_name": app});
        assert_eq!(data(series), json!([of("cart"), of("worker")]));
        let all = shop.about("/loki/api/v1/series", &[]);
        assert_eq!(data(all).as_array().map(Vec::len), Some(3));
        let stats = shop.about("/loki/api/v1/index/stats", &[worker]);
        assert_eq!(
            (&stats["streams"], &stats["entries"]),
            (&json!(1), &json!(300))
        );
        shop.appliance.flush();
    }
    let histogram =
        r#"sum by (level, detected_level) (count_over_time({env="prod"} | drop __error__[1m]))"#;
    let histogram = [("query", histogram), ("step", "60000ms")];
    let histogram = shop.about("/loki/api/v1/query_range", &histogram);
    let levels: Vec<_> = histogram["data"]["result"]
        .as_array()
        .expect("a matrix")
        .iter()
        .map(|r| r["metric"].clone())
        .collect();
    let level = |level: &str| json!({ "detected_level": level });
    assert_eq!(levels, [level("error"), level("info"), level("unknown")]);
    let sample = [("query", r#"{env="prod"}"#), ("limit", "10")];
    let sample = shop.about("/loki/api/v1/query_range", &sample);
    assert_eq!(streams_of(&sample).len(), 10);
}
