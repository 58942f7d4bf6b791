//! By what a repetition of a span is known: ids, times and all content, 128 bits.

use xxhash_rust::xxh3::xxh3_128;

use crate::model::trace::{RefType, Span, Tag, TagValue};

/// Takes fingerprints; keeps its space for the next one.
#[derive(Default)]
pub struct Fingerprints {
    out: Vec<u8>,
    tag: Vec<u8>,
}

impl Fingerprints {
    /// Equal for spans that repeat each other ([`Span::repeats`]), wherever they came from;
    /// never for others, as far as 128 bits can say.
    pub fn of(&mut self, span: &Span) -> u128 {
        let Self { out, tag } = self;
        out.clear();
        out.extend(span.trace_id.0.to_le_bytes());
        out.extend(span.span_id.0.to_le_bytes());
        out.extend(span.start.to_le_bytes());
        out.extend(span.duration.to_le_bytes());
        out.extend(span.flags.to_le_bytes());
        text(out, &span.operation);
        text(out, &span.process.service);
        tags(out, tag, &span.process.tags);
        tags(out, tag, &span.tags);
        count(out, span.references.len());
        for reference in &span.references {
            out.push(u8::from(reference.kind == RefType::FollowsFrom));
            out.extend(reference.trace_id.0.to_le_bytes());
            out.extend(reference.span_id.0.to_le_bytes());
        }
        count(out, span.logs.len());
        for log in &span.logs {
            out.extend(log.at.to_le_bytes());
            tags(out, tag, &log.fields);
        }
        let fingerprint = xxh3_128(out);
        // One huge span must not be paid for for ever.
        if out.capacity() > 1 << 20 {
            *out = Vec::new();
        }
        if tag.capacity() > 1 << 20 {
            *tag = Vec::new();
        }
        fingerprint
    }
}

/// The tags in whatever order: the sum of their hashes. Each is spread over all 128 bits, so that
/// no few of them add up to the sum of others.
fn tags(out: &mut Vec<u8>, scratch: &mut Vec<u8>, tags: &[Tag]) {
    count(out, tags.len());
    let mut sum = 0u128;
    for tag in tags {
        scratch.clear();
        text(scratch, &tag.key);
        match &tag.value {
            TagValue::String(value) => {
                scratch.push(0);
                text(scratch, value);
            }
            TagValue::Bool(value) => scratch.push(1 + u8::from(*value)),
            TagValue::Int64(value) => {
                scratch.push(3);
                scratch.extend(value.to_le_bytes());
            }
            TagValue::Float64(value) => {
                scratch.push(4);
                scratch.extend(value.to_bits().to_le_bytes());
            }
            TagValue::Binary(value) => {
                scratch.push(5);
                count(scratch, value.len());
                scratch.extend_from_slice(value);
            }
        }
        sum = sum.wrapping_add(xxh3_128(scratch));
    }
    out.extend(sum.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend((count as u64).to_le_bytes());
}
