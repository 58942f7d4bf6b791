//! Messages of a live tail: one element per line, since lines keep their order.

use super::response::{Line, comma_separated, integer, json_bytes, json_text, line, object};
use crate::model::{Labels, Timestamp};

/// A line of a message.
pub struct TailLine<'a> {
    pub labels: &'a Labels,
    pub line: Line<'a>,
}

/// A message of `/loki/api/v1/tail`.
pub fn message<'a>(
    lines: impl IntoIterator<Item = TailLine<'a>>,
    dropped: &[(Timestamp, Labels)],
    flags: &[String],
) -> String {
    let mut out = b"{\"streams\":[".to_vec();
    comma_separated(&mut out, lines, |out, entry| {
        out.extend_from_slice(b"{\"stream\":");
        object(out, entry.labels);
        out.extend_from_slice(b",\"values\":[");
        line(out, entry.line);
        out.extend_from_slice(b"]}");
    });
    out.push(b']');
    if !dropped.is_empty() {
        out.extend_from_slice(b",\"dropped_entries\":[");
        comma_separated(&mut out, dropped, |out, (at, labels)| {
            out.extend_from_slice(b"{\"timestamp\":\"");
            integer(out, *at);
            out.extend_from_slice(b"\",\"labels\":");
            object(out, labels);
            out.push(b'}');
        });
        out.push(b']');
    }
    if !flags.is_empty() {
        out.extend_from_slice(b",\"encodingFlags\":[");
        comma_separated(&mut out, flags, |out, flag| json_text(out, flag));
        out.push(b']');
    }
    out.push(b'}');
    text(out)
}

/// A message of `/api/prom/tail`.
pub fn legacy_message<'a>(
    lines: impl IntoIterator<Item = TailLine<'a>>,
    dropped: &[(Timestamp, Labels)],
) -> String {
    let mut out = b"{\"streams\":[".to_vec();
    comma_separated(&mut out, lines, |out, entry| {
        out.extend_from_slice(b"{\"labels\":");
        json_text(out, &entry.labels.to_string());
        out.extend_from_slice(b",\"entries\":[{\"ts\":\"");
        rfc3339(out, entry.line.at);
        out.extend_from_slice(b"\",\"line\":");
        json_bytes(out, entry.line.text);
        out.extend_from_slice(b"}]}");
    });
    out.extend_from_slice(b"],\"dropped_entries\":");
    if dropped.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.push(b'[');
        comma_separated(&mut out, dropped, |out, (at, labels)| {
            out.extend_from_slice(b"{\"timestamp\":\"");
            rfc3339(out, *at);
            out.extend_from_slice(b"\",\"labels\":");
            json_text(out, &labels.to_string());
            out.push(b'}');
        });
        out.push(b']');
    }
    out.push(b'}');
    text(out)
}

/// With as many decimals as are not zeros. `jiff` covers all that a timestamp can say.
fn rfc3339(out: &mut Vec<u8>, at: Timestamp) {
    let shown = jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap_or_default();
    out.extend_from_slice(shown.to_string().as_bytes());
}

/// Everything that is written here is UTF-8, of whatever bytes it is made (R1 of `response`).
fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lines(labels: &Labels) -> [TailLine<'_>; 2] {
        let line = |at, text| TailLine {
            labels,
            line: Line {
                at,
                text,
                categories: None,
            },
        };
        [line(1_500_000_000, b"a\xff"), line(2_000_000_000, b"\"b\"")]
    }

    #[test]
    fn each_line_is_an_element_and_the_rest_is_there_only_when_it_says_something() {
        let labels = Labels::from_pairs([("a", "1")]);
        let read = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        assert_eq!(
            read(message(lines(&labels), &[], &[])),
            json!({"streams": [
                {"stream": {"a": "1"}, "values": [["1500000000", "a\u{fffd}"]]},
                {"stream": {"a": "1"}, "values": [["2000000000", "\"b\""]]},
            ]})
        );
        let dropped = [(7, labels.clone())];
        let flags = ["categorize-labels".to_owned()];
        assert_eq!(
            read(message([], &dropped, &flags)),
            json!({"streams": [], "encodingFlags": ["categorize-labels"],
                   "dropped_entries": [{"timestamp": "7", "labels": {"a": "1"}}]})
        );
        assert_eq!(
            read(legacy_message(lines(&labels), &[])),
            json!({"dropped_entries": null, "streams": [
                {"labels": "{a=\"1\"}", "entries": [{"ts": "1970-01-01T00:00:01.5Z", "line": "a\u{fffd}"}]},
                {"labels": "{a=\"1\"}", "entries": [{"ts": "1970-01-01T00:00:02Z", "line": "\"b\""}]},
            ]})
        );
        let legacy = read(legacy_message([], &dropped));
        assert_eq!(
            legacy["dropped_entries"],
            json!([{"timestamp": "1970-01-01T00:00:00.000000007Z", "labels": "{a=\"1\"}"}])
        );
    }
}
