//! `| label_format a=b, c="…"`: labels renamed, or made from templates.

use super::line_format::PlainTemplate;
use super::{Step, Verdict};
use crate::logql::ast::{LabelFormat, Stage};
use crate::logql::check;
use crate::logql::entry::{Entry, NameId, Names};
use crate::logql::error::ParseError;
use crate::logql::pipeline::CompileError;

#[derive(Debug)]
enum Assignment {
    Rename { to: NameId, from: NameId },
    Template { to: NameId, template: PlainTemplate },
}

#[derive(Debug)]
pub struct LabelFormats(Vec<Assignment>);

impl LabelFormats {
    pub fn compile(
        stage: &Stage,
        formats: &[LabelFormat],
        names: &mut Names,
    ) -> Result<Self, CompileError> {
        check::label_formats(formats).map_err(|e| ParseError::in_stage(stage, e))?;
        formats
            .iter()
            .map(|format| {
                Ok(match format {
                    LabelFormat::Rename { to, from } => Assignment::Rename {
                        to: names.id(to),
                        from: names.id(from),
                    },
                    LabelFormat::Template { to, template } => Assignment::Template {
                        to: names.id(to),
                        template: PlainTemplate::compile(stage, template, names)?,
                    },
                })
            })
            .collect::<Result<_, CompileError>>()
            .map(Self)
    }
}

impl Step for LabelFormats {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        // Templates see the labels as they were before the first of them; filled in then.
        let mut rendered = Vec::new();
        let mut next = 0;
        for (number, assignment) in self.0.iter().enumerate() {
            match assignment {
                Assignment::Rename { to, from } => {
                    if let Some(value) = entry.label_text(*from) {
                        entry.remove(*from);
                        entry.set(*to, value);
                    }
                }
                Assignment::Template { to, .. } => {
                    if rendered.is_empty() {
                        for later in &self.0[number..] {
                            if let Assignment::Template { template, .. } = later {
                                rendered.push(template.render(entry));
                            }
                        }
                    }
                    entry.set(*to, rendered[next]);
                    next += 1;
                }
            }
        }
        Verdict::Keep
    }
}
