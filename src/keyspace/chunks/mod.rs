//! Opening, storing and removing the keys of KV-cache chunks, and bringing them into the tree of their
//! namespace.
//!
//! Only leaves of the prefix tree carry a deadline of their own in Redis: what the server may expire
//! or, under `volatile-*`, evict is then never in the middle of a prefix. The deadline that counts is
//! in the header. Main thread only.

mod arrival;
mod deadlines;
mod open;
mod removal;
mod store;
mod uses;

pub use arrival::{ChunkSeen, attach_chunk, chunk_arrived};
pub use deadlines::{arm_new_leaves, due_before, ending_before, raise_deadline, remove_due};
pub use open::{LeadingRun, OpenedChunk, is_reachable, open_chunk, open_reachable};
pub use removal::{
    doomed_for, evict_one, make_room, remove_chunk, remove_node, remove_stub, shrink_to,
};
pub use store::{NewChunk, chunk_bytes, pin_chunk, put_chunk, refused_parent};
pub use uses::{UseWalk, hint_strongly, use_chunk, use_chunks, use_stored};
