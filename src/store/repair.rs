//! Makes a data directory whole again that no process has open: what can be computed again is,
//! what can't be read is taken out, and what was lost is said.
//!
//! V1. Nothing that can be read is thrown away: lines whose labels are lost are written to
//!     `salvaged/`, damaged segments, lists and indices are renamed.
//! V2. A crash in between leaves a directory that repairing again makes whole. A day that was
//!     being rewritten is in `repair.tmp` then, and no start goes on without it.
//! V3. A number of a chunk or block is never used again: of one taken out, an empty meta stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk::{ChunkMeta, ChunkReader, LineBlock};
use super::damage::Damage;
use super::error::StoreError;
use super::files::{replace, sync_dir};
use super::journal::append::{list_segments, read_record};
use super::journal::record::{SEGMENT_HEADER, SEGMENT_MAGIC};
use super::journal::resync::{find_record, is_zero};
use super::keeper::words_of;
use super::kv::{Batch, Kv, KvOptions};
use super::layout::{
    ARCHIVE_FAMILY, FORMAT_VERSION, Layout, META_FAMILY, PartitionId, Signal, number_key, prefix,
    stream_key,
};
use super::manifest;
use super::meta_copy;
use super::options::Decoder;
use super::partition::Partition;
use super::recovery;
use super::seal::analyze;
use super::span::{BlockMeta, SpanBlock};
use super::verify::{self, Cause, Finding};
use crate::model::StreamId;
use crate::telemetry::metrics::Metrics;

/// Directory of lines that were saved without their labels.
const SALVAGED: &str = "salvaged";
/// Chunks indexed at a time.
const REINDEX_AT_ONCE: usize = 500;

/// What a repair did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Damage that is still there: it could not be dealt with.
    pub left: Vec<Finding>,
    /// Sentences about what is lost.
    pub lost: Vec<String>,
}

/// Repairs the directory; each step is told as it is done.
pub fn directory(
    path: &Path,
    decoder: &Decoder,
    tell: &mut dyn FnMut(&str),
) -> Result<Outcome, StoreError> {
    let layout = Layout::new(path);
    if !layout.db_dir().exists() && !layout.journal_dir().exists() {
        return Err(StoreError::corrupt(
            path.display().to_string(),
            "is no data directory",
        ));
    }
    let _lock = recovery::lock(&layout)?;
    format(&layout, tell)?;
    let damage = Damage::open(layout.root(), &Metrics::default());
    manifest::check(&layout, &damage)?;
    let options = KvOptions {
        write_buffers: 32 << 20,
        cache: 32 << 20,
    };
    let mut repair = Repair {
        kv: Arc::new(Kv::open(&layout.db_dir(), options, damage.clone())?),
        layout,
        outcome: Outcome::default(),
        tell,
    };
    let aside = repair.layout.rewrite_dir();
    if aside.exists() {
        let rows = repair.kv.finish_rewrite(&aside)?;
        repair.say(&format!(
            "a repair was interrupted; {rows} rows brought back"
        ));
    }
    let mut found = Vec::new();
    verify::walk(&repair.layout, decoder, false, &mut |f| found.push(f))?;
    meta_copy::check(&repair.kv, &repair.layout)?;
    let mut days: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for finding in found {
        days.entry(finding.day.clone()).or_default().push(finding);
    }
    for (day, found) in &days {
        repair.day(day, found)?;
    }
    repair.journal()?;
    repair.indices(&days)?;
    damage.forget(|_| true);
    let Repair {
        kv,
        layout,
        mut outcome,
        ..
    } = repair;
    drop(kv);
    verify::walk(&layout, decoder, false, &mut |f| outcome.left.push(f))?;
    Ok(outcome)
}

/// Writes a format version anew that is none. A version of another program is left alone.
fn format(layout: &Layout, tell: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
    let path = layout.format_file();
    let text = std::fs::read(&path).unwrap_or_default();
    let version = std::str::from_utf8(&text)
        .ok()
        .map(|t| t.trim().parse::<u32>());
    if !matches!(version, Some(Ok(_))) {
        replace(&path, format!("{FORMAT_VERSION}\n").as_bytes())
            .map_err(|e| StoreError::io(&path, "write", e))?;
        tell("FORMAT was no number and is written anew");
    }
    recovery::check_format(layout)
}

