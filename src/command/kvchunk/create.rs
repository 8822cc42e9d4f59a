//! `KVCHUNK.CREATE` and `KVCHUNK.BUDGET`: create a namespace, change its budget.

use super::{need_namespace, no_namespace};
use crate::command::parse::{ArgReader, OptionWord, set_once};
use crate::config;
use crate::ffi::{CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::room_of;
use crate::keyspace::{create_namespace, open_namespace, shrink_to};
use crate::keytype::namespace_registry::{NAMESPACES, SharedNamespace};
use crate::keytype::{NAMESPACE_COMMAND, NamespaceValue};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::ContainerUid;
use llmcache_core::kvchunk::{Checksum, Dtype, Durable, Namespace, NamespaceSettings};
use llmcache_core::limits;

/// Runs `KVCHUNK.CREATE`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let settings = parse_settings(ArgReader::new(args.options()))?;
    if let Some(existing) = open_namespace(ctx, &args.key())? {
        if existing.with(|namespace| *namespace.settings() != settings) {
            return Err(Error::err("a namespace of this name exists with other settings"));
        }
        Reply::new(ctx).ok();
        return Ok(());
    }
    make(args.permit(), args.name(), settings)?;
    Reply::new(ctx).ok();
    Ok(())
}

/// A namespace of defaults for the first chunk stored under this name: it stands in no key until `ensure_made`.
pub fn unmade(ctx: Ctx<'_>, name: &[u8]) -> Result<SharedNamespace> {
    if !config::auto_create() {
        return Err(no_namespace(name));
    }
    let settings = NamespaceSettings::default();
    let namespace = Namespace::new(name, ContainerUid(ctx.random()), settings)?;
    Ok(NamespaceValue::new(namespace).0)
}

/// Puts a namespace that stands in no key into its key, now that a chunk will be stored.
pub fn ensure_made(ctx: WritePermit<'_>, name: &[u8], namespace: &SharedNamespace) {
    let uid = namespace.with(|namespace| namespace.uid());
    if NAMESPACES.find(uid, ctx.db()).is_none() {
        put_in_key(ctx, name, NamespaceValue(namespace.clone()));
    }
}

/// A namespace of defaults that stands in no key.
pub fn defaults(name: &[u8]) -> Result<Namespace> {
    Namespace::new(name, ContainerUid(0), NamespaceSettings::default())
}

fn make(ctx: WritePermit<'_>, name: &[u8], settings: NamespaceSettings) -> Result<SharedNamespace> {
    let namespace = Namespace::new(name, ContainerUid(ctx.random()), settings)?;
    Ok(put_in_key(ctx, name, NamespaceValue::new(namespace)))
}

fn put_in_key(ctx: WritePermit<'_>, name: &[u8], value: NamespaceValue) -> SharedNamespace {
    let head = value.0.with(|namespace| namespace.save_head());
    if ctx.evicts_at_random() {
        ctx.log_warning(
            "maxmemory-policy is random: it evicts chunks from the middle of prefixes; volatile-lfu or \
             a BUDGET below maxmemory do not",
        );
    }
    let shared = create_namespace(ctx, name, value);
    ctx.replicate(NAMESPACE_COMMAND, &[name, &head]);
    shared
}

/// Chunks a lowered budget evicts at once; the rest follows within seconds.
const EVICT_AT_ONCE: usize = 10_000;

#[derive(Default)]
struct Given {
    model: Option<Box<[u8]>>,
    dtype: Option<Dtype>,
    format: Option<Box<[u8]>>,
    shape: Option<Box<[u32]>>,
    chunk_tokens: Option<u32>,
    salt: Option<Box<[u8]>>,
    ttl_ms: Option<u64>,
    budget_bytes: Option<u64>,
    checksum: Option<Checksum>,
    durable: Option<Durable>,
}

