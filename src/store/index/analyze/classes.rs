//! Byte classes of a text as bit masks, 64 bytes at a time, with the text lower-cased on the way.
//!
//! The one place with vector code: [`split`] uses SSE2 where there is (every x86-64 has it),
//! else [`split_scalar`]. Both do the same (a property test says so).

/// Letters `a`–`z`, `_` and every byte from 0x80: what words are made of.
const LETTER: u8 = 1;
/// `0`–`9`.
const DIGIT: u8 = 2;
/// `0`–`9`, `a`–`f`, `-`: what ids are made of.
const HEX: u8 = 4;
/// `.` and `:`, which join letters and digits in grams.
const JOIN: u8 = 8;

/// The classes of every byte, once lower-cased.
static CLASSES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let byte = (i as u8).to_ascii_lowercase();
        let mut class = 0;
        if byte.is_ascii_lowercase() || byte == b'_' || byte >= 0x80 {
            class |= LETTER;
        }
        if byte.is_ascii_digit() {
            class |= DIGIT | HEX;
        }
        if matches!(byte, b'a'..=b'f' | b'-') {
            class |= HEX;
        }
        if matches!(byte, b'.' | b':') {
            class |= JOIN;
        }
        table[i] = class;
        i += 1;
    }
    table
};

/// Whether words are made of this byte.
pub fn is_letter(byte: u8) -> bool {
    CLASSES[byte as usize] & LETTER != 0
}

/// Whether this byte is a decimal digit.
pub fn is_digit(byte: u8) -> bool {
    CLASSES[byte as usize] & DIGIT != 0
}

/// Whether ids are made of this byte.
pub fn is_hex(byte: u8) -> bool {
    CLASSES[byte as usize] & HEX != 0
}

/// Whether grams are made of this byte.
pub fn is_gram(byte: u8) -> bool {
    CLASSES[byte as usize] & (LETTER | DIGIT | JOIN) != 0
}

/// The classes of 64 bytes: bit n speaks of byte n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    pub letter: u64,
    pub digit: u64,
    pub hex: u64,
    /// Letters, digits, `.` and `:`.
    pub gram: u64,
}

/// What else a text holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A byte from 0x80.
    pub high: bool,
    pub newline: bool,
    pub backslash: bool,
}

/// Lower-cases `text` into `lower` and appends its classes to `masks`, one entry for each 64
/// bytes begun and one of zeros after them. `lower` gets as many bytes as `masks` speak of.
pub fn split(text: &[u8], lower: &mut Vec<u8>, masks: &mut Vec<Masks>) -> Seen {
    #[cfg(target_arch = "x86_64")]
    return split_with(text, lower, masks, block_sse2);
    #[cfg(not(target_arch = "x86_64"))]
    return split_scalar(text, lower, masks);
}

/// [`split`] without vector code.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub fn split_scalar(text: &[u8], lower: &mut Vec<u8>, masks: &mut Vec<Masks>) -> Seen {
    split_with(text, lower, masks, block_scalar)
}

/// Bit masks of what [`Seen`] tells, of 64 bytes.
#[derive(Default)]
struct Marks {
    high: u64,
    newline: u64,
    backslash: u64,
}

