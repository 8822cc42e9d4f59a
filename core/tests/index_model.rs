//! The index against a model: a hash map of what was put in, and a search that reads all of it.
//! Random operations from fixed seeds; runs on the test runner's threads.

mod common;

use common::{Random, measure};
use llmcache_core::filter::{Filter, FilterRecord, Verdict};
use llmcache_core::ids::{EntryId, PartitionKey, ScopeKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    BLOCK_SLOTS, GraphSettings, Index, IndexMode, NewSlot, SearchRequest, SearchResult, Totals,
};
use llmcache_core::limits;
use llmcache_core::vector::quantise::unit_scale;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const DIM: usize = 8;
/// The time that searches pass when they do not choose one.
const NOW: UnixMs = UnixMs(1_000);

/// META of the model: members of one kind each, so that a filter is a line of Rust.
#[derive(Debug, Clone, Default, PartialEq)]
struct Meta {
    number: Option<i64>,
    text: Option<&'static str>,
    list: Option<Vec<i64>>,
    /// A text longer than a record, which ends with this: only the entry knows it.
    long: Option<i64>,
}

impl Meta {
    fn random(random: &mut Random) -> Option<Self> {
        let meta = Self {
            number: (random.below(3) > 0).then(|| random.below(8) as i64),
            text: (random.below(2) > 0).then(|| ["a", "b", "c"][random.below(3)]),
            list: (random.below(4) == 0).then(|| vec![random.below(4) as i64]),
            long: (random.below(4) == 0).then(|| random.below(4) as i64),
        };
        (meta != Self::default()).then_some(meta)
    }

    /// What its record says of a text that is in the long member or not.
    fn of_long(&self) -> Verdict {
        if self.long.is_some() { Verdict::NeedsEntry } else { Verdict::No }
    }

    fn record(&self) -> FilterRecord {
        let members = [
            self.number.map(|n| ("n".to_owned(), json!(n))),
            self.text.map(|s| ("s".to_owned(), json!(s))),
            self.list.as_ref().map(|a| ("a".to_owned(), json!(a))),
            self.long.map(|n| ("l".to_owned(), json!(format!("{}{n}", "x".repeat(1_100))))),
        ];
        let members: serde_json::Map<String, Value> = members.into_iter().flatten().collect();
        FilterRecord::from_meta(&members, &Default::default()).expect("a META with members")
    }
}

/// What a filter must say of an entry; without META all members are absent.
type Judge = fn(&Meta) -> Verdict;

fn sure(yes: bool) -> Verdict {
    if yes { Verdict::Yes } else { Verdict::No }
}

fn filters() -> Vec<(Filter, Judge)> {
    let table: [(&str, Judge); 10] = [
        (".n == 3", |m| sure(m.number == Some(3))),
        // What is absent is less than nothing, so that `not` of it holds.
        ("not (.n < 5)", |m| sure(m.number.is_none_or(|n| n >= 5))),
        (".s in ['a', 'b'] and .n > 2", |m| {
            sure(m.text.is_some_and(|s| s != "c") && m.number.is_some_and(|n| n > 2))
        }),
        (".s == 'c' or .n == 0", |m| sure(m.text == Some("c") || m.number == Some(0))),
        ("3 in .a", |m| sure(m.list.as_ref().is_some_and(|list| list.contains(&3)))),
        (".n >= 4 and 1 in .a", |m| {
            let listed = m.list.as_ref().is_some_and(|list| list.contains(&1));
            sure(listed && m.number.is_some_and(|n| n >= 4))
        }),
        ("'x2' in .l", Meta::of_long),
        (".n == 3 and 'x2' in .l", |m| match m.number {
            Some(3) => m.of_long(),
            _ => Verdict::No,
        }),
        (".n == 3 or 'x2' in .l", |m| match m.number {
            Some(3) => Verdict::Yes,
            _ => m.of_long(),
        }),
        ("exists(.l) and .n < 5", |m| sure(m.long.is_some() && m.number.is_some_and(|n| n < 5))),
    ];
    let parse = |text: &str| Filter::parse(text.as_bytes()).expect("a filter of the table");
    table.into_iter().map(|(text, judge)| (parse(text), judge)).collect()
}

