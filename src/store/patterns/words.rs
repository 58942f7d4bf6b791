//! Lines cut into words: what may vary from line to line, and what makes their shape.
//!
//! Words are runs of letters, digits and some signs; all else lies between words and is the
//! line's shape, and so are words that name what follows (`key=`, `"key":`). A word with a
//! digit in it varies, and so do several that only a `:`, `/` or `,` joins: times,
//! addresses, lists of numbers. Text that LogQL would take for a capture (`<name>`) is one
//! varying word, `<_>` in a template among it: a template is cut as the lines it came from.

use xxhash_rust::xxh3::xxh3_64;

/// So much of a line is looked at, bytes; what follows varies as a whole.
pub const MAX_LINE: usize = 512;
/// The same for templates, in which each varying word may have become longer.
pub const MAX_TEMPLATE: usize = 2048;
/// So many words are told apart.
pub const MAX_WORDS: usize = 64;

/// A word, by its place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub start: u32,
    pub end: u32,
    /// It is `<_>` in the template.
    pub varies: bool,
    /// It names what follows, and belongs to the shape.
    pub names: bool,
    /// Of its text; 0 when it varies.
    pub hash: u64,
}

const WORD: u8 = 1;
const DIGIT: u8 = 2;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_digit() {
            class[i] = WORD | DIGIT;
        } else if b.is_ascii_alphabetic()
            || b >= 0x80
            || matches!(
                b,
                b'_' | b'-'
                    | b'.'
                    | b'$'
                    | b'%'
                    | b'#'
                    | b'@'
                    | b'~'
                    | b'+'
                    | b'*'
                    | b'!'
                    | b'\\'
                    | b'\''
                    | b'^'
                    | b'`'
            )
        {
            class[i] = WORD;
        }
        i += 1;
    }
    class
};

fn class(b: u8) -> u8 {
    CLASS[usize::from(b)]
}

/// Cuts at most `limit` bytes of a line; returns the hash of its shape.
pub fn cut(line: &[u8], limit: usize, words: &mut Vec<Word>) -> u64 {
    words.clear();
    let mut whole = line.len() <= limit;
    let text = line.get(..limit).unwrap_or(line);
    let mut shape = 0x9e37_79b9_7f4a_7c15_u64;
    let mut at = 0;
    // Where what was taken so far ends.
    let mut done = 0;
    while at < text.len() {
        let b = text[at];
        let capture = if b == b'<' {
            capture_len(&text[at..])
        } else {
            0
        };
        if capture == 0 && class(b) & WORD == 0 {
            at += 1;
            continue;
        }
        let start = at;
        let mut seen = 0;
        if capture > 0 {
            at += capture;
            seen = DIGIT;
        } else {
            while at < text.len() && class(text[at]) & WORD != 0 {
                seen |= class(text[at]);
                at += 1;
            }
        }
        if at == text.len() && !whole {
            // Cut off in the middle, perhaps.
            break;
        }
        let varies = seen & DIGIT != 0;
        let gap = &text[done..start];
        if let Some(last) = words.last_mut()
            && last.varies
            && (gap.is_empty() || varies && joins(gap))
        {
            last.end = at as u32;
            done = at;
            continue;
        }
        if words.len() == MAX_WORDS {
            whole = false;
            break;
        }
        let names = !varies && matches!(&text[at..], [b'=' | b':', ..] | [b'"', b':', ..]);
        let hash = if varies { 0 } else { xxh3_64(&text[start..at]) };
        shape = mix_gap(shape, gap);
        if names {
            shape = mix(shape, hash);
        }
        words.push(Word {
            start: start as u32,
            end: at as u32,
            varies,
            names,
            hash,
        });
        done = at;
    }
    if whole {
        let tail = &text[done..];
        if let Some(last) = words.last_mut()
            && last.varies
            && joins(tail)
        {
            // `12:34:` is one, too: `<_>:` would end at its first colon.
            last.end = text.len() as u32;
            return mix_gap(shape, b"");
        }
        return mix_gap(shape, tail);
    }
    // The rest, as one word that varies.
    match words.last_mut() {
        Some(last) if last.varies => last.end = line.len() as u32,
        _ => {
            shape = mix_gap(shape, b"");
            words.push(Word {
                start: done as u32,
                end: line.len() as u32,
                varies: true,
                names: false,
                hash: 0,
            });
        }
    }
    mix_gap(shape, b"")
}

