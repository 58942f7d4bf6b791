use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::trace::{Process, RefType, Span, Tag, TagValue};
use crate::protocol::{SpanFormat, decode_spans};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/jaeger/captured/{name}.bin",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|s| &*s.operation == name).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    match named(spans, name)[..] {
        [span] => span,
        ref other => panic!("{} spans are named {name}", other.len()),
    }
}

/// Tags as `key=value`, without the mark of the format.
fn tags(tags: &[Tag]) -> Vec<String> {
    tags.iter()
        .filter(|t| &*t.key != "internal.span.format")
        .map(|t| format!("{}={:?}", t.key, t.value))
        .collect()
}

fn v1(json: Json) -> Vec<Span> {
    decode_json_v1(json.to_string().as_bytes()).unwrap().spans
}

fn v2(json: Json) -> Vec<Span> {
    decode_json_v2(json.to_string().as_bytes()).unwrap().spans
}

#[test]
fn a_span_of_both_sides_becomes_two_and_what_is_impossible_is_put_right() {
    let spans = decode_thrift_list(&fixture("zipkin-v1-thrift"))
        .unwrap()
        .spans;
    let [client, server] = named(&spans, "both sides")[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(client.span_id, SpanId(0x55));
    assert_eq!(server.span_id, SpanId(0x55));
    assert_eq!((client.kind(), server.kind()), ("client", "server"));
    assert_eq!(client.start, 1_485_449_191_639_875_000);
    assert_eq!(client.duration, 10_000_000);
    assert_eq!(server.start, 1_485_449_191_640_875_000);
    assert_eq!(server.duration, 5_000_000);
    for tag in [
        "peer.service=String(\"pg\")",
        "peer.ipv4=Int64(167838217)",
        "peer.port=Int64(5432)",
    ] {
        assert!(tags(&client.tags).contains(&tag.to_owned()), "{tag}");
    }
    let process = Process {
        service: "zk-front".into(),
        tags: vec![Tag {
            key: "ip".into(),
            value: TagValue::Int64(167_838_215),
        }],
    };
    assert_eq!(*client.process, process);
    assert_eq!(*server.process, process);

    let neg = one(&spans, "neg");
    assert_eq!(neg.duration, 1_000);
    assert_eq!(neg.references, []);
    let tags = tags(&neg.tags);
    for tag in [
        "component=String(\"jdbc\")",
        "error=Bool(true)",
        "error.message=String(\"socket closed\")",
        "errNegativeDuration=String(\"-5\")",
        "errZeroParentID=String(\"0\")",
    ] {
        assert!(tags.contains(&tag.to_owned()), "{tag} is not in {tags:?}");
    }
}

#[test]
fn both_versions_of_one_program_say_the_same() {
    let first = decode_json_v1(&fixture("pyzipkin-v1-json")).unwrap().spans;
    let second = decode_json_v2(&fixture("pyzipkin-v2-json")).unwrap().spans;
    for name in ["db query", "get /things"] {
        let (first, second) = (one(&first, name), one(&second, name));
        assert_eq!(tags(&first.tags), tags(&second.tags), "{name}");
        assert_eq!(first.process, second.process, "{name}");
        let values =
            |span: &Span| -> Vec<_> { span.logs.iter().map(|l| l.fields.clone()).collect() };
        assert_eq!(values(first), values(second), "{name}");
        assert_eq!(first.references.len(), second.references.len(), "{name}");
    }
    let root = one(&second, "get /things");
    assert_eq!(
        tags(&root.tags),
        [
            "http.path=String(\"/things\")",
            "error=Bool(true)",
            "error.message=String(\"timeout\")",
            "span.kind=String(\"server\")",
        ]
    );
    assert_eq!(root.logs[0].fields, [Tag::string("event", "cache miss")]);
    let query = one(&second, "db query");
    assert_eq!(query.references[0].kind, RefType::ChildOf);
    assert_eq!(query.references[0].span_id, root.span_id);
    // Version 1 says nothing of who did local work.
    assert_eq!(
        &*one(&first, "local work").process.service,
        "unknown-service-name"
    );
    assert_eq!(&*one(&second, "local work").process.service, "pyz-front");
}

#[test]
fn what_version_2_says_in_fields_is_in_the_model() {
    let spans = v2(serde_json::json!([{
        "traceId": "1", "id": "8dc33877717d972d0000000000000002", "parentId": "3",
        "kind": "PRODUCER", "name": "send", "timestamp": 7, "duration": 5, "debug": true,
        "shared": true, "unknown": {"a": []},
        "localEndpoint": {"serviceName": "", "ipv6": "::1", "port": null},
        "remoteEndpoint": {"serviceName": "queue", "ipv6": "2001:db8::2", "port": 65535},
        "annotations": [
            {"timestamp": 8, "value": "{\"a\":\"1\",\"b\":\"2\"}"},
            {"timestamp": 9, "value": "{\"a\":1}"},
            {"timestamp": 9, "value": ""},
        ],
        "tags": {"jaeger.hostname": "h", "jaegerClient": "c", "lc": "jdbc"},
    }, {
        "traceId": "1", "id": "4", "kind": "CONSUMER", "tags": null, "annotations": null,
    }]));
    let send = &spans[0];
    assert_eq!((send.trace_id, send.span_id), (TraceId(1), SpanId(2)));
    assert_eq!((send.start, send.duration, send.flags), (7_000, 5_000, 2));
    assert_eq!(
        tags(&send.tags),
        [
            "component=String(\"jdbc\")",
            "peer.service=String(\"queue\")",
            "peer.ipv6=Binary([32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])",
            "peer.port=Int64(65535)",
            "span.kind=String(\"producer\")",
        ]
    );
    assert_eq!(
        tags(&send.process.tags),
        ["hostname=String(\"h\")", "jaeger.version=String(\"c\")"]
    );
    assert_eq!(&*send.process.service, "unknown-service-name");
    let fields: Vec<_> = send.logs.iter().map(|l| tags(&l.fields)).collect();
    assert_eq!(
        fields,
        [
            vec!["a=String(\"1\")".to_owned(), "b=String(\"2\")".to_owned()],
            vec!["event=String(\"{\\\"a\\\":1}\")".to_owned()],
        ]
    );
    assert_eq!(spans[1].kind(), "consumer");
    // Neither time nor annotation: Jaeger's sanitizer gives it a microsecond.
    assert_eq!((spans[1].start, spans[1].duration), (0, 1_000));
}

#[test]
fn values_of_version_1_keep_their_types() {
    let spans = v1(serde_json::json!([{
        "traceId": "1", "id": "2", "name": "n", "timestamp": null, "duration": null,
        "annotations": [
            {"timestamp": 100, "value": "sr", "endpoint": {"serviceName": "s", "ipv4": "1.2.3.4"}},
            {"timestamp": 250, "value": "ss"},
        ],
        "binaryAnnotations": [
            {"key": "bool", "type": "BOOL", "value": true},
            {"key": "i16", "type": "I16", "value": -3},
            {"key": "i64", "type": "I64", "value": "9223372036854775807"},
            {"key": "double", "type": "DOUBLE", "value": 0.5},
            {"key": "bytes", "type": "BYTES", "value": "AAEC"},
            {"key": "text", "value": "t"},
            {"key": "ca", "value": true, "endpoint": {"serviceName": "peer", "port": -1}},
        ],
    }]));
    assert_eq!(
        tags(&spans[0].tags),
        [
            "bool=Bool(true)",
            "i16=Int64(-3)",
            "i64=Int64(9223372036854775807)",
            "double=Float64(0.5)",
            "bytes=Binary([0, 1, 2])",
            "text=String(\"t\")",
            "peer.service=String(\"peer\")",
            "peer.port=Int64(65535)",
            "span.kind=String(\"server\")",
        ]
    );
    assert_eq!((spans[0].start, spans[0].duration), (100_000, 150_000));
    assert_eq!(tags(&spans[0].process.tags), ["ip=Int64(16909060)"]);
    assert!(spans[0].logs.is_empty());
}

#[test]
fn what_is_malformed_is_refused_with_its_reason() {
    for (body, gist) in [
        ("{}", "sequence"),
        ("[", "EOF"),
        (r#"[{"id":"1"}]"#, "traceId"),
        (r#"[{"traceId":"1"}]"#, "`id`"),
        (r#"[{"traceId":"x","id":"1"}]"#, "trace id `x`"),
        (
            r#"[{"traceId":"1","id":"123456789012345678901234567890123"}]"#,
            "span id",
        ),
        (
            r#"[{"traceId":"1","id":"1","kind":"server"}]"#,
            "kind `server`",
        ),
        (
            r#"[{"traceId":"1","id":"1","localEndpoint":{"ipv4":"1.2.3"}}]"#,
            "ipv4 `1.2.3`",
        ),
        (
            r#"[{"traceId":"1","id":"1","localEndpoint":{"port":70000}}]"#,
            "port 70000",
        ),
        (r#"[{"traceId":"1","id":"1","tags":{"a":1}}]"#, "string"),
    ] {
        let error = decode_json_v2(body.as_bytes()).unwrap_err();
        assert!(error.message.contains(gist), "{body}: {error}");
    }
    let body =
        r#"[{"traceId":"1","id":"1","binaryAnnotations":[{"key":"k","type":"I32","value":"x"}]}]"#;
    let error = decode_json_v1(body.as_bytes()).unwrap_err();
    assert!(
        error.message.contains("`k` is not of its type `I32`"),
        "{error}"
    );
    // A list that announces more than it has.
    let error = decode_thrift_list(&[12, 0x7f, 0xff, 0xff, 0xff, 0]).unwrap_err();
    assert_eq!(error.reason, "truncated");
    assert_eq!(
        decode_proto(&[0x0a, 0x02, 0x1a, 0x00]).unwrap_err().reason,
        "malformed"
    );
    assert_eq!(
        decode_proto(&[0x0a, 0x00]).unwrap_err().reason,
        "missing_field"
    );
    for format in [SpanFormat::ZipkinJsonV1, SpanFormat::ZipkinJsonV2] {
        assert!(decode_spans(format, b"[]").unwrap().spans.is_empty());
    }
}

/// A field of protobuf with bytes as its value.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, bytes.len() as u8];
    out.extend_from_slice(bytes);
    out
}

fn fixed64(number: u8, value: u64) -> Vec<u8> {
    let mut out = vec![number << 3 | 1];
    out.extend_from_slice(&value.to_le_bytes());
    out
}

#[test]
fn protobuf_says_the_same_as_json() {
    let endpoint = |name: &[u8], last: u8| {
        let port = [&[0x20][..], &[0xb8, 0x17]].concat();
        [field(1, name), field(2, &[10, 1, 2, last]), port].concat()
    };
    let span = [
        field(1, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        field(2, &3u64.to_be_bytes()),
        field(3, &4u64.to_be_bytes()),
        vec![0x20, 1],
        field(5, b"a query with a name of some length"),
        fixed64(6, 1_000),
        vec![0x38, 50],
        field(8, &endpoint(b"front", 5)),
        field(9, &endpoint(b"pg", 6)),
        field(10, &[fixed64(1, 1_010), field(2, b"sent")].concat()),
        field(11, &[field(1, b"k"), field(2, b"v")].concat()),
        vec![0x60, 1],
    ]
    .concat();
    // A length above 127 takes two bytes.
    assert!(span.len() > 127);
    let mut body = vec![
        0x0a,
        0x80 | (span.len() & 0x7f) as u8,
        (span.len() >> 7) as u8,
    ];
    body.extend_from_slice(&span);
    let proto = decode_proto(&body).unwrap().spans;
    let json = v2(serde_json::json!([{
        "traceId": "00000000000000010000000000000002", "parentId": "3", "id": "4",
        "kind": "CLIENT", "name": "a query with a name of some length", "timestamp": 1000, "duration": 50, "debug": true,
        "localEndpoint": {"serviceName": "front", "ipv4": "10.1.2.5", "port": 3000},
        "remoteEndpoint": {"serviceName": "pg", "ipv4": "10.1.2.6", "port": 3000},
        "annotations": [{"timestamp": 1010, "value": "sent"}],
        "tags": {"k": "v"},
    }]));
    assert_eq!(proto, json);
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    // list<Span> of one span: id, name, one string annotation with bytes that are no text.
    let mut body = vec![12, 0, 0, 0, 1];
    body.extend_from_slice(&[10, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9]);
    body.extend_from_slice(&[11, 0, 3, 0, 0, 0, 1, 0xff]);
    body.extend_from_slice(&[15, 0, 8, 12, 0, 0, 0, 2]);
    for (code, value) in [(6, &[0xfe][..]), (3, &[1, 2])] {
        body.extend_from_slice(&[11, 0, 1, 0, 0, 0, 1, b'k']);
        body.extend_from_slice(&[11, 0, 2, 0, 0, 0, value.len() as u8]);
        body.extend_from_slice(value);
        body.extend_from_slice(&[8, 0, 3, 0, 0, 0, code, 0]);
    }
    body.push(0);
    let spans = decode_thrift_list(&body).unwrap().spans;
    assert_eq!(&*spans[0].operation, "InvalidOperationName");
    assert_eq!(
        tags(&spans[0].tags),
        [
            "k=Binary([254])",
            "k=String(\"Cannot parse Zipkin value AQI=: 2 bytes are no number of type 3\")",
            "InvalidOperationName=Binary([255])",
        ]
    );
}

const FORMATS: [(SpanFormat, &str); 4] = [
    (SpanFormat::ZipkinJsonV1, "pyzipkin-v1-json"),
    (SpanFormat::ZipkinThrift, "zipkin-v1-thrift"),
    (SpanFormat::ZipkinJsonV2, "nodeotel-zipkin"),
    (SpanFormat::ZipkinProto, "zipkin-v1-thrift"),
];

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
        for (format, _) in FORMATS {
            let _ = decode_spans(format, &body);
        }
    }

    #[test]
    fn a_damaged_body_is_decoded_or_refused_the_same_each_time(
        which in 0usize..4, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let (format, name) = FORMATS[which];
        let mut body = fixture(name);
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len()) + 1);
        let (once, twice) = (decode_spans(format, &body), decode_spans(format, &body));
        prop_assert_eq!(once.map(|b| b.spans), twice.map(|b| b.spans));
    }
}

#[test]
fn processes_are_shared_by_the_two_halves() {
    let spans = decode_thrift_list(&fixture("zipkin-v1-thrift"))
        .unwrap()
        .spans;
    assert!(Arc::ptr_eq(&spans[0].process, &spans[1].process));
}
