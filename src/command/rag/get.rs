//! `RAG.GET` and `RAG.MGET`: return documents by id.

use super::{check_id, document_id, key_name};
use crate::command::container::hit_reply::{self, Field, Served};
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply, Tape};
use crate::keyspace::{
    AnswerRoom, OpenedEntry, Pieces, Presence, answer_room, now_min, open_container, open_entry,
    reply_whole, run_pieces,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Hit, Kind, MissReason, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;

/// What RETURN of `RAG.MGET` knows; without it the first eight are answered, as by `RAG.GET`.
const FIELDS: [Field; 9] = [
    Field::Document,
    Field::Text,
    Field::Meta,
    Field::Tags,
    Field::Tokens,
    Field::Age,
    Field::Ttl,
    Field::Hits,
    Field::Vector,
];
const USUAL: usize = 8;

/// Runs `RAG.GET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = document_id(&mut reader)?;
    reader.finish()?;
    let reply = Reply::new(ctx);
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        reply.null();
        return Ok(());
    };
    let entry = find(ctx, &cache, args.name(), id)?;
    answer(ctx, reply, &cache, entry, &FIELDS[..USUAL]);
    Ok(())
}

/// Runs `RAG.MGET`.
pub fn run_mget(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (ids, fields) = parse_mget(ArgReader::new(args.options()))?;
    let room = answer_room(ctx)?;
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        let reply = Reply::new(ctx).array(ids.len());
        ids.iter().for_each(|_| {
            reply.null();
        });
        return Ok(());
    };
    let ids: Vec<Box<[u8]>> = ids.into_iter().map(Box::from).collect();
    let (count, name) = (ids.len(), args.name().to_vec());
    let (ids, told) = (ids.into_iter(), Tape::default());
    let many = Many { cache, name, ids, count, fields, room, told, is_begun: false, refused: None };
    run_pieces(args, many);
    Ok(())
}

/// Elements of a reply that are written as one part.
const ELEMENTS_AT_ONCE: usize = 128;

/// Documents that are asked for together: all are read before the first is answered, since an error is the whole reply.
struct Many {
    cache: SharedCache,
    /// The container's key.
    name: Vec<u8>,
    ids: std::vec::IntoIter<Box<[u8]>>,
    count: usize,
    fields: Vec<Field>,
    room: AnswerRoom,
    told: Tape,
    is_begun: bool,
    refused: Option<Error>,
}

impl Many {
    fn read(&mut self, ctx: Ctx<'_>, id: &[u8]) -> Result<()> {
        let entry = find(ctx, &self.cache, &self.name, id)?;
        let bytes = |entry: &OpenedEntry<'_>| hit_reply::bytes_of(&entry.view(), &self.fields);
        self.room.one(entry.as_ref().map_or(0, bytes))?;
        answer(ctx, Reply::taped(ctx, &self.told), &self.cache, entry, &self.fields);
        Ok(())
    }
}

impl Pieces for Many {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(id) = self.ids.next() else { return false };
        self.refused = self.read(ctx, &id).err();
        self.refused.is_none()
    }

    fn has_long_reply(&self) -> bool {
        self.told.left() > 4 * ELEMENTS_AT_ONCE
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        let reply = Reply::new(ctx);
        if let Some(refused) = &self.refused {
            reply.error(&refused.to_string());
            return false;
        }
        if !std::mem::replace(&mut self.is_begun, true) {
            reply.array(self.count);
        }
        self.told.play(reply, ELEMENTS_AT_ONCE)
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}

fn parse_mget<'a>(mut args: ArgReader<'a>) -> Result<(Vec<&'a [u8]>, Vec<Field>)> {
    let (mut ids, mut fields) = (None, None);
    while let Some(word) = args.option() {
        match word.as_str() {
            "IDS" => set_once(&mut ids, args.list("IDS", limits::STORE_BATCH_MAX)?, "IDS")?,
            "RETURN" => {
                let named = hit_reply::parse_fields(args.list("RETURN", FIELDS.len())?, &FIELDS)?;
                set_once(&mut fields, named, "RETURN")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let ids = ids.ok_or_else(|| Error::err("syntax error: IDS is needed"))?;
    let ids = ids.iter().map(|id| check_id(id)).collect::<Result<Vec<_>>>()?;
    Ok((ids, fields.unwrap_or_else(|| FIELDS[..USUAL].to_vec())))
}

/// Answers a document that was found or not, and counts that.
fn answer(
    ctx: Ctx<'_>,
    reply: Reply<'_>,
    cache: &SharedCache,
    entry: Option<OpenedEntry<'_>>,
    fields: &[Field],
) {
    let Some(entry) = entry else {
        cache.with(|cache| cache.stats.note_miss(b"", MissReason::Empty, None));
        reply.null();
        return;
    };
    let hits = cache.with(|cache| {
        cache.stats.note_hit(b"", Tier::Exact, &entry.view(), None);
        cache.note_hit(&entry.view(), now_min())
    });
    let hit = Hit { tier: Tier::Exact, similarity: 1.0, id: None, entry };
    let served = Served { hits, stale: false, verified: None };
    hit_reply::write(reply, &hit, fields, served, UnixMs(ctx.now_ms()));
}

fn find<'c>(
    ctx: Ctx<'c>,
    cache: &SharedCache,
    name: &[u8],
    id: &[u8],
) -> Result<Option<OpenedEntry<'c>>> {
    let (key, uid) = cache.with(|cache| (cache.named_key(&key_name(id)), cache.uid()));
    let entry = Presence::of(ctx, name).found(open_entry(ctx, &key, Access::Read))?;
    Ok(entry.filter(|entry| {
        let view = entry.view();
        view.uid() == uid && view.answers(b"", b"", id)
    }))
}
