//! Everything that needs the whole program, in one binary: RocksDB links once.
//!
//! `appliance` runs the program; the other modules are what is asked of it.

mod appliance;
mod backup;
mod bad_input;
mod bad_queries;
mod bad_spans;
mod config;
mod crash;
mod damage;
mod delete;
mod drilldown;
mod files;
mod fixture;
mod grafana_jaeger;
mod jaeger_grpc;
mod jaeger_semantics;
mod kept_results;
mod large_traces;
mod loki_cases;
mod naive;
mod oracle;
mod otlp_logs;
mod queries;
mod rewriting;
mod sampling;
mod senders;
mod service_metrics;
mod spans;
mod streaming;
mod tail;
mod tidy;
mod torture;
mod traces;
mod ui;
