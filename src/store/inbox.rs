//! What the writer thread is asked to do, in order, with a bound.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::error::StoreError;
use super::journal::Body;
use super::journal::record::Cursor;
use super::layout::PartitionId;
use super::partition::Partition;
use super::rewrite::switch::Switch;
use super::seal::{SealedBlock, SealedChunk};
use crate::model::log::LogBatch;
use crate::model::trace::SpanBatch;
use crate::runtime::permits::Permit;

/// Appends that may wait. At 1 MiB a push the budget stops earlier; this bounds tiny ones.
const MAX_WAITING: usize = 4096;
/// Appends applied and synced together hold at most so many bytes of body.
const GROUP_BYTES: usize = 4 << 20;

/// While a sync goes on, appends gather until they are so many: a thousand senders of single
/// lines share a write and a sync, and large pushes are worked on meanwhile.
const ENOUGH_BYTES: usize = 256 << 10;
const ENOUGH_APPENDS: usize = 1024;

/// Tells the sender that its data is as safe as the durability promises.
pub type Ack = oneshot::Sender<Result<(), StoreError>>;

/// Decoded content of an append.
pub enum Payload {
    Logs(LogBatch, Vec<Cursor>),
    Spans(SpanBatch),
}

/// Something to keep.
pub struct Append {
    pub payload: Payload,
    /// What the journal gets.
    pub body: Body,
    pub ack: Ack,
    /// Memory of the decoded content; given back when it is in the heads.
    pub permit: Option<Permit>,
}

/// Everything else that happens to open state.
pub enum Internal {
    Chunk(Box<SealedChunk>),
    Block(Box<SealedBlock>),
    /// Sealing went wrong: the store can't go on.
    SealFailed(StoreError),
    /// Seal everything that is open, then acknowledge.
    Freeze(Ack),
    /// Seal what keeps old segments of the journal.
    FreezeOld,
    /// Seal heads with lines that a new delete request selects.
    FreezeDeleted,
    /// Go on in a new segment of the journal, so that the open one can be removed.
    Rotate,
    /// Go on in a new segment of the journal, and link the others into a directory.
    LinkJournal(PathBuf, SyncSender<Result<(), StoreError>>),
    /// Journal records below this number are no longer needed.
    Forget(u64),
    /// Days older than retention are dropped.
    Retain,
    /// These are dropped.
    Drop(Vec<PartitionId>),
    /// A day of which everything has expired is dropped, if its next chunk would still get this
    /// number; tells whether it was.
    DropExpired(Arc<Partition>, u32, SyncSender<bool>),
    /// A rewritten day takes the place of what it was made from.
    Switch(Switch),
}

/// What the writer does next.
pub enum Next {
    Internal(Internal),
    Group(Vec<Append>),
    /// Nothing came within the time.
    Idle,
    /// Stopped, and nothing is left.
    End,
}

struct State {
    internal: VecDeque<Internal>,
    appends: VecDeque<Append>,
    /// Of the bodies of `appends`.
    bytes: usize,
    /// A sync goes on: small appends gather.
    held: bool,
    /// So many are waited for at most; no more than [`ENOUGH_APPENDS`].
    expected: usize,
    stopped: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            internal: VecDeque::new(),
            appends: VecDeque::new(),
            bytes: 0,
            held: false,
            expected: ENOUGH_APPENDS,
            stopped: false,
        }
    }
}

impl State {
    /// Whether the writer should take appends now.
    fn is_ripe(&self) -> bool {
        let enough = self.bytes >= ENOUGH_BYTES || self.appends.len() >= self.expected;
        !self.appends.is_empty() && (!self.held || self.stopped || enough)
    }
}

