//! Volumes: `index/volume`, `index/volume_range`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::protocol::loki::response::explore;
use crate::protocol::loki::response::{Frame, Stats};
use crate::query::volume::{AggregateBy, Steps, VolumeQuery};
use crate::server::error::LokiError;

use super::params::Params;
use super::{Api, LogReader, render, tenant};

/// Groups of an answer when the request does not say.
const DEFAULT_LIMIT: usize = 100;
/// Labels that a request may name.
const MAX_TARGETS: usize = 100;

pub async fn whole<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    find(&api, request, false)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

pub async fn range<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    find(&api, request, true)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn find<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
    stepwise: bool,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
    let steps = if stepwise {
        Steps::every(params.step(bounds)?, bounds.start, bounds.end)
    } else {
        Steps::whole(bounds.start, bounds.end)
    };
    let query = VolumeQuery {
        matchers: match params.query().trim() {
            "{}" => Vec::new(),
            query => logql::parse_selector(query)?,
        },
        steps,
        targets: targets(&params)?,
        by: aggregate_by(&params)?,
        limit: limit(&params)?.min(api.options.explore.volume_max_series),
    };
    let began = Instant::now();
    let volumes = api.reader.volume(&tenant, query).await?;
    let samples = volumes.iter().map(|v| v.bytes.len()).sum();
    let stats = Stats {
        exec_seconds: began.elapsed().as_secs_f64(),
        entries_returned: volumes.len() as u64,
        ..Stats::default()
    };
    render(api, samples, move || {
        let volumes: Vec<_> = volumes.iter().map(|v| (&v.labels, &v.bytes[..])).collect();
        let frame = Frame {
            stats,
            ..Frame::default()
        };
        explore::volumes(&volumes, &frame)
    })
    .await
}

/// 0 means the default, as in Loki.
fn limit(params: &Params) -> Result<usize, LokiError> {
    Ok(match params.count("limit")? {
        None | Some(0) => DEFAULT_LIMIT,
        Some(limit) => limit,
    })
}

fn targets(params: &Params) -> Result<Vec<String>, LokiError> {
    let text = params.get("targetLabels").unwrap_or("");
    let names = text.split(',').map(str::trim).filter(|n| !n.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.len() > MAX_TARGETS {
        return Err(LokiError::invalid(format!(
            "targetLabels names {} labels; name at most {MAX_TARGETS}",
            names.len()
        )));
    }
    Ok(names)
}

fn aggregate_by(params: &Params) -> Result<AggregateBy, LokiError> {
    match params.get("aggregateBy") {
        None | Some("series") => Ok(AggregateBy::Series),
        Some("labels") => Ok(AggregateBy::Labels),
        Some(other) => Err(LokiError::invalid(format!(
            "invalid aggregation option {other:?}; use series or labels"
        ))),
    }
}
