//! Decoded blocks of spans that were read lately, kept for who reads them again: the traces
//! of a search are completed from blocks that lie close together, and looked at one by one
//! afterwards; a page of the UI is asked for again and again.
//!
//! K1. Blocks never change, so what is kept is never out of date. It is known by its day and
//!     number; a day that retention dropped is not asked for again.
//! K2. What is kept is bounded, booked, and given back when the budget runs out.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::Day;
use crate::runtime::permits::{Account, Budget, Permit};
use crate::store::span::SpanBlock;
use crate::telemetry::metrics::{Counter, Metrics};

/// Part of the budget that stays free of kept blocks.
const KEEP_FREE: usize = 4;

/// Blocks that are kept. Cheap to clone.
#[derive(Clone)]
pub struct Blocks(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    account: Account,
    limit: usize,
    hits: Counter,
    misses: Counter,
}

#[derive(Default)]
struct State {
    permit: Option<Permit>,
    bytes: usize,
    kept: HashMap<(Day, u32), Kept>,
    /// Counts what was asked for.
    turn: u64,
}

struct Kept {
    block: Arc<SpanBlock>,
    bytes: usize,
    used: u64,
}

/// Whether a block may take the place of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It was read for a span in it.
    Much,
    /// It was read in vain: it is kept where there is room.
    Little,
}

impl Blocks {
    /// Keeps at most `limit` bytes; 0 keeps nothing.
    pub fn new(limit: usize, budget: &Budget, metrics: &Metrics) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            account: budget.account("span_blocks"),
            limit,
            hits: metrics.counter("span_blocks_hits", "Blocks of spans that were at hand"),
            misses: metrics.counter("span_blocks_misses", "Blocks of spans that were read"),
        });
        let weak = Arc::downgrade(&shared);
        budget.on_pressure(move || {
            if let Some(shared) = weak.upgrade()
                && let Some(mut state) = shared.state.try_lock()
            {
                *state = State::default();
            }
        });
        Self(shared)
    }

    pub fn get(&self, day: Day, number: u32) -> Option<Arc<SpanBlock>> {
        let mut state = self.0.state.lock();
        state.turn += 1;
        let turn = state.turn;
        let found = state.kept.get_mut(&(day, number)).map(|kept| {
            kept.used = turn;
            kept.block.clone()
        });
        match &found {
            Some(_) => self.0.hits.inc(),
            None => self.0.misses.inc(),
        };
        found
    }

    /// Keeps a block that was read.
    pub fn keep(&self, day: Day, number: u32, block: &Arc<SpanBlock>, worth: Worth) {
        let bytes = block.memory();
        let Shared { account, limit, .. } = &*self.0;
        if bytes > limit / 8 {
            return;
        }
        let mut state = self.0.state.lock();
        if state.kept.contains_key(&(day, number)) {
            return;
        }
        if state.bytes + bytes > *limit {
            if worth == Worth::Little {
                return;
            }
            state.make_room(limit - limit / 8);
        }
        // Never the last of the budget: who needs it would only have it taken back.
        if account.free() < account.limit() / KEEP_FREE {
            return;
        }
        let booked = match &mut state.permit {
            Some(permit) => permit.try_grow(bytes),
            None => account.try_take(bytes).map(|permit| {
                state.permit = Some(permit);
            }),
        };
        if booked.is_ok() {
            state.bytes += bytes;
            let used = state.turn;
            let block = block.clone();
            let kept = Kept { block, bytes, used };
            state.kept.insert((day, number), kept);
        }
    }
}

impl State {
    /// Lets go of what was not asked for the longest.
    fn make_room(&mut self, target: usize) {
        let mut ages: Vec<(u64, (Day, u32))> = self
            .kept
            .iter()
            .map(|(key, kept)| (kept.used, *key))
            .collect();
        ages.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in ages {
            if self.bytes <= target {
                break;
            }
            if let Some(kept) = self.kept.remove(&key) {
                self.bytes -= kept.bytes;
            }
        }
        if let Some(permit) = &mut self.permit {
            permit.shrink_to(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_booked_and_given_back() {
        let budget = Budget::new(1 << 20);
        let blocks = Blocks::new(64 << 10, &budget, &Metrics::default());
        let block = Arc::new(SpanBlock::default());
        let bytes = block.memory();
        let fits = (64 << 10) / bytes as u32;
        for number in 0..fits + 50 {
            blocks.keep(Day(1), number, &block, Worth::Little);
        }
        assert!(blocks.get(Day(1), 0).is_some(), "used now");
        assert!(blocks.get(Day(1), fits + 1).is_none(), "no room for it");
        blocks.keep(Day(1), 9999, &block, Worth::Much);
        assert!(blocks.get(Day(1), 9999).is_some() && blocks.get(Day(1), 0).is_some());
        assert!(blocks.get(Day(2), 0).is_none());
        let account = budget.account("span_blocks");
        assert!(
            (1..=64 << 10).contains(&account.used()),
            "{}",
            account.used()
        );
        let all = budget.account("other").try_take(1 << 20);
        assert!(all.is_ok() && account.used() == 0);
        blocks.keep(Day(1), 7, &block, Worth::Much);
        assert!(blocks.get(Day(1), 7).is_none(), "the budget has no room");
    }
}
