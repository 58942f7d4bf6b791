//! `| json`: members of a JSON object become labels.

use super::json_path::{JsonPath, Step as PathStep};
use super::json_reader::{Reader, Value, unescape};
use super::name::push_sanitised;
use super::{Step, Verdict};
use crate::logql::ast::Extraction;
use crate::logql::entry::{Entry, NameId, Names, Text};

/// How `__error__` calls a line that is not JSON.
pub const PARSER_ERROR: &str = "JSONParserErr";

/// Objects within each other.
const MAX_DEPTH: usize = 100;

/// `| json`: everything, nested names joined with `_`.
#[derive(Debug)]
pub struct Json;

impl Step for Json {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let failed = entry.with_line(|entry, line, text| {
            let mut walk = Walk {
                entry,
                reader: Reader::new(line),
                line: text,
                name: String::new(),
            };
            walk.reader.blanks();
            walk.object(0).err()
        });
        if let Some(reason) = failed {
            entry.set_error(PARSER_ERROR, reason);
        }
        Verdict::Keep
    }
}

struct Walk<'w, 'l, 'e> {
    entry: &'w mut Entry<'e>,
    reader: Reader<'l>,
    line: Text,
    /// Of the object at hand.
    name: String,
}

impl Walk<'_, '_, '_> {
    /// Members of the object at hand. True: nothing more is wanted.
    fn object(&mut self, depth: usize) -> Result<bool, &'static str> {
        if !self.reader.eat(b'{') {
            return Err("value is not a JSON object");
        }
        if depth > MAX_DEPTH {
            return Err("nested too deeply");
        }
        self.reader.blanks();
        if self.reader.eat(b'}') {
            return Ok(false);
        }
        let outer = self.name.len();
        for position in 0.. {
            let (key, escaped) = self.reader.key()?;
            if depth == 0 && !escaped && self.reader.peek() != Some(b'{') {
                // Most members are such; their names need not be made.
                let raw = &self.reader.text[key];
                let value = self.reader.value()?;
                let taken = match value {
                    Value::Null | Value::Array(_) | Value::Object(_) => None,
                    Value::Text(..) | Value::Plain(_) => {
                        self.entry.extraction_of_key(position, raw)
                    }
                };
                if let Some(id) = taken
                    && self.take(id, value)?
                {
                    return Ok(true);
                }
                if !self.reader.more(b'}')? {
                    return Ok(false);
                }
                continue;
            }
            if outer > 0 {
                self.name.push('_');
            }
            let raw = &self.reader.text[key];
            let named = if escaped {
                let mut plain = Vec::with_capacity(raw.len());
                unescape(raw, &mut plain)?;
                push_sanitised(&mut self.name, &plain)
            } else {
                push_sanitised(&mut self.name, raw)
            };
            if !named {
                self.reader.value()?;
            } else if self.reader.peek() == Some(b'{') {
                if self.object(depth + 1)? {
                    return Ok(true);
                }
            } else if self.value()? {
                return Ok(true);
            }
            self.name.truncate(outer);
            if !self.reader.more(b'}')? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The value at hand, which is no object, under the name at hand.
    fn value(&mut self) -> Result<bool, &'static str> {
        let value = self.reader.value()?;
        if matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
            return Ok(false);
        }
        match self.entry.extraction(&self.name) {
            Some(id) => self.take(id, value),
            None => Ok(false),
        }
    }

    /// Makes a label of a value.
    fn take(&mut self, id: NameId, value: Value) -> Result<bool, &'static str> {
        let (range, escaped) = match value {
            Value::Text(range, escaped) => (range, escaped),
            Value::Plain(range) => (range, false),
            Value::Null | Value::Array(_) | Value::Object(_) => return Ok(false),
        };
        let text = if escaped {
            unescaped(self.entry, &self.reader.text[range])
        } else {
            self.line.part(range)
        };
        Ok(self.entry.extract(id, text))
    }
}

/// The text of a JSON string; empty when an escape in it is broken.
pub fn unescaped(entry: &mut Entry<'_>, raw: &[u8]) -> Text {
    let start = entry.arena().len();
    match unescape(raw, entry.arena()) {
        Ok(()) => entry.since(start),
        Err(_) => Text::EMPTY,
    }
}

/// Calls `visit` with the label's name and the members that lead to it, for every value that
/// `| json` would make a label of; as far as the line is well-formed.
pub fn member_paths(line: &[u8], mut visit: impl FnMut(&str, &[String])) {
    let mut reader = Reader::new(line);
    reader.blanks();
    let mut path = Vec::new();
    let _ = paths_of_object(&mut reader, &mut String::new(), &mut path, &mut visit);
}

