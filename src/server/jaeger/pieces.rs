//! Traces piece by piece, for answers that are streams: however large a trace is, little of it
//! is held at a time.
//!
//! P1. Spans of one trace come next to each other; no piece has spans of two traces.
//! P2. Nothing is left out silently: what can't be read ends the stream with its error.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::model::trace::{Span, Tag, TagValue, Trace, TraceId, TraceQuery};
use crate::protocol::jaeger::adjust::{Adjustments, Changed, Observer, adjust};
use crate::protocol::jaeger::summary::{Summarizer, Summary};
use crate::query::answer::QueryError;
use crate::server::spans::{TraceParts, TraceReader};

/// How traces are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As stored.
    Raw,
    /// As Jaeger's query service shows them.
    Adjusted {
        /// Nanoseconds.
        max_clock_skew: u64,
    },
}

/// Pieces that are held; a trace of more is read twice.
const HELD_PIECES: usize = 4;

/// The spans of one trace; nothing when there is none.
pub fn of_trace<R: TraceReader>(reader: &Arc<R>, id: TraceId, form: Form) -> TraceParts {
    let Form::Adjusted { max_clock_skew } = form else {
        return reader.trace_parts(id);
    };
    let reader = reader.clone();
    stream::once(async move { adjusted(&*reader, id, max_clock_skew).await })
        .try_flatten()
        .boxed()
}

/// What is shown of a span depends on the others of its trace. Of a large one they are looked
/// at first, and the trace is read again.
async fn adjusted<R: TraceReader>(
    reader: &R,
    id: TraceId,
    max_clock_skew: u64,
) -> Result<TraceParts, QueryError> {
    let mut parts = reader.trace_parts(id);
    let mut spans = Vec::new();
    for _ in 0..HELD_PIECES {
        match parts.try_next().await? {
            Some(part) => spans.extend(part),
            None if spans.is_empty() => return Ok(stream::empty().boxed()),
            None => {
                spans.sort_by_key(|span| span.start);
                let mut trace = Trace {
                    id,
                    spans,
                    warnings: Vec::new(),
                };
                adjust(&mut trace, max_clock_skew);
                return Ok(stream::iter([Ok(trace.spans)]).boxed());
            }
        }
    }
    let mut observer = Observer::default();
    loop {
        spans.drain(..).for_each(|span| observer.observe(&span));
        match parts.try_next().await? {
            Some(part) => spans = part,
            None => break,
        }
    }
    let second = SecondReading {
        left: observer.len(),
        adjustments: observer.finish(max_clock_skew),
        parts: reader.trace_parts(id),
        _first: parts,
    };
    Ok(stream::try_unfold(second, SecondReading::next).boxed())
}

struct SecondReading {
    /// Spans that are still to come.
    left: usize,
    adjustments: Adjustments,
    parts: TraceParts,
    /// At its end; what it booked is for the adjustments.
    _first: TraceParts,
}

impl SecondReading {
    async fn next(mut self) -> Result<Option<(Vec<Span>, Self)>, QueryError> {
        let changed = |error: Changed| QueryError::Busy(error.to_string());
        if self.left == 0 {
            return Ok(None);
        }
        let Some(mut part) = self.parts.try_next().await? else {
            return Err(changed(Changed));
        };
        // What came meanwhile is not shown.
        part.truncate(self.left);
        for span in &mut part {
            self.adjustments.apply(span).map_err(changed)?;
        }
        self.left -= part.len();
        Ok(Some((part, self)))
    }
}

/// The traces that answer a query, newest first, as a stream for each.
pub fn find<R: TraceReader>(
    reader: &Arc<R>,
    query: TraceQuery,
    form: Form,
) -> BoxStream<'static, Result<TraceParts, QueryError>> {
    let reader = reader.clone();
    let found = async move {
        match reader.find_traces(query.clone()).await {
            Ok(traces) => {
                let shown = move |mut trace: Trace| {
                    if let Form::Adjusted { max_clock_skew } = form {
                        adjust(&mut trace, max_clock_skew);
                    }
                    Ok(stream::iter([Ok(trace.spans)]).boxed())
                };
                Ok(stream::iter(traces).map(shown).boxed())
            }
            // Together they are too large; one by one they need not be.
            Err(QueryError::TooMuch(_)) => {
                let ids = reader.find_trace_ids(query).await?;
                let parts = move |id| Ok(of_trace(&reader, id, form));
                Ok(stream::iter(ids).map(parts).boxed())
            }
            Err(error) => Err(error),
        }
    };
    stream::once(found).try_flatten().boxed()
}

