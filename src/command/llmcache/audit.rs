//! The commands of MAXERROR: tickets returned by lookups, `LLMCACHE.FEEDBACK`, and their effects for AOF and
//! replicas, `LLMCACHE._AUDIT` and `LLMCACHE._LABEL`.
//!
//! Owns: the steps from a report to its effect. A lookup writes nothing; a report is a write and replicates what it
//! did, integers alone, so that replicas come to the same threshold. Main thread.

use super::{channel, need_cache};
use crate::command::container::entry::open_by_id;
use crate::command::parse::{ArgReader, set_once};
use crate::config;
use crate::ffi::{CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{OpenedEntry, Presence};
use crate::keytype::cache_registry::SharedCache;
use crate::keytype::{AUDIT_COMMAND, LABEL_COMMAND};
use llmcache_core::cache::maxerror::{Audit, LabelEffect, Report, SimilarityE4, TicketSecret};
use llmcache_core::cache::{Cache, LookupReport};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;

/// A secret for the tickets of a cache.
pub fn new_secret(ctx: Ctx<'_>) -> TicketSecret {
    TicketSecret([ctx.random(), ctx.random()])
}

/// A ticket for a lookup whose caller can report, if it is audited.
pub fn ticket_for(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    report: &LookupReport<OpenedEntry<'_>>,
) -> Option<String> {
    let near = report.near.as_ref()?;
    let how = (near.candidate.is_none(), ctx.state().is_replica());
    let (now_s, random) = (|| now_s(ctx), || ctx.random());
    cache.with(|cache| cache.audit_mut()?.issue(near.similarity, &near.id, how, now_s, random))
}

fn now_s(ctx: Ctx<'_>) -> u32 {
    (ctx.now_ms() / 1_000) as u32
}

/// A ticket that came back, and what its holder says of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    ticket: &'a [u8],
    is_wrong: bool,
}

impl<'a> Verdict<'a> {
    /// Reads what follows TICKET.
    pub fn read(args: &mut ArgReader<'a>) -> Result<Self> {
        Ok(Self { ticket: args.text("TICKET", limits::TICKET_MAX_BYTES)?, is_wrong: wrong(args)? })
    }

    /// What it is worth in a cache; an error where that did not issue it. Changes nothing.
    pub fn judge(&self, ctx: Ctx<'_>, cache: &SharedCache) -> Result<Report> {
        let now_s = now_s(ctx);
        let judge = |audit: &Audit| audit.judge(self.ticket, now_s, config::audit_ttl_s());
        cache.with(|cache| cache.audit().map(judge)).ok_or_else(no_promise)?.map_err(|_| {
            Error::new(ErrorWord::BadTicket, "this is no ticket that the cache issued")
        })
    }

    /// Counts it by what it was judged to be worth, and has AOF and replicas do so. Returns whether it counted.
    pub fn count(
        &self,
        permit: WritePermit<'_>,
        cache: &SharedCache,
        name: &[u8],
        report: Report,
    ) -> bool {
        let (news, done) = cache.with(|cache| match cache.audit_mut() {
            Some(audit) => (note(audit, &report), count(audit, &report, self.is_wrong)),
            None => (None, None),
        });
        if let Some(state) = news {
            permit.replicate(AUDIT_COMMAND, &[name, &state]);
        }
        let (Some(effect), Report::Label(ticket)) = (done, report) else { return false };
        let text = |number: u64| number.to_string();
        let (epoch, nonce) = (text(ticket.epoch.into()), text(ticket.nonce()));
        let (similarity, wrong) = (text(ticket.similarity.0.into()), text(self.is_wrong.into()));
        let label = [&epoch, &similarity, &wrong, &nonce].map(String::as_bytes);
        permit.replicate(LABEL_COMMAND, &[name, label[0], label[1], label[2], label[3]]);
        if effect == LabelEffect::Alarm {
            alarm(permit, cache, name);
        }
        true
    }
}

/// Counts the report, and returns what replicas are to be told before the label. A ticket that comes back twice is one
/// report, and one of a replica is none of those that are counted as issued here.
fn note(audit: &mut Audit, report: &Report) -> Option<Vec<u8>> {
    match report {
        Report::Label(ticket) => {
            audit.counts.reports += u64::from(!ticket.by_replica);
            audit.publish()
        }
        Report::Nothing => {
            audit.counts.ignored += 1;
            None
        }
    }
}

fn count(audit: &mut Audit, report: &Report, is_wrong: bool) -> Option<LabelEffect> {
    let Report::Label(ticket) = report else { return None };
    let effect = audit.label(ticket.epoch, ticket.similarity, is_wrong, ticket.nonce());
    (effect != LabelEffect::Ignored).then_some(effect)
}

/// Tells who subscribed that answers turned out worse than promised.
fn alarm(permit: WritePermit<'_>, cache: &SharedCache, name: &[u8]) {
    let epoch = cache.with(|cache| cache.audit().map_or(0, |audit| audit.evidence().epoch()));
    let message = serde_json::json!({ "kind": "alarm", "epoch": epoch });
    permit.log_warning("answers of a cache were worse than its MAXERROR: it begins to learn anew");
    permit.publish(&channel("maxerror", permit.db(), name), message.to_string().as_bytes());
}

