//! Everything that needs the whole program, in one binary: RocksDB links once.
//!
//! `appliance` runs the program; the other modules are what is asked of it.

mod appliance;
mod crash;
mod loki_cases;
mod senders;
