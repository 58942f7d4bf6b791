//! What the functions over unwrapped samples make of a window's samples.

use super::windows::Windows;
use crate::logql::ast::RangeFunction;
use crate::model::time::{SECOND, Timestamp};

/// Evaluates a function over the samples in every window.
pub fn over_samples(
    windows: Windows,
    function: RangeFunction,
    parameter: f64,
    mut samples: Vec<(Timestamp, f64)>,
) -> Vec<Option<f64>> {
    let apart = windows.range <= windows.grid.step || windows.grid.len() == 1;
    if apart && function == RangeFunction::QuantileOverTime {
        return quantiles_apart(windows, parameter, &samples);
    }
    samples.sort_by_key(|(at, _)| *at);
    let (mut from, mut to) = (0, 0);
    let mut sorted = Vec::new();
    (0..windows.grid.len())
        .map(|step| {
            let end = windows.grid.at(step).saturating_sub(windows.offset);
            let start = end.saturating_sub(windows.range);
            while samples.get(to).is_some_and(|(at, _)| *at <= end) {
                to += 1;
            }
            while from < to && samples[from].0 <= start {
                from += 1;
            }
            let window = &samples[from..to];
            (!window.is_empty())
                .then(|| over_window(windows.range, function, parameter, window, &mut sorted))
        })
        .collect()
}

/// Quantiles of windows that do not overlap: values go to their window without being sorted
/// by time, since their order says nothing.
fn quantiles_apart(
    windows: Windows,
    parameter: f64,
    samples: &[(Timestamp, f64)],
) -> Vec<Option<f64>> {
    let steps = windows.grid.len();
    let mut cell = windows.cell(windows.grid.start);
    let mut window_of = |at: Timestamp| {
        if !cell.holds(at) {
            cell = windows.cell(at);
        }
        (cell.from < cell.to).then_some(cell.from)
    };
    // Where each window's values begin, once all before it are counted.
    let mut starts = vec![0usize; steps + 1];
    for (at, _) in samples {
        if let Some(window) = window_of(*at) {
            starts[window + 1] += 1;
        }
    }
    for step in 0..steps {
        starts[step + 1] += starts[step];
    }
    let mut next = starts.clone();
    let mut values = vec![0.0; starts[steps]];
    for (at, value) in samples {
        if let Some(window) = window_of(*at) {
            values[next[window]] = *value;
            next[window] += 1;
        }
    }
    (0..steps)
        .map(|step| {
            let window = &mut values[starts[step]..starts[step + 1]];
            (!window.is_empty()).then(|| quantile(parameter, window))
        })
        .collect()
}

fn over_window(
    range: i64,
    function: RangeFunction,
    parameter: f64,
    window: &[(Timestamp, f64)],
    sorted: &mut Vec<f64>,
) -> f64 {
    let values = window.iter().map(|(_, value)| *value);
    match function {
        RangeFunction::SumOverTime => values.sum(),
        RangeFunction::Rate => values.sum::<f64>() / (range as f64 / SECOND as f64),
        RangeFunction::AvgOverTime => mean(values),
        RangeFunction::MinOverTime => extreme(values, |value, best| value < best),
        RangeFunction::MaxOverTime => extreme(values, |value, best| value > best),
        RangeFunction::StdvarOverTime => variance(values),
        RangeFunction::StddevOverTime => variance(values).sqrt(),
        RangeFunction::QuantileOverTime => {
            sorted.clear();
            sorted.extend(values);
            quantile(parameter, sorted)
        }
        RangeFunction::FirstOverTime => window[0].1,
        RangeFunction::LastOverTime => window[window.len() - 1].1,
        RangeFunction::RateCounter => counter_rate(range, window),
        RangeFunction::CountOverTime
        | RangeFunction::BytesOverTime
        | RangeFunction::BytesRate
        | RangeFunction::AbsentOverTime => window.len() as f64,
    }
}

/// A running mean, so that a sum of large values does not overflow; infinities stay.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut count) = (0.0f64, 0.0);
    for value in values {
        count += 1.0;
        if mean.is_infinite()
            && (!value.is_finite() && !value.is_nan() && (mean > 0.0) == (value > 0.0)
                || value.is_finite())
        {
            continue;
        }
        mean += value / count - mean / count;
    }
    mean
}

fn extreme(values: impl Iterator<Item = f64>, better: fn(f64, f64) -> bool) -> f64 {
    values.fold(f64::NAN, |best, value| {
        if better(value, best) || best.is_nan() {
            value
        } else {
            best
        }
    })
}

/// Of the population, by Welford's recurrence.
fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN comes first.
    let order = |a: &f64, b: &f64| {
        a.partial_cmp(b)
            .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
    };
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor().max(0.0) as usize;
    let weight = rank - rank.floor();
    // Two places of the sorted values are looked at: they need not be sorted for that.
    let (_, at_lower, above) = values.select_nth_unstable_by(lower, order);
    let at_lower = *at_lower;
    let at_upper = above.iter().copied().min_by(order).unwrap_or(at_lower);
    at_lower * (1.0 - weight) + at_upper * weight
}

/// The increase per second of a counter that may have been reset. As in Loki, which mixes units
/// here: the time between samples is taken in microseconds, the range in seconds.
fn counter_rate(range: i64, window: &[(Timestamp, f64)]) -> f64 {
    let (Some((start, first)), Some((end, last))) = (window.first(), window.last()) else {
        return 0.0;
    };
    if window.len() < 2 {
        return 0.0;
    }
    let resets: f64 = window
        .windows(2)
        .filter(|pair| pair[1].1 < pair[0].1)
        .map(|pair| pair[0].1)
        .sum();
    let increase = last - first + resets;
    let range = range as f64 / SECOND as f64;
    let sampled = (end - start) as f64 / 1000.0;
    let mut extension = range;
    if increase > 0.0 && *first >= 0.0 {
        extension = extension.min(sampled * (first / increase));
    }
    increase * (sampled + extension) / sampled / range
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::Grid;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (-5i32..5).prop_map(f64::from),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_values(
            values in prop::collection::vec(value(), 1..20), q in 0.0f64..=1.0,
        ) {
            let mut sorted = values.clone();
            // NaN first.
            sorted.sort_by(|a, b| {
                a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
            });
            let rank = q * (sorted.len() - 1) as f64;
            let lower = rank.floor() as usize;
            let upper = (lower + 1).min(sorted.len() - 1);
            let weight = rank - rank.floor();
            let expected = sorted[lower] * (1.0 - weight) + sorted[upper] * weight;
            let found = quantile(q, &mut values.clone());
            prop_assert!(found == expected || found.is_nan() && expected.is_nan());
        }

        #[test]
        fn windows_apart_give_the_quantiles_of_windows_one_by_one(
            samples in prop::collection::vec((-20i64..120, (-5i32..5).prop_map(f64::from)), 0..60),
            range in 1i64..=10, offset in -5i64..5,
        ) {
            let windows = Windows { grid: Grid { start: 0, end: 100, step: 10 }, range, offset };
            let found = over_samples(windows, RangeFunction::QuantileOverTime, 0.7, samples.clone());
            for (step, found) in found.into_iter().enumerate() {
                let end = windows.grid.at(step) - offset;
                let within = samples.iter().filter(|(at, _)| end - range < *at && *at <= end);
                let mut values: Vec<f64> = within.map(|(_, value)| *value).collect();
                let expected = (!values.is_empty()).then(|| quantile(0.7, &mut values));
                prop_assert_eq!(found, expected);
            }
        }
    }
}
