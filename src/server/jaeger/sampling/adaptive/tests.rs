//! A generator that obeys the answers, on a clock of its own.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::model::trace::Process;

/// A client of one service: draws as Jaeger's do, and asks once a minute.
struct Client {
    service: &'static str,
    operation: &'static str,
    traces_per_second: f64,
    probability: f64,
    lower_bound: f64,
    /// Of the lower bound, in traces.
    balance: f64,
    /// Second of the minute at which it asks.
    asks_at: u64,
    /// Traces begun but not drawn about yet.
    rest: f64,
}

impl Client {
    fn new(service: &'static str, operation: &'static str, traces_per_second: f64) -> Self {
        Self {
            service,
            operation,
            traces_per_second,
            probability: 0.001,
            lower_bound: 1.0 / 60.0,
            balance: 1.0,
            asks_at: traces_per_second as u64 % 60,
            rest: 0.0,
        }
    }

    fn ask(&mut self, adaptive: &Adaptive) {
        let sampling = adaptive.of(self.service).operations.expect("always");
        let mut operations = sampling.operations.iter();
        let own = operations.find(|(name, _)| &**name == self.operation);
        self.probability = own.map_or(sampling.default_probability, |(_, p)| *p);
        self.lower_bound = sampling.lower_bound;
    }

    /// What it sends in one second.
    fn second(&mut self, random: &mut StdRng) -> Vec<Root> {
        self.balance = (self.balance + self.lower_bound).min(1.0);
        self.rest += self.traces_per_second;
        let mut roots = Vec::new();
        while self.rest >= 1.0 {
            self.rest -= 1.0;
            let sampler = if random.random::<f64>() < self.probability {
                SamplerType::Probabilistic
            } else if self.balance >= 1.0 {
                self.balance -= 1.0;
                SamplerType::LowerBound
            } else {
                continue;
            };
            roots.push(root(
                self.service,
                self.operation,
                sampler,
                self.probability,
            ));
        }
        roots
    }
}

fn root(service: &str, operation: &str, sampler: SamplerType, param: f64) -> Root {
    Root {
        process: Arc::new(Process {
            service: service.into(),
            tags: vec![],
        }),
        operation: operation.into(),
        sampler,
        param,
    }
}

fn adaptive(options: AdaptiveOptions) -> Adaptive {
    Adaptive::new(options, None, &Metrics::default())
}

/// Samples per second of each client in each minute.
fn simulate(adaptive: &Adaptive, clients: &mut [Client], minutes: u64) -> Vec<Vec<f64>> {
    let mut random = StdRng::seed_from_u64(4711);
    let mut rates = Vec::new();
    for _ in 0..minutes {
        let mut sampled = vec![0; clients.len()];
        for second in 0..60 {
            for (client, sampled) in clients.iter_mut().zip(&mut sampled) {
                if client.asks_at == second {
                    client.ask(adaptive);
                }
                let roots = client.second(&mut random);
                *sampled += roots.len();
                adaptive.record(&roots);
            }
        }
        adaptive.calculate(Duration::from_secs(60));
        rates.push(
            sampled
                .iter()
                .map(|n| f64::from(*n as u32) / 60.0)
                .collect(),
        );
    }
    rates
}

/// Mean over minutes of one client.
fn mean(rates: &[Vec<f64>], client: usize) -> f64 {
    rates.iter().map(|r| r[client]).sum::<f64>() / rates.len() as f64
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    let wrong = (found - expected).abs() / expected;
    assert!(wrong <= tolerance, "{found}, expected {expected}");
}

#[test]
fn every_operation_comes_to_the_target_and_stays_there() {
    let adaptive = adaptive(AdaptiveOptions::default());
    let mut clients = [
        Client::new("busy", "GET /", 20_000.0),
        Client::new("busy", "GET /rare", 5.0),
        Client::new("middle", "op", 300.0),
        Client::new("quiet", "op", 0.5),
    ];
    let rates = simulate(&adaptive, &mut clients, 60);
    let late = &rates[30..];
    for client in 0..3 {
        near(mean(late, client), 1.0, 0.35);
    }
    // There is no more to be had.
    near(mean(late, 3), 0.5, 0.05);
    // Each minute of the busy one, not only their mean: nothing swings.
    for rate in late {
        near(rate[0], 1.0, 0.8);
    }
}

