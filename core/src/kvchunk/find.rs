//! Chunks of a namespace found at any offset of a prompt: reuse that is not of a prefix.
//!
//! Owns: the search, no keys. What it finds was computed behind another prefix, so an engine has to
//! correct positions and recompute some of it; the caller is told where the chunk stood.

use super::digest::rolling_prints;
use super::{NodeId, PrefixTree, TOKEN_BYTES, content_of};
use crate::ids::UnixMs;

/// A stored chunk whose tokens stand in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where in the prompt, in tokens.
    pub offset: u32,
    /// The chunk.
    pub node: NodeId,
}

/// The stored chunks whose tokens stand in `tokens`, in order of offset: one for each place, never
/// overlapping, looked for at multiples of `stride`; runs of fewer than `least_run` adjoining chunks
/// are left out.
pub fn find_contents(
    tree: &PrefixTree,
    tokens: &[u8],
    chunk_tokens: u32,
    stride: u32,
    least_run: u32,
    now: UnixMs,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut free_from = 0;
    for (offset, print) in rolling_prints(tokens, chunk_tokens).enumerate() {
        let offset = offset as u32;
        if offset < free_from || !offset.is_multiple_of(stride) {
            continue;
        }
        let candidates = tree.with_print(print);
        if candidates.is_empty() {
            continue;
        }
        let start = offset as usize * TOKEN_BYTES;
        let window = &tokens[start..start + chunk_tokens as usize * TOKEN_BYTES];
        let content = content_of(window);
        let same = |&node: &NodeId| {
            tree.node(node).content == Some(content) && tree.is_reachable(node, now)
        };
        if let Some(node) = candidates.iter().copied().find(same) {
            found.push(Found { offset, node });
            free_from = offset + chunk_tokens;
        }
    }
    keep_runs(found, chunk_tokens, least_run as usize)
}

/// Drops runs of adjoining chunks that are shorter than `least`.
fn keep_runs(found: Vec<Found>, chunk_tokens: u32, least: usize) -> Vec<Found> {
    let adjoin = |a: &Found, b: &Found| a.offset + chunk_tokens == b.offset;
    found.chunk_by(adjoin).filter(|run| run.len() >= least).flatten().copied().collect()
}
