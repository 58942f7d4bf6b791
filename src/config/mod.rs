//! What the operator wants: defaults, then a file, then the environment, then flags.
//!
//! C1. Every error names where the value was written, the key, and what is allowed.
//! C2. Nothing unknown is accepted: a misspelt key is an error, with a suggestion.
//! C3. A [`Config`] is complete and consistent; whoever has one need not check again.

pub mod file;
pub mod keys;
pub mod units;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::source::files::{FilesOptions, StartAt};
use crate::telemetry::log::Format;
use file::File;
use keys::{Fallback, KEYS, Key, Written};

/// Where a file is looked for when none is named, in this order.
const SEARCH: [&str; 2] = ["config.toml", "/etc/watchpost/config.toml"];

/// Environment variables of ours begin so; `__` stands for the dots of a key.
const ENVIRONMENT: &str = "WATCHPOST__";

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub storage: Storage,
    pub memory: Memory,
    pub log: Log,
    pub loki: Loki,
    pub jaeger: Jaeger,
    pub otlp: Otlp,
    /// Zipkin's collector over HTTP.
    pub zipkin: Option<SocketAddr>,
    pub retention: Retention,
    pub files: Vec<FilesOptions>,
}

/// What is kept for another time than `storage.retention` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retention {
    pub logs: Vec<LogRetention>,
    /// Of all spans; the inner `None` is for ever.
    pub traces: Option<Option<Duration>>,
}

/// How long the streams of a selector are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRetention {
    /// "": every stream.
    pub selector: String,
    /// `None`: for ever.
    pub period: Option<Duration>,
    pub priority: i64,
}

/// What a 2xx promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The journal record is on the disk.
    Sync,
    /// The kernel has it; the disk within 200 ms.
    Flush,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    pub path: PathBuf,
    pub durability: Durability,
    /// `None`: by size only.
    pub retention: Option<Duration>,
    pub max_bytes: Option<u64>,
    pub min_free_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    pub limit: u64,
    /// What chunks gave to metric queries, of the limit.
    pub kept_results: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// An EnvFilter text.
    pub level: String,
    pub format: Format,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Loki {
    pub listen: Option<SocketAddr>,
    pub tenancy: bool,
    pub discover_service_name: Vec<String>,
    pub discover_log_levels: bool,
    /// Mine patterns when chunks are sealed, and answer for them.
    pub patterns: bool,
    /// Attributes of OTLP's resources that become labels.
    pub otlp_resource_labels: Vec<String>,
    pub delete_request_cancel_period: Duration,
    pub limits: LokiLimits,
}

/// Names and meanings of Loki's `limits_config`.
#[derive(Clone, Debug, PartialEq)]
pub struct LokiLimits {
    /// Of a push, compressed and decompressed each.
    pub max_body_size: u64,
    pub max_line_size: u64,
    pub max_label_names_per_series: u64,
    pub max_label_name_length: u64,
    pub max_label_value_length: u64,
    /// `None`: any age is accepted.
    pub reject_old_samples_max_age: Option<Duration>,
    pub creation_grace_period: Duration,
    /// MB per second and tenant; 0: no limit.
    pub ingestion_rate_mb: u64,
    /// Bytes per second and stream; 0: no limit.
    pub per_stream_rate: u64,
    pub max_streams: u64,
    pub max_entries_limit_per_query: u64,
    pub max_query_length: Duration,
    pub max_query_series: u64,
    pub query_timeout: Duration,
    /// Live queries at a time, of all tenants.
    pub max_concurrent_tail_requests: u64,
    pub deletion_mode: DeletionMode,
}

/// What becomes of delete requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionMode {
    /// Lines leave answers at once and the disk later.
    FilterAndDelete,
    /// Lines leave answers only.
    FilterOnly,
    /// Requests are refused; those taken before still count.
    Disabled,
}

