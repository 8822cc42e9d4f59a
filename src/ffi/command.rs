//! Registers commands with the server.
//!
//! Owns: registration. A row (`command_spec`) drives the server's arity
//! check, `COMMAND INFO`, `COMMAND DOCS`, ACL and cluster routing, and the pages of
//! `docs/commands/`. Main thread, at load.

use super::Ctx;
use super::api::api;
use redis_module::raw;
use std::ffi::{CString, c_char, c_int};

pub use super::call::{run_command, run_internal_command};
pub use super::command_spec::{Arg, ArgKind, CommandSpec, Entry, KeyOption, KeyUse};
pub use super::keys::tell_keys;

/// Version 1 of the server's description of a command, the only one so far.
const INFO_VERSION: c_int = 1;

/// Says in a sentence what an argument of a command means.
pub type Explain = fn(command: &str, arg: &Arg) -> &'static str;

/// Registers one command; the error names what the server refused.
pub fn register(ctx: Ctx<'_>, spec: &'static CommandSpec, explain: Explain) -> Result<(), String> {
    let mut strings = Strings::of(spec, explain);
    let name = strings.keep(spec.name);
    let asks = if spec.key_options.is_empty() { "" } else { " getkeys-api" };
    let flags = strings.keep(&format!("{}{asks}", spec.flags));
    if !spec.key_options.is_empty() {
        super::keys::keep(spec);
    }
    let mut args = c_args(spec.args, &mut strings);
    let second = spec.second_key.map(|key| key_spec(key.flags(), 2));
    let named = spec.key_options.iter().filter_map(|option| option.names).map(key_spec_of_option);
    let first = [key_spec(first_key_flags(spec), 1)];
    let mut key_specs: Vec<_> =
        first.into_iter().chain(second).chain(named).chain([key_spec_end()]).collect();
    let version = raw::RedisModuleCommandInfoVersion {
        version: INFO_VERSION,
        sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
        sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
        sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
    };
    let info = raw::RedisModuleCommandInfo {
        version: &version,
        summary: strings.keep(spec.summary),
        complexity: strings.keep(spec.complexity),
        since: strings.keep(spec.since),
        history: std::ptr::null_mut(),
        tips: std::ptr::null(),
        arity: spec.arity,
        key_specs: key_specs.as_mut_ptr(),
        args: args.as_mut_ptr(),
    };
    let ok = raw::REDISMODULE_OK as c_int;
    // SAFETY: the server copies all it is given; strings, arguments and key specs outlive the calls.
    unsafe {
        if api!(RedisModule_CreateCommand(ctx.as_ptr(), name, Some(spec.entry), flags, 1, 1, 1))
            != ok
        {
            return Err(format!("the server refused the command {}", spec.name));
        }
        let command = api!(RedisModule_GetCommand(ctx.as_ptr(), name));
        if command.is_null() || api!(RedisModule_SetCommandInfo(command, &info)) != ok {
            return Err(format!("the server refused the description of {}", spec.name));
        }
    }
    set_acl_categories(ctx, spec)
}

/// Puts the command into the ACL categories that its flags mean. Servers before 7.2 keep modules'
/// commands out of all categories and do not offer this.
fn set_acl_categories(ctx: Ctx<'_>, spec: &CommandSpec) -> Result<(), String> {
    let categories: Vec<&str> = spec
        .flags
        .split(' ')
        .flat_map(|flag| match flag {
            "readonly" => &["read"][..],
            "write" => &["write"],
            "admin" => &["admin", "dangerous"],
            "fast" => &["fast"],
            _ => &[],
        })
        .copied()
        .chain((!spec.flags.contains("fast")).then_some("slow"))
        .collect();
    let categories = CString::new(categories.join(" ")).expect("the command table is plain text");
    let name = CString::new(spec.name).expect("the command table is plain text");
    // SAFETY: the command was registered; the binding is read by value; the text is copied.
    let refused = unsafe {
        let command = api!(RedisModule_GetCommand(ctx.as_ptr(), name.as_ptr()));
        let set = raw::RedisModule_SetCommandACLCategories;
        set.is_some_and(|set| set(command, categories.as_ptr()) != raw::REDISMODULE_OK as c_int)
    };
    if refused {
        Err(format!("the server refused the ACL categories of {}", spec.name))
    } else {
        Ok(())
    }
}

/// Zero-terminated copies and argument arrays, alive until registration is done.
struct Strings<'a> {
    command: &'a str,
    explain: Explain,
    texts: Vec<CString>,
    arrays: Vec<Vec<raw::RedisModuleCommandArg>>,
    /// Keys among the arguments so far; each has its key spec.
    keys: c_int,
}

