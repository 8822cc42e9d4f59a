//! Every bound the product enforces, in one place.
//!
//! Owns: numbers only. A value past its bound is refused by the parser that reads it, with an error
//! that names the bound; nothing is clamped silently. Sizes are in bytes, times in milliseconds,
//! and the unit ends the name. Read from any thread.

/// Fewest dimensions of a vector.
pub const DIM_MIN: u32 = 1;
/// Most dimensions of a vector; covers every embedding model in use (the largest today has 12,288).
pub const DIM_MAX: u32 = 16_384;

/// Longest container key name; entry keys are built from it and stay well below a page.
pub const CONTAINER_NAME_MAX_BYTES: usize = 1_024;
/// Longest caller-given entry id.
pub const ID_MAX_BYTES: usize = 128;
/// Longest id of a document; up to `ID_MAX_BYTES` it names the key, longer ones are told by their digest.
pub const DOCUMENT_ID_MAX_BYTES: usize = 1_024;
/// Longest scope.
pub const SCOPE_MAX_BYTES: usize = 1_024;
/// Longest context: system prompt and generation parameters, or a digest of them.
pub const CONTEXT_MAX_BYTES: usize = 1 << 20;
/// Longest prompt: above the longest context window in use, below what would stall hashing.
pub const PROMPT_MAX_BYTES: usize = 16 << 20;
/// Longest response.
pub const RESPONSE_MAX_BYTES: usize = 64 << 20;
/// Bytes of the longest text that is kept packed: it is unpacked in less than a millisecond.
pub const PACKED_TEXT_MAX_BYTES: usize = 256 << 10;
/// Most members of a JSON object that is read member by member: a file of a model, a line of SESSION.LOAD.
pub const JSON_MEMBERS_MAX: usize = 8_192;
/// Longest META document.
pub const META_MAX_BYTES: usize = 64 << 10;
/// Longest model name of a container.
pub const MODEL_MAX_BYTES: usize = 256;

/// Most tags of one entry.
pub const TAGS_MAX: usize = 64;
/// Longest tag.
pub const TAG_MAX_BYTES: usize = 256;

