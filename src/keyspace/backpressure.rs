//! Back-pressure on stores: a stream of them is held to the pace at which rows are linked into the graph, and none of
//! them holds up the server for that.
//!
//! Owns: who waits for which partition, and the slices of linking done while somebody does. A store has
//! had its effect before it waits; only its reply comes later. While it waits its client sends nothing
//! that would be run, so a pipeline of stores ends its turn there. Main thread only.

use crate::ffi::{
    Arguments, BlockedId, Ctx, MainCell, Reply, Waiter, Wake, block_client, run_each_turn,
    wake_blocked,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::Cache;
use llmcache_core::ids::PartitionKey;
use llmcache_core::index::Work;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

/// Length of one slice: there is one in each turn of the event loop, beside what clients sent and what the
/// server expires.
const SLICE: Duration = Duration::from_micros(300);

struct Waiting {
    client: BlockedId,
    /// Held weakly: a cache that is flushed meanwhile is waited for no more.
    cache: Weak<MainCell<Cache>>,
    partition: PartitionKey,
    /// How many nodes the index has worked on when this store has had its share.
    paid_at: u64,
}

/// Nodes that are linked or repaired for each store that waits: more than it brought, so that a stream of stores never
/// outruns the graph, and no more, so that none waits for the rows of a container that has just moved here.
const NODES_PER_STORE: u64 = 2;

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Waiting>,
    armed: bool,
}

static BACKLOG: LazyLock<MainCell<Backlog>> = LazyLock::new(|| MainCell::new(Backlog::default()));

/// What a store is answered.
#[derive(Debug)]
pub enum StoreReply<'a> {
    /// The id of the entry.
    Id(Cow<'a, [u8]>),
    /// 1 where it is new, 0 where it replaced one.
    New(bool),
    /// The same of each of many.
    EachNew(Cow<'a, [bool]>),
}

impl StoreReply<'_> {
    fn write(&self, reply: Reply<'_>) {
        match self {
            Self::Id(id) => {
                reply.bytes(id);
            }
            Self::New(new) => {
                reply.int(i64::from(*new));
            }
            Self::EachNew(each) => {
                reply.array(each.len());
                each.iter().for_each(|&new| {
                    reply.int(i64::from(new));
                });
            }
        }
    }

    fn into_owned(self) -> StoreReply<'static> {
        match self {
            Self::Id(id) => StoreReply::Id(id.into_owned().into()),
            Self::New(new) => StoreReply::New(new),
            Self::EachNew(each) => StoreReply::EachNew(each.into_owned().into()),
        }
    }
}

/// Replies to the running store: at once, or where the graph of its partition is behind when that has caught
/// up.
pub fn reply_when_linked(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    partition: PartitionKey,
    reply: StoreReply<'_>,
) {
    // Asking the server what it does costs more than asking the index.
    if !cache.with(|cache| cache.index.is_behind(partition)) || !ctx.state().may_block() {
        reply.write(Reply::new(ctx));
        return;
    }
    let reply = reply.into_owned();
    let client = block_client(ctx, 0, |_| Box::new(Stored { reply }));
    let worked = cache.with(|cache| cache.index.worked());
    let cache = Arc::downgrade(cache);
    let armed = BACKLOG.with(|backlog| {
        let before = backlog.waiting.iter().rev().find(|other| other.cache.ptr_eq(&cache));
        let from = before.map_or(worked, |other| other.paid_at.max(worked));
        let paid_at = from + NODES_PER_STORE;
        backlog.waiting.push_back(Waiting { client, cache, partition, paid_at });
        std::mem::replace(&mut backlog.armed, true)
    });
    if !armed && !run_each_turn(ctx, work) {
        // Nobody would come back for them.
        while work(ctx) {}
    }
}

/// Whether stores wait, so that linking is done here.
pub fn stores_wait() -> bool {
    BACKLOG.with(|backlog| backlog.armed)
}

/// The reply of a store.
struct Stored {
    reply: StoreReply<'static>,
}

impl Waiter for Stored {
    fn reply(&mut self, ctx: Ctx<'_>, _: &Arguments<'_>, _: Wake) {
        self.reply.write(Reply::new(ctx));
    }

    fn gone(&mut self, _: Ctx<'_>) {}
}

/// One slice of linking for whoever has waited longest, and the replies of those that need wait no more.
/// Returns whether somebody still waits.
fn work(ctx: Ctx<'_>) -> bool {
    let oldest = BACKLOG.with(|backlog| backlog.waiting.front().and_then(|w| w.cache.upgrade()));
    if let Some(cache) = oldest {
        let end = Instant::now() + SLICE;
        cache.with(|cache| while Instant::now() < end && cache.index.work(Work(1)).more {});
    }
    let all = BACKLOG.with(|backlog| std::mem::take(&mut backlog.waiting));
    let behind = |waiting: &Waiting| {
        let cache = waiting.cache.upgrade();
        let is_behind = |cache: &mut Cache| {
            cache.index.worked() < waiting.paid_at && !cache.index.has_caught_up(waiting.partition)
        };
        cache.is_some_and(|cache| cache.with(is_behind))
    };
    let (still, done): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(behind);
    for waiting in done {
        wake_blocked(ctx, waiting.client);
    }
    BACKLOG.with(|backlog| {
        // None came meanwhile: waking runs no command.
        backlog.waiting = still;
        backlog.armed = !backlog.waiting.is_empty();
        backlog.armed
    })
}