fn split_with(
    text: &[u8],
    lower: &mut Vec<u8>,
    masks: &mut Vec<Masks>,
    block: impl Fn(&[u8; 64], &mut [u8; 64], &mut Marks) -> Masks,
) -> Seen {
    let blocks = text.len().div_ceil(64);
    lower.clear();
    lower.resize((blocks + 1) * 64, 0);
    masks.clear();
    masks.reserve(blocks + 1);
    let mut marks = Marks::default();
    let (whole, rest) = text.as_chunks::<64>();
    let (out, _) = lower.as_chunks_mut::<64>();
    for (bytes, out) in whole.iter().zip(out.iter_mut()) {
        masks.push(block(bytes, out, &mut marks));
    }
    if !rest.is_empty() {
        let mut last = [0u8; 64];
        last[..rest.len()].copy_from_slice(rest);
        masks.push(block(&last, &mut out[blocks - 1], &mut marks));
    }
    masks.push(Masks::default());
    Seen {
        high: marks.high != 0,
        newline: marks.newline != 0,
        backslash: marks.backslash != 0,
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn block_scalar(bytes: &[u8; 64], lower: &mut [u8; 64], marks: &mut Marks) -> Masks {
    let mut masks = Masks::default();
    for (i, &byte) in bytes.iter().enumerate() {
        lower[i] = byte.to_ascii_lowercase();
        let class = CLASSES[byte as usize];
        masks.letter |= u64::from(class & LETTER != 0) << i;
        masks.digit |= u64::from(class & DIGIT != 0) << i;
        masks.hex |= u64::from(class & HEX != 0) << i;
        masks.gram |= u64::from(class & (LETTER | DIGIT | JOIN) != 0) << i;
        marks.high |= u64::from(byte >= 0x80) << i;
        marks.newline |= u64::from(byte == b'\n') << i;
        marks.backslash |= u64::from(byte == b'\\') << i;
    }
    masks
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn block_sse2(bytes: &[u8; 64], lower: &mut [u8; 64], marks: &mut Marks) -> Masks {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_loadu_si128,
        _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128, _mm_storeu_si128,
    };

    let mut masks = Masks::default();
    // SAFETY: SSE2 is part of x86-64. Every load and store is of 16 bytes at offset 0, 16, 32
    // or 48 of an array of 64, and needs no alignment.
    unsafe {
        // Bytes in first..=last: moved so that `last` becomes 127, they are the greatest.
        let within = |x: __m128i, first: u8, last: u8| {
            _mm_cmpgt_epi8(
                _mm_add_epi8(x, _mm_set1_epi8((127 - last) as i8)),
                _mm_set1_epi8((126 - (last - first)) as i8),
            )
        };
        let is = |x: __m128i, byte: u8| _mm_cmpeq_epi8(x, _mm_set1_epi8(byte as i8));
        let bits = |x: __m128i| u64::from(_mm_movemask_epi8(x) as u32);

        let mut newline = _mm_setzero_si128();
        let mut backslash = _mm_setzero_si128();
        for part in 0..4 {
            let at = part * 16;
            let x = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
            let x = _mm_or_si128(x, _mm_and_si128(within(x, b'A', b'Z'), _mm_set1_epi8(0x20)));
            _mm_storeu_si128(lower.as_mut_ptr().add(at).cast(), x);
            let digit = within(x, b'0', b'9');
            let letter = _mm_or_si128(within(x, b'a', b'z'), is(x, b'_'));
            let hex = _mm_or_si128(within(x, b'a', b'f'), _mm_or_si128(digit, is(x, b'-')));
            let join = _mm_or_si128(is(x, b'.'), is(x, b':'));
            newline = _mm_or_si128(newline, is(x, b'\n'));
            backslash = _mm_or_si128(backslash, is(x, b'\\'));
            // The top bit of each byte is what says "from 0x80".
            let high = bits(x);
            marks.high |= high;
            masks.letter |= (bits(letter) | high) << at;
            masks.digit |= bits(digit) << at;
            masks.hex |= bits(hex) << at;
            masks.gram |= bits(join) << at;
        }
        marks.newline |= bits(newline);
        marks.backslash |= bits(backslash);
    }
    masks.gram |= masks.letter | masks.digit;
    masks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8]) {
        let (mut lower, mut masks) = (Vec::new(), Vec::new());
        let seen = split(text, &mut lower, &mut masks);
        let (mut lower2, mut masks2) = (vec![7], vec![Masks::default(); 3]);
        assert_eq!(seen, split_scalar(text, &mut lower2, &mut masks2));
        assert_eq!(masks, masks2);
        assert_eq!(lower, lower2);
        assert_eq!(&lower[..text.len()], text.to_ascii_lowercase());
        assert_eq!(seen.newline, text.contains(&b'\n'));
    }

    #[test]
    fn every_byte_has_the_same_classes_with_and_without_vectors() {
        let all: Vec<u8> = (0..=255).collect();
        check(&all);
        for n in 0..130 {
            check(&all[n..]);
            check(&all[..n]);
        }
    }

    proptest! {
        #[test]
        fn vectors_and_scalars_agree(text in prop::collection::vec(any::<u8>(), 0..400)) {
            check(&text);
        }
    }
}
