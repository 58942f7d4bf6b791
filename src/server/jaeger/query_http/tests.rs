use std::net::SocketAddr;

use super::*;
use crate::model::trace::SpanBatch;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::spans::SpanSink;
use crate::server::spans::memory::{Answer, Memory, fixture, send, serve, sink};

/// 2026-11-22T00:00:00Z in nanoseconds.
const NOW: i64 = 1_795_305_600_000_000_000;

async fn start() -> (SocketAddr, Arc<Memory>) {
    let memory = sink();
    for (name, format) in [
        ("go-types", SpanFormat::ThriftCompactMessage),
        ("go-traefik64", SpanFormat::ThriftCompactMessage),
        ("pyotlp-plain", SpanFormat::OtlpProto),
    ] {
        let body = fixture(&format!("captured/{name}.bin"));
        let batch: SpanBatch = decode_spans(format, &body).unwrap();
        memory.accept(batch, format, body.into()).await.unwrap();
    }
    let router = router(memory.clone(), Clock::fixed(NOW), &QueryOptions::default());
    (serve(router).await, memory)
}

async fn get(path: &str) -> Answer {
    send(start().await.0, "GET", path, &[], "").await
}

/// The query that a search hands to the reader.
async fn query(parameters: &str) -> TraceQuery {
    let (address, memory) = start().await;
    let answer = send(
        address,
        "GET",
        &format!("/api/traces?{parameters}"),
        &[],
        "",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    memory.queries.lock().pop().unwrap()
}

#[track_caller]
fn check_error(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.text().ends_with('\n'));
    let json = answer.json();
    assert_eq!(json["data"], serde_json::Value::Null);
    assert_eq!(json["errors"][0]["code"], status);
    let found = json["errors"][0]["msg"].as_str().unwrap();
    assert!(found.starts_with(message), "{found}");
}

#[tokio::test]
async fn services_and_operations_are_listed() {
    let services = get("/api/services").await;
    assert_eq!(services.header("content-type"), "application/json");
    assert_eq!(
        services.text(),
        r#"{"data":["py-otlp","svc-types","traefik"],"total":3,"limit":0,"offset":0,"errors":null}"#
    );
    let names = get("/api/services/svc-types/operations").await;
    assert_eq!(
        names.json()["data"],
        serde_json::json!(["all tag types", "follows", "two parents"])
    );
    let operations = get("/api/operations?service=svc-types").await;
    assert_eq!(operations.json()["total"], 3);
    assert_eq!(
        operations.json()["data"][1],
        serde_json::json!({"name": "follows", "spanKind": "producer"})
    );
    let one_kind = get("/api/operations?service=svc-types&spanKind=consumer").await;
    assert_eq!(one_kind.json()["data"][0]["name"], "two parents");
    assert_eq!(one_kind.json()["total"], 1);
    let unknown = get("/api/services/nobody/operations").await;
    assert_eq!(
        (unknown.status, unknown.json()["data"].clone()),
        (200, serde_json::json!([]))
    );
    check_error(
        &get("/api/operations").await,
        400,
        "parameter 'service' is required",
    );
}

