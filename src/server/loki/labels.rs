//! Label names and values, series, index statistics.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::model::{Matcher, TimeRange};
use crate::protocol::loki::response;
use crate::server::error::LokiError;

use super::params::Params;
use super::{Api, LogReader, json, tenant};

pub async fn names<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(
        find_names(&api, request)
            .await
            .map(|names| response::strings(&names)),
    )
}

pub async fn legacy_names<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(
        find_names(&api, request)
            .await
            .map(|names| response::legacy_strings(&names)),
    )
}

pub async fn values<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    answer(
        find_values(&api, &name, request)
            .await
            .map(|values| response::strings(&values)),
    )
}

pub async fn legacy_values<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    answer(
        find_values(&api, &name, request)
            .await
            .map(|values| response::legacy_strings(&values)),
    )
}

pub async fn series<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(find_series(&api, request).await)
}

pub async fn index_stats<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(find_stats(&api, request).await)
}

pub(super) fn answer(body: Result<Vec<u8>, LokiError>) -> Response {
    body.map_or_else(IntoResponse::into_response, json)
}

/// What all these endpoints are asked for.
pub(super) struct Asked {
    pub tenant: Arc<str>,
    pub range: TimeRange,
    pub params: Params,
}

impl Asked {
    pub async fn read<S, R>(api: &Api<S, R>, request: Request) -> Result<Self, LokiError> {
        let (headers, params) = Params::read(request).await?;
        let tenant = tenant(&api.options, &headers)?;
        let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
        Ok(Self {
            tenant,
            range: bounds.inclusive(),
            params,
        })
    }

    /// The selector of `query`, which may be left out.
    pub fn selector(&self) -> Result<Vec<Matcher>, LokiError> {
        match self.params.query() {
            "" => Ok(Vec::new()),
            query => Ok(logql::parse_selector(query)?),
        }
    }
}

async fn find_names<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Vec<Arc<str>>, LokiError> {
    let asked = Asked::read(api, request).await?;
    let matchers = asked.selector()?;
    let mut names = api
        .reader
        .label_names(&asked.tenant, asked.range, &matchers)
        .await?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

async fn find_values<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    name: &str,
    request: Request,
) -> Result<Vec<Arc<str>>, LokiError> {
    let asked = Asked::read(api, request).await?;
    let matchers = asked.selector()?;
    let mut values = api
        .reader
        .label_values(&asked.tenant, name, asked.range, &matchers)
        .await?;
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

async fn find_series<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Vec<u8>, LokiError> {
    let asked = Asked::read(api, request).await?;
    let texts: Vec<&str> = asked.params.all(&["match[]", "match"]).collect();
    let selectors = match texts[..] {
        [] | ["" | "{}"] => Vec::new(),
        _ => logql::parse_selectors(&texts)?,
    };
    let mut series = api
        .reader
        .series(&asked.tenant, asked.range, selectors)
        .await?;
    // Any order would do; a stable one makes answers comparable.
    series.sort_unstable();
    Ok(response::series(&series))
}

async fn find_stats<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Vec<u8>, LokiError> {
    let asked = Asked::read(api, request).await?;
    let matchers = logql::parse_selector(asked.params.query())?;
    let stats = api
        .reader
        .index_stats(&asked.tenant, matchers, asked.range)
        .await?;
    Ok(response::index_stats(
        stats.streams,
        stats.chunks,
        stats.bytes,
        stats.entries,
    ))
}
