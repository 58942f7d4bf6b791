//! What spans say of services: who calls whom, how often, how long it takes, how often it fails.

use super::time::Timestamp;

/// An edge of the dependency graph: spans of `child` whose parent is a span of `parent`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DependencyLink {
    pub parent: String,
    pub child: String,
    pub calls: u64,
}

/// A figure of services over time, as Jaeger's service performance monitoring asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceMetricsQuery {
    pub metric: ServiceMetric,
    /// At least one.
    pub services: Vec<String>,
    /// A series for each operation instead of one for each service.
    pub by_operation: bool,
    /// Values of `span.kind` that count; "" stands for spans without one.
    pub kinds: Vec<String>,
    /// The last point.
    pub end: Timestamp,
    /// The first point lies so long before the last; nanoseconds.
    pub lookback: u64,
    /// Between points; nanoseconds, at least 1.
    pub step: u64,
    /// Each point looks at the spans that started so long before it; nanoseconds, at least 1.
    pub rate_per: u64,
}

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServiceMetric {
    /// The quantile (0–1) of durations, milliseconds.
    Latency { quantile: f64 },
    /// Spans a second.
    CallRate,
    /// Share of spans that failed, 0–1.
    ErrorRate,
}

/// The points of one service or operation, oldest first. Points without spans are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSeries {
    pub service: String,
    /// Only when the query asks by operation.
    pub operation: Option<String>,
    pub points: Vec<(Timestamp, f64)>,
}
