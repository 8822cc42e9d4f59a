//! Entries as hostile bytes: mutated from fixed seeds, then refused or readable in every field.
//! Entries carry no checksum of their own, so every mutation reaches the decoder. Runs on the test
//! runner's threads.

mod common;
#[path = "common/entries.rs"]
mod entries;

use common::{Random, measure};
use entries::{Parts, decode, use_all};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::{Entry, EntryFields};
use llmcache_core::ids::{ContainerUid, Seq, SlotId, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::{Quant, Query};
use serde_json::Value;

const MUTATIONS: usize = 100_000;

/// Header, group of costs and group of labels of `docs/formats.md`.
const HEADER: usize = 36;
const COSTS: usize = 20;
const LABELS: usize = 14;
const HEADERS_MAX: usize = HEADER + COSTS + LABELS;
/// Flags of the groups.
const HAS_COSTS: u8 = 16;
const HAS_LABELS: u8 = 32;

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        // Half of the mutations hit the header, where the lengths are.
        let within = if random.below(2) == 0 { bytes.len().min(HEADERS_MAX) } else { bytes.len() };
        let at = random.below(within);
        match random.below(7) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.next() as u8),
            5 => drop(bytes.remove(at)),
            _ => {
                let wide = [2, 4, 8][random.below(3)].min(bytes.len() - at);
                let value = [0, u64::MAX, 1 << 31, u64::from(u16::MAX), 16_384, 1, random.next()]
                    [random.below(7)];
                bytes[at..at + wide].copy_from_slice(&value.to_le_bytes()[..wide]);
            }
        }
    }
}

/// Where the lengths of an entry's parts stand, and how wide they are.
fn length_fields(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut fields = vec![(28, 4), (32, 4)];
    if bytes[1] & HAS_LABELS != 0 {
        let at = HEADER + if bytes[1] & HAS_COSTS != 0 { COSTS } else { 0 };
        fields.extend([(at, 2), (at + 2, 2), (at + 4, 4), (at + 8, 4), (at + 12, 1)]);
    }
    fields
}

/// Moves a byte from one part to another, so that the lengths still fit the bytes.
fn shift_length(bytes: &mut [u8], random: &mut Random) {
    let fields = length_fields(bytes);
    let (from, to) = (fields[random.below(fields.len())], fields[random.below(fields.len())]);
    if bytes[from.0] > 0 && bytes[to.0] < 255 {
        bytes[from.0] -= 1;
        bytes[to.0] += 1;
    }
}

#[test]
fn valid_entries_round_trip() {
    let mut random = Random(1);
    for _ in 0..3_000 {
        let parts = Parts::random(&mut random);
        let mut entry = parts.entry();
        use_all(&entry);
        let (read, _, peak, _) = measure(|| Parts::of(&entry.view()));
        assert!(peak < 4_096, "reading took {peak} bytes");
        assert_eq!(format!("{read:?}"), format!("{parts:?}"));
        assert_eq!(entry.view().slot(), SlotId::NONE);
        entry.set_slot(SlotId(77));
        let loaded = decode(entry.as_bytes()).expect("a valid entry");
        assert_eq!(loaded.as_bytes(), entry.as_bytes());
        assert_eq!(loaded.view().slot(), SlotId(77));
        assert_eq!(loaded.portable_bytes(), parts.entry().as_bytes());
        assert_eq!(loaded.portable_parts(), parts.entry().portable_parts());
        for end in [0, 1, HEADER - 1, HEADER, entry.as_bytes().len() - 1] {
            assert!(decode(&entry.as_bytes()[..end.min(entry.as_bytes().len() - 1)]).is_none());
        }
    }
}

#[test]
fn mutated_entries_are_refused_or_harmless() {
    let mut random = Random(0xe117);
    let sources: Vec<_> = (0..200).map(|_| Parts::random(&mut random).entry()).collect();
    let (mut accepted, mut highest) = (0, 0);
    for round in 0..MUTATIONS {
        let mut bytes = sources[random.below(sources.len())].as_bytes().to_vec();
        if round % 4 == 0 {
            shift_length(&mut bytes, &mut random);
        } else {
            mutate(&mut bytes, &mut random);
        }
        let (decoded, _, peak, _) = measure(|| decode(&bytes));
        highest = highest.max(peak);
        if let Some(entry) = decoded {
            accepted += 1;
            assert_eq!(entry.as_bytes(), bytes);
            use_all(&entry);
        }
    }
    assert!(highest < 16_384, "{highest} bytes at once");
    assert!(accepted > MUTATIONS / 10, "only {accepted} were accepted");
    assert!(accepted < MUTATIONS * 9 / 10, "{accepted} were accepted");
}

