//! Checks that an opened entry is a valid hit.
//!
//! Owns: the proof that an entry is the one the index names, and the conditions that only the entry can decide:
//! age, invalidation, FILTER. Main thread only.

use super::keyspace::{Keyspace, Looked, too_many_steps};
use super::request::LookupRequest;
use crate::cache::miss_reason::Refused;
use crate::cache::{EntryView, Severity};
use crate::filter::{Filter, Verdict};
use crate::ids::{ContainerUid, Seq, SlotId};
use crate::work::Steps;

/// Whether the entry was invalidated.
pub fn is_gone<K: Keyspace>(keyspace: &K, view: &EntryView<'_>) -> bool {
    keyspace.with_cache(|cache| cache.epochs().standing(view) == Some(Severity::Gone))
}

/// Applies what can only be judged on the opened entry.
pub fn accepts<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
    view: &EntryView<'_>,
    similarity: f64,
    refused: &mut Refused,
) -> Looked<bool> {
    if request.max_age_ms.is_some_and(|max| request.now.0.saturating_sub(view.created().0) > max) {
        refused.too_old.add(similarity);
        return Ok(false);
    }
    let passes = match request.filter {
        Some(filter) => passes(keyspace, filter, view)?,
        None => true,
    };
    if !passes {
        refused.filter.add(similarity);
    }
    Ok(passes)
}

/// Whether an opened entry, which is proven to be what the index believes or was found without it, passes a filter.
///
/// What the record decides is not asked of META again, from which it was made: the entry of this slot and store order
/// never changes, and META would have to be parsed, which takes longer than all the rest. Debug builds compare both.
pub fn passes<K: Keyspace>(keyspace: &K, filter: &Filter, view: &EntryView<'_>) -> Looked<bool> {
    let mut steps = Steps::default();
    let (slot, seq) = (view.slot(), view.seq());
    let of_record = keyspace.with_cache(|cache| {
        let slot = cache.index.slot_of(slot, seq)?;
        Some(filter.judge_record(slot.record, &mut steps))
    });
    let verdict = match of_record {
        Some(verdict) if verdict != Verdict::NeedsEntry => {
            debug_assert!(agrees_with_meta(filter, view, verdict), "a record says what META does");
            verdict
        }
        _ => {
            let meta = view.meta_object().unwrap_or(serde_json::Value::Null);
            steps.bytes += view.meta().map_or(0, |meta| meta.len()) as u64;
            if let (Some(Verdict::NeedsEntry), Some(meta)) = (of_record, meta.as_object()) {
                keyspace.with_cache(|cache| {
                    cache.index.note_asked(filter);
                    cache.index.widen_record(slot, seq, meta, filter);
                });
            }
            filter.judge(&meta, &mut steps)
        }
    };
    keyspace.spend(steps)?;
    match verdict {
        Verdict::Yes => Ok(true),
        Verdict::No | Verdict::NeedsEntry => Ok(false),
        Verdict::TooLong => Err(too_many_steps().into()),
    }
}

/// Whether META is judged as its record was, unless either took too many steps.
pub fn agrees_with_meta(filter: &Filter, view: &EntryView<'_>, of_record: Verdict) -> bool {
    let meta = view.meta_object().unwrap_or(serde_json::Value::Null);
    let of_meta = filter.judge(&meta, &mut Steps::default());
    of_meta == of_record || [of_meta, of_record].contains(&Verdict::TooLong)
}

/// Opens the entry in a slot that words named, and proves it.
pub fn open_found<K: Keyspace>(keyspace: &K, slot: SlotId) -> Option<K::Opened> {
    let (key, uid, seq) = keyspace.with_cache(|cache| {
        let found = cache.index.slot(slot)?;
        Some((cache.entry_key(&found.id), cache.uid(), found.seq()))
    })?;
    let Some(entry) = keyspace.open(&key, false) else {
        keyspace.with_cache(|cache| cache.index.hide(slot, seq));
        return None;
    };
    if !is_claimed(&entry.view(), uid, slot, seq) {
        // The key lives and says otherwise: this slot is a leftover.
        keyspace.with_cache(|cache| cache.index.remove(slot, seq));
        return None;
    }
    Some(entry)
}

/// Whether an entry that words named is what is asked for.
pub fn accepts_found<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
    view: &EntryView<'_>,
    refused: &mut Refused,
) -> Looked<bool> {
    if !view.is_in(request.scope, request.context) || is_gone(keyspace, view) {
        return Ok(false);
    }
    accepts(keyspace, request, view, 0.0, refused)
}

pub fn is_claimed(view: &EntryView<'_>, uid: ContainerUid, slot: SlotId, seq: Seq) -> bool {
    view.uid() == uid && view.is_at(slot, seq)
}
