use proptest::prelude::*;

use super::*;
use crate::model::trace::{RefType, TraceQuery};
use crate::store::index::analyze::{Analyzer, ChunkFlags};
use crate::store::index::filter::FilterView;
use crate::store::index::needle::WordDemand;

fn value() -> impl Strategy<Value = TagValue> {
    prop_oneof![
        4 => "(|GET|POST|5f0c1dea-face-4bad-9dad-0123456789ab|a\\.b|same\\*|grün\n|[a-z0-9]{1,9})"
            .prop_map(|s| TagValue::String(s.into())),
        1 => "[a-zA-Z0-9/:.=\0\n é-]{0,300}".prop_map(|s| TagValue::String(s.into())),
        1 => any::<bool>().prop_map(TagValue::Bool),
        2 => (0i64..40).prop_map(TagValue::Int64),
        1 => any::<i64>().prop_map(TagValue::Int64),
        1 => (0i32..40).prop_map(|n| TagValue::Float64(f64::from(n))),
        1 => any::<u64>().prop_map(|bits| TagValue::Float64(f64::from_bits(bits))),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|b| TagValue::Binary(b.into())),
    ]
}

fn tag() -> impl Strategy<Value = Tag> {
    (
        "(span.kind|http.method|http.status_code|id|error||k[a-c])",
        value(),
    )
        .prop_map(|(key, value)| Tag {
            key: key.into(),
            value,
        })
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    prop::collection::vec(tag(), 0..6)
}

fn reference() -> impl Strategy<Value = SpanRef> {
    (any::<bool>(), 0u128..4, 0u64..40).prop_map(|(child, trace, span)| SpanRef {
        kind: if child {
            RefType::ChildOf
        } else {
            RefType::FollowsFrom
        },
        trace_id: TraceId(trace),
        span_id: SpanId(span),
    })
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        6 => (1_750_000_000_000_000i64..1_750_000_000_000_400).prop_map(|us| us * 1000),
        2 => 1_750_000_000_000_000_000i64..1_750_000_000_000_004_000,
        1 => any::<i64>(),
    ]
}

pub(super) fn span() -> impl Strategy<Value = Span> {
    let ids = (
        prop_oneof![6 => 0u128..4, 1 => any::<u128>()],
        prop_oneof![6 => 0u64..40, 1 => any::<u64>()],
        prop::collection::vec(reference(), 0..3),
    );
    let process = ("(web|api|)", prop::collection::vec(tag(), 0..3)).prop_map(|(service, tags)| {
        Arc::new(Process {
            service: service.into(),
            tags,
        })
    });
    let logs = prop::collection::vec(
        (time(), tags()).prop_map(|(at, fields)| SpanLog { at, fields }),
        0..3,
    );
    let duration = prop_oneof![4 => (0u64..30).prop_map(|us| us * 1000), 1 => any::<u64>()];
    (
        ids,
        "(GET /|SELECT|)",
        any::<u32>(),
        (time(), duration),
        tags(),
        logs,
        process,
        prop::collection::vec("[a-z]{0,5}", 0..2),
    )
        .prop_map(
            |(ids, operation, flags, (start, duration), tags, logs, process, warnings)| Span {
                trace_id: TraceId(ids.0),
                span_id: SpanId(ids.1),
                operation: operation.into(),
                references: ids.2,
                flags,
                start,
                duration,
                tags,
                logs,
                process,
                warnings: warnings.into_iter().map(Into::into).collect(),
            },
        )
}

