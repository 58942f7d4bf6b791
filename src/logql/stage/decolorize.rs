//! `| decolorize`: removes ANSI escape sequences.

use std::sync::OnceLock;

use regex::bytes::Regex;

use super::{Step, Verdict};
use crate::logql::entry::Entry;

/// Control sequences (`ESC [ … letter`), operating system commands up to their end, and the
/// two-character escapes.
const SEQUENCE: &str = concat!(
    r"(?-u)(?:\x1b|\xc2\x9b)",
    r"(?:\][^\x07\x1b]*(?:\x07|\x1b\\)",
    r"|[\[\]()#;?]*(?:[0-9]{1,4}(?:;[0-9]{0,4})*)?[0-9A-PR-TZcf-nq-uy=><~])"
);

#[derive(Debug, Default)]
pub struct Decolorize {
    sequence: OnceLock<Option<Regex>>,
}

impl Step for Decolorize {
    fn run(&self, entry: &mut Entry<'_>) -> Verdict {
        let line = entry.line();
        if memchr::memchr2(0x1b, 0x9b, line).is_none() {
            return Verdict::Keep;
        }
        let Some(sequence) = self.sequence.get_or_init(|| Regex::new(SEQUENCE).ok()) else {
            return Verdict::Keep;
        };
        let cleaned = entry.with_line(|entry, line, _| {
            let start = entry.arena().len();
            let mut at = 0;
            for found in sequence.find_iter(line) {
                entry.arena().extend_from_slice(&line[at..found.start()]);
                at = found.end();
            }
            entry.arena().extend_from_slice(&line[at..]);
            entry.since(start)
        });
        entry.set_line(cleaned);
        Verdict::Keep
    }
}
