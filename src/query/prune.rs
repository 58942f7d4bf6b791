//! Which chunks and heads a query has to look at.
//!
//! Q1. What is ruled out holds no line that the query wants: selector, time, words and grams
//!     only prune. Whatever the index does not know counts as a candidate.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::answer::{QueryError, QueryStats};
use crate::model::need::Need;
use crate::model::{Matcher, StreamId, TimeRange, Timestamp};
use crate::runtime::pool::{Lane, Pool};
use crate::store::chunk::{ChunkMeta, StreamSum};
use crate::store::deletion::{Deletion, Left};
use crate::store::index::analyze::{FOLDS_TERM, OVERFLOW_TERM};
use crate::store::index::{ChunkFlags, FilterView, NeedlePlan, NumberSet};
use crate::store::partition::Partition;
use crate::store::snapshot::{HeadView, LogDay, LogSnapshot};
use crate::store::{Store, StoreError, Stream};

/// Filters of a day are read in one go when at least this share of its chunks is wanted.
const SCAN_FILTERS_SHARE: usize = 4;
/// Filters that are worth a task: some hundred µs.
const FILTERS_A_PART: usize = 256;

/// Something to read lines from.
#[derive(Clone)]
pub enum Unit {
    Chunk {
        partition: Arc<Partition>,
        meta: Arc<ChunkMeta>,
        stream: Arc<Stream>,
        /// Delete requests that decide line by line: the meta counts too many.
        deletions: Vec<Arc<Deletion>>,
    },
    /// Its view has its deletions.
    Head(HeadView),
}

impl Unit {
    pub fn stream(&self) -> &Arc<Stream> {
        match self {
            Self::Chunk { stream, .. } => stream,
            Self::Head(head) => &head.stream,
        }
    }

    /// Delete requests that decide line by line.
    pub fn deletions(&self) -> &[Arc<Deletion>] {
        match self {
            Self::Chunk { deletions, .. } => deletions,
            Self::Head(head) => &head.deletions,
        }
    }

    /// Time of its first line.
    pub fn min(&self) -> Timestamp {
        match self {
            Self::Chunk { meta, .. } => meta.min,
            Self::Head(head) => head.min,
        }
    }

    /// Time of its last line.
    pub fn max(&self) -> Timestamp {
        match self {
            Self::Chunk { meta, .. } => meta.max,
            Self::Head(head) => head.max,
        }
    }
}

/// A share of the streams that a query looks at. A list of all chunks that may not fit into memory
/// can be made part by part.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    number: u128,
    of: u128,
}

impl Part {
    pub const ALL: Self = Self { number: 0, of: 1 };

    /// Parts that each stream is in one of.
    pub fn each(of: usize) -> impl Iterator<Item = Self> {
        let of = of.max(1) as u128;
        (0..of).map(move |number| Self { number, of })
    }

    /// Ids are hashes: parts are of a size.
    fn holds(self, id: StreamId) -> bool {
        self.of == 1 || id.0 % self.of == self.number
    }

    fn select(
        self,
        store: &Store,
        tenant: &str,
        matchers: &[Matcher],
    ) -> HashMap<StreamId, Arc<Stream>> {
        let streams = store.select(tenant, matchers).into_iter();
        let streams = streams.filter(|stream| self.holds(stream.id));
        streams.map(|stream| (stream.id, stream)).collect()
    }
}

/// The units that a query has to look at, in order of arrival within each stream.
pub struct Candidates {
    pub units: Vec<Unit>,
    pub stats: QueryStats,
    pub as_of: AsOf,
}

/// The instant that candidates are of: everything of these streams that journal records
/// below `applied` hold.
#[derive(Default)]
pub struct AsOf {
    pub applied: u64,
    pub streams: HashSet<StreamId>,
}

/// Finds the units of a part of a selector's streams in `range` that may hold what is needed.
pub fn candidates(
    store: &Store,
    tenant: &str,
    matchers: &[Matcher],
    range: TimeRange,
    need: &Need,
    part: Part,
) -> Result<Candidates, QueryError> {
    let by_id = part.select(store, tenant, matchers);
    let mut stats = QueryStats {
        streams: by_id.len() as u64,
        ..QueryStats::default()
    };
    if by_id.is_empty() || range.is_empty() {
        return Ok(Candidates {
            units: Vec::new(),
            stats,
            as_of: AsOf::default(),
        });
    }
    let wanted: HashSet<StreamId> = by_id.keys().copied().collect();
    let snapshot = store.logs(range, Some(&wanted)).map_err(internal)?;
    let plan = Arc::new(NeedlePlan::compile(need));
    let mut units = Vec::new();
    let all_chunks = snapshot.days.iter().map(|day| day.chunks.len()).sum();
    for day in &snapshot.days {
        let chunks: Vec<&Arc<ChunkMeta>> = day
            .chunks
            .iter()
            .filter(|meta| meta.overlaps(range) && wanted.contains(&meta.stream))
            .collect();
        stats.chunks_total += chunks.len() as u64;
        let kept = prune_day(store, day, chunks, all_chunks, &plan)?;
        stats.chunks_candidate += kept.len() as u64;
        for meta in kept {
            let stream = &by_id[&meta.stream];
            units.extend(chunk(&snapshot, day, meta, stream));
        }
    }
    units.extend(snapshot.heads.into_iter().map(Unit::Head));
    let as_of = AsOf {
        applied: snapshot.applied,
        streams: wanted,
    };
    Ok(Candidates {
        units,
        stats,
        as_of,
    })
}

