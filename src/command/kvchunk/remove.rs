//! `KVCHUNK.DEL`: removes chunks, and what hangs on them when told to.

use super::hold::{Reach, digests, spread};
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::{open_namespace, remove_chunk};
use llmcache_core::error::Result;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (named, reach) = digests(args.options(), &[("SUBTREE", Reach::Subtree)])?;
    let mut removed = 0;
    if let Some(namespace) = open_namespace(ctx, &args.key())? {
        // Children before parents, so that none is an orphan in between.
        for digest in spread(&namespace, named, reach).into_iter().rev() {
            let (key, uid) = namespace.with(|n| (n.chunk_key(&digest), n.uid()));
            removed += u64::from(remove_chunk(ctx, &key, uid));
            namespace.with(|n| n.tree.remove(&digest));
        }
    }
    if removed > 0 {
        ctx.signal_modified(&args.key());
    }
    Reply::new(ctx).count(removed);
    Ok(())
}
