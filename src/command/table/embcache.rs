//! The rows of `EMBCACHE.*` in the command table.

use super::words::{
    EMBED, EXPIRY, EXPIRY_FORMS, QUANT, SCRIPT, VECTOR_FORMS, arg, many, need, opt, read, word,
    write,
};
use crate::command::embcache::{admin, fetch, get, many, set};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const CACHE: Arg = arg("cache", ArgKind::Key);
const MODEL: Arg = opt("MODEL", "model", ArgKind::Text);
const SUBJECT: Arg = need(
    "",
    "of",
    ArgKind::OneOf(&[need("TEXT", "text", ArgKind::Text), need("DIGEST", "digest", ArgKind::Text)]),
);
const SUBJECTS: Arg = need(
    "",
    "of",
    ArgKind::OneOf(&[
        need(
            "TEXTS",
            "texts",
            ArgKind::Block(&[arg("count", ArgKind::Integer), many("text", ArgKind::Text)]),
        ),
        need(
            "DIGESTS",
            "digests",
            ArgKind::Block(&[arg("count", ArgKind::Integer), many("digest", ArgKind::Text)]),
        ),
    ]),
);
const AS: Arg = opt(
    "AS",
    "form",
    ArgKind::OneOf(&[word("FP32", "fp32"), word("FP16", "fp16"), word("VALUES", "values")]),
);
const OWN_VECTOR: Arg = opt("", "vector", ArgKind::OneOf(VECTOR_FORMS));
const TOKEN: Arg = arg("token", ArgKind::Text);

