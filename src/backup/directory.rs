//! Backups in a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::{BUFFER, BackupError, Target};

/// A directory; made when it is not there.
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Writes a file under a temporary name, syncs it and gives it its own.
    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<(), BackupError> {
        let path = self.root.join(name);
        let dir = path.parent().unwrap_or(&self.root);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(dir)?;
            let temporary = path.with_extension("part");
            let mut file = File::create(&temporary)?;
            fill(&mut file)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            // The directories' own names as well.
            let mut dir = Some(dir);
            while let Some(here) = dir.filter(|d| d.starts_with(&self.root)) {
                File::open(here)?.sync_all()?;
                dir = here.parent();
            }
            Ok(())
        };
        write().map_err(BackupError::io(&path, "write"))
    }

    fn list_below(&self, dir: &Path, found: &mut BTreeMap<String, u64>) -> Result<(), BackupError> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(BackupError::io(dir, "list")(e)),
        };
        for entry in entries {
            let entry = entry.map_err(BackupError::io(dir, "list"))?;
            let path = entry.path();
            let metadata = entry
                .metadata()
                .map_err(BackupError::io(&path, "look at"))?;
            if metadata.is_dir() {
                self.list_below(&path, found)?;
            } else if path.extension().is_none_or(|e| e != "part") {
                let name = path.strip_prefix(&self.root).unwrap_or(&path);
                found.insert(name.to_string_lossy().into_owned(), metadata.len());
            }
        }
        Ok(())
    }
}

impl Target for Directory {
    fn put(&self, name: &str, from: &Path, size: u64) -> Result<(), BackupError> {
        self.write(name, |file| {
            let mut from = File::open(from)?.take(size);
            match std::io::copy(&mut from, file)? {
                copied if copied == size => Ok(()),
                _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        })
    }

    fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        self.write(name, |file| file.write_all(bytes))
    }

    fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), BackupError> {
        let path = self.root.join(name);
        let mut file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => BackupError::Missing(name.to_owned()),
            _ => BackupError::io(&path, "open")(e),
        })?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = file
                .read(&mut buffer)
                .map_err(BackupError::io(&path, "read"))?;
            if read == 0 {
                return Ok(());
            }
            take(&buffer[..read]).map_err(BackupError::io(&path, "copy"))?;
        }
    }

    fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, BackupError> {
        let mut found = BTreeMap::new();
        self.list_below(&self.root.join(prefix), &mut found)?;
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), BackupError> {
        let path = self.root.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(BackupError::io(&path, "remove")(e))
            }
            _ => Ok(()),
        }
    }
}
