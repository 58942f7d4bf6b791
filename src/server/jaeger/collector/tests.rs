use prost::Message;

use super::*;
use crate::protocol::jaeger::proto::{process_message, span_message};
use crate::protocol::wire::jaeger::api_v2;
use crate::server::grpc::jaeger::collector_service_client::CollectorServiceClient;
use crate::server::spans::memory::{Memory, channel, fixture, gzip, metrics, send, serve, sink};
use std::net::SocketAddr;

const THRIFT: (&str, &str) = ("content-type", "application/x-thrift");

fn strategies() -> Arc<Strategies> {
    Arc::new(Strategies::Default)
}

async fn http() -> (SocketAddr, Arc<Memory>) {
    let sink = sink();
    let options = CollectorOptions {
        max_body_bytes: 10_000,
        ..Default::default()
    };
    let address = serve(router(sink.clone(), metrics().1, strategies(), &options)).await;
    (address, sink)
}

async fn grpc() -> (
    CollectorServiceClient<tonic::transport::Channel>,
    Arc<Memory>,
) {
    let sink = sink();
    let options = CollectorOptions {
        max_message_bytes: 10_000,
        ..Default::default()
    };
    let address = serve(service(sink.clone(), metrics().1, strategies(), &options)).await;
    (CollectorServiceClient::new(channel(address).await), sink)
}

#[tokio::test]
async fn clients_over_http_get_202_and_nothing_else() {
    for (path, headers) in [
        ("/api/traces", vec![THRIFT]),
        (
            "/api/traces?format=jaeger.thrift",
            vec![("content-type", "application/vnd.apache.thrift.binary")],
        ),
        (
            "/api/traces",
            vec![
                ("content-type", "application/x-thrift; charset=utf-8"),
                ("authorization", "Basic eDp5"),
            ],
        ),
    ] {
        let (address, sink) = http().await;
        let answer = send(
            address,
            "POST",
            path,
            &headers,
            fixture("captured/go-http.bin"),
        )
        .await;
        assert_eq!((answer.status, answer.text()), (202, ""));
        let (spans, format) = sink.only();
        assert_eq!(format, SpanFormat::ThriftBinaryBatch);
        assert!(
            spans[0]
                .tags
                .iter()
                .any(|tag| &*tag.key == "internal.span.format")
        );
    }
}

#[tokio::test]
async fn gzip_is_taken_up_to_the_limit() {
    let (address, sink) = http().await;
    let headers = [THRIFT, ("content-encoding", "gzip")];
    let answer = send(
        address,
        "POST",
        "/api/traces",
        &headers,
        gzip(&fixture("captured/node-http.bin")),
    )
    .await;
    assert_eq!(answer.status, 202);
    assert_eq!(sink.only().1, SpanFormat::ThriftBinaryBatch);
    let bomb = send(address, "POST", "/api/traces", &headers, gzip(&[0; 20_000])).await;
    assert_eq!(bomb.status, 413);
    let large = send(address, "POST", "/api/traces", &[THRIFT], vec![0; 20_000]).await;
    assert_eq!(large.status, 413);
}

#[tokio::test]
async fn errors_over_http_are_jaegers() {
    let (address, sink) = http().await;
    let post = |headers: Vec<(&'static str, &'static str)>, body: Vec<u8>| async move {
        let answer = send(address, "POST", "/api/traces", &headers, body).await;
        (answer.status, answer.text().to_owned())
    };
    assert_eq!(
        post(vec![], vec![]).await,
        (
            400,
            "Cannot parse content type: mime: no media type\n".into()
        )
    );
    assert_eq!(
        post(vec![("content-type", "application/json")], vec![]).await,
        (400, "Unsupported content type: application/json\n".into())
    );
    let (status, text) = post(vec![THRIFT], b"nonsense".to_vec()).await;
    assert!(
        status == 400 && text.starts_with("Unable to process request body: "),
        "{text}"
    );
    assert_eq!(
        send(address, "GET", "/api/traces", &[], "").await.status,
        405
    );
    sink.refuse(RefusalKind::Unavailable);
    assert_eq!(
        post(vec![THRIFT], fixture("captured/go-http.bin")).await,
        (500, "Cannot submit Jaeger batch: no room\n".into())
    );
    assert!(sink.spans().is_empty());
}

#[tokio::test]
async fn sampling_is_answered_on_both_ports() {
    let (address, _) = http().await;
    let answer = send(address, "GET", "/api/sampling?service=a", &[], "").await;
    assert_eq!(answer.json()["strategyType"], "PROBABILISTIC");
}

/// The captured spans as an agent would forward them.
fn request() -> api_v2::PostSpansRequest {
    let batch = decode_spans(
        SpanFormat::ThriftCompactMessage,
        &fixture("captured/py-udp.bin"),
    )
    .unwrap();
    let process = Some(process_message(&batch.spans[0].process));
    let mut spans: Vec<_> = batch.spans.iter().map(span_message).collect();
    for span in &mut spans {
        span.process = None;
        span.tags.pop();
    }
    api_v2::PostSpansRequest {
        batch: Some(api_v2::Batch { spans, process }),
    }
}

#[tokio::test]
async fn post_spans_hands_on_the_message_as_it_was_sent() {
    let (mut client, sink) = grpc().await;
    client.post_spans(request()).await.unwrap();
    let (spans, format) = sink.only();
    assert_eq!(format, SpanFormat::JaegerProtoRequest);
    assert_eq!(sink.received.lock()[0].2, request().encode_to_vec());
    let by_udp = decode_spans(
        SpanFormat::ThriftCompactMessage,
        &fixture("captured/py-udp.bin"),
    )
    .unwrap();
    assert_eq!(spans, by_udp.spans);
}

#[tokio::test]
async fn post_spans_takes_gzip() {
    let (client, sink) = grpc().await;
    let mut client = client.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    client.post_spans(request()).await.unwrap();
    assert_eq!(sink.only().0.len(), 2);
}

#[tokio::test]
async fn post_spans_answers_errors_with_their_codes() {
    let (mut client, sink) = grpc().await;
    let mut bad = request();
    bad.batch.as_mut().unwrap().spans[0].trace_id = Bytes::from_static(b"abc");
    let status = client.post_spans(bad).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "a trace id has 3 bytes instead of 16");

    sink.refuse(RefusalKind::Unavailable);
    let status = client.post_spans(request()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::ResourceExhausted, "no room")
    );

    let mut large = request();
    large.batch.as_mut().unwrap().spans[0].operation_name = "x".repeat(20_000);
    assert_eq!(
        client.post_spans(large).await.unwrap_err().code(),
        tonic::Code::OutOfRange
    );
    assert!(sink.spans().is_empty());
}

#[tokio::test]
async fn other_services_are_unimplemented() {
    let options = CollectorOptions::default();
    let address = serve(service(sink(), metrics().1, strategies(), &options)).await;
    let mut client = crate::server::grpc::otlp::trace_service_client::TraceServiceClient::new(
        channel(address).await,
    );
    assert_eq!(client.export(
        crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest::default()
    ).await.unwrap_err().code(), tonic::Code::Unimplemented);
}
