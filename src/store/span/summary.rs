//! What a block says of services: spans, failures and durations, by operation, kind and time.
//!
//! On disk: version u8 = 1 | first slot zigzag | last slot, as distance from it | a zstd frame
//! of the body. The body, all numbers varints: least step | number of services | per service:
//! name | length of what follows of it | number of operations | per operation: name | kind |
//! number of cells | cells. A kind is 0 for none, 1–5 for those that Jaeger knows
//! ([`KINDS`]), 6 and its text for another. Texts have their length before them.
//!
//! A cell is what one operation has in one slot: `8 d + 2 n + e` with the distance `d` to the
//! slot before (of the first: to the first slot of all), `n` spans less one and `e` 1 when some
//! failed; 3 for `n` is followed by the spans less four; then the number that failed, if any.
//! Then its steps of duration, until they have all spans: `2 d + m`, `d` the distance to the
//! step before, of the first step zigzag and to the first of the cell before (of the first: to
//! the least); `m` 1 when it has more spans than one, followed by how many less two.
//!
//! R1. What a record gives is what its block's spans give, each counted once; exact repetitions
//!     inside the block are not counted.
//! R2. Any bytes decode to a record or an error, and the work is bounded by their length.

use foldhash::HashMap;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::{Part, SpanBlock, SpanRow, Value};
use crate::model::service_metrics::{scale, slot_of};
use crate::store::chunk::{compress_frame, decompress_frame};
use crate::store::codec::{Reader, Writer};

const VERSION: u8 = 1;

/// Values of `span.kind` by their codes.
const KINDS: [&str; 6] = ["", "client", "server", "producer", "consumer", "internal"];

/// Bytes that a record may decode to. A block's has 1024 spans of which each may bring a name.
const MAX_BODY: usize = 64 << 20;

/// What one operation of one kind did in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    pub service: &'a str,
    pub operation: &'a str,
    pub kind: &'a str,
    pub slot: i64,
    pub calls: u64,
    pub errors: u64,
    /// Steps of [`scale`] with how many spans they have, in order.
    pub durations: &'a [(u16, u64)],
}

/// Who counts what a record, or a block without one, holds.
pub trait Tally {
    /// Whether cells of this service are asked for; of others nothing is told.
    fn wants(&self, service: &str) -> bool;

    /// Called in order of service and operation, then of slots.
    fn cell(&mut self, cell: Cell<'_>);
}

/// One span as it is counted; sorted they are the cells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    series: u32,
    slot: i64,
    step: u16,
    failed: bool,
}

/// Spans of a block, sorted, by the numbers of their series.
struct Sorted<'a> {
    /// Service, operation and kind, in order.
    series: Vec<(&'a str, &'a str, &'a str)>,
    spans: Vec<Counted>,
}

impl SpanBlock {
    /// The record to be kept beside the block.
    pub fn summary(&self) -> Vec<u8> {
        encode(&self.sorted(|_| true))
    }

    /// Counts the spans without making a record.
    pub fn tally(&self, tally: &mut impl Tally) {
        let sorted = self.sorted(|service| tally.wants(service));
        let mut durations = Vec::new();
        for cell in sorted
            .spans
            .chunk_by(|a, b| (a.series, a.slot) == (b.series, b.slot))
        {
            durations.clear();
            let steps = cell.chunk_by(|a, b| a.step == b.step);
            durations.extend(steps.map(|same| (same[0].step, same.len() as u64)));
            let (service, operation, kind) = sorted.series[cell[0].series as usize];
            tally.cell(Cell {
                service,
                operation,
                kind,
                slot: cell[0].slot,
                calls: cell.len() as u64,
                errors: cell.iter().filter(|span| span.failed).count() as u64,
                durations: &durations,
            });
        }
    }

    fn sorted(&self, wanted: impl Fn(&str) -> bool) -> Sorted<'_> {
        // What each distinct tag says, looked at once.
        let (kind_key, error, status) = (
            self.names.position("span.kind"),
            self.names.position("error"),
            self.names.position("otel.status_code"),
        );
        const KIND: u8 = 1;
        const FAILED: u8 = 2;
        let text_is = |value: &Value, text: &str| match value {
            Value::Text(start, end) => &self.values[*start as usize..*end as usize] == text,
            _ => false,
        };
        let says: Vec<u8> = self
            .tags
            .iter()
            .map(|tag| {
                let key = Some(tag.key);
                let is_kind = key == kind_key && matches!(tag.value, Value::Text(..));
                let failed = key == error
                    && (matches!(tag.value, Value::Bool(true)) || text_is(&tag.value, "true"))
                    || key == status && text_is(&tag.value, "ERROR");
                u8::from(is_kind) * KIND + u8::from(failed) * FAILED
            })
            .collect();
        let services: Vec<bool> = self
            .processes
            .iter()
            .map(|process| wanted(self.names.get(process.service)))
            .collect();

