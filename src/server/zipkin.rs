//! Zipkin's collector: POST `/api/v1/spans` and `/api/v2/spans` on 9411.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use tower_http::cors::{Any, CorsLayer};

use crate::ingest::refusal::RefusalKind;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::body;
use crate::server::jaeger::text_error;
use crate::server::media_type::media_type;
use crate::server::spans::{Rejection, SpanMetrics, SpanSink, Transport, accept};

/// What the door takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZipkinOptions {
    /// Bytes of one body, decompressed.
    pub max_body_bytes: usize,
}

impl Default for ZipkinOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 << 20,
        }
    }
}

struct Door<S> {
    sink: Arc<S>,
    metrics: SpanMetrics,
    limit: usize,
}

/// Spans of both versions. Browsers may send them from any page, as to Jaeger's collector.
pub fn router<S: SpanSink>(sink: Arc<S>, metrics: SpanMetrics, options: &ZipkinOptions) -> Router {
    let door = Arc::new(Door {
        sink,
        metrics,
        limit: options.max_body_bytes,
    });
    let browsers = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::POST])
        .allow_headers([CONTENT_TYPE]);
    Router::new()
        .route("/api/v1/spans", post(post_v1::<S>))
        .route("/api/v2/spans", post(post_v2::<S>))
        .with_state(door)
        .layer(browsers)
}

async fn post_v1<S: SpanSink>(door: State<Arc<Door<S>>>, request: Request) -> Response {
    take(door, request, |media_type| match media_type {
        "application/json" => Some(SpanFormat::ZipkinJsonV1),
        "application/x-thrift" | "application/vnd.apache.thrift.binary" => {
            Some(SpanFormat::ZipkinThrift)
        }
        _ => None,
    })
    .await
}

async fn post_v2<S: SpanSink>(door: State<Arc<Door<S>>>, request: Request) -> Response {
    take(door, request, |media_type| match media_type {
        "application/json" => Some(SpanFormat::ZipkinJsonV2),
        "application/x-protobuf" | "application/protobuf" => Some(SpanFormat::ZipkinProto),
        _ => None,
    })
    .await
}

async fn take<S: SpanSink>(
    State(door): State<Arc<Door<S>>>,
    request: Request,
    format_of: fn(&str) -> Option<SpanFormat>,
) -> Response {
    let (parts, body) = request.into_parts();
    let refuse = |reason: &'static str, status: StatusCode, text: String| {
        door.metrics.malformed(Transport::ZipkinHttp, reason);
        text_error(status, &text)
    };
    let format = match media_type(&parts.headers) {
        Ok(media_type) => format_of(&media_type),
        Err(error) => {
            let text = format!("Cannot parse Content-Type: {error}");
            return refuse("content_type", StatusCode::BAD_REQUEST, text);
        }
    };
    let Some(format) = format else {
        let text = "Unsupported Content-Type".to_owned();
        return refuse("content_type", StatusCode::BAD_REQUEST, text);
    };
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
    let decoded = decode_spans(format, &body);
    let transport = Transport::ZipkinHttp;
    match accept(&*door.sink, &door.metrics, transport, decoded, format, body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(Rejection::Malformed(error)) => text_error(
            StatusCode::BAD_REQUEST,
            &format!("Unable to process request body: {error}"),
        ),
        Err(Rejection::Refused(refusal)) => {
            let status = match refusal.kind {
                RefusalKind::Invalid => StatusCode::BAD_REQUEST,
                RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                // Zipkin's senders repeat on none of them; Jaeger's answer is 500.
                RefusalKind::Limited | RefusalKind::Unavailable => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            };
            text_error(status, &format!("Cannot submit Zipkin batch: {refusal}"))
        }
    }
}

#[cfg(test)]
mod tests;
