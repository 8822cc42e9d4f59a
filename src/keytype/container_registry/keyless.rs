//! Containers without a key: evicted ones, which are restored, and deleted ones, whose entries are to be removed.
//!
//! Owns: the steps from a key that goes to a container that is put back or whose remains are gone. Main thread only.

use super::known::{Container, Containers, Keyless, uid_of};
use super::places::{Row, Shared, Standing};
use llmcache_core::ids::ContainerUid;
use std::ffi::c_int;

impl<C: Container> Containers<C> {
    /// The key of a container is going, or is renamed or moved.
    pub fn unlinked(&self, container: &Shared<C>, db: c_int, key: &[u8]) {
        let uid = uid_of(container);
        self.0.with(|known| {
            known.named.remove(key);
            if !known.row(uid, db).is_some_and(|row| row.is_of(container)) {
                return;
            }
            let Some(mut row) = known.take_row(uid, db) else { return };
            row.unlink(container, key);
            known.put_row(uid, db, row);
            if let Some(database) = known.databases.get_mut(&db) {
                database.queue_remains(uid, true);
                database.last_unlinked = Some(uid);
            }
            container.with(Container::count_alone);
        });
    }

    /// The server evicted a key. If it was a container's, that is kept to be put back: its size is that
    /// of its keys, which go by themselves, and making it anew would lose them all. Returns whether it
    /// was.
    pub fn evicted(&self, db: c_int, key: &[u8]) -> bool {
        self.0.with(|known| {
            // The server tells of an eviction right after the key went.
            let Some(database) = known.databases.get_mut(&db) else { return false };
            let Some(uid) = database.last_unlinked.take() else { return false };
            let Some(row) = database.row_mut(uid) else { return false };
            if row.standing != Standing::Gone || *row.name != *key {
                return false;
            }
            row.standing = Standing::Evicted;
            database.evicted.push(uid);
            true
        })
    }

    /// The evicted container that stood in this key and was not put back yet.
    pub fn evicted_from(&self, db: c_int, key: &[u8]) -> Option<Shared<C>> {
        self.0.with(|known| {
            let database = known.databases.get(&db)?;
            let rows = database.evicted.iter().filter_map(|&uid| database.row(uid));
            let mut rows = rows.filter(|row| row.standing == Standing::Evicted);
            rows.find(|row| *row.name == *key)?.container()
        })
    }

    /// Takes the containers that are to be put back, for good: place each again, or give it up.
    pub fn take_evicted(&self) -> Vec<Keyless<C>> {
        self.0.with(|known| {
            let mut taken = Vec::new();
            for (&db, database) in &mut known.databases {
                for uid in std::mem::take(&mut database.evicted) {
                    let row = database.row(uid).filter(|row| row.standing == Standing::Evicted);
                    taken.extend(row.and_then(|row| keyless(uid, db, row)));
                }
            }
            taken
        })
    }

    /// What is left of a container whose key went is of no use any more: what it had comes anew.
    pub fn forget_gone(&self, uid: ContainerUid) {
        self.0.with(|known| {
            let databases: Vec<c_int> = known.databases.keys().copied().collect();
            for db in databases {
                if known.row(uid, db).is_some_and(|row| row.standing == Standing::Gone) {
                    known.take_row(uid, db);
                }
            }
        });
    }

    /// The place of an evicted container was taken by another key: what it had is to be removed.
    pub fn give_up(&self, evicted: &Keyless<C>) {
        self.0.with(|known| {
            let Some(database) = known.databases.get_mut(&evicted.place.0) else { return };
            if let Some(row) = database.row_mut(evicted.uid)
                && row.standing == Standing::Evicted
            {
                row.standing = Standing::Gone;
                database.queue_remains(evicted.uid, true);
            }
        });
    }

    /// None is to be put back any more.
    pub fn give_up_evicted(&self) {
        self.take_evicted().iter().for_each(|evicted| self.give_up(evicted));
    }

    /// Takes the oldest container whose keys are to be removed; give it back with `put_back_remains`
    /// unless it is done, or is to wait (`let_wait`).
    pub fn take_remains(&self) -> Option<Keyless<C>> {
        self.0.with(|known| {
            known.databases.iter_mut().find_map(|(&db, database)| {
                while let Some(uid) = database.next_remains() {
                    let row = database.row(uid).filter(|row| row.standing == Standing::Gone);
                    if let Some(gone) = row.and_then(|row| keyless(uid, db, row)) {
                        return Some(gone);
                    }
                }
                None
            })
        })
    }

    /// Gives back a container whose keys are not all removed; behind the others when `later`.
    pub fn put_back_remains(&self, gone: &Keyless<C>, later: bool) {
        self.0.with(|known| {
            let Some(database) = known.databases.get_mut(&gone.place.0) else { return };
            // Its key may have been placed again meanwhile: then what it has has an owner.
            let Some(row) = database.row_mut(gone.uid).filter(|row| row.is_left_of(gone)) else {
                return;
            };
            (row.next_slot, row.since) = (gone.next_slot, gone.since);
            database.queue_remains(gone.uid, later);
        });
    }

    /// A container whose keys are not to be removed here: what is left of it waits for its like, nothing of one
    /// that has none.
    pub fn let_wait(&self, gone: &Keyless<C>) {
        self.0.with(|known| {
            let (uid, db) = (gone.uid, gone.place.0);
            if !known.row(uid, db).is_some_and(|row| row.is_left_of(gone)) {
                return;
            }
            let Some(mut row) = known.take_row(uid, db) else { return };
            if gone.container.with(|container| container.has_entries()) {
                row.standing = Standing::Awaited;
                known.put_row(uid, db, row);
            }
        });
    }
}

impl<C> Row<C> {
    fn is_left_of(&self, gone: &Keyless<C>) -> bool {
        self.standing == Standing::Gone && self.is_of(&gone.container)
    }
}

fn keyless<C>(uid: ContainerUid, db: c_int, row: &Row<C>) -> Option<Keyless<C>> {
    Some(Keyless {
        container: row.container()?,
        place: (db, row.name.clone()),
        expire_at_ms: row.expire_at_ms,
        next_slot: row.next_slot,
        since: row.since,
        uid,
    })
}
