//! The walk for due entries against a list of all deadlines: it names every entry that is due, and none
//! that is not, in steps of so many rows, and looks at nothing while nothing can be due.

mod common;

use common::{Random, measure};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{DueStep, Index, NewSlot};
use std::collections::BTreeMap;

struct Known {
    index: Index,
    deadlines: BTreeMap<u32, (Seq, UnixMs)>,
    stored: u64,
}

impl Known {
    fn new() -> Self {
        Self { index: Index::new(), deadlines: BTreeMap::new(), stored: 0 }
    }

    fn insert(&mut self, expire_at: UnixMs) -> SlotId {
        self.stored += 1;
        let (seq, id) = (Seq(self.stored), EntryId::of(b"", b"", &self.stored.to_le_bytes()));
        let slot = self.index.insert(NewSlot {
            id,
            seq,
            partition: PartitionKey::of(b"", b""),
            expire_at,
            bytes: 100,
            worth: 0,
            record: None,
            name: None,
            code: None,
        });
        self.deadlines.insert(slot.0, (seq, expire_at));
        slot
    }

    fn remove(&mut self, slot: u32) {
        let (seq, _) = self.deadlines.remove(&slot).expect("a slot that is taken");
        assert!(self.index.remove(SlotId(slot), seq));
    }

    fn move_deadline(&mut self, slot: u32, to: UnixMs) {
        let known = self.deadlines.get_mut(&slot).expect("a slot that is taken");
        known.1 = to;
        self.index.set_expiry(SlotId(slot), known.0, to);
    }

    fn any(&self, random: &mut Random) -> Option<u32> {
        self.deadlines.keys().copied().nth(random.below(self.deadlines.len()))
    }

    fn due(&self, now: UnixMs) -> usize {
        self.deadlines.values().filter(|(_, at)| at.is_past(now)).count()
    }

    /// One step; what it names is due and is removed. Answers what the step came to.
    fn step(&mut self, now: UnixMs, rows: u32) -> DueStep {
        let step = self.index.next_due(now, rows);
        if let DueStep::Entry(slot, seq) = step {
            let (known_seq, at) = self.deadlines[&slot.0];
            assert!(known_seq == seq && at.is_past(now), "{slot:?} is not due");
            self.remove(slot.0);
        }
        step
    }
}

#[test]
fn finds_what_is_due_and_nothing_else() {
    for seed in 0..20 {
        let (mut known, mut random, mut now) = (Known::new(), Random(seed), 1_000_000);
        for _ in 0..400 {
            for _ in 0..random.below(60) {
                match random.below(10) {
                    0..5 => {
                        known.insert(UnixMs(now + 1 + random.below(2_000) as u64));
                    }
                    5 => {
                        known.insert(UnixMs::NEVER);
                    }
                    6 | 7 => {
                        if let Some(slot) = known.any(&mut random) {
                            known.remove(slot);
                        }
                    }
                    _ => {
                        let to =
                            [UnixMs::NEVER, UnixMs(now - 1), UnixMs(now + 500)][random.below(3)];
                        if let Some(slot) = known.any(&mut random) {
                            known.move_deadline(slot, to);
                        }
                    }
                }
            }
            let rows = 1 + random.below(300) as u32;
            for _ in 0..random.below(100) {
                if known.step(UnixMs(now), rows) == DueStep::Over {
                    break;
                }
            }
            now += random.below(200) as u64;
        }
        // The pauses between rounds are short for so few rows.
        for _ in 0..3 {
            now += 50;
            while known.step(UnixMs(now), 256) != DueStep::Over {}
        }
        assert_eq!(known.due(UnixMs(now)), 0, "seed {seed}");
        known.index.check_invariants();
    }
}

#[test]
fn looks_at_nothing_while_nothing_can_be_due() {
    let mut known = Known::new();
    for _ in 0..1_000 {
        known.insert(UnixMs::NEVER);
    }
    assert!(!known.index.has_deadlines() && !known.index.may_be_due(UnixMs(1 << 40)));
    let slot = known.insert(UnixMs(5_000));
    assert!(known.index.has_deadlines());
    assert!(!known.index.may_be_due(UnixMs(4_999)) && known.index.may_be_due(UnixMs(5_000)));
    known.move_deadline(slot.0, UnixMs::NEVER);
    // The bound is of what was; a round finds out.
    let mut steps = 1;
    while known.step(UnixMs(5_000), 100) != DueStep::Over {
        steps += 1;
    }
    assert_eq!(steps, 11);
    assert!(!known.index.has_deadlines() && !known.index.may_be_due(UnixMs(1 << 40)));
}

#[test]
fn a_step_passes_no_more_rows_than_it_may() {
    let mut known = Known::new();
    for _ in 0..1_000 {
        known.insert(UnixMs(9_000));
    }
    let last = known.insert(UnixMs(10));
    let (steps, calls, _, _) = measure(|| [(); 10].map(|()| known.index.next_due(UnixMs(10), 100)));
    assert_eq!((steps, calls), ([DueStep::Passed; 10], 0), "and allocates nothing");
    assert_eq!(known.index.next_due(UnixMs(10), 100), DueStep::Entry(last, Seq(1_001)));
    assert_eq!(known.index.next_due(UnixMs(10), 100), DueStep::Over);
}

#[test]
fn what_stays_though_it_is_due_is_named_once_a_round() {
    let mut known = Known::new();
    known.insert(UnixMs(10));
    assert!(matches!(known.index.next_due(UnixMs(10), 100), DueStep::Entry(..)));
    assert_eq!(known.index.next_due(UnixMs(10), 100), DueStep::Over);
    assert!(!known.index.may_be_due(UnixMs(1 << 40)), "it brings on no round of its own");
    known.insert(UnixMs(20));
    assert!(matches!(known.index.next_due(UnixMs(100), 100), DueStep::Entry(..)));
    assert!(matches!(known.index.next_due(UnixMs(100), 100), DueStep::Entry(..)));
}

#[test]
fn rounds_that_find_little_are_far_between() {
    let mut known = Known::new();
    for at in 0..100_000 {
        known.insert(UnixMs(1_000 + at));
    }
    let pause_after = |known: &mut Known, now: u64| {
        while known.step(UnixMs(now), 4_096) != DueStep::Over {}
        let mut later = now + 1;
        while !known.index.may_be_due(UnixMs(later)) {
            later += 1;
        }
        later - now
    };
    let little = pause_after(&mut known, 1_010);
    let much = pause_after(&mut known, 11_000);
    assert_eq!((little, much), (200, 20));
    // A clock that is set back does not stop it.
    while known.step(UnixMs(60_000), 4_096) != DueStep::Over {}
    known.insert(UnixMs(10));
    assert!(known.index.may_be_due(UnixMs(20)));
}
