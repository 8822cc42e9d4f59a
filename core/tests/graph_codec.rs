//! Saved graphs as hostile bytes: mutated from fixed seeds with the checksum made right again, and
//! forged link by link. Runs on the test runner's threads.

mod common;
#[path = "common/sections.rs"]
mod sections;

use common::{Random, measure};
use llmcache_core::codec::Writer;
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    GraphSettings, Index, IndexMode, NewSlot, SearchRequest, TAG_GRAPH_BLOCK, TAG_GRAPH_ENTRIES,
    Work,
};
use sections::reseal;

const DIM: usize = 8;
const MUTATIONS: usize = 20_000;
const SETTINGS: GraphSettings = GraphSettings { mode: IndexMode::Hnsw, m: 4, efc: 16, ef: 16 };

fn id(number: u64) -> EntryId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&Random(number).next().to_le_bytes());
    EntryId(id)
}

fn insert(index: &mut Index, number: u64, partition: u64) -> (SlotId, Seq) {
    let mut random = Random(number);
    let code: [i8; DIM] = std::array::from_fn(|_| (random.below(255) as i32 - 127) as i8);
    let seq = Seq(number + 1);
    let slot = index.insert(NewSlot {
        id: id(number),
        seq,
        partition: PartitionKey(partition),
        expire_at: UnixMs::NEVER,
        bytes: 100,
        worth: 1,
        record: None,
        name: None,
        code: Some((&code, 0.01)),
    });
    (slot, seq)
}

/// Two graphs with tombstones and tails, and rows in no graph, over two blocks.
fn sample(settle: bool) -> Index {
    let mut index = Index::new();
    index.set_graph_settings(SETTINGS);
    let all: Vec<_> =
        (0..330).map(|n| insert(&mut index, n, [0, 0, 1, 2][(n % 4) as usize])).collect();
    while index.work(Work(1_000)).more {}
    for (slot, seq) in all.iter().skip(7).step_by(9) {
        index.remove(*slot, *seq);
    }
    for number in 1_000..1_010 {
        insert(&mut index, number, 0);
    }
    while settle && index.work(Work(1_000)).more {}
    index.check_invariants();
    index
}

fn slots(index: &Index) -> Vec<Vec<u8>> {
    index.used_blocks().map(|block| index.save_block(block)).collect()
}

fn graphs(index: &Index) -> Vec<Vec<u8>> {
    index.graph_sections().into_iter().map(|section| index.save_graph(section)).collect()
}

/// Loads, and answers whether the graphs were good. Whatever they are, the rows must be there.
fn load(slots: &[Vec<u8>], graphs: &[Vec<u8>]) -> (Index, bool) {
    let mut index = Index::new();
    index.set_graph_settings(SETTINGS);
    for block in slots {
        index.load_block(block).expect("good slots");
    }
    let good = graphs.iter().all(|section| index.load_graph(section).is_ok());
    let finished = index.finish_load();
    (index, good && finished)
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len().max(1));
        if at >= bytes.len() {
            return;
        }
        let end = (at + 1 + random.below(40)).min(bytes.len());
        match random.below(7) {
            0..=1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            _ => bytes[at] = [0, 1, 8, 9, 127, 255][random.below(6)],
        }
    }
}

fn use_all(index: &mut Index) {
    index.check_invariants();
    for partition in 0..3 {
        let code = [100; DIM];
        let found = index.search(&SearchRequest {
            counts_refused: true,
            code: &code,
            scale: 0.01,
            rest: &[],
            partition: PartitionKey(partition),
            limit: 5,
            ef: None,
            now: UnixMs(1),
            filter: None,
            min_seq: Seq(0),
        });
        assert!(found.candidates.len() <= 5 && !found.candidates.is_empty());
    }
    let (slot, seq) = index.next_occupied(40).map(|(id, slot)| (id, slot.seq())).expect("an entry");
    assert!(index.remove(slot, seq));
    insert(index, 5_000, 0);
    while index.work(Work(5_000)).more {}
    index.check_invariants();
    assert_eq!(index.graph_info().tail, 0);
}

#[test]
fn a_graph_without_tombstones_comes_back_as_it_was() {
    let index = sample(true);
    let (slots, saved) = (slots(&index), graphs(&index));
    assert_eq!(saved.len(), 3, "entry points and two blocks");
    let (mut loaded, good) = load(&slots, &saved);
    assert!(good);
    loaded.check_invariants();
    assert_eq!(graphs(&loaded), saved);
    let (was, is) = (index.graph_info(), loaded.graph_info());
    assert_eq!((was.linked, was.levels, was.graphs), (is.linked, is.levels, is.graphs));
    use_all(&mut loaded);
}

#[test]
fn tombstones_and_tails_are_not_saved() {
    let index = sample(false);
    assert!(index.graph_info().tombstones > 20 && index.graph_info().tail >= 10);
    let (mut loaded, good) = load(&slots(&index), &graphs(&index));
    assert!(good);
    let (was, is) = (index.graph_info(), loaded.graph_info());
    assert_eq!((is.linked, is.tombstones, is.tail), (was.linked, 0, was.tail));
    use_all(&mut loaded);
}

#[test]
fn mutated_graphs_are_refused_or_harmless() {
    let index = sample(true);
    let (slots, saved) = (slots(&index), graphs(&index));
    let mut random = Random(0x96af);
    let (mut accepted, mut highest) = (0, 0);
    for round in 0..MUTATIONS {
        let mut mutated = saved.clone();
        let target = round % saved.len();
        mutate(&mut mutated[target], &mut random);
        reseal(&mut mutated[target]);
        let ((mut loaded, good), _, peak, _) = measure(|| load(&slots, &mutated));
        highest = highest.max(peak);
        accepted += usize::from(good && mutated != saved);
        if round % 8 == 0 || good {
            assert_eq!(loaded.totals(), index.totals(), "rows stay");
            use_all(&mut loaded);
        }
    }
    assert!(highest < 1 << 20, "{highest} bytes at once");
    assert!(accepted < MUTATIONS / 10, "{accepted} were accepted");
}

