//! How a question is answered, over a keyspace that is a hash map: the order of the tiers, what
//! counts as a hit, what is never one, and the best entries against brute force over exact vectors.
//! Runs on the test runner's threads.

mod common;

use common::{Random, measure};
use llmcache_core::cache::guard::{GuardLevel, Refusal};
use llmcache_core::cache::{
    Cache, Entry, EntryFields, Keyspace, LookupReport, LookupRequest, MissReason, Settings, Tier,
    look_up,
};
use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{ContainerUid, EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{GraphSettings, IndexMode, NewSlot};
use llmcache_core::vector::quantise::error_bound;
use llmcache_core::vector::{Quant, Query};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

const UID: ContainerUid = ContainerUid(0xca5e);
const NOW: UnixMs = UnixMs(1_000_000);

/// What is stored under one key.
#[derive(Clone)]
struct Value {
    entry: Rc<Entry>,
    expire_at: UnixMs,
}

/// A server of one cache.
struct World {
    cache: RefCell<Cache>,
    keys: RefCell<HashMap<Vec<u8>, Value>>,
    now: Cell<UnixMs>,
    opened: RefCell<Vec<Vec<u8>>>,
    /// Whether the index keeps the planes of vectors, as a server's does.
    planes: bool,
}

impl Keyspace for World {
    type Opened = Rc<Entry>;

    fn open(&self, key: &[u8], _: bool) -> Option<Rc<Entry>> {
        assert!(self.cache.try_borrow_mut().is_ok(), "the cache is borrowed while a key is opened");
        self.opened.borrow_mut().push(key.to_vec());
        let value = self.keys.borrow().get(key).cloned()?;
        if value.expire_at.is_past(self.now.get()) {
            // As a server does: the key goes, and the removal hook tells the index.
            self.keys.borrow_mut().remove(key);
            let view = value.entry.view();
            self.cache.borrow_mut().index.remove(view.slot(), view.seq());
            return None;
        }
        Some(value.entry)
    }

    fn with_cache<R>(&self, work: impl FnOnce(&mut Cache) -> R) -> R {
        work(&mut self.cache.borrow_mut())
    }
}

/// An entry to be stored.
#[derive(Clone, Copy)]
struct New<'a> {
    scope: &'a [u8],
    context: &'a [u8],
    prompt: &'a [u8],
    vector: &'a [f32],
    quant: Quant,
    name: &'a [u8],
    meta: &'a str,
    created: UnixMs,
    expire_at: UnixMs,
    /// Where it is indexed, when not where it belongs.
    partition: Option<PartitionKey>,
}

const PLAIN: New<'static> = New {
    scope: b"",
    context: b"",
    prompt: b"",
    vector: &[],
    quant: Quant::None,
    name: b"",
    meta: "",
    created: NOW,
    expire_at: UnixMs::NEVER,
    partition: None,
};

impl World {
    fn new() -> Self {
        let settings = Settings { threshold: 0.9, guard: GuardLevel::Off, ..Settings::default() };
        Self {
            cache: RefCell::new(
                Cache::new(
                    b"faq",
                    UID,
                    settings,
                    llmcache_core::cache::maxerror::TicketSecret([0; 2]),
                )
                .expect("a good name"),
            ),
            keys: RefCell::default(),
            now: Cell::new(NOW),
            opened: RefCell::default(),
            planes: true,
        }
    }

    /// Stores as the server does: what the key held is removed, then the entry is indexed.
    fn store(&self, new: &New<'_>) -> (SlotId, Seq) {
        let mut vector = Vec::new();
        if !new.vector.is_empty() {
            let query = Query::new(new.vector).expect("a vector");
            new.quant.encode(query.normalised(), &mut vector);
        }
        let id = EntryId::of(new.scope, new.context, new.prompt);
        let cache = &mut *self.cache.borrow_mut();
        let former = cache.entry_key(&id).to_vec();
        let key = if new.name.is_empty() {
            cache.named_key(&id.hex()).to_vec()
        } else {
            cache.named_key(new.name).to_vec()
        };
        for key in [&former, &key] {
            if let Some(value) = self.keys.borrow_mut().remove(key) {
                let view = value.entry.view();
                cache.index.remove(view.slot(), view.seq());
            }
        }
        let seq = cache.next_seq();
        cache.observe_seq(seq);
        let mut entry = Entry::new(&EntryFields {
            uid: cache.uid(),
            seq,
            created: new.created,
            quant: new.quant,
            dim: new.vector.len() as u16,
            vector: &vector,
            scope: new.scope,
            context: new.context,
            prompt: new.prompt,
            response: b"an answer",
            name: new.name,
            tags: &[],
            meta: new.meta.as_bytes(),
            tokens: 10,
            cost_nano_usd: 0,
            latency_ms: 5,
            grace_s: 0,
            is_embedding: false,
        });
        let view = entry.view();
        let meta = view.meta_object();
        let (code, plane) = view.vector().map(|vector| vector.code_and_plane()).unzip();
        let slot = cache.index.insert(NewSlot {
            id,
            seq,
            partition: new.partition.unwrap_or(PartitionKey::of(new.scope, new.context)),
            expire_at: new.expire_at,
            bytes: view.len() as u32,
            worth: 1,
            record: meta
                .as_ref()
                .and_then(|meta| FilterRecord::from_meta(meta.as_object()?, &Default::default())),
            name: view.name(),
            code: code.as_ref().map(|code| (&code.codes[..], code.scale)),
        });
        if let Some(plane) = plane.flatten().filter(|_| self.planes) {
            cache.index.set_plane(slot, plane.as_plane());
        }
        entry.set_slot(slot);
        let value = Value { entry: Rc::from(entry), expire_at: new.expire_at };
        self.keys.borrow_mut().insert(key, value);
        (slot, seq)
    }

