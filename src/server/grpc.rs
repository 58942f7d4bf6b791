//! gRPC services generated from `proto/`, and calls that keep the message's own bytes.
//!
//! A door needs the bytes twice: to decode them into the model, and for the
//! journal. So it takes no generated message.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::{Buf, Bytes};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status};

/// Jaeger's services in its own model.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod jaeger {
    include!(concat!(env!("OUT_DIR"), "/services/jaeger.api_v2.rs"));
}

/// Jaeger's service for figures of services.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod jaeger_metrics {
    include!(concat!(
        env!("OUT_DIR"),
        "/services/jaeger.api_v2.metrics.rs"
    ));
}

/// Jaeger's query service in OTLP's model.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod jaeger_v3 {
    include!(concat!(env!("OUT_DIR"), "/services/jaeger.api_v3.rs"));
}

/// Jaeger's remote storage, version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod storage_v1 {
    include!(concat!(env!("OUT_DIR"), "/services/jaeger.storage.v1.rs"));
}

/// Jaeger's remote storage, version 2.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod storage_v2 {
    include!(concat!(env!("OUT_DIR"), "/services/jaeger.storage.v2.rs"));
}

/// OTLP's trace service.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod otlp {
    include!(concat!(
        env!("OUT_DIR"),
        "/services/opentelemetry.proto.collector.trace.v1.rs"
    ));
}

/// OTLP's logs service.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod otlp_logs {
    include!(concat!(
        env!("OUT_DIR"),
        "/services/opentelemetry.proto.collector.logs.v1.rs"
    ));
}

/// Answers a unary call whose request is handed on as bytes, decompressed.
/// `limit` bounds the message as sent and as decompressed.
pub async fn unary<R, F>(
    request: http::Request<Body>,
    limit: usize,
    answer: impl Fn(Bytes) -> F,
) -> http::Response<tonic::body::Body>
where
    R: prost::Message + 'static,
    F: Future<Output = Result<R, Status>>,
{
    let service = tower::service_fn(|request: Request<Bytes>| {
        let answer = answer(request.into_inner());
        async { answer.await.map(Response::new) }
    });
    tonic::server::Grpc::new(RawCodec::<R>(PhantomData))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
        .unary(service, request)
        .await
}

/// The same; `unread` is told why a message was refused before it could be answered for.
pub async fn unary_or<R, F>(
    request: http::Request<Body>,
    limit: usize,
    answer: impl Fn(Bytes) -> F,
    unread: impl FnOnce(&'static str),
) -> http::Response<tonic::body::Body>
where
    R: prost::Message + 'static,
    F: Future<Output = Result<R, Status>>,
{
    let read = AtomicBool::new(false);
    let response = unary(request, limit, |body| {
        read.store(true, Ordering::Relaxed);
        answer(body)
    })
    .await;
    if !read.load(Ordering::Relaxed) {
        let status = Status::from_header_map(response.headers());
        unread(match status.map(|status| status.code()) {
            Some(Code::OutOfRange | Code::ResourceExhausted) => "too_large",
            Some(Code::Unimplemented) => "encoding",
            _ => "interrupted",
        });
    }
    response
}

/// Answers a call whose requests are a stream, handed on as bytes; as [`unary`] otherwise.
pub async fn client_streaming<R, F>(
    request: http::Request<Body>,
    limit: usize,
    answer: impl Fn(tonic::Streaming<Bytes>) -> F,
) -> http::Response<tonic::body::Body>
where
    R: prost::Message + 'static,
    F: Future<Output = Result<R, Status>> + Send + 'static,
{
    let service = tower::service_fn(|request: Request<tonic::Streaming<Bytes>>| {
        let answer = answer(request.into_inner());
        async { answer.await.map(Response::new) }
    });
    tonic::server::Grpc::new(RawCodec::<R>(PhantomData))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
        .client_streaming(service, request)
        .await
}

/// Answers calls of services and methods that are not here.
pub async fn unimplemented() -> Result<impl IntoResponse, Infallible> {
    Ok(Status::unimplemented("unknown service or method").into_http::<Body>())
}

/// Requests as they are, answers as protobuf.
struct RawCodec<R>(PhantomData<fn(R)>);

impl<R: prost::Message + 'static> Codec for RawCodec<R> {
    type Encode = R;
    type Decode = Bytes;
    type Encoder = AnswerEncoder<R>;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        AnswerEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

struct AnswerEncoder<R>(PhantomData<fn(R)>);

impl<R: prost::Message> Encoder for AnswerEncoder<R> {
    type Item = R;
    type Error = Status;

    fn encode(&mut self, item: R, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
