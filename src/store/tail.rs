//! Lines as the writer takes them, for whoever follows them live.
//!
//! T1. A tap is set under the lock of `Open`, so that a record reaches it wholly or not at
//!     all; and in the order of the journal.
//! T2. What reaches a tap is in a head already: it is journaled, and every snapshot taken
//!     since holds it. A run says its record and a snapshot how far it goes, so that whoever
//!     has both can tell what is in both.
//! T3. The writer never waits for a tap: what it has no room for is dropped and counted.
//! T4. Lines are copied once for all taps, and only if one of them wants their stream.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::chunk::LineBlock;
use super::streams::Stream;
use super::writer::Shared;
use crate::model::{Metadata, StreamId, Timestamp};
use crate::runtime::permits::{Account, Permit};

/// Text of one run; more makes another one, so that a large push finds room for its part.
const RUN_BYTES: usize = 256 << 10;
/// How far a tap may lag behind, bytes of lines.
const LAG_BYTES: usize = 8 << 20;
/// Share of the memory budget that all lagging lines may hold: an eighth.
const SHARE: usize = 8;
/// Dropped lines that a tap remembers one by one until it is asked.
const DROPPED_KEPT: usize = 1000;
/// Streams of which a tap remembers whether it wants them.
const KNOWN_STREAMS: usize = 4096;

/// Lines of one stream out of one record of the journal.
pub struct Run {
    /// The record's number.
    pub seq: u64,
    pub stream: Arc<Stream>,
    pub lines: Arc<LineBlock>,
    bytes: usize,
    /// Given back when the last tap has let go.
    _memory: Permit,
}

/// A line that a tap had no room for.
#[derive(Clone, Debug)]
pub struct Dropped {
    pub at: Timestamp,
    pub stream: Arc<Stream>,
}

/// What a tap got since it was asked last.
#[derive(Default)]
pub struct Heard {
    pub runs: VecDeque<Arc<Run>>,
    /// At most a thousand of the lines dropped.
    pub dropped: Vec<Dropped>,
    /// How many lines were dropped.
    pub dropped_lines: u64,
}

type Wanted = Box<dyn Fn(&Stream) -> bool + Send + Sync>;

/// One who listens.
pub struct Tap {
    wanted: Wanted,
    /// Asked by the writer only.
    known: Mutex<HashMap<StreamId, bool>>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    heard: Heard,
    bytes: usize,
}

impl Tap {
    fn wants(&self, stream: &Stream) -> bool {
        let mut known = self.known.lock();
        if let Some(wants) = known.get(&stream.id) {
            return *wants;
        }
        if known.len() >= KNOWN_STREAMS {
            known.clear();
        }
        let wants = (self.wanted)(stream);
        known.insert(stream.id, wants);
        wants
    }

    /// Lines dropped: none when the run found room.
    fn offer(&self, run: &Arc<Run>) -> u64 {
        let mut queue = self.queue.lock();
        // A run is never larger than a tap's room by itself, but for one very long line.
        if queue.bytes > 0 && queue.bytes + run.bytes > LAG_BYTES {
            drop(queue);
            return self.drop_lines(&run.stream, &run.lines.at);
        }
        queue.bytes += run.bytes;
        queue.heard.runs.push_back(run.clone());
        drop(queue);
        self.wake.notify_one();
        0
    }

    fn drop_lines(&self, stream: &Arc<Stream>, at: &[Timestamp]) -> u64 {
        let mut queue = self.queue.lock();
        let room = DROPPED_KEPT.saturating_sub(queue.heard.dropped.len());
        let dropped = at.iter().take(room).map(|at| Dropped {
            at: *at,
            stream: stream.clone(),
        });
        queue.heard.dropped.extend(dropped);
        queue.heard.dropped_lines += at.len() as u64;
        drop(queue);
        self.wake.notify_one();
        at.len() as u64
    }
}

/// The taps that are set. Cheap to clone, as the writer does for every record.
#[derive(Clone, Default)]
pub struct Taps(Option<Arc<[Arc<Tap>]>>);

