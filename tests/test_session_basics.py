"""SESSION: messages in, windows out, changes, lists of an owner, copies."""

import json
import time

import pytest
import redis
from harness.session import Session, msg
from harness.waiting import wait_until


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def session(server, resp) -> Session:
    return Session(server.client(resp))


def test_append_answers_places_length_and_tokens(session):
    assert session.append(msg("system", "be kind", tokens=3), msg("user", "hello")) == [[1, 1], [2, 1], 2, 5]
    assert session.append(msg("assistant", "hi", tokens=1)) == [[3, 1], 3, 6]
    assert session.run("LEN") == 3
    assert [(m.seq, m.role, m.payload, m.tokens) for m in session.range()] == [
        (1, "system", b"be kind", 3),
        (2, "user", b"hello", 2),
        (3, "assistant", b"hi", 1),
    ]
    assert session.get(2)["estimated"] == 1
    assert session.get(3)["estimated"] == 0


def test_a_payload_is_any_bytes(session):
    payload = bytes(range(256)) * 40
    session.append(msg("tool", payload), msg("tool", b""))
    assert session.payloads() == [payload, b""]


def test_the_same_id_again_is_a_duplicate(session):
    first = session.append(msg("user", "a", id="x"), msg("user", "b", id="y"))
    assert first == [[1, 1], [2, 1], 2, 2]
    assert session.append(msg("user", "a", id="x"), msg("user", "c", id="z")) == [[1, 0], [3, 1], 3, 3]
    assert session.append(msg("user", "d", id="w"), msg("user", "d", id="w")) == [[4, 1], [4, 0], 4, 4]
    with pytest.raises(redis.ResponseError, match="says something else"):
        session.append(msg("user", "new"), msg("user", "other", id="x"))
    assert session.run("LEN") == 4
    # A request that was answered before is answered again, whatever became of its conditions.
    assert session.append(msg("user", "a", id="x"), ifseq=0, nx=True) == [[1, 0], 4, 4]


def test_conditions(session):
    assert session.append(msg("user", "a"), xx=True) is None
    assert session.run("LEN") == 0 and not session.client.exists("s")
    assert session.append(msg("user", "a"), nx=True, ifseq=0) is not None
    assert session.append(msg("user", "b"), nx=True) is None
    assert session.append(msg("user", "b"), ifseq=0) is None
    assert session.append(msg("user", "b"), ifseq=1, xx=True) == [[2, 1], 2, 2]
    session.run("CLEAR")
    assert session.append(msg("user", "c"), ifseq=2) is None
    assert session.append(msg("user", "c"), ifseq=0) == [[3, 1], 1, 1]


def test_the_deadline_slides_with_each_append(session):
    session.say("a", ttl=100)
    assert 99_000 < session.client.pttl("s") <= 100_000
    session.run("WINDOW")
    session.say("b", ttl=50)
    assert 49_000 < session.client.pttl("s") <= 50_000
    session.say("b")
    assert 49_000 < session.client.pttl("s") <= 50_000
    # A deadline that the user set stays: see test_session_deadlines.py.
    session.client.pexpire("s", 5_000)
    session.say("b")
    assert session.client.pttl("s") <= 5_000
    session.say("b", ttl=100)
    assert session.client.pttl("s") > 99_000
    session.say("c", ttl=0)
    assert session.client.pttl("s") == -1
    session.client.pexpire("s", 5_000)
    session.say("d")
    assert session.client.pttl("s") <= 5_000


def test_trims_spare_pinned_messages(session):
    session.append(msg("system", "rules", pin=True, tokens=10))
    session.say(*"abcdefgh")
    assert session.append(msg("user", "i", tokens=1), maxlen=4) == [[10, 1], 4, 13]
    assert session.payloads() == [b"rules", b"g", b"h", b"i"]
    session.append(msg("user", "j", tokens=1), maxtokens=12)
    assert session.payloads() == [b"rules", b"i", b"j"]
    assert session.run("TRIM", "MINSEQ", 11) == 1
    assert session.run("TRIM", "MAXTOKENS", 100) == 0
    assert session.run("TRIM", "MAXLEN", 0) == 1
    assert session.payloads() == [b"rules"]
    assert session.run("CLEAR") == 1
    assert session.run("LEN") == 0 and session.client.exists("s")


