//! `| line_format "…"`: a new line from labels.

use super::template::FilledIn;
use super::{Step, Verdict};
use crate::logql::ast::Stage;
use crate::logql::entry::{Entry, Names};
use crate::logql::pipeline::CompileError;

#[derive(Debug)]
pub struct LineFormat(FilledIn);

impl LineFormat {
    pub fn compile(stage: &Stage, text: &str, names: &mut Names) -> Result<Self, CompileError> {
        FilledIn::compile(stage, text, names).map(Self)
    }
}

impl Step for LineFormat {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        // An error leaves the line as it is.
        if let Some(line) = self.0.render(entry).or_mark(entry) {
            entry.set_line(line);
        }
        Verdict::Keep
    }
}
