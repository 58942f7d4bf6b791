//! Which chunks of a day become which, and whether that is worth writing the day again: pure
//! decisions.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{StreamId, Timestamp};
use crate::store::chunk::ChunkMeta;
use crate::store::head::logs::HEAD_BYTES;
use crate::store::partition::Catalog;
use crate::store::retention::Kept;

/// A chunk with this much text stays as it is: with little more it would be a full one.
const LARGE: u64 = HEAD_BYTES as u64 / 4 * 3;
/// A day is rewritten when so many of its chunks go, and at least one in [`MERGED_SHARE`]. Each
/// rewriting copies the whole day, so what late lines cost is bounded by what they bring.
const MIN_MERGED: usize = 32;
const MERGED_SHARE: usize = 3;
/// A day of whose bytes this share has expired is rewritten, although more of the same streams
/// expires later.
const EXPIRED_SHARE: u64 = 2;

/// What is known of a day.
pub struct Day<'a> {
    pub chunks: &'a Catalog<ChunkMeta>,
    /// How long a stream is kept; `None`: an unknown stream, which stays.
    pub kept: &'a dyn Fn(StreamId) -> Option<Kept>,
    /// Set where rules of retention take chunks out of days: now.
    pub expired_by: Option<Timestamp>,
    /// Journal records at which delete requests came that are not processed, ascending. Lines of
    /// before and after one are never in one chunk (E1 of deletion/mod.rs).
    pub befores: &'a [u64],
}

/// How a day would be rewritten.
pub struct Plan {
    /// Each becomes one chunk. In order of streams, within a stream of arrival.
    pub groups: Vec<Vec<Arc<ChunkMeta>>>,
    /// Chunks that are there, and those of them that have expired.
    pub chunks: usize,
    pub expired: usize,
    pub expired_lines: u64,
    /// Stored bytes of those, and of the others.
    expired_bytes: u64,
    kept_bytes: u64,
    /// More of what has begun to expire does so later.
    pending: bool,
    /// When it is worth looking again, for what expires.
    pub again_at: Timestamp,
}

/// What to do with a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything in it has expired.
    Drop,
    Rewrite,
    Leave,
}

impl Plan {
    pub fn of(day: &Day<'_>) -> Self {
        let mut plan = Self {
            groups: Vec::new(),
            chunks: 0,
            expired: 0,
            expired_lines: 0,
            expired_bytes: 0,
            kept_bytes: 0,
            pending: false,
            again_at: Timestamp::MAX,
        };
        let mut alive: Vec<&Arc<ChunkMeta>> = Vec::new();
        // By how long streams are kept: whether some has expired, and when all will have.
        let mut classes: HashMap<Kept, (bool, Timestamp)> = HashMap::new();
        for meta in day.chunks.iter() {
            plan.chunks += 1;
            let bytes = u64::from(meta.stored_bytes);
            let kept = day.expired_by.and_then(|now| {
                let kept = (day.kept)(meta.stream)?;
                Some((kept, now))
            });
            if let Some((kept, now)) = kept {
                let expires_at = kept.expires_at(meta.max);
                let class = classes.entry(kept).or_insert((false, Timestamp::MIN));
                if expires_at <= now {
                    class.0 = true;
                    plan.expired += 1;
                    plan.expired_lines += u64::from(meta.lines);
                    plan.expired_bytes += bytes;
                    continue;
                }
                class.1 = class.1.max(expires_at);
            }
            plan.kept_bytes += bytes;
            alive.push(meta);
        }
        for (has_expired, all_at) in classes.values() {
            if *all_at > Timestamp::MIN {
                plan.pending |= has_expired;
                plan.again_at = plan.again_at.min(*all_at);
            }
        }
        alive.sort_by_key(|meta| (meta.stream, meta.number));
        let mut bytes = 0;
        for meta in alive {
            let side = |meta: &ChunkMeta| day.befores.partition_point(|before| *before <= meta.seq);
            let joins = plan.groups.last().and_then(|group| group.last());
            let joins = joins.is_some_and(|last| {
                last.stream == meta.stream
                    && side(last) == side(meta)
                    && last.line_bytes < LARGE
                    && meta.line_bytes < LARGE
                    && bytes + meta.line_bytes <= HEAD_BYTES as u64
            });
            match plan.groups.last_mut() {
                Some(group) if joins => {
                    group.push(meta.clone());
                    bytes += meta.line_bytes;
                }
                _ => {
                    plan.groups.push(vec![meta.clone()]);
                    bytes = meta.line_bytes;
                }
            }
        }
        plan
    }

