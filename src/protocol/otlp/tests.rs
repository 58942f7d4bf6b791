use proptest::prelude::*;
use prost::Message;
use serde_json::json;

use super::*;
use crate::model::trace::{RefType, Span, SpanId, SpanRef, Tag, TagValue, TraceId};
use crate::protocol::MAX_NESTING;
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::protocol::wire::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use crate::protocol::wire::opentelemetry::proto::resource::v1::Resource;
use crate::protocol::wire::opentelemetry::proto::trace::v1 as wire;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/jaeger/captured/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn request(resource: Vec<KeyValue>, spans: Vec<wire::Span>) -> Vec<u8> {
    ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(Resource {
                attributes: resource,
                dropped_attributes_count: 0,
            }),
            scope_spans: vec![wire::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1".into(),
                    ..Default::default()
                }),
                spans,
                schema_url: String::new(),
            }],
            schema_url: "u".into(),
        }],
    }
    .encode_to_vec()
}

fn span() -> wire::Span {
    wire::Span {
        trace_id: TraceId(7).0.to_be_bytes().to_vec().into(),
        span_id: 8u64.to_be_bytes().to_vec().into(),
        name: "op".into(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 3_500,
        ..Default::default()
    }
}

#[track_caller]
fn only(body: &[u8]) -> Span {
    let export = decode_proto(body).unwrap();
    assert_eq!(
        (export.batch.spans.len(), export.rejected),
        (1, 0),
        "{}",
        export.message
    );
    export.batch.spans.into_iter().next().unwrap()
}

#[test]
fn everything_of_a_span_lands_where_jaeger_puts_it() {
    let mut it = span();
    it.parent_span_id = 9u64.to_be_bytes().to_vec().into();
    it.trace_state = "a=b".into();
    it.kind = 2;
    it.attributes = vec![
        text("s", "v"),
        attribute("i", Value::IntValue(-5)),
        attribute("d", Value::DoubleValue(2.0)),
        attribute("b", Value::BoolValue(true)),
        attribute("x", Value::BytesValue(vec![1, 255].into())),
        attribute(
            "arr",
            Value::ArrayValue(ArrayValue {
                values: vec![
                    AnyValue {
                        value: Some(Value::StringValue("a".into())),
                    },
                    AnyValue {
                        value: Some(Value::IntValue(1)),
                    },
                ],
            }),
        ),
        KeyValue {
            key: "none".into(),
            value: None,
        },
    ];
    it.status = Some(wire::Status {
        message: "bad".into(),
        code: 2,
    });
    it.events = vec![
        wire::span::Event {
            time_unix_nano: 1_100,
            name: "e1".into(),
            attributes: vec![text("k", "v")],
            dropped_attributes_count: 0,
        },
        wire::span::Event {
            time_unix_nano: 1_200,
            name: "e2".into(),
            attributes: vec![text("event", "own")],
            dropped_attributes_count: 0,
        },
    ];
    let link = |span_id: u64, attributes: Vec<KeyValue>| wire::span::Link {
        trace_id: TraceId(7).0.to_be_bytes().to_vec().into(),
        span_id: span_id.to_be_bytes().to_vec().into(),
        attributes,
        ..Default::default()
    };
    it.links = vec![
        link(9, vec![]),
        link(10, vec![text("opentracing.ref_type", "child_of")]),
        link(11, vec![]),
    ];

    let span = only(&request(
        vec![text("host.name", "h"), text("service.name", "svc")],
        vec![it],
    ));
    assert_eq!(&*span.process.service, "svc");
    assert_eq!(span.process.tags, [Tag::string("host.name", "h")]);
    assert_eq!((span.start, span.duration), (1_000, 2_500));
    let reference = |kind, id| SpanRef {
        kind,
        trace_id: TraceId(7),
        span_id: SpanId(id),
    };
    assert_eq!(
        span.references,
        [
            reference(RefType::ChildOf, 9),
            reference(RefType::ChildOf, 10),
            reference(RefType::FollowsFrom, 11)
        ]
    );
    assert_eq!(
        span.tags,
        [
            Tag::string("otel.scope.name", "lib"),
            Tag::string("otel.scope.version", "1"),
            Tag::string("s", "v"),
            Tag {
                key: "i".into(),
                value: TagValue::Int64(-5)
            },
            Tag {
                key: "d".into(),
                value: TagValue::Float64(2.0)
            },
            Tag::bool("b", true),
            Tag {
                key: "x".into(),
                value: TagValue::Binary([1, 255].into())
            },
            Tag::string("arr", r#"["a",1]"#),
            Tag::string("none", ""),
            Tag::string("span.kind", "server"),
            Tag::string("otel.status_code", "ERROR"),
            Tag::bool("error", true),
            Tag::string("otel.status_description", "bad"),
            Tag::string("w3c.tracestate", "a=b"),
            Tag::string("internal.span.format", "otlp"),
        ]
    );
    assert_eq!(
        span.logs[0].fields,
        [Tag::string("event", "e1"), Tag::string("k", "v")]
    );
    assert_eq!(span.logs[1].fields, [Tag::string("event", "own")]);
    assert_eq!((span.logs[0].at, span.logs[1].at), (1_100, 1_200));
}

#[test]
fn a_service_is_named_by_any_type_of_value_or_by_its_absence() {
    let service = |resource| {
        only(&request(resource, vec![span()]))
            .process
            .service
            .to_string()
    };
    assert_eq!(service(vec![]), "missing-service-name");
    assert_eq!(
        service(vec![text("service.name", "")]),
        "empty-service-name"
    );
    assert_eq!(
        service(vec![attribute("service.name", Value::IntValue(7))]),
        "7"
    );
}

#[test]
fn an_attribute_is_the_same_however_it_is_written() {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    // The length in two bytes, where one would do.
    let padded = |number: u8, bytes: &[u8]| {
        [&[number << 3 | 2, bytes.len() as u8 | 0x80, 0], bytes].concat()
    };
    let (key, value) = (field(1, b"k"), field(2, &field(1, b"text")));
    let written = [
        [key.clone(), value.clone()].concat(),
        [value.clone(), key.clone()].concat(),
        [padded(1, b"k"), value.clone()].concat(),
        [key.clone(), padded(2, &field(1, b"text"))].concat(),
        [key.clone(), field(2, &padded(1, b"text"))].concat(),
        // Of a field that comes twice the last counts.
        [field(1, b"other"), value.clone(), key.clone()].concat(),
        [key.clone(), field(2, &field(1, b"other")), value.clone()].concat(),
        [
            key.clone(),
            field(2, &[&[0x18, 5][..], &field(1, b"text")].concat()),
        ]
        .concat(),
        // An unknown field.
        [key.clone(), value.clone(), field(9, b"x")].concat(),
    ];
    for attribute in written {
        let mut bytes = span().encode_to_vec();
        bytes.extend(field(9, &attribute));
        let bytes = field(1, &field(2, &field(2, &bytes)));
        let tags = only(&bytes).tags;
        assert_eq!(tags[0], Tag::string("k", "text"), "{attribute:02x?}");
        assert_eq!(tags.len(), 2, "{attribute:02x?}");
    }
    let cut = [key, field(2, &[1 << 3 | 2, 9, b'x'])].concat();
    let bytes = [span().encode_to_vec(), field(9, &cut)].concat();
    let error = decode_proto(&field(1, &field(2, &field(2, &bytes)))).unwrap_err();
    assert_eq!(error.reason, "truncated");
}

#[test]
fn spans_without_ids_are_refused_alone() {
    let mut no_trace = span();
    no_trace.trace_id = vec![0; 16].into();
    let mut no_span = span();
    no_span.span_id = vec![].into();
    let mut short = span();
    short.trace_id = vec![1, 2].into();
    let export = decode_proto(&request(vec![], vec![no_trace, span(), no_span, short])).unwrap();
    assert_eq!((export.batch.spans.len(), export.rejected), (1, 3));
    assert_eq!(export.message, "a span has an empty trace id");
}

#[test]
fn an_end_before_the_start_is_noted() {
    let mut it = span();
    it.end_time_unix_nano = 0;
    let it = only(&request(vec![], vec![it]));
    assert_eq!(it.duration, 1);
    assert!(
        it.tags
            .iter()
            .any(|tag| &*tag.key == "InvalidNegativeDuration")
    );
}

#[test]
fn nesting_without_end_is_an_error() {
    let mut value = Value::IntValue(1);
    for _ in 0..MAX_NESTING + 1 {
        value = Value::ArrayValue(ArrayValue {
            values: vec![AnyValue { value: Some(value) }],
        });
    }
    let mut it = span();
    it.attributes = vec![attribute("deep", value)];
    assert_eq!(
        decode_proto(&request(vec![], vec![it])).unwrap_err().reason,
        "too_deep"
    );
    let deep = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"key":"k","value":{}1{}}}]}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(10_000),
        "]}}".repeat(10_000)
    );
    assert!(decode_json(deep.as_bytes()).is_err());
}

