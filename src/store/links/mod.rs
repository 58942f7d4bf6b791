//! Who called whom: edges between services, found by linking spans to their parents.
//!
//! Parent and child lie in different blocks as a rule, and come in any order. So blocks are
//! linked in two steps. First a block is *noted*: its spans enter a table of the newest
//! ([`table::Recent`]). A while later it is *linked*: each of its children whose parent is in
//! the table is a call. A parent that is not there is looked for in older blocks by the trace-id
//! keys, within a share of the time; a child whose parent is nowhere becomes an orphan, which
//! later spans are compared with when their own block is linked. What linking found is stored
//! under the number of the last block linked, in one write ([`record::LinkRecord`]).
//!
//! G1. A child is a call once: when its block is linked, or as an orphan when its parent's
//!     block is. What was stored is never found again: a day goes on behind its last record.
//! G2. Calls inside a service are none. Exact repetitions of a span are one span, where both
//!     are among the newest or one is not linked yet.
//! G3. A server's span with the id of a client's span in the trace (as Zipkin has it) is called
//!     by the client, and is the parent of who names that id.
//! G4. A record that says that orphans of other days have been found is written only when those
//!     days are flushed, so that no crash brings the orphans back.
//! G5. What was noted and not linked yet, or not even sealed, is linked for each query anew and
//!     not kept.
//! G6. Memory is bounded: the table, the orphans and the blocks that wait.

mod linker;
pub mod record;
pub mod table;

pub use linker::Linker;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::trace::{SpanId, TraceId};

/// A span's name in the tables. On disk, so it never changes.
pub fn key_of(trace: TraceId, span: SpanId) -> u64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&trace.0.to_le_bytes());
    bytes[16..].copy_from_slice(&span.0.to_le_bytes());
    xxh3_64(&bytes)
}
