//! What a reader sees: heads and partitions at one instant, each line once.

use std::sync::Arc;

use hashbrown::HashSet;

use super::chunk::{ChunkMeta, LineBlock, StreamSum};
use super::deletion::{Deletion, Deletions, Left};
use super::error::StoreError;
use super::head::spans::FrozenSpans;
use super::layout::Signal;
use super::partition::{Catalog, Partition};
use super::span::{BlockMeta, SpanBlock};
use super::streams::Stream;
use super::writer::{Open, Shared};
use crate::model::{Day, StreamId, TimeRange, Timestamp};
use crate::runtime::permits::Permit;

/// Lines of one stream that are not sealed, in order of arrival.
#[derive(Clone)]
pub struct HeadView {
    pub stream: Arc<Stream>,
    pub day: Day,
    pub min: Timestamp,
    pub max: Timestamp,
    pub blocks: Vec<Arc<LineBlock>>,
    /// Delete requests that decide line by line.
    pub deletions: Vec<Arc<Deletion>>,
}

/// A day with its chunks as of the snapshot.
#[derive(Clone)]
pub struct LogDay {
    pub partition: Arc<Partition>,
    /// All of the day's, or of a day with very many those that were asked for.
    pub chunks: Catalog<ChunkMeta>,
    /// What those take.
    _permit: Option<Arc<Permit>>,
}

/// Logs of a range of time at one instant.
#[derive(Clone)]
pub struct LogSnapshot {
    /// Without those of which retention and delete requests leave nothing.
    pub heads: Vec<HeadView>,
    /// Delete requests that count; chunks have to be looked up with [`LogSnapshot::left`].
    pub deletions: Deletions,
    /// The range asked for.
    pub range: TimeRange,
    /// Set where rules of retention take chunks out of days: the time by the store's clock.
    expired_by: Option<Timestamp>,
    /// Oldest first.
    pub days: Vec<LogDay>,
    /// Journal records below this number are in it, wholly.
    pub applied: u64,
}

impl LogSnapshot {
    /// Whether nothing takes lines out of any chunk.
    pub fn leaves_all(&self) -> bool {
        self.deletions.is_empty() && self.expired_by.is_none()
    }

    /// Whether nothing takes lines out of what some chunks of a stream have together.
    pub fn leaves_sum(&self, stream: &Stream, sum: &StreamSum) -> bool {
        self.deletions.is_empty() && !self.is_expired(stream, sum.min)
    }

    fn is_expired(&self, stream: &Stream, newest: Timestamp) -> bool {
        is_expired(self.expired_by, stream, newest)
    }

    /// What retention and delete requests leave of a chunk's lines in the range asked for.
    /// Anything but [`Left::All`] means that the meta's counts are too high.
    pub fn left(&self, stream: &Stream, meta: &ChunkMeta) -> Left {
        if self.is_expired(stream, meta.max) {
            return Left::Nothing;
        }
        if self.deletions.is_empty() {
            return Left::All;
        }
        self.deletions
            .left(stream, meta.seq, meta.min, meta.max, self.range)
    }
}

/// A day of arrival with its blocks as of the snapshot.
#[derive(Clone)]
pub struct SpanDay {
    pub partition: Arc<Partition>,
    pub blocks: Catalog<BlockMeta>,
}

/// All spans at one instant.
#[derive(Clone, Default)]
pub struct SpanSnapshot {
    /// Spans that are not sealed, by day of arrival.
    pub open: Vec<Arc<SpanBlock>>,
    /// The day of each of them.
    pub open_days: Vec<Day>,
    pub frozen: Vec<Arc<FrozenSpans>>,
    /// By day of arrival, oldest first.
    pub days: Vec<SpanDay>,
}

impl SpanSnapshot {
    /// Blocks that are not sealed.
    pub fn blocks_in_memory(&self) -> impl Iterator<Item = &SpanBlock> {
        let frozen = self.frozen.iter().map(|head| head.block.block());
        frozen.chain(self.open.iter().map(Arc::as_ref))
    }
}

fn is_expired(expired_by: Option<Timestamp>, stream: &Stream, newest: Timestamp) -> bool {
    expired_by.is_some_and(|now| stream.kept.expires_at(newest) <= now)
}

