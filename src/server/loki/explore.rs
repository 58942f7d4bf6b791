//! What Grafana's Explore and Logs Drilldown ask beyond queries: who answers it, and where.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};

use crate::ingest::LogSink;
use crate::model::{Matcher, level};
use crate::protocol::loki::response::explore::{DrilldownLimits, drilldown_limits};
use crate::query::answer::QueryError;
use crate::query::patterns::{PatternCounts, PatternQuery};
use crate::query::volume::{Volume, VolumeQuery};
use crate::server::error::LokiError;
use crate::telemetry::build;

use super::params::{Params, shown_duration};
use super::{Api, LogReader, detected, fields, json, patterns, tenant, volume};

/// Who answers the explorers. Tenant "" unless tenancy is on.
pub trait ExploreReader: Send + Sync + 'static {
    /// Bytes of lines by labels, the largest first.
    fn volume(
        &self,
        tenant: &Arc<str>,
        query: VolumeQuery,
    ) -> impl Future<Output = Result<Vec<Volume>, QueryError>> + Send;

    /// Templates of lines and how often each came, the most frequent first.
    fn patterns(
        &self,
        tenant: &Arc<str>,
        matchers: Vec<Matcher>,
        query: PatternQuery,
    ) -> impl Future<Output = Result<Vec<PatternCounts>, QueryError>> + Send;
}

/// What the explorers may ask for, and what they are told of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct ExploreOptions {
    /// Off: `patterns` is answered as by a Loki without a pattern ingester.
    pub patterns: bool,
    pub discover_log_levels: bool,
    pub discover_service_name: Vec<String>,
    pub query_timeout: Duration,
    /// `None`: everything is kept.
    pub retention: Option<Duration>,
    /// Groups of an answer for volumes at most, whatever `limit` says.
    pub volume_max_series: usize,
}

impl Default for ExploreOptions {
    fn default() -> Self {
        Self {
            patterns: true,
            discover_log_levels: true,
            discover_service_name: Vec::new(),
            query_timeout: Duration::from_secs(60),
            retention: None,
            // Drilldown asks for 5,000; each is a line of some hundred bytes.
            volume_max_series: 10_000,
        }
    }
}

/// The routes; all take GET and POST.
pub fn routes<S: LogSink, R: LogReader>() -> Router<Arc<Api<S, R>>> {
    let asked = MethodFilter::GET.or(MethodFilter::POST);
    Router::new()
        .route(
            "/loki/api/v1/index/volume",
            on(asked, volume::whole::<S, R>),
        )
        .route(
            "/loki/api/v1/index/volume_range",
            on(asked, volume::range::<S, R>),
        )
        .route(
            "/loki/api/v1/detected_labels",
            on(asked, detected::labels::<S, R>),
        )
        .route(
            "/loki/api/v1/detected_fields",
            on(asked, fields::fields::<S, R>),
        )
        .route(
            "/loki/api/v1/detected_field/{name}/values",
            on(asked, fields::values::<S, R>),
        )
        .route(
            "/loki/api/v1/patterns",
            on(asked, patterns::patterns::<S, R>),
        )
        .route("/loki/api/v1/drilldown-limits", on(asked, limits::<S, R>))
}

async fn limits<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    match tell_limits(&api, request).await {
        Ok(body) => json(body),
        Err(error) => error.into_response(),
    }
}

async fn tell_limits<S, R>(api: &Api<S, R>, request: Request) -> Result<Vec<u8>, LokiError> {
    let (headers, _) = Params::read(request).await?;
    tenant(&api.options, &headers)?;
    let shown =
        |duration: Duration| shown_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    let options = &api.options;
    let explore = &options.explore;
    Ok(drilldown_limits(&DrilldownLimits {
        version: build::LOKI_VERSION,
        patterns: explore.patterns,
        discover_log_levels: explore.discover_log_levels,
        discover_service_name: &explore.discover_service_name,
        log_level_fields: &level::KEYS,
        max_entries_limit_per_query: options.max_entries_limit,
        max_query_length: &shown(options.max_query_length),
        query_timeout: &shown(explore.query_timeout),
        retention_period: &shown(explore.retention.unwrap_or_default()),
        max_query_series: options.max_query_series,
        volume_max_series: explore.volume_max_series,
    }))
}
