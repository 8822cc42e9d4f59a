//! `KVCHUNK.FETCH … SPARSE`: returns the stored ones of any set of chunks, past holes.

use super::chain::Names;
use super::page::{CHUNKS_PER_REPLY, Wanted, write_chunk};
use super::retention::{lease, write_lease};
use super::was_sound_lately;
use crate::ffi::{Ctx, Reply};
use crate::keyspace::{OpenedChunk, Pieces, open_reachable, use_chunks};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::Result;
use llmcache_core::kvchunk::{ChunkDigest, NodeId};

/// Chunks of which some may be missing: those of the page are named one by one, then it is answered.
pub(super) struct Sparse {
    pub(super) namespace: SharedNamespace,
    pub(super) names: Names,
    pub(super) wanted: Wanted,
    pub(super) page: Vec<ChunkDigest>,
}

impl Pieces for Sparse {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, _: Ctx<'_>) -> bool {
        if self.page.len() >= self.wanted.count {
            return false;
        }
        let at = self.names.position();
        let Some(digest) = self.names.next() else { return false };
        if at >= self.wanted.from {
            self.page.push(digest);
        }
        true
    }

    fn has_long_reply(&self) -> bool {
        self.page.len() > CHUNKS_PER_REPLY
    }

    fn known(&self) -> usize {
        self.names.len().min(self.wanted.from.saturating_add(self.wanted.count))
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let Self { namespace, names, wanted, page } = self;
        if let Err(error) = answer(ctx, wanted, namespace, names.len(), page) {
            Reply::new(ctx).error(&error.to_string());
        }
    }
}

/// Answers the chunks of a page, null for each that is not there with all before it.
fn answer(
    ctx: Ctx<'_>,
    request: &Wanted,
    namespace: &SharedNamespace,
    all: usize,
    digests: &[ChunkDigest],
) -> Result<()> {
    let page = page(ctx, request, namespace, digests);
    let from = request.from.min(all);
    let found: Vec<ChunkDigest> =
        page.iter().flatten().map(|chunk| chunk.header.digest.clone()).collect();
    let leased = match request.lease_ms.filter(|_| !found.is_empty()) {
        Some(length_ms) => Some(lease(ctx, namespace, &found, length_ms)?),
        None => None,
    };
    let reply = Reply::new(ctx).array(4 + usize::from(request.lease_ms.is_some()));
    reply.count(all as u64).count(found.len() as u64).count((from + page.len()) as u64);
    reply.array(page.len());
    let (mut bytes, asked) = (0, page.len() as u64);
    for chunk in &page {
        match chunk {
            Some(chunk) => {
                write_chunk(reply, chunk, request);
                bytes += request.bytes(chunk);
            }
            None => {
                reply.null();
            }
        }
    }
    if request.lease_ms.is_some() {
        write_lease(reply, leased);
    }
    drop(page);
    namespace.with(|namespace| {
        let tree = &mut namespace.tree;
        if request.is_begun() {
            let nodes: Vec<NodeId> = found.iter().filter_map(|digest| tree.find(digest)).collect();
            tree.touch(&nodes);
            namespace.note_asked(asked, found.len() as u64);
        }
        namespace.stats.fetches += 1;
        namespace.stats.bytes_out += bytes;
    });
    use_chunks(ctx, namespace, found);
    Ok(())
}

/// As many of the chunks as MAXBYTES allows, holes included, and one payload in any case.
fn page<'a>(
    ctx: Ctx<'a>,
    request: &Wanted,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
) -> Vec<Option<OpenedChunk<'a>>> {
    let (mut left, mut any) = (request.max_bytes, false);
    let mut page = open_reachable(ctx, namespace, digests);
    for at in 0..page.len() {
        let is_sound = |chunk: &OpenedChunk<'_>| {
            request.has_checksums || was_sound_lately(ctx, namespace, chunk)
        };
        let sound = page[at].take().filter(is_sound);
        if let Some(chunk) = &sound {
            let bytes = request.bytes(chunk);
            if any && bytes > left {
                page.truncate(at);
                break;
            }
            left = left.saturating_sub(bytes);
            any = true;
        }
        page[at] = sound;
    }
    page
}
