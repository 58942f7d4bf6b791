//! From columns to the text.

use zstd::bulk::Decompressor;

use super::*;
use crate::store::codec::unzigzag;

/// A part of the decoded sections that is read from front to back.
#[derive(Clone, Copy, Default)]
struct Cursor {
    at: usize,
    end: usize,
}

impl Cursor {
    /// The next `len` bytes' place.
    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<usize, String> {
        if len > self.end - self.at {
            return Err("section ends early".into());
        }
        let at = self.at;
        self.at += len;
        Ok(at)
    }

    #[inline(always)]
    fn part(&mut self, len: usize) -> Result<Cursor, String> {
        let at = self.take(len)?;
        Ok(Cursor { at, end: at + len })
    }

    #[inline(always)]
    fn u8(&mut self, bytes: &[u8]) -> Result<u8, String> {
        let at = self.take(1)?;
        Ok(bytes[at])
    }

    fn varint(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.u8(bytes)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint too long".into())
    }

    fn size(&mut self, bytes: &[u8]) -> Result<usize, String> {
        usize::try_from(self.varint(bytes)?)
            .ok()
            .filter(|n| *n <= u32::MAX as usize)
            .ok_or_else(|| "size out of range".into())
    }
}

#[derive(Clone, Copy)]
enum Numbers {
    Planes {
        least: u64,
        width: usize,
        count: usize,
        planes: [u32; 8],
        index: usize,
    },
    Deltas {
        before: u64,
        lengths: Cursor,
        bytes: Cursor,
    },
}

impl Numbers {
    #[inline(always)]
    fn next(&mut self, sections: &[u8]) -> Result<u64, String> {
        match self {
            Self::Planes {
                least,
                width,
                count,
                planes,
                index,
            } => {
                if *index >= *count {
                    return Err("column ends early".into());
                }
                let mut number = 0;
                for (plane, at) in planes[..*width].iter().enumerate() {
                    number |= u64::from(sections[*at as usize + *index]) << (8 * plane);
                }
                *index += 1;
                Ok(number.wrapping_add(*least))
            }
            Self::Deltas {
                before,
                lengths,
                bytes,
            } => {
                let len = lengths.u8(sections)? as usize;
                if len > 8 {
                    return Err("number too long".into());
                }
                let at = bytes.take(len)?;
                let mut number = [0; 8];
                number.copy_from_slice(&sections[at..at + 8]);
                let kept = if len == 8 {
                    u64::MAX
                } else {
                    (1 << (8 * len)) - 1
                };
                *before = before.wrapping_add(unzigzag(u64::from_le_bytes(number) & kept) as u64);
                Ok(*before)
            }
        }
    }
}

enum Column {
    None,
    Constant {
        at: usize,
        len: usize,
    },
    Dictionary {
        first: usize,
        count: usize,
        picks: Cursor,
    },
    Text {
        lengths: Cursor,
        bytes: Cursor,
    },
    FixedText {
        len: usize,
        bytes: Cursor,
    },
    Number {
        at: usize,
        len: usize,
        positions: Box<([u8; 64], usize)>,
        numbers: Numbers,
    },
    Hex {
        at: usize,
        len: usize,
        positions: Box<([u8; 64], usize)>,
        digits: &'static [[u8; 2]; 256],
        bytes: Cursor,
    },
    Integer {
        numbers: Numbers,
    },
    Address {
        numbers: Numbers,
    },
}

struct OpenState {
    first: usize,
    count: usize,
    /// Low and high bytes of which edge.
    low: Cursor,
    high: Cursor,
    column: Column,
}

#[derive(Clone, Copy)]
struct Text {
    at: u32,
    len: u32,
    to: u32,
}

#[derive(Default)]
pub struct Decoder {
    pub sections: Vec<u8>,
    states: Vec<OpenState>,
    /// Edges of all states, and entries of all dictionaries.
    edges: Vec<Text>,
    entries: Vec<Text>,
    decompressor: Option<Decompressor<'static>>,
}

