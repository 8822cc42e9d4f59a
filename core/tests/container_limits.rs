//! The limits of one cache: when one is passed, who goes, and the deadlines that settings give.
//! Runs on the test runner's threads.

mod common;

use common::{Random, measure};
use llmcache_core::cache::{Cache, Settings};
use llmcache_core::evict::{VICTIM_SAMPLES, keep_value, minute, worth};
use llmcache_core::ids::{ContainerUid, EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{BLOCK_SLOTS, NewSlot};
use llmcache_core::limits;
use std::collections::{BTreeMap, BTreeSet};

const NOW: UnixMs = UnixMs(1_000_000_000_000);

fn cache(settings: Settings) -> Cache {
    Cache::new(
        b"faq",
        ContainerUid(7),
        settings,
        llmcache_core::cache::maxerror::TicketSecret([0; 2]),
    )
    .expect("a good name")
}

/// Stores an entry of this cost and size, hit as often as told.
fn store(cache: &mut Cache, worth: u8, bytes: u32, hits: u32) -> (SlotId, Seq) {
    let seq = cache.next_seq();
    cache.observe_seq(seq);
    let slot = cache.index.insert(NewSlot {
        id: EntryId::of(b"", b"", &seq.0.to_le_bytes()),
        seq,
        partition: PartitionKey(0),
        expire_at: UnixMs::NEVER,
        bytes,
        worth,
        record: None,
        name: None,
        code: Some((&[127, 3], 0.01)),
    });
    for _ in 0..hits {
        cache.index.note_hit(slot, seq, minute(NOW));
    }
    (slot, seq)
}

fn store_random(cache: &mut Cache, random: &mut Random) -> (SlotId, Seq) {
    let worth = worth(random.next() % 100_000_000, 0);
    let (bytes, hits) = (100 + random.below(5_000) as u32, random.below(4) as u32);
    store(cache, worth, bytes, hits)
}

/// Value of an entry and its place in the store order: the least goes first.
fn value(cache: &Cache, slot: SlotId) -> (f64, Seq) {
    let found = cache.index.slot(slot).expect("an entry");
    let value = keep_value(found.frequency, minute(NOW), found.worth(), found.bytes);
    (value, found.seq())
}

fn all(cache: &Cache) -> Vec<SlotId> {
    let (mut from, mut all) = (0, Vec::new());
    while let Some((slot, _)) = cache.index.next_occupied(from) {
        from = slot.0 + 1;
        all.push(slot);
    }
    all
}

fn least(cache: &Cache, among: impl Iterator<Item = SlotId>) -> Option<(SlotId, Seq)> {
    let value = |slot: &SlotId| value(cache, *slot);
    among
        .min_by(|a, b| value(a).partial_cmp(&value(b)).expect("values are numbers"))
        .map(|slot| (slot, value(&slot).1))
}

#[test]
fn a_small_cache_loses_its_least_valuable_in_order() {
    let mut random = Random(2);
    for round in 0..200 {
        let mut cache = cache(Settings::default());
        let count = 1 + random.below(VICTIM_SAMPLES);
        for _ in 0..count {
            store_random(&mut cache, &mut random);
        }
        let spare = if round % 2 == 0 { SlotId::NONE } else { SlotId(random.below(count) as u32) };
        loop {
            let expected = least(&cache, all(&cache).into_iter().filter(|slot| *slot != spare));
            let victim = cache.pick_victim(spare, NOW, || random.next());
            assert_eq!(victim, expected);
            let Some((slot, seq)) = victim else { break };
            assert!(cache.index.remove(slot, seq));
        }
        assert_eq!(cache.index.totals().entries, u64::from(spare != SlotId::NONE));
    }
}

#[test]
fn of_equals_the_older_goes_and_frequency_ages() {
    let mut cache = cache(Settings::default());
    let first = store(&mut cache, 50, 1_000, 0);
    let second = store(&mut cache, 50, 1_000, 0);
    let third = store(&mut cache, 50, 1_000, 2);
    assert_eq!(cache.pick_victim(SlotId::NONE, NOW, || 0), Some(first));
    assert_eq!(cache.pick_victim(first.0, NOW, || 0), Some(second));
    cache.index.note_hit(first.0, first.1, minute(NOW));
    assert_eq!(cache.pick_victim(second.0, NOW, || 0), Some(first), "hit less than the third");
    // A day later old hits are forgotten, and one new hit is more than they.
    let later = UnixMs(NOW.0 + 86_400_000);
    cache.index.note_hit(first.0, first.1, minute(later));
    assert_eq!(cache.pick_victim(second.0, later, || 0), Some(third));
}

#[test]
fn a_large_cache_loses_the_least_of_those_looked_at() {
    let mut random = Random(3);
    let mut cache = cache(Settings::default());
    let mut live: Vec<_> = (0..900).map(|_| store_random(&mut cache, &mut random)).collect();
    // Gaps, some wider than a block of slots.
    live.retain(|(slot, seq)| {
        let stays = slot.0 % 5 > 1 && !(200..560).contains(&slot.0);
        assert!(stays || cache.index.remove(*slot, *seq));
        stays
    });
    for round in 0..2_000 {
        let spare = live[random.below(live.len())].0;
        let words: Vec<u64> = (0..VICTIM_SAMPLES).map(|_| random.next()).collect();
        let mut given = words.iter();
        let victim = cache.pick_victim(spare, NOW, || *given.next().expect("one word a sample"));
        let slots = all(&cache);
        let end = u64::from(cache.index.slot_end());
        let looked_at = words.iter().filter_map(|word| {
            let start = (word % end) as usize;
            let others = || slots.iter().filter(|slot| **slot != spare);
            others().find(|slot| slot.0 as usize >= start).or_else(|| others().next()).copied()
        });
        let expected = least(&cache, looked_at);
        assert_eq!(victim, expected, "round {round}");
    }
}

#[test]
fn evicting_keeps_what_is_worth_most() {
    let settings = Settings { max_entries: 500, ..Settings::default() };
    let mut cache = cache(settings);
    let mut random = Random(4);
    let dear = worth(1_000_000_000, 0);
    let cheap = worth(1_000_000, 0);
    let mut evicted_dear = 0;
    for number in 0..3_000 {
        let is_dear = number % 5 == 0 && number < 1_500;
        let (slot, _) = store(&mut cache, if is_dear { dear } else { cheap }, 1_000, 0);
        while cache.is_over_limit() {
            let (victim, seq) =
                cache.pick_victim(slot, NOW, || random.next()).expect("there are others");
            assert_ne!(victim, slot, "what was just stored");
            let worth = cache.index.slot_of(victim, seq).expect("an entry").worth();
            evicted_dear += usize::from(worth == dear);
            assert!(cache.index.remove(victim, seq));
        }
        assert!(cache.index.totals().entries <= 500);
    }
    assert_eq!(cache.index.totals().entries, 500);
    // Three hundred dear ones were stored; sampling sixteen of 500 meets a cheap one all but always.
    assert!(evicted_dear <= 10, "{evicted_dear} of the dear went");
    cache.index.check_invariants();
}

/// The entry just stored may stand alone behind a wide gap, where every sample meets it.
#[test]
fn there_is_a_victim_wherever_the_spare_stands() {
    let mut cache = cache(Settings::default());
    let all: Vec<_> = (0..BLOCK_SLOTS).map(|_| store(&mut cache, 1, 100, 0)).collect();
    let spare = all[all.len() - 1].0;
    for (slot, seq) in &all[20..all.len() - 1] {
        assert!(cache.index.remove(*slot, *seq));
    }
    let mut random = Random(1);
    for _ in 0..200 {
        let victim = cache.pick_victim(spare, NOW, || random.next());
        let (slot, _) = victim.expect("twenty others are there");
        assert_ne!(slot, spare);
    }
    for word in [0, 21, 254, 255, u64::MAX] {
        let victim = cache.pick_victim(spare, NOW, || word);
        assert!(victim.is_some_and(|(slot, _)| slot != spare), "random word {word}");
    }
    for (slot, seq) in &all[..20] {
        assert!(cache.index.remove(*slot, *seq));
    }
    assert_eq!(cache.pick_victim(spare, NOW, || 3), None, "there is no other");
    assert_eq!(self::cache(Settings::default()).pick_victim(SlotId::NONE, NOW, || 3), None);
}

#[test]
fn what_is_due_goes_before_what_lives() {
    let mut cache = cache(Settings::default());
    let mut random = Random(5);
    let all: Vec<_> = (0..12).map(|_| store_random(&mut cache, &mut random)).collect();
    let worthless = store(&mut cache, 0, 100_000, 0);
    cache.index.set_expiry(all[7].0, all[7].1, UnixMs(NOW.0));
    cache.index.set_expiry(all[3].0, all[3].1, UnixMs(NOW.0 + 1));
    assert_eq!(cache.pick_victim(SlotId::NONE, NOW, || 0), Some(all[7]));
    // The walk goes on behind it; what is due in front of it is met as well.
    cache.index.set_expiry(all[2].0, all[2].1, UnixMs(1));
    assert_eq!(cache.pick_victim(all[7].0, NOW, || 0), Some(all[2]), "due, in front of the walk");
    assert!(cache.index.remove(all[7].0, all[7].1));
    // Never the spare, even when due.
    assert_eq!(cache.pick_victim(all[2].0, NOW, || 0), Some(worthless));
}

#[test]
fn a_walk_meets_what_is_due_in_a_large_cache() {
    let mut cache = cache(Settings::default());
    let mut random = Random(6);
    let all: Vec<_> = (0..4_000).map(|_| store_random(&mut cache, &mut random)).collect();
    let due: BTreeSet<Seq> = [3_999, 0, 1, 2_222].map(|place: usize| all[place].1).into();
    for (slot, seq) in all.iter().filter(|(_, seq)| due.contains(seq)) {
        cache.index.set_expiry(*slot, *seq, UnixMs(NOW.0 - 1));
    }
    let mut gone = BTreeSet::new();
    for _ in 0..40 {
        let (slot, seq) =
            cache.pick_victim(SlotId::NONE, NOW, || random.next()).expect("there are others");
        assert!(cache.index.remove(slot, seq));
        gone.insert(seq);
    }
    assert!(due.is_subset(&gone), "forty short walks go round 4,000 slots twice");
}

#[test]
fn picking_a_victim_allocates_nothing_and_looks_at_few() {
    let mut cache = cache(Settings::default());
    let mut random = Random(7);
    for _ in 0..20_000 {
        store_random(&mut cache, &mut random);
    }
    let mut words = 0;
    let (victim, calls, _, _) = measure(|| {
        cache.pick_victim(SlotId::NONE, NOW, || {
            words += 1;
            random.next()
        })
    });
    assert!(victim.is_some());
    assert_eq!((calls, words), (0, VICTIM_SAMPLES));
}

#[test]
fn limits_are_passed_only_beyond_them() {
    let mut cache = cache(Settings::default());
    let mut random = Random(8);
    let mut kept: BTreeMap<u64, (SlotId, u64)> = BTreeMap::new();
    for _ in 0..3_000 {
        if random.below(3) > 0 || kept.is_empty() {
            let (slot, seq) = store_random(&mut cache, &mut random);
            let bytes = cache.index.slot(slot).expect("an entry").bytes;
            kept.insert(seq.0, (slot, u64::from(bytes)));
        } else {
            let place = random.below(kept.len());
            let seq = *kept.keys().nth(place).expect("a place");
            let (slot, _) = kept.remove(&seq).expect("a key");
            assert!(cache.index.remove(slot, Seq(seq)));
        }
        let sum: u64 = kept.values().map(|(_, bytes)| bytes).sum();
        let total = sum + cache.index.bytes() as u64;
        assert_eq!((cache.total_bytes(), cache.index.totals().entry_bytes), (total, sum));
        assert!(cache.heap_bytes() >= cache.index.bytes());
        let entries = kept.len() as u64;
        for (max_entries, max_memory_bytes, over) in [
            (0, 0, false),
            (entries, 0, false),
            (entries.saturating_sub(1), 0, entries > 1),
            (0, total, false),
            (0, total.saturating_sub(1), total > 1),
            (entries, total, false),
            (entries + 1, total.saturating_sub(1), total > 1),
            (entries.saturating_sub(1), total + 1, entries > 1),
        ] {
            cache.settings.max_entries = max_entries;
            cache.settings.max_memory_bytes = max_memory_bytes;
            assert_eq!(cache.is_over_limit(), over, "{max_entries} and {max_memory_bytes}");
        }
    }
}

#[test]
fn memory_limit_is_reached_from_above() {
    let settings = Settings { max_memory_bytes: 400_000, ..Settings::default() };
    let mut cache = cache(settings);
    let mut random = Random(9);
    for _ in 0..2_000 {
        let (spare, _) = store_random(&mut cache, &mut random);
        while cache.is_over_limit() {
            let (slot, seq) =
                cache.pick_victim(spare, NOW, || random.next()).expect("there are others");
            assert!(cache.index.remove(slot, seq));
        }
        assert!(cache.total_bytes() <= 400_000);
    }
    assert!(cache.total_bytes() > 350_000, "no more went than had to");
}

/// Limits that not even one entry fits: everything else goes, and the loop of the caller ends.
#[test]
fn an_impossible_limit_leaves_the_spare_alone() {
    let settings = Settings { max_memory_bytes: 1, max_entries: 1, ..Settings::default() };
    let mut cache = cache(settings);
    let mut random = Random(10);
    for _ in 0..50 {
        store_random(&mut cache, &mut random);
    }
    let (spare, _) = store_random(&mut cache, &mut random);
    let mut gone = 0;
    while cache.is_over_limit() {
        let Some((slot, seq)) = cache.pick_victim(spare, NOW, || random.next()) else { break };
        assert!(cache.index.remove(slot, seq));
        gone += 1;
    }
    assert_eq!((gone, cache.index.totals().entries), (50, 1));
    assert!(cache.index.slot(spare).is_some());
}

#[test]
fn deadlines_lie_within_the_jitter() {
    let mut random = Random(11);
    for round in 0..20_000 {
        let ttl_ms = match round % 4 {
            0 => 1 + random.next() % 300,
            1 => 1 + random.next() % limits::TTL_MAX_MS,
            2 => limits::TTL_MAX_MS,
            _ => 1_000 * (1 + random.next() % 86_400),
        };
        let jitter_pct = [0, 1, 10, 99, 100][random.below(5)];
        let settings = Settings { ttl_ms, jitter_pct, ..Settings::default() };
        settings.check().expect("within bounds");
        // The share in exact arithmetic, rounded down.
        let widest = (u128::from(ttl_ms) * u128::from(jitter_pct) / 100) as u64;
        let latest = NOW.0 + ttl_ms;
        let earliest = (latest - widest).max(NOW.0 + 1);
        for word in [random.next(), 0, u64::MAX, u64::MAX - 1] {
            let deadline = settings.fresh_until(NOW, word).0;
            assert!((earliest..=latest).contains(&deadline), "{ttl_ms} {jitter_pct} {word}");
            assert!(!UnixMs(deadline).is_past(NOW), "due as it is stored");
            assert_eq!(UnixMs(deadline), settings.fresh_until(NOW, word), "only the word decides");
        }
        // Both ends are reached.
        assert_eq!(settings.fresh_until(NOW, 0).0, latest);
        assert_eq!(settings.fresh_until(NOW, widest).0, earliest);
        if jitter_pct == 0 {
            assert_eq!(settings.fresh_until(NOW, random.next()).0, latest);
        }
    }
    let none = Settings { jitter_pct: 100, ..Settings::default() };
    assert_eq!(none.fresh_until(NOW, 5), UnixMs::NEVER);
}

#[test]
fn deadlines_spread_evenly() {
    let settings = Settings { ttl_ms: 10_000, jitter_pct: 50, ..Settings::default() };
    let mut random = Random(12);
    let mut tenths = [0; 10];
    for _ in 0..20_000 {
        let cut = NOW.0 + 10_000 - settings.fresh_until(NOW, random.next()).0;
        tenths[(cut as usize * 10 / 5_001).min(9)] += 1;
    }
    assert!(tenths.iter().all(|count| (1_800..2_200).contains(count)), "{tenths:?}");
}
