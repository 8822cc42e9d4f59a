//! `KVCHUNK.PUT` and `KVCHUNK.MPUT`: store chunks, each whole or not at all.
//!
//! Owns: what is read and checked before the first write; `storing` does the rest.

use super::chain::{ChainArgs, Names, raw_digest};
use super::create::unmade;
use super::storing::{Options, Payload, Request, store};
use super::{hex_digest, no_namespace};
use crate::command::parse::{
    ArgReader, OptionWord, expiry, flag_once, is_expiry_word, json_object, set_once,
};
use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_namespace;
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, Namespace};
use llmcache_core::limits;

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

const OWN: &str = "HASH or DIGEST";

/// A chunk's name as the caller wrote it: raw bytes (`HASH`) or hex digits (`DIGEST`). PARENT has the same form.
#[derive(Debug, Clone, Copy)]
struct Own<'a> {
    name: &'a [u8],
    is_hex: bool,
}

impl Own<'_> {
    fn digest(self) -> Result<ChunkDigest> {
        if self.is_hex { hex_digest(self.name) } else { raw_digest(self.name) }
    }
}

/// Runs `KVCHUNK.PUT`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut options) = (ChainArgs::default(), Options::default());
    let (mut own, mut parent, mut given) = (None, None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "HASH" => set_once(&mut own, Own { name: reader.next(name)?, is_hex: false }, OWN)?,
            "DIGEST" => set_once(&mut own, Own { name: reader.next(name)?, is_hex: true }, OWN)?,
            "PARENT" => set_once(&mut parent, reader.next(name)?, name)?,
            "PAYLOAD" => set_once(&mut given, payload(&mut reader)?, name)?,
            "META" => set_once(&mut options.meta, json_object(&mut reader, name)?, name)?,
            "HASHES" | "PACKED" | "DIGESTS" => return Err(word.unknown()),
            _ if chain.read(&word, &mut reader)? || options.read(&word, &mut reader, now)? => {}
            _ => return Err(word.unknown()),
        }
    }
    let payload = given.ok_or_else(|| Error::err("syntax error: PAYLOAD is needed"))?;
    if own.is_some() == chain.tokens().is_some() {
        return Err(Error::err("syntax error: one of TOKENS, HASH and DIGEST is needed"));
    }
    let (hash, parent) = match own {
        Some(own) => (Some(own.digest()?), parent.map(|p| Own { name: p, ..own }.digest())),
        None if parent.is_some() => {
            return Err(Error::err("syntax error: PARENT goes with HASH or DIGEST"));
        }
        None => (None, None),
    };
    let parent = parent.transpose()?;
    if hash.is_none() {
        chain.check()?;
    } else if parent == hash {
        return Err(Error::err("PARENT would have the chunk follow itself"));
    }
    let (namespace, names) = name_chunks(ctx, args, false, |namespace| match hash {
        Some(hash) => Ok(Names::listed(parent.into_iter().chain([hash]).collect())),
        None => whole_chunks(args, namespace, &chain),
    })?;
    let from = names.len() - 1;
    store(
        ctx,
        args,
        Request { namespace, names, from, payloads: vec![payload], options, is_one: true },
    )
}

/// The namespace to store into and the chunks named; a namespace that is not there is made by the first chunk that is
/// stored, where the command may do that.
fn name_chunks(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    no_create: bool,
    names: impl FnOnce(&Namespace) -> Result<Names>,
) -> Result<(SharedNamespace, Names)> {
    if let Some(namespace) = open_namespace(ctx, &args.key())? {
        let names = namespace.with(|namespace| names(namespace))?;
        return Ok((namespace, names));
    }
    if no_create {
        return Err(no_namespace(args.name()));
    }
    let namespace = unmade(ctx, args.name())?;
    let names = namespace.with(|namespace| names(namespace))?;
    Ok((namespace, names))
}

/// The chunks of a prompt, which must end with a whole one.
fn whole_chunks(
    args: &CommandArgs<'_>,
    namespace: &Namespace,
    chain: &ChainArgs<'_>,
) -> Result<Names> {
    if chain.has_partial_chunk(namespace) {
        let tokens = namespace.settings().chunk_tokens;
        return Err(Error::err(format!("TOKENS must end with a whole chunk of {tokens}")));
    }
    let names = chain.names(args, namespace)?;
    if names.len() == 0 { Err(Error::err("TOKENS is empty")) } else { Ok(names) }
}

/// Reads `n crc…`, each in eight hex digits as FETCH answers them.
fn checksums(args: &mut ArgReader<'_>) -> Result<Box<[u32]>> {
    let list = args.list("CHECKSUMS", limits::CHUNKS_MAX)?;
    let read = |text: &&[u8]| {
        let digits =
            Some(text).filter(|text| text.len() == 8 && text.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let all: Option<Box<[u32]>> = list.iter().map(read).collect();
    all.ok_or_else(|| Error::err("a checksum is 8 hex digits"))
}

/// Runs `KVCHUNK.MPUT`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut options) = (ChainArgs::default(), Options::default());
    let (mut from, mut given, mut sums, mut no_create) = (None, None, None, false);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "LOOSE" => flag_once(&mut options.loose, name)?,
            "NOCREATE" => flag_once(&mut no_create, name)?,
            "CHECKSUMS" => set_once(&mut sums, checksums(&mut reader)?, name)?,
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
    if let Some(sums) = sums {
        if sums.len() != payloads.len() {
            let text = format!("{} checksums for {} payloads", sums.len(), payloads.len());
            return Err(Error::err(text));
        }
        options.checksums = sums;
    }
    let from = from.unwrap_or(0);
    let (namespace, names) = name_chunks(ctx, args, no_create, |namespace| {
        let names = whole_chunks(args, namespace, &chain)?;
        if from + payloads.len() > names.len() {
            let (count, chunks) = (payloads.len(), names.len());
            let text = format!("{count} payloads from chunk {from} on do not fit {chunks} chunks");
            return Err(Error::err(text));
        }
        Ok(names)
    })?;
    store(ctx, args, Request { namespace, names, from, payloads, options, is_one: false })
}
