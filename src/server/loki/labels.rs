//! Label names and values, series, index statistics.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::model::{Labels, Matcher, TimeRange};
use crate::protocol::loki::response;
use crate::server::error::LokiError;

use super::params::Params;
use super::{Api, LogReader, json, render, tenant};

/// Text of an answer for names, values or series, bytes. What is larger is refused: nobody
/// reads it, and it would have to be held as a whole.
const MAX_ANSWER: usize = 32 << 20;
/// Selectors of one request for series.
const MAX_SELECTORS: usize = 256;

pub async fn names<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    texts(&api, find_names(&api, request).await, response::strings).await
}

pub async fn legacy_names<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    let found = find_names(&api, request).await;
    texts(&api, found, |names, _| response::legacy_strings(names)).await
}

pub async fn values<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let found = find_values(&api, &name, request).await;
    texts(&api, found, response::strings).await
}

pub async fn legacy_values<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let found = find_values(&api, &name, request).await;
    texts(&api, found, |values, _| response::legacy_strings(values)).await
}

pub async fn series<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    let answer = async {
        let (series, warnings) = find_series(&api, request).await?;
        check_size(
            series
                .iter()
                .map(|labels| labels.text_bytes() + labels.len() * r#""":"","#.len()),
        )?;
        render(&api, series.len(), move || {
            response::series(&series, &warnings)
        })
        .await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// What was found, and what must be said of it.
type Found<T> = Result<(Vec<T>, Vec<String>), LokiError>;

async fn texts<S, R>(
    api: &Api<S, R>,
    found: Found<Arc<str>>,
    body: impl FnOnce(&[Arc<str>], &[String]) -> Vec<u8> + Send + 'static,
) -> Response {
    let answer = async {
        let (texts, warnings) = found?;
        check_size(texts.iter().map(|text| text.len() + 3))?;
        render(api, texts.len(), move || body(&texts, &warnings)).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

fn check_size(sizes: impl Iterator<Item = usize>) -> Result<(), LokiError> {
    let bytes: usize = sizes.sum();
    if bytes <= MAX_ANSWER {
        return Ok(());
    }
    Err(LokiError::invalid(format!(
        "the answer would have {bytes} bytes, more than {MAX_ANSWER}; narrow the selector or the \
         range, or ask for fewer with `limit`"
    )))
}

/// Sorts, and keeps as many as the request asks for: `limit`, which Loki does not know. A cut
/// is told.
fn in_order<T: Ord>(asked: &Asked, mut found: Vec<T>) -> Found<T> {
    found.sort_unstable();
    found.dedup();
    let mut warnings = Vec::new();
    if let Some(limit) = asked.params.count("limit")?.filter(|n| *n > 0)
        && found.len() > limit
    {
        warnings.push(format!(
            "the first {limit} of {}: the answer is not complete",
            found.len()
        ));
        found.truncate(limit);
    }
    Ok((found, warnings))
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
) -> Found<Arc<str>> {
    let asked = Asked::read(api, request).await?;
    let matchers = asked.selector()?;
    let names = api
        .reader
        .label_names(&asked.tenant, asked.range, &matchers)
        .await?;
    in_order(&asked, names)
}

async fn find_values<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    name: &str,
    request: Request,
) -> Found<Arc<str>> {
    let asked = Asked::read(api, request).await?;
    let matchers = asked.selector()?;
    let values = api
        .reader
        .label_values(&asked.tenant, name, asked.range, &matchers)
        .await?;
    in_order(&asked, values)
}

async fn find_series<S: LogSink, R: LogReader>(api: &Api<S, R>, request: Request) -> Found<Labels> {
    let asked = Asked::read(api, request).await?;
    let texts: Vec<&str> = asked.params.all(&["match[]", "match"]).collect();
    if texts.len() > MAX_SELECTORS {
        return Err(LokiError::invalid(format!(
            "{} selectors; ask with at most {MAX_SELECTORS} at a time",
            texts.len()
        )));
    }
    let selectors = match texts[..] {
        [] | ["" | "{}"] => Vec::new(),
        _ => logql::parse_selectors(&texts)?,
    };
    let series = api
        .reader
        .series(&asked.tenant, asked.range, selectors)
        .await?;
    // Any order would do; a stable one makes answers comparable.
    in_order(&asked, series)
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
