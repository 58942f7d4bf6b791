//! What the command line does to data directories: verify, repair, export.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{open_store, sinks};
use crate::config::{Config, DeletionMode};
use crate::logql;
use crate::logql::ast::Expr;
use crate::protocol::loki::export::line;
use crate::protocol::otlp::{encode, render};
use crate::query::QueryError;
use crate::query::export::{LogExport, SpanExport};
use crate::runtime::clock::Clock;
use crate::runtime::permits::{Account, Budget};
use crate::runtime::pool::Pool;
use crate::server::loki::export::{Begin, ExportRequest, ExportSignal, Pieces};
use crate::store::layout::Layout;
use crate::store::options::Decoder;
use crate::store::retention::Rules;
use crate::store::{Store, recovery, repair, verify};
use crate::telemetry::metrics::Metrics;

/// Memory of an export beside what the store holds: a decoded chunk and its text as JSON.
const EXPORT_BYTES: usize = 2 << 20;

fn decoder() -> Decoder {
    Arc::new(sinks::decode_record)
}

/// Verifies a directory, and prints what is damaged. Whether nothing is.
pub fn verify(path: &Path, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut damaged = 0u64;
    let mut printed = Ok(());
    let checked = verify::directory(path, &decoder(), &mut |finding| {
        damaged += 1;
        if printed.is_ok() {
            printed = writeln!(out, "damaged: {finding}");
        }
    })?;
    printed?;
    writeln!(
        out,
        "read {} journal segments with {} records; {} days with {} chunks of {} lines and {} \
         blocks of {} spans; {} indices: {}",
        checked.segments,
        checked.records,
        checked.days,
        checked.chunks,
        checked.lines,
        checked.blocks,
        checked.spans,
        checked.indices,
        match damaged {
            0 => "nothing is damaged".to_owned(),
            n => format!("{n} damaged"),
        }
    )?;
    Ok(damaged == 0)
}

/// Repairs a directory, and prints what was done and lost. Whether all is whole now.
pub fn repair(path: &Path, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut printed = Ok(());
    let done = repair::directory(path, &decoder(), &mut |step| {
        if printed.is_ok() {
            printed = writeln!(out, "{step}");
        }
    })?;
    printed?;
    for finding in &done.left {
        writeln!(out, "still damaged: {finding}")?;
    }
    match (done.left.len(), done.lost.len()) {
        (0, 0) => writeln!(out, "whole; nothing was lost")?,
        (0, lost) => writeln!(out, "whole; {lost} things were lost")?,
        (left, _) => writeln!(out, "{left} things are still damaged")?,
    }
    Ok(done.left.is_empty())
}

/// Backs up a directory that no process has open.
pub fn backup(
    path: &Path,
    copy: &mut (dyn FnMut(&Path) -> anyhow::Result<()> + '_),
) -> anyhow::Result<()> {
    let _lock = recovery::lock(&Layout::new(path))?;
    copy(path)
}

/// Exports from a directory that no process has open. Its journal is read back first, as at
/// any start; nothing is dropped for its age.
pub fn export(config: &Config, request: ExportRequest, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut config = config.clone();
    config.storage.retention = None;
    config.storage.max_bytes = None;
    config.storage.min_free_bytes = 0;
    config.loki.limits.deletion_mode = DeletionMode::FilterOnly;
    if !config.storage.path.join("FORMAT").exists() {
        bail!("{}: is no data directory", config.storage.path.display());
    }
    let metrics = Metrics::default();
    let budget = Budget::new(usize::try_from(config.memory.limit).unwrap_or(usize::MAX));
    let pool = Pool::new(1).context("starting threads")?;
    let rules = Rules::default();
    let store = open_store(&config, rules, &Clock::system(), &pool, &budget, &metrics)?;
    while !store.is_recovered() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let begin = exporter(
        store.clone(),
        budget.account("queries"),
        config.loki.discover_log_levels,
    );
    let mut pieces = begin(request)?;
    let mut written = Ok(());
    while let Some(bytes) = pieces()? {
        written = out.write_all(&bytes);
        if written.is_err() {
            break;
        }
    }
    drop(pieces);
    let written = written.and_then(|()| out.flush());
    for line in store.degraded() {
        tracing::warn!("{line}");
    }
    store.stop()?;
    pool.stop();
    Ok(written?)
}

/// Whether a process has the directory open.
pub fn is_in_use(path: &Path) -> bool {
    verify::is_in_use(&Layout::new(path))
}

/// How exports of a store begin.
pub fn exporter(store: Store, memory: Account, discover_levels: bool) -> Begin {
    Box::new(move |request| {
        let permit = memory.try_take(EXPORT_BYTES);
        let permit = permit.map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
        let ExportRequest {
            query,
            range,
            signal,
            tenant,
        } = request;
        let invalid = |e: logql::ParseError| QueryError::Invalid(e.to_string());
        match signal {
            ExportSignal::Logs => {
                let Expr::Log(expr) = logql::parse(&query).map_err(invalid)? else {
                    let what = "a metric query has no lines; give a selector";
                    return Err(QueryError::Invalid(what.into()));
                };
                let export = LogExport::new(store.clone(), &tenant, expr, range, discover_levels);
                let mut export = export?;
                Ok(Box::new(move || {
                    let _held = &permit;
                    let Some(lines) = export.next_piece()? else {
                        warn_of(export.stats().damaged);
                        return Ok(None);
                    };
                    let mut out = Vec::new();
                    for l in &lines {
                        line(&mut out, l.at, &l.line, &l.stream, &l.structured, &l.parsed);
                    }
                    Ok(Some(out))
                }) as Pieces)
            }
            ExportSignal::Traces => {
                let selector = logql::parse_selector_or_all(&query).map_err(invalid)?;
                let mut export = SpanExport::new(&store, selector, range)?;
                Ok(Box::new(move || {
                    let _held = &permit;
                    let Some(spans) = export.next_piece()? else {
                        warn_of(export.damaged());
                        return Ok(None);
                    };
                    let mut out = Vec::new();
                    for span in &spans {
                        for message in encode::resource_spans([span]) {
                            out.extend_from_slice(b"{\"resourceSpans\":[");
                            out.extend_from_slice(render::resource_spans(&message).as_bytes());
                            out.extend_from_slice(b"]}\n");
                        }
                    }
                    Ok(Some(out))
                }) as Pieces)
            }
        }
    })
}

fn warn_of(damaged: u64) {
    if damaged > 0 {
        tracing::warn!("{damaged} damaged chunks or blocks are not in an export");
    }
}
