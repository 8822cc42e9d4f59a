//! The worst-case cost of each command on the main thread, in steps: stated in the reference, and checked by debug
//! builds and tests (`llmcache.check-work`).
//!
//! Owns: one statement a command; a command without one fails a test. A statement depends on the arguments alone, or
//! says what else it depends on. What goes on in slices or in threads, and searches, which are estimated before they
//! begin, are not in it. Read from any thread.

use crate::ffi::Done;
use llmcache_core::limits;

/// So many, and so many more for each argument.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// In any case.
    pub base: u64,
    /// For each argument.
    pub per_argument: u64,
}

impl Bound {
    const fn of(self, arguments: u64) -> u64 {
        self.base + self.per_argument * arguments
    }
}

const fn each(base: u64, per_argument: u64) -> Bound {
    Bound { base, per_argument }
}

/// How large a reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// At most 64 KiB.
    Small,
    /// One stored value and what goes with it.
    Value,
    /// So many bytes for each argument.
    PerArgument(u64),
    /// At most 200 bytes for each chunk of the prompt.
    PerChunk,
    /// At most `llmcache.reply-max-bytes`.
    Bounded,
}

/// The worst of one command.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Keys opened.
    pub keys: Bound,
    /// Nodes, messages and members visited.
    pub path: Bound,
    /// Its reply.
    pub reply: Reply,
    /// What else it depends on; empty for nothing.
    pub more: &'static str,
}

/// Chunks of the longest chain.
const CHAIN: u64 = limits::KV_CHAIN_MAX as u64;
/// Tokens of the longest prompt, and the nodes that its windows meet.
const TOKENS: u64 = 3 * (limits::TOKENS_BLOB_MAX_BYTES / 4) as u64;
/// Keys that a command in slices opens before its client waits.
const IN_SLICES: u64 = 4 * 512;
/// Messages that a walk over a session looks at, and blocks that it takes apart.
const WALKED: u64 = 3 * limits::SESSION_WALKED_MAX as u64;
/// Steps of a walk that is estimated before it begins, and goes to a thread.
const MUCH: u64 = 1 << 22;
const BLOCKS: &str = "one step for each block of 8 KiB of the session";
/// Replies that no bound is stated for.
const SMALL_REPLY: u64 = 64 << 10;

impl Cost {
    /// A few keys, no walk.
    const SMALL: Self =
        Self { keys: each(16, 0), path: each(64, 0), reply: Reply::Small, more: "" };
    /// One entry stored, and up to 64 removed where the container is full.
    const STORE: Self = Self { keys: each(280, 0), path: each(1 << 16, 0), ..Self::SMALL };

    /// Many entries in slices: each opened or stored, texts without a vector read for their model.
    const BATCH: Self = Self { keys: each(280, 8), path: each(1 << 17, 0), ..Self::SMALL };

    /// The statement in words, for `docs/commands/`.
    pub fn describe(&self) -> String {
        let bound = |bound: Bound, what: &str| match bound {
            Bound { base, per_argument: 0 } => format!("{base} {what}"),
            Bound { base, per_argument } => {
                format!("{base} {what} and {per_argument} for each argument")
            }
        };
        let reply = match self.reply {
            Reply::Small => "a reply below 64 KiB".to_owned(),
            Reply::Value => "one stored value in the reply".to_owned(),
            Reply::PerArgument(bytes) => format!("{bytes} bytes of reply for each argument"),
            Reply::PerChunk => "200 bytes of reply for each chunk".to_owned(),
            Reply::Bounded => "`llmcache.reply-max-bytes` in the reply".to_owned(),
        };
        let more =
            if self.more.is_empty() { String::new() } else { format!("; and {}", self.more) };
        let path = bound(self.path, "steps on walks");
        format!("at most {} opened, {path}, {reply}{more}", bound(self.keys, "keys"))
    }

