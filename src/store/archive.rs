//! Traces kept beyond retention, in a family of their own.
//!
//! R1. What was archived is safe when [`Archiver::finish`] returns: the family is written with
//!     RocksDB's own log, which is synced then. A crash before leaves a part of the trace, which
//!     archiving again completes.
//! R2. Each span is there once: exact repetitions of what a trace has there are left out. Only
//!     one archiver is at work at a time.
//! R3. Retention drops nothing of it, and no search looks into it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashSet;
use tokio::sync::OwnedMutexGuard;

use super::Store;
use super::error::StoreError;
use super::kv::Batch;
use super::layout::{ARCHIVE_FAMILY, archive_block_key, archive_count_key};
use super::span::{Fingerprints, SpanBlock, SpanBlockBuilder};
use super::writer::Shared;
use crate::model::trace::{Span, TraceId};

impl Store {
    /// Number of blocks that the archive has of a trace.
    pub fn archived_blocks(&self, trace: TraceId) -> Result<u32, StoreError> {
        archived_blocks(&self.0.shared, trace)
    }

    /// One of them; `None` when it can't be read, which costs itself and is reported.
    pub fn archived_block(
        &self,
        trace: TraceId,
        number: u32,
    ) -> Result<Option<SpanBlock>, StoreError> {
        archived_block(&self.0.shared, trace, number)
    }

    /// Waits until no other archiver is at work.
    pub async fn archive_turn(&self) -> ArchiveTurn {
        ArchiveTurn {
            _held: self.0.archiving.clone().lock_owned().await,
        }
    }

    /// Begins to archive spans of one trace. Reads what is there of it.
    pub fn archive(&self, trace: TraceId, turn: ArchiveTurn) -> Result<Archiver, StoreError> {
        let shared = self.0.shared.clone();
        if shared.disk_full.load(Ordering::Relaxed) {
            let what = "free space is below storage.min_free_bytes";
            return Err(StoreError::Full(what.into()));
        }
        shared.kv.create_family(ARCHIVE_FAMILY)?;
        let mut archiver = Archiver {
            trace,
            seen: HashSet::new(),
            fingerprints: Fingerprints::default(),
            blocks: archived_blocks(&shared, trace)?,
            block: SpanBlockBuilder::new(),
            added: 0,
            shared,
            turn,
        };
        for number in 0..archiver.blocks {
            if let Some(block) = archived_block(&archiver.shared, trace, number)? {
                let seen = block.spans().map(|span| archiver.fingerprints.of(&span));
                archiver.seen.extend(seen);
            }
        }
        Ok(archiver)
    }
}

/// The right to archive (R2).
pub struct ArchiveTurn {
    _held: OwnedMutexGuard<()>,
}

/// Takes the spans of one trace.
pub struct Archiver {
    shared: Arc<Shared>,
    turn: ArchiveTurn,
    trace: TraceId,
    seen: HashSet<u128>,
    fingerprints: Fingerprints,
    /// Number of the next block.
    blocks: u32,
    block: SpanBlockBuilder,
    added: u64,
}

impl Archiver {
    /// Adds spans of the trace; those that the archive has are left out.
    pub fn add(&mut self, spans: &[Span]) -> Result<(), StoreError> {
        for span in spans {
            debug_assert_eq!(span.trace_id, self.trace);
            if self.seen.insert(self.fingerprints.of(span)) {
                self.block.append(span);
                self.added += 1;
                if self.block.is_full() {
                    self.write()?;
                }
            }
        }
        Ok(())
    }

    /// Writes the rest and makes all of it safe (R1).
    pub fn finish(mut self) -> Result<ArchiveTurn, StoreError> {
        if !self.block.is_empty() {
            self.write()?;
        }
        // Also when nothing was added: an earlier attempt may have failed before it came here.
        self.shared.kv.sync_log()?;
        let metrics = &self.shared.metrics;
        metrics.archived_spans.inc_by(self.added);
        metrics.archived_traces.inc();
        Ok(self.turn)
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let key = archive_block_key(self.trace, self.blocks);
        batch.put(key, self.block.block().encode());
        self.blocks += 1;
        batch.put(archive_count_key(self.trace), self.blocks.to_be_bytes());
        self.shared.kv.write_logged(ARCHIVE_FAMILY, batch)?;
        self.block.clear();
        Ok(())
    }
}

fn archived_blocks(shared: &Shared, trace: TraceId) -> Result<u32, StoreError> {
    let key = archive_count_key(trace);
    let count = |value: &[u8]| value.try_into().map_or(0, u32::from_be_bytes);
    match shared.kv.get(ARCHIVE_FAMILY, &key, count) {
        Ok(count) => Ok(count.unwrap_or(0)),
        // Nothing was archived yet.
        Err(StoreError::Gone(_)) => Ok(0),
        Err(error) => Err(error),
    }
}

fn archived_block(
    shared: &Shared,
    trace: TraceId,
    number: u32,
) -> Result<Option<SpanBlock>, StoreError> {
    let key = archive_block_key(trace, number);
    let found = shared.kv.get(ARCHIVE_FAMILY, &key, SpanBlock::decode)?;
    let what = match found {
        Some(Ok(block)) => return Ok(Some(block)),
        Some(Err(error)) => error.to_string(),
        None => "block is missing".to_owned(),
    };
    shared.degrade(format!("archive, trace {trace} block {number}: {what}"));
    Ok(None)
}
