//! Every key: its default, and what may be written there.
//!
//! The table is what files, environment variables and flags are checked against, before
//! anything is merged: only then it is known where a wrong value came from.

use super::units::{self, DURATION_FORM, SIZE_FORM};

/// One key outside `[[files]]`.
#[derive(Debug)]
pub struct Key {
    /// With dots, as in `storage.path`.
    pub path: &'static str,
    pub kind: Kind,
    pub default: Fallback,
}

/// What may be written for a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    Bool,
    Number,
    /// A number of 0 or more, maybe with a fraction.
    Decimal,
    Size,
    /// A size, or "" for none.
    SizeOrNone,
    Duration,
    /// A duration, or "" for none.
    DurationOrNone,
    /// `address:port`, or "" to switch the listener off.
    Listen,
    OneOf(&'static [&'static str]),
    Names,
}

/// A default value.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    Text(&'static str),
    Bool(bool),
    Number(i64),
    Decimal(f64),
    Names(&'static [&'static str]),
}

/// A value as written, wherever that was.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    Text(String),
    Bool(bool),
    Number(i64),
    Decimal(f64),
    List(Vec<String>),
    /// Something no key takes, by the name of its type.
    Other(&'static str),
}

use Fallback as D;
use Kind as K;

const fn key(path: &'static str, kind: Kind, default: Fallback) -> Key {
    Key {
        path,
        kind,
        default,
    }
}

