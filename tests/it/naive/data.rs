//! Random streams: lines of every kind that the stages of a query look at, over several days,
//! out of order, with repetitions, in parts that are sealed one after the other.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use watchpost::model::time::{DAY, HOUR, MINUTE, SECOND};

pub type Set = BTreeMap<String, String>;

/// One line as it was pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Place in [`Data::streams`].
    pub stream: usize,
    pub at: i64,
    pub text: String,
    pub metadata: Set,
}

#[derive(Clone, Debug)]
pub struct Data {
    pub streams: Vec<Set>,
    /// Everything is sealed between one phase and the next; the last stays in heads.
    pub phases: Vec<Vec<Line>>,
    /// Around these times there are lines.
    pub bursts: Vec<i64>,
}

impl Data {
    /// What the store must have: a line equal to one that is not sealed yet is dropped.
    pub fn stored(&self) -> Vec<Line> {
        let mut all: Vec<Line> = Vec::new();
        for phase in &self.phases {
            let before = all.len();
            for line in phase {
                if !all[before..].contains(line) {
                    all.push(line.clone());
                }
            }
        }
        all
    }
}

/// The start of the first day.
pub const BASE: i64 = 20_000 * DAY;

pub fn pick<'a, T: ?Sized>(random: &mut StdRng, choices: &[&'a T]) -> &'a T {
    choices[random.random_range(0..choices.len())]
}

pub fn chance(random: &mut StdRng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

pub fn generate(random: &mut StdRng) -> Data {
    let streams = streams(random);
    let bursts: Vec<i64> = (0..random.random_range(1..4))
        .map(|_| {
            let day = random.random_range(0..3) * DAY;
            // Some bursts lie around midnight.
            match random.random_range(0..3) {
                0 => BASE + day + DAY - MINUTE,
                _ => BASE + day + random.random_range(1..23) * HOUR,
            }
        })
        .collect();
    let mut phases = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let mut phase: Vec<Line> = Vec::new();
        for _ in 0..random.random_range(20..160) {
            if !phase.is_empty() && chance(random, 6) {
                let again = phase[random.random_range(0..phase.len())].clone();
                phase.push(again);
                continue;
            }
            phase.push(line(random, &streams, &bursts));
        }
        // Most pushes are in order, some are not.
        if chance(random, 50) {
            phase.sort_by_key(|line| line.at);
        }
        phases.push(phase);
    }
    // A push that was repeated after its first half was sealed.
    if phases.len() > 1 && chance(random, 30) {
        let again = phases[0][0].clone();
        phases[1].push(again);
    }
    Data {
        streams,
        phases,
        bursts,
    }
}

fn streams(random: &mut StdRng) -> Vec<Set> {
    let mut streams: Vec<Set> = Vec::new();
    for _ in 0..random.random_range(3..9) {
        let mut set = Set::new();
        set.insert("app".into(), pick(random, &["api", "web", "db"]).into());
        set.insert("host".into(), pick(random, &["h1", "h2", "h3"]).into());
        if chance(random, 50) {
            set.insert("env".into(), pick(random, &["prod", "dev"]).into());
        }
        if chance(random, 20) {
            let odd = pick(random, &["a\"b", "ö\\x", "1.5", "two words"]);
            set.insert("odd".into(), odd.into());
        }
        if chance(random, 20) {
            set.insert("level".into(), pick(random, &["info", "error"]).into());
        }
        if !streams.contains(&set) {
            streams.push(set);
        }
    }
    streams
}

fn line(random: &mut StdRng, streams: &[Set], bursts: &[i64]) -> Line {
    let burst = bursts[random.random_range(0..bursts.len())];
    let at = burst
        + match random.random_range(0..4) {
            // On the grid of most queries; several at one time.
            0 => random.random_range(0..40) * 15 * SECOND,
            1 => random.random_range(0..600) * SECOND,
            2 => random.random_range(0..10 * MINUTE),
            _ => random.random_range(0..600_000) * 1_000_000,
        };
    let mut metadata = Set::new();
    if chance(random, 40) {
        metadata.insert("trace".into(), pick(random, &["t1", "t2"]).into());
    }
    if chance(random, 15) {
        metadata.insert("status".into(), pick(random, &["200", "503"]).into());
    }
    if chance(random, 8) {
        metadata.insert("app".into(), pick(random, &["meta", "api"]).into());
    }
    Line {
        stream: random.random_range(0..streams.len()),
        at,
        text: text(random),
        metadata,
    }
}

