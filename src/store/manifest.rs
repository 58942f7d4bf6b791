//! A copy of RocksDB's MANIFEST, its list of the files of all days: the one file whose damage
//! would cost every day.
//!
//! N1. The copy holds a prefix of the MANIFEST that `CURRENT` named, in pieces with a checksum
//!     each. It grows as the MANIFEST does, looked at every second; what a power cut leaves of its
//!     end, not synced, is recognised by the checksums.
//! N2. At opening, before RocksDB: where MANIFEST and a whole copy differ, the copy is right. The
//!     MANIFEST is set aside, and copy and what came after it take its place. A `CURRENT` that
//!     names nothing is written anew.
//!
//! The file: `WPMCOPY1`, then pieces: length u32 | XXH3-64 u64 | bytes (little-endian). The first
//! piece is the MANIFEST's name, the others its content.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::damage::{Damage, Kind};
use super::error::StoreError;
use super::files::{replace, sync_dir};
use super::layout::Layout;

const MAGIC: &[u8; 8] = b"WPMCOPY1";
/// Bytes before a piece.
const PREFIX: usize = 12;
/// A MANIFEST is begun anew at 4 MiB (`store/kv.rs`) and has a snapshot of all files then.
const MAX_PIECE: usize = 256 << 20;

/// Keeps the copy up to date. One for the keeper.
pub struct ManifestCopy {
    db: PathBuf,
    path: PathBuf,
    /// What is copied: which MANIFEST, how much of it, and the copy to append to.
    open: Option<(String, u64, File)>,
}

impl ManifestCopy {
    pub fn of(layout: &Layout) -> Self {
        Self {
            db: layout.db_dir(),
            path: layout.manifest_copy(),
            open: None,
        }
    }

    /// Copies what is new.
    pub fn copy(&mut self) -> std::io::Result<()> {
        let Some(name) = current(&self.db) else {
            return Ok(());
        };
        let manifest = self.db.join(&name);
        let Ok(metadata) = std::fs::metadata(&manifest) else {
            return Ok(()); // begun anew this moment
        };
        if self.open.as_ref().is_none_or(|(known, ..)| *known != name) {
            // A whole copy takes the place of the last one.
            let bytes = std::fs::read(&manifest)?;
            let mut copy = MAGIC.to_vec();
            copy.extend(piece(name.as_bytes()));
            copy.extend(piece(&bytes));
            replace(&self.path, &copy)?;
            let file = OpenOptions::new().append(true).open(&self.path)?;
            self.open = Some((name, bytes.len() as u64, file));
            return Ok(());
        }
        let Some((_, copied, file)) = &mut self.open else {
            return Ok(());
        };
        if metadata.len() > *copied {
            let mut from = File::open(&manifest)?;
            from.seek(SeekFrom::Start(*copied))?;
            let mut more = Vec::new();
            from.read_to_end(&mut more)?;
            if let Err(error) = file.write_all(&piece(&more)) {
                // Half a piece: a whole copy next time.
                self.open = None;
                return Err(error);
            }
            *copied += more.len() as u64;
        }
        Ok(())
    }
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&xxh3_64(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Name of the MANIFEST in use.
fn current(db: &Path) -> Option<String> {
    let text = std::fs::read_to_string(db.join("CURRENT")).ok()?;
    let name = text.strip_suffix('\n')?;
    let number = name.strip_prefix("MANIFEST-")?;
    let is_name = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_name.then(|| name.to_owned())
}

/// Name and content of the copied MANIFEST, as far as pieces are whole.
fn read_copy(path: &Path) -> Option<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut pieces = Vec::new();
    while let Some((prefix, after)) = rest.split_at_checked(PREFIX) {
        let (len, sum) = prefix.split_at(4);
        let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
        if len > MAX_PIECE {
            break;
        }
        let Some((piece, after)) = after.split_at_checked(len) else {
            break;
        };
        if sum != xxh3_64(piece).to_le_bytes() {
            break;
        }
        pieces.push(piece);
        rest = after;
    }
    let (name, content) = pieces.split_first()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some((name, content.concat()))
}

/// What is wrong with the MANIFEST, by the copy.
enum Wrong {
    /// Nothing, or there is nothing to compare.
    Nothing,
    /// `CURRENT` does not name the MANIFEST that is there.
    Current(String),
    /// The MANIFEST differs from its copy; what it should be.
    Manifest(String, Vec<u8>),
}

fn compare(layout: &Layout) -> Result<Wrong, StoreError> {
    let db = layout.db_dir();
    let Some((name, copy)) = read_copy(&layout.manifest_copy()) else {
        return Ok(Wrong::Nothing);
    };
    match current(&db) {
        // Begun anew a moment before the end: there is no copy of it.
        Some(other) if other != name && db.join(&other).exists() => return Ok(Wrong::Nothing),
        Some(same) if same == name => {}
        _ if db.join(&name).exists() => return Ok(Wrong::Current(name)),
        _ => return Ok(Wrong::Nothing),
    }
    let path = db.join(&name);
    let manifest = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Wrong::Manifest(name, copy));
        }
        Err(e) => return Err(StoreError::io(&path, "read", e)),
    };
    // A shorter one has lost an end that was not synced, as RocksDB knows.
    let common = manifest.len().min(copy.len());
    if manifest[..common] == copy[..common] {
        return Ok(Wrong::Nothing);
    }
    let mut right = copy;
    right.extend_from_slice(manifest.get(common..).unwrap_or_default());
    Ok(Wrong::Manifest(name, right))
}

