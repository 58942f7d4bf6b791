//! The same export as JSON: ids in hex, 64-bit integers as text or number, bytes in base64.
//!
//! Spans are kept as text until their turn: a span that says nothing costs two bytes
//! there and hundreds as a struct.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue as JsonText;
use serde_json::{Map, Value as Json};

use crate::model::trace::{Span, SpanId, SpanLog, Tag, TraceId};
use crate::protocol::DecodeError;
use crate::protocol::sanitize::{self, RawValue};

use super::Export;
use super::draft::{Draft, Emitter, Link, Resource, event_log, link_kind, scope_tags};

/// Decodes an export.
pub fn decode_json(body: &[u8]) -> Result<Export, DecodeError> {
    let request: RequestJson<'_> = serde_json::from_slice(body).map_err(malformed)?;
    let mut export = Export::default();
    for resource_spans in request.resource_spans {
        let mut resource = Resource::default();
        for KeyValue { key, value } in resource_spans.resource.attributes {
            if key.0 == "service.name" {
                resource.service = Some(value_text(value).into_bytes());
            } else {
                resource.tags.push(attribute(&key.0, value));
            }
        }
        let emitter = resource.finish();
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_tags(
                scope_spans.scope.name.0.as_bytes(),
                scope_spans.scope.version.0.as_bytes(),
            );
            for span in scope_spans.spans {
                let span: SpanJson<'_> = serde_json::from_str(span.get()).map_err(malformed)?;
                match convert(span, &scope, &emitter) {
                    Ok(span) => export.batch.spans.push(span),
                    Err(reason) => export.reject(reason),
                }
            }
        }
    }
    Ok(export)
}

fn malformed(error: serde_json::Error) -> DecodeError {
    DecodeError::malformed(format!("not an export of traces in JSON: {error}"))
}

/// The span, or why it alone is refused.
fn convert(span: SpanJson<'_>, scope: &[Tag], emitter: &Emitter) -> Result<Span, String> {
    let refused = |what: &str, id: &str| format!("`{id}` is no {what} id in hexadecimal digits");
    let trace_id = trace_id(&span.trace_id.0).ok_or_else(|| refused("trace", &span.trace_id.0))?;
    let span_id = span_id(&span.span_id.0).ok_or_else(|| refused("span", &span.span_id.0))?;
    let parent = self::span_id(&span.parent_span_id.0)
        .ok_or_else(|| refused("parent span", &span.parent_span_id.0))?;
    let mut tags = Vec::with_capacity(scope.len() + span.attributes.len() + 5);
    tags.extend_from_slice(scope);
    tags.extend(
        span.attributes
            .into_iter()
            .map(|KeyValue { key, value }| attribute(&key.0, value)),
    );
    let logs: Vec<SpanLog> = span
        .events
        .into_iter()
        .map(|event| {
            let attributes = event
                .attributes
                .into_iter()
                .map(|KeyValue { key, value }| attribute(&key.0, value));
            event_log(
                event.time_unix_nano.0,
                event.name.0.as_bytes(),
                attributes.collect(),
            )
        })
        .collect();
    let links = span.links.iter().filter_map(link).collect();
    let draft = Draft {
        trace_id,
        span_id,
        parent,
        name: span.name.0.as_bytes(),
        kind: span.kind.0,
        start: span.start_time_unix_nano.0,
        end: span.end_time_unix_nano.0,
        tags,
        logs,
        links,
        status_code: span.status.code.0,
        status_message: span.status.message.0.as_bytes(),
        trace_state: span.trace_state.0.as_bytes(),
    };
    draft.finish(emitter)
}

/// A link; one without usable ids leads nowhere and is left out.
fn link(link: &LinkJson<'_>) -> Option<Link> {
    let mut kind = link_kind(b"");
    for KeyValue { key, value } in &link.attributes {
        if let ("opentracing.ref_type", AnyValue::String(text)) = (&*key.0, value) {
            kind = link_kind(text.as_bytes());
        }
    }
    let (trace_id, span_id) = (trace_id(&link.trace_id.0)?, span_id(&link.span_id.0)?);
    (trace_id.0 != 0 && span_id.0 != 0).then_some(Link {
        trace_id,
        span_id,
        kind,
    })
}

/// 32 hexadecimal digits, or none for "no id".
fn trace_id(text: &str) -> Option<TraceId> {
    match text.len() {
        0 => Some(TraceId(0)),
        32 => TraceId::parse(text),
        _ => None,
    }
}

/// 16 hexadecimal digits, or none for "no id".
fn span_id(text: &str) -> Option<SpanId> {
    match text.len() {
        0 => Some(SpanId(0)),
        16 => SpanId::parse(text),
        _ => None,
    }
}

