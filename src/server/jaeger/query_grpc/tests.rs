use tonic::Code;

use super::*;
use crate::model::trace::Span;
use crate::protocol::wire::jaeger::api_v2::metrics as metrics_wire;
use crate::protocol::wire::jaeger::api_v3;
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::grpc::jaeger::query_service_client::QueryServiceClient;
use crate::server::grpc::jaeger_metrics::metrics_query_service_client::MetricsQueryServiceClient;
use crate::server::grpc::jaeger_v3::query_service_client::QueryServiceClient as V3Client;
use crate::server::grpc::otlp::trace_service_client::TraceServiceClient;
use crate::server::spans::SpanSink;
use crate::server::spans::memory::{Memory, channel, fixture, serve, sink};

/// 2026-11-22T00:00:00Z in nanoseconds.
const NOW: i64 = 1_795_305_600_000_000_000;

async fn start() -> (tonic::transport::Channel, Arc<Memory>) {
    let memory = sink();
    for (name, format) in [
        ("go-types", SpanFormat::ThriftCompactMessage),
        ("go-traefik64", SpanFormat::ThriftCompactMessage),
        ("pyotlp-plain", SpanFormat::OtlpProto),
    ] {
        let body = fixture(&format!("captured/{name}.bin"));
        let batch = decode_spans(format, &body).unwrap();
        memory.accept(batch, format, body.into()).await.unwrap();
    }
    let router = service(memory.clone(), Clock::fixed(NOW), &QueryOptions::default());
    (channel(serve(router).await).await, memory)
}

/// All messages of an answer.
async fn all<M>(answer: Result<Response<tonic::Streaming<M>>, Status>) -> Result<Vec<M>, Status> {
    answer?.into_inner().try_collect().await
}

/// Many spans of one trace.
async fn many(memory: &Memory, spans: u64) -> TraceId {
    let mut first = memory.spans().remove(0);
    first.trace_id = TraceId(77);
    let spans = (1..=spans).map(|id| Span {
        span_id: crate::model::trace::SpanId(id),
        ..first.clone()
    });
    let batch = crate::model::trace::SpanBatch {
        spans: spans.collect(),
    };
    let format = SpanFormat::JaegerProtoRequest;
    memory.accept(batch, format, "".into()).await.unwrap();
    TraceId(77)
}

#[tokio::test]
async fn a_trace_comes_in_chunks_of_ten_spans() {
    let (channel, memory) = start().await;
    let id = many(&memory, 25).await;
    let mut client = QueryServiceClient::new(channel.clone());
    for raw_traces in [false, true] {
        let request = api_v2::GetTraceRequest {
            trace_id: id.0.to_be_bytes().to_vec().into(),
            raw_traces,
            ..Default::default()
        };
        let chunks = all(client.get_trace(request).await).await.unwrap();
        assert!(
            chunks
                .iter()
                .all(|chunk| (1..=10).contains(&chunk.spans.len()))
        );
        let spans: Vec<_> = chunks.iter().flat_map(|c| &c.spans).collect();
        assert_eq!(spans.len(), 25);
        assert!(
            spans
                .iter()
                .all(|s| s.process.is_some() && s.process_id.is_empty())
        );
    }
    let mut client = V3Client::new(channel);
    let request = api_v3::GetTraceRequest {
        trace_id: id.to_string(),
        ..Default::default()
    };
    let chunks = all(client.get_trace(request).await).await.unwrap();
    let scopes = chunks.iter().flat_map(|c| &c.resource_spans);
    let spans = scopes.flat_map(|r| &r.scope_spans).map(|s| s.spans.len());
    assert_eq!(spans.sum::<usize>(), 25);
}

