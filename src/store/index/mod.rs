//! What may be where: words in tantivy, grams in filters. tantivy is used here only.
//!
//! I1. The index only prunes: whatever it says, the scan decides. A chunk that it does not
//!     know yet counts as a candidate.
//! I2. tantivy lags behind RocksDB and never runs ahead: its commit carries the number below
//!     which every chunk is indexed, and those chunks were flushed before.
//! I3. A missing or broken index is the same as one that knows nothing: it is rebuilt from
//!     the chunks.

pub mod analyze;
pub mod days;
pub mod filter;
pub mod needle;

pub use analyze::{Analyzer, ChunkFlags};
pub use days::{DayIndex, NumberSet, WRITER_HEAP};
pub use filter::FilterView;
pub use needle::{NeedlePlan, WordDemand, WordPlan};
