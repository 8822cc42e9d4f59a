//! Single flight, stale answers and failures on a timeline with a clock of the test's own.

use llmcache_core::cache::guard::{GuardLevel, Rules};
use llmcache_core::cache::{
    Ask, BreakerSettings, Entry, EntryFields, Epochs, Extent, Flights, Found, Lapse, LeaseToken,
    Room, Settings, Severity, Verdict, WaiterId, refreshes_early,
};
use llmcache_core::ids::{ContainerUid, EntryId, MonotonicMs, Seq, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::{Quant, Query};

const LEASE_MS: u64 = 30_000;
const NO_BREAKER: BreakerSettings = BreakerSettings { failures: 0, window_ms: 1, cooldown_ms: 1 };

/// A cache's flights, a clock, and tokens that count up.
struct Play {
    flights: Flights,
    now: u64,
    last_token: u64,
    seq: u64,
    breaker: BreakerSettings,
    room: Room,
}

/// Somebody who asks.
#[derive(Clone)]
struct Asker<'a> {
    prompt: &'a str,
    scope: &'a str,
    query: Option<&'a Query>,
    threshold: f64,
    waits: bool,
    waiter: Option<WaiterId>,
}

fn asker(prompt: &str) -> Asker<'_> {
    Asker { prompt, scope: "", query: None, threshold: 0.9, waits: true, waiter: None }
}

impl<'a> Asker<'a> {
    fn near(self, query: &'a Query) -> Self {
        Self { query: Some(query), ..self }
    }

    fn id(&self) -> EntryId {
        EntryId::of(self.scope.as_bytes(), b"", self.prompt.as_bytes())
    }
}

impl Play {
    fn new() -> Self {
        let flights = Flights::default();
        Self {
            flights,
            now: 1_000_000,
            last_token: 0,
            seq: 1,
            breaker: NO_BREAKER,
            room: Room::Bytes(1 << 20),
        }
    }

    fn ask(&mut self, asker: &Asker<'_>, found: Found) -> (Verdict, LeaseToken) {
        self.last_token += 1;
        let token = LeaseToken(self.last_token);
        let ask = Ask {
            unseen: None,
            id: asker.id(),
            scope: asker.scope.as_bytes(),
            context: b"",
            prompt: asker.prompt.as_bytes(),
            query: asker.query,
            threshold: asker.threshold,
            rules: Rules { level: GuardLevel::On, ..Rules::OFF },
            room: self.room,
            seq: Seq(self.seq),
            now: MonotonicMs(self.now),
            lease_ms: LEASE_MS,
            token,
            random: self.last_token.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            breaker: self.breaker,
            waits: asker.waits,
            waiter: asker.waiter,
        };
        (self.flights.decide(&ask, found), token)
    }

    fn lead(&mut self, asker: &Asker<'_>) -> LeaseToken {
        let (verdict, token) = self.ask(asker, Found::Missing);
        assert_eq!(verdict, Verdict::Lead, "{}", asker.prompt);
        token
    }

    /// A client waits; answers its number.
    fn wait(&mut self, asker: &Asker<'_>, number: u64) -> EntryId {
        let (verdict, _) = self.ask(asker, Found::Missing);
        let Verdict::Wait(flight) = verdict else { panic!("{verdict:?}") };
        self.flights.wait(flight, WaiterId(number));
        flight
    }
}

fn query(x: f32, y: f32) -> Query {
    Query::new(&[x, y, 0.0, 0.0]).unwrap()
}

#[test]
fn one_leads_and_the_others_wait_in_their_order() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let token = play.lead(&hi);
    for number in 1..=100 {
        assert_eq!(play.wait(&hi, number), hi.id());
    }
    assert_eq!(play.flights.counts(), [1, 100, 0, 0]);
    assert_eq!(play.flights.granted_at(token, hi.id()), Some(Seq(1)));
    assert_eq!(play.flights.granted_at(token, asker("ho").id()), None, "another question");
    let woken = play.flights.stored(hi.id(), Some(token));
    assert_eq!(woken, (1..=100).map(WaiterId).collect::<Vec<_>>());
    assert_eq!(play.flights.granted_at(token, hi.id()), None, "a lease is used once");
    assert!(play.flights.is_empty());
}

#[test]
fn who_does_not_wait_is_told_when_to_ask_again() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    play.lead(&hi);
    let (verdict, _) = play.ask(&Asker { waits: false, ..hi.clone() }, Found::Missing);
    let Verdict::Busy { retry_ms } = verdict else { panic!("{verdict:?}") };
    assert!((1_000..1_500).contains(&retry_ms), "{retry_ms}");
    // Woken once, answered now.
    let woken = Asker { waiter: Some(WaiterId(7)), ..hi };
    assert!(matches!(play.ask(&woken, Found::Missing).0, Verdict::Busy { .. }));
}

