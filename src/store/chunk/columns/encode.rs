//! From a text to its columns.

use std::io;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zstd::bulk::Compressor;

use super::tokens::{Found, Masks, Scan, split};
use super::*;
use crate::store::codec::{put_varint, zigzag};

#[derive(Default)]
struct State {
    /// Hash of the end of the pieces that lead here.
    known_by: u64,
    /// Whether a value follows the pieces that lead here.
    has_value: bool,
    /// The edge taken last.
    last: u32,
    edges: Vec<u32>,
    /// Which of `edges` was taken, each time.
    picks: Vec<u16>,
    values: Vec<Value>,
}

#[derive(Clone, Copy)]
struct Value {
    start: u32,
    len: u32,
}

impl Value {
    #[inline(always)]
    fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start as usize..(self.start + self.len) as usize]
    }
}

#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    start: u32,
    len: u32,
    /// Its place in the state's edges.
    place: u16,
    has_value: bool,
}

const NO_EDGE: u32 = u32::MAX;
/// Slots of the hash tables of edges and states.
const SLOTS: usize = 2 * EDGES_AT_MOST;

#[derive(Default)]
pub struct Encoder {
    masks: Vec<Masks>,
    /// States ever used; the first `states_used` are of this text.
    states: Vec<State>,
    states_used: usize,
    edges: Vec<Edge>,
    /// Hash tables of edges and of states by what they are known by: numbers plus one.
    edge_slots: Vec<u32>,
    state_slots: Vec<u32>,
    pub sections: [Vec<u8>; SECTIONS],
    numbers: Vec<u64>,
    dictionary: Dictionary,
    gathered: Vec<u8>,
    frame: Vec<u8>,
    compressor: Option<Compressor<'static>>,
}

impl Encoder {
    /// Appends the encoded `text` to `out`. Errors are zstd's.
    pub fn encode(&mut self, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let tail = text.len() - memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
        let body = &text[..text.len() - tail];
        if body.is_empty() || text.len() > u32::MAX as usize / 2 || !self.walk(body) {
            return self.plain(text, out);
        }
        for section in &mut self.sections {
            section.clear();
        }
        self.write_states(body);
        // What a reader refuses; and a text of mostly new pieces is not worth the frames.
        let size: usize = self.sections.iter().map(Vec::len).sum();
        if size > text.len() {
            return self.plain(text, out);
        }
        let begin = out.len();
        self.write_frames(text.len(), &text[text.len() - tail..], out)?;
        let len = out.len() - begin;
        let pieces = self.sections[META].len() + self.sections[STATIC].len();
        if pieces * PIECES_DOUBTFUL > text.len()
            || len * DOUBTFUL > text.len()
            || text.len() < SHORT
        {
            let end = out.len();
            self.plain(text, out)?;
            if out.len() - end < len {
                out.copy_within(end.., begin);
                out.truncate(begin + out.len() - end);
            } else {
                out.truncate(end);
            }
        }
        Ok(())
    }

    /// Appends the sections and the tail of a text of `total` bytes.
    pub fn write_frames(&mut self, total: usize, tail: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.push(COLUMNS);
        put_varint(out, total as u64);
        put_varint(out, tail.len() as u64);
        for section in &self.sections {
            put_varint(out, section.len() as u64);
        }
        let mut frames = std::mem::take(&mut self.frame);
        frames.clear();
        for group in FRAMES {
            let before = frames.len();
            self.gathered.clear();
            for section in group {
                self.gathered.extend_from_slice(&self.sections[*section]);
            }
            compress(&mut self.compressor, &self.gathered, &mut frames)?;
            put_varint(out, (frames.len() - before) as u64);
        }
        out.extend_from_slice(&frames);
        self.frame = frames;
        out.extend_from_slice(tail);
        Ok(())
    }

    fn plain(&mut self, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.push(PLAIN);
        compress(&mut self.compressor, text, out)
    }

    /// Walks through `text`, which ends with `\n`, making states and edges on the way. False
    /// when there are too many to be worth it.
    fn walk(&mut self, text: &[u8]) -> bool {
        split(text, &mut self.masks);
        for state in &mut self.states[..self.states_used] {
            state.edges.clear();
            state.picks.clear();
            state.values.clear();
        }
        self.states_used = 0;
        self.edges.clear();
        self.edge_slots.clear();
        self.edge_slots.resize(SLOTS, 0);
        self.state_slots.clear();
        self.state_slots.resize(SLOTS, 0);
        self.new_state(0, false);

        let end = text.len();
        let (mut state, mut at) = (0u32, 0usize);
        let found = std::mem::take(&mut self.masks);
        let mut scan = Scan::new(&found, end);
        let mut fits = true;
        while at < end {
            let Found { start, stop } = scan.next();
            let Some(to) = self.edge(text, state, at, start, stop > start) else {
                fits = false;
                break;
            };
            state = to;
            if stop > start {
                self.states[state as usize].values.push(Value {
                    start: start as u32,
                    len: (stop - start) as u32,
                });
            }
            at = stop;
        }
        self.masks = found;
        fits
    }

