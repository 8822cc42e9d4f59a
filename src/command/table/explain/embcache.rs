//! What the options of embedding caches mean.

use super::Sentence;

pub(super) const SENTENCES: &[Sentence] = &[
    (
        "EMBCACHE.FETCH",
        "LEASE",
        "Milliseconds for which the caller that is told LEAD may compute the embedding, 1 to 3,600,000; default `llmcache.lease` (30,000).",
    ),
    ("EMBCACHE", "of", "The text that was embedded, or its digest."),
    (
        "EMBCACHE",
        "TEXT",
        "The text, up to 16 MiB; it is hashed together with the model's name and not stored.",
    ),
    (
        "EMBCACHE",
        "DIGEST",
        "SHA-256 of model and text as 64 lower-case hex digits (docs/formats.md).",
    ),
    ("EMBCACHE", "TEXTS", "Several texts, up to 10,000."),
    ("EMBCACHE", "DIGESTS", "Several digests, up to 10,000."),
    ("EMBCACHE", "text", "A text that was embedded."),
    ("EMBCACHE", "digest", "64 lower-case hex digits."),
    ("EMBCACHE", "AS", "Form in which vectors are returned; default FP32."),
    ("EMBCACHE.MSET", "count", "How many embeddings follow, 1 to 1,000."),
    ("EMBCACHE", "embedding", "A text or digest, and its vector."),
    (
        "EMBCACHE.CREATE",
        "MODEL",
        "Name of the embedding model, 1 to 256 bytes; left out with EMBED.",
    ),
    (
        "EMBCACHE",
        "MODEL",
        "Refuses the command (MODELMISMATCH) when the cache is of another model.",
    ),
    ("EMBCACHE.CREATE", "DIM", "Dimensions of all vectors, 1 to 16,384; left out with EMBED."),
    ("EMBCACHE", "FP32", "As 32-bit little-endian floats."),
    ("EMBCACHE", "FP16", "As 16-bit little-endian floats."),
    ("EMBCACHE", "VALUES", "As decimal numbers; before a vector that is given, their count."),
];