#[test]
fn every_flipped_bit_fails_the_checksum() {
    let index = sample(true);
    let (slots, saved) = (slots(&index), graphs(&index));
    for bit in (0..saved[1].len() * 8).step_by(13) {
        let mut bad = saved.clone();
        bad[1][bit / 8] ^= 1 << (bit % 8);
        assert!(!load(&slots, &bad).1, "bit {bit}");
    }
}

/// The first rows of partition 0.
fn base_rows(index: &Index, count: usize) -> Vec<u32> {
    assert!(index.graph_sections().is_empty(), "no graph yet");
    let mut rows = Vec::new();
    let mut from = 0;
    while let Some((slot, found)) = index.next_occupied(from) {
        from = slot.0 + 1;
        if found.partition == PartitionKey(0) {
            rows.push(slot.0);
        }
    }
    rows.truncate(count);
    rows
}

type Nodes<'a> = &'a [(u32, &'a [u32])];

/// Sections that say exactly this, on level 0; `entry` is the entry point.
fn forged(m: u8, entry: u32, key: u64, nodes: Nodes<'_>) -> Vec<Vec<u8>> {
    let mut entries = Writer::section(TAG_GRAPH_ENTRIES, 1);
    entries.u8(m).u64(key).u32(entry);
    let mut links = Writer::section(TAG_GRAPH_BLOCK, 1);
    links.u32(0).u8(m);
    for (row, others) in nodes {
        links.u8(*row as u8).u8(others.len() as u8);
        for other in *others {
            links.u32(*other);
        }
    }
    vec![entries.finish(), links.finish()]
}

#[test]
fn what_no_graph_writes_is_refused() {
    // Few rows, so that none reaches a higher level: M is 64.
    let settings = GraphSettings { mode: IndexMode::Auto, m: 64, ..SETTINGS };
    let mut index = Index::new();
    index.set_graph_settings(settings);
    for number in 0..12 {
        insert(&mut index, number, u64::from(number >= 8));
    }
    let rows = base_rows(&index, 8);
    assert_eq!(rows, (0..8).collect::<Vec<u32>>());
    let blocks = slots(&index);
    let try_load = |sections: Vec<Vec<u8>>| {
        let mut loaded = Index::new();
        loaded.set_graph_settings(settings);
        blocks.iter().for_each(|block| loaded.load_block(block).expect("good slots"));
        let good = sections.iter().all(|section| loaded.load_graph(section).is_ok());
        let good = loaded.finish_load() && good;
        loaded.check_invariants();
        assert_eq!(loaded.totals(), index.totals());
        good
    };
    let pair: Nodes<'_> = &[(0, &[1]), (1, &[0])];
    assert!(try_load(forged(64, 0, 0, pair)), "two rows linked with each other");
    assert!(try_load(forged(64, 0, 0, &[(0, &[])])), "one row alone");
    let refused: [(u8, u32, u64, Nodes<'_>); 14] = [
        (16, 0, 0, pair),
        // Entry points: another partition's, not there, not linked, none of the key.
        (64, 0, 1, pair),
        (64, 99, 0, pair),
        (64, 5, 0, pair),
        (64, 0, 77, pair),
        // Links: one way, to itself, twice, out of range, to a row that is not linked, elsewhere.
        (64, 0, 0, &[(0, &[1]), (1, &[])]),
        (64, 0, 0, &[(0, &[]), (1, &[0])]),
        (64, 0, 0, &[(0, &[0])]),
        (64, 0, 0, &[(0, &[1, 1]), (1, &[0, 0])]),
        (64, 0, 0, &[(0, &[4_000_000])]),
        (64, 0, 0, &[(0, &[1])]),
        (64, 0, 0, &[(0, &[9]), (9, &[0])]),
        // Rows: twice, free.
        (64, 0, 0, &[(0, &[]), (0, &[])]),
        (64, 0, 0, &[(0, &[]), (200, &[])]),
    ];
    for (number, (m, entry, key, nodes)) in refused.into_iter().enumerate() {
        assert!(!try_load(forged(m, entry, key, nodes)), "case {number}");
    }
    let twice = forged(64, 0, 0, pair);
    assert!(!try_load(vec![twice[0].clone(), twice[0].clone(), twice[1].clone()]));
    assert!(!try_load(vec![twice[1].clone()]), "links without an entry point");
    assert!(!try_load(vec![twice[0].clone()]), "an entry point without links");
}

/// Two graphs whose nodes name each other, pair by pair.
#[test]
fn links_between_partitions_are_refused() {
    let mut index = Index::new();
    let settings = GraphSettings { mode: IndexMode::Auto, m: 64, ..SETTINGS };
    index.set_graph_settings(settings);
    for number in 0..8 {
        insert(&mut index, number, number % 2);
    }
    let blocks = slots(&index);
    let mut loaded = Index::new();
    loaded.set_graph_settings(settings);
    blocks.iter().for_each(|block| loaded.load_block(block).expect("good slots"));
    let mut entries = Writer::section(TAG_GRAPH_ENTRIES, 1);
    entries.u8(64).u64(0).u32(0).u64(1).u32(1);
    loaded.load_graph(&entries.finish()).expect("two entry points");
    let links = &forged(64, 0, 0, &[(0, &[1]), (1, &[0])])[1];
    loaded.load_graph(links).expect("each for itself is good");
    assert!(!loaded.finish_load());
    loaded.check_invariants();
    assert_eq!(loaded.graph_info().linked, 0);
}
