//! The stages of a pipeline, one file each.

pub mod ip;
pub mod json_path;
pub mod pattern;
