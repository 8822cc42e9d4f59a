//! The data types: what each key holds, how it is saved, and how entries find their container.
//!
//! Owns: values as the server sees them and the registry that ties them together. Main thread,
//! except dropping and the forked child, as `ffi::value` says.

mod cache;
mod entry;
pub mod registry;

pub use cache::{CONFIG_COMMAND, CREATE_COMMAND, CacheValue};
pub use entry::{ENTRY_COMMAND, EntryValue, entry_value_bytes};