/// Most results of one lookup.
pub const COUNT_MAX: u32 = 1_000;
/// Most questions of one MGETSEM, and most results of all of them together.
pub const MGETSEM_MAX: u32 = 1_000;
/// See `MGETSEM_MAX`.
pub const MGETSEM_RESULTS_MAX: usize = 10_000;
/// Most documents of one MADD and embeddings of one MSET.
pub const STORE_BATCH_MAX: usize = 1_000;
/// Most embeddings asked for by one command.
pub const EMBEDDINGS_MAX: usize = 10_000;
/// Most numbers of one reply as text: one vector of the most dimensions, or so many short ones.
pub const VALUES_MAX: usize = DIM_MAX as usize;
/// Candidates among which MMR chooses, where COUNT is not larger.
pub const MMR_POOL_MAX: usize = 200;
/// Products of numbers that MMR computes to compare what it chose with what is left: some milliseconds.
pub const MMR_PRODUCTS_MAX: usize = 1 << 26;
/// Largest TOKENS of a search.
pub const BUDGET_TOKENS_MAX: u64 = 1 << 53;
/// Results opened beyond COUNT when their codes are too close to call.
pub const RESCORE_EXTRA_MAX: usize = 8;
/// MATRYOSHKA is a multiple of this: what kernels take at a time, without a rest.
pub const MATRYOSHKA_STEP: u32 = 32;
/// Results opened beyond COUNT where the index compares the first dimensions alone: so many for each wanted, and within
/// these bounds.
pub const RESCORE_PREFIX_EACH: usize = 3;
/// The fewest of them.
pub const RESCORE_PREFIX_MIN: usize = 24;
/// The most of them.
pub const RESCORE_PREFIX_MAX: usize = 160;
/// Entries near enough that guards refuse in one lookup before it is a miss: where thousands of
/// questions differ by a number alone, looking at all of them would hold up the server.
pub const GUARD_REFUSALS_MAX: usize = 64;
/// Bytes of prompts that guards refuse in one lookup before it is a miss.
pub const GUARD_REFUSED_MAX_BYTES: usize = 16 << 10;
/// Entries opened and not served, whatever refused them (MAXAGE, a guard, FILTER), beyond COUNT before a lookup is a
/// miss, or has no more hits.
pub const LOOKUP_REFUSED_MAX: usize = 1_024;
/// Longest value of a setting that came after the first release.
pub const SETTING_MAX_BYTES: usize = 4 << 10;
/// Most thresholds of MAXERROR: one each hundredth of similarity.
pub const MAXERROR_GRID_MAX: usize = 100;
/// Tickets whose use a cache remembers, so that none counts twice.
pub const AUDIT_NONCES_MAX: usize = 4_096;
/// Longest state of MAXERROR as bytes: nonces, thresholds, warm-up and a little more.
pub const AUDIT_BYTES_MAX: usize = 8 * AUDIT_NONCES_MAX + 9 * MAXERROR_GRID_MAX + 512;
/// Longest ticket that is read; a real one has 64 bytes.
pub const TICKET_MAX_BYTES: usize = 256;
/// How long after its issue a ticket counts, in seconds, unless `llmcache.audit-ttl` says otherwise.
pub const AUDIT_TTL_S: u32 = 86_400;
/// Most near misses that a cache remembers.
pub const NEAR_MISSES_MAX: u32 = 10_000;
/// Bytes that they take at most.
pub const NEAR_MISSES_MAX_BYTES: usize = 1 << 20;
/// Bytes of a question that are kept of one.
pub const NEAR_MISS_TEXT_MAX_BYTES: usize = 256;
/// Longest question that guards judge; longer ones are documents.
pub const GUARDED_MAX_BYTES: usize = 4 << 10;
/// Most entries one page of SCAN visits.
pub const SCAN_COUNT_MAX: u32 = 10_000;
/// Widest search of a graph (EF, EFC).
pub const EF_MAX: u32 = 10_000;
/// Fewest links a graph gives a row on a level (M): below, graphs of real vectors fall apart.
pub const GRAPH_M_MIN: u32 = 4;
/// Most of them; level 0 takes twice as many, counted in a byte.
pub const GRAPH_M_MAX: u32 = 64;
/// Narrowest search for the neighbours of a new row (EFC).
pub const EFC_MIN: u32 = 8;

/// Most entries a container stores in its life: the store order is kept in 48 bits.
pub const SEQ_MAX: u64 = (1 << 48) - 1;

/// Longest FILTER expression.
pub const FILTER_MAX_BYTES: usize = 8 << 10;
/// Most nodes of a parsed FILTER expression.
pub const FILTER_MAX_NODES: usize = 1_024;
/// Deepest nesting of a FILTER expression.
pub const FILTER_MAX_DEPTH: usize = 64;
/// Most names of one path in a FILTER expression, `.a.b[0]` having three.
pub const FILTER_MAX_PATH: usize = 32;
/// Most steps that judging one entry by a FILTER takes: values and operators, elements of arrays, 64 bytes of text each.
/// An expression that needs more on the META of an entry it meets is refused. Half a millisecond.
pub const FILTER_STEPS_MAX: u32 = 1 << 16;
/// Up to so many bytes META is kept whole beside a slot for FILTER; of more, what filters ask for.
pub const FILTER_RECORD_BYTES: usize = 1 << 10;
/// Largest record of META: all of the longest META, whose numbers take up to nine bytes for two of text.
pub const FILTER_RECORD_MAX_BYTES: usize = 8 * META_MAX_BYTES;
/// Work of one command on the main thread, in steps (`work::Steps::weight`): a page of SCAN ends there, MATCH with FILTER
/// is refused beyond. A few milliseconds.
pub const COMMAND_STEPS_MAX: u64 = 1 << 17;
/// Work of one command that cannot be left to a thread or to slices (MULTI, scripts): beyond it is refused with BUSY. Some
/// ten milliseconds.
pub const UNBLOCKABLE_STEPS_MAX: u64 = 1 << 19;
/// Things of one command in MULTI and scripts, where they cannot be done in slices: chunks, entries, embeddings. Some ten
/// milliseconds.
pub const UNBLOCKABLE_PIECES_MAX: usize = 8_192;
/// Numbers of a vector that weigh as much as another of these things.
pub const UNBLOCKABLE_PIECE_NUMBERS: usize = 2_048;
/// Bytes of text whose words are indexed that weigh as much.
pub const UNBLOCKABLE_PIECE_READ_BYTES: usize = 64;
/// The same for a command whose client has waited for its text to be embedded, and waits no second time.
pub const WAITED_STEPS_MAX: u64 = 8 * UNBLOCKABLE_STEPS_MAX;
/// Names of members that a container keeps in its records because filters asked for them, the latest.
pub const FILTER_ASKED_MAX: usize = 64;