def test_window_by_tokens(session):
    for number in range(1, 11):
        session.append(msg("user", str(number), tokens=number))
    window = session.window(tokens=27)
    assert (window.tokens, window.first, window.more, window.seqs) == (27, 8, True, [8, 9, 10])
    # A message that does not fit ends the window, though an older one would fit.
    assert session.window(tokens=26).seqs == [9, 10]
    assert session.window(tokens=9).seqs == []
    assert session.window(tokens=0).more
    everything = session.window()
    assert (everything.tokens, everything.first, everything.more) == (55, 1, False)
    assert session.window(last=3).seqs == [8, 9, 10]
    assert session.window(last=3, tokens=19).seqs == [9, 10]
    assert session.window(roles_=["tool"]).messages == []


def test_pinned_messages_count_first(session):
    session.append(msg("system", "a", pin=True, tokens=5), *(msg("user", "x", tokens=4) for _ in range(5)))
    session.append(msg("system", "b", pin=True, tokens=6), msg("user", "y", tokens=1))
    assert session.window(tokens=16).seqs == [1, 6, 7, 8]
    assert session.window(tokens=12).seqs == [1, 7, 8]
    assert session.window(last=3).seqs == [1, 7, 8]
    only_newest_pin = session.window(tokens=8)
    assert (only_newest_pin.seqs, only_newest_pin.tokens, only_newest_pin.first) == ([7], 6, 0)
    assert only_newest_pin.more


def test_turns_are_whole(session):
    session.say("q1")
    session.say("a1", "a1b", role="assistant")
    session.say("q2")
    session.say("a2", role="assistant")
    assert session.window(turns=1).seqs == [4, 5]
    assert session.window(turns=2).seqs == [1, 2, 3, 4, 5]
    assert session.window(turns=2, tokens=3).seqs == [4, 5]


def test_pairs_are_never_split(session):
    session.append(
        msg("user", "q", tokens=1),
        msg("assistant", "call", call="c1", tokens=1),
        msg("tool", "r1", result="c1", tokens=1),
        msg("tool", "r2", result="c1", tokens=1),
        msg("assistant", "done", tokens=1),
    )
    for last in range(1, 6):
        seqs = session.window(last=last, pairs=True).seqs
        assert seqs == ([5] if last < 4 else [2, 3, 4, 5] if last == 4 else [1, 2, 3, 4, 5])
    session.run("DEL", 2)
    assert session.window(pairs=True).seqs == [1, 5]
    assert session.window().seqs == [1, 3, 4, 5]


def test_a_window_as_json(session):
    texts = ["plain", 'quote " \\ and é', "line\nbreak\x01" * 20, "x" * 1_000]
    session.append(*(msg("user", text, tokens=1) for text in texts), msg("tool", b"\xff\x00", result="c", tokens=1))
    tokens, first, more, text = session.run("WINDOW", "LAST", 4, "JSON")
    assert (tokens, first, more) == (4, 2, 1)
    assert json.loads(text) == [
        *({"role": "user", "content": content} for content in texts[1:]),
        {"role": "tool", "content_hex": "ff00", "result": "c"},
    ]
    assert session.run("WINDOW", "TOKENS", 0, "JSON")[3] == b"[]"


def test_range(session):
    session.say(*"abcdef")
    session.append(msg("tool", "g", meta={"a": 1}))
    session.run("DEL", 3)
    assert [m.seq for m in session.range(2, 5)] == [2, 4, 5]
    assert [m.seq for m in session.range(2, "+", count=2)] == [2, 4]
    assert [m.seq for m in session.range("-", 5, rev=True, count=2)] == [5, 4]
    assert [m.seq for m in session.range(roles_=["tool"])] == [7]
    assert session.range(7, 7)[0].extra == (("meta", b'{"a": 1}'),)
    assert session.range(5, 2) == []


