//! Which fields lines have beside their labels: found in a sample of lines, the newest first.
//!
//! Fields are structured metadata, what the query's own stages set, and what reading a line
//! as JSON, or else as logfmt, gives. A field of the line that has the name of a stream label
//! is called as LogQL's parsers call it, with `_extracted`.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{AnswerStream, LogAnswer};
use crate::logql::ast::{Logfmt, Stage};
use crate::logql::pipeline::{Extract, Pipeline};
use crate::logql::stage::json::member_paths;
use crate::logql::units;
use crate::model::{Labels, Timestamp};

/// Bytes of names and values that a sample may hold; what goes beyond is left out.
const MAX_BYTES: usize = 16 << 20;

/// What the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Int,
    Float,
    Boolean,
    Duration,
    Bytes,
    String,
}

impl FieldType {
    /// The first that fits.
    fn of(value: &str) -> Self {
        const BOOLEANS: [&str; 10] = [
            "true", "false", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False",
        ];
        if value.parse::<i64>().is_ok() {
            Self::Int
        } else if value.parse::<f64>().is_ok() {
            Self::Float
        } else if BOOLEANS.contains(&value) {
            Self::Boolean
        } else if units::go_duration(value).is_some() {
            Self::Duration
        } else if units::byte_size(value).is_some() {
            Self::Bytes
        } else {
            Self::String
        }
    }

    /// A type for values of both.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            _ => Self::String,
        }
    }

    /// As Loki calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }
}

/// One field of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// None while every value is empty.
    pub kind: Option<FieldType>,
    pub values: BTreeSet<String>,
    /// `json`, `logfmt`; empty for structured metadata.
    pub parsers: Vec<&'static str>,
    /// Members of the JSON object that lead to it.
    pub json_path: Vec<String>,
}

/// The fields of a sample, by name.
#[derive(Debug, Default)]
pub struct Fields {
    pub by_name: BTreeMap<String, Field>,
    limit: usize,
    bytes: usize,
}

/// Finds at most `limit` fields in the lines of a categorized answer.
pub fn detect(answer: &LogAnswer, limit: usize) -> Fields {
    let mut fields = Fields {
        limit,
        ..Fields::default()
    };
    each_line(answer, |stream, at| fields.add_metadata(stream, at));
    let (Some(json), Some(logfmt)) = (parser(true), parser(false)) else {
        return fields;
    };
    let (mut json, mut logfmt) = (json.runner(), logfmt.runner());
    each_line(answer, |stream, at| {
        let entry = &stream.entries[at];
        for runner in [&mut json, &mut logfmt] {
            runner.bind(&stream.labels);
        }
        if let Some(labels) = parse(&mut json, entry.at, &entry.line) {
            fields.add_parsed(&labels, "json");
            fields.add_paths(&labels, &entry.line);
        } else if let Some(labels) = parse(&mut logfmt, entry.at, &entry.line) {
            fields.add_parsed(&labels, "logfmt");
        }
        // What the query's own stages set, where reading the line again did not find it.
        for (name, value) in entry.parsed.iter().filter(|(name, _)| !is_error(name)) {
            fields.add(name, value, None);
        }
    });
    fields
}

/// The values of one field, at most `limit`, sizes as Loki writes them.
pub fn values(answer: &LogAnswer, name: &str, limit: usize) -> Vec<String> {
    let mut fields = detect(answer, usize::MAX);
    let field = fields.by_name.remove(name).unwrap_or_default();
    let shown = field.values.into_iter().map(|value| {
        let size = units::byte_size(&value);
        match size.filter(|_| FieldType::of(&value) == FieldType::Bytes) {
            Some(bytes) => units::format_byte_size(bytes),
            None => value,
        }
    });
    let shown: BTreeSet<String> = shown.filter(|value| !value.is_empty()).collect();
    shown.into_iter().take(limit).collect()
}

fn each_line(answer: &LogAnswer, mut visit: impl FnMut(&AnswerStream, usize)) {
    for stream in &answer.streams {
        (0..stream.entries.len()).for_each(|at| visit(stream, at));
    }
}

/// `| json` or `| logfmt` alone. They always compile.
fn parser(json: bool) -> Option<Pipeline> {
    let stage = if json {
        Stage::Json(Vec::new())
    } else {
        Stage::Logfmt(Logfmt {
            strict: false,
            keep_empty: false,
            extractions: Vec::new(),
        })
    };
    Pipeline::of_stages(&[stage], Extract::All).ok()
}

fn is_error(name: &str) -> bool {
    name == "__error__" || name == "__error_details__"
}

/// What a parser finds in a line; `None` when it fails.
fn parse(runner: &mut crate::logql::Runner<'_>, at: Timestamp, line: &[u8]) -> Option<Labels> {
    let parsed = runner.run(at, line, None)?.parsed();
    parsed.get("__error__").is_none().then_some(parsed)
}

