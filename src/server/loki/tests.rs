//! The API over loopback HTTP, with a sink and a reader that keep everything in memory.

use std::sync::Arc;

use axum::middleware::from_fn;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::ingest::{
    Admission, Discovery, IngestMetrics, LogLimits, Received, Refusal, RefusalKind,
};
use crate::model::series::Series;
use crate::model::time::{HOUR, MINUTE, SECOND};
use crate::model::{Direction, LogBatch};
use crate::protocol::loki::push::encode::{Entry, snappy};
use crate::query::answer::{AnswerEntry, AnswerStream, QueryStats};
use crate::query::patterns::{PatternCounts, PatternQuery};
use crate::query::volume::{Volume, VolumeQuery};
use crate::runtime::permits::{Budget, Permit};
use crate::server::unread;
use crate::telemetry::metrics::Metrics;

mod explore_tests;

const NOW: i64 = 1_795_356_060 * SECOND;

/// Takes and answers everything; queries are kept to be looked at.
#[derive(Default)]
struct Memory {
    pushed: Mutex<Vec<(LogBatch, Received)>>,
    log_queries: Mutex<Vec<LogQuery>>,
    metric_queries: Mutex<Vec<MetricQuery>>,
    asked: Mutex<Vec<(Arc<str>, TimeRange, usize)>>,
    volumes: Mutex<Vec<VolumeQuery>>,
    /// Series of each metric answer.
    series: usize,
    refusal: Option<Refusal>,
    failure: Option<QueryError>,
}

impl LogSink for Arc<Memory> {
    async fn append_logs(
        &self,
        batch: LogBatch,
        received: Received,
        memory: Option<Permit>,
    ) -> Result<(), Refusal> {
        assert!(
            memory.is_some_and(|m| m.bytes() >= batch.text.len()),
            "memory is accounted for"
        );
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        self.pushed.lock().push((batch, received));
        Ok(())
    }
}

impl Memory {
    fn found(&self, tenant: &Arc<str>, query: LogQuery) -> Result<LogAnswer, QueryError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut streams = Vec::new();
        for (batch, _) in self
            .pushed
            .lock()
            .iter()
            .filter(|(b, _)| b.tenant == *tenant)
        {
            for stream in &batch.streams {
                if !query
                    .expr
                    .matchers
                    .iter()
                    .all(|m| m.matches_labels(&stream.labels))
                {
                    continue;
                }
                let entry = |e: &crate::model::LogEntry| AnswerEntry {
                    at: e.at,
                    line: Bytes::copy_from_slice(batch.line(e)),
                    structured: match batch.metadata(e) {
                        Some(set) => Labels::from_pairs(set.iter().cloned()),
                        None => Labels::empty(),
                    },
                    parsed: Labels::empty(),
                };
                let mut entries: Vec<_> = stream.entries.iter().map(entry).collect();
                entries.retain(|e| query.range.contains(e.at));
                if query.direction == Direction::Backward {
                    entries.reverse();
                }
                entries.truncate(query.limit);
                streams.push(AnswerStream {
                    labels: stream.labels.clone(),
                    entries,
                });
            }
        }
        self.log_queries.lock().push(query);
        Ok(LogAnswer {
            streams,
            stats: QueryStats {
                lines: 3,
                ..QueryStats::default()
            },
            memory: None,
        })
    }
}

impl LogReader for Arc<Memory> {
    fn growing_logs(&self, tenant: &Arc<str>, query: LogQuery) -> Growing {
        Growing {
            certain: Arc::default(),
            answer: futures::future::ready(self.found(tenant, query)).boxed(),
        }
    }

