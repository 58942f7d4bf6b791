//! What all doors for spans share: where spans go, where traces come from, what is counted.

pub mod ledger;
pub mod seen;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::ingest::refusal::{Refusal, RefusalKind};
use crate::model::TimeRange;
use crate::model::service_metrics::{DependencyLink, ServiceMetricsQuery, ServiceSeries};
use crate::model::trace::{Operation, Span, SpanBatch, Trace, TraceId, TraceQuery};
use crate::protocol::{DecodeError, SpanFormat};
use crate::query::answer::QueryError;
use crate::server::jaeger::sampling::adaptive::Adaptive;
use crate::telemetry::metrics::{Counter, Family, Metrics};
use ledger::{Datagram, Ledger, Outcome};
use seen::{Roots, Seen};

/// What the doors hand spans to. `body` is what `batch` was decoded from, for the journal.
pub trait SpanSink: Send + Sync + 'static {
    /// Returns when the spans are as durable as the configuration asks.
    fn accept(
        &self,
        batch: SpanBatch,
        format: SpanFormat,
        body: Bytes,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// For senders that cannot wait or repeat: never waits, refuses when there is no room.
    fn offer(&self, batch: SpanBatch, format: SpanFormat, body: Bytes) -> Result<(), Refusal>;

    /// Whether [`SpanSink::offer`] would have room for a body of so many bytes. Who cannot wait
    /// gets a part of the memory only: senders that can are not to pay for a flood.
    fn has_room(&self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }
}

/// What answers about traces come from.
pub trait TraceReader: Send + Sync + 'static {
    /// Names of all services, sorted.
    fn services(&self) -> impl Future<Output = Result<Vec<String>, QueryError>> + Send;

    /// Operations of a service, sorted; of one kind if one is given.
    fn operations(
        &self,
        service: &str,
        kind: Option<&str>,
    ) -> impl Future<Output = Result<Vec<Operation>, QueryError>> + Send;

    /// Complete traces with a span that meets the query, newest first.
    fn find_traces(
        &self,
        query: TraceQuery,
    ) -> impl Future<Output = Result<Vec<Trace>, QueryError>> + Send;

    /// The ids of the traces that [`TraceReader::find_traces`] finds, in the same order.
    fn find_trace_ids(
        &self,
        query: TraceQuery,
    ) -> impl Future<Output = Result<Vec<TraceId>, QueryError>> + Send;

    /// One complete trace: from what retention keeps, else from the archive.
    fn trace(&self, id: TraceId) -> impl Future<Output = Result<Option<Trace>, QueryError>> + Send;

    /// The same in pieces of about half a MiB, for traces of any size: spans in no order, each
    /// once; nothing when there is no such trace. Asked twice it gives the spans in the same
    /// order, and maybe some that came meanwhile among them. Until it is dropped it books some
    /// memory for each span that went by (128 bytes) and for four pieces, for who reads it.
    fn trace_parts(&self, id: TraceId) -> TraceParts;

    /// Keeps a trace beyond retention; false when there is none. Doing it again changes nothing.
    fn archive(&self, id: TraceId) -> impl Future<Output = Result<bool, QueryError>> + Send;

    /// Keeps single spans beyond retention, whatever the rest of their traces; returns when
    /// that is safe. A span that the archive has already changes nothing.
    fn archive_spans(
        &self,
        spans: Vec<Span>,
    ) -> impl Future<Output = Result<(), QueryError>> + Send;

    /// As [`TraceReader::trace_parts`], of the archive alone.
    fn archived_parts(&self, id: TraceId) -> TraceParts;

    /// Who called whom, by the starts of the called spans; sorted.
    fn dependencies(
        &self,
        range: TimeRange,
    ) -> impl Future<Output = Result<Vec<DependencyLink>, QueryError>> + Send;

    /// A figure of services over time, sorted by service and operation.
    fn service_metrics(
        &self,
        query: ServiceMetricsQuery,
    ) -> impl Future<Output = Result<Vec<ServiceSeries>, QueryError>> + Send;
}

/// Spans of one trace, piece by piece.
pub type TraceParts = BoxStream<'static, Result<Vec<Span>, QueryError>>;

/// A door for spans, as its metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    UdpCompact,
    UdpBinary,
    UdpZipkin,
    JaegerHttp,
    JaegerGrpc,
    OtlpHttp,
    OtlpGrpc,
    ZipkinHttp,
    /// Written by a Jaeger 1 that keeps its spans here.
    StorageGrpc,
    /// Archived by one.
    StorageArchive,
    /// Written by a Jaeger 2 that keeps its spans here.
    StorageOtlp,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::UdpCompact => "udp_compact",
            Self::UdpBinary => "udp_binary",
            Self::UdpZipkin => "udp_zipkin",
            Self::JaegerHttp => "jaeger_http",
            Self::JaegerGrpc => "jaeger_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::OtlpGrpc => "otlp_grpc",
            Self::ZipkinHttp => "zipkin_http",
            Self::StorageGrpc => "storage_grpc",
            Self::StorageArchive => "storage_archive",
            Self::StorageOtlp => "storage_otlp",
        }
    }
}

type ByTransport = [(&'static str, &'static str); 1];
type ByReason = [(&'static str, &'static str); 2];

/// Counters of the doors; one for all, cheap to clone.
#[derive(Clone)]
pub struct SpanMetrics {
    messages: Family<ByTransport, Counter>,
    spans: Family<ByTransport, Counter>,
    refused_messages: Family<ByReason, Counter>,
    refused_spans: Family<ByReason, Counter>,
    kernel_drops: Family<ByTransport, Counter>,
    ledger: Arc<Ledger>,
    adaptive: Option<Arc<Adaptive>>,
}

