//! The search for traces, over anything that holds blocks of spans.
//!
//! T1. Found are the traces with a span that matches, newest first by the start of their newest
//!     such span, equal ones by greater id.
//! T2. Sealed blocks are read by their newest start, descending; reading ends when the last
//!     trace that the limit leaves room for is newer than everything not read.
//! T3. A trace is complete: all its spans, wherever and whenever. Repetitions are dropped,
//!     different spans with one id are kept.
//! T4. An answer too large or too late is an error, never a part of the answer.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::model::Timestamp;
use crate::model::search::SpanMatcher;
use crate::model::trace::{Span, SpanId, Tag, TagValue, Text, Trace, TraceId, TraceQuery};
use crate::query::answer::QueryError;
use crate::store::span::{BlockNeed, SpanBlock};

/// Number of traces when the query doesn't say.
const DEFAULT_LIMIT: usize = 100;

/// Part of the work on a source.
pub type Job<S, T> = Box<dyn FnOnce(&S) -> T + Send>;

/// Where spans lie, at one instant: each in exactly one block.
pub trait SpanSource: Sized + 'static {
    /// Names a sealed block.
    type Place: Copy + Ord + Send + 'static;

    /// Blocks in memory.
    fn open(&self) -> impl Iterator<Item = &SpanBlock>;

    /// Sealed blocks that may hold what is searched for.
    fn candidates<'a>(
        &'a self,
        matcher: &'a SpanMatcher,
        need: &BlockNeed,
    ) -> Result<Vec<Group<'a, Self::Place>>, QueryError>;

    /// Whether a candidate still is one after a closer, dearer look.
    fn may_match(&self, place: Self::Place, need: &BlockNeed) -> Result<bool, QueryError>;

    /// A sealed block; `None` when it was dropped meanwhile.
    fn read(&self, place: Self::Place, why: Why) -> Result<Option<Arc<SpanBlock>>, QueryError>;

    /// Runs jobs, maybe at the same time, and gives their results in order.
    fn run<T: Send + 'static>(&self, jobs: Vec<Job<Self, T>>) -> Result<Vec<T>, QueryError>;

    /// How many jobs run at the same time.
    fn width(&self) -> usize;

    /// Sealed blocks with spans of a trace.
    fn places_of(&self, trace: TraceId) -> Result<Vec<Self::Place>, QueryError>;
}

/// Sealed blocks of which none has a start after `newest`. Which they are is asked for when their
/// turn comes, with the newest start in each: of many groups the newest are enough for most.
pub struct Group<'a, P> {
    pub newest: Timestamp,
    pub list: Box<dyn FnOnce() -> Vec<(Timestamp, P)> + 'a>,
}

/// Candidates by their newest start, descending.
struct Candidates<'a, P> {
    /// Ascending.
    groups: Vec<Group<'a, P>>,
    /// Of the groups that were listed. Few of many are looked at: a heap has them in order at
    /// less cost than sorting.
    listed: BinaryHeap<(Timestamp, P)>,
}

impl<'a, P: Ord> Candidates<'a, P> {
    fn new(mut groups: Vec<Group<'a, P>>) -> Self {
        groups.sort_by_key(|group| group.newest);
        Self {
            groups,
            listed: BinaryHeap::new(),
        }
    }

    /// The next one, unless what it has is older than `floor`; then so is everything after it.
    fn next(&mut self, floor: Option<Timestamp>) -> Option<P> {
        let is_older = |newest: Timestamp| floor.is_some_and(|floor| floor > newest);
        loop {
            let next = self.listed.peek().map(|(newest, _)| *newest);
            match self.groups.last() {
                Some(group) if next.is_none_or(|next| next <= group.newest) => {
                    if is_older(group.newest) {
                        return None;
                    }
                    let group = self.groups.pop()?;
                    self.listed.extend((group.list)());
                }
                _ if next.is_some_and(is_older) => return None,
                _ => return self.listed.pop().map(|(_, place)| place),
            }
        }
    }
}

/// What a block is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Spans that match may be in it.
    Search,
    /// Spans of a trace are in it.
    Traces,
}

/// Blocks that are searched before it is looked whether that was enough: at first, and at most.
/// It doubles in between, so that at most half of them are read in vain. While nothing is found,
/// closer looks rule out nearly all, which costs little each.
const FIRST_WAVE: usize = 2;
const LARGEST_WAVE: usize = 32;
const VAIN_WAVE: usize = 256;

/// What one answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub deadline: Instant,
    /// What the deadline came from, for the error.
    pub timeout: Duration,
    /// Memory of the answer, bytes.
    pub max_bytes: usize,
}

