//! An operator dumps the container and what is in it, and restores both after it was dropped: entries first, the
//! container first, or the entries alone, while what is left of the dropped one is being removed.

use crate::model::Answer;
use crate::node::{Effect, Name};
use crate::schedule::PROMPTS;
use crate::world::World;
use llmcache_core::cache::{Cache, Entry};

/// What was dumped.
#[derive(Debug)]
pub struct Dump {
    uid: u64,
    head: Vec<u8>,
    entries: Vec<(usize, Vec<u8>, Answer)>,
}

impl World {
    pub fn dump(&mut self) {
        let Some(node) = self.routed(&[Name::Container]).filter(|_| !self.is_moving) else {
            return;
        };
        let Some(uid) = self.nodes[node].placed() else { return };
        let mut entries = Vec::new();
        for prompt in 0..PROMPTS {
            if self.read(node, uid, prompt).is_some()
                && let Some((entry, _)) = self.nodes[node].entry(Name::Entry(uid, prompt))
                && let Some(answer) = self.model.answer(uid, prompt)
            {
                entries.push((prompt, entry.portable_bytes(), answer));
            }
        }
        self.dumped = Some(Dump { uid, head: self.nodes[node].caches[&uid].save_head(), entries });
    }

    /// RESTORE of an entry, over the key of a former one if there is one.
    pub fn restore_entry(&mut self, prompt: usize) {
        let Some(node) = self.routed(&[Name::Container]).filter(|_| !self.is_moving) else {
            return;
        };
        let Some(dump) = &self.dumped else { return };
        let Some((_, bytes, answer)) = dump.entries.iter().find(|(of, ..)| *of == prompt) else {
            return;
        };
        let (uid, bytes, answer) = (dump.uid, bytes.clone(), *answer);
        if self.nodes[node].placed() == Some(uid) || answer.until.is_past(self.now(node).wall) {
            return;
        }
        let entry = Entry::from_bytes(bytes.clone().into()).expect("it was dumped");
        self.nodes[node].put(prompt, entry, answer.until);
        let place = self.commit(node, vec![Effect::Entry(prompt, bytes, answer.until)]);
        self.model.note_answer(place, (uid, prompt), Some(answer));
    }

    /// What is removed with a dropped container is nothing that came after it was dropped.
    pub fn check_not_restored(&self, uid: u64, prompt: usize) {
        let is_kept = self.dumped.as_ref().is_some_and(|dump| dump.uid == uid);
        let answer = self.model.answer(uid, prompt).filter(|_| is_kept);
        assert_eq!(answer, None, "removed with a container that it is not of: question {prompt}");
    }

    /// RESTORE of the container, where what it had before is gone.
    pub fn restore_container(&mut self) {
        let Some(node) = self.routed(&[Name::Container]).filter(|_| !self.is_moving) else {
            return;
        };
        let here = &self.nodes[node];
        let Some(dump) = &self.dumped else { return };
        if here.placed().is_some() || here.evicted.is_some() {
            return;
        }
        let (uid, head) = (dump.uid, dump.head.clone());
        let is_left = |prompt: &usize| {
            here.entry(Name::Entry(uid, *prompt)).is_some()
                && self.model.answer(uid, *prompt).is_none()
        };
        if (0..PROMPTS).any(|prompt| is_left(&prompt)) {
            return;
        }
        let cache = Cache::load_head(&head).expect("it was dumped");
        self.nodes[node].create(cache);
        self.container_arrived(node);
        let place = self.commit(node, vec![Effect::Create(head)]);
        self.model.note_life(place, Some(uid));
    }
}
