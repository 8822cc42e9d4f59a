"""SESSION refuses what it cannot use, and what it refuses leaves nothing."""

import random

import pytest
from harness.dump import Payload, damaged, resealed, sections
from harness.primary import Primary
from harness.session import Session, Writer, msg
from harness.wire import Failure

MIB = 1 << 20
ABSENT = "absent"


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def there(server) -> Session:
    """A session with a vector of two dimensions, an open stream and an ended one."""
    session = Session(server.client())
    session.append(msg("user", "a", id="x", vector=(1, 0)), msg("tool", "b", pin=True), ttl=1_000)
    Writer(session, id="open").write("0123456789")
    ended = Writer(session, id="ended")
    ended.write("text")
    ended.end()
    session.client.set("text", "not a session")
    session.client.execute_command("LLMCACHE.SETSEM", "dim3", "PROMPT", "p", "RESPONSE", "r", "VALUES", 3, 1, 0, 0)
    session.client.execute_command("LLMCACHE.CREATE", "small", "MAXMEMORY", 100)
    return session


TOKEN = "0123456789abcdef"
REFUSED = {
    # Roles.
    "a role with a blank": ("ERR", "APPEND", "MSG", "us er", "x"),
    "an empty role": ("ERR", "APPEND", "MSG", "", "x"),
    "a long role": ("ERR", "APPEND", "MSG", "r" * 33, "x"),
    "a binary role": ("ERR", "APPEND", "MSG", b"\xff\x00", "x"),
    "a role of a list": ("ERR", "WINDOW", "ROLES", 1, "us er"),
    "a role of a stream": ("ERR", "BEGIN", "us\ner"),
    "a role of a summary": ("ERR", "COMPACT", "UPTO", 1, "x", "ROLE", ""),
    # Numbers.
    "negative MAXLEN": ("ERR", "APPEND", "MAXLEN", -1, "MSG", "user", "x"),
    "negative MAXTOKENS": ("ERR", "APPEND", "MAXTOKENS", -1, "MSG", "user", "x"),
    "negative TTL": ("ERR", "APPEND", "TTL", -1, "MSG", "user", "x"),
    "negative IFSEQ": ("ERR", "APPEND", "IFSEQ", -1, "MSG", "user", "x"),
    "negative TOKENS": ("ERR", "APPEND", "MSG", "user", "x", "TOKENS", -1),
    "TOKENS past 2^32": ("ERR", "APPEND", "MSG", "user", "x", "TOKENS", 1 << 32),
    "TTL past its bound": ("ERR", "APPEND", "TTL", 10**12, "MSG", "user", "x"),
    "a fraction": ("ERR", "APPEND", "MAXLEN", "1.5", "MSG", "user", "x"),
    "negative budget": ("ERR", "WINDOW", "TOKENS", -1),
    "LAST 0": ("ERR", "WINDOW", "LAST", 0),
    "TURNS 0": ("ERR", "WINDOW", "TURNS", 0),
    "a negative place": ("ERR", "RANGE", -1, 5),
    "COUNT 0": ("ERR", "RANGE", 1, 5, "COUNT", 0),
    "place 0": ("ERR", "GET", "SEQ", 0),
    "place 0 to remove": ("ERR", "DEL", 1, 0),
    "negative POP": ("ERR", "POP", "COUNT", -2),
    "negative TRIM": ("ERR", "TRIM", "MAXLEN", -1),
    "TRIM MINSEQ 0": ("ERR", "TRIM", "MINSEQ", 0),
    "RECALL COUNT 0": ("ERR", "RECALL", "VALUES", 2, 1, 0, "COUNT", 0),
    "RECALL past its bound": ("ERR", "RECALL", "VALUES", 2, 1, 0, "COUNT", 1_001),
    "AROUND past its bound": ("ERR", "RECALL", "VALUES", 2, 1, 0, "AROUND", 101),
    "SIMILARITY 2": ("ERR", "RECALL", "VALUES", 2, 1, 0, "SIMILARITY", 2),
    "LEASE 0": ("ERR", "BEGIN", "assistant", "LEASE", 0),
    "negative BLOCK": ("ERR", "FOLLOW", 3, 0, "BLOCK", -1),
    "MAX 0": ("ERR", "FOLLOW", 3, 0, "MAX", 0),
    # Syntax.
    "no message": ("ERR", "APPEND", "TTL", 5, "MAXLEN", 5),
    "an unknown option of the session": ("ERR", "APPEND", "FOO", "MSG", "user", "x"),
    "an unknown option of a message": ("ERR", "APPEND", "MSG", "user", "x", "FOO"),
    "a session's option behind a message": ("ERR", "APPEND", "MSG", "user", "x", "MAXLEN", 5),
    "a second message that is bad": ("ERR", "APPEND", "MSG", "user", "x", "MSG", "user", "y", "ID", ""),
    "a message cut short": ("ERR", "APPEND", "MSG", "user", "x", "MSG", "user"),
    "NX and XX": ("ERR", "APPEND", "NX", "XX", "MSG", "user", "x"),
    "MAXLEN twice": ("ERR", "APPEND", "MAXLEN", 1, "MAXLEN", 2, "MSG", "user", "x"),
    "ID twice": ("ERR", "APPEND", "MSG", "user", "x", "ID", "a", "ID", "b"),
    "CALL and RESULT": ("ERR", "APPEND", "MSG", "user", "x", "CALL", "a", "RESULT", "b"),
    "an empty ID": ("ERR", "APPEND", "MSG", "user", "x", "ID", ""),
    "a long ID": ("TOOBIG", "APPEND", "MSG", "user", "x", "ID", "i" * 129),
    "an ID with a line end": ("ERR", "APPEND", "MSG", "user", "x", "ID", "a\nb"),
    "META that is no object": ("ERR", "APPEND", "MSG", "user", "x", "META", "[1]"),
    "META that is no JSON": ("ERR", "APPEND", "MSG", "user", "x", "META", "{"),
    "long META": ("TOOBIG", "APPEND", "MSG", "user", "x", "META", '{"a":"%s"}' % ("x" * 65_536)),
    "1,025 messages": ("TOOBIG", "APPEND", *["MSG", "user", "x"] * 1_025),
    "WINDOW with a word": ("ERR", "WINDOW", "ALL"),
    "a border that is no place": ("ERR", "RANGE", "a", "b"),
    "COMPACT without UPTO": ("ERR", "COMPACT", "1", "x", "y"),
    "TRIM by nothing": ("ERR", "TRIM", "FOO", 1),
    "GET by nothing": ("ERR", "GET", "FOO", 1),
    "RECALL without a vector": ("ERR", "RECALL", "COUNT", 1),
    "END with another STATUS": ("ERR", "END", 3, TOKEN, "STATUS", "open"),
    "END CACHE without PROMPT": ("ERR", "END", 3, TOKEN, "CACHE", "c"),
    "END PROMPT without CACHE": ("ERR", "END", 3, TOKEN, "PROMPT", "p"),
    # What is there.
    "other bytes under a used ID": ("ERR", "APPEND", "MSG", "user", "new", "MSG", "user", "other", "ID", "x"),
    "another role under a used ID": ("ERR", "APPEND", "MSG", "tool", "a", "ID", "x"),
    "the ID of an open stream": ("ERR", "APPEND", "MSG", "assistant", "0123456789", "ID", "open"),
    "an edit of an open stream": ("ERR", "EDIT", 3, "x"),
    "a summary of an open stream": ("ERR", "COMPACT", "UPTO", 4, "x"),
    "64 MiB": ("TOOBIG", "APPEND", "MSG", "user", "first", "MSG", "user", bytes(64 * MIB)),
    "64 MiB as an edit": ("TOOBIG", "EDIT", 1, bytes(64 * MIB)),
    "64 MiB as a part": ("TOOBIG", "CHUNK", 3, TOKEN, 10, bytes(64 * MIB)),
    # Vectors.
    "a vector of another dimension": ("DIMMISMATCH", "APPEND", "MSG", "user", "x", "VALUES", 3, 1, 2, 3),
    "two new dimensions": ("DIMMISMATCH", "APPEND", "MSG", "user", "x", "VALUES", 2, 1, 2, "MSG", "user", "y", "VALUES", 3, 1, 2, 3),
    "an edit of another dimension": ("DIMMISMATCH", "EDIT", 1, "x", "VALUES", 1, 1),
    "a question of another dimension": ("DIMMISMATCH", "RECALL", "VALUES", 3, 1, 2, 3),
    "a vector of zeros": ("BADVECTOR", "APPEND", "MSG", "user", "x", "VALUES", 2, 0, 0),
    "a vector of NaN": ("BADVECTOR", "APPEND", "MSG", "user", "x", "FP32", b"\x00\x00\xc0\x7f" * 2),
    "a vector cut short": ("BADVECTOR", "APPEND", "MSG", "user", "x", "FP32", b"\x00\x00\xc0"),
    # Streams.
    "an offset beyond the end": ("ERR", "FOLLOW", 3, 11),
    "an offset beyond a whole message": ("ERR", "FOLLOW", 1, 2),
    "another token": ("LEASELOST", "CHUNK", 3, TOKEN, 10, "x"),
    "no token": ("LEASELOST", "CHUNK", 3, "", 10, "x"),
    "a token of other characters": ("LEASELOST", "END", 3, "zzzzzzzzzzzzzzzz"),
    "a signed token": ("LEASELOST", "END", 3, "+123456789abcdef"),
    "a part of an ended message": ("LEASELOST", "CHUNK", 4, TOKEN, 4, "x"),
    "a part of a whole message": ("LEASELOST", "CHUNK", 1, TOKEN, 1, "x"),
    "a part of no message": ("ERR", "CHUNK", 77, TOKEN, 0, "x"),
    "END of no message": ("ERR", "END", 77, TOKEN),
    "another role for a stream": ("ERR", "BEGIN", "user", "ID", "open"),
    # Other keys.
    "an owner that is no sorted set": ("WRONGTYPE", "APPEND", "OWNER", "text", "MSG", "user", "x"),
    "an owner that is the session": ("ERR", "APPEND", "OWNER", "s", "MSG", "user", "x"),
    "FORK onto a key that exists": ("ERR", "FORK", "text"),
    "FORK onto itself": ("ERR", "FORK", "s"),
    # Lines.
    "a line that is no JSON": ("ERR", "LOAD", '{"role":"user","content":"fine"}', "no"),
    "a line without content": ("ERR", "LOAD", '{"role":"user"}'),
    "a line with an unknown member": ("ERR", "LOAD", '{"role":"user","content":"x","name":"y"}'),
    "a line of a place that is taken": ("ERR", "LOAD", '{"role":"user","content":"x","seq":2}'),
    "a line with a used ID": ("ERR", "LOAD", '{"role":"user","content":"x","id":"x"}'),
    "a line of another dimension": ("DIMMISMATCH", "LOAD", '{"role":"user","content":"x","vector_f16_hex":"003c"}'),
    # Internal commands.
    "a change of noise": ("NOPERM", "_APPLY", "KEEP", b"\x00" * 40),
    "a deadline of noise": ("NOPERM", "_APPLY", "SOON", b""),
    "a session of noise": ("NOPERM", "_LOAD", b"\x00" * 40),
    "no session": ("NOPERM", "_LOAD", b""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_changed(server, there, name):
    word, command, *arguments = REFUSED[name]
    digest = server.digest()
    ttl = there.client.pexpiretime("s")
    with server.wire() as wire:
        reply = wire(f"SESSION.{command}", "s", *arguments)
    assert isinstance(reply, Failure), reply
    assert reply.word == word, reply.text
    assert len(reply.text) > len(word) + 8, "it says why"
    assert (server.digest(), there.client.pexpiretime("s")) == (digest, ttl)


@pytest.mark.parametrize("name", [n for n, (word, *_) in REFUSED.items() if word in ("TOOBIG", "BADVECTOR", "ERR")])
def test_a_refused_command_makes_no_session(server, name):
    _, command, *arguments = REFUSED[name]
    with server.wire() as wire:
        wire(f"SESSION.{command}", ABSENT, *arguments)
        # What is refused because of what is in a session is fine, or nothing, where there is none.
        fine = command in ("APPEND", "BEGIN", "LOAD") and "ID" in arguments or "line" in name or "owner" in name
        if not fine:
            assert wire("EXISTS", ABSENT) == 0


def test_noise_from_a_primary_is_refused(server, there):
    internal = [arguments for word, *arguments in REFUSED.values() if word == "NOPERM"]
    dump = there.client.dump("s")
    with Primary(server) as primary:
        primary.send(("RESTORE", "s", 0, dump))
        digest = server.digest()
        for command, *arguments in internal:
            assert primary.refused([(f"SESSION.{command}", "s", *arguments)]) == 1
        assert server.digest() == digest


def test_keys_of_other_types(server, there):
    with server.wire() as wire:
        for call in (
            ("APPEND", "MSG", "user", "x"), ("WINDOW",), ("RANGE", "-", "+"), ("GET", "SEQ", 1), ("LEN",), ("INFO",),
            ("EDIT", 1, "x"), ("DEL", 1), ("POP",), ("TRIM", "MAXLEN", 0), ("CLEAR",), ("COMPACT", "UPTO", 1, "x"),
            ("RECALL", "VALUES", 1, 1), ("FORK", "new"), ("LIST",), ("EXPORT",), ("LOAD", '{"role":"user","content":"x"}'),
            ("BEGIN", "user"), ("CHUNK", 1, TOKEN, 0, "x"), ("FOLLOW", 1, 0), ("END", 1, TOKEN), ("STOP", 1),
        ):  # fmt: skip
            reply = wire(f"SESSION.{call[0]}", "text", *call[1:])
            assert isinstance(reply, Failure) and reply.word == "WRONGTYPE", (call, reply)
        assert wire("GET", "text") == b"not a session"
        assert wire("GET", "s").word == "WRONGTYPE"
        assert wire("SESSION.LIST", "s").word == "WRONGTYPE"


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("DIMMISMATCH", ("CACHE", "dim3", "PROMPT", "p2", "VALUES", 2, 1, 0)),
        ("TOOBIG", ("CACHE", "small", "PROMPT", "p")),
        ("WRONGTYPE", ("CACHE", "text", "PROMPT", "p")),
        ("ERR", ("CACHE", "s", "PROMPT", "p")),
        ("ERR", ("CACHE", "c", "PROMPT", "p", "EX", 0)),
        ("ERR", ("CACHE", "a}b", "PROMPT", "p")),
    ],
)
def test_an_end_whose_cache_refuses_ends_nothing(server, there, word, options):
    writer = Writer(there)
    writer.write("answer")
    digest = server.digest()
    with server.wire() as wire:
        reply = wire("SESSION.END", "s", writer.seq, writer.token, *options)
    assert isinstance(reply, Failure) and reply.word == word, reply
    assert server.digest() == digest
    assert writer.end() == [writer.seq, 6]


