//! `RAG.DEL`: removes documents by id, filter or tag.

use super::{check_id, key_name};
use crate::command::container::entry;
use crate::command::container::picking::Target;
use crate::command::parse::{ArgReader, flag_once, parse_filter, set_once};
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::{Criterion, open_container};
use llmcache_core::cache::{Kind, Severity};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let first = reader.clone().option();
    let ids = match first.as_ref().map(|word| word.as_str()) {
        Some("FILTER" | "TAG") => return pick(ctx, args, Picked::parse(reader)?),
        Some("IDS") => {
            reader.option();
            let ids = reader.list("IDS", limits::STORE_BATCH_MAX)?;
            reader.finish()?;
            ids
        }
        _ => args.options(),
    };
    let ids = ids.iter().map(|id| check_id(id)).collect::<Result<Vec<_>>>()?;
    entry::remove(ctx, args, Kind::Documents, ids.into_iter().map(key_name))
}

/// What is picked out.
struct Picked {
    criterion: Criterion,
    limit: u64,
    dry_run: bool,
}

impl Picked {
    fn parse(mut args: ArgReader<'_>) -> Result<Self> {
        let (mut criterion, mut limit, mut dry_run) = (None, None, false);
        while let Some(word) = args.option() {
            let (name, what) = (word.as_str(), "what is to be removed");
            match name {
                "FILTER" => {
                    set_once(&mut criterion, Criterion::Filter(parse_filter(&mut args)?), what)?;
                }
                "TAG" => match args.text(name, limits::TAG_MAX_BYTES)? {
                    b"" => return Err(Error::err("a tag must not be empty")),
                    tag => set_once(&mut criterion, Criterion::Tag(tag.into()), what)?,
                },
                "LIMIT" => {
                    let most = limits::INVALIDATE_MAX;
                    set_once(&mut limit, args.integer(name, 1, most)?, name)?;
                }
                "DRYRUN" => flag_once(&mut dry_run, name)?,
                _ => return Err(word.unknown()),
            }
        }
        let criterion =
            criterion.ok_or_else(|| Error::err("syntax error: IDS, FILTER or TAG is needed"))?;
        Ok(Self { criterion, limit: limit.unwrap_or(limits::INVALIDATE_MAX), dry_run })
    }
}

fn pick(ctx: Ctx<'_>, args: &CommandArgs<'_>, picked: Picked) -> Result<()> {
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    let severity = (!picked.dry_run).then_some(Severity::Gone);
    let target = Target { ctx: args.permit(), cache, name: args.name(), channel: None, severity };
    target.pick(picked.criterion, picked.limit)
}
