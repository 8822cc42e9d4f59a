//! The key of one container: settings and index. The entries are keys of their own. Containers of answers,
//! of documents and of embeddings are one value under three published names, so that `SCAN … TYPE` and
//! `WRONGTYPE` tell them apart.
//!
//! RDB form: head section, number of slot blocks, one section a block, number of sections of the graphs
//! and these; where words are indexed, number of their sections and these. A head that does not decode refuses the value; a block that does not decode costs the
//! index only, which the sweep then fills again from the entries.
//!
//! `DUMP`, and so MIGRATE, writes the head alone, of whatever size the container is: rows come with the entries, which
//! are keys of their own and travel for themselves. For the same reason rows that a `RESTORE` brings along, as dumps
//! of earlier versions do, are passed over: what they speak of may not be here.

use super::cache_registry::{self, CACHES, SharedCache};
use super::container_registry::shared;
use crate::ffi::{
    Ctx, Digest, Key, MainCell, ModuleValue, RString, RdbReader, RdbWriter, TypeHandle,
    register_type,
};
use llmcache_core::cache::{Cache, Kind};
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::sync::Arc;

/// The internal command that makes a cache as it is: AOF and replicas.
pub const CREATE_COMMAND: &CStr = c"LLMCACHE._CREATE";

/// The internal command that changes a setting of a cache: AOF and replicas.
pub const CONFIG_COMMAND: &CStr = c"LLMCACHE._CONFIG";

/// The internal command that invalidates by tag, scope or all: AOF and replicas.
pub const EPOCH_COMMAND: &CStr = c"LLMCACHE._EPOCH";

/// The internal command that says what MAXERROR has learnt: AOF and replicas.
pub const AUDIT_COMMAND: &CStr = c"LLMCACHE._AUDIT";

/// The internal command that counts a label of MAXERROR: AOF and replicas.
pub const LABEL_COMMAND: &CStr = c"LLMCACHE._LABEL";

/// A kind of container as a data type.
trait Published: Send + Sync + 'static {
    const KIND: Kind;
    /// Nine characters, as the server demands.
    const TYPE_NAME: &'static str;

    fn handle() -> &'static TypeHandle;
}

macro_rules! published {
    ($marker:ident, $kind:ident, $name:literal) => {
        #[derive(Debug)]
        struct $marker;

        impl Published for $marker {
            const KIND: Kind = Kind::$kind;
            const TYPE_NAME: &'static str = $name;

            fn handle() -> &'static TypeHandle {
                static HANDLE: TypeHandle = TypeHandle::unregistered();
                &HANDLE
            }
        }
    };
}

published!(Answers, Answers, "llm-cache");
published!(Documents, Documents, "llm-docmt");
published!(Embeddings, Embeddings, "llm-embed");

/// Value of a container's key. The content is shared with the registry and, once the key is gone, with
/// the reaper that removes the entries.
#[derive(Debug)]
struct CacheValue<P>(SharedCache, PhantomData<P>);

/// Registers the types; the error names what the server refused.
pub fn register_cache_types(ctx: Ctx<'_>) -> Result<(), String> {
    let done = register_type::<CacheValue<Answers>>(ctx)
        && register_type::<CacheValue<Documents>>(ctx)
        && register_type::<CacheValue<Embeddings>>(ctx);
    done.then_some(()).ok_or_else(|| "a type of containers was refused".to_owned())
}

/// The container in an open key, of whatever kind.
pub fn cache_in(key: &Key<'_>) -> Option<SharedCache> {
    fn of<P: Published>(key: &Key<'_>) -> Option<SharedCache> {
        key.value::<CacheValue<P>>().map(|value| Arc::clone(&value.0))
    }
    of::<Answers>(key).or_else(|| of::<Documents>(key)).or_else(|| of::<Embeddings>(key))
}

