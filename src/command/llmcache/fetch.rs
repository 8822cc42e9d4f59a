//! `LLMCACHE.FETCH`: what `container::fetch` fetches when an answer is asked for.

use super::audit::ticket_for;
use super::getsem::Question;
use crate::command::container::create::auto_create;
use crate::command::container::fetch::fetch;
use crate::command::container::fetch_request::{FetchRequest, Terms, Wanted};
use crate::command::container::hit_reply::{self, Served};
use crate::command::container::store::check_vector;
use crate::command::parse::{ArgReader, is_vector_word, set_once, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Meant, OpenedEntry, Searches, open_cache};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::guard::Unseen;
use llmcache_core::cache::{Hit, Looked, LookupReport};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::vector::Query;

/// Runs `LLMCACHE.FETCH`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    fetch(ctx, args, parse, run)
}

impl Wanted for Question<'_> {
    fn container(&self, ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
        let cache = match open_cache(ctx, &args.key())? {
            Some(cache) => cache,
            None => auto_create(args.permit(), args.name(), self.query.as_ref().map(Query::dim))?,
        };
        if let Some(query) = &self.query {
            check_vector(&cache, query, args.name())?;
        }
        Ok(cache)
    }

    fn reopen(&self, ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<Option<SharedCache>> {
        open_cache(ctx, &args.key())
    }

    fn id(&self, _cache: &SharedCache) -> EntryId {
        let (scope, context, prompt) = self.identity();
        EntryId::of(scope, context, prompt)
    }

    fn identity(&self) -> (&[u8], &[u8], &[u8]) {
        self.identity()
    }

    fn query(&self) -> Option<&Query> {
        self.query.as_ref()
    }

    fn text(&self) -> Option<&[u8]> {
        if self.query.is_none() && !self.exact { self.prompt } else { None }
    }

    fn set_meaning(&mut self, meant: Meant) {
        self.set_meaning(meant);
    }

    fn unseen(&self) -> Option<&Unseen> {
        self.unseen.as_ref()
    }

    fn guard(&self) -> GuardLevel {
        self.guard()
    }

    fn look_up<'c>(
        &self,
        ctx: Ctx<'c>,
        cache: &SharedCache,
        searches: &Searches,
        now: UnixMs,
    ) -> Looked<LookupReport<OpenedEntry<'c>>> {
        self.look_up(ctx, cache, searches, now)
    }

    fn write_hit(
        &self,
        reply: Reply<'_>,
        hit: &Hit<OpenedEntry<'_>>,
        (served, now): (Served, UnixMs),
        ticket: Option<&str>,
    ) {
        reply.text("hit");
        hit_reply::write_audited(reply, hit, self.fields(), served, now, ticket);
    }

    fn ticket(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        report: &LookupReport<OpenedEntry<'_>>,
    ) -> Option<String> {
        if self.audit { ticket_for(ctx, cache, report) } else { None }
    }
}

fn parse(mut args: ArgReader<'_>) -> Result<FetchRequest<'_>> {
    let (mut question, mut terms) = (Question::default(), Terms::default());
    while let Some(word) = args.option() {
        if terms.read(&word, &mut args)? {
            continue;
        }
        match word.as_str() {
            _ if is_vector_word(&word) => {
                set_once(&mut question.query, vector(&word, &mut args)?, "the vector")?;
            }
            "COUNT" | "EXPLAIN" => return Err(word.unknown()),
            _ => question.read(&word, &mut args)?,
        }
    }
    question.settle_context()?;
    if question.prompt.is_none() {
        return Err(Error::err("syntax error: PROMPT is needed"));
    }
    Ok(terms.of(Box::new(question)))
}
