//! Jaeger's APIs beside each other: what real senders sent, and what each API says of it. All
//! must say the same; that it is right is held by `traces.rs`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use watchpost::protocol::wire::jaeger::storage::{v1, v2};
use watchpost::protocol::wire::jaeger::{api_v2, api_v3};
use watchpost::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use watchpost::protocol::wire::opentelemetry::proto::common::v1::{KeyValue, any_value};
use watchpost::protocol::wire::opentelemetry::proto::trace::v1::{ResourceSpans, TracesData};
use watchpost::server::grpc::jaeger::query_service_client::QueryServiceClient;
use watchpost::server::grpc::jaeger_v3::query_service_client::QueryServiceClient as V3Client;
use watchpost::server::grpc::otlp::trace_service_client::TraceServiceClient;
use watchpost::server::grpc::storage_v1::span_reader_plugin_client::SpanReaderPluginClient;
use watchpost::server::grpc::storage_v1::span_writer_plugin_client::SpanWriterPluginClient;
use watchpost::server::grpc::storage_v1::streaming_span_writer_plugin_client::StreamingSpanWriterPluginClient;
use watchpost::server::grpc::storage_v2::trace_reader_client::TraceReaderClient;

use crate::appliance::{Appliance, Setup, encoded};
use crate::traces::{all_captured, send};

/// Later than anything that was captured, in microseconds.
const END: i64 = 1_900_000_000_000_000;

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

async fn connect(appliance: &Appliance, key: &str) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(appliance.url(key, ""));
    endpoint
        .expect("an address")
        .connect()
        .await
        .expect("connects")
}

async fn all<M>(answer: Result<tonic::Response<Streaming<M>>, tonic::Status>) -> Vec<M> {
    let messages = answer.expect("an answer").into_inner();
    messages.try_collect().await.expect("all messages")
}

/// Sends everything that was captured through its own door, and waits for it.
fn with_captured() -> Appliance {
    let appliance = Setup::default().start();
    for captured in all_captured() {
        send(&appliance, &captured);
    }
    appliance.wait("the datagrams", || {
        let udp = [("transport", "udp_compact"), ("transport", "udp_binary")];
        let taken: f64 = udp
            .iter()
            .map(|label| appliance.metric("span_messages_accepted", &[*label]))
            .sum();
        (taken >= 4.0).then_some(())
    });
    appliance
}

/// Every trace as HTTP's version 2 shows it, raw, by id.
fn by_http(appliance: &Appliance) -> BTreeMap<String, Value> {
    let services = appliance.get("jaeger.query.http", "/api/services").json();
    let mut traces = BTreeMap::new();
    for service in services["data"].as_array().expect("names") {
        let service = encoded(service.as_str().expect("a name"));
        let path = format!("/api/traces?service={service}&start=0&end={END}&limit=1000&raw=true");
        let answer = appliance.get("jaeger.query.http", &path).json();
        for trace in answer["data"].as_array().expect("traces") {
            let id = trace["traceID"].as_str().expect("an id");
            traces.insert(format!("{id:0>32}"), trace.clone());
        }
    }
    traces
}

/// One span in words that all APIs share: key, type and value of each tag, times in
/// microseconds. Sorted where order means nothing.
type Described = BTreeMap<&'static str, String>;

fn tag_text(key: &str, kind: &str, value: impl std::fmt::Display) -> String {
    format!("{key} {kind} {value}")
}

fn json_tags(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("tags").iter();
    let mut tags: Vec<String> = list
        .map(|tag| {
            let kind = tag["type"].as_str().expect("a type");
            let value = match kind {
                "string" | "binary" => tag["value"].as_str().expect("text").to_owned(),
                "float64" => tag["value"].as_f64().expect("a number").to_string(),
                _ => tag["value"].to_string(),
            };
            tag_text(tag["key"].as_str().expect("a key"), kind, value)
        })
        .collect();
    tags.sort();
    tags
}

