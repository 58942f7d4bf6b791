//! Spans that no sender should send, through every door that can carry them: each has a defined
//! outcome, is counted, harms nothing beside it, and can be asked for.

use std::net::UdpSocket;

use serde_json::Value;

use crate::appliance::{Appliance, Setup, encoded, now};

/// The budget of 256 MiB, code, stacks, and what the allocator keeps.
const MEMORY_MAX: u64 = 400 << 20;

/// A span as bytes and numbers, whatever they mean.
#[derive(Clone)]
pub struct Odd {
    pub trace: u128,
    pub span: u64,
    pub parent: u64,
    pub service: Vec<u8>,
    pub operation: Vec<u8>,
    /// Microseconds.
    pub start: i64,
    pub duration: i64,
    pub tags: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Odd {
    fn new(trace: u128, span: u64) -> Self {
        Self {
            trace,
            span,
            parent: 0,
            service: b"odd".to_vec(),
            operation: b"op".to_vec(),
            start: now() / 1_000,
            duration: 1_000,
            tags: vec![],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Compact,
    Binary,
    Http,
    Grpc,
    OtlpHttp,
    OtlpGrpc,
    Zipkin,
}

const DOORS: [Door; 7] = [
    Door::Compact,
    Door::Binary,
    Door::Http,
    Door::Grpc,
    Door::OtlpHttp,
    Door::OtlpGrpc,
    Door::Zipkin,
];

impl Door {
    fn transport(self) -> &'static str {
        match self {
            Self::Compact => "udp_compact",
            Self::Binary => "udp_binary",
            Self::Http => "jaeger_http",
            Self::Grpc => "jaeger_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::OtlpGrpc => "otlp_grpc",
            Self::Zipkin => "zipkin_http",
        }
    }

    fn is_udp(self) -> bool {
        matches!(self, Self::Compact | Self::Binary)
    }

    fn is_otlp(self) -> bool {
        matches!(self, Self::OtlpHttp | Self::OtlpGrpc)
    }

    pub fn body(self, spans: &[Odd]) -> Vec<u8> {
        match self {
            Self::Compact => {
                let mut out = vec![0x82, 0x81, 0x01];
                compact_bytes(&mut out, b"emitBatch");
                compact_struct(&mut out, &[(1, Thrift::Struct(batch(spans)))]);
                out
            }
            Self::Binary => {
                let mut out = 0x8001_0004_u32.to_be_bytes().to_vec();
                binary_bytes(&mut out, b"emitBatch");
                out.extend(0_u32.to_be_bytes());
                binary_struct(&mut out, &[(1, Thrift::Struct(batch(spans)))]);
                out
            }
            Self::Http => {
                let mut out = Vec::new();
                binary_struct(&mut out, &batch(spans));
                out
            }
            Self::Grpc => jaeger_proto(spans),
            Self::OtlpHttp | Self::OtlpGrpc => otlp(spans),
            Self::Zipkin => zipkin(spans),
        }
    }

    /// Sends a body; the status, 0 for a datagram.
    fn send(self, appliance: &Appliance, body: &[u8]) -> u16 {
        let framed = || {
            let length = u32::try_from(body.len()).expect("small");
            [&[0], &length.to_be_bytes()[..], body].concat()
        };
        let grpc = [("Content-Type", "application/grpc")];
        let (key, path, headers, body) = match self {
            Self::Compact | Self::Binary => {
                let key = match self {
                    Self::Compact => "jaeger.agent.compact",
                    _ => "jaeger.agent.binary",
                };
                let address = appliance.address(key).expect("listening");
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.send_to(body, address).expect("sent");
                return 0;
            }
            Self::Http => (
                "jaeger.collector.http",
                "/api/traces",
                [("Content-Type", "application/x-thrift")],
                body.to_vec(),
            ),
            Self::Grpc => (
                "jaeger.collector.grpc",
                "/jaeger.api_v2.CollectorService/PostSpans",
                grpc,
                framed(),
            ),
            Self::OtlpHttp => (
                "otlp.http",
                "/v1/traces",
                [("Content-Type", "application/x-protobuf")],
                body.to_vec(),
            ),
            Self::OtlpGrpc => (
                "otlp.grpc",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                grpc,
                framed(),
            ),
            Self::Zipkin => (
                "zipkin.listen",
                "/api/v2/spans",
                [("Content-Type", "application/json")],
                body.to_vec(),
            ),
        };
        if body.len() > 1 << 22 {
            // Refused before it is read to its end.
            return appliance.post_in_vain(key, path, &headers, &body).status;
        }
        appliance.post(key, path, &headers, &body).status
    }
}

/// What the tests write of Thrift: other code than what reads it.
enum Thrift {
    I32(i32),
    I64(i64),
    Bytes(Vec<u8>),
    Struct(Vec<(i16, Thrift)>),
    List(Vec<Vec<(i16, Thrift)>>),
}

fn batch(spans: &[Odd]) -> Vec<(i16, Thrift)> {
    let service = spans.first().map_or(Vec::new(), |s| s.service.clone());
    let process = vec![(1, Thrift::Bytes(service))];
    let spans = spans.iter().map(|span| {
        let tag = |(key, value): &(Vec<u8>, Vec<u8>)| {
            vec![
                (1, Thrift::Bytes(key.clone())),
                (2, Thrift::I32(0)),
                (3, Thrift::Bytes(value.clone())),
            ]
        };
        vec![
            (1, Thrift::I64(span.trace as i64)),
            (2, Thrift::I64((span.trace >> 64) as i64)),
            (3, Thrift::I64(span.span as i64)),
            (4, Thrift::I64(span.parent as i64)),
            (5, Thrift::Bytes(span.operation.clone())),
            (7, Thrift::I32(1)),
            (8, Thrift::I64(span.start)),
            (9, Thrift::I64(span.duration)),
            (10, Thrift::List(span.tags.iter().map(tag).collect())),
        ]
    });
    vec![
        (1, Thrift::Struct(process)),
        (2, Thrift::List(spans.collect())),
    ]
}

fn binary_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn binary_struct(out: &mut Vec<u8>, fields: &[(i16, Thrift)]) {
    for (id, value) in fields {
        out.push(match value {
            Thrift::I32(_) => 8,
            Thrift::I64(_) => 10,
            Thrift::Bytes(_) => 11,
            Thrift::Struct(_) => 12,
            Thrift::List(_) => 15,
        });
        out.extend(id.to_be_bytes());
        match value {
            Thrift::I32(number) => out.extend(number.to_be_bytes()),
            Thrift::I64(number) => out.extend(number.to_be_bytes()),
            Thrift::Bytes(bytes) => binary_bytes(out, bytes),
            Thrift::Struct(fields) => binary_struct(out, fields),
            Thrift::List(items) => {
                out.push(12);
                out.extend((items.len() as u32).to_be_bytes());
                items.iter().for_each(|item| binary_struct(out, item));
            }
        }
    }
    out.push(0);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn compact_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn compact_struct(out: &mut Vec<u8>, fields: &[(i16, Thrift)]) {
    let zigzag = |n: i64| ((n << 1) ^ (n >> 63)) as u64;
    let mut previous = 0;
    for (id, value) in fields {
        let kind = match value {
            Thrift::I32(_) => 5,
            Thrift::I64(_) => 6,
            Thrift::Bytes(_) => 8,
            Thrift::Struct(_) => 12,
            Thrift::List(_) => 9,
        };
        out.push(((id - previous) as u8) << 4 | kind);
        previous = *id;
        match value {
            Thrift::I32(number) => varint(out, zigzag(i64::from(*number))),
            Thrift::I64(number) => varint(out, zigzag(*number)),
            Thrift::Bytes(bytes) => compact_bytes(out, bytes),
            Thrift::Struct(fields) => compact_struct(out, fields),
            Thrift::List(items) => {
                out.push(0xfc);
                varint(out, items.len() as u64);
                items.iter().for_each(|item| compact_struct(out, item));
            }
        }
    }
    out.push(0);
}

/// A length-delimited field of protobuf; its bytes may be any.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    compact_bytes(out, bytes);
}

fn jaeger_proto(spans: &[Odd]) -> Vec<u8> {
    let mut batch = Vec::new();
    for span in spans {
        // Texts are written by hand: the library's can't hold any bytes.
        let mut bytes = Vec::new();
        field(&mut bytes, 1, &span.trace.to_be_bytes());
        field(&mut bytes, 2, &span.span.to_be_bytes());
        field(&mut bytes, 3, &span.operation);
        if span.parent != 0 {
            let mut reference = Vec::new();
            field(&mut reference, 1, &span.trace.to_be_bytes());
            field(&mut reference, 2, &span.parent.to_be_bytes());
            field(&mut bytes, 4, &reference);
        }
        let time = |micros: i64| {
            let mut time = vec![1 << 3];
            varint(&mut time, micros.div_euclid(1_000_000) as u64);
            time.push(2 << 3);
            varint(&mut time, (micros.rem_euclid(1_000_000) * 1_000) as u64);
            time
        };
        field(&mut bytes, 6, &time(span.start));
        field(&mut bytes, 7, &time(span.duration));
        for (key, value) in &span.tags {
            let mut tag = Vec::new();
            field(&mut tag, 1, key);
            field(&mut tag, 3, value);
            field(&mut bytes, 8, &tag);
        }
        field(&mut batch, 1, &bytes);
    }
    if let Some(span) = spans.first() {
        let mut process = Vec::new();
        field(&mut process, 1, &span.service);
        field(&mut batch, 2, &process);
    }
    let mut request = Vec::new();
    field(&mut request, 1, &batch);
    request
}

fn otlp(spans: &[Odd]) -> Vec<u8> {
    let service = spans.first().map_or(&[][..], |s| &s.service);
    let attribute = |key: &[u8], value: &[u8]| {
        let mut any = Vec::new();
        field(&mut any, 1, value);
        let mut pair = Vec::new();
        field(&mut pair, 1, key);
        field(&mut pair, 2, &any);
        pair
    };
    let mut resource = Vec::new();
    field(&mut resource, 1, &attribute(b"service.name", service));
    let mut scope = Vec::new();
    for span in spans {
        let mut bytes = Vec::new();
        field(&mut bytes, 1, &span.trace.to_be_bytes());
        field(&mut bytes, 2, &span.span.to_be_bytes());
        if span.parent != 0 {
            field(&mut bytes, 4, &span.parent.to_be_bytes());
        }
        field(&mut bytes, 5, &span.operation);
        for (number, micros) in [(7, span.start), (8, span.start.wrapping_add(span.duration))] {
            varint(&mut bytes, number << 3 | 1);
            bytes.extend((micros.wrapping_mul(1_000) as u64).to_le_bytes());
        }
        for (key, value) in &span.tags {
            field(&mut bytes, 9, &attribute(key, value));
        }
        field(&mut scope, 2, &bytes);
    }
    let mut of_resource = Vec::new();
    field(&mut of_resource, 1, &resource);
    field(&mut of_resource, 2, &scope);
    let mut request = Vec::new();
    field(&mut request, 1, &of_resource);
    request
}

/// JSON: bytes that are no text stay as they are, within quotes.
fn zipkin(spans: &[Odd]) -> Vec<u8> {
    let quoted = |bytes: &[u8]| [b"\"", bytes, b"\""].concat();
    let pair = |key: &[u8], value: Vec<u8>| [&quoted(key)[..], b":", &value[..]].concat();
    let object = |pairs: Vec<Vec<u8>>| [b"{", &pairs.join(&b","[..])[..], b"}"].concat();
    let spans: Vec<Vec<u8>> = spans
        .iter()
        .map(|span| {
            let id = |id: u64| quoted(format!("{id:016x}").as_bytes());
            let tags = span
                .tags
                .iter()
                .map(|(key, value)| pair(key, quoted(value)));
            let endpoint = object(vec![pair(b"serviceName", quoted(&span.service))]);
            let mut pairs = vec![
                pair(
                    b"traceId",
                    quoted(format!("{:032x}", span.trace).as_bytes()),
                ),
                pair(b"id", id(span.span)),
                pair(b"name", quoted(&span.operation)),
                pair(b"localEndpoint", endpoint),
                pair(b"timestamp", span.start.to_string().into_bytes()),
                pair(b"duration", span.duration.to_string().into_bytes()),
                pair(b"tags", object(tags.collect())),
            ];
            if span.parent != 0 {
                pairs.push(pair(b"parentId", id(span.parent)));
            }
            object(pairs)
        })
        .collect();
    [b"[", &spans.join(&b","[..])[..], b"]"].concat()
}

/// What became of a message: spans taken, spans refused, messages refused.
type Outcome = (f64, f64, f64);

fn outcome(appliance: &Appliance, door: Door) -> Outcome {
    let of = |name: &str| appliance.metric(name, &[("transport", door.transport())]);
    (
        of("spans_accepted"),
        of("spans_refused"),
        of("span_messages_refused"),
    )
}

/// Sends a message and waits until it is counted.
#[track_caller]
fn sent(appliance: &Appliance, door: Door, body: &[u8]) -> (u16, Outcome) {
    let before = outcome(appliance, door);
    let status = door.send(appliance, body);
    let after = appliance.wait("the message to be counted", || {
        let after = outcome(appliance, door);
        (after != before).then_some(after)
    });
    let change = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    (status, change)
}

struct Case {
    name: &'static str,
    spans: Vec<Odd>,
    /// Too large for a datagram.
    large: bool,
}

/// All that is odd, in traces with ids that begin with `number`.
fn cases(number: u128) -> Vec<Case> {
    let trace = |n: u128| number << 64 | n;
    let one = |n: u128, change: &dyn Fn(&mut Odd)| {
        let mut span = Odd::new(trace(n), 1);
        change(&mut span);
        vec![span]
    };
    let tags = |count: usize| -> Vec<(Vec<u8>, Vec<u8>)> {
        let pair = |n| (format!("k{n}").into_bytes(), format!("v{n}").into_bytes());
        (0..count).map(pair).collect()
    };
    let case = |name, spans| Case {
        name,
        spans,
        large: false,
    };
    let parented = |n, span, parent| Odd {
        parent,
        ..Odd::new(trace(n), span)
    };
    vec![
        case("no service", one(1, &|s| s.service.clear())),
        case("no operation", one(2, &|s| s.operation.clear())),
        case("negative duration", one(3, &|s| s.duration = -5)),
        case("longest duration", one(4, &|s| s.duration = i64::MAX)),
        case("start of time", one(5, &|s| s.start = 0)),
        case("before time", one(6, &|s| s.start = -1)),
        case("far past", one(7, &|s| s.start = i64::MIN)),
        case("far future", one(8, &|s| s.start = i64::MAX)),
        case("2100", one(9, &|s| s.start = 4_102_444_800_000_000)),
        case("many tags", one(10, &|s| s.tags = tags(1_500))),
        Case {
            large: true,
            ..case("10,000 tags", one(11, &|s| s.tags = tags(10_000)))
        },
        Case {
            large: true,
            ..case(
                "1 MB value",
                one(12, &|s| {
                    s.tags = vec![(b"big".to_vec(), vec![b'x'; 1 << 20])]
                }),
            )
        },
        case(
            "no UTF-8",
            one(13, &|s| {
                s.operation = b"op\xff".to_vec();
                s.tags = vec![
                    (b"k\xfe".to_vec(), b"v".to_vec()),
                    (b"k".to_vec(), b"\xc0\x80".to_vec()),
                ];
            }),
        ),
        case(
            "service no UTF-8",
            one(14, &|s| s.service = b"\xff\xfe".to_vec()),
        ),
        case(
            "a circle and one's own parent",
            vec![
                parented(15, 1, 2),
                parented(15, 2, 3),
                parented(15, 3, 1),
                parented(15, 4, 4),
                parented(15, 5, 99),
            ],
        ),
        case(
            "the same id twice",
            vec![Odd::new(trace(16), 7), Odd::new(trace(16), 7)],
        ),
    ]
}

#[track_caller]
fn trace(appliance: &Appliance, id: u128, query: &str) -> Value {
    let answer = appliance.get(
        "jaeger.query.http",
        &format!("/api/traces/{id:032x}{query}"),
    );
    assert_eq!(answer.status, 200, "{id:x}{query}: {}", answer.text());
    answer.json()["data"][0].clone()
}

#[track_caller]
fn still_well(appliance: &Appliance) {
    let good = Odd {
        service: b"good".to_vec(),
        ..Odd::new(4711, 1)
    };
    let (status, (taken, ..)) = sent(appliance, Door::Http, &Door::Http.body(&[good]));
    assert_eq!((status, taken), (202, 1.0));
    assert_eq!(
        trace(appliance, 4711, "")["spans"][0]["operationName"],
        "op"
    );
    let (_, peak) = appliance.resident();
    assert!(peak < MEMORY_MAX, "{} MB at the peak", peak >> 20);
}

#[test]
fn odd_spans_are_kept_through_every_door_and_can_be_asked_for() {
    let mut appliance = Setup::default().start();
    let mut kept: Vec<(u128, String, usize)> = Vec::new();
    let mut wrong = Vec::new();
    for (door, number) in DOORS.into_iter().zip(1..) {
        for case in cases(number) {
            if case.large && door.is_udp() {
                continue;
            }
            let name = format!("{door:?}: {}", case.name);
            let (status, change) = sent(&appliance, door, &door.body(&case.spans));
            let count = case.spans.len() as f64;
            // JSON is text: what is none is no message.
            let refused = door == Door::Zipkin && case.name.contains("no UTF-8");
            let expected = match refused {
                true => (0.0, 0.0, 1.0),
                false => (count, 0.0, 0.0),
            };
            if change != expected {
                wrong.push(format!(
                    "{name}: {status} {change:?}, expected {expected:?}"
                ));
            }
            if change == (count, 0.0, 0.0) {
                let distinct = match case.name {
                    "the same id twice" => 1,
                    _ => case.spans.len(),
                };
                kept.push((case.spans[0].trace, name, distinct));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ask = |appliance: &Appliance| {
        for (id, name, count) in &kept {
            for query in ["", "?raw=true"] {
                let found = trace(appliance, *id, query);
                let spans = found["spans"].as_array().expect("spans").len();
                assert!(spans >= *count, "{name}{query}: {found}");
            }
        }
        for service in ["odd", "empty-service-name", "InvalidServiceName"] {
            for range in ["", "&start=0&end=9000000000000000"] {
                let path = format!("/api/traces?service={}&limit=1000{range}", encoded(service));
                let answer = appliance.get("jaeger.query.http", &path);
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                let found = answer.json()["data"].as_array().map_or(0, Vec::len);
                assert!(found > 0, "{path}");
            }
        }
        // As Jaeger repairs them, and says so.
        let odd = |n: u128| trace(appliance, 1 << 64 | n, "?raw=true");
        assert_eq!(
            odd(1)["processes"]["p1"]["serviceName"],
            "empty-service-name"
        );
        let negative = odd(3)["spans"][0].clone();
        assert_eq!(negative["duration"], 0);
        assert!(
            negative["tags"]
                .to_string()
                .contains("InvalidNegativeDuration"),
            "{negative}"
        );
        let bytes = odd(13)["spans"][0].clone();
        assert_eq!(bytes["operationName"], "InvalidOperationName");
        assert!(
            bytes["tags"].to_string().contains("InvalidTagKey"),
            "{bytes}"
        );
        let all = "/api/traces?service=odd&tags=%7B%22k5%22%3A%22v5%22%7D&limit=100";
        let found = appliance.get("jaeger.query.http", all).json();
        assert!(
            found["data"].as_array().is_some_and(|d| d.len() >= 7),
            "{found}"
        );
    };
    ask(&appliance);
    appliance.flush();
    ask(&appliance);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    ask(&appliance);
    still_well(&appliance);
}

#[test]
fn ids_of_zero_have_an_outcome_that_is_counted() {
    let appliance = Setup::default().start();
    for door in DOORS {
        let no_trace = Odd::new(0, 5);
        let no_span = Odd::new(0x77 << 64 | 6, 0);
        for span in [no_trace, no_span] {
            let (_, change) = sent(&appliance, door, &door.body(&[span]));
            // OTLP says that they are no ids; Jaeger keeps them as they are.
            let expected = match door.is_otlp() {
                true => (0.0, 1.0, 0.0),
                false => (1.0, 0.0, 0.0),
            };
            assert_eq!(change, expected, "{door:?}");
        }
    }
    let doors = DOORS.len() - 2;
    let zero = trace(&appliance, 0, "")["spans"]
        .as_array()
        .map_or(0, Vec::len);
    assert!((1..=doors).contains(&zero), "{zero}");
    let ids = trace(&appliance, 0x77 << 64 | 6, "?raw=true");
    assert_eq!(ids["spans"][0]["spanID"], "0000000000000000", "{ids}");
    still_well(&appliance);
}

#[test]
fn a_body_that_ends_early_is_refused_as_a_whole_and_counted() {
    let appliance = Setup::default().start();
    let spans = [Odd::new(21, 1), Odd::new(21, 2)];
    for door in DOORS {
        let body = door.body(&spans);
        for part in [body.len() / 3, body.len() / 2, body.len() - 1] {
            let (status, change) = sent(&appliance, door, &body[..part]);
            assert_eq!(change, (0.0, 0.0, 1.0), "{door:?} {part}");
            match door {
                // gRPC's status is in a head of its own.
                Door::Compact | Door::Binary => assert_eq!(status, 0),
                Door::Grpc | Door::OtlpGrpc => assert_eq!(status, 200, "{door:?} {part}"),
                _ => assert_eq!(status, 400, "{door:?} {part}"),
            }
        }
    }
    assert_eq!(appliance.metric("spans_stored", &[]), 0.0);
    still_well(&appliance);
}

#[test]
fn a_message_over_the_limit_of_grpc_is_refused_and_its_connection_goes_on() {
    let appliance = Setup::default().start();
    let mut large = Odd::new(31, 1);
    large.tags = vec![(b"k".to_vec(), vec![b'v'; 17 << 20])];
    for door in [Door::Grpc, Door::OtlpGrpc] {
        let (status, change) = sent(&appliance, door, &door.body(std::slice::from_ref(&large)));
        assert_eq!((status, change), (200, (0.0, 0.0, 1.0)), "{door:?}");
        let (_, change) = sent(&appliance, door, &door.body(&[Odd::new(32, 1)]));
        assert_eq!(change, (1.0, 0.0, 0.0), "{door:?}");
    }
    let absent = appliance.get("jaeger.query.http", "/api/traces/1f");
    assert_eq!(absent.status, 404);
    still_well(&appliance);
}

#[test]
fn a_flood_of_datagrams_is_counted_to_the_last_and_harms_no_other_door() {
    const FLOOD: u32 = 30_000;
    let appliance = Setup::default().start();
    let good = Odd {
        service: b"flood".to_vec(),
        tags: vec![(b"k".to_vec(), vec![b'v'; 4_000])],
        ..Odd::new(41, 1)
    };
    let (_, before) = appliance.resident();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let address = appliance
                .address("jaeger.agent.compact")
                .expect("listening");
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mut span = good.clone();
            for n in 0..FLOOD {
                span.span = u64::from(n) + 1;
                span.trace = 41 + u128::from(n / 100);
                let body = Door::Compact.body(std::slice::from_ref(&span));
                socket.send_to(&body, address).expect("sent");
            }
        });
        let mut pushed = 0;
        while !flood.is_finished() || pushed < 10 {
            pushed += 1;
            let span = Odd {
                service: b"other".to_vec(),
                ..Odd::new(51, pushed)
            };
            for door in [Door::Http, Door::OtlpHttp] {
                let (status, change) =
                    sent(&appliance, door, &door.body(std::slice::from_ref(&span)));
                assert!(status < 300, "{door:?}: {status}");
                assert_eq!(change, (1.0, 0.0, 0.0), "{door:?}");
            }
        }
    });
    let udp = [("transport", "udp_compact")];
    let counts = || {
        let (taken, _, refused) = outcome(&appliance, Door::Compact);
        let kernel = appliance.metric("span_datagrams_dropped_by_kernel", &udp);
        (taken, refused, kernel)
    };
    let (taken, refused, kernel) = appliance.wait("all to be counted", || {
        let (taken, refused, kernel) = counts();
        (taken + refused + kernel >= f64::from(FLOOD)).then_some((taken, refused, kernel))
    });
    assert_eq!(taken + refused + kernel, f64::from(FLOOD));
    assert!(taken > 0.0);
    let (_, peak) = appliance.resident();
    assert!(
        peak < MEMORY_MAX,
        "{} MB, {} MB before",
        peak >> 20,
        before >> 20
    );
    still_well(&appliance);
}
