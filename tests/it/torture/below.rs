//! The library below the process (`tests/torture/disk.c`) and the model of its disk together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rand::RngExt;
use rand::rngs::StdRng;

use super::disk::{Bytes, Disk, Names};
use crate::appliance::Appliance;

/// Longest time that a sync takes, microseconds: real ones take as long, and work of others falls
/// into it.
const SYNC: &str = "3000";

/// What runs below an appliance.
pub struct Below {
    log: PathBuf,
    root: PathBuf,
    pub disk: Disk,
}

/// The library, compiled; `None`, with a message, where that can't be done.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compiled = LIBRARY.get_or_init(|| match compile() {
        Ok(library) => Some(library),
        Err(why) => {
            eprintln!("left out: nothing can stand below the process here: {why}");
            None
        }
    });
    compiled.as_deref()
}

fn compile() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/disk.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = library.join(format!("disk-{}.so", std::process::id()));
    let flags = ["-O1", "-shared", "-fPIC", "-o"];
    let compiled = Command::new("cc")
        .args(flags)
        .arg(&library)
        .arg(source)
        .output();
    let compiled = compiled.map_err(|e| format!("cc: {e}"))?;
    if !compiled.status.success() {
        return Err(String::from_utf8_lossy(&compiled.stderr).into_owned());
    }
    // Whether the kernel lets it.
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (root, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut disk = Disk::of(&root);
    let probe = Command::new("mkdir")
        .arg(&root)
        .envs([
            ("LD_PRELOAD", &library),
            ("DISK_ROOT", &root),
            ("DISK_LOG", &log),
        ])
        .output();
    let probe = probe.map_err(|e| format!("mkdir: {e}"))?;
    disk.take(&std::fs::read(&log).unwrap_or_default());
    if !probe.status.success() || disk.calls == 0 || !disk.unclear.is_empty() {
        return Err(format!("{probe:?}, {:?}", disk.unclear));
    }
    Ok(library)
}

impl Below {
    /// Puts the library below all further starts; `None` where that can't be done.
    pub fn new(appliance: &mut Appliance) -> Option<Self> {
        let library = library()?;
        let (log, root) = (appliance.dir().join("disk.log"), appliance.data_dir());
        for (name, value) in [
            ("LD_PRELOAD", library),
            ("DISK_ROOT", &root),
            ("DISK_LOG", &log),
            ("DISK_SYNC", Path::new(SYNC)),
        ] {
            appliance.set_env(name, &value.to_string_lossy());
        }
        let disk = Disk::of(&root);
        Some(Self { log, root, disk })
    }

    /// Takes what the process did; it must have ended. What the library could not follow ends
    /// the test: nothing could be said then.
    pub fn take(&mut self) {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.log);
        self.disk.take(&log);
        assert_eq!(self.disk.unclear, Vec::<String>::new());
    }

    /// Cuts the power: the directory is what could be left of it. Says what that was.
    pub fn cut(&mut self, random: &mut StdRng) -> (Names, Bytes) {
        let names = match random.random_range(0..4) {
            0 | 1 => Names::Synced,
            2 => Names::All,
            _ => Names::Until(random.random_range(0..1000)),
        };
        let bytes = match random.random_range(0..4) {
            0 | 1 => Bytes::Synced,
            2 => Bytes::All,
            _ => Bytes::Some(random.random_range(50..950)),
        };
        let mut chance = |part| random.random_range(0..1000) < part;
        self.disk.cut(names, bytes, &mut chance);
        (names, bytes)
    }

    /// Where the model is not what is there: something got past it.
    pub fn differences(&self) -> Vec<String> {
        let differences = self.disk.differences();
        assert!(self.root.exists() || differences.is_empty());
        differences
    }
}
