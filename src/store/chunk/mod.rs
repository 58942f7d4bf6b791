//! A chunk: the frozen lines of one stream, compressed in columns.

pub mod columns;
pub mod format;
pub mod lines;
pub mod meta;

pub use format::{ChunkReader, compress_frame, decompress_frame, encode};
pub use lines::LineBlock;
pub use meta::{ChunkMeta, StreamSum};
