//! The same export as JSON: ids in hex, 64-bit integers as text or number, bytes in base64.
//!
//! Resources, scopes and records are kept as text until their turn: `{}` costs two bytes
//! there and hundreds as a struct.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::json::{AnyValue, FromJson, KeyValue, Number, Text, Unsigned, nullable};
use super::logs::{Attribute, Collector, MAX_VALUES, Record, Refused, Scope, Value};
use crate::protocol::loki::push::DecodeError;

pub(super) fn decode(body: &[u8], collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    let mut text = serde_json::Deserializer::from_slice(body);
    let mut failed = None;
    let each = Each {
        with: &mut |raw: &RawValue| resource_logs(raw, collector),
        failed: &mut failed,
    };
    let read = Request(each)
        .deserialize(&mut text)
        .and_then(|()| text.end());
    finish(read, failed)
}

fn resource_logs(raw: &RawValue, collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    let Some(logs) = part::<ResourceLogsJson<'_>>(raw)? else {
        return Ok(());
    };
    let resource = match logs.resource {
        Some(raw) => part::<ResourceJson<'_>>(counted(raw)?)?.unwrap_or_default(),
        None => ResourceJson::default(),
    };
    let attributes: Vec<Attribute<'_>> = resource.attributes.into_iter().map(attribute).collect();
    collector.begin_resource(&attributes)?;
    drop(attributes);
    each(logs.scope_logs, &mut |raw| scope_logs(raw, collector))
}

fn scope_logs(raw: &RawValue, collector: &mut Collector<'_>) -> Result<(), DecodeError> {
    let Some(logs) = part::<ScopeLogsJson<'_>>(raw)? else {
        return Ok(());
    };
    let scope = match logs.scope {
        Some(raw) => part::<ScopeJson<'_>>(counted(raw)?)?.unwrap_or_default(),
        None => ScopeJson::default(),
    };
    collector.begin_scope(&Scope {
        name: bytes(scope.name),
        version: bytes(scope.version),
        attributes: scope.attributes.into_iter().map(attribute).collect(),
        dropped_attributes: scope.dropped_attributes_count.0 as u32,
    })?;
    each(logs.log_records, &mut |raw| {
        if values_of(raw) > MAX_VALUES {
            return collector.record(Err(Refused::too_many_values()));
        }
        let Some(record) = part::<RecordJson<'_>>(raw)? else {
            return Ok(());
        };
        match convert(record) {
            Ok(record) => collector.record(Ok(&record)),
            Err(refused) => collector.record(Err(refused)),
        }
    })
}

