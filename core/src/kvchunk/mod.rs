//! Attention KV-cache chunks: how they are named, what a namespace and a chunk hold besides the
//! payload, which prefix is there, who is to go first.
//!
//! Owns: everything of `KVCHUNK.*` that needs no server. Payloads are the adapter's: this module
//! knows their length and checksum only. Callers pass in the time and random words. Main thread;
//! heads and headers are written in the forked child too.

mod digest;
mod find;
mod header;
mod lease;
mod namespace;
mod segments;
mod settings;
mod tree;

pub use digest::{ChunkDigest, Content, Links, TOKEN_BYTES, chain, content_of, root};
pub use find::{ContentWalk, Found, find_contents, keep_runs};
pub use header::{ChunkHeader, Stub, TAG_CHUNK, TAG_STUB};
pub use lease::{LeaseId, Leases};
pub use namespace::{ChunkKey, KvStats, KvTotals, Namespace, TAG_NAMESPACE};
pub use segments::{SEGMENT_MAX_BYTES, fits_its_class, segment_plan};
pub use settings::{Checksum, Dtype, Durable, NamespaceSettings};
pub use tree::{Lineage, NewNode, Node, NodeId, PrefixTree, Reach, Refused};
