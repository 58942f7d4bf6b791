//! What Jaeger's doors are built from, and what is read or calculated again while they are open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{AdaptiveSampling, Config, Sampling};
use crate::runtime::shutdown::Shutdown;
use crate::server::jaeger::sampling::Strategies;
use crate::server::jaeger::sampling::adaptive::{Adaptive, AdaptiveOptions};
use crate::server::jaeger::sampling::file::{FileMetrics, StrategiesFile, watch};
use crate::server::jaeger::ui::{Ui, UiOptions};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Name under which the store keeps probabilities. In the store and not in a file of its own:
/// what backup, recovery and a full disk mean for the one then holds for the other.
const KEPT_PROBABILITIES: &str = "sampling";

/// Files beside the configuration that may change while the process runs.
#[derive(Clone)]
pub struct Reloads {
    strategies: Option<Arc<StrategiesFile>>,
    ui: Arc<Ui>,
}

impl Reloads {
    /// Reads the files; a problem with them is for `/ready`, not for the start.
    pub fn open(config: &Config, metrics: &Metrics) -> Self {
        let strategies = match &config.jaeger.sampling {
            Sampling::File {
                path: Some(path), ..
            } => {
                let file = StrategiesFile::open(path.clone(), FileMetrics::new(metrics));
                Some(Arc::new(file))
            }
            _ => None,
        };
        let ui = Ui::open(UiOptions {
            dir: config.jaeger.ui.dir.clone(),
            config: config.jaeger.ui.config.clone(),
            base_path: config.jaeger.ui.base_path.clone(),
        });
        Self {
            strategies,
            ui: Arc::new(ui),
        }
    }

    pub fn ui(&self) -> Arc<Ui> {
        self.ui.clone()
    }

    /// Looks for changes from now on.
    pub fn watch(&self, config: &Config, shutdown: &Shutdown) {
        if let Sampling::File {
            reload_interval: Some(every),
            ..
        } = config.jaeger.sampling
            && let Some(file) = &self.strategies
        {
            tokio::spawn(watch(file.clone(), every, shutdown.clone()));
        }
    }

    /// Reads everything again. Blocks.
    pub fn reload(&self) {
        if let Some(file) = &self.strategies {
            file.reload();
        }
        self.ui.reload();
    }

    /// What is wrong with the files, a line each.
    pub fn problems(&self) -> Vec<String> {
        let strategies = self.strategies.as_ref().and_then(|file| file.problem());
        strategies.into_iter().chain(self.ui.problem()).collect()
    }
}

/// Where strategies come from, and adaptive sampling where that is it.
pub fn strategies(
    config: &Config,
    reloads: &Reloads,
    store: &Store,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> (Strategies, Option<Arc<Adaptive>>) {
    match &config.jaeger.sampling {
        Sampling::Adaptive(options) => {
            let kept = store.kept(KEPT_PROBABILITIES).unwrap_or_else(|error| {
                tracing::error!("kept probabilities can't be read: {error}");
                None
            });
            let adaptive = Adaptive::new(adaptive_options(options), kept.as_deref(), metrics);
            let adaptive = Arc::new(adaptive);
            tokio::spawn(calculate(adaptive.clone(), store.clone(), shutdown.clone()));
            (Strategies::Adaptive(adaptive.clone()), Some(adaptive))
        }
        Sampling::File { .. } => match &reloads.strategies {
            Some(file) => (Strategies::File(file.clone()), None),
            None => (Strategies::Default, None),
        },
    }
}

fn adaptive_options(options: &AdaptiveSampling) -> AdaptiveOptions {
    AdaptiveOptions {
        target_samples_per_second: options.target_samples_per_second,
        delta_tolerance: options.delta_tolerance,
        buckets_for_calculation: super::to_usize(options.buckets_for_calculation),
        calculation_interval: options.calculation_interval,
        aggregation_buckets: super::to_usize(options.aggregation_buckets),
        delay: options.delay,
        initial_sampling_probability: options.initial_sampling_probability,
        min_sampling_probability: options.min_sampling_probability,
        min_samples_per_second: options.min_samples_per_second,
    }
}

/// Calculates each interval and keeps what came of it, until the process ends.
async fn calculate(adaptive: Arc<Adaptive>, store: Store, mut shutdown: Shutdown) {
    let mut began = Instant::now();
    let mut last = Vec::new();
    let mut failed = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(adaptive.interval()) => {}
            () = shutdown.wait() => return,
        }
        let elapsed: Duration = began.elapsed();
        began = Instant::now();
        let kept = adaptive.calculate(elapsed);
        if kept == last {
            continue;
        }
        let (store, written) = (store.clone(), kept.clone());
        let task = move || store.keep(KEPT_PROBABILITIES, &written);
        match tokio::task::spawn_blocking(task).await {
            Ok(Ok(())) => (last, failed) = (kept, false),
            Ok(Err(error)) if !failed => {
                tracing::error!(
                    "probabilities can't be kept, a restart would forget them: {error}"
                );
                failed = true;
            }
            _ => {}
        }
    }
}
