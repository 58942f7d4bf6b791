//! A chunk on disk.
//!
//! ```text
//! version u8 = 2 | lines u32 | text bytes u32 | frame sizes: times u32, lengths u32,
//! metadata u32, text u32 | frames in that order | XXH3-64 of all before
//! ```
//!
//! (little-endian). Each frame but the text's is one zstd frame, or nothing when it has no content:
//!
//! - times: first time, then first difference, then differences of differences, zigzag varints;
//! - lengths: varints;
//! - metadata: sets n, each n × (name, value); then per line a varint, 0 or 1 + set;
//! - text: every line followed by `\n`, as columns ([`columns`]); in version 1 one zstd frame.
//!
//! Three frames and not one, because counting reads times only and a needle reads text only;
//! level 1, because level 3 is larger and slower here (docs/benchmarks.md).

use std::cell::RefCell;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::columns;
use super::lines::LineBlock;
use crate::model::log::Metadata;
use crate::store::codec::{Reader, Writer, put_varint, zigzag};

const VERSION: u8 = 2;
/// Its text is a zstd frame.
const PLAIN_TEXT: u8 = 1;
const HEADER: usize = 1 + 6 * 4;
const TRAILER: usize = 8;
/// zstd level of every frame.
const LEVEL: i32 = 1;
/// No chunk decodes to more text than this: a head is sealed long before, but one push may
/// bring a lot for one stream.
pub const MAX_TEXT: usize = 256 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `bytes` into one frame at the end of `out`; nothing for nothing.
pub fn compress_frame(bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let before = out.len();
    let mut frame = vec![0; zstd::zstd_safe::compress_bound(bytes.len())];
    let size = COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(LEVEL)?),
        };
        compressor.compress_to_buffer(bytes, &mut frame[..])
    })?;
    out.extend_from_slice(&frame[..size]);
    Ok(out.len() - before)
}

/// Decompresses one frame of at most `limit` bytes into `out`, replacing what it held.
pub fn decompress_frame(frame: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    if frame.is_empty() {
        return Ok(());
    }
    let size = match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size <= limit as u64 => size as usize,
        _ => return Err("frame size missing or too large".into()),
    };
    out.reserve(size);
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
        };
        decompressor
            .decompress_to_buffer(frame, out)
            .map_err(|e| e.to_string())
    })?;
    if out.len() == size {
        Ok(())
    } else {
        Err("frame is shorter than it says".into())
    }
}

/// Encodes lines, which are sorted by time.
pub fn encode(block: &LineBlock) -> std::io::Result<Vec<u8>> {
    let mut times = Vec::with_capacity(block.len() * 4);
    let (mut before, mut step) = (0i64, 0i64);
    for (i, at) in block.at.iter().enumerate() {
        let next = at.wrapping_sub(before);
        put_varint(&mut times, zigzag(next.wrapping_sub(step)));
        // The first difference is the time itself and says nothing of the next.
        step = if i == 0 { 0 } else { next };
        before = *at;
    }
    let mut lengths = Vec::with_capacity(block.len() * 2);
    let mut start = 0;
    for end in &block.ends {
        put_varint(&mut lengths, u64::from(end - start));
        start = end + 1;
    }
    let metadata = encode_metadata(block);
    let mut out = vec![0; HEADER];
    let sizes = [
        compress_frame(&times, &mut out)?,
        compress_frame(&lengths, &mut out)?,
        compress_frame(&metadata, &mut out)?,
        {
            let before = out.len();
            columns::encode(&block.text, &mut out)?;
            out.len() - before
        },
    ];
    out[0] = VERSION;
    out[1..5].copy_from_slice(&(block.len() as u32).to_le_bytes());
    out[5..9].copy_from_slice(&(block.text.len() as u32).to_le_bytes());
    for (i, size) in sizes.iter().enumerate() {
        out[9 + 4 * i..13 + 4 * i].copy_from_slice(&(*size as u32).to_le_bytes());
    }
    out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
    Ok(out)
}

fn encode_metadata(block: &LineBlock) -> Vec<u8> {
    if block.metadata.iter().all(|n| *n == 0) {
        return Vec::new();
    }
    let mut w = Writer::default();
    w.varint(block.sets.len() as u64);
    for set in &block.sets {
        w.varint(set.len() as u64);
        for (name, value) in set.iter() {
            w.text(name.as_bytes());
            w.text(value.as_bytes());
        }
    }
    for n in &block.metadata {
        w.varint(u64::from(*n));
    }
    w.finish()
}