fn text(random: &mut StdRng) -> String {
    match random.random_range(0..100) {
        0..38 => json(random),
        38..70 => logfmt(random),
        70..75 => {
            let inner = plain(random).replace('\\', "").replace('"', "'");
            let inner = inner.replace(['\n', '\x1b'], " ");
            let app = pick(random, &["packed", "api"]);
            let entry = pick(random, &["_entry", "_entry", "_other"]);
            format!(r#"{{"app": "{app}", "n": 1, "kind":"k","{entry}":"{inner}"}}"#)
        }
        75..77 => String::new(),
        _ => plain(random),
    }
}

const WORDS: [&str; 8] = [
    "error",
    "connection",
    "refused",
    "user",
    "timeout",
    "10.0.0.7",
    "größe",
    "GET",
];

fn plain(random: &mut StdRng) -> String {
    let ip = pick(random, &["10.0.0.7", "10.1.2.3", "192.168.1.20"]);
    let status = pick(random, &["200", "404", "503"]);
    match random.random_range(0..5) {
        0 => format!(
            "{ip} - alice [x] \"GET /path/{} HTTP/1.1\" {status} {}",
            random.random_range(0..20),
            random.random_range(0..5000)
        ),
        1 => format!("\x1b[31m{status}\x1b[0m \x1b[1;32mdone\x1b[0m"),
        2 => format!("panic: x\n  at f({ip})\n  at g({status})"),
        _ => {
            let mut text = String::new();
            for _ in 0..random.random_range(1..6) {
                text += WORDS[random.random_range(0..WORDS.len())];
                text += " ";
            }
            text.trim_end().to_owned()
        }
    }
}

fn number(random: &mut StdRng) -> String {
    match random.random_range(0..12) {
        0 => pick(random, &["0.5", "-3", "1e2", "2.25", "-0.5"]).to_owned(),
        1 => "1024.5".to_owned(),
        _ => random.random_range(0..40).to_string(),
    }
}

const DURATIONS: [&str; 7] = ["500ms", "1.5s", "2s", "1m", "250ms", "1h0m0.5s", "fast"];
const SIZES: [&str; 7] = ["1kB", "2 KiB", "1MiB", "512", "1.5kB", "3B", "big"];

fn json(random: &mut StdRng) -> String {
    let mut members: Vec<String> = Vec::new();
    let comma = pick(random, &[",", ", "]);
    for _ in 0..random.random_range(1..7) {
        let member = match random.random_range(0..14) {
            0 => format!(r#""level":"{}""#, pick(random, &["info", "error", "warn"])),
            1 => format!(
                r#""status": {}"#,
                pick(random, &["200", "404", "\"503\"", "\"abc\""])
            ),
            2 => format!(r#""dur":"{}""#, pick(random, &DURATIONS)),
            3 => format!(r#""size":"{}""#, pick(random, &SIZES)),
            4 | 5 => format!(r#""n":{}"#, number(random)),
            6 => r#""user":{"id":7,"name":"ann \"x\" é","tags":["a",{"k":1}]}"#.to_owned(),
            7 => r#""msg":"line\nbreak \u00fc \/ <b>""#.to_owned(),
            8 => format!(r#""app":"{}""#, pick(random, &["json", "api"])),
            9 => r#""none":null,"list":[1,"2"],"empty":"""#.to_owned(),
            10 => r#""ok":true,"a-b c":"dashed","9x":1"#.to_owned(),
            11 => format!(r#""trace":"{}""#, pick(random, &["t1", "t9"])),
            12 => format!(r#""ip":"{}""#, pick(random, &["10.0.0.7", "::1", "no"])),
            _ => r#""user_id":"flat","obj":{}"#.to_owned(),
        };
        members.push(member);
    }
    let whole = format!("{{{}}}", members.join(comma));
    match random.random_range(0..20) {
        // Cut somewhere.
        0 => {
            let mut cut = random.random_range(0..whole.len());
            while !whole.is_char_boundary(cut) {
                cut -= 1;
            }
            whole[..cut].to_owned()
        }
        1 => format!("  {whole} trailing"),
        _ => whole,
    }
}

fn logfmt(random: &mut StdRng) -> String {
    let mut pairs: Vec<String> = Vec::new();
    for _ in 0..random.random_range(1..8) {
        let pair = match random.random_range(0..14) {
            0 => format!("level={}", pick(random, &["info", "error", "warn"])),
            1 => format!("status={}", pick(random, &["200", "404", "503", "abc"])),
            2 => format!("dur={}", pick(random, &DURATIONS)),
            3 => format!("size=\"{}\"", pick(random, &SIZES)),
            4 | 5 => format!("n={}", number(random)),
            6 => format!("msg=\"{}\"", pick(random, &["two words", "q\\\"q", ""])),
            7 => format!("app={}", pick(random, &["fmt", "api"])),
            8 => "bare".to_owned(),
            9 => "empty=".to_owned(),
            10 => "user.id=7 9x=1".to_owned(),
            11 => format!("trace={}", pick(random, &["t1", "t9"])),
            12 => format!("ip={}", pick(random, &["10.0.0.7", "::1", "no"])),
            _ => pick(random, &["a=b=c", "=x", "k=v\"w", "größe=1"]).to_owned(),
        };
        pairs.push(pair);
    }
    let mut whole = pairs.join(" ");
    if chance(random, 4) {
        whole += " end=\"open";
    }
    whole
}
