//! The protobuf `PushRequest`, read by hand from the decompressed buffer, which then
//! becomes the batch's text.
//!
//! ```text
//! PushRequest { repeated Stream streams = 1; }
//! Stream      { string labels = 1; repeated Entry entries = 2; }
//! Entry       { Timestamp timestamp = 1; string line = 2; repeated LabelPair structuredMetadata = 3; }
//! Timestamp   { int64 seconds = 1; int32 nanos = 2; }
//! LabelPair   { string name = 1; string value = 2; }
//! ```
//! Unknown fields are skipped, the last value of a repeated single field wins.

use crate::model::LogEntry;
use crate::model::time::SECOND;

use super::{DecodeError, DecodeLimits, DecodedPush, ParsedLabels, Parts, known_labels};

/// Protobuf's wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

pub fn decode(text: Vec<u8>, limits: &DecodeLimits) -> Result<DecodedPush, DecodeError> {
    let mut parts = Parts::new(limits);
    let mut request = Reader {
        bytes: &text,
        at: 0,
    };
    while let Some(field) = request.field()? {
        match (field.number, field.wire) {
            (1, BYTES) => {
                let stream = request.message()?;
                decode_stream(stream, &mut parts)?;
            }
            _ => request.skip(field)?,
        }
    }
    parts.finish(text)
}

fn decode_stream(mut stream: Reader<'_>, parts: &mut Parts) -> Result<(), DecodeError> {
    parts.seen += 1;
    let mut labels: &[u8] = b"";
    let mut entries = Vec::new();
    let mut unrepresentable = 0;
    while let Some(field) = stream.field()? {
        match (field.number, field.wire) {
            (1, BYTES) => labels = stream.bytes()?.0,
            (2, BYTES) => {
                let entry = stream.message()?;
                if entries.capacity() == entries.len() {
                    // Booked where the vector grows: it doubles.
                    parts.spend(entries.len().max(4) * size_of::<LogEntry>())?;
                }
                match decode_entry(entry, parts)? {
                    Some(entry) => entries.push(entry),
                    None => unrepresentable += 1,
                }
            }
            _ => stream.skip(field)?,
        }
    }
    // Streams without entries are skipped before anyone reads their labels.
    if entries.is_empty() && unrepresentable == 0 {
        return Ok(());
    }
    parts.spend(super::STREAM_COST + 2 * labels.len())?;
    let labels = label_text(labels)?;
    parts.push_stream(labels, entries, unrepresentable)
}

fn label_text(bytes: &[u8]) -> Result<ParsedLabels, DecodeError> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| {
        DecodeError::invalid(format!(
            "couldn't parse labels '{}': not valid UTF-8",
            String::from_utf8_lossy(bytes)
        ))
    })?;
    known_labels(text)
        .map_err(|e| DecodeError::invalid(format!("couldn't parse labels '{text}': {e}")))
}

/// `None`: its time fits no timestamp.
#[inline]
fn decode_entry(mut entry: Reader<'_>, parts: &mut Parts) -> Result<Option<LogEntry>, DecodeError> {
    let mut at = Some(0);
    let (mut start, mut len) = (0, 0);
    // From the first metadata pair to the end of the last one.
    let mut metadata: Option<(usize, usize)> = None;
    let whole = entry.bytes;
    loop {
        let before = entry.at;
        let Some(field) = entry.field()? else { break };
        match (field.number, field.wire) {
            (1, BYTES) => at = decode_time(entry.message()?)?,
            (2, BYTES) => {
                let (line, offset) = entry.bytes()?;
                (start, len) = (offset, line.len());
            }
            (3, BYTES) => {
                entry.bytes()?;
                metadata = Some((metadata.map_or(before, |(first, _)| first), entry.at));
            }
            _ => entry.skip(field)?,
        }
    }
    let metadata = match metadata {
        Some((first, end)) => decode_metadata(whole, first, end, parts)?,
        None => 0,
    };
    // The buffer is at most 4 GiB, so offsets and lengths fit.
    let (start, len) = (start as u32, len as u32);
    Ok(at.map(|at| LogEntry {
        at,
        start,
        len,
        metadata,
    }))
}

