//! The rows of `RAG.*` in the command table.

use super::words::{
    EMBED, EXPIRY, INDEX, QUANT, RETURN, SCRIPT, TAGS, VECTOR, VECTOR_FORMS, arg, many, need, opt,
    opt_word, read, word, write,
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

pub(super) const RAG: &[CommandSpec] = &[
    CommandSpec {
        arity: -2,
        flags: "write deny-oom",
        summary: "Creates an index of documents.",
        args: &[
            DOCUMENTS,
            opt("DIM", "dimensions", ArgKind::Integer),
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
            that `RAG.SEARCH … WORDS` finds documents by them (docs/rag.md), and a document needs no vector. DIM is \
            set by the first document when it is not given.",
        ..write("RAG.CREATE", command_entry!(admin::run_create), KeyUse::Insert)
    },
    CommandSpec {
        arity: -5,
        flags: "write deny-oom",
        summary: "Stores a document, or replaces the one of this id.",
        complexity: "O(d) for d dimensions, and what MAXENTRIES or MAXMEMORY make it remove",
        args: &[DOCUMENTS, ID, OWN_VECTOR, TEXT, TRUNCATE, META, TAGS, TOKENS, EXPIRY],
        reply: "1 for a new document, 0 for one that replaced another.",
        notes: "An id has 1 to 1,024 bytes; one of up to 128 bytes without control characters names the \
            key (`{index}:<uid>:<id>`), others, and ids that look like a digest, are named by their digest. \
            On an index with EMBED a text without a vector is embedded while the client waits; one that the \
            model cannot read whole is refused, or with `TRUNCATE` embedded by its beginning. With NOVECTOR there is no vector: the document is answered by its id \
            and by `RAG.SCAN FILTER`, and no search finds it. `TOKENS` is what the text counts in a budget; without it, its bytes / 4. An index that does \
            not exist is made with the defaults of the `llmcache.*` configs, unless \
            `llmcache.auto-create` is `no`.",
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
        reply: "An array of what `RAG.ADD` answers to each.",
        notes: "At most 1,000; all are stored, or none where one is refused. Words after a document that \
            could be options of it are: a document whose id is such a word, `META` for instance, is stored \
            by ADD, or first.",
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
        reply: "An array of maps of `id similarity text meta tags`, best first. `RETURN` picks of these and \
            of `tokens age ttl hits vector score words snippet`. With WORDS it is `id score text meta tags` when nothing \
            is said.",
        notes: "A vector, a TEXT or WORDS is needed; a TEXT on an index with EMBED, or with WORDS. WORDS finds documents \
            by BM25 in an index that was made with WORDS: `word`, `+word` (must occur), `-word` (must not), \
            `\"some words\"`, `begin*`, `word~` (one edit away), described in docs/rag.md. With a vector or an embedded \
            TEXT beside WORDS both orders are fused, by reciprocal ranks (`FUSE RRF 60`) when nothing is said; FUSE \
            without WORDS takes the words of TEXT as they are. `score` is what the order is by, `words` is BM25, \
            `similarity` is null where a document has no vector. `snippet` is the place of the text with most of the \
            words, SNIPPET words long, from its first 64 KiB. `COUNT` is 10 when nothing is said, as that of `VSIM` and `FT.SEARCH`. `FILTER` is described \
            in `docs/filter.md`, similarity is cosine in [-1, 1]. `MMR lambda` chooses among the 4 x COUNT \
            nearest (at least 20, at most 200 or COUNT) by maximal marginal relevance: `lambda` x \
            similarity - (1 - `lambda`) x the largest similarity to one chosen before; 1 is the plain \
            order, the first is always the nearest; COUNT x candidates x dimensions is at most 67,108,864 \
            (`TOOBIG`): COUNT 200 at 1,536 dimensions, 60 at 5,000. `OFFSET` passes over so many results; COUNT \
            and OFFSET together are at most 1,000. `TOKENS` ends the results, in their order, before the \
            first that would exceed the budget. `vector` is the vector as QUANT keeps it, a blob of \
            little-endian f32, null for a document without one. Only what is answered counts as used. A long \
            search goes on \
            in a thread, as that of `LLMCACHE.GETSEM`.",
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
        summary: "Answers documents by their ids, in one trip.",
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
        reply: "An array of what `RAG.GET` answers to each, in their order.",
        notes: "`RETURN` picks of `id text meta tags tokens age ttl hits vector`, the vector as QUANT keeps it, \
            a blob of little-endian f32; without it all but the vector are answered.",
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
        notes: "A first argument that is one of the words IDS, FILTER and TAG is never an id: where ids come from \
            elsewhere, name them with IDS. FILTER is described in `docs/filter.md`. What is stored after the \
            command began is left alone. FILTER and TAG go over the index in slices, between which others are \
            served; where a client cannot wait (MULTI, scripts) many documents are refused, with LIMIT so many are \
            removed. Like `LLMCACHE.INVALIDATE` it ends with `BUSY` where too many walks are under way, and tells \
            where a filter asked too much of some documents.",
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
        reply: "The next cursor (0 at the end) and an array of ids. A document that is there from the first page to the last \
            is listed once, replaced meanwhile or not.",
        notes: "A document that is there throughout is listed exactly once.",
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
        notes: "The same as `UNLINK` of its key, which refuses nothing of another type: the documents \
            follow between commands, and are out of use at once.",
        ..write("RAG.DROP", command_entry!(admin::run_drop), KeyUse::Delete)
    },
];