/// In the order of config.toml.
pub const KEYS: &[Key] = &[
    key("storage.path", K::Text, D::Text("data")),
    key(
        "storage.durability",
        K::OneOf(&["sync", "flush"]),
        D::Text("sync"),
    ),
    key("storage.retention", K::DurationOrNone, D::Text("30d")),
    key("storage.max_bytes", K::SizeOrNone, D::Text("")),
    key("storage.min_free_bytes", K::Size, D::Text("1GiB")),
    key("memory.limit", K::Size, D::Text("256MiB")),
    key("memory.kept_results", K::Size, D::Text("32MiB")),
    key("log.level", K::Text, D::Text("info")),
    key("log.format", K::OneOf(&["text", "json"]), D::Text("text")),
    key("loki.listen", K::Listen, D::Text("0.0.0.0:3100")),
    key("loki.tenancy", K::Bool, D::Bool(false)),
    key(
        "loki.discover_service_name",
        K::Names,
        D::Names(SERVICE_NAME_LABELS),
    ),
    key("loki.discover_log_levels", K::Bool, D::Bool(true)),
    key("loki.patterns", K::Bool, D::Bool(true)),
    key(
        "loki.otlp_resource_labels",
        K::Names,
        D::Names(OTLP_RESOURCE_LABELS),
    ),
    key(
        "loki.delete_request_cancel_period",
        K::Duration,
        D::Text("24h"),
    ),
    key("loki.limits.max_body_size", K::Size, D::Text("64MiB")),
    key("loki.limits.max_line_size", K::Size, D::Text("256KiB")),
    key(
        "loki.limits.max_label_names_per_series",
        K::Number,
        D::Number(15),
    ),
    key(
        "loki.limits.max_label_name_length",
        K::Number,
        D::Number(1024),
    ),
    key(
        "loki.limits.max_label_value_length",
        K::Number,
        D::Number(2048),
    ),
    key(
        "loki.limits.reject_old_samples_max_age",
        K::DurationOrNone,
        D::Text("7d"),
    ),
    key(
        "loki.limits.creation_grace_period",
        K::Duration,
        D::Text("10m"),
    ),
    key("loki.limits.ingestion_rate_mb", K::Number, D::Number(0)),
    key("loki.limits.per_stream_rate", K::Size, D::Text("0")),
    key("loki.limits.max_streams", K::Number, D::Number(100_000)),
    key(
        "loki.limits.max_entries_limit_per_query",
        K::Number,
        D::Number(5_000),
    ),
    key("loki.limits.max_query_length", K::Duration, D::Text("721h")),
    key("loki.limits.max_query_series", K::Number, D::Number(500)),
    key("loki.limits.query_timeout", K::Duration, D::Text("1m")),
    key(
        "loki.limits.max_concurrent_tail_requests",
        K::Number,
        D::Number(100),
    ),
    key(
        "loki.limits.deletion_mode",
        K::OneOf(&["filter-and-delete", "filter-only", "disabled"]),
        D::Text("filter-and-delete"),
    ),
    key("jaeger.agent.compact", K::Listen, D::Text("0.0.0.0:6831")),
    key("jaeger.agent.binary", K::Listen, D::Text("0.0.0.0:6832")),
    key("jaeger.agent.zipkin", K::Listen, D::Text("0.0.0.0:5775")),
    key("jaeger.agent.sampling", K::Listen, D::Text("0.0.0.0:5778")),
    key("jaeger.collector.grpc", K::Listen, D::Text("0.0.0.0:14250")),
    key("jaeger.collector.http", K::Listen, D::Text("0.0.0.0:14268")),
    key(
        "jaeger.collector.admin",
        K::Listen,
        D::Text("0.0.0.0:14269"),
    ),
    key(
        "jaeger.sampling.type",
        K::OneOf(&["file", "adaptive"]),
        D::Text("file"),
    ),
    key("jaeger.sampling.strategies_file", K::Text, D::Text("")),
    key(
        "jaeger.sampling.reload_interval",
        K::DurationOrNone,
        D::Text("10s"),
    ),
    key(
        "jaeger.sampling.adaptive.target_samples_per_second",
        K::Decimal,
        D::Decimal(1.0),
    ),
    key(
        "jaeger.sampling.adaptive.delta_tolerance",
        K::Decimal,
        D::Decimal(0.3),
    ),
    key(
        "jaeger.sampling.adaptive.buckets_for_calculation",
        K::Number,
        D::Number(1),
    ),
    key(
        "jaeger.sampling.adaptive.calculation_interval",
        K::Duration,
        D::Text("1m"),
    ),
    key(
        "jaeger.sampling.adaptive.aggregation_buckets",
        K::Number,
        D::Number(10),
    ),
    key("jaeger.sampling.adaptive.delay", K::Duration, D::Text("2m")),
    key(
        "jaeger.sampling.adaptive.initial_sampling_probability",
        K::Decimal,
        D::Decimal(0.001),
    ),
    key(
        "jaeger.sampling.adaptive.min_sampling_probability",
        K::Decimal,
        D::Decimal(1e-5),
    ),
    key(
        "jaeger.sampling.adaptive.min_samples_per_second",
        K::Decimal,
        D::Decimal(1.0 / 60.0),
    ),
    key("jaeger.query.http", K::Listen, D::Text("0.0.0.0:16686")),
    key("jaeger.query.grpc", K::Listen, D::Text("0.0.0.0:16685")),
    key("jaeger.query.base_path", K::Text, D::Text("/")),
    key("jaeger.query.ui_dir", K::Text, D::Text("")),
    key("jaeger.query.ui_config", K::Text, D::Text("")),
    key(
        "jaeger.query.max_clock_skew_adjustment",
        K::Duration,
        D::Text("0s"),
    ),
    key("jaeger.storage.grpc", K::Listen, D::Text("0.0.0.0:17271")),
    key("otlp.grpc", K::Listen, D::Text("0.0.0.0:4317")),
    key("otlp.http", K::Listen, D::Text("0.0.0.0:4318")),
    key("zipkin.listen", K::Listen, D::Text("0.0.0.0:9411")),
];

/// Keys of a `[[files]]` table.
pub const FILES_KEYS: &[&str] = &["paths", "exclude", "labels", "start"];

/// Keys of a `[[retention]]` table.
pub const RETENTION_KEYS: &[&str] = &["selector", "period", "priority", "signal"];

/// Allowed values of `signal` in `[[retention]]`.
pub const RETENTION_SIGNALS: &[&str] = &["logs", "traces"];

/// Allowed values of `start` in `[[files]]`.
pub const FILES_START: &[&str] = &["beginning", "end"];

