//! RocksDB; nobody else imports it.
//!
//! K1. Families of days are written without RocksDB's own log: the journal is their log.
//!     They are safe after [`Kv::flush`] returned, not before.
//! K2. `meta` is written with RocksDB's log and a sync: safe when the call returns. `archive`
//!     is written with the log, and safe after [`Kv::sync_log`].
//! K3. Nothing in a day is overwritten except the small "sealed through" records, so blob
//!     files need no garbage collection; but for delete requests, after which
//!     [`Kv::compact`] drops what was overwritten.
//! K4. A family is dropped only by who created or opened it last: a day that was dropped while
//!     somebody read it may have begun anew meanwhile, under the same name.
//! K5. A block of a table that can't be read costs its own rows: scans note it and go on behind
//!     it. A day that has one is not compacted by itself, since a compaction that met it would
//!     end all writing.

mod rewrite;

use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, BoundColumnFamily, Cache, ColumnFamilyDescriptor, CompactOptions,
    DBCompressionType, DBRawIteratorWithThreadMode, DBRecoveryMode, DBWithThreadMode, Direction,
    FlushOptions, IteratorMode, MultiThreaded, Options, ReadOptions, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::damage::{Damage, Kind};
use super::error::StoreError;
use super::layout::{ARCHIVE_FAMILY, META_FAMILY, PartitionId, Signal};

type Db = DBWithThreadMode<MultiThreaded>;

/// Values from this size on go to blob files: chunks do, metas and filters do not.
const MIN_BLOB_BYTES: u64 = 16 << 10;

/// Sizes that RocksDB gets from the memory budget.
#[derive(Clone, Copy, Debug)]
pub struct KvOptions {
    /// All memtables together, bytes.
    pub write_buffers: usize,
    /// Block cache (index, filter and data blocks), bytes.
    pub cache: usize,
}

/// Whether what a scan reads stays in the cache for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Yes,
    No,
}

/// One open database.
pub struct Kv {
    db: Db,
    cache: Cache,
    cache_bytes: usize,
    buffers: WriteBufferManager,
    family_buffer: usize,
    /// How often each family was created in this process (K4).
    created: Mutex<HashMap<String, u64>>,
    /// Where what can't be read is noted.
    damage: Arc<Damage>,
}

/// Names one creation of a family (K4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation(u64);

/// Writes that become visible, and later safe, together. One family only.
#[derive(Default)]
pub struct Batch(Vec<(Box<[u8]>, Value)>);

/// The least and the greatest key of a table.
pub type TableKeys = (Vec<u8>, Vec<u8>);

/// What a batch writes under a key; `None` removes it.
type Value = Option<Box<[u8]>>;

impl Batch {
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Box<[u8]>>) {
        self.0.push((key.as_ref().into(), Some(value.into())));
    }

    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.0.push((key.as_ref().into(), None));
    }
}

