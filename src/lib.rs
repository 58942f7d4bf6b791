//! Watchpost: one process that keeps a small cluster's logs and traces.
//!
//! In: pushes and datagrams ([`server`]) and followed files ([`source`]), decoded by
//! [`protocol`] and admitted by [`ingest`]. Kept: [`store`]. Out: [`query`] runs what
//! [`logql`] means. `docs/architecture.md` is the map; this is the reading order.

pub mod model;
pub mod runtime;
pub mod telemetry;

pub mod ingest;
pub mod protocol;
pub mod store;

pub mod logql;
pub mod query;

pub mod server;
pub mod source;

pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