impl Decoder {
    pub fn decode(&mut self, bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        let mut r = Cursor {
            at: 0,
            end: bytes.len(),
        };
        match r.u8(bytes)? {
            PLAIN => {
                let frame = &bytes[1..];
                if frame.is_empty() {
                    return Ok(());
                }
                let size = match zstd::zstd_safe::get_frame_content_size(frame) {
                    Ok(Some(size)) if size <= limit as u64 => size as usize,
                    _ => return Err("frame size missing or too large".into()),
                };
                out.reserve(size);
                let got = decompressor(&mut self.decompressor)?
                    .decompress_to_buffer(frame, out)
                    .map_err(|e| e.to_string())?;
                return if got == size {
                    Ok(())
                } else {
                    Err("frame is shorter than it says".into())
                };
            }
            COLUMNS => {}
            kind => return Err(format!("text of unknown kind {kind}")),
        }
        let total = r.size(bytes)?;
        let tail = r.size(bytes)?;
        if total > limit || tail > total {
            return Err("text is longer than allowed".into());
        }
        let mut sizes = [0; SECTIONS];
        for size in &mut sizes {
            *size = r.size(bytes)?;
        }
        if sizes.iter().sum::<usize>() > total {
            return Err("sections are longer than the text".into());
        }
        let mut frames = [0; FRAMES.len()];
        for frame in &mut frames {
            *frame = r.size(bytes)?;
        }
        let inside = sizes.iter().sum::<usize>();
        self.sections
            .resize((inside + SLACK).max(self.sections.len()), 0);
        let mut places = [Cursor::default(); SECTIONS];
        let mut at = 0;
        for (frame, group) in frames.into_iter().zip(FRAMES) {
            let size: usize = group.iter().map(|section| sizes[*section]).sum();
            let frame = r.part(frame)?;
            if size > 0 {
                let got = decompressor(&mut self.decompressor)?
                    .decompress_to_buffer(
                        &bytes[frame.at..frame.end],
                        &mut self.sections[at..at + size],
                    )
                    .map_err(|e| e.to_string())?;
                if got != size {
                    return Err("frame is shorter than it says".into());
                }
            }
            for section in group {
                places[*section] = Cursor {
                    at,
                    end: at + sizes[*section],
                };
                at += sizes[*section];
            }
        }
        let tail = r.part(tail)?;
        if r.at != r.end {
            return Err("bytes after the text's end".into());
        }
        self.read_states(&mut places)?;
        self.fuse(inside, total)?;
        let body = total - (tail.end - tail.at);
        out.resize(body + SLACK, 0);
        walk(
            &self.sections,
            &mut self.states,
            &self.edges,
            &self.entries,
            body,
            out,
        )?;
        out.truncate(body);
        out.extend_from_slice(&bytes[tail.at..tail.end]);
        Ok(())
    }

    fn read_states(&mut self, places: &mut [Cursor; SECTIONS]) -> Result<(), String> {
        let s = &self.sections[..];
        self.states.clear();
        self.edges.clear();
        self.entries.clear();
        let count = places[META].size(s)?;
        if count == 0 || count > places[META].end - places[META].at {
            return Err("no states, or more than there can be".into());
        }
        for _ in 0..count {
            let has_value = places[META].u8(s)? != 0;
            let edges = places[META].size(s)?;
            let first = self.edges.len();
            for _ in 0..edges {
                let len = places[META].size(s)?;
                let to = places[META].size(s)?;
                if to >= count {
                    return Err("edge to nowhere".into());
                }
                let at = places[STATIC].take(len)?;
                self.edges.push(Text {
                    at: at as u32,
                    len: len as u32,
                    to: to as u32,
                });
            }
            let (mut low, mut high) = (Cursor::default(), Cursor::default());
            if edges > 1 {
                let visits = places[META].size(s)?;
                low = places[PICKS].part(visits)?;
                if edges > 256 {
                    high = places[PICKS].part(visits)?;
                }
            }
            let column = if has_value {
                read_column(s, places, &mut self.entries)?
            } else {
                Column::None
            };
            self.states.push(OpenState {
                first,
                count: edges,
                low,
                high,
                column,
            });
        }
        Ok(())
    }

