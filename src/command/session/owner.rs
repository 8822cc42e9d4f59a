//! The sessions of an owner: a sorted set of session keys by their last append, kept by
//! `APPEND … OWNER`, and `SESSION.LIST`, which reads it.
//!
//! Owns: how dead sessions leave the set. LIST only reads: it passes over them and notes them for the
//! next append.

use crate::command::parse::{ArgReader, set_once};
use crate::ffi::command::KeyUse;
use crate::ffi::{
    Access, CommandArgs, Ctx, Key, MainCell, RString, Reply, ServerString, WritePermit, ZsetFrom,
};
use crate::keyspace::{Presence, check_second_key, open_session, same_slot};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;

/// Oldest members that an append looks at.
const LOOKED_AT: usize = 16;
/// Most dead sessions noted by LIST at a time.
const NOTED_MAX: usize = 4_096;
/// Of them, those that an append lets go.
const REMOVED_AT_ONCE: usize = 64;

/// Rows of a page when nothing is said.
const ROWS_DEFAULT: u64 = 100;

/// Members that LIST found dead, by database and set.
#[derive(Default)]
struct Noted {
    members: BTreeMap<(c_int, Vec<u8>), BTreeSet<Vec<u8>>>,
    count: usize,
}

static NOTED: MainCell<Noted> = MainCell::new(Noted { members: BTreeMap::new(), count: 0 });

impl Noted {
    fn note(&mut self, db: c_int, owner: &[u8], member: &[u8]) {
        if self.count < NOTED_MAX {
            let own = self.members.entry((db, owner.to_vec())).or_default();
            self.count += usize::from(own.insert(member.to_vec()));
        }
    }

    /// Some of those of a set, which are forgotten.
    fn take(&mut self, db: c_int, owner: &[u8]) -> Vec<Vec<u8>> {
        if self.count == 0 {
            return Vec::new();
        }
        let place = (db, owner.to_vec());
        let Some(own) = self.members.get_mut(&place) else { return Vec::new() };
        let some: Vec<_> = std::iter::from_fn(|| own.pop_first()).take(REMOVED_AT_ONCE).collect();
        if own.is_empty() {
            self.members.remove(&place);
        }
        self.count -= some.len();
        some
    }
}

/// Refuses an owner's key that is in another slot, not the caller's to write, or no sorted set.
pub fn check(ctx: Ctx<'_>, session: &[u8], owner: &[u8]) -> Result<RString> {
    if session == owner {
        return Err(Error::err("OWNER must be another key than the session"));
    }
    let owner = check_second_key(ctx, session, owner, KeyUse::Insert)?;
    // A list that is on its way would be begun again here.
    Presence::of(ctx, session).found(open_set(ctx, &owner)?)?;
    Ok(owner)
}

fn open_set<'a>(ctx: Ctx<'a>, owner: &impl ServerString) -> Result<Option<Key<'a>>> {
    match Key::open(ctx, owner, Access::Read) {
        Some(key) if key.is_zset() => Ok(Some(key)),
        Some(key) if !key.is_empty() => Err(Error::wrong_type()),
        _ => Ok(None),
    }
}

/// Makes the session the newest of its owner and lets a few dead ones go; tells AOF and replicas.
pub fn note_append(ctx: WritePermit<'_>, owner: &RString, session: &[u8], now_ms: u64) {
    let dead = dead_members(*ctx, owner);
    let member = RString::new(session);
    let mut key = Key::open_to_write(ctx, owner);
    if !key.zset_add(&member, now_ms as f64) {
        return;
    }
    let removed: Vec<RString> = dead.into_iter().filter(|member| key.zset_remove(member)).collect();
    drop(key);
    let score = now_ms.to_string();
    ctx.replicate(c"ZADD", &[owner.as_bytes(), score.as_bytes(), session]);
    ctx.notify_zset(c"zadd", owner);
    if !removed.is_empty() {
        let mut args: Vec<&[u8]> = vec![owner.as_bytes()];
        args.extend(removed.iter().map(ServerString::as_bytes));
        ctx.replicate(c"ZREM", &args);
        ctx.notify_zset(c"zrem", owner);
    }
}

