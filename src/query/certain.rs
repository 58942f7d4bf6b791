//! What of a log answer is certain before the answer is complete.
//!
//! Units are read in the order of the query's direction. A line beyond every unit that is
//! left to be read has its final place: nothing that is found later comes before it. So the
//! stream of the first line, and its lines one after the other, can be told while the query
//! still reads; lines of other streams can't, since an answer has streams one after another.
//!
//! G1. What is told is a beginning of the complete answer's lines of that stream.
//! G2. Nothing is collected until somebody wants it: an answer that is quick costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::answer::{AnswerEntry, LogAnswer, QueryError};
use crate::model::Labels;

/// A log answer on its way.
pub struct Growing {
    pub certain: Arc<Certain>,
    /// The whole of it. The query stops when the last who waits for it has dropped this.
    pub answer: BoxFuture<'static, Result<LogAnswer, QueryError>>,
}

/// The certain lines of one execution, for all who wait for it.
#[derive(Default)]
pub struct Certain {
    wanted: AtomicBool,
    lines: watch::Sender<Lines>,
}

/// Lines of the answer's first line's stream.
#[derive(Default)]
struct Lines {
    labels: Labels,
    entries: Vec<AnswerEntry>,
}

impl Certain {
    /// From now on the execution tells what is certain. Waits for the first line, and
    /// returns the labels of its stream; for ever when the query ends without.
    pub async fn first(&self) -> Labels {
        self.wanted.store(true, Ordering::Relaxed);
        self.beyond(0).await;
        self.lines.borrow().labels.clone()
    }

    /// Waits until more than `count` lines are certain.
    pub async fn beyond(&self, count: usize) {
        let mut lines = self.lines.subscribe();
        // Its sender is in `self`.
        let _ = lines.wait_for(|lines| lines.entries.len() > count).await;
    }

    /// Certain lines behind the first `count`, until they hold `bytes`.
    pub fn some(&self, count: usize, bytes: usize) -> Vec<AnswerEntry> {
        let lines = self.lines.borrow();
        let mut left = bytes as i64;
        let behind = lines.entries.get(count..).unwrap_or_default();
        let until = behind.iter().take_while(|entry| {
            let wanted = left > 0;
            left -= entry.line.len() as i64;
            wanted
        });
        until.cloned().collect()
    }

    /// Whether somebody wants to know.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// More lines in the answer's order, with their labels; those of other streams than the
    /// first one's are left out. Returns the number of lines that were added.
    pub(super) fn tell(&self, more: impl Iterator<Item = (Labels, AnswerEntry)>) -> usize {
        let mut more = more.peekable();
        if more.peek().is_none() {
            return 0;
        }
        let mut added = 0;
        self.lines.send_if_modified(|lines| {
            for (labels, entry) in more {
                if lines.entries.is_empty() {
                    lines.labels = labels;
                } else if lines.labels != labels {
                    continue;
                }
                lines.entries.push(entry);
                added += 1;
            }
            added > 0
        });
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(at: i64) -> AnswerEntry {
        AnswerEntry {
            at,
            line: Bytes::from_static(b"0123456789"),
            structured: Labels::empty(),
            parsed: Labels::empty(),
        }
    }

    #[tokio::test]
    async fn lines_of_the_first_stream_are_told_in_order_and_others_not() {
        let certain = Certain::default();
        assert!(!certain.is_wanted());
        let stream = |n: &str| Labels::from_pairs([("n", n)]);
        let told = async {
            tokio::task::yield_now().await;
            assert!(certain.is_wanted());
            let more = [("a", 9), ("b", 8), ("a", 7)].map(|(n, at)| (stream(n), entry(at)));
            assert_eq!(certain.tell(more.into_iter()), 2);
            assert_eq!(certain.tell([(stream("b"), entry(6))].into_iter()), 0);
            assert_eq!(certain.tell([(stream("a"), entry(5))].into_iter()), 1);
        };
        let (first, ()) = futures::join!(certain.first(), told);
        assert_eq!(first, stream("a"));
        certain.beyond(2).await;
        let times = |count, bytes| -> Vec<i64> {
            certain.some(count, bytes).iter().map(|e| e.at).collect()
        };
        assert_eq!(times(0, 1000), [9, 7, 5]);
        assert_eq!((times(1, 1), times(0, 11)), (vec![7], vec![9, 7]));
        assert_eq!((times(3, 1), times(4, 1)), (vec![], vec![]));
    }
}
