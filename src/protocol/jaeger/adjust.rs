//! What Jaeger changes in a trace before it shows it, in 1.31's order: ids shared by
//! client and server, clock skew, addresses as numbers, order of log fields, references
//! to no trace. With `raw=true` a trace is shown as stored, without these.
//!
//! A1. No span is added or lost, and their order stays.
//! A2. Nothing recurses: traces are as deep as their senders make them.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::model::trace::{Process, RefType, Span, SpanId, SpanRef, Tag, TagValue, Trace};

use super::duration::GoDuration;

/// Adjusts a trace; `max_skew` in nanoseconds bounds how far times are shifted. With 0
/// none is, and a warning says what would have been.
pub fn adjust(trace: &mut Trace, max_skew: u64) {
    separate_shared_ids(&mut trace.spans);
    correct_clock_skew(&mut trace.spans, max_skew);
    spell_addresses(&mut trace.spans);
    sort_log_fields(&mut trace.spans);
    drop_empty_references(&mut trace.spans);
}

/// Zipkin's clients and servers may share one span id: the server's span becomes a child
/// of the client's, with an id of its own.
fn separate_shared_ids(spans: &mut [Span]) {
    let clients: HashSet<SpanId> = spans
        .iter()
        .filter(|s| s.kind() == "client")
        .map(|s| s.span_id)
        .collect();
    if clients.is_empty() {
        return;
    }
    let used: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let mut free = (1..=u64::MAX).map(SpanId).filter(|id| !used.contains(id));
    let mut renumbered = HashMap::new();
    for span in spans.iter_mut() {
        if span.kind() == "server" && clients.contains(&span.span_id) {
            let Some(id) = free.next() else { return };
            let shared = std::mem::replace(&mut span.span_id, id);
            renumbered.insert(shared, id);
            replace_parent(span, shared);
        }
    }
    for span in spans {
        if let Some(&server) = span.parent().and_then(|parent| renumbered.get(&parent))
            && span.span_id != server
        {
            replace_parent(span, server);
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
#[derive(Clone)]
struct Skew {
    host: Option<Box<str>>,
    delta: i64,
}

fn correct_clock_skew(spans: &mut [Span], max_skew: u64) {
    let mut by_id = HashMap::with_capacity(spans.len());
    let mut placed = Vec::with_capacity(spans.len());
    for (index, span) in spans.iter_mut().enumerate() {
        match by_id.entry(span.span_id) {
            Entry::Occupied(_) => {
                span.warnings
                    .push("duplicate span IDs; skipping clock skew adjustment".into());
            }
            Entry::Vacant(place) => {
                place.insert(index);
                placed.push(index);
            }
        }
    }
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    // A span, its parent, and the parent's skew; parents come before their children.
    let mut next: VecDeque<(usize, Option<usize>, Skew)> = VecDeque::new();
    for index in placed {
        let Some(span) = spans.get_mut(index) else {
            continue;
        };
        let root = match span.parent().filter(|parent| parent.0 != 0) {
            None => true,
            Some(parent) => match by_id.get(&parent) {
                Some(&parent) => {
                    children.entry(parent).or_default().push(index);
                    false
                }
                None => {
                    let text =
                        format!("invalid parent span IDs={parent}; skipping clock skew adjustment");
                    span.warnings.push(text.into());
                    true
                }
            },
        };
        if root {
            let skew = Skew {
                host: host(&span.process),
                delta: 0,
            };
            next.push_back((index, None, skew));
        }
    }
    while let Some((index, parent, mut skew)) = next.pop_front() {
        let Some(span) = spans.get(index) else {
            continue;
        };
        let host = host(&span.process);
        if let Some(parent) = parent.and_then(|parent| spans.get(parent))
            && (host.is_none() || host != skew.host)
        {
            skew = Skew {
                host,
                delta: delta(span, parent),
            };
        }
        if let Some(span) = spans.get_mut(index) {
            shift(span, skew.delta, max_skew);
        }
        for child in children.remove(&index).unwrap_or_default() {
            next.push_back((child, Some(index), skew.clone()));
        }
    }
}

/// What a child's times must move by to fit its parent.
fn delta(child: &Span, parent: &Span) -> i64 {
    let length = |span: &Span| i64::try_from(span.duration).unwrap_or(i64::MAX);
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

fn shift(span: &mut Span, delta: i64, max_skew: u64) {
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
fn host(process: &Process) -> Option<Box<str>> {
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

/// Numeric addresses become text, and process tags are sorted.
fn spell_addresses(spans: &mut [Span]) {
    // Spans share processes; each is changed once. The old one is kept so that its
    // address is not used again meanwhile.
    let mut done: HashMap<*const Process, (Arc<Process>, Arc<Process>)> = HashMap::new();
    for span in spans {
        spell(&mut span.tags);
        let (_, changed) = done.entry(Arc::as_ptr(&span.process)).or_insert_with(|| {
            let mut process = Process::clone(&span.process);
            spell(&mut process.tags);
            process.tags.sort_by(compare);
            (span.process.clone(), Arc::new(process))
        });
        span.process = changed.clone();
    }
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
fn sort_log_fields(spans: &mut [Span]) {
    let is_event = |tag: &Tag| &*tag.key == "event" && matches!(tag.value, TagValue::String(_));
    for log in spans.iter_mut().flat_map(|span| &mut span.logs) {
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

fn drop_empty_references(spans: &mut [Span]) {
    for span in spans {
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
}

#[cfg(test)]
mod tests;