fn convert(record: RecordJson<'_>) -> Result<Record<'_>, Refused> {
    Ok(Record {
        time: record.time_unix_nano.0,
        observed: record.observed_time_unix_nano.0,
        severity_number: record.severity_number.0.0,
        severity_text: bytes(record.severity_text),
        body: value(record.body),
        attributes: record.attributes.into_iter().map(attribute).collect(),
        dropped_attributes: record.dropped_attributes_count.0 as u32,
        flags: record.flags.0 as u32,
        trace_id: id(&record.trace_id.0)?,
        span_id: id(&record.span_id.0)?,
        event_name: bytes(record.event_name),
    })
}

/// The bytes of an id in hexadecimal digits; whether there are enough is not asked here.
fn id(text: &str) -> Result<Cow<'static, [u8]>, Refused> {
    let digit = |b: &u8| char::from(*b).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let id: Option<Vec<u8>> = pairs
        .iter()
        .take(17)
        .map(|[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect();
    match id {
        Some(id) if rest.is_empty() => Ok(id.into()),
        _ => Err(Refused {
            reason: "bad_id",
            message: "a log record has a trace or span id that is not in hexadecimal digits".into(),
        }),
    }
}

fn bytes(text: Text<'_>) -> Cow<'_, [u8]> {
    match text.0 {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

fn attribute(pair: KeyValue<'_>) -> Attribute<'_> {
    (bytes(pair.key), value(pair.value))
}

/// Recursion is as deep as the parser went, which serde_json bounds to 128.
fn value(any: AnyValue<'_>) -> Value<'_> {
    match any {
        AnyValue::None => Value::None,
        AnyValue::String(text) => Value::Text(bytes(Text(text))),
        AnyValue::Bool(value) => Value::Bool(value),
        AnyValue::Int(value) => Value::Int(value),
        AnyValue::Double(value) => Value::Double(value),
        AnyValue::Bytes(bytes) => Value::Bytes(bytes.into()),
        AnyValue::Array(values) => Value::Array(values.into_iter().map(value).collect()),
        AnyValue::Map(values) => Value::Map(values.into_iter().map(attribute).collect()),
    }
}

/// How many values a text can hold at most: each begins with a brace.
fn values_of(raw: &RawValue) -> usize {
    memchr::memchr_iter(b'{', raw.get().as_bytes()).count()
}

fn counted(raw: &RawValue) -> Result<&RawValue, DecodeError> {
    if values_of(raw) > MAX_VALUES {
        return Err(DecodeError::TooLarge(Refused::too_many_values().message));
    }
    Ok(raw)
}

fn malformed(error: serde_json::Error) -> DecodeError {
    DecodeError::invalid(format!("not an export of logs in JSON: {error}"))
}

/// Reads a part; `None` for `null`.
fn part<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<Option<T>, DecodeError> {
    serde_json::from_str(raw.get()).map_err(malformed)
}

/// Calls `with` for each element of an array.
fn each<'a>(
    array: Option<&'a RawValue>,
    with: &mut dyn FnMut(&'a RawValue) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let Some(array) = array else {
        return Ok(());
    };
    let mut failed = None;
    let each = Each {
        with,
        failed: &mut failed,
    };
    let mut text = serde_json::Deserializer::from_str(array.get());
    let read = each.deserialize(&mut text);
    finish(read, failed)
}

/// What went wrong first: our own finding, or the parser's.
fn finish(
    read: Result<(), serde_json::Error>,
    failed: Option<DecodeError>,
) -> Result<(), DecodeError> {
    match (read, failed) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(malformed(error)),
        (Ok(()), None) => Ok(()),
    }
}

/// An array whose elements are handed on one by one, as text.
struct Each<'s, 'a> {
    with: &'s mut dyn FnMut(&'a RawValue) -> Result<(), DecodeError>,
    /// Errors of `with`, which serde could only carry as text.
    failed: &'s mut Option<DecodeError>,
}

impl<'a> DeserializeSeed<'a> for Each<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'a> Visitor<'a> for Each<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(raw) = elements.next_element::<&'a RawValue>()? {
            if let Err(error) = (self.with)(raw) {
                *self.failed = Some(error);
                return Err(de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// The outermost object, whose one array is handed on.
struct Request<'s, 'a>(Each<'s, 'a>);

impl<'a> DeserializeSeed<'a> for Request<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Request<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with resourceLogs")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Each { with, failed } = self.0;
        while let Some(key) = map.next_key::<Text<'a>>()? {
            if matches!(&*key.0, "resourceLogs" | "resource_logs") {
                map.next_value_seed(Each {
                    with: &mut *with,
                    failed: &mut *failed,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogsJson<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "scope_logs")]
    scope_logs: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
struct ResourceJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogsJson<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "log_records")]
    log_records: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(
        default,
        alias = "dropped_attributes_count",
        deserialize_with = "nullable"
    )]
    dropped_attributes_count: Unsigned,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordJson<'a> {
    #[serde(default, alias = "time_unix_nano", deserialize_with = "nullable")]
    time_unix_nano: Unsigned,
    #[serde(
        default,
        alias = "observed_time_unix_nano",
        deserialize_with = "nullable"
    )]
    observed_time_unix_nano: Unsigned,
    #[serde(default, alias = "severity_number", deserialize_with = "nullable")]
    severity_number: Severity,
    #[serde(
        borrow,
        default,
        alias = "severity_text",
        deserialize_with = "nullable"
    )]
    severity_text: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    body: AnyValue<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(
        default,
        alias = "dropped_attributes_count",
        deserialize_with = "nullable"
    )]
    dropped_attributes_count: Unsigned,
    #[serde(default, deserialize_with = "nullable")]
    flags: Unsigned,
    #[serde(borrow, default, alias = "trace_id", deserialize_with = "nullable")]
    trace_id: Text<'a>,
    #[serde(borrow, default, alias = "span_id", deserialize_with = "nullable")]
    span_id: Text<'a>,
    #[serde(borrow, default, alias = "event_name", deserialize_with = "nullable")]
    event_name: Text<'a>,
}

/// A severity: its number, or its name as some senders write it.
type Severity = Number<SeverityNumber>;

#[derive(Default)]
struct SeverityNumber(i64);

impl FromJson for SeverityNumber {
    const EXPECTED: &'static str = "the number of a severity";
    fn from_i64(value: i64) -> Option<Self> {
        Some(Self(value))
    }
    fn from_u64(value: u64) -> Option<Self> {
        i64::from_u64(value).map(Self)
    }
    fn from_f64(value: f64) -> Option<Self> {
        i64::from_f64(value).map(Self)
    }
    fn from_text(text: &str) -> Option<Self> {
        const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
        let Some(name) = text.strip_prefix("SEVERITY_NUMBER_") else {
            return text.parse().ok().map(Self);
        };
        if name == "UNSPECIFIED" {
            return Some(Self(0));
        }
        // INFO, INFO2, INFO3, INFO4: 9 to 12.
        let (level, step) = match name.as_bytes().last() {
            Some(digit @ b'2'..=b'4') => (&name[..name.len() - 1], i64::from(digit - b'1')),
            _ => (name, 0),
        };
        let at = NAMES.iter().position(|known| *known == level)?;
        Some(Self(at as i64 * 4 + 1 + step))
    }
}
