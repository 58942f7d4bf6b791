//! The background thread: flush, index, low-water mark; disk and memory figures; retention.
//!
//! C1. A checkpoint is, in this order: note the low-water mark, what is dirty and the positions
//!     of files, under one lock → sync the journal → flush the families → commit the indices →
//!     write mark and positions, synced → let the writer remove old segments. A crash anywhere in between leaves a mark that is too low,
//!     never one that is too high: replay then skips what is sealed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::chunk::ChunkReader;
use super::damage::Kind;
use super::error::StoreError;
use super::inbox::{Ack, Internal};
use super::layout::{ARCHIVE_FAMILY, LOW_WATER_KEY, POSITION_PREFIX, Signal};
use super::manifest::ManifestCopy;
use super::meta_copy;
use super::partition::{Partition, Read};
use super::room::Room;
use super::seal::{analyze, span_words};
use super::span::SpanBlock;
use super::writer::Shared;
use crate::model::time::MINUTE;
use crate::runtime::permits::Account;

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint is made when so much was sealed since the last, or so much journal lies there.
const CHECKPOINT_SEALED: u64 = 32 << 20;
const CHECKPOINT_JOURNAL: u64 = 64 << 20;
/// Or when something is dirty for so long.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);
/// The journal must not grow beyond this: old heads are sealed.
const MAX_JOURNAL: u64 = 128 << 20;
/// How often days are looked over for retention.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// A catalog that no query asked for so long leaves memory.
const CATALOG_IDLE: i64 = 10 * MINUTE;
/// Chunks re-indexed at a time after a start.
const REINDEX_AT_ONCE: usize = 500;

#[derive(Default)]
struct Orders {
    checkpoints: Vec<Ack>,
    /// Days whose word index is thrown away and made anew.
    rebuilds: Vec<(Arc<Partition>, SyncSender<()>)>,
    /// Who wants the files of a state linked.
    states: Vec<oneshot::Sender<Result<PathBuf, StoreError>>>,
    stopped: bool,
}

/// Handle to the thread.
pub struct Keeper {
    orders: Mutex<Orders>,
    wake: Condvar,
}

