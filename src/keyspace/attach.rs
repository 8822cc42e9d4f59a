//! Bringing entries and index together: when stored, when they arrive by RESTORE, RENAME or MOVE,
//! and when a sweep finds one that its container does not know.

use crate::ffi::{Access, Ctx, Key, RString};
use crate::keytype::cache_registry::{self, CACHES};
use crate::keytype::{EntryValue, entry_value_bytes};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::{Cache, Entry, EntryView};
use llmcache_core::evict::worth;
use llmcache_core::ids::{PartitionKey, SlotId, UnixMs};
use llmcache_core::index::NewSlot;
use std::ffi::c_int;

/// When the graph of a partition that is behind is brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linking {
    /// A node or two with each entry stored.
    AlongTheWay,
    /// Between commands: whoever stores waits for it (`backpressure`).
    Later,
}

/// What became of an entry that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The index knew it already.
    Known,
    /// It was added to the index.
    Added,
    /// Its container does not live here.
    NoContainer,
    /// It stands under a name that is not its own, or does not fit the container: left alone.
    Foreign,
    /// There is no entry in that key.
    Absent,
}

/// A dictionary entry of the server.
const DICT_ENTRY_BYTES: usize = 24;
/// Header and end of a server string of up to 255 bytes.
const STRING_FRAME_BYTES: usize = 4;

/// Memory of an entry key: dictionary entry, name and value.
pub(super) fn key_bytes(name: &[u8], entry: &Entry) -> usize {
    key_frame_bytes(name) + entry_value_bytes(entry)
}

/// Memory of a key without its value: dictionary entry and name.
pub(super) fn key_frame_bytes(name: &[u8]) -> usize {
    allocated_bytes(DICT_ENTRY_BYTES) + allocated_bytes(STRING_FRAME_BYTES + name.len())
}

/// Adds an entry to its container's index; `SlotId::NONE` when its vector does not fit.
pub(super) fn index_entry(
    cache: &mut Cache,
    view: &EntryView<'_>,
    expire_at: UnixMs,
    bytes: u32,
    linking: Linking,
) -> SlotId {
    let dim = view.vector_dim();
    if dim > 0 {
        match cache.settings.dim {
            None => cache.settings.dim = Some(dim),
            Some(have) if have != dim => return SlotId::NONE,
            Some(_) => {}
        }
    }
    cache.observe_seq(view.seq());
    let meta = view.meta_object();
    let record = meta.as_ref().and_then(|meta| cache.index.record_of(meta.as_object()?));
    let searched = cache.settings.kind.is_searched();
    let code = view.vector().filter(|_| searched).map(|vector| vector.code());
    let new = NewSlot {
        id: view.id(),
        seq: view.seq(),
        partition: PartitionKey::of(view.scope(), view.context()),
        expire_at,
        bytes,
        worth: worth(view.cost_nano_usd(), u64::from(view.tokens())),
        record,
        name: view.name(),
        code: code.as_ref().map(|code| (code.codes.as_slice(), code.scale)),
    };
    let slot = match linking {
        Linking::AlongTheWay => cache.index.insert(new),
        Linking::Later => cache.index.insert_unlinked(new),
    };
    cache.index.set_tags(slot, view.tags());
    cache.note_arrival(view);
    cache_registry::note_work(cache);
    slot
}

/// Looks at the entry in a key and brings it together with its container; `wait` remembers it when
/// the container is not there yet.
pub fn attach_arrival(ctx: Ctx<'_>, name: &[u8], wait: bool) -> Attached {
    let Some(key) = Key::open(ctx, &RString::new(name), Access::Probe) else {
        return Attached::Absent;
    };
    let Some(value) = key.value::<EntryValue>() else { return Attached::Absent };
    let uid = value.view().uid();
    let (seen, expire_at) =
        (attach_open(ctx.db(), name, value, key.expire_at_ms()), key.expire_at_ms());
    drop(key);
    match seen {
        Attached::NoContainer if wait => CACHES.wait_for(uid, (ctx.db(), name.to_vec())),
        Attached::Added => add(ctx, name, UnixMs(expire_at)),
        _ => {}
    }
    seen
}

/// Judges an opened entry, changing neither key nor index except to show a slot that was hidden:
/// `Added` means that it should be added.
pub fn attach_open(db: c_int, name: &[u8], value: &EntryValue, expire_at_ms: u64) -> Attached {
    let view = value.view();
    let Some(shared) = CACHES.find(view.uid(), db) else { return Attached::NoContainer };
    shared.with(|cache| {
        // A renamed entry is not in the index any more, so what is known stands under its own name.
        if cache.index.slot_of(view.slot(), view.seq()).is_some() {
            cache.index.unhide(view.slot(), view.seq());
            cache.index.set_expiry(view.slot(), view.seq(), UnixMs(expire_at_ms));
            return Attached::Known;
        }
        if *name != *cache.named_key(&view.id_text()) {
            return Attached::Foreign;
        }
        if cache.takes(&view) { Attached::Added } else { Attached::Foreign }
    })
}

fn add(ctx: Ctx<'_>, name: &[u8], expire_at: UnixMs) {
    // Where an entry stands in the index is no change of the entry: the key is not opened for writing.
    let Some(mut key) = Key::open(ctx, &RString::new(name), Access::Probe) else { return };
    let Some(value) = key.value_mut::<EntryValue>() else { return };
    let Some(shared) = CACHES.find(value.view().uid(), ctx.db()) else { return };
    let bytes = key_bytes(name, value) as u32;
    let slot = shared
        .with(|cache| index_entry(cache, &value.view(), expire_at, bytes, Linking::AlongTheWay));
    value.set_slot(slot);
}
