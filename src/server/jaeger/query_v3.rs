//! Version 3 of Jaeger's query API over HTTP (port 16686, below `/api/v3`): traces as OTLP's
//! JSON, written piece by piece, and traces in short.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use serde_json::json;

use crate::model::TimeRange;
use crate::model::trace::{Span, TraceId, TraceQuery};
use crate::protocol::jaeger::duration;
use crate::protocol::jaeger::proto::read_trace_id;
use crate::protocol::otlp::{encode, render};
use crate::query::answer::QueryError;
use crate::server::spans::{TraceParts, TraceReader};

use super::asked::DEFAULT_DEPTH;
use super::pieces::{self, Form};
use super::query_http::QueryOptions;
use super::{go_error, query_pairs};

/// Spans that become text at a time.
const CHUNK_SPANS: usize = 100;

struct Api<R> {
    reader: Arc<R>,
    /// Nanoseconds.
    max_clock_skew: u64,
}

impl<R> Api<R> {
    fn form(&self, raw: bool) -> Form {
        if raw {
            Form::Raw
        } else {
            Form::Adjusted {
                max_clock_skew: self.max_clock_skew,
            }
        }
    }
}

/// Everything below `/api/v3`.
pub fn router<R: TraceReader>(reader: Arc<R>, options: &QueryOptions) -> Router {
    let max_clock_skew = options.max_clock_skew_ms.saturating_mul(1_000_000);
    Router::new()
        .route("/api/v3/services", get(services::<R>))
        .route("/api/v3/operations", get(operations::<R>))
        .route("/api/v3/traces", get(find::<R>))
        .route("/api/v3/traces/{id}", get(trace::<R>))
        .route("/api/v3/trace-summaries", get(summaries::<R>))
        .route("/api/v3/dependencies", get(dependencies::<R>))
        .route("/api/v3", any(unknown))
        .route("/api/v3/{*rest}", any(unknown))
        .with_state(Arc::new(Api {
            reader,
            max_clock_skew,
        }))
}

type Answer = Result<Response, Failure>;

async fn services<R: TraceReader>(State(api): State<Arc<Api<R>>>) -> Answer {
    let services = api.reader.services().await?;
    Ok(json_answer(json!({ "services": services }).to_string()))
}

async fn operations<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Answer {
    /// What operations without a kind are said to be.
    const INTERNAL: &str = "internal";
    let params = Params::of(&uri);
    let service = params.0.iter().find(|(key, _)| key == "service");
    let service = service.map_or("", |(_, service)| service);
    let kind = params.get("spanKind", "span_kind").map(|(_, kind)| kind);
    let asked = kind.filter(|kind| *kind != INTERNAL);
    let found = api.reader.operations(service, asked).await?;
    let operations = found.into_iter().map(|operation| {
        let kind = if operation.kind.is_empty() {
            INTERNAL.to_owned()
        } else {
            operation.kind
        };
        (operation.name, kind)
    });
    let mut operations: Vec<_> = operations
        .filter(|(_, its)| kind.is_none_or(|kind| kind == its))
        .collect();
    operations.sort();
    operations.dedup();
    let operations: Vec<_> = operations
        .into_iter()
        .map(|(name, kind)| json!({ "name": name, "spanKind": kind }))
        .collect();
    Ok(json_answer(json!({ "operations": operations }).to_string()))
}

