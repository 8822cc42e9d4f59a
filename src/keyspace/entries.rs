//! Opens, stores and removes the keys of entries.

use super::attach::{Linking, Response, index_entry, key_bytes};
use super::caches::unlink_key;
use super::changes::tell_changes;
use super::clock::now_min;
use crate::ffi::{Access, Ctx, HeldString, Key, KeyOf, RString, ServerString, Thin, WritePermit};
use crate::keytype::cache_registry::{self, CACHES, SharedCache};
use crate::keytype::{ENTRY_COMMAND, EntryValue, STALE_COMMAND};
use llmcache_core::cache::{Entry, EntryKey};
use llmcache_core::evict::{AgedFrequency, lfu_after};
use llmcache_core::ids::{ContainerUid, SlotId, UnixMs};
use llmcache_core::words::TextWords;
use std::ops::Deref;

/// Most entries removed in one go to get back under a limit; the rest goes in the background.
const EVICT_AT_ONCE: usize = 64;

/// An opened entry key.
#[derive(Debug)]
pub struct OpenedEntry<'a> {
    pub(super) key: KeyOf<'a, EntryValue>,
    pub(super) is_used: bool,
}

impl OpenedEntry<'_> {
    /// The deadline in Unix milliseconds; 0 for none.
    pub fn expire_at_ms(&self) -> u64 {
        self.key.expire_at_ms()
    }

    /// Counts a use of the key in the server's LRU and LFU, as reading it would. The key must not be due.
    pub fn touch(&self) {
        self.key.touch();
    }

    /// Whether opening it counted as a use of the key.
    pub fn is_used(&self) -> bool {
        self.is_used
    }
}

impl Deref for OpenedEntry<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.key
    }
}

/// Opens the entry in a key.
pub fn open_entry<'a>(ctx: Ctx<'a>, key: &[u8], access: Access) -> Option<OpenedEntry<'a>> {
    let key = Key::open(ctx, &RString::new(key), access)?.into_typed()?;
    Some(OpenedEntry { key, is_used: access == Access::Read })
}

/// An entry on its way into its key.
#[derive(Debug)]
pub struct NewEntry {
    /// Its key.
    pub key: EntryKey,
    /// The entry.
    pub entry: Box<Entry>,
    /// Its response as it was given, where that is still at hand.
    pub text: Option<HeldString>,
    /// The words of its response, where it is long and was read part by part.
    pub words: Option<Box<TextWords>>,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// When its graph is brought up, where that is behind.
    pub linking: Linking,
    /// Hits it had where it comes from; 0 for what is new.
    pub hits: u32,
}

impl NewEntry {
    /// Memory its key will take.
    pub fn memory_bytes(&self) -> usize {
        key_bytes(&self.key, &self.entry)
    }
}

/// Stores an entry: key, deadline, eviction hint, index, AOF and replicas, keyspace event. What the
/// key held before is gone from the index by the removal hook. Returns its slot;
/// `SlotId::NONE` when no container of its uid lives here yet.
pub fn put_entry(ctx: WritePermit<'_>, cache: Option<&SharedCache>, new: NewEntry) -> SlotId {
    let NewEntry { key: name, entry, text, words, expire_at, linking, hits } = new;
    let portable = entry.portable_bytes();
    let name_string = RString::new(&name);
    let mut key = Key::open_to_write(ctx, &name_string);
    key.set::<EntryValue>(Thin(entry));
    key.set_expire_at_ms(expire_at.0);
    let mut slot = SlotId::NONE;
    if let Some(value) = key.value_mut::<EntryValue>()
        && let Some(cache) = cache
    {
        let bytes = key_bytes(&name, value) as u32;
        let text = match (&words, &text) {
            (Some(words), _) => Response::Read(words),
            (None, Some(text)) => Response::Given(text.as_bytes()),
            (None, None) => Response::Kept,
        };
        slot =
            cache.with(|cache| index_entry(cache, &value.view(), text, expire_at, bytes, linking));
        value.set_slot(slot);
        let worth = cache.with(|cache| cache.index.slot(slot).map(|found| found.worth()));
        if hits > 0 {
            let age = ctx.now_ms().saturating_sub(value.view().created().0);
            let frequency = AgedFrequency::spread(hits, UnixMs(age), now_min());
            cache.with(|cache| cache.index.bring_hits(slot, hits, frequency));
        }
        if let Some(worth) = worth {
            key.hint_lfu(lfu_after(worth, hits));
        }
    }
    drop(key);
    if expire_at == UnixMs::NEVER {
        ctx.replicate(ENTRY_COMMAND, &[&name, &portable]);
    } else {
        let at = expire_at.0.to_string();
        ctx.replicate(ENTRY_COMMAND, &[&name, &portable, b"PXAT", at.as_bytes()]);
    }
    ctx.notify_module(c"llmcache.set", &name_string);
    tell_changes(*ctx, Some(ctx.db()));
    slot
}

