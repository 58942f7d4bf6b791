//! What a store of traces has to find and to leave out, case by case, as Jaeger's own tests
//! of storage ask it: over each door, from open heads and from blocks.
//!
//! Every condition of a case has decoys, which are right but for that one: they must not come.
//! Not here: tags of scopes and of links (cases 24 and 25), which Jaeger's model before
//! version 2 does not have and Elasticsearch, Cassandra and Badger are excused from.

use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, encoded, today};
use crate::drilldown::rfc3339;
use crate::spans::{Door, Ref, Tags, TestSpan, Val, described, tags, text};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A search, and the traces that it has to find.
struct Case {
    number: u32,
    name: &'static str,
    operation: &'static str,
    tags: Vec<(&'static str, &'static str)>,
    /// Nanoseconds.
    min: Option<i64>,
    max: Option<i64>,
    window: (i64, i64),
    /// All of these must come, whole. The first one meets every condition.
    spans: Vec<TestSpan>,
}

impl Case {
    fn service(&self) -> &str {
        &self.spans[0].service
    }

    fn path(&self) -> String {
        let mut path = format!(
            "/api/traces?service={}&limit=1000&start={}&end={}",
            encoded(self.service()),
            self.window.0 / 1_000,
            self.window.1 / 1_000,
        );
        if !self.operation.is_empty() {
            path.push_str(&format!("&operation={}", encoded(self.operation)));
        }
        for (name, bound) in [("min", self.min), ("max", self.max)] {
            if let Some(bound) = bound {
                path.push_str(&format!("&{name}Duration={bound}ns"));
            }
        }
        if !self.tags.is_empty() {
            let tags: serde_json::Map<String, Value> = self
                .tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                .collect();
            let tags = Value::from(tags).to_string();
            path.push_str(&format!("&tags={}", encoded(&tags)));
        }
        path
    }

    /// Traces of the same service that each miss one condition.
    fn decoys(&self) -> Vec<TestSpan> {
        let right = &self.spans[0];
        let mut wrong: Vec<Vec<TestSpan>> = Vec::new();
        let mut one = |change: &dyn Fn(&mut TestSpan)| {
            let mut span = right.clone();
            change(&mut span);
            wrong.push(vec![span]);
        };
        one(&|span| span.start = self.window.0 - 1_000);
        one(&|span| span.start = self.window.1 + 1_000);
        if !self.operation.is_empty() {
            one(&|span| span.operation = format!("{}-2", self.operation));
            one(&|span| span.operation = self.operation.to_uppercase());
        }
        if let Some(min) = self.min {
            // Bounds count in whole microseconds, as spans do: 4.5 µs is 4 µs.
            one(&|span| span.duration = min / 1_000 * 1_000 - 1_000);
        }
        if let Some(max) = self.max {
            one(&|span| span.duration = max / 1_000 * 1_000 + 1_000);
        }
        for (key, _) in &self.tags {
            match *key {
                "otel.scope.name" => one(&|span| of_scope(span).0.push('2')),
                "otel.scope.version" => one(&|span| of_scope(span).1.push('2')),
                _ => one(&|span| of_key(span, key, |tag| tag.1 = text("otherwise"))),
            }
        }
        // The condition is met, but by another span of the trace.
        let mut split = |change: &dyn Fn(&mut TestSpan), meets: TestSpan| {
            let mut span = right.clone();
            change(&mut span);
            wrong.push(vec![
                span,
                TestSpan {
                    id: 0xbbb,
                    service: right.service.clone(),
                    start: right.start,
                    duration: 1_000_000,
                    ..meets
                },
            ]);
        };
        let conditions = self.tags.len() + usize::from(!self.operation.is_empty());
        if conditions + usize::from(self.max.is_some()) > 1 {
            for (key, _) in &self.tags {
                let mut tag = None;
                let mut of = right.clone();
                of_key(&mut of, key, |found| tag = Some(found.clone()));
                // A scope is not taken apart.
                let Some(tag) = tag else { continue };
                let meets = TestSpan {
                    operation: "elsewhere".into(),
                    tags: vec![tag],
                    ..TestSpan::default()
                };
                split(&|span| of_key(span, key, |tag| tag.0.push('2')), meets);
            }
            if !self.operation.is_empty() {
                let meets = TestSpan {
                    operation: self.operation.into(),
                    ..TestSpan::default()
                };
                split(&|span| span.operation = "elsewhere".into(), meets);
            }
        }
        for (index, spans) in (0x80..).zip(&mut wrong) {
            for span in spans {
                span.trace = u128::from(self.number) << 8 | index;
            }
        }
        wrong.concat()
    }

