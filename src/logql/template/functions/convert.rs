//! How functions of numbers take what is no number: as the library `cast`, which sprig uses.

use super::super::number;
use super::super::value::Value;

/// What is none is 0. A text may have a fraction, which is cut off, and a prefix as `0x`.
pub fn to_int(value: &Value<'_>) -> i64 {
    match value {
        Value::Int(n, _) => *n,
        Value::Float(x) => float_to_int(*x),
        Value::Bool(flag) => i64::from(*flag),
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => number::parse_int(whole_part(text), 0).unwrap_or(0),
            Err(_) => 0,
        },
        _ => 0,
    }
}

pub fn to_float(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(n, _) => *n as f64,
        Value::Float(x) => *x,
        Value::Bool(flag) => f64::from(*flag),
        Value::Text(text) => std::str::from_utf8(text)
            .ok()
            .and_then(number::parse_float)
            // Go tells what overflows from what does not; here the error made it 0.
            .filter(|x| x.is_finite() || text.iter().all(|b| !b.is_ascii_digit()))
            .unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Out of range is the smallest integer, as processors of this kind have it.
fn float_to_int(x: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&x) {
        x as i64
    } else {
        i64::MIN
    }
}

/// `-1.9` without its fraction; other texts as they are.
fn whole_part(text: &str) -> &str {
    let Some((whole, fraction)) = text.split_once('.') else {
        return text;
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    match all_digits(digits) && all_digits(fraction) {
        true if digits.is_empty() => "0",
        true => whole,
        false => text,
    }
}
