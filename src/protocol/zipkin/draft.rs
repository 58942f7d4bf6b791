//! A span as Zipkin's senders describe it, and what it means in the model.
//!
//! Version 1 says everything in annotations: `cs`, `cr`, `sr`, `ss` (client and server,
//! send and receive), `ms`, `mr` (messages), and in binary annotations: `ca`, `sa`, `ma`
//! (the peer's address), `lc` (local component). Version 2 says it in fields.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::model::time::Timestamp;
use crate::model::trace::{
    Process, RefType, Span, SpanId, SpanLog, SpanRef, Tag, TagValue, TraceId,
};
use crate::protocol::sanitize::{self, FORMAT_TAG, RawValue};

/// Service of a span that names no host.
const UNKNOWN_SERVICE: &str = "unknown-service-name";
/// Jaeger's flag of spans that must be kept.
const DEBUG: u32 = 2;

/// Text as it came; Thrift does not promise UTF-8.
pub type Text<'a> = Cow<'a, [u8]>;

/// Who a span or a peer is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoint<'a> {
    pub service: Text<'a>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub port: u16,
}

/// Something that happened, in microseconds.
#[derive(Clone, Debug)]
pub struct Annotation<'a> {
    pub at: i64,
    pub value: Text<'a>,
    pub host: Option<Rc<Endpoint<'a>>>,
}

/// The value of a binary annotation.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    String(Text<'a>),
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Binary(Text<'a>),
    /// Bytes of another length than their type has, or of an unknown type.
    Unreadable(Text<'a>, String),
}

/// A key, a value, and who says so.
#[derive(Clone, Debug)]
pub struct BinaryAnnotation<'a> {
    pub key: Text<'a>,
    pub value: Value<'a>,
    pub host: Option<Rc<Endpoint<'a>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Client,
    Server,
    Producer,
    Consumer,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    fn tag(self) -> Tag {
        Tag::string("span.kind", self.name())
    }
}

/// A span of either version. Times and durations are microseconds.
#[derive(Clone, Debug, Default)]
pub struct Draft<'a> {
    pub trace_id: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: Text<'a>,
    pub debug: bool,
    pub timestamp: Option<i64>,
    pub duration: Option<i64>,
    /// Version 2 only; version 1 says it in annotations.
    pub kind: Option<Kind>,
    /// Version 2 only.
    pub local: Option<Rc<Endpoint<'a>>>,
    /// Version 2 only.
    pub remote: Option<Endpoint<'a>>,
    pub annotations: Vec<Annotation<'a>>,
    pub binary: Vec<BinaryAnnotation<'a>>,
}

impl<'a> Draft<'a> {
    /// Appends the span, or the two that it is when client and server both wrote into it.
    pub fn finish(mut self, mark: &str, spans: &mut Vec<Span>) {
        let mut tags = Vec::with_capacity(self.binary.len() + 6);
        let mut process_tags = Vec::new();
        self.repair(&mut tags);
        let service = self.service();
        let (service_name, service_tag) =
            sanitize::service(service.as_ref().map_or(b"", |s| &*s.service));
        let ip = service.and_then(|s| s.ipv4);
        for annotation in std::mem::take(&mut self.binary) {
            binary_annotation(annotation, &mut tags, &mut process_tags);
        }
        if let Some(remote) = &self.remote {
            peer(remote, &mut tags);
        }
        if let Some(ip) = ip {
            process_tags.push(int("ip", u32::from(ip).into()));
        }
        let process = Arc::new(Process {
            service: if &*service_name == sanitize::EMPTY_SERVICE {
                UNKNOWN_SERVICE.into()
            } else {
                service_name
            },
            tags: process_tags,
        });

        let kind = self.kind();
        tags.extend(kind.map(Kind::tag));
        let (start, duration) = self.start_and_duration();
        let logs = self
            .annotations
            .iter()
            .filter(|a| core_kind(&a.value).is_none() && !a.value.is_empty())
            .map(log)
            .collect();
        let operation = sanitize::operation(&self.name, &mut tags);
        let references = self.references();
        let flags = if self.debug { DEBUG } else { 0 };
        tags.extend(service_tag);
        tags.push(Tag::string(FORMAT_TAG, mark));
        let span = Span {
            trace_id: self.trace_id,
            span_id: self.id,
            operation,
            references,
            flags,
            start: nanoseconds(start),
            duration: nanoseconds(duration.max(0)) as u64,
            tags,
            logs,
            process,
            warnings: Vec::new(),
        };
        let (sent, received) = (self.time_of(b"cs"), self.time_of(b"sr"));
        let other = match (kind, sent, received) {
            (Some(Kind::Client), Some(_), Some(received)) => {
                Some((Kind::Server, received, self.time_of(b"ss")))
            }
            (Some(Kind::Server), Some(sent), Some(_)) => {
                Some((Kind::Client, sent, self.time_of(b"cr")))
            }
            _ => None,
        };
        let other = other.map(|(kind, start, end)| Span {
            start: nanoseconds(start),
            duration: end.map_or(0, |end| {
                nanoseconds((end.saturating_sub(start)).max(0)) as u64
            }),
            tags: vec![kind.tag(), Tag::string(FORMAT_TAG, mark)],
            logs: Vec::new(),
            ..span.clone()
        });
        spans.push(span);
        spans.extend(other);
    }

