//! Answers that are being generated (single flight): who generates each, who waits for it, and what others get
//! meanwhile.
//!
//! Owns: leases, the order of those who wait, failures that are remembered for a while. All of it is
//! process memory: after a failover the worst is an answer made once more. A question shares the lease
//! of a pending one that is near to it by the asker's own threshold, guards agreeing. Main thread only;
//! time and random words are passed in, so a timeline can be played without a server.

mod ask;
mod pending;
mod timing;

use crate::cache::breaker::{BreakerSettings, Breakers};
use crate::cache::guard::Question;
use crate::ids::{EntryId, MonotonicMs, PartitionKey, Seq};
use crate::limits;
pub use ask::{Ask, Found, Lapse, LeaseToken, Room, Verdict, WaiterId};
use hashbrown::HashMap;
use pending::{Due, Flight, Holder, Negative, similarity};
use std::cell::LazyCell;
use std::collections::BTreeSet;
pub use timing::refreshes_early;
use timing::retry_ms;

/// The flights of a container.
#[derive(Debug, Default)]
pub struct Flights {
    by_id: HashMap<EntryId, Flight>,
    by_token: HashMap<LeaseToken, EntryId>,
    by_partition: HashMap<PartitionKey, Vec<EntryId>>,
    negatives: HashMap<EntryId, Negative>,
    breakers: Breakers,
    /// What comes due when: each lease, failure and scope once.
    agenda: BTreeSet<(MonotonicMs, Due)>,
    /// How many wait for all flights together.
    waiting: usize,
    /// Memory of flights and failures, roughly.
    bytes: u64,
    /// How often entries were picked out and invalidated, by a radius, a filter or their age.
    picks: u64,
}

