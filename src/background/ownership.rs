//! Whether a hash slot is ours to clean up. While a slot migrates, a key that is missing here is on
//! its way, and MIGRATE deletes by the same path as DEL: nothing must be concluded from absence.

use crate::ffi::{Ctx, MainCell};
use llmcache_core::cluster::key_slot;

/// The node table as this slice first asked for it; `Some(None)` when the server did not answer.
static TABLE: MainCell<Option<Option<Vec<u8>>>> = MainCell::new(None);

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

/// The state of the slot of `key`. Without a cluster every slot is settled.
pub fn of_key(ctx: Ctx<'_>, key: &[u8]) -> Ownership {
    if !ctx.state().is_cluster() {
        return Ownership::Settled;
    }
    // Servers before 8.4 tell modules nothing of migrations; the node table does.
    TABLE.with(|table| {
        let table = table.get_or_insert_with(|| ctx.call_text(c"CLUSTER", c"NODES"));
        match table {
            Some(nodes) => in_node_table(nodes, key_slot(key)),
            None => Ownership::Moving,
        }
    })
}

/// Forgets the node table: called before every slice of work, within which slots cannot change hands.
pub fn ask_again() {
    TABLE.with(|table| *table = None);
}

/// Reads `CLUSTER NODES`: id, address, flags, primary, ping, pong, epoch, link, then the slots of the
/// node as `first-last`, and for its own node moving ones as `[slot->-id]` and `[slot-<-id]`.
fn in_node_table(nodes: &[u8], slot: u16) -> Ownership {
    let text = String::from_utf8_lossy(nodes);
    let own = text.lines().find(|line| {
        line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"))
    });
    let mut state = Ownership::Foreign;
    for range in own.into_iter().flat_map(|line| line.split(' ').skip(8)) {
        if let Some(moving) = range.strip_prefix('[') {
            let number = moving.split('-').next();
            if number.and_then(|number| number.parse().ok()) == Some(slot) {
                return Ownership::Moving;
            }
        } else {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>())
                && (first..=last).contains(&slot)
            {
                state = Ownership::Settled;
            }
        }
    }
    state
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
}
