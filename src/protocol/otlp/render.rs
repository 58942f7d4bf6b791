//! OTLP's messages as the JSON that Jaeger's version 3 answers: ids in hexadecimal, enums as
//! numbers, 64-bit numbers as text. What is empty is left out, but resource, scope and status
//! are always there: the UI looks into them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::protocol::wire::opentelemetry::proto::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value,
};
use crate::protocol::wire::opentelemetry::proto::resource::v1::Resource;
use crate::protocol::wire::opentelemetry::proto::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span,
};

/// One element of `resourceSpans`.
pub fn resource_spans(message: &ResourceSpans) -> String {
    // Neither writing to memory nor what is below can fail.
    serde_json::to_string(&Json(message)).unwrap_or_default()
}

struct Json<'a, T>(&'a T);

/// The fields of one object.
struct Object<S: Serializer>(S::SerializeMap);

impl<S: Serializer> Object<S> {
    fn field(&mut self, key: &str, value: &impl Serialize) -> Result<(), S::Error> {
        self.0.serialize_entry(key, value)
    }

    fn text(&mut self, key: &str, text: &str) -> Result<(), S::Error> {
        if text.is_empty() {
            return Ok(());
        }
        self.field(key, &text)
    }

    fn id(&mut self, key: &str, bytes: &[u8]) -> Result<(), S::Error> {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        self.text(key, &hex)
    }

    fn number(&mut self, key: &str, number: i64) -> Result<(), S::Error> {
        if number == 0 {
            return Ok(());
        }
        self.field(key, &number)
    }

    /// A 64-bit number, which JSON's readers may round.
    fn long(&mut self, key: &str, number: u64) -> Result<(), S::Error> {
        if number == 0 {
            return Ok(());
        }
        self.field(key, &number.to_string())
    }

    fn list<T>(&mut self, key: &str, items: &[T]) -> Result<(), S::Error>
    where
        for<'a> Json<'a, T>: Serialize,
    {
        if items.is_empty() {
            return Ok(());
        }
        self.field(key, &List(items))
    }
}

struct List<'a, T>(&'a [T]);

impl<T> Serialize for List<'_, T>
where
    for<'a> Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            list.serialize_element(&Json(item))?;
        }
        list.end()
    }
}

fn object<S: Serializer>(
    serializer: S,
    fields: impl FnOnce(&mut Object<S>) -> Result<(), S::Error>,
) -> Result<S::Ok, S::Error> {
    let mut object = Object::<S>(serializer.serialize_map(None)?);
    fields(&mut object)?;
    object.0.end()
}

impl Serialize for Json<'_, ResourceSpans> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            let none = Resource::default();
            object.field("resource", &Json(self.0.resource.as_ref().unwrap_or(&none)))?;
            object.list("scopeSpans", &self.0.scope_spans)?;
            object.text("schemaUrl", &self.0.schema_url)
        })
    }
}

impl Serialize for Json<'_, Resource> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.list("attributes", &self.0.attributes)?;
            let dropped = self.0.dropped_attributes_count;
            object.number("droppedAttributesCount", dropped.into())
        })
    }
}

impl Serialize for Json<'_, ScopeSpans> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            let none = InstrumentationScope::default();
            object.field("scope", &Json(self.0.scope.as_ref().unwrap_or(&none)))?;
            object.list("spans", &self.0.spans)?;
            object.text("schemaUrl", &self.0.schema_url)
        })
    }
}

impl Serialize for Json<'_, InstrumentationScope> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.text("name", &self.0.name)?;
            object.text("version", &self.0.version)?;
            object.list("attributes", &self.0.attributes)
        })
    }
}

impl Serialize for Json<'_, Span> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = self.0;
        object(serializer, |object| {
            object.id("traceId", &span.trace_id)?;
            object.id("spanId", &span.span_id)?;
            object.text("traceState", &span.trace_state)?;
            object.id("parentSpanId", &span.parent_span_id)?;
            object.number("flags", span.flags.into())?;
            object.text("name", &span.name)?;
            object.number("kind", span.kind.into())?;
            object.long("startTimeUnixNano", span.start_time_unix_nano)?;
            object.long("endTimeUnixNano", span.end_time_unix_nano)?;
            object.list("attributes", &span.attributes)?;
            object.list("events", &span.events)?;
            object.list("links", &span.links)?;
            let none = Status::default();
            object.field("status", &Json(span.status.as_ref().unwrap_or(&none)))
        })
    }
}

impl Serialize for Json<'_, span::Event> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.long("timeUnixNano", self.0.time_unix_nano)?;
            object.text("name", &self.0.name)?;
            object.list("attributes", &self.0.attributes)
        })
    }
}

impl Serialize for Json<'_, span::Link> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.id("traceId", &self.0.trace_id)?;
            object.id("spanId", &self.0.span_id)?;
            object.text("traceState", &self.0.trace_state)?;
            object.list("attributes", &self.0.attributes)
        })
    }
}

impl Serialize for Json<'_, Status> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.text("message", &self.0.message)?;
            object.number("code", self.0.code.into())
        })
    }
}

impl Serialize for Json<'_, KeyValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| {
            object.field("key", &self.0.key)?;
            let none = AnyValue::default();
            object.field("value", &Json(self.0.value.as_ref().unwrap_or(&none)))
        })
    }
}

impl Serialize for Json<'_, AnyValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use any_value::Value;
        object(serializer, |object| match &self.0.value {
            None => Ok(()),
            Some(Value::StringValue(text)) => object.field("stringValue", text),
            Some(Value::BoolValue(value)) => object.field("boolValue", value),
            Some(Value::IntValue(value)) => object.field("intValue", &value.to_string()),
            Some(Value::DoubleValue(value)) if value.is_finite() => {
                object.field("doubleValue", value)
            }
            Some(Value::DoubleValue(value)) => {
                let text = if value.is_nan() {
                    "NaN"
                } else if *value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                };
                object.field("doubleValue", &text)
            }
            Some(Value::BytesValue(bytes)) => object.field("bytesValue", &STANDARD.encode(bytes)),
            Some(Value::ArrayValue(array)) => object.field("arrayValue", &Values(&array.values)),
            Some(Value::KvlistValue(list)) => object.field("kvlistValue", &Values(&list.values)),
        })
    }
}

/// `{"values":[…]}`, as arrays and maps are written. Ours never nest.
struct Values<'a, T>(&'a [T]);

impl<T> Serialize for Values<'_, T>
where
    for<'a> Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object(serializer, |object| object.list("values", self.0))
    }
}
