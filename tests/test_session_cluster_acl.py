"""Slots, access control, memory limits, and what the server can tell of the SESSION commands."""

import pytest
from harness.cluster import Cluster
from harness.names import key_slot
from harness.replication import pair
from harness.session import Session, Writer, msg
from harness.wire import Failure

READS = {"window", "range", "get", "len", "info", "recall", "list", "export", "follow"}
STORES = {"append", "edit", "compact", "fork", "load", "begin", "chunk"}
WRITES = {"del", "pop", "trim", "clear", "end", "stop", "expire"}
INTERNAL = {"_apply", "_load"}


def test_flags_say_what_a_command_does(server):
    with server.wire() as wire:
        listed = {name.decode().lower() for name in wire("COMMAND", "LIST", "FILTERBY", "PATTERN", "session.*")}
        assert listed == {f"session.{name}" for name in READS | STORES | WRITES | INTERNAL}
        for name in listed:
            word = name.split(".")[1]
            entry = wire("COMMAND", "INFO", name)[0]
            flags = {str(flag) for flag in entry[2]}
            assert ("readonly" in flags) == (word in READS)
            assert ("write" in flags) == (word not in READS)
            assert ("denyoom" in flags) == (word in STORES | INTERNAL)
            assert ("admin" in flags) == (word in INTERNAL)
            assert entry[3] == 1
            _, docs = wire("COMMAND", "DOCS", name)
            docs = dict(zip(docs[::2], docs[1::2]))
            assert len(docs[b"summary" if b"summary" in docs else "summary"]) > 10


def test_keys_of_commands(server):
    with server.wire() as wire:
        assert wire("COMMAND", "GETKEYS", "SESSION.FORK", "a", "b") == [b"a", b"b"]
        (source, copy) = wire("COMMAND", "GETKEYSANDFLAGS", "SESSION.FORK", "a", "b", "AT", 3)
        assert source[0] == b"a" and {str(flag) for flag in source[1]} == {"RO", "access"}
        assert copy[0] == b"b" and {str(flag) for flag in copy[1]} == {"RW", "insert"}
        assert wire("COMMAND", "GETKEYS", "SESSION.APPEND", "a", "MSG", "user", "x") == [b"a"]
        assert wire("COMMAND", "GETKEYS", "SESSION.LIST", "owner") == [b"owner"]


def test_acl(server):
    session = Session(server.client())
    session.say("secret")
    session.client.execute_command("ZADD", "theirs", 1, "s")
    with server.wire() as admin:
        for user, rules in {
            "reader": ("%R~s", "%R~theirs", "+session.window", "+session.follow", "+session.list"),
            "writer": ("~s", "~s2", "~mine", "%R~theirs", "+@all"),
            "lister": ("~theirs", "+@all"),
        }.items():
            assert admin("ACL", "SETUSER", user, "on", ">pw", *rules) == "OK"
    with server.wire() as wire:
        assert wire("AUTH", "reader", "pw") == "OK"
        assert wire("SESSION.WINDOW", "s")[0] == 2
        assert wire("SESSION.FOLLOW", "s", 1, 0)[0] == b"done"
        assert len(wire("SESSION.LIST", "theirs")) == 1
        assert wire("SESSION.APPEND", "s", "MSG", "user", "x").word == "NOPERM"
        assert wire("SESSION.WINDOW", "other").word == "NOPERM"
    with server.wire() as wire:
        assert wire("AUTH", "writer", "pw") == "OK"
        assert wire("SESSION.APPEND", "s", "OWNER", "mine", "MSG", "user", "x")[0] == [2, 1]
        for owner in ("theirs", "nobodys"):
            assert wire("SESSION.APPEND", "s", "OWNER", owner, "MSG", "user", "y").word == "NOPERM"
        assert wire("SESSION.LEN", "s") == 2
        assert wire("SESSION.FORK", "s", "s2") == 2
        assert wire("SESSION.FORK", "s", "s3").word == "NOPERM"
        seq, token, _ = wire("SESSION.BEGIN", "s", "assistant")
        assert wire("SESSION.END", "s", seq, token, "CACHE", "theircache", "PROMPT", "p").word == "NOPERM"
        script = "return redis.call('SESSION.APPEND', KEYS[1], 'OWNER', ARGV[1], 'MSG', 'user', 'z')"
        told = wire("EVAL", script, 1, "s", "theirs").text
        assert "can't access at least one of the keys" in told or "ACL failure in script" in told
        assert wire("EVAL", script, 1, "s", "mine")[0] == [4, 1]
        wire("MULTI")
        assert wire("SESSION.APPEND", "s", "OWNER", "theirs", "MSG", "user", "x").word == "NOPERM"
        assert wire("EXEC").word == "EXECABORT"
    # A list shows the sessions that its reader may read.
    with server.wire() as wire:
        assert wire("AUTH", "lister", "pw") == "OK"
        assert wire("SESSION.LIST", "theirs") == []
    assert session.client.zrange("theirs", 0, -1) == [b"s"]