    /// Makes one text of pieces and constants that always follow each other: each would cost a
    /// step of the walk. Texts so made lie behind the sections, of which there are `inside`
    /// bytes.
    fn fuse(&mut self, inside: usize, total: usize) -> Result<(), String> {
        self.sections.truncate(inside);
        for number in 0..self.edges.len() {
            let edge = self.edges[number];
            let begin = self.sections.len();
            append(&mut self.sections, edge);
            let mut to = edge.to as usize;
            let mut fused = false;
            loop {
                let state = &self.states[to];
                match state.column {
                    Column::Constant { at, len } if len <= FUSED_AT_MOST => {
                        append(
                            &mut self.sections,
                            Text {
                                at: at as u32,
                                len: len as u32,
                                to: 0,
                            },
                        );
                        fused = true;
                    }
                    Column::None => {}
                    _ => break,
                }
                // Lines begin apart.
                if to == 0 || state.count != 1 {
                    break;
                }
                let next = self.edges[state.first];
                let made = self.sections.len();
                if next.len as usize > FUSED_AT_MOST
                    || made - begin > FUSED_AT_MOST
                    || made - inside > 4 * total
                {
                    break;
                }
                append(&mut self.sections, next);
                fused = true;
                to = next.to as usize;
                if state.first < number {
                    // It is fused itself, with the constant after it.
                    break;
                }
            }
            if !fused {
                self.sections.truncate(begin);
                continue;
            }
            let len = self.sections.len() - begin;
            // Every edge and the constant after it stand in the text at least once, so what is
            // not damaged stays below this.
            if self.sections.len() - inside > 8 * total + 4096 {
                return Err("more fixed text than there is text".into());
            }
            self.edges[number] = Text {
                at: begin as u32,
                len: len as u32,
                to: to as u32,
            };
        }
        for state in &mut self.states {
            if matches!(state.column, Column::Constant { len, .. } if len <= FUSED_AT_MOST) {
                state.column = Column::None;
            }
        }
        self.sections.resize(self.sections.len() + SLACK, 0);
        Ok(())
    }
}

fn append(sections: &mut Vec<u8>, text: Text) {
    let at = text.at as usize;
    sections.extend_from_within(at..at + text.len as usize);
}

fn decompressor<'a>(
    slot: &'a mut Option<Decompressor<'static>>,
) -> Result<&'a mut Decompressor<'static>, String> {
    match slot {
        Some(decompressor) => Ok(decompressor),
        None => Ok(slot.insert(Decompressor::new().map_err(|e| e.to_string())?)),
    }
}

static LOWER: [[u8; 2]; 256] = hex_table(b"0123456789abcdef");
static UPPER: [[u8; 2]; 256] = hex_table(b"0123456789ABCDEF");

const fn hex_table(digits: &[u8; 16]) -> [[u8; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [digits[i >> 4], digits[i & 15]];
        i += 1;
    }
    table
}

fn read_numbers(
    s: &[u8],
    count: usize,
    places: &mut [Cursor; SECTIONS],
) -> Result<Numbers, String> {
    let [meta, _, _, picks, lengths, numbers, _] = places;
    match meta.u8(s)? {
        PLANES => {
            let least = meta.varint(s)?;
            let width = meta.u8(s)? as usize;
            if width > 8 {
                return Err("number too wide".into());
            }
            let uneven = meta.u8(s)?;
            let mut planes = [0; 8];
            for (plane, at) in planes[..width].iter_mut().enumerate() {
                let section = if uneven >> plane & 1 == 0 {
                    &mut *numbers
                } else {
                    &mut *picks
                };
                *at = section.take(count)? as u32;
            }
            Ok(Numbers::Planes {
                least,
                width,
                count,
                planes,
                index: 0,
            })
        }
        DELTAS => {
            let before = meta.varint(s)?;
            let lengths = lengths.part(count)?;
            let bytes: usize = s[lengths.at..lengths.end]
                .iter()
                .map(|len| *len as usize)
                .sum();
            Ok(Numbers::Deltas {
                before,
                lengths,
                bytes: numbers.part(bytes)?,
            })
        }
        layout => Err(format!("numbers of unknown layout {layout}")),
    }
}