fn describe_json(trace: &Value) -> Vec<Described> {
    let spans = trace["spans"].as_array().expect("spans").iter();
    let mut spans: Vec<Described> = spans
        .map(|span| {
            let process = &trace["processes"][span["processID"].as_str().expect("an id")];
            let references = span["references"].as_array().expect("references").iter();
            let references: Vec<String> = references
                .map(|r| {
                    let text = |key: &str| r[key].as_str().expect("text").to_owned();
                    format!(
                        "{} {:0>32} {}",
                        text("refType"),
                        text("traceID"),
                        text("spanID")
                    )
                })
                .collect();
            let logs = span["logs"].as_array().expect("logs").iter();
            let logs: Vec<String> = logs
                .map(|log| format!("{} {:?}", log["timestamp"], json_tags(&log["fields"])))
                .collect();
            BTreeMap::from([
                ("id", span["spanID"].as_str().expect("an id").to_owned()),
                (
                    "operation",
                    span["operationName"].as_str().expect("a name").to_owned(),
                ),
                ("flags", span["flags"].as_u64().unwrap_or(0).to_string()),
                ("start", span["startTime"].to_string()),
                ("duration", span["duration"].to_string()),
                ("tags", format!("{:#?}", json_tags(&span["tags"]))),
                ("logs", format!("{logs:#?}")),
                ("references", format!("{references:?}")),
                (
                    "service",
                    process["serviceName"].as_str().expect("a name").to_owned(),
                ),
                ("process", format!("{:#?}", json_tags(&process["tags"]))),
            ])
        })
        .collect();
    spans.sort();
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn message_tags(list: &[api_v2::KeyValue]) -> Vec<String> {
    let mut tags: Vec<String> = list
        .iter()
        .map(|tag| match tag.v_type {
            0 => tag_text(&tag.key, "string", &tag.v_str),
            1 => tag_text(&tag.key, "bool", tag.v_bool),
            2 => tag_text(&tag.key, "int64", tag.v_int64),
            3 => tag_text(&tag.key, "float64", tag.v_float64),
            _ => tag_text(&tag.key, "binary", STANDARD.encode(&tag.v_binary)),
        })
        .collect();
    tags.sort();
    tags
}

fn micros(at: Option<&api_v2::Timestamp>) -> i64 {
    let at = at.expect("a time");
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1000
}

fn describe_messages(spans: &[api_v2::Span]) -> Vec<Described> {
    let mut spans: Vec<Described> = spans
        .iter()
        .map(|span| {
            let process = span.process.as_ref().expect("a process");
            let references = span.references.iter().map(|r| {
                let kind = ["CHILD_OF", "FOLLOWS_FROM"][r.ref_type as usize];
                format!("{kind} {} {}", hex(&r.trace_id), hex(&r.span_id))
            });
            let logs = span.logs.iter().map(|log| {
                let at = micros(log.timestamp.as_ref());
                format!("{at} {:?}", message_tags(&log.fields))
            });
            let duration = span.duration.as_ref().expect("a duration");
            let duration = duration.seconds * 1_000_000 + i64::from(duration.nanos) / 1000;
            BTreeMap::from([
                ("id", hex(&span.span_id)),
                ("operation", span.operation_name.clone()),
                ("flags", span.flags.to_string()),
                ("start", micros(span.start_time.as_ref()).to_string()),
                ("duration", duration.to_string()),
                ("tags", format!("{:#?}", message_tags(&span.tags))),
                ("logs", format!("{:#?}", logs.collect::<Vec<_>>())),
                (
                    "references",
                    format!("{:?}", references.collect::<Vec<_>>()),
                ),
                ("service", process.service_name.clone()),
                ("process", format!("{:#?}", message_tags(&process.tags))),
            ])
        })
        .collect();
    spans.sort();
    spans
}

fn id_of(trace: &str) -> bytes::Bytes {
    let id = u128::from_str_radix(trace, 16).expect("an id");
    id.to_be_bytes().to_vec().into()
}

#[track_caller]
fn check_same(what: &str, found: &[Described], wanted: &[Described]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        for (part, wanted) in wanted {
            assert_eq!(&found[part], wanted, "{what}: {part} of {}", found["id"]);
        }
    }
}

/// The answers in OTLP's words as the JSON of an export, whichever API they are from.
fn sorted_groups(groups: Vec<Value>) -> Vec<Value> {
    // One span a line: how they are grouped depends on how they were sent.
    let mut lines = Vec::new();
    for group in groups {
        for scope in group["scopeSpans"].as_array().expect("scopes") {
            for span in scope["spans"].as_array().expect("spans") {
                lines.push(json!({
                    "resource": group["resource"], "scope": scope["scope"], "span": span
                }));
            }
        }
    }
    lines.sort_by_key(Value::to_string);
    lines
}