def test_slots(fleet):
    cluster = Cluster(fleet, [[(0, 8_191)], [(8_192, 16_383)]])
    low = [f"k{n}" for n in range(1_000) if key_slot(f"k{n}") < 8_192]
    session, other = low[0], low[1]
    with cluster.nodes[0].wire() as wire:
        assert wire("SESSION.APPEND", session, "MSG", "user", "hello", "ID", "a")[0] == [1, 1]
        digest = wire("DEBUG", "DIGEST-VALUE", session)
        refused = [
            ("SESSION.FORK", session, other),
            ("SESSION.APPEND", session, "OWNER", other, "MSG", "user", "x"),
            ("SESSION.END", session, 1, "0" * 16, "CACHE", other, "PROMPT", "p"),
        ]
        for command in refused:
            reply = wire(*command)
            assert isinstance(reply, Failure) and reply.word == "CROSSSLOT", reply
        assert wire("DEBUG", "DIGEST-VALUE", session) == digest
        same = f"{{{session}}}:"
        assert wire("SESSION.FORK", session, same + "fork") == 1
        assert wire("SESSION.APPEND", session, "OWNER", same + "owner", "MSG", "user", "x")[0] == [2, 1]
        assert [row[0] for row in wire("SESSION.LIST", same + "owner")] == [session.encode()]
        seq, token, _ = wire("SESSION.BEGIN", session, "assistant")
        wire("SESSION.CHUNK", session, seq, token, 0, "answer")
        assert wire("SESSION.END", session, seq, token, "CACHE", same + "cache", "PROMPT", "q") == [seq, 6]
        assert wire("LLMCACHE.GET", same + "cache", "PROMPT", "q") == b"answer"


def test_a_session_moves_with_its_slot(fleet):
    cluster = Cluster(fleet, [[(0, 8_191)], [(8_192, 16_383)]])
    name = next(f"s{n}" for n in range(1_000) if key_slot(f"s{n}") < 8_192)
    slot = key_slot(name)
    with cluster.client() as client:
        client("SESSION.APPEND", name, "TTL", 1_000, "MSG", "user", "x" * 50_000, "ID", "a")
        seq, token, _ = client("SESSION.BEGIN", name, "assistant")
        client("SESSION.CHUNK", name, seq, token, 0, "half ")
        with cluster.nodes[0].wire() as reader:
            reader.socket.sendall(
                b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$%d\r\n%s\r\n$1\r\n2\r\n$1\r\n5\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
                % (len(name), name.encode())
            )
            lines = client("SESSION.EXPORT", name)
            cluster.start_move(slot, 0, 1)
            cluster.move_keys(0, 1, cluster.keys_in_slot(0, slot))
            # Who followed is sent on, as if it had just asked.
            assert reader.read().text == f"ASK {slot} 127.0.0.1:{cluster.nodes[1].port}"
        cluster.end_move(slot, 1)
        assert client("SESSION.EXPORT", name) == lines
        assert client("SESSION.CHUNK", name, seq, token, 5, "done") == [9, 0]
        assert client("SESSION.END", name, seq, token) == [seq, 9]
        assert client("SESSION.FOLLOW", name, seq, 5) == [b"done", 9, b"done"]


