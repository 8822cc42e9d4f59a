//! The eviction policy: which entry is worth least, and the hints that Redis' own eviction gets.
//!
//! Owns: arithmetic. What to delete and when is the adapter's, on the primary only. Any thread.

mod frequency;
mod worth;

pub use frequency::{AgedFrequency, minute};
pub use worth::{initial_lfu, keep_value, lfu_after, worth};

/// Entries looked at to find one victim. Sampling sixteen finds, on average, one of the worst 6 %,
/// at a cost that does not grow with the container.
pub const VICTIM_SAMPLES: usize = 16;
