//! What of the stored data can't be read: named once, counted, remembered over restarts.
//!
//! U1. Damage costs what is damaged: whoever meets it notes it here, leaves it out and goes on.
//! U2. A piece is noted once, however often it is met; the list is bounded, the counter is not.
//! U3. A day with a damaged table is never compacted by itself again: RocksDB would meet the
//!     damage there and take no more writes, for any day. So the list is kept in a file, which
//!     can be written when RocksDB can't.
//!
//! The file `DAMAGED`: a line a piece, `kind <tab> day <tab> place <tab> what`; `repair` empties
//! it, and what it has of a day goes with the day.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::metrics::{Counter, Family, Gauge, Metrics};

/// Pieces that are kept by name.
const MAX_PIECES: usize = 1000;
/// Lines of them that `/ready` shows.
const MAX_SHOWN: usize = 50;
/// Name of the list below a data directory.
pub const FILE: &str = "DAMAGED";

/// What sort of thing is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A stretch of a journal segment.
    Journal,
    /// A table of RocksDB: the rows of at least one of its blocks.
    Table,
    /// A chunk of lines.
    Chunk,
    /// A block of spans.
    Block,
    /// Something small beside them: a meta, a stream's labels, a record of calls.
    Record,
    /// The word index of a day.
    Index,
    /// RocksDB's list of its files.
    Manifest,
    /// What belongs to no day: positions of files, delete requests, the low-water mark.
    Meta,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Journal,
        Self::Table,
        Self::Chunk,
        Self::Block,
        Self::Record,
        Self::Index,
        Self::Manifest,
        Self::Meta,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Table => "table",
            Self::Chunk => "chunk",
            Self::Block => "block",
            Self::Record => "record",
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Meta => "meta",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub kind: Kind,
    /// Family of the day that it belongs to; empty for none.
    pub day: String,
    /// What it is within the day, such as `chunk 12`.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            day, place, what, ..
        } = self;
        match day.is_empty() {
            true => write!(f, "{place}: {what}"),
            false => write!(f, "{day} {place}: {what}"),
        }
    }
}

type ByKind = [(&'static str, &'static str); 1];

/// The list of a data directory.
pub struct Damage {
    /// `None`: not kept in a file.
    file: Option<PathBuf>,
    pieces: Mutex<Vec<Piece>>,
    found: Family<ByKind, Counter>,
    known: Gauge,
}

impl Damage {
    /// The list below `root`, with what was found before. Lines that can't be read are left out.
    pub fn open(root: &Path, metrics: &Metrics) -> Arc<Self> {
        let file = root.join(FILE);
        // Bytes and not text: one damaged letter must not cost the list.
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let pieces: Vec<Piece> = text.lines().filter_map(parse).take(MAX_PIECES).collect();
        let damage = Self {
            file: Some(file),
            pieces: Mutex::new(pieces),
            found: metrics.register(
                "damage_found",
                "Pieces of stored data that were found to be unreadable, by kind",
                Family::default(),
            ),
            known: metrics.gauge(
                "damaged_pieces",
                "Pieces of stored data known as unreadable",
            ),
        };
        for kind in Kind::ALL {
            drop(damage.found.get_or_create(&[("kind", kind.as_str())]));
        }
        damage.known.set(damage.pieces.lock().len() as i64);
        Arc::new(damage)
    }

    /// A list for looking only: in memory, empty.
    pub fn in_memory() -> Arc<Self> {
        Arc::new(Self {
            file: None,
            pieces: Mutex::default(),
            found: Family::default(),
            known: Gauge::default(),
        })
    }

    /// Notes a piece; true when it was not known.
    pub fn note(&self, kind: Kind, day: &str, place: &str, what: &str) -> bool {
        let mut pieces = self.pieces.lock();
        let known = |p: &Piece| p.kind == kind && p.day == day && p.place == place;
        if pieces.iter().any(known) {
            return false;
        }
        self.count(kind);
        let piece = Piece {
            kind,
            day: one_line(day),
            place: one_line(place),
            what: one_line(what),
        };
        tracing::error!(kind = kind.as_str(), "damaged: {piece}");
        if pieces.len() < MAX_PIECES {
            pieces.push(piece);
            self.save(&pieces);
        }
        true
    }

