//! Answers of what Grafana's explorers ask beyond queries: volumes, fields, patterns, limits.

use super::{Frame, begin, comma_separated, end, integer, json_text, object, print, sample};
use crate::model::{Labels, Timestamp};

/// Volumes in bytes, in the order given. A "vector" where none has more than one sample, as
/// Loki does, else a "matrix".
pub fn volumes(volumes: &[(&Labels, &[(Timestamp, u64)])], frame: &Frame<'_>) -> Vec<u8> {
    let is_vector = volumes.iter().all(|(_, samples)| samples.len() <= 1);
    let kind = if is_vector { "vector" } else { "matrix" };
    let mut out = begin(kind, frame.warnings);
    out.extend_from_slice(b"\"result\":[");
    let filled = volumes.iter().filter(|(_, samples)| !samples.is_empty());
    comma_separated(&mut out, filled, |out, (labels, samples)| {
        out.extend_from_slice(b"{\"metric\":");
        object(out, labels);
        if is_vector {
            out.extend_from_slice(b",\"value\":");
            comma_separated(out, *samples, |out, (at, bytes)| {
                sample(out, *at, *bytes as f64);
            });
        } else {
            out.extend_from_slice(b",\"values\":[");
            comma_separated(out, *samples, |out, (at, bytes)| {
                sample(out, *at, *bytes as f64);
            });
            out.push(b']');
        }
        out.push(b'}');
    });
    end(out, frame)
}

/// A field that lines have beside their labels.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub label: &'a str,
    pub kind: &'a str,
    pub cardinality: usize,
    /// Empty for structured metadata.
    pub parsers: &'a [&'a str],
    /// Members of a JSON object that lead to it; empty when it is no JSON.
    pub json_path: &'a [String],
}

/// Detected fields. With none, Loki answers an empty object.
pub fn detected_fields<'a>(fields: impl IntoIterator<Item = Field<'a>>, limit: usize) -> Vec<u8> {
    let mut out = b"{".to_vec();
    let mut any = false;
    for field in fields {
        out.extend_from_slice(if any { b"," } else { b"\"fields\":[" });
        any = true;
        out.extend_from_slice(b"{\"label\":");
        json_text(&mut out, field.label);
        print(
            &mut out,
            format_args!(
                ",\"type\":\"{}\",\"cardinality\":{},\"parsers\":",
                field.kind, field.cardinality
            ),
        );
        if field.parsers.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            texts(&mut out, field.parsers);
        }
        if !field.json_path.is_empty() {
            out.extend_from_slice(b",\"jsonPath\":");
            texts(&mut out, field.json_path);
        }
        out.push(b'}');
    }
    if any {
        print(&mut out, format_args!("],\"limit\":{limit}"));
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Values of one detected field. With none, Loki answers an empty object.
pub fn detected_values<T: AsRef<str>>(values: &[T], limit: usize) -> Vec<u8> {
    if values.is_empty() {
        return b"{}\n".to_vec();
    }
    let mut out = b"{\"values\":".to_vec();
    texts(&mut out, values);
    print(&mut out, format_args!(",\"limit\":{limit}}}\n"));
    out
}

/// How often lines of one pattern and level came.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'a> {
    pub text: &'a str,
    pub level: &'a str,
    /// Unix seconds and counts.
    pub samples: &'a [(i64, u64)],
}

/// Patterns, in the order given.
pub fn patterns<'a>(patterns: impl IntoIterator<Item = Pattern<'a>>) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",\"data\":[".to_vec();
    comma_separated(&mut out, patterns, |out, pattern| {
        out.extend_from_slice(b"{\"pattern\":");
        json_text(out, pattern.text);
        out.extend_from_slice(b",\"level\":");
        json_text(out, pattern.level);
        out.extend_from_slice(b",\"samples\":[");
        comma_separated(out, pattern.samples, |out, (at, count)| {
            out.push(b'[');
            integer(out, *at);
            out.push(b',');
            integer(out, i64::try_from(*count).unwrap_or(i64::MAX));
            out.push(b']');
        });
        out.extend_from_slice(b"]}");
    });
    out.extend_from_slice(b"]}\n");
    out
}

