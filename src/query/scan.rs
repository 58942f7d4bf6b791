//! Reading lines: one chunk or head at a time, on the CPU pool.
//!
//! S1. Leading line filters run over whole buffers of lines where that gives the same answer
//!     as line by line; the line bounds decide, not the newlines in the text.
//! S2. A chunk in which no line passes is never decoded beyond its text and line bounds.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::ahead::SLOW_READ;
use super::answer::{QueryError, QueryStats};
use super::prune::{Unit, internal};
use crate::logql::Probe;
use crate::logql::pipeline::{LineMatcher, Pipeline};
use crate::model::level::{Detected, detect_level, level_of_labels, level_of_line};
use crate::model::log::Metadata;
use crate::model::{Labels, Timestamp};
use crate::store::chunk::ChunkReader;
use crate::store::chunk::lines::line_of;
use crate::store::deletion::any_of;
use crate::store::partition::Read;

/// Lines of one stream, decoded.
pub struct Lines<'a> {
    pub text: &'a [u8],
    pub ends: &'a [u32],
    /// Empty when the sieve wants no times.
    pub at: &'a [Timestamp],
    pub metadata: &'a [u32],
    pub sets: &'a [Metadata],
}

impl Lines<'_> {
    pub fn line(&self, index: usize) -> &[u8] {
        line_of(self.text, self.ends, index)
    }

    pub fn metadata_of(&self, index: usize) -> Option<&Metadata> {
        match self.metadata.get(index) {
            None | Some(0) => None,
            Some(n) => self.sets.get(*n as usize - 1),
        }
    }
}

/// Buffers of one thread, used again from chunk to chunk.
#[derive(Default)]
struct Buffers {
    text: Vec<u8>,
    ends: Vec<u32>,
    at: Vec<Timestamp>,
    scratch: Vec<u8>,
    hits: Vec<u32>,
}

/// Buffers above this go back to the allocator after a scan.
const KEEP_BYTES: usize = 1 << 20;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

/// Which lines of a unit are looked at, and what of them.
#[derive(Clone, Copy)]
pub struct Sieve<'p> {
    pub filters: &'p [LineMatcher],
    /// Judges lines without metadata.
    probe: Option<&'p Probe>,
    /// False: nobody looks at the times of a chunk's lines.
    pub times: bool,
}

impl<'p> Sieve<'p> {
    /// The lines of this stream that may come through a pipeline.
    pub fn of(pipeline: &'p Pipeline, stream: &Labels) -> Self {
        Self {
            filters: pipeline.leading_filters(),
            probe: pipeline.probe().filter(|probe| probe.holds_for(stream)),
            times: true,
        }
    }

    /// Drops the lines that the probe rules out.
    fn probe(&self, text: &[u8], ends: &[u32], has_metadata: bool, hits: &mut Vec<u32>) {
        if let Some(probe) = self.probe.filter(|_| !has_metadata) {
            hits.retain(|index| probe.may_pass(line_of(text, ends, *index as usize)));
        }
    }
}

/// Reads a unit and calls `visit` with its lines and the indices, ascending, of those that
/// `sieve` leaves and that are not deleted, once per block of lines; not at all when none is
/// left.
pub fn scan(
    unit: &Unit,
    sieve: Sieve<'_>,
    stats: &mut QueryStats,
    mut visit: impl FnMut(&Lines<'_>, &[u32]) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    if unit.deletions().is_empty() {
        return scan_all(unit, sieve, stats, visit);
    }
    let mut is_deleted = any_of(unit.deletions(), &unit.stream().labels);
    let mut left = Vec::new();
    // Delete requests look at times.
    let sieve = Sieve {
        times: true,
        ..sieve
    };
    scan_all(unit, sieve, stats, |lines, hits| {
        left.clear();
        left.extend(hits.iter().copied().filter(|index| {
            let i = *index as usize;
            !is_deleted(lines.at[i], lines.line(i), lines.metadata_of(i))
        }));
        if left.is_empty() {
            return Ok(());
        }
        visit(lines, &left)
    })
}

