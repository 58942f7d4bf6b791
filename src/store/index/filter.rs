//! The gram filter: which grams of ids and numbers a chunk holds.
//!
//! Knows bits and their stored form; which grams go in is [`super::analyze`]'s to decide,
//! which must be there [`super::needle`]'s. A filter may say yes wrongly, never no.

/// Size of the map that grams are collected in, as a power of two of bits.
pub const SCRATCH_LOG2: u32 = 18;
/// Filters are not folded below this, as a power of two of bits.
const MIN_LOG2: u32 = 6;
/// A filter is halved while at most this share of its bits would be set.
const MAX_DENSITY: f64 = 0.52;
/// First byte of a stored filter.
const VERSION: u8 = 1;
const HEADER: usize = 2;

/// The place of a gram of five bytes (in the low 40 bits, first byte lowest) in the scratch map.
#[inline]
pub fn gram_bit(gram: u64) -> u32 {
    (gram.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SCRATCH_LOG2)) as u32
}

/// Order of the eight-byte grams of an id run; the least of a window is its minimizer.
/// One-to-one, so that equal ranks mean equal grams.
#[inline]
pub fn id_rank(gram: u64) -> u64 {
    gram.wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Bits of a minimizer. A 32-digit id has four or five minimizers: with one bit each, one chunk
/// in twenty is a candidate for an id that it does not hold, with three each, one in ten
/// thousand. Chunks hold few minimizers beside their grams, so the filters hardly grow.
const ID_BITS: usize = 3;

/// The places of a minimizer, by its rank, in the scratch map. Mixed again, since a minimizer's
/// rank is small.
#[inline]
pub fn id_bits(rank: u64) -> [u32; ID_BITS] {
    let mixed = (rank ^ (rank >> 32)).wrapping_mul(0xA24B_AED4_963E_E407);
    let bit = |shift: u32| ((mixed >> shift) & ((1 << SCRATCH_LOG2) - 1)) as u32;
    [
        bit(64 - SCRATCH_LOG2),
        bit(64 - 2 * SCRATCH_LOG2),
        bit(64 - 3 * SCRATCH_LOG2),
    ]
}

/// Calls `found` with the rank of every minimizer of an id run: of every nine neighbouring
/// eight-byte grams the least. Runs of fewer than 16 bytes have none.
#[inline]
pub fn minimizers(run: &[u8], mut found: impl FnMut(u64)) {
    const GRAM: usize = 8;
    const WINDOW: usize = 9;
    let rank = |gram: &[u8]| id_rank(u64::from_le_bytes(gram.try_into().unwrap_or_default()));
    let mut least = u64::MAX;
    let mut least_at = 0;
    for window in 0..(run.len() + 2).saturating_sub(GRAM + WINDOW) {
        let grams = &run[window..window + GRAM + WINDOW - 1];
        if window > 0 && least_at >= window {
            // The least is still in the window: only the newest gram can beat it.
            let newest = rank(&grams[WINDOW - 1..]);
            if newest < least {
                (least, least_at) = (newest, window + WINDOW - 1);
                found(least);
            }
            continue;
        }
        (least, least_at) = (rank(&grams[..GRAM]), window);
        for i in 1..WINDOW {
            let next = rank(&grams[i..i + GRAM]);
            if next < least {
                (least, least_at) = (next, window + i);
            }
        }
        found(least);
    }
}

/// Collects the bits of one chunk at a time.
#[derive(Debug)]
pub struct FilterBuilder {
    bits: Box<[u64]>,
}

impl Default for FilterBuilder {
    fn default() -> Self {
        Self {
            bits: vec![0; 1 << (SCRATCH_LOG2 - 6)].into_boxed_slice(),
        }
    }
}

impl FilterBuilder {
    /// Sets a bit given by [`gram_bit`] or [`id_bits`].
    #[inline]
    pub fn set(&mut self, bit: u32) {
        let bit = bit as usize & ((1 << SCRATCH_LOG2) - 1);
        self.bits[bit >> 6] |= 1 << (bit & 63);
    }

    /// Writes the filter in its stored form (see [`FilterView`]) over `out` and starts anew.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let mut words = self.bits.len();
        let mut log2 = SCRATCH_LOG2;
        while log2 > MIN_LOG2 {
            let half = words / 2;
            let (low, high) = self.bits[..words].split_at(half);
            let set: u32 = low
                .iter()
                .zip(high)
                .map(|(l, h)| (l | h).count_ones())
                .sum();
            if f64::from(set) > MAX_DENSITY * (half * 64) as f64 {
                break;
            }
            let (low, high) = self.bits[..words].split_at_mut(half);
            for (l, h) in low.iter_mut().zip(high) {
                *l |= *h;
            }
            words = half;
            log2 -= 1;
        }
        out.clear();
        out.reserve(HEADER + words * 8);
        out.extend([VERSION, log2 as u8]);
        for word in &self.bits[..words] {
            out.extend(word.to_le_bytes());
        }
        self.bits.fill(0);
    }
}

