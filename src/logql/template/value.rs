//! What templates compute with: Go's values, as far as a template can get hold of them.
//!
//! V1. A value of any size is cloned in constant time, so that a step of a template has a
//!     constant cost.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use super::time::Time;

/// Bytes, borrowed from the entry and the template, or made by a function.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<[u8]>),
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(bytes.into())
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

/// Go's integer types are different types to functions and `printf "%T"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntType {
    Int,
    Int64,
    /// A byte of a string.
    Uint8,
    /// Prints as its name.
    Month,
    Weekday,
    /// Nanoseconds; prints as `1m30s`.
    Duration,
}

/// The object that `fromJson` made.
pub type Map = BTreeMap<Arc<[u8]>, Value<'static>>;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// No value at all, as a missing key of an object.
    Missing,
    /// An element of a list or an object that is null.
    Null,
    Bool(bool),
    Int(i64, IntType),
    Float(f64),
    Text(Text<'a>),
    Time(Time),
    List(Arc<[Value<'static>]>),
    Map(Arc<Map>),
    /// The labels of the entry: what `.` is at first.
    Labels,
}

impl<'a> Value<'a> {
    pub fn int(value: i64) -> Self {
        Self::Int(value, IntType::Int)
    }

    pub fn text(text: impl Into<Text<'a>>) -> Self {
        Self::Text(text.into())
    }

    /// A text that outlives the template's run.
    pub fn literal(text: &'a str) -> Self {
        Self::Text(Text::Borrowed(text.as_bytes()))
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }

    /// Go's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing => "<nil>",
            Self::Null => "interface {}",
            Self::Bool(_) => "bool",
            Self::Int(_, IntType::Int) => "int",
            Self::Int(_, IntType::Int64) => "int64",
            Self::Int(_, IntType::Uint8) => "uint8",
            Self::Int(_, IntType::Month) => "time.Month",
            Self::Int(_, IntType::Weekday) => "time.Weekday",
            Self::Int(_, IntType::Duration) => "time.Duration",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Labels => "map[string]string",
        }
    }
}

/// What values can be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basic {
    Bool,
    Int,
    Uint,
    Float,
    Text,
    None,
}

impl Value<'_> {
    pub fn basic(&self) -> Basic {
        match self {
            Self::Bool(_) => Basic::Bool,
            Self::Int(_, IntType::Uint8) => Basic::Uint,
            Self::Int(..) => Basic::Int,
            Self::Float(_) => Basic::Float,
            Self::Text(_) => Basic::Text,
            _ => Basic::None,
        }
    }

    /// The order of two values of kinds that compare; `None` for others and for NaN.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a, _), Self::Int(b, _)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some((**a).cmp(&**b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}