/// Addresses of what Jaeger's agent, collector and query service listen on.
#[derive(Clone, Debug, PartialEq)]
pub struct Jaeger {
    pub agent_compact: Option<SocketAddr>,
    pub agent_binary: Option<SocketAddr>,
    pub agent_zipkin: Option<SocketAddr>,
    pub agent_sampling: Option<SocketAddr>,
    pub collector_grpc: Option<SocketAddr>,
    pub collector_http: Option<SocketAddr>,
    pub collector_admin: Option<SocketAddr>,
    pub query_http: Option<SocketAddr>,
    pub query_grpc: Option<SocketAddr>,
    /// For a Jaeger of its own that keeps its spans here.
    pub storage_grpc: Option<SocketAddr>,
    pub ui: Ui,
    /// How far times may be moved so that children fit their parents; 0: only warned of.
    pub max_clock_skew_adjustment: Duration,
    pub sampling: Sampling,
}

/// A built Jaeger UI, beside the query API.
#[derive(Clone, Debug, PartialEq)]
pub struct Ui {
    /// `None`: there is none.
    pub dir: Option<PathBuf>,
    pub config: Option<PathBuf>,
    /// Of UI and API: "", or such as "/jaeger".
    pub base_path: String,
}

/// What clients that ask are told about sampling.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampling {
    File {
        /// `None`: Jaeger's default for every service.
        path: Option<PathBuf>,
        /// `None`: read again on SIGHUP only.
        reload_interval: Option<Duration>,
    },
    /// Probabilities from what comes in.
    Adaptive(AdaptiveSampling),
}

/// Names and meanings of Jaeger's `sampling.*` flags.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveSampling {
    pub target_samples_per_second: f64,
    pub delta_tolerance: f64,
    pub buckets_for_calculation: u64,
    pub calculation_interval: Duration,
    pub aggregation_buckets: u64,
    pub delay: Duration,
    pub initial_sampling_probability: f64,
    pub min_sampling_probability: f64,
    pub min_samples_per_second: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The same as TOML, defaults included.
    pub effective: String,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// One thing wrong, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `config.toml:12`, `WATCHPOST__STORAGE__PATH`, `--storage-path`.
    pub place: String,
    /// "" when it is about no key.
    pub key: String,
    pub message: String,
}

/// Everything wrong, one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// A value given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as typed, for errors.
    pub name: String,
    pub key: String,
    pub value: String,
}

