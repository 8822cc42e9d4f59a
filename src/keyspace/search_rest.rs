//! The work that a round of a searching command leaves: searches for threads, and walks that fill in records for a
//! filter.
//!
//! Owns: what names a search, and the steps of such a walk. Main thread; a search is done on whichever thread.

use super::choice::Choice;
use super::open_entry;
use crate::ffi::{Access, Ctx};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::filter::{Filter, Verdict};
use llmcache_core::ids::{ContainerUid, PartitionKey};
use llmcache_core::index::{SearchRequest, SearchTask};
use llmcache_core::work::Steps;
use std::ffi::c_int;

/// Rows that a lesson passes in one step.
const ROWS_PER_STEP: usize = 16;

/// Names a search among those of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) uid: ContainerUid,
    partition: PartitionKey,
    limit: usize,
    pub(super) code: Box<[i8]>,
}

impl Asked {
    pub(super) fn of(uid: ContainerUid, request: &SearchRequest<'_>) -> Self {
        let SearchRequest { partition, limit, code, .. } = *request;
        Self { uid, partition, limit, code: code.into() }
    }
}

/// What a round leaves to be done.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) tasks: Vec<(Asked, Box<SearchTask>)>,
    pub(super) lesson: Option<Lesson>,
    /// What is to be done in slices once all is found.
    pub(super) chore: Option<Chore>,
    /// Whether the command is to go on although it waits for nothing.
    pub(super) is_paused: bool,
}

/// A reply that is written part by part, after the last round of its command.
pub trait Told: Send {
    /// Writes the next part; false when that was the last.
    fn part(&mut self, ctx: Ctx<'_>) -> bool;
}

/// What is done in slices once a command has found all it looks for.
pub(super) enum Chore {
    /// A choice among what was found: the command goes on with it.
    Choice(Choice),
    /// The reply.
    Reply(Box<dyn Told>),
}

impl Chore {
    /// Does the next of it; false when that was the last.
    pub(super) fn step(&mut self, ctx: Ctx<'_>) -> bool {
        match self {
            Self::Choice(choice) => choice.step(ctx),
            Self::Reply(told) => told.part(ctx),
        }
    }
}

impl std::fmt::Debug for Chore {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::Choice(_) => "Choice",
            Self::Reply(_) => "Reply",
        })
    }
}

impl Rest {
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = self.tasks.is_empty() && self.lesson.is_none();
        is_empty && self.chore.is_none() && !self.is_paused
    }
}

/// A walk over a partition that has the records of its entries answer what a filter asks for.
#[derive(Debug)]
pub(super) struct Lesson {
    pub(super) db: c_int,
    cache: SharedCache,
    partition: PartitionKey,
    filter: Filter,
    next_slot: u32,
}

impl Lesson {
    pub(super) fn new(
        ctx: Ctx<'_>,
        cache: &SharedCache,
        partition: PartitionKey,
        filter: Filter,
    ) -> Self {
        cache.with(|cache| cache.index.note_asked(&filter));
        Self { db: ctx.db(), cache: SharedCache::clone(cache), partition, filter, next_slot: 0 }
    }

    /// Goes on for a few rows; returns what that took, nothing at the end.
    pub(super) fn step(&mut self, ctx: Ctx<'_>) -> Option<Steps> {
        let mut steps = Steps::default();
        for _ in 0..ROWS_PER_STEP {
            let Self { cache, filter, partition, next_slot, .. } = self;
            steps.rows += 1;
            let (id, seq, key) = cache.with(|cache| {
                let (id, slot) = cache.index.next_occupied(*next_slot)?;
                *next_slot = id.0 + 1;
                let verdict = (slot.partition == *partition)
                    .then(|| filter.judge_record(slot.record, &mut steps));
                let key = (verdict == Some(Verdict::NeedsEntry)).then(|| cache.entry_key(&slot.id));
                Some((id, slot.seq(), key))
            })?;
            let Some(key) = key else { continue };
            steps.keys += 1;
            let Some(entry) = open_entry(ctx, &key, Access::Unasked) else { continue };
            let view = entry.view();
            if !view.is_at(id, seq) {
                continue;
            }
            steps.bytes += view.meta().map_or(0, |meta| meta.len()) as u64;
            if let Some(serde_json::Value::Object(meta)) = view.meta_object() {
                cache.with(|cache| cache.index.widen_record(id, seq, &meta, filter));
            }
        }
        Some(steps)
    }
}
