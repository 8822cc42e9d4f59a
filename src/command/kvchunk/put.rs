//! `KVCHUNK.PUT` and `KVCHUNK.MPUT`: stores chunks, each whole or not at all.

use super::chain::{ChainArgs, raw_digest};
use super::create::{ensure_made, unmade};
use super::reach::need_chunk;
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, flag_once, is_expiry_word, json_object, set_once,
};
use crate::ffi::{Access, CommandArgs, Ctx, HeldString, Reply, ServerString};
use crate::keyspace::room_of;
use crate::keyspace::{
    NewChunk, Presence, check_parent, chunk_bytes, make_room, open_chunk, open_namespace,
    put_chunk, remove_what_is_due, use_stored,
};
use crate::keytype::namespace_registry::SharedNamespace;
use crate::keytype::{Whole, payload_crc};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{
    Checksum, ChunkDigest, ChunkHeader, Namespace, content_of, fits_its_class, segment_plan,
};
use llmcache_core::limits;
use std::ops::Range;

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    Exists,
    Rejected(&'static str),
}

impl Outcome {
    fn write(self, reply: Reply<'_>) {
        match self {
            Self::Stored => reply.text("STORED"),
            Self::Exists => reply.text("EXISTS"),
            Self::Rejected(reason) => reply.text(&format!("REJECTED {reason}")),
        };
    }
}

/// A payload as arguments of the command: which ones, and how long together.
#[derive(Debug, Clone)]
struct Payload {
    arguments: Range<usize>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Options<'a> {
    meta: Option<&'a [u8]>,
    expiry: Option<Expiry>,
    prio: Option<u8>,
    nx: bool,
}

