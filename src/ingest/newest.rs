//! The newest entry of each stream that is in use: what "too far behind" is measured by,
//! and how many streams there are.
//!
//! N1. While as many streams are active as the limit says, a new one is refused. Pushes
//!     that decide at the same instant may exceed it by their own number.
//! N2. A forgotten stream accepts any time again, as one that was never seen.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::time::{MINUTE, SECOND};
use crate::model::{StreamId, Timestamp};

/// A stream without pushes for this long is no longer active.
const IDLE: i64 = 60 * MINUTE;

/// Looking for idle streams costs a walk over all: not more often than this.
const SWEEP_EVERY: i64 = 10 * SECOND;

/// Bound where no limit of streams is configured: 50 MiB or so.
const UNLIMITED: usize = 1 << 20;

const SHARDS: usize = 16;

/// Bounded map from stream to its newest time.
pub struct NewestSeen {
    shards: [Mutex<Shard>; SHARDS],
    known: AtomicUsize,
    /// When idle streams were last looked for.
    swept: AtomicI64,
    max: usize,
    /// Whether new streams are refused when there are `max`, or others forgotten.
    refuses: bool,
}

type Shard = HashMap<StreamId, Seen, foldhash::fast::RandomState>;

#[derive(Clone, Copy)]
struct Seen {
    newest: Timestamp,
    /// When the last push came.
    touched: i64,
}

impl NewestSeen {
    /// At most `limit` streams; 0: no limit, and some streams are forgotten when memory
    /// would grow too far.
    pub fn new(limit: usize) -> Self {
        Self {
            shards: Default::default(),
            known: AtomicUsize::new(0),
            swept: AtomicI64::new(i64::MIN),
            max: if limit == 0 { UNLIMITED } else { limit },
            refuses: limit > 0,
        }
    }

    /// The newest time of `stream`, or `None` when it is new. `Err`: no room for another.
    pub fn get(&self, stream: StreamId, now: i64) -> Result<Option<Timestamp>, TooManyStreams> {
        if let Some(seen) = self.shard(stream).lock().get_mut(&stream) {
            seen.touched = now;
            return Ok(Some(seen.newest));
        }
        if self.len() < self.max {
            return Ok(None);
        }
        let swept = self.swept.load(Ordering::Relaxed);
        if now.saturating_sub(swept) >= SWEEP_EVERY {
            self.swept.store(now, Ordering::Relaxed);
            self.keep(|seen| now.saturating_sub(seen.touched) < IDLE);
        }
        if self.len() < self.max {
            return Ok(None);
        }
        if self.refuses {
            return Err(TooManyStreams);
        }
        // Which ones hardly matters (N2): an eighth goes, so that this stays rare.
        let mut number = 0_u32;
        self.keep(|_| {
            number = number.wrapping_add(1);
            !number.is_multiple_of(8)
        });
        Ok(None)
    }

    /// Notes that entries up to `newest` were accepted.
    pub fn note(&self, stream: StreamId, newest: Timestamp, now: i64) {
        let mut shard = self.shard(stream).lock();
        let seen = shard.entry(stream).or_insert_with(|| {
            self.known.fetch_add(1, Ordering::Relaxed);
            Seen {
                newest,
                touched: now,
            }
        });
        seen.newest = seen.newest.max(newest);
        seen.touched = now;
    }

    /// Streams known.
    pub fn len(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn keep(&self, mut wanted: impl FnMut(&Seen) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, seen| wanted(seen));
            self.known
                .fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, stream: StreamId) -> &Mutex<Shard> {
        &self.shards[stream.0 as usize % SHARDS]
    }
}

/// No room for another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyStreams;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_remembers_its_newest_time() {
        let newest = NewestSeen::new(10);
        let stream = StreamId(7);
        assert_eq!(newest.get(stream, 0), Ok(None));
        newest.note(stream, 50, 0);
        newest.note(stream, 40, 0);
        assert_eq!(newest.get(stream, 0), Ok(Some(50)));
    }

    #[test]
    fn a_full_map_refuses_until_others_fall_silent() {
        let newest = NewestSeen::new(2);
        let stream = StreamId;
        newest.note(stream(1), 5, 0);
        newest.note(stream(2), 5, MINUTE);
        assert_eq!(newest.get(stream(3), MINUTE), Err(TooManyStreams));
        assert_eq!(
            newest.get(stream(1), 59 * MINUTE),
            Ok(Some(5)),
            "this touches it"
        );
        assert_eq!(newest.get(stream(3), 61 * MINUTE), Ok(None));
        assert_eq!(newest.len(), 1);
        assert_eq!(newest.get(stream(2), 61 * MINUTE), Ok(None));
    }

    #[test]
    fn without_a_limit_nothing_is_refused_and_memory_stays_bounded() {
        let newest = NewestSeen {
            max: 100,
            ..NewestSeen::new(0)
        };
        for n in 0..10_000 {
            let stream = StreamId(n);
            assert_eq!(newest.get(stream, 0), Ok(None));
            newest.note(stream, 1, 0);
        }
        assert!(newest.len() <= 100, "{}", newest.len());
    }
}
