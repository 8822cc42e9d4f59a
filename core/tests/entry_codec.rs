//! Entries as hostile bytes: mutated from fixed seeds, then refused or readable in every field.
//! Entries carry no checksum of their own, so every mutation reaches the decoder. Runs on the test
//! runner's threads.

mod common;

use common::{Random, measure};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::{Entry, EntryFields, EntryView};
use llmcache_core::ids::{ContainerUid, EntryId, Seq, SlotId, UnixMs};
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

/// The parts of an entry, owned.
#[derive(Debug, Clone, Default)]
struct Parts {
    uid: u64,
    seq: u64,
    created: u64,
    quant: Option<Quant>,
    dim: u16,
    vector: Vec<u8>,
    scope: Vec<u8>,
    context: Vec<u8>,
    prompt: Vec<u8>,
    response: Vec<u8>,
    name: Vec<u8>,
    tags: Vec<Vec<u8>>,
    meta: Vec<u8>,
    tokens: u32,
    cost_nano_usd: u64,
    latency_ms: u32,
    grace_s: u32,
    stale: bool,
}

impl Parts {
    fn entry(&self) -> Box<Entry> {
        let tags: Vec<&[u8]> = self.tags.iter().map(Vec::as_slice).collect();
        let mut entry = Entry::new(&EntryFields {
            uid: ContainerUid(self.uid),
            seq: Seq(self.seq),
            created: UnixMs(self.created),
            quant: self.quant.unwrap_or(Quant::None),
            dim: self.dim,
            vector: &self.vector,
            scope: &self.scope,
            context: &self.context,
            prompt: &self.prompt,
            response: &self.response,
            name: &self.name,
            tags: &tags,
            meta: &self.meta,
            tokens: self.tokens,
            cost_nano_usd: self.cost_nano_usd,
            latency_ms: self.latency_ms,
            grace_s: self.grace_s,
            is_embedding: false,
        });
        if self.stale {
            entry.set_stale();
        }
        entry
    }

    /// What an entry says it holds.
    fn of(view: &EntryView<'_>) -> Self {
        Self {
            uid: view.uid().0,
            seq: view.seq().0,
            created: view.created().0,
            quant: Some(view.quant()),
            dim: view.dim(),
            vector: view.vector_bytes().to_vec(),
            scope: view.scope().to_vec(),
            context: view.context().to_vec(),
            prompt: view.prompt().to_vec(),
            response: view.response().to_vec(),
            name: view.name().unwrap_or_default().to_vec(),
            tags: view.tags().map(<[u8]>::to_vec).collect(),
            meta: view.meta().unwrap_or_default().to_vec(),
            tokens: view.tokens(),
            cost_nano_usd: view.cost_nano_usd(),
            latency_ms: view.latency_ms(),
            grace_s: view.grace_s(),
            stale: view.is_marked_stale(),
        }
    }

