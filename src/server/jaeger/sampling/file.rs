//! The strategies file on the disk: read again when it changes.
//!
//! R1. A text that can't be used changes no answer: the last good one holds, and the problem is
//!     told until the file is good again.
//! R2. Without any good text since the start, nobody is answered with a guess: clients keep
//!     sampling as they do when they are told of an error.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::rules::Rules;
use super::strategy::Strategy;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::metrics::{Counter, Family, Gauge, Metrics, Reason};

/// Larger files are refused: it is read as a whole.
const MAX_FILE: u64 = 4 << 20;

/// What became of reads of the file.
#[derive(Clone)]
pub struct FileMetrics {
    reads: Family<Reason, Counter>,
    good: Gauge,
}

impl FileMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            reads: metrics.register(
                "sampling_strategies_read",
                "Changes of the strategies file, by result: ok, or failed and the last good one kept",
                Family::default(),
            ),
            good: metrics.gauge(
                "sampling_strategies_good",
                "1 while the strategies file is as good as what is answered",
            ),
        }
    }
}

/// A strategies file and what it last said.
pub struct StrategiesFile {
    path: PathBuf,
    rules: ArcSwapOption<Rules>,
    state: Mutex<State>,
    metrics: FileMetrics,
}

#[derive(Default)]
struct State {
    /// As it was read last, good or not.
    text: Option<String>,
    problem: Option<String>,
}

impl StrategiesFile {
    /// Reads the file; a problem with it is told, and does not keep anybody from starting.
    pub fn open(path: PathBuf, metrics: FileMetrics) -> Self {
        let file = Self {
            path,
            rules: ArcSwapOption::empty(),
            state: Mutex::default(),
            metrics,
        };
        file.reload();
        file
    }

    /// Reads the file again and takes what changed. Blocks.
    pub fn reload(&self) {
        let mut state = self.state.lock();
        let read = self.read();
        if let Ok(text) = &read
            && state.text.as_ref() == Some(text)
        {
            return;
        }
        // A file that can't be read has no text; when it is back, it is read anew.
        state.text = read.as_ref().ok().cloned();
        let parsed = read.and_then(|text| Rules::parse(&text));
        match parsed {
            Ok((rules, warnings)) => {
                for warning in warnings {
                    tracing::warn!(file = %self.path.display(), "strategies file: {warning}");
                }
                let services = rules.services();
                tracing::info!(file = %self.path.display(), services, "strategies file read");
                self.rules.store(Some(Arc::new(rules)));
                state.problem = None;
                self.count("ok");
                self.metrics.good.set(1);
            }
            Err(error) => {
                let problem = format!("strategies file {}: {error}", self.path.display());
                if state.problem.as_ref() == Some(&problem) {
                    return;
                }
                tracing::error!("{problem}; {}", self.instead());
                state.problem = Some(problem);
                self.count("failed");
                self.metrics.good.set(0);
            }
        }
    }

    fn read(&self) -> Result<String, String> {
        let file = std::fs::File::open(&self.path).map_err(|error| error.to_string())?;
        let mut text = String::new();
        let mut bounded = file.take(MAX_FILE + 1);
        let length = bounded
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        if length as u64 > MAX_FILE {
            return Err(format!("is larger than {MAX_FILE} bytes"));
        }
        Ok(text)
    }

    fn count(&self, result: &'static str) {
        self.metrics
            .reads
            .get_or_create(&[("result", result)])
            .inc();
    }

    fn instead(&self) -> &'static str {
        match self.rules.load().is_some() {
            true => "the last good one is answered",
            false => "there is no good one to answer: clients are told so",
        }
    }

    /// What is wrong with the file now, for `/ready`.
    pub fn problem(&self) -> Option<String> {
        let state = self.state.lock();
        let problem = state.problem.as_ref()?;
        Some(format!("{problem}; {}", self.instead()))
    }

    /// What clients of a service are told, or why they can't be.
    pub fn of(&self, service: &str) -> Result<Strategy, String> {
        match &*self.rules.load() {
            Some(rules) => Ok(rules.of(service)),
            None => Err(self.problem().unwrap_or_default()),
        }
    }
}

/// Looks whether the file changed, until the process ends.
pub async fn watch(file: Arc<StrategiesFile>, every: Duration, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.wait() => return,
        }
        let file = file.clone();
        let _ = tokio::task::spawn_blocking(move || file.reload()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::jaeger::sampling::strategy::Sampler;

    fn text(rate: f64) -> String {
        format!(r#"{{"default_strategy": {{"type": "probabilistic", "param": {rate}}}}}"#)
    }

    #[test]
    fn a_broken_file_keeps_the_last_good_one_and_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("strategies.json");
        let metrics = Metrics::default();
        let file = StrategiesFile::open(path.clone(), FileMetrics::new(&metrics));
        // R2: nothing to answer with.
        let error = file.of("x").expect_err("no file");
        assert!(
            error.contains("No such file") && error.contains("no good one"),
            "{error}"
        );
        let rate = || file.of("x").map(|strategy| strategy.sampler);
        std::fs::write(&path, text(0.5)).expect("written");
        file.reload();
        assert_eq!(rate(), Ok(Sampler::Probabilistic(0.5)));
        assert_eq!(file.problem(), None);
        for broken in [
            "{",
            "{\"default_strategy\": {\"type\": \"probabilistic\", \"param\": 2}}",
        ] {
            std::fs::write(&path, broken).expect("written");
            file.reload();
            file.reload();
            assert_eq!(rate(), Ok(Sampler::Probabilistic(0.5)), "{broken}");
            let problem = file.problem().expect("told");
            assert!(
                problem.ends_with("the last good one is answered"),
                "{problem}"
            );
        }
        std::fs::remove_file(&path).expect("removed");
        file.reload();
        assert_eq!(rate(), Ok(Sampler::Probabilistic(0.5)));
        assert!(
            metrics
                .render()
                .contains("watchpost_sampling_strategies_good 0\n")
        );
        // The text that was good before is good again.
        std::fs::write(&path, text(0.5)).expect("written");
        file.reload();
        assert_eq!(file.problem(), None);
        let rendered = metrics.render();
        for line in [
            "watchpost_sampling_strategies_good 1\n",
            "watchpost_sampling_strategies_read_total{result=\"ok\"} 2\n",
            "watchpost_sampling_strategies_read_total{result=\"failed\"} 4\n",
        ] {
            assert!(rendered.contains(line), "{line} in {rendered}");
        }
    }

    #[test]
    fn a_file_too_large_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("strategies.json");
        std::fs::write(&path, " ".repeat(MAX_FILE as usize + 1)).expect("written");
        let file = StrategiesFile::open(path, FileMetrics::new(&Metrics::default()));
        assert!(file.problem().expect("told").contains("is larger than"));
    }
}
