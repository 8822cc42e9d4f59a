//! `KVCHUNK.FETCH`, `GET`, `MISSING` and `DIGESTS`: return payloads of the chunks of a prompt, or which are missing.

use super::chain::{ChainArgs, Names};
use super::page::{
    CHUNKS_PER_REPLY, FetchRequest, Wanted, range, write_checksum, write_chunk, write_meta,
    write_payload,
};
use super::retention::{begin_lease, hold_by, unless_empty, write_lease};
use super::{hex_digest, need_namespace, sparse, was_sound_lately};
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::config;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::in_flight;
use crate::keyspace::{
    LeadingRun, OpenedChunk, Pieces, find_namespace, is_reachable, open_chunk, reply_whole,
    run_pieces, use_chunk,
};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, LeaseId, NodeId};

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
    let names = namespace.with(|namespace| request.chain.names(args, namespace))?;
    let wanted = request.wanted();
    if request.sparse {
        run_pieces(args, sparse::Sparse { namespace, names, wanted, page: Vec::new() });
        return Ok(());
    }
    let lease = match request.lease_ms {
        Some(length_ms) => Some(begin_lease(ctx, &namespace, length_ms)?),
        None => None,
    };
    let (run, left) = (LeadingRun::new(), wanted.max_bytes);
    let page = Page { digests: Vec::new(), left, is_full: false };
    run_pieces(args, Fetching { namespace, names, run, wanted, page, lease });
    Ok(())
}

/// The chunks that are answered: from `from` on, as many as COUNT, MAXBYTES and the limit allow, one in any case.
struct Page {
    digests: Vec<ChunkDigest>,
    /// Bytes that still fit.
    left: u64,
    is_full: bool,
}

impl Page {
    fn offer(&mut self, digest: &ChunkDigest, bytes: u64, most: usize) {
        let fits = self.digests.is_empty() || (bytes <= self.left && self.digests.len() < most);
        self.is_full |= !fits;
        if !self.is_full {
            self.left = self.left.saturating_sub(bytes);
            self.digests.push(digest.clone());
        }
    }
}

struct Fetching {
    namespace: SharedNamespace,
    names: Names,
    run: LeadingRun,
    wanted: Wanted,
    page: Page,
    lease: Option<LeaseId>,
}

impl Pieces for Fetching {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let Some(digest) = self.names.next() else { return false };
        let Self { namespace, run, wanted, page, .. } = self;
        let place = run.len();
        let Some(chunk) = run.next(ctx, namespace, &digest, Access::Probe, |_| true) else {
            return false;
        };
        if place >= wanted.from {
            page.offer(&digest, wanted.bytes(&chunk), wanted.count);
        }
        let is_answered = place >= wanted.from && !page.is_full;
        let is_compared = is_answered && !wanted.has_checksums;
        if is_compared && !was_sound_lately(ctx, namespace, &chunk) {
            // The prefix ends before it.
            page.digests.pop();
            run.step_back();
            return false;
        }
        drop(chunk);
        if let Some(id) = self.lease {
            hold_by(ctx, namespace, id, &digest);
        }
        true
    }

    fn tell(&mut self, _: Ctx<'_>) {
        self.run.pause();
    }

    fn known(&self) -> usize {
        self.names.len()
    }

    /// Many chunks are opened for it once more: not in the slice that ended with them.
    fn has_long_reply(&self) -> bool {
        self.page.digests.len() > CHUNKS_PER_REPLY
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let Self { namespace, names, run, wanted, page, lease } = self;
        // One that went since it was found ends the prefix.
        let open = |digest: &ChunkDigest| open_chunk(ctx, namespace, digest, Access::Probe);
        let chunks: Vec<OpenedChunk<'_>> = page.digests.iter().map_while(open).collect();
        let from = wanted.from.min(run.len());
        let is_whole = chunks.len() == page.digests.len();
        let matched = if is_whole { run.len() } else { from + chunks.len() };
        note_use(namespace, &page.digests[..chunks.len()]);
        let reply = Reply::new(ctx);
        reply.array(4 + usize::from(lease.is_some()));
        reply.count(matched as u64).count(chunks.len() as u64);
        reply.count((from + chunks.len()) as u64).array(chunks.len());
        let mut bytes = 0;
        for chunk in &chunks {
            write_chunk(reply, chunk, wanted);
            bytes += wanted.bytes(chunk);
        }
        if let &mut Some(id) = lease {
            write_lease(reply, unless_empty(namespace, id, matched > 0));
        }
        drop(chunks);
        namespace.with(|namespace| {
            namespace.note_asked(names.len() as u64, matched as u64);
            namespace.stats.fetches += 1;
            namespace.stats.bytes_out += bytes;
        });
        if let Some(last) = page.digests.last() {
            use_chunk(ctx, namespace, last);
        }
    }
}

