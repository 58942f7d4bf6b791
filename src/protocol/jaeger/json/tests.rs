use std::sync::Arc;

use super::*;
use crate::model::trace::{SpanId, SpanLog, SpanRef, TraceId};

fn span(id: u64, process: &Arc<Process>) -> Span {
    Span {
        trace_id: TraceId(0x1f),
        span_id: SpanId(id),
        operation: "op".into(),
        references: vec![],
        flags: 0,
        start: 1_700_000_000_123_456_789,
        duration: 15_999,
        tags: vec![],
        logs: vec![],
        process: process.clone(),
        warnings: vec![],
    }
}

fn process(service: &str) -> Arc<Process> {
    Arc::new(Process {
        service: service.into(),
        tags: vec![Tag::string("hostname", "h")],
    })
}

fn trace(spans: Vec<Span>) -> Trace {
    Trace {
        id: TraceId(0x1f),
        spans,
        warnings: vec![],
    }
}

#[test]
fn a_trace_is_written_exactly_as_jaeger_does() {
    let mut full = span(2, &process("svc"));
    full.flags = 1;
    full.references = vec![
        SpanRef {
            kind: RefType::ChildOf,
            trace_id: TraceId(0x1f),
            span_id: SpanId(1),
        },
        SpanRef {
            kind: RefType::FollowsFrom,
            trace_id: TraceId(1 << 64),
            span_id: SpanId(3),
        },
    ];
    full.tags = vec![
        Tag::string("s", "a\"b\\\n\u{1}é<"),
        Tag::bool("b", false),
        Tag {
            key: "i".into(),
            value: TagValue::Int64(i64::MAX),
        },
        Tag {
            key: "f".into(),
            value: TagValue::Float64(503.0),
        },
        Tag {
            key: "x".into(),
            value: TagValue::Binary([0, 1, 254, 255].into()),
        },
    ];
    full.logs = vec![SpanLog {
        at: 1_700_000_000_123_456_999,
        fields: vec![Tag::string("event", "e")],
    }];
    full.warnings = vec!["careful".into()];
    let expected = concat!(
        r#"{"data":[{"traceID":"000000000000001f","spans":["#,
        r#"{"traceID":"000000000000001f","spanID":"0000000000000002","flags":1,"operationName":"op","references":["#,
        r#"{"refType":"CHILD_OF","traceID":"000000000000001f","spanID":"0000000000000001"},"#,
        r#"{"refType":"FOLLOWS_FROM","traceID":"00000000000000010000000000000000","spanID":"0000000000000003"}],"#,
        r#""startTime":1700000000123456,"duration":15,"tags":["#,
        r#"{"key":"s","type":"string","value":"a\"b\\\n\u0001é<"},"#,
        r#"{"key":"b","type":"bool","value":false},"#,
        r#"{"key":"i","type":"int64","value":9223372036854775807},"#,
        r#"{"key":"f","type":"float64","value":503},"#,
        r#"{"key":"x","type":"binary","value":"AAH+/w=="}],"#,
        r#""logs":[{"timestamp":1700000000123456,"fields":[{"key":"event","type":"string","value":"e"}]}],"#,
        r#""processID":"p1","warnings":["careful"]}],"#,
        r#""processes":{"p1":{"serviceName":"svc","tags":[{"key":"hostname","type":"string","value":"h"}]}},"#,
        r#""warnings":null}],"total":0,"limit":0,"offset":0,"errors":null}"#,
    );
    assert_eq!(traces(&[trace(vec![full])], &[], Layout::Compact), expected);
}