impl<'a> Options<'a> {
    /// Reads an option if it is one of these.
    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>, now: UnixMs) -> Result<bool> {
        let name = word.as_str();
        match name {
            _ if is_expiry_word(word) => {
                set_once(&mut self.expiry, expiry(word, args, now)?, "the expiry")?;
            }
            "PRIO" => {
                let prio = args.integer(name, 0, u64::from(limits::PRIO_MAX))? as u8;
                set_once(&mut self.prio, prio, name)?;
            }
            "NX" => flag_once(&mut self.nx, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads `n s…`.
fn payload(args: &mut ArgReader<'_>) -> Result<Payload> {
    let list = args.list("PAYLOAD", limits::SEGMENTS_MAX)?;
    let bytes: usize = list.iter().map(|segment| segment.len()).sum();
    if bytes == 0 {
        return Err(Error::err("the payload is empty"));
    }
    if bytes > limits::PAYLOAD_MAX_BYTES {
        return Err(Error::too_big("the payload", bytes, limits::PAYLOAD_MAX_BYTES, "bytes"));
    }
    // The first of the options is argument 1: the key is number 0.
    let end = args.position() + 1;
    Ok(Payload { arguments: end - list.len()..end, bytes })
}

/// Keeps the arguments of a payload: as they are where the allocator wastes little on them, else
/// copied once into pieces that fit its size classes.
fn hold(args: &CommandArgs<'_>, payload: &Payload) -> Box<[HeldString]> {
    let mut segments = Vec::with_capacity(payload.arguments.len());
    for number in payload.arguments.clone() {
        let argument = args.string(number);
        let mut rest = argument.as_bytes();
        if rest.is_empty() {
            continue;
        }
        if fits_its_class(rest.len()) {
            segments.push(HeldString::hold(&argument));
            continue;
        }
        for length in segment_plan(rest.len()) {
            let (piece, behind) = rest.split_at(length);
            segments.push(HeldString::new(piece));
            rest = behind;
        }
    }
    segments.into()
}

/// A chunk to be stored.
#[derive(Debug)]
struct Wanted<'a> {
    digest: &'a ChunkDigest,
    parent: Option<&'a ChunkDigest>,
    position: u32,
    tokens: Option<&'a [u8]>,
    /// What the prompt is chained to: fingerprint and salt.
    root: [u8; 32],
}

/// Stores one chunk, or says why not. Nothing is left of one that is not stored.
fn store(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    namespace: &SharedNamespace,
    wanted: &Wanted<'_>,
    payload: &Payload,
    options: &Options<'_>,
    fits: bool,
) -> Outcome {
    let now = UnixMs(ctx.now_ms());
    let exists = open_chunk(ctx, namespace, wanted.digest, Access::Probe).is_some();
    if options.nx && exists {
        return Outcome::Exists;
    }
    let (right_length, own_deadline) = namespace.with(|namespace| {
        let settings = namespace.settings();
        let length = settings.payload_bytes();
        let deadline = match options.expiry {
            Some(Expiry::At(at)) => at,
            Some(Expiry::Persist) => UnixMs::NEVER,
            None => settings.deadline(now),
        };
        (length.is_none_or(|length| length == payload.bytes as u64), deadline)
    });
    if !right_length {
        return Outcome::Rejected("length");
    }
    if own_deadline.is_past(now) {
        return Outcome::Rejected("expired");
    }
    let segments = hold(args, payload);
    let header = header(namespace, wanted, payload, options, own_deadline, now, &segments);
    let (key, durable) = namespace.with(|n| (n.chunk_key(wanted.digest), n.settings().durable));
    let whole = Whole { header, segments, durable };
    let room = room_of(namespace);
    let bytes = chunk_bytes(&key, &whole);
    let freed = namespace.with(|namespace| {
        let former = namespace.tree.find(wanted.digest);
        former.map_or(0, |former| namespace.tree.node(former).bytes)
    });
    let keep: Vec<&ChunkDigest> = std::iter::once(wanted.digest).chain(wanted.parent).collect();
    let need = bytes.saturating_sub(freed);
    if room > 0 && (bytes > room || !make_room(args.permit(), namespace, room, need, &keep)) {
        return Outcome::Rejected("budget");
    }
    ensure_made(args.permit(), args.name(), namespace);
    put_chunk(args.permit(), Some(namespace), NewChunk { key, whole, key_expire_at: None, fits });
    namespace.with(|namespace| {
        namespace.stats.bytes_in += payload.bytes as u64;
        namespace.adapt_to(room);
    });
    Outcome::Stored
}

fn header(
    namespace: &SharedNamespace,
    wanted: &Wanted<'_>,
    payload: &Payload,
    options: &Options<'_>,
    own_deadline: UnixMs,
    now: UnixMs,
    segments: &[HeldString],
) -> ChunkHeader {
    namespace.with(|namespace| {
        let settings = namespace.settings();
        ChunkHeader {
            uid: namespace.uid(),
            fingerprint: *namespace.fingerprint(),
            digest: wanted.digest.clone(),
            parent: wanted.parent.cloned(),
            position: wanted.position,
            dtype: settings.dtype,
            shape: settings.shape.clone(),
            prio: options.prio.unwrap_or(0),
            pinned: false,
            created: now,
            deadline: namespace.tree.deadline_for(wanted.digest, own_deadline),
            payload_bytes: payload.bytes as u64,
            checksum: (settings.checksum == Checksum::On).then(|| payload_crc(segments)),
            content: wanted.tokens.map(|tokens| content_of(&wanted.root, tokens)),
            meta: options.meta.unwrap_or_default().into(),
        }
    })
}

fn count(namespace: &SharedNamespace, outcome: Outcome) {
    namespace.with(|namespace| {
        let stats = &mut namespace.stats;
        *match outcome {
            Outcome::Stored => &mut stats.stored,
            Outcome::Exists => &mut stats.exists,
            Outcome::Rejected(_) => &mut stats.rejected,
        } += 1;
    });
}

/// Runs `KVCHUNK.PUT`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut options) = (ChainArgs::default(), Options::default());
    let (mut hash, mut parent, mut given) = (None, None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "HASH" => set_once(&mut hash, raw_digest(reader.next(name)?)?, name)?,
            "PARENT" => set_once(&mut parent, raw_digest(reader.next(name)?)?, name)?,
            "PAYLOAD" => set_once(&mut given, payload(&mut reader)?, name)?,
            "META" => set_once(&mut options.meta, json_object(&mut reader, name)?, name)?,
            "HASHES" => return Err(word.unknown()),
            _ if chain.read(&word, &mut reader)? || options.read(&word, &mut reader, now)? => {}
            _ => return Err(word.unknown()),
        }
    }
    let payload = given.ok_or_else(|| Error::err("syntax error: PAYLOAD is needed"))?;
    if hash.is_some() == chain.tokens().is_some() {
        return Err(Error::err("syntax error: TOKENS or HASH is needed, and not both"));
    }
    if hash.is_none() {
        chain.check()?;
    } else if chain.tokens().is_some() || parent == hash {
        return Err(Error::err("PARENT would have the chunk follow itself"));
    }
    if hash.is_none() && parent.is_some() {
        return Err(Error::err("syntax error: PARENT goes with HASH"));
    }
    let (namespace, names) = name_chunks(ctx, args, |namespace| match hash {
        Some(hash) => Ok(parent.into_iter().chain([hash]).collect()),
        None => whole_chunks(namespace, &chain),
    })?;
    let (digest, before) = names.split_last().ok_or_else(no_tokens)?;
    let parent = before.last();
    check_parent(&namespace, digest, parent)?;
    need_chunk(ctx, &Presence::of(ctx, args.name()), &namespace, digest)?;
    let at = before.len();
    let (tokens, position) = namespace.with(|n| match chain.tokens() {
        Some(_) => (chain.tokens_of_chunk(n, at), at as u32),
        None => (None, parent.map_or(0, |parent| n.tree.position_behind(parent))),
    });
    let root = namespace.with(|n| chain.root(n));
    let wanted = Wanted { digest, parent, position, tokens, root };
    if let Some(parent) = parent {
        remove_what_is_due(args.permit(), &namespace, parent);
    }
    let outcome = store(ctx, args, &namespace, &wanted, &payload, &options, false);
    count(&namespace, outcome);
    if outcome == Outcome::Stored {
        use_stored(ctx, &namespace, digest);
        ctx.signal_modified(&args.key());
    }
    outcome.write(Reply::new(ctx));
    Ok(())
}

