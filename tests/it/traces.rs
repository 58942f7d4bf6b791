//! What real senders sent, through the doors they sent it to, compared with what an
//! independent decoder read in it.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::appliance::{Appliance, Setup};

/// One payload and what it is.
pub struct Captured {
    pub name: &'static str,
    body: Vec<u8>,
    about: Value,
}

const THRIFT: [&str; 6] = [
    "go-http",
    "go-traefik64",
    "go-types",
    "node-http",
    "node-udp",
    "py-udp",
];
const OTLP: [&str; 2] = ["pyotlp-plain", "nodeotel-otlp-json"];
const ZIPKIN: [&str; 4] = [
    "nodeotel-zipkin",
    "pyzipkin-v1-json",
    "pyzipkin-v2-json",
    "zipkin-v1-thrift",
];

/// Everything that was captured.
pub fn all_captured() -> Vec<Captured> {
    let names = THRIFT.iter().chain(&OTLP).chain(&ZIPKIN);
    names.map(|name| captured(name)).collect()
}

fn captured(name: &'static str) -> Captured {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jaeger/captured");
    let body = std::fs::read(dir.join(format!("{name}.bin"))).expect("a payload");
    let about = std::fs::read(dir.join(format!("{name}.json"))).expect("its description");
    Captured {
        name,
        body,
        about: serde_json::from_slice(&about).expect("JSON"),
    }
}

/// Sends it where it was sent.
pub fn send(appliance: &Appliance, captured: &Captured) {
    let to = &captured.about["sendTo"];
    let port = to["port"].as_u64().expect("a port");
    let key = match port {
        6831 => "jaeger.agent.compact",
        6832 => "jaeger.agent.binary",
        14268 => "jaeger.collector.http",
        4318 => "otlp.http",
        9411 => "zipkin.listen",
        port => panic!("no door on {port}"),
    };
    if to["transport"] == "udp" {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = appliance.address(key).expect("listening");
        socket.send_to(&captured.body, address).expect("sent");
        return;
    }
    let headers: Vec<(&str, &str)> = to["headers"]
        .as_object()
        .expect("headers")
        .iter()
        .filter(|(name, _)| *name != "Transfer-Encoding")
        .map(|(name, value)| (&**name, value.as_str().expect("text")))
        .collect();
    let path = to["path"].as_str().expect("a path");
    let answer = appliance.post(key, path, &headers, &captured.body);
    assert!(
        answer.status < 300,
        "{}: {} {}",
        captured.name,
        answer.status,
        answer.text()
    );
}

/// A tag as `key type value`, whichever JSON it stood in.
fn tag(tag: &Value) -> String {
    let (mut kind, value) = (tag["type"].as_str().expect("a type"), &tag["value"]);
    let text = match kind {
        "int64" => value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
        "float64" => value.as_f64().expect("a number").to_string(),
        "bool" => value.as_bool().expect("a bool").to_string(),
        _ => {
            if let Some(base64) = value["base64"].as_str() {
                base64.to_owned()
            } else if let Some(hex) = value["invalidUtf8Hex"].as_str() {
                // Kept as bytes, since text it is not.
                kind = "binary";
                let bytes: Vec<u8> = (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
                    .collect();
                STANDARD.encode(bytes)
            } else {
                value.as_str().expect("text").to_owned()
            }
        }
    };
    format!("{} {kind} {text:?}", tag["key"].as_str().expect("a key"))
}

/// Sorted, without what says how a span reached us.
pub fn tags(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let mut tags: Vec<String> = list
        .iter()
        .map(tag)
        .filter(|t| !t.starts_with("internal.span.format "))
        .collect();
    tags.sort();
    tags
}

pub fn logs(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let mut logs: Vec<String> = list
        .iter()
        .map(|log| format!("{} {:?}", log["timestamp"], tags(&log["fields"])))
        .collect();
    logs.sort();
    logs
}

/// All that is compared of a span, as text that reads well in a failure.
fn describe(
    span: &Value,
    process: &Value,
    references: Vec<String>,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("operation", span["operationName"].to_string()),
        ("start", span["startTime"].to_string()),
        ("duration", span["duration"].to_string()),
        ("tags", format!("{:#?}", tags(&span["tags"]))),
        ("logs", format!("{:#?}", logs(&span["logs"]))),
        ("references", format!("{references:?}")),
        ("service", process["serviceName"].to_string()),
        ("process", format!("{:#?}", tags(&process["tags"]))),
    ])
}

