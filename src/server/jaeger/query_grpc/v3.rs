//! `jaeger.api_v3.QueryService`: the same in OTLP's model, and traces in short.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

use crate::model::trace::{TraceId, TraceQuery};
use crate::protocol::otlp::encode::resource_spans;
use crate::protocol::wire::jaeger::api_v3;
use crate::protocol::wire::opentelemetry::proto::trace::v1::TracesData;
use crate::query::answer::QueryError;
use crate::server::grpc::jaeger_v3::query_service_server::{QueryService, QueryServiceServer};
use crate::server::spans::{TraceParts, TraceReader};

use super::super::asked::{Asked, range, status};
use super::super::pieces;
use super::{Messages, Shared};

/// Spans in one message of an answer: enough that resources are not repeated too often.
const CHUNK_SPANS: usize = 100;

pub fn service<R: TraceReader>(shared: Arc<Shared<R>>) -> QueryServiceServer<V3<R>> {
    QueryServiceServer::new(V3(shared))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip)
}

pub struct V3<R>(Arc<Shared<R>>);

/// Spans as OTLP's messages; no message has spans of two traces.
pub fn otlp_chunks(parts: TraceParts) -> Messages<TracesData> {
    pieces::chunks(parts, CHUNK_SPANS)
        .map_ok(|spans| TracesData {
            resource_spans: resource_spans(&spans),
        })
        .map_err(|error| status(&error))
        .boxed()
}

/// The same of all traces found.
pub fn found_otlp_chunks(
    found: BoxStream<'static, Result<TraceParts, QueryError>>,
) -> Messages<TracesData> {
    found
        .map_err(|error| status(&error))
        .map_ok(otlp_chunks)
        .try_flatten()
        .boxed()
}

fn query(query: Option<api_v3::TraceQueryParameters>) -> Result<(TraceQuery, bool), Status> {
    let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
    if query.filter.is_some() {
        return Err(Status::invalid_argument(
            "query.filter is not supported; use attributes",
        ));
    }
    if query.start_time_min.is_none() || query.start_time_max.is_none() {
        return Err(Status::invalid_argument(
            "start time min and max are required parameters",
        ));
    }
    let asked = Asked {
        service: query.service_name,
        operation: query.operation_name,
        tags: query.attributes.into_iter().collect(),
        start_min: query.start_time_min,
        start_max: query.start_time_max,
        duration_min: query.duration_min,
        duration_max: query.duration_max,
        depth: query.search_depth,
    };
    Ok((asked.query(), query.raw_traces))
}

#[tonic::async_trait]
impl<R: TraceReader> QueryService for V3<R> {
    type GetTraceStream = Messages<TracesData>;

    async fn get_trace(
        &self,
        request: Request<api_v3::GetTraceRequest>,
    ) -> Result<Response<Self::GetTraceStream>, Status> {
        let request = request.into_inner();
        if request.trace_id.is_empty() {
            return Err(Status::invalid_argument("trace_id is empty"));
        }
        let id = TraceId::parse(&request.trace_id);
        let id = id.ok_or_else(|| Status::invalid_argument("malformed trace ID"))?;
        let form = self.0.form(request.raw_traces);
        let mut messages = otlp_chunks(pieces::of_trace(&self.0.reader, id, form)).peekable();
        let messages = futures::stream::once(async move {
            match std::pin::Pin::new(&mut messages).peek().await {
                Some(_) => Ok(messages),
                None => Err(Status::not_found("trace not found")),
            }
        });
        Ok(Response::new(messages.try_flatten().boxed()))
    }

    type FindTracesStream = Messages<TracesData>;

    async fn find_traces(
        &self,
        request: Request<api_v3::FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let (query, raw) = query(request.into_inner().query)?;
        let found = pieces::find(&self.0.reader, query, self.0.form(raw));
        Ok(Response::new(found_otlp_chunks(found)))
    }

    async fn get_services(
        &self,
        _: Request<api_v3::GetServicesRequest>,
    ) -> Result<Response<api_v3::GetServicesResponse>, Status> {
        let services = self.0.reader.services().await.map_err(|e| status(&e))?;
        Ok(Response::new(api_v3::GetServicesResponse { services }))
    }

    async fn get_operations(
        &self,
        request: Request<api_v3::GetOperationsRequest>,
    ) -> Result<Response<api_v3::GetOperationsResponse>, Status> {
        let request = request.into_inner();
        let kind = Some(&*request.span_kind).filter(|kind| !kind.is_empty());
        let operations = self.0.reader.operations(&request.service, kind).await;
        let operations = operations.map_err(|e| status(&e))?.into_iter();
        let operations = operations.map(|o| api_v3::Operation {
            name: o.name,
            span_kind: o.kind,
        });
        Ok(Response::new(api_v3::GetOperationsResponse {
            operations: operations.collect(),
        }))
    }

    async fn get_dependencies(
        &self,
        request: Request<api_v3::GetDependenciesRequest>,
    ) -> Result<Response<api_v3::DependenciesResponse>, Status> {
        let request = request.get_ref();
        let range = range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let links = self.0.reader.dependencies(range).await;
        let links = links.map_err(|e| status(&e))?.into_iter();
        let dependencies = links.map(|link| api_v3::Dependency {
            parent: link.parent,
            child: link.child,
            call_count: link.calls,
        });
        Ok(Response::new(api_v3::DependenciesResponse {
            dependencies: dependencies.collect(),
        }))
    }

    type FindTraceSummariesStream = Messages<api_v3::FindTraceSummariesResponse>;

    async fn find_trace_summaries(
        &self,
        request: Request<api_v3::FindTraceSummariesRequest>,
    ) -> Result<Response<Self::FindTraceSummariesStream>, Status> {
        // Traces in short are of adjusted ones always.
        let (query, _) = query(request.into_inner().query)?;
        let summaries = pieces::summaries(&self.0.reader, query, self.0.form(false))
            .map_ok(|summary| api_v3::FindTraceSummariesResponse {
                summaries: vec![summary.api_v3()],
            })
            .map_err(|error| status(&error));
        Ok(Response::new(summaries.boxed()))
    }
}
