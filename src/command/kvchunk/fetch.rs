//! `KVCHUNK.MATCH`, `FETCH`, `GET`, `MISSING` and `DIGESTS`: which chunks of a prompt are there, and
//! their payloads.

use super::chain::ChainArgs;
use super::page::{FetchRequest, range, write_chunk, write_meta, write_payload};
use super::retention::{begin_lease, hold_by, lease, lease_ms};
use super::{hex_digest, need_namespace, sparse, was_sound_lately};
use crate::command::filtered::Sieve;
use crate::command::parse::{ArgReader, flag_once, parse_filter, set_once};
use crate::config;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::in_flight;
use crate::keyspace::{
    LeadingRun, OpenedChunk, Pieces, find_namespace, is_reachable, open_chunk, open_leading_run,
    run_pieces, use_chunk, use_path,
};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::filter::Filter;
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, LeaseId, NodeId};
use std::cell::Cell;

/// Runs `KVCHUNK.MATCH`.
pub fn run_match(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut filter, mut length_ms) = (ChainArgs::default(), None, None);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "FILTER" => set_once(&mut filter, parse_filter(&mut reader)?, "FILTER")?,
            "LEASE" => set_once(&mut length_ms, lease_ms(&mut reader)?, "LEASE")?,
            _ if chain.read(&word, &mut reader)? => {}
            _ => return Err(word.unknown()),
        }
    }
    chain.check()?;
    let Some(namespace) = find_namespace(ctx, &args.key())? else {
        Reply::new(ctx).array(3).int(0).int(0).null();
        return Ok(());
    };
    let digests = namespace.with(|namespace| chain.digests(namespace))?;
    let lease = match length_ms {
        Some(length_ms) => Some(begin_lease(ctx, &namespace, length_ms)?),
        None => None,
    };
    let run = LeadingRun::new();
    run_pieces(args, Matching { namespace, digests, run, filter, refused: None, lease });
    Ok(())
}

struct Matching {
    namespace: SharedNamespace,
    digests: Vec<ChunkDigest>,
    run: LeadingRun,
    filter: Option<Filter>,
    /// Why the filter could not be answered.
    refused: Option<Error>,
    lease: Option<LeaseId>,
}

impl Pieces for Matching {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let refused = Cell::new(None);
        let sieve = Sieve::new(self.filter.as_ref());
        let accept = |header: &ChunkHeader| match sieve.passes(&header.meta) {
            Ok(passes) => passes,
            Err(error) => {
                refused.set(Some(error));
                false
            }
        };
        let (namespace, digests) = (&self.namespace, &self.digests);
        if self.run.next(ctx, namespace, digests, Access::Probe, accept).is_none() {
            self.refused = refused.take();
            return false;
        }
        if let Some(id) = self.lease {
            hold_by(ctx, namespace, id, &digests[self.run.len() - 1]);
        }
        true
    }

    fn tell(&mut self, _: Ctx<'_>) {
        self.run.pause();
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        if let Some(error) = &self.refused {
            return Reply::new(ctx).error(&error.to_string());
        }
        let (matched, asked) = (self.run.len() as u64, self.digests.len() as u64);
        let tokens = self.namespace.with(|namespace| {
            namespace.stats.matches += 1;
            namespace.note_asked(asked, matched);
            if let Some(id) = self.lease.filter(|_| matched == 0) {
                namespace.leases.release(&mut namespace.tree, id);
            }
            matched * u64::from(namespace.settings().chunk_tokens)
        });
        let reply = Reply::new(ctx).array(3);
        reply.count(matched).count(tokens);
        match self.lease.filter(|_| matched > 0) {
            Some(id) => reply.count(id),
            None => reply.null(),
        };
    }
}

/// Runs `KVCHUNK.FETCH`.
pub fn run_fetch(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let request = FetchRequest::parse(ArgReader::new(args.options()))?;
    let reply = Reply::new(ctx);
    let elements = 4 + usize::from(request.lease_ms.is_some());
    let Some(namespace) = find_namespace(ctx, &args.key())? else {
        reply.array(elements).int(0).int(0).int(0).array(0);
        if request.lease_ms.is_some() {
            reply.null();
        }
        return Ok(());
    };
    let most = config::kv_in_flight();
    if most > 0 && in_flight() >= most {
        return Err(Error::new(
            ErrorWord::Busy,
            "too many payload bytes are on their way to clients; see llmcache.kv-in-flight",
        ));
    }
    let digests = namespace.with(|namespace| request.chain.digests(namespace))?;
    if request.sparse {
        return sparse::answer(ctx, &request, &namespace, &digests);
    }
    let mut run = open_leading_run(ctx, &namespace, &digests, Access::Probe);
    let mut page = request.page(&run);
    let is_bad = |chunk: &OpenedChunk<'_>| !was_sound_lately(ctx, &namespace, chunk);
    if let Some(bad) = run[page.clone()].iter().position(is_bad) {
        run.truncate(page.start + bad);
        page.end = run.len();
    }
    let leased = match request.lease_ms.filter(|_| !run.is_empty()) {
        Some(length_ms) => Some(lease(ctx, &namespace, &digests[..run.len()], length_ms)?),
        None => None,
    };
    note_use(ctx, &namespace, &digests, &page);
    reply.array(elements);
    reply.count(run.len() as u64).count(page.len() as u64).count(page.end as u64);
    reply.array(page.len());
    let mut bytes = 0;
    for chunk in &run[page] {
        write_chunk(reply, chunk, request.range);
        bytes += request.answered_bytes(chunk);
    }
    if request.lease_ms.is_some() {
        match leased {
            Some(id) => reply.count(id),
            None => reply.null(),
        };
    }
    let matched = run.len() as u64;
    namespace.with(|namespace| {
        namespace.note_asked(digests.len() as u64, matched);
        namespace.stats.fetches += 1;
        namespace.stats.bytes_out += bytes;
    });
    Ok(())
}

