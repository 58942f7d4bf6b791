//! Which days go: a pure decision.

use super::layout::PartitionId;
use crate::model::Day;

/// The partitions older than `first_kept`.
pub fn expired(partitions: impl Iterator<Item = PartitionId>, first_kept: Day) -> Vec<PartitionId> {
    partitions.filter(|id| id.day < first_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::layout::Signal;

    #[test]
    fn a_day_goes_when_all_of_it_is_older_than_retention() {
        let id = |day| PartitionId {
            signal: Signal::Logs,
            day: Day(day),
        };
        assert_eq!(expired([id(1), id(2), id(3)].into_iter(), Day(2)), [id(1)]);
    }
}