impl Taps {
    fn change(&mut self, change: impl FnOnce(&mut Vec<Arc<Tap>>)) {
        let mut taps = self.0.take().map_or_else(Vec::new, |taps| taps.to_vec());
        change(&mut taps);
        self.0 = (!taps.is_empty()).then(|| taps.into());
    }
}

/// A record's lines on their way to the taps.
#[derive(Default)]
pub struct Watch {
    taps: Taps,
    copied: Vec<(Arc<Stream>, LineBlock)>,
}

impl Watch {
    /// Who gets the lines of the record that is applied next (T1: under the lock).
    pub fn begin(taps: &Taps) -> Self {
        Self {
            taps: taps.clone(),
            copied: Vec::new(),
        }
    }

    /// Whether a tap wants the stream's lines: then they are to be [`Watch::push`]ed.
    pub fn wants(&mut self, stream: &Arc<Stream>) -> bool {
        let Some(taps) = &self.taps.0 else {
            return false;
        };
        let wanted = taps.iter().any(|tap| tap.wants(stream));
        if wanted {
            self.copied.push((stream.clone(), LineBlock::default()));
        }
        wanted
    }

    /// A line of the stream wanted last, which entered its head.
    pub fn push(&mut self, at: Timestamp, line: &[u8], metadata: Option<&Metadata>) {
        let Some((stream, block)) = self.copied.last_mut() else {
            return;
        };
        if !block.is_empty() && block.text.len() + line.len() > RUN_BYTES {
            let stream = stream.clone();
            self.copied.push((stream, LineBlock::default()));
        }
        if let Some((_, block)) = self.copied.last_mut() {
            block.push(at, line, metadata);
        }
    }

    /// Hands the lines to the taps; without the lock. Returns how many lines were dropped.
    pub fn publish(self, seq: u64, account: &Account, budget: usize) -> u64 {
        let Some(taps) = &self.taps.0 else {
            return 0;
        };
        let mut dropped = 0;
        for (stream, lines) in self.copied {
            if lines.is_empty() {
                continue;
            }
            let bytes = lines.memory() + size_of::<Run>();
            let memory = if account.used() + bytes <= budget / SHARE {
                account.try_take(bytes).ok()
            } else {
                None
            };
            let wanting = taps.iter().filter(|tap| tap.wants(&stream));
            let Some(memory) = memory else {
                dropped += wanting
                    .map(|tap| tap.drop_lines(&stream, &lines.at))
                    .sum::<u64>();
                continue;
            };
            let run = Arc::new(Run {
                seq,
                stream: stream.clone(),
                lines: Arc::new(lines),
                bytes,
                _memory: memory,
            });
            dropped += wanting.map(|tap| tap.offer(&run)).sum::<u64>();
        }
        dropped
    }
}

/// What listeners hold themselves may be half of the share: lines need room, too.
pub(super) fn listener_memory(shared: &Shared, bytes: usize) -> Option<Permit> {
    let account = &shared.tails_account;
    let limit = shared.options.budget.limit() / SHARE / 2;
    if account.used() + bytes > limit {
        return None;
    }
    account.try_take(bytes).ok()
}

/// A tap that is set until this is dropped.
pub struct Listener {
    shared: Arc<Shared>,
    tap: Arc<Tap>,
}

impl Listener {
    /// Sets a tap: from now on lines of the streams that `wanted` says reach it.
    pub(super) fn set(
        shared: &Arc<Shared>,
        wanted: impl Fn(&Stream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let tap = Arc::new(Tap {
            wanted: Box::new(wanted),
            known: Mutex::default(),
            queue: Mutex::default(),
            wake: Notify::new(),
        });
        let set = tap.clone();
        shared.open.lock().taps.change(|taps| taps.push(set));
        Self {
            shared: shared.clone(),
            tap,
        }
    }

    /// Takes what there is.
    pub fn take(&self) -> Heard {
        let mut queue = self.tap.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.heard)
    }

