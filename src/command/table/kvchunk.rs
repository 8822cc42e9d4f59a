//! The rows of the command table for `KVCHUNK.*`.

use super::words::{EXPIRY_FORMS, arg, many, need, opt, opt_word, read, word, write};
use super::words::{also, others};
use crate::command::kvchunk::{
    create, fetch, find, info, internal, matching, put, remove, retention, tree,
};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const NAMESPACE: Arg = arg("namespace", ArgKind::Key);
const DIGEST: Arg = arg("digest", ArgKind::Text);
const DIGESTS: Arg = many("digest", ArgKind::Text);

const TOKENS: Arg = need(
    "",
    "prompt",
    ArgKind::Block(&[
        need("TOKENS", "token-blob", ArgKind::Text),
        opt("SALT", "salt", ArgKind::Text),
    ]),
);

const HASHES: Arg = need(
    "HASHES",
    "hashes",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("hash", ArgKind::Text)]),
);

const PACKED: Arg = need(
    "PACKED",
    "packed",
    ArgKind::Block(&[arg("hash-bytes", ArgKind::Integer), arg("hash-blob", ArgKind::Text)]),
);

const HEX_LIST: Arg = need(
    "DIGESTS",
    "digests",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("digest", ArgKind::Text)]),
);

/// `TOKENS blob [SALT s]`, `HASHES n h…`, `PACKED bytes blob` or `DIGESTS n hex…`.
const CHAIN: Arg = need("", "chain", ArgKind::OneOf(&[TOKENS, HASHES, PACKED, HEX_LIST]));

const PAYLOAD: Arg = need(
    "PAYLOAD",
    "payload",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("segment", ArgKind::Text)]),
);

const PAYLOADS: Arg = need(
    "PAYLOADS",
    "payloads",
    ArgKind::Block(&[
        arg("count", ArgKind::Integer),
        Arg {
            name: "payload",
            kind: ArgKind::Block(&[
                arg("segment-count", ArgKind::Integer),
                many("segment", ArgKind::Text),
            ]),
            token: "",
            optional: false,
            multiple: true,
        },
    ]),
);

const EXPIRY: Arg = opt("", "expiry", ArgKind::OneOf(EXPIRY_FORMS));
const PRIO: Arg = opt("PRIO", "priority", ArgKind::Integer);
const NX: Arg = opt_word("NX", "nx");
const LEASE: Arg = opt("LEASE", "milliseconds", ArgKind::Integer);
const ALSO: Arg = opt(
    "ALSO",
    "also",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("namespace", ArgKind::Text)]),
);
const RANGE: Arg = opt(
    "RANGE",
    "range",
    ArgKind::Block(&[arg("offset", ArgKind::Integer), arg("length", ArgKind::Integer)]),
);

macro_rules! put_notes {
    () => {
        "`TOKENS` is the prompt from its first token, as unsigned 32-bit little-endian \
    numbers, and must end with a whole chunk. A payload is the concatenation of its segments; \
    segments of 1 MiB less 64 bytes are kept without a copy. Without an expiry the namespace's TTL \
    applies. Chunks before a stored one live at least as long as it. PRIO is 0 to 15; each step \
    doubles what a use counts. Without `NX` a chunk that is there is replaced. Reasons of `REJECTED`: \
    `length` (not what DTYPE and SHAPE make), `budget` (no room, and what is there is leased, pinned or \
    needed), `expired` (the deadline is past), `prefix` (a chunk before it was rejected), `parent` \
    (it would follow itself). A namespace that does not exist is made with defaults unless \
    `llmcache.auto-create` is `no`."
    };
}

const PUT_NOTES: &str = put_notes!();

const MPUT_NOTES: &str = concat!(
    put_notes!(),
    " With LOOSE each chunk is stored for itself: it is answered without those before it, which need not be there, and one \
    that is rejected takes none along. Their order, that of the chunks before FROM included, still decides who is evicted \
    first. For engines that hand over chunks without their prefix, as LMCache does. With CHECKSUMS the server does not read \
    the payloads, which a client can do on threads of its own, and bytes that went bad on their way are found too: a payload \
    that does not fit its checksum is a miss when it is asked for. Where the namespace keeps none they are left out."
);

