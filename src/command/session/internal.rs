//! `SESSION._APPLY` and `SESSION._LOAD`: the effects that AOF and replicas replay. Everything is spelled out, nothing
//! is decided here; the bytes are treated as hostile all the same.

use super::find;
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Deadline, change_session, put_session};
use crate::keytype::SessionValue;
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::session::Effect;

/// Runs `SESSION._APPLY key deadline change…`.
pub fn run_apply(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut ahead = reader.clone();
    let deadline = match ahead.next("the deadline")? {
        b"KEEP" => Deadline::Keep,
        b"PERSIST" => Deadline::Remove,
        _ => Deadline::At(reader.integer("the deadline", 1, limits::DEADLINE_MAX_MS)?),
    };
    let bad = |why: &dyn std::fmt::Display| Error::err(format!("bad change of a session: {why}"));
    let changes: Vec<Effect<'_>> = args.options()[1..]
        .iter()
        .map(|change| Effect::decode(change).map_err(|error| bad(&error)))
        .collect::<Result<_>>()?;
    // Each is checked against the session as it is: more than one would have to be checked against
    // what the one before left.
    if changes.iter().filter(|change| !change.is_setting()).count() > 1 {
        return Err(bad(&"it is more than one"));
    }
    let session = find(ctx, args, Access::Probe)?;
    let makes = changes.iter().any(|change| matches!(change, Effect::Append { .. }));
    if !session.exists() && !makes {
        return Err(bad(&"there is no session"));
    }
    changes.iter().try_for_each(|change| session.check(change).map_err(|error| bad(&error)))?;
    drop(session);
    change_session(args.permit(), &args.key(), &changes, deadline);
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs `SESSION._LOAD key head section…`.
pub fn run_load(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let session = SessionValue::from_sections(args.options())
        .ok_or_else(|| Error::err("bad session: its bytes are not whole"))?;
    put_session(args.permit(), &args.key(), session, Deadline::Keep);
    let mut all = vec![args.name()];
    all.extend(args.options());
    args.permit().replicate(c"SESSION._LOAD", &all);
    Reply::new(ctx).ok();
    Ok(())
}
