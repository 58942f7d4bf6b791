//! Regular expressions as RE2 and Go write them, run by the `regex` crate.
//!
//! Both are linear-time automata and agree on nearly everything. What differs is translated
//! here: `\d \w \s \b` are ASCII in RE2, `[` inside a class and a `{` that repeats nothing
//! are literals, `\Q…\E` quotes. What neither RE2 nor Go knows (class operators, nested
//! classes, `(?x)`, `\<`) must not slip through with the meaning that `regex` gives it.

use std::fmt;

use regex_syntax::hir::{Hir, HirKind};

use crate::model::labels::{MatchOp, Matcher};
use crate::model::need::Need;

/// Compiled size of one regex, bytes. A query may hold many.
const SIZE_LIMIT: usize = 4 << 20;
/// The same for regexes that templates make from labels, one for each line if they want.
const TEMPLATE_SIZE_LIMIT: usize = 1 << 20;
/// Cache of the lazy automaton of one regex, bytes.
const DFA_SIZE_LIMIT: usize = 2 << 20;
/// Groups within groups.
const NEST_LIMIT: u32 = 100;
/// Largest count of a repetition, as in Go.
const MAX_REPEAT: u32 = 1000;

/// What `.` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    MatchesNewline,
    ExceptNewline,
}

/// Why a pattern is not a regex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    pattern: String,
    reason: String,
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "error parsing regexp: {}: `{}`",
            self.reason, self.pattern
        )
    }
}

impl std::error::Error for RegexError {}

fn fail(pattern: &str, reason: impl Into<String>) -> RegexError {
    RegexError {
        pattern: pattern.to_owned(),
        reason: reason.into(),
    }
}

/// For lines: searched anywhere, `.` does not match a newline.
pub fn for_lines(pattern: &str) -> Result<regex::bytes::Regex, RegexError> {
    build_bytes(pattern, SIZE_LIMIT)
}

/// For functions of templates: as for lines.
pub fn for_templates(pattern: &str) -> Result<regex::bytes::Regex, RegexError> {
    build_bytes(pattern, TEMPLATE_SIZE_LIMIT)
}

fn build_bytes(pattern: &str, size_limit: usize) -> Result<regex::bytes::Regex, RegexError> {
    let translated = translate(pattern)?;
    regex::bytes::RegexBuilder::new(&translated)
        .size_limit(size_limit)
        .dfa_size_limit(DFA_SIZE_LIMIT.min(size_limit))
        .nest_limit(NEST_LIMIT)
        .octal(true)
        .build()
        .map_err(|e| build_error(pattern, &e))
}

/// For text such as label values: searched anywhere.
pub fn for_text(pattern: &str) -> Result<regex::Regex, RegexError> {
    build_text(pattern, &translate(pattern)?, Dot::ExceptNewline)
}

/// For label values: the whole value must match; `.` does not match a newline.
pub fn anchored(pattern: &str) -> Result<regex::Regex, RegexError> {
    anchored_with(pattern, Dot::ExceptNewline)
}

fn anchored_with(pattern: &str, dot: Dot) -> Result<regex::Regex, RegexError> {
    let translated = translate(pattern)?;
    // The parts are joined only when each is a regex by itself: `a)(b` is not.
    regex_syntax::ParserBuilder::new()
        .octal(true)
        .nest_limit(NEST_LIMIT)
        .build()
        .parse(&translated)
        .map_err(|e| syntax_error(pattern, &e))?;
    build_text(pattern, &format!("^(?:{translated})$"), dot)
}

fn build_text(pattern: &str, translated: &str, dot: Dot) -> Result<regex::Regex, RegexError> {
    regex::RegexBuilder::new(translated)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(DFA_SIZE_LIMIT)
        .nest_limit(NEST_LIMIT + 2)
        .octal(true)
        .dot_matches_new_line(dot == Dot::MatchesNewline)
        .build()
        .map_err(|e| build_error(pattern, &e))
}

