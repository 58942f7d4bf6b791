//! Jaeger's Thrift messages → model: `Batch` and what is in it, read in one pass.
//!
//! B1. A message that lacks a required field is an error as a whole, as in Jaeger.
//! B2. An unknown field, and a known one of another type, is read over.
//! B3. A tag's value is the one that its `vType` names; Node writes all five.

use std::sync::Arc;

use crate::model::time::Timestamp;
use crate::model::trace::{
    Process, RefType, Span, SpanBatch, SpanId, SpanLog, SpanRef, Tag, TraceId,
};
use crate::protocol::sanitize::{self, FORMAT_TAG, RawValue};
use crate::protocol::zipkin;
use crate::protocol::{DecodeError, SpanFormat};

use super::thrift::{Binary, Compact, Input, Kind, fields, required, structs, structs_and};

/// A batch as its sender meant it, with what only Thrift senders say of themselves.
#[derive(Clone, Debug, Default)]
pub struct ThriftBatch {
    pub spans: SpanBatch,
    pub process: Arc<Process>,
    /// Number of the batch, counted by the client.
    pub sequence: Option<i64>,
    pub stats: Option<ClientStats>,
}

/// What a client lost, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    pub full_queue: i64,
    pub too_large: i64,
    pub failed_to_emit: i64,
}

/// Decodes a compact message.
pub fn decode_compact_message(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    Ok(read_message(&mut Compact::new(body), SpanFormat::ThriftCompactMessage)?.spans)
}

/// Decodes a binary message.
pub fn decode_binary_message(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    Ok(read_message(&mut Binary::new(body), SpanFormat::ThriftBinaryMessage)?.spans)
}

/// Decodes a bare binary `Batch`.
pub fn decode_binary_batch(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    Ok(read_batch(&mut Binary::new(body), SpanFormat::ThriftBinaryBatch)?.spans)
}

/// Reads a message `emitBatch`, or `emitZipkinBatch`, which any port of an agent takes;
/// bytes after it are ignored. What a client of Zipkin's says of itself stands in its spans.
pub fn read_message<'a>(
    input: &mut impl Input<'a>,
    format: SpanFormat,
) -> Result<ThriftBatch, DecodeError> {
    let method = input.message()?;
    let zipkin = match method {
        b"emitBatch" => false,
        b"emitZipkinBatch" => true,
        _ => {
            let method = String::from_utf8_lossy(method.get(..64).unwrap_or(method));
            return Err(DecodeError::new(
                "unknown_method",
                format!("method `{method}` is neither emitBatch nor emitZipkinBatch"),
            ));
        }
    };
    let mut batch = None;
    fields(input, |input, id, kind| match (id, kind) {
        (1, Kind::Struct) if !zipkin => {
            batch = Some(read_batch(input, format)?);
            Ok(true)
        }
        (1, Kind::List) if zipkin => {
            batch = Some(ThriftBatch {
                spans: zipkin::read_spans(input, format)?,
                ..ThriftBatch::default()
            });
            Ok(true)
        }
        _ => Ok(false),
    })?;
    match zipkin {
        false => required(batch, "emitBatch", "batch"),
        true => required(batch, "emitZipkinBatch", "spans"),
    }
}

/// Reads a `Batch`.
pub fn read_batch<'a>(
    input: &mut impl Input<'a>,
    format: SpanFormat,
) -> Result<ThriftBatch, DecodeError> {
    let mut process = None;
    let mut spans = None;
    let mut batch = ThriftBatch::default();
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::Struct) => process = Some(read_process(input)?),
            (2, Kind::List) => {
                spans = Some(structs(input, "Batch.spans", |input| read_span(input))?)
            }
            (3, Kind::I64) => batch.sequence = Some(input.i64()?),
            (4, Kind::Struct) => batch.stats = Some(read_stats(input)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (process, service_tag) = required(process, "Batch", "process")?;
    batch.spans.spans = required(spans, "Batch", "spans")?;
    batch.process = Arc::new(process);
    let mark = Tag::string(FORMAT_TAG, format.mark());
    for span in &mut batch.spans.spans {
        span.process = batch.process.clone();
        span.tags.extend(service_tag.clone());
        span.tags.push(mark.clone());
    }
    Ok(batch)
}

/// The process, and the tag its spans get when its name was no text.
fn read_process<'a>(input: &mut impl Input<'a>) -> Result<(Process, Option<Tag>), DecodeError> {
    let mut service = None;
    let mut tags = Vec::new();
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::Binary) => service = Some(sanitize::service(input.bytes()?)),
            (2, Kind::List) => tags = structs(input, "Process.tags", |input| read_tag(input))?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (service, service_tag) = required(service, "Process", "serviceName")?;
    Ok((Process { service, tags }, service_tag))
}

/// Tags that a span gets here, at most in nearly all cases: the mark of how it came, and a note.
const ADDED_TAGS: usize = 2;

