//! What the process says of itself: its log, its metrics, its build.

pub mod build;
pub mod log;
pub mod metrics;
