//! Label text: `{a="1", b="2"}`, as a Prometheus selector without a name.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::memo::Memo;
use crate::model::{Labels, LabelsBuilder};

/// Labels of a stream, sorted, without empty values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedLabels {
    pub labels: Labels,
    /// A name that occurred twice; then `labels` holds its last value.
    pub duplicate: Option<Arc<str>>,
}

/// What is wrong with a label text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsError {
    /// 1-based, in characters.
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for LabelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Texts that are longer, or hold more labels, are parsed each time.
const KNOWN_TEXT: usize = 512;
const KNOWN_NAMES: usize = 32;
/// Places for texts parsed lately: 1 MiB with labels as they are, 4 MiB at the worst.
const KNOWN: usize = 1024;

/// The same as [`parse_labels`], for texts that come again and again: their labels are shared.
pub fn known_labels(text: &str) -> Result<ParsedLabels, LabelsError> {
    static KNOWN_LABELS: LazyLock<Memo<(Box<str>, Labels)>> = LazyLock::new(|| Memo::new(KNOWN));
    if text.len() > KNOWN_TEXT {
        return parse_labels(text);
    }
    let hash = xxh3_64(text.as_bytes());
    let same = |(known, labels): &(Box<str>, Labels)| (**known == *text).then(|| labels.clone());
    if let Some(labels) = KNOWN_LABELS.get(hash, same) {
        return Ok(ParsedLabels {
            labels,
            duplicate: None,
        });
    }
    let parsed = parse_labels(text)?;
    if parsed.duplicate.is_none() && parsed.labels.len() <= KNOWN_NAMES {
        KNOWN_LABELS.put(hash, (text.into(), parsed.labels.clone()));
    }
    Ok(parsed)
}

/// Parses label text. Names are `[a-zA-Z_][a-zA-Z0-9_]*`; values are quoted as in Go
/// (`"…"`, or `` `…` `` without escapes) or in single quotes; a comma may end the list.
pub fn parse_labels(text: &str) -> Result<ParsedLabels, LabelsError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut pairs = Pairs::default();
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.take(b'}') {
            break;
        }
        let name = cursor.name()?;
        cursor.expect(b'=', "`=`")?;
        let value = cursor.value()?;
        pairs.add(name, &value);
        if !cursor.take(b',') {
            cursor.expect(b'}', "`,` or `}`")?;
            break;
        }
    }
    cursor.skip_blanks();
    if cursor.at < text.len() {
        return Err(cursor.unexpected("the end"));
    }
    Ok(pairs.finish())
}

/// Whether `name` can be a label's name.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| is_name_start(*b)) && bytes.iter().all(|b| is_name_part(*b))
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

