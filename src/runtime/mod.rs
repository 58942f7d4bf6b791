//! What every part runs on and no part owns: clock, CPU pool, memory permits, heap, shutdown.
//!
//! No domain words here.

pub mod clock;
pub mod heap;
pub mod permits;
pub mod pool;
pub mod shutdown;
