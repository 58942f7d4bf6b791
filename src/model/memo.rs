//! Results of small computations that come again and again, such as the labels of a stream that
//! sends a line a second.

use parking_lot::Mutex;

/// A table of results with a fixed number of places: a new one takes the place of whatever has
/// the same hash modulo their number. Never waits: a place that is in use is as good as empty.
pub struct Memo<T> {
    places: Box<[Mutex<Option<T>>]>,
}

impl<T> Memo<T> {
    /// `places > 0` results are kept at most; what each may take is for the caller to bound.
    pub fn new(places: usize) -> Self {
        Self {
            places: (0..places.max(1)).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// What `use_it` makes of the result at the place of `hash`, which may be that of another
    /// question.
    pub fn get<R>(&self, hash: u64, use_it: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        use_it(self.place(hash).try_lock()?.as_ref()?)
    }

    pub fn put(&self, hash: u64, result: T) {
        if let Some(mut place) = self.place(hash).try_lock() {
            *place = Some(result);
        }
    }

    fn place(&self, hash: u64) -> &Mutex<Option<T>> {
        &self.places[(hash % self.places.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_result_takes_the_place_of_one_with_the_same_hash() {
        let memo = Memo::new(4);
        memo.put(1, ("one", 1));
        memo.put(2, ("two", 2));
        let get = |hash, name| memo.get(hash, |(n, v)| (*n == name).then_some(*v));
        assert_eq!((get(1, "one"), get(2, "two")), (Some(1), Some(2)));
        memo.put(5, ("five", 5));
        assert_eq!((get(1, "one"), get(5, "five")), (None, Some(5)));
        assert_eq!(get(3, "three"), None);
    }
}
