//! Templates of `line_format` and `label_format`, ready to run.

use crate::logql::ast::Stage;
use crate::logql::entry::{Entry, NameId, Names, Text};
use crate::logql::error::ParseError;
use crate::logql::pipeline::CompileError;
use crate::logql::template::{Data, Part, Program, Template};

/// How `__error__` calls a template that failed.
const TEMPLATE_ERROR: &str = "TemplateFormatErr";

/// The name that a stage's template has in errors.
pub fn name_of(stage: &Stage) -> &'static str {
    match stage {
        Stage::LabelFormat(_) => "label",
        _ => "line",
    }
}

#[derive(Debug)]
pub enum FilledIn {
    /// Texts and fields only: no value is made, nothing allocated.
    Plain(Vec<Piece>),
    Program(Box<Program>),
}

#[derive(Debug)]
pub enum Piece {
    Text(Vec<u8>),
    Label(NameId),
    Line,
}

/// A filled-in template, or why it could not be filled in.
#[derive(Debug)]
pub struct Rendered(Result<Text, String>);

impl Rendered {
    /// The text; an error marks the entry.
    pub fn or_mark(self, entry: &mut Entry<'_>) -> Option<Text> {
        match self.0 {
            Ok(text) => Some(text),
            Err(details) => {
                entry.set_error(TEMPLATE_ERROR, &details);
                None
            }
        }
    }
}

impl FilledIn {
    pub fn compile(stage: &Stage, text: &str, names: &mut Names) -> Result<Self, CompileError> {
        let template =
            Template::parse(name_of(stage), text).map_err(|e| ParseError::in_stage(stage, e))?;
        let Some(parts) = template.plain() else {
            return Ok(Self::Program(Box::new(Program::new(template))));
        };
        let pieces = parts.into_iter().map(|part| match part {
            Part::Text(text) => Piece::Text(text),
            Part::Field(name) => Piece::Label(names.id(&name)),
            Part::Line => Piece::Line,
        });
        Ok(Self::Plain(pieces.collect()))
    }

    /// An absent label gives nothing.
    pub fn render(&self, entry: &mut Entry<'_>) -> Rendered {
        match self {
            Self::Plain(pieces) => Rendered(Ok(render_plain(pieces, entry))),
            Self::Program(program) => {
                let filled = program.run(&EntryData(entry));
                Rendered(filled.map(|text| entry.store(&text)))
            }
        }
    }
}

fn render_plain(pieces: &[Piece], entry: &mut Entry<'_>) -> Text {
    let start = entry.arena().len();
    for piece in pieces {
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

/// An entry as a template sees it.
struct EntryData<'d, 'e>(&'d Entry<'e>);

impl Data for EntryData<'_, '_> {
    fn label(&self, name: &str) -> Option<&[u8]> {
        self.0.label_named(name)
    }

    fn labels(&self) -> Vec<(String, Vec<u8>)> {
        let mut labels: Vec<_> = self
            .0
            .visible()
            .map(|id| {
                let value = self.0.label(id).unwrap_or(b"");
                (self.0.name(id).to_string(), value.to_vec())
            })
            .collect();
        labels.sort_unstable();
        labels
    }

    fn line(&self) -> &[u8] {
        self.0.line()
    }

    fn timestamp(&self) -> i64 {
        self.0.at
    }
}