impl<'a> Strings<'a> {
    fn of(spec: &'a CommandSpec, explain: Explain) -> Self {
        let (texts, arrays) = (Vec::new(), Vec::new());
        Self { command: spec.name, explain, texts, arrays, keys: 0 }
    }

    /// Null for the empty text.
    fn keep(&mut self, text: &str) -> *const c_char {
        if text.is_empty() {
            return std::ptr::null();
        }
        self.texts.push(CString::new(text).expect("the command table is plain text"));
        self.texts[self.texts.len() - 1].as_ptr()
    }
}

fn c_args(args: &[Arg], strings: &mut Strings<'_>) -> Vec<raw::RedisModuleCommandArg> {
    let mut out: Vec<_> = args.iter().map(|arg| c_arg(arg, strings)).collect();
    // The array ends with an entry of zeros.
    // SAFETY: a plain C struct of integers and pointers, for which zero is a value.
    out.push(unsafe { std::mem::zeroed() });
    out
}

fn c_arg(arg: &Arg, strings: &mut Strings<'_>) -> raw::RedisModuleCommandArg {
    use raw::*;
    let (kind, inner): (RedisModuleCommandArgType, &[Arg]) = match arg.kind {
        ArgKind::Key => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY, &[]),
        ArgKind::Text => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING, &[]),
        ArgKind::Integer => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER, &[]),
        ArgKind::Double => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE, &[]),
        ArgKind::UnixTime => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_UNIX_TIME, &[]),
        ArgKind::Word => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN, &[]),
        ArgKind::OneOf(inner) => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF, inner),
        ArgKind::Block(inner) => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK, inner),
    };
    let mut flags = REDISMODULE_CMD_ARG_NONE;
    flags |= if arg.optional { REDISMODULE_CMD_ARG_OPTIONAL } else { 0 };
    flags |= if arg.multiple { REDISMODULE_CMD_ARG_MULTIPLE } else { 0 };
    let subargs = if inner.is_empty() {
        std::ptr::null_mut()
    } else {
        let array = c_args(inner, strings);
        strings.arrays.push(array);
        let last = strings.arrays.len() - 1;
        strings.arrays[last].as_mut_ptr()
    };
    let is_key = matches!(arg.kind, ArgKind::Key);
    strings.keys += c_int::from(is_key);
    RedisModuleCommandArg {
        name: strings.keep(arg.name),
        type_: kind,
        key_spec_index: if is_key { strings.keys - 1 } else { -1 },
        token: strings.keep(arg.token),
        summary: strings.keep((strings.explain)(strings.command, arg)),
        since: std::ptr::null(),
        flags: flags as c_int,
        deprecated_since: std::ptr::null(),
        subargs,
        display_text: std::ptr::null(),
    }
}

/// What a command may do with its first key; where options decide, the server is to ask.
fn first_key_flags(spec: &CommandSpec) -> u32 {
    let more = spec.key_options.iter().filter_map(|option| option.first);
    let all = more.fold(spec.key.flags(), |flags, more| flags | more.flags());
    let opened = super::keys::opened_once(all);
    match spec.key_options {
        [] => opened,
        _ => opened | raw::REDISMODULE_CMD_KEY_VARIABLE_FLAGS,
    }
}

/// A key that an option names. No search for its word would tell it from a text that says the same, so
/// the server is told that there may be one, and asks.
fn key_spec_of_option(key: KeyUse) -> raw::RedisModuleCommandKeySpec {
    use raw::*;
    RedisModuleCommandKeySpec {
        flags: u64::from(key.flags() | REDISMODULE_CMD_KEY_INCOMPLETE),
        begin_search_type: RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_UNKNOWN,
        find_keys_type: RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_UNKNOWN,
        ..key_spec_end()
    }
}

fn key_spec(flags: u32, place: c_int) -> raw::RedisModuleCommandKeySpec {
    use raw::*;
    RedisModuleCommandKeySpec {
        notes: std::ptr::null(),
        flags: u64::from(flags),
        begin_search_type: RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX,
        bs: RedisModuleCommandKeySpec__bindgen_ty_1 {
            index: RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: place },
        },
        find_keys_type: RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE,
        fk: RedisModuleCommandKeySpec__bindgen_ty_2 {
            range: RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                lastkey: 0,
                keystep: 1,
                limit: 0,
            },
        },
    }
}

fn key_spec_end() -> raw::RedisModuleCommandKeySpec {
    // SAFETY: a plain C struct of integers and pointers, for which zero is a value; it ends the
    // array.
    unsafe { std::mem::zeroed() }
}
