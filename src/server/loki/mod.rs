//! Loki's HTTP API: pushes and queries.
//!
//! Speaks HTTP and Loki's parameters; what is acceptable says `ingest`, what a query means
//! says `logql`, how it runs says whoever implements [`LogReader`].

pub mod delete;
mod detected;
pub mod explore;
pub mod export;
mod fields;
mod labels;
mod legacy;
mod params;
mod patterns;
pub(in crate::server) mod push;
mod query;
pub mod rules;
mod streaming;
pub mod tail;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on, post};

use crate::ingest::{Ingest, LogSink};
use crate::model::{Labels, Matcher, TimeRange};
use crate::protocol::loki::push::DecodeLimits;
use crate::protocol::loki::response;
use crate::protocol::otlp::logs::{Mapping, RESOURCE_LABELS};
use crate::query::answer::{
    IndexStats, LogAnswer, LogQuery, MetricAnswer, MetricQuery, QueryError,
};
use crate::query::certain::Growing;
use crate::runtime::clock::Clock;
use crate::runtime::permits::Account;
use crate::runtime::pool::{Lane, Pool};
use crate::server::error::LokiError;
use crate::telemetry::build;
use crate::telemetry::metrics::{Counter, Family, Metrics, Reason};

pub(super) use params::Params;
pub use push::replay;

/// Who answers queries. Tenant "" unless tenancy is on.
pub trait LogReader: explore::ExploreReader {
    /// Lines, and those that are certain before the answer is complete.
    fn growing_logs(&self, tenant: &Arc<str>, query: LogQuery) -> Growing;

    fn logs(
        &self,
        tenant: &Arc<str>,
        query: LogQuery,
    ) -> impl Future<Output = Result<LogAnswer, QueryError>> + Send {
        self.growing_logs(tenant, query).answer
    }

    /// Numbers and `vector(n)` come here as well, except for instant queries of a number.
    fn metric(
        &self,
        tenant: &Arc<str>,
        query: MetricQuery,
    ) -> impl Future<Output = Result<MetricAnswer, QueryError>> + Send;

    /// Names of stream labels of streams with lines in the range. No matchers: all streams.
    fn label_names(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> impl Future<Output = Result<Vec<Arc<str>>, QueryError>> + Send;

    fn label_values(
        &self,
        tenant: &Arc<str>,
        name: &str,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> impl Future<Output = Result<Vec<Arc<str>>, QueryError>> + Send;

    /// Streams that any of the selectors matches, each once. No selectors: all streams.
    fn series(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        selectors: Vec<Vec<Matcher>>,
    ) -> impl Future<Output = Result<Vec<Labels>, QueryError>> + Send;

    fn index_stats(
        &self,
        tenant: &Arc<str>,
        matchers: Vec<Matcher>,
        range: TimeRange,
    ) -> impl Future<Output = Result<IndexStats, QueryError>> + Send;
}

/// How the API behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Require `X-Scope-OrgID` and keep tenants apart; else the header is ignored.
    pub tenancy: bool,
    /// Bytes of a push as received.
    pub max_push_bytes: usize,
    pub decode: DecodeLimits,
    /// Which attributes of OTLP's resources become labels.
    pub otlp: Arc<Mapping>,
    /// How long a push may wait for memory before it is told to come again. Less than
    /// the 10 s after which clients give up.
    pub memory_patience: Duration,
    pub max_entries_limit: usize,
    /// Longest range of a query.
    pub max_query_length: Duration,
    /// Series of a metric answer.
    pub max_query_series: usize,
    pub explore: explore::ExploreOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tenancy: false,
            max_push_bytes: 32 << 20,
            decode: DecodeLimits::default(),
            otlp: Arc::new(Mapping::new(&RESOURCE_LABELS, true)),
            memory_patience: Duration::from_secs(5),
            max_entries_limit: 5000,
            max_query_length: Duration::from_secs(721 * 3600),
            max_query_series: 500,
            explore: explore::ExploreOptions::default(),
        }
    }
}

/// Everything the handlers need.
pub struct Api<S, R> {
    pub ingest: Ingest<S>,
    pub reader: R,
    pub options: Options,
    pub pool: Pool,
    pub clock: Clock,
    /// Bodies of pushes and what they decode to.
    pub memory: Account,
    pub metrics: LokiMetrics,
}