/// Why bytes are not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("gram filter: version {0} is not known to this program")]
    Version(u8),
    #[error("gram filter: {0} bytes do not fit its header")]
    Size(usize),
}

/// A stored filter.
///
/// | Bytes | |
/// |---|---|
/// | 1 | version, 1 |
/// | 1 | n: the filter has 2^n bits, 6 ≤ n ≤ 18 |
/// | 2^n / 8 | bits, lowest first; a gram's bit of 18 is looked up modulo 2^n |
#[derive(Clone, Copy, Debug)]
pub struct FilterView<'a> {
    bits: &'a [u8],
    mask: u32,
}

impl<'a> FilterView<'a> {
    /// Checks and borrows a stored filter.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FilterError> {
        let size = FilterError::Size(bytes.len());
        let &[version, log2, ref bits @ ..] = bytes else {
            return Err(size);
        };
        if version != VERSION {
            return Err(FilterError::Version(version));
        }
        let log2 = u32::from(log2);
        if !(MIN_LOG2..=SCRATCH_LOG2).contains(&log2) || bits.len() != 1 << (log2 - 3) {
            return Err(size);
        }
        Ok(Self {
            bits,
            mask: (1 << log2) - 1,
        })
    }

    /// Whether a bit of the scratch map may have been set.
    #[inline]
    pub fn has(&self, bit: u32) -> bool {
        let bit = bit & self.mask;
        self.bits
            .get(bit as usize >> 3)
            .is_none_or(|byte| byte >> (bit & 7) & 1 == 1)
    }

    /// Share of the bits that are set.
    pub fn density(&self) -> f64 {
        let set: u32 = self.bits.iter().map(|b| b.count_ones()).sum();
        f64::from(set) / (self.bits.len() * 8) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_folded_filter_has_every_bit_that_was_set(
            bits in prop::collection::vec(0u32..1 << SCRATCH_LOG2, 0..9000),
        ) {
            let mut builder = FilterBuilder::default();
            let mut out = vec![9; 9];
            for round in 0..2 {
                bits.iter().skip(round).for_each(|&b| builder.set(b));
                builder.finish(&mut out);
                let view = FilterView::parse(&out).unwrap();
                prop_assert!(bits.iter().skip(round).all(|&b| view.has(b)));
                prop_assert!(out.len() <= HEADER + 8.max(bits.len() / 2));
                prop_assert!(view.density() <= MAX_DENSITY);
            }
        }

        #[test]
        fn bytes_that_are_no_filter_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(view) = FilterView::parse(&bytes) {
                prop_assert_eq!(bytes.len(), HEADER + (view.mask as usize + 1) / 8);
                view.has(u32::MAX);
            }
        }

        #[test]
        fn minimizers_are_the_least_of_every_window(run in "[0-9a-f-]{0,90}") {
            let ranks: Vec<u64> = run.as_bytes().windows(8)
                .map(|w| id_rank(u64::from_le_bytes(w.try_into().unwrap()))).collect();
            let mut naive: Vec<u64> = ranks.windows(9).map(|w| *w.iter().min().unwrap()).collect();
            let mut fast = Vec::new();
            minimizers(run.as_bytes(), |rank| fast.push(rank));
            naive.sort_unstable();
            naive.dedup();
            fast.sort_unstable();
            fast.dedup();
            prop_assert_eq!(fast, naive);
        }
    }

    #[test]
    fn an_absent_gram_is_mostly_denied() {
        let mut builder = FilterBuilder::default();
        let gram = |n: u64| {
            let text = format!("{n:05}");
            text.bytes()
                .rev()
                .fold(0, |gram, byte| gram << 8 | u64::from(byte))
        };
        (0..5000).for_each(|n| builder.set(gram_bit(gram(n * 7))));
        let mut out = Vec::new();
        builder.finish(&mut out);
        let view = FilterView::parse(&out).unwrap();
        let wrong = (0..5000)
            .filter(|n| view.has(gram_bit(gram(n * 7 + 3))))
            .count();
        assert!(wrong < 3000, "{wrong} of 5000");
    }
}
