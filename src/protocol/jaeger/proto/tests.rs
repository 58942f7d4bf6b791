use prost::Message;

use super::*;

fn request(spans: Vec<api_v2::Span>, process: Option<api_v2::Process>) -> Vec<u8> {
    api_v2::PostSpansRequest {
        batch: Some(api_v2::Batch { spans, process }),
    }
    .encode_to_vec()
}

fn span() -> Span {
    Span {
        trace_id: TraceId(0xabc << 64 | 1),
        span_id: SpanId(2),
        operation: "op".into(),
        references: vec![
            SpanRef {
                kind: RefType::ChildOf,
                trace_id: TraceId(0xabc << 64 | 1),
                span_id: SpanId(9),
            },
            SpanRef {
                kind: RefType::FollowsFrom,
                trace_id: TraceId(5),
                span_id: SpanId(6),
            },
        ],
        flags: 3,
        start: 1_700_000_000_123_456_789,
        duration: 5_000_000_001,
        tags: vec![
            Tag::string("s", "é"),
            Tag::bool("b", true),
            Tag {
                key: "i".into(),
                value: TagValue::Int64(i64::MIN),
            },
            Tag {
                key: "f".into(),
                value: TagValue::Float64(-0.5),
            },
            Tag {
                key: "x".into(),
                value: TagValue::Binary([0, 255].into()),
            },
            Tag::string("s", "again"),
        ],
        logs: vec![
            SpanLog {
                at: 17,
                fields: vec![Tag::string("event", "e")],
            },
            SpanLog {
                at: -1,
                fields: vec![],
            },
        ],
        process: Arc::new(Process {
            service: "svc".into(),
            tags: vec![Tag::string("ip", "10.1.2.3")],
        }),
        warnings: vec!["w".into()],
    }
}

fn marked(mut span: Span) -> Span {
    span.tags.push(Tag::string(FORMAT_TAG, "proto"));
    span
}

#[test]
fn a_span_survives_encoding_and_decoding() {
    let body = request(vec![span_message(&span())], None);
    assert_eq!(decode_post_spans(&body).unwrap().spans, [marked(span())]);
}

#[test]
fn a_spans_own_process_wins_and_equal_ones_are_shared() {
    let mut without = span_message(&span());
    without.process = None;
    let of_batch = api_v2::Process {
        service_name: "batch".into(),
        tags: vec![],
    };
    let body = request(
        vec![without, span_message(&span()), span_message(&span())],
        Some(of_batch),
    );
    let spans = decode_post_spans(&body).unwrap().spans;
    let services: Vec<&str> = spans.iter().map(|span| &*span.process.service).collect();
    assert_eq!(services, ["batch", "svc", "svc"]);
    assert!(Arc::ptr_eq(&spans[1].process, &spans[2].process));
}

#[test]
fn nameless_processes_get_jaegers_names() {
    let mut without = span_message(&span());
    without.process = None;
    let empty = Some(api_v2::Process::default());
    assert_eq!(
        &*decode_post_spans(&request(vec![without.clone()], None))
            .unwrap()
            .spans[0]
            .process
            .service,
        "null-process-and-service-name"
    );
    assert_eq!(
        &*decode_post_spans(&request(vec![without], empty))
            .unwrap()
            .spans[0]
            .process
            .service,
        "empty-service-name"
    );
}

#[test]
fn ids_of_8_bytes_are_traces_and_other_lengths_errors() {
    let mut message = span_message(&span());
    message.trace_id = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 7]);
    assert_eq!(
        decode_post_spans(&request(vec![message.clone()], None))
            .unwrap()
            .spans[0]
            .trace_id,
        TraceId(7)
    );
    message.trace_id = Bytes::from_static(&[1, 2, 3]);
    assert_eq!(
        decode_post_spans(&request(vec![message.clone()], None))
            .unwrap_err()
            .reason,
        "bad_id"
    );
    message.trace_id = trace_id_bytes(TraceId(1));
    message.span_id = Bytes::new();
    assert_eq!(
        decode_post_spans(&request(vec![message], None))
            .unwrap_err()
            .reason,
        "bad_id"
    );
}

#[test]
fn a_negative_duration_is_noted() {
    let mut message = span_message(&span());
    message.tags.clear();
    message.duration = Some(api_v2::Duration {
        seconds: -1,
        nanos: 0,
    });
    let spans = decode_post_spans(&request(vec![message], None))
        .unwrap()
        .spans;
    assert_eq!(spans[0].duration, 1);
    assert_eq!(&*spans[0].tags[0].key, "InvalidNegativeDuration");
}

#[test]
fn an_empty_request_holds_no_spans() {
    assert_eq!(decode_post_spans(b"").unwrap().spans, []);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = decode_post_spans(&bytes);
    }

    #[test]
    fn no_mutation_panics(at: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
        let mut body = request(vec![span_message(&span()), span_message(&span())], None);
        let index = at.index(body.len());
        body[index] = byte;
        let _ = decode_post_spans(&body);
        body.truncate(cut.index(body.len()));
        let _ = decode_post_spans(&body);
    }
}