    #[track_caller]
    fn check(&self, appliance: &Appliance) {
        let answer = appliance.get("jaeger.query.http", &self.path());
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text());
        let mut found: Vec<(String, Vec<String>)> = answer.json()["data"]
            .as_array()
            .expect("traces")
            .iter()
            .map(|trace| {
                (
                    trace["traceID"].as_str().expect("an id").into(),
                    described(trace),
                )
            })
            .collect();
        found.sort();
        assert_eq!(
            found,
            traces(&self.spans),
            "case {}: {}",
            self.number,
            self.name
        );
    }
}

/// Changes the tags with this key, wherever they are.
fn of_key(span: &mut TestSpan, key: &str, change: impl FnMut(&mut (String, Val))) {
    let logs = span.logs.iter_mut().flat_map(|(_, fields)| fields);
    let tags = span.tags.iter_mut().chain(&mut span.process).chain(logs);
    tags.filter(|(k, _)| k == key).for_each(change);
}

fn of_scope(span: &mut TestSpan) -> &mut (String, String) {
    span.scope.as_mut().expect("a scope")
}

/// Spans by trace as answers have them.
fn traces(spans: &[TestSpan]) -> Vec<(String, Vec<String>)> {
    let mut traces: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for span in spans {
        let of = traces.entry(id(span.trace)).or_default();
        of.push(span.described());
    }
    traces.values_mut().for_each(|spans| spans.sort());
    traces.into_iter().collect()
}

fn id(trace: u128) -> String {
    match u64::try_from(trace) {
        Ok(low) => format!("{low:016x}"),
        Err(_) => format!("{trace:032x}"),
    }
}

/// Midnight before yesterday's noon.
fn yesterday() -> i64 {
    today() - DAY
}

/// When most spans of the cases begin: 16:46:31.639875 of yesterday.
fn usual() -> i64 {
    yesterday() + (16 * 3_600 + 46 * 60 + 31) * SECOND + 639_875_000
}

/// Four tags of four types, and what asks for them.
fn four() -> Tags {
    tags([
        ("place.text", text("at one place")),
        ("place.int", Val::Int(123)),
        ("place.float", Val::Float(72.5)),
        ("place.bool", Val::Bool(true)),
    ])
}

const FOUR: [(&str, &str); 4] = [
    ("place.text", "at one place"),
    ("place.int", "123"),
    ("place.float", "72.5"),
    ("place.bool", "true"),
];

/// A span of a case: 5 µs long, with two logs that say nothing.
fn span(number: u32) -> TestSpan {
    TestSpan {
        trace: u128::from(number) << 8 | 1,
        id: 0x10 + u64::from(number),
        service: format!("case-{number:02}"),
        operation: "placeholder".into(),
        start: usual(),
        duration: 5_000,
        logs: vec![(usual(), Tags::new()), (usual() + 2_000, Tags::new())],
        ..TestSpan::default()
    }
}

fn case(number: u32, name: &'static str, span: TestSpan) -> Case {
    Case {
        number,
        name,
        operation: "",
        tags: Vec::new(),
        min: None,
        max: None,
        window: (usual() - 3_600 * SECOND, usual() + 3_600 * SECOND),
        spans: vec![span],
    }
}

/// Tags at one place of a span.
fn in_span() -> impl Fn(&mut TestSpan) {
    |span| span.tags = four()
}

fn in_log() -> impl Fn(&mut TestSpan) {
    |span| span.logs[1].1 = four()
}

fn in_process() -> impl Fn(&mut TestSpan) {
    |span| span.process = four()
}

/// The tags at three places.
fn spread(span: &mut TestSpan) {
    let [text, int, float, bool] = <[_; 4]>::try_from(four()).expect("four");
    span.process = vec![text];
    span.logs[0].1 = vec![int];
    span.tags = vec![float, bool];
}

