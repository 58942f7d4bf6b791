use super::*;
use crate::model::trace::{SpanLog, TraceId};

const MS: i64 = 1_000_000;

fn span(id: u64, parent: u64, start: i64, duration: i64, host: &str) -> Span {
    let trace_id = TraceId(1);
    let references = match parent {
        0 => vec![],
        id => vec![SpanRef {
            kind: RefType::ChildOf,
            trace_id,
            span_id: SpanId(id),
        }],
    };
    let tags = if host.is_empty() {
        vec![]
    } else {
        vec![Tag::string("ip", host)]
    };
    Span {
        trace_id,
        span_id: SpanId(id),
        operation: "op".into(),
        references,
        flags: 0,
        start: start * MS,
        duration: (duration * MS) as u64,
        tags: vec![],
        logs: vec![SpanLog {
            at: start * MS,
            fields: vec![],
        }],
        process: Arc::new(Process {
            service: "s".into(),
            tags,
        }),
        warnings: vec![],
    }
}

fn kind(mut span: Span, kind: &str) -> Span {
    span.tags.push(Tag::string("span.kind", kind));
    span
}

fn adjusted(spans: Vec<Span>, max_skew: i64) -> Vec<Span> {
    let mut trace = Trace {
        id: TraceId(1),
        spans,
        warnings: vec![],
    };
    adjust(&mut trace, (max_skew * MS) as u64);
    trace.spans
}

#[track_caller]
fn check_skew(parent: Span, child: Span, max_skew: i64, start: i64, warning: &str) {
    let spans = adjusted(vec![parent, child], max_skew);
    assert_eq!(spans[1].start, start * MS);
    assert_eq!(spans[1].logs[0].at, start * MS);
    assert_eq!(spans[1].warnings.first().map_or("", |w| w), warning);
    assert!(spans[0].warnings.is_empty());
}

#[test]
fn a_child_of_another_host_is_centred_when_allowed() {
    let (parent, child) = (span(1, 0, 100, 50, "a"), span(2, 1, 10, 20, "b"));
    check_skew(
        parent.clone(),
        child.clone(),
        200,
        115,
        "This span's timestamps were adjusted by 105ms",
    );
    check_skew(
        parent.clone(),
        child.clone(),
        0,
        10,
        "clock skew adjustment disabled; not applying calculated delta of 105ms",
    );
    check_skew(
        parent,
        child,
        104,
        10,
        "max clock skew adjustment delta of 104ms exceeded; not applying calculated delta of 105ms",
    );
}

#[test]
fn a_child_that_fits_or_shares_the_host_stays() {
    check_skew(
        span(1, 0, 100, 50, "a"),
        span(2, 1, 110, 20, "b"),
        200,
        110,
        "",
    );
    check_skew(
        span(1, 0, 100, 50, "a"),
        span(2, 1, 10, 20, "a"),
        200,
        10,
        "",
    );
}

#[test]
fn a_child_longer_than_its_parent_only_moves_forward() {
    let adjusted_by = "This span's timestamps were adjusted by 90ms";
    check_skew(
        span(1, 0, 100, 50, "a"),
        span(2, 1, 10, 80, "b"),
        200,
        100,
        adjusted_by,
    );
    check_skew(
        span(1, 0, 100, 50, "a"),
        span(2, 1, 120, 80, "b"),
        200,
        120,
        "",
    );
}

#[test]
fn a_child_without_host_is_compared_and_the_same_host_inherits() {
    check_skew(
        span(1, 0, 100, 50, ""),
        span(2, 1, 10, 50, ""),
        200,
        100,
        "This span's timestamps were adjusted by 90ms",
    );
    let spans = adjusted(
        vec![
            span(1, 0, 100, 50, "a"),
            span(2, 1, 10, 50, "b"),
            span(3, 2, 20, 1, "b"),
        ],
        200,
    );
    assert_eq!(spans[2].start, 110 * MS);
}

#[test]
fn orphans_and_duplicates_are_warned_about_and_left_alone() {
    let spans = adjusted(vec![span(2, 7, 10, 1, "a"), span(2, 0, 10, 1, "b")], 200);
    assert_eq!(
        &*spans[0].warnings[0],
        "invalid parent span IDs=0000000000000007; skipping clock skew adjustment"
    );
    assert_eq!(
        &*spans[1].warnings[0],
        "duplicate span IDs; skipping clock skew adjustment"
    );
}