    fn new_state(&mut self, known_by: u64, has_value: bool) -> u32 {
        let number = self.states_used;
        if self.states.len() == number {
            self.states.push(State::default());
        }
        let state = &mut self.states[number];
        state.known_by = known_by;
        state.has_value = has_value;
        state.last = NO_EDGE;
        self.states_used += 1;
        number as u32
    }

    /// Takes the edge of that piece, and says where it leads.
    #[inline(always)]
    fn edge(
        &mut self,
        text: &[u8],
        from: u32,
        start: usize,
        stop: usize,
        has_value: bool,
    ) -> Option<u32> {
        let piece = &text[start..stop];
        let state = &mut self.states[from as usize];
        if let Some(edge) = self.edges.get(state.last as usize)
            && edge.has_value == has_value
            && edge.len as usize == piece.len()
            && same(text, edge.start as usize, start, piece.len())
        {
            state.picks.push(edge.place);
            return Some(edge.to);
        }
        self.other_edge(text, from, start, stop, has_value)
    }

    fn other_edge(
        &mut self,
        text: &[u8],
        from: u32,
        start: usize,
        stop: usize,
        has_value: bool,
    ) -> Option<u32> {
        let piece = &text[start..stop];
        let hash = xxh3_64_with_seed(piece, u64::from(from) << 1 | u64::from(has_value));
        let mut slot = hash as usize % SLOTS;
        while let Some(number) = self.edge_slots[slot].checked_sub(1) {
            let edge = &self.edges[number as usize];
            if edge.from == from
                && edge.has_value == has_value
                && edge.len as usize == piece.len()
                && &text[edge.start as usize..(edge.start + edge.len) as usize] == piece
            {
                let state = &mut self.states[from as usize];
                state.last = number;
                state.picks.push(edge.place);
                return Some(edge.to);
            }
            slot = (slot + 1) % SLOTS;
        }
        if self.edges.len() == EDGES_AT_MOST {
            return None;
        }
        let to = self.target(from, piece, has_value);
        let number = self.edges.len() as u32;
        self.edge_slots[slot] = number + 1;
        let state = &mut self.states[from as usize];
        let place = state.edges.len() as u16;
        state.last = number;
        state.edges.push(number);
        state.picks.push(place);
        self.edges.push(Edge {
            from,
            to,
            start: start as u32,
            len: piece.len() as u32,
            place,
            has_value,
        });
        Some(to)
    }

    /// The state that `piece` leads to.
    fn target(&mut self, from: u32, piece: &[u8], has_value: bool) -> u32 {
        if piece.last() == Some(&b'\n') && !has_value {
            return 0;
        }
        let known_by = &piece[piece.len().saturating_sub(8)..];
        let seed = if piece.len() >= TELLING || self.states_used >= STATES_AT_MOST {
            u64::from(u32::MAX)
        } else {
            u64::from(from)
        };
        let hash = xxh3_64_with_seed(known_by, seed << 1 | u64::from(has_value));
        let mut slot = hash as usize % SLOTS;
        while let Some(number) = self.state_slots[slot].checked_sub(1) {
            // Two fields of one hash would share a column, which is as right.
            let state = &self.states[number as usize];
            if state.known_by == hash && state.has_value == has_value {
                return number;
            }
            slot = (slot + 1) % SLOTS;
        }
        let number = self.new_state(hash, has_value);
        self.state_slots[slot] = number + 1;
        number
    }

