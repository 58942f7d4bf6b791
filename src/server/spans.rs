//! What all doors for spans share: where spans go, where traces come from, what is counted.

use std::future::Future;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::ingest::refusal::{Refusal, RefusalKind};
use crate::model::TimeRange;
use crate::model::service_metrics::{DependencyLink, ServiceMetricsQuery, ServiceSeries};
use crate::model::trace::{Operation, Span, SpanBatch, Trace, TraceId, TraceQuery};
use crate::protocol::{DecodeError, SpanFormat};
use crate::query::answer::QueryError;
use crate::telemetry::metrics::{Counter, Family, Metrics};

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
    ) -> impl Future<Output = Result<Vec<DependencyLink>, QueryError>> + Send {
        let _ = range;
        async { Err(not_here("dependencies")) }
    }

    /// A figure of services over time, sorted by service and operation.
    fn service_metrics(
        &self,
        query: ServiceMetricsQuery,
    ) -> impl Future<Output = Result<Vec<ServiceSeries>, QueryError>> + Send {
        let _ = query;
        async { Err(not_here("service metrics")) }
    }
}

/// Spans of one trace, piece by piece.
pub type TraceParts = BoxStream<'static, Result<Vec<Span>, QueryError>>;

fn not_here(what: &str) -> QueryError {
    QueryError::Invalid(format!("{what}: not available in this version"))
}

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
        }
    }

    pub fn accepted(&self, transport: Transport, spans: usize) {
        let labels = [("transport", transport.name())];
        self.messages.get_or_create(&labels).inc();
        self.spans.get_or_create(&labels).inc_by(spans as u64);
    }

    /// A message that holds no readable spans.
    pub fn malformed(&self, transport: Transport, reason: &'static str) {
        self.refused_messages
            .get_or_create(&by_reason(transport, reason))
            .inc();
    }

    /// A readable message that is refused as a whole.
    pub fn refused(&self, transport: Transport, reason: &'static str, spans: usize) {
        self.malformed(transport, reason);
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
    }
}

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
        sink.accept(batch, format, body).await.map_err(|refusal| {
            metrics.refused(transport, refusal.reason, spans);
            Rejection::Refused(refusal)
        })?;
    }
    metrics.accepted(transport, spans);
    Ok(())
}

#[cfg(test)]
pub mod memory;
