//! Live tail: a websocket on which lines come as they are taken.
//!
//! A listener that reads too slowly misses lines, and is told which; one that does not read
//! at all is let go. Nobody else notices either: what waits for it is bounded by bytes, and
//! nothing waits for its socket but its own task.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};

use crate::logql::ast::Expr;
use crate::model::{Labels, Timestamp};
use crate::protocol::loki::response::Line;
use crate::protocol::loki::tail::{TailLine, legacy_message, message};
use crate::query::Querier;
use crate::query::tail::{Tail, TailBatch, TailEntry, TailQuery};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::server::error::LokiError;
use crate::telemetry::metrics::{Counter, Family, Gauge, Metrics, Reason};

use super::params::{Params, check_length};
use super::query::{CATEGORIZE, check_limit, encoding_flags, parse};
use super::{Options, tenant};

/// Lines of one message, and bytes after which it is closed.
const MESSAGE_LINES: usize = 100;
const MESSAGE_BYTES: usize = 1 << 20;
/// A client that takes no message for so long is gone.
const STUCK_AFTER: Duration = Duration::from_secs(15);
const PING_EVERY: Duration = Duration::from_secs(1);
/// Dropped lines told at a time; as many as Loki remembers.
const DROPPED_TOLD: usize = 1000;
/// What clients send is read and thrown away.
const INCOMING_BYTES: usize = 64 << 10;
/// Of each connection. Every message is flushed, so nothing is gained by more.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;
/// More have no room, whatever is configured.
const MOST: usize = 100_000;
/// How long the other side may take to close as well, and all tails at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// A close frame has 125 bytes, two of them for its code.
const CLOSE_REASON_BYTES: usize = 123;

const GOING_AWAY: u16 = 1001;
const INTERNAL_ERROR: u16 = 1011;

/// Bounds of tails.
#[derive(Clone, Copy, Debug)]
pub struct TailLimits {
    /// At a time, of all tenants together.
    pub concurrent: usize,
    /// A tail that lasts longer is ended; its client asks again.
    pub max_duration: Duration,
}

/// What tails count.
#[derive(Clone)]
pub struct TailMetrics {
    running: Gauge,
    lines: Counter,
    refused: Counter,
    ended: Family<Reason, Counter>,
}

impl TailMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            running: metrics.gauge("tails", "Live tails that run"),
            lines: metrics.counter("tail_lines", "Lines sent to live tails"),
            refused: metrics.counter(
                "tails_refused",
                "Live tails beyond max_concurrent_tail_requests",
            ),
            ended: metrics.refusals("tails_ended", "Live tails that ended, by reason"),
        }
    }
}

/// Everything a tail needs.
pub struct TailApi {
    querier: Querier,
    options: Options,
    limits: TailLimits,
    slots: Arc<Semaphore>,
    clock: Clock,
    shutdown: Shutdown,
    metrics: TailMetrics,
}

impl TailApi {
    pub fn new(
        querier: Querier,
        options: Options,
        mut limits: TailLimits,
        clock: Clock,
        shutdown: Shutdown,
        metrics: TailMetrics,
    ) -> Arc<Self> {
        limits.concurrent = limits.concurrent.min(MOST);
        Arc::new(Self {
            querier,
            options,
            limits,
            slots: Arc::new(Semaphore::new(limits.concurrent)),
            clock,
            shutdown,
            metrics,
        })
    }

    /// Returns when the process is to end and all tails have, or had their time for it.
    pub async fn ended(self: Arc<Self>) {
        self.shutdown.clone().wait().await;
        let all = self.slots.acquire_many(self.limits.concurrent as u32);
        let _ = tokio::time::timeout(2 * CLOSE_WITHIN, all).await;
    }
}

/// The two routes.
pub fn router(api: Arc<TailApi>) -> Router {
    Router::new()
        .route("/loki/api/v1/tail", get(tail_v1))
        .route("/api/prom/tail", get(tail_legacy))
        .with_state(api)
}

/// How messages are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    V1,
    Legacy,
}

async fn tail_v1(
    State(api): State<Arc<TailApi>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    tail(api, upgrade, request, Shape::V1)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn tail_legacy(
    State(api): State<Arc<TailApi>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    tail(api, upgrade, request, Shape::Legacy)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

/// What can be told before the upgrade is told as a plain 400.
async fn tail(
    api: Arc<TailApi>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
    shape: Shape,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let expr = parse(&params.filtered_query())?;
    let limit = params.limit()?;
    check_limit(limit, &api.options)?;
    let delay = params.delay()?;
    let now = api.clock.now();
    let start = params.start_before(now)?;
    check_length(now.saturating_sub(start), api.options.max_query_length)?;
    let flags = flags(&headers, &params, shape);
    let upgrade = upgrade
        .map_err(|error| LokiError::invalid(format!("a live tail needs a websocket: {error}")))?;
    let query = match expr {
        Expr::Log(expr) => Some(TailQuery {
            expr,
            start,
            limit,
            delay,
            categorize: flags.iter().any(|f| f == CATEGORIZE),
        }),
        Expr::Metric(_) => None,
    };
    let upgrade = upgrade
        .max_message_size(INCOMING_BYTES)
        .max_frame_size(INCOMING_BYTES)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let session = Session {
            socket,
            api: api.clone(),
            shape,
            flags,
            dropped: Vec::new(),
        };
        session.run(tenant, query).await;
    }))
}

