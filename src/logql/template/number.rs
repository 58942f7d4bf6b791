//! Numbers and characters as Go writes them in templates.

use super::tree::Number;

/// The number that `text` begins with, or the reason why there is none. The length counts what
/// belongs to the number, wrong or not.
pub fn scan(text: &str) -> (usize, Result<Number, String>) {
    let bytes = text.as_bytes();
    let mut at = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut digits: fn(u8) -> bool = |b| b.is_ascii_digit() || b == b'_';
    let mut exponents: &[u8] = b"eE";
    if bytes.get(at) == Some(&b'0') {
        at += 1;
        match bytes.get(at) {
            Some(b'x' | b'X') => {
                digits = |b| b.is_ascii_hexdigit() || b == b'_';
                exponents = b"pP";
                at += 1;
            }
            Some(b'o' | b'O') => {
                digits = |b| matches!(b, b'0'..=b'7' | b'_');
                exponents = b"";
                at += 1;
            }
            Some(b'b' | b'B') => {
                digits = |b| matches!(b, b'0' | b'1' | b'_');
                exponents = b"";
                at += 1;
            }
            _ => {}
        }
    }
    let run = |from: usize| from + bytes[from..].iter().take_while(|b| digits(**b)).count();
    at = run(at);
    if bytes.get(at) == Some(&b'.') {
        at = run(at + 1);
    }
    if bytes.get(at).is_some_and(|b| exponents.contains(b)) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        at += bytes[at..]
            .iter()
            .take_while(|b| b.is_ascii_digit() || **b == b'_')
            .count();
    }
    let after = text[at..].chars().next();
    if let Some(c) = after.filter(|c| c.is_alphanumeric() || *c == '_') {
        let len = at + c.len_utf8();
        return (len, Err(format!("bad number syntax: {:?}", &text[..len])));
    }
    (at, value(&text[..at]))
}

fn value(text: &str) -> Result<Number, String> {
    let looks_like_float = {
        let is_hex = text.contains(['x', 'X']);
        text.contains(['.', 'p', 'P']) || (!is_hex && text.contains(['e', 'E']))
    };
    let int = parse_int(text, 0);
    let float = match int {
        Some(int) => Some(int as f64),
        None => parse_float(text),
    };
    let illegal = || format!("illegal number syntax: {text:?}");
    match (int, float) {
        (None, Some(_)) if !text.contains(['.', 'e', 'E', 'p', 'P']) => {
            Err(format!("integer overflow: {text:?}"))
        }
        (_, Some(float)) if float.is_finite() => Ok(Number {
            text: text.to_owned(),
            int: int.or_else(|| {
                (float == float.trunc() && float.abs() < 9.3e18).then_some(float as i64)
            }),
            float,
            is_float: int.is_none() && looks_like_float,
        }),
        _ => Err(illegal()),
    }
}

/// As Go's `strconv.ParseInt`: base 0 knows prefixes and underscores.
pub fn parse_int(text: &str, base: u32) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match (base, digits.as_bytes()) {
        (0, [b'0', b'x' | b'X', ..]) => (16, &digits[2..]),
        (0, [b'0', b'o' | b'O', ..]) => (8, &digits[2..]),
        (0, [b'0', b'b' | b'B', ..]) => (2, &digits[2..]),
        (0, [b'0', _, ..]) => (8, &digits[1..]),
        (0, _) => (10, digits),
        _ => (base, digits),
    };
    let prefixed = digits.len() + usize::from(text.starts_with(['+', '-'])) < text.len();
    let plain = if base == 0 && digits.contains('_') {
        underscores_fit(digits, prefixed).then(|| digits.replace('_', ""))?
    } else {
        digits.to_owned()
    };
    if plain.is_empty() || plain.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(&plain, radix).ok()?;
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// Underscores stand between digits, or between the prefix and a digit.
fn underscores_fit(digits: &str, prefixed: bool) -> bool {
    !digits.contains("__") && !digits.ends_with('_') && (prefixed || !digits.starts_with('_'))
}

/// As Go's `strconv.ParseFloat`; what overflows is infinite, and `None` for what is no number.
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let lower = unsigned.to_ascii_lowercase();
    match lower.as_str() {
        "inf" | "infinity" => return Some(sign * f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    if let Some(hex) = lower.strip_prefix("0x") {
        return parse_hex_float(hex).map(|value| sign * value);
    }
    let valid = lower.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && lower
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-' | b'_'));
    if !valid {
        return None;
    }
    if !lower.contains('_') {
        return lower.parse::<f64>().ok().map(|value| sign * value);
    }
    let between_digits = lower
        .as_bytes()
        .windows(3)
        .filter(|w| w[1] == b'_' && w[0].is_ascii_digit() && w[2].is_ascii_digit());
    if between_digits.count() < lower.matches('_').count() {
        return None;
    }
    let plain = lower.replace('_', "");
    plain.parse::<f64>().ok().map(|value| sign * value)
}

/// `1.8p3`; the exponent is required.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() < 5000)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}").replace('_', "");
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    let fraction_digits = fraction.replace('_', "").len() as i32;
    Some(value * 2f64.powi(exponent - 4 * fraction_digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_prefixes_and_underscores() {
        for (text, value) in [
            ("0x1F", 31),
            ("017", 15),
            ("0o17", 15),
            ("0b11", 3),
            ("1_000", 1000),
            ("-5", -5),
            ("+5", 5),
            ("0", 0),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text, 0), Some(value), "{text}");
        }
        for bad in [
            "",
            "-",
            "08",
            "1__0",
            "_1",
            "1_",
            "0x",
            "1e3",
            "--1",
            "9223372036854775808",
        ] {
            assert_eq!(parse_int(bad, 0), None, "{bad}");
        }
        assert_eq!(parse_int("1_000", 10), None);
    }

    #[test]
    fn a_number_ends_where_no_part_of_it_follows() {
        let (len, number) = scan("1e3 x");
        let number = number.unwrap();
        assert_eq!((len, number.int, number.is_float), (3, Some(1000), true));
        let (len, number) = scan("0x1p4}}");
        assert_eq!((len, number.unwrap().float), (5, 16.0));
        let number = scan("2.5").1.unwrap();
        assert_eq!((number.int, number.float), (None, 2.5));
        for bad in [
            "5x",
            "1__0",
            "08",
            "1e400",
            "1.e",
            "18446744073709551616",
            "0x",
            "-",
        ] {
            assert!(scan(bad).1.is_err(), "{bad}");
        }
    }
}
