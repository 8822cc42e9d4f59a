//! The vocabulary of the command table: forms of arguments and the arguments that families share.

use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyOption, KeyUse};

pub(super) const fn arg(name: &'static str, kind: ArgKind) -> Arg {
    Arg { name, kind, token: "", optional: false, multiple: false }
}

pub(super) const fn opt(token: &'static str, name: &'static str, kind: ArgKind) -> Arg {
    Arg { name, kind, token, optional: true, multiple: false }
}

pub(super) const fn need(token: &'static str, name: &'static str, kind: ArgKind) -> Arg {
    Arg { name, kind, token, optional: false, multiple: false }
}

pub(super) const fn word(token: &'static str, name: &'static str) -> Arg {
    Arg { name, kind: ArgKind::Word, token, optional: false, multiple: false }
}

pub(super) const fn opt_word(token: &'static str, name: &'static str) -> Arg {
    Arg { name, kind: ArgKind::Word, token, optional: true, multiple: false }
}

pub(super) const fn many(name: &'static str, kind: ArgKind) -> Arg {
    Arg { name, kind, token: "", optional: false, multiple: true }
}

pub(super) const CACHE: Arg = arg("cache", ArgKind::Key);

pub(super) const VECTOR_FORMS: &[Arg] = &[
    need("FP32", "fp32-blob", ArgKind::Text),
    need("FP16", "fp16-blob", ArgKind::Text),
    need(
        "VALUES",
        "values",
        ArgKind::Block(&[arg("count", ArgKind::Integer), many("value", ArgKind::Double)]),
    ),
];

pub(super) const VECTOR: Arg = opt("", "vector", ArgKind::OneOf(VECTOR_FORMS));

/// The model that embeds texts for a container.
pub(super) const EMBED: Arg = opt("EMBED", "model", ArgKind::Text);
/// Which scripts are embedded.
pub(super) const SCRIPT: Arg = opt("SCRIPT", "script", ArgKind::OneOf(&[word("ANY", "any")]));

pub(super) const EXPIRY_FORMS: &[Arg] = &[
    need("EX", "seconds", ArgKind::Integer),
    need("PX", "milliseconds", ArgKind::Integer),
    need("EXAT", "unix-time-seconds", ArgKind::UnixTime),
    need("PXAT", "unix-time-milliseconds", ArgKind::UnixTime),
    word("PERSIST", "persist"),
];

pub(super) const SCOPE: Arg = opt("SCOPE", "scope", ArgKind::Text);
pub(super) const CONTEXT: Arg = opt("CONTEXT", "context", ArgKind::Text);
pub(super) const UNLESS_ALONE: Arg = opt_word("UNLESS-ALONE", "unless-alone");

pub(super) const fn write(
    name: &'static str,
    entry: crate::ffi::command::Entry,
    key: KeyUse,
) -> CommandSpec {
    CommandSpec {
        name,
        entry,
        arity: -2,
        flags: "write",
        key,
        second_key: None,
        key_options: &[],
        summary: "",
        complexity: "O(1)",
        since: "0.1.0",
        args: &[],
        reply: "",
        notes: "",
    }
}

/// An option with which a command does this with its first key besides.
pub(super) const fn also(token: &'static str, first: KeyUse) -> KeyOption {
    KeyOption { token, first: Some(first), names: None, several: false }
}

/// An option whose value is a key that the command adds to.
pub(super) const fn adds_to(token: &'static str, first: Option<KeyUse>) -> KeyOption {
    KeyOption { token, first, names: Some(KeyUse::Insert), several: false }
}

/// An option with more keys, with which the command does what it does with the first.
pub(super) const fn others(token: &'static str) -> KeyOption {
    KeyOption { token, first: None, names: Some(KeyUse::Read), several: true }
}

pub(super) const fn read(name: &'static str, entry: crate::ffi::command::Entry) -> CommandSpec {
    CommandSpec { flags: "readonly", ..write(name, entry, KeyUse::Read) }
}

pub(super) const MATRYOSHKA: Arg = opt("MATRYOSHKA", "dimensions", ArgKind::Integer);
pub(super) const QUANT: Arg = opt(
    "QUANT",
    "quant",
    ArgKind::OneOf(&[word("NONE", "none"), word("F16", "f16"), word("Q8", "q8")]),
);

pub(super) const INDEX: Arg = opt(
    "INDEX",
    "index",
    ArgKind::OneOf(&[word("AUTO", "auto"), word("FLAT", "flat"), word("HNSW", "hnsw")]),
);

/// An expiry, where one may be given.
pub(super) const EXPIRY: Arg = opt("", "expiry", ArgKind::OneOf(EXPIRY_FORMS));

pub(super) const TAGS: Arg = opt(
    "TAGS",
    "tags",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("tag", ArgKind::Text)]),
);

pub(super) const GUARD_LEVELS: &[Arg] =
    &[word("OFF", "off"), word("ON", "on"), word("STRICT", "strict")];
pub(super) const NUMBER_RULES: &[Arg] = &[word("EQUAL", "equal"), word("CONFLICT", "conflict")];

pub(super) const RETURN: Arg = opt(
    "RETURN",
    "fields",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("field", ArgKind::Text)]),
);

pub(super) const COLD: &[Arg] = &[word("EXACT", "exact"), word("STATIC", "static")];

/// Whether the caller can tell right from wrong.
pub(super) const AUDIT: Arg = opt_word("AUDIT", "audit");

/// What is reported on, and how it was.
pub(super) const VERDICT: ArgKind = ArgKind::Block(&[
    arg("reported", ArgKind::Text),
    arg("verdict", ArgKind::OneOf(&[word("RIGHT", "right"), word("WRONG", "wrong")])),
]);

/// A report on an audited lookup.
pub(super) const REPORT: Arg = opt("TICKET", "ticket", VERDICT);

/// What an answer was in the cache that it is brought over from.
pub(super) const MOVED: Arg = opt(
    "MOVED",
    "moved",
    ArgKind::Block(&[
        arg("age", ArgKind::Integer),
        arg("hits", ArgKind::Integer),
        arg("grace", ArgKind::Integer),
        arg("state", ArgKind::OneOf(&[word("FRESH", "fresh"), word("STALE", "stale")])),
    ]),
);
