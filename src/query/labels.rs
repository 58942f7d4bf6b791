//! Which labels, values and streams there are, and how much data they have.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::answer::{IndexStats, QueryError};
use super::prune::internal;
use crate::model::{Labels, Matcher, StreamId, TimeRange};
use crate::store::chunk::{ChunkReader, LineBlock};
use crate::store::deletion::{Deletion, Left, any_of};
use crate::store::partition::Read;
use crate::store::{Store, StoreError, Stream};

/// The tenant's streams that match and have data in `range`.
pub fn streams(
    store: &Store,
    tenant: &str,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Vec<Arc<Stream>>, QueryError> {
    let mut wanted: HashMap<StreamId, Arc<Stream>> = store
        .select(tenant, matchers)
        .into_iter()
        .map(|s| (s.id, s))
        .collect();
    if wanted.is_empty() || range.is_empty() {
        return Ok(Vec::new());
    }
    let ids: HashSet<StreamId> = wanted.keys().copied().collect();
    let snapshot = match store.logs(range, Some(&ids)) {
        // Whole days are as exact as can be had then.
        Err(StoreError::Memory(_)) => {
            let has = store.streams_of_days(range);
            return Ok(wanted.into_values().filter(|s| has(s.id)).collect());
        }
        snapshot => snapshot.map_err(internal)?,
    };
    let mut found = Vec::new();
    for head in &snapshot.heads {
        found.extend(wanted.remove(&head.stream.id));
    }
    for day in snapshot.days.iter().rev() {
        for meta in day.chunks.iter() {
            if wanted.is_empty() {
                return Ok(found);
            }
            if !meta.overlaps(range) {
                continue;
            }
            // A request that decides line by line may leave nothing as well: until it is
            // processed its streams are still named.
            let left = |stream: &Arc<Stream>| snapshot.left(stream, meta);
            if !matches!(wanted.get(&meta.stream).map(left), Some(Left::Nothing)) {
                found.extend(wanted.remove(&meta.stream));
            }
        }
    }
    Ok(found)
}

/// Sorted names of labels.
pub fn names(streams: &[Arc<Stream>]) -> Vec<Arc<str>> {
    let names: BTreeSet<&Arc<str>> = streams
        .iter()
        .flat_map(|s| s.labels.pairs().iter().map(|(name, _)| name))
        .collect();
    names.into_iter().cloned().collect()
}

/// Sorted values of one label.
pub fn values(streams: &[Arc<Stream>], name: &str) -> Vec<Arc<str>> {
    let values: BTreeSet<&str> = streams.iter().filter_map(|s| s.labels.get(name)).collect();
    values.into_iter().map(Arc::from).collect()
}

/// Label sets that any of the selectors matches, sorted.
pub fn series(
    store: &Store,
    tenant: &str,
    range: TimeRange,
    selectors: &[Vec<Matcher>],
) -> Result<Vec<Labels>, QueryError> {
    let mut all = BTreeSet::new();
    for matchers in selectors {
        all.extend(
            streams(store, tenant, matchers, range)?
                .iter()
                .map(|s| s.labels.clone()),
        );
    }
    if selectors.is_empty() {
        all.extend(
            streams(store, tenant, &[], range)?
                .iter()
                .map(|s| s.labels.clone()),
        );
    }
    Ok(all.into_iter().collect())
}

/// Exact figures for a selector's data in `range`; a head counts as one chunk.
pub fn index_stats(
    store: &Store,
    tenant: &str,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<IndexStats, QueryError> {
    let by_id: HashMap<StreamId, Arc<Stream>> = store
        .select(tenant, matchers)
        .into_iter()
        .map(|s| (s.id, s))
        .collect();
    let ids: HashSet<StreamId> = by_id.keys().copied().collect();
    let mut stats = IndexStats::default();
    if ids.is_empty() || range.is_empty() {
        return Ok(stats);
    }
    let snapshot = store.logs(range, Some(&ids)).map_err(internal)?;
    let mut streams = HashSet::new();
    let mut add = |stream: StreamId, entries: u64, bytes: u64| {
        if entries > 0 {
            streams.insert(stream);
            stats.chunks += 1;
            stats.entries += entries;
            stats.bytes += bytes;
        }
    };
    let (mut scratch, mut times, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for day in &snapshot.days {
        for meta in day
            .chunks
            .iter()
            .filter(|m| m.overlaps(range) && ids.contains(&m.stream))
        {
            let stream = &by_id[&meta.stream];
            let deletions = match snapshot.left(stream, meta) {
                Left::All if range.covers(meta.min, meta.max) => {
                    add(meta.stream, u64::from(meta.lines), meta.line_bytes);
                    continue;
                }
                Left::All => Vec::new(),
                Left::Nothing => continue,
                Left::Lines(deletions) => deletions,
            };
            let read = day
                .partition
                .read(meta.number, |bytes| -> Result<_, String> {
                    let chunk = ChunkReader::new(bytes)?;
                    if !deletions.is_empty() {
                        return Ok(count_left(&chunk.lines()?, &deletions, stream, range));
                    }
                    chunk.times(&mut scratch, &mut times)?;
                    chunk.ends(&mut scratch, &mut ends)?;
                    Ok(count(&times, &ends, range))
                });
            if let Read::Whole((entries, bytes)) = read.map_err(internal)? {
                add(meta.stream, entries, bytes);
            }
        }
    }
    for head in &snapshot.heads {
        let (mut entries, mut bytes) = (0, 0);
        for block in &head.blocks {
            let (n, size) = if head.deletions.is_empty() {
                count(&block.at, &block.ends, range)
            } else {
                count_left(block, &head.deletions, &head.stream, range)
            };
            entries += n;
            bytes += size;
        }
        add(head.stream.id, entries, bytes);
    }
    stats.streams = streams.len() as u64;
    Ok(stats)
}

/// Lines in `range` and their bytes.
fn count(times: &[i64], ends: &[u32], range: TimeRange) -> (u64, u64) {
    let (mut entries, mut bytes, mut start) = (0, 0, 0);
    for (at, end) in times.iter().zip(ends) {
        if range.contains(*at) {
            entries += 1;
            bytes += u64::from(end - start);
        }
        start = end + 1;
    }
    (entries, bytes)
}

/// Lines in `range` that no delete request takes, and their bytes.
fn count_left(
    block: &LineBlock,
    deletions: &[Arc<Deletion>],
    stream: &Stream,
    range: TimeRange,
) -> (u64, u64) {
    let mut is_deleted = any_of(deletions, &stream.labels);
    let (mut entries, mut bytes) = (0, 0);
    for i in 0..block.len() {
        let (at, line) = (block.at[i], block.line(i));
        if range.contains(at) && !is_deleted(at, line, block.metadata_of(i)) {
            entries += 1;
            bytes += line.len() as u64;
        }
    }
    (entries, bytes)
}