/// What the API counts beside what others do.
#[derive(Clone)]
pub struct LokiMetrics {
    /// Answers that had begun and could not be completed.
    broken: Family<Reason, Counter>,
}

impl LokiMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            broken: metrics.refusals(
                "query_answers_broken",
                "Log answers that had begun and were broken off, by reason",
            ),
        }
    }
}

/// All routes of the API. Unknown paths are answered as Loki does.
pub fn router<S: LogSink, R: LogReader>(api: Arc<Api<S, R>>) -> Router {
    // Every query endpoint takes both methods; a wrong one gets 405 and an empty body.
    let asked = MethodFilter::GET.or(MethodFilter::POST);
    Router::new()
        .route("/loki/api/v1/push", post(push::push_v1::<S, R>))
        .route("/api/prom/push", post(push::push_legacy::<S, R>))
        .route("/loki/api/v1/query", on(asked, query::instant::<S, R>))
        .route("/loki/api/v1/query_range", on(asked, query::range::<S, R>))
        .route(
            "/loki/api/v1/format_query",
            on(asked, query::format_query::<S, R>),
        )
        .route("/loki/api/v1/labels", on(asked, labels::names::<S, R>))
        .route("/loki/api/v1/label", on(asked, labels::names::<S, R>))
        .route(
            "/loki/api/v1/label/{name}/values",
            on(asked, labels::values::<S, R>),
        )
        .route("/loki/api/v1/series", on(asked, labels::series::<S, R>))
        .route(
            "/loki/api/v1/index/stats",
            on(asked, labels::index_stats::<S, R>),
        )
        .route("/api/prom/query", on(asked, legacy::query::<S, R>))
        .route("/api/prom/label", on(asked, labels::legacy_names::<S, R>))
        .route(
            "/api/prom/label/{name}/values",
            on(asked, labels::legacy_values::<S, R>),
        )
        .route("/api/prom/series", on(asked, labels::series::<S, R>))
        .route("/loki/api/v1/status/buildinfo", get(build_info))
        .merge(explore::routes())
        .with_state(api)
        .fallback(not_found)
}

/// What Loki says to an unknown path.
pub async fn not_found() -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

async fn build_info() -> Response {
    json(response::build_info(build::LOKI_VERSION, build::VERSION))
}

/// A successful answer of the v1 endpoints.
fn json(body: Vec<u8>) -> Response {
    typed_json(StatusCode::OK, "application/json; charset=UTF-8", body)
}

/// Answers with more lines, points or names than this are rendered on the pool: some
/// milliseconds that no other connection should wait for.
const INLINE_ITEMS: usize = 2000;

/// Renders an answer of so many items, and answers with it.
async fn render<S, R>(
    api: &Api<S, R>,
    items: usize,
    body: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Result<Response, LokiError> {
    let body = if items <= INLINE_ITEMS {
        body()
    } else {
        api.pool.run(Lane::First, body).await?
    };
    Ok(json(body))
}

fn typed_json(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
    (status, headers, Body::from(body)).into_response()
}

/// Longest name of a tenant, bytes.
const MAX_TENANT_LENGTH: usize = 150;

/// The tenant of a request.
pub(in crate::server) fn tenant(
    options: &Options,
    headers: &HeaderMap,
) -> Result<Arc<str>, LokiError> {
    if !options.tenancy {
        return Ok(Arc::default());
    }
    let tenant = match headers.get("x-scope-orgid").map(HeaderValue::to_str) {
        None => return Err(LokiError::no_tenant()),
        Some(Ok("")) => return Err(LokiError::no_tenant()),
        Some(Ok(tenant)) => tenant,
        Some(Err(_)) => return Err(LokiError::invalid("tenant id is not printable ASCII")),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
    if tenant.len() > MAX_TENANT_LENGTH || tenant == "." || tenant == ".." {
        return Err(LokiError::invalid("tenant id is too long or unsafe"));
    }
    match tenant.bytes().find(|b| !allowed(*b)) {
        Some(b) => Err(LokiError::invalid(format!(
            "tenant id '{tenant}' contains unsupported character '{}'",
            char::from(b)
        ))),
        None => Ok(tenant.into()),
    }
}

#[cfg(test)]
mod tests;
