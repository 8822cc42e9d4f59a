//! `LLMCACHE.FETCH`: an answer, or the lease to make it, or the word that somebody does.
//!
//! A client that waits keeps its arguments; when it is woken the question is asked again as if it had
//! just come, so that what is answered is what is stored then.

use super::create::auto_create;
use super::getsem::{Note, Question};
use super::hit_reply::{self, Served};
use super::setsem::check_dim;
use crate::command::parse::{ArgReader, flag_once, is_vector_word, set_once, vector};
use crate::config;
use crate::ffi::{BlockedId, CommandArgs, Ctx, RString, Reply, Waiter, Wake, block_client};
use crate::keyspace::{
    OpenedEntry, open_cache, wake, watch_lease, with_flights, with_known_flights,
};
use crate::keytype::registry::SharedCache;
use llmcache_core::cache::{
    Ask, FetchOutcome, Found, Hit, LeaseToken, LookupReport, Verdict, WaiterId, refreshes_early,
};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{ContainerUid, EntryId, UnixMs};
use llmcache_core::limits;

/// What is asked.
struct FetchRequest<'a> {
    question: Question<'a>,
    lease_ms: u64,
    wait_ms: u64,
    beta: f64,
    via: bool,
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let request = FetchRequest::parse(ArgReader::new(args.options()))?;
    let cache = match open_cache(ctx, &args.key())? {
        Some(cache) => cache,
        None => auto_create(ctx, args.name())?,
    };
    if let Some(query) = &request.question.query {
        check_dim(&cache, query, args.name())?;
    }
    if request.via && cache.with(|cache| cache.settings.loader.is_empty()) {
        return Err(Error::err("VIA needs a loader: CONFIG SET loader <stream>"));
    }
    let name = args.name();
    let told = Asking { ctx, name, cache: &cache, request: &request, waiter: None }.ask();
    let Told::Wait(flight) = told else { return Ok(()) };
    let options = args.options().iter().map(|option| option.to_vec()).collect();
    let uid = cache.with(|cache| cache.uid());
    let waiter = FetchWaiter { name: args.name().to_vec(), options, uid, flight, id: WaiterId(0) };
    block(ctx, request.wait_ms, waiter);
    Ok(())
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
    name: Vec<u8>,
    options: Vec<Vec<u8>>,
    uid: ContainerUid,
    flight: EntryId,
    id: WaiterId,
}

impl FetchWaiter {
    fn answer(&self, ctx: Ctx<'_>) -> Result<()> {
        let options: Vec<&[u8]> = self.options.iter().map(Vec::as_slice).collect();
        let request = FetchRequest::parse(ArgReader::new(&options))?;
        let cache = open_cache(ctx, &RString::new(&self.name))?;
        let cache = cache.filter(|cache| cache.with(|cache| cache.uid()) == self.uid);
        let cache = cache.ok_or_else(|| {
            Error::new(ErrorWord::NoCache, "the cache was removed while the client waited")
        })?;
        let (name, waiter) = (&*self.name, Some(self.id));
        Asking { ctx, name, cache: &cache, request: &request, waiter }.ask();
        Ok(())
    }

    fn leave(&self, ctx: Ctx<'_>) {
        let heir = with_known_flights(self.uid, |flights| flights.leave(self.flight, self.id));
        wake(ctx, heir);
    }
}

impl Waiter for FetchWaiter {
    fn reply(&mut self, ctx: Ctx<'_>, wake: Wake) {
        // One whose time is over looks again too: it must not miss an answer stored that very moment.
        if wake == Wake::TimedOut {
            self.leave(ctx);
        }
        if let Err(error) = self.answer(ctx) {
            Reply::new(ctx).error(&error.to_string());
        }
        self.leave(ctx);
    }

    fn gone(&mut self, ctx: Ctx<'_>) {
        self.leave(ctx);
    }
}

/// A question that is being answered.
struct Asking<'c, 'r, 'a> {
    ctx: Ctx<'c>,
    name: &'r [u8],
    cache: &'r SharedCache,
    request: &'r FetchRequest<'a>,
    /// The client, if it has waited.
    waiter: Option<WaiterId>,
}

/// What was done.
enum Told {
    /// The client has its reply.
    Replied,
    /// It is to wait for this flight.
    Wait(EntryId),
}

