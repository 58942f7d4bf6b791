//! What Jaeger changes in a trace before it shows it, in 1.31's order: ids shared by
//! client and server, clock skew, addresses as numbers, order of log fields, references
//! to no trace. With `raw=true` a trace is shown as stored, without these.
//!
//! A trace need not be in memory for it: an [`Observer`] is shown the spans one by one and
//! keeps some numbers of each; what it makes of them, [`Adjustments`], changes the spans when
//! they come by again in the same order.
//!
//! A1. No span is added or lost, and their order stays.
//! A2. Nothing recurses: traces are as deep as their senders make them.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::model::trace::{Process, RefType, Span, SpanId, SpanRef, Tag, TagValue, Text, Trace};

use super::duration::GoDuration;

/// Adjusts a trace; `max_skew` in nanoseconds bounds how far times are shifted. With 0
/// none is, and a warning says what would have been.
pub fn adjust(trace: &mut Trace, max_skew: u64) {
    let mut observer = Observer::default();
    trace.spans.iter().for_each(|span| observer.observe(span));
    let mut adjustments = observer.finish(max_skew);
    for span in &mut trace.spans {
        // What was shown a moment ago is not unknown.
        let _ = adjustments.apply(span);
    }
}

/// The spans that come by are not those that were observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trace changed while it was read; ask again")]
pub struct Changed;

/// Takes note of the spans of one trace. Some 40 bytes each, and the names of hosts.
#[derive(Default)]
pub struct Observer {
    rows: Vec<Row>,
    hosts: HashMap<Text, u32>,
    /// The process looked at last and its host: spans of a batch share one.
    last: Option<(Arc<Process>, u32)>,
}

/// What is known of one span.
struct Row {
    id: SpanId,
    start: i64,
    duration: u64,
    /// 0: none.
    parent: SpanId,
    /// 0: none.
    host: u32,
    kind: Kind,
    changes: Changes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Client,
    Server,
    Other,
}

/// What is to be said of a span, besides its id, parent and shift.
#[derive(Clone, Copy, Default)]
struct Changes {
    renumbered: bool,
    new_parent: bool,
    duplicate: bool,
    orphan: bool,
}

impl Observer {
    pub fn observe(&mut self, span: &Span) {
        let host = match &self.last {
            Some((process, host)) if Arc::ptr_eq(process, &span.process) => *host,
            _ => {
                let next = self.hosts.len() as u32 + 1;
                let host =
                    host(&span.process).map_or(0, |host| *self.hosts.entry(host).or_insert(next));
                self.last = Some((span.process.clone(), host));
                host
            }
        };
        self.rows.push(Row {
            id: span.span_id,
            start: span.start,
            duration: span.duration,
            parent: span.parent().unwrap_or_default(),
            host,
            kind: match span.kind() {
                "client" => Kind::Client,
                "server" => Kind::Server,
                _ => Kind::Other,
            },
            changes: Changes::default(),
        });
    }

    /// How many spans it was shown.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is to be done with the spans; see [`adjust`] for `max_skew`.
    pub fn finish(self, max_skew: u64) -> Adjustments {
        let Self { mut rows, .. } = self;
        let seen = rows.iter().map(|row| seen(row.id, row.start)).collect();
        separate_shared_ids(&mut rows);
        let shifts = clock_skews(&mut rows, max_skew);
        let mut ids = HashMap::new();
        let mut parents = HashMap::new();
        let mut changes = Vec::with_capacity(rows.len());
        for (n, row) in rows.into_iter().enumerate() {
            if row.changes.renumbered {
                ids.insert(n as u32, row.id);
            }
            if row.changes.new_parent {
                parents.insert(n as u32, row.parent);
            }
            changes.push(row.changes);
        }
        Adjustments {
            max_skew,
            seen,
            changes,
            shifts,
            ids,
            parents,
            next: 0,
            processes: HashMap::new(),
        }
    }
}

