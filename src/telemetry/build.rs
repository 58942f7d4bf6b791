//! Which build this is.

/// Version from Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The Loki version whose answers we give; Grafana switches features on by it.
pub const LOKI_VERSION: &str = "3.7.6";