#[test]
fn random_bytes_are_refused_or_harmless() {
    let mut random = Random(9);
    for _ in 0..MUTATIONS / 4 {
        let length = random.below(120);
        let mut bytes: Vec<u8> =
            (0..length).map(|_| random.next() as u8 & [0, 1, 3, 255][random.below(4)]).collect();
        if let Some(first) = bytes.first_mut() {
            *first = 3;
        }
        if let Some(entry) = decode(&bytes) {
            use_all(&entry);
        }
    }
}

#[test]
fn bounds_are_enforced() {
    let good = Parts {
        seq: 1,
        prompt: b"p".to_vec(),
        meta: b"{\"n\":1}".to_vec(),
        tags: vec![b"t".to_vec()],
        ..Parts::default()
    };
    let ok = |change: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        change(&mut parts);
        decode(parts.entry().as_bytes()).is_some()
    };
    type Change = Box<dyn Fn(&mut Parts, usize)>;
    let lengths: [(usize, Change); 6] = [
        (limits::SCOPE_MAX_BYTES, Box::new(|parts, n| parts.scope = vec![0; n])),
        (limits::CONTEXT_MAX_BYTES, Box::new(|parts, n| parts.context = vec![0; n])),
        (limits::PROMPT_MAX_BYTES, Box::new(|parts, n| parts.prompt = vec![0; n])),
        (limits::ID_MAX_BYTES, Box::new(|parts, n| parts.name = vec![b'x'; n])),
        (limits::TAG_MAX_BYTES, Box::new(|parts, n| parts.tags = vec![vec![b'x'; n]])),
        (limits::TAGS_MAX, Box::new(|parts, n| parts.tags = vec![vec![b'x'; 9]; n])),
    ];
    for (number, (most, set)) in lengths.iter().enumerate() {
        assert!(ok(&|parts| set(parts, *most)), "length {number}");
        assert!(!ok(&|parts| set(parts, most + 1)), "length {number}");
    }
    assert!(ok(&|parts| parts.seq = limits::SEQ_MAX));
    assert!(!ok(&|parts| parts.cost_nano_usd = limits::COST_MAX_NANO_USD + 1));
    assert!(!ok(&|parts| parts.latency_ms = limits::LATENCY_MAX_MS as u32 + 1));
    assert!(!ok(&|parts| parts.grace_s = limits::GRACE_MAX_S + 1));
    assert!(!ok(&|parts| parts.name = b"a\nb".to_vec()));
    assert!(!ok(&|parts| parts.tags = vec![Vec::new()]));
    for meta in ["[1]", "1", "{", "{}}", "{\"a\":1e999}", "{\"a\":\"\u{1}\"}", "nul"] {
        assert!(!ok(&|parts| parts.meta = meta.as_bytes().to_vec()), "{meta}");
    }
    // 17 dimensions of nothing: the vector is not there.
    assert!(!ok(&|parts| parts.dim = 17));
}

/// META is the one part that is parsed into something larger than itself.
#[test]
fn hostile_meta_costs_a_bounded_amount() {
    let whole = limits::META_MAX_BYTES;
    let fill = |open: &str, unit: &str, close: &str| {
        let times = (whole - open.len() - close.len()) / unit.len();
        let inside = unit.repeat(times);
        format!("{open}{}{close}", inside.trim_end_matches(',')).into_bytes()
    };
    let many = (0..7_000).map(|n| format!("\"{n:x}\":0")).collect::<Vec<_>>().join(",");
    let metas = [
        fill("{\"a\":[", "0,", "]}"),
        fill("{\"a\":[", "[],", "]}"),
        fill("{\"a\":[", "{},", "]}"),
        fill("{\"a\":[", "\"\",", "]}"),
        fill("{", "\"\":0,", "}"),
        fill("{\"a\":", "[", ""),
        fill("{\"a\":", "{\"a\":", ""),
        fill("{\"a\":\"", "\\u00e9", "\"}"),
        format!("{{{many}}}").into_bytes(),
    ];
    for meta in metas {
        assert!(meta.len() <= whole);
        let shown = String::from_utf8_lossy(&meta[..20]).into_owned();
        let parts = Parts { meta, ..Parts::default() };
        let bytes = parts.entry().as_bytes().to_vec();
        let (decoded, _, peak, _) = measure(|| decode(&bytes));
        assert!(peak < 4 << 20, "{shown}: {peak} bytes");
        let nested = parts.meta.ends_with(b"[") || parts.meta.ends_with(b":");
        assert_eq!(decoded.is_none(), nested, "{shown}");
        if let Some(entry) = decoded {
            assert!(matches!(entry.view().meta_object(), Some(Value::Object(_))));
        }
    }
    let too_long = fill("{\"a\":\"", "xx", "\"}").len() + 2;
    let parts = Parts { meta: vec![b' '; too_long + whole], ..Parts::default() };
    assert!(decode(parts.entry().as_bytes()).is_none());
}

