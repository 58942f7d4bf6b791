//! Traces: search, read, services and operations.
//!
//! `search` is the algorithm over anything that holds blocks of spans; here is what holds
//! them, the store at one instant, and the asynchronous face.

mod search;

use std::sync::Arc;

use super::answer::QueryError;
use super::limits::QueryLimits;
use super::prune::internal;
use super::{Querier, QueryStats};
use crate::model::Timestamp;
use crate::model::search::SpanMatcher;
use crate::model::trace::{Operation, Trace, TraceId, TraceQuery};
use crate::store::index::{FilterView, NumberSet};
use crate::store::snapshot::{SpanDay, SpanSnapshot};
use crate::store::span::{BlockMeta, BlockNeed, SpanBlock, query_terms};
use crate::store::{Store, StoreError};
use search::{Bounds, SpanSource};

impl Querier {
    /// Complete traces with a span that is as wanted, newest first.
    pub async fn find_traces(&self, query: TraceQuery) -> Result<Vec<Trace>, QueryError> {
        let need = query_terms(&query);
        self.on_traces("traces", move |source, bounds| {
            search::find(source, &query, &need, bounds)
        })
        .await
    }

    /// The ids of those traces, newest first.
    pub async fn find_trace_ids(&self, query: TraceQuery) -> Result<Vec<TraceId>, QueryError> {
        let need = query_terms(&query);
        self.on_traces("trace_ids", move |source, bounds| {
            search::find_ids(source, &query, &need, bounds)
        })
        .await
    }

    /// One complete trace.
    pub async fn trace(&self, id: TraceId) -> Result<Option<Trace>, QueryError> {
        self.on_traces("trace", move |source, bounds| {
            Ok(search::complete(source, &[id], bounds)?.pop())
        })
        .await
    }

    /// Names of all services, sorted.
    pub async fn services(&self) -> Result<Vec<String>, QueryError> {
        self.on_traces("services", |source, _| search::services(source))
            .await
    }

    /// Operations of a service, sorted; of one kind if one is given.
    pub async fn operations(
        &self,
        service: &str,
        kind: Option<&str>,
    ) -> Result<Vec<Operation>, QueryError> {
        let (service, kind) = (service.to_owned(), kind.map(str::to_owned));
        self.on_traces("operations", move |source, _| {
            search::operations(source, &service, kind.as_deref())
        })
        .await
    }

    async fn on_traces<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&SpanSnapshot, &Bounds) -> Result<T, QueryError> + Send + 'static,
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
            let work = move |store: &Store| work(&store.spans().map_err(internal)?, &bounds);
            self.on_pool(work).await
        };
        self.metrics.count(name, run.await, |_| None::<QueryStats>)
    }
}

/// A sealed block: its day in the snapshot and its number there.
impl SpanSource for SpanSnapshot {
    type Place = (usize, u32);

    fn open(&self) -> impl Iterator<Item = &SpanBlock> {
        let frozen = self.frozen.iter().map(|head| head.block.block());
        frozen.chain(self.open.iter().map(Arc::as_ref))
    }

    fn candidates(
        &self,
        matcher: &SpanMatcher,
        need: &BlockNeed,
    ) -> Result<Vec<(Timestamp, Self::Place)>, QueryError> {
        let mut found = Vec::new();
        for (day, span_day) in self.days.iter().enumerate() {
            let mut metas: Vec<&Arc<BlockMeta>> = span_day
                .blocks
                .iter()
                .filter(|meta| meta.may_match(matcher))
                .collect();
            if metas.is_empty() {
                continue;
            }
            if let Some((indexed_below, numbers)) = by_terms(span_day, need) {
                metas.retain(|m| m.number >= indexed_below || numbers.contains(m.number));
            }
            found.extend(
                metas
                    .into_iter()
                    .map(|meta| (meta.max_start, (day, meta.number))),
            );
        }
        Ok(found)
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

    fn read(&self, place: Self::Place) -> Result<Option<SpanBlock>, QueryError> {
        let partition = &self.days[place.0].partition;
        match partition.data(place.1, SpanBlock::decode) {
            Ok(Ok(block)) => Ok(Some(block)),
            Ok(Err(error)) => {
                let at = format!("partition {} block {}", partition.name, place.1);
                Err(QueryError::Internal(format!("{at}: {error}")))
            }
            Err(StoreError::Gone(_)) => Ok(None),
            Err(error) => Err(internal(error)),
        }
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

    fn operations(&self, visit: &mut dyn FnMut(&[u8])) -> Result<(), QueryError> {
        for span_day in &self.days {
            match span_day.partition.operations(&mut *visit) {
                Ok(()) | Err(StoreError::Gone(_)) => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Ok(())
    }
}

/// Numbers of the blocks of a day whose terms are as needed, and the number from which on the
/// index knows nothing; `None` when it rules out nothing.
fn by_terms(day: &SpanDay, need: &BlockNeed) -> Option<(u32, NumberSet)> {
    let found = day.partition.index.view().and_then(|view| match view {
        // The plan cares for overflowing words itself; no term is empty.
        Some(view) => Ok(view
            .search(&need.words, "", "")?
            .map(|set| (view.indexed_below, set))),
        None => Ok(None),
    });
    found.unwrap_or_else(|error| {
        // The index only prunes: without it the query is slower, not wrong.
        tracing::warn!(partition = %day.partition.name, "index not used: {error}");
        None
    })
}

#[cfg(test)]
mod tests;
