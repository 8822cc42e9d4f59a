//! `KVCHUNK.PIN`, `UNPIN`, `LEASE`, `RELEASE` and `TOUCH`: protect chunks from eviction.

use super::reach::{Reach, Spread, digests, need_chunks};
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, RString, Reply, WritePermit};
use crate::keyspace::{
    Pieces, UseWalk, hint_strongly, open_chunk, open_namespace, pin_chunk, run_pieces,
};
use crate::keytype::namespace_registry::{self, SharedNamespace};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::kvchunk::{ChunkDigest, LeaseId, Namespace, NodeId};
use llmcache_core::limits;
use std::ffi::CStr;

/// Begins a lease that holds nothing yet; returns its name, or an error when there are too many leases.
pub(super) fn begin_lease(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    length_ms: u64,
) -> Result<LeaseId> {
    let now = ctx.monotonic_now();
    // Below 2^53, for clients that read names of leases as numbers; never the name that stands for making room.
    let id = (ctx.random() >> 12) | 1 << 52;
    namespace.with(|namespace| {
        let Namespace { tree, leases, .. } = namespace;
        leases.lapse(tree, now, limits::KV_LAPSED_AT_ONCE);
        if leases.is_full() {
            return Err(Error::new(
                ErrorWord::Busy,
                "the namespace has too many leases, or they hold too many chunks",
            ));
        }
        leases.grant(tree, id, &[], now.after(length_ms));
        namespace_registry::note_work(namespace);
        Ok(id)
    })
}

/// Leases chunks; returns the lease's name, or an error when there are too many leases.
pub(super) fn lease(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
    length_ms: u64,
) -> Result<LeaseId> {
    let id = begin_lease(ctx, namespace, length_ms)?;
    digests.iter().for_each(|digest| {
        hold_by(ctx, namespace, id, digest);
    });
    Ok(id)
}

/// Ends a lease.
pub(super) fn end_lease(namespace: &SharedNamespace, id: LeaseId) {
    namespace.with(|namespace| namespace.leases.release(&mut namespace.tree, id));
}

/// The lease, if it holds anything; one that holds nothing ends.
pub(super) fn unless_empty(
    namespace: &SharedNamespace,
    id: LeaseId,
    holds_any: bool,
) -> Option<LeaseId> {
    if !holds_any {
        end_lease(namespace, id);
    }
    holds_any.then_some(id)
}

/// Writes the name of a lease, or null: a string, since clients in JavaScript and Lua lose integers beyond 2^53. RELEASE
/// takes the digits however they are sent.
pub(super) fn write_lease(reply: Reply<'_>, id: Option<LeaseId>) {
    match id {
        Some(id) => reply.text(&id.to_string()),
        None => reply.null(),
    };
}

/// Reads the value of LEASE.
pub(super) fn lease_ms(args: &mut ArgReader<'_>) -> Result<u64> {
    args.integer("LEASE", 1, limits::KV_LEASE_MAX_MS)
}

/// Runs `KVCHUNK.PIN`.
pub fn run_pin(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    set_pinned(ctx, args, true)
}

/// Runs `KVCHUNK.UNPIN`.
pub fn run_unpin(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    set_pinned(ctx, args, false)
}

fn set_pinned(ctx: Ctx<'_>, args: &CommandArgs<'_>, pinned: bool) -> Result<()> {
    let words = [("SUBTREE", Reach::Subtree), ("PREFIX", Reach::Prefix)];
    let (named, reach) = digests(args.options(), &words)?;
    let Some(namespace) = open_namespace(ctx, &args.key())? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    need_chunks(ctx, args, &namespace, &named, reach)?;
    let spread = Spread::new(named, reach);
    let (name, fresh) = (args.name().to_vec(), Vec::new());
    run_pieces(args, Pinning { namespace, name, spread, pinned, fresh, changed: 0 });
    Ok(())
}

struct Pinning {
    namespace: SharedNamespace,
    name: Vec<u8>,
    spread: Spread,
    pinned: bool,
    /// What AOF and replicas are still to be told of.
    fresh: Vec<String>,
    changed: u64,
}

impl Pieces for Pinning {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        let Some(digest) = self.spread.next(&self.namespace) else { return false };
        if pin_chunk(ctx, &self.namespace, &digest, self.pinned) {
            self.fresh.push(digest.hex());
        }
        true
    }

    fn tell(&mut self, ctx: WritePermit<'_>) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        let command: &CStr = if self.pinned { c"KVCHUNK.PIN" } else { c"KVCHUNK.UNPIN" };
        let told: Vec<&[u8]> = std::iter::once(self.name.as_slice())
            .chain(fresh.iter().map(String::as_bytes))
            .collect();
        ctx.replicate(command, &told);
        ctx.signal_modified(&RString::new(&self.name));
        self.changed += fresh.len() as u64;
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Reply::new(ctx).count(self.changed);
    }
}

