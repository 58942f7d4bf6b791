use std::sync::Arc;

use super::*;
use crate::model::time::{HOUR, MINUTE, SECOND};
use crate::model::trace::{Process, SpanId, SpanLog, TraceId};

const AT: Timestamp = 1_485_449_191_639_875_000; // 2017-01-26T16:46:31.639875Z

fn tags(picked: &[usize]) -> Vec<Tag> {
    let all = [
        Tag::string("sameplacetag1", "sameplacevalue"),
        Tag {
            key: "sameplacetag2".into(),
            value: TagValue::Int64(123),
        },
        Tag {
            key: "sameplacetag3".into(),
            value: TagValue::Float64(72.5),
        },
        Tag::bool("sameplacetag4", true),
    ];
    picked.iter().map(|n| all[n - 1].clone()).collect()
}

fn span() -> Span {
    Span {
        trace_id: TraceId(1),
        span_id: SpanId(1),
        operation: "op".into(),
        references: vec![],
        flags: 0,
        start: AT,
        duration: 5000,
        tags: vec![],
        logs: vec![],
        process: Arc::new(Process {
            service: "svc".into(),
            tags: vec![],
        }),
        warnings: vec![],
    }
}

/// The service, an hour around [`AT`], nothing else.
fn query() -> TraceQuery {
    TraceQuery {
        service: "svc".into(),
        start_min: AT - HOUR,
        start_max: AT + HOUR,
        limit: 1000,
        ..Default::default()
    }
}

fn with_tags(pairs: &[(&str, &str)]) -> TraceQuery {
    let tags = pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    TraceQuery { tags, ..query() }
}

fn four() -> TraceQuery {
    with_tags(&[
        ("sameplacetag1", "sameplacevalue"),
        ("sameplacetag2", "123"),
        ("sameplacetag3", "72.5"),
        ("sameplacetag4", "true"),
    ])
}

#[track_caller]
fn check(query: &TraceQuery, span: &Span, expected: bool) {
    assert_eq!(
        SpanMatcher::new(query).matches(span),
        expected,
        "{query:?} on {span:?}"
    );
}

fn process(tags: Vec<Tag>) -> Arc<Process> {
    Arc::new(Process {
        service: "svc".into(),
        tags,
    })
}

fn logs(fields: &[&[usize]]) -> Vec<SpanLog> {
    fields
        .iter()
        .map(|picked| SpanLog {
            at: AT,
            fields: tags(picked),
        })
        .collect()
}

#[test]
fn tags_are_found_in_span_process_and_logs_alone_or_spread() {
    check(
        &four(),
        &Span {
            tags: tags(&[1, 2, 3, 4]),
            ..span()
        },
        true,
    );
    check(
        &four(),
        &Span {
            logs: logs(&[&[1, 2, 3, 4]]),
            ..span()
        },
        true,
    );
    check(
        &four(),
        &Span {
            process: process(tags(&[1, 2, 3, 4])),
            ..span()
        },
        true,
    );
    let spread = Span {
        tags: tags(&[3, 4]),
        process: process(tags(&[1])),
        logs: logs(&[&[], &[2]]),
        ..span()
    };
    check(&four(), &spread, true);
    check(
        &four(),
        &Span {
            logs: logs(&[&[1, 2], &[3], &[4]]),
            ..span()
        },
        true,
    );
    check(
        &four(),
        &Span {
            tags: tags(&[1, 2, 3]),
            ..span()
        },
        false,
    );
    check(&four(), &span(), false);
}

#[test]
fn service_and_operation_are_exact_and_empty_means_any() {
    let operation = |name: &str| TraceQuery {
        operation: name.into(),
        ..query()
    };
    check(&query(), &span(), true);
    check(&operation("op"), &span(), true);
    check(&operation("OP"), &span(), false);
    check(&operation("o"), &span(), false);
    check(
        &TraceQuery {
            service: "other".into(),
            ..query()
        },
        &span(),
        false,
    );
    check(
        &TraceQuery {
            service: String::new(),
            ..query()
        },
        &span(),
        true,
    );
}

#[test]
fn the_start_is_inside_the_window_both_ends_included_in_microseconds() {
    let window = |from: i64, to: i64| TraceQuery {
        start_min: from,
        start_max: to,
        ..query()
    };
    check(&window(AT, AT), &span(), true);
    check(&window(AT + 999, AT + MINUTE), &span(), true);
    check(&window(AT + 1000, AT + MINUTE), &span(), false);
    check(&window(AT - MINUTE, AT - 1), &span(), false);
    // Still running when the window opens.
    let running = Span {
        duration: 10 * SECOND as u64,
        ..span()
    };
    check(&window(AT + SECOND, AT + MINUTE), &running, false);
    // Case 5: only the span of the day itself is inside.
    let early = AT - 16 * HOUR - 43 * MINUTE;
    check(
        &window(early - 3 * MINUTE, early + 4 * MINUTE),
        &Span {
            start: early,
            ..span()
        },
        true,
    );
    let day_before = Span {
        start: early - 7 * MINUTE,
        ..span()
    };
    check(
        &window(early - 3 * MINUTE, early + 4 * MINUTE),
        &day_before,
        false,
    );
}