/// `None`: outside what nanoseconds in an i64 can say.
#[inline]
fn decode_time(mut time: Reader<'_>) -> Result<Option<i64>, DecodeError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    while let Some(field) = time.field()? {
        match (field.number, field.wire) {
            (1, VARINT) => seconds = time.varint()? as i64,
            // An int32 is sent sign-extended; only its low half counts.
            (2, VARINT) => nanos = i64::from(time.varint()? as i32),
            _ => time.skip(field)?,
        }
    }
    if !(0..SECOND).contains(&nanos) {
        return Err(DecodeError::invalid(format!(
            "timestamp with {nanos} nanoseconds; they must be between 0 and 999999999"
        )));
    }
    Ok(seconds
        .checked_mul(SECOND)
        .and_then(|ns| ns.checked_add(nanos)))
}

/// The set in `source[first..end]`, which begins and ends with a pair.
fn decode_metadata(
    source: &[u8],
    first: usize,
    end: usize,
    parts: &mut Parts,
) -> Result<u32, DecodeError> {
    if let Some(number) = parts.metadata.find(source, first, end) {
        return Ok(number);
    }
    let bytes = source.get(..end).ok_or_else(truncated)?;
    let mut pairs = Reader { bytes, at: first };
    while let Some(field) = pairs.field()? {
        match (field.number, field.wire) {
            (3, BYTES) => {
                let mut pair = pairs.message()?;
                let (mut name, mut value): (&[u8], &[u8]) = (b"", b"");
                while let Some(field) = pair.field()? {
                    match (field.number, field.wire) {
                        (1, BYTES) => name = pair.bytes()?.0,
                        (2, BYTES) => value = pair.bytes()?.0,
                        _ => pair.skip(field)?,
                    }
                }
                let cost = parts.metadata.add(name, value)?;
                parts.spend(cost)?;
            }
            _ => pairs.skip(field)?,
        }
    }
    let (number, cost) = parts.metadata.close();
    parts.spend(cost)?;
    parts.metadata.remember(source, first, end, number);
    Ok(number)
}

#[derive(Clone, Copy)]
struct Field {
    number: u64,
    wire: u8,
}

/// Reads one message. Positions are those of the whole buffer, of which `bytes` is the
/// part up to the message's end.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next field's key, or `None` at the end of the message.
    #[inline]
    fn field(&mut self) -> Result<Option<Field>, DecodeError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = Field {
            number: key >> 3,
            wire: (key & 7) as u8,
        };
        if field.number == 0 {
            return Err(DecodeError::invalid(format!(
                "protobuf is broken at byte {}: field number 0",
                self.at
            )));
        }
        Ok(Some(field))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.bytes.get(self.at) {
            Some(b) if *b < 0x80 => {
                self.at += 1;
                Ok(u64::from(*b))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (i, b) in self
            .bytes
            .get(self.at..)
            .unwrap_or_default()
            .iter()
            .take(10)
            .enumerate()
        {
            value |= u64::from(b & 0x7f) << (7 * i);
            if *b < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        if self.bytes.len().saturating_sub(self.at) < 10 {
            return Err(truncated());
        }
        Err(DecodeError::invalid(format!(
            "protobuf is broken at byte {}: number longer than 10 bytes",
            self.at
        )))
    }

    /// A length-delimited value and its position.
    #[inline]
    fn bytes(&mut self) -> Result<(&'a [u8], usize), DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| truncated())?;
        let start = self.at;
        let end = start.checked_add(len).ok_or_else(truncated)?;
        let bytes = self.bytes.get(start..end).ok_or_else(truncated)?;
        self.at = end;
        Ok((bytes, start))
    }

    /// A length-delimited value as a message.
    #[inline]
    fn message(&mut self) -> Result<Reader<'a>, DecodeError> {
        let (bytes, start) = self.bytes()?;
        Ok(Reader {
            bytes: &self.bytes[..start + bytes.len()],
            at: start,
        })
    }

    fn skip(&mut self, field: Field) -> Result<(), DecodeError> {
        let fixed = match field.wire {
            VARINT => return self.varint().map(|_| ()),
            BYTES => return self.bytes().map(|_| ()),
            FIXED64 => 8,
            FIXED32 => 4,
            wire => {
                return Err(DecodeError::invalid(format!(
                    "protobuf is broken at byte {}: wire type {wire}",
                    self.at
                )));
            }
        };
        if self.bytes.len().saturating_sub(self.at) < fixed {
            return Err(truncated());
        }
        self.at += fixed;
        Ok(())
    }
}

#[cold]
fn truncated() -> DecodeError {
    DecodeError::invalid("protobuf is truncated: a length reaches behind the end")
}
