//! How Jaeger 1 writes: span by span, in calls or in a stream; and what it archives.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tonic::Status;

use crate::ingest::refusal::RefusalKind;
use crate::model::trace::SpanBatch;
use crate::protocol::jaeger::proto::decode_span_writes;
use crate::protocol::wire::jaeger::storage::v1::{CloseWriterResponse, WriteSpanResponse};
use crate::protocol::{DecodeError, SpanFormat};
use crate::server::grpc;
use crate::server::jaeger::asked::status;
use crate::server::spans::{Rejection, SpanMetrics, SpanSink, TraceReader, Transport, accept};

use super::MAX_MESSAGE_BYTES;

/// Messages of a stream that are there already are written together, up to so many bytes.
const GROUP_BYTES: usize = 256 << 10;

struct Door<S, R> {
    sink: Arc<S>,
    reader: Arc<R>,
    metrics: SpanMetrics,
}

pub fn router<S: SpanSink, R: TraceReader>(
    sink: Arc<S>,
    reader: Arc<R>,
    metrics: SpanMetrics,
) -> Router {
    Router::new()
        .route(
            "/jaeger.storage.v1.SpanWriterPlugin/WriteSpan",
            any(write_span::<S, R>),
        )
        .route("/jaeger.storage.v1.SpanWriterPlugin/Close", any(close))
        .route(
            "/jaeger.storage.v1.StreamingSpanWriterPlugin/WriteSpanStream",
            any(write_stream::<S, R>),
        )
        .route(
            "/jaeger.storage.v1.ArchiveSpanWriterPlugin/WriteArchiveSpan",
            any(write_archive_span::<S, R>),
        )
        .with_state(Arc::new(Door {
            sink,
            reader,
            metrics,
        }))
}

impl<S: SpanSink, R> Door<S, R> {
    async fn accept(
        &self,
        decoded: Result<SpanBatch, DecodeError>,
        body: Bytes,
    ) -> Result<(), Status> {
        let format = SpanFormat::StorageWrites;
        let transport = Transport::StorageGrpc;
        accept(&*self.sink, &self.metrics, transport, decoded, format, body)
            .await
            .map_err(|rejection| refusal(&rejection))
    }
}

fn refusal(rejection: &Rejection) -> Status {
    let message = rejection.message();
    match rejection.kind() {
        RefusalKind::Invalid => Status::invalid_argument(message),
        RefusalKind::TooLarge => Status::resource_exhausted(message),
        RefusalKind::Limited | RefusalKind::Unavailable => Status::unavailable(message),
    }
}

async fn write_span<S: SpanSink, R: TraceReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    let answer = |body: Bytes| {
        let door = door.clone();
        async move {
            door.accept(decode_span_writes(&body), body).await?;
            Ok(WriteSpanResponse {})
        }
    };
    grpc::unary_or(request, MAX_MESSAGE_BYTES, answer, |reason| {
        door.metrics.malformed(Transport::StorageGrpc, reason);
    })
    .await
}

/// The writer has nothing to close: what it wrote is stored.
async fn close(request: http::Request<Body>) -> impl IntoResponse {
    grpc::unary(request, MAX_MESSAGE_BYTES, |_| async {
        Ok(CloseWriterResponse {})
    })
    .await
}

async fn write_stream<S: SpanSink, R: TraceReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    grpc::client_streaming(request, MAX_MESSAGE_BYTES, |messages| {
        let door = door.clone();
        // A task of its own: a client that cancels the call does not take back what it sent.
        let written = tokio::spawn(async move { door.write_all(messages).await });
        async {
            let written = written.await;
            written.map_err(|_| Status::internal("writing failed; the log says more"))??;
            Ok(WriteSpanResponse {})
        }
    })
    .await
}

impl<S: SpanSink, R: TraceReader> Door<S, R> {
    /// Writes what comes until the end. What can't be read is counted and left out; the answer
    /// then is its error, but what else came is stored. A refusal ends the stream.
    async fn write_all(&self, mut messages: tonic::Streaming<Bytes>) -> Result<(), Status> {
        let mut unreadable = None;
        while let Some(first) = messages.next().await {
            let mut group = Group::default();
            let mut ended = self.collect(first, &mut group, &mut unreadable);
            while !ended && group.body.len() < GROUP_BYTES {
                match messages.next().now_or_never() {
                    Some(Some(message)) => {
                        ended = self.collect(message, &mut group, &mut unreadable);
                    }
                    // The end is seen again by the loop around this one.
                    Some(None) | None => break,
                }
            }
            if !group.batch.spans.is_empty() {
                let body = group.body.freeze();
                self.accept(Ok(group.batch), body).await?;
            }
            if ended {
                break;
            }
        }
        unreadable.map_or(Ok(()), Err)
    }

    /// Whether the stream has broken.
    fn collect(
        &self,
        message: Result<Bytes, Status>,
        group: &mut Group,
        unreadable: &mut Option<Status>,
    ) -> bool {
        let body = match message {
            Ok(body) => body,
            Err(broken) => {
                self.metrics
                    .malformed(Transport::StorageGrpc, "interrupted");
                unreadable.get_or_insert(broken);
                return true;
            }
        };
        match decode_span_writes(&body) {
            Ok(mut batch) => {
                group.batch.spans.append(&mut batch.spans);
                group.body.extend_from_slice(&body);
            }
            Err(error) => {
                self.metrics.malformed(Transport::StorageGrpc, error.reason);
                unreadable.get_or_insert_with(|| Status::invalid_argument(error.message));
            }
        }
        false
    }
}

/// Messages that are written together.
#[derive(Default)]
struct Group {
    batch: SpanBatch,
    /// One behind the other they are one message.
    body: BytesMut,
}

async fn write_archive_span<S: SpanSink, R: TraceReader>(
    State(door): State<Arc<Door<S, R>>>,
    request: http::Request<Body>,
) -> impl IntoResponse {
    let answer = |body: Bytes| {
        let door = door.clone();
        async move {
            let transport = Transport::StorageArchive;
            let batch = decode_span_writes(&body).map_err(|error| {
                door.metrics.malformed(transport, error.reason);
                Status::invalid_argument(error.message)
            })?;
            let spans = batch.spans.len();
            match door.reader.archive_spans(batch.spans).await {
                Ok(()) => {
                    door.metrics.accepted(transport, 1, spans);
                    Ok(WriteSpanResponse {})
                }
                Err(error) => {
                    door.metrics.refused(transport, "archive", 1, spans);
                    Err(status(&error))
                }
            }
        }
    };
    grpc::unary_or(request, MAX_MESSAGE_BYTES, answer, |reason| {
        door.metrics.malformed(Transport::StorageArchive, reason);
    })
    .await
}
