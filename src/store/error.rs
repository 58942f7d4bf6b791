//! What can go wrong below the store.

use std::path::{Path, PathBuf};

use crate::runtime::permits::Exhausted;

/// An error of the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {what}: {message}")]
    Io {
        path: PathBuf,
        what: &'static str,
        message: String,
        kind: std::io::ErrorKind,
    },
    #[error("rocksdb: {0}")]
    Kv(String),
    #[error("index {0}")]
    Index(String),
    /// Bytes on disk are not what was written.
    #[error("{place}: {what}")]
    Corrupt { place: String, what: String },
    /// The day was dropped by retention, or the chunk removed by a delete request.
    #[error("{0} is gone")]
    Gone(String),
    /// The directory belongs to another process.
    #[error("{0}: in use by another watchpost process; stop it or choose another storage.path")]
    Locked(PathBuf),
    /// The directory was written by another version.
    #[error("{path}: format version {found}, this program reads {expected}; {advice}")]
    Format {
        path: PathBuf,
        found: String,
        expected: u32,
        advice: &'static str,
    },
    /// A sync failed or the writer died: nothing more is accepted.
    #[error("store has failed: {0}")]
    Failed(String),
    /// The disk is (nearly) full; retry later.
    #[error("no space left for data: {0}")]
    Full(String),
    /// There is no memory for what would have to be held: try again, or ask for less.
    #[error("{0}")]
    Memory(String),
    #[error("shutting down")]
    Stopped,
}

impl StoreError {
    pub fn io(path: &Path, what: &'static str, error: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            what,
            kind: error.kind(),
            message: error.to_string(),
        }
    }

    pub(super) fn memory(exhausted: Exhausted) -> Self {
        Self::Memory(exhausted.to_string())
    }

    /// An error of RocksDB: damage when it says that bytes are not what was written, or that the
    /// disk does not give them back. A write that failed damages nothing that is there.
    pub(super) fn kv(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let lost = ["Input/output error", "No such file or directory"];
        // What was done, before the name of the file.
        let done = text.split('/').next().unwrap_or_default();
        let reads = ["read", "stat"].iter().any(|word| done.contains(word));
        if text.starts_with("Corruption")
            || text.starts_with("IO error") && reads && lost.iter().any(|what| text.contains(what))
        {
            Self::corrupt("rocksdb", text)
        } else {
            Self::Kv(text)
        }
    }

    /// Whether it says that stored bytes can't be read, now or later.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    pub fn corrupt(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt {
            place: place.into(),
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_damage_and_what_can_not_be_written_is_none() {
        for (text, is_damage) in [
            ("Corruption: block checksum mismatch in /a/b.sst", true),
            (
                "IO error: While pread offset 0 len 9: /a/b.sst: Input/output error",
                true,
            ),
            (
                "IO error: No such file or directory: While open a file for random read: \
                 /a/b.sst: No such file or directory",
                true,
            ),
            (
                "IO error: While appending to file: /read/b.log: Input/output error",
                false,
            ),
            (
                "IO error: While fdatasync: /a/b.log: Input/output error",
                false,
            ),
            (
                "IO error: No space left on device: While appending to file: /a/b.sst",
                false,
            ),
        ] {
            assert_eq!(StoreError::kv(text).is_damage(), is_damage, "{text}");
        }
    }
}