impl Flights {
    /// Whether nothing is pending or remembered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.negatives.is_empty() && self.breakers.is_empty()
    }

    /// Leases, waiters, failures remembered, scopes whose breaker is open.
    pub fn counts(&self) -> [usize; 4] {
        [self.by_token.len(), self.waiting, self.negatives.len(), self.breakers.open_count()]
    }

    /// Leases, waiters, and memory in bytes; costs nothing to ask.
    pub fn held(&self) -> [u64; 3] {
        [self.by_token.len() as u64, self.waiting as u64, self.bytes]
    }

    /// When something is to be looked at, by `tend`.
    pub fn next_due(&self) -> Option<MonotonicMs> {
        self.agenda.first().map(|&(at, _)| at)
    }

    /// Looks at what is due, at most `most` things: leases that lapsed pass on to the oldest who waits, and are
    /// forgotten a long while later where nobody did; failures are remembered no longer. Answers who is to be
    /// woken.
    pub fn tend(&mut self, now: MonotonicMs, most: usize) -> Vec<WaiterId> {
        let mut woken = Vec::new();
        for _ in 0..most {
            let Some(&(at, due)) = self.agenda.first().filter(|(at, _)| at.is_past(now)) else {
                break;
            };
            self.agenda.remove(&(at, due));
            match due {
                Due::Lease(token) => match self.lapse(token, now) {
                    Lapse::Heir(heir) => woken.push(heir),
                    Lapse::Unwanted => {
                        let forgotten_at = MonotonicMs(now.0 + limits::LAPSED_LEASE_KEPT_MS);
                        self.note_due(token, (forgotten_at, Due::Lapsed(token)));
                    }
                    Lapse::Until(until) => self.note_due(token, (until, due)),
                    Lapse::Ended => {}
                },
                Due::Lapsed(token) => {
                    if let Some(&id) = self.by_token.get(&token)
                        && self.by_id.get(&id).is_some_and(|flight| flight.is_idle(now))
                    {
                        self.remove(id);
                    }
                }
                Due::Failure(id) => self.forget_failure(id),
                Due::Breaker(scope) => {
                    if let Some(later) = self.breakers.forget(scope, now) {
                        self.agenda.insert((later, due));
                    }
                }
            }
        }
        woken
    }

    /// A holder is none any more.
    fn dismiss(&mut self, holder: &Holder) {
        self.by_token.remove(&holder.token);
        self.agenda.remove(&holder.due);
    }

    /// Has a holder looked at when its time comes.
    fn note_due(&mut self, token: LeaseToken, due: (MonotonicMs, Due)) {
        let Self { by_id, by_token, agenda, .. } = self;
        let flight = by_token.get(&token).and_then(|id| by_id.get_mut(id));
        if let Some(holder) = flight.and_then(|flight| flight.holder.as_mut()) {
            agenda.remove(&holder.due);
            holder.due = due;
            agenda.insert(due);
        }
    }

    /// Remembers a failure no more.
    fn forget_failure(&mut self, id: EntryId) {
        if let Some(negative) = self.negatives.remove(&id) {
            self.bytes -= negative.bytes();
            self.agenda.remove(&(negative.until, Due::Failure(id)));
        }
    }

    /// Decides what an asker is told, and grants the lease where it is `Lead`.
    pub fn decide(&mut self, ask: &Ask<'_>, found: Found) -> Verdict {
        if found == (Found::Fresh { early: false }) {
            return Verdict::Hit;
        }
        // Whoever has an answer, old as it may be, is never sent away without it.
        let served = match found {
            Found::Fresh { .. } => Some(Verdict::Hit),
            Found::Stale => Some(Verdict::Stale),
            Found::Missing => None,
        };
        if let Some((text, retry_ms)) = self.negative(ask.id, ask.now) {
            return served.unwrap_or(Verdict::Negative { text: text.into(), retry_ms });
        }
        let pending = self.pending(ask);
        if let Some(id) = pending
            && !self.may_take(id, ask)
        {
            return served.unwrap_or_else(|| self.busy_or_wait(id, ask));
        }
        if ask.room == Room::OutOfMemory {
            return served.unwrap_or(Verdict::OutOfMemory);
        }
        if let Err(retry_ms) = self.breakers.admit(ask.partition().scope(), ask.breaker, ask.now) {
            return served.unwrap_or(Verdict::Open { retry_ms });
        }
        if self.grant(pending, ask) {
            Verdict::Lead
        } else {
            let retry_ms = retry_ms(ask.lease_ms, ask.random);
            served.unwrap_or(Verdict::Busy { retry_ms })
        }
    }

    fn busy_or_wait(&self, id: EntryId, ask: &Ask<'_>) -> Verdict {
        let flight = &self.by_id[&id];
        // Whoever was woken once is answered now.
        if ask.waits && ask.waiter.is_none() && flight.waiters.len() < limits::WAITERS_MAX {
            return Verdict::Wait(id);
        }
        let until = flight.holder.as_ref().map_or(0, |holder| holder.until.0);
        Verdict::Busy { retry_ms: retry_ms(until.saturating_sub(ask.now.0), ask.random) }
    }

    /// The flight whose answer will do for this question: its own, or a near one.
    fn pending(&self, ask: &Ask<'_>) -> Option<EntryId> {
        if self.by_id.contains_key(&ask.id) {
            return Some(ask.id);
        }
        let query = ask.query?;
        let others = self.by_partition.get(&ask.partition())?;
        let question = LazyCell::new(|| Question::new(Some(ask.prompt)).with_unseen(ask.unseen));
        let place = LazyCell::new(|| ask.place());
        let near = |id: &&EntryId| {
            let flight = &self.by_id[*id];
            let code = flight.code.as_ref();
            if !code.is_some_and(|code| query.may_reach(&code.codes, code.scale, ask.threshold)) {
                return false;
            }
            let headroom = code.map_or(f64::NAN, |code| similarity(code, query) - ask.threshold);
            flight.place == *place
                && headroom >= 0.0
                && question.refuses(flight.judged(), ask.rules, headroom).is_none()
        };
        others.iter().find(near).copied()
    }

    /// Whether a pending answer has no maker, and the asker may become it.
    fn may_take(&self, id: EntryId, ask: &Ask<'_>) -> bool {
        let flight = &self.by_id[&id];
        let next = flight.heir.is_none() || flight.heir == ask.waiter;
        next && !flight.is_held(ask.now)
    }

    /// Makes the asker the holder, of a pending flight or of a new one; false where there are too many.
    fn grant(&mut self, pending: Option<EntryId>, ask: &Ask<'_>) -> bool {
        let id = match pending {
            Some(id) => id,
            None => {
                if self.by_id.len() >= limits::LEASES_MAX {
                    self.forget_idle(ask.now);
                    if self.by_id.len() >= limits::LEASES_MAX {
                        return false;
                    }
                }
                let flight = Flight::of(ask);
                if !matches!(ask.room, Room::Bytes(room) if flight.bytes() <= room) {
                    return false;
                }
                self.bytes += flight.bytes();
                self.by_id.insert(ask.id, flight);
                self.by_partition.entry(ask.partition()).or_default().push(ask.id);
                ask.id
            }
        };
        let picks = self.picks;
        let until = MonotonicMs(ask.now.0 + ask.lease_ms);
        let (token, since) = (ask.token, ask.seq);
        let due = (until, Due::Lease(token));
        let holder = Holder { token, question: ask.id, until, since, picks, due };
        let Some(flight) = self.by_id.get_mut(&id) else { return false };
        flight.heir = None;
        if let Some(former) = flight.holder.replace(holder) {
            self.dismiss(&former);
        }
        self.by_token.insert(ask.token, id);
        self.agenda.insert(due);
        true
    }

    fn forget_idle(&mut self, now: MonotonicMs) {
        let idle: Vec<EntryId> =
            self.by_id.iter().filter(|(_, f)| f.is_idle(now)).map(|(id, _)| *id).collect();
        for id in idle {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: EntryId) -> Option<Flight> {
        let flight = self.by_id.remove(&id)?;
        self.bytes -= flight.bytes();
        self.waiting -= flight.waiters.len();
        if let Some(holder) = &flight.holder {
            self.dismiss(holder);
        }
        if let Some(others) = self.by_partition.get_mut(&flight.partition) {
            others.retain(|other| *other != id);
            if others.is_empty() {
                self.by_partition.remove(&flight.partition);
            }
        }
        Some(flight)
    }

    /// Whether somebody makes the answer to this very question.
    pub fn is_led(&self, id: EntryId, now: MonotonicMs) -> bool {
        self.by_id
            .get(&id)
            .is_some_and(|flight| flight.is_held(now) && flight.waiters.len() < limits::WAITERS_MAX)
    }

    /// Puts a waiter behind the others of a flight.
    pub fn wait(&mut self, id: EntryId, waiter: WaiterId) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            flight.waiters.push_back(waiter);
            self.waiting += 1;
        }
    }

    /// A waiter is gone, or waits no longer. Answers who is to be woken in its place, if it was to make
    /// the answer.
    pub fn leave(&mut self, id: EntryId, waiter: WaiterId) -> Option<WaiterId> {
        let flight = self.by_id.get_mut(&id)?;
        let before = flight.waiters.len();
        flight.waiters.retain(|other| *other != waiter);
        self.waiting -= before - flight.waiters.len();
        if flight.heir != Some(waiter) {
            return None;
        }
        flight.heir = flight.waiters.pop_front();
        let heir = flight.heir;
        self.waiting -= usize::from(heir.is_some());
        if heir.is_none() {
            self.remove(id);
        }
        heir
    }

    /// The time of a lease is over, as it was when it was granted.
    pub fn lapse(&mut self, token: LeaseToken, now: MonotonicMs) -> Lapse {
        let Some(&id) = self.by_token.get(&token) else { return Lapse::Ended };
        let Some(flight) = self.by_id.get_mut(&id) else { return Lapse::Ended };
        let until = flight.holder.as_ref().map_or(now, |holder| holder.until);
        if !until.is_past(now) {
            return Lapse::Until(until);
        }
        if flight.waiters.is_empty() {
            return Lapse::Unwanted;
        }
        self.vacate(id).map_or(Lapse::Unwanted, Lapse::Heir)
    }

    /// Takes the lease of a flight away; answers who is to be woken to make the answer. Without anybody
    /// who waits the flight is over.
    fn vacate(&mut self, id: EntryId) -> Option<WaiterId> {
        let holder = self.by_id.get_mut(&id)?.holder.take();
        if let Some(holder) = holder {
            self.dismiss(&holder);
        }
        let flight = self.by_id.get_mut(&id)?;
        if flight.heir.is_none() {
            flight.heir = flight.waiters.pop_front();
            self.waiting -= usize::from(flight.heir.is_some());
        }
        let heir = flight.heir;
        if heir.is_none() {
            self.remove(id);
        }
        heir
    }

    /// The entry of a question was removed or invalidated: a lease on it is void.
    pub fn void(&mut self, id: EntryId) -> Option<WaiterId> {
        self.forget_failure(id);
        self.by_id.get(&id)?.holder.as_ref()?;
        self.vacate(id)
    }

    /// Entries are picked out and invalidated by what they say, not by a name: nobody can tell which
    /// answers in the making would have been among them, so all leases are void when these come. Likewise
    /// when the container came from elsewhere: nobody can tell what was picked out there.
    pub fn note_picked(&mut self) {
        self.picks += 1;
    }

    /// The place of the store order at which a lease was granted, if it is good for this question and
    /// nothing was picked out and invalidated since.
    pub fn granted_at(&self, token: LeaseToken, question: EntryId) -> Option<Seq> {
        let flight = self.by_id.get(self.by_token.get(&token)?)?;
        let holder = flight.holder.as_ref()?;
        (holder.question == question && holder.picks == self.picks).then_some(holder.since)
    }

    /// A lease turned out to be void: takes it away; answers who is to be woken to make the answer.
    pub fn lose(&mut self, token: LeaseToken) -> Option<WaiterId> {
        let id = *self.by_token.get(&token)?;
        self.vacate(id)
    }

    /// An answer to a question was stored, by `token`'s holder or by anybody: its flight is over, and all
    /// who wait are to be woken, oldest first.
    pub fn stored(&mut self, question: EntryId, token: Option<LeaseToken>) -> Vec<WaiterId> {
        self.forget_failure(question);
        let by_token = token.and_then(|token| self.by_token.get(&token).copied());
        let Some(flight) = self.remove(by_token.unwrap_or(question)) else { return Vec::new() };
        self.breakers.note_success(flight.partition.scope());
        flight.everybody()
    }

    /// The maker gives up. The failure is remembered for `backoff_ms`; all who wait are to be woken.
    /// `None` when the token is no lease's.
    pub fn fail(
        &mut self,
        token: LeaseToken,
        backoff_ms: u64,
        text: &[u8],
        breaker: BreakerSettings,
        now: MonotonicMs,
    ) -> Option<Vec<WaiterId>> {
        let id = *self.by_token.get(&token)?;
        let flight = self.remove(id)?;
        let scope = flight.partition.scope();
        if let Some(forgotten_at) = self.breakers.note_failure(scope, breaker, now) {
            self.agenda.insert((forgotten_at, Due::Breaker(scope)));
        }
        let question = flight.holder.as_ref().map_or(id, |holder| holder.question);
        if backoff_ms > 0 {
            for id in [id, question] {
                self.remember(id, MonotonicMs(now.0 + backoff_ms), text, now);
            }
        }
        Some(flight.everybody())
    }

    fn remember(&mut self, id: EntryId, until: MonotonicMs, text: &[u8], now: MonotonicMs) {
        self.forget_failure(id);
        // Those whose time is over are gone: they are on the agenda, which is kept as time passes.
        if self.negatives.len() >= limits::NEGATIVES_MAX || until.is_past(now) {
            return;
        }
        let negative = Negative { until, text: text.into() };
        self.bytes += negative.bytes();
        self.negatives.insert(id, negative);
        self.agenda.insert((until, Due::Failure(id)));
    }

    fn negative(&mut self, id: EntryId, now: MonotonicMs) -> Option<(&[u8], u64)> {
        if self.negatives.get(&id)?.until.is_past(now) {
            self.forget_failure(id);
            return None;
        }
        let negative = &self.negatives[&id];
        Some((&negative.text, negative.until.0 - now.0))
    }

    /// Prolongs a lease; false when the token is no lease's.
    pub fn extend(&mut self, token: LeaseToken, until: MonotonicMs) -> bool {
        let id = self.by_token.get(&token);
        let holder = id.and_then(|id| self.by_id.get_mut(id)).and_then(|f| f.holder.as_mut());
        let Some(holder) = holder else { return false };
        holder.until = until;
        self.note_due(token, (until, Due::Lease(token)));
        true
    }

    /// Ends everything; answers all who wait.
    pub fn end(&mut self) -> Vec<WaiterId> {
        let flights = std::mem::take(self).by_id;
        flights.into_values().flat_map(Flight::everybody).collect()
    }
}
