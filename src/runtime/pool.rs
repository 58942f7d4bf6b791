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

    /// Runs all jobs, in parallel where threads are free, and gives their results in order.
    ///
    /// For work on the pool that has parts: the caller does what no other thread has begun,
    /// so it never waits for a thread.
    pub fn join<T: Send + 'static>(
        &self,
        lane: Lane,
        jobs: Vec<Box<dyn FnOnce() -> T + Send>>,
    ) -> Result<Vec<T>, PoolError> {
        let parts: Vec<Part<T>> = jobs.into_iter().map(Part::Waits).collect();
        let shared = Arc::new((Mutex::new(parts), Condvar::new()));
        let count = shared.0.lock().len();
        for index in 1..count {
            let shared = shared.clone();
            self.push(lane, Box::new(move || run_part(&shared, index)));
        }
        (0..count).for_each(|index| run_part(&shared, index));
        let mut parts = shared.0.lock();
        let mut results = Vec::with_capacity(count);
        for index in 0..count {
            let result = loop {
                match std::mem::replace(&mut parts[index], Part::Runs) {
                    Part::Done(result) => break result,
                    other => parts[index] = other,
                }
                shared.1.wait(&mut parts);
            };
            results.push(result?);
        }
        Ok(results)
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

/// A job of [`Pool::join`].
enum Part<T> {
    Waits(Box<dyn FnOnce() -> T + Send>),
    /// On some thread, or its result is taken.
    Runs,
    Done(Result<T, PoolError>),
}

/// Runs a part unless somebody else does.
fn run_part<T>((parts, done): &(Mutex<Vec<Part<T>>>, Condvar), index: usize) {
    let job = {
        let mut parts = parts.lock();
        match std::mem::replace(&mut parts[index], Part::Runs) {
            Part::Waits(job) => job,
            other => {
                parts[index] = other;
                return;
            }
        }
    };
    let result = catch_unwind(AssertUnwindSafe(job))
        .map_err(|panic| PoolError::Panicked(panic_text(&*panic)));
    parts.lock()[index] = Part::Done(result);
    done.notify_one();
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
    async fn parts_are_joined_though_every_thread_waits_for_its_own() {
        let pool = Pool::new(2).expect("threads");
        let ask = |n: u32| {
            let inner = pool.clone();
            pool.run(Lane::Second, move || {
                let job = |i: u32| Box::new(move || n * 10 + i) as Box<dyn FnOnce() -> u32 + Send>;
                inner.join(Lane::Second, (0..5).map(job).collect())
            })
        };
        let (a, b, c) = tokio::join!(ask(1), ask(2), ask(3));
        assert_eq!(a, Ok(Ok(vec![10, 11, 12, 13, 14])));
        assert_eq!(b, Ok(Ok(vec![20, 21, 22, 23, 24])));
        assert_eq!(c, Ok(Ok(vec![30, 31, 32, 33, 34])));
        let broken: Vec<Box<dyn FnOnce() -> u8 + Send>> =
            vec![Box::new(|| 1), Box::new(|| panic!("boom"))];
        let broken = pool.join(Lane::Second, broken);
        assert_eq!(broken, Err(PoolError::Panicked("boom".into())));
        pool.stop();
        let alone: Vec<Box<dyn FnOnce() -> u8 + Send>> = vec![Box::new(|| 1), Box::new(|| 2)];
        assert_eq!(pool.join(Lane::Second, alone), Ok(vec![1, 2]));
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