    fn key(&self, prompt: &[u8]) -> Vec<u8> {
        self.cache.borrow().entry_key(&EntryId::of(b"", b"", prompt)).to_vec()
    }

    /// Changes the bytes of the entry in a key, as another server's RESTORE may.
    fn forge(&self, key: &[u8], at: usize, bytes: &[u8]) {
        let mut keys = self.keys.borrow_mut();
        let value = keys.get_mut(key).expect("a stored key");
        let mut forged = value.entry.as_bytes().to_vec();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        value.entry = Rc::from(Entry::from_bytes(forged.into()).expect("a valid entry"));
    }

    fn ask(&self, question: &LookupRequest<'_>) -> LookupReport<Rc<Entry>> {
        self.now.set(question.now);
        self.opened.borrow_mut().clear();
        let report = look_up(self, question).expect("searched here");
        self.cache.borrow().index.check_invariants();
        assert!(report.hits.len() <= question.count);
        assert_eq!(report.reason.is_none(), !report.hits.is_empty());
        assert_eq!(
            report.opened,
            self.opened.borrow().len() - usize::from(self.exact_failed(question))
        );
        for (place, hit) in report.hits.iter().enumerate() {
            let view = hit.entry.view();
            assert_eq!(
                (view.uid(), view.scope(), view.context()),
                (UID, question.scope, question.context)
            );
            assert_eq!(
                hit.tier == Tier::Exact,
                question.prompt == Some(view.prompt()),
                "hit {place}"
            );
            assert!(hit.tier == Tier::Semantic || place == 0, "an exact hit is the first");
            assert!(hit.tier == Tier::Exact || hit.similarity >= report.threshold);
        }
        for pair in report.hits.windows(2) {
            let ids = [id_text(&pair[0].entry), id_text(&pair[1].entry)];
            let in_order = pair[0].tier == Tier::Exact
                || pair[0].similarity > pair[1].similarity
                || (pair[0].similarity == pair[1].similarity && ids[0] < ids[1]);
            assert!(in_order, "hits out of order");
        }
        report
    }

    /// Whether the first key opened was that of the exact tier, and there was nothing in it.
    fn exact_failed(&self, question: &LookupRequest<'_>) -> bool {
        let Some(prompt) = question.prompt else { return false };
        let key =
            self.cache.borrow().entry_key(&EntryId::of(question.scope, question.context, prompt));
        !self.keys.borrow().contains_key(&*key)
    }
}

fn id_text(entry: &Entry) -> Vec<u8> {
    let view = entry.view();
    view.name().map_or_else(|| view.id().hex().to_vec(), <[u8]>::to_vec)
}

fn question<'a>(query: Option<&'a Query>) -> LookupRequest<'a> {
    LookupRequest {
        unseen: None,
        scope: b"",
        context: b"",
        prompt: None,
        query,
        threshold: None,
        count: 1,
        ef: None,
        guard: GuardLevel::Off,
        filter: None,
        max_age_ms: None,
        explain: false,
        chooses: false,
        counts_refused: true,
        now: NOW,
    }
}

fn query(vector: &[f32]) -> Query {
    Query::new(vector).expect("a vector")
}

fn filter(text: &str) -> Filter {
    Filter::parse(text.as_bytes()).expect("a filter")
}

/// A vector at this cosine from [1, 0, 0, 0].
fn at(cosine: f32) -> [f32; 4] {
    [cosine, (1.0 - cosine * cosine).sqrt(), 0.0, 0.0]
}

fn prompts(report: &LookupReport<Rc<Entry>>) -> Vec<String> {
    let text = |entry: &Entry| String::from_utf8_lossy(entry.view().prompt()).into_owned();
    report.hits.iter().map(|hit| text(&hit.entry)).collect()
}

const EAST: [f32; 4] = [1.0, 0.0, 0.0, 0.0];

#[test]
fn exact_goes_before_semantic() {
    let world = World::new();
    world.store(&New { prompt: b"near", vector: &EAST, ..PLAIN });
    world.store(&New { prompt: b"same", vector: &at(0.5), ..PLAIN });
    let east = query(&EAST);
    // The nearest by meaning is another one, but the prompt itself is stored.
    let report = world.ask(&LookupRequest { prompt: Some(b"same"), ..question(Some(&east)) });
    assert_eq!((report.hits[0].tier, report.hits[0].similarity), (Tier::Exact, 1.0));
    assert_eq!((prompts(&report), report.scanned), (vec!["same".into()], 0));
    // With room for more, what is near follows; the exact entry is not named twice.
    let both = LookupRequest {
        prompt: Some(b"same"),
        count: 3,
        threshold: Some(-1.0),
        ..question(Some(&east))
    };
    assert_eq!(prompts(&world.ask(&both)), ["same", "near"]);
    let two = LookupRequest { count: 2, ..both };
    assert_eq!(prompts(&world.ask(&two)), ["same", "near"]);
    // Without a vector there is only the exact tier, and it needs none.
    world.store(&New { prompt: b"bare", ..PLAIN });
    let report = world.ask(&LookupRequest { prompt: Some(b"bare"), ..question(None) });
    assert_eq!((prompts(&report), report.opened), (vec!["bare".into()], 1));
    let report = world.ask(&LookupRequest { prompt: Some(b"bar"), ..question(None) });
    assert_eq!((report.reason, report.opened), (Some(MissReason::Empty), 0));
    // Near in bytes is nothing: only all of scope, context and prompt are the same question.
    for (scope, context, prompt) in [(&b"b"[..], &b""[..], &b"are"[..]), (b"", b"b", b"are")] {
        let report =
            world.ask(&LookupRequest { scope, context, prompt: Some(prompt), ..question(None) });
        assert!(report.hits.is_empty());
    }
}