def test_out_of_memory(server):
    session = Session(server.client())
    session.say(*"abc")
    writer = Writer(session)
    with server.wire() as wire:
        assert wire("CONFIG", "SET", "maxmemory", 1) == "OK"
        for call in (
            ("APPEND", "MSG", "user", "x"), ("EDIT", 1, "x"), ("COMPACT", "UPTO", 1, "x"), ("FORK", "new"), ("BEGIN", "user"),
            ("LOAD", '{"role":"user","content":"x"}'), ("CHUNK", writer.seq, writer.token, 0, "x"),
        ):  # fmt: skip
            assert wire(f"SESSION.{call[0]}", "s", *call[1:]).word == "OOM"
        assert wire("SESSION.WINDOW", "s")[0] == 3
        assert wire("SESSION.END", "s", writer.seq, writer.token) == [writer.seq, 0]
        assert wire("SESSION.DEL", "s", 1) == 1
        assert len(wire("SESSION.POP", "s")) == 1
        assert wire("SESSION.TRIM", "s", "MAXLEN", 1) == 1
        assert wire("SESSION.CLEAR", "s") == 1


def test_the_end_of_a_stream_stores_an_answer_in_the_same_step(server):
    client = server.client()
    session = Session(client)
    writer = Writer(session)
    writer.write("Refunds take 5 days.")
    end = writer.end(tokens=5, cache="faq", prompt="How long?", vector=(1, 0, 0), ex=100)
    assert end == [writer.seq, 20]
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "How long?") == b"Refunds take 5 days."
    hit = client.execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", "how much time?", "VALUES", 3, 1, 0, 0, "RETURN", 2, "response", "ttl")
    hit = dict(zip(hit[::2], hit[1::2])) if isinstance(hit, list) else hit
    assert hit[b"response"] == b"Refunds take 5 days." and 90_000 < hit[b"ttl"] <= 100_000
    # What was stopped or failed is no answer.
    for how in ("error", "stop"):
        writer = Writer(session)
        writer.write("half")
        if how == "stop":
            session.run("STOP", writer.seq)
        writer.end(cache="faq", prompt=how, **({"status": "error"} if how == "error" else {}))
        assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", how) is None


def test_the_answer_and_the_end_are_replicated_together(fleet):
    both = pair(fleet, appendonly="yes", appendfsync="always")
    writer = Writer(Session(both.primary.client()))
    writer.write("answer")
    writer.end(cache="faq", prompt="q", vector=(1, 2))
    both.assert_equal()
    theirs = both.replica.client()
    assert theirs.execute_command("LLMCACHE.GET", "faq", "PROMPT", "q") == b"answer"
    assert Session(theirs).get(writer.seq)["status"] == b"done"
    digest = both.primary.digest()
    both.primary.kill9()
    both.primary.start()
    assert both.primary.digest() == digest
    assert both.primary.client().execute_command("LLMCACHE.GET", "faq", "PROMPT", "q") == b"answer"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lfu", "allkeys-random"])
def test_eviction_takes_whole_sessions(fleet, policy):
    server = fleet.launch(maxmemory="12mb", maxmemory_policy=policy)
    client = server.client()
    for number in range(300):
        Session(client, f"s{number}").append(*(msg("user", "text " * 100) for _ in range(200)), ttl=1_000)
    info = server.info("stats")
    assert int(info["evicted_keys"]) > 50
    client.config_set("maxmemory", 0)
    left = client.keys("s*")
    assert left
    for key in left:
        assert Session(client, key).run("LEN") == 200
