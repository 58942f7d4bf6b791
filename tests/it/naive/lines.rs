//! One line after the other through the stages of a query, as the language defines them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use regex::Regex;
use watchpost::logql::ast::*;
use watchpost::model::Labels;
use watchpost::model::labels::{MatchOp, Matcher};
use watchpost::model::level::detect_level;

use super::data::{Data, Line, Set};
use super::text::{self, Json, JsonText, Walk};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Stream,
    Metadata,
    Parsed,
}

/// A line in work.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: i64,
    pub text: String,
    pub labels: BTreeMap<String, (Class, String)>,
    stream: Set,
}

impl Entry {
    pub fn of(data: &Data, line: &Line, levels: bool) -> Self {
        let stream = data.streams[line.stream].clone();
        let mut entry = Self {
            at: line.at,
            text: line.text.clone(),
            labels: BTreeMap::new(),
            stream: stream.clone(),
        };
        for (name, value) in &stream {
            entry.put(name, Class::Stream, value);
        }
        let mut metadata = line.metadata.clone();
        if levels {
            let labels = Labels::from_pairs(stream.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let pairs: Vec<(String, String)> = metadata.clone().into_iter().collect();
            let level = detect_level(&labels, &pairs, line.text.as_bytes());
            metadata.insert("detected_level".into(), level.as_str().into());
        }
        for (name, value) in &metadata {
            let name = match stream.contains_key(name) {
                true => format!("{name}_extracted"),
                false => name.clone(),
            };
            entry.put(&name, Class::Metadata, value);
        }
        entry
    }

    fn put(&mut self, name: &str, class: Class, value: &str) {
        self.labels
            .insert(name.to_owned(), (class, value.to_owned()));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(|(_, value)| value.as_str())
    }

    pub fn has_error(&self) -> bool {
        self.get("__error__").is_some_and(|e| !e.is_empty())
    }

    /// The wording of details is not compared.
    pub fn fail(&mut self, kind: &str) {
        self.put("__error__", Class::Parsed, kind);
        self.put("__error_details__", Class::Parsed, "?");
    }

    fn target(&self, name: &str) -> String {
        let taken = self.stream.contains_key(name)
            || matches!(self.labels.get(name), Some((Class::Metadata, _)));
        match taken {
            true => format!("{name}_extracted"),
            false => name.to_owned(),
        }
    }

    pub fn all(&self) -> Set {
        self.of_class(|_| true)
    }

    pub fn of_class(&self, wanted: impl Fn(Class) -> bool) -> Set {
        self.labels
            .iter()
            .filter(|(_, (class, _))| wanted(*class))
            .map(|(name, (_, value))| (name.clone(), value.clone()))
            .collect()
    }
}

/// What parsers may extract: all, or these.
pub type Wanted = Option<BTreeSet<String>>;

/// Parsers set a name once per line, and may stop when all that is wanted was found.
struct Extraction<'e> {
    entry: &'e mut Entry,
    wanted: &'e Wanted,
    found: &'e mut usize,
}

impl Extraction<'_> {
    /// True: nothing more is wanted.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let name = self.entry.target(name);
        if self.wanted.as_ref().is_some_and(|w| !w.contains(&name)) {
            return false;
        }
        if matches!(self.entry.labels.get(&name), Some((Class::Parsed, _))) {
            return false;
        }
        self.entry.put(&name, Class::Parsed, value);
        *self.found += 1;
        self.wanted.as_ref().is_some_and(|w| *self.found >= w.len())
    }
}

thread_local! {
    static REGEXES: RefCell<HashMap<String, Regex>> = RefCell::default();
}

fn regex(text: &str) -> Regex {
    REGEXES.with_borrow_mut(|known| {
        if known.len() > 500 {
            known.clear();
        }
        let made = || Regex::new(text).expect("a regex that both understand");
        known.entry(text.to_owned()).or_insert_with(made).clone()
    })
}

