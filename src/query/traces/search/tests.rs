use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::trace::Process;
use crate::store::index::analyze::{Analyzer, ChunkFlags};
use crate::store::index::filter::FilterView;
use crate::store::index::needle::WordDemand;
use crate::store::span::{SealedSpanBlock, SpanBlockBuilder, TagCensus, query_terms};

/// Blocks as the store has them, without the store.
#[derive(Default)]
struct Blocks {
    sealed: Vec<SealedSpanBlock>,
    open: SpanBlockBuilder,
    /// Which sealed blocks were read.
    read: RefCell<Vec<usize>>,
}

impl Blocks {
    fn add(&mut self, spans: &[Span]) {
        spans.iter().for_each(|span| self.open.append(span));
    }

    fn seal(&mut self) {
        self.sealed
            .push(self.open.seal(&mut Analyzer::new(), &mut TagCensus::new()));
        self.open.clear();
    }

    fn of(spans: &[Span], cuts: &[usize]) -> Self {
        let mut blocks = Self::default();
        for (n, span) in spans.iter().enumerate() {
            if cuts.contains(&n) && !blocks.open.is_empty() {
                blocks.seal();
            }
            blocks.add(std::slice::from_ref(span));
        }
        blocks
    }
}

impl SpanSource for Blocks {
    type Place = usize;

    fn open(&self) -> impl Iterator<Item = &SpanBlock> {
        std::iter::once(self.open.block())
    }

    /// In groups of three.
    fn candidates<'a>(
        &'a self,
        matcher: &'a SpanMatcher,
        need: &BlockNeed,
    ) -> Result<Vec<Group<'a, usize>>, QueryError> {
        let passes = |sealed: &SealedSpanBlock| {
            let terms: BTreeSet<&str> = sealed.words.split(' ').collect();
            let mut has = |demand: &WordDemand| match demand {
                WordDemand::Exact(term) => terms.contains(term.as_str()),
                other => terms.iter().any(|term| other.accepts(term)),
            };
            sealed.meta.may_match(matcher)
                && need.words.may_match(ChunkFlags::default(), &mut has)
                && need.newer.may_match(ChunkFlags::default(), &mut has)
        };
        let all = self
            .sealed
            .iter()
            .enumerate()
            .filter(|(_, sealed)| passes(sealed));
        let all: Vec<_> = all.map(|(n, sealed)| (sealed.meta.max_start, n)).collect();
        let groups = all.chunks(3).map(|group| Group {
            newest: group.iter().map(|(newest, _)| *newest).max().unwrap_or(0),
            list: {
                let group = group.to_vec();
                Box::new(move || group)
            },
        });
        Ok(groups.collect())
    }

    fn may_match(&self, place: usize, need: &BlockNeed) -> Result<bool, QueryError> {
        Ok(need.may_match(&FilterView::parse(&self.sealed[place].filter).unwrap()))
    }

    fn read(&self, place: usize, _: Why) -> Result<Option<Arc<SpanBlock>>, QueryError> {
        self.read.borrow_mut().push(place);
        let block = SpanBlock::decode(&self.sealed[place].bytes).unwrap();
        Ok(Some(Arc::new(block)))
    }

    fn run<T: Send + 'static>(&self, jobs: Vec<Job<Self, T>>) -> Result<Vec<T>, QueryError> {
        Ok(jobs.into_iter().map(|job| job(self)).collect())
    }

    fn width(&self) -> usize {
        3
    }

    fn places_of(&self, trace: TraceId) -> Result<Vec<usize>, QueryError> {
        let all = self.sealed.iter().enumerate();
        Ok(all
            .filter(|(_, s)| s.trace_ids.contains(&trace.0))
            .map(|(n, _)| n)
            .collect())
    }
}

fn bounds() -> Bounds {
    let timeout = Duration::from_secs(60);
    Bounds {
        deadline: Instant::now() + timeout,
        timeout,
        max_bytes: 64 << 20,
    }
}

