//! Model → OTLP's messages, by the rules that Jaeger has for it.
//!
//! E1. What OTLP has a field for leaves the tags: kind, status, scope, trace state, an event's
//!     name. Each is taken from one tag; everything else stays an attribute, repeated keys too.
//! E2. Spans are grouped by process and scope, in order of first use; within a group they keep
//!     their order.
//! E3. Flags of Jaeger's have no place and are lost, as in Jaeger.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::model::trace::{Process, RefType, Span, SpanLog, SpanRef, Tag, TagValue};
use crate::protocol::wire::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use crate::protocol::wire::opentelemetry::proto::resource::v1::Resource;
use crate::protocol::wire::opentelemetry::proto::trace::v1::{
    ResourceSpans, ScopeSpans, Span as SpanMessage, Status, span, status::StatusCode,
};

/// Attribute that carries a span's warnings.
pub const WARNINGS: &str = "@jaeger@warnings";
/// Attribute of a link that says what reference it was.
const REFERENCE_TYPE: &str = "opentracing.ref_type";

/// Spans as OTLP has them.
pub fn resource_spans<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<ResourceSpans> {
    let mut groups = Groups::default();
    for span in spans {
        let (message, scope) = convert(span);
        let group = groups.of(&span.process);
        let scopes = &mut group.message.scope_spans;
        let at = *group.scopes.entry(scope).or_insert_with_key(|scope| {
            scopes.push(ScopeSpans {
                scope: (*scope != Scope::default()).then(|| InstrumentationScope {
                    name: scope.name.to_owned(),
                    version: scope.version.to_owned(),
                    ..InstrumentationScope::default()
                }),
                ..ScopeSpans::default()
            });
            scopes.len() - 1
        });
        if let Some(scope) = scopes.get_mut(at) {
            scope.spans.push(message);
        }
    }
    groups.known.into_iter().map(|g| g.message).collect()
}

/// Whether OTLP's status of a span is an error.
pub fn is_error(span: &Span) -> bool {
    Read::of(span).status.0 == StatusCode::Error
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Scope<'a> {
    name: &'a str,
    version: &'a str,
}

/// Spans of one process.
struct Group<'a> {
    process: &'a Process,
    message: ResourceSpans,
    scopes: HashMap<Scope<'a>, usize>,
}

#[derive(Default)]
struct Groups<'a> {
    known: Vec<Group<'a>>,
    by_hash: HashMap<u64, Vec<usize>>,
    last: usize,
}