/// Candidates of a query that needs no lines, without those that `take` took: it is offered
/// what runs of chunks have of a stream within `range`, stream by stream, and takes it whole
/// or not at all.
pub fn uncounted(
    store: &Store,
    tenant: &str,
    matchers: &[Matcher],
    range: TimeRange,
    part: Part,
    mut take: impl FnMut(&Arc<Stream>, &StreamSum) -> bool,
) -> Result<Candidates, QueryError> {
    let by_id = part.select(store, tenant, matchers);
    let mut stats = QueryStats {
        streams: by_id.len() as u64,
        ..QueryStats::default()
    };
    let wanted: HashSet<StreamId> = by_id.keys().copied().collect();
    let mut units = Vec::new();
    if by_id.is_empty() || range.is_empty() {
        return Ok(Candidates {
            units,
            stats,
            as_of: AsOf::default(),
        });
    }
    let snapshot = store.logs(range, Some(&wanted)).map_err(internal)?;
    let runs = || {
        let days = snapshot.days.iter();
        days.flat_map(|day| day.chunks.runs().map(move |run| (day, run)))
    };
    let mut sums: Vec<(usize, &StreamSum)> = runs()
        .enumerate()
        .flat_map(|(n, (_, run))| run.sums().iter().map(move |sum| (n, sum)))
        .filter(|(_, sum)| range.overlaps(sum.min, sum.max) && wanted.contains(&sum.stream))
        .collect();
    sums.sort_unstable_by_key(|(run, sum)| (sum.stream, *run));
    let mut left: HashSet<(usize, StreamId)> = HashSet::new();
    for (run, sum) in sums {
        let whole = range.contains(sum.min) && range.contains(sum.max);
        let stream = &by_id[&sum.stream];
        if whole && snapshot.leaves_sum(stream, sum) && take(stream, sum) {
            stats.chunks_total += sum.chunks;
        } else {
            left.insert((run, sum.stream));
        }
    }
    let runs_left: HashSet<usize> = left.iter().map(|(run, _)| *run).collect();
    for (n, (day, run)) in runs().enumerate() {
        if !runs_left.contains(&n) {
            continue;
        }
        for meta in run.metas() {
            if !meta.overlaps(range) || !left.contains(&(n, meta.stream)) {
                continue;
            }
            stats.chunks_total += 1;
            let stream = &by_id[&meta.stream];
            units.extend(chunk(&snapshot, day, meta, stream));
        }
    }
    stats.chunks_candidate = stats.chunks_total;
    units.extend(snapshot.heads.into_iter().map(Unit::Head));
    let as_of = AsOf {
        applied: snapshot.applied,
        streams: wanted,
    };
    Ok(Candidates {
        units,
        stats,
        as_of,
    })
}

/// A chunk to be read, unless nothing of it is left.
fn chunk(
    snapshot: &LogSnapshot,
    day: &LogDay,
    meta: &Arc<ChunkMeta>,
    stream: &Arc<Stream>,
) -> Option<Unit> {
    let deletions = match snapshot.left(stream, meta) {
        Left::All => Vec::new(),
        Left::Lines(deletions) => deletions,
        Left::Nothing => return None,
    };
    Some(Unit::Chunk {
        partition: day.partition.clone(),
        stream: stream.clone(),
        meta: meta.clone(),
        deletions,
    })
}

fn prune_day<'a>(
    store: &Store,
    day: &LogDay,
    chunks: Vec<&'a Arc<ChunkMeta>>,
    all_chunks: usize,
    plan: &Arc<NeedlePlan>,
) -> Result<Vec<&'a Arc<ChunkMeta>>, QueryError> {
    if plan.prunes_nothing() || chunks.is_empty() {
        return Ok(chunks);
    }
    let kept = by_words(day, chunks, plan);
    by_grams(store.pool(), day, kept, all_chunks, plan)
}

