//! Logs by OTLP through all three doors, against the real program.

use prost::Message;
use serde_json::{Value, json};
use watchpost::protocol::wire::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use watchpost::protocol::wire::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};
use watchpost::protocol::wire::opentelemetry::proto::logs::v1::{
    LogRecord, ResourceLogs, ScopeLogs,
};
use watchpost::protocol::wire::opentelemetry::proto::resource::v1::Resource;

use crate::appliance::{Answer, Appliance, Setup, encoded, now};
use crate::senders::gzip;

const PROTO: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const DOORS: [(&str, &str, u16); 2] = [
    ("loki.listen", "/otlp/v1/logs", 204),
    ("otlp.http", "/v1/logs", 200),
];

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(any_value::Value::StringValue(value.into())),
    })
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: text(value),
    }
}

pub fn export(service: &str, lines: &[(i64, &str)]) -> ExportLogsServiceRequest {
    let log_records = lines.iter().map(|(at, line)| LogRecord {
        time_unix_nano: *at as u64,
        body: text(line),
        attributes: vec![pair("http.method", "GET")],
        ..LogRecord::default()
    });
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![pair("service.name", service), pair("host.name", "vm1")],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: log_records.collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

#[track_caller]
fn lines(appliance: &Appliance, service: &str) -> Vec<String> {
    let query = format!(r#"{{service_name="{service}"}} | host_name="vm1" | http_method="GET""#);
    let lines = appliance.lines(&query);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The message of a `google.rpc.Status`.
#[track_caller]
fn status_message(answer: &Answer) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RpcStatus {
        #[prost(string, tag = "2")]
        message: String,
    }
    RpcStatus::decode(&answer.body[..])
        .expect("a status")
        .message
}

#[test]
fn every_encoding_is_taken_at_both_http_doors() {
    let appliance = Setup::default().start();
    let at = now();
    for (n, (key, path, status)) in DOORS.into_iter().enumerate() {
        let service = format!("s{n}");
        let body = |line: &str| export(&service, &[(at, line)]).encode_to_vec();
        let zstd = zstd::stream::encode_all(&body("zstd")[..], 1).expect("into memory");
        for (coding, body) in [
            ("identity", body("plain")),
            ("gzip", gzip(&body("gzip"))),
            ("zstd", zstd),
        ] {
            let headers = [PROTO, ("Content-Encoding", coding)];
            let answer = appliance.post(key, path, &headers, &body);
            assert_eq!(
                (answer.status, answer.text()),
                (status, String::new()),
                "{coding}"
            );
        }
        let record = json!({ "timeUnixNano": at.to_string(), "body": { "stringValue": "json" },
            "attributes": [{ "key": "http.method", "value": { "stringValue": "GET" } }] });
        let json = json!({ "resourceLogs": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": service } },
                { "key": "host.name", "value": { "stringValue": "vm1" } },
            ] },
            "scopeLogs": [{ "logRecords": [record] }],
        }]});
        let answer = appliance.post(key, path, &[JSON], json.to_string().as_bytes());
        assert_eq!(answer.status, status);
        if status == 200 {
            assert_eq!(answer.json(), json!({ "partialSuccess": {} }));
        }
        assert_eq!(
            lines(&appliance, &service),
            ["plain", "gzip", "zstd", "json"]
        );
    }
    for transport in ["loki_http", "otlp_http"] {
        let labels = [("transport", transport)];
        assert_eq!(appliance.metric("otlp_log_messages_accepted", &labels), 4.0);
    }
    assert_eq!(appliance.metric("ingest_lines", &[]), 8.0);
}

#[test]
fn what_is_refused_is_told_as_each_door_does_it() {
    let appliance = Setup::default().start();
    let at = now();
    let mixed = export("mixed", &[(at, "good"), (1, "old")]).encode_to_vec();
    let answer = appliance.post("loki.listen", "/otlp/v1/logs", &[PROTO], &mixed);
    assert_eq!(answer.status, 400);
    assert!(
        status_message(&answer).contains("too old"),
        "{}",
        answer.text()
    );
    let answer = appliance.post("otlp.http", "/v1/logs", &[PROTO], &mixed);
    let response = ExportLogsServiceResponse::decode(&answer.body[..]).expect("a response");
    let partial = response.partial_success.expect("one is refused");
    assert_eq!((answer.status, partial.rejected_log_records), (200, 1));
    assert!(partial.error_message.contains("too old"));
    assert_eq!(lines(&appliance, "mixed"), ["good"]);
    let reason = [("reason", "greater_than_max_sample_age")];
    assert_eq!(appliance.metric("ingest_refused_lines", &reason), 2.0);

    // Nothing in it: an error to Loki, none to OTLP.
    assert_eq!(
        appliance
            .post("loki.listen", "/otlp/v1/logs", &[PROTO], b"")
            .status,
        422
    );
    assert_eq!(
        appliance
            .post("otlp.http", "/v1/logs", &[PROTO], b"")
            .status,
        200
    );
    for (key, path, _) in DOORS {
        let post =
            |headers: &[(&str, &str)], body: &[u8]| appliance.post(key, path, headers, body).status;
        assert_eq!(post(&[PROTO], b"\xff"), 400);
        assert_eq!(post(&[JSON], b"{"), 400);
        assert_eq!(post(&[("Content-Type", "text/plain")], b"x"), 415);
        assert_eq!(post(&[PROTO, ("Content-Encoding", "br")], b"x"), 415);
        assert_eq!(post(&[PROTO, ("Content-Encoding", "gzip")], b"x"), 400);
        let bomb = gzip(&vec![0; 70 << 20]);
        assert_eq!(post(&[PROTO, ("Content-Encoding", "gzip")], &bomb), 413);
        assert_eq!(appliance.get(key, path).status, 405);
    }
    let malformed = [("reason", "malformed")];
    assert_eq!(
        appliance.metric("otlp_log_messages_refused", &malformed),
        6.0
    );
    let answer = appliance.post("otlp.http", "/v1/logs", &[JSON], b"{");
    assert_eq!(answer.json()["code"], 3);
}

