//! Jaeger's remote storage (port 17271): a Jaeger of its own writes its spans here and asks for
//! them. Version 1 is what Jaeger 1 speaks, version 2 what Jaeger 2 does, which writes as OTLP.
//!
//! R1. Spans are kept as they are written: whoever writes has sanitized and marked them.
//! R2. Traces are answered as they are stored: whoever asks adjusts them.
//! R3. A written span is acknowledged when it is as durable as any other.

mod v1;
mod v2;
mod write;

use std::sync::Arc;

use axum::Router;

use crate::server::grpc;
use crate::server::otlp;
use crate::server::spans::{SpanMetrics, SpanSink, TraceReader};

/// Bytes of one message that is written, decompressed.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Everything on 17271.
pub fn service<S: SpanSink, R: TraceReader>(
    sink: Arc<S>,
    reader: Arc<R>,
    metrics: SpanMetrics,
) -> Router {
    write::router(sink.clone(), reader.clone(), metrics.clone())
        .merge(v1::router(reader.clone()))
        .merge(v2::router(reader))
        .merge(otlp::storage_router(sink, metrics, MAX_MESSAGE_BYTES))
        .fallback(grpc::unimplemented)
}

#[cfg(test)]
mod tests;
