//! OTLP's doors for logs: `/otlp/v1/logs` on Loki's port, `/v1/logs` on 4318, gRPC on 4317.
//!
//! All of them are Loki's pushes in another body: the same memory, limits, journal and
//! refusals. Loki's door answers as Loki's (204, or the push is refused with what was wrong
//! in it), the other two as OTLP asks (what was not taken is a partial success).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message;
use tonic::Status;

use super::{Encoding, RpcStatus, http_error};
use crate::ingest::{LogSink, RefusalKind, Taken, error_text};
use crate::protocol::loki::push::{Coding, PushFormat};
use crate::protocol::wire::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use crate::server::error::LokiError;
use crate::server::grpc;
use crate::server::loki::{Api, LogReader, push, tenant};
use crate::server::media_type::media_type;
use crate::telemetry::metrics::{Counter, Family, Metrics};

type ByDoor = [(&'static str, &'static str); 1];
type ByReason = [(&'static str, &'static str); 2];

/// Counters of the three doors; lines are counted by ingest, as those of all pushes.
#[derive(Clone)]
pub struct LogsMetrics {
    messages: Family<ByDoor, Counter>,
    refused: Family<ByReason, Counter>,
}

impl LogsMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            messages: metrics.register(
                "otlp_log_messages_accepted",
                "Exports of logs taken, wholly or in part, by transport",
                Family::default(),
            ),
            refused: metrics.register(
                "otlp_log_messages_refused",
                "Exports of logs not taken: malformed, too large, over a limit, or no room",
                Family::default(),
            ),
        }
    }
}

struct Door<S, R> {
    api: Arc<Api<S, R>>,
    metrics: LogsMetrics,
    transport: &'static str,
    /// Bytes of a gRPC message.
    limit: usize,
}

/// For Loki's port.
pub fn loki_router<S: LogSink, R: LogReader>(api: Arc<Api<S, R>>, metrics: LogsMetrics) -> Router {
    Router::new()
        .route("/otlp/v1/logs", post(export_to_loki::<S, R>))
        .with_state(door(api, metrics, "loki_http", 0))
}

/// HTTP on 4318.
pub fn router<S: LogSink, R: LogReader>(api: Arc<Api<S, R>>, metrics: LogsMetrics) -> Router {
    Router::new()
        .route("/v1/logs", post(export_http::<S, R>))
        .with_state(door(api, metrics, "otlp_http", 0))
}

/// gRPC on 4317. `limit`: bytes of a message, decompressed.
pub fn service<S: LogSink, R: LogReader>(
    api: Arc<Api<S, R>>,
    metrics: LogsMetrics,
    limit: usize,
) -> Router {
    Router::new()
        .route(
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            any(export_grpc::<S, R>),
        )
        .with_state(door(api, metrics, "otlp_grpc", limit))
}

fn door<S, R>(
    api: Arc<Api<S, R>>,
    metrics: LogsMetrics,
    transport: &'static str,
    limit: usize,
) -> Arc<Door<S, R>> {
    Arc::new(Door {
        api,
        metrics,
        transport,
        limit,
    })
}

impl<S: LogSink, R: LogReader> Door<S, R> {
    async fn take_request(&self, request: Request) -> Result<Taken, LokiError> {
        let tenant = tenant(&self.api.options, request.headers())?;
        let (format, coding) = (format_of(request.headers())?, coding_of(request.headers())?);
        // Held until the push is acknowledged.
        let (body, _body_memory) = push::read_body(&self.api, request).await?;
        push::take(&self.api, tenant, format, coding, body).await
    }

    /// Counts what became of an export, of which a limit may have refused a part: then it is
    /// worth sending again as a whole, since what is stored is recognised.
    fn count(&self, taken: Result<Taken, LokiError>) -> Result<Taken, LokiError> {
        let result = taken.and_then(|taken| {
            let limited = taken
                .refusals
                .iter()
                .any(|refusal| refusal.kind == RefusalKind::Limited);
            match LokiError::of_refusals(&taken.refusals) {
                Some(error) if limited => Err(error),
                _ => Ok(taken),
            }
        });
        match &result {
            Ok(_) => self
                .metrics
                .messages
                .get_or_create(&[("transport", self.transport)])
                .inc(),
            Err(error) => self
                .metrics
                .refused
                .get_or_create(&[
                    ("transport", self.transport),
                    ("reason", reason(error.status())),
                ])
                .inc(),
        };
        result
    }
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNPROCESSABLE_ENTITY => "empty",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "content_type",
        StatusCode::TOO_MANY_REQUESTS => "limited",
        StatusCode::UNAUTHORIZED => "no_tenant",
        status if status.is_server_error() => "unavailable",
        _ => "malformed",
    }
}

