//! Spans in plain words, sent through any door: as OTLP over HTTP, to the collector over gRPC,
//! to the agent as Thrift over UDP. And what a query must then show of them.

use std::net::UdpSocket;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use watchpost::protocol::wire::jaeger::api_v2 as jaeger;
use watchpost::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use watchpost::protocol::wire::opentelemetry::proto::common::v1 as common;
use watchpost::protocol::wire::opentelemetry::proto::resource::v1::Resource;
use watchpost::protocol::wire::opentelemetry::proto::trace::v1 as otlp;

use crate::appliance::Appliance;
use crate::senders::varint;
use crate::traces;

/// A typed value of a tag.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
}

pub type Tags = Vec<(String, Val)>;

/// Tags from pairs, where they are written by hand.
pub fn tags<const N: usize>(pairs: [(&str, Val); N]) -> Tags {
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

pub fn text(value: &str) -> Val {
    Val::Text(value.to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ref {
    ChildOf,
    FollowsFrom,
}

#[derive(Clone, Debug, Default)]
pub struct TestSpan {
    pub trace: u128,
    pub id: u64,
    pub service: String,
    pub process: Tags,
    pub operation: String,
    /// client, server and so on.
    pub kind: Option<&'static str>,
    /// Name and version of the instrumentation scope.
    pub scope: Option<(String, String)>,
    /// Nanoseconds; whole microseconds, since Thrift knows no less.
    pub start: i64,
    pub duration: i64,
    pub tags: Tags,
    pub logs: Vec<(i64, Tags)>,
    pub references: Vec<(Ref, u128, u64)>,
}

impl TestSpan {
    /// The span that this one is a child of.
    fn parent(&self) -> Option<u64> {
        let parent =
            |(kind, trace, _): &&(Ref, u128, u64)| *kind == Ref::ChildOf && *trace == self.trace;
        self.references.iter().find(parent).map(|(_, _, id)| *id)
    }

    /// Tags where a door has no other place for scope and kind.
    fn all_tags(&self) -> Tags {
        let mut tags = self.tags.clone();
        if let Some((name, version)) = &self.scope {
            tags.push(("otel.scope.name".into(), text(name)));
            tags.push(("otel.scope.version".into(), text(version)));
        }
        tags.extend(self.kind.map(|kind| ("span.kind".into(), text(kind))));
        tags
    }

    /// All that is compared of it, as a query has to show it; the order of tags, logs and
    /// references does not count.
    pub fn described(&self) -> String {
        let list = |tags: &Tags| {
            let mut tags: Vec<String> = tags.iter().map(described_tag).collect();
            tags.sort();
            tags
        };
        let mut logs: Vec<String> = self
            .logs
            .iter()
            .map(|(at, fields)| format!("{} {:?}", at / 1_000, list(fields)))
            .collect();
        logs.sort();
        let mut references: Vec<String> = self
            .references
            .iter()
            .map(|(kind, trace, span)| {
                let kind = match kind {
                    Ref::ChildOf => "CHILD_OF",
                    Ref::FollowsFrom => "FOLLOWS_FROM",
                };
                format!("{kind} {trace:032x} {span:016x}")
            })
            .collect();
        references.sort();
        format!(
            "{:016x} {:?} of {:?} {:?} at {} for {}: {:?} logs {logs:?} references {references:?}",
            self.id,
            self.operation,
            self.service,
            list(&self.process),
            self.start / 1_000,
            self.duration / 1_000,
            list(&self.all_tags()),
        )
    }
}

/// The spans of a trace of an answer, described alike.
pub fn described(trace: &serde_json::Value) -> Vec<String> {
    let spans = trace["spans"].as_array().expect("spans");
    let mut described: Vec<String> = spans
        .iter()
        .map(|span| {
            let process = &trace["processes"][span["processID"].as_str().expect("an id")];
            let mut references = traces::references(span);
            references.sort();
            format!(
                "{} {:?} of {:?} {:?} at {} for {}: {:?} logs {:?} references {references:?}",
                span["spanID"].as_str().expect("an id"),
                span["operationName"].as_str().expect("a name"),
                process["serviceName"].as_str().expect("a name"),
                traces::tags(&process["tags"]),
                span["startTime"],
                span["duration"],
                traces::tags(&span["tags"]),
                traces::logs(&span["logs"]),
            )
        })
        .collect();
    described.sort();
    described
}

fn described_tag((key, value): &(String, Val)) -> String {
    match value {
        Val::Text(text) => format!("{key} string {text:?}"),
        Val::Bool(bool) => format!("{key} bool \"{bool}\""),
        Val::Int(int) => format!("{key} int64 \"{int}\""),
        Val::Float(float) => format!("{key} float64 \"{float}\""),
        Val::Bytes(bytes) => format!("{key} binary {:?}", STANDARD.encode(bytes)),
    }
}

/// How spans get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Otlp,
    Grpc,
    Udp,
}

/// Spans a message, below what any door takes at once.
const BATCH: usize = 200;

impl Door {
    /// Sends the spans and returns when they are taken.
    #[track_caller]
    pub fn send(self, appliance: &Appliance, spans: &[TestSpan]) {
        // A message of Jaeger's is of one process.
        let same = |a: &TestSpan, b: &TestSpan| a.service == b.service && a.process == b.process;
        let batches = spans.chunk_by(same).flat_map(|spans| spans.chunks(BATCH));
        match self {
            Self::Otlp => batches.for_each(|spans| send_otlp(appliance, spans)),
            Self::Grpc => send_grpc(appliance, batches.map(grpc_request).collect()),
            Self::Udp => send_udp(appliance, batches),
        }
    }
}

fn send_otlp(appliance: &Appliance, spans: &[TestSpan]) {
    let mut resource = vec![attribute("service.name", &text(&spans[0].service))];
    resource.extend(attributes(&spans[0].process));
    let same = |a: &TestSpan, b: &TestSpan| a.scope == b.scope;
    let scopes = spans.chunk_by(same).map(|spans| otlp::ScopeSpans {
        scope: spans[0]
            .scope
            .clone()
            .map(|(name, version)| common::InstrumentationScope {
                name,
                version,
                ..common::InstrumentationScope::default()
            }),
        spans: spans.iter().map(otlp_span).collect(),
        ..otlp::ScopeSpans::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![otlp::ResourceSpans {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_spans: scopes.collect(),
            ..otlp::ResourceSpans::default()
        }],
    };
    let headers = [("Content-Type", "application/x-protobuf")];
    let body = request.encode_to_vec();
    let answer = appliance.post("otlp.http", "/v1/traces", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.len() <= 2, "nothing is refused: {answer:?}");
}

fn otlp_span(span: &TestSpan) -> otlp::Span {
    let parent = span.parent();
    let links = span.references.iter().filter(|(kind, trace, id)| {
        (*kind, *trace, Some(*id)) != (Ref::ChildOf, span.trace, parent)
    });
    let kinds = ["", "internal", "server", "client", "producer", "consumer"];
    let kind = kinds.iter().position(|kind| Some(*kind) == span.kind);
    otlp::Span {
        trace_id: span.trace.to_be_bytes().to_vec().into(),
        span_id: span.id.to_be_bytes().to_vec().into(),
        parent_span_id: parent
            .map_or(Vec::new(), |id| id.to_be_bytes().to_vec())
            .into(),
        name: span.operation.clone(),
        kind: kind.unwrap_or(0) as i32,
        start_time_unix_nano: span.start as u64,
        end_time_unix_nano: (span.start + span.duration) as u64,
        attributes: attributes(&span.tags),
        events: span
            .logs
            .iter()
            .map(|(at, fields)| otlp::span::Event {
                time_unix_nano: *at as u64,
                attributes: attributes(fields),
                ..otlp::span::Event::default()
            })
            .collect(),
        links: links
            .map(|(kind, trace, id)| {
                let kind = match kind {
                    Ref::ChildOf => "child_of",
                    Ref::FollowsFrom => "follows_from",
                };
                otlp::span::Link {
                    trace_id: trace.to_be_bytes().to_vec().into(),
                    span_id: id.to_be_bytes().to_vec().into(),
                    attributes: vec![attribute("opentracing.ref_type", &text(kind))],
                    ..otlp::span::Link::default()
                }
            })
            .collect(),
        ..otlp::Span::default()
    }
}

fn attributes(tags: &Tags) -> Vec<common::KeyValue> {
    tags.iter()
        .map(|(key, value)| attribute(key, value))
        .collect()
}

fn attribute(key: &str, value: &Val) -> common::KeyValue {
    use common::any_value::Value;
    let value = match value {
        Val::Text(text) => Value::StringValue(text.clone()),
        Val::Bool(bool) => Value::BoolValue(*bool),
        Val::Int(int) => Value::IntValue(*int),
        Val::Float(float) => Value::DoubleValue(*float),
        Val::Bytes(bytes) => Value::BytesValue(bytes.clone().into()),
    };
    common::KeyValue {
        key: key.into(),
        value: Some(common::AnyValue { value: Some(value) }),
    }
}

fn grpc_request(spans: &[TestSpan]) -> jaeger::PostSpansRequest {
    jaeger::PostSpansRequest {
        batch: Some(jaeger::Batch {
            spans: spans.iter().map(grpc_span).collect(),
            process: Some(jaeger::Process {
                service_name: spans[0].service.clone(),
                tags: grpc_tags(&spans[0].process),
            }),
        }),
    }
}

fn grpc_span(span: &TestSpan) -> jaeger::Span {
    let timestamp = |at: i64| jaeger::Timestamp {
        seconds: at.div_euclid(1_000_000_000),
        nanos: at.rem_euclid(1_000_000_000) as i32,
    };
    jaeger::Span {
        trace_id: span.trace.to_be_bytes().to_vec().into(),
        span_id: span.id.to_be_bytes().to_vec().into(),
        operation_name: span.operation.clone(),
        references: span
            .references
            .iter()
            .map(|(kind, trace, id)| jaeger::SpanRef {
                trace_id: trace.to_be_bytes().to_vec().into(),
                span_id: id.to_be_bytes().to_vec().into(),
                ref_type: *kind as i32,
            })
            .collect(),
        start_time: Some(timestamp(span.start)),
        duration: Some(jaeger::Duration {
            seconds: span.duration / 1_000_000_000,
            nanos: (span.duration % 1_000_000_000) as i32,
        }),
        tags: grpc_tags(&span.all_tags()),
        logs: span
            .logs
            .iter()
            .map(|(at, fields)| jaeger::Log {
                timestamp: Some(timestamp(*at)),
                fields: grpc_tags(fields),
            })
            .collect(),
        ..jaeger::Span::default()
    }
}

fn grpc_tags(tags: &Tags) -> Vec<jaeger::KeyValue> {
    tags.iter()
        .map(|(key, value)| {
            let mut tag = jaeger::KeyValue {
                key: key.clone(),
                ..jaeger::KeyValue::default()
            };
            let kind = match value {
                Val::Text(text) => {
                    tag.v_str = text.clone();
                    jaeger::ValueType::String
                }
                Val::Bool(bool) => {
                    tag.v_bool = *bool;
                    jaeger::ValueType::Bool
                }
                Val::Int(int) => {
                    tag.v_int64 = *int;
                    jaeger::ValueType::Int64
                }
                Val::Float(float) => {
                    tag.v_float64 = *float;
                    jaeger::ValueType::Float64
                }
                Val::Bytes(bytes) => {
                    tag.v_binary = bytes.clone().into();
                    jaeger::ValueType::Binary
                }
            };
            tag.v_type = kind as i32;
            tag
        })
        .collect()
}

fn send_grpc(appliance: &Appliance, requests: Vec<jaeger::PostSpansRequest>) {
    let address = appliance
        .address("jaeger.collector.grpc")
        .expect("listening");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect()
            .await
            .expect("connects");
        let mut client = tonic::client::Grpc::new(channel);
        for request in requests {
            client.ready().await.expect("ready");
            let path = "/jaeger.api_v2.CollectorService/PostSpans";
            let codec: tonic_prost::ProstCodec<_, jaeger::PostSpansResponse> =
                tonic_prost::ProstCodec::default();
            let path = path.parse().expect("a path");
            client
                .unary(tonic::Request::new(request), path, codec)
                .await
                .expect("taken");
        }
    });
}

/// One datagram at a time: none is lost, so each span must be there.
fn send_udp<'a>(appliance: &Appliance, batches: impl Iterator<Item = &'a [TestSpan]>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = appliance
        .address("jaeger.agent.compact")
        .expect("listening");
    let taken = || appliance.metric("spans_accepted", &[("transport", "udp_compact")]) as usize;
    let mut sent = taken();
    for spans in batches {
        let datagram = compact_message(spans);
        assert!(datagram.len() <= 65_000, "{} bytes", datagram.len());
        socket.send_to(&datagram, address).expect("sent");
        sent += spans.len();
        appliance.wait("a datagram", || (taken() >= sent).then_some(()));
    }
}

