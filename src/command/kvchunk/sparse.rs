//! `KVCHUNK.FETCH … SPARSE`: of any set of chunks those that are there, past holes.

use super::page::{FetchRequest, write_chunk};
use super::retention::lease;
use super::was_sound_lately;
use crate::ffi::{Ctx, Reply};
use crate::keyspace::{OpenedChunk, UseWalk, open_reachable};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::Result;
use llmcache_core::kvchunk::{ChunkDigest, NodeId};

/// Answers the chunks of a page, null for each that is not there with all before it.
pub(super) fn answer(
    ctx: Ctx<'_>,
    request: &FetchRequest<'_>,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
) -> Result<()> {
    let page = page(ctx, request, namespace, digests);
    let from = request.from.unwrap_or(0).min(digests.len());
    let found: Vec<ChunkDigest> =
        page.iter().flatten().map(|chunk| chunk.header.digest.clone()).collect();
    let leased = match request.lease_ms.filter(|_| !found.is_empty()) {
        Some(length_ms) => Some(lease(ctx, namespace, &found, length_ms)?),
        None => None,
    };
    let reply = Reply::new(ctx).array(4 + usize::from(request.lease_ms.is_some()));
    reply.count(digests.len() as u64).count(found.len() as u64).count((from + page.len()) as u64);
    reply.array(page.len());
    let (mut bytes, asked) = (0, page.len() as u64);
    for chunk in &page {
        match chunk {
            Some(chunk) => {
                write_chunk(reply, chunk, request.range);
                bytes += request.answered_bytes(chunk);
            }
            None => {
                reply.null();
            }
        }
    }
    if request.lease_ms.is_some() {
        match leased {
            Some(id) => reply.count(id),
            None => reply.null(),
        };
    }
    drop(page);
    namespace.with(|namespace| {
        let tree = &mut namespace.tree;
        let nodes: Vec<NodeId> = found.iter().filter_map(|digest| tree.find(digest)).collect();
        tree.touch(&nodes);
        namespace.note_asked(asked, found.len() as u64);
        namespace.stats.fetches += 1;
        namespace.stats.bytes_out += bytes;
    });
    let mut uses = UseWalk::default();
    for digest in found {
        uses.begin(digest);
        while uses.step(ctx, namespace) {}
    }
    Ok(())
}

/// Chunks from FROM on, as many as COUNT and MAXBYTES allow, holes included, and one payload in any case.
fn page<'a>(
    ctx: Ctx<'a>,
    request: &FetchRequest<'_>,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
) -> Vec<Option<OpenedChunk<'a>>> {
    let from = request.from.unwrap_or(0).min(digests.len());
    let most = request.count.unwrap_or(usize::MAX).min(digests.len() - from);
    let (mut left, mut any) = (request.max_bytes(), false);
    let mut page = open_reachable(ctx, namespace, &digests[from..from + most]);
    for at in 0..page.len() {
        let sound = page[at].take().filter(|chunk| was_sound_lately(ctx, namespace, chunk));
        if let Some(chunk) = &sound {
            let bytes = request.answered_bytes(chunk);
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
