//! Replays a trace of prompts (JSON lines with `hash_ids`) through the prefix tree at several capacities,
//! and prints the share of blocks found as a leading run, and how the tree ages and keeps at the end.
//!
//!     cargo run --release -p llmcache-core --example kvtrace -- <trace.jsonl>
//!
//! Every block weighs the same and every miss of a request is stored, oldest first.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, NewNode, PrefixTree};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a trace is needed")?;
    let mut requests: Vec<Vec<ChunkDigest>> = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let request: serde_json::Value = serde_json::from_str(line)?;
        let ids = request["hash_ids"].as_array().ok_or("a line without hash_ids")?;
        let digest = |id: &serde_json::Value| {
            ChunkDigest::from_bytes(&id.as_u64().unwrap_or(0).to_le_bytes())
        };
        requests.push(ids.iter().filter_map(digest).collect());
    }
    println!("capacity   hits %  half-life  kept: one chain in");
    for capacity in [1_250u64, 2_500, 5_000, 10_000, 16_000, 22_000, 40_000] {
        let (hits, tree) = replay(&requests, capacity);
        let (half_life, one_in) = (tree.half_life(), tree.one_chain_in());
        println!("{capacity:8}  {hits:7.2}  {half_life:9.0}  {one_in:18}");
    }
    Ok(())
}

/// Percent of blocks that a request found as part of its leading run, and the tree as it is then.
fn replay(requests: &[Vec<ChunkDigest>], capacity: u64) -> (f64, PrefixTree) {
    let mut tree = PrefixTree::default();
    tree.set_capacity(capacity);
    let (mut asked, mut found) = (0u64, 0u64);
    for chain in requests {
        let run: Vec<_> = chain.iter().map_while(|digest| tree.find(digest)).collect();
        asked += chain.len() as u64;
        found += run.len() as u64;
        tree.touch(&run);
        for (position, digest) in chain.iter().enumerate().skip(run.len()) {
            let parent = position.checked_sub(1).map(|before| &chain[before]);
            let new = NewNode {
                digest,
                parent,
                content: None,
                position: position as u32,
                bytes: 1,
                payload_bytes: 1,
                expire_at: UnixMs::NEVER,
                prio: 0,
                pinned: false,
            };
            let Ok(node) = tree.insert(&new) else { break };
            if tree.chunks() > capacity {
                for victim in tree.plan_eviction(1, Some(node)).unwrap_or_default() {
                    let digest = tree.node(victim).digest.clone();
                    tree.remove(&digest);
                }
            }
        }
    }
    (100.0 * found as f64 / asked as f64, tree)
}
