//! Functions of texts. Texts are bytes: what is not UTF-8 stays, unless characters are changed.

use std::sync::Arc;

use memchr::memmem;
use regex::bytes::{Match, Regex};

use super::super::print::{bytes_of_chars, count_chars, first_char};
use super::super::value::{Text, Value};
use super::{Args, Context, Function, Outcome, Type, bounded, function};

const T: &[Type] = &[Type::Text];
const TT: &[Type] = &[Type::Text, Type::Text];
const TTT: &[Type] = &[Type::Text, Type::Text, Type::Text];
const NT: &[Type] = &[Type::Int, Type::Text];

pub static TABLE: &[Function] = &[
    function("lower", T, |_, args| Ok(mapped(args.text(0), to_lower))),
    function("upper", T, |_, args| Ok(mapped(args.text(0), to_upper))),
    function("ToLower", T, |_, args| Ok(mapped(args.text(0), to_lower))),
    function("ToUpper", T, |_, args| Ok(mapped(args.text(0), to_upper))),
    function("title", T, |_, args| Ok(title(args.text(0)))),
    function("trunc", NT, |_, args| {
        Ok(truncate(args.int(0), args.shared(1)))
    }),
    function("substr", &[Type::Int, Type::Int, Type::Text], |_, args| {
        substring(args.int(0), args.int(1), args.shared(2))
    }),
    function("contains", TT, |_, args| {
        let found = memmem::find(args.text(1), args.text(0)).is_some();
        Ok(Value::Bool(found))
    }),
    function("hasPrefix", TT, |_, args| {
        Ok(Value::Bool(args.text(1).starts_with(args.text(0))))
    }),
    function("hasSuffix", TT, |_, args| {
        Ok(Value::Bool(args.text(1).ends_with(args.text(0))))
    }),
    function("indent", NT, |_, args| indent(args, b"")),
    function("nindent", NT, |_, args| indent(args, b"\n")),
    function("replace", TTT, |_, args| {
        replace(args.text(2), args.text(0), args.text(1), -1)
    }),
    function(
        "Replace",
        &[Type::Text, Type::Text, Type::Text, Type::Int],
        |_, args| replace(args.text(0), args.text(1), args.text(2), args.int(3)),
    ),
    function("repeat", NT, repeat),
    function("trim", T, |_, args| Ok(trim_space(args.shared(0)))),
    function("TrimSpace", T, |_, args| Ok(trim_space(args.shared(0)))),
    function("trimAll", TT, |_, args| {
        Ok(trim(args.shared(1), args.text(0), Side::Both))
    }),
    function("Trim", TT, |_, args| {
        Ok(trim(args.shared(0), args.text(1), Side::Both))
    }),
    function("TrimLeft", TT, |_, args| {
        Ok(trim(args.shared(0), args.text(1), Side::Left))
    }),
    function("TrimRight", TT, |_, args| {
        Ok(trim(args.shared(0), args.text(1), Side::Right))
    }),
    function("trimPrefix", TT, |_, args| {
        Ok(without_prefix(args.shared(1), args.text(0)))
    }),
    function("TrimPrefix", TT, |_, args| {
        Ok(without_prefix(args.shared(0), args.text(1)))
    }),
    function("trimSuffix", TT, |_, args| {
        Ok(without_suffix(args.shared(1), args.text(0)))
    }),
    function("TrimSuffix", TT, |_, args| {
        Ok(without_suffix(args.shared(0), args.text(1)))
    }),
    function("regexReplaceAll", TTT, |context, args| {
        regex_replace(context, args, true)
    }),
    function("regexReplaceAllLiteral", TTT, |context, args| {
        regex_replace(context, args, false)
    }),
    function("count", TT, |context, args| {
        let text = args.text(1);
        let regex = regex(context, args.text(0), text)?;
        let found = regex.find_iter(text);
        let count = found.filter(|found| is_between_chars(text, found)).count();
        Ok(Value::int(count as i64))
    }),
    function("alignLeft", NT, |_, args| align(args, Side::Left)),
    function("alignRight", NT, |_, args| align(args, Side::Right)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Both,
}

/// A part of a text; borrowed ones stay so.
fn part<'a>(text: Text<'a>, range: std::ops::Range<usize>) -> Value<'a> {
    if range == (0..text.len()) {
        return Value::Text(text);
    }
    Value::Text(match text {
        Text::Borrowed(bytes) => Text::Borrowed(&bytes[range]),
        Text::Shared(bytes) => bytes[range].to_vec().into(),
    })
}

