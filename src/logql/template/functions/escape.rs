//! Escaping for HTML, JavaScript and URLs, and base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::print;
use super::super::value::Value;
use super::{Args, Context, Function, Type, bounded, function, variadic};
use crate::model::labels::is_printable;

const TEXT: &[Type] = &[Type::Text];

pub static TABLE: &[Function] = &[
    variadic("html", &[], Type::Any, |context, args| {
        let text = printed(context, args)?;
        Ok(Value::text(html(&text)))
    }),
    variadic("js", &[], Type::Any, |context, args| {
        let text = printed(context, args)?;
        Ok(Value::text(javascript(&text)))
    }),
    variadic("urlquery", &[], Type::Any, |context, args| {
        let text = printed(context, args)?;
        Ok(Value::text(query_escape(&text)))
    }),
    function("urlencode", TEXT, |_, args| {
        Ok(Value::text(query_escape(args.text(0))))
    }),
    function("urldecode", TEXT, |_, args| {
        query_unescape(args.text(0)).map(Value::text)
    }),
    function("b64enc", TEXT, |_, args| {
        bounded(args.text(0).len().checked_mul(2))?;
        Ok(Value::text(STANDARD.encode(args.text(0))))
    }),
    // What is no base64 gives the reason as its value, as in sprig.
    function("b64dec", TEXT, |_, args| {
        Ok(match base64_decode(args.text(0)) {
            Ok(bytes) => Value::text(bytes),
            Err(at) => Value::text(format!("illegal base64 data at input byte {at}")),
        })
    }),
];

/// A single text as it is, anything else as `print` has it.
fn printed(context: &Context<'_>, args: &Args<'_>) -> Result<Vec<u8>, String> {
    if let [Value::Text(text)] = args.0.as_slice() {
        return Ok(text.to_vec());
    }
    let shown: Vec<Value<'_>> = args
        .0
        .iter()
        .map(|value| match value {
            value if value.is_nil() => Value::literal("<no value>"),
            value => value.clone(),
        })
        .collect();
    let text = context.print(|labels| print::sprint(&shown, labels))?;
    Ok(text)
}

fn html(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        let escaped: &[u8] = match byte {
            b'"' => b"&#34;",
            b'\'' => b"&#39;",
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            0 => "\u{fffd}".as_bytes(),
            other => std::slice::from_ref(other),
        };
        out.extend_from_slice(escaped);
    }
    out
}

fn javascript(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' | '"' => out.extend_from_slice(&[b'\\', c as u8]),
                '<' | '>' | '&' | '=' => {
                    out.extend_from_slice(format!("\\u{:04X}", c as u32).as_bytes());
                }
                c if c.is_ascii() && c >= ' ' || !c.is_ascii() && is_printable(c) => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => out.extend_from_slice(format!("\\u{:04X}", c as u32).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
    out
}

fn query_escape(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(*byte),
            b' ' => out.push(b'+'),
            other => out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(other >> 4)],
                DIGITS[usize::from(other & 15)],
            ]),
        }
    }
    out
}

fn query_unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = text.get(at..at + 2).unwrap_or(b"");
                let value = digits.iter().try_fold(0, |value, digit| {
                    Some(value * 16 + char::from(*digit).to_digit(16)?)
                });
                let Some(value) = value.filter(|_| digits.len() == 2) else {
                    let rest = &text[at - 1..text.len().min(at + 2)];
                    let quoted = print::quote(rest, '"', false);
                    let quoted = String::from_utf8_lossy(&quoted).into_owned();
                    return Err(format!("invalid URL escape {quoted}"));
                };
                out.push(value as u8);
                at += 2;
            }
            other => out.push(*other),
        }
    }
    Ok(out)
}

/// With padding; ends of lines are passed over. The error is the place of what is wrong.
fn base64_decode(text: &[u8]) -> Result<Vec<u8>, usize> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let is_break = |byte: &&u8| matches!(byte, b'\n' | b'\r');
    let skip_breaks = |at: usize| at + text[at..].iter().take_while(is_break).count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut at = 0;
    loop {
        // Four digits make three bytes.
        let mut group = [0u8; 4];
        let mut filled = 0;
        while filled < 4 {
            let Some(byte) = text.get(at) else {
                return if filled == 0 {
                    Ok(out)
                } else {
                    Err(at - filled)
                };
            };
            at += 1;
            if let Some(value) = digit(*byte) {
                group[filled] = value;
                filled += 1;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                continue;
            }
            if *byte != b'=' || filled < 2 {
                return Err(at - 1);
            }
            if filled == 2 {
                at = skip_breaks(at);
                match text.get(at) {
                    None => return Err(text.len()),
                    Some(b'=') => at += 1,
                    Some(_) => return Err(at - 1),
                }
            }
            at = skip_breaks(at);
            if at < text.len() {
                return Err(at);
            }
            push_group(&mut out, group, filled - 1);
            return Ok(out);
        }
        push_group(&mut out, group, 3);
    }
}

fn push_group(out: &mut Vec<u8>, group: [u8; 4], count: usize) {
    let bits = group
        .iter()
        .fold(0u32, |bits, digit| bits << 6 | u32::from(*digit));
    out.extend_from_slice(&bits.to_be_bytes()[1..1 + count]);
}
