use proptest::prelude::*;

use super::*;

fn query(metric: ServiceMetric) -> ServiceMetricsQuery {
    ServiceMetricsQuery {
        metric,
        services: vec!["web".into()],
        by_operation: false,
        kinds: vec!["server".into()],
        end: 1000 * SLOT + 3 * SECOND,
        lookback: 600 * SECOND as u64,
        step: 60 * SECOND as u64,
        rate_per: 120 * SECOND as u64,
    }
}

/// A span that took so many milliseconds.
fn tell(counts: &mut Counts<'_>, slot: i64, operation: &str, milliseconds: u64, failed: bool) {
    if counts.wants("web") {
        counts.cell(Cell {
            service: "web",
            operation,
            kind: "server",
            slot,
            calls: 1,
            errors: u64::from(failed),
            durations: &[(scale::step_of(milliseconds * 1_000_000), 1)],
        });
    }
}

fn points(counts: &[Count], windows: &Windows, metric: ServiceMetric) -> Vec<(Timestamp, f64)> {
    match metric {
        ServiceMetric::Latency { quantile } => latencies(windows, counts, quantile),
        ServiceMetric::CallRate => rates(windows, counts),
        ServiceMetric::ErrorRate => failures(windows, counts),
    }
}

/// The only series of one service.
fn only(
    query: &ServiceMetricsQuery,
    windows: &Windows,
    spans: &[(i64, u64, bool)],
) -> Vec<(Timestamp, f64)> {
    let mut counts = Counts::new(query, windows);
    for (slot, milliseconds, failed) in spans {
        tell(&mut counts, *slot, "GET /", *milliseconds, *failed);
    }
    match &mut counts.series[..] {
        [] => Vec::new(),
        [series] => {
            tidy(series);
            points(series, windows, query.metric)
        }
        _ => panic!("more than one series"),
    }
}

#[test]
fn points_run_from_the_lookback_to_the_end() {
    let query = query(ServiceMetric::CallRate);
    let windows = Windows::new(&query).unwrap();
    assert_eq!(windows.points.len(), 11);
    assert_eq!(windows.points[0], query.end - 600 * SECOND);
    assert_eq!(windows.points[10], query.end);
    // A minute is common to steps and windows.
    assert_eq!((windows.slots, windows.unit), (12, 6));
    let odd = ServiceMetricsQuery {
        step: 7 * SECOND as u64,
        lookback: 15 * SECOND as u64,
        ..query.clone()
    };
    let windows = Windows::new(&odd).unwrap();
    assert_eq!(windows.points.len(), 3);
    assert_eq!((windows.points[2], windows.unit), (odd.end - SECOND, 1));
    let many = ServiceMetricsQuery {
        lookback: u64::MAX,
        ..query
    };
    assert!(matches!(Windows::new(&many), Err(QueryError::TooMuch(_))));
}

#[test]
fn extremes_are_no_panic() {
    for end in [i64::MIN, i64::MIN + 1, 0, i64::MAX] {
        for (lookback, step, rate_per) in [
            (u64::MAX, u64::MAX, u64::MAX),
            (0, 1, 1),
            (u64::MAX, u64::MAX / 2, 1),
            (1 << 60, 1 << 50, u64::MAX),
        ] {
            let query = ServiceMetricsQuery {
                end,
                lookback,
                step,
                rate_per,
                ..query(ServiceMetric::CallRate)
            };
            let Ok(windows) = Windows::new(&query) else {
                continue;
            };
            only(&query, &windows, &[(slot_of(end), 1, false), (0, 1, true)]);
        }
    }
}

#[test]
fn rates_go_on_at_zero_and_failures_stop() {
    let spans = [(960, 1, false), (960, 1, true), (960, 1, false)];
    let rates = query(ServiceMetric::CallRate);
    let windows = Windows::new(&rates).unwrap();
    let found = only(&rates, &windows, &spans);
    let at = |minutes: i64| rates.end - minutes * 60 * SECOND;
    assert_eq!(found[0], (at(6), 3.0 / 120.0));
    assert_eq!(found[1], (at(5), 3.0 / 120.0));
    assert!(found[2..].iter().all(|(_, rate)| *rate == 0.0));
    assert_eq!(found.last().unwrap().0, rates.end);
    let errors = query(ServiceMetric::ErrorRate);
    let third = 1.0 / 3.0;
    assert_eq!(
        only(&errors, &windows, &spans),
        [(at(6), third), (at(5), third)]
    );
    // Calls without errors: zeros, not nothing.
    assert_eq!(
        only(&errors, &windows, &spans[..1]),
        [(at(6), 0.0), (at(5), 0.0)]
    );
    let latency = query(ServiceMetric::Latency { quantile: 0.5 });
    let found = only(&latency, &windows, &spans);
    assert_eq!(found.len(), 2);
    assert!((found[0].1 - 1.0).abs() < 0.125, "{found:?}");
}

proptest! {
    /// Against looking at every span for every point.
    #[test]
    fn every_point_counts_the_slots_of_its_window(
        spans in prop::collection::vec((900i64..1005, 1u64..5000, any::<bool>()), 0..60),
        step in 1u64..90, rate_per in 1u64..200, whole in any::<bool>(),
        metric in prop_oneof![
            Just(ServiceMetric::CallRate),
            Just(ServiceMetric::ErrorRate),
            Just(ServiceMetric::Latency { quantile: 0.9 }),
        ],
    ) {
        let (step, rate_per) = if whole { (step * 10, rate_per * 10) } else { (step, rate_per) };
        let query = ServiceMetricsQuery {
            step: step * SECOND as u64,
            rate_per: rate_per * SECOND as u64,
            ..query(metric)
        };
        let windows = Windows::new(&query).unwrap();
        let slots = rate_per.div_ceil(10) as i64;
        let mut expected = Vec::new();
        let mut any_before = false;
        for at in &windows.points {
            let seen = spans.iter().filter(|(slot, ..)| {
                (slot_of(*at) - slots + 1..=slot_of(*at)).contains(slot)
            });
            let calls = seen.clone().count() as f64;
            any_before |= calls > 0.0;
            match metric {
                ServiceMetric::CallRate if any_before => {
                    expected.push((*at, calls / (slots as f64 * 10.0)));
                }
                ServiceMetric::ErrorRate if calls > 0.0 => {
                    let failed = seen.filter(|(.., failed)| *failed).count() as f64;
                    expected.push((*at, failed / calls));
                }
                ServiceMetric::Latency { quantile } if calls > 0.0 => {
                    let mut steps = vec![0u64; scale::STEPS];
                    seen.for_each(|(_, ms, _)| steps[usize::from(scale::step_of(ms * 1_000_000))] += 1);
                    let steps = (0u16..).zip(steps.iter().copied());
                    expected.push((*at, scale::quantile(steps, quantile).unwrap() / 1e6));
                }
                _ => {}
            }
        }
        prop_assert_eq!(only(&query, &windows, &spans), expected);
    }
}

#[test]
fn operations_are_told_apart_only_when_asked_for() {
    let mut by_operation = query(ServiceMetric::CallRate);
    by_operation.by_operation = true;
    let windows = Windows::new(&by_operation).unwrap();
    let mut counts = Counts::new(&by_operation, &windows);
    for operation in ["b", "a", "b", ""] {
        tell(&mut counts, 990, operation, 1, false);
    }
    let names: Vec<_> = counts
        .names
        .iter()
        .map(|(_, name)| name.as_deref())
        .collect();
    assert_eq!(names, [Some("b"), Some("a"), Some("")]);
    assert_eq!(counts.series[0][0].calls, 2);
    assert!(!counts.wants("api"));
}
