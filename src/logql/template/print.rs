//! Values as text: what Go's `fmt` makes of them, plain and by the verbs of `printf`.
//!
//! P1. No text is longer than [`MAX_TEXT`]; what would be is an error.

use super::float;
use super::value::{IntType, Value};
use crate::logql::units;
use crate::model::labels::is_printable;

/// Longest text that a function may make, and longest output of a template, bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Largest width, precision and argument index, as in Go.
const MAX_NUMBER: usize = 1_000_000;

/// What a text would be that is longer than [`MAX_TEXT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The labels of the entry, for printing `.`; in the order of their names.
pub type Labels<'l> = &'l dyn Fn() -> Vec<(String, Vec<u8>)>;

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    width: Option<usize>,
    precision: Option<usize>,
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    /// `%+v` and `%#v`.
    plus_v: bool,
    sharp_v: bool,
}

pub struct Printer<'l> {
    out: Vec<u8>,
    full: bool,
    flags: Flags,
    labels: Labels<'l>,
}

/// As Go's `fmt.Sprint`: a blank between two values that are no texts.
pub fn sprint(values: &[Value<'_>], labels: Labels<'_>) -> Result<Vec<u8>, TooLong> {
    let mut printer = Printer::new(labels);
    let mut after_text = true;
    for (i, value) in values.iter().enumerate() {
        let is_text = matches!(value, Value::Text(_));
        if i > 0 && !is_text && !after_text {
            printer.push(b" ");
        }
        printer.value(value, 'v');
        after_text = is_text;
    }
    printer.finish()
}

/// As Go's `fmt.Sprintln`: blanks between, a line's end behind.
pub fn sprintln(values: &[Value<'_>], labels: Labels<'_>) -> Result<Vec<u8>, TooLong> {
    let mut printer = Printer::new(labels);
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            printer.push(b" ");
        }
        printer.value(value, 'v');
    }
    printer.push(b"\n");
    printer.finish()
}

/// As Go's `fmt.Sprintf`. What does not fit is told in the text: `%!d(string=x)`.
pub fn sprintf(
    format: &[u8],
    values: &[Value<'_>],
    labels: Labels<'_>,
) -> Result<Vec<u8>, TooLong> {
    let mut printer = Printer::new(labels);
    printer.format(format, values);
    printer.finish()
}

/// The state of reading a format.
struct Cursor<'f> {
    format: &'f [u8],
    at: usize,
    next: usize,
    reordered: bool,
    good: bool,
    after_index: bool,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.format.get(self.at).copied()
    }

    /// Digits at hand; a number that is too large ends the format.
    fn number(&mut self) -> Option<usize> {
        let start = self.at;
        let mut value = 0usize;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if value > MAX_NUMBER {
                self.at = self.format.len();
                return None;
            }
            value = value * 10 + usize::from(digit - b'0');
            self.at += 1;
        }
        (self.at > start).then_some(value)
    }

    /// `[n]`: which argument comes next.
    fn index(&mut self, count: usize) {
        self.after_index = false;
        if self.peek() != Some(b'[') {
            return;
        }
        self.reordered = true;
        let rest = &self.format[self.at..];
        let Some(close) = rest
            .iter()
            .position(|b| *b == b']')
            .filter(|_| rest.len() >= 3)
        else {
            self.at += 1;
            self.good = false;
            return;
        };
        let digits = &rest[1..close];
        let number: Option<usize> = std::str::from_utf8(digits)
            .ok()
            .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|d| d.parse().ok())
            .filter(|n| *n <= MAX_NUMBER);
        self.at += close + 1;
        match number.and_then(|n| n.checked_sub(1)) {
            Some(index) if index < count => {
                self.next = index;
                self.after_index = true;
            }
            // A number that is none of an argument still counts as an index.
            Some(_) => {
                self.good = false;
                self.after_index = true;
            }
            None => {
                self.good = false;
                self.after_index = number.is_some();
            }
        }
    }

    /// `*`: a width or precision from the arguments.
    fn star(&mut self, values: &[Value<'_>]) -> Option<i64> {
        let value = values.get(self.next);
        self.next += usize::from(value.is_some());
        match value {
            Some(Value::Int(n, _)) if n.unsigned_abs() <= MAX_NUMBER as u64 => Some(*n),
            _ => None,
        }
    }
}

impl<'l> Printer<'l> {
    fn new(labels: Labels<'l>) -> Self {
        Self {
            out: Vec::new(),
            full: false,
            flags: Flags::default(),
            labels,
        }
    }

    fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.full {
            Err(TooLong)
        } else {
            Ok(self.out)
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.full || self.out.len() + bytes.len() > MAX_TEXT {
            self.full = true;
            return;
        }
        self.out.extend_from_slice(bytes);
    }

    fn fill(&mut self, count: usize, byte: u8) {
        if self.full || self.out.len() + count > MAX_TEXT {
            self.full = true;
            return;
        }
        self.out.resize(self.out.len() + count, byte);
    }

    fn format(&mut self, format: &[u8], values: &[Value<'_>]) {
        let mut cursor = Cursor {
            format,
            at: 0,
            next: 0,
            reordered: false,
            good: true,
            after_index: false,
        };
        while cursor.at < format.len() && !self.full {
            let rest = &format[cursor.at..];
            let literal = memchr::memchr(b'%', rest).unwrap_or(rest.len());
            self.push(&rest[..literal]);
            cursor.at += literal;
            if cursor.at < format.len() {
                cursor.at += 1;
                self.directive(&mut cursor, values);
            }
        }
        if !cursor.reordered && cursor.next < values.len() {
            self.flags = Flags::default();
            self.push(b"%!(EXTRA ");
            for (i, value) in values[cursor.next..].iter().enumerate() {
                if i > 0 {
                    self.push(b", ");
                }
                if value.is_nil() {
                    self.push(b"<nil>");
                } else {
                    self.push(value.type_name().as_bytes());
                    self.push(b"=");
                    self.value(value, 'v');
                }
            }
            self.push(b")");
        }
    }

    /// What stands behind a `%`.
    fn directive(&mut self, cursor: &mut Cursor<'_>, values: &[Value<'_>]) {
        self.flags = Flags::default();
        cursor.good = true;
        while let Some(flag) = cursor.peek() {
            match flag {
                b'#' => self.flags.sharp = true,
                b'0' => self.flags.zero = true,
                b'+' => self.flags.plus = true,
                b'-' => self.flags.minus = true,
                b' ' => self.flags.space = true,
                _ => break,
            }
            cursor.at += 1;
        }
        cursor.index(values.len());
        if cursor.peek() == Some(b'*') {
            cursor.at += 1;
            match cursor.star(values) {
                Some(width) => {
                    self.flags.width = Some(width.unsigned_abs() as usize);
                    if width < 0 {
                        self.flags.minus = true;
                        self.flags.zero = false;
                    }
                }
                None => self.push(b"%!(BADWIDTH)"),
            }
            cursor.after_index = false;
        } else {
            self.flags.width = cursor.number();
            if cursor.after_index && self.flags.width.is_some() {
                cursor.good = false;
            }
        }
        if cursor.peek() == Some(b'.') {
            cursor.at += 1;
            if cursor.after_index {
                cursor.good = false;
            }
            cursor.index(values.len());
            if cursor.peek() == Some(b'*') {
                cursor.at += 1;
                match cursor.star(values) {
                    Some(precision) => self.flags.precision = usize::try_from(precision).ok(),
                    None => self.push(b"%!(BADPREC)"),
                }
                cursor.after_index = false;
            } else {
                self.flags.precision = Some(cursor.number().unwrap_or(0));
            }
        }
        if !cursor.after_index {
            cursor.index(values.len());
        }
        let rest = &cursor.format[cursor.at..];
        if rest.is_empty() {
            self.push(b"%!(NOVERB)");
            return;
        }
        let (verb, len) = first_char(rest);
        cursor.at += len;
        let mut buffer = [0; 4];
        let verb_text = verb.encode_utf8(&mut buffer).as_bytes();
        let complain = |printer: &mut Self, what: &[u8]| {
            printer.push(b"%!");
            printer.push(verb_text);
            printer.push(what);
        };
        if verb == '%' {
            self.push(b"%");
        } else if !cursor.good {
            complain(self, b"(BADINDEX)");
        } else if cursor.next >= values.len() {
            complain(self, b"(MISSING)");
        } else {
            if verb == 'v' {
                self.flags.sharp_v = std::mem::take(&mut self.flags.sharp);
                self.flags.plus_v = std::mem::take(&mut self.flags.plus);
            }
            self.argument(&values[cursor.next], verb);
            cursor.next += 1;
        }
    }

