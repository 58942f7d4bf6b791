//! Room on the disk: when the oldest days go before their time, and when nothing is accepted.
//!
//! R0. What was accepted must still find room when it is sealed: what heads and memtables hold, at
//!     most that much, is wanted free beside `min_free_bytes`.
//! R1. Above `max_bytes`, or with less free than is wanted, the oldest days go, logs and
//!     spans alike, never the newest day. Nothing more is chosen until what was chosen has left
//!     the disk: a reader may hold a dropped day for as long as its query takes.
//! R2. With less free than is wanted nothing is accepted, whatever goes meanwhile: a write
//!     that meets a full disk costs more than one that is refused in time. The writer looks
//!     itself after every MiB: a fast sender fills more than `min_free_bytes` within a second.
//! R3. Above `max_bytes` with nothing left to go, nothing is accepted either.

use std::fs;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::inbox::Internal;
use super::layout::BACKUP_DIR;
use super::partition::Partition;
use super::retention::for_room;
use super::writer::Shared;

/// How often the data directory is measured when nothing is being dropped.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// RocksDB removes the files of a dropped family soon after, not at once.
const SETTLE: Duration = Duration::from_secs(3);

/// Why nothing is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Less than [`wanted_free`] is free.
    Disk,
    /// The data directory has more than `max_bytes`, all of it of the newest day.
    Limit,
}

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disk => "the disk is nearly full, free space is below storage.min_free_bytes",
            Self::Limit => "the newest day alone is above storage.max_bytes",
        })
    }
}

impl Shared {
    /// Why nothing is accepted now, if so.
    pub fn no_room(&self) -> Option<NoRoom> {
        if self.disk_full.load(Ordering::Relaxed) {
            Some(NoRoom::Disk)
        } else if self.over_limit.load(Ordering::Relaxed) {
            Some(NoRoom::Limit)
        } else {
            None
        }
    }
}

/// Bytes of the files below a directory; what RocksDB allocates ahead of writing, some MiB, is
/// left out. What can't be read counts nothing.
pub fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                // Links to what is counted already, or will be gone soon.
                Ok(metadata) if metadata.is_dir() && entry.file_name() == BACKUP_DIR => {}
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                // Removed meanwhile.
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Bytes that are free on a directory's disk; tests pretend some.
fn free_bytes(dir: &Path) -> Option<u64> {
    fail::fail_point!("disk-free", |bytes: Option<String>| bytes?.parse().ok());
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes that have to be free; 0 where nobody asked for any.
fn wanted_free(shared: &Shared) -> u64 {
    let least = shared.options.min_free_bytes;
    if least == 0 {
        return 0;
    }
    let unsealed = shared.heads_account.used() + shared.kv.memory().0;
    least.saturating_add(unsealed as u64)
}

/// Notes whether the disk has room, so that writes are refused before it has none (R2). The free
/// bytes.
pub fn look_at_disk(shared: &Shared) -> Option<u64> {
    let free = free_bytes(shared.layout.root())?;
    shared
        .metrics
        .disk_free
        .set(i64::try_from(free).unwrap_or(i64::MAX));
    let full = free < wanted_free(shared);
    if shared.disk_full.swap(full, Ordering::Relaxed) != full {
        if full {
            tracing::error!(
                free,
                "disk is nearly full: nothing is accepted until there is room"
            );
        } else {
            tracing::info!(free, "disk has room again");
        }
    }
    Some(free)
}

/// Lets days go for want of room (R1). One for the keeper.
#[derive(Default)]
pub struct Room {
    measured: Option<Instant>,
    used: u64,
    /// Chosen, and maybe still on the disk.
    leaving: Vec<Weak<Partition>>,
    /// When the last of them was let go of.
    left: Option<Instant>,
}

impl Room {
    /// Looks at disk and directory; chooses days when there is too little room.
    pub fn look(&mut self, shared: &Shared) {
        let free = look_at_disk(shared);
        if !shared.recovered.load(Ordering::Acquire) || self.is_waiting() {
            return;
        }
        let options = &shared.options;
        let wanted = wanted_free(shared);
        let short = match free {
            // Some more than asked for, so that the next push does not need the next day.
            Some(free) if free < wanted => {
                (wanted - free).saturating_add(options.min_free_bytes / 8)
            }
            _ => 0,
        };
        if short == 0 && self.measured.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        self.measured = Some(Instant::now());
        self.used = bytes_below(shared.layout.root());
        let used = i64::try_from(self.used).unwrap_or(i64::MAX);
        shared.metrics.disk_used.set(used);
        let above = options
            .max_bytes
            .map_or(0, |limit| self.used.saturating_sub(limit));
        let excess = short.max(above);
        let mut chosen = Vec::new();
        if excess > 0 {
            let partitions: Vec<_> = shared.open.lock().partitions.values().cloned().collect();
            let sizes = partitions.iter().map(|p| (p.id, p.disk_bytes())).collect();
            chosen = for_room(sizes, excess);
            self.leaving = partitions
                .iter()
                .filter(|p| chosen.contains(&p.id))
                .map(std::sync::Arc::downgrade)
                .collect();
        }
        let stuck = above > 0 && chosen.is_empty();
        if shared.over_limit.swap(stuck, Ordering::Relaxed) != stuck {
            if stuck {
                tracing::error!(used, "{}: nothing is accepted", NoRoom::Limit);
            } else {
                tracing::info!(used, "below storage.max_bytes again");
            }
        }
        if !chosen.is_empty() {
            let days: Vec<String> = chosen.iter().map(|id| id.name()).collect();
            tracing::warn!(
                used,
                free,
                "too little room: the oldest days go: {}",
                days.join(", ")
            );
            shared
                .metrics
                .partitions_dropped_for_room
                .inc_by(chosen.len() as u64);
            shared.inbox.push_internal(Internal::Drop(chosen));
        }
    }

    /// Whether something chosen is still on its way off the disk.
    fn is_waiting(&mut self) -> bool {
        if self.leaving.is_empty() {
            return self.left.is_some_and(|at| at.elapsed() < SETTLE);
        }
        if self.leaving.iter().all(|p| p.strong_count() == 0) {
            self.leaving.clear();
            self.left = Some(Instant::now());
        }
        true
    }
}
