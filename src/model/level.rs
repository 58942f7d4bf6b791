//! The severity of a log line, found as Loki's `detected_level` finds it.
//!
//! Computed from what is stored, when somebody asks: a line's level never changes.
//! No allocation, whatever the line.

use std::borrow::Cow;

use super::labels::Labels;

/// Keys that name a level, in order of preference.
pub const KEYS: [&str; 14] = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
];

/// A known severity, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
    Fatal,
    Unknown,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Fatal => "fatal",
            Self::Unknown => "unknown",
        }
    }

    /// The level that a value means, in any case; `None` when it is none of those known.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        const NAMES: [(&str, Level); 14] = [
            ("info", Level::Info),
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("debug", Level::Debug),
            ("warning", Level::Warn),
            ("err", Level::Error),
            ("trace", Level::Trace),
            ("critical", Level::Critical),
            ("fatal", Level::Fatal),
            ("inf", Level::Info),
            ("information", Level::Info),
            ("wrn", Level::Warn),
            ("dbg", Level::Debug),
            ("trc", Level::Trace),
        ];
        NAMES
            .iter()
            .find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes()))
            .map(|n| n.1)
    }
}

/// What `detected_level` says: a known level, or a value that a label gave and nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected<'a> {
    Level(Level),
    /// Kept as it is.
    Other(&'a str),
}

impl<'a> Detected<'a> {
    pub fn as_str(self) -> &'a str {
        match self {
            Self::Level(level) => level.as_str(),
            Self::Other(value) => value,
        }
    }

    fn of(value: &'a str) -> Self {
        Level::of_value(value.as_bytes()).map_or(Self::Other(value), Self::Level)
    }
}

/// The level that labels alone decide for all lines of a stream that bring no
/// `detected_level` of their own. `None`: metadata and line decide.
pub fn level_of_labels(labels: &Labels) -> Option<Detected<'_>> {
    KEYS.iter()
        .find_map(|key| labels.get(key))
        .map(Detected::of)
}

/// The `detected_level` of a line.
pub fn detect_level<'a, N: AsRef<str>, V: AsRef<str>>(
    labels: &'a Labels,
    metadata: &'a [(N, V)],
    line: &[u8],
) -> Detected<'a> {
    let of_metadata = |key: &str| {
        let (_, value) = metadata.iter().find(|(name, _)| name.as_ref() == key)?;
        // An empty value is none.
        Some(value.as_ref()).filter(|value| !value.is_empty())
    };
    if !metadata.is_empty()
        && let Some(value) = of_metadata("detected_level")
    {
        return Detected::of(value);
    }
    if let Some(level) = level_of_labels(labels) {
        return level;
    }
    if !metadata.is_empty() {
        if let Some(value) = KEYS.iter().find_map(|key| of_metadata(key)) {
            return Detected::of(value);
        }
        if let Some(number) = of_metadata("severity_number") {
            return Detected::Level(level_of_severity(number));
        }
    }
    Detected::Level(level_of_line(line))
}

/// OpenTelemetry's severity numbers.
fn level_of_severity(number: &str) -> Level {
    match number.parse::<i64>() {
        Err(_) => Level::Info,
        Ok(1..=4) => Level::Trace,
        Ok(5..=8) => Level::Debug,
        Ok(9..=12) => Level::Info,
        Ok(13..=16) => Level::Warn,
        Ok(17..=20) => Level::Error,
        Ok(21..=24) => Level::Fatal,
        Ok(_) => Level::Unknown,
    }
}

/// The level that a line's text tells: a JSON or logfmt field, else the first level word.
pub fn level_of_line(line: &[u8]) -> Level {
    let trimmed = line.trim_ascii();
    let found = if trimmed.first() == Some(&b'{') && trimmed.last() == Some(&b'}') {
        json_level(trimmed)
    } else if memchr::memchr(b'=', line).is_some() {
        logfmt_level(line)
    } else {
        None
    };
    found.or_else(|| word_level(line)).unwrap_or(Level::Unknown)
}

/// Whether a key may be one of [`KEYS`], in any case: few others pass.
fn is_like_key(key: &[u8]) -> bool {
    let first = key.first().map_or(0, u8::to_ascii_lowercase);
    matches!((first, key.len()), (b'l', 3 | 5 | 9) | (b's', 8 | 12 | 13))
}

/// A position in [`KEYS`]: exact case.
fn key_rank(key: &[u8]) -> Option<usize> {
    if !is_like_key(key) {
        return None;
    }
    KEYS.iter().position(|k| k.as_bytes() == key)
}

/// The known level of the first key of the list with a string value; members in order of
/// the text, going into objects two levels deep.
fn json_level(line: &[u8]) -> Option<Level> {
    let mut json = Json { line, at: 0 };
    let value = json.find(1)??;
    Level::of_value(&value)
}

/// Objects nested deeper than this are not looked into.
const JSON_DEPTH: usize = 2;

