//! `KVCHUNK.DEL`: removes chunks, and on request all that follow them.

use super::reach::{Reach, digests, need_chunks};
use crate::ffi::{CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{Pieces, Removals, open_namespace, remove_chunk, run_pieces};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::Result;
use llmcache_core::kvchunk::ChunkDigest;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (named, reach) = digests(args.options(), &[("SUBTREE", Reach::Subtree)])?;
    let Some(namespace) = open_namespace(ctx, &args.key())? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    let name = args.name().to_vec();
    need_chunks(ctx, args, &namespace, &named, reach)?;
    run_pieces(
        args,
        Removing { namespace, name, named, reach, above: None, removals: Removals::default() },
    );
    Ok(())
}

struct Removing {
    namespace: SharedNamespace,
    name: Vec<u8>,
    /// What is still to go, taken from the end: of a chain that is named from its first chunk on, none is an
    /// orphan in between.
    named: Vec<ChunkDigest>,
    reach: Reach,
    /// What the last that went followed, where more may follow it.
    above: Option<ChunkDigest>,
    removals: Removals,
}

impl Removing {
    /// The next to go: with SUBTREE the first that nothing follows, so that no chunk is an orphan in between.
    fn next_doomed(&mut self) -> Option<ChunkDigest> {
        let last = self.named.last()?;
        let above = self.above.take();
        if self.reach == Reach::Subtree {
            let leaf = self.namespace.with(|namespace| {
                let tree = &namespace.tree;
                let top = tree.find(last)?;
                let from = above.and_then(|digest| tree.find(&digest)).unwrap_or(top);
                let leaf = tree.first_leaf(from);
                let above = tree.parent(leaf).map(|id| tree.node(id).digest.clone());
                (leaf != top).then(|| (tree.node(leaf).digest.clone(), above))
            });
            if let Some((leaf, above)) = leaf {
                self.above = above;
                return Some(leaf);
            }
        }
        self.named.pop()
    }
}

impl Pieces for Removing {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        let Some(digest) = self.next_doomed() else { return false };
        let (key, uid) = self.namespace.with(|n| (n.chunk_key(&digest), n.uid()));
        self.removals.note(remove_chunk(ctx, &key, uid));
        self.namespace.with(|n| n.tree.remove(&digest));
        true
    }

    fn tell(&mut self, ctx: WritePermit<'_>) {
        self.removals.tell(ctx, &self.name);
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Reply::new(ctx).count(self.removals.count());
    }
}
