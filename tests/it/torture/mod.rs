//! Long runs, and what stands below the process: lost bytes, failing calls, damaged files.
//!
//! `make torture` runs the tests of this module that are ignored otherwise, and writes the
//! report; docs/testing-durability.md says what they do, how long, and what they cannot show.

pub mod below;
mod bugs;
mod disk;
mod errors;
mod flips;
pub mod report;
mod runs;
mod soak;