fn read_column(
    s: &[u8],
    places: &mut [Cursor; SECTIONS],
    entries: &mut Vec<Text>,
) -> Result<Column, String> {
    let [meta, fixed, words, picks, lengths, ..] = places;
    let first = meta.size(s)?;
    if first == 0 {
        let len = meta.size(s)?;
        return Ok(Column::Constant {
            at: fixed.take(len)?,
            len,
        });
    }
    let count = first;
    Ok(match meta.u8(s)? {
        DICTIONARY => {
            let size = meta.size(s)?;
            let first = entries.len();
            for _ in 0..size {
                let len = meta.size(s)?;
                let at = words.take(len)?;
                entries.push(Text {
                    at: at as u32,
                    len: len as u32,
                    to: 0,
                });
            }
            Column::Dictionary {
                first,
                count: size,
                picks: picks.part(count)?,
            }
        }
        TEXT => {
            let begin = *lengths;
            let mut bytes = 0usize;
            for _ in 0..count {
                bytes += text_length(s, lengths)?;
            }
            let lengths = Cursor {
                at: begin.at,
                end: lengths.at,
            };
            Column::Text {
                lengths,
                bytes: words.part(bytes)?,
            }
        }
        FIXED_TEXT => {
            let len = meta.size(s)?;
            Column::FixedText {
                len,
                bytes: words.part(len.checked_mul(count).ok_or("too much text")?)?,
            }
        }
        kind @ (SHAPED_NUMBER | SHAPED_LOWER | SHAPED_UPPER) => {
            let len = meta.size(s)?;
            let varying = meta_u64(s, meta)?;
            if len > SHAPED_AT_MOST || (len < 64 && varying >> len != 0) {
                return Err("shape is longer than its value".into());
            }
            let at = fixed.take(len)?;
            let positions = Box::new(positions(varying));
            if kind == SHAPED_NUMBER {
                Column::Number {
                    at,
                    len,
                    positions,
                    numbers: read_numbers(s, count, places)?,
                }
            } else {
                let digits = if kind == SHAPED_LOWER { &LOWER } else { &UPPER };
                let bytes = places[HEX].part(
                    positions
                        .1
                        .div_ceil(2)
                        .checked_mul(count)
                        .ok_or("too much hex")?,
                )?;
                Column::Hex {
                    at,
                    len,
                    positions,
                    digits,
                    bytes,
                }
            }
        }
        INTEGER => Column::Integer {
            numbers: read_numbers(s, count, places)?,
        },
        ADDRESS => Column::Address {
            numbers: read_numbers(s, count, places)?,
        },
        kind => return Err(format!("column of unknown kind {kind}")),
    })
}

/// A varint of all 64 bits.
fn meta_u64(s: &[u8], meta: &mut Cursor) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = meta.u8(s)?;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("varint too long".into())
}

#[inline(always)]
fn text_length(s: &[u8], lengths: &mut Cursor) -> Result<usize, String> {
    let len = lengths.u8(s)?;
    if len < 255 {
        return Ok(len as usize);
    }
    let at = lengths.take(4)?;
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&s[at..at + 4]);
    Ok(u32::from_le_bytes(bytes) as usize)
}

/// Appends to `out`, of which `at` bytes are written and the last [`SLACK`] are to spare.
#[inline(always)]
fn put(
    out: &mut [u8],
    at: &mut usize,
    body: usize,
    s: &[u8],
    from: usize,
    len: usize,
) -> Result<(), String> {
    if len > body - *at {
        return Err("text is longer than it says".into());
    }
    if len <= 16 {
        // More than asked for, which costs less than a copy of just so many bytes.
        out[*at..*at + 16].copy_from_slice(&s[from..from + 16]);
    } else if len <= 32 {
        out[*at..*at + 32].copy_from_slice(&s[from..from + 32]);
    } else {
        out[*at..*at + len].copy_from_slice(&s[from..from + len]);
    }
    *at += len;
    Ok(())
}

