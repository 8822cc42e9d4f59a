//! The rows of `RAG.*` in the command table.

use super::words::{
    EMBED, EXPIRY, INDEX, MATRYOSHKA, QUANT, RETURN, SCRIPT, TAGS, VECTOR, VECTOR_FORMS, arg, many,
    need, opt, opt_word, read, word, write,
};
use crate::command::rag::{add, admin, del, get, search};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const OWN_VECTOR_FORMS: &[Arg] =
    &[VECTOR_FORMS[0], VECTOR_FORMS[1], VECTOR_FORMS[2], word("NOVECTOR", "novector")];
/// A vector, or that there is none.
const OWN_VECTOR: Arg = opt("", "vector", ArgKind::OneOf(OWN_VECTOR_FORMS));
const DOCUMENTS: Arg = arg("index", ArgKind::Key);
const ID: Arg = arg("id", ArgKind::Text);
const TEXT: Arg = need("TEXT", "text", ArgKind::Text);
const META: Arg = opt("META", "json", ArgKind::Text);
const TRUNCATE: Arg = opt_word("TRUNCATE", "truncate");
const TOKENS: Arg = opt("TOKENS", "tokens", ArgKind::Integer);
const MOVED: Arg = opt(
    "MOVED",
    "moved",
    ArgKind::Block(&[arg("age", ArgKind::Integer), arg("hits", ArgKind::Integer)]),
);