/// `emitBatch` as a Thrift message in the compact protocol.
fn compact_message(spans: &[TestSpan]) -> Vec<u8> {
    // A call of version 1, numbered 1.
    let mut out = vec![0x82, 1 << 5 | 1, 1];
    bytes(&mut out, b"emitBatch");
    // The arguments: a struct with the batch.
    let mut arguments = Struct::new(&mut out);
    arguments.field(1, STRUCT);
    let mut batch = Struct::new(arguments.out);
    batch.field(1, STRUCT);
    let mut process = Struct::new(batch.out);
    process.text(1, &spans[0].service);
    process.tags(2, &spans[0].process);
    process.end();
    batch.list(2, spans, compact_span);
    batch.end();
    arguments.end();
    out
}

fn compact_span(out: &mut Vec<u8>, span: &TestSpan) {
    let mut it = Struct::new(out);
    it.integer(1, I64, span.trace as u64 as i64);
    it.integer(2, I64, (span.trace >> 64) as u64 as i64);
    it.integer(3, I64, span.id as i64);
    it.integer(4, I64, span.parent().unwrap_or(0) as i64);
    it.text(5, &span.operation);
    it.list(6, &span.references, |out, (kind, trace, id)| {
        let mut it = Struct::new(out);
        it.integer(1, I32, *kind as i64);
        it.integer(2, I64, *trace as u64 as i64);
        it.integer(3, I64, (*trace >> 64) as u64 as i64);
        it.integer(4, I64, *id as i64);
        it.end();
    });
    it.integer(7, I32, 1);
    it.integer(8, I64, span.start / 1_000);
    it.integer(9, I64, span.duration / 1_000);
    it.tags(10, &span.all_tags());
    it.list(11, &span.logs, |out, (at, fields)| {
        let mut it = Struct::new(out);
        it.integer(1, I64, at / 1_000);
        it.tags(2, fields);
        it.end();
    });
    it.end();
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct of the compact protocol while it is written; ids are relative to the one before.
struct Struct<'a> {
    out: &'a mut Vec<u8>,
    last: u8,
}

