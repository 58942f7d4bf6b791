//! Thrift's compact and binary encodings, read from borrowed bytes.
//!
//! Knows encodings, not messages (`batch` does).
//!
//! T1. Every length and size is checked against the bytes that remain before anything is
//!     made of it; nothing here allocates.
//! T2. Skipping recurses at most [`MAX_NESTING`] deep, and each step consumes a byte.

use crate::protocol::{DecodeError, MAX_NESTING};

/// Type of a value on the wire, the same for both encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    /// Text or bytes.
    Binary,
    List,
    Set,
    Map,
    Struct,
}

/// A field's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub id: i16,
    pub kind: Kind,
}

/// One encoding of Thrift's values.
pub trait Input<'a> {
    /// Reads a message's header and returns the method's name. Type and sequence number
    /// of the message mean nothing to receivers.
    fn message(&mut self) -> Result<&'a [u8], DecodeError>;
    /// Reads a field's header; `None` ends the struct. `previous` is the id of the field
    /// before in this struct, 0 for the first.
    fn field(&mut self, previous: i16) -> Result<Option<Field>, DecodeError>;
    fn bool(&mut self) -> Result<bool, DecodeError>;
    fn byte(&mut self) -> Result<u8, DecodeError>;
    fn i16(&mut self) -> Result<i16, DecodeError>;
    fn i32(&mut self) -> Result<i32, DecodeError>;
    fn i64(&mut self) -> Result<i64, DecodeError>;
    fn double(&mut self) -> Result<f64, DecodeError>;
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError>;
    /// Header of a list or set; the elements fit what remains. Without elements the kind
    /// may be anything.
    fn list(&mut self) -> Result<(Kind, usize), DecodeError>;
    /// Header of a map.
    fn map(&mut self) -> Result<(Kind, Kind, usize), DecodeError>;

    /// Reads over a value of no interest.
    fn skip(&mut self, kind: Kind) -> Result<(), DecodeError>
    where
        Self: Sized,
    {
        skip(self, kind, MAX_NESTING)
    }
}

fn skip<'a>(input: &mut impl Input<'a>, kind: Kind, depth: usize) -> Result<(), DecodeError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(DecodeError::too_deep());
    };
    match kind {
        Kind::Bool => input.bool().map(drop),
        Kind::Byte => input.byte().map(drop),
        Kind::I16 => input.i16().map(drop),
        Kind::I32 => input.i32().map(drop),
        Kind::I64 => input.i64().map(drop),
        Kind::Double => input.double().map(drop),
        Kind::Binary => input.bytes().map(drop),
        Kind::List | Kind::Set => {
            let (element, size) = input.list()?;
            for _ in 0..size {
                skip(input, element, depth)?;
            }
            Ok(())
        }
        Kind::Map => {
            let (key, value, size) = input.map()?;
            for _ in 0..size {
                skip(input, key, depth)?;
                skip(input, value, depth)?;
            }
            Ok(())
        }
        Kind::Struct => {
            let mut previous = 0;
            while let Some(field) = input.field(previous)? {
                skip(input, field.kind, depth)?;
                previous = field.id;
            }
            Ok(())
        }
    }
}

/// Elements for which room is made at once; more make their room as they are read, so a
/// size that lies costs nothing.
const ROOM_AT_ONCE: usize = 64;

/// Reads a struct: `take` reads the fields it knows and returns whether it did.
#[inline]
pub fn fields<'a, I: Input<'a>>(
    input: &mut I,
    mut take: impl FnMut(&mut I, i16, Kind) -> Result<bool, DecodeError>,
) -> Result<(), DecodeError> {
    let mut previous = 0;
    while let Some(field) = input.field(previous)? {
        if !take(input, field.id, field.kind)? {
            input.skip(field.kind)?;
        }
        previous = field.id;
    }
    Ok(())
}

/// Reads a list of structs.
pub fn structs<'a, I: Input<'a>, T>(
    input: &mut I,
    what: &str,
    read: impl FnMut(&mut I) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    structs_and(input, what, 0, read)
}

