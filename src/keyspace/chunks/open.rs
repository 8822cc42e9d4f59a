//! Opening the keys of chunks: one, and those that are there with all before them.
//!
//! Main thread only.

use crate::ffi::{Access, Ctx, Key, KeyOf, RString, WritePermit};
use crate::keytype::namespace_registry::{self, SharedNamespace};
use crate::keytype::{ChunkValue, Whole};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, ChunkKey, NodeId, Reach};
use std::ops::Deref;

/// An opened chunk that belongs to the namespace asked and is within its deadline.
#[derive(Debug)]
pub struct OpenedChunk<'a> {
    key: KeyOf<'a, ChunkValue>,
    node: Option<NodeId>,
}

impl OpenedChunk<'_> {
    /// Its node in the tree, until the tree changes.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Tells the server's eviction that it is among the last to go.
    pub fn hint_strongly(&mut self) {
        self.key.hint_strongly();
    }
}

impl Deref for OpenedChunk<'_> {
    type Target = Whole;

    fn deref(&self) -> &Whole {
        self.key.whole().expect("opened chunks are whole: `ChunkOpener` looked")
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
    ChunkOpener::new(ctx, namespace).open(ctx, namespace, digest, access)
}

/// Opens chunks of one namespace one after the other. What is the same for all of them is asked once: it holds until
/// another command may run.
#[derive(Debug)]
pub struct ChunkOpener {
    /// What their keys begin with, and behind it the digest that was opened last.
    name: ChunkKey,
    prefix: usize,
    now: UnixMs,
}

impl ChunkOpener {
    /// For the chunks of this namespace.
    pub fn new(ctx: Ctx<'_>, namespace: &SharedNamespace) -> Self {
        let name = namespace.with(|namespace| ChunkKey::from_slice(namespace.prefix()));
        Self { prefix: name.len(), name, now: UnixMs(ctx.now_ms()) }
    }

    /// The time that deadlines are compared with.
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// Opens a chunk; see [`open_chunk`].
    pub fn open<'a>(
        &mut self,
        ctx: Ctx<'a>,
        namespace: &SharedNamespace,
        digest: &ChunkDigest,
        access: Access,
    ) -> Option<OpenedChunk<'a>> {
        self.name.truncate(self.prefix);
        digest.write_hex(&mut self.name);
        let opened = Key::open(ctx, &RString::new(&self.name), access).and_then(Key::into_typed);
        let whole = opened.as_ref().and_then(|key: &KeyOf<'_, ChunkValue>| key.whole());
        let Some(Whole { header, .. }) = whole else {
            if !ctx.state().is_replica() {
                namespace.with(|namespace| {
                    namespace.tree.remove(digest);
                    namespace_registry::note_work(namespace);
                });
            }
            return None;
        };
        let (is_good, node) = namespace.with(|namespace| {
            let node = namespace.tree.find(digest);
            let is_good = header.uid == namespace.uid()
                && header.fingerprint == *namespace.fingerprint()
                && header.digest == *digest
                && !header.deadline.is_past(self.now)
                && node.is_none_or(|id| !namespace.tree.node(id).damaged);
            (is_good, node)
        });
        opened.filter(|_| is_good).map(|key| OpenedChunk { key, node })
    }
}

/// The longest run of chunks that are there with all before them, found one by one.
#[derive(Debug)]
pub struct LeadingRun {
    length: usize,
    /// The chunk that came last.
    last: Option<ChunkDigest>,
    /// What is known of prefixes, and of the namespace; forgotten between slices.
    reach: Option<Reach>,
    opener: Option<ChunkOpener>,
}

impl LeadingRun {
    /// Before the first chunk.
    pub fn new() -> Self {
        Self { length: 0, last: None, reach: None, opener: None }
    }

    /// Chunks of the run so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The tree may change before the next chunk is opened.
    pub fn pause(&mut self) {
        (self.reach, self.opener) = (None, None);
    }

    /// The chunk that came last.
    pub fn last(&self) -> Option<&ChunkDigest> {
        self.last.as_ref()
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
        let opener = self.opener.get_or_insert_with(|| ChunkOpener::new(ctx, namespace));
        let opened = opener.open(ctx, namespace, digest, access)?;
        let reached = match &opened.header.parent {
            None => true,
            parent if *parent == self.last => true,
            Some(_) => {
                let reach = self.reach.get_or_insert_with(|| Reach::new(opener.now()));
                opened.node().is_some_and(|id| {
                    namespace.with(|namespace| reach.is_reachable(&namespace.tree, id))
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
    let mut opener = ChunkOpener::new(ctx, namespace);
    let open = |digest| opener.open(ctx, namespace, digest, Access::Probe);
    // All are opened first: the tree forgets those that are gone, and then changes no more.
    let mut opened: Vec<Option<OpenedChunk<'a>>> = digests.iter().map(open).collect();
    let mut reach = Reach::new(opener.now());
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
