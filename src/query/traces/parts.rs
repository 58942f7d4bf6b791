//! One trace piece by piece, whatever its size.
//!
//! P1. Each span comes once: exact repetitions are left out. Asked twice, the spans come in the
//!     same order as long as retention keeps their days: by day and order of arrival, then what
//!     the archive alone has; spans that arrived meanwhile come after those of their day.
//! P2. What is held is [`SPAN_BYTES`] a span and one piece, and booked. It stays booked until
//!     the stream is dropped, also behind its end: for what its reader keeps of each span.
//! P3. A piece is read when it is asked for, and by nobody when the stream is dropped. Each
//!     takes its own turn among the queries, so that a slow reader holds up none.

use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hashbrown::HashSet;
use parking_lot::Mutex;

use super::search::{Bounds, SpanSource, Why, memory};
use super::{Blocks, Source};
use crate::model::Day;
use crate::model::trace::{Span, TraceId};
use crate::query::answer::QueryError;
use crate::query::prune::internal;
use crate::query::{Querier, QueryStats};
use crate::runtime::permits::Permit;
use crate::runtime::pool::Pool;
use crate::store::Store;
use crate::store::snapshot::SpanSnapshot;
use crate::store::span::{Fingerprints, SpanBlock};

/// Memory booked for each span that went by: its fingerprint here, and what it takes to adjust
/// the trace without having it in memory.
const SPAN_BYTES: usize = 128;
/// A piece ends with the block that fills it.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces of usual size that are booked for the reader of a stream from the start.
pub const KEPT_PIECES: usize = 4;

/// A block with spans of the trace, in the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Its day in the snapshot, and its number.
    Sealed(Day, usize, u32),
    Frozen(Day, usize),
    Open(Day, usize),
    /// Its number in the archive; those come last.
    Archived(u32),
}

/// Where spans of a trace are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In what retention keeps.
    Kept,
    Archive,
    Both,
}

impl Place {
    fn day(self) -> Day {
        match self {
            Self::Sealed(day, ..) | Self::Frozen(day, _) | Self::Open(day, _) => day,
            Self::Archived(_) => Day(i32::MAX),
        }
    }
}

/// A trace being read.
struct Reading {
    id: TraceId,
    store: Store,
    snapshot: Source,
    /// What is left, last first.
    places: Vec<Place>,
    seen: HashSet<u128>,
    fingerprints: Fingerprints,
}

impl Reading {
    fn begin(
        store: &Store,
        id: TraceId,
        which: Where,
        pool: Pool,
        blocks: Blocks,
    ) -> Result<Self, QueryError> {
        let snapshot = match which {
            Where::Archive => SpanSnapshot::default(),
            Where::Kept | Where::Both => store.spans().map_err(internal)?,
        };
        let snapshot = Source {
            snapshot: Arc::new(snapshot),
            pool,
            blocks,
        };
        let sealed = snapshot.places_of(id)?;
        let mut places: Vec<Place> = sealed
            .into_iter()
            .map(|(day, number)| Place::Sealed(snapshot.days[day].partition.id.day, day, number))
            .collect();
        let mut frozen: Vec<usize> = (0..snapshot.frozen.len()).collect();
        frozen.sort_by_key(|n| snapshot.frozen[*n].order);
        places.extend(
            frozen
                .into_iter()
                .map(|n| Place::Frozen(snapshot.frozen[n].day, n)),
        );
        let open = snapshot.open_days.iter().enumerate();
        places.extend(open.map(|(n, day)| Place::Open(*day, n)));
        // Stable: within a day as they stand, which is in order of arrival.
        places.sort_by_key(|place| place.day());
        if which != Where::Kept {
            let archived = store.archived_blocks(id).map_err(internal)?;
            places.extend((0..archived).map(Place::Archived));
        }
        places.reverse();
        Ok(Self {
            id,
            store: store.clone(),
            snapshot,
            places,
            seen: HashSet::new(),
            fingerprints: Fingerprints::default(),
        })
    }