/// Whether what is between two varying words makes them one.
fn joins(gap: &[u8]) -> bool {
    matches!(gap, [b':' | b'/' | b','])
}

/// Length of what LogQL would take for a capture at the start of the text; 0 when nothing.
fn capture_len(text: &[u8]) -> usize {
    let name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let inner = text.iter().skip(1).take_while(|b| name(b)).count();
    let begins_well = text.get(1).is_some_and(|b| !b.is_ascii_digit());
    if inner > 0 && begins_well && text.get(inner + 1) == Some(&b'>') {
        inner + 2
    } else {
        0
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// What is between two words, and that there is a word.
fn mix_gap(mut hash: u64, gap: &[u8]) -> u64 {
    for b in gap {
        hash = mix(hash, u64::from(*b));
    }
    mix(hash, 0x100 + gap.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words in brackets: `[ ]` one that stays, `( )` one that names, `< >` one that varies.
    fn shown(line: &str) -> String {
        let mut words = Vec::new();
        cut(line.as_bytes(), MAX_LINE, &mut words);
        let (mut out, mut at) = (String::new(), 0);
        for word in words {
            let (start, end) = (word.start as usize, word.end as usize);
            out += &line[at..start];
            let (open, close) = match (word.varies, word.names) {
                (true, _) => ('<', '>'),
                (_, true) => ('(', ')'),
                _ => ('[', ']'),
            };
            out += &format!("{open}{}{close}", &line[start..end]);
            at = end;
        }
        out + &line[at..]
    }

    #[test]
    fn digits_vary_and_names_are_shape() {
        for (line, words) in [
            (
                r#"level=info msg="user 7 in" took=5ms"#,
                r#"(level)=[info] (msg)="[user] <7> [in]" (took)=<5ms>"#,
            ),
            (
                r#"{"a":{"b":"x y"},"n":[1,2,3]}"#,
                r#"{"(a)":{"(b)":"[x] [y]"},"(n)":[<1,2,3>]}"#,
            ),
            (
                "2026-11-22T21:44:48.1Z 10.0.0.1:80 GET /v1/a/2/3",
                "<2026-11-22T21:44:48.1Z> <10.0.0.1:80> [GET] /<v1>/[a]/<2/3>",
            ),
            ("<div>5 <_> a<b>", "<<div>5> <<_>> [a]<<b>>"),
            ("a < b > c <5> é", "[a] < [b] > [c] <<5>> [é]"),
            ("at 12:34:", "[at] <12:34:>"),
            ("", ""),
            (" \t", " \t"),
        ] {
            assert_eq!(shown(line), words, "{line}");
        }
    }

    #[test]
    fn what_is_too_long_ends_in_one_word_that_varies() {
        let long = "word ".repeat(200);
        let mut words = Vec::new();
        cut(long.as_bytes(), MAX_LINE, &mut words);
        assert_eq!(words.len(), MAX_WORDS + 1);
        let last = words[MAX_WORDS];
        assert!(last.varies && last.end as usize == long.len());
        let one = "x".repeat(2000);
        cut(one.as_bytes(), MAX_LINE, &mut words);
        assert_eq!((words.len(), words[0].varies), (1, true));
        let numbers = format!("a {}", "1".repeat(2000));
        cut(numbers.as_bytes(), MAX_LINE, &mut words);
        assert_eq!((words.len(), words[1].end), (2, 2002));
    }

    #[test]
    fn shapes_tell_what_is_between_words() {
        let shape = |line: &str| cut(line.as_bytes(), MAX_LINE, &mut Vec::new());
        assert_eq!(shape("a b"), shape("c 5"));
        assert_eq!(shape("k=b"), shape("k=5"));
        for (a, b) in [
            ("a b", "a  b"),
            ("a b", "a b "),
            ("a", "a b"),
            ("k=a", "l=a"),
            ("", " "),
        ] {
            assert_ne!(shape(a), shape(b), "{a:?} {b:?}");
        }
    }
}
