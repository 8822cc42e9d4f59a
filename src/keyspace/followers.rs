//! Wakes clients that follow a message: when it begins, grows or ends, when it or its session is removed, when the
//! lease of its producer expires.
//!
//! Owns: who is woken when. The reply is written after the running command, by the waiter itself, which
//! looks at the session again. Main thread.

use super::session_key::open_session;
use super::slots::Served;
use crate::ffi::{Access, Alarm, Ctx, RString, wake_blocked};
use crate::keytype::follower_table::{self, Follower, Place, Target};
use llmcache_core::ids::{MonotonicMs, UnixMs};
use llmcache_core::session::{Effect, MessageSeq, Session, Status};
use std::ffi::c_int;

/// Rings when somebody who waits is to be looked at.
static ALARM: Alarm = Alarm::new(on_due);

/// Lets a client follow: `place` is where its session is.
pub fn add(ctx: Ctx<'_>, place: Place, follower: Follower) {
    let due = lapse_of(ctx, &follower);
    follower_table::add(place, follower);
    arm(ctx, due);
}

/// Wakes those for whom these changes of a session are what they wait for.
pub fn wake(ctx: Ctx<'_>, key: &[u8], effects: &[Effect<'_>]) {
    if follower_table::is_empty() {
        return;
    }
    let place = (ctx.db(), key.to_vec());
    let now = ctx.monotonic_now();
    let mut due: Option<MonotonicMs> = None;
    let name = RString::new(key);
    let session = open_session(ctx, &name, Access::Unasked).ok().flatten();
    let session = session.as_deref();
    let woken = follower_table::take(&place, |follower| {
        let wakes = match follower.target {
            Target::Id(_) => {
                let wakes = has_begun(follower, session, UnixMs(ctx.now_ms()));
                due = due.into_iter().chain(lapse_of(ctx, follower)).min();
                wakes
            }
            Target::Seq(own) => {
                effects.iter().any(|effect| is_for(follower, own, effect, session, now))
            }
        };
        due = due.into_iter().chain(follower.linger_due).min();
        wakes
    });
    wake_all(ctx, &woken);
    arm(ctx, due);
}

/// Wakes those who wait for a message of a session that came whole: loaded, restored, renamed, copied.
pub fn wake_arrived(ctx: Ctx<'_>, key: &[u8]) {
    wake(ctx, key, &[]);
}

/// Whether the message that a client waits for by its ID is there and has something for it. One that has begun
/// without a text is followed by its sequence number from now on.
fn has_begun(follower: &mut Follower, session: Option<&Session>, now: UnixMs) -> bool {
    let Target::Id(id) = &follower.target else { return false };
    let Some((session, at)) = session.and_then(|s| s.find_id(id).map(|at| (s, at))) else {
        return false;
    };
    let seq = session.seq_at(at);
    follower.target = Target::Seq(seq);
    // An offset beyond its end is an error, which the waiter finds as well.
    let Ok(Some(seen)) = session.follow(seq, follower.offset, usize::MAX, now) else {
        return true;
    };
    follower.lease_until = seen.lease_until.unwrap_or(UnixMs::NEVER);
    seen.status != Status::Open || !seen.data.is_empty()
}

fn is_for(
    follower: &mut Follower,
    own: MessageSeq,
    effect: &Effect<'_>,
    session: Option<&Session>,
    now: MonotonicMs,
) -> bool {
    match effect {
        Effect::Chunk { seq, offset, lease_until, data } if *seq == own => {
            follower.lease_until = *lease_until;
            let have = u64::from(*offset) + data.len() as u64;
            let gathers = follower.linger_due.is_some();
            if !gathers && !session.is_some_and(|s| s.is_readable(own, follower.offset)) {
                return false;
            }
            if follower.linger_ms == 0 || have - follower.offset >= follower.max {
                return true;
            }
            let due = now.after(follower.linger_ms);
            follower.linger_due.get_or_insert(due);
            false
        }
        Effect::Produce { seq, producer } if *seq == own => {
            follower.lease_until = producer.lease_until;
            false
        }
        Effect::End { seq, .. } => *seq == own,
        Effect::Remove { seqs } => seqs.contains(&own),
        Effect::Cut { before } => own < *before,
        Effect::Clear => true,
        _ => false,
    }
}

fn wake_all(ctx: Ctx<'_>, woken: &[Follower]) {
    for follower in woken {
        wake_blocked(ctx, follower.client);
    }
}

/// Wakes those whose key lost its value: deleted, expired, overwritten, renamed, moved. Those whose message has
/// not begun lost nothing.
pub fn wake_bereft(ctx: Ctx<'_>) {
    for place in follower_table::take_bereft() {
        let lost = follower_table::take(&place, |f| matches!(f.target, Target::Seq(_)));
        wake_all(ctx, &lost);
    }
}

/// Wakes those whose key is another server's.
pub fn wake_foreign(ctx: Ctx<'_>, served: &Served) {
    for place in follower_table::places() {
        if !served.has(&place.1) {
            wake_all(ctx, &follower_table::take(&place, |_| true));
        }
    }
}

/// Wakes everybody, or all of one database: its keys are others now.
pub fn flushed(ctx: Ctx<'_>, db: Option<c_int>) {
    for place in follower_table::places() {
        if db.is_none_or(|db| db == place.0) {
            wake_all(ctx, &follower_table::take(&place, |_| true));
        }
    }
}

/// When the message that a client follows is abandoned. Its lease is saved and so is a time of the server's clock; the
/// wait for it is not.
fn lapse_of(ctx: Ctx<'_>, follower: &Follower) -> Option<MonotonicMs> {
    let UnixMs(until) = follower.lease_until;
    let left = until.saturating_sub(ctx.now_ms());
    (until > 0).then(|| ctx.monotonic_now().after(left))
}

/// Sees to it that those who wait are looked at then, or before.
fn arm(ctx: Ctx<'_>, due: Option<MonotonicMs>) {
    if let Some(due) = due {
        // Not at once again: what was not due a moment ago is a moment later.
        ALARM.set(ctx, due.max(ctx.monotonic_now().after(1)));
    }
}

fn on_due(ctx: Ctx<'_>) {
    let (now, today) = (ctx.monotonic_now(), UnixMs(ctx.now_ms()));
    for place in follower_table::places() {
        let is_over = |f: &mut Follower| f.linger_due.is_some_and(|due| due.is_past(now));
        wake_all(ctx, &follower_table::take(&place, is_over));
        let silent = follower_table::take(&place, |follower| follower.lease_until.is_past(today));
        if silent.is_empty() || !ctx.select_db(place.0) {
            continue;
        }
        for mut follower in silent {
            match lease_of(ctx, &place.1, &follower) {
                Some(until) => {
                    follower.lease_until = until;
                    follower_table::add(place.clone(), follower);
                }
                None => wake_all(ctx, &[follower]),
            }
        }
    }
    arm(ctx, follower_table::earliest(|f| f.linger_due.into_iter().chain(lapse_of(ctx, f)).min()));
}

/// Until when the message stays open; `None` when it does not.
fn lease_of(ctx: Ctx<'_>, key: &[u8], follower: &Follower) -> Option<UnixMs> {
    let Target::Seq(seq) = follower.target else { return None };
    let session = open_session(ctx, &RString::new(key), Access::Unasked).ok()??;
    let now = UnixMs(ctx.now_ms());
    let seen = session.follow(seq, follower.offset, usize::MAX, now).ok()??;
    let until = seen.lease_until.filter(|until| until.0 > now.0)?;
    (seen.status == Status::Open).then_some(until)
}
