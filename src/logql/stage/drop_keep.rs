//! `| drop a, b="x"` and `| keep …`: fewer labels.

use super::{Step, Verdict};
use crate::logql::ast::LabelPick;
use crate::logql::entry::{Entry, NameId, Names};
use crate::model::labels::Matcher;

/// What is named, with the condition on its value if there is one.
#[derive(Debug)]
pub struct Picks(Vec<(NameId, Option<Matcher>)>);

impl Picks {
    pub fn compile(picks: &[LabelPick], names: &mut Names) -> Self {
        Self(
            picks
                .iter()
                .map(|pick| match pick {
                    LabelPick::Name(name) => (names.id(name), None),
                    LabelPick::Matching(matcher) => {
                        (names.id(&matcher.name), Some(matcher.clone()))
                    }
                })
                .collect(),
        )
    }
}

fn fits(matcher: Option<&Matcher>, value: &[u8]) -> bool {
    matcher.is_none_or(|matcher| matcher.matches(&String::from_utf8_lossy(value)))
}

#[derive(Debug)]
pub struct Drop(pub Picks);

impl Step for Drop {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        for (name, matcher) in &self.0.0 {
            let dropped = entry
                .label(*name)
                .is_some_and(|v| fits(matcher.as_ref(), v));
            if dropped {
                entry.remove(*name);
            }
        }
        Verdict::Keep
    }
}

/// The labels that tell of errors stay always.
#[derive(Debug)]
pub struct Keep(pub Picks);

const ALWAYS_KEPT: [NameId; 3] = [NameId::ERROR, NameId::ERROR_DETAILS, NameId::PRESERVE_ERROR];

impl Step for Keep {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let removed: Vec<NameId> = entry
            .visible()
            .filter(|name| {
                let value = entry.label(*name).unwrap_or(b"");
                let listed = self
                    .0
                    .0
                    .iter()
                    .any(|(pick, matcher)| pick == name && fits(matcher.as_ref(), value));
                !listed && !ALWAYS_KEPT.contains(name)
            })
            .collect();
        for name in removed {
            entry.remove(name);
        }
        Verdict::Keep
    }
}
