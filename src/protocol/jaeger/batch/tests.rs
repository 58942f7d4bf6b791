use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::trace::TagValue;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/jaeger/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn document(name: &str) -> Json {
    serde_json::from_slice(&fixture(name)).unwrap()
}

/// The tag that a captured tag's JSON stands for.
fn expected_tag(json: &Json) -> Tag {
    let value = &json["value"];
    let value = match json["type"].as_str().unwrap() {
        "string" => match value.as_str() {
            Some(text) => TagValue::String(text.into()),
            // Bytes that are not UTF-8 are kept as binary.
            None => TagValue::Binary(unhex(value["invalidUtf8Hex"].as_str().unwrap()).into()),
        },
        "bool" => TagValue::Bool(value.as_bool().unwrap()),
        "int64" => TagValue::Int64(value.as_str().unwrap().parse().unwrap()),
        "float64" => TagValue::Float64(value.as_f64().unwrap()),
        "binary" => TagValue::Binary(
            STANDARD
                .decode(value["base64"].as_str().unwrap())
                .unwrap()
                .into(),
        ),
        other => panic!("type {other}"),
    };
    Tag {
        key: json["key"].as_str().unwrap().into(),
        value,
    }
}

fn expected_tags(json: &Json) -> Vec<Tag> {
    json.as_array().unwrap().iter().map(expected_tag).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn expected_span(json: &Json, process: &Arc<Process>, format: SpanFormat) -> Span {
    let trace_id = TraceId::parse(json["traceID"].as_str().unwrap()).unwrap();
    let mut references: Vec<SpanRef> = json["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| SpanRef {
            kind: match reference["refType"].as_str().unwrap() {
                "CHILD_OF" => RefType::ChildOf,
                _ => RefType::FollowsFrom,
            },
            trace_id: TraceId::parse(reference["traceID"].as_str().unwrap()).unwrap(),
            span_id: SpanId::parse(reference["spanID"].as_str().unwrap()).unwrap(),
        })
        .collect();
    if let Some(parent) = json["parentSpanID"].as_str() {
        let parent = SpanId::parse(parent).unwrap();
        if !references
            .iter()
            .any(|r| r.trace_id == trace_id && r.span_id == parent)
        {
            references.insert(
                0,
                SpanRef {
                    kind: RefType::ChildOf,
                    trace_id,
                    span_id: parent,
                },
            );
        }
    }
    let mut tags = expected_tags(&json["tags"]);
    tags.push(Tag::string("internal.span.format", format.mark()));
    let logs = json["logs"].as_array().unwrap().iter();
    Span {
        trace_id,
        span_id: SpanId::parse(json["spanID"].as_str().unwrap()).unwrap(),
        operation: json["operationName"].as_str().unwrap().into(),
        references,
        flags: json["flags"].as_u64().unwrap() as u32,
        start: json["startTime"].as_i64().unwrap() * 1_000,
        duration: json["duration"].as_u64().unwrap() * 1_000,
        tags,
        logs: logs
            .map(|log| SpanLog {
                at: log["timestamp"].as_i64().unwrap() * 1_000,
                fields: expected_tags(&log["fields"]),
            })
            .collect(),
        process: process.clone(),
        warnings: vec![],
    }
}

