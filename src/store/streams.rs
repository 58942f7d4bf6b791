//! The registry of streams: labels ⇄ id, and which streams a selector means.
//!
//! Kept in memory for all streams within retention. On disk each day lists its own streams,
//! so that a day stands alone.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use parking_lot::RwLock;

use super::codec::{Reader, Writer};
use super::retention::{Kept, Rules};
use crate::model::{Labels, Matcher, StreamId};

/// One stream.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    pub tenant: Arc<str>,
    pub labels: Labels,
    /// How long its lines are kept.
    pub kept: Kept,
    /// Memory that the registry holds for it, bytes.
    memory: usize,
}

/// All known streams.
#[derive(Default)]
pub struct Streams {
    inner: RwLock<Inner>,
    retention: Option<Duration>,
    rules: Rules,
}

/// Streams have a small number each, their slot: postings of 100,000 streams would be four times
/// as large with ids in them.
#[derive(Default)]
struct Inner {
    slots: Vec<Option<Arc<Stream>>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    hasher: RandomState,
    tenants: HashMap<Arc<str>, Tenant>,
    memory: usize,
}

/// Names, values, and the streams that have them.
#[derive(Default)]
struct Tenant {
    names: HashMap<Arc<str>, HashMap<Arc<str>, Postings>>,
}

/// Slots of the streams that have a value: very often it is one.
enum Postings {
    One(u32),
    Many(Vec<u32>),
}

impl Postings {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn push(&mut self, slot: u32) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, slot]),
            Self::Many(slots) => slots.push(slot),
        }
    }

    /// Whether any are left.
    fn retain(&mut self, keep: impl Fn(u32) -> bool) -> bool {
        match self {
            Self::One(slot) => keep(*slot),
            Self::Many(slots) => {
                slots.retain(|slot| keep(*slot));
                !slots.is_empty()
            }
        }
    }
}

impl Inner {
    fn get(&self, id: StreamId) -> Option<&Arc<Stream>> {
        let is_it = |slot: &u32| self.at(*slot).is_some_and(|s| s.id == id);
        let slot = self.by_id.find(self.hasher.hash_one(id), is_it)?;
        self.at(*slot)
    }

    fn at(&self, slot: u32) -> Option<&Arc<Stream>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.slots.iter().flatten()
    }

    fn insert(&mut self, slot: u32, stream: Arc<Stream>) {
        let Self {
            slots,
            by_id,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(stream.id);
        slots[slot as usize] = Some(stream);
        by_id.insert_unique(hash, slot, |slot| {
            let stream = slots[*slot as usize].as_ref();
            stream.map_or(0, |s| hasher.hash_one(s.id))
        });
    }
}

impl Streams {
    /// None yet; how long they will be kept is known.
    pub fn new(retention: Option<Duration>, rules: Rules) -> Self {
        Self {
            inner: RwLock::default(),
            retention,
            rules,
        }
    }

    /// The stream with this id, registered when it is new.
    pub fn register(&self, tenant: &Arc<str>, id: StreamId, labels: &Labels) -> Arc<Stream> {
        if let Some(stream) = self.inner.read().get(id) {
            return stream.clone();
        }
        let mut guard = self.inner.write();
        let inner = &mut *guard;
        if let Some(stream) = inner.get(id) {
            return stream.clone();
        }
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.slots.push(None);
            // Each takes some hundred bytes: memory ends long before the numbers do.
            (inner.slots.len() - 1) as u32
        });
        let tenant = match inner.tenants.get_key_value(tenant) {
            Some((known, _)) => known.clone(),
            None => tenant.clone(),
        };
        let index = inner.tenants.entry(tenant.clone()).or_default();
        // The stream, its slot and its place in the table.
        let mut memory = 160;
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels.pairs() {
            // Each push brings its own copy of every text: the first is kept for all streams.
            let name = match index.names.get_key_value(name) {
                Some((known, _)) => known.clone(),
                None => name.clone(),
            };
            let values = index.names.entry(name.clone()).or_default();
            // In the set of labels, and in the postings.
            memory += 32 + 6;
            let value = match values.get_key_value(value) {
                Some((known, _)) => known.clone(),
                None => {
                    // Text and its place in the table, which is half empty on the average.
                    memory += value.len() + 24 + 64;
                    value.clone()
                }
            };
            let postings = values.entry(value.clone());
            postings
                .and_modify(|known| known.push(slot))
                .or_insert(Postings::One(slot));
            pairs.push((name, value));
        }
        let labels = Labels::from_pairs(pairs);
        let stream = Arc::new(Stream {
            id,
            tenant,
            kept: self.rules.kept(self.retention, &labels),
            labels,
            memory,
        });
        inner.insert(slot, stream.clone());
        inner.memory += memory;
        stream
    }

    pub fn get(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.inner.read().get(id).cloned()
    }

    pub fn contains(&self, id: StreamId) -> bool {
        self.inner.read().get(id).is_some()
    }

    pub fn len(&self) -> usize {
        self.inner.read().by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the registry, bytes.
    pub fn memory(&self) -> usize {
        self.inner.read().memory
    }

    /// The tenant's streams whose labels match all of `matchers`; all streams for none.
    pub fn select(&self, tenant: &str, matchers: &[Matcher]) -> Vec<Arc<Stream>> {
        let inner = self.inner.read();
        let Some(index) = inner.tenants.get(tenant) else {
            return Vec::new();
        };
        // The matcher that leaves fewest streams, of those that need the label to be there.
        let mut best: Option<Vec<u32>> = None;
        for matcher in matchers.iter().filter(|m| !m.matches("")) {
            let Some(values) = index.names.get(&*matcher.name) else {
                return Vec::new();
            };
            let slots: Vec<u32> = if matcher.op == crate::model::MatchOp::Equal {
                let hit = values.get(&*matcher.value);
                hit.map_or_else(Vec::new, |postings| postings.as_slice().to_vec())
            } else {
                let hits = values.iter().filter(|(value, _)| matcher.matches(value));
                hits.flat_map(|(_, postings)| postings.as_slice().iter().copied())
                    .collect()
            };
            if best.as_ref().is_none_or(|b| slots.len() < b.len()) {
                best = Some(slots);
            }
        }
        let fits = |s: &&Arc<Stream>| matchers.iter().all(|m| m.matches_labels(&s.labels));
        match best {
            Some(slots) => slots
                .iter()
                .filter_map(|slot| inner.at(*slot))
                .filter(fits)
                .cloned()
                .collect(),
            None => {
                let own = inner.streams().filter(|s| &*s.tenant == tenant);
                own.filter(fits).cloned().collect()
            }
        }
    }

    /// Forgets the streams that `keep` refuses.
    pub fn retain(&self, keep: impl Fn(StreamId) -> bool) {
        let mut guard = self.inner.write();
        let inner = &mut *guard;
        let mut gone = 0;
        for (slot, place) in inner.slots.iter_mut().enumerate() {
            if let Some(stream) = place.take_if(|stream| !keep(stream.id)) {
                inner.memory -= stream.memory;
                inner.free.push(slot as u32);
                gone += 1;
            }
        }
        if gone == 0 {
            return;
        }
        let slots = &inner.slots;
        let is_left = |slot: u32| slots[slot as usize].is_some();
        inner.by_id.retain(|slot| is_left(*slot));
        // One walk over all postings, however many streams went.
        for index in inner.tenants.values_mut() {
            index.names.retain(|_, values| {
                values.retain(|_, postings| postings.retain(is_left));
                !values.is_empty()
            });
        }
    }
}

