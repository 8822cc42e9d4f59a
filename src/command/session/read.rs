//! `SESSION.WINDOW`, `RANGE`, `GET` and `LEN`: read messages.

use super::request::{id, roles, seq};
use super::{find, reply};
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{AnswerRoom, Pieces, answer_room, run_pieces};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::{MessageSeq, Range, Session, WindowRequest, to_json, window_json};

/// Runs `SESSION.WINDOW`.
pub fn run_window(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (request, as_json) = parse_window(ArgReader::new(args.options()))?;
    let session = find(ctx, args, Access::Read)?;
    let mut request = request;
    request.bytes = Some(answer_room(ctx)?.left());
    let window = session.window(&request);
    let to = Reply::new(ctx).array(4).count(window.tokens);
    to.count(window.first.map_or(0, |seq| seq.0).into()).int(i64::from(window.more));
    if as_json {
        to.bytes(&window_json(&session, &window.messages, window.tokens));
    } else {
        reply::list(to, &session, &window.messages, UnixMs(ctx.now_ms()));
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
    let wanted = session.roles_of(wanted);
    let most = limits::SESSION_REPLY_MESSAGES_MAX;
    let range = Range { from, to, reverse, wanted, count: count.unwrap_or(u64::MAX) };
    let found = match session.range(&range) {
        Ok(found) => found,
        Err(at) => {
            let way = if reverse { "to" } else { "from" };
            return Err(Error::new(
                ErrorWord::TooBig,
                format!(
                    "the range has more than {most} messages, or passes over more than {}; ask by COUNT, \
                     and go on with {way} {at}",
                    limits::SESSION_WALKED_MAX
                ),
            ));
        }
    };
    answer_room(ctx)?.all(session.reply_bytes(&found))?;
    reply::list(Reply::new(ctx), &session, &found, UnixMs(ctx.now_ms()));
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
        Some(at) => {
            reply::full(Reply::new(ctx), &session.whole_message(at), UnixMs(ctx.now_ms()));
        }
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

/// Runs `SESSION.EXPORT s [FROM seq] [COUNT n]`: a line of JSON for each message.
pub fn run_export(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut from, mut count) = (None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "FROM" => set_once(&mut from, seq(&mut reader, name)?, name)?,
            "COUNT" => {
                let most = limits::SESSION_REPLY_MESSAGES_MAX as u64;
                set_once(&mut count, reader.integer(name, 1, most)? as usize, name)?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let session = find(ctx, args, Access::Read)?;
    let is_page = from.is_some() || count.is_some();
    let most = limits::SESSION_REPLY_MESSAGES_MAX;
    if !is_page && session.len() > most as u64 {
        let text = format!(
            "the session has {} messages, the most in one reply is {most}; use FROM and COUNT",
            session.len()
        );
        return Err(Error::new(ErrorWord::TooBig, text));
    }
    // What is written out is the session as it is now: a copy shares all its blocks.
    let copy = session.fork(MessageSeq(u32::MAX));
    drop(session);
    let (next, room) = (from.unwrap_or(MessageSeq(0)), answer_room(ctx)?);
    let left = count.unwrap_or(most);
    run_pieces(
        args,
        Exporting { copy, next, left, is_page, room, lines: Vec::new(), refused: None },
    );
    Ok(())
}

/// Messages written out as one piece, at most, and after how many bytes of lines the piece ends.
const EXPORTED_AT_ONCE: usize = 64;
const EXPORTED_BYTES_AT_ONCE: usize = 1 << 16;

struct Exporting {
    copy: Session,
    next: MessageSeq,
    left: usize,
    is_page: bool,
    room: AnswerRoom,
    lines: Vec<Vec<u8>>,
    refused: Option<Error>,
}

impl Pieces for Exporting {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, _: Ctx<'_>) -> bool {
        let (mut bytes, mut is_last) = (0, true);
        for message in self.copy.whole_messages_from(self.next).take(EXPORTED_AT_ONCE) {
            let line = to_json(&message);
            match self.room.one(line.len() as u64) {
                Ok(()) => {}
                Err(_) if self.is_page => return false,
                Err(error) => {
                    self.refused = Some(error);
                    return false;
                }
            }
            self.next = MessageSeq(message.seq.0.saturating_add(1));
            self.left -= 1;
            bytes += line.len();
            self.lines.push(line);
            is_last = self.left == 0;
            if is_last || bytes >= EXPORTED_BYTES_AT_ONCE {
                break;
            }
        }
        !is_last
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        if let Some(error) = self.refused.take() {
            Reply::new(ctx).error(&error.to_string());
            return;
        }
        let reply = Reply::new(ctx).array(self.lines.len());
        self.lines.iter().for_each(|line| {
            reply.bytes(line);
        });
    }
}
