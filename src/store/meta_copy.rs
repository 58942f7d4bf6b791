//! A copy of what belongs to no day: positions of followed files, delete requests, what other
//! parts keep, the low-water mark.
//!
//! Y1. The copy is written after `meta` was, so it is never ahead of it. Where its low-water mark
//!     is higher, `meta` has lost what its log ended with: RocksDB reads its log up to the first
//!     damaged record and says nothing.
//! Y2. It is not synced: a power cut leaves the one before, or one that its checksum refuses.
//!
//! The file `META.copy`: `WPMETA01` | pairs: n, each (key, value) | XXH3-64 of all before.

use std::path::Path;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Reader, Writer};
use super::damage::Kind;
use super::error::StoreError;
use super::kv::Kv;
use super::layout::{LOW_WATER_KEY, Layout, META_FAMILY};

const MAGIC: &[u8; 8] = b"WPMETA01";

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The keeper and the writer both write it.
static WRITING: Mutex<()> = Mutex::new(());

/// Writes the copy if it is not what it was.
pub fn write(kv: &Kv, layout: &Layout) -> Result<(), StoreError> {
    let _writing = WRITING.lock();
    let mut pairs = Pairs::new();
    kv.scan(META_FAMILY, b"", |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        true
    })?;
    let bytes = encode(&pairs);
    let path = layout.meta_copy();
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension("copy.new");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|e| StoreError::io(&path, "write", e))
}

/// Brings back what `meta` has lost. Called before anything reads it.
pub fn check(kv: &Kv, layout: &Layout) -> Result<(), StoreError> {
    let Some(pairs) = read(&layout.meta_copy()) else {
        return Ok(());
    };
    let copied = pairs.iter().find(|(key, _)| key == LOW_WATER_KEY);
    let copied = copied.map_or(0, |(_, value)| number(value));
    let known = match kv.get(META_FAMILY, LOW_WATER_KEY, number) {
        Ok(known) => known.unwrap_or(0),
        Err(error) if error.is_damage() => 0,
        Err(error) => return Err(error),
    };
    let behind = copied > known;
    let mut lost = Vec::new();
    for (key, value) in pairs {
        let is_lost = behind
            || match kv.get(META_FAMILY, &key, |_| ()) {
                Err(error) if error.is_damage() => true,
                Err(error) => return Err(error),
                // Removed since, or never read because of damage: the one can't be told.
                Ok(_) => false,
            };
        if is_lost {
            lost.push((key, Some(value)));
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    kv.write_meta(&lost)?;
    kv.damage().count(Kind::Meta);
    tracing::error!(
        rows = lost.len(),
        "positions and delete requests were damaged and are restored from their copy"
    );
    Ok(())
}

/// Whether there is a whole copy.
pub fn exists(layout: &Layout) -> bool {
    read(&layout.meta_copy()).is_some()
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

fn encode(pairs: &Pairs) -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.varint(pairs.len() as u64);
    for (key, value) in pairs {
        w.text(key);
        w.text(value);
    }
    let mut bytes = w.finish();
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn read(path: &Path) -> Option<Pairs> {
    let bytes = std::fs::read(path).ok()?;
    let (body, sum) = bytes.split_at(bytes.len().checked_sub(8)?);
    if sum != xxh3_64(body).to_le_bytes() {
        return None;
    }
    let mut r = Reader::new(body.strip_prefix(MAGIC)?);
    let mut pairs = Pairs::new();
    for _ in 0..r.count(2).ok()? {
        pairs.push((r.text().ok()?.to_vec(), r.text().ok()?.to_vec()));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::tests::{batch, options, push, wait_recovered};
    use super::*;

    /// A store that kept something and made a checkpoint; its directory.
    async fn written(dir: &Path) {
        let store = Store::open(options(dir)).unwrap();
        wait_recovered(&store);
        push(
            &store,
            batch("a", &[(20_000 * crate::model::time::DAY, "x".into())]),
        )
        .await;
        store.keep("thing", b"value").unwrap();
        store.flush().await.unwrap();
        store.stop().unwrap();
    }

    fn logs(dir: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir.join("db")).unwrap();
        entries
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "log"))
            .collect()
    }

    #[tokio::test]
    async fn what_a_damaged_log_loses_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path()).await;
        for log in logs(dir.path()) {
            let mut bytes = std::fs::read(&log).unwrap();
            if bytes.len() > 20 {
                bytes[12] ^= 1;
                std::fs::write(&log, bytes).unwrap();
            }
        }
        let store = Store::open(options(dir.path())).unwrap();
        wait_recovered(&store);
        assert_eq!(store.kept("thing").unwrap().as_deref(), Some(&b"value"[..]));
        store.stop().unwrap();
    }

    #[test]
    fn a_copy_with_any_byte_changed_or_cut_off_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        let pairs = vec![(b"low-water".to_vec(), vec![7; 8]), (b"k".to_vec(), vec![])];
        let bytes = encode(&pairs);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path), Some(pairs));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(read(&path), None);
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(read(&path), None);
        }
    }
}
