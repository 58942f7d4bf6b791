//! One execution for equal questions that are asked at the same time.
//!
//! Q2. A question joins the execution of an equal one that has begun and has not ended. So its
//!     answer may lack lines that were accepted after that one began, and no others.
//! Q3. An execution goes on as long as anybody waits for it, and is cancelled when nobody
//!     does. A waiting question costs nothing but its connection.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::answer::QueryError;
use crate::telemetry::metrics::Counter;

type Answer<T> = Result<Arc<T>, QueryError>;
type Running<T> = BoxFuture<'static, Answer<T>>;

/// Executions of one kind of question, by question. Cheap to clone.
pub struct Sharing<T> {
    running: Arc<Mutex<HashMap<String, WeakShared<Running<T>>>>>,
    joined: Counter,
}

impl<T> Clone for Sharing<T> {
    fn clone(&self) -> Self {
        Self {
            running: self.running.clone(),
            joined: self.joined.clone(),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Sharing<T> {
    /// `joined` counts the questions that cost nothing.
    pub fn new(joined: Counter) -> Self {
        Self {
            running: Arc::default(),
            joined,
        }
    }

    /// Waits for the answer to `question`: that of an execution that runs already, or else of
    /// the one that `begin` makes.
    pub async fn run<F>(&self, question: String, begin: impl FnOnce() -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        let (shared, _leave) = self.join(question, begin);
        let answer = shared.await?;
        // Mostly nobody else has it.
        Ok(Arc::try_unwrap(answer).unwrap_or_else(|answer| (*answer).clone()))
    }

    fn join<F>(&self, question: String, begin: impl FnOnce() -> F) -> (Shared<Running<T>>, Leave<T>)
    where
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        let mut running = self.running.lock();
        let found = running.get(&question).and_then(WeakShared::upgrade);
        // One that has ended is over, although somebody has yet to take its answer.
        let shared = match found.filter(|shared| shared.peek().is_none()) {
            Some(shared) => {
                self.joined.inc();
                shared
            }
            None => {
                let shared = begin().map(|answer| answer.map(Arc::new)).boxed().shared();
                if let Some(weak) = shared.downgrade() {
                    running.insert(question.clone(), weak);
                }
                shared
            }
        };
        let leave = Leave {
            sharing: self.clone(),
            question,
        };
        (shared, leave)
    }
}

/// Forgets a question when the last who asked it has left.
struct Leave<T> {
    sharing: Sharing<T>,
    question: String,
}

impl<T> Drop for Leave<T> {
    fn drop(&mut self) {
        let mut running = self.sharing.running.lock();
        let left = running
            .get(&self.question)
            .is_some_and(|weak| weak.upgrade().is_none_or(|shared| shared.peek().is_some()));
        if left {
            running.remove(&self.question);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    fn sharing() -> (Sharing<usize>, Counter) {
        let joined = Metrics::default().counter("joined", "");
        (Sharing::new(joined.clone()), joined)
    }

    #[tokio::test]
    async fn equal_questions_at_the_same_time_are_executed_once() {
        let (sharing, joined) = sharing();
        let (go, gate) = oneshot::channel::<()>();
        let executions = Arc::new(AtomicUsize::new(0));
        let count = executions.clone();
        let first = sharing.run("q".into(), move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = gate.await;
            Ok(7)
        });
        let others = (0..3).map(|_| sharing.run("q".into(), || async { Ok(8) }));
        let different = sharing.run("p".into(), || async { Ok(9) });
        let all = futures::future::join_all(others);
        let release = async {
            tokio::task::yield_now().await;
            let _ = go.send(());
        };
        let (first, others, different, ()) = futures::join!(first, all, different, release);
        assert_eq!((first, different), (Ok(7), Ok(9)));
        assert_eq!(others, vec![Ok(7); 3]);
        assert_eq!((executions.load(Ordering::Relaxed), joined.get()), (1, 3));
        // Afterwards it is asked anew.
        assert_eq!(sharing.run("q".into(), || async { Ok(8) }).await, Ok(8));
        assert!(sharing.running.lock().is_empty());
    }

    #[tokio::test]
    async fn an_execution_ends_when_the_last_who_waits_leaves_and_not_before() {
        let (sharing, _) = sharing();
        let (alive, mut gone) = oneshot::channel::<()>();
        let ask = |alive: Option<oneshot::Sender<()>>| {
            let sharing = sharing.clone();
            tokio::spawn(async move {
                let begin = || async move {
                    let _alive = alive;
                    futures::future::pending::<()>().await;
                    Ok(0)
                };
                sharing.run("q".into(), begin).await
            })
        };
        let first = ask(Some(alive));
        tokio::task::yield_now().await;
        let second = ask(None);
        tokio::task::yield_now().await;
        first.abort();
        let _ = first.await;
        assert!(
            gone.try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
        second.abort();
        let _ = second.await;
        assert!(
            gone.try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(sharing.running.lock().is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_get_the_error() {
        let (sharing, _) = sharing();
        let ask = || {
            sharing.run("q".into(), || async {
                tokio::task::yield_now().await;
                Err(QueryError::TooMuch("much".into()))
            })
        };
        let (a, b) = futures::join!(ask(), ask());
        assert_eq!(a, Err(QueryError::TooMuch("much".into())));
        assert_eq!(a, b);
    }
}
