//! The registry of metrics. A part's metrics are a struct beside its code that registers
//! here when it is built; nothing is global.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::{Metric, Registry};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// Label set of one label called `reason`, for refusals.
pub type Reason = [(&'static str, &'static str); 1];

/// Where parts register; cheap to clone. Every name begins with `watchpost_`.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("watchpost"))))
    }
}

impl Metrics {
    /// Registers `metric` as `watchpost_<name>` (counters get `_total` when rendered) and
    /// returns it for keeping.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.lock().register(name, help, metric.clone());
        metric
    }

    /// A counter, `watchpost_<name>_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A gauge, `watchpost_<name>`.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Counters by `reason`.
    pub fn refusals(&self, name: &str, help: &str) -> Family<Reason, Counter> {
        self.register(name, help, Family::default())
    }

    /// Everything in the Prometheus text format (OpenMetrics 1.0 flavour).
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; a failing encoder would be a bug of a metric.
        if prometheus_client::encoding::text::encode(&mut out, &self.0.lock()).is_err() {
            out.push_str("# encoding failed\n");
        }
        out
    }
}