struct Repair<'a> {
    kv: Arc<Kv>,
    layout: Layout,
    outcome: Outcome,
    tell: &'a mut dyn FnMut(&str),
}

impl Repair<'_> {
    fn say(&mut self, what: &str) {
        (self.tell)(what);
    }

    fn lose(&mut self, what: String) {
        (self.tell)(&format!("lost: {what}"));
        self.outcome.lost.push(what);
    }

    /// Deals with what was found in one family.
    fn day(&mut self, name: &str, found: &[Finding]) -> Result<(), StoreError> {
        if name.is_empty() {
            return Ok(()); // journal, FORMAT, MANIFEST: by themselves
        }
        let id = PartitionId::parse_family(name).map(|(id, _)| id);
        let mut batch = Batch::default();
        let mut gone: BTreeSet<u32> = BTreeSet::new();
        let mut tables = 0;
        for finding in found {
            match (&finding.cause, id) {
                (Cause::Table, _) => tables += 1,
                (Cause::Data(number), Some(id)) => {
                    gone.insert(*number);
                    self.lose(finding.to_string());
                    remove(id, *number, &mut batch);
                }
                (Cause::Meta(number), Some(id)) => {
                    let made = self.meta(id, *number, &mut batch)?;
                    if !made {
                        gone.insert(*number);
                        remove(id, *number, &mut batch);
                    }
                }
                (Cause::Row(key), id) => self.row(name, id, key, finding, &mut batch)?,
                (Cause::Stream(stream), Some(_)) => self.stream(name, *stream, &mut batch)?,
                _ => {}
            }
        }
        if id.is_some_and(|id| id.signal == Signal::Spans) && !gone.is_empty() {
            self.kv.scan(name, &[prefix::TRACE], |key, _| {
                let number = key.get(17..21).and_then(|n| n.try_into().ok());
                if number.is_some_and(|n| gone.contains(&u32::from_be_bytes(n))) {
                    batch.delete(key);
                }
                true
            })?;
        }
        match name {
            META_FAMILY | ARCHIVE_FAMILY => {
                self.kv.write_logged(name, batch)?;
                self.kv.sync_log()?;
            }
            _ => self.kv.write(name, batch)?,
        }
        self.kv.flush(&[name.to_owned()])?;
        if tables > 0 {
            self.say(&format!("{name}: {tables} damaged tables, rewriting it"));
            let rows = self.kv.rewrite(name, &self.layout.rewrite_dir())?;
            let what = format!("what the damaged blocks of its tables held; {rows} rows are left");
            if name == META_FAMILY && meta_copy::exists(&self.layout) {
                self.say("meta: what was lost is restored from its copy");
            } else {
                self.lose(format!("{name}: {what}"));
            }
        }
        Ok(())
    }

    /// Makes the meta of a chunk or block anew. False: its stream is not known; its lines are
    /// saved.
    fn meta(
        &mut self,
        id: PartitionId,
        number: u32,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let name = id.name();
        let key = number_key(prefix::META, number);
        let old = self.kv.get(&name, &key, <[u8]>::to_vec)?;
        let data = number_key(prefix::DATA, number);
        let Some(data) = self.kv.get(&name, &data, <[u8]>::to_vec)? else {
            return Ok(false);
        };
        let corrupt = |what: String| StoreError::corrupt(format!("{name} {number}"), what);
        if id.signal == Signal::Spans {
            let block = SpanBlock::decode(&data).map_err(|e| corrupt(e.to_string()))?;
            let meta = block_meta(number, &block, data.len());
            batch.put(key, meta.encode());
            self.say(&format!("{name} block {number}: its meta is made anew"));
            return Ok(true);
        }
        let lines = ChunkReader::new(&data).and_then(|chunk| chunk.lines());
        let lines = lines.map_err(corrupt)?;
        let old = old.and_then(|bytes| ChunkMeta::decode(number, &bytes).ok());
        if let Some(old) = old {
            let flags = analyze(&lines).2;
            let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let meta = ChunkMeta::of(&lines, old.stream, size, flags.bits());
            batch.put(key, meta.encode());
            self.say(&format!("{name} chunk {number}: its meta is made anew"));
            return Ok(true);
        }
        let file = self.salvage(&name, number, &lines)?;
        self.lose(format!(
            "{name} chunk {number}: the labels of its {} lines; they are in {}",
            lines.len(),
            file.display()
        ));
        Ok(false)
    }

    /// Writes lines to a file, as NDJSON without labels.
    fn salvage(&self, name: &str, number: u32, lines: &LineBlock) -> Result<PathBuf, StoreError> {
        let dir = self.layout.root().join(SALVAGED);
        let path = dir.join(format!("{name}-chunk-{number}.ndjson"));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&dir)?;
            let mut out = std::io::BufWriter::new(File::create(&path)?);
            for i in 0..lines.len() {
                let line = serde_json::json!({
                    "ts": lines.at[i].to_string(),
                    "line": String::from_utf8_lossy(lines.line(i)),
                });
                writeln!(out, "{line}")?;
            }
            out.into_inner()?.sync_all()?;
            sync_dir(&dir)
        };
        write().map_err(|e| StoreError::io(&path, "write", e))?;
        Ok(path)
    }

    /// Deals with a row beside a chunk or block.
    fn row(
        &mut self,
        name: &str,
        id: Option<PartitionId>,
        key: &[u8],
        finding: &Finding,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        batch.delete(key);
        let Some(id) = id else {
            self.lose(finding.to_string());
            return Ok(());
        };
        match (key.first(), id.signal) {
            // Without one, the chunk is read by whoever looks for an id.
            (Some(&prefix::FILTER), _) => {
                self.say(&format!(
                    "{name}: a filter taken out, which costs time only"
                ));
            }
            (Some(&prefix::PATTERNS), Signal::Logs)
            | (Some(&prefix::SUMMARY | &prefix::RUN), Signal::Spans) => {
                self.say(&format!(
                    "{name}: a record taken out that is computed when asked for"
                ));
            }
            _ => self.lose(finding.to_string()),
        }
        Ok(())
    }

    /// Looks for a stream's labels in other days.
    fn stream(
        &mut self,
        name: &str,
        stream: StreamId,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let key = stream_key(prefix::STREAM, stream);
        for other in Kv::families(&self.layout.db_dir())? {
            let is_log =
                PartitionId::parse_family(&other).is_some_and(|(id, _)| id.signal == Signal::Logs);
            if other == name || !is_log {
                continue;
            }
            let Ok(Some(labels)) = self.kv.get(&other, &key, <[u8]>::to_vec) else {
                continue;
            };
            let decoded = super::streams::decode_stream(&labels);
            if decoded.is_ok_and(|(tenant, labels)| StreamId::of(&tenant, &labels) == stream) {
                batch.put(key, labels);
                self.say(&format!("{name}: labels of a stream taken from {other}"));
                return Ok(());
            }
        }
        batch.delete(key);
        self.lose(format!(
            "{name}: labels of stream {:032x}; its lines are found again once it is pushed to",
            stream.0
        ));
        Ok(())
    }

    /// Leaves damaged stretches out of the journal's segments; the old files are renamed.
    fn journal(&mut self) -> Result<(), StoreError> {
        let dir = self.layout.journal_dir();
        if !dir.exists() {
            return Ok(());
        }
        let segments = list_segments(&dir)?;
        for (n, segment) in segments.iter().enumerate() {
            let is_last = n + 1 == segments.len();
            let path = &segment.path;
            let io = |what| move |e| StoreError::io(path, what, e);
            let bytes = std::fs::read(path).map_err(io("read"))?;
            let file = File::open(path).map_err(io("open"))?;
            let mut whole = SEGMENT_MAGIC.to_vec();
            whole.extend_from_slice(&segment.first_seq.to_le_bytes());
            let (mut offset, mut seq) = (SEGMENT_HEADER as u64, segment.first_seq);
            while offset < segment.bytes {
                match read_record(&file, path, offset, segment.bytes)? {
                    Some((record, end)) => {
                        let place = offset as usize..end as usize;
                        whole.extend_from_slice(bytes.get(place).unwrap_or_default());
                        (offset, seq) = (end, record.header.seq + 1);
                    }
                    None => {
                        let next = find_record(&file, path, offset + 1, segment.bytes, seq)?;
                        if is_last && next.is_none() && is_zero(&file, path, offset, segment.bytes)?
                        {
                            whole.resize(bytes.len(), 0);
                            break;
                        }
                        let end = next.unwrap_or(segment.bytes);
                        let name = path.file_name().unwrap_or_default();
                        self.lose(format!(
                            "journal/{} bytes {offset} to {end}",
                            name.display()
                        ));
                        offset = end;
                    }
                }
            }
            if whole == bytes {
                continue;
            }
            let aside = path.with_extension("damaged");
            std::fs::hard_link(path, &aside)
                .or_else(|e| match e.kind() {
                    std::io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(e),
                })
                .map_err(io("set aside"))?;
            replace(path, &whole).map_err(io("write"))?;
            self.say(&format!(
                "journal: the damaged segment is kept as {}",
                aside.display()
            ));
        }
        Ok(())
    }

    /// Makes the indices anew that are damaged, or whose day was changed.
    fn indices(&mut self, days: &BTreeMap<String, Vec<Finding>>) -> Result<(), StoreError> {
        for name in Kv::families(&self.layout.db_dir())? {
            let Some((id, generation)) = PartitionId::parse_family(&name) else {
                continue;
            };
            let partition = Partition::open(id, generation, self.kv.clone(), &self.layout)?;
            if days.contains_key(&name) || partition.index.verify().is_err() {
                partition.index.set_aside_if_there()?;
            }
            let mut indexed = partition.index.indexed_below();
            let next = partition.next_number();
            if indexed >= next {
                continue;
            }
            while indexed < next {
                let numbers = partition.numbers(indexed..next, REINDEX_AT_ONCE)?;
                let until = match numbers.last() {
                    Some(last) if numbers.len() == REINDEX_AT_ONCE => last + 1,
                    _ => next,
                };
                let documents = words_of(&partition, &numbers)?;
                partition.index.commit(&documents, until)?;
                indexed = until;
            }
            self.say(&format!("{name}: its index is made anew"));
        }
        Ok(())
    }
}

