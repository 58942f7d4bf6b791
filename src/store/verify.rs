//! Reads everything of a data directory and says what is damaged, without changing it; whether a
//! process has it open or not.
//!
//! W1. What is verified: the format version, RocksDB's list of files, every journal record, every
//!     row of every table and every blob by RocksDB's checksums, every chunk, block and record
//!     beside them by its own checksum or by decoding it, metas against what they describe,
//!     labels against their stream's id, every file of the word indices.
//! W2. A day in which something is found while a process runs is read again from a new view: what
//!     was dropped or compacted away meanwhile is no damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::chunk::{ChunkMeta, ChunkReader};
use super::damage::Kind;
use super::deletion::DeleteRequest;
use super::error::StoreError;
use super::head::Through;
use super::index::{DayIndex, FilterView};
use super::journal::append::{Segment, list_segments, read_record};
use super::journal::record::{RecordKind, SEGMENT_HEADER, SEGMENT_MAGIC, decode_batch};
use super::journal::resync::{find_record, is_zero};
use super::kv::Kv;
use super::layout::{
    ARCHIVE_FAMILY, DELETE_PREFIX, FORMAT_VERSION, LOW_WATER_KEY, Layout, META_FAMILY,
    OLDER_FORMATS, PartitionId, Signal, number_key, number_of_key, prefix,
};
use super::links::record::LinkRecord;
use super::manifest;
use super::options::Decoder;
use super::patterns;
use super::span::run::{TagHash, look_up};
use super::span::summary::{self, Cell, Tally};
use super::span::{BlockMeta, SpanBlock};
use super::streams::decode_stream;
use crate::model::time::Timestamp;
use crate::model::{Labels, StreamId};

/// Something that is damaged.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    /// Family of the day; empty for what belongs to none.
    pub day: String,
    /// Such as `chunk 12`.
    pub place: String,
    pub what: String,
    /// What it holds, as far as that is known: stream, times, number of lines or spans.
    pub holds: String,
    pub cause: Cause,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.day.is_empty() {
            write!(f, "{} ", self.day)?;
        }
        f.write_str(&self.place)?;
        if !self.holds.is_empty() {
            write!(f, " ({})", self.holds)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What repairing has to deal with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A chunk or block that can't be read.
    Data(u32),
    /// A chunk or block that can be read, but not its meta.
    Meta(u32),
    /// A row beside a chunk or block, by its key.
    Row(Box<[u8]>),
    /// Labels of a stream.
    Stream(StreamId),
    /// Rows of a table, one cannot say which.
    Table,
    Index,
    /// A stretch of a journal segment.
    Journal,
    Format,
    Manifest,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub segments: u64,
    pub records: u64,
    pub days: u64,
    pub chunks: u64,
    pub lines: u64,
    pub blocks: u64,
    pub spans: u64,
    pub indices: u64,
}

/// Verifies the directory; findings are told as they are made.
pub fn directory(
    path: &Path,
    decoder: &Decoder,
    tell: &mut dyn FnMut(Finding),
) -> Result<Checked, StoreError> {
    let layout = Layout::new(path);
    let running = is_in_use(&layout);
    walk(&layout, decoder, running, tell)
}

/// The same; `running`: another process has it open.
pub fn walk(
    layout: &Layout,
    decoder: &Decoder,
    running: bool,
    tell: &mut dyn FnMut(Finding),
) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    check_format(layout, tell)?;
    if let Err(error) = manifest::verify(layout) {
        let cause = Cause::Manifest;
        tell(at(Kind::Manifest, "", "db", error.to_string(), cause));
    }
    journal(layout, decoder, running, &mut checked, tell)?;
    if !layout.db_dir().join("CURRENT").exists() {
        return Ok(checked);
    }
    let mut kv = match Kv::open_read_only(&layout.db_dir()) {
        Ok(kv) => kv,
        Err(error) => {
            let (kind, cause) = (Kind::Manifest, Cause::Manifest);
            tell(at(
                kind,
                "",
                "db",
                format!("can't be opened: {error}"),
                cause,
            ));
            return Ok(checked);
        }
    };
    let mut names = Kv::families(&layout.db_dir())?;
    names.sort();
    names.push(META_FAMILY.to_owned());
    names.push(ARCHIVE_FAMILY.to_owned());
    for name in names {
        let before = checked;
        let mut found = family(&kv, layout, &name, &mut checked)?;
        if running && !found.is_empty() {
            kv = Kv::open_read_only(&layout.db_dir())?;
            checked = before;
            found = family(&kv, layout, &name, &mut checked)?;
        }
        found.into_iter().for_each(&mut *tell);
    }
    Ok(checked)
}