pub fn references(span: &Value) -> Vec<String> {
    let list = span["references"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |r: &Value, key: &str| r[key].as_str().expect("text").to_owned();
    let padded = |id: String| format!("{id:0>32}");
    list.iter()
        .map(|r| {
            let (kind, trace) = (text(r, "refType"), padded(text(r, "traceID")));
            format!("{kind} {trace} {}", text(r, "spanID"))
        })
        .collect()
}

fn fetch(appliance: &Appliance, trace: &str, spans: usize) -> Value {
    appliance.wait(trace, || {
        let answer = appliance.get("jaeger.query.http", &format!("/api/traces/{trace}"));
        (answer.status == 200).then(|| answer.json()).filter(|a| {
            a["data"][0]["spans"]
                .as_array()
                .is_some_and(|s| s.len() >= spans)
        })
    })
}

fn check_thrift(appliance: &Appliance, captured: &Captured) {
    let decoded = &captured.about["decoded"];
    let mut by_trace: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for span in decoded["spans"].as_array().expect("spans") {
        by_trace
            .entry(span["traceID"].as_str().expect("an id"))
            .or_default()
            .push(span);
    }
    for (trace, spans) in by_trace {
        let answer = fetch(appliance, trace, spans.len());
        let data = &answer["data"][0];
        let found = data["spans"].as_array().expect("spans");
        assert_eq!(found.len(), spans.len(), "{} {trace}", captured.name);
        for wanted in spans {
            let id = wanted["spanID"].as_str().expect("an id");
            let found = found.iter().find(|s| s["spanID"] == id);
            let found = found.unwrap_or_else(|| panic!("{} {trace}: no span {id}", captured.name));
            let process = &data["processes"][found["processID"].as_str().expect("an id")];
            let mut wanted_references = references(wanted);
            // A parent that no reference names is one all the same, and comes first.
            if let Some(parent) = wanted["parentSpanID"].as_str()
                && !wanted_references.iter().any(|r| r.ends_with(parent))
            {
                wanted_references.insert(0, format!("CHILD_OF {trace:0>32} {parent}"));
            }
            let found = describe(found, process, references(found));
            let wanted = describe(wanted, &decoded["process"], wanted_references);
            for (part, wanted) in wanted {
                assert_eq!(found[part], wanted, "{} span {id}: {part}", captured.name);
            }
        }
    }
}

/// An id of OTLP: hex in JSON, base64 where it is a rendering of protobuf.
fn hex_id(id: &Value, bytes: usize) -> String {
    let id = id.as_str().expect("an id");
    if id.len() == 2 * bytes {
        return id.to_owned();
    }
    STANDARD
        .decode(id)
        .expect("base64")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn number(value: &Value) -> i64 {
    let parsed = value.as_str().map(|t| t.parse().expect("a number"));
    parsed.unwrap_or_else(|| value.as_i64().expect("a number"))
}

/// What must be found among the tags of Jaeger for attributes of OTLP.
fn attributes(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|a| {
            let (key, value) = (a["key"].as_str().expect("a key"), &a["value"]);
            let (kind, text) = if let Some(text) = value["stringValue"].as_str() {
                ("string", text.to_owned())
            } else if !value["intValue"].is_null() {
                ("int64", number(&value["intValue"]).to_string())
            } else if let Some(double) = value["doubleValue"].as_f64() {
                ("float64", double.to_string())
            } else if let Some(bool) = value["boolValue"].as_bool() {
                ("bool", bool.to_string())
            } else {
                let items = value["arrayValue"]["values"].as_array().expect("an array");
                let items: Vec<&str> = items
                    .iter()
                    .map(|i| i["stringValue"].as_str().expect("text"))
                    .collect();
                ("string", serde_json::to_string(&items).expect("JSON"))
            };
            format!("{key} {kind} {text:?}")
        })
        .collect()
}

fn check_otlp(appliance: &Appliance, captured: &Captured) {
    let resource = &captured.about["decoded"]["resourceSpans"][0];
    let scope = &resource["scopeSpans"][0];
    let spans = scope["spans"].as_array().expect("spans");
    for wanted in spans {
        let trace = hex_id(&wanted["traceId"], 16);
        let id = hex_id(&wanted["spanId"], 8);
        let answer = fetch(appliance, &trace, spans.len());
        let data = &answer["data"][0];
        let found = data["spans"]
            .as_array()
            .expect("spans")
            .iter()
            .find(|s| s["spanID"] == *id);
        let found = found.unwrap_or_else(|| panic!("{}: no span {id}", captured.name));
        let what = format!("{} span {id}", captured.name);
        assert_eq!(found["operationName"], wanted["name"], "{what}");
        let (start, end) = (
            number(&wanted["startTimeUnixNano"]),
            number(&wanted["endTimeUnixNano"]),
        );
        assert_eq!(found["startTime"], start / 1000, "{what}");
        assert_eq!(found["duration"], (end - start) / 1000, "{what}");
        let tags = tags(&found["tags"]);
        let mut must = attributes(&wanted["attributes"]);
        must.push(format!(
            "otel.scope.name string {:?}",
            scope["scope"]["name"].as_str().expect("text")
        ));
        match wanted["status"]["code"].as_str() {
            Some("STATUS_CODE_ERROR") => must.push("error bool \"true\"".into()),
            None if wanted["status"]["code"] == 2 => must.push("error bool \"true\"".into()),
            _ => {}
        }
        if let Some(message) = wanted["status"]["message"]
            .as_str()
            .filter(|m| !m.is_empty())
        {
            must.push(format!("otel.status_description string {message:?}"));
        }
        for tag in must {
            assert!(tags.contains(&tag), "{what}: {tag} is not among {tags:#?}");
        }
        let process = &data["processes"][found["processID"].as_str().expect("an id")];
        let wanted_service = resource["resource"]["attributes"]
            .as_array()
            .expect("attributes");
        let wanted_service = wanted_service
            .iter()
            .find(|a| a["key"] == "service.name")
            .expect("a service");
        assert_eq!(
            process["serviceName"], wanted_service["value"]["stringValue"],
            "{what}"
        );
        let process_tags = crate::traces::tags(&process["tags"]);
        for tag in attributes(&resource["resource"]["attributes"]) {
            if !tag.starts_with("service.name ") {
                assert!(
                    process_tags.contains(&tag),
                    "{what}: {tag} is not among {process_tags:#?}"
                );
            }
        }
        let events = wanted["events"].as_array().map_or(&[][..], Vec::as_slice);
        let logs = found["logs"].as_array().expect("logs");
        assert_eq!(logs.len(), events.len(), "{what}");
        for (event, log) in events.iter().zip(logs) {
            assert_eq!(
                log["timestamp"],
                number(&event["timeUnixNano"]) / 1000,
                "{what}"
            );
            let fields = crate::traces::tags(&log["fields"]);
            let mut must = attributes(&event["attributes"]);
            must.push(format!(
                "event string {:?}",
                event["name"].as_str().expect("text")
            ));
            for field in must {
                assert!(
                    fields.contains(&field),
                    "{what}: {field} is not among {fields:#?}"
                );
            }
        }
        let references = references(found);
        match wanted["parentSpanId"].as_str().filter(|p| !p.is_empty()) {
            None => assert!(
                !references.iter().any(|r| r.starts_with("CHILD_OF")),
                "{what}"
            ),
            Some(_) => {
                let parent = hex_id(&wanted["parentSpanId"], 8);
                let wanted = format!("CHILD_OF {trace} {parent}");
                assert_eq!(references.first(), Some(&wanted), "{what}");
            }
        }
    }
}

/// A peer as Jaeger's tags say it: addresses are stored as numbers and answered as text.
fn peer_tags(endpoint: &Value) -> Vec<String> {
    let mut tags = Vec::new();
    if let Some(name) = endpoint["serviceName"].as_str() {
        tags.push(format!("peer.service string {name:?}"));
    }
    if let Some(ip) = endpoint["ipv4"].as_str() {
        tags.push(format!("peer.ipv4 string {ip:?}"));
    }
    if let Some(port) = endpoint["port"].as_u64() {
        tags.push(format!("peer.port int64 \"{port}\""));
    }
    tags
}

/// A text that Zipkin's senders said of a span: an error that is not `true` or `false` is
/// a message.
fn zipkin_tag(key: &str, text: &str) -> Vec<String> {
    match (key, text) {
        ("error", "true" | "false") => vec![format!("error bool {text:?}")],
        ("error", _) => vec![
            "error bool \"true\"".to_owned(),
            format!("error.message string {text:?}"),
        ],
        _ => vec![format!("{key} string {text:?}")],
    }
}

/// What version 1 or 2 says of a span as JSON, in the words of [`describe`].
fn zipkin_wanted(span: &Value) -> BTreeMap<&'static str, String> {
    let empty = Vec::new();
    let list = |key: &str| span[key].as_array().unwrap_or(&empty).clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (mut tags, mut logs, mut service, mut ip) = (Vec::new(), Vec::new(), None, None);
    let mut kind = span["kind"].as_str().map(str::to_lowercase);
    let mut host = |endpoint: &Value| {
        if let Some(name) = endpoint["serviceName"]
            .as_str()
            .filter(|_| service.is_none())
        {
            service = Some(name.to_owned());
            ip = endpoint["ipv4"].as_str().map(str::to_owned);
        }
    };
    host(&span["localEndpoint"]);
    for annotation in list("annotations") {
        host(&annotation["endpoint"]);
        match annotation["value"].as_str().expect("text") {
            "cs" | "cr" => kind = Some("client".into()),
            "sr" | "ss" => kind = Some("server".into()),
            event => logs.push(format!(
                "{} {:?}",
                annotation["timestamp"],
                [format!("event string {event:?}")]
            )),
        }
    }
    for binary in list("binaryAnnotations") {
        if binary["key"] == "sa" {
            tags.extend(peer_tags(&binary["endpoint"]));
        } else {
            tags.extend(zipkin_tag(&text(&binary["key"]), &text(&binary["value"])));
        }
    }
    tags.extend(peer_tags(&span["remoteEndpoint"]));
    for (key, value) in span["tags"].as_object().into_iter().flatten() {
        tags.extend(zipkin_tag(key, &text(value)));
    }
    tags.extend(kind.map(|kind| format!("span.kind string {kind:?}")));
    tags.sort();
    let process = ip.map(|ip| format!("ip string {ip:?}"));
    let parent = span["parentId"].as_str();
    let trace = text(&span["traceId"]);
    let references: Vec<String> = parent
        .map(|parent| format!("CHILD_OF {trace} {parent}"))
        .into_iter()
        .collect();
    let service = service.unwrap_or_else(|| "unknown-service-name".into());
    BTreeMap::from([
        ("operation", span["name"].to_string()),
        ("start", span["timestamp"].to_string()),
        ("duration", span["duration"].to_string()),
        ("tags", format!("{tags:#?}")),
        ("logs", format!("{logs:#?}")),
        ("references", format!("{references:?}")),
        ("service", format!("{service:?}")),
        (
            "process",
            format!("{:#?}", process.into_iter().collect::<Vec<_>>()),
        ),
    ])
}