/// Labels that name a service, the first that is there counts; the list that Loki has.
const SERVICE_NAME_LABELS: &[&str] = &[
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// Attributes of an OTLP resource that become labels; the list that Loki has. `protocol`
/// has it as well, which replay goes by: `app` tests that they are one.
pub const OTLP_RESOURCE_LABELS: &[&str] = &[
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

impl Key {
    pub fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Whether `path` is a table that holds keys.
    pub fn is_table(path: &str) -> bool {
        KEYS.iter().any(|k| {
            k.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Why `value` can't be written here, or nothing.
    pub fn check(&self, value: &Written) -> Result<(), String> {
        let wrong = |what: String| Err(format!("{value} is not {what}"));
        match (self.kind, value) {
            (Kind::Text, Written::Text(_)) | (Kind::Bool, Written::Bool(_)) => Ok(()),
            (Kind::Number, Written::Number(n)) if *n >= 0 => Ok(()),
            (Kind::Decimal, Written::Number(n)) if *n >= 0 => Ok(()),
            (Kind::Decimal, Written::Decimal(n)) if *n >= 0.0 && n.is_finite() => Ok(()),
            (Kind::Names, Written::List(_)) => Ok(()),
            (Kind::Size | Kind::SizeOrNone, Written::Number(n)) if *n >= 0 => Ok(()),
            (Kind::Size, Written::Text(t)) if units::parse_size(t).is_some() => Ok(()),
            (Kind::SizeOrNone, Written::Text(t))
                if t.is_empty() || units::parse_size(t).is_some() =>
            {
                Ok(())
            }
            (Kind::Duration, Written::Text(t)) if units::parse_duration(t).is_some() => Ok(()),
            (Kind::DurationOrNone, Written::Text(t))
                if t.is_empty() || units::parse_duration(t).is_some() =>
            {
                Ok(())
            }
            (Kind::Listen, Written::Text(t)) if t.is_empty() => Ok(()),
            (Kind::Listen, Written::Text(t)) => super::parse_address(t).map(|_| ()),
            (Kind::OneOf(allowed), Written::Text(t)) if allowed.contains(&t.as_str()) => Ok(()),
            (Kind::Text, _) => wrong("a text; write it in quotes".into()),
            (Kind::Bool, _) => wrong("true or false".into()),
            (Kind::Number, _) => wrong("a whole number of 0 or more".into()),
            (Kind::Decimal, _) => wrong("a number of 0 or more".into()),
            (Kind::Names, _) => wrong("a list of names such as [\"app\", \"job\"]".into()),
            (Kind::Size, _) => wrong(SIZE_FORM.into()),
            (Kind::SizeOrNone, _) => wrong(format!("{SIZE_FORM}, or \"\" for no limit")),
            (Kind::Duration, _) => wrong(DURATION_FORM.into()),
            (Kind::DurationOrNone, _) => wrong(format!("{DURATION_FORM}, or \"\" for no limit")),
            (Kind::Listen, _) => {
                wrong("an address such as \"127.0.0.1:3100\", or \"\" for none".into())
            }
            (Kind::OneOf(allowed), _) => wrong(format!("one of {}", quoted(allowed))),
        }
    }

    /// What `text`, from a variable or a flag, means for this key.
    pub fn read(&self, text: &str) -> Written {
        match self.kind {
            Kind::Bool => match text {
                "true" => Written::Bool(true),
                "false" => Written::Bool(false),
                _ => Written::Text(text.into()),
            },
            Kind::Number => match text.parse() {
                Ok(number) => Written::Number(number),
                Err(_) => Written::Text(text.into()),
            },
            Kind::Decimal => match text.parse() {
                Ok(number) => Written::Decimal(number),
                Err(_) => Written::Text(text.into()),
            },
            Kind::Names => {
                let names = text.split(',').map(str::trim).filter(|t| !t.is_empty());
                Written::List(names.map(str::to_owned).collect())
            }
            _ => Written::Text(text.into()),
        }
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Decimal(number) => write!(f, "{number}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Other(kind) => write!(f, "{kind}"),
        }
    }
}

/// `"a", "b"`.
pub fn quoted(words: &[&str]) -> String {
    words
        .iter()
        .map(|w| format!("{w:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The candidate most like `word`, if any is like it at all.
pub fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words (bytes are good enough).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