impl<'a> Groups<'a> {
    fn of(&mut self, process: &'a Process) -> &mut Group<'a> {
        // Spans of one batch share theirs, and batches come one after the other.
        let is_last = |group: &Group<'_>| std::ptr::eq(group.process, process);
        if !self.known.get(self.last).is_some_and(is_last) {
            let alike = self.by_hash.entry(hash(process)).or_default();
            let known = alike
                .iter()
                .find(|n| self.known.get(**n).is_some_and(|g| g.process == process));
            self.last = match known {
                Some(n) => *n,
                None => {
                    self.known.push(Group {
                        process,
                        message: ResourceSpans {
                            resource: Some(resource(process)),
                            ..ResourceSpans::default()
                        },
                        scopes: HashMap::new(),
                    });
                    alike.push(self.known.len() - 1);
                    self.known.len() - 1
                }
            };
        }
        &mut self.known[self.last]
    }
}

fn hash(process: &Process) -> u64 {
    let mut hasher = DefaultHasher::new();
    process.service.hash(&mut hasher);
    for tag in &process.tags {
        tag.key.hash(&mut hasher);
        if let TagValue::String(text) = &tag.value {
            text.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// A process as a resource; what Jaeger's clients call otherwise gets OTLP's name.
fn resource(process: &Process) -> Resource {
    let has = |key: &str| process.tags.iter().any(|tag| &*tag.key == key);
    let (has_host, has_exporter) = (has("host.name"), has("opencensus.exporterversion"));
    let mut attributes = Vec::with_capacity(process.tags.len() + 1);
    attributes.push(text_attribute("service.name", &process.service));
    for tag in &process.tags {
        attributes.push(match (&*tag.key, &tag.value) {
            ("hostname", _) if !has_host => KeyValue {
                key: "host.name".to_owned(),
                ..attribute(tag)
            },
            ("jaeger.version", TagValue::String(version)) if !has_exporter => {
                text_attribute("opencensus.exporterversion", &format!("Jaeger-{version}"))
            }
            _ => attribute(tag),
        });
    }
    Resource {
        attributes,
        ..Resource::default()
    }
}

/// What a span's tags say that OTLP has fields for, and which tags those are.
struct Read<'a> {
    kind: span::SpanKind,
    status: (StatusCode, &'a str),
    scope: Scope<'a>,
    trace_state: &'a str,
    /// Places among the tags.
    taken: Vec<usize>,
}

/// The first tag with this key and a text.
fn text<'a>(tags: &'a [Tag], key: &str) -> Option<(usize, &'a str)> {
    tags.iter()
        .enumerate()
        .find_map(|(at, tag)| match &tag.value {
            TagValue::String(text) if &*tag.key == key => Some((at, &**text)),
            _ => None,
        })
}

impl<'a> Read<'a> {
    fn of(span: &'a Span) -> Self {
        let tags = &span.tags;
        let mut taken = Vec::new();
        let mut kind = span::SpanKind::Unspecified;
        if let Some((at, name)) = text(tags, "span.kind")
            && let Some(known) = kind_of(name)
        {
            taken.push(at);
            kind = known;
        }
        let mut take = |key: &str| {
            let (at, text) = text(tags, key)?;
            taken.push(at);
            Some(text)
        };
        let name = take("otel.scope.name").or_else(|| take("otel.library.name"));
        let version = take("otel.scope.version").or_else(|| take("otel.library.version"));
        let scope = Scope {
            name: name.unwrap_or_default(),
            version: version.unwrap_or_default(),
        };
        let trace_state = take("w3c.tracestate").unwrap_or_default();
        let status = status(tags, kind, &mut taken);
        Self {
            kind,
            status,
            scope,
            trace_state,
            taken,
        }
    }
}

fn kind_of(name: &str) -> Option<span::SpanKind> {
    Some(match name {
        "internal" => span::SpanKind::Internal,
        "server" => span::SpanKind::Server,
        "client" => span::SpanKind::Client,
        "producer" => span::SpanKind::Producer,
        "consumer" => span::SpanKind::Consumer,
        _ => return None,
    })
}

/// An `error` that is true decides; else what OTLP's own tag says; else the status of HTTP,
/// whose tag stays.
fn status<'a>(
    tags: &'a [Tag],
    kind: span::SpanKind,
    taken: &mut Vec<usize>,
) -> (StatusCode, &'a str) {
    let failed = tags
        .iter()
        .position(|tag| &*tag.key == "error" && tag.value == TagValue::Bool(true));
    let said = text(tags, "otel.status_code").and_then(|(at, text)| {
        let code = [
            ("OK", StatusCode::Ok),
            ("ERROR", StatusCode::Error),
            ("UNSET", StatusCode::Unset),
        ];
        let code = code
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        code.map(|(_, code)| (at, *code))
    });
    let http_message = || text(tags, "http.status_message").map_or("", |(_, text)| text);
    let code = match (failed, said) {
        (Some(at), _) => {
            taken.push(at);
            taken.extend(said.map(|(at, _)| at));
            StatusCode::Error
        }
        (None, Some((at, code))) => {
            taken.push(at);
            code
        }
        (None, None) => {
            let code = http_status(tags).unwrap_or_default();
            let server = kind == span::SpanKind::Server;
            if code >= 500 || (code >= 400 && !server) {
                return (StatusCode::Error, http_message());
            }
            return (StatusCode::Unset, "");
        }
    };
    let message = match text(tags, "otel.status_description") {
        Some((at, text)) => {
            taken.push(at);
            text
        }
        None if failed.is_some() => http_message(),
        None => "",
    };
    (code, message)
}

/// The status of HTTP, in any of the forms that clients give it.
fn http_status(tags: &[Tag]) -> Option<i64> {
    let tag = tags.iter().find(|tag| &*tag.key == "http.status_code")?;
    match &tag.value {
        TagValue::Int64(code) => Some(*code),
        TagValue::Float64(code) => Some(*code as i64),
        TagValue::String(text) => text.parse().ok(),
        TagValue::Bool(_) | TagValue::Binary(_) => None,
    }
}

fn convert(span: &Span) -> (SpanMessage, Scope<'_>) {
    let read = Read::of(span);
    let mut attributes: Vec<KeyValue> = span
        .tags
        .iter()
        .enumerate()
        .filter(|(at, _)| !read.taken.contains(at))
        .map(|(_, tag)| attribute(tag))
        .collect();
    if !span.warnings.is_empty() {
        let values = span.warnings.iter().map(|warning| any_text(warning));
        attributes.push(KeyValue {
            key: WARNINGS.to_owned(),
            value: Some(AnyValue {
                value: Some(any_value::Value::ArrayValue(ArrayValue {
                    values: values.collect(),
                })),
            }),
        });
    }
    let parent = span.parent().filter(|parent| parent.0 != 0);
    let is_parent = |r: &SpanRef| {
        r.kind == RefType::ChildOf && r.trace_id == span.trace_id && Some(r.span_id) == parent
    };
    // Only the reference that names the parent; another to the same span stays a link.
    let parent_at = span.references.iter().position(is_parent);
    let links = span.references.iter().enumerate();
    let links = links
        .filter(|(at, _)| Some(*at) != parent_at)
        .map(|(_, reference)| link(reference));
    let (code, message) = read.status;
    let start = u64::try_from(span.start).unwrap_or(0);
    let message = SpanMessage {
        trace_id: id(&span.trace_id.0.to_be_bytes()),
        span_id: id(&span.span_id.0.to_be_bytes()),
        trace_state: read.trace_state.to_owned(),
        parent_span_id: parent.map_or_else(Bytes::new, |parent| id(&parent.0.to_be_bytes())),
        name: span.operation.to_string(),
        kind: read.kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(span.duration),
        attributes,
        events: span.logs.iter().map(event).collect(),
        links: links.collect(),
        status: Some(Status {
            code: code as i32,
            message: message.to_owned(),
        }),
        ..SpanMessage::default()
    };
    (message, read.scope)
}

fn id(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn link(reference: &SpanRef) -> span::Link {
    let kind = match reference.kind {
        RefType::ChildOf => "child_of",
        RefType::FollowsFrom => "follows_from",
    };
    span::Link {
        trace_id: id(&reference.trace_id.0.to_be_bytes()),
        span_id: id(&reference.span_id.0.to_be_bytes()),
        attributes: vec![text_attribute(REFERENCE_TYPE, kind)],
        ..span::Link::default()
    }
}

fn event(log: &SpanLog) -> span::Event {
    let name = text(&log.fields, "event");
    let fields = log.fields.iter().enumerate();
    let fields = fields.filter(|(at, _)| name.is_none_or(|(name, _)| name != *at));
    span::Event {
        time_unix_nano: u64::try_from(log.at).unwrap_or(0),
        name: name.map_or("", |(_, text)| text).to_owned(),
        attributes: fields.map(|(_, tag)| attribute(tag)).collect(),
        ..span::Event::default()
    }
}

fn attribute(tag: &Tag) -> KeyValue {
    let value = match &tag.value {
        TagValue::String(text) => any_value::Value::StringValue(text.to_string()),
        TagValue::Bool(value) => any_value::Value::BoolValue(*value),
        TagValue::Int64(value) => any_value::Value::IntValue(*value),
        TagValue::Float64(value) => any_value::Value::DoubleValue(*value),
        TagValue::Binary(bytes) => any_value::Value::BytesValue(Bytes::copy_from_slice(bytes)),
    };
    KeyValue {
        key: tag.key.to_string(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn text_attribute(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any_text(text)),
    }
}

fn any_text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