#[tokio::test]
async fn what_is_shown_is_adjusted_unless_it_is_asked_for_raw() {
    let (channel, memory) = start().await;
    let mut lone = memory.spans().remove(0);
    lone.trace_id = TraceId(78);
    lone.references[..]
        .iter_mut()
        .for_each(|r| r.trace_id = TraceId(78));
    lone.references.push(crate::model::trace::SpanRef {
        kind: crate::model::trace::RefType::FollowsFrom,
        trace_id: TraceId(0),
        span_id: crate::model::trace::SpanId(1),
    });
    let batch = crate::model::trace::SpanBatch { spans: vec![lone] };
    let format = SpanFormat::JaegerProtoRequest;
    memory.accept(batch, format, "".into()).await.unwrap();
    let mut client = QueryServiceClient::new(channel);
    let mut warnings = Vec::new();
    for raw_traces in [true, false] {
        let request = api_v2::GetTraceRequest {
            trace_id: 78u128.to_be_bytes().to_vec().into(),
            raw_traces,
            ..Default::default()
        };
        let chunks = all(client.get_trace(request).await).await.unwrap();
        warnings.push(chunks[0].spans[0].warnings.len());
    }
    assert!(warnings[0] == 0 && warnings[1] > 0, "{warnings:?}");
}

#[tokio::test]
async fn traces_that_are_not_there_and_ids_that_are_none_are_told() {
    let (channel, _) = start().await;
    let mut v2 = QueryServiceClient::new(channel.clone());
    let mut v3 = V3Client::new(channel);
    for (id, code, message) in [
        (
            &[][..],
            Code::InvalidArgument,
            "uninitialized TraceID is not allowed",
        ),
        (
            &[0; 16],
            Code::InvalidArgument,
            "uninitialized TraceID is not allowed",
        ),
        (
            &[1; 3],
            Code::InvalidArgument,
            "a trace id has 3 bytes instead of 16",
        ),
        (&[9; 16], Code::NotFound, "trace not found: trace not found"),
        (&[9; 8], Code::NotFound, "trace not found: trace not found"),
    ] {
        let request = api_v2::GetTraceRequest {
            trace_id: id.to_vec().into(),
            ..Default::default()
        };
        let error = all(v2.get_trace(request).await).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message), "{id:?}");
    }
    for (id, code) in [
        ("", Code::InvalidArgument),
        ("xyz", Code::InvalidArgument),
        ("9", Code::NotFound),
    ] {
        let request = api_v3::GetTraceRequest {
            trace_id: id.into(),
            ..Default::default()
        };
        let error = all(v3.get_trace(request).await).await.unwrap_err();
        assert_eq!(error.code(), code, "{id:?}: {error}");
    }
}