    /// What of the statement a command broke, if anything.
    fn broken_by(&self, done: &Done) -> Option<String> {
        let (steps, arguments) = (done.steps, done.arguments);
        let keys = self.keys.of(arguments);
        let path = self.path.of(arguments);
        let is_open = !self.more.is_empty() || !done.may_wait;
        let reply = match self.reply {
            Reply::Small => SMALL_REPLY,
            Reply::PerArgument(bytes) => SMALL_REPLY + bytes * arguments,
            Reply::Value | Reply::PerChunk | Reply::Bounded => u64::MAX,
        };
        let over = [("keys", steps.keys, keys), ("steps", steps.path, path)];
        let over = over.into_iter().filter(|_| !is_open);
        let mut over = over.chain([("bytes of reply", done.reply, reply)]);
        let (what, did, stated) = over.find(|(_, did, stated)| did > stated)?;
        Some(format!("{did} {what} where {stated} are stated for {arguments} arguments"))
    }
}

/// The statement of a command.
pub fn cost_of(name: &[u8]) -> Option<&'static Cost> {
    COSTS.iter().find(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name)).map(|(_, cost)| cost)
}

/// Compares what a command did with what is stated of it; returns how it did more.
pub fn judge(name: &[u8], done: Done) -> Option<String> {
    match cost_of(name) {
        Some(cost) => cost.broken_by(&done),
        None => Some("nothing is stated".to_owned()),
    }
}

