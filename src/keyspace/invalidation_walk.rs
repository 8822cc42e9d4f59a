//! The walk of an invalidation by criteria: a radius around a vector, a filter, an age, a tag.
//!
//! Owns: the walk over a cache's entries, in slices short enough that no other client notices, and the
//! messages that tell who subscribed which entries went. What is stored after a walk began is left
//! alone. Main thread only.

use super::slices::refusal;
use super::slots::try_again;
use super::{mark_stale, open_entry, remove_entry};
use crate::ffi::{Access, Ctx, MainCell, WritePermit, run_later};
use crate::keytype::cache_registry::{CACHES, SharedCache};
use llmcache_core::cache::{Cache, EntryKey, EntryView, Severity, too_many_steps};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::filter::{Filter, Verdict};
use llmcache_core::ids::{ContainerUid, Seq, SlotId, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;
use llmcache_core::vector::prefix::Prefix;
use llmcache_core::work::Steps;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Length of one slice.
const SLICE: Duration = Duration::from_micros(700);
/// A pause for everybody else between two slices, and while nothing may be written.
const PAUSE_MS: u64 = 1;
const PAUSED_MS: u64 = 20;
/// Work between two looks at the clock, in steps: some ten microseconds.
const STEPS_PER_LOOK: u64 = 512;

/// What is picked out.
#[derive(Debug)]
pub enum Criterion {
    /// Entries at least this similar to a vector.
    Near(Box<Query>, f64),
    /// Entries whose META passes.
    Filter(Filter),
    /// Entries stored at this time or before.
    Before(UnixMs),
    /// Entries with this tag.
    Tag(Box<[u8]>),
}

/// Called when the walk is over, with the number of entries; an error where it did not come to its end.
type Done = Box<dyn FnOnce(Ctx<'_>, Result<u64>) + Send>;

/// A walk that picks entries out.
pub struct InvalidationWalk {
    /// The cache walked over.
    pub cache: SharedCache,
    /// The channel that is told, if any.
    pub channel: Option<Vec<u8>>,
    /// What is picked out.
    pub criterion: Criterion,
    /// What becomes of it; `None` to count alone.
    pub severity: Option<Severity>,
    /// Most entries wanted.
    pub limit: u64,
    next_slot: u32,
    upto: Seq,
    picked: u64,
    /// Entries that the filter cannot judge in as many steps as one may take.
    unjudged: u64,
    /// Of NEAR in a cache with MATRYOSHKA: the first dimensions of the vector, where they carry enough to tell anything.
    prefix: Option<Option<Prefix>>,
    ids: Vec<String>,
    steps: Steps,
}

struct Running {
    pick: InvalidationWalk,
    uid: ContainerUid,
    /// The key of the cache.
    name: Box<[u8]>,
    done: Done,
}

#[derive(Default)]
struct Queue {
    running: VecDeque<Running>,
    armed: bool,
}

static QUEUE: LazyLock<MainCell<Queue>> = LazyLock::new(|| MainCell::new(Queue::default()));

impl InvalidationWalk {
    /// A walk over what is stored now.
    pub fn new(
        cache: SharedCache,
        channel: Option<Vec<u8>>,
        criterion: Criterion,
        severity: Option<Severity>,
        limit: u64,
    ) -> Self {
        let (upto, first) = cache.with(|cache| (cache.next_seq(), cache.settings.matryoshka));
        let prefix = match &criterion {
            Criterion::Near(query, _) => first.map(|first| query.prefix(first as usize)),
            _ => None,
        };
        Self {
            cache,
            channel,
            criterion,
            severity,
            limit,
            next_slot: 0,
            upto,
            picked: 0,
            unjudged: 0,
            prefix,
            ids: Vec::new(),
            steps: Steps::NONE,
        }
    }

    /// Walks on until time is up; returns the number of entries when the walk is over, or that some could not be judged.
    pub fn run(&mut self, ctx: WritePermit<'_>, in_time: impl Fn() -> bool) -> Option<Result<u64>> {
        while in_time() {
            self.steps = Steps::NONE;
            while self.steps.weight() < STEPS_PER_LOOK {
                if self.picked >= self.limit {
                    return Some(self.end(*ctx));
                }
                match self.next_candidate() {
                    Step::End => return Some(self.end(*ctx)),
                    Step::Passed => {}
                    Step::Candidate(slot, seq, key) => self.judge(ctx, slot, seq, &key),
                }
            }
        }
        None
    }

    fn next_candidate(&mut self) -> Step {
        let (from, upto, criterion) = (self.next_slot, self.upto, &self.criterion);
        let prefix = &self.prefix;
        let steps = &mut self.steps;
        steps.rows += 1;
        let (next, step) = self.cache.with(|cache| {
            let Some((id, slot)) = cache.index.next_occupied(from) else {
                return (from, Step::End);
            };
            let possible = slot.seq() < upto
                && match criterion {
                    Criterion::Near(query, least) => {
                        let code = cache.index.code(id);
                        match (prefix, code) {
                            (None, code) => code
                                .is_some_and(|(code, scale)| query.may_reach(code, scale, *least)),
                            (Some(Some(prefix)), Some((code, scale))) => {
                                prefix.may_reach(code, scale, *least)
                            }
                            // A vector may have nothing in its first dimensions.
                            (Some(_), _) => true,
                        }
                    }
                    Criterion::Filter(filter) => {
                        filter.judge_record(slot.record, steps) != Verdict::No
                    }
                    Criterion::Before(_) => true,
                    Criterion::Tag(tag) => cache.index.tags_of(id).any(|own| *own == **tag),
                };
            let step = if possible {
                Step::Candidate(id, slot.seq(), cache.entry_key(&slot.id))
            } else {
                Step::Passed
            };
            (id.0 + 1, step)
        });
        self.next_slot = next;
        step
    }

    fn judge(&mut self, ctx: WritePermit<'_>, slot: SlotId, seq: Seq, key: &EntryKey) {
        self.steps.keys += 1;
        let id = open_entry(*ctx, key, Access::Probe).and_then(|entry| {
            let view = entry.view();
            let claimed = view.is_at(slot, seq);
            let standing = self.cache.with(|cache| cache.epochs().standing(&view));
            let there = claimed && standing != Some(Severity::Gone);
            let already = self.severity == Some(Severity::Stale) && view.is_marked_stale();
            let picked = there && !already && self.picks(&view);
            picked.then(|| String::from_utf8_lossy(&view.id_text()).into_owned())
        });
        let Some(id) = id else { return };
        self.picked += 1;
        match self.severity {
            None => return,
            Some(Severity::Gone) => {
                remove_entry(ctx, key);
            }
            Some(Severity::Stale) => mark_stale(ctx, key),
        }
        if self.channel.is_some() {
            self.ids.push(id);
        }
        if self.ids.len() >= limits::INVALIDATED_IDS_MAX {
            self.tell(*ctx);
        }
    }

    fn tell(&mut self, ctx: Ctx<'_>) {
        if let Some(channel) = self.channel.as_ref().filter(|_| !self.ids.is_empty()) {
            let soft = self.severity == Some(Severity::Stale);
            tell_ids(ctx, channel, &self.ids, soft);
            self.ids.clear();
        }
    }

    fn picks(&mut self, view: &EntryView<'_>) -> bool {
        match &self.criterion {
            Criterion::Near(query, least) => {
                view.vector().is_some_and(|vector| vector.similarity(query) >= *least)
            }
            Criterion::Filter(filter) => {
                let meta = view.meta_object().unwrap_or(serde_json::Value::Null);
                self.steps.bytes += view.meta().map_or(0, |meta| meta.len()) as u64;
                let verdict = filter.judge(&meta, &mut self.steps);
                self.unjudged += u64::from(verdict == Verdict::TooLong);
                verdict == Verdict::Yes
            }
            Criterion::Before(time) => view.created() <= *time,
            Criterion::Tag(tag) => view.tags().any(|own| *own == **tag),
        }
    }

    fn end(&mut self, ctx: Ctx<'_>) -> Result<u64> {
        self.tell(ctx);
        let (picked, unjudged) = (self.picked, self.unjudged);
        if unjudged == 0 {
            return Ok(picked);
        }
        let reason = too_many_steps();
        let message = format!("{}: {unjudged} entries were left, {picked} taken", reason.message());
        Err(Error::new(reason.word(), message))
    }
}

enum Step {
    End,
    Passed,
    Candidate(SlotId, Seq, EntryKey),
}

/// Steps to open an entry, remove it and tell of it.
const REMOVAL_STEPS: u64 = 128;
/// Steps to open an entry and look at it.
const LOOK_STEPS: u64 = 40;

impl Criterion {
    /// The most steps a walk may take that picks at most `limit` entries.
    pub fn most_steps(&self, cache: &Cache, limit: u64) -> u64 {
        let entries = cache.index.totals().entries;
        let each = match self {
            Self::Near(query, _) => 1 + query.dim() as u64 / 512,
            Self::Filter(filter) => 1 + filter.cost().steps(cache.index.record_bytes_mean()),
            // The time is in the entry alone.
            Self::Before(_) => LOOK_STEPS,
            Self::Tag(_) => 2,
        };
        entries.saturating_mul(each) + entries.min(limit).saturating_mul(REMOVAL_STEPS)
    }
}

/// Tells who subscribed that entries went, or are stale.
pub fn tell_ids(ctx: Ctx<'_>, channel: &[u8], ids: &[String], soft: bool) {
    let message = serde_json::json!({ "kind": "ids", "ids": ids, "soft": soft });
    let message = message.to_string();
    // A walk that ends because it may not write any more still tells those who listen here.
    match WritePermit::between_commands(ctx) {
        Some(permit) => permit.publish(channel, message.as_bytes()),
        None => ctx.publish(channel, message.as_bytes()),
    }
}

/// Refuses one more walk where many go on already.
pub fn check_walks() -> Result<()> {
    let running = QUEUE.with(|queue| queue.running.len());
    if running < limits::WALKS_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorWord::Busy, "too many invalidations are under way"))
}

