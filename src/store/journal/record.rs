//! One record of the journal, and the store's own encoding of a batch of lines.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::model::labels::{Labels, StreamId};
use crate::model::log::{LogBatch, LogEntry, Metadata, StreamEntries};
use crate::store::codec::{Reader, Writer};

/// First bytes of a segment; the sequence number of its first record follows, u64 LE.
pub const SEGMENT_MAGIC: &[u8; 8] = b"WPJRNL01";
/// Bytes before the first record.
pub const SEGMENT_HEADER: usize = 16;
/// Bytes before a record's header: length (u32 LE, of what follows the checksum) and
/// XXH3-64 (u64 LE, of the same bytes).
pub const RECORD_PREFIX: usize = 12;
/// Bytes of a record's header without the tenant's name.
const HEADER: usize = 8 + 8 + 4 + 2;
/// Numbers within a segment are less apart than this.
const SEQ_SPAN: u64 = 1 << 32;
/// A record longer than this is corruption: bodies are bounded far below.
pub const MAX_RECORD: usize = 512 << 20;

/// Whose encoding a record's body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Lines as a client sent them; `format` and `coding` say how.
    LogsAsReceived = 1,
    /// Lines in the store's own encoding ([`encode_batch`]).
    LogsOwn = 2,
    /// Spans as a client sent them; `format` says how.
    SpansAsReceived = 3,
}

impl RecordKind {
    fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::LogsAsReceived),
            2 => Some(Self::LogsOwn),
            3 => Some(Self::SpansAsReceived),
            _ => None,
        }
    }
}

/// How a body came, as codes that the protocols define and the store only keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub kind: RecordKind,
    pub format: u8,
    pub coding: u8,
    pub flags: u8,
    pub tenant: Arc<str>,
    pub bytes: Bytes,
}

/// What a record says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub seq: u64,
    /// When we took it, nanoseconds since the epoch: the day of its spans.
    pub received_at: i64,
    pub kind: RecordKind,
    pub format: u8,
    pub coding: u8,
    pub flags: u8,
    pub tenant: Arc<str>,
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub header: RecordHeader,
    pub body: Bytes,
}

/// Encodes everything of a record but its body: prefix and header.
///
/// ```text
/// len u32 | xxh3 u64 | seq u64 | received_at i64 | kind u8 | format u8 | coding u8 |
/// flags u8 | tenant length u16 | tenant | body
/// ```
///
/// Appended to `out`.
pub fn encode_header(seq: u64, received_at: i64, body: &Body, out: &mut Vec<u8>) {
    let start = out.len();
    let tenant = &body.tenant.as_bytes()[..body.tenant.len().min(usize::from(u16::MAX))];
    let len = HEADER + tenant.len() + body.bytes.len();
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&received_at.to_le_bytes());
    out.extend_from_slice(&[body.kind as u8, body.format, body.coding, body.flags]);
    out.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
    out.extend_from_slice(tenant);
    let mut hash = Xxh3::new();
    hash.update(&out[start + RECORD_PREFIX..]);
    hash.update(&body.bytes);
    out[start + 4..start + 12].copy_from_slice(&hash.digest().to_le_bytes());
}

/// Length and checksum from a record's prefix; `None` when the length cannot be.
pub fn decode_prefix(prefix: &[u8; RECORD_PREFIX]) -> Option<(usize, u64)> {
    let (len, sum) = prefix.split_at(4);
    let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
    let sum = u64::from_le_bytes(sum.try_into().ok()?);
    (HEADER..=MAX_RECORD).contains(&len).then_some((len, sum))
}

/// Whether bytes may begin a record with a number from `seq` on; without reading it.
pub fn looks_like_record(bytes: &[u8], seq: u64) -> bool {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let len = bytes.get(..4).and_then(|len| len.try_into().ok());
    len.map(u32::from_le_bytes)
        .is_some_and(|len| (HEADER..=MAX_RECORD).contains(&(len as usize)))
        && number(RECORD_PREFIX).is_some_and(|n| n >= seq && n - seq < SEQ_SPAN)
        && bytes
            .get(RECORD_PREFIX + 16)
            .is_some_and(|kind| RecordKind::from_u8(*kind).is_some())
}

