use prost::Message;
use tonic::Code;

use super::*;
use crate::ingest::refusal::RefusalKind;
use crate::model::trace::Span;
use crate::protocol::jaeger::proto::span_message;
use crate::protocol::otlp::encode::resource_spans;
use crate::protocol::wire::jaeger::api_v2;
use crate::protocol::wire::jaeger::storage::{v1 as wire, v2 as wire2};
use crate::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::protocol::wire::opentelemetry::proto::common::v1 as common;
use crate::protocol::{SpanFormat, decode_spans};
use crate::server::grpc::otlp::trace_service_client::TraceServiceClient;
use crate::server::grpc::storage_v1::archive_span_reader_plugin_client::ArchiveSpanReaderPluginClient;
use crate::server::grpc::storage_v1::archive_span_writer_plugin_client::ArchiveSpanWriterPluginClient;
use crate::server::grpc::storage_v1::plugin_capabilities_client::PluginCapabilitiesClient;
use crate::server::grpc::storage_v1::span_reader_plugin_client::SpanReaderPluginClient;
use crate::server::grpc::storage_v1::span_writer_plugin_client::SpanWriterPluginClient;
use crate::server::grpc::storage_v1::streaming_span_writer_plugin_client::StreamingSpanWriterPluginClient;
use crate::server::grpc::storage_v2::capabilities_client::CapabilitiesClient;
use crate::server::grpc::storage_v2::trace_reader_client::TraceReaderClient;
use crate::server::spans::memory::{Memory, channel, fixture, metrics, serve, sink};
use crate::telemetry::metrics::Metrics;

async fn start() -> (tonic::transport::Channel, Arc<Memory>, Metrics) {
    let memory = sink();
    let (metrics, spans) = metrics();
    let router = service(memory.clone(), memory.clone(), spans);
    (channel(serve(router).await).await, memory, metrics)
}

/// Spans as a collector of Jaeger holds them.
fn received() -> Vec<Span> {
    let body = fixture("captured/go-types.bin");
    decode_spans(SpanFormat::ThriftCompactMessage, &body)
        .unwrap()
        .spans
}

fn write(span: &Span) -> wire::WriteSpanRequest {
    wire::WriteSpanRequest {
        span: Some(span_message(span)),
    }
}

#[track_caller]
fn check_counted(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
}

#[tokio::test]
async fn spans_written_one_by_one_or_in_a_stream_are_kept_as_they_are() {
    let (channel, memory, metrics) = start().await;
    let spans = received();
    let mut writer = SpanWriterPluginClient::new(channel.clone());
    for span in &spans {
        writer.write_span(write(span)).await.unwrap();
    }
    writer.close(wire::CloseWriterRequest {}).await.unwrap();
    assert_eq!(memory.spans(), spans);
    check_counted(
        &metrics,
        &format!(
            "watchpost_spans_accepted_total{{transport=\"storage_grpc\"}} {}",
            spans.len()
        ),
    );

    let (channel, memory, _) = start().await;
    let mut writer = StreamingSpanWriterPluginClient::new(channel);
    let requests: Vec<_> = spans.iter().cycle().take(500).map(write).collect();
    let requests = futures::stream::iter(requests);
    writer.write_span_stream(requests).await.unwrap();
    let kept: Vec<Span> = spans.iter().cycle().take(500).cloned().collect();
    assert_eq!(memory.spans(), kept);
    for (batch, format, body) in &*memory.received.lock() {
        let replayed = decode_spans(*format, body).unwrap();
        assert_eq!(
            replayed.spans, batch.spans,
            "what the journal gets is the same"
        );
    }
}

