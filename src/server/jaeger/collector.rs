//! The collector: gRPC `PostSpans` on 14250, Thrift over HTTP on 14268.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tonic::Status;

use crate::ingest::refusal::RefusalKind;
use crate::protocol::wire::jaeger::api_v2::PostSpansResponse;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::media_type::media_type;
use crate::server::spans::{Rejection, SpanMetrics, SpanSink, Transport, accept};
use crate::server::{body, grpc};

use super::sampling::{self, Strategies};
use super::text_error;

/// Where the collector listens and what it takes; an empty address switches a port off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorOptions {
    pub grpc: String,
    pub http: String,
    /// Bytes of one gRPC message, decompressed. Jaeger's default.
    pub max_message_bytes: usize,
    /// Bytes of one HTTP body, decompressed.
    pub max_body_bytes: usize,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        Self {
            grpc: "0.0.0.0:14250".into(),
            http: "0.0.0.0:14268".into(),
            max_message_bytes: 4 << 20,
            max_body_bytes: 16 << 20,
        }
    }
}

struct Door<S> {
    sink: Arc<S>,
    metrics: SpanMetrics,
    limit: usize,
}

/// HTTP on 14268: spans, and the sampling strategies.
pub fn router<S: SpanSink>(
    sink: Arc<S>,
    metrics: SpanMetrics,
    strategies: Arc<Strategies>,
    options: &CollectorOptions,
) -> Router {
    let door = Arc::new(Door {
        sink,
        metrics,
        limit: options.max_body_bytes,
    });
    Router::new()
        .route("/api/traces", post(post_traces::<S>))
        .with_state(door)
        .merge(sampling::collector_router(strategies))
}

/// gRPC on 14250: `CollectorService` and `SamplingManager`.
pub fn service<S: SpanSink>(
    sink: Arc<S>,
    metrics: SpanMetrics,
    strategies: Arc<Strategies>,
    options: &CollectorOptions,
) -> Router {
    let door = Arc::new(Door {
        sink,
        metrics,
        limit: options.max_message_bytes,
    });
    Router::new()
        .route(
            "/jaeger.api_v2.CollectorService/PostSpans",
            any(post_spans::<S>),
        )
        .with_state(door)
        .route_service(
            "/jaeger.api_v2.SamplingManager/{*rest}",
            sampling::service(strategies),
        )
        .fallback(grpc::unimplemented)
}

async fn post_traces<S: SpanSink>(State(door): State<Arc<Door<S>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let refuse = |reason: &'static str, status: StatusCode, text: String| {
        door.metrics.malformed(Transport::JaegerHttp, reason);
        text_error(status, &text)
    };
    match media_type(&parts.headers).as_deref() {
        Ok("application/x-thrift" | "application/vnd.apache.thrift.binary") => {}
        Ok(other) => {
            let text = format!("Unsupported content type: {other}");
            return refuse("content_type", StatusCode::BAD_REQUEST, text);
        }
        Err(error) => {
            let text = format!("Cannot parse content type: {error}");
            return refuse("content_type", StatusCode::BAD_REQUEST, text);
        }
    }
    let body = match body::read(&parts.headers, body, door.limit).await {
        Ok(body) => body,
        Err(error) => {
            let status = match error {
                body::BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            let text = format!("Unable to process request body: {error}");
            return refuse(error.reason(), status, text);
        }
    };
    let format = SpanFormat::ThriftBinaryBatch;
    match door.accept(Transport::JaegerHttp, format, body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(Rejection::Malformed(error)) => text_error(
            StatusCode::BAD_REQUEST,
            &format!("Unable to process request body: {error}"),
        ),
        Err(Rejection::Refused(refusal)) => text_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("Cannot submit Jaeger batch: {refusal}"),
        ),
    }
}

async fn post_spans<S: SpanSink>(
    State(door): State<Arc<Door<S>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    let answer = |body| {
        let door = door.clone();
        async move {
            match door
                .accept(Transport::JaegerGrpc, SpanFormat::JaegerProtoRequest, body)
                .await
            {
                Ok(()) => Ok(PostSpansResponse {}),
                Err(rejection) => Err(grpc_status(&rejection)),
            }
        }
    };
    grpc::unary_or(request, door.limit, answer, |reason| {
        door.metrics.malformed(Transport::JaegerGrpc, reason);
    })
    .await
}

impl<S: SpanSink> Door<S> {
    async fn accept(
        &self,
        transport: Transport,
        format: SpanFormat,
        body: Bytes,
    ) -> Result<(), Rejection> {
        let decoded = decode_spans(format, &body);
        accept(&*self.sink, &self.metrics, transport, decoded, format, body).await
    }
}

/// Jaeger's word for "busy" is RESOURCE_EXHAUSTED.
fn grpc_status(rejection: &Rejection) -> Status {
    let message = rejection.message();
    match rejection.kind() {
        RefusalKind::Invalid => Status::invalid_argument(message),
        RefusalKind::Limited | RefusalKind::TooLarge | RefusalKind::Unavailable => {
            Status::resource_exhausted(message)
        }
    }
}

#[cfg(test)]
mod tests;
