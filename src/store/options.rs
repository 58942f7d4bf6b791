//! What the store is told when it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::deletion::DeletionOptions;
use super::error::StoreError;
use super::journal::Record;
use super::journal::record::Cursor;
use super::retention::Rules;
use crate::model::log::LogBatch;
use crate::model::trace::SpanBatch;
use crate::runtime::clock::Clock;
use crate::runtime::permits::Budget;
use crate::runtime::pool::Pool;
use crate::telemetry::metrics::Metrics;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// The journal record is synced: survives a power loss.
    #[default]
    Sync,
    /// The journal record is written: survives kill -9. Synced every 200 ms or 1 MiB.
    Flush,
}

/// What the body of a journal record decodes to.
pub enum Decoded {
    Logs(LogBatch, Vec<Cursor>),
    Spans(SpanBatch),
}

/// Decodes the body of a record that a protocol defined, exactly as when it was received.
/// The store knows no protocol, so whoever opens it brings this along.
pub type Decoder = Arc<dyn Fn(&Record) -> Result<Decoded, String> + Send + Sync>;

/// Called once when the store can't go on; the process should end and recover by replay.
pub type OnFailure = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    pub path: PathBuf,
    pub durability: Durability,
    /// Days wholly older than this are dropped.
    pub retention: Option<Duration>,
    /// What is kept for longer, or less long.
    pub retention_rules: Rules,
    /// Bytes that the data directory may have: above, the oldest days go.
    pub max_bytes: Option<u64>,
    /// Free bytes on the disk below which the oldest days go, and nothing is accepted.
    pub min_free_bytes: u64,
    /// Mine the patterns of lines when chunks are sealed.
    pub mine_patterns: bool,
    pub deletion: DeletionOptions,
    pub decoder: Decoder,
    pub on_failure: OnFailure,
    pub clock: Clock,
    pub pool: Pool,
    pub budget: Budget,
    pub metrics: Metrics,
}
