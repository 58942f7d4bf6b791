//! Reads JSON from the front, one value at a time, as far as it is well-formed.
//!
//! Lenient on purpose: what stands behind the value that is wanted is never looked at, and
//! numbers keep their text.

use std::ops::Range;

/// Objects and arrays within each other.
const MAX_DEPTH: usize = 200;

pub struct Reader<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

/// A value, by its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Between the quotes, and whether it holds escapes.
    Text(Range<usize>, bool),
    /// A number or a boolean.
    Plain(Range<usize>),
    Null,
    /// With its brackets.
    Object(Range<usize>),
    Array(Range<usize>),
}

pub type Result<T> = std::result::Result<T, &'static str>;

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The string at hand: what is between its quotes, and whether it holds escapes.
    pub fn string(&mut self) -> Result<(Range<usize>, bool)> {
        if !self.eat(b'"') {
            return Err("expected a string");
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at..];
            let skipped = memchr::memchr2(b'"', b'\\', rest).ok_or("unterminated string")?;
            self.at += skipped;
            if self.text[self.at] == b'"' {
                let range = start..self.at;
                self.at += 1;
                return Ok((range, escaped));
            }
            escaped = true;
            self.at += 2;
            if self.at > self.text.len() {
                return Err("unterminated string");
            }
        }
    }

    /// The key at hand and the colon behind it.
    pub fn key(&mut self) -> Result<(Range<usize>, bool)> {
        let key = self.string().map_err(|_| "expected a key")?;
        self.blanks();
        if !self.eat(b':') {
            return Err("expected a colon behind the key");
        }
        self.blanks();
        Ok(key)
    }

    /// The number, boolean or null at hand.
    pub fn plain(&mut self) -> Result<Value> {
        let start = self.at;
        let len = self.text[start..]
            .iter()
            .take_while(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
            .count();
        self.at += len;
        let range = start..self.at;
        match &self.text[range.clone()] {
            b"null" => Ok(Value::Null),
            b"true" | b"false" => Ok(Value::Plain(range)),
            [b'-' | b'0'..=b'9', ..] => Ok(Value::Plain(range)),
            [] => Err("expected a value"),
            _ => Err("unknown value"),
        }
    }

    /// The value at hand, whatever it is; objects and arrays are passed over.
    pub fn value(&mut self) -> Result<Value> {
        match self.peek() {
            Some(b'"') => {
                let (range, escaped) = self.string()?;
                Ok(Value::Text(range, escaped))
            }
            Some(b'{') => self.skip_nested().map(Value::Object),
            Some(b'[') => self.skip_nested().map(Value::Array),
            _ => self.plain(),
        }
    }

    /// Passes over the object or array at hand. Only strings and brackets are looked at.
    pub fn skip_nested(&mut self) -> Result<Range<usize>> {
        let start = self.at;
        let mut closers = Vec::new();
        loop {
            match self.peek() {
                None => return Err("unterminated object or array"),
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{') => closers.push(b'}'),
                Some(b'[') => closers.push(b']'),
                Some(close @ (b'}' | b']')) => {
                    if closers.pop() != Some(close) {
                        return Err("brackets do not match");
                    }
                }
                Some(_) => {}
            }
            self.at += 1;
            if closers.is_empty() {
                return Ok(start..self.at);
            }
            if closers.len() > MAX_DEPTH {
                return Err("nested too deeply");
            }
        }
    }

    /// Behind a member: true when another one follows, false when the bracket closes, that of
    /// an object also right behind a comma.
    pub fn more(&mut self, close: u8) -> Result<bool> {
        self.blanks();
        if self.eat(b',') {
            self.blanks();
            return Ok(!(close == b'}' && self.eat(close)));
        }
        if self.eat(close) {
            return Ok(false);
        }
        Err("expected a comma or the end of the object")
    }
}

/// What follows on the end of a name in some text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// No value of a member with that name.
    Nothing,
    /// A text without escapes, a number or a boolean.
    Value(Range<usize>),
    /// Something with escapes.
    Unclear,
}

/// Looks at what stands behind the end of a name that was found at `at`, wherever in the text.
pub fn value_behind_name(text: &[u8], at: usize) -> Behind {
    let mut reader = Reader { text, at };
    // Names are trimmed.
    while reader.peek().is_some_and(|b| b.is_ascii_whitespace()) {
        reader.at += 1;
    }
    match reader.peek() {
        Some(b'"') => reader.at += 1,
        Some(b'\\') => return Behind::Unclear,
        _ => return Behind::Nothing,
    }
    reader.blanks();
    if !reader.eat(b':') {
        return Behind::Nothing;
    }
    reader.blanks();
    if matches!(reader.peek(), Some(b'{' | b'[')) {
        return Behind::Nothing;
    }
    match reader.value() {
        Ok(Value::Text(range, false) | Value::Plain(range)) => Behind::Value(range),
        Ok(Value::Text(_, true)) => Behind::Unclear,
        Ok(Value::Null | Value::Object(_) | Value::Array(_)) | Err(_) => Behind::Nothing,
    }
}

/// What a half of a surrogate pair without the other half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoneSurrogate {
    Broken,
    Blank,
}

/// Appends the text of a JSON string (between its quotes) to `out`.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    unescape_with(raw, out, LoneSurrogate::Broken)
}

/// [`unescape`], with a choice for texts that only look like JSON's.
pub fn unescape_with(raw: &[u8], out: &mut Vec<u8>, lone: LoneSurrogate) -> Result<()> {
    const BROKEN: &str = "invalid escape in string";
    let mut rest = raw;
    while let Some(plain) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..plain]);
        let escape = *rest.get(plain + 1).ok_or(BROKEN)?;
        rest = &rest[plain + 2..];
        out.push(match escape {
            b'"' | b'\\' | b'/' | b'\'' => escape,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(rest).ok_or(BROKEN)?;
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&unit)
                    && rest.starts_with(b"\\u")
                    && let Some(low) = hex4(&rest[2..])
                    && (0xdc00..0xe000).contains(&low)
                {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    rest = &rest[6..];
                }
                let c = match char::from_u32(unit) {
                    Some(c) => c,
                    None if lone == LoneSurrogate::Blank => ' ',
                    None => return Err(BROKEN),
                };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(BROKEN),
        });
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..4)?;
    digits.iter().try_fold(0, |value, digit| {
        Some(value * 16 + char::from(*digit).to_digit(16)?)
    })
}
