//! What all HTTP routes share: a panic costs one request, answers are compressed for who
//! asks, requests are counted by endpoint.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;
use prometheus_client::metrics::histogram::exponential_buckets;
use tower::{Layer, Service, ServiceBuilder};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};

use crate::runtime::permits::Account;
use crate::runtime::pool::panic_text;
use crate::server::unread;
use crate::telemetry::metrics::{Counter, Family, Gauge, Histogram, Metrics};

/// Smaller answers fit a packet as they are.
const COMPRESS_ABOVE: u64 = 1024;

type Labels = Vec<(&'static str, String)>;

/// Requests by endpoint. The endpoint is the route, never the path: paths are endless.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

impl HttpMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let seconds: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(buckets);
        Self {
            requests: metrics.register(
                "http_requests",
                "Requests answered, by endpoint and status",
                Family::default(),
            ),
            seconds: metrics.register(
                "http_request_seconds",
                "Time until an answer began, by endpoint",
                seconds,
            ),
            in_flight: metrics.gauge("http_requests_in_flight", "Requests being answered"),
        }
    }
}

/// 1 ms to 65 s.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

/// Wraps `router`. `listener` names it in metrics, `max_body` bounds bodies that handlers
/// take as a whole (gRPC services have bounds of their own).
///
/// All of it is one layer: axum boxes each layer of a route and clones every box for every
/// request, which took more of a small push than reading it did (docs/benchmarks.md).
pub fn layers(
    router: Router,
    listener: &'static str,
    max_body: usize,
    metrics: &HttpMetrics,
) -> Router {
    let measure = Arc::new(Measure::new(listener, metrics.clone()));
    let compression = CompressionLayer::new()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(DefaultPredicate::new().and(SizeAbove::new(COMPRESS_ABOVE)));
    let shared = ServiceBuilder::new()
        .layer(OutermostLayer(measure))
        .layer(compression)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(max_body));
    router.layer(shared)
}

/// What surrounds everything else: [`Measure`] and [`unread::read_over`].
#[derive(Clone)]
struct OutermostLayer(Arc<Measure>);

impl<S> Layer<S> for OutermostLayer {
    type Service = Outermost<S>;

    fn layer(&self, inner: S) -> Outermost<S> {
        let measure = self.0.clone();
        Outermost { measure, inner }
    }
}

#[derive(Clone)]
struct Outermost<S> {
    measure: Arc<Measure>,
    inner: S,
}

impl<S, R> Service<Request> for Outermost<S>
where
    S: Service<Request, Response = R, Error = Infallible> + Send + 'static,
    S::Future: Send,
    R: IntoResponse,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let measured = Measured::begin(&self.measure, &request);
        let (request, left) = unread::watch(request);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?.into_response();
            unread::read_over(response.status(), left).await;
            measured.end(&response);
            Ok(response)
        })
    }
}

/// Memory asked for at least, and for a body that does not say how long it is.
const LEAST_BODY: usize = 64 << 10;
const UNKNOWN_BODY: usize = 256 << 10;
/// How much a compressed body grows, as a rule; its handler bounds it in any case.
const GROWTH: usize = 10;

/// Memory that bodies have to wait for.
pub struct BodyMemory {
    pub account: Account,
    /// What one body may hold at most, bytes.
    pub max_body: usize,
    /// How long one waits before its sender is told to come again. Less than the 10 s after
    /// which clients give up.
    pub patience: Duration,
}

/// Makes requests with a body wait for memory before the body is read, so that many at once
/// stay within the budget.
pub fn bounded(router: Router, memory: BodyMemory) -> Router {
    router.layer(from_fn_with_state(Arc::new(memory), take_memory))
}

async fn take_memory(
    State(memory): State<Arc<BodyMemory>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let headers = request.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let length = header("content-length").and_then(|text| text.parse().ok());
    let coding = header("content-encoding").or(header("grpc-encoding"));
    let growth = if coding.is_some_and(|c| c != "identity") {
        GROWTH
    } else {
        1
    };
    let wanted = length.unwrap_or(UNKNOWN_BODY).saturating_mul(growth);
    let is_grpc = header("content-type").is_some_and(|t| t.starts_with("application/grpc"));
    let wanted = wanted.clamp(LEAST_BODY, memory.max_body.max(LEAST_BODY));
    match memory.account.take(wanted, memory.patience).await {
        Ok(permit) => {
            let response = next.run(request).await;
            drop(permit);
            response
        }
        // gRPC status 14, UNAVAILABLE: try again.
        Err(error) if is_grpc => {
            let message = HeaderValue::try_from(format!("{error}; try again"));
            let headers = [
                (
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/grpc"),
                ),
                (
                    HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("14"),
                ),
                (
                    HeaderName::from_static("grpc-message"),
                    message.unwrap_or(HeaderValue::from_static("try again")),
                ),
            ];
            (StatusCode::OK, headers).into_response()
        }
        Err(error) => {
            let text = format!("{error}; try again\n");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "1")],
                text,
            )
                .into_response()
        }
    }
}

/// Counts the requests of a listener.
struct Measure {
    listener: &'static str,
    metrics: HttpMetrics,
    /// What is counted of each endpoint, found without making its labels anew.
    endpoints: RwLock<HashMap<Box<str>, Endpoint>>,
}

