//! A push request of a Loki client, from its body as received to a [`LogBatch`].
//!
//! Three bodies: protobuf in a snappy block (promtail, Alloy, the docker driver), JSON
//! (fluent-bit, vector, curl) and the JSON of the legacy path; and the two of OTLP, which
//! `protocol::otlp::logs` reads. Each may be wrapped in gzip, raw deflate or zstd.
//!
//! Knows syntax only: which labels, sizes and times are acceptable is for `ingest` to say.
//!
//! D1. The same body, codes and limits always give the same batch: the journal keeps
//!     bodies as received, and replay decodes them again. Where more went into a batch
//!     (a clock, a setting), it says so: [`DecodedPush::once_only`].
//! D2. No more memory is taken than [`DecodeLimits`] allows, whatever a body claims.
//! D3. No allocation per line: lines stay where decompression put them (protobuf) or are
//!     appended to one buffer (JSON). Metadata sets are shared within a batch.

mod json;
mod labels;
pub(in crate::protocol) mod metadata;
mod proto;

use std::io::Read;

use bytes::Bytes;

use crate::model::{LogBatch, LogEntry, StreamEntries, StreamId, Timestamp};
use crate::protocol::otlp::logs::{self, Mapping};

pub use labels::{LabelsError, ParsedLabels, known_labels};

/// The syntax of a body. The codes are written to the journal: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PushFormat {
    /// `PushRequest` in a snappy block (no framing).
    ProtobufSnappy = 1,
    /// JSON of `/loki/api/v1/push`.
    JsonV1 = 2,
    /// JSON of `/api/prom/push`.
    JsonLegacy = 3,
    /// OTLP's `ExportLogsServiceRequest`.
    OtlpProto = 4,
    /// The same as JSON.
    OtlpJson = 5,
}

impl PushFormat {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::ProtobufSnappy),
            2 => Some(Self::JsonV1),
            3 => Some(Self::JsonLegacy),
            4 => Some(Self::OtlpProto),
            5 => Some(Self::OtlpJson),
            _ => None,
        }
    }
}

/// What a body is wrapped in. The codes are written to the journal: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Coding {
    Identity = 0,
    Gzip = 1,
    /// Raw deflate, without zlib's header.
    Deflate = 2,
    Zstd = 3,
}

impl Coding {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Identity),
            1 => Some(Self::Gzip),
            2 => Some(Self::Deflate),
            3 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How much memory one body may turn into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes after each decompression. At most 4 GiB, which is how far a [`LogEntry`] reaches.
    pub max_text: usize,
    /// Bytes of streams, entries and metadata beside the text. Without it, a body of empty
    /// entries would take fifty times its size.
    pub max_parts: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_text: 64 << 20,
            max_parts: 64 << 20,
        }
    }
}

impl DecodeLimits {
    /// For what was accepted once already: the journal's own bound on a record applies.
    pub fn replay() -> Self {
        Self {
            max_text: u32::MAX as usize,
            max_parts: usize::MAX,
        }
    }
}

/// Why a body could not be read; nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not what its content type says, or broken.
    #[error("{0}")]
    Invalid(String),
    /// More than [`DecodeLimits`] allow.
    #[error("{0}")]
    TooLarge(String),
    /// A request without a single stream.
    #[error("at least one valid stream is required")]
    NoStreams,
}

impl DecodeError {
    pub(in crate::protocol) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

/// What a body holds.
#[derive(Clone, Debug, Default)]
pub struct DecodedPush {
    /// Streams with at least one entry, in the order of the request. Their ids are not set
    /// yet (`StreamId(0)`): labels may still be added. The tenant is not set either.
    pub batch: LogBatch,
    /// What no [`LogBatch`] can express, left out of it.
    pub refused: Vec<RefusedPart>,
    /// Bytes that text, entries, streams and metadata take, nearly.
    pub occupied: usize,
    /// Decoding the body again might give another batch: only this one tells what was sent.
    pub once_only: bool,
}

/// A stream or an entry that was left out of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// Label value of the counter of refusals.
    pub reason: &'static str,
    pub message: String,
    pub entries: usize,
}

/// Reads a body. Pure and deterministic (D1).
pub fn decode_push(
    format: PushFormat,
    coding: Coding,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<DecodedPush, DecodeError> {
    decode_push_with(format, coding, body, limits, &Mapping::default(), None)
}

/// The same, with what OTLP's bodies leave to us: how they are mapped, and the time of
/// records that have none (0 for `None`).
pub fn decode_push_with(
    format: PushFormat,
    coding: Coding,
    body: &[u8],
    limits: &DecodeLimits,
    mapping: &Mapping,
    now: Option<Timestamp>,
) -> Result<DecodedPush, DecodeError> {
    let limits = &DecodeLimits {
        max_text: limits.max_text.min(u32::MAX as usize),
        ..*limits
    };
    let unwrapped;
    let body = match coding {
        Coding::Identity => body,
        Coding::Gzip => {
            // Several members behind each other are one body, as in Go's reader.
            unwrapped = inflate("gzip", flate2::read::MultiGzDecoder::new(body), limits)?;
            &unwrapped
        }
        Coding::Deflate => {
            unwrapped = inflate("deflate", flate2::read::DeflateDecoder::new(body), limits)?;
            &unwrapped
        }
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)
                .map_err(|e| DecodeError::invalid(format!("body can't be read as zstd: {e}")))?;
            // A frame may ask for a window of gigabytes.
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(|e| DecodeError::invalid(format!("body can't be read as zstd: {e}")))?;
            unwrapped = inflate("zstd", decoder, limits)?;
            &unwrapped
        }
    };
    match format {
        PushFormat::ProtobufSnappy => {
            let text = unsnap(body, limits)?;
            proto::decode(text, limits)
        }
        PushFormat::JsonV1 => json::decode_v1(body, limits),
        PushFormat::JsonLegacy => json::decode_legacy(body, limits),
        PushFormat::OtlpProto => logs::decode_proto(body, limits, mapping, now),
        PushFormat::OtlpJson => logs::decode_json(body, limits, mapping, now),
    }
}

