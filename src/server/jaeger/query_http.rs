//! Jaeger's query API, as its UI and Grafana read it (port 16686, below `/api`).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};

use crate::model::time::HOUR;
use crate::model::trace::{Trace, TraceId, TraceQuery};
use crate::protocol::jaeger::adjust::adjust;
use crate::protocol::jaeger::duration;
use crate::protocol::jaeger::json::{self, Layout};
use crate::query::answer::QueryError;
use crate::runtime::clock::Clock;
use crate::server::spans::TraceReader;

use super::trace_json::{Missing, TracesAnswer};
use super::{go_error, query_pairs, service_http};

/// How queries are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// How far span times may be shifted to make children fit their parents, in
    /// milliseconds. 0, as in Jaeger, shifts nothing and only warns.
    pub max_clock_skew_ms: u64,
}

/// Searches without `start` look this far back.
const DEFAULT_LOOKBACK: i64 = 48 * HOUR;

/// Traces that a search without a limit, or with 0, returns.
const DEFAULT_LIMIT: usize = 100;

pub(super) struct Api<R> {
    pub(super) reader: Arc<R>,
    pub(super) clock: Clock,
    /// Nanoseconds.
    max_clock_skew: u64,
}

/// Everything below `/api` that is not of version 3.
pub fn router<R: TraceReader>(reader: Arc<R>, clock: Clock, options: &QueryOptions) -> Router {
    let max_clock_skew = options.max_clock_skew_ms.saturating_mul(1_000_000);
    Router::new()
        .route("/api/services", get(services::<R>))
        .route("/api/services/{*rest}", get(operation_names::<R>))
        .route("/api/operations", get(operations::<R>))
        .route("/api/traces", get(find::<R>))
        .route("/api/traces/{id}", get(trace::<R>))
        .merge(service_http::routes())
        .route("/api/archive/{id}", post(archive::<R>))
        .route("/api", any(unknown))
        .route("/api/{*rest}", any(unknown))
        .with_state(Arc::new(Api {
            reader,
            clock,
            max_clock_skew,
        }))
}

async fn services<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    answer(&Params::of(&uri), |layout| async move {
        Ok(json::names(&api.reader.services().await?, layout))
    })
    .await
}

/// `/api/services/{service}/operations`; Grafana leaves slashes in the name as they are.
async fn operation_names<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    answer(&Params::of(&uri), |layout| async move {
        let service = uri
            .path()
            .strip_prefix("/api/services/")
            .and_then(|rest| rest.strip_suffix("/operations"))
            .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "not found"))?;
        let service = percent_decode(service);
        let operations = api.reader.operations(&service, None).await?;
        // One name may have several kinds.
        let mut names: Vec<&str> = Vec::with_capacity(operations.len());
        let mut seen = std::collections::HashSet::new();
        names.extend(
            operations
                .iter()
                .map(|o| o.name.as_str())
                .filter(|name| seen.insert(*name)),
        );
        Ok(json::names(&names, layout))
    })
    .await
}

async fn operations<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    let params = Params::of(&uri);
    answer(&params, |layout| {
        let params = &params;
        async move {
            let service = params.first("service").ok_or_else(|| required("service"))?;
            let operations = api
                .reader
                .operations(service, params.first("spanKind"))
                .await?;
            Ok(json::operations(&operations, layout))
        }
    })
    .await
}

async fn find<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    let params = Params::of(&uri);
    respond(&params, |layout| {
        let (params, api) = (&params, &api);
        async move {
            let raw = params.bool("raw")?;
            let ids = params.trace_ids()?;
            if !ids.is_empty() {
                let answer = api.traces(ids, raw, Missing::Told, layout);
                return answer.respond().await;
            }
            let query = params.trace_query(api.clock.now())?;
            match api.reader.find_traces(query.clone()).await {
                Ok(mut traces) => {
                    api.adjust(&mut traces, raw);
                    Ok(json_response(json::traces(&traces, &[], layout)))
                }
                // Together they are too large to be in memory: one after the other.
                Err(QueryError::TooMuch(_)) => {
                    let ids = api.reader.find_trace_ids(query).await?;
                    let answer = api.traces(ids, raw, Missing::LeftOut, layout);
                    answer.respond().await
                }
                Err(error) => Err(error.into()),
            }
        }
    })
    .await
}

