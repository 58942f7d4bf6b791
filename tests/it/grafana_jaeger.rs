//! The requests of Grafana's Jaeger data source, as its front end (7 to 11) and its back end
//! (from 12) write them, and the shapes they need in the answers.

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, Setup, encoded, now};
use crate::spans::{Door, Ref, TestSpan, Val, tags, text};

const JAEGER: &str = "jaeger.query.http";
const MICROSECOND: i64 = 1_000;

/// A service with all that a path could stumble over.
const SERVICE: &str = "shop/cart api+v1";
const OPERATION: &str = "GET /cart/{id}";

/// A request through a tracing service, and another one.
fn spans() -> Vec<TestSpan> {
    let start = now() / MICROSECOND * MICROSECOND - 60_000_000_000;
    let root = TestSpan {
        trace: 0xabc1,
        id: 1,
        service: SERVICE.into(),
        process: tags([("pod", text("cart-1"))]),
        operation: OPERATION.into(),
        kind: Some("server"),
        start,
        duration: 1_200_000_000,
        tags: tags([
            ("http.status_code", Val::Int(500)),
            ("error", Val::Bool(true)),
            ("user", text("a \"b\" c=d")),
        ]),
        logs: vec![(start + MICROSECOND, tags([("event", text("retry"))]))],
        ..TestSpan::default()
    };
    let child = TestSpan {
        id: 2,
        service: "db".into(),
        process: tags([]),
        operation: "SELECT".into(),
        kind: Some("client"),
        start: start + 5 * MICROSECOND,
        duration: 1_000_000,
        references: vec![(Ref::ChildOf, root.trace, root.id)],
        tags: tags([]),
        logs: Vec::new(),
        ..root.clone()
    };
    let other = TestSpan {
        trace: 0x11_0000_0000_0000_abc2,
        tags: tags([("http.status_code", Val::Int(200))]),
        duration: 3_000_000,
        start: start - 1_000_000_000,
        ..root.clone()
    };
    vec![root, child, other]
}

fn started() -> (Appliance, Vec<TestSpan>) {
    let appliance = Setup::default().start();
    let spans = spans();
    Door::Otlp.send(&appliance, &spans);
    (appliance, spans)
}

#[track_caller]
fn data(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert!(answer["errors"].is_null(), "{answer}");
    answer["data"].clone()
}

/// The form: which services, which operations.
#[test]
fn grafanas_form_gets_services_and_operations() {
    let empty = Setup::default().start();
    // Its health check takes any JSON of this form; an older one says that nothing is there.
    assert_eq!(data(&empty.get(JAEGER, "/api/services")), json!([]));

    let (appliance, _) = started();
    let services = data(&appliance.get(JAEGER, "/api/services"));
    assert_eq!(services, json!(["db", SERVICE]));
    for path in [
        // The front end escapes the name.
        format!("/api/services/{}/operations", encoded(SERVICE)),
        // The back end joins it into the path: its slash is one of the path, then.
        "/api/services/shop/cart%20api+v1/operations".replace('+', "%2B"),
    ] {
        assert_eq!(
            data(&appliance.get(JAEGER, &path)),
            json!([OPERATION]),
            "{path}"
        );
    }
    let none = appliance.get(JAEGER, "/api/services/nobody/operations");
    assert_eq!(data(&none), json!([]));
}

