//! The ruler's paths. There is no ruler here, so no rule can be configured: what lists rules
//! lists none, in the shapes that Grafana's alerting pages read, and what changes rules is
//! refused, as by a Loki whose rules are files.

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::server::error::LokiError;

/// The routes; they go on the Loki port.
pub fn router() -> Router {
    let mut router = Router::new()
        .route("/prometheus/api/v1/rules", get(|| state("groups")))
        .route("/prometheus/api/v1/alerts", get(|| state("alerts")));
    for base in ["/loki/api/v1/rules", "/api/prom/rules"] {
        router = router
            .route(base, get(no_groups))
            .route(&format!("{base}/{{namespace}}"), any(namespace))
            .route(&format!("{base}/{{namespace}}/{{group}}"), any(group));
    }
    router
}

/// Rules or alerts with their states, as Prometheus tells them.
async fn state(kind: &'static str) -> Response {
    let nothing: Vec<Value> = Vec::new();
    let body =
        json!({ "status": "success", "data": { kind: nothing }, "errorType": "", "error": "" });
    Json(body).into_response()
}

async fn no_groups() -> Response {
    none("no rule groups found")
}

async fn namespace(request: Request) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => none("no rule groups found"),
        Method::POST | Method::DELETE => read_only(),
        _ => wrong_method("GET,HEAD,POST,DELETE"),
    }
}

async fn group(request: Request) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => none("group does not exist"),
        Method::DELETE => read_only(),
        _ => wrong_method("GET,HEAD,DELETE"),
    }
}

fn none(text: &str) -> Response {
    LokiError::not_found(text).with_newline().into_response()
}

fn read_only() -> Response {
    LokiError::invalid("rules can't be changed here: there is no ruler; use Grafana's alerting")
        .with_newline()
        .into_response()
}

fn wrong_method(allowed: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allowed)]).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: &str, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).expect("a request");
        let answer = router().oneshot(request).await.expect("infallible");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 16).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn lists_are_empty_in_the_shape_that_clients_read() {
        for (path, kind) in [("rules", "groups"), ("alerts", "alerts")] {
            let (status, body) = ask("GET", &format!("/prometheus/api/v1/{path}")).await;
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(status, 200);
            assert_eq!(
                body,
                json!({ "status": "success", "data": { kind: [] }, "errorType": "", "error": "" })
            );
        }
    }

    #[tokio::test]
    async fn there_are_no_groups_and_none_can_be_made() {
        for base in ["/loki/api/v1/rules", "/api/prom/rules"] {
            let none = (404, "no rule groups found\n".to_owned());
            assert_eq!(ask("GET", base).await, none);
            assert_eq!(ask("GET", &format!("{base}/space")).await, none);
            assert_eq!(ask("GET", &format!("{base}/space/group")).await.0, 404);
            assert_eq!(ask("POST", &format!("{base}/space")).await.0, 400);
            assert_eq!(ask("DELETE", &format!("{base}/space")).await.0, 400);
            assert_eq!(ask("DELETE", &format!("{base}/space/group")).await.0, 400);
            assert_eq!(ask("PUT", &format!("{base}/space/group")).await.0, 405);
            assert_eq!(ask("POST", base).await.0, 405);
        }
    }
}