impl Bounds {
    pub fn check(&self) -> Result<(), QueryError> {
        if Instant::now() < self.deadline {
            Ok(())
        } else {
            Err(QueryError::Timeout(self.timeout))
        }
    }

    fn book(&self, taken: &AtomicUsize, bytes: usize) -> Result<(), QueryError> {
        if taken.fetch_add(bytes, Ordering::Relaxed) + bytes > self.max_bytes {
            return Err(too_much(self.max_bytes));
        }
        Ok(())
    }
}

/// The traces that answer a query (T1–T4). `need` is the query's.
pub fn find<S: SpanSource>(
    source: &S,
    query: &TraceQuery,
    need: &BlockNeed,
    bounds: &Bounds,
) -> Result<Vec<Trace>, QueryError> {
    complete(source, &find_ids(source, query, need, bounds)?, bounds)
}

/// Their ids.
pub fn find_ids<S: SpanSource>(
    source: &S,
    query: &TraceQuery,
    need: &BlockNeed,
    bounds: &Bounds,
) -> Result<Vec<TraceId>, QueryError> {
    let matcher = SpanMatcher::new(query);
    let mut newest = Newest::new(if query.limit == 0 {
        DEFAULT_LIMIT
    } else {
        query.limit
    });
    for block in source.open() {
        newest.look_into(block, &matcher);
    }
    let question = Arc::new((matcher, need.clone()));
    let mut candidates = Candidates::new(source.candidates(&question.0, need)?);
    let mut wave = FIRST_WAVE;
    loop {
        let floor = newest.floor();
        let mut places = Vec::with_capacity(wave);
        while places.len() < wave
            && let Some(place) = candidates.next(floor)
        {
            places.push(place);
        }
        if places.is_empty() {
            return Ok(newest.ids());
        }
        bounds.check()?;
        let share = places.len().div_ceil(source.width());
        let jobs = places.chunks(share).map(|places| {
            let (places, question) = (places.to_vec(), question.clone());
            let job = move |source: &S| look_into(source, &places, &question.0, &question.1);
            Box::new(job) as Job<S, _>
        });
        let found: Vec<Result<Vec<(Timestamp, TraceId)>, QueryError>> =
            source.run(jobs.collect())?;
        for found in found {
            for (start, id) in found? {
                newest.offer(start, id);
            }
        }
        let largest = if newest.starts.is_empty() {
            VAIN_WAVE
        } else {
            LARGEST_WAVE
        };
        wave = (wave * 2).min(largest);
    }
}

/// Starts and traces of the spans of these blocks that match.
fn look_into<S: SpanSource>(
    source: &S,
    places: &[S::Place],
    matcher: &SpanMatcher,
    need: &BlockNeed,
) -> Result<Vec<(Timestamp, TraceId)>, QueryError> {
    let mut found = Vec::new();
    for place in places {
        if source.may_match(*place, need)?
            && let Some(block) = source.read(*place, Why::Search)?
        {
            let matching = block.search(matcher).into_iter();
            found.extend(matching.map(|n| (block.start_of(n), block.trace_of(n))));
        }
    }
    Ok(found)
}

/// All spans of these traces (T3), in this order; traces without a span are left out.
pub fn complete<S: SpanSource>(
    source: &S,
    ids: &[TraceId],
    bounds: &Bounds,
) -> Result<Vec<Trace>, QueryError> {
    // Each block is read once, whatever the number of traces in it.
    let mut places: BTreeMap<S::Place, Vec<usize>> = BTreeMap::new();
    for (n, id) in ids.iter().enumerate() {
        for place in source.places_of(*id)? {
            places.entry(place).or_default().push(n);
        }
    }
    let mut traces: Vec<Collected> = Vec::new();
    traces.resize_with(ids.len(), Collected::default);
    let mut places = places.into_iter();
    let (all_ids, taken): (Arc<[TraceId]>, _) = (ids.into(), Arc::new(AtomicUsize::new(0)));
    loop {
        let wave: Vec<_> = places.by_ref().take(LARGEST_WAVE).collect();
        if wave.is_empty() {
            break;
        }
        let share = wave.len().div_ceil(source.width());
        let jobs = wave.chunks(share).map(|places| {
            let (places, ids, taken) = (places.to_vec(), all_ids.clone(), taken.clone());
            let bounds = *bounds;
            let job = move |source: &S| gather(source, &places, &ids, &taken, &bounds);
            Box::new(job) as Job<S, _>
        });
        // In the order of places, so that of equal starts the first to arrive comes first.
        let parts: Vec<Result<Vec<(usize, Span)>, QueryError>> = source.run(jobs.collect())?;
        for part in parts {
            for (n, span) in part? {
                traces[n].take(span);
            }
        }
    }
    for block in source.open() {
        bounds.check()?;
        for (n, id) in ids.iter().enumerate() {
            for span in block.spans_of(*id) {
                bounds.book(&taken, traces[n].take(span))?;
            }
        }
    }
    let collected = ids
        .iter()
        .zip(traces)
        .filter(|(_, collected)| !collected.spans.is_empty());
    Ok(collected
        .map(|(id, Collected { mut spans, .. })| {
            spans.sort_by_key(|span| span.start); // stable: of equals the first to arrive
            Trace {
                id: *id,
                spans,
                warnings: Vec::new(),
            }
        })
        .collect())
}

