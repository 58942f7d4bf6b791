//! Where tokens with digits begin and end in a text, as bit masks of 64 bytes.
//!
//! With vector code, as `store/index/analyze/classes.rs` has it: SSE2 where there is, else a scalar
//! loop that does the same (a test says so).

/// Bit n speaks of byte n of 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// What tokens are made of: letters, digits, and `.`, `-`, `:` inside numbers and ids.
    pub word: u64,
    pub digit: u64,
    /// Pieces of static text end before these: after `\n`, and where a value begins as in
    /// `key=value`, `key="value"`, `"key":"value"`.
    pub cut: u64,
}

/// Single bytes, before neighbours are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Raw {
    alnum: u64,
    digit: u64,
    /// `.` and `-`.
    joint: u64,
    colon: u64,
    quote: u64,
    equals: u64,
    space: u64,
    newline: u64,
}

/// The masks of `text`, one entry for each 64 bytes begun and one of zeros after them.
pub fn split(text: &[u8], masks: &mut Vec<Masks>) {
    #[cfg(target_arch = "x86_64")]
    split_with(text, masks, block_sse2);
    #[cfg(not(target_arch = "x86_64"))]
    split_with(text, masks, block_scalar);
}

#[inline(always)]
fn split_with(text: &[u8], masks: &mut Vec<Masks>, block: impl Fn(&[u8; 64]) -> Raw) {
    masks.clear();
    masks.reserve(text.len() / 64 + 2);
    let (whole, rest) = text.as_chunks::<64>();
    let mut last = [0u8; 64];
    last[..rest.len()].copy_from_slice(rest);
    // The text's beginning is like the beginning of a line.
    let mut before = Raw {
        newline: 1 << 63,
        ..Raw::default()
    };
    let Some(first) = whole.first() else {
        if !rest.is_empty() {
            masks.push(join(&before, &block(&last), &Raw::default()));
        }
        masks.push(Masks::default());
        return;
    };
    let mut this = block(first);
    for bytes in &whole[1..] {
        let next = block(bytes);
        masks.push(join(&before, &this, &next));
        before = this;
        this = next;
    }
    let next = if rest.is_empty() {
        Raw::default()
    } else {
        block(&last)
    };
    masks.push(join(&before, &this, &next));
    if !rest.is_empty() {
        masks.push(join(&this, &next, &Raw::default()));
    }
    masks.push(Masks::default());
}

