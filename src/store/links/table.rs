//! Spans of the newest blocks by trace and id, and children that wait for their parents. Both
//! have a fixed size and forget the oldest.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashTable};

use super::record::Orphan;
use crate::model::Day;
use crate::store::span::links::{CHECK_BITS, Role};

/// A span in 64 bits: 34 of its key, then check, service and role. The table itself tells
/// another 20 bits or so of the key apart.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

const ROLE_BITS: u32 = 2;
pub const SERVICE_BITS: u32 = 16;
const TAG_SHIFT: u32 = ROLE_BITS + SERVICE_BITS + CHECK_BITS;
/// Bits of the key that neither choose a slot nor are kept in its control byte.
const TAG_FROM: u32 = 20;

impl Packed {
    fn new(key: u64, seen: Seen) -> Self {
        let rest = u64::from(seen.check) << (SERVICE_BITS + ROLE_BITS)
            | u64::from(seen.service) << ROLE_BITS
            | seen.role as u64;
        Self(key >> TAG_FROM << TAG_SHIFT | rest)
    }

    fn is_of(self, key: u64) -> bool {
        self.0 >> TAG_SHIFT == key >> TAG_FROM << TAG_SHIFT >> TAG_SHIFT
    }

    fn seen(self) -> Seen {
        Seen {
            service: (self.0 >> ROLE_BITS) as u16,
            check: (self.0 >> (SERVICE_BITS + ROLE_BITS)) as u16 & ((1 << CHECK_BITS) - 1),
            role: match self.0 & 3 {
                1 => Role::Client,
                2 => Role::Server,
                _ => Role::Other,
            },
        }
    }
}

/// What is remembered of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of its service.
    pub service: u16,
    pub role: Role,
    pub check: u16,
}

/// Spans of as many blocks as there is room for.
#[derive(Debug)]
pub struct Spans {
    table: HashTable<Packed>,
}

impl Spans {
    pub fn new(spans: usize) -> Self {
        Self {
            table: HashTable::with_capacity(spans),
        }
    }

    /// Whether so many more fit.
    pub fn fit(&self, more: usize) -> bool {
        self.table.len() + more <= self.table.capacity()
    }

    pub fn insert(&mut self, key: u64, seen: Seen) {
        if self.fit(1) {
            // There is room, so nothing is hashed again: it could not be.
            self.table.insert_unique(key, Packed::new(key, seen), |_| 0);
        }
    }

    pub fn get(&self, key: u64) -> impl Iterator<Item = Seen> {
        let found = self.table.iter_hash(key);
        found
            .filter(move |packed| packed.is_of(key))
            .map(|packed| packed.seen())
    }

    pub fn memory(&self) -> usize {
        self.table.allocation_size()
    }
}

/// Two tables, of which the older is forgotten when the newer is full.
#[derive(Debug)]
pub struct Recent {
    spans: [Spans; 2],
    /// First block of each day that each of them holds.
    from: [HashMap<Day, u32>; 2],
    /// Keys that more than one span came with, a bit for each of a few of their bits: seldom
    /// one is set, and looking here is cheaper than looking for the spans.
    shared: [Box<[u64]>; 2],
}

const SHARED_BITS: u32 = 16;

impl Recent {
    /// Room for so many spans in each table.
    pub fn new(spans: usize) -> Self {
        Self {
            spans: [Spans::new(spans), Spans::new(spans)],
            from: Default::default(),
            shared: std::array::from_fn(|_| vec![0; (1 << SHARED_BITS) / 64].into()),
        }
    }

    /// Makes room for a block's spans.
    pub fn begin_block(&mut self, day: Day, number: u32, spans: usize) {
        if !self.spans[0].fit(spans) {
            self.spans.swap(0, 1);
            self.from.swap(0, 1);
            self.from[0].clear();
            self.shared.swap(0, 1);
            self.shared[0].fill(0);
            self.spans[0].table.clear();
            if !self.spans[0].fit(spans) {
                self.spans[0] = Spans::new(spans);
            }
        }
        self.from[0].entry(day).or_insert(number);
    }