/// A chunk read from disk; columns are decoded when asked for.
pub struct ChunkReader<'a> {
    lines: usize,
    text_bytes: usize,
    times: &'a [u8],
    lengths: &'a [u8],
    metadata: &'a [u8],
    text: &'a [u8],
    /// The text is a zstd frame.
    is_plain: bool,
}

impl<'a> ChunkReader<'a> {
    /// Verifies checksum and header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let body = bytes
            .len()
            .checked_sub(TRAILER)
            .filter(|len| *len >= HEADER);
        let (body, sum) = bytes.split_at(body.ok_or("chunk is too short")?);
        if sum != xxh3_64(body).to_le_bytes() {
            return Err("chunk checksum is wrong".into());
        }
        let is_plain = match body[0] {
            VERSION => false,
            PLAIN_TEXT => true,
            other => return Err(format!("chunk version {other}, expected {VERSION}")),
        };
        let mut r = Reader::new(&body[1..]);
        let mut number =
            || -> Result<usize, String> { Ok(u32::from_le_bytes(r.array()?) as usize) };
        let (lines, text_bytes) = (number()?, number()?);
        let sizes = [number()?, number()?, number()?, number()?];
        let times = r.bytes(sizes[0])?;
        let lengths = r.bytes(sizes[1])?;
        let metadata = r.bytes(sizes[2])?;
        let text = r.bytes(sizes[3])?;
        if r.remaining() != 0 || text_bytes > MAX_TEXT || lines > text_bytes {
            return Err("chunk header does not fit its frames".into());
        }
        Ok(Self {
            lines,
            text_bytes,
            times,
            lengths,
            metadata,
            text,
            is_plain,
        })
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    pub fn has_metadata(&self) -> bool {
        !self.metadata.is_empty()
    }

    /// All lines' text, each line followed by `\n`.
    pub fn text(&self, out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_plain {
            decompress_frame(self.text, self.text_bytes, out)?;
        } else {
            columns::decode(self.text, self.text_bytes, out)?;
        }
        if out.len() == self.text_bytes {
            Ok(())
        } else {
            Err("text has another length".into())
        }
    }

    /// All lines' times.
    pub fn times(&self, scratch: &mut Vec<u8>, out: &mut Vec<i64>) -> Result<(), String> {
        decompress_frame(self.times, self.lines * 10, scratch)?;
        let mut r = Reader::new(scratch);
        out.clear();
        out.reserve(self.lines);
        let (mut before, mut step) = (0i64, 0i64);
        for i in 0..self.lines {
            let next = r.zigzag()?.wrapping_add(step);
            let at = before.wrapping_add(next);
            step = if i == 0 { 0 } else { next };
            before = at;
            out.push(at);
        }
        Ok(())
    }

    /// Where each line ends in the text.
    pub fn ends(&self, scratch: &mut Vec<u8>, out: &mut Vec<u32>) -> Result<(), String> {
        decompress_frame(self.lengths, self.lines * 10, scratch)?;
        let mut r = Reader::new(scratch);
        out.clear();
        out.reserve(self.lines);
        let mut start = 0u64;
        for _ in 0..self.lines {
            let end = start.saturating_add(r.varint()?);
            if end >= self.text_bytes as u64 {
                return Err("lengths exceed the text".into());
            }
            out.push(end as u32);
            start = end + 1;
        }
        if start == self.text_bytes as u64 {
            Ok(())
        } else {
            Err("lengths and text differ".into())
        }
    }

    /// Per line the index of its metadata (empty when no line has any), and the sets.
    pub fn metadata(&self, scratch: &mut Vec<u8>) -> Result<(Vec<u32>, Vec<Metadata>), String> {
        if self.metadata.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        decompress_frame(self.metadata, MAX_TEXT, scratch)?;
        let mut r = Reader::new(scratch);
        let mut sets: Vec<Metadata> = Vec::new();
        for _ in 0..r.count(1)? {
            let mut set: Vec<(Arc<str>, Arc<str>)> = Vec::new();
            for _ in 0..r.count(2)? {
                set.push((r.str()?.into(), r.str()?.into()));
            }
            sets.push(set.into());
        }
        let mut indices = Vec::with_capacity(self.lines);
        for _ in 0..self.lines {
            let n = u32::try_from(r.varint()?).map_err(|_| "metadata index")?;
            if n as usize > sets.len() {
                return Err("metadata index out of range".into());
            }
            indices.push(n);
        }
        Ok((indices, sets))
    }

