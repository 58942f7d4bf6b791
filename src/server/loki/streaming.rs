//! Log answers that leave before they are complete.
//!
//! An answer that is there soon leaves whole: with its length, its streams sorted by labels,
//! or an error with its status. Of a query that takes longer the body begins with the stream
//! of the first line, as soon as that line is certain; more lines of it follow as they become
//! certain, then the other streams, sorted by labels, then the cost.
//!
//! S1. A body that was begun ends as a complete answer does, or it is broken off: who reads
//!     it never takes a part for the whole. Broken answers are counted and logged.
//! S2. Nothing waits for a slow reader but its own answer: the query goes on, and gives its
//!     turn back when it is done.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::LokiMetrics;
use super::query::{frame, shown};
use crate::model::Labels;
use crate::protocol::loki::response::Streams;
use crate::query::answer::{AnswerEntry, AnswerStream, LogAnswer, QueryError};
use crate::query::certain::Growing;
use crate::server::error::LokiError;

/// An answer that takes longer begins before it is complete. Nobody notices less than this;
/// nearly all queries end within it, and keep their status and their order of streams.
const GRACE: Duration = Duration::from_millis(200);
/// Bytes of a piece, about: some thousand are worth a frame, and a slow reader holds two.
const PIECE_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is gone: its lines take memory from others.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How an answer leaves.
pub enum Soon {
    Complete(LogAnswer),
    Begun(Response),
}

/// Waits until the answer is complete, or late and begun.
pub async fn soon(
    growing: Growing,
    categorize: bool,
    flags: &[String],
    metrics: &LokiMetrics,
) -> Result<Soon, LokiError> {
    let Growing {
        certain,
        mut answer,
    } = growing;
    let late = async {
        tokio::time::sleep(GRACE).await;
        certain.first().await
    };
    let first = tokio::select! {
        biased;
        done = &mut answer => return Ok(Soon::Complete(done?)),
        first = late => first,
    };
    let (sender, receiver) = mpsc::channel(1);
    let writer = Writer {
        out: Streams::begin(&[], flags),
        pieces: sender,
        categorize,
    };
    let metrics = metrics.clone();
    tokio::spawn(async move {
        let growing = Growing { certain, answer };
        let reason = match writer.write(growing, first).await {
            Ok(()) | Err(Broken::Left) => return,
            Err(Broken::Stuck) => "stuck",
            Err(Broken::Failed(error)) => {
                tracing::warn!("a log answer that had begun was broken off: {error}");
                "failed"
            }
        };
        metrics.broken.get_or_create(&[("reason", reason)]).inc();
    });
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    let body = Body::from_stream(pieces(receiver));
    Ok(Soon::Begun(
        (StatusCode::OK, [(header::CONTENT_TYPE, json)], body).into_response(),
    ))
}

/// A part of a body.
enum Piece {
    More(Vec<u8>),
    Last(Vec<u8>),
}

/// The body: an error when no last piece comes (S1).
fn pieces(
    receiver: mpsc::Receiver<Piece>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    let pieces = futures::stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        Some(match receiver.recv().await {
            Some(Piece::More(bytes)) => (Ok(bytes.into()), Some(receiver)),
            Some(Piece::Last(bytes)) => (Ok(bytes.into()), None),
            None => (Err(io::Error::other("the answer was broken off")), None),
        })
    });
    // Who compresses it asks once more at the end.
    pieces.fuse()
}

/// Why an answer has no end.
enum Broken {
    /// Its client has gone away.
    Left,
    Stuck,
    Failed(String),
}

struct Writer {
    out: Streams,
    pieces: mpsc::Sender<Piece>,
    categorize: bool,
}

impl Writer {
    async fn write(mut self, growing: Growing, first: Labels) -> Result<(), Broken> {
        let Growing { certain, answer } = growing;
        // A task of its own (S2), that ends with this one.
        let mut query: JoinSet<Result<LogAnswer, QueryError>> = JoinSet::new();
        query.spawn(answer);
        self.out.stream(&first);
        let mut told = 0;
        let answer = loop {
            tokio::select! {
                biased;
                () = self.pieces.closed() => return Err(Broken::Left),
                done = query.join_next() => break match done {
                    Some(Ok(Ok(answer))) => answer,
                    Some(Ok(Err(error))) => return Err(Broken::Failed(error.to_string())),
                    Some(Err(error)) => return Err(Broken::Failed(error.to_string())),
                    None => return Err(Broken::Failed("no query runs".into())),
                },
                () = certain.beyond(told) => {
                    let lines = certain.some(told, PIECE_BYTES);
                    told += lines.len();
                    for line in &lines {
                        self.line(line).await?;
                    }
                    self.send().await?;
                }
            }
        };
        let is_first = |stream: &&AnswerStream| stream.labels == first;
        if let Some(stream) = answer.streams.iter().find(is_first) {
            for line in stream.entries.iter().skip(told) {
                self.line(line).await?;
            }
        }
        for stream in answer.streams.iter().filter(|stream| !is_first(stream)) {
            self.out.stream(&stream.labels);
            for line in &stream.entries {
                self.line(line).await?;
            }
        }
        let warnings = answer.stats.warnings();
        let end = self.out.end(&frame(&answer.stats, &[]).stats, &warnings);
        send(&self.pieces, Piece::Last(end)).await
    }

    async fn line(&mut self, entry: &AnswerEntry) -> Result<(), Broken> {
        self.out.line(shown(entry, self.categorize));
        if self.out.len() >= PIECE_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Broken> {
        match self.out.take() {
            bytes if bytes.is_empty() => Ok(()),
            bytes => send(&self.pieces, Piece::More(bytes)).await,
        }
    }
}

async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Broken> {
    match tokio::time::timeout(STUCK_AFTER, pieces.send(piece)).await {
        Ok(sent) => sent.map_err(|_| Broken::Left),
        Err(_) => Err(Broken::Stuck),
    }
}