/// The masks of a block from its own bytes and those of the blocks beside it.
#[inline(always)]
fn join(before: &Raw, this: &Raw, next: &Raw) -> Masks {
    let previous = |this: u64, before: u64| this << 1 | before >> 63;
    let following = |this: u64, next: u64, n: u32| this >> n | next << (64 - n);
    let alnum_before = previous(this.alnum, before.alnum);
    let digit_before = previous(this.digit, before.digit);
    let alnum_after = following(this.alnum, next.alnum, 1);
    let digit_after = following(this.digit, next.digit, 1);
    let around = alnum_before & alnum_after;
    let joint = this.joint & around;
    // `12:30:59` is one token, an address and its port are two.
    let colon = this.colon
        & digit_before
        & digit_after
        & following(this.digit, next.digit, 2)
        & !following(this.digit, next.digit, 3);
    let equals = previous(this.equals, before.equals);
    let opens = previous(
        this.equals | this.colon | this.space,
        before.equals | before.colon | before.space,
    );
    let opening = this.quote & opens;
    let opening_before = before.quote & previous(before.equals | before.colon | before.space, 0);
    Masks {
        word: this.alnum | joint | colon,
        digit: this.digit,
        cut: previous(this.newline, before.newline)
            | (equals & !this.quote)
            | previous(opening, opening_before),
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn block_scalar(bytes: &[u8; 64]) -> Raw {
    let mut raw = Raw::default();
    for (i, &byte) in bytes.iter().enumerate() {
        let bit = |yes: bool| u64::from(yes) << i;
        raw.alnum |= bit(byte.is_ascii_alphanumeric());
        raw.digit |= bit(byte.is_ascii_digit());
        raw.joint |= bit(matches!(byte, b'.' | b'-'));
        raw.colon |= bit(byte == b':');
        raw.quote |= bit(byte == b'"');
        raw.equals |= bit(byte == b'=');
        raw.space |= bit(byte == b' ');
        raw.newline |= bit(byte == b'\n');
    }
    raw
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn block_sse2(bytes: &[u8; 64]) -> Raw {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_or_si128, _mm_set1_epi8,
    };
    let mut raw = Raw::default();
    // SAFETY: SSE2 is part of x86-64. Every load is of 16 bytes at offset 0, 16, 32 or 48 of an
    // array of 64, and needs no alignment.
    unsafe {
        let within = |x: __m128i, first: u8, last: u8| {
            _mm_cmpgt_epi8(
                _mm_add_epi8(x, _mm_set1_epi8((127 - last) as i8)),
                _mm_set1_epi8((126 - (last - first)) as i8),
            )
        };
        let bits = |x: __m128i| u64::from(_mm_movemask_epi8(x) as u32);
        for part in 0..4 {
            let at = part * 16;
            let x = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
            let equal = |byte: u8| _mm_cmpeq_epi8(x, _mm_set1_epi8(byte as i8));
            let is = |byte: u8| bits(equal(byte)) << at;
            let lower = _mm_or_si128(x, _mm_set1_epi8(0x20));
            let digit = within(x, b'0', b'9');
            raw.alnum |= bits(_mm_or_si128(within(lower, b'a', b'z'), digit)) << at;
            raw.digit |= bits(digit) << at;
            let joint = _mm_or_si128(equal(b'.'), equal(b'-'));
            raw.joint |= bits(joint) << at;
            raw.colon |= is(b':');
            raw.quote |= is(b'"');
            raw.equals |= is(b'=');
            raw.space |= is(b' ');
            raw.newline |= is(b'\n');
        }
    }
    raw
}

/// Finds the values of a text from front to back, and where pieces of static text end.
pub struct Scan<'a> {
    masks: &'a [Masks],
    /// The block looked at, what is left of its digits and cuts, and the others' places in it.
    block: usize,
    digit: u64,
    cut: u64,
    starts: u64,
    stops: u64,
    /// Where the word begins that reaches into the block from before.
    open: usize,
    end: usize,
}

/// A piece of static text ends at `start`; when `stop` is more, a value is between them.
#[derive(Clone, Copy)]
pub struct Found {
    pub start: usize,
    pub stop: usize,
}

impl<'a> Scan<'a> {
    /// `masks` are those of a text of `end` bytes.
    pub fn new(masks: &'a [Masks], end: usize) -> Self {
        let mut scan = Self {
            masks,
            block: 0,
            digit: 0,
            cut: 0,
            starts: 0,
            stops: 0,
            open: 0,
            end,
        };
        scan.load(0);
        // The text's beginning ends no piece.
        scan.drop_first_cut();
        scan
    }

    fn drop_first_cut(&mut self) {
        self.cut &= !1;
    }

    #[inline(always)]
    fn load(&mut self, block: usize) {
        let masks = &self.masks[block];
        let before = if block == 0 {
            0
        } else {
            self.masks[block - 1].word >> 63
        };
        let shifted = masks.word << 1 | before;
        self.block = block;
        self.digit = masks.digit;
        self.cut = masks.cut;
        self.starts = masks.word & !shifted;
        self.stops = shifted & !masks.word;
    }

    /// The next end of a piece, or the text's end.
    #[inline(always)]
    pub fn next(&mut self) -> Found {
        loop {
            let mut bits = self.digit | self.cut;
            while bits == 0 {
                if self.starts != 0 {
                    self.open = self.block * 64 + 63 - self.starts.leading_zeros() as usize;
                }
                if self.block + 1 >= self.masks.len() {
                    return Found {
                        start: self.end,
                        stop: self.end,
                    };
                }
                self.load(self.block + 1);
                bits = self.digit | self.cut;
            }
            let bit = bits & bits.wrapping_neg();
            let through = bit | (bit - 1);
            let base = self.block * 64;
            if self.digit & bit != 0 {
                let starts = self.starts & through;
                let start = if starts != 0 {
                    base + 63 - starts.leading_zeros() as usize
                } else {
                    self.open
                };
                let stops = self.stops & !through;
                if stops != 0 {
                    let stop = stops & stops.wrapping_neg();
                    // A cut at `stop` itself cannot be: a cut follows `=`, `"` or `\n`.
                    self.digit &= !(stop - 1);
                    self.cut &= !(stop - 1);
                    return Found {
                        start,
                        stop: base + stop.trailing_zeros() as usize,
                    };
                }
                return Found {
                    start,
                    stop: self.stop_in_later_block(),
                };
            }
            self.cut &= !bit;
            let at = base + bit.trailing_zeros() as usize;
            if self.starts & bit != 0 && self.word_has_digit(through) {
                // The piece ends here because of the value.
                continue;
            }
            return Found {
                start: at,
                stop: at,
            };
        }
    }

    /// Whether a word that begins at the last bit of `through` has a digit.
    #[inline(always)]
    fn word_has_digit(&self, through: u64) -> bool {
        let stops = self.stops & !through;
        if stops != 0 {
            return self.digit & ((stops & stops.wrapping_neg()) - 1) != 0;
        }
        if self.digit != 0 {
            return true;
        }
        for masks in &self.masks[self.block + 1..] {
            let length = masks.word.trailing_ones();
            if length < 64 {
                return masks.digit & ((1 << length) - 1) != 0;
            }
            if masks.digit != 0 {
                return true;
            }
        }
        false
    }

    #[inline(never)]
    fn stop_in_later_block(&mut self) -> usize {
        loop {
            if self.block + 1 >= self.masks.len() {
                (self.digit, self.cut) = (0, 0);
                return self.end;
            }
            self.load(self.block + 1);
            if self.stops != 0 {
                let stop = self.stops & self.stops.wrapping_neg();
                self.digit &= !(stop - 1);
                self.cut &= !(stop - 1);
                return self.block * 64 + stop.trailing_zeros() as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_scalars_agree() {
        let mut seed = 1u64;
        let alphabet = b"ab09.-:\"= \n\x80\xffZz_/";
        for length in 0..400 {
            let text: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                    alphabet[(seed >> 33) as usize % alphabet.len()]
                })
                .collect();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            split(&text, &mut a);
            split_with(&text, &mut b, block_scalar);
            assert_eq!(a, b);
            assert_eq!(a.len(), text.len().div_ceil(64) + 1);
        }
    }
}