    /// Everything.
    pub fn lines(&self) -> Result<LineBlock, String> {
        let mut scratch = Vec::new();
        let mut block = LineBlock::default();
        self.text(&mut block.text)?;
        self.times(&mut scratch, &mut block.at)?;
        self.ends(&mut scratch, &mut block.ends)?;
        (block.metadata, block.sets) = self.metadata(&mut scratch)?;
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = LineBlock> {
        let line = (
            any::<i64>(),
            proptest::collection::vec(any::<u8>(), 0..40),
            0u8..4,
        );
        proptest::collection::vec(line, 0..50).prop_map(|lines| {
            let mut block = LineBlock::default();
            for (at, line, metadata) in lines {
                let set: Option<Metadata> = (metadata > 1)
                    .then(|| Arc::from(vec![("n".into(), metadata.to_string().into())]));
                block.push(at >> (metadata * 8), &line, set.as_ref());
            }
            block.sort_by_time();
            block
        })
    }

    /// As it was written before texts were columns.
    fn version_1(block: &LineBlock) -> Vec<u8> {
        let bytes = encode(block).unwrap();
        let body = &bytes[..bytes.len() - TRAILER];
        let size_of_text = u32::from_le_bytes(body[21..25].try_into().unwrap()) as usize;
        let mut old = body[..body.len() - size_of_text].to_vec();
        old[0] = PLAIN_TEXT;
        let size = compress_frame(&block.text, &mut old).unwrap() as u32;
        old[21..25].copy_from_slice(&size.to_le_bytes());
        old.extend_from_slice(&xxh3_64(&old).to_le_bytes());
        old
    }

    /// With a right checksum, whatever the lengths of its lines are.
    fn with_lengths(lengths: &[u64], text_bytes: u32) -> Vec<u8> {
        let mut column = Writer::default();
        for length in lengths {
            column.varint(*length);
        }
        let column = column.finish();
        let mut bytes = vec![PLAIN_TEXT];
        bytes.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&text_bytes.to_le_bytes());
        let mut frames = Vec::new();
        for content in [&[], &column[..], &[], &[]] {
            let size = compress_frame(content, &mut frames).unwrap() as u32;
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        bytes.extend_from_slice(&frames);
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn lines_end_one_after_the_other_or_it_is_an_error(
            lengths in proptest::collection::vec(prop_oneof![0..9u64, (u64::MAX - 40)..=u64::MAX], 1..4),
            text_bytes in 4..40u32,
        ) {
            let bytes = with_lengths(&lengths, text_bytes);
            let (mut scratch, mut ends) = (Vec::new(), Vec::new());
            let read = ChunkReader::new(&bytes).unwrap().ends(&mut scratch, &mut ends);
            let fits = lengths.iter().all(|n| *n < 9)
                && lengths.iter().map(|n| n + 1).sum::<u64>() == u64::from(text_bytes);
            prop_assert_eq!(read.is_ok(), fits);
            prop_assert!(ends.is_sorted());
        }

        #[test]
        fn a_chunk_decodes_to_what_was_encoded(block in block()) {
            let bytes = encode(&block).unwrap();
            let back = ChunkReader::new(&bytes).unwrap().lines().unwrap();
            let view = |b: &LineBlock| (0..b.len())
                .map(|i| (b.at[i], b.line(i).to_vec(), b.metadata_of(i).cloned()))
                .collect::<Vec<_>>();
            prop_assert_eq!(view(&back), view(&block));
        }

        #[test]
        fn a_chunk_of_version_1_is_read(block in block()) {
            let bytes = version_1(&block);
            let back = ChunkReader::new(&bytes).unwrap().lines().unwrap();
            prop_assert_eq!(back.text, block.text);
        }

        #[test]
        fn a_flipped_bit_is_an_error(block in block(), at in any::<usize>()) {
            let mut bytes = encode(&block).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1;
            prop_assert!(ChunkReader::new(&bytes).is_err());
        }

        #[test]
        fn garbage_with_a_right_checksum_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 25..200)) {
            bytes[0] = 1 + (bytes[0] & 1);
            let sum = xxh3_64(&bytes).to_le_bytes();
            bytes.extend_from_slice(&sum);
            if let Ok(reader) = ChunkReader::new(&bytes) {
                let _ = reader.lines();
            }
        }
    }
}
