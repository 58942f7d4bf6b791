//! Time: nanoseconds since the Unix epoch, half-open ranges, UTC days.

/// Nanoseconds since 1970-01-01T00:00:00Z; negative before.
pub type Timestamp = i64;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Nanoseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Nanoseconds in a day.
pub const DAY: i64 = 24 * HOUR;

/// Half-open range of time, `start <= t < end`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl TimeRange {
    /// The range `start <= t < end`; empty when `end <= start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// The range `start <= t <= end`, as Loki's metadata endpoints mean it.
    pub fn inclusive(start: Timestamp, end: Timestamp) -> Self {
        Self {
            start,
            end: end.saturating_add(1),
        }
    }

    /// Everything.
    pub fn all() -> Self {
        Self {
            start: i64::MIN,
            end: i64::MAX,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether any instant of `first..=last` (both inclusive) lies in the range.
    pub fn overlaps(&self, first: Timestamp, last: Timestamp) -> bool {
        !self.is_empty() && first < self.end && last >= self.start
    }

    /// Whether all of `first..=last` lies in the range.
    pub fn covers(&self, first: Timestamp, last: Timestamp) -> bool {
        first >= self.start && last < self.end
    }

    /// The days that the range touches, oldest first.
    pub fn days(&self) -> std::ops::RangeInclusive<i32> {
        if self.is_empty() {
            #[allow(clippy::reversed_empty_ranges)]
            return 1..=0;
        }
        Day::of(self.start).0..=Day::of(self.end - 1).0
    }
}

/// A UTC day, as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// The day that holds `at`.
    pub fn of(at: Timestamp) -> Self {
        Self(at.div_euclid(DAY) as i32)
    }

    /// First nanosecond of the day.
    pub fn start(self) -> Timestamp {
        i64::from(self.0).saturating_mul(DAY)
    }

    /// First nanosecond of the day after.
    pub fn end(self) -> Timestamp {
        (i64::from(self.0) + 1).saturating_mul(DAY)
    }

    /// Year, month (1–12) and day of month (1–31).
    pub fn civil(self) -> (i32, u32, u32) {
        // Howard Hinnant's civil_from_days, for the proleptic Gregorian calendar.
        let z = i64::from(self.0) + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
        let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
        let year = yoe + era * 400 + i64::from(month <= 2);
        (year as i32, month, day)
    }

    /// The day written `YYYYMMDD`, or `None` when `text` is not one.
    pub fn parse_compact(text: &str) -> Option<Self> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (y, m, d): (i64, i64, i64) = (
            text[..4].parse().ok()?,
            text[4..6].parse().ok()?,
            text[6..].parse().ok()?,
        );
        let y = if m <= 2 { y - 1 } else { y };
        let era = y.div_euclid(400);
        let yoe = y.rem_euclid(400);
        let mp = (m + 9) % 12;
        let doy = (153 * mp + 2) / 5 + d - 1;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
        let day = Self((era * 146_097 + doe - 719_468) as i32);
        (day.compact() == text).then_some(day)
    }

    /// The day as `YYYYMMDD`, as column families and index directories are named.
    pub fn compact(self) -> String {
        let (y, m, d) = self.civil();
        format!("{y:04}{m:02}{d:02}")
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (y, m, d) = self.civil();
        write!(f, "{y:04}-{m:02}-{d:02}")
    }
}

/// Order in which a log query answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc_and_round_trip_through_their_compact_form() {
        assert_eq!(Day::of(0).to_string(), "1970-01-01");
        assert_eq!(Day::of(-1).to_string(), "1969-12-31");
        for day in (-800_000..800_000).step_by(17) {
            let day = Day(day);
            if (0..=9999).contains(&day.civil().0) {
                assert_eq!(Day::parse_compact(&day.compact()), Some(day));
            }
        }
        assert_eq!(Day::parse_compact("20260230"), None);
        assert_eq!(Day::parse_compact("2026-2-3"), None);
    }

    #[test]
    fn a_range_is_half_open() {
        let r = TimeRange::new(10, 20);
        assert!(r.contains(10) && !r.contains(20));
        assert!(r.overlaps(0, 10) && !r.overlaps(20, 30) && !r.overlaps(0, 9));
        assert!(r.covers(10, 19) && !r.covers(10, 20));
        assert!(!TimeRange::new(5, 5).overlaps(0, 10));
    }
}