/// What Logs Drilldown wants to know of a server before it asks anything.
#[derive(Clone, Debug)]
pub struct DrilldownLimits<'a> {
    pub version: &'a str,
    pub patterns: bool,
    pub discover_log_levels: bool,
    pub discover_service_name: &'a [String],
    pub log_level_fields: &'a [&'a str],
    pub max_entries_limit_per_query: usize,
    /// As Prometheus writes durations; so the two below.
    pub max_query_length: &'a str,
    pub query_timeout: &'a str,
    pub retention_period: &'a str,
    pub max_query_series: usize,
    pub volume_max_series: usize,
}

/// The limits, with those that are not here as Loki has them when they are off.
pub fn drilldown_limits(limits: &DrilldownLimits<'_>) -> Vec<u8> {
    let mut out = b"{\"limits\":{".to_vec();
    print(
        &mut out,
        format_args!(
            "\"discover_log_levels\":{},\"discover_service_name\":",
            limits.discover_log_levels
        ),
    );
    texts(&mut out, limits.discover_service_name);
    out.extend_from_slice(b",\"log_level_fields\":");
    texts(&mut out, limits.log_level_fields);
    print(
        &mut out,
        format_args!(
            ",\"max_entries_limit_per_query\":{},\"max_line_size_truncate\":false,\
             \"max_query_bytes_read\":\"0B\",\"max_query_length\":\"{}\",\
             \"max_query_lookback\":\"0s\",\"max_query_range\":\"0s\",\"max_query_series\":{},\
             \"metric_aggregation_enabled\":false,\"otlp_config\":{{}},\
             \"pattern_persistence_enabled\":{},\"query_timeout\":\"{}\",\
             \"retention_period\":\"{}\",\"volume_enabled\":true,\"volume_max_series\":{}}},\
             \"pattern_ingester_enabled\":{},\"version\":",
            limits.max_entries_limit_per_query,
            limits.max_query_length,
            limits.max_query_series,
            limits.patterns,
            limits.query_timeout,
            limits.retention_period,
            limits.volume_max_series,
            limits.patterns,
        ),
    );
    json_text(&mut out, limits.version);
    out.extend_from_slice(b"}\n");
    out
}

fn texts<T: AsRef<str>>(out: &mut Vec<u8>, texts: &[T]) {
    out.push(b'[');
    comma_separated(out, texts, |out, text| json_text(out, text.as_ref()));
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed(body: &[u8]) -> Value {
        assert_eq!(body.last(), Some(&b'\n'));
        serde_json::from_slice(body).expect("JSON")
    }

    #[test]
    fn volumes_are_a_vector_until_one_has_two_samples() {
        let a = Labels::from_pairs([("a", "1")]);
        let second = 1_000_000_000;
        let one = volumes(&[(&a, &[(600 * second, 12)])], &Frame::default());
        let one = &parsed(&one)["data"];
        assert_eq!(one["resultType"], "vector");
        assert_eq!(
            one["result"],
            json!([{"metric": {"a": "1"}, "value": [600, "12"]}])
        );
        let two = [(59_999_000_000, 5), (60 * second, 7)];
        let two = parsed(&volumes(&[(&a, &two), (&a, &[])], &Frame::default()));
        assert_eq!(two["data"]["resultType"], "matrix");
        let values = json!([{"metric": {"a": "1"}, "values": [[59.999, "5"], [60, "7"]]}]);
        assert_eq!(two["data"]["result"], values);
        let none = parsed(&volumes(&[], &Frame::default()));
        assert_eq!(none["data"]["result"], json!([]));
    }

    #[test]
    fn what_was_not_detected_is_an_empty_object() {
        assert_eq!(detected_fields([], 5), b"{}\n");
        assert_eq!(detected_values::<&str>(&[], 5), b"{}\n");
        let field = Field {
            label: "u",
            kind: "int",
            cardinality: 2,
            parsers: &["json"],
            json_path: &["a\"".into(), "b".into()],
        };
        let expected = json!({"label": "u", "type": "int", "cardinality": 2,
                              "parsers": ["json"], "jsonPath": ["a\"", "b"]});
        assert_eq!(
            parsed(&detected_fields([field], 5)),
            json!({"fields": [expected], "limit": 5})
        );
    }
}
