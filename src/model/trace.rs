//! Spans and traces, as Jaeger's model has them (reference: jaeger.api_v2, model.proto).

use std::cmp::Ordering;
use std::sync::Arc;

use compact_str::CompactString;

use super::time::Timestamp;

/// Text of a span: up to 24 bytes lie in it, which most keys and values fit; more on the heap.
pub type Text = CompactString;

/// A trace's id: 128 bits; a 64-bit id has a zero upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub u128);

/// A span's id; 0 is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub u64);

/// 16 hexadecimal digits when the upper half is zero, else 32.
impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 >> 64 == 0 {
            write!(f, "{:016x}", self.0)
        } else {
            write!(f, "{:032x}", self.0)
        }
    }
}

impl std::fmt::Display for SpanId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TraceId {
    /// Parses 1–32 hexadecimal digits of any case; short ones are padded on the left.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex {
            u128::from_str_radix(text, 16).ok().map(Self)
        } else {
            None
        }
    }
}

impl SpanId {
    /// Parses 1–16 hexadecimal digits of any case; short ones are padded on the left.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex {
            u64::from_str_radix(text, 16).ok().map(Self)
        } else {
            None
        }
    }
}

/// A typed value of a tag or log field.
#[derive(Clone, Debug)]
pub enum TagValue {
    String(Text),
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Binary(Box<[u8]>),
}

/// Floats are compared by their bits, so that NaN is equal to itself.
impl PartialEq for TagValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int64(a), Self::Int64(b)) => a == b,
            (Self::Float64(a), Self::Float64(b)) => a.to_bits() == b.to_bits(),
            (Self::Binary(a), Self::Binary(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for TagValue {}

impl TagValue {
    /// Some order in which equal ones lie together.
    fn in_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int64(a), Self::Int64(b)) => a.cmp(b),
            (Self::Float64(a), Self::Float64(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Binary(a), Self::Binary(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::String(_) => 0,
            Self::Bool(_) => 1,
            Self::Int64(_) => 2,
            Self::Float64(_) => 3,
            Self::Binary(_) => 4,
        }
    }
}

/// A key and its value: on a span, on a process, or in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub key: Text,
    pub value: TagValue,
}

impl Tag {
    pub fn string(key: impl Into<Text>, value: impl Into<Text>) -> Self {
        Self {
            key: key.into(),
            value: TagValue::String(value.into()),
        }
    }

    /// The same of texts that are known when the program is built.
    pub const fn known(key: &'static str, value: &'static str) -> Self {
        Self {
            key: Text::const_new(key),
            value: TagValue::String(Text::const_new(value)),
        }
    }

    pub fn bool(key: impl Into<Text>, value: bool) -> Self {
        Self {
            key: key.into(),
            value: TagValue::Bool(value),
        }
    }
}

/// How a span refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefType {
    ChildOf,
    FollowsFrom,
}

/// A reference to a span, maybe of another trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRef {
    pub kind: RefType,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanLog {
    pub at: Timestamp,
    pub fields: Vec<Tag>,
}

/// Who emitted a span.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Process {
    pub service: Text,
    pub tags: Vec<Tag>,
}

/// Whether both have the same tags, in whatever order.
fn same_tags(a: &[Tag], b: &[Tag]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Nearly always in the same order.
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    fn sorted(tags: &[Tag]) -> Vec<&Tag> {
        let mut tags: Vec<&Tag> = tags.iter().collect();
        tags.sort_unstable_by(|a, b| {
            let keys = a.key.cmp(&b.key);
            keys.then_with(|| a.value.in_order(&b.value))
        });
        tags
    }
    same == a.len() || sorted(&a[same..]) == sorted(&b[same..])
}

/// One span, with everything its sender said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub operation: Text,
    pub references: Vec<SpanRef>,
    /// 1 sampled, 2 debug, 8 firehose.
    pub flags: u32,
    pub start: Timestamp,
    /// Nanoseconds.
    pub duration: u64,
    pub tags: Vec<Tag>,
    pub logs: Vec<SpanLog>,
    /// Shared by all spans of a batch.
    pub process: Arc<Process>,
    pub warnings: Vec<Text>,
}

impl Span {
    /// The first CHILD_OF reference inside the own trace.
    pub fn parent(&self) -> Option<SpanId> {
        self.references
            .iter()
            .find(|r| r.kind == RefType::ChildOf && r.trace_id == self.trace_id)
            .map(|r| r.span_id)
    }

    /// Whether one of the two is the other over again: equal but for warnings and the order of
    /// tags and log fields, which a reader that stores what it read adds and changes.
    pub fn repeats(&self, other: &Self) -> bool {
        (self.trace_id, self.span_id, self.start, self.duration)
            == (other.trace_id, other.span_id, other.start, other.duration)
            && (self.flags, &self.operation) == (other.flags, &other.operation)
            && self.references == other.references
            && self.process.service == other.process.service
            && same_tags(&self.tags, &other.tags)
            && same_tags(&self.process.tags, &other.process.tags)
            && self.logs.len() == other.logs.len()
            && self
                .logs
                .iter()
                .zip(&other.logs)
                .all(|(a, b)| a.at == b.at && same_tags(&a.fields, &b.fields))
    }

    /// The value of the `span.kind` tag, or "".
    pub fn kind(&self) -> &str {
        for tag in &self.tags {
            if &*tag.key == "span.kind"
                && let TagValue::String(kind) = &tag.value
            {
                return kind;
            }
        }
        ""
    }
}

/// What one message of a client brings.
#[derive(Clone, Debug, Default)]
pub struct SpanBatch {
    pub spans: Vec<Span>,
}

/// All spans of one trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    pub spans: Vec<Span>,
    pub warnings: Vec<String>,
}

/// A trace search; conditions hold on one and the same span.
#[derive(Clone, Debug, Default)]
pub struct TraceQuery {
    pub service: String,
    /// Empty: any.
    pub operation: String,
    /// Key and the text its value must have; all must hold.
    pub tags: Vec<(String, String)>,
    /// Span start, inclusive, nanoseconds.
    pub start_min: Timestamp,
    /// Span start, inclusive, nanoseconds.
    pub start_max: Timestamp,
    /// Inclusive, nanoseconds.
    pub duration_min: Option<u64>,
    /// Inclusive, nanoseconds.
    pub duration_max: Option<u64>,
    /// Number of traces; the newest are kept.
    pub limit: usize,
}

/// An operation of a service; one name with two kinds is two operations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    pub name: String,
    /// client, server, producer, consumer, internal, or "".
    pub kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_short_texts_is_two_texts_large_and_needs_no_heap() {
        assert_eq!(size_of::<Tag>(), 2 * size_of::<Text>());
        for tag in [
            Tag::string("http.response.status_co", "0123456789abcdef01234567"),
            Tag::known("internal.span.format", "otlp"),
        ] {
            assert!(!tag.key.is_heap_allocated());
            assert!(matches!(&tag.value, TagValue::String(text) if !text.is_heap_allocated()));
        }
    }
}