#[test]
fn near_questions_share_a_lease_by_the_askers_threshold_and_the_guards() {
    let mut play = Play::new();
    let (first, near, far) = (query(1.0, 0.0), query(0.97, 0.243), query(0.6, 0.8));
    let refund = asker("how do I get a refund?").near(&first);
    play.lead(&refund);
    let money = asker("how do I get my money back?").near(&near);
    assert_eq!(play.wait(&money, 1), refund.id());
    let guarded = asker("how do I not get a refund?").near(&first);
    assert_eq!(play.ask(&guarded, Found::Missing).0, Verdict::Lead, "a guard refuses");
    let strict = Asker { threshold: 0.98, ..money.clone() };
    assert_eq!(play.ask(&strict, Found::Missing).0, Verdict::Lead, "not near enough for it");
    assert_eq!(play.ask(&asker("far").near(&far), Found::Missing).0, Verdict::Lead);
    let scoped = Asker { scope: "eu", ..money };
    assert_eq!(play.ask(&scoped, Found::Missing).0, Verdict::Lead, "another scope");
}

#[test]
fn when_a_lease_lapses_the_oldest_waiter_leads_and_nobody_else() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let token = play.lead(&hi);
    for number in 1..=3 {
        play.wait(&hi, number);
    }
    play.now += LEASE_MS - 1;
    assert_eq!(
        play.flights.lapse(token, MonotonicMs(play.now)),
        Lapse::Until(MonotonicMs(play.now + 1))
    );
    play.now += 1;
    assert_eq!(play.flights.lapse(token, MonotonicMs(play.now)), Lapse::Heir(WaiterId(1)));
    assert_eq!(play.flights.lapse(token, MonotonicMs(play.now)), Lapse::Ended);
    assert_eq!(play.flights.granted_at(token, hi.id()), None, "given away");
    // Before the heir has been answered, another asks: it waits behind the others.
    play.wait(&hi, 4);
    let heir = Asker { waiter: Some(WaiterId(1)), ..hi.clone() };
    let (verdict, second) = play.ask(&heir, Found::Missing);
    assert_eq!(verdict, Verdict::Lead);
    assert_eq!(play.flights.leave(hi.id(), WaiterId(1)), None);
    let woken = play.flights.stored(hi.id(), Some(second));
    assert_eq!(woken, [WaiterId(2), WaiterId(3), WaiterId(4)]);
}

#[test]
fn an_heir_that_went_leaves_the_lease_to_the_next() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let token = play.lead(&hi);
    for number in 1..=3 {
        play.wait(&hi, number);
    }
    assert_eq!(play.flights.leave(hi.id(), WaiterId(2)), None, "it was no heir");
    play.now += LEASE_MS;
    assert_eq!(play.flights.lapse(token, MonotonicMs(play.now)), Lapse::Heir(WaiterId(1)));
    assert_eq!(play.flights.leave(hi.id(), WaiterId(1)), Some(WaiterId(3)));
    assert_eq!(play.flights.leave(hi.id(), WaiterId(3)), None);
    assert!(play.flights.is_empty(), "nobody is left");
    play.lead(&hi);
}

#[test]
fn a_lapsed_lease_is_good_until_somebody_else_asks() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let token = play.lead(&hi);
    play.now += LEASE_MS + 5;
    assert_eq!(play.flights.lapse(token, MonotonicMs(play.now)), Lapse::Unwanted);
    assert!(play.flights.granted_at(token, hi.id()).is_some(), "late, and welcome");
    let second = play.lead(&hi);
    assert_eq!(play.flights.granted_at(token, hi.id()), None);
    assert!(play.flights.extend(second, MonotonicMs(play.now + 5)));
    assert!(!play.flights.extend(token, MonotonicMs(play.now + 5)));
}

#[test]
fn stale_answers_are_served_while_one_makes_them_anew() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let fresh = Found::Fresh { early: false };
    assert_eq!(play.ask(&hi, fresh).0, Verdict::Hit);
    let (verdict, token) = play.ask(&hi, Found::Stale);
    assert_eq!(verdict, Verdict::Lead);
    for _ in 0..10 {
        assert_eq!(play.ask(&hi, Found::Stale).0, Verdict::Stale, "never sent away to wait");
        assert_eq!(play.ask(&hi, Found::Fresh { early: true }).0, Verdict::Hit);
    }
    let gone = play.flights.fail(token, 500, b"overloaded", NO_BREAKER, MonotonicMs(play.now));
    assert_eq!(gone, Some(Vec::new()));
    assert_eq!(play.ask(&hi, Found::Stale).0, Verdict::Stale, "it failed a moment ago");
    play.now += 500;
    assert_eq!(play.ask(&hi, Found::Stale).0, Verdict::Lead);
}