/// Most entries and bytes a container can be told to hold.
pub const MAXENTRIES_MAX: u64 = u32::MAX as u64 - 1;
/// Longest time to live: what Redis itself accepts as a deadline leaves room for this.
pub const TTL_MAX_MS: u64 = 100 * 365 * 86_400_000;
/// Largest share by which JITTER shortens a time to live, in percent.
pub const JITTER_MAX_PCT: u64 = 100;
/// Latest deadline that a server keeps, in Unix milliseconds: it adds to them without looking.
pub const DEADLINE_MAX_MS: u64 = i64::MAX as u64 / 2;
/// Latest time that a double holds exactly, in Unix milliseconds: members of sorted sets are scored with them.
pub const SCORE_MAX_MS: u64 = 1 << 53;
/// Largest cursor of a page.
pub const CURSOR_MAX: u64 = u32::MAX as u64;
/// Largest COST of one answer, in nano-dollars (one million dollars).
pub const COST_MAX_NANO_USD: u64 = 1_000_000 * 1_000_000_000;
/// Largest token count of one answer.
pub const TOKENS_MAX: u64 = u32::MAX as u64;
/// Largest LATENCY of one answer.
pub const LATENCY_MAX_MS: u64 = 7 * 86_400_000;

/// How long a lease that lapsed is kept for an answer that comes late, where nobody else was given it.
pub const LAPSED_LEASE_KEPT_MS: u64 = 600_000;

/// Tags and scopes of a container whose invalidation is remembered.
pub const EPOCHS_MAX: usize = 4_096;
/// Entries that one INVALIDATE by ids, filter, age or radius takes, when LIMIT does not say less.
pub const INVALIDATE_MAX: u64 = u32::MAX as u64;
/// Walks of INVALIDATE that go on between commands; one more is refused with BUSY.
pub const WALKS_MAX: usize = 64;
/// Most ids of one INVALIDATE.
pub const INVALIDATE_IDS_MAX: usize = 1_000;
/// Most ids of one message about invalidated entries.
pub const INVALIDATED_IDS_MAX: usize = 1_000;
/// Greatest age of an answer that is brought over from another cache: 100 years.
pub const AGE_MAX_MS: u64 = 100 * 365 * 86_400_000;
/// Longest GRACE.
pub const GRACE_MAX_S: u32 = 10 * 365 * 86_400;
/// Leases of a container at once: a question is compared with every pending one of its partition.
pub const LEASES_MAX: usize = 1_024;
/// Memory of all leases and failures together: digests, codes of vectors, short questions.
pub const LEASE_BYTES_MAX: u64 = 64 << 20;
/// Longest LEASE, and longest WAIT: longer than any answer takes to make.
pub const LEASE_MAX_MS: u64 = 3_600_000;
/// Clients that wait for one answer.
pub const WAITERS_MAX: usize = 16_384;
/// Failures of a container that are remembered at once.
pub const NEGATIVES_MAX: usize = 4_096;
/// Longest BACKOFF.
pub const BACKOFF_MAX_MS: u64 = 86_400_000;
/// Longest text of a failure.
pub const FAILURE_MAX_BYTES: usize = 1_024;
/// Scopes of a container whose failures are counted at once.
pub const BREAKERS_MAX: usize = 4_096;
/// Largest BETA.
pub const BETA_MAX: f64 = 100.0;
/// Longest name of a loader or sink stream.
pub const STREAM_NAME_MAX_BYTES: usize = 1_024;

