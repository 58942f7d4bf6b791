use std::net::SocketAddr;

use super::*;
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::server::grpc::otlp::trace_service_client::TraceServiceClient;
use crate::server::spans::memory::{Memory, channel, fixture, gzip, metrics, send, serve, sink};

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

fn options() -> OtlpOptions {
    OtlpOptions {
        max_body_bytes: 10_000,
        ..Default::default()
    }
}

async fn http() -> (SocketAddr, Arc<Memory>) {
    let sink = sink();
    (
        serve(router(sink.clone(), metrics().1, &options())).await,
        sink,
    )
}

async fn grpc() -> (TraceServiceClient<tonic::transport::Channel>, Arc<Memory>) {
    let sink = sink();
    let address = serve(service(sink.clone(), metrics().1, &options())).await;
    (TraceServiceClient::new(channel(address).await), sink)
}

fn request() -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&fixture("captured/pyotlp-plain.bin")[..]).unwrap()
}

#[tokio::test]
async fn each_encoding_is_answered_in_its_own() {
    let (address, sink) = http().await;
    let proto = send(
        address,
        "POST",
        "/v1/traces",
        &[PROTO],
        fixture("captured/pyotlp-plain.bin"),
    )
    .await;
    assert_eq!(
        (proto.status, proto.header("content-type")),
        (200, "application/x-protobuf")
    );
    assert_eq!(
        ExportTraceServiceResponse::decode(proto.body.clone()),
        Ok(Default::default())
    );
    assert_eq!(
        (sink.only().0.len(), sink.only().1),
        (3, SpanFormat::OtlpProto)
    );

    let (address, sink) = http().await;
    let body = fixture("captured/nodeotel-otlp-json.bin");
    let json_charset = [("content-type", "application/json;charset=utf-8")];
    let json = send(address, "POST", "/v1/traces", &json_charset, body).await;
    assert_eq!(
        (json.status, json.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(json.text(), r#"{"partialSuccess":{}}"#);
    assert_eq!(
        (sink.only().0.len(), sink.only().1),
        (2, SpanFormat::OtlpJson)
    );
}

#[tokio::test]
async fn gzip_is_taken_up_to_the_limit() {
    let (address, sink) = http().await;
    let headers = [PROTO, ("content-encoding", "gzip")];
    let body = gzip(&fixture("captured/pyotlp-plain.bin"));
    assert_eq!(
        send(address, "POST", "/v1/traces", &headers, body)
            .await
            .status,
        200
    );
    assert_eq!(sink.only().0.len(), 3);
    let bomb = send(address, "POST", "/v1/traces", &headers, gzip(&[0; 20_000])).await;
    assert_eq!(bomb.status, 413);
    assert_eq!(RpcStatus::decode(bomb.body.clone()).unwrap().code, 8);
}

#[tokio::test]
async fn errors_are_statuses_in_the_requests_encoding() {
    let (address, sink) = http().await;
    let json = send(address, "POST", "/v1/traces", &[JSON], "{").await;
    assert_eq!(
        (json.status, json.header("content-type")),
        (400, "application/json")
    );
    assert_eq!(json.json()["code"], 3);
    let proto = send(address, "POST", "/v1/traces", &[PROTO], &b"\xff"[..]).await;
    assert_eq!(
        (
            proto.status,
            RpcStatus::decode(proto.body.clone()).unwrap().code
        ),
        (400, 3)
    );
    assert_eq!(
        send(
            address,
            "POST",
            "/v1/traces",
            &[("content-type", "text/plain")],
            ""
        )
        .await
        .status,
        415
    );
    assert_eq!(
        send(
            address,
            "POST",
            "/v1/traces",
            &[JSON, ("content-encoding", "br")],
            ""
        )
        .await
        .status,
        415
    );
    assert_eq!(
        send(address, "GET", "/v1/traces", &[], "").await.status,
        405
    );
    assert_eq!(
        send(address, "POST", "/v1/metrics", &[JSON], "{}")
            .await
            .status,
        404
    );
    assert!(sink.spans().is_empty());
}

#[tokio::test]
async fn overload_asks_to_come_back() {
    let (address, sink) = http().await;
    for (kind, status) in [(RefusalKind::Unavailable, 503), (RefusalKind::Limited, 429)] {
        sink.refuse(kind);
        let body = fixture("captured/pyotlp-plain.bin");
        let answer = send(address, "POST", "/v1/traces", &[PROTO], body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, "1"));
        assert_eq!(
            RpcStatus::decode(answer.body.clone()).unwrap().message,
            "no room"
        );
    }
}

#[tokio::test]
async fn spans_without_ids_are_a_partial_success() {
    let mut mixed = request();
    mixed.resource_spans[0].scope_spans[0].spans[1].span_id = Bytes::new();
    let (address, sink) = http().await;
    let answer = send(
        address,
        "POST",
        "/v1/traces",
        &[PROTO],
        mixed.encode_to_vec(),
    )
    .await;
    let partial = ExportTraceServiceResponse::decode(answer.body.clone())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!((answer.status, partial.rejected_spans), (200, 1));
    assert!(
        partial.error_message.contains("empty span id"),
        "{}",
        partial.error_message
    );
    assert_eq!(sink.only().0.len(), 2);

    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"","spanId":""}]}]}]}"#;
    let answer = send(address, "POST", "/v1/traces", &[JSON], body).await;
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "1");

    let (mut client, sink) = grpc().await;
    let partial = client
        .export(mixed)
        .await
        .unwrap()
        .into_inner()
        .partial_success
        .unwrap();
    assert_eq!((partial.rejected_spans, sink.only().0.len()), (1, 2));
}

