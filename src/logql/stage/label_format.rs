//! `| label_format a=b, c="…"`: labels renamed, or made from templates.

use super::template::FilledIn;
use super::{Step, Verdict};
use crate::logql::ast::{LabelFormat, Stage};
use crate::logql::check;
use crate::logql::entry::{Entry, NameId, Names};
use crate::logql::error::ParseError;
use crate::logql::pipeline::CompileError;

#[derive(Debug)]
enum Assignment {
    Rename { to: NameId, from: NameId },
    Template { to: NameId, template: FilledIn },
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
                        template: FilledIn::compile(stage, template, names)?,
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
        let mut rendered = Vec::new().into_iter();
        let mut is_rendered = false;
        for (number, assignment) in self.0.iter().enumerate() {
            match assignment {
                Assignment::Rename { to, from } => {
                    if let Some(value) = entry.label_text(*from) {
                        entry.remove(*from);
                        entry.set(*to, value);
                    }
                }
                Assignment::Template { to, .. } => {
                    if !is_rendered {
                        let mut all = Vec::new();
                        for later in &self.0[number..] {
                            if let Assignment::Template { template, .. } = later {
                                all.push(template.render(entry));
                            }
                        }
                        rendered = all.into_iter();
                        is_rendered = true;
                    }
                    // An error leaves the label as it is.
                    if let Some(text) = rendered.next().and_then(|r| r.or_mark(entry)) {
                        entry.set(*to, text);
                    }
                }
            }
        }
        Verdict::Keep
    }
}
