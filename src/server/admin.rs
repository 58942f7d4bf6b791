//! How operators look at the process: ready, alive, services, metrics, configuration, log
//! level, flush.
//!
//! Knows nothing of the parts; it is handed what it shows.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde_json::json;

use super::loki::Params;
use crate::telemetry::metrics::Metrics;

/// Whether pushes are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, or not any more; why.
    NotReady(String),
    /// Yes; what does not work as it should, one line each.
    Ready { degraded: Vec<String> },
}

/// What the routes show and do.
pub struct Admin {
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    pub metrics: Metrics,
    /// Brings gauges up to date that nobody sets as things happen.
    pub before_metrics: Box<dyn Fn() + Send + Sync>,
    /// Seals everything and commits the indices.
    pub flush: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    /// Links the files of a consistent state for a backup; tells their directory.
    pub link_state: Box<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>,
    /// Removes such links, by the directory's name.
    pub release_state: Box<ReleaseState>,
    /// The configuration in effect, as TOML.
    pub config: String,
    /// The parts that run, each with its state.
    pub services: Box<dyn Fn() -> Vec<(&'static str, ServiceState)> + Send + Sync>,
    pub log_level: Box<dyn Fn() -> String + Send + Sync>,
    pub set_log_level: Box<SetLogLevel>,
}

/// Removes links by their directory's name; the error says why not.
pub type ReleaseState = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Takes another level; the error says which there are.
pub type SetLogLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// State of a part, in Loki's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    Starting,
    Running,
    Stopping,
    Failed,
}

/// The routes; they go on the Loki port.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/livez", get(|| async { plain(StatusCode::OK, "alive\n") }))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/services", get(services))
        .route("/log_level", get(log_level).post(set_log_level))
        .route("/flush", get(method_hint).post(flush))
        .route("/backup/state", post(link_state).delete(release_state))
        .with_state(admin)
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match (admin.readiness)() {
        Readiness::Ready { degraded } => {
            let mut text = "ready\n".to_owned();
            for line in degraded {
                text.push_str(&format!("degraded: {line}\n"));
            }
            plain(StatusCode::OK, text)
        }
        Readiness::NotReady(why) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        ),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    (admin.before_metrics)();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render()).into_response()
}

async fn config(State(admin): State<Arc<Admin>>) -> Response {
    plain(StatusCode::OK, admin.config.clone())
}

async fn services(State(admin): State<Arc<Admin>>) -> Response {
    let lines = (admin.services)();
    let lines = lines
        .into_iter()
        .map(|(name, state)| format!("{name} => {state:?}\n"));
    plain(StatusCode::OK, lines.collect::<String>())
}

async fn log_level(State(admin): State<Arc<Admin>>) -> Response {
    let level = (admin.log_level)();
    let message = format!("Current log level is {level}");
    Json(json!({ "message": message })).into_response()
}

async fn set_log_level(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let params = match Params::read(request).await {
        Ok((_, params)) => params,
        Err(error) => return error.into_response(),
    };
    let level = params.get("log_level").unwrap_or("");
    match (admin.set_log_level)(level) {
        Ok(()) => {
            tracing::info!(level, "log level set");
            let message = format!("Log level set to {level}");
            Json(json!({ "status": "success", "message": message })).into_response()
        }
        Err(message) => {
            let body = Json(json!({ "status": "failed", "message": message }));
            (StatusCode::BAD_REQUEST, body).into_response()
        }
    }
}

/// The answer is the directory, which lies on this machine: who copies it does that here.
async fn link_state(State(admin): State<Arc<Admin>>) -> Response {
    match (admin.link_state)().await {
        Ok(dir) => plain(StatusCode::OK, format!("{dir}\n")),
        Err(error) => {
            tracing::warn!(error, "no state for a backup");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("no state for a backup: {error}\n"),
            )
        }
    }
}

