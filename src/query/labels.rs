//! Which labels, values and streams there are, and how much data they have.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::answer::{IndexStats, QueryError};
use super::prune::internal;
use crate::model::{Labels, Matcher, StreamId, TimeRange};
use crate::store::chunk::ChunkReader;
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
    let snapshot = store.logs(range, Some(&ids)).map_err(internal)?;
    let mut found = Vec::new();
    for head in &snapshot.heads {
        found.extend(wanted.remove(&head.stream.id));
    }
    for day in snapshot.days.iter().rev() {
        for meta in day.chunks.iter() {
            if wanted.is_empty() {
                return Ok(found);
            }
            if meta.overlaps(range) {
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
    let ids: HashSet<StreamId> = store
        .select(tenant, matchers)
        .into_iter()
        .map(|s| s.id)
        .collect();
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
            if range.covers(meta.min, meta.max) {
                add(meta.stream, u64::from(meta.lines), meta.line_bytes);
                continue;
            }
            let read = day.partition.data(meta.number, |bytes| {
                let chunk = ChunkReader::new(bytes)?;
                chunk.times(&mut scratch, &mut times)?;
                chunk.ends(&mut scratch, &mut ends)
            });
            match read {
                Ok(Ok(())) => {
                    let (entries, bytes) = count(&times, &ends, range);
                    add(meta.stream, entries, bytes);
                }
                Ok(Err(what)) => {
                    let place = &day.partition.name;
                    return Err(internal(StoreError::corrupt(place.as_str(), what)));
                }
                Err(StoreError::Gone(_)) => {}
                Err(error) => return Err(internal(error)),
            }
        }
    }
    for head in &snapshot.heads {
        let (mut entries, mut bytes) = (0, 0);
        for block in &head.blocks {
            let (n, size) = count(&block.at, &block.ends, range);
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
