//! A trace in short, as Jaeger's newer UI lists what it found: counted span by span, so that
//! no trace has to be held as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use crate::model::Timestamp;
use crate::model::trace::{Span, SpanId, TraceId};
use crate::protocol::otlp::encode;
use crate::protocol::wire::jaeger::{api_v3, storage};

use super::proto::trace_id_bytes;

/// What is told of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub trace_id: TraceId,
    /// Service and operation of the earliest span without a parent; empty when there is none.
    pub root: (String, String),
    pub first_start: Timestamp,
    pub last_end: Timestamp,
    pub spans: u32,
    pub errors: u32,
    /// Spans whose parent is not in the trace.
    pub orphans: u32,
    /// By name: spans, and those of them with an error.
    pub services: BTreeMap<String, (u32, u32)>,
}

/// Counts the spans of one trace.
#[derive(Default)]
pub struct Summarizer {
    summary: Summary,
    root: Option<(Timestamp, SpanId)>,
    ids: HashSet<SpanId>,
    /// Spans that name this parent.
    parents: HashMap<SpanId, u32>,
}

impl Summarizer {
    pub fn take(&mut self, span: &Span) {
        let summary = &mut self.summary;
        let end = i64::try_from(span.duration).unwrap_or(i64::MAX);
        let end = span.start.saturating_add(end);
        if summary.spans == 0 {
            summary.trace_id = span.trace_id;
            (summary.first_start, summary.last_end) = (span.start, end);
        }
        summary.first_start = summary.first_start.min(span.start);
        summary.last_end = summary.last_end.max(end);
        let failed = u32::from(encode::is_error(span));
        summary.spans += 1;
        summary.errors += failed;
        let name: &str = &span.process.service;
        // No copy of the name for each span.
        if let Some(service) = summary.services.get_mut(name) {
            *service = (service.0 + 1, service.1 + failed);
        } else {
            summary.services.insert(name.to_owned(), (1, failed));
        }
        match span.parent().filter(|parent| parent.0 != 0) {
            Some(parent) => *self.parents.entry(parent).or_default() += 1,
            None => {
                let this = (span.start, span.span_id);
                if self.root.is_none_or(|earliest| this < earliest) {
                    self.root = Some(this);
                    summary.root = (name.to_owned(), span.operation.to_string());
                }
            }
        }
        self.ids.insert(span.span_id);
    }

    /// What was counted; `None` when no span was.
    pub fn finish(mut self) -> Option<Summary> {
        if self.summary.spans == 0 {
            return None;
        }
        let orphans = self.parents.iter();
        let orphans = orphans.filter(|(parent, _)| !self.ids.contains(parent));
        self.summary.orphans = orphans.map(|(_, spans)| spans).sum();
        Some(self.summary)
    }
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Nanoseconds since 1970, as OTLP counts them.
fn unsigned(at: Timestamp) -> u64 {
    u64::try_from(at).unwrap_or(0)
}

impl Summary {
    /// All 32 digits of the id: the UI knows no shorter ones here.
    fn long_id(&self) -> String {
        format!("{:032x}", self.trace_id.0)
    }

    /// As version 3 answers it over HTTP.
    pub fn json(&self) -> Value {
        let services = self.services.iter().map(|(name, (spans, errors))| {
            json!({ "name": name, "spanCount": spans, "errorSpanCount": errors })
        });
        json!({
            "traceId": self.long_id(),
            "rootServiceName": self.root.0,
            "rootOperationName": self.root.1,
            "minStartTimeUnixNano": unsigned(self.first_start).to_string(),
            "maxEndTimeUnixNano": unsigned(self.last_end).to_string(),
            "spanCount": self.spans,
            "errorSpanCount": self.errors,
            "orphanSpanCount": self.orphans,
            "services": services.collect::<Vec<Value>>(),
        })
    }