def test_limits_of_streams(server):
    session = Session(server.client())
    writers = [Writer(session) for _ in range(64)]
    with server.wire() as wire:
        assert wire("SESSION.BEGIN", "s", "user").word == "BUSY"
        part = bytes(8 * MIB)
        for at in range(4):
            assert wire("SESSION.CHUNK", "s", 1, writers[0].token, at * 8 * MIB, part) == [(at + 1) * 8 * MIB, 0]
        assert wire("SESSION.CHUNK", "s", 1, writers[0].token, 32 * MIB, "x").word in ("TOOBIG", "ERR")
        assert wire("SESSION.LEN", "s") == 64
        assert wire("SESSION.END", "s", 1, writers[0].token) == [1, 32 * MIB]
        assert len(wire("SESSION.GET", "s", "SEQ", 1)[5]) == 32 * MIB


def test_too_many_roles(server):
    session = Session(server.client())
    session.append(*(msg(f"r{n}", "x") for n in range(64)))
    with server.wire() as wire:
        assert wire("SESSION.APPEND", "s", "MSG", "r64", "x").word == "TOOBIG"
        assert wire("SESSION.BEGIN", "s", "r64").word == "TOOBIG"
        assert wire("SESSION.LEN", "s") == 64
        assert wire("SESSION.APPEND", "s", "MSG", "assistant", "x")[1] == 65


