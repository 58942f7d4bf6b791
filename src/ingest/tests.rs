use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::model::time::{HOUR, MINUTE, SECOND};
use crate::model::{Labels, LogEntry, StreamEntries, StreamId};

const NOW: i64 = 1_795_356_060 * SECOND;

/// Labels of a stream, and the times and line lengths of its entries.
type Sent<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, u32)]);

fn batch(streams: &[Sent<'_>]) -> LogBatch {
    let mut out = LogBatch {
        text: Bytes::from(vec![b'x'; 300_000]),
        ..LogBatch::default()
    };
    for (labels, entries) in streams {
        out.streams.push(StreamEntries {
            id: StreamId(0),
            labels: Labels::from_pairs(labels.iter().copied()),
            entries: entries
                .iter()
                .map(|&(at, len)| LogEntry {
                    at,
                    start: 0,
                    len,
                    metadata: 0,
                })
                .collect(),
        });
    }
    out
}

fn plain(limits: LogLimits) -> Admission {
    Admission::new(limits, None)
}

const A: &[(&str, &str)] = &[("a", "1")];
const B: &[(&str, &str)] = &[("b", "2")];

#[track_caller]
fn check_refused(admitted: &Admitted, reason: &str, parts: &[&str]) {
    let [refusal] = &admitted.refusals[..] else {
        panic!("one refusal: {admitted:?}")
    };
    assert_eq!(refusal.reason, reason);
    for part in parts {
        assert!(
            refusal.message.contains(part),
            "{part:?} in {:?}",
            refusal.message
        );
    }
    assert!(!admitted.untouched);
}

#[test]
fn a_good_batch_is_untouched_and_gets_its_ids() {
    let mut good = batch(&[(A, &[(NOW, 5), (NOW - HOUR, 5)]), (B, &[(NOW, 0)])]);
    good.tenant = "t".into();
    let admitted = plain(LogLimits::default()).admit(&mut good, NOW);
    assert!(admitted.untouched && admitted.refusals.is_empty());
    assert_eq!(good.entry_count(), 3);
    let labels = Labels::from_pairs(A.iter().copied());
    assert_eq!(good.streams[0].id, StreamId::of("t", &labels));
}

#[test]
fn a_known_stream_gets_the_labels_and_the_id_of_its_own_tenant() {
    let admission = Admission::new(LogLimits::default(), Some(Discovery::default()));
    let sent: &[(&str, &str)] = &[("app", "api")];
    let mut seen = Vec::new();
    for tenant in ["one", "two", "one", "two"] {
        let mut batch = batch(&[(sent, &[(NOW, 1)])]);
        batch.tenant = tenant.into();
        admission.admit(&mut batch, NOW);
        let stream = &batch.streams[0];
        assert_eq!(stream.labels.get("service_name"), Some("api"));
        assert_eq!(stream.id, StreamId::of(tenant, &stream.labels), "{tenant}");
        seen.push(stream.id);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn entries_are_refused_one_by_one_and_the_rest_is_kept() {
    let week = 7 * 24 * HOUR;
    let limit = 262_144;
    let limits = LogLimits {
        max_behind: None,
        ..LogLimits::default()
    };
    for (entry, reason, parts) in [
        (
            (NOW - week - 1, 1),
            "greater_than_max_sample_age",
            &[
                "entry for stream '{a=\"1\"}' has timestamp too old: 2026-11-15T",
                "oldest",
            ][..],
        ),
        (
            (NOW + 10 * MINUTE + 1, 1),
            "too_far_in_future",
            &["timestamp too new: 2026-11-22T"],
        ),
        (
            (NOW, limit + 1),
            "line_too_long",
            &["max entry size", "262144", "262145", "{a=\"1\"}"],
        ),
    ] {
        let edges = [(NOW - week, 1), (NOW + 10 * MINUTE, 1), (NOW, limit), entry];
        let mut mixed = batch(&[(A, &edges), (B, &[(NOW, 1)])]);
        let admitted = plain(limits.clone()).admit(&mut mixed, NOW);
        check_refused(&admitted, reason, parts);
        assert_eq!((admitted.refused_entries, mixed.entry_count()), (1, 4));
    }
}

#[test]
fn metadata_is_limited_in_size_and_number() {
    let set = |pairs: usize, size: usize| -> crate::model::Metadata {
        (0..pairs)
            .map(|i| (format!("k{i:03}").into(), "v".repeat(size).into()))
            .collect()
    };
    let mut sent = batch(&[(A, &[(NOW, 1), (NOW, 1), (NOW, 1), (NOW, 1)])]);
    sent.metadata = vec![set(128, 1), set(129, 1), set(1, 65_536)];
    for (i, entry) in sent.streams[0].entries.iter_mut().enumerate() {
        entry.metadata = i as u32;
    }
    let admitted = plain(LogLimits::default()).admit(&mut sent, NOW);
    let reasons: Vec<_> = admitted.refusals.iter().map(|r| r.reason).collect();
    assert_eq!(
        reasons,
        [
            "structured_metadata_too_many",
            "structured_metadata_too_large"
        ]
    );
    assert_eq!(sent.entry_count(), 2);
}

#[test]
fn labels_are_limited_in_number_and_length() {
    let names: Vec<String> = (0..16).map(|i| format!("l{i:02}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|n| (&**n, "v")).collect();
    let (long, wide) = ("n".repeat(1025), "v".repeat(2049));
    let admission = plain(LogLimits::default());
    for (labels, reason, part) in [
        (&[][..], "missing_labels", "at least one label pair"),
        (&many[..], "max_label_names_per_series", "16"),
        (&[(&*long, "v")], "label_name_too_long", "nnnn"),
        (&[("a", &*wide)], "label_value_too_long", "vvvv"),
    ] {
        let mut sent = batch(&[(labels, &[(NOW, 1), (NOW, 1)]), (A, &[(NOW, 1)])]);
        let admitted = admission.admit(&mut sent, NOW);
        check_refused(&admitted, reason, &[part]);
        assert_eq!((admitted.refused_entries, sent.entry_count()), (2, 1));
    }
    // Exactly at the limits; `service_name` does not count.
    let mut fits = many[..15].to_vec();
    fits.push(("service_name", "s"));
    let (long, wide) = (&long[1..], &wide[1..]);
    for labels in [&fits[..], &[(long, wide)]] {
        let mut sent = batch(&[(labels, &[(NOW, 1)])]);
        assert!(admission.admit(&mut sent, NOW).untouched);
    }
}

#[test]
fn far_behind_is_measured_from_the_newest_of_the_stream() {
    let admission = plain(LogLimits::default());
    let mut first = batch(&[(A, &[(NOW, 1)])]);
    assert!(admission.admit(&mut first, NOW).untouched);
    let mut late = batch(&[(
        A,
        &[(NOW - HOUR, 1), (NOW - HOUR - 1, 1), (NOW - 2 * HOUR, 1)],
    )]);
    let admitted = admission.admit(&mut late, NOW);
    check_refused(
        &admitted,
        "too_far_behind",
        &[
            "entry too far behind",
            "user 'fake', total ignored: 2 out of 3 for stream: {a=\"1\"}",
        ],
    );
    assert_eq!(late.entry_count(), 1);
    // Another stream is not concerned; within a push its own order counts.
    let mut other = batch(&[(B, &[(NOW - 2 * HOUR, 1), (NOW, 1), (NOW - 2 * HOUR, 1)])]);
    assert_eq!(admission.admit(&mut other, NOW).refused_entries, 1);
    // At most ten are listed.
    let mut many = batch(&[(A, &[(NOW - 2 * HOUR, 1); 50])]);
    let admitted = admission.admit(&mut many, NOW);
    assert_eq!(
        admitted.refusals[0]
            .message
            .matches("ignored, reason")
            .count(),
        10
    );
    assert!(many.streams.is_empty());
}

#[test]
fn a_tenant_above_its_rate_gets_nothing_stored() {
    let limits = LogLimits {
        ingestion_rate: 1000,
        ingestion_burst: 1500,
        ..LogLimits::default()
    };
    let admission = plain(limits);
    let mut sent = batch(&[(A, &[(NOW, 1000)])]);
    assert!(admission.admit(&mut sent, NOW).untouched);
    let mut again = batch(&[(A, &[(NOW, 300)]), (B, &[(NOW, 300)])]);
    let admitted = admission.admit(&mut again, NOW);
    check_refused(
        &admitted,
        "rate_limited",
        &[
            "ingestion rate limit exceeded for user fake (limit: 1000 bytes/sec)",
            "'2' lines totaling '600' bytes",
        ],
    );
    assert_eq!(admitted.refusals[0].kind, RefusalKind::Limited);
    assert!(again.streams.is_empty());
    let mut later = batch(&[(A, &[(NOW, 600)])]);
    assert!(admission.admit(&mut later, NOW + SECOND).untouched);
}

#[test]
fn a_stream_above_its_rate_is_refused_whole() {
    let limits = LogLimits {
        per_stream_rate: 1000,
        per_stream_burst: 1000,
        ..LogLimits::default()
    };
    let mut sent = batch(&[(A, &[(NOW, 600), (NOW, 600)]), (B, &[(NOW, 600)])]);
    let admitted = plain(limits).admit(&mut sent, NOW);
    check_refused(
        &admitted,
        "per_stream_rate_limit",
        &["Per stream rate limit exceeded"],
    );
    assert_eq!(sent.entry_count(), 1);
}

#[test]
fn a_new_stream_above_the_limit_is_refused_and_known_ones_are_not() {
    let admission = plain(LogLimits {
        max_streams: 1,
        ..LogLimits::default()
    });
    let mut sent = batch(&[(A, &[(NOW, 1)]), (B, &[(NOW, 1)])]);
    let admitted = admission.admit(&mut sent, NOW);
    check_refused(
        &admitted,
        "stream_limit",
        &["maximum active stream limit exceeded", "{b=\"2\"}"],
    );
    assert_eq!(sent.streams.len(), 1);
    let mut known = batch(&[(A, &[(NOW, 1)])]);
    assert!(admission.admit(&mut known, NOW).untouched);
    assert_eq!(admission.active_streams(), 1);
}

#[test]
fn zero_switches_a_limit_off() {
    let limits = LogLimits {
        max_label_names: 0,
        max_label_name_length: 0,
        max_label_value_length: 0,
        reject_older_than: None,
        creation_grace_period: None,
        max_line_size: 0,
        max_metadata_size: 0,
        max_metadata_count: 0,
        max_behind: None,
        max_streams: 0,
        ..LogLimits::default()
    };
    let name = "n".repeat(5000);
    let mut sent = batch(&[(&[(&*name, &*name)], &[(i64::MAX, 299_999), (i64::MIN, 1)])]);
    assert!(plain(limits).admit(&mut sent, NOW).untouched);
}

#[test]
fn the_service_name_is_the_first_label_of_the_list() {
    let name = |labels: &[(&str, &str)], discovery: Discovery| {
        let mut sent = batch(&[(labels, &[(NOW, 1)])]);
        let admission = Admission::new(LogLimits::default(), Some(discovery));
        let admitted = admission.admit(&mut sent, NOW);
        let stream = sent.streams.pop().expect("accepted");
        assert_eq!(stream.id, StreamId::of("", &stream.labels));
        (
            stream.labels.get("service_name").map(str::to_owned),
            admitted.untouched,
        )
    };
    let default = Discovery::default;
    let some = |n: &str| Some(n.to_owned());
    assert_eq!(
        name(&[("job", "j"), ("container", "c")], default()),
        (some("c"), true)
    );
    assert_eq!(
        name(&[("x", "y")], default()),
        (some("unknown_service"), true)
    );
    assert_eq!(
        name(&[("app", "y"), ("service_name", "s")], default()),
        (some("s"), true)
    );
    // Replay does not know other lists: the batch is not what it would get.
    let own = Discovery::of(vec!["x".into()]).expect("a list");
    assert_eq!(name(&[("x", "y"), ("app", "a")], own), (some("y"), false));
    assert_eq!(Discovery::of(vec![]), None);
    // No labels are still no labels.
    let mut sent = batch(&[(&[], &[(NOW, 1)])]);
    let admitted = Admission::new(LogLimits::default(), Some(default())).admit(&mut sent, NOW);
    check_refused(&admitted, "missing_labels", &[]);
}

#[test]
fn equal_refusals_are_grouped_and_one_stands_alone() {
    let refusal = |message: &str| Refusal {
        kind: RefusalKind::Invalid,
        reason: "x",
        message: message.to_owned(),
    };
    assert_eq!(error_text(&[refusal("a")]), "a");
    assert_eq!(
        error_text(&[refusal("a"), refusal("a")]),
        "2 errors like: a"
    );
    assert_eq!(
        error_text(&[refusal("b"), refusal("a"), refusal("b")]),
        "2 errors like: b; 1 errors like: a"
    );
}

#[test]
fn the_answer_stays_short_however_much_is_refused() {
    let old: Vec<(i64, u32)> = (0..5000).map(|i| (i, 1)).collect();
    let mut sent = batch(&[(A, &old)]);
    let admitted = plain(LogLimits::default()).admit(&mut sent, NOW);
    assert_eq!(
        (admitted.refused_entries, admitted.refusals.len()),
        (5000, 101)
    );
    assert!(admitted.refusals[100].message.starts_with("4900 more"));
    assert_eq!(admitted.by_reason["greater_than_max_sample_age"], 5000);
}

/// Keeps what it gets.
#[derive(Default)]
struct Kept {
    got: Mutex<Vec<(LogBatch, Received)>>,
    refuse: bool,
}

impl LogSink for Arc<Kept> {
    async fn append_logs(
        &self,
        batch: LogBatch,
        received: Received,
        _: Option<Permit>,
    ) -> Result<(), Refusal> {
        if self.refuse {
            return Err(Refusal {
                kind: RefusalKind::Unavailable,
                reason: "stopping",
                message: "stopping".into(),
            });
        }
        self.got.lock().push((batch, received));
        Ok(())
    }
}

fn ingest(sink: &Arc<Kept>, metrics: &Metrics) -> Ingest<Arc<Kept>> {
    let admission = Admission::new(LogLimits::default(), Some(Discovery::default()));
    Ingest::new(
        admission,
        sink.clone(),
        Clock::fixed(NOW),
        IngestMetrics::new(metrics),
    )
}

#[tokio::test]
async fn only_an_untouched_batch_keeps_its_body() {
    let (sink, metrics) = (Arc::new(Kept::default()), Metrics::default());
    let ingest = ingest(&sink, &metrics);
    let body = || Some((1, 0, Bytes::from_static(b"body")));
    let good = batch(&[(A, &[(NOW, 7)])]);
    let taken = ingest.push_logs(good, body(), None).await;
    assert_eq!(taken, Ok(super::Taken::default()));
    let mixed = batch(&[(A, &[(NOW, 7), (0, 9)])]);
    assert_eq!(
        ingest
            .push_logs(mixed, body(), None)
            .await
            .expect("partly stored")
            .refused_entries,
        1
    );
    let bad = batch(&[(A, &[(0, 9)])]);
    assert_eq!(
        ingest
            .push_logs(bad, body(), None)
            .await
            .expect("refusals")
            .refusals
            .len(),
        1
    );
    assert!(
        ingest
            .push_logs(batch(&[(B, &[(NOW, 7)])]), None, None)
            .await
            .is_ok()
    );

    let got = sink.got.lock();
    assert_eq!(
        got.len(),
        3,
        "nothing is sent on of a push of which nothing is left"
    );
    let Received::Body {
        format: 1,
        coding: 0,
        flags: FLAG_SERVICE_NAME,
        bytes,
    } = &got[0].1
    else {
        panic!("the body: {:?}", got[0].1)
    };
    assert_eq!(bytes, "body");
    assert!(matches!(got[1].1, Received::Normalised) && matches!(got[2].1, Received::Normalised));
    let rendered = metrics.render();
    assert!(
        rendered.contains("watchpost_ingest_lines_total 3"),
        "{rendered}"
    );
    assert!(rendered.contains("watchpost_ingest_line_bytes_total 21"));
    assert!(rendered.contains(r#"{reason="greater_than_max_sample_age"} 2"#));
}

#[tokio::test]
async fn a_sink_that_refuses_refuses_the_push() {
    let sink = Arc::new(Kept {
        refuse: true,
        ..Kept::default()
    });
    let metrics = Metrics::default();
    let refused = ingest(&sink, &metrics)
        .push_logs(batch(&[(A, &[(NOW, 7)])]), None, None)
        .await;
    assert_eq!(refused.expect_err("refused").kind, RefusalKind::Unavailable);
    assert!(metrics.render().contains("watchpost_ingest_lines_total 0"));
}

proptest! {
    /// What replay makes of an accepted body is what was accepted (I2).
    #[test]
    fn an_untouched_batch_is_what_complete_gives(
        names in prop::collection::vec(prop::sample::subsequence(
            vec!["app", "job", "service_name", "x"], 1..4), 1..4),
        times in prop::collection::vec(-3 * HOUR..20 * MINUTE, 1..5),
        discover: bool,
    ) {
        let mut sent = LogBatch { text: Bytes::from_static(b"x"), ..LogBatch::default() };
        for names in &names {
            sent.streams.push(StreamEntries {
                id: StreamId(0),
                labels: Labels::from_pairs(names.iter().map(|n| (*n, "v"))),
                entries: times.iter()
                    .map(|t| LogEntry { at: NOW + t, start: 0, len: 1, metadata: 0 }).collect(),
            });
        }
        let mut replayed = sent.clone();
        let limits = LogLimits { reject_older_than: Some(Duration::from_secs(2 * 3600)), ..LogLimits::default() };
        let admission = Admission::new(limits, discover.then(Discovery::default));
        let admitted = admission.admit(&mut sent, NOW);
        complete(&mut replayed, admission.body_flags());
        let same = sent.entry_count() == replayed.entry_count();
        prop_assert_eq!(admitted.untouched, same);
        prop_assert_eq!(replayed.entry_count() - sent.entry_count(), admitted.refused_entries);
        if same {
            for (a, b) in sent.streams.iter().zip(&replayed.streams) {
                prop_assert_eq!((&a.labels, a.id, &a.entries), (&b.labels, b.id, &b.entries));
            }
        }
    }
}

#[test]
fn a_stream_that_is_kept_less_long_takes_no_lines_older_than_that() {
    let limits = LogLimits {
        max_behind: None,
        ..LogLimits::default()
    };
    let admission = plain(limits).with_ages(Some(logs::StreamAges {
        shortest: Duration::from_secs(24 * 3600),
        of: Box::new(|labels| labels.get("a").map(|_| Duration::from_secs(24 * 3600))),
    }));
    let old = NOW - 30 * HOUR;
    let mut sent = batch(&[(A, &[(old, 1), (NOW, 1)]), (B, &[(old, 1)])]);
    let admitted = admission.admit(&mut sent, NOW);
    check_refused(&admitted, "greater_than_max_sample_age", &["{a=\"1\"}"]);
    assert_eq!(admitted.refused_entries, 1);
    assert_eq!(sent.streams.len(), 2);
}
