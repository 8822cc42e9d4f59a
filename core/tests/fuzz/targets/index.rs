//! What an RDB file holds of an index: blocks of slots, links of graphs, words.

use super::{MIB, PLAIN, Target, joined, pieces, sealed};
use crate::common::Random;
use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, UnixMs};
use llmcache_core::index::{GraphSettings, Index, IndexMode, NewSlot, SearchRequest, Work};
use llmcache_core::vector::fine::Plane;
use llmcache_core::words::{Language, WordIndex, WordQuery, WordSearch};
use llmcache_core::work::Steps;
use serde_json::json;

const DIM: usize = 8;
const SETTINGS: GraphSettings = GraphSettings { mode: IndexMode::Hnsw, m: 4, efc: 16, ef: 16 };

/// Entries of every kind where `rich`, else of one partition with codes.
fn filled(count: u64, rich: bool) -> Index {
    let mut index = Index::new();
    index.set_graph_settings(SETTINGS);
    for number in 0..count {
        let mut random = Random(number);
        let code: [i8; DIM] = std::array::from_fn(|_| (random.below(255) as i32 - 127) as i8);
        let name = format!("name{number}");
        let meta = json!({"n": number, "s": "text", "a": [1], "f": 0.5, "z": null});
        let record =
            FilterRecord::from_meta(meta.as_object().expect("an object"), &Default::default());
        let slot = index.insert(NewSlot {
            id: EntryId::of(b"", b"", &number.to_le_bytes()),
            seq: Seq(number + 1),
            partition: PartitionKey(if rich { number % 2 } else { 0 }),
            expire_at: UnixMs(if rich && number % 4 == 0 { 1_000 + number } else { 0 }),
            bytes: 500,
            worth: 60,
            record: record.filter(|_| rich && number % 2 == 1),
            name: (rich && number % 3 == 0).then_some(name.as_bytes()),
            code: (!rich || number % 5 != 4).then_some((&code[..], 0.004)),
        });
        if number % 3 == 0 {
            index.set_plane(slot, Plane { scale: 0.003, quarters: &[number as u8, 0b01_10_11_00] });
        }
        index.set_tags(
            slot,
            [&b"odd"[..], b"a tag"].into_iter().take(if rich { number as usize % 3 } else { 0 }),
        );
    }
    while index.work(Work(1_000)).more {}
    index
}

fn blocks(index: &Index) -> Vec<Vec<u8>> {
    index.used_blocks().map(|block| index.save_block(block)).collect()
}

fn links(index: &Index) -> Vec<Vec<u8>> {
    index.graph_sections().into_iter().map(|section| index.save_graph(section)).collect()
}

/// What a server does with an index that it loaded.
fn use_all(index: &mut Index) {
    index.check_invariants();
    let filter = Filter::parse(b".n >= 3 or exists(.a)").expect("a filter");
    for (partition, filter) in [(0, None), (1, None), (0, Some(&filter))] {
        let dim = index.dim().unwrap_or_default() as usize;
        let found = index.search(&SearchRequest {
            counts_refused: true,
            code: &vec![100; dim],
            scale: 0.01,
            rest: &vec![if partition == 0 { 90 } else { 0 }; dim],
            partition: PartitionKey(partition),
            limit: 5,
            ef: None,
            now: UnixMs(1_002),
            filter,
            min_seq: Seq(0),
        });
        assert!(found.candidates.len() <= 5);
    }
    if let Some((slot, found)) = index.next_occupied(0) {
        let seq = found.seq();
        assert!(index.remove(slot, seq));
    }
    while index.work(Work(1_000)).more {}
    index.check_invariants();
}

pub const BLOCKS: Target = Target {
    name: "blocks",
    covers: &["index/persist.rs::load_block"],
    seeds: || vec![joined(blocks(&filled(9, true))), joined(blocks(&filled(4, false)))],
    attack: |bytes| {
        let mut index = Index::new();
        for piece in pieces(bytes) {
            if index.load_block(&sealed(piece)).is_err() {
                return false;
            }
        }
        index.finish_load();
        use_all(&mut index);
        let reloaded = |index: &Index| {
            let mut again = Index::new();
            blocks(index)
                .iter()
                .for_each(|block| again.load_block(block).expect("what was just saved"));
            again.finish_load();
            again
        };
        let again = reloaded(&index);
        assert_eq!(again.totals(), index.totals());
        // An index that has no vectors any more says of which dimension they were; one that never had any does not.
        assert_eq!(blocks(&reloaded(&again)), blocks(&again));
        true
    },
    held_bytes: 4 * MIB,
    slower: 4,
};

pub const LINKS: Target = Target {
    name: "links",
    covers: &["index/upkeep.rs::load_graph", "index/hnsw/persist.rs::load"],
    seeds: || vec![joined(links(&filled(40, false)))],
    attack: |bytes| {
        let rows = filled(40, false);
        let mut index = Index::new();
        index.set_graph_settings(SETTINGS);
        blocks(&rows).iter().for_each(|block| index.load_block(block).expect("good slots"));
        let good = pieces(bytes).iter().all(|piece| index.load_graph(&sealed(piece)).is_ok());
        let finished = index.finish_load();
        // Whatever becomes of the links: no row is lost.
        assert_eq!(index.totals().entries, rows.totals().entries);
        use_all(&mut index);
        good && finished
    },
    held_bytes: 4 * MIB,
    slower: 40,
};

pub const WORDS: Target = Target {
    name: "words",
    covers: &["words/persist.rs::load_section", "index/words.rs::load_words"],
    seeds: || {
        let mut index = WordIndex::new(Language::NONE);
        for (row, text) in ["how do I pay", "where is my parcel parcel", "", "pay my parcel how"]
            .iter()
            .enumerate()
        {
            index.add(row as u32 * 2, text.as_bytes());
        }
        vec![joined(index.sections())]
    },
    attack: |bytes| {
        let mut index = WordIndex::new(Language::NONE);
        let good =
            pieces(bytes).iter().all(|piece| index.load_section(&sealed(piece), 256).is_ok());
        if !good {
            return false;
        }
        index.finish_load();
        index.check_invariants();
        let query = WordQuery::parse(index.analyser(), b"pay parcel~ +ho*").expect("a question");
        let (mut search, mut steps) = (WordSearch::new(&index, &query, 3), Steps::default());
        search.run(&index, 1 << 20, &mut steps, |_| true);
        assert!(search.best().len() <= 3);
        let mut again = WordIndex::new(Language::NONE);
        index
            .sections()
            .for_each(|section| again.load_section(&section, 512).expect("what was just saved"));
        again.finish_load();
        again.check_invariants();
        assert_eq!(again.len(), index.len());
        true
    },
    held_bytes: 4 * MIB,
    ..PLAIN
};