fn check_zipkin(appliance: &Appliance, captured: &Captured) {
    let Some(spans) = captured.about["decoded"].as_array() else {
        check_zipkin_conversion(appliance, captured);
        return;
    };
    for wanted in spans {
        let trace = wanted["traceId"].as_str().expect("an id");
        let answer = fetch(appliance, trace, spans.len());
        let data = &answer["data"][0];
        let found = data["spans"].as_array().expect("spans");
        assert_eq!(found.len(), spans.len(), "{} {trace}", captured.name);
        let found = found.iter().find(|s| s["spanID"] == wanted["id"]);
        let found = found.unwrap_or_else(|| panic!("{}: no {wanted}", captured.name));
        let process = &data["processes"][found["processID"].as_str().expect("an id")];
        let described = describe(found, process, references(found));
        for (part, wanted) in zipkin_wanted(wanted) {
            assert_eq!(described[part], wanted, "{} {found}: {part}", captured.name);
        }
    }
}

/// An address that is a number, as text.
fn dotted(number: &Value) -> String {
    let number = number.as_u64().and_then(|n| u32::try_from(n).ok());
    std::net::Ipv4Addr::from(number.expect("an address")).to_string()
}

/// The payload of which it is known what Jaeger's own rules make of it.
fn check_zipkin_conversion(appliance: &Appliance, captured: &Captured) {
    let mut found = Vec::new();
    for wanted in captured.about["expectAfterConversion"]
        .as_array()
        .expect("operations")
    {
        let operation = wanted["operationName"].as_str().expect("a name");
        let path = format!(
            "/api/traces?service=zk-front&start=0&end=1795365600000000&operation={}",
            operation.replace(' ', "%20")
        );
        let answer = appliance.wait(operation, || {
            let answer = appliance.get("jaeger.query.http", &path).json();
            (answer["data"][0]["spans"].is_array()).then_some(answer)
        });
        let data = &answer["data"][0];
        let spans: Vec<&Value> = data["spans"]
            .as_array()
            .expect("spans")
            .iter()
            .filter(|s| s["operationName"] == operation)
            .collect();
        let alone = vec![wanted.clone()];
        let parts = wanted["spans"].as_array().unwrap_or(&alone);
        assert_eq!(spans.len(), parts.len(), "{operation}: {spans:#?}");
        for part in parts {
            let kind = part["span.kind"].as_str();
            let span = spans.iter().find(|s| {
                let kind = kind.map(|kind| format!("span.kind string {kind:?}"));
                kind.is_none_or(|kind| tags(&s["tags"]).contains(&kind))
            });
            let span = span.unwrap_or_else(|| panic!("{operation}: no {kind:?} in {spans:#?}"));
            assert_eq!(span["duration"], part["duration"], "{operation}");
            if !part["startTime"].is_null() {
                assert_eq!(span["startTime"], part["startTime"], "{operation}");
            }
            let has = tags(&span["tags"]);
            for (key, value) in part["tags"].as_object().into_iter().flatten() {
                let tag = match value {
                    Value::String(text) => format!("{key} string {text:?}"),
                    Value::Bool(bool) => format!("{key} bool \"{bool}\""),
                    address if key == "peer.ipv4" => format!("{key} string {:?}", dotted(address)),
                    number => format!("{key} int64 \"{number}\""),
                };
                assert!(
                    has.contains(&tag),
                    "{operation}: {tag} is not among {has:#?}"
                );
            }
            let process = &data["processes"][span["processID"].as_str().expect("an id")];
            let wanted = &captured.about["process"];
            assert_eq!(process["serviceName"], wanted["serviceName"]);
            let ip = format!("ip string {:?}", dotted(&wanted["tags"]["ip"]));
            assert_eq!(tags(&process["tags"]), [ip]);
            found.push(operation);
        }
    }
    assert_eq!(found, ["both sides", "both sides", "neg"]);
}

