//! Jaeger's doors: the agent's datagrams and sampling, the collector, the query API.

pub mod admin;
pub mod agent;
mod asked;
pub mod collector;
mod pieces;
pub mod query_grpc;
pub mod query_http;
pub mod query_v3;
pub mod sampling;
mod service_http;
pub mod storage;
mod trace_json;
pub mod transform;
pub mod ui;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

/// An error as text, in the form that Go's servers give it: these headers, and a newline
/// behind the message.
pub(in crate::server) fn text_error(status: StatusCode, message: &str) -> Response {
    go_error(status, format!("{message}\n"))
}

/// The same for a body that has its newline.
fn go_error(status: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// The pairs of a query string, decoded, in order.
fn query_pairs(uri: &http::Uri) -> Vec<(String, String)> {
    // Whatever a query string holds, this reads it: escapes that are none stay as they are.
    axum::extract::Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0)
}
