//! Expands the named chunks to those that follow or precede them, each once, one at a time.

use super::hex_digest;
use crate::ffi::{Access, CommandArgs, Ctx, Key, RString};
use crate::keyspace::Presence;
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::ChunkDigest;
use llmcache_core::limits;
use std::collections::HashSet;
use std::vec::IntoIter;

/// Which chunks beside those named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Named,
    /// All that follow them.
    Subtree,
    /// All before them.
    Prefix,
}

/// Reads digests and, as the last argument, one of the words allowed.
pub fn digests(args: &[&[u8]], words: &[(&str, Reach)]) -> Result<(Vec<ChunkDigest>, Reach)> {
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

/// Refuses a command on chunks of which some may be on another server.
pub fn need_chunks(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    namespace: &SharedNamespace,
    named: &[ChunkDigest],
    reach: Reach,
) -> Result<()> {
    let presence = Presence::of(ctx, args.name());
    if presence.is_whole() {
        return Ok(());
    }
    if reach != Reach::Named {
        return presence.need_all();
    }
    named.iter().try_for_each(|digest| need_chunk(ctx, &presence, namespace, digest))
}

/// Refuses a command on a chunk that may be on another server.
pub fn need_chunk(
    ctx: Ctx<'_>,
    presence: &Presence<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
) -> Result<()> {
    let key = namespace.with(|namespace| namespace.chunk_key(digest));
    presence.found(Key::open(ctx, &RString::new(&key), Access::Probe)).map(drop)
}

/// Where a walk from one of the named chunks is.
#[derive(Debug)]
enum At {
    /// At the next of those named.
    Named,
    /// The prefix goes on with this one.
    Before(ChunkDigest),
    /// This one of what follows `root` came last.
    Below { root: ChunkDigest, last: ChunkDigest },
}

/// The chunks a command means, found one by one: the tree may change in between.
#[derive(Debug)]
pub struct Spread {
    named: IntoIter<ChunkDigest>,
    reach: Reach,
    at: At,
    /// What came already; of what follows a chunk, that chunk stands for all.
    seen: HashSet<ChunkDigest>,
}

impl Spread {
    /// Those chunks.
    pub fn new(named: Vec<ChunkDigest>, reach: Reach) -> Self {
        Self { named: named.into_iter(), reach, at: At::Named, seen: HashSet::new() }
    }

    /// The next of them.
    pub fn next(&mut self, namespace: &SharedNamespace) -> Option<ChunkDigest> {
        if let Some(digest) = self.next_on_walk(namespace) {
            return Some(digest);
        }
        self.at = At::Named;
        let digest = self.named.by_ref().find(|digest| self.seen.insert(digest.clone()))?;
        match self.reach {
            Reach::Named => {}
            Reach::Prefix => self.at = before(namespace, &digest),
            Reach::Subtree => {
                self.at = At::Below { root: digest.clone(), last: digest.clone() };
            }
        }
        Some(digest)
    }

    fn next_on_walk(&mut self, namespace: &SharedNamespace) -> Option<ChunkDigest> {
        match std::mem::replace(&mut self.at, At::Named) {
            At::Named => None,
            At::Before(digest) => {
                if !self.seen.insert(digest.clone()) {
                    // What is before it came with it.
                    return None;
                }
                self.at = before(namespace, &digest);
                Some(digest)
            }
            At::Below { root, last } => {
                let next = self.next_below(namespace, &root, &last)?;
                self.at = At::Below { root, last: next.clone() };
                Some(next)
            }
        }
    }

    fn next_below(
        &self,
        namespace: &SharedNamespace,
        root: &ChunkDigest,
        last: &ChunkDigest,
    ) -> Option<ChunkDigest> {
        namespace.with(|namespace| {
            let tree = &namespace.tree;
            let top = tree.find(root)?;
            // Where the last one went meanwhile, the walk begins anew: what it meets twice stays as it is.
            let at = tree.find(last).unwrap_or(top);
            let is_done = |digest: &ChunkDigest| digest != root && self.seen.contains(digest);
            let next = tree.next_below(top, at, !is_done(last))?;
            Some(tree.node(next).digest.clone())
        })
    }
}

fn before(namespace: &SharedNamespace, digest: &ChunkDigest) -> At {
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let parent = tree.find(digest).and_then(|id| tree.parent(id));
        parent.map_or(At::Named, |parent| At::Before(tree.node(parent).digest.clone()))
    })
}