        let hasher = RandomState::default();
        let mut numbers: HashMap<(u32, u32, u32), u32> = HashMap::default();
        let mut found = Vec::new();
        let mut spans = Vec::with_capacity(self.spans.len());
        let mut seen: HashTable<u32> = HashTable::with_capacity(self.spans.len());
        for (n, span) in self.spans.iter().enumerate() {
            if !services[span.process as usize] || self.is_repeated(n, &hasher, &mut seen) {
                continue;
            }
            let mut kind = u32::MAX;
            let mut failed = false;
            for tag in &self.tag_lists[span.tags.range()] {
                let says = says[*tag as usize];
                if says & KIND != 0 && kind == u32::MAX {
                    kind = *tag;
                }
                failed |= says & FAILED != 0;
            }
            let service = self.processes[span.process as usize].service;
            let next = numbers.len() as u32;
            let key = (service, span.operation, kind);
            let series = *numbers.entry(key).or_insert_with(|| {
                found.push(key);
                next
            });
            spans.push(Counted {
                series,
                slot: slot_of(span.start),
                step: scale::step_of(span.duration),
                failed,
            });
        }
        // By names: numbers of a block mean nothing elsewhere, and one name with two kinds
        // comes twice.
        let mut series: Vec<((&str, &str, &str), u32)> = found
            .into_iter()
            .zip(0..)
            .map(|((service, operation, kind), n)| {
                let kind = match self.tags.get(kind as usize).map(|tag| tag.value) {
                    Some(Value::Text(start, end)) => &self.values[start as usize..end as usize],
                    _ => "",
                };
                let names = (self.names.get(service), self.names.get(operation), kind);
                (names, n)
            })
            .collect();
        series.sort_unstable();
        let mut places = vec![0; series.len()];
        let mut distinct: Vec<(&str, &str, &str)> = Vec::with_capacity(series.len());
        for (names, n) in series {
            // An absent kind and an empty one are the same.
            if distinct.last() != Some(&names) {
                distinct.push(names);
            }
            places[n as usize] = distinct.len() as u32 - 1;
        }
        for span in &mut spans {
            span.series = places[span.series as usize];
        }
        spans.sort_unstable();
        Sorted {
            series: distinct,
            spans,
        }
    }

    /// Whether a span like the `n`th in everything came before it in this block.
    pub(super) fn is_repeated(
        &self,
        n: usize,
        hasher: &RandomState,
        seen: &mut HashTable<u32>,
    ) -> bool {
        let span = &self.spans[n];
        let hash = hasher.hash_one((span.trace, span.span_id));
        let hash_of = |row: &SpanRow| hasher.hash_one((row.trace, row.span_id));
        if seen
            .find(hash, |other| {
                self.same_span(&self.spans[*other as usize], span)
            })
            .is_some()
        {
            return true;
        }
        seen.insert_unique(hash, n as u32, |other| {
            hash_of(&self.spans[*other as usize])
        });
        false
    }

    /// Equal in everything: tags, names and processes are kept once, so numbers decide.
    fn same_span(&self, a: &SpanRow, b: &SpanRow) -> bool {
        let tags = |part: Part| &self.tag_lists[part.range()];
        (a.trace, a.span_id, a.start, a.duration) == (b.trace, b.span_id, b.start, b.duration)
            && (a.process, a.operation, a.flags) == (b.process, b.operation, b.flags)
            && self.refs[a.refs.range()] == self.refs[b.refs.range()]
            && tags(a.tags) == tags(b.tags)
            && self.warnings[a.warnings.range()] == self.warnings[b.warnings.range()]
            && a.logs.range().len() == b.logs.range().len()
            && self.logs[a.logs.range()]
                .iter()
                .zip(&self.logs[b.logs.range()])
                .all(|(a, b)| a.at == b.at && tags(a.fields) == tags(b.fields))
    }
}

fn encode(sorted: &Sorted<'_>) -> Vec<u8> {
    let spans = &sorted.spans;
    let slots = spans.iter().map(|span| span.slot);
    let (Some(first), Some(last)) = (slots.clone().min(), slots.max()) else {
        return Vec::new();
    };
    let least = spans.iter().map(|span| span.step).min().unwrap_or(0);
    let mut out = Writer::default();
    out.raw(&[VERSION]);
    out.zigzag(first);
    out.varint(last.abs_diff(first));

    let mut body = Writer::default();
    body.varint(u64::from(least));
    let services = sorted.series.chunk_by(|a, b| a.0 == b.0);
    body.varint(services.clone().count() as u64);
    let mut by_series = spans.chunk_by(|a, b| a.series == b.series);
    for operations in services {
        let mut of_service = Writer::default();
        of_service.varint(operations.len() as u64);
        for (_, name, kind) in operations {
            of_service.text(name.as_bytes());
            match KINDS.iter().position(|known| known == kind) {
                Some(code) => of_service.varint(code as u64),
                None => {
                    of_service.varint(KINDS.len() as u64);
                    of_service.text(kind.as_bytes());
                }
            }
            // Every series has a span, and both are in the same order.
            let spans = by_series.next().unwrap_or_default();
            encode_cells(spans, first, least, &mut of_service);
        }
        let of_service = of_service.finish();
        body.text(operations[0].0.as_bytes());
        body.text(&of_service);
    }
    let mut out = out.finish();
    match compress_frame(&body.finish(), &mut out) {
        Ok(_) => out,
        // It can be computed from the block.
        Err(_) => Vec::new(),
    }
}

