//! The stages of a pipeline, one file each.

use std::fmt::Debug;

use super::ast::Stage;
use super::entry::{Entry, Names};
use super::error::ParseError;
use super::pipeline::{CompileError, LineMatcher};

mod decolorize;
mod drop_keep;
pub mod ip;
pub mod json;
pub mod json_path;
pub mod json_reader;
pub mod label_filter;
mod label_format;
mod line_format;
pub mod logfmt;
mod name;
pub mod pattern;
mod regexp;
pub mod template;
mod unpack;

pub use label_filter::LabelTest;
pub use name::push_sanitised;

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Reject,
}

impl Verdict {
    pub fn keep_if(keep: bool) -> Self {
        if keep { Self::Keep } else { Self::Reject }
    }
}

/// A compiled stage.
pub trait Step: Debug + Send + Sync {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict;
}

/// Makes a stage ready to run.
pub fn compile(stage: &Stage, names: &mut Names) -> Result<Box<dyn Step>, CompileError> {
    let invalid = |reason: String| CompileError::Invalid(ParseError::in_stage(stage, reason));
    Ok(match stage {
        Stage::Line(filter) => Box::new(LineMatcher::compile(filter).map_err(invalid)?),
        Stage::Json(extractions) if extractions.is_empty() => Box::new(json::Json),
        Stage::Json(extractions) => {
            Box::new(json::JsonPaths::compile(extractions, names).map_err(invalid)?)
        }
        Stage::Logfmt(logfmt) if logfmt.extractions.is_empty() => Box::new(logfmt::Logfmt {
            strict: logfmt.strict,
            keep_empty: logfmt.keep_empty,
        }),
        Stage::Logfmt(logfmt) => Box::new(logfmt::LogfmtKeys::compile(logfmt, names)),
        Stage::Regexp(text) => Box::new(regexp::Regexp::compile(text, names).map_err(invalid)?),
        Stage::Pattern(text) => {
            Box::new(pattern::PatternParser::compile(text, names).map_err(invalid)?)
        }
        Stage::Unpack => Box::new(unpack::Unpack),
        Stage::Label(filter) => Box::new(LabelTest::compile(filter, names).map_err(invalid)?),
        Stage::LineFormat(template) => {
            Box::new(line_format::LineFormat::compile(stage, template, names)?)
        }
        Stage::LabelFormat(formats) => {
            Box::new(label_format::LabelFormats::compile(stage, formats, names)?)
        }
        Stage::Decolorize => Box::new(decolorize::Decolorize::default()),
        Stage::Drop(picks) => Box::new(drop_keep::Drop(drop_keep::Picks::compile(picks, names))),
        Stage::Keep(picks) => Box::new(drop_keep::Keep(drop_keep::Picks::compile(picks, names))),
    })
}

impl Step for LineMatcher {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        Verdict::keep_if(self.matches(entry.line()))
    }
}

#[cfg(test)]
mod tests;
