//! Bytes ⇄ model: pure functions, one module per protocol. No I/O, no async.

pub mod jaeger;
pub mod loki;
pub mod otlp;
pub mod protobuf;
pub mod sanitize;
pub mod spans;
pub mod wire;
pub mod zipkin;

pub use spans::{SpanFormat, decode_spans};

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// Label value of the counter of malformed messages, such as `truncated`.
    pub reason: &'static str,
    pub message: String,
}

impl DecodeError {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The message ends before what it announces.
    pub fn truncated(at: usize) -> Self {
        Self::new(
            "truncated",
            format!("message ends at byte {at}, inside a value"),
        )
    }

    /// The bytes break the rules of the encoding.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new("malformed", message)
    }

    /// Structures inside structures, beyond what any client sends.
    pub fn too_deep() -> Self {
        Self::new(
            "too_deep",
            format!("nested deeper than {MAX_NESTING} levels"),
        )
    }
}

/// Structures inside structures. Go's Thrift library has the same bound; Jaeger's own
/// messages need 6, attributes of OTLP as many as their sender nests.
pub const MAX_NESTING: usize = 64;
