//! Selects entries in slices and removes or marks them while the client waits, for `LLMCACHE.INVALIDATE` and
//! `RAG.DEL`.
//!
//! Owns: when a walk is done at once, when in slices, and when it is refused. Main thread only.

use crate::ffi::{
    Arguments, BlockedId, Ctx, MainCell, RString, Reply, Waiter, Wake, WritePermit, block_client,
    wait_on, wake_blocked,
};
use crate::keyspace::{
    Criterion, InvalidationWalk, Presence, check_walks, need_index, start_invalidation,
    with_known_flights,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Severity, too_much_at_once};
use llmcache_core::error::Result;
use llmcache_core::limits;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps of a walk whose client cannot be made to wait.
const UNBLOCKABLE: u64 = limits::UNBLOCKABLE_STEPS_MAX;

/// How long a walk runs before its client waits and others get their turn.
const FIRST_SLICE: Duration = Duration::from_millis(1);

/// A container of which something is picked out.
pub struct Target<'a> {
    /// Leave to write of the running command.
    pub ctx: WritePermit<'a>,
    /// The container.
    pub cache: SharedCache,
    /// Its key.
    pub name: &'a [u8],
    /// Where subscribers are told, if anywhere.
    pub channel: Option<Vec<u8>>,
    /// `None` to count alone.
    pub severity: Option<Severity>,
}

impl Target<'_> {
    /// Tells who watches the container that it changes.
    pub fn signal(&self) {
        if self.severity.is_some() {
            self.ctx.signal_modified(&RString::new(self.name));
        }
    }

    /// Begins a walk for a client that waits already.
    pub fn begin(self, criterion: Criterion, limit: u64, client: BlockedId) -> bool {
        let end = Arc::new(MainCell::new(None));
        let waiter = WalkWaiter { end: Arc::clone(&end) };
        if !wait_on(*self.ctx, client, 0, Box::new(waiter)) {
            return false;
        }
        let (ctx, name) = (self.ctx, self.name);
        let walk = self.walk(criterion, limit);
        let done = move |ctx: Ctx<'_>, ended| {
            end.with(|end| *end = Some(ended));
            wake_blocked(ctx, client);
        };
        start_invalidation(*ctx, walk, name, Box::new(done));
        true
    }

    /// Walks, and returns how many were picked: at once, or in slices while the client waits.
    pub fn pick(self, criterion: Criterion, limit: u64) -> Result<()> {
        // What is on its way cannot be picked.
        Presence::of(*self.ctx, self.name).need_all()?;
        need_index(&self.cache)?;
        let may_block = self.ctx.state().may_block();
        if may_block {
            check_walks()?;
        } else if self.cache.with(|cache| criterion.most_steps(cache, limit)) > UNBLOCKABLE {
            return Err(too_much_at_once("LIMIT it, or "));
        }
        let (ctx, name) = (self.ctx, self.name);
        let mut walk = self.walk(criterion, limit);
        let end = Instant::now() + FIRST_SLICE;
        if let Some(ended) = walk.run(ctx, || !may_block || Instant::now() < end) {
            Reply::new(*ctx).count(ended?);
            return Ok(());
        }
        let end = Arc::new(MainCell::new(None));
        let waiter = WalkWaiter { end: Arc::clone(&end) };
        let id = block_client(*ctx, 0, |_| Box::new(waiter));
        let done = move |ctx: Ctx<'_>, ended| {
            end.with(|end| *end = Some(ended));
            wake_blocked(ctx, id);
        };
        start_invalidation(*ctx, walk, name, Box::new(done));
        Ok(())
    }

    /// The walk; from here on leases of the container know that something was picked.
    fn walk(self, criterion: Criterion, limit: u64) -> InvalidationWalk {
        self.signal();
        let Self { cache, channel, severity, .. } = self;
        if severity.is_some() {
            let uid = cache.with(|cache| cache.uid());
            with_known_flights(uid, |flights| flights.note_picked());
        }
        InvalidationWalk::new(cache, channel, criterion, severity, limit)
    }
}

/// A client that waits for its walk to end. The walk goes on without it.
struct WalkWaiter {
    end: Arc<MainCell<Option<Result<u64>>>>,
}

impl Waiter for WalkWaiter {
    fn reply(&mut self, ctx: Ctx<'_>, _: &Arguments<'_>, _: Wake) {
        let end = self.end.with(Option::take);
        let reply = Reply::new(ctx);
        match end {
            Some(Ok(count)) => {
                reply.count(count);
            }
            Some(Err(error)) => reply.error(&error.to_string()),
            // Unblocked by another.
            None => {
                reply.null();
            }
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {}
}
