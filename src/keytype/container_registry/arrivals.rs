//! Keys that arrived and look for their container, and containers of which only entries have arrived.
//!
//! Owns: the queue of arrivals, who waits for which uid, and their bounds. Main thread only.

use super::known::{
    AWAITED_MAX, Arrival, Container, Containers, Place, WAITING_MAX, shared, uid_of,
};
use super::places::{Row, Shared, Standing};
use llmcache_core::ids::ContainerUid;
use std::ffi::c_int;

impl<C: Container> Containers<C> {
    /// A key arrived and is to be looked at.
    pub fn arrived(&self, place: Place) {
        self.0.with(|known| known.arrivals.push_back(Arrival::Key(place)));
    }

    /// A key arrived and its container is not known: it waits for it.
    pub fn wait_for(&self, uid: ContainerUid, (db, name): Place) {
        self.0.with(|known| {
            let waiting = known.databases.entry(db).or_default().waiting.entry(uid).or_default();
            if waiting.names.len() < WAITING_MAX {
                waiting.names.push(name);
                waiting.is_fresh = true;
            } else {
                known.note_overflow();
            }
        });
    }

    /// What is known of entries whose container is not here and may come. Made by `make` where there is nothing;
    /// `None` where that makes none, or where too many are awaited: then the sweep finds the entry; and while what is
    /// left of a container is being removed, since an entry that comes meanwhile is not: see `is_going`.
    pub fn awaited(
        &self,
        uid: ContainerUid,
        db: c_int,
        make: impl FnOnce() -> Option<C>,
    ) -> Option<Shared<C>> {
        self.0.with(|known| {
            match known.row(uid, db) {
                Some(row) if row.is_going() => return None,
                // Nothing is left of the one that went.
                Some(row) if row.standing == Standing::Gone => drop(known.take_row(uid, db)),
                Some(row) => return row.container(),
                None => {}
            }
            if !known.may_await_another() {
                return None;
            }
            let container = shared(make()?);
            known.put_row(uid, db, Row::awaited(&container));
            Some(container)
        })
    }

    /// Whether the key of a container went and what it had is being removed.
    pub fn is_going(&self, uid: ContainerUid, db: c_int) -> bool {
        self.0.with(|known| known.row(uid, db).is_some_and(Row::is_going))
    }

    /// One of the keys of a container went. Nobody waits for one of which nothing is left.
    pub fn lost_one(&self, uid: ContainerUid, db: c_int) {
        self.0.with(|known| {
            let is_over = |row: &Row<C>| {
                row.standing == Standing::Awaited
                    && row.container().is_none_or(|own| !own.with(|own| own.has_entries()))
            };
            if known.row(uid, db).is_some_and(is_over) {
                known.take_row(uid, db);
            }
        });
    }

    /// A walk over all keys begins.
    pub fn walk_begins(&self) {
        self.0.with(|known| {
            known.has_just_overflowed = false;
            let waiting = known.databases.values_mut().flat_map(|at| at.waiting.values_mut());
            waiting.for_each(|waiting| waiting.is_fresh = false);
        });
    }

    /// Takes those that stand in a key since somebody asked, of which keys were here before: these are orphans no more.
    pub fn take_returned(&self) -> Vec<(c_int, ContainerUid)> {
        self.0.with(|known| std::mem::take(&mut known.returned))
    }

    /// A walk over all keys ended: those that it could meet wait for these containers only.
    pub fn wait_only_for(&self, is_seen: impl Fn(c_int, ContainerUid) -> bool) {
        self.0.with(|known| {
            for (&db, database) in &mut known.databases {
                database.waiting.retain(|&uid, keys| keys.is_fresh || is_seen(db, uid));
                if database.waiting.is_empty() {
                    database.waiting.shrink_to_fit();
                }
            }
            // The walk met the entries of those that could not be awaited before.
            known.overflowed &= known.has_just_overflowed || known.awaited >= AWAITED_MAX;
        });
    }

    /// The next key whose container arrived after it, or that is to be looked at.
    pub fn next_arrival(&self) -> Option<Place> {
        self.0.with(|known| {
            loop {
                match known.arrivals.front_mut()? {
                    Arrival::Key(_) => {
                        let Some(Arrival::Key(place)) = known.arrivals.pop_front() else {
                            return None;
                        };
                        if known.arrivals.is_empty() {
                            known.arrivals.shrink_to(64);
                        }
                        return Some(place);
                    }
                    Arrival::End { uid, db } => {
                        let (uid, db) = (*uid, *db);
                        known.arrivals.pop_front();
                        if let Some(own) = known.row(uid, db).and_then(Row::container) {
                            own.with(|own| own.set_filling(false));
                        }
                    }
                    Arrival::All { container, db, next } => {
                        let (db, from) = (*db, *next);
                        if let Some((behind, key)) = container.with(|all| all.next_key(from)) {
                            *next = behind;
                            return Some((db, key));
                        }
                        let end = Arrival::End { uid: uid_of(container), db };
                        known.arrivals[0] = end;
                    }
                }
            }
        })
    }
}