fn build_error(pattern: &str, error: &regex::Error) -> RegexError {
    match error {
        regex::Error::CompiledTooBig(_) => fail(pattern, "expression is too large"),
        other => {
            // The crate draws a picture over several lines; its last line says what is wrong.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or("").trim();
            fail(pattern, last.strip_prefix("error: ").unwrap_or(last))
        }
    }
}

fn syntax_error(pattern: &str, error: &regex_syntax::Error) -> RegexError {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("").trim();
    fail(pattern, last.strip_prefix("error: ").unwrap_or(last))
}

/// A matcher with its regex, if it has one, compiled and anchored.
pub fn matcher(name: String, op: MatchOp, value: String, dot: Dot) -> Result<Matcher, RegexError> {
    let regex = match op {
        MatchOp::Equal | MatchOp::NotEqual => None,
        MatchOp::Regex | MatchOp::NotRegex => Some(anchored_with(&value, dot)?),
    };
    Ok(Matcher {
        name,
        op,
        value,
        regex,
    })
}

/// RE2 syntax to the syntax of the `regex` crate.
fn translate(pattern: &str) -> Result<String, RegexError> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // What repeats the last piece, if anything does.
    let mut repeated = "";
    while let Some(c) = rest.chars().next() {
        if let Some(len) = repetition_operator(rest) {
            if !repeated.is_empty() {
                let both = &pattern[pattern.len() - rest.len() - repeated.len()..];
                let both = &both[..repeated.len() + len];
                return Err(fail(both, "invalid nested repetition operator"));
            }
            repeated = &rest[..len];
        } else {
            repeated = "";
        }
        match c {
            '*' | '+' | '?' => {
                out.push_str(repeated);
                rest = &rest[repeated.len()..];
            }
            '\\' => rest = translate_escape(pattern, rest, &mut out)?,
            '[' => rest = translate_class(pattern, rest, &mut out)?,
            '(' => rest = translate_group(pattern, rest, &mut out)?,
            '{' => match repetition(rest) {
                Some(len) => {
                    let counts = &rest[1..len - 1];
                    let too_big = counts
                        .split(',')
                        .any(|n| !n.is_empty() && n.parse().is_ok_and(|n: u32| n > MAX_REPEAT));
                    if too_big || counts.len() > 9 {
                        return Err(fail(pattern, "invalid repeat count"));
                    }
                    out.push_str(repeated);
                    rest = &rest[repeated.len()..];
                }
                None => {
                    out.push_str("\\{");
                    rest = &rest[1..];
                }
            },
            '}' | ']' => {
                out.push('\\');
                out.push(c);
                rest = &rest[1..];
            }
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Ok(out)
}

/// Length of the repetition that `text` begins with, a `?` behind it included.
fn repetition_operator(text: &str) -> Option<usize> {
    let len = match text.as_bytes().first()? {
        b'*' | b'+' | b'?' => 1,
        b'{' => repetition(text)?,
        _ => return None,
    };
    Some(len + usize::from(text[len..].starts_with('?')))
}

/// Length of the `{n}`, `{n,}` or `{n,m}` that `text` begins with.
fn repetition(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let mut counts = text[1..end].split(',');
    let digits = |n: &str| n.bytes().all(|b| b.is_ascii_digit());
    let min = counts.next()?;
    let max = counts.next().unwrap_or("");
    (!min.is_empty() && digits(min) && digits(max) && counts.next().is_none()).then_some(end + 1)
}

/// Groups: Go's flags are `i`, `m`, `s` and `U`; it has no look-around.
fn translate_group<'p>(
    pattern: &str,
    rest: &'p str,
    out: &mut String,
) -> Result<&'p str, RegexError> {
    let Some(flags) = rest.strip_prefix("(?") else {
        out.push('(');
        return Ok(&rest[1..]);
    };
    if flags.starts_with("P<") || flags.starts_with('<') {
        let end = flags
            .find('>')
            .ok_or_else(|| fail(pattern, "invalid named capture"))?;
        let name = &flags[flags.find('<').map_or(0, |at| at + 1)..end];
        let valid =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(fail(pattern, "invalid named capture"));
        }
        // A name may begin with a digit in Go; here it then gets a group without a name's
        // checks, so it is refused by the crate with its own words.
        out.push_str("(?P<");
        out.push_str(name);
        out.push('>');
        return Ok(&flags[end + 1..]);
    }
    let len = flags
        .find([':', ')'])
        .ok_or_else(|| fail(pattern, "missing closing )"))?;
    if !flags[..len]
        .bytes()
        .all(|b| matches!(b, b'i' | b'm' | b's' | b'U' | b'-'))
    {
        return Err(fail(pattern, "invalid or unsupported Perl syntax"));
    }
    out.push_str("(?");
    out.push_str(&flags[..=len]);
    Ok(&flags[len + 1..])
}

