//! Every file, column family and key of a data directory, spelled once.
//!
//! ```text
//! <storage.path>/
//!   FORMAT                 format version of the directory, decimal
//!   LOCK                   held while a process has it open
//!   DAMAGED                what can't be read (damage.rs); there only when something can't
//!   backup.tmp/            hard links that a backup copies (checkpoint.rs)
//!   repair.tmp/            a day while `repair` rewrites it
//!   salvaged/              lines that `repair` saved without their labels
//!   META.copy              copy of the family `meta` (meta_copy.rs)
//!   MANIFEST.copy          copy of RocksDB's list of files (manifest.rs)
//!   journal/<first seq>.wpj
//!   db/                    RocksDB: families `meta`, `archive`, `log-YYYYMMDD`, `span-YYYYMMDD`
//!   index/log-YYYYMMDD/    tantivy
//!   index/span-YYYYMMDD/   tantivy
//! ```
//!
//! A log day that was rewritten lies in a family, and an index, of its own whose name ends with its
//! generation, `log-YYYYMMDD.1`; which one counts says `generation/` in `meta` (rewrite/mod.rs).
//!
//! A log day's family (numbers big-endian; a chunk's number is its order of sealing):
//!
//! ```text
//! 00 chunk u32        -> chunk, a blob (chunk/format.rs)
//! 01 chunk u32        -> ChunkMeta (chunk/meta.rs)
//! 02 stream id        -> tenant and labels (streams.rs)
//! 03 stream id        -> journal position up to which its lines are sealed
//! 04 chunk u32        -> gram filter (index/filter.rs)
//! 05 chunk u32        -> patterns, where mining is on (patterns/record.rs)
//! 06 chunk u32        -> last journal record that it has lines of, u64; older chunks: none
//! ```
//!
//! A chunk removed by a delete request leaves its meta, with no lines, and its 06.
//!
//! The family `meta`:
//!
//! ```text
//! low-water           -> journal record below which nothing is needed, u64
//! position/<file>     -> position of a followed file
//! delete/<id>         -> delete request (deletion/request.rs)
//! generation/<day>    -> generation of the family that holds the day, u32; 0 when there is none
//! erasing/<family>    -> nothing; the day holds bytes of deleted lines until it is compacted
//! kept/<name>         -> what a part of the process wants back after a restart, in its own form:
//!                        `sampling`, JSON [[service, [[operation, probability], …]], …]
//! ```
//!
//! The family `archive`, which is there once a trace was archived (archive.rs):
//!
//! ```text
//! 00 trace id, block u32  -> span block, a blob if it is large (span.rs)
//! 01 trace id             -> number of its blocks, u32
//! ```
//!
//! A span day's family (the day of *arrival*, so that no clock of a sender opens old days):
//!
//! ```text
//! 00 block u32            -> span block, a blob (span.rs)
//! 01 block u32            -> BlockMeta
//! 02 trace id, block u32  -> nothing
//! 03                      -> journal position up to which spans are sealed
//! 04 block u32            -> gram filter
//! 05 service 00 operation 00 kind -> nothing
//! 06 block u32            -> what it says of services (span/summary.rs); older blocks: none
//! 07 block u32            -> calls between services, found when blocks up to this one were linked
//!                            (links/record.rs); not for every block
//! 07 block u32, hash u64  -> the same, of parents looked for later
//! 08 slice u8, block u32  -> piece of the filter of the tags of a run of blocks, of which this is
//!                            the first (span/run.rs); blocks that are in no such run have none
//! ```

use std::path::{Path, PathBuf};

use crate::model::trace::TraceId;
use crate::model::{Day, StreamId};

/// Version of everything below a data directory. Raised with every incompatible change. A 3 there
/// is not: a flipped bit would make it a 1 or a 2.
pub const FORMAT_VERSION: u32 = 4;
/// Those that can be opened as well. 1 knew no days with a generation, 2 no chunks whose text is in
/// columns.
pub const OLDER_FORMATS: [u32; 2] = [1, 2];

/// Directory of what a backup copies.
pub const BACKUP_DIR: &str = "backup.tmp";

/// Family of what belongs to no day.
pub const META_FAMILY: &str = "meta";

/// Family of traces kept beyond retention.
pub const ARCHIVE_FAMILY: &str = "archive";

/// Key in `meta`: sequence number below which the journal is no longer needed.
pub const LOW_WATER_KEY: &[u8] = b"low-water";
/// Prefix in `meta` of positions of followed files.
pub const POSITION_PREFIX: &[u8] = b"position/";

/// Prefix in `meta` of delete requests.
pub const DELETE_PREFIX: &[u8] = b"delete/";
/// Prefix in `meta` of days that delete requests have been rewriting.
pub const ERASING_PREFIX: &[u8] = b"erasing/";

/// Prefix in `meta` of the generations of days, by [`PartitionId::name`].
pub const GENERATION_PREFIX: &[u8] = b"generation/";

/// Prefix in `meta` of what other parts keep.
pub const KEPT_PREFIX: &[u8] = b"kept/";

/// What a day holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Logs,
    Spans,
}

/// A day of one signal: the unit of retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    pub signal: Signal,
    pub day: Day,
}

