//! Varints and bounded reading: the small change of every disk format here.

/// Writes numbers and texts one after the other.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn varint(&mut self, value: u64) {
        put_varint(&mut self.0, value);
    }

    pub fn zigzag(&mut self, value: i64) {
        put_varint(&mut self.0, zigzag(value));
    }

    /// Bytes with their length before them.
    pub fn text(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Appends `value` as LEB128.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small magnitudes become small numbers.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads what [`Writer`] wrote; every length is checked against what remains.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or("data ends early")?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint longer than 64 bits".into())
    }

    #[inline]
    pub fn zigzag(&mut self) -> Result<i64, String> {
        Ok(unzigzag(self.varint()?))
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self
            .at
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("{len} bytes wanted, {} left", self.remaining()))?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// Bytes with their length before them.
    pub fn text(&mut self) -> Result<&'a [u8], String> {
        let len = self.varint()?;
        self.bytes(usize::try_from(len).map_err(|_| "length out of range")?)
    }

    pub fn str(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.text()?).map_err(|_| "text is not UTF-8".into())
    }

    /// A number of items that take at least `least` bytes each, checked against what remains.
    pub fn count(&mut self, least: usize) -> Result<usize, String> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(n)
                if n.checked_mul(least)
                    .is_some_and(|bytes| bytes <= self.remaining()) =>
            {
                Ok(n)
            }
            _ => Err(format!(
                "{count} items wanted, {} bytes left",
                self.remaining()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back(a in any::<u64>(), b in any::<i64>()) {
            let mut w = Writer::default();
            w.varint(a);
            w.zigzag(b);
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!((r.varint(), r.zigzag(), r.remaining()), (Ok(a), Ok(b), 0));
        }
    }

    #[test]
    fn a_count_beyond_the_data_is_an_error() {
        let mut w = Writer::default();
        w.varint(1 << 40);
        let bytes = w.finish();
        assert!(Reader::new(&bytes).count(1).is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
    }
}