/// Counts the use of a page of a prefix: of its chunks in the tree, and of all up to its end in the
/// server's own counters.
fn note_use(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    digests: &[ChunkDigest],
    page: &std::ops::Range<usize>,
) {
    namespace.with(|namespace| {
        let tree = &mut namespace.tree;
        let path: Vec<NodeId> =
            digests[page.clone()].iter().filter_map(|digest| tree.find(digest)).collect();
        tree.touch(&path);
    });
    let path: Vec<ChunkDigest> = digests[..page.end].iter().rev().cloned().collect();
    use_path(ctx, namespace, &path);
}

/// Runs `KVCHUNK.GET`.
pub fn run_get(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let digest = hex_digest(reader.next("the digest")?)?;
    let (mut wanted, mut no_payload) = (None, false);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "RANGE" => set_once(&mut wanted, range(&mut reader)?, "RANGE")?,
            "NOPAYLOAD" => flag_once(&mut no_payload, "NOPAYLOAD")?,
            _ => return Err(word.unknown()),
        }
    }
    let reply = Reply::new(ctx);
    let namespace = find_namespace(ctx, &args.key())?;
    let access = if no_payload { Access::Probe } else { Access::Read };
    let found = namespace.as_ref().and_then(|namespace| {
        let chunk = open_chunk(ctx, namespace, &digest, access)?;
        let whole_prefix = chunk.header.parent.is_none() || is_reachable(ctx, namespace, &digest);
        let sound = no_payload || was_sound_lately(ctx, namespace, &chunk);
        (whole_prefix && sound).then_some((namespace, chunk))
    });
    let Some((namespace, chunk)) = found else {
        reply.null();
        return Ok(());
    };
    reply.array(3);
    write_info(reply, namespace, &chunk.header);
    reply.count(chunk.header.payload_bytes);
    if no_payload {
        reply.array(0);
        return Ok(());
    }
    write_payload(reply, &chunk, wanted);
    let bytes = chunk.header.payload_bytes;
    drop(chunk);
    namespace.with(|namespace| {
        namespace.stats.bytes_out += bytes;
        if let Some(id) = namespace.tree.find(&digest) {
            namespace.tree.touch(&[id]);
        }
    });
    use_chunk(ctx, namespace, &digest);
    Ok(())
}

fn write_info(reply: Reply<'_>, namespace: &SharedNamespace, header: &ChunkHeader) {
    let (format, hits, leases) = namespace.with(|namespace| {
        let tree = &namespace.tree;
        let node = tree.find(&header.digest).map(|id| tree.node(id));
        let (hits, leases) = node.map_or((0, 0), |node| (node.hits, node.leases()));
        (namespace.settings().format.clone(), hits, leases)
    });
    reply.map(14);
    reply.text("digest").text(&header.digest.hex());
    reply.text("parent");
    match &header.parent {
        Some(parent) => reply.text(&parent.hex()),
        None => reply.null(),
    };
    reply.text("position").count(header.position.into());
    reply.text("dtype").text(header.dtype.as_str());
    reply.text("format").bytes(&format);
    reply.text("shape").array(header.shape.len());
    for &dim in &header.shape {
        reply.count(dim.into());
    }
    reply.text("created").count(header.created.0);
    reply.text("deadline").count(header.deadline.0);
    reply.text("prio").count(header.prio.into());
    reply.text("pinned").int(header.pinned.into());
    reply.text("leases").count(leases.into());
    reply.text("hits").count(hits.into());
    reply.text("checksum");
    match header.checksum {
        Some(checksum) => reply.text(&format!("{checksum:08x}")),
        None => reply.null(),
    };
    reply.text("meta");
    write_meta(reply, header);
}

/// Runs `KVCHUNK.MISSING`.
pub fn run_missing(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut chain = ChainArgs::default();
    while let Some(word) = reader.option() {
        if !chain.read(&word, &mut reader)? {
            return Err(word.unknown());
        }
    }
    chain.check()?;
    let namespace = find_namespace(ctx, &args.key())?;
    let digests = match &namespace {
        Some(namespace) => namespace.with(|namespace| chain.digests(namespace))?,
        // All of them; a store would make the namespace with the default chunk size.
        None => chain.digests(&super::create::defaults(args.name())?)?,
    };
    run_pieces(args, Missing { namespace, digests, at: 0, missing: Vec::new() });
    Ok(())
}

struct Missing {
    namespace: Option<SharedNamespace>,
    digests: Vec<ChunkDigest>,
    at: usize,
    missing: Vec<u32>,
}

impl Pieces for Missing {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(digest) = self.digests.get(self.at) else { return false };
        let there = self
            .namespace
            .as_ref()
            .is_some_and(|namespace| open_chunk(ctx, namespace, digest, Access::Probe).is_some());
        if !there {
            self.missing.push(self.at as u32);
        }
        self.at += 1;
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let reply = Reply::new(ctx).array(self.missing.len());
        self.missing.iter().for_each(|&at| {
            reply.count(at.into());
        });
    }
}

/// Runs `KVCHUNK.DIGESTS`.
pub fn run_digests(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut chain = ChainArgs::default();
    while let Some(word) = reader.option() {
        if word.as_str() == "HASHES" || !chain.read(&word, &mut reader)? {
            return Err(word.unknown());
        }
    }
    chain.check()?;
    let namespace = need_namespace(ctx, args)?;
    let digests = namespace.with(|namespace| chain.digests(namespace))?;
    let reply = Reply::new(ctx).array(digests.len());
    digests.iter().for_each(|digest| {
        reply.text(&digest.hex());
    });
    Ok(())
}