/// The namespace to store into and the chunks named; a namespace that is not there is made by the first chunk that is
/// stored.
fn name_chunks(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    names: impl FnOnce(&Namespace) -> Result<Vec<ChunkDigest>>,
) -> Result<(SharedNamespace, Vec<ChunkDigest>)> {
    if let Some(namespace) = open_namespace(ctx, &args.key())? {
        let names = namespace.with(|namespace| names(namespace))?;
        return Ok((namespace, names));
    }
    let namespace = unmade(ctx, args.name())?;
    let names = namespace.with(|namespace| names(namespace))?;
    Ok((namespace, names))
}

fn no_tokens() -> Error {
    Error::err("TOKENS is empty")
}

/// The chunks of a prompt, which must end with a whole one.
fn whole_chunks(namespace: &Namespace, chain: &ChainArgs<'_>) -> Result<Vec<ChunkDigest>> {
    if chain.has_partial_chunk(namespace) {
        let tokens = namespace.settings().chunk_tokens;
        return Err(Error::err(format!("TOKENS must end with a whole chunk of {tokens}")));
    }
    let names = chain.digests(namespace)?;
    if names.is_empty() { Err(no_tokens()) } else { Ok(names) }
}

/// Stores chunks of one prompt, from the chunk `from` on; what follows a rejected one is rejected.
fn store_run(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    namespace: &SharedNamespace,
    names: &[ChunkDigest],
    (chain, from): (&ChainArgs<'_>, usize),
    payloads: &[Payload],
    options: &Options<'_>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(payloads.len());
    let mut broken = false;
    let before = from.checked_sub(1).map(|before| &names[before]);
    if let Some(before) = before {
        remove_what_is_due(args.permit(), namespace, before);
    }
    let mut lineage = namespace.with(|namespace| namespace.tree.lineage(before));
    for (at, payload) in (from..).zip(payloads) {
        let parent = at.checked_sub(1).map(|before| &names[before]);
        let tokens = namespace.with(|n| chain.tokens_of_chunk(n, at));
        let root = namespace.with(|n| chain.root(n));
        let wanted = Wanted { digest: &names[at], parent, position: at as u32, tokens, root };
        let outcome = if broken {
            // What a missing chunk cuts off would be stored for nothing.
            Outcome::Rejected("prefix")
        } else if lineage.check(&names[at]).is_err() {
            Outcome::Rejected("parent")
        } else {
            store(ctx, args, namespace, &wanted, payload, options, true)
        };
        namespace.with(|namespace| lineage.push(&namespace.tree, &names[at]));
        broken |= matches!(outcome, Outcome::Rejected(_));
        count(namespace, outcome);
        outcomes.push(outcome);
    }
    outcomes
}

/// Runs `KVCHUNK.MPUT`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut options) = (ChainArgs::default(), Options::default());
    let (mut from, mut given) = (None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "FROM" => {
                let at = reader.integer(name, 0, limits::CHUNKS_MAX as u64)?;
                set_once(&mut from, at as usize, name)?;
            }
            "PAYLOADS" => {
                let count = reader.integer(name, 1, limits::CHUNKS_MAX as u64)?;
                let list = (0..count).map(|_| payload(&mut reader)).collect::<Result<Vec<_>>>()?;
                set_once(&mut given, list, name)?;
            }
            _ if chain.read(&word, &mut reader)? || options.read(&word, &mut reader, now)? => {}
            _ => return Err(word.unknown()),
        }
    }
    chain.check()?;
    let payloads = given.ok_or_else(|| Error::err("syntax error: PAYLOADS is needed"))?;
    let from = from.unwrap_or(0);
    let (namespace, names) = name_chunks(ctx, args, |namespace| {
        let names = whole_chunks(namespace, &chain)?;
        if from + payloads.len() > names.len() {
            let (count, chunks) = (payloads.len(), names.len());
            let text = format!("{count} payloads from chunk {from} on do not fit {chunks} chunks");
            return Err(Error::err(text));
        }
        Ok(names)
    })?;
    let presence = Presence::of(ctx, args.name());
    if !presence.is_whole() {
        let stored = &names[from..from + payloads.len()];
        let here = |digest| need_chunk(ctx, &presence, &namespace, digest);
        stored.iter().try_for_each(here)?;
    }
    let outcomes = store_run(ctx, args, &namespace, &names, (&chain, from), &payloads, &options);
    if let Some(last) = outcomes.iter().rposition(|&outcome| outcome == Outcome::Stored) {
        use_stored(ctx, &namespace, &names[from + last]);
        ctx.signal_modified(&args.key());
    }
    let reply = Reply::new(ctx).array(outcomes.len());
    outcomes.into_iter().for_each(|outcome| outcome.write(reply));
    Ok(())
}
