//! Commands: `table` lists them all, `parse` reads arguments, one folder a family does the work.
//!
//! A command named `LLMCACHE.GETSEM` is in `llmcache/getsem.rs`. Each file parses into a typed
//! request first, then acts, then replies; an error leaves everything as it was. Main thread only.

mod container;
mod embcache;
mod filtered;
mod kvchunk;
mod llmcache;
mod parse;
mod rag;
mod session;
pub mod table;