#[derive(Debug, Clone)]
struct Known {
    id: EntryId,
    seq: Seq,
    partition: PartitionKey,
    expire_at: UnixMs,
    bytes: u32,
    worth: u8,
    meta: Option<Meta>,
    name: Option<Vec<u8>>,
    code: Option<(Vec<i8>, f32)>,
    tags: Vec<&'static str>,
    hidden: bool,
    hits: u32,
}

const TAGS: [&str; 5] = ["a", "b", "c", "d", "a longer tag"];

impl Known {
    fn new_slot(&self) -> NewSlot<'_> {
        NewSlot {
            id: self.id,
            seq: self.seq,
            partition: self.partition,
            expire_at: self.expire_at,
            bytes: self.bytes,
            worth: self.worth,
            record: self.meta.as_ref().map(Meta::record),
            name: self.name.as_deref(),
            code: self.code.as_ref().map(|(code, scale)| (code.as_slice(), *scale)),
        }
    }
}

fn random_code(random: &mut Random) -> (Vec<i8>, f32) {
    // Few values and few scales: many codes are equal, and many scores are.
    let code = (0..DIM).map(|_| (random.below(5) as i8 - 2) * 40).collect();
    (code, [0.001, 0.002, 0.0015][random.below(3)])
}

/// Where new entries go: a few partitions that grow, or a new one for each.
#[derive(Debug, Clone, Copy)]
enum Spread {
    Few(usize),
    OneEach,
    Mixed,
}