    /// Jaeger's sanitizers of Zipkin: what is missing is taken from the annotations, what
    /// is impossible is put right and noted in a tag.
    fn repair(&mut self, tags: &mut Vec<Tag>) {
        if self.timestamp.is_none_or(|t| t == 0) {
            let root = self.parent.is_none_or(|parent| parent.0 == 0);
            let received = self.time_of(b"sr").filter(|_| root);
            self.timestamp = self.time_of(b"cs").or(received);
        }
        match self.duration {
            None => self.duration = Some(self.time_between_annotations()),
            Some(negative) if negative < 0 => {
                tags.push(Tag::string("errNegativeDuration", negative.to_string()));
                self.duration = Some(1);
            }
            Some(_) => {}
        }
        if self.parent == Some(SpanId(0)) {
            tags.push(Tag::string("errZeroParentID", "0"));
            self.parent = None;
        }
    }

    /// From the first annotation to the last, those of the client before all others.
    fn time_between_annotations(&self) -> i64 {
        if let (Some(sent), Some(received)) = (self.time_of(b"cs"), self.time_of(b"cr")) {
            return received.saturating_sub(sent).max(1);
        }
        let times = || self.annotations.iter().map(|a| a.at);
        let (first, last) = (times().min(), times().max());
        let between = last.unwrap_or(0).saturating_sub(first.unwrap_or(0));
        between.max(1)
    }

    fn start_and_duration(&self) -> (i64, i64) {
        let duration = self.duration.unwrap_or(0);
        if let Some(start) = self.timestamp {
            return (start, duration);
        }
        // What is left here: a child that only the server wrote into.
        match (self.time_of(b"sr"), self.time_of(b"ss")) {
            (Some(start), Some(end)) => (start, end.saturating_sub(start)),
            (Some(start), None) => (start, duration),
            (None, _) => (0, duration),
        }
    }

    fn time_of(&self, code: &[u8]) -> Option<i64> {
        let annotation = self.annotations.iter().find(|a| &*a.value == code)?;
        Some(annotation.at)
    }

    fn kind(&self) -> Option<Kind> {
        let first = || self.annotations.iter().find_map(|a| core_kind(&a.value));
        let message = || {
            self.annotations.iter().find_map(|a| match &*a.value {
                b"ms" => Some(Kind::Producer),
                b"mr" => Some(Kind::Consumer),
                _ => None,
            })
        };
        self.kind.or_else(first).or_else(message)
    }

    fn references(&self) -> Vec<SpanRef> {
        let parent = self.parent.map(|span_id| SpanRef {
            kind: RefType::ChildOf,
            trace_id: self.trace_id,
            span_id,
        });
        parent.into_iter().collect()
    }

    /// The host that names the service: of a core annotation, of `lc`, of any annotation,
    /// of any binary annotation.
    fn service(&self) -> Option<Rc<Endpoint<'a>>> {
        let named = |host: &Option<Rc<Endpoint<'a>>>| {
            host.as_ref().filter(|h| !h.service.is_empty()).cloned()
        };
        let core = self
            .annotations
            .iter()
            .filter(|a| core_kind(&a.value).is_some());
        let local = self.binary.iter().filter(|b| &*b.key == b"lc");
        named(&self.local)
            .or_else(|| core.map(|a| &a.host).find_map(named))
            .or_else(|| local.map(|b| &b.host).find_map(named))
            .or_else(|| self.annotations.iter().map(|a| &a.host).find_map(named))
            .or_else(|| {
                let others = self.binary.iter().filter(|b| !is_address(&b.key));
                others.map(|b| &b.host).find_map(named)
            })
            // A host without a name has an address all the same.
            .or_else(|| self.local.clone())
    }
}

