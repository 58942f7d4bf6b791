//! `| logfmt`: `key=value` pairs become labels.

use std::ops::Range;

use super::json_reader::{LoneSurrogate, unescape_with};
use super::name::push_sanitised;
use super::{Step, Verdict};
use crate::logql::ast;
use crate::logql::entry::{Entry, NameId, Names, Text};

/// How `__error__` calls a line that `--strict` refuses.
const PARSER_ERROR: &str = "LogfmtParserErr";

/// A pair, by its place in the line.
struct Pair {
    key: Range<usize>,
    value: Range<usize>,
    /// The value was quoted and holds escapes.
    escaped: bool,
}

/// Why a pair is none, and where.
struct Broken {
    at: usize,
    reason: &'static str,
}

#[inline]
fn skip_while(line: &[u8], from: usize, accept: impl Fn(u8) -> bool) -> usize {
    from + line[from..].iter().take_while(|b| accept(**b)).count()
}

struct Pairs<'l> {
    line: &'l [u8],
    at: usize,
}

impl Pairs<'_> {
    /// The next pair; an error stands for a pair that is broken, and reading can go on.
    fn next(&mut self) -> Option<Result<Pair, Broken>> {
        let line = self.line;
        self.at = skip_while(line, self.at, |b| b <= b' ');
        if self.at >= line.len() {
            return None;
        }
        let start = self.at;
        self.at = skip_while(line, start, |b| b > b' ' && b != b'=' && b != b'"');
        let key = start..self.at;
        match line.get(self.at) {
            Some(b'"') => return self.broken("unexpected quote in a key"),
            Some(b'=') if key.is_empty() => return self.broken("unexpected = without a key"),
            Some(b'=') => self.at += 1,
            // A bare word.
            _ => {
                let value = self.at..self.at;
                return Some(Ok(Pair {
                    key,
                    value,
                    escaped: false,
                }));
            }
        }
        self.value(key)
    }

    /// The value at hand, of the pair with this key.
    fn value(&mut self, key: Range<usize>) -> Option<Result<Pair, Broken>> {
        let line = self.line;
        if line.get(self.at) == Some(&b'"') {
            return self.quoted(key);
        }
        let start = self.at;
        self.at = skip_while(line, start, |b| b > b' ' && b != b'=' && b != b'"');
        match line.get(self.at) {
            Some(b'=') => self.broken("unexpected = in a value"),
            Some(b'"') => self.broken("unexpected quote in a value"),
            _ => Some(Ok(Pair {
                key,
                value: start..self.at,
                escaped: false,
            })),
        }
    }

    fn broken(&mut self, reason: &'static str) -> Option<Result<Pair, Broken>> {
        let at = self.at;
        self.at = skip_while(self.line, at, |b| b > b' ');
        Some(Err(Broken { at, reason }))
    }

    fn quoted(&mut self, key: Range<usize>) -> Option<Result<Pair, Broken>> {
        let start = self.at + 1;
        let mut escaped = false;
        let mut at = start;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.line[at..]) else {
                self.at = self.line.len();
                return Some(Err(Broken {
                    at: self.at,
                    reason: "unterminated quoted value",
                }));
            };
            at += found;
            if self.line[at] == b'"' {
                self.at = at + 1;
                let value = start..at;
                return Some(Ok(Pair {
                    key,
                    value,
                    escaped,
                }));
            }
            escaped = true;
            at = (at + 2).min(self.line.len());
        }
    }
}

/// The value that begins at `at`, right behind an `=`, and whether it holds escapes; `None`:
/// it is broken.
pub fn value_at(line: &[u8], at: usize) -> Option<(Range<usize>, bool)> {
    match (Pairs { line, at }).value(at..at)? {
        Ok(pair) => Some((pair.value, pair.escaped)),
        Err(_) => None,
    }
}

/// The value of a pair; a broken escape is an error.
fn value_text(entry: &mut Entry<'_>, line: &[u8], text: Text, pair: &Pair) -> Option<Text> {
    if !pair.escaped {
        return Some(text.part(pair.value.clone()));
    }
    let start = entry.arena().len();
    let raw = &line[pair.value.clone()];
    unescape_with(raw, entry.arena(), LoneSurrogate::Blank).ok()?;
    Some(entry.since(start))
}