struct Pair {
    index: Index,
    model: HashMap<u32, Known>,
    partitions: BTreeMap<PartitionKey, BTreeSet<u32>>,
    /// Occupied slots in a list, for picking at random; the model's own order would not repeat.
    slots: Vec<u32>,
    /// Below which entries with a tag are invalidated.
    bounds: BTreeMap<&'static str, Seq>,
    next: u64,
    random: Random,
    filters: Vec<(Filter, Judge)>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self {
            index: Index::new(),
            model: HashMap::new(),
            partitions: BTreeMap::new(),
            slots: Vec::new(),
            bounds: BTreeMap::new(),
            next: 1,
            random: Random(seed),
            filters: filters(),
        }
    }

    fn insert(&mut self, spread: Spread) {
        // An id that is there already: the index gives up its row.
        let again = if self.random.below(6) == 0 { self.pick() } else { None };
        let again = again.map(|(slot, _)| self.forget(slot).id);
        let random = &mut self.random;
        let seq = Seq(self.next);
        self.next += 1;
        let own = PartitionKey(seq.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let partition = match spread {
            Spread::Few(count) => PartitionKey(2 * random.below(count) as u64),
            Spread::OneEach => own,
            Spread::Mixed if random.below(2) == 0 => own,
            Spread::Mixed => PartitionKey(2 * random.below(40) as u64),
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&seq.0.to_be_bytes());
        id[8..].copy_from_slice(&random.next().to_le_bytes());
        let known = Known {
            id: again.unwrap_or(EntryId(id)),
            seq,
            partition,
            expire_at: UnixMs([0, 0, 500, 1_500, NOW.0, NOW.0 + 1][random.below(6)]),
            bytes: random.below(5_000) as u32,
            worth: random.below(256) as u8,
            meta: Meta::random(random),
            name: (random.below(6) == 0).then(|| format!("n{}", seq.0).into_bytes()),
            code: (random.below(8) > 0).then(|| random_code(random)),
            tags: (0..random.below(4)).map(|_| TAGS[random.below(TAGS.len())]).collect(),
            hidden: false,
            hits: 0,
        };
        let slot = self.index.insert(known.new_slot()).0;
        self.index.set_tags(SlotId(slot), known.tags.iter().map(|tag| tag.as_bytes()));
        if known.code.is_some() {
            self.partitions.entry(partition).or_default().insert(slot);
        }
        assert!(self.model.insert(slot, known).is_none(), "slot {slot} was given out twice");
        self.slots.push(slot);
    }

    fn pick(&mut self) -> Option<(SlotId, Seq)> {
        let slot = *self.slots.get(self.random.below(self.slots.len()))?;
        Some((SlotId(slot), self.model[&slot].seq))
    }

    fn remove(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        let slot = SlotId(self.slots[self.random.below(self.slots.len())]);
        let known = self.forget(slot);
        assert!(self.index.remove(slot, known.seq));
        assert!(!self.index.remove(slot, known.seq), "removed twice");
    }

    /// Takes an entry out of the model.
    fn forget(&mut self, slot: SlotId) -> Known {
        self.slots.retain(|other| *other != slot.0);
        let known = self.model.remove(&slot.0).expect("a listed slot");
        if known.code.is_some() {
            let rows = self.partitions.get_mut(&known.partition).expect("its partition");
            rows.remove(&slot.0);
            if rows.is_empty() {
                self.partitions.remove(&known.partition);
            }
        }
        known
    }

    /// Operations under a slot or a sequence that is not there: nothing may change.
    fn miss(&mut self) {
        let free = self.random.below(self.slots.len() * 2 + 300) as u32;
        let free = if self.model.contains_key(&free) { u32::MAX } else { free };
        let (slot, seq) = self.pick().unwrap_or((SlotId(0), Seq(0)));
        let other = Seq(seq.0 + 1 + self.random.below(9) as u64);
        for (slot, seq) in [(slot, other), (SlotId(free), seq), (SlotId(free), Seq(0))] {
            assert!(!self.index.remove(slot, seq));
            assert!(self.index.slot_of(slot, seq).is_none());
            self.index.set_expiry(slot, seq, UnixMs(1));
            self.index.hide(slot, seq);
            self.index.unhide(slot, seq);
            self.index.note_hit(slot, seq, 7);
        }
    }

    fn touch(&mut self) {
        let Some((slot, seq)) = self.pick() else { return };
        let known = self.model.get_mut(&slot.0).expect("a listed slot");
        match self.random.below(5) {
            4 => {
                let (tag, bound) = (TAGS[self.random.below(TAGS.len())], Seq(self.next));
                self.next += 1;
                self.bounds.insert(tag, bound);
                self.index.set_tag_bound(tag.as_bytes(), bound);
            }
            0 => {
                known.expire_at = UnixMs([0, 400, 1_000, 1_001, 9_000][self.random.below(5)]);
                self.index.set_expiry(slot, seq, known.expire_at);
            }
            1 => {
                known.hidden = true;
                self.index.hide(slot, seq);
            }
            2 => {
                known.hidden = false;
                self.index.unhide(slot, seq);
            }
            _ => {
                known.hits += 1;
                self.index.note_hit(slot, seq, 3);
            }
        }
    }

    fn search(&mut self) {
        let slot = self.pick().map_or(0, |(slot, _)| slot.0);
        let partition = match self.random.below(10) {
            0 => PartitionKey(2 * self.random.below(50) as u64),
            _ => self.model.get(&slot).map_or(PartitionKey(0), |known| known.partition),
        };
        let (code, scale) = random_code(&mut self.random);
        let limit = [0, 1, 3, 10, 5_000][self.random.below(5)];
        let now = UnixMs([0, 450, 999, NOW.0, 1_001, 20_000][self.random.below(6)]);
        let min_seq = Seq([0, 0, self.next / 2][self.random.below(3)]);
        let filter = self.random.below(2 * self.filters.len());
        let filter = self.filters.get(filter);
        let counts_refused = limit != 3 && limit != 10;
        let found = self.index.search(&SearchRequest {
            counts_refused,
            code: &code,
            scale,
            rest: &[],
            partition,
            limit,
            ef: None,
            now,
            filter: filter.map(|(filter, _)| filter),
            min_seq,
        });
        let counts = counts_refused || filter.is_none();
        let bounds = (now, min_seq);
        self.check_search(&found, partition, &code, limit, bounds, (filter, counts));
    }

    fn check_search(
        &self,
        found: &SearchResult,
        partition: PartitionKey,
        code: &[i8],
        limit: usize,
        (now, min_seq): (UnixMs, Seq),
        (filter, counts): (Option<&(Filter, Judge)>, bool),
    ) {
        let none = BTreeSet::new();
        let rows = self.partitions.get(&partition).unwrap_or(&none);
        let (mut expected, mut invisible, mut refused) = (Vec::new(), 0, 0);
        for &row in rows {
            let known = &self.model[&row];
            let bound = known.tags.iter().filter_map(|tag| self.bounds.get(tag)).max();
            let gone = known.seq < min_seq || bound.is_some_and(|bound| known.seq < *bound);
            if known.hidden || gone || (known.expire_at.0 > 0 && known.expire_at.0 <= now.0) {
                invisible += 1;
                continue;
            }
            let verdict = filter.map_or(Verdict::Yes, |(_, judge)| {
                judge(known.meta.as_ref().unwrap_or(&Meta::default()))
            });
            if verdict == Verdict::No {
                refused += 1;
                continue;
            }
            let (own, _) = known.code.as_ref().expect("rows have codes");
            let products = code.iter().zip(own).map(|(&a, &b)| i64::from(a) * i64::from(b));
            let score = products.sum::<i64>() as f32 * (unit_scale(code) * unit_scale(own));
            expected.push((score, row, verdict));
        }
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let undecided = |rows: &[(f32, u32, Verdict)]| {
            rows.iter().filter(|(_, _, verdict)| *verdict == Verdict::NeedsEntry).count()
        };
        let all_undecided = undecided(&expected);
        expected.truncate(limit);
        let expected_rows: Vec<_> = expected.iter().map(|&(score, row, _)| (row, score)).collect();
        let got: Vec<_> = found.candidates.iter().map(|c| (c.slot.0, c.approx)).collect();
        assert_eq!(got, expected_rows, "{partition:?}, limit {limit}, {now:?}");
        assert!(!counts || found.scanned == rows.len());
        assert!((undecided(&expected)..=all_undecided).contains(&found.undecided));
        assert!(found.invisible.count <= invisible && found.filtered.count <= refused);
        if limit > rows.len() && counts {
            // Every row is near enough for such a limit.
            assert_eq!((found.invisible.count, found.filtered.count), (invisible, refused));
            assert_eq!(found.undecided, all_undecided);
        }
    }

    fn clear(&mut self) {
        self.index.clear();
        self.model.clear();
        self.partitions.clear();
        self.slots.clear();
    }

    fn saved(&self) -> Vec<Vec<u8>> {
        self.index.used_blocks().map(|block| self.index.save_block(block)).collect()
    }

    /// Saves, loads into a new index, compares, and goes on with the loaded one.
    fn reload(&mut self) {
        let blocks = self.saved();
        let mut loaded = Index::new();
        for block in &blocks {
            loaded.load_block(block).expect("what was just saved");
        }
        loaded.finish_load();
        // The container knows what was invalidated, and says so after loading.
        for (tag, bound) in &self.bounds {
            loaded.set_tag_bound(tag.as_bytes(), *bound);
        }
        self.index = loaded;
        for known in self.model.values_mut() {
            // Neither is saved: a slot that is settled or hit again says so itself.
            (known.hidden, known.hits) = (false, 0);
        }
        self.check();
        assert_eq!(self.saved(), blocks, "saved again");
    }

    fn check(&self) {
        let index = &self.index;
        index.check_invariants();
        let known = self.model.values();
        assert_eq!(
            index.totals(),
            Totals {
                entries: self.model.len() as u64,
                vectors: known.clone().filter(|k| k.code.is_some()).count() as u64,
                hidden: known.clone().filter(|k| k.hidden).count() as u64,
                entry_bytes: known.map(|k| u64::from(k.bytes)).sum(),
            }
        );
        assert_eq!(index.partition_count(), self.partitions.len());
        for tag in TAGS {
            let carriers = self.model.values().filter(|known| known.tags.contains(&tag)).count();
            assert_eq!(index.tag_count(tag.as_bytes()), carriers as u64, "{tag}");
        }
        let mut scopes: BTreeMap<ScopeKey, u64> = BTreeMap::new();
        self.model.values().for_each(|k| *scopes.entry(k.partition.scope()).or_default() += 1);
        for (scope, entries) in scopes.iter().take(50) {
            assert_eq!(index.scope_count(*scope), *entries);
        }
        assert_eq!(index.scope_count(ScopeKey(0xdead_beef)), 0);
        let (mut from, mut seen) = (0, 0);
        while let Some((id, slot)) = index.next_occupied(from) {
            assert!(id.0 >= from && id.0 < index.slot_end());
            (from, seen) = (id.0 + 1, seen + 1);
            let known = &self.model[&id.0];
            assert_eq!(
                (slot.id, slot.seq(), slot.partition),
                (known.id, known.seq, known.partition)
            );
            assert_eq!(
                (slot.expire_at, slot.bytes, slot.worth(), slot.hits, slot.is_hidden()),
                (known.expire_at, known.bytes, known.worth, known.hits, known.hidden)
            );
            assert_eq!(slot.frequency.read(3), known.hits.saturating_mul(256).min(65_535) as u16);
            assert_eq!(slot.record.cloned(), known.meta.as_ref().map(Meta::record));
            assert_eq!(index.name_of(&slot.id), known.name.as_deref());
            let (mut own, mut theirs): (Vec<_>, Vec<_>) =
                (index.tags_of(id).collect(), known.tags.iter().map(|t| t.as_bytes()).collect());
            own.sort_unstable();
            theirs.sort_unstable();
            theirs.dedup();
            assert_eq!(own, theirs, "tags");
            let code = known.code.as_ref().map(|(code, _)| (code.as_slice(), unit_scale(code)));
            assert_eq!(index.code(id), code);
            assert!(index.slot_of(id, known.seq).is_some());
        }
        assert_eq!(seen, self.model.len());
    }

    /// One random operation; `target` is how many entries there should be.
    fn step(&mut self, target: usize, spread: Spread) {
        let (lacking, low) = (self.model.len() < target, self.model.len() < target / 2);
        match self.random.below(16) {
            0..=3 => self.insert(spread),
            4..=6 if low => self.insert(spread),
            4..=6 if lacking => self.remove(),
            4..=7 => (0..2).for_each(|_| self.remove()),
            8 => self.miss(),
            9..=11 => self.touch(),
            _ => self.search(),
        }
    }
}