/// Decodes what follows the prefix; `None` when the checksum or the layout is wrong.
pub fn decode_record(bytes: Bytes, checksum: u64) -> Option<Record> {
    if xxhash_rust::xxh3::xxh3_64(&bytes) != checksum && !checksum_off() {
        return None;
    }
    let mut r = Reader::new(&bytes);
    let seq = u64::from_le_bytes(r.array().ok()?);
    let received_at = i64::from_le_bytes(r.array().ok()?);
    let [kind, format, coding, flags] = r.array().ok()?;
    let tenant_len = usize::from(u16::from_le_bytes(r.array().ok()?));
    let tenant = std::str::from_utf8(r.bytes(tenant_len).ok()?).ok()?.into();
    let kind = RecordKind::from_u8(kind)?;
    let body = bytes.slice(HEADER + tenant_len..);
    let header = RecordHeader {
        seq,
        received_at,
        kind,
        format,
        coding,
        flags,
        tenant,
    };
    Some(Record { header, body })
}

/// A fail point for the test that flips bits, which must notice it.
fn checksum_off() -> bool {
    fail::fail_point!("checksum-off", |_| true);
    false
}

/// An update of a reader's position that travels with the lines read up to it.
pub type Cursor = (Box<[u8]>, Box<[u8]>);

/// The store's own encoding of lines, for batches that are not what a client sent:
/// followed files, and pushes of which a part was refused. Snappy over
///
/// ```text
/// tenant | metadata sets: n, each n × (name, value) | streams: n, each
/// labels n × (name, value), entries n × (time delta zigzag, length, metadata index) |
/// text of all lines in that order | cursors: n × (key, value)
/// ```
///
/// (numbers are LEB128 varints, texts have their length before them).
pub fn encode_batch(batch: &LogBatch, cursors: &[Cursor]) -> Vec<u8> {
    let mut w = Writer::default();
    w.text(batch.tenant.as_bytes());
    w.varint(batch.metadata.len() as u64);
    for set in &batch.metadata {
        w.varint(set.len() as u64);
        for (name, value) in set.iter() {
            w.text(name.as_bytes());
            w.text(value.as_bytes());
        }
    }
    w.varint(batch.streams.len() as u64);
    for stream in &batch.streams {
        w.varint(stream.labels.len() as u64);
        for (name, value) in stream.labels.iter() {
            w.text(name.as_bytes());
            w.text(value.as_bytes());
        }
        w.varint(stream.entries.len() as u64);
        let mut before = 0;
        for entry in &stream.entries {
            w.zigzag(entry.at.wrapping_sub(before));
            before = entry.at;
            w.varint(u64::from(entry.len));
            w.varint(u64::from(entry.metadata));
        }
    }
    for stream in &batch.streams {
        for entry in &stream.entries {
            w.raw(batch.line(entry));
        }
    }
    w.varint(cursors.len() as u64);
    for (key, value) in cursors {
        w.text(key);
        w.text(value);
    }
    let plain = w.finish();
    // The only error is an input above 4 GiB; bodies are bounded far below.
    snap::raw::Encoder::new()
        .compress_vec(&plain)
        .unwrap_or_default()
}

