//! Version 2 as protobuf: `zipkin.proto3.ListOfSpans` (zipkin.proto).

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use crate::model::trace::{SpanBatch, SpanId, TraceId};
use crate::protocol::protobuf::{Fields, Value as Field, signed};
use crate::protocol::{DecodeError, SpanFormat};

use super::draft::{Annotation, BinaryAnnotation, Draft, Endpoint, Kind, Value};
use super::finish;

/// Decodes a list of spans.
pub fn decode_proto(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    let mut drafts = Vec::new();
    let mut list = Fields::new(body);
    while let Some(field) = list.field()? {
        if let (1, Field::Bytes(span)) = field {
            drafts.push(read_span(span)?);
        }
    }
    Ok(finish(drafts, SpanFormat::ZipkinProto.mark()))
}

fn read_span(bytes: &[u8]) -> Result<Draft<'_>, DecodeError> {
    let mut draft = Draft::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(id)) => draft.trace_id = TraceId(trace_id(id)?),
            (2, Field::Bytes([])) => {}
            (2, Field::Bytes(id)) => draft.parent = Some(span_id("parent", id)?),
            (3, Field::Bytes(id)) => draft.id = span_id("span", id)?,
            (4, Field::Varint(kind)) => {
                draft.kind = match kind {
                    1 => Some(Kind::Client),
                    2 => Some(Kind::Server),
                    3 => Some(Kind::Producer),
                    4 => Some(Kind::Consumer),
                    _ => None,
                };
            }
            (5, Field::Bytes(name)) => draft.name = Cow::Borrowed(name),
            (6, Field::Fixed64(at)) => draft.timestamp = Some(microseconds(at)),
            (7, Field::Varint(duration)) => draft.duration = Some(microseconds(duration)),
            (8, Field::Bytes(endpoint)) => draft.local = Some(Rc::new(read_endpoint(endpoint)?)),
            (9, Field::Bytes(endpoint)) => draft.remote = Some(read_endpoint(endpoint)?),
            (10, Field::Bytes(annotation)) => draft.annotations.push(read_annotation(annotation)?),
            (11, Field::Bytes(tag)) => draft.binary.push(read_tag(tag)?),
            (12, Field::Varint(debug)) => draft.debug = debug != 0,
            _ => {}
        }
    }
    if draft.id.0 == 0 || draft.trace_id.0 == 0 {
        return Err(DecodeError::new(
            "missing_field",
            "a span has no id or no trace id",
        ));
    }
    Ok(draft)
}

fn trace_id(bytes: &[u8]) -> Result<u128, DecodeError> {
    if let Ok(id) = bytes.try_into() {
        return Ok(u128::from_be_bytes(id));
    }
    match bytes.try_into() {
        Ok(id) => Ok(u64::from_be_bytes(id).into()),
        Err(_) => Err(DecodeError::malformed(format!(
            "a trace id has {} bytes instead of 8 or 16",
            bytes.len()
        ))),
    }
}

fn span_id(what: &str, bytes: &[u8]) -> Result<SpanId, DecodeError> {
    match bytes.try_into() {
        Ok(id) => Ok(SpanId(u64::from_be_bytes(id))),
        Err(_) => Err(DecodeError::malformed(format!(
            "a {what} id has {} bytes instead of 8",
            bytes.len()
        ))),
    }
}

fn read_endpoint(bytes: &[u8]) -> Result<Endpoint<'_>, DecodeError> {
    let mut endpoint = Endpoint::default();
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(name)) => endpoint.service = Cow::Borrowed(name),
            (2, Field::Bytes(ip)) => {
                let ip: Option<[u8; 4]> = address("ipv4", ip)?;
                endpoint.ipv4 = ip.map(Ipv4Addr::from).filter(|ip| !ip.is_unspecified());
            }
            (3, Field::Bytes(ip)) => {
                let ip: Option<[u8; 16]> = address("ipv6", ip)?;
                endpoint.ipv6 = ip.map(Ipv6Addr::from).filter(|ip| !ip.is_unspecified());
            }
            (4, Field::Varint(port)) => {
                endpoint.port = u16::try_from(signed(port)).map_err(|_| {
                    DecodeError::malformed(format!("port {} is out of range", signed(port)))
                })?;
            }
            _ => {}
        }
    }
    Ok(endpoint)
}

/// No bytes are no address.
fn address<const N: usize>(what: &str, bytes: &[u8]) -> Result<Option<[u8; N]>, DecodeError> {
    match bytes.try_into() {
        Ok(address) => Ok(Some(address)),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(DecodeError::malformed(format!(
            "an {what} address has {} bytes instead of {N}",
            bytes.len()
        ))),
    }
}

fn read_annotation(bytes: &[u8]) -> Result<Annotation<'_>, DecodeError> {
    let (mut at, mut value) = (0, &b""[..]);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Fixed64(time)) => at = microseconds(time),
            (2, Field::Bytes(text)) => value = text,
            _ => {}
        }
    }
    Ok(Annotation {
        at,
        value: Cow::Borrowed(value),
        host: None,
    })
}

/// An entry of the map `tags`.
fn read_tag(bytes: &[u8]) -> Result<BinaryAnnotation<'_>, DecodeError> {
    let (mut key, mut value) = (&b""[..], &b""[..]);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(text)) => key = text,
            (2, Field::Bytes(text)) => value = text,
            _ => {}
        }
    }
    Ok(BinaryAnnotation {
        key: Cow::Borrowed(key),
        value: Value::String(Cow::Borrowed(value)),
        host: None,
    })
}

/// Beyond what 63 bits hold is as far as they reach.
fn microseconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