/// Every command of the family.
pub const KVCHUNK: &[CommandSpec] = &[
    CommandSpec {
        flags: "write deny-oom",
        summary: "Creates a namespace of KV-cache chunks.",
        args: &[
            NAMESPACE,
            opt("MODEL", "model", ArgKind::Text),
            opt("DTYPE", "dtype", ArgKind::Text),
            opt("FORMAT", "format", ArgKind::Text),
            opt(
                "SHAPE",
                "shape",
                ArgKind::Block(&[
                    arg("count", ArgKind::Integer),
                    many("dimension", ArgKind::Integer),
                ]),
            ),
            opt("CHUNK", "tokens", ArgKind::Integer),
            opt("SALT", "salt", ArgKind::Text),
            opt("TTL", "seconds", ArgKind::Integer),
            opt("BUDGET", "bytes", ArgKind::Integer),
            opt("CHECKSUM", "checksum", ArgKind::OneOf(&[word("ON", "on"), word("OFF", "off")])),
            opt(
                "DURABLE",
                "durable",
                ArgKind::OneOf(&[word("FULL", "full"), word("META", "meta"), word("NONE", "none")]),
            ),
        ],
        reply: "`OK`; also when a namespace of this name exists with the same settings. With other \
            settings: `ERR`.",
        notes: "MODEL, DTYPE, FORMAT, SHAPE and CHUNK make the fingerprint that every digest is \
            chained to (docs/formats.md); SALT separates tenants. With DTYPE and SHAPE every payload \
            must have the length they make. `DURABLE META` and `NONE`: RDB and a full synchronisation \
            write a stub of at most 128 bytes for each chunk, which reads as a miss and is removed; \
            stores reach neither AOF nor replicas, so that a promoted replica starts empty.",
        ..write("KVCHUNK.CREATE", command_entry!(create::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -7,
        flags: "write deny-oom",
        summary: "Stores the chunk that ends a prompt.",
        complexity: "O(n) for n chunks of the prompt, and what BUDGET makes it remove",
        args: &[
            NAMESPACE,
            need(
                "",
                "chunk",
                ArgKind::OneOf(&[
                    TOKENS,
                    need(
                        "",
                        "own",
                        ArgKind::Block(&[
                            need("HASH", "hash", ArgKind::Text),
                            opt("PARENT", "parent-hash", ArgKind::Text),
                        ]),
                    ),
                    need(
                        "",
                        "own-hex",
                        ArgKind::Block(&[
                            need("DIGEST", "digest", ArgKind::Text),
                            opt("PARENT", "parent-digest", ArgKind::Text),
                        ]),
                    ),
                ]),
            ),
            PAYLOAD,
            opt("META", "json", ArgKind::Text),
            EXPIRY,
            PRIO,
            NX,
        ],
        reply: "`STORED`, `EXISTS`, or `REJECTED` and a reason.",
        notes: PUT_NOTES,
        ..write("KVCHUNK.PUT", command_entry!(put::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -7,
        flags: "write deny-oom",
        summary: "Stores several chunks of a prompt, each whole or not at all.",
        complexity: "O(n) for n chunks of the prompt, and what BUDGET makes it remove",
        args: &[
            NAMESPACE,
            CHAIN,
            opt("FROM", "first-chunk", ArgKind::Integer),
            PAYLOADS,
            EXPIRY,
            PRIO,
            NX,
            opt_word("LOOSE", "loose"),
            opt_word("NOCREATE", "nocreate"),
            opt(
                "CHECKSUMS",
                "checksums",
                ArgKind::Block(&[arg("count", ArgKind::Integer), many("checksum", ArgKind::Text)]),
            ),
        ],
        reply: "An array with one such word for each payload. With NOCREATE and no namespace: `NOCACHE`.",
        notes: MPUT_NOTES,
        ..write("KVCHUNK.MPUT", command_entry!(put::run_many), KeyUse::Insert)
    },
    CommandSpec {
        arity: -4,
        summary: "Finds the longest stored prefix of a prompt.",
        complexity: "O(n) for n chunks of the prompt",
        args: &[
            NAMESPACE,
            CHAIN,
            opt("FILTER", "expression", ArgKind::Text),
            LEASE,
            opt_word("SPARSE", "sparse"),
            ALSO,
        ],
        reply: "An array: chunks, tokens, and the name of the lease, a string, or null. With SPARSE or ALSO a fourth element: for \
            each namespace, the first one first, an array of its chunks, its lease or null, and with SPARSE a string of \
            bits, else null.",
        notes: "Transfers no payload and does not count as a use. FILTER, over META, ends the prefix at the first chunk \
            that fails it. LEASE protects the chunks found from eviction by BUDGET for that many milliseconds. ALSO looks \
            into more namespaces, as those of other ranks or layers of a model: chunks and tokens are then what all of them \
            have. At most 65,536 chunks of all namespaces together. With SPARSE the first chunk that is absent ends \
            nothing: bit n, counted as by `GETBIT`, says whether chunk n is there, and LEASE keeps all of these. Chunks \
            stored for themselves (`MPUT … LOOSE`, or each first of its `MPUT`) and named in a row are taken to come \
            behind each other in prompts, which decides who is evicted first and nothing else.",
        key_options: &[also("LEASE", KeyUse::Update), others("ALSO")],
        ..read("KVCHUNK.MATCH", command_entry!(matching::run, keys))
    },
    CommandSpec {
        arity: -4,
        summary: "Returns the payloads of the longest stored prefix of a prompt.",
        complexity: "O(n) for n chunks of the prompt, and the bytes returned",
        args: &[
            NAMESPACE,
            CHAIN,
            opt("FROM", "first-chunk", ArgKind::Integer),
            opt("COUNT", "chunks", ArgKind::Integer),
            opt("MAXBYTES", "bytes", ArgKind::Integer),
            RANGE,
            LEASE,
            opt_word("SPARSE", "sparse"),
            opt_word("CHECKSUMS", "checksums"),
        ],
        reply: "An array: chunks of the prefix, chunks answered, the FROM to go on with (no more when \
            it is not below the first), and an array of `[digest, meta, bytes, [segment, ...]]`; with \
            LEASE also the name of the lease or null. With CHECKSUMS a chunk has a fifth element: the CRC-32 (IEEE) of its \
            whole payload in eight hex digits, or null.",
        notes: "MAXBYTES is 64 MiB unless given; one chunk is answered in any case. RANGE answers these \
            bytes of every payload; `bytes` is always the length of the whole. `meta` is META as \
            stored, or null. A payload that does not fit its checksum ends the prefix; that is looked \
            at when a chunk is first answered, and again after a minute. With CHECKSUMS the client looks at each answer, and \
            the server does not: a client that finds another checksum asks once more without it, and the server, if its bytes \
            are bad, answers a miss and removes the chunk. Past `llmcache.kv-in-flight` bytes on their way to clients: `BUSY`. \
            With SPARSE the first chunk that is absent ends nothing: of all chunks named, from FROM on, each is answered that is \
            there with all before it, and null stands for each other; the array then begins with how many were named and how many \
            of this page are there, and LEASE keeps these. For sets that are no prefix, as HASHES may name them.",
        key_options: &[also("LEASE", KeyUse::Update)],
        ..read("KVCHUNK.FETCH", command_entry!(fetch::run_fetch, keys))
    },
    CommandSpec {
        arity: -3,
        summary: "Returns one chunk by its digest.",
        args: &[NAMESPACE, DIGEST, RANGE, opt_word("NOPAYLOAD", "nopayload")],
        reply: "An array: a map of `digest parent position dtype format shape created deadline prio \
            pinned leases hits checksum meta`, the length of the payload, an array of segments; or \
            null. A deadline of 0 is none.",
        notes: "A chunk is a miss if the one before it is missing, or if its payload does not match its checksum, which \
            is verified as by FETCH.",
        ..read("KVCHUNK.GET", command_entry!(fetch::run_get))
    },
    CommandSpec {
        arity: -4,
        summary: "Lists the chunks of a prompt that are not stored.",
        complexity: "O(n) for n chunks of the prompt",
        args: &[NAMESPACE, CHAIN],
        reply: "An array of indexes of chunks in the prompt, from 0.",
        ..read("KVCHUNK.MISSING", command_entry!(fetch::run_missing))
    },
    CommandSpec {
        arity: -4,
        summary: "Finds chunks whose tokens occur at any offset of a prompt.",
        complexity: "O(n) for n tokens",
        args: &[
            NAMESPACE,
            need("TOKENS", "token-blob", ArgKind::Text),
            opt("SALT", "salt", ArgKind::Text),
            opt("STRIDE", "tokens", ArgKind::Integer),
            opt("MINRUN", "chunks", ArgKind::Integer),
        ],
        reply: "An array of `[offset in the prompt, offset where it was stored, digest, bytes]`, offsets \
            in tokens.",
        notes: "Finds what was stored by TOKENS under the same SALT only. Such a chunk was computed after another \
            prefix: an engine has to correct positions and recompute part of it. Results do not overlap. STRIDE \
            examines every n-th offset only; MINRUN leaves out runs of fewer adjacent chunks.",
        ..read("KVCHUNK.FIND", command_entry!(find::run))
    },
    CommandSpec {
        arity: -3,
        summary: "Removes chunks by digest.",
        complexity: "O(n) for n chunks",
        args: &[NAMESPACE, DIGESTS, opt_word("SUBTREE", "subtree")],
        reply: "How many chunks were removed.",
        notes: "SUBTREE, as the last argument, also removes all chunks that follow them.",
        ..write("KVCHUNK.DEL", command_entry!(remove::run), KeyUse::Delete)
    },
    CommandSpec {
        arity: -3,
        summary: "Protects chunks from eviction by BUDGET.",
        complexity: "O(n) for n chunks",
        args: &[NAMESPACE, DIGESTS, REACH],
        reply: "How many chunks were newly pinned.",
        notes: "SUBTREE or PREFIX, as the last argument, includes all chunks that follow them, or all before them. A pin \
            is saved and replicated. Redis' own eviction cannot be vetoed: a pin only gives it the strongest hint. \
            Deadlines still apply.",
        ..write("KVCHUNK.PIN", command_entry!(retention::run_pin), KeyUse::Update)
    },
    CommandSpec {
        arity: -3,
        summary: "Allows pinned chunks to be evicted again.",
        complexity: "O(n) for n chunks",
        args: &[NAMESPACE, DIGESTS, REACH],
        reply: "How many chunks were unpinned.",
        ..write("KVCHUNK.UNPIN", command_entry!(retention::run_unpin), KeyUse::Update)
    },
    CommandSpec {
        arity: -4,
        summary: "Protects chunks from eviction by BUDGET for a time.",
        complexity: "O(n) for n chunks",
        args: &[NAMESPACE, arg("milliseconds", ArgKind::Integer), DIGESTS],
        reply: "An array: how many of the chunks exist and are held, and the name of the lease, a string, or null.",
        notes: "Leases belong to the process: they are neither saved nor replicated.",
        ..write("KVCHUNK.LEASE", command_entry!(retention::run_lease), KeyUse::Update)
    },
    CommandSpec {
        arity: 3,
        flags: "write fast",
        summary: "Ends a lease.",
        complexity: "O(n) for n chunks it holds",
        args: &[NAMESPACE, arg("lease", ArgKind::Text)],
        reply: "How many chunks it still held.",
        ..write("KVCHUNK.RELEASE", command_entry!(retention::run_release), KeyUse::Update)
    },
    CommandSpec {
        arity: -3,
        summary: "Counts a use of chunks.",
        complexity: "O(n) for n chunks and those before them",
        args: &[NAMESPACE, DIGESTS],
        reply: "How many of them exist.",
        ..write("KVCHUNK.TOUCH", command_entry!(retention::run_touch), KeyUse::Update)
    },
    CommandSpec {
        arity: 3,
        summary: "Changes how much memory the chunks of a namespace may take.",
        complexity: "O(n log n) for n chunks it removes",
        args: &[NAMESPACE, arg("bytes", ArgKind::Integer)],
        reply: "How many chunks were evicted at once.",
        notes: "0 removes the namespace's own limit. Leaves of the prefix tree are evicted first: the lowest aged \
            frequency, then the longest unused, then the deepest; never a pinned or leased chunk or one before it. \
            All namespaces together are limited to `llmcache.kv-share` percent of `maxmemory`.",
        ..write("KVCHUNK.BUDGET", command_entry!(create::run_budget), KeyUse::Update)
    },
    CommandSpec {
        arity: -4,
        summary: "Computes the digests of a prompt's chunks.",
        complexity: "O(n) for n chunks of the prompt",
        args: &[NAMESPACE, TOKENS],
        reply: "An array of digests.",
        ..read("KVCHUNK.DIGESTS", command_entry!(fetch::run_digests))
    },
    CommandSpec {
        arity: -3,
        summary: "Lists the digests of a namespace page by page.",
        complexity: "O(COUNT) a page",
        args: &[
            NAMESPACE,
            arg("cursor", ArgKind::Integer),
            opt("COUNT", "count", ArgKind::Integer),
            opt("FILTER", "expression", ArgKind::Text),
        ],
        reply: "The next cursor (0 at the end) and an array of digests.",
        notes: "A chunk that exists from the first page to the last is listed exactly once, replaced meanwhile or not.",
        ..read("KVCHUNK.SCAN", command_entry!(info::run_scan))
    },
    CommandSpec {
        arity: 2,
        summary: "Shows the settings, the tree and the memory of a namespace.",
        args: &[NAMESPACE],
        reply: "A map: `name uid prefix fingerprint model dtype format shape chunk salted ttl budget \
            room checksum durable chunks bytes payload_bytes tree_bytes evictable orphans pinned \
            leases half_life keeps_one_in`. `room` is what BUDGET and the share of all namespaces leave it, 0 for \
            no bound; `orphans` follow a chunk that is not there (counted up to 1,000); `half_life` is in references; of so many \
            new chains one is kept until it had time to be used, the others go first.",
        ..read("KVCHUNK.INFO", command_entry!(info::run))
    },
    CommandSpec {
        summary: "Shows what was stored, found and evicted since the process started or since RESET.",
        args: &[NAMESPACE, opt_word("RESET", "reset")],
        reply: "A map: `stored exists rejected evicted matches fetches asked matched hit_ratio \
            bytes_in bytes_out damaged`. `asked` and `matched` count chunks of MATCH and FETCH.",
        notes: "Counters belong to the process: they are neither saved nor replicated.",
        key_options: &[also("RESET", KeyUse::Update)],
        ..read("KVCHUNK.STATS", command_entry!(info::run_stats, keys))
    },
    CommandSpec {
        arity: -2,
        summary: "Lists chunks as the prefix tree has them, or those that eviction would take next.",
        complexity: "O(COUNT)",
        args: &[
            NAMESPACE,
            opt("FROM", "next", ArgKind::Integer),
            opt_word("EVICTION", "eviction"),
            opt("COUNT", "chunks", ArgKind::Integer),
        ],
        reply: "The next place (0 at the end) and an array of maps of `digest parent position leaf bytes payload_bytes \
            hits heat prio pinned leases deadline`. `parent` is null where the chunk before is not there; `heat` is how often a \
            chunk was used, aged as eviction ages it; a deadline of 0 is none.",
        notes: "Without EVICTION the chunks come page by page, as by KVCHUNK.SCAN. With it they come in the order in which \
            eviction by BUDGET would take them now, as far as 8,192 steps show; pinned and leased ones are left out, and \
            what a chunk that stays needs. No key is opened, no payload is read and no use is counted.",
        ..read("KVCHUNK.TREE", command_entry!(tree::run))
    },
    CommandSpec {
        arity: -2,
        summary: "Checks payloads against their checksums.",
        complexity: "O(n) for the bytes of COUNT chunks",
        args: &[
            NAMESPACE,
            opt("COUNT", "chunks", ArgKind::Integer),
            opt("FROM", "next", ArgKind::Integer),
        ],
        reply: "A map: `checked`, `next` (0 when all were checked), `damaged`, an array of digests.",
        notes: "Continues where the last VERIFY of the namespace ended, or at `FROM`, the `next` of an earlier reply, \
            which does not move the namespace's own position. A user without write permission starts at the first \
            chunk unless `FROM` is given. A damaged chunk is a miss from then on and is removed in the background. \
            With `CHECKSUM OFF` only lengths are checked.",
        ..read("KVCHUNK.VERIFY", command_entry!(info::run_verify))
    },
    CommandSpec {
        arity: 3,
        flags: "write deny-oom admin",
        summary: "Internal: creates a namespace as AOF and replicas are told.",
        args: &[NAMESPACE, arg("head", ArgKind::Text)],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("KVCHUNK._CREATE", command_entry!(internal::run_create, internal), KeyUse::Insert)
    },
    CommandSpec {
        arity: -5,
        flags: "write deny-oom admin",
        summary: "Internal: stores a chunk as AOF and replicas are told.",
        args: &[
            arg("key", ArgKind::Key),
            arg("header", ArgKind::Text),
            arg("unix-time-milliseconds", ArgKind::UnixTime),
            many("segment", ArgKind::Text),
        ],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("KVCHUNK._PUT", command_entry!(internal::run_put, internal), KeyUse::Insert)
    },
];

const REACH: Arg =
    opt("", "reach", ArgKind::OneOf(&[word("SUBTREE", "subtree"), word("PREFIX", "prefix")]));
