//! The key of one namespace of KV-cache chunks: settings. The chunks are keys of their own, and the
//! prefix tree is rebuilt from them; nothing of it is saved.

use super::cache_registry;
use super::container_registry::shared;
use super::namespace_registry::{self, NAMESPACES};
use crate::ffi::{Digest, MainCell, ModuleValue, RString, RdbReader, RdbWriter, TypeHandle};
use llmcache_core::kvchunk::Namespace;
use std::ffi::{CStr, c_int};
use std::sync::Arc;

/// The internal command that makes a namespace as it is: AOF and replicas.
pub const NAMESPACE_COMMAND: &CStr = c"KVCHUNK._CREATE";

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// Value of a namespace key; the content is shared with the registry and the reaper.
#[derive(Debug, Clone)]
pub struct NamespaceValue(pub Arc<MainCell<Namespace>>);

impl NamespaceValue {
    /// Wraps a new namespace.
    pub fn new(namespace: Namespace) -> Self {
        Self(shared(namespace))
    }
}

impl ModuleValue for NamespaceValue {
    type Kept = Box<Self>;

    const TYPE_NAME: &'static str = "llm-kvnsp";
    const ENCODING: c_int = 1;

    fn handle() -> &'static TypeHandle {
        &HANDLE
    }

    fn rdb_load(from: &mut RdbReader, encoding: c_int, db: c_int, key: &[u8]) -> Option<Box<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let namespace = Namespace::load_head(&from.bytes()?).ok()?;
        let comes_with_slot = || from.comes_with_slot(key);
        if !cache_registry::may_arrive(&NAMESPACES, &namespace, (db, key), comes_with_slot) {
            return None;
        }
        let value = Self::new(namespace);
        namespace_registry::loaded(&value.0, db, key);
        Some(Box::new(value))
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        self.0.with(|namespace| to.bytes(&namespace.save_head()));
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let head = self.0.with(|namespace| namespace.save_head());
        Some((NAMESPACE_COMMAND, vec![RString::new(key), RString::new(&head)]))
    }

    fn digest(&self, digest: &mut Digest) {
        // The tree is a hint; the chunks have digests of their own.
        self.0.with(|namespace| digest.add(&namespace.save_head()));
        digest.end();
    }

    fn mem_usage(&self) -> usize {
        let own = size_of::<Self>() + size_of::<MainCell<Namespace>>() + 2 * size_of::<usize>();
        self.0.with(|namespace| own + namespace.heap_bytes())
    }

    fn free_effort(&self) -> usize {
        self.0.with(|namespace| 1 + namespace.tree.chunks() as usize)
    }

    fn unlinked(&self, db: c_int, key: &[u8]) {
        NAMESPACES.unlinked(&self.0, db, key);
    }
}
