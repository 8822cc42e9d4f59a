//! When a caller asks again, and when an answer is regenerated before it expires (early refresh).
//!
//! Owns: arithmetic on random words that the caller draws.

/// When to ask again for an answer that is being made: a quarter of what is left of the lease, between
/// a fortieth of a second and a second, spread by half of that, so that those sent away together do not
/// come back together.
pub fn retry_ms(left_ms: u64, random: u64) -> u64 {
    let base = (left_ms / 4).clamp(25, 1_000);
    base + random % (base / 2)
}

/// Whether to make an answer anew before its time, so that not all who ask when it expires find none:
/// with probability exp(-left / (beta latency)), drawn by `random` (Vattani, Chierichetti, Lowenstein,
/// "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015, section 4).
pub fn refreshes_early(left_ms: u64, latency_ms: u64, beta: f64, random: u64) -> bool {
    // 53 random bits make a number in (0, 1].
    let drawn = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -drawn.ln() * beta * latency_ms as f64 >= left_ms as f64
}
