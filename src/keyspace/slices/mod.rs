//! Commands that do much are cut into slices: the first slice at once, the rest between commands of other clients
//! while the client waits.
//!
//! Where a client may not wait (MULTI, scripts, AOF, replicas) all is done at once, and more than
//! `limits::UNBLOCKABLE_PIECES_MAX` is refused. A reply that takes long to write is written in slices too. Main thread
//! only.

mod pieces;
mod removals;
mod turns;

pub(super) use pieces::Budget;
pub use pieces::{Awaited, Pieces, Resume, reply_whole};
pub use removals::Removals;
pub(super) use turns::refusal;
pub use turns::{run_detached, run_pieces, sliced_count};
