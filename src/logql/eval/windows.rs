//! Which windows of a range aggregation hold an instant.
//!
//! At time T a range R with offset O covers (T−O−R, T−O]: start exclusive, end inclusive.

use crate::model::series::Grid;
use crate::model::time::Timestamp;

/// Where the windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    pub grid: Grid,
    pub range: i64,
    pub offset: i64,
}

impl Windows {
    /// The evaluation times whose window holds `at`, as a half-open range of grid indices.
    pub fn holding(&self, at: Timestamp) -> (usize, usize) {
        let first = at.saturating_add(self.offset);
        let behind = first.saturating_add(self.range);
        (self.index(first), self.index(behind))
    }

    /// [`Self::holding`], and the times around `at` with the same windows.
    pub fn cell(&self, at: Timestamp) -> Cell {
        let (from, to) = self.holding(at);
        // An index is that of all times behind the evaluation time before it, up to its own.
        let behind = |index: usize, shift: i64| match index.checked_sub(1) {
            None => Timestamp::MIN,
            Some(before) => self.grid.at(before).saturating_sub(shift),
        };
        let up_to = |index: usize, shift: i64| match index < self.grid.len() {
            true => self.grid.at(index).saturating_sub(shift),
            false => Timestamp::MAX,
        };
        let reach = self.offset.saturating_add(self.range);
        Cell {
            behind: behind(from, self.offset).max(behind(to, reach)),
            up_to: up_to(from, self.offset).min(up_to(to, reach)),
            from,
            to,
        }
    }

    /// The first grid index at or after `at`, at most the grid's length.
    fn index(&self, at: Timestamp) -> usize {
        let distance = at.saturating_sub(self.grid.start);
        if distance <= 0 {
            return 0;
        }
        let index = (distance - 1) / self.grid.step + 1;
        usize::try_from(index)
            .unwrap_or(usize::MAX)
            .min(self.grid.len())
    }
}

/// Times that lie in the same windows: entries come in order, so the next one is mostly in the
/// same cell, and no division is needed to know its windows.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Not itself.
    behind: Timestamp,
    up_to: Timestamp,
    pub from: usize,
    pub to: usize,
}

impl Cell {
    #[inline]
    pub fn holds(&self, at: Timestamp) -> bool {
        self.behind < at && at <= self.up_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_times_of_a_cell_are_held_by_the_same_windows(
            start in -50i64..50, steps in 0i64..6, step in 1i64..20, range in 1i64..40,
            offset in -10i64..10, at in -200i64..200, other in -200i64..200,
        ) {
            let grid = Grid { start, end: start + steps * step, step };
            let windows = Windows { grid, range, offset };
            let cell = windows.cell(at);
            prop_assert!(cell.holds(at));
            prop_assert_eq!((cell.from, cell.to), windows.holding(at));
            if cell.holds(other) {
                prop_assert_eq!(windows.holding(other), windows.holding(at));
            }
            for extreme in [i64::MIN, i64::MAX] {
                if windows.cell(extreme).holds(at) {
                    prop_assert_eq!(windows.holding(extreme), windows.holding(at));
                }
            }
        }
    }
}
