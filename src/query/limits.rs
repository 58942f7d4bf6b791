//! Who may run a query now, and how much it may use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::answer::QueryError;
use crate::runtime::permits::{Account, Permit};

/// Bounds of queries.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// Wall time of one query.
    pub timeout: Duration,
    /// Series of one metric answer.
    pub max_series: usize,
    /// Queries that run at the same time; others wait in turn.
    pub concurrent: usize,
    /// Memory that the collected lines of one query may hold, bytes.
    pub max_result_bytes: usize,
    /// Memory for what chunks gave to metric queries, for when they are asked again, bytes.
    pub kept_parts: usize,
    /// Add `detected_level` to lines when they are read.
    pub discover_levels: bool,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            max_series: 500,
            concurrent: 4,
            max_result_bytes: 48 << 20,
            kept_parts: 32 << 20,
            discover_levels: true,
        }
    }
}

/// Memory that a running query holds besides its result: decode buffers of the pool's
/// threads and partial results.
const WORK_BYTES: usize = 2 << 20;

/// Between two tries of a query that found no room; twice as long each time, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// In so many parts a query looks at streams when a list of all their chunks found no room; each
/// try once more in so many.
const PARTS: usize = 8;
const MOST_PARTS: usize = 64;

/// Lets queries in by turn and by memory.
#[derive(Clone)]
pub struct Admission {
    turns: Arc<Semaphore>,
    /// Held by the one query that tries again because memory was short.
    again: Arc<Mutex<()>>,
    account: Account,
    timeout: Duration,
}

/// A query that runs. Everything it took is given back when it is dropped.
pub struct Running {
    _turn: OwnedSemaphorePermit,
    _work: Permit,
    pub account: Account,
    /// Parts of the streams to be looked at one after the other ([`super::prune::Part`]).
    pub parts: usize,
    pub began: Instant,
    pub queued: Duration,
    pub deadline: Instant,
    timeout: Duration,
}

impl Admission {
    pub fn new(limits: &QueryLimits, account: Account) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(limits.concurrent.max(1))),
            again: Arc::default(),
            account,
            timeout: limits.timeout,
        }
    }

    /// Runs a query, and those that find no room to list what they read once more, one after the
    /// other: together they would refuse each other, alone each may fit, and part by part most do.
    pub async fn run<T, F>(&self, mut work: impl FnMut(Running) -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>>,
    {
        let until = Instant::now() + self.timeout;
        let first = work(self.enter().await?).await;
        let Err(QueryError::NoRoom(_)) = &first else {
            return first;
        };
        let left = until.saturating_duration_since(Instant::now());
        let Ok(_alone) = tokio::time::timeout(left, self.again.clone().lock_owned()).await else {
            return first;
        };
        let mut pause = FIRST_PAUSE;
        let mut parts = 1;
        loop {
            let mut running = self.enter().await?;
            running.parts = parts;
            let result = work(running).await;
            let is_over = Instant::now() + pause >= until || pause > LAST_PAUSE;
            if is_over || !matches!(result, Err(QueryError::NoRoom(_))) {
                return result;
            }
            // Those that run are done some time.
            tokio::time::sleep(pause).await;
            pause *= 2;
            parts = (parts * PARTS).min(MOST_PARTS);
        }
    }

    /// Waits for a turn and for memory, at most the time that a query may take.
    pub async fn enter(&self) -> Result<Running, QueryError> {
        let asked = Instant::now();
        let turn = tokio::time::timeout(self.timeout, self.turns.clone().acquire_owned()).await;
        let turn = turn
            .map_err(|_| QueryError::Busy("other queries take all the time; try again".into()))?
            .map_err(|_| QueryError::Busy("shutting down".into()))?;
        let work = self.account.take(WORK_BYTES, self.timeout).await;
        let work = work.map_err(|e| QueryError::Busy(format!("{e}; try again")))?;
        let began = Instant::now();
        Ok(Running {
            _turn: turn,
            _work: work,
            account: self.account.clone(),
            parts: 1,
            began,
            queued: began - asked,
            deadline: began + self.timeout,
            timeout: self.timeout,
        })
    }
}

#[cfg(test)]
impl Admission {
    /// Memory that queries hold, bytes.
    pub fn used(&self) -> usize {
        self.account.used()
    }
}

impl Running {
    /// An error once the query has used up its time.
    pub fn check(&self) -> Result<(), QueryError> {
        if Instant::now() < self.deadline {
            Ok(())
        } else {
            Err(QueryError::Timeout(self.timeout))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::runtime::permits::Budget;

    #[tokio::test]
    async fn who_finds_no_room_tries_again_one_after_the_other() {
        let admission = Admission::new(
            &QueryLimits::default(),
            Budget::new(64 << 20).account("queries"),
        );
        let (again, most) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let query = || async {
            let tries = &AtomicUsize::new(0);
            let run = |running: Running| async move {
                if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                    return Err(QueryError::NoRoom("none".into()));
                }
                most.fetch_max(again.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                again.fetch_sub(1, Ordering::Relaxed);
                match tries.load(Ordering::Relaxed) {
                    2 => Err(QueryError::NoRoom("again none".into())),
                    tries => Ok((tries, running.parts)),
                }
            };
            admission.run(run).await
        };
        let all = futures::join!(query(), query(), query());
        assert_eq!(all, (Ok((3, PARTS)), Ok((3, PARTS)), Ok((3, PARTS))));
        assert_eq!(most.load(Ordering::Relaxed), 1);
        // What can't fit is told, in the end.
        let never = admission
            .run(|_| async { Err::<(), _>(QueryError::NoRoom("never".into())) })
            .await;
        assert_eq!(never, Err(QueryError::NoRoom("never".into())));
        // Other errors are told at once.
        let mut tries = 0;
        let wrong = admission.run(|_| {
            tries += 1;
            async { Err::<(), _>(QueryError::Busy("x".into())) }
        });
        assert_eq!(wrong.await, Err(QueryError::Busy("x".into())));
        assert_eq!(tries, 1);
    }
}
