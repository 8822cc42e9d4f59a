//! `SESSION.EDIT`, `DEL`, `POP`, `TRIM`, `CLEAR`, `COMPACT` and `EXPIRE`: change a session.

use super::append::trim;
use super::request::{Which, id, payload, role, seq, stored, tokens, ttl_ms};
use super::{find, reply, texts};
use crate::command::parse::{ArgReader, flag_once, is_vector_word, set_once, vector};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Deadline, answer_room, change_session};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::{Effect, MessageRef, MessageSeq};

/// Runs `SESSION.EDIT s (seq | ID id) payload [TOKENS n] [<vector> | NOVECTOR]`.
pub fn run_edit(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let which = Which::read(&mut reader)?;
    let text = payload(&mut reader)?;
    let (mut own_tokens, mut query, mut no_vector) = (None, None, false);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "TOKENS" => set_once(&mut own_tokens, tokens(&mut reader)?, "TOKENS")?,
            "NOVECTOR" => flag_once(&mut no_vector, "NOVECTOR")?,
            _ if is_vector_word(&word) => {
                set_once(&mut query, vector(&word, &mut reader)?, "the vector")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    if no_vector && query.is_some() {
        return Err(Error::err("syntax error: a vector and NOVECTOR are given"));
    }
    let session = find(ctx, args, Access::Probe)?;
    let model = texts::model_for(&session, None)?.filter(|_| query.is_none() && !no_vector);
    if let Some(model) = model.filter(|_| which.locate(&session).is_some()) {
        drop(session);
        let vectors = texts::vectors_of(ctx, &model, &[text], Again::Writes(run_edit))?;
        let Some(vectors) = vectors else { return Ok(()) };
        query = vectors.into_iter().next().flatten();
    } else {
        drop(session);
    }
    let session = find(ctx, args, Access::Probe)?;
    let vector = query.as_ref().map(stored);
    let planned = match which.locate(&session) {
        Some(at) => session.plan_edit(session.seq_at(at), text, own_tokens, vector, args.name())?,
        None => None,
    };
    let deadline = Deadline::slid(session.ttl_ms(), ctx.now_ms());
    drop(session);
    let changed = planned.map_or(0, |e| change_session(args.permit(), &args.key(), &[e], deadline));
    Reply::new(ctx).count(changed);
    Ok(())
}

/// Runs `SESSION.DEL s (seq… | ID id…)`.
pub fn run_del(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut named = vec![Which::read(&mut reader)?];
    while reader.position() < args.options().len() {
        named.push(match named[0] {
            Which::Seq(_) => Which::Seq(seq(&mut reader, "seq")?),
            Which::Id(_) => Which::Id(id(&mut reader, "ID")?),
        });
    }
    let session = find(ctx, args, Access::Probe)?;
    let there = named.iter().filter_map(|which| which.locate(&session));
    let seqs: Vec<MessageSeq> = there.map(|at| session.seq_at(at)).collect();
    drop(session);
    Reply::new(ctx).count(remove(args, seqs));
    Ok(())
}

fn remove(args: &CommandArgs<'_>, seqs: Vec<MessageSeq>) -> u64 {
    if seqs.is_empty() {
        return 0;
    }
    let effects = [Effect::Remove { seqs }];
    change_session(args.permit(), &args.key(), &effects, Deadline::Keep)
}

/// Runs `SESSION.POP s [COUNT n] [OLDEST]`.
pub fn run_pop(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut count, mut oldest) = (None, false);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "COUNT" => {
                let most = limits::SESSION_APPEND_MAX as u64;
                set_once(&mut count, reader.integer("COUNT", 1, most)?, "COUNT")?;
            }
            "OLDEST" => flag_once(&mut oldest, "OLDEST")?,
            _ => return Err(word.unknown()),
        }
    }
    let session = find(ctx, args, Access::Probe)?;
    let count = count.unwrap_or(1) as usize;
    let popped: Vec<MessageRef> = if oldest {
        session.forward(MessageSeq(0)).take(count).collect()
    } else {
        session.backward(MessageSeq(u32::MAX)).take(count).collect()
    };
    answer_room(ctx)?.all(session.reply_bytes(&popped))?;
    // What goes is answered whole, also where a stream ends within a character.
    reply::removed(Reply::new(ctx), &session, &popped, UnixMs(ctx.now_ms()));
    let seqs = popped.iter().map(|at| session.seq_at(*at)).collect();
    drop(session);
    remove(args, seqs);
    Ok(())
}

