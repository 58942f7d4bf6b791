//! Text of a query to tokens, one at a time.
//!
//! A broken token (an unterminated string, a bad range) is a token too: it becomes an error
//! only if the parser gets there, so that the first error in the text is the one reported.

use super::units;

/// Words that are never names.
const KEYWORDS: [&str; 26] = [
    "by",
    "without",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "or",
    "and",
    "unless",
    "json",
    "regexp",
    "logfmt",
    "unpack",
    "pattern",
    "label_format",
    "line_format",
    "decolorize",
    "drop",
    "keep",
    "unwrap",
    "variants",
    "of",
    "--strict",
    "--keep-empty",
];

/// Words that are functions when a parenthesis or a grouping follows, else names.
const FUNCTIONS: [&str; 33] = [
    "count_over_time",
    "rate",
    "bytes_over_time",
    "bytes_rate",
    "absent_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "first_over_time",
    "last_over_time",
    "rate_counter",
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "sort",
    "sort_desc",
    "approx_topk",
    "label_replace",
    "vector",
    "bytes",
    "duration",
    "duration_seconds",
    "ip",
];

const TWO_CHARACTERS: [&str; 10] = ["|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<="];

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    End,
    Ident(String),
    Text(String),
    Number(f64),
    /// Nanoseconds.
    Duration(i64),
    Bytes(u64),
    /// `[5m]`, nanoseconds.
    Range(i64),
    /// Operators, punctuation, keywords and flags, by their spelling in lower case.
    Symbol(&'static str),
    Function(&'static str),
    Broken(String),
}

impl Kind {
    /// How error texts call the token.
    pub fn describe(&self) -> String {
        match self {
            Self::End => "$end".to_owned(),
            Self::Ident(_) => "IDENTIFIER".to_owned(),
            Self::Text(_) => "STRING".to_owned(),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Duration(_) => "DURATION".to_owned(),
            Self::Bytes(_) => "BYTES".to_owned(),
            Self::Range(_) => "RANGE".to_owned(),
            Self::Symbol(text) | Self::Function(text) => (*text).to_owned(),
            Self::Broken(text) => text.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    /// 0 for ranges, flags, durations, sizes and operators of two characters: Loki's scanner
    /// forgets the line there, and its clients have got used to it.
    pub line: u32,
    pub col: u32,
}

pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    col: u32,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            col: 1,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves over `len` bytes, counting lines and columns.
    fn advance(&mut self, len: usize) {
        for c in self.rest()[..len].chars() {
            if c == '\n' {
                self.line += 1;
                self.col = 1;
            } else {
                self.col += 1;
            }
        }
        self.at += len;
    }

    pub fn next(&mut self) -> Token {
        if let Some(broken) = self.skip_blanks() {
            return broken;
        }
        let (line, col) = (self.line, self.col);
        let start = self.at;
        let (kind, has_line) = self.kind();
        debug_assert!(self.at > start || kind == Kind::End);
        Token {
            kind,
            line: if has_line { line } else { 0 },
            col,
        }
    }

    /// Skips white space and comments; a comment without an end is a broken token.
    fn skip_blanks(&mut self) -> Option<Token> {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            self.advance(blanks);
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else {
                let inner = rest.strip_prefix("/*")?;
                let Some(end) = inner.find("*/") else {
                    let token = Token {
                        kind: Kind::Broken("comment not terminated".to_owned()),
                        line: self.line,
                        col: self.col,
                    };
                    self.advance(rest.len());
                    return Some(token);
                };
                self.advance(end + 4);
            }
        }
    }

    /// The token at hand, and whether its line is known.
    fn kind(&mut self) -> (Kind, bool) {
        let rest = self.rest();
        let Some(first) = self.peek() else {
            return (Kind::End, true);
        };
        match first {
            'a'..='z' | 'A'..='Z' | '_' => (self.word(), true),
            '"' => (self.quoted(), true),
            '`' => (self.raw(), true),
            '[' => (self.range(), false),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '-' => self.minus(),
            _ => {
                if let Some(op) = TWO_CHARACTERS.iter().find(|op| rest.starts_with(**op)) {
                    self.advance(2);
                    return (Kind::Symbol(op), false);
                }
                self.advance(first.len_utf8());
                let symbol = match first {
                    '{' => "{",
                    '}' => "}",
                    '(' => "(",
                    ')' => ")",
                    ',' => ",",
                    '|' => "|",
                    '=' => "=",
                    '>' => ">",
                    '<' => "<",
                    '+' => "+",
                    '*' => "*",
                    '/' => "/",
                    '%' => "%",
                    '^' => "^",
                    other => {
                        let text = format!("syntax error: unexpected {other:?}");
                        return (Kind::Broken(text), true);
                    }
                };
                (Kind::Symbol(symbol), true)
            }
        }
    }

    fn word(&mut self) -> Kind {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let word = &rest[..len];
        self.advance(len);
        if let Some(keyword) = KEYWORDS.iter().find(|k| k.eq_ignore_ascii_case(word)) {
            return Kind::Symbol(keyword);
        }
        if let Some(function) = FUNCTIONS.iter().find(|f| f.eq_ignore_ascii_case(word))
            && self.call_follows()
        {
            return Kind::Function(function);
        }
        Kind::Ident(word.to_owned())
    }

    /// Whether `(`, `by (` or `without (` comes next.
    fn call_follows(&self) -> bool {
        let rest = self.rest().trim_start();
        if rest.starts_with('(') {
            return true;
        }
        ["by", "without"].iter().any(|word| {
            let head = rest.get(..word.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(word))
                && rest[word.len()..].trim_start().starts_with('(')
        })
    }

    /// `-`, a flag, or a negative duration.
    fn minus(&mut self) -> (Kind, bool) {
        let rest = self.rest();
        for flag in ["--strict", "--keep-empty"] {
            let after = rest.strip_prefix(flag);
            if after.is_some_and(|after| {
                !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            }) {
                self.advance(flag.len());
                return (Kind::Symbol(flag), false);
            }
        }
        let len = 1 + rest[1..]
            .find(|c: char| !is_duration_char(c))
            .unwrap_or(rest.len() - 1);
        if let Some(nanos) = units::query_duration(&rest[..len])
            && len > 1
            // "-0" is a number.
            && rest[..len].ends_with(|c: char| c.is_ascii_alphabetic())
        {
            self.advance(len);
            return (Kind::Duration(nanos), false);
        }
        self.advance(1);
        (Kind::Symbol("-"), true)
    }

    /// A number, or a duration or size that begins with one.
    fn number(&mut self) -> (Kind, bool) {
        let rest = self.rest();
        let digits = |from: usize| {
            rest[from..]
                .find(|c: char| !(c.is_ascii_digit() || c == '_'))
                .unwrap_or(rest.len() - from)
        };
        let mut len = digits(0);
        if rest[len..].starts_with('.') {
            len += 1 + digits(len + 1);
        }
        if rest[len..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
            let exponent = digits(len + 1 + sign);
            if exponent > 0 {
                len += 1 + sign + exponent;
            }
        }
        let tail = |accepted: fn(char) -> bool| {
            rest[len..]
                .find(|c: char| !accepted(c))
                .unwrap_or(rest.len() - len)
        };
        let duration = tail(is_duration_char);
        if duration > 0
            && let Some(nanos) = units::query_duration(&rest[..len + duration])
        {
            self.advance(len + duration);
            return (Kind::Duration(nanos), false);
        }
        let size = tail(|c| matches!(c, 'B' | 'i' | 'k' | 'K' | 'M' | 'G' | 'T' | 'P'));
        if size > 0
            && let Some(bytes) = units::byte_size(&rest[..len + size])
        {
            self.advance(len + size);
            return (Kind::Bytes(bytes), false);
        }
        let text = &rest[..len];
        self.advance(len);
        let underscores_separate_digits =
            !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
        match text.replace('_', "").parse::<f64>() {
            Ok(value) if value.is_finite() && underscores_separate_digits => {
                (Kind::Number(value), true)
            }
            _ => (
                Kind::Broken(format!("unable to parse {text} as a number")),
                true,
            ),
        }
    }

    /// `[5m]`.
    fn range(&mut self) -> Kind {
        let rest = self.rest();
        let Some(end) = rest.find(']') else {
            self.advance(rest.len());
            return Kind::Broken("missing closing ']' in duration".to_owned());
        };
        let inner = &rest[1..end];
        self.advance(end + 1);
        match units::prometheus_duration(inner) {
            Some(nanos) => Kind::Range(nanos),
            None if inner.is_empty() => Kind::Broken("empty duration string".to_owned()),
            None => Kind::Broken(format!("not a valid duration string: {inner:?}")),
        }
    }

    /// `` `…` ``.
    fn raw(&mut self) -> Kind {
        let rest = self.rest();
        let Some(end) = rest[1..].find('`') else {
            self.advance(rest.len());
            return Kind::Broken("literal not terminated".to_owned());
        };
        self.advance(end + 2);
        // Carriage returns are not part of Go's raw strings.
        Kind::Text(rest[1..=end].replace('\r', ""))
    }

    /// `"…"`.
    fn quoted(&mut self) -> Kind {
        let rest = self.rest();
        match unquote(rest) {
            Ok((text, len)) => {
                self.advance(len);
                Kind::Text(text)
            }
            Err(message) => {
                self.advance(rest.len());
                Kind::Broken(message.to_owned())
            }
        }
    }
}

fn is_duration_char(c: char) -> bool {
    matches!(
        c,
        '0'..='9' | '.' | 'n' | 'u' | 'µ' | 'μ' | 'm' | 's' | 'h' | 'd' | 'w' | 'y'
    )
}

/// Reads the double-quoted Go string that `text` begins with: its value, and its length with
/// quotes.
pub fn unquote(text: &str) -> Result<(String, usize), &'static str> {
    let (out, len) = unquote_bytes(text)?;
    let text = String::from_utf8(out).map_err(|_| "string is not valid UTF-8")?;
    Ok((text, len))
}