/// Runs `KVCHUNK.LEASE ns ms digest…`.
pub fn run_lease(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let length_ms = lease_ms(&mut reader)?;
    let (named, _) = digests(&args.options()[reader.position()..], &[])?;
    let Some(namespace) = open_namespace(ctx, &args.key())? else {
        Reply::new(ctx).array(2).int(0).null();
        return Ok(());
    };
    need_chunks(ctx, args, &namespace, &named, Reach::Named)?;
    let id = begin_lease(ctx, &namespace, length_ms)?;
    run_pieces(args, Leasing { namespace, spread: Spread::new(named, Reach::Named), id, held: 0 });
    Ok(())
}

struct Leasing {
    namespace: SharedNamespace,
    spread: Spread,
    id: LeaseId,
    held: u64,
}

impl Pieces for Leasing {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(digest) = self.spread.next(&self.namespace) else { return false };
        let is_there = open_chunk(ctx, &self.namespace, &digest, Access::Probe).is_some();
        if is_there && hold_by(ctx, &self.namespace, self.id, &digest) {
            self.held += 1;
        }
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let reply = Reply::new(ctx).array(2).count(self.held);
        write_lease(reply, unless_empty(&self.namespace, self.id, self.held > 0));
    }
}

/// Has a lease hold one more chunk, which gets the strongest hint; false where the tree does not know the chunk.
pub(super) fn hold_by(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    id: LeaseId,
    digest: &ChunkDigest,
) -> bool {
    let is_held = namespace.with(|namespace| {
        let node = namespace.tree.find(digest);
        node.is_some_and(|node| namespace.leases.add(&mut namespace.tree, id, node))
    });
    if is_held {
        hint_strongly(ctx, namespace, digest);
    }
    is_held
}

/// Runs `KVCHUNK.RELEASE ns lease`.
pub fn run_release(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = reader.integer("the lease", 1, i64::MAX as u64)?;
    reader.finish()?;
    match open_namespace(ctx, &args.key())? {
        Some(namespace) => run_pieces(args, Releasing { namespace, id, released: 0 }),
        None => {
            Reply::new(ctx).int(0);
        }
    }
    Ok(())
}

struct Releasing {
    namespace: SharedNamespace,
    id: LeaseId,
    released: u64,
}

/// Chunks let go of as one piece: a few times cheaper than opening a key.
const RELEASED_AT_ONCE: usize = 8;

impl Pieces for Releasing {
    // Nothing of it is replicated, but it is not to be left half done.
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, _: WritePermit<'_>) -> bool {
        let (released, more) = self.namespace.with(|namespace| {
            namespace.leases.release_some(&mut namespace.tree, self.id, RELEASED_AT_ONCE)
        });
        self.released += released as u64;
        more
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Reply::new(ctx).count(self.released);
    }
}

/// Runs `KVCHUNK.TOUCH ns digest…`.
pub fn run_touch(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (named, _) = digests(args.options(), &[])?;
    let Some(namespace) = open_namespace(ctx, &args.key())? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    need_chunks(ctx, args, &namespace, &named, Reach::Named)?;
    let (spread, walk) = (Spread::new(named, Reach::Named), UseWalk::default());
    run_pieces(args, Touching { namespace, spread, walk, fresh: Vec::new(), touched: 0 });
    Ok(())
}

struct Touching {
    namespace: SharedNamespace,
    spread: Spread,
    walk: UseWalk,
    /// What the tree is still to be told of: what comes together counts as used at the same time.
    fresh: Vec<ChunkDigest>,
    touched: u64,
}

impl Pieces for Touching {
    // Hints alone: nothing of it is replicated.
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        if self.walk.step(ctx, &self.namespace) {
            return true;
        }
        let Some(digest) = self.spread.next(&self.namespace) else { return false };
        if open_chunk(ctx, &self.namespace, &digest, Access::Probe).is_some() {
            self.touched += 1;
            self.walk.begin(digest.clone());
            self.fresh.push(digest);
        }
        true
    }

    fn tell(&mut self, _: Ctx<'_>) {
        self.namespace.with(|namespace| {
            let tree = &mut namespace.tree;
            let nodes: Vec<NodeId> =
                self.fresh.drain(..).filter_map(|digest| tree.find(&digest)).collect();
            tree.touch(&nodes);
        });
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Reply::new(ctx).count(self.touched);
    }
}