    async fn metric(&self, _: &Arc<str>, query: MetricQuery) -> Result<MetricAnswer, QueryError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let matrix = (0..self.series)
            .map(|i| Series {
                labels: Labels::from_pairs([("i", i.to_string())]),
                points: vec![Some(2.0); query.grid.len()],
            })
            .collect();
        self.metric_queries.lock().push(query);
        Ok(MetricAnswer {
            matrix,
            ..MetricAnswer::default()
        })
    }

    async fn label_names(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        self.asked
            .lock()
            .push((tenant.clone(), range, matchers.len()));
        Ok(vec!["b".into(), "a".into()])
    }

    async fn label_values(
        &self,
        tenant: &Arc<str>,
        name: &str,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        self.asked
            .lock()
            .push((tenant.clone(), range, matchers.len()));
        Ok(if name == "b" {
            vec!["y".into(), "x".into()]
        } else {
            vec![]
        })
    }

    async fn series(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        selectors: Vec<Vec<Matcher>>,
    ) -> Result<Vec<Labels>, QueryError> {
        self.asked
            .lock()
            .push((tenant.clone(), range, selectors.len()));
        Ok(vec![
            Labels::from_pairs([("b", "1")]),
            Labels::from_pairs([("a", "1")]),
        ])
    }

    async fn index_stats(
        &self,
        tenant: &Arc<str>,
        matchers: Vec<Matcher>,
        range: TimeRange,
    ) -> Result<IndexStats, QueryError> {
        self.asked
            .lock()
            .push((tenant.clone(), range, matchers.len()));
        Ok(IndexStats {
            streams: 1,
            chunks: 2,
            bytes: 3,
            entries: 4,
        })
    }
}

impl explore::ExploreReader for Arc<Memory> {
    async fn volume(&self, _: &Arc<str>, query: VolumeQuery) -> Result<Vec<Volume>, QueryError> {
        let volume = Volume {
            labels: Labels::from_pairs([("a", "1")]),
            bytes: vec![(query.steps.shown(0), 7)],
        };
        self.volumes.lock().push(query);
        Ok(vec![volume])
    }

    async fn patterns(
        &self,
        _: &Arc<str>,
        _: Vec<Matcher>,
        query: PatternQuery,
    ) -> Result<Vec<PatternCounts>, QueryError> {
        Ok(vec![PatternCounts {
            pattern: "a <_>".into(),
            level: "info".into(),
            samples: vec![(query.step / SECOND, 5)],
        }])
    }
}

/// A server on a free port; ends with the test.
struct Server {
    base: String,
    memory: Arc<Memory>,
    budget: Budget,
    _runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(
            self.headers["content-type"],
            "application/json; charset=UTF-8"
        );
        let mut value: Value = serde_json::from_str(&self.body).expect("JSON");
        if let Some(data) = value.get_mut("data").and_then(Value::as_object_mut) {
            data.remove("stats");
        }
        value
    }

    #[track_caller]
    fn check_error(&self, status: u16, parts: &[&str]) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        for part in parts {
            assert!(self.body.contains(part), "{part:?} in {:?}", self.body);
        }
    }
}

impl Server {
    fn new() -> Self {
        Self::with(Options::default(), Memory::default(), 256 << 20)
    }

