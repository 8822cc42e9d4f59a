//! `KVCHUNK._CREATE` and `KVCHUNK._PUT`: what AOF and replicas are told. Everything is spelled out,
//! nothing is decided here; the bytes are treated as hostile all the same.

use crate::command::parse::ArgReader;
use crate::ffi::{CommandArgs, Ctx, HeldString, RString, Reply};
use crate::keyspace::{NewChunk, attach_a_few, create_namespace, put_chunk};
use crate::keytype::namespace_registry::{NAMESPACES, SharedNamespace};
use crate::keytype::{NAMESPACE_COMMAND, NamespaceValue, Whole};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkHeader, Durable, Namespace};
use llmcache_core::limits;

/// Runs `KVCHUNK._CREATE key head`.
pub fn run_create(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let name = args.name();
    let mut reader = ArgReader::new(args.options());
    let head = reader.next("the namespace")?;
    reader.finish()?;
    let namespace = Namespace::load_head(head)
        .map_err(|error| Error::err(format!("bad namespace head: {error}")))?;
    // Where chunks of it are here, as after the primary's server evicted the key, it takes over their tree. A slot that
    // migrates atomically brings all anew: what it was here before is of no use.
    let state = ctx.state();
    if !state.is_replica() && !state.is_loading() {
        NAMESPACES.forget_gone(namespace.uid());
    }
    create_namespace(args.permit(), name, NamespaceValue::new(namespace));
    args.permit().replicate(NAMESPACE_COMMAND, &[name, head]);
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs `KVCHUNK._PUT key header key-deadline segment…`. The chunk finds its namespace by uid; where
/// that is not there yet, the chunk waits for it.
pub fn run_put(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let key = args.name();
    let mut reader = ArgReader::new(args.options());
    let header = ChunkHeader::from_bytes(reader.next("the chunk")?)
        .map_err(|error| Error::err(format!("bad chunk: {error}")))?;
    let expire_at = UnixMs(reader.integer("the deadline", 0, limits::DEADLINE_MAX_MS)?);
    let mut segments = Vec::new();
    let mut bytes = 0;
    while let Some(segment) = reader.maybe_next() {
        bytes += segment.len();
        if bytes > limits::PAYLOAD_MAX_BYTES {
            return Err(Error::err("bad chunk: its payload is too long"));
        }
        segments.push(HeldString::hold(&args.string(reader.position())));
    }
    let whole = Whole { header, segments: segments.into(), durable: Durable::Full };
    if !whole.is_sound() {
        return Err(Error::err("bad chunk: length or checksum of its payload"));
    }
    attach_a_few(ctx);
    let uid = whole.header.uid;
    // Under a name that is not its own, as RENAME and RESTORE leave chunks, it belongs to no tree, as it does not there.
    let own = |namespace: &SharedNamespace| {
        namespace.with(|n| *key == *n.chunk_key(&whole.header.digest))
    };
    let namespace = NAMESPACES.find(uid, ctx.db()).filter(own);
    let key_expire_at = Some(expire_at);
    let new = NewChunk { key: key.into(), whole, key_expire_at, fits: false, ahead: None };
    put_chunk(args.permit(), namespace.as_ref(), new);
    if namespace.is_some()
        && let Some((db, name)) = NAMESPACES.place_of(uid)
        && db == ctx.db()
    {
        ctx.signal_modified(&RString::new(&name));
    }
    Reply::new(ctx).ok();
    Ok(())
}