#[test]
fn grpc_takes_logs_and_says_what_it_refused() {
    let appliance = Setup::default().start();
    let address = appliance.address("otlp.grpc").expect("listening");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let at = now();
    let call = |request: ExportLogsServiceRequest| {
        runtime.block_on(async {
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
                .expect("an address")
                .connect()
                .await
                .expect("connects");
            let mut client = tonic::client::Grpc::new(channel)
                .send_compressed(tonic::codec::CompressionEncoding::Gzip);
            client.ready().await.expect("ready");
            let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
            let codec: tonic_prost::ProstCodec<
                ExportLogsServiceRequest,
                ExportLogsServiceResponse,
            > = tonic_prost::ProstCodec::default();
            let path = path.parse().expect("a path");
            let answer = client
                .unary(tonic::Request::new(request), path, codec)
                .await;
            answer.map(|answer| answer.into_inner().partial_success)
        })
    };
    let good = call(export("g", &[(at, "one"), (at + 1, "two")]));
    assert_eq!(good.expect("taken"), None);
    let partial = call(export("g", &[(at + 2, "three"), (1, "old")])).expect("taken");
    let ExportLogsPartialSuccess {
        rejected_log_records: 1,
        error_message,
    } = partial.expect("one is refused")
    else {
        panic!("one is refused")
    };
    assert!(error_message.contains("too old"));
    assert_eq!(
        call(ExportLogsServiceRequest::default()).expect("taken"),
        None
    );
    assert_eq!(lines(&appliance, "g"), ["one", "two", "three"]);
}

/// Bodies are journaled as they came, but for those of which a clock or a setting is part.
#[test]
fn after_a_crash_lines_and_metadata_are_as_they_were() {
    for setup in [
        Setup::default(),
        Setup::default().set(
            "loki.otlp_resource_labels",
            r#"["service.name", "host.name"]"#,
        ),
    ] {
        let mut appliance = setup.start();
        let at = now();
        let send = |appliance: &Appliance, request: ExportLogsServiceRequest| {
            let headers = [PROTO, ("Content-Encoding", "gzip")];
            let body = gzip(&request.encode_to_vec());
            let answer = appliance.post("otlp.http", "/v1/logs", &headers, &body);
            assert_eq!(answer.status, 200);
        };
        send(
            &appliance,
            export("c", &[(at, "timed"), (at + 1, "second")]),
        );
        send(&appliance, export("c", &[(0, "without a time")]));
        let mut nameless = export("c", &[(at, "nameless")]);
        nameless.resource_logs[0].resource = None;
        send(&appliance, nameless);
        let query = format!(
            "/loki/api/v1/query_range?query={}&limit=100&direction=forward",
            encoded(r#"{service_name=~".+"}"#)
        );
        let headers = [("X-Loki-Response-Encoding-Flags", "categorize-labels")];
        let ask = |appliance: &Appliance| -> Value {
            let url = appliance.url("loki.listen", &query);
            let agent = crate::appliance::agent();
            let answer = crate::appliance::request(&agent, "GET", &url, &headers, b"");
            answer.expect("an answer").json()["data"]["result"].take()
        };
        let before = ask(&appliance);
        assert_eq!(before.as_array().expect("streams").len(), 2, "{before}");
        assert!(before.to_string().contains("unknown_service"), "{before}");
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        assert_eq!(ask(&appliance), before);
    }
}

#[test]
fn tenants_are_kept_apart_at_all_doors() {
    let appliance = Setup::default().set("loki.tenancy", true).start();
    for (key, path, status) in DOORS {
        let body = export("t", &[(now(), "x")]).encode_to_vec();
        assert_eq!(appliance.post(key, path, &[PROTO], &body).status, 401);
        let headers = [PROTO, ("X-Scope-OrgID", "one")];
        assert_eq!(appliance.post(key, path, &headers, &body).status, status);
    }
}