/// A span without its process.
fn read_span<'a>(input: &mut impl Input<'a>) -> Result<Span, DecodeError> {
    let (mut low, mut high, mut span_id, mut parent) = (None, None, None, None);
    let (mut name, mut flags, mut start, mut duration) = (None, None, None, None);
    let (mut references, mut tags, mut logs) = (Vec::new(), Vec::new(), Vec::new());
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I64) => low = Some(input.i64()?),
            (2, Kind::I64) => high = Some(input.i64()?),
            (3, Kind::I64) => span_id = Some(input.i64()?),
            (4, Kind::I64) => parent = Some(input.i64()?),
            (5, Kind::Binary) => name = Some(input.bytes()?),
            (6, Kind::List) => {
                references = structs(input, "Span.references", |input| read_reference(input))?
            }
            (7, Kind::I32) => flags = Some(input.i32()?),
            (8, Kind::I64) => start = Some(input.i64()?),
            (9, Kind::I64) => duration = Some(input.i64()?),
            (10, Kind::List) => {
                tags = structs_and(input, "Span.tags", ADDED_TAGS, |input| read_tag(input))?
            }
            (11, Kind::List) => logs = structs(input, "Span.logs", |input| read_log(input))?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let trace_id = trace_id(
        required(high, "Span", "traceIdHigh")?,
        required(low, "Span", "traceIdLow")?,
    );
    let parent = SpanId(required(parent, "Span", "parentSpanId")? as u64);
    if parent.0 != 0
        && !references
            .iter()
            .any(|r| r.trace_id == trace_id && r.span_id == parent)
    {
        references.insert(
            0,
            SpanRef {
                kind: RefType::ChildOf,
                trace_id,
                span_id: parent,
            },
        );
    }
    let duration = nanoseconds(required(duration, "Span", "duration")?);
    Ok(Span {
        trace_id,
        span_id: SpanId(required(span_id, "Span", "spanId")? as u64),
        operation: sanitize::operation(required(name, "Span", "operationName")?, &mut tags),
        references,
        flags: required(flags, "Span", "flags")? as u32,
        start: nanoseconds(required(start, "Span", "startTime")?),
        duration: sanitize::duration(duration, &mut tags),
        tags,
        logs,
        process: Arc::default(),
        warnings: Vec::new(),
    })
}

fn read_reference<'a>(input: &mut impl Input<'a>) -> Result<SpanRef, DecodeError> {
    let (mut kind_code, mut low, mut high, mut span_id) = (None, None, None, None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I32) => kind_code = Some(input.i32()?),
            (2, Kind::I64) => low = Some(input.i64()?),
            (3, Kind::I64) => high = Some(input.i64()?),
            (4, Kind::I64) => span_id = Some(input.i64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(SpanRef {
        // Whatever is not a parent only follows.
        kind: match required(kind_code, "SpanRef", "refType")? {
            0 => RefType::ChildOf,
            _ => RefType::FollowsFrom,
        },
        trace_id: trace_id(
            required(high, "SpanRef", "traceIdHigh")?,
            required(low, "SpanRef", "traceIdLow")?,
        ),
        span_id: SpanId(required(span_id, "SpanRef", "spanId")? as u64),
    })
}

fn read_tag<'a>(input: &mut impl Input<'a>) -> Result<Tag, DecodeError> {
    let (mut key, mut value_type) = (None, None);
    let (mut text, mut double, mut flag, mut long, mut binary) =
        (&b""[..], 0.0, false, 0, &b""[..]);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::Binary) => key = Some(input.bytes()?),
            (2, Kind::I32) => value_type = Some(input.i32()?),
            (3, Kind::Binary) => text = input.bytes()?,
            (4, Kind::Double) => double = input.double()?,
            (5, Kind::Bool) => flag = input.bool()?,
            (6, Kind::I64) => long = input.i64()?,
            (7, Kind::Binary) => binary = input.bytes()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let key = required(key, "Tag", "key")?;
    let value = match required(value_type, "Tag", "vType")? {
        0 => RawValue::String(text),
        1 => RawValue::Float64(double),
        2 => RawValue::Bool(flag),
        3 => RawValue::Int64(long),
        4 => RawValue::Binary(binary),
        other => {
            return Ok(sanitize::tag(
                key,
                RawValue::String(format!("Unknown VType: {other}").as_bytes()),
            ));
        }
    };
    Ok(sanitize::tag(key, value))
}

fn read_log<'a>(input: &mut impl Input<'a>) -> Result<SpanLog, DecodeError> {
    let (mut at, mut tags) = (None, None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I64) => at = Some(input.i64()?),
            (2, Kind::List) => tags = Some(structs(input, "Log.fields", |input| read_tag(input))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(SpanLog {
        at: nanoseconds(required(at, "Log", "timestamp")?),
        fields: required(tags, "Log", "fields")?,
    })
}

fn read_stats<'a>(input: &mut impl Input<'a>) -> Result<ClientStats, DecodeError> {
    let (mut full_queue, mut too_large, mut failed) = (None, None, None);
    fields(input, |input, id, kind| {
        match (id, kind) {
            (1, Kind::I64) => full_queue = Some(input.i64()?),
            (2, Kind::I64) => too_large = Some(input.i64()?),
            (3, Kind::I64) => failed = Some(input.i64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(ClientStats {
        full_queue: required(full_queue, "ClientStats", "fullQueueDroppedSpans")?,
        too_large: required(too_large, "ClientStats", "tooLargeDroppedSpans")?,
        failed_to_emit: required(failed, "ClientStats", "failedToEmitSpans")?,
    })
}

fn trace_id(high: i64, low: i64) -> TraceId {
    TraceId(u128::from(high as u64) << 64 | u128::from(low as u64))
}

/// Microseconds to nanoseconds, as far as 64 bits reach.
fn nanoseconds(microseconds: i64) -> Timestamp {
    microseconds.saturating_mul(1_000)
}

#[cfg(test)]
mod tests;
