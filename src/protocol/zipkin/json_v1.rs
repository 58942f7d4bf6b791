//! Version 1 as JSON: an array of spans (zipkin-api.yaml).

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::model::trace::SpanBatch;
use crate::protocol::{DecodeError, SpanFormat};

use super::draft::{self, Draft, Value};
use super::json_v2::{Endpoint, Text};
use super::{finish, span_id, trace_id};

/// Decodes an array of spans.
pub fn decode_json_v1(body: &[u8]) -> Result<SpanBatch, DecodeError> {
    let spans: Vec<Span> =
        serde_json::from_slice(body).map_err(|e| DecodeError::malformed(e.to_string()))?;
    let drafts: Result<_, _> = spans.into_iter().map(Span::draft).collect();
    Ok(finish(drafts?, SpanFormat::ZipkinJsonV1.mark()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(borrow)]
    trace_id: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    parent_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    duration: Option<i64>,
    #[serde(default)]
    debug: Option<bool>,
    #[serde(borrow, default)]
    annotations: Option<Vec<Annotation<'a>>>,
    #[serde(borrow, default)]
    binary_annotations: Option<Vec<BinaryAnnotation<'a>>>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    timestamp: i64,
    #[serde(borrow)]
    value: Text<'a>,
    #[serde(borrow, default)]
    endpoint: Option<Endpoint<'a>>,
}

#[derive(Deserialize)]
struct BinaryAnnotation<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(default)]
    value: Json,
    #[serde(borrow, rename = "type", default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    endpoint: Option<Endpoint<'a>>,
}

impl<'a> Span<'a> {
    fn draft(self) -> Result<Draft<'a>, DecodeError> {
        let parent = self.parent_id.filter(|id| !id.0.is_empty());
        let annotations = self.annotations.unwrap_or_default();
        let binary = self.binary_annotations.unwrap_or_default();
        Ok(Draft {
            trace_id: trace_id(&self.trace_id.0)?,
            id: span_id(&self.id.0)?,
            parent: parent.map(|id| span_id(&id.0)).transpose()?,
            name: self.name.unwrap_or_default().bytes(),
            debug: self.debug.unwrap_or(false),
            timestamp: self.timestamp,
            duration: self.duration,
            annotations: annotations
                .into_iter()
                .map(Annotation::read)
                .collect::<Result<_, _>>()?,
            binary: binary
                .into_iter()
                .map(BinaryAnnotation::read)
                .collect::<Result<_, _>>()?,
            ..Draft::default()
        })
    }
}

impl<'a> Annotation<'a> {
    fn read(self) -> Result<draft::Annotation<'a>, DecodeError> {
        Ok(draft::Annotation {
            at: self.timestamp,
            value: self.value.bytes(),
            host: self.endpoint.map(Endpoint::read).transpose()?.map(Rc::new),
        })
    }
}

impl<'a> BinaryAnnotation<'a> {
    fn read(self) -> Result<draft::BinaryAnnotation<'a>, DecodeError> {
        let kind = self.kind.as_ref().map_or("", |kind| &*kind.0);
        Ok(draft::BinaryAnnotation {
            value: value(kind, self.value, &self.key.0)?,
            key: self.key.bytes(),
            host: self.endpoint.map(Endpoint::read).transpose()?.map(Rc::new),
        })
    }
}

/// The value of a named type. Without one, JSON's own type counts: senders leave it out for
/// texts and for the `true` of addresses.
fn value(kind: &str, value: Json, key: &str) -> Result<Value<'static>, DecodeError> {
    let text = |text: String| Value::String(text.into_bytes().into());
    let read = match (kind, value) {
        ("" | "STRING", Json::String(value)) => Some(text(value)),
        ("" | "STRING", Json::Null) => Some(text(String::new())),
        ("" | "STRING" | "BOOL", Json::Bool(value)) => Some(Value::Bool(value)),
        ("BOOL", Json::String(value)) => value.parse().ok().map(Value::Bool),
        ("" | "STRING", Json::Number(value)) => match value.as_i64() {
            Some(value) => Some(Value::Int64(value)),
            None => value.as_f64().map(Value::Float64),
        },
        ("I16" | "I32" | "I64", Json::Number(value)) => value.as_i64().map(Value::Int64),
        // 64 bits do not survive in every sender's JSON, so some write them as text.
        ("I16" | "I32" | "I64", Json::String(value)) => value.parse().ok().map(Value::Int64),
        ("DOUBLE", Json::Number(value)) => value.as_f64().map(Value::Float64),
        ("DOUBLE", Json::String(value)) => value.parse().ok().map(Value::Float64),
        ("BYTES", Json::String(value)) => STANDARD
            .decode(value)
            .ok()
            .map(|bytes| Value::Binary(bytes.into())),
        _ => None,
    };
    read.ok_or_else(|| {
        let (kind, key): (String, String) = (
            kind.chars().take(16).collect(),
            key.chars().take(64).collect(),
        );
        DecodeError::malformed(format!(
            "the value of binary annotation `{key}` is not of its type `{kind}`"
        ))
    })
}
