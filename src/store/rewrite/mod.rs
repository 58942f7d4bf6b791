//! Days of logs that are written again, in the background: without chunks that have expired under
//! a rule of retention, and with small chunks of a stream merged once the day has gone cold.
//!
//! A day is copied into a family, and an index, of its own; then it takes the old one's place in
//! one step, and that is dropped as days are. Blocks of spans are not merged: they hold all
//! services, so quiet ones do not make more of them.
//!
//! N1. Which generation of a day counts says `meta`, synced. What is written there is flushed and
//!     indexed before, whole: a crash leaves the old day or the new one, and the next start drops
//!     the other.
//! N2. The switch is made by the writer, who alone adds chunks, and only when the old day has none
//!     that the new one lacks. Readers see one or the other, as of their snapshot, and hold it as
//!     long as they need (D2).
//! N3. Within a stream chunks keep their order, and lines of one time theirs.
//! N4. Of lines before and after a delete request that is not processed, no chunk has both
//!     (E1 of deletion/mod.rs). The thread is that which erases, so the two never meet in a day.

mod copy;
pub mod generation;
pub mod plan;
pub mod switch;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::error::StoreError;
use super::inbox::Internal;
use super::layout::{PartitionId, Signal};
use super::partition::Partition;
use super::writer::Shared;
use crate::model::Timestamp;
use crate::model::time::{HOUR, MINUTE};
use crate::runtime::permits::Account;
use copy::Copy;
use plan::{Plan, Verdict};
use switch::Switch;

/// Behind the end of a day nobody but who is late writes to it: heads are sealed by then.
const COLD_AFTER: i64 = 3 * HOUR;
/// And for so long no chunk came.
const QUIET_FOR: i64 = 5 * MINUTE;
/// Memory of a chunk's meta while a day is looked at, bytes; an estimate.
const META_BYTES: usize = 256;
/// Chunks that came while the day was copied are copied behind it, so often at most.
const CATCH_UP: usize = 5;
/// How often a thread that waits looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a round ended early.
pub enum Stop {
    Stopped,
    Error(StoreError),
    /// A chunk can't be read: the day stays as it is.
    Damaged(String),
    /// The day was dropped, got new chunks all the time, or there is too little room.
    GivenUp,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

/// What is known of a day from the last look at it.
struct Known {
    generation: u32,
    next: u32,
    /// Since when no chunk came.
    quiet_since: Timestamp,
    /// Looked at since then, when it was cold.
    looked: bool,
    /// When more will have expired.
    again_at: Timestamp,
    /// Has a chunk that can't be read.
    damaged: bool,
}

impl Known {
    fn of(partition: &Partition, quiet_since: Timestamp) -> Self {
        Self {
            generation: partition.generation,
            next: partition.next_number(),
            quiet_since,
            looked: false,
            again_at: Timestamp::MIN,
            damaged: false,
        }
    }
}

/// Looks after days, one a round.
pub struct Rewriter {
    known: HashMap<PartitionId, Known>,
    account: Account,
}

impl Rewriter {
    /// To be made at the start: to days that are there by then nothing came for as long as the
    /// process did not run, but to one that begins later something just did.
    pub fn new(shared: &Shared) -> Self {
        let open = shared.open.lock();
        let days = open.partitions.values();
        let known = days.map(|day| (day.id, Known::of(day, Timestamp::MIN)));
        Self {
            known: known.collect(),
            account: shared.options.budget.account("rewriting"),
        }
    }