#[test]
fn durations_are_compared_in_microseconds_bounds_included() {
    let between = |min, max| TraceQuery {
        duration_min: min,
        duration_max: max,
        ..query()
    };
    let lasting = |duration| Span { duration, ..span() };
    check(&between(None, Some(2000)), &lasting(1000), true); // 7
    check(&between(None, Some(2000)), &lasting(2000), true);
    check(&between(None, Some(2000)), &lasting(3000), false);
    check(&between(Some(4500), Some(5500)), &lasting(5000), true); // 8
    check(&between(Some(5000), Some(5000)), &lasting(5000), true); // 9
    check(&between(None, Some(1000)), &lasting(1000), true); // 10
    check(&between(Some(6000), None), &lasting(5000), false);
    check(&between(Some(0), None), &lasting(u64::MAX), true);
}

#[test]
fn all_conditions_hold_on_one_span() {
    // 12 to 21: tags with operation and duration, wherever the tags are.
    let query = TraceQuery {
        operation: "op".into(),
        duration_min: Some(4500),
        duration_max: Some(5500),
        ..four()
    };
    let spread = Span {
        tags: tags(&[3]),
        process: process(tags(&[1, 4])),
        logs: logs(&[&[2]]),
        ..span()
    };
    check(&query, &spread, true);
    check(
        &query,
        &Span {
            operation: "op2".into(),
            ..spread.clone()
        },
        false,
    );
    check(
        &query,
        &Span {
            duration: 6000,
            ..spread.clone()
        },
        false,
    );
    check(
        &query,
        &Span {
            tags: vec![],
            ..spread
        },
        false,
    );
}

#[test]
fn any_of_repeated_keys_will_do() {
    let tags = vec![Tag::string("k", "a"), Tag::string("k", "b")];
    let span = Span { tags, ..span() };
    check(&with_tags(&[("k", "b")]), &span, true);
    check(&with_tags(&[("k", "a"), ("k", "b")]), &span, true);
    check(&with_tags(&[("k", "c")]), &span, false);
    check(&with_tags(&[("K", "a")]), &span, false);
}

#[test]
fn values_with_metacharacters_are_literal_and_expressions() {
    let with = |value: &str| Span {
        tags: vec![Tag::string("k", value)],
        ..span()
    };
    // ES-1 and ES-2.
    check(&with_tags(&[("k", r"same\*")]), &with("same*"), true);
    check(
        &with_tags(&[("k", r"same\*")]),
        &with("sameplacedifferentvalue"),
        false,
    );
    for value in ["sameplacevalue1", "sameplacevalue2"] {
        check(&with_tags(&[("k", "same.*")]), &with(value), true);
        check(&with_tags(&[("k", "place.*")]), &with(value), false);
    }
    check(&with_tags(&[("k", "same.*")]), &with("same\nline"), true);
    check(&with_tags(&[("k", "a*(")]), &with("a*("), true); // no expression at all
    check(&with_tags(&[("k", "10.0.0.1")]), &with("10.0.0.1"), true);
    check(&with_tags(&[("k", "10.0.0.1")]), &with("10a0.0.1"), false);
    check(
        &with_tags(&[("k", "10.0.0.1:80")]),
        &with("10.0.0.1:80"),
        true,
    );
    check(
        &with_tags(&[("k", "10.0.0.1.*")]),
        &with("10.0.0.1:80"),
        true,
    );
    check(&with_tags(&[("k", "5..")]), &with("503"), true);
    check(&with_tags(&[("k", "503")]), &with("5030"), false);
    check(&with_tags(&[("k", "")]), &with(""), true);
    check(&with_tags(&[("k", "")]), &with("x"), false);
    check(
        &with_tags(&[("k", "(((((((x{500}){500}){500})")]),
        &with("x"),
        false,
    );
}

#[test]
fn values_have_a_canonical_text() {
    let text = |value: TagValue| ValueRef::from(&value).text().into_owned();
    assert_eq!(text(TagValue::Bool(false)), "false");
    assert_eq!(text(TagValue::Int64(i64::MIN)), "-9223372036854775808");
    assert_eq!(text(TagValue::Binary([0xAB, 0x01].into())), "ab01");
    let cases: [(f64, &str); 22] = [
        (72.5, "72.5"),
        (1e21, "1e+21"),
        (503.0, "503"),
        (500.0, "500"),
        (0.0, "0"),
        (-0.0, "-0"),
        (-1.25, "-1.25"),
        (1.0 / 3.0, "0.3333333333"),
        (0.0001, "0.0001"),
        (0.00012, "0.00012"),
        (0.00001, "1e-05"),
        (1234567890.0, "1234567890"),
        (1000000000.0, "1000000000"),
        (12345678900.0, "1.23456789e+10"),
        (10000000000.0, "1e+10"),
        (123456789.123, "123456789.1"),
        (99999999999.0, "1e+11"),
        (9999999999.9, "1e+10"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (1.5e-300, "1.5e-300"),
    ];
    for (value, expected) in cases {
        assert_eq!(float_text(value), expected, "{value:e}");
    }
}