impl Keeper {
    pub fn start(shared: Arc<Shared>) -> std::io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let keeper = Arc::new(Self {
            orders: Mutex::default(),
            wake: Condvar::new(),
        });
        let thread = keeper.clone();
        let handle = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| thread.run(&shared));
                if std::panic::catch_unwind(run).is_err() {
                    // Without it the journal would grow until the disk is full.
                    let error = StoreError::Failed("the keeper panicked".into());
                    (shared.options.on_failure)(&error);
                }
            })?;
        Ok((keeper, handle))
    }

    /// Asks for a checkpoint now.
    pub fn checkpoint(&self, ack: Ack) {
        self.orders.lock().checkpoints.push(ack);
        self.wake.notify_one();
    }

    /// Asks for a new word index of a day: the old one has words that are no longer there.
    /// Only the keeper commits to an index, so only the keeper may throw one away.
    /// Tells when the old one is gone.
    pub fn rebuild_index(&self, partition: Arc<Partition>) -> Receiver<()> {
        let (done, told) = sync_channel(1);
        self.orders.lock().rebuilds.push((partition, done));
        self.wake.notify_one();
        told
    }

    /// Has the files of a consistent state linked; the directory with them.
    pub fn link_state(&self) -> oneshot::Receiver<Result<PathBuf, StoreError>> {
        let (done, told) = oneshot::channel();
        self.orders.lock().states.push(done);
        self.wake.notify_one();
        told
    }

    /// Ends the thread after what it is doing.
    pub fn stop(&self) {
        self.orders.lock().stopped = true;
        self.wake.notify_one();
    }

    fn run(&self, shared: &Arc<Shared>) {
        let budget = &shared.options.budget;
        let accounts = Accounts {
            memtables: budget.account("rocksdb_memtables"),
            cache: budget.account("rocksdb_cache"),
            catalogs: budget.account("catalogs"),
            streams: budget.account("streams"),
        };
        let mut checkpoint_at = Instant::now();
        let mut retain_at: Option<Instant> = None;
        let mut room = Room::default();
        let mut manifest = ManifestCopy::of(&shared.layout);
        loop {
            let (orders, rebuilds, states) = {
                let mut orders = self.orders.lock();
                let nothing = orders.checkpoints.is_empty()
                    && orders.rebuilds.is_empty()
                    && orders.states.is_empty();
                if nothing && !orders.stopped {
                    self.wake.wait_for(&mut orders, LOOK_EVERY);
                }
                if orders.stopped {
                    return;
                }
                let rebuilds = std::mem::take(&mut orders.rebuilds);
                let states = std::mem::take(&mut orders.states);
                (std::mem::take(&mut orders.checkpoints), rebuilds, states)
            };
            for done in states {
                // Whoever asked may have gone: then nobody would release it.
                if let Err(Ok(dir)) = done.send(super::checkpoint::make(shared))
                    && let Err(error) = super::checkpoint::release(&dir)
                {
                    tracing::warn!("links of a backup are left: {error}");
                }
            }
            for (partition, done) in rebuilds {
                if let Err(error) = partition.index.reset() {
                    shared.degrade(format!("{}: {error}", index_of(&partition)));
                }
                let _ = done.send(());
            }
            accounts.update(shared);
            room.look(shared);
            let recovered = shared.recovered.load(Ordering::Acquire);
            if recovered && retain_at.is_none_or(|at| at.elapsed() >= RETAIN_EVERY) {
                retain_at = Some(Instant::now());
                shared.inbox.push_internal(Internal::Retain);
                let before = shared.options.clock.now() - CATALOG_IDLE;
                let partitions: Vec<_> = shared.open.lock().partitions.values().cloned().collect();
                let (kept, others) = newest_days(partitions);
                others.iter().for_each(|p| p.evict(before));
                for partition in kept {
                    if let Err(error) = partition.warm() {
                        // Whoever asks for the day is told.
                        tracing::warn!(partition = %partition.name, "not loaded: {error}");
                    }
                }
            }
            let journal = shared.journal_bytes.load(Ordering::Relaxed);
            if journal > MAX_JOURNAL {
                shared.inbox.push_internal(Internal::FreezeOld);
            }
            let due = !orders.is_empty()
                || shared.sealed_bytes.load(Ordering::Relaxed) > CHECKPOINT_SEALED
                || journal > CHECKPOINT_JOURNAL && checkpoint_at.elapsed() > Duration::from_secs(5)
                || checkpoint_at.elapsed() > CHECKPOINT_AFTER;
            if due {
                checkpoint_at = Instant::now();
                shared.sealed_bytes.store(0, Ordering::Relaxed);
                let result = checkpoint(shared);
                match &result {
                    Ok(()) => shared.mend(CHECKPOINT_FAILED),
                    Err(error) => shared.degrade(format!("{CHECKPOINT_FAILED}: {error}")),
                }
                for ack in orders {
                    let _ = ack.send(result.clone());
                }
            }
            if recovered {
                match reindex_some(shared) {
                    Ok(()) => shared.mend(REINDEX_FAILED),
                    Err(error) => shared.degrade(format!("{REINDEX_FAILED}: {error}")),
                }
            }
            if let Err(error) = manifest.copy() {
                tracing::warn!("no copy of RocksDB's list of files: {error}");
            }
        }
    }
}

/// Goes from what `/ready` tells when the next checkpoint succeeds: its journal is still there,
/// so nothing is missing then.
const CHECKPOINT_FAILED: &str = "checkpoint failed, tried again";

/// The same of indexing, which is tried every second.
const REINDEX_FAILED: &str = "re-indexing failed";

/// Days of each signal whose catalog and index are always at hand: nearly all queries are over
/// the last 24 hours, and the first one should not have to wait.
const WARM_DAYS: usize = 2;

/// The newest days of each signal, and the others.
fn newest_days(mut days: Vec<Arc<Partition>>) -> (Vec<Arc<Partition>>, Vec<Arc<Partition>>) {
    days.sort_by_key(|p| std::cmp::Reverse(p.id.day));
    let (mut logs, mut spans) = (0, 0);
    days.into_iter().partition(|partition| {
        let seen = match partition.id.signal {
            Signal::Logs => &mut logs,
            Signal::Spans => &mut spans,
        };
        *seen += 1;
        *seen <= WARM_DAYS
    })
}

