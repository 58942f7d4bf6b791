//! LogQL: text to a checked tree, and what the tree means for lines and samples.
//!
//! Knows only `model`: no I/O, no async, nothing of how a query is run. Reading order:
//! [`ast`], [`parser`], [`check`], [`print`], then what the tree does.

mod arithmetic;
pub mod ast;
pub mod check;
mod entry;
mod error;
pub mod eval;
mod label_regex;
mod lexer;
pub mod parser;
pub mod pipeline;
pub mod plan;
pub mod print;
mod probe;
pub mod re2;
pub mod stage;
mod template;
#[cfg(test)]
mod tests;
pub mod units;

pub use error::ParseError;
pub use parser::{
    parse, parse_push_labels, parse_selector, parse_selector_or_all, parse_selectors, parse_weighed,
};
pub use pipeline::{CompileError, Outcome, Pipeline, Runner};
pub use plan::{Leaf, leaves};
pub use print::format;
pub use probe::Probe;
