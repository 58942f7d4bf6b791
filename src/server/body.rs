//! The body of a request: bounded while it is read and while it is decompressed.

use std::io::Read;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("body is larger than {0} bytes; send smaller batches")]
    TooLarge(usize),
    #[error("content encoding `{0}` is unknown; use gzip or none")]
    UnknownEncoding(String),
    #[error("body is not valid gzip: {0}")]
    BadGzip(String),
    #[error("body ends early: {0}")]
    Interrupted(String),
}

impl BodyError {
    /// Label value of the counter of refused messages.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::UnknownEncoding(_) => "unknown_encoding",
            Self::BadGzip(_) => "bad_gzip",
            Self::Interrupted(_) => "interrupted",
        }
    }
}

/// Reads a body of at most `limit` bytes, and undoes its content encoding.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(BodyError::TooLarge(limit));
    }
    let body = axum::body::to_bytes(body, limit).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if too_large {
            BodyError::TooLarge(limit)
        } else {
            BodyError::Interrupted(error.to_string())
        }
    })?;
    match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"" | b"identity") => Ok(body),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"gzip") => gunzip(&body, limit),
        Some(other) => Err(BodyError::UnknownEncoding(
            String::from_utf8_lossy(other).into_owned(),
        )),
    }
}

fn gunzip(body: &[u8], limit: usize) -> Result<Bytes, BodyError> {
    // Text of spans shrinks five to ten times; more room is made as it proves needed.
    let mut out = Vec::with_capacity(body.len().saturating_mul(5).min(limit));
    flate2::read::MultiGzDecoder::new(body)
        .take(limit as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| BodyError::BadGzip(error.to_string()))?;
    if out.len() > limit {
        Err(BodyError::TooLarge(limit))
    } else {
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::spans::memory::gzip;

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 100_000);
        assert_eq!(
            gunzip(&bomb, 1_000_000),
            Err(BodyError::TooLarge(1_000_000))
        );
        assert_eq!(
            gunzip(&bomb, 10_000_000).map(|bytes| bytes.len()),
            Ok(10_000_000)
        );
        assert_eq!(gunzip(b"plain", 10).unwrap_err().reason(), "bad_gzip");
    }

    #[tokio::test]
    async fn a_body_is_bounded_with_and_without_a_length() {
        let read =
            |headers: HeaderMap, body: Body| async move { super::read(&headers, body, 4).await };
        assert_eq!(
            read(HeaderMap::new(), Body::from("12345")).await,
            Err(BodyError::TooLarge(4))
        );
        assert_eq!(
            read(HeaderMap::new(), Body::from("1234")).await,
            Ok(Bytes::from("1234"))
        );
        let announced = HeaderMap::from_iter([(CONTENT_LENGTH, "5".parse().unwrap())]);
        assert_eq!(
            read(announced, Body::empty()).await,
            Err(BodyError::TooLarge(4))
        );
        let unknown = HeaderMap::from_iter([(CONTENT_ENCODING, "br".parse().unwrap())]);
        assert_eq!(
            read(unknown, Body::from("1")).await,
            Err(BodyError::UnknownEncoding("br".into()))
        );
    }
}
