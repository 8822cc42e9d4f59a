//! `KVCHUNK.FIND`: chunks whose tokens stand anywhere in a prompt.

use super::chain::ChainArgs;
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{find_namespace, open_chunk};
use llmcache_core::error::Result;
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, find_contents};
use llmcache_core::limits;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut stride, mut run) = (ChainArgs::default(), None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "STRIDE" => {
                let tokens = reader.integer(name, 1, u64::from(limits::CHUNK_TOKENS_MAX))?;
                set_once(&mut stride, tokens as u32, name)?;
            }
            "MINRUN" => {
                let chunks = reader.integer(name, 1, limits::CHUNKS_MAX as u64)?;
                set_once(&mut run, chunks as u32, name)?;
            }
            "TOKENS" | "SALT" if chain.read(&word, &mut reader)? => {}
            _ => return Err(word.unknown()),
        }
    }
    chain.check()?;
    let tokens = chain.tokens().unwrap_or_default();
    let mut found: Vec<(u32, u32, ChunkDigest, u64)> = Vec::new();
    if let Some(namespace) = find_namespace(ctx, &args.key())? {
        let now = UnixMs(ctx.now_ms());
        found = namespace.with(|namespace| {
            let (tree, chunk) = (&namespace.tree, namespace.settings().chunk_tokens);
            let (stride, run) = (stride.unwrap_or(1), run.unwrap_or(1));
            let found =
                find_contents(tree, &chain.root(namespace), tokens, chunk, stride, run, now);
            let describe = |found: &llmcache_core::kvchunk::Found| {
                let node = tree.node(found.node);
                let position = node.position.saturating_mul(chunk);
                (found.offset, position, node.digest.clone(), node.payload_bytes)
            };
            found.iter().map(describe).collect()
        });
        found.retain(|at| open_chunk(ctx, &namespace, &at.2, Access::Probe).is_some());
    }
    let reply = Reply::new(ctx).array(found.len());
    for (offset, position, digest, bytes) in found {
        reply.array(4).count(offset.into()).count(position.into());
        reply.text(&digest.hex()).count(bytes);
    }
    Ok(())
}
