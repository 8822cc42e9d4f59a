//! `SESSION.BEGIN`, `CHUNK`, `END` and `STOP`: write a message that is read meanwhile.

use super::find;
use super::request::{id, payload, role, seq, tokens};
use crate::command::llmcache::setsem::{StoreRequest, store_answer};
use crate::command::parse::{ArgReader, flag_once, json_object, set_once};
use crate::ffi::command::KeyUse;
use crate::ffi::{Access, CommandArgs, Ctx, RString, Reply, ServerString};
use crate::keyspace::{
    Deadline, Linking, Presence, change_session, check_second_key, open_cache, open_entry,
};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::{BeginRequest, Effect, Status};

/// How long each write keeps a message its producer's when nothing is said.
const LEASE_DEFAULT_MS: u32 = 30_000;

/// Runs `SESSION.BEGIN s role [ID id] [LEASE ms] [META json] [TAKEOVER]`.
pub fn run_begin(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let role = role(&mut reader)?;
    let (mut own_id, mut lease_ms, mut meta, mut takeover) = (None, None, None, false);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "ID" => set_once(&mut own_id, id(&mut reader, name)?, name)?,
            "LEASE" => {
                let most = limits::SESSION_LEASE_MAX_MS;
                set_once(&mut lease_ms, reader.integer(name, 1, most)? as u32, name)?;
            }
            "META" => set_once(&mut meta, json_object(&mut reader, name)?, name)?,
            "TAKEOVER" => flag_once(&mut takeover, name)?,
            _ => return Err(word.unknown()),
        }
    }
    let lease_ms = lease_ms.unwrap_or(LEASE_DEFAULT_MS);
    let request = BeginRequest { role, id: own_id, lease_ms, meta, takeover };
    let (now_ms, token) = (ctx.now_ms(), ctx.random());
    let session = find(ctx, args, Access::Probe)?;
    let began = session.plan_begin(&request, UnixMs(now_ms), token)?;
    let deadline = Deadline::slid(session.ttl_ms(), now_ms);
    drop(session);
    let is_producer = began.effect.is_some();
    if let Some(effect) = began.effect {
        change_session(args.permit(), &args.key(), &[effect], deadline);
    }
    let reply = Reply::new(ctx).array(3).count(began.seq.0.into());
    match is_producer {
        true => reply.text(&format!("{token:016x}")),
        false => reply.null(),
    };
    reply.count(began.offset);
    Ok(())
}

/// Reads the token that BEGIN gave.
fn token(args: &mut ArgReader<'_>) -> Result<u64> {
    let text = args.next("the token")?;
    let number = std::str::from_utf8(text).ok().filter(|text| text.len() == 16);
    // Whatever else it is, it is not the producer's.
    number
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Error::new(ErrorWord::LeaseLost, "another producer has the message"))
}

/// Runs `SESSION.CHUNK s seq token offset data`.
pub fn run_chunk(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (seq, token) = (seq(&mut reader, "seq")?, token(&mut reader)?);
    let offset = reader.integer("offset", 0, limits::SESSION_PAYLOAD_MAX_BYTES as u64)?;
    let data = payload(&mut reader)?;
    reader.finish()?;
    let now_ms = ctx.now_ms();
    let session = find(ctx, args, Access::Probe)?;
    let chunked = session.plan_chunk(seq, token, offset, data, UnixMs(now_ms))?;
    let deadline = Deadline::slid(session.ttl_ms(), now_ms);
    drop(session);
    if let Some(effect) = chunked.effect {
        change_session(args.permit(), &args.key(), &[effect], deadline);
    }
    Reply::new(ctx).array(2).count(chunked.end).int(i64::from(chunked.stop));
    Ok(())
}

/// What END says besides the message.
#[derive(Debug, Default)]
struct EndRequest<'a> {
    status: Option<Status>,
    tokens: Option<u32>,
    meta: Option<&'a [u8]>,
    cache: Option<&'a [u8]>,
    answer: StoreRequest<'a>,
}