/// Counts the use of a page of a prefix in the tree.
fn note_use(namespace: &SharedNamespace, page: &[ChunkDigest]) {
    namespace.with(|namespace| {
        let tree = &mut namespace.tree;
        let path: Vec<NodeId> = page.iter().filter_map(|digest| tree.find(digest)).collect();
        tree.touch(&path);
    });
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
    write_checksum(reply, header);
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
    let names = match &namespace {
        Some(namespace) => namespace.with(|namespace| chain.names(args, namespace))?,
        // All of them; a store would make the namespace with the default chunk size.
        None => chain.names(args, &super::create::defaults(args.name())?)?,
    };
    run_pieces(args, Missing { namespace, names, missing: Vec::new(), told: None });
    Ok(())
}

struct Missing {
    namespace: Option<SharedNamespace>,
    names: Names,
    missing: Vec<u32>,
    /// How many of them the reply has, once it is begun.
    told: Option<usize>,
}

impl Pieces for Missing {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let at = self.names.position() as u32;
        let Some(digest) = self.names.next() else { return false };
        let there = self
            .namespace
            .as_ref()
            .is_some_and(|namespace| open_chunk(ctx, namespace, &digest, Access::Probe).is_some());
        if !there {
            self.missing.push(at);
        }
        true
    }

    fn known(&self) -> usize {
        self.names.len()
    }

    fn has_long_reply(&self) -> bool {
        self.missing.len() > PART
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        let (reply, all) = (Reply::new(ctx), self.missing.len());
        let told = self.told.unwrap_or_else(|| {
            reply.array(all);
            0
        });
        let upto = all.min(told + PART);
        self.missing[told..upto].iter().for_each(|&at| {
            reply.count(at.into());
        });
        self.told = Some(upto);
        upto < all
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}

/// Names or places of chunks that a part of a reply has.
const PART: usize = 512;

/// Runs `KVCHUNK.DIGESTS`.
pub fn run_digests(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut chain = ChainArgs::default();
    while let Some(word) = reader.option() {
        if matches!(word.as_str(), "HASHES" | "PACKED" | "DIGESTS")
            || !chain.read(&word, &mut reader)?
        {
            return Err(word.unknown());
        }
    }
    chain.check()?;
    let namespace = need_namespace(ctx, args)?;
    let names = namespace.with(|namespace| chain.names(args, namespace))?;
    run_pieces(args, Naming { names, is_begun: false });
    Ok(())
}

/// The names of chunks, which need no work but hashing while they are told.
struct Naming {
    names: Names,
    is_begun: bool,
}

impl Pieces for Naming {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, _: Ctx<'_>) -> bool {
        false
    }

    fn known(&self) -> usize {
        self.names.len()
    }

    fn has_long_reply(&self) -> bool {
        self.names.len() > PART
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        let reply = Reply::new(ctx);
        if !std::mem::replace(&mut self.is_begun, true) {
            reply.array(self.names.len());
        }
        for _ in 0..NAMED_AT_ONCE {
            let Some(digest) = self.names.next() else { return false };
            reply.text(&digest.hex());
        }
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}

/// Chunks that are hashed and told as one piece: their tokens may be 256 KiB each.
const NAMED_AT_ONCE: usize = 8;
