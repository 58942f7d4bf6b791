//! The one owner of open state: a command loop on a thread of its own.
//!
//! W1. Order of writes: journal → heads → (seal) chunk and meta into the day's family. What
//!     follows, flush → index → low-water mark → old segments, is the keeper's (keeper.rs).
//! W2. Sealed chunks of one head key are added in the order of their freezing, although the
//!     pool may finish them in another, so that "sealed through" only ever grows.
//! W3. Until replay has caught up with the journal, new records are journaled and acknowledged
//!     but reach the heads through the replay, in their turn: heads are filled in journal
//!     order (H1), and pushes are taken at once after a start.
//! W4. A line is in a head, in a frozen head, or in a catalog: at any time exactly one of them,
//!     changed under one lock.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

use super::checkpoint::link_journal;
use super::damage::{Damage, Kind};
use super::deletion::{Deletion, DeletionLog, Deletions};
use super::error::StoreError;
use super::head::Through;
use super::head::logs::{FrozenHead, Head, HeadKey};
use super::head::recent::RecentSpans;
use super::head::spans::{FrozenSpans, SpanHead};
use super::inbox::{Ack, Append, Inbox, Internal, Next, Payload};
use super::journal::record::{Cursor, RecordKind, decode_batch};
use super::journal::{Journal, Record, Replay};
use super::kv::Kv;
use super::layout::{Layout, PartitionId, Signal};
use super::metrics::StoreMetrics;
use super::options::{Decoded, Options};
use super::partition::Partition;
use super::rewrite::switch::forget_streams;
use super::room::look_at_disk;
use super::seal::{SealedBlock, SealedChunk, seal_logs, seal_spans};
use super::span::{SpanHashes, TagCensus};
use super::streams::Streams;
use super::sync::Syncer;
use super::tail::{Taps, Watch};
use crate::model::Day;
use crate::model::log::LogBatch;
use crate::model::time::SECOND;
use crate::model::trace::SpanBatch;
use crate::runtime::permits::Account;
use crate::runtime::pool::Lane;

/// A head that nobody wrote to for so long is sealed although it is small.
const SEAL_IDLE_AFTER: i64 = 30 * 60 * SECOND;
/// A head is sealed at this age at the latest, so that the journal does not grow old.
const SEAL_AGED_AFTER: i64 = 2 * 3600 * SECOND;
/// How often heads are looked over for age.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Bytes appended between two looks at the disk.
const LOOK_BYTES: u64 = 1 << 20;
/// Heads whose oldest record is in a segment this far back are sealed, whatever their size.
const MAX_JOURNAL: u64 = 128 << 20;
/// Share of the memory budget that open heads may hold: 40 of 256 MiB.
const HEADS_SHARE: usize = 40;
/// Share that frozen heads may hold until the writer takes no more: 24 of 256 MiB.
const FROZEN_SHARE: usize = 24;
const SHARES: usize = 256;

/// Everything that readers see, and that changes together (W4).
#[derive(Default)]
pub struct Open {
    pub heads: HashMap<HeadKey, Box<Head>>,
    pub frozen: Vec<Arc<FrozenHead>>,
    pub spans: BTreeMap<Day, SpanHead>,
    pub frozen_spans: Vec<Arc<FrozenSpans>>,
    pub partitions: BTreeMap<PartitionId, Arc<Partition>>,
    /// Positions of followed files, as the journal has them.
    pub cursors: HashMap<Box<[u8]>, Box<[u8]>>,
    /// Number of the next record to enter the heads.
    pub applied: u64,
    /// The same of the latest record with lines that entered.
    pub logs_applied: u64,
    /// Who listens to what enters the heads.
    pub taps: Taps,
    /// Delete requests that readers apply.
    pub deletions: Deletions,
    /// Those of them for which heads have still to be sealed (E1 of deletion/mod.rs).
    pub unfrozen: Vec<Arc<Deletion>>,
}

impl Open {
    /// The lowest journal record that is not wholly in partitions.
    pub fn low_water(&self) -> u64 {
        let heads = self.heads.values().map(|h| h.first_seq);
        let frozen = self.frozen.iter().map(|h| h.first_seq);
        let spans = self.spans.values().map(|h| h.first_seq);
        let frozen_spans = self.frozen_spans.iter().map(|h| h.first_seq);
        let lowest = heads.chain(frozen).chain(spans).chain(frozen_spans).min();
        lowest.map_or(self.applied, |seq| seq.min(self.applied))
    }
}

