//! Jaeger's languages: Thrift and protobuf in, the JSON of its query API out.

pub mod adjust;
pub mod batch;
pub mod duration;
pub mod json;
pub mod proto;
pub mod summary;
pub mod thrift;
