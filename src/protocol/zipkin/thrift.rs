//! Version 1 as Thrift: a list of spans over HTTP, `emitZipkinBatch` over UDP.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use crate::model::trace::{SpanBatch, SpanId, TraceId};
use crate::protocol::jaeger::thrift::{Binary, Input, Kind, fields, structs};
use crate::protocol::{DecodeError, SpanFormat};

use super::draft::{Annotation, BinaryAnnotation, Draft, Endpoint, Value};
use super::finish;

/// Decodes a binary `list<Span>`.
pub fn decode_thrift_list(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    read_spans(&mut Binary::new(body), SpanFormat::ZipkinThrift)
}

/// Reads a list of spans.
pub fn read_spans<'a>(
    input: &mut impl Input<'a>,
    format: SpanFormat,
) -> Result<SpanBatch, DecodeError> {
    let drafts = structs(input, "the list of spans", |input| read_span(input))?;
    Ok(finish(drafts, format.mark()))
}

fn read_span<'a>(input: &mut impl Input<'a>) -> Result<Draft<'a>, DecodeError> {
    let mut draft = Draft::default();
    let (mut low, mut high) = (0, 0);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I64) => low = input.i64()?,
            (3, Kind::Binary) => draft.name = Cow::Borrowed(input.bytes()?),
            (4, Kind::I64) => draft.id = SpanId(input.i64()? as u64),
            (5, Kind::I64) => draft.parent = Some(SpanId(input.i64()? as u64)),
            (6, Kind::List) => {
                draft.annotations =
                    structs(input, "Span.annotations", |input| read_annotation(input))?;
            }
            (8, Kind::List) => {
                draft.binary = structs(input, "Span.binary_annotations", |input| {
                    read_binary_annotation(input)
                })?;
            }
            (9, Kind::Bool) => draft.debug = input.bool()?,
            (10, Kind::I64) => draft.timestamp = Some(input.i64()?),
            (11, Kind::I64) => draft.duration = Some(input.i64()?),
            (12, Kind::I64) => high = input.i64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    draft.trace_id = TraceId(u128::from(high as u64) << 64 | u128::from(low as u64));
    Ok(draft)
}

fn read_annotation<'a>(input: &mut impl Input<'a>) -> Result<Annotation<'a>, DecodeError> {
    let (mut at, mut value, mut host) = (0, &b""[..], None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I64) => at = input.i64()?,
            (2, Kind::Binary) => value = input.bytes()?,
            (3, Kind::Struct) => host = Some(Rc::new(read_endpoint(input)?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let value = Cow::Borrowed(value);
    Ok(Annotation { at, value, host })
}

fn read_binary_annotation<'a>(
    input: &mut impl Input<'a>,
) -> Result<BinaryAnnotation<'a>, DecodeError> {
    let (mut key, mut bytes, mut code, mut host) = (&b""[..], &b""[..], 0, None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::Binary) => key = input.bytes()?,
            (2, Kind::Binary) => bytes = input.bytes()?,
            (3, Kind::I32) => code = input.i32()?,
            (4, Kind::Struct) => host = Some(Rc::new(read_endpoint(input)?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(BinaryAnnotation {
        key: Cow::Borrowed(key),
        value: value(code, bytes),
        host,
    })
}

/// The value of a type's code; numbers are big-endian.
fn value(code: i32, bytes: &[u8]) -> Value<'_> {
    let number = match code {
        0 => return Value::Bool(bytes == [1]),
        1 => return Value::Binary(Cow::Borrowed(bytes)),
        2 => bytes.try_into().ok().map(|b| i16::from_be_bytes(b).into()),
        3 => bytes.try_into().ok().map(|b| i32::from_be_bytes(b).into()),
        4 => bytes.try_into().ok().map(i64::from_be_bytes),
        5 => match bytes.try_into() {
            Ok(bytes) => return Value::Float64(f64::from_be_bytes(bytes)),
            Err(_) => None,
        },
        6 => return Value::String(Cow::Borrowed(bytes)),
        other => {
            let why = format!("unknown annotation type {other}");
            return Value::Unreadable(Cow::Borrowed(bytes), why);
        }
    };
    match number {
        Some(number) => Value::Int64(number),
        None => {
            let why = format!("{} bytes are no number of type {code}", bytes.len());
            Value::Unreadable(Cow::Borrowed(bytes), why)
        }
    }
}

fn read_endpoint<'a>(input: &mut impl Input<'a>) -> Result<Endpoint<'a>, DecodeError> {
    let mut endpoint = Endpoint::default();
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I32) => {
                let ip = input.i32()? as u32;
                endpoint.ipv4 = (ip != 0).then(|| Ipv4Addr::from(ip));
            }
            (2, Kind::I16) => endpoint.port = input.i16()? as u16,
            (3, Kind::Binary) => endpoint.service = Cow::Borrowed(input.bytes()?),
            (4, Kind::Binary) => {
                let octets: Option<[u8; 16]> = input.bytes()?.try_into().ok();
                endpoint.ipv6 = octets.map(Ipv6Addr::from).filter(|ip| !ip.is_unspecified());
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(endpoint)
}
