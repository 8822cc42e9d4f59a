//! `KVCHUNK.FIND`: finds stored chunks anywhere in a prompt.

use super::chain::ChainArgs;
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, HeldString, Reply, ServerString};
use crate::keyspace::{Pieces, find_namespace, open_chunk, reply_whole, run_pieces};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::Result;
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, ContentWalk, TOKEN_BYTES, keep_runs};
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
    let found = find_namespace(ctx, &args.key())?.zip(args.argument_of(tokens));
    let Some((namespace, blob)) = found else {
        Reply::new(ctx).array(0);
        return Ok(());
    };
    let (chunk, root) =
        namespace.with(|namespace| (namespace.settings().chunk_tokens, chain.root(namespace)));
    let walk = ContentWalk::new(&root, chunk, stride.unwrap_or(1));
    let (tokens, least) = (HeldString::keep(&blob), run.unwrap_or(1) as usize);
    let work = Finding { namespace, tokens, walk, chunk, least, found: Vec::new(), told: None };
    run_pieces(args, work);
    Ok(())
}

/// A chunk that was found.
#[derive(Debug, Clone)]
struct At {
    offset: u32,
    position: u32,
    digest: ChunkDigest,
    bytes: u64,
}

struct Finding {
    namespace: SharedNamespace,
    tokens: HeldString,
    walk: ContentWalk,
    /// Tokens of a chunk, and chunks of the shortest run.
    chunk: u32,
    least: usize,
    found: Vec<At>,
    /// How many of them the reply has, once it is begun.
    told: Option<usize>,
}

/// Tokens that are passed as one piece.
const TOKENS_AT_ONCE: usize = 512;
/// Chunks that a part of the reply has.
const PART: usize = 128;

impl Pieces for Finding {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Self { namespace, tokens, walk, chunk, found, .. } = self;
        let now = UnixMs(ctx.now_ms());
        let step = namespace.with(|namespace| {
            let tree = &namespace.tree;
            let step = walk.step(tree, tokens.as_bytes(), now, TOKENS_AT_ONCE)?;
            Some(step.map(|found| {
                let node = tree.node(found.node);
                let position = node.position.saturating_mul(*chunk);
                let (digest, bytes) = (node.digest.clone(), node.payload_bytes);
                At { offset: found.offset, position, digest, bytes }
            }))
        });
        let Some(step) = step else {
            let all = std::mem::take(found);
            *found = keep_runs(all, |at| at.offset, *chunk, self.least);
            return false;
        };
        let there = |at: &At| open_chunk(ctx, namespace, &at.digest, Access::Probe).is_some();
        found.extend(step.filter(there));
        true
    }

    fn tell(&mut self, _: Ctx<'_>) {
        self.walk.pause();
    }

    fn known(&self) -> usize {
        self.tokens.as_bytes().len() / TOKEN_BYTES / TOKENS_AT_ONCE
    }

    fn has_long_reply(&self) -> bool {
        self.found.len() > PART
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        let (reply, all) = (Reply::new(ctx), self.found.len());
        let told = self.told.unwrap_or_else(|| {
            reply.array(all);
            0
        });
        let upto = all.min(told + PART);
        for at in &self.found[told..upto] {
            reply.array(4).count(at.offset.into()).count(at.position.into());
            reply.text(&at.digest.hex()).count(at.bytes);
        }
        self.told = Some(upto);
        upto < all
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}
