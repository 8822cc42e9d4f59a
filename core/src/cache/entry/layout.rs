//! Offsets of the fields in an entry's header (`docs/formats.md`), and its flag bits.
//!
//! Owns: constants only, shared by the files beside it.

pub const VERSION: u8 = 3;
/// What every entry has. Short, because an allocation is rounded up to its class: what most entries do
/// not have stands in two groups of which an entry carries those that it needs.
pub const HEADER: usize = 36;
pub const FLAGS_AT: usize = 1;
pub const DIM_AT: usize = 2;
pub const SLOT_AT: usize = 4;
pub const UID_AT: usize = 8;
pub const SEQ_AT: usize = 16;
pub const RESPONSE_LEN_AT: usize = 32;
/// The bits of the flags that say how the vector is kept.
pub const QUANT: u8 = 3;
/// Flag of an entry that was invalidated softly: stale whatever its age.
pub const STALE: u8 = 4;
/// Flag of an embedding: the prompt is a digest of 32 bytes, and its first half the id.
pub const EMBEDDING: u8 = 8;
/// Flag of an entry with the group of what its answer cost: `COST`, `TOKENS`, `LATENCY`, `GRACE`.
pub const COSTS: u8 = 16;
pub const COSTS_BYTES: usize = 20;
/// Flag of an entry with the group of the lengths that most entries have none of.
pub const LABELS: u8 = 32;
pub const LABELS_BYTES: usize = 14;
/// Flag of an entry whose response is packed.
pub const PACKED: u8 = 64;
/// What fits the six bytes of a time: milliseconds until the year 10889.
pub const TIME_MAX: u64 = (1 << 48) - 1;
/// Bytes of the norm that an embedding keeps in the place of a response.
pub const NORM_BYTES: usize = 8;
