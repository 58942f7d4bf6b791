//! One execution for equal questions that are asked at the same time.
//!
//! Q2. A question joins the execution of an equal one only when that one sees everything that
//!     was acknowledged before the question came: it has not looked at the store yet, or no
//!     line has entered the heads since it began to.
//! Q3. An execution goes on as long as anybody waits for it, and is cancelled when nobody
//!     does. A waiting question costs nothing but its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::answer::QueryError;
use crate::telemetry::metrics::Counter;

type Answer<T> = Result<Arc<T>, QueryError>;
type Running<T> = BoxFuture<'static, Answer<T>>;

/// Executions of one kind of question, by question. `P` is what all who ask see of an
/// execution while it runs. Cheap to clone.
pub struct Sharing<T, P = ()> {
    running: Known<T, P>,
    joined: Counter,
}

/// The latest execution of each question.
type Known<T, P> = Arc<Mutex<HashMap<String, (WeakShared<Running<T>>, Arc<Execution<P>>)>>>;

/// What is known of an execution while it runs.
pub struct Execution<P> {
    /// [`Execution::NOT_YET`], or as of which record it sees the store at least.
    as_of: AtomicU64,
    pub progress: P,
}

impl<P> Execution<P> {
    /// It has not looked at the store.
    const NOT_YET: u64 = u64::MAX;

    /// To be called before the execution looks at the store, with the number of the next
    /// record to enter the heads.
    pub fn begins_to_look(&self, applied: u64) {
        self.as_of.store(applied, Ordering::SeqCst);
    }

    /// Whether it sees all that is below `applied`. Who asks reads that number before.
    fn sees(&self, applied: u64) -> bool {
        // Not yet: then whatever it will read as its number is at least as high.
        self.as_of.load(Ordering::SeqCst) >= applied
    }
}

/// An answer to wait for.
pub struct Asked<T, P> {
    pub execution: Arc<Execution<P>>,
    pub answer: BoxFuture<'static, Result<T, QueryError>>,
}

impl<T, P> Clone for Sharing<T, P> {
    fn clone(&self) -> Self {
        Self {
            running: self.running.clone(),
            joined: self.joined.clone(),
        }
    }
}

impl<T, P> Sharing<T, P>
where
    T: Clone + Send + Sync + 'static,
    P: Default + Send + Sync + 'static,
{
    /// `joined` counts the questions that cost nothing.
    pub fn new(joined: Counter) -> Self {
        Self {
            running: Arc::default(),
            joined,
        }
    }

    /// Asks `question`: of an execution that runs already and sees all records below
    /// `applied`, or else of the one that `begin` makes.
    pub fn ask<F>(
        &self,
        question: String,
        applied: u64,
        begin: impl FnOnce(Arc<Execution<P>>) -> F,
    ) -> Asked<T, P>
    where
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        let (shared, execution, leave) = self.join(question, applied, begin);
        let answer = async move {
            // In this order: who leaves last finds nobody else waiting.
            let shared = shared;
            let _leave = leave;
            let answer = shared.await?;
            // Mostly nobody else has it.
            Ok(Arc::try_unwrap(answer).unwrap_or_else(|answer| (*answer).clone()))
        };
        Asked {
            execution,
            answer: answer.boxed(),
        }
    }

    #[allow(clippy::type_complexity)]
    fn join<F>(
        &self,
        question: String,
        applied: u64,
        begin: impl FnOnce(Arc<Execution<P>>) -> F,
    ) -> (Shared<Running<T>>, Arc<Execution<P>>, Leave<T, P>)
    where
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        let mut running = self.running.lock();
        let found = running
            .get(&question)
            .and_then(|(weak, execution)| Some((weak.upgrade()?, execution.clone())));
        let joinable = found.filter(|(shared, execution)| {
            // One that has ended is over, although somebody has yet to take its answer.
            shared.peek().is_none() && execution.sees(applied)
        });
        let (shared, execution) = match joinable {
            Some(found) => {
                self.joined.inc();
                found
            }
            None => {
                let execution = Arc::new(Execution {
                    as_of: Execution::<P>::NOT_YET.into(),
                    progress: P::default(),
                });
                let answer = begin(execution.clone());
                let shared = answer.map(|answer| answer.map(Arc::new)).boxed().shared();
                if let Some(weak) = shared.downgrade() {
                    // One that is known and can't be joined goes on for who waits for it.
                    running.insert(question.clone(), (weak, execution.clone()));
                }
                (shared, execution)
            }
        };
        let leave = Leave {
            sharing: self.clone(),
            question,
        };
        (shared, execution, leave)
    }
}