pub(super) const EMBCACHE: &[CommandSpec] = &[
    CommandSpec {
        arity: -4,
        flags: "write deny-oom",
        summary: "Creates a cache of embeddings of one model.",
        args: &[
            CACHE,
            opt("MODEL", "model", ArgKind::Text),
            opt("DIM", "dimensions", ArgKind::Integer),
            EMBED,
            SCRIPT,
            QUANT,
            opt("TTL", "seconds", ArgKind::Integer),
            opt("MAXENTRIES", "entries", ArgKind::Integer),
            opt("MAXMEMORY", "bytes", ArgKind::Integer),
        ],
        reply: "`OK`, also if a cache of this name exists with the same settings. `MODELMISMATCH` if it is of another \
            model, `DIMMISMATCH` if of another dimension, `ERR` if other settings differ.",
        notes: "`MODEL` and `DIM` are needed, or `EMBED` with the name of a loaded model (`docs/embedding.md`), which \
            sets both; texts are then embedded here. QUANT says how vectors are kept: `NONE` bit for bit; `F16` with \
            an error of at most 0.0005 abs(x) + 3.1e-8 norm(v) in each element x of a vector v; `Q8` with an error \
            of at most max abs(v) / 253. A vector keeps its length. Two models, for instance during a migration, are \
            two caches; with the same `{tag}` in their names they share a hash slot.",
        ..write("EMBCACHE.CREATE", command_entry!(admin::run_create), KeyUse::Insert)
    },
    CommandSpec {
        arity: -4,
        flags: "write deny-oom",
        summary: "Stores the embedding of a text.",
        complexity: "O(d) for d dimensions, and what MAXENTRIES or MAXMEMORY make it remove",
        args: &[CACHE, SUBJECT, OWN_VECTOR, EXPIRY, MODEL, opt("LEASE", "token", ArgKind::Text)],
        reply: "`OK`.",
        notes: "The text itself is not stored, only its digest: SHA-256 over the length-prefixed model and text \
            (`docs/formats.md` has test vectors). `DIGEST` takes that digest as 64 hex digits. `MODEL` names the \
            model that the caller uses: `MODELMISMATCH` if the cache is of another one. A cache that does not exist \
            is created only if `MODEL` is given and `llmcache.auto-create` is `yes`, else: `NOCACHE`. `LEASE token` \
            stores what FETCH asked for; if the lease went to another client, nothing is stored: `LEASELOST`. \
            Without a vector, a cache with EMBED embeds the text.",
        ..write("EMBCACHE.SET", command_entry!(set::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -5,
        flags: "write deny-oom",
        summary: "Stores the embeddings of many texts in one round trip.",
        complexity: "That of SET for each",
        args: &[
            CACHE,
            arg("count", ArgKind::Integer),
            Arg {
                name: "embedding",
                kind: ArgKind::Block(&[SUBJECT, OWN_VECTOR]),
                token: "",
                optional: false,
                multiple: true,
            },
            EXPIRY,
            MODEL,
        ],
        reply: "How many were stored: all, or none where one is refused.",
        notes: "At most 1,000; the expiry holds for all. On a cache with EMBED a text without a vector is embedded; \
            one that the model does not read refuses them all.",
        ..write("EMBCACHE.MSET", command_entry!(set::run_many), KeyUse::Insert)
    },
    CommandSpec {
        arity: -4,
        flags: "readonly fast",
        summary: "Returns the embedding of a text.",
        args: &[CACHE, SUBJECT, AS, MODEL],
        reply: "The vector in the form that `AS` names: a little-endian blob of `FP32` (the default) or `FP16`, or an \
            array of numbers; or null.",
        notes: "On a cache with EMBED, a text that is not stored is embedded and returned, but not stored; FETCH stores \
            it. A text that the model cannot read is refused, with the reason.",
        ..read("EMBCACHE.GET", command_entry!(get::run))
    },
    CommandSpec {
        arity: -5,
        summary: "Returns the embeddings of many texts in one round trip.",
        complexity: "O(n d) for n texts",
        args: &[CACHE, SUBJECTS, AS, MODEL],
        reply: "An array of what `EMBCACHE.GET` answers to each, in their order.",
        notes: "At most 10,000. On a cache with EMBED texts that are not kept, at most 1,000, are embedded and answered, \
            and not kept; one that the model does not read is null. MGETEX keeps them.",
        ..read("EMBCACHE.MGET", command_entry!(many::run))
    },
    CommandSpec {
        arity: -6,
        summary: "Returns the embeddings of many texts and moves their deadlines, in one round trip.",
        complexity: "O(n d) for n texts",
        args: &[CACHE, SUBJECTS, need("", "expiry", ArgKind::OneOf(EXPIRY_FORMS)), AS, MODEL],
        reply: "That of `EMBCACHE.MGET`.",
        notes: "A time in the past answers what was there and removes it, as `GETEX` does. On a cache with EMBED texts that \
            are not kept are embedded as by MGET, and kept for that time; above `maxmemory` they are null.",
        ..write("EMBCACHE.MGETEX", command_entry!(many::run_touching), KeyUse::UpdateAndRead)
    },
    CommandSpec {
        arity: -4,
        summary: "Returns an embedding, or gives one caller the lease to compute it.",
        args: &[
            CACHE,
            SUBJECT,
            opt("LEASE", "milliseconds", ArgKind::Integer),
            opt("WAIT", "milliseconds", ArgKind::Integer),
            AS,
            MODEL,
        ],
        reply: "A map with `status`: `HIT` with `vector`; `LEAD` with `token` and `lease_ms`: compute it, then `SET … \
            LEASE token`; `BUSY` with `retry_ms`: another caller computes it; `NEG` with `error` and `retry_ms`: \
            computing it failed a moment ago; `OPEN` with `retry_ms`: the circuit breaker is open.",
        notes: "As in `LLMCACHE.FETCH`, exactly one caller leads and the others wait up to `WAIT`; when the lease ends \
            without an embedding, the client that has waited longest leads. A cache with EMBED embeds the text \
            itself and stores it: `HIT`. Nothing blocks in MULTI and scripts. Leases are neither saved nor \
            replicated. A cache that does not exist: `NOCACHE`.",
        ..write("EMBCACHE.FETCH", command_entry!(fetch::run), KeyUse::UpdateAndRead)
    },
    CommandSpec {
        arity: -3,
        flags: "write fast",
        summary: "Gives up the lease to compute an embedding.",
        args: &[
            CACHE,
            TOKEN,
            opt("BACKOFF", "milliseconds", ArgKind::Integer),
            opt("ERR", "text", ArgKind::Text),
        ],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "As in `LLMCACHE.FAIL`, callers within BACKOFF get `NEG` with the text.",
        ..write("EMBCACHE.FAIL", command_entry!(fetch::run_fail), KeyUse::Update)
    },
    CommandSpec {
        arity: 4,
        flags: "write fast",
        summary: "Extends the lease to compute an embedding.",
        args: &[CACHE, TOKEN, arg("milliseconds", ArgKind::Integer)],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "The lease ends that long from now, which may be sooner than before.",
        ..write("EMBCACHE.EXTEND", command_entry!(fetch::run_extend), KeyUse::Update)
    },
    CommandSpec {
        arity: -5,
        summary: "Removes embeddings.",
        complexity: "O(n) for n texts",
        args: &[CACHE, SUBJECTS, MODEL],
        reply: "How many were removed.",
        ..write("EMBCACHE.DEL", command_entry!(admin::run_del), KeyUse::Delete)
    },
    CommandSpec {
        arity: 2,
        summary: "Shows the settings, the use and the memory of a cache of embeddings.",
        args: &[CACHE],
        reply: "A map: `name uid prefix entries bytes index_bytes leases waiters lookups hits misses \
            hit_ratio bytes_saved bytes_served stores evicted lead busy coalesced model dim quant ttl \
            maxentries maxmemory`. `bytes_saved` is what the vectors kept take less than f32 would, \
            `bytes_served` what f32 vectors would have had to be recomputed. `NOCACHE` where there is \
            no such cache.",
        notes: "Counters of use belong to this process: they are neither saved nor replicated.",
        ..read("EMBCACHE.INFO", command_entry!(admin::run_info))
    },
];
