//! Results of metric queries: series of samples on a grid of evaluation times.

use super::labels::Labels;
use super::time::Timestamp;

/// The evaluation times `start, start + step, … <= end`, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub start: Timestamp,
    pub end: Timestamp,
    /// Positive. An instant query has `start == end`.
    pub step: i64,
}

impl Grid {
    /// A grid of one evaluation time.
    pub fn instant(at: Timestamp) -> Self {
        Self {
            start: at,
            end: at,
            step: 1,
        }
    }

    /// Number of evaluation times.
    pub fn len(&self) -> usize {
        if self.end < self.start {
            0
        } else {
            ((self.end - self.start) / self.step) as usize + 1
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `index`-th evaluation time.
    pub fn at(&self, index: usize) -> Timestamp {
        self.start + self.step * index as i64
    }
}

/// One series over a [`Grid`]: `points[i]` belongs to `grid.at(i)`; `None` is a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<Option<f64>>,
}

/// Series over one grid, each `points` as long as the grid. Labels need not be unique
/// (`label_replace` may make them equal).
pub type Matrix = Vec<Series>;
