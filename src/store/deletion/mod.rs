//! Delete requests: lines that readers no longer see, and that leave the disk later.
//!
//! A request is kept as text; what it selects say the upper layers, who bring [`ReadSelection`]
//! along. Its way:
//!
//! ```text
//! received: in `meta`, synced → readers leave its lines out → heads with such lines are sealed
//! after the cancel period: chunks rewritten or removed, day by day → days flushed and compacted
//! processed: in `meta`, synced → readers need no filter any more
//! ```
//!
//! E1. A request selects only lines that entered the heads before it came: those of journal
//!     records below [`DeleteRequest::before`]. No chunk mixes such lines with later ones that
//!     the request would select: the writer seals the heads at that record, in replay as well.
//! E2. Until a request is marked as processed every reader applies it, so a crash between any
//!     two steps shows no line again; applying it twice changes nothing.
//! E3. It is marked only after every chunk with selected lines was rewritten and its day
//!     flushed. Replay skips what is sealed, so the journal brings no line back.
//! E4. A day is noted in `meta` before its first chunk is rewritten, and the note is removed
//!     once compaction has dropped the old bytes: a crash in between is made up for at the
//!     next start.
//! E5. A removed chunk leaves its number behind (an empty meta): numbers are never used twice,
//!     which the word index relies on.

mod active;
pub mod eraser;
pub mod log;
mod request;

pub use active::{Deletion, Deletions, Left, any_of};
pub use log::{DeleteError, DeletionLog};
pub use request::{DeleteRequest, DeleteState};

use std::sync::Arc;
use std::time::Duration;

use crate::model::need::Need;
use crate::model::{Labels, Matcher, Metadata, Timestamp};

/// What a request selects, as the upper layers read its text.
pub struct Selection {
    pub matchers: Vec<Matcher>,
    /// Which lines of those streams; all for `None`.
    pub lines: Option<Box<dyn SelectLines>>,
    /// What a chunk must have to hold such a line.
    pub need: Need,
}

/// Decides line by line.
pub trait SelectLines: Send + Sync {
    /// A test for the lines of one stream; true: selected.
    fn bind<'a>(&'a self, labels: &'a Labels) -> LineTest<'a>;
}

/// Time, text and stored metadata of a line; true when the line is meant.
pub type LineTest<'a> = Box<dyn FnMut(Timestamp, &[u8], Option<&Metadata>) -> bool + 'a>;

/// Reads the text of a request.
pub type ReadSelection = Arc<dyn Fn(&str) -> Result<Selection, String> + Send + Sync>;

/// How requests are treated.
#[derive(Clone)]
pub struct DeletionOptions {
    pub read: ReadSelection,
    /// How long a request can be taken back before its lines leave the disk.
    pub cancel_period: Duration,
    /// Whether lines leave the disk at all, or are only left out of answers.
    pub erase: bool,
}

impl Default for DeletionOptions {
    fn default() -> Self {
        Self {
            read: Arc::new(|_| Err("nobody here reads delete requests".into())),
            cancel_period: Duration::from_secs(24 * 3600),
            erase: true,
        }
    }
}

#[cfg(test)]
mod tests;