fn bad_escape(pair: &Pair) -> Broken {
    Broken {
        at: pair.value.start,
        reason: "invalid quoted value",
    }
}

fn mark(entry: &mut Entry<'_>, broken: &Broken) {
    let details = format!(
        "syntax error at position {}: {}",
        broken.at + 1,
        broken.reason
    );
    entry.set_error(PARSER_ERROR, &details);
}

/// `| logfmt`: every pair.
#[derive(Debug)]
pub struct Logfmt {
    pub strict: bool,
    pub keep_empty: bool,
}

impl Step for Logfmt {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let failed = entry.with_line(|entry, line, text| {
            let mut pairs = Pairs { line, at: 0 };
            let mut position = 0;
            while let Some(pair) = pairs.next() {
                let pair = match pair {
                    Ok(pair) => pair,
                    Err(broken) if self.strict => return Some(broken),
                    Err(_) => continue,
                };
                if pair.value.is_empty() && !self.keep_empty {
                    continue;
                }
                position += 1;
                let key = &line[pair.key.clone()];
                let Some(id) = entry.extraction_of_key(position - 1, key) else {
                    // A value that nobody wants may be broken as well.
                    if self.strict && value_text(entry, line, text, &pair).is_none() {
                        return Some(bad_escape(&pair));
                    }
                    continue;
                };
                match value_text(entry, line, text, &pair) {
                    Some(value) if entry.extract(id, value) => return None,
                    None if self.strict => return Some(bad_escape(&pair)),
                    _ => {}
                }
            }
            None
        });
        if let Some(broken) = failed {
            mark(entry, &broken);
        }
        Verdict::Keep
    }
}

/// `| logfmt a="key"`: the named keys; of equal keys the last. A key in the line that is the
/// name of a label to set counts as well, as in Loki.
#[derive(Debug)]
pub struct LogfmtKeys {
    strict: bool,
    keys: Vec<AskedKey>,
}

/// A label and the key that it is taken from.
#[derive(Debug)]
struct AskedKey {
    name: NameId,
    label: Vec<u8>,
    key: Vec<u8>,
}

impl LogfmtKeys {
    pub fn compile(logfmt: &ast::Logfmt, names: &mut Names) -> Self {
        let key = |e: &ast::Extraction| AskedKey {
            name: names.id(&e.name),
            label: e.name.clone().into_bytes(),
            key: e.path.clone().into_bytes(),
        };
        Self {
            strict: logfmt.strict,
            keys: logfmt.extractions.iter().map(key).collect(),
        }
    }
}

impl Step for LogfmtKeys {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let failed = entry.with_line(|entry, line, text| {
            // Each name exists afterwards, found or not.
            for asked in &self.keys {
                entry.extract_missing(asked.name);
            }
            let mut pairs = Pairs { line, at: 0 };
            let mut sanitised = String::new();
            while let Some(pair) = pairs.next() {
                let pair = match pair {
                    Ok(pair) => pair,
                    Err(broken) if self.strict => return Some(broken),
                    Err(_) => continue,
                };
                let raw = &line[pair.key.clone()];
                sanitised.clear();
                push_sanitised(&mut sanitised, raw);
                let wanted = |key: &[u8]| key == raw || key == sanitised.as_bytes();
                let mut taken = false;
                for asked in self.keys.iter().filter(|asked| wanted(&asked.key)) {
                    match value_text(entry, line, text, &pair) {
                        Some(value) => entry.extract_expression(asked.name, value),
                        None if self.strict => return Some(bad_escape(&pair)),
                        None => {}
                    }
                    taken = true;
                }
                if taken {
                    continue;
                }
                let by_name = self.keys.iter().find(|asked| wanted(&asked.label));
                let value = value_text(entry, line, text, &pair);
                match (by_name, value) {
                    (Some(asked), Some(value)) => entry.extract_expression(asked.name, value),
                    (_, None) if self.strict => return Some(bad_escape(&pair)),
                    _ => {}
                }
            }
            None
        });
        if let Some(broken) = failed {
            mark(entry, &broken);
        }
        Verdict::Keep
    }
}
