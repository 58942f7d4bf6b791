//! Values of log records as text, in the way that OTLP's own libraries (in Go) write them.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::logs::Value;

/// A value that holds no others, as it is; what holds others as JSON.
pub(super) fn write_text(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::None => {}
        Value::Text(text) => out.extend_from_slice(text),
        Value::Bool(value) => print(out, format_args!("{value}")),
        Value::Int(value) => print(out, format_args!("{value}")),
        Value::Double(value) => write_double(out, *value),
        Value::Bytes(bytes) => write_base64(out, bytes),
        Value::Array(_) | Value::Map(_) => write_json(out, value),
    }
}

/// Compact JSON, keys sorted; of equal keys the last one counts. Depth is bounded by who
/// made the value.
pub(super) fn write_json(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::None => out.extend_from_slice(b"null"),
        Value::Text(text) => write_string(out, text),
        Value::Bool(_) | Value::Int(_) => write_text(out, value),
        Value::Double(number) if number.is_finite() => write_double(out, *number),
        // JSON has no number for these.
        Value::Double(_) | Value::Bytes(_) => {
            out.push(b'"');
            write_text(out, value);
            out.push(b'"');
        }
        Value::Array(values) => {
            out.push(b'[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json(out, value);
            }
            out.push(b']');
        }
        Value::Map(values) => {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|a, b| values[*a].0.cmp(&values[*b].0));
            out.push(b'{');
            let mut first = true;
            for (place, i) in order.iter().enumerate() {
                let (name, value) = &values[*i];
                let next = order.get(place + 1);
                if next.is_some_and(|next| values[*next].0 == *name) {
                    continue;
                }
                if !first {
                    out.push(b',');
                }
                first = false;
                write_string(out, name);
                out.push(b':');
                write_json(out, value);
            }
            out.push(b'}');
        }
    }
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, &*String::from_utf8_lossy(text));
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    let len = bytes.len().div_ceil(3) * 4;
    out.resize(start + len, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.unwrap_or(0));
}

/// Shortest digits; an exponent, with its sign, below 10⁻⁶ and from 10²¹ on.
fn write_double(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        print(out, format_args!("{digits}e{sign}{exponent}"));
    } else {
        print(out, format_args!("{value}"));
    }
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_go() {
        for (value, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (-0.0, "-0"),
            (1e21, "1e+21"),
            (123e18, "123000000000000000000"),
            (1e-7, "1e-7"),
            (1e-6, "0.000001"),
            (-2.5e-300, "-2.5e-300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut out = Vec::new();
            write_text(&mut out, &Value::Double(value));
            assert_eq!(out, text.as_bytes(), "{value}");
        }
    }

    #[test]
    fn maps_are_json_with_sorted_keys_and_the_last_of_equal_ones() {
        let text = |text: &'static str| Value::Text(text.as_bytes().into());
        let map = Value::Map(vec![
            (b"b"[..].into(), text("first")),
            (
                b"c"[..].into(),
                Value::Array(vec![Value::None, Value::Bool(true), Value::Int(-1)]),
            ),
            (b"b"[..].into(), text("<&>\"\n")),
            (b"a"[..].into(), Value::Bytes(b"\xff\x00"[..].into())),
            (b"d"[..].into(), Value::Double(f64::INFINITY)),
            (b"e"[..].into(), Value::Map(Vec::new())),
        ]);
        let mut out = Vec::new();
        write_text(&mut out, &map);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":"/wA=","b":"<&>\"\n","c":[null,true,-1],"d":"+Inf","e":{}}"#
        );
    }
}