/// What the writer, the keeper and readers share.
pub struct Shared {
    pub options: Options,
    pub layout: Layout,
    pub kv: Arc<Kv>,
    pub streams: Streams,
    pub open: Mutex<Open>,
    pub inbox: Arc<Inbox>,
    pub metrics: StoreMetrics,
    pub heads_account: Account,
    /// Lines on their way to who listens.
    pub tails_account: Account,
    /// What readers hold of catalogs that are too large to be kept.
    pub readers_account: Account,
    /// What tantivy's writer holds while it commits.
    pub index_account: Account,
    /// Replay has caught up.
    pub recovered: AtomicBool,
    /// The disk has less than `min_free_bytes` left.
    pub disk_full: AtomicBool,
    /// The newest day alone is above `max_bytes`.
    pub over_limit: AtomicBool,
    pub journal_bytes: AtomicU64,
    /// The open segment of the journal: to sync it makes everything safe that is in the heads.
    pub journal_file: Mutex<Arc<File>>,
    /// Text of chunks and blocks sealed since the keeper's last round.
    pub sealed_bytes: AtomicU64,
    /// What is wrong and goes on: shown by `/ready`.
    pub degraded: Mutex<Vec<String>>,
    /// What of the stored data can't be read; shown beside it.
    pub damage: Arc<Damage>,
    pub deletions: DeletionLog,
    /// Of the days that were rewritten, as `meta` has it (rewrite/generation.rs).
    pub generations: Mutex<HashMap<PartitionId, u32>>,
}

impl Shared {
    /// The partition, created when it does not exist.
    pub fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, StoreError> {
        if let Some(partition) = self.open.lock().partitions.get(&id) {
            return Ok(partition.clone());
        }
        // Only the writer creates partitions, so nobody else does between the two locks.
        // A day that was dropped begins again as what `meta` still says.
        let generation = self.generations.lock().get(&id).copied().unwrap_or(0);
        let partition = Partition::create(id, generation, self.kv.clone(), &self.layout)?;
        let partition = Arc::new(partition);
        self.open.lock().partitions.insert(id, partition.clone());
        Ok(partition)
    }

    /// First day of which retention may keep something.
    pub fn first_kept_day(&self, signal: Signal) -> Option<Day> {
        let options = &self.options;
        let longest = options.retention_rules.longest(options.retention, signal)?;
        let retention = i64::try_from(longest.as_nanos()).unwrap_or(i64::MAX);
        Some(Day::of(self.options.clock.now().saturating_sub(retention)))
    }

    /// Whether some streams are kept for another time than their day is.
    pub fn has_rules(&self) -> bool {
        !self.options.retention_rules.logs.is_empty()
    }

    pub fn degrade(&self, what: String) {
        tracing::error!("{what}");
        let mut degraded = self.degraded.lock();
        if degraded.len() < 100 && !degraded.contains(&what) {
            degraded.push(what);
        }
    }

    /// What begins so is over.
    pub fn mend(&self, what: &str) {
        let mut degraded = self.degraded.lock();
        let before = degraded.len();
        degraded.retain(|known| !known.starts_with(what));
        if degraded.len() < before {
            tracing::info!("over: {what}");
        }
    }
}

/// One frozen head on its way: where it ends, and its sealed form once the pool has made it.
type Sealing<T> = (Through, Option<Box<T>>);

/// Frozen heads by key, oldest first: gives them back in that order, in whatever order the
/// pool finishes them (W2).
struct SealOrder<K, T>(HashMap<K, VecDeque<Sealing<T>>>);

impl<K, T> Default for SealOrder<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq, T> SealOrder<K, T> {
    /// A head of this key was frozen.
    fn begin(&mut self, key: K, through: Through) {
        self.0.entry(key).or_default().push_back((through, None));
    }

