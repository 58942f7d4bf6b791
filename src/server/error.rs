//! From what went wrong to what a client sees: status codes live here and nowhere else.
//!
//! Loki answers errors as plain text. Clients look at the status: 429 and 5xx are tried
//! again, other 4xx are dropped. So nothing that a retry would cure may be another 4xx,
//! and nothing that it would not cure a 5xx.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::ingest::{Refusal, RefusalKind, error_text};
use crate::logql::ParseError;
use crate::protocol::loki::push::DecodeError;
use crate::query::answer::QueryError;
use crate::query::deletion::DeleteError;
use crate::runtime::permits::Exhausted;
use crate::runtime::pool::PoolError;

/// An error of the Loki side, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiError {
    status: StatusCode,
    text: String,
}

impl LokiError {
    /// A parameter or body that is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: text.into(),
        }
    }

    /// More bytes than a request may have.
    pub fn too_large(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            text: text.into(),
        }
    }

    /// A content type or encoding that nobody reads here.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text: text.into(),
        }
    }

    /// What may go well when it is tried again.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text: text.into(),
        }
    }

    /// What is switched off.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            text: text.into(),
        }
    }

    /// A path that is known and has nothing to show.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            text: text.into(),
        }
    }

    /// Tenancy is on, and the request names no tenant.
    pub fn no_tenant() -> Self {
        // With a newline, as the layer of Loki that says so always adds one.
        Self {
            status: StatusCode::UNAUTHORIZED,
            text: "no org id\n".to_owned(),
        }
    }

    /// The answer to a push of which not everything was taken. `None` when it was.
    pub fn of_refusals(refusals: &[Refusal]) -> Option<Self> {
        if refusals.is_empty() {
            return None;
        }
        // Limits first: what they refused can be sent again, and what was stored is
        // recognised when it is.
        let limited = refusals.iter().find(|r| r.kind == RefusalKind::Limited);
        let kind = limited.map_or(RefusalKind::Invalid, |r| r.kind);
        Some(Self {
            status: status_of(kind),
            text: error_text(refusals),
        })
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Errors of pushes end with a newline, those of queries do not.
    pub fn with_newline(mut self) -> Self {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            // Logged here and only here: nobody else turns it into an answer.
            tracing::warn!(status = self.status.as_u16(), error = %self.text.trim_end(), "request failed");
        }
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        (self.status, headers, self.text).into_response()
    }
}

fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<Refusal> for LokiError {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status_of(refusal.kind),
            text: refusal.message,
        }
    }
}

impl From<DecodeError> for LokiError {
    fn from(error: DecodeError) -> Self {
        let status = match error {
            DecodeError::Invalid(_) => StatusCode::BAD_REQUEST,
            DecodeError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            DecodeError::NoStreams => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self {
            status,
            text: error.to_string(),
        }
    }
}

impl From<ParseError> for LokiError {
    fn from(error: ParseError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<QueryError> for LokiError {
    fn from(error: QueryError) -> Self {
        let status = match error {
            QueryError::Invalid(_) | QueryError::TooMuch(_) => StatusCode::BAD_REQUEST,
            QueryError::Matching(_) | QueryError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            QueryError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            QueryError::Busy(_) | QueryError::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            text: error.to_string(),
        }
    }
}

impl From<DeleteError> for LokiError {
    fn from(error: DeleteError) -> Self {
        let status = match error {
            DeleteError::Invalid(_) | DeleteError::Processed | DeleteError::Begun => {
                StatusCode::BAD_REQUEST
            }
            DeleteError::NotFound => StatusCode::NOT_FOUND,
            DeleteError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            DeleteError::Replaying => StatusCode::SERVICE_UNAVAILABLE,
            DeleteError::Unanswered(_) | DeleteError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = match error {
            DeleteError::Invalid(why) => format!("invalid query expression: {why}"),
            other => other.to_string(),
        };
        Self { status, text }
    }
}

impl From<Exhausted> for LokiError {
    fn from(error: Exhausted) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text: format!("{error}; try again later"),
        }
    }
}

impl From<PoolError> for LokiError {
    fn from(error: PoolError) -> Self {
        let status = match error {
            PoolError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
            PoolError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            text: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: RefusalKind) -> Refusal {
        Refusal {
            kind,
            reason: "x",
            message: "m".into(),
        }
    }

    #[test]
    fn a_limit_makes_a_mixed_push_worth_repeating() {
        assert_eq!(LokiError::of_refusals(&[]), None);
        let both = [refusal(RefusalKind::Invalid), refusal(RefusalKind::Limited)];
        let error = LokiError::of_refusals(&both).expect("refused");
        assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(error.text, "2 errors like: m");
        let error = LokiError::of_refusals(&both[..1]).expect("refused");
        assert_eq!((error.status().as_u16(), &*error.text), (400, "m"));
    }

    #[test]
    fn what_a_retry_cures_is_never_a_client_error() {
        let status = |error: LokiError| error.status().as_u16();
        assert_eq!(status(refusal(RefusalKind::Unavailable).into()), 503);
        assert_eq!(status(QueryError::Busy("x".into()).into()), 503);
        assert_eq!(status(PoolError::Stopped.into()), 503);
        assert_eq!(status(QueryError::Matching("x".into()).into()), 500);
        assert_eq!(
            status(QueryError::Timeout(std::time::Duration::from_secs(1)).into()),
            504
        );
        assert_eq!(status(DecodeError::NoStreams.into()), 422);
        assert_eq!(status(DecodeError::TooLarge("x".into()).into()), 413);
    }
}
