//! One day of one signal: its chunks or blocks, its index, its end.
//!
//! What of it can't be read is noted (`damage.rs`) and left out; the rest of the day serves, and
//! takes what is new.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::chunk::{ChunkMeta, StreamSum};
use super::damage::{Damage, Kind};
use super::error::StoreError;
use super::head::Through;
use super::index::DayIndex;
use super::kv::{Batch, Creation, Keep, Kv};
use super::layout::{
    Layout, PartitionId, Signal, first_of_run_key, number_key, number_of_key, prefix, run_key,
    stream_key,
};
use super::operations::Operations;
use super::seal::{SealedBlock, SealedChunk};
use super::span::BlockMeta;
use super::span::links::Links;
use super::span::run::{TagHash, TagRun, look_up};
use super::streams::{Stream, encode_stream};
use crate::model::StreamId;
use crate::runtime::permits::{Account, Permit};

/// Of a gram filter in the cache, as a rule: 24.4 MB of 3,800 chunks (docs/benchmarks.md).
const FILTER_BYTES: usize = 6500;
/// Metas are kept in runs of this many, so that a snapshot copies a few pointers.
const RUN: usize = 1024;

/// Numbers left out behind a damaged table: what it held of the day is not known, and a number
/// must never be used twice.
const GAP: u32 = 1 << 16;

/// Blocks whose links are kept until the linker asks for them; 5 MiB or so.
const MAX_UNLINKED: usize = 256;

/// What is known of a chunk or block without reading it.
pub trait Meta {
    /// What many have together.
    type Sums: std::fmt::Debug;
}

impl Meta for ChunkMeta {
    type Sums = Box<[StreamSum]>;
}

impl Meta for BlockMeta {
    type Sums = BlockMeta;
}

/// An immutable list of metas in order of number; cheap to clone.
#[derive(Debug)]
pub struct Catalog<M: Meta>(Vec<Arc<Run<M>>>);

/// Some metas, and what they have together.
#[derive(Debug)]
pub struct Run<M: Meta> {
    metas: Vec<Arc<M>>,
    /// Made when first asked for; gone when a meta changes.
    sums: OnceLock<M::Sums>,
}

impl<M: Meta> Run<M> {
    pub fn metas(&self) -> &[Arc<M>] {
        &self.metas
    }

    /// The metas, to be changed.
    fn change(run: &mut Arc<Self>) -> &mut Vec<Arc<M>> {
        let run = Arc::make_mut(run);
        run.sums = OnceLock::new();
        &mut run.metas
    }
}

impl<M: Meta> Clone for Run<M> {
    fn clone(&self) -> Self {
        Self {
            metas: self.metas.clone(),
            sums: OnceLock::new(),
        }
    }
}

impl Run<ChunkMeta> {
    /// What the run has of each stream, in order of streams.
    pub fn sums(&self) -> &[StreamSum] {
        self.sums.get_or_init(|| StreamSum::of(&self.metas))
    }
}

impl Run<BlockMeta> {
    /// Times and durations between which those of its blocks lie.
    pub fn bounds(&self) -> &BlockMeta {
        self.sums.get_or_init(|| BlockMeta::around(&self.metas))
    }
}

impl<M: Meta> Default for Catalog<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Meta> Clone for Catalog<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Meta> Catalog<M> {
    fn push(&mut self, meta: Arc<M>) {
        match self.0.last_mut() {
            Some(run) if run.metas.len() < RUN => Run::change(run).push(meta),
            _ => self.0.push(Arc::new(Run {
                metas: vec![meta],
                sums: OnceLock::new(),
            })),
        }
    }

