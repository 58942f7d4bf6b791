//! Everything that must survive a crash. Synchronous; knows no protocol and no language.
//!
//! ```text
//! append → inbox → writer → journal → syncer → acknowledgement
//!                    └→ heads → pool: seal → writer → partition (RocksDB)
//!                                              keeper: flush → index → low-water mark
//! delete requests → snapshots leave lines out → eraser: chunks rewritten → compacted
//! cold or expired days → eraser: copied, chunks merged → switched to
//! readers ← snapshot (heads and catalogs under one lock)
//! ```
//!
//! The numbered invariants stand where they are kept: J in `journal`, K in `kv`, H in `head`,
//! L in `chunk/lines`, M in `patterns`, D in `partition`, R in `room` and in `archive`, I in `index`,
//! E in `deletion`, G in `links`, N in `rewrite`, W in `writer`, C in `keeper`.

pub mod archive;
mod checkpoint;
pub mod chunk;
pub mod codec;
pub mod damage;
pub mod deletion;
pub mod error;
mod files;
pub mod head;
mod inbox;
pub mod index;
pub mod inspect;
pub mod journal;
mod keeper;
pub mod kv;
pub mod layout;
pub mod links;
mod manifest;
mod meta_copy;
mod metrics;
mod operations;
pub mod options;
pub mod partition;
pub mod patterns;
pub mod recovery;
pub mod repair;
pub mod retention;
mod rewrite;
mod room;
pub mod seal;
pub mod snapshot;
pub mod span;
pub mod streams;
mod sync;
pub mod tail;
pub mod verify;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use error::StoreError;
pub use inbox::Payload;
pub use journal::Body;
pub use journal::record::{Cursor, RecordKind, encode_batch};
pub use options::{Decoded, Decoder, Durability, OnFailure, Options};
pub use room::NoRoom;
pub use snapshot::{LogSnapshot, SpanSnapshot};
pub use streams::Stream;

use crate::model::service_metrics::DependencyLink;
use crate::model::{Day, Matcher, StreamId, TimeRange, Timestamp};
use crate::runtime::permits::Permit;
use crate::runtime::pool::Pool;
use deletion::eraser::Eraser;
use deletion::{DeleteError, DeleteRequest};
use inbox::{Append, Internal};
use keeper::Keeper;
use layout::Signal;
use links::Linker;
use sync::Syncer;
use writer::Shared;

/// The store of one data directory. Everything behind one handle, cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    syncer: Arc<Syncer>,
    keeper: Arc<Keeper>,
    eraser: Arc<Eraser>,
    linker: Arc<Linker>,
    linker_thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    eraser_thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Held by who archives.
    archiving: Arc<tokio::sync::Mutex<()>>,
    /// Holds the lock on the directory.
    _lock: File,
}

/// Waits until an append is as safe as the durability promises.
pub struct Pending(oneshot::Receiver<Result<(), StoreError>>);

impl Pending {
    pub async fn wait(self) -> Result<(), StoreError> {
        // A dropped sender means that the writer ended before it came to this append.
        self.0.await.unwrap_or(Err(StoreError::Stopped))
    }
}

impl Store {
    /// Opens or creates the data directory. Appends are taken at once; what the journal holds
    /// is replayed behind (see [`Store::is_recovered`]).
    pub fn open(options: Options) -> Result<Self, StoreError> {
        recovery::open(options)
    }

    /// Where its CPU work runs.
    pub fn pool(&self) -> &Pool {
        &self.0.shared.options.pool
    }

    /// Queues something to keep. Never waits: an error means that there is no room now.
    pub fn append(
        &self,
        payload: Payload,
        body: Body,
        permit: Option<Permit>,
    ) -> Result<Pending, StoreError> {
        if let Some(error) = self.0.syncer.failure() {
            return Err(error);
        }
        let (ack, pending) = oneshot::channel();
        let append = Append {
            payload,
            body,
            ack,
            permit,
        };
        self.0.shared.inbox.push(append)?;
        Ok(Pending(pending))
    }