/// The same, with room for some that the caller adds.
pub fn structs_and<'a, I: Input<'a>, T>(
    input: &mut I,
    what: &str,
    more: usize,
    mut read: impl FnMut(&mut I) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let (kind, size) = input.list()?;
    if size > 0 && kind != Kind::Struct {
        return Err(DecodeError::malformed(format!(
            "{what} holds {kind:?} instead of structs"
        )));
    }
    let mut elements = Vec::with_capacity(size.min(ROOM_AT_ONCE) + more);
    for _ in 0..size {
        elements.push(read(input)?);
    }
    Ok(elements)
}

/// The value of a field that must be there.
pub fn required<T>(value: Option<T>, structure: &str, field: &str) -> Result<T, DecodeError> {
    value.ok_or_else(|| {
        DecodeError::new(
            "missing_field",
            format!("required field {structure}.{field} is not set"),
        )
    })
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
struct Rest<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Rest<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            length: bytes.len(),
        }
    }

    fn truncated(&self) -> DecodeError {
        DecodeError::truncated(self.length)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.truncated());
        };
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(DecodeError::new(
                "truncated",
                format!(
                    "a value of {length} bytes is announced, {} remain",
                    self.bytes.len()
                ),
            ));
        };
        self.bytes = rest;
        Ok(taken)
    }

    /// A number of elements that take at least `each` bytes.
    fn size(&self, size: u64, each: usize) -> Result<usize, DecodeError> {
        let most = self.bytes.len() / each.max(1);
        match usize::try_from(size) {
            Ok(size) if size <= most => Ok(size),
            _ => Err(DecodeError::new(
                "truncated",
                format!(
                    "{size} elements are announced, {} bytes remain",
                    self.bytes.len()
                ),
            )),
        }
    }
}

/// The compact encoding: varints, field ids as differences.
#[derive(Clone, Debug)]
pub struct Compact<'a> {
    rest: Rest<'a>,
    /// The value of a bool field stands in its header.
    pending: Option<bool>,
}

impl<'a> Compact<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: Rest::new(bytes),
            pending: None,
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in 0..10 {
            let byte = self.rest.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("a varint is longer than 10 bytes"))
    }

    #[inline]
    fn zigzag(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn kind(nibble: u8) -> Result<Kind, DecodeError> {
        Ok(match nibble {
            1 | 2 => Kind::Bool,
            3 => Kind::Byte,
            4 => Kind::I16,
            5 => Kind::I32,
            6 => Kind::I64,
            7 => Kind::Double,
            8 => Kind::Binary,
            9 => Kind::List,
            10 => Kind::Set,
            11 => Kind::Map,
            12 => Kind::Struct,
            _ => {
                return Err(DecodeError::malformed(format!(
                    "compact type {nibble} is unknown"
                )));
            }
        })
    }

    /// Bytes that a value in a container takes at least.
    fn least(kind: Kind) -> usize {
        if kind == Kind::Double { 8 } else { 1 }
    }
}

impl<'a> Input<'a> for Compact<'a> {
    fn message(&mut self) -> Result<&'a [u8], DecodeError> {
        let protocol = self.rest.byte()?;
        if protocol != 0x82 {
            return Err(DecodeError::malformed(format!(
                "not a compact message: it begins with {protocol:#04x}"
            )));
        }
        let version = self.rest.byte()? & 0x1f;
        if version != 1 {
            return Err(DecodeError::malformed(format!(
                "version {version} of the compact encoding is unknown"
            )));
        }
        self.varint()?;
        self.bytes()
    }

    #[inline]
    fn field(&mut self, previous: i16) -> Result<Option<Field>, DecodeError> {
        let header = self.rest.byte()?;
        let nibble = header & 0x0f;
        if nibble == 0 {
            return Ok(None);
        }
        let id = match header >> 4 {
            0 => self.i16()?,
            delta => previous.wrapping_add(i16::from(delta)),
        };
        let kind = Self::kind(nibble)?;
        self.pending = (kind == Kind::Bool).then_some(nibble == 1);
        Ok(Some(Field { id, kind }))
    }

    fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.pending.take() {
            Some(value) => Ok(value),
            None => Ok(self.rest.byte()? == 1),
        }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.rest.byte()
    }

    fn i16(&mut self) -> Result<i16, DecodeError> {
        // Wider than its type is cut, as the libraries do.
        Ok(self.zigzag()? as i16)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(self.zigzag()? as i32)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.zigzag()
    }

    fn double(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_le_bytes(self.rest.array()?))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.rest.take(length)
    }

    fn list(&mut self) -> Result<(Kind, usize), DecodeError> {
        let header = self.rest.byte()?;
        let size = match header >> 4 {
            15 => self.varint()?,
            size => u64::from(size),
        };
        if size == 0 {
            return Ok((Kind::Byte, 0));
        }
        let kind = Self::kind(header & 0x0f)?;
        Ok((kind, self.rest.size(size, Self::least(kind))?))
    }

    fn map(&mut self) -> Result<(Kind, Kind, usize), DecodeError> {
        let size = self.varint()?;
        if size == 0 {
            return Ok((Kind::Byte, Kind::Byte, 0));
        }
        let kinds = self.rest.byte()?;
        let (key, value) = (Self::kind(kinds >> 4)?, Self::kind(kinds & 0x0f)?);
        Ok((
            key,
            value,
            self.rest
                .size(size, Self::least(key) + Self::least(value))?,
        ))
    }
}

