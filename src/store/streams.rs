//! The registry of streams: labels ⇄ id, and which streams a selector means.
//!
//! Kept in memory for all streams within retention. On disk each day lists its own streams,
//! so that a day stands alone.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
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

#[derive(Default)]
struct Inner {
    by_id: HashMap<StreamId, Arc<Stream>>,
    tenants: HashMap<Arc<str>, Tenant>,
    memory: usize,
}

/// Names, values, and the streams that have them.
#[derive(Default)]
struct Tenant {
    names: HashMap<Arc<str>, HashMap<Arc<str>, Vec<StreamId>>>,
    streams: usize,
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
        if let Some(stream) = self.inner.read().by_id.get(&id) {
            return stream.clone();
        }
        let mut inner = self.inner.write();
        if let Some(stream) = inner.by_id.get(&id) {
            return stream.clone();
        }
        let index = inner.tenants.entry(tenant.clone()).or_default();
        index.streams += 1;
        // Names, values and postings are shared by many; counted as if they were not.
        let memory = 160 + labels.text_bytes() + labels.len() * 72;
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels.pairs() {
            // Each push brings its own copy of every text: the first is kept for all streams.
            let name = match index.names.get_key_value(name) {
                Some((known, _)) => known.clone(),
                None => name.clone(),
            };
            let values = index.names.entry(name.clone()).or_default();
            let value = match values.get_key_value(value) {
                Some((known, _)) => known.clone(),
                None => value.clone(),
            };
            values.entry(value.clone()).or_default().push(id);
            pairs.push((name, value));
        }
        let labels = Labels::from_pairs(pairs);
        let stream = Arc::new(Stream {
            id,
            tenant: tenant.clone(),
            kept: self.rules.kept(self.retention, &labels),
            labels,
            memory,
        });
        inner.by_id.insert(id, stream.clone());
        inner.memory += memory;
        stream
    }

    pub fn get(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.inner.read().by_id.get(&id).cloned()
    }

    pub fn contains(&self, id: StreamId) -> bool {
        self.inner.read().by_id.contains_key(&id)
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
        let mut best: Option<Vec<StreamId>> = None;
        for matcher in matchers.iter().filter(|m| !m.matches("")) {
            let Some(values) = index.names.get(&*matcher.name) else {
                return Vec::new();
            };
            let ids: Vec<StreamId> = if matcher.op == crate::model::MatchOp::Equal {
                values.get(&*matcher.value).cloned().unwrap_or_default()
            } else {
                let hits = values.iter().filter(|(value, _)| matcher.matches(value));
                hits.flat_map(|(_, ids)| ids.iter().copied()).collect()
            };
            if best.as_ref().is_none_or(|b| ids.len() < b.len()) {
                best = Some(ids);
            }
        }
        let fits = |s: &&Arc<Stream>| matchers.iter().all(|m| m.matches_labels(&s.labels));
        match best {
            Some(ids) => ids
                .iter()
                .filter_map(|id| inner.by_id.get(id))
                .filter(fits)
                .cloned()
                .collect(),
            None => {
                let own = inner.by_id.values().filter(|s| &*s.tenant == tenant);
                own.filter(fits).cloned().collect()
            }
        }
    }

    /// Forgets the streams that `keep` refuses.
    pub fn retain(&self, keep: impl Fn(StreamId) -> bool) {
        let mut inner = self.inner.write();
        let gone: Vec<Arc<Stream>> = inner
            .by_id
            .values()
            .filter(|s| !keep(s.id))
            .cloned()
            .collect();
        for stream in gone {
            inner.by_id.remove(&stream.id);
            inner.memory -= stream.memory;
            let Some(index) = inner.tenants.get_mut(&stream.tenant) else {
                continue;
            };
            index.streams -= 1;
            for (name, value) in stream.labels.pairs() {
                let Some(values) = index.names.get_mut(name) else {
                    continue;
                };
                if let Some(ids) = values.get_mut(value) {
                    ids.retain(|id| *id != stream.id);
                    if ids.is_empty() {
                        values.remove(value);
                    }
                }
                if values.is_empty() {
                    index.names.remove(name);
                }
            }
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
