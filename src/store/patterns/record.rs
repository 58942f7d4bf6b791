//! What is kept of the patterns of a chunk.
//!
//! On disk: version u8 = 1 | a zstd frame of: first slot zigzag | number of levels, their
//! texts | number of patterns | per pattern: level (index) | template | number of slots | per
//! slot: distance to the slot before (the first from the first slot), lines. Numbers are
//! varints, texts have their length before them. Nothing for a chunk without patterns.

use std::cell::RefCell;

use super::words::{MAX_LINE, MAX_TEMPLATE};
use super::{Miner, slot_of};
use crate::model::Labels;
use crate::model::level::detect_level;
use crate::store::chunk::{LineBlock, compress_frame, decompress_frame};
use crate::store::codec::{Reader, Writer};

const VERSION: u8 = 1;

/// Lines of a chunk that are looked at when it is sealed. Each costs 0.5 µs or so, and
/// stands for as many lines as lie between two of them.
pub const SAMPLE: usize = 64;
/// Patterns of a record, those with most lines.
pub const MAX_PATTERNS: usize = 32;
/// Bytes of a level's text: levels that nobody knows are kept as they are.
const MAX_LEVEL: usize = 32;
/// Bytes that a record may decode to.
const MAX_RECORD: usize = MAX_PATTERNS * (MAX_TEMPLATE + 64) + SAMPLE * 32;

/// One pattern of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub level: &'a str,
    pub template: &'a str,
    /// Slots and lines, in order of the slots.
    pub counts: Vec<(i64, u64)>,
}

thread_local! {
    static MINER: RefCell<Miner> = RefCell::default();
}

/// The record of a chunk with these lines, sorted by time.
pub fn mine(labels: &Labels, block: &LineBlock) -> Vec<u8> {
    MINER.with_borrow_mut(|miner| {
        miner.clear();
        let mut counts: Vec<Vec<(i64, u64)>> = Vec::new();
        sample(block, SAMPLE, |index, weight| {
            let line = block.line(index);
            let metadata = block.metadata_of(index);
            let level = level_of(labels, metadata.map_or(&[], |m| &m[..]), line);
            let Some(number) = miner.add_line(line, level) else {
                return;
            };
            counts.resize(miner.len().max(counts.len()), Vec::new());
            let slot = slot_of(block.at[index]);
            match counts[number].last_mut() {
                Some((last, lines)) if *last == slot => *lines += weight,
                _ => counts[number].push((slot, weight)),
            }
        });
        encode(miner, counts)
    })
}

/// A line's level, as patterns are told apart by.
pub fn level_of<'a>(
    labels: &'a Labels,
    metadata: &'a [(std::sync::Arc<str>, std::sync::Arc<str>)],
    line: &[u8],
) -> &'a str {
    let level = detect_level(labels, metadata, line).as_str();
    let end = (0..=MAX_LEVEL.min(level.len()))
        .rev()
        .find(|at| level.is_char_boundary(*at));
    &level[..end.unwrap_or(0)]
}

/// Visits at most `most` lines, spread evenly, each with the number of lines it stands for.
pub fn sample(block: &LineBlock, most: usize, mut visit: impl FnMut(usize, u64)) {
    let (lines, taken) = (block.len(), block.len().min(most));
    for n in 0..taken {
        let (from, until) = (n * lines / taken, (n + 1) * lines / taken);
        // Not always the first of its neighbours: what writes lines may have a rhythm.
        let turn = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        visit(from + turn as usize % (until - from), (until - from) as u64);
    }
}

fn encode(miner: &Miner, counts: Vec<Vec<(i64, u64)>>) -> Vec<u8> {
    let mut ranked: Vec<(u64, usize)> = counts
        .iter()
        .map(|slots| slots.iter().map(|(_, lines)| lines).sum())
        .zip(0..)
        .collect();
    ranked.sort_unstable_by_key(|(lines, number)| (std::cmp::Reverse(*lines), *number));
    ranked.truncate(MAX_PATTERNS);
    let slots = || ranked.iter().flat_map(|(_, number)| &counts[*number]);
    let Some(first) = slots().map(|(slot, _)| *slot).min() else {
        return Vec::new();
    };
    let mut levels: Vec<&str> = Vec::new();
    let mut patterns = Writer::default();
    patterns.varint(ranked.len() as u64);
    for (_, number) in &ranked {
        let (template, level) = miner.template(*number);
        let place = levels.iter().position(|l| *l == level);
        let place = place.unwrap_or_else(|| {
            levels.push(level);
            levels.len() - 1
        });
        patterns.varint(place as u64);
        patterns.text(template.as_bytes());
        patterns.varint(counts[*number].len() as u64);
        let mut before = first;
        for (slot, lines) in &counts[*number] {
            patterns.varint(slot.abs_diff(before));
            patterns.varint(*lines);
            before = *slot;
        }
    }
    let mut body = Writer::default();
    body.zigzag(first);
    body.varint(levels.len() as u64);
    for level in levels {
        body.text(level.as_bytes());
    }
    body.raw(&patterns.finish());
    let mut out = vec![VERSION];
    match compress_frame(&body.finish(), &mut out) {
        Ok(_) => out,
        // Patterns are not worth a chunk.
        Err(_) => Vec::new(),
    }
}

