//! The prefix tree against a naive model: a map from digest to parent, searched whole.

use llmcache_core::ids::{MonotonicMs, UnixMs};
use llmcache_core::kvchunk::{
    ChunkDigest, Leases, NewNode, NodeId, PrefixTree, Reach, Refused, TOKEN_BYTES, content_of,
    find_contents,
};
use llmcache_core::limits::KV_LEASED_CHUNKS_MAX;
use llmcache_core::work::take_counted;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const ROOT: [u8; 32] = [7; 32];
const NAMES: u8 = 24;

fn name(at: u8) -> ChunkDigest {
    ChunkDigest::from_bytes(&[b'n', at]).unwrap()
}

fn node<'a>(digest: &'a ChunkDigest, parent: Option<&'a ChunkDigest>) -> NewNode<'a> {
    NewNode {
        digest,
        parent,
        content: None,
        position: 0,
        bytes: 10,
        payload_bytes: 8,
        expire_at: UnixMs::NEVER,
        prio: 0,
        pinned: false,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { at: u8, parent: Option<u8>, deadline: u64 },
    Remove(u8),
    Teach(u8, u8),
    PutBehind(u8, u8),
    Touch(u8),
    Pin(u8, bool),
    Lease(u8, u64),
    Release(u64),
    Evict(u64, u8),
    Capacity(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..NAMES;
    prop_oneof![
        6 => (at.clone(), proptest::option::weighted(0.8, at.clone()), 0u64..4)
            .prop_map(|(at, parent, deadline)| Step::Put { at, parent, deadline }),
        2 => at.clone().prop_map(Step::Remove),
        3 => (at.clone(), at.clone()).prop_map(|(ahead, own)| Step::Teach(ahead, own)),
        2 => (at.clone(), at.clone()).prop_map(|(ahead, own)| Step::PutBehind(ahead, own)),
        1 => at.clone().prop_map(Step::Touch),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, on)| Step::Pin(at, on)),
        1 => (at.clone(), 0u64..3).prop_map(|(at, id)| Step::Lease(at, id)),
        1 => (0u64..3).prop_map(Step::Release),
        1 => (0u64..60, at).prop_map(|(need, spare)| Step::Evict(need, spare)),
        1 => (0u64..10_000).prop_map(Step::Capacity),
    ]
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    parent: Option<u8>,
    deadline: u64,
    pinned: bool,
}

/// The model remembers the parent of what went, as the tree does while something hangs below it.
#[derive(Default)]
struct Model {
    here: HashMap<u8, Chunk>,
    leases: HashMap<u64, HashSet<u8>>,
}

impl Model {
    fn reachable(&self, at: u8, now: u64) -> bool {
        let mut at = Some(at);
        while let Some(name) = at {
            match self.here.get(&name) {
                Some(chunk) if chunk.deadline == 0 || chunk.deadline > now => at = chunk.parent,
                _ => return false,
            }
        }
        true
    }

    fn children(&self, of: u8) -> impl Iterator<Item = u8> + '_ {
        self.here.iter().filter(move |(_, chunk)| chunk.parent == Some(of)).map(|(&at, _)| at)
    }

    fn may_go(&self, at: u8) -> bool {
        !self.here[&at].pinned && !self.leases.values().any(|held| held.contains(&at))
    }

    fn remove(&mut self, at: u8) {
        self.here.remove(&at);
        self.leases.values_mut().for_each(|held| {
            held.remove(&at);
        });
    }

    /// Names that must stay because they, or something below them, may not go.
    fn kept(&self, tree: &PrefixTree, spare: Option<u8>) -> HashSet<u8> {
        let mut kept = HashSet::new();
        for &at in self.here.keys() {
            if Some(at) == spare || !self.may_go(at) {
                let mut up = Some(at);
                while let Some(name) = up {
                    kept.insert(name);
                    up = self.here.get(&name).and_then(|chunk| chunk.parent);
                    if up.is_none() {
                        let ahead = tree.find(&self::name(name)).and_then(|id| tree.ahead(id));
                        up = ahead.map(|id| tree.node(id).digest.as_bytes()[1]);
                    }
                }
            }
        }
        kept.retain(|at| self.here.contains_key(at));
        kept
    }
}

