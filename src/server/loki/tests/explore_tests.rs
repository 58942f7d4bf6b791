//! Parameters of what the explorers ask, and errors of theirs.

use super::*;
use crate::query::volume::{AggregateBy, Steps};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// The one query for volumes that a request makes.
#[track_caller]
fn volume_query(path: &str) -> VolumeQuery {
    let server = Server::new();
    server.get(&format!("/loki/api/v1/index/{path}")).json();
    let mut queries = server.memory.volumes.lock();
    assert_eq!(queries.len(), 1);
    queries.remove(0)
}

#[test]
fn volumes_have_lokis_parameters_and_defaults() {
    let selector = encoded(r#"{a="1",b=~"x.*"}"#);
    let query = volume_query(&format!("volume?query={selector}"));
    assert_eq!(query.matchers.len(), 2);
    assert_eq!(query.steps, Steps::whole(NOW - HOUR, NOW));
    assert_eq!((query.limit, query.by), (100, AggregateBy::Series));
    assert!(query.targets.is_empty());
    let rest = "limit=5000&targetLabels=service_name,%20b,&aggregateBy=labels&start=10&end=70";
    let query = volume_query(&format!("volume?query=%7B%7D&{rest}"));
    assert!(query.matchers.is_empty());
    assert_eq!(query.targets, ["service_name", "b"]);
    assert_eq!((query.limit, query.by), (5000, AggregateBy::Labels));
    assert_eq!(query.steps, Steps::whole(10 * SECOND, 70 * SECOND));
    let query = volume_query(&format!("volume_range?query={selector}&limit=0&step=30s"));
    assert_eq!(query.steps, Steps::every(30 * SECOND, NOW - HOUR, NOW));
    assert_eq!(query.limit, 100);
    let query = volume_query(&format!("volume?query={selector}&limit=99999999"));
    assert_eq!(query.limit, 10_000);
}

#[test]
fn wrong_requests_of_explorers_are_400_in_plain_text() {
    let server = Server::new();
    let selector = encoded(r#"{a="1"}"#);
    let piped = encoded(r#"{a="1"} |= "x""#);
    let metric = encoded(r#"rate({a="1"}[1m])"#);
    for (path, part) in [
        ("index/volume".to_owned(), "parse error"),
        (format!("index/volume?query={piped}"), "only label matchers"),
        (
            format!("index/volume?query={selector}&aggregateBy=x"),
            "aggregation",
        ),
        (format!("index/volume?query={selector}&limit=-1"), "limit"),
        (
            format!("index/volume_range?query={selector}&step=0"),
            "step",
        ),
        (
            format!("index/volume?query={selector}&start=2&end=1"),
            "before start",
        ),
        (
            format!("index/volume?query={selector}&start=0"),
            "max_query_length",
        ),
        (format!("patterns?query={piped}"), "only label matchers"),
        ("patterns".to_owned(), "parse error"),
        ("detected_fields".to_owned(), "parse error"),
        (format!("detected_fields?query={metric}"), "metric query"),
        (
            format!("detected_fields?query={selector}&line_limit=0"),
            "line_limit must be positive",
        ),
        (
            format!("detected_fields?query={selector}&line_limit=5001"),
            "max_entries_limit",
        ),
        (
            format!("detected_field/x/values?query={selector}&limit=x"),
            "limit",
        ),
        (format!("labels?limit=x&query={selector}"), "limit"),
        (
            format!("series?{}", "match[]=%7Ba%3D%221%22%7D&".repeat(257)),
            "257 selectors",
        ),
    ] {
        let answer = server.get(&format!("/loki/api/v1/{path}"));
        answer.check_error(400, &[part]);
        assert!(!answer.body.ends_with('\n'), "{path}");
    }
}

#[test]
fn explorers_may_post_their_parameters() {
    let server = Server::new();
    let form = format!("query={}&limit=7&step=60", encoded(r#"{a="1"}"#));
    for path in [
        "index/volume",
        "index/volume_range",
        "detected_fields",
        "detected_field/x/values",
        "patterns",
        "drilldown-limits",
        "labels",
        "label/b/values",
        "index/stats",
    ] {
        let path = format!("/loki/api/v1/{path}");
        let posted = server.send("POST", &path, &[FORM], form.as_bytes()).json();
        let got = server.get(&format!("{path}?{form}")).json();
        assert_eq!(posted, got, "{path}");
        let wrong = server.send("DELETE", &path, &[], b"");
        assert_eq!((wrong.status, &*wrong.body), (405, ""), "{path}");
    }
    assert_eq!(server.memory.log_queries.lock().len(), 4);
    let queries = server.memory.log_queries.lock();
    assert!(queries.iter().all(|q| q.limit == 100 && q.categorize));
}

#[test]
fn names_values_and_series_can_be_cut_and_say_so() {
    let server = Server::new();
    for (path, first) in [
        ("labels", json!(["a"])),
        ("label/b/values", json!(["x"])),
        ("series", json!([{"a": "1"}])),
    ] {
        let cut = server.get(&format!("/loki/api/v1/{path}?limit=1")).json();
        assert_eq!(cut["data"], first, "{path}");
        let warnings = json!(["the first 1 of 2: the answer is not complete"]);
        assert_eq!(cut["warnings"], warnings, "{path}");
        let whole = server.get(&format!("/loki/api/v1/{path}?limit=2")).json();
        assert_eq!(whole["data"].as_array().map(Vec::len), Some(2), "{path}");
        assert_eq!(whole["warnings"], Value::Null, "{path}");
    }
}

#[test]
fn patterns_are_in_lokis_shape() {
    let server = Server::new();
    let query = format!("query={}&step=60", encoded(r#"{a="1"}"#));
    let answer = server.get(&format!("/loki/api/v1/patterns?{query}")).json();
    let data = json!([{"pattern": "a <_>", "level": "info", "samples": [[60, 5]]}]);
    assert_eq!(answer, json!({"status": "success", "data": data}));
}

#[test]
fn drilldown_is_told_the_limits() {
    let mut options = Options::default();
    options.explore.discover_service_name = vec!["app".into()];
    options.explore.retention = Some(std::time::Duration::from_secs(30 * 86_400));
    let server = Server::with(options, Memory::default(), 256 << 20);
    let answer = server.get("/loki/api/v1/drilldown-limits").json();
    assert_eq!(answer["version"], build::LOKI_VERSION);
    assert_eq!(answer["pattern_ingester_enabled"], true);
    let limits = &answer["limits"];
    for (name, value) in [
        ("discover_log_levels", json!(true)),
        ("discover_service_name", json!(["app"])),
        ("max_entries_limit_per_query", json!(5000)),
        ("max_line_size_truncate", json!(false)),
        ("max_query_length", json!("30d1h")),
        ("max_query_series", json!(500)),
        ("query_timeout", json!("1m")),
        ("retention_period", json!("30d")),
        ("volume_enabled", json!(true)),
        ("volume_max_series", json!(10_000)),
    ] {
        assert_eq!(limits[name], value, "{name}");
    }
    assert_eq!(limits["log_level_fields"][0], "level");
}
