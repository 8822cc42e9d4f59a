//! Opening the keys of chunks: one, and those that are there with all before them.
//!
//! Main thread only.

use crate::ffi::{Access, Ctx, Key, KeyOf, RString, WritePermit};
use crate::keytype::namespace_registry::{self, SharedNamespace};
use crate::keytype::{ChunkValue, Whole};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, Reach};
use std::ops::Deref;

/// An opened chunk that belongs to the namespace asked and is within its deadline.
#[derive(Debug)]
pub struct OpenedChunk<'a>(KeyOf<'a, ChunkValue>);

impl OpenedChunk<'_> {
    /// Tells the server's eviction that it is among the last to go.
    pub fn hint_strongly(&mut self) {
        self.0.hint_strongly();
    }
}

impl Deref for OpenedChunk<'_> {
    type Target = Whole;

    fn deref(&self) -> &Whole {
        self.0.whole().expect("opened chunks are whole: `open_chunk` looked")
    }
}

/// Opens a chunk; `None` when it is not there, is another namespace's, is damaged or past its
/// deadline. What the tree knows and the keyspace lacks is forgotten, on a primary.
pub fn open_chunk<'a>(
    ctx: Ctx<'a>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    access: Access,
) -> Option<OpenedChunk<'a>> {
    let key = namespace.with(|namespace| namespace.chunk_key(digest));
    let opened = Key::open(ctx, &RString::new(&key), access).and_then(Key::into_typed);
    let Some(opened) = opened.map(OpenedChunk).filter(|opened| opened.0.whole().is_some()) else {
        if !ctx.state().is_replica() {
            namespace.with(|namespace| {
                namespace.tree.remove(digest);
                namespace_registry::note_work(namespace);
            });
        }
        return None;
    };
    let now = UnixMs(ctx.now_ms());
    let header = &opened.header;
    let good = namespace.with(|namespace| {
        let node = namespace.tree.find(digest).map(|id| namespace.tree.node(id));
        header.uid == namespace.uid()
            && header.fingerprint == *namespace.fingerprint()
            && header.digest == *digest
            && !header.deadline.is_past(now)
            && node.is_none_or(|node| !node.damaged)
    });
    good.then_some(opened)
}

/// The longest run of chunks that are there with all before them, found one by one.
#[derive(Debug)]
pub struct LeadingRun {
    length: usize,
    /// The chunk that came last.
    last: Option<ChunkDigest>,
    /// What is known of prefixes; forgotten between slices.
    reach: Option<Reach>,
}

impl LeadingRun {
    /// Before the first chunk.
    pub fn new() -> Self {
        Self { length: 0, last: None, reach: None }
    }

    /// Chunks of the run so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The tree may change before the next chunk is opened.
    pub fn pause(&mut self) {
        self.reach = None;
    }

    /// The chunk that came last is none of the run.
    pub fn step_back(&mut self) {
        self.length = self.length.saturating_sub(1);
    }

    /// Opens the next chunk; `None` where the run ends before it, also because `accept` says so.
    pub fn next<'a>(
        &mut self,
        ctx: Ctx<'a>,
        namespace: &SharedNamespace,
        digest: &ChunkDigest,
        access: Access,
        accept: impl Fn(&ChunkHeader) -> bool,
    ) -> Option<OpenedChunk<'a>> {
        let opened = open_chunk(ctx, namespace, digest, access)?;
        let reached = match &opened.header.parent {
            None => true,
            parent if *parent == self.last => true,
            Some(_) => {
                let reach = self.reach.get_or_insert_with(|| Reach::new(UnixMs(ctx.now_ms())));
                namespace.with(|namespace| {
                    let tree = &namespace.tree;
                    tree.find(digest).is_some_and(|id| reach.is_reachable(tree, id))
                })
            }
        };
        if !reached || !accept(&opened.header) {
            return None;
        }
        self.last = Some(digest.clone());
        self.length += 1;
        Some(opened)
    }
}

/// Opens those of `digests` that are there with all before them.
pub fn open_reachable<'a>(
    ctx: Ctx<'a>,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
) -> Vec<Option<OpenedChunk<'a>>> {
    let open = |digest| open_chunk(ctx, namespace, digest, Access::Probe);
    // All are opened first: the tree forgets those that are gone, and then changes no more.
    let mut opened: Vec<Option<OpenedChunk<'a>>> = digests.iter().map(open).collect();
    let mut reach = Reach::new(UnixMs(ctx.now_ms()));
    for (chunk, digest) in opened.iter_mut().zip(digests) {
        let is_first = |chunk: &OpenedChunk<'_>| chunk.header.parent.is_none();
        let reached = chunk.as_ref().is_some_and(is_first)
            || namespace.with(|namespace| {
                let tree = &namespace.tree;
                tree.find(digest).is_some_and(|id| reach.is_reachable(tree, id))
            });
        if !reached {
            *chunk = None;
        }
    }
    opened
}

/// Whether the tree knows a chunk and everything before it.
pub fn is_reachable(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) -> bool {
    let now = UnixMs(ctx.now_ms());
    namespace.with(|namespace| {
        namespace.tree.find(digest).is_some_and(|id| namespace.tree.is_reachable(id, now))
    })
}

/// Opens a chunk's key for writing if there is a chunk in it.
pub(super) fn open_existing<'a>(ctx: WritePermit<'a>, name: &RString) -> Option<Key<'a>> {
    let key = Key::open_to_write(ctx, name);
    key.value::<ChunkValue>().is_some().then_some(key)
}