fn put(tree: &mut PrefixTree, model: &mut Model, at: u8, parent: Option<u8>, deadline: u64) {
    let (digest, above) = (name(at), parent.map(name));
    let own = UnixMs(deadline);
    let expire_at = tree.deadline_for(&digest, own);
    let new = NewNode { expire_at, ..node(&digest, above.as_ref()) };
    match tree.insert(&new) {
        Ok(id) => {
            model.remove(at);
            tree.raise_ancestors(id);
            let chunk = Chunk { parent, deadline: expire_at.0, pinned: false };
            model.here.insert(at, chunk);
            let mut up = parent;
            while let Some(chunk) = up.and_then(|name| model.here.get_mut(&name)) {
                if chunk.deadline != 0 && (expire_at.0 == 0 || chunk.deadline < expire_at.0) {
                    chunk.deadline = expire_at.0;
                }
                up = chunk.parent;
            }
        }
        Err(Refused::Circle) => {}
        Err(Refused::TooLong) => panic!("no chain is that long"),
    }
}

fn evict(tree: &mut PrefixTree, model: &mut Model, need: u64, spare: u8) {
    let spare_id = tree.find(&name(spare));
    let kept = model.kept(tree, spare_id.map(|_| spare));
    let plan = tree.plan_eviction(need, spare_id);
    let most = (model.here.len() - kept.len()) as u64 * 10;
    assert_eq!(plan.is_some(), need <= most, "{need} of {most}");
    let plan = plan.unwrap_or_default();
    assert!(plan.len() as u64 * 10 < need + 10, "no more than needed goes");
    for id in plan {
        let at = tree.node(id).digest.as_bytes()[1];
        assert!(!kept.contains(&at));
        assert_eq!(model.children(at).count(), 0, "leaves go first");
        assert!(tree.remove(&name(at)));
        model.remove(at);
        tree.check_invariants();
    }
}

/// Teaches chunks by their names, where both are there.
fn teach(tree: &mut PrefixTree, ahead: &ChunkDigest, own: &ChunkDigest) -> bool {
    tree.find(ahead).zip(tree.find(own)).is_some_and(|(ahead, own)| tree.teach(ahead, own))
}

/// A put that closes a circle in the model's memory of parents is refused by the tree; the model
/// mirrors only what was accepted.
fn run(steps: Vec<Step>) {
    let (mut tree, mut leases, mut model) =
        (PrefixTree::default(), Leases::default(), Model::default());
    for step in steps {
        match step {
            Step::Put { at, parent, deadline } => {
                put(&mut tree, &mut model, at, parent, deadline);
            }
            Step::Remove(at) => {
                assert_eq!(tree.remove(&name(at)), model.here.contains_key(&at));
                model.remove(at);
            }
            Step::Teach(ahead, own) => {
                let taught = teach(&mut tree, &name(ahead), &name(own));
                let is_new = model.here.get(&own).is_some_and(|chunk| chunk.parent.is_none());
                assert!(!taught || (is_new && model.here.contains_key(&ahead) && ahead != own));
            }
            Step::PutBehind(ahead, own) => {
                let expire_at = tree.deadline_for(&name(own), UnixMs::NEVER);
                tree.insert_behind(
                    &NewNode { expire_at, ..node(&name(own), None) },
                    Some(&name(ahead)),
                );
                model.remove(own);
                model
                    .here
                    .insert(own, Chunk { parent: None, deadline: expire_at.0, pinned: false });
            }
            Step::Touch(at) => {
                if let Some(id) = tree.find(&name(at)) {
                    tree.touch(&[id]);
                }
            }
            Step::Pin(at, on) => {
                if let Some(id) = tree.find(&name(at)) {
                    let chunk = model.here.get_mut(&at).unwrap();
                    assert_eq!(tree.set_pinned(id, on), chunk.pinned != on);
                    chunk.pinned = on;
                }
            }
            Step::Lease(at, id) => {
                let nodes: Vec<NodeId> = tree.find(&name(at)).into_iter().collect();
                leases.grant(&mut tree, id, &nodes, MonotonicMs(id + 1));
                model.leases.insert(id, nodes.iter().map(|_| at).collect());
            }
            Step::Release(id) => {
                let held = model.leases.remove(&id).unwrap_or_default();
                assert_eq!(leases.release(&mut tree, id), held.len());
            }
            Step::Evict(need, spare) => evict(&mut tree, &mut model, need, spare),
            Step::Capacity(chunks) => tree.set_capacity(chunks),
        }
        tree.check_invariants();
        assert_eq!(tree.chunks(), model.here.len() as u64);
        for at in 0..NAMES {
            let found = tree.find(&name(at));
            assert_eq!(found.is_some(), model.here.contains_key(&at));
            for now in [1, 3] {
                let mut reach = Reach::new(UnixMs(now));
                let all = (0..NAMES).filter_map(|other| Some((other, tree.find(&name(other))?)));
                for (other, id) in all.filter(|_| at == 0) {
                    assert_eq!(
                        reach.is_reachable(&tree, id),
                        model.reachable(other, now),
                        "all at once"
                    );
                }
                let reachable = found.is_some_and(|id| tree.is_reachable(id, UnixMs(now)));
                assert_eq!(reachable, model.reachable(at, now), "{at} at {now}");
            }
        }
    }
    // What no prefix reaches is listed once, children first.
    let orphans: Vec<u8> = tree
        .orphans(usize::MAX, |_| true)
        .iter()
        .map(|&id| tree.node(id).digest.as_bytes()[1])
        .collect();
    let wanted: HashSet<u8> =
        model.here.keys().copied().filter(|&at| cut_off(&model, at)).collect();
    assert_eq!(orphans.iter().copied().collect::<HashSet<_>>(), wanted);
    assert_eq!(orphans.len(), wanted.len());
    for (place, &at) in orphans.iter().enumerate() {
        assert!(!orphans[..place].iter().any(|&before| model.here[&at].parent == Some(before)));
    }
}