    /// A span of the block begun last; whether there are others with its key.
    pub fn insert(&mut self, key: u64, seen: Seen, shared: bool) {
        self.spans[0].insert(key, seen);
        if shared {
            let bit = shared_bit(key);
            self.shared[0][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether there may be more than one span with this key.
    pub fn is_shared(&self, key: u64) -> bool {
        let bit = shared_bit(key);
        ((self.shared[0][bit / 64] | self.shared[1][bit / 64]) >> (bit % 64)) & 1 == 1
    }

    pub fn get(&self, key: u64) -> impl Iterator<Item = Seen> {
        self.spans[0].get(key).chain(self.spans[1].get(key))
    }

    /// Whether it holds the spans of a block.
    pub fn holds(&self, day: Day, number: u32) -> bool {
        let from = self.from.iter().filter_map(|from| from.get(&day));
        from.min().is_some_and(|from| *from <= number)
    }

    pub fn memory(&self) -> usize {
        self.spans.iter().map(Spans::memory).sum::<usize>() + (2 << SHARED_BITS) / 8
    }
}

fn shared_bit(key: u64) -> usize {
    (key >> (u64::BITS - SHARED_BITS)) as usize
}

/// Children that wait for their parents, by the parents' keys.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Oldest first; `None` is one that waits no more.
    queue: VecDeque<Option<Orphan>>,
    /// Orphans that have left the queue's front.
    gone: u32,
    /// Place in the queue, plus `gone`.
    places: HashTable<u32>,
    room: usize,
}

impl Orphans {
    pub fn new(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn at(queue: &VecDeque<Option<Orphan>>, gone: u32, place: u32) -> Option<Orphan> {
        queue
            .get(place.wrapping_sub(gone) as usize)
            .copied()
            .flatten()
    }

    /// Takes one; how many calls were forgotten for it.
    pub fn push(&mut self, orphan: Orphan) -> u64 {
        let (queue, gone) = (&mut self.queue, self.gone);
        let like = |place: &&u32| {
            Self::at(queue, gone, **place).is_some_and(|other| {
                (other.parent, other.service, other.minute)
                    == (orphan.parent, orphan.service, orphan.minute)
            })
        };
        if let Some(place) = self.places.iter_hash(orphan.parent).find(like)
            && let Some(Some(like)) = queue.get_mut(place.wrapping_sub(gone) as usize)
        {
            like.calls = like.calls.saturating_add(orphan.calls);
            return 0;
        }
        let mut forgotten = 0;
        while self.queue.len() >= self.room.max(1) {
            let place = self.gone;
            if let Some(oldest) = self.queue.pop_front().flatten()
                && let Ok(entry) = self.places.find_entry(oldest.parent, |p| *p == place)
            {
                entry.remove();
                forgotten += u64::from(oldest.calls);
            }
            self.gone = self.gone.wrapping_add(1);
        }
        let place = self.gone.wrapping_add(self.queue.len() as u32);
        self.queue.push_back(Some(orphan));
        let (queue, gone) = (&self.queue, self.gone);
        self.places.insert_unique(orphan.parent, place, |place| {
            Self::at(queue, gone, *place).map_or(0, |orphan| orphan.parent)
        });
        forgotten
    }

    /// Those that wait for a span.
    pub fn of(&self, parent: u64) -> impl Iterator<Item = Orphan> {
        let places = self.places.iter_hash(parent);
        places
            .filter_map(|place| Self::at(&self.queue, self.gone, *place))
            .filter(move |orphan| orphan.parent == parent)
    }

    /// The same; they wait no more.
    pub fn take(&mut self, parent: u64, mut each: impl FnMut(Orphan)) -> usize {
        let mut taken = 0;
        let (queue, gone) = (&mut self.queue, self.gone);
        let is_of = |queue: &VecDeque<Option<Orphan>>, place: u32| {
            Self::at(queue, gone, place).is_some_and(|orphan| orphan.parent == parent)
        };
        while let Ok(entry) = self.places.find_entry(parent, |place| is_of(queue, *place)) {
            let (place, _) = entry.remove();
            if let Some(slot) = queue.get_mut(place.wrapping_sub(gone) as usize)
                && let Some(orphan) = slot.take()
            {
                each(orphan);
                taken += 1;
            }
        }
        taken
    }

    pub fn memory(&self) -> usize {
        self.places.allocation_size() + self.queue.capacity() * size_of::<Option<Orphan>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(service: u16) -> Seen {
        Seen {
            service,
            role: Role::Server,
            check: 0xabc,
        }
    }

    fn key(n: u64) -> u64 {
        crate::store::links::key_of(
            crate::model::trace::TraceId(n.into()),
            crate::model::trace::SpanId(n),
        )
    }

    #[test]
    fn recent_spans_are_found_until_two_tables_are_full() {
        let mut recent = Recent::new(100);
        let room = recent.spans[0].table.capacity();
        let day = Day(20_000);
        for block in 0..10 {
            recent.begin_block(day, block, 50);
            (0..50).for_each(|n| {
                recent.insert(key(u64::from(block) * 50 + n), seen(block as u16), false)
            });
        }
        assert!(recent.spans.iter().all(|spans| spans.table.len() <= room));
        for block in 0..10u32 {
            for n in 0..50 {
                let found: Vec<Seen> = recent.get(key(u64::from(block) * 50 + n)).collect();
                let expected = if recent.holds(day, block) {
                    vec![seen(block as u16)]
                } else {
                    vec![]
                };
                assert_eq!(found, expected, "block {block}");
            }
        }
        assert!(recent.holds(day, 9) && recent.holds(day, 8) && !recent.holds(day, 0));
        assert!(!recent.holds(Day(1), 9));
        assert_eq!(recent.get(key(9999)).count(), 0);
        // One larger than the table has one made for it.
        recent.begin_block(day, 10, 1000);
        (0..1000).for_each(|n| recent.insert(key(10_000 + n), seen(7), false));
        assert!((0..1000).all(|n| recent.get(key(10_000 + n)).count() == 1));
        assert!(!recent.is_shared(key(10_000)));
        recent.insert(key(10_000), seen(8), true);
        assert!(recent.is_shared(key(10_000)) && recent.get(key(10_000)).count() == 2);
    }

    #[test]
    fn orphans_wait_until_taken_or_too_many() {
        let orphan = |parent, service| Orphan {
            parent: key(parent),
            service,
            minute: 1,
            calls: 1,
        };
        let mut orphans = Orphans::new(4);
        assert_eq!(orphans.push(orphan(1, 1)) + orphans.push(orphan(1, 2)), 0);
        assert_eq!(orphans.push(orphan(2, 3)), 0);
        assert_eq!(orphans.of(key(1)).count(), 2);
        let mut taken = Vec::new();
        assert_eq!(orphans.take(key(1), |o| taken.push(o.service)), 2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        assert_eq!((orphans.len(), orphans.of(key(1)).count()), (1, 0));
        // Places of those taken are given up first, at no loss.
        assert_eq!(orphans.push(orphan(3, 4)), 0);
        assert_eq!(orphans.push(orphan(4, 5)) + orphans.push(orphan(5, 6)), 0);
        assert_eq!(orphans.push(orphan(6, 7)), 1);
        assert_eq!(orphans.of(key(2)).count(), 0);
        assert!((3..=6).all(|n| orphans.of(key(n)).count() == 1));
        for n in 0..1000 {
            orphans.push(orphan(100 + n, 1));
        }
        assert_eq!(orphans.len(), 4);
        // Those of one service and minute are one.
        assert_eq!(orphans.push(orphan(1099, 1)), 0);
        assert_eq!(
            orphans.of(key(1099)).map(|o| o.calls).collect::<Vec<_>>(),
            [2]
        );
    }
}
