//! What of a block says who called whom.

use crate::model::time::MINUTE;
use crate::model::trace::{RefType, SpanId, TraceId};

use super::{SpanBlock, SpanRow, Value};

/// The spans of a block, as far as they are links of traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Distinct.
    pub services: Vec<Box<str>>,
    /// Distinct.
    pub traces: Vec<TraceId>,
    /// In order of arrival.
    pub rows: Vec<Link>,
}

/// One span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of its trace.
    pub trace: u32,
    /// Index of its service.
    pub service: u32,
    pub span: SpanId,
    pub parent: Option<SpanId>,
    /// Its start, since 1970.
    pub minute: i32,
    pub role: Role,
    /// Start and duration in a few bits: equal in what is an exact repetition.
    pub check: u16,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Other = 0,
    Client = 1,
    Server = 2,
}

/// Bits of [`Link::check`].
pub const CHECK_BITS: u32 = 12;

impl Links {
    /// Memory that they take, bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.rows.len() * size_of::<Link>()
            + self.traces.len() * size_of::<TraceId>()
            + self
                .services
                .iter()
                .map(|name| 16 + name.len())
                .sum::<usize>()
    }
}

impl SpanBlock {
    /// What links the spans to others.
    pub fn links(&self) -> Links {
        let kind = self.names.position("span.kind");
        let roles: Vec<Option<Role>> = self
            .tags
            .iter()
            .map(|tag| match tag.value {
                Value::Text(start, end) if Some(tag.key) == kind => {
                    match &self.values[start as usize..end as usize] {
                        "client" => Some(Role::Client),
                        "server" => Some(Role::Server),
                        _ => Some(Role::Other),
                    }
                }
                _ => None,
            })
            .collect();
        let role_of = |span: &SpanRow| {
            let tags = self.tag_lists[span.tags.range()].iter();
            let mut roles = tags.filter_map(|tag| roles[*tag as usize]);
            roles.next().unwrap_or(Role::Other)
        };
        // Processes of one service are one.
        let mut services: Vec<u32> = Vec::new();
        let places: Vec<u32> = self
            .processes
            .iter()
            .map(|process| {
                let known = services.iter().position(|name| *name == process.service);
                known.unwrap_or_else(|| {
                    services.push(process.service);
                    services.len() - 1
                }) as u32
            })
            .collect();
        let rows = self.spans.iter().map(|span| Link {
            trace: span.trace,
            service: places[span.process as usize],
            span: span.span_id,
            parent: self.parent_of(span),
            minute: span.start.div_euclid(MINUTE) as i32,
            role: role_of(span),
            check: check(span),
        });
        Links {
            rows: rows.collect(),
            traces: self.traces.clone(),
            services: services.iter().map(|n| self.names.get(*n).into()).collect(),
        }
    }

    /// As [`crate::model::trace::Span::parent`]; 0 is no id.
    fn parent_of(&self, span: &SpanRow) -> Option<SpanId> {
        let trace = self.traces[span.trace as usize];
        let refs = &self.refs[span.refs.range()];
        let parent = refs
            .iter()
            .find(|r| r.kind == RefType::ChildOf && r.trace_id == trace)?;
        (parent.span_id.0 != 0).then_some(parent.span_id)
    }
}

fn check(span: &SpanRow) -> u16 {
    let mixed =
        (span.start as u64 ^ span.duration.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - CHECK_BITS)) as u16
}
