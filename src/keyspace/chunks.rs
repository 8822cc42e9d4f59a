//! Opening, storing and removing the keys of KV-cache chunks, and bringing them into the tree of their
//! namespace.
//!
//! Only leaves of the prefix tree carry a deadline of their own in Redis: what the server may expire
//! or, under `volatile-*`, evict is then never in the middle of a prefix. The deadline that counts is
//! in the header.

use super::attach::key_frame_bytes;
use super::caches::unlink_key;
use super::slices::{Pieces, run_detached};
use crate::ffi::{Access, Ctx, Key, KeyOf, RString, WritePermit};
use crate::keytype::namespace_registry::{self, NAMESPACES, SharedNamespace};
use crate::keytype::{CHUNK_COMMAND, ChunkValue, Whole, put_args};
use llmcache_core::error::Error;
use llmcache_core::ids::{ContainerUid, MonotonicMs, UnixMs};
use llmcache_core::kvchunk::{
    ChunkDigest, ChunkHeader, ChunkKey, Durable, Namespace, NewNode, NodeId, Reach, Refused,
};
use std::collections::HashMap;
use std::ffi::c_int;
use std::ops::Deref;

/// An opened chunk that belongs to the namespace asked and is within its deadline.
#[derive(Debug)]
pub struct OpenedChunk<'a>(KeyOf<'a, ChunkValue>);

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

/// A chunk on its way into its key.
#[derive(Debug)]
pub struct NewChunk {
    /// Its key.
    pub key: ChunkKey,
    /// It.
    pub whole: Whole,
    /// Where the primary said so: the deadline of the key itself.
    pub key_expire_at: Option<UnixMs>,
    /// Whether it is known that the chunk may follow the one before it.
    pub fits: bool,
    /// The chunk it comes behind in prompts, where it is stored for itself.
    pub ahead: Option<ChunkDigest>,
}

/// Memory a chunk's key takes.
pub fn chunk_bytes(key: &[u8], whole: &Whole) -> u64 {
    (key_frame_bytes(key) + whole.memory_bytes()) as u64
}

/// Takes a chunk into the tree, which was asked already where it `fits`. One of another fingerprint than the namespace's is known as damaged: a
/// miss, removed in the next round.
fn insert_node(
    namespace: &mut Namespace,
    key: &[u8],
    whole: &Whole,
    fits: bool,
    ahead: Option<&ChunkDigest>,
) -> std::result::Result<NodeId, Refused> {
    let header = &whole.header;
    let new = NewNode {
        digest: &header.digest,
        parent: header.parent.as_ref(),
        content: header.content,
        position: header.position,
        bytes: chunk_bytes(key, whole),
        payload_bytes: header.payload_bytes,
        expire_at: header.deadline,
        prio: header.prio,
        pinned: header.pinned,
    };
    let tree = &mut namespace.tree;
    let id = if fits { tree.insert_behind(&new, ahead) } else { tree.insert(&new)? };
    if header.fingerprint != *namespace.fingerprint() {
        namespace.tree.set_damaged(id);
    }
    namespace_registry::note_work(namespace);
    Ok(id)
}

/// Stores a chunk: key, tree, deadlines of those before it, AOF and replicas, keyspace event. Eviction
/// hints are the command's, by `use_stored`, once for all it stores. What the key held before left the tree by the removal hook.
pub fn put_chunk(ctx: WritePermit<'_>, namespace: Option<&SharedNamespace>, new: NewChunk) {
    let NewChunk { key: name, whole, key_expire_at, fits, ahead } = new;
    let (durable, own) = (whole.durable, whole.header.deadline);
    let uid = whole.header.uid;
    let name_string = RString::new(&name);
    let mut key = Key::open_to_write(ctx, &name_string);
    key.set::<ChunkValue>(Box::new(ChunkValue::Whole(Box::new(whole))));
    let mut node = None;
    if let Some(whole) = key.value::<ChunkValue>().and_then(ChunkValue::whole)
        && let Some(namespace) = namespace
    {
        node = namespace
            .with(|namespace| insert_node(namespace, &name, whole, fits, ahead.as_ref()).ok());
    }
    let is_leaf = |namespace: &SharedNamespace, id: NodeId| {
        namespace.with(|namespace| namespace.tree.node(id).is_leaf())
    };
    let expire_at = key_expire_at.unwrap_or_else(|| match (namespace, node) {
        (Some(namespace), Some(id)) if !is_leaf(namespace, id) => UnixMs::NEVER,
        _ => own,
    });
    key.set_expire_at_ms(expire_at.0);
    if durable == Durable::Full
        && let Some(whole) = key.value::<ChunkValue>().and_then(ChunkValue::whole)
    {
        ctx.replicate_strings(CHUNK_COMMAND, &put_args(&name, whole, expire_at.0));
    }
    drop(key);
    match (namespace, node) {
        (Some(namespace), Some(id)) => settle_ancestors(ctx, namespace, id),
        (None, _) => NAMESPACES.wait_for(uid, (ctx.db(), name.to_vec())),
        (Some(_), None) => {}
    }
    ctx.notify_module(c"kvchunk.put", &name_string);
}