/// Two lanes: what the store tells itself goes before what others send.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl Inbox {
    /// Queues an append; refuses it when there is no room or the store is stopping.
    pub fn push(&self, append: Append) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(StoreError::Stopped);
        }
        if state.appends.len() >= MAX_WAITING {
            return Err(StoreError::Full(format!(
                "{MAX_WAITING} requests are waiting already"
            )));
        }
        let was_ripe = state.is_ripe();
        state.bytes += append.body.bytes.len();
        state.appends.push_back(append);
        let wake = !was_ripe && state.is_ripe();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// From now on small appends gather, until [`Inbox::release`].
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.held = true;
        state.expected = ENOUGH_APPENDS;
    }

    /// The sync is done, and so many senders have been told: with those who wait already they are
    /// all that there are, and once as many appends have gathered these are taken.
    pub fn expect(&self, told: usize) {
        let mut state = self.state.lock();
        state.expected = (told + state.appends.len()).min(ENOUGH_APPENDS);
    }

    /// What has gathered is taken.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.held = false;
        state.expected = ENOUGH_APPENDS;
        let wake = state.is_ripe();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    pub fn push_internal(&self, internal: Internal) {
        self.state.lock().internal.push_back(internal);
        self.wake.notify_one();
    }

    /// Takes no more appends; the writer ends when it has done what is queued.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }

    pub fn waiting(&self) -> usize {
        self.state.lock().appends.len()
    }

    /// What comes next, waiting up to `patience`. Without `appends`, only internal work.
    pub fn next(&self, appends: bool, patience: Duration) -> Next {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            if let Some(internal) = state.internal.pop_front() {
                return Next::Internal(internal);
            }
            if appends && state.is_ripe() {
                let mut group = Vec::with_capacity(state.appends.len());
                let mut bytes = 0;
                while let Some(append) = state.appends.front() {
                    let more = append.body.bytes.len();
                    if bytes + more > GROUP_BYTES && !group.is_empty() {
                        break;
                    }
                    bytes += more;
                    group.extend(state.appends.pop_front());
                }
                state.bytes -= bytes;
                return Next::Group(group);
            }
            if state.stopped && state.appends.is_empty() {
                return Next::End;
            }
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                return Next::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::RecordKind;

    fn append(bytes: usize) -> Append {
        Append {
            payload: Payload::Spans(SpanBatch::default()),
            body: Body {
                kind: RecordKind::SpansAsReceived,
                format: 0,
                coding: 0,
                flags: 0,
                tenant: "".into(),
                bytes: vec![0; bytes].into(),
            },
            ack: oneshot::channel().0,
            permit: None,
        }
    }

    /// How many are taken now; 0: they are left to gather.
    fn taken(inbox: &Inbox) -> usize {
        match inbox.next(true, Duration::ZERO) {
            Next::Group(group) => group.len(),
            _ => 0,
        }
    }

    #[test]
    fn small_appends_gather_while_a_sync_goes_on() {
        let inbox = Inbox::default();
        inbox.push(append(10)).expect("room");
        assert_eq!(taken(&inbox), 1);
        inbox.hold();
        for _ in 0..3 {
            inbox.push(append(10)).expect("room");
        }
        assert_eq!(taken(&inbox), 0);
        inbox.release();
        assert_eq!(taken(&inbox), 3);
    }

    #[test]
    fn large_appends_many_and_the_last_ones_do_not_wait_for_a_sync() {
        let inbox = Inbox::default();
        inbox.hold();
        inbox.push(append(ENOUGH_BYTES)).expect("room");
        assert_eq!(taken(&inbox), 1);
        for _ in 0..ENOUGH_APPENDS {
            inbox.push(append(1)).expect("room");
        }
        assert_eq!(taken(&inbox), ENOUGH_APPENDS);
        inbox.push(append(1)).expect("room");
        assert_eq!(taken(&inbox), 0);
        inbox.stop();
        assert_eq!(taken(&inbox), 1);
    }

    #[test]
    fn gathering_ends_when_as_many_are_back_as_there_were() {
        let inbox = Inbox::default();
        inbox.hold();
        inbox.push(append(1)).expect("room");
        inbox.expect(2);
        for _ in 0..2 {
            assert_eq!(taken(&inbox), 0);
            inbox.push(append(1)).expect("room");
        }
        assert_eq!(taken(&inbox), 3);
        inbox.hold();
        for _ in 0..3 {
            inbox.push(append(1)).expect("room");
        }
        assert_eq!(taken(&inbox), 0, "not expected any more");
    }

    #[test]
    fn a_group_is_bounded_and_what_it_leaves_is_taken_next() {
        let inbox = Inbox::default();
        for _ in 0..3 {
            inbox.push(append(GROUP_BYTES / 2)).expect("room");
        }
        assert_eq!([taken(&inbox), taken(&inbox), taken(&inbox)], [2, 1, 0]);
    }
}
