//! Jaeger's protobuf, `jaeger.api_v2`: `PostSpansRequest` → model, and model → its messages.
//!
//! Reading goes from the bytes straight into the model; the generated messages would
//! copy every string once more and refuse text that is not UTF-8, which Jaeger keeps.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::time::{SECOND, Timestamp};
use crate::model::trace::{
    Process, RefType, Span, SpanBatch, SpanId, SpanLog, SpanRef, Tag, TagValue, Text, TraceId,
};
use crate::protocol::protobuf::{Fields, Value, signed};
use crate::protocol::sanitize::{self, FORMAT_TAG, RawValue};
use crate::protocol::wire::jaeger::api_v2;
use crate::protocol::{DecodeError, SpanFormat};

/// Decodes a `PostSpansRequest`.
pub fn decode_post_spans(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    let mut batch = SpanBatch::default();
    let mut request = Fields::new(body);
    while let Some((number, value)) = request.field()? {
        if let (1, Value::Bytes(bytes)) = (number, value) {
            read_batch(bytes, &mut batch.spans)?;
        }
    }
    Ok(batch)
}

/// Decodes `jaeger.storage.v1.WriteSpanRequest`s, one after the other: together they are one
/// message whose field is repeated. Somebody stores spans here that they received, so nothing
/// is added to them.
pub fn decode_span_writes(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    let no_process = Shared::none();
    let mut batch = SpanBatch::default();
    let mut last = None;
    let mut request = Fields::new(body);
    while let Some(field) = request.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            let mut span = read_span(bytes, &no_process, &mut last)?;
            // The mark is always the last.
            span.tags.pop_if(|tag| &*tag.key == FORMAT_TAG);
            batch.spans.push(span);
        }
    }
    Ok(batch)
}

/// A process shared by the spans that carry the same bytes.
#[derive(Clone)]
struct Shared<'a> {
    bytes: &'a [u8],
    process: Arc<Process>,
    /// For each span, when the service's name was no text.
    service_tag: Option<Tag>,
}

impl<'a> Shared<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut name = &b""[..];
        let mut tags = Vec::new();
        let mut message = Fields::new(bytes);
        while let Some(field) = message.field()? {
            match field {
                (1, Value::Bytes(bytes)) => name = bytes,
                (2, Value::Bytes(bytes)) => tags.push(read_tag(bytes)?),
                _ => {}
            }
        }
        let (service, service_tag) = sanitize::service(name);
        Ok(Self {
            bytes,
            process: Arc::new(Process { service, tags }),
            service_tag,
        })
    }

    /// For spans that came without a process.
    fn none() -> Self {
        let process = Process {
            service: sanitize::NO_PROCESS.into(),
            tags: Vec::new(),
        };
        Self {
            bytes: b"",
            process: Arc::new(process),
            service_tag: None,
        }
    }
}

fn read_batch(bytes: &[u8], spans: &mut Vec<Span>) -> Result<(), DecodeError> {
    // The process may come after the spans.
    let mut of_batch = None;
    let mut number_of_spans = 0usize;
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(_)) => number_of_spans += 1,
            (2, Value::Bytes(bytes)) => of_batch = Some(Shared::read(bytes)?),
            _ => {}
        }
    }
    let of_batch = of_batch.unwrap_or_else(Shared::none);
    // An empty span takes two bytes here and two hundred in memory, but has no ids either.
    spans.reserve(number_of_spans.min(bytes.len() / 32));
    let mut last: Option<Shared<'_>> = None;
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(bytes)) = field {
            spans.push(read_span(bytes, &of_batch, &mut last)?);
        }
    }
    Ok(())
}