/// Takes a chunk or block out; an empty meta stays (V3).
fn remove(id: PartitionId, number: u32, batch: &mut Batch) {
    batch.delete(number_key(prefix::DATA, number));
    batch.delete(number_key(prefix::FILTER, number));
    let meta = match id.signal {
        Signal::Logs => {
            batch.delete(number_key(prefix::PATTERNS, number));
            ChunkMeta::removed(number).encode()
        }
        Signal::Spans => {
            batch.delete(number_key(prefix::SUMMARY, number));
            BlockMeta::default().encode()
        }
    };
    batch.put(number_key(prefix::META, number), meta);
}

fn block_meta(number: u32, block: &SpanBlock, stored: usize) -> BlockMeta {
    let starts = || (0..block.len()).map(|n| block.start_of(n));
    let durations = || block.spans().map(|span| span.duration);
    BlockMeta {
        number,
        spans: block.len() as u32,
        raw_bytes: block.memory() as u64,
        stored_bytes: u32::try_from(stored).unwrap_or(u32::MAX),
        min_start: starts().min().unwrap_or(0),
        max_start: starts().max().unwrap_or(0),
        min_duration: durations().min().unwrap_or(0),
        max_duration: durations().max().unwrap_or(0),
        // As of an older block: the index is not asked for the newer ones.
        terms: 0,
    }
}
