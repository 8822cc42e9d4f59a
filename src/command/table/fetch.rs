//! The rows of the command table for single flight and invalidation.

use super::words::also;
use super::words::{
    AUDIT, CACHE, CONTEXT, GUARD_LEVELS, RETURN, SCOPE, UNLESS_ALONE, VECTOR, VECTOR_FORMS, arg,
    many, need, opt, opt_word, word, write,
};
use crate::command::container::{drop, lease};
use crate::command::llmcache::{fetch, internal, invalidate};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const TOKEN: Arg = arg("token", ArgKind::Text);

/// A vector, or a text that is embedded.
const QUESTION_FORMS: &[Arg] =
    &[VECTOR_FORMS[0], VECTOR_FORMS[1], VECTOR_FORMS[2], need("PROMPT", "prompt", ArgKind::Text)];

const WHICH: Arg = arg(
    "which",
    ArgKind::OneOf(&[
        need(
            "IDS",
            "ids",
            ArgKind::Block(&[arg("count", ArgKind::Integer), many("id", ArgKind::Text)]),
        ),
        need("TAG", "tag", ArgKind::Text),
        need("SCOPE", "scope", ArgKind::Text),
        need(
            "NEAR",
            "near",
            ArgKind::Block(&[
                arg("question", ArgKind::OneOf(QUESTION_FORMS)),
                need("SIMILARITY", "similarity", ArgKind::Double),
            ]),
        ),
        need("FILTER", "expression", ArgKind::Text),
        need("OLDER", "seconds", ArgKind::Integer),
        word("ALL", "all"),
    ]),
);