/// Makes a container the value of a key opened for writing.
pub fn set_cache(key: &mut Key<'_>, cache: SharedCache) {
    match cache.with(|cache| cache.settings.kind) {
        Kind::Answers => key.set::<CacheValue<Answers>>(Box::new(CacheValue(cache, PhantomData))),
        Kind::Documents => {
            key.set::<CacheValue<Documents>>(Box::new(CacheValue(cache, PhantomData)))
        }
        Kind::Embeddings => {
            key.set::<CacheValue<Embeddings>>(Box::new(CacheValue(cache, PhantomData)))
        }
    }
}

impl<P: Published> ModuleValue for CacheValue<P> {
    type Kept = Box<Self>;

    const TYPE_NAME: &'static str = P::TYPE_NAME;
    const ENCODING: c_int = 1;

    fn handle() -> &'static TypeHandle {
        P::handle()
    }

    fn rdb_load(from: &mut RdbReader, encoding: c_int, db: c_int, key: &[u8]) -> Option<Box<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let mut cache = Cache::load_head(&from.bytes()?).ok()?;
        if cache.settings.kind != P::KIND {
            return None;
        }
        let comes_with_slot = || from.comes_with_slot(key);
        if !cache_registry::may_arrive(&CACHES, &cache, (db, key), comes_with_slot) {
            return None;
        }
        let is_whole = cache_registry::is_loading();
        let intact = load_index(from, &mut cache, is_whole)?;
        let shared = shared(cache);
        cache_registry::loaded(&shared, db, key);
        if !intact {
            cache_registry::fill_by_sweep(&shared);
        }
        Some(Box::new(Self(shared, PhantomData)))
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        self.0.with(|cache| {
            to.bytes(&cache.save_head());
            if !to.is_whole() {
                to.number(0);
                to.number(0);
                if cache.settings.words.is_some() {
                    to.number(0);
                }
                return;
            }
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
            if cache.settings.words.is_some() {
                to.number(cache.index.word_section_count() as u64);
                for section in cache.index.word_sections() {
                    to.bytes(&section);
                }
            }
        });
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let head = self.0.with(|cache| cache.save_head());
        Some((CREATE_COMMAND, vec![RString::new(key), RString::new(&head)]))
    }

    fn digest(&self, digest: &mut Digest) {
        // The index is a hint and may differ between servers; the entries have digests of their own.
        self.0.with(|cache| digest.add(&cache.shared_head()));
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
        cache_registry::unlinked(&self.0, db, key);
    }
}

/// Reads the index of a container; false where it is to be filled from the entries. `None` where the stream ended.
fn load_index(from: &mut RdbReader, cache: &mut Cache, is_whole: bool) -> Option<bool> {
    let blocks = from.number()?;
    let (mut intact, mut graph_intact) = (true, true);
    for _ in 0..blocks {
        let block = from.bytes()?;
        intact = intact && is_whole && cache.index.load_block(&block).is_ok();
    }
    for _ in 0..from.number()? {
        // A graph that does not check out is thrown away by the index, and built again.
        let section = from.bytes()?;
        graph_intact = graph_intact && intact && cache.index.load_graph(&section).is_ok();
    }
    let words_intact = load_words(from, cache, intact && is_whole)?;
    if !is_whole {
        return Some(true);
    }
    let kind = cache.settings.kind;
    let dim_agrees = cache
        .index
        .dim()
        .is_none_or(|dim| kind.is_searched() && cache.settings.code_dim() == Some(dim));
    if intact && dim_agrees {
        cache.index.finish_load();
        cache.bound_tags();
        if words_intact {
            cache.index.finish_load_words();
        } else {
            cache.index.forget_words();
        }
    } else {
        // A server that starts has nothing better than the entries.
        cache.index.clear();
    }
    Some(intact && dim_agrees)
}

/// Reads the words of a container that has any; false where they are to be read from the entries again.
fn load_words(from: &mut RdbReader, cache: &mut Cache, is_wanted: bool) -> Option<bool> {
    if cache.settings.words.is_none() {
        return Some(true);
    }
    let mut intact = true;
    for _ in 0..from.number()? {
        let section = from.bytes()?;
        intact = intact && is_wanted && cache.index.load_words(&section).is_ok();
    }
    Some(intact)
}
