//! `| line_format "…"`: a new line from labels.

use super::{Step, Verdict};
use crate::logql::ast::Stage;
use crate::logql::entry::{Entry, NameId, Names, Text};
use crate::logql::error::ParseError;
use crate::logql::pipeline::CompileError;
use crate::logql::template::{Part, Template};

/// A template of texts and fields, ready to run.
#[derive(Debug)]
pub struct PlainTemplate(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Label(NameId),
    Line,
}

impl PlainTemplate {
    pub fn compile(stage: &Stage, text: &str, names: &mut Names) -> Result<Self, CompileError> {
        let template = Template::parse(text).map_err(|e| ParseError::in_stage(stage, e))?;
        let parts = template.plain().map_err(|what| {
            let kind = match stage {
                Stage::LineFormat(_) => "line_format",
                _ => "label_format",
            };
            CompileError::Unsupported(format!("`{kind}` template {what}"))
        })?;
        Ok(Self(
            parts
                .into_iter()
                .map(|part| match part {
                    Part::Text(text) => Piece::Text(text.into_bytes()),
                    Part::Field(name) => Piece::Label(names.id(&name)),
                    Part::Line => Piece::Line,
                })
                .collect(),
        ))
    }

    /// The filled-in template; an absent label gives nothing.
    pub fn render(&self, entry: &mut Entry<'_>) -> Text {
        let start = entry.arena().len();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => entry.arena().extend_from_slice(text),
                Piece::Label(name) => {
                    if let Some(text) = entry.label_text(*name) {
                        entry.append(text);
                    }
                }
                Piece::Line => {
                    let line = entry.line_text();
                    entry.append(line);
                }
            }
        }
        entry.since(start)
    }
}

#[derive(Debug)]
pub struct LineFormat(PlainTemplate);

impl LineFormat {
    pub fn compile(stage: &Stage, text: &str, names: &mut Names) -> Result<Self, CompileError> {
        PlainTemplate::compile(stage, text, names).map(Self)
    }
}

impl Step for LineFormat {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let line = self.0.render(entry);
        entry.set_line(line);
        Verdict::Keep
    }
}
