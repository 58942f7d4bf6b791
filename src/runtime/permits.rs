//! The one memory budget, and the accounts that draw from it.
//!
//! P1. The sum over all accounts is never above the limit by way of [`Account::try_take`]
//!     or [`Account::take`]. Only [`Account::set`], for what others allocate (RocksDB,
//!     tantivy), may exceed it; then nobody else gets anything.
//! P2. A permit gives back what it took exactly once, when dropped.
//! P3. Nobody is refused before those who hold what they can do without were asked to give
//!     it back ([`Budget::on_pressure`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A fixed number of bytes, shared by all accounts.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    accounts: Mutex<Vec<Arc<Entry>>>,
    caches: Caches,
    freed: Notify,
}

/// Who gives memory back when asked.
#[derive(Default)]
struct Caches(Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>);

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} caches", self.0.lock().len())
    }
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    used: AtomicUsize,
    peak: AtomicUsize,
}

/// One holder of memory, shown by name.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<Shared>,
    entry: Arc<Entry>,
}

/// Bytes taken from a budget; gives them back when dropped.
#[derive(Debug)]
pub struct Permit {
    account: Account,
    bytes: usize,
}

/// The budget had no room, or not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory budget exhausted: {wanted} bytes wanted by {account}, {free} of {limit} free")]
pub struct Exhausted {
    pub account: &'static str,
    pub wanted: usize,
    pub free: usize,
    pub limit: usize,
}

/// What an account holds and held at most, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub account: &'static str,
    pub used: usize,
    pub peak: usize,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            limit,
            used: AtomicUsize::new(0),
            accounts: Mutex::new(Vec::new()),
            caches: Caches::default(),
            freed: Notify::new(),
        }))
    }

    /// Opens (or finds) the account of this name.
    pub fn account(&self, name: &'static str) -> Account {
        let mut accounts = self.0.accounts.lock();
        let entry = match accounts.iter().find(|e| e.name == name) {
            Some(entry) => entry.clone(),
            None => {
                let entry = Arc::new(Entry {
                    name,
                    used: 0.into(),
                    peak: 0.into(),
                });
                accounts.push(entry.clone());
                entry
            }
        };
        Account {
            budget: self.0.clone(),
            entry,
        }
    }

    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Calls `give_back` whenever somebody would be refused (P3). It must not wait for a lock
    /// that is held while memory is taken.
    pub fn on_pressure(&self, give_back: impl Fn() + Send + Sync + 'static) {
        self.0.caches.0.lock().push(Arc::new(give_back));
    }

    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// All accounts, in order of opening.
    pub fn usage(&self) -> Vec<Usage> {
        let accounts = self.0.accounts.lock();
        accounts
            .iter()
            .map(|e| Usage {
                account: e.name,
                used: e.used.load(Ordering::Relaxed),
                peak: e.peak.load(Ordering::Relaxed),
            })
            .collect()
    }
}

impl Account {
    /// Takes `bytes` now or not at all.
    pub fn try_take(&self, bytes: usize) -> Result<Permit, Exhausted> {
        self.take_now(bytes).or_else(|refusal| {
            if bytes > self.budget.limit {
                return Err(refusal);
            }
            let caches = self.budget.caches.0.lock().clone();
            caches.iter().for_each(|give_back| give_back());
            self.take_now(bytes)
        })
    }

