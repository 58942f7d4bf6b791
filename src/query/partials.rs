//! What single sealed chunks gave to metric queries, kept for the next time: a dashboard
//! asks for the same again and again, and few of its chunks are new.
//!
//! C1. A part belongs to one chunk of one partition. Neither changes: lines that come late,
//!     or out of order, are in another chunk or in a head. So a part is never out of date,
//!     whatever has been pushed since.
//! C2. A delete request, once readers apply it, calls [`Partials::forget_all`]; parts of queries
//!     that began before that are not kept. Chunks that a request takes lines of have no parts
//!     until they are rewritten.
//! C3. Parts are booked, bounded in bytes, and given back when the budget runs out.
//! C4. Full, it takes nothing new while everything in it is in use: queries over more than
//!     it holds would else throw out each other's parts before they come back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use crate::logql::eval::Part;
use crate::logql::plan::Leaf;
use crate::model::series::Grid;
use crate::model::time::{SECOND, Timestamp};
use crate::runtime::permits::{Account, Budget, Permit};
use crate::store::chunk::ChunkMeta;
use crate::store::partition::Partition;
use crate::telemetry::metrics::{Counter, Metrics};

/// A part that nobody asked for this long makes room for others.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// Buckets of a chunk at most; finer ones are not kept.
const MAX_BUCKETS: i64 = 512;
/// Series of a chunk at most: more are ids, which nobody draws twice.
pub const MAX_SERIES: usize = 64;
/// Part of the budget that stays free of parts.
const KEEP_FREE: usize = 4;

/// Parts of queries. Cheap to clone.
#[derive(Clone)]
pub struct Partials(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    generation: AtomicU64,
    limit: usize,
    began: Instant,
    hits: Counter,
    misses: Counter,
}

struct State {
    account: Account,
    permit: Option<Permit>,
    bytes: usize,
    /// By address; a weak reference keeps an address from being used again.
    days: HashMap<usize, Day>,
    /// Nothing was idle when it was last looked through, in seconds since `began`.
    swept: u32,
}

struct Day {
    partition: Weak<Partition>,
    kept: HashMap<(u128, u32), Kept>,
}

struct Kept {
    part: Arc<Part>,
    bytes: usize,
    /// Seconds since `began`.
    used: u32,
}

impl Partials {
    /// Keeps at most `limit` bytes; 0 keeps nothing.
    pub fn new(limit: usize, budget: &Budget, metrics: &Metrics) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                account: budget.account("query_parts"),
                permit: None,
                bytes: 0,
                days: HashMap::new(),
                swept: 0,
            }),
            generation: AtomicU64::new(0),
            limit,
            began: Instant::now(),
            hits: metrics.counter(
                "query_parts_hits",
                "Chunks that metric queries need not read",
            ),
            misses: metrics.counter("query_parts_misses", "Chunks read, their part then kept"),
        });
        if limit > 0 {
            let weak = Arc::downgrade(&shared);
            budget.on_pressure(move || {
                if let Some(shared) = weak.upgrade()
                    && let Some(mut state) = shared.state.try_lock()
                {
                    state.clear();
                }
            });
        }
        Self(shared)
    }

    /// Lines of sealed chunks are gone, or will show differently: nothing kept holds any more.
    pub fn forget_all(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.state.lock().clear();
    }

    /// Changes with each [`Partials::forget_all`].
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// For a query that begins now: call before it looks at the store.
    pub fn begin(&self, leaf: &Leaf, levels: bool, grid: Grid) -> Option<Keeping> {
        if self.0.limit == 0 || !leaf.needs_lines() {
            return None;
        }
        // All bounds of windows are multiples of this apart.
        let over = &leaf.aggregation.over;
        let bucket = match grid.len() {
            0 => return None,
            1 => over.range,
            _ => gcd(over.range, grid.step),
        };
        let text = format!("{:?}{:?}{levels}", leaf.aggregation, leaf.group);
        Some(Keeping {
            partials: self.clone(),
            generation: self.0.generation.load(Ordering::Acquire),
            leaf: xxh3_128(text.as_bytes()),
            bucket,
            phase: grid
                .start
                .wrapping_sub(over.offset)
                .rem_euclid(bucket.max(1)),
            unwraps: leaf.needs_values(),
            off: AtomicBool::new(false),
        })
    }

    fn get(&self, partition: &Arc<Partition>, key: (u128, u32)) -> Option<Arc<Part>> {
        let now = self.0.now();
        let mut state = self.0.state.lock();
        let found = state
            .days
            .get_mut(&(Arc::as_ptr(partition) as usize))
            .and_then(|day| day.kept.get_mut(&key))
            .map(|kept| {
                kept.used = now;
                kept.part.clone()
            });
        drop(state);
        match &found {
            Some(_) => self.0.hits.inc(),
            None => self.0.misses.inc(),
        };
        found
    }

    fn put(&self, generation: u64, partition: &Arc<Partition>, key: (u128, u32), part: Arc<Part>) {
        let bytes = part.memory() + size_of::<Kept>() + size_of::<(u128, u32)>();
        let now = self.0.now();
        let mut state = self.0.state.lock();
        // Under the lock: `forget_all` counts before it clears.
        if generation != self.0.generation.load(Ordering::Acquire) {
            return;
        }
        if state.bytes + bytes > self.0.limit {
            state.sweep(now);
            if state.bytes + bytes > self.0.limit {
                return;
            }
        }
        if !state.book(bytes) {
            return;
        }
        let day = state
            .days
            .entry(Arc::as_ptr(partition) as usize)
            .or_insert_with(|| Day {
                partition: Arc::downgrade(partition),
                kept: HashMap::new(),
            });
        let kept = Kept {
            part,
            bytes,
            used: now,
        };
        if let Some(before) = day.kept.insert(key, kept) {
            // Two queries read the same chunk at the same time.
            let bytes = state.bytes - before.bytes;
            state.shrink_to(bytes);
        }
    }
}

