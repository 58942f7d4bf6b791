//! A block as bytes.
//!
//! ```text
//! version u8 (1) | xxh3 of what follows u64 LE | length of the body u32 LE | zstd frame of the body
//! ```
//!
//! The body is a column after the other; numbers are LEB128, signed ones zigzag:
//!
//! | Column | For each | |
//! |---|---|---|
//! | unit | | u8; 1: all times are whole microseconds and stored so, 0: nanoseconds |
//! | counts | | names, tags, processes, traces, spans |
//! | names | name | lengths; then the text |
//! | tags | tag, in order of first use | key; then types, u8 |
//! | values | tag, sorted by key | length of text or bytes, integer, float as u64 LE; then text, then bytes |
//! | processes | process | service, list of tags |
//! | traces | trace | u128 LE |
//! | span: trace | span | 0: the next new one; n: the nth last |
//! | span: process, operation, flags | span | |
//! | span: start, duration | span | difference to the span before; plain |
//! | span: id | span | u64 LE |
//! | span: references | span | 0: none; 1: one CHILD_OF in the own trace, n + 1: n others; then what they are |
//! | span: tags | span | list of tags |
//! | span: logs | span | number; of each the time since the span's start, list of tags |
//! | span: warnings | span | number, names |
//!
//! A list of tags is its length and, of each tag, 0 for the first never used before, else its
//! number plus one. The parent in the own trace is the distance to its span when it is in the
//! block, else 0 and the id.

use std::sync::OnceLock;

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{BlockMeta, LogRow, Part, ProcessRow, SpanBlock, SpanRow, TagRow, Texts, Value};
use crate::model::trace::{RefType, SpanId, SpanRef, TraceId};
use crate::store::chunk::{compress_frame, decompress_frame};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8 + 4;
/// Of a meta: 1 has no terms.
const META_VERSION: u8 = 2;
const META_BYTES: usize = 1 + 4 + 8 + 4 + 4 * 8 + 1;
/// Longest body that is decoded. A block is far smaller; only its last span may be large.
const MAX_BODY: usize = 1 << 30;

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const TEXT: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const BLOB: u8 = 5;

