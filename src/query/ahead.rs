//! Reading ahead of a scan whose chunks are on the disk and not in memory.
//!
//! A thread of the pool that waits for the disk computes nothing meanwhile. So while reads
//! turn out to be slow, the chunks whose turn comes soon are read by other threads, for
//! nothing but to have the system keep them; while reads are quick nobody reads anything twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::answer::QueryStats;
use super::prune::Unit;
use crate::store::partition::Partition;

/// A chunk that takes longer comes from the disk; from memory it takes a fifth of it.
pub const SLOW_READ: Duration = Duration::from_micros(200);
/// The disk is waited for when one read in so many is slow: a preempted thread is no disk.
const SLOW_SHARE: u64 = 4;
/// Chunks read by one task: some milliseconds.
const BATCH: usize = 16;
/// Tasks at a time. More would leave none of the threads for what blocks to others.
const TASKS: usize = 3;
/// Chunks ahead at most: they have to stay in memory until their turn comes.
const FURTHEST: usize = 128;

/// What reads ahead of one scan. Stops when it is dropped.
#[derive(Default)]
pub struct Ahead {
    shared: Arc<Shared>,
    /// Units of the scan that were read ahead, or that it has begun itself.
    through: usize,
}

#[derive(Default)]
struct Shared {
    slow: AtomicBool,
    tasks: AtomicUsize,
    stopped: AtomicBool,
}

impl Ahead {
    /// Learns how quick the reads of a part of the scan were.
    pub fn learn(&self, cost: &QueryStats) {
        if is_slow(cost.slow_reads, cost.chunks_decoded) {
            self.shared.slow.store(true, Ordering::Relaxed);
        }
    }

    /// Reads ahead in `rest`, the units that the scan has not begun, of `all` that it has.
    pub fn read(&mut self, rest: &[Unit], all: usize) {
        if !self.shared.slow.load(Ordering::Relaxed) {
            return;
        }
        let begun = all - rest.len();
        self.through = self.through.max(begun);
        while self.through < (begun + FURTHEST).min(all)
            && self.shared.tasks.load(Ordering::Relaxed) < TASKS
        {
            let next = self.through - begun;
            let some = &rest[next..(next + BATCH).min(rest.len())];
            self.through += some.len();
            let chunks: Vec<(Arc<Partition>, u32)> = some
                .iter()
                .filter_map(|unit| match unit {
                    Unit::Chunk {
                        partition, meta, ..
                    } => Some((partition.clone(), meta.number)),
                    Unit::Head(_) => None,
                })
                .collect();
            let shared = self.shared.clone();
            shared.tasks.fetch_add(1, Ordering::Relaxed);
            tokio::task::spawn_blocking(move || {
                let slow = read(&shared, &chunks);
                // As long as the disk is slow for who reads ahead, it goes on.
                shared
                    .slow
                    .store(is_slow(slow, chunks.len() as u64), Ordering::Relaxed);
                shared.tasks.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

fn is_slow(slow: u64, of: u64) -> bool {
    slow * SLOW_SHARE >= of.max(1)
}

/// Reads chunks; returns how many were slow.
fn read(shared: &Shared, chunks: &[(Arc<Partition>, u32)]) -> u64 {
    let mut slow = 0;
    for (partition, number) in chunks {
        if shared.stopped.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        // What is wrong with a chunk says who scans it.
        let _ = partition.data(*number, |_| ());
        slow += u64::from(began.elapsed() > SLOW_READ);
    }
    slow
}
