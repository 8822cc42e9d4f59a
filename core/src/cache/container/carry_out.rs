//! The walk over the rows of a container that finds the entries affected by an invalidation.
//!
//! Owns: where the walk stands and up to which bound it goes. The caller opens and removes the keys. Main thread only.

use crate::cache::epochs::Epochs;
use crate::ids::{Seq, SlotId};
use crate::index::Index;

/// Slots passed in one step of the walk.
const CARRY_OUT_SLOTS: usize = 1_024;

/// The walk; at rest where nothing waits to be carried out.
#[derive(Debug, Default)]
pub struct CarryOut {
    walk: Option<Walk>,
}

#[derive(Debug, Clone, Copy)]
struct Walk {
    next_slot: u32,
    upto: Seq,
}

impl CarryOut {
    /// Has the next step begin at the first row: what was passed may be concerned now.
    pub fn restart(&mut self) {
        self.walk = None;
    }

    /// Walks on to the next entry that an invalidation may concern. `None` when it passed as many slots as one step
    /// may, or when all invalidations are carried out (see [`Epochs::pending`]).
    pub fn next(&mut self, index: &Index, epochs: &mut Epochs) -> Option<(SlotId, Seq)> {
        let upto = epochs.pending()?;
        let walk = *self.walk.get_or_insert(Walk { next_slot: 0, upto });
        let mut next_slot = walk.next_slot;
        for _ in 0..CARRY_OUT_SLOTS {
            let Some((id, slot)) = index.next_occupied(next_slot) else {
                epochs.note_carried_out(walk.upto);
                self.walk = None;
                return None;
            };
            next_slot = id.0 + 1;
            let (seq, scope) = (slot.seq(), slot.partition.scope());
            if epochs.may_concern(seq, scope, index.tags_of(id)) {
                self.walk = Some(Walk { next_slot, ..walk });
                return Some((id, seq));
            }
        }
        self.walk = Some(Walk { next_slot, ..walk });
        None
    }
}