/// Ids of the captured protobuf's JSON are base64; OTLP's JSON has hex.
fn ids_to_hex(document: &mut serde_json::Value) {
    use base64::Engine;
    match document {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                if matches!(key.as_str(), "traceId" | "spanId" | "parentSpanId") {
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(value.as_str().unwrap())
                        .unwrap();
                    *value = bytes
                        .iter()
                        .map(|byte| format!("{byte:02X}"))
                        .collect::<String>()
                        .into();
                } else {
                    ids_to_hex(value);
                }
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(ids_to_hex),
        _ => {}
    }
}

#[test]
fn the_python_exporters_protobuf_equals_its_json() {
    let proto = decode_proto(&fixture("pyotlp-plain.bin")).unwrap();
    let mut document: serde_json::Value =
        serde_json::from_slice(&fixture("pyotlp-plain.json")).unwrap();
    let decoded = &mut document["decoded"];
    ids_to_hex(decoded);
    let json = decode_json(decoded.to_string().as_bytes()).unwrap();
    assert_eq!(proto.batch.spans, json.batch.spans);
    assert_eq!(proto.batch.spans.len(), 3);
    let parent = &proto.batch.spans[2];
    assert_eq!(
        (&*parent.process.service, &*parent.operation, parent.kind()),
        ("py-otlp", "parent", "server")
    );
    assert_eq!(proto.batch.spans[0].references.len(), 1);
    assert_eq!(proto.batch.spans[0].parent(), Some(parent.span_id));
    assert!(parent.tags.contains(&Tag {
        key: "http.status_code".into(),
        value: TagValue::Int64(500)
    }));
}

