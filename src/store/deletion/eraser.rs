//! The thread that takes deleted lines off the disk, in the background, one chunk at a time.
//!
//! Per day: note it in `meta` (E4) → rewrite or remove chunks → flush → compact → remove the
//! note → have the word index made anew, for it still has the words → note progress. Then mark
//! the requests (E3).
//!
//! The same thread rewrites days (rewrite/mod.rs), when there is nothing to delete.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{DeleteRequest, DeleteState, Deletion, any_of, log};
use crate::model::need::Need;
use crate::model::{Day, TimeRange};
use crate::store::chunk::{ChunkMeta, ChunkReader, LineBlock, encode};
use crate::store::error::StoreError;
use crate::store::inbox::Internal;
use crate::store::index::analyze::{FOLDS_TERM, OVERFLOW_TERM};
use crate::store::index::{ChunkFlags, FilterView, NeedlePlan};
use crate::store::keeper::Keeper;
use crate::store::layout::{ERASING_PREFIX, META_FAMILY, PartitionId, Signal};
use crate::store::partition::{Partition, Read};
use crate::store::patterns;
use crate::store::rewrite::{self, Rewriter};
use crate::store::seal::analyze;
use crate::store::streams::Stream;
use crate::store::writer::Shared;

/// How often requests are looked over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often old processed requests are.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// After an error of the disk nothing is tried for so long.
const REST: Duration = Duration::from_secs(300);
/// Of the thread, for the system's scheduler.
const NICE: i32 = 10;

/// Handle to the thread.
pub struct Eraser {
    stopped: Mutex<bool>,
    wake: Condvar,
}

