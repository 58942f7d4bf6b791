//! Jaeger's query service over gRPC (port 16685): in Jaeger's own model here, in OTLP's in
//! `v3.rs`, figures of services in `metrics.rs`.

mod metrics;
mod v3;

pub use v3::{found_otlp_chunks, otlp_chunks};

use std::sync::Arc;

use axum::Router;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

use crate::model::trace::{Operation, TraceId};
use crate::protocol::jaeger::proto::{read_trace_id, span_message};
use crate::protocol::wire::jaeger::api_v2;
use crate::query::answer::QueryError;
use crate::runtime::clock::Clock;
use crate::server::grpc;
use crate::server::grpc::jaeger::query_service_server::{QueryService, QueryServiceServer};
use crate::server::spans::{TraceParts, TraceReader};

use super::asked::{Asked, range, status};
use super::pieces::{self, Form};
use super::query_http::QueryOptions;

/// Spans in one message of an answer, as Jaeger sends them.
pub const CHUNK_SPANS: usize = 10;

/// What all services of the port share.
struct Shared<R> {
    reader: Arc<R>,
    clock: Clock,
    /// Nanoseconds.
    max_clock_skew: u64,
}

impl<R> Shared<R> {
    fn form(&self, raw: bool) -> Form {
        if raw {
            Form::Raw
        } else {
            Form::Adjusted {
                max_clock_skew: self.max_clock_skew,
            }
        }
    }
}

/// Everything on 16685.
pub fn service<R: TraceReader>(reader: Arc<R>, clock: Clock, options: &QueryOptions) -> Router {
    let shared = Arc::new(Shared {
        reader,
        clock,
        max_clock_skew: options.max_clock_skew_ms.saturating_mul(1_000_000),
    });
    let own = QueryServiceServer::new(V2(shared.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip);
    Router::new()
        .route_service("/jaeger.api_v2.QueryService/{*rest}", own)
        .route_service(
            "/jaeger.api_v2.metrics.MetricsQueryService/{*rest}",
            metrics::service(shared.clone()),
        )
        .route_service("/jaeger.api_v3.QueryService/{*rest}", v3::service(shared))
        .fallback(grpc::unimplemented)
}

/// Messages of an answer.
type Messages<M> = BoxStream<'static, Result<M, Status>>;

/// Spans as messages; a trace without any is not found.
pub fn trace_chunks<M: Send + 'static>(
    parts: TraceParts,
    not_found: &'static str,
    message: impl FnMut(Vec<api_v2::Span>) -> M + Send + 'static,
) -> Messages<M> {
    let mut messages = span_chunks(parts, message).peekable();
    futures::stream::once(async move {
        match std::pin::Pin::new(&mut messages).peek().await {
            Some(_) => Ok(messages),
            None => Err(Status::not_found(not_found)),
        }
    })
    .try_flatten()
    .boxed()
}

/// Spans as messages.
fn span_chunks<M: Send + 'static>(
    parts: TraceParts,
    mut message: impl FnMut(Vec<api_v2::Span>) -> M + Send + 'static,
) -> Messages<M> {
    pieces::chunks(parts, CHUNK_SPANS)
        .map_ok(move |spans| message(spans.iter().map(span_message).collect()))
        .map_err(|error| status(&error))
        .boxed()
}

/// Spans of all traces found as messages.
pub fn found_chunks<M: Send + 'static>(
    found: BoxStream<'static, Result<TraceParts, QueryError>>,
    message: impl FnMut(Vec<api_v2::Span>) -> M + Clone + Send + 'static,
) -> Messages<M> {
    found
        .map_err(|error| status(&error))
        .map_ok(move |parts| span_chunks(parts, message.clone()))
        .try_flatten()
        .boxed()
}

