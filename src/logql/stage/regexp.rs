//! `| regexp "…"`: named groups of the first match become labels.

use super::{Step, Verdict};
use crate::logql::entry::{Entry, NameId, Names, Text};
use crate::logql::re2;

#[derive(Debug)]
pub struct Regexp {
    regex: regex::bytes::Regex,
    /// Number of the group and its label.
    groups: Vec<(usize, NameId)>,
}

impl Regexp {
    pub fn compile(text: &str, names: &mut Names) -> Result<Self, String> {
        let regex = re2::for_lines(text).map_err(|e| e.to_string())?;
        let groups = regex
            .capture_names()
            .enumerate()
            .filter_map(|(number, name)| Some((number, names.id(name?))))
            .collect();
        Ok(Self { regex, groups })
    }
}

impl Step for Regexp {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        entry.with_line(|entry, line, text| {
            // Asked first, because capturing allocates.
            if !self.regex.is_match(line) {
                return;
            }
            let Some(captures) = self.regex.captures(line) else {
                return;
            };
            for (number, name) in &self.groups {
                let value = match captures.get(*number) {
                    Some(group) => text.part(group.range()),
                    None => Text::EMPTY,
                };
                if let Some(id) = entry.extraction_of(*name) {
                    entry.extract(id, value);
                }
            }
        });
        Verdict::Keep
    }
}
