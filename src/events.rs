//! Handles keyspace and server events: keeps registry and index in step with keys that change by other ways than the
//! module's commands. Writes nothing to the keyspace.

use crate::ffi::{Access, Ctx, Key, RString, ServerEvents};
use crate::keyspace::{
    attach_arrival, chunk_arrived, deadline_was_moved, followers, tell_changes, void_all_leases,
    with_known_flights,
};
use crate::keytype::cache_registry::{CACHES, Place, SharedCache};
use crate::keytype::namespace_registry::NAMESPACES;
use crate::keytype::session::any_slides;
use crate::keytype::{NamespaceValue, cache_in, cache_registry, namespace_registry};
use crate::{background, ffi};
use llmcache_core::cache::Flights;
use llmcache_core::cluster::key_slot;
use std::cell::Cell;

/// Subscribes to everything.
pub fn subscribe(ctx: Ctx<'_>) -> bool {
    ffi::subscribe(
        ctx,
        ServerEvents {
            keyspace: on_keyspace,
            loading_started: |_| cache_registry::loading_started(),
            loading_ended: on_loading_ended,
            flushed: |ctx, db| {
                cache_registry::flushed(db);
                namespace_registry::flushed(db);
                followers::flushed(ctx, db);
            },
            swapped: |ctx, first, second| {
                cache_registry::swapped(first, second);
                namespace_registry::swapped(first, second);
                followers::flushed(ctx, Some(first));
                followers::flushed(ctx, Some(second));
            },
            role_changed: |ctx| {
                followers::flushed(ctx, None);
                forget_term();
            },
        },
    )
}

/// Another server is, or was, the primary: what was invalidated there voids leases that were granted here, and what
/// the server evicted here is not put back over what was done there.
fn forget_term() {
    void_all_leases();
    CACHES.give_up_evicted();
    NAMESPACES.give_up_evicted();
}

fn on_keyspace(ctx: Ctx<'_>, event: &[u8], key: &[u8]) {
    followers::wake_bereft(ctx);
    tell_changes(ctx, Some(ctx.db()));
    if matches!(event, b"restore" | b"rename_to" | b"move_to" | b"copy_to") {
        followers::wake_arrived(ctx, key);
    }
    match event {
        b"restore" => on_arrival(ctx, key, on_restored),
        b"rename_to" | b"move_to" => on_arrival(ctx, key, cache_registry::place),
        b"expire" | b"persist" => on_deadline(ctx, key),
        b"evicted" if CACHES.evicted(ctx.db(), key) || NAMESPACES.evicted(ctx.db(), key) => {
            background::put_back_soon(ctx);
        }
        b"evicted" => background::chunks::arm_soon(ctx),
        _ => return,
    }
    // What arrived is known by now.
    tell_changes(ctx, Some(ctx.db()));
}

fn on_deadline(ctx: Ctx<'_>, name: &[u8]) {
    if any_slides() {
        deadline_was_moved(ctx, name);
    }
    // Where there is no cache there is no entry to tell.
    if CACHES.count() == 0 {
        return;
    }
    if let Some(key) = Key::open(ctx, &RString::new(name), Access::Unasked)
        && let Some(cache) = cache_in(&key)
    {
        CACHES.note_expiry(&cache, ctx.db(), key.expire_at_ms());
        return;
    }
    attach_arrival(ctx, name, false);
}

/// What was invalidated on another server, or after the dump was made, voids leases that were granted here before.
fn on_restored(cache: &SharedCache, place: Place) {
    let uid = cache.with(|cache| cache.uid());
    with_known_flights(uid, Flights::note_picked);
    cache_registry::restored(cache, place);
}

/// Keys that waited for a container and are looked at in the command that brings it, so that whatever comes next, here or
/// on a replica, finds them known; further ones are looked at between commands.
const ATTACHED_AT_ONCE: usize = 32;

fn on_arrival(ctx: Ctx<'_>, name: &[u8], place_cache: fn(&SharedCache, Place)) {
    let db = ctx.db();
    arrive(ctx, name, place_cache);
    let left = Cell::new(ATTACHED_AT_ONCE);
    let has_room = || left.replace(left.get().saturating_sub(1)) > 0;
    background::attach_arrivals(ctx, has_room);
    background::chunks::attach_arrivals(ctx, has_room);
    if ctx.db() != db {
        ctx.select_db(db);
    }
}

fn arrive(ctx: Ctx<'_>, name: &[u8], place_cache: fn(&SharedCache, Place)) {
    let namespace = Key::open(ctx, &RString::new(name), Access::Unasked)
        .and_then(|key| key.value::<NamespaceValue>().cloned());
    if let Some(value) = namespace {
        let place = (ctx.db(), name.to_vec());
        let slot = value.0.with(|namespace| key_slot(namespace.prefix()));
        if ctx.state().is_cluster() && slot != key_slot(name) {
            NAMESPACES.become_other(&value.0, &place);
        }
        namespace_registry::place(&value.0, place);
        return;
    }
    chunk_arrived(ctx, name);
    let cache = Key::open(ctx, &RString::new(name), Access::Unasked).and_then(|key| cache_in(&key));
    match cache {
        Some(cache) => {
            let place = (ctx.db(), name.to_vec());
            let slot = cache.with(|cache| key_slot(cache.prefix()));
            if ctx.state().is_cluster() && slot != key_slot(name) {
                // A dump restored under a name of another slot: its entry keys would be elsewhere.
                CACHES.become_other(&cache, &place);
            }
            place_cache(&cache, place);
        }
        None => {
            attach_arrival(ctx, name, true);
        }
    }
}

fn on_loading_ended(ctx: Ctx<'_>) {
    cache_registry::loading_ended();
    namespace_registry::loading_ended();
    // An AOF without preamble may name entries before their cache: they are brought together before
    // the first client is served.
    background::attach_arrivals(ctx, || true);
    background::chunks::attach_arrivals(ctx, || true);
}
