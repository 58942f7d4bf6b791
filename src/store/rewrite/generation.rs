//! Which family holds a day: the one of the generation that `meta` names.

use hashbrown::HashMap;

use crate::store::error::StoreError;
use crate::store::kv::Kv;
use crate::store::layout::{GENERATION_PREFIX, META_FAMILY, PartitionId, generation_key};

/// The families of a database, sorted by what they are.
#[derive(Default)]
pub struct Families {
    /// Each day with the generation that counts.
    pub days: Vec<(PartitionId, u32)>,
    /// Families that a crash left: not finished, or switched away from.
    pub stale: Vec<String>,
    pub unknown: Vec<String>,
    /// What `meta` says otherwise or of days that are gone: these keys have to be corrected.
    corrections: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Families {
    /// Looks through the families that a database has.
    pub fn of(kv: &Kv, names: Vec<String>) -> Result<Self, StoreError> {
        let mut told: HashMap<Vec<u8>, u32> = HashMap::new();
        kv.scan(META_FAMILY, GENERATION_PREFIX, |key, value| {
            let generation = value.try_into().map_or(0, u32::from_be_bytes);
            told.insert(key.to_vec(), generation);
            true
        })?;
        let mut found: HashMap<PartitionId, Vec<u32>> = HashMap::new();
        let mut families = Self::default();
        for name in names {
            match PartitionId::parse_family(&name) {
                Some((id, generation)) => found.entry(id).or_default().push(generation),
                None => families.unknown.push(name),
            }
        }
        for (id, generations) in found {
            let key = generation_key(id);
            let wanted = told.remove(&key);
            let newest = generations.iter().copied().max().unwrap_or(0);
            // A generation that is named and not there was dropped, and one from before it was
            // not yet: it is shown until it goes again, rather than lost on a guess.
            let current = match wanted.unwrap_or(0) {
                named if generations.contains(&named) => named,
                _ => newest,
            };
            if wanted.unwrap_or(0) != current {
                let value = current.to_be_bytes().to_vec();
                families.corrections.push((key, Some(value)));
            }
            let others = generations.into_iter().filter(|n| *n != current);
            families.stale.extend(others.map(|n| id.family(n)));
            families.days.push((id, current));
        }
        let gone = told.into_keys().map(|key| (key, None));
        families.corrections.extend(gone);
        families.days.sort_unstable();
        Ok(families)
    }

    /// Drops what does not count and puts `meta` right.
    pub fn settle(&self, kv: &Kv) -> Result<(), StoreError> {
        for name in &self.stale {
            tracing::info!(family = %name, "removing what a rewriting left");
            kv.drop_family(name, kv.creation(name))?;
        }
        if !self.corrections.is_empty() {
            kv.write_meta(&self.corrections)?;
        }
        Ok(())
    }
}
