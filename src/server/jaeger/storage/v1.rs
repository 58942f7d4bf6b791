//! How Jaeger 1 reads: `jaeger.storage.v1`.

use std::sync::Arc;

use axum::Router;
use futures::stream::BoxStream;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

use crate::protocol::jaeger::proto::trace_id_bytes;
use crate::protocol::wire::jaeger::api_v2;
use crate::protocol::wire::jaeger::storage::v1 as wire;
use crate::server::grpc::storage_v1::archive_span_reader_plugin_server as archive;
use crate::server::grpc::storage_v1::dependencies_reader_plugin_server as dependencies;
use crate::server::grpc::storage_v1::plugin_capabilities_server as capabilities;
use crate::server::grpc::storage_v1::span_reader_plugin_server as spans;
use crate::server::jaeger::asked::{Asked, range, status};
use crate::server::jaeger::pieces::{self, Form};
use crate::server::jaeger::query_grpc::{any_trace_id, found_chunks, names, trace_chunks};
use crate::server::spans::{TraceParts, TraceReader};

/// Streams are taken, but Jaeger is told to write span by span: what it sends in a stream nobody
/// acknowledges until the stream ends, and its client gives a stream the context of its first
/// span, with whose end all that is on the way is lost.
const STREAMING: bool = false;

/// By this text Jaeger knows that a trace is not there.
const NOT_FOUND: &str = "trace not found";

pub fn router<R: TraceReader>(reader: Arc<R>) -> Router {
    let spans = spans::SpanReaderPluginServer::new(Reader(reader.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip);
    let archive = archive::ArchiveSpanReaderPluginServer::new(Reader(reader.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip);
    let dependencies = dependencies::DependenciesReaderPluginServer::new(Reader(reader.clone()));
    let capabilities = capabilities::PluginCapabilitiesServer::new(Reader(reader));
    Router::new()
        .route_service("/jaeger.storage.v1.SpanReaderPlugin/{*rest}", spans)
        .route_service(
            "/jaeger.storage.v1.ArchiveSpanReaderPlugin/{*rest}",
            archive,
        )
        .route_service(
            "/jaeger.storage.v1.DependenciesReaderPlugin/{*rest}",
            dependencies,
        )
        .route_service(
            "/jaeger.storage.v1.PluginCapabilities/{*rest}",
            capabilities,
        )
}

struct Reader<R>(Arc<R>);

type Chunks = BoxStream<'static, Result<wire::SpansResponseChunk, Status>>;

fn chunk(spans: Vec<api_v2::Span>) -> wire::SpansResponseChunk {
    wire::SpansResponseChunk { spans }
}

fn trace(parts: TraceParts) -> Response<Chunks> {
    Response::new(trace_chunks(parts, NOT_FOUND, chunk))
}

fn asked(query: Option<wire::TraceQueryParameters>) -> Result<Asked, Status> {
    let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
    Ok(Asked {
        service: query.service_name,
        operation: query.operation_name,
        tags: query.tags.into_iter().collect(),
        start_min: query.start_time_min,
        start_max: query.start_time_max,
        duration_min: query.duration_min,
        duration_max: query.duration_max,
        depth: query.num_traces,
    })
}

#[tonic::async_trait]
impl<R: TraceReader> spans::SpanReaderPlugin for Reader<R> {
    type GetTraceStream = Chunks;

    async fn get_trace(
        &self,
        request: Request<wire::GetTraceRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let id = any_trace_id(&request.get_ref().trace_id)?;
        Ok(trace(pieces::of_trace(&self.0, id, Form::Raw)))
    }

    async fn get_services(
        &self,
        _: Request<wire::GetServicesRequest>,
    ) -> Result<Response<wire::GetServicesResponse>, Status> {
        let services = self.0.services().await.map_err(|e| status(&e))?;
        Ok(Response::new(wire::GetServicesResponse { services }))
    }

    async fn get_operations(
        &self,
        request: Request<wire::GetOperationsRequest>,
    ) -> Result<Response<wire::GetOperationsResponse>, Status> {
        let request = request.into_inner();
        let kind = Some(&*request.span_kind).filter(|kind| !kind.is_empty());
        let operations = self.0.operations(&request.service, kind).await;
        let operations = operations.map_err(|e| status(&e))?;
        let operation_names = names(&operations);
        let operations = operations.into_iter().map(|o| wire::Operation {
            name: o.name,
            span_kind: o.kind,
        });
        Ok(Response::new(wire::GetOperationsResponse {
            operation_names,
            operations: operations.collect(),
        }))
    }

    type FindTracesStream = Chunks;

    async fn find_traces(
        &self,
        request: Request<wire::FindTracesRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let query = asked(request.into_inner().query)?.query();
        let found = pieces::find(&self.0, query, Form::Raw);
        Ok(Response::new(found_chunks(found, chunk)))
    }

    async fn find_trace_i_ds(
        &self,
        request: Request<wire::FindTraceIDsRequest>,
    ) -> Result<Response<wire::FindTraceIDsResponse>, Status> {
        let query = asked(request.into_inner().query)?.query();
        let ids = self.0.find_trace_ids(query).await.map_err(|e| status(&e))?;
        Ok(Response::new(wire::FindTraceIDsResponse {
            trace_ids: ids.into_iter().map(trace_id_bytes).collect(),
        }))
    }
}

#[tonic::async_trait]
impl<R: TraceReader> archive::ArchiveSpanReaderPlugin for Reader<R> {
    type GetArchiveTraceStream = Chunks;

    async fn get_archive_trace(
        &self,
        request: Request<wire::GetTraceRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let id = any_trace_id(&request.get_ref().trace_id)?;
        Ok(trace(self.0.archived_parts(id)))
    }
}

#[tonic::async_trait]
impl<R: TraceReader> dependencies::DependenciesReaderPlugin for Reader<R> {
    async fn get_dependencies(
        &self,
        request: Request<wire::GetDependenciesRequest>,
    ) -> Result<Response<wire::GetDependenciesResponse>, Status> {
        let request = request.get_ref();
        let range = range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let links = self.0.dependencies(range).await;
        let links = links.map_err(|e| status(&e))?.into_iter();
        let dependencies = links.map(|link| api_v2::DependencyLink {
            parent: link.parent,
            child: link.child,
            call_count: link.calls,
            source: String::new(),
        });
        Ok(Response::new(wire::GetDependenciesResponse {
            dependencies: dependencies.collect(),
        }))
    }
}

#[tonic::async_trait]
impl<R: TraceReader> capabilities::PluginCapabilities for Reader<R> {
    async fn capabilities(
        &self,
        _: Request<wire::CapabilitiesRequest>,
    ) -> Result<Response<wire::CapabilitiesResponse>, Status> {
        Ok(Response::new(wire::CapabilitiesResponse {
            archive_span_reader: true,
            archive_span_writer: true,
            streaming_span_writer: STREAMING,
        }))
    }
}
