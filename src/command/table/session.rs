//! The rows of the command table for `SESSION.*`.

use super::words::adds_to;
use super::words::{
    CONTEXT, EXPIRY_FORMS, SCOPE, TAGS, UNLESS_ALONE, VECTOR, VECTOR_FORMS, arg, many, need, opt,
    opt_word, read, word, write,
};
use crate::command::session::{
    append, change, copy, follow, info, internal, owner, read, recall, stream,
};
use crate::command_entry;
use crate::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};

const KEY: Arg = arg("session", ArgKind::Key);
const SEQ: Arg = arg("seq", ArgKind::Integer);
const PAYLOAD: Arg = arg("payload", ArgKind::Text);
const WHICH: Arg =
    arg("which", ArgKind::OneOf(&[arg("seq", ArgKind::Integer), need("ID", "id", ArgKind::Text)]));
const TOKENS: Arg = opt("TOKENS", "tokens", ArgKind::Integer);
const META: Arg = opt("META", "json", ArgKind::Text);
const ID: Arg = opt("ID", "id", ArgKind::Text);
const COUNT: Arg = opt("COUNT", "count", ArgKind::Integer);
const ROLES: Arg = opt(
    "ROLES",
    "roles",
    ArgKind::Block(&[arg("count", ArgKind::Integer), many("role", ArgKind::Text)]),
);

/// How a message is kept by meaning, and what is asked for by it.
const MEANING: &[Arg] =
    &[VECTOR_FORMS[0], VECTOR_FORMS[1], VECTOR_FORMS[2], word("NOVECTOR", "novector")];
const QUESTION: &[Arg] = &[
    VECTOR_FORMS[0],
    VECTOR_FORMS[1],
    VECTOR_FORMS[2],
    need("TEXT", "question-text", ArgKind::Text),
];

const MESSAGE: Arg = Arg {
    name: "message",
    kind: ArgKind::Block(&[
        word("MSG", "msg"),
        arg("role", ArgKind::Text),
        PAYLOAD,
        ID,
        TOKENS,
        META,
        opt_word("PIN", "pin"),
        opt(
            "",
            "link",
            ArgKind::OneOf(&[
                need("CALL", "call-id", ArgKind::Text),
                need("RESULT", "result-of", ArgKind::Text),
            ]),
        ),
        opt("", "vector", ArgKind::OneOf(MEANING)),
    ]),
    token: "",
    optional: false,
    multiple: true,
};

const SHORT: &str = "A message is `[seq, role, payload, tokens]`, followed by the name and value of \
    whatever else it carries: `id`, `meta`, `call` or `result`, `pinned`, `summary`, `status`.";