/// Each character changed; bytes that are no UTF-8 become U+FFFD, as in Go.
fn mapped<'a>(text: &[u8], map: fn(char) -> char) -> Value<'a> {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.extend(chunk.valid().chars().map(map));
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Value::text(out)
}

/// One character for one: `ß` has no upper case of its own.
fn to_upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        _ => c,
    }
}

fn to_lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        // U+0130, the only one with two.
        (Some(lower), Some(_)) => lower,
        _ => c,
    }
}

/// Title case differs from upper case for ligatures.
fn to_title(c: char) -> char {
    match c {
        'Ǆ' | 'ǅ' | 'ǆ' => 'ǅ',
        'Ǉ' | 'ǈ' | 'ǉ' => 'ǈ',
        'Ǌ' | 'ǋ' | 'ǌ' => 'ǋ',
        'Ǳ' | 'ǲ' | 'ǳ' => 'ǲ',
        c => to_upper(c),
    }
}

/// The first letter of each word raised.
fn title<'a>(text: &[u8]) -> Value<'a> {
    let separates = |c: char| {
        if c.is_ascii() {
            !(c.is_ascii_alphanumeric() || c == '_')
        } else {
            !c.is_alphanumeric() && c.is_whitespace()
        }
    };
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for chunk in text.utf8_chunks() {
        let invalid = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
        for c in chunk.valid().chars().chain(invalid) {
            out.push(if separates(before) { to_title(c) } else { c });
            before = c;
        }
    }
    Value::text(out)
}

/// The first bytes, or the last ones for a negative count.
fn truncate(count: i64, text: Text<'_>) -> Value<'_> {
    let len = text.len();
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    match wanted < len {
        true if count < 0 => part(text, len - wanted..len),
        true => part(text, 0..wanted),
        false => Value::Text(text),
    }
}

fn substring(start: i64, end: i64, text: Text<'_>) -> Outcome<'_> {
    let len = text.len() as i64;
    let (start, end) = match (start, end) {
        (..0, end) => (0, end),
        (start, end) if end < 0 || end > len => (start, len),
        both => both,
    };
    if end > len {
        return Err(format!(
            "runtime error: slice bounds out of range [:{end}] with length {len}"
        ));
    }
    if end < 0 || start > end {
        return Err(if end < 0 {
            format!("runtime error: slice bounds out of range [:{end}]")
        } else {
            format!("runtime error: slice bounds out of range [{start}:{end}]")
        });
    }
    Ok(part(text, start as usize..end as usize))
}

/// A count from a template as one to repeat with.
fn repeat_count(count: i64) -> Result<usize, String> {
    usize::try_from(count).map_err(|_| "strings: negative Repeat count".to_owned())
}

fn indent<'a>(args: &Args<'a>, before: &[u8]) -> Outcome<'a> {
    let text = args.text(1);
    let count = repeat_count(args.int(0))?;
    let lines = 1 + memchr::memchr_iter(b'\n', text).count();
    let len = bounded(
        lines
            .checked_mul(count)
            .and_then(|n| n.checked_add(text.len() + 1)),
    )?;
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(before);
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        if i > 0 {
            out.push(b'\n');
        }
        out.resize(out.len() + count, b' ');
        out.extend_from_slice(line);
    }
    Ok(Value::text(out))
}

/// The first `limit` occurrences, all if that is negative. An empty `old` is found before each
/// character and at the end.
fn replace<'a>(text: &[u8], old: &[u8], new: &[u8], limit: i64) -> Outcome<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found: Vec<usize> = if old.is_empty() {
        let mut places = vec![0];
        let mut at = 0;
        while at < text.len() {
            at += first_char(&text[at..]).1;
            places.push(at);
        }
        places.truncate(limit);
        places
    } else {
        memmem::find_iter(text, old).take(limit).collect()
    };
    let grown = found.len().checked_mul(new.len());
    bounded(grown.and_then(|n| n.checked_add(text.len() - found.len() * old.len())))?;
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for place in found {
        out.extend_from_slice(&text[at..place]);
        out.extend_from_slice(new);
        at = place + old.len();
    }
    out.extend_from_slice(&text[at..]);
    Ok(Value::text(out))
}

fn repeat<'a>(_: &mut Context<'a>, args: &Args<'a>) -> Outcome<'a> {
    let count = repeat_count(args.int(0))?;
    let text = args.text(1);
    bounded(text.len().checked_mul(count))?;
    // An empty text is not repeated: its length bounds nothing.
    Ok(Value::text(if text.is_empty() {
        Vec::new()
    } else {
        text.repeat(count)
    }))
}

