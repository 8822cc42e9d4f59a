//! How changes get to a replica: the link, the backlog of the primary, what a replica reads that missed more than that, and
//! what becomes of both when the replica takes over.

use crate::cures::Cure;
use crate::node::{Effect, Name};
use crate::world::World;

/// Groups of changes that a primary keeps for a replica that was away.
const BACKLOG: usize = 6;

/// A replica's link to its primary.
#[derive(Debug)]
pub struct Link {
    is_up: bool,
    /// What the replica has is what the primary's log says up to a place.
    is_known: bool,
    /// The primary lets it go on from there, if the backlog reaches so far.
    may_go_on: bool,
    /// What is on its way to a replica that reads everything anew, and the place of the log that it stands for.
    copy: Option<(Vec<Effect>, usize)>,
}

impl Default for Link {
    fn default() -> Self {
        Self { is_up: true, is_known: true, may_go_on: true, copy: None }
    }
}

impl Link {
    /// A copy that is on its way is lost.
    pub fn cut(&mut self) {
        (self.is_up, self.copy) = (false, None);
    }

    /// One of both servers was started again.
    pub fn restarted(&mut self) {
        self.cut();
        self.may_go_on = false;
    }
}

impl World {
    /// A replica is there again: it goes on where it was, or a copy of everything is made for it.
    pub fn relink(&mut self, shard: usize) {
        let primary = self.primary[shard];
        let end = self.nodes[primary].log.len();
        let link = &self.links[shard];
        if link.is_up {
            return;
        }
        let missed = end - self.applied[shard];
        let goes_on = link.may_go_on && missed <= BACKLOG;
        if !goes_on && link.may_go_on && self.is_without(Cure::BacklogEnds) {
            // It goes on with what there is.
            self.applied[shard] = end - BACKLOG;
        } else if !goes_on {
            let shift = self.random.below(16);
            self.links[shard].copy = Some((self.nodes[primary].snapshot(shift), end));
        }
        self.links[shard].is_up = true;
    }

    pub fn deliver(&mut self, shard: usize, most: usize) {
        let (primary, replica) = (self.primary[shard], self.replica(shard));
        if !self.links[shard].is_up {
            return;
        }
        if let Some((copy, end)) = self.links[shard].copy.take() {
            self.nodes[replica].load(copy, Vec::new());
            self.applied[shard] = end;
            (self.links[shard].is_known, self.links[shard].may_go_on) = (true, true);
        }
        let end = self.nodes[primary].log.len().min(self.applied[shard].saturating_add(most));
        for at in self.applied[shard]..end {
            let group = self.nodes[primary].log[at].clone();
            group.iter().for_each(|effect| self.nodes[replica].obey(effect));
            self.nodes[replica].log.push(group);
        }
        self.applied[shard] = end;
        if end == self.nodes[primary].log.len() {
            let names = |node: usize| self.nodes[node].keys.keys();
            assert!(names(primary).eq(names(replica)), "a replica that has everything differs");
        }
    }

    /// FAILOVER: the replica takes over once it has everything.
    pub fn hand_over(&mut self, shard: usize) {
        if self.links[shard].is_up {
            self.deliver(shard, usize::MAX);
            self.change_roles(shard);
        }
    }

    /// The replica takes over with what it has.
    pub fn take_over(&mut self, shard: usize) {
        if self.is_moving || !self.links[shard].is_known {
            return;
        }
        // What was dumped may be of a time that is no more.
        self.dumped = None;
        let place = (shard, self.applied[shard]);
        let owns = self.owner == shard;
        self.model.fall_back(place, owns);
        self.change_roles(shard);
    }

    /// The replica is the primary from now on, and the former primary its replica: it goes on as it is where it has
    /// nothing that the other lacks.
    fn change_roles(&mut self, shard: usize) {
        let (former, new) = (self.primary[shard], self.replica(shard));
        self.forget_clients(former);
        self.end_walk(former, true);
        let link = &mut self.links[shard];
        let goes_on = link.may_go_on && self.applied[shard] == self.nodes[former].log.len();
        *link = Link { is_up: goes_on, is_known: goes_on, may_go_on: goes_on, copy: None };
        self.primary[shard] = new;
        let shift = self.random.below(16);
        let keeps = self.owner == shard || self.is_moving;
        if !keeps {
            self.nodes[new].remove_all();
            if goes_on {
                self.nodes[former].remove_all();
            }
        }
        if !self.is_without(Cure::DemotionGivesUp) {
            self.nodes[former].evicted = None;
        }
        let base = self.nodes[new].snapshot(shift);
        for number in [former, new] {
            let node = &mut self.nodes[number];
            node.role = Default::default();
            if number == new || goes_on {
                (node.base, node.log) = (base.clone(), Vec::new());
            }
        }
        self.applied[shard] = 0;
        self.model.rebase(shard, keeps);
        self.tell_tables();
        self.took_over(new);
    }

    /// What was picked out while another was the primary voids leases that were granted here before.
    fn took_over(&mut self, node: usize) {
        if !self.is_without(Cure::TakeoverVoids) {
            self.nodes[node].flights.values_mut().for_each(|flights| flights.note_picked());
            self.leases.took_over(node);
        }
    }
}

impl crate::node::Node {
    /// The server removes keys of slots that it does not own.
    fn remove_all(&mut self) {
        let names: Vec<Name> = self.keys.keys().copied().collect();
        for name in names {
            self.remove(name);
        }
    }
}
