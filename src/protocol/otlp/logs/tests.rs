use proptest::prelude::*;
use prost::Message;
use serde_json::json;

use super::*;
use crate::model::LogBatch;
use crate::protocol::loki::push::{Coding, PushFormat, decode_push, decode_push_with};
use crate::protocol::wire::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::protocol::wire::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use crate::protocol::wire::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::protocol::wire::opentelemetry::proto::resource::v1::Resource;

fn holding(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(value: &str) -> AnyValue {
    holding(any_value::Value::StringValue(value.into()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value),
    }
}

fn map(values: Vec<KeyValue>) -> AnyValue {
    holding(any_value::Value::KvlistValue(KeyValueList { values }))
}

fn export(
    resource: Vec<KeyValue>,
    scope: Option<InstrumentationScope>,
    log_records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: resource,
                dropped_attributes_count: 0,
            }),
            scope_logs: vec![ScopeLogs {
                scope,
                log_records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn at(time: u64, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: time,
        body: Some(text(body)),
        ..LogRecord::default()
    }
}

fn decode(request: &ExportLogsServiceRequest) -> DecodedPush {
    let body = request.encode_to_vec();
    let limits = DecodeLimits::default();
    decode_push(PushFormat::OtlpProto, Coding::Identity, &body, &limits).expect("valid")
}

/// Streams with their lines: time, line and metadata as `a=1 b=2`.
fn shown(batch: &LogBatch) -> Vec<(String, Vec<String>)> {
    let streams = batch.streams.iter().map(|stream| {
        let lines = stream.entries.iter().map(|entry| {
            let line = String::from_utf8_lossy(batch.line(entry)).into_owned();
            let mut shown = format!("{} {line}", entry.at);
            for (name, value) in batch.metadata(entry).iter().flat_map(|set| set.iter()) {
                shown.push_str(&format!(" {name}={value}"));
            }
            shown
        });
        (stream.labels.to_string(), lines.collect())
    });
    streams.collect()
}

#[track_caller]
fn check(request: &ExportLogsServiceRequest, labels: &str, lines: &[&str]) {
    let decoded = decode(request);
    let lines = lines.iter().map(|l| (*l).to_owned()).collect();
    assert_eq!(shown(&decoded.batch), [(labels.to_owned(), lines)]);
    assert_eq!(decoded.refused, []);
}

#[test]
fn attributes_of_the_resource_are_labels_by_the_list_and_else_metadata() {
    let resource = vec![
        pair("service.name", text("shop")),
        pair("k8s.pod.name", text("p-1")),
        pair("cloud.region", text("")),
        pair("host.name", text("vm1")),
        pair(
            "proc",
            map(vec![
                pair("pid", holding(any_value::Value::IntValue(42))),
                pair("9x", text("y")),
            ]),
        ),
    ];
    let scope = InstrumentationScope {
        name: "lib".into(),
        version: "1.0".into(),
        attributes: vec![pair("sc", text("v"))],
        dropped_attributes_count: 2,
    };
    check(
        &export(resource, Some(scope), vec![at(7, "x")]),
        r#"{k8s_pod_name="p-1", service_name="shop"}"#,
        &[
            "7 x host_name=vm1 proc_key_9x=y proc_pid=42 sc=v scope_dropped_attributes_count=2 \
           scope_name=lib scope_version=1.0",
        ],
    );
}

#[test]
fn fields_of_a_record_are_metadata_unless_they_say_nothing() {
    let full = LogRecord {
        observed_time_unix_nano: 9,
        severity_number: 17,
        severity_text: "ERROR".into(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![0xab; 16].into(),
        span_id: vec![1; 8].into(),
        event_name: "e".into(),
        attributes: vec![
            pair("http.method", text("GET")),
            pair(
                "list",
                holding(any_value::Value::ArrayValue(ArrayValue {
                    values: vec![text("a"), holding(any_value::Value::IntValue(1))],
                })),
            ),
            pair("none", AnyValue { value: None }),
            pair("empty", map(vec![])),
        ],
        ..at(7, "x")
    };
    let zero_ids = LogRecord {
        trace_id: vec![0; 16].into(),
        span_id: vec![0; 8].into(),
        ..at(8, "y")
    };
    check(
        &export(
            vec![pair("service.name", text("s"))],
            None,
            vec![full, zero_ids],
        ),
        r#"{service_name="s"}"#,
        &[
            "7 x dropped_attributes_count=1 event_name=e flags=1 http_method=GET list=[\"a\",1] none= \
             observed_timestamp=9 severity_number=17 severity_text=ERROR span_id=0101010101010101 \
             trace_id=abababababababababababababababab",
            "8 y",
        ],
    );
}

#[test]
fn a_body_of_any_kind_becomes_a_line() {
    let body = |value: any_value::Value| LogRecord {
        body: Some(holding(value)),
        ..at(1, "")
    };
    let records = vec![
        body(any_value::Value::BoolValue(true)),
        body(any_value::Value::IntValue(-5)),
        body(any_value::Value::DoubleValue(1e21)),
        body(any_value::Value::BytesValue(vec![1, 2, 3, 4].into())),
        LogRecord {
            body: None,
            ..at(1, "")
        },
        LogRecord {
            body: Some(map(vec![
                pair("m", text("<&>")),
                pair("d", holding(any_value::Value::DoubleValue(1.5))),
            ])),
            ..at(1, "")
        },
        LogRecord {
            body: Some(holding(any_value::Value::ArrayValue(ArrayValue {
                values: vec![text("a")],
            }))),
            ..at(1, "")
        },
    ];
    check(
        &export(vec![pair("service.name", text("s"))], None, records),
        r#"{service_name="s"}"#,
        &[
            "1 true",
            "1 -5",
            "1 1e+21",
            "1 AQIDBA==",
            "1 ",
            r#"1 {"d":1.5,"m":"<&>"}"#,
            r#"1 ["a"]"#,
        ],
    );
}

#[test]
fn the_time_is_the_records_or_when_it_was_observed_or_now() {
    let observed = LogRecord {
        time_unix_nano: 0,
        observed_time_unix_nano: 5,
        ..at(0, "o")
    };
    let request = export(
        vec![pair("service.name", text("s"))],
        None,
        vec![observed, at(0, "n")],
    );
    let body = request.encode_to_vec();
    let decoded = decode_push_with(
        PushFormat::OtlpProto,
        Coding::Identity,
        &body,
        &DecodeLimits::default(),
        &Mapping::default(),
        Some(77),
    )
    .unwrap();
    assert_eq!(shown(&decoded.batch)[0].1, ["5 o", "77 n"]);
    assert!(decoded.once_only, "another clock would give another batch");
    assert!(!decode(&export(vec![], None, vec![at(1, "x")])).once_only);
}

#[test]
fn resources_with_the_same_labels_are_one_stream_and_without_any_unknown() {
    let mut request = export(vec![pair("host.name", text("a"))], None, vec![at(1, "x")]);
    request
        .resource_logs
        .extend(export(vec![pair("host.name", text("b"))], None, vec![at(2, "y")]).resource_logs);
    let body = request.encode_to_vec();
    let decode = |mapping: &Mapping| {
        let limits = DecodeLimits::default();
        let decoded = decode_push_with(
            PushFormat::OtlpProto,
            Coding::Identity,
            &body,
            &limits,
            mapping,
            None,
        );
        let decoded = decoded.unwrap();
        (shown(&decoded.batch), decoded.once_only)
    };
    let lines = ["1 x host_name=a".to_owned(), "2 y host_name=b".to_owned()];
    let unknown = r#"{service_name="unknown_service"}"#;
    assert_eq!(
        decode(&Mapping::new(&RESOURCE_LABELS, true)),
        (vec![(unknown.into(), lines.to_vec())], false)
    );
    assert_eq!(
        decode(&Mapping::default()).0,
        [("{}".into(), lines.to_vec())]
    );
    let (streams, once_only) = decode(&Mapping::new(&["host.name"], true));
    assert_eq!(
        streams[1],
        (r#"{host_name="b"}"#.into(), vec!["2 y".into()])
    );
    assert!(once_only, "replay knows the default list only");
}

#[test]
fn what_is_wrong_with_a_record_refuses_it_alone() {
    let bad_id = LogRecord {
        trace_id: vec![1; 3].into(),
        ..at(1, "id")
    };
    let late = at(u64::MAX, "late");
    let many = LogRecord {
        attributes: (0..600)
            .map(|i| pair(&format!("a{i}"), text("v")))
            .collect(),
        ..at(1, "many")
    };
    let decoded = decode(&export(
        vec![pair("service.name", text("s"))],
        None,
        vec![bad_id.clone(), at(1, "good"), late, many, bad_id],
    ));
    assert_eq!(shown(&decoded.batch)[0].1, ["1 good"]);
    let refused: Vec<_> = decoded
        .refused
        .iter()
        .map(|p| (p.reason, p.entries))
        .collect();
    assert_eq!(
        refused,
        [
            ("bad_id", 2),
            ("time_out_of_range", 1),
            ("structured_metadata_too_many", 1)
        ]
    );
}

#[test]
fn bombs_of_empty_values_nested_values_and_long_names_are_refused() {
    let limits = DecodeLimits {
        max_text: 4 << 20,
        max_parts: 4 << 20,
    };
    let decode = |format, body: &[u8]| decode_push(format, Coding::Identity, body, &limits);
    // 300,000 empty values in two bytes each.
    let empties = LogRecord {
        body: Some(holding(any_value::Value::ArrayValue(ArrayValue {
            values: vec![AnyValue { value: None }; 300_000],
        }))),
        ..at(1, "")
    };
    let body = export(vec![], None, vec![empties, at(2, "kept")]).encode_to_vec();
    let decoded = decode(PushFormat::OtlpProto, &body).unwrap();
    assert_eq!(decoded.refused[0].reason, "too_many_values");
    assert_eq!(shown(&decoded.batch)[0].1, ["2 kept"]);
    let mut json = String::from(
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"arrayValue":{"values":["#,
    );
    json.push_str(&vec!["{}"; 300_000].join(","));
    json.push_str("]}}}]}]}]}");
    let decoded = decode(PushFormat::OtlpJson, json.as_bytes()).unwrap();
    assert_eq!(decoded.refused[0].reason, "too_many_values");

    let mut deep = text("x");
    for _ in 0..100 {
        deep = map(vec![pair("k", deep)]);
    }
    let body = export(
        vec![],
        None,
        vec![LogRecord {
            body: Some(deep),
            ..at(1, "")
        }],
    )
    .encode_to_vec();
    assert!(matches!(
        decode(PushFormat::OtlpProto, &body),
        Err(DecodeError::Invalid(_))
    ));

    // Each leaf repeats the long name of its map.
    let long = "n".repeat(100_000);
    let leaves = (0..500)
        .map(|i| pair(&format!("k{i}"), text("v")))
        .collect();
    let record = LogRecord {
        attributes: vec![pair(&long, map(leaves))],
        ..at(1, "")
    };
    let body = export(vec![], None, vec![record]).encode_to_vec();
    assert!(matches!(
        decode(PushFormat::OtlpProto, &body),
        Err(DecodeError::TooLarge(_))
    ));

    assert_eq!(
        decode(PushFormat::OtlpProto, b"").err(),
        Some(DecodeError::NoStreams)
    );
    assert_eq!(
        decode(PushFormat::OtlpJson, b"{}").err(),
        Some(DecodeError::NoStreams)
    );
}

#[test]
fn every_coding_gives_the_same_batch() {
    use std::io::Write;
    let request = export(
        vec![pair("service.name", text("s"))],
        None,
        vec![at(1, "x")],
    );
    let body = request.encode_to_vec();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&body).unwrap();
    let zstd = zstd::stream::encode_all(&body[..], 1).unwrap();
    for (coding, body) in [
        (Coding::Gzip, gzip.finish().unwrap()),
        (Coding::Zstd, zstd.clone()),
    ] {
        let decoded = decode_push(
            PushFormat::OtlpProto,
            coding,
            &body,
            &DecodeLimits::default(),
        );
        assert_eq!(
            shown(&decoded.unwrap().batch),
            shown(&decode(&request).batch)
        );
    }
    let limits = DecodeLimits {
        max_text: 1000,
        ..DecodeLimits::default()
    };
    let bomb = zstd::stream::encode_all(&[0; 100_000][..], 1).unwrap();
    let bomb = decode_push(PushFormat::OtlpProto, Coding::Zstd, &bomb, &limits);
    assert!(matches!(bomb, Err(DecodeError::TooLarge(_))));
    let torn = decode_push(
        PushFormat::OtlpProto,
        Coding::Zstd,
        &zstd[..zstd.len() - 2],
        &limits,
    );
    assert!(matches!(torn, Err(DecodeError::Invalid(_))));
}

#[test]
fn json_is_read_in_all_forms_that_senders_write() {
    let body = json!({"resource_logs": [null, {
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
        "scopeLogs": [null, {"scope": null, "logRecords": [null, {
            "timeUnixNano": 5, "severityNumber": "SEVERITY_NUMBER_WARN2", "flags": 1,
            "traceId": "ABCDEF0102030405060708090a0b0c0d", "spanId": null,
            "body": {"stringValue": "a\u{e9}\n"}, "attributes": null, "unknown": [1],
        }]}],
    }]});
    let limits = DecodeLimits::default();
    let decode = |body: &str| {
        decode_push(
            PushFormat::OtlpJson,
            Coding::Identity,
            body.as_bytes(),
            &limits,
        )
    };
    let decoded = decode(&body.to_string()).unwrap();
    assert_eq!(
        shown(&decoded.batch),
        [(
            r#"{service_name="s"}"#.to_owned(),
            vec![
                "5 aé\n flags=1 severity_number=14 trace_id=abcdef0102030405060708090a0b0c0d"
                    .to_owned()
            ]
        )]
    );
    let record = |field: &str| {
        decode(&format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{field}}}]}}]}}]}}"#
        ))
    };
    for id in [
        "\"spanId\":\"xx\"",
        "\"traceId\":\"0102\"",
        "\"traceId\":\"012\"",
    ] {
        assert_eq!(record(id).unwrap().refused[0].reason, "bad_id", "{id}");
    }
    for bad in [
        "\"timeUnixNano\":\"x\"",
        "\"body\":5",
        "\"severityNumber\":\"LOUD\"",
    ] {
        assert!(matches!(record(bad), Err(DecodeError::Invalid(_))), "{bad}");
    }
    for bad in [
        "",
        "[]",
        "{",
        "{\"resourceLogs\":{}}",
        "{} x",
        "{\"resourceLogs\":[1]}",
    ] {
        assert!(matches!(decode(bad), Err(DecodeError::Invalid(_))), "{bad}");
    }
}

