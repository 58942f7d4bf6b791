//! Who may run a query now, and how much it may use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Lets queries in by turn and by memory.
#[derive(Clone)]
pub struct Admission {
    turns: Arc<Semaphore>,
    account: Account,
    timeout: Duration,
}

/// A query that runs. Everything it took is given back when it is dropped.
pub struct Running {
    _turn: OwnedSemaphorePermit,
    _work: Permit,
    pub account: Account,
    pub began: Instant,
    pub queued: Duration,
    pub deadline: Instant,
    timeout: Duration,
}

impl Admission {
    pub fn new(limits: &QueryLimits, account: Account) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(limits.concurrent.max(1))),
            account,
            timeout: limits.timeout,
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
