//! What the server's node table says of hash slots, and what may be concluded from a key that is not there.
//!
//! Owns: the reading of `CLUSTER NODES`, the redirections that follow from it, and the rule of absence: while a slot
//! moves key by key, a key that is missing here may be on the other server. The adapter asks the server. Any thread.

use super::{HASH_SLOTS, key_slot};
use crate::error::{Error, ErrorWord, Result};
use std::ops::RangeInclusive;

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

impl Ownership {
    /// Whether a key of the slot that is not here is gone, for work between commands. A replica in a cluster is blind: its
    /// node table does not show the migrations of its primary.
    pub fn absent_is_gone(self, is_blind: bool) -> bool {
        !is_blind && self != Self::Moving
    }
}

/// What was found under a key; refuses a command that needs the key where it may be elsewhere. `is_whole` is asked where
/// that matters: whether all keys of the slot are here.
pub fn found_or_elsewhere<T>(
    found: Option<T>,
    is_whole: impl FnOnce() -> bool,
) -> Result<Option<T>> {
    if found.is_some() || is_whole() { Ok(found) } else { Err(try_again()) }
}

/// The error of a key that may be on another server.
pub fn try_again() -> Error {
    Error::new(ErrorWord::TryAgain, "Keys of this hash slot are on their way to another server")
}

/// The slots that this server serves, or is about to.
#[derive(Debug)]
pub struct Served(Vec<bool>);

impl Served {
    /// By its node table; `None` where that does not name it.
    pub fn by(nodes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(nodes);
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

/// The redirection of a slot that the server does not serve here, by its node table.
pub fn redirection_by(nodes: &[u8], slot: u16) -> Error {
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

/// The state of a slot by the node table.
pub fn in_node_table(nodes: &[u8], slot: u16) -> Ownership {
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