/// The same traces in short.
pub fn summaries<R: TraceReader>(
    reader: &Arc<R>,
    query: TraceQuery,
    form: Form,
) -> BoxStream<'static, Result<Summary, QueryError>> {
    let summary = |mut parts: TraceParts| async move {
        let mut summarizer = Summarizer::default();
        while let Some(spans) = parts.try_next().await? {
            spans.iter().for_each(|span| summarizer.take(span));
        }
        Ok(summarizer.finish())
    };
    find(reader, query, form)
        .and_then(summary)
        .try_filter_map(|summary| std::future::ready(Ok(summary)))
        .boxed()
}

/// Bytes that a chunk has at most, unless one span alone has more: half of what clients of
/// gRPC take by default.
const CHUNK_BYTES: usize = 2 << 20;

/// Pieces cut into what one message of an answer holds.
pub fn chunks(
    parts: TraceParts,
    most_spans: usize,
) -> impl futures::Stream<Item = Result<Vec<Span>, QueryError>> + Send + 'static {
    parts
        .map_ok(move |spans| stream::iter(cut(spans, most_spans).map(Ok)))
        .try_flatten()
}

fn cut(spans: Vec<Span>, most_spans: usize) -> impl Iterator<Item = Vec<Span>> + Send {
    let mut spans = spans.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = spans.next()?;
        let mut bytes = size(&first);
        let mut chunk = vec![first];
        while chunk.len() < most_spans {
            let fits = |span: &Span| bytes + size(span) <= CHUNK_BYTES;
            let Some(span) = spans.next_if(fits) else {
                break;
            };
            bytes += size(&span);
            chunk.push(span);
        }
        Some(chunk)
    })
}

/// Bytes that a span takes in a message, roughly and rather too many.
fn size(span: &Span) -> usize {
    let tags = |tags: &[Tag]| -> usize {
        let value = |tag: &Tag| match &tag.value {
            TagValue::String(text) => text.len(),
            TagValue::Binary(bytes) => bytes.len(),
            _ => 10,
        };
        tags.iter().map(|tag| 16 + tag.key.len() + value(tag)).sum()
    };
    let logs = span.logs.iter().map(|log| 24 + tags(&log.fields));
    let warnings = span.warnings.iter().map(|warning| 8 + warning.len());
    96 + span.operation.len()
        + span.references.len() * 64
        + tags(&span.tags)
        + logs.sum::<usize>()
        + warnings.sum::<usize>()
        + span.process.service.len()
        + tags(&span.process.tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::{Process, SpanId};

    fn span(id: u64, bytes: usize) -> Span {
        Span {
            trace_id: TraceId(1),
            span_id: SpanId(id),
            operation: "op".into(),
            references: vec![],
            flags: 0,
            start: 0,
            duration: 0,
            tags: vec![Tag::string("k", "x".repeat(bytes))],
            logs: vec![],
            process: Arc::new(Process::default()),
            warnings: vec![],
        }
    }

    #[test]
    fn chunks_are_bounded_by_spans_and_bytes_and_lose_nothing() {
        let sizes = |spans: Vec<Span>| -> Vec<usize> {
            let all: Vec<u64> = spans.iter().map(|span| span.span_id.0).collect();
            let chunks: Vec<Vec<Span>> = cut(spans, 10).collect();
            let ids: Vec<u64> = chunks.iter().flatten().map(|s| s.span_id.0).collect();
            assert_eq!(ids, all);
            chunks.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(vec![]), [0; 0]);
        assert_eq!(sizes((0..25).map(|n| span(n, 1)).collect()), [10, 10, 5]);
        let large = (0..5).map(|n| span(n, 900 << 10)).collect();
        assert_eq!(sizes(large), [2, 2, 1]);
        let huge = vec![span(1, 1), span(2, 9 << 20), span(3, 1)];
        assert_eq!(sizes(huge), [1, 1, 1]);
    }
}
