//! Requests that count: what of a chunk or head they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{DeleteRequest, DeleteState, LineTest, Selection};
use crate::model::{Labels, TimeRange, Timestamp};
use crate::store::streams::Stream;

/// A request that readers apply, with what it selects.
pub struct Deletion {
    /// As it was when it came, or when the store was opened.
    pub request: DeleteRequest,
    /// `None`: its text can't be read any more, so it selects nothing.
    selection: Option<Selection>,
    /// Taken back: erasing stops.
    pub(super) cancelled: AtomicBool,
    /// Where the eraser is.
    pub(super) progress: Mutex<Progress>,
    /// Chunks are being rewritten for it.
    pub(super) begun: AtomicBool,
}

/// How far a request has got.
pub(super) struct Progress {
    pub state: DeleteState,
    /// Lines that left the disk.
    pub erased: u64,
}

/// What requests leave of some lines.
pub enum Left {
    All,
    /// No request leaves any: nothing needs to be read.
    Nothing,
    /// These decide line by line.
    Lines(Vec<Arc<Deletion>>),
}

/// All requests that count, at one instant. Cheap to clone.
#[derive(Clone)]
pub struct Deletions(Arc<[Arc<Deletion>]>);

impl Default for Deletions {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Deletion {
    pub fn new(request: DeleteRequest, selection: Option<Selection>) -> Self {
        Self {
            selection,
            cancelled: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                state: request.state,
                erased: request.erased,
            }),
            begun: AtomicBool::new(
                matches!(request.state, DeleteState::Received { done, .. } if done > 0),
            ),
            request,
        }
    }

    /// The request as it is now.
    pub fn now(&self) -> DeleteRequest {
        let progress = self.progress.lock();
        DeleteRequest {
            state: progress.state,
            erased: progress.erased,
            ..self.request.clone()
        }
    }

    /// Whether it may be erasing already, so that taking it back brings back a part only.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether lines of these times, the last of journal record `seq`, may be meant.
    pub fn reaches(&self, seq: u64, min: Timestamp, max: Timestamp) -> bool {
        seq < self.request.before && min <= self.request.end && max >= self.request.start
    }

    /// Whether the stream is one of those that it selects from.
    pub fn matches(&self, stream: &Stream) -> bool {
        stream.tenant == self.request.tenant
            && self
                .selection
                .as_ref()
                .is_some_and(|s| s.matchers.iter().all(|m| m.matches_labels(&stream.labels)))
    }

    /// Whether of streams that match it takes every line of these times.
    pub fn takes_all(&self, min: Timestamp, max: Timestamp) -> bool {
        self.selection.as_ref().is_some_and(|s| s.lines.is_none())
            && self.request.range().covers(min, max)
    }

    pub fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// A test for the lines of a stream that matches; true: deleted.
    pub fn bind<'a>(&'a self, labels: &'a Labels) -> LineTest<'a> {
        let range = self.request.range();
        let Some(selection) = &self.selection else {
            return Box::new(|_, _, _| false);
        };
        match &selection.lines {
            None => Box::new(move |at, _, _| range.contains(at)),
            Some(lines) => {
                let mut test = lines.bind(labels);
                Box::new(move |at, line, metadata| range.contains(at) && test(at, line, metadata))
            }
        }
    }
}

impl Deletions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        self.0.iter()
    }

    pub fn find(&self, tenant: &str, id: &str) -> Option<&Arc<Deletion>> {
        self.iter()
            .find(|d| *d.request.id == *id && *d.request.tenant == *tenant)
    }

    /// These and another.
    pub fn with(&self, deletion: Arc<Deletion>) -> Self {
        Self(self.iter().cloned().chain([deletion]).collect())
    }

    /// These but one.
    pub fn without(&self, id: &str) -> Self {
        let rest = self.iter().filter(|d| *d.request.id != *id);
        Self(rest.cloned().collect())
    }

    /// What is left of a stream's lines between `min` and `max` that lie in `range`; the last
    /// of them came with journal record `seq`.
    pub fn left(
        &self,
        stream: &Stream,
        seq: u64,
        min: Timestamp,
        max: Timestamp,
        range: TimeRange,
    ) -> Left {
        let mut some = Vec::new();
        let (min, max) = (min.max(range.start), max.min(range.end.saturating_sub(1)));
        for deletion in self.iter() {
            if deletion.reaches(seq, min, max) && deletion.matches(stream) {
                if deletion.takes_all(min, max) {
                    return Left::Nothing;
                }
                some.push(deletion.clone());
            }
        }
        if some.is_empty() {
            Left::All
        } else {
            Left::Lines(some)
        }
    }
}

impl FromIterator<Arc<Deletion>> for Deletions {
    fn from_iter<I: IntoIterator<Item = Arc<Deletion>>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

/// One test out of several requests' tests.
pub fn any_of<'a>(deletions: &'a [Arc<Deletion>], labels: &'a Labels) -> LineTest<'a> {
    let mut tests: Vec<LineTest<'a>> = deletions.iter().map(|d| d.bind(labels)).collect();
    Box::new(move |at, line, metadata| tests.iter_mut().any(|test| test(at, line, metadata)))
}