#[test]
fn what_real_senders_sent_arrives_with_all_that_was_in_it() {
    let mut appliance = Setup::default().start();
    let (thrift, otlp) = (THRIFT.map(captured), OTLP.map(captured));
    let zipkin = ZIPKIN.map(captured);
    for captured in thrift.iter().chain(&otlp).chain(&zipkin) {
        send(&appliance, captured);
    }
    // From open heads, from blocks, and from blocks after a crash.
    for round in 0..3 {
        for captured in &thrift {
            check_thrift(&appliance, captured);
        }
        for captured in &otlp {
            check_otlp(&appliance, captured);
        }
        for captured in &zipkin {
            check_zipkin(&appliance, captured);
        }
        match round {
            0 => appliance.flush(),
            1 => {
                appliance.kill();
                appliance.start();
                appliance.wait_recovered();
            }
            _ => {}
        }
    }
    let services = appliance.get("jaeger.query.http", "/api/services").json();
    let services: Vec<&str> = services["data"]
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for service in [
        "node-svc",
        "otel-node",
        "py-otlp",
        "py-svc",
        "pyz-front",
        "svc-types",
        "traefik",
        "unknown-service-name",
        "zk-front",
    ] {
        assert!(
            services.contains(&service),
            "{service} is not among {services:?}"
        );
    }
}