/// Some members whose sessions are gone: those noted by LIST, and of the oldest.
fn dead_members(ctx: Ctx<'_>, owner: &RString) -> Vec<RString> {
    let db = ctx.db();
    let noted = NOTED.with(|noted| noted.take(db, owner.as_bytes()));
    let mut members: Vec<RString> = noted.iter().map(|member| RString::new(member)).collect();
    if let Ok(Some(key)) = open_set(ctx, owner) {
        let mut seen = 0;
        key.zset_walk(ZsetFrom::Lowest, f64::INFINITY, |member, _| {
            members.push(RString::new(member.as_bytes()));
            seen += 1;
            seen < LOOKED_AT
        });
    }
    if !Presence::of(ctx, owner.as_bytes()).is_whole() {
        // A session that is not here may be on its way.
        return Vec::new();
    }
    // Opening a session that is due deletes it: not while the set is walked.
    members.retain(|member| {
        same_slot(ctx, owner.as_bytes(), member.as_bytes()).is_ok()
            && !matches!(open_session(ctx, member, Access::Probe), Ok(Some(_)))
    });
    members
}

/// Runs `SESSION.LIST owner [COUNT n] [BEFORE ms]`.
pub fn run_list(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (count, before) = read_page(ArgReader::new(args.options()))?;
    let below = before.map_or(f64::INFINITY, |before| before as f64);
    let presence = Presence::of(ctx, args.name());
    let Some(key) = presence.found(open_set(ctx, &args.key())?)? else {
        Reply::new(ctx).array(0);
        return Ok(());
    };
    let (mut rows, mut refused) = (Vec::new(), None);
    // Sessions looked at, where the walk was last, and where to continue once too many were.
    let (mut looked, mut last, mut go_on) = (0, below, None);
    key.zset_walk(ZsetFrom::Highest, below, |member, score| {
        // Sessions of one moment stay on one page: the next begins before it.
        if rows.len() >= count && score < last {
            return false;
        }
        if looked >= limits::SESSION_LIST_LOOKED_MAX && score < last {
            go_on = Some(last as u64);
            return false;
        }
        last = score;
        let found = match row(ctx, &presence, args.name(), member) {
            Ok(found) => found,
            Err(error) => {
                refused = Some(error);
                return false;
            }
        };
        looked += 1;
        rows.extend(found.map(|(length, tokens)| {
            (RString::new(member.as_bytes()), score as u64, length, tokens)
        }));
        rows.len() < limits::SESSION_LIST_MAX as usize
    });
    drop(key);
    if let Some(error) = refused {
        return Err(error);
    }
    let reply = Reply::new(ctx).array(rows.len() + usize::from(go_on.is_some()));
    for (member, at_ms, length, tokens) in rows {
        reply.array(4).string(&member).count(at_ms).count(length).count(tokens);
    }
    if let Some(before_ms) = go_on {
        reply.array(4).null().count(before_ms).int(0).int(0);
    }
    Ok(())
}

/// Reads the options of `SESSION.LIST`: how many rows, and the time before which they were used.
fn read_page(mut reader: ArgReader<'_>) -> Result<(usize, Option<u64>)> {
    let (mut count, mut before) = (None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "COUNT" => {
                let most = limits::SESSION_LIST_MAX;
                set_once(&mut count, reader.integer(name, 1, most)?, name)?;
            }
            "BEFORE" => {
                set_once(&mut before, reader.integer(name, 0, limits::SCORE_MAX_MS)?, name)?
            }
            _ => return Err(word.unknown()),
        }
    }
    Ok((count.unwrap_or(ROWS_DEFAULT) as usize, before))
}

/// Length and tokens of a member's session; `None` when it is gone, or not the caller's to read; an error where it
/// may be on another server.
fn row(
    ctx: Ctx<'_>,
    presence: &Presence<'_>,
    owner: &[u8],
    member: &RString,
) -> Result<Option<(u64, u64)>> {
    if same_slot(ctx, owner, member.as_bytes()).is_err() || !ctx.may_use_key(member, KeyUse::Read) {
        return Ok(None);
    }
    // A key of another type is no session; it is there, though.
    let found = open_session(ctx, member, Access::Probe);
    if let Ok(found) = found
        && let Some(session) = presence.found(found)?
    {
        let totals = session.totals();
        return Ok(Some((totals.messages, totals.tokens)));
    }
    NOTED.with(|noted| noted.note(ctx.db(), owner, member.as_bytes()));
    Ok(None)
}
