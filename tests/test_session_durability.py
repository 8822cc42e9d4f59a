"""Nothing acknowledged is lost, nothing is there twice: writers that retry, kill -9, RDB, AOF, replicas."""

import random
import threading
import time
import uuid

import pytest
import redis
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.session import Session, Writer, msg
from harness.waiting import wait_until
from harness.wire import encode

AOF = {"appendonly": "yes", "appendfsync": "always"}
PREAMBLE = pytest.mark.parametrize("preamble", ["yes", "no"])


def traffic(client):
    """Every command that writes."""
    session = Session(client)
    session.append(msg("system", "rules", pin=True), msg("user", b"\xff\x00", id="i", vector=(1, 2, 3)), ttl=5_000)
    session.append(msg("assistant", "x" * 30_000, call="c", meta={"a": 1}), msg("tool", "r", result="c"), owner="owner")
    session.say(*(f"message {n}" for n in range(300)))
    session.append(msg("user", "y"), maxlen=250, owner="owner")
    session.run("EDIT", 100, "edited", "VALUES", 3, 1, 1, 1)
    session.run("DEL", 90, 91, 250)
    session.run("POP", "COUNT", 3)
    session.run("TRIM", "MAXTOKENS", 600)
    session.run("COMPACT", "UPTO", 120, "in short")
    session.run("FORK", "fork", "AT", 200)
    for end in ({}, {"status": "error", "meta": {"e": 1}}, None):
        writer = Writer(session, meta={"b": 2})
        writer.write("text " * 2_000)
        if end is not None:
            writer.end(**end)
    session.run("STOP", Writer(session).seq)
    Session(client, "copy").run("LOAD", *session.export())
    Session(client, "cleared").say("a", "b", ttl=100)
    Session(client, "cleared").run("CLEAR")
    Session(client, "gone").say("a")
    client.delete("gone")
    client.eval("return redis.call('SESSION.APPEND', KEYS[1], 'MSG', 'user', ARGV[1])", 1, "s", "lua")
    pipe = client.pipeline(transaction=True)
    pipe.execute_command("SESSION.APPEND", "s", "MSG", "user", "multi")
    pipe.execute()
    return writer


def seen(client):
    return {name: Session(client, name).export() for name in ("s", "fork", "copy", "cleared")}


def test_rdb(fleet):
    server = fleet.launch()
    client = server.client()
    writer = traffic(client)
    before, digest, ttl = seen(client), server.digest(), client.pexpiretime("s")
    assert client.ttl("fork") > 4_000
    client.save()
    server.restart()
    client = server.client()
    assert (seen(client), server.digest(), client.pexpiretime("s")) == (before, digest, ttl)
    # The producer of the open message goes on.
    writer.session = Session(client)
    writer.write("more")
    assert writer.end() == [writer.seq, 10_004]
    assert client.execute_command("DEBUG", "RELOAD") == b"OK"


@PREAMBLE
@pytest.mark.parametrize("rewritten", [False, True], ids=["replay", "rewrite"])
def test_aof(fleet, preamble, rewritten):
    server = fleet.launch(**AOF, aof_use_rdb_preamble=preamble)
    client = server.client()
    writer = traffic(client)
    if rewritten:
        client.bgrewriteaof()
        wait_for_rewrite(client)
        Session(client).say("after")
    before, digest, ttl = seen(client), server.digest(), client.pexpiretime("s")
    server.kill9()
    server.start()
    client = server.client()
    assert (seen(client), server.digest(), client.pexpiretime("s")) == (before, digest, ttl)
    writer.session = Session(client)
    assert writer.end() == [writer.seq, 10_000]
    assert Session(client).say("more")[0] == Session(client).info()["last_seq"]


def test_replica(fleet):
    both = pair(fleet)
    client = both.primary.client()
    writer = traffic(client)
    both.assert_equal()
    theirs = both.replica.client()
    assert seen(theirs) == seen(client)
    assert theirs.pexpiretime("s") == client.pexpiretime("s")
    assert theirs.zrange("owner", 0, -1) == [b"s"]
    assert [row[0] for row in theirs.execute_command("SESSION.LIST", "owner")] == [b"s"]
    with pytest.raises(redis.ReadOnlyError):
        Session(theirs).say("no")
    # Reading and following work on a replica; what arrives wakes.
    results: list = []
    follow = threading.Thread(target=lambda: results.append(Session(both.replica.client()).follow(writer.seq, 10_000, block=0)))
    follow.start()
    wait_until(lambda: both.replica.info("everything")["llmcache_session_followers"] == "1", "it follows")
    writer.write("!")
    follow.join(10)
    assert results == [("open", 10_001, b"!")]
    # A promoted replica takes over where the primary was.
    waiting = threading.Thread(target=lambda: results.append(Session(both.replica.client()).follow(writer.seq, 10_001, block=0)))
    waiting.start()
    wait_until(lambda: both.replica.info("everything")["llmcache_session_followers"] == "1", "it follows")
    theirs.replicaof("NO", "ONE")
    waiting.join(10)
    assert results[1][:2] == ("open", 10_001)
    successor = Session(both.replica.client())
    assert successor.run("CHUNK", writer.seq, writer.token, 10_001, "after") == [10_006, 0]
    assert successor.run("END", writer.seq, writer.token) == [writer.seq, 10_006]


