"""The server's bounds that this package splits batches at (core/src/limits.rs names them all)."""

STORE_BATCH = 1_000
"""Documents of one RAG.MADD, embeddings of one EMBCACHE.MSET, questions of one LLMCACHE.MGETSEM."""
RESULTS = 10_000
"""Results of one MGETSEM, embeddings asked for by one EMBCACHE.MGET, rows of a page of SCAN."""
APPEND_BATCH = 1_024
"""Messages of one SESSION.APPEND."""
APPEND_BYTES = 512 << 10
"""Bytes of several messages of one SESSION.APPEND; one alone may be longer."""
IDS = 1_000
"""Ids of one INVALIDATE."""
BATCH_BYTES = 16 << 20
"""Bytes of one command at which a batch is cut: it holds up the server while it is read."""
SEGMENT = (1 << 20) - 64
"""Bytes of a segment that KVCHUNK keeps without a copy."""
COUNT = 1_000
"""Results of one look-up."""
