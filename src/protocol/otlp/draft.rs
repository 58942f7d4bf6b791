//! A span of OTLP while it is read, and what becomes of it in Jaeger's model.

use std::sync::Arc;

use crate::model::trace::{Process, RefType, Span, SpanId, SpanLog, SpanRef, Tag, TraceId};
use crate::protocol::SpanFormat;
use crate::protocol::sanitize::{self, FORMAT_TAG, MISSING_SERVICE, RawValue};

/// The resource: whose spans follow.
#[derive(Default)]
pub struct Resource {
    /// `service.name` as text, when there is one.
    pub service: Option<Vec<u8>>,
    /// All other attributes.
    pub tags: Vec<Tag>,
}

/// A resource as a process, and the tag for each span when its name was no text.
pub struct Emitter {
    pub process: Arc<Process>,
    service_tag: Option<Tag>,
}

impl Resource {
    pub fn finish(self) -> Emitter {
        let (service, service_tag) = match &self.service {
            None => (MISSING_SERVICE.into(), None),
            Some(name) => sanitize::service(name),
        };
        Emitter {
            process: Arc::new(Process {
                service,
                tags: self.tags,
            }),
            service_tag,
        }
    }
}

/// The instrumentation scope's two tags, which come before a span's own.
pub fn scope_tags(name: &[u8], version: &[u8]) -> Vec<Tag> {
    let mut tags = Vec::new();
    if !name.is_empty() {
        tags.push(sanitize::tag(b"otel.scope.name", RawValue::String(name)));
    }
    if !version.is_empty() {
        tags.push(sanitize::tag(
            b"otel.scope.version",
            RawValue::String(version),
        ));
    }
    tags
}

/// A link to another span.
pub struct Link {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub kind: RefType,
}

/// What has been read of a span.
#[derive(Default)]
pub struct Draft<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// 0: a root.
    pub parent: SpanId,
    pub name: &'a [u8],
    pub kind: i64,
    pub start: u64,
    pub end: u64,
    /// The scope's tags, then the attributes.
    pub tags: Vec<Tag>,
    pub logs: Vec<SpanLog>,
    pub links: Vec<Link>,
    pub status_code: i64,
    pub status_message: &'a [u8],
    pub trace_state: &'a [u8],
}

impl Draft<'_> {
    pub fn finish(mut self, emitter: &Emitter) -> Result<Span, String> {
        if self.trace_id.0 == 0 {
            return Err("a span has an empty trace id".into());
        }
        if self.span_id.0 == 0 {
            return Err(format!(
                "a span of trace {} has an empty span id",
                self.trace_id
            ));
        }
        let kind = match self.kind {
            1 => Some(const { Tag::known("span.kind", "internal") }),
            2 => Some(const { Tag::known("span.kind", "server") }),
            3 => Some(const { Tag::known("span.kind", "client") }),
            4 => Some(const { Tag::known("span.kind", "producer") }),
            5 => Some(const { Tag::known("span.kind", "consumer") }),
            _ => None,
        };
        // Room for everything below, so that the tags move at most once.
        self.tags.reserve(4);
        self.tags.extend(kind);
        match self.status_code {
            1 => self
                .tags
                .push(const { Tag::known("otel.status_code", "OK") }),
            2 => {
                self.tags
                    .push(const { Tag::known("otel.status_code", "ERROR") });
                self.tags.push(Tag::bool("error", true));
            }
            _ => {}
        }
        if !self.status_message.is_empty() {
            self.tags.push(sanitize::tag(
                b"otel.status_description",
                RawValue::String(self.status_message),
            ));
        }
        if !self.trace_state.is_empty() {
            self.tags.push(sanitize::tag(
                b"w3c.tracestate",
                RawValue::String(self.trace_state),
            ));
        }
        let start = i64::try_from(self.start).unwrap_or(i64::MAX);
        let end = i64::try_from(self.end).unwrap_or(i64::MAX);
        let operation = sanitize::operation(self.name, &mut self.tags);
        let duration = sanitize::duration(end.saturating_sub(start), &mut self.tags);
        self.tags.extend(emitter.service_tag.clone());
        self.tags
            .push(const { Tag::known(FORMAT_TAG, SpanFormat::OtlpProto.mark()) });
        Ok(Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            operation,
            references: references(self.trace_id, self.parent, &self.links),
            flags: 0,
            start,
            duration,
            tags: self.tags,
            logs: self.logs,
            process: emitter.process.clone(),
            warnings: Vec::new(),
        })
    }
}

/// The parent first; a link to it makes no second reference.
fn references(trace_id: TraceId, parent: SpanId, links: &[Link]) -> Vec<SpanRef> {
    let mut references = Vec::with_capacity(links.len() + usize::from(parent.0 != 0));
    if parent.0 != 0 {
        references.push(SpanRef {
            kind: RefType::ChildOf,
            trace_id,
            span_id: parent,
        });
    }
    for link in links {
        if parent.0 == 0 || link.trace_id != trace_id || link.span_id != parent {
            references.push(SpanRef {
                kind: link.kind,
                trace_id: link.trace_id,
                span_id: link.span_id,
            });
        }
    }
    references
}

/// The kind of reference that a link's `opentracing.ref_type` asks for.
pub fn link_kind(reference_type: &[u8]) -> RefType {
    if reference_type == b"child_of" {
        RefType::ChildOf
    } else {
        RefType::FollowsFrom
    }
}

/// A log from an event: its name is the field `event`, unless an attribute has that key.
pub fn event_log(at: u64, name: &[u8], attributes: Vec<Tag>) -> SpanLog {
    let mut fields = attributes;
    if !name.is_empty() && !fields.iter().any(|tag| &*tag.key == "event") {
        fields.insert(0, sanitize::tag(b"event", RawValue::String(name)));
    }
    SpanLog {
        at: i64::try_from(at).unwrap_or(i64::MAX),
        fields,
    }
}