pub(super) const FETCH: &[CommandSpec] = &[
    CommandSpec {
        arity: -4,
        summary: "Returns an answer, or gives one caller the lease to generate it.",
        complexity: "That of GETSEM, and O(l d) for the l answers of the partition that are being generated",
        args: &[
            CACHE,
            need("PROMPT", "prompt", ArgKind::Text),
            VECTOR,
            SCOPE,
            CONTEXT,
            UNLESS_ALONE,
            opt("THRESHOLD", "similarity", ArgKind::Double),
            opt("FILTER", "expression", ArgKind::Text),
            opt("MAXAGE", "seconds", ArgKind::Integer),
            opt("EF", "width", ArgKind::Integer),
            opt("GUARD", "level", ArgKind::OneOf(GUARD_LEVELS)),
            RETURN,
            opt("LEASE", "milliseconds", ArgKind::Integer),
            opt("WAIT", "milliseconds", ArgKind::Integer),
            opt("BETA", "eagerness", ArgKind::Double),
            opt_word("VIA", "via"),
            opt_word("EXACT", "exact"),
            AUDIT,
        ],
        reply: "A map with `status` and the fields that belong to it. `HIT`: `hit`, a map as GETSEM returns it. `STALE`: \
            `hit`, an answer past its TTL; another caller regenerates it, or nobody may at the moment. `LEAD`: \
            `token` and `lease_ms`; the caller generates the answer. `LEAD-STALE`: the same, with the old `hit`. \
            `BUSY`: `retry_ms`; another caller generates the answer. `NEG`: `error` and `retry_ms`; generating it \
            failed a moment ago. `OPEN`: `retry_ms`; the circuit breaker of this scope is open. With `AUDIT` the hit \
            may have `audit`, a ticket, and so may `LEAD`, beside `candidate`, a map of `id similarity prompt \
            response`.",
        notes: "While there is no answer, exactly one caller gets `LEAD`, for `LEASE` milliseconds. It generates the \
            answer and stores it with `SETSEM … LEASE token`, or gives up with `FAIL`. The other callers get `BUSY`, \
            or wait up to `WAIT` milliseconds and look again as soon as the answer is stored. A question that is \
            near to a pending one, by the caller's own THRESHOLD and the guards, shares its lease. When a lease \
            lapses, the client that has waited longest leads; as long as nobody else leads, the late answer is still \
            accepted. Between TTL and TTL + GRACE one caller gets `LEAD-STALE` and the others `STALE`. `BETA b` \
            enables early refresh: before an answer expires, a caller leads with probability exp(-left / (b \
            LATENCY)). `VIA` gives the lease to the reader of the stream that `CONFIG … SET loader` names (fields \
            `cache token until prompt scope context`); the caller waits. Nothing blocks in MULTI or in a script. \
            Leases, waiting clients and failures belong to this process: they are neither saved nor replicated. A \
            cache that does not exist is created as by SETSEM. Above `maxmemory` no lease is granted (`OOM`); stored \
            answers are still returned. A lease holds a digest, the code of the vector and, for the guards, a \
            question of at most 4 KB. All leases together take at most 64 MB (`lease_bytes` of `INFO llmcache`); \
            beyond that the reply is `BUSY`. On a cache with EMBED, a prompt without a vector is embedded first, \
            unless it is stored word for word or its answer is being generated. If that shows that a near question \
            is being answered, or if `VIA` gave the lease away, the reply is `BUSY`. A caller that leads with \
            `AUDIT` generates an answer that can be compared with the candidate's, so its report costs nothing \
            extra.",
        ..write("LLMCACHE.FETCH", command_entry!(fetch::run), KeyUse::UpdateAndRead)
    },
    CommandSpec {
        arity: -3,
        summary: "Gives up generating an answer.",
        args: &[
            CACHE,
            TOKEN,
            opt("BACKOFF", "milliseconds", ArgKind::Integer),
            opt("ERR", "text", ArgKind::Text),
        ],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "For BACKOFF milliseconds, callers get `NEG` with the text; clients that wait get it at once. After \
            `llmcache.breaker-failures` failures of a scope within `llmcache.breaker-window` seconds its circuit \
            breaker opens: answers within their grace are served, other callers get `OPEN`, and one caller every \
            `llmcache.breaker-cooldown` seconds leads. An answer stored under its lease closes the breaker.",
        ..write("LLMCACHE.FAIL", command_entry!(lease::run_fail), KeyUse::Update)
    },
    CommandSpec {
        arity: 4,
        flags: "write fast",
        summary: "Extends the lease to generate an answer.",
        args: &[CACHE, TOKEN, arg("milliseconds", ArgKind::Integer)],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "The lease then ends this many milliseconds from now, which may be sooner than before.",
        ..write("LLMCACHE.EXTEND", command_entry!(lease::run_extend), KeyUse::Update)
    },
    CommandSpec {
        arity: -3,
        summary: "Invalidates answers by id, tag, scope, radius, filter or age.",
        complexity: "O(1) for TAG, SCOPE and ALL; O(n) for n ids; O(n d) for NEAR and O(n) for FILTER and \
            OLDER over the n entries of the cache (FILTER times its values and operators), in slices",
        args: &[
            CACHE,
            WHICH,
            opt_word("SOFT", "soft"),
            opt_word("DRYRUN", "dryrun"),
            opt("LIMIT", "count", ArgKind::Integer),
        ],
        reply: "How many entries. TAG, SCOPE and ALL count an entry again that is invalidated but not yet unlinked.",
        notes: "TAG, SCOPE and ALL take effect at once, whatever their size; the entries are unlinked between commands. \
            NEAR (all entries at least this similar, in every scope), FILTER and OLDER (stored this many seconds ago \
            or earlier) walk over the cache in slices, in turns with other walks, while the caller waits. In MULTI \
            and scripts they run in one piece and are refused with `BUSY` if that would take longer than about 10 ms \
            (some thousands of entries, unless LIMIT is small). At most 64 walks wait at a time; the next one gets \
            `BUSY`. A walk that cannot finish returns an error instead of a number: `UNBLOCKED` if the server became \
            a replica, `TRYAGAIN` or a redirection if its slot moves (`docs/cluster.md`). Entries stored during a \
            walk stay. `SOFT` keeps the answers and marks them stale. `DRYRUN` only counts. `LIMIT` bounds how many \
            entries IDS, NEAR, FILTER and OLDER take. An answer whose lease was granted before the invalidation is \
            refused when it is stored (`LEASELOST`): for TAG, SCOPE and IDS if it belongs to what they name, for \
            NEAR, FILTER, OLDER and ALL in any case. A message is published on channel `llmcache:invalidate:<cache>` \
            (`llmcache:invalidate@<db>:<cache>` in a database other than 0), on this server, its replicas and all \
            nodes of a cluster. As with keyspace events, the caller needs no permission for the channel; the \
            subscriber does. A message is JSON: `{\"kind\":\"tag\",\"name\":…,\"epoch\":…,\"soft\":…}`, or \
            `{\"kind\":\"ids\",\"ids\":[…],\"soft\":…}` with at most 1,000 ids.",
        key_options: &[
            also("DRYRUN", KeyUse::Read),
            also("FILTER", KeyUse::Read),
            also("NEAR", KeyUse::Read),
        ],
        ..write("LLMCACHE.INVALIDATE", command_entry!(invalidate::run, keys), KeyUse::Delete)
    },
    CommandSpec {
        arity: 2,
        flags: "write fast",
        summary: "Removes a cache and its entries.",
        args: &[CACHE],
        reply: "1, or 0 when there is no such cache.",
        notes: "Like `UNLINK` of the cache's key, but only for a cache. Its entries are no longer found at once and are \
            unlinked between commands.",
        ..write("LLMCACHE.DROP", command_entry!(drop::run), KeyUse::Delete)
    },
    CommandSpec {
        arity: 6,
        flags: "write admin",
        summary: "Internal: invalidates as AOF and replicas are told.",
        args: &[
            CACHE,
            arg("kind", ArgKind::Text),
            arg("name", ArgKind::Text),
            arg("epoch", ArgKind::Integer),
            arg("severity", ArgKind::Text),
        ],
        reply: "`OK`.",
        notes: "Not for clients.",
        ..write("LLMCACHE._EPOCH", command_entry!(invalidate::run_epoch, internal), KeyUse::Update)
    },
    CommandSpec {
        arity: 2,
        flags: "write admin",
        summary: "Internal: marks an entry stale as AOF and replicas are told.",
        args: &[arg("key", ArgKind::Key)],
        reply: "`OK`.",
        notes: "Not for clients.",
        ..write("LLMCACHE._STALE", command_entry!(internal::run_stale, internal), KeyUse::Update)
    },
];