/// Makes everything sealed so far safe and tells the journal what it may forget (C1).
pub fn checkpoint(shared: &Shared) -> Result<(), StoreError> {
    let (low_water, dirty, cursors) = {
        let open = shared.open.lock();
        let dirty: Vec<(Arc<Partition>, u32)> = open
            .partitions
            .values()
            .filter(|p| p.take_dirty())
            .map(|p| (p.clone(), p.next_number()))
            .collect();
        let cursors: Vec<_> = open
            .cursors
            .iter()
            .map(|(key, value)| {
                let mut name = POSITION_PREFIX.to_vec();
                name.extend_from_slice(key);
                (name, (!value.is_empty()).then(|| value.to_vec()))
            })
            .collect();
        (open.low_water(), dirty, cursors)
    };
    let names: Vec<String> = dirty.iter().map(|(p, _)| p.name.clone()).collect();
    fail::fail_point!("checkpoint-fails", |_| {
        dirty.iter().for_each(|(p, _)| p.set_dirty());
        Err(StoreError::Kv("a fail point".into()))
    });
    let index_all = || {
        for (partition, next) in &dirty {
            index_sealed(shared, partition, *next);
        }
    };
    if !data_first()
        && let Err(error) = sync_journal(shared)
    {
        dirty.iter().for_each(|(p, _)| p.set_dirty());
        return Err(error);
    }
    let too_early = index_too_early();
    if too_early {
        index_all();
    }
    fail::fail_point!("checkpoint-before-flush");
    if let Err(error) = shared.kv.flush(&names) {
        dirty.iter().for_each(|(p, _)| p.set_dirty());
        return Err(error);
    }
    fail::fail_point!("checkpoint-before-index");
    if !too_early {
        index_all();
    }
    fail::fail_point!("checkpoint-before-mark");
    let mut pairs = cursors;
    pairs.push((
        LOW_WATER_KEY.to_vec(),
        Some(low_water.to_be_bytes().to_vec()),
    ));
    shared.kv.write_meta(&pairs)?;
    if let Err(error) = meta_copy::write(&shared.kv, &shared.layout) {
        tracing::warn!("no copy of positions and delete requests: {error}");
    }
    shared.metrics.checkpoints.inc();
    fail::fail_point!("checkpoint-before-forget");
    shared.inbox.push_internal(Internal::Forget(low_water));
    Ok(())
}

/// Makes the journal safe before what came from it is: heads are filled before it is synced. Else
/// a power cut could leave the position of a file without its lines, or lines of a file without
/// its position, which would be read again.
fn sync_journal(shared: &Shared) -> Result<(), StoreError> {
    let file = shared.journal_file.lock().clone();
    file.sync_data().map_err(|e| {
        let error = StoreError::Failed(format!("journal: sync: {e}"));
        (shared.options.on_failure)(&error);
        error
    })
}

/// A fail point for the power-cut test, which must notice it: data that is safe before its record.
fn data_first() -> bool {
    fail::fail_point!("data-before-journal", |_| true);
    false
}

/// A fail point for the crash test, which must notice it: an index of chunks that are not safe.
fn index_too_early() -> bool {
    fail::fail_point!("index-before-flush", |_| true);
    false
}

/// Indexes what was sealed since the last time. An index that fails is thrown away and
/// rebuilt: it only prunes (I3).
fn index_sealed(shared: &Shared, partition: &Partition, next: u32) {
    let documents = partition.take_unindexed(next);
    if documents.is_empty() {
        return;
    }
    if let Err(error) = commit(shared, partition, &documents, next) {
        shared.degrade(format!(
            "{} failed and is rebuilt: {error}",
            index_of(partition)
        ));
        if let Err(error) = partition.index.reset() {
            shared.degrade(format!("{}: {error}", index_of(partition)));
        }
    }
}

/// Commits to an index; its writer's memory is booked for as long as it is open.
fn commit(
    shared: &Shared,
    partition: &Partition,
    documents: &[(u32, String)],
    indexed_below: u32,
) -> Result<(), StoreError> {
    shared.index_account.set(super::index::WRITER_HEAP);
    let result = partition.index.commit(documents, indexed_below);
    shared.index_account.set(0);
    result
}

