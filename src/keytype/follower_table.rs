//! Clients that wait for a message to grow, by session key.
//!
//! Owns: the table, and the list of keys that lost their value. The removal hook only notes the key;
//! `keyspace::followers` wakes who waits. Main thread.

use crate::ffi::{BlockedId, MainCell};
use hashbrown::HashMap;
use llmcache_core::ids::{MonotonicMs, UnixMs};
use llmcache_core::session::MessageSeq;
use std::ffi::c_int;
use std::sync::LazyLock;

/// Database and key.
pub type Place = (c_int, Vec<u8>);

/// Which message a client follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one with this sequence number.
    Seq(MessageSeq),
    /// The one with this ID; in the table, one that has not begun yet.
    Id(Box<[u8]>),
}

/// A client that waits.
#[derive(Debug, Clone)]
pub struct Follower {
    /// By which it is woken, and leaves.
    pub client: BlockedId,
    /// What it follows.
    pub target: Target,
    /// What it has.
    pub offset: u64,
    /// Most bytes it takes at once.
    pub max: u64,
    /// How long it lets parts gather.
    pub linger_ms: u64,
    /// When it is woken for what has gathered.
    pub linger_due: Option<MonotonicMs>,
    /// When the message is abandoned, as far as is known here: a time that is saved.
    pub lease_until: UnixMs,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<Place, Vec<Follower>>,
    bereft: Vec<Place>,
}

static TABLE: LazyLock<MainCell<Table>> = LazyLock::new(|| MainCell::new(Table::default()));

/// Puts a follower into the table.
pub fn add(place: Place, follower: Follower) {
    TABLE.with(|table| table.waiting.entry(place).or_default().push(follower));
}

/// Takes a follower out, if it is in.
pub fn remove(place: &Place, client: BlockedId) {
    take(place, |follower| follower.client == client);
}

/// Takes out the followers of a key that `wanted` names; it may change the others.
pub fn take(place: &Place, mut wanted: impl FnMut(&mut Follower) -> bool) -> Vec<Follower> {
    TABLE.with(|table| {
        let Some(followers) = table.waiting.get_mut(place) else { return Vec::new() };
        let taken = followers.extract_if(.., |follower| wanted(follower)).collect();
        if followers.is_empty() {
            table.waiting.remove(place);
        }
        if table.waiting.is_empty() {
            table.waiting.shrink_to_fit();
        }
        taken
    })
}

/// Keys that are followed.
pub fn places() -> Vec<Place> {
    TABLE.with(|table| table.waiting.keys().cloned().collect())
}

/// Whether nobody follows.
pub fn is_empty() -> bool {
    TABLE.with(|table| table.waiting.is_empty())
}

/// How many clients follow.
pub fn count() -> usize {
    TABLE.with(|table| table.waiting.values().map(Vec::len).sum())
}

/// The value of a key is going: who waits for it will not see it grow.
pub fn bereave(db: c_int, key: &[u8]) {
    TABLE.with(|table| {
        if table.waiting.is_empty() {
            return;
        }
        let place = (db, key.to_vec());
        if table.waiting.contains_key(&place) {
            table.bereft.push(place);
        }
    });
}

/// Keys that lost their value since this was asked last.
pub fn take_bereft() -> Vec<Place> {
    TABLE.with(|table| std::mem::take(&mut table.bereft))
}

/// The earliest of the times that `of` answers for those who wait.
pub fn earliest(of: impl Fn(&Follower) -> Option<MonotonicMs>) -> Option<MonotonicMs> {
    TABLE.with(|table| table.waiting.values().flatten().filter_map(of).min())
}