async fn trace<R: TraceReader>(
    State(api): State<Arc<Api<R>>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Answer {
    let params = Params::of(&uri);
    let id = parse_trace_id(&id)
        .ok_or_else(|| malformed("trace_id", "is not 1 to 32 hexadecimal digits, nor base64"))?;
    // Hints only: traces are found by their id alone.
    params.time("startTime", "start_time")?;
    params.time("endTime", "end_time")?;
    let form = api.form(params.bool("rawTraces", "raw_traces")?);
    traces_answer(pieces::of_trace(&api.reader, id, form)).await
}

async fn find<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Answer {
    let params = Params::of(&uri);
    let query = params.query()?;
    let form = api.form(params.bool("query.rawTraces", "query.raw_traces")?);
    let parts = pieces::find(&api.reader, query, form).try_flatten();
    traces_answer(parts.boxed()).await
}

async fn summaries<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Answer {
    let params = Params::of(&uri);
    let query = params.query()?;
    params.bool("query.rawTraces", "query.raw_traces")?;
    // Traces in short are of adjusted ones always.
    let summaries = pieces::summaries(&api.reader, query, api.form(false));
    let summaries: Vec<_> = summaries.map_ok(|s| s.json()).try_collect().await?;
    Ok(json_answer(json!({ "summaries": summaries }).to_string()))
}

async fn dependencies<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Answer {
    let params = Params::of(&uri);
    let (start, end) = (
        params.time("startTime", "start_time")?,
        params.time("endTime", "end_time")?,
    );
    let (Some(start), Some(end)) = (start, end) else {
        let text = "startTime and endTime are required";
        return Err(Failure::new(StatusCode::BAD_REQUEST, text));
    };
    let links = api.reader.dependencies(TimeRange::inclusive(start, end));
    let links: Vec<_> = links
        .await?
        .into_iter()
        .map(|link| {
            let calls = link.calls.to_string();
            json!({ "parent": link.parent, "child": link.child, "callCount": calls })
        })
        .collect();
    Ok(json_answer(json!({ "dependencies": links }).to_string()))
}

async fn unknown() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "not found")
}

fn json_answer(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// Spans as they come. What fails after the first is an answer that breaks off: no client
/// takes it for a whole one.
async fn traces_answer(parts: TraceParts) -> Answer {
    let mut chunks = pieces::chunks(parts, CHUNK_SPANS).boxed();
    let Some(first) = chunks.try_next().await? else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "No traces found"));
    };
    let head = format!("{{\"result\":{{\"resourceSpans\":[{}", text(&first));
    let more = chunks.map_ok(|spans| format!(",{}", text(&spans)));
    let more = more.inspect_err(|error| tracing::warn!("an answer breaks off: {error}"));
    let body = stream::iter([Ok(head)])
        .chain(more)
        .chain(stream::iter([Ok("]}}".to_owned())]));
    Ok(json_answer(Body::from_stream(body)))
}

fn text(spans: &[Span]) -> String {
    let groups = encode::resource_spans(spans);
    let texts: Vec<String> = groups.iter().map(render::resource_spans).collect();
    texts.join(",")
}

/// Hexadecimal digits, else the base64 of the id's bytes in any spelling.
fn parse_trace_id(text: &str) -> Option<TraceId> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    TraceId::parse(text).or_else(|| {
        if text.is_empty() || text.len() > 24 {
            return None;
        }
        let decoded = [STANDARD, URL_SAFE]
            .iter()
            .find_map(|alphabet| GeneralPurpose::new(alphabet, LENIENT).decode(text).ok());
        read_trace_id(&decoded?).ok()
    })
}

/// A status and what to say with it.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = json!({ "httpCode": self.status.as_u16(), "message": self.message });
        go_error(self.status, format!("{}\n", json!({ "error": error })))
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

fn malformed(name: &str, why: impl std::fmt::Display) -> Failure {
    let text = format!("malformed parameter {name}: {why}");
    Failure::new(StatusCode::BAD_REQUEST, text)
}

/// The parameters of a request. Each has a name as protobuf's JSON spells it and an older one;
/// an empty value is no value.
struct Params(Vec<(String, String)>);

impl Params {
    fn of(uri: &Uri) -> Self {
        Self(query_pairs(uri))
    }