async fn release_state(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let params = match Params::read(request).await {
        Ok((_, params)) => params,
        Err(error) => return error.into_response(),
    };
    match (admin.release_state)(params.get("name").unwrap_or("")) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn flush(State(admin): State<Arc<Admin>>) -> Response {
    match (admin.flush)().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            tracing::warn!(error, "flush failed");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("flush failed: {error}\n"),
            )
        }
    }
}

async fn method_hint() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "flush with POST\n");
    response
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    response
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text.into(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use futures::FutureExt;
    use parking_lot::Mutex;
    use tower::ServiceExt;

    use super::*;

    async fn ask(app: &Router, method: &str, path: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty());
        let answer = app
            .clone()
            .oneshot(request.expect("request"))
            .await
            .expect("infallible");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn each_route_shows_what_it_was_handed() {
        let state = Arc::new(Mutex::new(Readiness::NotReady("opening the store".into())));
        let flushed = Arc::new(Mutex::new(Ok(())));
        let level = Arc::new(Mutex::new("info".to_owned()));
        let metrics = Metrics::default();
        let gauge = metrics.gauge("age", "of the test");
        let app = router(Arc::new(Admin {
            readiness: Box::new({
                let state = state.clone();
                move || state.lock().clone()
            }),
            metrics,
            before_metrics: Box::new(move || {
                gauge.set(7);
            }),
            flush: Box::new({
                let flushed = flushed.clone();
                move || {
                    let result = flushed.lock().clone();
                    async move { result }.boxed()
                }
            }),
            link_state: Box::new(|| async { Ok("/data/backup.tmp/1".to_owned()) }.boxed()),
            release_state: Box::new(|name| match name {
                "1" => Ok(()),
                _ => Err("is not there".into()),
            }),
            config: "[storage]\n".into(),
            services: Box::new(|| vec![("store", ServiceState::Running)]),
            log_level: Box::new({
                let level = level.clone();
                move || level.lock().clone()
            }),
            set_log_level: Box::new({
                let level = level.clone();
                move |text| {
                    if text != "debug" {
                        return Err(format!("{text:?} is no level"));
                    }
                    text.clone_into(&mut level.lock());
                    Ok(())
                }
            }),
        }));
        assert_eq!(
            ask(&app, "GET", "/ready").await,
            (503, "not ready: opening the store\n".into())
        );
        *state.lock() = Readiness::Ready {
            degraded: vec!["replaying 3 segments".into()],
        };
        let (status, body) = ask(&app, "GET", "/ready").await;
        assert_eq!(
            (status, &*body),
            (200, "ready\ndegraded: replaying 3 segments\n")
        );
        assert_eq!(ask(&app, "GET", "/livez").await.0, 200);
        assert_eq!(
            ask(&app, "GET", "/config").await,
            (200, "[storage]\n".into())
        );
        assert!(
            ask(&app, "GET", "/metrics")
                .await
                .1
                .contains("watchpost_age 7\n")
        );
        assert_eq!(
            ask(&app, "GET", "/services").await,
            (200, "store => Running\n".into())
        );
        let (status, body) = ask(&app, "POST", "/log_level?log_level=debug").await;
        assert_eq!((status, body.contains("success")), (200, true), "{body}");
        assert_eq!(
            ask(&app, "GET", "/log_level").await,
            (200, "{\"message\":\"Current log level is debug\"}".into())
        );
        assert_eq!(ask(&app, "POST", "/log_level?log_level=x").await.0, 400);
        assert_eq!(ask(&app, "POST", "/log_level").await.0, 400);
        assert_eq!(ask(&app, "POST", "/flush").await, (204, String::new()));
        assert_eq!(ask(&app, "GET", "/flush").await.0, 405);
        *flushed.lock() = Err("disk full".into());
        assert_eq!(
            ask(&app, "POST", "/flush").await,
            (500, "flush failed: disk full\n".into())
        );
    }
}
