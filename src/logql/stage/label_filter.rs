//! `| status >= 400 and level = "error"`: conditions on labels.

use super::ip::IpPattern;
use super::{Step, Verdict};
use crate::logql::ast::{Compare, LabelFilter};
use crate::logql::entry::{Entry, NameId, Names};
use crate::logql::units;
use crate::model::labels::{MatchOp, Matcher};

/// How `__error__` calls a value that could not be converted.
const FILTER_ERROR: &str = "LabelFilterErr";

/// What a filter on one label asks of the label's value, apart from everything else.
#[derive(Clone, Debug)]
pub enum ValueTest {
    Text(Matcher),
    Number(Compare, f64),
    Duration(Compare, i64),
    Bytes(Compare, u64),
}

impl ValueTest {
    /// The label's name and its test, for filters that reject entries without the label and
    /// whatever else has happened to the entry.
    pub fn of(filter: &LabelFilter) -> Option<(&str, Self)> {
        match filter {
            LabelFilter::Text(matcher) => {
                (!matcher.matches("")).then(|| (&*matcher.name, Self::Text(matcher.clone())))
            }
            LabelFilter::Number { name, op, value } => Some((name, Self::Number(*op, *value))),
            LabelFilter::Duration { name, op, value } => Some((name, Self::Duration(*op, *value))),
            LabelFilter::Bytes { name, op, value } => Some((name, Self::Bytes(*op, *value))),
            // Lets entries with errors through.
            LabelFilter::Ip { .. } => None,
            LabelFilter::And(..) | LabelFilter::Or(..) => None,
        }
    }

    /// False: an entry whose label has this value is rejected.
    pub fn may_pass(&self, value: &[u8]) -> bool {
        // What can't be converted passes, with an error.
        let Ok(text) = std::str::from_utf8(value) else {
            return true;
        };
        match self {
            Self::Text(matcher) => matcher.matches(text),
            Self::Number(op, wanted) => {
                units::number(text).is_none_or(|found| op.holds(found, *wanted))
            }
            Self::Duration(op, wanted) => {
                units::go_duration(text).is_none_or(|found| op.holds(found, *wanted))
            }
            Self::Bytes(op, wanted) => {
                units::byte_size(text).is_none_or(|found| op.holds(found, *wanted))
            }
        }
    }
}

/// A label filter, ready to run.
#[derive(Clone, Debug)]
pub enum LabelTest {
    /// An absent label is compared as "".
    Text(NameId, Matcher),
    /// The rest reject entries without the label.
    Number(NameId, Compare, f64),
    Duration(NameId, Compare, i64),
    Bytes(NameId, Compare, u64),
    Ip {
        name: NameId,
        negated: bool,
        pattern: IpPattern,
    },
    And(Box<LabelTest>, Box<LabelTest>),
    Or(Box<LabelTest>, Box<LabelTest>),
}

impl LabelTest {
    pub fn compile(filter: &LabelFilter, names: &mut Names) -> Result<Self, String> {
        Ok(match filter {
            LabelFilter::Text(matcher) => Self::Text(names.id(&matcher.name), matcher.clone()),
            LabelFilter::Number { name, op, value } => Self::Number(names.id(name), *op, *value),
            LabelFilter::Duration { name, op, value } => {
                Self::Duration(names.id(name), *op, *value)
            }
            LabelFilter::Bytes { name, op, value } => Self::Bytes(names.id(name), *op, *value),
            LabelFilter::Ip {
                name,
                negated,
                pattern,
            } => Self::Ip {
                name: names.id(name),
                negated: *negated,
                pattern: IpPattern::parse(pattern)?,
            },
            LabelFilter::And(left, right) => Self::And(
                Box::new(Self::compile(left, names)?),
                Box::new(Self::compile(right, names)?),
            ),
            LabelFilter::Or(left, right) => Self::Or(
                Box::new(Self::compile(left, names)?),
                Box::new(Self::compile(right, names)?),
            ),
        })
    }

    /// Whether the entry passes. A value that cannot be converted marks the entry and lets it
    /// pass.
    pub fn passes(&self, entry: &mut Entry<'_>) -> bool {
        match self {
            Self::Text(name, matcher) => {
                let value = entry.label(*name).unwrap_or(b"");
                match matcher.op {
                    MatchOp::Equal => value == matcher.value.as_bytes(),
                    MatchOp::NotEqual => value != matcher.value.as_bytes(),
                    MatchOp::Regex | MatchOp::NotRegex => {
                        matcher.matches(&String::from_utf8_lossy(value))
                    }
                }
            }
            Self::Number(name, op, wanted) => {
                compare(entry, *name, *op, *wanted, "a number", units::number)
            }
            Self::Duration(name, op, wanted) => {
                compare(entry, *name, *op, *wanted, "a duration", units::go_duration)
            }
            Self::Bytes(name, op, wanted) => compare(
                entry,
                *name,
                *op,
                *wanted,
                "a size in bytes",
                units::byte_size,
            ),
            Self::Ip {
                name,
                negated,
                pattern,
            } => {
                if entry.has_error() {
                    return true;
                }
                match entry.label(*name) {
                    None => false,
                    Some(value) => {
                        // Anywhere in the value: it may be `10.0.0.7:80`.
                        pattern.found_in(value) != *negated
                    }
                }
            }
            // Both sides are evaluated: either may mark the entry.
            Self::And(left, right) => {
                let left = left.passes(entry);
                right.passes(entry) && left
            }
            Self::Or(left, right) => left.passes(entry) || right.passes(entry),
        }
    }
}

fn compare<T: PartialOrd>(
    entry: &mut Entry<'_>,
    name: NameId,
    op: Compare,
    wanted: T,
    kind: &str,
    convert: impl Fn(&str) -> Option<T>,
) -> bool {
    let Some(value) = entry.label(name) else {
        return false;
    };
    let converted = std::str::from_utf8(value).ok().and_then(convert);
    match converted {
        Some(found) => op.holds(found, wanted),
        None => {
            // The first error of an entry is the one that is told.
            if entry.has_error() {
                return true;
            }
            let value = entry.label(name).unwrap_or(b"");
            let text = String::from_utf8_lossy(value);
            let details = format!("label {}: {text:?} is not {kind}", entry.name(name));
            entry.set_error(FILTER_ERROR, &details);
            true
        }
    }
}

impl Step for LabelTest {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        Verdict::keep_if(self.passes(entry))
    }
}