/// A search about something that one of the spans has, mostly.
fn query(spans: Vec<Span>) -> impl Strategy<Value = (Vec<Span>, TraceQuery)> {
    let picks = (
        any::<prop::sample::Index>(),
        any::<[bool; 6]>(),
        any::<[u8; 4]>(),
    );
    (Just(spans), picks, tag()).prop_map(|(spans, (span, with, at), other)| {
        let span = span.get(&spans[..]);
        let mut all: Vec<&Tag> = span.tags.iter().chain(&span.process.tags).collect();
        all.extend(span.logs.iter().flat_map(|l| &l.fields));
        let mut tags = Vec::new();
        for n in 0..usize::from(at[0] % 3) {
            if let Some(tag) = all.get(usize::from(at[1 + n]) % all.len().max(1)) {
                let mut text = ValueRef::from(&tag.value).text().into_owned();
                if with[2] && text.is_ascii() && !text.is_empty() {
                    text.replace_range(..1, ".");
                    if at[3] % 2 == 0 {
                        text.push_str(".*");
                    }
                }
                tags.push((tag.key.to_string(), text));
            }
        }
        if with[3] && at[2] % 4 == 0 {
            tags.push((
                other.key.to_string(),
                ValueRef::from(&other.value).text().into_owned(),
            ));
        }
        let query = TraceQuery {
            service: if with[0] {
                span.process.service.to_string()
            } else {
                String::new()
            },
            operation: if with[1] {
                span.operation.to_string()
            } else {
                String::new()
            },
            tags,
            start_min: if with[4] { span.start } else { i64::MIN },
            start_max: i64::MAX,
            duration_min: with[5].then_some(span.duration),
            duration_max: None,
            limit: 20,
        };
        (spans, query)
    })
}

/// Whether the words of a block are as needed.
fn passes(words: &str, need: &BlockNeed) -> bool {
    let terms: std::collections::HashSet<&str> = words.split(' ').collect();
    let mut has = |demand: &WordDemand| match demand {
        WordDemand::Exact(term) => terms.contains(term.as_str()),
        WordDemand::Range(..) => terms.iter().any(|term| demand.accepts(term)),
        other => panic!("{other:?}"),
    };
    [&need.words, &need.newer]
        .iter()
        .all(|plan| plan.may_match(ChunkFlags::default(), &mut has))
}

fn build(spans: &[Span]) -> SpanBlockBuilder {
    let mut builder = SpanBlockBuilder::new();
    spans.iter().for_each(|span| builder.append(span));
    builder
}

/// A span with one small thing changed, or none.
fn changed(mut span: Span, how: u8) -> Span {
    let swapped = |tags: &mut Vec<Tag>| tags.reverse();
    match how {
        0 => span.span_id.0 ^= 1,
        1 => span.start ^= 1,
        2 => span.duration ^= 1,
        3 => span.flags ^= 1,
        4 => span.operation = format!("{}x", span.operation).into(),
        5 => swapped(&mut span.tags),
        6 => span.references.reverse(),
        7 => span.logs.reverse(),
        8 => span
            .logs
            .iter_mut()
            .for_each(|log| swapped(&mut log.fields)),
        9 => span.warnings.push("".into()),
        10 => {
            let moved = span.tags.pop();
            if let Some(log) = span.logs.first_mut() {
                log.fields.extend(moved);
            }
        }
        11 => {
            let mut process = Process::clone(&span.process);
            process.tags.reverse();
            span.process = Arc::new(process);
        }
        12 => span.tags.iter_mut().for_each(|tag| {
            if let TagValue::Int64(n) = tag.value {
                tag.value = TagValue::String(n.to_string().into());
            }
        }),
        _ => span.process = Arc::new(Process::clone(&span.process)),
    }
    span
}

proptest! {
    #[test]
    fn spans_are_alike_exactly_when_they_are_equal(a in span(), b in span(), how in 0u8..16) {
        let hasher = foldhash::fast::RandomState::default();
        let (mut hashes, mut prints) = (SpanHashes::default(), Fingerprints::default());
        let changed = changed(a.clone(), how);
        let likeness = hashes.take(&hasher, &a);
        let print = prints.of(&a);
        for other in [&b, &changed, &a] {
            prop_assert_eq!(hashes.take(&hasher, other) == likeness, *other == a);
            prop_assert_eq!(prints.of(other) == print, other.repeats(&a));
        }
        // Tags reversed, fields reversed, a warning more, tags of the process reversed.
        let is_repetition = matches!(how, 5 | 8 | 9 | 11) || changed == a;
        // Reversed logs may be the same but for the order of their fields.
        prop_assert!(how == 7 || changed.repeats(&a) == is_repetition);
    }
}

