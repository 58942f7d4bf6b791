use super::encode::compress;
use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

#[track_caller]
fn check(text: &[u8]) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    encode(text, &mut bytes).unwrap();
    let bytes = bytes.split_off(6);
    let mut back = b"old".to_vec();
    decode(&bytes, text.len(), &mut back).unwrap();
    assert!(back == text, "{:?}", String::from_utf8_lossy(text));
    if !text.is_empty() {
        assert!(decode(&bytes, text.len() - 1, &mut back).is_err());
    }
    bytes
}

/// Lines as services write them, with some oddities.
fn lines(random: &mut Random, count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for i in 0..count {
        let (a, b, c) = (random.below(100_000), random.below(256), random.below(7));
        let line = match random.below(12) {
            0..4 => format!(
                "ts=2026-11-29T10:14:{:02}.{:03}Z level=info id={a:08x}{a:08x}{b:08X} path=/a/{c} msg=\"it is {}\"",
                i % 60,
                a % 1000,
                ["x", "y z", ""][a % 3]
            ),
            4..6 => format!(
                "{{\"n\":{a},\"ip\":\"10.{b}.{c}.{b}\",\"uuid\":\"{a:08x}-{b:04x}-4abc-8{b:03x}-{a:012x}\",\"k\":\"{}\"}}",
                ["GET", "PUT"][c % 2]
            ),
            6 => String::new(),
            7 => format!(
                "{} {:020} 00{c} -{c} {a}.{b} 18446744073709551616{b}",
                u64::MAX - b as u64,
                a
            ),
            8 => format!("{}{b}", "x".repeat(random.below(400))),
            9 => format!("words only {}", ["of", "which", "none"][c % 3]),
            10 => format!("1.2.3.{b} 01.2.3.4 256.1.1.{c} 1.2.3 a1-b2.c3:44:55:66:777"),
            _ => format!("{}={b}\u{e9}\u{0}9=\"{c}\" \"{a:x}", "=\"".repeat(c)),
        };
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

#[test]
fn every_text_comes_back() {
    check(b"");
    check(b"\n");
    check(b"no newline 7");
    check(b"\n\n\n1\n\n");
    check(&[b'\n'; 1000]);
    check(&[b'7'; 100_000]);
    let mut long = vec![b'x'; 100_000];
    long.extend_from_slice(b"=1\n");
    let constant = [vec![b'9'; 5000], b"\n".to_vec()].concat().repeat(50);
    for text in [long.repeat(5), constant] {
        check(&text);
    }
    let mut random = Random(1);
    for count in 0..400 {
        let mut text = lines(&mut random, count);
        check(&text);
        text.truncate(text.len() - random.below(text.len() + 1));
        check(&text);
    }
    for length in 0..500 {
        // Few different bytes make many tokens; all bytes make none that means a thing.
        let few: Vec<u8> = (0..length * 7)
            .map(|_| b"a01.-:=\"\n \xff"[random.below(11)])
            .collect();
        check(&few);
        let all: Vec<u8> = (0..length * 7).map(|_| random.below(256) as u8).collect();
        check(&all);
    }
}

#[test]
fn alike_lines_become_small() {
    let mut random = Random(2);
    let text: Vec<u8> = (0..5000)
        .flat_map(|i| {
            format!(
                "at={i} id={:016x} took={}ms\n",
                random.0 ^ i,
                random.below(1000)
            )
            .into_bytes()
        })
        .collect();
    let mut plain = Vec::new();
    compress(&mut None, &text, &mut plain).unwrap();
    assert!(check(&text).len() < plain.len() * 3 / 4);
}

#[test]
fn damage_is_an_error_or_another_text_but_never_a_panic() {
    let mut random = Random(3);
    let mut back = Vec::new();
    for round in 0..60 {
        let text = lines(&mut random, 20 + round);
        let bytes = check(&text);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len());
                damaged[at] = random.below(256) as u8;
            }
            if random.below(4) == 0 {
                damaged.truncate(random.below(damaged.len()));
            }
            if decode(&damaged, 1 << 20, &mut back).is_ok() {
                assert!(back.len() <= 1 << 20);
            }
        }
    }
}

#[test]
fn damaged_sections_in_good_frames_never_panic() {
    // Damage before compression: what gets past zstd's own checks.
    let mut random = Random(4);
    let mut back = Vec::new();
    let mut encoder = Encoder::default();
    for round in 0..400 {
        let text = lines(&mut random, 1 + round % 90);
        let mut bytes = Vec::new();
        encoder.encode(&text, &mut bytes).unwrap();
        if bytes[0] != COLUMNS {
            continue;
        }
        for _ in 0..60 {
            let kept = encoder.sections.clone();
            for _ in 0..1 + random.below(3) {
                let section = &mut encoder.sections
                    [[META, META, META, LENGTHS, PICKS, WORDS, NUMBERS, HEX][random.below(8)]];
                if section.is_empty() {
                    continue;
                }
                let at = random.below(section.len());
                match random.below(3) {
                    0 => section[at] = random.below(256) as u8,
                    1 => section[at] = [0, 1, 127, 128, 255][random.below(5)],
                    _ => section.truncate(at),
                }
            }
            let sections = std::mem::replace(&mut encoder.sections, kept);
            let damaged = framed(text.len(), sections, b"").unwrap();
            if decode(&damaged, 1 << 20, &mut back).is_ok() {
                assert_eq!(back.len(), text.len());
            }
        }
    }
}