/// Visits the patterns of a record.
pub fn decode(record: &[u8], mut visit: impl FnMut(Found<'_>)) -> Result<(), String> {
    let Some((version, frame)) = record.split_first() else {
        return Ok(());
    };
    if *version != VERSION {
        return Err(format!(
            "pattern record version {version}, expected {VERSION}"
        ));
    }
    let mut body = Vec::new();
    decompress_frame(frame, MAX_RECORD, &mut body)?;
    let mut r = Reader::new(&body);
    let first = r.zigzag()?;
    let mut levels = Vec::new();
    for _ in 0..r.count(1)? {
        levels.push(r.str()?);
    }
    for _ in 0..r.count(3)? {
        let level = usize::try_from(r.varint()?)
            .ok()
            .and_then(|n| levels.get(n));
        let level = *level.ok_or("level out of range")?;
        let template = r.str()?;
        let mut counts = Vec::new();
        let mut slot = first;
        for _ in 0..r.count(2)? {
            slot = slot
                .checked_add_unsigned(r.varint()?)
                .ok_or("slot out of range")?;
            counts.push((slot, r.varint()?));
        }
        visit(Found {
            level,
            template,
            counts,
        });
    }
    if r.remaining() == 0 {
        Ok(())
    } else {
        Err("pattern record is longer than it says".into())
    }
}

const _: () = assert!(MAX_TEMPLATE > 3 * MAX_LINE, "templates of lines fit");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;

    fn block(lines: usize) -> LineBlock {
        let mut block = LineBlock::default();
        for n in 0..lines {
            let line = match n % 4 {
                0 => format!("level=error msg=\"no {n}\""),
                _ => format!("level=info msg=\"served {n} in {n}ms\""),
            };
            block.push(n as i64 * SECOND, line.as_bytes(), None);
        }
        block
    }

    fn found(record: &[u8]) -> Vec<(String, String, u64)> {
        let mut all = Vec::new();
        let read = decode(record, |f| {
            let lines = f.counts.iter().map(|(_, n)| n).sum();
            all.push((f.level.to_owned(), f.template.to_owned(), lines));
        });
        read.expect("a record");
        all
    }

    #[test]
    fn a_small_chunk_is_counted_exactly() {
        let record = mine(&Labels::empty(), &block(60));
        let served = r#"level=info msg="served <_> in <_>""#;
        let expected = [
            ("info", served, 45),
            ("error", r#"level=error msg="no <_>""#, 15),
        ];
        let expected = expected.map(|(l, t, n)| (l.to_owned(), t.to_owned(), n));
        assert_eq!(found(&record), expected);
        decode(&record, |f| {
            assert_eq!(f.counts.len(), 6, "{f:?}");
            assert!(f.counts.iter().zip(0..).all(|((slot, _), n)| *slot == n));
        })
        .expect("a record");
    }

    #[test]
    fn a_sample_stands_for_all_lines() {
        let record = mine(&Labels::empty(), &block(2000));
        let found = found(&record);
        assert_eq!(found.iter().map(|f| f.2).sum::<u64>(), 2000);
        assert_eq!(found.len(), 2);
        assert!(found[0].2.abs_diff(1500) < 250, "{found:?}");
        assert!(record.len() < 400, "{}", record.len());
        assert!(mine(&Labels::empty(), &LineBlock::default()).is_empty());
    }

    #[test]
    fn a_broken_record_is_an_error_and_no_panic() {
        let record = mine(&Labels::empty(), &block(60));
        for len in 1..record.len() {
            assert!(decode(&record[..len], |_| ()).is_err(), "{len}");
        }
        for at in 0..record.len() {
            let mut broken = record.clone();
            broken[at] ^= 0x55;
            let _ = decode(&broken, |_| ());
        }
        assert_eq!(decode(&[], |_| ()), Ok(()));
    }
}
