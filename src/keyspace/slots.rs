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
use llmcache_core::cluster::{HASH_SLOTS, derived_prefix, key_slot};
use llmcache_core::error::{Error, ErrorWord, Result};
use std::cell::Cell;
use std::ops::RangeInclusive;
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
        if self.is_whole() { Ok(()) } else { Err(try_again()) }
    }

    /// What was found under a key; refuses a command that needs the key where it may be elsewhere.
    pub fn found<T>(&self, found: Option<T>) -> Result<Option<T>> {
        if found.is_none() {
            self.need_all()?;
        }
        Ok(found)
    }
}

/// The error of a key that may be on another server.
pub fn try_again() -> Error {
    Error::new(ErrorWord::TryAgain, "Keys of this hash slot are on their way to another server")
}

/// State of a hash slot on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Served here, and staying.
    Settled,
    /// Served here or about to be, but moving.
    Moving,
    /// Another server's.
    Foreign,
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

/// The slots that this server serves, or is about to.
pub struct Served(Vec<bool>);

impl Served {
    /// As of now; `None` when the server did not answer.
    pub fn ask(ctx: Ctx<'_>) -> Option<Self> {
        let table = node_table(ctx)?;
        let text = String::from_utf8_lossy(&table);
        let own = text.lines().filter_map(Node::read).find(|node| node.is_myself)?;
        let mut slots = vec![false; usize::from(HASH_SLOTS)];
        own.ranges().for_each(|range| slots[range].fill(true));
        own.moves().for_each(|(slot, ..)| slots[usize::from(slot)] = true);
        Some(Self(slots))
    }

    /// Whether the slot of this key is one of them.
    pub fn has(&self, key: &[u8]) -> bool {
        self.0[usize::from(key_slot(key))]
    }
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

/// The redirection of a slot that the server does not serve here, by its node table.
fn redirection_by(nodes: &[u8], slot: u16) -> Error {
    let text = String::from_utf8_lossy(nodes);
    let nodes: Vec<Node<'_>> = text.lines().filter_map(Node::read).collect();
    let own = nodes.iter().find(|node| node.is_myself);
    let target = own.and_then(|own| {
        let id = own.moves().find(|(moving, _, away)| *moving == slot && *away)?.1;
        nodes.iter().find(|node| node.id == id)
    });
    let owner = || nodes.iter().find(|node| node.owns(slot));
    match (target, owner()) {
        (Some(node), _) => Error::new(ErrorWord::Ask, format!("{slot} {}", node.address)),
        (None, Some(node)) if node.is_myself => try_again(),
        (None, Some(node)) => Error::new(ErrorWord::Moved, format!("{slot} {}", node.address)),
        (None, None) => Error::new(ErrorWord::ClusterDown, "Hash slot not served"),
    }
}

/// A line of `CLUSTER NODES`: id, address, flags, primary, ping, pong, epoch, link, then the slots of the node as
/// `first-last`, and for its own node moving ones as `[slot->-id]` and `[slot-<-id]`.
struct Node<'t> {
    id: &'t str,
    /// `ip:port`.
    address: &'t str,
    is_myself: bool,
    /// What it owns, and what moves.
    fields: Vec<&'t str>,
}

impl<'t> Node<'t> {
    fn read(line: &'t str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (id, address, flags) = (fields.next()?, fields.next()?, fields.next()?);
        // `ip:port@bus-port,hostname`.
        let address = address.split('@').next()?;
        let is_myself = flags.split(',').any(|flag| flag == "myself");
        Some(Self { id, address, is_myself, fields: fields.skip(5).collect() })
    }

    fn owns(&self, slot: u16) -> bool {
        self.ranges().any(|range| range.contains(&usize::from(slot)))
    }

    /// The slots it owns.
    fn ranges(&self) -> impl Iterator<Item = RangeInclusive<usize>> {
        self.fields.iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (last < usize::from(HASH_SLOTS)).then_some(first..=last)
        })
    }

    /// Slots that move: which, the other node's id, and whether away from here.
    fn moves(&self) -> impl Iterator<Item = (u16, &'t str, bool)> {
        self.fields.iter().filter_map(|range| {
            let moving = range.strip_prefix('[')?.strip_suffix(']')?;
            let (slot, rest) = moving.split_once('-')?;
            let (arrow, id) = rest.split_at_checked(2)?;
            let slot = slot.parse().ok().filter(|slot| *slot < HASH_SLOTS)?;
            Some((slot, id, arrow == ">-"))
        })
    }
}

fn in_node_table(nodes: &[u8], slot: u16) -> Ownership {
    let text = String::from_utf8_lossy(nodes);
    let own = text.lines().filter_map(Node::read).find(|node| node.is_myself);
    let Some(own) = own else { return Ownership::Foreign };
    if own.moves().any(|(moving, ..)| moving == slot) {
        Ownership::Moving
    } else if own.owns(slot) {
        Ownership::Settled
    } else {
        Ownership::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_node_table() {
        let table = b"07c3 127.0.0.1:30004@31004,host slave e7d1 0 1426238317239 4 connected\n\
            e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-99 200 \
            [50->-67ed] [300-<-292f]\n\
            292f 127.0.0.1:30003@31003 master - 0 1426238318243 3 connected 10923-16383\n";
        for (slot, state) in [
            (0, Ownership::Settled),
            (99, Ownership::Settled),
            (200, Ownership::Settled),
            (50, Ownership::Moving),
            (300, Ownership::Moving),
            (100, Ownership::Foreign),
            (11_000, Ownership::Foreign),
        ] {
            assert_eq!(in_node_table(table, slot), state, "{slot}");
        }
        assert_eq!(in_node_table(b"", 1), Ownership::Foreign);
    }

    #[test]
    fn names_the_server_to_ask() {
        let table = b"e7d1 127.0.0.1:30001@31001,host myself,master - 0 0 1 connected 0-99 [50->-67ed] [300-<-292f]\n\
            67ed 127.0.0.1:30002@31002 master - 0 0 2 connected\n\
            292f 127.0.0.1:30003@31003 master - 0 1426238318243 3 connected 101-16383\n";
        for (slot, error) in [
            (50, "ASK 50 127.0.0.1:30002"),
            (300, "MOVED 300 127.0.0.1:30003"),
            (11_000, "MOVED 11000 127.0.0.1:30003"),
            (100, "CLUSTERDOWN Hash slot not served"),
        ] {
            assert_eq!(redirection_by(table, slot).to_string(), error);
        }
    }
}
