"""MAXERROR through a server: tickets, reports, the threshold they prove, and that it outlives what a server goes through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.cache import Cache, options
from harness.persistence import save, wait_for_rewrite
from harness.replication import pair
from harness.replies import fields
from harness.vectors import near, unit
from harness.waiting import wait_until
from harness.wire import Failure, Wire

VECTORS = Path(__file__).resolve().parent.parent / "core/tests/data/maxerror_vectors.json"
WARM_UP = 100


@pytest.fixture
def server(emptied):
    return emptied


def at(similarity_e4: int) -> tuple:
    """A vector whose cosine with (1, 0) lies in the middle of a ten-thousandth."""
    cosine = (similarity_e4 + 0.5) / 10_000
    return ("VALUES", 2, repr(cosine), repr((1 - cosine * cosine) ** 0.5))


class Audited:
    """A cache with one answer, at (1, 0), and lookups around it."""

    def __init__(self, wire: Wire, name: str = "faq", **given):
        self.wire, self.name = wire, name
        asked = {"maxerror": "0.05", "quant": "NONE", "threshold": "0.90", "minsim": "0.70"} | given
        assert wire("LLMCACHE.CREATE", name, *options(asked)) == "OK"
        wire("LLMCACHE.SETSEM", name, "PROMPT", "stored", "RESPONSE", "answer", "ID", "one", "VALUES", 2, 1, 0)

    def look_up(self, similarity: int, *more) -> dict | None:
        reply = self.wire("LLMCACHE.GETSEM", self.name, *at(similarity), "AUDIT", *more)
        assert not isinstance(reply, Failure), reply
        return None if reply is None else fields(reply)

    def look_up_all(self, similarities: list[int]) -> list[bytes | None]:
        """The ticket of each lookup, if it got one."""
        replies = self.wire.pipeline([("LLMCACHE.GETSEM", self.name, *at(s), "AUDIT") for s in similarities])
        return [None if reply is None else fields(reply).get("audit") for reply in replies]

    def report(self, ticket, wrong: bool = False):
        return self.wire("LLMCACHE.FEEDBACK", self.name, "TICKET", ticket, "WRONG" if wrong else "RIGHT")

    def report_all(self, tickets: list, wrong: list[bool]) -> list:
        said = [("WRONG" if is_wrong else "RIGHT") for is_wrong in wrong]
        return self.wire.pipeline([("LLMCACHE.FEEDBACK", self.name, "TICKET", t, s) for t, s in zip(tickets, said, strict=True)])

    def warm_up(self, similarity: int = 9_500) -> None:
        assert set(self.look_up_all([similarity] * self.stats()["warm_up_left"])) == {None}
        assert self.stats()["maxerror_state"] == b"unproven"

    def prove(self, similarity: int = 9_950, labels: int = 120) -> None:
        tickets = self.look_up_all([similarity] * labels)
        assert None not in tickets
        assert set(self.report_all(tickets, [False] * labels)) == {1}

    def stats(self) -> dict:
        return fields(self.wire("LLMCACHE.STATS", self.name))

    def in_use(self) -> float | None:
        value = self.stats()["threshold_in_use"]
        return None if value is None else float(value)


@pytest.fixture
def wire(server):
    with Wire(server.port) as wire:
        yield wire


class Stream:
    """The generator that the specification fixes."""

    def __init__(self, kind: str):
        self.state, self.kind = 7, kind

    def number(self) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % 10_000

    def next(self) -> tuple[int, bool]:
        r, u = self.number(), self.number()
        similarity = 9_000 + 10 * r // 100 if self.kind == "high" else 7_000 + 30 * r // 100
        chance = {
            "clean": 0,
            "high": 0,
            "step": 2_000 if similarity < 8_500 else 0,
            "slope": (10_000 - similarity) // 2,
            "dirty": 1_200,
        }[self.kind]
        return similarity, u < chance


def expected_changes(kind: str, delta_ppm: int) -> list[tuple[int, int]]:
    row = next(r for r in json.loads(VECTORS.read_text()) if (r["stream"], r["delta_ppm"]) == (kind, delta_ppm))
    return [(i, threshold) for i, threshold in row["changes"]]


@pytest.mark.parametrize(("kind", "lookups"), [("clean", 600), ("step", 3_000), ("slope", 3_000), ("dirty", 1_500), ("high", 600)])
def test_streams_of_the_specification(wire, kind, lookups):
    """Every threshold in use at every hundredth lookup is the one that the specification lists."""
    cache = Audited(wire, audit="1")
    stream, changes = Stream(kind), expected_changes(kind, 50_000)
    for done in range(0, lookups, WARM_UP):
        asked = [stream.next() for _ in range(WARM_UP)]
        tickets = cache.look_up_all([similarity for similarity, _ in asked])
        if done == 0:
            assert set(tickets) == {None}, "no ticket before the starts are fixed"
            continue
        assert None not in tickets
        assert set(cache.report_all(tickets, [wrong for _, wrong in asked])) == {1}
        now = [threshold for i, threshold in changes if i <= done + WARM_UP]
        in_use = cache.in_use()
        assert (None if in_use is None else round(in_use * 10_000)) == (now[-1] if now else None), done + WARM_UP
    assert cache.stats()["labels"] == lookups - WARM_UP


def test_nothing_is_served_by_meaning_until_a_threshold_is_proven(wire):
    cache = Audited(wire)
    stats = cache.stats()
    assert (stats["maxerror_state"], stats["warm_up_left"], stats["verified"]) == (b"warm-up", WARM_UP, 0)
    assert cache.look_up(9_990) is None, "a miss, and no ticket yet"
    assert wire("LLMCACHE.GETSEM", "faq", "VALUES", 2, 1, 0) is None, "however near"
    why = fields(wire("LLMCACHE.GETSEM", "faq", *at(9_990), "EXPLAIN"))
    assert why["reason"] == b"unproven"
    assert cache.look_up(9_990, "PROMPT", "stored")["tier"] == b"exact", "the same words need no proof"
    cache.warm_up()
    missed = cache.look_up(9_950)
    assert missed["status"] == b"miss" and len(missed["audit"]) == 64
    candidate = fields(missed["candidate"])
    assert (candidate["id"], candidate["response"], candidate["prompt"]) == (b"one", b"answer", b"stored")
    assert abs(float(candidate["similarity"]) - 0.99505) < 1e-6
    assert cache.look_up(6_900) is None, "not near: nothing to tell right from wrong"
    stats = cache.stats()
    assert (stats["maxerror_state"], stats["threshold_in_use"], stats["labels_to_next"]) == (b"unproven", None, 107)
    cache.prove(9_550)
    stats = cache.stats()
    assert (stats["maxerror_state"], stats["verified"], float(stats["threshold_in_use"])) == (b"proven", 1, 0.95)
    assert [stats[name] for name in ("labels", "labels_wrong", "labels_ignored", "alarms")] == [120, 0, 0, 0]
    assert float(stats["false_hits_estimate"]) == 0 and 0 < float(stats["false_hits_upper"]) < 0.05
    points = [[float(point[0]), *point[1:]] for point in stats["curve"]]
    assert points[0] == [0.95, 120, 0, 1] and points[-1] == [0.70, 120, 0, 1]
    served = fields(wire("LLMCACHE.GETSEM", "faq", *at(9_510)))
    assert (served["verified"], served["response"]) == (1, b"answer")
    assert wire("LLMCACHE.GETSEM", "faq", *at(9_499)) is None
    assert wire("LLMCACHE.GETSEM", "faq", *at(9_510), "THRESHOLD", "0.96") is None, "a lookup can be stricter"
    assert wire("LLMCACHE.GETSEM", "faq", *at(9_499), "THRESHOLD", "0.5") is None, "and not looser"


def test_a_cold_static_cache_serves_unverified(wire):
    cache = Audited(wire, cold="STATIC", audit="1")
    assert fields(wire("LLMCACHE.GETSEM", "faq", *at(9_100)))["verified"] == 0
    assert wire("LLMCACHE.GETSEM", "faq", *at(8_900)) is None
    cache.warm_up()
    hit = cache.look_up(9_100)
    assert (hit["verified"], len(hit["audit"]), hit["response"]) == (0, 64, b"answer")
    cache.prove(9_550)
    assert wire("LLMCACHE.GETSEM", "faq", *at(9_100)) is None, "what is proven takes the place of THRESHOLD"


def test_forged_repeated_and_old_tickets_count_nothing(wire):
    cache = Audited(wire)
    other = Audited(wire, "other")
    for one in (cache, other):
        one.warm_up()
    ticket = cache.look_up(9_900)["audit"]
    forged = [b"0" * 64, b"", b"x" * 64, ticket[:-1] + (b"1" if ticket.endswith(b"0") else b"0"), b"1" * 65, ticket.upper()]
    # Another similarity under the signature of this one.
    forged.append(ticket[:10] + b"1027" + ticket[14:])
    for text in forged:
        reply = cache.report(text)
        assert isinstance(reply, Failure) and reply.text.startswith("BADTICKET"), text
    assert other.report(ticket).text.startswith("BADTICKET"), "of another cache"
    assert cache.report(b"1" * 300).text.startswith("TOOBIG")
    assert cache.stats()["labels"] == 0
    assert cache.report(ticket, wrong=True) == 1
    assert cache.report(ticket) == 0 and cache.report(ticket, wrong=True) == 0
    stats = cache.stats()
    assert (stats["labels"], stats["labels_wrong"], stats["labels_ignored"]) == (1, 1, 2)
    assert float(stats["reported_share"]) == 1, "of one ticket, however often it comes back"
    old = cache.look_up(9_900)["audit"]
    assert wire("LLMCACHE.FEEDBACK", "faq", "RESET") == "OK"
    assert cache.report(old) == 0, "of an earlier epoch"
    assert (cache.stats()["epoch"], cache.stats()["labels"]) == (1, 0)


def test_a_late_ticket_counts_nothing(wire):
    cache = Audited(wire)
    cache.warm_up()
    ticket = cache.look_up(9_900)["audit"]
    assert wire("CONFIG", "SET", "llmcache.audit-ttl", 1) == "OK"
    try:
        # Time alone makes it late.
        replies = []

        def is_late() -> bool:
            fresh = cache.look_up(9_900)["audit"]
            replies.append(cache.report(fresh))
            return int(wire("TIME")[0]) > issued + 1

        issued = int(wire("TIME")[0])
        wait_until(is_late, "two seconds to pass", step=0.2)
        assert replies[0] == 1
        assert cache.report(ticket) == 0
        assert cache.stats()["labels_ignored"] >= 1
    finally:
        assert wire("CONFIG", "SET", "llmcache.audit-ttl", 86_400) == "OK"


@pytest.mark.parametrize(
    ("setting", "value", "epoch"),
    [
        ("GUARD", "STRICT", 1),
        ("NUMBERS", "CONFLICT", 1),
        ("EXCHANGE", "ON", 1),
        ("MAXERROR", "0.02", 1),
        ("CONFIDENCE", "0.9", 1),
        ("MINSIM", "0.8", 1),
        ("AUDIT", "0.5", 0),
        ("COLD", "STATIC", 0),
        ("TTL", "5", 0),
        ("THRESHOLD", "0.8", 0),
    ],
)
def test_which_settings_begin_an_epoch(wire, setting, value, epoch):
    cache = Audited(wire)
    cache.warm_up()
    cache.prove()
    assert wire("LLMCACHE.CONFIG", "faq", "SET", setting, value) == "OK"
    stats = cache.stats()
    assert (stats["epoch"], stats["labels"], stats["verified"]) == (epoch, 0 if epoch else 120, 1 - epoch)


def test_minsim_follows_threshold_unless_it_is_given(wire):
    cache = Audited(wire, minsim=None)
    assert float(fields(wire("LLMCACHE.CONFIG", "faq", "GET"))["minsim"]) == 0.7
    cache.warm_up()
    cache.prove()
    assert wire("LLMCACHE.CONFIG", "faq", "SET", "THRESHOLD", "0.8") == "OK"
    assert float(fields(wire("LLMCACHE.CONFIG", "faq", "GET"))["minsim"]) == 0.6
    assert cache.stats()["epoch"] == 1, "thresholds reach further down: another question"


def test_maxerror_can_be_turned_on_and_off(wire):
    cache = Audited(wire, maxerror=None)
    assert fields(wire("LLMCACHE.GETSEM", "faq", *at(9_100))).get("verified") is None
    assert cache.stats()["maxerror_state"] == b"off"
    assert cache.report(b"0" * 64).text.startswith("ERR")
    assert wire("LLMCACHE.FEEDBACK", "faq", "RESET").text.startswith("ERR")
    assert cache.look_up(9_100, "PROMPT", "other")["response"] == b"answer", "AUDIT asks for nothing there"
    assert wire("LLMCACHE.CONFIG", "faq", "SET", "maxerror", "0.05") == "OK"
    assert wire("LLMCACHE.GETSEM", "faq", *at(9_100)) is None
    cache.warm_up()
    cache.prove()
    assert cache.in_use() is not None
    assert wire("LLMCACHE.CONFIG", "faq", "SET", "maxerror", "0") == "OK"
    assert fields(wire("LLMCACHE.GETSEM", "faq", *at(9_100))).get("verified") is None


def test_bad_options_are_refused(wire):
    for option in (
        ("MAXERROR", "0.51"), ("MAXERROR", "-0.1"), ("MAXERROR", "nan"), ("MAXERROR", "0.0000001"), ("CONFIDENCE", "1"),
        ("CONFIDENCE", "0.4"), ("AUDIT", "1.1"), ("COLD", "WARM"), ("MINSIM", "0.995"), ("MINSIM", "-0.1"),
        ("NEARMISSES", "10001"), ("NEARMISSES", "-1"),
    ):  # fmt: skip
        assert isinstance(wire("LLMCACHE.CREATE", "bad", *option), Failure), option
        assert wire("EXISTS", "bad") == 0
    Audited(wire)
    for option in (("maxerror", "1"), ("confidence", "x"), ("audit", ""), ("cold", "1"), ("minsim", "2")):
        assert isinstance(wire("LLMCACHE.CONFIG", "faq", "SET", *option), Failure), option
    for more in (("COUNT", 2), ("EXPLAIN",)):
        assert isinstance(wire("LLMCACHE.GETSEM", "faq", *at(9_000), "AUDIT", *more), Failure)
    for bad in ((), ("TICKET",), ("TICKET", "00"), ("TICKET", "00", "MAYBE"), ("ID", "one"), ("RESET", "RESET"), ("RESET", "ID", "one", "RIGHT"), ("NONE",)):
        assert isinstance(wire("LLMCACHE.FEEDBACK", "faq", *bad), Failure), bad
    assert wire("LLMCACHE.FEEDBACK", "nowhere", "RESET").text.startswith("NOCACHE")


def test_an_opinion_counts_and_proves_nothing(wire):
    cache = Audited(wire)
    cache.warm_up()
    for _ in range(200):
        assert wire("LLMCACHE.FEEDBACK", "faq", "ID", "one", "RIGHT") == 1
    assert wire("LLMCACHE.FEEDBACK", "faq", "ID", "one", "WRONG") == 1
    assert wire("LLMCACHE.FEEDBACK", "faq", "ID", "none", "WRONG") == 0
    stats = cache.stats()
    assert (stats["opinions_right"], stats["opinions_wrong"], stats["labels"], stats["verified"]) == (200, 1, 0, 0)


def test_a_store_reports_in_the_same_trip(wire):
    cache = Audited(wire)
    cache.warm_up()
    ticket = cache.look_up(9_900)["audit"]
    store = ("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", *at(8_000))
    refused = wire(*store, "TICKET", "0" * 64, "RIGHT")
    assert refused.text.startswith("BADTICKET") and wire("LLMCACHE.GET", "faq", "PROMPT", "p") is None
    assert wire("LLMCACHE.SETSEM", "new", *store[2:], "TICKET", ticket, "RIGHT").text.startswith("NOCACHE")
    assert wire("EXISTS", "new") == 0, "a refused command made no cache"
    assert wire(*store, "TICKET", ticket, "WRONG")
    assert wire(*store, "TICKET", ticket, "WRONG"), "one that counts no more refuses nothing"
    stats = cache.stats()
    assert (stats["labels"], stats["labels_wrong"], stats["labels_ignored"]) == (1, 1, 1)


def test_fetch_hands_out_candidate_and_ticket_to_who_makes_the_answer(wire):
    cache = Audited(wire)
    cache.warm_up()
    led = fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", "asked", *at(9_600), "AUDIT"))
    assert led["status"] == b"LEAD" and fields(led["candidate"])["response"] == b"answer"
    busy = fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", "asked", *at(9_600), "AUDIT"))
    assert busy["status"] == b"BUSY" and "audit" not in busy
    stored = wire(
        "LLMCACHE.SETSEM", "faq", "PROMPT", "asked", "RESPONSE", "fresh", *at(9_600), "LEASE", led["token"], "TICKET", led["audit"], "RIGHT"
    )  # fmt: skip
    assert not isinstance(stored, Failure), stored
    assert cache.stats()["labels"] == 1
    plain = fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", "other", *at(7_500)))
    assert plain["status"] == b"LEAD" and not {"audit", "candidate"} & plain.keys()
    wire("LLMCACHE.DEL", "faq", "one")
    # Words, since guards compare numbers; and none that would be another's lease.
    asked = [f"asked {one} {other}" for one in "abcdefghijkl" for other in "abcdefghij"]
    # From now on the nearest is the answer that was just stored, at its own vector.
    tickets = [fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", words, *at(9_600), "AUDIT")).get("audit") for words in asked]
    assert None not in tickets
    assert set(cache.report_all(tickets, [False] * 120)) == {1}
    hit = fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", "again", *at(9_600), "AUDIT"))
    assert hit["status"] == b"HIT" and fields(hit["hit"])["verified"] == 1


def test_many_questions_are_audited_one_by_one(wire):
    cache = Audited(wire)
    cache.warm_up()
    asked = [argument for similarity in (9_900, 6_000, 9_000) for argument in at(similarity)]
    first, second, third = wire("LLMCACHE.MGETSEM", "faq", 3, *asked, "AUDIT")
    assert second is None
    tickets = [fields(reply)["audit"] for reply in (first, third)]
    assert cache.report_all(tickets, [False, True]) == [1, 1]
    curve = {round(float(t) * 100): (n, k) for t, n, k, _ in cache.stats()["curve"]}
    assert (curve[99], curve[90]) == ((1, 0), (2, 1)), "each at its own similarity"


def test_guards_and_the_soft_rule_hold_below_the_threshold(wire):
    """What a guard refuses is no candidate; one exchanged word lowers the similarity that a label counts for."""
    cache = Audited(wire, exchange="ON")
    wire("LLMCACHE.SETSEM", "faq", "PROMPT", "How do I clean the oven?", "RESPONSE", "A", "VALUES", 2, 0, 1)
    cache.warm_up()
    up = ("VALUES", 2, "0.19", "0.9817835")
    refused = wire("LLMCACHE.GETSEM", "faq", *up, "PROMPT", "How do I not clean the oven?", "AUDIT")
    assert refused is None
    lowered = fields(wire("LLMCACHE.GETSEM", "faq", *up, "PROMPT", "How do I clean the fridge?", "AUDIT"))
    assert cache.report(lowered["audit"]) == 1
    assert [round(float(point[0]), 2) for point in cache.stats()["curve"]][0] == 0.93, "0.98 less 0.05"


def test_audits_after_the_proof_are_a_share(wire):
    cache = Audited(wire, audit="0.25")
    cache.warm_up()
    cache.prove()
    tickets = cache.look_up_all([9_950] * 4_000)
    got = sum(ticket is not None for ticket in tickets)
    assert 800 < got < 1_200, got
    cache = Audited(wire, "never", audit="0")
    cache.warm_up()
    cache.prove()
    assert set(cache.look_up_all([9_950] * 500)) == {None}


def test_an_alarm_begins_anew_and_is_published(wire, server):
    cache = Audited(wire, audit="1")
    cache.warm_up()
    cache.prove()
    with server.client().pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("llmcache:maxerror:*")
        wait_until(lambda: int(wire("PUBSUB", "NUMPAT")) == 1, "the subscription")
        tickets = cache.look_up_all([9_950] * 40)
        counted = cache.report_all(tickets, [True] * 40)
        # ln 2 each, up to ln 10,000: the fourteenth sets it off, and the rest is of an earlier epoch.
        assert counted == [1] * 14 + [0] * 26
        stats = cache.stats()
        assert (stats["alarms"], stats["epoch"], stats["verified"], stats["labels"]) == (1, 1, 0, 0)
        message = wait_until(lambda: heard.get_message(timeout=0.1), "the alarm is published")
        assert json.loads(message["data"]) == {"kind": "alarm", "epoch": 1}
        assert message["channel"] == b"llmcache:maxerror:faq"


def test_an_alarm_is_heard_on_a_replica_too(fleet):
    both = pair(fleet)
    with Wire(both.primary.port) as primary, both.replica.client().pubsub(ignore_subscribe_messages=True) as heard:
        assert primary("SELECT", 3) == "OK"
        cache = Audited(primary, audit="1")
        cache.warm_up()
        cache.prove()
        heard.subscribe("llmcache:maxerror@3:faq")
        wait_until(lambda: both.replica.client().pubsub_numsub("llmcache:maxerror@3:faq")[0][1] == 1, "the subscription")
        cache.report_all(cache.look_up_all([9_950] * 14), [True] * 14)
        message = wait_until(lambda: heard.get_message(timeout=0.1), "the alarm is published")
        assert json.loads(message["data"]) == {"kind": "alarm", "epoch": 1}
        both.assert_equal()


def test_replica_and_failover(fleet):
    both = pair(fleet)
    with Wire(both.primary.port) as primary, Wire(both.replica.port) as replica:
        cache = Audited(primary, audit="1")
        cache.look_up_all([9_500] * 60)
        both.assert_equal()
        cache.look_up_all([9_500] * 40)
        both.assert_equal()
        ticket = cache.look_up(9_600)["audit"]
        assert cache.report(ticket) == 1
        both.assert_equal()
        # A replica issues tickets of the same worth, and writes nothing.
        there = Audited.__new__(Audited)
        there.wire, there.name = replica, "faq"
        tickets = there.look_up_all([9_600] * 119)
        assert None not in tickets
        refused = there.report(tickets[0])
        assert refused.text.startswith("READONLY")
        assert set(cache.report_all(tickets, [False] * 119)) == {1}
        both.assert_equal()
        assert there.in_use() == cache.in_use() == 0.95
        assert fields(replica("LLMCACHE.GETSEM", "faq", *at(9_510)))["verified"] == 1
        for setting in (("guard", "STRICT"), ("guard", "ON"), ("maxerror", "0"), ("maxerror", "0.1")):
            assert primary("LLMCACHE.CONFIG", "faq", "SET", *setting) == "OK"
            both.assert_equal()
        cache.warm_up()
        cache.prove()
        assert primary("LLMCACHE.FEEDBACK", "faq", "RESET") == "OK"
        both.assert_equal()
        cache.warm_up()
        cache.prove()
        both.assert_equal()
        outstanding = cache.look_up(9_950)["audit"]
        assert replica("REPLICAOF", "NO", "ONE") == "OK"
        wait_until(lambda: replica("ROLE")[0] == b"master", "the replica is promoted")
        before = there.stats()["labels"]
        assert there.report(outstanding) == 1, "a ticket outlives the server that issued it"
        assert there.stats()["labels"] == before + 1


@pytest.mark.parametrize("how", ["rdb", "aof", "aof-rewritten"])
def test_what_was_learnt_outlives_a_restart(fleet, how):
    given = {} if how == "rdb" else {"appendonly": "yes", "appendfsync": "always", "aof-use-rdb-preamble": "no"}
    server = fleet.launch(**given)
    with Wire(server.port) as wire:
        cache = Audited(wire)
        warming = Audited(wire, "warming")
        warming.look_up_all([9_000] * 70)
        cache.warm_up()
        cache.prove()
        ticket, used = cache.look_up(7_500), cache.look_up_all([9_950] * 400)
        assert wire("LLMCACHE.FEEDBACK", "warming", "RESET") == "OK"
        warming.look_up_all([9_000] * 70)
        if how == "rdb":
            wire("SAVE")
        elif how == "aof-rewritten":
            wire("BGREWRITEAOF")
            wait_for_rewrite(server.client())
        before, state = server.digest(), cache.stats()
    server.restart()
    with Wire(server.port) as wire:
        cache.wire = warming.wire = wire
        assert server.digest() == before
        after = cache.stats()
        for name in ("labels", "threshold_in_use", "epoch", "curve", "maxerror_state"):
            assert after[name] == state[name], name
        for old in [t for t in [*used, ticket and ticket.get("audit")] if t]:
            assert cache.report(old) == 1
            assert cache.report(old) == 0
        left = warming.stats()["warm_up_left"]
        # An append-only file has writes alone; what lookups saw is in it from its last rewrite on.
        assert left == (WARM_UP if how == "aof" else 30)


def test_a_save_that_was_turned_off_costs_no_format(wire, server):
    """Caches without MAXERROR are saved as before: their dumps have the version that older servers read."""
    wire("LLMCACHE.CREATE", "plain", "DIM", 2)
    wire("LLMCACHE.CREATE", "audited", "DIM", 2, "MAXERROR", "0.05")
    client = server.client()
    plain, audited = client.dump("plain"), client.dump("audited")
    assert b"\x01\x01\x03\x00" in plain and b"\x01\x01\x05\x00" in audited
    wire("DEL", "audited")
    client.restore("audited", 0, audited)
    assert float(fields(wire("LLMCACHE.CONFIG", "audited", "GET"))["maxerror"]) == 0.05


def test_reads_write_nothing(fleet):
    both = pair(fleet)
    with Wire(both.primary.port) as primary:
        cache = Audited(primary)
        both.catch_up()

        def written() -> int:
            return int(both.primary.info("persistence")["rdb_changes_since_last_save"])

        before = written()
        cache.look_up_all([9_500] * 150)
        assert written() == before
        both.assert_equal()


def test_inside_transactions_and_scripts(wire):
    cache = Audited(wire)
    cache.warm_up()
    wire("MULTI")
    wire("LLMCACHE.GETSEM", "faq", *at(9_900), "AUDIT")
    (missed,) = wire("EXEC")
    ticket = fields(missed)["audit"]
    script = "return redis.call('LLMCACHE.FEEDBACK', KEYS[1], 'TICKET', ARGV[1], 'RIGHT')"
    assert wire("EVAL", script, 1, "faq", ticket) == 1
    assert wire("EVAL", script, 1, "faq", ticket) == 0


def test_near_misses_are_remembered_where_that_is_on(cache, server):
    cache.create(nearmisses=3)
    cache.setsem("What is the dose for a 6-year-old?", "A", unit(1), id="dose")
    assert cache.getsem(prompt="Is there a dose for horses?", vector=near(unit(1), 0.85)) is None
    assert cache.getsem(prompt="What is the dose for a 16-year-old?", vector=near(unit(1), 0.97)) is None
    assert cache.getsem(prompt="Something else altogether", vector=near(unit(1), 0.3)) is None
    assert cache.getsem(prompt="What is the dose for a 6-year-old?", vector=unit(1)) is not None
    newest, oldest = [fields(miss) for miss in cache.run("NEARMISSES")]
    assert (newest["reason"], newest["guard"], newest["question"]) == (b"guard", b"number", b"What is the dose for a 16-year-old?")
    assert (oldest["reason"], oldest["guard"], oldest["id"]) == (b"below-threshold", None, b"dose")
    assert abs(float(oldest["similarity"]) - 0.85) < 0.01 and oldest["candidate"] == b"What is the dose for a 6-year-old?"
    assert newest["time"] >= oldest["time"] > 1_600_000_000_000
    for n in range(10):
        cache.getsem(prompt=f"{'x' * 300} {n}", vector=near(unit(1), 0.8))
    numbers = [fields(miss)["number"] for miss in cache.run("NEARMISSES", "COUNT", 100)]
    assert numbers == [11, 10, 9]
    assert fields(cache.run("NEARMISSES", "COUNT", 1)[0])["question"].endswith(b"... (46 more bytes)")
    assert len(cache.run("NEARMISSES", "RESET")) == 3 and cache.run("NEARMISSES") == []
    assert cache.config_set("nearmisses", 0) == b"OK"
    cache.getsem(prompt="another", vector=near(unit(1), 0.8))
    assert cache.run("NEARMISSES") == [] and cache.stats()["near_misses"] == 0


def test_near_misses_take_a_permission_of_their_own(server):
    client = server.client()
    Cache(client).create(nearmisses=10)
    # Redis 7.0 has no categories for the commands of modules: there it is denied by name.
    denied = "-@admin" if server.gives_modules_categories else "-llmcache.nearmisses"
    client.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", denied)
    with Wire(server.port) as wire:
        assert wire("AUTH", "reader", "x") == "OK"
        assert wire("LLMCACHE.STATS", "faq")
        assert wire("LLMCACHE.NEARMISSES", "faq").text.startswith("NOPERM")
    client.execute_command("ACL", "SETUSER", "reader", "+llmcache.nearmisses", "-llmcache.feedback")
    with Wire(server.port) as wire:
        assert wire("AUTH", "reader", "x") == "OK"
        assert wire("LLMCACHE.NEARMISSES", "faq") == []
        assert wire("LLMCACHE.FEEDBACK", "faq", "RESET").text.startswith("NOPERM")


def test_near_misses_are_neither_saved_nor_replicated(fleet):
    both = pair(fleet)
    primary = Cache(both.primary.client())
    primary.create(nearmisses=10)
    primary.setsem("one question", "A", unit(1))
    assert primary.getsem(prompt="another thing", vector=near(unit(1), 0.85)) is None
    assert len(primary.run("NEARMISSES")) == 1
    both.assert_equal()
    assert Cache(both.replica.client()).run("NEARMISSES") == []
    save(both.primary.client())
    both.primary.restart()
    assert Cache(both.primary.client()).run("NEARMISSES") == []
    assert Cache(both.primary.client()).config()["nearmisses"] == 10