/// What a new chunk does to those before it: deadlines not before its own, no deadline of the key of
/// what is not a leaf any more.
fn settle_ancestors(ctx: WritePermit<'_>, namespace: &SharedNamespace, id: NodeId) {
    let (raised, parent) = namespace.with(|namespace| {
        let raised = namespace.tree.raise_ancestors(id);
        let key = |id: &NodeId| namespace.chunk_key(&namespace.tree.node(*id).digest);
        let at = namespace.tree.node(id).expire_at;
        let raised: Vec<_> = raised.iter().map(|id| (key(id), at)).collect();
        (raised, namespace.tree.parent(id).map(|id| key(&id)))
    });
    for (name, at) in raised {
        let name_string = RString::new(&name);
        let Some(mut key) = open_existing(ctx, &name_string) else { continue };
        if let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut) {
            header.deadline = at;
        }
    }
    // Replicas and the AOF are told which keys lost their deadline.
    if !ctx.state().must_obey()
        && let Some(name) = parent
    {
        let name_string = RString::new(&name);
        if let Some(mut key) = open_existing(ctx, &name_string)
            && key.expire_at_ms() > 0
        {
            key.set_expire_at_ms(0);
            drop(key);
            ctx.replicate(c"PERSIST", &[&name]);
            ctx.notify_generic(c"persist", &name_string);
        }
    }
}

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
    let counter = |name: &ChunkKey| Key::open(ctx, &RString::new(name), Access::Probe)?.lfu();
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
        let access = if counted.is_some() { Access::Probe } else { Access::Read };
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

/// Opens the key of a chunk, and gives it at least this LFU counter; answers the one it has then.
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

/// Opens a chunk's key for writing if there is a chunk in it.
pub(super) fn open_existing<'a>(ctx: WritePermit<'a>, name: &RString) -> Option<Key<'a>> {
    let key = Key::open_to_write(ctx, name);
    key.value::<ChunkValue>().is_some().then_some(key)
}

/// Gives a chunk the strongest hint there is against the server's own eviction.
pub fn hint_strongly(ctx: Ctx<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    let name = namespace.with(|namespace| namespace.chunk_key(digest));
    if let Some(mut key) = Key::open(ctx, &RString::new(&name), Access::Probe)
        && key.value::<ChunkValue>().is_some()
    {
        key.hint_lfu(u8::MAX);
        key.hint_used_now();
    }
}

/// Pins a chunk or lets it go, in its key and in the tree; false when it was so already or is not
/// there.
pub fn pin_chunk(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    pinned: bool,
) -> bool {
    if open_chunk(*ctx, namespace, digest, Access::Probe).is_none() {
        return false;
    }
    let name = RString::new(&namespace.with(|namespace| namespace.chunk_key(digest)));
    let Some(mut key) = open_existing(ctx, &name) else { return false };
    let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut) else {
        return false;
    };
    if header.pinned == pinned {
        return false;
    }
    header.pinned = pinned;
    if pinned {
        key.hint_lfu(u8::MAX);
        key.hint_used_now();
    }
    drop(key);
    namespace.with(|namespace| {
        if let Some(id) = namespace.tree.find(digest) {
            namespace.tree.set_pinned(id, pinned);
        }
    });
    true
}

/// Removes the chunk in a key if it belongs to `uid`, or if only a stub is in it, and has AOF and
/// replicas remove it; false when there is neither.
pub fn remove_chunk(ctx: WritePermit<'_>, name: &[u8], uid: ContainerUid) -> bool {
    let name_string = RString::new(name);
    let Some(key) = open_existing(ctx, &name_string) else { return false };
    let whole = key.value::<ChunkValue>().and_then(ChunkValue::whole);
    if whole.is_some_and(|whole| whole.header.uid != uid) {
        return false;
    }
    unlink_key(ctx, key, &name_string);
    true
}