async fn trace<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    let params = Params::of(&uri);
    respond(&params, |layout| {
        let (params, api, uri) = (&params, &api, &uri);
        async move {
            let id = path_id(uri, "/api/traces/")?;
            // `start` and `end` are hints that some senders give in the wrong unit.
            let raw = params.bool("raw")?;
            let answer = api.traces(vec![id], raw, Missing::Fails, layout);
            answer.respond().await
        }
    })
    .await
}

async fn archive<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    answer(&Params::of(&uri), |layout| async move {
        let id = path_id(&uri, "/api/archive/")?;
        if api.reader.archive(id).await? {
            Ok(json::archived(layout))
        } else {
            Err(Failure::new(StatusCode::NOT_FOUND, NO_TRACE))
        }
    })
    .await
}

/// The trace id at the end of a path.
fn path_id(uri: &Uri, before: &str) -> Result<TraceId, Failure> {
    let id = uri.path().strip_prefix(before).unwrap_or_default();
    parse_trace_id(&percent_decode(id))
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error))
}

/// Jaeger 1.31 would answer its UI's page; a client of the API is better off with the truth.
async fn unknown(uri: Uri) -> Response {
    let failure = Failure::new(StatusCode::NOT_FOUND, "not found");
    failure.into_response(Params::of(&uri).layout())
}

pub(super) const NO_TRACE: &str = "trace not found";

impl<R: TraceReader> Api<R> {
    /// An answer with these traces.
    fn traces(
        &self,
        ids: Vec<TraceId>,
        raw: bool,
        missing: Missing,
        layout: Layout,
    ) -> TracesAnswer<R> {
        let max_skew = (!raw).then_some(self.max_clock_skew);
        TracesAnswer::new(self.reader.clone(), ids, max_skew, missing, layout)
    }

    fn adjust(&self, traces: &mut [Trace], raw: bool) {
        if !raw {
            for trace in traces {
                adjust(trace, self.max_clock_skew);
            }
        }
    }
}

/// Runs a handler and dresses its answer or failure.
pub(super) async fn answer<F, A>(params: &Params, handler: F) -> Response
where
    F: FnOnce(Layout) -> A,
    A: Future<Output = Result<String, Failure>>,
{
    respond(params, |layout| {
        let body = handler(layout);
        async { body.await.map(json_response) }
    })
    .await
}

/// Runs a handler and dresses its failure.
async fn respond<F, A>(params: &Params, handler: F) -> Response
where
    F: FnOnce(Layout) -> A,
    A: Future<Output = Result<Response, Failure>>,
{
    let layout = params.layout();
    match handler(layout).await {
        Ok(answer) => answer,
        Err(failure) => failure.into_response(layout),
    }
}

fn json_response(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// A status and what to say with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    fn into_response(self, layout: Layout) -> Response {
        go_error(
            self.status,
            json::error(self.status.as_u16(), &self.message, layout),
        )
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Invalid(_) | QueryError::TooMuch(_) => StatusCode::BAD_REQUEST,
            QueryError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            QueryError::Busy(_) | QueryError::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Matching(_) | QueryError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

fn required(name: &str) -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        format!("parameter '{name}' is required"),
    )
}

