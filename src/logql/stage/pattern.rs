//! Patterns: `| pattern "<ip> - <user> …"` and the line filters `|>` and `!>`.

use memchr::memmem;

use super::{Step, Verdict};
use crate::logql::entry::{Entry, NameId, Names};
use crate::model::need::Need;

/// A piece of a pattern as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// `<name>`, or `<_>` when `None`.
    Capture(Option<String>),
}

/// Cuts a pattern into literals and captures. `<` that begins no capture is a literal.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '<'
            && let Some(end) = rest.find('>')
            && is_capture_name(&rest[1..end])
        {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            } else if matches!(pieces.last(), Some(Piece::Capture(_))) {
                return Err(format!("found consecutive capture {:?}", &rest[..=end]));
            }
            let name = &rest[1..end];
            pieces.push(Piece::Capture((name != "_").then(|| name.to_owned())));
            rest = &rest[end + 1..];
            continue;
        }
        literal.push(c);
        rest = &rest[c.len_utf8()..];
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn is_capture_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The pattern of the parser stage.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What the line must begin with.
    prefix: String,
    /// Captures in order, each with the literal that ends it (none: the rest of the line).
    captures: Vec<(Option<String>, Option<memmem::Finder<'static>>)>,
}

impl Pattern {
    /// At least one named capture, no name twice, no two captures in a row.
    pub fn for_parser(text: &str) -> Result<Self, String> {
        let pieces = pieces(text)?;
        let names = pieces.iter().filter_map(|piece| match piece {
            Piece::Capture(Some(name)) => Some(name.as_str()),
            _ => None,
        });
        if names.clone().next().is_none() {
            return Err("at least one named capture is required".to_owned());
        }
        if let Some(name) = crate::logql::parser::first_duplicate(names) {
            return Err(format!("duplicate capture name <{name}>"));
        }
        let mut pieces = pieces.into_iter().peekable();
        let mut prefix = String::new();
        if let Some(Piece::Literal(literal)) = pieces.peek() {
            prefix = literal.clone();
            pieces.next();
        }
        let mut captures = Vec::new();
        while let Some(piece) = pieces.next() {
            // Captures and literals alternate from here on.
            if let Piece::Capture(name) = piece {
                let end = match pieces.peek() {
                    Some(Piece::Literal(literal)) => {
                        Some(memmem::Finder::new(literal.as_bytes()).into_owned())
                    }
                    _ => None,
                };
                captures.push((name, end));
            }
        }
        Ok(Self { prefix, captures })
    }

    /// The names of the captures in order; `None` for `<_>`.
    pub fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.captures.iter().map(|(name, _)| name.as_deref())
    }

    /// Calls `found` with the number of the capture and its range in the line, for every
    /// capture with a name. Nothing is found in an empty line or one that does not begin right.
    pub fn captures(&self, line: &[u8], mut found: impl FnMut(usize, std::ops::Range<usize>)) {
        if line.is_empty() || !line.starts_with(self.prefix.as_bytes()) {
            return;
        }
        let mut at = self.prefix.len();
        for (number, (name, end)) in self.captures.iter().enumerate() {
            let stop = match end {
                Some(finder) => finder.find(&line[at..]).map(|len| at + len),
                None => None,
            };
            if name.is_some() {
                found(number, at..stop.unwrap_or(line.len()));
            }
            let (Some(stop), Some(finder)) = (stop, end) else {
                // The literal is missing: the capture took the rest.
                return;
            };
            at = stop + finder.needle().len();
        }
    }
}

/// `| pattern "…"`, ready to run.
#[derive(Debug)]
pub struct PatternParser {
    pattern: Pattern,
    /// The labels of the captures in order.
    names: Vec<Option<NameId>>,
}

impl PatternParser {
    pub fn compile(text: &str, names: &mut Names) -> Result<Self, String> {
        let pattern = Pattern::for_parser(text)?;
        let names = pattern.names().map(|name| Some(names.id(name?))).collect();
        Ok(Self { pattern, names })
    }
}

impl Step for PatternParser {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        entry.with_line(|entry, line, text| {
            self.pattern.captures(line, |number, range| {
                if let Some(name) = self.names[number]
                    && let Some(id) = entry.extraction_of(name)
                {
                    entry.extract(id, text.part(range));
                }
            });
        });
        Verdict::Keep
    }
}

/// The pattern of a line filter.
#[derive(Clone, Debug)]
pub struct LinePattern {
    literals: Vec<memmem::Finder<'static>>,
    begins_with_capture: bool,
    ends_with_capture: bool,
}

impl LinePattern {
    /// Only `<_>` captures, not in a row.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pieces = pieces(text)?;
        let mut literals = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Literal(literal) => {
                    literals.push(memmem::Finder::new(literal.as_bytes()).into_owned());
                }
                Piece::Capture(None) => {}
                Piece::Capture(Some(name)) => {
                    return Err(format!("named captures are not allowed: found <{name}>"));
                }
            }
        }
        Ok(Self {
            literals,
            begins_with_capture: matches!(pieces.first(), Some(Piece::Capture(_))),
            ends_with_capture: matches!(pieces.last(), Some(Piece::Capture(_))),
        })
    }

    /// Literals at their first occurrence, one after the other; no backtracking.
    pub fn matches(&self, line: &[u8]) -> bool {
        if self.literals.is_empty() {
            return if self.begins_with_capture {
                !line.is_empty()
            } else {
                line.is_empty()
            };
        }
        let mut at = 0;
        for (i, literal) in self.literals.iter().enumerate() {
            let Some(skipped) = literal.find(&line[at..]) else {
                return false;
            };
            // A capture never matches nothing.
            if skipped == 0 && (i > 0 || self.begins_with_capture) {
                return false;
            }
            at += skipped + literal.needle().len();
        }
        if self.ends_with_capture {
            at < line.len()
        } else {
            at == line.len()
        }
    }

    pub fn need(&self) -> Need {
        Need::all(
            self.literals
                .iter()
                .map(|literal| Need::Literal(literal.needle().to_vec())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, line: &str, expected: bool) {
        let found = LinePattern::parse(pattern)
            .unwrap()
            .matches(line.as_bytes());
        assert_eq!(found, expected, "{pattern} in {line}");
    }

    #[test]
    fn a_line_pattern_is_open_at_its_start_and_closed_at_its_end() {
        check("GET /x", "zz GET /x", true);
        check("GET /x", "GET /x HTTP", false);
        check("foo <_> baz", "foo bar baz", true);
        check("foo <_> baz", "foo  baz", false);
        check("foo <_>", "foo ", false);
        check("foo <_>", "a foo b", true);
        check("<_>err<_>", "err x", false);
        check("<_>err<_>", "an err x", true);
        check("", "", true);
        check("", "x", false);
        check("<_>", "x", true);
        check("<_>", "", false);
        check("a < b", "a < b", true);
    }

    #[test]
    fn a_capture_without_its_end_takes_the_rest() {
        let pattern = Pattern::for_parser("x<a> <_> <b>").unwrap();
        let line = b"x1 2";
        let mut seen = Vec::new();
        pattern.captures(line, |n, range| seen.push((n, &line[range])));
        assert_eq!(seen, [(0, &b"1"[..])]);
        pattern.captures(b"y1 2 3", |_, _| panic!("the prefix is missing"));
    }
}
