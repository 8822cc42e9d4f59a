//! The prefix tree of a namespace: which chunks are there, which follows which, which is evicted first.
//!
//! Owns: nodes in a slab, found by digest; children linked through their siblings (`nodes`). `change` inserts and
//! removes, `order` says who is evicted first, `deadlines` keeps none before one that follows it, `orphans` finds what no
//! prefix reaches. A *ghost* is a node whose chunk is not there but whose children are: what is below it cannot be
//! reached by a prefix. Everything here is a hint: a chunk counts once its key was opened. Main thread.

mod admission;
mod change;
mod check;
mod deadlines;
mod lineage;
mod node;
mod nodes;
mod order;
mod orphans;
mod taught;

pub use change::Refused;
pub use lineage::{Lineage, Reach};
pub use node::{NewNode, Node, NodeId};
pub use nodes::PrefixTree;
