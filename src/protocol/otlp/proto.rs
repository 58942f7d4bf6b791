//! `ExportTraceServiceRequest` as protobuf, read from its bytes straight into the model.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use crate::model::search::ValueRef;
use crate::model::trace::{Span, SpanId, SpanLog, Tag, TraceId};
use crate::protocol::protobuf::{Fields, Value, signed};
use crate::protocol::sanitize::{self, RawValue};
use crate::protocol::wire::opentelemetry::proto::common::v1 as common;
use crate::protocol::{DecodeError, MAX_NESTING};

use super::Export;
use super::draft::{Draft, Emitter, Link, Resource, event_log, link_kind, scope_tags};

/// Decodes an export.
pub fn decode_proto(body: &[u8]) -> Result<Export, DecodeError> {
    let mut export = Export::default();
    let mut request = Fields::new(body);
    while let Some(field) = request.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            read_resource_spans(bytes, &mut export)?;
        }
    }
    Ok(export)
}

fn read_resource_spans(bytes: &[u8], export: &mut Export) -> Result<(), DecodeError> {
    // Fields may come in any order; the resource is needed first.
    let mut resource = Resource::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            resource = read_resource(bytes)?;
        }
    }
    let emitter = resource.finish();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (2, Value::Bytes(bytes)) = field {
            read_scope_spans(bytes, &emitter, export)?;
        }
    }
    Ok(())
}

fn read_resource(bytes: &[u8]) -> Result<Resource, DecodeError> {
    let mut resource = Resource::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            let (key, value) = read_key_value(bytes)?;
            if key == b"service.name" {
                resource.service = Some(value_text(value)?);
            } else {
                resource.tags.push(attribute(key, value)?);
            }
        }
    }
    Ok(resource)
}

fn read_scope_spans(
    bytes: &[u8],
    emitter: &Emitter,
    export: &mut Export,
) -> Result<(), DecodeError> {
    let mut scope = Vec::new();
    let mut number_of_spans = 0usize;
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => scope = read_scope(bytes)?,
            (2, Value::Bytes(_)) => number_of_spans += 1,
            _ => {}
        }
    }
    // A span with ids takes 28 bytes at least; room is not made for what cannot be one.
    export
        .batch
        .spans
        .reserve(number_of_spans.min(bytes.len() / 28));
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (2, Value::Bytes(bytes)) = field {
            match read_span(bytes, &scope, emitter)? {
                Ok(span) => export.batch.spans.push(span),
                Err(reason) => export.reject(reason),
            }
        }
    }
    Ok(())
}

fn read_scope(bytes: &[u8]) -> Result<Vec<Tag>, DecodeError> {
    let (mut name, mut version) = (&b""[..], &b""[..]);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => version = bytes,
            _ => {}
        }
    }
    Ok(scope_tags(name, version))
}

