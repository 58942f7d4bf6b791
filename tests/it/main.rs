//! Everything that needs the whole program, in one binary: RocksDB links once.
//!
//! `appliance` runs the program; the other modules are what is asked of it.

mod appliance;
mod bad_input;
mod config;
mod crash;
mod files;
mod kept_results;
mod loki_cases;
mod queries;
mod senders;
mod tidy;
mod traces;