#[track_caller]
fn check_captured(name: &str, format: SpanFormat) {
    let body = fixture(&format!("captured/{name}.bin"));
    let document = document(&format!("captured/{name}.json"));
    let decoded = &document["decoded"];
    let batch = match format {
        SpanFormat::ThriftCompactMessage => read_message(&mut Compact::new(&body), format),
        SpanFormat::ThriftBinaryMessage => read_message(&mut Binary::new(&body), format),
        _ => read_batch(&mut Binary::new(&body), format),
    }
    .unwrap();
    let process = Arc::new(Process {
        service: decoded["process"]["serviceName"].as_str().unwrap().into(),
        tags: expected_tags(&decoded["process"]["tags"]),
    });
    let spans: Vec<Span> = decoded["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|span| expected_span(span, &process, format))
        .collect();
    assert_eq!(spans.len() as u64, decoded["spanCount"].as_u64().unwrap());
    assert_eq!(batch.process, process);
    assert_eq!(batch.spans.spans, spans);
    assert_eq!(batch.sequence, decoded["seqNo"].as_i64());
    let stats = decoded["stats"].is_object().then(|| ClientStats {
        full_queue: decoded["stats"]["fullQueueDroppedSpans"].as_i64().unwrap(),
        too_large: decoded["stats"]["tooLargeDroppedSpans"].as_i64().unwrap(),
        failed_to_emit: decoded["stats"]["failedToEmitSpans"].as_i64().unwrap(),
    });
    assert_eq!(batch.stats, stats);
    assert_eq!(
        crate::protocol::decode_spans(format, &body).unwrap().spans,
        spans
    );
}

#[test]
fn the_go_client_over_udp_is_decoded_exactly() {
    check_captured("go-traefik64", SpanFormat::ThriftCompactMessage);
    check_captured("go-types", SpanFormat::ThriftCompactMessage);
}

#[test]
fn the_go_client_over_http_is_decoded_exactly() {
    check_captured("go-http", SpanFormat::ThriftBinaryBatch);
}

#[test]
fn the_node_client_is_decoded_exactly() {
    check_captured("node-udp", SpanFormat::ThriftBinaryMessage);
    check_captured("node-http", SpanFormat::ThriftBinaryBatch);
}

#[test]
fn the_python_exporter_is_decoded_exactly() {
    check_captured("py-udp", SpanFormat::ThriftCompactMessage);
}

#[test]
fn malformed_datagrams_have_the_outcome_of_the_index() {
    let index = document("malformed/index.json");
    let mut good = 0;
    for case in index.as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let body = fixture(&format!("malformed/{name}"));
        assert_eq!(body.len() as u64, case["bytes"].as_u64().unwrap(), "{name}");
        let outcome = decode_compact_message(&body);
        if case["expect"]
            .as_str()
            .unwrap()
            .contains("counted as a decode error")
        {
            assert!(outcome.is_err(), "{name}");
        } else {
            let expected = decode_compact_message(&fixture("captured/go-traefik64.bin")).unwrap();
            assert_eq!(expected.spans.len(), 2);
            assert_eq!(outcome.unwrap().spans, expected.spans, "{name}");
            good += 1;
        }
    }
    assert_eq!(good, 1);
}

#[test]
fn errors_name_their_reason() {
    let reason = |name: &str| decode_compact_message(&fixture(name)).unwrap_err().reason;
    assert_eq!(reason("malformed/unknown-method.bin"), "unknown_method");
    assert_eq!(reason("malformed/missing-process.bin"), "missing_field");
    assert_eq!(reason("malformed/string-length-2g.bin"), "truncated");
    assert_eq!(reason("malformed/bad-version.bin"), "malformed");
}

/// Writes Thrift for tests, in either encoding.
trait Output: Default {
    fn field(&mut self, previous: &mut i16, id: i16, kind: Kind);
    fn bool_field(&mut self, previous: &mut i16, id: i16, value: bool);
    fn stop(&mut self);
    fn i32(&mut self, value: i32);
    fn i64(&mut self, value: i64);
    fn double(&mut self, value: f64);
    fn bytes(&mut self, value: &[u8]);
    fn list(&mut self, kind: Kind, size: usize);
    fn message(&mut self, name: &str);
    fn done(self) -> Vec<u8>;
}

#[derive(Default)]
struct CompactOut(Vec<u8>);

impl CompactOut {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn header(&mut self, previous: &mut i16, id: i16, nibble: u8) {
        let delta = i32::from(id) - i32::from(*previous);
        if (1..=15).contains(&delta) {
            self.0.push((delta as u8) << 4 | nibble);
        } else {
            self.0.push(nibble);
            self.i64(i64::from(id));
        }
        *previous = id;
    }

    fn nibble(kind: Kind) -> u8 {
        match kind {
            Kind::Bool => 1,
            Kind::Byte => 3,
            Kind::I16 => 4,
            Kind::I32 => 5,
            Kind::I64 => 6,
            Kind::Double => 7,
            Kind::Binary => 8,
            Kind::List => 9,
            Kind::Set => 10,
            Kind::Map => 11,
            Kind::Struct => 12,
        }
    }
}

impl Output for CompactOut {
    fn field(&mut self, previous: &mut i16, id: i16, kind: Kind) {
        self.header(previous, id, Self::nibble(kind));
    }
    fn bool_field(&mut self, previous: &mut i16, id: i16, value: bool) {
        self.header(previous, id, if value { 1 } else { 2 });
    }
    fn stop(&mut self) {
        self.0.push(0);
    }
    fn i32(&mut self, value: i32) {
        self.i64(i64::from(value));
    }
    fn i64(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63) as u64);
    }
    fn double(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }
    fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
    fn list(&mut self, kind: Kind, size: usize) {
        if size < 15 {
            self.0.push((size as u8) << 4 | Self::nibble(kind));
        } else {
            self.0.push(0xf0 | Self::nibble(kind));
            self.varint(size as u64);
        }
    }
    fn message(&mut self, name: &str) {
        self.0.extend([0x82, 0x21]);
        self.varint(300);
        self.bytes(name.as_bytes());
    }
    fn done(self) -> Vec<u8> {
        self.0
    }
}

