//! What a query asks for and what comes back, before any protocol renders it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::logql::ast::{LogExpr, MetricExpr};
use crate::model::series::{Grid, Matrix};
use crate::model::{Direction, Labels, TimeRange, Timestamp};
use crate::runtime::permits::Permit;

/// A query for lines.
#[derive(Clone, Debug)]
pub struct LogQuery {
    pub expr: LogExpr,
    pub range: TimeRange,
    /// Lines over all streams.
    pub limit: usize,
    pub direction: Direction,
    /// Nanoseconds; after a line, skip everything nearer than this. 0: off.
    pub interval: i64,
    /// Keep stream labels, structured metadata and parsed labels apart
    /// (Loki's encoding flag `categorize-labels`).
    pub categorize: bool,
}

/// A query for samples.
#[derive(Clone, Debug)]
pub struct MetricQuery {
    pub expr: MetricExpr,
    pub grid: Grid,
}

/// Lines, grouped by their final label set, streams sorted by rendered labels.
#[derive(Clone, Debug, Default)]
pub struct LogAnswer {
    pub streams: Vec<AnswerStream>,
    pub stats: QueryStats,
    /// What covers the lines, until the last who has them lets go.
    pub memory: Option<Arc<Permit>>,
}

/// One group of lines, in the query's direction.
#[derive(Clone, Debug)]
pub struct AnswerStream {
    pub labels: Labels,
    pub entries: Vec<AnswerEntry>,
}

/// One line of an answer.
#[derive(Clone, Debug)]
pub struct AnswerEntry {
    pub at: Timestamp,
    /// Not necessarily UTF-8.
    pub line: Bytes,
    /// Filled only when the query categorizes.
    pub structured: Labels,
    /// Filled only when the query categorizes.
    pub parsed: Labels,
}

/// Series over the query's grid, sorted by labels.
#[derive(Clone, Debug, Default)]
pub struct MetricAnswer {
    pub matrix: Matrix,
    pub stats: QueryStats,
    pub warnings: Vec<String>,
}

/// What a query cost. True figures, not estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    pub elapsed: Duration,
    pub queued: Duration,
    /// Lines whose text was looked at, and their bytes.
    pub lines: u64,
    pub bytes: u64,
    /// Lines that survived the pipeline.
    pub lines_matched: u64,
    pub entries_returned: u64,
    /// Chunks in the range, those that pruning left, and those decoded.
    pub chunks_total: u64,
    pub chunks_candidate: u64,
    pub chunks_decoded: u64,
    /// Bytes of the decoded chunks as stored and as text.
    pub compressed_bytes: u64,
    pub decompressed_bytes: u64,
    /// Lines read from open heads.
    pub head_lines: u64,
    pub head_bytes: u64,
    pub streams: u64,
    /// Decoded chunks that the disk had to be waited for.
    pub slow_reads: u64,
    /// Chunks that can't be read: their lines are not in the answer.
    pub damaged: u64,
}

impl QueryStats {
    /// What whoever asked should know of the answer.
    pub fn warnings(&self) -> Vec<String> {
        let lacks = |n: u64| format!("{n} damaged chunks are left out; /ready names them");
        (self.damaged > 0)
            .then(|| lacks(self.damaged))
            .into_iter()
            .collect()
    }
}

/// What the index knows of a selector's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    pub streams: u64,
    pub chunks: u64,
    pub bytes: u64,
    pub entries: u64,
}

/// Why a query has no answer. `server/error.rs` gives each its status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The query is wrong, or uses what is not there yet; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// The answer would hold more than a limit allows.
    #[error("{0}")]
    TooMuch(String),
    /// The matching of a binary operation is ambiguous (500 in Loki).
    #[error("{0}")]
    Matching(String),
    #[error("query timed out after {} s; narrow the time range or the selector", .0.as_secs())]
    Timeout(Duration),
    /// No memory or no turn within the waiting time: try again.
    #[error("{0}")]
    Busy(String),
    /// No memory for the list of what would have to be read, beside what others hold.
    #[error("{0}; try again, or narrow the range or the selector")]
    NoRoom(String),
    #[error("{0}")]
    Internal(String),
}
