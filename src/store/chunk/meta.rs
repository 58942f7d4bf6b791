//! What is known of a chunk without reading it.

use std::sync::Arc;

use crate::model::time::{MINUTE, Timestamp};
use crate::model::{StreamId, TimeRange};
use crate::store::chunk::LineBlock;
use crate::store::codec::{Reader, Writer};

/// Flag beside those of the analysis: some line has structured metadata.
const HAS_METADATA: u8 = 0x80;

/// Facts about one chunk of one stream in one day.
///
/// On disk: version u8 = 1 | stream 16 bytes | min time zigzag | max − min varint | lines |
/// line bytes | stored bytes | flags | minutes (see [`Minutes`]), as varints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Number within the day, in order of sealing.
    pub number: u32,
    pub stream: StreamId,
    pub min: Timestamp,
    pub max: Timestamp,
    pub lines: u32,
    /// Bytes of all lines.
    pub line_bytes: u64,
    /// Bytes of the chunk as stored.
    pub stored_bytes: u32,
    /// Properties found by the analysis (index/analyze.rs).
    pub flags: u8,
    pub minutes: Minutes,
    /// Last journal record that it has lines of; 0 when that is not known, of chunks older
    /// than delete requests. Not part of the encoding: the partition keeps it beside.
    pub seq: u64,
}

/// Lines and bytes of each whole minute of Unix time, so that counts read no lines.
///
/// A minute excludes its first instant and includes its last, as the windows of LogQL's range
/// functions do: then windows that begin and end on minutes consist of whole minutes.
///
/// Encoded: per minute that has lines, the distance to the minute before (the first from
/// the chunk's first), lines, bytes, as varints.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Minutes(Box<[u8]>);

/// The minute that an instant belongs to.
fn minute_of(at: Timestamp) -> i64 {
    at.saturating_sub(1).div_euclid(MINUTE)
}

/// What one minute of a chunk holds: lines with `start < t <= start + 1 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// Nanoseconds; the instant itself is not in the minute.
    pub start: Timestamp,
    pub lines: u64,
    pub bytes: u64,
}

impl Minutes {
    fn of(block: &LineBlock) -> Self {
        let mut w = Writer::default();
        let mut before = block.at.first().map_or(0, |at| minute_of(*at));
        let (mut minute, mut lines, mut bytes) = (before, 0u64, 0u64);
        let mut start = 0;
        for (at, end) in block.at.iter().zip(&block.ends) {
            let this = minute_of(*at);
            if this != minute {
                w.varint(minute.abs_diff(before));
                w.varint(lines);
                w.varint(bytes);
                (before, minute, lines, bytes) = (minute, this, 0, 0);
            }
            lines += 1;
            bytes += u64::from(end - start);
            start = end + 1;
        }
        if lines > 0 {
            w.varint(minute.abs_diff(before));
            w.varint(lines);
            w.varint(bytes);
        }
        Self(w.finish().into())
    }

    /// The minutes, oldest first; `min` is the chunk's first time.
    pub fn iter(&self, min: Timestamp) -> impl Iterator<Item = Minute> + '_ {
        let mut r = Reader::new(&self.0);
        let mut minute = minute_of(min);
        std::iter::from_fn(move || {
            // Verified when the meta was decoded.
            minute = minute.checked_add_unsigned(r.varint().ok()?)?;
            let (lines, bytes) = (r.varint().ok()?, r.varint().ok()?);
            Some(Minute {
                start: minute.checked_mul(MINUTE)?,
                lines,
                bytes,
            })
        })
    }
}

/// What some chunks have of one stream: a count over whole days looks at these instead of
/// each chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSum {
    pub stream: StreamId,
    pub min: Timestamp,
    pub max: Timestamp,
    pub chunks: u64,
    pub lines: u64,
    pub bytes: u64,
    /// Whether any line has structured metadata.
    pub has_metadata: bool,
}

impl StreamSum {
    /// A sum for each stream, in order of streams.
    pub fn of(metas: &[Arc<ChunkMeta>]) -> Box<[Self]> {
        let mut ordered: Vec<&ChunkMeta> = metas.iter().map(|meta| &**meta).collect();
        ordered.sort_unstable_by_key(|meta| meta.stream);
        let of_stream = ordered.chunk_by(|a, b| a.stream == b.stream);
        let sum = |metas: &[&ChunkMeta]| {
            let first = metas.first()?;
            Some(Self {
                stream: first.stream,
                min: metas.iter().map(|m| m.min).min()?,
                max: metas.iter().map(|m| m.max).max()?,
                chunks: metas.len() as u64,
                lines: metas.iter().map(|m| u64::from(m.lines)).sum(),
                bytes: metas.iter().map(|m| m.line_bytes).sum(),
                has_metadata: metas.iter().any(|m| m.has_metadata()),
            })
        };
        of_stream.filter_map(sum).collect()
    }
}

impl ChunkMeta {
    /// Describes lines sorted by time, at least one.
    pub fn of(block: &LineBlock, stream: StreamId, stored_bytes: u32, flags: u8) -> Self {
        Self {
            number: 0,
            stream,
            min: block.at.first().copied().unwrap_or(0),
            max: block.at.last().copied().unwrap_or(0),
            lines: block.len() as u32,
            line_bytes: block.line_bytes(),
            stored_bytes,
            flags: if block.metadata.iter().any(|n| *n > 0) {
                flags | HAS_METADATA
            } else {
                flags
            },
            minutes: Minutes::of(block),
            seq: 0,
        }
    }

