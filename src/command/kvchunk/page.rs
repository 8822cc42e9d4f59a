//! Options of `KVCHUNK.FETCH`, and the form of a chunk and its payload in a reply.

use super::chain::ChainArgs;
use super::retention::lease_ms;
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{Reply, ServerString};
use crate::keytype::Whole;
use llmcache_core::error::Result;
use llmcache_core::kvchunk::ChunkHeader;
use llmcache_core::limits;

/// Chunks that are answered in the slice that found them; of more, which are opened once more, another answers.
pub(super) const CHUNKS_PER_REPLY: usize = 512;

/// Payload of one FETCH when nothing is said.
const MAXBYTES_DEFAULT: u64 = 64 << 20;

/// What is asked.
#[derive(Debug, Default)]
pub(super) struct FetchRequest<'a> {
    pub(super) chain: ChainArgs<'a>,
    from: Option<usize>,
    count: Option<usize>,
    max_bytes: Option<u64>,
    range: Option<(u64, u64)>,
    pub(super) lease_ms: Option<u64>,
    pub(super) sparse: bool,
    has_checksums: bool,
}

impl<'a> FetchRequest<'a> {
    pub(super) fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let mut request = Self::default();
        while let Some(word) = args.option() {
            let (name, most) = (word.as_str(), limits::CHUNKS_MAX as u64);
            match name {
                "FROM" => {
                    set_once(&mut request.from, args.integer(name, 0, most)? as usize, name)?;
                }
                "COUNT" => {
                    set_once(&mut request.count, args.integer(name, 1, most)? as usize, name)?;
                }
                "MAXBYTES" => {
                    let bytes = args.integer(name, 1, u64::MAX)?;
                    set_once(&mut request.max_bytes, bytes, name)?;
                }
                "RANGE" => set_once(&mut request.range, range(&mut args)?, name)?,
                "LEASE" => set_once(&mut request.lease_ms, lease_ms(&mut args)?, name)?,
                "SPARSE" => flag_once(&mut request.sparse, name)?,
                "CHECKSUMS" => flag_once(&mut request.has_checksums, name)?,
                _ if request.chain.read(&word, &mut args)? => {}
                _ => return Err(word.unknown()),
            }
        }
        request.chain.check()?;
        Ok(request)
    }

    /// What is answered of the chunks asked for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            from: self.from.unwrap_or(0),
            count: self.count.unwrap_or(usize::MAX).min(limits::KV_FETCH_CHUNKS_MAX),
            max_bytes: self.max_bytes.unwrap_or(MAXBYTES_DEFAULT),
            range: self.range,
            lease_ms: self.lease_ms,
            has_checksums: self.has_checksums,
        }
    }
}

/// What is answered of the chunks asked for: a page from `from` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) from: usize,
    pub(super) count: usize,
    pub(super) max_bytes: u64,
    pub(super) range: Option<(u64, u64)>,
    pub(super) lease_ms: Option<u64>,
    /// Whether the client compares payloads with their checksums, which are told to it, and the server does not.
    pub(super) has_checksums: bool,
}

impl Wanted {
    /// Whether payloads are answered from their first byte on: with SPARSE one that is fetched in parts is used once.
    pub(super) fn is_begun(&self) -> bool {
        self.range.is_none_or(|(offset, _)| offset == 0)
    }

    /// Bytes of a payload that are answered.
    pub(super) fn bytes(&self, chunk: &Whole) -> u64 {
        let all = chunk.header.payload_bytes;
        self.range.map_or(all, |(offset, length)| all.saturating_sub(offset).min(length))
    }
}

/// Reads `offset length`.
pub(super) fn range(args: &mut ArgReader<'_>) -> Result<(u64, u64)> {
    let most = limits::PAYLOAD_MAX_BYTES as u64;
    Ok((args.integer("RANGE", 0, most)?, args.integer("RANGE", 1, most)?))
}

/// Writes a chunk as FETCH answers it.
pub(super) fn write_chunk(reply: Reply<'_>, chunk: &Whole, wanted: &Wanted) {
    let header = &chunk.header;
    reply.array(4 + usize::from(wanted.has_checksums)).text(&header.digest.hex());
    write_meta(reply, header);
    reply.count(header.payload_bytes);
    write_payload(reply, chunk, wanted.range);
    if wanted.has_checksums {
        write_checksum(reply, header);
    }
}

/// Writes the checksum of a payload, null where its namespace has none.
pub(super) fn write_checksum(reply: Reply<'_>, header: &ChunkHeader) {
    match header.checksum {
        Some(checksum) => reply.text(&format!("{checksum:08x}")),
        None => reply.null(),
    };
}

pub(super) fn write_meta(reply: Reply<'_>, header: &ChunkHeader) {
    match &*header.meta {
        [] => reply.null(),
        meta => reply.bytes(meta),
    };
}

/// Writes the segments, or the pieces of them that lie within the range.
pub(super) fn write_payload(reply: Reply<'_>, chunk: &Whole, range: Option<(u64, u64)>) {
    let Some((offset, length)) = range else {
        reply.array(chunk.segments.len());
        for segment in &chunk.segments {
            reply.string(segment);
        }
        return;
    };
    let (mut skip, mut left) = (offset, length);
    let mut pieces: Vec<&[u8]> = Vec::new();
    for segment in &chunk.segments {
        let bytes = segment.as_bytes();
        let start = skip.min(bytes.len() as u64) as usize;
        skip -= start as u64;
        let end = start + left.min((bytes.len() - start) as u64) as usize;
        left -= (end - start) as u64;
        if start < end {
            pieces.push(&bytes[start..end]);
        }
    }
    reply.array(pieces.len());
    for piece in pieces {
        reply.bytes(piece);
    }
}
