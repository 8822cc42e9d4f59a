//! Registers a container that stands in a key: the uid it gets there, and what it takes over.
//!
//! Owns: who may arrive, who gets another uid, and what a second life inherits from the first. Main thread only.

use super::known::{Arrival, Container, Containers, Known, Place, Placed, uid_of};
use super::places::{Row, Shared};
use llmcache_core::ids::ContainerUid;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::Arc;

impl<C: Container> Containers<C> {
    /// A container stands in a key: it was created, loaded, restored, renamed or moved there. A second
    /// one of a living uid gets another identity, derived from uid and place, so that primary and
    /// replica agree. One whose entries are here already takes over what is known of them.
    pub fn place(&self, container: &Shared<C>, place: Place) -> Placed {
        let uid = uid_of(container);
        let uid =
            if self.is_taken(uid, container) { self.become_other(container, &place) } else { uid };
        let (db, name) = place;
        self.0.with(|known| {
            let (former, moved) = known.take_former(uid, db, container);
            known.named.remove(&*name);
            let mut row = Row::placed(container, name);
            let (mut incomplete, had_former) = (known.overflowed, former.is_some());
            if let Some(former) = former {
                row.expire_at_ms = former.expire_at_ms;
                known.named.remove(&*former.name);
                let kept = former.container().filter(|kept| !Arc::ptr_eq(kept, container));
                if let Some(kept) = kept {
                    incomplete |= !inherit(container, &kept, db, &mut known.arrivals);
                }
            }
            let waiting = known.databases.get_mut(&db).and_then(|at| at.waiting.remove(&uid));
            let awaited_by_name = waiting.is_some();
            if incomplete || awaited_by_name || had_former {
                known.returned.push((db, uid));
            }
            let names = waiting.into_iter().flat_map(|waiting| waiting.names);
            known.arrivals.extend(names.map(|name| Arrival::Key((db, name))));
            known.arrivals.extend(awaited_by_name.then_some(Arrival::End { uid, db }));
            known.put_row(uid, db, row);
            container.with(|container| {
                container.count_with_all();
                if incomplete {
                    container.set_filling(true);
                }
            });
            Placed { moved, incomplete, awaited_by_name }
        })
    }

    /// Whether a container that is read while a data set is loaded may be placed at once. One whose uid lives comes
    /// by a RESTORE of the AOF, which reads the new value before the former one leaves the key: it is placed by the
    /// event of that command, as it was when the command was first run.
    pub fn may_place_at_load(&self, container: &Shared<C>, place: &Place) -> bool {
        let is_taken = self.is_taken(uid_of(container), container);
        if is_taken {
            let postponed = (Arc::downgrade(container), place.clone());
            self.0.with(|known| known.postponed.push(postponed));
        }
        !is_taken
    }

    /// Takes those that no event placed by the end of loading: a file had two containers of one uid.
    pub fn take_postponed(&self) -> Vec<(Shared<C>, Place)> {
        let postponed = self.0.with(|known| std::mem::take(&mut known.postponed));
        let mut left = Vec::new();
        for (container, place) in postponed {
            let Some(container) = container.upgrade() else { continue };
            let uid = uid_of(&container);
            let is_placed = |known: &mut Known<C>| {
                known.row(uid, place.0).is_some_and(|row| row.is_of(&container))
            };
            if !self.0.with(is_placed) {
                left.push((container, place));
            }
        }
        left
    }

    /// Whether another container of this uid stands in a key. One that was evicted and is to be put back does not: replicas
    /// know nothing of it, and are to judge alike.
    fn is_taken(&self, uid: ContainerUid, container: &Shared<C>) -> bool {
        self.0.with(|known| {
            let mut rows = known.databases.values().filter_map(|database| database.row(uid));
            rows.any(|row| row.is_placed() && !row.is_of(container))
        })
    }

    /// Gives a second container of a uid an identity of its own, derived from where it stands, so that every server
    /// that applies the same command agrees.
    pub fn become_other(&self, container: &Shared<C>, place: &Place) -> ContainerUid {
        let uid = uid_of(container);
        // A dump restored to one place twice finds its first identity taken if that container was renamed meanwhile.
        let mut derived = (0..).map(|attempt| derived_uid(uid, place, attempt));
        let other = derived.find(|&other| !self.is_taken(other, container));
        let other = other.expect("fewer containers than identities");
        container.with(|container| container.become_other(&place.1, other));
        other
    }

    /// Whether a container that a dump brings may stand in the key of this name: it takes over the keys of its uid that
    /// are here, which whoever restores it may have no right to. It may where these are named after the key, or where
    /// the container stood last. Under another name it may only if no key of the uid is here, which is certain only if
    /// all keys are known. If the uid lives, the second container gets another uid.
    pub fn may_arrive(&self, arriving: &C, db: c_int, name: &[u8], all_is_known: bool) -> bool {
        let (uid, is_own_name) = (arriving.uid(), arriving.is_named_after(name));
        self.0.with(|known| {
            let may_have = |at: c_int, row: &Row<C>| {
                let same_keys = || {
                    let left = row.container();
                    left.is_none_or(|left| left.with(|left| left.prefix() == arriving.prefix()))
                };
                (at == db && *row.name == *name) || (is_own_name && same_keys())
            };
            let rows = || known.databases.iter().filter_map(|(&at, d)| Some((at, d.row(uid)?)));
            if rows().any(|(_, row)| row.is_placed()) {
                return true;
            }
            if !rows().all(|(at, row)| may_have(at, row)) {
                return false;
            }
            if rows().any(|(at, row)| at == db && *row.name == *name) {
                return true;
            }
            let waits = || known.databases.values().any(|d| d.waiting.contains_key(&uid));
            let is_all_known = all_is_known && !known.overflowed && known.arrivals.is_empty();
            is_own_name || (is_all_known && !waits())
        })
    }
}

/// Has a container take over what another of its uid knew; where it knows keys of its own already, those of the
/// other are looked at one by one. Returns whether nothing is left to be looked at.
fn inherit<C: Container>(
    container: &Shared<C>,
    kept: &Shared<C>,
    db: c_int,
    arrivals: &mut VecDeque<Arrival<C>>,
) -> bool {
    let taken = kept.with(|kept| {
        kept.count_alone();
        !kept.has_entries() || container.with(|container| container.take_entries_of(kept))
    });
    if !taken {
        arrivals.push_back(Arrival::All { container: Arc::clone(kept), db, next: 0 });
    }
    taken
}

/// The identity of that many attempts that belongs to a uid and a place.
fn derived_uid(uid: ContainerUid, (db, name): &Place, attempt: u64) -> ContainerUid {
    let mut hash = Sha256::new();
    hash.update(uid.0.to_le_bytes());
    hash.update(db.to_le_bytes());
    hash.update(name);
    if attempt > 0 {
        hash.update(attempt.to_le_bytes());
    }
    let mut word = [0; 8];
    word.copy_from_slice(&hash.finalize()[..8]);
    ContainerUid(u64::from_le_bytes(word))
}