/// By which a span is known again.
fn seen(id: SpanId, start: i64) -> u32 {
    let mixed = (id.0 ^ (start as u64).rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

/// What to change in the spans of a trace, in the order in which they were observed.
pub struct Adjustments {
    max_skew: u64,
    seen: Vec<u32>,
    changes: Vec<Changes>,
    /// Nanoseconds.
    shifts: Vec<i64>,
    ids: HashMap<u32, SpanId>,
    parents: HashMap<u32, SpanId>,
    next: u32,
    /// Processes, by address, and what becomes of them. The old ones are kept so that their
    /// addresses are not used again meanwhile.
    processes: HashMap<usize, (Arc<Process>, Arc<Process>)>,
}

/// More are forgotten: the spans of a large trace come from many blocks with their own.
const PROCESSES: usize = 256;

impl Adjustments {
    /// How many spans there are to adjust.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adjusts the next span.
    pub fn apply(&mut self, span: &mut Span) -> Result<(), Changed> {
        let n = self.next as usize;
        let (Some(&known), Some(&changes), Some(&shift)) =
            (self.seen.get(n), self.changes.get(n), self.shifts.get(n))
        else {
            return Err(Changed);
        };
        if known != seen(span.span_id, span.start) {
            return Err(Changed);
        }
        if let Some(id) = self.ids.get(&self.next) {
            span.span_id = *id;
        }
        let parent = self.parents.get(&self.next).copied();
        self.next += 1;
        if let Some(parent) = parent {
            replace_parent(span, parent);
        }
        if changes.duplicate {
            span.warnings
                .push("duplicate span IDs; skipping clock skew adjustment".into());
        }
        if changes.orphan
            && let Some(parent) = span.parent()
        {
            let text = format!("invalid parent span IDs={parent}; skipping clock skew adjustment");
            span.warnings.push(text.into());
        }
        shift_times(span, shift, self.max_skew);
        self.spell_addresses(span);
        sort_log_fields(span);
        drop_empty_references(span);
        Ok(())
    }

    /// Numeric addresses become text, and process tags are sorted.
    fn spell_addresses(&mut self, span: &mut Span) {
        spell(&mut span.tags);
        if self.processes.len() > PROCESSES {
            self.processes.clear();
        }
        let process = &span.process;
        let (_, changed) = self
            .processes
            .entry(Arc::as_ptr(process) as usize)
            .or_insert_with(|| {
                let mut changed = Process::clone(process);
                spell(&mut changed.tags);
                changed.tags.sort_by(compare);
                (process.clone(), Arc::new(changed))
            });
        span.process = changed.clone();
    }
}

/// Zipkin's clients and servers may share one span id: the server's span becomes a child
/// of the client's, with an id of its own.
fn separate_shared_ids(rows: &mut [Row]) {
    let clients: HashSet<SpanId> = rows
        .iter()
        .filter(|row| row.kind == Kind::Client)
        .map(|row| row.id)
        .collect();
    if clients.is_empty() {
        return;
    }
    let shares = |row: &Row| row.kind == Kind::Server && clients.contains(&row.id);
    if !rows.iter().any(shares) {
        return;
    }
    let used: HashSet<SpanId> = rows.iter().map(|row| row.id).collect();
    let mut free = (1..=u64::MAX).map(SpanId).filter(|id| !used.contains(id));
    let mut renumbered = HashMap::new();
    for row in rows.iter_mut() {
        if shares(row) {
            let Some(id) = free.next() else { return };
            let shared = std::mem::replace(&mut row.id, id);
            renumbered.insert(shared, id);
            row.parent = shared;
            row.changes.renumbered = true;
            row.changes.new_parent = true;
        }
    }
    for row in rows {
        if let Some(&server) = renumbered.get(&row.parent)
            && row.parent.0 != 0
            && row.id != server
        {
            row.parent = server;
            row.changes.new_parent = true;
        }
    }
}

fn replace_parent(span: &mut Span, parent: SpanId) {
    let trace_id = span.trace_id;
    let reference = span
        .references
        .iter_mut()
        .find(|r| r.kind == RefType::ChildOf && r.trace_id == trace_id);
    match reference {
        Some(reference) => reference.span_id = parent,
        None => span.references.insert(
            0,
            SpanRef {
                kind: RefType::ChildOf,
                trace_id,
                span_id: parent,
            },
        ),
    }
}

/// How far the clock of a host is off, as seen from the parent.
#[derive(Clone, Copy)]
struct Skew {
    host: u32,
    delta: i64,
}

/// No row.
const NONE: u32 = u32::MAX;

/// What the times of each span are off by.
fn clock_skews(rows: &mut [Row], max_skew: u64) -> Vec<i64> {
    let mut shifts = vec![0; rows.len()];
    let mut by_id: HashMap<SpanId, u32> = HashMap::with_capacity(rows.len());
    for (n, row) in rows.iter_mut().enumerate() {
        match by_id.entry(row.id) {
            Entry::Occupied(_) => row.changes.duplicate = true,
            Entry::Vacant(place) => {
                place.insert(n as u32);
            }
        }
    }
    // The first child of each span, and the next one of its parent.
    let mut first_child = vec![NONE; rows.len()];
    let mut next_child = vec![NONE; rows.len()];
    // A span, its parent, and the parent's skew; parents come before their children.
    let mut next: VecDeque<(u32, u32, Skew)> = VecDeque::new();
    for (n, row) in rows.iter_mut().enumerate() {
        if row.changes.duplicate {
            continue;
        }
        let parent = by_id.get(&row.parent).filter(|_| row.parent.0 != 0);
        match parent {
            Some(&parent) => {
                next_child[n] = first_child[parent as usize];
                first_child[parent as usize] = n as u32;
            }
            None => {
                row.changes.orphan = row.parent.0 != 0;
                let skew = Skew {
                    host: row.host,
                    delta: 0,
                };
                next.push_back((n as u32, NONE, skew));
            }
        }
    }
    drop(by_id);
    while let Some((n, parent, mut skew)) = next.pop_front() {
        let row = &rows[n as usize];
        if parent != NONE && (row.host == 0 || row.host != skew.host) {
            skew = Skew {
                host: row.host,
                delta: delta(row, &rows[parent as usize]),
            };
        }
        shifts[n as usize] = skew.delta;
        if skew.delta.unsigned_abs() <= max_skew {
            let row = &mut rows[n as usize];
            row.start = row.start.saturating_add(skew.delta);
        }
        let mut child = first_child[n as usize];
        while child != NONE {
            next.push_back((child, n, skew));
            child = next_child[child as usize];
        }
    }
    shifts
}

/// What a child's times must move by to fit its parent.
fn delta(child: &Row, parent: &Row) -> i64 {
    let length = |row: &Row| i64::try_from(row.duration).unwrap_or(i64::MAX);
    let to_start = parent.start.saturating_sub(child.start);
    if child.duration > parent.duration {
        // It outlived its parent, so it is asynchronous or the parent gave up: all that
        // is certain is that it did not begin earlier.
        return to_start.max(0);
    }
    let ends_inside =
        child.start.saturating_add(length(child)) <= parent.start.saturating_add(length(parent));
    if child.start >= parent.start && ends_inside {
        return 0;
    }
    // There and back are taken to be equally long.
    to_start.saturating_add((length(parent) - length(child)) / 2)
}

fn shift_times(span: &mut Span, delta: i64, max_skew: u64) {
    if delta == 0 {
        return;
    }
    let by = GoDuration(delta);
    let warning = if delta.unsigned_abs() <= max_skew {
        span.start = span.start.saturating_add(delta);
        for log in &mut span.logs {
            log.at = log.at.saturating_add(delta);
        }
        format!("This span's timestamps were adjusted by {by}")
    } else if max_skew == 0 {
        format!("clock skew adjustment disabled; not applying calculated delta of {by}")
    } else {
        let max = GoDuration(i64::try_from(max_skew).unwrap_or(i64::MAX));
        format!(
            "max clock skew adjustment delta of {max} exceeded; not applying calculated delta of {by}"
        )
    };
    span.warnings.push(warning.into());
}

/// The address of a process's host, by which clocks are told apart.
fn host(process: &Process) -> Option<Text> {
    let tag = process.tags.iter().find(|tag| &*tag.key == "ip")?;
    let text = match &tag.value {
        TagValue::String(text) => return Some(text.clone()).filter(|text| !text.is_empty()),
        TagValue::Int64(packed) => Ipv4Addr::from_bits(*packed as u32).to_string(),
        TagValue::Binary(bytes) => {
            if let Ok(octets) = <[u8; 4]>::try_from(&**bytes) {
                Ipv4Addr::from(octets).to_string()
            } else {
                Ipv6Addr::from(<[u8; 16]>::try_from(&**bytes).ok()?).to_string()
            }
        }
        TagValue::Bool(_) | TagValue::Float64(_) => return None,
    };
    Some(text.into())
}

fn spell(tags: &mut [Tag]) {
    for tag in tags {
        if matches!(&*tag.key, "ip" | "peer.ipv4") {
            let packed = match tag.value {
                TagValue::Int64(packed) => packed as u32,
                TagValue::Float64(packed) => packed as i64 as u32,
                _ => continue,
            };
            tag.value = TagValue::String(Ipv4Addr::from_bits(packed).to_string().into());
        }
    }
}

/// The text field `event` comes first, the others in order of key, type and value.
fn sort_log_fields(span: &mut Span) {
    let is_event = |tag: &Tag| &*tag.key == "event" && matches!(tag.value, TagValue::String(_));
    for log in &mut span.logs {
        log.fields.sort_by(compare);
        if let Some(index) = log.fields.iter().position(is_event) {
            log.fields[..=index].rotate_right(1);
        }
    }
}

fn compare(a: &Tag, b: &Tag) -> Ordering {
    fn rank(value: &TagValue) -> u8 {
        match value {
            TagValue::String(_) => 0,
            TagValue::Bool(_) => 1,
            TagValue::Int64(_) => 2,
            TagValue::Float64(_) => 3,
            TagValue::Binary(_) => 4,
        }
    }
    a.key.cmp(&b.key).then_with(|| match (&a.value, &b.value) {
        (TagValue::String(a), TagValue::String(b)) => a.cmp(b),
        (TagValue::Bool(a), TagValue::Bool(b)) => a.cmp(b),
        (TagValue::Int64(a), TagValue::Int64(b)) => a.cmp(b),
        (TagValue::Float64(a), TagValue::Float64(b)) => a.total_cmp(b),
        (TagValue::Binary(a), TagValue::Binary(b)) => a.cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    })
}

fn drop_empty_references(span: &mut Span) {
    let Span {
        references,
        warnings,
        ..
    } = span;
    references.retain(|reference| {
        let keep = reference.trace_id.0 != 0;
        if !keep {
            let kind = match reference.kind {
                RefType::ChildOf => "CHILD_OF",
                RefType::FollowsFrom => "FOLLOWS_FROM",
            };
            let text = format!(
                "Invalid span reference removed: {kind} span {} of no trace",
                reference.span_id
            );
            warnings.push(text.into());
        }
        keep
    });
}

#[cfg(test)]
mod tests;
