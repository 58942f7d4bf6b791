//! Builds every part from the configuration, starts them, and stops them in reverse.

pub mod data;
mod jaeger;
mod readers;
mod retention;
mod sinks;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use futures::FutureExt;

use crate::config::{self, Config, DeletionMode, Loaded};
use crate::ingest::limits::LogLimits;
use crate::ingest::{Admission, Discovery, Ingest, IngestMetrics};
use crate::protocol::loki::push::DecodeLimits;
use crate::protocol::otlp::logs::Mapping;
use crate::query::{self, Querier, QueryLimits};
use crate::runtime::clock::Clock;
use crate::runtime::heap;
use crate::runtime::permits::Budget;
use crate::runtime::pool::Pool;
use crate::runtime::shutdown;
use crate::server::admin::{self, Admin, Readiness, ServiceState};
use crate::server::http::{BodyMemory, HttpMetrics, bounded, layers};
use crate::server::jaeger::admin::JaegerAdmin;
use crate::server::jaeger::{
    agent, collector, query_grpc, query_http, query_v3, sampling, storage, transform,
};
use crate::server::signals::{Asked, Signals};
use crate::server::spans::SpanMetrics;
use crate::server::{self, Listeners, loki, notify, otlp, zipkin};
use crate::source::files::{FilesMetrics, FollowOptions, Follower};
use crate::store::retention::Rules;
use crate::store::{self, Durability, Store};
use crate::telemetry::log::{self, LogLevel};
use crate::telemetry::metrics::{Gauge, Metrics};
use jaeger::Reloads;
use sinks::StoreSink;

/// The disk failed a promise (`EX_IOERR`): start again and recover by replay.
const EXIT_IO: i32 = 74;
/// Threads for sockets. CPU work runs on the pool.
const SOCKET_THREADS: usize = 2;
/// Threads for sealing and scanning at most: one per core of a small machine.
const MAX_POOL_THREADS: usize = 4;
/// As Loki has it; clients ask again, from where they were.
const MAX_TAIL_DURATION: Duration = Duration::from_secs(3600);
/// A stop that takes longer is given up; the journal has everything.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Prints what a data directory holds.
pub fn inspect(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    out.write_all(store::inspect::describe(path)?.as_bytes())?;
    Ok(())
}

/// Runs the server until it is told to stop.
pub fn serve(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    let log_level = log::init(&config.log.level, config.log.format)
        .map_err(|e| anyhow::anyhow!("log.level: {e}"))?;
    fail_points();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SOCKET_THREADS)
        .thread_name("sockets")
        // What blocks runs on threads of its own; this bounds what axum might start.
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(run(loaded, log_level));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Test builds take fail points from the environment: FAILPOINTS=name=action;…, and
/// KILLPOINTS=name=n;…, where the process is killed when it comes there for the n-th time.
fn fail_points() {
    if !fail::has_failpoints() {
        return;
    }
    // Lives as long as the process: dropping it would switch them off again.
    std::mem::forget(fail::FailScenario::setup());
    let points = std::env::var("KILLPOINTS").unwrap_or_default();
    for (name, times) in points.split(';').filter_map(|point| point.split_once('=')) {
        let left = std::sync::atomic::AtomicI64::new(times.parse().unwrap_or(1));
        let visit = move || {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                let this = rustix::process::getpid();
                let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            }
        };
        if let Err(error) = fail::cfg_callback(name, visit) {
            tracing::error!("KILLPOINTS: {name}: {error}");
        }
    }
}

