//! Traces: search, read, services and operations.
//!
//! `search` is the algorithm over anything that holds blocks of spans; here is what holds
//! them, the store at one instant, and the asynchronous face.

mod archive;
mod blocks;
mod operations;
mod parts;
mod search;

use std::ops::{Deref, Range};
use std::sync::Arc;

use futures::StreamExt;

use super::answer::QueryError;
use super::limits::QueryLimits;
use super::prune::internal;
use super::{Querier, QueryStats};
use crate::model::search::SpanMatcher;
use crate::model::trace::{Operation, Span, Trace, TraceId, TraceQuery};
use crate::runtime::pool::{Lane, Pool};
use crate::store::index::{FilterView, NumberSet};
use crate::store::partition::Read;
use crate::store::snapshot::{SpanDay, SpanSnapshot};
use crate::store::span::{BlockMeta, BlockNeed, SpanBlock, TERMS, query_terms};
use crate::store::{Store, StoreError};
pub use blocks::Blocks;
use blocks::Worth;
pub use parts::Where;
use search::{Bounds, Group, Job, SpanSource, Why};

impl Querier {
    /// Complete traces with a span that is as wanted, newest first.
    pub async fn find_traces(&self, query: TraceQuery) -> Result<Vec<Trace>, QueryError> {
        let need = query_terms(&query);
        self.on_traces("traces", move |source, bounds| {
            search::find(source, &query, &need, bounds)
        })
        .await
    }

    /// One complete trace, in order of start.
    pub async fn trace(&self, id: TraceId) -> Result<Option<Trace>, QueryError> {
        let mut parts = self.trace_parts(id, Where::Both);
        let (mut spans, mut bytes) = (Vec::new(), 0);
        while let Some(part) = parts.next().await {
            let part = part?;
            bytes += part.iter().map(search::memory).sum::<usize>();
            if bytes > self.limits.max_result_bytes {
                return Err(search::too_much(self.limits.max_result_bytes));
            }
            spans.extend(part);
        }
        spans.sort_by_key(|span: &Span| span.start); // stable: of equals the first to arrive
        Ok((!spans.is_empty()).then_some(Trace {
            id,
            spans,
            warnings: Vec::new(),
        }))
    }

    /// Ids of the traces that [`Querier::find_traces`] finds, in the same order.
    pub async fn find_trace_ids(&self, query: TraceQuery) -> Result<Vec<TraceId>, QueryError> {
        let need = query_terms(&query);
        self.on_traces("trace_ids", move |source, bounds| {
            search::find_ids(source, &query, &need, bounds)
        })
        .await
    }

    /// Names of all services, sorted.
    pub async fn services(&self) -> Result<Vec<String>, QueryError> {
        let list = |store: &Store| operations::services(|visit| store.operations(visit));
        let listed = async {
            let _running = self.admission.enter().await?;
            self.on_pool(move |store| list(store).map_err(internal))
                .await
        };
        self.metrics
            .count("services", listed.await, |_| None::<QueryStats>)
    }

    /// Operations of a service, sorted; of one kind if one is given.
    pub async fn operations(
        &self,
        service: &str,
        kind: Option<&str>,
    ) -> Result<Vec<Operation>, QueryError> {
        let (service, kind) = (service.to_owned(), kind.map(str::to_owned));
        let list = move |store: &Store| {
            operations::of_service(|visit| store.operations(visit), &service, kind.as_deref())
        };
        let listed = async {
            let _running = self.admission.enter().await?;
            self.on_pool(move |store| list(store).map_err(internal))
                .await
        };
        self.metrics
            .count("operations", listed.await, |_| None::<QueryStats>)
    }

    async fn on_traces<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Source, &Bounds) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let run = async {
            let running = self.admission.enter().await?;
            let QueryLimits {
                max_result_bytes,
                timeout,
                ..
            } = self.limits;
            let bounds = Bounds {
                deadline: running.deadline,
                timeout,
                max_bytes: max_result_bytes,
            };
            let (pool, blocks) = (self.pool.clone(), self.blocks.clone());
            let work = move |store: &Store| {
                let snapshot = Arc::new(store.spans().map_err(internal)?);
                let source = Source {
                    snapshot,
                    pool,
                    blocks,
                };
                work(&source, &bounds)
            };
            self.on_pool(work).await
        };
        self.metrics.count(name, run.await, |_| None::<QueryStats>)
    }
}

