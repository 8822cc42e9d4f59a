//! The description of a command: the type of a row of the command table.
//!
//! Owns: the types of rows, arguments and uses of keys, and what a use is to the server. Plain data; any thread.

use redis_module::raw;
use std::ffi::c_int;

/// A command's entry point, made by `command_entry!`.
pub type Entry = unsafe extern "C" fn(
    *mut raw::RedisModuleCtx,
    *mut *mut raw::RedisModuleString,
    c_int,
) -> c_int;

/// What a command does with the key that is its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// Reads it.
    Read,
    /// Adds to it.
    Insert,
    /// Changes what is there.
    Update,
    /// Removes from it.
    Delete,
    /// Changes what is there, and answers some of it.
    UpdateAndRead,
    /// Removes from it, and returns what that was.
    DeleteAndRead,
}

impl KeyUse {
    pub(super) fn flags(self) -> u32 {
        match self {
            Self::Read => raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS,
            Self::Insert => raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_INSERT,
            Self::Update => raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_UPDATE,
            Self::Delete => raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_DELETE,
            Self::UpdateAndRead => Self::Update.flags() | raw::REDISMODULE_CMD_KEY_ACCESS,
            Self::DeleteAndRead => Self::Delete.flags() | raw::REDISMODULE_CMD_KEY_ACCESS,
        }
    }

    /// What the ACL is asked for: the same without how the key is opened.
    pub(super) fn permission(self) -> c_int {
        let opened = raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_RW;
        (self.flags() & !opened) as c_int
    }
}

/// Kind of an argument.
#[derive(Debug, Clone, Copy)]
pub enum ArgKind {
    /// The routing key.
    Key,
    /// Bytes.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Double,
    /// A Unix time.
    UnixTime,
    /// A word that stands for itself.
    Word,
    /// One of several.
    OneOf(&'static [Arg]),
    /// Several in a row.
    Block(&'static [Arg]),
}

/// An argument of a command.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// Name, lower case.
    pub name: &'static str,
    /// Kind.
    pub kind: ArgKind,
    /// The upper-case word that comes before it; empty for none.
    pub token: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether it may be repeated.
    pub multiple: bool,
}

/// What an option changes of the keys of a call.
#[derive(Debug, Clone, Copy)]
pub struct KeyOption {
    /// Its word.
    pub token: &'static str,
    /// What it does with the first key besides.
    pub first: Option<KeyUse>,
    /// What it does with the key that its value names.
    pub names: Option<KeyUse>,
    /// Whether its value is a count and so many keys, each used as the first key of the call is.
    pub several: bool,
}

/// A row of the command table.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// Name as clients write it.
    pub name: &'static str,
    /// Its code.
    pub entry: Entry,
    /// Number of arguments, name included; negative for "at least".
    pub arity: c_int,
    /// The server's flags, separated by blanks.
    pub flags: &'static str,
    /// What it does with its first argument.
    pub key: KeyUse,
    /// What it does with its second argument, where that is a key too.
    pub second_key: Option<KeyUse>,
    /// What options change of that; such a row's entry point is made by `command_entry!(…, keys)`.
    pub key_options: &'static [KeyOption],
    /// One line.
    pub summary: &'static str,
    /// Cost in the size of things.
    pub complexity: &'static str,
    /// First version that has it.
    pub since: &'static str,
    /// Arguments.
    pub args: &'static [Arg],
    /// What it answers, for `docs/commands/`.
    pub reply: &'static str,
    /// What a user should know besides, for `docs/commands/`; may be empty.
    pub notes: &'static str,
}
