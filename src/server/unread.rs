//! Refusals reach senders that are still writing.
//!
//! A connection that is closed with unread bytes in it is reset, and the answer that was on
//! its way is lost with it: the sender of a body that is too large would see a broken
//! connection and send the same again. So what a handler leaves unread is read over, within
//! bounds, before its refusal is sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

/// A sender of more than this, or one slower, loses its connection.
const MOST_BYTES: usize = 256 << 20;
const WITHIN: Duration = Duration::from_secs(10);

/// What a handler may leave of a request's body. `None`: nothing that would do harm.
pub struct Watched {
    left: oneshot::Receiver<Left>,
    waits_to_be_asked: bool,
}

/// Has a request's body come back when its handler leaves some of it.
pub fn watch(request: Request) -> (Request, Option<Watched>) {
    // Streams of HTTP/2 end one by one, without harm to the connection.
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request, None);
    }
    let (parts, body) = request.into_parts();
    let waits_to_be_asked = parts.headers.contains_key(header::EXPECT);
    let (give_back, left) = oneshot::channel();
    let body = Body::new(Returned {
        body: Some(body),
        give_back: Some(give_back),
        begun: false,
    });
    let watched = Watched {
        left,
        waits_to_be_asked,
    };
    (Request::from_parts(parts, body), Some(watched))
}

/// Reads over what the handler left of a request's body when it answers with an error.
pub async fn read_over(answered: StatusCode, watched: Option<Watched>) {
    if let Some(watched) = watched
        && (answered.is_client_error() || answered.is_server_error())
        && let Ok(Left { body, begun }) = watched.left.await
        // Such a sender sends nothing until somebody reads; it now won't.
        && (begun || !watched.waits_to_be_asked)
    {
        let _ = tokio::time::timeout(WITHIN, discard(body)).await;
    }
}

/// Both, as a middleware.
#[cfg(test)]
pub async fn around(request: Request, next: axum::middleware::Next) -> axum::response::Response {
    let (request, watched) = watch(request);
    let response = next.run(request).await;
    read_over(response.status(), watched).await;
    response
}

async fn discard(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_BYTES {
            return;
        }
    }
}

/// What a handler did not read.
struct Left {
    body: Body,
    /// Whether it began to.
    begun: bool,
}

/// A body that goes back when it is dropped before its end.
struct Returned {
    body: Option<Body>,
    give_back: Option<oneshot::Sender<Left>>,
    begun: bool,
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        let (Some(body), Some(give_back)) = (self.body.take(), self.give_back.take()) else {
            return;
        };
        if !body.is_end_stream() {
            // The connection may be gone, and with it who waits.
            let _ = give_back.send(Left {
                body,
                begun: self.begun,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// More than the buffers of both ends of a connection hold.
    const LARGE: usize = 64 << 20;

    async fn refused_at_once() -> StatusCode {
        StatusCode::PAYLOAD_TOO_LARGE
    }

    async fn refused_after_a_part(body: Body) -> StatusCode {
        match axum::body::to_bytes(body, 1000).await {
            Ok(_) => StatusCode::NO_CONTENT,
            Err(_) => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    async fn connect() -> TcpStream {
        let router = Router::new()
            .route("/at-once", post(refused_at_once))
            .route("/part", post(refused_after_a_part))
            .layer(from_fn(around));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        TcpStream::connect(address).await.expect("connected")
    }

    async fn status(connection: &mut TcpStream) -> String {
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_sender_that_writes_all_before_it_reads_sees_the_refusal() {
        for path in ["/at-once", "/part"] {
            let mut connection = connect().await;
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n");
            connection
                .write_all(head.as_bytes())
                .await
                .expect("written");
            let piece = vec![b' '; 1 << 20];
            for _ in 0..LARGE >> 20 {
                connection.write_all(&piece).await.expect("taken");
            }
            assert_eq!(status(&mut connection).await, "HTTP/1.1 413", "{path}");
        }
    }

    #[tokio::test]
    async fn a_sender_that_waits_to_be_asked_is_refused_without_being_asked() {
        let mut connection = connect().await;
        let head = format!(
            "POST /at-once HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {LARGE}\r\n\r\n"
        );
        connection
            .write_all(head.as_bytes())
            .await
            .expect("written");
        assert_eq!(status(&mut connection).await, "HTTP/1.1 413");
    }

    #[tokio::test]
    async fn a_body_that_is_taken_is_not_touched() {
        let mut connection = connect().await;
        let request = "POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        for _ in 0..2 {
            connection
                .write_all(request.as_bytes())
                .await
                .expect("written");
            assert_eq!(status(&mut connection).await, "HTTP/1.1 204");
            let mut rest = [0; 200];
            let _ = connection.read(&mut rest).await.expect("the rest");
        }
    }
}
