//! Opens and changes the keys of sessions.
//!
//! Owns: the order of steps of a change: the session, its deadline, AOF and replicas, the keyspace
//! event, followers. Every change of a session goes through `change_session`.

use super::followers;
use crate::ffi::command::KeyUse;
use crate::ffi::{Access, Ctx, Key, RString, ServerString, WritePermit, reclaim};
use crate::keytype::session::note_sliding;
use crate::keytype::{APPLY_COMMAND, SessionValue};
use llmcache_core::cluster::key_slot;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::session::{Effect, Removed, Session};
use std::ffi::CStr;

/// What a change does to the deadline of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Nothing.
    Keep,
    /// There is no longer one.
    Remove,
    /// It is this, in Unix milliseconds.
    At(u64),
}

impl Deadline {
    /// The deadline of a session used now.
    pub fn slid(ttl_ms: u64, now_ms: u64) -> Self {
        if ttl_ms == 0 { Self::Keep } else { Self::At(now_ms + ttl_ms) }
    }

    /// The word AOF and replicas are told.
    pub fn to_word(self) -> String {
        match self {
            Self::Keep => "KEEP".into(),
            Self::Remove => "PERSIST".into(),
            Self::At(at_ms) => at_ms.to_string(),
        }
    }
}

/// Applies changes that were planned or checked to the session in a key, which is made where there is
/// none. Returns what the last one came to.
pub fn change_session(
    ctx: WritePermit<'_>,
    name: &impl ServerString,
    effects: &[Effect<'_>],
    deadline: Deadline,
) -> u64 {
    let mut key = Key::open_to_write(ctx, name);
    if key.is_empty() {
        key.set::<SessionValue>(Box::default());
    }
    let (mut answer, mut removed) = (0, Removed::default());
    if let Some(session) = key.value_mut::<SessionValue>() {
        for effect in effects {
            answer = session.apply_keeping(effect, &mut removed);
        }
        note_sliding(session);
    }
    match deadline {
        Deadline::Keep => {}
        Deadline::Remove => key.set_expire_at_ms(0),
        Deadline::At(at_ms) => key.set_expire_at_ms(at_ms),
    }
    drop(key);
    let allocations = removed.allocations();
    reclaim(removed, allocations);
    let deadline = deadline.to_word();
    let encoded: Vec<Vec<u8>> = effects.iter().map(Effect::encode).collect();
    let mut args: Vec<&[u8]> = vec![name.as_bytes(), deadline.as_bytes()];
    args.extend(encoded.iter().map(Vec::as_slice));
    ctx.replicate(APPLY_COMMAND, &args);
    ctx.notify_module(event_of(effects), name);
    followers::wake(*ctx, name.as_bytes(), effects);
    answer
}

/// Somebody moved or removed the deadline of a session by `EXPIRE` or `PERSIST`: that is what counts from
/// now on, until a command gives the session a TTL again. AOF and replicas are told, who hear of the same
/// deadline by the command itself, so nothing is concluded from it there.
pub fn deadline_was_moved(ctx: Ctx<'_>, name: &[u8]) {
    let Some(permit) = WritePermit::between_commands(ctx) else { return };
    let string = RString::new(name);
    // What is learnt here is no change of what the key says: it is not opened for writing.
    let Some(mut key) = Key::open(ctx, &string, Access::Unasked) else { return };
    let Some(session) = key.value_mut::<SessionValue>().filter(|s| s.ttl_ms() > 0) else { return };
    let effect = Effect::SetTtl { ttl_ms: 0 };
    session.apply(&effect);
    drop(key);
    permit.replicate(APPLY_COMMAND, &[name, b"KEEP", &effect.encode()]);
}

/// The keyspace event of a change.
fn event_of(effects: &[Effect<'_>]) -> &'static CStr {
    match effects.last() {
        Some(Effect::Append { messages }) if messages.iter().all(|m| m.producer.is_some()) => {
            c"session.begin"
        }
        None | Some(Effect::Append { .. }) => c"session.append",
        Some(Effect::SetTtl { .. }) => c"session.expire",
        Some(Effect::SetModel { .. }) => c"session.append",
        Some(Effect::Remove { .. }) => c"session.del",
        Some(Effect::Cut { .. }) => c"session.trim",
        Some(Effect::Clear) => c"session.clear",
        Some(Effect::Edit { .. } | Effect::Replace { .. }) => c"session.edit",
        Some(Effect::Compact { .. }) => c"session.compact",
        Some(Effect::Chunk { .. }) => c"session.chunk",
        Some(Effect::Produce { .. }) => c"session.begin",
        Some(Effect::End { .. }) => c"session.end",
    }
}

/// Puts a whole session into a key. The caller tells AOF and replicas.
pub fn put_session(
    ctx: WritePermit<'_>,
    name: &impl ServerString,
    session: Session,
    deadline: Deadline,
) {
    let mut key = Key::open_to_write(ctx, name);
    key.set::<SessionValue>(Box::new(SessionValue(session)));
    if let Deadline::At(at_ms) = deadline {
        key.set_expire_at_ms(at_ms);
    }
    drop(key);
    ctx.notify_module(c"session.load", name);
    followers::wake_arrived(*ctx, name.as_bytes());
}

/// Refuses a second key that is in another hash slot or that the user may not use so.
pub fn check_second_key(ctx: Ctx<'_>, first: &[u8], second: &[u8], how: KeyUse) -> Result<RString> {
    same_slot(ctx, first, second)?;
    let second = RString::new(second);
    if ctx.may_use_key(&second, how) {
        return Ok(second);
    }
    Err(Error::new(
        ErrorWord::NoPerm,
        "this user has no permissions to access one of the keys used as arguments",
    ))
}

/// Refuses keys of different hash slots, in a cluster.
pub fn same_slot(ctx: Ctx<'_>, first: &[u8], second: &[u8]) -> Result<()> {
    if ctx.state().is_cluster() && key_slot(first) != key_slot(second) {
        let message = "Keys in request don't hash to the same slot";
        return Err(Error::new(ErrorWord::CrossSlot, message));
    }
    Ok(())
}