fn scan_all(
    unit: &Unit,
    sieve: Sieve<'_>,
    stats: &mut QueryStats,
    mut visit: impl FnMut(&Lines<'_>, &[u32]) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    match unit {
        Unit::Head(head) => {
            for block in &head.blocks {
                stats.head_lines += block.len() as u64;
                stats.head_bytes += block.line_bytes();
                stats.lines += block.len() as u64;
                stats.bytes += block.line_bytes();
                let mut hits = Vec::new();
                find(
                    &block.text,
                    sieve.filters,
                    || Ok(&block.ends[..]),
                    &mut hits,
                )
                .map_err(QueryError::Internal)?;
                sieve.probe(&block.text, &block.ends, !block.sets.is_empty(), &mut hits);
                if !hits.is_empty() {
                    let lines = Lines {
                        text: &block.text,
                        ends: &block.ends,
                        at: &block.at,
                        metadata: &block.metadata,
                        sets: &block.sets,
                    };
                    visit(&lines, &hits)?;
                }
            }
            Ok(())
        }
        Unit::Chunk {
            partition, meta, ..
        } => BUFFERS.with_borrow_mut(|buffers| {
            stats.chunks_decoded += 1;
            stats.compressed_bytes += u64::from(meta.stored_bytes);
            stats.decompressed_bytes += meta.line_bytes;
            stats.lines += u64::from(meta.lines);
            stats.bytes += meta.line_bytes;
            let asked = Instant::now();
            let mut slow = 0;
            let read = partition.read(meta.number, |bytes| {
                slow = u64::from(asked.elapsed() > SLOW_READ);
                read_chunk(bytes, sieve, buffers, &mut visit)
            });
            if buffers.text.capacity() > KEEP_BYTES {
                *buffers = Buffers::default();
            }
            stats.slow_reads += slow;
            match read.map_err(internal)? {
                Read::Whole(result) => result,
                Read::Damaged => {
                    stats.damaged += 1;
                    Ok(())
                }
                // Retention was quicker than the query.
                Read::Gone => Ok(()),
            }
        }),
    }
}

/// The outer error is a damaged chunk, the inner one is the visitor's.
fn read_chunk(
    bytes: &[u8],
    sieve: Sieve<'_>,
    buffers: &mut Buffers,
    visit: &mut impl FnMut(&Lines<'_>, &[u32]) -> Result<(), QueryError>,
) -> Result<Result<(), QueryError>, String> {
    let chunk = ChunkReader::new(bytes)?;
    let Buffers {
        text,
        ends,
        at,
        scratch,
        hits,
    } = buffers;
    chunk.text(text)?;
    ends.clear();
    hits.clear();
    at.clear();
    find(
        text,
        sieve.filters,
        || {
            chunk.ends(scratch, ends)?;
            Ok(&ends[..])
        },
        hits,
    )?;
    sieve.probe(text, ends, chunk.has_metadata(), hits);
    if hits.is_empty() {
        return Ok(Ok(()));
    }
    if sieve.times {
        chunk.times(scratch, at)?;
    }
    let (metadata, sets) = chunk.metadata(scratch)?;
    let lines = Lines {
        text,
        ends,
        at,
        metadata: &metadata,
        sets: &sets,
    };
    Ok(visit(&lines, hits))
}

/// Collects the indices of the lines that pass all filters. `ends` is asked for only when
/// there may be any.
fn find<'e>(
    text: &[u8],
    filters: &[LineMatcher],
    ends: impl FnOnce() -> Result<&'e [u32], String>,
    hits: &mut Vec<u32>,
) -> Result<(), String> {
    // The longest literal is the rarest, as a rule; else a regex that works on buffers.
    let literal = filters
        .iter()
        .enumerate()
        .filter_map(|(i, f)| Some((i, f.single_literal()?)))
        .max_by_key(|(_, finder)| finder.needle().len());
    if let Some((driver, finder)) = literal {
        let Some(first) = finder.find(text) else {
            return Ok(());
        };
        let ends = ends()?;
        let local = memchr::memchr(b'\n', finder.needle()).is_none();
        let mut next = first;
        return follow(text, ends, filters, driver, hits, local, |from| {
            if from <= next {
                return Some(next);
            }
            next = from + finder.find(&text[from..])?;
            Some(next)
        });
    }
    let regex = filters
        .iter()
        .enumerate()
        .filter_map(|(i, f)| Some((i, f.single_regex()?)))
        .find(|(_, regex)| regex.is_local);
    if let Some((driver, regex)) = regex {
        let Some(first) = regex.regex.shortest_match(text) else {
            return Ok(());
        };
        let ends = ends()?;
        // `shortest_match` tells an end; the match lies in the line that holds its last byte.
        let mut next = first.saturating_sub(1);
        return follow(text, ends, filters, driver, hits, true, |from| {
            if from <= next {
                return Some(next);
            }
            next = regex
                .regex
                .shortest_match_at(text, from)?
                .saturating_sub(1)
                .max(from);
            Some(next)
        });
    }
    let ends = ends()?;
    for index in 0..ends.len() {
        let line = line_of(text, ends, index);
        if filters.iter().all(|f| f.matches(line)) {
            hits.push(index as u32);
        }
    }
    Ok(())
}