#[tokio::test]
async fn a_service_name_may_hold_slashes_raw_or_escaped() {
    let memory = sink();
    let body = fixture("captured/go-http.bin");
    let mut batch = decode_spans(SpanFormat::ThriftBinaryBatch, &body).unwrap();
    for span in &mut batch.spans {
        span.process = Arc::new(crate::model::trace::Process {
            service: "a/b c+d".into(),
            tags: vec![],
        });
    }
    memory
        .accept(batch, SpanFormat::ThriftBinaryBatch, body.into())
        .await
        .unwrap();
    let address = serve(router(memory, Clock::fixed(NOW), &QueryOptions::default())).await;
    for path in ["a/b+c%2Bd", "a%2Fb%20c%2bd"] {
        let answer = send(
            address,
            "GET",
            &format!("/api/services/{path}/operations"),
            &[],
            "",
        )
        .await;
        assert!(
            answer.json()["total"].as_u64().unwrap() > 0,
            "{path}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_trace_is_found_by_any_spelling_of_its_id_and_404_otherwise() {
    let id = get("/api/traces?service=traefik").await.json()["data"][0]["traceID"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 16);
    for spelling in [
        id.clone(),
        format!("{:0>32}", id.to_uppercase()),
        format!("{id}?start=1&end=2"),
    ] {
        let answer = get(&format!("/api/traces/{spelling}")).await;
        assert_eq!(answer.status, 200, "{spelling}");
        assert_eq!(answer.json()["data"][0]["traceID"], id.as_str());
        assert_eq!(
            answer.json()["data"][0]["spans"].as_array().unwrap().len(),
            2
        );
    }
    check_error(&get("/api/traces/123").await, 404, "trace not found");
    check_error(
        &get("/api/traces/xyz").await,
        400,
        "strconv.ParseUint: parsing \"xyz\"",
    );
    let long = "1".repeat(33);
    check_error(
        &get(&format!("/api/traces/{long}")).await,
        400,
        "TraceID cannot be longer",
    );
}

#[tokio::test]
async fn traces_are_adjusted_unless_raw() {
    let keys = |answer: Answer| {
        let span = answer.json()["data"][0]["processes"]["p1"]["tags"].clone();
        span.as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let path = "/api/traces?service=svc-types";
    assert_eq!(
        keys(get(path).await),
        ["client-uuid", "hostname", "ip", "jaeger.version"]
    );
    for raw in ["1", "true", "T"] {
        let answer = get(&format!("{path}&raw={raw}")).await;
        assert_eq!(
            keys(answer),
            ["ip", "jaeger.version", "hostname", "client-uuid"]
        );
    }
    check_error(
        &get(&format!("{path}&raw=yes")).await,
        400,
        "unable to parse param 'raw'",
    );
}

#[tokio::test]
async fn a_search_by_ids_names_the_missing_and_ignores_the_rest() {
    let id = "60b2938e900ebc9f4acec363c63a7779";
    let answer = get(&format!(
        "/api/traces?traceID={id}&traceID=ABC&limit=nonsense"
    ))
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"][0]["traceID"], id);
    assert_eq!(
        answer.json()["errors"],
        serde_json::json!([{"msg": "trace not found", "traceID": "0000000000000abc"}])
    );
    check_error(
        &get("/api/traces?traceID=zz").await,
        400,
        "cannot parse traceID param: strconv",
    );
}

#[tokio::test]
async fn every_parameter_of_a_search_is_read() {
    let found = query(
        "service=traefik&operation=GET+%2F&start=1000&end=2000&limit=7&minDuration=1.2s&maxDuration=1h5m\
         &lookback=2d&tags=%7B%22http.status_code%22%3A%22500%22%2C%22b%22%3A%22x%3Ay%22%7D&tag=error:true&tag=k:a:b",
    )
    .await;
    assert_eq!(
        (found.service.as_str(), found.operation.as_str()),
        ("traefik", "GET /")
    );
    assert_eq!((found.start_min, found.start_max), (1_000_000, 2_000_999));
    assert_eq!(
        (found.duration_min, found.duration_max),
        (Some(1_200_000_000), Some(3_900_000_000_000))
    );
    assert_eq!(found.limit, 7);
    let mut tags = found.tags;
    tags.sort();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        tags,
        [
            pair("b", "x:y"),
            pair("error", "true"),
            pair("http.status_code", "500"),
            pair("k", "a:b")
        ]
    );
}

#[tokio::test]
async fn what_is_absent_or_empty_has_jaegers_default() {
    for parameters in [
        "service=traefik",
        "service=traefik&start=&end=&limit=0&minDuration=&maxDuration=0&tags=&operation=",
    ] {
        let found = query(parameters).await;
        assert_eq!(
            (found.start_min, found.start_max),
            (NOW - 48 * HOUR, NOW),
            "{parameters}"
        );
        assert_eq!(
            (found.limit, found.duration_min, found.duration_max),
            (100, None, None)
        );
        assert!(found.tags.is_empty() && found.operation.is_empty());
    }
    // Equal bounds are a search for one duration.
    assert_eq!(
        query("service=a&minDuration=5us&maxDuration=5us")
            .await
            .duration_max,
        Some(5_000)
    );
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    for (parameters, message) in [
        ("", "parameter 'service' is required"),
        (
            "start=x",
            "unable to parse param 'start': strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        ("end=1.5", "unable to parse param 'end': "),
        (
            "limit=4294967296",
            "unable to parse param 'limit': strconv.ParseInt: parsing \"4294967296\": value out of range",
        ),
        (
            "minDuration=5",
            "unable to parse param 'minDuration': time: missing unit in duration \"5\"",
        ),
        (
            "maxDuration=1d",
            "unable to parse param 'maxDuration': time: invalid duration \"1d\"",
        ),
        (
            "minDuration=2s&maxDuration=1s",
            "'maxDuration' should be greater than 'minDuration'",
        ),
        (
            "tags=%7B%22a%22%3A1%7D",
            "malformed 'tags' parameter, cannot unmarshal JSON: ",
        ),
        (
            "tags=x",
            "malformed 'tags' parameter, cannot unmarshal JSON: ",
        ),
        (
            "tag=novalue",
            "malformed 'tag' parameter, expecting key:value, received: novalue",
        ),
    ] {
        let service = if parameters.is_empty() {
            ""
        } else {
            "service=a&"
        };
        check_error(
            &get(&format!("/api/traces?{service}{parameters}")).await,
            400,
            message,
        );
    }
    check_error(&get("/api/traces?service=slow").await, 503, "no turn");
}

#[tokio::test]
async fn pretty_print_is_anything_but_empty_or_false() {
    for (value, pretty) in [
        ("true", true),
        ("1", true),
        ("no", true),
        ("false", false),
        ("", false),
    ] {
        let answer = get(&format!("/api/services?prettyPrint={value}")).await;
        assert_eq!(answer.text().contains("\n    \"data\""), pretty, "{value}");
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_other_methods_405() {
    check_error(&get("/api/nonsense").await, 404, "not found");
    check_error(&get("/api/services/a").await, 404, "not found");
    let (address, _) = start().await;
    assert_eq!(
        send(address, "DELETE", "/api/traces/1", &[], "")
            .await
            .status,
        405
    );
}

/// A trace of so many spans, three of which share an id with others, in two processes.
fn long_trace(spans: u64) -> (TraceId, Vec<crate::model::trace::Span>) {
    use crate::model::trace::{Process, RefType, Span, SpanId, SpanRef, Tag};
    let id = TraceId(0xABC);
    let processes = ["a", "b"].map(|service| {
        let ip = Tag::string("ip", service);
        Arc::new(Process {
            service: service.into(),
            tags: vec![ip],
        })
    });
    let span = |n: u64| Span {
        trace_id: id,
        span_id: SpanId(if n % 7 == 3 { n } else { n + 1 }),
        operation: format!("step {n}").into(),
        references: match n {
            0 => vec![],
            n => vec![SpanRef {
                kind: RefType::ChildOf,
                trace_id: id,
                span_id: SpanId(n / 2 + 1),
            }],
        },
        flags: 1,
        start: NOW + (n as i64 * 37 % 50) * 1_000_000,
        duration: 5_000_000,
        tags: vec![Tag::string(
            "span.kind",
            if n % 7 == 3 { "server" } else { "client" },
        )],
        logs: vec![],
        process: processes[(n % 2) as usize].clone(),
        warnings: vec![],
    };
    (id, (0..spans).map(span).collect())
}

#[tokio::test]
async fn a_trace_that_comes_in_many_pieces_is_written_as_one_that_does_not() {
    for (count, raw) in [
        (12, false),
        (13, false),
        (100, false),
        (100, true),
        (3000, false),
    ] {
        let (id, spans) = long_trace(count);
        let memory = sink();
        let (batch, body) = (
            SpanBatch {
                spans: spans.clone(),
            },
            bytes::Bytes::new(),
        );
        memory
            .accept(batch, SpanFormat::OtlpProto, body)
            .await
            .unwrap();
        let address = serve(router(memory, Clock::fixed(NOW), &QueryOptions::default())).await;
        let path = format!("/api/traces/abc?raw={raw}");
        let answer = send(address, "GET", &path, &[], "").await;
        assert_eq!(answer.status, 200);
        let mut trace = Trace {
            id,
            spans,
            warnings: vec![],
        };
        if count < 12 {
            trace.spans.sort_by_key(|span| span.start);
        }
        if !raw {
            adjust(&mut trace, 0);
            let warned = trace.spans.iter().filter(|s| !s.warnings.is_empty());
            assert!(warned.count() > 5, "the trace is one that is adjusted");
        }
        // Beyond some pieces in order of arrival.
        let mut wanted: serde_json::Value =
            serde_json::from_str(&json::traces(&[trace], &[], Layout::Compact)).unwrap();
        let mut found = answer.json();
        if count < 100 {
            // Few spans are sorted; adjusting goes by the order, so only what is left is compared.
            for json in [&mut wanted, &mut found] {
                let spans = json["data"][0]["spans"].as_array_mut().unwrap();
                assert_eq!(spans.len() as u64, count);
                spans.iter_mut().for_each(|s| {
                    s["warnings"].take();
                    s["spanID"].take();
                    s["references"].take();
                    s["processID"].take();
                });
                spans.sort_by_key(|s| s["operationName"].as_str().map(str::to_owned));
                json["data"][0]["processes"].take();
            }
        }
        assert_eq!(found, wanted, "{count} spans, raw {raw}");

        let twice = "/api/traces?traceID=abc&traceID=def&traceID=abc";
        let answer = send(address, "GET", twice, &[], "").await.json();
        assert_eq!(answer["data"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer["errors"][0]["traceID"], "0000000000000def");
    }
}

#[tokio::test]
async fn archiving_answers_as_jaeger_does() {
    let (address, memory) = start().await;
    let (id, spans) = long_trace(5);
    let (batch, body) = (SpanBatch { spans }, bytes::Bytes::new());
    memory
        .accept(batch, SpanFormat::OtlpProto, body)
        .await
        .unwrap();
    let done = send(address, "POST", "/api/archive/abc", &[], "").await;
    assert_eq!(done.status, 200);
    assert_eq!(
        done.text(),
        r#"{"data":[],"total":0,"limit":0,"offset":0,"errors":[]}"#
    );
    let archived = memory.archived.lock().clone();
    assert!(archived.len() == 5 && archived.iter().all(|span| span.trace_id == id));
    let unknown = send(address, "POST", "/api/archive/def", &[], "").await;
    check_error(&unknown, 404, "trace not found");
    let malformed = send(address, "POST", "/api/archive/xyz", &[], "").await;
    check_error(&malformed, 400, "strconv.ParseUint");
}
