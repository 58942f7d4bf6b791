//! The thread that syncs the journal and acknowledges.
//!
//! A sync takes a millisecond and sometimes a hundred; the writer goes on meanwhile, and all
//! that it has written by then shares the next sync. Small appends gather in the inbox until a
//! sync is done, and a moment longer when many senders waited for it, until they are back:
//! writing and syncing cost the same for one and for fifty.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::error::StoreError;
use super::inbox::{Ack, Inbox};
use super::options::{Durability, OnFailure};
use crate::telemetry::metrics::{Counter, Histogram, Metrics};

/// With durability `flush`: the journal is synced this long after a write at the latest.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// With durability `flush`: the journal is synced when so much is not.
const FLUSH_BYTES: u64 = 1 << 20;

/// A sync that so many waited for is followed by a moment in which they may come back.
const GATHER_FROM: usize = 4;
/// That moment is no longer than this.
const GATHER_AT_MOST: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    acks: Vec<Ack>,
    /// What a sync must reach; `None` when everything is synced.
    file: Option<Arc<File>>,
    bytes: u64,
    since: Option<Instant>,
    failed: Option<StoreError>,
    stopped: bool,
    ended: bool,
}

/// Shared by the writer, which hands over, and the thread, which syncs.
pub struct Syncer {
    durability: Durability,
    state: Mutex<State>,
    wake: Condvar,
    ended: Condvar,
    on_failure: OnFailure,
    /// Where appends gather meanwhile.
    inbox: Arc<Inbox>,
    syncs: Counter,
    seconds: Histogram,
}

impl Syncer {
    pub fn start(
        durability: Durability,
        on_failure: OnFailure,
        inbox: Arc<Inbox>,
        metrics: &Metrics,
    ) -> std::io::Result<Arc<Self>> {
        let buckets = [
            0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
        ];
        let syncer = Arc::new(Self {
            durability,
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
            on_failure,
            inbox,
            syncs: metrics.counter("journal_syncs", "Syncs of the journal"),
            seconds: metrics.register(
                "journal_sync_seconds",
                "Time that a sync of the journal took",
                Histogram::new(buckets),
            ),
        });
        let thread = syncer.clone();
        std::thread::Builder::new()
            .name("journal-sync".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| thread.run());
                if std::panic::catch_unwind(run).is_err() {
                    // Who waits for a sync would wait for ever.
                    thread.fail(
                        StoreError::Failed("the journal's sync panicked".into()),
                        Vec::new(),
                    );
                    thread.state.lock().ended = true;
                    thread.ended.notify_all();
                }
            })?;
        Ok(syncer)
    }

    /// Takes over acknowledging records that were written to `file`.
    pub fn written(&self, file: Arc<File>, bytes: u64, acks: Vec<Ack>) {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            let error = error.clone();
            drop(state);
            for ack in acks {
                let _ = ack.send(Err(error.clone()));
            }
            return;
        }
        state.file = Some(file);
        state.bytes += bytes;
        state.since.get_or_insert_with(Instant::now);
        let wake = match self.durability {
            Durability::Sync => {
                state.acks.extend(acks);
                self.inbox.hold();
                true
            }
            Durability::Flush => {
                for ack in acks {
                    let _ = ack.send(Ok(()));
                }
                state.bytes >= FLUSH_BYTES
            }
        };
        if wake || state.bytes == bytes {
            self.wake.notify_one();
        }
    }

    /// Syncs what is left and ends the thread; returns when it has.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.wake.notify_one();
        while !state.ended {
            self.ended.wait(&mut state);
        }
    }

    /// The error of a failed sync.
    pub fn failure(&self) -> Option<StoreError> {
        self.state.lock().failed.clone()
    }

    /// Nothing is acknowledged any more.
    fn fail(&self, error: StoreError, acks: Vec<Ack>) {
        let mut state = self.state.lock();
        state.failed = Some(error.clone());
        let later = std::mem::take(&mut state.acks);
        state.file = None;
        state.since = None;
        drop(state);
        self.inbox.release();
        for ack in acks.into_iter().chain(later) {
            let _ = ack.send(Err(error.clone()));
        }
        (self.on_failure)(&error);
    }

    /// Lets appends gather for a moment, unless more is written already; then the next sync
    /// holds them.
    fn gather(&self, moment: Duration) {
        let until = Instant::now() + moment;
        let mut state = self.state.lock();
        while state.since.is_none() && !state.stopped {
            if moment.is_zero() || self.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if state.since.is_none() {
            self.inbox.release();
        }
    }

    fn run(&self) {
        loop {
            let (file, acks) = {
                let mut state = self.state.lock();
                loop {
                    let due = match (self.durability, state.since) {
                        (_, None) => false,
                        (Durability::Sync, Some(_)) => true,
                        (Durability::Flush, Some(since)) => {
                            state.bytes >= FLUSH_BYTES || since.elapsed() >= FLUSH_INTERVAL
                        }
                    };
                    if due || (state.stopped && state.file.is_some()) {
                        break;
                    }
                    if state.stopped {
                        state.ended = true;
                        self.ended.notify_all();
                        return;
                    }
                    match state.since {
                        None => self.wake.wait(&mut state),
                        Some(since) => {
                            self.wake.wait_until(&mut state, since + FLUSH_INTERVAL);
                        }
                    }
                }
                state.since = None;
                state.bytes = 0;
                (state.file.take(), std::mem::take(&mut state.acks))
            };
            let Some(file) = file else { continue };
            let begun = Instant::now();
            fail::fail_point!("journal-sync");
            let synced = match sync_skipped() {
                true => Ok(()),
                false => file.sync_data(),
            };
            fail::fail_point!("journal-synced");
            let took = begun.elapsed();
            self.syncs.inc();
            self.seconds.observe(took.as_secs_f64());
            match synced {
                Ok(()) => {
                    let many = acks.len() >= GATHER_FROM;
                    if many {
                        self.inbox.expect(acks.len());
                    }
                    for ack in acks {
                        // Whoever gave up waiting does not want to know.
                        let _ = ack.send(Ok(()));
                    }
                    self.gather(if many { GATHER_AT_MOST } else { Duration::ZERO });
                }
                Err(error) => {
                    self.fail(StoreError::Failed(format!("journal: sync: {error}")), acks);
                }
            }
        }
    }
}

/// A fail point for the power-cut test, which must notice it: acknowledging without a sync.
fn sync_skipped() -> bool {
    fail::fail_point!("sync-skipped", |_| true);
    false
}
