//! Templates that lines follow, such as `user <_> logged in from <_>`, and how often each came.
//!
//! A template is what LogQL's `|>` takes: literals, and `<_>` for what varies. Lines are cut
//! into words (words.rs), lines of one shape with most words in common share a template
//! (miner.rs). Sealing mines a sample of each chunk's lines and keeps what it found beside
//! the chunk (record.rs), so that it lives and dies with the chunk; asking adds up the
//! records, and mines what is not sealed yet.
//!
//! M1. The counts of a record add up to the lines that its sample stands for: all lines of
//!     the chunk, but for those whose text is not UTF-8 and those of the rarest templates
//!     beyond [`record::MAX_PATTERNS`].
//! M2. A template is taken by LogQL: captures have no name, and none follows another at once.

mod miner;
mod record;
mod words;

pub use miner::Miner;
pub use record::{Found, SAMPLE, decode, level_of, mine, sample};

use crate::model::Timestamp;
use crate::model::time::SECOND;

/// Counts are kept by slots of so long, as Loki's are.
pub const SLOT: i64 = 10 * SECOND;

/// The slot that an instant belongs to.
pub fn slot_of(at: Timestamp) -> i64 {
    at.div_euclid(SLOT)
}