fn at(kind: Kind, day: &str, place: &str, what: impl Into<String>, cause: Cause) -> Finding {
    Finding {
        kind,
        day: day.to_owned(),
        place: place.to_owned(),
        what: what.into(),
        holds: String::new(),
        cause,
    }
}

fn check_format(layout: &Layout, tell: &mut dyn FnMut(Finding)) -> Result<(), StoreError> {
    let path = layout.format_file();
    let what = match std::fs::read(&path) {
        Ok(bytes) => match std::str::from_utf8(&bytes)
            .ok()
            .map(|t| t.trim().parse::<u32>())
        {
            Some(Ok(FORMAT_VERSION)) => return Ok(()),
            Some(Ok(older)) if OLDER_FORMATS.contains(&older) => return Ok(()),
            Some(Ok(version)) => format!("version {version}, this program reads {FORMAT_VERSION}"),
            _ => "is no number".to_owned(),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && layout.db_dir().exists() => {
            "is missing".to_owned()
        }
        Err(e) => return Err(StoreError::io(&path, "read", e)),
    };
    tell(at(Kind::Meta, "", "FORMAT", what, Cause::Format));
    Ok(())
}

/// Whether a process has the directory open. Holds nothing: one may start at any time.
pub fn is_in_use(layout: &Layout) -> bool {
    let Ok(file) = File::open(layout.lock_file()) else {
        return false;
    };
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    rustix::fs::flock(&file, shared) == Err(rustix::io::Errno::WOULDBLOCK)
}

// ---- the journal

fn journal(
    layout: &Layout,
    decoder: &Decoder,
    running: bool,
    checked: &mut Checked,
    tell: &mut dyn FnMut(Finding),
) -> Result<(), StoreError> {
    let segments = match list_segments(&layout.journal_dir()) {
        Ok(segments) => segments,
        Err(_) if !layout.journal_dir().exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    let last = segments.len().saturating_sub(1);
    for (n, segment) in segments.iter().enumerate() {
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            // Forgotten meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io(&segment.path, "open", e)),
        };
        checked.segments += 1;
        let growing = running && n == last;
        for (from, to, what) in damaged_parts(segment, &file, n == last, decoder, checked)? {
            // Of a process that writes, the end may be half a record.
            if growing && to == segment.bytes {
                continue;
            }
            let name = segment.path.file_name().unwrap_or_default();
            let place = format!("journal/{} bytes {from} to {to}", name.display());
            tell(at(Kind::Journal, "", &place, what, Cause::Journal));
        }
    }
    Ok(())
}

/// Stretches of a segment that are no whole records, from byte to byte, and what is wrong. Only the
/// last one may end with zeros (J6).
fn damaged_parts(
    segment: &Segment,
    file: &File,
    is_last: bool,
    decoder: &Decoder,
    checked: &mut Checked,
) -> Result<Vec<(u64, u64, String)>, StoreError> {
    use std::os::unix::fs::FileExt;
    let mut parts = Vec::new();
    let mut header = [0; SEGMENT_HEADER];
    let whole = file.read_exact_at(&mut header, 0).is_ok();
    let first_seq = segment.first_seq.to_le_bytes();
    if !whole || !header.starts_with(SEGMENT_MAGIC) || header[SEGMENT_MAGIC.len()..] != first_seq {
        let end = segment.bytes.min(SEGMENT_HEADER as u64);
        parts.push((0, end, "the header is wrong".to_owned()));
    }
    let (mut offset, mut seq) = (SEGMENT_HEADER as u64, segment.first_seq);
    while offset < segment.bytes {
        let read = read_record(file, &segment.path, offset, segment.bytes)?;
        if let Some((record, end)) = read {
            let decoded = match record.header.kind {
                RecordKind::LogsOwn => decode_batch(&record.body).map(drop),
                _ => decoder(&record).map(drop),
            };
            if let Err(what) = decoded {
                let what = format!("record {}: {what}", record.header.seq);
                parts.push((offset, end, what));
            }
            checked.records += 1;
            (offset, seq) = (end, record.header.seq + 1);
            continue;
        }
        let next = find_record(file, &segment.path, offset + 1, segment.bytes, seq)?;
        // Room that a process which was killed had made for records to come.
        if is_last && next.is_none() && is_zero(file, &segment.path, offset, segment.bytes)? {
            break;
        }
        let end = next.unwrap_or(segment.bytes);
        let what = match next {
            Some(_) => "damaged".to_owned(),
            None => "damaged, or a torn end; a power failure leaves one".to_owned(),
        };
        parts.push((offset, end, what));
        offset = end;
    }
    Ok(parts)
}

// ---- the database

/// What is damaged in a family: a day, `meta` or `archive`.
pub fn family(
    kv: &Kv,
    layout: &Layout,
    name: &str,
    checked: &mut Checked,
) -> Result<Vec<Finding>, StoreError> {
    let mut found = Vec::new();
    let walked = match (name, PartitionId::parse_family(name)) {
        (META_FAMILY, _) => meta(kv, &mut found),
        (ARCHIVE_FAMILY, _) => archive(kv, &mut found),
        (_, Some((id, _))) => {
            checked.days += 1;
            let day = Day {
                kv,
                name,
                found: &mut found,
                checked,
            };
            let walked = match id.signal {
                Signal::Logs => day.logs(),
                Signal::Spans => day.spans(),
            };
            index(layout, name, checked, &mut found);
            walked
        }
        (_, None) => {
            let what = "a family that this program does not know";
            found.push(at(Kind::Table, name, "", what, Cause::Table));
            Ok(())
        }
    };
    match walked {
        // Dropped meanwhile, or there was never one.
        Err(StoreError::Gone(_)) => return Ok(Vec::new()),
        walked => walked?,
    }
    for piece in kv.damage().pieces() {
        if piece.day == name {
            found.push(at(piece.kind, name, &piece.place, piece.what, Cause::Table));
        }
    }
    kv.damage().forget(|piece| piece.day == name);
    Ok(found)
}

fn index(layout: &Layout, name: &str, checked: &mut Checked, found: &mut Vec<Finding>) {
    match DayIndex::new(layout.index_of(name)).verify() {
        Ok(Some(_)) => checked.indices += 1,
        Ok(None) => {}
        Err(error) => {
            found.push(at(
                Kind::Index,
                name,
                "index",
                error.to_string(),
                Cause::Index,
            ));
        }
    }
}

fn meta(kv: &Kv, found: &mut Vec<Finding>) -> Result<(), StoreError> {
    kv.scan(META_FAMILY, b"", |key, value| {
        let wrong = if key == LOW_WATER_KEY {
            (value.len() != 8).then(|| "is no number".to_owned())
        } else if let Some(id) = key.strip_prefix(DELETE_PREFIX) {
            DeleteRequest::decode(id, value).err()
        } else {
            None
        };
        if let Some(what) = wrong {
            let place = String::from_utf8_lossy(key).into_owned();
            let cause = Cause::Row(key.into());
            found.push(at(Kind::Meta, META_FAMILY, &place, what, cause));
        }
        true
    })
}

fn archive(kv: &Kv, found: &mut Vec<Finding>) -> Result<(), StoreError> {
    kv.scan(ARCHIVE_FAMILY, b"", |key, value| {
        let wrong = match key.first() {
            Some(0) => SpanBlock::decode(value).err().map(|e| e.to_string()),
            _ => (value.len() != 4).then(|| "is no number".to_owned()),
        };
        if let Some(what) = wrong {
            let place = format!("row {}", hex(key));
            let cause = Cause::Row(key.into());
            found.push(at(Kind::Block, ARCHIVE_FAMILY, &place, what, cause));
        }
        true
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Day<'a> {
    kv: &'a Kv,
    name: &'a str,
    found: &'a mut Vec<Finding>,
    checked: &'a mut Checked,
}

impl Day<'_> {
    fn add(&mut self, kind: Kind, place: String, what: String, holds: String, cause: Cause) {
        let day = self.name.to_owned();
        self.found.push(Finding {
            kind,
            day,
            place,
            what,
            holds,
            cause,
        });
    }

    fn row(&mut self, place: String, what: String, key: &[u8]) {
        self.add(
            Kind::Record,
            place,
            what,
            String::new(),
            Cause::Row(key.into()),
        );
    }

    fn logs(mut self) -> Result<(), StoreError> {
        let kv = self.kv;
        let streams = self.streams()?;
        let name = |id: StreamId| match streams.get(&id) {
            Some(labels) => labels.to_string(),
            None => format!("stream {}", hex(&id.to_bytes())),
        };
        let mut metas: BTreeMap<u32, Option<ChunkMeta>> = BTreeMap::new();
        let mut nameless: BTreeMap<StreamId, u64> = BTreeMap::new();
        kv.scan(self.name, &[prefix::META], |key, value| {
            let number = number_of_key(key).unwrap_or(0);
            let meta = ChunkMeta::decode(number, value);
            if let Err(what) = &meta {
                let place = format!("chunk {number}");
                let cause = Cause::Meta(number);
                self.add(
                    Kind::Chunk,
                    place,
                    format!("meta: {what}"),
                    String::new(),
                    cause,
                );
            }
            if let Ok(meta) = &meta
                && !meta.is_emptied()
                && !streams.contains_key(&meta.stream)
            {
                *nameless.entry(meta.stream).or_default() += 1;
            }
            metas.insert(number, meta.ok());
            true
        })?;
        for (id, chunks) in nameless {
            let place = format!("labels of stream {}", hex(&id.to_bytes()));
            let what = format!("are missing, for {chunks} chunks");
            self.add(Kind::Record, place, what, String::new(), Cause::Stream(id));
        }
        let mut seen: BTreeMap<u32, ()> = BTreeMap::new();
        kv.scan(self.name, &[prefix::DATA], |key, value| {
            let number = number_of_key(key).unwrap_or(0);
            seen.insert(number, ());
            self.chunk(number, metas.get(&number), value, &name);
            true
        })?;
        for (number, meta) in &metas {
            let gone = meta.as_ref().is_some_and(ChunkMeta::is_emptied);
            if gone || seen.contains_key(number) {
                continue;
            }
            self.missing(
                *number,
                meta.as_ref()
                    .map(|m| chunk_holds(m, &name))
                    .unwrap_or_default(),
                |day, value| {
                    day.chunk(*number, Some(meta), value, &name);
                },
            )?;
        }
        self.filters()?;
        kv.scan(self.name, &[prefix::PATTERNS], |key, value| {
            if let Err(what) = patterns::decode(value, |_| ()) {
                self.row(place_of("patterns of chunk", key), what, key);
            }
            true
        })?;
        kv.scan(self.name, &[prefix::SEALED_THROUGH], |key, value| {
            if Through::decode(value).is_none() {
                self.row("a journal position".into(), "is too short".into(), key);
            }
            true
        })?;
        kv.scan(self.name, &[prefix::SEQ], |key, value| {
            if value.len() != 8 {
                self.row(
                    place_of("last record of chunk", key),
                    "is no number".into(),
                    key,
                );
            }
            true
        })
    }

    /// Reads what a scan did not show of a chunk or block that has a meta.
    fn missing(
        &mut self,
        number: u32,
        holds: String,
        whole: impl FnOnce(&mut Self, &[u8]),
    ) -> Result<(), StoreError> {
        let key = number_key(prefix::DATA, number);
        let kv = self.kv;
        let what = match kv.get(self.name, &key, <[u8]>::to_vec) {
            Ok(Some(value)) => {
                whole(self, &value);
                return Ok(());
            }
            Ok(None) => "is missing".to_owned(),
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(error),
        };
        let (kind, place) = match self.name.starts_with("log-") {
            true => (Kind::Chunk, format!("chunk {number}")),
            false => (Kind::Block, format!("block {number}")),
        };
        self.add(kind, place, what, holds, Cause::Data(number));
        Ok(())
    }

    fn streams(&mut self) -> Result<BTreeMap<StreamId, Labels>, StoreError> {
        let mut streams = BTreeMap::new();
        let kv = self.kv;
        kv.scan(self.name, &[prefix::STREAM], |key, value| {
            let Ok(id) = <[u8; 16]>::try_from(&key[1..]) else {
                self.row("a stream".into(), "its key is too short".into(), key);
                return true;
            };
            let id = StreamId::from_bytes(id);
            match decode_stream(value) {
                Ok((tenant, labels)) if StreamId::of(&tenant, &labels) == id => {
                    streams.insert(id, labels);
                }
                Ok(_) => self.bad_stream(id, "are another stream's".into()),
                Err(what) => self.bad_stream(id, what),
            }
            true
        })?;
        Ok(streams)
    }

    fn bad_stream(&mut self, id: StreamId, what: String) {
        let place = format!("labels of stream {}", hex(&id.to_bytes()));
        self.add(Kind::Record, place, what, String::new(), Cause::Stream(id));
    }

    fn chunk(
        &mut self,
        number: u32,
        meta: Option<&Option<ChunkMeta>>,
        value: &[u8],
        name: &impl Fn(StreamId) -> String,
    ) {
        self.checked.chunks += 1;
        let lines = ChunkReader::new(value).and_then(|chunk| chunk.lines());
        if let Ok(lines) = &lines {
            self.checked.lines += lines.len() as u64;
        }
        let place = format!("chunk {number}");
        let (what, holds, cause) = match (lines, meta) {
            (Err(what), meta) => {
                let holds = meta.and_then(Option::as_ref);
                let holds = holds.map(|m| chunk_holds(m, name)).unwrap_or_default();
                (what, holds, Cause::Data(number))
            }
            (Ok(lines), Some(Some(meta))) => {
                let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
                let is = ChunkMeta {
                    number,
                    seq: meta.seq,
                    flags: meta.flags,
                    ..ChunkMeta::of(&lines, meta.stream, size, 0)
                };
                if is == *meta {
                    return;
                }
                let what = "meta: says something else than the chunk".to_owned();
                (what, chunk_holds(&is, name), Cause::Meta(number))
            }
            // Told with the meta.
            (Ok(_), Some(None)) => return,
            (Ok(lines), None) => {
                let holds = format!("{} lines", lines.len());
                ("meta: is missing".to_owned(), holds, Cause::Meta(number))
            }
        };
        self.add(Kind::Chunk, place, what, holds, cause);
    }

    fn filters(&mut self) -> Result<(), StoreError> {
        let kv = self.kv;
        kv.scan(self.name, &[prefix::FILTER], |key, value| {
            if let Err(error) = FilterView::parse(value) {
                self.row(place_of("filter of", key), error.to_string(), key);
            }
            true
        })
    }

    fn spans(mut self) -> Result<(), StoreError> {
        let kv = self.kv;
        let mut metas: BTreeMap<u32, Option<BlockMeta>> = BTreeMap::new();
        kv.scan(self.name, &[prefix::META], |key, value| {
            let number = number_of_key(key).unwrap_or(0);
            let meta = BlockMeta::decode(number, value);
            if let Err(what) = &meta {
                let place = format!("block {number}");
                let cause = Cause::Meta(number);
                self.add(
                    Kind::Block,
                    place,
                    format!("meta: {what}"),
                    String::new(),
                    cause,
                );
            }
            metas.insert(number, meta.ok());
            true
        })?;
        let mut seen: BTreeMap<u32, ()> = BTreeMap::new();
        kv.scan(self.name, &[prefix::DATA], |key, value| {
            let number = number_of_key(key).unwrap_or(0);
            seen.insert(number, ());
            self.block(number, metas.get(&number), value);
            true
        })?;
        for (number, meta) in &metas {
            let gone = meta.as_ref().is_some_and(BlockMeta::is_removed);
            if !gone && !seen.contains_key(number) {
                let holds = meta.as_ref().map(block_holds).unwrap_or_default();
                self.missing(*number, holds, |day, value| {
                    day.block(*number, Some(meta), value);
                })?;
            }
        }
        self.filters()?;
        kv.scan(self.name, &[prefix::SUMMARY], |key, value| {
            if let Err(what) = summary::decode(value, &mut Decoded) {
                self.row(place_of("summary of block", key), what, key);
            }
            true
        })?;
        kv.scan(self.name, &[prefix::LINKS], |key, value| {
            if let Err(what) = LinkRecord::decode(value) {
                self.row(place_of("calls up to block", key), what, key);
            }
            true
        })?;
        kv.scan(self.name, &[prefix::SEALED_THROUGH], |key, value| {
            if Through::decode(value).is_none() {
                self.row("a journal position".into(), "is too short".into(), key);
            }
            true
        })?;
        kv.scan(self.name, &[prefix::RUN], |key, value| {
            if look_up(value, TagHash::of_line("")).is_none() {
                self.row("filter of a run".into(), "is no piece of one".into(), key);
            }
            true
        })?;
        // Their keys are all that they have: reading them is what verifies them.
        kv.scan(self.name, &[prefix::TRACE], |_, _| true)?;
        kv.scan(self.name, &[prefix::OPERATION], |_, _| true)
    }

    fn block(&mut self, number: u32, meta: Option<&Option<BlockMeta>>, value: &[u8]) {
        self.checked.blocks += 1;
        let place = format!("block {number}");
        let (what, holds, cause) = match (SpanBlock::decode(value), meta) {
            (Err(error), meta) => {
                let holds = meta.and_then(Option::as_ref);
                let holds = holds.map(block_holds).unwrap_or_default();
                (error.to_string(), holds, Cause::Data(number))
            }
            (Ok(block), meta) => {
                self.checked.spans += block.len() as u64;
                let starts = (0..block.len()).map(|n| block.start_of(n));
                let (min, max) = (starts.clone().min(), starts.max());
                match meta {
                    Some(Some(meta))
                        if meta.spans as usize == block.len()
                            && Some(meta.min_start) == min
                            && Some(meta.max_start) == max
                            && meta.stored_bytes as usize == value.len() =>
                    {
                        return;
                    }
                    Some(None) => return, // told with the meta
                    Some(Some(_)) => (
                        "meta: says something else than the block".to_owned(),
                        format!("{} spans", block.len()),
                        Cause::Meta(number),
                    ),
                    None => (
                        "meta: is missing".to_owned(),
                        format!("{} spans", block.len()),
                        Cause::Meta(number),
                    ),
                }
            }
        };
        self.add(Kind::Block, place, what, holds, cause);
    }
}

fn place_of(what: &str, key: &[u8]) -> String {
    format!("{what} {}", number_of_key(key).unwrap_or(0))
}

fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(at.into()).map_or_else(|_| at.to_string(), |t| t.to_string())
}

fn chunk_holds(meta: &ChunkMeta, name: &impl Fn(StreamId) -> String) -> String {
    let (min, max) = (time(meta.min), time(meta.max));
    format!(
        "{}, {} lines from {min} to {max}",
        name(meta.stream),
        meta.lines
    )
}

fn block_holds(meta: &BlockMeta) -> String {
    let (min, max) = (time(meta.min_start), time(meta.max_start));
    format!("{} spans from {min} to {max}", meta.spans)
}

/// Takes every cell of a summary.
struct Decoded;

impl Tally for Decoded {
    fn wants(&self, _: &str) -> bool {
        true
    }

    fn cell(&mut self, _: Cell<'_>) {}
}

#[cfg(test)]
mod tests;
