//! Entry point of the module: nothing but the order in which it is put together.

mod background;
pub mod command;
mod config;
mod events;
pub mod ffi;
mod info;
mod keyspace;
mod keytype;

use ffi::Ctx;

const VERSION: i32 = 1;

module_entry!(c"llmcache", VERSION, start);

/// Puts the module together. Whatever can fail comes first, subscriptions last.
fn start(ctx: Ctx<'_>) -> Result<(), String> {
    keytype::register_cache_types(ctx)?;
    ffi::register_type::<keytype::EntryValue>(ctx)
        .then_some(())
        .ok_or("the type of entries was refused")?;
    ffi::register_type::<keytype::NamespaceValue>(ctx)
        .then_some(())
        .ok_or("the type of namespaces was refused")?;
    ffi::register_type::<keytype::ChunkValue>(ctx)
        .then_some(())
        .ok_or("the type of chunks was refused")?;
    ffi::register_type::<keytype::SessionValue>(ctx)
        .then_some(())
        .ok_or("the type of sessions was refused")?;
    for spec in command::table::COMMANDS {
        ffi::command::register(ctx, spec)?;
    }
    config::register(ctx).then_some(()).ok_or("a config was refused")?;
    ffi::register_info(ctx, info::write).then_some(()).ok_or("INFO was refused")?;
    events::subscribe(ctx).then_some(()).ok_or("a subscription was refused")?;
    background::start(ctx);
    Ok(())
}