#[tokio::test]
async fn a_broken_span_in_a_stream_is_told_at_the_end_and_the_others_are_stored() {
    let (channel, memory, metrics) = start().await;
    let spans = received();
    let mut broken = write(&spans[0]);
    broken.span.as_mut().unwrap().span_id = bytes::Bytes::from_static(&[1]);
    let requests = vec![write(&spans[0]), broken, write(&spans[1])];
    let mut writer = StreamingSpanWriterPluginClient::new(channel.clone());
    let error = writer
        .write_span_stream(futures::stream::iter(requests))
        .await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(memory.spans(), spans[..2]);
    check_counted(
        &metrics,
        r#"watchpost_span_messages_refused_total{transport="storage_grpc",reason="bad_id"} 1"#,
    );
    memory.refuse(RefusalKind::Unavailable);
    let error = writer
        .write_span_stream(futures::stream::iter(vec![write(&spans[0])]))
        .await;
    assert_eq!(error.unwrap_err().code(), Code::Unavailable);
    let mut writer = SpanWriterPluginClient::new(channel);
    let error = writer.write_span(write(&spans[0])).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn version_1_reads_what_is_stored_unadjusted_and_contiguous() {
    let (channel, memory, _) = start().await;
    let spans = received();
    let mut writer = SpanWriterPluginClient::new(channel.clone());
    for span in &spans {
        writer.write_span(write(span)).await.unwrap();
    }
    let mut reader = SpanReaderPluginClient::new(channel.clone());
    let id: bytes::Bytes = spans[0].trace_id.0.to_be_bytes().to_vec().into();
    let request = wire::GetTraceRequest {
        trace_id: id.clone(),
        ..Default::default()
    };
    let mut chunks = reader
        .get_trace(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut read = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        read.extend(chunk.spans);
    }
    let stored = spans.iter().filter(|s| s.trace_id == spans[0].trace_id);
    assert_eq!(read, stored.map(span_message).collect::<Vec<_>>());

    let query = wire::TraceQueryParameters {
        service_name: "svc-types".into(),
        num_traces: 5,
        ..Default::default()
    };
    let found = reader.find_trace_i_ds(wire::FindTraceIDsRequest {
        query: Some(query.clone()),
    });
    assert!(found.await.unwrap().into_inner().trace_ids.contains(&id));
    assert_eq!(memory.queries.lock().pop().unwrap().limit, 5);
    let found = reader.find_traces(wire::FindTracesRequest { query: Some(query) });
    let mut found = found.await.unwrap().into_inner();
    let mut count = 0;
    while let Some(chunk) = found.message().await.unwrap() {
        assert!(
            chunk
                .spans
                .iter()
                .all(|s| s.trace_id == chunk.spans[0].trace_id)
        );
        count += chunk.spans.len();
    }
    assert_eq!(count, spans.len());

    let mut archive = ArchiveSpanReaderPluginClient::new(channel);
    // The id of zero is none that is refused: whoever asks may ask for others beside it.
    for absent in [vec![7; 16], vec![0; 16], vec![]] {
        let absent = wire::GetTraceRequest {
            trace_id: absent.into(),
            ..Default::default()
        };
        for answer in [
            reader.get_trace(absent.clone()).await,
            archive.get_archive_trace(absent).await,
        ] {
            let error = match answer {
                Ok(mut chunks) => chunks.get_mut().message().await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(
                (error.code(), error.message()),
                (Code::NotFound, "trace not found")
            );
        }
    }
}

#[tokio::test]
async fn version_2_writes_and_reads_otlp_as_it_was() {
    let (channel, memory, _) = start().await;
    let spans = received();
    let written = resource_spans(&spans);
    let mut writer = TraceServiceClient::new(channel.clone());
    let request = ExportTraceServiceRequest {
        resource_spans: written.clone(),
    };
    writer.export(request.clone()).await.unwrap();
    assert_eq!(memory.received.lock()[0].1, SpanFormat::StorageOtlp);

    let mut reader = TraceReaderClient::new(channel);
    let mut ids: Vec<_> = spans.iter().map(|s| s.trace_id).collect();
    ids.dedup();
    let params = |id: u128| wire2::GetTraceParams {
        trace_id: id.to_be_bytes().to_vec().into(),
        ..Default::default()
    };
    // Those that are not there are left out.
    let mut query = vec![params(99), params(0)];
    query.extend(ids.iter().map(|id| params(id.0)));
    let answer = reader.get_traces(wire2::GetTracesRequest { query }).await;
    let mut chunks = answer.unwrap().into_inner();
    let mut read = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        assert!(!chunk.resource_spans.is_empty());
        read.extend(chunk.resource_spans);
    }
    let count = |groups: &[_]| -> usize {
        let spans = |g: &crate::protocol::wire::opentelemetry::proto::trace::v1::ResourceSpans| {
            g.scope_spans.iter().map(|s| s.spans.len()).sum::<usize>()
        };
        groups.iter().map(spans).sum()
    };
    assert_eq!(count(&read), count(&written));
    // Read and written again it is the same.
    let again = ExportTraceServiceRequest {
        resource_spans: read,
    };
    let decoded = |request: &ExportTraceServiceRequest| {
        let batch = decode_spans(SpanFormat::StorageOtlp, &request.encode_to_vec()).unwrap();
        let mut texts: Vec<_> = batch.spans.iter().map(|s| format!("{s:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(decoded(&again), decoded(&request));
}

#[tokio::test]
async fn version_2_searches_by_typed_values_and_refuses_filters() {
    let (channel, memory, _) = start().await;
    let mut reader = TraceReaderClient::new(channel);
    let typed = |key: &str, value: common::any_value::Value| common::KeyValue {
        key: key.into(),
        value: Some(common::AnyValue { value: Some(value) }),
    };
    use common::any_value::Value;
    let query = wire2::TraceQueryParameters {
        attributes: vec![
            typed("a", Value::StringValue("x".into())),
            typed("b", Value::BoolValue(true)),
            typed("c", Value::IntValue(-5)),
            typed("d", Value::DoubleValue(503.0)),
            typed("e", Value::DoubleValue(72.5)),
            typed("f", Value::BytesValue(vec![1, 0xff].into())),
        ],
        ..Default::default()
    };
    let request = wire2::FindTraceIDsRequest {
        query: Some(query.clone()),
    };
    reader.find_trace_i_ds(request).await.unwrap();
    let asked = memory.queries.lock().pop().unwrap();
    let texts: Vec<&str> = asked.tags.iter().map(|(_, text)| &**text).collect();
    assert_eq!(texts, ["x", "true", "-5", "503", "72.5", "01ff"]);
    let request = wire2::FindTraceSummariesRequest {
        query: Some(wire2::TraceQueryParameters {
            filter: Some(Default::default()),
            ..query
        }),
    };
    let error = reader.find_trace_summaries(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_version_1_archives_is_in_the_archive_alone() {
    let (channel, memory, metrics) = start().await;
    let spans = received();
    let mut writer = ArchiveSpanWriterPluginClient::new(channel.clone());
    // A second time it changes nothing.
    for span in spans.iter().chain(&spans) {
        writer.write_archive_span(write(span)).await.unwrap();
    }
    assert_eq!(memory.spans(), []);
    let request = wire::GetTraceRequest {
        trace_id: spans[0].trace_id.0.to_be_bytes().to_vec().into(),
        ..Default::default()
    };
    let mut reader = ArchiveSpanReaderPluginClient::new(channel.clone());
    let answer = reader.get_archive_trace(request.clone()).await.unwrap();
    let mut chunks = answer.into_inner();
    let mut read = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        read.extend(chunk.spans);
    }
    let archived = spans.iter().filter(|s| s.trace_id == spans[0].trace_id);
    assert_eq!(read, archived.map(span_message).collect::<Vec<_>>());
    let mut reader = SpanReaderPluginClient::new(channel);
    let error = match reader.get_trace(request).await {
        Ok(mut chunks) => chunks.get_mut().message().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), Code::NotFound);
    let line = r#"watchpost_spans_accepted_total{transport="storage_archive"}"#;
    check_counted(&metrics, &format!("{line} {}", 2 * spans.len()));
}

#[tokio::test]
async fn capabilities_are_what_is_there() {
    let (channel, ..) = start().await;
    let mut client = PluginCapabilitiesClient::new(channel.clone());
    let v1 = client.capabilities(wire::CapabilitiesRequest {}).await;
    let v1 = v1.unwrap().into_inner();
    assert!(v1.archive_span_reader && v1.archive_span_writer);
    assert!(!v1.streaming_span_writer, "each span is to be acknowledged");
    let mut client = CapabilitiesClient::new(channel);
    let v2 = client
        .get_capabilities(wire2::GetCapabilitiesRequest {})
        .await;
    let search = v2.unwrap().into_inner().search.unwrap();
    assert!(search.without_service_name && search.same_span_conjunction);
    assert_eq!(search.filter, None);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_next_is_taken() {
    let (channel, memory, _) = start().await;
    let mut writer = SpanWriterPluginClient::new(channel);
    let mut huge = write(&received()[0]);
    huge.span.as_mut().unwrap().tags.push(api_v2::KeyValue {
        key: "k".into(),
        v_str: "x".repeat(MAX_MESSAGE_BYTES),
        ..Default::default()
    });
    let error = writer.write_span(huge).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    writer.write_span(write(&received()[0])).await.unwrap();
    assert_eq!(memory.spans().len(), 1);
}
