//! Adaptive sampling: probabilities that bring a target number of samples per second of each
//! service and operation, from the root spans that come in.
//!
//! P1. How much traffic there is follows from what came: a root span that was sampled with
//!     probability p stands for 1/p traces. So an old span says as much as a new one, and what
//!     clients have not yet heard of makes nothing swing. (Jaeger looks at the samples alone,
//!     and so has to tell which probability they were drawn with.)
//! P2. Down at once, up by half at most: too many samples cost more than too few.
//! P3. Services, operations and answers are bounded; what does not fit is counted, and gets the
//!     initial probability.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::strategy::{OperationSampling, Sampler, Strategy};
use crate::server::spans::seen::{Root, SamplerType};
use crate::telemetry::metrics::{Counter, Gauge, Metrics};

/// Operations of one service: clients get all of them in each answer.
const MAX_OPERATIONS_OF_SERVICE: usize = 1_000;
/// Operations of all services together.
const MAX_OPERATIONS: usize = 20_000;
/// Longer names are not kept.
const MAX_NAME: usize = 1_024;
/// A probability is raised by this factor at most.
const RAISE: f64 = 1.5;
/// The same where not a single sample came although there is traffic.
const RAISE_WITHOUT_SAMPLES: f64 = 2.0;

/// As Jaeger names them.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveOptions {
    /// Of each operation of each service.
    pub target_samples_per_second: f64,
    /// How far from the target is near enough, as a part of it.
    pub delta_tolerance: f64,
    pub buckets_for_calculation: usize,
    pub calculation_interval: Duration,
    /// An operation that was silent for this many intervals is forgotten.
    pub aggregation_buckets: usize,
    /// How old traffic is that is looked at.
    pub delay: Duration,
    pub initial_sampling_probability: f64,
    pub min_sampling_probability: f64,
    /// What clients sample in any case.
    pub min_samples_per_second: f64,
}

impl Default for AdaptiveOptions {
    fn default() -> Self {
        Self {
            target_samples_per_second: 1.0,
            delta_tolerance: 0.3,
            buckets_for_calculation: 1,
            calculation_interval: Duration::from_secs(60),
            aggregation_buckets: 10,
            delay: Duration::from_secs(120),
            initial_sampling_probability: 0.001,
            min_sampling_probability: 1e-5,
            min_samples_per_second: 1.0 / 60.0,
        }
    }
}

/// Traffic and probabilities of all services.
pub struct Adaptive {
    options: AdaptiveOptions,
    /// Intervals that are too new to be looked at.
    skipped: usize,
    state: Mutex<State>,
    metrics: AdaptiveMetrics,
}

#[derive(Default)]
struct State {
    services: HashMap<Arc<str>, HashMap<Arc<str>, Operation>>,
    operations: usize,
}

struct Operation {
    probability: f64,
    /// The interval that is under way.
    now: Bucket,
    /// Those before, newest first.
    past: VecDeque<Bucket>,
    /// Intervals in a row without a span.
    silent: usize,
}

/// What came in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    /// Root spans sampled by a probability.
    sampled: u32,
    /// Traces that they stand for.
    traces: f64,
    /// Root spans of any other sampler.
    others: u32,
    /// The probability that those of the lower bound had failed; the largest.
    failed_probability: f64,
    seconds: f64,
}

#[derive(Clone)]
struct AdaptiveMetrics {
    operations: Gauge,
    ignored: Counter,
    calculations: Counter,
}

/// What is kept over restarts: services with their operations and probabilities.
#[derive(Default, Deserialize, Serialize)]
struct Kept(Vec<(Box<str>, KeptOperations)>);

type KeptOperations = Vec<(Box<str>, f64)>;