def test_get_by_place_and_id(session):
    session.append(msg("assistant", "p", id="i", tokens=2, meta={"k": [1]}, pin=True, call="c"))
    session.append(msg("tool", "r", result="c", vector=(1, 0, 0)))
    assert session.get(1) == session.get(id="i")
    assert session.get(1) == {
        **{"seq": 1, "role": b"assistant", "payload": b"p", "tokens": 2, "estimated": 0, "id": b"i"},
        **{"meta": b'{"k": [1]}', "call": b"c", "result": None, "pinned": 1, "summary": 0},
        **{"status": b"whole", "dim": 0},
    }
    assert (session.get(2)["result"], session.get(2)["dim"]) == (b"c", 3)
    assert session.get(3) is None
    assert session.get(id="nobody") is None


def test_edit_del_pop(session):
    session.append(msg("user", "a", id="i", tokens=5, vector=(1, 2)), msg("user", "b"), msg("user", "c"))
    assert session.run("EDIT", 1, "longer text") == 1
    assert (session.get(1)["payload"], session.get(1)["tokens"], session.get(1)["dim"]) == (b"longer text", 3, 0)
    assert session.get(id="i")["seq"] == 1
    assert session.run("EDIT", 2, "B", "TOKENS", 9, "VALUES", 2, 1, 0) == 1
    assert session.info()["tokens"] == 13
    assert session.run("EDIT", 9, "x") == 0
    assert session.run("DEL", 2, 2, 77) == 1
    assert [m[2] for m in session.run("POP")] == [b"c"]
    assert [m[2] for m in session.run("POP", "COUNT", 5)] == [b"longer text"]
    assert session.run("POP") == []
    assert session.say("next") == [4]
    assert session.get(id="i") is None


def test_compact(session):
    session.append(msg("system", "rules", pin=True, tokens=2))
    session.append(*(msg("user", str(n), tokens=10) for n in range(6)))
    assert session.run("COMPACT", "UPTO", 5, "in short", "TOKENS", 4, "IFSEQ", 6) is None
    assert session.run("COMPACT", "UPTO", 5, "in short", "TOKENS", 4, "IFSEQ", 7) == [4, 62, 26]
    assert [(m.seq, m.role, m.payload) for m in session.range()] == [
        (1, "system", b"rules"),
        (5, "system", b"in short"),
        (6, "user", b"4"),
        (7, "user", b"5"),
    ]
    assert session.get(5)["summary"] == 1
    # Sent again it changes nothing.
    assert session.run("COMPACT", "UPTO", 5, "in short", "TOKENS", 4) == [1, 26, 26]
    assert session.run("COMPACT", "UPTO", 1, "nothing to stand for") == [0, 26, 26]
    assert session.run("COMPACT", "UPTO", 7, "all", "ROLE", "developer")[0] == 3
    assert session.range()[-1].role == "developer"


def test_recall(session):
    session.append(
        msg("user", "north", vector=(0, 1)),
        msg("assistant", "east", vector=(1, 0)),
        msg("user", "north-east", vector=(1, 1)),
        msg("user", "nowhere"),
    )
    (best,) = session.run("RECALL", "VALUES", 2, 0, 3)
    assert float(best[0]) == 1.0 and best[1][2] == b"north"
    found = session.run("RECALL", "VALUES", 2, 0, 1, "COUNT", 9, "SIMILARITY", 0.5)
    assert [hit[1][2] for hit in found] == [b"north", b"north-east"]
    found = session.run("RECALL", "VALUES", 2, 0, 1, "COUNT", 9, "ROLES", 1, "assistant")
    assert [hit[1][2] for hit in found] == [b"east"]
    ((_, middle, before, after),) = session.run("RECALL", "VALUES", 2, 1, 0, "AROUND", 1)
    assert (middle[2], before[0][2], after[0][2]) == (b"east", b"north", b"north-east")
    ((_, _, before, after),) = session.run("RECALL", "VALUES", 2, 0, 1, "AROUND", 10)
    assert (len(before), len(after)) == (0, 3)
    assert session.run("RECALL", "VALUES", 2, 0, 1, "COUNT", 3)[2][1][2] == b"east"