/// Lets a walk over the cache of this key go on between commands; `done` is called when it is over.
pub fn start_invalidation(ctx: Ctx<'_>, pick: InvalidationWalk, name: &[u8], done: Done) {
    let uid = pick.cache.with(|cache| cache.uid());
    let running = Running { pick, uid, name: name.into(), done };
    QUEUE.with(|queue| queue.running.push_back(running));
    arm(ctx, PAUSE_MS);
}

fn arm(ctx: Ctx<'_>, pause_ms: u64) {
    let armed = QUEUE.with(|queue| std::mem::replace(&mut queue.armed, true));
    if !armed {
        run_later(ctx, pause_ms, Box::new(run_picks));
    }
}

/// One slice of the walk that has waited longest.
fn run_picks(ctx: Ctx<'_>) {
    let oldest = QUEUE.with(|queue| {
        queue.armed = false;
        queue.running.pop_front()
    });
    let Some(mut running) = oldest else { return };
    let mut pause_ms = PAUSE_MS;
    let over = match running.ended(ctx) {
        Some(end) => Some(end),
        None => match WritePermit::between_commands(ctx) {
            Some(permit) => {
                let end = Instant::now() + SLICE;
                running.pick.run(permit, || Instant::now() < end)
            }
            None => {
                pause_ms = PAUSED_MS;
                None
            }
        },
    };
    match over {
        Some(end) => (running.done)(ctx, end),
        // In turns: nobody waits for the end of another's walk.
        None => QUEUE.with(|queue| queue.running.push_back(running)),
    }
    if QUEUE.with(|queue| !queue.running.is_empty()) {
        arm(ctx, pause_ms);
    }
}

impl Running {
    /// What the walk ends with before its end, if it does: its cache went, or this server may not go on with it.
    fn ended(&mut self, ctx: Ctx<'_>) -> Option<Result<u64>> {
        if let Some(refused) = refusal(ctx, &self.name) {
            self.pick.tell(ctx);
            return Some(Err(refused));
        }
        // A cache that was deleted has nothing left to be picked.
        let Some((cache, (db, _))) = CACHES.placed(self.uid) else {
            return Some(self.pick.end(ctx));
        };
        // One that went to another server and came back has other rows now, of which some were passed.
        if !Arc::ptr_eq(&cache, &self.pick.cache) {
            self.pick.tell(ctx);
            return Some(Err(try_again()));
        }
        (!ctx.select_db(db)).then(|| self.pick.end(ctx))
    }
}