/// Scopes whose statistics are kept apart in one container; later ones count in the totals only.
pub const STATS_SCOPES_MAX: usize = 4_096;

/// Tokens of a chunk when nothing is said, as LMCache has it.
pub const CHUNK_TOKENS_DEFAULT: u32 = 256;
/// Most tokens of a chunk.
pub const CHUNK_TOKENS_MAX: u32 = 1 << 16;
/// Longest prompt of a KVCHUNK command, as a blob of four bytes a token: four million tokens.
pub const TOKENS_BLOB_MAX_BYTES: usize = 16 << 20;
/// Most chunks of one command: hashing and opening them stays below a tenth of a second.
pub const CHUNKS_MAX: usize = 1 << 16;
/// Most chunks of one page of FETCH: as many payloads are answered in one piece.
pub const KV_FETCH_CHUNKS_MAX: usize = 256;
/// Longest digest of a caller's own.
pub const DIGEST_MAX_BYTES: usize = 64;
/// Longest payload of a chunk: what the server takes as one argument by default.
pub const PAYLOAD_MAX_BYTES: usize = 512 << 20;
/// Most arguments a payload may come in.
pub const SEGMENTS_MAX: usize = 1 << 16;
/// Longest FORMAT of a namespace.
pub const FORMAT_MAX_BYTES: usize = 64;
/// Longest SALT.
pub const SALT_MAX_BYTES: usize = 128;
/// Most dimensions of SHAPE.
pub const SHAPE_MAX_DIMS: usize = 8;
/// Highest PRIO; each step doubles what a use counts.
pub const PRIO_MAX: u8 = 15;
/// Longest LEASE of chunks.
pub const KV_LEASE_MAX_MS: u64 = 86_400_000;
/// Most leases of a namespace at once.
pub const KV_LEASES_MAX: usize = 1 << 16;
/// Chunks that the leases of a namespace hold together, when another is given: 32 MB.
pub const KV_LEASED_CHUNKS_MAX: usize = 1 << 22;
/// Chunks of a reply of `KVCHUNK.TREE`.
pub const KV_TREE_SHOWN: u32 = 1_000;
/// Chunks that it looks at to find what eviction would take next, at most.
pub const KV_TREE_STEPS: usize = 8_192;
/// Containers of each registry that `INFO` names.
pub const INFO_CONTAINERS_MAX: usize = 256;
/// Chunks without their prefix that `KVCHUNK.INFO` counts; where there are more it says so many.
pub const KV_ORPHANS_COUNTED: usize = 1_000;
/// Chunks of leases past their time that are let go at once; the next round goes on.
pub const KV_LAPSED_AT_ONCE: usize = 1_024;
/// Longest chain of chunks: a prompt of sixteen million tokens in chunks of 256.
pub const KV_CHAIN_MAX: usize = 1 << 16;
/// Chunks looked at before one is taught to come behind another: a million tokens in chunks of 256.
pub const KV_TAUGHT_WALK: usize = 4_096;
/// Namespaces that `MATCH … ALSO` looks into besides the first.
pub const KV_ALSO_MAX: usize = 255;

/// Most threads that search.
pub const SEARCH_THREADS_MAX: usize = 64;
/// Most searches given to threads at once; what comes beyond is done by the main thread, which is what holds
/// back who sends more than there is time for.
pub const SEARCHES_OUT_MAX: usize = 1_024;
/// Longest estimate of a search that stays on the main thread.
pub const SEARCH_INLINE_MAX_US: u64 = 1_000_000_000;