/// Forgets a question when the last who asked it has left.
struct Leave<T, P> {
    sharing: Sharing<T, P>,
    question: String,
}

impl<T, P> Drop for Leave<T, P> {
    fn drop(&mut self) {
        let mut running = self.sharing.running.lock();
        let left = running
            .get(&self.question)
            .is_some_and(|(weak, _)| weak.upgrade().is_none_or(|s| s.peek().is_some()));
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

    /// Asks while nothing enters the heads.
    fn run<F>(
        sharing: &Sharing<usize>,
        question: &str,
        begin: impl FnOnce() -> F,
    ) -> BoxFuture<'static, Result<usize, QueryError>>
    where
        F: Future<Output = Result<usize, QueryError>> + Send + 'static,
    {
        let begin = |execution: Arc<Execution<()>>| {
            execution.begins_to_look(1);
            begin()
        };
        sharing.ask(question.into(), 1, begin).answer
    }

    #[tokio::test]
    async fn equal_questions_at_the_same_time_are_executed_once() {
        let (sharing, joined) = sharing();
        let (go, gate) = oneshot::channel::<()>();
        let executions = Arc::new(AtomicUsize::new(0));
        let count = executions.clone();
        let first = run(&sharing, "q", move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = gate.await;
            Ok(7)
        });
        let others = (0..3).map(|_| run(&sharing, "q", || async { Ok(8) }));
        let different = run(&sharing, "p", || async { Ok(9) });
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
        assert_eq!(run(&sharing, "q", || async { Ok(8) }).await, Ok(8));
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
                run(&sharing, "q", begin).await
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
    async fn who_may_know_of_more_lines_joins_no_execution_that_may_not() {
        let (sharing, joined) = sharing();
        let executions = Arc::new(Mutex::new(Vec::new()));
        let ask = |applied| {
            let executions = executions.clone();
            let begin = |execution: Arc<Execution<()>>| async move {
                let number = executions.lock().len();
                executions.lock().push(execution);
                tokio::task::yield_now().await;
                Ok(number)
            };
            sharing.ask("q".into(), applied, begin).answer
        };
        // Whoever comes before it looks is served by it, and so is who knows of nothing newer.
        let (first, second) = (ask(1), ask(2));
        let mut first = first;
        assert!(futures::poll!(&mut first).is_pending());
        executions.lock()[0].begins_to_look(2);
        let third = ask(2);
        assert_eq!(joined.get(), 2);
        // A push was acknowledged since.
        let (fourth, fifth) = (ask(3), ask(3));
        let all = futures::join!(first, second, third, fourth, fifth);
        assert_eq!(all, (Ok(0), Ok(0), Ok(0), Ok(1), Ok(1)));
        assert_eq!(joined.get(), 3);
        assert!(sharing.running.lock().is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_get_the_error() {
        let (sharing, _) = sharing();
        let ask = || {
            run(&sharing, "q", || async {
                tokio::task::yield_now().await;
                Err(QueryError::TooMuch("much".into()))
            })
        };
        let (a, b) = futures::join!(ask(), ask());
        assert_eq!(a, Err(QueryError::TooMuch("much".into())));
        assert_eq!(a, b);
    }
}
