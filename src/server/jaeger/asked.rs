//! What searches over gRPC ask for, in one form for the messages of all versions, and how
//! their failures are told.

use tonic::Status;

use crate::model::TimeRange;
use crate::model::trace::TraceQuery;
use crate::protocol::jaeger::proto;
use crate::protocol::wire::jaeger::api_v2;
use crate::query::answer::QueryError;

/// Traces that a search which names no number returns.
pub const DEFAULT_DEPTH: usize = 100;

/// The parameters of a search as messages have them.
#[derive(Default)]
pub struct Asked {
    pub service: String,
    pub operation: String,
    pub tags: Vec<(String, String)>,
    pub start_min: Option<api_v2::Timestamp>,
    pub start_max: Option<api_v2::Timestamp>,
    pub duration_min: Option<api_v2::Duration>,
    pub duration_max: Option<api_v2::Duration>,
    /// 0 and less: the default.
    pub depth: i32,
}

impl Asked {
    /// An absent time is no bound, nor is an empty service.
    pub fn query(mut self) -> TraceQuery {
        // Maps come in no order; equal questions should be equal.
        self.tags.sort();
        let bound = |duration: Option<api_v2::Duration>| {
            let duration = duration.map(|duration| proto::duration(&duration));
            duration.filter(|duration| *duration > 0)
        };
        TraceQuery {
            service: self.service,
            operation: self.operation,
            tags: self.tags,
            start_min: self.start_min.map_or(i64::MIN, |at| proto::time(&at)),
            start_max: self.start_max.map_or(i64::MAX, |at| proto::time(&at)),
            duration_min: bound(self.duration_min),
            duration_max: bound(self.duration_max),
            limit: match usize::try_from(self.depth) {
                Ok(0) | Err(_) => DEFAULT_DEPTH,
                Ok(depth) => depth,
            },
        }
    }
}

/// The time of a request for dependencies, which must have both ends.
pub fn range(
    start: Option<&api_v2::Timestamp>,
    end: Option<&api_v2::Timestamp>,
) -> Result<TimeRange, Status> {
    match (start, end) {
        (Some(start), Some(end)) => Ok(TimeRange::inclusive(proto::time(start), proto::time(end))),
        _ => Err(Status::invalid_argument(
            "start_time and end_time are required",
        )),
    }
}

/// What a client is told of a query without an answer.
pub fn status(error: &QueryError) -> Status {
    let text = error.to_string();
    match error {
        QueryError::Invalid(_) => Status::invalid_argument(text),
        QueryError::TooMuch(_) => Status::resource_exhausted(text),
        QueryError::Timeout(_) => Status::deadline_exceeded(text),
        QueryError::Busy(_) | QueryError::NoRoom(_) => Status::unavailable(text),
        QueryError::Matching(_) | QueryError::Internal(_) => Status::internal(text),
    }
}