    /// Counts something that is named elsewhere or goes away by itself.
    pub fn count(&self, kind: Kind) {
        self.found.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// Whether a table of a day's family is damaged (U3).
    pub fn has_table(&self, day: &str) -> bool {
        let pieces = self.pieces.lock();
        pieces.iter().any(|p| p.kind == Kind::Table && p.day == day)
    }

    /// All pieces known.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces.lock().clone()
    }

    /// The same for `/ready`.
    pub fn lines(&self) -> Vec<String> {
        let pieces = self.pieces.lock();
        let shown = pieces.iter().take(MAX_SHOWN);
        let mut lines: Vec<String> = shown.map(|p| format!("damaged: {p}")).collect();
        if pieces.len() > MAX_SHOWN {
            let more = pieces.len() - MAX_SHOWN;
            lines.push(format!("damaged: {more} more, see {FILE} in storage.path"));
        }
        lines
    }

    /// Forgets the pieces that `gone` names: their day was dropped, or they were repaired.
    pub fn forget(&self, gone: impl Fn(&Piece) -> bool) {
        let mut pieces = self.pieces.lock();
        let before = pieces.len();
        pieces.retain(|p| !gone(p));
        if pieces.len() < before {
            self.save(&pieces);
        }
    }

    /// Writes the list. That it can't be written is told and no more: it is a help, not data.
    fn save(&self, pieces: &[Piece]) {
        self.known.set(pieces.len() as i64);
        let Some(file) = &self.file else {
            return;
        };
        let written = if pieces.is_empty() {
            match std::fs::remove_file(file) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        } else {
            let mut text = String::new();
            for Piece {
                kind,
                day,
                place,
                what,
            } in pieces
            {
                text.push_str(&format!("{}\t{day}\t{place}\t{what}\n", kind.as_str()));
            }
            super::files::replace(file, text.as_bytes())
        };
        if let Err(error) = written {
            tracing::error!(file = %file.display(), "the list of damage is not kept: {error}");
        }
    }
}

fn one_line(text: &str) -> String {
    // RocksDB's texts may be long.
    let some = text.chars().take(400);
    some.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn parse(line: &str) -> Option<Piece> {
    let mut parts = line.split('\t');
    let kind = Kind::parse(parts.next()?)?;
    let mut next = || parts.next().map(str::to_owned);
    let (day, place, what) = (next()?, next()?, next()?);
    Some(Piece {
        kind,
        day,
        place,
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_noted_once_and_remembered_until_its_day_goes() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let damage = Damage::open(dir.path(), &metrics);
        assert!(damage.note(Kind::Chunk, "log-20260101", "chunk 3", "a\tb\nc"));
        assert!(!damage.note(Kind::Chunk, "log-20260101", "chunk 3", "again"));
        assert!(damage.note(Kind::Table, "span-20260101", "000012.sst", "checksum"));
        assert!(damage.has_table("span-20260101") && !damage.has_table("log-20260101"));
        let text = metrics.render();
        assert!(text.contains("watchpost_damage_found_total{kind=\"chunk\"} 1"));
        assert!(text.contains("watchpost_damaged_pieces 2"), "{text}");

        let again = Damage::open(dir.path(), &Metrics::default());
        assert_eq!(again.pieces(), damage.pieces());
        assert_eq!(
            again.lines(),
            [
                "damaged: log-20260101 chunk 3: a b c",
                "damaged: span-20260101 000012.sst: checksum"
            ]
        );
        again.forget(|p| p.day == "span-20260101");
        assert_eq!(
            Damage::open(dir.path(), &Metrics::default()).pieces().len(),
            1
        );
        again.forget(|_| true);
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn a_list_that_is_damaged_itself_costs_its_damaged_lines() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"chunk\td\tchunk 1\tx\n\xffunk\td\tchunk 2\tx\nshort\nblock\td\tblock 3\tx\n";
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let places: Vec<_> = Damage::open(dir.path(), &Metrics::default()).pieces();
        assert_eq!(places.len(), 2);
    }
}
