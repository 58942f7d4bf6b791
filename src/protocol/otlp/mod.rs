//! OTLP, protobuf and JSON → model: traces as Jaeger shows them, logs (`logs.rs`) as Loki
//! stores them.
//!
//! O1. A span without valid ids is refused alone; the rest of the export is kept.
//! O2. Both encodings fill a `draft::Draft`, which alone knows Jaeger's rules, so one
//!     export gives the same spans in either.

mod draft;
mod json;
pub mod logs;
mod logs_json;
mod logs_proto;
mod logs_text;
mod proto;

pub use json::decode_json;
pub use proto::decode_proto;

use crate::model::trace::SpanBatch;

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

#[cfg(test)]
mod tests;
