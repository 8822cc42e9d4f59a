"""What is never saved is measured by a clock that only goes forward: setting the server's clock neither holds nor ends it."""

import random
import threading

import pytest
from harness.clock import WallClock
from harness.replies import fields
from harness.waiting import hold, wait_until
from harness.wire import Failure

HOUR = 3_600
# Short enough to wait for, and long enough to set the clock meanwhile.
SHORT_MS = 1_500
LONG_MS = 600_000


@pytest.fixture
def clock(tmp_path):
    return WallClock(tmp_path)


@pytest.fixture
def server(fleet, clock):
    server = fleet.prepare(llmcache__breaker_failures=1)
    server.environment = clock.environment
    return server.start()


def fetch(wire, *rest):
    return fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", "p", *rest))


def fetches(wire, status):
    return lambda: fetch(wire, "LEASE", LONG_MS)["status"] == status


def lease(wire, ms):
    assert fetch(wire, "LEASE", ms)["status"] == b"LEAD"
    return fetches(wire, b"LEAD")


def failure(wire, ms):
    assert wire("CONFIG", "SET", "llmcache.breaker-failures", 0) == "OK"
    wire("LLMCACHE.FAIL", "faq", fetch(wire)["token"], "BACKOFF", ms)
    return fetches(wire, b"LEAD")


def breaker(wire, ms):
    wire("CONFIG", "SET", "llmcache.breaker-cooldown", -(-ms // 1_000))
    wire("LLMCACHE.FAIL", "faq", fetch(wire)["token"], "BACKOFF", 0)
    return fetches(wire, b"LEAD")


def embedding_lease(wire, ms):
    wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 3)
    call = ("EMBCACHE.FETCH", "emb", "TEXT", "t", "LEASE")
    assert fields(wire(*call, ms))["status"] == b"LEAD"
    return lambda: fields(wire(*call, LONG_MS))["status"] == b"LEAD"


def chunk_lease(wire, ms):
    wire("KVCHUNK.CREATE", "ns")
    wire("KVCHUNK.PUT", "ns", "HASH", "h", "PAYLOAD", 1, "x")
    assert not isinstance(wire("KVCHUNK.LEASE", "ns", ms, "68"), Failure)
    assert fields(wire("KVCHUNK.INFO", "ns"))["leases"] == 1
    return lambda: fields(wire("KVCHUNK.INFO", "ns"))["leases"] == 0


WAITS = [lease, failure, breaker, embedding_lease, chunk_lease]


@pytest.mark.parametrize("begin", WAITS)
def test_a_clock_set_back_holds_nothing(server, clock, begin):
    with server.wire() as wire:
        is_over = begin(wire, SHORT_MS)
        clock.set(-HOUR)
        wait_until(is_over, "it ends when its time is over", 60)


@pytest.mark.parametrize("begin", WAITS)
def test_a_clock_set_forward_ends_nothing(server, clock, begin):
    with server.wire() as wire:
        is_over = begin(wire, LONG_MS)
        clock.set(HOUR)
        hold(lambda: not is_over(), "it lasts", 0.5)


def in_thread(server, *call):
    """The reply to a call that blocks, once it has come."""
    replies = []

    def run():
        with server.wire() as wire:
            replies.append(wire(*call))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: server.info("clients")["blocked_clients"] == "1", "the client waits")
    return thread, replies


def test_who_waits_for_an_answer_leads_when_the_lease_lapses(server, clock):
    with server.wire() as wire:
        lease(wire, SHORT_MS)
        thread, replies = in_thread(server, "LLMCACHE.FETCH", "faq", "PROMPT", "p", "WAIT", LONG_MS)
        clock.set(-HOUR)
        thread.join(60)
        assert fields(replies[0])["status"] == b"LEAD"


def waits_for_an_answer(wire):
    lease(wire, LONG_MS)
    return "LLMCACHE.FETCH", "faq", "PROMPT", "p", "WAIT", SHORT_MS


def waits_for_an_embedding(wire):
    embedding_lease(wire, LONG_MS)
    return "EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", SHORT_MS


def follows_a_message(wire):
    seq, _, _ = wire("SESSION.BEGIN", "s", "assistant", "LEASE", LONG_MS)
    return "SESSION.FOLLOW", "s", seq, 0, "BLOCK", SHORT_MS


def follows_a_message_to_come(_):
    return "SESSION.FOLLOW", "s", "ID", "to come", 0, "BLOCK", SHORT_MS


@pytest.mark.parametrize("begin", [waits_for_an_answer, waits_for_an_embedding, follows_a_message, follows_a_message_to_come])
def test_who_waits_is_answered_when_the_time_is_over(server, clock, begin):
    with server.wire() as wire:
        thread, replies = in_thread(server, *begin(wire))
        clock.set(-HOUR)
        thread.join(60)
        assert replies, "it waits on"


def test_a_clock_set_back_and_forth_stops_no_timer(server, clock):
    """After each, the server's own list of timers begins with others, and what it waits for is another time."""
    rng = random.Random(1)
    shifts = (0, 1, -1, 61, -61, HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 30 * 24 * HOUR)
    with server.wire(timeout=40) as wire:
        for _ in range(18):
            if rng.random() < 0.3:
                clock.set(rng.choice(shifts))
            wire.send("SESSION.FOLLOW", "s", "ID", "to come", 0, "BLOCK", 5)
            if rng.random() < 0.5:
                clock.set(rng.choice(shifts))
            assert wire.read() is None


def test_a_clock_set_back_while_timers_run_holds_up_nobody(server, clock):
    """The server goes on with its timers until the time that it read before they ran: an hour, if each sets itself anew."""
    # Valkey binds what modules call past a preloaded clock: there, it is set back between timers.
    set_back = clock.set if "valkey_version" in server.info("server") else clock.set_in_a_timer
    with server.wire(timeout=20) as wire:
        wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")
        # Ten timers for each of the server's own rounds, which look at that clock too.
        wire("CONFIG", "SET", "llmcache.sweep-interval-ms", 10)
        for hours in range(1, 9):
            set_back(-hours * HOUR)
            assert wire("PING") == "PONG"
        # And they go on afterwards.
        wire("DEL", "faq")
        wait_until(lambda: wire("DBSIZE") == 0, "the entries of a deleted cache are removed", 60)


def test_parts_gather_as_long_as_was_said(server, clock):
    with server.wire() as wire:
        seq, token, _ = wire("SESSION.BEGIN", "s", "assistant", "LEASE", LONG_MS)
        thread, replies = in_thread(server, "SESSION.FOLLOW", "s", seq, 0, "BLOCK", LONG_MS, "LINGER", SHORT_MS)
        wire("SESSION.CHUNK", "s", seq, token, 0, "text")
        clock.set(-HOUR)
        thread.join(60)
        assert replies[0][2] == b"text"


def test_work_between_commands_goes_on(server, clock):
    """The server's own timers wait for the hour to come again."""
    with server.wire() as wire:
        for number in range(100):
            wire("LLMCACHE.SET", "faq", "PROMPT", f"p{number}", "RESPONSE", "r")
        clock.set(-HOUR)
        wire("DEL", "faq")
        wait_until(lambda: wire("DBSIZE") == 0, "the entries of a deleted cache are removed", 60)
