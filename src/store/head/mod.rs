//! What is open, in memory: lines and spans that the journal holds and no partition yet.

pub mod logs;
pub mod recent;
pub mod spans;

/// Place in the journal: record, and entry within it. Entries enter heads in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Through {
    pub seq: u64,
    pub entry: u32,
}

impl Through {
    /// `seq` u64 and `entry` u32, big-endian.
    pub fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..].copy_from_slice(&self.entry.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            seq: u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?),
            entry: u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?),
        })
    }
}
