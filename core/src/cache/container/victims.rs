//! Chooses the entry that a container removes when MAXENTRIES or MAXMEMORY is exceeded.
//!
//! Owns: the choice; the caller removes the entry's key. Main thread only.

use crate::evict::{VICTIM_SAMPLES, keep_value, minute};
use crate::ids::{Seq, SlotId, UnixMs};
use crate::index::{Index, Slot};

/// Slots passed in search of an entry that is due before a living one is removed.
const DUE_WALK_SLOTS: u64 = 256;

/// Chooses victims; remembers where its walk over expired entries stopped.
#[derive(Debug, Default)]
pub struct Victims {
    due_slot: u32,
}

impl Victims {
    /// The entry to remove when a limit is passed, never `spare`: one that is due, if a short walk
    /// over the slots meets one, else the least worth keeping among a few picked at random. `None`
    /// when there is no other.
    pub fn pick(
        &mut self,
        index: &Index,
        spare: SlotId,
        now: UnixMs,
        mut random: impl FnMut() -> u64,
    ) -> Option<(SlotId, Seq)> {
        if let Some(due) = self.find_due(index, spare, now) {
            return Some(due);
        }
        let now_min = minute(now);
        let end = index.slot_end();
        let mut worst: Option<(f64, SlotId, Seq)> = None;
        let few = index.totals().entries <= VICTIM_SAMPLES as u64;
        let mut from = 0;
        for _ in 0..VICTIM_SAMPLES {
            // A small cache is looked at whole, so that its evictions are exact.
            let start = if few { from } else { (random() % u64::from(end.max(1))) as u32 };
            let Some((id, slot)) = next_other(index, start, spare) else { break };
            from = id.0 + 1;
            let value = keep_value(slot.frequency, now_min, slot.worth(), slot.bytes);
            // Of equals the older goes.
            if worst.is_none_or(|(least, _, seq)| (value, slot.seq()) < (least, seq)) {
                worst = Some((value, id, slot.seq()));
            }
        }
        worst.map(|(_, id, seq)| (id, seq))
    }

    /// Walks on over some slots, from where the last walk stopped, to an entry that is due. A small
    /// cache is walked once round.
    fn find_due(&mut self, index: &Index, spare: SlotId, now: UnixMs) -> Option<(SlotId, Seq)> {
        for _ in 0..index.totals().entries.min(DUE_WALK_SLOTS) {
            let (id, slot) = next_other(index, self.due_slot, spare)?;
            let due = slot.expire_at.is_past(now).then_some((id, slot.seq()));
            self.due_slot = id.0 + 1;
            if due.is_some() {
                return due;
            }
        }
        None
    }
}

/// The first entry at or after a slot that is not `spare`; behind the last comes the first.
fn next_other(index: &Index, from: u32, spare: SlotId) -> Option<(SlotId, Slot<'_>)> {
    let other = |from| match index.next_occupied(from) {
        Some((id, _)) if id == spare => index.next_occupied(id.0 + 1),
        next => next,
    };
    other(from).or_else(|| other(0))
}