/// Indexes chunks that the index lacks: after a crash, or when it was thrown away. An index that
/// can't be read is set aside first.
fn reindex_some(shared: &Shared) -> Result<(), StoreError> {
    let partitions: Vec<_> = shared.open.lock().partitions.values().cloned().collect();
    for partition in partitions {
        let indexed = match partition.index.view() {
            Ok(view) => view.map_or(0, |view| view.indexed_below),
            Err(error) => {
                shared.damage.count(Kind::Index);
                shared.degrade(format!(
                    "{}, it is made anew: {error}",
                    index_of(&partition)
                ));
                partition.index.set_aside()?;
                0
            }
        };
        let waiting = partition.first_unindexed();
        if indexed >= waiting {
            shared.mend(&index_of(&partition));
            continue;
        }
        let numbers = partition.numbers(indexed..waiting, REINDEX_AT_ONCE)?;
        let until = match numbers.last() {
            Some(last) if numbers.len() == REINDEX_AT_ONCE => last + 1,
            _ => waiting,
        };
        let documents = words_of(&partition, &numbers)?;
        // What is indexed must be flushed (I2): these chunks came from an earlier run, or
        // from before a reset; flushing again costs nothing when they are.
        shared.kv.flush(std::slice::from_ref(&partition.name))?;
        if let Err(error) = commit(shared, &partition, &documents, until) {
            partition.index.reset()?;
            return Err(error);
        }
        tracing::info!(partition = %partition.name, from = indexed, until, "re-indexed");
    }
    Ok(())
}

/// How `/ready` names the index of a day.
fn index_of(partition: &Partition) -> String {
    format!("index of {}", partition.name)
}

/// Documents for the index, read from chunks or blocks. Those that can't be read are in no
/// answer, so they need none.
pub fn words_of(partition: &Partition, numbers: &[u32]) -> Result<Vec<(u32, String)>, StoreError> {
    let mut documents = Vec::with_capacity(numbers.len());
    for number in numbers {
        let words = partition.read(*number, |bytes| match partition.id.signal {
            Signal::Logs => {
                let lines = ChunkReader::new(bytes).and_then(|chunk| chunk.lines())?;
                Ok(analyze(&lines).1)
            }
            Signal::Spans => match SpanBlock::decode(bytes) {
                Ok(block) => Ok(span_words(&block)),
                Err(error) => Err(error.to_string()),
            },
        })?;
        if let Read::Whole(words) = words {
            documents.push((*number, words));
        }
    }
    Ok(documents)
}

/// A day's catalog is kept in memory up to this share of the budget: some 170,000 chunks of
/// 256 MiB.
const CATALOG_SHARE: usize = 8;

struct Accounts {
    memtables: Account,
    cache: Account,
    catalogs: Account,
    streams: Account,
}

impl Accounts {
    fn update(&self, shared: &Shared) {
        let (memtables, cache) = shared.kv.memory();
        self.memtables.set(memtables);
        self.cache.set(cache);
        let (partitions, heads, waiting) = {
            let open = shared.open.lock();
            (
                open.partitions.values().cloned().collect::<Vec<_>>(),
                open.heads.len(),
                open.deletions.iter().count(),
            )
        };
        // Days with very many chunks, of which a limit has room for a few.
        let most = shared.options.budget.limit() / CATALOG_SHARE;
        partitions.iter().for_each(|p| p.keep_at_most(most));
        self.catalogs
            .set(partitions.iter().map(|p| p.memory()).sum());
        self.streams.set(shared.streams.memory());
        let m = &shared.metrics;
        m.partitions.set(partitions.len() as i64);
        m.streams.set(shared.streams.len() as i64);
        m.heads.set(heads as i64);
        m.delete_requests_waiting.set(waiting as i64);
        let archive = shared.kv.disk_bytes(ARCHIVE_FAMILY);
        m.archive_bytes
            .set(i64::try_from(archive).unwrap_or(i64::MAX));
        m.journal_size
            .set(shared.journal_bytes.load(Ordering::Relaxed) as i64);
    }
}