#[tokio::test]
async fn export_over_grpc_takes_plain_gzip_and_zstd() {
    for compression in [
        None,
        Some(tonic::codec::CompressionEncoding::Gzip),
        Some(tonic::codec::CompressionEncoding::Zstd),
    ] {
        let (mut client, sink) = grpc().await;
        if let Some(compression) = compression {
            client = client.send_compressed(compression);
        }
        let answer = client.export(request()).await.unwrap().into_inner();
        assert_eq!(answer, ExportTraceServiceResponse::default());
        assert_eq!(
            (sink.only().0.len(), sink.only().1),
            (3, SpanFormat::OtlpProto)
        );
    }
}

#[tokio::test]
async fn export_over_grpc_answers_errors_with_their_codes() {
    let (mut client, sink) = grpc().await;
    for (kind, code) in [
        (RefusalKind::Unavailable, tonic::Code::Unavailable),
        (RefusalKind::Limited, tonic::Code::Unavailable),
        (RefusalKind::TooLarge, tonic::Code::ResourceExhausted),
        (RefusalKind::Invalid, tonic::Code::InvalidArgument),
    ] {
        sink.refuse(kind);
        assert_eq!(client.export(request()).await.unwrap_err().code(), code);
    }
    let mut large = request();
    large.resource_spans[0].schema_url = "x".repeat(20_000);
    assert_eq!(
        client.export(large.clone()).await.unwrap_err().code(),
        tonic::Code::OutOfRange
    );
    let mut client = client.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    assert_eq!(
        client.export(large).await.unwrap_err().code(),
        tonic::Code::ResourceExhausted
    );
}

#[tokio::test]
async fn what_is_taken_and_refused_is_counted() {
    let (metrics, counters) = metrics();
    let address = serve(router(sink(), counters, &options())).await;
    let body = fixture("captured/pyotlp-plain.bin");
    send(address, "POST", "/v1/traces", &[PROTO], body).await;
    send(address, "POST", "/v1/traces", &[JSON], "{").await;
    let text = metrics.render();
    for line in [
        r#"watchpost_spans_accepted_total{transport="otlp_http"} 3"#,
        r#"watchpost_span_messages_accepted_total{transport="otlp_http"} 1"#,
        r#"watchpost_span_messages_refused_total{transport="otlp_http",reason="malformed"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
