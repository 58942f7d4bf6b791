//! Queries that the world can send: each gets a clear error with Loki's status, in a bounded
//! time and a bounded memory, and every form of a parameter that Loki takes is taken.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::appliance::{Answer, Appliance, Setup, encoded, now};

const SECOND: i64 = 1_000_000_000;
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const RANGE: &str = "/loki/api/v1/query_range";
const INSTANT: &str = "/loki/api/v1/query";

/// No answer to a bad query may take longer, on a busy machine.
const AT_MOST: Duration = Duration::from_secs(20);
/// The budget of 256 MiB, code, stacks, and what the allocator keeps.
const MEMORY_MAX: u64 = 400 << 20;

/// Asks by POST: URLs are too short for what is asked here.
#[track_caller]
fn ask(appliance: &Appliance, path: &str, parameters: &[(&str, &str)]) -> Answer {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let begun = Instant::now();
    let answer = appliance.post("loki.listen", path, &[FORM], pairs.join("&").as_bytes());
    let took = begun.elapsed();
    assert!(took < AT_MOST, "{path} took {took:?}: {}", answer.text());
    answer
}

#[track_caller]
fn push(appliance: &Appliance, at: i64, value: &str, line: &str) {
    let body = json!({ "streams": [{ "stream": { "job": value },
        "values": [[at.to_string(), line]] }] });
    assert_eq!(appliance.push(&body).status, 204);
}

#[track_caller]
fn still_well(appliance: &Appliance) {
    push(appliance, now(), "alive", "still here");
    let parameters = [("query", "{job=\"alive\"}"), ("limit", "1")];
    let found = ask(appliance, RANGE, &parameters);
    assert!(found.text().contains("still here"), "{}", found.text());
    let (_, peak) = appliance.resident();
    assert!(peak < MEMORY_MAX, "{} MB at the peak", peak >> 20);
}