    /// What is left of a chunk of which every line was deleted: its number.
    pub fn emptied(&self) -> Self {
        Self {
            max: self.min,
            lines: 0,
            line_bytes: 0,
            stored_bytes: 0,
            minutes: Minutes::default(),
            ..self.clone()
        }
    }

    /// The same of a chunk that can't be read.
    pub fn removed(number: u32) -> Self {
        Self {
            number,
            stream: StreamId(0),
            min: 0,
            max: 0,
            lines: 0,
            line_bytes: 0,
            stored_bytes: 0,
            flags: 0,
            minutes: Minutes::default(),
            seq: 0,
        }
    }

    pub fn is_emptied(&self) -> bool {
        self.lines == 0
    }

    /// Whether any line has structured metadata.
    pub fn has_metadata(&self) -> bool {
        self.flags & HAS_METADATA != 0
    }

    pub fn overlaps(&self, range: TimeRange) -> bool {
        range.overlaps(self.min, self.max)
    }

    /// Memory that it holds, bytes.
    pub fn memory(&self) -> usize {
        // At most as many sums as metas are made of them.
        size_of::<Self>() + self.minutes.0.len() + 32 + size_of::<StreamSum>()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&[1]);
        w.raw(&self.stream.to_bytes());
        w.zigzag(self.min);
        w.varint(self.max.wrapping_sub(self.min) as u64);
        w.varint(u64::from(self.lines));
        w.varint(self.line_bytes);
        w.varint(u64::from(self.stored_bytes));
        w.raw(&[self.flags]);
        w.raw(&self.minutes.0);
        w.finish()
    }

    pub fn decode(number: u32, bytes: &[u8]) -> Result<Self, String> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != 1 {
            return Err(format!("chunk meta version {version}, expected 1"));
        }
        let narrow = |n: u64| u32::try_from(n).map_err(|_| "number out of range".to_owned());
        let stream = StreamId::from_bytes(r.array()?);
        let min = r.zigzag()?;
        let max = min.wrapping_add(r.varint()? as i64);
        let lines = narrow(r.varint()?)?;
        let line_bytes = r.varint()?;
        let stored_bytes = narrow(r.varint()?)?;
        let flags = r.u8()?;
        let minutes = Minutes(r.bytes(r.remaining())?.into());
        let mut check = Reader::new(&minutes.0);
        let mut sum = 0u64;
        while check.remaining() > 0 {
            check.varint()?;
            sum = sum.saturating_add(check.varint()?);
            check.varint()?;
        }
        if sum != u64::from(lines) || max < min {
            return Err("chunk meta contradicts itself".into());
        }
        Ok(Self {
            number,
            stream,
            min,
            max,
            lines,
            line_bytes,
            stored_bytes,
            flags,
            minutes,
            seq: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_hold_what_all_chunks_of_a_stream_hold() {
        let meta = |stream, times: &[i64], set: Option<&crate::model::log::Metadata>| {
            let mut block = LineBlock::default();
            for at in times {
                block.push(*at, b"abc", set);
            }
            Arc::new(ChunkMeta::of(&block, StreamId(stream), 100, 0))
        };
        let set: crate::model::log::Metadata = vec![("k".into(), "v".into())].into();
        let metas = [
            meta(2, &[5, 9], None),
            meta(1, &[7], Some(&set)),
            meta(2, &[1, 2, 3], None),
        ];
        let sums: Vec<_> = StreamSum::of(&metas)
            .iter()
            .map(|s| {
                (
                    s.stream.0,
                    s.min,
                    s.max,
                    s.chunks,
                    s.lines,
                    s.bytes,
                    s.has_metadata,
                )
            })
            .collect();
        assert_eq!(sums, [(1, 7, 7, 1, 1, 3, true), (2, 1, 9, 2, 5, 15, false)]);
        assert!(StreamSum::of(&[]).is_empty());
    }

    #[test]
    fn minutes_count_lines_and_bytes_and_read_back() {
        let mut block = LineBlock::default();
        for (at, line) in [(-1, "abc"), (0, ""), (59, "d"), (60, "ee"), (60 * 60, "f")] {
            block.push(at * 1_000_000_000, line.as_bytes(), None);
        }
        let meta = ChunkMeta {
            number: 9,
            ..ChunkMeta::of(&block, StreamId(7), 100, 3)
        };
        let minutes: Vec<_> = meta
            .minutes
            .iter(meta.min)
            .map(|m| (m.start / MINUTE, m.lines, m.bytes))
            .collect();
        assert_eq!(minutes, [(-1, 2, 3), (0, 2, 3), (59, 1, 1)]);
        assert_eq!(ChunkMeta::decode(9, &meta.encode()), Ok(meta.clone()));
        assert_eq!((meta.lines, meta.line_bytes), (5, 7));
        let emptied = ChunkMeta::decode(9, &meta.emptied().encode());
        assert!(emptied.is_ok_and(|m| m.is_emptied() && m.number == 9));
        for len in 0..meta.encode().len() {
            // Cut anywhere it is an error, never a panic, never a different meta.
            assert_ne!(
                ChunkMeta::decode(9, &meta.encode()[..len]),
                Ok(meta.clone())
            );
        }
    }
}