impl Config {
    /// Reads the file (`path`, or the first of the usual places that exists), then lays
    /// `environment` and `flags` over it.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Loaded, ConfigErrors> {
        let found = match path {
            Some(path) => Some(path.to_path_buf()),
            None => SEARCH.iter().map(PathBuf::from).find(|p| p.exists()),
        };
        let text = match &found {
            Some(path) => std::fs::read_to_string(path).map_err(|e| {
                let message = format!("can't be read: {e}");
                ConfigErrors::one(path.display().to_string(), "", message)
            })?,
            None => String::new(),
        };
        let file = found.as_deref().map(|path| (path, text.as_str()));
        let (config, effective) = Self::merge(file, environment, flags)?;
        Ok(Loaded {
            config,
            effective,
            file: found,
        })
    }

    fn merge(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<(Self, String), ConfigErrors> {
        let mut errors = file.map_or_else(Vec::new, |(path, text)| file::check(path, text));
        let mut overrides: Vec<(&'static Key, Written)> = Vec::new();
        let variables = environment.into_iter().filter_map(|(name, value)| {
            let key = name
                .strip_prefix(ENVIRONMENT)?
                .to_lowercase()
                .replace("__", ".");
            Some((name, key, value))
        });
        let flags = flags
            .iter()
            .map(|f| (f.name.clone(), f.key.clone(), f.value.clone()));
        // A later value replaces an earlier one: flags come behind the environment.
        for (place, path, value) in variables.chain(flags) {
            let mut add = |message| {
                errors.push(ConfigError {
                    place: place.clone(),
                    key: path.clone(),
                    message,
                });
            };
            match Key::find(&path) {
                Some(key) => {
                    let written = key.read(&value);
                    match key.check(&written) {
                        Ok(()) => overrides.push((key, written)),
                        Err(message) => add(message),
                    }
                }
                None if path == "files" || path.starts_with("files.") => {
                    add("[[files]] can be given in a file only".into());
                }
                None if path == "retention" || path.starts_with("retention.") => {
                    add("[[retention]] can be given in a file only".into());
                }
                None => add(file::unknown(&path)),
            }
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let merged = layer(file.map_or("", |(_, text)| text), &overrides).map_err(|e| {
            let place = file.map_or("configuration".into(), |(p, _)| p.display().to_string());
            ConfigErrors::one(place, "", e.to_string())
        })?;
        let effective = toml::to_string(&merged)
            .map_err(|e| ConfigErrors::one("configuration".into(), "", e.to_string()))?;
        let place = file.map_or("configuration".into(), |(p, _)| p.display().to_string());
        let config = Self::resolve(merged)
            .map_err(|(key, message)| ConfigErrors::one(place, key, message))?;
        Ok((config, effective))
    }

    /// From texts to values, and what must hold between them.
    fn resolve(file: File) -> Result<Self, (&'static str, String)> {
        // Exhaustive, here and below: a key that nobody uses does not compile.
        let File {
            storage,
            memory,
            log,
            loki,
            jaeger,
            otlp,
            zipkin,
            retention: rules,
            files,
        } = file;
        let file::Storage {
            path,
            durability,
            retention,
            max_bytes,
            min_free_bytes,
        } = storage;
        if path.is_empty() {
            return Err(("storage.path", "is empty; name a directory".into()));
        }
        let storage = Storage {
            path: path.into(),
            durability: if durability == "sync" {
                Durability::Sync
            } else {
                Durability::Flush
            },
            retention: optional_duration("storage.retention", &retention)?,
            max_bytes: match max_bytes.as_str() {
                "" => None,
                text => Some(size("storage.max_bytes", text)?),
            },
            min_free_bytes: size("storage.min_free_bytes", &min_free_bytes)?,
        };
        if storage.max_bytes.is_some_and(|max| max < MAX_BYTES_MIN) {
            let message = "is less than 512MiB; the journal alone takes up to 128 MiB";
            return Err(("storage.max_bytes", message.into()));
        }
        if storage
            .retention
            .is_some_and(|r| r < Duration::from_secs(24 * 3600))
        {
            let message = "is less than a day, and whole days are dropped; use 1d or more";
            return Err(("storage.retention", message.into()));
        }
        let file::Memory {
            limit,
            kept_results,
        } = memory;
        let memory = Memory {
            limit: size("memory.limit", &limit)?,
            kept_results: size("memory.kept_results", &kept_results)?,
        };
        if memory.limit < MEMORY_MIN {
            let message = format!("{limit:?} is too little to work with; use 64MiB or more");
            return Err(("memory.limit", message));
        }
        let file::Log { level, format } = log;
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&level) {
            let message = format!("{level:?}: {error}; use error, warn, info, debug or trace");
            return Err(("log.level", message));
        }
        let format = if format == "json" {
            Format::Json
        } else {
            Format::Text
        };
        let file::Jaeger {
            agent,
            collector,
            sampling: strategies,
            query,
            storage: jaeger_storage,
        } = jaeger;
        let file::JaegerStorage { grpc: storage_grpc } = jaeger_storage;
        let file::JaegerAgent {
            compact,
            binary,
            zipkin: agent_zipkin,
            sampling,
        } = agent;
        let file::JaegerCollector {
            grpc: collector_grpc,
            http: collector_http,
            admin,
        } = collector;
        let file::JaegerQuery {
            http: query_http,
            grpc: query_grpc,
            base_path,
            ui_dir,
            ui_config,
            max_clock_skew_adjustment,
        } = query;
        let file::Zipkin {
            listen: zipkin_listen,
        } = zipkin;
        // Checked to be "" by their kind; what they will mean comes with a later version.
        let file::Otlp {
            grpc: otlp_grpc,
            http: otlp_http,
        } = otlp;
        let config = Self {
            storage,
            memory,
            log: Log { level, format },
            loki: resolve_loki(loki)?,
            jaeger: Jaeger {
                agent_compact: address("jaeger.agent.compact", &compact)?,
                agent_binary: address("jaeger.agent.binary", &binary)?,
                agent_zipkin: address("jaeger.agent.zipkin", &agent_zipkin)?,
                agent_sampling: address("jaeger.agent.sampling", &sampling)?,
                collector_grpc: address("jaeger.collector.grpc", &collector_grpc)?,
                collector_http: address("jaeger.collector.http", &collector_http)?,
                collector_admin: address("jaeger.collector.admin", &admin)?,
                query_http: address("jaeger.query.http", &query_http)?,
                query_grpc: address("jaeger.query.grpc", &query_grpc)?,
                storage_grpc: address("jaeger.storage.grpc", &storage_grpc)?,
                ui: resolve_ui(&base_path, ui_dir, ui_config)?,
                max_clock_skew_adjustment: duration(
                    "jaeger.query.max_clock_skew_adjustment",
                    &max_clock_skew_adjustment,
                )?,
                sampling: resolve_sampling(strategies)?,
            },
            otlp: Otlp {
                grpc: address("otlp.grpc", &otlp_grpc)?,
                http: address("otlp.http", &otlp_http)?,
            },
            zipkin: address("zipkin.listen", &zipkin_listen)?,
            retention: resolve_retention(rules)?,
            files: files.into_iter().map(resolve_files).collect(),
        };
        config.check_addresses()?;
        Ok(config)
    }

    /// Two listeners on one address would fail later, with a message less clear.
    fn check_addresses(&self) -> Result<(), (&'static str, String)> {
        let Jaeger {
            agent_compact,
            agent_binary,
            agent_zipkin,
            agent_sampling,
            collector_grpc,
            collector_http,
            collector_admin,
            query_http,
            query_grpc,
            storage_grpc,
            ui: _,
            max_clock_skew_adjustment: _,
            sampling: _,
        } = &self.jaeger;
        let Otlp { grpc, http } = &self.otlp;
        let tcp = [
            ("loki.listen", &self.loki.listen),
            ("jaeger.agent.sampling", agent_sampling),
            ("jaeger.collector.grpc", collector_grpc),
            ("jaeger.collector.http", collector_http),
            ("jaeger.collector.admin", collector_admin),
            ("jaeger.query.http", query_http),
            ("jaeger.query.grpc", query_grpc),
            ("jaeger.storage.grpc", storage_grpc),
            ("otlp.grpc", grpc),
            ("otlp.http", http),
            ("zipkin.listen", &self.zipkin),
        ];
        let udp = [
            ("jaeger.agent.compact", agent_compact),
            ("jaeger.agent.binary", agent_binary),
            ("jaeger.agent.zipkin", agent_zipkin),
        ];
        for group in [tcp.as_slice(), udp.as_slice()] {
            for (i, (key, address)) in group.iter().enumerate() {
                // Port 0 is a free one, chosen by the kernel for each.
                let Some(address) = address.filter(|a| a.port() != 0) else {
                    continue;
                };
                if let Some((other, _)) = group[..i].iter().find(|(_, a)| **a == Some(address)) {
                    let message = format!("{address} is the address of {other} as well");
                    return Err((key, message));
                }
            }
        }
        Ok(())
    }
}

/// Below this not even the fixed parts fit.
const MEMORY_MIN: u64 = 64 << 20;
/// Below this the journal alone could fill it.
const MAX_BYTES_MIN: u64 = 512 << 20;

type Resolved<T> = Result<T, (&'static str, String)>;

fn resolve_loki(loki: file::Loki) -> Resolved<Loki> {
    let file::Loki {
        listen,
        tenancy,
        discover_service_name,
        discover_log_levels,
        patterns,
        otlp_resource_labels,
        delete_request_cancel_period,
        limits,
    } = loki;
    let file::LokiLimits {
        max_body_size,
        max_line_size,
        max_label_names_per_series,
        max_label_name_length,
        max_label_value_length,
        reject_old_samples_max_age,
        creation_grace_period,
        ingestion_rate_mb,
        per_stream_rate,
        max_streams,
        max_entries_limit_per_query,
        max_query_length,
        max_query_series,
        query_timeout,
        max_concurrent_tail_requests,
        deletion_mode,
    } = limits;
    let limits = LokiLimits {
        max_body_size: size("loki.limits.max_body_size", &max_body_size)?,
        max_line_size: size("loki.limits.max_line_size", &max_line_size)?,
        max_label_names_per_series,
        max_label_name_length,
        max_label_value_length,
        reject_old_samples_max_age: optional_duration(
            "loki.limits.reject_old_samples_max_age",
            &reject_old_samples_max_age,
        )?,
        creation_grace_period: duration(
            "loki.limits.creation_grace_period",
            &creation_grace_period,
        )?,
        ingestion_rate_mb,
        per_stream_rate: size("loki.limits.per_stream_rate", &per_stream_rate)?,
        max_streams,
        max_entries_limit_per_query,
        max_query_length: duration("loki.limits.max_query_length", &max_query_length)?,
        max_query_series,
        query_timeout: duration("loki.limits.query_timeout", &query_timeout)?,
        max_concurrent_tail_requests,
        deletion_mode: match deletion_mode.as_str() {
            "filter-only" => DeletionMode::FilterOnly,
            "disabled" => DeletionMode::Disabled,
            _ => DeletionMode::FilterAndDelete,
        },
    };
    // Offsets within a message are 32 bits wide.
    if limits.max_body_size > 1 << 30 || limits.max_body_size == 0 {
        let message = format!("{max_body_size:?} is not between 1B and 1GiB");
        return Err(("loki.limits.max_body_size", message));
    }
    if limits.max_line_size > limits.max_body_size || limits.max_line_size == 0 {
        let message = format!("{max_line_size:?} is not between 1B and max_body_size");
        return Err(("loki.limits.max_line_size", message));
    }
    if limits.query_timeout.is_zero() {
        return Err((
            "loki.limits.query_timeout",
            "is 0: no query could be answered".into(),
        ));
    }
    Ok(Loki {
        listen: address("loki.listen", &listen)?,
        tenancy,
        discover_service_name,
        discover_log_levels,
        patterns,
        otlp_resource_labels,
        delete_request_cancel_period: duration(
            "loki.delete_request_cancel_period",
            &delete_request_cancel_period,
        )?,
        limits,
    })
}

fn resolve_ui(base_path: &str, dir: String, config: String) -> Resolved<Ui> {
    let trimmed = if base_path == "/" { "" } else { base_path };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    let mut names = trimmed.split('/');
    let from_root = names.next() == Some("");
    let all_plain = names
        .all(|name| !name.is_empty() && name != "." && name != ".." && name.chars().all(plain));
    if !from_root || !all_plain {
        let message = format!("{base_path:?} is not a path such as \"/\" or \"/jaeger\"");
        return Err(("jaeger.query.base_path", message));
    }
    let key = "jaeger.query.ui_config";
    if !config.is_empty() && dir.is_empty() {
        return Err((key, "has no effect without jaeger.query.ui_dir".into()));
    }
    if !config.is_empty() && !config.ends_with(".json") && !config.ends_with(".js") {
        return Err((key, format!("{config:?} is not named .json or .js")));
    }
    let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    Ok(Ui {
        dir: path(dir),
        config: path(config),
        base_path: trimmed.to_owned(),
    })
}

fn resolve_sampling(sampling: file::JaegerSampling) -> Resolved<Sampling> {
    let file::JaegerSampling {
        r#type,
        strategies_file,
        reload_interval,
        adaptive,
    } = sampling;
    let reload_interval = optional_duration("jaeger.sampling.reload_interval", &reload_interval)?;
    let adaptive = resolve_adaptive(adaptive)?;
    let file_key = "jaeger.sampling.strategies_file";
    if strategies_file.starts_with("http://") || strategies_file.starts_with("https://") {
        let message = format!(
            "{strategies_file:?}: a URL is not read; have a timer fetch it into a file, and name that"
        );
        return Err((file_key, message));
    }
    match (r#type.as_str(), strategies_file.as_str()) {
        ("adaptive", "") => Ok(Sampling::Adaptive(adaptive)),
        ("adaptive", _) => {
            let message =
                "is not read when jaeger.sampling.type is \"adaptive\"; leave one of them out";
            Err((file_key, message.into()))
        }
        (_, path) => Ok(Sampling::File {
            path: (!path.is_empty()).then(|| path.into()),
            reload_interval,
        }),
    }
}

fn resolve_adaptive(adaptive: file::JaegerAdaptive) -> Resolved<AdaptiveSampling> {
    let file::JaegerAdaptive {
        target_samples_per_second,
        delta_tolerance,
        buckets_for_calculation,
        calculation_interval,
        aggregation_buckets,
        delay,
        initial_sampling_probability,
        min_sampling_probability,
        min_samples_per_second,
    } = adaptive;
    let interval_key = "jaeger.sampling.adaptive.calculation_interval";
    let adaptive = AdaptiveSampling {
        target_samples_per_second,
        delta_tolerance,
        buckets_for_calculation,
        calculation_interval: duration(interval_key, &calculation_interval)?,
        aggregation_buckets,
        delay: duration("jaeger.sampling.adaptive.delay", &delay)?,
        initial_sampling_probability,
        min_sampling_probability,
        min_samples_per_second,
    };
    let fits = |key: &'static str, fits: bool, wanted: &str| match fits {
        true => Ok(()),
        false => Err((key, format!("is not {wanted}"))),
    };
    let interval = adaptive.calculation_interval;
    fits(
        interval_key,
        interval >= Duration::from_secs(1),
        "1s or more",
    )?;
    fits(
        "jaeger.sampling.adaptive.delay",
        adaptive.delay <= 100 * interval,
        "at most 100 times calculation_interval",
    )?;
    fits(
        "jaeger.sampling.adaptive.aggregation_buckets",
        (1..=100).contains(&aggregation_buckets),
        "between 1 and 100",
    )?;
    fits(
        "jaeger.sampling.adaptive.buckets_for_calculation",
        (1..=aggregation_buckets).contains(&buckets_for_calculation),
        "between 1 and aggregation_buckets",
    )?;
    fits(
        "jaeger.sampling.adaptive.target_samples_per_second",
        target_samples_per_second > 0.0,
        "above 0",
    )?;
    fits(
        "jaeger.sampling.adaptive.min_sampling_probability",
        min_sampling_probability > 0.0 && min_sampling_probability <= 1.0,
        "above 0 and at most 1",
    )?;
    fits(
        "jaeger.sampling.adaptive.initial_sampling_probability",
        (min_sampling_probability..=1.0).contains(&initial_sampling_probability),
        "between min_sampling_probability and 1",
    )?;
    Ok(adaptive)
}

fn resolve_retention(tables: Vec<file::Retention>) -> Resolved<Retention> {
    let mut logs = Vec::new();
    let mut traces: Vec<(i64, Option<Duration>)> = Vec::new();
    for table in tables {
        let file::Retention {
            signal,
            selector,
            period,
            priority,
        } = table;
        let period = file::retention_period(&period).map_err(|what| ("retention.period", what))?;
        match signal.as_str() {
            "traces" => traces.push((priority, period)),
            _ => logs.push(LogRetention {
                selector,
                period,
                priority,
            }),
        }
    }
    // As among rules for logs: the highest priority, then the shortest.
    let holds = traces.into_iter().min_by_key(|(priority, period)| {
        (
            std::cmp::Reverse(*priority),
            period.unwrap_or(Duration::MAX),
        )
    });
    Ok(Retention {
        logs,
        traces: holds.map(|(_, period)| period),
    })
}

fn resolve_files(files: file::Files) -> FilesOptions {
    let file::Files {
        paths,
        exclude,
        start,
        labels,
    } = files;
    FilesOptions {
        paths,
        exclude,
        labels: labels.into_iter().collect(),
        start: if start == "end" {
            StartAt::End
        } else {
            StartAt::Beginning
        },
    }
}

fn size(key: &'static str, text: &str) -> Resolved<u64> {
    units::parse_size(text).ok_or_else(|| (key, format!("{text:?} is not {}", units::SIZE_FORM)))
}

fn duration(key: &'static str, text: &str) -> Resolved<Duration> {
    units::parse_duration(text)
        .ok_or_else(|| (key, format!("{text:?} is not {}", units::DURATION_FORM)))
}

/// "" and 0 mean that there is no limit.
fn optional_duration(key: &'static str, text: &str) -> Resolved<Option<Duration>> {
    if text.is_empty() {
        return Ok(None);
    }
    duration(key, text).map(|d| (!d.is_zero()).then_some(d))
}

fn address(key: &'static str, text: &str) -> Resolved<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_address(text)
        .map(Some)
        .map_err(|message| (key, message))
}

/// `127.0.0.1:3100`, `[::1]:3100`, `localhost:3100`, or `:3100` for all addresses.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    let port_is_number = full
        .rsplit_once(':')
        .is_some_and(|(_, p)| p.parse::<u16>().is_ok());
    let wrong =
        || format!("{text:?} is not an address such as \"127.0.0.1:3100\", or \"\" for none");
    if !port_is_number {
        return Err(wrong());
    }
    full.to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .ok_or_else(wrong)
}

