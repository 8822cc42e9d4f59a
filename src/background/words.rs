//! Reading the texts of entries whose words are not known: of a container that came after its entries, or whose saved
//! words were not whole. Changes the index only, nothing that is saved with a key or replicated, so it runs on replicas
//! too. Main thread, between commands.

use crate::ffi::{Access, Ctx, Key, RString};
use crate::keytype::EntryValue;
use crate::keytype::cache_registry::{self, SharedCache};

/// Reads until nothing is left or time is up; whether more is to be read.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    while in_time() {
        let Some((cache, db)) = cache_registry::take_unread() else { return false };
        let mut goes_on = ctx.select_db(db);
        while goes_on && in_time() {
            goes_on = read_one(ctx, &cache);
        }
        cache.with(|cache| cache_registry::note_work(cache));
    }
    true
}

/// Bytes of a long text that are read at once.
const AT_ONCE_BYTES: usize = 8 << 10;

/// Reads the text of one entry, or a part of a long one; false where none is left.
fn read_one(ctx: Ctx<'_>, cache: &SharedCache) -> bool {
    let Some((slot, seq, read)) = cache.with(|cache| cache.index.take_reading()) else {
        return false;
    };
    let Some(name) = cache.with(|cache| cache.key_at(slot, seq)) else { return true };
    let Some(key) = Key::open(ctx, &RString::new(&name), Access::Unasked) else { return true };
    if let Some(entry) = key.value::<EntryValue>()
        && entry.view().is_at(slot, seq)
    {
        let text = entry.view().response();
        cache.with(|cache| cache.index.note_text((slot, seq, read), &text, AT_ONCE_BYTES));
    }
    true
}
