//! Making a family anew from what of it can be read.

use std::path::Path;

use rocksdb::{ColumnFamilyDescriptor, FlushOptions, WriteBatch, WriteOptions};

use super::{Db, Kv, base_options, day_options};
use crate::store::error::StoreError;
use crate::store::files::replace;

/// In the database aside: it has every row, and the family that they are of.
const COMPLETE: &str = "COMPLETE";
/// Bytes written at a time.
const BATCH_BYTES: usize = 4 << 20;

impl Kv {
    /// Copies what can be read of a family to a database at `aside`, drops the family with its
    /// damaged tables, and brings the rows back. Needs as much room again as the family has.
    /// [`Kv::finish_rewrite`] goes on after a crash. The number of rows.
    pub fn rewrite(&self, family: &str, aside: &Path) -> Result<u64, StoreError> {
        {
            let copy = self.open_aside(aside)?;
            let mut rows = 0u64;
            let mut batch = WriteBatch::default();
            let mut failure = Ok(());
            self.scan(family, b"", |key, value| {
                batch.put(key, value);
                rows += 1;
                if batch.size_in_bytes() >= BATCH_BYTES {
                    failure = write(&copy, std::mem::take(&mut batch));
                }
                failure.is_ok()
            })?;
            failure?;
            write(&copy, batch)?;
            flush(&copy)?;
            tracing::info!(family, rows, "copied what can be read");
        }
        let mark = aside.join(COMPLETE);
        replace(&mark, family.as_bytes()).map_err(|e| StoreError::io(&mark, "write", e))?;
        self.finish_rewrite(aside)
    }

    /// Brings back the rows of a rewriting that had come so far; otherwise removes what it left.
    pub fn finish_rewrite(&self, aside: &Path) -> Result<u64, StoreError> {
        let mut rows = 0;
        if let Ok(family) = std::fs::read_to_string(aside.join(COMPLETE)) {
            let copy = self.open_aside(aside)?;
            if self.db.cf_handle(&family).is_some() {
                self.db.drop_cf(&family).map_err(StoreError::kv)?;
            }
            self.create_family(&family)?;
            let handle = self.family(&family)?;
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            let mut batch = WriteBatch::default();
            let mut from = copy.raw_iterator();
            from.seek_to_first();
            while let Some((key, value)) = from.item() {
                batch.put_cf(&handle, key, value);
                rows += 1;
                if batch.size_in_bytes() >= BATCH_BYTES {
                    let full = std::mem::take(&mut batch);
                    self.db.write_opt(full, &options).map_err(StoreError::kv)?;
                }
                from.next();
            }
            from.status().map_err(StoreError::kv)?;
            self.db.write_opt(batch, &options).map_err(StoreError::kv)?;
            self.flush(std::slice::from_ref(&family))?;
        }
        match std::fs::remove_dir_all(aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io(aside, "remove", e))
            }
            _ => Ok(rows),
        }
    }

    fn open_aside(&self, aside: &Path) -> Result<Db, StoreError> {
        let options = day_options("", &self.cache, self.family_buffer);
        let family = ColumnFamilyDescriptor::new("default", options);
        let base = base_options(&self.buffers);
        Db::open_cf_descriptors(&base, aside, [family]).map_err(StoreError::kv)
    }
}

fn write(db: &Db, batch: WriteBatch) -> Result<(), StoreError> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    db.write_opt(batch, &options).map_err(StoreError::kv)
}

fn flush(db: &Db) -> Result<(), StoreError> {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    db.flush_opt(&options).map_err(StoreError::kv)
}
