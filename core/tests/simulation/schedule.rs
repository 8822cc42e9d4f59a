//! One seed, one schedule: what clients and the adversary do, drawn before anything runs, so that a part of it can be
//! left out and the rest keeps its meaning. And the search for the shortest part that still shows a fault.

use crate::common::Random;
use crate::loading::Given;

/// Questions that are asked; answers carry one of these tags.
pub const PROMPTS: usize = 5;
pub const TAGS: usize = 2;
pub const SESSIONS: usize = 4;

/// What happens next. Numbers choose among what is there at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    // Clients.
    Store {
        prompt: usize,
        ttl_ms: u64,
        tag: usize,
    },
    Keep {
        lease: usize,
        ttl_ms: u64,
    },
    Fetch {
        prompt: usize,
        lease_ms: u64,
        wait_ms: u64,
    },
    Fail {
        lease: usize,
        backoff_ms: u64,
    },
    Extend {
        lease: usize,
        ms: u64,
    },
    Leave {
        waiter: usize,
    },
    Get {
        prompt: usize,
    },
    Delete {
        prompt: usize,
    },
    Void {
        prompt: usize,
    },
    Expire {
        prompt: usize,
        ttl_ms: u64,
    },
    InvalidateTag {
        tag: usize,
    },
    InvalidateAll,
    InvalidateOlder,
    Drop,
    Scan,
    Append {
        session: usize,
    },
    EndSession {
        session: usize,
    },
    ListOwner,
    // An operator's, with DUMP and RESTORE.
    Dump,
    RestoreEntry {
        prompt: usize,
    },
    RestoreContainer,
    // The servers' own work.
    Tend {
        shard: usize,
    },
    Background {
        shard: usize,
        most: usize,
    },
    SendOn {
        shard: usize,
    },
    Sweep {
        node: usize,
    },
    Timeouts,
    Wakes,
    /// The server's own cycle over keys that are due.
    Cycle {
        node: usize,
        most: usize,
    },
    // The adversary.
    Advance {
        ms: u64,
    },
    SetClock {
        node: usize,
        by_ms: i64,
    },
    Deliver {
        shard: usize,
        most: usize,
    },
    Pause {
        shard: usize,
    },
    Unpause {
        shard: usize,
    },
    Evict {
        key: usize,
    },
    Restart {
        node: usize,
    },
    /// The same with a setting that an operator gives to the module.
    RestartWith {
        node: usize,
        given: Given,
    },
    HandOver {
        shard: usize,
    },
    TakeOver {
        shard: usize,
    },
    BeginMove,
    MoveKey {
        key: usize,
    },
    EndMove,
    MoveAll,
    /// The link of a primary and its replica breaks, and is there again.
    Cut {
        shard: usize,
    },
    Relink {
        shard: usize,
    },
}

/// How often each kind of step comes in one schedule: every schedule has emphases of its own.
struct Cast {
    weights: [usize; KINDS],
    sum: usize,
}

const KINDS: usize = 44;
/// Places of dumps and what is made of them, and of what happens to links.
const DUMPS: std::ops::Range<usize> = 37..40;
const LINKS: std::ops::Range<usize> = 41..43;
/// Of these there is one in most steps.
const COMMON: [usize; KINDS] = [
    8, 8, 10, 3, 2, 2, 6, 3, 2, 3, 2, 1, 2, 1, 2, 4, 1, 3, 4, 6, 2, 2, 2, 4, 8, 2, 6, 2, 3, 2, 2,
    1, 1, 3, 8, 3, 3, 3, 6, 3, 2, 2, 3, 1,
];

impl Cast {
    fn draw(random: &mut Random) -> Self {
        let mut weights = COMMON;
        for weight in &mut weights {
            // Left out, as usual, or often.
            *weight *= [0, 1, 1, 1, 1, 4][random.below(6)];
        }
        // Most schedules are without dumps, and half of them have whole links only: what needs many steps of one kind
        // would drown.
        if random.below(3) > 0 {
            weights[DUMPS].fill(0);
        } else {
            weights[13] = weights[13].max(3);
        }
        if random.below(2) == 0 {
            weights[LINKS].fill(0);
        }
        // Something must be there to lose, and time must pass.
        weights[0] = weights[0].max(8);
        weights[24] = weights[24].max(4);
        Self { weights, sum: weights.iter().sum() }
    }

