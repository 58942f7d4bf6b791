//! The functions of templates: their names, the types they take, and what runs them.
//!
//! Go's own (`eq`, `index`, `printf` …), Loki's, and those that Loki takes from sprig. A type
//! that does not fit is an error before the function is called, worded as Go words it.

use std::fmt;

use super::budget::Budget;
use super::print::{self, MAX_TEXT, TooLong};
use super::regexes::Regexes;
use super::time::Time;
use super::value::{IntType, Text, Value};

mod builtin;
pub mod compare;
mod convert;
mod data;
mod decimal;
mod escape;
pub mod methods;
mod numbers;
mod strings;
mod times;

/// The entry that a template is filled in from.
pub trait Data {
    /// The value of a label.
    fn label(&self, name: &str) -> Option<&[u8]>;
    /// All labels by name.
    fn labels(&self) -> Vec<(String, Vec<u8>)>;
    fn line(&self) -> &[u8];
    /// Nanoseconds since 1970.
    fn timestamp(&self) -> i64;
}

/// What functions have at hand.
pub struct Context<'a> {
    pub data: &'a dyn Data,
    pub regexes: &'a Regexes,
    pub budget: Budget,
}

/// What a function takes. A literal must be of the type; other values are checked when they
/// are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Any,
    Text,
    Int,
    Int64,
    Float,
    Time,
    Duration,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Float => "float64",
            Self::Time => "time.Time",
            Self::Duration => "time.Duration",
        }
    }

    pub fn takes(self, value: &Value<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Text => matches!(value, Value::Text(_)),
            Self::Int => matches!(value, Value::Int(_, IntType::Int)),
            Self::Int64 => matches!(value, Value::Int(_, IntType::Int64)),
            Self::Float => matches!(value, Value::Float(_)),
            Self::Time => matches!(value, Value::Time(_)),
            Self::Duration => matches!(value, Value::Int(_, IntType::Duration)),
        }
    }
}

/// What a function gives, or why it fails.
pub type Outcome<'a> = Result<Value<'a>, String>;
type Call = for<'a> fn(&mut Context<'a>, &Args<'a>) -> Outcome<'a>;

/// How a function is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// Stops at the first argument that is not true.
    And,
    /// Stops at the first argument that is true.
    Or,
    Call(Call),
}

pub struct Function {
    pub name: &'static str,
    pub params: &'static [Type],
    /// The type of any number of further arguments.
    pub rest: Option<Type>,
    pub run: Run,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Arguments, checked against the types of the function.
pub struct Args<'a>(pub Vec<Value<'a>>);

impl<'a> Args<'a> {
    pub fn get(&self, at: usize) -> &Value<'a> {
        self.0.get(at).unwrap_or(&Value::Missing)
    }

    pub fn text(&self, at: usize) -> &[u8] {
        match self.0.get(at) {
            Some(Value::Text(text)) => text,
            _ => b"",
        }
    }

    pub fn shared(&self, at: usize) -> Text<'a> {
        match self.0.get(at) {
            Some(Value::Text(text)) => text.clone(),
            _ => Text::Borrowed(b""),
        }
    }

    pub fn int(&self, at: usize) -> i64 {
        match self.0.get(at) {
            Some(Value::Int(n, _)) => *n,
            _ => 0,
        }
    }

    pub fn time(&self, at: usize) -> Time {
        match self.0.get(at) {
            Some(Value::Time(time)) => time.clone(),
            _ => Time::zero(),
        }
    }
}

impl Context<'_> {
    fn print(
        &self,
        make: impl FnOnce(print::Labels<'_>) -> Result<Vec<u8>, TooLong>,
    ) -> Result<Vec<u8>, String> {
        make(&|| self.data.labels()).map_err(|TooLong| too_long())
    }
}

fn too_long() -> String {
    format!("a text would be longer than {MAX_TEXT} bytes")
}

/// The length of a text to be made, if it may be that long.
fn bounded(len: Option<usize>) -> Result<usize, String> {
    len.filter(|len| *len <= MAX_TEXT).ok_or_else(too_long)
}

/// The function with this name.
pub fn find(name: &str) -> Option<&'static Function> {
    TABLES
        .iter()
        .copied()
        .flatten()
        .find(|function| function.name == name)
}

/// Every function, for tests that call them all.
#[cfg(test)]
pub fn names() -> Vec<&'static str> {
    let all = TABLES.iter().copied().flatten();
    all.map(|function| function.name).collect()
}

const fn function(name: &'static str, params: &'static [Type], call: Call) -> Function {
    Function {
        name,
        params,
        rest: None,
        run: Run::Call(call),
    }
}

const fn variadic(name: &'static str, params: &'static [Type], rest: Type, call: Call) -> Function {
    Function {
        name,
        params,
        rest: Some(rest),
        run: Run::Call(call),
    }
}

static TABLES: [&[Function]; 7] = [
    builtin::TABLE,
    compare::TABLE,
    escape::TABLE,
    strings::TABLE,
    numbers::TABLE,
    data::TABLE,
    times::TABLE,
];
