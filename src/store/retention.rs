//! How long what is kept, and which days go: pure decisions.
//!
//! Of the rules whose selector matches a stream, the one of the highest priority holds, of equal
//! ones the shortest; without any, `storage.retention` does. As in Loki what expires is a chunk,
//! when its newest line is too old; under `storage.retention` a day, when all of it is.

use std::sync::Arc;
use std::time::Duration;

use super::layout::{PartitionId, Signal};
use crate::model::{Day, Labels, Matcher, Timestamp};

/// How long some streams are kept.
#[derive(Clone, Debug)]
pub struct Rule {
    /// All of them must match; none matches every stream.
    pub matchers: Vec<Matcher>,
    /// `None`: for ever.
    pub period: Option<Duration>,
    /// Of several rules that match, the highest holds.
    pub priority: i64,
}

/// What differs from `storage.retention`.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub logs: Arc<[Rule]>,
    /// Of all spans; the inner `None` is for ever.
    pub spans: Option<Option<Duration>>,
}

/// How long the lines of a stream are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    Forever,
    /// So many nanoseconds behind a chunk's newest line.
    Chunks(i64),
    /// So many nanoseconds behind the end of a day.
    Days(i64),
}

impl Kept {
    /// When what has its newest line at `newest` is no longer kept.
    pub fn expires_at(self, newest: Timestamp) -> Timestamp {
        match self {
            Self::Forever => Timestamp::MAX,
            Self::Chunks(period) => newest.saturating_add(period).saturating_add(1),
            Self::Days(period) => Day::of(newest).end().saturating_add(period),
        }
    }
}

/// A period in nanoseconds; longer than can be counted is for ever.
fn nanoseconds(period: Option<Duration>) -> Option<i64> {
    period.and_then(|period| i64::try_from(period.as_nanos()).ok())
}

impl Rules {
    /// What holds for a stream, beside `storage.retention`.
    pub fn kept(&self, retention: Option<Duration>, labels: &Labels) -> Kept {
        let by_days = nanoseconds(retention).map_or(Kept::Forever, Kept::Days);
        self.of(labels).map_or(by_days, |rule| {
            nanoseconds(rule.period).map_or(Kept::Forever, Kept::Chunks)
        })
    }

    /// The rule that holds for a stream.
    pub fn of(&self, labels: &Labels) -> Option<&Rule> {
        let forever = Duration::MAX;
        let matching = self
            .logs
            .iter()
            .filter(|rule| rule.matchers.iter().all(|m| m.matches_labels(labels)));
        matching.min_by_key(|rule| {
            let period = rule.period.unwrap_or(forever);
            (std::cmp::Reverse(rule.priority), period)
        })
    }

    /// For how long days of a signal may have something that is kept; `None`: for ever.
    pub fn longest(&self, retention: Option<Duration>, signal: Signal) -> Option<Duration> {
        match signal {
            Signal::Spans => self.spans.unwrap_or(retention),
            Signal::Logs => {
                let periods = self.logs.iter().map(|rule| rule.period);
                periods.fold(retention, |a, b| Some(a?.max(b?)))
            }
        }
    }
}

/// The partitions older than the first day that is kept of their signal.
pub fn expired(
    partitions: impl Iterator<Item = PartitionId>,
    first_kept: impl Fn(Signal) -> Option<Day>,
) -> Vec<PartitionId> {
    let is_expired = |id: &PartitionId| first_kept(id.signal).is_some_and(|kept| id.day < kept);
    partitions.filter(is_expired).collect()
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
        let spans = PartitionId {
            signal: Signal::Spans,
            day: Day(1),
        };
        let days = [id(1), id(2), id(3), spans];
        let first_kept = |signal| (signal == Signal::Logs).then_some(Day(2));
        assert_eq!(expired(days.into_iter(), first_kept), [id(1)]);
    }

    fn rule(name: &str, value: &str, days: u64, priority: i64) -> Rule {
        Rule {
            matchers: vec![Matcher {
                name: name.into(),
                op: crate::model::MatchOp::Equal,
                value: value.into(),
                regex: None,
            }],
            period: (days > 0).then(|| Duration::from_secs(days * 86_400)),
            priority,
        }
    }

    #[test]
    fn the_highest_priority_holds_then_the_shortest_period_then_the_default() {
        let rules = Rules {
            logs: [
                rule("env", "dev", 2, 0),
                rule("app", "audit", 0, 5),
                rule("app", "noisy", 1, 0),
                rule("app", "noisy", 3, 0),
            ]
            .into(),
            spans: None,
        };
        let retention = Some(Duration::from_secs(30 * 86_400));
        let day = crate::model::time::DAY;
        let check = |labels: &[(&str, &str)], expected| {
            let labels = Labels::from_pairs(labels.iter().copied());
            assert_eq!(rules.kept(retention, &labels), expected, "{labels}");
        };
        check(&[("env", "prod")], Kept::Days(30 * day));
        check(&[("env", "dev")], Kept::Chunks(2 * day));
        check(&[("app", "noisy"), ("env", "dev")], Kept::Chunks(day));
        check(&[("app", "audit"), ("env", "dev")], Kept::Forever);
        // A rule for ever keeps all days.
        assert_eq!(rules.longest(retention, Signal::Logs), None);
        assert_eq!(rules.longest(retention, Signal::Spans), retention);
        let short = Rules {
            logs: [rule("env", "dev", 2, 0)].into(),
            spans: Some(Some(Duration::from_secs(86_400))),
        };
        assert_eq!(short.longest(retention, Signal::Logs), retention);
        assert_eq!(
            short.longest(retention, Signal::Spans),
            Some(Duration::from_secs(86_400))
        );
        assert_eq!(short.longest(None, Signal::Logs), None);
    }

    #[test]
    fn a_chunk_expires_behind_its_newest_line_and_a_day_as_a_whole() {
        let day = crate::model::time::DAY;
        assert_eq!(Kept::Chunks(10).expires_at(5), 16);
        assert_eq!(Kept::Days(2 * day).expires_at(5), 3 * day);
        assert_eq!(Kept::Forever.expires_at(5), i64::MAX);
        assert_eq!(Kept::Chunks(i64::MAX).expires_at(5), i64::MAX);
    }
}