/// Most messages of one APPEND.
pub const SESSION_APPEND_MAX: usize = 1_024;
/// Most bytes of payloads, META and vectors of several messages of one APPEND, and of several lines of one LOAD, which are
/// taken in at once: a millisecond or two. One message alone may be longer.
pub const SESSION_APPEND_MAX_BYTES: usize = 512 << 10;
/// Longest line of LOAD: the longest payload, half of it escaped.
pub const SESSION_LINE_MAX_BYTES: usize = 64 << 20;
/// Longest payload of a message.
pub const SESSION_PAYLOAD_MAX_BYTES: usize = 32 << 20;
/// Most messages a session takes in its life: places are kept in 32 bits.
pub const SESSION_SEQ_MAX: u32 = u32::MAX - 1;
/// Longest role.
pub const ROLE_MAX_BYTES: usize = 32;
/// Most roles of a session besides the common ones.
pub const SESSION_ROLES_MAX: usize = 64;
/// Most messages of a session that are streamed at once.
pub const SESSION_STREAMS_MAX: usize = 64;
/// Longest LEASE of a producer.
pub const SESSION_LEASE_MAX_MS: u64 = 86_400_000;
/// Longest BLOCK of a follower.
pub const SESSION_BLOCK_MAX_MS: u64 = 86_400_000;
/// Longest LINGER.
pub const SESSION_LINGER_MAX_MS: u64 = 60_000;
/// Most neighbours of a recalled message, to either side.
pub const SESSION_AROUND_MAX: u64 = 100;
/// Messages of one reply: where a window has more of them it ends, and other commands are refused.
pub const SESSION_REPLY_MESSAGES_MAX: usize = 10_000;
/// Messages that a window or a range looks at, those it passes over included.
pub const SESSION_WALKED_MAX: usize = 1 << 16;
/// Pinned messages of a session.
pub const SESSION_PINS_MAX: usize = 1_024;
/// Sessions that a LIST looks at, those that are gone included, before it says where to go on.
pub const SESSION_LIST_LOOKED_MAX: usize = 2_048;
/// Lines of one LOAD.
pub const SESSION_LOAD_MAX: usize = 1_024;
/// Most rows of one LIST.
pub const SESSION_LIST_MAX: u64 = 10_000;

/// Most models that are embedded with.
pub const EMBED_MODELS_MAX: usize = 16;
/// Longest header of a file of weights; a model of 24 layers has 50 KB.
pub const EMBED_HEADER_MAX_BYTES: u64 = 1 << 20;
/// Largest file of weights.
pub const EMBED_WEIGHTS_MAX_BYTES: u64 = 2 << 30;
/// Largest file of a tokenizer; that of a hundred languages has 17 MB.
pub const EMBED_TOKENIZER_MAX_BYTES: usize = 32 << 20;
/// Largest file of a model's settings.
pub const EMBED_CONFIG_MAX_BYTES: usize = 256 << 10;
/// Longest text that a model has put before others.
pub const EMBED_PROMPT_MAX_BYTES: usize = 512;
/// Most word pieces of a model.
pub const EMBED_PIECES_MAX: usize = 300_000;
/// Most layers of a model.
pub const EMBED_LAYERS_MAX: usize = 48;
/// Widest inner layer of a model.
pub const EMBED_INNER_MAX: usize = 8_192;
/// Most tokens of a text, whatever the model says: attention grows with their square.
pub const EMBED_TOKENS_MAX: usize = 512;
/// Most tokens of a text of a static model, which takes each by itself.
pub const EMBED_STATIC_TOKENS_MAX: usize = 8_192;
/// Longest text that is cut into tokens at all; 512 tokens of English are 3 KB.
pub const EMBED_TEXT_MAX_BYTES: usize = 32 << 10;
/// Longest name of a model.
pub const EMBED_NAME_MAX_BYTES: usize = 64;
/// Most threads that embed.
pub const EMBED_THREADS_MAX: usize = 64;
/// Most texts that wait to be embedded: a byte for each, and for each thread that helps, has room in the smallest pipe.
pub const EMBED_QUEUE_MAX: usize = 4_096 - EMBED_THREADS_MAX;
/// Most bytes of texts that wait to be embedded.
pub const EMBED_QUEUE_MAX_BYTES: usize = 4 << 20;
/// Numbers of a session's vectors, and its messages, that RECALL compares in one piece with a question that was embedded.
pub const SESSION_RECALL_AT_ONCE_NUMBERS: u64 = 3 << 20;
/// See there.
pub const SESSION_RECALL_AT_ONCE_MESSAGES: u64 = 1 << 16;
/// Longest time that a text may wait to be embedded.
pub const EMBED_TIMEOUT_MAX_MS: u64 = 600_000;
/// Most vectors of texts that are remembered.
pub const EMBED_MEMO_MAX: usize = 1 << 20;
/// Time that each further text of a command adds to what it may wait.
pub const EMBED_TIMEOUT_PER_TEXT_MS: u64 = 100;

