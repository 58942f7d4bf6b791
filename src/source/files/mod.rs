//! Following files: what a log agent on the same machine would do, with the position in
//! the same journal record as the lines.
//!
//! F1. A line is handed on once it ends with `\n`, without it and otherwise unchanged.
//! F2. Reading moves on only after the sink took the lines; a restart begins behind the
//!     last line that was acknowledged.
//! F3. A file is its device, inode and first bytes, not its name: a renamed file is read on
//!     where it was, under the name it had first.
//! F4. Of two files that had one name, the older is read to its end before the newer.
//! F5. Timestamps (the time of reading) increase strictly within a stream.
//! F6. Memory is bounded: one batch, whatever the number of files and length of lines.
//!
//! One thread follows all files. It looks at every followed file several times a second
//! when the kernel hints at changes and at least once a second otherwise.

mod batch;
pub mod discover;
mod follow;
pub mod position;
mod read;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ingest::refusal::Refusal;
use crate::model::LogBatch;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::{Counter, Gauge, Metrics};

pub use discover::PatternError;
pub use position::{FileId, FilePosition, PositionKey, Positions};

/// Where a file without a position begins, when the table is new to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// Its first byte.
    #[default]
    Beginning,
    /// Behind its last whole line. Files that appear later are read from their beginning.
    End,
}

/// One `[[files]]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// Globs (`*`, `?`, `[a-z]`, `{a,b}`, `**`) or names.
    pub paths: Vec<String>,
    pub exclude: Vec<String>,
    /// Labels of every line; `filename` is added unless it is set here.
    pub labels: Vec<(String, String)>,
    pub start: StartAt,
}

/// What all `[[files]]` tables share.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// A longer line is skipped, counted and warned of.
    pub max_line_size: usize,
    /// A file that lost its name is watched this long after it last grew.
    pub linger: Duration,
    /// How often names are looked up; new files are seen this late at worst.
    pub look_every: Duration,
    /// How soon a hint of the kernel leads to reading, so that lines gather in batches.
    pub gather: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            max_line_size: 256 << 10,
            linger: Duration::from_secs(60),
            look_every: Duration::from_secs(1),
            gather: Duration::from_millis(100),
        }
    }
}

/// Who takes the lines of followed files.
pub trait FileSink: Send + Sync + 'static {
    /// Stores lines and positions together, or neither. `Ok` means acknowledged. A batch
    /// may be empty: then only positions moved. An entry that is refused for good is
    /// counted by the sink and does not make the call fail.
    ///
    /// After an error of kind `Unavailable` or `Limited` the same call comes again, with
    /// the same timestamps; after another kind the lines are counted and left out.
    fn append_lines(
        &self,
        batch: LogBatch,
        positions: Vec<FilePosition>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The newest position of each file that was ever acknowledged.
    fn positions(&self) -> Vec<FilePosition>;
}

/// What following files counts.
#[derive(Clone)]
pub struct FilesMetrics {
    pub followed: Gauge,
    pub lines: Counter,
    pub bytes: Counter,
    pub behind_bytes: Gauge,
    pub skipped_long: Counter,
    pub refused: Counter,
    pub retries: Counter,
    pub unreadable: Gauge,
    pub truncations: Counter,
}

impl FilesMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            followed: metrics.gauge("files_followed", "Files held open and followed"),
            lines: metrics.counter("files_lines", "Lines of followed files acknowledged"),
            bytes: metrics.counter("files_bytes", "Bytes of followed files acknowledged"),
            behind_bytes: metrics.gauge("files_behind_bytes", "Bytes not read yet"),
            skipped_long: metrics.counter(
                "files_lines_too_long",
                "Lines skipped because they were too long",
            ),
            refused: metrics.counter(
                "files_lines_refused",
                "Lines left out because the store refused them",
            ),
            retries: metrics.counter("files_retries", "Batches that had to be offered again"),
            unreadable: metrics.gauge("files_unreadable", "Matching files that can't be opened"),
            truncations: metrics.counter("files_truncations", "Files found truncated"),
        }
    }
}

/// The thread that follows files. Dropping it without [`Follower::stop`] leaves it running.
pub struct Follower {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

/// Why following could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("could not start the thread that follows files: {0}")]
    Thread(#[from] std::io::Error),
}

impl Follower {
    /// Starts to follow what `tables` mean. `runtime` runs the sink.
    pub fn start<S: FileSink>(
        tables: &[FilesOptions],
        options: FollowOptions,
        sink: Arc<S>,
        clock: Clock,
        metrics: FilesMetrics,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, StartError> {
        let targets = tables
            .iter()
            .map(follow::Target::new)
            .collect::<Result<Vec<_>, PatternError>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = sync_channel(1);
        let parts = follow::Parts {
            targets,
            options,
            sink,
            clock,
            metrics,
            runtime,
            stop: stop.clone(),
            wake: wake.clone(),
            woken,
        };
        let thread = std::thread::Builder::new()
            .name("files".into())
            .spawn(move || parts.run())?;
        Ok(Self { stop, wake, thread })
    }

    /// False after a panic: a reason to call the process degraded.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends the thread, before the runtime that runs the sink ends. A batch that waits for its acknowledgement is given up: its lines
    /// are read again at the next start unless the sink took them meanwhile.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.wake.try_send(()); // full: it is about to look anyway
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows files had panicked");
        }
    }
}
