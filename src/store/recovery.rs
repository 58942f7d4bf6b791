//! Opening a data directory, after a clean stop or a crash: the same steps.
//!
//! 1. lock the directory, check its format
//! 2. open RocksDB with the families of all days; finish what a dropped or rewritten day left
//!    behind
//! 3. list the streams of all days; read the delete requests, which count from here on
//! 4. open the journal behind its last whole record, in a fresh segment
//! 5. start writer, syncer, keeper; appends are taken from here on
//! 6. the writer replays from the low-water mark and catches up with what comes in meanwhile;
//!    lines that a chunk covers already are skipped ("sealed through")
//! 7. the keeper indexes what the indices lack; the eraser goes on with delete requests

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use super::checkpoint;
use super::damage::Damage;
use super::deletion::{self, eraser::Eraser};
use super::error::StoreError;
use super::inbox::Inbox;
use super::journal::{Journal, Replay};
use super::keeper::Keeper;
use super::kv::{Kv, KvOptions};
use super::layout::{
    FORMAT_VERSION, LOW_WATER_KEY, Layout, META_FAMILY, OLDER_FORMATS, POSITION_PREFIX,
};
use super::links::Linker;
use super::manifest;
use super::meta_copy;
use super::metrics::StoreMetrics;
use super::options::Options;
use super::partition::Partition;
use super::rewrite::generation::Families;
use super::streams::{Streams, decode_stream};
use super::sync::Syncer;
use super::writer::{Open, Shared, Writer};
use super::{Handle, Store};

/// Opens or creates a data directory and starts its threads.
pub fn open(options: Options) -> Result<Store, StoreError> {
    let layout = Layout::new(&options.path);
    let lock = lock(&layout)?;
    check_format(&layout)?;
    for dir in [layout.journal_dir(), layout.index_root(), layout.db_dir()] {
        std::fs::create_dir_all(&dir).map_err(|e| StoreError::io(&dir, "create", e))?;
    }
    sync_names(&layout)?;
    let limit = options.budget.limit();
    let kv_options = KvOptions {
        write_buffers: (limit / 256 * 24).max(8 << 20),
        // A day of 1.5 GB has 24 MB of gram filters, which every search for a number reads.
        cache: (limit / 256 * 32).max(4 << 20),
    };
    if layout.rewrite_dir().exists() {
        return Err(StoreError::corrupt(
            layout.rewrite_dir().display().to_string(),
            "a repair was interrupted; run `watchpost repair` again",
        ));
    }
    // What a crash left of a backup.
    checkpoint::release(&layout.backup_root())?;
    let damage = Damage::open(layout.root(), &options.metrics);
    manifest::check(&layout, &damage)?;
    let kv = Arc::new(Kv::open(&layout.db_dir(), kv_options, damage.clone())?);
    kv.create_family(META_FAMILY)?;
    meta_copy::check(&kv, &layout)?;

    let mut open = Open::default();
    let streams = Streams::new(options.retention, options.retention_rules.clone());
    let families = Families::of(&kv, Kv::families(&layout.db_dir())?)?;
    if let Some(name) = families.unknown.first() {
        let what = format!("family {name} is unknown");
        return Err(StoreError::corrupt("rocksdb", what));
    }
    families.settle(&kv)?;
    for (id, generation) in &families.days {
        let id = *id;
        let partition = Partition::open(id, *generation, kv.clone(), &layout)?;
        let mut bad = 0;
        partition.each_stream(|id, bytes| {
            if streams.contains(id) {
                return;
            }
            match decode_stream(bytes) {
                Ok((tenant, labels)) => {
                    streams.register(&tenant, id, &labels);
                }
                Err(_) => bad += 1,
            }
        })?;
        if bad > 0 {
            partition.note_record(&format!("labels of {bad} streams"), "can't be read");
        }
        open.partitions.insert(id, Arc::new(partition));
    }
    remove_orphaned_indices(&layout, &open)?;
    kv.scan(META_FAMILY, POSITION_PREFIX, |key, value| {
        open.cursors
            .insert(key[POSITION_PREFIX.len()..].into(), value.into());
        true
    })?;
    let (deletions, deletion_log) = deletion::log::load(&kv, &options)?;
    open.unfrozen = deletions.iter().cloned().collect();
    open.deletions = deletions;
    let low_water = kv.get(META_FAMILY, LOW_WATER_KEY, |value| {
        value.try_into().map(u64::from_be_bytes).unwrap_or(0)
    });
    let low_water = match low_water {
        // All of the journal is read then; what is sealed is known to the days.
        Err(error) if error.is_damage() => 0,
        low_water => low_water?.unwrap_or(0),
    };

    let journal = Journal::open(&layout.journal_dir(), low_water)?;
    let metrics = StoreMetrics::new(&options.metrics);
    if journal.torn_bytes > 0 {
        // Never acknowledged: its sync had not returned.
        tracing::warn!(
            bytes = journal.torn_bytes,
            "cut a torn record off the journal"
        );
        metrics.journal_damaged.inc();
    }
    tracing::info!(
        partitions = open.partitions.len(),
        streams = streams.len(),
        journal_bytes = journal.bytes(),
        low_water,
        "data directory opened"
    );
    let inbox = Arc::new(Inbox::default());
    let syncer = Syncer::start(
        options.durability,
        options.on_failure.clone(),
        inbox.clone(),
        &options.metrics,
    )
    .map_err(|e| StoreError::Failed(format!("starting a thread: {e}")))?;
    let shared = Arc::new(Shared {
        layout,
        kv,
        streams,
        open: Mutex::new(open),
        inbox,
        metrics,
        heads_account: options.budget.account("heads"),
        tails_account: options.budget.account("tails"),
        readers_account: options.budget.account("catalog_readers"),
        index_account: options.budget.account("index_writer"),
        recovered: AtomicBool::new(false),
        disk_full: AtomicBool::new(false),
        over_limit: AtomicBool::new(false),
        journal_bytes: AtomicU64::new(0),
        journal_file: Mutex::new(journal.file()),
        sealed_bytes: AtomicU64::new(0),
        degraded: Mutex::default(),
        damage,
        deletions: deletion_log,
        generations: Mutex::new(families.days.into_iter().collect()),
        options,
    });
    super::room::look_at_disk(&shared);
    let writer = Writer::new(
        shared.clone(),
        journal,
        syncer.clone(),
        Replay::from(low_water.max(1)),
    );
    let thread = {
        let shared = shared.clone();
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| writer.run());
                let error = match std::panic::catch_unwind(run) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error,
                    Err(_) => super::StoreError::Failed("the writer panicked".into()),
                };
                shared.inbox.stop();
                (shared.options.on_failure)(&error);
            })
    };
    let failed = |e: std::io::Error| StoreError::Failed(format!("starting a thread: {e}"));
    let writer_thread = thread.map_err(failed)?;
    let (keeper, keeper_thread) = Keeper::start(shared.clone()).map_err(failed)?;
    let erasing = Eraser::start(shared.clone(), keeper.clone()).map_err(failed)?;
    let (eraser, eraser_thread) = erasing;
    let (linker, linker_thread) = Linker::start(shared.clone()).map_err(failed)?;
    Ok(Store(Arc::new(Handle {
        shared,
        syncer,
        keeper,
        eraser,
        eraser_thread: Mutex::new(Some(eraser_thread)),
        linker,
        linker_thread: Mutex::new(Some(linker_thread)),
        threads: Mutex::new(vec![writer_thread, keeper_thread]),
        archiving: Arc::default(),
        _lock: lock,
    })))
}