/// Why a round ended early.
enum Stop {
    Stopped,
    Error(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

impl Eraser {
    pub fn start(
        shared: Arc<Shared>,
        keeper: Arc<Keeper>,
    ) -> std::io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let eraser = Arc::new(Self {
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        });
        let thread = eraser.clone();
        let rewriter = Rewriter::new(&shared);
        let handle = std::thread::Builder::new()
            .name("eraser".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| thread.run(&shared, &keeper, rewriter));
                if std::panic::catch_unwind(run).is_err() {
                    // Answers stay right without it; only the disk keeps what it should not.
                    shared.degrade(
                        "deleted and expired lines stay on the disk: the eraser panicked".into(),
                    );
                }
            })?;
        Ok((eraser, handle))
    }

    /// Ends the thread after the chunk it is at.
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.wake.notify_one();
    }

    /// Waits; true when it should stop.
    fn pause(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped && !time.is_zero() {
            self.wake.wait_for(&mut stopped, time);
        }
        *stopped
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    fn run(&self, shared: &Arc<Shared>, keeper: &Keeper, mut rewriter: Rewriter) {
        // Beside what comes in and who asks; where that is not allowed it is as any other.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut tidied: Option<Instant> = None;
        let mut rest = LOOK_EVERY;
        loop {
            {
                let mut stopped = self.stopped.lock();
                if !*stopped {
                    self.wake.wait_for(&mut stopped, rest);
                }
                if *stopped {
                    return;
                }
            }
            rest = LOOK_EVERY;
            // Compacting and rewriting need room before they give some back.
            if !shared.recovered.load(Ordering::Acquire) || shared.no_room().is_some() {
                continue;
            }
            let mut round = match shared.options.deletion.erase {
                true => self.round(shared, keeper),
                false => Ok(()),
            };
            if round.is_ok() {
                round = match rewriter.round(shared, &|time| self.pause(time)) {
                    Err(rewrite::Stop::Error(StoreError::Gone(_))) => Ok(()),
                    Err(rewrite::Stop::Error(error)) => Err(Stop::Error(error)),
                    Err(rewrite::Stop::Stopped) => Err(Stop::Stopped),
                    Ok(()) | Err(_) => Ok(()),
                };
            }
            if round.is_ok() && tidied.is_none_or(|at| at.elapsed() > TIDY_EVERY) {
                tidied = Some(Instant::now());
                round = log::tidy(shared).map_err(Stop::Error);
            }
            match round {
                Ok(()) => {}
                Err(Stop::Stopped) => return,
                Err(Stop::Error(error)) => {
                    if self.is_stopped() {
                        return;
                    }
                    rest = REST;
                    tracing::warn!("deleting or rewriting failed and is tried again: {error}");
                }
            }
        }
    }

    fn round(&self, shared: &Arc<Shared>, keeper: &Keeper) -> Result<(), Stop> {
        self.finish_days(shared, keeper)?;
        let due = due(shared);
        let Some(first) = due.iter().map(|d| d.request.start).min() else {
            return Ok(());
        };
        let last = due.iter().map(|d| d.request.end).max().unwrap_or(first);
        let days = TimeRange::inclusive(first, last).days();
        let partitions: Vec<Arc<Partition>> = {
            let open = shared.open.lock();
            let ours = open
                .partitions
                .values()
                .filter(|p| p.id.signal == Signal::Logs && days.contains(&p.id.day.0));
            ours.cloned().collect()
        };
        for deletion in &due {
            let own = partitions.iter().filter(|p| concerns(deletion, p.id.day));
            let own = u32::try_from(own.count()).unwrap_or(u32::MAX);
            if let DeleteState::Received { done, days, .. } = &mut deletion.progress.lock().state {
                // Of those gone through before, retention may have dropped some.
                *days = own.max(*done);
            }
        }
        for partition in &partitions {
            let day = partition.id.day;
            let own: Vec<Arc<Deletion>> = due
                .iter()
                .filter(|d| is_ahead(d, day) && !d.cancelled.load(Ordering::Relaxed))
                .cloned()
                .collect();
            if own.is_empty() {
                continue;
            }
            match self.erase_day(shared, keeper, partition, &own) {
                Ok(()) => {}
                // Retention was quicker.
                Err(Stop::Error(StoreError::Gone(_))) => {}
                Err(stop) => return Err(stop),
            }
            for deletion in &own {
                if let DeleteState::Received { done, next, .. } =
                    &mut deletion.progress.lock().state
                {
                    *done += 1;
                    *next = Day(day.0.saturating_add(1));
                }
                log::progress(shared, &deletion.now())?;
            }
        }
        for deletion in &due {
            fail::fail_point!("erase-before-processed");
            log::finish(shared, deletion)?;
        }
        Ok(())
    }

    /// Rewrites the chunks of one day.
    fn erase_day(
        &self,
        shared: &Shared,
        keeper: &Keeper,
        partition: &Arc<Partition>,
        deletions: &[Arc<Deletion>],
    ) -> Result<(), Stop> {
        let catalog = partition.chunks(shared.options.clock.now())?;
        let plan = Pruning::of(partition, deletions);
        let mut noted = false;
        for meta in catalog.iter() {
            if self.is_stopped() {
                return Err(Stop::Stopped);
            }
            let Some(stream) = shared.streams.get(meta.stream) else {
                continue;
            };
            let own: Vec<Arc<Deletion>> = deletions
                .iter()
                .filter(|d| d.reaches(meta.seq, meta.min, meta.max) && d.matches(&stream))
                .filter(|d| !d.cancelled.load(Ordering::Relaxed))
                .cloned()
                .collect();
            let all = own.iter().any(|d| d.takes_all(meta.min, meta.max));
            if own.is_empty() || !all && !plan.may_hold(partition, meta)? {
                continue;
            }
            let rest = if all {
                Rest::Nothing
            } else {
                match rest_of(partition, meta, &stream, &own)? {
                    Some(rest) => rest,
                    // Nobody can read it, so nothing of it is shown either.
                    None => continue,
                }
            };
            if matches!(rest, Rest::Everything) {
                continue;
            }
            if !noted {
                noted = true;
                let key = [ERASING_PREFIX, partition.name.as_bytes()].concat();
                shared.kv.write_meta(&[(key, Some(Vec::new()))])?;
            }
            own.iter()
                .for_each(|d| d.begun.store(true, Ordering::Relaxed));
            let erased = match rest {
                Rest::Everything => 0,
                Rest::Nothing => {
                    partition.remove_chunk(meta)?;
                    meta.lines
                }
                Rest::Lines(block) => {
                    let chunk = encode(&block).map_err(|e| {
                        StoreError::Failed(format!("compressing what is left of a chunk: {e}"))
                    })?;
                    let (filter, words, flags) = analyze(&block);
                    let size = chunk.len() as u32;
                    let left = ChunkMeta {
                        number: meta.number,
                        seq: meta.seq,
                        ..ChunkMeta::of(&block, meta.stream, size, flags.bits())
                    };
                    let erased = meta.lines.saturating_sub(left.lines);
                    let mine = shared.options.mine_patterns;
                    let patterns = mine.then(|| patterns::mine(&stream.labels, &block));
                    partition.replace_chunk(left, chunk, filter, words, patterns)?;
                    erased
                }
            };
            shared.metrics.lines_erased.inc_by(u64::from(erased));
            // Whose lines these were is known for one request only; for several the first counts.
            if let Some(first) = own.first() {
                first.progress.lock().erased += u64::from(erased);
            }
        }
        if noted {
            fail::fail_point!("erase-before-flush");
            partition.flush()?;
            self.finish_day(shared, keeper, partition)?;
        }
        Ok(())
    }

    /// Drops old bytes and old words of a day whose chunks are rewritten and flushed.
    fn finish_day(
        &self,
        shared: &Shared,
        keeper: &Keeper,
        partition: &Arc<Partition>,
    ) -> Result<(), Stop> {
        fail::fail_point!("erase-before-compact");
        partition.compact()?;
        if self.is_stopped() {
            // The stop may have cut it short.
            return Err(Stop::Stopped);
        }
        let rebuilt = keeper.rebuild_index(partition.clone());
        while let Err(RecvTimeoutError::Timeout) = rebuilt.recv_timeout(LOOK_EVERY) {
            if self.is_stopped() {
                return Err(Stop::Stopped);
            }
        }
        // The journal may still have the lines, in a segment that little traffic would leave
        // open for long.
        shared.inbox.push_internal(Internal::Rotate);
        let key = [ERASING_PREFIX, partition.name.as_bytes()].concat();
        shared.kv.write_meta(&[(key, None)])?;
        Ok(())
    }

    /// Days that a crash or a stop left between their first rewriting and the compaction.
    fn finish_days(&self, shared: &Shared, keeper: &Keeper) -> Result<(), Stop> {
        let mut names = Vec::new();
        shared.kv.scan(META_FAMILY, ERASING_PREFIX, |key, _| {
            names.push(key.to_vec());
            true
        })?;
        for key in names {
            let name = String::from_utf8_lossy(&key[ERASING_PREFIX.len()..]);
            // A day that was rewritten since has neither the bytes nor the words.
            let partition = PartitionId::parse_family(&name).and_then(|(id, generation)| {
                let partition = shared.open.lock().partitions.get(&id).cloned();
                partition.filter(|p| p.generation == generation)
            });
            match partition {
                Some(partition) => {
                    partition.flush()?;
                    self.finish_day(shared, keeper, &partition)?;
                }
                None => shared.kv.write_meta(&[(key, None)])?,
            }
        }
        Ok(())
    }
}

