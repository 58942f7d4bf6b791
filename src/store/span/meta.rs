//! What is known of a block of spans without reading it.

use crate::model::time::Timestamp;
use crate::store::codec::{Reader, Writer};

/// Facts about one block of one day of arrival.
///
/// On disk: version u8 = 1 | spans | raw bytes | stored bytes | first start zigzag | last −
/// first start | least duration | longest − least duration, as varints.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BlockMeta {
    /// Number within the day, in order of sealing.
    pub number: u32,
    pub spans: u32,
    /// Bytes of the spans as they were held in memory.
    pub raw_bytes: u64,
    /// Bytes of the block as stored.
    pub stored_bytes: u32,
    /// Starts of spans, nanoseconds.
    pub min_start: Timestamp,
    pub max_start: Timestamp,
    /// Nanoseconds.
    pub min_duration: u64,
    pub max_duration: u64,
}

impl BlockMeta {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&[1]);
        w.varint(u64::from(self.spans));
        w.varint(self.raw_bytes);
        w.varint(u64::from(self.stored_bytes));
        w.zigzag(self.min_start);
        w.varint(self.max_start.wrapping_sub(self.min_start) as u64);
        w.varint(self.min_duration);
        w.varint(self.max_duration.wrapping_sub(self.min_duration));
        w.finish()
    }

    pub fn decode(number: u32, bytes: &[u8]) -> Result<Self, String> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != 1 {
            return Err(format!("block meta version {version}, expected 1"));
        }
        let narrow = |n: u64| u32::try_from(n).map_err(|_| "number out of range".to_owned());
        let spans = narrow(r.varint()?)?;
        let raw_bytes = r.varint()?;
        let stored_bytes = narrow(r.varint()?)?;
        let min_start = r.zigzag()?;
        let max_start = min_start.wrapping_add(r.varint()? as i64);
        let min_duration = r.varint()?;
        let max_duration = min_duration.wrapping_add(r.varint()?);
        if r.remaining() > 0 || max_start < min_start || max_duration < min_duration {
            return Err("block meta contradicts itself".into());
        }
        Ok(Self {
            number,
            spans,
            raw_bytes,
            stored_bytes,
            min_start,
            max_start,
            min_duration,
            max_duration,
        })
    }

    /// Memory that it holds, bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_reads_back_and_cut_ones_are_refused() {
        let meta = BlockMeta {
            number: 3,
            spans: 1000,
            raw_bytes: 1 << 40,
            stored_bytes: 77,
            min_start: -5,
            max_start: i64::MAX - 10,
            min_duration: 0,
            max_duration: u64::MAX,
        };
        let bytes = meta.encode();
        assert_eq!(BlockMeta::decode(3, &bytes), Ok(meta));
        for len in 0..bytes.len() {
            assert!(BlockMeta::decode(3, &bytes[..len]).is_err());
        }
    }
}
