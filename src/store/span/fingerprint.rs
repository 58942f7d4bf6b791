//! By what an exact repetition of a span is known: ids, times and all content, 128 bits.

use xxhash_rust::xxh3::xxh3_128;

use crate::model::trace::{RefType, Span, Tag, TagValue};

/// Takes fingerprints; keeps its space for the next one.
#[derive(Default)]
pub struct Fingerprints(Vec<u8>);

impl Fingerprints {
    /// Equal for equal spans, wherever they came from; never for others, as far as 128 bits
    /// can say.
    pub fn of(&mut self, span: &Span) -> u128 {
        let out = &mut self.0;
        out.clear();
        out.extend(span.trace_id.0.to_le_bytes());
        out.extend(span.span_id.0.to_le_bytes());
        out.extend(span.start.to_le_bytes());
        out.extend(span.duration.to_le_bytes());
        out.extend(span.flags.to_le_bytes());
        text(out, &span.operation);
        text(out, &span.process.service);
        tags(out, &span.process.tags);
        tags(out, &span.tags);
        count(out, span.references.len());
        for reference in &span.references {
            out.push(u8::from(reference.kind == RefType::FollowsFrom));
            out.extend(reference.trace_id.0.to_le_bytes());
            out.extend(reference.span_id.0.to_le_bytes());
        }
        count(out, span.logs.len());
        for log in &span.logs {
            out.extend(log.at.to_le_bytes());
            tags(out, &log.fields);
        }
        count(out, span.warnings.len());
        span.warnings.iter().for_each(|warning| text(out, warning));
        let fingerprint = xxh3_128(out);
        // One huge span must not be paid for for ever.
        if out.capacity() > 1 << 20 {
            self.0 = Vec::new();
        }
        fingerprint
    }
}

fn tags(out: &mut Vec<u8>, tags: &[Tag]) {
    count(out, tags.len());
    for tag in tags {
        text(out, &tag.key);
        match &tag.value {
            TagValue::String(value) => {
                out.push(0);
                text(out, value);
            }
            TagValue::Bool(value) => out.push(1 + u8::from(*value)),
            TagValue::Int64(value) => {
                out.push(3);
                out.extend(value.to_le_bytes());
            }
            TagValue::Float64(value) => {
                out.push(4);
                out.extend(value.to_bits().to_le_bytes());
            }
            TagValue::Binary(value) => {
                out.push(5);
                count(out, value.len());
                out.extend_from_slice(value);
            }
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend((count as u64).to_le_bytes());
}