/// Removes the entry key `name`, and has AOF and replicas remove it; false when there is no entry in
/// it. The index learns of it by the removal hook.
pub fn remove_entry(ctx: WritePermit<'_>, name: &[u8]) -> bool {
    let name_string = RString::new(name);
    let key = Key::open_to_write(ctx, &name_string);
    if key.value::<EntryValue>().is_none() {
        return false;
    }
    unlink_key(ctx, key, &name_string);
    true
}

/// Removes the entry in a key if it belongs to the container `uid`; see `remove_entry`.
pub fn remove_entry_of(ctx: WritePermit<'_>, name: &[u8], uid: ContainerUid) -> bool {
    let belongs = open_entry(*ctx, name, Access::Unasked).is_some_and(|e| e.view().uid() == uid);
    belongs && remove_entry(ctx, name)
}

/// Marks the entry in a key stale, and has AOF and replicas do so.
pub fn mark_stale(ctx: WritePermit<'_>, name: &[u8]) {
    let name_string = RString::new(name);
    let mut key = Key::open_to_write(ctx, &name_string);
    let Some(value) = key.value_mut::<EntryValue>() else { return };
    value.set_stale();
    CACHES.note_change(value.view().uid());
    drop(key);
    ctx.replicate(STALE_COMMAND, &[name]);
    ctx.notify_module(c"llmcache.stale", &name_string);
    tell_changes(*ctx, Some(ctx.db()));
}

/// Moves the deadline of the entry in a key; false when there is none or it had none to remove.
pub fn set_entry_expiry(
    ctx: WritePermit<'_>,
    cache: &SharedCache,
    name: &[u8],
    at: UnixMs,
) -> bool {
    let name_string = RString::new(name);
    let mut key = Key::open_to_write(ctx, &name_string);
    let had = key.expire_at_ms();
    let Some(value) = key.value::<EntryValue>() else { return false };
    let (slot, seq) = (value.view().slot(), value.view().seq());
    if at == UnixMs::NEVER && had == 0 {
        return false;
    }
    key.set_expire_at_ms(at.0);
    drop(key);
    cache.with(|cache| {
        cache.index.set_expiry(slot, seq, at);
        cache_registry::note_work(cache);
    });
    if at == UnixMs::NEVER {
        ctx.replicate(c"PERSIST", &[name]);
        ctx.notify_generic(c"persist", &name_string);
    } else {
        ctx.replicate(c"PEXPIREAT", &[name, at.0.to_string().as_bytes()]);
        ctx.notify_generic(c"expire", &name_string);
    }
    true
}

/// Removes the entries least worth keeping until the cache is within its own limits, at most a few
/// dozen at once. On the primary only: replicas are told what was removed. Returns how many went.
pub fn enforce_limits(ctx: WritePermit<'_>, shared: &SharedCache, spare: SlotId) -> usize {
    let now = UnixMs(ctx.now_ms());
    for removed in 0..EVICT_AT_ONCE {
        let victim = shared.with(|cache| {
            if !cache.is_over_limit() {
                return None;
            }
            let (slot, seq) = cache.pick_victim(spare, now, || ctx.random())?;
            let id = cache.index.slot(slot)?.id;
            Some((slot, seq, cache.entry_key(&id)))
        });
        let Some((slot, seq, key)) = victim else { return removed };
        let evicted = remove_entry(ctx, &key);
        shared.with(|cache| {
            // Nothing to remove from the keyspace is still something to remove from the index.
            cache.index.remove(slot, seq);
            cache.stats.evicted += u64::from(evicted);
        });
    }
    EVICT_AT_ONCE
}