#[test]
fn a_named_entry_answers_its_prompt() {
    let world = World::new();
    world.store(&New { prompt: b"p", vector: &EAST, name: b"refund-eu", ..PLAIN });
    let east = query(&EAST);
    let report = world.ask(&LookupRequest { prompt: Some(b"p"), ..question(None) });
    assert_eq!(report.hits[0].tier, Tier::Exact);
    let report = world.ask(&LookupRequest { explain: true, ..question(Some(&east)) });
    assert_eq!(report.nearest.expect("an entry").id, b"refund-eu");
    // Stored again under no name: the former key is gone, and the new one answers.
    world.store(&New { prompt: b"p", vector: &EAST, ..PLAIN });
    assert_eq!(world.keys.borrow().len(), 1);
    let report = world.ask(&LookupRequest { prompt: Some(b"p"), ..question(None) });
    assert_eq!(report.hits[0].entry.view().name(), None);
}

#[test]
fn scopes_and_contexts_are_apart() {
    let world = World::new();
    let places: [(&[u8], &[u8]); 6] =
        [(b"", b""), (b"a", b""), (b"", b"a"), (b"a", b"b"), (b"ab", b""), (b"b", b"a")];
    for (scope, context) in places {
        world.store(&New { scope, context, prompt: b"p", vector: &EAST, ..PLAIN });
    }
    let east = query(&EAST);
    for prompt in [None, Some(&b"p"[..])] {
        for (scope, context) in places {
            let ask = LookupRequest { scope, context, prompt, count: 10, ..question(Some(&east)) };
            let report = world.ask(&ask);
            assert_eq!((report.hits.len(), report.candidates), (1, 1));
        }
        for (scope, context) in [(&b"b"[..], &b""[..]), (b"", b"b"), (b"a", b"a"), (b"", b"ab")] {
            let ask = LookupRequest { scope, context, prompt, count: 10, ..question(Some(&east)) };
            let report = world.ask(&ask);
            assert_eq!((report.hits.len(), report.reason), (0, Some(MissReason::Empty)));
        }
    }
}

#[test]
fn the_threshold_is_on_the_exact_score() {
    for quant in [Quant::None, Quant::F16, Quant::Q8] {
        let world = World::new();
        world.store(&New { prompt: b"p", vector: &at(0.6), quant, ..PLAIN });
        let east = query(&EAST);
        let score = |threshold| {
            let ask = LookupRequest { threshold: Some(threshold), ..question(Some(&east)) };
            let report = world.ask(&ask);
            assert_eq!(report.threshold, threshold);
            (report.hits.len(), report.nearest_similarity.expect("a nearest entry"))
        };
        let (hits, exact) = score(0.0);
        assert_eq!(hits, 1);
        assert!((exact - 0.6).abs() < 0.003, "{quant:?}: {exact}");
        assert_eq!((score(exact).0, score(exact + 1e-6).0), (1, 0), "{quant:?}");
        assert_eq!((score(-1.0).0, score(1.0).0), (1, 0));
    }
    let settings = World::new();
    settings.store(&New { prompt: b"p", vector: &at(0.89), ..PLAIN });
    let east = query(&EAST);
    let report = settings.ask(&question(Some(&east)));
    assert_eq!((report.threshold, report.reason), (0.9, Some(MissReason::BelowThreshold)));
    settings.with_cache(|cache| cache.settings.threshold = 0.88);
    assert_eq!(settings.ask(&question(Some(&east))).hits.len(), 1);
}

#[test]
fn an_identical_vector_scores_exactly_one_and_an_orthogonal_one_zero() {
    let mut random = Random(4);
    for quant in [Quant::None, Quant::F16, Quant::Q8] {
        for dim in [1, 3, 32, 300] {
            let world = World::new();
            let vector: Vec<f32> = (0..dim).map(|_| random.below(2_001) as f32 - 1_000.5).collect();
            world.store(&New { prompt: b"p", vector: &vector, quant, ..PLAIN });
            let same = query(&vector);
            let ask = LookupRequest { threshold: Some(1.0), ..question(Some(&same)) };
            let report = world.ask(&ask);
            assert_eq!(report.hits[0].similarity, 1.0, "{quant:?} of {dim}");
        }
        let world = World::new();
        world.store(&New { prompt: b"p", vector: &[0.0, 2.0], quant, ..PLAIN });
        let other = query(&[3.0, 0.0]);
        let ask = LookupRequest { threshold: Some(0.0), ..question(Some(&other)) };
        assert_eq!(world.ask(&ask).hits[0].similarity, 0.0);
        let opposite = query(&[0.0, -1.0]);
        let ask = LookupRequest { threshold: Some(-1.0), ..question(Some(&opposite)) };
        assert_eq!(world.ask(&ask).hits[0].similarity, -1.0);
    }
}

#[test]
fn another_dimension_finds_nothing() {
    let world = World::new();
    world.store(&New { prompt: b"p", vector: &EAST, ..PLAIN });
    let other = query(&[1.0, 0.0]);
    let ask = LookupRequest { threshold: Some(-1.0), ..question(Some(&other)) };
    assert_eq!(world.ask(&ask).reason, Some(MissReason::Empty));
}