/// An attribute as a tag; what nests becomes JSON text.
fn attribute(key: &str, value: AnyValue<'_>) -> Tag {
    let key = key.as_bytes();
    match value {
        AnyValue::None => sanitize::tag(key, RawValue::String(b"")),
        AnyValue::String(text) => sanitize::tag(key, RawValue::String(text.as_bytes())),
        AnyValue::Bool(value) => sanitize::tag(key, RawValue::Bool(value)),
        AnyValue::Int(value) => sanitize::tag(key, RawValue::Int64(value)),
        AnyValue::Double(value) => sanitize::tag(key, RawValue::Float64(value)),
        AnyValue::Bytes(bytes) => sanitize::tag(key, RawValue::Binary(&bytes)),
        AnyValue::Array(_) | AnyValue::Map(_) => {
            sanitize::tag(key, RawValue::String(json(value).to_string().as_bytes()))
        }
    }
}

/// A value as text, as a service's name is read.
fn value_text(value: AnyValue<'_>) -> String {
    match value {
        AnyValue::None => String::new(),
        AnyValue::String(text) => text.into_owned(),
        other => match json(other) {
            Json::String(text) => text,
            other => other.to_string(),
        },
    }
}

/// Recursion is as deep as the parser went, which serde_json bounds to 128.
fn json(value: AnyValue<'_>) -> Json {
    match value {
        AnyValue::None => Json::Null,
        AnyValue::String(text) => text.into_owned().into(),
        AnyValue::Bool(value) => value.into(),
        AnyValue::Int(value) => value.into(),
        AnyValue::Double(value) => number(value),
        AnyValue::Bytes(bytes) => STANDARD.encode(bytes).into(),
        AnyValue::Array(values) => values.into_iter().map(json).collect(),
        AnyValue::Map(values) => {
            let values = values
                .into_iter()
                .map(|KeyValue { key, value }| (key.0.into_owned(), json(value)));
            Json::Object(values.collect::<Map<_, _>>())
        }
    }
}

/// A float as JSON: whole numbers without a point, as Go writes them, and text for what
/// JSON has no number for.
pub(super) fn number(value: f64) -> Json {
    if !value.is_finite() {
        return value.to_string().into();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestJson<'a> {
    #[serde(
        borrow,
        default,
        alias = "resource_spans",
        deserialize_with = "nullable"
    )]
    resource_spans: Vec<ResourceSpansJson<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpansJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    resource: ResourceJson<'a>,
    #[serde(borrow, default, alias = "scope_spans", deserialize_with = "nullable")]
    scope_spans: Vec<ScopeSpansJson<'a>>,
}

#[derive(Default, serde::Deserialize)]
struct ResourceJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(serde::Deserialize)]
struct ScopeSpansJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    scope: ScopeJson<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    spans: Vec<&'a JsonText>,
}

#[derive(Default, serde::Deserialize)]
struct ScopeJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    version: Text<'a>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    #[serde(borrow, default, alias = "trace_id", deserialize_with = "nullable")]
    trace_id: Text<'a>,
    #[serde(borrow, default, alias = "span_id", deserialize_with = "nullable")]
    span_id: Text<'a>,
    #[serde(borrow, default, alias = "trace_state", deserialize_with = "nullable")]
    trace_state: Text<'a>,
    #[serde(
        borrow,
        default,
        alias = "parent_span_id",
        deserialize_with = "nullable"
    )]
    parent_span_id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    name: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    kind: Enum,
    #[serde(default, alias = "start_time_unix_nano", deserialize_with = "nullable")]
    start_time_unix_nano: Unsigned,
    #[serde(default, alias = "end_time_unix_nano", deserialize_with = "nullable")]
    end_time_unix_nano: Unsigned,
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    events: Vec<EventJson<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    links: Vec<LinkJson<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    status: StatusJson<'a>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(default, alias = "time_unix_nano", deserialize_with = "nullable")]
    time_unix_nano: Unsigned,
    #[serde(borrow, default, deserialize_with = "nullable")]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    #[serde(borrow, default, alias = "trace_id", deserialize_with = "nullable")]
    trace_id: Text<'a>,
    #[serde(borrow, default, alias = "span_id", deserialize_with = "nullable")]
    span_id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Default, serde::Deserialize)]
struct StatusJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    message: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    code: Enum,
}

#[derive(serde::Deserialize)]
pub(super) struct KeyValue<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    pub key: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    pub value: AnyValue<'a>,
}