/// An escape outside of a class.
fn translate_escape<'p>(
    pattern: &str,
    rest: &'p str,
    out: &mut String,
) -> Result<&'p str, RegexError> {
    let after = &rest[1..];
    let Some(c) = after.chars().next() else {
        return Err(fail(pattern, "trailing backslash at end of expression"));
    };
    let next = &after[c.len_utf8()..];
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\x0C\\r ]"),
        'S' => out.push_str("[^\\t\\n\\x0C\\r ]"),
        'b' => out.push_str("(?-u:\\b)"),
        'B' => out.push_str("(?-u:\\B)"),
        'A' | 'z' => {
            out.push('\\');
            out.push(c);
        }
        'Q' => {
            let (quoted, next) = match next.find("\\E") {
                Some(end) => (&next[..end], &next[end + 2..]),
                None => (next, ""),
            };
            out.push_str(&regex_syntax::escape(quoted));
            return Ok(next);
        }
        _ => return translate_character_escape(pattern, c, next, out),
    }
    Ok(next)
}

/// An escape that means the same inside and outside of a class.
fn translate_character_escape<'p>(
    pattern: &str,
    c: char,
    next: &'p str,
    out: &mut String,
) -> Result<&'p str, RegexError> {
    let invalid = || fail(pattern, format!("invalid escape sequence: \\{c}"));
    match c {
        'a' | 'f' | 't' | 'n' | 'r' | 'v' => {
            out.push('\\');
            out.push(c);
            Ok(next)
        }
        'x' => {
            let (digits, next) = match next.strip_prefix('{') {
                Some(inner) => {
                    let end = inner.find('}').ok_or_else(invalid)?;
                    (&inner[..end], &inner[end + 1..])
                }
                None => (next.get(..2).ok_or_else(invalid)?, &next[2..]),
            };
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            out.push_str(&format!("\\x{{{digits}}}"));
            Ok(next)
        }
        'p' | 'P' => {
            let (name, next) = match next.strip_prefix('{') {
                Some(inner) => {
                    let end = inner.find('}').ok_or_else(invalid)?;
                    (&inner[..end], &inner[end + 1..])
                }
                None => {
                    let len = next.chars().next().ok_or_else(invalid)?.len_utf8();
                    (&next[..len], &next[len..])
                }
            };
            let (name, flipped) = match name.strip_prefix('^') {
                Some(name) => (name, true),
                None => (name, false),
            };
            let letter = if (c == 'P') != flipped { 'P' } else { 'p' };
            out.push_str(&format!("\\{letter}{{{name}}}"));
            Ok(next)
        }
        '0' => {
            let len = next
                .bytes()
                .take(2)
                .take_while(|b| matches!(b, b'0'..=b'7'))
                .count();
            out.push_str(&format!("\\x{{{}}}", octal_as_hex(&next[..len])));
            Ok(&next[len..])
        }
        '1'..='7' => {
            // A single digit is a back-reference, which RE2 does not have.
            let len = next
                .bytes()
                .take(2)
                .take_while(|b| matches!(b, b'0'..=b'7'))
                .count();
            if len == 0 {
                return Err(invalid());
            }
            let digits = format!("{c}{}", &next[..len]);
            out.push_str(&format!("\\x{{{}}}", octal_as_hex(&digits)));
            Ok(&next[len..])
        }
        c if c.is_ascii_punctuation() => {
            let mut buffer = [0; 4];
            out.push_str(&regex_syntax::escape(c.encode_utf8(&mut buffer)));
            Ok(next)
        }
        _ => Err(invalid()),
    }
}

