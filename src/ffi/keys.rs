//! Key positions of commands whose keys depend on options.
//!
//! Owns: the walk over the arguments of a call by the grammar of its row, and the answer to the server's
//! question for the places of keys. ACL, `ACL DRYRUN`, `ACL LOG`, `COMMAND GETKEYS` and cluster routing all
//! ask it, so that a user is refused by the server itself. Where the walk does not know a word it claims
//! every use that an option could make of the first key: a call is never let in on a reading that its
//! handler does not share. Main thread; called without a client, so it asks the server nothing.

use super::MainCell;
use super::api::api;
use super::command_spec::{Arg, ArgKind, CommandSpec, Entry};
use super::string::bytes_of;
use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use redis_module::raw::RedisModuleString;
use std::ffi::c_int;

static ROWS: MainCell<Vec<(usize, &'static CommandSpec)>> = MainCell::new(Vec::new());

/// Keeps the row of a command whose keys depend on its options.
pub(super) fn keep(spec: &'static CommandSpec) {
    ROWS.with(|rows| rows.push((spec.entry as usize, spec)));
}

/// Answers the server where it asks for the places of keys, instead of running a command; false where it
/// does not ask.
///
/// # Safety
/// To be called by the entry point `entry` with what the server called it with.
pub unsafe fn tell_keys(
    entry: Entry,
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> bool {
    // SAFETY: the context is the server's, valid until the entry point returns.
    if unsafe { api!(RedisModule_IsKeysPositionRequest(ctx)) } == 0 {
        return false;
    }
    let row = ROWS.with(|rows| rows.iter().find(|row| row.0 == entry as usize).map(|row| row.1));
    let Some(spec) = row else { return true };
    // SAFETY: the arguments of a call, which live until the entry point returns.
    let strings = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
    // SAFETY: as above.
    let args: Vec<&[u8]> = strings.iter().map(|&arg| unsafe { bytes_of(arg) }).collect();
    for (place, flags) in keys_of(spec, &args) {
        // SAFETY: the context is one that asks for places; this is one of the arguments.
        unsafe { api!(RedisModule_KeyAtPosWithFlags(ctx, place as c_int, flags as c_int)) };
    }
    true
}

/// The places of the keys of a call, its name being argument 0, and the server's flags of their use.
fn keys_of(spec: &CommandSpec, args: &[&[u8]]) -> Vec<(usize, u32)> {
    let mut first = spec.key.flags();
    let mut keys = vec![(1, first)];
    let mut like_first = Vec::new();
    if args.len() < 2 {
        return Vec::new();
    }
    let mut at = 2 + leading_values(&spec.args[1..]);
    while let Some(word) = args.get(at) {
        let Some(values) = values_behind(spec.args, word) else {
            let all = spec.key_options.iter().filter_map(|option| option.first);
            first |= all.fold(0, |flags, more| flags | more.flags());
            break;
        };
        let option =
            spec.key_options.iter().find(|o| word.eq_ignore_ascii_case(o.token.as_bytes()));
        if let Some(option) = option {
            first |= option.first.map_or(0, |more| more.flags());
            if option.several {
                let count = args.get(at + 1).map_or(0, |count| number(count));
                like_first.extend((at + 2..args.len()).take(count));
            } else if at + 1 < args.len() {
                keys.extend(option.names.map(|how| (at + 1, how.flags())));
            }
        }
        at += 1 + match values {
            Values::Fixed(count) => count,
            Values::Counted => 1 + args.get(at + 1).map_or(0, |count| number(count)),
        };
    }
    let first = opened_once(first);
    keys[0].1 = first;
    keys.extend(like_first.into_iter().map(|at| (at, first)));
    keys
}

/// A key is opened in one way: the stronger one.
pub(super) fn opened_once(flags: u32) -> u32 {
    let writes = flags & raw::REDISMODULE_CMD_KEY_RW != 0;
    if writes { flags & !raw::REDISMODULE_CMD_KEY_RO } else { flags }
}

/// How many arguments belong to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Fixed(usize),
    /// A number, and so many.
    Counted,
}

fn number(text: &[u8]) -> usize {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether an argument is one value and no option.
fn is_value(arg: &Arg) -> bool {
    arg.token.is_empty()
        && !matches!(arg.kind, ArgKind::Word | ArgKind::OneOf(_) | ArgKind::Block(_))
}

fn leading_values(args: &[Arg]) -> usize {
    args.iter().take_while(|arg| is_value(arg)).count()
}

/// What follows a word where it is the word of an option; `None` where it is none.
fn values_behind(args: &[Arg], word: &[u8]) -> Option<Values> {
    args.iter().find_map(|arg| {
        let named = !arg.token.is_empty() && word.eq_ignore_ascii_case(arg.token.as_bytes());
        match arg.kind {
            ArgKind::Word => named.then_some(Values::Fixed(0)),
            ArgKind::OneOf(forms) if named => {
                let is_word = forms.iter().all(|form| matches!(form.kind, ArgKind::Word));
                Some(Values::Fixed(usize::from(is_word)))
            }
            ArgKind::OneOf(forms) => values_behind(forms, word),
            ArgKind::Block([_, last]) if named && last.multiple => Some(Values::Counted),
            ArgKind::Block(parts) if named => Some(Values::Fixed(leading_values(parts))),
            ArgKind::Block([Arg { kind: ArgKind::Word, token, .. }, parts @ ..])
                if word.eq_ignore_ascii_case(token.as_bytes()) =>
            {
                Some(Values::Fixed(leading_values(parts)))
            }
            ArgKind::Block(parts) => values_behind(parts, word),
            _ => named.then_some(Values::Fixed(1)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::COMMANDS;

    fn keys(call: &str) -> Vec<(usize, bool, bool)> {
        let args: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        let spec = COMMANDS.iter().find(|spec| spec.name.as_bytes() == args[0]).expect("a command");
        let has = |flags: u32, flag: u32| flags & flag != 0;
        let writes = raw::REDISMODULE_CMD_KEY_INSERT
            | raw::REDISMODULE_CMD_KEY_UPDATE
            | raw::REDISMODULE_CMD_KEY_DELETE;
        let told = keys_of(spec, &args).into_iter();
        told.map(|(at, flags)| {
            (at, has(flags, raw::REDISMODULE_CMD_KEY_ACCESS), has(flags, writes))
        })
        .collect()
    }

    #[test]
    fn options_are_told_from_values_that_look_like_them() {
        let (read, write, both) = ((1, true, false), (1, false, true), (1, true, true));
        let key = |at| (at, false, true);
        for (call, wanted) in [
            ("SESSION.APPEND s OWNER o MSG user hi", vec![write, key(3)]),
            ("SESSION.APPEND s TTL 5 UPSERT owner o MSG user hi", vec![write, key(6)]),
            ("SESSION.APPEND s MSG owner OWNER ID OWNER", vec![write]),
            ("SESSION.APPEND s MSG user x TOKENS 1 MSG OWNER y", vec![write]),
            ("SESSION.APPEND s MSG user x VALUES 2 1 2 CALL OWNER MSG OWNER y", vec![write]),
            ("SESSION.END s 1 CACHE TOKENS 5", vec![write]),
            ("SESSION.END s 1 t STATUS done CACHE c PROMPT CACHE EX 5", vec![both, key(7)]),
            ("SESSION.END s 1 t META CACHE", vec![write]),
            ("KVCHUNK.MATCH n TOKENS LEASE", vec![read]),
            ("KVCHUNK.MATCH n TOKENS x SALT LEASE FILTER LEASE", vec![read]),
            ("KVCHUNK.MATCH n HASHES 2 LEASE LEASE lease 5", vec![both]),
            ("KVCHUNK.MATCH n PACKED 5 LEASE", vec![read]),
            ("KVCHUNK.MATCH n PACKED 5 LEASE lease 5", vec![both]),
            ("KVCHUNK.FETCH n TOKENS x RANGE LEASE LEASE COUNT 1", vec![read]),
            ("KVCHUNK.FETCH n TOKENS x FROM 1 COUNT 1 MAXBYTES 5 LEASE 5", vec![both]),
            ("KVCHUNK.STATS n", vec![read]),
            ("KVCHUNK.STATS n RESET", vec![both]),
            ("LLMCACHE.STATS c SCOPE RESET", vec![read]),
            ("LLMCACHE.STATS c SCOPE x reset", vec![both]),
            ("LLMCACHE.CONFIG c GET", vec![both]),
            ("LLMCACHE.CONFIG c GET ttl", vec![both]),
            ("LLMCACHE.CONFIG c SET get 5", vec![write]),
            ("LLMCACHE.INVALIDATE c TAG DRYRUN", vec![write]),
            ("LLMCACHE.INVALIDATE c TAG FILTER SOFT", vec![write]),
            ("LLMCACHE.INVALIDATE c IDS 2 FILTER DRYRUN LIMIT 1", vec![write]),
            ("LLMCACHE.INVALIDATE c ALL DRYRUN", vec![both]),
            ("LLMCACHE.INVALIDATE c FILTER x", vec![both]),
            ("LLMCACHE.INVALIDATE c NEAR VALUES 1 1 SIMILARITY 1", vec![both]),
            (
                "KVCHUNK.MATCH n HASHES 2 ALSO 1 ALSO 2 m o",
                vec![read, (8, true, false), (9, true, false)],
            ),
            ("KVCHUNK.MATCH n TOKENS x also 1 LEASE SPARSE LEASE 5", vec![both, (6, true, true)]),
            ("KVCHUNK.MATCH n TOKENS x ALSO 9 m", vec![read, (6, true, false)]),
            ("KVCHUNK.MATCH n TOKENS x ALSO", vec![read]),
            // What is not known claims everything.
            ("KVCHUNK.MATCH n NEW LEASE 5", vec![both]),
            ("LLMCACHE.STATS c SCOPE x NEW RESET", vec![both]),
        ] {
            assert_eq!(keys(call), wanted, "{call}");
        }
    }

    /// Each option that the table says changes keys is an option of the grammar, and its value one argument.
    #[test]
    fn rows_name_options_that_they_have() {
        for spec in COMMANDS {
            for option in spec.key_options {
                let values = values_behind(spec.args, option.token.as_bytes());
                let wanted = match (option.names, option.several) {
                    (_, true) => Some(Values::Counted),
                    (Some(_), false) => Some(Values::Fixed(1)),
                    (None, false) => values,
                };
                assert!(values.is_some() && values == wanted, "{} {}", spec.name, option.token);
            }
        }
    }
}