pub(super) const RAG: &[CommandSpec] = &[
    CommandSpec {
        arity: -2,
        flags: "write deny-oom",
        summary: "Creates an index of documents.",
        args: &[
            DOCUMENTS,
            opt("DIM", "dimensions", ArgKind::Integer),
            MATRYOSHKA,
            opt("MODEL", "model", ArgKind::Text),
            opt("TTL", "seconds", ArgKind::Integer),
            QUANT,
            INDEX,
            opt("M", "links", ArgKind::Integer),
            opt("EFC", "width", ArgKind::Integer),
            opt("EF", "width", ArgKind::Integer),
            opt("MAXENTRIES", "entries", ArgKind::Integer),
            opt("MAXMEMORY", "bytes", ArgKind::Integer),
            EMBED,
            SCRIPT,
            opt("WORDS", "language", ArgKind::Text),
        ],
        reply: "`OK`; also when an index of this name exists with the same settings. Of another model: \
            `MODELMISMATCH`; with other settings: `ERR`.",
        notes: "The options are those of `LLMCACHE.CREATE`, and WORDS: with it the words of texts are indexed, so \
            that `RAG.SEARCH … WORDS` finds documents by them (docs/rag.md), and a document needs no vector. If DIM is \
            not given, the first document sets it. `llmcache.ttl` does not apply: documents expire only if TTL or a \
            command says so.",
        ..write("RAG.CREATE", command_entry!(admin::run_create), KeyUse::Insert)
    },
    CommandSpec {
        arity: -5,
        flags: "write deny-oom",
        summary: "Stores a document, or replaces the one with this id.",
        complexity: "O(d) for d dimensions, and what MAXENTRIES or MAXMEMORY make it remove",
        args: &[DOCUMENTS, ID, OWN_VECTOR, TEXT, TRUNCATE, META, TAGS, TOKENS, EXPIRY, MOVED],
        reply: "1 for a new document, 0 for one that replaced another.",
        notes: "An id has 1 to 1,024 bytes. Ids of up to 128 bytes without control characters name the key \
            (`{index}:<uid>:<id>`); others, and ids that look like a digest, are named by their digest. On an index \
            with EMBED a text without a vector is embedded while the client waits; a text that the model cannot read \
            whole is refused, or with `TRUNCATE` embedded by its beginning. A document stored with NOVECTOR is found \
            by its id and by `RAG.SCAN FILTER`, but by no search. `TOKENS` is the cost of the text in a token \
            budget; by default its bytes / 4. An index that does not exist is created with the defaults of the \
            `llmcache.*` configs, unless `llmcache.auto-create` is `no`.",
        ..write("RAG.ADD", command_entry!(add::run), KeyUse::Insert)
    },
    CommandSpec {
        arity: -6,
        flags: "write deny-oom",
        summary: "Stores many documents in one round trip.",
        complexity: "That of ADD for each",
        args: &[
            DOCUMENTS,
            arg("count", ArgKind::Integer),
            Arg {
                name: "document",
                kind: ArgKind::Block(&[ID, OWN_VECTOR, TEXT, TRUNCATE, META, TAGS, TOKENS, EXPIRY]),
                token: "",
                optional: false,
                multiple: true,
            },
        ],
        reply: "An array with the reply of `RAG.ADD` for each document.",
        notes: "At most 1,000 documents; all are stored, or none if one is refused. Words after a document that can be \
            its options are taken as such: store a document whose id is such a word, for instance `META`, by ADD, or \
            first.",
        ..write("RAG.MADD", command_entry!(add::run_many), KeyUse::Insert)
    },
    CommandSpec {
        arity: -4,
        summary: "Finds documents by meaning, by words or by both: filtered, diverse, within a token budget.",
        complexity: "O(n d) for the n documents of a small index, O(log(n) EF d) for a large one; WORDS adds at most \
            O(documents with one of the words), most of which are passed over; MMR adds O(COUNT^2 d)",
        args: &[
            DOCUMENTS,
            VECTOR,
            opt("TEXT", "question", ArgKind::Text),
            opt("WORDS", "words", ArgKind::Text),
            opt(
                "FUSE",
                "fusion",
                ArgKind::OneOf(&[
                    need("RRF", "k", ArgKind::Double),
                    need("LINEAR", "weight", ArgKind::Double),
                ]),
            ),
            opt("SNIPPET", "width", ArgKind::Integer),
            opt(
                "MARKS",
                "marks",
                ArgKind::Block(&[arg("open", ArgKind::Text), arg("close", ArgKind::Text)]),
            ),
            opt("COUNT", "count", ArgKind::Integer),
            opt("OFFSET", "passed", ArgKind::Integer),
            opt("FILTER", "expression", ArgKind::Text),
            opt("SIMILARITY", "least", ArgKind::Double),
            opt("MMR", "lambda", ArgKind::Double),
            opt("TOKENS", "budget", ArgKind::Integer),
            opt("EF", "width", ArgKind::Integer),
            RETURN,
        ],
        reply: "An array of maps of `id similarity text meta tags`, best first. `RETURN` selects from these and from \
            `tokens age ttl hits vector score words snippet`. With WORDS the default is `id score text meta tags`.",
        notes: "A vector, TEXT or WORDS is required; TEXT on an index with EMBED or WORDS. WORDS finds documents by BM25 \
            in an index that was created with WORDS: `word`, `+word` (must occur), `-word` (must not), `\"some words\"`, \
            `begin*`, `word~` (one edit away); docs/rag.md describes them. With a vector or an embedded TEXT, both orders \
            are fused, by default with `FUSE RRF 60`; FUSE without WORDS takes the words of TEXT as they are. `score` is \
            what the order is by, `words` is BM25, `similarity` is null for a document without a vector. `snippet` is the \
            passage with most of the words, SNIPPET words long, from the first 16 KiB of the text. `COUNT` is 10 by \
            default, as for `VSIM` and `FT.SEARCH`. `FILTER` is described in `docs/filter.md`; similarity is cosine in \
            [-1, 1]. `MMR lambda` \
            chooses among the 4 x COUNT nearest (at least 20, at most 200 or COUNT) by maximal marginal relevance: \
            `lambda` x similarity - (1 - `lambda`) x the largest similarity to one chosen before. 1 is the plain \
            order, and the first is always the nearest. COUNT x candidates x dimensions is at most 67,108,864 \
            (`TOOBIG`): COUNT 200 at 1,536 dimensions, 60 at 5,000. `OFFSET` skips that many results; COUNT and \
            OFFSET together are at most 1,000. `TOKENS` ends the results, in order, before the first that would \
            exceed the budget. `vector` is the vector as QUANT keeps it, a blob of little-endian f32, or null for a \
            document without one. Only returned documents count as used. A long search runs in a thread, as that of \
            `LLMCACHE.GETSEM`.",
        ..read("RAG.SEARCH", command_entry!(search::run))
    },
    CommandSpec {
        arity: 3,
        flags: "readonly fast",
        summary: "Returns a document by its id.",
        args: &[DOCUMENTS, ID],
        reply: "A map of `id text meta tags tokens age ttl hits` (times in milliseconds, ttl -1 for \
            never), or null.",
        ..read("RAG.GET", command_entry!(get::run))
    },
    CommandSpec {
        arity: -5,
        summary: "Returns documents by their ids, in one round trip.",
        complexity: "O(n) for n ids",
        args: &[
            DOCUMENTS,
            need(
                "IDS",
                "ids",
                ArgKind::Block(&[arg("count", ArgKind::Integer), many("id", ArgKind::Text)]),
            ),
            RETURN,
        ],
        reply: "An array with the reply of `RAG.GET` for each id, in order.",
        notes: "`RETURN` selects from `id text meta tags tokens age ttl hits vector`; `vector` is as QUANT keeps it, a \
            blob of little-endian f32. Without it all but the vector are returned.",
        ..read("RAG.MGET", command_entry!(get::run_mget))
    },
    CommandSpec {
        arity: -3,
        summary: "Removes documents by id, by a filter or by a tag.",
        complexity: "O(n) for n ids; with FILTER or TAG O(documents), in slices while the client waits",
        args: &[
            DOCUMENTS,
            arg(
                "which",
                ArgKind::OneOf(&[
                    many("id", ArgKind::Text),
                    need(
                        "IDS",
                        "ids",
                        ArgKind::Block(&[
                            arg("count", ArgKind::Integer),
                            many("id", ArgKind::Text),
                        ]),
                    ),
                    need("FILTER", "expression", ArgKind::Text),
                    need("TAG", "tag", ArgKind::Text),
                ]),
            ),
            opt("LIMIT", "count", ArgKind::Integer),
            opt_word("DRYRUN", "dryrun"),
        ],
        reply: "How many were removed; with DRYRUN would be.",
        notes: "A first argument that is one of the words IDS, FILTER and TAG is never an id: use IDS for ids from \
            elsewhere. FILTER is described in `docs/filter.md`. Documents stored after the command began are left \
            alone. FILTER and TAG walk over the index in slices, between which other clients are served. Where a \
            client cannot wait (MULTI, scripts), a large index is refused, or with LIMIT that many documents are \
            removed. Like `LLMCACHE.INVALIDATE` it fails with `BUSY` if too many walks are in progress, and reports \
            documents on which the filter needed too many steps.",
        ..write("RAG.DEL", command_entry!(del::run), KeyUse::Delete)
    },
    CommandSpec {
        arity: -3,
        summary: "Lists the ids of documents page by page.",
        complexity: "O(COUNT) a page",
        args: &[
            DOCUMENTS,
            arg("cursor", ArgKind::Integer),
            opt("COUNT", "count", ArgKind::Integer),
            opt("FILTER", "expression", ArgKind::Text),
        ],
        reply: "The next cursor (0 at the end) and an array of ids.",
        notes: "A document that exists from the first page to the last is listed exactly once, replaced meanwhile or \
            not.",
        ..read("RAG.SCAN", command_entry!(admin::run_scan))
    },
    CommandSpec {
        arity: 2,
        summary: "Shows the settings, the graph and the memory of an index.",
        args: &[DOCUMENTS],
        reply: "A map: `name uid prefix entries vectors hidden filling bytes index_bytes entry_bytes mode linked \
            tail tombstones levels link_bytes kernels lookups hits stores evicted dim model quant index m \
            efc ef ttl maxentries maxmemory`, as in `LLMCACHE.INFO`. `NOCACHE` where there is no such \
            index.",
        ..read("RAG.INFO", command_entry!(admin::run_info))
    },
    CommandSpec {
        arity: 2,
        flags: "write fast",
        summary: "Removes an index and its documents.",
        args: &[DOCUMENTS],
        reply: "1, or 0 when there is no such index.",
        notes: "Equivalent to `UNLINK` of its key, which does not check the type: the documents are out of use at once \
            and are removed between commands.",
        ..write("RAG.DROP", command_entry!(admin::run_drop), KeyUse::Delete)
    },
];