/// The reverse of [`encode_batch`].
pub fn decode_batch(body: &[u8]) -> Result<(LogBatch, Vec<Cursor>), String> {
    let len = snap::raw::decompress_len(body).map_err(|e| e.to_string())?;
    if len > MAX_RECORD {
        return Err(format!("batch of {len} bytes"));
    }
    let plain = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|e| e.to_string())?;
    let plain = Bytes::from(plain);
    let mut r = Reader::new(&plain);
    let tenant: Arc<str> = r.str()?.into();
    let mut metadata: Vec<Metadata> = Vec::new();
    for _ in 0..r.count(1)? {
        let mut set: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for _ in 0..r.count(2)? {
            set.push((r.str()?.into(), r.str()?.into()));
        }
        metadata.push(set.into());
    }
    let mut streams = Vec::new();
    let mut lengths = 0u64;
    for _ in 0..r.count(2)? {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for _ in 0..r.count(2)? {
            pairs.push((r.str()?, r.str()?));
        }
        let labels = Labels::from_pairs(pairs);
        let mut entries = Vec::new();
        let mut at = 0i64;
        for _ in 0..r.count(3)? {
            at = at.wrapping_add(r.zigzag()?);
            let len = u32::try_from(r.varint()?).map_err(|_| "line too long")?;
            let set = u32::try_from(r.varint()?).map_err(|_| "metadata index")?;
            if set as usize > metadata.len() {
                return Err("metadata index out of range".into());
            }
            lengths += u64::from(len);
            entries.push(LogEntry {
                at,
                start: 0,
                len,
                metadata: set,
            });
        }
        let id = StreamId::of(&tenant, &labels);
        streams.push(StreamEntries {
            id,
            labels,
            entries,
        });
    }
    let text_start = r.position();
    r.bytes(usize::try_from(lengths).map_err(|_| "text too long")?)?;
    let mut cursors = Vec::new();
    for _ in 0..r.count(2)? {
        cursors.push((r.text()?.into(), r.text()?.into()));
    }
    let mut start = text_start as u32;
    for entry in streams.iter_mut().flat_map(|s| &mut s.entries) {
        entry.start = start;
        start += entry.len;
    }
    Ok((
        LogBatch {
            tenant,
            text: plain,
            metadata,
            streams,
        },
        cursors,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(bytes: Vec<u8>) -> Body {
        Body {
            kind: RecordKind::LogsAsReceived,
            format: 1,
            coding: 2,
            flags: 3,
            tenant: "t".into(),
            bytes: bytes.into(),
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_back_and_any_flipped_bit_is_noticed(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<usize>()
        ) {
            let body = body(bytes);
            let mut raw = Vec::new();
            encode_header(7, -3, &body, &mut raw);
            raw.extend_from_slice(&body.bytes);
            let prefix: [u8; RECORD_PREFIX] = raw[..RECORD_PREFIX].try_into().unwrap();
            let (len, sum) = decode_prefix(&prefix).unwrap();
            prop_assert_eq!(len, raw.len() - RECORD_PREFIX);
            let rest = Bytes::copy_from_slice(&raw[RECORD_PREFIX..]);
            let record = decode_record(rest, sum).unwrap();
            prop_assert_eq!((record.header.seq, record.header.received_at), (7, -3));
            prop_assert_eq!(&*record.header.tenant, "t");
            prop_assert_eq!(&record.body, &body.bytes);
            let at = RECORD_PREFIX + flip % (raw.len() - RECORD_PREFIX);
            raw[at] ^= 1 << (flip % 8);
            prop_assert!(decode_record(Bytes::copy_from_slice(&raw[RECORD_PREFIX..]), sum).is_none());
        }

        #[test]
        fn a_batch_reads_back(
            lines in proptest::collection::vec((any::<i64>(), proptest::collection::vec(any::<u8>(), 0..20), 0u32..2), 0..30)
        ) {
            let mut text = Vec::new();
            let mut entries = Vec::new();
            for (at, line, metadata) in &lines {
                entries.push(LogEntry { at: *at, start: text.len() as u32, len: line.len() as u32, metadata: *metadata });
                text.extend_from_slice(line);
            }
            let labels = Labels::from_pairs([("a", "1"), ("b", "é")]);
            let batch = LogBatch {
                tenant: "x".into(), text: text.into(),
                metadata: vec![Arc::from(vec![("k".into(), "v".into())])],
                streams: vec![StreamEntries { id: StreamId::of("x", &labels), labels, entries }],
            };
            let cursors: Vec<Cursor> = vec![(b"key"[..].into(), b"value"[..].into())];
            let (back, back_cursors) = decode_batch(&encode_batch(&batch, &cursors)).unwrap();
            prop_assert_eq!(back_cursors, cursors);
            prop_assert_eq!(&back.metadata, &batch.metadata);
            prop_assert_eq!(back.streams[0].id, batch.streams[0].id);
            let read = |b: &LogBatch| b.streams[0].entries.iter()
                .map(|e| (e.at, b.line(e).to_vec(), e.metadata)).collect::<Vec<_>>();
            prop_assert_eq!(read(&back), read(&batch));
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_batch(&bytes);
            if let Ok(body) = snap::raw::Encoder::new().compress_vec(&bytes) {
                let _ = decode_batch(&body);
            }
        }
    }
}