fn by_words<'a>(
    day: &LogDay,
    mut chunks: Vec<&'a Arc<ChunkMeta>>,
    plan: &NeedlePlan,
) -> Vec<&'a Arc<ChunkMeta>> {
    let view = match day.partition.index.view() {
        Ok(Some(view)) => view,
        Ok(None) => return chunks,
        Err(error) => {
            // The index only prunes: without it the query is slower, not wrong.
            tracing::warn!(partition = %day.partition.name, "index not used: {error}");
            return chunks;
        }
    };
    let found: Option<NumberSet> = match view.search(&plan.words, OVERFLOW_TERM, FOLDS_TERM) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(partition = %day.partition.name, "index not used: {error}");
            day.partition.index.distrust();
            None
        }
    };
    if let Some(found) = found {
        chunks.retain(|meta| meta.number >= view.indexed_below || found.contains(meta.number));
    }
    chunks
}

fn by_grams<'a>(
    pool: &Pool,
    day: &LogDay,
    mut chunks: Vec<&'a Arc<ChunkMeta>>,
    all_chunks: usize,
    plan: &Arc<NeedlePlan>,
) -> Result<Vec<&'a Arc<ChunkMeta>>, QueryError> {
    if !plan.needs_filter() || chunks.is_empty() {
        return Ok(chunks);
    }
    chunks.sort_unstable_by_key(|meta| meta.number);
    let scan = chunks.len() * SCAN_FILTERS_SHARE >= day.chunks.len();
    let parts = (chunks.len() / FILTERS_A_PART).clamp(1, pool.threads());
    let jobs = chunks
        .chunks(chunks.len().div_ceil(parts))
        .map(|part| {
            let part: Vec<Arc<ChunkMeta>> = part.iter().map(|meta| (*meta).clone()).collect();
            let (partition, plan) = (day.partition.clone(), plan.clone());
            let job = move || match scan {
                true => scan_filters(&partition, &part, all_chunks, &plan),
                false => get_filters(&partition, &part, &plan),
            };
            Box::new(job) as Box<dyn FnOnce() -> Result<NumberSet, StoreError> + Send>
        })
        .collect();
    let done = pool
        .join(Lane::Second, jobs)
        .map_err(|e| QueryError::Internal(e.to_string()))?;
    let mut kept = Vec::with_capacity(done.len());
    for part in done {
        match part {
            Ok(part) => kept.push(part),
            Err(StoreError::Gone(_)) => return Ok(Vec::new()),
            Err(error) => return Err(internal(error)),
        }
    }
    chunks.retain(|meta| kept.iter().any(|part| part.contains(meta.number)));
    Ok(chunks)
}

/// Whether a chunk with this filter may match; one that can't be read rules out nothing.
fn may_match(plan: &NeedlePlan, bytes: &[u8], meta: &ChunkMeta) -> bool {
    FilterView::parse(bytes).map_or(true, |filter| {
        plan.may_match(&filter, ChunkFlags::from_bits(meta.flags))
    })
}

/// The chunks, in order of number, that may match; all filters between are read, and kept for
/// the next query when those of all the chunks that the query looks at fit.
fn scan_filters(
    partition: &Partition,
    chunks: &[Arc<ChunkMeta>],
    all_chunks: usize,
    plan: &NeedlePlan,
) -> Result<NumberSet, StoreError> {
    let mut kept = NumberSet::default();
    let mut left = chunks.iter().peekable();
    let first = chunks.first().map_or(0, |meta| meta.number);
    let keep = partition.can_keep_filters(all_chunks);
    partition.filters_from(first, keep, |number, bytes| {
        // Those before have no filter.
        while let Some(meta) = left.next_if(|meta| meta.number < number) {
            kept.insert(meta.number);
        }
        if let Some(meta) = left.next_if(|meta| meta.number == number)
            && may_match(plan, bytes, meta)
        {
            kept.insert(number);
        }
        left.peek().is_some()
    })?;
    left.for_each(|meta| kept.insert(meta.number));
    Ok(kept)
}

/// The same with a look-up for each chunk.
fn get_filters(
    partition: &Partition,
    chunks: &[Arc<ChunkMeta>],
    plan: &NeedlePlan,
) -> Result<NumberSet, StoreError> {
    let mut kept = NumberSet::default();
    for meta in chunks {
        let found = partition.filter(meta.number, |bytes| may_match(plan, bytes, meta))?;
        if found != Some(false) {
            kept.insert(meta.number);
        }
    }
    Ok(kept)
}

/// An error of the store, for a query.
pub fn internal(error: StoreError) -> QueryError {
    match error {
        StoreError::Memory(what) => QueryError::NoRoom(what),
        error => QueryError::Internal(error.to_string()),
    }
}
