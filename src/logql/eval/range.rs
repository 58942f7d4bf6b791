//! Range functions that add up: counts and bytes, over any number of windows at a constant
//! price per line.
//!
//! A line counts in every window `(T − offset − range, T − offset]` that holds it. Windows
//! follow each other by the step, so those are consecutive: the line's value is added where
//! they begin and taken away where they end, and prefix sums give the totals.

use hashbrown::HashMap;

use crate::logql::ast::{RangeAggregation, RangeFunction};
use crate::model::series::{Grid, Matrix, Series};
use crate::model::time::SECOND;
use crate::model::{Labels, TimeRange, Timestamp};

/// Where the windows of a range aggregation lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    grid: Grid,
    range: i64,
    offset: i64,
}

impl Windows {
    pub fn new(aggregation: &RangeAggregation, grid: Grid) -> Self {
        Self { grid, range: aggregation.over.range, offset: aggregation.over.offset }
    }

    /// All instants that are in any window.
    pub fn reach(&self) -> TimeRange {
        let shift = |at: i64| at.saturating_sub(self.offset).saturating_add(1);
        TimeRange::new(shift(self.grid.start).saturating_sub(self.range), shift(self.grid.end))
    }

    /// The windows, by index, that an instant is in: `first..end`.
    #[inline]
    pub fn of(&self, at: Timestamp) -> (usize, usize) {
        let at = at.saturating_add(self.offset);
        (self.ceil(at), self.ceil(at.saturating_add(self.range)))
    }

    /// The windows of all instants `after < t <= until`, when they are the same for all.
    pub fn of_all(&self, after: Timestamp, until: Timestamp) -> Option<(usize, usize)> {
        let first = self.of(after.saturating_add(1));
        (first == self.of(until)).then_some(first)
    }

    /// Index of the first evaluation time that is not before `at`, at most the grid's length.
    #[inline]
    fn ceil(&self, at: i64) -> usize {
        if at <= self.grid.start {
            return 0;
        }
        let steps = (at - self.grid.start - 1) / self.grid.step + 1;
        usize::try_from(steps).map_or(self.grid.len(), |steps| steps.min(self.grid.len()))
    }
}

/// Sums of one series: differences between consecutive windows.
#[derive(Clone, Debug)]
struct Sums {
    lines: Vec<i64>,
    /// Empty unless bytes are wanted.
    bytes: Vec<i64>,
}

/// Collects lines for one range aggregation.
#[derive(Clone, Debug)]
pub struct Additive {
    pub windows: Windows,
    function: RangeFunction,
    places: HashMap<Labels, usize>,
    series: Vec<(Labels, Sums)>,
}

impl Additive {
    pub fn new(aggregation: &RangeAggregation, grid: Grid) -> Self {
        Self {
            windows: Windows::new(aggregation, grid),
            function: aggregation.function,
            places: HashMap::new(),
            series: Vec::new(),
        }
    }

    /// Place of the series with these labels.
    pub fn series(&mut self, labels: &Labels) -> usize {
        if let Some(place) = self.places.get(labels) {
            return *place;
        }
        let len = self.windows.grid.len() + 1;
        let bytes = if self.function.counts_bytes() { vec![0; len] } else { Vec::new() };
        self.series.push((labels.clone(), Sums { lines: vec![0; len], bytes }));
        self.places.insert(labels.clone(), self.series.len() - 1);
        self.series.len() - 1
    }

    /// Number of series so far, those without samples included.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Points of all series together, as a measure of memory.
    pub fn points(&self) -> usize {
        self.series.len() * (self.windows.grid.len() + 1)
    }

    /// Adds lines that all are in the windows `first..end`.
    #[inline]
    pub fn add(&mut self, series: usize, (first, end): (usize, usize), lines: u64, bytes: u64) {
        let sums = &mut self.series[series].1;
        sums.lines[first] += lines as i64;
        sums.lines[end] -= lines as i64;
        if !sums.bytes.is_empty() {
            sums.bytes[first] += bytes as i64;
            sums.bytes[end] -= bytes as i64;
        }
    }

    /// Adds everything that another collected for the same aggregation.
    pub fn merge(&mut self, other: Self) {
        for (labels, sums) in other.series {
            let place = self.series(&labels);
            let mine = &mut self.series[place].1;
            mine.lines.iter_mut().zip(&sums.lines).for_each(|(a, b)| *a += b);
            mine.bytes.iter_mut().zip(&sums.bytes).for_each(|(a, b)| *a += b);
        }
    }

    /// The value of each series in each window that has lines.
    pub fn finish(self) -> Matrix {
        let seconds = self.windows.range as f64 / SECOND as f64;
        let mut matrix = Matrix::new();
        for (labels, sums) in self.series {
            let (mut lines, mut bytes) = (0i64, 0i64);
            let mut points = Vec::with_capacity(sums.lines.len());
            for i in 0..self.windows.grid.len() {
                lines += sums.lines[i];
                bytes += sums.bytes.get(i).copied().unwrap_or(0);
                let value = match self.function {
                    RangeFunction::Rate => lines as f64 / seconds,
                    RangeFunction::BytesOverTime => bytes as f64,
                    RangeFunction::BytesRate => bytes as f64 / seconds,
                    _ => lines as f64,
                };
                points.push((lines > 0).then_some(value));
            }
            if points.iter().any(Option::is_some) {
                matrix.push(Series { labels, points });
            }
        }
        matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::{Expr, MetricExpr};
    use proptest::prelude::*;

    fn aggregation(query: &str) -> RangeAggregation {
        match crate::logql::parse(query) {
            Ok(Expr::Metric(MetricExpr::Range(range))) => range,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn every_line_counts_in_exactly_the_windows_that_hold_it(
            lines in proptest::collection::vec((-50i64..150, 0u64..9), 0..40),
            start in -20i64..60, steps in 0i64..12, step in 1i64..30,
            range in 0i64..80, offset in -20i64..40,
        ) {
            let mut over = aggregation("bytes_over_time({a=\"b\"}[1m])");
            over.over.range = range;
            over.over.offset = offset;
            let grid = Grid { start, end: start + steps * step, step };
            let mut sums = Additive::new(&over, grid);
            let series = sums.series(&Labels::empty());
            let reach = sums.windows.reach();
            for (at, bytes) in &lines {
                let windows = sums.windows.of(*at);
                prop_assert!(reach.contains(*at) || windows.0 == windows.1);
                sums.add(series, windows, 1, *bytes);
            }
            let matrix = sums.finish();
            for i in 0..grid.len() {
                let at = grid.at(i) - offset;
                let held = || lines.iter().filter(|(t, _)| at - range < *t && *t <= at);
                let expected = (held().count() > 0)
                    .then(|| held().map(|(_, bytes)| *bytes).sum::<u64>() as f64);
                prop_assert_eq!(matrix.first().and_then(|s| s.points[i]), expected);
            }
        }

        #[test]
        fn a_stretch_has_windows_of_its_own_only_when_all_its_instants_share_them(
            after in -50i64..100, len in 1i64..40, step in 1i64..30, range in 1i64..80,
        ) {
            let mut over = aggregation("rate({a=\"b\"}[1m])");
            over.over.range = range;
            let windows = Windows::new(&over, Grid { start: 0, end: 10 * step, step });
            let all: Vec<_> = (after + 1..=after + len).map(|at| windows.of(at)).collect();
            let same = all.iter().all(|w| *w == all[0]);
            prop_assert_eq!(windows.of_all(after, after + len), same.then(|| all[0]));
        }
    }
}
