//! `EMBCACHE.FETCH`: an embedding, or the lease to compute it, so that one worker does.

use super::{Form, Subject, find, model, open};
use crate::command::container::fetch::{FetchRequest, Terms, Wanted, fetch};
use crate::command::container::hit_reply::Served;
use crate::command::container::{lease, no_container};
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{OpenedEntry, Searches, open_container};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::{Hit, Kind, Looked, LookupReport, MissReason, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::vector::Query;

/// An embedding that is wanted.
struct WantedEmbedding<'a> {
    subject: Subject<'a>,
    model: Option<&'a [u8]>,
    form: Form,
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    fetch(ctx, args, parse, run)
}

/// Runs `EMBCACHE.FAIL`.
pub fn run_fail(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    lease::fail(ctx, args, Kind::Embeddings)
}

/// Runs `EMBCACHE.EXTEND`.
pub fn run_extend(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    lease::extend(ctx, args, Kind::Embeddings)
}

fn parse(mut args: ArgReader<'_>) -> Result<FetchRequest<'_>> {
    let (mut subject, mut named, mut form) = (None, None, None);
    let mut terms = Terms::default();
    while let Some(word) = args.option() {
        match word.as_str() {
            _ if Subject::is_word(&word) => {
                let asked = Subject::read(&word, &mut args)?;
                set_once(&mut subject, asked, "what is asked for")?;
            }
            "AS" => set_once(&mut form, Form::read(&mut args)?, "AS")?,
            "MODEL" => set_once(&mut named, model(&mut args)?, "MODEL")?,
            "LEASE" | "WAIT" => {
                terms.read(&word, &mut args)?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let subject = subject.ok_or_else(|| Error::err("syntax error: TEXT or DIGEST is needed"))?;
    let form = form.unwrap_or_default();
    Ok(terms.of(Box::new(WantedEmbedding { subject, model: named, form })))
}

impl Wanted for WantedEmbedding<'_> {
    fn container(&self, ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
        open(ctx, args, self.model)?.ok_or_else(|| no_container(args.name(), Kind::Embeddings))
    }

    fn reopen(&self, ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<Option<SharedCache>> {
        open_container(ctx, &args.key(), Kind::Embeddings)
    }

    fn id(&self, cache: &SharedCache) -> EntryId {
        cache.with(|cache| self.subject.digest(&cache.settings.model)).entry_id()
    }

    fn identity(&self) -> (&[u8], &[u8], &[u8]) {
        (b"", b"", self.subject.text())
    }

    fn query(&self) -> Option<&Query> {
        None
    }

    fn guard(&self) -> GuardLevel {
        GuardLevel::Off
    }

    fn look_up<'c>(
        &self,
        ctx: Ctx<'c>,
        cache: &SharedCache,
        _searches: &Searches,
        _now: UnixMs,
    ) -> Looked<LookupReport<OpenedEntry<'c>>> {
        let digest = cache.with(|cache| self.subject.digest(&cache.settings.model));
        let mut report = LookupReport::nothing(1.0);
        match find(ctx, cache, &digest, Access::Read) {
            Some(entry) => report.hits.push(Hit { tier: Tier::Exact, similarity: 1.0, entry }),
            None => report.reason = Some(MissReason::Empty),
        }
        Ok(report)
    }

    fn write_hit(
        &self,
        reply: Reply<'_>,
        hit: &Hit<OpenedEntry<'_>>,
        _: (Served, UnixMs),
        _: Option<&str>,
    ) {
        reply.text("vector");
        self.form.write(reply, Some(hit.entry.view()));
    }
}
