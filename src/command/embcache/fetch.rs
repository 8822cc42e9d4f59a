//! `EMBCACHE.FETCH`: returns an embedding, or a lease to compute it, so that one worker does (single flight).

use super::{Computing, Form, Subject, compute, find, model, open, set};
use crate::command::container::fetch::fetch;
use crate::command::container::fetch_request::{FetchRequest, Terms, Wanted};
use crate::command::container::hit_reply::Served;
use crate::command::container::{lease, no_container};
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, OpenedEntry, Searches, open_container};
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
    if has_to_wait(ctx, args)? {
        return Ok(());
    }
    fetch(ctx, args, parse, run)
}

/// Has a text embedded and kept that is not there, where a model embeds for the cache; then it is found as if it had been.
/// Answers whether the command is to end and is run again.
fn has_to_wait(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<bool> {
    let (wanted, _) = read(ArgReader::new(args.options()))?;
    let cache = wanted.container(ctx, args)?;
    let digest = cache.with(|cache| wanted.subject.digest(&cache.settings.model));
    // Who asks where there is no memory is told to compute it, as on any other cache.
    if ctx.state().is_out_of_memory() || find(ctx, &cache, &digest, Access::Probe).is_some() {
        return Ok(false);
    }
    match compute(ctx, &cache, &wanted.subject, Again::Fills(run))? {
        Computing::Numbers(numbers) => set::keep(args, &cache, (digest, numbers)).map(|()| false),
        Computing::Later => Ok(true),
        Computing::None => Ok(false),
    }
}

/// Runs `EMBCACHE.FAIL`.
pub fn run_fail(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    lease::fail(ctx, args, Kind::Embeddings)
}

/// Runs `EMBCACHE.EXTEND`.
pub fn run_extend(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    lease::extend(ctx, args, Kind::Embeddings)
}

fn parse(args: ArgReader<'_>) -> Result<FetchRequest<'_>> {
    let (wanted, terms) = read(args)?;
    Ok(terms.of(Box::new(wanted)))
}

fn read(mut args: ArgReader<'_>) -> Result<(WantedEmbedding<'_>, Terms)> {
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
    Ok((WantedEmbedding { subject, model: named, form }, terms))
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
            Some(entry) => {
                report.hits.push(Hit { tier: Tier::Exact, similarity: 1.0, id: None, entry })
            }
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
