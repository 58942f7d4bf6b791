//! `jaeger.api_v2.metrics.MetricsQueryService`: figures of services as gauges over time.

use std::sync::Arc;

use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

use crate::model::service_metrics::{SLOT, ServiceMetric, ServiceMetricsQuery, ServiceSeries};
use crate::model::time::SECOND;
use crate::protocol::jaeger::proto;
use crate::protocol::wire::jaeger::api_v2;
use crate::protocol::wire::jaeger::api_v2::metrics as wire;
use crate::server::grpc::jaeger_metrics::metrics_query_service_server::{
    MetricsQueryService, MetricsQueryServiceServer,
};
use crate::server::spans::TraceReader;

use super::super::asked::status;
use super::Shared;

/// What requests without these mean, as over HTTP; nanoseconds.
const LOOKBACK: u64 = 3_600_000_000_000;
const STEP: u64 = 5_000_000_000;
const RATE_PER: u64 = 600_000_000_000;
pub fn service<R: TraceReader>(shared: Arc<Shared<R>>) -> MetricsQueryServiceServer<Metrics<R>> {
    MetricsQueryServiceServer::new(Metrics(shared))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip)
}

pub struct Metrics<R>(Arc<Shared<R>>);

impl<R: TraceReader> Metrics<R> {
    async fn answer(
        &self,
        base: Option<wire::MetricsQueryBaseRequest>,
        metric: ServiceMetric,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let base = base.unwrap_or_default();
        if base.service_names.is_empty() {
            return Err(Status::invalid_argument(
                "please provide at least one service name",
            ));
        }
        let nanos = |duration: Option<api_v2::Duration>, default: u64| {
            let duration = duration.map(|duration| proto::duration(&duration));
            duration.filter(|nanos| *nanos > 0).unwrap_or(default)
        };
        let kinds = base.span_kinds().map(kind).collect::<Vec<_>>();
        let query = ServiceMetricsQuery {
            metric,
            by_operation: base.group_by_operation,
            kinds: if kinds.is_empty() {
                vec![kind(wire::SpanKind::Server)]
            } else {
                kinds
            },
            end: base
                .end_time
                .map_or_else(|| self.0.clock.now(), |at| proto::time(&at)),
            lookback: nanos(base.lookback, LOOKBACK),
            step: nanos(base.step, STEP),
            rate_per: nanos(base.rate_per, RATE_PER),
            services: base.service_names,
        };
        let by_operation = query.by_operation;
        let series = self.0.reader.service_metrics(query).await;
        let series = series.map_err(|e| status(&e))?;
        Ok(Response::new(wire::GetMetricsResponse {
            metrics: Some(family(metric, by_operation, series)),
        }))
    }
}

/// The value of `span.kind`.
fn kind(kind: wire::SpanKind) -> String {
    match kind {
        wire::SpanKind::Unspecified => "",
        wire::SpanKind::Internal => "internal",
        wire::SpanKind::Server => "server",
        wire::SpanKind::Client => "client",
        wire::SpanKind::Producer => "producer",
        wire::SpanKind::Consumer => "consumer",
    }
    .to_owned()
}

fn family(
    metric: ServiceMetric,
    by_operation: bool,
    series: Vec<ServiceSeries>,
) -> wire::MetricFamily {
    let (what, help) = match metric {
        ServiceMetric::Latency { quantile } => {
            ("latencies", format!("{quantile:.2}th quantile latency"))
        }
        ServiceMetric::CallRate => ("call_rate", "calls/sec".to_owned()),
        ServiceMetric::ErrorRate => (
            "error_rate",
            "error rate, computed as a fraction of errors/sec over calls/sec".to_owned(),
        ),
    };
    let (of, grouped) = if by_operation {
        ("service_operation", "service & operation")
    } else {
        ("service", "service")
    };
    let label = |name: &str, value: String| wire::Label {
        name: name.to_owned(),
        value,
    };
    let metrics = series.into_iter().map(|series| {
        let mut labels = vec![label("service_name", series.service)];
        labels.extend(series.operation.map(|name| label("operation", name)));
        let points = series.points.into_iter().map(|(at, value)| {
            let gauge = wire::GaugeValue {
                value: Some(wire::gauge_value::Value::DoubleValue(value)),
            };
            wire::MetricPoint {
                timestamp: Some(proto::time_message(at)),
                value: Some(wire::metric_point::Value::GaugeValue(gauge)),
            }
        });
        wire::Metric {
            labels,
            metric_points: points.collect(),
        }
    });
    wire::MetricFamily {
        name: format!("{of}_{what}"),
        r#type: wire::MetricType::Gauge as i32,
        unit: String::new(),
        help: format!("{help}, grouped by {grouped}"),
        metrics: metrics.collect(),
    }
}

#[tonic::async_trait]
impl<R: TraceReader> MetricsQueryService for Metrics<R> {
    async fn get_min_step_duration(
        &self,
        _: Request<wire::GetMinStepDurationRequest>,
    ) -> Result<Response<wire::GetMinStepDurationResponse>, Status> {
        Ok(Response::new(wire::GetMinStepDurationResponse {
            min_step: Some(api_v2::Duration {
                seconds: SLOT / SECOND,
                nanos: (SLOT % SECOND) as i32,
            }),
        }))
    }

    async fn get_latencies(
        &self,
        request: Request<wire::GetLatenciesRequest>,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let request = request.into_inner();
        let quantile = request.quantile;
        if !(0.0..=1.0).contains(&quantile) {
            return Err(Status::invalid_argument("quantile is not between 0 and 1"));
        }
        let metric = ServiceMetric::Latency { quantile };
        self.answer(request.base_request, metric).await
    }

    async fn get_call_rates(
        &self,
        request: Request<wire::GetCallRatesRequest>,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let request = request.into_inner();
        self.answer(request.base_request, ServiceMetric::CallRate)
            .await
    }

    async fn get_error_rates(
        &self,
        request: Request<wire::GetErrorRatesRequest>,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let request = request.into_inner();
        self.answer(request.base_request, ServiceMetric::ErrorRate)
            .await
    }
}