#[test]
fn queries_that_cannot_be_read_say_where() {
    let appliance = Setup::default().start();
    push(&appliance, now(), "x", "a line");
    let nest = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let count = "count_over_time({job=\"x\"}[1m])";
    let long = format!("{{job=\"x\"}} |= \"{}\"", "y".repeat(131_072));
    let rows: Vec<(&str, String, &str)> = vec![
        ("nothing", String::new(), "parse error"),
        ("half a selector", "{job=\"x\"".into(), "line 1, col 9"),
        (
            "on a third line",
            "{job=\"x\"}\n|= \"a\"\n| §".into(),
            "line 3, col 3",
        ),
        (
            "parentheses",
            nest("(", count, ")", 20_000),
            "nested too deeply",
        ),
        ("open parentheses only", "(".repeat(100_000), "line 1, col"),
        (
            "sums",
            nest("sum(", count, ")", 10_000),
            "nested too deeply",
        ),
        (
            "label filters",
            format!("{{job=\"x\"}} | {}", nest("(", "a=\"b\"", ")", 10_000)),
            "nested too deeply",
        ),
        (
            "minus signs",
            format!("{}1", "-".repeat(50_000)),
            "parse error",
        ),
        (
            "a chain of sums",
            vec![count; 3000].join(" + "),
            "nested too deeply",
        ),
        ("128 KiB", long, "input size too long"),
        (
            "stages without end",
            format!("{{job=\"x\"}}{}", " | json".repeat(10_000)),
            "stages",
        ),
        (
            "negated filters without end",
            format!("{{job=\"x\"}} != {}", vec!["\"a\""; 10_000].join(" or ")),
            "stages",
        ),
        ("a regex that is none", "{job=~\"(\"}".into(), "regexp"),
        (
            "a regex that is none in a stage",
            "{job=\"x\"} |~ \"a[\"".into(),
            "regexp",
        ),
        (
            "a regex that explodes",
            "{job=\"x\"} |~ \"(((a{1000}){1000}){1000}){1000}\"".into(),
            "too large",
        ),
        (
            "a regex of groups",
            format!("{{job=\"x\"}} |~ \"{}\"", nest("(", "a", ")", 20_000)),
            "regexp",
        ),
        (
            "large regexes, many of them",
            format!("{{job=\"x\"}}{}", " |~ \"\\\\pL{5}\"".repeat(450)),
            "too large together",
        ),
        (
            "large matchers, many of them",
            format!("{{{}}}", vec!["job=~\"\\\\pL{5}\""; 5000].join(",")),
            "too large together",
        ),
        (
            "a control character",
            "{job=\"x\"} |= \u{1}".into(),
            "line 1, col",
        ),
        ("an open string", "{job=\"x} |= \"y\"".into(), "line 1, col"),
        ("a bad escape", "{job=\"\\q\"}".into(), "line 1, col"),
        ("no label at all", "{}".into(), "parse error"),
        (
            "one that may be empty",
            "{job=~\".*\"}".into(),
            "empty-compatible",
        ),
        ("a range of nothing", "rate({job=\"x\"}[])".into(), "line"),
        ("an endless number", format!("1{}", "0".repeat(100_000)), ""),
    ];
    let count = rows.len();
    let mut wrong = Vec::new();
    for (what, query, part) in rows {
        for path in [RANGE, INSTANT] {
            let answer = ask(&appliance, path, &[("query", &query)]);
            let text = answer.text();
            let expected = if part.is_empty() { answer.status } else { 400 };
            if answer.status != expected || !text.contains(part) {
                let text: String = text.chars().take(300).collect();
                wrong.push(format!("{path} {what}: {}: {text}", answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "of {count}:\n{}", wrong.join("\n"));
    // The same texts where selectors are expected.
    let many = vec![("match[]", "{job=~\"\\\\pL{5}\"}"); 2000];
    let answer = ask(&appliance, "/loki/api/v1/series", &many);
    assert_eq!(answer.status, 400, "{}", answer.text());
    for path in [
        "labels",
        "label/job/values",
        "series",
        "index/stats",
        "detected_labels",
    ] {
        let name = if path == "series" { "match[]" } else { "query" };
        let deep = format!("{}{{job=\"x\"}}", "(".repeat(100_000));
        let path = format!("/loki/api/v1/{path}");
        for query in [&*deep, "{job=\"x\"} |= \"a\"", "{job"] {
            let answer = ask(&appliance, &path, &[(name, query)]);
            let text: String = answer.text().chars().take(200).collect();
            assert_eq!(answer.status, 400, "{path}: {text}");
        }
    }
    still_well(&appliance);
}

#[test]
fn regexes_that_are_slow_elsewhere_are_quick_here() {
    let appliance = Setup::default().start();
    let at = now() - 60 * SECOND;
    let hostile = format!("{}!", "a".repeat(100_000));
    for i in 0..10 {
        push(&appliance, at + i, "x", &hostile);
    }
    for regex in [
        "(a+)+$",
        "(a|a)*b$",
        "(.*a){20}$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
    ] {
        let query = format!("{{job=\"x\"}} |~ \"{regex}\"");
        let answer = ask(&appliance, RANGE, &[("query", &query)]);
        assert_eq!(answer.status, 200, "{regex}: {}", answer.text());
        assert_eq!(answer.json()["data"]["result"], json!([]), "{regex}");
        let query = format!("sum(count_over_time({{job=~\"{regex}|x\"}}[5m]))");
        let answer = ask(&appliance, INSTANT, &[("query", &query)]);
        let value = answer.json()["data"]["result"][0]["value"][1].clone();
        assert_eq!(value, "10", "{regex}: {}", answer.text());
    }
    still_well(&appliance);
}

#[test]
fn label_values_of_any_characters_are_found_and_come_back() {
    let appliance = Setup::default().start();
    let values = [
        "say \"hi\"",
        "two\nlines",
        "back\\slash",
        "tab\tand `ticks`",
        "ünï {a=\"b\"}",
    ];
    let at = now() - 60 * SECOND;
    for (value, i) in values.iter().zip(0..) {
        push(&appliance, at + i, value, "a line");
    }
    for sealed in [false, true] {
        for value in values {
            let quoted = format!("{value:?}");
            let query = format!("{{job={quoted}}}");
            let answer = ask(&appliance, RANGE, &[("query", &query)]);
            assert_eq!(answer.status, 200, "{query}: {}", answer.text());
            let result = &answer.json()["data"]["result"];
            assert_eq!(result[0]["stream"]["job"], value, "{query}: {result}");
            assert_eq!(
                result.as_array().map(Vec::len),
                Some(1),
                "{query}: {result}"
            );
        }
        let listed = appliance.get("loki.listen", "/loki/api/v1/label/job/values");
        let mut expected = values;
        expected.sort_unstable();
        assert_eq!(listed.json()["data"], json!(expected));
        if !sealed {
            appliance.flush();
        }
    }
}

#[test]
fn ranges_steps_and_limits_out_of_bounds_are_refused() {
    let appliance = Setup::default()
        .set("loki.limits.max_entries_limit_per_query", "5000")
        .start();
    let now = now() / SECOND;
    let text = |n: i64| n.to_string();
    let (start, end) = (text(now - 3600), text(now));
    let decade = text(now - 10 * 365 * 86_400);
    let year = text(now - 365 * 86_400);
    let log = "{job=\"x\"}";
    let metric = "rate({job=\"x\"}[1m])";
    let bounds = [("start", &*start), ("end", &*end)];
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        (metric, [&bounds[..], &[("step", "0")]].concat(), "step"),
        (metric, [&bounds[..], &[("step", "-5")]].concat(), "step"),
        (
            metric,
            [&bounds[..], &[("step", "NaN")]].concat(),
            "duration",
        ),
        (
            metric,
            [&bounds[..], &[("step", "1.5s")]].concat(),
            "duration",
        ),
        (metric, [&bounds[..], &[("step", "0.1")]].concat(), "11000"),
        (log, [&bounds[..], &[("step", "0.1")]].concat(), "11000"),
        (
            metric,
            vec![("start", &end), ("end", &start)],
            "before start",
        ),
        (log, vec![("start", &end), ("end", &start)], "before start"),
        (
            metric,
            vec![("start", &decade), ("end", &end), ("step", "1")],
            "max_query_length",
        ),
        (
            log,
            vec![("start", &year), ("end", &end)],
            "max_query_length",
        ),
        (
            log,
            [&bounds[..], &[("limit", "5001")]].concat(),
            "5001 > 5000",
        ),
        (log, [&bounds[..], &[("limit", "0")]].concat(), "positive"),
        (log, [&bounds[..], &[("limit", "-1")]].concat(), "positive"),
        (log, [&bounds[..], &[("limit", "many")]].concat(), "many"),
        (
            log,
            [&bounds[..], &[("limit", "9223372036854775808")]].concat(),
            "limit",
        ),
        (
            log,
            [&bounds[..], &[("direction", "up")]].concat(),
            "direction",
        ),
        (
            log,
            [&bounds[..], &[("interval", "-1s")]].concat(),
            "interval",
        ),
        (log, vec![("start", "yesterday")], "'start'"),
        (log, vec![("end", "1e400.")], "'end'"),
        (log, vec![("since", "1h1d")], "'since'"),
        (log, vec![("start", "99999999999999999999999")], "'start'"),
    ];
    let mut wrong = Vec::new();
    for (query, mut parameters, part) in rows {
        parameters.push(("query", query));
        let answer = ask(&appliance, RANGE, &parameters);
        let text = answer.text();
        if answer.status != 400 || !text.contains(part) {
            wrong.push(format!("{parameters:?}: {}: {text}", answer.status));
        }
    }
    for (query, part) in [
        ("rate({job=\"x\"}[10y])", "max_query_length"),
        ("count_over_time({job=\"x\"}[100000y])", "parse error"),
        (log, "query_range"),
    ] {
        let answer = ask(&appliance, INSTANT, &[("query", query)]);
        if answer.status != 400 || !answer.text().contains(part) {
            wrong.push(format!("{query}: {}: {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // An offset into nowhere is fine.
    let query = "rate({job=\"x\"}[1m] offset 290y)";
    let answer = ask(&appliance, INSTANT, &[("query", query)]);
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    still_well(&appliance);
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405() {
    let appliance = Setup::default().start();
    for path in [
        "/",
        "/nowhere",
        "/loki/api/v1",
        "/loki/api/v2/query",
        "/api/prom/nope",
    ] {
        let answer = appliance.get("loki.listen", path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.text(), "404 page not found\n", "{path}");
    }
    let wrong = |method: &str, path: &str| {
        let url = appliance.url("loki.listen", path);
        let agent = crate::appliance::agent();
        crate::appliance::request(&agent, method, &url, &[], &[]).expect("an answer")
    };
    for (method, path) in [
        ("GET", "/loki/api/v1/push"),
        ("GET", "/api/prom/push"),
        ("PUT", "/loki/api/v1/query"),
        ("DELETE", "/loki/api/v1/query_range"),
        ("PATCH", "/loki/api/v1/labels"),
        ("DELETE", "/loki/api/v1/label/job/values"),
        ("PUT", "/loki/api/v1/series"),
        ("PATCH", "/loki/api/v1/delete"),
        ("POST", "/prometheus/api/v1/rules"),
        ("POST", "/services"),
        ("POST", "/config"),
        ("DELETE", "/log_level"),
    ] {
        let answer = wrong(method, path);
        assert_eq!(
            (answer.status, answer.body.len()),
            (405, 0),
            "{method} {path}"
        );
    }
}

#[test]
fn every_form_of_a_parameter_is_taken() {
    let appliance = Setup::default().start();
    let at = now() / SECOND * SECOND - 600 * SECOND;
    push(&appliance, at, "forms", "a line");
    let seconds = at / SECOND;
    let date = |seconds: i64, offset: &str| {
        let at = jiff::Timestamp::from_second(seconds).expect("a date");
        format!("{}{offset}", at.strftime("%Y-%m-%dT%H:%M:%S"))
    };
    let starts = [
        format!("{seconds}"),
        format!("{seconds}.0"),
        format!("{at}"),
        date(seconds, "Z"),
        date(seconds + 3600, "+01:00"),
        date(seconds, ".000000000Z"),
    ];
    let find = |parameters: &[(&str, &str)]| {
        let mut all = vec![("query", "{job=\"forms\"}")];
        all.extend_from_slice(parameters);
        let answer = ask(&appliance, RANGE, &all);
        assert_eq!(answer.status, 200, "{parameters:?}: {}", answer.text());
        let by_form = crate::appliance::streams_of(&answer.json()).len();
        let pairs: Vec<String> = all
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let path = format!("{RANGE}?{}", pairs.join("&"));
        let answer = appliance.get("loki.listen", &path);
        let by_url = crate::appliance::streams_of(&answer.json()).len();
        assert_eq!(by_form, by_url, "{parameters:?}");
        by_form
    };
    for start in &starts {
        // The start is in the range, the end is not.
        let end = format!("{}", seconds + 1);
        assert_eq!(find(&[("start", start), ("end", &end)]), 1, "{start}");
        let before = format!("{}", seconds - 5);
        assert_eq!(find(&[("start", &before), ("end", start)]), 0, "{start}");
    }
    assert_eq!(find(&[("since", "11m")]), 1);
    assert_eq!(find(&[("since", "9m30s")]), 0);
    assert_eq!(
        find(&[("since", "1d"), ("limit", "1"), ("direction", "FORWARD")]),
        1
    );
    let after = format!("{}.001", seconds);
    assert_eq!(find(&[("start", &after)]), 0);

    // Repeated parameters: the first counts, but for selectors, which add up.
    let first = [("query", "{job=\"forms\"}"), ("query", "{job=\"none\"}")];
    let answer = ask(&appliance, RANGE, &first);
    assert_eq!(crate::appliance::streams_of(&answer.json()).len(), 1);
    push(&appliance, at, "more", "a line");
    for name in ["match", "match[]"] {
        let both = [
            (name, "{job=\"forms\"}"),
            (name, "{job=\"more\"}"),
            (name, "{job=\"no\"}"),
        ];
        let answer = ask(&appliance, "/loki/api/v1/series", &both);
        let series = answer.json()["data"].as_array().map(Vec::len);
        assert_eq!(series, Some(2), "{}", answer.text());
    }

    // Steps: points lie on multiples of the step.
    let bounds = (format!("{}", seconds - 30), format!("{}", seconds + 30));
    for step in ["15", "15s", "15.0", "15000ms", "0m15s"] {
        let parameters = [
            ("query", "count_over_time({job=\"forms\"}[1m])"),
            ("start", &*bounds.0),
            ("end", &*bounds.1),
            ("step", step),
        ];
        let answer = ask(&appliance, RANGE, &parameters);
        assert_eq!(answer.status, 200, "{step}: {}", answer.text());
        let answer = answer.json();
        let points = answer["data"]["result"][0]["values"]
            .as_array()
            .expect("points");
        assert!(
            points
                .iter()
                .all(|p| p[0].as_i64().is_some_and(|at| at % 15 == 0))
        );
        let stats = &answer["data"]["stats"]["summary"];
        assert_eq!(stats["totalLinesProcessed"], 1, "{stats}");
        assert_eq!(stats["totalBytesProcessed"], 6, "{stats}");
    }
    // Grafana's health check asks for the year 2096.
    let time = ("time", "4000000000");
    let answer = ask(
        &appliance,
        INSTANT,
        &[("query", "vector(1)+vector(1)"), time],
    );
    assert_eq!(
        answer.json()["data"]["result"][0]["value"],
        json!([4_000_000_000_u64, "2"])
    );
    let answer = ask(
        &appliance,
        "/loki/api/v1/format_query",
        &[("query", "{job=\"x\"}|=\"a\"")],
    );
    assert_eq!(
        answer.json(),
        json!({ "status": "success", "data": "{job=\"x\"} |= \"a\"" })
    );
    let answer = ask(
        &appliance,
        "/loki/api/v1/format_query",
        &[("query", "{job")],
    );
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (400, &json!("invalid-query"))
    );
}
