//! Watchpost: one process that keeps a small cluster's logs and traces.
//!
//! Modules in reading order; `docs/architecture.md` is the map.

pub mod model;
pub mod runtime;
pub mod telemetry;

pub mod store;
pub mod logql;
pub mod protocol;
pub mod ingest;