impl BlockMeta {
    /// Version u8 (2), then all but the number, little-endian, in the order of the fields.
    /// Version 1 ends before `terms`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(META_BYTES);
        out.push(META_VERSION);
        out.extend(self.spans.to_le_bytes());
        out.extend(self.raw_bytes.to_le_bytes());
        out.extend(self.stored_bytes.to_le_bytes());
        out.extend(self.min_start.to_le_bytes());
        out.extend(self.max_start.to_le_bytes());
        out.extend(self.min_duration.to_le_bytes());
        out.extend(self.max_duration.to_le_bytes());
        out.push(self.terms);
        out
    }

    /// The meta of the block with this number.
    pub fn decode(number: u32, bytes: &[u8]) -> Result<Self, String> {
        let mut from = Reader(bytes);
        let mut read = || -> Result<Self, SpanCodecError> {
            let version = from.byte()?;
            if !(1..=META_VERSION).contains(&version) {
                return Err(SpanCodecError::Version(version));
            }
            let meta = Self {
                number,
                spans: u32::from_le_bytes(from.array()?),
                raw_bytes: u64::from_le_bytes(from.array()?),
                stored_bytes: u32::from_le_bytes(from.array()?),
                min_start: i64::from_le_bytes(from.array()?),
                max_start: i64::from_le_bytes(from.array()?),
                min_duration: u64::from_le_bytes(from.array()?),
                max_duration: u64::from_le_bytes(from.array()?),
                terms: if version == 1 { 0 } else { from.byte()? },
            };
            if from.0.is_empty() {
                Ok(meta)
            } else {
                malformed("meta is too long")
            }
        };
        read().map_err(|e| e.to_string())
    }

    /// Memory that it takes, bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + 16
    }
}

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanCodecError {
    #[error("span block: version {0} is not known to this program")]
    Version(u8),
    #[error("span block: checksum does not match, the block is damaged")]
    Checksum,
    #[error("span block: {0}")]
    Malformed(&'static str),
}

const fn malformed<T>(what: &'static str) -> Result<T, SpanCodecError> {
    Err(SpanCodecError::Malformed(what))
}

impl SpanBlock {
    /// The block as bytes, compressed.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.encode_body();
        let mut out = vec![0; HEADER];
        // Cannot fail: the space suffices, and the level exists.
        compress_frame(&body, &mut out).expect("compressing into enough space");
        out[0] = VERSION;
        out[9..HEADER].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let sum = xxh3_64(&out[9..]);
        out[1..9].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The block that was encoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpanCodecError> {
        let Some((header, frame)) = bytes.split_at_checked(HEADER) else {
            return malformed("shorter than its header");
        };
        if header[0] != VERSION {
            return Err(SpanCodecError::Version(header[0]));
        }
        let sum: [u8; 8] = header[1..9].try_into().unwrap_or_default();
        if xxh3_64(&bytes[9..]) != u64::from_le_bytes(sum) {
            return Err(SpanCodecError::Checksum);
        }
        let len: [u8; 4] = header[9..HEADER].try_into().unwrap_or_default();
        let len = u32::from_le_bytes(len) as usize;
        let size = zstd::zstd_safe::get_frame_content_size(frame)
            .ok()
            .flatten();
        if len > MAX_BODY || size != Some(len as u64) {
            return malformed("length of the body");
        }
        let mut body = Vec::new();
        match decompress_frame(frame, len, &mut body) {
            Ok(()) if body.len() == len => Self::decode_body(&body),
            _ => malformed("compressed body"),
        }
    }

    /// The block without compression and checksum.
    pub(super) fn encode_body(&self) -> Vec<u8> {
        let whole_micros = self
            .spans
            .iter()
            .all(|s| s.start % 1000 == 0 && s.duration % 1000 == 0)
            && self.logs.iter().all(|l| l.at % 1000 == 0);
        let unit = if whole_micros { 1000 } else { 1 };
        let mut out = Writer(Vec::with_capacity(
            self.spans.len() * 64 + self.values.len(),
        ));
        out.0.push(u8::from(whole_micros));
        for count in [
            self.names.len(),
            self.tags.len(),
            self.processes.len(),
            self.traces.len(),
            self.spans.len(),
        ] {
            out.number(count as u64);
        }

        (0..self.names.len() as u32).for_each(|n| out.number(self.names.get(n).len() as u64));
        out.0.extend_from_slice(self.names.text.as_bytes());

        let (order, mut lists) = self.tags_by_first_use();
        self.encode_tags(&order, &mut out);

        for process in &self.processes {
            out.number(process.service.into());
            lists.write(&self.tag_lists[process.tags.range()], &mut out);
        }
        for trace in &self.traces {
            out.0.extend_from_slice(&trace.0.to_le_bytes());
        }

        let mut known = 0;
        for span in &self.spans {
            out.number(u64::from(known - span.trace));
            known += u32::from(span.trace == known);
        }
        self.spans.iter().for_each(|s| out.number(s.process.into()));
        self.spans
            .iter()
            .for_each(|s| out.number(s.operation.into()));
        self.spans.iter().for_each(|s| out.number(s.flags.into()));
        let mut before = 0;
        for span in &self.spans {
            let start = span.start / unit;
            out.signed(start.wrapping_sub(before));
            before = start;
        }
        self.spans
            .iter()
            .for_each(|s| out.number(s.duration / unit as u64));
        self.spans
            .iter()
            .for_each(|s| out.0.extend_from_slice(&s.span_id.0.to_le_bytes()));
        self.encode_refs(&mut out);
        self.spans
            .iter()
            .for_each(|s| lists.write(&self.tag_lists[s.tags.range()], &mut out));
        for span in &self.spans {
            let logs = &self.logs[span.logs.range()];
            out.number(logs.len() as u64);
            for log in logs {
                out.signed((log.at / unit).wrapping_sub(span.start / unit));
                lists.write(&self.tag_lists[log.fields.range()], &mut out);
            }
        }
        for span in &self.spans {
            let warnings = &self.warnings[span.warnings.range()];
            out.number(warnings.len() as u64);
            warnings.iter().for_each(|n| out.number((*n).into()));
        }
        out.0
    }

    /// The tags in the order in which the lists, as they are written, first use them.
    fn tags_by_first_use(&self) -> (Vec<u32>, TagLists) {
        const UNUSED: u32 = u32::MAX;
        let mut places = vec![UNUSED; self.tags.len()];
        let mut order = Vec::with_capacity(self.tags.len());
        let mut see = |part: Part| {
            for tag in &self.tag_lists[part.range()] {
                let place = &mut places[*tag as usize];
                if *place == UNUSED {
                    *place = order.len() as u32;
                    order.push(*tag);
                }
            }
        };
        self.processes.iter().for_each(|p| see(p.tags));
        self.spans.iter().for_each(|s| see(s.tags));
        // In the order of spans, which is that of logs.
        self.spans
            .iter()
            .flat_map(|s| &self.logs[s.logs.range()])
            .for_each(|l| see(l.fields));
        debug_assert_eq!(order.len(), self.tags.len(), "a tag that nothing has");
        (order, TagLists { places, used: 0 })
    }

    fn encode_tags(&self, order: &[u32], out: &mut Writer) {
        let tags = || order.iter().map(|n| &self.tags[*n as usize]);
        tags().for_each(|tag| out.number(tag.key.into()));
        tags().for_each(|tag| {
            out.0.push(match tag.value {
                Value::Bool(false) => FALSE,
                Value::Bool(true) => TRUE,
                Value::Text(..) => TEXT,
                Value::Int(_) => INT,
                Value::Float(_) => FLOAT,
                Value::Blob(..) => BLOB,
            });
        });
        let mut by_key: Vec<&TagRow> = tags().collect();
        by_key.sort_by_key(|tag| tag.key); // stable
        for tag in &by_key {
            match tag.value {
                Value::Bool(_) => {}
                Value::Text(start, end) | Value::Blob(start, end) => {
                    out.number((end - start).into());
                }
                Value::Int(value) => out.signed(value),
                Value::Float(value) => out.0.extend_from_slice(&value.to_bits().to_le_bytes()),
            }
        }
        for tag in &by_key {
            if let Value::Text(start, end) = tag.value {
                let text = &self.values[start as usize..end as usize];
                out.0.extend_from_slice(text.as_bytes());
            }
        }
        for tag in &by_key {
            if let Value::Blob(start, end) = tag.value {
                out.0
                    .extend_from_slice(&self.blobs[start as usize..end as usize]);
            }
        }
    }

    fn encode_refs(&self, out: &mut Writer) {
        let is_parent = |span: &SpanRow, refs: &[SpanRef]| {
            refs.len() == 1
                && refs[0].kind == RefType::ChildOf
                && refs[0].trace_id == self.traces[span.trace as usize]
        };
        for span in &self.spans {
            let refs = &self.refs[span.refs.range()];
            let code = match refs.len() {
                0 => 0,
                1 if is_parent(span, refs) => 1,
                count => count as u64 + 1,
            };
            out.number(code);
        }
        let mut places: HashMap<SpanId, usize> = HashMap::default();
        places.reserve(self.spans.len());
        for (n, span) in self.spans.iter().enumerate() {
            places.insert(span.span_id, n);
        }
        for (n, span) in self.spans.iter().enumerate() {
            let refs = &self.refs[span.refs.range()];
            if is_parent(span, refs) {
                let id = refs[0].span_id;
                match places.get(&id) {
                    Some(&place) if place != n => out.signed(place as i64 - n as i64),
                    _ => {
                        out.number(0);
                        out.0.extend_from_slice(&id.0.to_le_bytes());
                    }
                }
                continue;
            }
            for reference in refs {
                out.0.push(u8::from(reference.kind == RefType::FollowsFrom));
                out.0.extend_from_slice(&reference.trace_id.0.to_le_bytes());
                out.0.extend_from_slice(&reference.span_id.0.to_le_bytes());
            }
        }
    }

    /// The block of an uncompressed body; apart from [`Self::decode`] so that it can be fuzzed.
    pub fn decode_body(body: &[u8]) -> Result<Self, SpanCodecError> {
        let mut from = Reader(body);
        let unit = match from.byte()? {
            0 => 1,
            1 => 1000,
            _ => return malformed("unit of time"),
        };
        let names = from.count(1)?;
        let tags = from.count(2)?;
        let processes = from.count(2)?;
        let traces = from.count(size_of::<TraceId>())?;
        let spans = from.count(16)?;

        let mut block = Self {
            names: from.texts(names)?,
            ..Self::default()
        };
        block.decode_tags(tags, &mut from)?;
        // Each takes a byte at least; most spans have fewer.
        block.tag_lists.reserve((spans * 16).min(from.0.len()));
        block.processes.reserve(processes);
        block.traces.reserve(traces);
        block.refs.reserve(spans);

        let mut used = 0;
        for _ in 0..processes {
            let service = from.below(names)?;
            let tags = from.list(tags, &mut used, &mut block.tag_lists)?;
            block.processes.push(ProcessRow {
                service,
                tags,
                made: OnceLock::new(),
            });
        }
        for _ in 0..traces {
            block
                .traces
                .push(TraceId(u128::from_le_bytes(from.array()?)));
        }

        let mut known = 0u32;
        block.spans.reserve(spans);
        for _ in 0..spans {
            let Some(trace) = from
                .number()?
                .try_into()
                .ok()
                .and_then(|n| known.checked_sub(n))
            else {
                return malformed("trace of a span");
            };
            if trace as usize >= traces {
                return malformed("trace of a span");
            }
            known += u32::from(trace == known);
            block.spans.push(SpanRow {
                span_id: SpanId(0),
                start: 0,
                duration: 0,
                trace,
                process: 0,
                operation: 0,
                flags: 0,
                refs: Part::default(),
                tags: Part::default(),
                logs: Part::default(),
                warnings: Part::default(),
            });
        }
        for span in &mut block.spans {
            span.process = from.below(processes)?;
        }
        for span in &mut block.spans {
            span.operation = from.below(names)?;
        }
        for span in &mut block.spans {
            let Ok(flags) = from.number()?.try_into() else {
                return malformed("flags");
            };
            span.flags = flags;
        }
        let mut start = 0i64;
        for span in &mut block.spans {
            start = start.wrapping_add(from.signed()?);
            span.start = start.wrapping_mul(unit);
        }
        for span in &mut block.spans {
            span.duration = from.number()?.wrapping_mul(unit as u64);
        }
        for span in &mut block.spans {
            span.span_id = SpanId(u64::from_le_bytes(from.array()?));
        }
        block.decode_refs(&mut from)?;
        for n in 0..spans {
            block.spans[n].tags = from.list(tags, &mut used, &mut block.tag_lists)?;
        }
        for n in 0..spans {
            let first = block.logs.len() as u32;
            let begun = block.spans[n].start / unit;
            for _ in 0..from.count(2)? {
                let at = begun.wrapping_add(from.signed()?).wrapping_mul(unit);
                let fields = from.list(tags, &mut used, &mut block.tag_lists)?;
                block.logs.push(LogRow { at, fields });
            }
            block.spans[n].logs = Part {
                start: first,
                end: block.logs.len() as u32,
            };
        }
        for n in 0..spans {
            let first = block.warnings.len() as u32;
            for _ in 0..from.count(1)? {
                block.warnings.push(from.below(names)?);
            }
            block.spans[n].warnings = Part {
                start: first,
                end: block.warnings.len() as u32,
            };
        }
        if !from.0.is_empty() || used as usize != tags || known as usize != traces {
            return malformed("more than its spans need");
        }
        // Blocks are kept: what was only reserved must not be.
        block.tag_lists.shrink_to_fit();
        block.refs.shrink_to_fit();
        block.logs.shrink_to_fit();
        block.warnings.shrink_to_fit();
        Ok(block)
    }

    fn decode_tags(&mut self, tags: usize, from: &mut Reader<'_>) -> Result<(), SpanCodecError> {
        self.tags.reserve(tags);
        for _ in 0..tags {
            let key = from.below(self.names.len())?;
            self.tags.push(TagRow {
                key,
                value: Value::Bool(false),
            });
        }
        for tag in &mut self.tags {
            tag.value = match from.byte()? {
                FALSE => Value::Bool(false),
                TRUE => Value::Bool(true),
                TEXT => Value::Text(0, 0),
                INT => Value::Int(0),
                FLOAT => Value::Float(0.0),
                BLOB => Value::Blob(0, 0),
                _ => return malformed("type of a tag"),
            };
        }
        let mut by_key: Vec<&mut TagRow> = self.tags.iter_mut().collect();
        by_key.sort_by_key(|tag| tag.key); // stable
        let (mut texts, mut blobs) = (0u32, 0u32);
        let next = |total: &mut u32, len: u64| {
            let start = *total;
            match u32::try_from(len)
                .ok()
                .and_then(|len| start.checked_add(len))
            {
                Some(end) => *total = end,
                None => return malformed("length of a value"),
            }
            Ok((start, *total))
        };
        for tag in &mut by_key {
            match &mut tag.value {
                Value::Bool(_) => {}
                Value::Text(start, end) => (*start, *end) = next(&mut texts, from.number()?)?,
                Value::Blob(start, end) => (*start, *end) = next(&mut blobs, from.number()?)?,
                Value::Int(value) => *value = from.signed()?,
                Value::Float(value) => {
                    *value = f64::from_bits(u64::from_le_bytes(from.array()?));
                }
            }
        }
        let Ok(text) = std::str::from_utf8(from.bytes(texts as usize)?) else {
            return malformed("text that is not UTF-8");
        };
        let cut = |tag: &&mut TagRow| match tag.value {
            Value::Text(start, _) => !text.is_char_boundary(start as usize),
            _ => false,
        };
        if by_key.iter().any(cut) {
            return malformed("text cut inside a character");
        }
        self.values = text.to_owned();
        self.blobs = from.bytes(blobs as usize)?.to_vec();
        Ok(())
    }

    fn decode_refs(&mut self, from: &mut Reader<'_>) -> Result<(), SpanCodecError> {
        let mut codes = Vec::with_capacity(self.spans.len());
        for _ in 0..self.spans.len() {
            codes.push(from.number()?);
        }
        for (n, code) in codes.into_iter().enumerate() {
            let first = self.refs.len() as u32;
            if code == 1 {
                let span_id = match from.signed()? {
                    0 => SpanId(u64::from_le_bytes(from.array()?)),
                    distance => {
                        let place = usize::try_from((n as i64).wrapping_add(distance)).ok();
                        match place.and_then(|place| self.spans.get(place)) {
                            Some(parent) => parent.span_id,
                            None => return malformed("parent outside the block"),
                        }
                    }
                };
                let trace_id = self.traces[self.spans[n].trace as usize];
                self.refs.push(SpanRef {
                    kind: RefType::ChildOf,
                    trace_id,
                    span_id,
                });
            } else {
                for _ in 1..code {
                    let kind = match from.byte()? {
                        0 => RefType::ChildOf,
                        1 => RefType::FollowsFrom,
                        _ => return malformed("kind of a reference"),
                    };
                    let trace_id = TraceId(u128::from_le_bytes(from.array()?));
                    let span_id = SpanId(u64::from_le_bytes(from.array()?));
                    self.refs.push(SpanRef {
                        kind,
                        trace_id,
                        span_id,
                    });
                }
            }
            self.spans[n].refs = Part {
                start: first,
                end: self.refs.len() as u32,
            };
        }
        Ok(())
    }
}

/// Writes lists of tags in the order that [`SpanBlock::tags_by_first_use`] foresaw.
struct TagLists {
    places: Vec<u32>,
    used: u32,
}

impl TagLists {
    fn write(&mut self, tags: &[u32], out: &mut Writer) {
        out.number(tags.len() as u64);
        for tag in tags {
            let place = self.places[*tag as usize];
            if place == self.used {
                self.used += 1;
                out.number(0);
            } else {
                out.number(u64::from(place) + 1);
            }
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }
}

/// What is left to read. Everything is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, SpanCodecError> {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                Ok(*byte)
            }
            None => malformed("cut short"),
        }
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], SpanCodecError> {
        match self.0.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(bytes)
            }
            None => malformed("cut short"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SpanCodecError> {
        match self.0.split_first_chunk() {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(*bytes)
            }
            None => malformed("cut short"),
        }
    }

    fn number(&mut self) -> Result<u64, SpanCodecError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        malformed("number of more than 64 bits")
    }

    fn signed(&mut self) -> Result<i64, SpanCodecError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of things that take at least `size` bytes each: what is left must suffice.
    fn count(&mut self, size: usize) -> Result<usize, SpanCodecError> {
        let count = self.number()?;
        if count > (self.0.len() / size) as u64 {
            return malformed("more things than bytes");
        }
        Ok(count as usize)
    }

    /// An index of a table.
    fn below(&mut self, len: usize) -> Result<u32, SpanCodecError> {
        let index = self.number()?;
        if index >= len as u64 {
            malformed("index out of range")
        } else {
            Ok(index as u32)
        }
    }

    fn texts(&mut self, count: usize) -> Result<Texts, SpanCodecError> {
        let mut ends = Vec::with_capacity(count);
        let mut end = 0u32;
        for _ in 0..count {
            match u32::try_from(self.number()?)
                .ok()
                .and_then(|len| end.checked_add(len))
            {
                Some(next) => end = next,
                None => return malformed("length of a name"),
            }
            ends.push(end);
        }
        let Ok(text) = std::str::from_utf8(self.bytes(end as usize)?) else {
            return malformed("name that is not UTF-8");
        };
        if !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
            return malformed("name cut inside a character");
        }
        Ok(Texts {
            text: text.to_owned(),
            ends,
        })
    }

    /// A list of tags, appended to `lists`; `used` tags have been used so far.
    fn list(
        &mut self,
        tags: usize,
        used: &mut u32,
        lists: &mut Vec<u32>,
    ) -> Result<Part, SpanCodecError> {
        let start = lists.len() as u32;
        for _ in 0..self.count(1)? {
            let tag = match self.number()? {
                0 if (*used as usize) < tags => {
                    *used += 1;
                    *used - 1
                }
                n if 0 < n && n <= u64::from(*used) => n as u32 - 1,
                _ => return malformed("tag out of order"),
            };
            lists.push(tag);
        }
        Ok(Part {
            start,
            end: lists.len() as u32,
        })
    }
}
