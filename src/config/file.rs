//! The configuration as written: TOML in, checked against the keys with line numbers, and
//! the tree of texts that all sources together give.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{
    FILES_KEYS, FILES_START, KEYS, Key, RETENTION_KEYS, RETENTION_SIGNALS, Written, quoted,
    suggestion,
};
use super::units;
use crate::logql;
use crate::source::files::discover::Patterns;

/// Less is kept by no rule, as in Loki.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// All keys with the values that won, units still as text.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub storage: Storage,
    pub memory: Memory,
    pub log: Log,
    pub loki: Loki,
    pub jaeger: Jaeger,
    pub otlp: Otlp,
    pub zipkin: Zipkin,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retention: Vec<Retention>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub path: String,
    pub durability: String,
    pub retention: String,
    pub max_bytes: String,
    pub min_free_bytes: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub limit: String,
    pub kept_results: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Loki {
    pub listen: String,
    pub tenancy: bool,
    pub discover_service_name: Vec<String>,
    pub discover_log_levels: bool,
    pub patterns: bool,
    pub otlp_resource_labels: Vec<String>,
    pub delete_request_cancel_period: String,
    pub limits: LokiLimits,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LokiLimits {
    pub max_body_size: String,
    pub max_line_size: String,
    pub max_label_names_per_series: u64,
    pub max_label_name_length: u64,
    pub max_label_value_length: u64,
    pub reject_old_samples_max_age: String,
    pub creation_grace_period: String,
    pub ingestion_rate_mb: u64,
    pub per_stream_rate: String,
    pub max_streams: u64,
    pub max_entries_limit_per_query: u64,
    pub max_query_length: String,
    pub max_query_series: u64,
    pub query_timeout: String,
    pub max_concurrent_tail_requests: u64,
    pub deletion_mode: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Jaeger {
    pub agent: JaegerAgent,
    pub collector: JaegerCollector,
    pub sampling: JaegerSampling,
    pub query: JaegerQuery,
    pub storage: JaegerStorage,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerAgent {
    pub compact: String,
    pub binary: String,
    pub zipkin: String,
    pub sampling: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerCollector {
    pub grpc: String,
    pub http: String,
    pub admin: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerSampling {
    pub r#type: String,
    pub strategies_file: String,
    pub reload_interval: String,
    pub adaptive: JaegerAdaptive,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerAdaptive {
    pub target_samples_per_second: f64,
    pub delta_tolerance: f64,
    pub buckets_for_calculation: u64,
    pub calculation_interval: String,
    pub aggregation_buckets: u64,
    pub delay: String,
    pub initial_sampling_probability: f64,
    pub min_sampling_probability: f64,
    pub min_samples_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerQuery {
    pub http: String,
    pub grpc: String,
    pub base_path: String,
    pub ui_dir: String,
    pub ui_config: String,
    pub max_clock_skew_adjustment: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JaegerStorage {
    pub grpc: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    pub grpc: String,
    pub http: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Zipkin {
    pub listen: String,
}

/// One `[[retention]]` table.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    #[serde(default = "logs")]
    pub signal: String,
    #[serde(default)]
    pub selector: String,
    pub period: String,
    #[serde(default)]
    pub priority: i64,
}

fn logs() -> String {
    RETENTION_SIGNALS[0].to_owned()
}

/// One `[[files]]` table.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub paths: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default = "from_the_beginning")]
    pub start: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn from_the_beginning() -> String {
    FILES_START[0].to_owned()
}

/// Checks the text of a file; each finding names the line and the key.
pub fn check(path: &Path, text: &str) -> Vec<ConfigError> {
    let mut check = Check {
        path,
        text,
        errors: Vec::new(),
    };
    match DeTable::parse(text) {
        Ok(table) => check.table("", table.get_ref()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim_end().replace('\n', "; ");
            check.add(at, "", message);
        }
    }
    check.errors
}

struct Check<'a> {
    path: &'a Path,
    text: &'a str,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    fn add(&mut self, at: usize, key: &str, message: String) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let place = format!("{}:{line}", self.path.display());
        self.errors.push(ConfigError {
            place,
            key: key.into(),
            message,
        });
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = match prefix {
                "" => name.get_ref().to_string(),
                _ => format!("{prefix}.{}", name.get_ref()),
            };
            let at = value.span().start;
            if path == "files" {
                self.files(value);
            } else if path == "retention" {
                self.retention(value);
            } else if let Some(key) = Key::find(&path) {
                if let Err(message) = key.check(&written(value)) {
                    self.add(at, &path, message);
                }
            } else if !Key::is_table(&path) {
                self.add(name.span().start, &path, unknown(&path));
            } else if let DeValue::Table(inner) = value.get_ref() {
                self.table(&path, inner);
            } else {
                self.add(
                    at,
                    &path,
                    format!("is a table; write [{path}] and keys below it"),
                );
            }
        }
    }

    fn files(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(tables) = value.get_ref() else {
            return self.add(value.span().start, "files", "write it as [[files]]".into());
        };
        for table in tables.iter() {
            match table.get_ref() {
                DeValue::Table(inner) => self.files_table(table.span().start, inner),
                _ => self.add(table.span().start, "files", "write it as [[files]]".into()),
            }
        }
    }

    fn files_table(&mut self, at: usize, table: &DeTable<'_>) {
        let mut has_paths = false;
        for (name, value) in table {
            let path = format!("files.{}", name.get_ref());
            let at = value.span().start;
            match (name.get_ref().as_ref(), written(value)) {
                ("paths", Written::List(paths)) if !paths.is_empty() => {
                    has_paths = true;
                    if let Err(error) = Patterns::new(&paths, &[]) {
                        self.add(at, &path, error.to_string());
                    }
                }
                ("exclude", Written::List(paths)) => {
                    if let Err(error) = Patterns::new(&[], &paths) {
                        self.add(at, &path, error.to_string());
                    }
                }
                ("paths" | "exclude", found) => {
                    has_paths = true; // one error is enough
                    let form = "a list of paths such as [\"/var/log/*.log\"]";
                    self.add(at, &path, format!("{found} is not {form}"));
                }
                ("start", Written::Text(text)) if FILES_START.contains(&text.as_str()) => {}
                ("start", found) => {
                    self.add(
                        at,
                        &path,
                        format!("{found} is not one of {}", quoted(FILES_START)),
                    );
                }
                ("labels", _) => self.labels(value),
                (name, _) => {
                    let hint = match suggestion(name, FILES_KEYS.iter().copied()) {
                        Some(near) => format!("unknown key; did you mean `{near}`?"),
                        None => format!("unknown key; allowed are {}", FILES_KEYS.join(", ")),
                    };
                    self.add(at, &path, hint);
                }
            }
        }
        if !has_paths {
            self.add(
                at,
                "files.paths",
                "is missing; list the files to follow".into(),
            );
        }
    }

    fn retention(&mut self, value: &Spanned<DeValue<'_>>) {
        let form = "write it as [[retention]]; one period for all is storage.retention";
        let DeValue::Array(tables) = value.get_ref() else {
            return self.add(value.span().start, "retention", form.into());
        };
        for table in tables.iter() {
            match table.get_ref() {
                DeValue::Table(inner) => self.retention_table(table.span().start, inner),
                _ => self.add(table.span().start, "retention", form.into()),
            }
        }
    }

    fn retention_table(&mut self, at: usize, table: &DeTable<'_>) {
        let mut has_period = false;
        let of_traces = table
            .get("signal")
            .is_some_and(|signal| signal.get_ref().as_str() == Some("traces"));
        for (name, value) in table {
            let path = format!("retention.{}", name.get_ref());
            let at = value.span().start;
            has_period |= name.get_ref() == "period";
            match (name.get_ref().as_ref(), written(value)) {
                ("period", Written::Text(text)) => {
                    if let Err(message) = retention_period(&text) {
                        self.add(at, &path, message);
                    }
                }
                ("period", found) => {
                    let form = format!("{found} is not {}, or \"\" for ever", units::DURATION_FORM);
                    self.add(at, &path, form);
                }
                ("selector", Written::Text(text)) if of_traces && !text.is_empty() => {
                    let why = "can't be given for traces: spans of all services lie together, so \
                               one period holds for all of them; leave it out";
                    self.add(at, &path, why.into());
                }
                ("selector", Written::Text(text)) => {
                    if !text.is_empty()
                        && let Err(error) = logql::parse_selector_or_all(&text)
                    {
                        self.add(at, &path, format!("{text:?}: {error}"));
                    }
                }
                ("selector", found) => {
                    let form = "a selector such as '{env=\"dev\"}'";
                    self.add(at, &path, format!("{found} is not {form}"));
                }
                ("priority", Written::Number(_)) => {}
                ("priority", found) => {
                    self.add(at, &path, format!("{found} is not a whole number"));
                }
                ("signal", Written::Text(text)) if RETENTION_SIGNALS.contains(&text.as_str()) => {}
                ("signal", found) => {
                    let form = quoted(RETENTION_SIGNALS);
                    self.add(at, &path, format!("{found} is not one of {form}"));
                }
                (name, _) => {
                    let hint = match suggestion(name, RETENTION_KEYS.iter().copied()) {
                        Some(near) => format!("unknown key; did you mean `{near}`?"),
                        None => format!("unknown key; allowed are {}", RETENTION_KEYS.join(", ")),
                    };
                    self.add(at, &path, hint);
                }
            }
        }
        if !has_period {
            let message = "is missing; say how long, such as \"7d\", or \"\" for ever";
            self.add(at, "retention.period", message.into());
        }
    }

    fn labels(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(labels) = value.get_ref() else {
            let found = written(value);
            let message = format!("{found} is not a table such as {{ job = \"varlogs\" }}");
            return self.add(value.span().start, "files.labels", message);
        };
        for (name, value) in labels {
            let path = format!("files.labels.{}", name.get_ref());
            if !is_label_name(name.get_ref()) {
                let form = "a label name: letters, digits and _, not beginning with a digit";
                self.add(name.span().start, &path, format!("is not {form}"));
            }
            match written(value) {
                Written::Text(text) if !text.is_empty() => {}
                found => {
                    let message =
                        format!("{found} is not a text; write the label's value in quotes");
                    self.add(value.span().start, &path, message);
                }
            }
        }
    }
}

/// The period of a `[[retention]]` table; `None`: for ever.
pub fn retention_period(text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let period = units::parse_duration(text).ok_or_else(|| {
        let form = units::DURATION_FORM;
        format!("{text:?} is not {form}, or \"\" for ever")
    })?;
    match period {
        Duration::ZERO => Ok(None),
        period if period < DAY => Err("is less than a day; use 1d or more".into()),
        period => Ok(Some(period)),
    }
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What to say of a key that does not exist.
pub fn unknown(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = suggestion(path, KEYS.iter().map(|k| k.path)).or_else(|| {
        // Right name, wrong table.
        KEYS.iter()
            .map(|k| k.path)
            .find(|p| p.rsplit('.').next() == Some(last))
    });
    match near {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => "unknown key; config.toml of the distribution lists all keys".into(),
    }
}

fn written(value: &Spanned<DeValue<'_>>) -> Written {
    match value.get_ref() {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Boolean(value) => Written::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Written::Other("a number too large"), Written::Number),
        DeValue::Array(items) => {
            let texts = items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map_or(
                Written::Other("a list with something other than texts"),
                Written::List,
            )
        }
        DeValue::Float(number) => number
            .as_str()
            .replace('_', "")
            .parse()
            .map_or(Written::Other("a number with a fraction"), Written::Decimal),
        DeValue::Datetime(_) => Written::Other("a date"),
        DeValue::Table(_) => Written::Other("a table"),
    }
}