    fn write_states(&mut self, text: &[u8]) {
        put_varint(&mut self.sections[META], self.states_used as u64);
        for number in 0..self.states_used {
            let state = std::mem::take(&mut self.states[number]);
            let [meta, fixed, ..] = &mut self.sections;
            meta.push(u8::from(state.has_value));
            put_varint(meta, state.edges.len() as u64);
            for edge in &state.edges {
                let edge = &self.edges[*edge as usize];
                put_varint(meta, u64::from(edge.len));
                put_varint(meta, u64::from(edge.to));
                fixed.extend_from_slice(
                    &text[edge.start as usize..(edge.start + edge.len) as usize],
                );
            }
            if state.edges.len() > 1 {
                put_varint(&mut self.sections[META], state.picks.len() as u64);
                self.sections[PICKS].extend(state.picks.iter().map(|pick| *pick as u8));
                if state.edges.len() > 256 {
                    self.sections[PICKS].extend(state.picks.iter().map(|pick| (*pick >> 8) as u8));
                }
            }
            if state.has_value {
                self.write_column(text, &state.values);
            }
            self.states[number] = state;
        }
    }

    fn write_column(&mut self, text: &[u8], values: &[Value]) {
        let first = values[0].of(text);
        if values.iter().all(|value| value.of(text) == first) {
            let meta = &mut self.sections[META];
            put_varint(meta, 0);
            put_varint(meta, first.len() as u64);
            self.sections[STATIC].extend_from_slice(first);
            return;
        }
        put_varint(&mut self.sections[META], values.len() as u64);
        let len = values[0].len;
        let shape = if values.iter().all(|value| value.len == len) && len as usize <= SHAPED_AT_MOST
        {
            Shape::of(text, values)
        } else {
            None
        };
        let long_hex = shape
            .as_ref()
            .is_some_and(|shape| shape.kind != SHAPED_NUMBER && shape.varying.count_ones() >= 8);
        if !long_hex && self.write_dictionary(text, values) {
            return;
        }
        match shape {
            Some(shape) if shape.kind == SHAPED_NUMBER || shape.varying.count_ones() >= 4 => {
                self.write_shaped(text, values, &shape);
            }
            _ => {
                if !self.write_integers(text, values) && !self.write_addresses(text, values) {
                    self.write_text(text, values);
                }
            }
        }
    }

    fn write_shaped(&mut self, text: &[u8], values: &[Value], shape: &Shape) {
        let meta = &mut self.sections[META];
        meta.push(shape.kind);
        put_varint(meta, u64::from(values[0].len));
        put_varint(meta, shape.varying);
        self.sections[STATIC].extend_from_slice(values[0].of(text));
        let (positions, count) = positions(shape.varying);
        let positions = &positions[..count];
        if shape.kind == SHAPED_NUMBER {
            self.numbers.clear();
            for value in values {
                let bytes = value.of(text);
                let number = positions
                    .iter()
                    .fold(0u64, |n, at| n * 10 + u64::from(bytes[*at as usize] - b'0'));
                self.numbers.push(number);
            }
            self.write_numbers();
            return;
        }
        let hex = &mut self.sections[HEX];
        let nibble = |c: u8| (c & 15) + 9 * (c >> 6);
        for value in values {
            let bytes = value.of(text);
            let mut digits = [0u8; SHAPED_AT_MOST];
            if count == bytes.len() {
                digits[..count].copy_from_slice(bytes);
            } else {
                for (digit, at) in digits.iter_mut().zip(positions) {
                    *digit = bytes[*at as usize];
                }
            }
            let mut packed = [0u8; SHAPED_AT_MOST / 2];
            for (packed, pair) in packed.iter_mut().zip(digits.as_chunks::<2>().0) {
                *packed = nibble(pair[0]) << 4 | nibble(pair[1]);
            }
            hex.extend_from_slice(&packed[..count.div_ceil(2)]);
        }
    }