/// Whether MANIFEST and `CURRENT` are as they were written, as far as that is known.
pub fn verify(layout: &Layout) -> Result<(), StoreError> {
    match compare(layout)? {
        Wrong::Nothing => Ok(()),
        Wrong::Current(name) => Err(StoreError::corrupt(
            "db/CURRENT",
            format!("does not name {name}"),
        )),
        Wrong::Manifest(name, _) => Err(StoreError::corrupt(
            format!("db/{name}"),
            "differs from its copy",
        )),
    }
}

/// Puts a damaged MANIFEST or `CURRENT` right (N2).
pub fn check(layout: &Layout, damage: &Damage) -> Result<(), StoreError> {
    let db = layout.db_dir();
    match compare(layout)? {
        Wrong::Nothing => return Ok(()),
        Wrong::Current(name) => {
            let path = db.join("CURRENT");
            replace(&path, format!("{name}\n").as_bytes())
                .map_err(|e| StoreError::io(&path, "write", e))?;
            tracing::error!("db/CURRENT was damaged and is written anew: {name}");
        }
        Wrong::Manifest(name, right) => {
            let path = db.join(&name);
            let aside = layout.root().join(format!("{name}.damaged"));
            let put = || -> std::io::Result<()> {
                match std::fs::rename(&path, &aside) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                    _ => sync_dir(layout.root())?,
                }
                replace(&path, &right)
            };
            put().map_err(|e| StoreError::io(&path, "restore", e))?;
            tracing::error!(
                aside = %aside.display(),
                "db/{name} was damaged and is restored from its copy"
            );
        }
    }
    damage.count(Kind::Manifest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn layout(dir: &Path) -> Layout {
        let layout = Layout::new(dir);
        std::fs::create_dir_all(layout.db_dir()).unwrap();
        layout
    }

    fn manifest(layout: &Layout) -> Vec<u8> {
        std::fs::read(layout.db_dir().join("MANIFEST-000005")).unwrap()
    }

    #[test]
    fn a_flipped_bit_anywhere_is_put_right_and_what_came_after_the_copy_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let path = layout.db_dir().join("MANIFEST-000005");
        std::fs::write(layout.db_dir().join("CURRENT"), "MANIFEST-000005\n").unwrap();
        std::fs::write(&path, b"first").unwrap();
        let mut copy = ManifestCopy::of(&layout);
        copy.copy().unwrap();
        std::fs::write(&path, b"first, second").unwrap();
        copy.copy().unwrap();
        std::fs::write(&path, b"first, second, not copied").unwrap();
        let damage = Damage::open(dir.path(), &Metrics::default());
        for at in 0..13 {
            let mut bytes = b"first, second, not copied".to_vec();
            bytes[at] ^= 4;
            std::fs::write(&path, &bytes).unwrap();
            assert!(verify(&layout).is_err());
            check(&layout, &damage).unwrap();
            assert_eq!(manifest(&layout), b"first, second, not copied");
        }
        for at in 0..16 {
            let mut bytes = b"MANIFEST-000005\n".to_vec();
            bytes[at] ^= 2;
            std::fs::write(layout.db_dir().join("CURRENT"), &bytes).unwrap();
            check(&layout, &damage).unwrap();
            assert_eq!(
                current(&layout.db_dir()).as_deref(),
                Some("MANIFEST-000005")
            );
        }
    }

    #[test]
    fn a_damaged_copy_changes_nothing_but_what_its_whole_pieces_say() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let path = layout.db_dir().join("MANIFEST-000005");
        std::fs::write(layout.db_dir().join("CURRENT"), "MANIFEST-000005\n").unwrap();
        std::fs::write(&path, b"first").unwrap();
        let mut copy = ManifestCopy::of(&layout);
        copy.copy().unwrap();
        std::fs::write(&path, b"first, second").unwrap();
        copy.copy().unwrap();
        let whole = std::fs::read(layout.manifest_copy()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(layout.manifest_copy(), &bytes).unwrap();
            assert!(verify(&layout).is_ok(), "byte {at}");
            // Cut, as a power cut would.
            std::fs::write(layout.manifest_copy(), &whole[..at]).unwrap();
            assert!(verify(&layout).is_ok(), "byte {at}");
        }
    }
}
