//! Patterns: which templates lines follow, and when.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::protocol::loki::response::explore::{self, Pattern};
use crate::query::patterns::PatternQuery;
use crate::server::error::LokiError;

use super::params::Params;
use super::{Api, LogReader, render, tenant};

pub async fn patterns<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    if !api.options.explore.patterns {
        return switched_off();
    }
    find(&api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

/// Without a pattern ingester Loki answers so, and clients take it for "switched off".
fn switched_off() -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, plain)]).into_response()
}

async fn find<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let matchers = logql::parse_selector(params.query())?;
    let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
    let query = PatternQuery {
        range: bounds.inclusive(),
        step: params.step(bounds)?,
    };
    let found = api.reader.patterns(&tenant, matchers, query).await?;
    let samples = found.iter().map(|p| p.samples.len()).sum();
    render(api, samples, move || {
        explore::patterns(found.iter().map(|p| Pattern {
            text: &p.pattern,
            level: &p.level,
            samples: &p.samples,
        }))
    })
    .await
}
