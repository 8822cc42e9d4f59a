//! The states of hash slots, and what an absent key means in each: it may be on another server.
//!
//! Owns: what an absent key means. While a slot migrates key by key, one that is missing here may be on the other
//! server, and MIGRATE deletes by the same path as DEL: nothing may be concluded from absence, by a command or by
//! background work. A command that misses a key it needs is refused with TRYAGAIN, as the server refuses one whose
//! keys it would route by; clients repeat it. A client that has waited is sent where the server would send its
//! command now. Main thread only.
//!
//! Servers before 8.4 tell modules nothing of migrations. What they do is to refuse a call of a command with keys
//! that are not all here while their slot is moving, so such a call, with a key that never is, tells. It costs about
//! a microsecond and is made only where a key is missing that matters, and never outside a cluster.

use crate::ffi::{Ctx, MainCell, RString, is_cluster};
pub use llmcache_core::cluster::{Ownership, Served, try_again};
use llmcache_core::cluster::{
    derived_prefix, found_or_elsewhere, in_node_table, key_slot, redirection_by,
};
use llmcache_core::error::{Error, Result};
use std::cell::Cell;
use std::sync::LazyLock;

/// What the absence of a key in one slot means while a command runs. All of a command's keys are in one slot.
#[derive(Debug)]
pub struct Presence<'a> {
    ctx: Ctx<'a>,
    key: &'a [u8],
    /// Asked once: slots do not change hands within a command.
    whole: Cell<Option<bool>>,
}

impl<'a> Presence<'a> {
    /// That in the slot of this key.
    pub fn of(ctx: Ctx<'a>, key: &'a [u8]) -> Self {
        Self { ctx, key, whole: Cell::new(None) }
    }

    /// Whether what is not here is nowhere.
    pub fn is_whole(&self) -> bool {
        if !is_cluster() {
            return true;
        }
        if let Some(whole) = self.whole.get() {
            return whole;
        }
        let whole = self.ctx.state().must_obey() || is_settled(self.ctx, self.key);
        self.whole.set(Some(whole));
        whole
    }

    /// Refuses a command that needs all keys of the slot while some may be elsewhere.
    pub fn need_all(&self) -> Result<()> {
        self.found(Some(()).filter(|()| self.is_whole())).map(drop)
    }

    /// What was found under a key; refuses a command that needs the key where it may be elsewhere.
    pub fn found<T>(&self, found: Option<T>) -> Result<Option<T>> {
        found_or_elsewhere(found, || self.is_whole())
    }
}

/// The node table as this slice first asked for it; `Some(None)` when the server did not answer.
static TABLE: MainCell<Option<Option<Vec<u8>>>> = MainCell::new(None);

/// The state of the slot of `key`, for work between commands. Without a cluster every slot is settled.
pub fn of_key(ctx: Ctx<'_>, key: &[u8]) -> Ownership {
    if !is_cluster() || is_settled(ctx, key) {
        return Ownership::Settled;
    }
    TABLE.with(|table| {
        let table = table.get_or_insert_with(|| node_table(ctx));
        match table {
            Some(nodes) => in_node_table(nodes, key_slot(key)),
            None => Ownership::Moving,
        }
    })
}

/// The slots that this server serves as of now; `None` when the server did not answer.
pub fn served(ctx: Ctx<'_>) -> Option<Served> {
    Served::by(&node_table(ctx)?)
}

/// Forgets the node table: called before every slice of work, within which slots cannot change hands.
pub fn ask_again() {
    TABLE.with(|table| *table = None);
}

fn node_table(ctx: Ctx<'_>) -> Option<Vec<u8>> {
    ctx.call_text(c"CLUSTER", c"NODES")
}

/// Ends the names of keys that never exist: nobody can guess it.
static NOWHERE: LazyLock<MainCell<Option<Vec<u8>>>> = LazyLock::new(|| MainCell::new(None));

/// Whether a slot is served here, and staying.
fn is_settled(ctx: Ctx<'_>, key: &[u8]) -> bool {
    let tail = NOWHERE.with(|tail| {
        let made = || format!(":{:016x}{:016x}", ctx.random(), ctx.random()).into_bytes();
        tail.get_or_insert_with(made).clone()
    });
    match derived_prefix(key, &tail, "key") {
        Ok(nowhere) => ctx.serves(&[&RString::new(key), &RString::new(&nowhere)]),
        // No name shares its slot by a hash tag.
        Err(_) => match node_table(ctx) {
            Some(nodes) => in_node_table(&nodes, key_slot(key)) == Ownership::Settled,
            None => false,
        },
    }
}

/// Where the command of a client that has waited would be sent if it came now; `None` where it would be run here.
pub fn redirection(ctx: Ctx<'_>, key: &[u8]) -> Option<Error> {
    if !is_cluster() || ctx.serves(&[&RString::new(key)]) {
        return None;
    }
    Some(match node_table(ctx) {
        Some(nodes) => redirection_by(&nodes, key_slot(key)),
        None => try_again(),
    })
}
