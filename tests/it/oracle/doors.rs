//! The doors: how each takes lines or spans, and the threads that push through them.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use watchpost::protocol::wire::jaeger::api_v2;
use watchpost::protocol::wire::jaeger::storage::v1;
use watchpost::protocol::wire::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use watchpost::protocol::wire::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};

use super::grpc::{Grpc, says_nothing};
use super::{LogStream, Run, Service, line, spans_of};
use crate::appliance::{agent, locked, now, request};
use crate::bad_spans::{Door, Odd};
use crate::otlp_logs;
use crate::senders::{SentSpan, gzip, loki_protobuf, otlp_json, otlp_protobuf};

/// How lines come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDoor {
    LokiProtobuf,
    LokiJson,
    LokiJsonGzip,
    /// OTLP on Loki's port.
    LokiOtlp,
    OtlpHttp,
    OtlpGrpc,
    File,
}

/// How spans come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDoor {
    OtlpHttpJson,
    OtlpHttp,
    OtlpGrpc,
    JaegerGrpc,
    JaegerHttp,
    Zipkin,
    StorageV1,
    StorageV2,
}

impl SpanDoor {
    pub const ALL: [Self; 8] = [
        Self::OtlpHttpJson,
        Self::OtlpHttp,
        Self::OtlpGrpc,
        Self::JaegerGrpc,
        Self::JaegerHttp,
        Self::Zipkin,
        Self::StorageV1,
        Self::StorageV2,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::OtlpHttpJson | Self::OtlpHttp => "otlp.http",
            Self::OtlpGrpc => "otlp.grpc",
            Self::JaegerGrpc => "jaeger.collector.grpc",
            Self::JaegerHttp => "jaeger.collector.http",
            Self::Zipkin => "zipkin.listen",
            Self::StorageV1 | Self::StorageV2 => "jaeger.storage.grpc",
        }
    }
}

impl LogDoor {
    fn key(self) -> &'static str {
        match self {
            Self::OtlpHttp => "otlp.http",
            Self::OtlpGrpc => "otlp.grpc",
            _ => "loki.listen",
        }
    }
}

impl LogStream {
    /// Selects the stream and nothing else.
    pub fn selector(&self) -> String {
        match self.door {
            LogDoor::LokiOtlp | LogDoor::OtlpHttp | LogDoor::OtlpGrpc => {
                format!("{{service_name=\"otlp-{}\"}}", self.name)
            }
            _ => format!("{{job=\"crash\",stream=\"{}\"}}", self.name),
        }
    }
}

/// Lines for streams, one push.
type Lines<'a> = Vec<(&'a LogStream, Vec<(i64, String)>)>;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const OTLP_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const OTLP_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What a sender has to connect with.
struct Client {
    http: ureq::Agent,
    grpc: Grpc,
}

impl Client {
    fn new() -> Self {
        Self {
            http: agent(),
            grpc: Grpc::new(),
        }
    }
}

fn json_push(lines: &Lines<'_>) -> Vec<u8> {
    let streams: Vec<_> = lines
        .iter()
        .map(|(stream, lines)| {
            let values: Vec<_> = lines
                .iter()
                .map(|(at, line)| json!([at.to_string(), line]))
                .collect();
            json!({ "stream": { "job": "crash", "stream": stream.name }, "values": values })
        })
        .collect();
    json!({ "streams": streams }).to_string().into_bytes()
}

fn protobuf_push(lines: &Lines<'_>) -> Vec<u8> {
    let streams: Vec<_> = lines
        .iter()
        .map(|(stream, lines)| {
            let lines = lines.iter().map(|(at, l)| (*at, l.as_bytes()));
            let labels = format!("{{job=\"crash\", stream=\"{}\"}}", stream.name);
            (labels, lines.collect())
        })
        .collect();
    loki_protobuf(&streams)
}