#[test]
fn deep_and_circular_traces_end() {
    let mut deep: Vec<Span> = (1..50_000)
        .map(|id| span(id, id - 1, id as i64, 1, ""))
        .collect();
    deep.push(span(100_001, 100_002, 0, 1, ""));
    deep.push(span(100_002, 100_001, 0, 1, ""));
    assert_eq!(adjusted(deep, 1).len(), 50_001);
}

#[test]
fn a_server_that_shares_its_clients_id_gets_its_own() {
    let client = kind(span(5, 1, 10, 10, ""), "client");
    let server = kind(span(5, 5, 11, 8, ""), "server");
    let below = span(6, 5, 12, 2, "");
    let spans = vec![kind(span(1, 0, 0, 50, ""), "server"), client, server, below];
    let ids: Vec<_> = adjusted(spans, 0)
        .iter()
        .map(|s| (s.span_id.0, s.parent().map(|p| p.0)))
        .collect();
    assert_eq!(ids, [(1, None), (5, Some(1)), (2, Some(5)), (6, Some(2))]);
}

#[test]
fn numeric_addresses_become_text_and_process_tags_are_sorted() {
    let mut it = span(1, 0, 0, 1, "");
    it.tags = vec![Tag {
        key: "peer.ipv4".into(),
        value: TagValue::Int64(0x0a01_0203),
    }];
    it.process = Arc::new(Process {
        service: "s".into(),
        tags: vec![
            Tag::string("z", "1"),
            Tag {
                key: "ip".into(),
                value: TagValue::Float64(f64::from(0xff00_0001u32)),
            },
            Tag::string("a", "1"),
        ],
    });
    let spans = adjusted(vec![it.clone(), it], 0);
    assert_eq!(spans[0].tags, [Tag::string("peer.ipv4", "10.1.2.3")]);
    assert_eq!(
        spans[0].process.tags,
        [
            Tag::string("a", "1"),
            Tag::string("ip", "255.0.0.1"),
            Tag::string("z", "1")
        ]
    );
    assert!(Arc::ptr_eq(&spans[0].process, &spans[1].process));
}

#[test]
fn log_fields_begin_with_the_event_and_are_sorted() {
    let mut it = span(1, 0, 0, 1, "");
    it.logs[0].fields = vec![
        Tag::string("z", "1"),
        Tag::bool("b", true),
        Tag::string("b", "2"),
        Tag::string("event", "e"),
        Tag::string("a", "1"),
    ];
    let fields = adjusted(vec![it], 0).remove(0).logs.remove(0).fields;
    let keys: Vec<&str> = fields.iter().map(|tag| &*tag.key).collect();
    assert_eq!(keys, ["event", "a", "b", "b", "z"]);
    assert_eq!(fields[2], Tag::string("b", "2"));
}

#[test]
fn references_to_no_trace_are_removed_with_a_warning() {
    let mut it = span(1, 2, 0, 1, "");
    it.references.push(SpanRef {
        kind: RefType::FollowsFrom,
        trace_id: TraceId(0),
        span_id: SpanId(4),
    });
    let it = adjusted(vec![it], 0).remove(0);
    assert_eq!(it.references.len(), 1);
    assert!(
        it.warnings
            .iter()
            .any(|w| w.starts_with("Invalid span reference removed"))
    );
}

#[test]
fn other_spans_than_were_observed_are_refused() {
    let spans = [span(1, 0, 100, 50, "a"), span(2, 1, 10, 20, "b")];
    let mut observer = Observer::default();
    spans.iter().for_each(|span| observer.observe(span));
    assert_eq!(observer.len(), 2);
    let mut adjustments = observer.finish(0);
    assert_eq!(adjustments.apply(&mut spans[0].clone()), Ok(()));
    assert_eq!(
        adjustments.apply(&mut span(3, 1, 10, 20, "b")),
        Err(Changed)
    );
    assert_eq!(adjustments.apply(&mut spans[1].clone()), Ok(()));
    assert_eq!(adjustments.apply(&mut spans[1].clone()), Err(Changed));
}