#[test]
fn a_meta_from_before_terms_is_read() {
    let meta = BlockMeta {
        number: 3,
        spans: 2,
        max_duration: 77,
        terms: TERMS,
        ..BlockMeta::default()
    };
    let mut bytes = meta.encode();
    assert_eq!(BlockMeta::decode(3, &bytes), Ok(meta.clone()));
    bytes[0] = 1;
    bytes.pop();
    let older = BlockMeta { terms: 0, ..meta };
    assert_eq!(BlockMeta::decode(3, &bytes), Ok(older));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("SLOW").is_some() { 30_000 } else { 500 }
    ))]

    // B1; also after the builder has been used before.
    #[test]
    fn a_block_gives_back_its_spans(
        first in prop::collection::vec(span(), 1..20),
        second in prop::collection::vec(span(), 0..30),
    ) {
        let mut builder = build(&first);
        let (mut analyzer, mut census) = (Analyzer::new(), TagCensus::new());
        for spans in [&first, &second] {
            prop_assert_eq!(&builder.block().spans().collect::<Vec<_>>(), spans);
            let sealed = builder.seal(&mut analyzer, &mut census);
            let block = SpanBlock::decode(&sealed.bytes).unwrap();
            prop_assert_eq!(&block.spans().collect::<Vec<_>>(), spans);
            let mut traces: Vec<u128> = block.traces().iter().map(|id| id.0).collect();
            traces.sort_unstable();
            prop_assert_eq!(&sealed.trace_ids, &traces);
            let meta = sealed.meta;
            prop_assert_eq!((meta.number, meta.spans as usize), (0, spans.len()));
            prop_assert_eq!(BlockMeta::decode(0, &meta.encode()), Ok(meta.clone()));
            prop_assert!(spans.iter().all(|s| meta.min_start <= s.start
                && s.start <= meta.max_start
                && meta.min_duration <= s.duration && s.duration <= meta.max_duration));
            for id in spans.iter().map(|s| s.trace_id).chain([TraceId(77)]) {
                let of: Vec<Span> = block.spans_of(id).collect();
                let expected: Vec<Span> =
                    spans.iter().filter(|s| s.trace_id == id).cloned().collect();
                prop_assert_eq!(of, expected);
            }
            // A block that was read can be written again.
            let again = SpanBlock::decode(&block.encode()).unwrap();
            prop_assert_eq!(&again.spans().collect::<Vec<_>>(), spans);
            builder.clear();
            second.iter().for_each(|span| builder.append(span));
        }
    }

    // B3, and the search by numbers against the search of spans.
    #[test]
    fn no_block_with_a_match_is_ruled_out(
        (spans, query) in prop::collection::vec(span(), 1..60).prop_flat_map(query),
        seen in 0usize..700,
    ) {
        let matcher = SpanMatcher::new(&query);
        let builder = build(&spans);
        let expected: Vec<usize> =
            (0..spans.len()).filter(|n| matcher.matches(&spans[*n])).collect();
        prop_assert_eq!(&builder.block().search(&matcher), &expected);

        let mut census = TagCensus::new();
        for n in 0..seen {
            see_id(&mut census, n);
        }
        let sealed = builder.seal(&mut Analyzer::new(), &mut census);
        let block = SpanBlock::decode(&sealed.bytes).unwrap();
        prop_assert_eq!(&block.search(&matcher), &expected);
        if !expected.is_empty() {
            let need = query_terms(&query);
            prop_assert!(passes(&sealed.words, &need), "{:?}
{:?}", need.words, sealed.words);
            prop_assert!(need.may_match(&FilterView::parse(&sealed.filter).unwrap()));
            prop_assert!(sealed.meta.may_match(&matcher));
        }
    }

    // B2: the checksum is made right, so that the body is what is tested.
    #[test]
    fn damaged_bodies_are_refused_or_valid(
        spans in prop::collection::vec(span(), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = build(&spans).block().encode_body();
        for cut in [body.len() - 1, body.len() / 2] {
            prop_assert!(SpanBlock::decode_body(&body[..cut]).is_err());
        }
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(block) = SpanBlock::decode_body(&body) {
            let spans = block.spans().count();
            prop_assert_eq!(spans, block.len());
            block.search(&SpanMatcher::new(&TraceQuery::default()));
        }
    }
}

fn see_id(census: &mut TagCensus, n: usize) {
    let mut builder = SpanBlockBuilder::new();
    let mut span = plain();
    span.tags = vec![Tag {
        key: "id".into(),
        value: TagValue::Int64(n as i64),
    }];
    builder.append(&span);
    let words = builder.seal(&mut Analyzer::new(), census).words;
    assert_eq!(words.split(' ').any(|t| t == "w:id"), n >= 512);
}

fn plain() -> Span {
    Span {
        trace_id: TraceId(1),
        span_id: SpanId(1),
        operation: "op".into(),
        references: vec![],
        flags: 1,
        start: 5000,
        duration: 1000,
        tags: vec![],
        logs: vec![],
        process: Arc::new(Process {
            service: "svc".into(),
            tags: vec![],
        }),
        warnings: vec![],
    }
}

#[test]
fn damage_and_later_versions_are_named() {
    let bytes = build(&[plain()]).block().encode();
    assert!(SpanBlock::decode(&bytes).is_ok());
    for n in 1..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[n] ^= 4;
        assert_eq!(
            SpanBlock::decode(&damaged).unwrap_err(),
            SpanCodecError::Checksum
        );
    }
    let mut later = bytes.clone();
    later[0] = 2;
    assert_eq!(
        SpanBlock::decode(&later).unwrap_err(),
        SpanCodecError::Version(2)
    );
    for len in 0..bytes.len() {
        assert!(SpanBlock::decode(&bytes[..len]).is_err());
    }
}