fn cut_off(model: &Model, at: u8) -> bool {
    let mut at = Some(at);
    while let Some(name) = at {
        match model.here.get(&name) {
            Some(chunk) => at = chunk.parent,
            None => return true,
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn tree_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        run(steps);
    }

    /// Tokens cut from stored chunks are found wherever they stand, and nothing else is.
    #[test]
    fn contents_are_found_at_any_offset(
        picks in proptest::collection::vec(0u32..12, 0..40),
        stride in 1u32..4,
        least_run in 1u32..3,
    ) {
        const WINDOW: u32 = 4;
        // Chunks 0 to 7 are stored; numbers above stand for single foreign tokens.
        let chunk_tokens = |chunk: u32| (0..WINDOW).map(move |at| chunk * 10 + at % 3);
        let blob = |tokens: &[u32]| -> Vec<u8> { tokens.iter().flat_map(|t| t.to_le_bytes()).collect() };
        let mut tree = PrefixTree::default();
        let mut stored = HashMap::new();
        for chunk in 0..8u32 {
            let bytes = blob(&chunk_tokens(chunk).collect::<Vec<_>>());
            let digest = name(chunk as u8);
            let new = NewNode { content: Some(content_of(&ROOT, &bytes)), ..node(&digest, None) };
            stored.insert(bytes, tree.insert(&new).unwrap());
        }
        let tokens: Vec<u32> = picks
            .iter()
            .flat_map(|&pick| if pick < 8 { chunk_tokens(pick).collect() } else { vec![1_000 + pick] })
            .collect();
        let bytes = blob(&tokens);
        let mut wanted: Vec<(u32, NodeId)> = Vec::new();
        let mut at = 0u32;
        while (at + WINDOW) as usize <= tokens.len() {
            let window = &bytes[at as usize * TOKEN_BYTES..(at + WINDOW) as usize * TOKEN_BYTES];
            match stored.get(window) {
                Some(&id) if at.is_multiple_of(stride) => {
                    wanted.push((at, id));
                    at += WINDOW;
                }
                _ => at += 1,
            }
        }
        let runs = wanted.chunk_by(|a, b| a.0 + WINDOW == b.0);
        let wanted: Vec<(u32, NodeId)> =
            runs.filter(|run| run.len() >= least_run as usize).flatten().copied().collect();
        let found = find_contents(&tree, &ROOT, &bytes, WINDOW, stride, least_run, UnixMs(1));
        let found: Vec<(u32, NodeId)> = found.iter().map(|f| (f.offset, f.node)).collect();
        prop_assert_eq!(found, wanted);
    }
}

/// Chunks stored for themselves, taught their order: the last goes first, and none needs another to be there.
#[test]
fn what_was_taught_decides_who_goes_first_and_nothing_else() {
    let names: Vec<ChunkDigest> = (0..4).map(name).collect();
    let mut tree = PrefixTree::default();
    for digest in &names {
        tree.insert(&node(digest, None)).unwrap();
    }
    let order = |tree: &mut PrefixTree| -> Vec<u8> {
        let plan = tree.plan_eviction(40, None).unwrap();
        plan.iter().map(|&id| tree.node(id).digest.as_bytes()[1]).collect()
    };
    assert_eq!(order(&mut tree), [0, 1, 2, 3], "the oldest first, which ends every prefix");
    for (ahead, own) in [(2, 3), (1, 2), (0, 1)] {
        assert!(teach(&mut tree, &names[ahead], &names[own]));
        assert!(!teach(&mut tree, &names[ahead], &names[own]), "known");
    }
    assert!(!teach(&mut tree, &names[3], &names[0]), "that would lead round");
    assert_eq!((order(&mut tree), tree.taught()), (vec![3, 2, 1, 0], 3));

    // One that goes takes nobody along, and one of its name that comes later is another.
    assert!(tree.remove(&names[1]));
    let last = tree.find(&names[3]).unwrap();
    assert!(tree.is_reachable(last, UnixMs(0)));
    assert_eq!((tree.orphans(9, |_| true).len(), tree.taught()), (0, 1));
    tree.insert(&node(&names[1], None)).unwrap();
    assert_eq!(tree.taught(), 1);

    // What is stored behind another is believed, whatever was taught.
    tree.insert(&node(&names[2], Some(&names[3]))).unwrap();
    assert_eq!(tree.taught(), 0);
    tree.check_invariants();
}

/// A long prompt that is taught from its end on, and one that goes on behind it, cost a bounded walk a chunk.
#[test]
fn teaching_walks_no_further_than_allowed() {
    let names: Vec<ChunkDigest> =
        (0..6_000u32).map(|at| ChunkDigest::from_bytes(&at.to_be_bytes()).unwrap()).collect();
    let mut tree = PrefixTree::default();
    let mut ahead = None;
    for digest in &names {
        tree.insert_behind(&node(digest, None), ahead);
        ahead = Some(digest);
    }
    assert_eq!(tree.taught(), 5_999);
    let [other, behind] = [b"other", b"below"].map(|name| ChunkDigest::from_bytes(name).unwrap());
    tree.insert(&node(&other, None)).unwrap();
    tree.insert_behind(&node(&behind, None), Some(&other));
    take_counted();
    assert!(
        !teach(&mut tree, &names[5_999], &other),
        "too far to see that it leads round in no circle"
    );
    let walked = take_counted().path;
    assert!((4_096..4_200).contains(&walked), "{walked}");
    assert!(teach(&mut tree, &names[3_000], &other));
}

#[test]
fn the_least_used_leaf_goes_first_and_prio_keeps() {
    let mut tree = PrefixTree::default();
    tree.set_capacity(1_000);
    let names: Vec<ChunkDigest> = (0..6).map(name).collect();
    // 0 - 1 - 2, 0 - 3, and two alone: 4 with a priority, 5 used often.
    for (at, parent, prio) in [
        (0, None, 0),
        (1, Some(0), 0),
        (2, Some(1), 0),
        (3, Some(0), 0),
        (4, None, 3),
        (5, None, 0),
    ] {
        let parent = parent.map(|above: usize| &names[above]);
        tree.insert(&NewNode { prio, ..node(&names[at], parent) }).unwrap();
    }
    let id = |tree: &PrefixTree, at: usize| tree.find(&names[at]).unwrap();
    for _ in 0..3 {
        let often = id(&tree, 5);
        tree.touch(&[often]);
    }
    let used = id(&tree, 3);
    tree.touch(&[used]);
    let plan = tree.plan_eviction(60, None).unwrap();
    let order: Vec<u8> = plan.iter().map(|&id| tree.node(id).digest.as_bytes()[1]).collect();
    assert_eq!(order, [2, 1, 3, 0, 5, 4]);
}

/// Asks for `chains` of five chunks in turns and stores what is missing, with room for `capacity` chunks;
/// answers the share of the last quarter of the rounds that was there.
fn asked_in_turns(chains: u32, capacity: u64, rounds: u32) -> (f64, u32) {
    let mut tree = PrefixTree::default();
    tree.set_capacity(capacity);
    let (mut asked, mut found) = (0u32, 0usize);
    for at in 0..chains * rounds {
        let names: Vec<ChunkDigest> = (0..5u32)
            .map(|i| {
                ChunkDigest::from_bytes(&[at % chains, i].map(u32::to_le_bytes).concat()).unwrap()
            })
            .collect();
        let run: Vec<NodeId> = names.iter().map_while(|digest| tree.find(digest)).collect();
        tree.touch(&run);
        if at >= chains * rounds / 4 * 3 {
            (asked, found) = (asked + 5, found + run.len());
        }
        for (i, digest) in names.iter().enumerate().skip(run.len()) {
            let parent = i.checked_sub(1).map(|before| &names[before]);
            let id = tree.insert(&node(digest, parent)).unwrap();
            let over = tree.chunk_bytes().saturating_sub(capacity * 10);
            for victim in tree.plan_eviction(over, Some(id)).unwrap() {
                let digest = tree.node(victim).digest.clone();
                tree.remove(&digest);
            }
        }
        assert!(tree.chunks() <= capacity);
    }
    tree.check_invariants();
    (found as f64 / f64::from(asked), tree.one_chain_in())
}

#[test]
fn what_comes_round_too_late_for_all_is_found_for_some() {
    // The last used going last would find nothing of 2,000 chunks that come round in the same order.
    let (share, one_in) = asked_in_turns(400, 1_000, 60);
    assert!(one_in > 1 && share >= 0.2, "{share} of 0.5 with one in {one_in}");
    let (share, one_in) = asked_in_turns(180, 1_000, 60);
    assert_eq!((share, one_in), (1.0, 1), "all fit, all are kept");
}

#[test]
fn chains_end_at_their_limit_and_never_close() {
    let mut tree = PrefixTree::default();
    let names: Vec<ChunkDigest> =
        (0..66_000u32).map(|at| ChunkDigest::from_bytes(&at.to_le_bytes()).unwrap()).collect();
    // From the tail: each put sees a ghost above it, so that none is refused for its length.
    for at in (1..66_000).rev() {
        tree.insert(&node(&names[at], Some(&names[at - 1]))).unwrap();
    }
    let id = tree.find(&names[65_999]).unwrap();
    assert!(!tree.is_reachable(id, UnixMs(1)), "its first chunk is not there");
    assert_eq!(tree.insert(&node(&names[0], Some(&names[60_000]))), Err(Refused::Circle));
    tree.insert(&node(&names[0], None)).unwrap();
    assert!(!tree.is_reachable(id, UnixMs(1)), "too far from its first chunk");
    let near = tree.find(&names[65_535]).unwrap();
    assert!(tree.is_reachable(near, UnixMs(1)));
    // From the head: the one beyond the limit is refused, with nothing walked over.
    let other =
        |at: u32| ChunkDigest::from_bytes(&[&b"o"[..], &at.to_le_bytes()].concat()).unwrap();
    tree.insert(&node(&other(0), None)).unwrap();
    for at in 1..65_536 {
        tree.insert(&node(&other(at), Some(&other(at - 1)))).unwrap();
    }
    take_counted();
    assert_eq!(tree.insert(&node(&other(65_536), Some(&other(65_535)))), Err(Refused::TooLong));
    assert!(take_counted().path < 10);
    tree.check_invariants();
}

/// Walks of a command over many chunks of one chain against the walks one by one, and their steps, which grow as
/// the number of chunks.
#[test]
fn many_chunks_of_a_chain_cost_one_walk() {
    const CHUNKS: u32 = 4_000;
    let mut tree = PrefixTree::default();
    let names: Vec<ChunkDigest> =
        (0..CHUNKS).map(|at| ChunkDigest::from_bytes(&at.to_le_bytes()).unwrap()).collect();
    let mut lineage = tree.lineage(None);
    for (at, digest) in names.iter().enumerate() {
        let parent = at.checked_sub(1).map(|before| &names[before]);
        lineage.check(digest).unwrap();
        tree.insert(&node(digest, parent)).unwrap();
        lineage.push(&tree, digest);
    }
    assert_eq!(lineage.check(&names[17]), Err(Refused::Circle));
    assert!(take_counted().path < 4 * u64::from(CHUNKS), "storing a chain");
    let ids: Vec<NodeId> = names.iter().map(|digest| tree.find(digest).unwrap()).collect();
    let mut walked = vec![ids[0]];
    while let Some(next) = tree.next_below(ids[0], walked[walked.len() - 1], true) {
        walked.push(next);
    }
    assert_eq!(walked, ids);
    assert_eq!(tree.next_below(ids[0], ids[0], false), None);
    assert_eq!(tree.first_leaf(ids[0]), ids[ids.len() - 1]);
    let mut reach = Reach::new(UnixMs(1));
    assert!(ids.iter().all(|&id| reach.is_reachable(&tree, id)));
    assert!(take_counted().path < 12 * u64::from(CHUNKS), "walking over it");
    tree.remove(&names[0]);
    let mut reach = Reach::new(UnixMs(1));
    assert!(!ids[1..].iter().any(|&id| reach.is_reachable(&tree, id)));
    assert_eq!(
        tree.orphans(10, |_| true),
        ids[1..].iter().rev().take(10).copied().collect::<Vec<_>>()
    );
    assert!(take_counted().path < 4 * u64::from(CHUNKS), "after its first chunk went");
}

/// A prompt of one token, and every chunk of it stored: what is found and what that costs, with the first chunk
/// there and without it.
#[test]
fn equal_tokens_are_searched_in_steps_of_their_number() {
    const WINDOW: u32 = 8;
    const CHUNKS: u32 = 1_000;
    let tokens: Vec<u8> = (0..CHUNKS * WINDOW).flat_map(|_| 7u32.to_le_bytes()).collect();
    let content = content_of(&ROOT, &tokens[..WINDOW as usize * TOKEN_BYTES]);
    let names: Vec<ChunkDigest> =
        (0..CHUNKS).map(|at| ChunkDigest::from_bytes(&at.to_le_bytes()).unwrap()).collect();
    let mut tree = PrefixTree::default();
    for (at, digest) in names.iter().enumerate() {
        let parent = at.checked_sub(1).map(|before| &names[before]);
        tree.insert(&NewNode { content: Some(content), ..node(digest, parent) }).unwrap();
    }
    take_counted();
    let found = find_contents(&tree, &ROOT, &tokens, WINDOW, 1, 1, UnixMs(1));
    assert!(found.iter().map(|f| f.offset).eq((0..CHUNKS).map(|at| at * WINDOW)));
    let there = take_counted();
    assert!(there.path < u64::from(4 * CHUNKS * WINDOW), "{there:?}");
    assert!(there.bytes <= tokens.len() as u64, "{there:?}");
    tree.remove(&names[0]);
    assert_eq!(find_contents(&tree, &ROOT, &tokens, WINDOW, 1, 1, UnixMs(1)), []);
    let gone = take_counted();
    assert!(gone.path < u64::from(4 * CHUNKS * WINDOW) && gone.bytes == 0, "{gone:?}");
    for digest in &names[1..] {
        tree.remove(digest);
    }
    assert!(take_counted().path < u64::from(4 * CHUNKS), "removing chunks of one print");
    tree.check_invariants();
}

#[test]
fn chunks_of_all_leases_have_a_bound_and_are_counted_whatever_ends_them() {
    let (mut tree, mut leases) = (PrefixTree::default(), Leases::default());
    let chunk = tree.insert(&node(&name(0), None)).unwrap();
    let many = vec![chunk; KV_LEASED_CHUNKS_MAX / 2];
    leases.grant(&mut tree, 1, &many, MonotonicMs::NEVER);
    assert!(!leases.is_full());
    leases.grant(&mut tree, 2, &many[1..], MonotonicMs::NEVER);
    assert!(!leases.is_full());
    assert!(leases.add(&mut tree, 2, chunk));
    assert!(leases.is_full());
    assert_eq!(leases.release_some(&mut tree, 1, 1), (1, true));
    assert!(!leases.is_full());
    leases.release(&mut tree, 1);
    leases.release(&mut tree, 2);
    // Memory is counted by chunks held.
    assert_eq!(leases.bytes(), 0);
}
