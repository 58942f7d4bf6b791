//! Durations as Go writes and reads them: `1.5ms`, `1h5m`.

use std::fmt;

/// Nanoseconds, written as Go's `time.Duration` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub i64);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.unsigned_abs();
        if total == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match total {
            0..1_000 => write!(f, "{total}ns"),
            1_000..1_000_000 => write_fraction(f, total, 1_000, "µs"),
            1_000_000..1_000_000_000 => write_fraction(f, total, 1_000_000, "ms"),
            _ => {
                let minutes = total / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write_fraction(f, total % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

fn write_fraction(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let fraction = value % unit;
    if fraction > 0 {
        let digits = unit.ilog10() as usize;
        let text = format!("{fraction:0digits$}");
        write!(f, ".{}", text.trim_end_matches('0'))?;
    }
    f.write_str(name)
}

/// Parses what Go's `time.ParseDuration` accepts; `None` also for what overflows.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let whole_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (whole, after) = rest.split_at(whole_end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(
                after
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(after.len()),
            ),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        // 19 digits are the most an i64 has.
        if whole.trim_start_matches('0').len() > 19 {
            return None;
        }
        let digits = |text: &str| {
            text.bytes()
                .fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'))
        };
        total += digits(whole) * unit;
        // Digits beyond the 13 that a nanosecond can be of an hour change nothing.
        let fraction = fraction.get(..fraction.len().min(15)).unwrap_or_default();
        total += digits(fraction) * unit / 10i128.pow(fraction.len() as u32);
        if total > i128::from(i64::MAX) {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (-1_500_000, "-1.5ms"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanoseconds).to_string(), text);
            if nanoseconds != i64::MIN {
                assert_eq!(parse(text), Some(nanoseconds), "{text}");
            }
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("1.2s", 1_200_000_000),
            ("1h5m", 3_900_000_000_000),
            ("100us", 100_000),
            (".5ms", 500_000),
            ("1.s", 1_000_000_000),
            ("1.23456789999us", 1_234),
            ("+3ns", 3),
        ] {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
        }
        for text in [
            "",
            "5",
            "1.5",
            "ms",
            ".s",
            "1 s",
            "1d",
            "-",
            "9999999999h",
            "99999999999999999999999ns",
            "1.2.3s",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
