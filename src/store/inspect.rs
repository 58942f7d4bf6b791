//! A read-only look at a data directory, whether a process has it open or not.

use std::fmt::Write;
use std::path::Path;

use super::chunk::ChunkMeta;
use super::error::StoreError;
use super::index::DayIndex;
use super::journal::append::list_segments;
use super::kv::Kv;
use super::layout::{LOW_WATER_KEY, Layout, META_FAMILY, Signal, number_of_key, prefix};
use super::rewrite::generation::Families;
use super::span::BlockMeta;

/// Describes a data directory as text: format, journal, days. What a running process has only
/// in memory is not shown.
pub fn describe(path: &Path) -> Result<String, StoreError> {
    let layout = Layout::new(path);
    let mut out = String::new();
    let format = layout.format_file();
    let version =
        std::fs::read_to_string(&format).map_err(|e| StoreError::io(&format, "read", e))?;
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "directory {}, format {}",
        path.display(),
        version.trim()
    );

    let segments = list_segments(&layout.journal_dir())?;
    let bytes: u64 = segments.iter().map(|s| s.bytes).sum();
    let _ = writeln!(out, "journal: {} segments, {bytes} bytes", segments.len());
    for segment in &segments {
        let _ = writeln!(
            out,
            "  from record {}: {} bytes",
            segment.first_seq, segment.bytes
        );
    }

    let kv = Kv::open_read_only(&layout.db_dir())?;
    let low_water = kv.get(META_FAMILY, LOW_WATER_KEY, |value| {
        value.try_into().map(u64::from_be_bytes).unwrap_or(0)
    })?;
    let _ = writeln!(
        out,
        "replay would begin at record {}",
        low_water.unwrap_or(0)
    );

    let families = Families::of(&kv, Kv::families(&layout.db_dir())?)?;
    for name in families.unknown {
        let _ = writeln!(out, "{name}: not a partition");
    }
    for name in families.stale {
        let _ = writeln!(out, "{name}: left by a rewriting, goes at the next start");
    }
    for (id, generation) in families.days {
        let name = id.family(generation);
        let (mut count, mut items, mut raw, mut stored, mut bad) = (0u64, 0u64, 0u64, 0u64, 0u64);
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        kv.scan(&name, &[prefix::META], |key, value| {
            let number = number_of_key(key).unwrap_or(0);
            count += 1;
            match id.signal {
                Signal::Logs => match ChunkMeta::decode(number, value) {
                    // Removed by a delete request.
                    Ok(meta) if meta.is_emptied() => count -= 1,
                    Ok(meta) => {
                        items += u64::from(meta.lines);
                        raw += meta.line_bytes;
                        stored += u64::from(meta.stored_bytes);
                        min = min.min(meta.min);
                        max = max.max(meta.max);
                    }
                    Err(_) => bad += 1,
                },
                Signal::Spans => match BlockMeta::decode(number, value) {
                    Ok(meta) => {
                        items += u64::from(meta.spans);
                        raw += meta.raw_bytes;
                        stored += u64::from(meta.stored_bytes);
                        min = min.min(meta.min_start);
                        max = max.max(meta.max_start);
                    }
                    Err(_) => bad += 1,
                },
            }
            true
        })?;
        let what = match id.signal {
            Signal::Logs => ("chunks", "lines"),
            Signal::Spans => ("blocks", "spans"),
        };
        let index = DayIndex::new(layout.index_of(&name));
        let index = match index.view() {
            Ok(Some(view)) => format!(
                "index: {} segments, complete below {}",
                view.segments(),
                view.indexed_below
            ),
            Ok(None) => "no index yet".to_owned(),
            Err(error) => format!("index can't be read: {error}"),
        };
        let _ = writeln!(
            out,
            "{name}: {count} {}, {items} {}, {raw} bytes raw, {stored} stored, {bad} unreadable, \
             from {min} to {max}; {index}",
            what.0, what.1
        );
    }
    Ok(out)
}
