//! `LLMCACHE.GETSEM`: returns the answer to a question asked before, in the same words or in others.

use super::audit::ticket_for;
use crate::command::container::create::{ef, guard_level};
use crate::command::container::hit_reply::{self, Field, Served};
use crate::command::container::note::Note;
use crate::command::container::store::check_vector;
use crate::command::container::texts::{Meaning, meaning, model_for};
use crate::command::container::told::{self, Beside, WriteHit};
use crate::command::parse::{
    ArgReader, OptionWord, flag_once, is_vector_word, parse_filter, set_once, skip_vector, vector,
};
use crate::config;
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{
    Again, CommandKeyspace, Meant, OpenedEntry, Presence, Searches, answer_room, answer_searching,
    find_container, is_running_again,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::guard::Unseen;
use llmcache_core::cache::guard::{GuardLevel, stands_alone};
use llmcache_core::cache::{Halt, Kind, Looked, LookupReport, LookupRequest, MissReason, look_up};
use llmcache_core::embed::{Refusal, Role};
use llmcache_core::error::{Error, Result};
use llmcache_core::filter::Filter;
use llmcache_core::ids::UnixMs;
use llmcache_core::index::SearchMode;
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// What is asked.
#[derive(Debug, Default)]
pub(in crate::command) struct Question<'a> {
    pub(super) prompt: Option<&'a [u8]>,
    pub(super) query: Option<Query>,
    /// What that vector does not show of the prompt, where it was made of the prompt here.
    pub(super) unseen: Option<Unseen>,
    /// How many tokens of the prompt were embedded, and the microseconds that took.
    embedded: Option<(usize, u64)>,
    scope: Option<&'a [u8]>,
    context: Option<&'a [u8]>,
    threshold: Option<f64>,
    pub(super) count: Option<usize>,
    ef: Option<usize>,
    guard: Option<GuardLevel>,
    filter: Option<Filter>,
    max_age_ms: Option<u64>,
    fields: Option<Vec<Field>>,
    explain: bool,
    /// By its own words alone.
    pub(super) exact: bool,
    /// Why the prompt was not embedded.
    pub(super) refusal: Option<Refusal>,
    unless_alone: bool,
    /// Whether the caller can tell right from wrong.
    pub(super) audit: bool,
    /// Whether the prompt stands alone, so that the context does not matter to it.
    pub(super) alone: bool,
}

/// The error of UNLESS-ALONE where there is no context to leave out.
pub(super) fn unless_alone_without_context() -> Error {
    Error::err("syntax error: UNLESS-ALONE goes with CONTEXT")
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_searching(ctx, args, answer)
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, searches: &Searches) -> Result<()> {
    let known = searches.take_query();
    let mut question = Question::parse(ArgReader::new(args.options()), known)?;
    if question.prompt.is_none() && question.query.is_none() {
        return Err(Error::err("syntax error: PROMPT or a vector is needed"));
    }
    let cache = find_container(ctx, &args.key(), Kind::Answers)?;
    if let (Some(cache), Some(query)) = (&cache, &question.query) {
        check_vector(cache, query, args.name())?;
    }
    let asking = Asking { ctx, name: args.name(), cache: cache.as_ref(), searches };
    match asking.embed(&mut question, Again::Reads(answer, args.handles()))? {
        Prepared::Answered(found) => {
            asking.reply(&question, found, true);
            return Ok(());
        }
        Prepared::Later => return Ok(()),
        Prepared::Ready => {}
    }
    match asking.look_up(&question) {
        Ok(found) => {
            if question.count.is_some_and(|count| count > 1) {
                asking.check_room(&question, 0, [&found])?;
            }
            asking.reply(&question, found, true);
        }
        Err(Halt::Elsewhere) => {
            // What was embedded is at hand in another way.
            searches.keep_query(question.query.filter(|_| question.embedded.is_none()));
        }
        Err(Halt::Refused(error)) => return Err(error),
    }
    Ok(())
}

/// Where questions are asked.
pub(super) struct Asking<'c, 'r> {
    pub(super) ctx: Ctx<'c>,
    /// The key of the cache.
    pub(super) name: &'r [u8],
    /// Absent where there is no such cache.
    pub(super) cache: Option<&'r SharedCache>,
    pub(super) searches: &'r Searches,
}

/// What a question found, and when; nothing where there is no cache.
pub(super) type Found<'c> = Option<(LookupReport<OpenedEntry<'c>>, UnixMs)>;