    /// Writes decimal numbers without leading zeros as numbers, if that is what they all are.
    fn write_integers(&mut self, text: &[u8], values: &[Value]) -> bool {
        self.numbers.clear();
        for value in values {
            let bytes = value.of(text);
            if bytes.len() > DIGITS_AT_MOST || (bytes[0] == b'0' && bytes.len() > 1) {
                return false;
            }
            let mut number = 0u64;
            for byte in bytes {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    return false;
                }
                number = number * 10 + u64::from(digit);
            }
            self.numbers.push(number);
        }
        self.sections[META].push(INTEGER);
        self.write_numbers();
        true
    }

    /// Writes IPv4 addresses as four bytes each, if that is what they all are.
    fn write_addresses(&mut self, text: &[u8], values: &[Value]) -> bool {
        self.numbers.clear();
        for value in values {
            let Some(address) = address(value.of(text)) else {
                return false;
            };
            self.numbers.push(u64::from(u32::from_be_bytes(address)));
        }
        self.sections[META].push(ADDRESS);
        self.write_numbers();
        true
    }

    fn write_numbers(&mut self) {
        let numbers = &self.numbers[..];
        let (mut least, mut most, mut bytes) = (u64::MAX, 0, 0);
        let mut before = numbers[0];
        for number in numbers {
            least = least.min(*number);
            most = most.max(*number);
            bytes += bytes_of(zigzag(number.wrapping_sub(before) as i64));
            before = *number;
        }
        let width = bytes_of(most - least);
        let [meta, _, _, picks, lengths, out, _] = &mut self.sections;
        if bytes * 10 < width * numbers.len() * 9 {
            meta.push(DELTAS);
            put_varint(meta, numbers[0]);
            let mut before = numbers[0];
            for number in numbers {
                let delta = zigzag(number.wrapping_sub(before) as i64);
                let len = bytes_of(delta);
                lengths.push(len as u8);
                let at = out.len();
                out.extend_from_slice(&delta.to_le_bytes());
                out.truncate(at + len);
                before = *number;
            }
        } else {
            meta.push(PLANES);
            put_varint(meta, least);
            meta.push(width as u8);
            let uneven = meta.len();
            meta.push(0);
            for plane in 0..width {
                let begin = out.len();
                out.extend(
                    numbers
                        .iter()
                        .map(|number| ((number - least) >> (8 * plane)) as u8),
                );
                if is_uneven(&out[begin..]) {
                    meta[uneven] |= 1 << plane;
                    picks.extend_from_slice(&out[begin..]);
                    out.truncate(begin);
                }
            }
        }
    }

    /// Writes values as entries of a dictionary, if they are few enough.
    fn write_dictionary(&mut self, text: &[u8], values: &[Value]) -> bool {
        if values.len() < 4 {
            return false;
        }
        let before = self.sections[PICKS].len();
        self.dictionary.clear();
        for (seen, value) in values.iter().enumerate() {
            let pick = self.dictionary.entry(text, *value);
            // Fewer than one in four new, after a start, and no more than a byte can say.
            if self.dictionary.entries.len() > (16 + seen / 4).min(256) {
                self.sections[PICKS].truncate(before);
                return false;
            }
            self.sections[PICKS].push(pick);
        }
        if self.dictionary.entries.len() * 2 > values.len() {
            self.sections[PICKS].truncate(before);
            return false;
        }
        let [meta, _, words, ..] = &mut self.sections;
        meta.push(DICTIONARY);
        put_varint(meta, self.dictionary.entries.len() as u64);
        for entry in &self.dictionary.entries {
            put_varint(meta, u64::from(entry.len));
            words.extend_from_slice(entry.of(text));
        }
        true
    }

    fn write_text(&mut self, text: &[u8], values: &[Value]) {
        let [meta, _, words, _, lengths, ..] = &mut self.sections;
        let len = values[0].len;
        if values.iter().all(|value| value.len == len) {
            meta.push(FIXED_TEXT);
            put_varint(meta, u64::from(len));
        } else {
            meta.push(TEXT);
            for value in values {
                if value.len < 255 {
                    lengths.push(value.len as u8);
                } else {
                    lengths.push(255);
                    lengths.extend_from_slice(&value.len.to_le_bytes());
                }
            }
        }
        for value in values {
            words.extend_from_slice(value.of(text));
        }
    }
}

/// What values of one length have in common.
struct Shape {
    /// [`SHAPED_NUMBER`], [`SHAPED_LOWER`] or [`SHAPED_UPPER`].
    kind: u8,
    /// Positions at which they differ.
    varying: u64,
}