/// All spans at one instant, and what helps to read them. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    snapshot: Arc<SpanSnapshot>,
    pool: Pool,
    blocks: Blocks,
}

impl Deref for Source {
    type Target = SpanSnapshot;

    fn deref(&self) -> &SpanSnapshot {
        &self.snapshot
    }
}

/// A sealed block: its day in the snapshot and its number there.
impl SpanSource for Source {
    type Place = (usize, u32);

    fn open(&self) -> impl Iterator<Item = &SpanBlock> {
        let frozen = self.frozen.iter().map(|head| head.block.block());
        frozen.chain(self.open.iter().map(Arc::as_ref))
    }

    fn candidates<'a>(
        &'a self,
        matcher: &'a SpanMatcher,
        need: &BlockNeed,
    ) -> Result<Vec<Group<'a, Self::Place>>, QueryError> {
        let mut groups = Vec::new();
        for (day, span_day) in self.days.iter().enumerate() {
            let runs = span_day.blocks.runs();
            let runs: Vec<_> = runs.filter(|run| run.bounds().may_match(matcher)).collect();
            if runs.is_empty() {
                continue;
            }
            let terms = by_terms(span_day, need).map(Arc::new);
            groups.extend(runs.into_iter().map(|run| Group {
                newest: run.bounds().max_start,
                list: {
                    let terms = terms.clone();
                    let place = move |meta: &BlockMeta| (meta.max_start, (day, meta.number));
                    Box::new(move || {
                        let metas = candidates_of(run.metas(), terms.as_deref());
                        let wanted = metas.filter(|meta| meta.may_match(matcher));
                        wanted.map(place).collect()
                    })
                },
            }));
        }
        Ok(groups)
    }

    fn may_match(&self, place: Self::Place, need: &BlockNeed) -> Result<bool, QueryError> {
        if !need.needs_filter() {
            return Ok(true);
        }
        // A filter that can't be read rules out nothing.
        let test =
            |bytes: &[u8]| FilterView::parse(bytes).map_or(true, |filter| need.may_match(&filter));
        match self.days[place.0].partition.filter(place.1, test) {
            Ok(answer) => Ok(answer.unwrap_or(true)),
            Err(StoreError::Gone(_)) => Ok(false),
            Err(error) => Err(internal(error)),
        }
    }

    fn read(&self, place: Self::Place, why: Why) -> Result<Option<Arc<SpanBlock>>, QueryError> {
        let partition = &self.days[place.0].partition;
        let day = partition.id.day;
        if let Some(block) = self.blocks.get(day, place.1) {
            return Ok(Some(block));
        }
        match partition
            .read(place.1, SpanBlock::decode)
            .map_err(internal)?
        {
            Read::Whole(block) => {
                let block = Arc::new(block);
                let worth = match why {
                    Why::Search => Worth::Little,
                    Why::Traces => Worth::Much,
                };
                self.blocks.keep(day, place.1, &block, worth);
                Ok(Some(block))
            }
            // Its spans are missing, which the partition notes.
            Read::Damaged | Read::Gone => Ok(None),
        }
    }

    fn run<T: Send + 'static>(&self, mut jobs: Vec<Job<Self, T>>) -> Result<Vec<T>, QueryError> {
        if jobs.len() == 1
            && let Some(job) = jobs.pop()
        {
            return Ok(vec![job(self)]);
        }
        let jobs = jobs.into_iter().map(|job| {
            let source = self.clone();
            Box::new(move || job(&source)) as Box<dyn FnOnce() -> T + Send>
        });
        self.pool
            .join(Lane::Second, jobs.collect())
            .map_err(|e| QueryError::Internal(e.to_string()))
    }

    fn width(&self) -> usize {
        self.pool.threads()
    }

    fn places_of(&self, trace: TraceId) -> Result<Vec<Self::Place>, QueryError> {
        let mut places = Vec::new();
        for (day, span_day) in self.days.iter().enumerate() {
            // Blocks sealed after the snapshot hold spans that are in its heads.
            let end = span_day
                .blocks
                .iter()
                .next_back()
                .map_or(0, |meta| meta.number + 1);
            match span_day.partition.blocks_of_trace(trace.0) {
                Ok(numbers) => {
                    places.extend(numbers.into_iter().filter(|n| *n < end).map(|n| (day, n)));
                }
                Err(StoreError::Gone(_)) => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Ok(places)
    }
}

/// Blocks of a day that the filters of runs rule out: numbers, in order, of runs that do not
/// overlap.
fn without(day: &SpanDay, need: &BlockNeed) -> Vec<Range<u32>> {
    if need.tags().is_empty() {
        return Vec::new();
    }
    let found = day.partition.blocks_without(need.tags());
    found.unwrap_or_else(|error| {
        // They only prune, as the index does.
        tracing::warn!(partition = %day.partition.name, "filters of runs not used: {error}");
        Vec::new()
    })
}

fn is_in(ranges: &[Range<u32>], number: u32) -> bool {
    let after = ranges.partition_point(|range| range.start <= number);
    after > 0 && ranges[after - 1].contains(&number)
}

/// What the index says of a day's blocks.
struct ByTerms {
    /// From this number on it knows nothing.
    indexed_below: u32,
    /// Blocks whose terms are as needed; `None`: every block.
    older: Option<NumberSet>,
    /// The same for terms that only newer blocks have.
    newer: Option<NumberSet>,
    /// Ruled out by the filters of runs.
    without: Vec<Range<u32>>,
}

impl ByTerms {
    fn leaves(&self, meta: &BlockMeta) -> bool {
        let holds =
            |set: &Option<NumberSet>| set.as_ref().is_none_or(|set| set.contains(meta.number));
        meta.number >= self.indexed_below
            || holds(&self.older)
                && (meta.terms < TERMS || holds(&self.newer))
                && !is_in(&self.without, meta.number)
    }
}

/// The blocks, in order of number, that the index leaves.
fn candidates_of<'a>(
    metas: &'a [Arc<BlockMeta>],
    terms: Option<&'a ByTerms>,
) -> impl Iterator<Item = &'a BlockMeta> {
    let numbers = match metas {
        [first, .., last] => first.number..last.number.saturating_add(1),
        [only] => only.number..only.number.saturating_add(1),
        [] => 0..0,
    };
    let first = numbers.start;
    // Those that have to be looked at, by their place.
    let (named, rest) = match terms {
        // No meta is missing: the few that are needed are at hand by their numbers.
        Some(ByTerms {
            indexed_below,
            older: Some(set),
            ..
        }) if numbers.len() == metas.len() => {
            let end = numbers.end.min(*indexed_below).max(first);
            (Some(set.within(first..end)), (end - first) as usize)
        }
        _ => (None, 0),
    };
    let named = named.into_iter().flatten();
    let named = named.filter_map(move |n| metas.get((n - first) as usize));
    let all = named.chain(&metas[rest..]).map(|meta| &**meta);
    all.filter(move |meta| terms.is_none_or(|terms| terms.leaves(meta)))
}

/// `None` when the index rules out nothing.
fn by_terms(day: &SpanDay, need: &BlockNeed) -> Option<ByTerms> {
    let found = day.partition.index.view().and_then(|view| match view {
        // The plan cares for overflowing words itself; no term is empty.
        Some(view) => Ok(Some(ByTerms {
            indexed_below: view.indexed_below,
            older: view.search(&need.words, "", "")?,
            newer: view.search(&need.newer, "", "")?,
            without: without(day, need),
        })),
        None => Ok(None),
    });
    found.unwrap_or_else(|error| {
        // The index only prunes: without it the query is slower, not wrong.
        tracing::warn!(partition = %day.partition.name, "index not used: {error}");
        day.partition.index.distrust();
        None
    })
}

#[cfg(test)]
mod tests;
