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

#[derive(Default)]
struct State {
    internal: VecDeque<Internal>,
    appends: VecDeque<Append>,
    stopped: bool,
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
        state.appends.push_back(append);
        drop(state);
        self.wake.notify_one();
        Ok(())
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
            if appends && !state.appends.is_empty() {
                let mut group = Vec::new();
                let mut bytes = 0;
                while let Some(append) = state.appends.front() {
                    bytes += append.body.bytes.len();
                    if bytes > GROUP_BYTES && !group.is_empty() {
                        break;
                    }
                    group.extend(state.appends.pop_front());
                }
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