/// Whose side a core annotation is of.
fn core_kind(value: &[u8]) -> Option<Kind> {
    match value {
        b"cs" | b"cr" => Some(Kind::Client),
        b"sr" | b"ss" => Some(Kind::Server),
        _ => None,
    }
}

/// The host of such an annotation is the peer.
fn is_address(key: &[u8]) -> bool {
    matches!(key, b"ca" | b"sa" | b"ma")
}

fn binary_annotation(
    annotation: BinaryAnnotation<'_>,
    tags: &mut Vec<Tag>,
    process_tags: &mut Vec<Tag>,
) {
    let value = annotation.value;
    match &*annotation.key {
        key if is_address(key) => match annotation.host {
            Some(host) => peer(&host, tags),
            None => tags.push(tag(key, &value)),
        },
        b"lc" => tags.push(tag(b"component", &value)),
        b"jaeger.version" | b"jaegerClient" => process_tags.push(tag(b"jaeger.version", &value)),
        b"jaeger.hostname" => process_tags.push(tag(b"hostname", &value)),
        key if key.eq_ignore_ascii_case(b"error") => error(value, tags),
        key => tags.push(tag(key, &value)),
    }
}

/// An error is true or false for Jaeger; any other text is its message.
fn error(value: Value<'_>, tags: &mut Vec<Tag>) {
    let (error, message) = match &value {
        Value::Bool(error) => (*error, None),
        Value::String(text) if text.is_empty() || text.eq_ignore_ascii_case(b"true") => {
            (true, None)
        }
        Value::String(text) if text.eq_ignore_ascii_case(b"false") => (false, None),
        _ => (true, Some(tag(b"error.message", &value))),
    };
    tags.push(Tag::bool("error", error));
    tags.extend(message);
}

fn tag(key: &[u8], value: &Value<'_>) -> Tag {
    let cannot;
    let raw = match value {
        Value::String(text) => RawValue::String(text),
        Value::Bool(value) => RawValue::Bool(*value),
        Value::Int64(value) => RawValue::Int64(*value),
        Value::Float64(value) => RawValue::Float64(*value),
        Value::Binary(bytes) => RawValue::Binary(bytes),
        Value::Unreadable(bytes, why) => {
            let bytes = STANDARD.encode(bytes);
            cannot = format!("Cannot parse Zipkin value {bytes}: {why}");
            RawValue::String(cannot.as_bytes())
        }
    };
    sanitize::tag(key, raw)
}

fn peer(host: &Endpoint<'_>, tags: &mut Vec<Tag>) {
    if !host.service.is_empty() {
        tags.push(sanitize::tag(
            b"peer.service",
            RawValue::String(&host.service),
        ));
    }
    if let Some(ip) = host.ipv4 {
        tags.push(int("peer.ipv4", u32::from(ip).into()));
    }
    if let Some(ip) = host.ipv6 {
        tags.push(sanitize::tag(b"peer.ipv6", RawValue::Binary(&ip.octets())));
    }
    if host.port != 0 {
        tags.push(int("peer.port", host.port.into()));
    }
}

fn int(key: &str, value: i64) -> Tag {
    Tag {
        key: key.into(),
        value: TagValue::Int64(value),
    }
}

/// An annotation that is a JSON object of texts has a field per member.
fn log(annotation: &Annotation<'_>) -> SpanLog {
    let object = match annotation.value.first() {
        Some(b'{') => serde_json::from_slice::<Members>(&annotation.value).ok(),
        _ => None,
    };
    SpanLog {
        at: nanoseconds(annotation.at),
        fields: match object {
            Some(Members(members)) if !members.is_empty() => members
                .into_iter()
                .map(|(key, value)| Tag::string(key, value))
                .collect(),
            _ => vec![sanitize::tag(b"event", RawValue::String(&annotation.value))],
        },
    }
}

/// Members of a JSON object in their order, all of them texts.
struct Members(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Microseconds to nanoseconds, as far as 64 bits reach.
fn nanoseconds(microseconds: i64) -> Timestamp {
    microseconds.saturating_mul(1_000)
}
