//! Why a text is not a query.

use std::fmt;

/// A query that cannot be read, worded as Loki words it: clients show the text as it is,
/// and some look for the position in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line and column (both from 1, columns are characters) of the offending token. The
    /// line is 0 for ranges and for operators of two characters, as in Loki.
    pub position: Option<(u32, u32)>,
    pub message: String,
}

impl ParseError {
    /// An error that belongs to the query as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            position: None,
            message: message.into(),
        }
    }

    /// A stage that reads well but cannot be built.
    pub fn in_stage(stage: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::new(format!("stage '{stage}' : {reason}"))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, col)) => {
                write!(f, "parse error at line {line}, col {col}: {}", self.message)
            }
            None => write!(f, "parse error : {}", self.message),
        }
    }
}

impl std::error::Error for ParseError {}