/// Whether a regex is a text, perhaps with `.*` around it, or alternatives of such.
fn is_simple(regex: &str) -> bool {
    regex.split('|').all(|part| {
        let text = part.strip_prefix(".*").unwrap_or(part);
        let text = text.strip_suffix(".*").unwrap_or(text);
        part == ".+" || !text.contains(|c| "\\.+*?()[]{}^$".contains(c))
    })
}

/// Dots match newlines in selectors, `drop` and `keep`; in filters only those of simple regexes.
pub fn matches(matcher: &Matcher, value: &str, newlines: bool) -> bool {
    let newlines = newlines || is_simple(&matcher.value);
    let dot = if newlines { "(?s)" } else { "" };
    let anchored = || regex(&format!("{dot}^(?:{})$", matcher.value)).is_match(value);
    match matcher.op {
        MatchOp::Equal => value == matcher.value,
        MatchOp::NotEqual => value != matcher.value,
        MatchOp::Regex => anchored(),
        MatchOp::NotRegex => !anchored(),
    }
}

pub fn selects(matchers: &[Matcher], stream: &Set) -> bool {
    matchers
        .iter()
        .all(|m| matches(m, stream.get(&m.name).map_or("", String::as_str), true))
}

/// Runs all stages; `None`: the line is dropped.
pub fn run(stages: &[Stage], wanted: &Wanted, mut entry: Entry) -> Option<Entry> {
    let mut found = 0;
    for stage in stages {
        if !step(stage, wanted, &mut found, &mut entry) {
            return None;
        }
    }
    Some(entry)
}

