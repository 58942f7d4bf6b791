//! What Jaeger's query API says of services: dependencies, and the figures of its Monitor page.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::Uri;

use super::query_http::{Api, Failure, Params, answer, unparsable};
use crate::model::service_metrics::{SLOT, ServiceMetric, ServiceMetricsQuery};
use crate::model::time::{DAY, HOUR, MINUTE, SECOND, TimeRange};
use crate::protocol::jaeger::json;
use crate::server::spans::TraceReader;

const MILLISECOND: i64 = 1_000_000;

/// Defaults of dependencies and metrics, nanoseconds.
const DEPENDENCIES_LOOKBACK: i64 = DAY;
const METRICS_LOOKBACK: i64 = HOUR;
const METRICS_STEP: i64 = 5 * SECOND;
const METRICS_RATE_PER: i64 = 10 * MINUTE;

/// Values of `spanKind`; the first stands for spans that have none.
const KINDS: [&str; 6] = [
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
];

pub(super) fn routes<R: TraceReader>() -> Router<Arc<Api<R>>> {
    Router::new()
        .route("/api/dependencies", get(dependencies::<R>))
        .route("/api/metrics/latencies", get(latencies::<R>))
        .route("/api/metrics/calls", get(calls::<R>))
        .route("/api/metrics/errors", get(errors::<R>))
        .route("/api/metrics/minstep", get(min_step))
}

async fn dependencies<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    let params = Params::of(&uri);
    answer(&params, |layout| {
        let (params, api) = (&params, &api);
        async move {
            let (end, lookback) = params.range(api.clock.now(), DEPENDENCIES_LOOKBACK)?;
            let range = TimeRange::inclusive(end.saturating_sub(lookback), end);
            let mut links = api.reader.dependencies(range).await?;
            if let Some(service) = params.first("service") {
                links.retain(|link| link.parent == service || link.child == service);
            }
            Ok(json::dependencies(&links, layout))
        }
    })
    .await
}

async fn latencies<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    metrics(&api, &uri, |params| {
        Ok(ServiceMetric::Latency {
            quantile: params.quantile()?,
        })
    })
    .await
}

async fn calls<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    metrics(&api, &uri, |_| Ok(ServiceMetric::CallRate)).await
}

async fn errors<R: TraceReader>(State(api): State<Arc<Api<R>>>, uri: Uri) -> Response {
    metrics(&api, &uri, |_| Ok(ServiceMetric::ErrorRate)).await
}

/// What a point's time can tell apart, in milliseconds.
async fn min_step(uri: Uri) -> Response {
    answer(&Params::of(&uri), |layout| async move {
        Ok(json::number((SLOT / MILLISECOND) as u64, layout))
    })
    .await
}

async fn metrics<R: TraceReader>(
    api: &Api<R>,
    uri: &Uri,
    metric: impl FnOnce(&Params) -> Result<ServiceMetric, Failure>,
) -> Response {
    let params = Params::of(uri);
    answer(&params, |layout| {
        let params = &params;
        async move {
            let metric = metric(params)?;
            let query = params.metrics_query(metric, api.clock.now())?;
            let by_operation = query.by_operation;
            let series = api.reader.service_metrics(query).await?;
            Ok(json::metric_family(metric, by_operation, &series, layout))
        }
    })
    .await
}

impl Params {
    /// When a range ends, and how long it is: `endTs` and `lookback`.
    fn range(&self, now: i64, default: i64) -> Result<(i64, i64), Failure> {
        let end = self.integer::<i64>("endTs")?;
        let end = end.map_or(now, |end| end.saturating_mul(MILLISECOND));
        Ok((end, self.milliseconds("lookback", 0)?.unwrap_or(default)))
    }

    /// A duration in whole milliseconds, as nanoseconds.
    fn milliseconds(&self, name: &str, least: i64) -> Result<Option<i64>, Failure> {
        match self.integer::<i64>(name)? {
            Some(value) if value < least => Err(unparsable(
                name,
                &format!("{value} is too small, at least {least} is needed"),
            )),
            value => Ok(value.map(|value| value.saturating_mul(MILLISECOND))),
        }
    }

    fn quantile(&self) -> Result<f64, Failure> {
        let text = self.first("quantile").unwrap_or_default();
        let quantile: f64 = text.parse().map_err(|_| {
            unparsable(
                "quantile",
                &format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"),
            )
        })?;
        if quantile > 0.0 && quantile <= 1.0 {
            Ok(quantile)
        } else {
            let text = "please provide a quantile between (0, 1]";
            Err(unparsable("quantile", text))
        }
    }

    fn metrics_query(
        &self,
        metric: ServiceMetric,
        now: i64,
    ) -> Result<ServiceMetricsQuery, Failure> {
        let mut services: Vec<String> = Vec::new();
        for text in self.all("service").filter(|text| !text.is_empty()) {
            services.push(text.to_owned());
            // The UI sends several as one.
            if text.contains(',') {
                let parts = text.split(',').filter(|part| !part.is_empty());
                services.extend(parts.map(str::to_owned));
            }
        }
        if services.is_empty() {
            let text = "please provide at least one service name";
            return Err(unparsable("service", text));
        }
        let by_operation = self.bool("groupByOperation")?;
        let mut kinds = Vec::new();
        for kind in self.all("spanKind") {
            match KINDS.iter().position(|known| *known == kind) {
                Some(0) => kinds.push(String::new()),
                Some(_) => kinds.push(kind.to_owned()),
                None => {
                    let text = format!("unsupported span kind: '{kind}'");
                    return Err(unparsable("spanKind", &text));
                }
            }
        }
        if kinds.is_empty() {
            kinds.push("server".into());
        }
        let (end, lookback) = self.range(now, METRICS_LOOKBACK)?;
        let step = self.milliseconds("step", 1)?.unwrap_or(METRICS_STEP);
        let rate_per = self.milliseconds("ratePer", 1)?;
        Ok(ServiceMetricsQuery {
            metric,
            services,
            by_operation,
            kinds,
            end,
            // None of them is negative.
            lookback: lookback.unsigned_abs(),
            step: step.unsigned_abs(),
            rate_per: rate_per.unwrap_or(METRICS_RATE_PER).unsigned_abs(),
        })
    }
}

#[cfg(test)]
mod tests;