/// Removes a stub.
pub fn remove_stub(ctx: WritePermit<'_>, name: &[u8]) {
    let name_string = RString::new(name);
    if let Some(key) = open_existing(ctx, &name_string)
        && key.value::<ChunkValue>().is_some_and(|value| value.whole().is_none())
    {
        unlink_key(ctx, key, &name_string);
    }
}

/// Removes a chunk of a namespace; what the tree knew of it is gone in any case.
pub fn remove_node(ctx: WritePermit<'_>, namespace: &SharedNamespace, id: NodeId) -> bool {
    let (digest, name, uid) = namespace.with(|namespace| {
        let digest = namespace.tree.node(id).digest.clone();
        let name = namespace.chunk_key(&digest);
        (digest, name, namespace.uid())
    });
    let removed = remove_chunk(ctx, &name, uid);
    namespace.with(|namespace| {
        namespace.tree.remove(&digest);
        namespace_registry::note_work(namespace);
    });
    removed
}

/// What is past its deadline among a chunk and those before it, to be removed so that what is stored behind
/// them does not bring them back; last to first.
pub fn due_before(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
) -> Vec<ChunkDigest> {
    let now = UnixMs(ctx.now_ms());
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let path = tree
            .find(digest)
            .into_iter()
            .flat_map(|id| std::iter::once(id).chain(tree.ancestors(id)));
        // None ends before one that follows it.
        let due = path.take_while(|&id| tree.node(id).expire_at.is_past(now));
        due.map(|id| tree.node(id).digest.clone()).collect()
    })
}

/// Removes a chunk that `due_before` named, if it is due still.
pub fn remove_due(ctx: WritePermit<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    let now = UnixMs(ctx.now_ms());
    let due = namespace.with(|namespace| {
        let id = namespace.tree.find(digest)?;
        namespace.tree.node(id).expire_at.is_past(now).then_some(id)
    });
    if let Some(id) = due {
        remove_node(ctx, namespace, id);
    }
}

/// A chunk and those before it that end before `least`, last to first.
pub fn ending_before(
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    least: UnixMs,
) -> Vec<ChunkDigest> {
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let short = tree.find(digest).map(|id| tree.ending_before(id, least));
        short.into_iter().flatten().map(|id| tree.node(id).digest.clone()).collect()
    })
}

/// Raises the deadline of a chunk, in its key and in the tree. Of a prefix the first is raised first: none ends before
/// one that follows it.
pub fn raise_deadline(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    at: UnixMs,
) {
    let name = namespace.with(|namespace| {
        let id = namespace.tree.find(digest)?;
        namespace.tree.raise(id, at);
        Some(namespace.chunk_key(digest))
    });
    let Some(name) = name else { return };
    let name = RString::new(&name);
    let Some(mut key) = open_existing(ctx, &name) else { return };
    if let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut)
        && !at_least(header.deadline, at)
    {
        header.deadline = at;
    }
}

/// Whether a deadline is not before another.
fn at_least(deadline: UnixMs, least: UnixMs) -> bool {
    deadline == UnixMs::NEVER || (least != UnixMs::NEVER && deadline >= least)
}