/// Partitions of a signal with loaded catalogs: loading takes time and must not happen under
/// the lock. Tries again when the set of partitions changed meanwhile.
fn with_loaded<T, C>(
    shared: &Shared,
    signal: Signal,
    days: impl Fn(Day) -> bool,
    load: impl Fn(&Partition) -> Result<C, StoreError>,
    again: impl Fn(&Partition, C) -> Result<C, StoreError>,
    take: impl FnOnce(&Open, Vec<(Arc<Partition>, C)>) -> T,
) -> Result<T, StoreError> {
    let wanted = |open: &Open| -> Vec<Arc<Partition>> {
        let ours = open
            .partitions
            .values()
            .filter(|p| p.id.signal == signal && days(p.id.day));
        ours.cloned().collect()
    };
    let mut take = Some(take);
    loop {
        let days = wanted(&shared.open.lock());
        let loaded = days.iter().map(|partition| load(partition));
        let loaded = loaded.collect::<Result<Vec<C>, StoreError>>()?;
        let open = shared.open.lock();
        let now = wanted(&open);
        let same = now.len() == days.len() && now.iter().zip(&days).all(|(a, b)| Arc::ptr_eq(a, b));
        if same && let Some(take) = take.take() {
            // Loaded a moment ago, so this only clones, or adds what came since.
            let mut catalogs = Vec::with_capacity(now.len());
            for (partition, catalog) in now.into_iter().zip(loaded) {
                let catalog = again(&partition, catalog)?;
                catalogs.push((partition, catalog));
            }
            return Ok(take(&open, catalogs));
        }
    }
}

/// Lines in `range` of the streams that `wanted` holds; of all streams for `None`.
pub fn logs(
    shared: &Shared,
    range: TimeRange,
    wanted: Option<&HashSet<StreamId>>,
) -> Result<LogSnapshot, StoreError> {
    let now = shared.options.clock.now();
    let expired_by = shared.has_rules().then_some(now);
    let days = range.days();
    let wants = |meta: &ChunkMeta| {
        meta.overlaps(range) && wanted.is_none_or(|ids| ids.contains(&meta.stream))
    };
    with_loaded(
        shared,
        Signal::Logs,
        |day| days.contains(&day.0),
        |partition| partition.wanted(now, &wants, &shared.readers_account),
        |partition, loaded| partition.catch_up(loaded, now, &wants),
        |open, partitions| {
            let wants = |id: StreamId| wanted.is_none_or(|w| w.contains(&id));
            let deletions = open.deletions.clone();
            let left = |stream: &Stream, seq, min, max| {
                if is_expired(expired_by, stream, max) {
                    return None;
                }
                match deletions.left(stream, seq, min, max, range) {
                    Left::All => Some(Vec::new()),
                    Left::Lines(deletions) => Some(deletions),
                    Left::Nothing => None,
                }
            };
            let frozen = open
                .frozen
                .iter()
                .filter(|f| wants(f.key.stream) && range.overlaps(f.min, f.max))
                .filter_map(|f| {
                    Some(HeadView {
                        deletions: left(&f.stream, f.through.seq, f.min, f.max)?,
                        stream: f.stream.clone(),
                        day: f.key.day,
                        min: f.min,
                        max: f.max,
                        blocks: f.parts.clone(),
                    })
                });
            let heads = open
                .heads
                .iter()
                .filter(|(key, head)| wants(key.stream) && range.overlaps(head.min, head.max))
                .filter_map(|(key, head)| {
                    Some(HeadView {
                        deletions: left(&head.stream, head.through.seq, head.min, head.max)?,
                        stream: head.stream.clone(),
                        day: key.day,
                        min: head.min,
                        max: head.max,
                        blocks: head.view(),
                    })
                });
            LogSnapshot {
                applied: open.applied,
                heads: frozen.chain(heads).collect(),
                deletions: deletions.clone(),
                range,
                expired_by,
                days: partitions
                    .into_iter()
                    .map(|(partition, wanted)| LogDay {
                        partition,
                        chunks: wanted.catalog,
                        _permit: wanted.permit.map(Arc::new),
                    })
                    .collect(),
            }
        },
    )
}

/// All spans. Days are of arrival and say nothing of when spans began: the blocks' metas do.
pub fn spans(shared: &Shared) -> Result<SpanSnapshot, StoreError> {
    let now = shared.options.clock.now();
    with_loaded(
        shared,
        Signal::Spans,
        |_| true,
        |partition| partition.blocks(now),
        |partition, _| partition.blocks(now),
        |open, partitions| SpanSnapshot {
            open: open
                .spans
                .values()
                .map(|head| Arc::new(head.block.block().clone()))
                .collect(),
            open_days: open.spans.keys().copied().collect(),
            frozen: open.frozen_spans.clone(),
            days: partitions
                .into_iter()
                .map(|(partition, blocks)| SpanDay { partition, blocks })
                .collect(),
        },
    )
}