fn read_span<'a>(
    bytes: &'a [u8],
    of_batch: &Shared<'a>,
    last: &mut Option<Shared<'a>>,
) -> Result<Span, DecodeError> {
    let (mut ids, mut name, mut duration) = ((&b""[..], &b""[..]), &b""[..], 0);
    let mut own_process = None;
    // Tags are counted first: they then take one allocation, with those that are added here.
    let mut number_of_tags = 0usize;
    let mut message = Fields::new(bytes);
    while let Some((number, _)) = message.field()? {
        number_of_tags += usize::from(number == 8);
    }
    let mut span = Span {
        trace_id: TraceId(0),
        span_id: SpanId(0),
        operation: Text::default(),
        references: Vec::new(),
        flags: 0,
        start: 0,
        duration: 0,
        tags: Vec::with_capacity(number_of_tags + 2),
        logs: Vec::new(),
        process: of_batch.process.clone(),
        warnings: Vec::new(),
    };
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => ids.0 = bytes,
            (2, Value::Bytes(bytes)) => ids.1 = bytes,
            (3, Value::Bytes(bytes)) => name = bytes,
            (4, Value::Bytes(bytes)) => span.references.push(read_reference(bytes)?),
            (5, Value::Varint(flags)) => span.flags = flags as u32,
            (6, Value::Bytes(bytes)) => span.start = read_time(bytes)?,
            (7, Value::Bytes(bytes)) => duration = read_time(bytes)?,
            (8, Value::Bytes(bytes)) => span.tags.push(read_tag(bytes)?),
            (9, Value::Bytes(bytes)) => span.logs.push(read_log(bytes)?),
            (10, Value::Bytes(bytes)) => own_process = Some(bytes),
            (12, Value::Bytes(bytes)) => span.warnings.push(String::from_utf8_lossy(bytes).into()),
            _ => {}
        }
    }
    span.trace_id = read_trace_id(ids.0)?;
    span.span_id = read_span_id(ids.1)?;
    span.operation = sanitize::operation(name, &mut span.tags);
    span.duration = sanitize::duration(duration, &mut span.tags);
    let shared = match own_process {
        None => of_batch,
        Some(bytes) => match last {
            Some(shared) if shared.bytes == bytes => shared,
            last => last.insert(Shared::read(bytes)?),
        },
    };
    span.process = shared.process.clone();
    span.tags.extend(shared.service_tag.clone());
    span.tags
        .push(const { Tag::known(FORMAT_TAG, SpanFormat::JaegerProtoRequest.mark()) });
    Ok(span)
}

/// A trace id is 16 bytes, or 8 from senders that know no others.
pub fn read_trace_id(bytes: &[u8]) -> Result<TraceId, DecodeError> {
    if let Ok(id) = bytes.try_into() {
        Ok(TraceId(u128::from_be_bytes(id)))
    } else if let Ok(id) = bytes.try_into() {
        Ok(TraceId(u128::from(u64::from_be_bytes(id))))
    } else {
        Err(DecodeError::new(
            "bad_id",
            format!("a trace id has {} bytes instead of 16", bytes.len()),
        ))
    }
}

fn read_span_id(bytes: &[u8]) -> Result<SpanId, DecodeError> {
    match bytes.try_into() {
        Ok(id) => Ok(SpanId(u64::from_be_bytes(id))),
        Err(_) => Err(DecodeError::new(
            "bad_id",
            format!("a span id has {} bytes instead of 8", bytes.len()),
        )),
    }
}

/// A `Timestamp` or `Duration` in nanoseconds, as far as 64 bits reach.
fn read_time(bytes: &[u8]) -> Result<Timestamp, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Varint(value)) => seconds = signed(value),
            (2, Value::Varint(value)) => nanos = signed(value),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(SECOND).saturating_add(nanos))
}

fn read_reference(bytes: &[u8]) -> Result<SpanRef, DecodeError> {
    let (mut trace_id, mut span_id, mut kind) = (&b""[..], &b""[..], RefType::ChildOf);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => trace_id = bytes,
            (2, Value::Bytes(bytes)) => span_id = bytes,
            (3, Value::Varint(0)) => kind = RefType::ChildOf,
            (3, Value::Varint(_)) => kind = RefType::FollowsFrom,
            _ => {}
        }
    }
    Ok(SpanRef {
        kind,
        trace_id: read_trace_id(trace_id)?,
        span_id: read_span_id(span_id)?,
    })
}

fn read_log(bytes: &[u8]) -> Result<SpanLog, DecodeError> {
    let mut log = SpanLog {
        at: 0,
        fields: Vec::new(),
    };
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => log.at = read_time(bytes)?,
            (2, Value::Bytes(bytes)) => log.fields.push(read_tag(bytes)?),
            _ => {}
        }
    }
    Ok(log)
}

