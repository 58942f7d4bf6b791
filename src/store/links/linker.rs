//! The thread that links blocks, and the answer to who called whom.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use parking_lot::{Condvar, Mutex};

use super::key_of;
use super::record::{LinkRecord, Orphan, minutes};
use super::table::{Orphans, Recent, SERVICE_BITS, Seen, Spans};
use crate::model::Day;
use crate::model::service_metrics::DependencyLink;
use crate::model::time::{MINUTE, TimeRange};
use crate::model::trace::{SpanId, Text, TraceId};
use crate::runtime::permits::Account;
use crate::store::error::StoreError;
use crate::store::layout::Signal;
use crate::store::partition::{Partition, Read};
use crate::store::snapshot;
use crate::store::span::SpanBlock;
use crate::store::span::links::{Link, Links, Role};
use crate::store::writer::Shared;

/// How often blocks are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And when there is more to do: so long others have the lock.
const PAUSE: Duration = Duration::from_millis(60);
/// A block is linked so long after it was noted: parents are reported after their children,
/// from another process. Later ones find their children among the orphans.
const LINK_AFTER: Duration = Duration::from_secs(20);
/// Blocks are linked together when the oldest has waited for so long: fewer records.
const LINK_AT_LATEST: Duration = Duration::from_secs(40);
/// Blocks noted at a time without the lock being given back.
const NOTE_AT_ONCE: usize = 256;
/// Blocks that a query notes itself; of more, it sees what the thread has come to.
const NOTE_FOR_QUERY: usize = 512;
/// Linked blocks whose spans are noted again at a start.
const NOTE_AT_START: usize = 128;
/// Days in which parents are looked for by the trace-id keys, and whose orphans are kept over
/// a restart.
const LOOK_BACK_DAYS: usize = 3;
/// Time for looking for parents in older blocks, of each [`LOOK_EVERY`].
const LOOKUP_TIME: Duration = Duration::from_millis(5);
/// Children that wait for a turn to have their parents looked for.
const MAX_LOOKUPS: usize = 256 << 10;
/// When so many wait, and a quarter as many as there are older blocks, those are all read, each
/// once for all of them.
const SWEEP_FROM: usize = 64;
/// Entries of one key in the table: more spans with one id have no parentage worth the name.
const SAME_KEY: usize = 16;
/// Shares of the memory budget: of 256 MiB five for the table, at most eleven for orphans, four
/// for what waits to be linked.
const TABLE_SHARE: usize = 48;
const ORPHAN_SHARE: usize = 24;
const PENDING_SHARE: usize = 64;
/// Memory of a block's links, about.
const LINKS_BYTES: usize = 20 << 10;

/// Handle to the thread, and to what it knows.
pub struct Linker {
    state: Mutex<Option<State>>,
    stopped: Mutex<bool>,
    wake: Condvar,
    account: Account,
}

/// Everything between two records. Rebuilt from records and blocks when it is lost.
struct State {
    services: Services,
    recent: Recent,
    orphans: Orphans,
    /// Noted, oldest first.
    pending: VecDeque<Pending>,
    /// Number of the next block to be noted, by day.
    next: HashMap<Day, u32>,
    /// Blocks that may wait to be linked.
    most_pending: usize,
    /// Parents that may be in older blocks and have not been looked for.
    lookups: VecDeque<Lookup>,
    sweep: Option<Sweep>,
    /// What looking for them found, for the next record.
    late: Found,
    /// Time that may be spent with looking.
    allowance: Duration,
    allowed_at: Instant,
    /// Calls that were given up for want of room.
    forgotten: u64,
}

struct Pending {
    day: Day,
    number: u32,
    noted: Instant,
    links: Arc<Links>,
    /// Numbers of the services of `links`.
    services: Vec<u16>,
    /// Rows that are exact repetitions.
    repeated: Vec<u32>,
}

/// All blocks that the table has forgotten, read for many lookups at once.
struct Sweep {
    /// The next to be read is the last.
    blocks: Vec<(Day, u32)>,
    /// Lookups that are done when it is.
    lookups: usize,
}