impl PartitionId {
    /// Its name, which is that of the family and index directory of its first generation.
    pub fn name(self) -> String {
        let signal = match self.signal {
            Signal::Logs => "log",
            Signal::Spans => "span",
        };
        format!("{signal}-{}", self.day.compact())
    }

    /// Name of its family and of its index directory.
    pub fn family(self, generation: u32) -> String {
        match generation {
            0 => self.name(),
            n => format!("{}.{n}", self.name()),
        }
    }

    /// The reverse of [`PartitionId::family`].
    pub fn parse_family(name: &str) -> Option<(Self, u32)> {
        let (name, generation) = match name.split_once('.') {
            None => (name, 0),
            Some((name, digits)) => (name, digits.parse().ok().filter(|n| *n > 0)?),
        };
        Some((Self::parse(name)?, generation))
    }

    /// The reverse of [`PartitionId::name`].
    pub fn parse(name: &str) -> Option<Self> {
        let (signal, day) = name.split_once('-')?;
        let signal = match signal {
            "log" => Signal::Logs,
            "span" => Signal::Spans,
            _ => return None,
        };
        Some(Self {
            signal,
            day: Day::parse_compact(day)?,
        })
    }
}

impl std::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// Paths below one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn format_file(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// Where the files of a state are linked while a backup copies them.
    pub fn backup_root(&self) -> PathBuf {
        self.root.join(BACKUP_DIR)
    }

    /// Where a day is while `repair` rewrites it.
    pub fn rewrite_dir(&self) -> PathBuf {
        self.root.join("repair.tmp")
    }

    pub fn meta_copy(&self) -> PathBuf {
        self.root.join("META.copy")
    }

    pub fn manifest_copy(&self) -> PathBuf {
        self.root.join("MANIFEST.copy")
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub fn db_dir(&self) -> PathBuf {
        self.root.join("db")
    }

    pub fn index_root(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Of a day's first generation.
    pub fn index_dir(&self, partition: PartitionId) -> PathBuf {
        self.index_of(&partition.name())
    }

    /// The index beside a family.
    pub fn index_of(&self, family: &str) -> PathBuf {
        self.index_root().join(family)
    }
}

/// First byte of a key in a day's family.
pub mod prefix {
    pub const DATA: u8 = 0;
    pub const META: u8 = 1;
    /// Streams of a log day; trace ids of a span day.
    pub const STREAM: u8 = 2;
    pub const TRACE: u8 = 2;
    pub const SEALED_THROUGH: u8 = 3;
    pub const FILTER: u8 = 4;
    /// Patterns of a log day; operations of a span day.
    pub const PATTERNS: u8 = 5;
    pub const OPERATION: u8 = 5;
    /// Last journal record of a chunk; summary of a block.
    pub const SEQ: u8 = 6;
    pub const SUMMARY: u8 = 6;
    /// Calls between services that linking found.
    pub const LINKS: u8 = 7;
    /// Tags of a run of blocks.
    pub const RUN: u8 = 8;
}

/// Key of the `number`-th chunk or block, or of its meta or filter.
pub fn number_key(prefix: u8, number: u32) -> [u8; 5] {
    let mut key = [prefix; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Key of a piece of the filter of the run that begins with this block.
pub fn run_key(slice: u8, first: u32) -> [u8; 6] {
    let mut key = [prefix::RUN, slice, 0, 0, 0, 0];
    key[2..].copy_from_slice(&first.to_be_bytes());
    key
}

/// First block in a key made by [`run_key`].
pub fn first_of_run_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(2..6)?.try_into().ok()?))
}

/// Key in `meta` of a day's generation.
pub fn generation_key(id: PartitionId) -> Vec<u8> {
    [GENERATION_PREFIX, id.name().as_bytes()].concat()
}

/// Key of something a stream has.
pub fn stream_key(prefix: u8, stream: StreamId) -> [u8; 17] {
    let mut key = [prefix; 17];
    key[1..].copy_from_slice(&stream.to_bytes());
    key
}

/// Key of a block of an archived trace.
pub fn archive_block_key(trace: TraceId, number: u32) -> [u8; 21] {
    let mut key = [0; 21];
    key[1..17].copy_from_slice(&trace.0.to_be_bytes());
    key[17..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Key of the number of blocks of an archived trace.
pub fn archive_count_key(trace: TraceId) -> [u8; 17] {
    let mut key = [1; 17];
    key[1..].copy_from_slice(&trace.0.to_be_bytes());
    key
}

/// Number in a key made by [`number_key`].
pub fn number_of_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_names_round_trip() {
        for signal in [Signal::Logs, Signal::Spans] {
            let id = PartitionId {
                signal,
                day: Day(20_779),
            };
            assert_eq!(PartitionId::parse(&id.name()), Some(id));
            for generation in [0, 1, 12] {
                let name = id.family(generation);
                assert_eq!(PartitionId::parse_family(&name), Some((id, generation)));
            }
        }
        assert_eq!(PartitionId::parse("log-2026"), None);
        assert_eq!(PartitionId::parse("meta"), None);
        for name in [
            "log-20260101.",
            "log-20260101.0",
            "log-20260101.x",
            "meta.1",
        ] {
            assert_eq!(PartitionId::parse_family(name), None, "{name}");
        }
    }
}