impl Adaptive {
    /// Begins with what [`Adaptive::calculate`] gave an earlier process; what can't be read is
    /// told and left out.
    pub fn new(options: AdaptiveOptions, kept: Option<&[u8]>, metrics: &Metrics) -> Self {
        let interval = options.calculation_interval.as_secs_f64();
        let mut state = State::default();
        let kept = kept.map_or_else(|| Ok(Kept::default()), serde_json::from_slice);
        match kept {
            Ok(Kept(services)) => {
                for (service, operations) in services {
                    for (operation, probability) in operations {
                        if let Some(operation) = state.operation(&service, &operation, &options)
                            && (0.0..=1.0).contains(&probability)
                        {
                            operation.probability = options.clamp(probability);
                        }
                    }
                }
            }
            Err(error) => tracing::error!("kept probabilities can't be read: {error}"),
        }
        let metrics = AdaptiveMetrics {
            operations: metrics.gauge(
                "sampling_adaptive_operations",
                "Operations with a probability of their own",
            ),
            ignored: metrics.counter(
                "sampling_adaptive_ignored_spans",
                "Root spans of operations beyond those that can be kept",
            ),
            calculations: metrics.counter(
                "sampling_adaptive_calculations",
                "Times that probabilities were calculated",
            ),
        };
        metrics.operations.set(state.operations as i64);
        Self {
            skipped: (options.delay.as_secs_f64() / interval).ceil() as usize,
            options,
            state: Mutex::new(state),
            metrics,
        }
    }

    pub fn interval(&self) -> Duration {
        self.options.calculation_interval
    }

    /// Counts root spans; one lock for all of a message.
    pub fn record(&self, roots: &[Root]) {
        if roots.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for root in roots {
            let service = &root.process.service;
            match state.operation(service, &root.operation, &self.options) {
                Some(operation) => operation.now.count(root, &self.options),
                None => {
                    self.metrics.ignored.inc();
                }
            }
        }
    }

    /// Ends an interval of this length and calculates; what to keep, for the next process.
    pub fn calculate(&self, elapsed: Duration) -> Vec<u8> {
        let mut state = self.state.lock();
        let mut kept = Kept::default();
        let longest = self.skipped + self.options.aggregation_buckets;
        state.services.retain(|service, operations| {
            operations.retain(|_, operation| {
                operation.end_interval(elapsed, longest);
                let look = operation.past.iter().skip(self.skipped);
                let buckets: Vec<Bucket> = look
                    .take(self.options.buckets_for_calculation)
                    .copied()
                    .collect();
                operation.probability = self.options.adjusted(operation.probability, &buckets);
                operation.silent < longest
            });
            let pairs = operations.iter();
            let pairs = pairs.map(|(name, known)| (Box::from(&**name), known.probability));
            kept.0.push((Box::from(&**service), pairs.collect()));
            !operations.is_empty()
        });
        state.operations = state.services.values().map(HashMap::len).sum();
        self.metrics.operations.set(state.operations as i64);
        self.metrics.calculations.inc();
        drop(state);
        kept.0.retain(|(_, operations)| !operations.is_empty());
        for (_, operations) in &mut kept.0 {
            operations.sort_by(|a, b| a.0.cmp(&b.0));
        }
        kept.0.sort_by(|a, b| a.0.cmp(&b.0));
        // Texts and numbers: nothing here can't be written.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// What clients of a service are told.
    pub fn of(&self, service: &str) -> Strategy {
        let mut operations: Vec<(Arc<str>, f64)> = {
            let state = self.state.lock();
            let known = state.services.get(service);
            let known = known.into_iter().flatten();
            known
                .map(|(name, operation)| (name.clone(), operation.probability))
                .collect()
        };
        operations.sort_by(|a, b| a.0.cmp(&b.0));
        let initial = self.options.initial_sampling_probability;
        Strategy {
            sampler: Sampler::Probabilistic(initial),
            operations: Some(OperationSampling {
                default_probability: initial,
                lower_bound: self.options.min_samples_per_second,
                operations,
            }),
        }
    }
}

impl State {
    /// The entry of an operation, made if there is room.
    fn operation(
        &mut self,
        service: &str,
        operation: &str,
        options: &AdaptiveOptions,
    ) -> Option<&mut Operation> {
        let known = self.services.get(service);
        if known.is_none_or(|operations| !operations.contains_key(operation)) {
            let of_service = known.map_or(0, HashMap::len);
            let named = !operation.is_empty() && operation.len().max(service.len()) <= MAX_NAME;
            let room = of_service < MAX_OPERATIONS_OF_SERVICE && self.operations < MAX_OPERATIONS;
            if !named || !room {
                return None;
            }
            let operations = self.services.entry(service.into()).or_default();
            operations.insert(operation.into(), Operation::new(options));
            self.operations += 1;
        }
        self.services.get_mut(service)?.get_mut(operation)
    }
}

impl Operation {
    fn new(options: &AdaptiveOptions) -> Self {
        Self {
            probability: options.initial_sampling_probability,
            now: Bucket::default(),
            past: VecDeque::new(),
            silent: 0,
        }
    }