/// What came of a question before it is searched for.
pub(super) enum Prepared<'c> {
    /// Its own words were stored: nothing is to be embedded.
    Answered(Found<'c>),
    /// Its prompt is being embedded.
    Later,
    /// It has the vector that it is going to have.
    Ready,
}

impl<'c> Asking<'c, '_> {
    /// Has a prompt without a vector embedded, where a model does so for the cache and the prompt was not stored
    /// word for word.
    pub(super) fn embed(
        &self,
        question: &mut Question<'_>,
        again: Again<'_>,
    ) -> Result<Prepared<'c>> {
        let (Some(cache), Some(prompt)) = (self.cache, question.prompt) else {
            return Ok(Prepared::Ready);
        };
        if question.query.is_some() || question.exact {
            return Ok(Prepared::Ready);
        }
        let is_enough = question.count.unwrap_or(1) == 1 && !question.explain;
        if is_enough
            && !is_running_again()
            && let Some(found) = self.stored(question)
        {
            return Ok(Prepared::Answered(found));
        }
        match meaning(self.ctx, model_for(cache).as_ref(), prompt, Role::Query, again)? {
            Meaning::Vector(meant) => question.set_meaning(meant),
            Meaning::Later => return Ok(Prepared::Later),
            Meaning::None(refusal) => question.refusal = refusal,
        }
        Ok(Prepared::Ready)
    }

    /// What is found without a search, where that is enough.
    pub(super) fn stored(&self, question: &Question<'_>) -> Option<Found<'c>> {
        let found = self.look_up(question).ok()?;
        found.as_ref().is_some_and(|(report, _)| !report.hits.is_empty()).then_some(found)
    }

    /// Looks up. The dimension was checked.
    pub(super) fn look_up(&self, question: &Question<'_>) -> Looked<Found<'c>> {
        let Some(cache) = self.cache else { return Ok(None) };
        let now = UnixMs(self.ctx.now_ms());
        let report = question.look_up(self.ctx, cache, self.searches, now)?;
        Ok(Some((report, now)))
    }

    /// Refuses what would make too large a reply, to which so many bytes were written; returns the bytes it adds.
    pub(super) fn check_room<'f>(
        &self,
        question: &Question<'_>,
        before: u64,
        found: impl IntoIterator<Item = &'f Found<'c>>,
    ) -> Result<u64>
    where
        'c: 'f,
    {
        let reports = found.into_iter().flatten();
        let of_report = |report: &'f LookupReport<OpenedEntry<'c>>| {
            let candidate = report.near.as_ref().and_then(|near| near.candidate.as_ref());
            report.hits.iter().chain(candidate.filter(|_| question.audit))
        };
        let hits = reports.flat_map(|(report, _)| of_report(report));
        let mut room = answer_room(self.ctx)?;
        if before > 0 {
            room.one(before)?;
        }
        let mut added = 0;
        let bytes = hits.map(|hit| hit_reply::bytes_of(&hit.entry.view(), question.fields()));
        room.all(bytes.inspect(|bytes| added += bytes))?;
        Ok(added)
    }

    /// Counts what was found and replies; without a cache as for a miss. A question that is `alone` may be answered part
    /// by part.
    pub(super) fn reply(&self, question: &Question<'_>, found: Found<'c>, alone: bool) {
        let (ctx, reply) = (self.ctx, Reply::new(self.ctx));
        let (Some(cache), Some((report, now))) = (self.cache, found) else {
            return question.reply_no_cache(reply, self.reason_of("no-cache", question));
        };
        let mut served = hit_reply::judge(cache, &report, now);
        let scope = question.identity().0;
        let ticket = if question.audit { ticket_for(ctx, cache, &report) } else { None };
        let note = Note { ctx, cache, scope, question: question.prompt, now };
        note.lookup(&report, &mut served);
        let reason = report.reason.map_or("hit", MissReason::as_str);
        let reason = if report.hits.is_empty() {
            let reason = question.refusal.map_or(reason, Refusal::as_str);
            self.reason_of(reason, question)
        } else {
            reason
        };
        if alone && question.count.is_some() && !question.explain {
            let (name, fields, needs_all) = (self.name, question.fields(), false);
            let (report, served) = (&report, &served[..]);
            let write: WriteHit = |reply, hit, fields, _, served, now| {
                hit_reply::write(reply, hit, fields, served, now)
            };
            let answer =
                told::Answer { name, cache, report, served, fields, now, needs_all, write };
            let beside = report.hits.iter().map(|_| Beside::default()).collect();
            return answer.give(ctx, self.searches, beside);
        }
        question.reply(reply, &report, reason, &served, ticket.as_deref(), now);
    }

    /// Why nothing was found, where an explanation is asked for: what is on its way to another server, or from
    /// there, comes before any reason that follows from what is here.
    fn reason_of(&self, reason: &'static str, question: &Question<'_>) -> &'static str {
        let whole = !question.explain || Presence::of(self.ctx, self.name).is_whole();
        if whole { reason } else { "moving" }
    }
}

