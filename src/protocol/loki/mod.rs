//! Loki's wire formats: what clients push, and what queries answer.
//!
//! Pure functions between bytes and model; no I/O, no clock, no configuration beyond
//! what is passed in.

pub mod deletes;
pub mod export;
pub mod legacy;
pub mod push;
pub mod response;
pub mod tail;
