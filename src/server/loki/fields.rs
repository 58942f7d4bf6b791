//! Detected fields: `detected_fields`, `detected_field/{name}/values`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql::ast::Expr;
use crate::model::Direction;
use crate::protocol::loki::response::explore::{self, Field};
use crate::query::answer::{LogAnswer, LogQuery};
use crate::query::fields::{FieldType, detect, values as values_of};
use crate::runtime::pool::Lane;
use crate::server::error::LokiError;

use super::params::Params;
use super::query::{check_limit, parse};
use super::{Api, LogReader, json, tenant};

/// Fields, or values of one, when the request does not say.
const DEFAULT_LIMIT: usize = 1000;
/// Lines of the sample when the request does not say.
const DEFAULT_LINES: usize = 100;
/// Fields or values at most, whatever the request says.
const MAX_LIMIT: usize = 100_000;

pub async fn fields<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    find_fields(&api, request)
        .await
        .map_or_else(IntoResponse::into_response, json)
}

pub async fn values<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    find_values(&api, name, request)
        .await
        .map_or_else(IntoResponse::into_response, json)
}

async fn find_fields<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Vec<u8>, LokiError> {
    let (answer, limit) = sample(api, request).await?;
    let found = api
        .pool
        .run(Lane::Second, move || detect(&answer, limit))
        .await?;
    let fields = found.by_name.iter().map(|(label, field)| Field {
        label,
        kind: field.kind.unwrap_or(FieldType::String).as_str(),
        cardinality: field.values.len(),
        parsers: &field.parsers,
        json_path: &field.json_path,
    });
    Ok(explore::detected_fields(fields, limit))
}

async fn find_values<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    name: String,
    request: Request,
) -> Result<Vec<u8>, LokiError> {
    let (answer, limit) = sample(api, request).await?;
    let values = api
        .pool
        .run(Lane::Second, move || values_of(&answer, &name, limit))
        .await?;
    Ok(explore::detected_values(&values, limit))
}

/// The newest lines that the query gives, and how many fields or values are asked for.
async fn sample<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<(LogAnswer, usize), LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let Expr::Log(expr) = parse(params.query())? else {
        return Err(LokiError::invalid(
            "fields are those of lines; ask with a log query, not a metric query",
        ));
    };
    let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
    params.step(bounds)?;
    let lines = positive(&params, "line_limit")?.unwrap_or(DEFAULT_LINES);
    check_limit(lines, &api.options)?;
    let limit = match positive(&params, "limit")? {
        Some(limit) => limit,
        None => positive(&params, "field_limit")?.unwrap_or(DEFAULT_LIMIT),
    };
    let query = LogQuery {
        expr,
        range: bounds.inclusive(),
        limit: lines,
        direction: Direction::Backward,
        interval: 0,
        categorize: true,
    };
    let answer = api.reader.logs(&tenant, query).await?;
    Ok((answer, limit.min(MAX_LIMIT)))
}

/// A number of things, at least one.
fn positive(params: &Params, name: &str) -> Result<Option<usize>, LokiError> {
    match params.count(name)? {
        Some(0) => Err(LokiError::invalid(format!("{name} must be positive"))),
        count => Ok(count),
    }
}
