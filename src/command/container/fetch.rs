//! `LLMCACHE.FETCH`, `EMBCACHE.FETCH`: return the answer, or a lease to generate it, or say that another client does.
//!
//! When a client that waited is woken, the question is asked again from its arguments, as if it had
//! just come, so that what is answered is what is stored then.

use super::fetch_request::{FetchRequest, ParseFetch};
use super::hit_reply::{self, Served};
use super::note::Note;
use crate::command::container::streams::stream_of;
use crate::command::container::texts::{Meaning, meaning, model_for};
use crate::command::parse::ArgReader;
use crate::config;
use crate::ffi::{
    Access, Arguments, BlockedId, CommandArgs, Ctx, Handler, Key, RString, Reply, Waiter, Wake,
    WritePermit, block_client, wait_on,
};
use crate::keyspace::{
    Again, OpenedEntry, Presence, Searches, Take, is_running_again, redirection, room_for_lease,
    wake, watch_leases, with_flights, with_known_flights,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{
    Ask, FetchOutcome, Found, Halt, LeaseToken, LookupReport, Outlet, Verdict, WaiterId,
    refreshes_early,
};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{ContainerUid, EntryId, UnixMs};

/// Fetches what `parse` reads from the arguments.
pub fn fetch(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    parse: ParseFetch,
    again: Handler,
) -> Result<()> {
    let mut request = parse(ArgReader::new(args.options()))?;
    if request.wanted.reopen(ctx, args)?.is_none() {
        // What is refused makes no container.
        if request.via {
            return Err(no_loader());
        }
        if ctx.state().is_out_of_memory() {
            return Err(Error::out_of_memory());
        }
    }
    let cache = request.wanted.container(ctx, args)?;
    if request.via {
        let stream = stream_of(ctx, &cache, Outlet::Loader)?.ok_or_else(no_loader)?;
        // One that is on its way would be made a second time here.
        let presence = Presence::of(ctx, args.name());
        presence.found(Key::open(ctx, &RString::new(&stream), Access::Probe))?;
    }
    let name = args.name();
    let asker = Asker::Command(args.permit());
    if !embed(ctx, &cache, &mut request, parse, again)? {
        return Ok(());
    }
    let told = Asking { ctx, name, cache: &cache, request: &request, asker }.ask()?;
    let Told::Wait(flight) = told else { return Ok(()) };
    let uid = cache.with(|cache| cache.uid());
    block(ctx, request.wait_ms, FetchWaiter { parse, uid, flight, id: WaiterId(0) });
    Ok(())
}

/// Has the text embedded where that is needed to decide: its own words are not stored, and nobody makes the answer to
/// them. False where the command is to end and goes on when the vector is there.
fn embed(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    request: &mut FetchRequest<'_>,
    parse: ParseFetch,
    again: Handler,
) -> Result<bool> {
    let wanted = &request.wanted;
    let Some(text) = wanted.text() else { return Ok(true) };
    let Some(model) = model_for(cache) else { return Ok(true) };
    let (id, uid, now) = (wanted.id(cache), cache.with(|cache| cache.uid()), UnixMs(ctx.now_ms()));
    let wait_ms = request.wait_ms;
    let joins = move |ctx: Ctx<'_>| {
        let now = ctx.monotonic_now();
        wait_ms > 0 && with_known_flights(uid, |flights| flights.is_led(id, now))
    };
    if !is_running_again() {
        let stored = wanted.look_up(ctx, cache, &Searches::inline(), now);
        let is_stored = stored.is_ok_and(|report| !report.hits.is_empty());
        if is_stored || (joins(ctx) && ctx.state().may_block()) {
            return Ok(true);
        }
    }
    // Of many who ask at once the first leads, and the others wait for its answer.
    let take: Take = Box::new(move |ctx, client| {
        let id_of_waiter = WaiterId(client.0);
        let waiter = FetchWaiter { parse, uid, flight: id, id: id_of_waiter };
        let taken = joins(ctx) && wait_on(ctx, client, wait_ms, Box::new(waiter));
        if taken {
            with_flights(uid, |flights| flights.wait(id, id_of_waiter));
        }
        taken
    });
    match meaning(ctx, Some(&model), text, Role::Query, Again::Takes(again, take))? {
        Meaning::Later => return Ok(false),
        Meaning::Vector(meant) => request.wanted.set_meaning(meant),
        Meaning::None(_) => {}
    }
    Ok(true)
}

fn no_loader() -> Error {
    Error::err("VIA needs a loader: CONFIG SET loader <stream>")
}

fn block(ctx: Ctx<'_>, wait_ms: u64, waiter: FetchWaiter) {
    let (uid, flight) = (waiter.uid, waiter.flight);
    let BlockedId(id) = block_client(ctx, wait_ms, |id| {
        let BlockedId(number) = id;
        Box::new(FetchWaiter { id: WaiterId(number), ..waiter })
    });
    with_flights(uid, |flights| flights.wait(flight, WaiterId(id)));
}

/// A client that waits for an answer.
struct FetchWaiter {
    parse: ParseFetch,
    uid: ContainerUid,
    flight: EntryId,
    id: WaiterId,
}