fn search(blocks: &Blocks, query: &TraceQuery) -> Vec<Trace> {
    find(blocks, query, &query_terms(query), &bounds()).unwrap()
}

fn span(trace: u128, id: u64, start: Timestamp) -> Span {
    Span {
        trace_id: TraceId(trace),
        span_id: SpanId(id),
        operation: "op".into(),
        references: vec![],
        flags: 1,
        start: start * 1000,
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

fn all(limit: usize) -> TraceQuery {
    TraceQuery {
        service: "svc".into(),
        start_min: i64::MIN,
        start_max: i64::MAX,
        limit,
        ..TraceQuery::default()
    }
}

fn ids(traces: &[Trace]) -> Vec<u128> {
    traces.iter().map(|trace| trace.id.0).collect()
}

/// The definition (T1, T3) over a plain list.
fn oracle(spans: &[Span], query: &TraceQuery) -> Vec<(u128, Vec<Span>)> {
    let matcher = SpanMatcher::new(query);
    let mut newest: BTreeMap<TraceId, Timestamp> = BTreeMap::new();
    for span in spans.iter().filter(|span| matcher.matches(span)) {
        let start = newest.entry(span.trace_id).or_insert(span.start);
        *start = span.start.max(*start);
    }
    let mut order: Vec<(Timestamp, TraceId)> = newest.into_iter().map(|(id, t)| (t, id)).collect();
    order.sort();
    order.reverse();
    order.truncate(if query.limit == 0 { 100 } else { query.limit });
    let complete = |id: TraceId| {
        let mut of: Vec<Span> = Vec::new();
        for span in spans.iter().filter(|span| span.trace_id == id) {
            if !of.contains(span) {
                of.push(span.clone());
            }
        }
        of.sort_by_key(|span| span.start);
        (id.0, of)
    };
    order.into_iter().map(|(_, id)| complete(id)).collect()
}

fn any_span() -> impl Strategy<Value = Span> {
    let value = prop_oneof![Just("a"), Just("b"), Just("x.y")];
    let names = (
        prop_oneof![3 => Just("svc"), 1 => Just("web")],
        prop_oneof![Just("op"), Just("other")],
        prop_oneof![Just("k"), Just("l")],
    );
    (0u128..12, 0u64..6, 0i64..60, 1u64..4, names, value).prop_map(
        |(trace, id, start, duration, (service, operation, key), value)| Span {
            operation: operation.into(),
            duration: duration * 1000,
            tags: vec![Tag::string(key, value)],
            process: Arc::new(Process {
                service: service.into(),
                tags: vec![],
            }),
            ..span(trace, id, start)
        },
    )
}

fn any_query() -> impl Strategy<Value = TraceQuery> {
    let tag = prop_oneof![
        3 => Just(None),
        1 => Just(Some(("k", "a"))),
        1 => Just(Some(("l", "x.y"))),
        1 => Just(Some(("k", "[ab]"))),
        1 => Just(Some(("m", "a"))),
    ];
    let names = (
        prop_oneof![3 => Just("svc"), 1 => Just(""), 1 => Just("no")],
        prop_oneof![2 => Just(""), 1 => Just("op")],
    );
    (
        names,
        tag,
        0i64..60,
        0i64..60,
        prop::option::of(1u64..4),
        0usize..14,
    )
        .prop_map(
            |((service, operation), tag, from, length, duration, limit)| TraceQuery {
                service: service.into(),
                operation: operation.into(),
                tags: tag
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect(),
                start_min: from * 1000,
                start_max: (from + length) * 1000,
                duration_min: duration.map(|d| d * 1000),
                duration_max: None,
                limit,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("SLOW").is_some() { 20_000 } else { 1000 }
    ))]

    #[test]
    fn the_search_finds_what_its_definition_says(
        mut spans in prop::collection::vec(any_span(), 0..80),
        cuts in prop::collection::vec(0usize..80, 0..12),
        in_order in any::<bool>(),
        query in any_query(),
    ) {
        if in_order {
            spans.sort_by_key(|span| span.start);
        }
        let found = search(&Blocks::of(&spans, &cuts), &query);
        let found: Vec<(u128, Vec<Span>)> =
            found.into_iter().map(|trace| (trace.id.0, trace.spans)).collect();
        prop_assert_eq!(found, oracle(&spans, &query));
    }
}

#[test]
fn blocks_that_cannot_improve_the_answer_are_not_read() {
    let mut blocks = Blocks::default();
    for n in 0..50 {
        blocks.add(&[span(n, 1, n as i64 * 10), span(n, 2, n as i64 * 10 + 1)]);
        blocks.seal();
    }
    assert_eq!(ids(&search(&blocks, &all(3))), [49, 48, 47]);
    let mut read = blocks.read.take();
    read.sort_unstable();
    read.dedup();
    assert!(
        read.ends_with(&[47, 48, 49]) && read.len() <= 6,
        "at most half of them in vain: {read:?}"
    );

    // Of another service: ruled out by terms.
    let nothing = TraceQuery {
        service: "no".into(),
        ..all(3)
    };
    assert!(search(&blocks, &nothing).is_empty());
    // Outside the window.
    let early = TraceQuery {
        start_max: 10_500,
        ..all(10)
    };
    assert_eq!(ids(&search(&blocks, &early)), [1, 0]);
    read = blocks.read.take();
    assert!(read.iter().all(|n| *n < 2), "{read:?}");
}

#[test]
fn traces_are_complete_beyond_the_window_and_exact_repetitions_are_dropped() {
    let mut blocks = Blocks::default();
    blocks.add(&[span(1, 1, 0), span(1, 2, 100)]);
    blocks.seal();
    // A retry of the client, and a different span with the same id.
    let other = Span {
        operation: "else".into(),
        ..span(1, 2, 100)
    };
    blocks.add(&[span(1, 2, 100), other.clone(), span(1, 3, 1_000_000)]);
    let window = TraceQuery {
        start_min: 100_000,
        start_max: 100_000,
        ..all(20)
    };
    let found = search(&blocks, &window);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].spans,
        [span(1, 1, 0), span(1, 2, 100), other, span(1, 3, 1_000_000)]
    );
    assert_eq!(complete(&blocks, &[TraceId(1)], &bounds()).unwrap(), found);
    assert!(
        complete(&blocks, &[TraceId(2)], &bounds())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_large_trace_comes_whole_and_one_beyond_the_bound_is_refused() {
    let mut blocks = Blocks::default();
    for n in 0..10_008 {
        blocks.add(&[span(7, n, n as i64)]);
        if blocks.open.is_full() {
            blocks.seal();
        }
    }
    let traces = complete(&blocks, &[TraceId(7)], &bounds()).unwrap();
    assert_eq!(traces[0].spans.len(), 10_008);
    let little = Bounds {
        max_bytes: 1 << 20,
        ..bounds()
    };
    let refused = complete(&blocks, &[TraceId(7)], &little);
    assert!(
        matches!(refused, Err(QueryError::TooMuch(_))),
        "{refused:?}"
    );
}

#[test]
fn a_search_without_a_limit_gives_a_hundred_and_one_too_late_an_error() {
    let mut blocks = Blocks::default();
    (0..150).for_each(|n| blocks.add(&[span(n, 1, n as i64)]));
    blocks.seal();
    assert_eq!(search(&blocks, &all(0)).len(), 100);
    let late = Bounds {
        deadline: Instant::now(),
        ..bounds()
    };
    let refused = find(&blocks, &all(1), &query_terms(&all(1)), &late);
    assert!(
        matches!(refused, Err(QueryError::Timeout(_))),
        "{refused:?}"
    );
}