fn otlp_export(lines: &Lines<'_>) -> ExportLogsServiceRequest {
    let mut export = ExportLogsServiceRequest::default();
    for (stream, lines) in lines {
        let lines: Vec<(i64, &str)> = lines.iter().map(|(at, l)| (*at, &**l)).collect();
        let one = otlp_logs::export(&format!("otlp-{}", stream.name), &lines);
        export.resource_logs.extend(one.resource_logs);
    }
    export
}

fn odd(service: &str, spans: &[SentSpan]) -> Vec<Odd> {
    let odd = |span: &SentSpan| Odd {
        trace: span.trace,
        span: span.span,
        parent: span.parent,
        service: service.as_bytes().to_vec(),
        operation: span.name.as_bytes().to_vec(),
        start: span.start / 1000,
        duration: 1500,
        tags: vec![(b"seq".to_vec(), span.seq.as_bytes().to_vec())],
    };
    spans.iter().map(odd).collect()
}

/// In Jaeger's own model.
fn jaeger_batch(service: &str, spans: &[SentSpan]) -> api_v2::PostSpansRequest {
    let body = Door::Grpc.body(&odd(service, spans));
    api_v2::PostSpansRequest::decode(&body[..]).expect("what was just encoded")
}

fn storage_write(service: &str, span: &SentSpan) -> v1::WriteSpanRequest {
    let batch = jaeger_batch(service, std::slice::from_ref(span)).batch;
    let mut batch = batch.expect("a batch");
    let mut span = batch.spans.remove(0);
    span.process = batch.process;
    v1::WriteSpanRequest { span: Some(span) }
}

impl Run {
    /// Posts something; whether it was acknowledged.
    fn post(&self, client: &Client, url: &str, headers: &[(&str, &str)], body: &[u8]) -> bool {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        match request(&client.http, "POST", url, headers, body) {
            Ok(answer) if (200..300).contains(&answer.status) => {
                // OTLP tells there what it did not take.
                let protobuf = headers.contains(&("Content-Type", PROTOBUF));
                if answer.text().contains("ejected") || protobuf && !answer.body.is_empty() {
                    self.complain(format!("{url}: {}", answer.text()));
                    return false;
                }
                true
            }
            // On its way out, which Jaeger's and Zipkin's doors say with 500: what it said of the rest
            // counts as not known.
            Ok(answer) if answer.status == 503 => false,
            Ok(answer) if answer.status == 500 && answer.text().contains("shutting down") => false,
            Ok(answer) => {
                self.complain(format!(
                    "{url}: status {}: {}",
                    answer.status,
                    answer.text()
                ));
                false
            }
            Err(_) => false,
        }
    }

