//! Lines on their way from files to the sink: one text buffer, entries, new positions.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::position::FileId;
use crate::model::{Labels, LabelsBuilder, LogBatch, LogEntry, StreamEntries, StreamId, Timestamp};

/// Text of a batch: large enough that an fsync per batch costs little, small enough to hold.
pub const BATCH_BYTES: usize = 256 << 10;

/// One stream, shared by the files that had its name one after the other.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    pub labels: Labels,
    /// Timestamp of its last line.
    last: Cell<Timestamp>,
}

impl Stream {
    /// The stream of a file that was found as `path`.
    pub fn new(labels: &Labels, path: &Path) -> Self {
        let mut builder = LabelsBuilder::from_labels(labels);
        if labels.get("filename").is_none() {
            builder.set("filename", path.to_string_lossy().as_ref());
        }
        let labels = builder.build();
        Self {
            id: StreamId::of("", &labels),
            labels,
            last: Cell::new(Timestamp::MIN),
        }
    }

    /// `now`, or just behind the line before (F5).
    fn next_at(&self, now: Timestamp) -> Timestamp {
        let at = now.max(self.last.get().saturating_add(1));
        self.last.set(at);
        at
    }
}

/// Where a file is after the batch was taken.
#[derive(Clone, Copy, Debug)]
pub struct Advance {
    pub file: u64,
    pub identity: FileId,
    pub offset: u64,
}

/// A batch being filled.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    streams: Vec<StreamEntries>,
    by_id: HashMap<StreamId, usize>,
    advances: Vec<Advance>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.advances.is_empty()
    }

    /// Whether `bytes` more are too much for this batch. An empty one takes anything.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        !self.text.is_empty() && self.text.len() + bytes > BATCH_BYTES
    }

    /// Adds the whole lines in `text`, which ends with `\n`, skipping those longer than
    /// `max_line_size`; returns how many were skipped.
    pub fn push_lines(
        &mut self,
        stream: &Rc<Stream>,
        text: &[u8],
        now: Timestamp,
        max_line_size: usize,
    ) -> u64 {
        let base = self.text.len();
        self.text.extend_from_slice(text);
        let slot = *self.by_id.entry(stream.id).or_insert_with(|| {
            let labels = stream.labels.clone();
            self.streams.push(StreamEntries {
                id: stream.id,
                labels,
                entries: Vec::new(),
            });
            self.streams.len() - 1
        });
        let entries = &mut self.streams[slot].entries;
        let mut start = 0;
        let mut skipped = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            let len = end - start;
            if len > max_line_size {
                skipped += 1;
            } else {
                entries.push(LogEntry {
                    at: stream.next_at(now),
                    start: (base + start) as u32,
                    len: len as u32,
                    metadata: 0,
                });
            }
            start = end + 1;
        }
        skipped
    }

    /// Notes where a file will be. A later note of the same file replaces the earlier.
    pub fn advance(&mut self, advance: Advance) {
        match self
            .advances
            .iter_mut()
            .rev()
            .find(|a| a.file == advance.file)
        {
            Some(earlier) => *earlier = advance,
            None => self.advances.push(advance),
        }
    }

    pub fn finish(self) -> (LogBatch, Vec<Advance>) {
        let streams = self
            .streams
            .into_iter()
            .filter(|s| !s.entries.is_empty())
            .collect();
        let batch = LogBatch {
            tenant: Arc::from(""),
            text: Bytes::from(self.text),
            metadata: Vec::new(),
            streams,
        };
        (batch, self.advances)
    }
}