/// The parameters of a request. An empty value is no value: the UI sends all its fields.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Self {
        Self(query_pairs(uri))
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    fn layout(&self) -> Layout {
        match self.first("prettyPrint") {
            None | Some("false") => Layout::Compact,
            Some(_) => Layout::Pretty,
        }
    }

    /// As Go's `strconv.ParseBool` reads them.
    pub(super) fn bool(&self, name: &str) -> Result<bool, Failure> {
        match self.first(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(unparsable(
                name,
                &format!("strconv.ParseBool: parsing {other:?}: invalid syntax"),
            )),
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.first(name) else {
            return Ok(None);
        };
        let problem = match text.parse::<i64>() {
            Ok(value) => match T::try_from(value) {
                Ok(value) => return Ok(Some(value)),
                Err(_) => "value out of range",
            },
            Err(error) => match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            },
        };
        Err(unparsable(
            name,
            &format!("strconv.ParseInt: parsing {text:?}: {problem}"),
        ))
    }

    /// A duration in nanoseconds; 0 and less are no bound.
    fn duration(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.first(name) else {
            return Ok(None);
        };
        match duration::parse(text) {
            Some(value) => Ok(u64::try_from(value).ok().filter(|value| *value > 0)),
            None if text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.') =>
            {
                Err(unparsable(
                    name,
                    &format!("time: missing unit in duration {text:?}"),
                ))
            }
            None => Err(unparsable(
                name,
                &format!("time: invalid duration {text:?}"),
            )),
        }
    }

    fn trace_ids(&self) -> Result<Vec<TraceId>, Failure> {
        self.all("traceID")
            .filter(|text| !text.is_empty())
            .map(|text| {
                parse_trace_id(text).map_err(|error| {
                    let text = format!("cannot parse traceID param: {error}");
                    Failure::new(StatusCode::BAD_REQUEST, text)
                })
            })
            .collect()
    }

    fn trace_query(&self, now: i64) -> Result<TraceQuery, Failure> {
        let start = self.integer::<i64>("start")?;
        let end = self.integer::<i64>("end")?;
        let mut tags = Vec::new();
        for text in self.all("tag").filter(|text| !text.is_empty()) {
            let (key, value) = text.split_once(':').ok_or_else(|| {
                let text =
                    format!("malformed 'tag' parameter, expecting key:value, received: {text}");
                Failure::new(StatusCode::BAD_REQUEST, text)
            })?;
            tags.push((key.into(), value.into()));
        }
        for text in self.all("tags").filter(|text| !text.is_empty()) {
            let pairs: std::collections::BTreeMap<String, String> = serde_json::from_str(text)
                .map_err(|error| {
                    let text =
                        format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}");
                    Failure::new(StatusCode::BAD_REQUEST, text)
                })?;
            tags.extend(pairs);
        }
        let limit = self
            .integer::<i32>("limit")?
            .and_then(|limit| usize::try_from(limit).ok());
        let duration_min = self.duration("minDuration")?;
        let duration_max = self.duration("maxDuration")?;
        let service = self.first("service").ok_or_else(|| required("service"))?;
        if let (Some(min), Some(max)) = (duration_min, duration_max)
            && max < min
        {
            let text = "'maxDuration' should be greater than 'minDuration'";
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        }
        Ok(TraceQuery {
            service: service.into(),
            operation: self.first("operation").unwrap_or_default().into(),
            tags,
            start_min: start.map_or(now - DEFAULT_LOOKBACK, |start| start.saturating_mul(1_000)),
            // Both ends belong to the search, in whole microseconds.
            start_max: end.map_or(now, |end| end.saturating_mul(1_000).saturating_add(999)),
            duration_min,
            duration_max,
            limit: limit.filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT),
        })
    }
}

pub(super) fn unparsable(name: &str, error: &str) -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        format!("unable to parse param '{name}': {error}"),
    )
}

fn parse_trace_id(text: &str) -> Result<TraceId, String> {
    if text.len() > 32 {
        return Err(format!(
            "TraceID cannot be longer than 32 hex characters: {text}"
        ));
    }
    TraceId::parse(text)
        .ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

/// Undoes `%2F` and `+`; an escape that is none stays as it is.
fn percent_decode(text: &str) -> String {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