def test_fork_is_a_session_of_its_own(session):
    session.append(msg("user", "a", id="i"), msg("user", "b"), msg("user", "c"), ttl=100)
    assert session.run("FORK", "t", "AT", 2) == 2
    other = Session(session.client, "t")
    assert other.payloads() == [b"a", b"b"]
    assert other.say("d") == [3]
    assert session.payloads() == [b"a", b"b", b"c"]
    assert other.client.pttl("t") > 99_000
    assert other.get(id="i")["seq"] == 1
    with pytest.raises(redis.ResponseError, match="exists"):
        session.run("FORK", "t")
    with pytest.raises(redis.ResponseError, match="no such session"):
        Session(session.client, "absent").run("FORK", "u")
    assert not session.client.exists("u")


def test_list_of_an_owner(session):
    client = session.client
    for number in range(5):
        Session(client, f"s{number}").append(msg("user", "hello", tokens=7), owner="alice")
        time.sleep(0.002)
    Session(client, "s1").append(msg("user", "again", tokens=1), owner="alice")
    rows = client.execute_command("SESSION.LIST", "alice")
    assert [row[0] for row in rows] == [b"s1", b"s4", b"s3", b"s2", b"s0"]
    assert rows[0][2:] == [2, 8] and abs(rows[0][1] / 1_000 - time.time()) < 60
    before = rows[2][1]
    page = client.execute_command("SESSION.LIST", "alice", "COUNT", 1, "BEFORE", before)
    assert [row[0] for row in page] == [b"s2"]
    assert client.execute_command("SESSION.LIST", "nobody") == []
    # The dead are passed over, and leave with the next append.
    client.delete("s3")
    Session(client, "s2").append(msg("user", "x"), ttl=1)
    client.pexpire("s2", 1)
    wait_until(lambda: not client.exists("s2"), "s2 expired")
    assert [row[0] for row in client.execute_command("SESSION.LIST", "alice")] == [b"s1", b"s4", b"s0"]
    assert client.zcard("alice") == 5
    Session(client, "s0").append(msg("user", "y"), owner="alice")
    assert client.zrange("alice", 0, -1) == [b"s4", b"s1", b"s0"]


def test_many_dead_sessions_leave_the_list(session):
    client = session.client
    for number in range(60):
        Session(client, f"s{number}").append(msg("user", "hello"), owner="bob")
    client.delete(*(f"s{number}" for number in range(59)))
    assert len(client.execute_command("SESSION.LIST", "bob")) == 1
    Session(client, "s59").append(msg("user", "hello"), owner="bob")
    assert client.zcard("bob") == 1


def test_export_and_load(session):
    session.append(
        msg("system", "rules", pin=True),
        msg("user", b"\xff\x00 raw", id=b"\xfe", meta='{"a":\n 1}'),
        msg("assistant", 'quote " and é', call="c", vector=(3, 4), tokens=5),
        msg("tool", "line\nbreak", result="c", id="01234567-89ab-cdef-0123-456789abcdef"),
    )
    session.run("DEL", 1)
    lines = session.export()
    assert all(b"\n" not in line for line in lines)
    other = Session(session.client, "t")
    assert other.run("LOAD", *lines) == 3
    assert other.export() == lines
    assert other.payloads() == session.payloads()
    third = Session(session.client, "u")
    assert third.run("LOAD", b"\n".join(lines) + b"\n") == 3
    assert third.export() == lines
    assert other.run("LOAD", '{"role":"user","content":"plain"}') == 1
    assert other.range()[-1].payload == b"plain"
    with pytest.raises(redis.ResponseError, match="line 1: seq 2"):
        other.run("LOAD", lines[0])
    with pytest.raises(redis.ResponseError, match="line 2: .*'role'|line 2: a role"):
        other.run("LOAD", '{"role":"user","content":"x"}', '{"content":"x"}')
    assert other.run("LEN") == 4


