//! The collector's admin port (14269): health, metrics, version, as Jaeger's has them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::protocol::jaeger::duration::GoDuration;
use crate::runtime::clock::Clock;
use crate::server::spans::SpanMetrics;
use crate::telemetry::build;

/// What the routes show.
pub struct JaegerAdmin {
    /// Whether spans are accepted.
    pub is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    pub spans: SpanMetrics,
    pub clock: Clock,
    /// When this process began to serve, nanoseconds.
    pub since: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    up_since: String,
    uptime: String,
}

/// Names of a build in Jaeger's form. Which commit it is, nobody knows here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    git_commit: &'static str,
    git_version: String,
    build_date: &'static str,
}

impl Version {
    pub fn of_this_build() -> Self {
        Self {
            git_commit: "",
            git_version: format!("watchpost-{}", build::VERSION),
            build_date: "",
        }
    }
}

pub fn router(admin: JaegerAdmin) -> Router {
    Router::new()
        .route("/", get(health))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(Arc::new(admin))
}

async fn health(State(admin): State<Arc<JaegerAdmin>>) -> Response {
    let (status, health) = if (admin.is_ready)() {
        let since = jiff::Timestamp::from_nanosecond(i128::from(admin.since));
        let up = Health {
            status: "Server available",
            up_since: since.unwrap_or_default().to_string(),
            uptime: GoDuration(admin.clock.now().saturating_sub(admin.since).max(0)).to_string(),
        };
        (StatusCode::OK, up)
    } else {
        let down = Health {
            status: "Server not available",
            up_since: "0001-01-01T00:00:00Z".into(),
            uptime: String::new(),
        };
        (StatusCode::SERVICE_UNAVAILABLE, down)
    };
    json(status, &health)
}

async fn metrics(State(admin): State<Arc<JaegerAdmin>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], admin.spans.ledger().render()).into_response()
}

async fn version() -> Response {
    json(StatusCode::OK, &Version::of_this_build())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_string(value).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::server::spans::memory::{metrics as span_metrics, send, serve};

    #[tokio::test]
    async fn health_is_told_as_jaegers_admin_port_does() {
        let ready = Arc::new(AtomicBool::new(true));
        let second = 1_000_000_000;
        let since = 1_795_305_600 * second;
        let router = router(JaegerAdmin {
            is_ready: Box::new({
                let ready = ready.clone();
                move || ready.load(Ordering::Relaxed)
            }),
            spans: span_metrics().1,
            clock: Clock::fixed(since + 3_723 * second),
            since,
        });
        let address = serve(router).await;
        let up = send(address, "GET", "/", &[], "").await;
        assert_eq!(
            (up.status, up.header("content-type")),
            (200, "application/json")
        );
        assert_eq!(
            up.text(),
            r#"{"status":"Server available","upSince":"2026-11-22T00:00:00Z","uptime":"1h2m3s"}"#
        );
        ready.store(false, Ordering::Relaxed);
        let down = send(address, "GET", "/", &[], "").await;
        assert_eq!(down.status, 503);
        assert_eq!(
            down.text(),
            r#"{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}"#
        );
        let version = send(address, "GET", "/version", &[], "").await.json();
        assert!(
            version["gitVersion"]
                .as_str()
                .unwrap()
                .starts_with("watchpost-")
        );
        let metrics = send(address, "GET", "/metrics", &[], "").await;
        assert_eq!(
            metrics.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            metrics
                .text()
                .contains("jaeger_collector_spans_dropped_total 0\n")
        );
    }
}
