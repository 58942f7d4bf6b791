//! Lines as NDJSON: one object a line, as `logcli --output=jsonl` has them.

use super::response::{json_bytes, json_text, object};
use crate::model::{Labels, Timestamp};

/// Appends a line: `timestamp` (RFC 3339, nanoseconds), `labels` of its stream, `line`, and, where
/// there are any, `structuredMetadata` and `parsed`. What is not UTF-8 becomes U+FFFD.
pub fn line(
    out: &mut Vec<u8>,
    at: Timestamp,
    text: &[u8],
    stream: &Labels,
    structured: &Labels,
    parsed: &Labels,
) {
    out.extend_from_slice(b"{\"timestamp\":");
    let time = jiff::Timestamp::from_nanosecond(at.into());
    json_text(
        out,
        &time.map_or_else(|_| at.to_string(), |t| t.to_string()),
    );
    out.extend_from_slice(b",\"labels\":");
    object(out, stream);
    if !structured.is_empty() {
        out.extend_from_slice(b",\"structuredMetadata\":");
        object(out, structured);
    }
    if !parsed.is_empty() {
        out.extend_from_slice(b",\"parsed\":");
        object(out, parsed);
    }
    out.extend_from_slice(b",\"line\":");
    json_bytes(out, text);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_json_whatever_it_holds() {
        let mut out = Vec::new();
        let stream = Labels::from_pairs([("app", "a\"b")]);
        let structured = Labels::from_pairs([("trace", "1")]);
        let none = Labels::empty();
        line(&mut out, 1, b"x\ny\xff", &stream, &structured, &none);
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "timestamp": "1970-01-01T00:00:00.000000001Z",
                "labels": {"app": "a\"b"},
                "structuredMetadata": {"trace": "1"},
                "line": "x\ny\u{fffd}",
            })
        );
    }
}
