//! From what a sender wrote to what the model can hold: text that is not UTF-8, empty
//! service names, durations below zero. Jaeger 1.76's names and forms; nothing is lost,
//! since the original bytes stay as a binary value.
//!
//! A duration of zero stays zero: Traefik emits such spans.

use crate::model::trace::{Tag, TagValue, Text};

use super::jaeger::duration::GoDuration;

/// Tag that says how a span reached us.
pub const FORMAT_TAG: &str = "internal.span.format";

const INVALID_OPERATION: &str = "InvalidOperationName";
const INVALID_SERVICE: &str = "InvalidServiceName";
const INVALID_KEY: &str = "InvalidTagKey";
const NEGATIVE_DURATION: &str = "InvalidNegativeDuration";

/// Service of a process without a name.
pub const EMPTY_SERVICE: &str = "empty-service-name";
/// Service of an OTLP resource without `service.name`.
pub const MISSING_SERVICE: &str = "missing-service-name";
/// Service of a span that came without a process.
pub const NO_PROCESS: &str = "null-process-and-service-name";

/// A value as its sender wrote it; text may be any bytes.
#[derive(Clone, Copy, Debug)]
pub enum RawValue<'a> {
    String(&'a [u8]),
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Binary(&'a [u8]),
}

/// The tag for a key and value. A value that is not UTF-8 becomes binary; a key that is
/// not, `InvalidTagKey` with `key:value` as binary.
#[inline]
pub fn tag(key: &[u8], value: RawValue<'_>) -> Tag {
    let Ok(key) = std::str::from_utf8(key) else {
        return invalid_key(key, value);
    };
    let value = match value {
        RawValue::String(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => TagValue::String(text.into()),
            Err(_) => TagValue::Binary(bytes.into()),
        },
        RawValue::Bool(value) => TagValue::Bool(value),
        RawValue::Int64(value) => TagValue::Int64(value),
        RawValue::Float64(value) => TagValue::Float64(value),
        RawValue::Binary(bytes) => TagValue::Binary(bytes.into()),
    };
    Tag {
        key: key.into(),
        value,
    }
}

#[cold]
fn invalid_key(key: &[u8], value: RawValue<'_>) -> Tag {
    let mut original = key.to_vec();
    original.push(b':');
    match value {
        RawValue::String(bytes) | RawValue::Binary(bytes) => original.extend_from_slice(bytes),
        RawValue::Bool(value) => original.extend_from_slice(value.to_string().as_bytes()),
        RawValue::Int64(value) => original.extend_from_slice(value.to_string().as_bytes()),
        RawValue::Float64(value) => original.extend_from_slice(value.to_string().as_bytes()),
    }
    binary(INVALID_KEY, &original)
}

/// The operation's name; bytes that are not UTF-8 are kept in a tag.
pub fn operation(name: &[u8], tags: &mut Vec<Tag>) -> Text {
    match std::str::from_utf8(name) {
        Ok(name) => name.into(),
        Err(_) => {
            tags.push(binary(INVALID_OPERATION, name));
            INVALID_OPERATION.into()
        }
    }
}

/// The service's name, and the tag that each of its spans gets when the name was not UTF-8.
pub fn service(name: &[u8]) -> (Text, Option<Tag>) {
    match std::str::from_utf8(name) {
        Ok("") => (EMPTY_SERVICE.into(), None),
        Ok(name) => (name.into(), None),
        Err(_) => (INVALID_SERVICE.into(), Some(binary(INVALID_SERVICE, name))),
    }
}

/// A duration in nanoseconds; one below zero becomes 1 ns and is noted in a tag.
pub fn duration(nanoseconds: i64, tags: &mut Vec<Tag>) -> u64 {
    match u64::try_from(nanoseconds) {
        Ok(duration) => duration,
        Err(_) => {
            tags.push(binary(
                NEGATIVE_DURATION,
                GoDuration(nanoseconds).to_string().as_bytes(),
            ));
            1
        }
    }
}

fn binary(key: &str, bytes: &[u8]) -> Tag {
    Tag {
        key: key.into(),
        value: TagValue::Binary(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_kept_as_binary() {
        assert_eq!(tag(b"k", RawValue::String(b"\xff")), binary("k", b"\xff"));
        assert_eq!(
            tag(b"\xfe", RawValue::String(b"v")),
            binary("InvalidTagKey", b"\xfe:v")
        );
        assert_eq!(
            tag(b"\xfe", RawValue::Int64(-3)),
            binary("InvalidTagKey", b"\xfe:-3")
        );
        let mut tags = Vec::new();
        assert_eq!(&*operation(b"a\xff", &mut tags), "InvalidOperationName");
        assert_eq!(tags, [binary("InvalidOperationName", b"a\xff")]);
        assert_eq!(
            service(b"\xc0"),
            (
                "InvalidServiceName".into(),
                Some(binary("InvalidServiceName", b"\xc0"))
            )
        );
        assert_eq!(service(b""), ("empty-service-name".into(), None));
    }

    #[test]
    fn a_negative_duration_becomes_one_nanosecond_and_zero_stays() {
        let mut tags = Vec::new();
        assert_eq!(duration(0, &mut tags), 0);
        assert_eq!(tags, []);
        assert_eq!(duration(-1_500_000, &mut tags), 1);
        assert_eq!(tags, [binary("InvalidNegativeDuration", b"-1.5ms")]);
        assert_eq!(duration(i64::MIN, &mut tags), 1);
    }
}