struct Endpoint {
    seconds: Histogram,
    /// By method and status: a handful.
    requests: Vec<((&'static str, StatusCode), Counter)>,
}

impl Measure {
    fn new(listener: &'static str, metrics: HttpMetrics) -> Self {
        Self {
            listener,
            metrics,
            endpoints: RwLock::default(),
        }
    }

    fn count(&self, endpoint: &str, method: &'static str, status: StatusCode, seconds: f64) {
        let at = (method, status);
        let counted = |known: &Endpoint| {
            let counter = known.requests.iter().find(|(key, _)| *key == at);
            counter.map(|(_, counter)| {
                known.seconds.observe(seconds);
                counter.inc();
            })
        };
        // Not within the condition: the lock would be held below.
        let done = self.endpoints.read().get(endpoint).and_then(counted);
        if done.is_some() {
            return;
        }
        let place = vec![
            ("listener", self.listener.to_owned()),
            ("endpoint", endpoint.to_owned()),
        ];
        let mut labels = place.clone();
        labels.push(("method", method.to_owned()));
        labels.push(("status", status.as_u16().to_string()));
        let counter = self.metrics.requests.get_or_create(&labels).clone();
        let seconds_of = self.metrics.seconds.get_or_create(&place).clone();
        seconds_of.observe(seconds);
        counter.inc();
        let mut endpoints = self.endpoints.write();
        let known = endpoints.entry(endpoint.into()).or_insert(Endpoint {
            seconds: seconds_of,
            requests: Vec::new(),
        });
        if known.requests.iter().all(|(key, _)| *key != at) {
            known.requests.push((at, counter));
        }
    }
}

/// One request being answered.
struct Measured {
    measure: Arc<Measure>,
    began: Instant,
    method: &'static str,
    endpoint: Option<MatchedPath>,
    /// Given back by drop: a client that goes away drops the request half-way.
    _in_flight: InFlight,
}

impl Measured {
    fn begin(measure: &Arc<Measure>, request: &Request) -> Self {
        Self {
            began: Instant::now(),
            method: known_method(request.method()),
            endpoint: request.extensions().get::<MatchedPath>().cloned(),
            _in_flight: InFlight::enter(&measure.metrics.in_flight),
            measure: measure.clone(),
        }
    }

    fn end(self, response: &Response) {
        let endpoint = self.endpoint.as_ref().map_or("other", MatchedPath::as_str);
        let seconds = self.began.elapsed().as_secs_f64();
        self.measure
            .count(endpoint, self.method, response.status(), seconds);
    }
}

/// Methods are whatever a client writes; label values must not be.
fn known_method(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

struct InFlight(Gauge);

impl InFlight {
    fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    // The place is in the panic hook's output already.
    tracing::error!("a request panicked: {}", panic_text(&*panic));
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        text,
        "internal error; the log says more\n",
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::{get, post};
    use tower::ServiceExt;

    use super::*;

    fn app(metrics: &Metrics) -> Router {
        let router = Router::new()
            .route("/item/{id}", get(|| async { "small" }))
            .route("/large", get(|| async { "x".repeat(10_000) }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("boom")
                    }
                }),
            )
            .route(
                "/body",
                post(|body: axum::body::Bytes| async move { body.len().to_string() }),
            );
        layers(router, "test", 10, &HttpMetrics::new(metrics))
    }

    #[tokio::test]
    async fn a_body_waits_for_memory_and_is_told_to_come_again() {
        let budget = crate::runtime::permits::Budget::new(300 << 10);
        let account = budget.account("ingest");
        let memory = BodyMemory {
            account: account.clone(),
            max_body: 1 << 20,
            patience: Duration::from_millis(20),
        };
        let app = bounded(app(&Metrics::default()), memory);
        assert_eq!(
            ask(&app, "POST", "/body", "12345").await.status(),
            StatusCode::OK
        );
        let _held = account.try_take(290 << 10).expect("fits");
        let refused = ask(&app, "POST", "/body", "12345").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            ask(&app, "GET", "/large", "").await.status(),
            StatusCode::OK
        );
    }

    async fn ask(app: &Router, method: &str, path: &str, body: &'static str) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept-encoding", "gzip")
            .body(Body::from(body))
            .expect("request");
        app.clone().oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_the_next_request_is_answered() {
        let app = app(&Metrics::default());
        let answer = ask(&app, "GET", "/panic", "").await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            ask(&app, "GET", "/item/1", "").await.status(),
            StatusCode::OK
        );
    }

    #[tokio::test]
    async fn large_answers_are_compressed_and_small_ones_are_not() {
        let app = app(&Metrics::default());
        let large = ask(&app, "GET", "/large", "").await;
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = to_bytes(large.into_body(), 100_000).await.expect("body");
        assert!(bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < 1_000);
        let small = ask(&app, "GET", "/item/1", "").await;
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let app = app(&Metrics::default());
        assert_eq!(
            ask(&app, "POST", "/body", "0123456789").await.status(),
            StatusCode::OK
        );
        let refused = ask(&app, "POST", "/body", "0123456789a").await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        let app = app(&metrics);
        for path in ["/item/1", "/item/2", "/nowhere", "/panic"] {
            ask(&app, "GET", path, "").await;
        }
        ask(&app, "BREW", "/item/3", "").await;
        let text = metrics.render();
        for (endpoint, method, status, count) in [
            ("/item/{id}", "GET", 200, 2),
            ("/item/{id}", "other", 405, 1),
            ("other", "GET", 404, 1),
            ("/panic", "GET", 500, 1),
        ] {
            let line = format!(
                "watchpost_http_requests_total{{listener=\"test\",endpoint=\"{endpoint}\",\
                 method=\"{method}\",status=\"{status}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(
            text.contains("watchpost_http_requests_in_flight 0\n"),
            "{text}"
        );
    }
}