struct Lookup {
    trace: TraceId,
    parent: SpanId,
}

/// Names of services by number.
#[derive(Default)]
struct Services {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
}

impl Services {
    /// All beyond what numbers tell apart are the last one.
    fn number(&mut self, name: &str) -> u16 {
        const MOST: usize = (1 << SERVICE_BITS) - 1;
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len().min(MOST) as u16;
        if self.names.len() <= MOST {
            self.names.push(name.into());
            self.numbers.insert(name.into(), number);
        }
        number
    }

    fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |name| name)
    }

    fn memory(&self) -> usize {
        self.names.iter().map(|name| 2 * name.len() + 48).sum()
    }
}

type Edges = HashMap<(u32, u32, i32), u64>;

/// Whether the next pass has work already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    More,
    Nothing,
}

/// Which of the noted blocks are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Those that have waited long enough, or are too many.
    Due,
    All,
}

/// What linking blocks of one day found.
#[derive(Default)]
struct Found {
    last: u32,
    edges: Edges,
    orphans: Vec<Orphan>,
    found: Vec<u64>,
}

impl Linker {
    pub fn start(shared: Arc<Shared>) -> std::io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let linker = Arc::new(Self {
            state: Mutex::new(None),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
            account: shared.options.budget.account("links"),
        });
        let thread = linker.clone();
        let handle = std::thread::Builder::new()
            .name("linker".into())
            .spawn(move || thread.run(&shared))?;
        Ok((linker, handle))
    }

    /// Ends the thread after what it is doing. What is not linked then is after the next start.
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.wake.notify_one();
    }

    fn run(&self, shared: &Shared) {
        let mut pause = LOOK_EVERY;
        loop {
            {
                let mut stopped = self.stopped.lock();
                if !*stopped {
                    self.wake.wait_for(&mut stopped, pause);
                }
                if *stopped {
                    break;
                }
            }
            let pass = catch_unwind(AssertUnwindSafe(|| self.pass(shared)));
            pause = LOOK_EVERY;
            let failure = match pass {
                Ok(Ok(Left::Nothing)) => continue,
                Ok(Ok(Left::More)) => {
                    pause = PAUSE;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "panicked".into(),
            };
            // Nothing is lost with it: records and blocks are all it is made of.
            *self.state.lock() = None;
            shared.degrade(format!("linking of spans failed, tried again: {failure}"));
        }
        if let Some(state) = self.state.lock().as_mut()
            && let Err(error) = state.store_late(shared, &span_days(shared))
        {
            tracing::error!("calls between services not stored: {error}");
        }
    }

    fn pass(&self, shared: &Shared) -> Result<Left, StoreError> {
        let mut guard = self.state.lock();
        // With the lock held: a query must not know of a day that this does not.
        let days = span_days(shared);
        if guard.is_none() {
            *guard = Some(State::load(shared, &days)?);
        }
        let Some(state) = guard.as_mut() else {
            return Ok(Left::Nothing);
        };
        let noted = state.pending.len();
        let behind = state.note(&days, |partition| partition.next_number(), NOTE_AT_ONCE)?;
        // Nothing comes: time to catch up with looking.
        let idle = state.pending.len() == noted;
        state.link(shared, &days, Which::Due)?;
        state.allow(idle);
        state.look_up(&days)?;
        if idle && state.sweep.is_none() {
            state.store_late(shared, &days)?;
        }
        let waiting: usize = days
            .values()
            .map(|partition| partition.unlinked_memory())
            .sum();
        self.account.set(state.memory() + waiting);
        let m = &shared.metrics;
        m.links_waiting
            .set(behind as i64 + state.pending.len() as i64);
        m.link_orphans.set(state.orphans.len() as i64);
        m.links_forgotten
            .inc_by(std::mem::take(&mut state.forgotten));
        let more = behind > 0 || idle && !state.lookups.is_empty();
        Ok(if more { Left::More } else { Left::Nothing })
    }

    /// Who called whom, by the starts of the called spans; sorted.
    pub fn dependencies(
        &self,
        shared: &Shared,
        range: TimeRange,
    ) -> Result<Vec<DependencyLink>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = (minute_of(range.start), minute_of(range.end - 1));
        let mut guard = self.state.lock();
        if guard.is_none() {
            *guard = Some(State::load(shared, &span_days(shared))?);
        }
        let Some(state) = guard.as_mut() else {
            return Ok(Vec::new());
        };
        // With the lock held to the end nothing is linked meanwhile, so each block is in a
        // record, or pending, or open in this snapshot.
        let snapshot = snapshot::spans(shared)?;
        let days: BTreeMap<Day, Arc<Partition>> = snapshot
            .days
            .iter()
            .map(|day| (day.partition.id.day, day.partition.clone()))
            .collect();
        let ends: HashMap<Day, u32> = snapshot
            .days
            .iter()
            .map(|day| {
                let last = day.blocks.iter().next_back();
                (day.partition.id.day, last.map_or(0, |meta| meta.number + 1))
            })
            .collect();
        let end = |partition: &Partition| ends.get(&partition.id.day).copied().unwrap_or(0);
        state.note(&days, end, NOTE_FOR_QUERY)?;
        let mut calls = Calls::default();
        for ((parent, child, minute), more) in state.preview(snapshot.blocks_in_memory()) {
            if (wanted.0..=wanted.1).contains(&minute) {
                calls.add(
                    state.services.name(parent),
                    state.services.name(child),
                    more,
                );
            }
        }
        for partition in days.values() {
            let read = partition.links_from(0, |number, bytes| {
                match minutes(bytes) {
                    Ok((first, last)) if first > wanted.1 || last < wanted.0 => return true,
                    Ok(_) | Err(_) => {}
                }
                match LinkRecord::decode(bytes) {
                    Ok(record) => {
                        for edge in &record.edges {
                            if (wanted.0..=wanted.1).contains(&edge.minute) {
                                let name = |n: u32| record.services[n as usize].as_str();
                                calls.add(name(edge.parent), name(edge.child), edge.calls);
                            }
                        }
                    }
                    Err(what) => note_links(partition, number, &what),
                }
                true
            });
            match read {
                // Retention was quicker.
                Ok(()) | Err(StoreError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(calls.sorted())
    }
}

/// Calls by parent and child.
#[derive(Default)]
struct Calls(HashMap<String, HashMap<String, u64>>);

impl Calls {
    fn add(&mut self, parent: &str, child: &str, more: u64) {
        let sum = self.0.entry_ref(parent).or_default();
        let sum = sum.entry_ref(child).or_default();
        *sum = sum.saturating_add(more);
    }

    fn sorted(self) -> Vec<DependencyLink> {
        let mut found = Vec::new();
        for (parent, children) in self.0 {
            found.extend(children.into_iter().map(|(child, calls)| DependencyLink {
                parent: parent.clone(),
                child,
                calls,
            }));
        }
        found.sort_unstable();
        found
    }
}

/// Who called a span, as far as the tables know.
enum Caller {
    /// A service, by its number.
    Service(u16),
    /// Whatever span has this id, in the same trace.
    Unseen(SpanId),
    Nobody,
}

fn caller(
    link: &Link,
    trace: TraceId,
    seen: impl Fn(u64) -> Option<Seen>,
    client: impl Fn(u64) -> Option<Seen>,
) -> Caller {
    if link.role == Role::Server
        && let Some(client) = client(key_of(trace, link.span))
    {
        return Caller::Service(client.service);
    }
    let Some(parent) = link.parent else {
        return Caller::Nobody;
    };
    match seen(key_of(trace, parent)) {
        Some(seen) => Caller::Service(seen.service),
        None => Caller::Unseen(parent),
    }
}

/// Of spans with one id the one that children mean (G3).
fn parent_of(spans: impl Iterator<Item = Seen>) -> Option<Seen> {
    let mut first = None;
    for seen in spans {
        if seen.role == Role::Server {
            return Some(seen);
        }
        first = first.or(Some(seen));
    }
    first
}

fn client_of(mut spans: impl Iterator<Item = Seen>) -> Option<Seen> {
    spans.find(|seen| seen.role == Role::Client)
}

/// A span, compared with those that have its key.
struct Compared {
    /// It has to be remembered beside them.
    new: bool,
    /// It is one of them over again.
    again: bool,
    /// There are others.
    shared: bool,
}

fn compare(spans: impl Iterator<Item = Seen>, new: Seen) -> Compared {
    let (mut known, mut remembered) = (0, false);
    for seen in spans {
        if seen == new {
            return Compared {
                new: false,
                again: true,
                shared: true,
            };
        }
        known += 1;
        remembered |= (seen.service, seen.role) == (new.service, new.role);
    }
    Compared {
        new: !remembered && known < SAME_KEY,
        again: false,
        shared: known > 0,
    }
}

fn count(edges: &mut Edges, parent: u16, child: u32, minute: i32, calls: u64) {
    if u32::from(parent) != child {
        let sum = edges.entry((parent.into(), child, minute)).or_default();
        *sum = sum.saturating_add(calls);
    }
}

impl State {
    /// What records and the newest linked blocks say.
    fn load(shared: &Shared, days: &BTreeMap<Day, Arc<Partition>>) -> Result<Self, StoreError> {
        let limit = shared.options.budget.limit();
        // An entry takes nine bytes and a seventh more.
        let spans = (limit / TABLE_SHARE / 2 / 9).clamp(4096, 1 << 22);
        let spans = (spans + 1).next_power_of_two() / 2 * 7 / 8;
        let orphans = (limit / ORPHAN_SHARE / 40).clamp(1024, 1 << 22);
        let mut state = Self {
            services: Services::default(),
            recent: Recent::new(spans),
            orphans: Orphans::new(orphans),
            pending: VecDeque::new(),
            most_pending: (limit / PENDING_SHARE / LINKS_BYTES).clamp(8, 512),
            next: HashMap::new(),
            lookups: VecDeque::new(),
            sweep: None,
            late: Found::default(),
            allowance: LOOKUP_TIME,
            allowed_at: Instant::now(),
            forgotten: 0,
        };
        let mut born = Vec::new();
        let mut found = HashSet::new();
        for (day, partition) in days {
            state.next.insert(*day, partition.linked_below()?);
        }
        for partition in newest(days) {
            partition.links_from(0, |number, bytes| {
                match LinkRecord::decode(bytes) {
                    Ok(record) => {
                        found.extend(record.found.iter().copied());
                        for orphan in &record.orphans {
                            let name = &record.services[orphan.service as usize];
                            let service = state.services.number(name).into();
                            born.push(Orphan { service, ..*orphan });
                        }
                    }
                    Err(what) => note_links(partition, number, &what),
                }
                true
            })?;
        }
        for orphan in born {
            if !found.contains(&orphan.parent) {
                state.orphans.push(orphan);
            }
        }
        let mut again: Vec<(&Arc<Partition>, u32)> = Vec::new();
        for partition in newest(days).rev() {
            let end = state.next.get(&partition.id.day).copied().unwrap_or(0);
            let room = NOTE_AT_START - again.len();
            again.extend((0..end).rev().take(room).map(|number| (partition, number)));
        }
        for (partition, number) in again.into_iter().rev() {
            if let Some(links) = read_links(partition, number)? {
                state.remember(partition.id.day, number, &links);
            }
        }
        Ok(state)
    }

    fn memory(&self) -> usize {
        let pending = self.pending.iter().map(|pending| pending.links.memory());
        self.recent.memory()
            + self.orphans.memory()
            + self.services.memory()
            + pending.sum::<usize>()
            + self.lookups.capacity() * size_of::<Lookup>()
    }

    /// Number of the first block of a day that no record covers.
    fn linked_below(&self, day: Day) -> u32 {
        let pending = self.pending.iter().find(|pending| pending.day == day);
        let next = self.next.get(&day).copied().unwrap_or(0);
        pending.map_or(next, |pending| pending.number)
    }

    /// Enters a block's spans into the table: the numbers of its services, and which of its
    /// spans are repetitions (G2).
    fn remember(&mut self, day: Day, number: u32, links: &Links) -> (Vec<u16>, Vec<u32>) {
        self.recent.begin_block(day, number, links.rows.len());
        let names = links.services.iter();
        let services: Vec<u16> = names.map(|name| self.services.number(name)).collect();
        let mut repeated = Vec::new();
        for (link, n) in links.rows.iter().zip(0..) {
            let key = key_of(links.traces[link.trace as usize], link.span);
            let seen = Seen {
                service: services[link.service as usize],
                role: link.role,
                check: link.check,
            };
            let compared = compare(self.recent.get(key), seen);
            if compared.new {
                self.recent.insert(key, seen, compared.shared);
            }
            if compared.again {
                repeated.push(n);
            }
        }
        (services, repeated)
    }

    /// Notes blocks that were sealed since, at most so many; how many are left.
    fn note(
        &mut self,
        days: &BTreeMap<Day, Arc<Partition>>,
        end: impl Fn(&Partition) -> u32,
        most: usize,
    ) -> Result<u64, StoreError> {
        let mut left = most;
        let mut behind = 0;
        for (day, partition) in days {
            let next = match self.next.get(day) {
                Some(next) => *next,
                None => partition.linked_below()?,
            };
            let end = end(partition).max(next);
            let until = end.min(next.saturating_add(left as u32));
            for number in next..until {
                let links = match partition.take_links(number) {
                    Some(links) => Some(links),
                    None => read_links(partition, number)?.map(Arc::new),
                };
                if let Some(links) = links {
                    let (services, repeated) = self.remember(*day, number, &links);
                    self.pending.push_back(Pending {
                        day: *day,
                        number,
                        noted: Instant::now(),
                        links,
                        services,
                        repeated,
                    });
                }
            }
            self.next.insert(*day, until);
            left -= (until - next) as usize;
            behind += u64::from(end - until);
        }
        // Of days that retention dropped nothing is left to be linked.
        self.next.retain(|day, _| days.contains_key(day));
        self.pending
            .retain(|pending| days.contains_key(&pending.day));
        Ok(behind)
    }

    /// Links noted blocks.
    fn link(
        &mut self,
        shared: &Shared,
        days: &BTreeMap<Day, Arc<Partition>>,
        which: Which,
    ) -> Result<(), StoreError> {
        let waited = |pending: &Pending, at_least| pending.noted.elapsed() >= at_least;
        let which = if link_at_once() { Which::All } else { which };
        let mut due = match which {
            Which::Due => 0,
            Which::All => self.pending.len(),
        };
        if self.pending.len() > self.most_pending {
            due = self.pending.len() - self.most_pending / 2;
        } else if self
            .pending
            .front()
            .is_some_and(|p| waited(p, LINK_AT_LATEST))
        {
            let old = self.pending.iter().take_while(|p| waited(p, LINK_AFTER));
            due = old.count();
        }
        if due == 0 {
            return Ok(());
        }
        let mut by_day: BTreeMap<Day, Found> = BTreeMap::new();
        for pending in self.pending.drain(..due).collect::<Vec<_>>() {
            let found = by_day.entry(pending.day).or_default();
            self.link_block(&pending, days, found)?;
        }
        for (day, found) in by_day {
            if let Some(partition) = days.get(&day) {
                let last = found.last;
                self.store(shared, days, found, |record| {
                    partition.put_links(last, record)
                })?;
            }
        }
        self.store_late(shared, days)
    }

    /// Stores what looking for parents found, beside the last record.
    fn store_late(
        &mut self,
        shared: &Shared,
        days: &BTreeMap<Day, Arc<Partition>>,
    ) -> Result<(), StoreError> {
        if self.late.found.is_empty() {
            return Ok(());
        }
        let linked = |day: &Day| self.linked_below(*day).checked_sub(1);
        let newest = days
            .iter()
            .rev()
            .find_map(|(day, partition)| linked(day).map(|last| (last, partition)));
        let Some((last, partition)) = newest else {
            return Ok(());
        };
        let late = std::mem::take(&mut self.late);
        self.store(shared, days, late, |record| {
            partition.put_late_links(last, record)
        })
    }

    fn store(
        &self,
        shared: &Shared,
        days: &BTreeMap<Day, Arc<Partition>>,
        found: Found,
        put: impl FnOnce(Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if !found.found.is_empty() {
            // G4. The day that is written to comes along, which does no harm.
            for day in days.values().filter(|day| day.is_dirty()) {
                day.flush()?;
            }
        }
        let orphans = found.orphans.iter().map(|orphan| u64::from(orphan.calls));
        shared.metrics.links_orphaned.inc_by(orphans.sum());
        shared
            .metrics
            .links_found
            .inc_by(found.edges.values().sum());
        let name = |service| self.services.name(service).to_owned();
        let record = LinkRecord::new(&found.edges, &found.orphans, found.found, name).encode();
        shared.metrics.link_bytes.inc_by(record.len() as u64);
        fail::fail_point!("links-write");
        match put(record) {
            Ok(()) | Err(StoreError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn link_block(
        &mut self,
        pending: &Pending,
        days: &BTreeMap<Day, Arc<Partition>>,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        found.last = pending.number;
        let links = &pending.links;
        for (link, n) in links.rows.iter().zip(0..) {
            if pending.repeated.binary_search(&n).is_ok() {
                continue;
            }
            let trace = links.traces[link.trace as usize];
            let service = pending.services[link.service as usize];
            if !self.orphans.is_empty() {
                let key = key_of(trace, link.span);
                let (edges, recent) = (&mut found.edges, &self.recent);
                let mut of = None;
                let taken = self.orphans.take(key, |orphan| {
                    // Noted already, with those that share its id.
                    let service = *of.get_or_insert_with(|| {
                        parent_of(recent.get(key)).map_or(service, |seen| seen.service)
                    });
                    count(
                        edges,
                        service,
                        orphan.service,
                        orphan.minute,
                        orphan.calls.into(),
                    );
                });
                if taken > 0 {
                    found.found.push(key);
                }
            }
            let recent = &self.recent;
            let caller = caller(
                link,
                trace,
                |key| parent_of(recent.get(key)),
                |key| {
                    recent
                        .is_shared(key)
                        .then(|| client_of(recent.get(key)))
                        .flatten()
                },
            );
            match caller {
                Caller::Service(parent) => {
                    count(&mut found.edges, parent, service.into(), link.minute, 1)
                }
                Caller::Nobody => {}
                Caller::Unseen(parent) => {
                    let key = key_of(trace, parent);
                    let orphan = Orphan {
                        parent: key,
                        service: service.into(),
                        minute: link.minute,
                        calls: 1,
                    };
                    // Of siblings the first has been looked for already.
                    if self.orphans.of(key).next().is_none() {
                        let lookup = Lookup { trace, parent };
                        if self.may_look_up() {
                            if let Some(parent) = self.find(&lookup, days)? {
                                count(&mut found.edges, parent, service.into(), link.minute, 1);
                                continue;
                            }
                        } else if self.lookups.len() < MAX_LOOKUPS {
                            self.lookups.push_back(lookup);
                        } else {
                            self.forgotten += 1;
                        }
                    }
                    self.forgotten += self.orphans.push(orphan);
                    let same = found.orphans.last_mut().filter(|last| {
                        (last.parent, last.service, last.minute)
                            == (orphan.parent, orphan.service, orphan.minute)
                    });
                    match same {
                        Some(last) => last.calls += 1,
                        None => found.orphans.push(orphan),
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with looking for parents in older blocks; what is found comes into the next
    /// record.
    fn look_up(&mut self, days: &BTreeMap<Day, Arc<Partition>>) -> Result<(), StoreError> {
        if self.sweep.is_none() && self.lookups.len() >= SWEEP_FROM {
            let sweep = self.plan_sweep(days);
            let cheaper = sweep.blocks.len() / 4 <= sweep.lookups;
            self.sweep = cheaper.then_some(sweep);
        }
        while self.may_look_up()
            && let Some(sweep) = &mut self.sweep
        {
            let begun = Instant::now();
            if let Some((day, number)) = sweep.blocks.pop() {
                if let Some(partition) = days.get(&day)
                    && let Some(links) = read_links(partition, number)?
                {
                    self.find_orphans_of(&links);
                }
            } else {
                let done = sweep.lookups;
                self.lookups.drain(..done);
                self.sweep = None;
            }
            self.allowance = self.allowance.saturating_sub(begun.elapsed());
        }
        while self.may_look_up()
            && let Some(lookup) = self.lookups.pop_front()
        {
            let key = key_of(lookup.trace, lookup.parent);
            if self.orphans.of(key).next().is_some()
                && let Some(parent) = self.find(&lookup, days)?
            {
                let edges = &mut self.late.edges;
                self.orphans.take(key, |orphan| {
                    count(
                        edges,
                        parent,
                        orphan.service,
                        orphan.minute,
                        orphan.calls.into(),
                    );
                });
                self.late.found.push(key);
            }
        }
        Ok(())
    }

    /// The blocks that lookups concern, the newest first: parents are seldom far.
    fn plan_sweep(&self, days: &BTreeMap<Day, Arc<Partition>>) -> Sweep {
        let mut blocks = Vec::new();
        for day in newest(days).map(|partition| partition.id.day) {
            let end = self.next.get(&day).copied().unwrap_or(0);
            let forgotten = (0..end).filter(|number| !self.recent.holds(day, *number));
            blocks.extend(forgotten.map(|number| (day, number)));
        }
        Sweep {
            blocks,
            lookups: self.lookups.len(),
        }
    }

    /// Takes the orphans that wait for spans of a block.
    fn find_orphans_of(&mut self, links: &Links) {
        // Of spans with one id the server's first (G3).
        let servers = links.rows.iter().filter(|link| link.role == Role::Server);
        let others = links.rows.iter().filter(|link| link.role != Role::Server);
        for link in servers.chain(others) {
            let key = key_of(links.traces[link.trace as usize], link.span);
            if self.orphans.of(key).next().is_none() {
                continue;
            }
            let service = self.services.number(&links.services[link.service as usize]);
            let edges = &mut self.late.edges;
            self.orphans.take(key, |orphan| {
                count(
                    edges,
                    service,
                    orphan.service,
                    orphan.minute,
                    orphan.calls.into(),
                );
            });
            self.late.found.push(key);
        }
    }

    /// Gives time for looking up: a share of what has passed, half of it when nothing comes.
    fn allow(&mut self, idle: bool) {
        let passed = self.allowed_at.elapsed().min(LOOK_EVERY * 10);
        self.allowed_at = Instant::now();
        let share = LOOKUP_TIME.as_secs_f64() / LOOK_EVERY.as_secs_f64();
        let more = passed.mul_f64(if idle { 0.5 } else { share });
        self.allowance = (self.allowance + more).min(LOOKUP_TIME * 4);
    }

    fn may_look_up(&self) -> bool {
        !self.allowance.is_zero()
    }

    /// The service of a span in blocks that the table has forgotten.
    fn find(
        &mut self,
        lookup: &Lookup,
        days: &BTreeMap<Day, Arc<Partition>>,
    ) -> Result<Option<u16>, StoreError> {
        let begun = Instant::now();
        let mut found: Option<(Role, Text)> = None;
        for partition in newest(days).rev() {
            let day = partition.id.day;
            let end = self.next.get(&day).copied().unwrap_or(0);
            let numbers = match partition.blocks_of_trace(lookup.trace.0) {
                Ok(numbers) => numbers,
                Err(StoreError::Gone(_)) => continue,
                Err(error) => return Err(error),
            };
            for number in numbers {
                if number >= end || self.recent.holds(day, number) {
                    continue;
                }
                let Ok(Read::Whole(block)) = partition.read(number, SpanBlock::decode) else {
                    continue;
                };
                for span in block.spans_of(lookup.trace) {
                    if span.span_id == lookup.parent && (found.is_none() || span.kind() == "server")
                    {
                        let role = if span.kind() == "server" {
                            Role::Server
                        } else {
                            Role::Other
                        };
                        found = Some((role, span.process.service.clone()));
                    }
                }
            }
            if found.is_some() {
                break;
            }
        }
        self.allowance = self.allowance.saturating_sub(begun.elapsed());
        Ok(found.map(|(_, service)| self.services.number(&service)))
    }

    /// Calls that no record has yet: of what is noted, and of blocks in memory (G5).
    fn preview<'a>(&mut self, open: impl Iterator<Item = &'a SpanBlock>) -> Edges {
        let open: Vec<Links> = open.map(SpanBlock::links).collect();
        let mut overlay = Spans::new(open.iter().map(|links| links.rows.len()).sum());
        let mut blocks: Vec<(&Links, Vec<u16>, Vec<u32>)> = Vec::new();
        for links in &open {
            let names = links.services.iter();
            let services: Vec<u16> = names.map(|name| self.services.number(name)).collect();
            let mut repeated = Vec::new();
            for (link, n) in links.rows.iter().zip(0..) {
                let key = key_of(links.traces[link.trace as usize], link.span);
                let seen = Seen {
                    service: services[link.service as usize],
                    role: link.role,
                    check: link.check,
                };
                let known = self.recent.get(key).chain(overlay.get(key));
                let compared = compare(known, seen);
                if compared.new {
                    overlay.insert(key, seen);
                }
                if compared.again {
                    repeated.push(n);
                }
            }
            blocks.push((links, services, repeated));
        }
        let all = |key| self.recent.get(key).chain(overlay.get(key));
        let mut edges = self.late.edges.clone();
        let mut taken = HashSet::new();
        let pending = self
            .pending
            .iter()
            .map(|pending| (&*pending.links, &pending.services, &pending.repeated));
        let open = blocks
            .iter()
            .map(|(links, services, repeated)| (*links, services, repeated));
        for (links, services, repeated) in pending.chain(open) {
            for (link, n) in links.rows.iter().zip(0..) {
                if repeated.binary_search(&n).is_ok() {
                    continue;
                }
                let trace = links.traces[link.trace as usize];
                let service = services[link.service as usize];
                let key = key_of(trace, link.span);
                if !self.orphans.is_empty()
                    && self.orphans.of(key).next().is_some()
                    && taken.insert(key)
                {
                    let service = parent_of(all(key)).map_or(service, |seen| seen.service);
                    for orphan in self.orphans.of(key) {
                        count(
                            &mut edges,
                            service,
                            orphan.service,
                            orphan.minute,
                            orphan.calls.into(),
                        );
                    }
                }
                let caller = caller(
                    link,
                    trace,
                    |key| parent_of(all(key)),
                    |key| client_of(all(key)),
                );
                if let Caller::Service(parent) = caller {
                    count(&mut edges, parent, service.into(), link.minute, 1);
                }
            }
        }
        edges
    }
}

/// A fail point for tests, which can't wait.
fn link_at_once() -> bool {
    fail::fail_point!("link-at-once", |_| true);
    false
}

/// What links the spans of a sealed block; `None` when it can't be read or is gone.
fn read_links(partition: &Partition, number: u32) -> Result<Option<Links>, StoreError> {
    Ok(match partition.read(number, SpanBlock::decode)? {
        Read::Whole(block) => Some(block.links()),
        // Its spans are no part of any answer either.
        Read::Damaged | Read::Gone => None,
    })
}

/// Notes calls that can't be read: they are in no answer.
fn note_links(partition: &Partition, number: u32, what: &str) {
    partition.note_record(&format!("calls up to block {number}"), what);
}

fn span_days(shared: &Shared) -> BTreeMap<Day, Arc<Partition>> {
    let open = shared.open.lock();
    let spans = open.partitions.values();
    let spans = spans.filter(|partition| partition.id.signal == Signal::Spans);
    spans
        .map(|partition| (partition.id.day, partition.clone()))
        .collect()
}

/// The days in which parents are looked for, oldest first.
fn newest(
    days: &BTreeMap<Day, Arc<Partition>>,
) -> impl DoubleEndedIterator<Item = &Arc<Partition>> {
    days.values()
        .skip(days.len().saturating_sub(LOOK_BACK_DAYS))
}

fn minute_of(at: i64) -> i32 {
    at.div_euclid(MINUTE) as i32
}

#[cfg(test)]
mod tests;
