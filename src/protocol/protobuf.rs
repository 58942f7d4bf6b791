//! A bounded reader of protobuf's wire format over borrowed bytes.
//!
//! It allocates nothing and never recurses: a caller that nests counts its own depth.
//! Groups (wire types 3 and 4) are no part of any message here and are refused.

use super::DecodeError;

/// One field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one message, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// Length of the message, to say where it broke.
    length: usize,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            length: message.len(),
        }
    }

    /// The next field's number and value; `None` at the end of the message.
    #[inline(always)]
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 {
            return Err(out_of_range(key >> 3));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(unknown_type(other, number)),
        };
        Ok(Some((number, value)))
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(truncated(self.length));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(truncated(self.length));
        };
        self.rest = rest;
        Ok(*taken)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        // Keys and lengths mostly fit one byte.
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        if self.rest.len() < 10 {
            return Err(DecodeError::truncated(self.length));
        }
        Err(DecodeError::malformed("a varint is longer than 10 bytes"))
    }
}

// Apart, so that reading a field is a few instructions.

#[cold]
fn truncated(length: usize) -> DecodeError {
    DecodeError::truncated(length)
}

#[cold]
fn out_of_range(number: u64) -> DecodeError {
    DecodeError::malformed(format!("field number {number} is out of range"))
}

#[cold]
fn unknown_type(kind: u64, number: u32) -> DecodeError {
    DecodeError::malformed(format!("wire type {kind} of field {number} is unknown"))
}

/// Reads an `int64` or `int32` as protobuf writes them: sign-extended to 64 bits.
pub fn signed(value: u64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_message_are_truncation() {
        for bytes in [
            &[0x0a, 0x05, 1][..],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07],
            &[0x09, 1, 2],
            &[0x80],
            &[0x0d, 1],
        ] {
            assert_eq!(
                Fields::new(bytes).field().unwrap_err().reason,
                "truncated",
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn groups_field_zero_and_endless_varints_are_malformed() {
        for bytes in [&[0x0b][..], &[0x0c], &[0x02, 0x00], &[0xff; 12]] {
            assert_eq!(
                Fields::new(bytes).field().unwrap_err().reason,
                "malformed",
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn every_wire_type_is_read() {
        let mut fields = Fields::new(&[
            0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 1, b'x', 0x25, 2, 0, 0, 0,
        ]);
        assert_eq!(fields.field(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(fields.field(), Ok(Some((2, Value::Fixed64(1)))));
        assert_eq!(fields.field(), Ok(Some((3, Value::Bytes(b"x")))));
        assert_eq!(fields.field(), Ok(Some((4, Value::Fixed32(2)))));
        assert_eq!(fields.field(), Ok(None));
    }
}