fn read_tag(bytes: &[u8]) -> Result<Tag, DecodeError> {
    let (mut key, mut value_type) = (&b""[..], 0);
    let (mut text, mut flag, mut long, mut double, mut binary) =
        (&b""[..], false, 0, 0.0, &b""[..]);
    let mut message = Fields::new(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Varint(value)) => value_type = value,
            (3, Value::Bytes(bytes)) => text = bytes,
            (4, Value::Varint(value)) => flag = value != 0,
            (5, Value::Varint(value)) => long = signed(value),
            (6, Value::Fixed64(bits)) => double = f64::from_bits(bits),
            (7, Value::Bytes(bytes)) => binary = bytes,
            _ => {}
        }
    }
    let value = match value_type {
        0 => RawValue::String(text),
        1 => RawValue::Bool(flag),
        2 => RawValue::Int64(long),
        3 => RawValue::Float64(double),
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

/// A span as a message, with its process inside.
pub fn span_message(span: &Span) -> api_v2::Span {
    api_v2::Span {
        trace_id: trace_id_bytes(span.trace_id),
        span_id: span_id_bytes(span.span_id),
        operation_name: span.operation.to_string(),
        references: span.references.iter().map(reference_message).collect(),
        flags: span.flags,
        start_time: Some(time_message(span.start)),
        duration: Some(api_v2::Duration {
            seconds: (span.duration / SECOND as u64) as i64,
            nanos: (span.duration % SECOND as u64) as i32,
        }),
        tags: span.tags.iter().map(tag_message).collect(),
        logs: span.logs.iter().map(log_message).collect(),
        process: Some(process_message(&span.process)),
        process_id: String::new(),
        warnings: span
            .warnings
            .iter()
            .map(|warning| warning.to_string())
            .collect(),
    }
}

/// A process as a message.
pub fn process_message(process: &Process) -> api_v2::Process {
    api_v2::Process {
        service_name: process.service.to_string(),
        tags: process.tags.iter().map(tag_message).collect(),
    }
}

/// A trace id as its 16 bytes.
pub fn trace_id_bytes(id: TraceId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// A span id as its 8 bytes.
pub fn span_id_bytes(id: SpanId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// A `Timestamp` message in nanoseconds, as far as 64 bits reach.
pub fn time(message: &api_v2::Timestamp) -> Timestamp {
    let seconds = message.seconds.saturating_mul(SECOND);
    seconds.saturating_add(i64::from(message.nanos))
}

/// A time as a message.
pub fn time_message(at: Timestamp) -> api_v2::Timestamp {
    api_v2::Timestamp {
        seconds: at.div_euclid(SECOND),
        nanos: at.rem_euclid(SECOND) as i32,
    }
}

/// A `Duration` message in nanoseconds; below zero it is 0.
pub fn duration(message: &api_v2::Duration) -> u64 {
    let seconds = message.seconds.saturating_mul(SECOND);
    u64::try_from(seconds.saturating_add(i64::from(message.nanos))).unwrap_or(0)
}

fn reference_message(reference: &SpanRef) -> api_v2::SpanRef {
    api_v2::SpanRef {
        trace_id: trace_id_bytes(reference.trace_id),
        span_id: span_id_bytes(reference.span_id),
        ref_type: match reference.kind {
            RefType::ChildOf => api_v2::SpanRefType::ChildOf,
            RefType::FollowsFrom => api_v2::SpanRefType::FollowsFrom,
        } as i32,
    }
}

fn log_message(log: &SpanLog) -> api_v2::Log {
    api_v2::Log {
        timestamp: Some(time_message(log.at)),
        fields: log.fields.iter().map(tag_message).collect(),
    }
}

fn tag_message(tag: &Tag) -> api_v2::KeyValue {
    let mut message = api_v2::KeyValue {
        key: tag.key.to_string(),
        ..Default::default()
    };
    let value_type = match &tag.value {
        TagValue::String(text) => {
            message.v_str = text.to_string();
            api_v2::ValueType::String
        }
        TagValue::Bool(value) => {
            message.v_bool = *value;
            api_v2::ValueType::Bool
        }
        TagValue::Int64(value) => {
            message.v_int64 = *value;
            api_v2::ValueType::Int64
        }
        TagValue::Float64(value) => {
            message.v_float64 = *value;
            api_v2::ValueType::Float64
        }
        TagValue::Binary(bytes) => {
            message.v_binary = Bytes::copy_from_slice(bytes);
            api_v2::ValueType::Binary
        }
    };
    message.v_type = value_type as i32;
    message
}

#[cfg(test)]
mod tests;