impl<'a> Question<'a> {
    /// Looks up. The dimension was checked.
    pub(super) fn look_up<'c>(
        &self,
        ctx: Ctx<'c>,
        cache: &SharedCache,
        searches: &Searches,
        now: UnixMs,
    ) -> Looked<LookupReport<OpenedEntry<'c>>> {
        let (scope, context, _) = self.identity();
        let request = LookupRequest {
            scope,
            context,
            prompt: self.prompt,
            query: self.query.as_ref(),
            unseen: self.unseen.as_ref(),
            threshold: self.threshold,
            count: self.count.unwrap_or(1),
            ef: self.ef,
            guard: self.guard(),
            filter: self.filter.as_ref(),
            max_age_ms: self.max_age_ms,
            explain: self.explain,
            counts_refused: true,
            chooses: false,
            now,
        };
        look_up(&CommandKeyspace { ctx, cache, searches }, &request)
    }

    /// Scope, context and prompt, empty where they were not given.
    pub(super) fn identity(&self) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let text = Option::unwrap_or_default;
        let context = self.context.filter(|_| !self.alone);
        (text(self.scope), text(context), text(self.prompt))
    }

    /// Takes the vector that was made of the prompt.
    pub(super) fn set_meaning(&mut self, Meant { query, unseen, tokens, us }: Meant) {
        (self.query, self.unseen, self.embedded) = (Some(query), Some(unseen), Some((tokens, us)));
    }

    /// How strictly an answer by meaning is judged, where that is stricter than the cache's own level.
    pub(super) fn guard(&self) -> GuardLevel {
        self.guard.unwrap_or(GuardLevel::Off)
    }

    /// Reads what is left of the arguments, but their vector where that is known.
    pub(super) fn parse(mut args: ArgReader<'a>, mut known: Option<Query>) -> Result<Self> {
        let mut question = Self::default();
        while let Some(word) = args.option() {
            if is_vector_word(&word) {
                let query = match known.take() {
                    Some(query) => skip_vector(&word, &mut args).map(|()| query),
                    None => vector(&word, &mut args),
                };
                set_once(&mut question.query, query?, "the vector")?;
            } else {
                question.read(&word, &mut args)?;
            }
        }
        question.settle_context()?;
        Ok(question)
    }

    /// Decides whether the context matters to the prompt; to be called when both are known.
    pub(super) fn settle_context(&mut self) -> Result<()> {
        if self.unless_alone && self.context.is_none() {
            return Err(unless_alone_without_context());
        }
        if self.audit && (self.count.is_some() || self.explain) {
            return Err(Error::err("syntax error: AUDIT goes without COUNT and EXPLAIN"));
        }
        self.alone = self.unless_alone && self.prompt.is_some_and(stands_alone);
        Ok(())
    }

    /// Reads the option that `word` opened.
    pub(super) fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<()> {
        let name = word.as_str();
        match name {
            "PROMPT" => {
                set_once(&mut self.prompt, args.text(name, limits::PROMPT_MAX_BYTES)?, name)
            }
            "SCOPE" => set_once(&mut self.scope, args.text(name, limits::SCOPE_MAX_BYTES)?, name),
            "CONTEXT" => {
                set_once(&mut self.context, args.text(name, limits::CONTEXT_MAX_BYTES)?, name)
            }
            "THRESHOLD" => set_once(&mut self.threshold, args.similarity(name)?, name),
            "COUNT" => {
                let count = args.integer(name, 1, u64::from(limits::COUNT_MAX))? as usize;
                set_once(&mut self.count, count, name)
            }
            "FILTER" => set_once(&mut self.filter, parse_filter(args)?, name),
            "MAXAGE" => {
                let seconds = args.integer(name, 0, limits::TTL_MAX_MS / 1_000)?;
                set_once(&mut self.max_age_ms, seconds * 1_000, name)
            }
            "EF" => set_once(&mut self.ef, ef(args)? as usize, name),
            "GUARD" => set_once(&mut self.guard, guard_level(args)?, name),
            "RETURN" => {
                let fields = args.list(name, hit_reply::ALL.len())?;
                set_once(&mut self.fields, hit_reply::parse_fields(fields, &hit_reply::ALL)?, name)
            }
            "UNLESS-ALONE" => flag_once(&mut self.unless_alone, name),
            "AUDIT" => flag_once(&mut self.audit, name),
            "EXPLAIN" => flag_once(&mut self.explain, name),
            "EXACT" => flag_once(&mut self.exact, name),
            _ => Err(word.unknown()),
        }
    }

    /// The fields of a hit that are wanted.
    pub(super) fn fields(&self) -> &[Field] {
        self.fields.as_deref().unwrap_or(&hit_reply::ALL)
    }

    fn reply_no_cache(&self, reply: Reply<'_>, reason: &str) {
        if self.explain {
            let threshold =
                self.threshold.unwrap_or(config::default_settings(Kind::Answers).threshold);
            let report = LookupReport::nothing(threshold);
            self.reply_explained(reply, reason, "none", &report, &[], UnixMs::NEVER);
        } else if self.count.is_some() {
            reply.array(0);
        } else {
            reply.null();
        }
    }

    fn reply(
        &self,
        reply: Reply<'_>,
        report: &LookupReport<OpenedEntry<'_>>,
        reason: &str,
        served: &[Served],
        ticket: Option<&str>,
        now: UnixMs,
    ) {
        if self.explain {
            let index = report.mode.map_or("none", SearchMode::as_str);
            self.reply_explained(reply, reason, index, report, served, now);
        } else if self.count.is_some() {
            self.reply_hits(reply, report, served, now);
        } else {
            match report.hits.first() {
                Some(hit) => {
                    hit_reply::write_audited(reply, hit, self.fields(), served[0], now, ticket);
                }
                None => match ticket {
                    Some(ticket) => {
                        reply.map(3).text("status").text("miss");
                        let near = report.near.as_ref();
                        let candidate = near.and_then(|near| near.candidate.as_ref());
                        hit_reply::write_audit(reply, ticket, candidate);
                    }
                    None => {
                        reply.null();
                    }
                },
            }
        }
    }

    fn reply_hits(
        &self,
        reply: Reply<'_>,
        report: &LookupReport<OpenedEntry<'_>>,
        served: &[Served],
        now: UnixMs,
    ) {
        reply.array(report.hits.len());
        for (hit, &served) in report.hits.iter().zip(served) {
            hit_reply::write(reply, hit, self.fields(), served, now);
        }
    }

    fn reply_explained(
        &self,
        reply: Reply<'_>,
        reason: &str,
        index: &str,
        report: &LookupReport<OpenedEntry<'_>>,
        served: &[Served],
        now: UnixMs,
    ) {
        let status = if report.hits.is_empty() { "miss" } else { "hit" };
        reply.map(17);
        reply.text("status").text(status);
        reply.text("reason").text(reason);
        reply.text("threshold").double(report.threshold);
        reply.text("tier");
        match report.hits.first() {
            Some(hit) => reply.text(hit.tier.as_str()),
            None => reply.null(),
        };
        reply.text("nearest");
        match &report.nearest {
            Some(nearest) => {
                reply.map(3).text("id").bytes(&nearest.id);
                reply.text("similarity").double(nearest.similarity);
                reply.text("prompt").bytes(&nearest.prompt)
            }
            None => reply.null(),
        };
        reply.text("guard");
        match &report.guard {
            Some(finding) => reply.text(finding.refusal.as_str()),
            None => reply.null(),
        };
        reply.text("guard_words");
        match &report.guard {
            Some(finding) => reply.array(2).text(&finding.asked).text(&finding.stored),
            None => reply.null(),
        };
        reply.text("alone").count(u64::from(self.alone));
        reply.text("candidates").count(report.candidates as u64);
        reply.text("scanned").count(report.scanned as u64);
        reply.text("filtered").count(report.filtered as u64);
        reply.text("opened").count(report.opened as u64);
        reply.text("index").text(index);
        reply.text("filter_from_entry").count(report.judged_by_entry as u64);
        for (name, value) in [
            ("tokens", self.embedded.map(|of| of.0 as u64)),
            ("embed_us", self.embedded.map(|of| of.1)),
        ] {
            reply.text(name);
            match value {
                Some(value) => reply.count(value),
                None => reply.null(),
            };
        }
        reply.text("hits");
        self.reply_hits(reply, report, served, now);
    }
}