/// The statements, in order of names.
pub const COSTS: &[(&str, Cost)] = &[
    ("EMBCACHE.CREATE", Cost::SMALL),
    ("EMBCACHE.DEL", Cost { keys: each(16, 4), ..Cost::SMALL }),
    ("EMBCACHE.EXTEND", Cost::SMALL),
    ("EMBCACHE.FAIL", Cost::SMALL),
    ("EMBCACHE.FETCH", Cost { reply: Reply::Value, ..Cost::SMALL }),
    ("EMBCACHE.GET", Cost { reply: Reply::Value, ..Cost::SMALL }),
    ("EMBCACHE.INFO", Cost::SMALL),
    ("EMBCACHE.MGET", Cost { reply: Reply::Bounded, ..Cost::BATCH }),
    ("EMBCACHE.MGETEX", Cost { reply: Reply::Bounded, ..Cost::BATCH }),
    ("EMBCACHE.MSET", Cost::BATCH),
    ("EMBCACHE.SET", Cost::STORE),
    ("KVCHUNK.BUDGET", Cost { more: "two keys for each chunk that it removes", ..Cost::SMALL }),
    ("KVCHUNK.CREATE", Cost::SMALL),
    ("KVCHUNK.DEL", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    ("KVCHUNK.DIGESTS", Cost { reply: Reply::PerChunk, ..Cost::SMALL }),
    (
        "KVCHUNK.FETCH",
        Cost {
            keys: each(3 * CHAIN, 0),
            path: each(2 * CHAIN, 0),
            reply: Reply::Bounded,
            ..Cost::SMALL
        },
    ),
    (
        "KVCHUNK.FIND",
        Cost {
            keys: each(CHAIN, 0),
            path: each(TOKENS, 0),
            reply: Reply::PerChunk,
            more: "two steps for each stored chunk with the same tokens",
        },
    ),
    (
        "KVCHUNK.GET",
        Cost { keys: each(CHAIN, 0), path: each(2 * CHAIN, 0), reply: Reply::Value, ..Cost::SMALL },
    ),
    ("KVCHUNK.INFO", Cost { path: each(4_096, 0), ..Cost::SMALL }),
    ("KVCHUNK.LEASE", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    ("KVCHUNK.MATCH", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    (
        "KVCHUNK.MISSING",
        Cost {
            keys: each(IN_SLICES, 0),
            path: each(2 * CHAIN, 0),
            reply: Reply::PerChunk,
            ..Cost::SMALL
        },
    ),
    (
        "KVCHUNK.MPUT",
        Cost {
            keys: each(2 * CHAIN, 8),
            path: each(8 * CHAIN, 16),
            reply: Reply::PerArgument(32),
            more: "two keys for each chunk that BUDGET makes it remove",
        },
    ),
    ("KVCHUNK.PIN", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    (
        "KVCHUNK.PUT",
        Cost {
            keys: each(2 * CHAIN, 8),
            path: each(8 * CHAIN, 16),
            reply: Reply::PerArgument(32),
            more: "two keys for each chunk that BUDGET makes it remove",
        },
    ),
    ("KVCHUNK.RELEASE", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    ("KVCHUNK.SCAN", Cost { keys: each(10_016, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    ("KVCHUNK.STATS", Cost::SMALL),
    ("KVCHUNK.TOUCH", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    ("KVCHUNK.TREE", Cost { path: each(16_384, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    ("KVCHUNK.UNPIN", Cost { keys: each(IN_SLICES, 0), path: each(2 * CHAIN, 0), ..Cost::SMALL }),
    (
        "KVCHUNK.VERIFY",
        Cost {
            keys: each(10_016, 0),
            reply: Reply::Bounded,
            more: "the payload bytes of COUNT chunks",
            ..Cost::SMALL
        },
    ),
    ("KVCHUNK._CREATE", Cost::SMALL),
    (
        "KVCHUNK._PUT",
        Cost {
            keys: each(2 * CHAIN, 8),
            path: each(8 * CHAIN, 16),
            reply: Reply::PerArgument(32),
            more: "two keys for each chunk that BUDGET makes it remove",
        },
    ),
    ("LLMCACHE.CONFIG", Cost::SMALL),
    ("LLMCACHE.CREATE", Cost::SMALL),
    ("LLMCACHE.DEL", Cost { keys: each(16, 4), ..Cost::SMALL }),
    ("LLMCACHE.DROP", Cost::SMALL),
    ("LLMCACHE.ENTRY", Cost { reply: Reply::Value, ..Cost::SMALL }),
    ("LLMCACHE.EXPIRE", Cost::SMALL),
    ("LLMCACHE.EXTEND", Cost::SMALL),
    ("LLMCACHE.FAIL", Cost::SMALL),
    ("LLMCACHE.FEEDBACK", Cost::SMALL),
    (
        "LLMCACHE.FETCH",
        Cost { keys: each(1_200, 1), path: each(MUCH, 0), reply: Reply::Bounded, ..Cost::SMALL },
    ),
    ("LLMCACHE.GET", Cost { reply: Reply::Value, ..Cost::SMALL }),
    (
        "LLMCACHE.GETSEM",
        Cost { keys: each(1_200, 1), path: each(MUCH, 0), reply: Reply::Bounded, ..Cost::SMALL },
    ),
    ("LLMCACHE.INFO", Cost::SMALL),
    ("LLMCACHE.INVALIDATE", Cost { keys: each(IN_SLICES, 4), path: each(MUCH, 0), ..Cost::SMALL }),
    (
        "LLMCACHE.MGETSEM",
        Cost {
            // Of 187 questions with 53 results each, MATRYOSHKA compares 160 more of each.
            keys: each(26_000, 40),
            path: each(MUCH, MUCH),
            reply: Reply::Bounded,
            ..Cost::SMALL
        },
    ),
    ("LLMCACHE.NEARMISSES", Cost { reply: Reply::Bounded, ..Cost::SMALL }),
    (
        "LLMCACHE.SCAN",
        Cost { keys: each(10_016, 0), path: each(MUCH, 0), reply: Reply::Bounded, ..Cost::SMALL },
    ),
    ("LLMCACHE.SET", Cost::STORE),
    ("LLMCACHE.SETSEM", Cost::STORE),
    ("LLMCACHE.STATS", Cost::SMALL),
    ("LLMCACHE._AUDIT", Cost::SMALL),
    ("LLMCACHE._CONFIG", Cost::SMALL),
    ("LLMCACHE._CREATE", Cost::SMALL),
    ("LLMCACHE._ENTRY", Cost::SMALL),
    ("LLMCACHE._EPOCH", Cost::SMALL),
    ("LLMCACHE._LABEL", Cost::SMALL),
    ("LLMCACHE._STALE", Cost::SMALL),
    ("RAG.ADD", Cost::STORE),
    ("RAG.CREATE", Cost::SMALL),
    ("RAG.DEL", Cost { keys: each(IN_SLICES, 4), path: each(MUCH, 0), ..Cost::SMALL }),
    ("RAG.DROP", Cost::SMALL),
    ("RAG.GET", Cost { reply: Reply::Value, ..Cost::SMALL }),
    ("RAG.INFO", Cost::SMALL),
    ("RAG.MADD", Cost { reply: Reply::PerArgument(64), ..Cost::BATCH }),
    ("RAG.MGET", Cost { keys: each(16, 4), reply: Reply::Bounded, ..Cost::SMALL }),
    (
        "RAG.SCAN",
        Cost { keys: each(10_016, 0), path: each(MUCH, 0), reply: Reply::Bounded, ..Cost::SMALL },
    ),
    (
        "RAG.SEARCH",
        // With WORDS and COUNT 1,000: as many of each side, and the texts in which phrases are looked for.
        Cost { keys: each(3_400, 1), path: each(MUCH, 0), reply: Reply::Bounded, ..Cost::SMALL },
    ),
    (
        "SESSION.APPEND",
        Cost {
            keys: each(128, 0),
            path: each(4_096, 64),
            reply: Reply::PerArgument(64),
            more: BLOCKS,
        },
    ),
    ("SESSION.BEGIN", Cost { path: each(4_096, 0), ..Cost::SMALL }),
    ("SESSION.CHUNK", Cost { path: each(4_096, 0), ..Cost::SMALL }),
    ("SESSION.CLEAR", Cost { path: each(4_096, 0), more: BLOCKS, ..Cost::SMALL }),
    ("SESSION.COMPACT", Cost { path: each(4_096, 0), more: BLOCKS, ..Cost::SMALL }),
    ("SESSION.DEL", Cost { path: each(4_096, 2_048), ..Cost::SMALL }),
    ("SESSION.EDIT", Cost { path: each(4_096, 2_048), ..Cost::SMALL }),
    ("SESSION.END", Cost { keys: each(280, 0), path: each(4_096, 0), ..Cost::SMALL }),
    ("SESSION.EXPIRE", Cost::SMALL),
    (
        "SESSION.EXPORT",
        Cost { path: each(WALKED, 0), reply: Reply::Bounded, more: BLOCKS, ..Cost::SMALL },
    ),
    ("SESSION.FOLLOW", Cost { path: each(4_096, 0), reply: Reply::Value, ..Cost::SMALL }),
    ("SESSION.FORK", Cost { path: each(4_096, 0), more: BLOCKS, ..Cost::SMALL }),
    ("SESSION.GET", Cost { path: each(4_096, 0), reply: Reply::Value, ..Cost::SMALL }),
    ("SESSION.INFO", Cost::SMALL),
    ("SESSION.LEN", Cost::SMALL),
    ("SESSION.LIST", Cost { keys: each(12_200, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    (
        "SESSION.LOAD",
        Cost { path: each(4_096, 2_048), reply: Reply::Small, more: BLOCKS, ..Cost::SMALL },
    ),
    ("SESSION.POP", Cost { path: each(70_000, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    ("SESSION.RANGE", Cost { path: each(WALKED, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    (
        "SESSION.RECALL",
        Cost { path: each(WALKED, 0), reply: Reply::Bounded, more: BLOCKS, ..Cost::SMALL },
    ),
    ("SESSION.STOP", Cost::SMALL),
    ("SESSION.TRIM", Cost { path: each(4_096, 0), more: BLOCKS, ..Cost::SMALL }),
    ("SESSION.WINDOW", Cost { path: each(WALKED, 0), reply: Reply::Bounded, ..Cost::SMALL }),
    ("SESSION._APPLY", Cost { path: each(MUCH, MUCH), more: BLOCKS, ..Cost::SMALL }),
    ("SESSION._LOAD", Cost { path: each(MUCH, MUCH), more: BLOCKS, ..Cost::SMALL }),
];
