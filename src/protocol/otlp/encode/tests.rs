use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;
use crate::model::trace::{SpanId, TraceId};
use crate::protocol::otlp::{decode_json, decode_proto, decode_stored, render};
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::protocol::{SpanFormat, decode_spans};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/jaeger/captured/{name}.bin",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn span(tags: Vec<Tag>) -> Span {
    Span {
        trace_id: TraceId(1),
        span_id: SpanId(2),
        operation: "op".into(),
        references: vec![],
        flags: 1,
        start: 1_000,
        duration: 500,
        tags,
        logs: vec![],
        process: Arc::new(Process {
            service: "svc".into(),
            tags: vec![],
        }),
        warnings: vec![],
    }
}

/// The only span's message, and its scope.
#[track_caller]
fn only(span: &Span) -> (SpanMessage, InstrumentationScope) {
    let [resource] = &resource_spans([span])[..] else {
        panic!("one resource")
    };
    let [scope] = &resource.scope_spans[..] else {
        panic!("one scope")
    };
    (
        scope.spans[0].clone(),
        scope.scope.clone().unwrap_or_default(),
    )
}

/// Status and the keys that stay attributes.
#[track_caller]
fn check_status(tags: Vec<Tag>, code: StatusCode, message: &str, stay: &[&str]) {
    let (span, _) = only(&span(tags.clone()));
    let status = span.status.unwrap();
    assert_eq!(
        (status.code(), &*status.message),
        (code, message),
        "{tags:?}"
    );
    let keys: Vec<&str> = span.attributes.iter().map(|a| &*a.key).collect();
    assert_eq!(keys, stay, "{tags:?}");
}

fn int(key: &str, value: i64) -> Tag {
    Tag {
        key: key.into(),
        value: TagValue::Int64(value),
    }
}

#[test]
fn status_is_what_error_then_otel_then_http_say() {
    use StatusCode::{Error, Ok, Unset};
    let text = |key: &str, value: &str| Tag::string(key, value);
    check_status(vec![], Unset, "", &[]);
    check_status(vec![Tag::bool("error", true)], Error, "", &[]);
    check_status(vec![Tag::bool("error", false)], Unset, "", &["error"]);
    check_status(vec![text("error", "true")], Unset, "", &["error"]);
    check_status(vec![text("otel.status_code", "OK")], Ok, "", &[]);
    check_status(
        vec![
            text("otel.status_description", "why"),
            text("otel.status_code", "error"),
        ],
        Error,
        "why",
        &[],
    );
    check_status(
        vec![text("otel.status_description", "why")],
        Unset,
        "",
        &["otel.status_description"],
    );
    check_status(
        vec![text("otel.status_code", "OK"), Tag::bool("error", true)],
        Error,
        "",
        &[],
    );
    check_status(
        vec![
            Tag::bool("error", true),
            text("http.status_message", "gone"),
        ],
        Error,
        "gone",
        &["http.status_message"],
    );
    let http = |code, kind: &str| vec![int("http.status_code", code), text("span.kind", kind)];
    check_status(http(500, "server"), Error, "", &["http.status_code"]);
    check_status(http(404, "server"), Unset, "", &["http.status_code"]);
    check_status(http(404, "client"), Error, "", &["http.status_code"]);
    check_status(http(200, "client"), Unset, "", &["http.status_code"]);
    let float = Tag {
        key: "http.status_code".into(),
        value: TagValue::Float64(503.0),
    };
    check_status(vec![float], Error, "", &["http.status_code"]);
}

#[test]
fn kinds_scopes_and_trace_states_leave_the_tags_and_unknown_ones_stay() {
    let (message, scope) = only(&span(vec![
        Tag::string("span.kind", "server"),
        Tag::string("span.kind", "client"),
        Tag::string("otel.library.name", "lib"),
        Tag::string("otel.library.version", "2"),
        Tag::string("w3c.tracestate", "a=b"),
        Tag::string("x", "1"),
        Tag::string("x", "2"),
    ]));
    assert_eq!(message.kind(), span::SpanKind::Server);
    assert_eq!((&*scope.name, &*scope.version), ("lib", "2"));
    assert_eq!(message.trace_state, "a=b");
    let keys: Vec<&str> = message.attributes.iter().map(|a| &*a.key).collect();
    assert_eq!(keys, ["span.kind", "x", "x"]);
    let (message, _) = only(&span(vec![Tag::string("span.kind", "odd")]));
    assert_eq!(message.kind(), span::SpanKind::Unspecified);
    assert_eq!(message.attributes.len(), 1);
}