    fn end_interval(&mut self, elapsed: Duration, longest: usize) {
        let mut ended = std::mem::take(&mut self.now);
        self.silent = if ended.is_empty() { self.silent + 1 } else { 0 };
        ended.seconds = elapsed.as_secs_f64();
        self.past.push_front(ended);
        self.past.truncate(longest);
    }
}

impl Bucket {
    fn is_empty(&self) -> bool {
        self.sampled == 0 && self.others == 0
    }

    fn count(&mut self, root: &Root, options: &AdaptiveOptions) {
        let probability = options.clamp(root.param);
        match root.sampler {
            SamplerType::Probabilistic if root.param > 0.0 => {
                self.sampled = self.sampled.saturating_add(1);
                self.traces += 1.0 / probability;
            }
            SamplerType::LowerBound => {
                self.others = self.others.saturating_add(1);
                self.failed_probability = self.failed_probability.max(probability);
            }
            _ => self.others = self.others.saturating_add(1),
        }
    }
}

impl AdaptiveOptions {
    fn clamp(&self, probability: f64) -> f64 {
        // Both ends are in order: the configuration was checked.
        probability.max(self.min_sampling_probability).min(1.0)
    }

    /// The next probability, from intervals newest first.
    fn adjusted(&self, probability: f64, buckets: &[Bucket]) -> f64 {
        let sampled: u32 = buckets.iter().map(|b| b.sampled).sum();
        if sampled == 0 {
            return self.without_samples(probability, buckets);
        }
        // Newer intervals weigh more, as in Jaeger: by the fourth power of their place.
        let (mut traces, mut weights) = (0.0, 0.0);
        for (age, bucket) in buckets.iter().enumerate().filter(|(_, b)| b.seconds > 0.0) {
            let weight = ((buckets.len() - age) as f64).powi(4);
            traces += weight * bucket.traces / bucket.seconds;
            weights += weight;
        }
        if weights == 0.0 {
            return probability;
        }
        let traces_per_second = traces / weights;
        let target = self.target_samples_per_second;
        let expected = traces_per_second * probability;
        if (expected - target).abs() <= target * self.delta_tolerance {
            return probability;
        }
        self.clamp((target / traces_per_second).min(probability * RAISE))
    }

    /// There may be traffic of which nothing was drawn: only the lower bound shows it.
    fn without_samples(&self, probability: f64, buckets: &[Bucket]) -> f64 {
        let failed = buckets
            .iter()
            .map(|b| b.failed_probability)
            .fold(0.0, f64::max);
        if failed == 0.0 {
            return probability;
        }
        let seconds: f64 = buckets.iter().map(|b| b.seconds).sum();
        // Had one been drawn, this were the probability for the target.
        let highest = self.target_samples_per_second * seconds * failed;
        let raised = (probability * RAISE_WITHOUT_SAMPLES).min(highest);
        self.clamp(raised.max(probability))
    }
}

#[cfg(test)]
mod tests;