def test_a_primary_that_becomes_a_replica_lets_its_followers_go(fleet):
    both = pair(fleet)
    writer = Writer(Session(both.primary.client()))
    with both.primary.wire() as reader:
        reader.socket.sendall(b"*6\r\n$14\r\nSESSION.FOLLOW\r\n$1\r\ns\r\n$1\r\n1\r\n$1\r\n0\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n")
        followed = lambda: both.primary.info("everything")["llmcache_session_followers"]  # noqa: E731
        wait_until(lambda: followed() == "1", "it follows")
        both.replica.client().replicaof("NO", "ONE")
        both.primary.client().replicaof("127.0.0.1", both.replica.port)
        try:
            reply = reader.read()
            assert getattr(reply, "word", "") == "UNBLOCKED" or reply == [b"open", 0, b""], reply
        except ConnectionError:
            pass
        wait_until(lambda: followed() == "0", "nobody follows")
    assert writer.seq == 1


WRITERS = 50
EACH = 40


def test_fifty_writers_that_lose_connections(fleet):
    """Every message once, each writer's own in its order, in one order on primary and replica."""
    both = pair(fleet, maxclients=1_000)
    failures: list = []

    def write(number: int) -> None:
        rng = random.Random(number)
        client = redis.Redis(port=both.primary.port, protocol=3, retry=None, socket_timeout=20)
        try:
            for at in range(EACH):
                id_ = str(uuid.UUID(int=rng.getrandbits(128)))
                command = ["SESSION.APPEND", "s", *msg("user", f"{number}:{at}", id=id_), *msg("assistant", f"{number}:{at}!", id=f"{id_}!")]
                while True:
                    try:
                        if rng.random() < 0.3:
                            # Sent, and the reply never seen.
                            with both.primary.wire() as wire:
                                wire.socket.sendall(encode(command))
                                if rng.random() < 0.5:
                                    time.sleep(0.001)
                            raise redis.ConnectionError("dropped")
                        reply = client.execute_command(*command)
                        assert len(reply) == 4
                        break
                    except redis.ConnectionError:
                        client.connection_pool.disconnect()
        except Exception as problem:  # noqa: BLE001
            failures.append(problem)
        finally:
            client.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    session = Session(both.primary.client())
    payloads = [payload.decode() for payload in session.payloads()]
    assert sorted(payloads) == sorted(f"{n}:{at}{end}" for n in range(WRITERS) for at in range(EACH) for end in ("", "!"))
    assert [m.seq for m in session.range()] == list(range(1, 2 * WRITERS * EACH + 1))
    for number in range(WRITERS):
        own = [payload for payload in payloads if payload.startswith(f"{number}:")]
        assert own == [f"{number}:{at}{end}" for at in range(EACH) for end in ("", "!")]
    both.assert_equal()
    assert [p.decode() for p in Session(both.replica.client()).payloads()] == payloads


def everything(session):
    """All messages; a quick machine writes more than one RANGE answers."""
    found, start = [], 0
    while page := session.range(start, "+", count=5_000):
        found += page
        start = page[-1].seq + 1
    return found


@PREAMBLE
def test_kill_9_loses_nothing_acknowledged(fleet, preamble):
    server = fleet.launch(**AOF, aof_use_rdb_preamble=preamble)
    acknowledged: list[set] = []
    running = True

    def write(number: int) -> None:
        own: set = set()
        acknowledged.append(own)
        client = redis.Redis(port=server.port, retry=None, socket_timeout=20)
        session, at = Session(client), 0
        try:
            while running:
                text = f"{number}:{at}"
                session.append(msg("user", text, id=text), ttl=10_000)
                own.add(text.encode())
                if at % 10 == 9:
                    writer = Writer(session, id=f"stream {text}")
                    writer.write(text)
                    writer.end()
                    own.add(f"stream {text}".encode())
                at += 1
        except redis.ConnectionError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(map(len, acknowledged)) > 400, "enough is written")
    server.kill9()
    running = False
    for thread in threads:
        thread.join()
    server.start()
    session = Session(server.client())
    there = {dict(m.extra)["id"]: m for m in everything(session)}
    wanted = set().union(*acknowledged)
    assert len(wanted) > 50
    assert wanted <= set(there)
    for id_ in wanted:
        status = dict(there[id_].extra).get("status")
        assert there[id_].payload == id_.removeprefix(b"stream ") and status in (None, b"done")
    assert session.client.pttl("s") > 9_000_000


def test_memory_is_given_back(server):
    client = server.client()
    Session(client, "warm").say("up")
    client.delete("warm")
    before = server.used_memory()
    for round_ in range(3):
        for number in range(50):
            Session(client, f"s{number}").append(*(msg("user", "text " * 30, id=f"{round_}:{at}") for at in range(200)))
        told = sum(client.memory_usage(f"s{number}", samples=0) for number in range(50))
        used = server.used_memory() - before
        assert abs(told - used) < used * 0.1
        client.flushall() if round_ else client.unlink(*(f"s{number}" for number in range(50)))
        wait_until(lambda: server.used_memory() - before < 300_000, "memory is given back")
