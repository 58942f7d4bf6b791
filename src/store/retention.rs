//! Which days go: pure decisions.

use super::layout::PartitionId;
use crate::model::Day;

/// The partitions older than `first_kept`.
pub fn expired(partitions: impl Iterator<Item = PartitionId>, first_kept: Day) -> Vec<PartitionId> {
    partitions.filter(|id| id.day < first_kept).collect()
}

/// The oldest partitions whose going frees at least `excess` bytes, as far as there are any; the
/// newest day stays, so that what comes in now is never what goes. Given with their bytes, in
/// any order.
pub fn for_room(mut partitions: Vec<(PartitionId, u64)>, excess: u64) -> Vec<PartitionId> {
    partitions.sort_by_key(|(id, _)| (id.day, id.signal));
    let Some(newest) = partitions.last().map(|(id, _)| id.day) else {
        return Vec::new();
    };
    let mut freed: u64 = 0;
    let mut gone = Vec::new();
    for (id, bytes) in partitions {
        if freed >= excess || id.day == newest {
            break;
        }
        freed = freed.saturating_add(bytes);
        gone.push(id);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::layout::Signal;

    #[test]
    fn for_room_the_oldest_days_go_and_the_newest_stays() {
        let logs = |day| PartitionId {
            signal: Signal::Logs,
            day: Day(day),
        };
        let spans = |day| PartitionId {
            signal: Signal::Spans,
            day: Day(day),
        };
        let days = vec![
            (logs(3), 5),
            (spans(1), 10),
            (logs(1), 20),
            (spans(3), 50),
            (logs(2), 7),
        ];
        let check = |excess, expected: &[PartitionId]| {
            assert_eq!(for_room(days.clone(), excess), expected, "{excess}");
        };
        check(0, &[]);
        check(1, &[logs(1)]);
        check(20, &[logs(1)]);
        check(21, &[logs(1), spans(1)]);
        check(31, &[logs(1), spans(1), logs(2)]);
        check(u64::MAX, &[logs(1), spans(1), logs(2)]);
        assert_eq!(for_room(Vec::new(), 1), []);
    }

    #[test]
    fn a_day_goes_when_all_of_it_is_older_than_retention() {
        let id = |day| PartitionId {
            signal: Signal::Logs,
            day: Day(day),
        };
        assert_eq!(expired([id(1), id(2), id(3)].into_iter(), Day(2)), [id(1)]);
    }
}
