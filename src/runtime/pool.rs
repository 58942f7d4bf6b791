//! A small pool of threads for CPU work, with one lane before the other.
//!
//! Work that nobody awaits any more is skipped; a panic comes back as an error and the
//! thread goes on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Who goes first when both wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Before everything in [`Lane::Second`].
    First,
    Second,
}

/// The work panicked, or the pool has stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("internal error: {0}")]
    Panicked(String),
    #[error("shutting down")]
    Stopped,
}

type Job = Box<dyn FnOnce() + Send>;

struct Queues {
    lanes: [VecDeque<Job>; 2],
    stopped: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    wake: Condvar,
}

/// Handle to the pool; cheap to clone. Threads end after [`Pool::stop`].
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

impl Pool {
    /// Starts `threads` threads (at least one).
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues {
                lanes: Default::default(),
                stopped: false,
            }),
            wake: Condvar::new(),
        });
        for i in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("cpu-{i}"))
                .spawn(move || work(&shared))?;
        }
        Ok(Self { shared, threads })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `job`; its result waits in the receiver. A dropped receiver cancels work
    /// that has not begun.
    pub fn spawn<T, F>(&self, lane: Lane, job: F) -> oneshot::Receiver<Result<T, PoolError>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.push(
            lane,
            Box::new(move || {
                if sender.is_closed() {
                    return;
                }
                let result = catch_unwind(AssertUnwindSafe(job))
                    .map_err(|panic| PoolError::Panicked(panic_text(&*panic)));
                // The receiver may have gone meanwhile: then nobody wants the result.
                let _ = sender.send(result);
            }),
        );
        receiver
    }

    /// Runs `job` although nobody waits for a result.
    pub fn detach(&self, lane: Lane, job: impl FnOnce() + Send + 'static) {
        self.push(lane, Box::new(job));
    }

    /// Runs `job` and waits for it.
    pub async fn run<T, F>(&self, lane: Lane, job: F) -> Result<T, PoolError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.spawn(lane, job)
            .await
            .unwrap_or(Err(PoolError::Stopped))
    }

    /// Lets running work end; what still waits is dropped.
    pub fn stop(&self) {
        let mut queues = self.shared.queues.lock();
        queues.stopped = true;
        queues.lanes.iter_mut().for_each(VecDeque::clear);
        drop(queues);
        self.shared.wake.notify_all();
    }

    fn push(&self, lane: Lane, job: Job) {
        let mut queues = self.shared.queues.lock();
        if queues.stopped {
            return; // dropping the job drops its sender: the receiver sees the stop
        }
        queues.lanes[lane as usize].push_back(job);
        drop(queues);
        self.shared.wake.notify_one();
    }
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut queues = shared.queues.lock();
            loop {
                if queues.stopped {
                    return;
                }
                if let Some(job) = queues.lanes.iter_mut().find_map(VecDeque::pop_front) {
                    break job;
                }
                shared.wake.wait(&mut queues);
            }
        };
        // A detached job that panics has been reported by the panic hook.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// The message of a caught panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let pool = Pool::new(1).expect("threads");
        let failed = pool.run(Lane::Second, || -> u8 { panic!("boom") }).await;
        assert_eq!(failed, Err(PoolError::Panicked("boom".into())));
        assert_eq!(pool.run(Lane::Second, || 7).await, Ok(7));
        pool.stop();
        assert_eq!(pool.run(Lane::Second, || 7).await, Err(PoolError::Stopped));
    }

    #[tokio::test]
    async fn abandoned_work_is_skipped_and_the_first_lane_goes_first() {
        let pool = Pool::new(1).expect("threads");
        let (go, gate) = std::sync::mpsc::channel::<()>();
        pool.detach(Lane::First, move || gate.recv().expect("released"));
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            move || order.lock().push(name)
        };
        drop(pool.spawn(Lane::Second, note("abandoned")));
        let second = pool.spawn(Lane::Second, note("second"));
        let first = pool.spawn(Lane::First, note("first"));
        go.send(()).expect("pool waits");
        first.await.expect("sent").expect("no panic");
        second.await.expect("sent").expect("no panic");
        assert_eq!(*order.lock(), ["first", "second"]);
    }
}
