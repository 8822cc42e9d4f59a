//! Signals a container as modified when its keys came or went by themselves, for WATCH and client-side caching.
//!
//! Owns: that WATCH and client-side caching hear of the container, whose name is what a client read by. Main thread only.

use crate::ffi::{Ctx, RString};
use crate::keytype::cache_registry::CACHES;
use crate::keytype::namespace_registry::NAMESPACES;
use std::ffi::c_int;

/// Tells of the containers of a database, or of all, of which a key expired, was evicted, was deleted by its own name or
/// arrived since this was called last.
pub fn tell_changes(ctx: Ctx<'_>, db: Option<c_int>) {
    for (at, name) in CACHES.take_changed(db).into_iter().chain(NAMESPACES.take_changed(db)) {
        if ctx.db() == at || ctx.select_db(at) {
            ctx.signal_modified(&RString::new(&name));
        }
    }
}
