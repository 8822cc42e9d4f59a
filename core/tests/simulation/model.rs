//! What was acknowledged, beside the servers: the life of the container, the answer to each question, sessions.
//!
//! Each fact has a history: which shard had it from which place of its log on. A replica that takes over knows the log
//! up to a place; what it must have is what was so at that place, exactly.

use crate::node::Name;
use llmcache_core::ids::UnixMs;
use std::collections::BTreeMap;

/// A place of a log: shard, and how many groups of changes it had by then.
pub type Place = (usize, usize);

/// An answer as it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub number: u64,
    pub tag: usize,
    pub until: UnixMs,
}

/// A fact: what is so, and what each shard's log says of it from which place on.
#[derive(Debug, Default)]
struct Fact<T> {
    now: T,
    told: [Vec<(usize, T)>; 2],
}

impl<T: Copy + Default + PartialEq> Fact<T> {
    fn note(&mut self, (shard, group): Place, value: T) {
        self.told[shard].push((group, value));
        self.now = value;
    }

    /// It went from a shard whose log tells so, to another.
    fn leave(&mut self, (shard, group): Place) {
        self.told[shard].push((group, T::default()));
    }

    /// What is not so any more is not so at this shard either, from here on.
    fn agree(&mut self, (shard, group): Place) {
        let is_told = self.told[shard].last().is_some_and(|&(_, value)| value != T::default());
        if self.now == T::default() && is_told {
            self.told[shard].push((group, T::default()));
        }
    }

    /// A replica of `shard` that knew so much took over; `owns` when that shard has the slot, else all it has goes.
    fn fall_back(&mut self, (shard, known): Place, owns: bool) {
        self.told[shard].retain(|&(group, _)| group <= known);
        if owns {
            self.now = self.told[shard].last().map_or(T::default(), |&(_, value)| value);
        }
    }

    /// The log of a shard begins anew with all that is there.
    fn rebase(&mut self, shard: usize, keeps: bool) {
        let last = self.told[shard].pop().filter(|_| keeps);
        self.told[shard].clear();
        self.told[shard].extend(last.map(|(_, value)| (0, value)));
    }
}

#[derive(Debug, Default)]
pub struct Model {
    life: Fact<Option<u64>>,
    answers: BTreeMap<(u64, usize), Fact<Option<Answer>>>,
    sessions: BTreeMap<usize, Fact<bool>>,
    /// Which of them the owner's set has.
    members: BTreeMap<usize, Fact<bool>>,
}

impl Model {
    /// Which life of the container there is.
    pub fn life(&self) -> Option<u64> {
        self.life.now
    }

    pub fn answer(&self, uid: u64, prompt: usize) -> Option<Answer> {
        self.answers.get(&(uid, prompt))?.now
    }

    pub fn has_session(&self, session: usize) -> bool {
        self.sessions.get(&session).is_some_and(|fact| fact.now)
    }

    pub fn is_member(&self, session: usize) -> bool {
        self.members.get(&session).is_some_and(|fact| fact.now)
    }

    pub fn note_member(&mut self, place: Place, session: usize) {
        self.members.entry(session).or_default().note(place, true);
    }

    pub fn note_life(&mut self, place: Place, life: Option<u64>) {
        self.life.note(place, life);
    }

    pub fn note_answer(
        &mut self,
        place: Place,
        (uid, prompt): (u64, usize),
        answer: Option<Answer>,
    ) {
        self.answers.entry((uid, prompt)).or_default().note(place, answer);
    }

    pub fn note_session(&mut self, place: Place, session: usize, there: bool) {
        self.sessions.entry(session).or_default().note(place, there);
    }

    /// A key went from one shard to the other.
    pub fn note_move(&mut self, name: Name, from: Place, to: Place) {
        match name {
            Name::Container => {
                self.life.leave(from);
                self.life.note(to, self.life.now);
                // What was invalidated while entries were elsewhere came with it.
                self.answers.values_mut().for_each(|fact| fact.agree(to));
            }
            Name::Entry(uid, prompt) => {
                let fact = self.answers.entry((uid, prompt)).or_default();
                fact.leave(from);
                fact.note(to, fact.now);
            }
            Name::Session(session) => {
                let fact = self.sessions.entry(session).or_default();
                fact.leave(from);
                fact.note(to, fact.now);
            }
            Name::Owner => {
                for fact in self.members.values_mut() {
                    fact.leave(from);
                    fact.note(to, fact.now);
                }
            }
        }
    }

    /// The answers of a life that are there.
    pub fn answers_of(&self, uid: u64) -> Vec<(usize, Answer)> {
        let all = self.answers.range((uid, 0)..=(uid, usize::MAX));
        all.filter_map(|(&(_, prompt), fact)| Some((prompt, fact.now?))).collect()
    }

    /// A replica that knew the log of its shard up to a place took over.
    pub fn fall_back(&mut self, place: Place, owns: bool) {
        self.life.fall_back(place, owns);
        self.answers.values_mut().for_each(|fact| fact.fall_back(place, owns));
        self.sessions.values_mut().for_each(|fact| fact.fall_back(place, owns));
        self.members.values_mut().for_each(|fact| fact.fall_back(place, owns));
    }

    /// The log of a shard begins anew with all that is there, or with nothing.
    pub fn rebase(&mut self, shard: usize, keeps: bool) {
        self.life.rebase(shard, keeps);
        self.answers.values_mut().for_each(|fact| fact.rebase(shard, keeps));
        self.sessions.values_mut().for_each(|fact| fact.rebase(shard, keeps));
        self.members.values_mut().for_each(|fact| fact.rebase(shard, keeps));
    }
}