/// Text that borrows from the body unless it holds escapes.
#[derive(Default, serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A missing value and `null` are the default, as protobuf's JSON has it.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default)]
pub(super) enum AnyValue<'a> {
    #[default]
    None,
    String(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Array(Vec<AnyValue<'a>>),
    Map(Vec<KeyValue<'a>>),
}

#[derive(serde::Deserialize)]
struct ArrayJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    values: Vec<AnyValue<'a>>,
}

#[derive(serde::Deserialize)]
struct MapJson<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    values: Vec<KeyValue<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for AnyValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKey<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for OneKey<'a> {
            type Value = AnyValue<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object such as {\"stringValue\": …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut any = AnyValue::None;
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    any = match &*key.0 {
                        "stringValue" | "string_value" => {
                            match map.next_value::<Option<Text<'de>>>()? {
                                Some(text) => AnyValue::String(text.0),
                                None => any,
                            }
                        }
                        "boolValue" | "bool_value" => map
                            .next_value::<Option<bool>>()?
                            .map_or(any, AnyValue::Bool),
                        "intValue" | "int_value" => map
                            .next_value::<Option<Signed>>()?
                            .map_or(any, |value| AnyValue::Int(value.0)),
                        "doubleValue" | "double_value" => {
                            let text = map.next_value::<&'de JsonText>()?.get();
                            double(text)
                                .map_err(de::Error::custom)?
                                .map_or(any, AnyValue::Double)
                        }
                        "bytesValue" | "bytes_value" => {
                            match map.next_value::<Option<Text<'de>>>()? {
                                Some(text) => AnyValue::Bytes(
                                    STANDARD
                                        .decode(text.0.as_bytes())
                                        .map_err(de::Error::custom)?,
                                ),
                                None => any,
                            }
                        }
                        "arrayValue" | "array_value" => map
                            .next_value::<Option<ArrayJson<'de>>>()?
                            .map_or(any, |array| AnyValue::Array(array.values)),
                        "kvlistValue" | "kvlist_value" => map
                            .next_value::<Option<MapJson<'de>>>()?
                            .map_or(any, |map| AnyValue::Map(map.values)),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            any
                        }
                    };
                }
                Ok(any)
            }
        }

        deserializer.deserialize_map(OneKey(std::marker::PhantomData))
    }
}

/// A double from its JSON, `None` from `null`; serde_json's own reading may be off by the
/// last bit.
fn double(json: &str) -> Result<Option<f64>, String> {
    if json == "null" {
        return Ok(None);
    }
    let text = json.trim_matches('"');
    match text.parse::<f64>() {
        // `NaN` and the infinities are text; a number beyond all doubles is an error.
        Ok(value) if value.is_finite() || json.starts_with('"') => Ok(Some(value)),
        _ => Err(format!(
            "`{text}` is no number, nor NaN, Infinity or -Infinity as text"
        )),
    }
}

/// A number that JSON may hold as text.
pub(super) struct Number<T>(pub T);

/// Reads one kind of number from the forms that JSON has for it.
pub(super) trait FromJson: Sized {
    const EXPECTED: &'static str;
    fn from_i64(value: i64) -> Option<Self>;
    fn from_u64(value: u64) -> Option<Self>;
    fn from_f64(value: f64) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

impl<'de, T: FromJson> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<T>(std::marker::PhantomData<T>);

        impl<T: FromJson> Visitor<'_> for Forms<T> {
            type Value = Number<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::from_i64(value)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::from_u64(value)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                T::from_f64(value)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_text(text)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Forms(std::marker::PhantomData))
    }
}

impl FromJson for i64 {
    const EXPECTED: &'static str = "a 64-bit integer, as text or number";
    fn from_i64(value: i64) -> Option<Self> {
        Some(value)
    }
    fn from_u64(value: u64) -> Option<Self> {
        value.try_into().ok()
    }
    fn from_f64(value: f64) -> Option<Self> {
        (value.fract() == 0.0 && value.abs() < 9.0e18).then_some(value as i64)
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromJson for u64 {
    const EXPECTED: &'static str = "an unsigned 64-bit integer, as text or number";
    fn from_i64(value: i64) -> Option<Self> {
        value.try_into().ok()
    }
    fn from_u64(value: u64) -> Option<Self> {
        Some(value)
    }
    fn from_f64(value: f64) -> Option<Self> {
        (value.fract() == 0.0 && (0.0..1.8e19).contains(&value)).then_some(value as u64)
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

type Signed = Number<i64>;
pub(super) type Unsigned = Number<u64>;

impl<T: Default> Default for Number<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

/// A span's kind or status: its number, or its name as some senders write it.
#[derive(Default)]
struct Enum(i64);

impl<'de> Deserialize<'de> for Enum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Number::<EnumNumber>::deserialize(deserializer).map(|number| Self(number.0.0))
    }
}

struct EnumNumber(i64);

impl FromJson for EnumNumber {
    const EXPECTED: &'static str = "the number of a span kind or status code";
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
        let number = match text {
            "SPAN_KIND_UNSPECIFIED" | "STATUS_CODE_UNSET" => 0,
            "SPAN_KIND_INTERNAL" | "STATUS_CODE_OK" => 1,
            "SPAN_KIND_SERVER" | "STATUS_CODE_ERROR" => 2,
            "SPAN_KIND_CLIENT" => 3,
            "SPAN_KIND_PRODUCER" => 4,
            "SPAN_KIND_CONSUMER" => 5,
            other => other.parse().ok()?,
        };
        Some(Self(number))
    }
}