/// The tags at four places: two of them in logs that differ.
fn spread_wider(span: &mut TestSpan) {
    let [text, int, float, bool] = <[_; 4]>::try_from(four()).expect("four");
    span.logs[0].1 = vec![text];
    span.logs[1].1 = vec![int];
    span.process = vec![float];
    span.tags = vec![bool];
}

#[allow(clippy::too_many_lines)] // a table
fn cases() -> Vec<Case> {
    let with = |number: u32, change: &dyn Fn(&mut TestSpan)| {
        let mut span = span(number);
        change(&mut span);
        span
    };
    let mut cases = Vec::new();
    for (number, name, change) in [
        (1, "tags in the span", &in_span() as &dyn Fn(&mut TestSpan)),
        (2, "tags in a log", &in_log()),
        (3, "tags in the process", &in_process()),
        (4, "tags at different places", &spread),
    ] {
        cases.push(Case {
            tags: FOUR.into(),
            ..case(number, name, with(number, change))
        });
    }

    let after_midnight = yesterday() + 3 * 60 * SECOND + 31 * SECOND;
    let mut first = span(5);
    // A trace with a long id.
    first.trace |= 0xfeed_0000_0000_0000_0000_0000_0000_0000;
    first.start = after_midnight;
    let mut second = first.clone();
    second.id += 1;
    second.start -= 7 * 60 * SECOND;
    cases.push(Case {
        window: (after_midnight - 180 * SECOND, after_midnight + 240 * SECOND),
        spans: vec![first.clone(), second],
        ..case(5, "a trace over two days", first)
    });

    let named = |number: u32, operation: &'static str, duration: i64| {
        with(number, &|span| {
            span.operation = operation.into();
            span.duration = duration;
        })
    };
    cases.push(Case {
        operation: "operation-06",
        ..case(6, "operation", named(6, "operation-06", 5_000))
    });
    let mut shorter = named(7, "operation-07", 1_000);
    shorter.trace += 1;
    let longer = named(7, "operation-07", 2_000);
    cases.push(Case {
        operation: "operation-07",
        max: Some(2_000),
        spans: vec![longer.clone(), shorter],
        ..case(7, "operation and maximum", longer)
    });
    cases.push(Case {
        operation: "operation-08",
        min: Some(4_500),
        max: Some(5_500),
        ..case(8, "operation and range", named(8, "operation-08", 5_000))
    });
    cases.push(Case {
        min: Some(4_500),
        max: Some(5_500),
        ..case(9, "range of durations", span(9))
    });
    cases.push(Case {
        max: Some(1_000),
        ..case(10, "maximum", named(10, "any", 1_000))
    });
    cases.push(case(11, "service and window", span(11)));

    let referring = with(12, &|span| {
        span.operation = "operation-12".into();
        span.tags = four();
        span.tags
            .push(("blob".into(), Val::Bytes(vec![0, 0, 0x30, 0x39])));
        span.references = vec![
            (Ref::ChildOf, 0xff, 0xff),
            (Ref::ChildOf, 0x51, 2),
            (Ref::FollowsFrom, 0x51, 2),
        ];
    });
    cases.push(Case {
        operation: "operation-12",
        tags: FOUR.into(),
        ..case(12, "tags and operation, references", referring)
    });
    type Place = fn(&mut TestSpan);
    type Bounds = (Option<i64>, Option<i64>);
    let most: Bounds = (None, Some(5_000));
    let range: Bounds = (Some(4_500), Some(5_500));
    let none: Bounds = (None, None);
    let process: Place = |span| span.process = four();
    let log: Place = |span| span.logs[1].1 = four();
    let own: Place = |span| span.tags = four();
    for (number, name, operation, place, (min, max)) in [
        (
            13,
            "tags, operation, maximum",
            "operation-13",
            process,
            most,
        ),
        (14, "tags, operation, range", "operation-14", log, range),
        (15, "tags and range", "", own, range),
        (16, "tags and maximum", "", process, most),
        (17, "spread tags, operation", "operation-17", spread, none),
        (
            18,
            "spread tags, operation, maximum",
            "operation-18",
            spread_wider,
            most,
        ),
        (
            19,
            "spread tags, operation, range",
            "operation-19",
            spread,
            range,
        ),
        (20, "spread tags, range", "", spread_wider, range),
        (21, "spread tags, maximum", "", spread, most),
    ] {
        let span = with(number, &|span| {
            place(span);
            if !operation.is_empty() {
                span.operation = operation.into();
            }
        });
        cases.push(Case {
            operation,
            min,
            max,
            tags: FOUR.into(),
            ..case(number, name, span)
        });
    }

    let several = (0..3).map(|index| {
        let mut span = span(22);
        span.trace += index;
        span
    });
    cases.push(Case {
        spans: several.collect(),
        ..case(22, "several traces", span(22))
    });
    let scoped = with(23, &|span| {
        span.scope = Some(("a/scope".into(), "1.2.3".into()))
    });
    cases.push(Case {
        tags: vec![
            ("otel.scope.name", "a/scope"),
            ("otel.scope.version", "1.2.3"),
        ],
        ..case(23, "name and version of the scope", scoped)
    });

    // What Elasticsearch finds besides: values are regular expressions.
    let starred = with(31, &|span| {
        span.operation = "operation-31".into();
        span.duration = 1_000;
        span.tags = tags([("place.text", text("same*"))]);
    });
    cases.push(Case {
        operation: "operation-31",
        max: Some(1_000),
        tags: vec![("place.text", "same\\*")],
        ..case(31, "an escaped star", starred)
    });
    let wild = (1..3).map(|index: u32| {
        with(32, &|span| {
            span.trace += u128::from(index);
            span.operation = String::new();
            span.logs.clear();
            span.tags = tags([("place.text", text(&format!("same value {index}")))]);
        })
    });
    let wild: Vec<TestSpan> = wild.collect();
    cases.push(Case {
        tags: vec![("place.text", "same.*")],
        spans: wild.clone(),
        ..case(32, "a regular expression", wild[0].clone())
    });

    // Beyond that suite: how values are written, and keys that come twice.
    let typed = with(41, &|span| {
        span.tags = tags([
            ("integral", Val::Float(503.0)),
            ("large", Val::Float(1e21)),
            ("small", Val::Float(-2.5e-7)),
            ("least", Val::Int(i64::MIN)),
            ("no", Val::Bool(false)),
            ("bytes", Val::Bytes(vec![0x00, 0xff, 0x1a])),
            ("empty", text("")),
            ("a key with blanks", text("größer \"als\" {5}")),
            ("address", text("10.0.0.1")),
        ]);
    });
    cases.push(Case {
        tags: vec![
            ("integral", "503"),
            ("large", "1e+21"),
            ("small", "-2.5e-07"),
            ("least", "-9223372036854775808"),
            ("no", "false"),
            ("bytes", "00ff1a"),
            ("empty", ""),
            ("a key with blanks", "größer \"als\" {5}"),
            ("address", "10.0.0.1"),
        ],
        ..case(41, "how values are written", typed)
    });
    cases
}