fn rendered(groups: impl IntoIterator<Item = ResourceSpans>) -> Vec<Value> {
    let text = |group: ResourceSpans| watchpost::protocol::otlp::render::resource_spans(&group);
    let groups = groups.into_iter().map(text);
    groups
        .map(|text| serde_json::from_str(&text).expect("JSON"))
        .collect()
}

fn groups_of(messages: Vec<TracesData>) -> Vec<ResourceSpans> {
    messages
        .into_iter()
        .flat_map(|m| m.resource_spans)
        .collect()
}

/// Attributes of OTLP in the words of [`json_tags`].
fn attribute_tags(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice).iter();
    list.map(|attribute| {
        let (key, value) = (
            attribute["key"].as_str().expect("a key"),
            &attribute["value"],
        );
        let (name, value) = value
            .as_object()
            .expect("a value")
            .iter()
            .next()
            .expect("one");
        let text = || value.as_str().expect("text").to_owned();
        match &**name {
            "stringValue" => tag_text(key, "string", text()),
            "boolValue" => tag_text(key, "bool", value),
            "intValue" => tag_text(key, "int64", text()),
            "doubleValue" => tag_text(key, "float64", value.as_f64().expect("a number")),
            "bytesValue" => tag_text(key, "binary", text()),
            other => panic!("{key}: {other}"),
        }
    })
    .collect()
}

/// What OTLP's fields say, as the tags they stand for.
fn field_tags(line: &Value) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    let mut text = |key: &str, value: &Value| {
        if let Some(value) = value.as_str() {
            tags.insert(tag_text(key, "string", value));
        }
    };
    let span = &line["span"];
    let kinds = ["", "internal", "server", "client", "producer", "consumer"];
    let kind = span["kind"].as_u64().unwrap_or(0) as usize;
    text("span.kind", &json!(kinds[kind]));
    for prefix in ["otel.scope", "otel.library"] {
        text(&format!("{prefix}.name"), &line["scope"]["name"]);
        text(&format!("{prefix}.version"), &line["scope"]["version"]);
    }
    text("w3c.tracestate", &span["traceState"]);
    text("otel.status_description", &span["status"]["message"]);
    match span["status"]["code"].as_u64() {
        Some(1) => text("otel.status_code", &json!("OK")),
        Some(2) => {
            text("otel.status_code", &json!("ERROR"));
            tags.insert(tag_text("error", "bool", true));
        }
        _ => {}
    }
    tags
}