    /// The head was sealed: what can be stored now, oldest first.
    fn finish(&mut self, key: K, through: Through, sealed: Box<T>) -> Vec<Box<T>> {
        let Some(queue) = self.0.get_mut(&key) else {
            return Vec::new();
        };
        if let Some(slot) = queue.iter_mut().find(|(t, _)| *t == through) {
            slot.1 = Some(sealed);
        }
        let mut ready = Vec::new();
        while queue.front().is_some_and(|(_, sealed)| sealed.is_some()) {
            ready.extend(queue.pop_front().and_then(|(_, sealed)| sealed));
        }
        if queue.is_empty() {
            self.0.remove(&key);
        }
        ready
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// State of the writer thread alone.
pub struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    syncer: Arc<Syncer>,
    /// Reads the journal until it has caught up (W3).
    replay: Option<Replay>,
    /// First record of this process: older ones are nothing new to who listens.
    first_own: u64,
    /// During replay: what each head's day holds already.
    sealed_through: HashMap<HeadKey, Option<Through>>,
    spans_sealed_through: HashMap<Day, Option<Through>>,
    span_hasher: RandomState,
    span_hashes: SpanHashes,
    recent_spans: RecentSpans,
    /// What the pool is sealing (W2).
    sealing: SealOrder<HeadKey, SealedChunk>,
    sealing_spans: SealOrder<Day, SealedBlock>,
    census: (Day, Arc<Mutex<TagCensus>>),
    frozen_bytes: usize,
    /// Heads frozen so far.
    freezes: u64,
    /// Told when the heads frozen before are sealed, with the number of those.
    waiting: Vec<(u64, Ack)>,
    looked_at: Instant,
    /// Bytes written to the journal since the writer looked at the disk.
    unlooked: u64,
    heads_bytes: usize,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, journal: Journal, syncer: Arc<Syncer>, replay: Replay) -> Self {
        shared.open.lock().applied = replay.position();
        shared
            .journal_bytes
            .store(journal.bytes(), Ordering::Relaxed);
        Self {
            shared,
            first_own: journal.next_seq(),
            journal,
            syncer,
            replay: Some(replay),
            sealed_through: HashMap::new(),
            spans_sealed_through: HashMap::new(),
            span_hasher: RandomState::default(),
            span_hashes: SpanHashes::default(),
            recent_spans: RecentSpans::default(),
            sealing: SealOrder::default(),
            sealing_spans: SealOrder::default(),
            census: (Day(0), Arc::default()),
            frozen_bytes: 0,
            freezes: 0,
            waiting: Vec::new(),
            looked_at: Instant::now(),
            unlooked: 0,
            heads_bytes: 0,
        }
    }

    /// Runs until the inbox is stopped; an error is fatal for the store.
    pub fn run(mut self) -> Result<(), StoreError> {
        loop {
            let limit = self.shared.options.budget.limit() / SHARES;
            let room = self.frozen_bytes <= limit * FROZEN_SHARE;
            let patience = if self.replay.is_some() && room {
                Duration::ZERO
            } else {
                LOOK_EVERY
            };
            match self.shared.inbox.next(room, patience) {
                Next::Internal(internal) => self.internal(internal)?,
                Next::Group(group) => self.append(group)?,
                Next::Idle => {}
                Next::End => {
                    // What is open or frozen is in the journal; it need not be waited for.
                    self.syncer.stop();
                    return self.journal.close();
                }
            }
            if room && self.replay.is_some() {
                self.replay_one()?;
            }
            if self.heads_bytes > limit * HEADS_SHARE {
                self.freeze_largest(limit * HEADS_SHARE * 3 / 4);
            }
            if self.looked_at.elapsed() >= LOOK_EVERY {
                self.looked_at = Instant::now();
                self.freeze_aged();
            }
            self.shared
                .heads_account
                .set(self.heads_bytes + self.frozen_bytes + self.recent_spans.memory());
        }
    }

    fn internal(&mut self, internal: Internal) -> Result<(), StoreError> {
        match internal {
            Internal::Chunk(sealed) => self.chunk_sealed(sealed)?,
            Internal::Block(sealed) => self.block_sealed(sealed)?,
            Internal::SealFailed(error) => return Err(error),
            Internal::Freeze(ack) => {
                self.freeze_where(|_| true);
                self.freeze_spans();
                self.waiting.push((self.freezes, ack));
            }
            Internal::FreezeOld => {
                let keep = self.journal.segments().iter().rev();
                let mut bytes = 0;
                let newer = keep.take_while(|s| {
                    bytes += s.bytes;
                    bytes < MAX_JOURNAL / 2
                });
                if let Some(from) = newer.last().map(|s| s.first_seq) {
                    self.freeze_where(|head| head.first_seq < from);
                    self.freeze_spans();
                }
            }
            Internal::FreezeDeleted => {
                let shared = self.shared.clone();
                let mut open = shared.open.lock();
                let applied = open.applied;
                self.freeze_deleted(&mut open, applied);
            }
            Internal::Rotate => match self.journal.rotate_used() {
                Ok(()) => {}
                Err(error @ StoreError::Failed(_)) => return Err(error),
                // The open segment goes on.
                Err(error) => tracing::warn!("no new segment of the journal: {error}"),
            },
            Internal::LinkJournal(dir, done) => {
                let linked = match self.journal.rotate_used() {
                    Err(error @ StoreError::Failed(_)) => return Err(error),
                    rotated => rotated.and_then(|()| link_journal(self.journal.segments(), &dir)),
                };
                // Whoever asked may have gone.
                let _ = done.send(linked);
            }
            Internal::Forget(low_water) => {
                self.journal.forget(low_water)?;
                self.shared
                    .journal_bytes
                    .store(self.journal.bytes(), Ordering::Relaxed);
            }
            Internal::Retain => self.retain(),
            Internal::Drop(days) => self.drop_days(&days),
            Internal::DropExpired(partition, next, told) => {
                let _ = told.send(self.drop_expired(&partition, next));
            }
            Internal::Switch(switch) => switch.run(&self.shared)?,
        }
        self.tell_waiting();
        Ok(())
    }

