//! Floats as Go writes them.

/// Digits behind the point that can differ from zero; more are zeros.
const MAX_DIGITS: usize = 1100;

/// `verb` is one of `e E f g G`; without `precision` as many digits as tell the value from its
/// neighbours. The sign of what is not negative is left out.
pub fn format(value: f64, verb: u8, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        let text = if value > 0.0 { "+Inf" } else { "-Inf" };
        return text.to_owned();
    }
    match verb {
        b'e' | b'E' => exponential(value, precision, verb),
        b'f' => fixed(value, precision),
        _ => general(value, precision, verb),
    }
}

/// The default of `print` and `%v`.
pub fn shortest(value: f64) -> String {
    format(value, b'g', None)
}

fn exponential(value: f64, precision: Option<usize>, verb: u8) -> String {
    let text = match precision {
        None => format!("{value:e}"),
        Some(p) => {
            let (kept, zeros) = (p.min(MAX_DIGITS), p.saturating_sub(MAX_DIGITS));
            let text = format!("{value:.kept$e}");
            match text.split_once('e') {
                Some((digits, exponent)) => format!("{digits}{}e{exponent}", "0".repeat(zeros)),
                None => text,
            }
        }
    };
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}{}{sign}{:02}", char::from(verb), exponent.abs())
}

fn fixed(value: f64, precision: Option<usize>) -> String {
    match precision {
        None => format!("{value}"),
        Some(p) => {
            let (kept, zeros) = (p.min(MAX_DIGITS), p.saturating_sub(MAX_DIGITS));
            format!("{value:.kept$}{}", "0".repeat(zeros))
        }
    }
}

/// With an exponent below -4 and from the precision on, which is 6 for the shortest form.
fn general(value: f64, precision: Option<usize>, verb: u8) -> String {
    let precision = precision.map(|p| p.max(1));
    let text = match precision {
        None => format!("{value:e}"),
        Some(p) => format!("{value:.*e}", p.min(MAX_DIGITS) - 1),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.truncate(digits.trim_end_matches('0').len().max(1));
    let count = digits.len() as i32;
    let point = if value == 0.0 { 0 } else { exponent + 1 };
    let mut limit = precision.map_or(6, |p| p as i32);
    if precision.is_some() && limit > count && count >= point {
        limit = count;
    }
    let exponent = point - 1;
    if value != 0.0 && (exponent < -4 || exponent >= limit) {
        let behind = digits.len() - 1;
        return exponential(value, Some(behind), if verb == b'G' { b'E' } else { b'e' });
    }
    let behind = (count - point).max(0) as usize;
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    match precision {
        None => format!("{value}"),
        // Rounded to the digits that count, then written without an exponent.
        Some(_) => {
            let sign = if value < 0.0 { "-" } else { "" };
            let point = point.max(0) as usize;
            if exponent < 0 {
                let zeros = (-exponent - 1) as usize;
                return format!("{sign}0.{}{digits}", "0".repeat(zeros));
            }
            let mut whole = digits.clone();
            let fraction = if whole.len() > point {
                whole.split_off(point)
            } else {
                whole.push_str(&"0".repeat(point - whole.len()));
                String::new()
            };
            let dot = if behind > 0 { "." } else { "" };
            format!("{sign}{whole}{dot}{fraction}")
        }
    }
}

/// The `#` flag: with a point always, and for `g` with zeros up to the precision (6).
pub fn alternate(text: &str, verb: char, precision: Option<usize>) -> String {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - number.len()];
    let tail_at = number.find(|c| match c {
        'p' | 'P' => true,
        'e' | 'E' => !matches!(verb, 'x' | 'X'),
        _ => false,
    });
    let (number, tail) = number.split_at(tail_at.unwrap_or(number.len()));
    let wanted = match verb {
        'v' | 'g' | 'G' | 'x' => precision.unwrap_or(6),
        _ => 0,
    };
    let digits = number.chars().filter(|c| *c != '.');
    let mut shown = digits.skip_while(|c| *c == '0').count();
    let mut point = "";
    if !number.contains('.') {
        shown += usize::from(number == "0");
        point = ".";
    }
    let zeros = "0".repeat(wanted.saturating_sub(shown).min(MAX_DIGITS));
    format!("{sign}{number}{point}{zeros}{tail}")
}

/// `-0x1.8p+01`: hexadecimal digits and a power of two, exact.
pub fn hexadecimal(value: f64, upper: bool) -> String {
    if !value.is_finite() {
        return format(value, b'g', None);
    }
    let bits = value.to_bits();
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let mut fraction = bits & ((1 << 52) - 1);
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut lead = 1;
    if exponent == -1023 {
        if fraction == 0 {
            (lead, exponent) = (0, 0);
        } else {
            // Subnormal: the first digit is made 1.
            let shift = fraction.leading_zeros() - 11;
            fraction = (fraction << shift) & ((1 << 52) - 1);
            exponent = -1022 - shift as i32;
        }
    }
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let dot = if digits.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    let text = format!(
        "{sign}0x{lead}{dot}{digits}p{exponent_sign}{:02}",
        exponent.abs()
    );
    if upper { text.to_uppercase() } else { text }
}

/// `4503599627370496p-52`: mantissa and exponent as they are stored.
pub fn binary(value: f64) -> String {
    if !value.is_finite() {
        return format(value, b'g', None);
    }
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let stored = ((bits >> 52) & 0x7ff) as i32;
    let (mantissa, exponent) = match stored {
        0 => (fraction, -1074),
        _ => (fraction | (1 << 52), stored - 1075),
    };
    let sign = if value.is_sign_negative() { "-" } else { "" };
    format!("{sign}{mantissa}p{exponent:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, text) in [
            (1_572_864.0, "1.572864e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1e20, "1e+20"),
            (3.25, "3.25"),
            (2.0, "2"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (0.0, "0"),
            (-0.0, "-0"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(shortest(value), text);
        }
        assert_eq!(format(1234.5678, b'g', Some(3)), "1.23e+03");
        assert_eq!(format(1234.5678, b'g', Some(6)), "1234.57");
        assert_eq!(format(0.000_123_456, b'g', Some(3)), "0.000123");
        assert_eq!(format(100.0, b'g', Some(5)), "100");
        assert_eq!(format(100.0, b'G', Some(2)), "1E+02");
        assert_eq!(format(2.5, b'e', Some(6)), "2.500000e+00");
        assert_eq!(format(12.345, b'f', Some(2)), "12.35");
        assert_eq!(format(2.5, b'f', Some(0)), "2");
        assert_eq!(alternate("1e+21", 'g', None), "1.00000e+21");
        assert_eq!(alternate("-3", 'f', Some(0)), "-3.");
        assert_eq!(hexadecimal(2.5, false), "0x1.4p+01");
        assert_eq!(binary(2.5), "5629499534213120p-51");
        assert_eq!(format(1.0, b'f', Some(5000)).len(), 5002);
    }
}