fn encode_cells(spans: &[Counted], first: i64, least: u16, out: &mut Writer) {
    let cells = spans.chunk_by(|a, b| a.slot == b.slot);
    out.varint(cells.clone().count() as u64);
    let (mut slot, mut step_before) = (first, least);
    for cell in cells {
        let (calls, failed) = (
            cell.len() as u64,
            cell.iter().filter(|span| span.failed).count() as u64,
        );
        // Slots are of nanoseconds that fit 64 bits, so this does not overflow.
        let distance = cell[0].slot.abs_diff(slot);
        slot = cell[0].slot;
        out.varint(distance * 8 + (calls - 1).min(3) * 2 + u64::from(failed > 0));
        if calls > 3 {
            out.varint(calls - 4);
        }
        if failed > 0 {
            out.varint(failed);
        }
        let mut before = None;
        for step in cell.chunk_by(|a, b| a.step == b.step) {
            let more = step.len() as u64 - 1;
            let distance = match before {
                None => {
                    let distance = i64::from(step[0].step) - i64::from(step_before);
                    step_before = step[0].step;
                    crate::store::codec::zigzag(distance)
                }
                Some(before) => u64::from(step[0].step - before),
            };
            before = Some(step[0].step);
            out.varint(distance * 2 + u64::from(more > 0));
            if more > 0 {
                out.varint(more - 1);
            }
        }
    }
}

/// First and last slot of a record; `None` for one without spans. Decodes nothing else.
pub fn slots(record: &[u8]) -> Result<Option<(i64, i64)>, String> {
    if record.is_empty() {
        return Ok(None);
    }
    let (first, last, _) = header(record)?;
    Ok(Some((first, last)))
}

fn header(record: &[u8]) -> Result<(i64, i64, &[u8]), String> {
    let mut r = Reader::new(record);
    match r.u8()? {
        VERSION => {}
        other => return Err(format!("summary version {other}, expected {VERSION}")),
    }
    let first = r.zigzag()?;
    let last = first
        .checked_add_unsigned(r.varint()?)
        .ok_or("slot out of range")?;
    Ok((first, last, r.bytes(r.remaining())?))
}

/// Tells what a record holds.
pub fn decode(record: &[u8], tally: &mut impl Tally) -> Result<(), String> {
    if record.is_empty() {
        return Ok(());
    }
    let (first, _, frame) = header(record)?;
    let mut body = Vec::new();
    decompress_frame(frame, MAX_BODY, &mut body)?;
    decode_body(first, &body, tally)
}

/// The same of an uncompressed body; apart so that it can be fuzzed.
pub fn decode_body(first: i64, body: &[u8], tally: &mut impl Tally) -> Result<(), String> {
    let mut r = Reader::new(body);
    let least = r.varint()?;
    let mut durations = Vec::new();
    for _ in 0..r.count(2)? {
        let service = r.str()?;
        let of_service = r.text()?;
        if !tally.wants(service) {
            continue;
        }
        let mut r = Reader::new(of_service);
        for _ in 0..r.count(3)? {
            let operation = r.str()?;
            let code = usize::try_from(r.varint()?).unwrap_or(usize::MAX);
            let kind = match KINDS.get(code) {
                Some(kind) => *kind,
                None if code == KINDS.len() => r.str()?,
                None => return Err("kind out of range".into()),
            };
            let (mut slot, mut step_before) = (first, least as i64);
            for _ in 0..r.count(2)? {
                let head = r.varint()?;
                slot = slot
                    .checked_add_unsigned(head / 8)
                    .ok_or("slot out of range")?;
                let mut calls = ((head / 2) & 3) + 1;
                if calls > 3 {
                    calls = r.varint()?.checked_add(4).ok_or("count out of range")?;
                }
                let errors = if head & 1 == 1 { r.varint()? } else { 0 };
                durations.clear();
                let mut left = calls;
                let mut step = 0i64;
                while left > 0 {
                    let code = r.varint()?;
                    step = if durations.is_empty() {
                        let distance = crate::store::codec::unzigzag(code / 2);
                        step_before = step_before.wrapping_add(distance);
                        step_before
                    } else {
                        step.wrapping_add((code / 2) as i64)
                    };
                    let spans = match code & 1 {
                        0 => 1,
                        _ => r.varint()?.checked_add(2).ok_or("count out of range")?,
                    };
                    left = left.checked_sub(spans).ok_or("more spans than its cell")?;
                    if !(0..scale::STEPS as i64).contains(&step) {
                        return Err("step out of range".into());
                    }
                    durations.push((step as u16, spans));
                }
                tally.cell(Cell {
                    service,
                    operation,
                    kind,
                    slot,
                    calls,
                    errors,
                    durations: &durations,
                });
            }
        }
        if r.remaining() > 0 {
            return Err("a service is longer than it says".into());
        }
    }
    if r.remaining() == 0 {
        Ok(())
    } else {
        Err("summary is longer than it says".into())
    }
}

#[cfg(test)]
mod tests;
