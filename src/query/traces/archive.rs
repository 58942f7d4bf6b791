//! Keeping traces, or single spans, beyond retention.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::Where;
use crate::model::trace::{Span, TraceId};
use crate::query::answer::QueryError;
use crate::query::{Querier, QueryStats};
use crate::store::archive::Archiver;
use crate::store::{Store, StoreError};

impl Querier {
    /// Archives what retention keeps of a trace; false when neither it nor the archive has
    /// any. Doing it again adds what came late and changes nothing else.
    pub async fn archive(&self, id: TraceId) -> Result<bool, QueryError> {
        let done = self.archive_trace(id).await;
        self.metrics.count("archive", done, |_| None::<QueryStats>)
    }

    /// Archives single spans, whatever the rest of their traces.
    pub async fn archive_spans(&self, spans: Vec<Span>) -> Result<(), QueryError> {
        let done = self.archive_these(spans).await;
        self.metrics
            .count("archive_spans", done, |_| None::<QueryStats>)
    }

    async fn archive_trace(&self, id: TraceId) -> Result<bool, QueryError> {
        let mut parts = self.trace_parts(id, Where::Kept);
        let Some(first) = parts.next().await else {
            let known = move |store: &Store| store.archived_blocks(id).map_err(failed);
            return Ok(self.on_pool(known).await? > 0);
        };
        let turn = self.store.archive_turn().await;
        let first = first?;
        let begin = move |store: &Store| {
            let mut archiver = store.archive(id, turn).map_err(failed)?;
            archiver.add(&first).map_err(failed)?;
            Ok(archiver)
        };
        let mut archiver = self.on_pool(begin).await?;
        while let Some(part) = parts.next().await {
            let part = part?;
            let add = move |_: &Store| {
                archiver.add(&part).map_err(failed)?;
                Ok(archiver)
            };
            archiver = self.on_pool(add).await?;
        }
        self.on_pool(move |_| archiver.finish().map_err(failed))
            .await?;
        Ok(true)
    }

    async fn archive_these(&self, spans: Vec<Span>) -> Result<(), QueryError> {
        let mut by_trace: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
        for span in spans {
            by_trace.entry(span.trace_id).or_default().push(span);
        }
        let mut turn = self.store.archive_turn().await;
        let work = move |store: &Store| {
            for (id, spans) in by_trace {
                let mut archiver: Archiver = store.archive(id, turn).map_err(failed)?;
                archiver.add(&spans).map_err(failed)?;
                turn = archiver.finish().map_err(failed)?;
            }
            Ok(())
        };
        self.on_pool(work).await
    }
}

fn failed(error: StoreError) -> QueryError {
    match error {
        StoreError::Full(_) | StoreError::Stopped => QueryError::Busy(error.to_string()),
        other => QueryError::Internal(other.to_string()),
    }
}
