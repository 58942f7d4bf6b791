//! Backups: copies of data directories in a place of their own, each consistent, together no
//! larger than what differs.
//!
//! ```text
//! backups/<time>.json       what a backup consists of (manifest.rs)
//! objects/<2 hex>/<32 hex>-<size>    a file, named by the XXH3-128 of its content
//! ```
//!
//! B1. A backup's list is written after everything that it names. So whatever is listed is
//!     complete, and what a crash leaves is not listed.
//! B2. A file that the target has under its content's name is not copied again. RocksDB's tables
//!     and blobs, journal segments and the index's files never change once written, so a second
//!     backup copies what is new.
//! B3. What is read back is verified by its name.
//!
//! Knows files and targets; where the files come from, and that they are of one instant, is its
//! caller's.

pub mod bucket;
pub mod directory;
pub mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::Xxh3;

pub use bucket::Bucket;
pub use directory::Directory;
pub use manifest::{Entry, Manifest};

/// Bytes copied at a time.
const BUFFER: usize = 1 << 20;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{path}: {what}: {error}")]
    Io {
        path: String,
        what: &'static str,
        error: std::io::Error,
    },
    #[error("{0}")]
    Damaged(String),
    #[error("{0}: there is no such backup")]
    Missing(String),
    #[error("{0}: is not empty; restore into an empty or new directory")]
    NotEmpty(PathBuf),
    /// A bucket does not answer as it should.
    #[error("{0}")]
    Target(String),
}

impl BackupError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Io { path, what, error }
    }
}

/// Where backups are. Names have `/` between their parts.
pub trait Target {
    /// Stores a file of `size` bytes; safe on return, there wholly or not at all.
    fn put(&self, name: &str, from: &Path, size: u64) -> Result<(), BackupError>;
    /// Stores a few bytes, likewise.
    fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError>;
    /// Hands out what is stored, piece by piece.
    fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), BackupError>;
    /// Names and sizes of all that begin with `prefix`, which ends with `/`.
    fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, BackupError>;
    fn delete(&self, name: &str) -> Result<(), BackupError>;
}

/// What making a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub name: String,
    pub files: u64,
    pub bytes: u64,
    /// Of these, what the target did not have.
    pub copied_files: u64,
    pub copied_bytes: u64,
    /// Older backups and files of them that were removed.
    pub removed: u64,
}

/// Name of the list of a backup.
fn list_name(name: &str) -> String {
    format!("backups/{name}.json")
}

fn object_name(hash: u128, size: u64) -> String {
    let hash = format!("{hash:032x}");
    format!("objects/{}/{hash}-{size}", &hash[..2])
}

/// Backs up the files below `source`, which must not change meanwhile. `keep`: of the backups that
/// are there then, the newest stay.
pub fn create(
    source: &Path,
    target: &dyn Target,
    name: &str,
    keep: Option<usize>,
) -> Result<Made, BackupError> {
    let mut names = backups(target)?;
    // What the last one knows of files that have not changed need not be computed again.
    let last = names.last().map(|last| read(target, last)).transpose()?;
    let known: BTreeMap<&str, &Entry> = last
        .iter()
        .flat_map(|m| m.files.iter().map(|f| (&*f.path, f)))
        .collect();
    let present = target.list("objects/")?;
    let mut files = Vec::new();
    collect(source, source, &mut files)?;
    let mut made = Made {
        name: name.to_owned(),
        ..Made::default()
    };
    let mut entries = Vec::with_capacity(files.len());
    let mut put: BTreeSet<String> = BTreeSet::new();
    for path in files {
        let from = source.join(&path);
        let metadata = std::fs::metadata(&from).map_err(BackupError::io(&from, "look at"))?;
        let (size, changed) = (metadata.len(), changed_at(&metadata));
        let same = known
            .get(&*path)
            .filter(|k| k.size == size && k.changed == changed && changed != 0);
        let hash = match same {
            Some(known) => known.hash,
            None => hash_of(&from)?,
        };
        let object = object_name(hash, size);
        if present.get(&object) != Some(&size) && put.insert(object.clone()) {
            // A known file that the target lost is read again: it must be what it was.
            if same.is_some() && hash_of(&from)? != hash {
                return Err(BackupError::Damaged(format!(
                    "{}: is not what it was at the last backup",
                    from.display()
                )));
            }
            target.put(&object, &from, size)?;
            made.copied_files += 1;
            made.copied_bytes += size;
        }
        made.files += 1;
        made.bytes += size;
        entries.push(Entry {
            path,
            size,
            hash,
            changed,
        });
    }
    let manifest = Manifest { files: entries };
    target.put_bytes(&list_name(name), &manifest.encode())?;
    names.push(name.to_owned());
    if let Some(keep) = keep {
        made.removed = prune(target, &names, keep.max(1))?;
    }
    Ok(made)
}

/// Names of all backups, oldest first.
pub fn backups(target: &dyn Target) -> Result<Vec<String>, BackupError> {
    let lists = target.list("backups/")?;
    let names = lists.keys().filter_map(|name| {
        let name = name.strip_prefix("backups/")?.strip_suffix(".json")?;
        Some(name.to_owned())
    });
    Ok(names.collect())
}

