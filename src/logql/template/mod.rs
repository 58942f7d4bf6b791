//! Go's text/template, as far as `line_format` and `label_format` need it.

mod parse;

pub use parse::{Part, Template};
