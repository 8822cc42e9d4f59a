"""Resumable streams: what readers and writers of one message may rely on, numbered."""

import threading
import time

import pytest
import redis
from harness.replication import pair
from harness.session import Session, Writer, msg
from harness.waiting import wait_until


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def session(server) -> Session:
    return Session(server.client())


def another(server) -> Session:
    """The same session over a connection of its own."""
    return Session(server.client())


def in_background(work):
    """Runs it beside the test; calling the answer waits for the result."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def result(seconds: float = 20.0):
        thread.join(seconds)
        assert results, "it did not end in time"
        return results[0]

    return result


def followers(server) -> int:
    return int(server.info("everything").get("llmcache_session_followers", -1))


def until_followed(server, count: int = 1) -> None:
    wait_until(lambda: followers(server) == count, f"{count} clients follow")


# 1. A stream reads like the text that was written.
def test_01_a_stream_is_the_text_written(server, session):
    writer = Writer(session)
    reader = in_background(lambda: another(server).read_to_end(writer.seq))
    for part in ("1\n", "2\n", "3\n"):
        writer.write(part)
    assert writer.end() == [writer.seq, 6]
    assert reader() == ("done", b"1\n2\n3\n")


# 2. A reader that comes after the end gets all of it.
def test_02_a_late_reader_gets_everything(session):
    writer = Writer(session)
    writer.write("1\n")
    writer.write("2\n")
    writer.end()
    assert session.follow(writer.seq) == ("done", 4, b"1\n2\n")
    assert session.read_to_end(writer.seq) == ("done", b"1\n2\n")


# 3. A reader that comes in the middle gets what there is, then the rest.
def test_03_a_reader_joins_in_the_middle(server, session):
    writer = Writer(session)
    writer.write("1\n")
    late = another(server)
    assert late.follow(writer.seq) == ("open", 2, b"1\n")
    rest = in_background(lambda: late.read_to_end(writer.seq, 2))
    writer.write("2\n")
    writer.end()
    assert rest() == ("done", b"2\n")


# 4. Several readers at different offsets all get all of it.
def test_04_several_readers(server, session):
    writer = Writer(session)
    readers = []
    for part in ("1\n", "2\n", "3\n"):
        readers.append(in_background(lambda: another(server).read_to_end(writer.seq)))
        writer.write(part)
    writer.end()
    assert [reader() for reader in readers] == [("done", b"1\n2\n3\n")] * 3


# 5. Streams of one session are kept apart, also by ID.
def test_05_streams_are_kept_apart(server, session):
    one, two = Writer(session, id="one"), Writer(session, id="two")
    readers = [in_background(lambda w=w: another(server).read_to_end(w.seq)) for w in (one, two)]
    one.write("1\n")
    two.write("writer2\n")
    one.write("2\n")
    one.end()
    two.end()
    assert [reader() for reader in readers] == [("done", b"1\n2\n"), ("done", b"writer2\n")]
    assert session.get(id="two")["payload"] == b"writer2\n"


# 6. Any offset resumes: every byte once, whatever was read before.
def test_06_any_offset_resumes(session):
    writer = Writer(session)
    text = "héllo wörld".encode() * 3
    writer.write(text)
    for offset in range(len(text) + 1):
        assert session.follow(writer.seq, offset) == ("open", len(text), text[offset:])
    with pytest.raises(redis.ResponseError, match="beyond the end"):
        session.follow(writer.seq, len(text) + 1)
    assert session.follow(writer.seq, 3, max=4) == ("open", 7, text[3:7])


# 7. The second one to begin a stream of an ID becomes a reader, before and after the end.
def test_07_the_second_to_begin_is_a_reader(server, session):
    writer = Writer(session, id="answer")
    writer.write("abc")
    assert another(server).begin(id="answer") == (writer.seq, None, 3)
    assert another(server).begin(id="answer", takeover=True) == (writer.seq, None, 3)
    writer.end()
    assert another(server).begin(id="answer", takeover=True) == (writer.seq, None, 3)
    with pytest.raises(redis.ResponseError, match="another role"):
        session.begin("user", id="answer")


# 8. Asking for a stream that never was is a plain null, at once.
def test_08_no_such_stream(session):
    session.say("a")
    assert session.follow(5, block=5_000) is None
    assert Session(session.client, "absent").follow(1, block=5_000) is None
    assert session.get(id="answer") is None


# 9. Writing does not wait for readers: nobody has to be there, and a reader may leave.
def test_09_writing_needs_no_reader(server, session):
    writer = Writer(session)
    with server.wire() as reader:
        reader.socket.sendall(b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$1\r\ns\r\n$1\r\n1\r\n$1\r\n0\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n")
        until_followed(server)
    until_followed(server, 0)
    for number in range(100):
        writer.write(str(number))
    writer.end()
    assert session.payloads() == ["".join(map(str, range(100))).encode()]


# 10. A part sent again is the same part; a gap or other bytes are errors.
def test_10_parts_are_idempotent(session):
    writer = Writer(session)
    writer.write("hello")

    def chunk(offset, data):
        return session.run("CHUNK", writer.seq, writer.token, offset, data)

    assert chunk(0, "hello") == [5, 0]
    assert chunk(2, "ll") == [4, 0]
    assert chunk(4, "o world") == [11, 0]
    with pytest.raises(redis.ResponseError, match="gap"):
        chunk(12, "x")
    with pytest.raises(redis.ResponseError, match="other bytes"):
        chunk(0, "jello")
    assert session.follow(writer.seq) == ("open", 11, b"hello world")


# 11. A killed producer: the text stays, readers are told, another producer goes on.
def test_11_a_silent_producer_is_succeeded(server, session):
    writer = Writer(session, id="answer", lease=150)
    writer.write("half ")
    reader = in_background(lambda: another(server).read_to_end(writer.seq))
    assert reader() == ("abandoned", b"half ")
    assert session.follow(writer.seq, 5) == ("abandoned", 5, b"")
    seq, token, offset = another(server).begin(id="answer")
    assert (seq, token, offset) == (writer.seq, None, 5)
    successor = Writer(another(server), id="answer", takeover=True)
    assert (successor.seq, successor.offset) == (writer.seq, 5)
    reader = in_background(lambda: another(server).read_to_end(writer.seq, 5))
    successor.write("done")
    with pytest.raises(redis.ResponseError, match="^LEASELOST"):
        writer.write("late")
    with pytest.raises(redis.ResponseError, match="^LEASELOST"):
        writer.end()
    successor.end(tokens=2)
    assert reader() == ("done", b"done")
    assert session.payloads() == [b"half done"]


def read_everywhere(session, seq):
    """What the commands say of how a message ends."""
    whole = session.run("GET", "SEQ", seq)
    whole = whole if isinstance(whole, dict) else dict(zip(whole[::2], whole[1::2], strict=True))
    (short,) = session.run("RANGE", seq, seq)
    return {whole[b"status"], short[short.index(b"status") + 1]}


# 12. A producer that was only slow goes on, as long as nobody took over.
def test_12_a_slow_producer_goes_on(server, session):
    writer = Writer(session, lease=1_500)
    writer.write("a")
    wait_until(lambda: session.follow(writer.seq, 1)[0] == "abandoned", "the lease lapses")
    # Every command that reads it says so.
    assert read_everywhere(session, writer.seq) == {b"abandoned"}
    assert read_everywhere(another(server), Writer(another(server)).seq) == {b"open"}
    writer.write("b")
    assert session.follow(writer.seq, 1) == ("open", 2, b"b")
    writer.end()
    assert session.payloads()[0] == b"ab"


# 13. Stop: readers see it at once, the producer with its next part, the text stays.
def test_13_stop(server, session):
    writer = Writer(session)
    writer.write("so far")
    reader = in_background(lambda: another(server).read_to_end(writer.seq))
    until_followed(server)
    assert another(server).run("STOP", writer.seq) == 1
    assert reader() == ("stopped", b"so far")
    assert writer.write("too late") is True
    assert writer.end(tokens=2) == [writer.seq, 6]
    message = session.get(writer.seq)
    assert (message["payload"], message["status"], message["tokens"]) == (b"so far", b"stopped", 2)
    assert session.run("STOP", writer.seq) == 0


# 14. No lost end: it is a state, told with the last byte, whenever it is asked for.
def test_14_the_end_is_never_lost(session):
    writer = Writer(session)
    writer.write("0123456789")
    assert writer.end(status="error", meta={"why": "quota"}) == [writer.seq, 10]
    assert writer.end(status="error", meta={"why": "quota"}) == [writer.seq, 10]
    assert session.follow(writer.seq, 0, max=4) == ("open", 4, b"0123")
    assert session.follow(writer.seq, 4, max=4) == ("open", 8, b"4567")
    assert session.follow(writer.seq, 8, max=4) == ("error", 10, b"89")
    assert session.follow(writer.seq, 10, block=5_000) == ("error", 10, b"")
    assert session.get(writer.seq)["meta"] == b'{"why": "quota"}'


# 15. The ended stream is a message of the history, and only then part of a window.
def test_15_the_text_becomes_a_message(session):
    session.say("question")
    writer = Writer(session, id="answer")
    session.say("and another")
    writer.write("answer")
    assert session.window().seqs == [1, 3]
    assert session.range()[1].extra == (("id", b"answer"), ("status", b"open"))
    assert session.info()["open"] == 1
    writer.end(tokens=1)
    assert session.window().seqs == [1, 2, 3]
    assert session.range()[1].payload == b"answer"
    assert session.info()["open"] == 0
    with pytest.raises(redis.ResponseError, match="says something else"):
        session.append(msg("assistant", "answer", id="answer"))


# 16. Small parts are gathered for a reader that wants few wake-ups.
def test_16_small_parts_are_gathered(server, session):
    writer = Writer(session)
    reader = in_background(lambda: another(server).follow(writer.seq, 0, block=60_000, linger=1_500))
    until_followed(server)
    start = time.monotonic()
    for part in ("a", "b", "c"):
        writer.write(part)
    assert reader() == ("open", 3, b"abc")
    assert time.monotonic() - start >= 1.4
    reader = in_background(lambda: another(server).follow(writer.seq, 3, block=60_000, linger=60_000, max=2))
    until_followed(server)
    writer.write("d")
    assert followers(server) == 1
    writer.write("e")
    assert reader() == ("open", 5, b"de")
    # The end does not wait for more.
    reader = in_background(lambda: another(server).follow(writer.seq, 5, block=60_000, linger=60_000))
    until_followed(server)
    writer.write("f")
    writer.end()
    assert reader() == ("done", 6, b"f")


# Waking and waiting.


def test_time_out(session):
    writer = Writer(session)
    start = time.monotonic()
    assert session.follow(writer.seq, 0, block=100) == ("open", 0, b"")
    assert time.monotonic() - start >= 0.09
    assert session.follow(writer.seq, 0) == ("open", 0, b"")


@pytest.mark.parametrize(
    "end",
    [
        ("DEL", "s"),
        ("UNLINK", "s"),
        ("FLUSHALL",),
        ("FLUSHDB", "ASYNC"),
        ("PEXPIRE", "s", 1),
        ("RENAME", "s", "t"),
        ("SET", "s", "text"),
        ("MOVE", "s", 3),
        ("SWAPDB", 0, 5),
        ("SESSION.DEL", "s", 1),
        ("SESSION.POP", "s"),
        ("SESSION.TRIM", "s", "MAXLEN", 0),
        ("SESSION.CLEAR", "s"),
        ("SESSION.APPEND", "s", "MAXLEN", 1, "MSG", "user", "x"),
    ],
    ids=lambda end: " ".join(map(str, end)),
)
def test_followers_are_told_when_the_message_goes(server, session, end):
    writer = Writer(session)
    reader = in_background(lambda: another(server).follow(writer.seq, 0, block=0))
    until_followed(server)
    start = time.monotonic()
    with server.wire() as wire:
        reply = wire(*end)
        assert not hasattr(reply, "word"), reply
    assert reader() is None
    assert time.monotonic() - start < 30
    assert followers(server) == 0


def test_a_follower_of_a_renamed_session_finds_it_under_its_new_name(server, session):
    writer = Writer(session)
    session.client.rename("s", "t")
    moved = Session(session.client, "t")
    moved.run("CHUNK", writer.seq, writer.token, 0, "text")
    assert moved.follow(writer.seq) == ("open", 4, b"text")


def test_waiting_in_a_transaction_and_in_a_script_answers_at_once(session):
    writer = Writer(session)
    pipe = session.client.pipeline(transaction=True)
    pipe.execute_command("SESSION.FOLLOW", "s", writer.seq, 0, "BLOCK", 0)
    assert pipe.execute() == [[b"open", 0, b""]]
    script = "return redis.call('SESSION.FOLLOW', KEYS[1], ARGV[1], 0, 'BLOCK', 0)"
    assert session.client.eval(script, 1, "s", writer.seq) == [b"open", 0, b""]


def test_writing_in_a_transaction_and_in_a_script_wakes(server, session):
    writer = Writer(session)
    reader = in_background(lambda: another(server).follow(writer.seq, 0, block=0))
    until_followed(server)
    pipe = session.client.pipeline(transaction=True)
    pipe.execute_command("SESSION.CHUNK", "s", writer.seq, writer.token, 0, "one ")
    pipe.execute_command("SESSION.CHUNK", "s", writer.seq, writer.token, 4, "two")
    pipe.execute()
    assert reader() == ("open", 7, b"one two")
    reader = in_background(lambda: another(server).follow(writer.seq, 7, block=0))
    until_followed(server)
    script = "return redis.call('SESSION.END', KEYS[1], ARGV[1], ARGV[2])"
    session.client.eval(script, 1, "s", writer.seq, writer.token)
    assert reader() == ("done", 7, b"")


def test_clients_that_leave_while_waiting_leave_nothing_behind(server, session):
    writer = Writer(session)
    before = server.used_memory()
    for how in ("close", "kill", "unblock"):
        wires = [server.wire() for _ in range(20)]
        ids = [wire("CLIENT", "ID") for wire in wires]
        for wire in wires:
            wire.socket.sendall(b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$1\r\ns\r\n$1\r\n1\r\n$1\r\n0\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n")
        until_followed(server, 20)
        for wire, number in zip(wires, ids):
            if how == "close":
                wire.close()
            elif how == "kill":
                session.client.client_kill_filter(_id=number)
            else:
                assert session.client.client_unblock(number)
                assert wire.read() == [b"open", 0, b""]
        until_followed(server, 0)
        writer.write("more")
        session.run("EDIT", 99, "x")
        for wire in wires:
            wire.close()
        writer.end()
        session.run("CLEAR")
        session.client.delete("s")
        writer = Writer(session)
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) == 0, "nobody is blocked")
    wait_until(lambda: server.used_memory() < before + 400_000, "memory is given back")


def test_a_thousand_followers(server, session):
    writer = Writer(session)
    wires = [server.wire() for _ in range(1_000)]
    expected = b""
    try:
        for part in (b"first ", b"second"):
            for wire in wires:
                wire.socket.sendall(
                    b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$1\r\ns\r\n$1\r\n1\r\n$%d\r\n%d\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
                    % (len(str(len(expected))), len(expected))
                )
            until_followed(server, 1_000)
            writer.write(part)
            expected += part
            replies = [wire.read() for wire in wires]
            assert replies == [[b"open", len(expected), part]] * 1_000
        for wire in wires:
            wire.socket.sendall(
                b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$1\r\ns\r\n$1\r\n1\r\n$2\r\n12\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
            )
        until_followed(server, 1_000)
        writer.end()
        assert [wire.read() for wire in wires] == [[b"done", 12, b""]] * 1_000
    finally:
        for wire in wires:
            wire.close()
    until_followed(server, 0)
    # They were woken by what changed, not by asking over and over.
    counted = {name.lower(): line for name, line in server.info("commandstats").items()}
    assert int(counted["cmdstat_session.follow"].split("calls=")[1].split(",")[0]) < 20_000


def test_a_second_end_that_says_something_else_is_an_error(server):
    """The same END again is answered the same; one that asks for something that is not done says so."""
    session = Session(server.client())
    digest = lambda: server.digest()  # noqa: E731
    writer = Writer(session)
    writer.write("text")
    first = ("END", writer.seq, writer.token, "TOKENS", 5, "META", '{"a":1}', "CACHE", "faq", "PROMPT", "p")
    assert session.run(*first) == [writer.seq, 4]
    before = digest()
    assert session.run(*first) == [writer.seq, 4]
    assert session.run("END", writer.seq, writer.token) == [writer.seq, 4], "what is not said is not another"
    for other in (
        ("TOKENS", 6),
        ("META", "{}"),
        ("CACHE", "other", "PROMPT", "p"),
        ("CACHE", "faq", "PROMPT", "another"),
    ):
        with pytest.raises(redis.ResponseError, match="has ended"):
            session.run("END", writer.seq, writer.token, *other)
    assert digest() == before and not session.client.exists("other")
    # An END without TOKENS is not one with them.
    writer = Writer(session)
    writer.write("text")
    session.run("END", writer.seq, writer.token)
    with pytest.raises(redis.ResponseError, match="TOKENS"):
        session.run("END", writer.seq, writer.token, "TOKENS", 1)


class Reader(threading.Thread):
    """One FOLLOW on a connection of its own; `got` is its reply."""

    def __init__(self, server, name: str, *args, **given):
        super().__init__()
        self.got = "no reply"
        self.session, self.args, self.given = Session(server.client(), name), args, given
        self.start()

    def run(self):
        self.got = self.session.follow(*self.args, **self.given)

    def reply(self):
        self.join(30)
        return self.got


def test_a_reader_names_the_message_by_its_id(session):
    writer = Writer(session, id="a1")
    writer.write("hello")
    assert session.follow("a1", 2) == ("open", 5, b"llo")
    writer.end()
    assert session.follow("a1") == ("done", 5, b"hello")
    assert session.follow("other") is None
    with pytest.raises(redis.ResponseError, match="beyond the end"):
        session.follow("a1", 6)


BEGINS = {
    "begin": lambda s, client: Writer(s, id="a1").write("text"),
    "append": lambda s, client: s.append(msg("assistant", "text", id="a1")),
    "load": lambda s, client: s.run("LOAD", '{"role":"assistant","content":"text","id":"a1"}'),
    "rename": lambda s, client: client.rename("other", "s"),
    "copy": lambda s, client: client.copy("other", "s"),
    "restore": lambda s, client: client.restore("s", 0, client.dump("other")),
    "fork": lambda s, client: client.execute_command("SESSION.FORK", "other", "s"),
}


@pytest.mark.parametrize("way", BEGINS)
def test_a_reader_may_come_before_the_message_and_its_session(server, way):
    client = server.client()
    Session(client, "other").append(msg("assistant", "text", id="a1"))
    reader = Reader(server, "s", "a1", block=60_000)
    until_followed(server)
    BEGINS[way](Session(client), client)
    status, offset, data = reader.reply()
    assert (status, offset, data) == ("open" if way == "begin" else "done", 4, b"text")
    until_followed(server, 0)


def test_a_reader_that_came_first_stays_until_there_is_text(server):
    client = server.client()
    reader = Reader(server, "s", "a1", block=60_000)
    until_followed(server)
    session = Session(client)
    session.say("another message")
    Writer(session, id="a2").write("not this one")
    client.delete("s")
    session.run("CLEAR")
    writer = Writer(session, id="a1")
    until_followed(server)
    assert reader.is_alive()
    writer.write("hello")
    assert reader.reply() == ("open", 5, b"hello")


def test_a_reader_that_came_first_is_told_when_the_producer_falls_silent(server):
    reader = Reader(server, "s", "a1", block=60_000)
    until_followed(server)
    Writer(Session(server.client()), id="a1", lease=50)
    assert reader.reply() == ("abandoned", 0, b"")


def test_a_message_that_does_not_begin_in_time_is_null(server):
    client = server.client()
    assert Session(client).follow("a1", block=20) is None
    assert Session(client).follow("a1") is None
    pipe = client.pipeline(transaction=True)
    pipe.execute_command("SESSION.FOLLOW", "s", "ID", "a1", 0, "BLOCK", 0)
    assert pipe.execute() == [None]
    assert not client.exists("s")
    until_followed(server, 0)


def test_a_reader_on_a_replica_may_come_first(fleet):
    both = pair(fleet)
    reader = Reader(both.replica, "s", "a1", block=60_000)
    until_followed(both.replica)
    Writer(Session(both.primary.client()), id="a1").write("hello")
    status, offset, data = reader.reply()
    assert status == "open" and b"hello"[:offset] == data != b""


def test_an_end_stores_the_answer_with_all_that_a_store_may_say(server):
    """The way from a miss to a streamed answer: FETCH, BEGIN, CHUNK, END with the lease."""
    client = server.client(3)
    session = Session(server.client())
    asked = ("PROMPT", "p", "VALUES", 2, 1, 0, "SCOPE", "eu", "CONTEXT", "c")
    lead = client.execute_command("LLMCACHE.FETCH", "faq", *asked, "LEASE", 60_000)
    waiting = []
    waiter = threading.Thread(
        target=lambda: waiting.append(
            server.client(3).execute_command("LLMCACHE.FETCH", "faq", *asked, "WAIT", 60_000)
        )
    )
    waiter.start()
    wait_until(lambda: server.info("everything")["llmcache_waiters"] == "1", "somebody waits")
    writer = Writer(session, id="a1")
    writer.write("streamed")
    end = ("END", writer.seq, writer.token, "TOKENS", 7, "CACHE", "faq", *asked)
    more = ("TAGS", 2, "refunds", "eu", "COST", "0.25", "LATENCY", 900, "EX", 500, "LEASE", lead[b"token"])
    assert session.run(*end, *more) == [writer.seq, 8]
    waiter.join(30)
    assert waiting[0][b"hit"][b"response"] == b"streamed"
    entry = client.execute_command("LLMCACHE.ENTRY", "faq", waiting[0][b"hit"][b"id"])
    assert [entry[name] for name in (b"scope", b"context", b"tokens", b"latency")] == [b"eu", b"c", 7, 900], entry
    assert entry[b"tags"] == [b"refunds", b"eu"] and float(entry[b"cost"]) == 0.25
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "p") is None, "another scope"
    assert client.execute_command("LLMCACHE.INVALIDATE", "faq", "TAG", "refunds", "DRYRUN") == 1
    # Sent again after a lost reply it is answered the same, though the lease has ended.
    before = server.digest()
    assert session.run(*end, *more) == [writer.seq, 8]
    with pytest.raises(redis.ResponseError, match="has ended"):
        session.run("END", writer.seq, writer.token, "CACHE", "faq", "PROMPT", "p")
    assert server.digest() == before


@pytest.mark.parametrize(
    "given, error",
    {
        "a lost lease": (("CACHE", "faq", "PROMPT", "p", "LEASE", "1" * 16), "LEASELOST"),
        "SCOPE alone": (("SCOPE", "eu"), "CACHE and PROMPT"),
        "no PROMPT": (("CACHE", "faq", "TAGS", 1, "t"), "CACHE and PROMPT"),
        "a bad COST": (("CACHE", "faq", "PROMPT", "p", "COST", "much"), "COST"),
        "SCOPE twice": (("CACHE", "faq", "PROMPT", "p", "SCOPE", "a", "SCOPE", "b"), "SCOPE"),
        "alone without CONTEXT": (("CACHE", "faq", "PROMPT", "p", "UNLESS-ALONE"), "CONTEXT"),
    }.values(),
)
def test_an_end_whose_answer_is_refused_ends_nothing(server, given, error):
    session = Session(server.client())
    writer = Writer(session)
    writer.write("text")
    before = server.digest()
    with pytest.raises(redis.ResponseError, match=error):
        session.run("END", writer.seq, writer.token, *given)
    assert server.digest() == before
    assert session.follow(writer.seq) == ("open", 4, b"text")