/// [`unquote`] where `\xff` may stand for what is not UTF-8.
pub fn unquote_bytes(text: &str) -> Result<(Vec<u8>, usize), &'static str> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return Err("expected a quoted string");
    }
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        let plain = bytes[at..]
            .iter()
            .position(|b| matches!(b, b'"' | b'\\' | b'\n'))
            .ok_or("literal not terminated")?;
        out.extend_from_slice(&bytes[at..at + plain]);
        at += plain;
        match bytes[at] {
            b'"' => break,
            b'\n' => return Err("literal not terminated"),
            _ => at += 1,
        }
        let escape = *bytes.get(at).ok_or("literal not terminated")?;
        at += 1;
        let simple = match escape {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' => b'\\',
            b'"' => b'"',
            _ => 0,
        };
        if simple != 0 {
            out.push(simple);
            continue;
        }
        let (start, len, radix) = match escape {
            b'x' => (at, 2, 16),
            b'u' => (at, 4, 16),
            b'U' => (at, 8, 16),
            b'0'..=b'7' => (at - 1, 3, 8),
            _ => return Err("invalid char escape"),
        };
        let digits = bytes.get(start..start + len).ok_or("invalid char escape")?;
        let mut value: u32 = 0;
        for digit in digits {
            let digit = char::from(*digit)
                .to_digit(radix)
                .ok_or("invalid char escape")?;
            value = value.wrapping_mul(radix) + digit;
        }
        at = start + len;
        if len > 3 {
            let c = char::from_u32(value).ok_or("escape is invalid Unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(u8::try_from(value).map_err(|_| "octal escape value is more than 255")?);
        }
    }
    Ok((out, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[Kind]) {
        let mut lexer = Lexer::new(text);
        let mut kinds = Vec::new();
        loop {
            let token = lexer.next();
            if token.kind == Kind::End {
                break;
            }
            kinds.push(token.kind);
        }
        assert_eq!(kinds, expected, "{text}");
    }

    #[test]
    fn a_function_name_without_a_call_is_a_name() {
        check(
            "rate > sum(",
            &[
                Kind::Ident("rate".into()),
                Kind::Symbol(">"),
                Kind::Function("sum"),
                Kind::Symbol("("),
            ],
        );
        check(
            "SUM By (",
            &[Kind::Function("sum"), Kind::Symbol("by"), Kind::Symbol("(")],
        );
    }

    #[test]
    fn units_belong_to_the_number_they_touch() {
        check("5s", &[Kind::Duration(5_000_000_000)]);
        check("-5s", &[Kind::Duration(-5_000_000_000)]);
        check("5 s", &[Kind::Number(5.0), Kind::Ident("s".into())]);
        check("1.5d", &[Kind::Number(1.5), Kind::Ident("d".into())]);
        check("10KB 5Mi", &[Kind::Bytes(10_000), Kind::Bytes(5 << 20)]);
        check("-1", &[Kind::Symbol("-"), Kind::Number(1.0)]);
        check(
            "1e3 1_000 .5 1.",
            &[1000.0, 1000.0, 0.5, 1.0].map(Kind::Number),
        );
    }

    #[test]
    fn strings_have_the_escapes_of_go() {
        check(
            r#""\x41\101\u00e9\U0001F600\t\xc3\xa9""#,
            &[Kind::Text("AAé😀\té".into())],
        );
        for bad in [
            r#""\q""#,
            r#""a"#,
            "\"a\nb\"",
            r#""\x4""#,
            r#""\ud800""#,
            r#""\xff""#,
        ] {
            assert!(
                matches!(Lexer::new(bad).next().kind, Kind::Broken(_)),
                "{bad}"
            );
        }
    }
}