impl Kv {
    /// Opens or creates the database with all families that it has. A table that can't be opened
    /// is noted and costs its own rows.
    pub fn open(path: &Path, options: KvOptions, damage: Arc<Damage>) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(options.cache);
        let buffers = WriteBufferManager::new_write_buffer_manager(options.write_buffers, false);
        // Four memtables of a family fit the budget: a log day and a span day, each with
        // one filling and one being flushed.
        let family_buffer = (options.write_buffers / 4).clamp(1 << 20, 8 << 20);
        let mut base = base_options(&buffers);
        let mut families = if path.join("CURRENT").exists() {
            Db::list_cf(&base, path).map_err(StoreError::kv)?
        } else {
            Vec::new()
        };
        families.retain(|name| name != "default" && name != META_FAMILY);
        let descriptors = || {
            let days = families.iter().map(|name| {
                let mut options = day_options(name, &cache, family_buffer);
                options.set_disable_auto_compactions(damage.has_table(name));
                ColumnFamilyDescriptor::new(name, options)
            });
            let others = ["default", META_FAMILY];
            let others = others.map(|name| ColumnFamilyDescriptor::new(name, meta_options()));
            others.into_iter().chain(days).collect::<Vec<_>>()
        };
        let db = match Db::open_cf_descriptors(&base, path, descriptors()) {
            Ok(db) => db,
            Err(strict) => {
                let strict = StoreError::kv(strict);
                if !strict.is_damage() {
                    return Err(strict);
                }
                // RocksDB opens some tables at once and would not start without them. It also
                // goes on after a failed flush then: the journal has what was not flushed.
                base.set_paranoid_checks(false);
                let db = Db::open_cf_descriptors(&base, path, descriptors());
                tracing::error!("opened in spite of a damaged table: {strict}");
                db.map_err(StoreError::kv)?
            }
        };
        let kv = Self {
            db,
            cache,
            cache_bytes: options.cache,
            buffers,
            family_buffer,
            created: Mutex::default(),
            damage,
        };
        for name in &families {
            kv.probe(name)?;
        }
        Ok(kv)
    }

    /// Opens every table of a family, and notes those that can't be.
    fn probe(&self, family: &str) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        let mut rows = self.db.raw_iterator_cf(&handle);
        rows.seek_to_last();
        match rows.status().map_err(StoreError::kv) {
            Err(error) if error.is_damage() => self.note(family, &error),
            _ => {}
        }
        Ok(())
    }

    /// Notes a damaged table or blob of a family, and keeps RocksDB from compacting it (K5).
    fn note(&self, family: &str, error: &StoreError) {
        let file = file_of(error);
        // Of a damaged value RocksDB does not say in which file it is.
        if file.ends_with(".blob") || error.to_string().contains("Blob") {
            // The chunk in it is noted by who asked for it.
            return;
        }
        if self
            .damage
            .note(Kind::Table, family, &file, &error.to_string())
            && let Ok(handle) = self.family(family)
            && let Err(error) = self
                .db
                .set_options_cf(&handle, &[("disable_auto_compactions", "true")])
        {
            tracing::error!(family, "compactions can't be switched off: {error}");
        }
    }

    /// Where what can't be read is noted.
    pub fn damage(&self) -> &Arc<Damage> {
        &self.damage
    }

    /// Opens the database for looking only; a running process may hold it.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(8 << 20);
        let buffers = WriteBufferManager::new_write_buffer_manager(1 << 20, false);
        let mut base = base_options(&buffers);
        // Whoever looks finds what is damaged.
        base.set_paranoid_checks(false);
        let families = Db::list_cf(&base, path).map_err(StoreError::kv)?;
        let descriptors = families.into_iter().map(|name| {
            let options = if name == META_FAMILY {
                meta_options()
            } else {
                day_options(&name, &cache, 1 << 20)
            };
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = Db::open_cf_descriptors_read_only(&base, path, descriptors, false)
            .map_err(StoreError::kv)?;
        Ok(Self {
            db,
            cache,
            cache_bytes: 8 << 20,
            buffers,
            family_buffer: 1 << 20,
            created: Mutex::default(),
            damage: Damage::in_memory(),
        })
    }

    /// Names of the days' families below `path`, without opening anything.
    pub fn families(path: &Path) -> Result<Vec<String>, StoreError> {
        if !path.join("CURRENT").exists() {
            return Ok(Vec::new());
        }
        let mut names = Db::list_cf(&Options::default(), path).map_err(StoreError::kv)?;
        let days =
            |name: &String| name != "default" && name != META_FAMILY && name != ARCHIVE_FAMILY;
        names.retain(days);
        Ok(names)
    }

    /// Creates a family, or takes over the one that is there.
    pub fn create_family(&self, name: &str) -> Result<Creation, StoreError> {
        let mut created = self.created.lock();
        if self.db.cf_handle(name).is_none() {
            fail::fail_point!("family-create");
            let options = match name {
                META_FAMILY => meta_options(),
                name => day_options(name, &self.cache, self.family_buffer),
            };
            self.db.create_cf(name, &options).map_err(StoreError::kv)?;
            fail::fail_point!("family-created");
        }
        let times = created.entry_ref(name).or_insert(0);
        *times += 1;
        Ok(Creation(*times))
    }

    /// The latest creation of a family.
    pub fn creation(&self, name: &str) -> Creation {
        Creation(self.created.lock().get(name).copied().unwrap_or(0))
    }

    /// Drops a family with all its files; quick whatever its size. Drops nothing when it was
    /// created again since (K4), and tells so by `false`.
    pub fn drop_family(&self, name: &str, creation: Creation) -> Result<bool, StoreError> {
        let created = self.created.lock();
        if Creation(created.get(name).copied().unwrap_or(0)) != creation {
            return Ok(false);
        }
        if self.db.cf_handle(name).is_some() {
            fail::fail_point!("family-drop");
            self.db.drop_cf(name).map_err(StoreError::kv)?;
            fail::fail_point!("family-dropped");
        }
        Ok(true)
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, StoreError> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| StoreError::Gone(name.to_owned()))
    }

    /// Writes a batch to a day's family (K1).
    pub fn write(&self, family: &str, batch: Batch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.write_with(family, batch, &options)
    }

    /// Writes a batch with RocksDB's log, which is not synced (K2).
    pub fn write_logged(&self, family: &str, batch: Batch) -> Result<(), StoreError> {
        fail::fail_point!("log-write");
        self.write_with(family, batch, &WriteOptions::default())?;
        fail::fail_point!("log-written");
        Ok(())
    }

    /// Makes all that was written with the log safe.
    pub fn sync_log(&self) -> Result<(), StoreError> {
        fail::fail_point!("log-sync");
        self.db.flush_wal(true).map_err(StoreError::kv)?;
        fail::fail_point!("log-synced");
        Ok(())
    }

    fn write_with(
        &self,
        family: &str,
        batch: Batch,
        options: &WriteOptions,
    ) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        let mut writes = WriteBatch::default();
        for (key, value) in batch.0 {
            match value {
                Some(value) => writes.put_cf(&handle, key, value),
                None => writes.delete_cf(&handle, key),
            }
        }
        self.db.write_opt(writes, options).map_err(|error| {
            // What a compaction met: the next start does not compact that day.
            let error = StoreError::kv(error);
            if error.is_damage() {
                self.note(&self.owner(&file_of(&error)), &error);
            }
            StoreError::Kv(error.to_string())
        })
    }

    /// The family that a table belongs to; empty when none does.
    fn owner(&self, file: &str) -> String {
        let files = self.db.live_files().unwrap_or_default();
        let owner = files.into_iter().find(|f| f.name.ends_with(file));
        owner.map_or_else(String::new, |f| f.column_family_name)
    }

    /// The least and the greatest key of each table of a family, known without reading them.
    pub fn table_keys(&self, family: &str) -> Result<Vec<TableKeys>, StoreError> {
        let files = self.db.live_files().map_err(StoreError::kv)?;
        let ours = files.into_iter().filter(|f| f.column_family_name == family);
        Ok(ours
            .map(|f| {
                (
                    f.start_key.unwrap_or_default(),
                    f.end_key.unwrap_or_default(),
                )
            })
            .collect())
    }

    /// Writes to `meta`; safe on return (K2). A `None` value deletes.
    pub fn write_meta(&self, pairs: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let handle = self.family(META_FAMILY)?;
        let mut writes = WriteBatch::default();
        for (key, value) in pairs {
            match value {
                Some(value) => writes.put_cf(&handle, key, value),
                None => writes.delete_cf(&handle, key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        fail::fail_point!("meta-write");
        self.db
            .write_opt(writes, &options)
            .map_err(StoreError::kv)?;
        fail::fail_point!("meta-written");
        Ok(())
    }

    /// Hands the value to `read` without copying it.
    pub fn get<T>(
        &self,
        family: &str,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let handle = self.family(family)?;
        let value = self.db.get_pinned_cf(&handle, key).map_err(|error| {
            let error = StoreError::kv(error);
            if error.is_damage() {
                self.note(family, &error);
            }
            error
        })?;
        Ok(value.map(|value| read(&value)))
    }

    /// Calls `visit` with every pair whose key begins with `prefix`, in order of keys,
    /// until it returns false. Rows that can't be read are left out and noted (K5).
    pub fn scan(
        &self,
        family: &str,
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.scan_from(family, prefix, prefix, Keep::No, visit)
    }

    /// The same from the key `from` on.
    pub fn scan_from(
        &self,
        family: &str,
        prefix: &[u8],
        from: &[u8],
        keep: Keep,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        let mut options = ReadOptions::default();
        options.fill_cache(keep == Keep::Yes);
        let mut rows = self.db.raw_iterator_cf_opt(&handle, options);
        rows.seek(from);
        let mut reached = from.to_vec();
        loop {
            while let Some((key, value)) = rows.item() {
                if !key.starts_with(prefix) || !visit(key, value) {
                    return Ok(());
                }
                reached.clear();
                reached.extend_from_slice(key);
                rows.next();
            }
            let Err(error) = rows.status() else {
                return Ok(());
            };
            let error = StoreError::kv(error);
            if !error.is_damage() {
                return Err(error);
            }
            self.note(family, &error);
            if !seek_behind(&mut rows, &reached) {
                return Ok(());
            }
        }
    }

    /// The greatest key that begins with `prefix`. Where that can't be read, the greatest that
    /// can.
    pub fn last_key(&self, family: &str, prefix: u8) -> Result<Option<Box<[u8]>>, StoreError> {
        match self.find_last_key(family, prefix) {
            Err(error) if error.is_damage() => {
                self.note(family, &error);
                let mut last = None;
                self.scan(family, &[prefix], |key, _| {
                    last = Some(key.into());
                    true
                })?;
                Ok(last)
            }
            found => found,
        }
    }

    fn find_last_key(&self, family: &str, prefix: u8) -> Result<Option<Box<[u8]>>, StoreError> {
        let handle = self.family(family)?;
        let after = [prefix + 1];
        let mode = IteratorMode::From(&after, Direction::Reverse);
        for row in self.db.iterator_cf(&handle, mode) {
            let (key, _) = row.map_err(StoreError::kv)?;
            if key.first() == Some(&prefix) {
                return Ok(Some(key));
            }
            if key.first() < Some(&prefix) {
                break;
            }
        }
        Ok(None)
    }

    /// Makes everything written to these families safe.
    pub fn flush(&self, families: &[String]) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        for name in families {
            // A family dropped meanwhile has nothing left to lose.
            if let Some(handle) = self.db.cf_handle(name) {
                fail::fail_point!("family-flush");
                self.db
                    .flush_cf_opt(&handle, &options)
                    .map_err(StoreError::kv)?;
                fail::fail_point!("family-flushed");
            }
        }
        Ok(())
    }

    /// Rewrites a family so that what was overwritten or removed leaves the disk. Takes its
    /// time and, for a while, as much room as the family has. [`Kv::stop`] cuts it short:
    /// then, as when it fails, the old bytes are still there.
    pub fn compact(&self, family: &str) -> Result<(), StoreError> {
        const COLLECT: [(&str, &str); 2] = [
            ("enable_blob_garbage_collection", "true"),
            ("blob_garbage_collection_age_cutoff", "1.0"),
        ];
        let handle = self.family(family)?;
        self.db
            .set_options_cf(&handle, &COLLECT)
            .map_err(StoreError::kv)?;
        let mut options = CompactOptions::default();
        // Other families' compactions go on beside it.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db
            .compact_range_cf_opt(&handle, None::<&[u8]>, None::<&[u8]>, &options);
        self.db
            .set_options_cf(&handle, &[("enable_blob_garbage_collection", "false")])
            .map_err(StoreError::kv)?;
        let garbage = self
            .db
            .property_int_value_cf(&handle, "rocksdb.live-blob-file-garbage-size")
            .map_err(StoreError::kv)?;
        match garbage {
            None | Some(0) => Ok(()),
            Some(bytes) => Err(StoreError::Kv(format!(
                "{family}: compaction left {bytes} bytes of what was deleted"
            ))),
        }
    }

    /// Links or copies the files of this instant to a new directory. Flushes everything first.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(StoreError::kv)?;
        checkpoint.create_checkpoint(dir).map_err(StoreError::kv)
    }

    /// Bytes that the cache holds at most.
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Bytes on disk of a family, about; 0 when there is none.
    pub fn disk_bytes(&self, family: &str) -> u64 {
        let Ok(handle) = self.family(family) else {
            return 0;
        };
        let names = [
            "rocksdb.total-sst-files-size",
            "rocksdb.total-blob-file-size",
        ];
        let bytes = names.map(|name| self.db.property_int_value_cf(&handle, name));
        bytes
            .into_iter()
            .map(|bytes| bytes.ok().flatten().unwrap_or(0))
            .sum()
    }

    /// Bytes held by memtables and by the block cache.
    pub fn memory(&self) -> (usize, usize) {
        (self.buffers.get_usage(), self.cache.get_usage())
    }

    /// Waits for background work to end.
    pub fn stop(&self) {
        self.db.cancel_all_background_work(true);
    }
}