/// Requests past their cancel period whose lines are all in chunks.
fn due(shared: &Shared) -> Vec<Arc<Deletion>> {
    let period = i64::try_from(shared.options.deletion.cancel_period.as_nanos());
    let created_before = shared
        .options
        .clock
        .now()
        .saturating_sub(period.unwrap_or(i64::MAX));
    let open = shared.open.lock();
    let sealed = |d: &Arc<Deletion>| {
        !open.unfrozen.iter().any(|u| Arc::ptr_eq(u, d))
            && !open
                .frozen
                .iter()
                .any(|f| d.reaches(f.through.seq, f.min, f.max) && d.matches(&f.stream))
    };
    let due = open
        .deletions
        .iter()
        .filter(|d| d.selection().is_some() && d.request.created_at <= created_before && sealed(d));
    due.cloned().collect()
}

/// Whether a day lies in the request's range.
fn concerns(deletion: &Deletion, day: Day) -> bool {
    let DeleteRequest { start, end, .. } = deletion.request;
    day.end() > start && day.start() <= end
}

/// Whether it does and has not been gone through yet. Days are gone through in order.
fn is_ahead(deletion: &Deletion, day: Day) -> bool {
    let next = match deletion.progress.lock().state {
        DeleteState::Received { next, .. } => next,
        DeleteState::Processed { .. } => return false,
    };
    concerns(deletion, day) && day >= next
}