impl SpanMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            messages: metrics.register(
                "span_messages_accepted",
                "Messages of spans taken, by transport",
                Family::default(),
            ),
            spans: metrics.register(
                "spans_accepted",
                "Spans taken, by transport",
                Family::default(),
            ),
            refused_messages: metrics.register(
                "span_messages_refused",
                "Messages of spans not taken: malformed, too large, or no room",
                Family::default(),
            ),
            refused_spans: metrics.register(
                "spans_refused",
                "Spans of readable messages not taken",
                Family::default(),
            ),
            kernel_drops: metrics.register(
                "span_datagrams_dropped_by_kernel",
                "Datagrams that found the socket's receive buffer full",
                Family::default(),
            ),
            ledger: Arc::default(),
            adaptive: None,
        }
    }

    /// Tells adaptive sampling of first spans as well.
    pub fn with_adaptive(mut self, adaptive: Option<Arc<Adaptive>>) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// Counts by service, in Jaeger's words.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What a message holds, before it is handed on.
    pub fn look(&self, batch: &SpanBatch) -> Seen {
        let roots = match self.adaptive {
            Some(_) => Roots::Wanted,
            None => Roots::Unwanted,
        };
        Seen::of(batch, roots)
    }

    /// What became of a readable message.
    pub fn became(&self, transport: Transport, seen: &Seen, outcome: Outcome) {
        self.ledger.message(transport, seen, outcome);
        if outcome == Outcome::Kept
            && let Some(adaptive) = &self.adaptive
        {
            adaptive.record(&seen.roots);
        }
    }

    pub fn accepted(&self, transport: Transport, messages: usize, spans: usize) {
        let labels = [("transport", transport.name())];
        let messages = messages as u64;
        self.messages.get_or_create(&labels).inc_by(messages);
        self.spans.get_or_create(&labels).inc_by(spans as u64);
        self.ledger
            .datagrams(transport, Datagram::Processed, messages);
    }

    /// A message that holds no readable spans.
    pub fn malformed(&self, transport: Transport, reason: &'static str) {
        self.count_messages(transport, reason, 1);
        let what = match reason {
            RECEIVE_FAILED => Datagram::ReceiveFailed,
            _ => Datagram::Unreadable,
        };
        self.ledger.datagrams(transport, what, 1);
    }

    fn count_messages(&self, transport: Transport, reason: &'static str, messages: u64) {
        self.refused_messages
            .get_or_create(&by_reason(transport, reason))
            .inc_by(messages);
    }

    /// Readable messages that are refused as a whole.
    pub fn refused(
        &self,
        transport: Transport,
        reason: &'static str,
        messages: usize,
        spans: usize,
    ) {
        let messages = messages as u64;
        self.count_messages(transport, reason, messages);
        self.ledger
            .datagrams(transport, Datagram::Dropped, messages);
        self.refused_spans(transport, reason, spans);
    }

    /// Spans refused out of a message that is taken.
    pub fn refused_spans(&self, transport: Transport, reason: &'static str, spans: usize) {
        if spans > 0 {
            self.refused_spans
                .get_or_create(&by_reason(transport, reason))
                .inc_by(spans as u64);
        }
    }

    pub fn kernel_drops(&self, transport: Transport, datagrams: u64) {
        self.kernel_drops
            .get_or_create(&[("transport", transport.name())])
            .inc_by(datagrams);
        self.ledger
            .datagrams(transport, Datagram::Dropped, datagrams);
    }
}

/// Reason of a datagram that the kernel did not hand out.
pub const RECEIVE_FAILED: &str = "receive_failed";

fn by_reason(transport: Transport, reason: &'static str) -> ByReason {
    [("transport", transport.name()), ("reason", reason)]
}

/// Why a message of a client that waits for an answer was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    Malformed(DecodeError),
    Refused(Refusal),
}

impl Rejection {
    /// What went wrong, for the sender.
    pub fn message(&self) -> &str {
        match self {
            Self::Malformed(error) => &error.message,
            Self::Refused(refusal) => &refusal.message,
        }
    }

    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Malformed(_) => RefusalKind::Invalid,
            Self::Refused(refusal) => refusal.kind,
        }
    }
}

/// Hands a decoded message on and counts what became of it.
pub async fn accept<S: SpanSink>(
    sink: &S,
    metrics: &SpanMetrics,
    transport: Transport,
    decoded: Result<SpanBatch, DecodeError>,
    format: SpanFormat,
    body: Bytes,
) -> Result<(), Rejection> {
    let batch = decoded.map_err(|error| {
        metrics.malformed(transport, error.reason);
        Rejection::Malformed(error)
    })?;
    let spans = batch.spans.len();
    // Nothing to keep is not worth a record in the journal.
    if spans > 0 {
        let seen = metrics.look(&batch);
        let began = Instant::now();
        sink.accept(batch, format, body).await.map_err(|refusal| {
            metrics.became(transport, &seen, Outcome::Refused);
            metrics.refused(transport, refusal.reason, 1, spans);
            Rejection::Refused(refusal)
        })?;
        metrics.ledger.saved_in(began.elapsed());
        metrics.became(transport, &seen, Outcome::Kept);
    }
    metrics.accepted(transport, 1, spans);
    Ok(())
}

#[cfg(test)]
pub mod memory;