/// Name of the file that an error of RocksDB is about, without its directory.
fn file_of(error: &StoreError) -> String {
    let text = error.to_string();
    let is_file = |word: &&str| word.ends_with(".sst") || word.ends_with(".blob");
    let word = text
        .split([' ', ':', ',', ';', '"', '\'', '(', ')'])
        .find(is_file);
    let name = word.and_then(|word| word.rsplit('/').next());
    name.unwrap_or("a table").to_owned()
}

/// Goes to the first row behind `reached` that can be read again: keys are taken for numbers, and
/// steps towards it double, then halve. False: none can.
fn seek_behind(rows: &mut DBRawIteratorWithThreadMode<'_, Db>, reached: &[u8]) -> bool {
    const WIDTH: usize = 16;
    let len = reached.len().clamp(1, WIDTH);
    let mut first = [0; WIDTH];
    for (to, from) in first.iter_mut().zip(reached) {
        *to = *from;
    }
    let bad = u128::from_be_bytes(first);
    // The least distance of two keys as long as this one.
    let unit = 1u128 << (8 * (WIDTH - len));
    let mut try_at = |number: u128| {
        rows.seek(&number.to_be_bytes()[..len]);
        rows.status().is_ok()
    };
    let mut step = unit;
    let (mut low, mut high) = loop {
        let Some(next) = bad.checked_add(step) else {
            return false;
        };
        if try_at(next) {
            break (next - step / 2, next);
        }
        let Some(twice) = step.checked_mul(2) else {
            return false;
        };
        step = twice;
    };
    while high - low > unit {
        let middle = low + (high - low) / 2 / unit * unit;
        if middle == low {
            break;
        }
        match try_at(middle) {
            true => high = middle,
            false => low = middle,
        }
    }
    try_at(high)
}