/// What deletions leave of a chunk.
enum Rest {
    Everything,
    Nothing,
    Lines(Box<LineBlock>),
}

/// `None` for a damaged chunk.
fn rest_of(
    partition: &Partition,
    meta: &ChunkMeta,
    stream: &Stream,
    deletions: &[Arc<Deletion>],
) -> Result<Option<Rest>, StoreError> {
    let read = partition.read(meta.number, |bytes| ChunkReader::new(bytes)?.lines());
    let block = match read? {
        Read::Whole(block) => block,
        Read::Damaged => return Ok(None),
        Read::Gone => return Err(StoreError::Gone(partition.name.clone())),
    };
    let mut is_deleted = any_of(deletions, &stream.labels);
    let mut left = LineBlock::default();
    for i in 0..block.len() {
        let (at, line, metadata) = (block.at[i], block.line(i), block.metadata_of(i));
        if !is_deleted(at, line, metadata) {
            left.push(at, line, metadata);
        }
    }
    Ok(Some(match left.len() {
        0 => Rest::Nothing,
        n if n == block.len() => Rest::Everything,
        _ => Rest::Lines(Box::new(left)),
    }))
}

/// Leaves out chunks that hold no selected line, as queries do: by words and by grams.
struct Pruning {
    plan: NeedlePlan,
    /// Chunks with such words, and the number below which all are indexed.
    words: Option<(crate::store::index::NumberSet, u32)>,
}

impl Pruning {
    fn of(partition: &Partition, deletions: &[Arc<Deletion>]) -> Self {
        let needs = deletions
            .iter()
            .map(|d| d.selection().map_or(Need::Anything, |s| s.need.clone()));
        let plan = NeedlePlan::compile(&Need::any(needs));
        // The index only prunes: without it this is slower, not wrong.
        let words = partition.index.view().ok().flatten().and_then(|view| {
            let found = view.search(&plan.words, OVERFLOW_TERM, FOLDS_TERM);
            Some((found.ok().flatten()?, view.indexed_below))
        });
        Self { plan, words }
    }

    fn may_hold(&self, partition: &Partition, meta: &ChunkMeta) -> Result<bool, StoreError> {
        if self.plan.prunes_nothing() {
            return Ok(true);
        }
        let by_words = self
            .words
            .as_ref()
            .is_none_or(|(found, below)| meta.number >= *below || found.contains(meta.number));
        if !by_words || !self.plan.needs_filter() {
            return Ok(by_words);
        }
        let by_grams = partition.filter(meta.number, |bytes| {
            FilterView::parse(bytes).map_or(true, |filter| {
                self.plan
                    .may_match(&filter, ChunkFlags::from_bits(meta.flags))
            })
        })?;
        Ok(by_grams.unwrap_or(true))
    }
}