    /// Whether it is worth it. Chunks are merged only where nobody writes any more.
    pub fn verdict(&self, is_cold: bool) -> Verdict {
        if self.chunks > 0 && self.groups.is_empty() {
            return Verdict::Drop;
        }
        let all_bytes = self.expired_bytes + self.kept_bytes;
        let expires =
            self.expired > 0 && (!self.pending || self.expired_bytes * EXPIRED_SHARE >= all_bytes);
        let alive = self.chunks - self.expired;
        let merged = alive - self.groups.len();
        let merges = is_cold && merged >= MIN_MERGED && merged * MERGED_SHARE >= alive;
        if expires || merges {
            Verdict::Rewrite
        } else {
            Verdict::Leave
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::chunk::LineBlock;

    /// A chunk by its stream, its journal record, its newest line and its bytes.
    fn catalog(chunks: &[(u128, u64, i64, usize)]) -> Catalog<ChunkMeta> {
        let metas = chunks.iter().zip(0..).map(|(chunk, number)| {
            let (stream, seq, max, bytes) = *chunk;
            let mut block = LineBlock::default();
            block.push(max, &vec![b'x'; bytes], None);
            ChunkMeta {
                number,
                seq,
                ..ChunkMeta::of(&block, StreamId(stream), bytes as u32, 0)
            }
        });
        metas.collect()
    }

    fn plan(chunks: &Catalog<ChunkMeta>, expired_by: Option<i64>, befores: &[u64]) -> Plan {
        let kept = |stream: StreamId| match stream.0 {
            1..=9 => Some(Kept::Chunks(stream.0 as i64 * 100)),
            10..=19 => Some(Kept::Forever),
            _ => None,
        };
        Plan::of(&Day {
            chunks,
            kept: &kept,
            expired_by,
            befores,
        })
    }

    fn numbers(plan: &Plan) -> Vec<Vec<u32>> {
        let group = |group: &Vec<Arc<ChunkMeta>>| group.iter().map(|m| m.number).collect();
        plan.groups.iter().map(group).collect()
    }

    #[test]
    fn small_chunks_of_a_stream_are_merged_in_order_up_to_the_usual_size() {
        let large = HEAD_BYTES / 5 * 4;
        let third = HEAD_BYTES / 3;
        let chunks = catalog(&[
            (12, 1, 0, 100),
            (11, 2, 0, 100),
            (12, 3, 0, large),
            (11, 4, 0, 100),
            (12, 5, 0, third),
            (12, 6, 0, third),
            (12, 7, 0, third),
            (12, 8, 0, third),
        ]);
        let expected: [&[u32]; 5] = [&[1, 3], &[0], &[2], &[4, 5, 6], &[7]];
        assert_eq!(numbers(&plan(&chunks, None, &[])), expected);
        // A delete request came between records 5 and 6, and another beyond all.
        let expected: [&[u32]; 5] = [&[1, 3], &[0], &[2], &[4], &[5, 6, 7]];
        assert_eq!(numbers(&plan(&chunks, None, &[6, 99])), expected);
    }

    #[test]
    fn a_day_is_merged_when_enough_chunks_go() {
        let small = |n: usize, streams: u128| -> Vec<(u128, u64, i64, usize)> {
            (0..n as u128)
                .map(|i| (10 + i % streams, 1, 0, 10))
                .collect()
        };
        let verdict = |chunks: &[_], cold| plan(&catalog(chunks), None, &[]).verdict(cold);
        assert_eq!(verdict(&small(100, 4), true), Verdict::Rewrite);
        assert_eq!(verdict(&small(100, 4), false), Verdict::Leave);
        assert_eq!(verdict(&small(MIN_MERGED, 4), true), Verdict::Leave);
        let mut mixed = small(40, 4);
        mixed.extend((0..100).map(|_| (10, 1, 0, HEAD_BYTES)));
        assert_eq!(verdict(&mixed, true), Verdict::Leave);
        assert_eq!(verdict(&[], true), Verdict::Leave);
    }

    #[test]
    fn what_expires_goes_once_for_all_streams_that_are_kept_alike() {
        // Kept for 100 and for 200 behind their newest line.
        let chunks = catalog(&[
            (1, 1, 0, 10),
            (1, 1, 50, 10),
            (2, 1, 60, 10),
            (12, 1, 0, 40),
        ]);
        let none = plan(&chunks, Some(100), &[]);
        assert_eq!((none.expired, none.verdict(true)), (0, Verdict::Leave));
        assert_eq!(none.again_at, 151);
        let some = plan(&chunks, Some(101), &[]);
        assert_eq!((some.expired, some.again_at), (1, 151));
        assert_eq!(some.verdict(true), Verdict::Leave);
        let all = plan(&chunks, Some(151), &[]);
        assert_eq!((all.expired, all.expired_lines, all.again_at), (2, 2, 261));
        assert_eq!(all.verdict(false), Verdict::Rewrite);
        assert_eq!(numbers(&all), [vec![2], vec![3]]);
        assert_eq!(plan(&chunks, None, &[]).verdict(false), Verdict::Leave);
        // Half of the bytes need not wait for the rest.
        let half = catalog(&[(1, 1, 0, 90), (1, 1, 50, 10)]);
        assert_eq!(plan(&half, Some(101), &[]).verdict(false), Verdict::Rewrite);
        let nothing = plan(&half, Some(151), &[]);
        assert_eq!(nothing.verdict(false), Verdict::Drop);
    }
}