/// Evicts until `need` more bytes fit into `room`, leaves first, never what `keep` names; false, and
/// nothing is evicted, when that cannot be.
pub fn make_room(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> bool {
    let Some(plan) = plan_room(namespace, room, need, keep) else { return false };
    evict(ctx, namespace, plan);
    true
}

/// What has to go so that `need` more bytes fit into `room`; see `make_room`.
fn plan_room(
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> Option<Vec<NodeId>> {
    namespace.with(|namespace| {
        let Namespace { tree, leases, .. } = namespace;
        let over = (tree.chunk_bytes() + need).saturating_sub(room);
        if over == 0 {
            return Some(Vec::new());
        }
        let kept: Vec<NodeId> = keep.iter().filter_map(|digest| tree.find(digest)).collect();
        leases.grant(tree, KEEPING, &kept, MonotonicMs::NEVER);
        let plan = tree.plan_eviction(over, None);
        leases.release(tree, KEEPING);
        plan
    })
}

/// The same for who evicts them one by one, the first to go last: the tree may change in between.
pub fn doomed_for(
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> Vec<ChunkDigest> {
    let plan = plan_room(namespace, room, need, keep).unwrap_or_default();
    let name = |id: &NodeId| namespace.with(|n| n.tree.node(*id).digest.clone());
    plan.iter().rev().map(name).collect()
}

/// Evicts one of those, unless something follows or keeps it by now.
pub fn evict_one(ctx: WritePermit<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    if let Some(id) = namespace.with(|namespace| namespace.tree.evictable(digest)) {
        evict(ctx, namespace, vec![id]);
    }
}

/// Evicts until the chunks take no more than `room`, or until what is left is pinned, leased or before
/// such; at most `most` chunks. Answers how many went.
pub fn shrink_to(ctx: WritePermit<'_>, namespace: &SharedNamespace, room: u64, most: usize) -> u64 {
    let mut plan = namespace.with(|namespace| {
        let over = namespace.tree.chunk_bytes().saturating_sub(room);
        if over == 0 { Vec::new() } else { namespace.tree.plan_up_to(over, None).0 }
    });
    plan.truncate(most);
    evict(ctx, namespace, plan)
}

fn evict(ctx: WritePermit<'_>, namespace: &SharedNamespace, plan: Vec<NodeId>) -> u64 {
    let evicted = plan.into_iter().filter(|&id| remove_node(ctx, namespace, id)).count() as u64;
    namespace.with(|namespace| namespace.note_evicted(evicted));
    evicted
}

/// Names the lease that lasts while room is made; others are drawn above it.
const KEEPING: u64 = 0;

/// What became of a chunk that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSeen {
    /// The tree knows it, or has taken it in.
    Known,
    /// Its namespace does not live here.
    NoNamespace(ContainerUid),
    /// Only a stub is left of it.
    Stub,
    /// It stands under a name that is not its own, or does not fit: left alone.
    Foreign,
}

/// Looks at an opened chunk and takes it into the tree of its namespace.
pub fn attach_chunk(db: c_int, name: &[u8], value: &ChunkValue) -> ChunkSeen {
    let Some(whole) = value.whole() else { return ChunkSeen::Stub };
    let header = &whole.header;
    let Some(namespace) = NAMESPACES.find(header.uid, db) else {
        return ChunkSeen::NoNamespace(header.uid);
    };
    namespace.with(|namespace| {
        if *name != *namespace.chunk_key(&header.digest) {
            return ChunkSeen::Foreign;
        }
        if namespace.tree.find(&header.digest).is_some() {
            return ChunkSeen::Known;
        }
        if insert_node(namespace, name, whole, false, None).is_err() {
            return ChunkSeen::Foreign;
        }
        NAMESPACES.note_change(header.uid);
        ChunkSeen::Known
    })
}

/// Looks at the chunk in a key that arrived by loading, RESTORE, RENAME or MOVE; it waits where its
/// namespace is not there yet.
pub fn chunk_arrived(ctx: Ctx<'_>, name: &[u8]) {
    let place = (ctx.db(), name.to_vec());
    let Some(key) = Key::open(ctx, &RString::new(name), Access::Probe) else { return };
    let Some(value) = key.value::<ChunkValue>() else { return };
    match attach_chunk(ctx.db(), name, value) {
        ChunkSeen::NoNamespace(uid) => NAMESPACES.wait_for(uid, place),
        ChunkSeen::Stub => namespace_registry::note_stub(place),
        ChunkSeen::Known | ChunkSeen::Foreign => {}
    }
}

/// Gives the keys of chunks that became leaves their deadlines back, or removes what is due.
pub fn arm_new_leaves(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    in_time: impl Fn() -> bool,
) {
    while in_time() {
        let Some(digest) = namespace.with(|namespace| namespace.tree.pop_new_leaf()) else {
            return;
        };
        let leaf = namespace.with(|namespace| {
            let id = namespace.tree.find(&digest)?;
            let node = namespace.tree.node(id);
            node.is_leaf().then(|| (id, node.expire_at, namespace.chunk_key(&digest)))
        });
        let Some((id, expire_at, name)) = leaf else { continue };
        if expire_at == UnixMs::NEVER {
            continue;
        }
        if expire_at.is_past(UnixMs(ctx.now_ms())) {
            remove_node(ctx, namespace, id);
            continue;
        }
        let name_string = RString::new(&name);
        if let Some(mut key) = open_existing(ctx, &name_string)
            && key.expire_at_ms() == 0
        {
            key.set_expire_at_ms(expire_at.0);
            drop(key);
            ctx.replicate(c"PEXPIREAT", &[&name, expire_at.0.to_string().as_bytes()]);
            ctx.notify_generic(c"expire", &name_string);
        }
    }
}

/// The error of a chunk that the tree refuses.
pub fn refused_parent(refused: Refused) -> Error {
    Error::err(match refused {
        Refused::Circle => "PARENT would have the chunk follow itself",
        Refused::TooLong => "the chain of chunks is too long",
    })
}