fn octal_as_hex(digits: &str) -> String {
    format!("{:x}", u32::from_str_radix(digits, 8).unwrap_or(0))
}

/// `[…]`: everything in it is a literal, an escape, a range or `[:name:]`.
fn translate_class<'p>(
    pattern: &str,
    rest: &'p str,
    out: &mut String,
) -> Result<&'p str, RegexError> {
    let mut rest = &rest[1..];
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        if !first && let Some(after) = rest.strip_prefix(']') {
            out.push(']');
            return Ok(after);
        }
        first = false;
        if rest.starts_with("[:")
            && let Some(end) = rest.find(":]")
        {
            out.push_str(&rest[..end + 2]);
            rest = &rest[end + 2..];
            continue;
        }
        let perl = match rest.get(..2) {
            Some("\\d") => "0-9",
            Some("\\D") => "[^0-9]",
            Some("\\w") => "0-9A-Za-z_",
            Some("\\W") => "[^0-9A-Za-z_]",
            Some("\\s") => "\\t\\n\\x0C\\r ",
            Some("\\S") => "[^\\t\\n\\x0C\\r ]",
            _ => "",
        };
        if !perl.is_empty() {
            out.push_str(perl);
            rest = &rest[2..];
            continue;
        }
        let is_set = rest.starts_with("\\p") || rest.starts_with("\\P");
        rest = translate_class_character(pattern, rest, out)?;
        // Only between two characters is a dash a range.
        if !is_set
            && let Some(after) = rest.strip_prefix('-')
            && !after.starts_with(']')
        {
            out.push('-');
            rest = translate_class_character(pattern, after, out)?;
        }
    }
}

/// One character of a class, escaped so that it cannot be an operator.
fn translate_class_character<'p>(
    pattern: &str,
    rest: &'p str,
    out: &mut String,
) -> Result<&'p str, RegexError> {
    let missing = || fail(pattern, "missing closing ]");
    let c = rest.chars().next().ok_or_else(missing)?;
    let rest = &rest[c.len_utf8()..];
    if c == '\\' {
        let escaped = rest.chars().next().ok_or_else(missing)?;
        let rest = &rest[escaped.len_utf8()..];
        if escaped.is_ascii_punctuation() {
            out.push('\\');
            out.push(escaped);
            return Ok(rest);
        }
        return translate_character_escape(pattern, escaped, rest, out);
    }
    if matches!(c, '[' | ']' | '&' | '~' | '^' | '-') {
        out.push('\\');
    }
    out.push(c);
    Ok(rest)
}

/// What must be in a line for the regex (unanchored, as written) to match it.
pub fn need(pattern: &str) -> Need {
    match parse_hir(pattern) {
        Some(hir) => {
            let mut pieces = Vec::new();
            collect_required(&hir, &mut pieces);
            Need::all(finish_pieces(pieces))
        }
        None => Need::Anything,
    }
}

/// What a required piece of a regex says.
enum Piece {
    /// Exactly these bytes, joined to neighbours of the same kind.
    Exact(Vec<u8>),
    /// ASCII text in either case, lower-cased, joined to neighbours.
    Folded(Vec<u8>),
    Other(Need),
    /// Ends a run of literals.
    Gap,
}