impl FetchWaiter {
    fn answer(&self, ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<()> {
        if let Some(elsewhere) = redirection(ctx, args.name()) {
            return Err(elsewhere);
        }
        let request = (self.parse)(ArgReader::new(args.options()))?;
        let cache = request.wanted.reopen(ctx, args)?;
        let cache = cache.filter(|cache| cache.with(|cache| cache.uid()) == self.uid);
        let cache = cache.ok_or_else(|| {
            Error::new(ErrorWord::NoCache, "the cache was removed while the client waited")
        })?;
        let (name, asker) = (args.name(), Asker::Waiter(self.id));
        Asking { ctx, name, cache: &cache, request: &request, asker }.ask()?;
        Ok(())
    }

    fn leave(&self, ctx: Ctx<'_>) {
        let heir = with_known_flights(self.uid, |flights| flights.leave(self.flight, self.id));
        wake(ctx, heir);
    }
}

impl Waiter for FetchWaiter {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, wake: Wake) {
        // One whose time is over looks again too: it must not miss an answer stored that very moment.
        if wake == Wake::TimedOut {
            self.leave(ctx);
        }
        if let Err(error) = self.answer(ctx, args) {
            Reply::new(ctx).error(&error.to_string());
        }
        self.leave(ctx);
    }

    fn gone(&mut self, ctx: Ctx<'_>) {
        self.leave(ctx);
    }
}

/// Who asks.
#[derive(Clone, Copy)]
enum Asker<'c> {
    /// A command that just came.
    Command(WritePermit<'c>),
    /// A client that has waited.
    Waiter(WaiterId),
}

impl Asker<'_> {
    fn waiter(self) -> Option<WaiterId> {
        match self {
            Self::Command(_) => None,
            Self::Waiter(id) => Some(id),
        }
    }
}

/// A question that is being answered.
struct Asking<'c, 'r, 'a> {
    ctx: Ctx<'c>,
    name: &'r [u8],
    cache: &'r SharedCache,
    request: &'r FetchRequest<'a>,
    asker: Asker<'c>,
}

/// What was done.
enum Told {
    /// The client has its reply.
    Replied,
    /// It is to wait for this flight.
    Wait(EntryId),
}

impl<'c> Asking<'c, '_, '_> {
    fn ask(&self) -> Result<Told> {
        let (now, wanted) = (UnixMs(self.ctx.now_ms()), &self.request.wanted);
        // Who leads is decided by what is there at the moment of asking, so the search is done in it.
        let report = match wanted.look_up(self.ctx, self.cache, &Searches::inline(), now) {
            Ok(report) => report,
            Err(Halt::Refused(error)) => return Err(error),
            Err(Halt::Elsewhere) => return Err(Error::err("a search that may not wait went on")),
        };
        let mut served = hit_reply::judge(self.cache, &report, now);
        let found = self.found(&report, served.first(), now);
        let token = LeaseToken(self.ctx.random());
        let uid = self.cache.with(|cache| cache.uid());
        let verdict = self.with_ask(&report, token, |ask| {
            with_flights(uid, |flights| flights.decide(ask, found))
        });
        if verdict == Verdict::OutOfMemory {
            return Err(Error::out_of_memory());
        }
        if verdict == Verdict::Lead {
            watch_leases(self.ctx);
            if let Asker::Command(permit) = self.asker
                && self.request.via
                && report.hits.is_empty()
            {
                return Ok(self.load(permit, token, &report, now));
            }
        }
        if let Verdict::Wait(flight) = verdict {
            return Ok(Told::Wait(flight));
        }
        // Who is served, and who makes the answer, can hold one against the other.
        let ticket = match verdict {
            Verdict::Hit | Verdict::Lead => wanted.ticket(self.ctx, self.cache, &report),
            _ => None,
        };
        self.note(&report, &mut served, &verdict, now);
        self.reply((&report, ticket.as_deref()), &served, &verdict, token, now);
        Ok(Told::Replied)
    }

    fn found(
        &self,
        report: &LookupReport<OpenedEntry<'_>>,
        served: Option<&Served>,
        now: UnixMs,
    ) -> Found {
        let (Some(hit), Some(served)) = (report.hits.first(), served) else {
            return Found::Missing;
        };
        if served.stale {
            return Found::Stale;
        }
        let view = hit.entry.view();
        let until = view.fresh_until(UnixMs(hit.entry.expire_at_ms()));
        let left_ms = until.0.saturating_sub(now.0);
        let (latency_ms, beta) = (u64::from(view.latency_ms()), self.request.beta);
        let early = until != UnixMs::NEVER
            && beta > 0.0
            && refreshes_early(left_ms, latency_ms, beta, self.ctx.random());
        Found::Fresh { early }
    }

