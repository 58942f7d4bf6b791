use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::model::trace::{Span, TagValue};
use crate::store::span::SpanBlockBuilder;

/// Service, operation, kind and slot: calls, errors, and calls by step.
type Found = BTreeMap<(String, String, String, i64), (u64, u64, Vec<(u16, u64)>)>;

#[derive(Default)]
struct All {
    found: Found,
    only: Option<&'static str>,
}

impl Tally for All {
    fn wants(&self, service: &str) -> bool {
        self.only.is_none_or(|only| only == service)
    }

    fn cell(&mut self, cell: Cell<'_>) {
        let key = (
            cell.service.to_owned(),
            cell.operation.to_owned(),
            cell.kind.to_owned(),
            cell.slot,
        );
        let value = (cell.calls, cell.errors, cell.durations.to_vec());
        assert!(self.found.insert(key, value).is_none(), "a cell twice");
    }
}

fn block(spans: &[Span]) -> SpanBlockBuilder {
    let mut builder = SpanBlockBuilder::new();
    spans.iter().for_each(|span| builder.append(span));
    builder
}

fn decoded(record: &[u8], only: Option<&'static str>) -> Found {
    let mut all = All {
        only,
        ..All::default()
    };
    decode(record, &mut all).expect("a record");
    all.found
}

fn naive(spans: &[Span]) -> Found {
    let mut found = Found::new();
    for (n, span) in spans.iter().enumerate() {
        if spans[..n].contains(span) {
            continue;
        }
        let failed = span.tags.iter().any(|tag| match (&*tag.key, &tag.value) {
            ("error", TagValue::Bool(failed)) => *failed,
            ("error", TagValue::String(text)) => &**text == "true",
            ("otel.status_code", TagValue::String(text)) => &**text == "ERROR",
            _ => false,
        });
        let key = (
            span.process.service.to_string(),
            span.operation.to_string(),
            span.kind().to_owned(),
            slot_of(span.start),
        );
        let (calls, errors, durations) = found.entry(key).or_default();
        *calls += 1;
        *errors += u64::from(failed);
        let step = scale::step_of(span.duration);
        match durations.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => durations[at].1 += 1,
            Err(at) => durations.insert(at, (step, 1)),
        }
    }
    found
}

proptest! {
    #[test]
    fn a_record_gives_what_its_spans_give(
        spans in prop::collection::vec(crate::store::span::tests::span(), 0..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        errors in prop::collection::vec(0..4u8, 40),
    ) {
        let mut spans = spans;
        for (span, error) in spans.iter_mut().zip(errors) {
            match error {
                1 => span.tags.push(crate::model::trace::Tag::bool("error", true)),
                2 => span.tags.push(crate::model::trace::Tag::string("error", "true")),
                3 => span.tags.push(crate::model::trace::Tag::string("otel.status_code", "ERROR")),
                _ => {}
            }
        }
        if !spans.is_empty() {
            let repeated: Vec<Span> =
                again.iter().map(|index| index.get(&spans[..]).clone()).collect();
            spans.extend(repeated);
        }
        let builder = block(&spans);
        let expected = naive(&spans);
        let record = builder.block().summary();
        prop_assert_eq!(&decoded(&record, None), &expected);
        let mut tallied = All::default();
        builder.block().tally(&mut tallied);
        prop_assert_eq!(&tallied.found, &expected);
        let web: Found =
            expected.into_iter().filter(|((service, ..), _)| service == "web").collect();
        prop_assert_eq!(&decoded(&record, Some("web")), &web);
        if let Some((first, last)) = slots(&record).expect("a record") {
            let of = spans.iter().map(|span| slot_of(span.start));
            prop_assert_eq!(Some((first, last)), of.clone().min().zip(of.max()));
        } else {
            prop_assert!(spans.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_record(body in prop::collection::vec(any::<u8>(), 0..200)) {
        struct Ignore;
        impl Tally for Ignore {
            fn wants(&self, _: &str) -> bool {
                true
            }
            fn cell(&mut self, _: Cell<'_>) {}
        }
        let _ = decode_body(0, &body, &mut Ignore);
        let _ = decode(&body, &mut Ignore);
    }
}

#[test]
fn a_cut_record_is_an_error() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let spans = prop::collection::vec(crate::store::span::tests::span(), 20);
    let spans = spans.new_tree(&mut runner).expect("spans").current();
    let record = block(&spans).block().summary();
    for len in 1..record.len() {
        assert!(
            decode(&record[..len], &mut All::default()).is_err(),
            "{len}"
        );
    }
}
