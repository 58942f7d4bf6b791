//! Protobuf messages generated from `proto/`, as modules named like their packages.
//!
//! Hot paths decode with `protobuf` straight into the model instead; these are for
//! answers, and for tests to check that reader against.

#![allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