/// The search form. Tags are written as logfmt and sent as a JSON object of texts.
#[test]
fn grafanas_search_finds_traces() {
    let (appliance, spans) = started();
    let (from, to) = ((now() / 1_000) - 3_600_000_000, now() / 1_000 + 60_000_000);
    let service = encoded(SERVICE);
    let search = |more: &str| {
        let path =
            format!("/api/traces?service={service}{more}&start={from}&end={to}&lookback=custom");
        let found = data(&appliance.get(JAEGER, &path));
        let ids = found.as_array().expect("traces").iter();
        ids.map(|trace| trace["traceID"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    let (first, second) = ("000000000000abc1", "0000000000000011000000000000abc2");
    assert_eq!(search(""), [first, second]);
    assert_eq!(search("&limit=1"), [first]);
    assert_eq!(
        search(&format!("&operation={}", encoded(OPERATION))),
        [first, second]
    );
    assert_eq!(
        search("&operation=&tags=&minDuration=&maxDuration=&limit="),
        [first, second]
    );
    assert_eq!(search("&minDuration=1.2s&maxDuration=1h5m"), [first]);
    assert_eq!(search("&maxDuration=3ms"), [second]);
    for tags in [
        json!({ "http.status_code": "500", "error": "true" }),
        json!({ "user": "a \"b\" c=d", "pod": "cart-1", "event": "retry" }),
    ] {
        let tags = encoded(&tags.to_string());
        assert_eq!(search(&format!("&tags={tags}")), [first], "{tags}");
    }
    let tags = encoded(&json!({ "http.status_code": "404" }).to_string());
    assert!(search(&format!("&tags={tags}")).is_empty());

    // The table of results needs of each trace: the spans with processes, and their starts.
    let path = format!("/api/traces?service={service}&start={from}&end={to}&limit=20");
    let found = data(&appliance.get(JAEGER, &path));
    let trace = &found[0];
    let span = trace["spans"]
        .as_array()
        .expect("spans")
        .iter()
        .find(|span| span["operationName"] == OPERATION)
        .expect("the root");
    assert_eq!(span["startTime"], spans[0].start / MICROSECOND);
    assert_eq!(span["duration"], 1_200_000);
    let process = &trace["processes"][span["processID"].as_str().expect("an id")];
    assert_eq!(process["serviceName"], SERVICE);

    // What it shows of a search gone wrong.
    let wrong = appliance.get(
        JAEGER,
        &format!("/api/traces?service={service}&minDuration=5"),
    );
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.json()["errors"][0]["code"], 400);
}

/// The view of a trace. Times that come along are hints, and milliseconds in some versions.
#[test]
fn grafanas_trace_view_gets_the_whole_trace_or_404() {
    let (appliance, spans) = started();
    let milliseconds = spans[0].start / 1_000_000;
    let hints = [
        String::new(),
        format!(
            "?start={}&end={}",
            milliseconds - 1_000,
            milliseconds + 1_000
        ),
        format!(
            "?start={}&end={}",
            (milliseconds - 1_000) * 1_000,
            milliseconds * 1_000
        ),
        "?start=0&end=1".to_owned(),
    ];
    for round in 0..2 {
        for id in [
            "abc1",
            "000000000000abc1",
            "0000000000000000000000000000ABC1",
        ] {
            for hint in &hints {
                let path = format!("/api/traces/{id}{hint}");
                let found = data(&appliance.get(JAEGER, &path));
                assert_eq!(found.as_array().map(Vec::len), Some(1), "{path}");
                let trace = &found[0];
                assert_eq!(trace["traceID"], "000000000000abc1");
                assert_eq!(trace["spans"].as_array().map(Vec::len), Some(2), "{path}");
                check_shape(trace);
            }
        }
        for hint in &hints {
            // 200 with nothing in it makes its back end fail.
            let absent = appliance.get(JAEGER, &format!("/api/traces/abc9{hint}"));
            assert_eq!(absent.status, 404);
            assert_eq!(absent.json()["errors"][0]["code"], 404);
            assert!(absent.json()["errors"][0]["msg"].is_string());
        }
        if round == 0 {
            appliance.flush();
        }
    }
}

/// All that the view and its node graph read, of the types they read.
#[track_caller]
fn check_shape(trace: &Value) {
    let list = |value: &Value| value.as_array().expect("a list, never null").clone();
    for span in list(&trace["spans"]) {
        for key in ["traceID", "spanID", "operationName", "processID"] {
            assert!(span[key].is_string(), "{key}: {span}");
        }
        assert!(
            span["startTime"].is_u64() && span["duration"].is_u64(),
            "{span}"
        );
        assert!(
            span["warnings"].is_null() || span["warnings"].is_array(),
            "{span}"
        );
        for reference in list(&span["references"]) {
            assert_eq!(reference["refType"], "CHILD_OF");
            assert_eq!(reference["traceID"], trace["traceID"]);
            assert_eq!(reference["spanID"], "0000000000000001");
        }
        let logs = list(&span["logs"]);
        let fields = logs.iter().flat_map(|log| {
            assert!(log["timestamp"].is_u64(), "{log}");
            list(&log["fields"])
        });
        let process = &trace["processes"][span["processID"].as_str().expect("an id")];
        assert!(process["serviceName"].is_string(), "{process}");
        // Links to logs are made of the tags of spans and of processes.
        let tags = list(&span["tags"])
            .into_iter()
            .chain(list(&process["tags"]));
        for tag in tags.chain(fields) {
            assert!(tag["key"].is_string() && tag["type"].is_string(), "{tag}");
            assert!(!tag["value"].is_null(), "{tag}");
        }
    }
    let children = list(&trace["spans"])
        .iter()
        .filter(|s| s["references"] != json!([]))
        .count();
    assert_eq!(children, 1);
}
