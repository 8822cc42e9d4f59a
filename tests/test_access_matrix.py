"""Who may do what: every command of the command table, called by users of every kind, in every way there is.

A row says which keys a call names and what it needs of each. What the server tells beforehand (COMMAND GETKEYSANDFLAGS,
ACL DRYRUN), what it does (plain, MULTI, EVAL, both protocols), and what it writes down (ACL LOG) must agree with it.
A command without a row fails, and so does a row without a command.

What is told to somebody who may not read is searched for a text that all keys hold: a command that answers data
and does not say so fails, whatever its row says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from harness.kv import blob
from harness.wire import Failure, Pairs

SECRET = "s3cret"
KEY, OTHER = "{k}", "{k}2"
V = ("VALUES", 2, 1, 2)
TOKENS = blob([1, 2, 3, 4])
HEX = "00" * 32
R, W, RW = "R", "W", "RW"


@dataclass(frozen=True)
class Row:
    """A call: the command, what follows the key, what it needs of the key and of the other key."""

    command: str
    rest: tuple = ()
    first: str = R
    other: str = ""
    family: str = ""
    blocks: bool = False
    id: str = field(default="")

    @property
    def call(self) -> list:
        return [self.command, KEY, *self.rest]

    @property
    def kind(self) -> str:
        return self.family or self.command.split(".")[0]


def row(command: str, needs: str, *rest, other: str = "", family: str = "") -> Row:
    words = [str(part) for part in rest if isinstance(part, str) and part.isupper() and len(part) > 2]
    return Row(command, rest, needs, other, family, id=" ".join([command, *words[:3]]))


def store(name, *rest):
    return row(name, W, *rest)


ROWS = [
    row("LLMCACHE.CREATE", W, "DIM", 2),
    row("LLMCACHE.SETSEM", W, "PROMPT", "q", "RESPONSE", "r", *V),
    row("LLMCACHE.SETSEM", W, "PROMPT", "p", "RESPONSE", "r", *V, "NX"),
    row("LLMCACHE.SET", W, "PROMPT", "q", "RESPONSE", "r"),
    row("LLMCACHE.GETSEM", R, "PROMPT", "p", *V),
    row("LLMCACHE.GETSEM", R, "PROMPT", "p", "EXPLAIN"),
    row("LLMCACHE.MGETSEM", R, 1, *V, "PROMPT", "p"),
    row("LLMCACHE.GET", R, "PROMPT", "p"),
    row("LLMCACHE.ENTRY", R, "one"),
    row("LLMCACHE.ENTRY", R, "one", "VECTOR"),
    row("LLMCACHE.ENTRY", R, "one", "CUT", 5),
    row("LLMCACHE.DEL", W, "one"),
    row("LLMCACHE.EXPIRE", W, "one", "EX", 50),
    row("LLMCACHE.SCAN", R, 0),
    row("LLMCACHE.CONFIG", RW, "GET"),
    row("LLMCACHE.CONFIG", RW, "GET", "model"),
    row("LLMCACHE.CONFIG", W, "SET", "ttl", 5),
    row("LLMCACHE.INFO", R),
    row("LLMCACHE.STATS", R),
    row("LLMCACHE.STATS", R, "SCOPE", "RESET"),
    row("LLMCACHE.STATS", RW, "RESET"),
    row("LLMCACHE.STATS", RW, "SCOPE", "x", "RESET"),
    row("LLMCACHE.FETCH", RW, "PROMPT", "p"),
    row("LLMCACHE.FETCH", RW, "PROMPT", "new", "LEASE", 50, "WAIT", 1),
    row("LLMCACHE.FAIL", W, "0" * 16),
    row("LLMCACHE.EXTEND", W, "0" * 16, 5),
    row("LLMCACHE.FEEDBACK", W, "ID", "one", "RIGHT"),
    row("LLMCACHE.FEEDBACK", W, "TICKET", "0" * 64, "WRONG"),
    row("LLMCACHE.FEEDBACK", W, "RESET"),
    row("LLMCACHE.NEARMISSES", R),
    row("LLMCACHE.NEARMISSES", RW, "RESET"),
    row("LLMCACHE.GETSEM", R, *V, "AUDIT"),
    row("LLMCACHE.INVALIDATE", W, "TAG", "FILTER"),
    row("LLMCACHE.INVALIDATE", W, "IDS", 2, "DRYRUN", "NEAR"),
    row("LLMCACHE.INVALIDATE", W, "OLDER", 5),
    row("LLMCACHE.INVALIDATE", W, "ALL", "SOFT"),
    row("LLMCACHE.INVALIDATE", RW, "ALL", "DRYRUN"),
    row("LLMCACHE.INVALIDATE", RW, "FILTER", f'.text == "{SECRET}"'),
    row("LLMCACHE.INVALIDATE", RW, "NEAR", *V, "SIMILARITY", 1),
    row("LLMCACHE.DROP", W),
    row("EMBCACHE.CREATE", W, "MODEL", "m", "DIM", 2),
    row("EMBCACHE.SET", W, "TEXT", "t", *V),
    row("EMBCACHE.MSET", W, 1, "TEXT", "t", *V),
    row("EMBCACHE.GET", R, "TEXT", "t"),
    row("EMBCACHE.MGET", R, "TEXTS", 1, "t"),
    row("EMBCACHE.MGETEX", RW, "TEXTS", 1, "t", "EX", 50),
    row("EMBCACHE.FETCH", RW, "TEXT", "t"),
    row("EMBCACHE.FAIL", W, "0" * 16),
    row("EMBCACHE.EXTEND", W, "0" * 16, 5),
    row("EMBCACHE.DEL", W, "TEXTS", 1, "t"),
    row("EMBCACHE.INFO", R),
    row("RAG.CREATE", W, "DIM", 2),
    row("RAG.ADD", W, "d2", *V, "TEXT", "t"),
    row("RAG.MADD", W, 1, "d2", *V, "TEXT", "t"),
    row("RAG.SEARCH", R, *V),
    row("RAG.GET", R, "one"),
    row("RAG.MGET", R, "IDS", 1, "one"),
    row("RAG.DEL", W, "one"),
    row("RAG.DEL", W, "IDS", 1, "one"),
    row("RAG.DEL", W, "FILTER", ".n == 1"),
    row("RAG.DEL", W, "TAG", "FILTER", "DRYRUN"),
    row("RAG.ADD", W, "d3", "NOVECTOR", "TEXT", "t"),
    row("RAG.SCAN", R, 0),
    row("RAG.INFO", R),
    row("RAG.DROP", W),
    row("KVCHUNK.CREATE", W, "CHUNK", 4),
    row("KVCHUNK.PUT", W, "TOKENS", TOKENS, "PAYLOAD", 1, "x"),
    row("KVCHUNK.PUT", W, "TOKENS", TOKENS, "PAYLOAD", 1, "x", "NX"),
    row("KVCHUNK.MPUT", W, "TOKENS", TOKENS, "PAYLOADS", 1, 1, "x"),
    row("KVCHUNK.MATCH", R, "TOKENS", TOKENS),
    row("KVCHUNK.MATCH", R, "TOKENS", TOKENS, "SALT", "LEASE"),
    row("KVCHUNK.MATCH", RW, "TOKENS", TOKENS, "LEASE", 50),
    row("KVCHUNK.MATCH", R, "TOKENS", TOKENS, "SPARSE", "ALSO", 1, OTHER, other=R),
    row("KVCHUNK.MATCH", RW, "TOKENS", TOKENS, "also", 1, OTHER, "LEASE", 50, other=RW),
    row("KVCHUNK.MPUT", W, "HASHES", 1, "n1", "PAYLOADS", 1, 1, "x", "LOOSE"),
    row("KVCHUNK.MPUT", W, "HASHES", 1, "n1", "PAYLOADS", 1, 1, "x", "NOCREATE", "CHECKSUMS", 1, "8cdc1683"),
    row("KVCHUNK.MATCH", RW, "HASHES", 2, "LEASE", "LEASE", "LEASE", 50),
    row("KVCHUNK.MATCH", R, "PACKED", 5, "LEASE"),
    row("KVCHUNK.MATCH", RW, "PACKED", 5, "LEASE", "LEASE", 50),
    row("KVCHUNK.MPUT", W, "PACKED", 2, "n1", "PAYLOADS", 1, 1, "x"),
    row("KVCHUNK.MISSING", R, "PACKED", 2, "n1n2"),
    row("KVCHUNK.FETCH", R, "TOKENS", TOKENS),
    row("KVCHUNK.FETCH", RW, "PACKED", 2, "n1n2", "SPARSE", "LEASE", 50),
    row("KVCHUNK.FETCH", RW, "TOKENS", TOKENS, "RANGE", 0, 9, "lease", 50),
    row("KVCHUNK.FETCH", R, "TOKENS", TOKENS, "SPARSE"),
    row("KVCHUNK.FETCH", RW, "HASHES", 2, "LEASE", "SPARSE", "SPARSE", "LEASE", 50),
    row("KVCHUNK.GET", R, HEX),
    row("KVCHUNK.MISSING", R, "TOKENS", TOKENS),
    row("KVCHUNK.FIND", R, "TOKENS", TOKENS),
    row("KVCHUNK.DEL", W, HEX),
    row("KVCHUNK.PIN", W, HEX),
    row("KVCHUNK.UNPIN", W, HEX),
    row("KVCHUNK.LEASE", W, 50, HEX),
    row("KVCHUNK.RELEASE", W, 5),
    row("KVCHUNK.TOUCH", W, HEX),
    row("KVCHUNK.BUDGET", W, 0),
    row("KVCHUNK.DIGESTS", R, "TOKENS", TOKENS),
    row("KVCHUNK.SCAN", R, 0),
    row("KVCHUNK.INFO", R),
    row("KVCHUNK.TREE", R),
    row("KVCHUNK.TREE", R, "EVICTION", "COUNT", 5),
    row("KVCHUNK.STATS", R),
    row("KVCHUNK.STATS", RW, "RESET"),
    row("KVCHUNK.VERIFY", R),
    row("KVCHUNK.VERIFY", R, "FROM", 0, "COUNT", 5),
    row("SESSION.APPEND", W, "MSG", "user", "hi"),
    row("SESSION.APPEND", W, "MSG", "owner", "OWNER", "ID", "OWNER"),
    row("SESSION.APPEND", W, "TTL", 5, "OWNER", OTHER, "MSG", "user", "hi", other=W),
    row("SESSION.APPEND", W, "CLEAR", "UPSERT", "owner", OTHER, "MSG", "user", "hi", other=W),
    row("SESSION.WINDOW", R),
    row("SESSION.RANGE", R, "-", "+"),
    row("SESSION.GET", R, "SEQ", 1),
    row("SESSION.LEN", R),
    row("SESSION.INFO", R),
    row("SESSION.EDIT", W, 1, "x"),
    row("SESSION.DEL", W, 1),
    row("SESSION.POP", RW),
    row("SESSION.POP", RW, "OLDEST", "COUNT", 5),
    row("SESSION.TRIM", W, "MAXLEN", 0),
    row("SESSION.CLEAR", W),
    row("SESSION.EXPIRE", W, "TTL", 50),
    row("SESSION.COMPACT", W, "UPTO", 1, "x"),
    row("SESSION.RECALL", R, *V),
    row("SESSION.FORK", R, OTHER, other=W),
    row("SESSION.LIST", R, family="OWNER"),
    row("SESSION.EXPORT", R),
    row("SESSION.LOAD", W, '{"role":"user","content":"x"}'),
    row("SESSION.BEGIN", W, "assistant"),
    row("SESSION.CHUNK", W, 3, "0" * 16, 0, "x"),
    row("SESSION.FOLLOW", R, 1, 0),
    row("SESSION.END", W, 3, "0" * 16, "STATUS", "done", "META", "CACHE"),
    row("SESSION.END", RW, 3, "0" * 16, "CACHE", OTHER, "PROMPT", "CACHE", other=W),
    row("SESSION.STOP", W, 3),
]
INTERNAL = [
    ("LLMCACHE._CREATE", "head"),
    ("LLMCACHE._ENTRY", "entry"),
    ("LLMCACHE._CONFIG", "TTL", 5),
    ("LLMCACHE._EPOCH", "ALL", "", 1, "HARD"),
    ("LLMCACHE._AUDIT", "state"),
    ("LLMCACHE._LABEL", 0, 9000, 0, 1),
    ("LLMCACHE._STALE",),
    ("KVCHUNK._CREATE", "head"),
    ("KVCHUNK._PUT", "header", 0, "x"),
    ("SESSION._APPLY", "KEEP", "x"),
    ("SESSION._LOAD", "x"),
]
EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)

FILL = {
    "LLMCACHE": [
        ["LLMCACHE.CREATE", KEY, "MODEL", "m", "MAXERROR", "0.05", "COLD", "STATIC", "NEARMISSES", 10],
        ["LLMCACHE.SETSEM", KEY, "PROMPT", "p", "RESPONSE", SECRET, *V, "ID", "one", "TAGS", 1, SECRET, "META", f'{{"text":"{SECRET}"}}'],
        ["LLMCACHE.GETSEM", KEY, "PROMPT", SECRET, "VALUES", 2, 1, 1],
    ],
    "RAG": [["RAG.CREATE", KEY, "MODEL", "m"], ["RAG.ADD", KEY, "one", *V, "TEXT", SECRET]],
    "EMBCACHE": [["EMBCACHE.CREATE", KEY, "MODEL", "m", "DIM", 2], ["EMBCACHE.SET", KEY, "TEXT", "t", *V]],
    "KVCHUNK": [
        ["KVCHUNK.CREATE", KEY, "CHUNK", 4, "MODEL", "m"],
        ["KVCHUNK.PUT", KEY, "TOKENS", TOKENS, "PAYLOAD", 1, SECRET, "META", f'{{"text":"{SECRET}"}}'],
    ],
    "SESSION": [
        ["SESSION.APPEND", KEY, "MSG", "user", SECRET, *V, "MSG", "user", SECRET, "ID", "x", "META", f'{{"text":"{SECRET}"}}'],
        ["SESSION.BEGIN", KEY, "assistant"],
    ],
    "OWNER": [["SESSION.APPEND", OTHER, "OWNER", KEY, "MSG", "user", SECRET]],
}
# Patterns of a user, and what they let it do with the key and with the other.
USERS = {
    "reads": ([f"%R~{KEY}", f"%R~{OTHER}"], {R}, {R}),
    "writes": ([f"%W~{KEY}", f"%W~{OTHER}"], {W}, {W}),
    "both": ([f"~{KEY}", f"~{OTHER}"], {R, W}, {R, W}),
    "all": (["~*"], {R, W}, {R, W}),
    "one of two": ([f"~{KEY}"], {R, W}, set()),
    "other of two": ([f"~{OTHER}"], set(), {R, W}),
    "none": (["~else"], set(), set()),
}
EACH_USER = pytest.mark.parametrize("user", USERS)


@pytest.fixture
def server(emptied):
    return emptied


def fill(server, kind: str) -> None:
    with server.wire() as wire:
        wire("FLUSHALL")
        for call in FILL[kind]:
            assert not isinstance(wire(*call), Failure), call


def rules(server, user: str) -> None:
    """A user who may run every command, on these keys, and may use no channel."""
    with server.wire() as admin:
        assert admin("ACL", "SETUSER", "app", "reset", "on", ">secret", "resetchannels", "+@all", *USERS[user][0]) == "OK"


def connect(server, resp: int):
    wire = server.wire(resp)
    assert wire("AUTH", "app", "secret") == "OK"
    return wire


def allowed(row: Row, user: str) -> bool:
    _, first, other = USERS[user]
    return set(row.first) <= first and set(row.other) <= other


def refused(reply) -> bool:
    in_script = ("can't access at least one of the keys", "ACL failure in script")
    return isinstance(reply, Failure) and (reply.word in ("NOPERM", "EXECABORT") or any(words in reply.text for words in in_script))


def texts(reply):
    match reply:
        case Failure():
            yield reply.text
        case bytes():
            yield reply.decode(errors="replace")
        case Pairs() | list() | tuple():
            for part in reply:
                yield from texts(part)
        case _:
            yield str(reply)


def plain(wire, call):
    return wire(*call)


def transaction(wire, call):
    assert wire("MULTI") == "OK"
    queued = wire(*call)
    done = wire("EXEC")
    return queued if isinstance(queued, Failure) else done[0] if isinstance(done, list) else done


def script(wire, call):
    return wire("EVAL", "return redis.call(unpack(ARGV))", 0, *call)


WAYS = {"plain": plain, "MULTI": transaction, "EVAL": script}


def test_every_command_has_a_row(server):
    with server.wire() as wire:
        listed = {name.decode().upper() for name in wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")}
    assert {row.command for row in ROWS} | {call[0] for call in INTERNAL} == listed


@EVERY
@EACH_USER
def test_what_a_user_may_do(server, row, user):
    rules(server, user)
    may, is_read = allowed(row, user), R in USERS[user][1]
    for resp in (2, 3):
        for way, run in WAYS.items():
            fill(server, row.kind)
            before = server.digest()
            with connect(server, resp) as wire:
                reply = run(wire, row.call)
            assert refused(reply) == (not may), (way, resp, reply)
            if not may:
                assert server.digest() == before, (way, resp)
            if not is_read:
                assert not any(SECRET in text for text in texts(reply)), (way, resp, reply)


@EVERY
def test_who_may_only_read_changes_nothing_that_others_rely_on(server, row):
    rules(server, "reads")
    fill(server, row.kind)
    watched = {"KVCHUNK": ("INFO", "leases"), "LLMCACHE": ("INFO", "leases")}.get(row.kind)

    def seen(admin):
        fields = admin(f"{row.kind}.{watched[0]}", KEY)
        return dict(zip(fields[::2], fields[1::2]))[watched[1].encode()]

    with server.wire() as admin, connect(server, 2) as wire:
        digest, expected = server.digest(), seen(admin) if watched else None
        verified = admin("KVCHUNK.VERIFY", KEY, "COUNT", 1)[3] if row.kind == "KVCHUNK" else 0
        wire(*row.call)
        assert server.digest() == digest
        if watched:
            assert seen(admin) == expected
        if row.kind == "KVCHUNK":
            assert admin("KVCHUNK.VERIFY", KEY, "COUNT", 1)[3] == verified, "the walk of VERIFY is where it was"


@EVERY
def test_the_server_knows_beforehand(server, row):
    """GETKEYSANDFLAGS names the keys and the use, ACL DRYRUN says what will happen, ACL LOG what did."""
    with server.wire() as admin:
        told = admin("COMMAND", "GETKEYSANDFLAGS", *row.call)
        keys = {key.decode(): {str(flag) for flag in flags} for key, flags in told}
        assert [key for key, _ in told] == [KEY.encode()] + ([OTHER.encode()] if row.other else [])
        for key, needs in ((KEY, row.first), (OTHER, row.other)):
            if needs:
                assert ("access" in keys[key]) == (R in needs), told
                assert bool({"insert", "update", "delete"} & keys[key]) == (W in needs), told
                assert ("RO" in keys[key]) == (needs == R), told
        assert [key for key, _ in told] == admin("COMMAND", "GETKEYS", *row.call)
    for user in USERS:
        rules(server, user)
        fill(server, row.kind)
        with server.wire() as admin, connect(server, 2) as wire:
            assert (admin("ACL", "DRYRUN", "app", *row.call) == "OK") == allowed(row, user), user
            admin("ACL", "LOG", "RESET")
            wire(*row.call)
            logged = [dict(zip(entry[::2], entry[1::2])) for entry in admin("ACL", "LOG")]
            assert (len(logged) == 1) == (not allowed(row, user)), (user, logged)
            if logged:
                assert logged[0][b"reason"] == b"key" and logged[0][b"object"] in (KEY.encode(), OTHER.encode())


@pytest.mark.parametrize("call", INTERNAL, ids=lambda call: call[0])
@pytest.mark.parametrize("who", ["default", "all", "not dangerous"])
def test_nobody_gives_an_internal_command(server, call, who):
    """Not even a user of all rights, on servers that put modules' commands into no category too."""
    fill(server, "LLMCACHE")
    name, *rest = call
    if who != "default":
        rules(server, "all")
    if who == "not dangerous":
        with server.wire() as admin:
            admin("ACL", "SETUSER", "app", "-@dangerous")
    for resp in (2, 3):
        for run in WAYS.values():
            before = server.digest()
            with connect(server, resp) if who != "default" else server.wire(resp) as wire:
                reply = run(wire, [name, KEY, *rest])
            assert isinstance(reply, Failure), reply
            assert refused(reply) or "NOPERM" in reply.text or "can't run this command" in reply.text, reply
            assert server.digest() == before


def test_grammar_that_the_server_did_not_hear_of_claims_everything(server):
    """A call that its handler refuses for an unknown word is no way past the rules either."""
    rules(server, "reads")
    fill(server, "KVCHUNK")
    with connect(server, 2) as wire:
        assert refused(wire("KVCHUNK.MATCH", KEY, "TOKENS", TOKENS, "NOSUCH", "LEASE", 50))
        assert wire("KVCHUNK.MATCH", KEY, "TOKENS", TOKENS)[0] == 1
