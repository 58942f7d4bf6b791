use proptest::prelude::*;

use super::*;
use crate::store::index::analyze::{Analysis, Analyzer};

fn word(demand: WordDemand) -> WordPlan {
    WordPlan::Word {
        demand,
        folded: false,
    }
}

fn plan(needle: &str) -> NeedlePlan {
    NeedlePlan::compile(&Need::Literal(needle.as_bytes().to_vec()))
}

fn grams(needle: &str) -> usize {
    match plan(needle).grams {
        GramPlan::Bits { bits, .. } => bits.len(),
        _ => 0,
    }
}

#[test]
fn words_are_demanded_as_far_as_they_are_bounded() {
    let check = |needle: &str, demand: WordDemand| assert_eq!(plan(needle).words, word(demand));
    check(" Error ", WordDemand::Exact("error".into()));
    check("=err", WordDemand::Prefix("err".into()));
    check("ror=", WordDemand::Suffix("ror".into()));
    check("imeou", WordDemand::Infix("imeou".into()));
    check(" ab grün", WordDemand::Prefix("grün".into()));
    assert_eq!(
        plan("timeout awaiting").words,
        WordPlan::All(vec![
            word(WordDemand::Suffix("timeout".into())),
            word(WordDemand::Prefix("awaiting".into())),
        ])
    );
}

#[test]
fn what_may_lie_in_an_id_demands_nothing() {
    for needle in [
        "dead", " cafe", "cafe ", "404", "=", "1234567", "", "12345-", "-bad-",
    ] {
        assert!(plan(needle).prunes_nothing(), "{needle}");
    }
    assert_eq!(plan(" cafe ").words, word(WordDemand::Exact("cafe".into())));
    assert_eq!(grams(" 12345 "), 1);
    assert_eq!(grams("10.0.3.17:8080"), 10);
    assert!(grams("5f0c1dea-face-4bad-9dad-0123456789ab") >= 3);
    assert_eq!(
        plan("5f0c1dea-face-4bad-9dad-0123456789ab").words,
        WordPlan::Anything
    );
}

#[test]
fn alternatives_and_conjunctions_keep_their_shape() {
    let literal = |text: &str| Need::Literal(text.as_bytes().to_vec());
    let demand = |text: &str| word(WordDemand::Infix(text.into()));
    let any = |needs| NeedlePlan::compile(&Need::Any(needs));
    assert_eq!(
        any(vec![literal("error"), literal("panic")]).words,
        WordPlan::Any(vec![demand("error"), demand("panic")])
    );
    assert!(any(vec![literal("error"), literal("=")]).prunes_nothing());
    let never = any(vec![]);
    assert_eq!(never.words, WordPlan::Any(vec![]));
    assert!(!never.words.may_match(ChunkFlags::OVERFLOW, &mut |_| true));
    let all = NeedlePlan::compile(&Need::All(vec![literal("error"), literal("=")]));
    assert_eq!(all.words, demand("error"));
    assert!(NeedlePlan::compile(&Need::All(vec![])).prunes_nothing());
    let mut deep = literal("error");
    for _ in 0..10_000 {
        deep = Need::All(vec![deep]);
    }
    assert!(NeedlePlan::compile(&deep).prunes_nothing());
    std::mem::forget(deep); // dropping it recurses
}

/// Whether a chunk is a candidate, asked as the store asks.
fn candidate(found: &Analysis<'_>, plan: &NeedlePlan) -> bool {
    let filter = FilterView::parse(found.filter).unwrap();
    // By the terms in the words, and again by the flags: both must say the same.
    let terms: Vec<&str> = found.words.split(' ').collect();
    let by_flags = plan.words.may_match(found.flags, &mut |demand| {
        terms.iter().any(|word| demand.accepts(word))
    });
    plan.may_match(&filter, found.flags) && by_flags
}

/// Pieces that lines are made of; many of them near an edge of some rule.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        "[0-9a-f-]{1,40}",
        "[0-9a-f]{14,18}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}-[0-9A-F]{4}-[0-9A-F]{12}",
        "-{1,30}",
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(:[0-9]{2,5})?",
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z",
        "(error|Timeout|GET|dead|beef|cafe|face|user_id|Kasse|straße|Ωmega|日本語|ſoft|\u{212A}elvin)",
        "[A-Za-z0-9+/]{1,70}={0,2}",
        "[a-z_]{1,12}",
        "[0-9]{1,18}",
        "[ =\"{}:,./|\\\\\n-]{1,3}",
    ];
    prop_oneof![
        8 => text.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..8),
    ]
}

fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = prop::collection::vec(piece(), 0..12).prop_map(|p| p.concat());
    prop::collection::vec(line, 1..12)
}

fn chunk(lines: &[Vec<u8>]) -> (Vec<u8>, Vec<u32>) {
    let mut text = Vec::new();
    let ends = lines.iter().map(|line| {
        text.extend_from_slice(line);
        text.len() as u32
    });
    let ends = ends.collect();
    (text, ends)
}

