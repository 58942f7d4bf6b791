//! The forms in which spans arrive, and the one function that decodes each.
//!
//! S1. The journal keeps a body as it was received (after content decoding) together
//!     with its format's code, and replays it through [`decode_spans`]. So decoding,
//!     sanitizing included, depends on nothing but the two.
//! S2. Codes are on disk: none is ever changed or used again.

use crate::model::trace::SpanBatch;

use super::{DecodeError, jaeger, otlp, zipkin};

/// How a body of spans is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SpanFormat {
    /// A Thrift compact message `emitBatch` or `emitZipkinBatch`: UDP 6831, 5775.
    ThriftCompactMessage = 10,
    /// A Thrift binary message `emitBatch` or `emitZipkinBatch`: UDP 6832.
    ThriftBinaryMessage = 11,
    /// A bare Thrift binary `Batch`: HTTP 14268.
    ThriftBinaryBatch = 12,
    /// `jaeger.api_v2.PostSpansRequest`: gRPC 14250.
    JaegerProtoRequest = 13,
    /// `ExportTraceServiceRequest`: gRPC 4317, HTTP 4318.
    OtlpProto = 14,
    /// The same as JSON: HTTP 4318.
    OtlpJson = 15,
    /// Zipkin's version 1 as JSON: HTTP 9411.
    ZipkinJsonV1 = 16,
    /// A Thrift binary list of Zipkin's version 1: HTTP 9411.
    ZipkinThrift = 17,
    /// Zipkin's version 2 as JSON: HTTP 9411.
    ZipkinJsonV2 = 18,
    /// `zipkin.proto3.ListOfSpans`: HTTP 9411.
    ZipkinProto = 19,
    /// `jaeger.storage.v1.WriteSpanRequest`s, one behind the other: gRPC 17271.
    StorageWrites = 20,
    /// `ExportTraceServiceRequest` of somebody who stores here: gRPC 17271.
    StorageOtlp = 21,
    /// Several of [`SpanFormat::ThriftCompactMessage`], each behind its length ([`messages`]):
    /// datagrams that were received at once.
    ThriftCompactMessages = 22,
    /// The same of [`SpanFormat::ThriftBinaryMessage`].
    ThriftBinaryMessages = 23,
}

impl SpanFormat {
    /// All formats, in order of their codes.
    pub const ALL: [Self; 14] = [
        Self::ThriftCompactMessage,
        Self::ThriftBinaryMessage,
        Self::ThriftBinaryBatch,
        Self::JaegerProtoRequest,
        Self::OtlpProto,
        Self::OtlpJson,
        Self::ZipkinJsonV1,
        Self::ZipkinThrift,
        Self::ZipkinJsonV2,
        Self::ZipkinProto,
        Self::StorageWrites,
        Self::StorageOtlp,
        Self::ThriftCompactMessages,
        Self::ThriftBinaryMessages,
    ];

    /// The format with this code, or `None` when no version of ours wrote it.
    pub fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|format| *format as u8 == code)
    }

    /// What the tag `internal.span.format` says. A datagram is `proto`: Jaeger's agent
    /// turned Thrift into protobuf before its collector saw it. Spans that are stored here by
    /// another collector have its mark already and get none.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::ThriftCompactMessage
            | Self::ThriftBinaryMessage
            | Self::ThriftCompactMessages
            | Self::ThriftBinaryMessages
            | Self::JaegerProtoRequest => "proto",
            Self::ThriftBinaryBatch => "jaeger",
            Self::OtlpProto | Self::OtlpJson => "otlp",
            Self::ZipkinJsonV1 | Self::ZipkinThrift | Self::ZipkinJsonV2 | Self::ZipkinProto => {
                "zipkin"
            }
            Self::StorageWrites | Self::StorageOtlp => "",
        }
    }
}