#[test]
fn clients_names_of_process_tags_become_otlps_unless_those_are_there() {
    let keys = |tags: Vec<Tag>| {
        let process = Process {
            service: "s".into(),
            tags,
        };
        let attributes = resource(&process).attributes.into_iter();
        attributes
            .map(|a| {
                let Some(AnyValue {
                    value: Some(any_value::Value::StringValue(text)),
                }) = a.value
                else {
                    panic!("no text")
                };
                format!("{}={text}", a.key)
            })
            .collect::<Vec<_>>()
    };
    let old = || {
        vec![
            Tag::string("hostname", "h"),
            Tag::string("jaeger.version", "Go-2.30.0"),
        ]
    };
    assert_eq!(
        keys(old()),
        [
            "service.name=s",
            "host.name=h",
            "opencensus.exporterversion=Jaeger-Go-2.30.0"
        ]
    );
    let mut both = old();
    both.push(Tag::string("host.name", "x"));
    both.push(Tag::string("opencensus.exporterversion", "y"));
    assert_eq!(
        keys(both),
        [
            "service.name=s",
            "hostname=h",
            "jaeger.version=Go-2.30.0",
            "host.name=x",
            "opencensus.exporterversion=y"
        ]
    );
}

#[test]
fn the_reference_to_the_parent_is_no_link_and_all_others_are() {
    let reference = |kind, trace, span| SpanRef {
        kind,
        trace_id: TraceId(trace),
        span_id: SpanId(span),
    };
    let mut one = span(vec![]);
    one.references = vec![
        reference(RefType::FollowsFrom, 1, 9),
        reference(RefType::ChildOf, 5, 9),
        reference(RefType::ChildOf, 1, 9),
    ];
    let (message, _) = only(&one);
    assert_eq!(message.parent_span_id[..], 9u64.to_be_bytes());
    let kinds: Vec<String> = message
        .links
        .iter()
        .map(|l| format!("{:?}", l.attributes[0].value.as_ref().unwrap().value))
        .collect();
    assert_eq!(message.links.len(), 2);
    assert!(kinds[0].contains("follows_from") && kinds[1].contains("child_of"));
}

#[test]
fn spans_are_grouped_by_process_and_scope_in_order_of_first_use() {
    let with = |service: &str, scope: &str, id: u64| {
        let mut one = span(vec![Tag::string("otel.scope.name", scope)]);
        one.span_id = SpanId(id);
        one.process = Arc::new(Process {
            service: service.into(),
            tags: vec![],
        });
        one
    };
    let spans = [
        with("a", "x", 1),
        with("b", "x", 2),
        with("a", "y", 3),
        with("a", "x", 4),
        with("b", "x", 5),
    ];
    let groups = resource_spans(&spans);
    let ids = |scope: &ScopeSpans| scope.spans.iter().map(|s| s.span_id[7]).collect::<Vec<_>>();
    let found: Vec<Vec<Vec<u8>>> = groups
        .iter()
        .map(|r| r.scope_spans.iter().map(ids).collect())
        .collect();
    assert_eq!(found, [vec![vec![1, 4], vec![3]], vec![vec![2, 5]]]);
}

