//! What clients send: bodies of pushes and exports, made by other code than what reads them.

use std::io::Write;

use prost::Message;
use serde_json::{Value, json};
use watchpost::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use watchpost::protocol::wire::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};
use watchpost::protocol::wire::opentelemetry::proto::resource::v1::Resource;
use watchpost::protocol::wire::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// A stream of a push: labels as Loki writes them, and entries of time and line.
pub type PushStream<'a> = (String, Vec<(i64, &'a [u8])>);

/// `logproto.PushRequest`, snappy-compressed, as promtail sends it.
pub fn loki_protobuf(streams: &[PushStream<'_>]) -> Vec<u8> {
    snappy(&push_request(streams))
}

/// The same before compression.
pub fn push_request(streams: &[PushStream<'_>]) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, entries) in streams {
        let mut stream = Vec::new();
        field(&mut stream, 1, labels.as_bytes());
        for (at, line) in entries {
            let mut time = vec![1 << 3];
            varint(&mut time, at.div_euclid(1_000_000_000) as u64);
            time.push(2 << 3);
            varint(&mut time, at.rem_euclid(1_000_000_000) as u64);
            let mut entry = Vec::new();
            field(&mut entry, 1, &time);
            field(&mut entry, 2, line);
            field(&mut stream, 2, &entry);
        }
        field(&mut request, 1, &stream);
    }
    request
}

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(bytes)
        .expect("below 4 GiB")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

/// A span of an export. The tag is called `seq`.
#[derive(Clone, Debug)]
pub struct SentSpan {
    pub trace: u128,
    pub span: u64,
    pub parent: u64,
    pub name: String,
    pub start: i64,
    pub seq: String,
}

/// An OTLP export as JSON.
pub fn otlp_json(service: &str, spans: &[SentSpan]) -> Value {
    let spans: Vec<Value> = spans
        .iter()
        .map(|s| {
            let parent = if s.parent == 0 {
                String::new()
            } else {
                format!("{:016x}", s.parent)
            };
            json!({
                "traceId": format!("{:032x}", s.trace),
                "spanId": format!("{:016x}", s.span),
                "parentSpanId": parent,
                "name": s.name,
                "kind": 2,
                "startTimeUnixNano": s.start.to_string(),
                "endTimeUnixNano": (s.start + 1_500_000).to_string(),
                "attributes": [{ "key": "seq", "value": { "stringValue": s.seq } }],
            })
        })
        .collect();
    json!({ "resourceSpans": [{
        "resource": {
            "attributes": [{ "key": "service.name", "value": { "stringValue": service } }]
        },
        "scopeSpans": [{ "spans": spans }],
    }]})
}

/// The same in protobuf.
pub fn otlp_protobuf(service: &str, spans: &[SentSpan]) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.into())),
        }),
    };
    let spans = spans
        .iter()
        .map(|s| Span {
            trace_id: s.trace.to_be_bytes().to_vec().into(),
            span_id: s.span.to_be_bytes().to_vec().into(),
            parent_span_id: match s.parent {
                0 => Vec::new().into(),
                parent => parent.to_be_bytes().to_vec().into(),
            },
            name: s.name.clone(),
            kind: 2,
            start_time_unix_nano: s.start as u64,
            end_time_unix_nano: s.start as u64 + 1_500_000,
            attributes: vec![text("seq", &s.seq)],
            ..Span::default()
        })
        .collect();
    let resource = Resource {
        attributes: vec![text("service.name", service)],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}