/// Appends what `hir` requires, in order.
fn collect_required(hir: &Hir, pieces: &mut Vec<Piece>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => pieces.push(Piece::Exact(literal.0.to_vec())),
        HirKind::Class(class) => match single_letter(class) {
            Some(letter) => pieces.push(Piece::Folded(vec![letter])),
            None => pieces.push(Piece::Gap),
        },
        HirKind::Look(_) => {}
        HirKind::Capture(capture) => collect_required(&capture.sub, pieces),
        HirKind::Concat(parts) => {
            for part in parts {
                collect_required(part, pieces);
            }
        }
        HirKind::Repetition(repetition) => {
            if repetition.min == 0 {
                pieces.push(Piece::Gap);
                return;
            }
            collect_required(&repetition.sub, pieces);
            if repetition.max != Some(1) {
                pieces.push(Piece::Gap);
            }
        }
        HirKind::Alternation(branches) => {
            let needs = branches.iter().map(|branch| {
                let mut inner = Vec::new();
                collect_required(branch, &mut inner);
                Need::all(finish_pieces(inner))
            });
            pieces.push(Piece::Other(Need::any(needs)));
        }
    }
}

/// The letter of a class such as `[Kk\u{212A}]`, as case folding makes them.
pub(super) fn single_letter(class: &regex_syntax::hir::Class) -> Option<u8> {
    let mut letter = None;
    let mut take = |c: char| {
        let ascii = match c {
            '\u{212a}' => b'k',
            '\u{17f}' => b's',
            c if c.is_ascii_alphabetic() => c.to_ascii_lowercase() as u8,
            _ => return false,
        };
        letter.is_none_or(|seen| seen == ascii) && {
            letter = Some(ascii);
            true
        }
    };
    let fits = match class {
        regex_syntax::hir::Class::Unicode(class) => class
            .ranges()
            .iter()
            .all(|range| range.start() == range.end() && take(range.start())),
        regex_syntax::hir::Class::Bytes(class) => class
            .ranges()
            .iter()
            .all(|range| range.start() == range.end() && take(range.start() as char)),
    };
    letter.filter(|_| fits)
}

/// Joins runs of literals: a folded run takes in exact ASCII neighbours, which need folding
/// only in the condition, not in the line.
fn finish_pieces(pieces: Vec<Piece>) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut exact: Vec<u8> = Vec::new();
    let mut folded: Vec<u8> = Vec::new();
    let mut run_is_folded = false;
    let mut close = |exact: &mut Vec<u8>, folded: &mut Vec<u8>, run_is_folded: &mut bool| {
        if *run_is_folded && folded.len() > 1 {
            needs.push(Need::Folded(std::mem::take(folded)));
        }
        if exact.len() > 1 || (!exact.is_empty() && !*run_is_folded) {
            needs.push(Need::Literal(std::mem::take(exact)));
        }
        exact.clear();
        folded.clear();
        *run_is_folded = false;
    };
    let mut others = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Exact(bytes) => {
                if bytes.is_ascii() {
                    folded.extend(bytes.iter().map(u8::to_ascii_lowercase));
                } else if run_is_folded {
                    close(&mut exact, &mut folded, &mut run_is_folded);
                }
                exact.extend_from_slice(&bytes);
                if !bytes.is_ascii() {
                    folded.clear();
                }
            }
            Piece::Folded(bytes) => {
                run_is_folded = true;
                folded.extend_from_slice(&bytes);
                // The exact run is broken here, but what it had is still required.
                if exact.len() > 2 {
                    others.push(Need::Literal(std::mem::take(&mut exact)));
                }
                exact.clear();
            }
            Piece::Other(need) => {
                close(&mut exact, &mut folded, &mut run_is_folded);
                others.push(need);
            }
            Piece::Gap => close(&mut exact, &mut folded, &mut run_is_folded),
        }
    }
    close(&mut exact, &mut folded, &mut run_is_folded);
    needs.extend(others);
    needs
}