    fn call<M, R>(
        &self,
        client: &mut Client,
        key: &str,
        method: &'static str,
        message: M,
    ) -> Option<R>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let address = self.address(key)?;
        self.pushes.fetch_add(1, Ordering::Relaxed);
        match client.grpc.call(address, method, message) {
            Ok(answer) => Some(answer),
            Err(status) => {
                if !says_nothing(&status) {
                    self.complain(format!("{method}: {status}"));
                }
                None
            }
        }
    }

    /// Whether lines were acknowledged.
    fn send_lines(&self, client: &mut Client, door: LogDoor, lines: &Lines<'_>) -> bool {
        let Some(address) = self.address(door.key()) else {
            return false;
        };
        let push = format!("http://{address}/loki/api/v1/push");
        let kind = |kind| ("Content-Type", kind);
        let zipped = ("Content-Encoding", "gzip");
        match door {
            LogDoor::LokiProtobuf => {
                self.post(client, &push, &[kind(PROTOBUF)], &protobuf_push(lines))
            }
            LogDoor::LokiJson => self.post(client, &push, &[kind(JSON)], &json_push(lines)),
            LogDoor::LokiJsonGzip => {
                let body = gzip(&json_push(lines));
                self.post(client, &push, &[kind(JSON), zipped], &body)
            }
            LogDoor::LokiOtlp => {
                let body = otlp_export(lines).encode_to_vec();
                let url = format!("http://{address}/otlp/v1/logs");
                self.post(client, &url, &[kind(PROTOBUF)], &body)
            }
            LogDoor::OtlpHttp => {
                let body = gzip(&otlp_export(lines).encode_to_vec());
                let url = format!("http://{address}/v1/logs");
                self.post(client, &url, &[kind(PROTOBUF), zipped], &body)
            }
            LogDoor::OtlpGrpc => {
                let answer: Option<ExportLogsServiceResponse> =
                    self.call(client, door.key(), OTLP_LOGS, otlp_export(lines));
                match answer {
                    Some(answer) if answer.partial_success.is_none() => true,
                    Some(answer) => {
                        self.complain(format!("OTLP logs by gRPC: {answer:?}"));
                        false
                    }
                    None => false,
                }
            }
            LogDoor::File => false,
        }
    }

    /// Pushes lines to some of the streams until the run ends.
    pub(super) fn push_lines(&self, mine: &[usize], seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut client = Client::new();
        let door = self.streams[mine[0]].door;
        while self.going_on() {
            if self.address(door.key()).is_none() {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let mut sent: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
            let mut lines: Lines<'_> = Vec::new();
            for at in mine {
                if random.random_bool(0.4) && mine.len() > 1 {
                    continue;
                }
                let stream = &self.streams[*at];
                let mut ledger = locked(&stream.ledger);
                let numbers = ledger.next(random.random_range(1..25));
                ledger.last_at = ledger.last_at.max(now() + stream.shift);
                let entries = numbers.clone().map(|number| {
                    // Every other line has the time of the one before.
                    ledger.last_at += i64::from(number % 2 == 0);
                    (ledger.last_at, line(self.id, &stream.name, number))
                });
                lines.push((stream, entries.collect()));
                sent.push((*at, numbers));
            }
            if sent.is_empty() {
                continue;
            }
            if self.send_lines(&mut client, door, &lines) {
                for (at, numbers) in sent {
                    locked(&self.streams[at].ledger).acknowledge(numbers);
                }
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..self.pace)));
        }
    }

    /// Whether spans were acknowledged.
    fn send_spans(&self, client: &mut Client, service: &Service, spans: &[SentSpan]) -> bool {
        let door = service.door;
        let Some(address) = self.address(door.key()) else {
            return false;
        };
        let kind = |kind| [("Content-Type", kind)];
        let (name, at) = (&service.name, |path| format!("http://{address}{path}"));
        match door {
            SpanDoor::OtlpHttpJson => {
                let body = otlp_json(name, spans).to_string().into_bytes();
                self.post(client, &at("/v1/traces"), &kind(JSON), &body)
            }
            SpanDoor::OtlpHttp => {
                let body = otlp_protobuf(name, spans);
                self.post(client, &at("/v1/traces"), &kind(PROTOBUF), &body)
            }
            SpanDoor::OtlpGrpc | SpanDoor::StorageV2 => {
                let body = otlp_protobuf(name, spans);
                let request = ExportTraceServiceRequest::decode(&body[..]);
                let request = request.expect("what was just encoded");
                let answer: Option<ExportTraceServiceResponse> =
                    self.call(client, door.key(), OTLP_TRACES, request);
                answer.is_some_and(|answer| answer.partial_success.is_none())
            }
            SpanDoor::JaegerGrpc => {
                let method = "/jaeger.api_v2.CollectorService/PostSpans";
                let request = jaeger_batch(name, spans);
                let answer: Option<api_v2::PostSpansResponse> =
                    self.call(client, door.key(), method, request);
                answer.is_some()
            }
            SpanDoor::JaegerHttp => {
                let body = Door::Http.body(&odd(name, spans));
                let kind = kind("application/x-thrift");
                self.post(client, &at("/api/traces"), &kind, &body)
            }
            SpanDoor::Zipkin => {
                let body = Door::Zipkin.body(&odd(name, spans));
                self.post(client, &at("/api/v2/spans"), &kind(JSON), &body)
            }
            SpanDoor::StorageV1 => {
                let method = "/jaeger.storage.v1.SpanWriterPlugin/WriteSpan";
                let request = storage_write(name, &spans[0]);
                let answer: Option<v1::WriteSpanResponse> =
                    self.call(client, door.key(), method, request);
                answer.is_some()
            }
        }
    }

    pub(super) fn export_spans(&self, service: &Service, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut client = Client::new();
        while self.going_on() {
            if self.address(service.door.key()).is_none() {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let most = match service.door {
                SpanDoor::StorageV1 => 2,
                _ => 6,
            };
            let numbers = locked(&service.ledger).next(random.random_range(1..most));
            let start = now();
            let spans: Vec<SentSpan> = numbers
                .clone()
                .flat_map(|n| spans_of(self.id, service, n, start))
                .collect();
            if self.send_spans(&mut client, service, &spans) {
                locked(&service.ledger).acknowledge(numbers);
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..2 * self.pace)));
        }
    }

    /// Appends to the followed file, at times half a line.
    pub(super) fn write_file(&self, path: &std::path::Path, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = std::fs::File::create(path).expect("a file to follow");
        while self.going_on() {
            for _ in 0..random.random_range(1..10) {
                let number = locked(&self.file.ledger).fates.len();
                let text = line(self.id, &self.file.name, number) + "\n";
                let half = random.random_range(0..=text.len());
                for part in [&text.as_bytes()[..half], &text.as_bytes()[half..]] {
                    file.write_all(part).expect("a line");
                }
                let mut ledger = locked(&self.file.ledger);
                let numbers = ledger.next(1);
                ledger.acknowledge(numbers);
            }
            std::thread::sleep(Duration::from_millis(random.random_range(1..2 * self.pace)));
        }
    }

    /// Archives traces that are there, and writes others to the archive alone.
    pub(super) fn archive(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut client = Client::new();
        // No service has so many; its spans are in the archive only.
        let alone = Service {
            name: "archived".into(),
            door: SpanDoor::StorageV1,
            number: 0xffff,
            ledger: Default::default(),
        };
        while self.going_on() {
            std::thread::sleep(Duration::from_millis(
                random.random_range(5..5 * self.pace + 6),
            ));
            if random.random_bool(0.5) {
                let number = locked(&alone.ledger).next(1).start;
                let spans = spans_of(self.id, &alone, number, now());
                let method = "/jaeger.storage.v1.ArchiveSpanWriterPlugin/WriteArchiveSpan";
                let request = storage_write(&alone.name, &spans[0]);
                let answer: Option<v1::WriteSpanResponse> =
                    self.call(&mut client, SpanDoor::StorageV1.key(), method, request);
                if answer.is_some() {
                    locked(&self.archived).push((spans[0].trace, vec![spans[0].span]));
                }
                continue;
            }
            let service = &self.services[random.random_range(0..self.services.len())];
            let number = {
                let ledger = locked(&service.ledger);
                match ledger.fates.len() {
                    0 => continue,
                    sent => random.random_range(0..sent),
                }
            };
            let Some(address) = self.address("jaeger.query.http") else {
                continue;
            };
            let spans = spans_of(self.id, service, number, 0);
            let url = format!("http://{address}/api/archive/{:032x}", spans[0].trace);
            match request(&client.http, "POST", &url, &[], b"") {
                Ok(answer) if answer.status == 200 => {
                    let ids = spans.iter().map(|s| s.span).collect();
                    locked(&self.archived).push((spans[0].trace, ids));
                }
                // Not there, or not yet: it may be replayed a moment later.
                Ok(answer) if [404, 503].contains(&answer.status) => {}
                Ok(answer) => self.complain(format!("{url}: {}", answer.text())),
                Err(_) => {}
            }
        }
    }

    pub(super) fn flush_at_times(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let agent = agent();
        while self.going_on() {
            std::thread::sleep(Duration::from_millis(random.random_range(30..500)));
            if let Some(address) = self.address("loki.listen") {
                // Whether it comes to an end does not matter.
                let _ = request(&agent, "POST", &format!("http://{address}/flush"), &[], b"");
            }
        }
    }
}
