//! The key of one cache: settings and index. The entries are keys of their own.
//!
//! RDB form: head section, number of slot blocks, one section a block, number of sections of the graphs
//! and these. A head that does not decode refuses the value; a block that does not decode costs the
//! index only, which the sweep then fills again from the entries.

use super::registry::{self, CACHES};
use crate::ffi::{Digest, MainCell, ModuleValue, RString, RdbReader, RdbWriter, TypeHandle};
use llmcache_core::cache::Cache;
use std::ffi::{CStr, c_int};
use std::sync::Arc;

/// The internal command that makes a cache as it is: AOF and replicas.
pub const CREATE_COMMAND: &CStr = c"LLMCACHE._CREATE";

/// The internal command that changes a setting of a cache: AOF and replicas.
pub const CONFIG_COMMAND: &CStr = c"LLMCACHE._CONFIG";

/// The internal command that invalidates by tag, scope or all: AOF and replicas.
pub const EPOCH_COMMAND: &CStr = c"LLMCACHE._EPOCH";

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// Value of a cache key. The content is shared with the registry and, once the key is gone, with the
/// reaper that removes the entries.
#[derive(Debug, Clone)]
pub struct CacheValue(pub Arc<MainCell<Cache>>);

impl CacheValue {
    /// Wraps a new cache.
    pub fn new(cache: Cache) -> Self {
        Self(Arc::new(MainCell::new(cache)))
    }
}

impl ModuleValue for CacheValue {
    const TYPE_NAME: &'static str = "llm-cache";
    const ENCODING: c_int = 1;

    fn handle() -> &'static TypeHandle {
        &HANDLE
    }

    fn rdb_load(from: &mut RdbReader, encoding: c_int, db: c_int, key: &[u8]) -> Option<Self> {
        if encoding != Self::ENCODING {
            return None;
        }
        let mut cache = Cache::load_head(&from.bytes()?).ok()?;
        let blocks = from.number()?;
        let (mut intact, mut graph_intact) = (true, true);
        for _ in 0..blocks {
            let block = from.bytes()?;
            intact = intact && cache.index.load_block(&block).is_ok();
        }
        for _ in 0..from.number()? {
            // A graph that does not check out is thrown away by the index, and built again.
            let section = from.bytes()?;
            graph_intact = graph_intact && intact && cache.index.load_graph(&section).is_ok();
        }
        let dim_agrees = cache.index.dim().is_none_or(|dim| cache.settings.dim == Some(dim));
        if intact && dim_agrees {
            cache.index.finish_load();
            cache.bound_tags();
        } else if registry::is_loading() {
            cache.index.clear();
        } else {
            // RESTORE can say no; a server that starts has nothing better than the entries.
            return None;
        }
        let value = Self::new(cache);
        registry::loaded(&value, db, key);
        Some(value)
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        self.0.with(|cache| {
            to.bytes(&cache.save_head());
            let blocks: Vec<_> = cache.index.used_blocks().collect();
            to.number(blocks.len() as u64);
            for block in blocks {
                to.bytes(&cache.index.save_block(block));
            }
            let sections = cache.index.graph_sections();
            to.number(sections.len() as u64);
            for section in sections {
                to.bytes(&cache.index.save_graph(section));
            }
        });
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let head = self.0.with(|cache| cache.save_head());
        Some((CREATE_COMMAND, vec![RString::new(key), RString::new(&head)]))
    }

    fn digest(&self, digest: &mut Digest) {
        // The index is a hint and may differ between servers; the entries have digests of their own.
        self.0.with(|cache| digest.add(&cache.save_head()));
        digest.end();
    }

    fn mem_usage(&self) -> usize {
        let own = size_of::<Self>() + size_of::<MainCell<Cache>>() + 2 * size_of::<usize>();
        self.0.with(|cache| own + cache.heap_bytes())
    }

    fn free_effort(&self) -> usize {
        self.0.with(|cache| 1 + cache.index.slot_end() as usize)
    }

    fn unlinked(&self, db: c_int, key: &[u8]) {
        CACHES.unlinked(&self.0, db, key);
    }
}