/// Five spans of three services in one trace.
fn example() -> Vec<TestSpan> {
    [
        (3, 1, 1, None),
        (4, 2, 2, None),
        (5, 1, 3, None),
        (6, 3, 1, Some("server")),
        (7, 4, 1, Some("client")),
    ]
    .map(|(id, operation, service, kind)| TestSpan {
        trace: 0xa1100,
        id,
        service: format!("example-service-{service}"),
        operation: format!("example-operation-{operation}"),
        kind,
        start: usual(),
        duration: 100_000,
        ..span(0)
    })
    .into()
}

/// A trace larger than what Elasticsearch gives in one page.
fn large() -> Vec<TestSpan> {
    (0..10_008)
        .map(|index| TestSpan {
            trace: 0xa1200,
            id: index + 1,
            service: "large-service".into(),
            operation: format!("operation-{}", index % 7),
            start: usual() + index as i64 * 1_000,
            tags: tags([("seq", Val::Int(index as i64))]),
            logs: Vec::new(),
            ..span(0)
        })
        .collect()
}

/// 200 spans of which every 20th has the same id.
fn sharing_ids() -> Vec<TestSpan> {
    (0..200)
        .map(|index| TestSpan {
            trace: 0xa1300,
            id: if index % 20 == 0 { 0x999 } else { index + 1 },
            service: "sharing-service".into(),
            start: usual() + index as i64 * SECOND,
            logs: Vec::new(),
            ..span(0)
        })
        .collect()
}