/// Just enough of JSON to walk over an object. Broken text ends the walk.
struct Json<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    /// Walks the object that begins here. `None`: broken. `Some(None)`: no such key.
    fn find(&mut self, depth: usize) -> Option<Option<Cow<'a, [u8]>>> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(None);
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            match self.peek()? {
                b'"' => {
                    let value = self.string()?;
                    if key_rank(&key).is_some() {
                        return Some(Some(value));
                    }
                }
                b'{' if depth < JSON_DEPTH => {
                    if let Some(found) = self.find(depth + 1)? {
                        return Some(Some(found));
                    }
                }
                b'{' | b'[' => self.skip_nested()?,
                _ => self.skip_scalar(),
            }
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(None);
            }
        }
    }

    fn peek(&mut self) -> Option<u8> {
        while self.line.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.line.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// A string's content; escapes are only undone as far as keys and levels need them:
    /// not at all.
    fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let rest = self.line.get(self.at..)?;
            let at = self.at + memchr::memchr2(b'"', b'\\', rest)?;
            if self.line.get(at) == Some(&b'"') {
                self.at = at + 1;
                return self.line.get(start..at).map(Cow::Borrowed);
            }
            self.at = at + 2;
        }
    }

    /// Steps over an object or array without looking inside.
    fn skip_nested(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.checked_sub(1)?,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Some(());
            }
        }
    }

    fn skip_scalar(&mut self) {
        let rest = self.line.get(self.at..).unwrap_or_default();
        self.at += rest
            .iter()
            .position(|b| matches!(b, b',' | b'}' | b']'))
            .unwrap_or(rest.len());
    }
}

/// The known level of the key that comes first in the list, compared without case; of
/// equal keys the first in the line.
fn logfmt_level(line: &[u8]) -> Option<Level> {
    let mut best: Option<(usize, &[u8])> = None;
    let mut rest = line;
    while let Some((key, value, after)) = next_pair(rest) {
        rest = after;
        if !is_like_key(key) {
            continue;
        }
        let rank = KEYS
            .iter()
            .position(|k| k.as_bytes().eq_ignore_ascii_case(key));
        if let Some(rank) = rank
            && best.is_none_or(|(known, _)| rank < known)
        {
            best = Some((rank, value));
            if rank == 0 {
                break;
            }
        }
    }
    Level::of_value(best?.1)
}

/// The next `key=value` of a logfmt line and what follows it.
fn next_pair(mut rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    loop {
        let start = rest.iter().position(|b| *b > b' ')?;
        rest = rest.get(start..)?;
        let end = rest
            .iter()
            .position(|b| *b <= b' ' || *b == b'=')
            .unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some((b'=', value)) = after.split_first() else {
            // A bare word.
            rest = after;
            continue;
        };
        if value.first() == Some(&b'"') {
            let mut at = 1;
            loop {
                match value.get(at) {
                    // Not closed: nothing sensible follows.
                    None => return Some((key, value.get(1..)?, &[])),
                    Some(b'"') => return Some((key, value.get(1..at)?, value.get(at + 1..)?)),
                    Some(b'\\') => at += 2,
                    Some(_) => at += 1,
                }
            }
        }
        let end = value.iter().position(|b| *b <= b' ').unwrap_or(value.len());
        let (value, after) = value.split_at(end);
        return Some((key, value, after));
    }
}

/// The earliest whole word that names a level, in any case.
fn word_level(line: &[u8]) -> Option<Level> {
    const WORDS: [(&[u8], Level); 9] = [
        (b"trace", Level::Trace),
        (b"debug", Level::Debug),
        (b"fatal", Level::Fatal),
        (b"critical", Level::Critical),
        (b"error", Level::Error),
        (b"err", Level::Error),
        (b"warning", Level::Warn),
        (b"warn", Level::Warn),
        (b"info", Level::Info),
    ];
    let mut at = 0;
    while at < line.len() {
        let (class, len) = (CLASS[usize::from(line[at])], run_len(&line[at..]));
        if class & LETTER != 0 {
            let left = at == 0 || CLASS[usize::from(line[at - 1])] & LEFT != 0;
            let right = line
                .get(at + len)
                .is_none_or(|b| CLASS[usize::from(*b)] & RIGHT != 0);
            if (3..=8).contains(&len) && left && right {
                let word = &line[at..at + len];
                let found = WORDS.iter().find(|(w, _)| word.eq_ignore_ascii_case(w));
                if let Some((_, level)) = found {
                    return Some(*level);
                }
            }
        }
        at += len;
    }
    None
}

/// Length of the run of letters, or of non-letters, at the start; at least 1.
fn run_len(text: &[u8]) -> usize {
    let letter = |b: &u8| CLASS[usize::from(*b)] & LETTER != 0;
    let first = text.first().is_some_and(letter);
    text.iter()
        .position(|b| letter(b) != first)
        .unwrap_or(text.len())
        .max(1)
}