#[test]
fn count_orders_by_score_and_then_by_id() {
    let world = World::new();
    let cosines = [0.95_f32, 0.99, 0.91, 0.97, 0.93];
    for (number, cosine) in cosines.into_iter().enumerate() {
        let prompt = format!("p{number}");
        world.store(&New { prompt: prompt.as_bytes(), vector: &at(cosine), ..PLAIN });
    }
    let east = query(&EAST);
    let ask = |count| prompts(&world.ask(&LookupRequest { count, ..question(Some(&east)) }));
    assert_eq!(ask(10), ["p1", "p3", "p0", "p4", "p2"]);
    assert_eq!(ask(2), ["p1", "p3"]);
    assert_eq!(ask(1), ["p1"]);
    // Equals, named so that the order of ids is neither that of storing nor its reverse.
    let world = World::new();
    for name in [&b"d"[..], b"a", b"e", b"c", b"b"] {
        world.store(&New { prompt: name, vector: &at(0.95), name, ..PLAIN });
    }
    world.store(&New { prompt: b"best", vector: &at(0.99), name: b"z", ..PLAIN });
    let ask = |count| prompts(&world.ask(&LookupRequest { count, ..question(Some(&east)) }));
    assert_eq!(ask(10), ["best", "a", "b", "c", "d", "e"]);
    assert_eq!(ask(3), ["best", "a", "b"]);
}

#[test]
fn max_age_refuses_the_old() {
    let world = World::new();
    let stored = |age| UnixMs(NOW.0 - age);
    world.store(&New { prompt: b"old", vector: &EAST, created: stored(5_000), ..PLAIN });
    world.store(&New { prompt: b"new", vector: &at(0.95), created: stored(1_000), ..PLAIN });
    let east = query(&EAST);
    let ask = |max_age_ms, prompt| {
        world.ask(&LookupRequest { max_age_ms, prompt, count: 9, ..question(Some(&east)) })
    };
    assert_eq!(prompts(&ask(Some(5_000), None)), ["old", "new"]);
    assert_eq!(prompts(&ask(Some(4_999), None)), ["new"]);
    assert_eq!(prompts(&ask(Some(4_999), Some(b"old"))), ["new"]);
    assert_eq!(prompts(&ask(Some(5_000), Some(b"old"))), ["old", "new"]);
    assert_eq!(ask(Some(999), None).reason, Some(MissReason::MaxAge));
    assert_eq!(ask(Some(0), Some(b"old")).reason, Some(MissReason::MaxAge));
    // An entry of the future, by another server's clock, is not old.
    world.store(&New { prompt: b"next", vector: &EAST, created: UnixMs(NOW.0 + 9), ..PLAIN });
    assert_eq!(prompts(&ask(Some(0), None)), ["next"]);
}

#[test]
fn a_filter_is_judged_from_the_record_or_from_the_entry() {
    let world = World::new();
    world.store(&New { prompt: b"none", vector: &EAST, ..PLAIN });
    let meta = r#"{"n":1,"a":[1,2]}"#;
    world.store(&New { prompt: b"one", vector: &at(0.99), meta, ..PLAIN });
    let meta = r#"{"n":2,"a":[2,3]}"#;
    world.store(&New { prompt: b"two", vector: &at(0.98), meta, ..PLAIN });
    let east = query(&EAST);
    let ask = |text: &str, prompt| {
        let filter = filter(text);
        let ask =
            LookupRequest { filter: Some(&filter), count: 9, prompt, ..question(Some(&east)) };
        let report = world.ask(&ask);
        let counts = (report.filtered, report.judged_by_entry, report.opened);
        (prompts(&report), report.reason, counts)
    };
    let none = Vec::<String>::new;
    assert_eq!(ask(".n == 2", None), (vec!["two".into()], None, (2, 0, 1)));
    assert_eq!(ask("3 in .a", None), (vec!["two".into()], None, (2, 0, 1)));
    assert_eq!(ask("2 in .a", None).0, ["one", "two"]);
    assert_eq!(ask(".n == 1 and 2 in .a", None), (vec!["one".into()], None, (2, 0, 1)));
    assert_eq!(ask("9 in .a", None), (none(), Some(MissReason::Filter), (3, 0, 0)));
    assert_eq!(ask(".n == 9", None), (none(), Some(MissReason::Filter), (3, 0, 0)));
    // The exact tier is filtered too; what it refused is counted once.
    assert_eq!(ask(".n == 2", Some(b"one")).0, ["two"]);
    assert_eq!(ask(".n == 1", Some(b"one")).0, ["one"]);
    let filter = filter(".n == 2");
    let ask = LookupRequest { filter: Some(&filter), prompt: Some(b"one"), ..question(None) };
    let report = world.ask(&ask);
    assert_eq!((report.reason, report.filtered), (Some(MissReason::Filter), 1));
}