    /// Acknowledges those for whom everything is sealed that was frozen when they asked; what
    /// was frozen since does not concern them.
    fn tell_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let oldest = {
            let open = self.shared.open.lock();
            let frozen = open.frozen.iter().map(|f| f.order);
            frozen
                .chain(open.frozen_spans.iter().map(|f| f.order))
                .min()
                .unwrap_or(u64::MAX)
        };
        for (_, ack) in self
            .waiting
            .extract_if(.., |(freezes, _)| *freezes <= oldest)
        {
            let _ = ack.send(Ok(()));
        }
    }

    /// Journals a group, fills the heads, and hands over to the syncer.
    fn append(&mut self, group: Vec<Append>) -> Result<(), StoreError> {
        if self.unlooked >= LOOK_BYTES {
            self.unlooked = 0;
            look_at_disk(&self.shared);
        }
        if let Some(no_room) = self.shared.no_room() {
            let error = StoreError::Full(no_room.to_string());
            for append in group {
                let _ = append.ack.send(Err(error.clone()));
            }
            return Ok(());
        }
        let now = self.shared.options.clock.now();
        let bodies: Vec<_> = group.iter().map(|append| &append.body).collect();
        let first_seq = self.journal.next_seq();
        let bytes: u64 = bodies.iter().map(|body| body.bytes.len() as u64).sum();
        if acknowledge_unwritten() {
            for append in group {
                let _ = append.ack.send(Ok(()));
            }
            return Ok(());
        }
        match self.journal.append(now, &bodies) {
            Ok(()) => {}
            Err(error @ StoreError::Failed(_)) => return Err(error),
            Err(error) => {
                self.shared.metrics.journal_errors.inc();
                for append in group {
                    let _ = append.ack.send(Err(error.clone()));
                }
                return Ok(());
            }
        }
        // Before the heads have it: whoever reads them may sync what they hold.
        *self.shared.journal_file.lock() = self.journal.file();
        self.unlooked += bytes;
        self.shared.metrics.journal_bytes.inc_by(bytes);
        self.shared
            .journal_bytes
            .store(self.journal.bytes(), Ordering::Relaxed);
        let mut acks = Vec::with_capacity(group.len());
        let mut permits = Vec::new();
        let live = self.replay.is_none();
        for (append, seq) in group.into_iter().zip(first_seq..) {
            if live {
                match append.payload {
                    Payload::Logs(batch, cursors) => self.apply_logs(seq, &batch, cursors)?,
                    Payload::Spans(batch) => self.apply_spans(seq, Day::of(now), &batch)?,
                }
            }
            acks.push(append.ack);
            permits.extend(append.permit);
        }
        self.syncer.written(self.journal.file(), bytes, acks);
        drop(permits);
        Ok(())
    }

    /// Fills the heads from one record of the journal.
    fn replay_one(&mut self) -> Result<(), StoreError> {
        let Some(replay) = &mut self.replay else {
            return Ok(());
        };
        let record = replay.next(&self.journal)?;
        for (path, what) in replay.damaged.drain(..) {
            self.shared.metrics.journal_damaged.inc();
            self.shared.damage.count(Kind::Journal);
            self.shared
                .degrade(format!("journal segment {}: {what}", path.display()));
        }
        let Some(record) = record else {
            let records = replay.position();
            self.replay = None;
            self.sealed_through = HashMap::new();
            self.spans_sealed_through = HashMap::new();
            let shared = self.shared.clone();
            let mut open = shared.open.lock();
            open.applied = self.journal.next_seq();
            let applied = open.applied;
            self.freeze_deleted(&mut open, applied);
            shared.recovered.store(true, Ordering::Release);
            tracing::info!(
                next_record = records,
                "replay has caught up with the journal"
            );
            return Ok(());
        };
        self.shared.metrics.replayed_records.inc();
        match self.decode(&record) {
            Ok(Decoded::Logs(batch, cursors)) => {
                self.apply_logs(record.header.seq, &batch, cursors)
            }
            Ok(Decoded::Spans(batch)) => self.apply_spans(
                record.header.seq,
                Day::of(record.header.received_at),
                &batch,
            ),
            Err(what) => {
                self.shared.metrics.journal_damaged.inc();
                self.shared.damage.count(Kind::Journal);
                let seq = record.header.seq;
                self.shared.degrade(format!("journal record {seq}: {what}"));
                self.shared.open.lock().applied = seq + 1;
                Ok(())
            }
        }
    }

    fn decode(&self, record: &Record) -> Result<Decoded, String> {
        if record.header.kind == RecordKind::LogsOwn {
            return decode_batch(&record.body)
                .map(|(batch, cursors)| Decoded::Logs(batch, cursors));
        }
        (self.shared.options.decoder)(record)
    }

    fn apply_logs(
        &mut self,
        seq: u64,
        batch: &LogBatch,
        cursors: Vec<Cursor>,
    ) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let now = shared.options.clock.now();
        let first_kept = shared.first_kept_day(Signal::Logs);
        let replaying = self.replay.is_some();
        let mut number = 0u32;
        let (mut stored, mut repeated) = (0u64, 0u64);
        let mut full = Vec::new();
        let mut open = shared.open.lock();
        let mut watch = Watch::default();
        if seq >= self.first_own {
            watch = Watch::begin(&open.taps);
        }
        self.freeze_deleted(&mut open, seq);
        for entries in &batch.streams {
            let mut rest = &entries.entries[..];
            while let Some(first) = rest.first() {
                // A run of lines of one day; nearly always all of them.
                let day = Day::of(first.at);
                let days = day.start()..day.end();
                let run = rest
                    .iter()
                    .position(|e| !days.contains(&e.at))
                    .unwrap_or(rest.len());
                let (lines, later) = rest.split_at(run);
                rest = later;
                let first_number = number;
                number += run as u32;
                if first_kept.is_some_and(|kept| day < kept) {
                    // Already accepted, and expired since: replay of an old journal.
                    continue;
                }
                let key = HeadKey {
                    day,
                    stream: entries.id,
                };
                let mut done = None;
                if replaying {
                    done = match self.sealed_through.get(&key) {
                        Some(done) => *done,
                        None => {
                            let id = PartitionId {
                                signal: Signal::Logs,
                                day,
                            };
                            let done = match open.partitions.get(&id) {
                                Some(partition) => partition.sealed_through(key.stream)?,
                                None => None,
                            };
                            self.sealed_through.insert(key, done);
                            done
                        }
                    };
                }
                // What a head takes before its first line counts as well: it is given back with it.
                let (head, before) = match open.heads.entry(key) {
                    Entry::Occupied(known) => {
                        let head = known.into_mut();
                        let before = head.memory();
                        (head, before)
                    }
                    Entry::Vacant(place) => {
                        let (tenant, labels) = (&batch.tenant, &entries.labels);
                        let stream = shared.streams.register(tenant, entries.id, labels);
                        (place.insert(Box::new(Head::new(stream, seq, now))), 0)
                    }
                };
                let watched = watch.wants(&head.stream);
                for (line, n) in lines.iter().zip(first_number..) {
                    let through = Through { seq, entry: n };
                    if done.is_some_and(|done| through <= done) {
                        continue;
                    }
                    if head.push(line.at, batch.line(line), batch.metadata(line), through) {
                        stored += 1;
                        if watched {
                            watch.push(line.at, batch.line(line), batch.metadata(line));
                        }
                    } else {
                        repeated += 1;
                    }
                }
                head.touched_at = now;
                self.heads_bytes = self.heads_bytes + head.memory() - before;
                if head.is_full() {
                    full.push(key);
                }
                if head.lines() == 0 {
                    self.heads_bytes = self.heads_bytes.saturating_sub(head.memory());
                    open.heads.remove(&key);
                }
            }
        }
        for (key, value) in cursors {
            open.cursors.insert(key, value);
        }
        open.applied = seq + 1;
        open.logs_applied = seq + 1;
        for key in full {
            self.freeze(&mut open, key);
        }
        drop(open);
        let budget = shared.options.budget.limit();
        let dropped = watch.publish(seq, &shared.tails_account, budget);
        shared.metrics.tail_dropped_lines.inc_by(dropped);
        shared.metrics.lines_stored.inc_by(stored);
        shared.metrics.lines_repeated.inc_by(repeated);
        Ok(())
    }

    fn apply_spans(&mut self, seq: u64, day: Day, batch: &SpanBatch) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let now = shared.options.clock.now();
        let mut open = shared.open.lock();
        open.applied = seq + 1;
        if self.expired(Signal::Spans, day) {
            return Ok(());
        }
        let mut done = None;
        if self.replay.is_some() {
            done = match self.spans_sealed_through.get(&day) {
                Some(done) => *done,
                None => {
                    let id = PartitionId {
                        signal: Signal::Spans,
                        day,
                    };
                    let done = match open.partitions.get(&id) {
                        Some(partition) => partition.spans_sealed_through()?,
                        None => None,
                    };
                    self.spans_sealed_through.insert(day, done);
                    done
                }
            };
        }
        let (mut stored, mut repeated) = (0u64, 0u64);
        for (span, entry) in batch.spans.iter().zip(0..) {
            let through = Through { seq, entry };
            let likeness = self.span_hashes.take(&self.span_hasher, span);
            // Also of what is sealed: its repetitions may be behind it in the journal.
            let repeats = self.recent_spans.repeats(day, likeness);
            if done.is_some_and(|done| through <= done) {
                continue;
            }
            if repeats {
                repeated += 1;
                if let Some(head) = open.spans.get_mut(&day) {
                    head.through = through;
                }
                continue;
            }
            let head = open
                .spans
                .entry(day)
                .or_insert_with(|| SpanHead::new(seq, now, self.span_hasher.clone()));
            let before = head.memory();
            head.push(span, &self.span_hashes, through);
            self.heads_bytes = (self.heads_bytes + head.memory()).saturating_sub(before);
            stored += 1;
            if head.is_full() {
                self.freeze_span_head(&mut open, day);
            }
        }
        drop(open);
        shared.metrics.spans_stored.inc_by(stored);
        shared.metrics.spans_repeated.inc_by(repeated);
        Ok(())
    }

    /// Takes a head out of the open ones and gives it to the pool.
    fn freeze(&mut self, open: &mut Open, key: HeadKey) {
        let Some(head) = open.heads.remove(&key) else {
            return;
        };
        self.heads_bytes = self.heads_bytes.saturating_sub(head.memory());
        let frozen = Arc::new(head.freeze(key, self.freezes));
        self.freezes += 1;
        self.frozen_bytes += frozen.memory;
        open.frozen.push(frozen.clone());
        self.sealing.begin(key, frozen.through);
        let shared = self.shared.clone();
        let mine = shared.options.mine_patterns;
        self.shared.options.pool.detach(Lane::First, move || {
            let sealed = std::panic::catch_unwind(|| seal_logs(&frozen, mine));
            shared.inbox.push_internal(match sealed {
                Ok(Ok(sealed)) => Internal::Chunk(Box::new(sealed)),
                Ok(Err(error)) => Internal::SealFailed(error),
                Err(_) => Internal::SealFailed(StoreError::Failed("sealing panicked".into())),
            });
        });
    }

    /// Seals the heads with lines that a delete request selects, before a line of record `seq`
    /// enters them (E1 of deletion/mod.rs).
    fn freeze_deleted(&mut self, open: &mut Open, seq: u64) {
        if open.unfrozen.is_empty() {
            return;
        }
        let due: Vec<Arc<Deletion>> = open
            .unfrozen
            .extract_if(.., |d| d.request.before <= seq)
            .collect();
        for deletion in due {
            let concerned = open.heads.iter().filter(|(_, head)| {
                deletion.reaches(head.through.seq, head.min, head.max)
                    && deletion.matches(&head.stream)
            });
            let keys: Vec<HeadKey> = concerned.map(|(key, _)| *key).collect();
            for key in keys {
                self.freeze(open, key);
            }
        }
    }

    fn freeze_span_head(&mut self, open: &mut Open, day: Day) {
        let Some(head) = open.spans.remove(&day) else {
            return;
        };
        self.heads_bytes = self.heads_bytes.saturating_sub(head.memory());
        let frozen = Arc::new(head.freeze(day, self.freezes));
        self.freezes += 1;
        self.frozen_bytes += frozen.memory;
        open.frozen_spans.push(frozen.clone());
        self.sealing_spans.begin(day, frozen.through);
        let shared = self.shared.clone();
        let census = self.census(day);
        self.shared.options.pool.detach(Lane::First, move || {
            let seal = std::panic::AssertUnwindSafe(|| seal_spans(&frozen, &census));
            shared
                .inbox
                .push_internal(match std::panic::catch_unwind(seal) {
                    Ok(sealed) => Internal::Block(Box::new(sealed)),
                    Err(_) => Internal::SealFailed(StoreError::Failed("sealing panicked".into())),
                });
        });
    }

    /// Which tags have too many values for the index, of the newest day only: they are asked
    /// for day by day.
    fn census(&mut self, day: Day) -> Arc<Mutex<TagCensus>> {
        if self.census.0 != day {
            self.census = (day, Arc::default());
        }
        self.census.1.clone()
    }

    fn freeze_where(&mut self, which: impl Fn(&Head) -> bool) {
        let shared = self.shared.clone();
        let mut open = shared.open.lock();
        let keys: Vec<HeadKey> = open
            .heads
            .iter()
            .filter(|(_, head)| which(head))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.freeze(&mut open, key);
        }
    }

    fn freeze_spans(&mut self) {
        let shared = self.shared.clone();
        let mut open = shared.open.lock();
        let days: Vec<Day> = open.spans.keys().copied().collect();
        for day in days {
            self.freeze_span_head(&mut open, day);
        }
    }

    /// Seals the largest heads until the rest holds at most `target` bytes.
    fn freeze_largest(&mut self, target: usize) {
        let shared = self.shared.clone();
        let mut open = shared.open.lock();
        let mut sizes: Vec<(usize, HeadKey)> = open
            .heads
            .iter()
            .map(|(key, head)| (head.memory(), *key))
            .collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in sizes {
            if self.heads_bytes <= target {
                break;
            }
            self.freeze(&mut open, key);
        }
    }

    fn freeze_aged(&mut self) {
        let now = self.shared.options.clock.now();
        let aged = |opened: i64, touched: i64| {
            now.saturating_sub(opened) > SEAL_AGED_AFTER
                || now.saturating_sub(touched) > SEAL_IDLE_AFTER
        };
        self.freeze_where(|head| aged(head.opened_at, head.touched_at));
        let spans_aged = self
            .shared
            .open
            .lock()
            .spans
            .values()
            .any(|head| aged(head.opened_at, now));
        if spans_aged {
            self.freeze_spans();
        }
    }

    fn chunk_sealed(&mut self, sealed: Box<SealedChunk>) -> Result<(), StoreError> {
        let key = sealed.key;
        let ready = self.sealing.finish(key, sealed.through, sealed);
        for sealed in ready {
            let id = PartitionId {
                signal: Signal::Logs,
                day: key.day,
            };
            // Under a rule a stream goes before its day: what is sealed now would go at once.
            let expires_at = sealed.stream.kept.expires_at(sealed.meta.max);
            if self.expired(Signal::Logs, key.day)
                || self.shared.has_rules() && expires_at <= self.shared.options.clock.now()
            {
                let mut open = self.shared.open.lock();
                open.frozen
                    .retain(|f| f.key != key || f.through != sealed.through);
                self.frozen_bytes = open.frozen.iter().map(|f| f.memory).sum::<usize>()
                    + open.frozen_spans.iter().map(|f| f.memory).sum::<usize>();
                continue;
            }
            let partition = self.shared.partition(id)?;
            self.shared.metrics.chunks_sealed.inc();
            self.shared
                .metrics
                .sealed_line_bytes
                .inc_by(sealed.meta.line_bytes);
            self.shared
                .metrics
                .sealed_stored_bytes
                .inc_by(u64::from(sealed.meta.stored_bytes));
            self.shared
                .sealed_bytes
                .fetch_add(sealed.chunk.len() as u64, Ordering::Relaxed);
            let through = sealed.through;
            let mut open = self.shared.open.lock();
            partition.add_chunk(*sealed)?;
            if let Some(at) = open
                .frozen
                .iter()
                .position(|f| f.key == key && f.through == through)
            {
                let frozen = open.frozen.swap_remove(at);
                self.frozen_bytes = self.frozen_bytes.saturating_sub(frozen.memory);
            }
        }
        Ok(())
    }

    /// Whether retention has dropped the day, or is about to: what is sealed for it now must
    /// not bring it back.
    fn expired(&self, signal: Signal, day: Day) -> bool {
        let kept = self.shared.first_kept_day(signal);
        kept.is_some_and(|kept| day < kept)
    }

    fn block_sealed(&mut self, sealed: Box<SealedBlock>) -> Result<(), StoreError> {
        let day = sealed.day;
        let ready = self.sealing_spans.finish(day, sealed.through, sealed);
        for sealed in ready {
            let id = PartitionId {
                signal: Signal::Spans,
                day,
            };
            if self.expired(Signal::Spans, day) {
                let mut open = self.shared.open.lock();
                open.frozen_spans.retain(|f| f.through != sealed.through);
                self.frozen_bytes = open.frozen.iter().map(|f| f.memory).sum::<usize>()
                    + open.frozen_spans.iter().map(|f| f.memory).sum::<usize>();
                continue;
            }
            let partition = self.shared.partition(id)?;
            self.shared.metrics.blocks_sealed.inc();
            self.shared
                .metrics
                .summary_bytes
                .inc_by(sealed.summary.len() as u64);
            self.shared
                .sealed_bytes
                .fetch_add(sealed.block.len() as u64, Ordering::Relaxed);
            let through = sealed.through;
            let mut open = self.shared.open.lock();
            partition.add_block(*sealed)?;
            if let Some(at) = open.frozen_spans.iter().position(|f| f.through == through) {
                let frozen = open.frozen_spans.swap_remove(at);
                self.frozen_bytes = self.frozen_bytes.saturating_sub(frozen.memory);
            }
        }
        Ok(())
    }

    /// Drops the days that retention no longer keeps.
    fn retain(&mut self) {
        let expired = {
            let open = self.shared.open.lock();
            let days = open.partitions.keys().copied();
            super::retention::expired(days, |signal| self.shared.first_kept_day(signal))
        };
        self.drop_days(&expired);
    }

    /// Drops a day of which everything has expired, unless something came since that was found.
    fn drop_expired(&mut self, partition: &Arc<Partition>, next: u32) -> bool {
        let id = partition.id;
        {
            let open = self.shared.open.lock();
            let current = open.partitions.get(&id);
            let is_current = current.is_some_and(|p| Arc::ptr_eq(p, partition));
            let in_heads = open.heads.keys().any(|key| key.day == id.day)
                || open.frozen.iter().any(|f| f.key.day == id.day);
            if !is_current || in_heads || partition.next_number() != next {
                return false;
            }
        }
        tracing::info!(day = %id, "everything in it has expired");
        self.drop_days(&[id]);
        true
    }

    /// Takes days out of everything that readers see; their files go with the last of those (D2).
    fn drop_days(&mut self, days: &[PartitionId]) {
        let mut open = self.shared.open.lock();
        let mut dropped = Vec::new();
        for id in days {
            // A head of that day would create it again.
            open.heads
                .retain(|key, _| id.signal != Signal::Logs || key.day != id.day);
            if id.signal == Signal::Spans {
                open.spans.remove(&id.day);
            }
            dropped.extend(open.partitions.remove(id));
        }
        if dropped.is_empty() {
            return;
        }
        self.heads_bytes = open.heads.values().map(|head| head.memory()).sum();
        self.heads_bytes += open.spans.values().map(SpanHead::memory).sum::<usize>();
        drop(open);
        forget_streams(&self.shared);
        for partition in dropped {
            self.shared.metrics.partitions_dropped.inc();
            partition.mark_dropped();
        }
    }
}

/// A fail point for the crash test, which must notice it: acknowledging before writing.
fn acknowledge_unwritten() -> bool {
    fail::fail_point!("ack-before-journal", |_| true);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_out_of_turn_waits_for_its_turn() {
        let at = |seq| Through { seq, entry: 0 };
        let mut order = SealOrder::default();
        for seq in 1..=3 {
            order.begin("a", at(seq));
        }
        order.begin("b", at(9));
        assert!(order.finish("a", at(3), Box::new(3)).is_empty());
        assert_eq!(order.finish("b", at(9), Box::new(9)), [Box::new(9)]);
        assert_eq!(order.finish("a", at(1), Box::new(1)), [Box::new(1)]);
        assert_eq!(
            order.finish("a", at(2), Box::new(2)),
            [Box::new(2), Box::new(3)]
        );
        assert!(order.is_empty());
    }
}
