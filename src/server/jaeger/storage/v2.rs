//! How Jaeger 2 reads: `jaeger.storage.v2`.

use std::sync::Arc;

use axum::Router;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

use crate::model::trace::TraceQuery;
use crate::protocol::jaeger::proto::trace_id_bytes;
use crate::protocol::otlp;
use crate::protocol::wire::jaeger::storage::v2 as wire;
use crate::protocol::wire::opentelemetry::proto::trace::v1::TracesData;
use crate::server::grpc::storage_v2::capabilities_server as capabilities;
use crate::server::grpc::storage_v2::dependency_reader_server as dependencies;
use crate::server::grpc::storage_v2::trace_reader_server as traces;
use crate::server::jaeger::asked::{Asked, range, status};
use crate::server::jaeger::pieces::{self, Form};
use crate::server::jaeger::query_grpc::{any_trace_id, found_otlp_chunks, otlp_chunks};
use crate::server::spans::TraceReader;

pub fn router<R: TraceReader>(reader: Arc<R>) -> Router {
    let traces = traces::TraceReaderServer::new(Reader(reader.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip);
    let dependencies = dependencies::DependencyReaderServer::new(Reader(reader));
    let capabilities = capabilities::CapabilitiesServer::new(Capabilities);
    Router::new()
        .route_service("/jaeger.storage.v2.TraceReader/{*rest}", traces)
        .route_service("/jaeger.storage.v2.DependencyReader/{*rest}", dependencies)
        .route_service("/jaeger.storage.v2.Capabilities/{*rest}", capabilities)
}

struct Reader<R>(Arc<R>);

type Messages<M> = BoxStream<'static, Result<M, Status>>;

fn query(query: Option<wire::TraceQueryParameters>) -> Result<TraceQuery, Status> {
    let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
    if query.filter.is_some() {
        return Err(Status::invalid_argument(
            "filters are not supported; use attributes",
        ));
    }
    let mut tags = Vec::with_capacity(query.attributes.len());
    for attribute in &query.attributes {
        let text = otlp::attribute_text(attribute.value.as_ref());
        let text = text.map_err(|error| Status::invalid_argument(error.message))?;
        tags.push((attribute.key.clone(), text));
    }
    let asked = Asked {
        service: query.service_name,
        operation: query.operation_name,
        tags,
        start_min: query.start_time_min,
        start_max: query.start_time_max,
        duration_min: query.duration_min,
        duration_max: query.duration_max,
        depth: query.search_depth,
    };
    Ok(asked.query())
}

#[tonic::async_trait]
impl<R: TraceReader> traces::TraceReader for Reader<R> {
    type GetTracesStream = Messages<TracesData>;

    /// Traces that are not there are left out, as the protocol wants it.
    async fn get_traces(
        &self,
        request: Request<wire::GetTracesRequest>,
    ) -> Result<Response<Self::GetTracesStream>, Status> {
        // The times are hints.
        let ids = request.into_inner().query.into_iter();
        let ids: Result<Vec<_>, _> = ids.map(|query| any_trace_id(&query.trace_id)).collect();
        let reader = self.0.clone();
        let traces = stream::iter(ids?)
            .flat_map(move |id| otlp_chunks(pieces::of_trace(&reader, id, Form::Raw)));
        Ok(Response::new(traces.boxed()))
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
        let operations = operations.map_err(|e| status(&e))?.into_iter();
        let operations = operations.map(|o| wire::Operation {
            name: o.name,
            span_kind: o.kind,
        });
        Ok(Response::new(wire::GetOperationsResponse {
            operations: operations.collect(),
        }))
    }

    type FindTracesStream = Messages<TracesData>;

    async fn find_traces(
        &self,
        request: Request<wire::FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let query = query(request.into_inner().query)?;
        let found = pieces::find(&self.0, query, Form::Raw);
        Ok(Response::new(found_otlp_chunks(found)))
    }

    async fn find_trace_i_ds(
        &self,
        request: Request<wire::FindTraceIDsRequest>,
    ) -> Result<Response<wire::FindTraceIDsResponse>, Status> {
        let query = query(request.into_inner().query)?;
        let ids = self.0.find_trace_ids(query).await.map_err(|e| status(&e))?;
        let ids = ids.into_iter().map(|id| wire::FoundTraceId {
            trace_id: trace_id_bytes(id),
            ..wire::FoundTraceId::default()
        });
        Ok(Response::new(wire::FindTraceIDsResponse {
            trace_ids: ids.collect(),
        }))
    }

    type FindTraceSummariesStream = Messages<wire::FindTraceSummariesResponse>;

    async fn find_trace_summaries(
        &self,
        request: Request<wire::FindTraceSummariesRequest>,
    ) -> Result<Response<Self::FindTraceSummariesStream>, Status> {
        let query = query(request.into_inner().query)?;
        let summaries = pieces::summaries(&self.0, query, Form::Raw)
            .map_ok(|summary| wire::FindTraceSummariesResponse {
                summaries: vec![summary.storage_v2()],
            })
            .map_err(|error| status(&error));
        Ok(Response::new(summaries.boxed()))
    }
}

#[tonic::async_trait]
impl<R: TraceReader> dependencies::DependencyReader for Reader<R> {
    async fn get_dependencies(
        &self,
        request: Request<wire::GetDependenciesRequest>,
    ) -> Result<Response<wire::GetDependenciesResponse>, Status> {
        let request = request.get_ref();
        let range = range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let links = self.0.dependencies(range).await;
        let links = links.map_err(|e| status(&e))?.into_iter();
        let dependencies = links.map(|link| wire::Dependency {
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

struct Capabilities;

#[tonic::async_trait]
impl capabilities::Capabilities for Capabilities {
    async fn get_capabilities(
        &self,
        _: Request<wire::GetCapabilitiesRequest>,
    ) -> Result<Response<wire::GetCapabilitiesResponse>, Status> {
        Ok(Response::new(wire::GetCapabilitiesResponse {
            search: Some(wire::SearchCapabilities {
                without_service_name: true,
                same_span_conjunction: true,
                filter: None,
            }),
        }))
    }
}