    fn with(options: Options, memory: Memory, budget: usize) -> Self {
        let memory = Arc::new(memory);
        let budget = Budget::new(budget);
        let clock = Clock::fixed(NOW);
        let admission = Admission::new(LogLimits::default(), Some(Discovery::default()));
        let metrics = IngestMetrics::new(&Metrics::default());
        let api = Arc::new(Api {
            ingest: Ingest::new(admission, memory.clone(), clock.clone(), metrics),
            reader: memory.clone(),
            options,
            pool: Pool::new(1).expect("threads"),
            clock,
            memory: budget.account("push"),
            metrics: LokiMetrics::new(&Metrics::default()),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        // As every listener has it, so that refusals arrive.
        let router = router(api).layer(from_fn(unread::around));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            base,
            memory,
            budget,
            _runtime: runtime,
        }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut response = agent.run(request).expect("an answer");
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().expect("text"),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    fn push(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send("POST", "/loki/api/v1/push", headers, body)
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn body(at: i64) -> String {
    format!(r#"{{"streams":[{{"stream":{{"a":"1"}},"values":[["{at}","line",{{"k":"v"}}]]}}]}}"#)
}

/// For a URL.
fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

/// Headers, body and the code of its format.
type Push<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u8);

#[test]
fn a_push_is_answered_with_nothing_and_its_body_kept() {
    let server = Server::new();
    let packed = snappy(&[(
        r#"{a="1"}"#.into(),
        vec![Entry::new(NOW, "x").with("k", "v")],
    )]);
    let json_body = body(NOW);
    let requests: [Push<'_>; 6] = [
        (&[("Content-Type", "application/x-protobuf")], &packed, 1),
        (&[], &packed, 1),
        (&[("Content-Encoding", "snappy")], &packed, 1),
        (&[("Content-Type", "weird")], &packed, 1),
        (&[JSON], json_body.as_bytes(), 2),
        (
            &[("Content-Type", "Application/JSON; charset=utf-8")],
            json_body.as_bytes(),
            2,
        ),
    ];
    for (headers, body, _) in requests {
        let answer = server.push(headers, body);
        assert_eq!((answer.status, &*answer.body), (204, ""), "{headers:?}");
    }
    let pushed = server.memory.pushed.lock();
    for ((batch, received), (_, sent, code)) in pushed.iter().zip(requests) {
        let Received::Body {
            format,
            coding: 0,
            flags,
            bytes,
        } = received
        else {
            panic!("{received:?}")
        };
        assert_eq!((*format, &bytes[..]), (code, sent));
        // Replay gives the same batch.
        let again = replay(&"".into(), *format, 0, *flags, bytes).expect("decodes again");
        assert_eq!(again.streams.len(), batch.streams.len());
        for (a, b) in again.streams.iter().zip(&batch.streams) {
            assert_eq!((a.id, &a.labels, &a.entries), (b.id, &b.labels, &b.entries));
        }
        assert_eq!(
            (again.text, again.metadata),
            (batch.text.clone(), batch.metadata.clone())
        );
    }
    drop(pushed);
    assert_eq!(server.budget.used(), 0, "all memory is given back");
}

#[test]
fn the_legacy_path_has_its_own_json() {
    let server = Server::new();
    let body = br#"{"streams":[{"labels":"{a=\"1\"}","entries":[{"ts":"2026-11-22T14:00:00Z","line":"x"}]}]}"#;
    let answer = server.send("POST", "/api/prom/push", &[JSON], body);
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(
        server.push(&[JSON], body).status,
        204,
        "no v1 entries in it"
    );
    assert_eq!(server.memory.pushed.lock().len(), 1);
}

#[test]
fn a_partly_good_push_is_stored_partly_and_answered_400() {
    let server = Server::new();
    let body =
        format!(r#"{{"streams":[{{"stream":{{"a":"1"}},"values":[["{NOW}","x"],["5","y"]]}}]}}"#);
    let answer = server.push(&[JSON], body.as_bytes());
    answer.check_error(
        400,
        &[
            "timestamp too old: 1970-01-01T00:00:00Z",
            "service_name=\"unknown_service\"",
        ],
    );
    assert!(answer.body.ends_with('\n') && !answer.body.contains("errors like"));
    let pushed = server.memory.pushed.lock();
    assert_eq!(pushed[0].0.entry_count(), 1);
    assert!(matches!(pushed[0].1, Received::Normalised));
}

#[test]
fn bad_pushes_are_told_apart_by_status() {
    let server = Server::new();
    let good = body(NOW);
    for (headers, body, status, part) in [
        (&[JSON][..], &b"{}"[..], 422, "at least one valid stream"),
        (&[], &[0], 422, "at least one valid stream"),
        (&[], b"", 400, "snappy"),
        (&[], b"garbage", 400, "snappy"),
        (&[JSON], b"{", 400, "JSON"),
        (
            &[JSON],
            br#"{"streams":[{"stream":{"a-b":"1"},"values":[["1","x"]]}]}"#,
            400,
            "couldn't parse labels",
        ),
        (
            &[JSON, ("Content-Encoding", "zstd")],
            good.as_bytes(),
            400,
            "zstd",
        ),
        (
            &[JSON, ("Content-Encoding", "snappy")],
            good.as_bytes(),
            400,
            "snappy",
        ),
        (
            &[("Content-Type", "application/")],
            good.as_bytes(),
            400,
            "malformed",
        ),
        (
            &[("Content-Type", "application/json; x")],
            good.as_bytes(),
            400,
            "malformed",
        ),
    ] {
        let answer = server.push(headers, body);
        answer.check_error(status, &[part]);
        assert!(answer.body.ends_with('\n'));
    }
    assert_eq!(
        server
            .push(&[JSON], br#"{"streams":[{"stream":{"a":"1"}}]}"#)
            .status,
        204
    );
    assert!(server.memory.pushed.lock().is_empty());
    assert_eq!(server.budget.used(), 0);
}

#[test]
fn too_large_a_body_is_refused_before_it_is_read_whole() {
    let options = Options {
        max_push_bytes: 1000,
        decode: DecodeLimits {
            max_text: 5000,
            max_parts: 5000,
        },
        ..Options::default()
    };
    let server = Server::with(options, Memory::default(), 256 << 20);
    server
        .push(&[JSON], &[b' '; 1001])
        .check_error(413, &["1000"]);
    // Without a length.
    let chunked = [JSON, ("Transfer-Encoding", "chunked")];
    server
        .push(&chunked, &[b' '; 200_000])
        .check_error(413, &["1000"]);
    assert_eq!(server.push(&chunked, body(NOW).as_bytes()).status, 204);
    // Small as sent, large when unpacked.
    let bomb = snap::raw::Encoder::new()
        .compress_vec(&[0; 6000])
        .expect("small");
    server.push(&[], &bomb).check_error(413, &["5000"]);
}

#[test]
fn a_large_push_is_decoded_on_the_pool() {
    let server = Server::new();
    let line = "x".repeat(1000);
    let entries = (0..1000).map(|_| Entry::new(NOW, &line)).collect();
    assert_eq!(
        server
            .push(&[], &snappy(&[(r#"{a="1"}"#.into(), entries)]))
            .status,
        204
    );
    assert_eq!(server.memory.pushed.lock()[0].0.entry_count(), 1000);
    assert_eq!(server.budget.used(), 0);
}

#[test]
fn a_push_without_memory_is_told_to_come_again() {
    let options = Options {
        memory_patience: Duration::from_millis(10),
        ..Options::default()
    };
    let server = Server::with(options, Memory::default(), 70_000);
    let held = server
        .budget
        .account("other")
        .try_take(60_000)
        .expect("fits");
    server
        .push(&[JSON], body(NOW).as_bytes())
        .check_error(503, &["memory", "try again"]);
    drop(held);
    assert_eq!(server.push(&[JSON], body(NOW).as_bytes()).status, 204);
}

#[test]
fn what_the_store_refuses_can_be_sent_again() {
    let refusal = Refusal {
        kind: RefusalKind::Unavailable,
        reason: "disk_full",
        message: "disk is full".into(),
    };
    let memory = Memory {
        refusal: Some(refusal),
        ..Memory::default()
    };
    let server = Server::with(Options::default(), memory, 256 << 20);
    server
        .push(&[JSON], body(NOW).as_bytes())
        .check_error(503, &["disk is full\n"]);
}

#[test]
fn with_tenancy_every_request_names_its_tenant() {
    let options = Options {
        tenancy: true,
        ..Options::default()
    };
    let server = Server::with(options, Memory::default(), 256 << 20);
    let t1 = ("X-Scope-OrgID", "t1");
    assert_eq!(server.push(&[JSON, t1], body(NOW).as_bytes()).status, 204);
    server
        .push(&[JSON], body(NOW).as_bytes())
        .check_error(401, &["no org id"]);
    for path in [
        "labels",
        "query?query=1",
        "query_range?query=%7Ba%3D%221%22%7D",
        "series",
    ] {
        server
            .get(&format!("/loki/api/v1/{path}"))
            .check_error(401, &["no org id"]);
    }
    for bad in ["a/b", "a|b", "..", &"x".repeat(151)] {
        let answer = server.push(&[JSON, ("X-Scope-OrgID", bad)], body(NOW).as_bytes());
        answer.check_error(400, &["tenant"]);
    }
    let query = format!(
        "/loki/api/v1/query_range?query={}&end={}",
        encoded(r#"{a="1"}"#),
        NOW + 1
    );
    let found = |tenant: &str| {
        let answer = server.send("GET", &query, &[("X-Scope-OrgID", tenant)], b"");
        answer.json()["data"]["result"].as_array().map(Vec::len)
    };
    assert_eq!((found("t1"), found("t2")), (Some(1), Some(0)));
}

#[test]
fn without_tenancy_the_header_is_ignored() {
    let server = Server::new();
    let headers = [JSON, ("X-Scope-OrgID", "a/b")];
    assert_eq!(server.push(&headers, body(NOW).as_bytes()).status, 204);
    assert_eq!(&*server.memory.pushed.lock()[0].0.tenant, "");
}

#[test]
fn a_log_query_gets_its_parameters_and_streams() {
    let server = Server::new();
    server.push(&[JSON], body(NOW).as_bytes());
    let query = encoded(r#"{a="1"} |= "l""#);
    let path = format!(
        "/loki/api/v1/query_range?query={query}&start={}&end={}&limit=7&direction=forward&interval=2s",
        NOW / SECOND - 60,
        NOW + 1
    );
    let flags = ("X-Loki-Response-Encoding-Flags", "categorize-labels,other");
    let answer = server.send("GET", &path, &[flags], b"").json();
    let stream = json!({"a":"1","service_name":"unknown_service"});
    assert_eq!(
        answer,
        json!({"status":"success","data":{
            "resultType":"streams","encodingFlags":["categorize-labels","other"],
            "result":[{"stream":stream,
                "values":[[NOW.to_string(),"line",{"structuredMetadata":{"k":"v"}}]]}]}})
    );
    let answer = server.get(&path);
    assert!(answer.body.contains(r#""totalLinesProcessed":3"#) && answer.body.ends_with('\n'));
    assert_eq!(
        answer.json()["data"]["result"],
        json!([{"stream":stream,"values":[[NOW.to_string(),"line"]]}])
    );
    let queries = server.memory.log_queries.lock();
    let q = &queries[0];
    assert_eq!(q.range, TimeRange::new(NOW - MINUTE, NOW + 1));
    assert_eq!(
        (q.limit, q.direction, q.interval),
        (7, Direction::Forward, 2 * SECOND)
    );
    assert!(q.categorize && !queries[1].categorize);
}

#[test]
fn a_metric_query_is_aligned_and_rendered_as_matrix_or_vector() {
    let memory = Memory {
        series: 2,
        ..Memory::default()
    };
    let server = Server::with(Options::default(), memory, 256 << 20);
    let query = encoded(r#"rate({a="1"}[1m])"#);
    let answer = server
        .get(&format!(
            "/loki/api/v1/query_range?query={query}&start=20&end=70&step=60"
        ))
        .json();
    assert_eq!(
        answer["data"]["result"][1],
        json!({"metric":{"i":"1"},"values":[[0,"2"],[60,"2"],[120,"2"]]})
    );
    let form = format!("query={query}&time=4000000000&direction=backward");
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = server
        .send(
            "POST",
            "/loki/api/v1/query?time=5",
            &headers,
            form.as_bytes(),
        )
        .json();
    assert_eq!(answer["data"]["resultType"], "vector");
    assert_eq!(
        answer["data"]["result"][0],
        json!({"metric":{"i":"0"},"value":[4_000_000_000_u64,"2"]})
    );
    let answer = server.get("/loki/api/v1/query?query=1%2B2&time=60").json();
    assert_eq!(
        answer["data"],
        json!({"resultType":"scalar","result":[60,"3"]})
    );
    // Without a time: now.
    server.get(&format!("/loki/api/v1/query?query={query}"));
    let last = server.memory.metric_queries.lock().pop().expect("asked");
    assert_eq!((last.grid.start, last.grid.end), (NOW, NOW));
}

#[test]
fn too_many_series_are_an_error_or_for_the_explorer_a_warning() {
    let memory = Memory {
        series: 501,
        ..Memory::default()
    };
    let server = Server::with(Options::default(), memory, 256 << 20);
    let path = format!(
        "/loki/api/v1/query?query={}",
        encoded(r#"rate({a="1"}[1m])"#)
    );
    server
        .get(&path)
        .check_error(400, &["maximum number of series (500) reached"]);
    let tags = ("X-Query-Tags", "Source=grafana-lokiexplore-app,x=y");
    let answer = server.send("GET", &path, &[tags], b"").json();
    assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(500));
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bad_queries_are_plain_text_without_a_newline() {
    let server = Server::new();
    let log = encoded(r#"{a="1"}"#);
    let long = encoded(r#"count_over_time({a="1"}[31d])"#);
    for (path, parts) in [
        ("query_range".to_owned(), &["parse error", "unexpected"][..]),
        (
            format!("query_range?query={}", encoded(r#"{a="1" | json"#)),
            &["parse error at line 1, col 8"],
        ),
        (
            format!("query_range?query={}", encoded(r#"{a="1"} |~ "(""#)),
            &["parse error : stage"],
        ),
        (format!("query?query={log}"), &["instant", "range"]),
        (format!("query?query={long}"), &["30d1h"]),
        (
            format!("query_range?query={log}&limit=5001"),
            &["max_entries_limit_per_query", "5001 > 5000"],
        ),
        (
            format!("query_range?query={log}&limit=0"),
            &["limit", "positive"],
        ),
        (
            format!("query_range?query={log}&direction=up"),
            &["direction", "up"],
        ),
        (
            format!("query_range?query={log}&start=10&end=5"),
            &["end", "start"],
        ),
        (format!("query_range?query={log}&step=0"), &["step"]),
        (
            format!("query_range?query={log}&start=yesterday"),
            &["'start'", "yesterday"],
        ),
        (
            format!("query_range?query={log}&interval=-1"),
            &["interval"],
        ),
        (
            format!("labels?query={}", encoded(r#"{a="1"} |= "x""#)),
            &["matchers"],
        ),
        (
            format!("series?match[]={}", encoded(r#"{a="1"} |= "x""#)),
            &["matchers"],
        ),
        ("labels?start=0&end=2595601".to_owned(), &["30d1h"]),
        ("index/stats".to_owned(), &["parse error"]),
    ] {
        let answer = server.get(&format!("/loki/api/v1/{path}"));
        answer.check_error(400, parts);
        assert!(!answer.body.ends_with('\n'), "{path}");
    }
}

#[test]
fn failures_of_queries_have_their_statuses() {
    let path = format!(
        "/loki/api/v1/query?query={}",
        encoded(r#"rate({a="1"}[1m])"#)
    );
    for (failure, status) in [
        (QueryError::Invalid("why".into()), 400),
        (QueryError::TooMuch("why".into()), 400),
        (QueryError::Matching("why".into()), 500),
        (QueryError::Busy("why".into()), 503),
        (QueryError::Internal("why".into()), 500),
    ] {
        let memory = Memory {
            failure: Some(failure),
            ..Memory::default()
        };
        let server = Server::with(Options::default(), memory, 256 << 20);
        server.get(&path).check_error(status, &["why"]);
    }
}

#[test]
fn labels_series_and_stats_are_asked_with_an_inclusive_range() {
    let server = Server::new();
    let selector = encoded(r#"{a="1"}"#);
    let asked = |path: &str| {
        let answer = server.get(&format!("/loki/api/v1/{path}")).json();
        (answer, server.memory.asked.lock().pop().expect("asked"))
    };
    let hour = TimeRange::new(NOW - HOUR, NOW + 1);
    let names = json!({"status":"success","data":["a","b"]});
    assert_eq!(asked("labels"), (names.clone(), ("".into(), hour, 0)));
    let (answer, (_, range, matchers)) = asked(&format!("label?query={selector}&start=1&end=2"));
    assert_eq!((answer, matchers), (names, 1));
    assert_eq!(range, TimeRange::new(SECOND, 2 * SECOND + 1));
    assert_eq!(
        asked("label/b/values").0,
        json!({"status":"success","data":["x","y"]})
    );
    assert_eq!(asked("label/zz/values").0, json!({"status":"success"}));
    let all = json!({"status":"success","data":[{"a":"1"},{"b":"1"}]});
    for (path, selectors) in [
        ("series".to_owned(), 0),
        ("series?match[]=%7B%7D".to_owned(), 0),
        (format!("series?match={selector}&match%5B%5D={selector}"), 2),
    ] {
        let (answer, (_, _, count)) = asked(&path);
        assert_eq!((answer, count), (all.clone(), selectors));
    }
    assert_eq!(
        asked(&format!("index/stats?query={selector}")).0,
        json!({"streams":1,"chunks":2,"bytes":3,"entries":4})
    );
    let answer = server.get("/api/prom/label").json();
    assert_eq!(answer, json!({"values":["a","b"]}));
}

#[test]
fn format_query_answers_in_json_either_way() {
    let server = Server::new();
    let path = |query: &str| format!("/loki/api/v1/format_query?query={}", encoded(query));
    let answer = server.get(&path(r#"sum by(a)(rate({x="y"}|="z"[5m]))"#));
    assert_eq!(
        answer.headers["content-type"],
        "application/json; charset=utf-8"
    );
    let value: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(value["data"], r#"sum by (a)(rate({x="y"} |= "z"[5m]))"#);
    let answer = server.get(&path(r#"{x="y""#));
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.headers["content-type"],
        "application/json; charset=utf-8"
    );
    let value: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(value["status"], "invalid-query");
    assert!(
        value["error"]
            .as_str()
            .is_some_and(|e| e.contains("line 1, col 7"))
    );
}

#[test]
fn unknown_paths_and_wrong_methods_are_answered_as_loki_does() {
    let server = Server::new();
    server
        .get("/loki/api/v1/nothing")
        .check_error(404, &["404 page not found"]);
    for (method, path) in [
        ("GET", "/loki/api/v1/push"),
        ("DELETE", "/loki/api/v1/query"),
        ("PUT", "/loki/api/v1/labels"),
    ] {
        let answer = server.send(method, path, &[], b"");
        assert_eq!((answer.status, &*answer.body), (405, ""), "{method} {path}");
    }
    let answer = server.get("/loki/api/v1/status/buildinfo").json();
    assert_eq!(answer["version"], build::LOKI_VERSION);
    assert!(answer["goVersion"].is_string());
}

#[test]
fn detected_labels_come_from_series_and_patterns_can_be_switched_off() {
    let server = Server::new();
    let answer = server.get("/loki/api/v1/detected_labels").json();
    // Their only value is 1: a flag.
    let wanted = json!({"detectedLabels": [
        {"label": "a", "cardinality": 1}, {"label": "b", "cardinality": 1}]});
    assert_eq!(answer, wanted);
    server
        .get("/loki/api/v1/detected_labels?query=%7B%7D")
        .check_error(400, &["parse error"]);
    let mut options = Options::default();
    options.explore.patterns = false;
    let server = Server::with(options, Memory::default(), 256 << 20);
    let answer = server.get("/loki/api/v1/patterns?query=%7Ba%3D%221%22%7D");
    assert_eq!((answer.status, &*answer.body), (404, ""));
    let limits = server.get("/loki/api/v1/drilldown-limits").json();
    assert_eq!(limits["pattern_ingester_enabled"], false);
}