    /// Seals everything and makes it safe, index included (Loki's `/flush`).
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (ack, pending) = oneshot::channel();
        self.0.shared.inbox.push_internal(Internal::Freeze(ack));
        Pending(pending).wait().await?;
        let (ack, pending) = oneshot::channel();
        self.0.keeper.checkpoint(ack);
        Pending(pending).wait().await
    }

    /// Links the files of a consistent state, with everything that was acknowledged before, into
    /// a directory below `storage.path`, for a backup. To be released.
    pub async fn link_state(&self) -> Result<PathBuf, StoreError> {
        let linked = self.0.keeper.link_state().await;
        linked.unwrap_or(Err(StoreError::Stopped))
    }

    /// Removes the links of one [`Store::link_state`], by the directory's name.
    pub fn release_state(&self, name: &str) -> Result<(), StoreError> {
        if name.is_empty() || name.contains(['/', '.']) {
            return Err(StoreError::Gone(name.to_owned()));
        }
        checkpoint::release(&self.0.shared.layout.backup_root().join(name))
    }

    /// Whether the journal has been replayed: until then queries may miss lines.
    pub fn is_recovered(&self) -> bool {
        self.0.shared.recovered.load(Ordering::Acquire)
    }

    /// Whether it can't go on: the process ends.
    pub fn is_failed(&self) -> bool {
        self.0.syncer.failure().is_some()
    }

    /// Why nothing is accepted now, when there is too little room.
    pub fn no_room(&self) -> Option<NoRoom> {
        self.0.shared.no_room()
    }

    /// What is wrong and goes on.
    pub fn degraded(&self) -> Vec<String> {
        let mut all = self.0.shared.degraded.lock().clone();
        all.extend(self.0.shared.damage.lines());
        all
    }

    /// Positions of followed files. Complete only after recovery.
    pub fn cursors(&self) -> Vec<Cursor> {
        let open = self.0.shared.open.lock();
        open.cursors
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The tenant's streams that match; all for no matchers.
    pub fn select(&self, tenant: &str, matchers: &[Matcher]) -> Vec<Arc<Stream>> {
        self.0.shared.streams.select(tenant, matchers)
    }

    /// Number of streams known.
    pub fn stream_count(&self) -> usize {
        self.0.shared.streams.len()
    }

    pub fn contains_stream(&self, id: StreamId) -> bool {
        self.0.shared.streams.contains(id)
    }

    /// Logs of a range at one instant: of `wanted` streams, or of all for `None`.
    pub fn logs(
        &self,
        range: TimeRange,
        wanted: Option<&HashSet<StreamId>>,
    ) -> Result<LogSnapshot, StoreError> {
        snapshot::logs(&self.0.shared, range, wanted)
    }

    /// Whether a stream has lines, sealed or not, in the days that a range touches.
    pub fn streams_of_days(&self, range: TimeRange) -> impl Fn(StreamId) -> bool + use<> {
        let days = range.days();
        let open = self.0.shared.open.lock();
        let partitions = open.partitions.values();
        let partitions = partitions
            .filter(|p| p.id.signal == Signal::Logs && days.contains(&p.id.day.0))
            .cloned()
            .collect::<Vec<_>>();
        let heads = open.heads.keys();
        let heads = heads.chain(open.frozen.iter().map(|f| &f.key));
        let heads: HashSet<StreamId> = heads
            .filter(|key| days.contains(&key.day.0))
            .map(|key| key.stream)
            .collect();
        move |id| heads.contains(&id) || partitions.iter().any(|p| p.lists_stream(id))
    }

    /// Number of the next record with lines to enter the heads: while it stays the same,
    /// snapshots have the same lines. Acknowledged lines are below it, but for what a replay
    /// has yet to bring.
    pub fn logs_applied(&self) -> u64 {
        self.0.shared.open.lock().logs_applied
    }

    /// Lets lines of streams be heard as they are taken; until the listener is dropped.
    pub fn listen(
        &self,
        wanted: impl Fn(&Stream) -> bool + Send + Sync + 'static,
    ) -> tail::Listener {
        tail::Listener::set(&self.0.shared, wanted)
    }

    /// Memory for one who listens; `None` when there is no room for more of them.
    pub fn listener_memory(&self, bytes: usize) -> Option<Permit> {
        tail::listener_memory(&self.0.shared, bytes)
    }

    /// The time by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.0.shared.options.clock.now()
    }

    /// Has lines deleted that are there now: from answers at once, from the disk after the
    /// cancel period. Both times are inclusive. Blocks for a sync.
    pub fn delete(
        &self,
        tenant: &str,
        query: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<DeleteRequest, DeleteError> {
        deletion::log::create(&self.0.shared, tenant, query, start, end)
    }

    /// The tenant's delete requests, oldest first.
    pub fn delete_requests(&self, tenant: &str) -> Vec<DeleteRequest> {
        deletion::log::list(&self.0.shared, tenant)
    }

    /// Takes a delete request back; with `force` also one that has begun to erase. Blocks for
    /// a sync.
    pub fn cancel_delete(&self, tenant: &str, id: &str, force: bool) -> Result<(), DeleteError> {
        deletion::log::cancel(&self.0.shared, tenant, id, force)
    }

    /// Keeps something small for another part of the process, in place of what it had under
    /// that name; safe on return. Blocks for a sync.
    pub fn keep(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let pair = (kept_key(name), Some(value.to_vec()));
        self.0.shared.kv.write_meta(&[pair])
    }

    /// What was kept under a name.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let kv = &self.0.shared.kv;
        kv.get(layout::META_FAMILY, &kept_key(name), <[u8]>::to_vec)
    }

    /// Visits `service 00 operation 00 kind` of all spans, maybe repeatedly. Neither blocks nor
    /// what is known of them is read.
    pub fn operations(&self, mut visit: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let (partitions, unsealed) = {
            let open = self.0.shared.open.lock();
            let partitions = open.partitions.values();
            let partitions = partitions.filter(|p| p.id.signal == Signal::Spans).cloned();
            let heads = open.spans.values().map(|head| &head.block);
            let frozen = open.frozen_spans.iter().map(|head| &head.block);
            let unsealed = heads.chain(frozen).flat_map(|b| b.block().operations());
            (partitions.collect::<Vec<_>>(), unsealed.collect::<Vec<_>>())
        };
        unsealed.iter().for_each(|operation| visit(operation));
        for partition in partitions {
            match partition.operations(&mut visit) {
                Ok(()) | Err(StoreError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All spans at one instant.
    pub fn spans(&self) -> Result<SpanSnapshot, StoreError> {
        snapshot::spans(&self.0.shared)
    }

    /// Who called whom, by the starts of the called spans; sorted. Blocks for some milliseconds.
    pub fn dependencies(&self, range: TimeRange) -> Result<Vec<DependencyLink>, StoreError> {
        self.0.linker.dependencies(&self.0.shared, range)
    }

    /// Days that there is something of, oldest first.
    pub fn days(&self, signal: Signal) -> BTreeSet<Day> {
        let open = self.0.shared.open.lock();
        let ours = open.partitions.keys().filter(|id| id.signal == signal);
        let sealed = ours.map(|id| id.day);
        match signal {
            Signal::Logs => {
                let heads = open.heads.keys().map(|key| key.day);
                let frozen = open.frozen.iter().map(|head| head.key.day);
                sealed.chain(heads).chain(frozen).collect()
            }
            Signal::Spans => sealed.chain(open.spans.keys().copied()).collect(),
        }
    }

    /// Names of the days kept, for `/ready` and the log.
    pub fn partitions(&self, signal: Signal) -> Vec<String> {
        let open = self.0.shared.open.lock();
        let ours = open.partitions.values().filter(|p| p.id.signal == signal);
        ours.map(|p| p.name.clone()).collect()
    }

    /// Ends the threads: what was appended is journaled and synced, what is sealed is
    /// flushed, so that the next start has little to replay. Blocks.
    pub fn stop(&self) -> Result<(), StoreError> {
        let shared = &self.0.shared;
        shared.inbox.stop();
        let mut threads = self.0.threads.lock();
        if threads.is_empty() {
            return Ok(());
        }
        // The writer is first: it ends when the inbox is empty and synced.
        let keeper_thread = threads.pop();
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                return Err(StoreError::Failed("the writer panicked".into()));
            }
        }
        self.0.linker.stop();
        let linker = self.0.linker_thread.lock().take();
        if linker.is_some_and(|thread| thread.join().is_err()) {
            return Err(StoreError::Failed("the linker panicked".into()));
        }
        self.0.eraser.stop();
        self.0.keeper.stop();
        if keeper_thread.is_some_and(|thread| thread.join().is_err()) {
            return Err(StoreError::Failed("the keeper panicked".into()));
        }
        let result = keeper::checkpoint(shared);
        // Cuts a compaction short, so that the eraser ends.
        shared.kv.stop();
        let eraser = self.0.eraser_thread.lock().take();
        if eraser.is_some_and(|thread| thread.join().is_err()) {
            return Err(StoreError::Failed("the eraser panicked".into()));
        }
        // What the last checkpoint added to it.
        if let Err(error) = manifest::ManifestCopy::of(&shared.layout).copy() {
            tracing::warn!("no copy of RocksDB's list of files: {error}");
        }
        result
    }
}

fn kept_key(name: &str) -> Vec<u8> {
    [layout::KEPT_PREFIX, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