/// The binary encoding: everything at its full width, big-endian.
#[derive(Clone, Debug)]
pub struct Binary<'a> {
    rest: Rest<'a>,
}

impl<'a> Binary<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: Rest::new(bytes),
        }
    }

    fn kind(code: u8) -> Result<Kind, DecodeError> {
        Ok(match code {
            2 => Kind::Bool,
            3 => Kind::Byte,
            4 => Kind::Double,
            6 => Kind::I16,
            8 => Kind::I32,
            10 => Kind::I64,
            11 => Kind::Binary,
            12 => Kind::Struct,
            13 => Kind::Map,
            14 => Kind::Set,
            15 => Kind::List,
            _ => {
                return Err(DecodeError::malformed(format!(
                    "binary type {code} is unknown"
                )));
            }
        })
    }

    /// Bytes that a value takes at least.
    fn least(kind: Kind) -> usize {
        match kind {
            Kind::Bool | Kind::Byte | Kind::Struct => 1,
            Kind::I16 => 2,
            Kind::I32 | Kind::Binary => 4,
            Kind::I64 | Kind::Double => 8,
            Kind::List | Kind::Set => 5,
            Kind::Map => 6,
        }
    }

    fn length(&mut self) -> Result<u64, DecodeError> {
        let length = self.i32()?;
        u64::try_from(length)
            .map_err(|_| DecodeError::malformed(format!("length {length} is negative")))
    }
}

impl<'a> Input<'a> for Binary<'a> {
    fn message(&mut self) -> Result<&'a [u8], DecodeError> {
        let first = self.i32()?;
        let name = match u64::try_from(first) {
            // The old form, without a version: the name's length comes first.
            Ok(length) => {
                let name = self.rest.take(length)?;
                self.byte()?;
                name
            }
            Err(_) => {
                if first as u32 & 0xffff_0000 != 0x8001_0000 {
                    return Err(DecodeError::malformed(format!(
                        "not a binary message: it begins with {first:#010x}"
                    )));
                }
                self.bytes()?
            }
        };
        self.i32()?;
        Ok(name)
    }

    #[inline]
    fn field(&mut self, _previous: i16) -> Result<Option<Field>, DecodeError> {
        match self.rest.byte()? {
            0 => Ok(None),
            code => {
                let kind = Self::kind(code)?;
                Ok(Some(Field {
                    id: self.i16()?,
                    kind,
                }))
            }
        }
    }

    fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.rest.byte()? == 1)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.rest.byte()
    }

    fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.rest.array()?))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.rest.array()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.rest.array()?))
    }

    fn double(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.rest.array()?))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.rest.take(length)
    }

    fn list(&mut self) -> Result<(Kind, usize), DecodeError> {
        let code = self.rest.byte()?;
        match self.length()? {
            0 => Ok((Kind::Byte, 0)),
            size => {
                let kind = Self::kind(code)?;
                Ok((kind, self.rest.size(size, Self::least(kind))?))
            }
        }
    }

    fn map(&mut self) -> Result<(Kind, Kind, usize), DecodeError> {
        let [key, value] = self.rest.array()?;
        match self.length()? {
            0 => Ok((Kind::Byte, Kind::Byte, 0)),
            size => {
                let (key, value) = (Self::kind(key)?, Self::kind(value)?);
                Ok((
                    key,
                    value,
                    self.rest
                        .size(size, Self::least(key) + Self::least(value))?,
                ))
            }
        }
    }
}
