//! The journal: what is acknowledged but not yet sealed, as append-only segment files.
//!
//! J1. A batch is acknowledged only after its record is synced (durability `sync`), or
//!     written (durability `flush`).
//! J2. A segment is removed only when all that it holds is in synced partitions.
//! J3. A torn record ends replay in the last segment and is cut off at opening; elsewhere
//!     it is corruption: replay goes on at the next whole record. In the last segment it is that
//!     as well when records behind it came seconds later: what they stand behind was synced.
//! J5. What an opening finds is synced before anything new is: a later power cut takes nothing
//!     from before what it leaves.
//! J4. Sequence numbers grow by one from record to record. At each opening some are left out,
//!     so that none is ever given out twice, not even after the loss of an unsynced end.
//! J6. Behind the last record of the open segment may stand zeros, written for small records to
//!     come, so that their syncs need no new length. They are cut off when the segment is closed;
//!     those that a kill leaves are neither damage nor a torn record.

pub mod append;
pub mod record;
pub mod replay;
pub mod resync;

pub use append::Journal;
pub use record::{Body, Record, RecordHeader, RecordKind};
pub use replay::Replay;