#[test]
fn failures_are_remembered_for_their_backoff_and_open_the_breaker() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    play.breaker = BreakerSettings { failures: 2, window_ms: 60_000, cooldown_ms: 5_000 };
    let token = play.lead(&hi);
    play.wait(&hi, 1);
    let fail = |play: &mut Play, token| {
        play.flights.fail(token, 100, b"no", play.breaker, MonotonicMs(play.now))
    };
    assert_eq!(fail(&mut play, token), Some(vec![WaiterId(1)]));
    assert_eq!(fail(&mut play, token), None, "its lease is over");
    let negative = Verdict::Negative { text: (*b"no").into(), retry_ms: 100 };
    assert_eq!(play.ask(&hi, Found::Missing).0, negative);
    play.now += 100;
    let token = play.lead(&hi);
    fail(&mut play, token);
    let (other, elsewhere) = (asker("other"), Asker { scope: "eu", ..asker("other") });
    assert_eq!(play.ask(&other, Found::Missing).0, Verdict::Open { retry_ms: 5_000 });
    assert_eq!(play.ask(&other, Found::Stale).0, Verdict::Stale);
    assert_eq!(play.ask(&elsewhere, Found::Missing).0, Verdict::Lead, "another scope");
    play.now += 5_000;
    let trial = play.lead(&other);
    assert_eq!(play.ask(&hi, Found::Missing).0, Verdict::Open { retry_ms: 5_000 });
    play.flights.stored(other.id(), Some(trial));
    play.lead(&hi);
}

#[test]
fn invalidation_voids_the_leases_it_concerns() {
    let (mut play, hi, ho) = (Play::new(), asker("hi"), asker("ho"));
    let (first, second) = (play.lead(&hi), play.lead(&ho));
    play.wait(&hi, 1);
    assert_eq!(play.flights.void(hi.id()), Some(WaiterId(1)), "by id: the oldest makes another");
    assert_eq!(play.flights.granted_at(first, hi.id()), None);
    assert!(play.flights.granted_at(second, ho.id()).is_some());
    play.flights.note_picked();
    assert_eq!(play.flights.granted_at(second, ho.id()), None, "picked out: any");
    assert_eq!(play.flights.lose(second), None);
    let third = play.lead(&ho);
    assert!(play.flights.granted_at(third, ho.id()).is_some(), "granted since");
}

#[test]
fn leases_and_waiters_have_a_bound_and_those_that_lapsed_make_room() {
    let mut play = Play::new();
    let prompts: Vec<String> = (0..limits::LEASES_MAX).map(|i| format!("question {i}")).collect();
    prompts.iter().for_each(|prompt| {
        play.lead(&asker(prompt));
    });
    assert!(matches!(play.ask(&asker("one more"), Found::Missing).0, Verdict::Busy { .. }));
    assert_eq!(play.ask(&asker("one more"), Found::Stale).0, Verdict::Stale);
    let first = asker(&prompts[0]);
    for number in 0..limits::WAITERS_MAX as u64 {
        play.wait(&first, number);
    }
    assert!(matches!(play.ask(&first, Found::Missing).0, Verdict::Busy { .. }), "no room to wait");
    play.now += LEASE_MS + 1;
    play.lead(&asker("one more"));
    let [leases, waiters, ..] = play.flights.counts();
    assert_eq!((leases, waiters), (2, limits::WAITERS_MAX), "the one waited for, and the new one");
}

#[test]
fn epochs_tell_what_changed_since_a_lease() {
    let mut epochs = Epochs::default();
    let tags = || [&b"a"[..], b"b"].into_iter();
    assert!(!epochs.changed_since(Seq(1), b"eu", tags()));
    epochs.raise(Extent::Tag(b"b"), Severity::Gone, Seq(10));
    assert!(
        epochs.changed_since(Seq(10), b"eu", tags()),
        "granted before it, nothing stored since"
    );
    assert!(!epochs.changed_since(Seq(11), b"eu", tags()));
    assert!(!epochs.changed_since(Seq(10), b"eu", [].into_iter()));
    epochs.raise(Extent::Scope(b"eu"), Severity::Stale, Seq(20));
    assert!(epochs.changed_since(Seq(20), b"eu", [].into_iter()), "softly too");
    assert!(!epochs.changed_since(Seq(20), b"us", [].into_iter()));
    epochs.raise(Extent::All, Severity::Gone, Seq(30));
    assert!(epochs.changed_since(Seq(30), b"us", [].into_iter()));
}

