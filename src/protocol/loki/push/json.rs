//! JSON pushes, streamed through serde without building a tree.
//!
//! Lines are appended to one buffer as they are unescaped. Bytes that are not UTF-8 are
//! kept as they are, as Loki's parser does.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::LogEntry;

use super::labels::{Pairs, is_name, parse_labels};
use super::{
    DecodeError, DecodeLimits, DecodedPush, LabelsError, ParsedLabels, Parts, STREAM_COST,
    known_labels,
};

/// The body of `/loki/api/v1/push`.
pub fn decode_v1(body: &[u8], limits: &DecodeLimits) -> Result<DecodedPush, DecodeError> {
    decode(body, limits, Shape::V1)
}

/// The body of `/api/prom/push`.
pub fn decode_legacy(body: &[u8], limits: &DecodeLimits) -> Result<DecodedPush, DecodeError> {
    decode(body, limits, Shape::Legacy)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    V1,
    Legacy,
}

/// A string, borrowed from the body unless it has escapes (serde's own `Cow` never borrows).
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What the visitors fill.
struct Sink {
    shape: Shape,
    parts: Parts,
    text: Vec<u8>,
    /// Set before a visitor gives up for a reason that is not one of JSON's.
    failure: Option<DecodeError>,
}

impl Sink {
    /// Passes a failure through serde, which knows only its own errors.
    fn lift<T, E: Error>(&mut self, result: Result<T, DecodeError>) -> Result<T, E> {
        result.map_err(|e| {
            let shown = E::custom(&e);
            self.failure = Some(e);
            shown
        })
    }

    fn push_entry<E: Error>(&mut self, entries: &mut Entries, entry: Entry) -> Result<(), E> {
        let Some(at) = entry.at else {
            entries.unrepresentable += 1;
            return Ok(());
        };
        if entries.kept.capacity() == entries.kept.len() {
            let grown = self
                .parts
                .spend(entries.kept.len().max(4) * size_of::<LogEntry>());
            self.lift(grown)?;
        }
        // The body is at most 4 GiB and unescaping never lengthens it.
        let (start, len) = (entry.start as u32, entry.len as u32);
        entries.kept.push(LogEntry {
            at,
            start,
            len,
            metadata: entry.metadata,
        });
        Ok(())
    }
}

#[derive(Default)]
struct Entries {
    kept: Vec<LogEntry>,
    /// Entries whose time fits no timestamp.
    unrepresentable: usize,
}

#[derive(Default)]
struct Entry {
    /// `None`: fits no timestamp.
    at: Option<i64>,
    start: usize,
    len: usize,
    metadata: u32,
}

fn decode(body: &[u8], limits: &DecodeLimits, shape: Shape) -> Result<DecodedPush, DecodeError> {
    if body.len() > limits.max_text {
        return Err(super::text_too_large(limits));
    }
    let mut sink = Sink {
        shape,
        parts: Parts::new(limits),
        text: Vec::with_capacity(body.len() / 2),
        failure: None,
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json
        .deserialize_map(Request { sink: &mut sink })
        .and_then(|()| json.end());
    if let Err(e) = read {
        return Err(match sink.failure {
            Some(failure) => failure,
            None => DecodeError::Invalid(format!("body is not a valid JSON push: {e}")),
        });
    }
    sink.text.shrink_to_fit();
    sink.parts.finish(sink.text)
}

/// `{"streams": […]}`
struct Request<'s> {
    sink: &'s mut Sink,
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `streams`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'_>>()? {
            if key.0 == "streams" {
                map.next_value_seed(Streams { sink: self.sink })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// `[{…}, null]` or `null`.
struct Streams<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for Streams<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Streams<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of streams")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Stream { sink: self.sink })?.is_some() {}
        Ok(())
    }
}

/// `{"stream": {…}, "values": […]}`, or with the legacy names.
struct Stream<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for Stream<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        self.sink.parts.seen += 1;
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Stream<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let shape = self.sink.shape;
        let mut labels = None;
        let mut entries = Entries::default();
        while let Some(key) = map.next_key::<Text<'_>>()? {
            match (shape, &*key.0) {
                (Shape::V1, "stream") => {
                    labels = Some(map.next_value_seed(LabelObject { sink: self.sink })?);
                }
                (Shape::Legacy, "labels") => {
                    let text = map.next_value::<Text<'_>>()?;
                    let parsed = known_labels(&text.0).map_err(|e| unparsable(&text.0, &e));
                    labels = Some(self.sink.lift(parsed)?);
                }
                (Shape::V1, "values") | (Shape::Legacy, "entries") => {
                    map.next_value_seed(Values {
                        sink: self.sink,
                        entries: &mut entries,
                    })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if entries.kept.is_empty() && entries.unrepresentable == 0 {
            return Ok(());
        }
        let labels = labels.unwrap_or_else(|| ParsedLabels {
            labels: Default::default(),
            duplicate: None,
        });
        let booked = self
            .sink
            .parts
            .spend(STREAM_COST + labels.labels.text_bytes());
        self.sink.lift(booked)?;
        let pushed = self
            .sink
            .parts
            .push_stream(labels, entries.kept, entries.unrepresentable);
        self.sink.lift(pushed)
    }
}

fn unparsable(text: &str, error: &LabelsError) -> DecodeError {
    DecodeError::Invalid(format!("couldn't parse labels '{text}': {error}"))
}