fn format_of(headers: &HeaderMap) -> Result<PushFormat, LokiError> {
    match media_type(headers).as_deref() {
        Ok("application/x-protobuf") => Ok(PushFormat::OtlpProto),
        Ok("application/json") => Ok(PushFormat::OtlpJson),
        _ => Err(LokiError::unsupported(
            "unsupported content type; use application/x-protobuf or application/json",
        )),
    }
}

fn coding_of(headers: &HeaderMap) -> Result<Coding, LokiError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else {
        return Ok(Coding::Identity);
    };
    match value.as_bytes().to_ascii_lowercase().as_slice() {
        b"" | b"identity" => Ok(Coding::Identity),
        b"gzip" => Ok(Coding::Gzip),
        b"zstd" => Ok(Coding::Zstd),
        _ => Err(LokiError::unsupported(format!(
            "content encoding {value:?} is not supported; use gzip, zstd or none"
        ))),
    }
}

/// Answers as Loki: errors are a `google.rpc.Status` in protobuf, whatever came in.
async fn export_to_loki<S: LogSink, R: LogReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: Request,
) -> Response {
    let taken = door.count(door.take_request(request).await);
    let error = match taken {
        Ok(taken) => match LokiError::of_refusals(&taken.refusals) {
            None => return StatusCode::NO_CONTENT.into_response(),
            Some(error) => error,
        },
        Err(error) => error,
    };
    let status = match error.status() {
        // Senders repeat 503, and give up 500.
        StatusCode::INTERNAL_SERVER_ERROR => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    };
    let body = RpcStatus {
        code: 0,
        message: error.text().trim_end().to_owned(),
    };
    let octets = HeaderValue::from_static("application/octet-stream");
    (status, [(CONTENT_TYPE, octets)], body.encode_to_vec()).into_response()
}

async fn export_http<S: LogSink, R: LogReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: Request,
) -> Response {
    // An error is told in the request's own encoding, if that is one of ours.
    let encoding = match media_type(request.headers()).as_deref() {
        Ok("application/json") => Encoding::Json,
        _ => Encoding::Proto,
    };
    match door.count(answer_empty(door.take_request(request).await)) {
        Ok(taken) => {
            let response = response(&taken);
            let body = match encoding {
                Encoding::Proto => response.encode_to_vec(),
                Encoding::Json => success_json(&response).into_bytes(),
            };
            ([(CONTENT_TYPE, encoding.content_type())], body).into_response()
        }
        Err(error) => http_error(encoding, error.status(), error.text().trim_end()),
    }
}

async fn export_grpc<S: LogSink, R: LogReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    let tenant = tenant(&door.api.options, request.headers());
    grpc::unary(request, door.limit, |body: Bytes| {
        let (door, tenant) = (door.clone(), tenant.clone());
        async move {
            let taken = match tenant {
                Ok(tenant) => {
                    let format = PushFormat::OtlpProto;
                    push::take(&door.api, tenant, format, Coding::Identity, body).await
                }
                Err(error) => Err(error),
            };
            match door.count(answer_empty(taken)) {
                Ok(taken) => Ok(response(&taken)),
                Err(error) => Err(grpc_status(&error)),
            }
        }
    })
    .await
}

/// To OTLP an export without records is nothing to complain of.
fn answer_empty(taken: Result<Taken, LokiError>) -> Result<Taken, LokiError> {
    match taken {
        Err(error) if error.status() == StatusCode::UNPROCESSABLE_ENTITY => Ok(Taken::default()),
        taken => taken,
    }
}

fn response(taken: &Taken) -> ExportLogsServiceResponse {
    if taken.refusals.is_empty() {
        return ExportLogsServiceResponse::default();
    }
    ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: i64::try_from(taken.refused_entries).unwrap_or(i64::MAX),
            error_message: error_text(&taken.refusals),
        }),
    }
}

fn success_json(response: &ExportLogsServiceResponse) -> String {
    let partial = match &response.partial_success {
        None => serde_json::json!({}),
        Some(partial) => serde_json::json!({
            "rejectedLogRecords": partial.rejected_log_records.to_string(),
            "errorMessage": partial.error_message,
        }),
    };
    serde_json::json!({ "partialSuccess": partial }).to_string()
}

/// Senders repeat what is UNAVAILABLE; RESOURCE_EXHAUSTED they give up.
fn grpc_status(error: &LokiError) -> Status {
    let message = error.text().trim_end();
    match error.status() {
        StatusCode::UNAUTHORIZED => Status::unauthenticated(message),
        StatusCode::PAYLOAD_TOO_LARGE => Status::resource_exhausted(message),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Status::unavailable(message)
        }
        status if status.is_server_error() => Status::internal(message),
        _ => Status::invalid_argument(message),
    }
}
