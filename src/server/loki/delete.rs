//! Delete requests, as Loki's compactor takes them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::model::Timestamp;
use crate::protocol::loki::deletes::{ListedDelete, Progress, list};
use crate::query::deletion::{DeleteError, DeleteRequest, DeleteState};
use crate::runtime::clock::Clock;
use crate::server::error::LokiError;

use super::params::{Params, parse_time, prometheus_duration};
use super::{Options, tenant, typed_json};

/// Longest text of a request, bytes: it is kept, and shown in every list.
const MAX_QUERY_BYTES: usize = 16 << 10;

/// Who keeps delete requests. Tenant "" unless tenancy is on.
pub trait DeleteKeeper: Send + Sync + 'static {
    /// Both times are inclusive.
    fn delete(
        &self,
        tenant: &str,
        query: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> impl Future<Output = Result<DeleteRequest, DeleteError>> + Send;

    /// Oldest first.
    fn delete_requests(&self, tenant: &str) -> Vec<DeleteRequest>;

    fn cancel_delete(
        &self,
        tenant: &str,
        id: &str,
        force: bool,
    ) -> impl Future<Output = Result<(), DeleteError>> + Send;
}

/// What the handlers need.
pub struct Deletes<D> {
    pub keeper: D,
    pub options: Options,
    /// Off: every request is refused.
    pub enabled: bool,
    pub clock: Clock,
}

/// The routes; they go on the Loki port.
pub fn router<D: DeleteKeeper>(deletes: Arc<Deletes<D>>) -> Router {
    let methods = get(show::<D>)
        .post(create::<D>)
        .put(create::<D>)
        .delete(cancel::<D>);
    Router::new()
        .route("/loki/api/v1/delete", methods)
        .with_state(deletes)
}

async fn create<D: DeleteKeeper>(
    State(deletes): State<Arc<Deletes<D>>>,
    request: Request,
) -> Response {
    match take(&deletes, request).await {
        Ok(taken) => {
            let id = HeaderValue::try_from(&*taken.id).unwrap_or(HeaderValue::from_static(""));
            let name = HeaderName::from_static("x-delete-request-id");
            (StatusCode::NO_CONTENT, [(name, id)]).into_response()
        }
        Err(error) => error.with_newline().into_response(),
    }
}

async fn show<D: DeleteKeeper>(
    State(deletes): State<Arc<Deletes<D>>>,
    request: Request,
) -> Response {
    let tenant = match begin(&deletes, &request) {
        Ok(tenant) => tenant,
        Err(error) => return error.with_newline().into_response(),
    };
    let requests = deletes.keeper.delete_requests(&tenant);
    let body = list(requests.iter().map(listed));
    typed_json(StatusCode::OK, "application/json; charset=UTF-8", body)
}

async fn cancel<D: DeleteKeeper>(
    State(deletes): State<Arc<Deletes<D>>>,
    request: Request,
) -> Response {
    match take_back(&deletes, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.with_newline().into_response(),
    }
}

fn begin<D>(deletes: &Deletes<D>, request: &Request) -> Result<Arc<str>, LokiError> {
    let tenant = tenant(&deletes.options, request.headers())?;
    if deletes.enabled {
        Ok(tenant)
    } else {
        Err(LokiError::forbidden(
            "deletion is not available for this tenant; loki.limits.deletion_mode switches it on",
        ))
    }
}

async fn take<D: DeleteKeeper>(
    deletes: &Deletes<D>,
    request: Request,
) -> Result<DeleteRequest, LokiError> {
    let tenant = begin(deletes, &request)?;
    let (_, params) = Params::read(request).await?;
    let Some(query) = params.get("query") else {
        return Err(LokiError::invalid("query not set"));
    };
    if query.len() > MAX_QUERY_BYTES {
        return Err(LokiError::invalid(format!(
            "query of a delete request is longer than {MAX_QUERY_BYTES} bytes"
        )));
    }
    let now = deletes.clock.now();
    let Some(start) = params.get("start") else {
        return Err(LokiError::invalid("start time not set"));
    };
    let start = time("start", start)?;
    let end = match params.get("end") {
        Some(text) => time("end", text)?,
        None => now,
    };
    if end > now {
        return Err(LokiError::invalid(
            "deletes in the future are not allowed: end must not be after now",
        ));
    }
    if start > end {
        return Err(LokiError::invalid(
            "start time can't be greater than end time",
        ));
    }
    // Loki cuts a request into such pieces; here days are the pieces anyway.
    if let Some(text) = params.get("max_interval")
        && prometheus_duration(text).is_none_or(|d| d <= 0)
    {
        return Err(LokiError::invalid(format!(
            "invalid max_interval {text:?}: use a duration such as 24h"
        )));
    }
    Ok(deletes.keeper.delete(&tenant, query, start, end).await?)
}

async fn take_back<D: DeleteKeeper>(
    deletes: &Deletes<D>,
    request: Request,
) -> Result<(), LokiError> {
    let tenant = begin(deletes, &request)?;
    let (_, params) = Params::read(request).await?;
    let Some(id) = params.get("request_id") else {
        return Err(LokiError::invalid("request_id not set"));
    };
    let force = params.get("force") == Some("true");
    Ok(deletes.keeper.cancel_delete(&tenant, id, force).await?)
}

fn time(name: &str, text: &str) -> Result<Timestamp, LokiError> {
    parse_time(text).ok_or_else(|| {
        LokiError::invalid(format!(
            "invalid {name} time {text:?}: require unix seconds or RFC3339 format"
        ))
    })
}

fn listed(request: &DeleteRequest) -> ListedDelete<'_> {
    ListedDelete {
        id: &request.id,
        start: request.start,
        end: request.end,
        query: &request.query,
        created_at: request.created_at,
        progress: match request.state {
            DeleteState::Processed { .. } => Progress::Processed,
            DeleteState::Received { done: 0, .. } => Progress::Received,
            DeleteState::Received { done, days, .. } => {
                let percent = u64::from(done) * 100 / u64::from(days.max(1));
                Progress::Partly(u8::try_from(percent.min(99)).unwrap_or(99))
            }
        },
    }
}