    /// Rewrites a day, if one is due. `pause` waits and tells whether to stop.
    pub fn round(&mut self, shared: &Shared, pause: &dyn Fn(Duration) -> bool) -> Result<(), Stop> {
        let Some((partition, is_cold)) = self.next_due(shared) else {
            return Ok(());
        };
        let day = partition.id;
        let looked = self.look(shared, &partition, is_cold, pause);
        if let Some(known) = self.known.get_mut(&day) {
            match &looked {
                Ok(again_at) => {
                    known.looked |= is_cold;
                    known.again_at = *again_at;
                }
                Err(Stop::Damaged(what)) => {
                    known.damaged = true;
                    shared.degrade(format!("{day} is not rewritten: {what}"));
                    return Ok(());
                }
                Err(Stop::GivenUp) => {
                    // As if a chunk had come: later again.
                    known.quiet_since = shared.options.clock.now();
                    known.again_at = known.quiet_since.saturating_add(QUIET_FOR);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        looked.map(|_| ())
    }

    /// A day that is worth a look, the oldest first, and whether it is cold.
    fn next_due(&mut self, shared: &Shared) -> Option<(Arc<Partition>, bool)> {
        let now = shared.options.clock.now();
        let partitions: Vec<Arc<Partition>> = {
            let open = shared.open.lock();
            let logs = open.partitions.values();
            let logs = logs.filter(|p| p.id.signal == Signal::Logs);
            logs.cloned().collect()
        };
        self.known
            .retain(|id, _| partitions.iter().any(|p| p.id == *id));
        for partition in partitions {
            let (generation, next) = (partition.generation, partition.next_number());
            let known = self.known.entry(partition.id);
            let known = known.or_insert_with(|| Known::of(&partition, now));
            if (known.generation, known.next) != (generation, next) {
                (known.generation, known.next) = (generation, next);
                known.quiet_since = now;
                known.looked = false;
            }
            let is_cold = partition.id.day.end().saturating_add(COLD_AFTER) <= now
                && known.quiet_since.saturating_add(QUIET_FOR) <= now;
            let expires = shared.has_rules() && known.again_at <= now;
            if !known.damaged && (expires || is_cold && !known.looked) {
                return Some((partition, is_cold));
            }
        }
        None
    }

    /// Decides what to do with a day and does it; tells when more of it will have expired.
    fn look(
        &self,
        shared: &Shared,
        old: &Arc<Partition>,
        is_cold: bool,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<Timestamp, Stop> {
        let metas = old.next_number() as usize * META_BYTES;
        let Ok(mut permit) = self.account.try_take(metas) else {
            return Err(Stop::GivenUp);
        };
        let (chunks, next) = old.peek_chunks()?;
        let mut befores: Vec<u64> = {
            let open = shared.open.lock();
            open.deletions.iter().map(|d| d.request.before).collect()
        };
        befores.sort_unstable();
        let kept = |stream| shared.streams.get(stream).map(|stream| stream.kept);
        let plan = Plan::of(&plan::Day {
            chunks: &chunks,
            kept: &kept,
            expired_by: shared.has_rules().then(|| shared.options.clock.now()),
            befores: &befores,
        });
        drop(chunks);
        match plan.verdict(is_cold) {
            Verdict::Leave => return Ok(plan.again_at),
            Verdict::Drop => {
                let (told, done) = sync_channel(1);
                let order = Internal::DropExpired(old.clone(), next, told);
                shared.inbox.push_internal(order);
                return match wait(&done, pause)? {
                    true => {
                        shared.metrics.expired_lines.inc_by(plan.expired_lines);
                        Ok(plan.again_at)
                    }
                    false => Err(Stop::GivenUp),
                };
            }
            Verdict::Rewrite => {}
        }
        let again_at = plan.again_at;
        self.rewrite(shared, old, next, plan, &mut permit, pause)?;
        Ok(again_at)
    }

    fn rewrite(
        &self,
        shared: &Shared,
        old: &Arc<Partition>,
        mut next: u32,
        plan: Plan,
        permit: &mut crate::runtime::permits::Permit,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<(), Stop> {
        let began = Instant::now();
        let before = old.disk_bytes();
        if !has_room(shared, before) || permit.try_grow(copy::memory(&plan.groups)).is_err() {
            return Err(Stop::GivenUp);
        }
        let mut copy = Copy::begin(shared, old, pause)?;
        for group in &plan.groups {
            copy.add(group)?;
        }
        let mut left = plan.groups.len();
        for _ in 0..CATCH_UP {
            copy.finish()?;
            fail::fail_point!("rewrite-before-switch");
            let (told, done) = sync_channel(1);
            shared.inbox.push_internal(Internal::Switch(Switch {
                old: old.clone(),
                new: copy.partition(),
                next,
                told,
            }));
            if wait(&done, pause)? {
                copy.keep();
                fail::fail_point!("rewrite-switched");
                let after = copy.partition().disk_bytes();
                let m = &shared.metrics;
                m.days_rewritten.inc();
                m.rewrite_before_bytes.inc_by(before);
                m.rewrite_after_bytes.inc_by(after);
                m.rewrite_before_chunks.inc_by(plan.chunks as u64);
                m.rewrite_after_chunks.inc_by(left as u64);
                m.expired_lines.inc_by(plan.expired_lines);
                tracing::info!(
                    day = %old.id,
                    chunks = plan.chunks,
                    expired = plan.expired,
                    left,
                    before,
                    after,
                    seconds = began.elapsed().as_secs_f64(),
                    "rewritten"
                );
                return Ok(());
            }
            // Late lines came, or the day was dropped.
            let (chunks, now_next) = old.peek_chunks()?;
            for meta in chunks.iter().filter(|meta| meta.number >= next) {
                copy.add(std::slice::from_ref(meta))?;
                left += 1;
            }
            next = now_next;
        }
        Err(Stop::GivenUp)
    }
}

/// Whether the disk has room for the day a second time.
fn has_room(shared: &Shared, bytes: u64) -> bool {
    let fits =
        |gauge: i64, limit: u64| u64::try_from(gauge).unwrap_or(0).saturating_add(bytes) <= limit;
    let free = u64::try_from(shared.metrics.disk_free.get()).unwrap_or(0);
    let used = shared.metrics.disk_used.get();
    let (max, min_free) = (shared.options.max_bytes, shared.options.min_free_bytes);
    shared.no_room().is_none()
        && free.saturating_sub(bytes) >= min_free
        && max.is_none_or(|max| fits(used, max))
}

/// Waits for the writer's answer.
fn wait(
    done: &std::sync::mpsc::Receiver<bool>,
    pause: &dyn Fn(Duration) -> bool,
) -> Result<bool, Stop> {
    loop {
        match done.recv_timeout(LOOK_EVERY) {
            Ok(done) => return Ok(done),
            // The writer has ended.
            Err(RecvTimeoutError::Disconnected) => return Err(Stop::Stopped),
            Err(RecvTimeoutError::Timeout) if pause(Duration::ZERO) => return Err(Stop::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests;
