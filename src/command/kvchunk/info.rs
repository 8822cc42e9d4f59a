//! `KVCHUNK.INFO`, `STATS`, `SCAN` and `VERIFY`: settings, statistics, contents and integrity of a namespace.

use super::{is_sound, need_namespace};
use crate::command::filtered::Sieve;
use crate::command::parse::{ArgReader, PageRequest, flag_once, page_request, set_once};
use crate::ffi::command::KeyUse;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Pieces, Presence, open_chunk, open_namespace, room_of, run_pieces};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{Checksum, ChunkDigest, KvStats, Namespace};
use llmcache_core::limits;
use std::vec::IntoIter;

/// Runs `KVCHUNK.INFO`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    ArgReader::new(args.options()).finish()?;
    let namespace = need_namespace(ctx, args)?;
    let room = room_of(&namespace);
    let now = ctx.monotonic_now();
    let reply = Reply::new(ctx);
    namespace.with(|namespace| {
        namespace.leases.lapse(&mut namespace.tree, now, limits::KV_LAPSED_AT_ONCE);
        write_info(reply, args.name(), namespace, room);
    });
    Ok(())
}

fn write_info(reply: Reply<'_>, name: &[u8], namespace: &mut Namespace, room: u64) {
    let orphans = namespace.tree.orphans(limits::KV_ORPHANS_COUNTED, |_| true).len() as u64;
    let (settings, tree) = (namespace.settings(), &namespace.tree);
    reply.map(25);
    reply.text("name").bytes(name);
    reply.text("uid").text(&namespace.uid().to_string());
    reply.text("prefix").bytes(namespace.prefix());
    reply.text("fingerprint");
    let fingerprint = ChunkDigest::from_bytes(namespace.fingerprint());
    reply.text(&fingerprint.map_or_else(String::new, |print| print.hex()));
    reply.text("model").bytes(&settings.model);
    reply.text("dtype").text(settings.dtype.as_str());
    reply.text("format").bytes(&settings.format);
    reply.text("shape").array(settings.shape.len());
    for &dim in &settings.shape {
        reply.count(dim.into());
    }
    reply.text("chunk").count(settings.chunk_tokens.into());
    reply.text("salted").int((!settings.salt.is_empty()).into());
    reply.text("ttl").count(settings.ttl_ms / 1_000);
    reply.text("budget").count(settings.budget_bytes);
    reply.text("room").count(room);
    let checksum = if settings.checksum == Checksum::On { "on" } else { "off" };
    reply.text("checksum").text(checksum);
    reply.text("durable").text(settings.durable.as_str());
    reply.text("chunks").count(tree.chunks());
    reply.text("bytes").count(tree.chunk_bytes());
    reply.text("payload_bytes").count(tree.payload_bytes());
    reply.text("tree_bytes").count(tree.heap_bytes() as u64);
    reply.text("evictable").count(tree.evictable_leaves() as u64);
    reply.text("orphans").count(orphans);
    reply.text("pinned").count(tree.pinned());
    reply.text("leases").count(namespace.leases.len() as u64);
    reply.text("half_life").count(tree.half_life() as u64);
    reply.text("keeps_one_in").count(tree.one_chain_in().into());
}

/// Runs `KVCHUNK.STATS`.
pub fn run_stats(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut reset = false;
    while let Some(word) = reader.option() {
        match word.as_str() {
            "RESET" => flag_once(&mut reset, "RESET")?,
            _ => return Err(word.unknown()),
        }
    }
    let namespace = need_namespace(ctx, args)?;
    let stats = namespace.with(|namespace| {
        let stats = namespace.stats;
        if reset {
            namespace.stats = KvStats::default();
        }
        stats
    });
    let ratio = if stats.asked == 0 { 0.0 } else { stats.matched as f64 / stats.asked as f64 };
    let reply = Reply::new(ctx).map(12);
    for (name, count) in [
        ("stored", stats.stored),
        ("exists", stats.exists),
        ("rejected", stats.rejected),
        ("evicted", stats.evicted),
        ("matches", stats.matches),
        ("fetches", stats.fetches),
        ("asked", stats.asked),
        ("matched", stats.matched),
    ] {
        reply.text(name).count(count);
    }
    reply.text("hit_ratio").double((ratio * 1e4).round() / 1e4);
    reply.text("bytes_in").count(stats.bytes_in);
    reply.text("bytes_out").count(stats.bytes_out);
    reply.text("damaged").count(stats.damaged);
    Ok(())
}

/// The next chunks of a namespace, from a place of its listing on; where to go on, 0 at the end.
pub(super) fn page(
    namespace: &SharedNamespace,
    from: u32,
    count: usize,
) -> (u32, Vec<ChunkDigest>) {
    namespace.with(|namespace| {
        let (tree, mut found, mut last) = (&namespace.tree, Vec::new(), from);
        for (place, id) in tree.listed_from(from) {
            // Those that share a place are told together: a page ends between two places.
            if found.len() >= count && place != last {
                return (place, found);
            }
            found.push(tree.node(id).digest.clone());
            last = place;
        }
        (0, found)
    })
}