    // Its new name, try_update, is younger than our rust-version.
    #[allow(deprecated)]
    fn take_now(&self, bytes: usize) -> Result<Permit, Exhausted> {
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|sum| *sum <= self.budget.limit)
            });
        match taken {
            Ok(_) => {
                let held = self.entry.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
                self.entry.peak.fetch_max(held, Ordering::Relaxed);
                Ok(Permit {
                    account: self.clone(),
                    bytes,
                })
            }
            Err(used) => Err(Exhausted {
                account: self.entry.name,
                wanted: bytes,
                free: self.budget.limit.saturating_sub(used),
                limit: self.budget.limit,
            }),
        }
    }

    /// Takes `bytes`, waiting up to `patience` for others to give back.
    pub async fn take(&self, bytes: usize, patience: Duration) -> Result<Permit, Exhausted> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.budget.freed.notified();
            let refusal = match self.try_take(bytes) {
                Ok(permit) => return Ok(permit),
                Err(refusal) => refusal,
            };
            if bytes > self.budget.limit || tokio::time::timeout_at(deadline, freed).await.is_err()
            {
                return Err(refusal);
            }
        }
    }

    /// Books what somebody else's allocator holds, replacing the earlier figure.
    /// Only for accounts that never hand out permits.
    pub fn set(&self, bytes: usize) {
        let before = self.entry.used.swap(bytes, Ordering::Relaxed);
        self.entry.peak.fetch_max(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.budget.used.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            self.budget.used.fetch_sub(before - bytes, Ordering::AcqRel);
            self.budget.freed.notify_waiters();
        }
    }

    pub fn used(&self) -> usize {
        self.entry.used.load(Ordering::Relaxed)
    }

    /// Bytes of the whole budget.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }

    /// Bytes that the whole budget has left.
    pub fn free(&self) -> usize {
        self.budget
            .limit
            .saturating_sub(self.budget.used.load(Ordering::Relaxed))
    }
}

impl Permit {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes in addition, now or not at all.
    pub fn try_grow(&mut self, more: usize) -> Result<(), Exhausted> {
        let mut extra = self.account.try_take(more)?;
        self.bytes += std::mem::take(&mut extra.bytes);
        Ok(())
    }

    /// Gives back all but `bytes`; no effect when it holds less.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.account.give_back(surplus);
    }
}

impl Account {
    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.entry.used.fetch_sub(bytes, Ordering::Relaxed);
            self.budget.used.fetch_sub(bytes, Ordering::AcqRel);
            self.budget.freed.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_never_take_more_than_the_limit_together() {
        let budget = Budget::new(100);
        let (a, b) = (budget.account("a"), budget.account("b"));
        let held = a.try_take(60).expect("fits");
        assert_eq!(b.try_take(41).map(|_| ()).unwrap_err().free, 40);
        let mut second = b.try_take(40).expect("fits exactly");
        assert!(second.try_grow(1).is_err());
        drop(held);
        second.try_grow(60).expect("room again");
        second.shrink_to(10);
        assert_eq!((budget.used(), a.used(), b.used()), (10, 0, 10));
        assert_eq!(budget.usage()[1].peak, 100);
    }

    #[test]
    fn a_cache_gives_way_before_anybody_is_refused() {
        let budget = Budget::new(10);
        let cached = Arc::new(Mutex::new(budget.account("cache").try_take(8).ok()));
        let cache = cached.clone();
        budget.on_pressure(move || *cache.lock() = None);
        let account = budget.account("a");
        let small = account.try_take(2).expect("fits beside the cache");
        assert!(cached.lock().is_some());
        assert!(account.try_take(11).is_err(), "can never fit");
        assert!(cached.lock().is_some(), "nothing is given back in vain");
        let large = account.try_take(8).expect("the cache gives way");
        assert_eq!((small.bytes() + large.bytes(), budget.used()), (10, 10));
    }

    #[tokio::test]
    async fn who_waits_gets_what_another_gives_back() {
        let budget = Budget::new(10);
        let account = budget.account("a");
        let held = account.try_take(10).expect("fits");
        let waiter = tokio::spawn({
            let account = account.clone();
            async move {
                account
                    .take(5, Duration::from_secs(20))
                    .await
                    .map(|p| p.bytes())
            }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(waiter.await.expect("no panic"), Ok(5));
        assert!(
            account.take(11, Duration::from_secs(20)).await.is_err(),
            "can never fit"
        );
    }
}
