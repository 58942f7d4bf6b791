//! Instants with a zone, and what Go's `time` package does with them.

use crate::model::time::{DAY, Day, SECOND};

/// Seconds from 0001-01-01T00:00:00Z, Go's zero time, to 1970.
const ZERO_SECONDS: i64 = -62_135_596_800;
const DAY_SECONDS: i64 = DAY / SECOND;

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// An instant, and the offset and name of the zone that it is shown in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    pub nanos: u32,
    pub zone: Zone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    Utc,
    /// Seconds east of UTC; the name may be empty.
    Fixed(i32, std::sync::Arc<str>),
}

impl Zone {
    pub fn offset(&self) -> i32 {
        match self {
            Self::Utc => 0,
            Self::Fixed(offset, _) => *offset,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Utc => "UTC",
            Self::Fixed(_, name) => name,
        }
    }
}

/// Calendar and clock of an instant in its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: i64,
    /// 1–12.
    pub month: u32,
    pub day: u32,
    /// From 1.
    pub year_day: u32,
    /// 0 is Sunday.
    pub weekday: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

impl Time {
    /// Go's zero time.
    pub fn zero() -> Self {
        Self::unix(ZERO_SECONDS, 0)
    }

    pub fn unix(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds,
            nanos,
            zone: Zone::Utc,
        }
    }

    pub fn from_nanos(nanos: i64) -> Self {
        Self::unix(nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND) as u32)
    }

    pub fn now() -> Self {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self::unix(since.as_secs() as i64, since.subsec_nanos()),
            Err(_) => Self::unix(0, 0),
        }
    }

    pub fn is_zero(&self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// Nanoseconds since 1970; meaningless outside of the years 1678 to 2262, as in Go.
    pub fn unix_nanos(&self) -> i64 {
        self.seconds
            .wrapping_mul(SECOND)
            .wrapping_add(i64::from(self.nanos))
    }

    pub fn civil(&self) -> Civil {
        let local = self.seconds.saturating_add(i64::from(self.zone.offset()));
        let (days, clock) = (
            local.div_euclid(DAY_SECONDS),
            local.rem_euclid(DAY_SECONDS) as u32,
        );
        let (year, month, day) = civil_of_days(days);
        Civil {
            year,
            month,
            day,
            year_day: (days - days_of_civil(year, 1, 1) + 1) as u32,
            weekday: (days + 4).rem_euclid(7) as u32,
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
        }
    }

    /// As Go prints a time: `2006-01-02 15:04:05.999999999 -0700 MST`.
    pub fn print(&self) -> String {
        super::layout::format("2006-01-02 15:04:05.999999999 -0700 MST", self)
    }

    /// Nanoseconds from `other` to this, cut to what 64 bits hold.
    pub fn since(&self, other: &Self) -> i64 {
        let nanos = i128::from(self.seconds - other.seconds) * i128::from(SECOND)
            + i128::from(self.nanos)
            - i128::from(other.nanos);
        nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// This many nanoseconds later.
    pub fn plus(&self, nanos: i64) -> Self {
        let total = i64::from(self.nanos) + nanos.rem_euclid(SECOND);
        Self {
            seconds: self
                .seconds
                .saturating_add(nanos.div_euclid(SECOND))
                .saturating_add(total / SECOND),
            nanos: (total % SECOND) as u32,
            zone: self.zone.clone(),
        }
    }

    /// Calendar years, months and days later; what is too much for a month flows over.
    pub fn plus_date(&self, years: i64, months: i64, days: i64) -> Self {
        const BOUND: i64 = 1_000_000_000;
        let clamp = |n: i64| n.clamp(-BOUND, BOUND);
        let civil = self.civil();
        let month =
            civil.year * 12 + i64::from(civil.month) - 1 + clamp(years) * 12 + clamp(months);
        let first = days_of_civil(month.div_euclid(12), month.rem_euclid(12) as u32 + 1, 1);
        let day = first + i64::from(civil.day) - 1 + clamp(days);
        let clock = i64::from(civil.hour * 3600 + civil.minute * 60 + civil.second);
        Self {
            seconds: day * DAY_SECONDS + clock - i64::from(self.zone.offset()),
            nanos: self.nanos,
            zone: self.zone.clone(),
        }
    }

    /// Multiples of `unit` nanoseconds since the zero time, at or before this.
    pub fn truncate(&self, unit: i64) -> Self {
        if unit <= 0 {
            return self.clone();
        }
        let since =
            i128::from(self.seconds - ZERO_SECONDS) * i128::from(SECOND) + i128::from(self.nanos);
        let rest = since.rem_euclid(i128::from(unit));
        self.plus(-(rest as i64))
    }
}

/// Year, month and day of a count of days since 1970.
fn civil_of_days(days: i64) -> (i64, u32, u32) {
    // Whole eras of 400 years aside, it is a day that `Day` knows.
    const ERA_DAYS: i64 = 146_097;
    let (year, month, day) = Day(days.rem_euclid(ERA_DAYS) as i32).civil();
    (
        i64::from(year) + 400 * days.div_euclid(ERA_DAYS),
        month,
        day,
    )
}

/// Days since 1970 of a date of the proleptic Gregorian calendar.
pub fn days_of_civil(year: i64, month: u32, day: u32) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub fn days_in(month: u32, year: i64) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The zone that was in force in a place at a local time, given as seconds since 1970 as if
/// it were UTC. `None`: there is no such place.
pub fn zone_at(place: &jiff::tz::TimeZone, local: i64) -> Zone {
    // The offset decides the instant and the instant the offset: two rounds settle it.
    let mut zone = Zone::Utc;
    for guess in [local, local] {
        let instant = guess - i64::from(zone.offset());
        zone = zone_of_instant(place, instant);
    }
    zone
}

/// The zone that is in force in a place at an instant.
pub fn zone_of_instant(place: &jiff::tz::TimeZone, instant: i64) -> Zone {
    let Ok(at) = jiff::Timestamp::from_second(instant) else {
        return Zone::Utc;
    };
    let info = place.to_offset_info(at);
    Zone::Fixed(info.offset().seconds(), info.abbreviation().into())
}

/// The place with a name of the time zone database; what is unknown is UTC.
pub fn place(name: &str) -> Option<jiff::tz::TimeZone> {
    match name {
        "" | "UTC" | "Local" => None,
        name => jiff::tz::TimeZone::get(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_round_trips_over_thousands_of_years() {
        for days in (-1_000_000..4_000_000).step_by(37) {
            let (year, month, day) = civil_of_days(days);
            assert_eq!(days_of_civil(year, month, day), days);
        }
        assert_eq!(Time::zero().print(), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(
            Time::from_nanos(-1).print(),
            "1969-12-31 23:59:59.999999999 +0000 UTC"
        );
        let far = Time::unix(i64::MAX, 0).civil();
        assert!((1..=12).contains(&far.month));
        let far = Time::unix(i64::MIN, 0).civil();
        assert!((1..=31).contains(&far.day));
    }

    #[test]
    fn dates_flow_over() {
        let time = Time::unix(1_706_659_200, 0); // 2024-01-31
        assert_eq!(
            time.plus_date(0, 1, 0).print(),
            "2024-03-02 00:00:00 +0000 UTC"
        );
        assert_eq!(
            time.plus_date(-1, 0, -31).print(),
            "2022-12-31 00:00:00 +0000 UTC"
        );
        assert_eq!(
            time.plus(-1).print(),
            "2024-01-30 23:59:59.999999999 +0000 UTC"
        );
        assert_eq!(
            Time::from_nanos(1_700_000_000_123_456_789)
                .truncate(3600 * SECOND)
                .print(),
            "2023-11-14 22:00:00 +0000 UTC"
        );
    }
}
