//! A sink and reader in memory, and real servers on free ports, for the tests of the doors.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;

use super::*;
use crate::model::trace::Span;

/// Keeps what it is given, as long as it is not told to refuse.
#[derive(Default)]
pub struct Memory {
    pub received: Mutex<Vec<(SpanBatch, SpanFormat, Bytes)>>,
    pub refusal: Mutex<Option<Refusal>>,
    pub queries: Mutex<Vec<TraceQuery>>,
    /// What it was asked for, and what it answers.
    pub metrics_queries: Mutex<Vec<ServiceMetricsQuery>>,
    pub series: Mutex<Vec<ServiceSeries>>,
    pub archived: Mutex<Vec<Span>>,
}

impl Memory {
    pub fn refuse(&self, kind: RefusalKind) {
        let refusal = Refusal {
            kind,
            reason: "no_room",
            message: "no room".into(),
        };
        *self.refusal.lock() = Some(refusal);
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received
            .lock()
            .iter()
            .flat_map(|(batch, ..)| batch.spans.clone())
            .collect()
    }

    /// The only message received, checked to give the same spans when it is replayed.
    #[track_caller]
    pub fn only(&self) -> (Vec<Span>, SpanFormat) {
        let received = self.received.lock();
        let [(batch, format, body)] = &received[..] else {
            panic!("{} messages", received.len())
        };
        let replayed = crate::protocol::decode_spans(*format, body).unwrap();
        assert_eq!(replayed.spans, batch.spans);
        (batch.spans.clone(), *format)
    }

    fn take(&self, batch: SpanBatch, format: SpanFormat, body: Bytes) -> Result<(), Refusal> {
        if let Some(refusal) = &*self.refusal.lock() {
            return Err(refusal.clone());
        }
        self.received.lock().push((batch, format, body));
        Ok(())
    }
}

impl SpanSink for Memory {
    async fn accept(
        &self,
        batch: SpanBatch,
        format: SpanFormat,
        body: Bytes,
    ) -> Result<(), Refusal> {
        self.take(batch, format, body)
    }

    fn offer(&self, batch: SpanBatch, format: SpanFormat, body: Bytes) -> Result<(), Refusal> {
        self.take(batch, format, body)
    }
}

impl TraceReader for Memory {
    async fn services(&self) -> Result<Vec<String>, QueryError> {
        let mut services: Vec<String> = self
            .spans()
            .iter()
            .map(|span| span.process.service.to_string())
            .collect();
        services.sort();
        services.dedup();
        Ok(services)
    }

    async fn operations(
        &self,
        service: &str,
        kind: Option<&str>,
    ) -> Result<Vec<Operation>, QueryError> {
        let mut operations: Vec<Operation> = self
            .spans()
            .iter()
            .filter(|span| &*span.process.service == service)
            .filter(|span| kind.is_none_or(|kind| span.kind() == kind))
            .map(|span| Operation {
                name: span.operation.to_string(),
                kind: span.kind().into(),
            })
            .collect();
        operations.sort();
        operations.dedup();
        Ok(operations)
    }

    async fn find_traces(&self, query: TraceQuery) -> Result<Vec<Trace>, QueryError> {
        if query.service == "slow" {
            return Err(QueryError::Busy("no turn".into()));
        }
        let mut ids: Vec<TraceId> = self
            .spans()
            .iter()
            .filter(|span| *span.process.service == *query.service)
            .map(|span| span.trace_id)
            .collect();
        ids.sort();
        ids.dedup();
        ids.truncate(query.limit);
        self.queries.lock().push(query);
        let mut traces = Vec::new();
        for id in ids {
            traces.extend(self.trace(id).await?);
        }
        Ok(traces)
    }

    async fn find_trace_ids(&self, query: TraceQuery) -> Result<Vec<TraceId>, QueryError> {
        let found = self.find_traces(query).await?;
        Ok(found.into_iter().map(|trace| trace.id).collect())
    }

    fn trace_parts(&self, id: TraceId) -> TraceParts {
        parts(self.spans(), id)
    }

    fn archived_parts(&self, id: TraceId) -> TraceParts {
        parts(self.archived.lock().clone(), id)
    }

    async fn archive(&self, id: TraceId) -> Result<bool, QueryError> {
        let found = self.trace(id).await?;
        let known = found.is_some();
        self.archive_spans(found.map_or_else(Vec::new, |trace| trace.spans))
            .await?;
        Ok(known)
    }

    async fn archive_spans(&self, spans: Vec<Span>) -> Result<(), QueryError> {
        let mut archived = self.archived.lock();
        for span in spans {
            if !archived.contains(&span) {
                archived.push(span);
            }
        }
        Ok(())
    }

    async fn trace(&self, id: TraceId) -> Result<Option<Trace>, QueryError> {
        let spans: Vec<Span> = self
            .spans()
            .into_iter()
            .filter(|span| span.trace_id == id)
            .collect();
        Ok((!spans.is_empty()).then_some(Trace {
            id,
            spans,
            warnings: vec![],
        }))
    }

    /// By looking at every span for each span.
    async fn dependencies(&self, range: TimeRange) -> Result<Vec<DependencyLink>, QueryError> {
        let spans = self.spans();
        let mut calls = std::collections::BTreeMap::new();
        for child in spans.iter().filter(|span| range.contains(span.start)) {
            let parent = spans.iter().find(|span| {
                span.trace_id == child.trace_id && Some(span.span_id) == child.parent()
            });
            if let Some(parent) = parent
                && parent.process.service != child.process.service
            {
                let names = (&parent.process.service, &child.process.service);
                *calls.entry(names).or_default() += 1;
            }
        }
        let links = calls
            .into_iter()
            .map(|((parent, child), calls)| DependencyLink {
                parent: parent.to_string(),
                child: child.to_string(),
                calls,
            });
        Ok(links.collect())
    }

    async fn service_metrics(
        &self,
        query: ServiceMetricsQuery,
    ) -> Result<Vec<ServiceSeries>, QueryError> {
        self.metrics_queries.lock().push(query);
        Ok(self.series.lock().clone())
    }
}

/// Three spans at a time.
fn parts(mut spans: Vec<Span>, id: TraceId) -> TraceParts {
    spans.retain(|span| span.trace_id == id);
    let parts: Vec<_> = spans.chunks(3).map(|part| Ok(part.to_vec())).collect();
    futures::stream::iter(parts).boxed()
}

/// Serves a router on a free port of the loopback interface until the runtime ends.
pub async fn serve(router: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // As every listener has it, so that refusals arrive.
    let router = router.layer(axum::middleware::from_fn(crate::server::unread::around));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// An answer as a client sees it.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends one request over a connection of its own.
pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    use http_body_util::{BodyExt, Full};
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender
        .send_request(request.body(Full::new(body.into())).unwrap())
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

/// A client connection for gRPC.
pub async fn channel(address: SocketAddr) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// A captured payload.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/jaeger/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Room for the counters, and what they say.
pub fn metrics() -> (Metrics, SpanMetrics) {
    let metrics = Metrics::default();
    let spans = SpanMetrics::new(&metrics);
    (metrics, spans)
}

/// Everything a door needs.
pub fn sink() -> Arc<Memory> {
    Arc::default()
}
