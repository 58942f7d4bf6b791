//! OTLP's doors for traces: gRPC on 4317, HTTP on 4318. Those for logs are in `logs.rs`;
//! other signals are not here, and are answered so.

pub mod logs;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use prost::Message;
use serde::Deserialize;
use tonic::Status;

use crate::ingest::refusal::RefusalKind;
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use crate::protocol::{SpanFormat, otlp};
use crate::server::body::{self, BodyError};
use crate::server::grpc;
use crate::server::media_type::media_type;
use crate::server::spans::{Rejection, SpanMetrics, SpanSink, Transport, accept};

/// Where OTLP is served and what is taken; an empty address switches a port off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpOptions {
    pub grpc: String,
    pub http: String,
    /// Bytes of one message or body, decompressed.
    pub max_body_bytes: usize,
}

impl Default for OtlpOptions {
    fn default() -> Self {
        Self {
            grpc: "0.0.0.0:4317".into(),
            http: "0.0.0.0:4318".into(),
            max_body_bytes: 16 << 20,
        }
    }
}

/// Seconds after which a refused sender is asked to try again.
const RETRY_SECONDS: &str = "1";

struct Door<S> {
    sink: Arc<S>,
    metrics: SpanMetrics,
    limit: usize,
    /// How exports over gRPC are counted and decoded.
    grpc: (Transport, SpanFormat),
}

/// gRPC on 4317.
pub fn service<S: SpanSink>(sink: Arc<S>, metrics: SpanMetrics, options: &OtlpOptions) -> Router {
    let door = Door {
        sink,
        metrics,
        limit: options.max_body_bytes,
        grpc: (Transport::OtlpGrpc, SpanFormat::OtlpProto),
    };
    export_router(door).fallback(grpc::unimplemented)
}

/// The same for a Jaeger 2 that keeps its spans here.
pub fn storage_router<S: SpanSink>(sink: Arc<S>, metrics: SpanMetrics, limit: usize) -> Router {
    export_router(Door {
        sink,
        metrics,
        limit,
        grpc: (Transport::StorageOtlp, SpanFormat::StorageOtlp),
    })
}

fn export_router<S: SpanSink>(door: Door<S>) -> Router {
    Router::new()
        .route(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            any(export_grpc::<S>),
        )
        .with_state(Arc::new(door))
}

/// HTTP on 4318.
pub fn router<S: SpanSink>(sink: Arc<S>, metrics: SpanMetrics, options: &OtlpOptions) -> Router {
    let door = Arc::new(Door {
        sink,
        metrics,
        limit: options.max_body_bytes,
        grpc: (Transport::OtlpGrpc, SpanFormat::OtlpProto),
    });
    Router::new()
        .route("/v1/traces", post(export_http::<S>))
        .with_state(door)
}

impl<S: SpanSink> Door<S> {
    /// Keeps the valid spans of an export; the answer says how many were not.
    async fn export(
        &self,
        transport: Transport,
        format: SpanFormat,
        body: Bytes,
    ) -> Result<ExportTraceServiceResponse, Rejection> {
        let decoded = match format {
            SpanFormat::OtlpJson => otlp::decode_json(&body),
            SpanFormat::StorageOtlp => otlp::decode_stored(&body),
            _ => otlp::decode_proto(&body),
        };
        let (decoded, rejected, message) = match decoded {
            Ok(export) => (Ok(export.batch), export.rejected, export.message),
            Err(error) => (Err(error), 0, String::new()),
        };
        accept(&*self.sink, &self.metrics, transport, decoded, format, body).await?;
        if rejected == 0 {
            return Ok(ExportTraceServiceResponse::default());
        }
        self.metrics.refused_spans(transport, "bad_id", rejected);
        Ok(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
                error_message: message,
            }),
        })
    }
}

async fn export_grpc<S: SpanSink>(
    State(door): State<Arc<Door<S>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    let answer = |body| {
        let door = door.clone();
        async move {
            let (transport, format) = door.grpc;
            door.export(transport, format, body)
                .await
                .map_err(|rejection| grpc_status(&rejection))
        }
    };
    grpc::unary_or(request, door.limit, answer, |reason| {
        door.metrics.malformed(Transport::OtlpGrpc, reason);
    })
    .await
}

/// Senders repeat what is UNAVAILABLE; RESOURCE_EXHAUSTED they give up.
fn grpc_status(rejection: &Rejection) -> Status {
    let message = rejection.message();
    match rejection.kind() {
        RefusalKind::Invalid => Status::invalid_argument(message),
        RefusalKind::TooLarge => Status::resource_exhausted(message),
        RefusalKind::Limited | RefusalKind::Unavailable => Status::unavailable(message),
    }
}

/// The encoding of a request, and so of its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Proto,
    Json,
}

impl Encoding {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Proto => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    fn format(self) -> SpanFormat {
        match self {
            Self::Proto => SpanFormat::OtlpProto,
            Self::Json => SpanFormat::OtlpJson,
        }
    }
}

async fn export_http<S: SpanSink>(State(door): State<Arc<Door<S>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = match media_type(&parts.headers).as_deref() {
        Ok("application/x-protobuf") => Encoding::Proto,
        Ok("application/json") => Encoding::Json,
        _ => {
            door.metrics.malformed(Transport::OtlpHttp, "content_type");
            let text = "unsupported content type; use application/x-protobuf or application/json\n";
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
        }
    };
    let body = match body::read(&parts.headers, body, door.limit).await {
        Ok(body) => body,
        Err(error) => {
            door.metrics.malformed(Transport::OtlpHttp, error.reason());
            let status = match error {
                BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::UnknownEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                BodyError::BadGzip(_) | BodyError::Interrupted(_) => StatusCode::BAD_REQUEST,
            };
            return http_error(encoding, status, &error.to_string());
        }
    };
    match door
        .export(Transport::OtlpHttp, encoding.format(), body)
        .await
    {
        Ok(response) => {
            let body = match encoding {
                Encoding::Proto => response.encode_to_vec(),
                Encoding::Json => success_json(&response).into_bytes(),
            };
            ([(CONTENT_TYPE, encoding.content_type())], body).into_response()
        }
        Err(rejection) => {
            let status = match rejection.kind() {
                RefusalKind::Invalid => StatusCode::BAD_REQUEST,
                RefusalKind::Limited => StatusCode::TOO_MANY_REQUESTS,
                RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            };
            http_error(encoding, status, rejection.message())
        }
    }
}

fn success_json(response: &ExportTraceServiceResponse) -> String {
    let partial = match &response.partial_success {
        None => serde_json::json!({}),
        Some(partial) => serde_json::json!({
            "rejectedSpans": partial.rejected_spans.to_string(),
            "errorMessage": partial.error_message,
        }),
    };
    serde_json::json!({ "partialSuccess": partial }).to_string()
}

/// `google.rpc.Status`, which OTLP sends as the body of an error.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

fn http_error(encoding: Encoding, status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => {
            tonic::Code::ResourceExhausted
        }
        StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        status if status.is_server_error() => tonic::Code::Internal,
        _ => tonic::Code::InvalidArgument,
    };
    let rpc = RpcStatus {
        code: code as i32,
        message: message.into(),
    };
    let body = match encoding {
        Encoding::Proto => rpc.encode_to_vec(),
        Encoding::Json => serde_json::json!({"code": rpc.code, "message": rpc.message})
            .to_string()
            .into_bytes(),
    };
    let mut response = (status, [(CONTENT_TYPE, encoding.content_type())], body).into_response();
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    response
}

#[cfg(test)]
mod tests;