    /// Reads until a piece is full or nothing is left; the spans and their memory.
    fn piece(&mut self, bounds: &Bounds) -> Result<(Vec<Span>, usize), QueryError> {
        let mut spans = Vec::new();
        let mut bytes = 0;
        while bytes < PIECE_BYTES
            && let Some(place) = self.places.pop()
        {
            bounds.check()?;
            let Self {
                id,
                store,
                snapshot,
                seen,
                fingerprints,
                ..
            } = self;
            let mut take = |block: &SpanBlock| {
                for span in block.spans_of(*id) {
                    if seen.insert(fingerprints.of(&span)) {
                        bytes += memory(&span);
                        spans.push(span);
                    }
                }
            };
            match place {
                Place::Sealed(_, day, number) => {
                    if let Some(block) = snapshot.read((day, number), Why::Traces)? {
                        take(&block);
                    }
                }
                Place::Frozen(_, n) => take(snapshot.frozen[n].block.block()),
                Place::Open(_, n) => take(&snapshot.open[n]),
                Place::Archived(number) => {
                    if let Some(block) = store.archived_block(*id, number).map_err(internal)? {
                        take(&block);
                    }
                }
            }
        }
        Ok((spans, bytes))
    }
}

impl Querier {
    /// The spans of a trace, piece by piece; nothing when there is no such trace.
    pub fn trace_parts(
        &self,
        id: TraceId,
        which: Where,
    ) -> BoxStream<'static, Result<Vec<Span>, QueryError>> {
        let held: Arc<Mutex<Option<Permit>>> = Arc::default();
        let state = (self.clone(), held.clone(), None);
        let pieces = stream::try_unfold(state, move |(querier, held, reading)| async move {
            let next = querier.next_piece(id, which, &held, reading).await;
            let next = querier
                .metrics
                .count("trace_parts", next, |_| None::<QueryStats>)?;
            Ok(next.map(|(spans, reading)| (spans, (querier, held, Some(reading)))))
        });
        // Keeps what is booked until the stream is dropped (P2).
        let end = stream::poll_fn(move |_| {
            let _ = &held;
            Poll::Ready(None)
        });
        pieces.chain(end).boxed()
    }

    async fn next_piece(
        &self,
        id: TraceId,
        which: Where,
        held: &Mutex<Option<Permit>>,
        reading: Option<Box<Reading>>,
    ) -> Result<Option<(Vec<Span>, Box<Reading>)>, QueryError> {
        if reading.as_ref().is_some_and(|r| r.places.is_empty()) {
            return Ok(None);
        }
        let running = self.admission.enter().await?;
        let bounds = Bounds {
            deadline: running.deadline,
            timeout: self.limits.timeout,
            max_bytes: self.limits.max_result_bytes,
        };
        let (pool, blocks) = (self.pool.clone(), self.blocks.clone());
        let work = move |store: &Store| {
            let mut reading = match reading {
                Some(reading) => reading,
                None => Box::new(Reading::begin(store, id, which, pool, blocks)?),
            };
            let (spans, bytes) = reading.piece(&bounds)?;
            Ok((spans, bytes, reading))
        };
        let (spans, bytes, reading) = self.on_pool(work).await?;
        if spans.is_empty() {
            return Ok(None);
        }
        let seen = reading.seen.len() * SPAN_BYTES;
        if seen > self.limits.max_result_bytes {
            return Err(QueryError::TooMuch(format!(
                "the trace has more than {} spans, which memory.limit allows no answer of",
                self.limits.max_result_bytes / SPAN_BYTES
            )));
        }
        let wanted = seen + bytes.max(KEPT_PIECES * PIECE_BYTES);
        let mut held = held.lock();
        let booked = match held.as_mut() {
            Some(permit) => {
                permit.shrink_to(wanted);
                permit.try_grow(wanted - permit.bytes().min(wanted))
            }
            None => running.account.try_take(wanted).map(|permit| {
                *held = Some(permit);
            }),
        };
        booked.map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
        Ok(Some((spans, reading)))
    }
}
