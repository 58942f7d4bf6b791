//! What Jaeger's doors are built from, and what is read again while they are open.

use std::sync::Arc;

use crate::config::Config;
use crate::runtime::shutdown::Shutdown;
use crate::server::jaeger::sampling::Strategies;
use crate::server::jaeger::sampling::file::{FileMetrics, StrategiesFile, watch};
use crate::telemetry::metrics::Metrics;

/// Files beside the configuration that may change while the process runs.
#[derive(Clone, Default)]
pub struct Reloads {
    strategies: Option<Arc<StrategiesFile>>,
}

impl Reloads {
    /// Reads the files; a problem with them is for `/ready`, not for the start.
    pub fn open(config: &Config, metrics: &Metrics) -> Self {
        let sampling = &config.jaeger.sampling;
        let strategies = sampling.strategies_file.clone().map(|path| {
            let metrics = FileMetrics::new(metrics);
            Arc::new(StrategiesFile::open(path, metrics))
        });
        Self { strategies }
    }

    /// Looks for changes from now on.
    pub fn watch(&self, config: &Config, shutdown: &Shutdown) {
        let every = config.jaeger.sampling.reload_interval;
        if let (Some(file), Some(every)) = (&self.strategies, every) {
            tokio::spawn(watch(file.clone(), every, shutdown.clone()));
        }
    }

    /// Reads everything again. Blocks.
    pub fn reload(&self) {
        if let Some(file) = &self.strategies {
            file.reload();
        }
    }

    /// What is wrong with the files, a line each.
    pub fn problems(&self) -> Vec<String> {
        let strategies = self.strategies.as_ref().and_then(|file| file.problem());
        strategies.into_iter().collect()
    }

    pub fn strategies(&self) -> Strategies {
        match &self.strategies {
            Some(file) => Strategies::File(file.clone()),
            None => Strategies::Default,
        }
    }
}