/// Every tag, log and reference of Jaeger's view is in OTLP's, and no attribute is there that
/// the other has not.
fn check_otlp(trace: &Value, lines: &[Value]) {
    let spans = trace["spans"].as_array().expect("spans");
    assert_eq!(lines.len(), spans.len());
    for span in spans {
        let of_id = |line: &&Value| {
            let kind = field_tags(line)
                .into_iter()
                .find(|t| t.starts_with("span.kind"));
            let tags = json_tags(&span["tags"]);
            let wanted = tags.iter().find(|t| t.starts_with("span.kind "));
            let same_kind = wanted.is_none_or(|wanted| kind.as_ref() == Some(wanted));
            line["span"]["spanId"] == span["spanID"] && same_kind
        };
        let line = lines.iter().find(of_id);
        let line = line.unwrap_or_else(|| panic!("no {} in {lines:#?}", span["spanID"]));
        let found = &line["span"];
        let what = format!("{} {}", trace["traceID"], span["spanID"]);
        assert_eq!(
            found["name"].as_str().unwrap_or(""),
            span["operationName"],
            "{what}"
        );
        let time = |name: &str| {
            let text = found[name].as_str().expect("a time");
            text.parse::<i64>().expect("a number")
        };
        let (start, end) = (time("startTimeUnixNano"), time("endTimeUnixNano"));
        assert_eq!(start / 1000, span["startTime"], "{what}");
        assert_eq!((end - start) / 1000, span["duration"], "{what}");
        let attributes = attribute_tags(&found["attributes"]);
        let fields = field_tags(line);
        let wanted: BTreeSet<String> = json_tags(&span["tags"]).into_iter().collect();
        for tag in &wanted {
            let has = attributes.contains(tag) || fields.contains(tag);
            assert!(has, "{what}: {tag} is not in {line:#}");
        }
        for attribute in &attributes {
            assert!(
                wanted.contains(attribute),
                "{what}: {attribute} came from nowhere"
            );
        }
        let process = &trace["processes"][span["processID"].as_str().expect("an id")];
        let resource = attribute_tags(&line["resource"]["attributes"]);
        let service = process["serviceName"].as_str().expect("a name");
        assert!(
            resource.contains(&tag_text("service.name", "string", service)),
            "{what}"
        );
        for tag in json_tags(&process["tags"]) {
            let renamed = tag
                .replace("hostname string ", "host.name string ")
                .replace(
                    "jaeger.version string ",
                    "opencensus.exporterversion string Jaeger-",
                );
            let has = resource.contains(&tag) || resource.contains(&renamed);
            assert!(has, "{what}: {tag} is not among {resource:#?}");
        }
        let logs = span["logs"].as_array().expect("logs");
        let events = found["events"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(events.len(), logs.len(), "{what}");
        for (event, log) in events.iter().zip(logs) {
            let at: i64 = event["timeUnixNano"]
                .as_str()
                .expect("a time")
                .parse()
                .expect("one");
            assert_eq!(at / 1000, log["timestamp"], "{what}");
            let mut fields = attribute_tags(&event["attributes"]);
            if let Some(name) = event["name"].as_str() {
                fields.insert(tag_text("event", "string", name));
            }
            let wanted: BTreeSet<String> = json_tags(&log["fields"]).into_iter().collect();
            assert_eq!(fields, wanted, "{what}");
        }
        let parent = found["parentSpanId"].as_str();
        let links = found["links"].as_array().map_or(&[][..], Vec::as_slice);
        let references = span["references"].as_array().expect("references");
        let links = links.len() + usize::from(parent.is_some());
        assert_eq!(links, references.len(), "{what}");
    }
}

#[test]
fn all_apis_say_the_same_of_what_real_senders_sent() {
    let appliance = with_captured();
    let traces = appliance.wait("all traces", || {
        let traces = by_http(&appliance);
        (traces.len() >= 10).then_some(traces)
    });
    run(async {
        let query = connect(&appliance, "jaeger.query.grpc").await;
        let storage = connect(&appliance, "jaeger.storage.grpc").await;
        let mut api_2 = QueryServiceClient::new(query.clone());
        let mut api_3 = V3Client::new(query);
        let mut storage_1 = SpanReaderPluginClient::new(storage.clone());
        let mut storage_2 = TraceReaderClient::new(storage);
        for (id, trace) in &traces {
            let wanted = describe_json(trace);
            let request = api_v2::GetTraceRequest {
                trace_id: id_of(id),
                raw_traces: true,
                ..Default::default()
            };
            let chunks = all(api_2.get_trace(request).await).await;
            let spans: Vec<_> = chunks.into_iter().flat_map(|c| c.spans).collect();
            check_same("api_v2", &describe_messages(&spans), &wanted);
            let request = v1::GetTraceRequest {
                trace_id: id_of(id),
                ..Default::default()
            };
            let chunks = all(storage_1.get_trace(request).await).await;
            let spans: Vec<_> = chunks.into_iter().flat_map(|c| c.spans).collect();
            check_same("storage v1", &describe_messages(&spans), &wanted);

            let path = format!("/api/v3/traces/{id}?rawTraces=true");
            let answer = appliance.get("jaeger.query.http", &path).json();
            let groups = answer["result"]["resourceSpans"]
                .as_array()
                .expect("groups");
            let by_http = sorted_groups(groups.clone());
            check_otlp(trace, &by_http);
            let request = api_v3::GetTraceRequest {
                trace_id: id.clone(),
                raw_traces: true,
                ..Default::default()
            };
            let messages = all(api_3.get_trace(request).await).await;
            assert_eq!(
                sorted_groups(rendered(groups_of(messages))),
                by_http,
                "api_v3"
            );
            let query = vec![v2::GetTraceParams {
                trace_id: id_of(id),
                ..Default::default()
            }];
            let messages = all(storage_2.get_traces(v2::GetTracesRequest { query }).await).await;
            assert_eq!(
                sorted_groups(rendered(groups_of(messages))),
                by_http,
                "storage v2"
            );
        }
    });
}

#[test]
fn what_a_jaeger_stores_here_is_what_it_reads_again() {
    let source = with_captured();
    let traces = source.wait("all traces", || {
        let traces = by_http(&source);
        (traces.len() >= 10).then_some(traces)
    });
    let mut by_version_1 = Setup::default().start();
    let mut by_version_2 = Setup::default().start();
    run(async {
        let storage = connect(&source, "jaeger.storage.grpc").await;
        let mut storage_1 = SpanReaderPluginClient::new(storage.clone());
        let mut storage_2 = TraceReaderClient::new(storage);
        let target = connect(&by_version_1, "jaeger.storage.grpc").await;
        let mut single = SpanWriterPluginClient::new(target.clone());
        let mut stream = StreamingSpanWriterPluginClient::new(target);
        let target = connect(&by_version_2, "jaeger.storage.grpc").await;
        let mut export = TraceServiceClient::new(target);
        for (n, id) in traces.keys().enumerate() {
            let request = v1::GetTraceRequest {
                trace_id: id_of(id),
                ..Default::default()
            };
            let chunks = all(storage_1.get_trace(request).await).await;
            let spans = chunks.into_iter().flat_map(|c| c.spans);
            let writes: Vec<_> = spans
                .map(|s| v1::WriteSpanRequest { span: Some(s) })
                .collect();
            if n % 2 == 0 {
                for write in writes {
                    single.write_span(write).await.expect("written");
                }
            } else {
                let writes = futures::stream::iter(writes);
                stream.write_span_stream(writes).await.expect("written");
            }
            let query = vec![v2::GetTraceParams {
                trace_id: id_of(id),
                ..Default::default()
            }];
            let messages = all(storage_2.get_traces(v2::GetTracesRequest { query }).await).await;
            let request = ExportTraceServiceRequest {
                resource_spans: groups_of(messages),
            };
            let answer = export.export(request).await.expect("written").into_inner();
            assert_eq!(answer.partial_success, None);
        }
    });
    for (target, transport) in [
        (&by_version_1, "storage_grpc"),
        (&by_version_2, "storage_otlp"),
    ] {
        let labels = [("transport", transport)];
        let spans: usize = traces.values().map(|t| describe_json(t).len()).sum();
        assert_eq!(target.metric("spans_accepted", &labels), spans as f64);
    }
    // Written spans are acknowledged, so they outlive this.
    for target in [&mut by_version_1, &mut by_version_2] {
        target.kill();
        target.start();
        target.wait_recovered();
    }
    let again = by_http(&by_version_1);
    assert_eq!(again.len(), traces.len());
    for (id, trace) in &traces {
        check_same(
            "written by version 1",
            &describe_json(&again[id]),
            &describe_json(trace),
        );
    }
    let otlp = |appliance: &Appliance, id: &str| {
        let path = format!("/api/v3/traces/{id}?rawTraces=true");
        let answer = appliance.get("jaeger.query.http", &path).json();
        sorted_groups(
            answer["result"]["resourceSpans"]
                .as_array()
                .expect("groups")
                .clone(),
        )
    };
    for id in traces.keys() {
        // Attributes come in another order where fields of OTLP's were tags.
        let normal = |lines: Vec<Value>| {
            let line = |line: &Value| {
                let attributes = attribute_tags(&line["span"]["attributes"]);
                let mut line = line.clone();
                line["span"]["attributes"] = json!(attributes);
                line.to_string()
            };
            let mut lines: Vec<String> = lines.iter().map(line).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            normal(otlp(&by_version_2, id)),
            normal(otlp(&source, id)),
            "{id}"
        );
    }
}

#[test]
fn searches_over_grpc_find_what_those_over_http_find() {
    let appliance = with_captured();
    appliance.wait("all traces", || {
        (by_http(&appliance).len() >= 10).then_some(())
    });
    let services = appliance.get("jaeger.query.http", "/api/services").json();
    let services: Vec<String> = services["data"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().expect("text").to_owned())
        .collect();
    run(async {
        let query = connect(&appliance, "jaeger.query.grpc").await;
        let storage = connect(&appliance, "jaeger.storage.grpc").await;
        let mut api_2 = QueryServiceClient::new(query.clone());
        let mut api_3 = V3Client::new(query);
        let mut storage_2 = TraceReaderClient::new(storage);
        let found = api_2.get_services(api_v2::GetServicesRequest {}).await;
        assert_eq!(found.expect("services").into_inner().services, services);
        for service in &services {
            let path = format!(
                "/api/traces?service={}&start=0&end={END}&limit=1000",
                encoded(service)
            );
            let answer = appliance.get("jaeger.query.http", &path).json();
            let traces = answer["data"].as_array().expect("traces").iter();
            let wanted: BTreeSet<String> = traces
                .map(|t| format!("{:0>32}", t["traceID"].as_str().expect("an id")))
                .collect();
            let times = (
                Some(api_v2::Timestamp {
                    seconds: 0,
                    nanos: 0,
                }),
                Some(api_v2::Timestamp {
                    seconds: END / 1_000_000,
                    nanos: 0,
                }),
            );
            let query = api_v2::TraceQueryParameters {
                service_name: service.clone(),
                search_depth: 1000,
                ..Default::default()
            };
            let request = api_v2::FindTracesRequest { query: Some(query) };
            let chunks = all(api_2.find_traces(request).await).await;
            let ids: BTreeSet<String> = chunks
                .iter()
                .flat_map(|c| &c.spans)
                .map(|s| hex(&s.trace_id))
                .collect();
            assert_eq!(ids, wanted, "{service}");
            let query = api_v3::TraceQueryParameters {
                service_name: service.clone(),
                start_time_min: times.0,
                start_time_max: times.1,
                search_depth: 1000,
                ..Default::default()
            };
            let request = api_v3::FindTraceSummariesRequest { query: Some(query) };
            let answers = all(api_3.find_trace_summaries(request).await).await;
            let summaries = answers.into_iter().flat_map(|a| a.summaries);
            let by_grpc: BTreeSet<String> = summaries.map(|s| s.trace_id).collect();
            assert_eq!(by_grpc, wanted, "{service}");
            let query = v2::TraceQueryParameters {
                service_name: service.clone(),
                attributes: vec![KeyValue {
                    key: "no such key".into(),
                    value: Some(
                        watchpost::protocol::wire::opentelemetry::proto::common::v1::AnyValue {
                            value: Some(any_value::Value::BoolValue(true)),
                        },
                    ),
                }],
                ..Default::default()
            };
            let request = v2::FindTracesRequest { query: Some(query) };
            assert_eq!(all(storage_2.find_traces(request).await).await, []);
        }
        // Without a service: any.
        let request = v2::FindTraceIDsRequest {
            query: Some(v2::TraceQueryParameters {
                search_depth: 1000,
                ..Default::default()
            }),
        };
        let found = storage_2
            .find_trace_i_ds(request)
            .await
            .expect("ids")
            .into_inner();
        assert_eq!(found.trace_ids.len(), by_http(&appliance).len());
    });
}

#[test]
fn errors_over_grpc_have_their_codes_and_harm_nothing() {
    let appliance = with_captured();
    run(async {
        let query = connect(&appliance, "jaeger.query.grpc").await;
        let mut api_2 = QueryServiceClient::new(query.clone());
        let mut api_3 = V3Client::new(query);
        let mut storage =
            SpanWriterPluginClient::new(connect(&appliance, "jaeger.storage.grpc").await);
        let request = |id: &[u8]| api_v2::GetTraceRequest {
            trace_id: id.to_vec().into(),
            ..Default::default()
        };
        for (id, code, text) in [
            (
                &[][..],
                Code::InvalidArgument,
                "uninitialized TraceID is not allowed",
            ),
            (&[9; 16], Code::NotFound, "trace not found: trace not found"),
        ] {
            let error = match api_2.get_trace(request(id)).await {
                Ok(chunks) => chunks.into_inner().message().await.expect_err("none"),
                Err(error) => error,
            };
            assert_eq!((error.code(), error.message()), (code, text));
        }
        let error = api_3
            .find_traces(api_v3::FindTracesRequest { query: None })
            .await;
        assert_eq!(error.expect_err("refused").code(), Code::InvalidArgument);
        // Over the limit, and broken.
        let huge = api_v2::Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![1; 8].into(),
            operation_name: "x".repeat(17 << 20),
            ..Default::default()
        };
        let write = |span| v1::WriteSpanRequest { span: Some(span) };
        let error = storage
            .write_span(write(huge.clone()))
            .await
            .expect_err("too large");
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
        let no_id = api_v2::Span {
            span_id: vec![1; 3].into(),
            operation_name: "op".into(),
            ..huge.clone()
        };
        let error = storage.write_span(write(no_id)).await.expect_err("no id");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let good = api_v2::Span {
            operation_name: "kept".into(),
            ..huge
        };
        storage.write_span(write(good)).await.expect("written");
        let chunks = all(api_2.get_trace(request(&[1; 16])).await).await;
        assert_eq!(chunks[0].spans[0].operation_name, "kept");
    });
    let refused = [("transport", "storage_grpc"), ("reason", "bad_id")];
    assert_eq!(appliance.metric("span_messages_refused", &refused), 1.0);
}