    /// The name it was given by, and its value.
    fn get<'a>(&'a self, name: &'a str, old_name: &'a str) -> Option<(&'a str, &'a str)> {
        [name, old_name].into_iter().find_map(|name| {
            let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
            (!value.is_empty()).then_some((name, &**value))
        })
    }

    fn text(&self, name: &str, old_name: &str) -> String {
        let found = self.get(name, old_name);
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    }

    /// As Go's `strconv.ParseBool` reads them.
    fn bool(&self, name: &str, old_name: &str) -> Result<bool, Failure> {
        match self.get(name, old_name) {
            None | Some((_, "0" | "f" | "F" | "false" | "FALSE" | "False")) => Ok(false),
            Some((_, "1" | "t" | "T" | "true" | "TRUE" | "True")) => Ok(true),
            Some((name, other)) => Err(malformed(name, format!("{other:?} is not true or false"))),
        }
    }

    fn time(&self, name: &str, old_name: &str) -> Result<Option<i64>, Failure> {
        let Some((name, text)) = self.get(name, old_name) else {
            return Ok(None);
        };
        // The sign of an offset that nobody escaped.
        let parsed: Result<jiff::Timestamp, _> = text.replace(' ', "+").parse();
        let at = parsed.map_err(|error| malformed(name, error))?;
        // Nanoseconds end in the year 2262.
        let at = at.as_nanosecond();
        Ok(Some(at.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
    }

    /// Nanoseconds; 0 and less are no bound.
    fn duration(&self, name: &str, old_name: &str) -> Result<Option<u64>, Failure> {
        let Some((name, text)) = self.get(name, old_name) else {
            return Ok(None);
        };
        let parsed = duration::parse(text);
        let parsed = parsed.ok_or_else(|| malformed(name, format!("invalid duration {text:?}")))?;
        Ok(u64::try_from(parsed).ok().filter(|bound| *bound > 0))
    }

    fn depth(&self) -> Result<usize, Failure> {
        let depth = self.get("query.searchDepth", "query.search_depth");
        let depth = depth.or_else(|| self.get("query.num_traces", "query.num_traces"));
        let Some((name, text)) = depth else {
            return Ok(DEFAULT_DEPTH);
        };
        match text.parse::<i32>().map(usize::try_from) {
            Ok(Ok(0)) => Ok(DEFAULT_DEPTH),
            Ok(Ok(depth)) => Ok(depth),
            Ok(Err(_)) | Err(_) => Err(malformed(name, format!("{text:?} is no number of traces"))),
        }
    }

    fn query(&self) -> Result<TraceQuery, Failure> {
        if self.get("query.filter", "query.filter").is_some() {
            let why = "filters are not supported here; use query.attributes";
            return Err(malformed("query.filter", why));
        }
        let mut tags = Vec::new();
        if let Some((name, text)) = self.get("query.attributes", "query.attributes") {
            let pairs: std::collections::BTreeMap<String, String> =
                serde_json::from_str(text).map_err(|error| malformed(name, error))?;
            tags.extend(pairs);
        }
        let start = self.time("query.startTimeMin", "query.start_time_min")?;
        let end = self.time("query.startTimeMax", "query.start_time_max")?;
        let (Some(start_min), Some(start_max)) = (start, end) else {
            let text = "query.startTimeMin and query.startTimeMax are required";
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        };
        if start_min >= start_max {
            let text = "query.startTimeMin must be before query.startTimeMax";
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        }
        let duration_min = self.duration("query.durationMin", "query.duration_min")?;
        let duration_max = self.duration("query.durationMax", "query.duration_max")?;
        if let (Some(min), Some(max)) = (duration_min, duration_max)
            && max < min
        {
            let text = "query.durationMax must not be less than query.durationMin";
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        }
        Ok(TraceQuery {
            service: self.text("query.serviceName", "query.service_name"),
            operation: self.text("query.operationName", "query.operation_name"),
            tags,
            start_min,
            start_max,
            duration_min,
            duration_max,
            limit: self.depth()?,
        })
    }
}

#[cfg(test)]
mod tests;
