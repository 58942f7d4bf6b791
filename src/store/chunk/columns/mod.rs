//! A chunk's text with the static and the variable parts of its lines apart.
//!
//! Lines of one stream repeat themselves but for numbers, ids and a few words. Here a text is a
//! walk through an automaton: from a state one of its few edges is taken, which says a piece of
//! static text and, mostly, is followed by a value: a token with a digit in it. The state that
//! an edge leads to is known by the last bytes of the piece (`,"duration":`, ` trace_id=`), so
//! that equal fields meet in one state whatever stood before them; a state's values are a
//! column, encoded by what they have in common. A line begins at state 0.
//!
//! ```text
//! 0 | one zstd frame of the text, or nothing when that is empty
//! 1 | varints: text bytes, tail bytes, seven section sizes, five frame sizes
//!   | frames of zstd, nothing for an empty one | tail
//! ```
//!
//! The frames hold the sections ([`META`] and so on) as [`FRAMES`] says. The tail is what follows
//! the last `\n`. `META` is the number of states, then each state:
//!
//! ```text
//! 1 when values follow, else 0 | number of edges | each edge: length of its piece, state it leads to
//! | with more than one edge: visits (their low bytes are in PICKS, then with more than 256 edges
//!   the high bytes)
//! | with values: 0, length (all are equal, STATIC has it), or their number and a column
//! ```
//!
//! A column is its kind and what the kind needs: see `read_column` in decode.rs.
//!
//! C1. `decode(encode(text)) == text` for every text.
//! C2. Whatever the bytes, `decode` ends with at most `limit` bytes or an error.
//! C3. A text that columns may not suit (short, or little in it repeats) takes no more than a
//!     plain frame and a byte; others are not compared, which would cost a compression.

mod decode;
mod encode;
mod tokens;

use std::cell::RefCell;
use std::io;

use decode::Decoder;
use encode::Encoder;

/// How states, edges and columns look, varints.
const META: usize = 0;
/// Pieces of static text and what all values of a column share.
const STATIC: usize = 1;
/// Values kept as text, and entries of dictionaries.
const WORDS: usize = 2;
/// Which edge, which entry of a dictionary.
const PICKS: usize = 3;
/// Lengths of texts and of numbers.
const LENGTHS: usize = 4;
const NUMBERS: usize = 5;
/// Hex digits, two a byte.
const HEX: usize = 6;
/// How many there are.
pub const SECTIONS: usize = 7;

/// Which sections share a frame, and so a Huffman code. Hex is for the ids that come again.
const FRAMES: [&[usize]; 5] = [
    &[META, STATIC],
    &[WORDS],
    &[LENGTHS, PICKS],
    &[NUMBERS],
    &[HEX],
];
/// zstd level of every frame; level 3 makes them no smaller.
const LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const COLUMNS: u8 = 1;

/// With more edges than this a text is not made of templates.
const EDGES_AT_MOST: usize = 4096;
/// A piece this long says which field follows; a shorter one only together with what was before.
const TELLING: usize = 4;
/// With more states than this, short pieces no longer make new ones.
const STATES_AT_MOST: usize = 1024;
/// With more than one byte of pieces in this many bytes of text, little repeats, and a plain
/// frame is tried as well. In logs that gain it is one in twenty to a hundred.
const PIECES_DOUBTFUL: usize = 12;
/// The same when columns take more than one byte in this many.
const DOUBTFUL: usize = 4;
/// In a shorter text what is said of states and the frames' own tables weigh more.
const SHORT: usize = 64 << 10;
/// Longest value whose bytes are looked at one position at a time.
const SHAPED_AT_MOST: usize = 64;
/// Decimal digits that surely fit in 64 bits.
const DIGITS_AT_MOST: usize = 18;
/// Constants and following pieces up to this long are made part of the piece before.
const FUSED_AT_MOST: usize = 128;
/// A thread keeps its buffers from one text to the next unless that was longer.
const KEPT_AT_MOST: usize = 4 << 20;
/// Bytes after a buffer's end that copies of fixed size may touch.
const SLACK: usize = 64;

// Kinds of column; one whose values are all equal has no kind but a count of 0.
const DICTIONARY: u8 = 1;
const TEXT: u8 = 2;
const FIXED_TEXT: u8 = 3;
const SHAPED_NUMBER: u8 = 4;
const SHAPED_LOWER: u8 = 5;
const SHAPED_UPPER: u8 = 6;
const INTEGER: u8 = 7;
const ADDRESS: u8 = 8;

// How numbers are laid out.
const PLANES: u8 = 0;
const DELTAS: u8 = 1;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::default();
    static DECODER: RefCell<Decoder> = RefCell::default();
}

/// Appends the encoded `text` to `out`. Errors are zstd's.
pub fn encode(text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    ENCODER.with_borrow_mut(|encoder| {
        let encoded = encoder.encode(text, out);
        if text.len() > KEPT_AT_MOST {
            *encoder = Encoder::default();
        }
        encoded
    })
}

/// Decodes into `out`, replacing what it held; an error when that would be more than `limit`.
pub fn decode(bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), String> {
    DECODER.with_borrow_mut(|decoder| {
        let decoded = decoder.decode(bytes, limit, out);
        if decoder.sections.len() > KEPT_AT_MOST {
            *decoder = Decoder::default();
        }
        decoded
    })
}

/// A text of `total` bytes with these sections, whatever is in them: what a fuzzer, which never
/// gets through zstd on its own, has decoded. Errors are zstd's.
pub fn framed(total: usize, sections: [Vec<u8>; SECTIONS], tail: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::default();
    encoder.sections = sections;
    let mut out = Vec::new();
    encoder.write_frames(total, tail, &mut out)?;
    Ok(out)
}

/// The positions whose bits are set, and how many.
fn positions(bits: u64) -> ([u8; 64], usize) {
    let (mut list, mut count, mut rest) = ([0u8; 64], 0, bits);
    while rest != 0 {
        list[count] = rest.trailing_zeros() as u8;
        count += 1;
        rest &= rest - 1;
    }
    (list, count)
}

#[cfg(test)]
mod tests;