def test_info(session):
    assert session.info() is None
    session.append(msg("user", "abcd", tokens=4), msg("user", "ab", pin=True, vector=(1, 2, 3)), ttl=60)
    session.begin()
    info = session.info()
    wanted = {"messages": 3, "tokens": 5, "estimated": 1, "pinned": 1, "open": 1, "first_seq": 1, "last_seq": 3}
    assert {name: info[name] for name in wanted} == wanted
    assert (info["next_seq"], info["vectors"], info["dim"], info["ttl"], info["payload_bytes"]) == (4, 1, 3, 60, 6)
    assert 0 < info["bytes"] <= session.client.memory_usage("s")


def test_absent_sessions_read_as_empty(session):
    assert session.run("LEN") == 0
    assert session.range() == []
    assert session.window().messages == []
    assert session.export() == []
    assert session.run("RECALL", "VALUES", 1, 1) == []
    assert session.follow(1) is None
    assert session.run("DEL", 1) == session.run("CLEAR") == session.run("TRIM", "MAXLEN", 0) == 0
    assert session.run("EDIT", 1, "x") == session.run("STOP", 1) == 0
    assert session.run("POP") == []
    assert not session.client.exists("s")


def test_keyspace_events(server):
    client = server.client()
    client.config_set("notify-keyspace-events", "KEA" if server.info()["redis_version"] < "7" else "KEAd")
    heard = client.pubsub()
    heard.psubscribe("__keyspace@0__:s")
    session = Session(client)
    session.append(msg("user", "a"), msg("user", "b"))
    session.run("EDIT", 1, "c")
    session.run("DEL", 1)
    session.run("COMPACT", "UPTO", 2, "short")
    seq, token, _ = session.begin()
    session.run("CHUNK", seq, token, 0, "x")
    session.run("END", seq, token)
    session.run("TRIM", "MAXLEN", 1)
    session.run("CLEAR")
    wanted = ["append", "edit", "del", "compact", "begin", "chunk", "end", "trim", "clear"]
    events: list[str] = []

    def all_heard():
        message = heard.get_message(ignore_subscribe_messages=True, timeout=0.1)
        if message:
            events.append(message["data"].decode())
        return len(events) >= len(wanted)

    wait_until(all_heard, "events")
    assert events == [f"session.{name}" for name in wanted]


def test_type_copy_rename_dump(session):
    client = session.client
    session.append(msg("user", "a", id="i", vector=(1, 2)), msg("assistant", "b" * 20_000))
    writer = session.begin(id="open")
    session.run("CHUNK", writer[0], writer[1], 0, "part")
    assert client.type("s") == b"llm-sessn"
    assert list(client.scan_iter(_type="llm-sessn")) == [b"s"]
    digest = client.execute_command("DEBUG", "DIGEST-VALUE", "s")
    assert client.copy("s", "t")
    client.rename("s", "r")
    client.restore("d", 0, client.dump("r"))
    for name in ("t", "r", "d"):
        assert client.execute_command("DEBUG", "DIGEST-VALUE", name) == digest
        assert Session(client, name).get(id="i")["payload"] == b"a"
    Session(client, "t").say("more")
    assert client.execute_command("DEBUG", "DIGEST-VALUE", "t") != digest
    assert client.execute_command("DEBUG", "DIGEST-VALUE", "d") == digest
    # The producer goes on in whichever key it likes.
    assert Session(client, "d").run("CHUNK", writer[0], writer[1], 4, "more")[0] == 8


def test_in_transactions_and_scripts(session):
    pipe = session.client.pipeline(transaction=True)
    pipe.execute_command("SESSION.APPEND", "s", *msg("user", "a"))
    pipe.execute_command("SESSION.WINDOW", "s")
    appended, window = pipe.execute()
    assert appended[:1] == [[1, 1]] and window[3][0][2] == b"a"
    script = "return redis.call('SESSION.APPEND', KEYS[1], 'MSG', 'user', ARGV[1])"
    assert session.client.eval(script, 1, "s", "b") == [[2, 1], 2, 2]