fn parse_settings(mut args: ArgReader<'_>) -> Result<NamespaceSettings> {
    let mut given = Given::default();
    while let Some(word) = args.option() {
        given.read(&word, &mut args)?;
    }
    let defaults = NamespaceSettings::default();
    let settings = NamespaceSettings {
        model: given.model.unwrap_or_default(),
        dtype: given.dtype.unwrap_or(Dtype::UNKNOWN),
        format: given.format.unwrap_or_default(),
        shape: given.shape.unwrap_or_default(),
        chunk_tokens: given.chunk_tokens.unwrap_or(defaults.chunk_tokens),
        salt: given.salt.unwrap_or_default(),
        ttl_ms: given.ttl_ms.unwrap_or(0),
        budget_bytes: given.budget_bytes.unwrap_or(0),
        checksum: given.checksum.unwrap_or(defaults.checksum),
        durable: given.durable.unwrap_or(defaults.durable),
    };
    settings.check()?;
    Ok(settings)
}

impl Given {
    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'_>) -> Result<()> {
        let name = word.as_str();
        match name {
            "MODEL" => {
                set_once(&mut self.model, args.text(name, limits::MODEL_MAX_BYTES)?.into(), name)
            }
            "DTYPE" => {
                let dtype = Dtype::parse(args.next(name)?);
                let dtype = dtype.ok_or_else(|| {
                    Error::err(format!("DTYPE must be one of {}", Dtype::names()))
                })?;
                set_once(&mut self.dtype, dtype, name)
            }
            "FORMAT" => {
                set_once(&mut self.format, args.text(name, limits::FORMAT_MAX_BYTES)?.into(), name)
            }
            "SHAPE" => {
                let dims = args.integer(name, 1, limits::SHAPE_MAX_DIMS as u64)?;
                let read = |args: &mut ArgReader<'_>| args.integer(name, 1, u64::from(u32::MAX));
                let shape = (0..dims).map(|_| Ok(read(args)? as u32)).collect::<Result<_>>()?;
                set_once(&mut self.shape, shape, name)
            }
            "CHUNK" => {
                let tokens = args.integer(name, 1, u64::from(limits::CHUNK_TOKENS_MAX))? as u32;
                set_once(&mut self.chunk_tokens, tokens, name)
            }
            "SALT" => {
                set_once(&mut self.salt, args.text(name, limits::SALT_MAX_BYTES)?.into(), name)
            }
            "TTL" => {
                let seconds = args.integer(name, 0, limits::TTL_MAX_MS / 1_000)?;
                set_once(&mut self.ttl_ms, seconds * 1_000, name)
            }
            "BUDGET" => set_once(&mut self.budget_bytes, args.memory(name)?, name),
            "CHECKSUM" => {
                let checksum = if args.on_or_off(name)? { Checksum::On } else { Checksum::Off };
                set_once(&mut self.checksum, checksum, name)
            }
            "DURABLE" => {
                let durable = Durable::parse(args.next(name)?)
                    .ok_or_else(|| Error::err("DURABLE must be FULL, META or NONE"))?;
                set_once(&mut self.durable, durable, name)
            }
            _ => Err(word.unknown()),
        }
    }
}

/// Runs `KVCHUNK.BUDGET ns bytes`.
pub fn run_budget(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let bytes = reader.memory("BUDGET")?;
    reader.finish()?;
    let namespace = need_namespace(ctx, args)?;
    namespace.with(|namespace| namespace.set_budget(bytes));
    ctx.signal_modified(&args.key());
    args.permit().replicate(c"KVCHUNK.BUDGET", &[args.name(), bytes.to_string().as_bytes()]);
    let mut removed = 0;
    if !ctx.state().must_obey() {
        let room = room_of(&namespace);
        if room > 0 {
            removed = shrink_to(args.permit(), &namespace, room, EVICT_AT_ONCE);
        }
        namespace.with(|namespace| namespace.adapt_to(room));
    }
    Reply::new(ctx).count(removed);
    Ok(())
}