async fn run(loaded: Loaded, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let Loaded {
        config,
        effective,
        file,
    } = loaded;
    match &file {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file: defaults and environment"),
    }
    let mut signals = Signals::listen().context("listening for signals")?;
    let mut listeners = bind(&config)?;

    let clock = Clock::system();
    let metrics = Metrics::default();
    let budget = Budget::new(usize::try_from(config.memory.limit).unwrap_or(usize::MAX));
    warn_of_cgroup(budget.limit());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = Pool::new(threads.min(MAX_POOL_THREADS)).context("starting threads")?;
    let rules = retention::rules(&config)?;
    let store = open_store(&config, rules.clone(), &clock, &pool, &budget, &metrics)?;

    let limits = log_limits(&config, &rules);
    let discovery = Discovery::of(config.loki.discover_service_name.clone());
    let sink = StoreSink {
        store: store.clone(),
        memory: budget.account("ingest"),
        datagrams: budget.account("datagrams"),
        files_refused: metrics.refusals(
            "files_refused_lines",
            "Lines of followed files not accepted, by reason",
        ),
        files_admission: Arc::new(Admission::new(limits.clone(), discovery.clone())),
        clock: clock.clone(),
    };
    let querier = Querier::new(
        store.clone(),
        pool.clone(),
        QueryLimits {
            timeout: config.loki.limits.query_timeout,
            // 0 is no limit, as in Loki.
            max_series: match config.loki.limits.max_query_series {
                0 => usize::MAX,
                limit => to_usize(limit),
            },
            concurrent: 2 * pool.threads(),
            max_result_bytes: budget.limit() / 5,
            kept_parts: to_usize(config.memory.kept_results).min(budget.limit() / 4),
            discover_levels: config.loki.discover_log_levels,
        },
        &budget,
        &metrics,
    );
    let http = HttpMetrics::new(&metrics);
    let (trigger, shutdown) = shutdown::channel();
    let stopping = Arc::new(AtomicBool::new(false));
    let gauges = MemoryGauges::new(&metrics, &budget);

    let reloads = Reloads::open(&config, &metrics);
    reloads.watch(&config, &shutdown);
    let admin = Arc::new(Admin {
        readiness: readiness(&store, &stopping, &reloads),
        metrics: metrics.clone(),
        before_metrics: Box::new({
            let budget = budget.clone();
            move || gauges.update(&budget)
        }),
        flush: Box::new({
            let store = store.clone();
            move || {
                let store = store.clone();
                async move { store.flush().await.map_err(|e| e.to_string()) }.boxed()
            }
        }),
        link_state: Box::new({
            let store = store.clone();
            move || {
                let store = store.clone();
                let dir = async move { store.link_state().await };
                dir.map(|dir| match dir {
                    // Whoever copies may be in another directory.
                    Ok(dir) => Ok(std::path::absolute(&dir)
                        .unwrap_or(dir)
                        .display()
                        .to_string()),
                    Err(error) => Err(error.to_string()),
                })
                .boxed()
            }
        }),
        release_state: Box::new({
            let store = store.clone();
            move |name| store.release_state(name).map_err(|e| e.to_string())
        }),
        config: effective,
        services: services(&store, &stopping, &listeners, &config),
        log_level: Box::new({
            let level = log_level.clone();
            move || level.now()
        }),
        set_log_level: Box::new(move |text| log_level.set(text)),
    });
    let max_push = to_usize(config.loki.limits.max_body_size);
    let loki_options = loki::Options {
        tenancy: config.loki.tenancy,
        max_push_bytes: max_push,
        decode: DecodeLimits {
            max_text: max_push,
            max_parts: max_push,
        },
        otlp: Arc::new(Mapping::new(
            &config.loki.otlp_resource_labels,
            !config.loki.discover_service_name.is_empty(),
        )),
        max_entries_limit: to_usize(config.loki.limits.max_entries_limit_per_query),
        max_query_length: config.loki.limits.max_query_length,
        max_query_series: to_usize(config.loki.limits.max_query_series),
        explore: loki::explore::ExploreOptions {
            patterns: config.loki.patterns,
            discover_log_levels: config.loki.discover_log_levels,
            discover_service_name: config.loki.discover_service_name.clone(),
            query_timeout: config.loki.limits.query_timeout,
            retention: config.storage.retention,
            ..loki::explore::ExploreOptions::default()
        },
        ..loki::Options::default()
    };
    let tails = loki::tail::TailApi::new(
        querier.clone(),
        loki_options.clone(),
        loki::tail::TailLimits {
            concurrent: to_usize(config.loki.limits.max_concurrent_tail_requests),
            max_duration: MAX_TAIL_DURATION,
        },
        clock.clone(),
        shutdown.clone(),
        loki::tail::TailMetrics::new(&metrics),
    );
    let api = Arc::new(loki::Api {
        ingest: Ingest::new(
            Admission::new(limits, discovery).with_ages(retention::stream_ages(&config, rules)),
            sink.clone(),
            clock.clone(),
            IngestMetrics::new(&metrics),
        ),
        reader: querier.clone(),
        options: loki_options,
        pool: pool.clone(),
        clock: clock.clone(),
        memory: budget.account("ingest"),
        metrics: loki::LokiMetrics::new(&metrics),
    });
    let deletes = Arc::new(loki::delete::Deletes {
        keeper: querier.clone(),
        options: api.options.clone(),
        enabled: config.loki.limits.deletion_mode != DeletionMode::Disabled,
        clock: clock.clone(),
    });
    let exports = Arc::new(loki::export::ExportApi {
        begin: data::exporter(
            store.clone(),
            budget.account("queries"),
            config.loki.discover_log_levels,
        ),
        options: api.options.clone(),
        pool: pool.clone(),
    });
    let sink = Arc::new(sink);
    let (strategies, adaptive) = jaeger::strategies(&config, &reloads, &store, &metrics, &shutdown);
    let strategies = Arc::new(strategies);
    let spans = SpanMetrics::new(&metrics).with_adaptive(adaptive);
    let is_ready = readiness(&store, &stopping, &reloads);
    let jaeger_admin = JaegerAdmin {
        is_ready: Box::new(move || matches!(is_ready(), Readiness::Ready { .. })),
        spans: spans.clone(),
        clock: clock.clone(),
        since: clock.now(),
    };
    let collector = collector::CollectorOptions::default();
    let max_skew = config.jaeger.max_clock_skew_adjustment.as_millis();
    let query_options = query_http::QueryOptions {
        max_clock_skew_ms: u64::try_from(max_skew).unwrap_or(u64::MAX),
    };
    let otlp_options = otlp::OtlpOptions::default();
    // Doors that do not take memory for a body themselves, exactly, get it taken for them.
    let body_memory = || BodyMemory {
        account: budget.account("ingest"),
        max_body: otlp_options.max_body_bytes,
        patience: sinks::PATIENCE,
    };
    let logs = otlp::logs::LogsMetrics::new(&metrics);
    let otlp_http = otlp::router(sink.clone(), spans.clone(), &otlp_options);
    let otlp_http =
        bounded(otlp_http, body_memory()).merge(otlp::logs::router(api.clone(), logs.clone()));
    let max_message = otlp_options.max_body_bytes;
    let otlp_grpc = otlp::service(sink.clone(), spans.clone(), &otlp_options)
        .merge(otlp::logs::service(api.clone(), logs.clone(), max_message));
    let querier = Arc::new(querier);
    let routers: [(&'static str, Router); 11] = [
        (
            "loki.listen",
            loki::router(api.clone())
                .merge(loki::delete::router(deletes))
                .merge(loki::rules::router())
                .merge(loki::export::router(exports))
                .merge(loki::tail::router(tails.clone()))
                .merge(otlp::logs::loki_router(api, logs))
                .merge(admin::router(admin)),
        ),
        (
            "jaeger.agent.sampling",
            sampling::router(strategies.clone()),
        ),
        (
            "jaeger.collector.http",
            collector::router(sink.clone(), spans.clone(), strategies.clone(), &collector),
        ),
        (
            "jaeger.collector.grpc",
            collector::service(sink.clone(), spans.clone(), strategies, &collector),
        ),
        (
            "jaeger.collector.admin",
            server::jaeger::admin::router(jaeger_admin),
        ),
        ("otlp.http", otlp_http),
        ("otlp.grpc", otlp_grpc),
        (
            "zipkin.listen",
            zipkin::router(
                sink.clone(),
                spans.clone(),
                &zipkin::ZipkinOptions::default(),
            ),
        ),
        (
            "jaeger.query.http",
            server::jaeger::ui::router(
                reloads.ui(),
                query_http::router(querier.clone(), clock.clone(), &query_options)
                    .merge(query_v3::router(querier.clone(), &query_options))
                    .merge(transform::router()),
            ),
        ),
        (
            "jaeger.query.grpc",
            query_grpc::service(querier.clone(), clock.clone(), &query_options),
        ),
        (
            "jaeger.storage.grpc",
            storage::service(sink.clone(), querier, spans.clone()),
        ),
    ];
    let addresses = listeners.addresses();
    let mut tasks = vec![tokio::spawn(tails.ended())];
    for (key, router) in routers {
        let router = match key {
            "loki.listen" | "otlp.http" => router,
            _ => bounded(router, body_memory()),
        };
        let router = layers(router, key, max_push, &http);
        tasks.extend(listeners.serve(key, router, shutdown.clone()));
    }
    for (key, encoding) in [
        ("jaeger.agent.compact", agent::Encoding::Compact),
        ("jaeger.agent.binary", agent::Encoding::Binary),
        ("jaeger.agent.zipkin", agent::Encoding::Zipkin),
    ] {
        if let Some(socket) = listeners.take_udp(key) {
            let (sink, spans, shutdown) = (sink.clone(), spans.clone(), shutdown.clone());
            tasks.push(tokio::spawn(async move {
                agent::run_agent(socket, encoding, sink, spans, shutdown).await;
            }));
        }
    }
    for (key, address) in addresses {
        tracing::info!(%address, "listening: {key}");
    }
    notify::ready("accepting pushes, replaying the journal");
    tokio::spawn({
        let store = store.clone();
        async move {
            while !store.is_recovered() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            notify::status("accepting pushes");
        }
    });
    tokio::spawn(notify::watchdog(|| true, shutdown.clone()));

    let follower = follow_files(&config, &store, sink, &clock, &metrics).await?;
    loop {
        match signals.next().await {
            Asked::Stop => break,
            Asked::Flush => match store.flush().await {
                Ok(()) => tracing::info!("flushed"),
                Err(error) => tracing::error!("flush failed: {error}"),
            },
            Asked::Reload => {
                let reloads = reloads.clone();
                let _ = tokio::task::spawn_blocking(move || reloads.reload()).await;
                tracing::info!(
                    "SIGHUP: files that the configuration names were looked at; itself it is read at start only"
                );
            }
        }
    }
    tracing::info!("stopping");
    stopping.store(true, Ordering::Relaxed);
    notify::stopping();
    trigger.fire();
    let stop = async {
        if let Some(follower) = follower {
            // A thread that reads files: it ends after the batch in hand.
            let _ = tokio::task::spawn_blocking(move || follower.stop()).await;
        }
        for task in tasks {
            let _ = task.await;
        }
        let stopped = tokio::task::spawn_blocking(move || store.stop()).await;
        pool.stop();
        stopped
    };
    tokio::select! {
        stopped = tokio::time::timeout(STOP_PATIENCE, stop) => match stopped {
            Ok(Ok(Ok(()))) => {
                tracing::info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(panic)) => Err(panic.into()),
            Err(_) => {
                tracing::warn!("stopping takes too long: ending now, the journal has everything");
                Ok(ExitCode::SUCCESS)
            }
        },
        _ = signals.next() => {
            tracing::warn!("told to stop a second time: ending now, the journal has everything");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn bind(config: &Config) -> anyhow::Result<Listeners> {
    let jaeger = &config.jaeger;
    let tcp = [
        ("loki.listen", config.loki.listen),
        ("jaeger.agent.sampling", jaeger.agent_sampling),
        ("jaeger.collector.http", jaeger.collector_http),
        ("jaeger.collector.grpc", jaeger.collector_grpc),
        ("jaeger.collector.admin", jaeger.collector_admin),
        ("jaeger.query.http", jaeger.query_http),
        ("jaeger.query.grpc", jaeger.query_grpc),
        ("jaeger.storage.grpc", jaeger.storage_grpc),
        ("otlp.http", config.otlp.http),
        ("otlp.grpc", config.otlp.grpc),
        ("zipkin.listen", config.zipkin),
    ];
    let udp = [
        ("jaeger.agent.compact", jaeger.agent_compact),
        ("jaeger.agent.binary", jaeger.agent_binary),
        ("jaeger.agent.zipkin", jaeger.agent_zipkin),
    ];
    Ok(Listeners::bind(&tcp, &udp, server::Options::default())?)
}

fn open_store(
    config: &Config,
    retention_rules: Rules,
    clock: &Clock,
    pool: &Pool,
    budget: &Budget,
    metrics: &Metrics,
) -> anyhow::Result<Store> {
    let options = store::Options {
        path: config.storage.path.clone(),
        durability: match config.storage.durability {
            config::Durability::Sync => Durability::Sync,
            config::Durability::Flush => Durability::Flush,
        },
        retention: config.storage.retention,
        retention_rules,
        max_bytes: config.storage.max_bytes,
        min_free_bytes: config.storage.min_free_bytes,
        mine_patterns: config.loki.patterns,
        deletion: store::deletion::DeletionOptions {
            read: {
                let levels = config.loki.discover_log_levels;
                Arc::new(move |text| query::deletion::read_selection(text, levels))
            },
            cancel_period: config.loki.delete_request_cancel_period,
            erase: config.loki.limits.deletion_mode == DeletionMode::FilterAndDelete,
        },
        decoder: Arc::new(sinks::decode_record),
        on_failure: Arc::new(|error| {
            // Going on would mean acknowledging what may be lost.
            tracing::error!("fatal: {error}; ending, the next start replays the journal");
            std::process::exit(EXIT_IO);
        }),
        clock: clock.clone(),
        pool: pool.clone(),
        budget: budget.clone(),
        metrics: metrics.clone(),
    };
    Store::open(options).with_context(|| format!("storage.path {}", config.storage.path.display()))
}

fn log_limits(config: &Config, rules: &Rules) -> LogLimits {
    let l = &config.loki.limits;
    let defaults = LogLimits::default();
    // What retention would drop at once is refused instead.
    let longest = retention::longest(config, rules);
    let max_age = match (l.reject_old_samples_max_age, longest) {
        (Some(age), Some(retention)) => Some(age.min(retention)),
        (age, retention) => age.or(retention),
    };
    LogLimits {
        max_line_size: to_usize(l.max_line_size),
        max_label_names: to_usize(l.max_label_names_per_series),
        max_label_name_length: to_usize(l.max_label_name_length),
        max_label_value_length: to_usize(l.max_label_value_length),
        reject_older_than: max_age,
        creation_grace_period: Some(l.creation_grace_period),
        ingestion_rate: l.ingestion_rate_mb << 20,
        per_stream_rate: l.per_stream_rate,
        max_streams: to_usize(l.max_streams),
        ..defaults
    }
}

fn readiness(
    store: &Store,
    stopping: &Arc<AtomicBool>,
    reloads: &Reloads,
) -> Box<dyn Fn() -> Readiness + Send + Sync> {
    let (store, stopping, reloads) = (store.clone(), stopping.clone(), reloads.clone());
    Box::new(move || {
        if stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady("shutting down".into());
        }
        let mut degraded = store.degraded();
        if !store.is_recovered() {
            degraded.push("replaying the journal: queries may miss lines".into());
        }
        if let Some(no_room) = store.no_room() {
            degraded.push(format!("{no_room}: nothing is accepted"));
        }
        degraded.extend(reloads.problems());
        Readiness::Ready { degraded }
    })
}

/// The parts that run, and how they are: what `/services` shows.
fn services(
    store: &Store,
    stopping: &Arc<AtomicBool>,
    listeners: &Listeners,
    config: &Config,
) -> Box<dyn Fn() -> Vec<(&'static str, ServiceState)> + Send + Sync> {
    let (store, stopping) = (store.clone(), stopping.clone());
    let follows = !config.files.is_empty();
    let addresses = listeners.addresses().into_iter();
    let listeners: Vec<&'static str> = addresses.map(|(key, _)| key).collect();
    Box::new(move || {
        let stopping = stopping.load(Ordering::Relaxed);
        let state = |ready: bool| match (stopping, ready) {
            (true, _) => ServiceState::Stopping,
            (false, true) => ServiceState::Running,
            (false, false) => ServiceState::Starting,
        };
        let recovered = store.is_recovered();
        let mut all = vec![
            (
                "store",
                if store.is_failed() {
                    ServiceState::Failed
                } else {
                    state(recovered)
                },
            ),
            ("querier", state(true)),
        ];
        if follows {
            // Files are read once their positions are known.
            all.push(("files", state(recovered)));
        }
        all.extend(listeners.iter().map(|key| (*key, state(true))));
        all
    })
}

/// Starts to follow files, once their positions are known.
async fn follow_files(
    config: &Config,
    store: &Store,
    sink: Arc<StoreSink>,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<Option<Follower>> {
    if config.files.is_empty() {
        return Ok(None);
    }
    while !store.is_recovered() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = FollowOptions {
        max_line_size: to_usize(config.loki.limits.max_line_size),
        ..FollowOptions::default()
    };
    let follower = Follower::start(
        &config.files,
        options,
        sink,
        clock.clone(),
        FilesMetrics::new(metrics),
        tokio::runtime::Handle::current(),
    );
    Ok(Some(follower.context("[[files]]")?))
}

/// Says so when the machine gives less than the budget wants.
fn warn_of_cgroup(limit: usize) {
    for file in ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.high"] {
        let Ok(text) = std::fs::read_to_string(file) else {
            continue;
        };
        if let Ok(bytes) = text.trim().parse::<u64>()
            && bytes < limit as u64 + (limit as u64) / 4
        {
            tracing::warn!(
                bytes,
                limit,
                "{file} leaves too little for memory.limit; lower memory.limit to {}",
                bytes * 4 / 5
            );
        }
    }
}

type ByAccount = [(&'static str, &'static str); 1];

/// Who holds what of the memory budget.
struct MemoryGauges {
    used: crate::telemetry::metrics::Family<ByAccount, Gauge>,
    peak: crate::telemetry::metrics::Family<ByAccount, Gauge>,
    resident: Gauge,
    allocated: Gauge,
}

impl MemoryGauges {
    fn new(metrics: &Metrics, budget: &Budget) -> Self {
        let limit = metrics.gauge("memory_limit_bytes", "The memory budget");
        limit.set(i64::try_from(budget.limit()).unwrap_or(i64::MAX));
        Self {
            used: metrics.register(
                "memory_used_bytes",
                "What each account holds of the budget",
                crate::telemetry::metrics::Family::default(),
            ),
            peak: metrics.register(
                "memory_peak_bytes",
                "What each account held at most",
                crate::telemetry::metrics::Family::default(),
            ),
            resident: metrics.gauge(
                "process_resident_memory_bytes",
                "Memory that the process occupies",
            ),
            allocated: metrics.gauge(
                "allocated_bytes",
                "What the process has allocated, mapped files and stacks not among it",
            ),
        }
    }

    fn update(&self, budget: &Budget) {
        for usage in budget.usage() {
            let account = [("account", usage.account)];
            self.used.get_or_create(&account).set(usage.used as i64);
            self.peak.get_or_create(&account).set(usage.peak as i64);
        }
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: Option<i64> = statm.split(' ').nth(1).and_then(|n| n.parse().ok());
        self.resident.set(pages.unwrap_or(0) * 4096);
        let allocated = heap::allocated().unwrap_or(0);
        self.allocated
            .set(i64::try_from(allocated).unwrap_or(i64::MAX));
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn replay_maps_resources_by_the_list_that_is_the_default() {
        let default = crate::config::keys::OTLP_RESOURCE_LABELS;
        assert_eq!(default, crate::protocol::otlp::logs::RESOURCE_LABELS);
    }
}