#[test]
fn json_has_hex_ids_numbers_as_text_and_keeps_empty_parts() {
    let mut one = span(vec![
        int("n", i64::MIN),
        Tag {
            key: "nan".into(),
            value: TagValue::Float64(f64::NAN),
        },
        Tag {
            key: "b".into(),
            value: TagValue::Binary([1, 255][..].into()),
        },
        Tag::string("empty", ""),
        Tag::string("quote", "\"\u{1}"),
    ]);
    one.warnings = vec!["careful".into()];
    let text = render::resource_spans(&resource_spans([&one])[0]);
    let json: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(
        json,
        json!({
            "resource": {
                "attributes": [{ "key": "service.name", "value": { "stringValue": "svc" } }]
            },
            "scopeSpans": [{ "scope": {}, "spans": [{
                "traceId": "00000000000000000000000000000001",
                "spanId": "0000000000000002",
                "name": "op",
                "startTimeUnixNano": "1000",
                "endTimeUnixNano": "1500",
                "attributes": [
                    { "key": "n", "value": { "intValue": "-9223372036854775808" } },
                    { "key": "nan", "value": { "doubleValue": "NaN" } },
                    { "key": "b", "value": { "bytesValue": "Af8=" } },
                    { "key": "empty", "value": { "stringValue": "" } },
                    { "key": "quote", "value": { "stringValue": "\"\u{1}" } },
                    { "key": "@jaeger@warnings", "value": {
                        "arrayValue": { "values": [{ "stringValue": "careful" }] }
                    } },
                ],
                "status": {},
            }] }],
        })
    );
}

/// A span as text that ignores the order of tags, with its process' tags as OTLP calls them.
fn normal(span: &Span) -> String {
    let mut span = span.clone();
    let mut process = Process::clone(&span.process);
    for tag in &mut process.tags {
        match (&*tag.key, &tag.value) {
            ("hostname", _) => tag.key = "host.name".into(),
            ("jaeger.version", TagValue::String(version)) => {
                *tag = Tag::string("opencensus.exporterversion", format!("Jaeger-{version}"));
            }
            _ => {}
        }
    }
    span.process = Arc::new(process);
    span.flags = 0; // E3
    span.tags.sort_by_key(|tag| format!("{tag:?}"));
    for log in &mut span.logs {
        log.fields.sort_by_key(|tag| format!("{tag:?}"));
    }
    format!("{span:#?}")
}

#[test]
fn what_otlp_senders_sent_comes_back_as_it_was() {
    for (name, format) in [
        ("pyotlp-plain", SpanFormat::OtlpProto),
        ("nodeotel-otlp-json", SpanFormat::OtlpJson),
    ] {
        let batch = decode_spans(format, &fixture(name)).unwrap();
        let request = ExportTraceServiceRequest {
            resource_spans: resource_spans(&batch.spans),
        };
        // The mark is an attribute now; a reader that marks would add a second.
        let again = decode_stored(&request.encode_to_vec()).unwrap();
        assert_eq!(again.rejected, 0);
        let normal = |spans: &[Span]| spans.iter().map(normal).collect::<Vec<_>>();
        assert_eq!(normal(&again.batch.spans), normal(&batch.spans), "{name}");
    }
}

#[test]
fn what_jaegers_and_zipkins_clients_sent_keeps_all_tags_logs_and_references() {
    for (name, format) in [
        ("go-types", SpanFormat::ThriftCompactMessage),
        ("go-traefik64", SpanFormat::ThriftCompactMessage),
        ("node-udp", SpanFormat::ThriftBinaryMessage),
        ("py-udp", SpanFormat::ThriftCompactMessage),
        ("go-http", SpanFormat::ThriftBinaryBatch),
        ("zipkin-v1-thrift", SpanFormat::ZipkinThrift),
        ("nodeotel-zipkin", SpanFormat::ZipkinJsonV2),
    ] {
        let batch = decode_spans(format, &fixture(name)).unwrap();
        let request = ExportTraceServiceRequest {
            resource_spans: resource_spans(&batch.spans),
        };
        let again = decode_stored(&request.encode_to_vec()).unwrap().batch;
        assert_eq!(again.spans.len(), batch.spans.len(), "{name}");
        // A status that was read from HTTP's is said in OTLP's own tags, too.
        let derived = |tag: &Tag| {
            matches!(
                &*tag.key,
                "otel.status_code" | "error" | "otel.status_description"
            )
        };
        let normal = |span: &Span| {
            let mut span = span.clone();
            span.tags.retain(|tag| !derived(tag));
            normal(&span)
        };
        for span in &batch.spans {
            let of_id = |s: &&Span| s.span_id == span.span_id && s.kind() == span.kind();
            let found = again.spans.iter().find(of_id).unwrap();
            assert_eq!(normal(found), normal(span), "{name}");
        }
    }
}