#[tokio::test]
async fn a_search_finds_whole_traces_that_no_chunk_mixes() {
    let (channel, memory) = start().await;
    many(&memory, 12).await;
    let service = memory.spans()[0].process.service.to_string();
    let mut v2 = QueryServiceClient::new(channel.clone());
    let mut tags = std::collections::HashMap::new();
    tags.insert("k".to_owned(), "v".to_owned());
    let query = api_v2::TraceQueryParameters {
        service_name: service.clone(),
        operation_name: "op".into(),
        tags,
        start_time_min: Some(api_v2::Timestamp {
            seconds: 1,
            nanos: 2,
        }),
        duration_min: Some(api_v2::Duration {
            seconds: 0,
            nanos: 5,
        }),
        search_depth: 3,
        ..Default::default()
    };
    let request = api_v2::FindTracesRequest { query: Some(query) };
    let chunks = all(v2.find_traces(request).await).await.unwrap();
    let stored = memory.spans();
    let stored = stored.iter().filter(|s| *s.process.service == *service);
    assert_eq!(
        chunks.iter().map(|c| c.spans.len()).sum::<usize>(),
        stored.count()
    );
    for chunk in &chunks {
        assert!(
            chunk
                .spans
                .iter()
                .all(|s| s.trace_id == chunk.spans[0].trace_id)
        );
    }
    let asked = memory.queries.lock().pop().unwrap();
    assert_eq!(asked.tags, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(
        (asked.start_min, asked.start_max),
        (1_000_000_002, i64::MAX)
    );
    assert_eq!((asked.duration_min, asked.duration_max), (Some(5), None));
    assert_eq!((asked.limit, &*asked.operation), (3, "op"));

    let request = api_v2::FindTracesRequest { query: None };
    let error = all(v2.find_traces(request).await).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let query = api_v2::TraceQueryParameters {
        service_name: "slow".into(),
        ..Default::default()
    };
    let request = api_v2::FindTracesRequest { query: Some(query) };
    let error = all(v2.find_traces(request).await).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);

    let mut v3 = V3Client::new(channel);
    let query = api_v3::TraceQueryParameters {
        service_name: service,
        start_time_min: Some(api_v2::Timestamp {
            seconds: 1,
            nanos: 0,
        }),
        start_time_max: Some(api_v2::Timestamp {
            seconds: 2,
            nanos: 0,
        }),
        ..Default::default()
    };
    let request = api_v3::FindTraceSummariesRequest {
        query: Some(query.clone()),
    };
    let answer = all(v3.find_trace_summaries(request).await).await.unwrap();
    let summaries: Vec<_> = answer.into_iter().flat_map(|a| a.summaries).collect();
    let long = summaries.iter().find(|s| s.span_count == 12).unwrap();
    assert_eq!(long.trace_id, format!("{:032x}", 77));
    for broken in [
        api_v3::TraceQueryParameters {
            start_time_max: None,
            ..query.clone()
        },
        api_v3::TraceQueryParameters {
            filter: Some(Default::default()),
            ..query
        },
    ] {
        let request = api_v3::FindTracesRequest {
            query: Some(broken),
        };
        let error = all(v3.find_traces(request).await).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_trace_is_archived_and_one_that_is_not_there_is_not() {
    let (channel, memory) = start().await;
    let id = many(&memory, 4).await;
    let mut v2 = QueryServiceClient::new(channel);
    let request = |id: TraceId| api_v2::ArchiveTraceRequest {
        trace_id: id.0.to_be_bytes().to_vec().into(),
        ..Default::default()
    };
    v2.archive_trace(request(id)).await.unwrap();
    assert_eq!(memory.archived.lock().len(), 4);
    let error = v2.archive_trace(request(TraceId(5))).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn services_and_operations_are_listed_with_and_without_kinds() {
    let (channel, _) = start().await;
    let mut v2 = QueryServiceClient::new(channel.clone());
    let services = v2
        .get_services(api_v2::GetServicesRequest {})
        .await
        .unwrap();
    assert_eq!(
        services.into_inner().services,
        ["py-otlp", "svc-types", "traefik"]
    );
    let request = api_v2::GetOperationsRequest {
        service: "traefik".into(),
        span_kind: "server".into(),
    };
    let found = v2.get_operations(request).await.unwrap().into_inner();
    assert!(!found.operations.is_empty());
    assert!(found.operations.iter().all(|o| o.span_kind == "server"));
    let names: Vec<_> = found.operations.iter().map(|o| o.name.clone()).collect();
    assert_eq!(found.operation_names, names);
    let mut v3 = V3Client::new(channel);
    let request = api_v3::GetOperationsRequest {
        service: "nobody".into(),
        ..Default::default()
    };
    let found = v3.get_operations(request).await.unwrap().into_inner();
    assert_eq!(found.operations, []);
}

#[tokio::test]
async fn requests_that_lack_something_are_invalid_and_unknown_methods_unimplemented() {
    let (channel, _) = start().await;
    let mut v2 = QueryServiceClient::new(channel.clone());
    let request = api_v2::GetDependenciesRequest::default();
    let error = v2.get_dependencies(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let mut metrics = MetricsQueryServiceClient::new(channel.clone());
    let error = metrics
        .get_call_rates(metrics_wire::GetCallRatesRequest::default())
        .await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    let request = metrics_wire::GetLatenciesRequest {
        quantile: 2.0,
        ..Default::default()
    };
    let error = metrics.get_latencies(request).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    let step = metrics
        .get_min_step_duration(metrics_wire::GetMinStepDurationRequest {})
        .await;
    let step = step.unwrap().into_inner().min_step.unwrap();
    assert_eq!((step.seconds, step.nanos), (10, 0));
    let mut other = TraceServiceClient::new(channel);
    let error = other.export(ExportTraceServiceRequest::default()).await;
    assert_eq!(error.unwrap_err().code(), Code::Unimplemented);
}
