//! Saved blocks of slots and heads of caches as hostile bytes: mutated from fixed seeds, with the
//! checksum made right again so that the mutation reaches the decoder. Runs on the test runner's
//! threads.

mod common;
#[path = "common/sections.rs"]
mod sections;

use common::{Random, measure};
use llmcache_core::cache::{Cache, Extent, Settings, Severity, TAG_HEAD};
use llmcache_core::codec::{
    DecodeError, SECTION_HEADER_BYTES, SECTION_TRAILER_BYTES, Writer, open_section,
};
use llmcache_core::filter::{Filter, FilterRecord, Verdict};
use llmcache_core::ids::{ContainerUid, EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{BLOCK_SLOTS, Index, NewSlot, SearchRequest, TAG_SLOT_BLOCK};
use llmcache_core::limits;
use llmcache_core::vector::fine::Plane;
use llmcache_core::vector::quantise::unit_scale;
use llmcache_core::work::Steps;
use sections::reseal;
use serde_json::json;

const DIM: usize = 8;
const MUTATIONS: usize = 100_000;
/// What decoding a section of a few kilobytes may hold at most: the directory of the widest gap and
/// two blocks of slots are some tens of kilobytes.
const PEAK_MAX_BYTES: isize = 1 << 20;

fn id(number: u64) -> EntryId {
    EntryId::of(b"", b"", &number.to_le_bytes())
}

fn code(random: &mut Random) -> [i8; DIM] {
    std::array::from_fn(|_| (random.below(255) as i32 - 127) as i8)
}

/// A code, where there is one, a name, a record: each entry another mix.
fn insert(index: &mut Index, number: u64, random: &mut Random) -> (SlotId, Seq) {
    let code = code(random);
    let name = format!("name{number}");
    let meta = json!({"n": number, "s": "text", "a": [1], "f": 0.5, "z": null, "big": 1 << 20});
    let seq = Seq(number + 1);
    let slot = index.insert(NewSlot {
        id: id(number),
        seq,
        partition: PartitionKey(number % 3),
        expire_at: UnixMs(if number.is_multiple_of(4) { 1_000 + number } else { 0 }),
        bytes: 500,
        worth: 60,
        record: (number % 2 == 1)
            .then(|| {
                FilterRecord::from_meta(meta.as_object().expect("an object"), &Default::default())
            })
            .flatten(),
        name: number.is_multiple_of(3).then_some(name.as_bytes()),
        code: (number % 5 != 4).then_some((&code[..], 0.004)),
    });
    let tags = [&b"odd"[..], b"a tag"];
    index.set_tags(slot, tags.into_iter().take((number % 3) as usize));
    if number % 7 < 3 {
        let quarters = [random.next() as u8, random.next() as u8];
        index.set_plane(slot, Plane { scale: 0.004, quarters: &quarters });
    }
    (slot, seq)
}

/// Entries in the first blocks, sparse in the second: sections of different fill.
fn sample() -> Index {
    let mut random = Random(11);
    let mut index = Index::new();
    let all: Vec<_> =
        (0..2 * u64::from(BLOCK_SLOTS)).map(|n| insert(&mut index, n, &mut random)).collect();
    for (place, (slot, seq)) in all.into_iter().enumerate() {
        if !(place % 64 == 3 || (260..264).contains(&place)) {
            index.remove(slot, seq);
        }
    }
    index
}

fn saved(index: &Index) -> Vec<Vec<u8>> {
    index.used_blocks().map(|block| index.save_block(block)).collect()
}

fn load(blocks: &[Vec<u8>]) -> Result<Index, DecodeError> {
    let mut index = Index::new();
    for block in blocks {
        index.load_block(block)?;
    }
    index.finish_load();
    Ok(index)
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        if at >= bytes.len() {
            return;
        }
        let end = (at + 1 + random.below(90)).min(bytes.len());
        match random.below(9) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.next() as u8),
            5 => drop(bytes.drain(at..end)),
            // A part said twice: rows, names and members that are there already.
            6 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            7 => bytes[at] = [0, 1, 7, 127, 128, 255][random.below(6)],
            // A length, a count or a number at its extreme.
            _ => {
                let wide = [2, 4, 8][random.below(3)].min(bytes.len() - at);
                let value = [0, u64::MAX, 1 << 47, u64::from(u16::MAX), 16_384, 1, random.next()]
                    [random.below(7)];
                bytes[at..at + wide].copy_from_slice(&value.to_le_bytes()[..wide]);
            }
        }
    }
}