impl<'a> Struct<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: 0 }
    }

    fn field(&mut self, id: u8, kind: u8) {
        self.out.push((id - self.last) << 4 | kind);
        self.last = id;
    }

    fn integer(&mut self, id: u8, kind: u8, value: i64) {
        self.field(id, kind);
        varint(self.out, (value << 1 ^ value >> 63) as u64);
    }

    fn text(&mut self, id: u8, value: &str) {
        self.field(id, BINARY);
        bytes(self.out, value.as_bytes());
    }

    fn list<T>(&mut self, id: u8, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        self.field(id, LIST);
        self.out.push(0xf0 | STRUCT);
        varint(self.out, items.len() as u64);
        for item in items {
            write(self.out, item);
        }
    }

    fn tags(&mut self, id: u8, tags: &Tags) {
        self.list(id, tags, |out, (key, value)| {
            let mut it = Struct::new(out);
            it.text(1, key);
            match value {
                Val::Text(text) => {
                    it.integer(2, I32, 0);
                    it.text(3, text);
                }
                Val::Float(float) => {
                    it.integer(2, I32, 1);
                    it.field(4, DOUBLE);
                    it.out.extend(float.to_le_bytes());
                }
                Val::Bool(bool) => {
                    it.integer(2, I32, 2);
                    it.field(5, if *bool { TRUE } else { FALSE });
                }
                Val::Int(int) => {
                    it.integer(2, I32, 3);
                    it.integer(6, I64, *int);
                }
                Val::Bytes(binary) => {
                    it.integer(2, I32, 4);
                    it.field(7, BINARY);
                    bytes(it.out, binary);
                }
            }
            it.end();
        });
    }

    fn end(self) {
        self.out.push(0);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