fn step(stage: &Stage, wanted: &Wanted, found: &mut usize, entry: &mut Entry) -> bool {
    let line = entry.text.clone();
    match stage {
        Stage::Line(filter) => {
            let any = filter
                .operands
                .iter()
                .any(|o| line_test(filter.op, o, &line));
            return any != filter.op.is_negative();
        }
        Stage::Label(filter) => return label_filter(filter, entry),
        Stage::Json(paths) if paths.is_empty() => {
            let mut to = Extraction {
                entry,
                wanted,
                found,
            };
            let mut reader = JsonText::new(&line);
            reader.blanks();
            let end = reader.leaves(&[], &mut |(path, value)| {
                let (Some(name), Json::Text(value) | Json::Plain(value)) =
                    (text::sanitised(&path), value)
                else {
                    return false;
                };
                to.take(&name, &value)
            });
            if end == Walk::Broken {
                entry.fail("JSONParserErr");
            }
        }
        Stage::Json(paths) => {
            if line.is_empty() {
                return true;
            }
            if !line.starts_with(['{', '[', '"']) {
                entry.put("__error__", Class::Parsed, "JSONParserErr");
                return true;
            }
            for path in paths {
                let mut reader = JsonText::new(&line);
                let value = match reader.seek(&path.path) {
                    Some(()) => {
                        let value = reader.value();
                        if value.is_none() {
                            entry.fail("JSONParserErr");
                        }
                        value
                    }
                    None => None,
                };
                let value = match value {
                    None if entry.get(&path.name).is_some() => continue,
                    None | Some(Json::Null) => String::new(),
                    Some(Json::Text(text) | Json::Plain(text)) => text,
                    Some(Json::List(_, text) | Json::Object(_, text)) => text,
                };
                let name = entry.target(&path.name);
                entry.put(&name, Class::Parsed, &value);
            }
        }
        Stage::Logfmt(logfmt) if logfmt.extractions.is_empty() => {
            for pair in text::logfmt_pairs(&line) {
                let Some((key, value)) = pair else {
                    if logfmt.strict {
                        entry.fail("LogfmtParserErr");
                        break;
                    }
                    continue;
                };
                if value.is_empty() && !logfmt.keep_empty {
                    continue;
                }
                let Some(name) = text::sanitised(&[key]) else {
                    continue;
                };
                let mut to = Extraction {
                    entry,
                    wanted,
                    found,
                };
                if to.take(&name, &value) {
                    break;
                }
            }
        }
        Stage::Logfmt(logfmt) => {
            for wanted in &logfmt.extractions {
                if entry.target(&wanted.name) == wanted.name {
                    entry.put(&wanted.name, Class::Parsed, "");
                }
            }
            for pair in text::logfmt_pairs(&line) {
                let Some((key, value)) = pair else {
                    if logfmt.strict {
                        entry.fail("LogfmtParserErr");
                        break;
                    }
                    continue;
                };
                let sanitised = text::sanitised(std::slice::from_ref(&key));
                let is_key = |text: &String| *text == key || Some(text) == sanitised.as_ref();
                let by_key = logfmt.extractions.iter().filter(|e| is_key(&e.path));
                let mut taken: Vec<&str> = by_key.map(|e| e.name.as_str()).collect();
                if taken.is_empty() {
                    let mut by_name = logfmt.extractions.iter().filter(|e| is_key(&e.name));
                    taken.extend(by_name.next().map(|e| e.name.as_str()));
                }
                for name in taken {
                    let name = entry.target(name);
                    entry.put(&name, Class::Parsed, &value);
                }
            }
        }
        Stage::Regexp(text) => {
            let regex = regex(text);
            if let Some(groups) = regex.captures(&line) {
                let mut to = Extraction {
                    entry,
                    wanted,
                    found,
                };
                for name in regex.capture_names().flatten() {
                    to.take(name, groups.name(name).map_or("", |g| g.as_str()));
                }
            }
        }
        Stage::Pattern(text) => pattern_stage(
            text,
            &line,
            &mut Extraction {
                entry,
                wanted,
                found,
            },
        ),
        Stage::Unpack => unpack(
            &line,
            &mut Extraction {
                entry,
                wanted,
                found,
            },
        ),
        Stage::LineFormat(template) => entry.text = fill(template, entry),
        Stage::LabelFormat(formats) => {
            let mut before = None;
            for format in formats {
                match format {
                    LabelFormat::Rename { to, from } => {
                        if let Some((_, value)) = entry.labels.remove(from) {
                            entry.put(to, Class::Parsed, &value);
                        }
                    }
                    LabelFormat::Template { to, template } => {
                        let value = fill(template, before.get_or_insert_with(|| entry.clone()));
                        entry.put(to, Class::Parsed, &value);
                    }
                }
            }
        }
        Stage::Decolorize => {
            // Only colours occur in these lines.
            entry.text = regex("\x1b\\[[0-9;]*m").replace_all(&line, "").into_owned();
        }
        Stage::Drop(picks) => {
            for pick in picks {
                let (name, fits) = match pick {
                    LabelPick::Name(name) => (name, true),
                    LabelPick::Matching(m) => {
                        (&m.name, matches(m, entry.get(&m.name).unwrap_or(""), true))
                    }
                };
                if fits {
                    entry.labels.remove(name);
                }
            }
        }
        Stage::Keep(picks) => entry.labels.retain(|name, (_, value)| {
            ["__error__", "__error_details__", "__preserve_error__"].contains(&name.as_str())
                || picks.iter().any(|pick| match pick {
                    LabelPick::Name(pick) => pick == name,
                    LabelPick::Matching(m) => m.name == *name && matches(m, value, true),
                })
        }),
    }
    true
}

fn line_test(op: LineOp, operand: &LineOperand, line: &str) -> bool {
    match (op, operand) {
        (_, LineOperand::Ip(text)) => {
            let (first, last) = text::network(text);
            text::addresses(line)
                .iter()
                .any(|ip| (first..=last).contains(ip))
        }
        (LineOp::Contains | LineOp::NotContains, LineOperand::Text(text)) => line.contains(text),
        (LineOp::Regex | LineOp::NotRegex, LineOperand::Text(text)) => regex(text).is_match(line),
        (LineOp::Pattern | LineOp::NotPattern, LineOperand::Text(text)) => {
            let parts = text::pattern(text);
            if parts.is_empty() {
                return line.is_empty();
            }
            let mut rest = line;
            for (number, part) in parts.iter().enumerate() {
                match part {
                    Ok(literal) => {
                        let Some(at) = rest.find(literal.as_str()) else {
                            return false;
                        };
                        if at == 0 && number > 0 {
                            return false; // the capture before it would be empty
                        }
                        rest = &rest[at + literal.len()..];
                    }
                    Err(_) if number + 1 == parts.len() => return !rest.is_empty(),
                    Err(_) => {}
                }
            }
            rest.is_empty()
        }
    }
}