fn is_name_part(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// Collects pairs; drops those without a value before anything else looks at them.
#[derive(Default)]
pub struct Pairs {
    builder: LabelsBuilder,
    duplicate: Option<Arc<str>>,
}

impl Pairs {
    pub fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if self.duplicate.is_none() && self.builder.get(name).is_some() {
            self.duplicate = Some(name.into());
        }
        self.builder.set(name, value);
    }

    pub fn finish(self) -> ParsedLabels {
        ParsedLabels {
            labels: self.builder.build(),
            duplicate: self.duplicate,
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
    /// Byte offset, always at a character boundary.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8, shown: &str) -> Result<(), LabelsError> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.unexpected(shown))
        }
    }

    fn name(&mut self) -> Result<&'a str, LabelsError> {
        self.skip_blanks();
        let rest = self.rest();
        let len = rest
            .bytes()
            .position(|b| !is_name_part(b))
            .unwrap_or(rest.len());
        if len == 0 || !is_name_start(rest.as_bytes()[0]) {
            return Err(self.unexpected("a label name"));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn value(&mut self) -> Result<Cow<'a, str>, LabelsError> {
        self.skip_blanks();
        let quote = match self.peek() {
            Some(quote @ (b'"' | b'\'' | b'`')) => quote,
            _ => return Err(self.unexpected("a quoted value")),
        };
        let open = self.at;
        self.at += 1;
        let rest = self.rest();
        if quote == b'`' {
            let Some(len) = memchr::memchr(b'`', rest.as_bytes()) else {
                return Err(error_at(self.text, open, "value is not closed"));
            };
            self.at += len + 1;
            return Ok(Cow::Borrowed(&rest[..len]));
        }
        match memchr::memchr3(quote, b'\\', b'\n', rest.as_bytes()) {
            Some(len) if rest.as_bytes()[len] == quote => {
                self.at += len + 1;
                Ok(Cow::Borrowed(&rest[..len]))
            }
            _ => self.escaped_value(quote, open).map(Cow::Owned),
        }
    }

    /// The slow way: a value with escapes, or one that is broken.
    fn escaped_value(&mut self, quote: u8, open: usize) -> Result<String, LabelsError> {
        // Bytes, because `\xff` makes a byte and not a character.
        let mut value = Vec::new();
        loop {
            let at = self.at;
            match self.peek() {
                None | Some(b'\n') => {
                    return Err(error_at(self.text, open, "value is not closed"));
                }
                Some(b) if b == quote => {
                    self.at += 1;
                    // What is no UTF-8 becomes the replacement character.
                    return Ok(String::from_utf8(value)
                        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()));
                }
                Some(b'\\') => {
                    self.at += 1;
                    if self.escape(quote, &mut value).is_none() {
                        return Err(error_at(self.text, at, "unknown escape"));
                    }
                }
                Some(b) => {
                    value.push(b);
                    self.at += 1;
                }
            }
        }
    }

    /// What follows a backslash, as in Go.
    fn escape(&mut self, quote: u8, value: &mut Vec<u8>) -> Option<()> {
        let kind = self.peek()?;
        if !kind.is_ascii() {
            return None;
        }
        self.at += 1;
        let plain = match kind {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' => b'\\',
            b if b == quote => b,
            b'x' => u8::try_from(self.digits(2, 16)?).ok()?,
            b'0'..=b'7' => {
                self.at -= 1;
                u8::try_from(self.digits(3, 8)?).ok()?
            }
            b'u' | b'U' => {
                let code = self.digits(if kind == b'u' { 4 } else { 8 }, 16)?;
                let mut utf8 = [0; 4];
                value.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        value.push(plain);
        Some(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + count)?;
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        self.at += count;
        u32::from_str_radix(digits, radix).ok()
    }

    fn unexpected(&self, wanted: &str) -> LabelsError {
        match self.rest().chars().next() {
            Some(c) => error_at(
                self.text,
                self.at,
                &format!("unexpected character {c:?}, expected {wanted}"),
            ),
            None => error_at(
                self.text,
                self.at,
                &format!("unexpected end of input, expected {wanted}"),
            ),
        }
    }
}

fn error_at(text: &str, at: usize, message: &str) -> LabelsError {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    LabelsError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_give_what_parsing_gives() {
        for text in [
            r#"{known="1", b="2"}"#,
            r#"{known="2"}"#,
            r#"{a="1", a="2"}"#,
            "{",
        ] {
            for _ in 0..2 {
                assert_eq!(known_labels(text), parse_labels(text), "{text}");
            }
        }
    }

    fn labels(text: &str) -> String {
        match parse_labels(text) {
            Ok(ParsedLabels {
                labels,
                duplicate: None,
            }) => labels.to_string(),
            Ok(ParsedLabels {
                duplicate: Some(name),
                ..
            }) => format!("duplicate {name}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn labels_are_sorted_and_empty_values_vanish() {
        assert_eq!(labels(r#"{b="2",a="1" , c = "" ,}"#), r#"{a="1", b="2"}"#);
        assert_eq!(labels("{}"), "{}");
        assert_eq!(labels(r#"{a="", a="1"}"#), r#"{a="1"}"#);
        assert_eq!(labels(r#"{a="1", a="1"}"#), "duplicate a");
    }

    #[test]
    fn values_are_quoted_as_in_go() {
        assert_eq!(
            labels(r#"{a="\x41\101\u00e9\U0001F600\n\"\\é"}"#),
            "{a=\"AAé😀\\n\\\"\\\\é\"}"
        );
        assert_eq!(labels("{a=`x\\n\"y`}"), r#"{a="x\\n\"y"}"#);
        assert_eq!(labels(r#"{a='x"y\''}"#), r#"{a="x\"y'"}"#);
        assert_eq!(labels(r#"{a="b}c,d=\"e\""}"#), r#"{a="b}c,d=\"e\""}"#);
    }

    #[test]
    fn errors_name_the_place() {
        for (text, error) in [
            ("", "1:1: unexpected end of input, expected `{`"),
            ("{", "1:2: unexpected end of input, expected a label name"),
            (
                r#"{a-b="1"}"#,
                "1:3: unexpected character '-', expected `=`",
            ),
            (
                r#"{1a="1"}"#,
                "1:2: unexpected character '1', expected a label name",
            ),
            (
                r#"{é="1"}"#,
                "1:2: unexpected character 'é', expected a label name",
            ),
            (
                r#"{a="1" b="2"}"#,
                "1:8: unexpected character 'b', expected `,` or `}`",
            ),
            (r#"{a="1}"#, "1:4: value is not closed"),
            ("{a=\"1\n\"}", "1:4: value is not closed"),
            (r#"{a="\q"}"#, "1:5: unknown escape"),
            (r#"{a="\xé"}"#, "1:5: unknown escape"),
            (r#"{a="\400"}"#, "1:5: unknown escape"),
            (r#"{a="\ud800"}"#, "1:5: unknown escape"),
            (
                r#"{a="1"}x"#,
                "1:8: unexpected character 'x', expected the end",
            ),
            (
                "{\na=1}",
                "2:3: unexpected character '1', expected a quoted value",
            ),
            (
                r#"{a=~"1"}"#,
                "1:4: unexpected character '~', expected a quoted value",
            ),
        ] {
            assert_eq!(labels(text), error, "{text}");
        }
    }

    #[test]
    fn what_is_rendered_parses_to_itself() {
        proptest::proptest!(|(pairs in proptest::collection::btree_map(
            "[a-zA-Z_][a-zA-Z0-9_]{0,5}", "\\PC{1,8}|[\u{0}-\u{ff}]{1,4}", 0..5,
        ))| {
            let set = Labels::from_pairs(pairs.iter().map(|(n, v)| (&**n, &**v)));
            let parsed = parse_labels(&set.to_string()).expect("rendered text is valid");
            proptest::prop_assert_eq!(parsed.labels, set);
        });
    }

    #[test]
    fn random_text_never_panics() {
        proptest::proptest!(|(text in r#"[{}a=",'`\\xuU0-9 \né-]{0,24}"#)| {
            let _ = parse_labels(&text);
        });
    }
}
