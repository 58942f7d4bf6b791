//! The words of the domain: what every layer means by a stream, a line, a span, a sample.
//!
//! No I/O, no serde, no async, nothing of ours. Where two protocols meet, they meet here.

pub mod labels;
pub mod level;
pub mod log;
pub mod memo;
pub mod need;
pub mod search;
pub mod series;
pub mod service_metrics;
pub mod time;
pub mod trace;

pub use labels::{Labels, LabelsBuilder, MatchOp, Matcher, StreamId};
pub use log::{LogBatch, LogEntry, Metadata, StreamEntries};
pub use time::{Day, Direction, TimeRange, Timestamp};
