//! What linking some blocks of a day found.
//!
//! On disk: version u8 = 1 | first minute zigzag | last minute, as distance from it | number of
//! services, their names | number of edges | per edge: parent (index), child (index), minute as
//! distance from the first, calls | number of orphans | per orphan: key u64 LE, service (index),
//! minute zigzag, calls | number of keys found, u64 LE each. Numbers are varints, minutes those of the
//! children's starts since 1970; the range of minutes is that of the edges.

use hashbrown::HashMap;

use crate::store::codec::{Reader, Writer};

const VERSION: u8 = 1;

/// What is stored under the number of the last block linked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkRecord {
    pub services: Vec<String>,
    pub edges: Vec<Edge>,
    /// Children whose parents have not been seen.
    pub orphans: Vec<Orphan>,
    /// Keys of spans that orphans of earlier records were waiting for; no longer.
    pub found: Vec<u64>,
}

/// Calls from one service to another in a minute. Services are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub parent: u32,
    pub child: u32,
    pub minute: i32,
    pub calls: u64,
}

/// Children of one service and minute that wait for one parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Key of the parent ([`super::key_of`]).
    pub parent: u64,
    /// Their own service.
    pub service: u32,
    pub minute: i32,
    /// How many they are.
    pub calls: u32,
}

impl LinkRecord {
    /// From numbers of services that mean something elsewhere.
    pub fn new(
        edges: &HashMap<(u32, u32, i32), u64>,
        orphans: &[Orphan],
        found: Vec<u64>,
        name: impl Fn(u32) -> String,
    ) -> Self {
        let mut record = Self {
            found,
            ..Self::default()
        };
        let mut places: HashMap<u32, u32> = HashMap::new();
        let services = &mut record.services;
        let mut place = |service: u32| {
            *places.entry(service).or_insert_with(|| {
                services.push(name(service));
                services.len() as u32 - 1
            })
        };
        let mut sorted: Vec<_> = edges.iter().collect();
        sorted.sort_unstable();
        for (&(parent, child, minute), &calls) in sorted {
            record.edges.push(Edge {
                parent: place(parent),
                child: place(child),
                minute,
                calls,
            });
        }
        for orphan in orphans {
            record.orphans.push(Orphan {
                service: place(orphan.service),
                ..*orphan
            });
        }
        record
    }

    pub fn encode(&self) -> Vec<u8> {
        let minutes = self.edges.iter().map(|edge| edge.minute);
        let first = minutes.clone().min().unwrap_or(0);
        let last = minutes.max().unwrap_or(0);
        let mut out = Writer::default();
        out.raw(&[VERSION]);
        out.zigzag(first.into());
        out.varint(last.abs_diff(first).into());
        out.varint(self.services.len() as u64);
        self.services
            .iter()
            .for_each(|name| out.text(name.as_bytes()));
        out.varint(self.edges.len() as u64);
        for edge in &self.edges {
            out.varint(edge.parent.into());
            out.varint(edge.child.into());
            out.varint(edge.minute.abs_diff(first).into());
            out.varint(edge.calls);
        }
        out.varint(self.orphans.len() as u64);
        for orphan in &self.orphans {
            out.raw(&orphan.parent.to_le_bytes());
            out.varint(orphan.service.into());
            out.zigzag(orphan.minute.into());
            out.varint(orphan.calls.into());
        }
        out.varint(self.found.len() as u64);
        self.found
            .iter()
            .for_each(|key| out.raw(&key.to_le_bytes()));
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (first, _, mut r) = header(bytes)?;
        let mut record = Self::default();
        for _ in 0..r.count(1)? {
            record.services.push(r.str()?.to_owned());
        }
        let services = record.services.len() as u64;
        let service = |r: &mut Reader<'_>| match r.varint()? {
            n if n < services => Ok(n as u32),
            _ => Err("service out of range".to_owned()),
        };
        for _ in 0..r.count(4)? {
            record.edges.push(Edge {
                parent: service(&mut r)?,
                child: service(&mut r)?,
                minute: u32::try_from(r.varint()?)
                    .ok()
                    .and_then(|distance| first.checked_add_unsigned(distance))
                    .ok_or("minute out of range")?,
                calls: r.varint()?,
            });
        }
        for _ in 0..r.count(11)? {
            record.orphans.push(Orphan {
                parent: u64::from_le_bytes(r.array()?),
                service: service(&mut r)?,
                minute: i32::try_from(r.zigzag()?).map_err(|_| "minute out of range")?,
                calls: u32::try_from(r.varint()?).map_err(|_| "count out of range")?,
            });
        }
        for _ in 0..r.count(8)? {
            record.found.push(u64::from_le_bytes(r.array()?));
        }
        match r.remaining() {
            0 => Ok(record),
            _ => Err("link record is longer than it says".into()),
        }
    }
}

/// First and last minute of a record's edges.
pub fn minutes(bytes: &[u8]) -> Result<(i32, i32), String> {
    header(bytes).map(|(first, last, _)| (first, last))
}

fn header(bytes: &[u8]) -> Result<(i32, i32, Reader<'_>), String> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => {}
        other => return Err(format!("link record version {other}, expected {VERSION}")),
    }
    let first = i32::try_from(r.zigzag()?).map_err(|_| "minute out of range")?;
    let last = u32::try_from(r.varint()?)
        .ok()
        .and_then(|distance| first.checked_add_unsigned(distance))
        .ok_or("minute out of range")?;
    Ok((first, last, r))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = LinkRecord> {
        let minutes = prop_oneof![20_000_000i32..20_000_100, any::<i32>()];
        let edge = (0u32..3, 0u32..3, minutes.clone(), any::<u64>());
        let orphan = (any::<u64>(), 0u32..3, minutes, any::<u32>());
        (
            prop::collection::vec("[a-zé]{0,9}", 3),
            prop::collection::vec(edge, 0..9),
            prop::collection::vec(orphan, 0..9),
            prop::collection::vec(any::<u64>(), 0..9),
        )
            .prop_map(|(services, edges, orphans, found)| LinkRecord {
                services,
                edges: edges
                    .into_iter()
                    .map(|(parent, child, minute, calls)| Edge {
                        parent,
                        child,
                        minute,
                        calls,
                    })
                    .collect(),
                orphans: orphans
                    .into_iter()
                    .map(|(parent, service, minute, calls)| Orphan {
                        parent,
                        service,
                        minute,
                        calls,
                    })
                    .collect(),
                found,
            })
    }

    proptest! {
        #[test]
        fn a_record_reads_back(record in record()) {
            let bytes = record.encode();
            let decoded = LinkRecord::decode(&bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(&record));
            let of = record.edges.iter().map(|edge| edge.minute);
            let range = (of.clone().min().unwrap_or(0), of.max().unwrap_or(0));
            prop_assert_eq!(minutes(&bytes), Ok(range));
            for len in 0..bytes.len() {
                prop_assert!(LinkRecord::decode(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_error_or_a_record(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = LinkRecord::decode(&bytes);
        }
    }
}
