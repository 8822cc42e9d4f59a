//! Entry point of the module: nothing but the order in which it is put together.

mod background;
pub mod command;
mod config;
mod events;
pub mod ffi;
mod info;
mod keyspace;
mod keytype;
mod version;

use ffi::Ctx;
use llmcache_core::distance::kernels;

module_entry!(c"llmcache", version::NUMBER, start);

/// Puts the module together. Settings come first: what is wrong with them refuses the rest. Nothing that would run
/// by itself is begun here, since the server may still find fault after it.
fn start(ctx: Ctx<'_>) -> Result<(), String> {
    config::register(ctx).then_some(()).ok_or("a config was refused")?;
    if ffi::has_settings_left(ctx) {
        return Err("a setting given by CONFIG has a name that is none of its own".into());
    }
    llmcache_core::cache::guard::prepare();
    keyspace::load_models(ctx)?;
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
    ffi::judge_commands(config::check_work, command::table::judge);
    for spec in command::table::COMMANDS {
        ffi::command::register(ctx, spec, command::table::explain)?;
    }
    ffi::register_info(ctx, info::write).then_some(()).ok_or("INFO was refused")?;
    keyspace::set_minute(ctx);
    let subscribed = events::subscribe(ctx) && ffi::once_loaded(ctx, background::start);
    subscribed.then_some(()).ok_or("a subscription was refused")?;
    let (version, kernels, changed) = (version::TEXT, kernels().name, config::changed());
    let settings = if changed.is_empty() { "all at their defaults" } else { &changed };
    ctx.log_notice(&format!("llmcache {version}, kernels {kernels}, settings {settings}"));
    Ok(())
}
