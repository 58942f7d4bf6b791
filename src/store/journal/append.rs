//! Writing the journal.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::record::{
    Body, RECORD_PREFIX, SEGMENT_HEADER, SEGMENT_MAGIC, decode_prefix, decode_record, encode_header,
};
use super::resync::{find_record, is_zero};
use crate::model::time::SECOND;
use crate::store::error::StoreError;

/// A segment is closed at this size. Smaller means that less journal stays behind an old
/// head; larger means fewer files and directory syncs.
const SEGMENT_BYTES: u64 = 32 << 20;

/// An open segment of which nothing is needed any more is replaced from this size on.
const ROTATE_BYTES: u64 = 256 << 10;

/// Zeros written behind the last record for records to come. A sync of a file that has grown has
/// its file system commit the new length, which costs twice to three times what the sync of
/// overwritten bytes does (docs/benchmarks.md).
const RESERVE: &[u8] = &[0; 256 << 10];
/// Only appends below this size are worth it: many syncs share the zeros that were written twice.
const SMALL_APPEND: u64 = 64 << 10;

/// What the prefix and header of a record take, with a short tenant.
const HEADER_ROOM: usize = 64;

/// Numbers left out at each opening. A power cut may take the end of the journal although a
/// family that was sealed from it is on the disk: a number of that end, given out again, would
/// count as sealed. A run appends fewer records than this between two checkpoints.
const GAP: u64 = 1 << 24;

/// One file of the journal.
#[derive(Clone, Debug)]
pub struct Segment {
    pub first_seq: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// The open journal. One thread appends.
pub struct Journal {
    dir: PathBuf,
    /// Closed segments and, last, the open one.
    segments: Vec<Segment>,
    file: Arc<File>,
    /// Length of the open file; from its last record on it holds zeros.
    reserved: u64,
    next_seq: u64,
    /// Bytes of a torn record cut off at opening.
    pub torn_bytes: u64,
}

/// A segment's path.
fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.wpj"))
}

/// All segments of a directory, oldest first.
pub fn list_segments(dir: &Path) -> Result<Vec<Segment>, StoreError> {
    let mut segments = Vec::new();
    let files = std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, "list", e))?;
    for file in files {
        let file = file.map_err(|e| StoreError::io(dir, "list", e))?;
        let name = file.file_name();
        let Some(first_seq) = name.to_str().and_then(|n| n.strip_suffix(".wpj")) else {
            continue;
        };
        let Ok(first_seq) = first_seq.parse() else {
            continue;
        };
        let bytes = file
            .metadata()
            .map_err(|e| StoreError::io(dir, "list", e))?
            .len();
        segments.push(Segment {
            first_seq,
            path: file.path(),
            bytes,
        });
    }
    segments.sort_by_key(|s| s.first_seq);
    Ok(segments)
}

impl Journal {
    /// Opens the journal below `dir`, cuts a torn record off its end (J3), and goes on in a
    /// fresh segment. `least_seq` is the first number to use when there is no journal.
    pub fn open(dir: &Path, least_seq: u64) -> Result<Self, StoreError> {
        let mut segments = list_segments(dir)?;
        let mut next_seq = least_seq.max(1);
        let mut torn_bytes = 0;
        if let Some(last) = segments.last_mut() {
            let (seq, end) = scan_end(last)?;
            next_seq = next_seq.max(seq) + GAP;
            let file = OpenOptions::new().write(true).open(&last.path);
            if end < last.bytes {
                let opened = File::open(&last.path);
                let opened = opened.map_err(|e| StoreError::io(&last.path, "open", e))?;
                if !is_zero(&opened, &last.path, end, last.bytes)? {
                    torn_bytes = last.bytes - end;
                }
                file.and_then(|f| f.set_len(end))
                    .map_err(|e| StoreError::io(&last.path, "cut a torn record", e))?;
                last.bytes = end;
            }
            // J5. A killed process may have left its end unsynced. What is replayed must be safe
            // before anything behind it is acknowledged, or a power cut leaves a hole.
            if !tail_not_synced() {
                File::open(&last.path)
                    .and_then(|file| file.sync_all())
                    .map_err(|e| StoreError::io(&last.path, "sync", e))?;
            }
            if end <= SEGMENT_HEADER as u64 {
                // Nothing in it: its name may be needed again.
                std::fs::remove_file(&last.path)
                    .map_err(|e| StoreError::io(&last.path, "remove", e))?;
                segments.pop();
            }
        }
        let (segment, file) = create_segment(dir, next_seq)?;
        segments.push(segment);
        Ok(Self {
            dir: dir.to_owned(),
            segments,
            file: Arc::new(file),
            reserved: SEGMENT_HEADER as u64,
            next_seq,
            torn_bytes,
        })
    }