#[derive(Default)]
struct BinaryOut(Vec<u8>);

impl Output for BinaryOut {
    fn field(&mut self, _: &mut i16, id: i16, kind: Kind) {
        self.0.push(match kind {
            Kind::Bool => 2,
            Kind::Byte => 3,
            Kind::Double => 4,
            Kind::I16 => 6,
            Kind::I32 => 8,
            Kind::I64 => 10,
            Kind::Binary => 11,
            Kind::Struct => 12,
            Kind::Map => 13,
            Kind::Set => 14,
            Kind::List => 15,
        });
        self.0.extend(id.to_be_bytes());
    }
    fn bool_field(&mut self, previous: &mut i16, id: i16, value: bool) {
        self.field(previous, id, Kind::Bool);
        self.0.push(u8::from(value));
    }
    fn stop(&mut self) {
        self.0.push(0);
    }
    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }
    fn i64(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }
    fn double(&mut self, value: f64) {
        self.0.extend(value.to_be_bytes());
    }
    fn bytes(&mut self, value: &[u8]) {
        self.i32(value.len() as i32);
        self.0.extend(value);
    }
    fn list(&mut self, kind: Kind, size: usize) {
        let mut header = Self::default();
        header.field(&mut 0, 0, kind);
        self.0.push(header.0[0]);
        self.i32(size as i32);
    }
    fn message(&mut self, name: &str) {
        self.i32(0x8001_0001_u32 as i32);
        self.bytes(name.as_bytes());
        self.i32(7);
    }
    fn done(self) -> Vec<u8> {
        self.0
    }
}

fn put_i64(out: &mut impl Output, previous: &mut i16, id: i16, value: i64) {
    out.field(previous, id, Kind::I64);
    out.i64(value);
}

fn put_tags(out: &mut impl Output, tags: &[Tag]) {
    out.list(Kind::Struct, tags.len());
    for tag in tags {
        let mut last = 0;
        out.field(&mut last, 1, Kind::Binary);
        out.bytes(tag.key.as_bytes());
        out.field(&mut last, 2, Kind::I32);
        match &tag.value {
            TagValue::String(text) => {
                out.i32(0);
                out.field(&mut last, 3, Kind::Binary);
                out.bytes(text.as_bytes());
            }
            TagValue::Float64(value) => {
                out.i32(1);
                out.field(&mut last, 4, Kind::Double);
                out.double(*value);
            }
            TagValue::Bool(value) => {
                out.i32(2);
                out.bool_field(&mut last, 5, *value);
            }
            TagValue::Int64(value) => {
                out.i32(3);
                put_i64(out, &mut last, 6, *value);
            }
            TagValue::Binary(bytes) => {
                out.i32(4);
                out.field(&mut last, 7, Kind::Binary);
                out.bytes(bytes);
            }
        }
        // Fields that no version knows: one plain, one that nests.
        out.bool_field(&mut last, 40, true);
        out.field(&mut last, 41, Kind::List);
        out.list(Kind::Struct, 1);
        out.bool_field(&mut 0, 3, false);
        out.stop();
        out.stop();
    }
}

fn put_batch(out: &mut impl Output, process: &Process, spans: &[Span]) {
    let mut last = 0;
    out.field(&mut last, 1, Kind::Struct);
    let mut inner = 0;
    out.field(&mut inner, 1, Kind::Binary);
    out.bytes(process.service.as_bytes());
    out.field(&mut inner, 2, Kind::List);
    put_tags(out, &process.tags);
    out.stop();
    out.field(&mut last, 2, Kind::List);
    out.list(Kind::Struct, spans.len());
    for span in spans {
        let mut inner = 0;
        put_i64(out, &mut inner, 1, span.trace_id.0 as i64);
        put_i64(out, &mut inner, 2, (span.trace_id.0 >> 64) as i64);
        put_i64(out, &mut inner, 3, span.span_id.0 as i64);
        put_i64(out, &mut inner, 4, 0);
        out.field(&mut inner, 5, Kind::Binary);
        out.bytes(span.operation.as_bytes());
        out.field(&mut inner, 6, Kind::List);
        out.list(Kind::Struct, span.references.len());
        for reference in &span.references {
            let mut innermost = 0;
            out.field(&mut innermost, 1, Kind::I32);
            out.i32(i32::from(reference.kind == RefType::FollowsFrom));
            put_i64(out, &mut innermost, 2, reference.trace_id.0 as i64);
            put_i64(out, &mut innermost, 3, (reference.trace_id.0 >> 64) as i64);
            put_i64(out, &mut innermost, 4, reference.span_id.0 as i64);
            out.stop();
        }
        out.field(&mut inner, 7, Kind::I32);
        out.i32(span.flags as i32);
        put_i64(out, &mut inner, 8, span.start / 1_000);
        put_i64(out, &mut inner, 9, (span.duration / 1_000) as i64);
        out.field(&mut inner, 10, Kind::List);
        put_tags(out, &span.tags);
        out.field(&mut inner, 11, Kind::List);
        out.list(Kind::Struct, span.logs.len());
        for log in &span.logs {
            let mut innermost = 0;
            put_i64(out, &mut innermost, 1, log.at / 1_000);
            out.field(&mut innermost, 2, Kind::List);
            put_tags(out, &log.fields);
            out.stop();
        }
        out.stop();
    }
    out.stop();
}

