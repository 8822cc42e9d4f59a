//! `SESSION.FORK` and `SESSION.LOAD`: sessions made of what others held.

use super::find;
use super::request::seq;
use crate::command::parse::ArgReader;
use crate::ffi::command::KeyUse;
use crate::ffi::{Access, CommandArgs, Ctx, Key, Reply, ServerString};
use crate::keyspace::{Deadline, change_session, check_second_key, put_session};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::session::{Effect, Line, MessageSeq, lines};
use llmcache_core::work::count_bytes;

/// Runs `SESSION.FORK s new [AT seq]`.
pub fn run_fork(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let new = reader.next("the new key")?;
    let mut upto = MessageSeq(u32::MAX);
    if let Some(word) = reader.option() {
        if word.as_str() != "AT" {
            return Err(word.unknown());
        }
        upto = seq(&mut reader, "AT")?;
    }
    reader.finish()?;
    let new = check_second_key(ctx, args.name(), new, KeyUse::Insert)?;
    let session = find(ctx, args, Access::Read)?;
    if !session.exists() {
        return Err(Error::err("no such session"));
    }
    if Key::open(ctx, &new, Access::Probe).is_some_and(|key| !key.is_empty()) {
        return Err(Error::err("the new key exists"));
    }
    let copy = session.fork(upto);
    drop(session);
    let messages = copy.len();
    let deadline = if ctx.state().must_obey() {
        Deadline::Keep
    } else {
        Deadline::slid(copy.ttl_ms(), ctx.now_ms())
    };
    put_session(args.permit(), &new, copy, deadline);
    let at = upto.0.min(limits::SESSION_SEQ_MAX).to_string();
    args.permit().replicate(c"SESSION.FORK", &[args.name(), new.as_bytes(), b"AT", at.as_bytes()]);
    if let Deadline::At(at_ms) = deadline {
        args.permit().replicate(c"PEXPIREAT", &[new.as_bytes(), at_ms.to_string().as_bytes()]);
    }
    Reply::new(ctx).count(messages);
    Ok(())
}

const MORE_LATER: &str = "bytes; more follow by another LOAD";

/// Runs `SESSION.LOAD s line…`.
pub fn run_load(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let bytes = args.options().iter().map(|text| text.len()).sum();
    let max = limits::SESSION_LINE_MAX_BYTES;
    if bytes > max {
        return Err(Error::too_big("the load", bytes, max, MORE_LATER));
    }
    // A text of several lines is as good as several texts.
    let texts: Vec<&[u8]> = args.options().iter().flat_map(|text| lines(text)).collect();
    if texts.len() > limits::SESSION_LOAD_MAX {
        let (got, max) = (texts.len(), limits::SESSION_LOAD_MAX);
        return Err(Error::too_big("the load", got, max, "lines; more follow by another LOAD"));
    }
    let bytes: usize = texts.iter().map(|line| line.len()).sum();
    let max = limits::SESSION_APPEND_MAX_BYTES;
    if texts.len() > 1 && bytes > max {
        return Err(Error::too_big("the load", bytes, max, MORE_LATER));
    }
    count_bytes(bytes);
    let mut parsed = Vec::with_capacity(texts.len());
    for line in texts {
        let number = parsed.len() + 1;
        let line = Line::parse(line).map_err(|error| {
            Error::new(error.word(), format!("line {number}: {}", error.message()))
        })?;
        parsed.push(line);
    }
    let session = find(ctx, args, Access::Probe)?;
    let messages = session.plan_load(parsed.iter().map(Line::message).collect(), args.name())?;
    let deadline = Deadline::slid(session.ttl_ms(), ctx.now_ms());
    drop(session);
    let loaded = messages.len();
    if loaded > 0 {
        let effects = [Effect::Append { messages }];
        change_session(args.permit(), &args.key(), &effects, deadline);
    }
    Reply::new(ctx).count(loaded as u64);
    Ok(())
}