    fn with_ask<R>(
        &self,
        report: &LookupReport<OpenedEntry<'_>>,
        token: LeaseToken,
        work: impl FnOnce(&Ask<'_>) -> R,
    ) -> R {
        let wanted = &self.request.wanted;
        let (scope, context, prompt) = wanted.identity();
        let (rules, seq) =
            self.cache.with(|cache| (cache.settings.rules(wanted.guard()), cache.next_seq()));
        work(&Ask {
            id: wanted.id(self.cache),
            scope,
            context,
            prompt,
            query: wanted.query(),
            unseen: wanted.unseen(),
            threshold: report.threshold,
            rules,
            room: room_for_lease(self.ctx),
            seq,
            now: self.ctx.monotonic_now(),
            lease_ms: self.request.lease_ms,
            token,
            random: self.ctx.random(),
            breaker: config::breaker(),
            waits: self.request.wait_ms > 0 && self.ctx.state().may_block(),
            waiter: self.asker.waiter(),
        })
    }

    /// Gives the lease to whoever reads the loader stream; the client waits like others.
    fn load(
        &self,
        permit: WritePermit<'_>,
        token: LeaseToken,
        report: &LookupReport<OpenedEntry<'_>>,
        now: UnixMs,
    ) -> Told {
        let (scope, context, prompt) = self.request.wanted.identity();
        let stream = self.cache.with(|cache| cache.settings.loader.to_vec());
        let until = (now.0 + self.request.lease_ms).to_string();
        let appended = permit.append_to_stream(
            &stream,
            &[
                ("cache", self.name),
                ("token", token.to_string().as_bytes()),
                ("until", until.as_bytes()),
                ("prompt", prompt),
                ("scope", scope),
                ("context", context),
            ],
        );
        if !appended {
            // Nobody would ever make it: the caller does.
            self.ctx.log_warning("a loader stream cannot be written to; the caller leads");
            self.note(report, &mut [], &Verdict::Lead, now);
            self.reply((report, None), &[], &Verdict::Lead, token, now);
            return Told::Replied;
        }
        if self.request.wait_ms > 0 && self.ctx.state().may_block() {
            return Told::Wait(self.request.wanted.id(self.cache));
        }
        let retry_ms = (self.request.lease_ms / 4).clamp(25, 1_000);
        let busy = Verdict::Busy { retry_ms };
        self.note(report, &mut [], &busy, now);
        self.reply((report, None), &[], &busy, token, now);
        Told::Replied
    }

    fn note(
        &self,
        report: &LookupReport<OpenedEntry<'_>>,
        served: &mut [Served],
        verdict: &Verdict,
        now: UnixMs,
    ) {
        let outcome = match verdict {
            Verdict::Hit if self.asker.waiter().is_some() => Some(FetchOutcome::Coalesced),
            Verdict::Hit | Verdict::Wait(_) | Verdict::OutOfMemory => None,
            Verdict::Stale => Some(FetchOutcome::Stale),
            Verdict::Lead => Some(FetchOutcome::Lead),
            Verdict::Busy { .. } => Some(FetchOutcome::Busy),
            Verdict::Negative { .. } => Some(FetchOutcome::Negative),
            Verdict::Open { .. } => Some(FetchOutcome::Open),
        };
        let (scope, _, prompt) = self.request.wanted.identity();
        let question = Some(prompt);
        Note { ctx: self.ctx, cache: self.cache, scope, question, now }.lookup(report, served);
        if let Some(outcome) = outcome {
            self.cache.with(|cache| cache.stats.note_fetch(scope, outcome));
        }
    }

    fn reply(
        &self,
        (report, ticket): (&LookupReport<OpenedEntry<'_>>, Option<&str>),
        served: &[Served],
        verdict: &Verdict,
        token: LeaseToken,
        now: UnixMs,
    ) {
        let (reply, wanted) = (Reply::new(self.ctx), &self.request.wanted);
        let hit = report.hits.first().zip(served.first());
        let audits = usize::from(ticket.is_some() && hit.is_none());
        let status = |status: &str, more: usize| {
            reply.map(1 + more + usize::from(hit.is_some()));
            reply.text("status").text(status);
        };
        match verdict {
            Verdict::Hit | Verdict::Wait(_) | Verdict::OutOfMemory => status("HIT", 0),
            Verdict::Stale => status("STALE", 0),
            Verdict::Lead => {
                status(if hit.is_some() { "LEAD-STALE" } else { "LEAD" }, 2 + 2 * audits);
                reply.text("token").text(&token.to_string());
                reply.text("lease_ms").count(self.request.lease_ms);
                if let Some(ticket) = ticket.filter(|_| audits > 0) {
                    let near = report.near.as_ref();
                    let candidate = near.and_then(|near| near.candidate.as_ref());
                    hit_reply::write_audit(reply, ticket, candidate);
                }
            }
            Verdict::Busy { retry_ms } => {
                status("BUSY", 1);
                reply.text("retry_ms").count(*retry_ms);
            }
            Verdict::Negative { text, retry_ms } => {
                status("NEG", 2);
                reply.text("error").bytes(text);
                reply.text("retry_ms").count(*retry_ms);
            }
            Verdict::Open { retry_ms } => {
                status("OPEN", 1);
                reply.text("retry_ms").count(*retry_ms);
            }
        }
        if let Some((hit, served)) = hit {
            wanted.write_hit(reply, hit, (*served, now), ticket);
        }
    }
}