pub fn too_much(max_bytes: usize) -> QueryError {
    QueryError::TooMuch(format!(
        "the traces take more than {} MiB; lower the limit of the query",
        max_bytes >> 20
    ))
}

/// The spans of some traces in sealed blocks, each with the number of its trace.
fn gather<S: SpanSource>(
    source: &S,
    places: &[(S::Place, Vec<usize>)],
    ids: &[TraceId],
    taken: &AtomicUsize,
    bounds: &Bounds,
) -> Result<Vec<(usize, Span)>, QueryError> {
    let mut found = Vec::new();
    for (place, which) in places {
        bounds.check()?;
        if let Some(block) = source.read(*place, Why::Traces)? {
            for n in which {
                for span in block.spans_of(ids[*n]) {
                    bounds.book(taken, memory(&span))?;
                    found.push((*n, span));
                }
            }
        }
    }
    Ok(found)
}

/// The newest traces found so far (T1), as many as the limit.
struct Newest {
    limit: usize,
    by_start: BTreeSet<(Timestamp, TraceId)>,
    starts: HashMap<TraceId, Timestamp>,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            by_start: BTreeSet::new(),
            starts: HashMap::new(),
        }
    }

    /// Traces whose newest matching span is older no longer matter.
    fn floor(&self) -> Option<Timestamp> {
        if self.by_start.len() < self.limit {
            None
        } else {
            self.by_start.first().map(|f| f.0)
        }
    }

    fn look_into(&mut self, block: &SpanBlock, matcher: &SpanMatcher) {
        for n in block.search(matcher) {
            self.offer(block.start_of(n), block.trace_of(n));
        }
    }

    fn offer(&mut self, start: Timestamp, id: TraceId) {
        if let Some(known) = self.starts.get_mut(&id) {
            if *known < start {
                self.by_start.remove(&(*known, id));
                self.by_start.insert((start, id));
                *known = start;
            }
            return;
        }
        if self.by_start.len() >= self.limit {
            match self.by_start.first() {
                Some(least) if *least < (start, id) => {
                    let (_, least) = *least;
                    self.by_start.pop_first();
                    self.starts.remove(&least);
                }
                _ => return,
            }
        }
        self.by_start.insert((start, id));
        self.starts.insert(id, start);
    }

    fn ids(&self) -> Vec<TraceId> {
        self.by_start.iter().rev().map(|(_, id)| *id).collect()
    }
}

/// Spans of a trace without repetitions.
#[derive(Default)]
struct Collected {
    spans: Vec<Span>,
    known: HashMap<(SpanId, Timestamp, u64), Vec<u32>>,
}

impl Collected {
    /// Takes a span; the memory that it takes, about.
    fn take(&mut self, span: Span) -> usize {
        let alike = self
            .known
            .entry((span.span_id, span.start, span.duration))
            .or_default();
        if alike.iter().any(|n| self.spans[*n as usize].repeats(&span)) {
            return 0;
        }
        alike.push(self.spans.len() as u32);
        let bytes = memory(&span);
        self.spans.push(span);
        bytes
    }
}

/// Memory that a span takes, bytes, about; its process is shared.
pub fn memory(span: &Span) -> usize {
    // What a text takes beside its own size.
    let heap = |text: &Text| match text.is_heap_allocated() {
        true => text.capacity(),
        false => 0,
    };
    let tags = |tags: &[Tag]| -> usize {
        let value = |tag: &Tag| match &tag.value {
            TagValue::String(text) => heap(text),
            TagValue::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        tags.iter()
            .map(|tag| size_of::<Tag>() + heap(&tag.key) + value(tag))
            .sum()
    };
    size_of::<Span>()
        + 64
        + heap(&span.operation)
        + span.references.len() * 40
        + tags(&span.tags)
        + span
            .logs
            .iter()
            .map(|log| 40 + tags(&log.fields))
            .sum::<usize>()
        + {
            let warnings = span.warnings.iter();
            warnings.map(|w| size_of::<Text>() + heap(w)).sum::<usize>()
        }
}

#[cfg(test)]
mod tests;