    /// As version 3 answers it over gRPC.
    pub fn api_v3(&self) -> api_v3::TraceSummary {
        let services = self.services.iter();
        let services = services.map(|(name, (spans, errors))| api_v3::ServiceSummary {
            name: name.clone(),
            span_count: count(*spans),
            error_span_count: count(*errors),
        });
        api_v3::TraceSummary {
            trace_id: self.long_id(),
            root_service_name: self.root.0.clone(),
            root_operation_name: self.root.1.clone(),
            min_start_time_unix_nano: unsigned(self.first_start),
            max_end_time_unix_nano: unsigned(self.last_end),
            span_count: count(self.spans),
            error_span_count: count(self.errors),
            orphan_span_count: count(self.orphans),
            services: services.collect(),
        }
    }

    /// As remote storage answers it.
    pub fn storage_v2(&self) -> storage::v2::TraceSummary {
        let services = self.services.iter();
        let services = services.map(|(name, (spans, errors))| storage::v2::ServiceSummary {
            name: name.clone(),
            span_count: count(*spans),
            error_span_count: count(*errors),
        });
        storage::v2::TraceSummary {
            trace_id: trace_id_bytes(self.trace_id),
            root_service_name: self.root.0.clone(),
            root_operation_name: self.root.1.clone(),
            min_start_time_unix_nano: unsigned(self.first_start),
            max_end_time_unix_nano: unsigned(self.last_end),
            span_count: count(self.spans),
            error_span_count: count(self.errors),
            orphan_span_count: count(self.orphans),
            services: services.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::trace::{Process, RefType, SpanRef, Tag};

    fn span(id: u64, parent: u64, service: &str, start: i64, tags: Vec<Tag>) -> Span {
        let references = (parent != 0).then_some(SpanRef {
            kind: RefType::ChildOf,
            trace_id: TraceId(7),
            span_id: SpanId(parent),
        });
        Span {
            trace_id: TraceId(7),
            span_id: SpanId(id),
            operation: format!("op{id}").into(),
            references: references.into_iter().collect(),
            flags: 0,
            start,
            duration: 10,
            tags,
            logs: vec![],
            process: Arc::new(Process {
                service: service.into(),
                tags: vec![],
            }),
            warnings: vec![],
        }
    }

    #[test]
    fn a_summary_counts_spans_errors_and_orphans_in_any_order() {
        let failed = || vec![Tag::bool("error", true)];
        let mut spans = [
            span(2, 1, "b", 105, failed()),
            span(1, 0, "a", 100, vec![]),
            span(5, 0, "c", 101, vec![]),
            span(3, 9, "b", 90, vec![]),
            span(4, 9, "a", 120, failed()),
        ];
        for _ in 0..spans.len() {
            spans.rotate_left(1);
            let mut summarizer = Summarizer::default();
            spans.iter().for_each(|span| summarizer.take(span));
            let services = [("a", (2, 1)), ("b", (2, 1)), ("c", (1, 0))];
            let expected = Summary {
                trace_id: TraceId(7),
                root: ("a".into(), "op1".into()),
                first_start: 90,
                last_end: 130,
                spans: 5,
                errors: 2,
                orphans: 2,
                services: services.map(|(name, n)| (name.to_owned(), n)).into(),
            };
            assert_eq!(summarizer.finish(), Some(expected));
        }
    }

    #[test]
    fn nothing_has_no_summary_and_orphans_alone_no_root() {
        assert_eq!(Summarizer::default().finish(), None);
        let mut summarizer = Summarizer::default();
        summarizer.take(&span(1, 2, "a", 5, vec![]));
        let summary = summarizer.finish().unwrap();
        assert_eq!(summary.root, Default::default());
        assert_eq!(
            summary.json(),
            json!({
                "traceId": "00000000000000000000000000000007",
                "rootServiceName": "", "rootOperationName": "",
                "minStartTimeUnixNano": "5", "maxEndTimeUnixNano": "15",
                "spanCount": 1, "errorSpanCount": 0, "orphanSpanCount": 1,
                "services": [{ "name": "a", "spanCount": 1, "errorSpanCount": 0 }],
            })
        );
    }
}