fn paths_of_object(
    reader: &mut Reader<'_>,
    name: &mut String,
    path: &mut Vec<String>,
    visit: &mut impl FnMut(&str, &[String]),
) -> Result<(), &'static str> {
    if !reader.eat(b'{') {
        return Err("value is not a JSON object");
    }
    if path.len() > MAX_DEPTH {
        return Err("nested too deeply");
    }
    reader.blanks();
    if reader.eat(b'}') {
        return Ok(());
    }
    let outer = name.len();
    loop {
        let (key, escaped) = reader.key()?;
        let mut plain = Vec::new();
        if escaped {
            unescape(&reader.text[key], &mut plain)?;
        } else {
            plain.extend_from_slice(&reader.text[key]);
        }
        if outer > 0 {
            name.push('_');
        }
        let named = push_sanitised(name, &plain);
        path.push(String::from_utf8_lossy(&plain).into_owned());
        if named && reader.peek() == Some(b'{') {
            paths_of_object(reader, name, path, visit)?;
        } else if let Value::Text(..) | Value::Plain(_) = reader.value()?
            && named
        {
            visit(name, path);
        }
        path.pop();
        name.truncate(outer);
        if !reader.more(b'}')? {
            return Ok(());
        }
    }
}

/// `| json a="x.y[0]"`: values at paths.
#[derive(Debug)]
pub struct JsonPaths(Vec<(NameId, JsonPath)>);

impl JsonPaths {
    pub fn compile(extractions: &[Extraction], names: &mut Names) -> Result<Self, String> {
        extractions
            .iter()
            .map(|extraction| {
                let path = JsonPath::parse(&extraction.path)
                    .map_err(|e| format!("cannot parse expression [{}]: {e}", extraction.path))?;
                Ok((names.id(&extraction.name), path))
            })
            .collect::<Result<_, String>>()
            .map(Self)
    }
}

impl Step for JsonPaths {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let failed = entry.with_line(|entry, line, text| {
            match line.first() {
                None => return None,
                Some(b'{' | b'[' | b'"') => {}
                Some(_) => return Some(""),
            }
            let mut failed = None;
            for (name, path) in &self.0 {
                let value = match find(&mut Reader::new(line), &path.0) {
                    Ok(value) => value,
                    Err(reason) => {
                        failed = Some(reason);
                        None
                    }
                };
                match value {
                    Some(Value::Text(range, true)) => {
                        let text = unescaped(entry, &line[range]);
                        entry.extract_expression(*name, text);
                    }
                    Some(
                        Value::Text(range, false)
                        | Value::Plain(range)
                        | Value::Object(range)
                        | Value::Array(range),
                    ) => {
                        entry.extract_expression(*name, text.part(range));
                    }
                    Some(Value::Null) => entry.extract_expression(*name, Text::EMPTY),
                    // Each name exists afterwards, found or not.
                    None if entry.label(*name).is_none() => {
                        entry.extract_expression(*name, Text::EMPTY);
                    }
                    None => {}
                }
            }
            failed
        });
        if let Some(reason) = failed {
            entry.set_error(PARSER_ERROR, reason);
        }
        Verdict::Keep
    }
}

/// The value at a path; `None` where the text is broken before it or does not have it, an error
/// where it is broken itself.
fn find(reader: &mut Reader<'_>, path: &[PathStep]) -> Result<Option<Value>, &'static str> {
    match seek(reader, path) {
        Some(()) => reader.value().map(Some),
        None => Ok(None),
    }
}

/// Reads up to the value at a path, if there is one.
fn seek(reader: &mut Reader<'_>, path: &[PathStep]) -> Option<()> {
    reader.blanks();
    for step in path {
        match step {
            PathStep::Field(name) => {
                if !reader.eat(b'{') {
                    return None;
                }
                reader.blanks();
                loop {
                    let (key, escaped) = reader.key().ok()?;
                    let raw = &reader.text[key];
                    let found = if escaped {
                        let mut plain = Vec::new();
                        unescape(raw, &mut plain).ok()?;
                        plain == name.as_bytes()
                    } else {
                        raw == name.as_bytes()
                    };
                    if found {
                        break;
                    }
                    reader.value().ok()?;
                    match reader.more(b'}') {
                        Ok(true) => {}
                        Ok(false) => return None,
                        // A missing comma hides nothing.
                        Err(_) if reader.peek() == Some(b'"') => {}
                        Err(_) => return None,
                    }
                }
            }
            PathStep::Index(index) => {
                if !reader.eat(b'[') {
                    return None;
                }
                reader.blanks();
                if reader.peek() == Some(b']') {
                    return None;
                }
                for _ in 0..*index {
                    reader.value().ok()?;
                    if !reader.more(b']').ok()? {
                        return None;
                    }
                }
            }
        }
    }
    Some(())
}