#[test]
fn the_node_exporters_json_is_decoded() {
    let export = decode_json(&fixture("nodeotel-otlp-json.bin")).unwrap();
    assert_eq!((export.batch.spans.len(), export.rejected), (2, 0));
    let (child, root) = (&export.batch.spans[0], &export.batch.spans[1]);
    assert_eq!(
        child.trace_id,
        TraceId::parse("18d4f2621b907e0d9a302d322aeb6556").unwrap()
    );
    assert_eq!(
        child.references,
        [SpanRef {
            kind: RefType::ChildOf,
            trace_id: child.trace_id,
            span_id: SpanId::parse("2c6d39b805d7e37a").unwrap()
        }]
    );
    assert_eq!(
        (child.start, child.duration, child.kind()),
        (1_795_365_512_159_000_000, 82_713, "client")
    );
    assert_eq!(
        root.tags,
        [
            Tag::string("otel.scope.name", "scope-n"),
            Tag::string("otel.scope.version", "1.0"),
            Tag::string("http.request.method", "GET"),
            Tag {
                key: "n".into(),
                value: TagValue::Int64(1)
            },
            Tag {
                key: "d".into(),
                value: TagValue::Float64(0.5)
            },
            Tag::bool("b", true),
            Tag::string("arr", r#"["x","y"]"#),
            Tag::string("span.kind", "server"),
            Tag::string("otel.status_code", "ERROR"),
            Tag::bool("error", true),
            Tag::string("otel.status_description", "nope"),
            Tag::string("internal.span.format", "otlp"),
        ]
    );
    assert_eq!(
        root.logs[0].fields,
        [Tag::string("event", "e1"), Tag::string("k", "v")]
    );
    assert_eq!(root.process.tags, [Tag::string("service.version", "9")]);
}

#[track_caller]
fn check_json(span: serde_json::Value) -> Result<Export, crate::protocol::DecodeError> {
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    decode_json(body.to_string().as_bytes())
}

#[test]
fn json_numbers_may_be_text_and_null_is_absence() {
    let export = check_json(json!({
        "traceId": "000000000000000000000000000000AB", "spanId": "00000000000000Ff", "parentSpanId": null,
        "kind": "SPAN_KIND_CLIENT", "startTimeUnixNano": 1_000, "endTimeUnixNano": "3000",
        "unknown": {"deep": [1, {"x": null}]}, "events": null, "status": null,
        "attributes": [
            {"key": "a", "value": {"intValue": "9223372036854775807"}},
            {"key": "b", "value": {"intValue": -4}},
            {"key": "c", "value": {"bytesValue": "AAH+/w=="}},
            {"key": "d", "value": {"doubleValue": "NaN"}},
            {"key": "e", "value": {"kvlistValue": {"values": [{"key": "x", "value": {"doubleValue": 1.0}}]}}},
            {"key": "f", "value": null},
            {"key": "h", "value": {"doubleValue": 1.1034660408642687e-58}},
            {"key": "g\u{e9}\n", "value": {"stringValue": "esc\"aped"}},
        ],
    }))
    .unwrap();
    let span = &export.batch.spans[0];
    assert_eq!(
        (span.trace_id, span.span_id, span.kind()),
        (TraceId(0xab), SpanId(0xff), "client")
    );
    assert_eq!((span.start, span.duration), (1_000, 2_000));
    assert_eq!(
        span.tags[..8],
        [
            Tag {
                key: "a".into(),
                value: TagValue::Int64(i64::MAX)
            },
            Tag {
                key: "b".into(),
                value: TagValue::Int64(-4)
            },
            Tag {
                key: "c".into(),
                value: TagValue::Binary([0, 1, 254, 255].into())
            },
            Tag {
                key: "d".into(),
                value: TagValue::Float64(f64::NAN)
            },
            Tag::string("e", r#"{"x":1}"#),
            Tag::string("f", ""),
            Tag {
                key: "h".into(),
                value: TagValue::Float64(1.103_466_040_864_268_7e-58)
            },
            Tag::string("g\u{e9}\n", "esc\"aped"),
        ]
    );
}

#[test]
fn json_spans_with_bad_ids_are_refused_and_bad_json_is_an_error() {
    assert_eq!(
        check_json(json!({"traceId": "", "spanId": "00000000000000ff"}))
            .unwrap()
            .rejected,
        1
    );
    assert_eq!(
        check_json(json!({"traceId": "xyz", "spanId": "00000000000000ff"}))
            .unwrap()
            .rejected,
        1
    );
    assert!(check_json(json!({"startTimeUnixNano": "soon"})).is_err());
    assert!(
        check_json(json!({"attributes": [{"key": "k", "value": {"intValue": "1e400"}}]})).is_err()
    );
    assert!(decode_json(b"[1]").is_err());
    assert!(decode_json(b"{\"resourceSpans\": [").is_err());
    assert_eq!(decode_json(b"{}").unwrap().batch.spans, []);
}

#[test]
fn text_that_is_not_utf8_becomes_binary() {
    let mut it = span();
    it.attributes = vec![text("key", "abcd")];
    let mut body = request(vec![], vec![it]);
    let at = body
        .windows(4)
        .position(|window| window == b"abcd")
        .unwrap();
    body[at] = 0xff;
    let it = only(&body);
    assert!(it.tags.contains(&Tag {
        key: "key".into(),
        value: TagValue::Binary(b"\xffbcd"[..].into())
    }));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = decode_proto(&bytes);
        let _ = decode_json(&bytes);
    }

    #[test]
    fn no_mutation_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        for name in ["pyotlp-plain.bin", "nodeotel-otlp-json.bin"] {
            let mut body = fixture(name);
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let _ = decode_proto(&body);
            let _ = decode_json(&body);
            body.truncate(cut.index(body.len()));
            let _ = decode_proto(&body);
            let _ = decode_json(&body);
        }
    }

    #[test]
    fn json_and_protobuf_of_one_span_are_equal(
        ids in (1u128.., 1u64..),
        times in (0..4_000_000_000_000_000_000u64, 0..1_000_000_000_000u64),
        name: String,
        attributes in proptest::collection::vec((any::<String>(), any::<String>(), any::<i64>()), 0..5),
    ) {
        let mut it = span();
        it.trace_id = ids.0.to_be_bytes().to_vec().into();
        it.span_id = ids.1.to_be_bytes().to_vec().into();
        (it.start_time_unix_nano, it.end_time_unix_nano) = (times.0, times.0 + times.1);
        it.name = name.clone();
        for (key, value, number) in &attributes {
            it.attributes.extend([text(key, value), attribute(key, Value::IntValue(*number))]);
        }
        let json = json!({"resourceSpans": [{
            "scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": [{
                "traceId": format!("{:032x}", ids.0), "spanId": format!("{:016x}", ids.1), "name": name,
                "startTimeUnixNano": times.0, "endTimeUnixNano": (times.0 + times.1).to_string(),
                "attributes": attributes.iter().flat_map(|(key, value, number)| [
                    json!({"key": key, "value": {"stringValue": value}}),
                    json!({"key": key, "value": {"intValue": number.to_string()}}),
                ]).collect::<Vec<_>>(),
            }]}],
        }]});
        let from_json = decode_json(json.to_string().as_bytes()).unwrap();
        prop_assert_eq!(decode_proto(&request(vec![], vec![it])).unwrap().batch.spans, from_json.batch.spans);
    }
}
