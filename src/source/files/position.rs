//! How far a followed file has been read, and which file that was.
//!
//! A position travels in the journal record of the lines before it, so both are stored or
//! neither. The encoding reaches the disk: it carries a version and must never change
//! under the same one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::Timestamp;

/// The first bytes of a file that its fingerprint covers. Enough to tell two logs apart
/// that begin with the same banner; small enough to read again at each look.
pub const FINGERPRINT_BYTES: usize = 1024;

/// A path longer than this can't be opened on Linux.
const PATH_BYTES_MAX: usize = 4096;

const VERSION: u8 = 1;
/// Version, target, dev, ino, fingerprint, its length, offset, at, length of the path.
const FIXED_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 4 + 8 + 8 + 2;

/// Which file, whatever its name is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub dev: u64,
    pub ino: u64,
    /// XXH3-64 of the first `fingerprint_len` bytes: inode numbers are used again.
    pub fingerprint: u64,
    /// At most [`FINGERPRINT_BYTES`]; less while the file is shorter.
    pub fingerprint_len: u32,
}

impl FileId {
    /// The id of a file that begins with `head`.
    pub fn new(dev: u64, ino: u64, head: &[u8]) -> Self {
        let head = &head[..head.len().min(FINGERPRINT_BYTES)];
        Self {
            dev,
            ino,
            fingerprint: xxh3_64(head),
            fingerprint_len: head.len() as u32,
        }
    }

    /// Whether a file that begins with `head` can be this one or has grown from it.
    pub fn matches_head(&self, head: &[u8]) -> bool {
        head.get(..self.fingerprint_len as usize)
            .is_some_and(|begin| xxh3_64(begin) == self.fingerprint)
    }
}

/// A file's identity without its content, per `[[files]]` table that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PositionKey {
    pub target: u64,
    pub dev: u64,
    pub ino: u64,
}

/// Everything before `offset` is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePosition {
    /// Hash of the `[[files]]` table's labels: two tables may follow the same file.
    pub target: u64,
    pub identity: FileId,
    /// The name it had when first seen, which is its `filename` label as well.
    pub path: PathBuf,
    /// First byte of the first line that is not acknowledged; [`FORGOTTEN`] removes the entry.
    pub offset: u64,
    /// When this was written.
    pub at: Timestamp,
}

/// The offset that says: drop what you know of this file.
pub const FORGOTTEN: u64 = u64::MAX;

/// Bytes that are not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    #[error("file position of version {0}: this build knows version {VERSION}")]
    Version(u8),
    #[error("file position is cut short")]
    Short,
    #[error("file position with {0} bytes of {1}: more than can be")]
    TooLong(usize, &'static str),
}

impl FilePosition {
    /// Newer positions of the same key replace older ones.
    pub fn key(&self) -> PositionKey {
        PositionKey {
            target: self.target,
            dev: self.identity.dev,
            ino: self.identity.ino,
        }
    }

    pub fn is_forgotten(&self) -> bool {
        self.offset == FORGOTTEN
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let path = self.path.as_os_str().as_bytes();
        // Cut rather than refuse: such a path was never opened, and a label is all it is.
        let path = &path[..path.len().min(PATH_BYTES_MAX)];
        out.reserve(FIXED_BYTES + path.len());
        out.push(VERSION);
        out.extend_from_slice(&self.target.to_le_bytes());
        out.extend_from_slice(&self.identity.dev.to_le_bytes());
        out.extend_from_slice(&self.identity.ino.to_le_bytes());
        out.extend_from_slice(&self.identity.fingerprint.to_le_bytes());
        out.extend_from_slice(&self.identity.fingerprint_len.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&(path.len() as u16).to_le_bytes());
        out.extend_from_slice(path);
    }

    /// Reads one position from the front of `bytes` and moves `bytes` behind it.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, PositionError> {
        let mut rest = *bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(PositionError::Version(version));
        }
        let target = u64::from_le_bytes(take(&mut rest)?);
        let identity = FileId {
            dev: u64::from_le_bytes(take(&mut rest)?),
            ino: u64::from_le_bytes(take(&mut rest)?),
            fingerprint: u64::from_le_bytes(take(&mut rest)?),
            fingerprint_len: u32::from_le_bytes(take(&mut rest)?),
        };
        if identity.fingerprint_len as usize > FINGERPRINT_BYTES {
            let found = identity.fingerprint_len as usize;
            return Err(PositionError::TooLong(found, "fingerprint"));
        }
        let offset = u64::from_le_bytes(take(&mut rest)?);
        let at = i64::from_le_bytes(take(&mut rest)?);
        let path_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
        if path_len > PATH_BYTES_MAX {
            return Err(PositionError::TooLong(path_len, "path"));
        }
        let path = rest.get(..path_len).ok_or(PositionError::Short)?;
        *bytes = &rest[path_len..];
        Ok(Self {
            target,
            identity,
            path: OsStr::from_bytes(path).into(),
            offset,
            at,
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], PositionError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(PositionError::Short)?;
    *bytes = rest;
    Ok(*head)
}

