//! Which tags a run of blocks has, so that a search for a rare one rules out many blocks by one
//! look, however many there are.
//!
//! A run is blocks with consecutive numbers, as many as have [`FULL_TAGS`] tags together. Its
//! filter is a split block Bloom filter ("Split block Bloom filters", J. Apple, 2021; the one of
//! the Parquet format, "Bloom filter", with other hashes): a tag sets one bit in each of the
//! eight words of one bucket. It is stored in [`SLICES`] pieces, each its own value; those of one
//! slice lie side by side, so that a search reads of each run what its tag falls into, 4 KiB.
//!
//! R1. A filter never rules out a run one of whose blocks has the tag.
//!
//! A piece: version u8 (1), number of blocks u32, then words u32, little-endian.

use xxhash_rust::xxh3::xxh3_64;

/// Pieces of a filter.
pub const SLICES: usize = 32;
/// Words of a piece: 4 KiB.
const SLICE_WORDS: usize = 1024;
const BUCKET_WORDS: usize = 8;
const BUCKETS: u64 = (SLICE_WORDS / BUCKET_WORDS) as u64;
/// A run with so many tags is full: 13 bits each, of a hundred other tags less than one passes.
const FULL_TAGS: usize = 80 << 10;
/// A run with so many blocks is full.
const FULL_BLOCKS: u32 = 4096;
const VERSION: u8 = 1;
const HEADER: usize = 1 + 4;
/// Odd multipliers, one for each word of a bucket.
const SALTS: [u32; BUCKET_WORDS] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// What runs know a tag by: the hash of its line in the text of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagHash(u64);

impl TagHash {
    pub fn of_line(line: &str) -> Self {
        Self(xxh3_64(line.as_bytes()))
    }

    /// The piece that it falls into.
    pub fn slice(self) -> u8 {
        // The highest bits.
        (((self.0 >> 32) * SLICES as u64) >> 32) as u8
    }

    /// First word of its bucket in its piece.
    fn bucket(self) -> usize {
        let rest = (self.0 >> 32).wrapping_mul(SLICES as u64) & u64::from(u32::MAX);
        ((rest * BUCKETS) >> 32) as usize * BUCKET_WORDS
    }

    /// Its bit in each word of the bucket.
    fn masks(self) -> [u32; BUCKET_WORDS] {
        SALTS.map(|salt| 1 << ((self.0 as u32).wrapping_mul(salt) >> 27))
    }
}

/// The filter of a run while blocks come.
#[derive(Debug)]
pub struct TagRun {
    first: u32,
    blocks: u32,
    tags: usize,
    words: Vec<u32>,
}

impl TagRun {
    /// One whose first block will have this number.
    pub fn new(first: u32) -> Self {
        Self {
            first,
            blocks: 0,
            tags: 0,
            words: vec![0; SLICES * SLICE_WORDS],
        }
    }

    /// Begins anew in the same space.
    pub fn restart(&mut self, first: u32) {
        self.first = first;
        (self.blocks, self.tags) = (0, 0);
        self.words.fill(0);
    }

    /// Number of the first block.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Takes the tags of the next block.
    pub fn add_block(&mut self, tags: &[TagHash]) {
        for tag in tags {
            let at = usize::from(tag.slice()) * SLICE_WORDS + tag.bucket();
            let mut new = false;
            let bucket = &mut self.words[at..at + BUCKET_WORDS];
            for (word, mask) in bucket.iter_mut().zip(tag.masks()) {
                new |= *word & mask == 0;
                *word |= mask;
            }
            self.tags += usize::from(new);
        }
        self.blocks += 1;
    }

    pub fn is_full(&self) -> bool {
        self.tags >= FULL_TAGS || self.blocks >= FULL_BLOCKS
    }

    /// Whether a block of the run may have the tag.
    pub fn may_have(&self, tag: TagHash) -> bool {
        let at = usize::from(tag.slice()) * SLICE_WORDS + tag.bucket();
        let bucket = &self.words[at..at + BUCKET_WORDS];
        bucket.iter().zip(tag.masks()).all(|(w, m)| w & m != 0)
    }

    /// Its pieces as they are stored, in order of slices.
    pub fn pieces(&self) -> impl Iterator<Item = (u8, Vec<u8>)> {
        self.words.chunks(SLICE_WORDS).zip(0..).map(|(words, n)| {
            let mut piece = Vec::with_capacity(HEADER + 4 * words.len());
            piece.push(VERSION);
            piece.extend(self.blocks.to_le_bytes());
            words.iter().for_each(|w| piece.extend(w.to_le_bytes()));
            (n, piece)
        })
    }

    /// Memory that it takes, bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + 4 * self.words.len()
    }
}

/// Of the piece that a tag falls into: how many blocks the run has, and whether one of them may
/// have the tag. `None` for what is no piece, which rules out nothing.
pub fn look_up(piece: &[u8], tag: TagHash) -> Option<(u32, bool)> {
    let (header, words) = piece.split_at_checked(HEADER)?;
    if header[0] != VERSION || words.len() != 4 * SLICE_WORDS {
        return None;
    }
    let blocks = u32::from_le_bytes(header[1..].try_into().ok()?);
    let at = 4 * tag.bucket();
    let (bucket, _) = words[at..at + 4 * BUCKET_WORDS].as_chunks();
    let mut masks = bucket.iter().zip(tag.masks());
    let may_have = masks.all(|(word, mask)| u32::from_le_bytes(*word) & mask != 0);
    Some((blocks, may_have))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: usize) -> TagHash {
        TagHash::of_line(&format!("\nrequest.id:{n}\n"))
    }

    /// Whether the stored form lets a tag pass.
    fn stored(run: &TagRun, tag: TagHash) -> (u32, bool) {
        let piece = run.pieces().find(|(slice, _)| *slice == tag.slice());
        look_up(&piece.expect("every slice is stored").1, tag).expect("a piece")
    }

    #[test]
    fn what_came_is_found_and_little_else() {
        let mut run = TagRun::new(7);
        let mut tags = 0;
        while !run.is_full() {
            let more: Vec<TagHash> = (tags..tags + 1000).map(tag).collect();
            run.add_block(&more);
            run.add_block(&more); // again: costs no room
            tags += 1000;
        }
        assert!((82_000..84_000).contains(&tags), "{tags}");
        assert_eq!(run.first(), 7);
        for n in (0..tags).step_by(97) {
            assert!(run.may_have(tag(n)), "{n}");
            assert_eq!(stored(&run, tag(n)), (2 * tags as u32 / 1000, true), "{n}");
        }
        let others = tags..tags + 20_000;
        let passed = others.clone().filter(|n| run.may_have(tag(*n))).count();
        assert!(passed < 200, "{passed} of {}", others.len());
        for n in others.step_by(991) {
            assert_eq!(stored(&run, tag(n)).1, run.may_have(tag(n)), "{n}");
        }
        run.restart(9);
        assert!(!run.may_have(tag(1)) && run.first() == 9 && !run.is_full());
    }

    #[test]
    fn what_is_no_piece_rules_out_nothing() {
        let run = TagRun::new(0);
        let (_, good) = run.pieces().next().expect("a piece");
        let tag = (0..).map(tag).find(|tag| tag.slice() == 0).expect("one");
        assert_eq!(look_up(&good, tag), Some((0, false)));
        for bad in [
            &[][..],
            &good[..4],
            &good[..100],
            &[&good[..], &[0]].concat(),
        ] {
            assert_eq!(look_up(bad, tag), None);
        }
        let mut other = good;
        other[0] = VERSION + 1;
        assert_eq!(look_up(&other, tag), None);
    }
}