fn any_tag() -> impl Strategy<Value = Tag> {
    let key = prop_oneof![
        "[a-z]{0,3}",
        Just("error".to_owned()),
        Just("span.kind".to_owned()),
        Just("otel.status_code".to_owned()),
        Just("otel.status_description".to_owned()),
        Just("otel.scope.name".to_owned()),
        Just("http.status_code".to_owned()),
        Just("w3c.tracestate".to_owned()),
        Just("event".to_owned()),
    ];
    let text = prop_oneof![".{0,6}", Just("server".to_owned()), Just("OK".to_owned())];
    let value = prop_oneof![
        text.prop_map(|text| TagValue::String(text.into())),
        any::<bool>().prop_map(TagValue::Bool),
        any::<i64>().prop_map(TagValue::Int64),
        any::<f64>().prop_map(TagValue::Float64),
        proptest::collection::vec(any::<u8>(), 0..4)
            .prop_map(|bytes| TagValue::Binary(bytes.into())),
    ];
    (key, value).prop_map(|(key, value)| Tag {
        key: key.into(),
        value,
    })
}

fn any_span() -> impl Strategy<Value = Span> {
    let tags = || proptest::collection::vec(any_tag(), 0..8);
    let reference = (any::<bool>(), 1u128..4, 1u64..5).prop_map(|(child, trace, span)| SpanRef {
        kind: if child {
            RefType::ChildOf
        } else {
            RefType::FollowsFrom
        },
        trace_id: TraceId(trace),
        span_id: SpanId(span),
    });
    let references = proptest::collection::vec(reference, 0..4);
    let logs = proptest::collection::vec((0i64..1 << 60, tags()), 0..3);
    let ids = (1u128..3, 1u64..1000);
    let times = (0i64..1 << 60, 0u64..1 << 60);
    (ids, times, tags(), references, logs, tags()).prop_map(
        |((trace, id), (start, duration), tags, references, logs, process)| Span {
            trace_id: TraceId(trace),
            span_id: SpanId(id),
            references,
            start,
            duration,
            logs: logs
                .into_iter()
                .map(|(at, fields)| SpanLog { at, fields })
                .collect(),
            process: Arc::new(Process {
                service: "s".into(),
                tags: process,
            }),
            ..span(tags)
        },
    )
}

proptest! {
    #[test]
    fn no_span_and_no_tag_is_lost_in_messages_or_json(spans in proptest::collection::vec(any_span(), 0..12)) {
        let groups = resource_spans(&spans);
        let messages: Vec<&SpanMessage> = groups
            .iter()
            .flat_map(|r| &r.scope_spans)
            .flat_map(|s| &s.spans)
            .collect();
        prop_assert_eq!(messages.len(), spans.len());
        for span in &spans {
            let (message, scope) = only(span);
            // What is no attribute has a field of its own.
            let fields = usize::from(message.kind != 0)
                + usize::from(!scope.name.is_empty())
                + usize::from(!message.trace_state.is_empty());
            let status_tags = span.tags.iter().filter(|t| matches!(&*t.key,
                "error" | "otel.status_code" | "otel.status_description"
                | "otel.scope.name" | "w3c.tracestate")).count();
            prop_assert!(message.attributes.len() + fields + status_tags >= span.tags.len());
            prop_assert!(message.links.len() + 1 >= span.references.len());
            prop_assert_eq!(message.events.len(), span.logs.len());
        }
        let request = ExportTraceServiceRequest { resource_spans: groups.clone() };
        let of_proto = decode_proto(&request.encode_to_vec()).unwrap();
        let texts: Vec<String> = groups.iter().map(render::resource_spans).collect();
        let json = format!("{{\"resourceSpans\":[{}]}}", texts.join(","));
        let of_json = decode_json(json.as_bytes()).unwrap();
        prop_assert_eq!(of_proto.rejected, 0);
        // Both renderings say the same; NaNs may differ in bits that JSON has no form for.
        let text = |spans: &[Span]| format!("{spans:?}");
        prop_assert_eq!(text(&of_json.batch.spans), text(&of_proto.batch.spans));
    }
}
