"""What a server knew while it was a primary, when it is one again: another was it meanwhile."""

from harness.replication import Pair, pair
from harness.server import Server
from harness.waiting import hold, wait_until
from harness.wire import Failure


def fail_over(both: Pair) -> Pair:
    """FAILOVER: nothing is lost, and the former primary goes on as a replica without reading everything anew."""
    with both.primary.wire() as wire:
        assert wire("FAILOVER") == "OK"
    return swapped(both)


def swapped(both: Pair) -> Pair:
    def role(server: Server) -> str:
        return server.info("replication")["role"]

    wait_until(lambda: (role(both.primary), role(both.replica)) == ("slave", "master"), "the roles have changed")
    after = Pair(both.replica, both.primary)
    after.catch_up()
    return after


def test_an_answer_under_a_lease_of_a_former_term_is_refused(fleet):
    """It was invalidated while the other was the primary, which had no entry of it that could have told."""
    both = pair(fleet)
    with both.primary.wire() as wire:
        told = wire("LLMCACHE.FETCH", "faq", "PROMPT", "hi", "LEASE", 600_000)
        token = dict(zip(told[::2], told[1::2]))[b"token"]
    both.catch_up()
    both = fail_over(both)
    with both.primary.wire() as wire:
        assert not isinstance(wire("LLMCACHE.INVALIDATE", "faq", "OLDER", 0), Failure)
    both = fail_over(both)
    with both.primary.wire() as wire:
        reply = wire("LLMCACHE.SET", "faq", "PROMPT", "hi", "RESPONSE", "late", "LEASE", token)
        assert isinstance(reply, Failure) and reply.word == "LEASELOST", reply
        assert wire("LLMCACHE.GET", "faq", "PROMPT", "hi") is None
    both.assert_equal()


def test_what_was_evicted_in_a_former_term_is_not_put_back(fleet):
    both = pair(fleet, maxmemory_policy="allkeys-lru", llmcache__sweep_interval_ms=10)
    with both.primary.wire() as wire:
        assert wire("RAG.CREATE", "docs", "DIM", 3) == "OK"
        both.catch_up()
        # In one go, so that it is not put back between.
        told = wire.pipeline([("CONFIG", "SET", "maxmemory", 1), ("PING",), ("FAILOVER",)])
        assert told[-1] == "OK", told
    both = swapped(both)
    with both.replica.wire() as wire:
        assert wire("CONFIG", "SET", "maxmemory", 0) == "OK"
    with both.primary.wire() as wire:
        assert wire("EXISTS", "docs") == 0
        # Somebody makes it anew and drops it.
        assert wire("RAG.CREATE", "docs", "DIM", 3) == "OK"
        assert wire("RAG.DROP", "docs") == 1
    both = fail_over(both)
    with both.primary.wire() as wire:
        hold(lambda: wire("EXISTS", "docs") == 0, "it stays away", 0.3)


def test_a_command_on_what_was_just_evicted_is_one_that_the_replica_obeys(fleet):
    """The server evicts a container right before it runs a command on it, and tells the replica of both."""
    both = pair(fleet, maxmemory_policy="allkeys-lru")
    with both.primary.wire() as wire:
        assert not isinstance(wire("KVCHUNK.CREATE", "kv"), Failure)
        assert wire("LLMCACHE.CREATE", "faq") == "OK"
        both.catch_up()
        words = [
            ("CONFIG", "SET", "maxmemory", 1),
            ("KVCHUNK.BUDGET", "kv", 100_000),
            ("LLMCACHE.INVALIDATE", "faq", "ALL"),
            ("CONFIG", "SET", "maxmemory", 0),
        ]
        told = wire.pipeline(words)
        assert not [reply for reply in told if isinstance(reply, Failure)], told
        wait_until(lambda: wire("EXISTS", "kv", "faq") == 2, "they are put back")
    both.assert_equal()
    both.replica.check_log()