@pytest.fixture
def lenient(fleet):
    """A server that leaves the checksum of a payload to the module."""
    server = fleet.launch(rdbcompression="no")
    with server.wire() as wire:
        assert wire("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1) == "OK"
    return server


@pytest.mark.parametrize("seal", ["resealed", "as is"])
def test_damaged_payloads(lenient, seal):
    """A damaged payload is refused, or is a session that all commands can use; the server lives."""
    session = Session(lenient.client())
    session.append(msg("user", "a" * 300, id="x", vector=(1, 0), meta={"a": 1}), msg("tool", "b", pin=True, result="c"))
    session.append(msg("assistant", "c", call="d", id="01234567-89ab-cdef-0123-456789abcdef"))
    Writer(session).write("part")
    payload = Payload.parse(session.client.dump("s"))
    where = sections(payload.body)
    assert len(where) == 2
    rng = random.Random(len(seal))
    restored = refused = 0
    with lenient.wire() as wire:
        for _ in range(1_500):
            body = damaged(payload.body, rng)
            if seal == "resealed":
                body = resealed(body, [(start, end) for start, end in where if end <= len(body)])
            reply = wire("RESTORE", "d", 0, payload.with_body(body), "REPLACE")
            if isinstance(reply, Failure):
                refused += 1
                continue
            restored += 1
            for call in (
                ("WINDOW", "TOKENS", 50, "PAIRS"), ("EXPORT",), ("INFO",), ("RECALL", "VALUES", 2, 1, 0),
                ("APPEND", "MSG", "user", "x"), ("COMPACT", "UPTO", 1, "y"), ("STOP", 4), ("POP",),
            ):  # fmt: skip
                wire(f"SESSION.{call[0]}", "d", *call[1:])
            assert wire("DEBUG", "DIGEST-VALUE", "d")
        digest = lenient.digest()
        assert wire("DEBUG", "RELOAD") == "OK"
        assert lenient.digest() == digest
    assert refused > 100
    assert restored > 20 or seal == "as is"


def test_batches_have_a_limit_of_bytes_and_one_message_alone_is_free_of_it(server):
    """What is taken in at once is bounded; it is refused before anything is done."""
    half = "x" * (1 << 20)
    line = '{"role":"user","content":"%s"}' % half
    with server.wire() as wire:
        for command in (
            ("SESSION.APPEND", "s", "MSG", "user", half, "MSG", "user", half, "MSG", "user", "x"),
            ("SESSION.APPEND", "s", "MSG", "user", half, "MSG", "user", "x", "META", '{"a":"%s"}' % half),
            ("SESSION.APPEND", "s", *["MSG", "user", "x", "FP32", b"\0\0\x80?" * 16_384] * 33),
            ("SESSION.LOAD", "s", line, line),
            ("SESSION.LOAD", "s", f"{line}\n{line}"),
            ("SESSION.APPEND", "s", *["MSG", "user", "x"] * 1_025),
            ("SESSION.LOAD", "s", *['{"role":"user","content":"x"}'] * 1_025),
        ):
            reply = wire(*command)
            assert isinstance(reply, Failure) and reply.word == "TOOBIG", (command[:3], reply)
            assert "are accepted" in reply.text
        assert wire("DBSIZE") == 0
        assert wire("SESSION.APPEND", "s", "MSG", "user", half * 3)[-2] == 1
        exported = wire("SESSION.EXPORT", "s")
        assert wire("SESSION.LOAD", "copy", exported[-1] if isinstance(exported, list) else exported) == 1
