//! `default`, `fromJson`, and sizes and durations as numbers.

use std::sync::Arc;

use super::super::value::{Map, Value};
use super::compare::truth;
use super::{Function, Type, function, variadic};
use crate::logql::units;

const TEXT: &[Type] = &[Type::Text];

pub static TABLE: &[Function] = &[
    variadic("default", &[Type::Any], Type::Any, |_, args| {
        Ok(match args.0.get(1) {
            Some(given) if truth(given) => given.clone(),
            _ => args.get(0).clone(),
        })
    }),
    // What is no JSON gives nothing, without an error.
    function("fromJson", TEXT, |_, args| {
        let text = String::from_utf8_lossy(args.text(0));
        Ok(match serde_json::from_str(&text) {
            Ok(json) => value_of(json),
            Err(_) => Value::Missing,
        })
    }),
    function("bytes", TEXT, |_, args| {
        let text = String::from_utf8_lossy(args.text(0));
        match units::byte_size(&text) {
            Some(bytes) => Ok(Value::Float(bytes as f64)),
            None => Err(format!("{text:?} is not a size in bytes")),
        }
    }),
    function("duration", TEXT, |_, args| seconds(args.text(0))),
    function("duration_seconds", TEXT, |_, args| seconds(args.text(0))),
];

fn seconds<'a>(text: &[u8]) -> Result<Value<'a>, String> {
    let text = String::from_utf8_lossy(text);
    match units::go_duration(&text) {
        Some(nanos) => Ok(Value::Float(duration_seconds(nanos))),
        None => Err(format!("time: invalid duration {text:?}")),
    }
}

/// Whole seconds and the rest apart, as Go does: so 0.1 s is 0.1.
pub fn duration_seconds(nanos: i64) -> f64 {
    (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9
}

/// Nesting is bounded by the reader of JSON.
fn value_of(json: serde_json::Value) -> Value<'static> {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(value_of).collect()),
        serde_json::Value::Object(members) => {
            let members = members
                .into_iter()
                .map(|(name, value)| (name.into_bytes().into(), value_of(value)));
            Value::Map(Arc::new(members.collect::<Map>()))
        }
    }
}
