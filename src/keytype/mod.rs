//! The data types: what each key holds, how it is saved, and how entries find their container.
//!
//! Owns: values as the server sees them and the registries that tie them together. Main thread,
//! except dropping and the forked child, as `ffi::value` says.

mod cache;
pub mod cache_registry;
mod chunk;
pub mod container_registry;
mod entry;
pub mod follower_table;
mod namespace;
pub mod namespace_registry;
pub mod session;

pub use cache::{
    AUDIT_COMMAND, CONFIG_COMMAND, CREATE_COMMAND, EPOCH_COMMAND, LABEL_COMMAND, cache_in,
    register_cache_types, set_cache,
};
pub use chunk::{CHUNK_COMMAND, ChunkValue, Whole, payload_crc, put_args};
pub use entry::{ENTRY_COMMAND, EntryValue, STALE_COMMAND, entry_value_bytes};
pub use namespace::{NAMESPACE_COMMAND, NamespaceValue};
pub use session::{APPLY_COMMAND, SessionValue};

/// What the server allocates around a module's value and leaves out of `MEMORY USAGE`: the object and the pair of type
/// and pointer.
const VALUE_OVERHEAD_BYTES: usize = 16 + 16;
