//! `SESSION.WINDOW`, `RANGE`, `GET` and `LEN`: reading messages.

use super::{find, id, reply, roles, seq};
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use llmcache_core::error::{Error, Result};
use llmcache_core::session::{MessageRef, MessageSeq, WindowRequest, to_json, window_json};

/// Runs `SESSION.WINDOW`.
pub fn run_window(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (request, as_json) = parse_window(ArgReader::new(args.options()))?;
    let session = find(ctx, args, Access::Read)?;
    let window = session.window(&request);
    let to = Reply::new(ctx).array(4).count(window.tokens);
    to.count(window.first.map_or(0, |seq| seq.0).into()).int(i64::from(window.more));
    if as_json {
        to.bytes(&window_json(&session, &window.messages, window.tokens));
    } else {
        reply::list(to, &session, &window.messages);
    }
    Ok(())
}

fn parse_window<'a>(mut args: ArgReader<'a>) -> Result<(WindowRequest<'a>, bool)> {
    let (mut request, mut as_json) = (WindowRequest::default(), false);
    while let Some(word) = args.option() {
        let name = word.as_str();
        match name {
            "TOKENS" => set_once(&mut request.tokens, args.integer(name, 0, u64::MAX)?, name)?,
            "LAST" => set_once(&mut request.last, args.integer(name, 1, u64::MAX)?, name)?,
            "TURNS" => set_once(&mut request.turns, args.integer(name, 1, u64::MAX)?, name)?,
            "ROLES" => set_once(&mut request.roles, roles(&mut args)?, name)?,
            "PAIRS" => flag_once(&mut request.pairs, name)?,
            "JSON" => flag_once(&mut as_json, name)?,
            _ => return Err(word.unknown()),
        }
    }
    Ok((request, as_json))
}

/// Runs `SESSION.RANGE s from to [COUNT n] [REV] [ROLES n r…]`.
pub fn run_range(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (from, to) = (border(&mut reader, "from")?, border(&mut reader, "to")?);
    let (mut count, mut reverse, mut wanted) = (None, false, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "COUNT" => set_once(&mut count, reader.integer(name, 1, u64::MAX)?, name)?,
            "REV" => flag_once(&mut reverse, name)?,
            "ROLES" => set_once(&mut wanted, roles(&mut reader)?, name)?,
            _ => return Err(word.unknown()),
        }
    }
    let session = find(ctx, args, Access::Read)?;
    let wants = |at: &MessageRef| {
        wanted.is_none_or(|wanted: &[&[u8]]| wanted.contains(&session.message(*at).role))
    };
    let place = |at: &MessageRef| session.seq_at(*at);
    let count = usize::try_from(count.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let found: Vec<MessageRef> = if reverse {
        let back = session.backward(to).take_while(|at| place(at) >= from);
        back.filter(wants).take(count).collect()
    } else {
        let forward = session.forward(from).take_while(|at| place(at) <= to);
        forward.filter(wants).take(count).collect()
    };
    reply::list(Reply::new(ctx), &session, &found);
    Ok(())
}

/// Reads a border of a range: a place, `-` for the first or `+` for the last.
fn border(args: &mut ArgReader<'_>, what: &str) -> Result<MessageSeq> {
    let mut ahead = args.clone();
    let border = match ahead.next(what)? {
        b"-" => MessageSeq(0),
        b"+" => MessageSeq(u32::MAX),
        _ => return Ok(MessageSeq(args.integer(what, 0, u32::MAX.into())? as u32)),
    };
    *args = ahead;
    Ok(border)
}

/// Runs `SESSION.GET s (SEQ n | ID id)`.
pub fn run_get(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let word = reader.option();
    let word = word.ok_or_else(|| Error::err("syntax error: SEQ or ID is needed"))?;
    let (mut by_seq, mut by_id) = (None, None);
    match word.as_str() {
        "SEQ" => by_seq = Some(seq(&mut reader, "SEQ")?),
        "ID" => by_id = Some(id(&mut reader, "ID")?),
        _ => return Err(word.unknown()),
    }
    reader.finish()?;
    let session = find(ctx, args, Access::Read)?;
    let found = match by_seq {
        Some(seq) => session.locate(seq),
        None => by_id.and_then(|id| session.find_id(id)),
    };
    match found {
        Some(at) => reply::full(Reply::new(ctx), &session.whole_message(at)),
        None => {
            Reply::new(ctx).null();
        }
    }
    Ok(())
}

/// Runs `SESSION.LEN`.
pub fn run_len(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let session = find(ctx, args, Access::Read)?;
    Reply::new(ctx).count(session.len());
    Ok(())
}

/// Runs `SESSION.EXPORT`: a line of JSON for each message.
pub fn run_export(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let session = find(ctx, args, Access::Read)?;
    let reply = Reply::new(ctx).array(session.len() as usize);
    for message in session.whole_messages() {
        reply.bytes(&to_json(&message));
    }
    Ok(())
}