#[test]
fn an_entry_is_fresh_then_stale_then_due() {
    let settings = Settings { ttl_ms: 10_000, grace_s: 5, ..Settings::default() };
    let stored = UnixMs(1_000_000);
    let expire_at = settings.deadline(settings.fresh_until(stored, 0));
    assert_eq!(expire_at, UnixMs(1_015_000));
    let entry = |grace_s| {
        Entry::new(&EntryFields {
            uid: ContainerUid(1),
            seq: Seq(1),
            created: stored,
            quant: Quant::None,
            dim: 0,
            vector: b"",
            scope: b"",
            context: b"",
            prompt: b"hi",
            response: b"there",
            name: b"",
            tags: &[],
            meta: b"",
            tokens: 0,
            cost_nano_usd: 0,
            latency_ms: 0,
            grace_s,
            is_embedding: false,
        })
    };
    let graced = entry(5);
    let fresh_until = graced.view().fresh_until(expire_at);
    assert_eq!(fresh_until, UnixMs(1_010_000));
    assert!(!fresh_until.is_past(UnixMs(1_009_999)) && fresh_until.is_past(UnixMs(1_010_000)));
    assert_eq!(entry(0).view().fresh_until(expire_at), expire_at);
    assert_eq!(graced.view().fresh_until(UnixMs::NEVER), UnixMs::NEVER);
    // A deadline moved by hand to before the grace is over leaves it stale, never fresh for ever.
    assert!(graced.view().fresh_until(UnixMs(1_000)).is_past(UnixMs(2_000)));
}

#[test]
fn early_refreshes_come_as_often_as_the_formula_says() {
    let mut state = 7u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    for (left_ms, beta, expected) in
        [(1_000, 1.0, 0.368), (5_000, 1.0, 0.0067), (1_000, 2.0, 0.607)]
    {
        let draws = 200_000;
        let early = (0..draws).filter(|_| refreshes_early(left_ms, 1_000, beta, next())).count();
        let share = early as f64 / f64::from(draws);
        assert!((share - expected).abs() < 0.004, "{left_ms} {beta}: {share}");
    }
    assert!(refreshes_early(0, 1_000, 1.0, 3), "at its deadline, always");
    assert!(!refreshes_early(1, 0, 1.0, 3), "what took no time is not made early");
}

#[test]
fn a_lease_keeps_no_long_question_and_takes_no_more_room_than_there_is() {
    let mut play = Play::new();
    let long: Vec<String> = (0..100).map(|n| format!("{n} {}", "x".repeat(100_000))).collect();
    for prompt in &long {
        play.lead(&asker(prompt));
    }
    let near = query(1.0, 0.0);
    play.lead(&asker(&format!("near {}", long[0])).near(&near));
    let [leases, _, bytes] = play.flights.held();
    assert_eq!(leases, 101);
    assert!(bytes < 101 * 1_024, "{bytes} bytes for 101 prompts of 100 kB");
    play.room = Room::Bytes(100);
    assert!(matches!(play.ask(&asker("one more"), Found::Missing).0, Verdict::Busy { .. }));
    play.room = Room::OutOfMemory;
    assert_eq!(play.ask(&asker("one more"), Found::Missing).0, Verdict::OutOfMemory);
    assert_eq!(
        play.ask(&asker("one more"), Found::Stale).0,
        Verdict::Stale,
        "what is there is served"
    );
    assert_eq!(play.ask(&asker("one more"), Found::Fresh { early: true }).0, Verdict::Hit);
    // Nothing is left of those that ended.
    for prompt in &long {
        play.flights.stored(asker(prompt).id(), None);
    }
    assert_eq!(play.flights.held()[0], 1);
    play.flights.end();
    assert_eq!(play.flights.held(), [0; 3]);
}

#[test]
fn failures_take_room_and_give_it_back() {
    let (mut play, hi) = (Play::new(), asker("hi"));
    let token = play.lead(&hi);
    play.flights.fail(token, 100, &[b'x'; 1_000], NO_BREAKER, MonotonicMs(play.now)).unwrap();
    let [leases, _, bytes] = play.flights.held();
    assert!(leases == 0 && bytes > 1_000, "{leases} {bytes}");
    play.flights.tend(MonotonicMs(play.now + 100), 10);
    assert_eq!(play.flights.held(), [0; 3]);
}
