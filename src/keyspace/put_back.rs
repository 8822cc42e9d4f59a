//! Protects keys of containers from the server's eviction by hints, and restores those that it evicted all the same.
//!
//! Owns: the steps that caches and namespaces share. Main thread.

use crate::ffi::{Access, Ctx, Key, RString, WritePermit};
use crate::keytype::container_registry::{Container, Containers, Place, Shared};
use std::ffi::CStr;

/// Puts the containers that the server evicted back into their keys, as they were: `create` puts one into a key that is
/// free. AOF and replicas are told by `command` with the `head`, since they were told of the eviction. Returns how many
/// were put back.
pub(super) fn put_back<C: Container>(
    ctx: WritePermit<'_>,
    registry: &Containers<C>,
    create: impl Fn(WritePermit<'_>, &[u8], &Shared<C>),
    (command, head): (&CStr, impl Fn(&C) -> Vec<u8>),
) -> u64 {
    let mut count = 0;
    for evicted in registry.take_evicted() {
        let (db, name) = &evicted.place;
        if !ctx.select_db(*db) {
            continue;
        }
        let name_string = RString::new(name);
        if Key::open(*ctx, &name_string, Access::Unasked).is_some() {
            registry.give_up(&evicted);
            continue;
        }
        create(ctx, name, &evicted.container);
        let head = evicted.container.with(|container| head(container));
        ctx.replicate(command, &[name, &head]);
        if evicted.expire_at_ms > 0 {
            Key::open_to_write(ctx, &name_string).set_expire_at_ms(evicted.expire_at_ms);
            ctx.replicate(c"PEXPIREAT", &[name, evicted.expire_at_ms.to_string().as_bytes()]);
        }
        count += 1;
    }
    count
}

/// Gives the key of a container the strongest hints against the server's eviction, and notes its deadline.
/// `container_in` reads the container from the opened key.
pub fn shield<C: Container>(
    ctx: Ctx<'_>,
    registry: &Containers<C>,
    (db, name): &Place,
    container_in: impl Fn(&Key<'_>) -> Option<Shared<C>>,
) {
    let Some(mut key) = Key::open(ctx, &RString::new(name), Access::Unasked) else { return };
    key.hint_lfu(u8::MAX);
    key.hint_used_now();
    if let Some(container) = container_in(&key) {
        registry.note_expiry(&container, *db, key.expire_at_ms());
    }
}
