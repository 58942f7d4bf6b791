//! What a message of spans holds, by service, and how its traces were sampled: looked at once,
//! before the spans are handed on.

use std::sync::Arc;

use crate::model::trace::{Process, Span, SpanBatch, TagValue, Text};

/// Who decided that a trace is kept; the value of the tag `sampler.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerType {
    Probabilistic,
    LowerBound,
    RateLimiting,
    Const,
    /// Another, or the tag is not there.
    Unknown,
}

impl SamplerType {
    pub const ALL: [Self; 5] = [
        Self::Probabilistic,
        Self::LowerBound,
        Self::RateLimiting,
        Self::Const,
        Self::Unknown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Probabilistic => "probabilistic",
            Self::LowerBound => "lowerbound",
            Self::RateLimiting => "ratelimiting",
            Self::Const => "const",
            Self::Unknown => "unknown",
        }
    }

    fn of(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.unwrap_or(Self::Unknown)
    }
}

/// First span of a trace, that was sampled by a rule that adaptive sampling can change.
#[derive(Clone, Debug)]
pub struct Root {
    pub process: Arc<Process>,
    pub operation: Text,
    pub sampler: SamplerType,
    /// A probability or a rate.
    pub param: f64,
}

/// Counts of spans that share a process.
#[derive(Clone, Debug)]
pub struct OfProcess {
    pub process: Arc<Process>,
    /// Spans without and with the debug flag.
    pub spans: [u64; 2],
    /// First spans of traces, the same, by sampler.
    pub traces: [[u64; SamplerType::ALL.len()]; 2],
}

/// What a message holds.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub processes: Vec<OfProcess>,
    /// Only when asked for.
    pub roots: Vec<Root>,
}

/// Whether first spans are wanted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots {
    Wanted,
    Unwanted,
}

/// Flag of a span that its sender wants to see kept in any case.
const DEBUG: u32 = 2;

impl Seen {
    pub fn of(batch: &SpanBatch, roots: Roots) -> Self {
        let mut seen = Self::default();
        for span in &batch.spans {
            let debug = usize::from(span.flags & DEBUG != 0);
            let counts = seen.counts(&span.process);
            counts.spans[debug] += 1;
            if span.references.iter().any(|r| r.trace_id == span.trace_id) {
                continue;
            }
            let (sampler, param) = sampler_of(span);
            counts.traces[debug][sampler as usize] += 1;
            let counted = matches!(
                sampler,
                SamplerType::Probabilistic | SamplerType::LowerBound | SamplerType::RateLimiting
            );
            if roots == Roots::Wanted
                && counted
                && let Some(param) = param
            {
                seen.roots.push(Root {
                    process: span.process.clone(),
                    operation: span.operation.clone(),
                    sampler,
                    param,
                });
            }
        }
        seen
    }

    /// Spans of one process mostly follow each other.
    fn counts(&mut self, process: &Arc<Process>) -> &mut OfProcess {
        let last = self.processes.last();
        if last.is_none_or(|last| !Arc::ptr_eq(&last.process, process)) {
            self.processes.push(OfProcess {
                process: process.clone(),
                spans: [0; 2],
                traces: Default::default(),
            });
        }
        let last = self.processes.len() - 1;
        &mut self.processes[last]
    }
}

fn sampler_of(span: &Span) -> (SamplerType, Option<f64>) {
    let (mut sampler, mut param) = (SamplerType::Unknown, None);
    for tag in &span.tags {
        match (&*tag.key, &tag.value) {
            ("sampler.type", TagValue::String(kind)) => sampler = SamplerType::of(kind),
            ("sampler.param", TagValue::Float64(value)) => param = Some(*value),
            ("sampler.param", TagValue::Int64(value)) => param = Some(*value as f64),
            ("sampler.param", TagValue::String(text)) => param = text.parse().ok(),
            _ => {}
        }
    }
    (sampler, param)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::{RefType, SpanId, SpanRef, Tag, TraceId};

    fn span(service: &Arc<Process>, tags: Vec<Tag>) -> Span {
        Span {
            trace_id: TraceId(1),
            span_id: SpanId(1),
            operation: "op".into(),
            references: vec![],
            flags: 1,
            start: 0,
            duration: 0,
            tags,
            logs: vec![],
            process: service.clone(),
            warnings: vec![],
        }
    }

    fn param(value: TagValue) -> Tag {
        Tag {
            key: "sampler.param".into(),
            value,
        }
    }

    #[test]
    fn spans_are_counted_by_process_and_first_ones_by_sampler() {
        let process = |service: &str| {
            let service = service.into();
            Arc::new(Process {
                service,
                tags: vec![],
            })
        };
        let (a, b) = (process("a"), process("b"));
        let probabilistic = Tag::string("sampler.type", "probabilistic");
        let mut child = span(
            &a,
            vec![probabilistic.clone(), param(TagValue::Float64(0.5))],
        );
        child.references.push(SpanRef {
            kind: RefType::FollowsFrom,
            trace_id: TraceId(1),
            span_id: SpanId(9),
        });
        let mut debug = span(&a, vec![]);
        debug.flags = 3;
        let mut linked = span(&b, vec![Tag::string("sampler.type", "lowerbound")]);
        linked.tags.push(param(TagValue::String("0.25".into())));
        // A link into another trace is no parent.
        linked.references.push(SpanRef {
            kind: RefType::FollowsFrom,
            trace_id: TraceId(2),
            span_id: SpanId(9),
        });
        let spans = vec![
            child,
            debug,
            span(&a, vec![probabilistic, param(TagValue::Int64(1))]),
            linked,
            span(
                &b,
                vec![
                    Tag::string("sampler.type", "const"),
                    param(TagValue::Bool(true)),
                ],
            ),
        ];
        let seen = Seen::of(&SpanBatch { spans }, Roots::Wanted);
        let counts: Vec<_> = seen
            .processes
            .iter()
            .map(|p| (&*p.process.service, p.spans, p.traces))
            .collect();
        assert_eq!(
            counts,
            [
                ("a", [2, 1], [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]),
                ("b", [2, 0], [[0, 1, 0, 1, 0], [0; 5]]),
            ]
        );
        let roots: Vec<_> = seen.roots.iter().map(|r| (r.sampler, r.param)).collect();
        assert_eq!(
            roots,
            [
                (SamplerType::Probabilistic, 1.0),
                (SamplerType::LowerBound, 0.25)
            ]
        );
    }
}