/// Defaults, then the file, then `overrides`; all of them checked before.
fn layer(text: &str, overrides: &[(&'static Key, Written)]) -> Result<File, config::ConfigError> {
    let mut builder = config::Config::builder();
    for key in KEYS {
        builder = match key.default {
            Fallback::Text(text) => builder.set_default(key.path, text)?,
            Fallback::Bool(value) => builder.set_default(key.path, value)?,
            Fallback::Number(number) => builder.set_default(key.path, number)?,
            Fallback::Decimal(number) => builder.set_default(key.path, number)?,
            Fallback::Names(names) => builder.set_default(key.path, names.to_vec())?,
        };
    }
    builder = builder.add_source(config::File::from_str(text, config::FileFormat::Toml));
    for (key, value) in overrides {
        builder = match value {
            Written::Text(text) => builder.set_override(key.path, text.as_str())?,
            Written::Bool(value) => builder.set_override(key.path, *value)?,
            Written::Number(number) => builder.set_override(key.path, *number)?,
            Written::Decimal(number) => builder.set_override(key.path, *number)?,
            Written::List(names) => builder.set_override(key.path, names.clone())?,
            Written::Other(_) => builder, // no key takes it, so the check refused it
        };
    }
    builder.build()?.try_deserialize()
}

impl ConfigErrors {
    fn one(place: String, key: &str, message: String) -> Self {
        Self(vec![ConfigError {
            place,
            key: key.into(),
            message,
        }])
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests;
