//! Whether a span answers a trace search.
//!
//! S1. All conditions hold on one and the same span; every tag is found in the span's tags, its
//!     process' tags or the fields of any of its logs, different tags in different places.
//! S2. Times and durations are compared in whole microseconds, bounds included.
//! S3. A value matches by its canonical text. The query's value is meant literally; if it has a
//!     metacharacter it may also match, as a regular expression, the whole value: both kinds
//!     of storage that Jaeger is run with find what they used to find. An IPv4 address is only
//!     ever literal: nobody means "any character" by its dots, and as a literal it prunes.

use std::borrow::Cow;
use std::fmt::Write;

use regex::Regex;

use super::time::Timestamp;
use super::trace::{Span, Tag, TagValue, TraceQuery};

/// Compiled size of a tag's regular expression, bytes. Beyond it the value is literal only.
const REGEX_SIZE: usize = 1 << 20;

/// A value, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    String(&'a str),
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Binary(&'a [u8]),
}

impl<'a> From<&'a TagValue> for ValueRef<'a> {
    fn from(value: &'a TagValue) -> Self {
        match value {
            TagValue::String(text) => Self::String(text),
            TagValue::Bool(value) => Self::Bool(*value),
            TagValue::Int64(value) => Self::Int64(*value),
            TagValue::Float64(value) => Self::Float64(*value),
            TagValue::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl<'a> ValueRef<'a> {
    /// The text that a search compares: of a float at most ten significant digits, of binary
    /// lower-case hexadecimal.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::String(text) => Cow::Borrowed(text),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int64(value) => Cow::Owned(value.to_string()),
            Self::Float64(value) => Cow::Owned(float_text(value)),
            Self::Binary(bytes) => {
                let mut text = String::with_capacity(bytes.len() * 2);
                for byte in bytes {
                    let _ = write!(text, "{byte:02x}"); // a String takes everything
                }
                Cow::Owned(text)
            }
        }
    }
}

/// A float as `%g` with ten digits writes it.
pub fn float_text(value: f64) -> String {
    const DIGITS: i32 = 10;
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.into();
    }
    // d.ddddddddde±x, rounded to ten digits.
    let scientific = format!("{value:.*e}", DIGITS as usize - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let negative = mantissa.starts_with('-');
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = digits.len() as i32;
    // An integer of up to ten digits is written in full, also where it ends with zeros.
    let limit = if DIGITS > count && count > exponent {
        count
    } else {
        DIGITS
    };
    let mut text = String::from(if negative { "-" } else { "" });
    if exponent < -4 || exponent >= limit {
        text.push_str(mantissa.trim_start_matches('-'));
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "e{sign}{:02}", exponent.abs());
    } else if exponent < 0 {
        text.push_str("0.");
        text.extend((1..-exponent).map(|_| '0'));
        text.push_str(&digits);
    } else {
        let whole = (exponent + 1) as usize;
        for place in 0..whole.max(digits.len()) {
            if place == whole {
                text.push('.');
            }
            text.push_str(digits.get(place..place + 1).unwrap_or("0"));
        }
    }
    text
}

/// A condition on a tag.
#[derive(Clone, Debug)]
pub struct TagMatcher {
    pub key: String,
    pub text: String,
    /// Present when the text holds a metacharacter and is a regular expression; anchored.
    pub regex: Option<Regex>,
}

impl TagMatcher {
    fn new(key: &str, text: &str) -> Self {
        const META: [char; 12] = ['.', '*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '\\'];
        let regex = (text.contains(META) && !is_address(text))
            .then(|| {
                regex::RegexBuilder::new(&format!("^(?:{text})$"))
                    .dot_matches_new_line(true)
                    .size_limit(REGEX_SIZE)
                    .build()
                    .ok()
            })
            .flatten();
        Self {
            key: key.to_owned(),
            text: text.to_owned(),
            regex,
        }
    }

    /// Whether a tag's key and value are as wanted.
    pub fn matches(&self, key: &str, value: ValueRef<'_>) -> bool {
        key == self.key && self.matches_text(&value.text())
    }

    /// Whether a value's canonical text is as wanted.
    pub fn matches_text(&self, text: &str) -> bool {
        text == self.text || self.regex.as_ref().is_some_and(|r| r.is_match(text))
    }
}

/// A [`TraceQuery`] ready to be asked about many spans. The limit is not its business.
#[derive(Clone, Debug)]
pub struct SpanMatcher {
    /// Empty: any.
    pub service: String,
    /// Empty: any.
    pub operation: String,
    pub tags: Vec<TagMatcher>,
    /// Microseconds, both inclusive.
    start: (i64, i64),
    duration: (u64, u64),
}

impl SpanMatcher {
    pub fn new(query: &TraceQuery) -> Self {
        Self {
            service: query.service.clone(),
            operation: query.operation.clone(),
            tags: query
                .tags
                .iter()
                .map(|(key, text)| TagMatcher::new(key, text))
                .collect(),
            start: (micros(query.start_min), micros(query.start_max)),
            duration: (
                query.duration_min.unwrap_or(0) / 1000,
                query.duration_max.map_or(u64::MAX, |max| max / 1000),
            ),
        }
    }

    /// Whether a span is what the search looks for.
    pub fn matches(&self, span: &Span) -> bool {
        self.times_match(span.start, span.duration)
            && (self.service.is_empty() || *self.service == *span.process.service)
            && (self.operation.is_empty() || *self.operation == *span.operation)
            && self.tags.iter().all(|wanted| {
                let holds = |tags: &[Tag]| {
                    tags.iter()
                        .any(|tag| wanted.matches(&tag.key, ValueRef::from(&tag.value)))
                };
                holds(&span.tags)
                    || holds(&span.process.tags)
                    || span.logs.iter().any(|log| holds(&log.fields))
            })
    }

    /// Least and greatest duration that are wanted, microseconds; `None`: any.
    pub fn durations(&self) -> Option<(u64, u64)> {
        (self.duration != (0, u64::MAX)).then_some(self.duration)
    }

    /// Whether a span that starts so and takes so long is as wanted; nanoseconds.
    pub fn times_match(&self, start: Timestamp, duration: u64) -> bool {
        self.starts_match(start, start) && self.durations_match(duration, duration)
    }

    /// Whether spans whose starts are in `first..=last` can be as wanted.
    pub fn starts_match(&self, first: Timestamp, last: Timestamp) -> bool {
        micros(first) <= self.start.1 && self.start.0 <= micros(last)
    }

    /// Whether spans whose durations are in `least..=most` can be as wanted.
    pub fn durations_match(&self, least: u64, most: u64) -> bool {
        least / 1000 <= self.duration.1 && self.duration.0 <= most / 1000
    }
}

/// An IPv4 address, maybe with a port.
fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<std::net::SocketAddrV4>().is_ok()
}

fn micros(at: Timestamp) -> i64 {
    at.div_euclid(1000)
}

#[cfg(test)]
mod tests;