/// `{"name": "value", "n": 1}`; of equal names the last one wins.
struct LabelObject<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for LabelObject<'_> {
    type Value = ParsedLabels;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<ParsedLabels, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LabelObject<'_> {
    type Value = ParsedLabels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedLabels, A::Error> {
        let mut pairs = crate::model::LabelsBuilder::default();
        while let Some(name) = map.next_key::<Text<'_>>()? {
            // Raw, because a number is taken as its text.
            let value: &RawValue = map.next_value()?;
            if !is_name(&name.0) {
                let failure = bad_name(&name.0, value.get());
                self.sink.lift(Err(failure))?;
            }
            pairs.set(&*name.0, &*label_value::<A::Error>(value)?);
        }
        let mut kept = Pairs::default();
        for (name, value) in pairs.build().iter() {
            kept.add(name, value);
        }
        Ok(kept.finish())
    }
}

fn label_value<'a, E: Error>(value: &'a RawValue) -> Result<Cow<'a, str>, E> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Text<'_>>(raw)
            .map(|t| t.0)
            .map_err(E::custom),
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(Cow::Borrowed(raw)),
        _ => Err(E::custom(format!("label value {raw} is not a string"))),
    }
}

/// The error of the label text that Loki would make of this label, with its position.
fn bad_name(name: &str, raw_value: &str) -> DecodeError {
    let text = format!("{{{name}={raw_value}}}");
    match parse_labels(&text) {
        Err(e) => unparsable(&text, &e),
        // Such as `a="1", b`: it would smuggle in another label.
        Ok(_) => DecodeError::Invalid(format!("couldn't parse labels '{text}': 1:2: bad name")),
    }
}

/// `[[…], null]` or `null`.
struct Values<'s, 'e> {
    sink: &'s mut Sink,
    entries: &'e mut Entries,
}

impl<'de> DeserializeSeed<'de> for Values<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Values<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(entry) = seq.next_element_seed(Value { sink: self.sink })? {
            if let Some(entry) = entry {
                self.sink.push_entry(self.entries, entry)?;
            }
        }
        Ok(())
    }
}

/// `["<ns>", "<line>", {…}]`, or legacy `{"ts": …, "line": …}`; `null` is no entry.
struct Value<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Option<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Option<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sink.shape {
            Shape::V1 => "an entry: [\"<nanoseconds>\", \"<line>\"]",
            Shape::Legacy => "an entry: {\"ts\": \"<RFC 3339>\", \"line\": \"<line>\"}",
        })
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        match self.sink.shape {
            Shape::V1 => json.deserialize_seq(self),
            Shape::Legacy => json.deserialize_map(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Some(at) = seq.next_element_seed(Nanoseconds)? else {
            return Err(A::Error::custom("entry without a timestamp"));
        };
        let start = self.sink.text.len();
        let line = seq.next_element_seed(Line {
            text: &mut self.sink.text,
        })?;
        let mut entry = Entry {
            at: Some(at),
            start,
            len: line.unwrap_or(0),
            metadata: 0,
        };
        if line.is_some()
            && let Some(metadata) = seq.next_element_seed(MetadataObject { sink: self.sink })?
        {
            entry.metadata = metadata;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(Some(entry))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entry = Entry {
            start: self.sink.text.len(),
            ..Entry::default()
        };
        let mut timed = false;
        while let Some(key) = map.next_key::<Text<'_>>()? {
            match &*key.0 {
                "ts" => {
                    entry.at = rfc3339(&map.next_value::<Text<'_>>()?.0)?;
                    timed = true;
                }
                "line" => {
                    entry.start = self.sink.text.len();
                    entry.len = map.next_value_seed(Line {
                        text: &mut self.sink.text,
                    })?;
                }
                "structuredMetadata" => {
                    entry.metadata = map.next_value_seed(MetadataObject { sink: self.sink })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if !timed {
            return Err(A::Error::custom("entry without a timestamp `ts`"));
        }
        Ok(Some(entry))
    }
}

/// `None`: fits no timestamp.
fn rfc3339<E: Error>(text: &str) -> Result<Option<i64>, E> {
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|e| E::custom(format!("timestamp {text:?} is not RFC 3339: {e}")))?;
    Ok(i64::try_from(at.as_nanosecond()).ok())
}

/// A string of digits.
struct Nanoseconds;

impl<'de> DeserializeSeed<'de> for Nanoseconds {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<i64, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Nanoseconds {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp: nanoseconds as a string of digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        text.parse()
            .map_err(|_| E::custom(format!("timestamp {text:?} is not a number of nanoseconds")))
    }
}

/// A string, appended to the text; gives its length.
struct Line<'t> {
    text: &'t mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Line<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        // As bytes: serde_json does not check strings read this way for UTF-8.
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Line<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line: a string")
    }

    fn visit_bytes<E>(self, line: &[u8]) -> Result<usize, E> {
        self.text.extend_from_slice(line);
        Ok(line.len())
    }
}

/// `{"name": "value"}` or `null`; gives the set's number.
struct MetadataObject<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for MetadataObject<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<u32, D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for MetadataObject<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("structured metadata: an object of strings")
    }

    fn visit_none<E>(self) -> Result<u32, E> {
        Ok(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<u32, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u32, A::Error> {
        while let Some(name) = map.next_key::<Text<'_>>()? {
            // Behind the lines, only until the pair is copied out.
            let start = self.sink.text.len();
            map.next_value_seed(Line {
                text: &mut self.sink.text,
            })?;
            let value = self.sink.text.get(start..).unwrap_or_default();
            let added = self.sink.parts.metadata.add(name.0.as_bytes(), value);
            self.sink.text.truncate(start);
            let cost = self.sink.lift(added)?;
            let booked = self.sink.parts.spend(cost);
            self.sink.lift(booked)?;
        }
        let (number, cost) = self.sink.parts.metadata.close();
        let booked = self.sink.parts.spend(cost);
        self.sink.lift(booked)?;
        Ok(number)
    }
}
