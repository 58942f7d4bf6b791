//! Where the doors' data goes: the traits that servers and sources ask for, on the store.

use std::time::Duration;

use bytes::Bytes;

use crate::ingest::{Admission, LogSink, Received, Refusal, RefusalKind};
use crate::model::LogBatch;
use crate::model::trace::SpanBatch;
use crate::protocol::{SpanFormat, decode_spans};
use crate::runtime::clock::Clock;
use crate::runtime::permits::{Account, Permit};
use crate::server::loki;
use crate::server::spans::SpanSink;
use crate::source::files::{FilePosition, FileSink};
use crate::store::journal::Record;
use crate::store::{Body, Cursor, Decoded, Payload, RecordKind, Store, StoreError, encode_batch};
use crate::telemetry::metrics::{Counter, Family, Reason};
use std::sync::Arc;

/// How long an append may wait for memory before its sender is told to come again. Less
/// than the 10 s after which clients give up.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Appends to the store for everyone who receives or reads something.
#[derive(Clone)]
pub struct StoreSink {
    pub store: Store,
    /// Memory of batches on their way.
    pub memory: Account,
    /// The same of what came by UDP.
    pub datagrams: Account,
    /// What followed files have to pass; pushes passed theirs before.
    pub files_admission: Arc<Admission>,
    /// Lines of followed files that did not pass.
    pub files_refused: Family<Reason, Counter>,
    pub clock: Clock,
}

/// What the sender should do about an error of the store.
fn refusal(error: &StoreError) -> Refusal {
    let reason = match error {
        StoreError::Full(_) => "no_space",
        StoreError::Stopped => "shutting_down",
        _ => "store",
    };
    Refusal {
        kind: RefusalKind::Unavailable,
        reason,
        message: format!("can't be stored now, try again: {error}"),
    }
}

impl StoreSink {
    async fn append(
        &self,
        payload: Payload,
        body: Body,
        memory: Option<Permit>,
    ) -> Result<(), Refusal> {
        let pending = self
            .store
            .append(payload, body, memory)
            .map_err(|e| refusal(&e))?;
        pending.wait().await.map_err(|e| refusal(&e))
    }

    async fn take(&self, bytes: usize) -> Result<Permit, Refusal> {
        self.memory
            .take(bytes, PATIENCE)
            .await
            .map_err(|e| Refusal {
                kind: RefusalKind::Unavailable,
                reason: "no_memory",
                message: format!("{e}; try again"),
            })
    }
}

/// What the heads and the inbox hold of decoded spans, roughly: three times the body.
const SPAN_GROWTH: usize = 4;

/// Datagrams on their way hold at most this part of the budget.
const DATAGRAM_SHARE: usize = 8;

fn span_memory(body: &Bytes) -> usize {
    body.len() * SPAN_GROWTH
}

impl LogSink for StoreSink {
    async fn append_logs(
        &self,
        batch: LogBatch,
        received: Received,
        memory: Option<Permit>,
    ) -> Result<(), Refusal> {
        let tenant = batch.tenant.clone();
        let body = match received {
            Received::Body {
                format,
                coding,
                flags,
                bytes,
            } => Body {
                kind: RecordKind::LogsAsReceived,
                format,
                coding,
                flags,
                tenant,
                bytes,
            },
            Received::Normalised => own(&batch, &[]),
        };
        self.append(Payload::Logs(batch, Vec::new()), body, memory)
            .await
    }
}

/// A record in the store's own encoding.
fn own(batch: &LogBatch, cursors: &[Cursor]) -> Body {
    Body {
        kind: RecordKind::LogsOwn,
        format: 0,
        coding: 0,
        flags: 0,
        tenant: batch.tenant.clone(),
        bytes: encode_batch(batch, cursors).into(),
    }
}

fn spans_body(format: SpanFormat, bytes: Bytes) -> Body {
    Body {
        kind: RecordKind::SpansAsReceived,
        format: format as u8,
        coding: 0,
        flags: 0,
        tenant: Arc::default(),
        bytes,
    }
}

impl SpanSink for StoreSink {
    async fn accept(
        &self,
        batch: SpanBatch,
        format: SpanFormat,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let memory = self.take(span_memory(&body)).await?;
        self.append(
            Payload::Spans(batch),
            spans_body(format, body),
            Some(memory),
        )
        .await
    }

    fn offer(&self, batch: SpanBatch, format: SpanFormat, body: Bytes) -> Result<(), Refusal> {
        let memory = self
            .datagrams
            .try_take(span_memory(&body))
            .map_err(|e| Refusal {
                kind: RefusalKind::Unavailable,
                reason: "no_memory",
                message: e.to_string(),
            })?;
        let append = self.store.append(
            Payload::Spans(batch),
            spans_body(format, body),
            Some(memory),
        );
        // Nobody waits for the sync: UDP has no acknowledgement.
        append.map(drop).map_err(|e| refusal(&e))
    }

    fn has_room(&self, bytes: usize) -> bool {
        let share = self.datagrams.limit() / DATAGRAM_SHARE;
        self.datagrams.used() + SPAN_GROWTH * bytes <= share
    }
}

impl FileSink for StoreSink {
    async fn append_lines(
        &self,
        mut batch: LogBatch,
        positions: Vec<FilePosition>,
    ) -> Result<(), Refusal> {
        let admitted = self.files_admission.admit(&mut batch, self.clock.now());
        for (reason, lines) in &admitted.by_reason {
            let labels = [("reason", *reason)];
            self.files_refused
                .get_or_create(&labels)
                .inc_by(*lines as u64);
        }
        if admitted.refused_entries > 0 {
            let first = admitted.refusals.first().map_or("", |r| &r.message);
            tracing::warn!(
                lines = admitted.refused_entries,
                "lines of files refused: {first}"
            );
        }
        let cursors: Vec<Cursor> = positions
            .iter()
            .map(|position| {
                let key = position.key();
                let key = format!("{}:{}:{}", key.target, key.dev, key.ino).into_bytes();
                let mut value = Vec::new();
                // An empty value forgets the file.
                if !position.is_forgotten() {
                    position.encode(&mut value);
                }
                (key.into(), value.into())
            })
            .collect();
        let memory = self
            .take(batch.text.len() + batch.entry_count() * 24 + 1024)
            .await?;
        let body = own(&batch, &cursors);
        self.append(Payload::Logs(batch, cursors), body, Some(memory))
            .await
    }

    fn positions(&self) -> Vec<FilePosition> {
        let mut positions = Vec::new();
        for (_, value) in self.store.cursors() {
            match FilePosition::decode(&mut &value[..]) {
                Ok(position) => positions.push(position),
                Err(error) if !value.is_empty() => {
                    tracing::error!("position of a followed file can't be read: {error}");
                }
                Err(_) => {}
            }
        }
        positions
    }
}

/// Decodes what the journal kept of a request, exactly as when it was received.
pub fn decode_record(record: &Record) -> Result<Decoded, String> {
    let header = &record.header;
    match header.kind {
        RecordKind::LogsAsReceived => loki::replay(
            &header.tenant,
            header.format,
            header.coding,
            header.flags,
            &record.body,
        )
        .map(|batch| Decoded::Logs(batch, Vec::new())),
        RecordKind::SpansAsReceived => {
            let format = SpanFormat::from_u8(header.format)
                .ok_or_else(|| format!("unknown span format {}", header.format))?;
            decode_spans(format, &record.body)
                .map(Decoded::Spans)
                .map_err(|e| e.to_string())
        }
        RecordKind::LogsOwn => Err("the store decodes this itself".into()),
    }
}
