//! Finding the next whole record behind damage.

use std::fs::File;
use std::path::Path;

use super::append::{read_at, read_record};
use super::record::{RECORD_PREFIX, looks_like_record};
use crate::store::error::StoreError;

/// Bytes looked at in one go.
const WINDOW: usize = 1 << 20;
/// Of a record's beginning that is looked at: prefix, number, time, kind.
const LOOK: usize = RECORD_PREFIX + 8 + 8 + 1;

/// Place of the first whole record at or behind `from` whose number is at least `seq`. A file has
/// `len` bytes that count. Every place is looked at, since a damaged length says nothing of where
/// the next record begins; a record's number and kind leave next to none to be read.
pub fn find_record(
    file: &File,
    path: &Path,
    from: u64,
    len: u64,
    seq: u64,
) -> Result<Option<u64>, StoreError> {
    let mut window = Vec::new();
    let mut start = from;
    while start + LOOK as u64 <= len {
        let size = (len - start).min((WINDOW + LOOK) as u64) as usize;
        window.resize(size, 0);
        if !read_at(file, path, &mut window, start)? {
            return Ok(None);
        }
        let places = size - LOOK + 1;
        for (place, offset) in window.windows(LOOK).zip(start..) {
            if looks_like_record(place, seq)
                && let Some((record, _)) = read_record(file, path, offset, len)?
                && record.header.seq >= seq
            {
                return Ok(Some(offset));
            }
        }
        start += places as u64;
    }
    Ok(None)
}

/// Whether a file holds only zeros from `from` to `to`: what is written for records to come.
pub fn is_zero(file: &File, path: &Path, from: u64, to: u64) -> Result<bool, StoreError> {
    let mut window = vec![0; WINDOW.min((to - from) as usize)];
    let mut start = from;
    while start < to {
        let some = &mut window[..WINDOW.min((to - start) as usize)];
        if !read_at(file, path, some, start)? {
            return Ok(true);
        }
        if some.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        start += some.len() as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::record::{Body, RecordKind};
    use super::super::{Journal, Replay};
    use crate::model::time::SECOND;

    fn body(n: usize) -> Body {
        Body {
            kind: RecordKind::LogsOwn,
            format: 0,
            coding: 0,
            flags: 0,
            tenant: "t".into(),
            bytes: format!("record {n} {}", "x".repeat(n * 7 % 50)).into(),
        }
    }

    /// A journal of 20 records, one every `apart` nanoseconds, and its one file with records.
    fn written(dir: &std::path::Path, apart: i64) -> PathBuf {
        let mut journal = Journal::open(dir, 0).unwrap();
        for n in 0..20 {
            journal.append(n as i64 * apart, &[&body(n)]).unwrap();
        }
        // Without the zeros behind its records.
        journal.file().set_len(journal.bytes()).unwrap();
        journal.segments()[0].path.clone()
    }

    fn replayed(dir: &std::path::Path) -> (Vec<String>, usize) {
        let journal = Journal::open(dir, 0).unwrap();
        let mut replay = Replay::from(1);
        let mut found = Vec::new();
        while let Some(record) = replay.next(&journal).unwrap() {
            found.push(String::from_utf8(record.body.to_vec()).unwrap());
        }
        (found, replay.damaged.len())
    }

    #[test]
    fn damage_in_the_middle_costs_its_record_wherever_it_is() {
        let whole = tempfile::tempdir().unwrap();
        let path = written(whole.path(), 6 * SECOND);
        let bytes = std::fs::read(&path).unwrap();
        let (all, damaged) = replayed(whole.path());
        assert_eq!((all.len(), damaged), (20, 0));
        // With too few records behind it, damage is taken for a torn end.
        let last = bytes.len() - 260;
        for at in (0..last).step_by(7) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            std::fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
            let (found, damaged) = replayed(dir.path());
            // The header of a segment is needed by nobody.
            let lost = usize::from(at >= 16);
            assert_eq!((found.len(), damaged), (20 - lost, lost), "byte {at}");
            assert!(found.iter().all(|record| all.contains(record)));
        }
    }

    #[test]
    fn what_stands_shortly_behind_damage_may_never_have_been_synced_and_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), SECOND / 10);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (found, damaged) = replayed(dir.path());
        assert!((5..15).contains(&found.len()), "{}", found.len());
        assert_eq!(damaged, 0);
        assert!((std::fs::metadata(&path).unwrap().len() as usize) < middle);
    }
}
