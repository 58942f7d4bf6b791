//! Zipkin's spans → model: Thrift and JSON of version 1, JSON and protobuf of version 2.
//!
//! Source: zipkin-api (`thrift/zipkinCore.thrift`, `zipkin-api.yaml`, `zipkin2-api.yaml`,
//! `zipkin.proto`), turned into Jaeger's model as Jaeger's collector does.
//!
//! Z1. Every form becomes a [`Draft`] first, and [`Draft::finish`] alone knows what
//!     Zipkin's annotations mean.
//! Z2. What can't be represented is kept beside in a tag; a body that is malformed
//!     anywhere is refused as a whole, as by Jaeger.

mod draft;
mod json_v1;
mod json_v2;
mod proto;
mod thrift;

use crate::model::trace::{SpanBatch, SpanId, TraceId};
use crate::protocol::DecodeError;

use draft::Draft;

pub use json_v1::decode_json_v1;
pub use json_v2::decode_json_v2;
pub use proto::decode_proto;
pub use thrift::{decode_thrift_list, read_spans};

/// All spans of a body; one of Zipkin's may become two of ours.
fn finish(drafts: Vec<Draft<'_>>, mark: &str) -> SpanBatch {
    let mut batch = SpanBatch {
        spans: Vec::with_capacity(drafts.len()),
    };
    for draft in drafts {
        draft.finish(mark, &mut batch.spans);
    }
    batch
}

/// A trace's id as text: 1–32 hexadecimal digits.
fn trace_id(text: &str) -> Result<TraceId, DecodeError> {
    TraceId::parse(text).ok_or_else(|| bad_id("trace", text))
}

/// A span's id as text: 1–32 hexadecimal digits of which the last 16 count.
fn span_id(text: &str) -> Result<SpanId, DecodeError> {
    let id = TraceId::parse(text).ok_or_else(|| bad_id("span", text))?;
    Ok(SpanId(id.0 as u64))
}

fn bad_id(what: &str, text: &str) -> DecodeError {
    let text: String = text.chars().take(64).collect();
    DecodeError::malformed(format!(
        "{what} id `{text}` is not 1 to 32 hexadecimal digits"
    ))
}

#[cfg(test)]
mod tests;