/// The span, or why it alone is refused.
fn read_span(
    bytes: &[u8],
    scope: &[Tag],
    emitter: &Emitter,
) -> Result<Result<Span, String>, DecodeError> {
    // Attributes are counted first: the tags then take one allocation.
    let mut attributes = 0usize;
    let mut message = Fields::new(bytes);
    while let Some((number, _)) = message.field()? {
        attributes += usize::from(number == 9);
    }
    let mut draft = Draft {
        tags: Vec::with_capacity(scope.len() + attributes + 5),
        ..Draft::default()
    };
    draft.tags.extend_from_slice(scope);
    let mut refused = None;
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(id)) => match trace_id(id) {
                Some(id) => draft.trace_id = id,
                None => refused = Some(format!("a trace id has {} bytes instead of 16", id.len())),
            },
            (2, Value::Bytes(id)) => match span_id(id) {
                Some(id) => draft.span_id = id,
                None => refused = Some(format!("a span id has {} bytes instead of 8", id.len())),
            },
            (3, Value::Bytes(text)) => draft.trace_state = text,
            (4, Value::Bytes(id)) => match span_id(id) {
                Some(id) => draft.parent = id,
                None => {
                    refused = Some(format!(
                        "a parent span id has {} bytes instead of 8",
                        id.len()
                    ))
                }
            },
            (5, Value::Bytes(text)) => draft.name = text,
            (6, Value::Varint(kind)) => draft.kind = signed(kind),
            (7, Value::Fixed64(start)) => draft.start = start,
            (8, Value::Fixed64(end)) => draft.end = end,
            (9, Value::Bytes(bytes)) => {
                let (key, value) = read_key_value(bytes)?;
                draft.tags.push(attribute(key, value)?);
            }
            (11, Value::Bytes(bytes)) => draft.logs.push(read_event(bytes)?),
            (13, Value::Bytes(bytes)) => draft.links.extend(read_link(bytes)?),
            (15, Value::Bytes(bytes)) => {
                let mut status = Fields::new(bytes);
                while let Some(field) = status.field()? {
                    match field {
                        (2, Value::Bytes(text)) => draft.status_message = text,
                        (3, Value::Varint(code)) => draft.status_code = signed(code),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(match refused {
        Some(reason) => Err(reason),
        None => draft.finish(emitter),
    })
}

fn read_event(bytes: &[u8]) -> Result<SpanLog, DecodeError> {
    let (mut at, mut name, mut attributes) = (0, &b""[..], Vec::new());
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Fixed64(time)) => at = time,
            (2, Value::Bytes(text)) => name = text,
            (3, Value::Bytes(bytes)) => {
                let (key, value) = read_key_value(bytes)?;
                attributes.push(attribute(key, value)?);
            }
            _ => {}
        }
    }
    Ok(event_log(at, name, attributes))
}

/// A link; one without usable ids leads nowhere and is left out.
fn read_link(bytes: &[u8]) -> Result<Option<Link>, DecodeError> {
    let (mut to_trace, mut to_span, mut kind) = (None, None, link_kind(b""));
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(id)) => to_trace = trace_id(id),
            (2, Value::Bytes(id)) => to_span = span_id(id),
            (4, Value::Bytes(bytes)) => {
                if let (b"opentracing.ref_type", AnyValue::String(text)) = read_key_value(bytes)? {
                    kind = link_kind(text);
                }
            }
            _ => {}
        }
    }
    Ok(match (to_trace, to_span) {
        (Some(trace_id), Some(span_id)) if trace_id.0 != 0 && span_id.0 != 0 => Some(Link {
            trace_id,
            span_id,
            kind,
        }),
        _ => None,
    })
}

/// 16 bytes, or none for "no id".
fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    if bytes.is_empty() {
        return Some(TraceId(0));
    }
    Some(TraceId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// 8 bytes, or none for "no id".
fn span_id(bytes: &[u8]) -> Option<SpanId> {
    if bytes.is_empty() {
        return Some(SpanId(0));
    }
    Some(SpanId(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// Field and wire type of a `KeyValue`'s key and value, and of an `AnyValue`'s text.
const KEY: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;
const TEXT: u8 = 1 << 3 | 2;

/// An `AnyValue`; what nests is still its bytes.
#[derive(Clone, Copy)]
enum AnyValue<'a> {
    None,
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

#[inline]
fn read_key_value(bytes: &[u8]) -> Result<(&[u8], AnyValue<'_>), DecodeError> {
    // Nearly all are written so: the key, then the value, both short.
    if let [KEY, length, rest @ ..] = bytes
        && *length < 0x80
        && let Some((key, [VALUE, length, value @ ..])) =
            rest.split_at_checked(usize::from(*length))
        && usize::from(*length) == value.len()
        && *length < 0x80
    {
        return Ok((key, read_any_value(value)?));
    }
    let (mut key, mut value) = (&b""[..], AnyValue::None);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = read_any_value(bytes)?,
            _ => {}
        }
    }
    Ok((key, value))
}

#[inline]
fn read_any_value(bytes: &[u8]) -> Result<AnyValue<'_>, DecodeError> {
    // A short text, as most are.
    if let [TEXT, length, text @ ..] = bytes
        && usize::from(*length) == text.len()
        && *length < 0x80
    {
        return Ok(AnyValue::String(text));
    }
    let mut any = AnyValue::None;
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        any = match field {
            (1, Value::Bytes(text)) => AnyValue::String(text),
            (2, Value::Varint(value)) => AnyValue::Bool(value != 0),
            (3, Value::Varint(value)) => AnyValue::Int(signed(value)),
            (4, Value::Fixed64(bits)) => AnyValue::Double(f64::from_bits(bits)),
            (5, Value::Bytes(bytes)) => AnyValue::Array(bytes),
            (6, Value::Bytes(bytes)) => AnyValue::Map(bytes),
            (7, Value::Bytes(bytes)) => AnyValue::Bytes(bytes),
            _ => any,
        };
    }
    Ok(any)
}