/// Decodes a body; the same bytes and format always give the same spans.
pub fn decode_spans(format: SpanFormat, body: &[u8]) -> Result<SpanBatch, DecodeError> {
    match format {
        SpanFormat::ThriftCompactMessage => jaeger::batch::decode_compact_message(body),
        SpanFormat::ThriftBinaryMessage => jaeger::batch::decode_binary_message(body),
        SpanFormat::ThriftBinaryBatch => jaeger::batch::decode_binary_batch(body),
        SpanFormat::JaegerProtoRequest => jaeger::proto::decode_post_spans(body),
        SpanFormat::OtlpProto => otlp::decode_proto(body).map(|export| export.batch),
        SpanFormat::OtlpJson => otlp::decode_json(body).map(|export| export.batch),
        SpanFormat::ZipkinJsonV1 => zipkin::decode_json_v1(body),
        SpanFormat::ZipkinThrift => zipkin::decode_thrift_list(body),
        SpanFormat::ZipkinJsonV2 => zipkin::decode_json_v2(body),
        SpanFormat::ZipkinProto => zipkin::decode_proto(body),
        SpanFormat::ThriftCompactMessages => {
            each_message(body, jaeger::batch::decode_compact_message)
        }
        SpanFormat::ThriftBinaryMessages => {
            each_message(body, jaeger::batch::decode_binary_message)
        }
        SpanFormat::StorageWrites => jaeger::proto::decode_span_writes(body),
        SpanFormat::StorageOtlp => otlp::decode_stored(body).map(|export| export.batch),
    }
}

/// Bytes of the length before each message of several: little-endian.
pub const MESSAGE_HEAD: usize = 4;

/// The messages of a body that holds several.
pub fn messages(body: &[u8]) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = rest.split_first_chunk().and_then(|(head, after)| {
            let length = u32::from_le_bytes(*head) as usize;
            after.split_at_checked(length)
        });
        let Some((message, after)) = taken else {
            rest = &[];
            let text = "a message is shorter than its length says";
            return Some(Err(DecodeError::new("truncated", text.to_owned())));
        };
        rest = after;
        Some(Ok(message))
    })
}

fn each_message(
    body: &[u8],
    decode: fn(&[u8]) -> Result<SpanBatch, DecodeError>,
) -> Result<SpanBatch, DecodeError> {
    let mut all = SpanBatch::default();
    for message in messages(body) {
        all.spans.append(&mut decode(message?)?.spans);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stay_what_they_are_and_round_trip() {
        let codes: Vec<u8> = SpanFormat::ALL.iter().map(|format| *format as u8).collect();
        assert_eq!(codes, (10..=23).collect::<Vec<u8>>());
        for format in SpanFormat::ALL {
            assert_eq!(SpanFormat::from_u8(format as u8), Some(format));
        }
        assert_eq!(SpanFormat::from_u8(9), None);
        assert_eq!(SpanFormat::from_u8(24), None);
    }

    #[test]
    fn several_messages_are_read_one_after_the_other_or_not_at_all() {
        let framed = |parts: &[&[u8]]| {
            let mut body = Vec::new();
            for part in parts {
                body.extend((part.len() as u32).to_le_bytes());
                body.extend_from_slice(part);
            }
            body
        };
        let body = framed(&[b"ab", b"", b"c"]);
        let read: Result<Vec<&[u8]>, _> = messages(&body).collect();
        assert_eq!(read, Ok(vec![&b"ab"[..], b"", b"c"]));
        for cut in 1..body.len() {
            let read: Result<Vec<&[u8]>, _> = messages(&body[..cut]).collect();
            // Whole messages, or an error: never a part of one.
            assert_eq!(read.is_ok(), [6, 10].contains(&cut), "{cut}");
        }
        assert!(decode_spans(SpanFormat::ThriftCompactMessages, &body).is_err());
        let none = decode_spans(SpanFormat::ThriftBinaryMessages, b"").expect("nothing");
        assert!(none.spans.is_empty());
    }
}