/// Goes from match to match of the driving filter; at most one match per line matters.
fn follow(
    text: &[u8],
    ends: &[u32],
    filters: &[LineMatcher],
    driver: usize,
    hits: &mut Vec<u32>,
    local: bool,
    mut next_match: impl FnMut(usize) -> Option<usize>,
) -> Result<(), String> {
    let (mut from, mut index) = (0, 0);
    while from < text.len() {
        let Some(at) = next_match(from) else { break };
        // Lines are short beside the distance of matches: gallop, then search.
        let mut width = 1;
        while index + width < ends.len() && (ends[index + width] as usize) < at {
            width *= 2;
        }
        let until = (index + width + 1).min(ends.len());
        index += ends[index..until].partition_point(|end| (*end as usize) < at);
        if index >= ends.len() {
            break;
        }
        let line = line_of(text, ends, index);
        let others = filters
            .iter()
            .enumerate()
            .all(|(i, f)| (i == driver && local) || f.matches(line));
        if others {
            hits.push(index as u32);
        }
        from = ends[index] as usize + 1;
        index += 1;
        if index >= ends.len() {
            break;
        }
    }
    Ok(())
}

/// Adds `detected_level` to the metadata of lines as they are read. Sets are made once per
/// level and set of metadata, not per line.
pub struct Leveler {
    /// The labels of the stream at hand, and the level that they alone decide.
    of_stream: Option<(Labels, Option<Box<str>>)>,
    plain: HashMap<Box<str>, Metadata>,
    /// The set that the last ones were made from.
    base: Option<Metadata>,
    on_base: HashMap<Box<str>, Metadata>,
}

impl Leveler {
    pub fn new() -> Self {
        Self {
            of_stream: None,
            plain: HashMap::new(),
            base: None,
            on_base: HashMap::new(),
        }
    }

    /// The line's metadata with its level.
    pub fn level(&mut self, labels: &Labels, metadata: Option<&Metadata>, line: &[u8]) -> Metadata {
        let of_stream = match &mut self.of_stream {
            Some((known, level)) if known.is_same(labels) => level,
            slot => {
                let level = level_of_labels(labels).map(|level| level.as_str().into());
                &mut slot.insert((labels.clone(), level)).1
            }
        };
        let pairs: &[(Arc<str>, Arc<str>)] = metadata.map_or(&[], |m| m);
        let level: Detected<'_> = match of_stream {
            Some(level) if pairs.is_empty() => Detected::Other(level),
            None if pairs.is_empty() => Detected::Level(level_of_line(line)),
            _ => detect_level(labels, pairs, line),
        };
        let level = level.as_str();
        let made = match metadata {
            None => &mut self.plain,
            Some(set) => {
                if self
                    .base
                    .as_ref()
                    .is_none_or(|base| !Arc::ptr_eq(base, set))
                {
                    self.base = Some(set.clone());
                    self.on_base.clear();
                }
                &mut self.on_base
            }
        };
        if let Some(made) = made.get(level) {
            return made.clone();
        }
        let mut all: Vec<(Arc<str>, Arc<str>)> = pairs
            .iter()
            .filter(|(name, _)| &**name != "detected_level")
            .cloned()
            .collect();
        let at = all.partition_point(|(name, _)| &**name < "detected_level");
        all.insert(at, ("detected_level".into(), level.into()));
        let set: Metadata = all.into();
        if made.len() < 64 {
            made.insert(level.into(), set.clone());
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::Expr;
    use crate::logql::pipeline::Pipeline;
    use proptest::prelude::*;

    fn filters(stages: &str) -> Vec<LineMatcher> {
        let Ok(Expr::Log(log)) = crate::logql::parse(&format!("{{a=\"b\"}} {stages}")) else {
            panic!("{stages}")
        };
        Pipeline::compile(&log).unwrap().leading_filters().to_vec()
    }

    proptest! {
        #[test]
        fn whole_buffers_give_the_same_lines_as_line_by_line(
            lines in proptest::collection::vec("[ab\n0. ]{0,6}", 0..30), which in 0usize..10
        ) {
            let stages = [
                "|= `a`", "|= `a` |= `b0`", "|~ `a.*b`", "|~ `(?i)A` != `0`", "!= `a`",
                "|= `a\nb`", "|~ `^a`", "|= `a` or `0`", "|~ `a|b0` |~ `b$`", "|= ``",
            ][which];
            let filters = filters(stages);
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            for line in &lines {
                text.extend_from_slice(line.as_bytes());
                ends.push(text.len() as u32);
                text.push(b'\n');
            }
            let mut hits = Vec::new();
            find(&text, &filters, || Ok(&ends), &mut hits).unwrap();
            let expected: Vec<u32> = (0u32..)
                .zip(&lines)
                .filter(|(_, line)| filters.iter().all(|f| f.matches(line.as_bytes())))
                .map(|(i, _)| i)
                .collect();
            prop_assert_eq!(hits, expected, "{}", stages);
        }
    }
}