/// Longest word that is indexed, without its ending.
pub const WORD_MAX_BYTES: usize = 64;
/// Longest question of words.
pub const WORDS_QUERY_MAX_BYTES: usize = 16 << 10;
/// Most different words of a question; of a plain text that has more, the first count.
pub const WORDS_QUERY_TERMS_MAX: usize = 128;
/// Most words of texts that a beginning or a near miss of a word stands for: those that most texts have.
pub const WORDS_EXPANSIONS_MAX: usize = 32;
/// Most beginnings and near misses of a question.
pub const WORDS_EXPANDED_MAX: usize = 4;
/// Fewest characters of a word's beginning that stands for the word.
pub const WORDS_PREFIX_MIN_CHARS: usize = 2;
/// Fewest characters of a word whose near misses are meant too.
pub const WORDS_FUZZY_MIN_CHARS: usize = 3;
/// Candidates of each side that a fusion of words and meaning orders, for each result.
pub const WORDS_DEPTH_A_RESULT: usize = 3;
/// The fewest of them. As each is scored on both sides, more find nothing better (Cranfield: the same nDCG@10 with 20 as
/// with 100).
pub const WORDS_DEPTH_MIN: usize = 30;
/// Texts that a search by words alone finds beyond those asked for, as some of them may be gone.
pub const WORDS_SPARE_TEXTS: usize = 16;
/// The best texts of a question, whose words are added to it.
pub const WORDS_FEEDBACK_TEXTS: usize = 10;
/// Words that are added.
pub const WORDS_FEEDBACK_WORDS: usize = 20;
/// What is kept of the words of a text at most that adds some.
pub const WORDS_FEEDBACK_TEXT_BYTES: usize = 16 << 10;
/// Most texts, the best by their words, in which phrases are looked for.
pub const WORDS_PHRASE_TEXTS_MAX: usize = 1_000;
/// Most phrases of a question.
pub const WORDS_PHRASES_MAX: usize = 64;
/// Longest text whose words are taken in at once: a millisecond. Those of a longer one are read part by part.
pub const WORDS_AT_ONCE_BYTES: usize = 16 << 10;
/// Different words of a longer text that count, the first: as many are taken in, and out, in a millisecond or two.
pub const WORDS_TEXT_TERMS_MAX: usize = 8_192;
/// Most words of a snippet.
pub const SNIPPET_WORDS_MAX: u64 = 1_000;
/// How much of a text a snippet is taken from.
pub const SNIPPET_TEXT_MAX_BYTES: usize = 16 << 10;
/// Longest mark of a snippet.
pub const SNIPPET_MARK_MAX_BYTES: usize = 64;
/// Largest number that reciprocal rank fusion adds to ranks.
pub const RRF_K_MAX: f64 = 10_000.0;
