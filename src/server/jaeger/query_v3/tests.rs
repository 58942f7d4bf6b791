use std::net::SocketAddr;

use serde_json::Value;

use super::*;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::spans::SpanSink;
use crate::server::spans::memory::{Answer, Memory, fixture, send, serve, sink};

async fn start() -> (SocketAddr, Arc<Memory>) {
    let memory = sink();
    for (name, format) in [
        ("go-types", SpanFormat::ThriftCompactMessage),
        ("go-traefik64", SpanFormat::ThriftCompactMessage),
        ("pyotlp-plain", SpanFormat::OtlpProto),
    ] {
        let body = fixture(&format!("captured/{name}.bin"));
        let batch = decode_spans(format, &body).unwrap();
        memory.accept(batch, format, body.into()).await.unwrap();
    }
    let router = router(memory.clone(), &QueryOptions::default());
    (serve(router).await, memory)
}

async fn get(path: &str) -> Answer {
    send(start().await.0, "GET", path, &[], "").await
}

const TIMES: &str =
    "query.startTimeMin=2026-01-01T00:00:00Z&query.startTimeMax=2026-01-02T03:04:05.5%2B02:00";

/// The query that a search hands to the reader.
async fn query(parameters: &str) -> TraceQuery {
    let (address, memory) = start().await;
    let path = format!("/api/v3/traces?query.serviceName=traefik&{parameters}");
    let answer = send(address, "GET", &path, &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    memory.queries.lock().pop().unwrap()
}

#[track_caller]
fn check_error(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["httpCode"], status);
    let found = error["message"].as_str().unwrap();
    assert!(found.starts_with(message), "{found}");
}

fn spans(answer: &Answer) -> Vec<Value> {
    let json = answer.json();
    let groups = json["result"]["resourceSpans"].as_array().unwrap();
    let scopes = groups
        .iter()
        .flat_map(|g| g["scopeSpans"].as_array().unwrap());
    let spans = scopes.flat_map(|s| s["spans"].as_array().unwrap());
    spans.cloned().collect()
}

#[tokio::test]
async fn services_and_operations_are_listed() {
    let services = get("/api/v3/services").await;
    assert_eq!(services.header("content-type"), "application/json");
    assert_eq!(
        services.json(),
        json!({ "services": ["py-otlp", "svc-types", "traefik"] })
    );
    let kinds = |answer: Answer| -> Vec<String> {
        let json = answer.json();
        let operations = json["operations"].as_array().unwrap().iter();
        operations
            .map(|o| o["spanKind"].as_str().unwrap().to_owned())
            .collect()
    };
    let server = kinds(get("/api/v3/operations?service=traefik").await);
    assert!(server.contains(&"server".to_owned()), "{server:?}");
    // Spans of this one have no kind.
    let none = kinds(get("/api/v3/operations?service=svc-types").await);
    assert!(none.contains(&"internal".to_owned()), "{none:?}");
    for name in ["spanKind", "span_kind"] {
        let path = format!("/api/v3/operations?service=svc-types&{name}=internal");
        let internal = kinds(get(&path).await);
        assert!(!internal.is_empty() && internal.iter().all(|kind| kind == "internal"));
        let path = format!("/api/v3/operations?service=svc-types&{name}=client");
        assert_eq!(kinds(get(&path).await), [""; 0]);
    }
    let none = get("/api/v3/operations?service=nobody").await;
    assert_eq!(none.json(), json!({ "operations": [] }));
}

