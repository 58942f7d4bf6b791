//! The files of a consistent state, as hard links beside the live ones: what a backup copies
//! while the store goes on.
//!
//! F1. The journal is linked first, then the indices, then RocksDB's checkpoint. So what the
//!     journal forgot before is in the checkpoint, which flushes, and no index is ahead of its
//!     day; what came in between is like what a power failure cuts off.
//! F2. Only the thread that may remove or change a file links it: the writer the journal, the
//!     keeper the indices.
//! F3. Links are below `backup.tmp`. They keep what the store drops on the disk until they are
//!     released; a start removes what a crash left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::error::StoreError;
use super::inbox::Internal;
use super::journal::append::Segment;
use super::journal::record::SEGMENT_HEADER;
use super::writer::Shared;

/// How long the writer may take for what it is at.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells two apart that begin within a nanosecond.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Makes the links; the directory that has them. Called by the keeper.
pub fn make(shared: &Shared) -> Result<PathBuf, StoreError> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{count}", shared.options.clock.now());
    let dir = shared.layout.backup_root().join(name);
    let made = fill(shared, &dir);
    if made.is_err() {
        release(&dir)?;
    }
    made.map(|()| dir)
}

fn fill(shared: &Shared, dir: &Path) -> Result<(), StoreError> {
    let journal = dir.join("journal");
    make_dir(&journal)?;
    let (done, told) = sync_channel(1);
    shared
        .inbox
        .push_internal(Internal::LinkJournal(journal, done));
    // A writer that has ended never answers.
    told.recv_timeout(PATIENCE)
        .map_err(|_| StoreError::Stopped)??;

    let partitions: Vec<_> = shared.open.lock().partitions.values().cloned().collect();
    for partition in partitions {
        let from = shared.layout.index_of(&partition.name);
        if from.exists() {
            link_all(&from, &dir.join("index").join(&partition.name))?;
        }
    }
    shared.kv.checkpoint(&dir.join("db"))?;
    let format = dir.join("FORMAT");
    std::fs::copy(shared.layout.format_file(), &format)
        .map_err(|e| StoreError::io(&format, "copy", e))?;
    Ok(())
}

/// Links segments that have records. Called by the writer, after it began a new one.
pub fn link_journal(segments: &[Segment], dir: &Path) -> Result<(), StoreError> {
    for segment in segments.iter().filter(|s| s.bytes > SEGMENT_HEADER as u64) {
        let name = segment.path.file_name().unwrap_or_default();
        link(&segment.path, &dir.join(name))?;
    }
    Ok(())
}

/// Links the files of an index. What tantivy removes meanwhile it no longer needs.
fn link_all(from: &Path, to: &Path) -> Result<(), StoreError> {
    make_dir(to)?;
    let entries = std::fs::read_dir(from).map_err(|e| StoreError::io(from, "list", e))?;
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io(from, "list", e))?;
        if entry.file_type().is_ok_and(|t| t.is_file()) {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    match std::fs::hard_link(from, to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(to, "link", e)),
        _ => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(dir).map_err(|e| StoreError::io(dir, "create", e))
}

/// Removes links, one set or all of them.
pub fn release(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(dir, "remove", e)),
        _ => Ok(()),
    }
}