fn bare<O: Output>(process: &Process, spans: &[Span]) -> Vec<u8> {
    let mut out = O::default();
    put_batch(&mut out, process, spans);
    out.done()
}

fn message<O: Output>(process: &Process, spans: &[Span]) -> Vec<u8> {
    let mut out = O::default();
    out.message("emitBatch");
    out.field(&mut 0, 1, Kind::Struct);
    put_batch(&mut out, process, spans);
    out.stop();
    out.done()
}

fn any_tags() -> impl Strategy<Value = Vec<Tag>> {
    let value = prop_oneof![
        any::<String>().prop_map(|text| TagValue::String(text.into())),
        any::<bool>().prop_map(TagValue::Bool),
        any::<i64>().prop_map(TagValue::Int64),
        any::<u64>().prop_map(|bits| TagValue::Float64(f64::from_bits(bits))),
        any::<Vec<u8>>().prop_map(|bytes| TagValue::Binary(bytes.into())),
    ];
    proptest::collection::vec(
        (any::<String>(), value).prop_map(|(key, value)| Tag {
            key: key.into(),
            value,
        }),
        0..20,
    )
}

fn any_spans() -> impl Strategy<Value = Vec<Span>> {
    let ids = (any::<u128>(), any::<u64>(), any::<u32>());
    let times = (
        -1_000_000_000_000_000i64..4_000_000_000_000_000,
        0..9_000_000_000_000_000u64,
    );
    let reference =
        (any::<bool>(), any::<u128>(), any::<u64>()).prop_map(|(child, trace_id, span_id)| {
            SpanRef {
                kind: if child {
                    RefType::ChildOf
                } else {
                    RefType::FollowsFrom
                },
                trace_id: TraceId(trace_id),
                span_id: SpanId(span_id),
            }
        });
    let log = (0..4_000_000_000_000_000i64, any_tags()).prop_map(|(at, fields)| SpanLog {
        at: at * 1_000,
        fields,
    });
    let parts = (
        ids,
        times,
        any::<String>(),
        proptest::collection::vec(reference, 0..3),
        any_tags(),
        proptest::collection::vec(log, 0..3),
    );
    let span = parts.prop_map(
        |((trace_id, span_id, flags), (start, duration), name, references, tags, logs)| Span {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            operation: name.into(),
            references,
            flags,
            start: start * 1_000,
            duration: duration * 1_000,
            tags,
            logs,
            process: Arc::default(),
            warnings: vec![],
        },
    );
    proptest::collection::vec(span, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_encoded_is_decoded(service in "[a-z]{1,8}", tags in any_tags(), spans in any_spans()) {
        let process = Process { service: service.into(), tags };
        for (format, body) in [
            (SpanFormat::ThriftCompactMessage, message::<CompactOut>(&process, &spans)),
            (SpanFormat::ThriftBinaryMessage, message::<BinaryOut>(&process, &spans)),
            (SpanFormat::ThriftBinaryBatch, bare::<BinaryOut>(&process, &spans)),
        ] {
            let decoded = crate::protocol::decode_spans(format, &body).unwrap().spans;
            prop_assert_eq!(decoded.len(), spans.len());
            for (decoded, span) in decoded.into_iter().zip(&spans) {
                let mut expected = span.clone();
                expected.process = Arc::new(process.clone());
                expected.tags.push(Tag::string("internal.span.format", format.mark()));
                prop_assert_eq!(decoded, expected);
            }
        }
    }

    #[test]
    fn no_mutation_of_a_message_panics(
        spans in any_spans(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let process = Process { service: "s".into(), tags: vec![Tag::string("k", "v")] };
        for (format, mut body) in [
            (SpanFormat::ThriftCompactMessage, message::<CompactOut>(&process, &spans)),
            (SpanFormat::ThriftBinaryMessage, message::<BinaryOut>(&process, &spans)),
            (SpanFormat::ThriftBinaryBatch, bare::<BinaryOut>(&process, &spans)),
        ] {
            // Bytes after the message mean nothing, so only a cut inside it is an error.
            let cut = cut.index(body.len());
            prop_assert!(crate::protocol::decode_spans(format, &body[..cut]).is_err());
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let _ = crate::protocol::decode_spans(format, &body);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        for format in SpanFormat::ALL {
            let _ = crate::protocol::decode_spans(format, &bytes);
        }
    }
}

/// A batch whose span list announces more than it holds, or whose unknown field nests.
#[test]
fn sizes_that_lie_and_deep_nesting_are_errors() {
    let mut out = CompactOut::default();
    out.field(&mut 0, 2, Kind::List);
    out.list(Kind::Struct, 1 << 40);
    assert_eq!(
        read_batch(&mut Compact::new(&out.0), SpanFormat::ThriftCompactMessage)
            .unwrap_err()
            .reason,
        "truncated"
    );

    for (bytes, compact) in [
        (vec![0x9c; 10_000], true),
        (vec![0x99; 10_000], true),
        (b"\x0c\x00\x09".repeat(10_000), false),
    ] {
        let error = if compact {
            let mut body = vec![0x9c];
            body.extend(&bytes);
            read_batch(&mut Compact::new(&body), SpanFormat::ThriftCompactMessage).unwrap_err()
        } else {
            read_batch(&mut Binary::new(&bytes), SpanFormat::ThriftBinaryBatch).unwrap_err()
        };
        assert_eq!(error.reason, "too_deep");
    }
}

#[test]
fn the_value_that_the_type_names_counts_and_unknown_types_become_text() {
    let tag = |code: i32| {
        let mut out = BinaryOut::default();
        let mut last = 0;
        out.field(&mut last, 1, Kind::Binary);
        out.bytes(b"k");
        out.field(&mut last, 2, Kind::I32);
        out.i32(code);
        out.field(&mut last, 3, Kind::Binary);
        out.bytes(b"text");
        put_i64(&mut out, &mut last, 6, 42);
        out.stop();
        read_tag(&mut Binary::new(&out.0)).unwrap().value
    };
    assert_eq!(tag(0), TagValue::String("text".into()));
    assert_eq!(tag(3), TagValue::Int64(42));
    // Named but absent is zero.
    assert_eq!(tag(1), TagValue::Float64(0.0));
    assert_eq!(tag(9), TagValue::String("Unknown VType: 9".into()));
}

#[test]
fn a_parent_is_a_first_reference_unless_it_is_one_already() {
    let span = |parent: i64, references: &[(i32, i64)]| {
        let mut out = BinaryOut::default();
        for (id, value) in [(1, 5), (2, 0), (3, 9), (4, parent), (8, -1), (9, -5)] {
            put_i64(&mut out, &mut 0, id, value);
        }
        out.field(&mut 0, 5, Kind::Binary);
        out.bytes(b"\xff");
        out.field(&mut 0, 7, Kind::I32);
        out.i32(1);
        out.field(&mut 0, 6, Kind::List);
        out.list(Kind::Struct, references.len());
        for (kind, span_id) in references {
            out.field(&mut 0, 1, Kind::I32);
            out.i32(*kind);
            for (id, value) in [(2, 5), (3, 0), (4, *span_id)] {
                put_i64(&mut out, &mut 0, id, value);
            }
            out.stop();
        }
        out.stop();
        read_span(&mut Binary::new(&out.0)).unwrap()
    };
    let references = |span: Span| {
        span.references
            .iter()
            .map(|r| (r.kind, r.span_id.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(references(span(0, &[])), []);
    assert_eq!(
        references(span(-2, &[])),
        [(RefType::ChildOf, u64::MAX - 1)]
    );
    assert_eq!(
        references(span(7, &[(1, 8)])),
        [(RefType::ChildOf, 7), (RefType::FollowsFrom, 8)]
    );
    assert_eq!(references(span(7, &[(1, 7)])), [(RefType::FollowsFrom, 7)]);
    let sanitized = span(0, &[]);
    assert_eq!(
        (&*sanitized.operation, sanitized.duration),
        ("InvalidOperationName", 1)
    );
    let keys: Vec<&str> = sanitized.tags.iter().map(|tag| &*tag.key).collect();
    assert_eq!(keys, ["InvalidOperationName", "InvalidNegativeDuration"]);
}