/// Creates the directory when it is missing and locks it against a second process.
pub fn lock(layout: &Layout) -> Result<File, StoreError> {
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| StoreError::io(root, "create", e))?;
    let path = layout.lock_file();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::io(&path, "open", e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(root.to_owned())),
        Err(e) => Err(StoreError::io(&path, "lock", e.into())),
    }
}

/// Makes the names of the directories themselves safe, before anything in them is promised: also
/// those of an earlier start, which may have come no further.
fn sync_names(layout: &Layout) -> Result<(), StoreError> {
    fail::fail_point!("parents-not-synced", |_| Ok(()));
    let root = layout.root();
    let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
    sync(root).map_err(|e| StoreError::io(root, "sync", e))?;
    let above = match root.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    match sync(above) {
        // Somebody else's directory, which may be closed to us: then the name is not new.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(|e| StoreError::io(above, "sync", e)),
    }
}

/// Reads the format version, or writes it to a directory that has none and nothing else.
pub(super) fn check_format(layout: &Layout) -> Result<(), StoreError> {
    let path = layout.format_file();
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(FORMAT_VERSION) => Ok(()),
            // What came since is written beside what there is.
            Ok(older) if OLDER_FORMATS.contains(&older) => write_format(&path, layout),
            Ok(newer) if newer > FORMAT_VERSION => Err(format_error(
                &path,
                text.trim(),
                "it was written by a newer version; use that one",
            )),
            _ => Err(format_error(
                &path,
                text.trim(),
                "restore a backup or use another folder",
            )),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if layout.db_dir().exists() || layout.journal_dir().exists() {
                return Err(format_error(
                    &path,
                    "none",
                    "the file is missing; restore it",
                ));
            }
            write_format(&path, layout)
        }
        Err(e) => Err(StoreError::io(&path, "read", e)),
    }
}

fn write_format(path: &Path, layout: &Layout) -> Result<(), StoreError> {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, format!("{FORMAT_VERSION}\n"))?;
        File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(layout.root())?.sync_all()
    };
    write().map_err(|e| StoreError::io(path, "write", e))
}

fn format_error(path: &Path, found: &str, advice: &'static str) -> StoreError {
    StoreError::Format {
        path: path.to_owned(),
        found: found.to_owned(),
        expected: FORMAT_VERSION,
        advice,
    }
}

/// Removes index directories of days, or generations, that are gone: a crash between the two drops.
fn remove_orphaned_indices(layout: &Layout, open: &Open) -> Result<(), StoreError> {
    let root = layout.index_root();
    let entries = std::fs::read_dir(&root).map_err(|e| StoreError::io(&root, "list", e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_known = open.partitions.values().any(|p| *p.name == *name);
        if !is_known {
            tracing::info!(index = %entry.path().display(), "removing the index of a dropped day");
            std::fs::remove_dir_all(entry.path())
                .map_err(|e| StoreError::io(&entry.path(), "remove", e))?;
        }
    }
    Ok(())
}