const LETTER: u8 = 1;
/// May stand before a level word.
const LEFT: u8 = 2;
/// May stand behind one.
const RIGHT: u8 = 4;

/// What each byte can be.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphabetic() {
            class[i] = LETTER;
        }
        if matches!(b, b' ' | b'\t' | b'\n' | b'[' | b'(' | b'{' | b'"' | b'=') {
            class[i] |= LEFT;
        }
        if matches!(
            b,
            b' ' | b'\t'
                | b'\n'
                | b'['
                | b']'
                | b'('
                | b')'
                | b'{'
                | b'}'
                | b':'
                | b','
                | b'!'
                | b'"'
                | b'='
        ) {
            class[i] |= RIGHT;
        }
        i += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, level: Level) {
        assert_eq!(level_of_line(line.as_bytes()), level, "{line}");
    }

    #[test]
    fn words_count_only_between_the_right_neighbours() {
        check("an error: x", Level::Error);
        check("misc:error", Level::Unknown);
        check("ERROR", Level::Error);
        check("[WARN] debug", Level::Warn);
        check("errors happen", Level::Unknown);
        check("error1 err", Level::Error);
        check("no-error (info)", Level::Info);
        check("error.", Level::Unknown);
        check("warning! info", Level::Warn);
        check("(fatal)", Level::Fatal);
        check("critical, debug", Level::Critical);
        check("wrn dbg", Level::Unknown);
        check("trace\ndebug", Level::Trace);
        check("_error error_", Level::Unknown);
        check("", Level::Unknown);
    }

    #[test]
    fn logfmt_goes_by_the_order_of_the_list_and_not_of_the_line() {
        check("lvl=warn level=error", Level::Error);
        check("LeVeL=dbg", Level::Debug);
        check(
            r#"msg="level=error \" x" severity=INFORMATION"#,
            Level::Info,
        );
        check(r#"level="critical""#, Level::Critical);
        // Not a known level: the words decide.
        check("level=notice an error", Level::Error);
        check("a=b info", Level::Info);
        check("level=", Level::Unknown);
        check(r#"level="warn"#, Level::Warn);
        check("= level=warn", Level::Warn);
    }

    #[test]
    fn json_is_looked_into_two_levels_deep_for_strings() {
        check(r#" {"level":"warn"} "#, Level::Warn);
        check(r#"{"a":{"level":"error"},"level":"info"}"#, Level::Error);
        check(r#"{"a":{"b":{"level":"fatal"}},"lvl":"trc"}"#, Level::Trace);
        check(
            r#"{"a":["level",{"level":"x"}],"Severity":"WRN"}"#,
            Level::Warn,
        );
        check(r#"{"level":30,"msg":"x","lvl":"debug"}"#, Level::Debug);
        check(r#"{"LeVeL":"error","msg":"info"}"#, Level::Error);
        check(r#"{"msg":"a \" info","level":"error"}"#, Level::Error);
        check(r#"{"x":1}"#, Level::Unknown);
        check(r#"{"level":"warn""#, Level::Warn);
        check(r#"{"a":}"#, Level::Unknown);
    }

    #[test]
    fn labels_and_metadata_come_before_the_line() {
        let none: [(&str, &str); 0] = [];
        let labels = Labels::from_pairs([("app", "x"), ("level", "WARN")]);
        let plain = Labels::from_pairs([("app", "x")]);
        let known = |level| Detected::Level(level);
        assert_eq!(detect_level(&labels, &none, b"error"), known(Level::Warn));
        assert_eq!(
            detect_level(&labels, &[("detected_level", "Dbg")], b"error"),
            known(Level::Debug)
        );
        assert_eq!(
            detect_level(&plain, &[("lvl", "notice")], b"error"),
            Detected::Other("notice")
        );
        assert_eq!(
            detect_level(&plain, &[("lvl", "warn"), ("severity", "inf")], b"error"),
            known(Level::Info)
        );
        for (number, level) in [
            ("0", Level::Unknown),
            ("1", Level::Trace),
            ("8", Level::Debug),
            ("12", Level::Info),
            ("13", Level::Warn),
            ("17", Level::Error),
            ("24", Level::Fatal),
            ("25", Level::Unknown),
            ("x", Level::Info),
        ] {
            assert_eq!(
                detect_level(&plain, &[("severity_number", number)], b""),
                known(level)
            );
        }
        assert_eq!(detect_level(&plain, &none, b"error"), known(Level::Error));
    }

    #[test]
    fn any_line_has_a_level() {
        proptest::proptest!(|(line in r#"[{}\[\]":,= \\a-eA-E]{0,20}|(\{|level|lvl|=|"|:|warn|\\|,|\}| ){0,12}"#)| {
            let _ = level_of_line(line.as_bytes());
        });
    }
}
