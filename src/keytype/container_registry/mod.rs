//! The registry of containers of one kind: which exist, under which names, and which keys look for theirs. Caches
//! with their entries and namespaces with their chunks share it.
//!
//! Owns: the map from uid to container (`known`), how a container comes to stand in a key (`placing`), what becomes of
//! one whose key went (`keyless`), keys that arrived before their container (`arrivals`). All of it is derived: the map
//! is filled as keys are loaded, created, restored, renamed or moved, and an empty one is legal. Nothing here opens
//! keys. Main thread only.
//!
//! Nothing lists all containers: whoever visits them goes on from a `Round`, a few at a time. Each
//! database has its own map, so that a flush or a swap moves a map and no container.

mod arrivals;
mod keyless;
mod known;
mod places;
mod placing;

pub use known::{Container, Containers, Keyless, Place, Placed, Round, shared, swap_db};
pub use places::Shared;