impl Shape {
    /// None when what varies is not digits of one kind.
    fn of(text: &[u8], values: &[Value]) -> Option<Self> {
        let len = values[0].len as usize;
        let lanes = len.div_ceil(16);
        let mut differs = [[0u8; 16]; SHAPED_AT_MOST / 16];
        // Per position a bit for each kind that some value does not fit.
        let mut unfit = [[0u8; 16]; SHAPED_AT_MOST / 16];
        let mut first = [[0u8; 16]; SHAPED_AT_MOST / 16];
        first.as_flattened_mut()[..len].copy_from_slice(values[0].of(text));
        let mut last = [0u8; SHAPED_AT_MOST];
        for value in values {
            let start = value.start as usize;
            let bytes = match text.get(start..start + lanes * 16) {
                Some(bytes) => bytes,
                None => {
                    last[..len].copy_from_slice(value.of(text));
                    &last[..lanes * 16]
                }
            };
            for (lane, bytes) in bytes.as_chunks::<16>().0.iter().enumerate() {
                let (differs, unfit, first) = (&mut differs[lane], &mut unfit[lane], &first[lane]);
                for i in 0..16 {
                    let byte = bytes[i];
                    let no_digit = u8::from(byte.wrapping_sub(b'0') > 9);
                    let no_lower = no_digit & u8::from(byte.wrapping_sub(b'a') > 5);
                    let no_upper = no_digit & u8::from(byte.wrapping_sub(b'A') > 5);
                    differs[i] |= byte ^ first[i];
                    unfit[i] |= no_digit | no_lower << 1 | no_upper << 2;
                }
            }
        }
        let (mut varying, mut unfit_all) = (0u64, 0u8);
        for i in 0..len {
            if differs.as_flattened()[i] != 0 {
                varying |= 1 << i;
                unfit_all |= unfit.as_flattened()[i];
            }
        }
        let digits = varying.count_ones() as usize;
        let kind = if unfit_all & 1 == 0 && digits <= DIGITS_AT_MOST {
            SHAPED_NUMBER
        } else if unfit_all & 2 == 0 {
            SHAPED_LOWER
        } else if unfit_all & 4 == 0 {
            SHAPED_UPPER
        } else {
            return None;
        };
        Some(Self { kind, varying })
    }
}

const DICTIONARY_SLOTS: usize = 1024;

#[derive(Default)]
struct Dictionary {
    entries: Vec<Value>,
    slots: Vec<u16>,
}

impl Dictionary {
    fn clear(&mut self) {
        self.entries.clear();
        self.slots.clear();
        self.slots.resize(DICTIONARY_SLOTS, 0);
    }

    /// The entry of that value, a new one if need be.
    #[inline(always)]
    fn entry(&mut self, text: &[u8], value: Value) -> u8 {
        let bytes = value.of(text);
        let mut slot = xxh3_64(bytes) as usize % DICTIONARY_SLOTS;
        while let Some(number) = self.slots[slot].checked_sub(1) {
            if self.entries[number as usize].of(text) == bytes {
                return number as u8;
            }
            slot = (slot + 1) % DICTIONARY_SLOTS;
        }
        self.slots[slot] = self.entries.len() as u16 + 1;
        self.entries.push(value);
        (self.entries.len() - 1) as u8
    }
}

/// Whether some byte is so frequent that picks, and not numbers, are the company to keep: a
/// frame's Huffman code is one for all that is in it.
fn is_uneven(plane: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    for byte in plane {
        counts[*byte as usize] += 1;
    }
    counts.iter().any(|count| *count as usize * 8 > plane.len())
}

/// Whether `text` has the same `len` bytes at both places.
#[inline(always)]
fn same(text: &[u8], a: usize, b: usize, len: usize) -> bool {
    if len <= 16
        && let (Some(a), Some(b)) = (text.get(a..a + 16), text.get(b..b + 16))
    {
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk::<16>()
                .map_or(0, |c| u128::from_le_bytes(*c))
        };
        return len == 0 || (word(a) ^ word(b)) << (128 - 8 * len) == 0;
    }
    text[a..a + len] == text[b..b + len]
}

/// An IPv4 address as everyone writes it.
#[inline(always)]
fn address(bytes: &[u8]) -> Option<[u8; 4]> {
    if bytes.len() < 7 || bytes.len() > 15 {
        return None;
    }
    let mut parts = [0u8; 4];
    let (mut part, mut number, mut digits) = (0, 0u32, 0);
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            if digits > 0 && number == 0 || digits == 3 {
                return None;
            }
            number = number * 10 + u32::from(digit);
            digits += 1;
        } else {
            if *byte != b'.' || digits == 0 || part == 3 {
                return None;
            }
            parts[part] = u8::try_from(number).ok()?;
            part += 1;
            (number, digits) = (0, 0);
        }
    }
    if part != 3 || digits == 0 {
        return None;
    }
    parts[3] = u8::try_from(number).ok()?;
    Some(parts)
}

/// Appends one zstd frame of `bytes`; nothing for nothing.
pub fn compress(
    compressor: &mut Option<Compressor<'static>>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let compressor = match compressor {
        Some(compressor) => compressor,
        None => compressor.insert(Compressor::new(LEVEL)?),
    };
    let before = out.len();
    out.resize(before + zstd::zstd_safe::compress_bound(bytes.len()), 0);
    let size = compressor.compress_to_buffer(bytes, &mut out[before..])?;
    out.truncate(before + size);
    Ok(())
}

/// Bytes that a number needs; none for 0.
fn bytes_of(number: u64) -> usize {
    (71 - number.leading_zeros() as usize) / 8
}