    /// Number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// The file that a sync must reach for what was appended last.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Appends records, the first with number [`Journal::next_seq`]. All are written or none.
    ///
    /// A failed write is taken back and reported as [`StoreError::Full`] when the disk is
    /// full; when it can't be taken back the journal has failed.
    pub fn append(&mut self, received_at: i64, bodies: &[&Body]) -> Result<(), StoreError> {
        let open = self.open_segment();
        if open.bytes > segment_bytes() {
            self.rotate()?;
        }
        let mut headers = Vec::with_capacity(HEADER_ROOM * bodies.len());
        let mut ends = Vec::with_capacity(bodies.len());
        for (body, seq) in bodies.iter().zip(self.next_seq..) {
            encode_header(seq, received_at, body, &mut headers);
            ends.push(headers.len());
        }
        let mut slices = Vec::with_capacity(2 * bodies.len());
        let mut start = 0;
        for (end, body) in ends.into_iter().zip(bodies) {
            slices.push(IoSlice::new(&headers[start..end]));
            slices.push(IoSlice::new(&body.bytes));
            start = end;
        }
        let total: u64 = slices.iter().map(|s| s.len() as u64).sum();
        let before = self.open_segment().bytes;
        fail::fail_point!("journal-write");
        // Linux takes at most 1024 slices a call.
        let mut file = &*self.file;
        let mut written = Ok(());
        for some in slices.chunks_mut(1024) {
            written = written.and_then(|()| write_all_vectored(&mut file, some));
        }
        if let Err(error) = written {
            let path = self.open_segment().path.clone();
            self.reserved = before;
            let undone = self.file.set_len(before);
            let undone = undone.and_then(|()| (&*self.file).seek(SeekFrom::Start(before)));
            return Err(match undone {
                Ok(_)
                    if error.kind() == ErrorKind::StorageFull
                        || error.kind() == ErrorKind::QuotaExceeded =>
                {
                    StoreError::Full(format!("journal: {error}"))
                }
                Ok(_) => StoreError::io(&path, "append", error),
                Err(undo) => StoreError::Failed(format!(
                    "journal: append failed ({error}) and could not be taken back ({undo})"
                )),
            });
        }
        fail::fail_point!("journal-written");
        self.open_segment().bytes = before + total;
        self.next_seq += bodies.len() as u64;
        self.reserved = self.reserved.max(before + total);
        if total < SMALL_APPEND && self.reserved == before + total {
            self.reserve();
        }
        Ok(())
    }

    /// Writes zeros behind the last record. Where that fails the file grows with its records, and
    /// zeros that were written do no harm.
    fn reserve(&mut self) {
        let end = self.open_segment().bytes;
        // Also after a failure, which may have left some of them.
        self.reserved = end + RESERVE.len() as u64;
        if self.file.write_all_at(RESERVE, end).is_err() {
            tracing::debug!("no zeros could be written behind the journal");
        }
    }