#[test]
fn small_runs_agree_after_every_step() {
    for seed in 0..24 {
        let mut pair = Pair::new(seed);
        for step in 0..250 {
            let target = if step < 150 { 40 } else { 0 };
            let spread = [Spread::Few(1), Spread::Few(4), Spread::OneEach][seed as usize % 3];
            pair.step(target, spread);
            pair.check();
            match pair.random.below(80) {
                0 => pair.reload(),
                1 => pair.clear(),
                _ => {}
            }
        }
    }
}

#[test]
fn a_long_run_agrees() {
    let mut pair = Pair::new(0x5eed);
    let mut operations = 0;
    let mut most_partitions = 0;
    for (round, (target, spread, steps)) in [
        (600, Spread::Few(3), 40_000),
        (12_000, Spread::OneEach, 80_000),
        (1_000, Spread::Mixed, 40_000),
        (6_000, Spread::Mixed, 70_000),
        (0, Spread::OneEach, 30_000),
        (700, Spread::Few(40), 40_000),
        (5_000, Spread::OneEach, 30_000),
    ]
    .into_iter()
    .enumerate()
    {
        for step in 0..steps {
            pair.step(target, spread);
            operations += 1;
            if step % 2_500 == 0 {
                pair.check();
                most_partitions = most_partitions.max(pair.partitions.len());
            }
            if step % 15_000 == 14_999 {
                pair.reload();
            }
        }
        if round == 3 {
            pair.clear();
            pair.check();
        }
    }
    pair.reload();
    assert!(operations >= 300_000);
    assert!(most_partitions > 4_096, "only {most_partitions}: the table was never split");
}

