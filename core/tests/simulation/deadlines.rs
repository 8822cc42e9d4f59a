//! What servers do by themselves with keys that are due: a primary removes them on access and in a cycle of its own, and
//! says so; a replica waits until it is told. Clocks differ, and are set.

use crate::cures::Cure;
use crate::node::{Effect, Name, Value};
use crate::world::World;
use llmcache_core::ids::MonotonicMs;

/// How long entries without a container are kept.
const ORPHAN_GRACE_MS: u64 = 60_000;

impl World {
    fn is_due(&self, node: usize, name: Name) -> bool {
        self.nodes[node].entry(name).is_some_and(|(_, until)| until.is_past(self.now(node).wall))
    }

    /// A key is opened: the server removes one that is due.
    pub fn touch(&mut self, node: usize, name: Name) {
        let role = self.nodes[node].role;
        if self.is_due(node, name) && !role.is_replica && !role.spares_replicas {
            self.expire_key(node, name);
        }
    }

    fn expire_key(&mut self, node: usize, name: Name) {
        let Name::Entry(uid, prompt) = name else { return };
        self.nodes[node].remove(name);
        let place = self.commit(node, vec![Effect::Remove(name)]);
        self.model.note_answer(place, (uid, prompt), None);
    }

    /// The server's cycle over keys that are due.
    pub fn cycle(&mut self, node: usize, most: usize) {
        let role = self.nodes[node].role;
        if role.spares_replicas {
            return;
        }
        let names = self.nodes[node].keys.keys().copied();
        let due: Vec<Name> = names.filter(|&name| self.is_due(node, name)).take(most).collect();
        for name in due {
            if !role.is_replica {
                self.expire_key(node, name);
            } else if self.is_without(Cure::ReplicaWaits) {
                self.nodes[node].remove(name);
            }
        }
    }

    /// The part of the sweep that removes entries that nothing came for.
    pub fn remove_orphans(&mut self, node: usize) {
        let now = MonotonicMs(self.steady());
        let here = &mut self.nodes[node];
        let placed = here.placed();
        let orphans: Vec<Name> = here
            .keys
            .keys()
            .copied()
            .filter(|name| matches!(name, Name::Entry(uid, _) if Some(*uid) != placed && here.evicted != Some(*uid)))
            .collect();
        let known =
            |uid: u64| orphans.iter().any(|name| matches!(name, Name::Entry(of, _) if *of == uid));
        here.orphaned.retain(|&uid, _| known(uid));
        // Nobody waits for what nothing is left of.
        let (bereft, evicted) = (&here.bereft, here.evicted);
        here.caches.retain(|uid, _| {
            Some(*uid) == placed || evicted == Some(*uid) || bereft.contains(uid) || known(*uid)
        });
        for name in orphans {
            let Name::Entry(uid, prompt) = name else { continue };
            let here = &mut self.nodes[node];
            let since = *here.orphaned.entry(uid).or_insert(now);
            let is_over = MonotonicMs(since.0 + ORPHAN_GRACE_MS).is_past(now);
            if !is_over || !here.has_leave() || !here.is_whole() {
                continue;
            }
            assert!(matches!(here.keys.get(&name), Some(Value::Entry(..))));
            here.remove(name);
            let place = self.commit_between(node, vec![Effect::Remove(name)]);
            self.model.note_answer(place, (uid, prompt), None);
        }
    }
}
