//! Go's text/template with the functions that Loki gives it, for `line_format` and
//! `label_format`. Reading order: [`tree`], [`parse`], [`value`], [`exec`], [`functions`].
//!
//! Our own, because a template here runs once a line over borrowed labels, has a budget, and
//! tells errors as Go does; general ports of Go's templates have neither.

mod budget;
mod exec;
mod float;
mod functions;
mod layout;
mod number;
mod parse;
mod print;
mod regexes;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod value;

pub use exec::Program;
pub use float::shortest;
pub use functions::Data;
#[cfg(test)]
pub use functions::names as function_names;
pub use number::parse_float;
pub use tree::{Part, Template};