/// Everything a server does with a loaded index.
fn use_all(index: &mut Index, filter: &Filter) {
    index.check_invariants();
    let mut from = 0;
    let mut first = None;
    while let Some((slot, found)) = index.next_occupied(from) {
        from = slot.0 + 1;
        first = first.or(Some((slot, found.seq())));
        assert!(found.seq().0 <= limits::SEQ_MAX);
        if let Some(name) = index.name_of(&found.id) {
            assert!(!name.is_empty() && name.len() <= limits::ID_MAX_BYTES);
        }
        assert_eq!(index.code(slot).is_some(), found.has_code());
        let partition = found.partition;
        assert!(!found.has_code() || index.partition_len(partition) > 0);
        if let Some(dim) = index.dim() {
            let query = vec![100_i8; dim as usize];
            let rest = if slot.0.is_multiple_of(3) { &[][..] } else { &query };
            let found = index.search(&SearchRequest {
                counts_refused: true,
                code: &query,
                scale: 0.01,
                rest,
                partition,
                limit: 5,
                ef: None,
                now: UnixMs(1_002),
                filter: (slot.0 % 2 == 1).then_some(filter),
                min_seq: Seq(0),
            });
            assert!(found.candidates.len() <= 5 && found.scanned > 0 || index.code(slot).is_none());
        }
    }
    let again = saved(index);
    assert_eq!(saved(&load(&again).expect("what was just saved")), again);
    // It goes on working: free slots are used, entries can go.
    if let Some((slot, seq)) = first {
        assert!(index.remove(slot, seq));
    }
    let added = index.insert(NewSlot {
        id: id(u64::MAX),
        seq: Seq(limits::SEQ_MAX),
        partition: PartitionKey(1),
        expire_at: UnixMs::NEVER,
        bytes: 1,
        worth: 1,
        record: None,
        name: None,
        code: None,
    });
    assert!(index.slot(added).is_some());
    index.check_invariants();
}

#[test]
fn valid_blocks_round_trip() {
    let index = sample();
    let blocks = saved(&index);
    assert_eq!(blocks.len(), 2);
    let loaded = load(&blocks).expect("what was just saved");
    loaded.check_invariants();
    assert_eq!(saved(&loaded), blocks);
    assert_eq!(loaded.totals(), index.totals());
    assert_eq!(loaded.dim(), Some(DIM as u32));
    // Blocks may arrive in any order that leaves no wide gap.
    let backwards: Vec<_> = blocks.iter().rev().cloned().collect();
    assert_eq!(saved(&load(&backwards).expect("the same blocks")), blocks);
    assert!(load(&[blocks[0].clone(), blocks[0].clone()]).is_err(), "one block twice");
}

#[test]
fn an_index_without_codes_round_trips() {
    let mut index = Index::new();
    let mut random = Random(1);
    for number in (4..3_000).step_by(5) {
        insert(&mut index, number, &mut random);
    }
    assert_eq!(index.totals().vectors, 0);
    let blocks = saved(&index);
    let loaded = load(&blocks).expect("what was just saved");
    loaded.check_invariants();
    assert_eq!((saved(&loaded), loaded.dim()), (blocks, None));
}