/// A stream as its day lists it: tenant, then pairs, each text with its length before it.
pub fn encode_stream(tenant: &str, labels: &Labels) -> Vec<u8> {
    let mut w = Writer::default();
    w.text(tenant.as_bytes());
    w.varint(labels.len() as u64);
    for (name, value) in labels.iter() {
        w.text(name.as_bytes());
        w.text(value.as_bytes());
    }
    w.finish()
}

/// The reverse of [`encode_stream`].
pub fn decode_stream(bytes: &[u8]) -> Result<(Arc<str>, Labels), String> {
    let mut r = Reader::new(bytes);
    let tenant = r.str()?.into();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..r.count(2)? {
        pairs.push((r.str()?, r.str()?));
    }
    Ok((tenant, Labels::from_pairs(pairs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MatchOp;

    fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
        let regex = matches!(op, MatchOp::Regex | MatchOp::NotRegex)
            .then(|| regex::Regex::new(&format!("^(?s:{value})$")).unwrap());
        Matcher {
            name: name.into(),
            op,
            value: value.into(),
            regex,
        }
    }

    #[test]
    fn a_selector_finds_exactly_the_streams_that_match_all_its_matchers() {
        let streams = Streams::default();
        let tenant: Arc<str> = "".into();
        for (app, host) in [("api", "a"), ("api", "b"), ("web", "a"), ("", "c")] {
            let mut labels = crate::model::LabelsBuilder::default();
            labels.set("host", host);
            if !app.is_empty() {
                labels.set("app", app);
            }
            let labels = labels.build();
            streams.register(&tenant, StreamId::of("", &labels), &labels);
        }
        let count = |matchers: &[Matcher]| streams.select("", matchers).len();
        assert_eq!(count(&[]), 4);
        assert_eq!(count(&[matcher("app", MatchOp::Equal, "api")]), 2);
        assert_eq!(count(&[matcher("app", MatchOp::NotEqual, "api")]), 2);
        assert_eq!(count(&[matcher("app", MatchOp::Equal, "")]), 1);
        assert_eq!(count(&[matcher("host", MatchOp::Regex, "a|c")]), 3);
        let both = [
            matcher("host", MatchOp::Regex, "a|c"),
            matcher("app", MatchOp::NotRegex, "w.*"),
        ];
        assert_eq!(count(&both), 2);
        assert_eq!(count(&[matcher("nope", MatchOp::Equal, "x")]), 0);
        assert_eq!(streams.select("other", &[]).len(), 0);

        let keep = streams.select("", &[matcher("app", MatchOp::Equal, "web")])[0].id;
        streams.retain(|id| id == keep);
        assert_eq!((count(&[]), streams.len()), (1, 1));
        assert_eq!(count(&[matcher("app", MatchOp::Equal, "api")]), 0);
    }

    #[test]
    fn a_listed_stream_reads_back() {
        let labels = Labels::from_pairs([("a", "1"), ("ü", "")]);
        let (tenant, back) = decode_stream(&encode_stream("t", &labels)).unwrap();
        assert_eq!((&*tenant, back), ("t", labels));
        assert!(decode_stream(&[9, 9]).is_err());
    }
}
