//! `POST /api/transform`: spans as OTLP's JSON, shown as Jaeger's, for the UI's file upload.
//! Nothing is stored.

use std::collections::HashMap;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::model::trace::{Trace, TraceId};
use crate::protocol::jaeger::json::{self, Layout};
use crate::protocol::otlp;
use crate::server::body::{self, BodyError};

use super::go_error;

/// Bytes of a body, decompressed, as of an export.
const MAX_BODY: usize = 16 << 20;

pub fn router() -> Router {
    Router::new().route("/api/transform", post(transform))
}

async fn transform(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match body::read(&parts.headers, body, MAX_BODY).await {
        Ok(body) => body,
        Err(error) => {
            let status = match error {
                BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return refusal(status, &error.to_string());
        }
    };
    match shown(&body) {
        Ok(traces) => {
            let text = json::traces(&traces, &[], Layout::Compact);
            ([(CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

fn refusal(status: StatusCode, why: &str) -> Response {
    go_error(status, json::error(status.as_u16(), why, Layout::Compact))
}

/// The traces of an export in order of their first spans; all of it or nothing.
fn shown(body: &[u8]) -> Result<Vec<Trace>, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object with resourceSpans".into());
    }
    let export = otlp::decode_shown(body).map_err(|error| error.message)?;
    if export.rejected > 0 {
        return Err(export.message);
    }
    let mut traces: Vec<Trace> = Vec::new();
    let mut places: HashMap<TraceId, usize> = HashMap::new();
    for span in export.batch.spans {
        let place = *places.entry(span.trace_id).or_insert_with(|| {
            traces.push(Trace {
                id: span.trace_id,
                spans: Vec::new(),
                warnings: Vec::new(),
            });
            traces.len() - 1
        });
        if let Some(trace) = traces.get_mut(place) {
            trace.spans.push(span);
        }
    }
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::spans::memory::{fixture, send, serve};

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn an_export_is_shown_as_jaegers_traces() {
        let address = serve(router()).await;
        let body = fixture("captured/nodeotel-otlp-json.bin");
        let answer = send(address, "POST", "/api/transform", &[JSON], body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let data = &answer.json()["data"];
        assert_eq!(data.as_array().unwrap().len(), 1);
        assert_eq!(data[0]["spans"].as_array().unwrap().len(), 2);
        assert_eq!(data[0]["processes"]["p1"]["serviceName"], "otel-node");
        assert!(!answer.text().contains("internal.span.format"));
    }

    #[tokio::test]
    async fn what_is_no_export_is_refused_as_a_whole() {
        let address = serve(router()).await;
        let no_id =
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"","spanId":""}]}]}]}"#;
        for body in ["{", "[]", no_id, r#"{"resourceSpans":7}"#] {
            let answer = send(address, "POST", "/api/transform", &[JSON], body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.json()["errors"][0]["code"], 400);
        }
        let empty = send(address, "POST", "/api/transform", &[JSON], "{}").await;
        assert_eq!(
            (empty.status, &empty.json()["data"]),
            (200, &serde_json::json!([]))
        );
        let get = send(address, "GET", "/api/transform", &[], "").await;
        assert_eq!(get.status, 405);
    }
}