#[test]
fn services_and_operations_are_told_with_their_kinds() {
    let kind = |kind: &str| vec![Tag::string("span.kind", kind)];
    let other = Arc::new(Process {
        service: "a".into(),
        tags: vec![],
    });
    let sealed = build(&[
        plain(),
        Span {
            tags: kind("server"),
            ..plain()
        },
        Span {
            tags: kind("server"),
            ..plain()
        },
        Span {
            process: other,
            ..plain()
        },
    ])
    .seal(&mut Analyzer::new(), &mut TagCensus::new());
    let expected: [&[u8]; 3] = [b"a\0op\0", b"svc\0op\0", b"svc\0op\0server"];
    assert_eq!(sealed.operations, expected);
}

#[test]
fn a_search_for_what_is_not_there_rules_blocks_out() {
    let mut spans = Vec::new();
    for n in 0..200u64 {
        spans.push(Span {
            operation: if n % 2 == 0 { "read" } else { "write" }.into(),
            tags: vec![
                Tag::string("http.method", if n % 2 == 0 { "GET" } else { "POST" }),
                Tag::string(
                    "request.id",
                    format!("{:032x}", u128::from(n) * 0x9E37_79B9_7F4A_7C15),
                ),
                Tag {
                    key: "user.id".into(),
                    value: TagValue::Int64(n as i64 * 977 + 100_000),
                },
            ],
            ..plain()
        });
    }
    let sealed = build(&spans).seal(&mut Analyzer::new(), &mut TagCensus::new());
    let candidate = |operation: &str, tags: &[(&str, &str)]| {
        let need = query_terms(&TraceQuery {
            service: "svc".into(),
            operation: operation.into(),
            tags: tags
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            ..Default::default()
        });
        passes(&sealed.words, &need) && need.may_match(&FilterView::parse(&sealed.filter).unwrap())
    };
    assert!(candidate("read", &[("http.method", "GET")]));
    assert!(!candidate("read", &[("http.method", "POST")])); // only the pair is missing
    assert!(candidate("", &[("http.method", "POST")]));
    assert!(!candidate("other", &[]));
    assert!(!candidate("", &[("http.method", "PUT")]));
    assert!(!candidate("", &[("no.such.key", "5..")]));
    assert!(candidate("read", &[("user.id", "100000")]));
    assert!(!candidate("", &[("user.id", "987654")]));
    assert!(!candidate(
        "",
        &[("request.id", "0f8fad5bd9cb469fa16570867728950e")]
    ));
    assert!(!candidate(
        "",
        &[("request.id", "0f8fad5bd9cb469fa16570867728950e.*")]
    ));
}

#[test]
fn spans_that_repeat_large_tags_fill_a_block() {
    let mut builder = SpanBlockBuilder::new();
    let tags = vec![Tag::string("big", "x".repeat(100_000))];
    let mut count = 0;
    while !builder.is_full() {
        builder.append(&Span {
            tags: tags.clone(),
            ..plain()
        });
        count += 1;
    }
    assert!((40..60).contains(&count), "{count}");
}
