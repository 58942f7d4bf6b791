//! What is computed from spans: who calls whom, and the figures of the Monitor page.

use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, now};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

/// A span of an OTLP export.
#[derive(Clone)]
struct Sent {
    service: &'static str,
    name: &'static str,
    trace: u128,
    span: u64,
    parent: u64,
    /// 2: server, 3: client.
    kind: u8,
    start: i64,
    milliseconds: i64,
    failed: bool,
}

impl Sent {
    fn server(service: &'static str, trace: u128, span: u64, parent: u64, start: i64) -> Self {
        Self {
            service,
            name: "GET /",
            trace,
            span,
            parent,
            kind: 2,
            start,
            milliseconds: 10,
            failed: false,
        }
    }
}

#[track_caller]
fn send(appliance: &Appliance, spans: &[Sent]) {
    let resource = |sent: &Sent| {
        let parent = match sent.parent {
            0 => String::new(),
            parent => format!("{parent:016x}"),
        };
        json!({
            "resource": {
                "attributes": [{ "key": "service.name", "value": { "stringValue": sent.service } }]
            },
            "scopeSpans": [{ "spans": [{
                "traceId": format!("{:032x}", sent.trace),
                "spanId": format!("{:016x}", sent.span),
                "parentSpanId": parent,
                "name": sent.name,
                "kind": sent.kind,
                "startTimeUnixNano": sent.start.to_string(),
                "endTimeUnixNano": (sent.start + sent.milliseconds * 1_000_000).to_string(),
                "status": if sent.failed { json!({ "code": 2 }) } else { json!({}) },
            }] }],
        })
    };
    let body = json!({ "resourceSpans": spans.iter().map(resource).collect::<Vec<_>>() });
    let headers = [("Content-Type", "application/json")];
    let answer = appliance.post(
        "otlp.http",
        "/v1/traces",
        &headers,
        body.to_string().as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[track_caller]
fn zipkin(appliance: &Appliance, spans: &Value) {
    let headers = [("Content-Type", "application/json")];
    let body = spans.to_string();
    let answer = appliance.post("zipkin.listen", "/api/v2/spans", &headers, body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// `parent child calls` of the last day, or as the parameters say.
#[track_caller]
fn dependencies(appliance: &Appliance, parameters: &str) -> Vec<String> {
    let path = format!("/api/dependencies?{parameters}");
    let answer = appliance.get("jaeger.query.http", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["total"], &answer["errors"]),
        (&json!(0), &Value::Null)
    );
    let links = answer["data"].as_array().expect("links").iter();
    links
        .map(|link| {
            let text = |key: &str| link[key].as_str().expect("a name").to_owned();
            format!("{} {} {}", text("parent"), text("child"), link["callCount"])
        })
        .collect()
}

/// Values of the last point of each series, by labels.
#[track_caller]
fn metrics(appliance: &Appliance, path: &str) -> Vec<(String, f64)> {
    let answer = appliance.get("jaeger.query.http", &format!("/api/metrics/{path}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let series = answer["metrics"].as_array().expect("series").iter();
    series
        .map(|one| {
            let labels = one["labels"].as_array().expect("labels").iter();
            let labels: Vec<&str> = labels.map(|l| l["value"].as_str().expect("text")).collect();
            let last = one["metricPoints"].as_array().expect("points").last();
            let value = &last.expect("a point")["gaugeValue"]["doubleValue"];
            (labels.join(" "), value.as_f64().expect("a number"))
        })
        .collect()
}

/// Ten calls of `web`, of which `api` is called by four and fails in one; `api` is heard of
/// first in half of them.
fn calls(trace: u128, start: i64) -> Vec<Sent> {
    let mut spans = Vec::new();
    for n in 0..10 {
        let trace = trace + n;
        let web = Sent::server("web", trace, 1, 0, start);
        let api = Sent {
            kind: 2,
            name: "load",
            milliseconds: 100,
            failed: n == 0,
            ..Sent::server("api", trace, 3, 2, start + 1_000_000)
        };
        let client = Sent {
            kind: 3,
            ..Sent::server("web", trace, 2, 1, start)
        };
        match n {
            0 | 1 => spans.extend([api, client, web]),
            2 | 3 => spans.extend([web, client, api]),
            _ => spans.push(web),
        }
    }
    spans
}

#[track_caller]
fn check_calls(appliance: &Appliance, end: i64, times: f64) {
    let links = dependencies(appliance, "");
    assert_eq!(links, [format!("web api {}", 4.0 * times)]);
    assert_eq!(dependencies(appliance, "service=api"), links);
    assert_eq!(dependencies(appliance, "service=db"), [""; 0]);
    // Nothing began in the hour before.
    let before = format!(
        "endTs={}&lookback=3000000",
        (end - 2 * 60 * MINUTE) / 1_000_000
    );
    assert_eq!(dependencies(appliance, &before), [""; 0]);

    let at = format!(
        "endTs={}&lookback=600000&step=60000&ratePer=600000",
        end / 1_000_000
    );
    let of = |what: &str, more: &str| metrics(appliance, &format!("{what}?{at}&{more}"));
    let rate = 10.0 * times / 600.0;
    assert_eq!(of("calls", "service=web"), [("web".to_owned(), rate)]);
    let both = of("calls", "service=web&service=api&groupByOperation=true");
    assert_eq!(both[0], ("load api".to_owned(), 4.0 * times / 600.0));
    assert_eq!(both[1], ("GET / web".to_owned(), rate));
    assert_eq!(
        of("calls", "service=web&spanKind=client"),
        [("web".to_owned(), 4.0 * times / 600.0)]
    );
    assert_eq!(of("calls", "service=nobody"), []);
    assert_eq!(of("errors", "service=web"), [("web".to_owned(), 0.0)]);
    assert_eq!(of("errors", "service=api"), [("api".to_owned(), 0.25)]);
    for (service, milliseconds) in [("web", 10.0), ("api", 100.0)] {
        let found = of("latencies", &format!("service={service}&quantile=0.95"));
        assert_eq!(found.len(), 1);
        let off: f64 = found[0].1 / milliseconds - 1.0;
        assert!(off.abs() < 0.125, "{found:?}");
    }
}

#[test]
fn figures_are_there_at_once_and_stay() {
    let mut appliance = Setup::default()
        .env("FAILPOINTS", "link-at-once=return")
        .start();
    let end = now();
    let start = end - MINUTE;
    send(&appliance, &calls(1 << 90, start));
    check_calls(&appliance, end, 1.0);
    // A sender that tries again is recognised.
    send(&appliance, &calls(1 << 90, start));
    check_calls(&appliance, end, 1.0);
    appliance.flush();
    check_calls(&appliance, end, 1.0);
    send(&appliance, &calls(2 << 90, start));
    check_calls(&appliance, end, 2.0);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    check_calls(&appliance, end, 2.0);
    // Until it is linked and stored.
    appliance.flush();
    appliance.wait("linking", || {
        (appliance.metric("dependency_bytes", &[]) > 0.0).then_some(())
    });
    check_calls(&appliance, end, 2.0);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    check_calls(&appliance, end, 2.0);
    appliance.wait("the linker's memory in the budget", || {
        let booked = appliance.metric("memory_used_bytes", &[("account", "links")]);
        (booked > 0.0).then_some(())
    });
}

#[test]
fn late_parents_and_repeated_children_are_linked_over_kills() {
    let mut appliance = Setup::default()
        .env("FAILPOINTS", "link-at-once=return")
        .start();
    let start = now() - MINUTE;
    let mut expected = 0;
    for round in 0..6u128 {
        let trace = (round + 1) << 80;
        let children: Vec<Sent> = (0..5)
            .map(|n| Sent::server("api", trace, 10 + n, 1, start))
            .collect();
        send(&appliance, &children);
        if round % 2 == 0 {
            appliance.flush();
        }
        if round % 3 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(700));
        }
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        if round > 0 {
            // The parent of the round before.
            send(&appliance, &[Sent::server("web", round << 80, 1, 0, start)]);
            expected += 5;
        }
        // Again, while they are among the newest.
        send(&appliance, &children);
        let links = dependencies(&appliance, "");
        let wanted: &[String] = &[format!("web api {expected}")];
        assert_eq!(
            links,
            if expected > 0 { wanted } else { &[] },
            "round {round}"
        );
    }
    appliance.flush();
    assert_eq!(
        dependencies(&appliance, ""),
        [format!("web api {expected}")]
    );
}

#[test]
fn ids_of_64_bits_and_shared_ones_are_linked_whatever_door_they_come_through() {
    let appliance = Setup::default().start();
    let start = now() - MINUTE;
    let micros = start / 1000;
    let span = |service: &str, id: &str, parent: &str, kind: &str, shared: bool| {
        let mut span = json!({
            "traceId": "00000000000000a7",
            "id": id,
            "name": "call",
            "kind": kind,
            "timestamp": micros,
            "duration": 1000,
            "localEndpoint": { "serviceName": service },
        });
        if !parent.is_empty() {
            span["parentId"] = json!(parent);
        }
        if shared {
            span["shared"] = json!(true);
        }
        span
    };
    let (one, two) = ("0000000000000001", "0000000000000002");
    zipkin(
        &appliance,
        &json!([
            span("front", one, "", "SERVER", false),
            span("front", two, one, "CLIENT", false),
        ]),
    );
    zipkin(&appliance, &json!([span("back", two, one, "SERVER", true)]));
    // The same trace, its id written with 128 bits.
    send(&appliance, &[Sent::server("db", 0xa7, 3, 2, start)]);
    let expected = ["back db 1", "front back 1"];
    assert_eq!(dependencies(&appliance, ""), expected);
    appliance.flush();
    assert_eq!(dependencies(&appliance, ""), expected);
}

#[test]
fn bad_parameters_are_errors() {
    let appliance = Setup::default().start();
    for path in [
        "dependencies?endTs=x",
        "dependencies?lookback=1h",
        "dependencies?lookback=-1",
        "metrics/calls",
        "metrics/latencies?service=a",
        "metrics/calls?service=a&step=0",
        "metrics/calls?service=a&lookback=9000000000000&step=1",
        "metrics/calls?service=a&spanKind=foo",
    ] {
        let answer = appliance.get("jaeger.query.http", &format!("/api/{path}"));
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(answer.json()["errors"][0]["code"], 400);
    }
    for path in [
        "dependencies?endTs=9223372036854775807&lookback=9223372036854775807",
        "dependencies?endTs=-9223372036854775808&lookback=9223372036854775807",
        "metrics/calls?service=a&endTs=9223372036854775807&lookback=0&ratePer=9223372036854775807",
        "metrics/calls?service=a&lookback=9223372036854775807&step=9223372036854775807",
    ] {
        let answer = appliance.get("jaeger.query.http", &format!("/api/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let step = appliance.get("jaeger.query.http", "/api/metrics/minstep");
    assert_eq!(step.json()["data"], 10_000);
}