/// META of more than a record holds: its long members are looked up where the record leaves the filter open, and only there.
#[test]
fn a_filter_on_members_that_no_record_holds_opens_the_entries() {
    let long = |n: u32| format!(r#"{{"n":{n},"l":"{}{n}"}}"#, "x".repeat(2_000));
    let (one, two) = (long(1), long(2));
    let east = query(&EAST);
    let table: [(&str, &[&str], bool); 9] = [
        ("'x2' in .l", &["two"], true),
        ("not ('x2' in .l)", &["none", "one"], true),
        (".n == 2 and 'x2' in .l", &["two"], true),
        (".n == 1 or 'x2' in .l", &["one", "two"], true),
        ("'x9' in .l", &[], true),
        (".n == 9 and 'x2' in .l", &[], false),
        ("exists(.l)", &["one", "two"], false),
        ("not exists(.l)", &["none"], false),
        ("'x' in .missing", &[], false),
    ];
    for (text, expected, is_opened) in table {
        // A new one each time: records keep what was asked for.
        let world = World::new();
        world.store(&New { prompt: b"none", vector: &EAST, ..PLAIN });
        world.store(&New { prompt: b"one", vector: &at(0.99), meta: &one, ..PLAIN });
        world.store(&New { prompt: b"two", vector: &at(0.98), meta: &two, ..PLAIN });
        let filter = filter(text);
        for prompt in [None, Some(&b"one"[..])] {
            let ask =
                LookupRequest { filter: Some(&filter), count: 9, prompt, ..question(Some(&east)) };
            let report = world.ask(&ask);
            let mut expected = expected.to_vec();
            // The exact tier answers first.
            expected.sort_by_key(|other| prompt.is_none() || *other != "one");
            assert_eq!(prompts(&report), expected, "{text}");
            let reason = expected.is_empty().then_some(MissReason::Filter);
            assert_eq!(report.reason, reason, "{text}");
            if prompt.is_none() {
                assert_eq!(report.judged_by_entry > 0, is_opened, "{text}");
            }
        }
    }
}

/// EXPLAIN counts entries, not judgements.
#[test]
fn an_entry_that_both_tiers_refuse_is_counted_once() {
    let world = World::new();
    world.store(&New { prompt: b"p", vector: &EAST, meta: r#"{"n":1,"a":[1]}"#, ..PLAIN });
    let east = query(&EAST);
    for text in [".n == 2", "2 in .a"] {
        let filter = filter(text);
        let ask =
            LookupRequest { filter: Some(&filter), prompt: Some(b"p"), ..question(Some(&east)) };
        assert_eq!(world.ask(&ask).filtered, 1, "{text}");
    }
}

#[test]
fn many_that_fail_do_not_hide_one_that_passes() {
    // Neither members only the entry holds, nor ages, nor missing keys, nor leftovers.
    for (round, text) in ["3 in .a", ".n == 3", "1"].into_iter().enumerate() {
        let world = World::new();
        for number in 0..700 {
            let prompt = format!("p{number}");
            let meta = r#"{"n":1,"a":[1]}"#;
            let created = UnixMs(if round == 2 { 1 } else { NOW.0 });
            let new = New { prompt: prompt.as_bytes(), vector: &at(0.999), meta, created, ..PLAIN };
            let (slot, seq) = world.store(&new);
            if number % 7 == 0 {
                world.keys.borrow_mut().remove(&world.key(prompt.as_bytes()));
            } else if number % 7 == 1 {
                let other = Seq(seq.0 + 10_000).0.to_le_bytes();
                world.forge(&world.key(prompt.as_bytes()), 16, &other[..6]);
            } else if number % 7 == 2 {
                world.with_cache(|cache| cache.index.hide(slot, seq));
            }
        }
        let meta = r#"{"n":3,"a":[3]}"#;
        world.store(&New { prompt: b"far", vector: &at(0.92), meta, ..PLAIN });
        let east = query(&EAST);
        let filter = filter(text);
        let ask =
            LookupRequest { filter: Some(&filter), max_age_ms: Some(500), ..question(Some(&east)) };
        let report = world.ask(&ask);
        assert_eq!(prompts(&report), ["far"], "{text}");
        // Settled by the first lookup: leftovers are gone and missing keys hidden, so the second
        // opens no more of them.
        let again = world.ask(&ask);
        assert_eq!(prompts(&again), ["far"]);
        assert!(again.opened <= report.opened);
        let totals = world.cache.borrow().index.totals();
        // What the record refuses is never opened, so that its leftovers stay.
        if text == "1" {
            assert_eq!((totals.entries, totals.hidden), (601, 200), "{text}");
        }
    }
}

#[test]
fn a_missing_key_hides_its_slot_and_the_next_is_served() {
    let world = World::new();
    let (slot, seq) = world.store(&New { prompt: b"gone", vector: &EAST, ..PLAIN });
    world.store(&New { prompt: b"next", vector: &at(0.95), ..PLAIN });
    let gone = world.keys.borrow_mut().remove(&world.key(b"gone")).expect("stored");
    let east = query(&EAST);
    let report = world.ask(&question(Some(&east)));
    assert_eq!(prompts(&report), ["next"]);
    let hidden =
        |world: &World| world.cache.borrow().index.slot_of(slot, seq).map(|slot| slot.is_hidden());
    assert_eq!(hidden(&world), Some(true), "hidden until settled, not removed");
    world.ask(&question(Some(&east)));
    assert_eq!(world.opened.borrow().len(), 1, "a hidden slot's key is not opened again");
    // It comes back with its slot, and is shown again.
    world.keys.borrow_mut().insert(world.key(b"gone"), gone);
    world.with_cache(|cache| cache.index.unhide(slot, seq));
    assert_eq!(prompts(&world.ask(&question(Some(&east)))), ["gone"]);
}

#[test]
fn a_key_that_says_otherwise_is_never_served() {
    // Where in an entry its uid, its place in the store order and its slot are (docs/formats.md).
    for (what, at_byte, bytes) in [
        ("uid", 8, &0xbad_u64.to_le_bytes()[..]),
        ("seq", 16, &77_u64.to_le_bytes()[..6]),
        ("slot", 4, &77_u32.to_le_bytes()),
        ("no slot", 4, &u32::MAX.to_le_bytes()),
    ] {
        let world = World::new();
        let (slot, seq) = world.store(&New { prompt: b"p", vector: &EAST, ..PLAIN });
        world.store(&New { prompt: b"next", vector: &at(0.95), ..PLAIN });
        world.forge(&world.key(b"p"), at_byte, bytes);
        let east = query(&EAST);
        let report = world.ask(&LookupRequest { count: 9, ..question(Some(&east)) });
        assert_eq!(prompts(&report), ["next"], "{what}");
        assert!(world.cache.borrow().index.slot_of(slot, seq).is_none(), "{what}: a leftover");
        assert!(
            world.keys.borrow().contains_key(&world.key(b"p")),
            "{what}: the key is left alone"
        );
        // The exact tier trusts the key, if it belongs to this cache.
        let report = world.ask(&LookupRequest { prompt: Some(b"p"), ..question(None) });
        assert_eq!(report.hits.is_empty(), what == "uid", "{what}");
    }
}

#[test]
fn a_foreign_entry_under_an_exact_key_is_never_served() {
    let world = World::new();
    world.store(&New { prompt: b"right", vector: &EAST, ..PLAIN });
    let value = world.keys.borrow_mut().remove(&world.key(b"right")).expect("stored");
    let wrong = world.key(b"wrong");
    world.keys.borrow_mut().insert(wrong, value);
    let report = world.ask(&LookupRequest { prompt: Some(b"wrong"), ..question(None) });
    assert!(report.hits.is_empty());
}

#[test]
fn pairs_that_met_in_one_partition_never_answer_for_each_other() {
    let world = World::new();
    let shared = Some(PartitionKey::of(b"mine", b"ctx"));
    for number in 0..100 {
        let prompt = format!("p{number}");
        let (scope, context): (&[u8], &[u8]) = match number % 3 {
            0 => (b"theirs", b"ctx"),
            1 => (b"mine", b"other"),
            _ => (b"", b""),
        };
        let prompt = prompt.as_bytes();
        let new = New { scope, context, prompt, vector: &EAST, partition: shared, ..PLAIN };
        world.store(&new);
    }
    let east = query(&EAST);
    let ask = LookupRequest {
        scope: b"mine",
        context: b"ctx",
        threshold: Some(-1.0),
        count: 5,
        explain: true,
        ..question(Some(&east))
    };
    let report = world.ask(&ask);
    assert_eq!((report.hits.len(), report.reason), (0, Some(MissReason::Empty)));
    assert_eq!((report.nearest, report.nearest_similarity), (None, None));
    world.store(&New {
        scope: b"mine",
        context: b"ctx",
        prompt: b"far",
        vector: &at(0.1),
        ..PLAIN
    });
    assert_eq!(prompts(&world.ask(&ask)), ["far"]);
    assert_eq!(world.cache.borrow().index.totals().entries, 101, "none of them is a leftover");
}

#[test]
fn explain_names_the_nearest() {
    let world = World::new();
    world.store(&New { prompt: b"near", vector: &at(0.7), ..PLAIN });
    world.store(&New { prompt: b"far", vector: &at(0.2), ..PLAIN });
    let east = query(&EAST);
    let ask = LookupRequest { explain: true, ..question(Some(&east)) };
    let report = world.ask(&ask);
    let nearest = report.nearest.expect("an entry");
    assert_eq!(nearest.prompt, b"near");
    assert_eq!(nearest.id, EntryId::of(b"", b"", b"near").hex());
    assert!((nearest.similarity - 0.7).abs() < 1e-6);
    assert_eq!(report.nearest_similarity, Some(nearest.similarity));
    assert_eq!((report.reason, report.candidates), (Some(MissReason::BelowThreshold), 2));
    // Beside an exact hit too, although nothing more is wanted.
    let ask = LookupRequest { prompt: Some(b"far"), ..ask };
    let report = world.ask(&ask);
    assert_eq!(prompts(&report), ["far"]);
    assert_eq!(report.nearest.expect("an entry").prompt, b"near");
    assert!(world.ask(&question(Some(&east))).nearest.is_none(), "not asked for");
}

#[test]
fn misses_say_why() {
    let east = query(&EAST);
    let reason = |world: &World, ask: &LookupRequest<'_>| world.ask(ask).reason;
    let world = World::new();
    assert_eq!(reason(&world, &question(Some(&east))), Some(MissReason::Empty));
    assert_eq!(reason(&world, &question(None)), Some(MissReason::Empty));
    let due = UnixMs(NOW.0);
    world.store(&New { prompt: b"due", vector: &EAST, expire_at: due, ..PLAIN });
    assert_eq!(reason(&world, &question(Some(&east))), Some(MissReason::Expired));
    assert!(world.opened.borrow().is_empty(), "skipped by the slot's own deadline");
    let before = LookupRequest { now: UnixMs(NOW.0 - 1), ..question(Some(&east)) };
    assert_eq!(reason(&world, &before), None);
    // The index missed the deadline: the key is gone when it is opened.
    let (slot, seq) = world.store(&New { prompt: b"due", vector: &EAST, expire_at: due, ..PLAIN });
    world.with_cache(|cache| cache.index.set_expiry(slot, seq, UnixMs::NEVER));
    assert_eq!(reason(&world, &question(Some(&east))), Some(MissReason::Expired));
    assert_eq!(world.cache.borrow().index.totals().entries, 0);
    world.store(&New { prompt: b"p", vector: &at(0.5), meta: r#"{"n":1}"#, ..PLAIN });
    assert_eq!(reason(&world, &question(Some(&east))), Some(MissReason::BelowThreshold));
    let filter = filter(".n == 2");
    let filtered = LookupRequest { filter: Some(&filter), ..question(Some(&east)) };
    assert_eq!(reason(&world, &filtered), Some(MissReason::Filter));
    let aged =
        LookupRequest { max_age_ms: Some(1), now: UnixMs(NOW.0 + 100), ..question(Some(&east)) };
    assert_eq!(reason(&world, &aged), Some(MissReason::MaxAge));
    for (place, reason) in MissReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, place);
    }
}

#[test]
fn the_reason_is_that_of_the_nearest_although_a_farther_entry_was_compared() {
    let east = query(&EAST);
    let world = World::new();
    world.store(&New { prompt: b"far", vector: &at(0.5), meta: r#"{"n":2}"#, ..PLAIN });
    let near = New { prompt: b"near", vector: &at(0.95), meta: r#"{"n":1}"#, ..PLAIN };
    world.store(&New { created: UnixMs(1), expire_at: UnixMs(NOW.0 + 10), ..near });
    let plain = question(Some(&east));
    let filter = filter(".n == 2");
    let refusing = [
        (MissReason::Filter, LookupRequest { filter: Some(&filter), ..plain }),
        (MissReason::MaxAge, LookupRequest { max_age_ms: Some(100), ..plain }),
        (MissReason::Expired, LookupRequest { now: UnixMs(NOW.0 + 10), ..plain }),
    ];
    for (reason, ask) in refusing {
        let report = world.ask(&ask);
        assert_eq!(report.reason, Some(reason));
        assert!((report.nearest_similarity.expect("the far one") - 0.5).abs() < 0.01);
        // Would the threshold have refused it anyway, that is the reason.
        let strict = world.ask(&LookupRequest { threshold: Some(0.97), ..ask });
        assert_eq!(strict.reason, Some(MissReason::BelowThreshold), "{reason:?}");
    }
    assert_eq!(world.ask(&plain).reason, None);
}

#[test]
fn a_guard_refuses_what_is_near_and_says_another_thing() {
    let east = query(&EAST);
    let world = World::new();
    world.store(&New { prompt: b"a dose for a child of 16", vector: &at(0.99), ..PLAIN });
    world.store(&New { prompt: b"what to give to a child of 6", vector: &at(0.95), ..PLAIN });
    world.store(&New { prompt: b"dose for a child of 17", vector: &at(0.5), ..PLAIN });
    let prompt = Some(&b"which dose for a child of six?"[..]);
    let plain = LookupRequest { prompt, explain: true, ..question(Some(&east)) };
    let guarded = LookupRequest { guard: GuardLevel::On, ..plain };
    world.with_cache(|cache| cache.settings.guard = GuardLevel::Off);
    assert_eq!(prompts(&world.ask(&plain)), ["a dose for a child of 16"]);
    // The farther one is right; the nearest is explained.
    let report = world.ask(&guarded);
    assert_eq!(prompts(&report), ["what to give to a child of 6"]);
    assert_eq!(report.guard.map(|verdict| verdict.refusal), Some(Refusal::Number));
    assert_eq!(report.nearest.expect("the refused one").prompt, b"a dose for a child of 16");
    assert!((report.nearest_similarity.expect("its own") - 0.99).abs() < 0.01);
    // Alone it is a miss, and the guard is the reason.
    let strict = LookupRequest { threshold: Some(0.98), ..guarded };
    let report = world.ask(&strict);
    assert_eq!((report.hits.len(), report.reason), (0, Some(MissReason::Guard)));
    // The level of the cache is a floor; a question asked by vector alone is not judged but by STRICT.
    world.with_cache(|cache| cache.settings.guard = GuardLevel::On);
    assert_eq!(prompts(&world.ask(&plain)), ["what to give to a child of 6"]);
    let vector_alone = LookupRequest { prompt: None, ..plain };
    assert_eq!(prompts(&world.ask(&vector_alone)), ["a dose for a child of 16"]);
    let report = world.ask(&LookupRequest { guard: GuardLevel::Strict, ..vector_alone });
    let refusal = report.guard.map(|verdict| verdict.refusal);
    assert_eq!((report.reason, refusal), (Some(MissReason::Guard), Some(Refusal::Unjudged)));
    // Not on the exact tier.
    let exact = LookupRequest { prompt: Some(b"a dose for a child of 16"), ..guarded };
    assert_eq!(world.ask(&exact).hits[0].tier, Tier::Exact);
}

#[test]
fn questions_of_which_only_the_number_changes_are_not_all_looked_at() {
    let east = query(&EAST);
    let world = World::new();
    for number in 0..1_000 {
        let prompt = format!("where is order {number}?");
        world.store(&New { prompt: prompt.as_bytes(), vector: &EAST, ..PLAIN });
    }
    let ask = LookupRequest { prompt: Some(b"where is order 5000?"), ..question(Some(&east)) };
    let report = world.ask(&LookupRequest { guard: GuardLevel::On, ..ask });
    assert_eq!(report.reason, Some(MissReason::Guard));
    assert!(report.opened <= 80, "{} opened", report.opened);
}

fn unit(random: &mut Random, dim: usize) -> Vec<f32> {
    // The sum of twelve uniform numbers is as good as normal here.
    let normal = |random: &mut Random| {
        (0..12).map(|_| random.below(1 << 20) as f32 / (1 << 20) as f32).sum::<f32>() - 6.0
    };
    (0..dim).map(|_| normal(random)).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Random stores, replacements and deletions; every lookup against brute force over the vectors as
/// they were given.
#[test]
fn lookups_agree_with_brute_force() {
    const DIM: usize = 32;
    const COUNT: usize = 10;
    let scopes: [&[u8]; 3] = [b"", b"eu", b"us"];
    let mut random = Random(0x10_0c);
    let world = World::new();
    let mut stored: HashMap<(usize, usize), Vec<f32>> = HashMap::new();
    let (mut asked, mut displaced) = (0, 0);
    for step in 0..5_000 {
        let place = (random.below(40) % 3, random.below(700));
        let prompt = format!("p{}", place.1);
        let prompt = prompt.as_bytes();
        let scope = scopes[place.0];
        if step < 1_500 || random.below(4) == 0 {
            let vector = unit(&mut random, DIM);
            world.store(&New { scope, prompt, vector: &vector, ..PLAIN });
            stored.insert(place, vector);
            continue;
        }
        if random.below(6) == 0 {
            // Half of them without a word to the index.
            let id = EntryId::of(scope, b"", prompt);
            let key = world.cache.borrow().entry_key(&id).to_vec();
            if let Some(value) = world.keys.borrow_mut().remove(&key)
                && random.below(2) == 0
            {
                let view = value.entry.view();
                world.with_cache(|cache| cache.index.remove(view.slot(), view.seq()));
            }
            stored.remove(&place);
            continue;
        }
        if step % 5 > 0 {
            continue;
        }
        let vector = unit(&mut random, DIM);
        let asks = query(&vector);
        let threshold = [-1.0, 0.0, 0.3, 0.5][random.below(4)];
        let prompt = (random.below(4) == 0).then_some(prompt);
        let ask = LookupRequest {
            scope,
            prompt,
            count: if random.below(2) == 0 { 1 } else { COUNT },
            threshold: Some(threshold),
            ..question(Some(&asks))
        };
        let report = world.ask(&ask);
        let exact = prompt.is_some() && stored.contains_key(&place);
        assert_eq!(report.hits.first().is_some_and(|hit| hit.tier == Tier::Exact), exact);
        let others = stored.iter().filter(|((s, _), _)| *s == place.0);
        let mut expected: Vec<(f64, String)> = others
            .filter(|((_, number), _)| !(exact && *number == place.1))
            .map(|((_, number), own)| (cosine(&vector, own), format!("p{number}")))
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0));
        expected.retain(|(similarity, _)| *similarity >= threshold - 1e-6);
        expected.truncate(ask.count - usize::from(exact));
        let semantic = &report.hits[usize::from(exact)..];
        for hit in semantic {
            let view = hit.entry.view();
            let number: usize = String::from_utf8_lossy(&view.prompt()[1..]).parse().expect("pN");
            let truth = cosine(&vector, &stored[&(place.0, number)]);
            assert!((hit.similarity - truth).abs() < 2e-6, "{} for {truth}", hit.similarity);
        }
        let Some((best, _)) = expected.first() else { continue };
        asked += 1;
        let first = semantic.first().expect("the best is above the threshold");
        assert!(first.similarity >= best - 2e-6, "step {step}: {} for {best}", first.similarity);
        let found: BTreeSet<String> = prompts(&report).into_iter().collect();
        let last = semantic[semantic.len() - 1].similarity;
        for (similarity, prompt) in expected.iter().filter(|(_, prompt)| !found.contains(prompt)) {
            // Only what codes cannot tell from the last place may be missing from it.
            displaced += 1;
            let bound = f64::from(error_bound(asks.scale(), 0.006));
            assert!(similarity - last <= 2.0 * bound, "{prompt}: {similarity} beside {last}");
            assert_eq!(semantic.len(), expected.len(), "a place was left empty");
        }
    }
    assert!(asked > 250, "only {asked} lookups had an answer");
    assert!(displaced <= asked / 100, "{displaced} of {asked} lists lacked an entry");
}

/// What an index knows more exactly needs no key opened to find out.
#[test]
fn planes_save_the_opening_of_keys() {
    const COUNT: usize = 10;
    let mut opened = Vec::new();
    for planes in [false, true] {
        let world = World { planes, ..World::new() };
        let mut random = Random(0x9_1a7e);
        for number in 0..3_000 {
            let prompt = format!("p{number}");
            let vector = unit(&mut random, 64);
            world.store(&New { prompt: prompt.as_bytes(), vector: &vector, ..PLAIN });
        }
        let mut count = 0;
        for _ in 0..200 {
            let asks = query(&unit(&mut random, 64));
            let ask =
                LookupRequest { count: COUNT, threshold: Some(-1.0), ..question(Some(&asks)) };
            count += world.ask(&ask).opened;
        }
        opened.push(count as f64 / 200.0);
    }
    assert!(opened[1] <= 10.4 && opened[0] >= opened[1] + 0.3, "{opened:?}");
}

/// A lookup holds what COUNT asks for, however many entries there are.
#[test]
fn memory_of_a_lookup_follows_count() {
    let world = World::new();
    let mut random = Random(6);
    for number in 0..6_000 {
        let prompt = format!("p{number}");
        let vector = unit(&mut random, 16);
        world.store(&New { prompt: prompt.as_bytes(), vector: &vector, ..PLAIN });
    }
    let flat = GraphSettings { mode: IndexMode::Flat, ..GraphSettings::default() };
    world.with_cache(|cache| cache.index.set_graph_settings(flat));
    let vector = unit(&mut random, 16);
    let asks = query(&vector);
    for (count, most) in [(1, 8_000), (10, 16_000), (1_000, 600_000)] {
        let ask = LookupRequest { count, threshold: Some(-1.0), ..question(Some(&asks)) };
        let (report, _, peak, _) = measure(|| look_up(&world, &ask).expect("searched here"));
        assert_eq!((report.hits.len(), report.scanned), (count, 6_000));
        assert!(report.opened <= count + 8, "{} opened for {count}", report.opened);
        world.opened.borrow_mut().clear();
        assert!(peak < most, "COUNT {count}: {peak} bytes");
    }
}