#[test]
fn a_span_without_anything_has_empty_arrays_and_no_flags() {
    let text = traces(
        &[trace(vec![span(1, &process("svc"))])],
        &[],
        Layout::Compact,
    );
    assert!(
        text.contains(r#""references":[],"#) && text.contains(r#""tags":[],"logs":[],"#),
        "{text}"
    );
    assert!(
        !text.contains("flags") && text.contains(r#""warnings":null"#),
        "{text}"
    );
}

#[test]
fn equal_processes_share_a_number_in_order_of_first_use() {
    let (a, b) = (process("a"), process("b"));
    let spans = vec![
        span(1, &b),
        span(2, &a),
        span(3, &process("b")),
        span(4, &a),
        span(5, &b),
    ];
    let text = traces(&[trace(spans)], &[], Layout::Compact);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = value["data"][0]["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["processID"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["p1", "p2", "p1", "p2", "p1"]);
    assert_eq!(value["data"][0]["processes"]["p1"]["serviceName"], "b");
    assert_eq!(value["data"][0]["processes"]["p2"]["serviceName"], "a");
    assert_eq!(value["data"][0]["processes"].as_object().unwrap().len(), 2);
}

#[test]
fn pretty_print_indents_by_four_spaces() {
    assert_eq!(
        names(&["a"], Layout::Pretty),
        "{\n    \"data\": [\n        \"a\"\n    ],\n    \"total\": 1,\n    \"limit\": 0,\n    \"offset\": 0,\n    \"errors\": null\n}"
    );
    assert_eq!(
        names::<&str>(&[], Layout::Compact),
        r#"{"data":[],"total":0,"limit":0,"offset":0,"errors":null}"#
    );
    let pretty = traces(
        &[trace(vec![span(1, &process("svc"))])],
        &[],
        Layout::Pretty,
    );
    let compact = traces(
        &[trace(vec![span(1, &process("svc"))])],
        &[],
        Layout::Compact,
    );
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&pretty), parse(&compact));
}

#[test]
fn errors_carry_their_status_and_end_with_a_newline() {
    assert_eq!(
        error(404, "trace not found", Layout::Compact),
        "{\"data\":null,\"total\":0,\"limit\":0,\"offset\":0,\"errors\":[{\"code\":404,\"msg\":\"trace not found\"}]}\n"
    );
    let missing = ErrorEntry {
        code: None,
        message: "trace not found".into(),
        trace_id: Some("1".into()),
    };
    assert_eq!(
        traces(&[], &[missing], Layout::Compact),
        r#"{"data":[],"total":0,"limit":0,"offset":0,"errors":[{"msg":"trace not found","traceID":"1"}]}"#
    );
}

#[test]
fn floats_are_written_as_go_writes_them_and_never_break_the_json() {
    for (value, text) in [
        (72.5, "72.5"),
        (0.0, "0"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1.5e-7, "1.5e-7"),
        (1e-6, "0.000001"),
        (-2.5e300, "-2.5e+300"),
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"+Inf\""),
        (f64::NEG_INFINITY, "\"-Inf\""),
    ] {
        let mut out = JsonWriter::new(Layout::Compact);
        out.float(value);
        assert_eq!(out.text, text);
    }
}

#[test]
fn operations_have_name_and_kind() {
    let operation = Operation {
        name: "GET /".into(),
        kind: "server".into(),
    };
    assert_eq!(
        operations(&[operation], Layout::Compact),
        r#"{"data":[{"name":"GET /","spanKind":"server"}],"total":1,"limit":0,"offset":0,"errors":null}"#
    );
}

proptest::proptest! {
    #[test]
    fn any_text_and_float_survive_a_json_parser(text: String, float: f64) {
        let mut it = span(1, &process(&text));
        it.operation = text.as_str().into();
        it.tags = vec![Tag::string(text.as_str(), text.as_str()), Tag { key: "f".into(), value: TagValue::Float64(float) }];
        let json: serde_json::Value = serde_json::from_str(&traces(&[trace(vec![it])], &[], Layout::Compact)).unwrap();
        let span = &json["data"][0]["spans"][0];
        assert_eq!(span["operationName"], text.as_str());
        assert_eq!(span["tags"][0]["value"], text.as_str());
        if float.is_finite() {
            // A parser of ours would round; the text itself must be exact.
            let mut out = JsonWriter::new(Layout::Compact);
            out.float(float);
            assert_eq!(out.text.parse(), Ok(float));
        }
    }
}