    /// Completes when there may be something to take.
    pub fn heard(&self) -> Notified<'_> {
        self.tap.wake.notified()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        open.taps
            .change(|taps| taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;
    use crate::runtime::permits::Budget;
    use crate::store::streams::Streams;

    fn stream(app: &str) -> Arc<Stream> {
        let labels = Labels::from_pairs([("app", app)]);
        Streams::default().register(&"".into(), StreamId::of("", &labels), &labels)
    }

    fn tap(app: &'static str) -> Arc<Tap> {
        Arc::new(Tap {
            wanted: Box::new(move |stream| stream.labels.get("app") == Some(app)),
            known: Mutex::default(),
            queue: Mutex::default(),
            wake: Notify::new(),
        })
    }

    fn publish(taps: &Taps, budget: &Budget, stream: &Arc<Stream>, lines: &[&[u8]]) -> u64 {
        let mut watch = Watch::begin(taps);
        if watch.wants(stream) {
            for (at, line) in (0..).zip(lines) {
                watch.push(at, line, None);
            }
        }
        watch.publish(7, &budget.account("tails"), budget.limit())
    }

    #[test]
    fn a_run_is_shared_and_its_memory_given_back_when_the_last_tap_lets_go() {
        let (budget, a) = (Budget::new(1 << 20), stream("a"));
        let (one, two, other) = (tap("a"), tap("a"), tap("b"));
        let mut taps = Taps::default();
        taps.change(|t| t.extend([one.clone(), two.clone(), other.clone()]));
        assert_eq!(publish(&taps, &budget, &a, &[b"x", b"y"]), 0);
        assert_eq!(publish(&taps, &budget, &stream("c"), &[b"z"]), 0);
        let taken = std::mem::take(&mut one.queue.lock().heard);
        assert_eq!((taken.runs.len(), taken.runs[0].seq), (1, 7));
        assert_eq!(taken.runs[0].lines.line(1), b"y");
        assert!(other.queue.lock().heard.runs.is_empty());
        drop(taken);
        assert!(budget.used() > 0, "the second tap has it");
        two.queue.lock().heard = Heard::default();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_lags_too_far_loses_lines_and_is_told_which() {
        let (budget, a) = (Budget::new(1 << 30), stream("a"));
        let (slow, quick) = (tap("a"), tap("a"));
        let mut taps = Taps::default();
        taps.change(|t| t.extend([slow.clone(), quick.clone()]));
        let line = vec![b'x'; 100_000];
        let mut dropped = 0;
        for _ in 0..200 {
            dropped += publish(&taps, &budget, &a, &[&line]);
            let taken = std::mem::take(&mut *quick.queue.lock());
            assert_eq!((taken.heard.runs.len(), taken.heard.dropped_lines), (1, 0));
        }
        let taken = std::mem::take(&mut *slow.queue.lock());
        assert!(taken.bytes <= LAG_BYTES);
        assert_eq!(taken.heard.runs.len() as u64 + dropped, 200);
        assert_eq!(taken.heard.dropped_lines, dropped);
        assert_eq!(taken.heard.dropped.len() as u64, dropped);
        // Without room in the budget nobody gets anything, and knows it.
        let budget = Budget::new(1 << 10);
        assert_eq!(publish(&taps, &budget, &a, &[&line, b"y"]), 4);
        assert_eq!(quick.queue.lock().heard.dropped_lines, 2);
    }

    #[test]
    fn a_large_record_comes_in_several_runs() {
        let (budget, a, all) = (Budget::new(1 << 30), stream("a"), tap("a"));
        let mut taps = Taps::default();
        taps.change(|t| t.push(all.clone()));
        let line = vec![b'x'; 1000];
        let lines = vec![&line[..]; 1000];
        assert_eq!(publish(&taps, &budget, &a, &lines), 0);
        let runs = std::mem::take(&mut all.queue.lock().heard.runs);
        assert_eq!(runs.len(), 4);
        let at: Vec<i64> = runs.iter().flat_map(|r| r.lines.at.clone()).collect();
        assert_eq!(at, (0..1000).collect::<Vec<_>>());
    }
}
