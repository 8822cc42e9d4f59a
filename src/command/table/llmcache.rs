//! The rows of `LLMCACHE.*`, but for single flight and invalidation, which are in `fetch`.

use super::words::also;
use super::words::{
    AUDIT, CACHE, COLD, CONTEXT, EMBED, EXPIRY, EXPIRY_FORMS, GUARD_LEVELS, INDEX, MATRYOSHKA,
    MOVED, NUMBER_RULES, QUANT, REPORT, RETURN, SCOPE, SCRIPT, TAGS, UNLESS_ALONE, VECTOR, VERDICT,
    arg, many, need, opt, opt_word, read, word, write,
};
use crate::command::container::{create, entry, scan};
use crate::command::llmcache::{
    admin, audit, get, getsem, internal, mgetsem, near_misses, setsem, stats,
};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const STORE_TAIL: [Arg; 14] = [
    opt("ID", "id", ArgKind::Text),
    SCOPE,
    CONTEXT,
    TAGS,
    opt("META", "json", ArgKind::Text),
    EXPIRY,
    opt("TOKENS", "tokens", ArgKind::Integer),
    opt("COST", "usd", ArgKind::Double),
    opt("LATENCY", "milliseconds", ArgKind::Integer),
    opt("LEASE", "token", ArgKind::Text),
    opt_word("NX", "nx"),
    UNLESS_ALONE,
    REPORT,
    MOVED,
];

const STORE_NOTES: &str = "The id is the digest of scope, context and prompt unless `ID` gives one (1 to 128 bytes, no control \
    characters, not 32 hex digits). An entry with the same id or the same digest is replaced; if these name \
    two entries, both are. Without an expiry the cache's TTL and JITTER apply; `PERSIST` stores without one. \
    A cache that does not exist is created with the defaults of the `llmcache.*` configs, unless \
    `llmcache.auto-create` is `no`. An expiry in the past returns the id and stores nothing. An entry larger \
    than the cache's MAXMEMORY is refused: `TOOBIG`. On a cache with EMBED the prompt of a SETSEM without a \
    vector is embedded while the client waits, and replicas and AOF get the vector; a prompt that cannot be \
    embedded (`docs/embedding.md`) is stored as by SET. If stores outrun the linking of a large scope's \
    graph, the reply is delayed by some milliseconds until the graph has caught up; the entry can be found \
    at once. `LEASE token` stores the answer that FETCH asked for. It fails with `LEASELOST` if the lease \
    now belongs to another caller, is for another question, or if the answer was invalidated meanwhile; \
    nothing is stored then. If the cache has a `sink`, the answer is appended to that stream in the same \
    step (fields `cache id seq prompt response scope context meta`). `UNLESS-ALONE` stores the answer under \
    the empty context if the prompt can be understood without the conversation before it (in English: at \
    least three content words, and none that points back, such as `it` or `that`), and under CONTEXT \
    otherwise. `TICKET` reports on an audited lookup in the same step, as `LLMCACHE.FEEDBACK` does; a ticket \
    that the cache did not issue refuses the store: `BADTICKET`. `MOVED` brings over an answer of another cache \
    as `LLMCACHE.ENTRY` tells it: its age, hits, grace and whether it is stale. An expiry is then the deadline \
    that ENTRY tells, in which the grace is, and the sink is not told again.";

/// What holds for a look-up, and for all of many.
const LOOKUP_TAIL: [Arg; 13] = [
    SCOPE,
    CONTEXT,
    opt("THRESHOLD", "similarity", ArgKind::Double),
    opt("COUNT", "count", ArgKind::Integer),
    opt("FILTER", "expression", ArgKind::Text),
    opt("MAXAGE", "seconds", ArgKind::Integer),
    opt("EF", "width", ArgKind::Integer),
    opt("GUARD", "level", ArgKind::OneOf(GUARD_LEVELS)),
    RETURN,
    opt_word("EXPLAIN", "explain"),
    opt_word("EXACT", "exact"),
    UNLESS_ALONE,
    AUDIT,
];

/// What FEEDBACK is about.
const FEEDBACK: &[Arg] =
    &[need("TICKET", "ticket", VERDICT), need("ID", "opinion", VERDICT), word("RESET", "reset")];