/// An entry without extras; numbered entries differ in all that must be unique.
fn plain(number: u64, partition: PartitionKey) -> Known {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Known {
        id: EntryId(id),
        seq: Seq(number + 1),
        partition,
        expire_at: UnixMs::NEVER,
        bytes: 100,
        worth: 0,
        meta: None,
        name: None,
        code: Some((vec![127; DIM], 0.001)),
        tags: Vec::new(),
        hidden: false,
        hits: 0,
    }
}

#[test]
fn emptied_index_holds_nothing() {
    let empty = Index::new().bytes();
    for count in [1, 5, 300, 20_000] {
        let mut index = Index::new();
        let slots: Vec<_> = (0..count)
            .map(|number| {
                let mut known = plain(number, PartitionKey(number % 700));
                known.meta = Some(Meta { number: Some(1), ..Meta::default() });
                known.name = Some(format!("name{number}").into_bytes());
                (index.insert(known.new_slot()), known.seq)
            })
            .collect();
        for (slot, seq) in slots {
            assert!(index.remove(slot, seq));
        }
        index.check_invariants();
        assert_eq!(index.bytes(), empty, "after {count} entries");
    }
}

#[test]
fn ten_rounds_of_filling_and_emptying_do_not_grow() {
    let mut index = Index::new();
    let mut random = Random(77);
    let mut first = None;
    for round in 0..10_u64 {
        let mut slots: Vec<_> = (0..20_000_u64)
            .map(|number| {
                let partition = if number % 2 == 0 { number } else { number % 50 };
                let mut known = plain(round << 32 | number, PartitionKey(partition));
                known.name = number.is_multiple_of(3).then(|| format!("n{number:06}").into());
                (index.insert(known.new_slot()), known.seq)
            })
            .collect();
        let full = index.bytes();
        while !slots.is_empty() {
            let (slot, seq) = slots.swap_remove(random.below(slots.len()));
            assert!(index.remove(slot, seq));
        }
        let (full_at_first, empty_at_first) = *first.get_or_insert((full, index.bytes()));
        // Ids are listed by a hash that has another seed each time, so its leaves split elsewhere.
        let most = full_at_first + full_at_first / 200;
        assert!(full <= most, "round {round}: {full} after {full_at_first} bytes");
        assert!(index.bytes() <= empty_at_first, "round {round}: empty");
    }
}