/// 8 MiB, what zstd itself recommends to accept.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes that decoding will probably take, for whoever has to ask before. Trusts nothing:
/// a claim above `limits` counts as the limit.
pub fn expected_bytes(
    format: PushFormat,
    coding: Coding,
    body: &[u8],
    limits: &DecodeLimits,
) -> usize {
    let text = match (format, coding) {
        (PushFormat::ProtobufSnappy, Coding::Identity) => {
            snap::raw::decompress_len(body).unwrap_or(0)
        }
        // Lines are copied out of the body; metadata and entries come on top.
        (_, Coding::Identity) => body.len(),
        (_, Coding::Gzip | Coding::Deflate | Coding::Zstd) => body.len().saturating_mul(8),
    };
    text.min(limits.max_text).saturating_mul(5) / 4
}

fn inflate(name: &str, decoder: impl Read, limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    decoder
        .take(limits.max_text as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| DecodeError::invalid(format!("body is not valid {name}: {e}")))?;
    if out.len() > limits.max_text {
        return Err(text_too_large(limits));
    }
    Ok(out)
}

fn unsnap(body: &[u8], limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    let broken =
        |e: snap::Error| DecodeError::invalid(format!("body is not a valid snappy block: {e}"));
    // Before allocating: the length is a claim of the sender's.
    let len = snap::raw::decompress_len(body).map_err(broken)?;
    if len > limits.max_text {
        return Err(text_too_large(limits));
    }
    // Snappy expands at most 64-fold or so (a copy of 64 bytes takes two or three); a claim
    // far beyond is a lie, found out here before the memory is taken.
    if len / 64 > body.len() {
        return Err(DecodeError::invalid(
            "body is not a valid snappy block: it claims more bytes than it can hold",
        ));
    }
    let mut text = vec![0; len];
    let written = snap::raw::Decoder::new()
        .decompress(body, &mut text)
        .map_err(broken)?;
    text.truncate(written);
    Ok(text)
}

pub(in crate::protocol) fn text_too_large(limits: &DecodeLimits) -> DecodeError {
    DecodeError::TooLarge(format!(
        "push is larger than {} bytes after decompression; send smaller batches",
        limits.max_text
    ))
}

/// Collects what the decoders find, and keeps count of what it occupies (D2).
pub(in crate::protocol) struct Parts {
    streams: Vec<StreamEntries>,
    pub refused: Vec<RefusedPart>,
    pub metadata: metadata::Interner,
    /// Streams seen, also those without entries.
    pub seen: usize,
    spent: usize,
    max: usize,
}

/// What a stream occupies beside its entries: struct, labels, allocator's overhead.
pub(in crate::protocol) const STREAM_COST: usize = 256;

impl Parts {
    pub fn new(limits: &DecodeLimits) -> Self {
        Self {
            streams: Vec::new(),
            refused: Vec::new(),
            metadata: metadata::Interner::default(),
            seen: 0,
            spent: 0,
            max: limits.max_parts,
        }
    }

    /// Takes note of `bytes` that are about to be kept.
    #[inline]
    pub fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.spent += bytes;
        if self.spent > self.max {
            return Err(DecodeError::TooLarge(format!(
                "push holds too many streams, entries or metadata (more than {} bytes of them); \
                 send smaller batches",
                self.max
            )));
        }
        Ok(())
    }

    /// Closes a stream: `unrepresentable` of its entries had times that no timestamp can hold.
    pub fn push_stream(
        &mut self,
        labels: ParsedLabels,
        entries: Vec<LogEntry>,
        unrepresentable: usize,
    ) -> Result<(), DecodeError> {
        if let Some(name) = labels.duplicate {
            self.refused.push(RefusedPart {
                reason: "duplicate_label",
                message: format!(
                    "stream '{}' has duplicate label name: '{name}'; send each name once",
                    labels.labels
                ),
                entries: entries.len() + unrepresentable,
            });
            return Ok(());
        }
        if unrepresentable > 0 {
            self.refused.push(RefusedPart {
                reason: "time_out_of_range",
                message: format!(
                    "entry for stream '{}' has a timestamp outside the years 1678 to 2261",
                    labels.labels
                ),
                entries: unrepresentable,
            });
        }
        if !entries.is_empty() {
            self.streams.push(StreamEntries {
                id: StreamId(0),
                labels: labels.labels,
                entries,
            });
        }
        Ok(())
    }

    pub fn finish(self, text: Vec<u8>) -> Result<DecodedPush, DecodeError> {
        if self.seen == 0 {
            return Err(DecodeError::NoStreams);
        }
        Ok(DecodedPush {
            occupied: text.len() + self.spent,
            batch: LogBatch {
                tenant: Default::default(),
                text: Bytes::from(text),
                metadata: self.metadata.into_sets(),
                streams: self.streams,
            },
            refused: self.refused,
            once_only: false,
        })
    }
}

#[cfg(test)]
pub(crate) mod encode;
#[cfg(test)]
mod tests;
