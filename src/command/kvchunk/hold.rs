//! `KVCHUNK.PIN`, `UNPIN`, `LEASE`, `RELEASE` and `TOUCH`: what keeps chunks from being evicted.

use super::fetch::lease;
use super::hex_digest;
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{open_chunk, open_namespace, pin_chunk, use_chunk};
use crate::keytype::namespaces::SharedNamespace;
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{ChunkDigest, NodeId};
use llmcache_core::limits;
use std::ffi::CStr;

/// Which chunks beside those named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Named,
    Subtree,
    Prefix,
}

/// Reads digests and, as the last argument, one of the words allowed.
pub(super) fn digests(
    args: &[&[u8]],
    words: &[(&str, Reach)],
) -> Result<(Vec<ChunkDigest>, Reach)> {
    let mut reach = Reach::Named;
    let mut list = args;
    if let Some((last, before)) = args.split_last()
        && let Some(word) = words.iter().find(|word| word.0.as_bytes().eq_ignore_ascii_case(last))
    {
        (reach, list) = (word.1, before);
    }
    if list.is_empty() {
        return Err(Error::err("syntax error: a digest is needed"));
    }
    if list.len() > limits::CHUNKS_MAX {
        return Err(Error::too_big("the list", list.len(), limits::CHUNKS_MAX, "digests"));
    }
    Ok((list.iter().map(|text| hex_digest(text)).collect::<Result<_>>()?, reach))
}

/// The chunks named, and below or before them; each once.
pub(super) fn spread(
    namespace: &SharedNamespace,
    named: Vec<ChunkDigest>,
    reach: Reach,
) -> Vec<ChunkDigest> {
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let mut seen = hashbrown::HashSet::new();
        let mut out = Vec::new();
        for digest in named {
            let node = tree.find(&digest);
            let more: Vec<NodeId> = match (node, reach) {
                (Some(id), Reach::Subtree) => tree.subtree(id),
                (Some(id), Reach::Prefix) => {
                    std::iter::once(id).chain(tree.ancestors(id)).collect()
                }
                _ => Vec::new(),
            };
            let more = more.into_iter().map(|id| tree.node(id).digest.clone());
            out.extend(std::iter::once(digest).chain(more).filter(|d| seen.insert(d.clone())));
        }
        out
    })
}

/// Runs `KVCHUNK.PIN`.
pub fn run_pin(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    set_pinned(ctx, args, true, c"KVCHUNK.PIN")
}

/// Runs `KVCHUNK.UNPIN`.
pub fn run_unpin(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    set_pinned(ctx, args, false, c"KVCHUNK.UNPIN")
}

fn set_pinned(ctx: Ctx<'_>, args: &CommandArgs<'_>, pinned: bool, command: &CStr) -> Result<()> {
    let words = [("SUBTREE", Reach::Subtree), ("PREFIX", Reach::Prefix)];
    let (named, reach) = digests(args.options(), &words)?;
    let mut changed: Vec<String> = Vec::new();
    if let Some(namespace) = open_namespace(ctx, &args.key())? {
        for digest in spread(&namespace, named, reach) {
            if pin_chunk(ctx, &namespace, &digest, pinned) {
                changed.push(digest.hex());
            }
        }
    }
    if !changed.is_empty() {
        let told: Vec<&[u8]> =
            std::iter::once(args.name()).chain(changed.iter().map(String::as_bytes)).collect();
        ctx.replicate(command, &told);
        ctx.signal_modified(&args.key());
    }
    Reply::new(ctx).count(changed.len() as u64);
    Ok(())
}

/// Runs `KVCHUNK.LEASE ns ms digest…`.
pub fn run_lease(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let length_ms = super::fetch::lease_ms(&mut reader)?;
    let (named, _) = digests(&args.options()[reader.position()..], &[])?;
    let reply = Reply::new(ctx);
    let mut held = Vec::new();
    let namespace = open_namespace(ctx, &args.key())?;
    if let Some(namespace) = &namespace {
        held = spread(namespace, named, Reach::Named);
        held.retain(|digest| open_chunk(ctx, namespace, digest, Access::Probe).is_some());
    }
    let id = match &namespace {
        Some(namespace) if !held.is_empty() => Some(lease(ctx, namespace, &held, length_ms)?),
        _ => None,
    };
    reply.array(2).count(held.len() as u64);
    match id {
        Some(id) => reply.count(id),
        None => reply.null(),
    };
    Ok(())
}

/// Runs `KVCHUNK.RELEASE ns lease`.
pub fn run_release(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = reader.integer("the lease", 1, i64::MAX as u64)?;
    reader.finish()?;
    let released = open_namespace(ctx, &args.key())?.map_or(0, |namespace| {
        namespace.with(|namespace| namespace.leases.release(&mut namespace.tree, id))
    });
    Reply::new(ctx).count(released as u64);
    Ok(())
}

/// Runs `KVCHUNK.TOUCH ns digest…`.
pub fn run_touch(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (named, _) = digests(args.options(), &[])?;
    let mut touched = 0;
    if let Some(namespace) = open_namespace(ctx, &args.key())? {
        let mut there = spread(&namespace, named, Reach::Named);
        there.retain(|digest| open_chunk(ctx, &namespace, digest, Access::Probe).is_some());
        touched = there.len();
        namespace.with(|namespace| {
            let tree = &mut namespace.tree;
            let nodes: Vec<NodeId> = there.iter().filter_map(|digest| tree.find(digest)).collect();
            tree.touch(&nodes);
        });
        for digest in &there {
            use_chunk(ctx, &namespace, digest);
        }
    }
    Reply::new(ctx).count(touched as u64);
    Ok(())
}
