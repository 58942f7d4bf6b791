//! Traces written into the JSON of an answer: in one go when they are small, piece by piece
//! when they are not.
//!
//! What is shown of a span depends on the others of its trace ([`adjust`]). A trace of which
//! more than a few pieces come is therefore read twice: first to see what is to be adjusted, of
//! which a few numbers a span are kept, then to write it. Once writing has begun, a failure can
//! only be told by breaking the answer off.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::model::trace::{Trace, TraceId};
use crate::protocol::jaeger::adjust::{Adjustments, Changed, Observer, adjust};
use crate::protocol::jaeger::json::{ErrorEntry, Layout, Processes, TracesWriter};
use crate::query::answer::QueryError;
use crate::server::spans::{TraceParts, TraceReader};

use super::query_http::{Failure, NO_TRACE};

/// Pieces that are held; a trace of more is read twice.
const HELD_PIECES: usize = 4;
/// Text that is held before it goes out.
const CHUNK_BYTES: usize = 1 << 20;
/// What the distinct processes of one trace may take: they stand behind its spans, so they are
/// kept until the end. Booked with the pieces of the first reading.
const PROCESS_BYTES: usize = 4 << 20;

/// An answer with traces, as it is written.
pub struct TracesAnswer<R> {
    reader: Arc<R>,
    writer: TracesWriter,
    /// `None`: raw, nothing is adjusted.
    max_skew: Option<u64>,
    /// What is still to be written.
    ids: VecDeque<TraceId>,
    large: Option<Large>,
    missing: Missing,
    errors: Vec<ErrorEntry>,
}

/// What becomes of ids without a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The answer is an error.
    Fails,
    /// They stand among the errors of the answer.
    Told,
    /// They were found a moment ago, so retention was quicker.
    LeftOut,
}

/// A trace of which a part is written.
struct Large {
    parts: TraceParts,
    adjusted: Option<Adjusted>,
}

struct Adjusted {
    adjustments: Adjustments,
    left: usize,
    /// At its end; what it booked is for the adjustments.
    _read: TraceParts,
}

impl<R: TraceReader> TracesAnswer<R> {
    pub fn new(
        reader: Arc<R>,
        ids: Vec<TraceId>,
        max_skew: Option<u64>,
        missing: Missing,
        layout: Layout,
    ) -> Self {
        Self {
            reader,
            writer: TracesWriter::new(layout),
            max_skew,
            ids: ids.into(),
            large: None,
            missing,
            errors: Vec::new(),
        }
    }

    /// The answer, maybe only begun.
    pub async fn respond(mut self) -> Result<Response, Failure> {
        loop {
            if !self.write_some().await? {
                return Ok(json(self.writer.finish(&self.errors)));
            }
            if self.writer.len() >= CHUNK_BYTES {
                break;
            }
        }
        let rest = stream::try_unfold(Some(self), |answer| async move {
            let Some(mut answer): Option<Self> = answer else {
                return Ok(None);
            };
            while answer.writer.len() < CHUNK_BYTES {
                let more = answer.write_some().await.inspect_err(|failure| {
                    tracing::warn!("an answer with traces was broken off: {failure}");
                })?;
                if !more {
                    let text = answer.writer.finish(&answer.errors);
                    return Ok::<_, Failure>(Some((text, None)));
                }
            }
            Ok(Some((answer.writer.take(), Some(answer))))
        });
        Ok(json(Body::from_stream(rest)))
    }

    /// Writes a piece; false when all is written.
    async fn write_some(&mut self) -> Result<bool, Failure> {
        match self.large.take() {
            Some(large) => self.go_on(large).await?,
            None => match self.ids.pop_front() {
                Some(id) => self.begin(id).await?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Writes a small trace, or the first of a large one.
    async fn begin(&mut self, id: TraceId) -> Result<(), Failure> {
        let mut parts = self.reader.trace_parts(id);
        let mut spans = Vec::new();
        for _ in 0..HELD_PIECES {
            match parts.next().await {
                Some(part) => spans.extend(part?),
                None => {
                    drop(parts);
                    if spans.is_empty() {
                        return self.miss(id);
                    }
                    spans.sort_by_key(|span| span.start);
                    let mut trace = Trace {
                        id,
                        spans,
                        warnings: Vec::new(),
                    };
                    if let Some(max_skew) = self.max_skew {
                        adjust(&mut trace, max_skew);
                    }
                    self.writer.begin_trace(id);
                    trace.spans.iter().for_each(|span| self.writer.span(span));
                    self.writer.end_trace(&trace.warnings);
                    return Ok(());
                }
            }
        }
        let adjusted = match self.max_skew {
            None => {
                self.writer.begin_trace(id);
                spans.iter().for_each(|span| self.writer.span(span));
                None
            }
            Some(max_skew) => {
                let mut observer = Observer::default();
                let mut processes = Processes::default();
                loop {
                    for span in spans.drain(..) {
                        observer.observe(&span);
                        processes.index(&span.process);
                    }
                    bound(&processes)?;
                    match parts.next().await {
                        Some(part) => spans = part?,
                        None => break,
                    }
                }
                self.writer.begin_trace(id);
                let left = observer.len();
                let adjusted = Adjusted {
                    adjustments: observer.finish(max_skew),
                    left,
                    _read: std::mem::replace(&mut parts, self.reader.trace_parts(id)),
                };
                Some(adjusted)
            }
        };
        self.large = Some(Large { parts, adjusted });
        Ok(())
    }

    async fn go_on(&mut self, mut large: Large) -> Result<(), Failure> {
        let changed = |error: Changed| QueryError::Busy(error.to_string());
        let part = large.parts.next().await.transpose()?;
        let more = part.is_some();
        for mut span in part.into_iter().flatten() {
            if let Some(adjusted) = &mut large.adjusted {
                if adjusted.left == 0 {
                    // It came meanwhile.
                    break;
                }
                adjusted.adjustments.apply(&mut span).map_err(changed)?;
                adjusted.left -= 1;
            }
            self.writer.span(&span);
        }
        bound(self.writer.processes())?;
        let whole = match &large.adjusted {
            Some(adjusted) if adjusted.left == 0 => true,
            Some(_) if !more => return Err(changed(Changed).into()),
            Some(_) => false,
            None => !more,
        };
        if whole {
            self.writer.end_trace(&[]);
        } else {
            self.large = Some(large);
        }
        Ok(())
    }

    fn miss(&mut self, id: TraceId) -> Result<(), Failure> {
        match self.missing {
            Missing::Fails => return Err(Failure::new(StatusCode::NOT_FOUND, NO_TRACE)),
            Missing::Told => self.errors.push(ErrorEntry {
                code: None,
                message: NO_TRACE.into(),
                trace_id: Some(id.to_string()),
            }),
            Missing::LeftOut => {}
        }
        Ok(())
    }
}

fn bound(processes: &Processes) -> Result<(), Failure> {
    if processes.bytes() <= PROCESS_BYTES {
        return Ok(());
    }
    let error = format!(
        "the trace's processes differ too much: more than {} MiB of service names and process tags",
        PROCESS_BYTES >> 20
    );
    Err(QueryError::TooMuch(error).into())
}

fn json(body: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
