//! Which containers of one kind live, under which names, and which keys look for theirs: what caches
//! with their entries and namespaces with their chunks have in common.
//!
//! Owns: the map from uid to container, containers whose keys are to be removed, those that the server
//! evicted and that are put back, keys that arrived before their container. All of it is derived: the
//! map is filled as keys are loaded, created, restored, renamed or moved, and an empty one is legal.
//! Nothing here opens keys. Main thread only.

use crate::ffi::MainCell;
use hashbrown::HashMap;
use llmcache_core::ids::ContainerUid;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Weak};

/// What stands in a key of its own and has other keys.
pub trait Container: Send + 'static {
    /// Identity of this life of it.
    fn uid(&self) -> ContainerUid;
    /// Takes on another identity, without the keys it had.
    fn become_other(&mut self, name: &[u8], uid: ContainerUid);
}

/// A container, shared between its key, the reaper and whoever works on it.
pub type Shared<C> = Arc<MainCell<C>>;

/// A key by database and name.
pub type Place = (c_int, Vec<u8>);

/// Keys that wait for one container, at most; later ones are found by the sweep.
const WAITING_MAX: usize = 1 << 20;
/// Containers known by name, at most; others cost an opened key.
const NAMED_MAX: usize = 4_096;

#[derive(Debug)]
struct Registered<C> {
    container: Weak<MainCell<C>>,
    place: Place,
    /// The key went, or is being renamed or moved; which of these shows when it is placed again.
    unlinked: bool,
    /// The key's deadline when it was last looked at, in Unix milliseconds; 0 for none.
    expire_at_ms: u64,
}

impl<C> Registered<C> {
    fn lives(&self) -> bool {
        !self.unlinked && self.container.strong_count() > 0
    }
}

/// A container without its key: what it had is to be removed, or its key is to be put back.
#[derive(Debug)]
pub struct Keyless<C> {
    /// The container as it was.
    pub container: Shared<C>,
    /// Where its key was; what it had is in the same database.
    pub place: Place,
    /// The deadline its key had, in Unix milliseconds; 0 for none.
    pub expire_at_ms: u64,
    /// Where the walk over what it had goes on.
    pub next_slot: u32,
    /// Since when its key is gone, in Unix milliseconds; 0 before it was first looked at.
    pub since_ms: u64,
}

impl<C> Keyless<C> {
    fn was_at(&self, db: c_int, key: &[u8]) -> bool {
        self.place.0 == db && self.place.1 == key
    }
}

#[derive(Debug)]
struct Known<C> {
    containers: HashMap<ContainerUid, Registered<C>>,
    remains: VecDeque<Keyless<C>>,
    /// Evicted by the server: they live on, what they have finds them, commands are answered from
    /// them, and their keys are put back as soon as the module may write.
    evicted: Vec<Keyless<C>>,
    /// Containers by the name of their key, so that a command need not open it. Holds only what is
    /// certain: emptied whenever a container's key goes, comes or gets a deadline.
    named: HashMap<Box<[u8]>, (c_int, Shared<C>)>,
    waiting: HashMap<ContainerUid, Vec<Place>>,
    arrivals: VecDeque<Place>,
}

impl<C> Default for Known<C> {
    fn default() -> Self {
        Self {
            containers: HashMap::new(),
            remains: VecDeque::new(),
            evicted: Vec::new(),
            named: HashMap::new(),
            waiting: HashMap::new(),
            arrivals: VecDeque::new(),
        }
    }
}

/// All containers of one kind.
#[derive(Debug)]
pub struct Containers<C>(LazyLock<MainCell<Known<C>>>);

impl<C: Container> Containers<C> {
    /// None yet.
    pub const fn new() -> Self {
        Self(LazyLock::new(|| MainCell::new(Known::default())))
    }

    /// The container in the key of this name, as far as that is known without opening the key.
    pub fn by_name(&self, db: c_int, name: &[u8]) -> Option<Shared<C>> {
        self.0.with(|known| {
            let (at, container) = known.named.get(name)?;
            (*at == db).then(|| Arc::clone(container))
        })
    }

    /// Notes that the key of this name holds a container and has no deadline.
    pub fn remember_name(&self, db: c_int, name: &[u8], container: &Shared<C>) {
        self.0.with(|known| {
            if known.named.len() >= NAMED_MAX {
                known.named.clear();
            }
            known.named.insert(name.into(), (db, Arc::clone(container)));
        });
    }

    /// Knows no container by the name of its key any more.
    pub fn forget_names(&self) {
        self.0.with(|known| known.named.clear());
    }

    /// The living container of this uid, if it is in this database: keys elsewhere are not its own.
    pub fn find(&self, uid: ContainerUid, db: c_int) -> Option<Shared<C>> {
        self.0.with(|known| {
            let found = known.containers.get(&uid).filter(|found| !found.unlinked)?;
            found.container.upgrade().filter(|_| found.place.0 == db)
        })
    }

