//! `SESSION.APPEND`: messages behind all others, in one step with deadline, trims and the owner's list.

use super::{find, id, owner, payload, role, stored, tokens, ttl_ms};
use crate::command::parse::{
    ArgReader, OptionWord, flag_once, is_vector_word, json_object, set_once, vector,
};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Deadline, Presence, change_session};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::session::{AppendTerms, Effect, IdText, Link, LinkKind, Message, MessageSeq};
use std::borrow::Cow;

/// What the options before the first message say, and the messages.
#[derive(Debug, Default)]
struct AppendRequest<'a> {
    nx: bool,
    xx: bool,
    upsert: bool,
    clear: bool,
    if_seq: Option<u32>,
    ttl_ms: Option<u64>,
    max_length: Option<u64>,
    max_tokens: Option<u64>,
    owner: Option<&'a [u8]>,
    messages: Vec<Message<'a>>,
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let request = AppendRequest::parse(ArgReader::new(args.options()))?;
    let now_ms = ctx.now_ms();
    let owner = request.owner.map(|owner| owner::check(ctx, args.name(), owner)).transpose()?;
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
    let other_ttl = ttl_ms != session.ttl_ms();
    drop(session);
    if !planned.changes_nothing() {
        let deadline = match request.ttl_ms {
            Some(0) => Deadline::Remove,
            _ => Deadline::slid(ttl_ms, now_ms),
        };
        let set_ttl = other_ttl.then_some(Effect::SetTtl { ttl_ms });
        change(args, (planned.clear, planned.replaced, planned.messages), set_ttl, deadline);
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

/// Makes the changes of an APPEND, each of which is told by itself: what follows is checked by replicas
/// against what the one before left.
fn change(
    args: &CommandArgs<'_>,
    (clear, replaced, messages): (bool, Vec<Message<'_>>, Vec<Message<'_>>),
    set_ttl: Option<Effect<'_>>,
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
    let effects: Vec<Effect<'_>> = set_ttl.into_iter().chain(last).collect();
    change_session(args.permit(), &args.key(), &effects, deadline);
}

/// Removes the oldest messages that are not pinned until the session is within these bounds. Answers
/// how many went.
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

impl<'a> AppendRequest<'a> {
    fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let mut request = Self::default();
        let mut bytes = 0;
        while let Some(word) = args.option() {
            if word.as_str() == "MSG" {
                let message = Message::plain(MessageSeq(0), role(&mut args)?, payload(&mut args)?);
                bytes += message.payload.len();
                request.messages.push(message);
                request.check_size(bytes)?;
                request.read_message(&mut args)?;
            } else {
                request.read(&word, &mut args)?;
            }
        }
        if request.messages.is_empty() {
            return Err(Error::err("syntax error: at least one MSG is needed"));
        }
        if request.nx && request.xx {
            return Err(Error::err("syntax error: NX and XX exclude each other"));
        }
        Ok(request)
    }

    fn check_size(&self, bytes: usize) -> Result<()> {
        if self.messages.len() > limits::SESSION_APPEND_MAX {
            let max = limits::SESSION_APPEND_MAX;
            return Err(Error::too_big("APPEND", self.messages.len(), max, "messages"));
        }
        if bytes > limits::SESSION_APPEND_MAX_BYTES {
            let max = limits::SESSION_APPEND_MAX_BYTES;
            return Err(Error::too_big("all messages together", bytes, max, "bytes"));
        }
        Ok(())
    }

    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<()> {
        let name = word.as_str();
        match name {
            "NX" => flag_once(&mut self.nx, name),
            "XX" => flag_once(&mut self.xx, name),
            "UPSERT" => flag_once(&mut self.upsert, name),
            "CLEAR" => flag_once(&mut self.clear, name),
            "IFSEQ" => {
                let seq = args.integer(name, 0, limits::SESSION_SEQ_MAX.into())? as u32;
                set_once(&mut self.if_seq, seq, name)
            }
            "TTL" => set_once(&mut self.ttl_ms, ttl_ms(args)?, name),
            "MAXLEN" => set_once(&mut self.max_length, args.integer(name, 0, u64::MAX)?, name),
            "MAXTOKENS" => set_once(&mut self.max_tokens, args.integer(name, 0, u64::MAX)?, name),
            "OWNER" => set_once(&mut self.owner, args.next(name)?, name),
            _ => Err(word.unknown()),
        }
    }

    /// Reads the options of the message just begun, up to the next one.
    fn read_message(&mut self, args: &mut ArgReader<'a>) -> Result<()> {
        let Some(message) = self.messages.last_mut() else { return Ok(()) };
        let (mut own_tokens, mut own_id, mut own_vector, mut meta) = (None, None, None, None);
        let mut link = None;
        loop {
            let mut ahead = args.clone();
            let Some(word) = ahead.option().filter(|word| word.as_str() != "MSG") else { break };
            *args = ahead;
            let name = word.as_str();
            match name {
                "ID" => set_once(&mut own_id, IdText::Text(id(args, name)?), name)?,
                "TOKENS" => set_once(&mut own_tokens, tokens(args)?, name)?,
                "META" => set_once(&mut meta, json_object(args, name)?, name)?,
                "PIN" => flag_once(&mut message.pinned, name)?,
                "CALL" | "RESULT" => {
                    let kind = if name == "CALL" { LinkKind::Call } else { LinkKind::Result };
                    let id = IdText::Text(id(args, name)?);
                    set_once(&mut link, Link { kind, id }, "CALL or RESULT")?;
                }
                _ if is_vector_word(&word) => {
                    set_once(&mut own_vector, stored(&vector(&word, args)?), "the vector")?;
                }
                _ => return Err(word.unknown()),
            }
        }
        (message.id, message.meta, message.link) = (own_id, meta, link);
        message.vector = own_vector.map(Cow::Owned);
        if let Some(tokens) = own_tokens {
            (message.tokens, message.estimated) = (tokens, false);
        }
        Ok(())
    }
}
