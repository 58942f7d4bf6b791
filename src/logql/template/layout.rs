//! Go's layouts of time: a text that shows how the reference time would be written.

use super::time::{self, Civil, MONTHS, Time, WEEKDAYS, Zone};
use std::fmt::Write;

/// A part of a layout that stands for a part of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperPm,
    LowerPm,
    ZoneName,
    /// `Z` for UTC, else like [`Part::Offset`].
    IsoOffset(OffsetShape),
    Offset(OffsetShape),
    /// The separator and its digits, trailing zeros or not.
    Fraction {
        separator: u8,
        digits: usize,
        trimmed: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OffsetShape {
    Hours,
    Minutes,
    Seconds,
    ColonMinutes,
    ColonSeconds,
}

const OFFSETS: [(&str, OffsetShape); 5] = [
    ("070000", OffsetShape::Seconds),
    ("07:00:00", OffsetShape::ColonSeconds),
    ("0700", OffsetShape::Minutes),
    ("07:00", OffsetShape::ColonMinutes),
    ("07", OffsetShape::Hours),
];

/// The first part in a layout, where it begins and where the rest does.
fn next_part(layout: &[u8]) -> Option<(usize, Part, usize)> {
    for at in 0..layout.len() {
        let rest = &layout[at..];
        let is = |text: &str| rest.starts_with(text.as_bytes());
        let lower_follows = |len: usize| rest.get(len).is_some_and(u8::is_ascii_lowercase);
        let found = match rest[0] {
            b'J' if is("January") => Some((Part::LongMonth, 7)),
            b'J' if is("Jan") && !lower_follows(3) => Some((Part::Month, 3)),
            b'M' if is("Monday") => Some((Part::LongWeekday, 6)),
            b'M' if is("Mon") && !lower_follows(3) => Some((Part::Weekday, 3)),
            b'M' if is("MST") => Some((Part::ZoneName, 3)),
            b'0' if is("002") => Some((Part::ZeroYearDay, 3)),
            b'0' => match rest.get(1) {
                Some(b'1') => Some((Part::ZeroMonth, 2)),
                Some(b'2') => Some((Part::ZeroDay, 2)),
                Some(b'3') => Some((Part::ZeroHour12, 2)),
                Some(b'4') => Some((Part::ZeroMinute, 2)),
                Some(b'5') => Some((Part::ZeroSecond, 2)),
                Some(b'6') => Some((Part::Year, 2)),
                _ => None,
            },
            b'1' if is("15") => Some((Part::Hour, 2)),
            b'1' => Some((Part::NumMonth, 1)),
            b'2' if is("2006") => Some((Part::LongYear, 4)),
            b'2' => Some((Part::Day, 1)),
            b'_' if is("_2006") => return Some((at + 1, Part::LongYear, at + 5)),
            b'_' if is("__2") => Some((Part::UnderYearDay, 3)),
            b'_' if is("_2") => Some((Part::UnderDay, 2)),
            b'3' => Some((Part::Hour12, 1)),
            b'4' => Some((Part::Minute, 1)),
            b'5' => Some((Part::Second, 1)),
            b'P' if is("PM") => Some((Part::UpperPm, 2)),
            b'p' if is("pm") => Some((Part::LowerPm, 2)),
            sign @ (b'-' | b'Z') => OFFSETS
                .iter()
                .find(|(text, _)| rest[1..].starts_with(text.as_bytes()))
                .map(|(text, shape)| {
                    let part = if sign == b'Z' {
                        Part::IsoOffset(*shape)
                    } else {
                        Part::Offset(*shape)
                    };
                    (part, 1 + text.len())
                }),
            separator @ (b'.' | b',') => fraction(rest, separator),
            _ => None,
        };
        if let Some((part, len)) = found {
            return Some((at, part, at + len));
        }
    }
    None
}

/// `.000` or `.999`, with no digit behind it.
fn fraction(rest: &[u8], separator: u8) -> Option<(Part, usize)> {
    let digit = *rest.get(1).filter(|b| matches!(b, b'0' | b'9'))?;
    let digits = rest[1..].iter().take_while(|b| **b == digit).count();
    if rest.get(1 + digits).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let trimmed = digit == b'9';
    Some((
        Part::Fraction {
            separator,
            digits,
            trimmed,
        },
        1 + digits,
    ))
}

/// The time as the layout shows it. What is no part of a time stays.
pub fn format(layout: &str, time: &Time) -> String {
    String::from_utf8_lossy(&format_bytes(layout.as_bytes(), time)).into_owned()
}

pub fn format_bytes(layout: &[u8], time: &Time) -> Vec<u8> {
    let mut out = Vec::with_capacity(layout.len() + 16);
    let mut rest = layout;
    let civil = time.civil();
    let mut piece = String::new();
    while let Some((start, part, end)) = next_part(rest) {
        out.extend_from_slice(&rest[..start]);
        rest = &rest[end..];
        piece.clear();
        // Writing to a string cannot fail.
        let _ = write_part(&mut piece, part, time, &civil);
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(rest);
    out
}

fn write_part(out: &mut String, part: Part, time: &Time, civil: &Civil) -> std::fmt::Result {
    let month = MONTHS[(civil.month as usize - 1) % 12];
    let weekday = WEEKDAYS[civil.weekday as usize % 7];
    let hour12 = match civil.hour % 12 {
        0 => 12,
        hour => hour,
    };
    match part {
        Part::LongMonth => out.write_str(month),
        Part::Month => out.write_str(&month[..3]),
        Part::NumMonth => write!(out, "{}", civil.month),
        Part::ZeroMonth => write!(out, "{:02}", civil.month),
        Part::LongWeekday => out.write_str(weekday),
        Part::Weekday => out.write_str(&weekday[..3]),
        Part::Day => write!(out, "{}", civil.day),
        Part::UnderDay => write!(out, "{:2}", civil.day),
        Part::ZeroDay => write!(out, "{:02}", civil.day),
        Part::UnderYearDay => write!(out, "{:3}", civil.year_day),
        Part::ZeroYearDay => write!(out, "{:03}", civil.year_day),
        Part::Hour => write!(out, "{:02}", civil.hour),
        Part::Hour12 => write!(out, "{hour12}"),
        Part::ZeroHour12 => write!(out, "{hour12:02}"),
        Part::Minute => write!(out, "{}", civil.minute),
        Part::ZeroMinute => write!(out, "{:02}", civil.minute),
        Part::Second => write!(out, "{}", civil.second),
        Part::ZeroSecond => write!(out, "{:02}", civil.second),
        Part::LongYear if civil.year < 0 => write!(out, "-{:04}", -civil.year),
        Part::LongYear => write!(out, "{:04}", civil.year),
        Part::Year => write!(out, "{:02}", civil.year.max(0) % 100),
        Part::UpperPm => out.write_str(if civil.hour >= 12 { "PM" } else { "AM" }),
        Part::LowerPm => out.write_str(if civil.hour >= 12 { "pm" } else { "am" }),
        Part::ZoneName if !time.zone.name().is_empty() => out.write_str(time.zone.name()),
        Part::ZoneName => write_nameless(out, time.zone.offset()),
        Part::IsoOffset(_) if time.zone.offset() == 0 => out.write_str("Z"),
        Part::IsoOffset(shape) | Part::Offset(shape) => {
            write_offset(out, shape, time.zone.offset())
        }
        Part::Fraction {
            separator,
            digits,
            trimmed,
        } => {
            let mut text = format!("{:09}", time.nanos);
            if digits < 9 {
                text.truncate(digits);
            } else {
                text.extend(std::iter::repeat_n('0', digits - 9));
            }
            let text = if trimmed {
                text.trim_end_matches('0')
            } else {
                &text
            };
            if text.is_empty() {
                return Ok(());
            }
            write!(out, "{}{text}", char::from(separator))
        }
    }
}

/// Stands for the name of a zone that has none: `+0530`.
fn write_nameless(out: &mut String, offset: i32) -> std::fmt::Result {
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    write!(out, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
}

fn write_offset(out: &mut String, shape: OffsetShape, offset: i32) -> std::fmt::Result {
    let sign = if offset / 60 < 0 { '-' } else { '+' };
    let seconds = offset.unsigned_abs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match shape {
        OffsetShape::Hours => write!(out, "{sign}{hours:02}"),
        OffsetShape::Minutes => write!(out, "{sign}{hours:02}{minutes:02}"),
        OffsetShape::Seconds => write!(out, "{sign}{hours:02}{minutes:02}{seconds:02}"),
        OffsetShape::ColonMinutes => write!(out, "{sign}{hours:02}:{minutes:02}"),
        OffsetShape::ColonSeconds => write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// What a text says of a time.
#[derive(Default)]
struct Read {
    year: i64,
    month: Option<u32>,
    day: Option<u32>,
    year_day: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
    /// `Some(true)`: afternoon.
    half: Option<bool>,
    utc: bool,
    offset: Option<i32>,
    zone_name: Option<String>,
}

/// Reads a time; a text without zone is in `place` (none: UTC). `None`: the text does not fit
/// the layout.
pub fn parse(layout: &[u8], text: &[u8], place: Option<&jiff::tz::TimeZone>) -> Option<Time> {
    let mut read = Read::default();
    let (mut layout, mut text) = (layout, text);
    loop {
        let Some((start, part, end)) = next_part(layout) else {
            text = skip(text, layout)?;
            break;
        };
        text = skip(text, &layout[..start])?;
        layout = &layout[end..];
        read_part(part, layout, &mut text, &mut read)?;
    }
    if !text.is_empty() {
        return None;
    }
    read.time(place)
}

/// Passes what stands between parts; a blank stands for any number of them.
fn skip<'t>(mut text: &'t [u8], mut literal: &[u8]) -> Option<&'t [u8]> {
    let cut = |bytes: &[u8]| bytes.iter().take_while(|b| **b == b' ').count();
    while let Some(first) = literal.first() {
        if *first == b' ' {
            if text.first().is_some_and(|b| *b != b' ') {
                return None;
            }
            literal = &literal[cut(literal)..];
            text = &text[cut(text)..];
            continue;
        }
        text = text.strip_prefix(std::slice::from_ref(first))?;
        literal = &literal[1..];
    }
    Some(text)
}

fn is_digit(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(u8::is_ascii_digit)
}

fn decimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, b| {
        b.is_ascii_digit().then_some(n * 10 + u32::from(*b - b'0'))
    })
}

/// Takes up to `max` digits, exactly as many if `fixed`.
fn take_number(text: &mut &[u8], max: usize, fixed: bool) -> Option<u32> {
    let len = text
        .iter()
        .take(max)
        .take_while(|b| b.is_ascii_digit())
        .count();
    if len == 0 || (fixed && len < max) {
        return None;
    }
    let number = decimal(&text[..len]);
    *text = &text[len..];
    number
}

/// Takes one of the names, in any case; its number.
fn take_name(text: &mut &[u8], names: &[&str], len: Option<usize>) -> Option<u32> {
    let found = names.iter().position(|name| {
        let name = &name.as_bytes()[..len.unwrap_or(name.len())];
        text.get(..name.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(name))
    })?;
    *text = &text[len.unwrap_or(names[found].len())..];
    Some(found as u32)
}

/// The separator and `len - 1` digits behind it.
fn take_fraction(text: &mut &[u8], len: usize) -> Option<u32> {
    if !matches!(text.first(), Some(b'.' | b',')) {
        return None;
    }
    let digits = &text.get(1..len)?[..(len - 1).min(9)];
    let value = decimal(digits)? * 10u32.pow(9 - digits.len() as u32);
    if !text[1..len].iter().all(u8::is_ascii_digit) {
        return None;
    }
    *text = &text[len..];
    Some(value)
}

fn read_part(part: Part, layout: &[u8], text: &mut &[u8], read: &mut Read) -> Option<()> {
    match part {
        Part::Year => {
            let year = take_number(text, 2, true)?;
            read.year = i64::from(if year >= 69 { 1900 + year } else { 2000 + year });
        }
        Part::LongYear => read.year = i64::from(take_number(text, 4, true)?),
        Part::Month => read.month = Some(take_name(text, &MONTHS, Some(3))? + 1),
        Part::LongMonth => read.month = Some(take_name(text, &MONTHS, None)? + 1),
        Part::NumMonth | Part::ZeroMonth => {
            let month = take_number(text, 2, part == Part::ZeroMonth)?;
            read.month = Some(month).filter(|m| (1..=12).contains(m));
            read.month?;
        }
        Part::Weekday => {
            take_name(text, &WEEKDAYS, Some(3))?;
        }
        Part::LongWeekday => {
            take_name(text, &WEEKDAYS, None)?;
        }
        Part::Day | Part::UnderDay | Part::ZeroDay => {
            if part == Part::UnderDay && text.first() == Some(&b' ') {
                *text = &text[1..];
            }
            read.day = Some(take_number(text, 2, part == Part::ZeroDay)?);
        }
        Part::UnderYearDay | Part::ZeroYearDay => {
            let blanks = match part {
                Part::UnderYearDay => text.iter().take(2).take_while(|b| **b == b' ').count(),
                _ => 0,
            };
            *text = &text[blanks..];
            read.year_day = Some(take_number(text, 3, part == Part::ZeroYearDay)?);
        }
        Part::Hour => {
            read.hour = take_number(text, 2, false).filter(|hour| *hour < 24)?;
        }
        Part::Hour12 | Part::ZeroHour12 => {
            let hour = take_number(text, 2, part == Part::ZeroHour12)?;
            read.hour = Some(hour).filter(|hour| *hour <= 12)?;
        }
        Part::Minute | Part::ZeroMinute => {
            let minute = take_number(text, 2, part == Part::ZeroMinute)?;
            read.minute = Some(minute).filter(|minute| *minute < 60)?;
        }
        Part::Second | Part::ZeroSecond => {
            let second = take_number(text, 2, part == Part::ZeroSecond)?;
            read.second = Some(second).filter(|second| *second < 60)?;
            // A fraction is read although the layout has none.
            let has_fraction = matches!(text.first(), Some(b'.' | b',')) && is_digit(text, 1);
            let expects_fraction = matches!(next_part(layout), Some((_, Part::Fraction { .. }, _)));
            if has_fraction && !expects_fraction {
                let digits = text[1..].iter().take_while(|b| b.is_ascii_digit()).count();
                read.nanos = take_fraction(text, 1 + digits)?;
            }
        }
        Part::UpperPm | Part::LowerPm => {
            let (am, pm) = match part {
                Part::UpperPm => (b"AM", b"PM"),
                _ => (b"am", b"pm"),
            };
            read.half = Some(match text.get(..2)? {
                half if half == pm => true,
                half if half == am => false,
                _ => return None,
            });
            *text = &text[2..];
        }
        Part::IsoOffset(_) if text.first() == Some(&b'Z') => {
            *text = &text[1..];
            read.utc = true;
        }
        Part::IsoOffset(shape) | Part::Offset(shape) => {
            read.offset = Some(take_offset(text, shape)?);
        }
        Part::ZoneName => {
            if let Some(rest) = text.strip_prefix(b"UTC") {
                *text = rest;
                read.utc = true;
            } else {
                let len = zone_name_len(text)?;
                read.zone_name = Some(String::from_utf8_lossy(&text[..len]).into_owned());
                *text = &text[len..];
            }
        }
        Part::Fraction {
            digits,
            trimmed: false,
            ..
        } => read.nanos = take_fraction(text, 1 + digits)?,
        Part::Fraction { trimmed: true, .. } => {
            if matches!(text.first(), Some(b'.' | b',')) && is_digit(text, 1) {
                let digits = text[1..].iter().take_while(|b| b.is_ascii_digit()).count();
                read.nanos = take_fraction(text, 1 + digits)?;
            }
        }
    }
    Some(())
}

fn take_offset(text: &mut &[u8], shape: OffsetShape) -> Option<i32> {
    let negative = match text.first()? {
        b'-' => true,
        b'+' => false,
        _ => return None,
    };
    let colon = matches!(shape, OffsetShape::ColonMinutes | OffsetShape::ColonSeconds);
    let fields = match shape {
        OffsetShape::Hours => 1,
        OffsetShape::Minutes | OffsetShape::ColonMinutes => 2,
        OffsetShape::Seconds | OffsetShape::ColonSeconds => 3,
    };
    let mut rest = &text[1..];
    let mut seconds = 0;
    for (field, (max, size)) in [(24, 3600), (60, 60), (60, 1)]
        .into_iter()
        .take(fields)
        .enumerate()
    {
        if colon && field > 0 {
            rest = rest.strip_prefix(b":")?;
        }
        let value = take_number(&mut rest, 2, true).filter(|value| *value <= max)?;
        seconds += value as i32 * size;
    }
    *text = rest;
    Some(if negative { -seconds } else { seconds })
}

/// Bytes of the abbreviation of a zone that a text begins with.
fn zone_name_len(text: &[u8]) -> Option<usize> {
    if text.len() < 3 {
        return None;
    }
    if text.starts_with(b"ChST") || text.starts_with(b"MeST") {
        return Some(4);
    }
    if let Some(after) = text.strip_prefix(b"GMT") {
        return Some(3 + signed_hours_len(after));
    }
    if matches!(text[0], b'+' | b'-') {
        return Some(signed_hours_len(text)).filter(|len| *len > 0);
    }
    let upper = text
        .iter()
        .take(6)
        .take_while(|b| b.is_ascii_uppercase())
        .count();
    match upper {
        5 if text[4] == b'T' => Some(5),
        4 if text[3] == b'T' || text.starts_with(b"WITA") => Some(4),
        3 => Some(3),
        _ => None,
    }
}

fn signed_hours_len(text: &[u8]) -> usize {
    if !matches!(text.first(), Some(b'+' | b'-')) {
        return 0;
    }
    let digits = text[1..]
        .iter()
        .take(9)
        .take_while(|b| b.is_ascii_digit())
        .count();
    match decimal(&text[1..1 + digits]) {
        Some(hours) if digits > 0 && hours <= 23 => 1 + digits,
        _ => 0,
    }
}

impl Read {
    fn time(self, place: Option<&jiff::tz::TimeZone>) -> Option<Time> {
        let hour = match self.half {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let (month, day) = self.date()?;
        let local = time::days_of_civil(self.year, month, day) * 86_400
            + i64::from(hour * 3600 + self.minute * 60 + self.second);
        let at = |zone: Zone| Time {
            seconds: local - i64::from(zone.offset()),
            nanos: self.nanos,
            zone,
        };
        if self.utc {
            return Some(at(Zone::Utc));
        }
        if let Some(offset) = self.offset {
            // The place's own name for the offset, if it has that offset then.
            let name = self.zone_name.unwrap_or_default();
            let there = match place {
                Some(place) => time::zone_of_instant(place, local - i64::from(offset)),
                None => Zone::Utc,
            };
            let same = there.offset() == offset && (name.is_empty() || there.name() == name);
            return Some(at(if same {
                there
            } else {
                Zone::Fixed(offset, name.into())
            }));
        }
        let Some(name) = self.zone_name else {
            return Some(at(match place {
                Some(place) => time::zone_at(place, local),
                None => Zone::Utc,
            }));
        };
        if let Some(place) = place {
            // The place's names, those of the other half of the year as well.
            const HALF_YEAR: i64 = 183 * 86_400;
            for shift in [0, HALF_YEAR, -HALF_YEAR] {
                let there = time::zone_at(place, local + shift);
                if there.name() == name {
                    let instant = local - i64::from(there.offset());
                    return Some(Time {
                        seconds: instant,
                        nanos: self.nanos,
                        zone: time::zone_of_instant(place, instant),
                    });
                }
            }
        }
        // An unknown name is kept, with no offset; `GMT+3` says its own.
        let hours: i32 = match name.strip_prefix("GMT") {
            Some(hours) if !hours.is_empty() => hours.parse().unwrap_or(0),
            _ => 0,
        };
        Some(at(Zone::Fixed(hours * 3600, name.into())))
    }

    /// Month and day of month, from the day of the year if the text had that.
    fn date(&self) -> Option<(u32, u32)> {
        let Some(year_day) = self.year_day else {
            let month = self.month.unwrap_or(1);
            let day = self.day.unwrap_or(1);
            let fits = (1..=time::days_in(month, self.year)).contains(&day);
            return fits.then_some((month, day));
        };
        let in_year = if time::is_leap(self.year) { 366 } else { 365 };
        if !(1..=in_year).contains(&year_day) {
            return None;
        }
        let mut day = year_day;
        let mut month = 1;
        while day > time::days_in(month, self.year) {
            day -= time::days_in(month, self.year);
            month += 1;
        }
        let agrees = self.month.is_none_or(|m| m == month) && self.day.is_none_or(|d| d == day);
        agrees.then_some((month, day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14 22:13:20.123456789 UTC.
    fn sample() -> Time {
        Time::from_nanos(1_700_000_000_123_456_789)
    }

    #[test]
    fn layouts_show_the_reference_time() {
        for (layout, expected) in [
            ("2006-01-02T15:04:05.000Z07:00", "2023-11-14T22:13:20.123Z"),
            ("Mon Jan _2 3:04:05PM 06", "Tue Nov 14 10:13:20PM 23"),
            ("Monday, January 2 pm", "Tuesday, November 14 pm"),
            ("002 __2 _2006", "318 318 _2023"),
            ("-0700 -07:00 -07 MST", "+0000 +00:00 +00 UTC"),
            (".999999999,00 .0001", ".123456789,12 .0011"),
            ("Janet Months", "Janet Months"),
            ("", ""),
        ] {
            assert_eq!(format(layout, &sample()), expected, "{layout}");
        }
    }

    #[test]
    fn texts_are_read_by_layouts() {
        let read = |layout: &str, text: &str| {
            parse(layout.as_bytes(), text.as_bytes(), None).map(|time| time.print())
        };
        for (layout, text, expected) in [
            (
                "2006-01-02T15:04:05Z07:00",
                "2024-02-03T04:05:06+02:00",
                "2024-02-03 04:05:06 +0200 +0200",
            ),
            (
                "02 Jan 06 15:04 MST",
                "03 feb 24 04:05 CET",
                "2024-02-03 04:05:00 +0000 CET",
            ),
            (
                "15:04:05",
                "04:05:06.789",
                "0000-01-01 04:05:06.789 +0000 UTC",
            ),
            (
                "Jan _2 3:04PM",
                "Feb  3 4:05PM",
                "0000-02-03 16:05:00 +0000 UTC",
            ),
            ("2006 002", "2024 060", "2024-02-29 00:00:00 +0000 UTC"),
            ("2006 MST", "2024 GMT+3", "2024-01-01 00:00:00 +0300 GMT+3"),
        ] {
            assert_eq!(read(layout, text).as_deref(), Some(expected), "{text}");
        }
        for (layout, text) in [
            ("2006-01-02", "2024-02-30"),
            ("2006-01-02", "2024-2-3"),
            ("2006", "x"),
            ("2006", "2024 "),
            ("15:04", "25:00"),
            ("2006 002", "2023 366"),
            ("-07:00", "+0200"),
        ] {
            assert_eq!(read(layout, text), None, "{text}");
        }
    }

    #[test]
    fn a_place_gives_its_zone_of_that_day() {
        let Some(berlin) = time::place("Europe/Berlin") else {
            return; // The machine has no time zone database.
        };
        let read = |layout: &str, text: &str| {
            parse(layout.as_bytes(), text.as_bytes(), Some(&berlin)).map(|time| time.print())
        };
        assert_eq!(
            read("2006-01-02 15:04", "2024-07-01 12:00").unwrap(),
            "2024-07-01 12:00:00 +0200 CEST"
        );
        assert_eq!(
            read("2006-01-02 MST", "2024-01-01 CET").unwrap(),
            "2024-01-01 00:00:00 +0100 CET"
        );
        assert_eq!(
            read("2006-01-02 -0700", "2024-01-01 +0100").unwrap(),
            "2024-01-01 00:00:00 +0100 CET"
        );
    }
}
