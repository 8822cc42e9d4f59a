//! Commands: `table` lists them all, `parse` reads arguments, one folder a family does the work.
//!
//! A command named `LLMCACHE.GETSEM` is in `llmcache/getsem.rs`. Each file parses into a typed
//! request first, then acts, then replies; an error leaves everything as it was. Main thread only.

mod embcache;
mod kvchunk;
mod llmcache;
mod parse;
mod rag;
mod session;
mod store;
pub mod table;
mod table_embcache;
mod table_fetch;
mod table_kvchunk;
mod table_rag;
mod table_session;