/// Entries come and go while some always live: memory follows what lives, not what ever lived.
#[test]
fn churn_does_not_grow() {
    let mut index = Index::new();
    let mut random = Random(3);
    let mut live = Vec::new();
    let mut early = 0;
    for number in 0..120_000_u64 {
        let known = plain(number, PartitionKey(number % 900));
        live.push((index.insert(known.new_slot()), known.seq));
        if live.len() > 3_000 {
            let (slot, seq) = live.swap_remove(random.below(live.len()));
            assert!(index.remove(slot, seq));
        }
        if number == 20_000 {
            early = index.bytes();
        }
    }
    assert!(index.bytes() <= early + early / 20, "{} after {early} bytes", index.bytes());
    assert!(index.slot_end() <= 3_001 + 2 * BLOCK_SLOTS);
}

#[test]
fn a_scope_of_one_entry_costs_little_beside_slot_and_code() {
    const COUNT: u64 = 200_000;
    let build = |key: fn(u64) -> PartitionKey| {
        let mut index = Index::new();
        let settings = GraphSettings { mode: IndexMode::Flat, ..GraphSettings::default() };
        index.set_graph_settings(settings);
        for number in 0..COUNT {
            index.insert(plain(number, key(number)).new_slot());
        }
        index
    };
    let (one, _, _, one_kept) = measure(|| build(|_| PartitionKey(7)));
    let (many, _, _, many_kept) = measure(|| build(PartitionKey));
    assert_eq!((one.partition_count(), many.partition_count()), (1, COUNT as usize));
    let more = (many.bytes() as i64 - one.bytes() as i64) / COUNT as i64;
    assert!(more <= 48, "{more} bytes a scope");
    let kept = (many_kept - one_kept) / COUNT as isize;
    assert!(kept <= 28, "{kept} bytes a scope by the allocator's count");
    let exact = PartitionKey(COUNT - 1);
    assert_eq!((many.partition_len(exact), one.partition_len(PartitionKey(7))), (1, 200_000));
    for (index, kept) in [(one, one_kept), (many, many_kept)] {
        // `bytes` counts what an allocator spends too: at least what was asked for.
        let (said, asked) = (index.bytes() as f64, kept as f64);
        assert!((0.99..1.1).contains(&(said / asked)), "said {said}, asked for {asked}");
    }
}

