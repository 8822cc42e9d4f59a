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
        complexity: "That of GETSEM, and O(l d) for the l answers of the partition that are being made",
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
        reply: "A map with `status` and what goes with it. `HIT`: `hit`, a map as of GETSEM. `STALE`: \
            `hit`; another caller regenerates the answer, or none may now. `LEAD`: `token`, `lease_ms`; the \
            caller is to make the answer. `LEAD-STALE`: the same with the old `hit`. `BUSY`: `retry_ms`; \
            somebody makes the answer. `NEG`: `error`, `retry_ms`; making it failed a moment ago. `OPEN`: \
            `retry_ms`; making answers of this scope fails. With `AUDIT` the hit may have `audit`, a ticket, and so may \
            `LEAD`, beside `candidate`, a map of `id similarity prompt response`.",
        notes: "Of all who ask while there is no answer exactly one gets `LEAD`, for `LEASE` milliseconds; \
            it stores the answer by `SETSEM … LEASE token`, or gives up by `FAIL`. The others get \
            `BUSY`, or wait for up to `WAIT` milliseconds and look again when the answer is stored. A \
            question near to one whose answer is being made, by the asker's own THRESHOLD and the guards, \
            shares its lease. When a lease lapses the oldest who waits leads; until then, and until \
            somebody asks again, the late answer is taken. Between TTL and TTL + GRACE one caller gets \
            `LEAD-STALE`, the rest `STALE`. `BETA b` makes a caller lead before an answer expires, with \
            probability exp(-left / (b LATENCY)). `VIA` gives the lease to whoever reads the stream \
            `CONFIG … SET loader` names (fields `cache token until prompt scope context`); the caller \
            waits. Nothing waits in MULTI or a script. Leases, waiters and failures are of this process: \
            neither saved nor replicated. A cache that does not exist is made as by SETSEM. \
            Above `maxmemory` nobody is given a lease (`OOM`); what is stored is returned. A lease keeps a digest, the code \
            of the vector and, where guards compare it, a question of at most 4 KB; all leases together at most 64 MB, \
            `lease_bytes` of `INFO llmcache`: beyond that the reply is `BUSY`. On a cache with EMBED a \
            prompt without a vector is embedded first, unless it is stored word for word or its answer is being made; \
            who then finds the answer to a near question being made, or gave the lease away by `VIA`, gets `BUSY`. Who leads \
            by `AUDIT` makes an answer that can be held against the candidate's: the report costs nothing more.",
        ..write("LLMCACHE.FETCH", command_entry!(fetch::run), KeyUse::UpdateAndRead)
    },
    CommandSpec {
        arity: -3,
        summary: "Gives up making an answer.",
        args: &[
            CACHE,
            TOKEN,
            opt("BACKOFF", "milliseconds", ArgKind::Integer),
            opt("ERR", "text", ArgKind::Text),
        ],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "For BACKOFF milliseconds who asks gets `NEG` and the text. Those who wait are told at once. \
            `llmcache.breaker-failures` failures of a scope within `llmcache.breaker-window` seconds open \
            its breaker: what is within its grace is served, else `OPEN`, and one caller in \
            `llmcache.breaker-cooldown` seconds leads. An answer stored by its lease closes it.",
        ..write("LLMCACHE.FAIL", command_entry!(lease::run_fail), KeyUse::Update)
    },
    CommandSpec {
        arity: 4,
        flags: "write fast",
        summary: "Extends the lease to generate an answer.",
        args: &[CACHE, TOKEN, arg("milliseconds", ArgKind::Integer)],
        reply: "`OK`; `LEASELOST` where no lease has the token.",
        notes: "The lease ends that long from now, which may be sooner than before.",
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
        reply: "How many entries. With TAG, SCOPE and ALL what is invalidated already and not yet unlinked \
            counts again.",
        notes: "TAG, SCOPE and ALL take effect at once whatever their size: the entries are unlinked \
            between commands. NEAR (all entries at least so similar, whatever their scope), FILTER and \
            OLDER (stored so many seconds ago or more) walk over the cache in slices, in turns with \
            other walks, while the caller waits. In MULTI and scripts they go in one go, and are refused with `BUSY` \
            where that would take longer than about 10 ms (some thousands of entries, unless LIMIT is small). At most 64 walks wait at a time: `BUSY`. One that cannot \
            come to its end answers no number but an error: `UNBLOCKED` where the server became a replica, \
            `TRYAGAIN` or a redirection where its slot moves (`docs/cluster.md`). What is stored meanwhile stays. `SOFT` keeps the answers and \
            marks them stale. `DRYRUN` only counts. `LIMIT` bounds how many are taken, of IDS, NEAR, FILTER \
            and OLDER. An answer whose lease was given before is refused when it comes (`LEASELOST`): of \
            the tags, the scope or the ids named; of NEAR, FILTER, OLDER and ALL any. Channel \
            `llmcache:invalidate:<cache>` (`llmcache:invalidate@<db>:<cache>` in another database than 0) is told, on this \
            server, its replicas and all nodes of a cluster. As with keyspace events the caller needs no right to the \
            channel; who subscribes does. A message is JSON: `{\"kind\":\"tag\",\"name\":…,\"epoch\":…,\
            \"soft\":…}`, or `{\"kind\":\"ids\",\"ids\":[…],\"soft\":…}` for at most 1,000 ids a message.",
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
        notes: "The same as `UNLINK` of the cache's key, which refuses nothing of another type: the entries \
            follow between commands, and are out of use at once.",
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