/// Whether the matches of a regex (unanchored, as written) in lines that are joined by newlines
/// are its matches in the lines: it looks at nothing around a match and matches no newline.
pub fn is_local(pattern: &str) -> bool {
    fn check(hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Empty => true,
            HirKind::Literal(literal) => !literal.0.contains(&b'\n'),
            HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => !class
                .ranges()
                .iter()
                .any(|range| (range.start()..=range.end()).contains(&'\n')),
            HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => !class
                .ranges()
                .iter()
                .any(|range| (range.start()..=range.end()).contains(&b'\n')),
            HirKind::Look(_) => false,
            HirKind::Repetition(repetition) => check(&repetition.sub),
            HirKind::Capture(capture) => check(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(check),
        }
    }
    // A regex that matches the empty text matches every line; searching for it is pointless.
    parse_hir(pattern)
        .is_some_and(|hir| hir.properties().minimum_len().is_some_and(|len| len > 0) && check(&hir))
}

/// How many states a pattern compiles to, roughly; 0 for one that is none. Cheap, whatever the
/// pattern: repetitions are multiplied, not unrolled.
pub fn weight(pattern: &str) -> usize {
    // As deep as groups may nest.
    fn states(hir: &Hir) -> usize {
        match hir.kind() {
            HirKind::Empty => 0,
            HirKind::Look(_) => 1,
            HirKind::Literal(text) => text.0.len(),
            HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => 4 * class.ranges().len(),
            HirKind::Class(regex_syntax::hir::Class::Bytes(class)) => class.ranges().len(),
            HirKind::Repetition(repetition) => {
                let times = repetition.max.unwrap_or(repetition.min + 1).max(1);
                states(&repetition.sub).saturating_mul(times as usize)
            }
            HirKind::Capture(capture) => states(&capture.sub).saturating_add(2),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => parts
                .iter()
                .map(states)
                .fold(parts.len(), usize::saturating_add),
        }
    }
    parse_hir(pattern).map_or(0, |hir| states(&hir))
}