    fn argument(&mut self, value: &Value<'_>, verb: char) {
        match (value, verb) {
            (value, 'v') if value.is_nil() => self.pad(b"<nil>"),
            (value, 'T') if value.is_nil() => self.string(b"<nil>", 's'),
            (value, 'T') => self.string(value.type_name().as_bytes(), 's'),
            (value, _) if value.is_nil() => self.bad(None, verb),
            (value, 'p') => self.bad(Some(value), verb),
            _ => self.value(value, verb),
        }
    }

    /// `%!d(string=x)`: a verb that is not for this type.
    fn bad(&mut self, value: Option<&Value<'_>>, verb: char) {
        let mut buffer = [0; 4];
        self.push(b"%!");
        self.push(verb.encode_utf8(&mut buffer).as_bytes());
        self.push(b"(");
        match value {
            Some(value) => {
                self.push(value.type_name().as_bytes());
                self.push(b"=");
                self.value(value, 'v');
            }
            None => self.push(b"<nil>"),
        }
        self.push(b")");
    }

    fn value(&mut self, value: &Value<'_>, verb: char) {
        if self.full {
            return;
        }
        match value {
            Value::Missing | Value::Null if self.flags.sharp_v => self.push(b"interface {}(nil)"),
            Value::Missing | Value::Null => self.push(b"<nil>"),
            Value::Bool(flag) => match verb {
                't' | 'v' => self.pad(if *flag { b"true" } else { b"false" }),
                _ => self.bad(Some(value), verb),
            },
            Value::Int(n, kind) => {
                let name = int_name(*n, *kind).filter(|_| !self.flags.sharp_v);
                match (name, verb) {
                    (Some(name), 'v' | 's' | 'x' | 'X' | 'q') => {
                        self.string(name.as_bytes(), if verb == 'v' { 's' } else { verb });
                    }
                    _ => self.int(value, *n, *kind, verb),
                }
            }
            Value::Float(x) => self.float(value, *x, verb),
            Value::Text(text) => match verb {
                'v' if self.flags.sharp_v => self.string(text, 'q'),
                'v' => self.string(text, 's'),
                's' | 'x' | 'X' | 'q' => self.string(text, verb),
                _ => self.bad(Some(value), verb),
            },
            Value::Time(time) => {
                let text = time.print();
                match verb {
                    'v' => self.string(text.as_bytes(), 's'),
                    's' | 'x' | 'X' | 'q' => self.string(text.as_bytes(), verb),
                    _ => self.bad(Some(value), verb),
                }
            }
            Value::List(items) => {
                let braces = self.open(value, b"[");
                for (i, item) in items.iter().enumerate() {
                    self.separate(i);
                    self.value(item, verb);
                }
                self.push(if braces { b"}" } else { b"]" });
            }
            Value::Map(map) => {
                let braces = self.open(value, b"map[");
                for (i, (name, item)) in map.iter().enumerate() {
                    self.separate(i);
                    self.value(&Value::Text(super::value::Text::Borrowed(name)), verb);
                    self.push(b":");
                    self.value(item, verb);
                }
                self.push(if braces { b"}" } else { b"]" });
            }
            Value::Labels => {
                let braces = self.open(value, b"map[");
                for (i, (name, item)) in (self.labels)().into_iter().enumerate() {
                    self.separate(i);
                    self.value(&Value::text(name), verb);
                    self.push(b":");
                    self.value(&Value::text(item), verb);
                }
                self.push(if braces { b"}" } else { b"]" });
            }
        }
    }