impl Shared {
    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

impl State {
    /// Takes `more` from the budget, as long as others have enough of it.
    fn book(&mut self, more: usize) -> bool {
        if self.account.free() / KEEP_FREE < more
            || self.account.free() < self.account.limit() / KEEP_FREE
        {
            return false;
        }
        let booked = match &mut self.permit {
            Some(permit) => permit.try_grow(more).is_ok(),
            none => match self.account.try_take(more) {
                Ok(permit) => {
                    *none = Some(permit);
                    true
                }
                Err(_) => false,
            },
        };
        self.bytes += if booked { more } else { 0 };
        booked
    }

    fn shrink_to(&mut self, bytes: usize) {
        self.bytes = bytes;
        if let Some(permit) = &mut self.permit {
            permit.shrink_to(bytes);
        }
    }

    /// Lets go of what is idle or of a partition that is gone.
    fn sweep(&mut self, now: u32) {
        if self.swept == now {
            return;
        }
        self.swept = now;
        let idle = now.saturating_sub(IDLE.as_secs() as u32);
        let mut bytes = 0;
        self.days.retain(|_, day| {
            if day.partition.strong_count() == 0 {
                return false;
            }
            day.kept.retain(|_, kept| kept.used >= idle);
            bytes += day.kept.values().map(|kept| kept.bytes).sum::<usize>();
            !day.kept.is_empty()
        });
        self.shrink_to(bytes);
    }

    fn clear(&mut self) {
        self.days = HashMap::new();
        self.permit = None;
        self.bytes = 0;
    }
}

/// The parts of one query.
pub struct Keeping {
    partials: Partials,
    generation: u64,
    leaf: u128,
    bucket: i64,
    phase: i64,
    unwraps: bool,
    /// Chunks of this query have too many series.
    off: AtomicBool,
}

/// A part by its name, and how to make it.
pub struct Wanted {
    key: (u128, u32),
    /// One window of this length before each time: together all of the chunk.
    pub grid: Grid,
    pub range: i64,
}

impl Keeping {
    /// The part of a chunk that all lies in the same windows (`alike`), or else of its buckets;
    /// `None`: this chunk has to be read.
    pub fn wanted(&self, meta: &ChunkMeta, alike: bool) -> Option<Wanted> {
        if self.off.load(Ordering::Relaxed) {
            return None;
        }
        let whole = alike || self.unwraps;
        let (grid, range) = if whole {
            let range = meta.max.checked_sub(meta.min)?.checked_add(1)?;
            (Grid::instant(meta.max), range)
        } else {
            if self.bucket < SECOND {
                return None;
            }
            let (start, end) = (self.bucket_end(meta.min)?, self.bucket_end(meta.max)?);
            if (end - start) / self.bucket >= MAX_BUCKETS {
                return None;
            }
            let step = self.bucket;
            (Grid { start, end, step }, self.bucket)
        };
        let mut name = self.leaf.to_le_bytes().to_vec();
        // Each rewriting leaves fewer lines in a chunk (C2 does without; this is a second bolt).
        name.extend_from_slice(&meta.lines.to_le_bytes());
        if !whole {
            name.extend_from_slice(&self.bucket.to_le_bytes());
            name.extend_from_slice(&self.phase.to_le_bytes());
        }
        Some(Wanted {
            key: (xxh3_128(&name), meta.number),
            grid,
            range,
        })
    }

    /// The end of the bucket that holds an instant; its start is not in it.
    fn bucket_end(&self, at: Timestamp) -> Option<Timestamp> {
        let behind = at.checked_sub(self.phase)?.checked_sub(1)?;
        let end = behind.div_euclid(self.bucket).checked_add(1)?;
        end.checked_mul(self.bucket)?.checked_add(self.phase)
    }

    pub fn get(&self, partition: &Arc<Partition>, wanted: &Wanted) -> Option<Arc<Part>> {
        self.partials.get(partition, wanted.key)
    }

    pub fn put(&self, partition: &Arc<Partition>, wanted: &Wanted, part: Arc<Part>) {
        self.partials
            .put(self.generation, partition, wanted.key, part);
    }

    /// No further parts for this query.
    pub fn give_up(&self) {
        self.off.store(true, Ordering::Relaxed);
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.max(1), b.max(1));
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_behind_and_end_on_the_bounds_of_windows() {
        let budget = Budget::new(1 << 20);
        let keeping = Keeping {
            partials: Partials::new(1 << 20, &budget, &Metrics::default()),
            generation: 0,
            leaf: 0,
            bucket: 60,
            phase: 7,
            unwraps: false,
            off: AtomicBool::new(false),
        };
        let ends = [6, 7, 8, 67, 68, -53, -52].map(|at| keeping.bucket_end(at));
        assert_eq!(ends, [7, 7, 67, 67, 127, -53, 7].map(Some));
        assert_eq!(keeping.bucket_end(i64::MIN), None);
        assert_eq!((gcd(300, 60), gcd(90, 60), gcd(7, 3)), (60, 30, 1));
    }
}
