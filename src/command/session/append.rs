//! `SESSION.APPEND`: adds messages at the end and, in the same step, sets the deadline, trims, and updates the
//! owner's list.

use super::request::AppendRequest;
use super::{find, owner, texts};
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Deadline, Presence, change_session};
use llmcache_core::error::Result;
use llmcache_core::session::{AppendTerms, Effect, Message};

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut request = AppendRequest::parse(ArgReader::new(args.options()))?;
    let now_ms = ctx.now_ms();
    let owner = request.owner.map(|owner| owner::check(ctx, args.name(), owner)).transpose()?;
    let model = texts::model_for(&*find(ctx, args, Access::Probe)?, request.model)?;
    if let Some(model) = &model
        && !texts::embed_messages(ctx, model, &mut request, Again::Writes(run))?
    {
        return Ok(());
    }
    let session = find(ctx, args, Access::Probe)?;
    if request.owner.is_some() && !session.exists() {
        // With two keys the server leaves it to us to miss one.
        Presence::of(ctx, args.name()).need_all()?;
    }
    let allowed = if session.exists() { !request.nx } else { !request.xx };
    let AppendRequest { if_seq, upsert, clear, .. } = request;
    let terms = AppendTerms { allowed, if_seq, upsert, clear };
    let planned = session.plan_append(request.messages, terms, args.name())?;
    let Some(planned) = planned else {
        Reply::new(ctx).null();
        return Ok(());
    };
    let ttl_ms = request.ttl_ms.unwrap_or(session.ttl_ms());
    let model = model.map(|model| model.text()).filter(|model| **model != *session.model());
    let other_ttl = ttl_ms != session.ttl_ms();
    drop(session);
    if !planned.changes_nothing() {
        let deadline = match request.ttl_ms {
            Some(0) => Deadline::Remove,
            _ => Deadline::slid(ttl_ms, now_ms),
        };
        let set_ttl = other_ttl.then_some(Effect::SetTtl { ttl_ms });
        let set_model = model.as_ref().map(|model| Effect::SetModel { model });
        let settings = set_ttl.into_iter().chain(set_model).collect();
        change(args, (planned.clear, planned.replaced, planned.messages), settings, deadline);
        trim(ctx, args, request.max_length, request.max_tokens)?;
        if let Some(owner) = owner {
            owner::note_append(args.permit(), &owner, args.name(), now_ms);
        }
    }
    let totals = find(ctx, args, Access::Probe)?.totals();
    let reply = Reply::new(ctx).array(planned.outcomes.len() + 2);
    for (seq, outcome) in planned.outcomes {
        reply.array(2).count(seq.0.into()).int(outcome as i64);
    }
    reply.count(totals.messages).count(totals.tokens);
    Ok(())
}

/// Applies the changes of an APPEND as separate effects: replicas check each against the state that the one
/// before left. Those of settings go with the last.
fn change<'e>(
    args: &CommandArgs<'_>,
    (clear, replaced, messages): (bool, Vec<Message<'e>>, Vec<Message<'e>>),
    mut effects: Vec<Effect<'e>>,
    deadline: Deadline,
) {
    let mut steps = Vec::with_capacity(3);
    if clear {
        steps.push(Effect::Clear);
    }
    if !replaced.is_empty() {
        steps.push(Effect::Replace { messages: replaced });
    }
    if !messages.is_empty() {
        steps.push(Effect::Append { messages });
    }
    let last = steps.pop();
    for step in steps {
        change_session(args.permit(), &args.key(), &[step], Deadline::Keep);
    }
    effects.extend(last);
    change_session(args.permit(), &args.key(), &effects, deadline);
}

/// Removes the oldest messages that are not pinned until the session is within these bounds. Returns
/// how many were removed.
pub fn trim(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    max_length: Option<u64>,
    max_tokens: Option<u64>,
) -> Result<u64> {
    let session = find(ctx, args, Access::Probe)?;
    let totals = session.totals();
    let by_length =
        max_length.filter(|most| totals.messages > *most).map(|most| session.cut_for_length(most));
    let by_tokens =
        max_tokens.filter(|most| totals.tokens > *most).map(|most| session.cut_for_tokens(most));
    let cut = by_length.max(by_tokens);
    let first = session.first_seq();
    drop(session);
    match (cut, first) {
        (Some(before), Some(first)) if before > first => {
            let effects = [Effect::Cut { before }];
            Ok(change_session(args.permit(), &args.key(), &effects, Deadline::Keep))
        }
        _ => Ok(0),
    }
}