/// Browsers can't set headers of a websocket, so a parameter does as well.
fn flags(headers: &HeaderMap, params: &Params, shape: Shape) -> Vec<String> {
    let mut flags = encoding_flags(headers);
    for value in params.all(&["encoding_flags"]) {
        for flag in value.split(',').filter(|f| !f.is_empty()) {
            if !flags.iter().any(|f| f == flag) {
                flags.push(flag.to_owned());
            }
        }
    }
    // The legacy shape has no place for categories.
    if shape == Shape::Legacy {
        flags.clear();
    }
    flags
}

/// How a tail ended.
enum End {
    /// The client closed, or is no longer there.
    Gone,
    Stuck,
    Closed {
        code: u16,
        reason: &'static str,
        text: String,
    },
}

impl End {
    fn closed(code: u16, reason: &'static str, text: impl Into<String>) -> Self {
        Self::Closed {
            code,
            reason,
            text: text.into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "client",
            Self::Stuck => "stuck",
            Self::Closed { reason, .. } => reason,
        }
    }
}

struct Session {
    socket: WebSocket,
    api: Arc<TailApi>,
    shape: Shape,
    flags: Vec<String>,
    /// Not told yet: they go with the next lines.
    dropped: Vec<(Timestamp, Labels)>,
}

impl Session {
    async fn run(mut self, tenant: Arc<str>, query: Option<TailQuery>) {
        let Some(query) = query else {
            // In Loki's words.
            let text = "parse error : only log selector is supported";
            return self.close(INTERNAL_ERROR, text).await;
        };
        let api = self.api.clone();
        let Ok(_slot) = api.slots.clone().try_acquire_owned() else {
            api.metrics.refused.inc();
            let limit = api.limits.concurrent;
            let text = format!(
                "max concurrent tail requests limit exceeded, count > limit ({} > {limit})",
                limit.saturating_add(1)
            );
            return self.close(INTERNAL_ERROR, &text).await;
        };
        let end = match api.querier.tail(&tenant, query).await {
            Ok(tail) => {
                let _running = Running::enter(&api.metrics.running);
                self.follow(tail).await
            }
            Err(error) => End::closed(INTERNAL_ERROR, "query", error.to_string()),
        };
        let reason = [("reason", end.reason())];
        api.metrics.ended.get_or_create(&reason).inc();
        if let End::Closed { code, text, .. } = end {
            self.close(code, &text).await;
        }
    }

    async fn follow(&mut self, mut tail: Tail) -> End {
        let mut shutdown = self.api.shutdown.clone();
        let end = Instant::now() + self.api.limits.max_duration;
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.wait() => {
                    return End::closed(GOING_AWAY, "shutdown", "the server is shutting down");
                }
                () = tokio::time::sleep_until(end) => {
                    let text = "reached tail max duration limit";
                    return End::closed(INTERNAL_ERROR, "max_duration", text);
                }
                batch = tail.next() => {
                    let sent = match batch {
                        Ok(batch) => self.send_batch(batch).await,
                        Err(error) => Err(End::closed(INTERNAL_ERROR, "query", error.to_string())),
                    };
                    if let Err(end) = sent {
                        return end;
                    }
                }
                received = self.socket.recv() => match received {
                    // A close is answered by the library when it is read.
                    None | Some(Err(_) | Ok(Message::Close(_))) => return End::Gone,
                    Some(Ok(_)) => {}
                },
                _ = ping.tick() => {
                    if let Err(end) = self.send(Message::Ping(Default::default())).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn send_batch(&mut self, batch: TailBatch) -> Result<(), End> {
        let room = DROPPED_TOLD.saturating_sub(self.dropped.len());
        self.dropped.extend(batch.dropped.into_iter().take(room));
        let mut rest = &batch.entries[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(MESSAGE_LINES).take_while(|entry| {
                let fits = bytes < MESSAGE_BYTES;
                bytes += entry.line.len();
                fits
            });
            let (now, later) = rest.split_at(fits.count());
            rest = later;
            let text = self.render(now);
            self.send(Message::text(text)).await?;
            self.api.metrics.lines.inc_by(now.len() as u64);
        }
        Ok(())
    }

    fn render(&mut self, entries: &[TailEntry]) -> String {
        let categorize = self.flags.iter().any(|f| f == CATEGORIZE);
        let lines = entries.iter().map(|entry| TailLine {
            labels: &entry.labels,
            line: Line {
                at: entry.at,
                text: &entry.line,
                categories: categorize.then_some((&entry.structured, &entry.parsed)),
            },
        });
        let dropped = std::mem::take(&mut self.dropped);
        match self.shape {
            Shape::V1 => message(lines, &dropped, &self.flags),
            Shape::Legacy => legacy_message(lines, &dropped),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let mut shutdown = self.api.shutdown.clone();
        tokio::select! {
            sent = tokio::time::timeout(STUCK_AFTER, self.socket.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => Err(End::Stuck),
            },
            // Half a message may be out: there is nothing more to say on this connection.
            () = shutdown.wait() => Err(End::Gone),
        }
    }

    /// Says why, and waits a moment for the other side to have read it.
    async fn close(&mut self, code: u16, text: &str) {
        let end = (0..=text.len().min(CLOSE_REASON_BYTES))
            .rev()
            .find(|end| text.is_char_boundary(*end));
        let frame = CloseFrame {
            code,
            reason: text[..end.unwrap_or(0)].into(),
        };
        let close = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, close).await;
    }
}

/// Counts a tail as long as it runs, also when its task is dropped.
struct Running(Gauge);

impl Running {
    fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