#[test]
fn every_flipped_bit_fails_the_checksum() {
    let blocks = saved(&sample());
    for bit in 0..blocks[1].len() * 8 {
        let mut bad = blocks[1].clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Index::new().load_block(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn mutated_blocks_are_refused_or_harmless() {
    let blocks = saved(&sample());
    let filter = Filter::parse(b".n == 5 or .s == 'abc' or 1 in .a").expect("a filter");
    let mut random = Random(0xb10c);
    let (mut accepted, mut highest) = (0, 0);
    for round in 0..MUTATIONS {
        // Mostly the first block alone, every eighth time the second behind a good first.
        let target = usize::from(round % 8 == 0);
        let mut mutated = blocks[..=target].to_vec();
        mutate(&mut mutated[target], &mut random);
        reseal(&mut mutated[target]);
        let (loaded, _, peak, _) = measure(|| load(&mutated));
        highest = highest.max(peak);
        if let Ok(mut index) = loaded {
            accepted += 1;
            use_all(&mut index, &filter);
        }
    }
    assert!(highest < PEAK_MAX_BYTES, "{highest} bytes at once");
    assert!(accepted > MUTATIONS / 20, "only {accepted} were accepted");
    assert!(accepted < MUTATIONS * 9 / 10, "{accepted} were accepted");
}

/// Bytes of one slot in a section, as `docs/formats.md` has them.
fn slot_bytes(out: &mut Writer, row: u8, with: u8, id: EntryId, seq: u64) {
    out.u8(row).u8(with).raw(&id.0).u64(seq).u64(0).u64(1).u32(10).u8(1);
}

/// The same entry twice, named here and unnamed there: no saved index has it, a forged one may.
#[test]
fn an_id_that_stands_twice_is_refused_or_harmless() {
    let filter = Filter::parse(b".n == 5").expect("a filter");
    for (first, second) in [(0, 0), (2, 0), (0, 2), (2, 2)] {
        let mut out = Writer::section(TAG_SLOT_BLOCK, 2);
        out.u32(0).u16(0);
        for (row, with) in [(0, first), (1, second)] {
            slot_bytes(&mut out, row, with, id(7), 1 + u64::from(row));
            if with == 2 {
                out.u8(1).raw(b"x");
            }
        }
        if let Ok(mut index) = load(&[out.finish()]) {
            use_all(&mut index, &filter);
        }
    }
}

#[test]
fn what_no_index_writes_is_refused() {
    let one = |change: fn(&mut Writer)| {
        let mut out = Writer::section(TAG_SLOT_BLOCK, 2);
        change(&mut out);
        load(&[out.finish()])
    };
    let good = one(|out| {
        out.u32(0).u16(2);
        slot_bytes(out, 9, 1, id(1), 1);
        out.f32(0.5).raw(&[127, 129]);
    });
    assert_eq!(
        good.expect("a slot").code(SlotId(9)),
        Some((&[127, -127][..], unit_scale(&[127, -127])))
    );
    let refused: [fn(&mut Writer); 16] = [
        |out| {
            out.u32(1 << 20).u16(2);
        },
        |out| {
            out.u32(u32::MAX).u16(2);
        },
        |out| {
            out.u32(65).u16(2);
        },
        |out| {
            out.u32(0).u16(16_385);
        },
        |out| slot_bytes(out.u32(0).u16(2), 0, 16, id(1), 1),
        |out| slot_bytes(out.u32(0).u16(2), 0, 0, id(1), limits::SEQ_MAX + 1),
        // A code of no dimension, one of -128, scales that are none.
        |out| {
            slot_bytes(out.u32(0).u16(0), 0, 1, id(1), 1);
            out.f32(0.5);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 1, id(1), 1);
            out.f32(0.5).raw(&[127, 128]);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 1, id(1), 1);
            out.f32(0.0).raw(&[127, 1]);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 1, id(1), 1);
            out.f32(f32::NAN).raw(&[127, 1]);
        },
        // A name without bytes, a record that is none.
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 2, id(1), 1);
            out.u8(0);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 8, id(1), 1);
            out.u8(0);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 8, id(1), 1);
            out.u8(1).u16(0);
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 8, id(1), 1);
            out.u8(2).u16(1).raw(b"a").u16(1).raw(b"a");
        },
        |out| {
            slot_bytes(out.u32(0).u16(2), 0, 4, id(1), 1);
            out.u16(1).u8(9);
        },
        // One row twice.
        |out| {
            slot_bytes(out.u32(0).u16(2), 5, 0, id(1), 1);
            slot_bytes(out, 5, 0, id(2), 2);
        },
    ];
    for (number, change) in refused.into_iter().enumerate() {
        let (loaded, _, peak, _) = measure(|| one(change));
        assert!(loaded.is_err(), "case {number}");
        assert!(peak < 100_000, "case {number}: {peak} bytes");
    }
    let (other_dim, mut index) = (saved(&sample()), Index::new());
    index.load_block(&other_dim[0]).expect("what was saved");
    let mut out = Writer::section(TAG_SLOT_BLOCK, 2);
    slot_bytes(out.u32(5).u16(3), 0, 0, id(1), 1);
    assert!(index.load_block(&out.finish()).is_err(), "blocks of two dimensions");
    for (tag, version) in [(TAG_SLOT_BLOCK, 1), (TAG_SLOT_BLOCK, 5), (TAG_HEAD, 3)] {
        let mut out = Writer::section(tag, version);
        out.u32(0).u16(0);
        assert!(load(&[out.finish()]).is_err());
    }
}