#[test]
fn memory_of_names_and_records_is_counted() {
    let mut index = Index::new();
    let ((), _, _, kept) = measure(|| {
        for number in 0..5_000 {
            let mut known = plain(number, PartitionKey(number % 5));
            known.meta = Some(Meta { text: Some("c"), number: Some(70_000), ..Meta::default() });
            known.name = Some(format!("a name of some length {number}").into_bytes());
            index.insert(known.new_slot());
        }
    });
    let share = index.bytes() as f64 / kept as f64;
    assert!((0.97..1.15).contains(&share), "said {}, asked for {kept}", index.bytes());
}

/// Removal runs where the server deletes keys, above maxmemory too.
#[test]
fn removal_allocates_nothing() {
    let mut index = Index::new();
    let mut random = Random(5);
    let mut live: Vec<_> = (0..12_000_u64)
        .map(|number| {
            let partition = if number % 2 == 0 { number } else { number % 3_000 };
            let mut known = plain(number, PartitionKey(partition));
            known.name = number.is_multiple_of(5).then(|| format!("n{number}").into_bytes());
            (index.insert(known.new_slot()), known.seq)
        })
        .collect();
    let mut grew = 0;
    while !live.is_empty() {
        let (slot, seq) = live.swap_remove(random.below(live.len()));
        let (removed, _, peak, _) = measure(|| index.remove(slot, seq));
        assert!(removed);
        // Giving a list's spare room back may ask for the smaller one first.
        grew += usize::from(peak > 0);
    }
    assert_eq!(grew, 0, "removals that took memory");
}

#[test]
fn slots_are_reused_from_the_lowest_block() {
    let mut index = Index::new();
    let all: Vec<_> = (0..3 * u64::from(BLOCK_SLOTS))
        .map(|number| {
            let known = plain(number, PartitionKey(0));
            (index.insert(known.new_slot()), known.seq)
        })
        .collect();
    for (slot, seq) in all.iter().filter(|(slot, _)| slot.0 % 2 == 0) {
        index.remove(*slot, *seq);
    }
    let known = plain(1 << 20, PartitionKey(0));
    assert!(index.insert(known.new_slot()).0 < BLOCK_SLOTS, "a high block cannot drain");
    for (slot, seq) in all.iter().filter(|(slot, _)| slot.0 >= BLOCK_SLOTS && slot.0 % 2 == 1) {
        assert!(index.remove(*slot, *seq));
    }
    assert!(index.slot_end() <= BLOCK_SLOTS, "drained blocks went");
    index.check_invariants();
}

#[test]
fn a_slot_holds_the_largest_numbers_apart() {
    let mut index = Index::new();
    let mut known = plain(0, PartitionKey(u64::MAX));
    (known.seq, known.worth) = (Seq(limits::SEQ_MAX), u8::MAX);
    (known.bytes, known.expire_at) = (u32::MAX, UnixMs(u64::MAX));
    known.name = Some(vec![b'x'; limits::ID_MAX_BYTES]);
    let slot = index.insert(known.new_slot());
    index.hide(slot, known.seq);
    let found = index.slot_of(slot, known.seq).expect("the entry");
    assert_eq!((found.worth(), found.bytes, found.expire_at), (255, u32::MAX, UnixMs(u64::MAX)));
    assert!(found.is_hidden() && found.is_named() && found.has_code());
    index.unhide(slot, known.seq);
    let block = index.used_blocks().next().expect("one block");
    let saved = index.save_block(block);
    let mut loaded = Index::new();
    loaded.load_block(&saved).expect("what was saved");
    loaded.finish_load();
    assert_eq!(loaded.slot_of(slot, known.seq).map(|slot| slot.worth()), Some(255));
    assert_eq!(loaded.save_block(block), saved);
}
