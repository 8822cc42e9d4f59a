//! Which namespaces live, and which stubs of their chunks are to be removed.
//!
//! Owns: the registry of namespaces, and the stubs. All of it is derived. Nothing here opens keys. Main
//! thread only.

use super::container_registry::{self, Container, Containers, Place, Shared};
use super::{NamespaceValue, cache_registry};
use crate::ffi::MainCell;
use llmcache_core::ids::ContainerUid;
use llmcache_core::kvchunk::Namespace;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::LazyLock;

/// A namespace, shared between its key, the reaper and whoever works on it.
pub type SharedNamespace = Shared<Namespace>;

/// A namespace without its key.
pub type KeylessNamespace = container_registry::Keyless<Namespace>;

/// All namespaces, and chunks that look for theirs.
pub static NAMESPACES: Containers<Namespace> = Containers::new();

static STUBS: LazyLock<MainCell<VecDeque<Place>>> =
    LazyLock::new(|| MainCell::new(VecDeque::new()));

impl Container for Namespace {
    fn uid(&self) -> ContainerUid {
        self.uid()
    }

    fn become_other(&mut self, name: &[u8], uid: ContainerUid) {
        self.become_other(name, uid);
    }
}

/// A namespace was read from RDB; under RESTORE its event places it.
pub fn loaded(value: &NamespaceValue, db: c_int, key: &[u8]) {
    if cache_registry::is_loading() {
        NAMESPACES.place(&value.0, (db, key.to_vec()));
    }
}

/// A stub stands in a key and is to be removed.
pub fn note_stub(place: Place) {
    STUBS.with(|stubs| stubs.push_back(place));
}

/// The next such stub.
pub fn next_stub() -> Option<Place> {
    STUBS.with(VecDeque::pop_front)
}

/// A database, or all of them, lost all keys.
pub fn flushed(db: Option<c_int>) {
    NAMESPACES.flushed(db);
    STUBS.with(|stubs| stubs.retain(|place| db.is_some_and(|db| db != place.0)));
}

/// Two databases changed places.
pub fn swapped(first: c_int, second: c_int) {
    NAMESPACES.swapped(first, second);
    STUBS.with(|stubs| {
        stubs.iter_mut().for_each(|place| container_registry::swap_db(&mut place.0, first, second));
    });
}