fn no_promise() -> Error {
    Error::err("the cache makes no promise: CONFIG SET maxerror <share>")
}

fn wrong(args: &mut ArgReader<'_>) -> Result<bool> {
    match args.option().as_ref().map(|word| word.as_str()) {
        Some("RIGHT") => Ok(false),
        Some("WRONG") => Ok(true),
        _ => Err(Error::err("syntax error: RIGHT or WRONG is needed")),
    }
}

/// What FEEDBACK is about.
enum Feedback<'a> {
    Ticket(Verdict<'a>),
    Opinion { id: &'a [u8], is_wrong: bool },
    Reset,
}

impl<'a> Feedback<'a> {
    fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let needed = || Error::err("syntax error: TICKET, ID or RESET is needed");
        let mut feedback = None;
        while let Some(word) = args.option() {
            let next = match word.as_str() {
                "TICKET" => Self::Ticket(Verdict::read(&mut args)?),
                "ID" => {
                    let id = args.text("ID", limits::ID_MAX_BYTES)?;
                    Self::Opinion { id, is_wrong: wrong(&mut args)? }
                }
                "RESET" => Self::Reset,
                _ => return Err(word.unknown()),
            };
            set_once(&mut feedback, next, "what FEEDBACK is about")?;
        }
        feedback.ok_or_else(needed)
    }
}

/// Runs `LLMCACHE.FEEDBACK`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let feedback = Feedback::parse(ArgReader::new(args.options()))?;
    let (cache, name) = (need_cache(ctx, args)?, args.name());
    let reply = Reply::new(ctx);
    match feedback {
        Feedback::Ticket(verdict) => {
            let report = verdict.judge(ctx, &cache)?;
            let counted = verdict.count(args.permit(), &cache, name, report);
            if counted {
                ctx.signal_modified(&args.key());
            }
            reply.int(i64::from(counted));
        }
        Feedback::Opinion { id, is_wrong } => {
            cache.with(|cache| cache.audit().map(|_| ())).ok_or_else(no_promise)?;
            let presence = Presence::of(ctx, name);
            let is_there = open_by_id(ctx, &cache, &presence, id)?.is_some();
            cache.with(|cache| {
                if let Some(audit) = cache.audit_mut().filter(|_| is_there) {
                    audit.counts.opinions_wrong += u64::from(is_wrong);
                    audit.counts.opinions_right += u64::from(!is_wrong);
                }
            });
            reply.int(i64::from(is_there));
        }
        Feedback::Reset => {
            cache.with(|cache| cache.audit_mut().map(Audit::begin_epoch)).ok_or_else(no_promise)?;
            tell_epoch(args.permit(), &cache, name);
            ctx.signal_modified(&args.key());
            reply.ok();
        }
    }
    Ok(())
}

/// Tells AOF and replicas that an epoch began.
pub fn tell_epoch(permit: WritePermit<'_>, cache: &SharedCache, name: &[u8]) {
    if let Some(state) = cache.with(|cache| cache.audit_mut().map(Audit::told)) {
        permit.replicate(AUDIT_COMMAND, &[name, &state]);
    }
}

/// Runs the internal `LLMCACHE._AUDIT key state`: the state of MAXERROR as the primary has it.
pub fn run_internal_audit(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let state = reader.text("the state", limits::AUDIT_BYTES_MAX)?;
    reader.finish()?;
    let cache = need_cache(ctx, args)?;
    let obey = |cache: &mut Cache| {
        let (max_error, threshold) = (cache.settings.max_error, cache.settings.threshold);
        let audit = cache.audit_mut().ok_or_else(no_promise)?;
        let bad = |error| Error::err(format!("bad state of MAXERROR: {error}"));
        audit.obey(Audit::read(state, max_error, threshold).map_err(bad)?);
        Ok(())
    };
    cache.with(obey)?;
    ctx.signal_modified(&args.key());
    args.permit().replicate(AUDIT_COMMAND, &[args.name(), state]);
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs the internal `LLMCACHE._LABEL key epoch similarity wrong nonce`: a label that the primary counted.
pub fn run_internal_label(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let epoch = reader.integer("the epoch", 0, u32::MAX.into())? as u32;
    let similarity = SimilarityE4(reader.integer("the similarity", 0, 10_000)? as u16);
    let is_wrong = reader.integer("the label", 0, 1)? == 1;
    let nonce = reader.integer("the nonce", 0, u64::MAX)?;
    reader.finish()?;
    let cache = need_cache(ctx, args)?;
    cache
        .with(|cache| {
            cache.audit_mut().map(|audit| audit.label(epoch, similarity, is_wrong, nonce))
        })
        .ok_or_else(no_promise)?;
    ctx.signal_modified(&args.key());
    let options: Vec<&[u8]> =
        [args.name()].into_iter().chain(args.options().iter().copied()).collect();
    args.permit().replicate(LABEL_COMMAND, &options);
    Reply::new(ctx).ok();
    Ok(())
}