    /// The same, even if its key is gone: what is to forget one of its keys.
    pub fn find_even_gone(&self, uid: ContainerUid, db: c_int) -> Option<Shared<C>> {
        self.0.with(|known| {
            let found = known.containers.get(&uid).filter(|found| found.place.0 == db)?;
            found.container.upgrade()
        })
    }

    /// The container of this uid wherever it is, with or without its key.
    pub fn any(&self, uid: ContainerUid) -> Option<Shared<C>> {
        self.0.with(|known| known.containers.get(&uid)?.container.upgrade())
    }

    /// The living container of this uid and where it is.
    pub fn placed(&self, uid: ContainerUid) -> Option<(Shared<C>, Place)> {
        self.0.with(|known| {
            let found = known.containers.get(&uid).filter(|found| !found.unlinked)?;
            Some((found.container.upgrade()?, found.place.clone()))
        })
    }

    /// Where the living container of this uid is.
    pub fn place_of(&self, uid: ContainerUid) -> Option<Place> {
        self.placed(uid).map(|(_, place)| place)
    }

    /// Every living container and where it is.
    pub fn all(&self) -> Vec<(Shared<C>, Place)> {
        self.0.with(|known| {
            let live = known.containers.values().filter(|found| !found.unlinked);
            live.filter_map(|found| Some((found.container.upgrade()?, found.place.clone())))
                .collect()
        })
    }

    /// How many live.
    pub fn count(&self) -> usize {
        self.0.with(|known| known.containers.values().filter(|found| !found.unlinked).count())
    }

    /// A container stands in a key: it was created, loaded, restored, renamed or moved there. A second
    /// one of a living uid gets another identity, derived from uid and place, so that primary and
    /// replica agree. Answers whether it stood in another database before.
    pub fn place(&self, container: &Shared<C>, place: Place) -> bool {
        let uid = uid_of(container);
        let taken = self.0.with(|known| {
            known.containers.get(&uid).is_some_and(|found| {
                found.lives() && !std::ptr::eq(found.container.as_ptr(), Arc::as_ptr(container))
            })
        });
        let uid = if taken { become_other(container, &place) } else { uid };
        self.0.with(|known| {
            let former = known.containers.get(&uid);
            let moved = former.is_some_and(|former| former.place.0 != place.0);
            let expire_at_ms = former.map_or(0, |former| former.expire_at_ms);
            let container = Arc::downgrade(container);
            let placed = Registered { container, place, unlinked: false, expire_at_ms };
            known.containers.insert(uid, placed);
            known.named.clear();
            known.remains.retain(|gone| uid_of(&gone.container) != uid);
            known.evicted.retain(|gone| uid_of(&gone.container) != uid);
            known.arrivals.extend(known.waiting.remove(&uid).unwrap_or_default());
            moved
        })
    }

    /// The key of a container is going, or is renamed or moved.
    pub fn unlinked(&self, container: &Shared<C>, db: c_int, key: &[u8]) {
        let uid = uid_of(container);
        self.0.with(|known| {
            known.named.clear();
            let Some(found) = known.containers.get_mut(&uid) else { return };
            if !std::ptr::eq(found.container.as_ptr(), Arc::as_ptr(container)) {
                return;
            }
            found.unlinked = true;
            known.remains.push_back(Keyless {
                container: Arc::clone(container),
                place: (db, key.to_vec()),
                expire_at_ms: found.expire_at_ms,
                next_slot: 0,
                since_ms: 0,
            });
        });
    }

    /// The server evicted a key. If it was a container's, that is kept to be put back: its size is that
    /// of its keys, which go by themselves, and making it anew would lose them all. Answers whether it
    /// was.
    pub fn evicted(&self, db: c_int, key: &[u8]) -> bool {
        self.0.with(|known| {
            let at = known.remains.iter().rposition(|gone| gone.was_at(db, key));
            let Some(gone) = at.and_then(|at| known.remains.remove(at)) else { return false };
            let Some(found) = known.containers.get_mut(&uid_of(&gone.container)) else {
                return false;
            };
            found.unlinked = false;
            known.evicted.push(gone);
            true
        })
    }

    /// The evicted container that stood in this key and was not put back yet.
    pub fn evicted_from(&self, db: c_int, key: &[u8]) -> Option<Shared<C>> {
        self.0.with(|known| {
            let found = known.evicted.iter().find(|gone| gone.was_at(db, key))?;
            Some(Arc::clone(&found.container))
        })
    }

    /// Takes the containers that are to be put back, for good: place each again, or give it up.
    pub fn take_evicted(&self) -> Vec<Keyless<C>> {
        self.0.with(|known| std::mem::take(&mut known.evicted))
    }

    /// The place of an evicted container was taken by another key: what it had is to be removed.
    pub fn give_up(&self, evicted: Keyless<C>) {
        self.0.with(|known| {
            if let Some(found) = known.containers.get_mut(&uid_of(&evicted.container)) {
                found.unlinked = true;
            }
            known.remains.push_back(evicted);
        });
    }

