//! Entries by their parts, and everything that can be read of one; for the tests that attack their bytes.

use crate::common::Random;
use llmcache_core::cache::{Entry, EntryFields, EntryView};
use llmcache_core::ids::{ContainerUid, EntryId, Seq, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::{Quant, Query};

/// The parts of an entry, owned.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    pub uid: u64,
    pub seq: u64,
    pub created: u64,
    pub quant: Option<Quant>,
    pub dim: u16,
    pub vector: Vec<u8>,
    pub scope: Vec<u8>,
    pub context: Vec<u8>,
    pub prompt: Vec<u8>,
    pub response: Vec<u8>,
    pub name: Vec<u8>,
    pub tags: Vec<Vec<u8>>,
    pub meta: Vec<u8>,
    pub tokens: u32,
    pub cost_nano_usd: u64,
    pub latency_ms: u32,
    pub grace_s: u32,
    pub stale: bool,
    pub packs: bool,
}

impl Parts {
    pub fn entry(&self) -> Box<Entry> {
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
        if self.packs {
            entry = entry.with_packed_response();
        }
        if self.stale {
            entry.set_stale();
        }
        entry
    }

    /// What an entry says it holds.
    pub fn of(view: &EntryView<'_>) -> Self {
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
            packs: view.is_packed(),
        }
    }

    pub fn random(random: &mut Random) -> Self {
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
        let packs = random.below(3) == 0;
        let response = if packs {
            (0..100 + random.below(200)).map(|_| b"etaoin shrdlu"[random.below(13)]).collect()
        } else {
            bytes(random, 80)
        };
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
            response,
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
            packs,
        }
    }
}

/// An entry, where the bytes are one.
pub fn decode(bytes: &[u8]) -> Option<Box<Entry>> {
    Entry::from_bytes(bytes.into()).ok()
}

/// Reads everything there is and checks it against the bounds that readers rely on.
pub fn use_all(entry: &Entry) {
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
        let (code, _) = vector.code_and_plane();
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
