//! Who answers the servers' questions: the querier, in the servers' words.

use std::sync::Arc;

use crate::model::trace::{Operation, Span, Trace, TraceId, TraceQuery};
use crate::model::{Labels, Matcher, TimeRange, Timestamp};
use crate::query::deletion::{DeleteError, DeleteRequest};
use crate::query::patterns::{PatternCounts, PatternQuery};
use crate::query::traces::Where;
use crate::query::volume::{Volume, VolumeQuery};
use crate::query::{
    IndexStats, LogAnswer, LogQuery, MetricAnswer, MetricQuery, Querier, QueryError,
};
use crate::server::loki::LogReader;
use crate::server::loki::delete::DeleteKeeper;
use crate::server::loki::explore::ExploreReader;
use crate::server::spans::{TraceParts, TraceReader};

impl LogReader for Querier {
    async fn logs(&self, tenant: &Arc<str>, query: LogQuery) -> Result<LogAnswer, QueryError> {
        Querier::logs(self, tenant, query).await
    }

    async fn metric(
        &self,
        tenant: &Arc<str>,
        query: MetricQuery,
    ) -> Result<MetricAnswer, QueryError> {
        Querier::metric(self, tenant, query).await
    }

    async fn label_names(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        Querier::label_names(self, tenant, range, matchers).await
    }

    async fn label_values(
        &self,
        tenant: &Arc<str>,
        name: &str,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Arc<str>>, QueryError> {
        Querier::label_values(self, tenant, name, range, matchers).await
    }

    async fn series(
        &self,
        tenant: &Arc<str>,
        range: TimeRange,
        selectors: Vec<Vec<Matcher>>,
    ) -> Result<Vec<Labels>, QueryError> {
        Querier::series(self, tenant, range, selectors).await
    }

    async fn index_stats(
        &self,
        tenant: &Arc<str>,
        matchers: Vec<Matcher>,
        range: TimeRange,
    ) -> Result<IndexStats, QueryError> {
        Querier::index_stats(self, tenant, matchers, range).await
    }
}

impl ExploreReader for Querier {
    async fn volume(
        &self,
        tenant: &Arc<str>,
        query: VolumeQuery,
    ) -> Result<Vec<Volume>, QueryError> {
        Querier::volume(self, tenant, query).await
    }

    async fn patterns(
        &self,
        tenant: &Arc<str>,
        matchers: Vec<Matcher>,
        query: PatternQuery,
    ) -> Result<Vec<PatternCounts>, QueryError> {
        Querier::patterns(self, tenant, matchers, query).await
    }
}

impl DeleteKeeper for Querier {
    async fn delete(
        &self,
        tenant: &str,
        query: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<DeleteRequest, DeleteError> {
        Querier::delete(self, tenant, query, start, end).await
    }

    fn delete_requests(&self, tenant: &str) -> Vec<DeleteRequest> {
        Querier::delete_requests(self, tenant)
    }

    async fn cancel_delete(&self, tenant: &str, id: &str, force: bool) -> Result<(), DeleteError> {
        Querier::cancel_delete(self, tenant, id, force).await
    }
}

impl TraceReader for Querier {
    async fn services(&self) -> Result<Vec<String>, QueryError> {
        Querier::services(self).await
    }

    async fn operations(
        &self,
        service: &str,
        kind: Option<&str>,
    ) -> Result<Vec<Operation>, QueryError> {
        Querier::operations(self, service, kind).await
    }

    async fn find_traces(&self, query: TraceQuery) -> Result<Vec<Trace>, QueryError> {
        Querier::find_traces(self, query).await
    }

    async fn find_trace_ids(&self, query: TraceQuery) -> Result<Vec<TraceId>, QueryError> {
        Querier::find_trace_ids(self, query).await
    }

    async fn trace(&self, id: TraceId) -> Result<Option<Trace>, QueryError> {
        Querier::trace(self, id).await
    }

    fn trace_parts(&self, id: TraceId) -> TraceParts {
        Querier::trace_parts(self, id, Where::Both)
    }

    fn archived_parts(&self, id: TraceId) -> TraceParts {
        Querier::trace_parts(self, id, Where::Archive)
    }

    async fn archive(&self, id: TraceId) -> Result<bool, QueryError> {
        Querier::archive(self, id).await
    }

    async fn archive_spans(&self, spans: Vec<Span>) -> Result<(), QueryError> {
        Querier::archive_spans(self, spans).await
    }
}