#[tokio::test]
async fn a_trace_comes_by_any_spelling_of_its_id() {
    let (address, memory) = start().await;
    let id = memory.spans().last().unwrap().trace_id;
    let bytes = id.0.to_be_bytes();
    let base64 = base64::engine::general_purpose::URL_SAFE.encode(bytes);
    for text in [
        format!("{:032x}", id.0),
        format!("{:032X}", id.0),
        base64.replace('=', "%3D"),
        base64.trim_end_matches('=').to_owned(),
    ] {
        let path = format!("/api/v3/traces/{text}?startTime=2026-01-01T00:00:00Z&raw_traces=1");
        let answer = send(address, "GET", &path, &[], "").await;
        assert_eq!(answer.status, 200, "{path} {}", answer.text());
        let spans = spans(&answer);
        assert_eq!(spans.len(), 3);
        assert_eq!(spans[0]["traceId"], format!("{:032x}", id.0));
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_understood_is_an_error_in_version_3s_form() {
    check_error(&get("/api/v3/traces/abc").await, 404, "No traces found");
    let bad = get("/api/v3/traces/xyz!").await;
    check_error(&bad, 400, "malformed parameter trace_id: ");
    let path = format!("/api/v3/traces?query.serviceName=nobody&{TIMES}");
    check_error(&get(&path).await, 404, "No traces found");
    check_error(&get("/api/v3/other").await, 404, "not found");
    let path = format!("/api/v3/traces?query.serviceName=slow&{TIMES}");
    check_error(&get(&path).await, 503, "no turn");
    for (parameters, message) in [
        ("", "query.startTimeMin and query.startTimeMax are required"),
        (
            "query.startTimeMin=x&query.startTimeMax=2026-01-01T00:00:00Z",
            "malformed parameter query.startTimeMin: ",
        ),
        (
            "query.start_time_min=2026-01-01T00:00:00Z&query.start_time_max=2026-01-01T00:00:00Z",
            "query.startTimeMin must be before",
        ),
        (
            "T&query.durationMin=5",
            "malformed parameter query.durationMin: ",
        ),
        (
            "T&query.duration_max=x",
            "malformed parameter query.duration_max: ",
        ),
        (
            "T&query.durationMin=2s&query.durationMax=1s",
            "query.durationMax must",
        ),
        (
            "T&query.searchDepth=x",
            "malformed parameter query.searchDepth: ",
        ),
        (
            "T&query.num_traces=-1",
            "malformed parameter query.num_traces: ",
        ),
        (
            "T&query.attributes=[]",
            "malformed parameter query.attributes: ",
        ),
        (
            "T&query.attributes={\"a\":1}",
            "malformed parameter query.attributes: ",
        ),
        (
            "T&query.rawTraces=maybe",
            "malformed parameter query.rawTraces: ",
        ),
        (
            "T&query.filter={}",
            "malformed parameter query.filter: filters are not",
        ),
    ] {
        let parameters = match parameters.strip_prefix("T&") {
            Some(rest) => format!("{TIMES}&{rest}"),
            None => parameters.to_owned(),
        };
        let parameters = parameters.replace('"', "%22");
        let parameters = parameters.replace('{', "%7B").replace('}', "%7D");
        for of in ["traces", "trace-summaries"] {
            let answer = get(&format!("/api/v3/{of}?{parameters}")).await;
            check_error(&answer, 400, message);
        }
    }
}

#[tokio::test]
async fn a_search_is_read_in_both_spellings() {
    let expected = query(&format!(
        "{TIMES}&query.operationName=op&query.durationMin=1.5ms&query.durationMax=2s\
         &query.searchDepth=7&query.attributes=%7B%22a%22:%22b%22%7D"
    ))
    .await;
    assert_eq!(expected.service, "traefik");
    assert_eq!(expected.operation, "op");
    assert_eq!(expected.tags, [("a".to_owned(), "b".to_owned())]);
    // 2026-01-01T00:00:00Z, and 2026-01-02T01:04:05.5Z.
    assert_eq!(expected.start_min, 1_767_225_600_000_000_000);
    assert_eq!(expected.start_max, 1_767_315_845_500_000_000);
    assert_eq!(expected.duration_min, Some(1_500_000));
    assert_eq!(expected.duration_max, Some(2_000_000_000));
    assert_eq!(expected.limit, 7);
    // A `+` that nobody escaped is a space here.
    let old = query(
        "query.start_time_min=2026-01-01T00:00:00Z\
         &query.start_time_max=2026-01-02T03:04:05.5+02:00&query.operation_name=op\
         &query.duration_min=1.5ms&query.duration_max=2s&query.num_traces=7\
         &query.attributes=%7B%22a%22:%22b%22%7D",
    )
    .await;
    assert_eq!(format!("{old:?}"), format!("{expected:?}"));
    assert_eq!(query(TIMES).await.limit, 100);
    assert_eq!(
        query(&format!("{TIMES}&query.searchDepth=0")).await.limit,
        100
    );
}

#[tokio::test]
async fn found_traces_come_whole_and_in_short() {
    let (address, memory) = start().await;
    let path = format!("/api/v3/traces?query.serviceName=svc-types&{TIMES}");
    let answer = send(address, "GET", &path, &[], "").await;
    let of_service = |s: &&Span| &*s.process.service == "svc-types";
    let stored = memory.spans().iter().filter(of_service).count();
    assert_eq!(spans(&answer).len(), stored);
    let path = format!("/api/v3/trace-summaries?query.serviceName=svc-types&{TIMES}");
    let answer = send(address, "GET", &path, &[], "").await.json();
    let summaries = answer["summaries"].as_array().unwrap();
    let counted: u64 = summaries
        .iter()
        .map(|s| s["spanCount"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, stored as u64);
    assert!(
        summaries
            .iter()
            .all(|s| s["traceId"].as_str().unwrap().len() == 32)
    );
    let path = format!("/api/v3/trace-summaries?query.serviceName=nobody&{TIMES}");
    let none = send(address, "GET", &path, &[], "").await;
    assert_eq!(
        (none.status, none.json()),
        (200, json!({ "summaries": [] }))
    );
}
