//! The list of requests: taken, shown, taken back, kept in `meta`.
//!
//! Who changes the list holds [`DeletionLog::admin`], so that `meta` and memory agree; what
//! readers apply changes under the lock around `Open` alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{DeleteRequest, DeleteState, Deletion, Deletions};
use crate::model::Timestamp;
use crate::model::time::DAY;
use crate::store::error::StoreError;
use crate::store::inbox::Internal;
use crate::store::kv::Kv;
use crate::store::layout::{DELETE_PREFIX, META_FAMILY};
use crate::store::options::Options;
use crate::store::writer::Shared;

/// Requests that count at a time. Each is applied to every line that a query finds where it
/// may select, and its compiled text is kept in memory.
const MAX_RECEIVED: usize = 1000;
/// Bytes of their texts together.
const MAX_TEXT: usize = 1 << 20;
/// Processed requests are shown so long, and at most so many of them.
const SHOW_PROCESSED: i64 = 30 * DAY;
const MAX_PROCESSED: usize = 1000;

/// Why a request is not taken, or not taken back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("{0}")]
    Invalid(String),
    #[error("too many delete requests wait to be processed ({0}); try again when some are")]
    TooMany(usize),
    #[error("the journal is being replayed; try again")]
    Replaying,
    #[error("could not find delete request with given id")]
    NotFound,
    #[error("deletion of request which is in process or already processed is not allowed")]
    Processed,
    #[error(
        "unable to cancel a partially completed delete request; to force it, use the force \
         parameter"
    )]
    Begun,
    /// Nobody can tell whether it was taken.
    #[error("{0}")]
    Unanswered(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is kept beside the requests that readers apply.
#[derive(Default)]
pub struct DeletionLog {
    pub(super) admin: Mutex<()>,
    pub(super) processed: Mutex<Vec<DeleteRequest>>,
}

/// Reads the requests at opening.
pub fn load(kv: &Kv, options: &Options) -> Result<(Deletions, DeletionLog), StoreError> {
    let mut requests = Vec::new();
    let mut bad = Vec::new();
    kv.scan(META_FAMILY, DELETE_PREFIX, |key, value| {
        match DeleteRequest::decode(&key[DELETE_PREFIX.len()..], value) {
            Ok(request) => requests.push(request),
            Err(what) => bad.push(what),
        }
        true
    })?;
    for what in bad {
        tracing::error!("a delete request can't be read, its lines are shown again: {what}");
    }
    let mut processed = Vec::new();
    let mut received = Vec::new();
    for request in requests {
        if matches!(request.state, DeleteState::Processed { .. }) {
            processed.push(request);
            continue;
        }
        let selection = (options.deletion.read)(&request.query)
            .inspect_err(|what| {
                let (id, query) = (&request.id, &request.query);
                tracing::error!("delete request {id} {query:?} selects nothing: {what}");
            })
            .ok();
        received.push(Arc::new(Deletion::new(request, selection)));
    }
    received.sort_by_key(|d| d.request.created_at);
    let log = DeletionLog {
        processed: Mutex::new(processed),
        ..DeletionLog::default()
    };
    Ok((received.into_iter().collect(), log))
}

/// Key of a request in `meta`.
fn key(id: &str) -> Vec<u8> {
    [DELETE_PREFIX, id.as_bytes()].concat()
}

/// Takes a request: safe when this returns, applied by every snapshot from here on. Blocks
/// for a sync.
pub fn create(
    shared: &Shared,
    tenant: &str,
    query: &str,
    start: Timestamp,
    end: Timestamp,
) -> Result<DeleteRequest, DeleteError> {
    let selection = (shared.options.deletion.read)(query).map_err(DeleteError::Invalid)?;
    let _admin = shared.deletions.admin.lock();
    let created_at = shared.options.clock.now();
    let processed: Vec<Arc<str>> = {
        let processed = shared.deletions.processed.lock();
        processed.iter().map(|r| r.id.clone()).collect()
    };
    let deletion = {
        let mut open = shared.open.lock();
        if !shared.recovered.load(Ordering::Acquire) {
            // What the heads will hold is not known yet.
            return Err(DeleteError::Replaying);
        }
        let count = open.deletions.iter().count();
        let text: usize = open.deletions.iter().map(|d| d.request.query.len()).sum();
        if count >= MAX_RECEIVED || text + query.len() > MAX_TEXT {
            return Err(DeleteError::TooMany(count));
        }
        let mut ids = (0..).map(|n| DeleteRequest::make_id(tenant, query, created_at, n));
        let taken = |id: &Arc<str>| {
            open.deletions.iter().any(|d| d.request.id == *id) || processed.contains(id)
        };
        let id = ids.find(|id| !taken(id)).unwrap_or_else(|| "0".into());
        let request = DeleteRequest {
            id,
            tenant: tenant.into(),
            query: query.into(),
            start,
            end,
            created_at,
            before: open.applied,
            state: DeleteState::NEW,
            erased: 0,
        };
        let deletion = Arc::new(Deletion::new(request, Some(selection)));
        open.deletions = open.deletions.with(deletion.clone());
        open.unfrozen.push(deletion.clone());
        deletion
    };
    let request = deletion.request.clone();
    if let Err(error) = save(shared, &request) {
        forget(shared, &request.id);
        return Err(error.into());
    }
    shared.metrics.delete_requests.inc();
    shared.inbox.push_internal(Internal::FreezeDeleted);
    tracing::info!(id = %request.id, query = %request.query, start, end, "delete request");
    Ok(request)
}

/// Takes a request back. What is erased already stays so; `force` accepts that.
pub fn cancel(shared: &Shared, tenant: &str, id: &str, force: bool) -> Result<(), DeleteError> {
    let _admin = shared.deletions.admin.lock();
    let found = shared.open.lock().deletions.find(tenant, id).cloned();
    let Some(deletion) = found else {
        let processed = shared.deletions.processed.lock();
        let known = processed
            .iter()
            .any(|r| *r.id == *id && *r.tenant == *tenant);
        return Err(if known {
            DeleteError::Processed
        } else {
            DeleteError::NotFound
        });
    };
    if deletion.has_begun() && !force {
        return Err(DeleteError::Begun);
    }
    shared.kv.write_meta(&[(key(id), None)])?;
    deletion.cancelled.store(true, Ordering::Relaxed);
    forget(shared, id);
    tracing::info!(id, "delete request taken back");
    Ok(())
}

/// All requests of a tenant, in order of their coming.
pub fn list(shared: &Shared, tenant: &str) -> Vec<DeleteRequest> {
    let received = shared.open.lock().deletions.clone();
    let processed = shared.deletions.processed.lock();
    let mut all: Vec<DeleteRequest> = received
        .iter()
        .map(|d| d.now())
        .chain(processed.iter().cloned())
        .filter(|r| *r.tenant == *tenant)
        .collect();
    all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    // One that was finished between the two looks.
    all.dedup_by(|b, a| a.id == b.id);
    all
}

pub(super) fn save(shared: &Shared, request: &DeleteRequest) -> Result<(), StoreError> {
    let pair = (key(&request.id), Some(request.encode()));
    shared.kv.write_meta(&[pair])
}

/// Readers apply it no more.
fn forget(shared: &Shared, id: &str) {
    let mut open = shared.open.lock();
    open.deletions = open.deletions.without(id);
    open.unfrozen.retain(|d| *d.request.id != *id);
}

/// Marks a request of which every line is gone (E3).
pub(super) fn finish(shared: &Shared, deletion: &Deletion) -> Result<(), StoreError> {
    let _admin = shared.deletions.admin.lock();
    if deletion.cancelled.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut request = deletion.now();
    request.state = DeleteState::Processed {
        at: shared.options.clock.now(),
    };
    save(shared, &request)?;
    tracing::info!(id = %request.id, lines = request.erased, "delete request processed");
    let id = request.id.clone();
    shared.deletions.processed.lock().push(request);
    forget(shared, &id);
    Ok(())
}

/// Notes how far a request has got. Nothing for one that was taken back meanwhile.
pub(super) fn progress(shared: &Shared, request: &DeleteRequest) -> Result<(), StoreError> {
    let _admin = shared.deletions.admin.lock();
    let open = shared.open.lock();
    let known = open.deletions.find(&request.tenant, &request.id).is_some();
    drop(open);
    if known { save(shared, request) } else { Ok(()) }
}

/// Removes processed requests that were shown long enough.
pub(super) fn tidy(shared: &Shared) -> Result<(), StoreError> {
    let _admin = shared.deletions.admin.lock();
    let oldest = shared.options.clock.now().saturating_sub(SHOW_PROCESSED);
    let mut processed = shared.deletions.processed.lock();
    let at = |r: &DeleteRequest| match r.state {
        DeleteState::Processed { at } => at,
        DeleteState::Received { .. } => i64::MAX,
    };
    processed.sort_by_key(at);
    let old = processed.partition_point(|r| at(r) < oldest);
    let gone = old.max(processed.len().saturating_sub(MAX_PROCESSED));
    if gone == 0 {
        return Ok(());
    }
    let keys: Vec<_> = processed[..gone]
        .iter()
        .map(|r| (key(&r.id), None))
        .collect();
    shared.kv.write_meta(&keys)?;
    processed.drain(..gone);
    Ok(())
}
