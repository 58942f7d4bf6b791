//! The one step in which a rewritten day takes the place of what it was made from. On the writer's
//! thread: nobody else adds chunks to a day or drops one.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use hashbrown::HashSet;

use crate::store::error::StoreError;
use crate::store::layout::generation_key;
use crate::store::meta_copy;
use crate::store::partition::Partition;
use crate::store::writer::Shared;

/// A rewritten day that waits to be switched to.
pub struct Switch {
    pub old: Arc<Partition>,
    pub new: Arc<Partition>,
    /// Number that the old day's next chunk gets: there is none that the new one lacks.
    pub next: u32,
    /// Told whether it was done.
    pub told: SyncSender<bool>,
}

impl Switch {
    /// Does it, unless the day was dropped or got another chunk. An error is fatal: nobody knows
    /// which of the two the next start would take.
    pub fn run(self, shared: &Shared) -> Result<(), StoreError> {
        let id = self.old.id;
        let is_as_expected = {
            let open = shared.open.lock();
            let current = open.partitions.get(&id);
            current.is_some_and(|p| Arc::ptr_eq(p, &self.old))
                && self.old.next_number() == self.next
        };
        if !is_as_expected {
            let _ = self.told.send(false);
            return Ok(());
        }
        let value = |generation: u32| Some(generation.to_be_bytes().to_vec());
        let key = generation_key(id);
        let named = [(key.clone(), value(self.new.generation))];
        if let Err(error) = shared.kv.write_meta(&named) {
            // It may be there or not.
            let before = [(key, value(self.old.generation))];
            shared.kv.write_meta(&before).map_err(|_| {
                StoreError::Failed(format!("naming the generation of {id}: {error}"))
            })?;
            tracing::warn!(day = %id, "not switched to what it was rewritten as: {error}");
            let _ = self.told.send(false);
            return Ok(());
        }
        fail::fail_point!("rewrite-named");
        if let Err(error) = meta_copy::write(&shared.kv, &shared.layout) {
            tracing::warn!("no copy of which generation of {id} counts: {error}");
        }
        {
            let mut open = shared.open.lock();
            open.partitions.insert(id, self.new.clone());
            shared.generations.lock().insert(id, self.new.generation);
        }
        self.old.mark_dropped();
        forget_streams(shared);
        let _ = self.told.send(true);
        Ok(())
    }
}

/// Forgets the streams that no day lists and no head has.
pub fn forget_streams(shared: &Shared) {
    let (kept, in_heads) = {
        let open = shared.open.lock();
        let kept: Vec<Arc<Partition>> = open.partitions.values().cloned().collect();
        let in_heads: HashSet<_> = open
            .heads
            .keys()
            .map(|k| k.stream)
            .chain(open.frozen.iter().map(|f| f.key.stream))
            .collect();
        (kept, in_heads)
    };
    shared.streams.retain(|id| {
        in_heads.contains(&id) || kept.iter().any(|partition| partition.lists_stream(id))
    });
}
