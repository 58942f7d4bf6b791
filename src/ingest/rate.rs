//! Token buckets by key: bytes a second, with a burst.

use std::hash::Hash;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Buckets that are full again say nothing; they go when there are this many.
const SWEEP_ABOVE: usize = 4096;

/// A bucket for each key, all with the same rate and burst.
pub struct Buckets<K> {
    /// Tokens a nanosecond.
    rate: f64,
    burst: f64,
    buckets: Mutex<Known<K>>,
}

struct Known<K> {
    by_key: HashMap<K, Bucket>,
    /// Number of buckets at which the next sweep is worth it.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: i64,
}

impl<K: Hash + Eq> Buckets<K> {
    /// `None`: no limit.
    pub fn new(per_second: u64, burst: u64) -> Option<Self> {
        (per_second > 0).then(|| Self {
            rate: per_second as f64 / 1e9,
            burst: burst.max(per_second) as f64,
            buckets: Mutex::new(Known {
                by_key: HashMap::new(),
                sweep_at: SWEEP_ABOVE,
            }),
        })
    }

    /// Takes all of `wanted` or nothing.
    pub fn take(&self, key: K, wanted: u64, now: i64) -> bool {
        let mut known = self.buckets.lock();
        if known.by_key.len() >= known.sweep_at {
            known
                .by_key
                .retain(|_, bucket| self.level(*bucket, now) < self.burst);
            // Twice what is left, so that walking stays cheap for each one added.
            known.sweep_at = (known.by_key.len() * 2).max(SWEEP_ABOVE);
        }
        let bucket = known.by_key.entry(key).or_insert(Bucket {
            tokens: self.burst,
            at: now,
        });
        let level = self.level(*bucket, now);
        let enough = level >= wanted as f64;
        *bucket = Bucket {
            tokens: if enough { level - wanted as f64 } else { level },
            at: now,
        };
        enough
    }

    fn level(&self, bucket: Bucket, now: i64) -> f64 {
        let elapsed = now.saturating_sub(bucket.at).max(0) as f64;
        (bucket.tokens + elapsed * self.rate).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let second = 1_000_000_000;
        let buckets = Buckets::new(100, 250).expect("a limit");
        assert!(buckets.take("a", 200, 0));
        assert!(!buckets.take("a", 100, 0));
        assert!(buckets.take("b", 250, 0), "another key has its own");
        assert!(buckets.take("a", 150, second));
        assert!(!buckets.take("a", 1, second));
        assert!(
            !buckets.take("a", 251, 1000 * second),
            "never above the burst"
        );
        assert!(buckets.take("a", 250, 1000 * second));
        assert!(Buckets::<u8>::new(0, 5).is_none());
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let buckets = Buckets::new(1_000_000_000, 0).expect("a limit");
        for key in 0..100_000_i64 {
            assert!(buckets.take(key, 1, key * 10));
        }
        assert!(buckets.buckets.lock().by_key.len() <= SWEEP_ABOVE);
    }
}