/// Planes came with version 4: what stands in their place before is no slot.
#[test]
fn planes_are_kept_and_blocks_without_are_read() {
    let plane = [&0.005_f32.to_le_bytes()[..], &[0b01_10_11_00]].concat();
    let block = |version: u16, with: u8, parts: &[&[u8]]| {
        let mut out = Writer::section(TAG_SLOT_BLOCK, version);
        slot_bytes(out.u32(0).u16(3), 9, with, id(1), 1);
        parts.iter().for_each(|part| {
            out.raw(part);
        });
        load(&[out.finish()])
    };
    let code = [&0.5_f32.to_le_bytes()[..], &[127, 129, 3]].concat();
    let index = block(4, 17, &[&code, &plane]).expect("a code and its plane");
    let saved_plane = saved(&index)[0].windows(5).any(|bytes| *bytes == *plane);
    assert!(saved_plane, "the plane is saved again");
    for version in [2, 3, 4] {
        let index = block(version, 1, &[&code]).expect("a code alone");
        assert!(index.code(SlotId(9)).is_some(), "version {version}");
    }
    assert!(block(3, 17, &[&code, &plane]).is_err(), "version 3 knows no planes");
    assert!(block(4, 16, &[&plane]).is_err(), "a plane of no code");
    assert!(block(4, 17, &[&code, &plane[..4]]).is_err(), "half a plane");
    for scale in [0.0, -0.005, 0.02, f32::NAN, f32::INFINITY] {
        let bad = [&scale.to_le_bytes()[..], &[0]].concat();
        assert!(block(4, 17, &[&code, &bad]).is_err(), "scale {scale}");
    }
}

/// Blocks of version 2 have records of the first form, and their length in two bytes; of version 3 the second form.
#[test]
fn records_of_both_forms_are_read() {
    let first: &[u8] = b"\0\x02\x01n\x07\x05\x03big\0\0\0\0\0\0\x40\x43";
    let second: &[u8] = b"\0\x02\x01n\x07\x09\x01a\x02\x02\x05";
    let block = |version: u16, write: &dyn Fn(&mut Writer)| {
        let mut out = Writer::section(TAG_SLOT_BLOCK, version);
        slot_bytes(out.u32(0).u16(2), 0, 4, id(1), 1);
        write(&mut out);
        let mut index = Index::new();
        index.load_block(&out.finish()).map(|()| index)
    };
    let judged = |index: &Index, expression: &str| {
        let filter = Filter::parse(expression.as_bytes()).expect("an expression");
        let slot = index.slot(SlotId(0)).expect("the entry");
        filter.judge_record(slot.record, &mut Steps::default())
    };
    let old = block(2, &|out| {
        out.u16(first.len() as u16).raw(first);
    })
    .expect("version 2");
    assert_eq!(judged(&old, ".n == 7"), Verdict::Yes);
    assert_eq!(judged(&old, ".big == 9007199254740992"), Verdict::NeedsEntry);
    assert_eq!(judged(&old, "exists(.other)"), Verdict::NeedsEntry);
    let new = block(3, &|out| {
        out.u32(second.len() as u32).raw(second);
    })
    .expect("version 3");
    assert_eq!(judged(&new, ".n == 7 and .a == [5]"), Verdict::Yes);
    assert_eq!(judged(&new, "exists(.other)"), Verdict::No);
    let saved = new.save_block(new.used_blocks().next().expect("a block"));
    let mut again = Index::new();
    again.load_block(&saved).expect("what was saved");
    assert_eq!(
        again.slot(SlotId(0)).expect("the entry").record,
        new.slot(SlotId(0)).expect("it").record
    );
    assert!(
        block(2, &|out| {
            out.u16(second.len() as u16).raw(second);
        })
        .is_err(),
        "the other form"
    );
    for length in [1_u32 << 20, u32::MAX] {
        assert!(
            block(3, &|out| {
                out.u32(length).raw(second);
            })
            .is_err(),
            "longer than the block"
        );
    }
}

