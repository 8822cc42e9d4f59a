//! Replays a trace of prompts (JSON lines with `hash_ids`) through the prefix tree at several capacities
//! and half-lives, and prints the share of blocks found as a leading run.
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
    println!("capacity  half-life in capacities: 1/16 1/8 1/4 1/2 1 2 4");
    for capacity in [2_500u64, 5_000, 10_000, 22_000, 40_000] {
        let hits = [16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25].map(|divisor: f64| {
            format!("{:5.2}", replay(&requests, capacity, capacity as f64 / divisor))
        });
        println!("{capacity:8}  {}", hits.join(" "));
    }
    Ok(())
}

/// Percent of blocks that a request found as part of its leading run.
fn replay(requests: &[Vec<ChunkDigest>], capacity: u64, half_life: f64) -> f64 {
    let mut tree = PrefixTree::default();
    // The tree derives the half-life from the capacity it is told, half of it.
    tree.set_capacity((half_life * 2.0) as u64);
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
    100.0 * found as f64 / asked as f64
}