    /// The container of this uid whose key went a short while ago, if it is still at hand.
    pub fn remains_of(&self, uid: ContainerUid) -> Option<Shared<C>> {
        self.0.with(|known| {
            let found = known.remains.iter().find(|gone| uid_of(&gone.container) == uid)?;
            Some(Arc::clone(&found.container))
        })
    }

    /// Notes the deadline of a container's key.
    pub fn note_expiry(&self, container: &Shared<C>, expire_at_ms: u64) {
        self.0.with(|known| {
            if let Some(found) = known.containers.get_mut(&uid_of(container)) {
                found.expire_at_ms = expire_at_ms;
            }
            if expire_at_ms > 0 {
                known.named.clear();
            }
        });
    }

    /// A key arrived and is to be looked at.
    pub fn arrived(&self, place: Place) {
        self.0.with(|known| known.arrivals.push_back(place));
    }

    /// A key arrived and its container is not known: it waits for it.
    pub fn wait_for(&self, uid: ContainerUid, place: Place) {
        self.0.with(|known| {
            let waiting = known.waiting.entry(uid).or_default();
            if waiting.len() < WAITING_MAX {
                waiting.push(place);
            }
        });
    }

    /// Keys of this uid are gone: nobody waits any more.
    pub fn stop_waiting(&self, uid: ContainerUid) {
        self.0.with(|known| known.waiting.remove(&uid));
    }

    /// The next key whose container arrived after it, or that is to be looked at.
    pub fn next_arrival(&self) -> Option<Place> {
        self.0.with(|known| known.arrivals.pop_front())
    }

    /// Takes the oldest container whose keys are to be removed; give it back with `put_back_remains`
    /// unless it is done.
    pub fn take_remains(&self) -> Option<Keyless<C>> {
        self.0.with(|known| {
            known
                .containers
                .retain(|_, found| !found.unlinked || found.container.strong_count() > 0);
            known.remains.pop_front()
        })
    }

    /// Gives back a container whose keys are not all removed; behind the others when `later`.
    pub fn put_back_remains(&self, gone: Keyless<C>, later: bool) {
        self.0.with(|known| {
            // Its key may have been placed again meanwhile: then what it has has an owner.
            if known.containers.get(&uid_of(&gone.container)).is_some_and(Registered::lives) {
                return;
            }
            if later {
                known.remains.push_back(gone);
            } else {
                known.remains.push_front(gone);
            }
        });
    }

    /// A database, or all of them, lost all keys.
    pub fn flushed(&self, db: Option<c_int>) {
        let hit = |at: c_int| db.is_none_or(|db| db == at);
        self.0.with(|known| {
            known.named.clear();
            known.containers.retain(|_, found| !hit(found.place.0));
            known.remains.retain(|gone| !hit(gone.place.0));
            known.evicted.retain(|gone| !hit(gone.place.0));
            known.arrivals.retain(|place| !hit(place.0));
            for waiting in known.waiting.values_mut() {
                waiting.retain(|place| !hit(place.0));
            }
            known.waiting.retain(|_, waiting| !waiting.is_empty());
        });
    }

    /// Two databases changed places.
    pub fn swapped(&self, first: c_int, second: c_int) {
        let swap = |at: &mut c_int| swap_db(at, first, second);
        self.0.with(|known| {
            known.named.clear();
            known.containers.values_mut().for_each(|found| swap(&mut found.place.0));
            known.remains.iter_mut().for_each(|gone| swap(&mut gone.place.0));
            known.evicted.iter_mut().for_each(|gone| swap(&mut gone.place.0));
            known.arrivals.iter_mut().for_each(|place| swap(&mut place.0));
            known.waiting.values_mut().flatten().for_each(|place| swap(&mut place.0));
        });
    }
}

/// Gives a copy of a container an identity of its own, derived from where it stands, so that every
/// server that sees the same keys derives the same.
pub fn become_other<C: Container>(container: &Shared<C>, (db, name): &Place) -> ContainerUid {
    container.with(|container| {
        let mut hash = Sha256::new();
        hash.update(container.uid().0.to_le_bytes());
        hash.update(db.to_le_bytes());
        hash.update(name);
        let mut word = [0; 8];
        word.copy_from_slice(&hash.finalize()[..8]);
        let uid = ContainerUid(u64::from_le_bytes(word));
        container.become_other(name, uid);
        uid
    })
}

/// What a database is called once `first` and `second` changed places.
pub(super) fn swap_db(at: &mut c_int, first: c_int, second: c_int) {
    if *at == first {
        *at = second;
    } else if *at == second {
        *at = first;
    }
}

fn uid_of<C: Container>(container: &Shared<C>) -> ContainerUid {
    container.with(|container| container.uid())
}