/// Whether a line holds the folded needle, as a regex with `(?i)` sees it.
fn holds_folded(line: &[u8], needle: &str) -> bool {
    let pattern = format!("(?i){}", regex::escape(needle));
    regex::bytes::Regex::new(&pattern).unwrap().is_match(line)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("SLOW").is_some() { 60_000 } else { 1_500 }
    ))]

    // N1, the reason for all of this: every substring of every line finds its chunk, and every
    // other chunk that holds it.
    #[test]
    fn no_chunk_with_the_needle_is_ruled_out(
        chunks in prop::collection::vec(lines(), 1..4),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(),
            any::<prop::sample::Index>(), 1usize..60), 20),
    ) {
        let mut analyzer = Analyzer::new();
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for (which, line, start, len) in picks {
            let lines: &Vec<Vec<u8>> = which.get(&chunks[..]);
            let line = line.get(lines);
            if line.is_empty() { continue }
            let start = start.index(line.len());
            needles.push(line[start..(start + len).min(line.len())].to_vec());
            needles.push(line[line.len().saturating_sub(len)..].to_vec());
            needles.push(line[..len.min(line.len())].to_vec());
        }
        for lines in &chunks {
            let (text, ends) = chunk(lines);
            for ends in [&ends[..], &[]] {
                let found = analyzer.analyze(&text, ends);
                for needle in &needles {
                    let plan = NeedlePlan::compile(&Need::Literal(needle.clone()));
                    let holds = lines.iter().any(|l| memchr::memmem::find(l, needle).is_some());
                    prop_assert!(!holds || candidate(&found, &plan),
                        "lost {:?} in {:?}", String::from_utf8_lossy(needle), lines);
                }
            }
        }
    }

    #[test]
    fn no_chunk_with_the_folded_needle_is_ruled_out(
        lines in lines(),
        pick in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..30),
    ) {
        let line: &Vec<u8> = pick.0.get(&lines);
        if line.is_empty() {
            return Ok(());
        }
        let start = pick.1.index(line.len());
        let part = &line[start..(start + pick.2).min(line.len())];
        // The longest s and the kelvin sign as the letters they fold to.
        let needle = String::from_utf8_lossy(part).replace('\u{212A}', "k").replace('\u{17F}', "s");
        if !needle.is_ascii() {
            return Ok(());
        }
        let needle = needle.to_ascii_lowercase();
        let (text, ends) = chunk(&lines);
        let mut analyzer = Analyzer::new();
        let found = analyzer.analyze(&text, &ends);
        let plan = NeedlePlan::compile(&Need::Folded(needle.clone().into_bytes()));
        if lines.iter().any(|l| holds_folded(l, &needle)) {
            prop_assert!(candidate(&found, &plan), "lost {needle:?} in {lines:?}");
        }
    }
}

#[test]
fn a_folded_need_finds_the_letters_that_unicode_folds_to_ascii() {
    let mut analyzer = Analyzer::new();
    let plan = NeedlePlan::compile(&Need::Folded(b" 300 kelvins".to_vec()));
    assert!(candidate(
        &analyzer.analyze(" 300 \u{212A}elvin\u{17F}".as_bytes(), &[]),
        &plan
    ));
    assert!(!candidate(
        &analyzer.analyze(" 300 kelfins".as_bytes(), &[]),
        &plan
    ));
    let none = NeedlePlan::compile(&Need::Folded("straße".into()));
    assert!(none.prunes_nothing());
}

#[test]
fn a_chunk_of_random_words_is_a_candidate_for_every_word() {
    use std::fmt::Write;
    let mut text = String::new();
    let mut state = 1u64;
    for _ in 0..20_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let letters = (0..4).map(|i| (b'a' + ((state >> (40 + 5 * i)) % 26) as u8) as char);
        write!(text, "{} ", letters.collect::<String>()).unwrap();
    }
    let mut analyzer = Analyzer::new();
    let found = analyzer.analyze(text.as_bytes(), &[]);
    assert!(found.flags.has(ChunkFlags::OVERFLOW));
    assert!(candidate(&found, &plan(" anything ")));
}

#[test]
fn absent_ids_addresses_and_words_leave_few_candidates() {
    let mut state = 7u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut analyzer = Analyzer::new();
    let mut left = [0; 4];
    let needles = [
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "7b52009b64fd0a2a49e6d8a939753077",
        "zzzzqqq",
        " 10.20.30.40:5678 ",
    ];
    let plans = needles.map(plan);
    const CHUNKS: usize = 40;
    for _ in 0..CHUNKS {
        let mut lines = Vec::new();
        let mut size = 0;
        while size < 256 << 10 {
            let line = format!(
                "2026-08-21T10:{:02}:{:02}.{:03}Z level=info msg=\"request done\" client=192.168.{}.{} \
                 trace={:016x}{:016x} took={}ms",
                next() % 60,
                next() % 60,
                next() % 1000,
                next() % 8,
                next() % 256,
                next(),
                next(),
                next() % 5000
            );
            size += line.len();
            lines.push(line.into_bytes());
        }
        let (text, ends) = chunk(&lines);
        let found = analyzer.analyze(&text, &ends);
        // Every line of these has ids, three bits for each of their minimizers.
        assert!(found.filter.len() < 16 << 10, "{}", found.filter.len());
        for (left, plan) in left.iter_mut().zip(&plans) {
            *left += usize::from(candidate(&found, plan));
        }
    }
    assert!(left[0] <= 1 && left[1] <= 1, "{left:?}");
    assert_eq!(left[2..], [0, 0], "{left:?}");
}