/// A value with its two encodings.
fn values() -> impl Strategy<Value = (AnyValue, serde_json::Value)> {
    let leaf = prop_oneof![
        "[a-zé{\"\\\\]{0,6}".prop_map(|t| (text(&t), json!({ "stringValue": t }))),
        any::<bool>().prop_map(|b| (
            holding(any_value::Value::BoolValue(b)),
            json!({ "boolValue": b })
        )),
        any::<i64>().prop_map(|i| (
            holding(any_value::Value::IntValue(i)),
            json!({ "intValue": i.to_string() })
        )),
        any::<f64>()
            .prop_filter("finite", |d| d.is_finite())
            .prop_map(|d| (
                holding(any_value::Value::DoubleValue(d)),
                json!({ "doubleValue": d })
            )),
        prop::collection::vec(any::<u8>(), 0..5).prop_map(|b| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(&b);
            (
                holding(any_value::Value::BytesValue(b.into())),
                json!({ "bytesValue": text }),
            )
        }),
        Just((AnyValue { value: None }, json!({}))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| {
                let (proto, json): (Vec<_>, Vec<_>) = values.into_iter().unzip();
                (
                    holding(any_value::Value::ArrayValue(ArrayValue { values: proto })),
                    json!({ "arrayValue": { "values": json } }),
                )
            }),
            pairs(inner).prop_map(|(proto, json)| {
                (map(proto), json!({ "kvlistValue": { "values": json } }))
            }),
        ]
    })
}