    /// Removes segments of which every record is below `low_water` (J2). When that is all of
    /// them, the open one goes as well, unless it is too small to matter.
    pub fn forget(&mut self, low_water: u64) -> Result<(), StoreError> {
        if low_water >= self.next_seq && self.open_segment().bytes >= ROTATE_BYTES {
            self.rotate()?;
        }
        while let [oldest, next, ..] = &self.segments[..] {
            if next.first_seq > low_water {
                break;
            }
            fail::fail_point!("journal-forget");
            std::fs::remove_file(&oldest.path)
                .map_err(|e| StoreError::io(&oldest.path, "remove", e))?;
            fail::fail_point!("journal-forgot");
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Closes the open segment if it holds a record.
    pub fn rotate_used(&mut self) -> Result<(), StoreError> {
        if self.open_segment().bytes > SEGMENT_HEADER as u64 {
            self.rotate()?;
        }
        Ok(())
    }

    /// Closes the open segment, synced, and opens the next.
    pub fn rotate(&mut self) -> Result<(), StoreError> {
        self.close()?;
        let (segment, file) = create_segment(&self.dir, self.next_seq)?;
        self.reserved = segment.bytes;
        self.segments.push(segment);
        self.file = Arc::new(file);
        Ok(())
    }

    /// Cuts off what zeros follow the last record, and syncs. Nothing may be appended any more.
    pub fn close(&mut self) -> Result<(), StoreError> {
        let Segment { path, bytes, .. } = self.open_segment().clone();
        let closed = match self.reserved > bytes {
            true => self.file.set_len(bytes).and_then(|()| self.file.sync_all()),
            false => self.file.sync_data(),
        };
        closed.map_err(|e| StoreError::Failed(format!("{}: close: {e}", path.display())))
    }

    fn open_segment(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }
}

/// [`SEGMENT_BYTES`], but for tests that need many segments.
fn segment_bytes() -> u64 {
    fail::fail_point!("journal-segment-bytes", |bytes: Option<String>| {
        bytes.and_then(|b| b.parse().ok()).unwrap_or(SEGMENT_BYTES)
    });
    SEGMENT_BYTES
}

/// A fail point for the power-cut test, which must notice it: an end that is never synced.
fn tail_not_synced() -> bool {
    fail::fail_point!("tail-not-synced", |_| true);
    false
}

/// A fail point for the power-cut test, which must notice it: a segment without a name.
fn directory_not_synced() -> bool {
    fail::fail_point!("directory-not-synced", |_| true);
    false
}

fn create_segment(dir: &Path, first_seq: u64) -> Result<(Segment, File), StoreError> {
    let path = segment_path(dir, first_seq);
    let create = || -> std::io::Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fail::fail_point!("segment-created");
        let mut header = SEGMENT_MAGIC.to_vec();
        header.extend_from_slice(&first_seq.to_le_bytes());
        file.write_all(&header)?;
        Ok(file)
    };
    let file = create().map_err(|e| {
        // Its name may be needed again.
        let _ = std::fs::remove_file(&path);
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                StoreError::Full(format!("journal: {e}"))
            }
            _ => StoreError::io(&path, "create", e),
        }
    })?;
    let sync = || -> std::io::Result<()> {
        file.sync_all()?;
        fail::fail_point!("segment-synced");
        // The name itself must survive a power cut before any record is acknowledged.
        if !directory_not_synced() {
            File::open(dir)?.sync_all()?;
        }
        fail::fail_point!("segment-named");
        Ok(())
    };
    sync().map_err(|e| StoreError::Failed(format!("{}: sync: {e}", path.display())))?;
    Ok((
        Segment {
            first_seq,
            path,
            bytes: SEGMENT_HEADER as u64,
        },
        file,
    ))
}

