//! The hashes of a span's parts, taken once: the block that it goes into finds its tags by them,
//! and together they tell whether the span was there already.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::search::ValueRef;
use crate::model::trace::{Process, RefType, Span};

/// Of equal spans equal, of others different as far as 128 bits can say; means nothing beyond
/// the hasher. Upper half: ids and times; lower half: all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Likeness(pub u128);

/// Hashes of one span; keeps its space for the next one.
#[derive(Debug, Default)]
pub struct SpanHashes {
    operation: u64,
    /// Of the span, then of its logs.
    tags: Vec<u64>,
    /// The last span's process: the spans of a batch share one.
    process: Option<(Arc<Process>, u64)>,
}

impl SpanHashes {
    /// Takes the hashes of a span.
    pub fn take(&mut self, hasher: &RandomState, span: &Span) -> Likeness {
        self.tags.clear();
        self.operation = hasher.hash_one(&*span.operation);
        let process = self.process(hasher, &span.process);
        let mut all = mix(process, self.operation);
        all = mix(all, u64::from(span.flags));
        for tag in &span.tags {
            let hash = hash_tag(hasher, &tag.key, ValueRef::from(&tag.value));
            self.tags.push(hash);
            all = mix(all, hash);
        }
        for reference in &span.references {
            all = mix(all, reference.trace_id.0 as u64);
            all = mix(all, (reference.trace_id.0 >> 64) as u64);
            all = mix(all, reference.span_id.0);
            all = mix(all, u64::from(reference.kind == RefType::FollowsFrom));
        }
        for log in &span.logs {
            all = mix(all, log.at as u64);
            for tag in &log.fields {
                let hash = hash_tag(hasher, &tag.key, ValueRef::from(&tag.value));
                self.tags.push(hash);
                all = mix(all, hash);
            }
            all = mix(all, log.fields.len() as u64);
        }
        for warning in &span.warnings {
            all = mix(all, hasher.hash_one(&**warning));
        }
        let counts = [
            span.tags.len(),
            span.references.len(),
            span.logs.len(),
            span.warnings.len(),
        ];
        all = counts.into_iter().fold(all, |all, n| mix(all, n as u64));
        let mut ids = mix(span.span_id.0, span.trace_id.0 as u64);
        ids = mix(ids, (span.trace_id.0 >> 64) as u64);
        ids = mix(ids, span.start as u64);
        ids = mix(ids, span.duration);
        Likeness(u128::from(ids) << 64 | u128::from(all))
    }

    pub(super) fn operation(&self) -> u64 {
        self.operation
    }

    pub(super) fn tags(&self) -> std::slice::Iter<'_, u64> {
        self.tags.iter()
    }

    fn process(&mut self, hasher: &RandomState, process: &Arc<Process>) -> u64 {
        if let Some((last, hash)) = &self.process
            && Arc::ptr_eq(last, process)
        {
            return *hash;
        }
        let mut all = hasher.hash_one(&*process.service);
        for tag in &process.tags {
            all = mix(all, hash_tag(hasher, &tag.key, ValueRef::from(&tag.value)));
        }
        self.process = Some((process.clone(), all));
        all
    }
}

/// Order matters; for one of them fixed, it is one-to-one in the other.
fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a.rotate_left(23) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

/// The hash of a tag, its type included.
pub(super) fn hash_tag(hasher: &RandomState, key: &str, value: ValueRef<'_>) -> u64 {
    let mut state = hasher.build_hasher();
    key.hash(&mut state);
    match value {
        ValueRef::String(text) => {
            state.write_u8(0);
            text.hash(&mut state);
        }
        ValueRef::Bool(value) => state.write_u8(1 + u8::from(value)),
        ValueRef::Int64(value) => {
            state.write_u8(3);
            state.write_i64(value);
        }
        ValueRef::Float64(value) => {
            state.write_u8(4);
            state.write_u64(value.to_bits());
        }
        ValueRef::Binary(bytes) => {
            state.write_u8(5);
            bytes.hash(&mut state);
        }
    }
    state.finish()
}