/// Traces of one service, a minute apart.
fn in_a_row() -> Vec<TestSpan> {
    (0..6)
        .map(|index| TestSpan {
            trace: 0xa1400 + u128::from(index),
            id: 0x70 + index,
            service: "row-service".into(),
            start: usual() + index as i64 * 60 * SECOND,
            logs: Vec::new(),
            ..span(0)
        })
        .collect()
}

#[track_caller]
fn whole_trace(appliance: &Appliance, id: &str, spans: &[TestSpan]) {
    let answer = appliance.get("jaeger.query.http", &format!("/api/traces/{id}"));
    assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    let answer = answer.json();
    let data = answer["data"].as_array().expect("traces");
    assert_eq!(data.len(), 1, "{id}");
    let expected = traces(spans);
    assert_eq!(data[0]["traceID"], expected[0].0);
    let found = described(&data[0]);
    assert_eq!(found.len(), spans.len(), "{id}");
    for (found, wanted) in found.iter().zip(&expected[0].1) {
        assert_eq!(found, wanted, "{id}");
    }
}

#[track_caller]
fn services_and_operations(appliance: &Appliance, services: &[String]) {
    let answer = appliance.get("jaeger.query.http", "/api/services").json();
    let mut found: Vec<&str> = answer["data"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect();
    found.sort_unstable();
    assert_eq!(found, services);
    assert_eq!(answer["total"], services.len());

    let operations = |path: &str| {
        let answer = appliance.get("jaeger.query.http", path).json();
        let mut found: Vec<String> = answer["data"]
            .as_array()
            .expect("operations")
            .iter()
            .map(|it| match it.as_str() {
                Some(name) => name.to_owned(),
                None => format!(
                    "{} {:?}",
                    it["name"].as_str().expect("a name"),
                    it["spanKind"].as_str().expect("a kind")
                ),
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(
        operations("/api/operations?service=example-service-1"),
        [
            "example-operation-1 \"\"",
            "example-operation-3 \"server\"",
            "example-operation-4 \"client\"",
        ]
    );
    assert_eq!(
        operations("/api/operations?service=example-service-1&spanKind=server"),
        ["example-operation-3 \"server\""]
    );
    assert_eq!(
        operations("/api/services/example-service-1/operations"),
        [
            "example-operation-1",
            "example-operation-3",
            "example-operation-4"
        ]
    );
    assert_eq!(
        operations("/api/services/example-service-3/operations"),
        ["example-operation-1"]
    );
    assert!(operations("/api/services/nobody/operations").is_empty());
}

/// Newest first, as many as asked for, and the ends of the window belong to it.
#[track_caller]
fn limits_and_edges(appliance: &Appliance) {
    let spans = in_a_row();
    let found = |limit: usize, start: i64, end: i64| -> Vec<String> {
        let path = format!(
            "/api/traces?service=row-service&limit={limit}&start={}&end={}",
            start / 1_000,
            end / 1_000
        );
        let answer = appliance.get("jaeger.query.http", &path).json();
        let traces = answer["data"].as_array().expect("traces").iter();
        traces
            .map(|trace| trace["traceID"].as_str().expect("an id").to_owned())
            .collect()
    };
    let all: Vec<String> = spans.iter().rev().map(|span| id(span.trace)).collect();
    let (first, last) = (spans[0].start, spans[5].start);
    assert_eq!(found(100, first - SECOND, last + SECOND), all);
    assert_eq!(found(100, first, last), all);
    assert_eq!(found(2, first, last), all[..2]);
    assert_eq!(found(2, first, last - 1_000), all[1..3]);
    assert_eq!(found(100, first + 1_000, last), all[..5]);
}

/// Two services that call each other.
fn calls() -> Vec<TestSpan> {
    let call = |id: u64, parent: u64, service: &str| TestSpan {
        trace: 0xa1600,
        id,
        service: service.into(),
        operation: "call".into(),
        start: usual() + id as i64 * 1_000,
        references: match parent {
            0 => Vec::new(),
            parent => vec![(Ref::ChildOf, 0xa1600, parent)],
        },
        logs: Vec::new(),
        ..span(0)
    };
    vec![
        call(1, 0, "hello"),
        call(2, 1, "world"),
        call(3, 2, "hello"),
        call(4, 2, "hello"),
        call(5, 2, "hello"),
        // Within a service nobody calls another.
        call(6, 5, "hello"),
    ]
}

#[track_caller]
fn dependencies(appliance: &Appliance) {
    let asked = |end: i64, lookback: i64| {
        let path = format!(
            "/api/dependencies?endTs={}&lookback={}",
            end / 1_000_000,
            lookback / 1_000_000
        );
        let answer = appliance.get("jaeger.query.http", &path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let links = answer.json()["data"].as_array().expect("links").clone();
        let mut links: Vec<String> = links
            .iter()
            .map(|link| {
                let name = |key: &str| link[key].as_str().expect("a name").to_owned();
                format!("{} {} {}", name("parent"), name("child"), link["callCount"])
            })
            .collect();
        links.sort();
        links
    };
    let minutes = 60 * SECOND;
    assert_eq!(
        asked(usual() + 5 * minutes, 10 * minutes),
        ["hello world 1", "world hello 3"]
    );
    assert!(asked(usual() - 5 * minutes, 10 * minutes).is_empty());
}

#[track_caller]
fn summaries(appliance: &Appliance) {
    let path = format!(
        "/api/v3/trace-summaries?query.serviceName=world&query.startTimeMin={}&query.startTimeMax={}",
        encoded(&rfc3339(usual() - SECOND)),
        encoded(&rfc3339(usual() + SECOND)),
    );
    let answer = appliance.get("jaeger.query.http", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = calls();
    let (first, last) = (&spans[0], &spans[5]);
    assert_eq!(
        answer.json()["summaries"],
        json!([{
            "traceId": format!("{:032x}", first.trace),
            "rootServiceName": "hello",
            "rootOperationName": "call",
            "minStartTimeUnixNano": first.start.to_string(),
            "maxEndTimeUnixNano": (last.start + last.duration).to_string(),
            "spanCount": 6,
            "errorSpanCount": 0,
            "orphanSpanCount": 0,
            "services": [
                { "name": "hello", "spanCount": 5, "errorSpanCount": 0 },
                { "name": "world", "spanCount": 1, "errorSpanCount": 0 },
            ],
        }])
    );
}

fn holds_over(door: Door) {
    let appliance = Setup::default().start();
    let cases = cases();
    for case in &cases {
        door.send(&appliance, &case.spans);
        door.send(&appliance, &case.decoys());
    }
    let (example, large, sharing) = (example(), large(), sharing_ids());
    let (row, calls) = (in_a_row(), calls());
    for spans in [&example, &large, &sharing, &row, &calls] {
        door.send(&appliance, spans);
    }
    let spans = cases.iter().flat_map(|case| &case.spans);
    let spans = spans.chain(&example).chain(&large).chain(&sharing);
    let spans = spans.chain(&row).chain(&calls);
    let mut services: Vec<String> = spans.map(|s| s.service.clone()).collect();
    services.sort();
    services.dedup();
    for round in 0..2 {
        for case in &cases {
            case.check(&appliance);
        }
        services_and_operations(&appliance, &services);
        limits_and_edges(&appliance);
        dependencies(&appliance);
        summaries(&appliance);
        for id in ["a1100", "00000000000a1100", &format!("{:032x}", 0xa1100)] {
            whole_trace(&appliance, id, &example);
        }
        whole_trace(&appliance, "a1200", &large);
        whole_trace(&appliance, "a1300", &sharing);
        let absent = appliance.get("jaeger.query.http", "/api/traces/a1500");
        assert_eq!(absent.status, 404);
        assert_eq!(absent.json()["errors"][0]["msg"], "trace not found");
        if round == 0 {
            appliance.flush();
        }
    }
}

#[test]
fn storage_semantics_hold_over_otlp() {
    holds_over(Door::Otlp);
}

#[test]
fn storage_semantics_hold_over_grpc() {
    holds_over(Door::Grpc);
}

#[test]
fn storage_semantics_hold_over_udp() {
    holds_over(Door::Udp);
}
