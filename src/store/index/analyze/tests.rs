use super::*;
use crate::store::index::filter::FilterView;

fn words(lines: &[&[u8]]) -> (Vec<String>, ChunkFlags) {
    let mut analyzer = Analyzer::new();
    let (text, ends) = chunk(lines);
    let found = analyzer.analyze(&text, &ends);
    (
        found
            .words
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(String::from)
            .collect(),
        found.flags,
    )
}

fn chunk(lines: &[&[u8]]) -> (Vec<u8>, Vec<u32>) {
    let mut ends = Vec::new();
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line);
        ends.push(text.len() as u32);
    }
    (text, ends)
}

#[track_caller]
fn check(line: &str, expected: &[&str]) {
    assert_eq!(words(&[line.as_bytes()]).0, expected);
}

#[test]
fn words_are_distinct_lower_case_letter_runs_of_three() {
    check(
        "GET /api/v1/Users user_id=17 get ok",
        &["get", "api", "users", "user_id"],
    );
    check("", &[]);
    check("ab abc", &["abc"]);
    check("grün Ärger", &["grün", "Ärger"]);
}

#[test]
fn letters_of_an_id_are_no_words() {
    check("id=5f0c1dea-face-4bad-9dad-0123456789ab face", &["face"]);
    // Too few digits for an id.
    check("face-bad-0123", &["face", "bad"]);
    // Goes beyond the id.
    check("xdeadbeef0123456789ab", &["xdeadbeef"]);
    // Begins and ends with letters of ids, but is not inside one.
    check("0123456789abcdefgh abc", &["abcdefgh", "abc"]);
    check("0123456789abcdef-abcxdef-0123456789abcdef", &["abcxdef"]);
}

#[test]
fn lines_are_not_joined() {
    let lines: [&[u8]; 4] = [b"one", b"two", b"01234567", b"89abcdefab"];
    assert_eq!(words(&lines).0, ["one", "two", "abcdefab"]);
    // Also across the blocks of 64 bytes.
    let long = [b'x'; 64];
    assert_eq!(words(&[&long, b"end", b"abc"]).0[1..], ["end", "abc"]);
}

#[test]
fn words_are_found_at_every_offset_of_a_block() {
    for pad in 0..140 {
        let line = format!("{}needle in the0haystack", "-".repeat(pad));
        check(&line, &["needle", "the", "haystack"]);
        let line = format!("{}abc", "0".repeat(pad));
        check(&line, if pad >= 13 { &[] } else { &["abc"] });
    }
}

#[test]
fn long_words_that_differ_only_in_the_middle_are_two() {
    let a = format!("{}x{}", "a".repeat(10), "z".repeat(10));
    let b = format!("{}y{}", "a".repeat(10), "z".repeat(10));
    let line = format!("{a} {b} {a}");
    check(&line, &[&a, &b]);
}

#[test]
fn floods_of_words_overflow_and_the_next_chunk_is_clean() {
    let mut analyzer = Analyzer::new();
    let letters = |n: usize| (0..4).map(move |i| (b'a' + (n / 26usize.pow(i) % 26) as u8) as char);
    let many = |n: usize| {
        let mut line = String::new();
        (0..n).for_each(|n| {
            line.extend(letters(n));
            line.push(' ');
        });
        line
    };
    let text = many(MAX_WORDS);
    let found = analyzer.analyze(text.as_bytes(), &[]);
    assert_eq!(found.words.split(' ').count(), MAX_WORDS);
    assert!(!found.flags.has(ChunkFlags::OVERFLOW));

    let text = many(MAX_WORDS + 1) + "\u{212A}";
    let found = analyzer.analyze(text.as_bytes(), &[]);
    assert!(found.flags.has(ChunkFlags::OVERFLOW) && found.flags.has(ChunkFlags::FOLDS));
    assert_eq!(found.words, "*overflow *folds");

    let text = "z".repeat(MAX_WORD_BYTES + 1);
    assert_eq!(analyzer.analyze(text.as_bytes(), &[]).words, OVERFLOW_TERM);

    let found = analyzer.analyze(b"aaaa clean", &[]);
    assert_eq!(
        (found.words, found.flags),
        ("aaaa clean", ChunkFlags::default())
    );
}

#[test]
fn flags_tell_what_the_text_holds() {
    let (_, flags) = words(&[b"a\nb", b"c"]);
    assert_eq!(flags, ChunkFlags::NEWLINE);
    let (_, flags) = words(&[br#"{"a":"\u00e4"}"#]);
    assert_eq!(flags, ChunkFlags::BACKSLASH);
    let (found, flags) = words(&["clo\u{17F}ed".as_bytes()]);
    assert_eq!((found[1].as_str(), flags), (FOLDS_TERM, ChunkFlags::FOLDS));
    let (found, flags) = words(&[b"bro\xff\xc3ken"]);
    assert_eq!(
        (found[0].as_str(), flags),
        ("bro\u{fffd}\u{fffd}ken", ChunkFlags::default())
    );
}

#[test]
fn an_empty_chunk_has_an_empty_filter() {
    let mut analyzer = Analyzer::new();
    let found = analyzer.analyze(b"", &[0, 0]);
    let filter = FilterView::parse(found.filter).unwrap();
    assert_eq!((found.words, filter.density()), ("", 0.0));
}
