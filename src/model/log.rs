//! Log lines as they travel from a protocol to the store.

use std::sync::Arc;

use bytes::Bytes;

use super::labels::{Labels, StreamId};
use super::time::Timestamp;

/// Structured metadata of one entry: pairs sorted by name, names unique.
pub type Metadata = Arc<[(Arc<str>, Arc<str>)]>;

/// One line. Its text lies in the batch's buffer, so that a push is decoded without
/// an allocation per line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub at: Timestamp,
    /// Offset of the line in [`LogBatch::text`], bytes.
    pub start: u32,
    /// Length of the line, bytes.
    pub len: u32,
    /// 0: no structured metadata; n: [`LogBatch::metadata`]`[n - 1]`.
    pub metadata: u32,
}

/// Entries of one stream, in order of arrival.
#[derive(Clone, Debug)]
pub struct StreamEntries {
    pub id: StreamId,
    pub labels: Labels,
    pub entries: Vec<LogEntry>,
}

/// What one push brings: several streams over one buffer of text.
///
/// Invariant: every entry's range lies inside `text`, every metadata index inside `metadata`.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// "" unless tenancy is on.
    pub tenant: Arc<str>,
    /// All lines' bytes, not necessarily UTF-8, with anything in between.
    pub text: Bytes,
    pub metadata: Vec<Metadata>,
    pub streams: Vec<StreamEntries>,
}

impl LogBatch {
    /// The bytes of a line of this batch.
    pub fn line(&self, entry: &LogEntry) -> &[u8] {
        &self.text[entry.start as usize..entry.start as usize + entry.len as usize]
    }

    /// The structured metadata of an entry of this batch.
    pub fn metadata(&self, entry: &LogEntry) -> Option<&Metadata> {
        (entry.metadata > 0).then(|| &self.metadata[entry.metadata as usize - 1])
    }

    pub fn entry_count(&self) -> usize {
        self.streams.iter().map(|s| s.entries.len()).sum()
    }

    /// Bytes of all lines.
    pub fn line_bytes(&self) -> u64 {
        self.streams
            .iter()
            .flat_map(|s| &s.entries)
            .map(|e| u64::from(e.len))
            .sum()
    }
}