fn trim_space(text: Text<'_>) -> Value<'_> {
    trim_while(text, Side::Both, |c, _| c.is_whitespace())
}

/// Without the characters of `cut` on these sides.
fn trim<'a>(text: Text<'a>, cut: &[u8], side: Side) -> Value<'a> {
    let cut_text = String::from_utf8_lossy(cut);
    trim_while(text, side, |c, bytes| {
        // A byte that is no UTF-8 is cut by another such byte.
        cut_text.contains(c)
            && (bytes.len() > 1 || c.is_ascii() || c == char::REPLACEMENT_CHARACTER)
    })
}

fn trim_while<'a>(text: Text<'a>, side: Side, cuts: impl Fn(char, &[u8]) -> bool) -> Value<'a> {
    let mut start = 0;
    let mut end = text.len();
    if side != Side::Right {
        while start < end {
            let (c, len) = first_char(&text[start..end]);
            if !cuts(c, &text[start..start + len]) {
                break;
            }
            start += len;
        }
    }
    if side != Side::Left {
        while start < end {
            let (c, len) = last_char(&text[start..end]);
            if !cuts(c, &text[end - len..end]) {
                break;
            }
            end -= len;
        }
    }
    part(text, start..end)
}

/// The last character of what is not empty, and its bytes.
fn last_char(text: &[u8]) -> (char, usize) {
    for len in 1..=text.len().min(4) {
        let (c, found) = first_char(&text[text.len() - len..]);
        if found == len && (len > 1 || c.is_ascii()) {
            return (c, len);
        }
    }
    (char::REPLACEMENT_CHARACTER, 1)
}

fn without_prefix<'a>(text: Text<'a>, prefix: &[u8]) -> Value<'a> {
    let start = if text.starts_with(prefix) {
        prefix.len()
    } else {
        0
    };
    let len = text.len();
    part(text, start..len)
}

fn without_suffix<'a>(text: Text<'a>, suffix: &[u8]) -> Value<'a> {
    let end = text.len()
        - if text.ends_with(suffix) {
            suffix.len()
        } else {
            0
        };
    part(text, 0..end)
}

/// What a byte costs a regex more than other functions.
const REGEX_COST: usize = 3;

fn regex(context: &mut Context<'_>, pattern: &[u8], text: &[u8]) -> Result<Arc<Regex>, String> {
    context.budget.bytes(REGEX_COST * text.len())?;
    context.regexes.get(pattern, &mut context.budget)
}

/// Whether a match is one for Go, which sees characters: nothing is found inside of one.
fn is_between_chars(text: &[u8], found: &Match<'_>) -> bool {
    let is_inner = |byte: &u8| byte & 0xc0 == 0x80;
    !found.is_empty() || !text.get(found.start()).is_some_and(is_inner)
}

fn regex_replace<'a>(context: &mut Context<'a>, args: &Args<'a>, expands: bool) -> Outcome<'a> {
    let (text, replacement) = (args.text(1), args.text(2));
    let regex = regex(context, args.text(0), text)?;
    let mut out = Vec::new();
    let mut at = 0;
    if expands && replacement.contains(&b'$') {
        for captures in regex.captures_iter(text) {
            let Some(found) = captures.get(0).filter(|f| is_between_chars(text, f)) else {
                continue;
            };
            out.extend_from_slice(&text[at..found.start()]);
            captures.expand(replacement, &mut out);
            at = found.end();
            bounded(Some(out.len()))?;
        }
    } else {
        for found in regex.find_iter(text).filter(|f| is_between_chars(text, f)) {
            out.extend_from_slice(&text[at..found.start()]);
            out.extend_from_slice(replacement);
            at = found.end();
            bounded(Some(out.len()))?;
        }
    }
    out.extend_from_slice(&text[at..]);
    bounded(Some(out.len()))?;
    Ok(Value::text(out))
}

/// Blanks on the other side up to a count of characters, or the characters of this side.
fn align<'a>(args: &Args<'a>, side: Side) -> Outcome<'a> {
    let text = args.shared(1);
    let len = count_chars(&text);
    let Ok(wanted) = usize::try_from(args.int(0)) else {
        return Ok(Value::Text(text));
    };
    if wanted < len {
        let at = match side {
            Side::Right => bytes_of_chars(&text, len - wanted)..text.len(),
            _ => 0..bytes_of_chars(&text, wanted),
        };
        return Ok(part(text, at));
    }
    bounded(text.len().checked_add(wanted - len))?;
    let blanks = vec![b' '; wanted - len];
    Ok(Value::text(match side {
        Side::Right => [&blanks, &*text].concat(),
        _ => [&*text, &blanks].concat(),
    }))
}