    fn random(random: &mut Random) -> Self {
        let bytes = |random: &mut Random, most: usize| -> Vec<u8> {
            (0..random.below(most)).map(|_| random.next() as u8).collect()
        };
        // Entries with and without each of the two groups.
        let (plain, free) = (random.below(3) == 0, random.below(2) == 0);
        let quant = [Quant::None, Quant::F16, Quant::Q8][random.below(3)];
        let dim = [0, 1, 2, 7, 33][random.below(5)];
        let mut vector = Vec::new();
        if dim > 0 {
            let numbers: Vec<f32> =
                (0..dim).map(|_| random.below(2_001) as f32 - 1_000.5).collect();
            quant.encode(Query::new(&numbers).expect("numbers").normalised(), &mut vector);
        }
        let metas: [&[u8]; 5] = [
            b"",
            b"{}",
            b"{\"n\":5,\"s\":\"abc\",\"a\":[1,{\"k\":null}]}",
            b" {\"e\":1e-300,\"u\":\"\\u00e9\"} ",
            b"{\"a\":{\"b\":{\"c\":[[],[[]]]}}}",
        ];
        Self {
            uid: random.next(),
            seq: random.next() % (limits::SEQ_MAX + 1),
            created: random.next() % (1 << 48),
            quant: Some(quant),
            dim: dim as u16,
            vector,
            scope: bytes(random, if plain { 1 } else { 20 }),
            context: bytes(random, if plain { 1 } else { 30 }),
            prompt: bytes(random, 60),
            response: bytes(random, 80),
            name: if plain || random.below(2) == 0 { Vec::new() } else { b"refund-eu".to_vec() },
            tags: (0..if plain { 0 } else { random.below(4) })
                .map(|n| vec![b'a' + n as u8; 1 + n])
                .collect(),
            meta: metas[if plain { 0 } else { random.below(metas.len()) }].to_vec(),
            tokens: if free { 0 } else { random.next() as u32 },
            cost_nano_usd: if free { 0 } else { random.next() % (limits::COST_MAX_NANO_USD + 1) },
            latency_ms: if free {
                0
            } else {
                random.next() as u32 % (limits::LATENCY_MAX_MS as u32 + 1)
            },
            grace_s: if free { 0 } else { random.next() as u32 % (limits::GRACE_MAX_S + 1) },
            stale: random.below(4) == 0,
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Box<Entry>> {
    Entry::from_bytes(bytes.into()).ok()
}

/// Reads everything there is and checks it against the bounds that readers rely on.
fn use_all(entry: &Entry) {
    let view = entry.view();
    let slot = view.slot();
    assert_eq!(view.len(), entry.as_bytes().len());
    let head = Entry::head_len(&entry.as_bytes()[..Entry::HEADER_BYTES]);
    assert_eq!(Entry::whole_len(&entry.as_bytes()[..head]), view.len());
    assert!(!view.is_empty());
    assert!(view.scope().len() <= limits::SCOPE_MAX_BYTES);
    assert!(view.context().len() <= limits::CONTEXT_MAX_BYTES);
    assert!(view.prompt().len() <= limits::PROMPT_MAX_BYTES);
    assert!(view.response().len() <= limits::RESPONSE_MAX_BYTES);
    assert!(view.seq().0 <= limits::SEQ_MAX);
    assert!(view.cost_nano_usd() <= limits::COST_MAX_NANO_USD);
    assert!(u64::from(view.latency_ms()) <= limits::LATENCY_MAX_MS);
    let tags: Vec<_> = view.tags().collect();
    assert_eq!(tags.len(), view.tag_count());
    assert!(tags.len() <= limits::TAGS_MAX);
    assert!(tags.iter().all(|tag| (1..=limits::TAG_MAX_BYTES).contains(&tag.len())));
    if let Some(name) = view.name() {
        assert!((1..=limits::ID_MAX_BYTES).contains(&name.len()));
        assert!(!name.iter().any(u8::is_ascii_control));
    }
    assert_eq!(view.meta().is_some(), view.meta_object().is_some());
    assert!(view.meta_object().is_none_or(|meta| meta.is_object()));
    assert_eq!(view.vector().is_some(), view.dim() > 0);
    if let Some(vector) = view.vector() {
        assert_eq!(vector.dim(), usize::from(view.dim()));
        let code = vector.code();
        assert!(code.scale > 0.0 && code.scale.is_finite() && !code.codes.contains(&i8::MIN));
        let query = Query::new(&vector.to_f32()).expect("a vector of unit length");
        let similarity = vector.similarity(&query);
        assert!((0.9999..=1.0).contains(&similarity), "{similarity} with itself");
    }
    assert_eq!(view.id(), EntryId::of(view.scope(), view.context(), view.prompt()));
    assert!(view.answers(view.scope(), view.context(), view.prompt()));
    // The fields determine the bytes: nothing is hidden between them.
    let mut again = Parts::of(&view).entry();
    assert_eq!(again.as_bytes(), entry.portable_bytes());
    again.set_slot(slot);
    assert_eq!(again.as_bytes(), entry.as_bytes());
    let [before, after] = entry.portable_parts();
    assert_eq!(before.len() + after.len() + 4, entry.as_bytes().len());
}

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
