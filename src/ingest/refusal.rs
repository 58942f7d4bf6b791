//! Why something sent to us was not taken.

/// What the sender should do about a refusal; `server/error.rs` turns it into a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Wrong, and wrong again when repeated (400).
    Invalid,
    /// A limit of rate or number: repeat later (429).
    Limited,
    /// More than a message may hold (413).
    TooLarge,
    /// We can't take anything now: repeat later (503).
    Unavailable,
}

/// Something refused, one entry or a whole message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// Label value of the counter of refusals, such as `too_old`.
    pub reason: &'static str,
    /// For the sender; what was found, then what to do.
    pub message: String,
}