/// Runs `KVCHUNK.SCAN`.
pub fn run_scan(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let PageRequest { cursor, count, filter } = page_request(ArgReader::new(args.options()))?;
    let Some(namespace) = open_namespace(ctx, &args.key())? else {
        Reply::new(ctx).array(2).text("0").array(0);
        return Ok(());
    };
    Presence::of(ctx, args.name()).need_all()?;
    let (sieve, found) = (Sieve::new(filter), Vec::new());
    let page = Scanning { namespace, sieve, at: Some(cursor), left: count, found, refused: None };
    run_pieces(args, page);
    Ok(())
}

/// A page of chunks: so many are looked at, fewer where judging them takes long.
struct Scanning {
    namespace: SharedNamespace,
    sieve: Sieve,
    /// Where to go on in the tree; nothing at its end.
    at: Option<u32>,
    left: usize,
    found: Vec<ChunkDigest>,
    refused: Option<Error>,
}

impl Pieces for Scanning {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(at) = self.at else { return false };
        let next = self.namespace.with(|namespace| {
            let (next, id) = namespace.tree.next_from(at)?;
            Some((next, id.map(|id| namespace.tree.node(id).digest.clone())))
        });
        if self.left == 0 || self.sieve.is_spent() {
            // What is left of the tree may have no more chunks: then this page ends the walk.
            let is_gap = matches!(next, Some((_, None)));
            self.at = next.map(|(next, _)| if is_gap { next } else { at });
            return is_gap;
        }
        self.at = next.as_ref().map(|(next, _)| *next);
        let Some((_, Some(digest))) = next else { return next.is_some() };
        self.left -= 1;
        if let Some(chunk) = open_chunk(ctx, &self.namespace, &digest, Access::Probe) {
            match self.sieve.passes(&chunk.header.meta) {
                Ok(true) => self.found.push(digest),
                Ok(false) => {}
                Err(error) => self.refused = Some(error),
            }
        }
        self.refused.is_none()
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let reply = Reply::new(ctx);
        if let Some(error) = &self.refused {
            return reply.error(&error.to_string());
        }
        reply.array(2).text(&self.at.unwrap_or(0).to_string()).array(self.found.len());
        self.found.iter().for_each(|digest| {
            reply.text(&digest.hex());
        });
    }
}

/// Chunks that one VERIFY looks at when nothing is said.
const VERIFY_DEFAULT: u64 = 16;

/// Runs `KVCHUNK.VERIFY`.
pub fn run_verify(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut count, mut given) = (None, None);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "COUNT" => {
                let most = u64::from(limits::SCAN_COUNT_MAX);
                set_once(&mut count, reader.integer("COUNT", 1, most)?, "COUNT")?;
            }
            "FROM" => {
                let at = reader.integer("FROM", 0, u64::from(u32::MAX))?;
                set_once(&mut given, at as u32, "FROM")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let namespace = need_namespace(ctx, args)?;
    // The walk that the namespace remembers is everybody's: whoever may only read has one of their own.
    let shared = given.is_none() && ctx.may_use_key(&args.key(), KeyUse::Update);
    let kept = || namespace.with(|namespace| namespace.verify_at);
    let from = given.unwrap_or_else(|| if shared { kept() } else { 0 });
    let (next, digests) = page(&namespace, from, count.unwrap_or(VERIFY_DEFAULT) as usize);
    if shared {
        namespace.with(|namespace| namespace.verify_at = next);
    }
    let digests = digests.into_iter();
    run_pieces(args, Verifying { namespace, digests, next, checked: 0, damaged: Vec::new() });
    Ok(())
}

/// Chunks that are compared with their checksums.
struct Verifying {
    namespace: SharedNamespace,
    digests: IntoIter<ChunkDigest>,
    /// Where the next VERIFY goes on.
    next: u32,
    checked: u64,
    damaged: Vec<ChunkDigest>,
}

impl Pieces for Verifying {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(digest) = self.digests.next() else { return false };
        let Some(chunk) = open_chunk(ctx, &self.namespace, &digest, Access::Probe) else {
            return true;
        };
        self.checked += 1;
        if !is_sound(ctx, &self.namespace, &chunk) {
            self.damaged.push(digest);
        }
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let reply = Reply::new(ctx).map(3);
        reply.text("checked").count(self.checked);
        reply.text("next").count(self.next.into());
        reply.text("damaged").array(self.damaged.len());
        self.damaged.iter().for_each(|digest| {
            reply.text(&digest.hex());
        });
    }
}