    fn kind(&self, random: &mut Random) -> usize {
        let mut luck = random.below(self.sum);
        for (kind, &weight) in self.weights.iter().enumerate() {
            if luck < weight {
                return kind;
            }
            luck -= weight;
        }
        0
    }
}

fn step(kind: usize, random: &mut Random) -> Step {
    let mut below = |bound| random.below(bound);
    let ttl_ms = [0, 0, 5, 200, 5_000, 60_000][below(6)];
    let (prompt, tag, shard) = (below(PROMPTS), below(TAGS), below(2));
    let (session, node, other) = (below(SESSIONS), below(4), below(1 << 16));
    match kind {
        0 => Step::Store { prompt, ttl_ms, tag },
        1 => Step::Keep { lease: other, ttl_ms },
        2 => {
            let (lease_ms, wait_ms) =
                ([100, 1_000, 30_000][below(3)], [0, 50, 2_000, 60_000][below(4)]);
            Step::Fetch { prompt: below(2), lease_ms, wait_ms }
        }
        3 => Step::Fail { lease: other, backoff_ms: [0, 100, 5_000][below(3)] },
        4 => Step::Extend { lease: other, ms: [1, 1_000, 30_000][below(3)] },
        5 => Step::Leave { waiter: other },
        6 => Step::Get { prompt },
        7 => Step::Delete { prompt },
        8 => Step::Void { prompt },
        9 => Step::Expire { prompt, ttl_ms },
        10 => Step::InvalidateTag { tag },
        11 => Step::InvalidateAll,
        12 => Step::InvalidateOlder,
        13 => Step::Drop,
        14 => Step::Scan,
        15 => Step::Append { session },
        16 => Step::EndSession { session },
        17 => Step::ListOwner,
        18 => Step::Tend { shard },
        19 => Step::Background { shard, most: 1 + below(4) },
        20 => Step::SendOn { shard },
        21 => Step::Sweep { node },
        22 => Step::Timeouts,
        23 => Step::Wakes,
        24 => Step::Advance { ms: [1, 10, 99, 100, 101, 1_000, 5_000, 31_000][below(8)] },
        25 => {
            let by_ms = [-3_600_000, -5_000, -1, 1, 5_000, 3_600_000][below(6)];
            Step::SetClock { node, by_ms }
        }
        26 => Step::Deliver { shard, most: 1 + below(4) },
        27 => Step::Pause { shard },
        28 => Step::Unpause { shard },
        29 => Step::Evict { key: other },
        30 => Step::Restart { node },
        31 => Step::HandOver { shard },
        32 => Step::TakeOver { shard },
        33 => Step::BeginMove,
        34 => Step::MoveKey { key: other },
        35 => Step::EndMove,
        36 => Step::MoveAll,
        37 => Step::Dump,
        38 => Step::RestoreEntry { prompt },
        39 => Step::RestoreContainer,
        40 => Step::Cycle { node, most: 1 + below(4) },
        41 => Step::Cut { shard },
        42 => Step::Relink { shard },
        _ => {
            let given = [Given::Named, Given::Misspelt, Given::Argument][below(3)];
            Step::RestartWith { node, given }
        }
    }
}

/// The schedule of a seed.
pub fn schedule(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let cast = Cast::draw(&mut random);
    let length = 20 + random.below(100);
    (0..length)
        .map(|_| {
            let kind = cast.kind(&mut random);
            step(kind, &mut random)
        })
        .collect()
}

/// The shortest part found of a schedule that still is `bad`: pieces are left out, ever smaller ones.
pub fn shrink(mut steps: Vec<Step>, bad: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut at = 0;
        let before = steps.len();
        while at < steps.len() {
            let mut less = steps.clone();
            less.drain(at..(at + piece).min(steps.len()));
            if bad(&less) {
                steps = less;
            } else {
                at += piece;
            }
        }
        // Once more where leaving something out made something else needless.
        if steps.len() == before || piece > 1 {
            piece /= 2;
        }
    }
    steps
}