/// The widest vectors: what one entry of a block costs is bounded by the block.
#[test]
fn memory_of_the_widest_block_is_bounded() {
    let mut out = Writer::section(TAG_SLOT_BLOCK, 2);
    out.u32(1).u16(16_384);
    slot_bytes(&mut out, 0, 1, id(1), 1);
    out.f32(0.5).raw(&[127; 16_384]);
    let block = out.finish();
    let (loaded, _, peak, _) = measure(|| load(std::slice::from_ref(&block)));
    loaded.expect("a valid block").check_invariants();
    assert!(peak < 256 * (16_384 + 4 + 128) + 10_000, "{peak} bytes");
}

fn head() -> Vec<u8> {
    let settings = Settings {
        dim: Some(384),
        model: (*b"all-MiniLM-L6-v2").into(),
        ttl_ms: 3_600_000,
        max_entries: 1_000,
        ..Settings::default()
    };
    let mut cache = Cache::new(
        b"faq",
        ContainerUid(0xfeed),
        settings,
        llmcache_core::cache::maxerror::TicketSecret([0; 2]),
    )
    .expect("a name");
    cache.observe_seq(Seq(41));
    cache.save_head()
}

#[test]
fn mutated_heads_are_refused_or_harmless() {
    let valid = head();
    let mut random = Random(0x4ead);
    let (mut accepted, mut highest) = (0, 0);
    for _ in 0..MUTATIONS {
        let mut bytes = valid.clone();
        mutate(&mut bytes, &mut random);
        reseal(&mut bytes);
        let (loaded, _, peak, _) = measure(|| Cache::load_head(&bytes));
        highest = highest.max(peak);
        let Ok(cache) = loaded else { continue };
        accepted += 1;
        assert_eq!(cache.save_head(), bytes, "an accepted head is written as it was read");
        cache.settings.check().expect("settings within their bounds");
        assert!(cache.next_seq().0 >= 1 && cache.next_seq().0 <= limits::SEQ_MAX);
        let tail = format!(":{}:x", cache.uid()).into_bytes();
        assert!(cache.named_key(b"x").ends_with(&tail));
        let _ = cache.settings.fresh_until(UnixMs(1 << 41), random.next());
    }
    assert!(highest < 10_000, "{highest} bytes at once");
    assert!(accepted > MUTATIONS / 100, "only {accepted} were accepted");
}

/// An entry may arrive with any place in the store order that an entry can have; the cache must be
/// able to store, save and load after it.
#[test]
fn the_last_place_of_the_store_order_breaks_nothing() {
    let mut cache = Cache::new(
        b"faq",
        ContainerUid(1),
        Settings::default(),
        llmcache_core::cache::maxerror::TicketSecret([0; 2]),
    )
    .expect("a good name");
    for seq in [limits::SEQ_MAX - 1, limits::SEQ_MAX, limits::SEQ_MAX] {
        cache.observe_seq(Seq(seq));
        cache.invalidate(Extent::All, Severity::Gone).expect("an invalidation");
        assert!(cache.next_seq().0 <= limits::SEQ_MAX, "no slot can keep {:?}", cache.next_seq());
        assert!(Cache::load_head(&cache.save_head()).is_ok(), "saved, but never loaded again");
    }
}

#[test]
fn sections_are_what_they_say() {
    let bytes = head();
    let (tag, version, body) = open_section(&bytes).expect("a section");
    assert_eq!((tag, version), (TAG_HEAD, 3));
    assert_eq!(body.remaining(), bytes.len() - SECTION_HEADER_BYTES - SECTION_TRAILER_BYTES);
    for end in 0..bytes.len() {
        let mut short = bytes[..end].to_vec();
        assert!(open_section(&short).is_err());
        reseal(&mut short);
        assert!(Cache::load_head(&short).is_err(), "a head of {end} bytes");
    }
}
