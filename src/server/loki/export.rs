//! `GET /export`: everything that a selector has in a range of time, as NDJSON, in pieces.
//!
//! The body ends as HTTP says only when it is complete; when something fails on the way it is
//! broken off.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt;

use super::params::{Params, parse_time};
use super::{Options, tenant};
use crate::model::TimeRange;
use crate::query::QueryError;
use crate::runtime::pool::{Lane, Pool};
use crate::server::error::LokiError;

/// What is to be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRequest {
    /// A log query, or a selector of spans.
    pub query: String,
    pub range: TimeRange,
    pub signal: ExportSignal,
    pub tenant: Arc<str>,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportSignal {
    Logs,
    Traces,
}

/// Gives NDJSON piece by piece, `None` at the end. Blocks while it reads.
pub type Pieces = Box<dyn FnMut() -> Result<Option<Vec<u8>>, QueryError> + Send>;

/// Begins an export.
pub type Begin = Box<dyn Fn(ExportRequest) -> Result<Pieces, QueryError> + Send + Sync>;

/// What the handler needs.
pub struct ExportApi {
    pub begin: Begin,
    pub options: Options,
    pub pool: Pool,
}

/// The route; it goes on the Loki port.
pub fn router(api: Arc<ExportApi>) -> Router {
    Router::new().route("/export", get(export)).with_state(api)
}

async fn export(State(api): State<Arc<ExportApi>>, request: Request) -> Response {
    match begin(api, request).await {
        Ok(response) => response,
        Err(error) => error.with_newline().into_response(),
    }
}

async fn begin(api: Arc<ExportApi>, request: Request) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let time = |name: &str, default: i64| match params.get(name) {
        None | Some("") => Ok(default),
        Some(text) => parse_time(text)
            .ok_or_else(|| LokiError::invalid(format!("{name}: {text:?} is no time"))),
    };
    let wanted = ExportRequest {
        query: params.query().to_owned(),
        range: TimeRange::new(time("start", i64::MIN)?, time("end", i64::MAX)?),
        signal: match params.get("signal").unwrap_or("logs") {
            "logs" => ExportSignal::Logs,
            "traces" => ExportSignal::Traces,
            other => {
                let what = format!("signal: {other:?} is neither logs nor traces");
                return Err(LokiError::invalid(what));
            }
        },
        tenant: tenant(&api.options, &headers)?,
    };
    let (pool, opener) = (api.pool.clone(), api);
    let opened = pool.run(Lane::Second, move || (opener.begin)(wanted)).await;
    let pieces = opened.map_err(|e| QueryError::Internal(e.to_string()))??;
    let body = Body::from_stream(stream(pool, pieces));
    let kind = "application/x-ndjson; charset=utf-8";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response())
}

/// Reads a piece when the one before was taken.
fn stream(
    pool: Pool,
    pieces: Pieces,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    let stream = futures::stream::unfold(Some(pieces), move |pieces| {
        let pool = pool.clone();
        async move {
            let mut pieces = pieces?;
            let read = pool.run(Lane::Second, move || {
                let read = pieces();
                (read, pieces)
            });
            let failure = match read.await {
                Ok((Ok(Some(bytes)), pieces)) => return Some((Ok(bytes.into()), Some(pieces))),
                Ok((Ok(None), _)) => return None,
                Ok((Err(error), _)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!("an export was broken off: {failure}");
            Some((Err(io::Error::other(failure)), None))
        }
    });
    // Who compresses it asks once more at the end.
    stream.fuse()
}
