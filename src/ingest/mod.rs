//! May we accept this? Checks what was decoded, refuses entry by entry, and hands the rest
//! to the store.
//!
//! Knows no protocol and no status code: a [`Refusal`] says what the sender should do,
//! `server/error.rs` gives it a number.
//!
//! I1. Nothing that was refused reaches the sink; nothing that was accepted is left out.
//! I2. A body goes to the journal as it was received only if decoding it again gives
//!     exactly the batch that was accepted ([`Received::Body`]).

pub mod discover;
pub mod limits;
pub mod logs;
pub mod newest;
pub mod rate;
pub mod refusal;

use bytes::Bytes;

use crate::model::LogBatch;
use crate::runtime::clock::Clock;
use crate::runtime::permits::Permit;
use crate::telemetry::metrics::{Counter, Family, Metrics, Reason};

pub use discover::Discovery;
pub use limits::LogLimits;
pub use logs::{Admission, Admitted, complete, error_text};
pub use refusal::{Refusal, RefusalKind};

/// Set in [`Received::Body`]: replay adds `service_name` by the default list.
pub const FLAG_SERVICE_NAME: u8 = 1;

/// How a batch came to us, which decides what the journal keeps of it.
#[derive(Clone, Debug)]
pub enum Received {
    /// A body which, decoded again, gives the batch that comes with it.
    Body {
        /// `protocol::loki::push::PushFormat::code`.
        format: u8,
        /// `protocol::loki::push::Coding::code`.
        coding: u8,
        /// [`FLAG_SERVICE_NAME`].
        flags: u8,
        bytes: Bytes,
    },
    /// Only the batch itself tells what was accepted.
    Normalised,
}

/// What became of a push: everything else in it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What to tell the sender, not necessarily one by one.
    pub refusals: Vec<Refusal>,
    pub refused_entries: usize,
}

/// Where accepted lines go. Returns when they are as durable as configured.
pub trait LogSink: Send + Sync + 'static {
    /// `memory` is what the batch occupies, to be given back when the batch is gone.
    fn append_logs(
        &self,
        batch: LogBatch,
        received: Received,
        memory: Option<Permit>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Admission in front of a sink, with its metrics.
pub struct Ingest<S> {
    admission: Admission,
    sink: S,
    clock: Clock,
    metrics: IngestMetrics,
}

impl<S: LogSink> Ingest<S> {
    pub fn new(admission: Admission, sink: S, clock: Clock, metrics: IngestMetrics) -> Self {
        Self {
            admission,
            sink,
            clock,
            metrics,
        }
    }

    /// Takes a decoded push. `body` is what it was decoded from: format, coding and bytes;
    /// `None` when nobody could decode it again.
    ///
    /// What could be accepted is stored when this returns; the refusals are what was not.
    /// An error means that nothing is stored.
    pub async fn push_logs(
        &self,
        mut batch: LogBatch,
        body: Option<(u8, u8, Bytes)>,
        memory: Option<Permit>,
    ) -> Result<Taken, Refusal> {
        let admitted = self.admission.admit(&mut batch, self.clock.now());
        for (reason, entries) in &admitted.by_reason {
            self.count_refused(reason, *entries);
        }
        let taken = Taken {
            refusals: admitted.refusals,
            refused_entries: admitted.refused_entries,
        };
        if batch.streams.is_empty() {
            return Ok(taken);
        }
        let (streams, lines) = (batch.streams.len(), batch.entry_count());
        let bytes = batch.line_bytes();
        self.metrics
            .body_bytes
            .inc_by(body.as_ref().map_or(0, |b| b.2.len() as u64));
        let received = match body {
            Some((format, coding, bytes)) if admitted.untouched => Received::Body {
                format,
                coding,
                flags: self.admission.body_flags(),
                bytes,
            },
            _ => Received::Normalised,
        };
        if let Err(refusal) = self.sink.append_logs(batch, received, memory).await {
            self.count_refused(refusal.reason, lines);
            return Err(refusal);
        }
        self.metrics.streams.inc_by(streams as u64);
        self.metrics.lines.inc_by(lines as u64);
        self.metrics.bytes.inc_by(bytes);
        Ok(taken)
    }

    /// Counts entries that were refused before they came here.
    pub fn count_refused(&self, reason: &'static str, entries: usize) {
        self.metrics
            .refused
            .get_or_create(&[("reason", reason)])
            .inc_by(entries as u64);
    }

    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub fn sink(&self) -> &S {
        &self.sink
    }
}

/// What came in and what was refused.
#[derive(Clone)]
pub struct IngestMetrics {
    lines: Counter,
    bytes: Counter,
    body_bytes: Counter,
    streams: Counter,
    refused: Family<Reason, Counter>,
}

impl IngestMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            lines: metrics.counter("ingest_lines", "Log lines accepted"),
            bytes: metrics.counter("ingest_line_bytes", "Bytes of accepted log lines"),
            body_bytes: metrics.counter("ingest_body_bytes", "Bytes of pushes as received"),
            streams: metrics.counter("ingest_streams", "Streams of accepted pushes"),
            refused: metrics.refusals("ingest_refused_lines", "Log lines not accepted, by reason"),
        }
    }
}

#[cfg(test)]
mod tests;