    /// The begin of a list or map; true when it is written as Go source.
    fn open(&mut self, value: &Value<'_>, plain: &[u8]) -> bool {
        if self.flags.sharp_v {
            self.push(value.type_name().as_bytes());
            self.push(b"{");
        } else {
            self.push(plain);
        }
        self.flags.sharp_v
    }

    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.push(if self.flags.sharp_v { b", " } else { b" " });
        }
    }

    /// Blanks, or zeros on the left, up to the width, which counts characters.
    fn pad(&mut self, text: &[u8]) {
        let missing = match self.flags.width {
            Some(width) => width.saturating_sub(count_chars(text)),
            None => 0,
        };
        if self.flags.minus {
            self.push(text);
            self.fill(missing, b' ');
        } else {
            self.fill(missing, if self.flags.zero { b'0' } else { b' ' });
            self.push(text);
        }
    }

    fn pad_blank(&mut self, text: &[u8]) {
        let zero = std::mem::take(&mut self.flags.zero);
        self.pad(text);
        self.flags.zero = zero;
    }

    fn string(&mut self, text: &[u8], verb: char) {
        match verb {
            'x' | 'X' => return self.hex(text, verb == 'X'),
            _ => {}
        }
        let text = match self.flags.precision {
            Some(precision) => &text[..bytes_of_chars(text, precision)],
            None => text,
        };
        if verb != 'q' {
            return self.pad(text);
        }
        let can_backquote = || {
            std::str::from_utf8(text).is_ok_and(|t| {
                t.chars()
                    .all(|c| c == '\t' || (c >= ' ' && c != '`' && c != '\x7f' && c != '\u{feff}'))
            })
        };
        let quoted = if self.flags.sharp && can_backquote() {
            [b"`", text, b"`"].concat()
        } else {
            quote(text, '"', self.flags.plus)
        };
        self.pad(&quoted);
    }

    fn hex(&mut self, text: &[u8], upper: bool) {
        let text = &text[..text.len().min(self.flags.precision.unwrap_or(usize::MAX))];
        let digits: &[u8; 16] = if upper {
            b"0123456789ABCDEF"
        } else {
            b"0123456789abcdef"
        };
        let prefix: &[u8] = if upper { b"0X" } else { b"0x" };
        let mut out = Vec::with_capacity(2 * text.len());
        for (i, byte) in text.iter().enumerate() {
            if self.flags.space && i > 0 {
                out.push(b' ');
            }
            if self.flags.sharp && (self.flags.space || i == 0) {
                out.extend_from_slice(prefix);
            }
            out.push(digits[usize::from(byte >> 4)]);
            out.push(digits[usize::from(byte & 15)]);
        }
        self.pad(&out);
    }

    fn int(&mut self, value: &Value<'_>, n: i64, kind: IntType, verb: char) {
        let c = || {
            u32::try_from(n)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        match verb {
            'v' if self.flags.sharp_v && kind == IntType::Uint8 => {
                self.flags.sharp = true;
                self.integer(n, 16, 'v');
            }
            'v' | 'd' => self.integer(n, 10, verb),
            'b' => self.integer(n, 2, verb),
            'o' | 'O' => self.integer(n, 8, verb),
            'x' | 'X' => self.integer(n, 16, verb),
            'c' => {
                let mut buffer = [0; 4];
                self.pad(c().encode_utf8(&mut buffer).as_bytes());
            }
            'q' => {
                let mut buffer = [0; 4];
                let text = c().encode_utf8(&mut buffer).as_bytes().to_vec();
                let quoted = quote(&text, '\'', self.flags.plus);
                self.pad(&quoted);
            }
            'U' => {
                let width = self.flags.precision.unwrap_or(4).max(4);
                let digits = format!("{:X}", n as u64);
                let mut text = b"U+".to_vec();
                text.extend(std::iter::repeat_n(
                    b'0',
                    width.saturating_sub(digits.len()),
                ));
                text.extend_from_slice(digits.as_bytes());
                if self.flags.sharp && char::from_u32(n as u32).is_some_and(is_printable) {
                    text.extend_from_slice(format!(" '{}'", c()).as_bytes());
                }
                self.pad_blank(&text);
            }
            _ => self.bad(Some(value), verb),
        }
    }

    fn integer(&mut self, n: i64, base: u32, verb: char) {
        let flags = self.flags;
        let negative = n < 0;
        let signed = negative || flags.plus || flags.space;
        let digits_wanted = match flags.precision {
            Some(0) if n == 0 => {
                // Nothing but the width, in blanks.
                return self.pad_blank(b"");
            }
            Some(precision) => precision,
            None => match flags.width {
                Some(width) if flags.zero && !flags.minus => {
                    width.saturating_sub(usize::from(signed))
                }
                _ => 0,
            },
        };
        let n = n.unsigned_abs();
        let digits = match (base, verb) {
            (2, _) => format!("{n:b}"),
            (8, _) => format!("{n:o}"),
            (16, 'X') => format!("{n:X}"),
            (16, _) => format!("{n:x}"),
            _ => n.to_string(),
        };
        let mut text = Vec::with_capacity(digits.len() + 4);
        if negative {
            text.push(b'-');
        } else if flags.plus {
            text.push(b'+');
        } else if flags.space {
            text.push(b' ');
        }
        let zeros = digits_wanted.saturating_sub(digits.len());
        if flags.sharp {
            match base {
                2 => text.extend_from_slice(b"0b"),
                8 if zeros == 0 && !digits.starts_with('0') => text.push(b'0'),
                16 => text.extend_from_slice(if verb == 'X' { b"0X" } else { b"0x" }),
                _ => {}
            }
        }
        if verb == 'O' {
            text.extend_from_slice(b"0o");
        }
        text.extend(std::iter::repeat_n(b'0', zeros));
        text.extend_from_slice(digits.as_bytes());
        self.pad_blank(&text);
    }

    fn float(&mut self, value: &Value<'_>, x: f64, verb: char) {
        let precision = self.flags.precision;
        let text = match verb {
            'v' | 'g' => float::format(x, b'g', precision),
            'G' => float::format(x, b'G', precision),
            'e' | 'E' => float::format(x, verb as u8, Some(precision.unwrap_or(6))),
            'f' | 'F' => float::format(x, b'f', Some(precision.unwrap_or(6))),
            'x' | 'X' => float::hexadecimal(x, verb == 'X'),
            'b' => float::binary(x),
            _ => return self.bad(Some(value), verb),
        };
        let text = if self.flags.sharp && verb != 'b' && x.is_finite() {
            float::alternate(&text, verb, precision)
        } else {
            text
        };
        let (sign, digits) = match text.as_bytes() {
            [sign @ (b'+' | b'-'), digits @ ..] => (*sign, digits),
            digits => (b'+', digits),
        };
        let flags = self.flags;
        let shown = match sign {
            b'+' if flags.plus => Some(b'+'),
            b'+' if flags.space => Some(b' '),
            // Infinity is always written with its sign.
            b'+' if digits == b"Inf" => Some(b'+'),
            b'+' => None,
            other => Some(other),
        };
        let mut text = Vec::with_capacity(digits.len() + 1);
        text.extend(shown);
        text.extend_from_slice(digits);
        if matches!(digits, b"Inf" | b"NaN") {
            return self.pad_blank(&text);
        }
        match (flags.width, shown) {
            // Zeros go behind the sign.
            (Some(width), Some(sign)) if flags.zero && !flags.minus && width > text.len() => {
                self.push(&[sign]);
                self.fill(width - text.len(), b'0');
                self.push(digits);
            }
            _ => self.pad(&text),
        }
    }
}

