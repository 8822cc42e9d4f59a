//! The queue of texts that wait for a thread: its bounds, and clients that enter and leave it.
//!
//! Main thread only.

use super::service::{Awaited, Found, Pending, SERVICE};
use super::work::{Text, TextKey};
use crate::config;
use crate::ffi::BlockedId;
use crate::keyspace::slices::Resume;
use hashbrown::HashSet;
use llmcache_core::embed::Model;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Texts that have no vector yet, and the bytes that each takes.
pub(in crate::keyspace) type Wanted = Vec<(TextKey, Text, usize)>;

/// Refuses more texts than may wait; how long a client waits for these.
pub(super) fn room_for(wanted: &Wanted) -> Result<u64> {
    SERVICE.with(|service| {
        let is_new = |key: &TextKey| !service.texts.contains_key(key);
        let new = wanted.iter().filter(|(key, ..)| is_new(key));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), part| (count + 1, bytes + part.2));
        let full = service.texts.len() + count > config::embed_queue().max(count.min(1))
            || service.queued_bytes + bytes > limits::EMBED_QUEUE_MAX_BYTES;
        if full {
            service.counts.busy += 1;
            return Err(busy("too many texts wait to be embedded"));
        }
        Ok(())
    })?;
    let more = wanted.len().saturating_sub(1) as u64;
    Ok(config::embed_timeout_ms() + more * limits::EMBED_TIMEOUT_PER_TEXT_MS)
}

/// Has a client that waits already wait for texts: `resume` is called when all are embedded. How long it waits at most.
pub(in crate::keyspace) fn wait_between(
    client: BlockedId,
    model: &Arc<Model>,
    wanted: Wanted,
    resume: Resume,
) -> Result<u64> {
    let timeout_ms = room_for(&wanted)?;
    enlist(client, model, wanted, |missing| Awaited {
        missing,
        found: Found::new(),
        writes: false,
        reads: None,
        take: None,
        resume: Some(resume),
    });
    Ok(timeout_ms)
}

/// Takes a client off the texts it waits for; what was found for it.
pub(in crate::keyspace) fn end_wait(client: BlockedId) -> Found {
    let awaited = SERVICE.with(|service| service.end(client));
    awaited.map(|awaited| awaited.found).unwrap_or_default()
}

/// The error of a client that waited too long.
pub(in crate::keyspace) fn waited_too_long() -> Error {
    SERVICE.with(|service| service.counts.busy += 1);
    busy("the text waited too long to be embedded")
}

/// Gives texts to the threads that are not on their way yet.
pub(super) fn enlist(
    client: BlockedId,
    model: &Arc<Model>,
    wanted: Wanted,
    awaited: impl FnOnce(HashSet<TextKey>) -> Awaited,
) {
    SERVICE.with(|service| {
        let alone = wanted.len() == 1;
        let mut missing = HashSet::with_capacity(wanted.len());
        for (key, text, bytes) in wanted {
            // A command may have one text twice.
            if !missing.insert(key) {
                continue;
            }
            if let Some(pending) = service.texts.get_mut(&key) {
                pending.clients.push(client);
                pending.is_wanted.store(true, Ordering::Relaxed);
                service.counts.coalesced += 1;
                continue;
            }
            let is_wanted = Arc::new(AtomicBool::new(true));
            let text = Arc::new(text);
            let pending = Pending { clients: vec![client], text, is_wanted, bytes };
            service.queued_bytes += bytes;
            service.submit(key, model, &pending, alone);
            service.texts.insert(key, pending);
        }
        service.counts.queued_most = service.counts.queued_most.max(service.texts.len());
        service.clients.insert(client, awaited(missing));
    });
}

pub(super) fn busy(what: &'static str) -> Error {
    Error::new(ErrorWord::Busy, what)
}