fn pattern_stage(text: &str, line: &str, to: &mut Extraction<'_>) {
    if line.is_empty() {
        return;
    }
    let parts = text::pattern(text);
    let mut rest = line;
    for (number, part) in parts.iter().enumerate() {
        match part {
            // Behind a capture the literal was found when the capture was.
            Ok(_) if number > 0 => {}
            Ok(literal) => match rest.strip_prefix(literal.as_str()) {
                Some(after) => rest = after,
                None => return,
            },
            Err(name) => {
                let end = match parts.get(number + 1) {
                    Some(Ok(literal)) => rest.split_once(literal.as_str()),
                    _ => None,
                };
                if name != "_" {
                    to.take(name, end.map_or(rest, |(value, _)| value));
                }
                match end {
                    Some((_, after)) => rest = after,
                    None => return,
                }
            }
        }
    }
}

fn unpack(line: &str, to: &mut Extraction<'_>) {
    if line.is_empty() {
        return;
    }
    let mut reader = JsonText::new(line);
    let members = match reader.peek() {
        Some('{') => match reader.value() {
            Some(Json::Object(members, _)) => members,
            _ => return to.entry.fail("JSONParserErr"),
        },
        _ => return to.entry.fail("JSONParserErr"),
    };
    let packed = members.iter().find_map(|(name, value)| match value {
        Json::Text(text) if name == "_entry" => Some(text.clone()),
        _ => None,
    });
    let Some(packed) = packed else { return };
    for (name, value) in &members {
        if let (Json::Text(value), Some(name)) =
            (value, text::sanitised(std::slice::from_ref(name)))
            && name != "_entry"
        {
            to.take(&name, value);
        }
    }
    to.entry.text = packed;
}

/// Templates of texts and fields.
fn fill(template: &str, entry: &Entry) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").expect("a closed action");
        out += before;
        out += match action.trim() {
            "__line__" => &entry.text,
            field => entry.get(&field[1..]).unwrap_or(""),
        };
        rest = after;
    }
    out + rest
}

pub fn label_filter(filter: &LabelFilter, entry: &mut Entry) -> bool {
    let mut converted =
        |name: &str, op: Compare, wanted: f64, read: &dyn Fn(&str) -> Option<f64>| {
            let Some(value) = entry.get(name) else {
                return false;
            };
            match read(value) {
                Some(found) => op.holds(found, wanted),
                None => {
                    if !entry.has_error() {
                        entry.fail("LabelFilterErr");
                    }
                    true
                }
            }
        };
    match filter {
        LabelFilter::Text(m) => matches(m, entry.get(&m.name).unwrap_or(""), false),
        LabelFilter::Number { name, op, value } => {
            converted(name, *op, *value, &|text| text.parse().ok())
        }
        LabelFilter::Duration { name, op, value } => {
            converted(name, *op, *value as f64 / 1e9, &text::duration)
        }
        LabelFilter::Bytes { name, op, value } => converted(name, *op, *value as f64, &text::size),
        LabelFilter::Ip {
            name,
            negated,
            pattern,
        } => {
            if entry.has_error() {
                return true;
            }
            let (first, last) = text::network(pattern);
            entry.get(name).is_some_and(|value| {
                let found = text::addresses(value);
                found.iter().any(|ip| (first..=last).contains(ip)) != *negated
            })
        }
        LabelFilter::And(left, right) => {
            let left = label_filter(left, entry);
            label_filter(right, entry) && left
        }
        LabelFilter::Or(left, right) => label_filter(left, entry) || label_filter(right, entry),
    }
}
