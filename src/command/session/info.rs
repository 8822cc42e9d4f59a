//! `SESSION.INFO`: counters and settings of a session.

use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::open_session;
use llmcache_core::error::Result;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let Some(session) = open_session(ctx, &args.key(), Access::Probe)? else {
        Reply::new(ctx).null();
        return Ok(());
    };
    let totals = session.totals();
    let seq = |seq: Option<llmcache_core::session::MessageSeq>| seq.map_or(0, |seq| seq.0.into());
    let reply = Reply::new(ctx);
    let numbers = [
        ("messages", totals.messages),
        ("tokens", totals.tokens),
        ("estimated", totals.estimated),
        ("pinned", session.pinned_count() as u64),
        ("open", session.open_count() as u64),
        ("first_seq", seq(session.first_seq())),
        ("last_seq", seq(session.last_seq())),
        ("next_seq", session.next_seq().0.into()),
        ("vectors", totals.vectors),
        ("dim", session.dim().unwrap_or(0).into()),
        ("ttl", session.ttl_ms() / 1_000),
        ("payload_bytes", totals.payload_bytes),
        ("bytes", session.heap_bytes() as u64),
    ];
    // Only where one embeds its messages.
    let model = Some(session.model()).filter(|model| !model.is_empty());
    reply.map(numbers.len() + usize::from(model.is_some()));
    for (name, number) in numbers {
        reply.text(name).count(number);
    }
    if let Some(model) = model {
        reply.text("model").bytes(model);
    }
    Ok(())
}
