//! What spans say of services: who calls whom, how often, how long it takes, how often it fails.

use super::time::{SECOND, Timestamp};

/// Spans are counted by slots of so long, by their start; nanoseconds. No point tells more.
pub const SLOT: i64 = 10 * SECOND;

/// The slot that an instant belongs to.
pub fn slot_of(at: Timestamp) -> i64 {
    at.div_euclid(SLOT)
}

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
    /// No point lies after it.
    pub end: Timestamp,
    /// The first point lies so long before `end`; nanoseconds.
    pub lookback: u64,
    /// Between points; nanoseconds, at least 1.
    pub step: u64,
    /// Each point looks at the spans that started so long before it, in whole slots, the slot
    /// of the point the last of them; nanoseconds, at least 1.
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

/// The points of one service or operation, oldest first. Points that look at no span are left
/// out, but those of call rates behind the first that has one: there the rate is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSeries {
    pub service: String,
    /// Only when the query asks by operation.
    pub operation: Option<String>,
    pub points: Vec<(Timestamp, f64)>,
}

/// Durations on a scale of eight steps an octave, each an eighth of where its octave begins:
/// what is read from it is at most an eighth off. Below 8 ns each value has a step of its own.
pub mod scale {
    /// Steps that there are.
    pub const STEPS: usize = 62 * 8;

    /// The step that a duration falls in.
    pub fn step_of(nanoseconds: u64) -> u16 {
        if nanoseconds < 8 {
            return nanoseconds as u16;
        }
        let octave = 63 - nanoseconds.leading_zeros();
        let eighth = (nanoseconds >> (octave - 3)) & 7;
        (octave - 2) as u16 * 8 + eighth as u16
    }

    /// The least duration of a step; of one beyond the scale, that of its end.
    pub fn start_of(step: u16) -> u64 {
        let (octave, eighth) = (u32::from(step / 8), u64::from(step % 8));
        match octave {
            0 => eighth,
            1..=61 => (8 | eighth) << (octave - 1),
            _ => u64::MAX,
        }
    }

    /// The duration that a share of the spans (0 to 1) does not exceed, nanoseconds; of steps
    /// in order with how many spans are in each. Within a step spans are taken to be spread
    /// evenly. `None` without spans.
    pub fn quantile(counts: impl Iterator<Item = (u16, u64)> + Clone, share: f64) -> Option<f64> {
        let all: u64 = counts.clone().map(|(_, spans)| spans).sum();
        let rank = share.clamp(0.0, 1.0) * all as f64;
        let mut below = 0;
        let mut last = None;
        for (step, spans) in counts.filter(|(_, spans)| *spans > 0) {
            let (start, end) = (start_of(step) as f64, start_of(step + 1) as f64);
            let inside = (rank - below as f64) / spans as f64;
            below += spans;
            last = Some(start + (end - start) * inside.clamp(0.0, 1.0));
            if below as f64 >= rank {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::scale::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_duration_lies_in_its_step(duration in any::<u64>(), shift in 0u32..64) {
            let duration = duration >> shift;
            let step = step_of(duration);
            prop_assert!((step as usize) < STEPS);
            prop_assert!(start_of(step) <= duration);
            prop_assert!(duration < start_of(step + 1) || start_of(step + 1) == u64::MAX);
            let width = start_of(step + 1) - start_of(step);
            prop_assert!(width <= (start_of(step) / 8).max(1) || start_of(step + 1) == u64::MAX);
        }

        /// No further from the true quantile than an eighth of it, whatever the durations.
        #[test]
        fn a_quantile_is_at_most_an_eighth_off(
            durations in prop::collection::vec((0u64..1 << 40, 0u32..40), 1..200),
            percent in 0u32..=100,
        ) {
            let mut durations: Vec<u64> = durations.iter().map(|(d, by)| d >> by).collect();
            durations.sort_unstable();
            let mut counts = vec![0u64; STEPS];
            durations.iter().for_each(|d| counts[step_of(*d) as usize] += 1);
            let share = f64::from(percent) / 100.0;
            let found = quantile((0u16..).zip(counts.iter().copied()), share).unwrap();
            let rank = (share * durations.len() as f64).ceil().max(1.0) as usize;
            let exact = durations[rank - 1] as f64;
            prop_assert!((found - exact).abs() <= (exact / 8.0).max(1.0), "{} for {}", found, exact);
        }
    }

    #[test]
    fn no_spans_have_no_quantile() {
        assert_eq!(quantile([(3u16, 0u64)].into_iter(), 0.5), None);
        assert_eq!(quantile([(0u16, 4u64)].into_iter(), 0.5), Some(0.5));
    }
}
