//! Durations and byte sizes as queries and label values write them.

const UNITS_BY_SIZE: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// `1y2w3d4h5m6s7ms`: whole numbers, each unit at most once and in this order. Nanoseconds.
pub fn prometheus_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut units = UNITS_BY_SIZE.iter();
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[..letters];
        rest = &rest[letters..];
        let (_, size) = units.by_ref().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(value.checked_mul(*size)?)?;
    }
    if text.is_empty() {
        return None;
    }
    i64::try_from(millis.checked_mul(1_000_000)?).ok()
}

/// `-1h2.5m3s4ms5us6ns`, as Go reads durations. Nanoseconds.
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let whole: u64 = match &rest[..whole_len] {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        rest = &rest[whole_len..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let len = after.bytes().take_while(u8::is_ascii_digit).count();
            fraction = &after[..len];
            rest = &after[len..];
        }
        if whole_len == 0 && fraction.is_empty() {
            return None;
        }
        let unit_len = rest
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(rest.len());
        let size: u64 = match &rest[..unit_len] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_len..];
        total = total.checked_add(whole.checked_mul(size)?)?;
        if !fraction.is_empty() {
            // Digits beyond nanoseconds of hours say nothing; dividing the unit first keeps
            // fractions exact that are whole nanoseconds.
            let digits = &fraction[..fraction.len().min(18)];
            let scale = 10f64.powi(digits.len() as i32);
            let part = digits.parse::<u64>().ok()? as f64 * (size as f64 / scale);
            total = total.checked_add(part as u64)?;
        }
    }
    if negative {
        // -2^63 is a duration, 2^63 is not.
        0i64.checked_sub_unsigned(total)
    } else {
        i64::try_from(total).ok()
    }
}

/// A duration of a query: either form.
pub fn query_duration(text: &str) -> Option<i64> {
    prometheus_duration(text).or_else(|| go_duration(text))
}

/// Writes a range as Prometheus does: `1m30s`.
pub fn format_prometheus_duration(nanos: i64) -> String {
    let mut millis = nanos.max(0) as u64 / 1_000_000;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, size) in UNITS_BY_SIZE {
        // Years and weeks only when they are all there is.
        if matches!(unit, "y" | "w") && !millis.is_multiple_of(size) {
            continue;
        }
        let count = millis / size;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            millis -= count * size;
        }
    }
    out
}

/// Writes a duration as Go does: `1h0m5s`, `1.5s`, `250ms`.
pub fn format_go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let with_fraction = |value: u64, size: u64| {
        let mut text = (value / size).to_string();
        let rest = value % size;
        if rest > 0 {
            let width = size.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            text.push('.');
            text.push_str(digits.trim_end_matches('0'));
        }
        text
    };
    if total < 1_000 {
        return format!("{sign}{total}ns");
    }
    if total < 1_000_000 {
        return format!("{sign}{}µs", with_fraction(total, 1_000));
    }
    if total < 1_000_000_000 {
        return format!("{sign}{}ms", with_fraction(total, 1_000_000));
    }
    let seconds = with_fraction(total % 60_000_000_000, 1_000_000_000);
    let minutes = total / 60_000_000_000;
    if minutes == 0 {
        return format!("{sign}{seconds}s");
    }
    let hours = minutes / 60;
    if hours == 0 {
        return format!("{sign}{minutes}m{seconds}s");
    }
    format!("{sign}{hours}h{}m{seconds}s", minutes % 60)
}

/// A number as Go reads it: what is too large for a float is none, unlike a written infinity.
pub fn number(text: &str) -> Option<f64> {
    let number: f64 = match text.parse() {
        Ok(number) => number,
        Err(_) if text.contains(['_', 'x', 'X']) => super::template::parse_float(text)?,
        Err(_) => return None,
    };
    let written = text.contains(['n', 'N']);
    (number.is_finite() || written).then_some(number)
}

/// A size such as `1.5 kB`, `2MiB`, `512`: any case, an optional blank, powers of 1000 unless
/// the unit has an `i`.
pub fn byte_size(text: &str) -> Option<u64> {
    let number_len = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','))
        .unwrap_or(text.len());
    let number: f64 = if text[..number_len].contains(',') {
        text[..number_len].replace(',', "").parse().ok()?
    } else {
        text[..number_len].parse().ok()?
    };
    let unit = text[number_len..].trim();
    let size: f64 = if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        1.0
    } else {
        let mut letters = unit.bytes().map(|b| b.to_ascii_lowercase());
        let power = match letters.next()? {
            b'k' => 1,
            b'm' => 2,
            b'g' => 3,
            b't' => 4,
            b'p' => 5,
            b'e' => 6,
            _ => return None,
        };
        let base: f64 = match (letters.next(), letters.next(), letters.next()) {
            (None, ..) | (Some(b'b'), None, _) => 1000.0,
            (Some(b'i'), None | Some(b'b'), None) => 1024.0,
            _ => return None,
        };
        base.powi(power)
    };
    let bytes = number * size;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Writes a size as short as queries are printed: `10kB`, `2.1MB`.
pub fn format_byte_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes}B");
    }
    let power = bytes.ilog10() as usize / 3;
    let value = (bytes as f64 / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power.min(UNITS.len() - 1)];
    if value < 10.0 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_both_kinds_are_told_apart() {
        assert_eq!(prometheus_duration("1w2d"), Some(777_600_000_000_000));
        assert_eq!(prometheus_duration("500ms"), Some(500_000_000));
        for bad in [
            "", "5", "1.5m", "-5m", "1s1m", "1s1s", "5 m", "m", "9999999y",
        ] {
            assert_eq!(prometheus_duration(bad), None, "{bad}");
        }
        assert_eq!(go_duration("1h0.5m"), Some(3_630_000_000_000));
        assert_eq!(go_duration("-1.5s"), Some(-1_500_000_000));
        assert_eq!(go_duration("10µs"), Some(10_000));
        for bad in ["", "5", "1d", "s", ".s", "-", "1h 5m", "99999999999h"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_their_languages_write_them() {
        assert_eq!(format_prometheus_duration(90_000_000_000), "1m30s");
        assert_eq!(format_prometheus_duration(1_209_600_000_000_000), "2w");
        assert_eq!(format_prometheus_duration(0), "0s");
        assert_eq!(format_go_duration(3_605_000_000_000), "1h0m5s");
        assert_eq!(format_go_duration(1_500_000_000), "1.5s");
        assert_eq!(format_go_duration(-250_000_000), "-250ms");
        assert_eq!(format_go_duration(10_000), "10µs");
        assert_eq!(format_go_duration(i64::MIN), "-2562047h47m16.854775808s");
    }

    #[test]
    fn sizes_are_decimal_unless_the_unit_has_an_i() {
        assert_eq!(byte_size("1.5 kB"), Some(1500));
        assert_eq!(byte_size("2MiB"), Some(2 << 20));
        assert_eq!(byte_size("1K"), Some(1000));
        assert_eq!(byte_size("5Mi"), Some(5 << 20));
        assert_eq!(byte_size("17"), Some(17));
        for bad in ["", "kB", "1xB", "1kBB", "1.2.3", "-1kB", "99999999999EB"] {
            assert_eq!(byte_size(bad), None, "{bad}");
        }
        assert_eq!(format_byte_size(2 << 20), "2.1MB");
        assert_eq!(format_byte_size(10_000), "10kB");
        assert_eq!(format_byte_size(1_000_000_000_000), "1.0TB");
        assert_eq!(format_byte_size(u64::MAX), "18EB");
    }
}