fn base_options(buffers: &WriteBufferManager) -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.create_missing_column_families(true);
    o.set_write_buffer_manager(buffers);
    o.set_max_background_jobs(2);
    o.set_max_subcompactions(1);
    o.set_max_open_files(128);
    // Queries read chunks in their order on the disk: the kernel may read ahead.
    o.set_advise_random_on_open(false);
    o.set_max_total_wal_size(16 << 20);
    o.set_bytes_per_sync(1 << 20);
    o.set_wal_bytes_per_sync(512 << 10);
    o.set_keep_log_file_num(2);
    o.set_max_log_file_size(1 << 20);
    o.set_stats_dump_period_sec(0);
    o.set_max_manifest_file_size(4 << 20);
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    o
}

fn meta_options() -> Options {
    let mut o = Options::default();
    o.set_write_buffer_size(1 << 20);
    o.set_compression_type(DBCompressionType::Lz4);
    o
}

/// Files of a span day that were flushed are merged when they are so many. Its keys are many and
/// small, trace ids above all: merging four at a time, as is RocksDB's default, took a tenth of what
/// ingest of spans costs.
const SPAN_FILES: i32 = 8;

fn day_options(name: &str, cache: &Cache, buffer: usize) -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    let mut o = Options::default();
    o.set_block_based_table_factory(&table);
    o.set_write_buffer_size(buffer);
    o.set_max_write_buffer_number(2);
    // Chunks, blocks and filters are compressed or incompressible already.
    o.set_compression_type(DBCompressionType::None);
    o.set_enable_blob_files(true);
    o.set_min_blob_size(MIN_BLOB_BYTES);
    o.set_blob_file_size(128 << 20);
    o.set_blob_compression_type(DBCompressionType::None);
    o.set_enable_blob_gc(false);
    if matches!(PartitionId::parse_family(name), Some((id, _)) if id.signal == Signal::Spans) {
        o.set_level_zero_file_num_compaction_trigger(SPAN_FILES);
    }
    o
}