#[test]
fn a_burst_is_followed_within_minutes_and_its_end_too() {
    let adaptive = adaptive(AdaptiveOptions::default());
    let mut clients = [Client::new("s", "op", 10.0)];
    simulate(&adaptive, &mut clients, 40);
    clients[0].traces_per_second = 5_000.0;
    let rates = simulate(&adaptive, &mut clients, 10);
    // Delay, an interval, and the minute until the client asks.
    near(mean(&rates[5..], 0), 1.0, 0.4);
    clients[0].traces_per_second = 10.0;
    let rates = simulate(&adaptive, &mut clients, 40);
    near(mean(&rates[30..], 0), 1.0, 0.4);
}

#[test]
fn probabilities_are_kept_over_restarts_and_forgotten_after_silence() {
    let options = AdaptiveOptions::default();
    let first = adaptive(options.clone());
    let mut clients = [
        Client::new("s", "op", 5_000.0),
        Client::new("t", "a\"b", 1.0),
    ];
    simulate(&first, &mut clients, 20);
    let before = first.of("s");
    let kept = first.calculate(Duration::from_secs(60));
    let second = Adaptive::new(options.clone(), Some(&kept), &Metrics::default());
    assert_eq!(second.of("s"), before);
    // Silent for the delay and all buckets.
    for _ in 0..11 {
        second.calculate(Duration::from_secs(60));
        assert_eq!(second.of("s"), before);
    }
    assert_eq!(second.calculate(Duration::from_secs(60)), b"[]");
    assert_eq!(
        second.of("s").operations.map(|o| o.operations.len()),
        Some(0)
    );
    // What nobody wrote is no reason not to start.
    let third = Adaptive::new(options, Some(b"{"), &Metrics::default());
    assert_eq!(
        third.of("s").operations.map(|o| o.operations.len()),
        Some(0)
    );
}

#[test]
fn a_flood_of_names_is_bounded_and_counted() {
    let metrics = Metrics::default();
    let adaptive = Adaptive::new(AdaptiveOptions::default(), None, &metrics);
    let of_service = |service: &str, count: usize| {
        for n in 0..count {
            let operation = format!("op{n}");
            adaptive.record(&[root(service, &operation, SamplerType::Probabilistic, 1.0)]);
        }
    };
    of_service("one", MAX_OPERATIONS_OF_SERVICE + 10);
    for n in 0..20 {
        of_service(&format!("s{n}"), MAX_OPERATIONS_OF_SERVICE);
    }
    let long = "x".repeat(MAX_NAME + 1);
    adaptive.record(&[root("one", &long, SamplerType::Probabilistic, 1.0)]);
    adaptive.calculate(Duration::from_secs(60));
    let text = metrics.render();
    assert!(
        text.contains("watchpost_sampling_adaptive_operations 20000\n"),
        "{text}"
    );
    assert!(
        text.contains("watchpost_sampling_adaptive_ignored_spans_total 1011\n"),
        "{text}"
    );
}

#[test]
fn nonsense_of_senders_moves_nothing_beyond_the_bounds() {
    let options = AdaptiveOptions {
        delay: Duration::ZERO,
        ..AdaptiveOptions::default()
    };
    let adaptive = adaptive(options);
    for param in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-300, 5.0] {
        for sampler in [
            SamplerType::Probabilistic,
            SamplerType::LowerBound,
            SamplerType::RateLimiting,
        ] {
            adaptive.record(&[root("s", "op", sampler, param)]);
        }
        adaptive.calculate(Duration::ZERO);
        adaptive.calculate(Duration::from_secs(60));
        let operations = adaptive.of("s").operations.expect("always").operations;
        assert!(
            (1e-5..=1.0).contains(&operations[0].1),
            "{param}: {operations:?}"
        );
    }
}
