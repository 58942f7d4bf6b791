//! What is known of services: who calls whom, and figures over time.

use super::{JsonWriter, Layout, envelope};
use crate::model::service_metrics::{DependencyLink, ServiceMetric, ServiceSeries};
use crate::model::time::Timestamp;

/// The envelope around the edges of the dependency graph.
pub fn dependencies(links: &[DependencyLink], layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    envelope(&mut out, 0, &[], |out| {
        out.array(|out| {
            for link in links {
                out.element();
                out.object(|out| {
                    out.key("parent");
                    out.string(&link.parent);
                    out.key("child");
                    out.string(&link.child);
                    out.key("callCount");
                    out.number(link.calls);
                });
            }
        });
    });
    out.text
}

/// The envelope around one number.
pub fn number(number: u64, layout: Layout) -> String {
    let mut out = JsonWriter::new(layout);
    envelope(&mut out, 0, &[], |out| out.number(number));
    out.text
}

/// A figure over time as Jaeger's `MetricFamily`, without an envelope. `metrics` is there also
/// when it is empty: Jaeger leaves it out, and its own UI fails on that.
pub fn metric_family(
    metric: ServiceMetric,
    by_operation: bool,
    series: &[ServiceSeries],
    layout: Layout,
) -> String {
    let what = match metric {
        ServiceMetric::Latency { .. } => "latencies",
        ServiceMetric::CallRate => "call_rate",
        ServiceMetric::ErrorRate => "error_rate",
    };
    let (scope, grouped) = if by_operation {
        ("service_operation", "grouped by service & operation")
    } else {
        ("service", "grouped by service")
    };
    let help = match metric {
        ServiceMetric::Latency { quantile } => {
            format!("{quantile:.2}th quantile latency, {grouped}")
        }
        ServiceMetric::CallRate => format!("calls/sec, {grouped}"),
        ServiceMetric::ErrorRate => {
            format!("error rate, computed as a fraction of errors/sec over calls/sec, {grouped}")
        }
    };
    let mut out = JsonWriter::new(layout);
    out.object(|out| {
        out.key("name");
        out.string(&format!("{scope}_{what}"));
        out.key("type");
        out.string("GAUGE");
        out.key("help");
        out.string(&help);
        out.key("metrics");
        out.array(|out| {
            for one in series {
                out.element();
                write_series(out, one);
            }
        });
    });
    out.text
}

fn write_series(out: &mut JsonWriter, series: &ServiceSeries) {
    out.object(|out| {
        out.key("labels");
        out.array(|out| {
            let operation = series.operation.as_deref();
            let labels = operation.map(|name| ("operation", name));
            for (name, value) in labels
                .into_iter()
                .chain([("service_name", series.service.as_str())])
            {
                out.element();
                out.object(|out| {
                    out.key("name");
                    out.string(name);
                    out.key("value");
                    out.string(value);
                });
            }
        });
        out.key("metricPoints");
        out.array(|out| {
            for (at, value) in &series.points {
                out.element();
                out.object(|out| {
                    out.key("gaugeValue");
                    out.object(|out| {
                        out.key("doubleValue");
                        out.float(*value);
                    });
                    out.key("timestamp");
                    out.string(&rfc3339(*at));
                });
            }
        });
    });
}

/// With as many decimals as are not zeros. `jiff` covers all that a timestamp can say.
fn rfc3339(at: Timestamp) -> String {
    let shown = jiff::Timestamp::from_nanosecond(i128::from(at));
    shown.unwrap_or_default().to_string()
}