/// Types that print as words.
fn int_name(n: i64, kind: IntType) -> Option<String> {
    match kind {
        IntType::Month => {
            let index = usize::try_from(n - 1).ok()?;
            Some((*super::time::MONTHS.get(index)?).to_owned())
        }
        IntType::Weekday => {
            let index = usize::try_from(n).ok()?;
            Some((*super::time::WEEKDAYS.get(index)?).to_owned())
        }
        IntType::Duration => Some(units::format_go_duration(n)),
        IntType::Int | IntType::Int64 | IntType::Uint8 => None,
    }
}

/// Characters, each byte that is not UTF-8 counted as one.
pub fn count_chars(text: &[u8]) -> usize {
    text.utf8_chunks()
        .map(|chunk| chunk.valid().chars().count() + chunk.invalid().len())
        .sum()
}

/// Bytes of the first `count` characters.
pub fn bytes_of_chars(text: &[u8], count: usize) -> usize {
    if count >= text.len() {
        return text.len();
    }
    let mut at = 0;
    for _ in 0..count {
        if at >= text.len() {
            break;
        }
        at += first_char(&text[at..]).1;
    }
    at
}

/// The first character of what is not empty, and its bytes; U+FFFD for a byte that begins none.
pub fn first_char(text: &[u8]) -> (char, usize) {
    for len in 1..=text.len().min(4) {
        if let Ok(valid) = std::str::from_utf8(&text[..len])
            && let Some(c) = valid.chars().next()
        {
            return (c, len);
        }
    }
    (char::REPLACEMENT_CHARACTER, 1)
}

/// As Go's `strconv.Quote`, with bytes that are not UTF-8 as `\xff`.
pub fn quote(text: &[u8], mark: char, ascii: bool) -> Vec<u8> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if c == mark || c == '\\' => {
                    out.push('\\');
                    out.push(c);
                }
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x0b' => out.push_str("\\v"),
                c if is_printable(c) && (c.is_ascii() || !ascii) => out.push(c),
                c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push_str(&format!("\\U{:08x}", c as u32)),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push(mark);
    out.into_bytes()
}
