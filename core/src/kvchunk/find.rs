//! Finds the chunks of a namespace at any offset of a prompt: reuse outside of a common prefix.
//!
//! Owns: the search, no keys. What it finds was computed behind another prefix, so an engine has to
//! correct positions and recompute some of it; the caller is told where the chunk stood.

use super::digest::RollingPrint;
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
    let mut walk = ContentWalk::new(root, chunk_tokens, stride);
    let mut found: Vec<Found> = Vec::new();
    while let Some(at) = walk.step(tree, tokens, now, usize::MAX) {
        found.extend(at);
    }
    keep_runs(found, |found| found.offset, chunk_tokens, least_run as usize)
}

/// The same search as a walk over the prompt that may be interrupted.
#[derive(Debug)]
pub struct ContentWalk {
    print: RollingPrint,
    /// Of the salt that is asked for: chunks of others are not found.
    root: [u8; 32],
    chunk_tokens: u32,
    stride: u32,
    /// Up to here the prompt stands in what was found.
    free_from: u32,
    /// What is known of the tree until it may have changed: each chunk is looked at once, however often its tokens
    /// repeat.
    reach: Option<Reach>,
    alike: HashMap<u64, Alike>,
}

/// Chunks of one print that a prefix leads to.
#[derive(Debug)]
struct Alike {
    /// One for each of their contents; nearly always one.
    reachable: SmallVec<[([u8; 16], NodeId); 1]>,
    /// Where the last window of the print stands that was none of them.
    other: Option<u32>,
}

impl ContentWalk {
    /// Before the first token.
    pub fn new(root: &[u8; 32], chunk_tokens: u32, stride: u32) -> Self {
        Self {
            print: RollingPrint::new(root, chunk_tokens),
            root: *root,
            chunk_tokens,
            stride,
            free_from: 0,
            reach: None,
            alike: HashMap::new(),
        }
    }

    /// The tree may change before the next step: what is known of it is forgotten.
    pub fn pause(&mut self) {
        self.reach = None;
        self.alike = HashMap::new();
    }

    /// Goes on by so many tokens at most, up to the next chunk that stands there; nothing at the end of the prompt.
    pub fn step(
        &mut self,
        tree: &PrefixTree,
        tokens: &[u8],
        now: UnixMs,
        most: usize,
    ) -> Option<Option<Found>> {
        let mut windows = 0;
        let mut found = None;
        let mut goes_on = true;
        for _ in 0..most {
            goes_on = self.print.roll(tokens);
            if !goes_on {
                break;
            }
            let Some((offset, print)) = self.print.window() else { continue };
            windows += 1;
            if offset < self.free_from || !offset.is_multiple_of(self.stride) {
                continue;
            }
            if let Some(node) = self.find(tree, tokens, offset, print, now) {
                self.free_from = offset + self.chunk_tokens;
                found = Some(Found { offset, node });
                break;
            }
        }
        work::count_path(windows);
        goes_on.then_some(found)
    }

    /// A chunk of the tokens at an offset.
    fn find(
        &mut self,
        tree: &PrefixTree,
        tokens: &[u8],
        offset: u32,
        print: u64,
        now: UnixMs,
    ) -> Option<NodeId> {
        let alike = match self.alike.entry(print) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                tree.with_print(print).next()?;
                let reach = self.reach.get_or_insert_with(|| Reach::new(now));
                new.insert(Alike { reachable: reachable(tree, reach, print), other: None })
            }
        };
        if alike.reachable.is_empty() {
            return None;
        }
        let bytes = self.chunk_tokens as usize * TOKEN_BYTES;
        let window_at = |offset: u32| {
            let start = offset as usize * TOKEN_BYTES;
            tokens.get(start..start + bytes)
        };
        let window = window_at(offset)?;
        if alike.other.and_then(window_at) == Some(window) {
            return None;
        }
        work::count_bytes(window.len());
        let sha = content_of(&self.root, window).sha;
        let found = alike.reachable.iter().find(|(own, _)| *own == sha).map(|&(_, node)| node);
        if found.is_none() {
            alike.other = Some(offset);
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
pub fn keep_runs<T: Clone>(
    found: Vec<T>,
    offset: impl Fn(&T) -> u32,
    chunk_tokens: u32,
    least: usize,
) -> Vec<T> {
    if least <= 1 {
        return found;
    }
    let adjoin = |a: &T, b: &T| offset(a) + chunk_tokens == offset(b);
    found.chunk_by(adjoin).filter(|run| run.len() >= least).flatten().cloned().collect()
}
