//! Chunks of a namespace found at any offset of a prompt: reuse that is not of a prefix.
//!
//! Owns: the search, no keys. What it finds was computed behind another prefix, so an engine has to
//! correct positions and recompute some of it; the caller is told where the chunk stood.

use super::digest::rolling_prints;
use super::{NodeId, PrefixTree, Reach, TOKEN_BYTES, content_of};
use crate::ids::UnixMs;
use crate::work;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

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
    root: &[u8; 32],
    tokens: &[u8],
    chunk_tokens: u32,
    stride: u32,
    least_run: u32,
    now: UnixMs,
) -> Vec<Found> {
    let mut finder = Finder { tree, root: *root, reach: Reach::new(now), alike: HashMap::new() };
    let mut found: Vec<Found> = Vec::new();
    let (mut free_from, mut offsets) = (0, 0);
    for (offset, print) in rolling_prints(root, tokens, chunk_tokens).enumerate() {
        let offset = offset as u32;
        offsets += 1;
        if offset < free_from || !offset.is_multiple_of(stride) {
            continue;
        }
        let window = || {
            let start = offset as usize * TOKEN_BYTES;
            &tokens[start..start + chunk_tokens as usize * TOKEN_BYTES]
        };
        if let Some(node) = finder.find(print, window) {
            found.push(Found { offset, node });
            free_from = offset + chunk_tokens;
        }
    }
    work::count_path(offsets);
    keep_runs(found, chunk_tokens, least_run as usize)
}

/// Chunks of one print that a prefix leads to.
struct Alike<'w> {
    /// One for each of their contents; nearly always one.
    reachable: SmallVec<[([u8; 16], NodeId); 1]>,
    /// The last window of the print that was none of them.
    other: Option<&'w [u8]>,
}

/// What a search has learnt of the tree: each chunk is looked at once, however often its tokens repeat.
struct Finder<'t, 'w> {
    tree: &'t PrefixTree,
    /// Of the salt that is asked for: chunks of others are not found.
    root: [u8; 32],
    reach: Reach,
    alike: HashMap<u64, Alike<'w>>,
}

impl<'w> Finder<'_, 'w> {
    /// A chunk of these tokens.
    fn find(&mut self, print: u64, window: impl Fn() -> &'w [u8]) -> Option<NodeId> {
        let Self { tree, root, reach, alike } = self;
        let alike = match alike.entry(print) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                tree.with_print(print).next()?;
                new.insert(Alike { reachable: reachable(tree, reach, print), other: None })
            }
        };
        if alike.reachable.is_empty() {
            return None;
        }
        let window = window();
        if alike.other == Some(window) {
            return None;
        }
        work::count_bytes(window.len());
        let sha = content_of(root, window).sha;
        let found = alike.reachable.iter().find(|(own, _)| *own == sha).map(|&(_, node)| node);
        if found.is_none() {
            alike.other = Some(window);
        }
        found
    }
}

/// Of each content with this print, a chunk that a prefix leads to.
fn reachable(
    tree: &PrefixTree,
    reach: &mut Reach,
    print: u64,
) -> SmallVec<[([u8; 16], NodeId); 1]> {
    let mut out: SmallVec<[([u8; 16], NodeId); 1]> = SmallVec::new();
    let mut looked_at = 0;
    for id in tree.with_print(print) {
        looked_at += 1;
        if let Some(content) = tree.node(id).content
            && !out.iter().any(|(sha, _)| *sha == content.sha)
            && reach.is_reachable(tree, id)
        {
            out.push((content.sha, id));
        }
    }
    work::count_path(looked_at);
    out
}

/// Drops runs of adjoining chunks that are shorter than `least`.
fn keep_runs(found: Vec<Found>, chunk_tokens: u32, least: usize) -> Vec<Found> {
    let adjoin = |a: &Found, b: &Found| a.offset + chunk_tokens == b.offset;
    found.chunk_by(adjoin).filter(|run| run.len() >= least).flatten().copied().collect()
}
