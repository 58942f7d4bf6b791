//! OTLP, protobuf and JSON → model: traces as Jaeger shows them, logs (`logs.rs`) as Loki
//! stores them. And back: `encode.rs` makes messages of spans, `render.rs` JSON of those.
//!
//! O1. A span without valid ids is refused alone; the rest of the export is kept.
//! O2. Both encodings fill a `draft::Draft`, which alone knows Jaeger's rules, so one
//!     export gives the same spans in either.

mod draft;
pub mod encode;
mod json;
pub mod logs;
mod logs_json;
mod logs_proto;
mod logs_text;
mod proto;
pub mod render;

pub use json::decode_json;
pub use proto::{attribute_text, decode_proto};

use crate::model::trace::{Span, SpanBatch, TagValue, Text};

use super::DecodeError;
use super::sanitize::FORMAT_TAG;

/// What an export brings.
#[derive(Clone, Debug, Default)]
pub struct Export {
    pub batch: SpanBatch,
    /// Spans refused one by one.
    pub rejected: usize,
    /// Why the first of them was refused; empty when none was.
    pub message: String,
}

impl Export {
    fn reject(&mut self, reason: String) {
        if self.rejected == 0 {
            self.message = reason;
        }
        self.rejected += 1;
    }
}

/// Decodes an export by which somebody stores spans here that they received: nothing is added
/// to them, and warnings that `encode.rs` made an attribute become warnings again.
pub fn decode_stored(body: &[u8]) -> Result<Export, DecodeError> {
    let mut export = decode_proto(body)?;
    unmark(&mut export.batch);
    Ok(export)
}

/// The same for spans that somebody wants to see: as they are.
pub fn decode_shown(body: &[u8]) -> Result<Export, DecodeError> {
    let mut export = decode_json(body)?;
    unmark(&mut export.batch);
    Ok(export)
}

fn unmark(batch: &mut SpanBatch) {
    for span in &mut batch.spans {
        // The mark is always the last.
        span.tags.pop_if(|tag| &*tag.key == FORMAT_TAG);
        restore_warnings(span);
    }
}

fn restore_warnings(span: &mut Span) {
    span.tags.retain(|tag| {
        let TagValue::String(text) = &tag.value else {
            return true;
        };
        if &*tag.key != encode::WARNINGS {
            return true;
        }
        match serde_json::from_str::<Vec<String>>(text) {
            Ok(warnings) => {
                span.warnings.extend(warnings.into_iter().map(Text::from));
                false
            }
            Err(_) => true,
        }
    });
}

#[cfg(test)]
mod tests;