fn write_all_vectored(file: &mut &File, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Records that came so much later than a damaged place say that it was synced (J3): a sync takes
/// less, as a rule by far.
const SYNCED_AFTER: i64 = 5 * SECOND;

/// Sequence number after the last whole record of a segment, and where that record ends.
fn scan_end(segment: &Segment) -> Result<(u64, u64), StoreError> {
    let mut next = segment.first_seq;
    let mut end = SEGMENT_HEADER as u64;
    let file = File::open(&segment.path).map_err(|e| StoreError::io(&segment.path, "open", e))?;
    // What counts if nothing behind the first damaged place is seconds later, and the time of
    // the record behind that place.
    let mut torn: Option<(u64, u64, i64)> = None;
    loop {
        let read = read_record(&file, &segment.path, end, segment.bytes)?;
        if let Some((record, after)) = read.filter(|(record, _)| record.header.seq >= next) {
            let received_at = record.header.received_at;
            if torn.is_some_and(|(.., then)| received_at.saturating_sub(then) >= SYNCED_AFTER) {
                torn = None;
            }
            next = record.header.seq + 1;
            end = after;
            continue;
        }
        let Some(found) = find_record(&file, &segment.path, end + 1, segment.bytes, next)? else {
            break;
        };
        let behind = read_record(&file, &segment.path, found, segment.bytes)?;
        let then = behind.map_or(i64::MAX, |(record, _)| record.header.received_at);
        torn = torn.or(Some((next, end, then)));
        end = found;
    }
    Ok(torn.map_or((next, end), |(next, end, _)| (next, end)))
}

/// Reads the record at `offset` of a file of which `len` bytes count. `None`: there is no
/// whole, undamaged record at that place.
pub fn read_record(
    file: &File,
    path: &Path,
    offset: u64,
    len: u64,
) -> Result<Option<(super::record::Record, u64)>, StoreError> {
    let start = offset + RECORD_PREFIX as u64;
    if start > len {
        return Ok(None);
    }
    let mut prefix = [0; RECORD_PREFIX];
    if !read_at(file, path, &mut prefix, offset)? {
        return Ok(None);
    }
    let Some((size, checksum)) = decode_prefix(&prefix) else {
        return Ok(None);
    };
    let end = start + size as u64;
    if end > len {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    if !read_at(file, path, &mut bytes, start)? {
        return Ok(None);
    }
    Ok(decode_record(Bytes::from(bytes), checksum).map(|record| (record, end)))
}

/// Fills `bytes` from a place of a file. `false`: it has become shorter than that, as the open
/// segment does when it is closed while somebody reads it.
pub fn read_at(
    file: &File,
    path: &Path,
    bytes: &mut [u8],
    offset: u64,
) -> Result<bool, StoreError> {
    match file.read_exact_at(bytes, offset) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read
            .map(|()| true)
            .map_err(|e| StoreError::io(path, "read", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RecordKind, Replay};
    use super::*;

    fn body(bytes: Vec<u8>) -> Body {
        Body {
            kind: RecordKind::LogsOwn,
            format: 0,
            coding: 0,
            flags: 0,
            tenant: "t".into(),
            bytes: bytes.into(),
        }
    }

    fn length(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().len()
    }

    fn bodies(journal: &Journal) -> Vec<Vec<u8>> {
        let mut replay = Replay::from(1);
        let next = || replay.next(journal).unwrap();
        let read = std::iter::from_fn(next).map(|record| record.body.to_vec());
        let read = read.collect();
        assert_eq!(replay.damaged, []);
        read
    }

    #[test]
    fn small_records_overwrite_zeros_that_are_no_damage_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        let path = journal.segments()[0].path.clone();
        let small: Vec<_> = (0..20).map(|n| vec![n; 20_000]).collect();
        let mut lengths = Vec::new();
        for bytes in &small {
            journal.append(0, &[&body(bytes.clone())]).unwrap();
            lengths.push(length(&path));
        }
        lengths.dedup();
        assert_eq!(lengths.len(), 2, "the file grows seldom: {lengths:?}");
        assert!(journal.bytes() < lengths[1]);
        assert_eq!(bodies(&journal), small);
        let end = journal.bytes();
        drop(journal);
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        assert_eq!((journal.torn_bytes, length(&path)), (0, end));
        assert_eq!(bodies(&journal), small);
        // A second kill, and nothing in the segment that was opened.
        journal.append(0, &[&body(vec![1])]).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), 0).unwrap();
        assert_eq!(journal.torn_bytes, 0);
        assert_eq!(bodies(&journal).len(), 21);
    }

    #[test]
    fn a_record_torn_before_zeros_is_cut_off_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        let path = journal.segments()[0].path.clone();
        let body = body(vec![7; 1000]);
        journal.append(0, &[&body]).unwrap();
        let whole = journal.bytes();
        journal.append(0, &[&body]).unwrap();
        let torn = journal.bytes() - 400;
        drop(journal);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 400], torn).unwrap();
        let journal = Journal::open(dir.path(), 0).unwrap();
        assert_eq!(length(&path), whole);
        assert!(journal.torn_bytes >= 600);
        assert_eq!(bodies(&journal).len(), 1);
    }

    #[test]
    fn a_closed_segment_ends_with_its_last_record_and_large_ones_reserve_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        let path = journal.segments()[0].path.clone();
        let large = body(vec![7; 100_000]);
        journal.append(0, &[&large]).unwrap();
        assert_eq!(length(&path), journal.bytes());
        journal.append(0, &[&body(vec![1])]).unwrap();
        assert!(length(&path) > journal.bytes());
        journal.rotate().unwrap();
        assert_eq!(length(&path), journal.segments()[0].bytes);
        assert_eq!(bodies(&journal).len(), 2);
    }
}
