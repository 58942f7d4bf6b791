//! Reading one open file: whole lines behind an offset, and noticing that it was truncated.
//!
//! The order is: size, bytes, then identity. Bytes count only if the file's beginning is
//! still the same after they were read, so a truncation in between is never mixed in.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::position::{FINGERPRINT_BYTES, FileId};

/// An open file and how far it was read.
#[derive(Debug)]
pub struct Reader {
    file: File,
    pub id: FileId,
    /// First byte that was not handed on: always the start of a line.
    pub offset: u64,
    /// No line ends between `offset` and here.
    scanned: u64,
    /// Size and modification time at which there was nothing more to read.
    exhausted: Option<(u64, i64, i64)>,
}

/// What a look at a file brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new that is a whole line.
    Nothing,
    /// The first bytes of the buffer are whole lines, ending with `\n`.
    Lines {
        len: usize,
        /// The offset after these lines.
        end: u64,
        /// Whether there may be more to read right now.
        more: bool,
    },
    /// A line longer than the buffer has ended; behind it reading goes on.
    Skipped { end: u64 },
    /// A line longer than the buffer goes on; there is more to search.
    Searching,
    /// Its content is not what it was: read from the beginning.
    Truncated { was: FileId, offset: u64 },
}

impl Reader {
    /// Opens `path` without ever waiting for it (a pipe would).
    pub fn open(path: &Path) -> io::Result<(Self, Vec<u8>)> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let mut head = vec![0; FINGERPRINT_BYTES];
        let len = read_full(&file, &mut head, 0)?;
        head.truncate(len);
        let id = FileId::new(meta.dev(), meta.ino(), &head);
        Ok((
            Self {
                file,
                id,
                offset: 0,
                scanned: 0,
                exhausted: None,
            },
            head,
        ))
    }

    pub fn start_at(&mut self, offset: u64) {
        self.offset = offset;
        self.scanned = offset;
        self.exhausted = None;
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// The offset behind the last `\n`, or 0.
    pub fn last_line_end(&self) -> io::Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut end = self.file.metadata()?.len();
        while end > 0 {
            let start = end.saturating_sub(buffer.len() as u64);
            let wanted = (end - start) as usize;
            let got = read_full(&self.file, &mut buffer[..wanted], start)?;
            if let Some(at) = memchr::memrchr(b'\n', &buffer[..got]) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// Whether anything changed since there was nothing more to read.
    pub fn has_changed(&self) -> io::Result<bool> {
        Ok(self.exhausted != Some(stamp(&self.file.metadata()?)))
    }

    /// Looks for whole lines behind `offset`; `offset` itself moves by [`Reader::start_at`]
    /// or [`Reader::advance`] only.
    pub fn look(&mut self, buffer: &mut [u8]) -> io::Result<Look> {
        let meta = self.file.metadata()?;
        let (size, now) = (meta.len(), stamp(&meta));
        if self.exhausted == Some(now) {
            return Ok(Look::Nothing);
        }
        if size < self.scanned {
            return self.truncated();
        }
        let searching = self.scanned - self.offset >= buffer.len() as u64;
        // While no line end is known, only what is new needs a search.
        let from = self.scanned;
        let got = read_full(&self.file, buffer, from)?;
        if !self.is_unchanged()? {
            return self.truncated();
        }
        let at_end = from + got as u64 >= size;
        let newest = memchr::memrchr(b'\n', &buffer[..got]);
        if from == self.offset {
            return Ok(match newest {
                Some(at) => {
                    let end = from + at as u64 + 1;
                    if at_end && end >= size {
                        self.exhausted = Some(now); // spares the look that would find nothing
                    }
                    Look::Lines {
                        len: at + 1,
                        end,
                        more: !at_end,
                    }
                }
                None => self.no_line_end(from + got as u64, at_end, now),
            });
        }
        let Some(first) = memchr::memchr(b'\n', &buffer[..got]) else {
            return Ok(self.no_line_end(from + got as u64, at_end, now));
        };
        let end = from + first as u64 + 1;
        if searching || end - self.offset > buffer.len() as u64 {
            return Ok(Look::Skipped { end });
        }
        // The line that was waiting has ended: read it from its start.
        self.scanned = self.offset;
        self.look(buffer)
    }

    /// Lines up to `end` are in a batch.
    pub fn advance(&mut self, end: u64) {
        self.offset = end;
        self.scanned = end;
    }

    fn no_line_end(&mut self, scanned: u64, at_end: bool, now: (u64, i64, i64)) -> Look {
        self.scanned = scanned;
        if at_end {
            self.exhausted = Some(now);
            Look::Nothing
        } else {
            Look::Searching
        }
    }

    fn truncated(&mut self) -> io::Result<Look> {
        let (was, offset) = (self.id, self.offset);
        let head = self.head()?;
        self.id = FileId::new(was.dev, was.ino, &head);
        self.start_at(0);
        Ok(Look::Truncated { was, offset })
    }

    /// Whether the file still begins as it did; extends the fingerprint as the file grows.
    fn is_unchanged(&mut self) -> io::Result<bool> {
        let head = self.head()?;
        if !self.id.matches_head(&head) {
            return Ok(false);
        }
        if head.len() > self.id.fingerprint_len as usize {
            self.id = FileId::new(self.id.dev, self.id.ino, &head);
        }
        Ok(true)
    }

    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; FINGERPRINT_BYTES];
        let len = read_full(&self.file, &mut head, 0)?;
        head.truncate(len);
        Ok(head)
    }
}

fn stamp(meta: &Metadata) -> (u64, i64, i64) {
    (meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// Reads until `buffer` is full or the file ends.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