/// The distinct names of operations, in order: what old clients ask for.
pub fn names(operations: &[Operation]) -> Vec<String> {
    let mut names: Vec<String> = operations.iter().map(|o| o.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// A trace id from a request's bytes. No trace has that of zero.
pub fn any_trace_id(bytes: &[u8]) -> Result<TraceId, Status> {
    let id = match bytes {
        [] => Ok(TraceId(0)),
        bytes => read_trace_id(bytes),
    };
    id.map_err(|error| Status::invalid_argument(error.message))
}

/// The same in a request to the query service, which refuses that of zero.
fn trace_id(bytes: &[u8]) -> Result<TraceId, Status> {
    let id = any_trace_id(bytes)?;
    if id.0 == 0 {
        return Err(Status::invalid_argument(
            "uninitialized TraceID is not allowed",
        ));
    }
    Ok(id)
}

/// What Jaeger 1's query service says of a trace that is not there.
const NOT_FOUND: &str = "trace not found: trace not found";

/// `jaeger.api_v2.QueryService`.
struct V2<R>(Arc<Shared<R>>);

#[tonic::async_trait]
impl<R: TraceReader> QueryService for V2<R> {
    type GetTraceStream = Messages<api_v2::SpansResponseChunk>;

    async fn get_trace(
        &self,
        request: Request<api_v2::GetTraceRequest>,
    ) -> Result<Response<Self::GetTraceStream>, Status> {
        // The times are hints, of which some clients send wrong ones.
        let request = request.into_inner();
        let id = trace_id(&request.trace_id)?;
        let form = self.0.form(request.raw_traces);
        let parts = pieces::of_trace(&self.0.reader, id, form);
        let chunk = |spans| api_v2::SpansResponseChunk { spans };
        Ok(Response::new(trace_chunks(parts, NOT_FOUND, chunk)))
    }

    async fn archive_trace(
        &self,
        request: Request<api_v2::ArchiveTraceRequest>,
    ) -> Result<Response<api_v2::ArchiveTraceResponse>, Status> {
        let id = trace_id(&request.get_ref().trace_id)?;
        match self.0.reader.archive(id).await {
            Ok(true) => Ok(Response::new(api_v2::ArchiveTraceResponse {})),
            Ok(false) => Err(Status::not_found(NOT_FOUND)),
            Err(error) => Err(status(&error)),
        }
    }

    type FindTracesStream = Messages<api_v2::SpansResponseChunk>;

    async fn find_traces(
        &self,
        request: Request<api_v2::FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let query = request.into_inner().query;
        let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
        let form = self.0.form(query.raw_traces);
        let asked = Asked {
            service: query.service_name,
            operation: query.operation_name,
            tags: query.tags.into_iter().collect(),
            start_min: query.start_time_min,
            start_max: query.start_time_max,
            duration_min: query.duration_min,
            duration_max: query.duration_max,
            depth: query.search_depth,
        };
        let found = pieces::find(&self.0.reader, asked.query(), form);
        let chunk = |spans| api_v2::SpansResponseChunk { spans };
        Ok(Response::new(found_chunks(found, chunk)))
    }

    async fn get_services(
        &self,
        _: Request<api_v2::GetServicesRequest>,
    ) -> Result<Response<api_v2::GetServicesResponse>, Status> {
        let services = self.0.reader.services().await.map_err(|e| status(&e))?;
        Ok(Response::new(api_v2::GetServicesResponse { services }))
    }

    async fn get_operations(
        &self,
        request: Request<api_v2::GetOperationsRequest>,
    ) -> Result<Response<api_v2::GetOperationsResponse>, Status> {
        let request = request.into_inner();
        let kind = Some(&*request.span_kind).filter(|kind| !kind.is_empty());
        let operations = self.0.reader.operations(&request.service, kind).await;
        let operations = operations.map_err(|e| status(&e))?;
        let operation_names = names(&operations);
        let operations = operations.into_iter().map(|o| api_v2::Operation {
            name: o.name,
            span_kind: o.kind,
        });
        Ok(Response::new(api_v2::GetOperationsResponse {
            operation_names,
            operations: operations.collect(),
        }))
    }

    async fn get_dependencies(
        &self,
        request: Request<api_v2::GetDependenciesRequest>,
    ) -> Result<Response<api_v2::GetDependenciesResponse>, Status> {
        let request = request.get_ref();
        let range = range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let links = self.0.reader.dependencies(range).await;
        let links = links.map_err(|e| status(&e))?.into_iter();
        let dependencies = links.map(|link| api_v2::DependencyLink {
            parent: link.parent,
            child: link.child,
            call_count: link.calls,
            source: String::new(),
        });
        Ok(Response::new(api_v2::GetDependenciesResponse {
            dependencies: dependencies.collect(),
        }))
    }
}

#[cfg(test)]
mod tests;