fn pairs(
    values: impl Strategy<Value = (AnyValue, serde_json::Value)>,
) -> impl Strategy<Value = (Vec<KeyValue>, Vec<serde_json::Value>)> {
    prop::collection::vec(("[a-c][.9]?", values), 0..4).prop_map(|pairs| {
        let (mut proto, mut json) = (Vec::new(), Vec::new());
        for (key, (p, j)) in pairs {
            proto.push(pair(&key, p));
            json.push(json!({ "key": key, "value": j }));
        }
        (proto, json)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// L1, and that replay gives what was accepted (D1).
    #[test]
    fn both_encodings_give_the_same_batch_and_so_does_decoding_again(
        resource in pairs(values()), scope in pairs(values()),
        records in prop::collection::vec((1..100_u64, 0..3_u64, values(), pairs(values()), any::<u8>()), 0..4),
    ) {
        let (mut proto, mut json) = (Vec::new(), Vec::new());
        for (time, observed, body, attributes, id) in records {
            proto.push(LogRecord {
                time_unix_nano: time,
                observed_time_unix_nano: observed,
                body: Some(body.0),
                attributes: attributes.0,
                trace_id: vec![id; 16].into(),
                severity_number: i32::from(id % 25),
                ..LogRecord::default()
            });
            json.push(json!({
                "timeUnixNano": time.to_string(), "observedTimeUnixNano": observed,
                "body": body.1, "attributes": attributes.1,
                "traceId": format!("{id:02x}").repeat(16), "severityNumber": id % 25,
            }));
        }
        let scope_proto = InstrumentationScope {
            name: "n".into(), attributes: scope.0, ..InstrumentationScope::default()
        };
        let proto = export(resource.0, Some(scope_proto), proto).encode_to_vec();
        let json = json!({ "resourceLogs": [{
            "resource": { "attributes": resource.1 },
            "scopeLogs": [{ "scope": { "name": "n", "attributes": scope.1 }, "logRecords": json }],
        }]}).to_string();
        let decode = |format, body: &[u8]| {
            decode_push(format, Coding::Identity, body, &DecodeLimits::default())
                .map(|decoded| (shown(&decoded.batch), decoded.refused))
        };
        let from_proto = decode(PushFormat::OtlpProto, &proto);
        prop_assert_eq!(&from_proto, &decode(PushFormat::OtlpJson, json.as_bytes()));
        prop_assert_eq!(&from_proto, &decode(PushFormat::OtlpProto, &proto));
    }

    #[test]
    fn any_bytes_and_any_damage_are_answered(
        junk in prop::collection::vec(any::<u8>(), 0..200),
        body in values(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), with: u8,
    ) {
        let limits = DecodeLimits { max_text: 1 << 16, max_parts: 1 << 16 };
        let mut damaged = export(
            vec![pair("a", body.0.clone())], None, vec![LogRecord { body: Some(body.0), ..at(1, "") }],
        ).encode_to_vec();
        let at = flip.index(damaged.len());
        damaged[at] ^= with;
        damaged.truncate(cut.index(damaged.len() + 1));
        for bytes in [&junk, &damaged] {
            for format in [PushFormat::OtlpProto, PushFormat::OtlpJson] {
                if let Ok(decoded) = decode_push(format, Coding::Identity, bytes, &limits) {
                    let _ = shown(&decoded.batch);
                }
            }
        }
    }
}