impl Fields {
    fn add_metadata(&mut self, stream: &AnswerStream, at: usize) {
        for (name, value) in stream.entries[at].structured.iter() {
            self.add(name, value, None);
        }
    }

    fn add_parsed(&mut self, labels: &Labels, parser: &'static str) {
        for (name, value) in labels.iter() {
            self.add(name, value, Some(parser));
        }
    }

    fn add(&mut self, name: &str, value: &str, parser: Option<&'static str>) {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= self.limit || self.bytes > MAX_BYTES {
                return;
            }
            self.bytes += name.len() + size_of::<Field>();
            self.by_name.insert(name.to_owned(), Field::default());
        }
        let Some(field) = self.by_name.get_mut(name) else {
            return;
        };
        if let Some(parser) = parser
            && !field.parsers.contains(&parser)
        {
            field.parsers.push(parser);
        }
        if value.is_empty() {
            return;
        }
        let kind = FieldType::of(value);
        field.kind = Some(field.kind.map_or(kind, |before| before.with(kind)));
        if self.bytes <= MAX_BYTES && !field.values.contains(value) {
            self.bytes += value.len() + 48;
            field.values.insert(value.to_owned());
        }
    }

    /// Where in the JSON object each label comes from, for labels of which that is not known.
    fn add_paths(&mut self, labels: &Labels, line: &[u8]) {
        let lacks_path = |name: &str| {
            let field = self.by_name.get(name);
            field.is_some_and(|field| field.json_path.is_empty())
        };
        if !labels.iter().any(|(name, _)| lacks_path(name)) {
            return;
        }
        member_paths(line, |name, path| {
            for name in [name, &format!("{name}_extracted")] {
                if labels.get(name).is_some()
                    && let Some(field) = self.by_name.get_mut(name)
                    && field.json_path.is_empty()
                {
                    field.json_path = path.to_vec();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::answer::AnswerEntry;

    fn answer(labels: &[(&str, &str)], lines: &[&str]) -> LogAnswer {
        let entry = |line: &&str| AnswerEntry {
            at: 1,
            line: line.as_bytes().to_vec().into(),
            structured: Labels::from_pairs([("trace_id", "t1")]),
            parsed: Labels::empty(),
        };
        LogAnswer {
            streams: vec![AnswerStream {
                labels: Labels::from_pairs(labels.iter().copied()),
                entries: lines.iter().map(entry).collect(),
            }],
            ..LogAnswer::default()
        }
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &[(&str, &str, usize, &[&str])]) {
        let fields = detect(&answer(&[("app", "x")], lines), 1000);
        let found: Vec<_> = fields
            .by_name
            .iter()
            .filter(|(name, _)| *name != "trace_id")
            .map(|(name, f)| {
                let kind = f.kind.map_or("", FieldType::as_str);
                (name.as_str(), kind, f.values.len(), &f.parsers[..])
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_type_fits_all_values_of_the_sample() {
        check(
            &[
                "n=1 d=2s b=1.5kB x=true",
                "n=2 d=3m b=2B x=t",
                "plain words",
            ],
            &[
                ("b", "bytes", 2, &["logfmt"]),
                ("d", "duration", 2, &["logfmt"]),
                ("n", "int", 2, &["logfmt"]),
                ("x", "boolean", 2, &["logfmt"]),
            ],
        );
        check(&["n=1", "n=1.5"], &[("n", "float", 2, &["logfmt"])]);
        check(&["n=1", "n=-"], &[("n", "string", 2, &["logfmt"])]);
        check(
            &["n=1", r#"{"n":2}"#],
            &[("n", "int", 2, &["logfmt", "json"])],
        );
    }

    #[test]
    fn json_fields_say_where_they_come_from() {
        let line = r#"{"a b":{"c\"d":1,"e":[1]},"app":"y","a":null}"#;
        let fields = detect(&answer(&[("app", "x")], &[line]), 1000).by_name;
        assert_eq!(fields["a_b_c_d"].json_path, ["a b", "c\"d"]);
        assert_eq!(fields["app_extracted"].json_path, ["app"]);
        assert_eq!(fields["trace_id"].parsers, [""; 0]);
        assert_eq!(fields.len(), 3);
    }

    #[test]
    fn limits_bound_fields_and_values() {
        let sample = answer(&[], &["a=1 b=2", "a=2", "a=1500B", "a=x"]);
        assert_eq!(detect(&sample, 1).by_name.len(), 1);
        assert_eq!(values(&sample, "a", 9), ["1", "1.5kB", "2", "x"]);
        assert_eq!(values(&sample, "a", 2), ["1", "1.5kB"]);
        assert!(values(&sample, "nope", 9).is_empty());
    }
}
