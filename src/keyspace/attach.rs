//! Attaches entries to their index: when stored, when they arrive by RESTORE, RENAME or MOVE, and when a sweep finds
//! one that its container does not know.

use crate::ffi::{Access, Ctx, Key, RString};
use crate::keytype::cache_registry::{self, CACHES};
use crate::keytype::{EntryValue, entry_value_bytes};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::{Cache, Entry, EntryView};
use llmcache_core::evict::worth;
use llmcache_core::ids::{PartitionKey, SlotId, UnixMs};
use llmcache_core::index::NewSlot;
use llmcache_core::limits;
use llmcache_core::words::TextWords;
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

/// Where the words of an entry are had from.
pub(super) enum Response<'a> {
    /// The response as it was given.
    Given(&'a [u8]),
    /// It was read part by part.
    Read(&'a TextWords),
    /// The entry has it, perhaps packed; a long one is read between commands.
    Kept,
}

/// Adds an entry to its container's index; `SlotId::NONE` when its vector does not fit.
pub(super) fn index_entry(
    cache: &mut Cache,
    view: &EntryView<'_>,
    text: Response<'_>,
    expire_at: UnixMs,
    bytes: u32,
    linking: Linking,
) -> SlotId {
    let dim = view.vector_dim();
    if dim > 0 {
        if !cache.settings.takes_dim(dim) {
            return SlotId::NONE;
        }
        cache.settings.dim = Some(dim);
    }
    cache.observe_seq(view.seq());
    let meta = view.meta_object();
    let record = meta.as_ref().and_then(|meta| cache.index.record_of(meta.as_object()?));
    let searched = cache.settings.kind.is_searched();
    let vector = view.vector().filter(|_| searched);
    let (code, plane) = vector.and_then(|vector| cache.settings.code_of(&vector)).unzip();
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
    if let Some(plane) = plane.flatten() {
        cache.index.set_plane(slot, plane.as_plane());
    }
    cache.index.set_tags(slot, view.tags());
    if cache.index.words().is_some() {
        match text {
            Response::Given(text) => cache.index.set_text(slot, text),
            Response::Read(words) => cache.index.set_words_of(slot, words),
            Response::Kept if view.response_len() > limits::WORDS_AT_ONCE_BYTES => {
                cache.index.leave_unread(slot);
            }
            Response::Kept => cache.index.set_text(slot, &view.response()),
        }
    }
    cache.note_arrival(view);
    cache_registry::note_work(cache);
    slot
}

/// Looks at the entry in a key and brings it together with its container. Where that is not here, `wait` has the
/// entry indexed for it, so that a container that comes after its entries knows them at once.
pub fn attach_arrival(ctx: Ctx<'_>, name: &[u8], wait: bool) -> Attached {
    // Where an entry stands in the index is no change of the entry: the key is not opened for writing.
    let Some(mut key) = Key::open(ctx, &RString::new(name), Access::Unasked) else {
        return Attached::Absent;
    };
    let (db, expire_at) = (ctx.db(), UnixMs(key.expire_at_ms()));
    let Some(value) = key.value_mut::<EntryValue>() else { return Attached::Absent };
    let uid = value.view().uid();
    if let Some(container) = CACHES.find(uid, db) {
        return container.with(|cache| attach_to(cache, name, value, expire_at));
    }
    if wait {
        match CACHES.awaited(uid, db, || Cache::awaited(name, &value.view())) {
            Some(awaited) => {
                awaited.with(|cache| attach_to(cache, name, value, expire_at));
                CACHES.lost_one(uid, db);
            }
            // What is left of a container that went is removed, and what comes meanwhile is not.
            None if CACHES.is_going(uid, db) => CACHES.wait_for(uid, (db, name.to_vec())),
            None => {}
        }
    }
    Attached::NoContainer
}

fn attach_to(
    cache: &mut Cache,
    name: &[u8],
    value: &mut EntryValue,
    expire_at: UnixMs,
) -> Attached {
    let seen = judge(cache, name, &value.view());
    match seen {
        Seen::Known(slot) => {
            let seq = value.view().seq();
            cache.index.unhide(slot, seq);
            cache.index.set_expiry(slot, seq, expire_at);
            cache_registry::note_work(cache);
            value.set_slot(slot);
            CACHES.note_change(cache.uid());
            Attached::Known
        }
        Seen::Unknown => {
            let bytes = key_bytes(name, value) as u32;
            // Its code is compared from here on; its links are for later.
            let slot =
                index_entry(cache, &value.view(), Response::Kept, expire_at, bytes, Linking::Later);
            value.set_slot(slot);
            CACHES.note_change(cache.uid());
            Attached::Added
        }
        Seen::Foreign => Attached::Foreign,
    }
}

/// What an index knows of an entry.
enum Seen {
    /// It has this row, whatever the entry says.
    Known(SlotId),
    /// It has none that is this entry's.
    Unknown,
    /// It is not to have one.
    Foreign,
}

fn judge(cache: &Cache, name: &[u8], view: &EntryView<'_>) -> Seen {
    let id = view.id();
    if *name != *cache.named_key(&view.id_text()) || !cache.takes(view) {
        return Seen::Foreign;
    }
    let Some((slot, seq)) = cache.index.row_of(&id).and_then(|slot| {
        let found = cache.index.slot(slot)?;
        Some((slot, found.seq()))
    }) else {
        return Seen::Unknown;
    };
    if seq == view.seq() {
        return Seen::Known(slot);
    }
    // A key holds one entry, so what is here is right. Of two keys for one question the later one counts.
    let same_key = *name == *cache.entry_key(&id);
    if same_key || seq < view.seq() { Seen::Unknown } else { Seen::Foreign }
}

/// Judges an opened entry, changing neither key nor index except to show a slot that was hidden:
/// `Added` means that it should be added, by `attach_arrival`.
pub fn attach_open(db: c_int, name: &[u8], value: &EntryValue, expire_at_ms: u64) -> Attached {
    let view = value.view();
    let Some(shared) = CACHES.find(view.uid(), db) else { return Attached::NoContainer };
    shared.with(|cache| match judge(cache, name, &view) {
        Seen::Known(slot) if slot == view.slot() => {
            cache.index.unhide(slot, view.seq());
            cache.index.set_expiry(slot, view.seq(), UnixMs(expire_at_ms));
            cache_registry::note_work(cache);
            Attached::Known
        }
        Seen::Known(_) | Seen::Unknown => Attached::Added,
        Seen::Foreign => Attached::Foreign,
    })
}