fn walk(
    s: &[u8],
    states: &mut [OpenState],
    edges: &[Text],
    entries: &[Text],
    body: usize,
    out: &mut [u8],
) -> Result<(), String> {
    let (mut at, mut state) = (0usize, 0usize);
    // Edges may say nothing; a damaged text must not follow them for ever.
    let mut steps = 2 * body + 2;
    while at < body {
        steps -= 1;
        if steps == 0 {
            return Err("states without text".into());
        }
        let open = &mut states[state];
        let pick = if open.count == 1 {
            0
        } else {
            let low = open.low.u8(s)? as usize;
            if open.count > 256 {
                low | (open.high.u8(s)? as usize) << 8
            } else {
                low
            }
        };
        if pick >= open.count {
            return Err("edge out of range".into());
        }
        let edge = edges[open.first + pick];
        put(out, &mut at, body, s, edge.at as usize, edge.len as usize)?;
        state = edge.to as usize;
        match &mut states[state].column {
            Column::None => {}
            Column::Constant { at: from, len } => put(out, &mut at, body, s, *from, *len)?,
            Column::Dictionary {
                first,
                count,
                picks,
            } => {
                let pick = picks.u8(s)? as usize;
                if pick >= *count {
                    return Err("entry out of range".into());
                }
                let entry = entries[*first + pick];
                put(out, &mut at, body, s, entry.at as usize, entry.len as usize)?;
            }
            Column::Text { lengths, bytes } => {
                let len = text_length(s, lengths)?;
                let from = bytes.take(len)?;
                put(out, &mut at, body, s, from, len)?;
            }
            Column::FixedText { len, bytes } => {
                let from = bytes.take(*len)?;
                put(out, &mut at, body, s, from, *len)?;
            }
            Column::Number {
                at: from,
                len,
                positions,
                numbers,
            } => {
                let (digits, _) = decimal(numbers.next(s)?);
                let begin = at;
                put(out, &mut at, body, s, *from, *len)?;
                let value = &mut out[begin..at];
                let count = positions.1.min(20);
                for (position, digit) in positions.0[..count].iter().zip(&digits[20 - count..]) {
                    value[*position as usize] = *digit;
                }
            }
            Column::Hex {
                at: from,
                len,
                positions,
                digits,
                bytes,
            } => {
                let count = positions.1;
                let packed = bytes.take(count.div_ceil(2))?;
                let packed = &s[packed..packed + count.div_ceil(2)];
                if count == *len && count % 2 == 0 {
                    if *len > body - at {
                        return Err("text is longer than it says".into());
                    }
                    let value = &mut out[at..at + *len];
                    for (pair, byte) in value.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
                        *pair = digits[*byte as usize];
                    }
                    at += *len;
                } else {
                    let begin = at;
                    put(out, &mut at, body, s, *from, *len)?;
                    let value = &mut out[begin..at];
                    for (pair, byte) in positions.0[..count].chunks(2).zip(packed) {
                        for (position, digit) in pair.iter().zip(digits[*byte as usize]) {
                            value[*position as usize] = digit;
                        }
                    }
                }
            }
            Column::Integer { numbers } => {
                let number = numbers.next(s)?;
                let (digits, len) = decimal(number);
                if len > body - at {
                    return Err("text is longer than it says".into());
                }
                out[at..at + len].copy_from_slice(&digits[20 - len..]);
                at += len;
            }
            Column::Address { numbers } => {
                let octets = (numbers.next(s)? as u32).to_be_bytes();
                let mut len = 0;
                let mut value = [0u8; 20];
                for octet in octets {
                    let (text, digits) = OCTETS[octet as usize];
                    value[len..len + 4].copy_from_slice(&text);
                    len += digits as usize;
                }
                len -= 1;
                if len > body - at {
                    return Err("text is longer than it says".into());
                }
                out[at..at + 16].copy_from_slice(&value[..16]);
                at += len;
            }
        }
    }
    Ok(())
}

/// Each number of a byte with a dot after it, and its length with that.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut table = [([0; 4], 0); 256];
    let mut i = 0;
    while i < 256 {
        let (a, b, c) = (
            b'0' + (i / 100) as u8,
            b'0' + (i / 10 % 10) as u8,
            b'0' + (i % 10) as u8,
        );
        table[i] = if i >= 100 {
            ([a, b, c, b'.'], 4)
        } else if i >= 10 {
            ([b, c, b'.', 0], 3)
        } else {
            ([c, b'.', 0, 0], 2)
        };
        i += 1;
    }
    table
};

static PAIRS: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
};

/// A number's decimal digits, at the end of the array with zeros before them as far as they
/// come in pairs, and how many there are without any.
#[inline(always)]
fn decimal(mut number: u64) -> ([u8; 20], usize) {
    let mut digits = [b'0'; 20];
    let mut at = 20;
    while number >= 100 {
        at -= 2;
        [digits[at], digits[at + 1]] = PAIRS[(number % 100) as usize];
        number /= 100;
    }
    at -= 2;
    [digits[at], digits[at + 1]] = PAIRS[number as usize];
    (digits, 20 - at - usize::from(number < 10))
}