fn read(target: &dyn Target, name: &str) -> Result<Manifest, BackupError> {
    let mut bytes = Vec::new();
    target.get(&list_name(name), &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Manifest::decode(&bytes).map_err(|what| BackupError::Damaged(format!("backup {name}: {what}")))
}

/// Removes all but the newest backups, and what only the removed ones have.
fn prune(target: &dyn Target, names: &[String], keep: usize) -> Result<u64, BackupError> {
    let (old, kept) = names.split_at(names.len().saturating_sub(keep));
    if old.is_empty() {
        return Ok(0);
    }
    let mut needed = BTreeSet::new();
    for name in kept {
        let manifest = read(target, name)?;
        needed.extend(manifest.files.iter().map(|f| object_name(f.hash, f.size)));
    }
    let mut removed = 0;
    // The lists first: none may name what is gone (B1).
    for name in old {
        target.delete(&list_name(name))?;
        removed += 1;
    }
    for object in target.list("objects/")?.into_keys() {
        if !needed.contains(&object) {
            target.delete(&object)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Reads everything of one backup, or of all, and tells what is damaged. Number of files read.
pub fn verify(
    target: &dyn Target,
    only: Option<&str>,
    tell: &mut dyn FnMut(String),
) -> Result<u64, BackupError> {
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => backups(target)?,
    };
    let mut verified: BTreeMap<String, bool> = BTreeMap::new();
    for name in &names {
        let manifest = match read(target, name) {
            Ok(manifest) => manifest,
            Err(error) => {
                tell(error.to_string());
                continue;
            }
        };
        for file in &manifest.files {
            let object = object_name(file.hash, file.size);
            let whole = match verified.get(&object) {
                Some(whole) => *whole,
                None => {
                    let whole = match check(target, file, &mut |_| Ok(())) {
                        Ok(()) => true,
                        Err(error) => {
                            tell(error.to_string());
                            false
                        }
                    };
                    verified.insert(object.clone(), whole);
                    whole
                }
            };
            if !whole {
                tell(format!("backup {name} lacks {} ({object})", file.path));
            }
        }
    }
    Ok(verified.len() as u64)
}

/// Reads a file of a backup and compares it with its name (B3).
fn check(
    target: &dyn Target,
    file: &Entry,
    take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), BackupError> {
    let object = object_name(file.hash, file.size);
    let mut hash = Xxh3::new();
    let mut size = 0;
    target.get(&object, &mut |piece| {
        hash.update(piece);
        size += piece.len() as u64;
        take(piece)
    })?;
    if size == file.size && hash.digest128() == file.hash {
        Ok(())
    } else {
        Err(BackupError::Damaged(format!("{object}: is damaged")))
    }
}

/// Restores a backup, the newest for `None`, into a directory that is empty or not there. The
/// name of the backup and its bytes.
pub fn restore(
    target: &dyn Target,
    name: Option<&str>,
    to: &Path,
) -> Result<(String, u64), BackupError> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => backups(target)?
            .pop()
            .ok_or_else(|| BackupError::Missing("latest".into()))?,
    };
    let manifest = read(target, &name)?;
    std::fs::create_dir_all(to).map_err(BackupError::io(to, "create"))?;
    let mut there = std::fs::read_dir(to).map_err(BackupError::io(to, "list"))?;
    if there.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let mut dirs = BTreeSet::from([to.to_owned()]);
    let mut bytes = 0;
    // FORMAT is last in the list: without it nothing starts on half a directory.
    for file in &manifest.files {
        let path = to.join(&file.path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(BackupError::io(dir, "create"))?;
            dirs.insert(dir.to_owned());
        }
        let mut out = File::create_new(&path).map_err(BackupError::io(&path, "create"))?;
        if let Err(error) = check(target, file, &mut |piece| out.write_all(piece)) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        out.sync_all().map_err(BackupError::io(&path, "sync"))?;
        bytes += file.size;
    }
    for dir in dirs {
        let synced = File::open(&dir).and_then(|d| d.sync_all());
        synced.map_err(BackupError::io(&dir, "sync"))?;
    }
    Ok((name, bytes))
}

/// When a file was changed, nanoseconds since the epoch; 0 when that is not known.
fn changed_at(metadata: &std::fs::Metadata) -> u64 {
    let since = metadata.modified().ok();
    let since = since.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or(0)
}

fn hash_of(path: &Path) -> Result<u128, BackupError> {
    let mut file = File::open(path).map_err(BackupError::io(path, "open"))?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(BackupError::io(path, "read"))?;
        if read == 0 {
            return Ok(hash.digest128());
        }
        hash.update(&buffer[..read]);
    }
}

/// What belongs to a data directory, FORMAT last; not locks, logs, and what is made anew.
fn collect(dir: &Path, root: &Path, files: &mut Vec<String>) -> Result<(), BackupError> {
    const TOP: [&str; 3] = ["db", "index", "journal"];
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(BackupError::io(dir, "list"))? {
        entries.push(entry.map_err(BackupError::io(dir, "list"))?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry
            .file_type()
            .map_err(BackupError::io(&path, "look at"))?;
        if kind.is_dir() {
            if dir != root || TOP.contains(&&*name) {
                collect(&path, root, files)?;
            }
            continue;
        }
        let is_ours = dir != root && name != "LOCK" && !name.starts_with("LOG");
        if is_ours && !name.ends_with(".lock") && !name.ends_with(".new") {
            let below = path.strip_prefix(root).unwrap_or(&path);
            files.push(below.to_string_lossy().into_owned());
        }
    }
    if dir == root {
        files.push("FORMAT".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
