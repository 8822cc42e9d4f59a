//! Counting uses of chunks in the server's LRU and LFU: none of a prefix has less than one that follows it, so that the
//! server evicts the last of a prefix first.
//!
//! Main thread only; long prefixes go on in slices.

use crate::ffi::{Access, Ctx, Key, RString};
use crate::keyspace::slices::{Pieces, run_detached};
use crate::keytype::ChunkValue;
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::kvchunk::{ChunkDigest, ChunkKey};
use std::collections::HashMap;

/// Followers of a stored chunk whose counters are looked at.
const FOLLOWERS_LOOKED_AT: usize = 64;

/// Counts a use of a chunk that was stored now and all before it in the server's LRU and LFU. Its own
/// counter is new, so that it takes those of its followers over first.
pub fn use_stored(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    let followers: Vec<ChunkKey> = namespace.with(|namespace| {
        let tree = &namespace.tree;
        let ids = tree.find(digest).into_iter().flat_map(|id| tree.followers(id));
        let ids = ids.take(FOLLOWERS_LOOKED_AT);
        ids.map(|id| namespace.chunk_key(&tree.node(id).digest)).collect()
    });
    let counter = |name: &ChunkKey| Key::open(ctx, &RString::new(name), Access::Unasked)?.lfu();
    let most = followers.iter().filter_map(counter).max().unwrap_or(0);
    use_from(ctx, namespace, digest, most);
}

/// Counts a use of a chunk and all before it in the server's LRU and LFU, from the last of a prefix to its first, so
/// that none has less than one that follows it. Of a long prefix that goes on in slices, for which nobody waits.
pub fn use_chunk(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    use_from(ctx, namespace, digest, 0);
}

/// The same of many chunks.
pub fn use_chunks(ctx: Ctx<'_>, namespace: &SharedNamespace, digests: Vec<ChunkDigest>) {
    let (namespace, walk) = (SharedNamespace::clone(namespace), UseWalk::default());
    run_detached(ctx, b"", Using { namespace, walk, rest: digests.into_iter() });
}

fn use_from(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest, least: u8) {
    let walk = UseWalk { ahead: Some((digest.clone(), least)), counted: HashMap::new() };
    let (namespace, rest) = (SharedNamespace::clone(namespace), Vec::new().into_iter());
    run_detached(ctx, b"", Using { namespace, walk, rest });
}

/// A use that is being counted.
struct Using {
    namespace: SharedNamespace,
    walk: UseWalk,
    rest: std::vec::IntoIter<ChunkDigest>,
}

impl Pieces for Using {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        if self.walk.step(ctx, &self.namespace) {
            return true;
        }
        let Some(digest) = self.rest.next() else { return false };
        self.walk.begin(digest);
        true
    }

    fn reply(&mut self, _: Ctx<'_>) {}
}

/// Counts uses of many chunks and all before them, a key at a time: what several have before them is counted once,
/// and raised where one that follows has more.
#[derive(Debug, Default)]
pub struct UseWalk {
    /// What is to be counted next, and what it must have at least.
    ahead: Option<(ChunkDigest, u8)>,
    /// The counters of those that were counted.
    counted: HashMap<ChunkDigest, u8>,
}

impl UseWalk {
    /// Begins with a chunk, where the last walk is over.
    pub fn begin(&mut self, digest: ChunkDigest) {
        if !self.counted.contains_key(&digest) {
            self.ahead = Some((digest, 0));
        }
    }

    /// Goes on by a key; false where there is nothing to go on with.
    pub fn step(&mut self, ctx: Ctx<'_>, namespace: &SharedNamespace) -> bool {
        let Some((digest, least)) = self.ahead.take() else { return false };
        let counted = self.counted.get(&digest).copied();
        if counted.is_some_and(|counter| counter >= least) {
            return true;
        }
        let access = if counted.is_some() { Access::Unasked } else { Access::Read };
        let (name, parent) = namespace.with(|namespace| {
            let tree = &namespace.tree;
            let parent = tree.find(&digest).and_then(|id| tree.ahead(id));
            let parent = parent.map(|id| tree.node(id).digest.clone());
            (namespace.chunk_key(&digest), parent)
        });
        let least = use_key(ctx, &name, access, least);
        self.counted.insert(digest, least);
        self.ahead = parent.map(|parent| (parent, least));
        true
    }
}

/// Opens the key of a chunk, and gives it at least this LFU counter; returns the one it has then.
fn use_key(ctx: Ctx<'_>, name: &ChunkKey, access: Access, least: u8) -> u8 {
    let Some(mut key) = Key::open(ctx, &RString::new(name), access) else { return least };
    if key.value::<ChunkValue>().is_none() {
        return least;
    }
    match key.lfu() {
        Some(counter) if counter < least => {
            key.hint_lfu(least);
            least
        }
        Some(counter) => counter,
        None => {
            key.hint_used_now();
            least
        }
    }
}

/// Gives a chunk the strongest hint there is against the server's own eviction.
pub fn hint_strongly(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    let name = namespace.with(|namespace| namespace.chunk_key(digest));
    if let Some(mut key) = Key::open(ctx, &RString::new(&name), Access::Unasked)
        && key.value::<ChunkValue>().is_some()
    {
        key.hint_strongly();
    }
}