impl<'a> EndRequest<'a> {
    fn parse(args: &mut ArgReader<'a>, now: UnixMs) -> Result<Self> {
        let mut request = Self::default();
        let mut of_answer = false;
        while let Some(word) = args.option() {
            let name = word.as_str();
            match name {
                "STATUS" => {
                    let given = Status::parse(args.next(name)?);
                    let given = given.filter(|s| matches!(s, Status::Done | Status::Failed));
                    let given = given.ok_or_else(|| Error::err("STATUS must be done or error"))?;
                    set_once(&mut request.status, given, name)?;
                }
                "TOKENS" => set_once(&mut request.tokens, tokens(args)?, name)?,
                "META" => set_once(&mut request.meta, json_object(args, name)?, name)?,
                "CACHE" => set_once(&mut request.cache, args.next(name)?, name)?,
                _ if request.answer.read_of_message(&word, args, now)? => of_answer = true,
                _ => return Err(word.unknown()),
            }
        }
        let has_cache = request.cache.is_some();
        if has_cache != request.answer.has_prompt() || (of_answer && !has_cache) {
            return Err(Error::err("syntax error: CACHE and PROMPT belong together"));
        }
        request.answer.settle_context()?;
        Ok(request)
    }
}

/// Runs `SESSION.END s seq token [STATUS done|error] [TOKENS n] [META json] [CACHE c PROMPT p …]`.
pub fn run_end(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (seq, token) = (seq(&mut reader, "seq")?, token(&mut reader)?);
    let now = UnixMs(ctx.now_ms());
    let request = EndRequest::parse(&mut reader, now)?;
    let cache = request.cache.map(|cache| check_cache(ctx, args.name(), cache)).transpose()?;
    let session = find(ctx, args, Access::Probe)?;
    let ended = session.plan_end(seq, token, request.status, request.tokens, request.meta)?;
    let deadline = Deadline::slid(session.ttl_ms(), now.0);
    // A copy: storing the answer opens other keys.
    let is_stored = cache.is_some() && ended.status == Status::Done && ended.effect.is_some();
    let is_again = cache.is_some() && ended.status == Status::Done && ended.effect.is_none();
    let text = session
        .locate(seq)
        .filter(|_| is_stored || is_again)
        .map(|at| session.message(at).payload.to_vec());
    drop(session);
    if let (Some(cache), Some(text)) = (&cache, &text) {
        if is_again {
            check_stored(ctx, cache, &request.answer, text)?;
        } else {
            let answer = request.answer.responding(text, request.tokens.map(u64::from));
            store_answer(args.permit(), cache, &answer, now, Linking::AlongTheWay)?;
        }
    }
    if let Some(effect) = ended.effect {
        change_session(args.permit(), &args.key(), &[effect], deadline);
    }
    Reply::new(ctx).array(2).count(seq.0.into()).count(ended.bytes);
    Ok(())
}

/// Refuses an END sent again that names an answer which the first did not store: nothing would be done.
fn check_stored(
    ctx: Ctx<'_>,
    cache: &RString,
    answer: &StoreRequest<'_>,
    text: &[u8],
) -> Result<()> {
    let presence = Presence::of(ctx, cache.as_bytes());
    if let Some(cache) = open_cache(ctx, cache)? {
        let key = cache.with(|cache| cache.entry_key(&answer.digest()));
        let entry = presence.found(open_entry(ctx, &key, Access::Probe))?;
        if entry.is_some_and(|entry| *entry.view().response() == *text) {
            return Ok(());
        }
    }
    Err(Error::err("the message has ended, and CACHE does not hold it: nothing was stored"))
}

/// Refuses a cache that is in another slot, not the caller's to write, or the session itself.
fn check_cache(ctx: Ctx<'_>, session: &[u8], cache: &[u8]) -> Result<RString> {
    if session == cache {
        return Err(Error::err("CACHE must be another key than the session"));
    }
    check_second_key(ctx, session, cache, KeyUse::Insert)
}

/// Runs `SESSION.STOP s seq`.
pub fn run_stop(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let seq = seq(&mut reader, "seq")?;
    reader.finish()?;
    let effect: Option<Effect<'_>> = find(ctx, args, Access::Probe)?.plan_stop(seq);
    let stopped = effect.is_some();
    if let Some(effect) = effect {
        change_session(args.permit(), &args.key(), &[effect], Deadline::Keep);
    }
    Reply::new(ctx).int(i64::from(stopped));
    Ok(())
}
