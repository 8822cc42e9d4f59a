//! `KVCHUNK.TREE`: chunks as the prefix tree has them, and what eviction would take next. No key is opened and no use
//! is counted: whoever looks changes nothing of the order.

use super::info::page;
use super::need_namespace;
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::{Presence, answer_room};
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{NodeId, PrefixTree};
use llmcache_core::limits;

/// Chunks of a page when nothing is said.
const COUNT: u64 = 100;
/// What the reply takes of a chunk besides its two digests, and at most.
const ROW_BYTES: u64 = 400;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut from, mut eviction, mut count) = (None, false, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "FROM" => set_once(&mut from, reader.integer(name, 0, limits::CURSOR_MAX)?, name)?,
            "EVICTION" => flag_once(&mut eviction, name)?,
            "COUNT" => {
                let most = u64::from(limits::KV_TREE_SHOWN);
                set_once(&mut count, reader.integer(name, 1, most)?, name)?;
            }
            _ => return Err(word.unknown()),
        }
    }
    if eviction && from.is_some() {
        return Err(Error::err("syntax error: FROM and EVICTION exclude each other"));
    }
    let namespace = need_namespace(ctx, args)?;
    Presence::of(ctx, args.name()).need_all()?;
    let count = count.unwrap_or(COUNT);
    answer_room(ctx)?.one(count * ROW_BYTES)?;
    let now = ctx.monotonic_now();
    let listed = (!eviction).then(|| page(&namespace, from.unwrap_or(0) as u32, count as usize));
    namespace.with(|namespace| {
        namespace.leases.lapse(&mut namespace.tree, now, limits::KV_LAPSED_AT_ONCE);
        let tree = &namespace.tree;
        let (next, chunks) = match listed {
            Some((next, digests)) => {
                (next, digests.iter().filter_map(|digest| tree.find(digest)).collect())
            }
            None => (0, tree.next_evicted(count as usize, limits::KV_TREE_STEPS)),
        };
        write(Reply::new(ctx), tree, next, &chunks);
    });
    Ok(())
}

fn write(reply: Reply<'_>, tree: &PrefixTree, next: u32, chunks: &[NodeId]) {
    reply.array(2).text(&next.to_string()).array(chunks.len());
    for &id in chunks {
        let node = tree.node(id);
        reply.map(12);
        reply.text("digest").text(&node.digest.hex());
        reply.text("parent");
        match tree.parent(id) {
            Some(parent) => reply.text(&tree.node(parent).digest.hex()),
            None => reply.null(),
        };
        reply.text("position").count(node.position.into());
        reply.text("leaf").int(node.is_leaf().into());
        reply.text("bytes").count(node.bytes);
        reply.text("payload_bytes").count(node.payload_bytes);
        reply.text("hits").count(node.hits.into());
        reply.text("heat").double((f64::from(tree.heat(id)) * 1e4).round() / 1e4);
        reply.text("prio").count(node.prio.into());
        reply.text("pinned").int(node.pinned.into());
        reply.text("leases").count(node.leases().into());
        let deadline = node.expire_at;
        let is_none = deadline == llmcache_core::ids::UnixMs::NEVER;
        reply.text("deadline").count(if is_none { 0 } else { deadline.0 });
    }
}
