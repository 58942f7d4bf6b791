//! Answers of the legacy `/api/prom` paths that differ from those of v1.

use super::response::{Stats, comma_separated, json_bytes, json_text};
use crate::model::{Labels, Timestamp};

/// Lines with their labels as one text and their times in RFC 3339.
pub fn streams<'a, S, L>(streams: S, stats: &Stats) -> Vec<u8>
where
    S: IntoIterator<Item = (&'a Labels, L)>,
    L: IntoIterator<Item = (Timestamp, &'a [u8])>,
{
    let mut out = b"{\"streams\":[".to_vec();
    comma_separated(&mut out, streams, |out, (labels, lines)| {
        out.extend_from_slice(b"{\"labels\":");
        json_text(out, &labels.to_string());
        out.extend_from_slice(b",\"entries\":[");
        comma_separated(out, lines, |out, (at, line)| {
            out.extend_from_slice(b"{\"ts\":");
            json_text(out, &rfc3339(at));
            out.extend_from_slice(b",\"line\":");
            json_bytes(out, line);
            out.push(b'}');
        });
        out.extend_from_slice(b"]}");
    });
    out.extend_from_slice(b"],\"stats\":");
    stats.write(&mut out);
    out.extend_from_slice(b"}\n");
    out
}

/// With as many decimals as it takes. Every time in nanoseconds of 64 bits is a date.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(at.into()).map_or_else(|_| at.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_their_labels_as_text_and_times_as_dates() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "x\"y")]);
        let lines = [(1_795_356_060_500_000_000, &b"one"[..]), (7, b"\xff")];
        let text = streams([(&labels, lines)], &Stats::default());
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            value["streams"],
            serde_json::json!([{ "labels": r#"{a="x\"y", b="2"}"#, "entries": [
                { "ts": "2026-11-22T14:01:00.5Z", "line": "one" },
                { "ts": "1970-01-01T00:00:00.000000007Z", "line": "\u{fffd}" },
            ] }])
        );
        assert!(value["stats"]["summary"].is_object());
        let lines: [(Timestamp, &[u8]); 0] = [];
        let nothing = [(&labels, lines)].into_iter().filter(|_| false);
        let text = streams(nothing, &Stats::default());
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        // Loki 3.7.6: {"streams":[],"stats":…}
        assert_eq!(value["streams"], serde_json::json!([]));
    }
}