pub(super) fn parse_hir(pattern: &str) -> Option<Hir> {
    let translated = translate(pattern).ok()?;
    regex_syntax::ParserBuilder::new()
        .octal(true)
        .utf8(false)
        .nest_limit(NEST_LIMIT)
        .build()
        .parse(&translated)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        let regex = for_text(pattern).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(regex.is_match(text), expected, "{pattern} on {text}");
        let regex = for_lines(pattern).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            regex.is_match(text.as_bytes()),
            expected,
            "{pattern} on {text}"
        );
        // What is needed must be in whatever matches.
        if expected {
            assert!(
                holds(&need(pattern), text.as_bytes()),
                "{pattern} on {text}"
            );
        }
    }

    fn holds(need: &Need, line: &[u8]) -> bool {
        let find = |line: &[u8], what: &[u8]| memchr::memmem::find(line, what).is_some();
        match need {
            Need::Anything => true,
            Need::Literal(bytes) => find(line, bytes),
            Need::Folded(bytes) => {
                let text = String::from_utf8_lossy(line)
                    .replace('\u{212a}', "k")
                    .replace('\u{17f}', "s");
                find(text.to_ascii_lowercase().as_bytes(), bytes)
            }
            Need::All(needs) => needs.iter().all(|need| holds(need, line)),
            Need::Any(needs) => needs.iter().any(|need| holds(need, line)),
        }
    }

    #[test]
    fn classes_are_ascii_as_in_re2() {
        check(r"^\d$", "7", true);
        check(r"^\d$", "٣", false);
        check(r"^\w$", "é", false);
        check(r"^\W$", "é", true);
        check(r"\bx\b", "éxé", true);
        check(r"\Bx", "ax", true);
        check(r"^[\w.-]+$", "a.b-c", true);
        check(r"^[^\d]$", "٣", true);
        check(r"^[\D]$", "7", false);
        check(r"^\s$", "\u{b}", false);
    }

    #[test]
    fn literals_of_re2_stay_literals() {
        check(r"a{,2}", "a{,2}", true);
        check(r"{foo}", "{foo}", true);
        check(r"x{2}", "xx", true);
        check(r"^[[]$", "[", true);
        check(r"^[a[b]]$", "[]", true);
        check(r"^[]a]$", "]", true);
        check(r"^[&&a]$", "&", true);
        check(r"^[a\-z]$", "-", true);
        check(r"^[\w-.]$", "-", true);
        check(r"^[+--]$", ",", true);
        check(r"\Qa.b\E.", "a.bc", true);
        check(r"\Qa.b\E", "axb", false);
        check(r"\<", "<", true);
        check(r"\x41\101\x{1F600}", "AA😀", true);
        check(r"[[:alpha:]]\pL\p{^Greek}", "xyz", true);
        check(r"(?i)É", "é", true);
        check(r"(?i)kelvin", "\u{212a}elvin", true);
        check(r"(?i)time-?out 42", "TimeOut 42", true);
        check(r"(?P<a>x)(?<b>y)", "xy", true);
        check(r"a.b", "a\nb", false);
        check(r"(?s)a.b", "a\nb", true);
        check(r"^b", "a\nb", false);
        check(r"(?m)^b$", "a\nb\nc", true);
        check(r"(ab)+c|x(y|z)w", "ababc", true);
        check(r"(ab)+c|x(y|z)w", "xzw", true);
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for bad in [
            "[",
            "(",
            ")",
            "*a",
            r"\1",
            r"\y",
            r"\Z",
            "(?x)a",
            "(?=a)",
            "a{1001}",
            "[b-a]",
            "\\",
            "(?P<a>x",
            "(?u)a",
            r"\p{Nope}",
            "(?P<a>x)(?P<a>y)",
            "[a",
            r"[\",
        ] {
            assert!(for_lines(bad).is_err(), "{bad}");
            assert!(anchored(bad).is_err(), "{bad}");
        }
        assert!(anchored("a)(b").is_err());
        assert!(for_lines(&"(".repeat(10_000)).is_err());
        assert!(for_lines(r"(\pL{1000}){1000}").is_err());
        let error = for_lines("[").unwrap_err().to_string();
        assert_eq!(error, "error parsing regexp: missing closing ]: `[`");
    }

    #[test]
    fn a_pattern_is_weighed_without_being_compiled() {
        assert_eq!(weight("abc"), 3);
        assert_eq!(weight("("), 0);
        assert!(weight(r"(\pL{1000}){1000}") > 1_000_000_000);
        assert!(weight("((a{1000}){1000}){1000}") >= 1_000_000_000);
        assert!(weight("(?i)time-?out [0-9]+ (ms|s)") < 200);
    }

    #[test]
    fn nothing_is_repeated_twice() {
        // As Go, whose text Loki answers.
        let error = for_lines("a**").unwrap_err().to_string();
        let expected = "error parsing regexp: invalid nested repetition operator: `**`";
        assert_eq!(error, expected);
        for bad in ["a+*", "a*?*", "a{2}{3}", "a{2}*", "(a)??+"] {
            assert!(for_lines(bad).is_err(), "{bad}");
        }
        for good in [
            "a*?", "a{2}?", "(a*)*", "[*+]+", r"\*\*", r"\*+", "a{,2}+", "x{*",
        ] {
            assert!(for_lines(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn matchers_are_anchored_and_differ_in_the_dot() {
        let matches = |dot| matcher("a".into(), MatchOp::Regex, "a.b|c".into(), dot).unwrap();
        assert!(matches(Dot::MatchesNewline).matches("a\nb"));
        assert!(!matches(Dot::ExceptNewline).matches("a\nb"));
        assert!(!matches(Dot::ExceptNewline).matches("xc"));
    }
}