/// Every command of the family.
pub const SESSION: &[CommandSpec] = &[
    CommandSpec {
        arity: -5,
        flags: "write deny-oom",
        summary: "Appends messages to a conversation, together with its deadline and trims.",
        complexity: "O(m) for m messages, and what trims remove",
        args: &[
            KEY,
            opt("", "condition", ArgKind::OneOf(&[word("NX", "nx"), word("XX", "xx")])),
            opt("IFSEQ", "newest-seq", ArgKind::Integer),
            opt("TTL", "seconds", ArgKind::Integer),
            opt("MAXLEN", "messages", ArgKind::Integer),
            opt("MAXTOKENS", "max-tokens", ArgKind::Integer),
            opt("OWNER", "owner-key", ArgKind::Text),
            opt("EMBED", "model", ArgKind::Text),
            opt_word("UPSERT", "upsert"),
            opt_word("CLEAR", "clear"),
            MESSAGE,
        ],
        reply: "An array: for each message `[seq, 1]` if it is new, `[seq, 0]` if it already existed, or `[seq, 2]` if \
            it replaced another with its ID; then the number of messages and of tokens of the session. Null when a \
            condition does not hold.",
        notes: "Options before the first `MSG` concern the session, later ones the message they follow. Limits: 1,024 \
            messages in a command, and 512 KiB of payloads, META and vectors where it has several; 1,024 pinned \
            messages in a session; 32 MiB a payload, which may be any bytes. A role has 1 to 32 letters, digits, `_`, `-` or `.`. A message with the same ID, role and payload as a \
            stored one is a duplicate; with other content it is an error. An ID is known as long as its message \
            exists. A request that contains only duplicates gets the reply of the first time, whatever its \
            conditions. `IFSEQ n` appends only if the newest message is n (0: the session is empty), `NX` only if \
            there is no session, `XX` only if there is one. `UPSERT` replaces a message with a known ID in place, \
            all but its seq and ID; a message that is still being written is an error. `CLEAR` first removes all \
            messages, pinned ones too; sequence numbers continue, and repeating a request in which every message has \
            an ID changes nothing. The session keeps its `TTL`: each command that adds text moves the deadline to \
            that many seconds from then. 0 ends that, and so do `EXPIRE` and `PERSIST`, whose deadline stays. MAXLEN \
            and MAXTOKENS remove the oldest messages that are not pinned, once, in this command. A missing TOKENS is \
            estimated as `ceil(bytes / 4)` and marked so. `OWNER` names a sorted set in the same hash slot, in which \
            the session becomes the newest (`SESSION.LIST`). All vectors of a session have the same dimension. `EMBED` \
            names a model of `llmcache.embed-models` (`docs/embedding.md`), which the session keeps: from then on \
            messages without a vector are embedded, while the client waits, and stored with their vectors in one step. Of \
            a message that is longer than the model reads the beginning is embedded; one that it does not read at all, \
            or with `NOVECTOR`, is stored without a vector. Another model than the one that embedded the session's \
            messages: `MODELMISMATCH`.",
        key_options: &[adds_to("OWNER", None)],
        ..write("SESSION.APPEND", command_entry!(append::run, keys), KeyUse::Insert)
    },
    CommandSpec {
        arity: -2,
        summary: "Returns the newest messages that fit a budget.",
        complexity: "O(log n + k) for k messages returned or skipped",
        args: &[
            KEY,
            TOKENS,
            opt("LAST", "messages", ArgKind::Integer),
            opt("TURNS", "turns", ArgKind::Integer),
            ROLES,
            opt_word("PAIRS", "pairs"),
            opt_word("JSON", "json"),
        ],
        reply: "An array: the tokens of all messages returned, the seq of the oldest one that is not pinned (0 for \
            none), 1 if older ones were left out, and the messages, oldest first.",
        notes: "Pinned messages come first, the newest of them while they fit; then messages from the newest back, until \
            one does not fit. With `TURNS` a turn (from a `user` message to before the next) fits as a whole or not \
            at all. With `PAIRS` so does a tool call with everything up to its last result; results without their \
            call are left out, and pins do not count for calls and results. Messages that are still being written \
            are left out. The deadline does not move. A window ends after 10,000 messages, after 65,536 messages \
            examined, and at `llmcache.reply-max-bytes`. With `JSON` the messages are one string: a JSON array of \
            objects with `role`, `content`, and `call` or `result` where marked, as chat interfaces expect it; \
            content that is not UTF-8 is in `content_hex`.",
        ..read("SESSION.WINDOW", command_entry!(read::run_window))
    },
    CommandSpec {
        arity: -4,
        summary: "Returns messages by their sequence numbers.",
        complexity: "O(log n + k) for k messages returned or skipped",
        args: &[
            KEY,
            arg("from", ArgKind::Text),
            arg("to", ArgKind::Text),
            COUNT,
            opt_word("REV", "rev"),
            ROLES,
        ],
        reply: SHORT,
        notes: "`from` and `to` are included; `-` is the first message, `+` the last. `REV` starts at `to` and goes \
            back. A range of more than 10,000 messages, one that skips more than 65,536, or one larger than \
            `llmcache.reply-max-bytes` is refused (`TOOBIG`), and the error says where to continue.",
        ..read("SESSION.RANGE", command_entry!(read::run_range))
    },
    CommandSpec {
        arity: 4,
        summary: "Returns one message with all its fields.",
        complexity: "O(log n)",
        args: &[
            KEY,
            arg(
                "which",
                ArgKind::OneOf(&[
                    need("SEQ", "seq", ArgKind::Integer),
                    need("ID", "id", ArgKind::Text),
                ]),
            ),
        ],
        reply: "A map of `seq role payload tokens estimated id meta call result pinned summary status \
            dim`, or null.",
        notes: "`status` is `whole`, or that of a stream: `open`, `done`, `stopped`, `error`, `abandoned`.",
        ..read("SESSION.GET", command_entry!(read::run_get))
    },
    CommandSpec {
        arity: 2,
        flags: "readonly fast",
        summary: "Counts the messages of a session.",
        args: &[KEY],
        reply: "The count; 0 where there is no session.",
        ..read("SESSION.LEN", command_entry!(read::run_len))
    },
    CommandSpec {
        arity: 2,
        summary: "Shows what a session holds.",
        complexity: "O(1)",
        args: &[KEY],
        reply: "A map of `messages tokens estimated pinned open first_seq last_seq next_seq vectors dim \
            ttl payload_bytes bytes`, and with EMBED `model`; or null.",
        ..read("SESSION.INFO", command_entry!(info::run))
    },
    CommandSpec {
        arity: -4,
        flags: "write deny-oom",
        summary: "Replaces the payload of a message.",
        complexity: "O(log n)",
        args: &[KEY, WHICH, PAYLOAD, TOKENS, opt("", "vector", ArgKind::OneOf(MEANING))],
        reply: "1, or 0 where there is no such message.",
        notes: "Role, ID, META, pin and links stay. The vector is replaced by the given one; without one the new \
            payload is embedded in a session with EMBED, unless NOVECTOR is said, and else the message has none.",
        ..write("SESSION.EDIT", command_entry!(change::run_edit), KeyUse::Update)
    },
    CommandSpec {
        arity: -3,
        summary: "Removes messages.",
        complexity: "O(k log n) for k messages",
        args: &[
            KEY,
            arg(
                "which",
                ArgKind::OneOf(&[
                    many("seq", ArgKind::Integer),
                    Arg { token: "ID", ..many("id", ArgKind::Text) },
                ]),
            ),
        ],
        reply: "How many were removed.",
        notes: "The session remains when its last message is removed; `DEL` removes the session.",
        ..write("SESSION.DEL", command_entry!(change::run_del), KeyUse::Delete)
    },
    CommandSpec {
        arity: -2,
        summary: "Removes the newest messages, or the oldest, and returns them.",
        complexity: "O(k)",
        args: &[KEY, COUNT, opt_word("OLDEST", "oldest")],
        reply: "An array of messages in the form of `SESSION.RANGE`, newest first; with `OLDEST` the oldest, in their \
            order.",
        notes: "Pinned messages are removed like others. A message that is still being written is removed with its text \
            so far.",
        ..write("SESSION.POP", command_entry!(change::run_pop), KeyUse::DeleteAndRead)
    },
    CommandSpec {
        arity: 4,
        summary: "Removes the oldest messages that are not pinned.",
        complexity: "O(b) for b blocks of 8 KiB removed, and pinned messages before them",
        args: &[
            KEY,
            arg(
                "bound",
                ArgKind::OneOf(&[
                    need("MAXLEN", "messages", ArgKind::Integer),
                    need("MAXTOKENS", "max-tokens", ArgKind::Integer),
                    need("MINSEQ", "seq", ArgKind::Integer),
                ]),
            ),
        ],
        reply: "How many were removed.",
        notes: "Pinned messages stay and count first. `MAXLEN 0` keeps them alone.",
        ..write("SESSION.TRIM", command_entry!(change::run_trim), KeyUse::Delete)
    },
    CommandSpec {
        arity: 2,
        summary: "Removes all messages, pinned ones too.",
        complexity: "O(b) for b blocks of 8 KiB; their memory is freed in a thread",
        args: &[KEY],
        reply: "How many were removed.",
        notes: "The session remains, with its TTL and its sequence numbers.",
        ..write("SESSION.CLEAR", command_entry!(change::run_clear), KeyUse::Delete)
    },
    CommandSpec {
        arity: -2,
        flags: "write fast",
        summary: "Moves the deadline of a session without adding a message.",
        args: &[KEY, opt("TTL", "seconds", ArgKind::Integer)],
        reply: "1, or 0 where there is no session.",
        notes: "Without `TTL` the call counts as a use: the deadline moves to the session's own TTL from now, if it has \
            one. `TTL n` is kept as that of `SESSION.APPEND`; 0 removes TTL and deadline. To set a deadline that \
            does not move with use, call the server's `EXPIRE`.",
        ..write("SESSION.EXPIRE", command_entry!(change::run_expire), KeyUse::Update)
    },
    CommandSpec {
        arity: -5,
        flags: "write deny-oom",
        summary: "Replaces the messages up to a sequence number by a summary.",
        complexity: "O(b) for b blocks of 8 KiB removed, and pinned messages before them",
        args: &[
            KEY,
            need("UPTO", "seq", ArgKind::Integer),
            PAYLOAD,
            TOKENS,
            opt("IFSEQ", "newest-seq", ArgKind::Integer),
            opt("ROLE", "role", ArgKind::Text),
        ],
        reply: "An array: messages removed, tokens of the session before and after. Null when the \
            newest message is not IFSEQ.",
        notes: "Pinned messages stay. The summary gets the seq of the last message removed; its role is `system` by \
            default. A message that is still being written within the range is an error.",
        ..write("SESSION.COMPACT", command_entry!(change::run_compact), KeyUse::Update)
    },
    CommandSpec {
        arity: -4,
        summary: "Finds messages by similarity.",
        complexity: "O(n * d) for n vectors of d dimensions",
        args: &[
            KEY,
            arg("question", ArgKind::OneOf(QUESTION)),
            COUNT,
            opt("SIMILARITY", "least", ArgKind::Double),
            ROLES,
            opt("AROUND", "neighbours", ArgKind::Integer),
        ],
        reply: "An array of `[similarity, message]`, best first; with AROUND `[similarity, message, before, after]`, the \
            latter two arrays of that many messages.",
        notes: "COUNT is 1 by default; with AROUND the reply has at most 10,000 messages, each in the form of \
            `SESSION.RANGE`. Every vector of the session, kept in half precision, is compared, in slices while the \
            client waits if there are many. `TEXT` is embedded by the session's model (`SESSION.APPEND … EMBED`); in a \
            session of more than 65,536 messages, or 8,192 vectors of 384 dimensions, it has at most \
            `llmcache.embed-inline-tokens` tokens, else: `EMBEDLONG`. A session that does not exist has no model \
            and no messages: an empty array.",
        ..read("SESSION.RECALL", command_entry!(recall::run))
    },
    CommandSpec {
        arity: -3,
        flags: "write deny-oom",
        summary: "Copies a session up to a message into a new one.",
        complexity: "O(b) for b blocks of 8 KiB, which the two share until one of them changes them",
        args: &[KEY, arg("new", ArgKind::Key), opt("AT", "seq", ArgKind::Integer)],
        second_key: Some(KeyUse::Insert),
        reply: "How many messages were copied.",
        notes: "Both keys are in the same hash slot; a new key that exists is an error. Sequence numbers and TTL are \
            kept. Messages that are still being written are copied as `abandoned`.",
        ..write("SESSION.FORK", command_entry!(copy::run_fork), KeyUse::Read)
    },
    CommandSpec {
        arity: -2,
        summary: "Lists the sessions of an owner, newest first.",
        complexity: "O(log u + k) for k sessions returned or skipped, at most 2,048 besides those of one millisecond",
        args: &[
            arg("owner", ArgKind::Key),
            COUNT,
            opt("BEFORE", "unix-time-milliseconds", ArgKind::UnixTime),
        ],
        reply: "An array of `[session, last append in Unix milliseconds, messages, tokens]`. Where 2,048 \
            sessions were looked at, those that are gone included, a last row `[null, ms, 0, 0]` says that the list \
            goes on with `BEFORE ms`. Sessions of one millisecond \
            are on one page, which may so be longer than COUNT.",
        notes: "COUNT is 100 by default. Sessions that expired or were deleted are skipped; the next append with this \
            OWNER removes them from the set. Sessions that the user may not read are skipped.",
        ..read("SESSION.LIST", command_entry!(owner::run_list))
    },
    CommandSpec {
        arity: -2,
        summary: "Returns messages as lines of JSON, all or page by page.",
        complexity: "O(b + k) for b blocks of 8 KiB and k messages returned, in slices while the client waits",
        args: &[KEY, opt("FROM", "first-seq", ArgKind::Integer), COUNT],
        reply: "An array of lines, oldest message first.",
        notes: "A reply holds at most 10,000 messages and `llmcache.reply-max-bytes`: exporting a larger session at once \
            is refused (`TOOBIG`). `FROM` and `COUNT` return a page, which may be shorter than COUNT; continue with \
            `FROM` the last `seq` plus 1 until a page is empty. The reply shows the session as it was when the \
            command arrived. A line has the members `seq role content tokens`, and of `id estimated pinned summary \
            call result meta vector_f16_hex status` those that apply. Text that is not UTF-8 is in `content_hex`, \
            `id_hex`, `call_hex`, `result_hex`. `SESSION.LOAD` restores the same messages from these lines.",
        ..read("SESSION.EXPORT", command_entry!(read::run_export))
    },
    CommandSpec {
        arity: -3,
        flags: "write deny-oom",
        summary: "Appends messages from lines of JSON.",
        complexity: "O(m) for m lines",
        args: &[KEY, many("line", ArgKind::Text)],
        reply: "How many messages were loaded.",
        notes: "Lines have the form that `SESSION.EXPORT` writes; `role` and `content` suffice. A `seq` must be greater \
            than all before it, and lines without one get the next number. At most 1,024 lines and 512 KiB in a \
            command, or one line of up to 64 MiB: what a page of `SESSION.EXPORT` has more goes into further commands. \
            An argument may hold several lines. All lines are loaded, or none.",
        ..write("SESSION.LOAD", command_entry!(copy::run_load), KeyUse::Insert)
    },
    CommandSpec {
        arity: -3,
        flags: "write deny-oom",
        summary: "Begins a message that can be read while it is written.",
        complexity: "O(log n)",
        args: &[
            KEY,
            arg("role", ArgKind::Text),
            ID,
            opt("LEASE", "milliseconds", ArgKind::Integer),
            META,
            opt_word("TAKEOVER", "takeover"),
        ],
        reply: "An array: the message's seq, the producer's token, the length of the text so far. The token is null for \
            a caller that may only read: another producer holds the message, or it has ended.",
        notes: "LEASE is 30,000 by default; each write renews it. A message whose lease expired is `abandoned`: its \
            producer may continue, until another caller with the same ID and `TAKEOVER` gets a token of its own.",
        ..write("SESSION.BEGIN", command_entry!(stream::run_begin), KeyUse::Insert)
    },
    CommandSpec {
        arity: 6,
        flags: "write deny-oom",
        summary: "Adds text to a message that is being written.",
        complexity: "O(bytes), and waking followers",
        args: &[
            KEY,
            SEQ,
            arg("token", ArgKind::Text),
            arg("offset", ArgKind::Integer),
            arg("data", ArgKind::Text),
        ],
        reply: "An array: the offset at which the text ends, and 1 if the message was ended by `SESSION.STOP`: then \
            nothing was added.",
        notes: "`offset` is where the text goes, in bytes. Text that is already stored is skipped if it is the same, \
            otherwise it is an error; so is a gap. A token other than the producer's: `LEASELOST`. Empty text renews \
            the lease.",
        ..write("SESSION.CHUNK", command_entry!(stream::run_chunk), KeyUse::Update)
    },
    CommandSpec {
        arity: -4,
        summary: "Reads a message from an offset on, and waits for it to begin and to grow.",
        complexity: "O(bytes)",
        args: &[
            KEY,
            WHICH,
            arg("offset", ArgKind::Integer),
            opt("BLOCK", "milliseconds", ArgKind::Integer),
            opt("MAX", "bytes", ArgKind::Integer),
            opt("LINGER", "milliseconds", ArgKind::Integer),
        ],
        reply: "An array: `open`, `done`, `stopped`, `error` or `abandoned`; the offset to go on with; the \
            text. Null where there is no such message.",
        notes: "Text that is there is returned at once. Otherwise, with `BLOCK`, the client waits that long (0: \
            without limit) for text, for the end, or for the removal of the message. A message named by `ID` that does \
            not exist yet is waited for too, also while there is no session: the reply is null if it has not begun \
            in time. Nothing waits in MULTI and in scripts. `LINGER` lets text gather for so long, or up to MAX. \
            UTF-8 text is cut between characters: one that does not fit MAX, or of which only the beginning was \
            written, comes next time; a single one longer than MAX is returned whole. Other bytes are cut at MAX. \
            The end is reported with the last byte, not before: read on while the status is `open`. When the hash \
            slot moves, a waiting client is redirected: `ASK`, then `MOVED`.",
        ..read("SESSION.FOLLOW", command_entry!(follow::run))
    },
    CommandSpec {
        arity: -4,
        summary: "Ends a message that is being written.",
        complexity: "O(bytes), and waking followers",
        args: &[
            KEY,
            SEQ,
            arg("token", ArgKind::Text),
            opt(
                "STATUS",
                "status",
                ArgKind::OneOf(&[word("DONE", "done"), word("ERROR", "error")]),
            ),
            TOKENS,
            META,
            opt(
                "CACHE",
                "answer",
                ArgKind::Block(&[
                    arg("cache-key", ArgKind::Text),
                    need("PROMPT", "prompt", ArgKind::Text),
                    VECTOR,
                    SCOPE,
                    CONTEXT,
                    TAGS,
                    opt("COST", "usd", ArgKind::Double),
                    opt("LATENCY", "milliseconds", ArgKind::Integer),
                    opt("LEASE", "lease", ArgKind::Text),
                    UNLESS_ALONE,
                    opt("", "expiry", ArgKind::OneOf(EXPIRY_FORMS)),
                ]),
            ),
        ],
        reply: "An array: its seq and its length in bytes.",
        notes: "After END the text is a message like any other. Repeating the same END returns the same reply; \
            an END with other TOKENS or META, or with a CACHE that does not hold the answer, is an error. \
            A token other than the producer's: `LEASELOST`. `CACHE` also stores the text as the answer to \
            PROMPT, as `LLMCACHE.SETSEM` does with the same options, in the same step; TOKENS of the message count \
            for the answer too. If the cache refuses the answer, the message does not end: `LEASELOST` of a `LEASE` \
            from `LLMCACHE.FETCH` is such a refusal, and END without CACHE then ends the message alone. Only a message \
            that is `done` is stored; after `STATUS ERROR` end the lease by `LLMCACHE.FAIL`. The cache must be \
            in the same hash slot.",
        key_options: &[adds_to("CACHE", Some(KeyUse::Read))],
        ..write("SESSION.END", command_entry!(stream::run_end, keys), KeyUse::Update)
    },
    CommandSpec {
        arity: 3,
        summary: "Ends another client's unfinished message.",
        complexity: "O(bytes), and waking followers",
        args: &[KEY, SEQ],
        reply: "1, or 0 if it is not being written.",
        notes: "The text so far stays, with status `stopped`. The producer learns of it from its next CHUNK and may \
            still report tokens and META by END. STOP also ends an abandoned message.",
        ..write("SESSION.STOP", command_entry!(stream::run_stop), KeyUse::Update)
    },
    CommandSpec {
        arity: -4,
        flags: "write deny-oom admin",
        summary: "Internal: changes a session as AOF and replicas are told.",
        args: &[KEY, arg("deadline", ArgKind::Text), many("change", ArgKind::Text)],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("SESSION._APPLY", command_entry!(internal::run_apply, internal), KeyUse::Insert)
    },
    CommandSpec {
        arity: -3,
        flags: "write deny-oom admin",
        summary: "Internal: creates a session as the AOF holds it.",
        args: &[
            KEY,
            arg("head", ArgKind::Text),
            Arg { optional: true, ..many("section", ArgKind::Text) },
        ],
        reply: "`OK`.",
        notes: "Not for clients. The bytes are checked as hostile input.",
        ..write("SESSION._LOAD", command_entry!(internal::run_load, internal), KeyUse::Insert)
    },
];