/// An attribute as a tag; what nests becomes JSON text.
fn attribute(key: &[u8], value: AnyValue<'_>) -> Result<Tag, DecodeError> {
    Ok(match value {
        AnyValue::None => sanitize::tag(key, RawValue::String(b"")),
        AnyValue::String(text) => sanitize::tag(key, RawValue::String(text)),
        AnyValue::Bool(value) => sanitize::tag(key, RawValue::Bool(value)),
        AnyValue::Int(value) => sanitize::tag(key, RawValue::Int64(value)),
        AnyValue::Double(value) => sanitize::tag(key, RawValue::Float64(value)),
        AnyValue::Bytes(bytes) => sanitize::tag(key, RawValue::Binary(bytes)),
        AnyValue::Array(_) | AnyValue::Map(_) => sanitize::tag(
            key,
            RawValue::String(json(value, MAX_NESTING)?.to_string().as_bytes()),
        ),
    })
}

/// The text that a search compares for an attribute with this value.
pub fn attribute_text(value: Option<&common::AnyValue>) -> Result<String, DecodeError> {
    let bytes = value.map(prost::Message::encode_to_vec).unwrap_or_default();
    let tag = attribute(b"", read_any_value(&bytes)?)?;
    Ok(ValueRef::from(&tag.value).text().into_owned())
}

/// A value as text, as a service's name is read.
fn value_text(value: AnyValue<'_>) -> Result<Vec<u8>, DecodeError> {
    Ok(match value {
        AnyValue::None => Vec::new(),
        AnyValue::String(text) => text.to_vec(),
        other => match json(other, MAX_NESTING)? {
            Json::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        },
    })
}

fn json(value: AnyValue<'_>, depth: usize) -> Result<Json, DecodeError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(DecodeError::too_deep());
    };
    Ok(match value {
        AnyValue::None => Json::Null,
        AnyValue::String(text) => String::from_utf8_lossy(text).into(),
        AnyValue::Bool(value) => value.into(),
        AnyValue::Int(value) => value.into(),
        AnyValue::Double(value) => super::json::number(value),
        AnyValue::Bytes(bytes) => STANDARD.encode(bytes).into(),
        AnyValue::Array(bytes) => {
            let mut values = Vec::new();
            let mut message = Fields::new(bytes);
            while let Some(field) = message.field()? {
                if let (1, Value::Bytes(bytes)) = field {
                    values.push(json(read_any_value(bytes)?, depth)?);
                }
            }
            Json::Array(values)
        }
        AnyValue::Map(bytes) => {
            let mut values = Map::new();
            let mut message = Fields::new(bytes);
            while let Some(field) = message.field()? {
                if let (1, Value::Bytes(bytes)) = field {
                    let (key, value) = read_key_value(bytes)?;
                    values.insert(
                        String::from_utf8_lossy(key).into_owned(),
                        json(value, depth)?,
                    );
                }
            }
            Json::Object(values)
        }
    })
}