impl<'c> Asking<'c, '_, '_> {
    fn ask(&self) -> Told {
        let (now, question) = (UnixMs(self.ctx.now_ms()), &self.request.question);
        let report = question.look_up(self.ctx, self.cache, now);
        let mut served = hit_reply::judge(self.cache, &report, now);
        let found = self.found(&report, served.first(), now);
        let token = LeaseToken(self.ctx.random());
        let uid = self.cache.with(|cache| cache.uid());
        let verdict = self.with_ask(&report, token, now, |ask| {
            with_flights(uid, |flights| flights.decide(ask, found))
        });
        if verdict == Verdict::Lead {
            watch_lease(self.ctx, uid, token, self.request.lease_ms);
            if self.request.via && report.hits.is_empty() && self.waiter.is_none() {
                return self.load(token, &report, now);
            }
        }
        if let Verdict::Wait(flight) = verdict {
            return Told::Wait(flight);
        }
        self.note(&report, &mut served, &verdict, now);
        self.reply(&report, &served, &verdict, token, now);
        Told::Replied
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
        now: UnixMs,
        work: impl FnOnce(&Ask<'_>) -> R,
    ) -> R {
        let question = &self.request.question;
        let (scope, context, prompt) = question.identity();
        let (guard, quant, seq) = self.cache.with(|cache| {
            (cache.settings.guard.max(question.guard()), cache.settings.quant, cache.next_seq())
        });
        work(&Ask {
            id: EntryId::of(scope, context, prompt),
            scope,
            context,
            prompt,
            query: question.query.as_ref(),
            threshold: report.threshold,
            guard,
            quant,
            seq,
            now,
            lease_ms: self.request.lease_ms,
            token,
            random: self.ctx.random(),
            breaker: config::breaker(),
            waits: self.request.wait_ms > 0 && self.ctx.state().may_block(),
            waiter: self.waiter,
        })
    }

    /// Gives the lease to whoever reads the loader stream; the client waits like others.
    fn load(&self, token: LeaseToken, report: &LookupReport<OpenedEntry<'_>>, now: UnixMs) -> Told {
        let (scope, context, prompt) = self.request.question.identity();
        let stream = self.cache.with(|cache| cache.settings.loader.to_vec());
        let until = (now.0 + self.request.lease_ms).to_string();
        let appended = self.ctx.append_to_stream(
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
            self.reply(report, &[], &Verdict::Lead, token, now);
            return Told::Replied;
        }
        if self.request.wait_ms > 0 && self.ctx.state().may_block() {
            return Told::Wait(EntryId::of(scope, context, prompt));
        }
        let retry_ms = (self.request.lease_ms / 4).clamp(25, 1_000);
        let busy = Verdict::Busy { retry_ms };
        self.note(report, &mut [], &busy, now);
        self.reply(report, &[], &busy, token, now);
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
            Verdict::Hit if self.waiter.is_some() => Some(FetchOutcome::Coalesced),
            Verdict::Hit | Verdict::Wait(_) => None,
            Verdict::Stale => Some(FetchOutcome::Stale),
            Verdict::Lead => Some(FetchOutcome::Lead),
            Verdict::Busy { .. } => Some(FetchOutcome::Busy),
            Verdict::Negative { .. } => Some(FetchOutcome::Negative),
            Verdict::Open { .. } => Some(FetchOutcome::Open),
        };
        let scope = self.request.question.identity().0;
        Note { ctx: self.ctx, cache: self.cache, scope, now }.lookup(report, served);
        if let Some(outcome) = outcome {
            self.cache.with(|cache| cache.stats.note_fetch(scope, outcome));
        }
    }

    fn reply(
        &self,
        report: &LookupReport<OpenedEntry<'_>>,
        served: &[Served],
        verdict: &Verdict,
        token: LeaseToken,
        now: UnixMs,
    ) {
        let reply = Reply::new(self.ctx);
        let hit = report.hits.first().zip(served.first());
        let status = |status: &str, more: usize| {
            reply.map(1 + more + usize::from(hit.is_some()));
            reply.text("status").text(status);
        };
        match verdict {
            Verdict::Hit | Verdict::Wait(_) => status("HIT", 0),
            Verdict::Stale => status("STALE", 0),
            Verdict::Lead => {
                status(if hit.is_some() { "LEAD-STALE" } else { "LEAD" }, 2);
                reply.text("token").text(&token.to_string());
                reply.text("lease_ms").count(self.request.lease_ms);
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
            self.reply_hit(reply, hit, *served, now);
        }
    }

    fn reply_hit(&self, reply: Reply<'c>, hit: &Hit<OpenedEntry<'_>>, served: Served, now: UnixMs) {
        reply.text("hit");
        hit_reply::write(reply, hit, self.request.question.fields(), served, now);
    }
}

impl<'a> FetchRequest<'a> {
    fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let mut question = Question::default();
        let (mut lease_ms, mut wait_ms, mut beta, mut via) = (None, None, None, false);
        while let Some(word) = args.option() {
            let name = word.as_str();
            let most = limits::LEASE_MAX_MS;
            match name {
                "LEASE" => set_once(&mut lease_ms, args.integer(name, 1, most)?, name)?,
                "WAIT" => set_once(&mut wait_ms, args.integer(name, 0, most)?, name)?,
                "BETA" => set_once(&mut beta, args.decimal(name, 0.0, limits::BETA_MAX)?, name)?,
                "VIA" => flag_once(&mut via, name)?,
                _ if is_vector_word(&word) => {
                    set_once(&mut question.query, vector(&word, &mut args)?, "the vector")?;
                }
                "COUNT" | "EXPLAIN" => return Err(word.unknown()),
                _ => question.read(&word, &mut args)?,
            }
        }
        if question.prompt.is_none() {
            return Err(Error::err("syntax error: PROMPT is needed"));
        }
        Ok(Self {
            question,
            lease_ms: lease_ms.unwrap_or_else(config::lease_ms),
            wait_ms: wait_ms.unwrap_or_else(config::wait_ms),
            beta: beta.unwrap_or_else(config::beta),
            via,
        })
    }
}
