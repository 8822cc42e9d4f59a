//! What the options of indexes of documents mean.

use super::Sentence;

pub(super) const SENTENCES: &[Sentence] = &[
    (
        "RAG",
        "MOVED",
        "The document is brought over from another index, with what `RAG.GET` tells of it there; comes last.",
    ),
    ("RAG.SCAN", "COUNT", "Most ids of a page, 1 to 10,000; default 10."),
    ("RAG", "NOVECTOR", "No vector: not found by meaning."),
    ("RAG.DEL", "which", "Which documents."),
    ("RAG.DEL", "IDS", "Those of these ids, 1 to 1,000."),
    ("RAG.DEL", "FILTER", "Those whose META passes."),
    ("RAG.DEL", "TAG", "Those with this tag."),
    ("RAG.DEL", "LIMIT", "Most documents removed; default all."),
    ("RAG.DEL", "DRYRUN", "Counts and removes nothing."),
    ("RAG.MGET", "IDS", "Those of these ids, 1 to 1,000."),
    ("RAG.SEARCH", "OFFSET", "Results passed over before the first answered; default 0."),
    (
        "RAG.SEARCH",
        "WORDS",
        "Words that documents are found by, up to 16 KiB, 128 different ones and 64 phrases; the index is made with WORDS.",
    ),
    ("RAG.SEARCH", "FUSE", "How the orders by meaning and by words become one; default RRF 60."),
    (
        "RAG.SEARCH",
        "RRF",
        "Reciprocal rank fusion: the sum of 1 / (k + rank) over both orders, k from 0 to 10,000.",
    ),
    (
        "RAG.SEARCH",
        "LINEAR",
        "Weight of the similarity, from 0 to 1; the rest is that of the words. Of what is fused each side is scaled to 0 to 1.",
    ),
    ("RAG.SEARCH", "SNIPPET", "Words of a snippet, 1 to 1,000; default 40."),
    (
        "RAG.SEARCH",
        "MARKS",
        "What stands before and after a word in a snippet, up to 64 bytes each; default `<b>` and `</b>`.",
    ),
    ("RAG.SEARCH", "open", "What stands before it."),
    ("RAG.SEARCH", "close", "What stands behind it."),
    (
        "RAG.CREATE",
        "WORDS",
        "Language of the texts, by name or ISO 639-1 code, or `none` for words as they are; their words are indexed. OFF, the default, is no index of words.",
    ),
    ("RAG.SEARCH", "COUNT", "Most documents to return, 1 to 1,000; default 10."),
    ("RAG.SEARCH", "SIMILARITY", "Least cosine similarity, from -1 to 1; default no bound."),
    (
        "RAG.SEARCH",
        "MMR",
        "Weight of similarity against variety, from 0 to 1 (maximal marginal relevance): 1 is by similarity alone. Default off.",
    ),
    (
        "RAG.SEARCH",
        "TOKENS",
        "Budget: documents are returned as long as their tokens together fit.",
    ),
    ("RAG", "TOKENS", "Tokens that the text counts in a budget; default its bytes / 4."),
    (
        "RAG.SEARCH",
        "TEXT",
        "The question in words, up to 16 MiB, in the place of a vector; the model of the index embeds it, or its words decide, those of the first 16 KiB.",
    ),
    (
        "RAG",
        "TEXT",
        "The text of the document, up to 64 MiB; of one above 16 KiB the first 8,192 different words are indexed, where words are.",
    ),
    (
        "RAG",
        "TRUNCATE",
        "Of a text longer than the model reads, embed the beginning; default: it is refused. All of the text is stored.",
    ),
    ("RAG", "id", "Id of the document, 1 to 1,024 bytes."),
    ("RAG.MADD", "count", "How many documents follow, 1 to 1,000."),
    ("RAG", "document", "An id, a vector and a text, with the options of RAG.ADD."),
];
