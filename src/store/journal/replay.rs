//! Reading the journal back, from the low-water mark to wherever it ends by then.

use std::fs::File;
use std::path::PathBuf;

use super::append::{Journal, read_record};
use super::record::{Record, SEGMENT_HEADER};
use super::resync::find_record;
use crate::store::error::StoreError;

/// A reader that follows the journal until it has caught up with the writer, who may
/// append meanwhile.
pub struct Replay {
    /// Next record wanted; what is below is skipped.
    seq: u64,
    open: Option<Open>,
    /// Segments of which a part was unreadable.
    pub damaged: Vec<(PathBuf, String)>,
}

struct Open {
    path: PathBuf,
    file: File,
    first_seq: u64,
    offset: u64,
}

impl Replay {
    /// Starts at the record numbered `seq`, or the first after it that exists.
    pub fn from(seq: u64) -> Self {
        Self {
            seq,
            open: None,
            damaged: Vec::new(),
        }
    }

    /// Number of the record that [`Replay::next`] looks for.
    pub fn position(&self) -> u64 {
        self.seq
    }

    /// The next record, or `None` when all that the journal holds has been read.
    pub fn next(&mut self, journal: &Journal) -> Result<Option<Record>, StoreError> {
        loop {
            if self.seq >= journal.next_seq() {
                return Ok(None);
            }
            let segments = journal.segments();
            // The last segment that begins at or before the wanted record, or else the first.
            let at = segments.partition_point(|s| s.first_seq <= self.seq).max(1) - 1;
            let Some(segment) = segments.get(at) else {
                return Ok(None);
            };
            if segment.first_seq > self.seq {
                self.seq = segment.first_seq;
            }
            let same = self
                .open
                .as_ref()
                .is_some_and(|o| o.first_seq == segment.first_seq);
            if !same {
                if skip_segment()
                    && let Some(next) = segments.get(at + 1)
                {
                    self.seq = next.first_seq;
                    continue;
                }
                let file = File::open(&segment.path)
                    .map_err(|e| StoreError::io(&segment.path, "open", e))?;
                self.open = Some(Open {
                    path: segment.path.clone(),
                    file,
                    first_seq: segment.first_seq,
                    offset: SEGMENT_HEADER as u64,
                });
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            match read_record(&open.file, &open.path, open.offset, segment.bytes)? {
                Some((record, after)) => {
                    open.offset = after;
                    if record.header.seq < self.seq {
                        continue;
                    }
                    self.seq = record.header.seq + 1;
                    return Ok(Some(record));
                }
                None => {
                    // J3: not the open segment, whose torn end was cut at opening.
                    if open.offset < segment.bytes {
                        let Open { path, file, .. } = open;
                        let (from, len) = (open.offset, segment.bytes);
                        let next = find_record(file, path, from + 1, len, self.seq)?;
                        let to = next.unwrap_or(len);
                        let what = format!("bytes {from} to {to} are damaged and left out");
                        self.damaged.push((path.clone(), what));
                        if let Some(next) = next {
                            open.offset = next;
                            continue;
                        }
                    }
                    let Some(next) = segments.get(at + 1) else {
                        self.seq = journal.next_seq();
                        return Ok(None);
                    };
                    self.seq = self.seq.max(next.first_seq);
                    self.open = None;
                }
            }
        }
    }
}

/// A fail point for the crash test, which must notice it: a segment that replay passes over.
fn skip_segment() -> bool {
    fail::fail_point!("replay-skip-segment", |_| true);
    false
}
