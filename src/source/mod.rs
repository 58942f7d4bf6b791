//! What we go and read by ourselves, as opposed to what somebody sends.

pub mod files;
