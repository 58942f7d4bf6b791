//! `| unpack`: undoes promtail's `pack`.

use super::json::{PARSER_ERROR, unescaped};
use super::json_reader::{Reader, Value, unescape};
use super::name::push_sanitised;
use super::{Step, Verdict};
use crate::logql::entry::{Entry, Text};

/// The member that holds the packed line.
const LINE_KEY: &[u8] = b"_entry";

/// An object of strings with [`LINE_KEY`] among them: that becomes the line, the others
/// labels. Without it nothing changes.
#[derive(Debug)]
pub struct Unpack;

impl Step for Unpack {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let failed = entry.with_line(|entry, line, text| unpack(entry, line, text).err());
        if let Some(reason) = failed {
            entry.set_error(PARSER_ERROR, reason);
        }
        Verdict::Keep
    }
}

fn unpack(entry: &mut Entry<'_>, line: &[u8], text: Text) -> Result<(), &'static str> {
    if line.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(line);
    if !reader.eat(b'{') {
        return Err("expecting a JSON object");
    }
    reader.blanks();
    if reader.eat(b'}') {
        return Ok(());
    }
    let mut packed = None;
    let mut labels = Vec::new();
    loop {
        let (key, _) = reader.key()?;
        if let Value::Text(range, escaped) = reader.value()? {
            let is_line = &line[key.clone()] == LINE_KEY;
            let value = if !escaped {
                text.part(range)
            } else if is_line {
                let start = entry.arena().len();
                unescape(&line[range], entry.arena())?;
                entry.since(start)
            } else {
                unescaped(entry, &line[range])
            };
            if is_line {
                packed = Some(value);
            } else {
                labels.push((key, value));
            }
        }
        if !reader.more(b'}')? {
            break;
        }
    }
    let Some(packed) = packed else {
        return Ok(());
    };
    for (key, value) in labels {
        let mut name = String::new();
        if push_sanitised(&mut name, &line[key])
            && let Some(id) = entry.extraction(&name)
        {
            entry.extract(id, value);
        }
    }
    entry.set_line(packed);
    Ok(())
}