    /// All metas, in order of number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<M>> {
        self.0.iter().flat_map(|run| run.metas.iter())
    }

    /// The same in runs.
    pub fn runs(&self) -> impl Iterator<Item = &Run<M>> {
        self.0.iter().map(|run| &**run)
    }

    /// The meta at a place; one with number `n` stands at `n`, unless one before it is missing.
    pub fn get(&self, place: usize) -> Option<&Arc<M>> {
        self.0.get(place / RUN)?.metas.get(place % RUN)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.metas.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<M: Meta> FromIterator<M> for Catalog<M> {
    /// In order of number.
    fn from_iter<I: IntoIterator<Item = M>>(metas: I) -> Self {
        let mut catalog = Self::default();
        metas
            .into_iter()
            .for_each(|meta| catalog.push(Arc::new(meta)));
        catalog
    }
}

impl Catalog<ChunkMeta> {
    /// Puts another meta, or none, in the place of the one with this number.
    fn replace(&mut self, number: u32, meta: Option<Arc<ChunkMeta>>) {
        let last = |run: &Arc<Run<ChunkMeta>>| run.metas.last().map_or(0, |m| m.number);
        let at = self.0.partition_point(|run| last(run) < number);
        let Some(run) = self.0.get_mut(at) else {
            return;
        };
        let Ok(place) = run.metas.binary_search_by_key(&number, |m| m.number) else {
            return;
        };
        let metas = Run::change(run);
        match meta {
            Some(meta) => metas[place] = meta,
            None => {
                metas.remove(place);
                if metas.is_empty() {
                    self.0.remove(at);
                }
            }
        }
    }
}

/// Bytes of metas that a reader of a large catalog books at a time.
const BOOKED_AT_ONCE: usize = 256 << 10;

/// What a reader wants of a day's chunks.
pub struct Wanted {
    pub catalog: Catalog<ChunkMeta>,
    /// Number of the first chunk that was not looked at.
    below: u32,
    /// What it holds of a large catalog; `None`: the catalog is the day's own.
    pub permit: Option<Permit>,
}

impl Wanted {
    fn grow(&mut self, bytes: usize) -> Result<(), StoreError> {
        let grown = self.permit.as_mut().map(|permit| permit.try_grow(bytes));
        grown.unwrap_or(Ok(())).map_err(StoreError::memory)
    }
}

/// A chunk with all that is kept of it.
pub struct StoredChunk {
    /// Its number is given by the partition.
    pub meta: ChunkMeta,
    pub data: Box<[u8]>,
    pub filter: Box<[u8]>,
    pub patterns: Option<Box<[u8]>>,
    /// Distinct words with a blank between them, for the index.
    pub words: String,
}

/// A day of one signal.
///
/// D1. A chunk is in the family before it is in the catalog.
/// D2. A partition that retention dropped leaves new snapshots at once; its files go when
///     the last snapshot that holds it lets go.
pub struct Partition {
    pub id: PartitionId,
    /// How often the day was rewritten into a family of its own (rewrite/mod.rs).
    pub generation: u32,
    /// Family and index directory.
    pub name: String,
    kv: Arc<Kv>,
    /// Of its family: a later one is not ours to drop.
    creation: Creation,
    layout: Layout,
    pub index: DayIndex,
    state: Mutex<State>,
    /// Of spans. Locked after `state`.
    operations: Mutex<Operations>,
    dropped: AtomicBool,
    /// When it was last asked for its catalog, by the process's clock, nanoseconds.
    used_at: AtomicI64,
}

#[derive(Default)]
struct State {
    chunks: Option<Catalog<ChunkMeta>>,
    blocks: Option<Catalog<BlockMeta>>,
    /// Streams that the family lists.
    streams: HashSet<StreamId>,
    next_number: u32,
    /// Documents for the index of chunks that may not be flushed yet.
    unindexed: Vec<(u32, String)>,
    /// Tags of the newest blocks of spans, as long as more fit.
    run: Option<TagRun>,
    /// Links of the newest blocks that the linker has not asked for.
    unlinked: VecDeque<(u32, Arc<Links>)>,
    /// Something of the day can't be listed: what is listed stays in memory.
    pinned: bool,
    /// Its catalog would take too much memory to be kept.
    is_large: bool,
    /// Written to since the last flush.
    dirty: bool,
    memory: usize,
}

impl Partition {
    /// Opens a day that exists.
    pub fn open(
        id: PartitionId,
        generation: u32,
        kv: Arc<Kv>,
        layout: &Layout,
    ) -> Result<Self, StoreError> {
        let name = id.family(generation);
        let mut state = State::default();
        if let Some(last) = kv.last_key(&name, prefix::META)? {
            state.next_number = number_of_key(&last).map_or(0, |n| n + 1);
        }
        if id.signal == Signal::Logs {
            kv.scan(&name, &[prefix::STREAM], |key, _| {
                if let Ok(id) = <[u8; 16]>::try_from(&key[1..]) {
                    state.streams.insert(StreamId::from_bytes(id));
                }
                true
            })?;
        }
        if kv.damage().has_table(&name) {
            state.pinned = true;
            let keys = kv.table_keys(&name)?.into_iter();
            let signal = id.signal;
            let numbers = keys
                .flat_map(|(first, last)| [number_in(signal, &first), number_in(signal, &last)]);
            let last = numbers.flatten().max().unwrap_or(0);
            state.next_number = state
                .next_number
                .max(last.saturating_add(1))
                .saturating_add(GAP);
        }
        Ok(Self {
            id,
            generation,
            creation: kv.creation(&name),
            index: DayIndex::new(layout.index_of(&name)),
            layout: layout.clone(),
            name,
            kv,
            state: Mutex::new(state),
            operations: Mutex::default(),
            dropped: AtomicBool::new(false),
            used_at: AtomicI64::new(0),
        })
    }

    /// Creates the day, or opens it when it exists.
    pub fn create(
        id: PartitionId,
        generation: u32,
        kv: Arc<Kv>,
        layout: &Layout,
    ) -> Result<Self, StoreError> {
        kv.create_family(&id.family(generation))?;
        let partition = Self::open(id, generation, kv, layout)?;
        {
            // A new day's catalog grows with it: nothing has to be loaded for the first query.
            let mut state = partition.state.lock();
            if state.next_number == 0 {
                match id.signal {
                    Signal::Logs => state.chunks = Some(Catalog::default()),
                    Signal::Spans => {
                        state.blocks = Some(Catalog::default());
                        *partition.operations.lock() = Operations::none();
                    }
                }
            }
        }
        Ok(partition)
    }

    /// The streams that the day lists, with their tenant and labels as stored.
    pub fn each_stream(&self, mut visit: impl FnMut(StreamId, &[u8])) -> Result<(), StoreError> {
        self.kv.scan(&self.name, &[prefix::STREAM], |key, value| {
            if let Ok(id) = <[u8; 16]>::try_from(&key[1..]) {
                visit(StreamId::from_bytes(id), value);
            }
            true
        })
    }

    pub fn lists_stream(&self, stream: StreamId) -> bool {
        self.state.lock().streams.contains(&stream)
    }

    /// Journal position up to which the stream's lines are sealed in this day. Where that can't
    /// be read, the last record that a chunk of the stream has lines of: heads are frozen
    /// between records.
    pub fn sealed_through(&self, stream: StreamId) -> Result<Option<Through>, StoreError> {
        let key = stream_key(prefix::SEALED_THROUGH, stream);
        match self.kv.get(&self.name, &key, Through::decode) {
            Ok(through) => Ok(through.flatten()),
            Err(error) if error.is_damage() => {
                let chunks = self.chunks(self.used_at.load(Ordering::Relaxed))?;
                let seqs = chunks.iter().filter(|m| m.stream == stream).map(|m| m.seq);
                let entry = u32::MAX;
                Ok(seqs.max().map(|seq| Through { seq, entry }))
            }
            Err(error) => Err(error),
        }
    }

    /// Journal position up to which spans are sealed in this day. Where that can't be read,
    /// none: spans of the journal are there twice then, rather than not at all.
    pub fn spans_sealed_through(&self) -> Result<Option<Through>, StoreError> {
        let key = [prefix::SEALED_THROUGH];
        match self.kv.get(&self.name, &key, Through::decode) {
            Ok(through) => Ok(through.flatten()),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a sealed chunk: everything of it in one batch.
    pub fn add_chunk(&self, sealed: SealedChunk) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(
            stream_key(prefix::SEALED_THROUGH, sealed.meta.stream),
            sealed.through.encode(),
        );
        let chunk = StoredChunk {
            meta: ChunkMeta {
                seq: sealed.through.seq,
                ..sealed.meta
            },
            data: sealed.chunk.into(),
            filter: sealed.filter.into(),
            patterns: sealed.patterns.map(Into::into),
            words: sealed.words,
        };
        fail::fail_point!("seal-write");
        self.put_chunk(chunk, &sealed.stream, batch)
    }

    /// Takes a chunk of the day's generation before this one.
    pub fn add_rewritten(&self, chunk: StoredChunk, stream: &Stream) -> Result<(), StoreError> {
        self.put_chunk(chunk, stream, Batch::default())
    }

    /// Gives a chunk its number and writes it, with what the batch has already.
    fn put_chunk(
        &self,
        chunk: StoredChunk,
        stream: &Stream,
        mut batch: Batch,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let number = state.next_number;
        let meta = ChunkMeta {
            number,
            ..chunk.meta
        };
        let seq = meta.seq.to_be_bytes();
        batch.put(number_key(prefix::SEQ, number), seq);
        batch.put(number_key(prefix::DATA, number), chunk.data);
        batch.put(number_key(prefix::META, number), meta.encode());
        batch.put(number_key(prefix::FILTER, number), chunk.filter);
        if let Some(patterns) = chunk.patterns {
            batch.put(number_key(prefix::PATTERNS, number), patterns);
        }
        let new_stream = !state.streams.contains(&meta.stream);
        if new_stream {
            let stream = encode_stream(&stream.tenant, &stream.labels);
            batch.put(stream_key(prefix::STREAM, meta.stream), stream);
        }
        self.kv.write(&self.name, batch)?;
        fail::fail_point!("seal-written");
        if new_stream {
            state.streams.insert(meta.stream);
        }
        state.next_number += 1;
        state.dirty = true;
        state.unindexed.push((number, chunk.words));
        state.memory += meta.memory();
        if let Some(catalog) = &mut state.chunks {
            catalog.push(Arc::new(meta));
        }
        Ok(())
    }

    /// Puts what is left of a chunk in its place: data, meta and filter in one batch. The word
    /// index keeps the words of the lines that went, which rules out nothing wrongly.
    pub fn replace_chunk(
        &self,
        meta: ChunkMeta,
        chunk: Vec<u8>,
        filter: Vec<u8>,
        words: String,
        patterns: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let number = meta.number;
        let mut batch = Batch::default();
        batch.put(number_key(prefix::DATA, number), chunk);
        match patterns {
            Some(patterns) => batch.put(number_key(prefix::PATTERNS, number), patterns),
            None => batch.delete(number_key(prefix::PATTERNS, number)),
        }
        batch.put(number_key(prefix::META, number), meta.encode());
        batch.put(number_key(prefix::FILTER, number), filter);
        self.rewrite(number, batch, Some(Arc::new(meta)), words)
    }

    /// Removes a chunk of which every line was deleted. Its number stays taken: a new chunk
    /// with it would be looked for by the old one's words.
    pub fn remove_chunk(&self, meta: &ChunkMeta) -> Result<(), StoreError> {
        let number = meta.number;
        let mut batch = Batch::default();
        batch.delete(number_key(prefix::DATA, number));
        batch.put(number_key(prefix::META, number), meta.emptied().encode());
        batch.delete(number_key(prefix::FILTER, number));
        batch.delete(number_key(prefix::PATTERNS, number));
        self.rewrite(number, batch, None, String::new())
    }

    fn rewrite(
        &self,
        number: u32,
        batch: Batch,
        meta: Option<Arc<ChunkMeta>>,
        words: String,
    ) -> Result<(), StoreError> {
        // Before the lock: readers go on while a test sleeps here.
        fail::fail_point!("erase-write");
        let mut state = self.state.lock();
        self.kv.write(&self.name, batch)?;
        state.dirty = true;
        if let Ok(at) = state.unindexed.binary_search_by_key(&number, |(n, _)| *n) {
            state.unindexed[at].1 = words;
        }
        if let Some(catalog) = &mut state.chunks {
            catalog.replace(number, meta);
        }
        Ok(())
    }

    /// Whether a delete request or a repair removed the chunk or block.
    pub fn is_removed(&self, number: u32) -> Result<bool, StoreError> {
        let read = |bytes: &[u8]| match self.id.signal {
            Signal::Logs => ChunkMeta::decode(number, bytes).is_ok_and(|m| m.is_emptied()),
            Signal::Spans => BlockMeta::decode(number, bytes).is_ok_and(|m| m.is_removed()),
        };
        let key = number_key(prefix::META, number);
        Ok(self.kv.get(&self.name, &key, read)? == Some(true))
    }

    /// Makes everything written so far safe.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.kv.flush(std::slice::from_ref(&self.name))
    }

    /// Drops from the disk what was overwritten or removed.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.kv.compact(&self.name)
    }

    /// Takes a sealed block of spans: everything of it in one batch.
    pub fn add_block(&self, sealed: SealedBlock) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let number = state.next_number;
        let meta = BlockMeta {
            number,
            ..sealed.meta
        };
        let mut batch = Batch::default();
        batch.put(number_key(prefix::DATA, number), sealed.block);
        batch.put(number_key(prefix::META, number), meta.encode());
        batch.put(number_key(prefix::FILTER, number), sealed.filter);
        batch.put(number_key(prefix::SUMMARY, number), sealed.summary);
        batch.put([prefix::SEALED_THROUGH], sealed.through.encode());
        for trace in sealed.trace_ids {
            batch.put(trace_key(trace, number), Vec::new());
        }
        let run = state.run.get_or_insert_with(|| TagRun::new(number));
        run.add_block(&sealed.tags);
        if run.is_full() {
            for (slice, piece) in run.pieces() {
                batch.put(run_key(slice, run.first()), piece);
            }
            run.restart(number + 1);
        }
        let mut operations = self.operations.lock();
        let mut new_operations = sealed.operations;
        new_operations.retain(|operation| !operations.is_written(operation));
        for operation in &new_operations {
            let mut key = vec![prefix::OPERATION];
            key.extend_from_slice(operation);
            batch.put(key, Vec::new());
        }
        fail::fail_point!("seal-write");
        if let Err(error) = self.kv.write(&self.name, batch) {
            // It counts a block that is not there.
            state.run = None;
            return Err(error);
        }
        fail::fail_point!("seal-written");
        operations.wrote(new_operations);
        drop(operations);
        state.next_number += 1;
        state.dirty = true;
        state.unindexed.push((number, sealed.words));
        if state.unlinked.len() >= MAX_UNLINKED {
            // The linker will read the block.
            state.unlinked.pop_front();
        }
        state.unlinked.push_back((number, Arc::new(sealed.links)));
        state.memory += meta.memory();
        if let Some(catalog) = &mut state.blocks {
            catalog.push(Arc::new(meta));
        }
        Ok(())
    }

    /// Metas of all chunks, read from the family when they are not in memory.
    pub fn chunks(&self, now: i64) -> Result<Catalog<ChunkMeta>, StoreError> {
        self.used_at.store(now, Ordering::Relaxed);
        let mut state = self.state.lock();
        if let Some(catalog) = &state.chunks {
            return Ok(catalog.clone());
        }
        let catalog = self.read_chunks()?;
        state.memory = catalog.iter().map(|m| m.memory()).sum();
        state.pinned |= self.kv.damage().has_table(&self.name);
        if !state.is_large || state.pinned {
            state.chunks = Some(catalog.clone());
        }
        Ok(catalog)
    }

    /// Metas of the chunks that a reader wants, who books what he holds of a large catalog.
    /// What comes later is added by [`Partition::catch_up`].
    pub fn wanted(
        &self,
        now: i64,
        wants: &dyn Fn(&ChunkMeta) -> bool,
        memory: &Account,
    ) -> Result<Wanted, StoreError> {
        let is_large = self.state.lock().is_large;
        if !is_large {
            return Ok(Wanted {
                below: u32::MAX,
                catalog: self.chunks(now)?,
                permit: None,
            });
        }
        self.used_at.store(now, Ordering::Relaxed);
        let below = self.next_number();
        let mut wanted = Wanted {
            catalog: Catalog::default(),
            below: 0,
            permit: Some(memory.try_take(0).map_err(StoreError::memory)?),
        };
        self.read_wanted(&mut wanted, below, wants)?;
        Ok(wanted)
    }

    /// Adds what came since: with the lock held under which chunks are added.
    pub fn catch_up(
        &self,
        mut wanted: Wanted,
        now: i64,
        wants: &dyn Fn(&ChunkMeta) -> bool,
    ) -> Result<Wanted, StoreError> {
        if wanted.permit.is_none() {
            wanted.catalog = self.chunks(now)?;
            return Ok(wanted);
        }
        let next = self.next_number();
        if wanted.below < next {
            self.read_wanted(&mut wanted, next, wants)?;
        }
        Ok(wanted)
    }

    /// Reads metas up to number `below` that the reader wants, without keeping the others.
    fn read_wanted(
        &self,
        wanted: &mut Wanted,
        below: u32,
        wants: &dyn Fn(&ChunkMeta) -> bool,
    ) -> Result<(), StoreError> {
        let from = wanted.below;
        let mut found: Vec<ChunkMeta> = Vec::new();
        let mut bytes = 0;
        let mut room = Ok(());
        let first = number_key(prefix::META, from);
        self.kv.scan_from(
            &self.name,
            &[prefix::META],
            &first,
            Keep::No,
            |key, value| {
                let Some(number) = number_of_key(key) else {
                    return true;
                };
                if number >= below {
                    return false;
                }
                match ChunkMeta::decode(number, value) {
                    Ok(meta) if !meta.is_emptied() && wants(&meta) => {
                        bytes += meta.memory();
                        found.push(meta);
                    }
                    Ok(_) => {}
                    Err(what) => self.note(number, &what),
                }
                if bytes >= BOOKED_AT_ONCE {
                    room = wanted.grow(std::mem::take(&mut bytes));
                }
                room.is_ok()
            },
        )?;
        room.and_then(|()| wanted.grow(bytes))?;
        let mut at = 0;
        let first = number_key(prefix::SEQ, found.first().map_or(below, |meta| meta.number));
        self.kv.scan_from(
            &self.name,
            &[prefix::SEQ],
            &first,
            Keep::No,
            |key, value| {
                let (Some(number), Ok(seq)) = (number_of_key(key), value.try_into()) else {
                    return true;
                };
                while found.get(at).is_some_and(|meta| meta.number < number) {
                    at += 1;
                }
                match found.get_mut(at) {
                    Some(meta) if meta.number == number => meta.seq = u64::from_be_bytes(seq),
                    Some(_) => {}
                    None => return false,
                }
                true
            },
        )?;
        for meta in found {
            wanted.catalog.push(Arc::new(meta));
        }
        wanted.below = below;
        Ok(())
    }

    /// Keeps no catalog of a day for which it would take more than `most` bytes: readers read
    /// what they want.
    pub fn keep_at_most(&self, most: usize) {
        let mut state = self.state.lock();
        let estimate = state.next_number as usize * size_of::<ChunkMeta>();
        let size = state.memory.max(estimate);
        let is_large = self.id.signal == Signal::Logs && size > most && !state.pinned;
        if is_large && !state.is_large {
            tracing::info!(day = %self.id, chunks = state.next_number, "too many chunks to list all in memory");
        }
        state.is_large = is_large;
        if is_large {
            state.chunks = None;
        }
    }

    /// Whether no catalog of it is kept.
    #[cfg(test)]
    pub fn is_large(&self) -> bool {
        self.state.lock().is_large
    }

    /// The same, with the number that the next chunk gets; kept in memory for nobody else.
    pub fn peek_chunks(&self) -> Result<(Catalog<ChunkMeta>, u32), StoreError> {
        let state = self.state.lock();
        let catalog = match &state.chunks {
            Some(catalog) => catalog.clone(),
            None => self.read_chunks()?,
        };
        Ok((catalog, state.next_number))
    }

    fn read_chunks(&self) -> Result<Catalog<ChunkMeta>, StoreError> {
        let mut seqs: HashMap<u32, u64> = HashMap::new();
        self.kv.scan(&self.name, &[prefix::SEQ], |key, value| {
            if let (Some(number), Ok(seq)) = (number_of_key(key), value.try_into()) {
                seqs.insert(number, u64::from_be_bytes(seq));
            }
            true
        })?;
        self.load(|number, bytes| {
            let meta = ChunkMeta::decode(number, bytes)?;
            let seq = seqs.get(&number).copied().unwrap_or(0);
            Ok((!meta.is_emptied()).then_some(ChunkMeta { seq, ..meta }))
        })
    }

    /// Takes over up to which record of the journal lines are sealed, of streams that it may
    /// have lines of: those of records from `low_water` on.
    pub fn copy_sealed_through(&self, from: &Self, low_water: u64) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let key = [prefix::SEALED_THROUGH];
        self.kv.scan(&from.name, &key, |key, value| {
            if Through::decode(value).is_none_or(|through| through.seq >= low_water) {
                batch.put(key, value);
            }
            true
        })?;
        self.kv.write(&self.name, batch)
    }

    /// Metas of all blocks, read from the family when they are not in memory.
    pub fn blocks(&self, now: i64) -> Result<Catalog<BlockMeta>, StoreError> {
        self.used_at.store(now, Ordering::Relaxed);
        let mut state = self.state.lock();
        if let Some(catalog) = &state.blocks {
            return Ok(catalog.clone());
        }
        let catalog = self.load(|number, bytes| {
            let meta = BlockMeta::decode(number, bytes)?;
            Ok((!meta.is_removed()).then_some(meta))
        })?;
        state.memory = catalog.iter().map(|m| m.memory()).sum();
        state.pinned |= self.kv.damage().has_table(&self.name);
        state.blocks = Some(catalog.clone());
        Ok(catalog)
    }

    /// The first `most` numbers of chunks or blocks within `range`.
    pub fn numbers(
        &self,
        range: std::ops::Range<u32>,
        most: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let now = self.used_at.load(Ordering::Relaxed);
        fn some<M: Meta>(
            catalog: &Catalog<M>,
            range: &std::ops::Range<u32>,
            most: usize,
            number: impl Fn(&M) -> u32,
        ) -> Vec<u32> {
            let numbers = catalog.iter().map(|meta| number(meta));
            numbers.filter(|n| range.contains(n)).take(most).collect()
        }
        Ok(match self.id.signal {
            Signal::Logs => some(&self.chunks(now)?, &range, most, |meta| meta.number),
            Signal::Spans => some(&self.blocks(now)?, &range, most, |meta| meta.number),
        })
    }

    /// All metas of the family that `decode` does not leave out.
    fn load<M: Meta>(
        &self,
        decode: impl Fn(u32, &[u8]) -> Result<Option<M>, String>,
    ) -> Result<Catalog<M>, StoreError> {
        let mut catalog = Catalog::default();
        self.kv.scan(&self.name, &[prefix::META], |key, value| {
            let Some(number) = number_of_key(key) else {
                self.note_record("a meta", "its key is too short");
                return true;
            };
            match decode(number, value) {
                Ok(Some(meta)) => catalog.push(Arc::new(meta)),
                Ok(None) => {}
                // One meta that can't be read costs its chunk, not the day.
                Err(what) => self.note(number, &what),
            }
            true
        })?;
        Ok(catalog)
    }

    /// Where what can't be read is noted.
    pub fn damage(&self) -> &Damage {
        self.kv.damage()
    }

    /// Notes a chunk or block that can't be read.
    fn note(&self, number: u32, what: &str) {
        let (kind, place) = match self.id.signal {
            Signal::Logs => (Kind::Chunk, "chunk"),
            Signal::Spans => (Kind::Block, "block"),
        };
        let place = format!("{place} {number}");
        self.damage().note(kind, &self.name, &place, what);
    }

    /// Notes something small that can't be read.
    pub fn note_record(&self, place: &str, what: &str) {
        self.damage().note(Kind::Record, &self.name, place, what);
    }

    /// Reads a chunk or block: `None` when it is damaged, which is noted, or gone.
    pub fn read<T, E: std::fmt::Display>(
        &self,
        number: u32,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Read<T>, StoreError> {
        match self.data(number, read) {
            Ok(Ok(found)) => Ok(Read::Whole(found)),
            Ok(Err(what)) => {
                self.note(number, &what.to_string());
                Ok(Read::Damaged)
            }
            Err(StoreError::Gone(_)) => Ok(Read::Gone),
            Err(error) if error.is_damage() => {
                self.note(number, &error.to_string());
                Ok(Read::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// Hands the stored chunk or block to `read`.
    pub fn data<T>(&self, number: u32, read: impl FnOnce(&[u8]) -> T) -> Result<T, StoreError> {
        let value = self
            .kv
            .get(&self.name, &number_key(prefix::DATA, number), read)?;
        match value {
            Some(value) => Ok(value),
            // A delete request was quicker than who asks.
            None if self.is_removed(number)? => {
                Err(StoreError::Gone(format!("{} chunk {number}", self.name)))
            }
            None => Err(StoreError::corrupt(
                &*self.name,
                format!("chunk {number} is missing"),
            )),
        }
    }

    /// Hands the gram filter of a chunk or block to `read`; `None` when it has none.
    pub fn filter<T>(
        &self,
        number: u32,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let key = number_key(prefix::FILTER, number);
        self.or_none(self.kv.get(&self.name, &key, read))
    }

    /// What can't be read is as if it were not there; its table is noted.
    fn or_none<T>(&self, found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        match found {
            Err(error) if error.is_damage() => Ok(None),
            found => found,
        }
    }

    /// Hands the patterns of a chunk to `read`; `None` when it was not mined.
    pub fn patterns<T>(
        &self,
        number: u32,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let key = number_key(prefix::PATTERNS, number);
        self.or_none(self.kv.get(&self.name, &key, read))
    }

    /// Whether the filters of so many chunks fit into the cache beside what else it holds.
    /// More would throw each other out before they are asked for again.
    pub fn can_keep_filters(&self, chunks: usize) -> Keep {
        match chunks * FILTER_BYTES <= self.kv.cache_bytes() / 8 * 7 {
            true => Keep::Yes,
            false => Keep::No,
        }
    }

    /// Visits the summaries of blocks from number `from` on, in order, until `visit` returns
    /// false.
    pub fn summaries_from(
        &self,
        from: u32,
        mut visit: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let from = number_key(prefix::SUMMARY, from);
        self.kv.scan_from(
            &self.name,
            &[prefix::SUMMARY],
            &from,
            Keep::No,
            |key, value| number_of_key(key).is_none_or(|number| visit(number, value)),
        )
    }

    /// Links of a block that was sealed a moment ago; those of blocks before it go.
    pub fn take_links(&self, number: u32) -> Option<Arc<Links>> {
        let mut state = self.state.lock();
        while state.unlinked.front().is_some_and(|(n, _)| *n < number) {
            state.unlinked.pop_front();
        }
        if state.unlinked.front()?.0 != number {
            return None;
        }
        state.unlinked.pop_front().map(|(_, links)| links)
    }

    /// Memory of what the linker has not asked for, bytes.
    pub fn unlinked_memory(&self) -> usize {
        let state = self.state.lock();
        state.unlinked.iter().map(|(_, links)| links.memory()).sum()
    }

    /// Number of the first block that is not linked.
    pub fn linked_below(&self) -> Result<u32, StoreError> {
        let last = self.kv.last_key(&self.name, prefix::LINKS)?;
        Ok(last
            .and_then(|key| number_of_key(&key))
            .map_or(0, |n| n + 1))
    }

    /// Stores what linking the blocks up to `number` found.
    pub fn put_links(&self, number: u32, record: Vec<u8>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(number_key(prefix::LINKS, number), record);
        let mut state = self.state.lock();
        self.kv.write(&self.name, batch)?;
        state.dirty = true;
        Ok(())
    }

    /// Stores what was found later about blocks up to `number`, beside their own record.
    pub fn put_late_links(&self, number: u32, record: Vec<u8>) -> Result<(), StoreError> {
        let mut key = number_key(prefix::LINKS, number).to_vec();
        // No two records hold the same: each names spans that were waited for until then.
        key.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&record).to_be_bytes());
        let mut batch = Batch::default();
        batch.put(key, record);
        let mut state = self.state.lock();
        self.kv.write(&self.name, batch)?;
        state.dirty = true;
        Ok(())
    }

    /// Visits what linking found, from block `from` on, in order, until `visit` returns false.
    pub fn links_from(
        &self,
        from: u32,
        mut visit: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let from = number_key(prefix::LINKS, from);
        self.kv.scan_from(
            &self.name,
            &[prefix::LINKS],
            &from,
            Keep::No,
            |key, value| number_of_key(key).is_none_or(|number| visit(number, value)),
        )
    }

    /// Whether something was written since the last flush.
    pub fn is_dirty(&self) -> bool {
        self.state.lock().dirty
    }

    /// Visits the gram filters from number `from` on, in order, until `visit` returns false.
    pub fn filters_from(
        &self,
        from: u32,
        keep: Keep,
        mut visit: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let from = number_key(prefix::FILTER, from);
        self.kv
            .scan_from(&self.name, &[prefix::FILTER], &from, keep, |key, value| {
                number_of_key(key).is_none_or(|number| visit(number, value))
            })
    }

    /// Blocks none of which has a span with all these tags: numbers, in order.
    pub fn blocks_without(&self, tags: &[TagHash]) -> Result<Vec<Range<u32>>, StoreError> {
        let mut without = Vec::new();
        for tag in tags {
            let slice = [prefix::RUN, tag.slice()];
            self.kv
                .scan_from(&self.name, &slice, &slice, Keep::Yes, |key, piece| {
                    if let Some(first) = first_of_run_key(key)
                        && let Some((blocks, false)) = look_up(piece, *tag)
                    {
                        without.push(first..first.saturating_add(blocks));
                    }
                    true
                })?;
        }
        without.sort_unstable_by_key(|range| range.start);
        without.dedup();
        Ok(without)
    }

    /// Numbers of the blocks that hold spans of a trace.
    pub fn blocks_of_trace(&self, trace: u128) -> Result<Vec<u32>, StoreError> {
        let mut numbers = Vec::new();
        let key = trace_key(trace, 0);
        self.kv.scan(&self.name, &key[..17], |key, _| {
            let number = key.get(17..21).and_then(|n| n.try_into().ok());
            numbers.extend(number.map(u32::from_be_bytes));
            true
        })?;
        Ok(numbers)
    }

    /// Visits `service 00 operation 00 kind` of all operations.
    pub fn operations(&self, mut visit: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut operations = self.operations.lock();
        if let Some(at_hand) = operations.at_hand() {
            at_hand.iter().for_each(|operation| visit(operation));
            return Ok(());
        }
        operations.begin();
        let read = self.kv.scan(&self.name, &[prefix::OPERATION], |key, _| {
            visit(&key[1..]);
            operations.keep(&key[1..]);
            true
        });
        if read.is_err() {
            operations.forget();
        }
        read
    }

    /// Number that the next chunk or block gets.
    pub fn next_number(&self) -> u32 {
        self.state.lock().next_number
    }

    /// Whether something was written since the last call; then it must be flushed.
    pub fn take_dirty(&self) -> bool {
        std::mem::take(&mut self.state.lock().dirty)
    }

    /// Takes it back: a flush failed.
    pub fn set_dirty(&self) {
        self.state.lock().dirty = true;
    }

    /// Documents of chunks below `below`, which are flushed, for the index.
    ///
    /// Nothing while the index lacks chunks before them: they wait for those.
    pub fn take_unindexed(&self, below: u32) -> Vec<(u32, String)> {
        let indexed = self.index.indexed_below();
        let mut state = self.state.lock();
        if state
            .unindexed
            .first()
            .is_some_and(|(number, _)| *number != indexed)
        {
            return Vec::new();
        }
        let keep = state
            .unindexed
            .partition_point(|(number, _)| *number < below);
        let rest = state.unindexed.split_off(keep);
        std::mem::replace(&mut state.unindexed, rest)
    }

    /// Number of the first chunk whose document waits for the next checkpoint; chunks below
    /// it that the index lacks must be read again.
    pub fn first_unindexed(&self) -> u32 {
        let state = self.state.lock();
        state
            .unindexed
            .first()
            .map_or(state.next_number, |(number, _)| *number)
    }

    /// Memory of catalog and waiting documents, bytes.
    pub fn memory(&self) -> usize {
        let state = self.state.lock();
        let words: usize = state
            .unindexed
            .iter()
            .map(|(_, words)| words.len() + 40)
            .sum();
        let loaded = state.chunks.is_some() || state.blocks.is_some();
        let run = state.run.as_ref().map_or(0, TagRun::memory);
        let operations = self.operations.lock().memory();
        words + run + operations + state.streams.len() * 24 + if loaded { state.memory } else { 0 }
    }

    /// Has at hand what the first query over the day would have to load.
    pub fn warm(&self) -> Result<(), StoreError> {
        let loaded = {
            let state = self.state.lock();
            state.chunks.is_some() || state.blocks.is_some() || state.is_large
        };
        if !loaded {
            match self.id.signal {
                Signal::Logs => drop(self.chunks(self.used_at.load(Ordering::Relaxed))?),
                Signal::Spans => drop(self.blocks(self.used_at.load(Ordering::Relaxed))?),
            }
        }
        self.index.view().map(drop)
    }

    /// Lets go of a catalog that nobody asked for since `before`.
    pub fn evict(&self, before: i64) {
        if self.used_at.load(Ordering::Relaxed) < before {
            let mut state = self.state.lock();
            if state.pinned {
                return;
            }
            state.chunks = None;
            state.blocks = None;
            if !state.is_large {
                state.memory = 0;
            }
        }
    }

    /// Bytes on the disk that go with it, about.
    pub fn disk_bytes(&self) -> u64 {
        let index = super::room::bytes_below(&self.layout.index_of(&self.name));
        self.kv.disk_bytes(&self.name) + index
    }

    /// Its files go when nobody holds it any more (D2).
    pub fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if self.dropped.load(Ordering::Acquire) {
            let dropped = match self.kv.drop_family(&self.name, self.creation) {
                Ok(true) => {
                    self.damage().forget(|piece| piece.day == self.name);
                    self.index.drop_all()
                }
                // On a full disk RocksDB drops a family and answers that it could not write its
                // options: the index goes all the same, it is of use to nobody.
                Err(error) => self.index.drop_all().and(Err(error)),
                Ok(false) => {
                    // Late lines began the day again while somebody read it: its successor has
                    // everything, and goes when its time comes.
                    tracing::info!(partition = %self.name, "not dropped: begun again meanwhile");
                    return;
                }
            };
            if let Err(error) = dropped {
                tracing::error!(partition = %self.name, "drop failed, retried at start: {error}");
            } else {
                let dir = self.layout.index_of(&self.name);
                tracing::info!(partition = %self.name, index = %dir.display(), "dropped");
            }
        }
    }
}

/// What reading a chunk or block gave.
pub enum Read<T> {
    Whole(T),
    /// It can't be read; that is noted.
    Damaged,
    /// Its day was dropped by retention, or it was removed by a delete request.
    Gone,
}

/// Number of the chunk or block in one of a day's keys, if it is of that kind.
fn number_in(signal: Signal, key: &[u8]) -> Option<u32> {
    let is_number = match *key.first()? {
        prefix::DATA | prefix::META | prefix::FILTER | prefix::SEQ | prefix::LINKS => true,
        // Of a span day these are names.
        prefix::PATTERNS => signal == Signal::Logs,
        _ => false,
    };
    (is_number && key.len() == 5).then(|| number_of_key(key))?
}

/// Key that says that a block holds spans of a trace.
fn trace_key(trace: u128, number: u32) -> [u8; 21] {
    let mut key = [prefix::TRACE; 21];
    key[1..17].copy_from_slice(&trace.to_be_bytes());
    key[17..].copy_from_slice(&number.to_be_bytes());
    key
}