/// Runs `SESSION.EXPIRE s [TTL seconds]`: a use of the session that says nothing.
pub fn run_expire(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut given_ms = None;
    while let Some(word) = reader.option() {
        match word.as_str() {
            "TTL" => set_once(&mut given_ms, ttl_ms(&mut reader)?, "TTL")?,
            _ => return Err(word.unknown()),
        }
    }
    let session = find(ctx, args, Access::Probe)?;
    let there = session.exists();
    let ttl_ms = given_ms.unwrap_or(session.ttl_ms());
    drop(session);
    let deadline = match given_ms {
        Some(0) => Deadline::Remove,
        _ => Deadline::slid(ttl_ms, ctx.now_ms()),
    };
    if there && deadline != Deadline::Keep {
        change_session(args.permit(), &args.key(), &[Effect::SetTtl { ttl_ms }], deadline);
    }
    Reply::new(ctx).int(i64::from(there));
    Ok(())
}

/// Runs `SESSION.TRIM s (MAXLEN n | MAXTOKENS n | MINSEQ n)`.
pub fn run_trim(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let word = reader.option();
    let word = word.ok_or_else(|| Error::err("syntax error: TRIM needs a bound"))?;
    let name = word.as_str();
    let bound = match name {
        "MAXLEN" | "MAXTOKENS" => reader.integer(name, 0, u64::MAX)?,
        "MINSEQ" => seq(&mut reader, name)?.0.into(),
        _ => return Err(word.unknown()),
    };
    reader.finish()?;
    let removed = match name {
        "MAXLEN" => trim(ctx, args, Some(bound), None)?,
        "MAXTOKENS" => trim(ctx, args, None, Some(bound))?,
        _ => {
            let first = find(ctx, args, Access::Probe)?.first_seq();
            let before = MessageSeq(bound as u32);
            if first.is_some_and(|first| first < before) {
                let effects = [Effect::Cut { before }];
                change_session(args.permit(), &args.key(), &effects, Deadline::Keep)
            } else {
                0
            }
        }
    };
    Reply::new(ctx).count(removed);
    Ok(())
}

/// Runs `SESSION.CLEAR`.
pub fn run_clear(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let is_empty = find(ctx, args, Access::Probe)?.is_empty();
    let removed = if is_empty {
        0
    } else {
        change_session(args.permit(), &args.key(), &[Effect::Clear], Deadline::Keep)
    };
    Reply::new(ctx).count(removed);
    Ok(())
}

/// Runs `SESSION.COMPACT s UPTO seq payload [TOKENS n] [IFSEQ n] [ROLE r]`.
pub fn run_compact(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let word = reader.option();
    match word {
        Some(word) if word.as_str() == "UPTO" => {}
        _ => return Err(Error::err("syntax error: UPTO is needed")),
    }
    let (upto, text) = (seq(&mut reader, "UPTO")?, payload(&mut reader)?);
    let (mut own_tokens, mut if_seq, mut own_role) = (None, None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "TOKENS" => set_once(&mut own_tokens, tokens(&mut reader)?, name)?,
            "IFSEQ" => {
                let seq = reader.integer(name, 0, limits::SESSION_SEQ_MAX.into())?;
                set_once(&mut if_seq, seq as u32, name)?;
            }
            "ROLE" => set_once(&mut own_role, role(&mut reader)?, name)?,
            _ => return Err(word.unknown()),
        }
    }
    let session = find(ctx, args, Access::Probe)?;
    let newest = session.last_seq().map_or(0, |seq| seq.0);
    if if_seq.is_some_and(|seq| seq != newest) {
        Reply::new(ctx).null();
        return Ok(());
    }
    let role = own_role.unwrap_or(b"system");
    let planned = session.plan_compact(upto, role, text, own_tokens)?;
    let before = session.totals().tokens;
    let deadline = Deadline::slid(session.ttl_ms(), ctx.now_ms());
    drop(session);
    let removed = planned.map_or(0, |e| change_session(args.permit(), &args.key(), &[e], deadline));
    let after = find(ctx, args, Access::Probe)?.totals().tokens;
    Reply::new(ctx).array(3).count(removed).count(before).count(after);
    Ok(())
}