/// The stored form of many positions, one after the other.
pub fn encode_all<'a>(positions: impl IntoIterator<Item = &'a FilePosition>) -> Vec<u8> {
    let mut out = Vec::new();
    for position in positions {
        position.encode(&mut out);
    }
    out
}

/// What [`encode_all`] wrote.
pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<FilePosition>, PositionError> {
    let mut positions = Vec::new();
    while !bytes.is_empty() {
        positions.push(FilePosition::decode(&mut bytes)?);
    }
    Ok(positions)
}

/// The newest position of each file.
#[derive(Clone, Debug, Default)]
pub struct Positions(HashMap<PositionKey, FilePosition>);

impl Positions {
    /// Takes a newer position; a forgotten one removes what was known.
    pub fn apply(&mut self, position: FilePosition) {
        if position.is_forgotten() {
            self.0.remove(&position.key());
        } else {
            self.0.insert(position.key(), position);
        }
    }

    pub fn get(&self, key: &PositionKey) -> Option<&FilePosition> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &FilePosition> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<FilePosition> for Positions {
    fn extend<I: IntoIterator<Item = FilePosition>>(&mut self, positions: I) {
        positions.into_iter().for_each(|p| self.apply(p));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_position() -> impl Strategy<Value = FilePosition> {
        let numbers = (
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<i64>(),
        );
        let path = proptest::collection::vec(1u8..=255, 0..300);
        (numbers, any::<u64>(), 0u32..=1024, path).prop_map(
            |((target, dev, ino, fingerprint, at), offset, fingerprint_len, path)| FilePosition {
                target,
                identity: FileId {
                    dev,
                    ino,
                    fingerprint,
                    fingerprint_len,
                },
                path: OsStr::from_bytes(&path).into(),
                offset,
                at,
            },
        )
    }

    proptest! {
        #[test]
        fn positions_survive_encoding(all in proptest::collection::vec(any_position(), 0..5)) {
            prop_assert_eq!(decode_all(&encode_all(&all)), Ok(all));
        }

        #[test]
        fn a_cut_position_is_an_error(one in any_position(), at in any::<prop::sample::Index>()) {
            let bytes = encode_all([&one]);
            let cut = 1 + at.index(bytes.len() - 1);
            prop_assert_eq!(decode_all(&bytes[..cut]).err(),
                (cut < bytes.len()).then_some(PositionError::Short));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = decode_all(&versioned);
        }
    }

    #[test]
    fn the_stored_form_never_changes() {
        let position = FilePosition {
            target: 1,
            identity: FileId {
                dev: 2,
                ino: 3,
                fingerprint: 4,
                fingerprint_len: 5,
            },
            path: "/a".into(),
            offset: 6,
            at: 7,
        };
        let mut expected = vec![1];
        for n in [1u64, 2, 3, 4] {
            expected.extend(n.to_le_bytes());
        }
        expected.extend(5u32.to_le_bytes());
        expected.extend(6u64.to_le_bytes());
        expected.extend(7i64.to_le_bytes());
        expected.extend([2, 0, b'/', b'a']);
        assert_eq!(encode_all([&position]), expected);
    }

    #[test]
    fn the_newest_position_counts_and_a_forgotten_one_removes() {
        let at = |offset| FilePosition {
            target: 0,
            identity: FileId::new(1, 2, b"x"),
            path: "/a".into(),
            offset,
            at: 0,
        };
        let mut positions = Positions::default();
        positions.extend([at(5), at(3)]);
        assert_eq!(positions.get(&at(0).key()), Some(&at(3)));
        positions.apply(at(FORGOTTEN));
        assert!(positions.is_empty());
    }

    #[test]
    fn a_file_that_grew_is_the_same_and_a_rewritten_one_is_not() {
        let id = FileId::new(1, 2, b"abc");
        assert!(id.matches_head(b"abc") && id.matches_head(b"abcdef"));
        assert!(!id.matches_head(b"ab") && !id.matches_head(b"abX") && !id.matches_head(b""));
    }
}