/// Lengths that sum to more than any machine has must not wrap around to the right one.
#[test]
fn lengths_do_not_wrap() {
    let parts =
        Parts { prompt: b"prompt".to_vec(), scope: b"s".to_vec(), tokens: 1, ..Parts::default() };
    let bytes = parts.entry();
    for (field, width) in length_fields(bytes.as_bytes()) {
        if width < 4 {
            continue;
        }
        for value in [u32::MAX, u32::MAX - 5, 1 << 31, 7, 5] {
            let mut bad = bytes.as_bytes().to_vec();
            bad[field..field + 4].copy_from_slice(&value.to_le_bytes());
            let (decoded, _, peak, _) = measure(|| decode(&bad));
            assert!(decoded.is_none());
            assert!(peak < 1_024);
        }
    }
}

/// What an entry takes beside its parts: an allocation is rounded up to its class, and 40 bytes more took
/// an answer of 600 bytes with its vector in half precision from one class to the next.
#[test]
fn what_an_entry_adds_to_its_parts() {
    let unit = Query::new(&[1.0; 384]).expect("numbers");
    for (quant, whole, taken) in [(Quant::F16, 1_504, 1_536), (Quant::Q8, 1_124, 1_280)] {
        let mut vector = Vec::new();
        quant.encode(unit.normalised(), &mut vector);
        let parts = Parts {
            seq: limits::SEQ_MAX,
            created: 1 << 47,
            quant: Some(quant),
            dim: 384,
            vector,
            prompt: vec![b'p'; 100],
            response: vec![b'r'; 600],
            ..Parts::default()
        };
        let plain = parts.entry().as_bytes().len();
        assert_eq!((plain, allocated_bytes(plain)), (whole, taken), "{quant:?}");
        let with = |change: &dyn Fn(&mut Parts)| {
            let mut parts = parts.clone();
            change(&mut parts);
            parts.entry().as_bytes().len() - plain
        };
        assert_eq!(with(&|parts| parts.grace_s = 1), COSTS);
        assert_eq!(with(&|parts| parts.name = b"n".to_vec()), LABELS + 1);
        assert_eq!(with(&|parts| parts.tags = vec![b"tag".to_vec()]), LABELS + 2 + 3);
    }
}

/// An entry has one form: a group without a number in it is refused.
#[test]
fn empty_groups_are_refused() {
    let plain = Parts { prompt: b"p".to_vec(), ..Parts::default() }.entry();
    for (flag, length) in [(HAS_COSTS, COSTS), (HAS_LABELS, LABELS)] {
        let mut bytes = plain.as_bytes().to_vec();
        bytes[1] |= flag;
        assert!(decode(&bytes).is_none());
        bytes.splice(HEADER..HEADER, std::iter::repeat_n(0, length));
        assert!(decode(&bytes).is_none());
        // Something in it, and it is one: `COST`, `TOKENS`; a scope, of the prompt's one byte.
        bytes[HEADER] = 1;
        if flag == HAS_LABELS {
            bytes[28] = 0;
        }
        assert!(decode(&bytes).is_some());
    }
}

#[test]
fn what_is_packed_in_parts_is_what_is_packed_at_once() {
    let vector = [7, 8, 9, 10];
    let tags: [&[u8]; 2] = [b"a", b"b"];
    for (meta, tokens) in [(&b"{\"n\":1}"[..], 5), (b"", 0)] {
        let whole = EntryFields {
            uid: ContainerUid(77),
            seq: Seq(1 << 40),
            created: UnixMs(12),
            quant: Quant::Q8,
            dim: 4,
            vector: &vector,
            prompt: b"id",
            response: b"text",
            tags: if meta.is_empty() { &[] } else { &tags },
            meta,
            tokens,
            ..EntryFields::default()
        };
        let without =
            EntryFields { uid: ContainerUid(0), seq: Seq(0), dim: 0, vector: b"", ..whole };
        let mut entry = Entry::new(&without).with_vector(4, &vector);
        entry.adopt(ContainerUid(77), Seq(1 << 40));
        assert_eq!(entry.as_bytes(), Entry::new(&whole).as_bytes());
    }
}