pub(super) const LLMCACHE: &[CommandSpec] = &[
    CommandSpec {
        arity: -2,
        flags: "write deny-oom",
        summary: "Creates a cache.",
        args: &[
            CACHE,
            opt("DIM", "dimensions", ArgKind::Integer),
            MATRYOSHKA,
            opt("MODEL", "model", ArgKind::Text),
            opt("THRESHOLD", "similarity", ArgKind::Double),
            opt("TTL", "seconds", ArgKind::Integer),
            opt("JITTER", "percent", ArgKind::Integer),
            opt("MAXENTRIES", "entries", ArgKind::Integer),
            opt("MAXMEMORY", "bytes", ArgKind::Integer),
            QUANT,
            INDEX,
            opt("M", "links", ArgKind::Integer),
            opt("EFC", "width", ArgKind::Integer),
            opt("EF", "width", ArgKind::Integer),
            opt("GUARD", "level", ArgKind::OneOf(GUARD_LEVELS)),
            opt("NUMBERS", "rule", ArgKind::OneOf(NUMBER_RULES)),
            opt("EXCHANGE", "on-or-off", ArgKind::Text),
            opt("MAXERROR", "share", ArgKind::Double),
            opt("CONFIDENCE", "confidence", ArgKind::Double),
            opt("AUDIT", "share", ArgKind::Double),
            opt("COLD", "cold", ArgKind::OneOf(COLD)),
            opt("MINSIM", "similarity", ArgKind::Double),
            opt("NEARMISSES", "entries", ArgKind::Integer),
            opt("GRACE", "seconds", ArgKind::Integer),
            EMBED,
            SCRIPT,
        ],
        reply: "`OK`; also when a cache of this name exists with the same settings. With other \
            settings: `ERR`.",
        notes: "Without DIM the first vector sets it. QUANT says how entries keep their vectors for exact scores; the index always \
            holds int8 codes, and with NONE and F16 two bits a dimension more, which find what codes cannot tell apart. MATRYOSHKA has the index hold and compare the first dimensions alone, \
            and compares the best it finds by their whole vectors (`docs/matryoshka.md`). INDEX AUTO compares all entries of a small partition and builds a graph for a large one. M is the \
            number of links of an entry (twice as many on the lowest level), EFC how many entries are looked at to link one, EF \
            how many a search looks at; larger values find more and take longer. GUARD compares the question asked with the \
            stored one before an answer is served by similarity: numbers and dates in any language, and in English negations and \
            opposites, word order, and names that only one of the two has. STRICT also refuses what cannot be judged (no prompt, \
            or one above 4 KiB). NUMBERS CONFLICT accepts a number that only one of the two questions has. EXCHANGE ON reduces \
            the similarity by 0.05 if the two questions differ by one exchanged word. MAXERROR bounds the share of wrong answers \
            among those served by similarity, with the given CONFIDENCE, as far as reports through `LLMCACHE.FEEDBACK` show; the \
            cache then learns THRESHOLD from them (`docs/quality.md`). NEARMISSES remembers this many lookups for \
            `LLMCACHE.NEARMISSES`. GRACE keeps answers this long past their TTL and serves them as stale. MAXENTRIES and \
            MAXMEMORY (index and entries together) remove the least valuable entries, by aged hits x cost / bytes. EMBED names a \
            model of `llmcache.embed-models` that embeds texts here (`docs/embedding.md`): DIM and THRESHOLD follow from it, and \
            MODEL shows it with its digest; `EMBED none` disables `llmcache.embed-default`. SCRIPT ANY also embeds texts in \
            scripts that the model does not know.",
        ..write("LLMCACHE.CREATE", command_entry!(create::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -6,
        flags: "write deny-oom",
        summary: "Stores an answer to be found by its prompt and by similarity.",
        complexity: "O(d) for d dimensions, and what MAXENTRIES or MAXMEMORY make it remove",
        args: &[
            CACHE,
            need("PROMPT", "prompt", ArgKind::Text),
            need("RESPONSE", "response", ArgKind::Text),
            VECTOR,
            STORE_TAIL[0],
            STORE_TAIL[1],
            STORE_TAIL[2],
            STORE_TAIL[3],
            STORE_TAIL[4],
            STORE_TAIL[5],
            STORE_TAIL[6],
            STORE_TAIL[7],
            STORE_TAIL[8],
            STORE_TAIL[9],
            STORE_TAIL[10],
            STORE_TAIL[11],
            STORE_TAIL[12],
            STORE_TAIL[13],
        ],
        reply: "The id of the entry; null if `NX` found an existing answer.",
        notes: STORE_NOTES,
        ..write("LLMCACHE.SETSEM", command_entry!(setsem::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -6,
        flags: "write deny-oom",
        summary: "Stores an answer to be found by its prompt alone.",
        args: &[
            CACHE,
            need("PROMPT", "prompt", ArgKind::Text),
            need("RESPONSE", "response", ArgKind::Text),
            STORE_TAIL[0],
            STORE_TAIL[1],
            STORE_TAIL[2],
            STORE_TAIL[3],
            STORE_TAIL[4],
            STORE_TAIL[5],
            STORE_TAIL[6],
            STORE_TAIL[7],
            STORE_TAIL[8],
            STORE_TAIL[9],
            STORE_TAIL[10],
            STORE_TAIL[11],
            STORE_TAIL[12],
            STORE_TAIL[13],
        ],
        reply: "The id of the entry; null if `NX` found an existing answer.",
        notes: STORE_NOTES,
        ..write("LLMCACHE.SET", command_entry!(setsem::run_exact), KeyUse::Insert)
    },
    CommandSpec {
        arity: -4,
        summary: "Finds a stored answer by exact prompt or by similarity.",
        complexity: "O(1) for an exact hit, else O(n d) for the n entries of a small partition, \
            O(log(n) EF d) for a large one",
        args: &[
            CACHE,
            opt("PROMPT", "prompt", ArgKind::Text),
            VECTOR,
            LOOKUP_TAIL[0],
            LOOKUP_TAIL[1],
            LOOKUP_TAIL[2],
            LOOKUP_TAIL[3],
            LOOKUP_TAIL[4],
            LOOKUP_TAIL[5],
            LOOKUP_TAIL[6],
            LOOKUP_TAIL[7],
            LOOKUP_TAIL[8],
            LOOKUP_TAIL[9],
            LOOKUP_TAIL[10],
            LOOKUP_TAIL[11],
            LOOKUP_TAIL[12],
        ],
        reply: "A map of `id tier similarity prompt response age ttl stale meta tags hits`, or null. Times are in milliseconds; \
            `ttl` is the time until the answer is stale, -1 for never. With `COUNT` an array of such maps, best first. In a \
            cache with MAXERROR a hit has `verified`: 1 if a proven threshold or the exact prompt serves it, else 0. With \
            `AUDIT` a hit may have `audit`, a ticket, and a miss may be a map of `status audit candidate` instead of null, where \
            `candidate` is a map of `id similarity prompt response`. With `EXPLAIN` always a map: `status reason threshold tier \
            nearest guard guard_words alone candidates scanned filtered opened index filter_from_entry hits`.",
        notes: "PROMPT or a vector is needed. On a cache with EMBED, a PROMPT without a vector that is not stored word for word is \
            embedded while the client waits; EXACT skips that. A cache that does not exist counts as a miss. The exact prompt is \
            tried first, then the nearest entries of the partition (SCOPE, CONTEXT) above the threshold; an option that is \
            absent means the empty string, never \"all\". Similarity is the cosine in [-1, 1], rounded to six decimals; an \
            identical vector scores exactly 1. `FILTER` is described in `docs/filter.md`. A miss is null; `EXPLAIN` says why. \
            Its `reason` is `empty`, `below-threshold`, `filter`, `expired`, `max-age`, `guard`, `filling` (the index is being \
            filled from the entries), `unproven` (MAXERROR, and no threshold is proven yet), `no-cache`, or `moving` while keys \
            of the hash slot may be on another node (`docs/cluster.md`); for a text that is not embedded `too-long`, `script` or \
            `empty`. `guard` names the guard that refused the nearest entry: `number`, `polarity`, `order`, `name`, `exchange`, \
            `unjudged`, and for texts embedded here `unseen`, whatever GUARD is (`docs/embedding.md`); `guard_words` are the \
            words of the two questions that it compared. Prompts such as \"q1\" and \"q2\" are refused because their numbers \
            differ, however near their vectors are. `GUARD` can only be stricter than the cache's own setting. `tokens` is the \
            length in tokens of a prompt that was embedded here, `embed_us` how long that took, 0 if its vector was remembered. \
            With `UNLESS-ALONE` a prompt that can be understood alone is looked up under the empty context, any other under \
            CONTEXT; `alone` says which. In a cache with MAXERROR, THRESHOLD can only raise the threshold in use. `AUDIT` says \
            that the caller can tell whether the candidate's answer is right and will report it with `LLMCACHE.FEEDBACK` or \
            `SETSEM … TICKET`; it excludes COUNT and EXPLAIN. `EF` widens the walk over a graph. `index` says how the search was \
            done: `flat`, `graph`, `graph-then-flat` (too few entries passed FILTER) or `none`. A search that is estimated to \
            take longer than `llmcache.search-inline-us` continues in a thread while the client waits, in turns with other \
            clients' searches; in MULTI and scripts a search that would take longer than about 10 ms is refused: `BUSY`.",
        ..read("LLMCACHE.GETSEM", command_entry!(getsem::run))
    },
    CommandSpec {
        arity: -5,
        summary: "Finds the answers to many questions in one round trip.",
        complexity: "That of GETSEM for each question",
        args: &[
            CACHE,
            arg("questions", ArgKind::Integer),
            Arg {
                name: "question",
                kind: ArgKind::Block(&[VECTOR, opt("PROMPT", "prompt", ArgKind::Text)]),
                token: "",
                optional: false,
                multiple: true,
            },
            LOOKUP_TAIL[0],
            LOOKUP_TAIL[1],
            LOOKUP_TAIL[2],
            LOOKUP_TAIL[3],
            LOOKUP_TAIL[4],
            LOOKUP_TAIL[5],
            LOOKUP_TAIL[6],
            LOOKUP_TAIL[7],
            LOOKUP_TAIL[8],
            LOOKUP_TAIL[9],
            LOOKUP_TAIL[10],
            LOOKUP_TAIL[11],
            LOOKUP_TAIL[12],
        ],
        reply: "An array with the reply of `LLMCACHE.GETSEM` for each question, in order.",
        notes: "Each question is a vector, followed by its prompt if the exact tier and the guards are to use it; on a \
            cache with EMBED it may be a prompt alone. Options after the last question apply to all. A malformed \
            question refuses the whole command; a question that is refused later has its error in its place. Many \
            questions are processed in rounds, each as of its own moment.",
        ..read("LLMCACHE.MGETSEM", command_entry!(mgetsem::run))
    },
    CommandSpec {
        arity: -4,
        summary: "Returns the response stored for exactly this prompt.",
        flags: "readonly fast",
        args: &[CACHE, need("PROMPT", "prompt", ArgKind::Text), CONTEXT, SCOPE],
        reply: "The response as one bulk string, or null, also if the answer is stale.",
        ..read("LLMCACHE.GET", command_entry!(get::run))
    },
    CommandSpec {
        arity: -3,
        flags: "readonly fast",
        summary: "Shows one entry and its sizes.",
        args: &[
            CACHE,
            arg("id", ArgKind::Text),
            opt_word("VECTOR", "vector"),
            opt("CUT", "bytes", ArgKind::Integer),
        ],
        reply: "A map of `id key digest prompt response scope context tags meta tokens cost latency \
            created age ttl grace deadline stale hits dim quant vector_bytes bytes`, with VECTOR also `vector`, with CUT also \
            `prompt_bytes response_bytes context_bytes meta_bytes`, the whole lengths, or null.",
        ..read("LLMCACHE.ENTRY", command_entry!(entry::run))
    },
    CommandSpec {
        arity: -3,
        summary: "Removes entries by id.",
        complexity: "O(n) for n ids",
        args: &[CACHE, many("id", ArgKind::Text)],
        reply: "How many entries were removed.",
        ..write("LLMCACHE.DEL", command_entry!(entry::run_del), KeyUse::Delete)
    },
    CommandSpec {
        arity: -4,
        flags: "write fast",
        summary: "Moves or removes the deadline of an entry.",
        args: &[CACHE, arg("id", ArgKind::Text), need("", "expiry", ArgKind::OneOf(EXPIRY_FORMS))],
        reply: "1, or 0 when there is no such entry or `PERSIST` found no deadline.",
        notes: "A time in the past removes the entry, as `PEXPIREAT` does.",
        ..write("LLMCACHE.EXPIRE", command_entry!(entry::run_expire), KeyUse::Update)
    },
    CommandSpec {
        arity: -3,
        summary: "Lists the ids of a cache page by page.",
        complexity: "O(COUNT) a page",
        args: &[
            CACHE,
            arg("cursor", ArgKind::Integer),
            opt("COUNT", "count", ArgKind::Integer),
            opt("FILTER", "expression", ArgKind::Text),
        ],
        reply: "The next cursor (0 at the end) and an array of ids.",
        notes: "An entry that exists from the first page to the last is listed exactly once, replaced meanwhile or not.",
        ..read("LLMCACHE.SCAN", command_entry!(scan::run))
    },
    CommandSpec {
        arity: -3,
        summary: "Shows or changes the settings of a cache.",
        args: &[
            CACHE,
            arg(
                "action",
                ArgKind::OneOf(&[
                    Arg {
                        name: "get",
                        kind: ArgKind::Block(&[
                            word("GET", "get-word"),
                            opt("", "setting", ArgKind::Text),
                        ]),
                        token: "",
                        optional: false,
                        multiple: false,
                    },
                    Arg {
                        name: "set",
                        kind: ArgKind::Block(&[
                            word("SET", "set-word"),
                            arg("name", ArgKind::Text),
                            arg("value", ArgKind::Text),
                        ]),
                        token: "",
                        optional: false,
                        multiple: false,
                    },
                ]),
            ),
        ],
        reply: "`GET`: a map of settings. `SET`: `OK`.",
        notes: "These can be changed: `threshold`, `ttl` (seconds), `jitter`, `grace` (seconds), `maxentries`, `maxmemory`, `index`, \
            `efc`, `ef`, `guard`, `numbers`, `exchange`, `maxerror`, `confidence`, `audit`, `cold`, `minsim`, `nearmisses`, and \
            `loader` and `sink` (streams in the cache's hash slot, empty for none; they are not trimmed). A stream that came \
            with `RESTORE` is only written to for callers who may write to it themselves, until it is set here. `dim`, `model`, \
            `quant` and `m` are fixed at creation. If another `index` needs a graph, it is built between commands. A change of \
            `guard`, `numbers`, `exchange`, `maxerror`, `confidence` or `minsim` (which follows `threshold` unless given) \
            discards what MAXERROR has learned. On a replica, `LLMCACHE.INFO` shows the settings.",
        key_options: &[also("GET", KeyUse::Read)],
        ..write("LLMCACHE.CONFIG", command_entry!(admin::run_config, keys), KeyUse::Update)
    },
    CommandSpec {
        arity: 2,
        summary: "Shows the settings, the index and the memory of a cache.",
        args: &[CACHE],
        reply: "A map: `name uid prefix entries vectors partitions hidden filling bytes index_bytes \
            entry_bytes mode graphs linked tail tombstones levels link_bytes invalidations invalidating \
            leases waiters failures_remembered open_breakers kernels` and the \
            settings of `LLMCACHE.CONFIG`. `mode` is `none`, `flat` or `graph`; `linked` entries are \
            in one of the `graphs`, `tail` wait to be, `tombstones` are places of removed entries \
            that wait to be repaired. `NOCACHE` where there \
            is no such cache.",
        ..read("LLMCACHE.INFO", command_entry!(admin::run_info))
    },
    CommandSpec {
        arity: -2,
        summary: "Shows hits, misses and what they saved, since the process started or RESET.",
        args: &[CACHE, SCOPE, opt_word("RESET", "reset")],
        reply: "A map: `lookups hits hits_exact hits_semantic hit_ratio misses misses_empty \
            misses_threshold misses_filter misses_expired misses_maxage misses_guard misses_unproven misses_filling stale lead busy \
            coalesced negative open tokens_saved ms_saved usd_saved similarity_histogram thresholds`, and \
            for all scopes together `stores replaced evicted failures hottest scopes \
            untracked_lookups maxerror confidence maxerror_state warm_up_left threshold_in_use verified epoch near audits \
            labels labels_wrong labels_ignored reported_share false_hits_estimate false_hits_upper next_threshold \
            labels_to_next alarms opinions_right opinions_wrong near_misses curve`. The histogram is an array of `[lower edge, count]`, `thresholds` one of \
            `[threshold, share]`: what part of the lookups by meaning a threshold there would serve, \
            guards and filters aside; `hottest` one of `[id, hits]`. `coalesced` had waited for an answer.",
        notes: "Fields of MAXERROR (`docs/quality.md`): `maxerror_state` is `off`, `warm-up` (`warm_up_left` more near lookups are \
            needed), `unproven`, `refuted` (no threshold is safe so far) or `proven`; `labels_to_next` right answers in a row \
            prove `next_threshold`; `curve` is an array of `[threshold, labels, wrong, proven]`. Labels are saved and \
            replicated. All other counters belong to this process: they are neither saved nor replicated. The first 4,096 scopes \
            that are looked up have counters of their own; later ones count in the totals only.",
        key_options: &[also("RESET", KeyUse::Update)],
        ..read("LLMCACHE.STATS", command_entry!(stats::run, keys))
    },
    CommandSpec {
        arity: -3,
        flags: "write fast",
        summary: "Reports whether an answer found by meaning was right.",
        args: &[CACHE, arg("about", ArgKind::OneOf(FEEDBACK))],
        reply: "`TICKET`: 1 when the report counts, 0 when it is late (`llmcache.audit-ttl`), was made before or is of \
            an earlier epoch; `BADTICKET` for a text that is no ticket of the cache. `ID`: 1, or 0 where there is no such \
            entry. `RESET`: `OK`.",
        notes: "A ticket comes with a lookup by `AUDIT`. From such reports a cache with MAXERROR learns which \
            similarity is safe to serve. An opinion on an entry (`ID`) is counted in STATS and proves nothing: whoever \
            gives it chose what to look at. `RESET` forgets what was learnt and begins a new epoch, as an alarm does (answers \
            in use turned out worse than promised), which is published on `llmcache:maxerror:<cache>` (`llmcache:maxerror@<db>:<cache>` \
            of another database than 0) as `{kind, epoch}`. \
            Reports open the cache: deny the command to users who are not trusted to tell the truth.",
        ..write("LLMCACHE.FEEDBACK", command_entry!(audit::run), KeyUse::Update)
    },
    CommandSpec {
        arity: -2,
        flags: "readonly admin",
        summary: "Shows lookups by meaning that came near and were not served.",
        complexity: "O(COUNT)",
        args: &[CACHE, opt("COUNT", "count", ArgKind::Integer), opt_word("RESET", "reset")],
        reply: "An array of maps, newest first: `number time question id candidate similarity reason guard`. Questions \
            and prompts are cut after 256 bytes.",
        notes: "Off unless the cache has NEARMISSES. A lookup is near from MINSIM on (THRESHOLD less 0.20). The last \
            NEARMISSES of them and at most 1 MiB are remembered by this process: neither saved nor replicated. They show \
            what users asked, of all scopes: the command is in the ACL categories `@admin` and `@dangerous`.",
        key_options: &[also("RESET", KeyUse::Update)],
        ..read("LLMCACHE.NEARMISSES", command_entry!(near_misses::run, keys))
    },
    CommandSpec {
        arity: 3,
        flags: "write admin",
        summary: "Internal: says what MAXERROR has learnt as AOF and replicas are told.",
        args: &[CACHE, arg("state", ArgKind::Text)],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write(
            "LLMCACHE._AUDIT",
            command_entry!(audit::run_internal_audit, internal),
            KeyUse::Update,
        )
    },
    CommandSpec {
        arity: 6,
        flags: "write admin",
        summary: "Internal: counts a label of MAXERROR as AOF and replicas are told.",
        args: &[
            CACHE,
            arg("epoch", ArgKind::Integer),
            arg("similarity", ArgKind::Integer),
            arg("wrong", ArgKind::Integer),
            arg("nonce", ArgKind::Integer),
        ],
        reply: "`OK`.",
        notes: "Not for clients.",
        ..write(
            "LLMCACHE._LABEL",
            command_entry!(audit::run_internal_label, internal),
            KeyUse::Update,
        )
    },
    CommandSpec {
        arity: 3,
        flags: "write deny-oom admin",
        summary: "Internal: creates a cache as AOF and replicas are told.",
        args: &[CACHE, arg("head", ArgKind::Text)],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("LLMCACHE._CREATE", command_entry!(internal::run_create, internal), KeyUse::Insert)
    },
    CommandSpec {
        arity: 4,
        flags: "write admin",
        summary: "Internal: changes a setting as AOF and replicas are told.",
        args: &[CACHE, arg("name", ArgKind::Text), arg("value", ArgKind::Text)],
        reply: "`OK`.",
        notes: "Not for clients.",
        ..write(
            "LLMCACHE._CONFIG",
            command_entry!(admin::run_internal_config, internal),
            KeyUse::Update,
        )
    },
    CommandSpec {
        arity: -3,
        flags: "write deny-oom admin",
        summary: "Internal: stores an entry as AOF and replicas are told.",
        args: &[
            arg("key", ArgKind::Key),
            arg("entry", ArgKind::Text),
            opt("PXAT", "unix-time-milliseconds", ArgKind::UnixTime),
        ],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("LLMCACHE._ENTRY", command_entry!(internal::run_entry, internal), KeyUse::Insert)
    },
];
