"""FETCH: one maker for each answer, the others wait, or are served what there is."""

import json
import selectors
import time
from pathlib import Path

import pytest
from harness.cache import options
from harness.replies import fields, hit
from harness.vectors import near, unit
from harness.waiting import wait_until
from harness.wire import Failure, encode


@pytest.fixture
def server(emptied):
    return emptied


class Asker:
    """FETCH and what goes with it, by a connection of its own."""

    def __init__(self, server, name="faq", resp=2):
        self.wire = server.wire(resp)
        self.name = name

    def __call__(self, prompt="hi", **given):
        return self.read(self.wire(*self._command(prompt, given)))

    def read(self, reply):
        if isinstance(reply, Failure):
            return reply
        told = fields(reply)
        told["status"] = told["status"].decode()
        if "hit" in told:
            told["hit"] = hit(told["hit"])
        return told

    def _command(self, prompt, given):
        return ("LLMCACHE.FETCH", self.name, "PROMPT", prompt, *options(given))

    def send(self, prompt="hi", **given):
        """Asks without reading the reply."""
        self.wire.send(*self._command(prompt, given))

    def receive(self):
        return self.read(self.wire.read())

    def store(self, token, prompt="hi", response="there", **given):
        command = ("LLMCACHE.SETSEM", self.name, "PROMPT", prompt, "RESPONSE", response)
        return self.wire(*command, "LEASE", token, *options(given))

    def close(self):
        self.wire.close()


@pytest.fixture
def asker(server):
    return Asker(server)


def waiting(server, count):
    def there():
        with server.wire() as wire:
            return fields(wire("LLMCACHE.INFO", "faq"))["waiters"] == count

    wait_until(there, f"{count} clients wait")


def word(reply):
    return getattr(reply, "word", reply)


def test_a_miss_gives_one_lease(server, asker, cache_by):
    told = asker(vector=unit(1))
    assert told["status"] == "LEAD" and len(told["token"]) == 16 and told["lease_ms"] == 30_000
    for _ in range(3):
        busy = asker(vector=unit(1))
        assert busy["status"] == "BUSY" and 25 <= busy["retry_ms"] < 1_500
    id_ = asker.store(told["token"], vector=unit(1))
    found = asker(vector=unit(1))
    assert found["status"] == "HIT" and found["hit"].response == b"there" and found["hit"].id == id_.decode()
    assert asker("hello", vector=near(unit(1), 0.95))["hit"].tier == "semantic"
    stats = cache_by.stats()
    assert (stats["lead"], stats["busy"], stats["hits"], stats["misses"]) == (1, 3, 2, 4)


def test_both_protocols(server, resp):
    ask = Asker(server, resp=resp)
    told = ask("by either")
    assert told["status"] == "LEAD"
    ask.store(told["token"], "by either")
    assert ask("by either", return_=["response", "stale"])["hit"].response == b"there"


def test_who_waits_is_answered_when_the_answer_is_stored(server, asker):
    token = asker()["token"]
    others = [Asker(server) for _ in range(20)]
    for other in others:
        other.send(wait=20_000)
    waiting(server, 20)
    asker.store(token)
    for other in others:
        told = other.receive()
        assert told["status"] == "HIT" and told["hit"].response == b"there"
    waiting(server, 0)


def test_an_answer_stored_without_a_lease_ends_the_wait_too(server, asker, cache_by):
    token = asker()["token"]
    other = Asker(server)
    other.send(wait=20_000)
    waiting(server, 1)
    cache_by.set("hi", "by hand")
    assert other.receive()["hit"].response == b"by hand"
    assert word(asker.store(token)) == "LEASELOST"
    assert cache_by.get("hi") == b"by hand", "the late one changed nothing"


def test_a_wait_ends_in_its_time(server, asker):
    asker()
    start = time.monotonic()
    told = Asker(server)(wait=200)
    assert told["status"] == "BUSY"
    assert 0.15 < time.monotonic() - start < 30


def test_a_lapsed_lease_goes_to_the_oldest_waiter_alone(server, asker):
    token = asker(lease=60_000)["token"]
    others = [Asker(server) for _ in range(3)]
    for number, other in enumerate(others):
        other.send(wait=20_000)
        waiting(server, number + 1)
    assert asker.wire("LLMCACHE.EXTEND", "faq", token, 50) == "OK"
    told = others[0].receive()
    assert told["status"] == "LEAD"
    waiting(server, 2)
    others[0].store(told["token"])
    assert [other.receive()["status"] for other in others[1:]] == ["HIT", "HIT"]


def test_a_leader_that_goes_and_an_heir_that_goes_too(server, asker):
    token = asker(lease=60_000)["token"]
    asker.close()
    first, second = Asker(server), Asker(server)
    first.send(wait=20_000)
    waiting(server, 1)
    second.send(wait=20_000)
    waiting(server, 2)
    first.close()
    waiting(server, 1)
    with server.wire() as wire:
        assert wire("LLMCACHE.EXTEND", "faq", token, 50) == "OK"
    assert second.receive()["status"] == "LEAD"


def test_extend_keeps_a_lease_and_may_end_it_sooner(server, asker):
    token = asker(lease=1_500)["token"]
    assert asker.wire("LLMCACHE.EXTEND", "faq", token, 60_000) == "OK"
    other = Asker(server)
    assert other(wait=2_000)["status"] == "BUSY", "it lasts longer than it was granted for"
    other.send(wait=20_000)
    waiting(server, 1)
    assert asker.wire("LLMCACHE.EXTEND", "faq", token, 50) == "OK"
    assert other.receive()["status"] == "LEAD"
    assert word(asker.wire("LLMCACHE.EXTEND", "faq", token, 50)) == "LEASELOST"


def test_failures_are_told_to_all_and_remembered(server, asker, cache_by):
    token = asker()["token"]
    other = Asker(server)
    other.send(wait=20_000)
    waiting(server, 1)
    assert asker.wire("LLMCACHE.FAIL", "faq", token, "BACKOFF", 2_000, "ERR", "model overloaded") == "OK"
    told = other.receive()
    assert told["status"] == "NEG" and told["error"] == b"model overloaded" and 0 < told["retry_ms"] <= 2_000
    assert asker()["status"] == "NEG"
    assert asker("another")["status"] == "LEAD"
    wait_until(lambda: asker()["status"] == "LEAD", "the failure is forgotten")
    assert word(asker.wire("LLMCACHE.FAIL", "faq", token)) == "LEASELOST"
    assert cache_by.stats()["failures"] == 1


def test_the_breaker_of_a_scope(fleet):
    server = fleet.launch(llmcache__breaker_failures=3, llmcache__breaker_cooldown=3)
    ask = Asker(server)
    for i in range(3):
        told = ask(f"p{i}", scope="eu")
        assert told["status"] == "LEAD"
        ask.wire("LLMCACHE.FAIL", "faq", told["token"], "BACKOFF", 0)
    told = ask("p9", scope="eu")
    assert told["status"] == "OPEN" and 0 < told["retry_ms"] <= 3_000
    assert ask("p9", scope="us")["status"] == "LEAD"
    trial = wait_until(lambda: (lambda t: t if t["status"] == "LEAD" else None)(ask("p9", scope="eu")), "a trial")
    assert ask("p8", scope="eu")["status"] == "OPEN", "one trial at a time"
    ask.store(trial["token"], "p9", scope="eu")
    assert ask("p8", scope="eu")["status"] == "LEAD", "closed"


def test_stale_answers_are_served_while_one_is_made_anew(server, asker, cache_by):
    cache_by.create(grace=60)
    cache_by.set("hi", "old", px=1_500, tokens=5)
    assert asker()["status"] == "HIT"
    wait_until(lambda: cache_by.getsem(prompt="hi", return_=["stale"]).stale == 1, "it is stale")
    assert cache_by.get("hi") is None, "GET cannot say that it is stale"
    lead = asker()
    assert lead["status"] == "LEAD-STALE" and lead["hit"].response == b"old"
    for _ in range(3):
        told = asker(wait=20_000)
        assert told["status"] == "STALE" and told["hit"].response == b"old"
    asker.store(lead["token"], response="new")
    assert asker()["hit"].response == b"new"
    (id_,) = cache_by.scan_ids()
    entry = cache_by.entry(id_)
    assert entry["grace"] == 60_000 and entry["stale"] == 0
    stats = cache_by.stats()
    assert (stats["stale"], stats["lead"]) == (3, 1)


def test_grace_is_part_of_the_redis_deadline(server, cache_by, client):
    cache_by.create(grace=100)
    id_ = cache_by.set("hi", "r", ex=10)
    assert 109_000 < client.pttl(cache_by.key_of(id_)) <= 110_000
    assert 9_000 < cache_by.entry(id_)["ttl"] <= 10_000
    assert cache_by.expire(id_, "EX", 50) == 1
    assert 149_000 < client.pttl(cache_by.key_of(id_)) <= 150_000
    assert cache_by.expire(id_, "PERSIST") == 1
    assert client.pttl(cache_by.key_of(id_)) == -1 and cache_by.entry(id_)["stale"] == 0


def test_beta_makes_one_refresh_before_the_time(server, asker, cache_by):
    cache_by.set("hi", "r", ex=30, latency=600_000)
    told = asker(beta=100)
    assert told["status"] == "LEAD-STALE" and told["hit"].stale == 0, "ten minutes to make, half a minute left"
    assert asker(beta=100)["status"] == "HIT", "one is enough"
    cache_by.set("ho", "r", ex=3_600, latency=1)
    assert {asker("ho", beta=1)["status"] for _ in range(200)} == {"HIT"}


def test_near_questions_share_a_lease(server, asker):
    token = asker("how do I get a refund?", vector=unit(1))["token"]
    same = {"vector": near(unit(1), 0.96)}
    assert asker("how can I get a refund?", **same)["status"] == "BUSY"
    assert asker("how can I get a refund?", **same, threshold=0.97)["status"] == "LEAD"
    assert asker("how can I get 2 refunds?", **same)["status"] == "LEAD", "numbers differ"
    other = Asker(server)
    other.send("a refund, how?", wait=20_000, vector=near(unit(1), 0.97, seed=3))
    waiting(server, 1)
    asker.store(token, "how do I get a refund?", vector=unit(1))
    told = other.receive()
    assert told["status"] == "HIT" and told["hit"].tier == "semantic"


def test_a_woken_waiter_that_finds_nothing_leads(server, asker):
    token = asker("pears", vector=unit(1))["token"]
    other = Asker(server)
    other.send("apples", wait=20_000, vector=near(unit(1), 0.95), filter=".lang == 'en'")
    waiting(server, 1)
    asker.store(token, "pears", vector=unit(1), meta={"lang": "fr"})
    assert other.receive()["status"] == "LEAD"


def test_nothing_waits_in_multi_or_lua(server, asker, client):
    asker()
    fetch = ("LLMCACHE.FETCH", "faq", "PROMPT", "hi", "WAIT", 60_000)
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command(*fetch)
        (reply,) = pipe.execute()
    assert fields(reply)["status"] == b"BUSY"
    script = "return redis.call('LLMCACHE.FETCH', KEYS[1], 'PROMPT', 'hi', 'WAIT', '60000')"
    assert fields(client.eval(script, 1, "faq"))["status"] == b"BUSY"


ENDINGS = {
    "deleted": ("DEL", "faq"),
    "flushed": ("FLUSHALL",),
    "dropped": ("LLMCACHE.DROP", "faq"),
    "overwritten": ("SET", "faq", "text"),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_nobody_waits_for_a_cache_that_is_gone(server, asker, ending):
    asker()
    other = Asker(server)
    other.send(wait=60_000)
    waiting(server, 1)
    with server.wire() as wire:
        wire(*ending)
    assert word(other.receive()) in ("NOCACHE", "WRONGTYPE")


def test_info_sums_over_caches(server):
    asks = [Asker(server, name) for name in ("faq", "news")]
    before = server.info("llmcache_caches")
    for ask in asks:
        token = ask("p")["token"]
        ask("p")
        ask.store(token, "p")
        ask("p")
        ask("q")
    info = server.info("llmcache_caches")

    def grown(name):
        return int(info[f"llmcache_{name}"]) - int(before[f"llmcache_{name}"])

    assert (grown("fetch_lead"), grown("fetch_busy"), grown("hits_exact")) == (4, 2, 2)
    assert info["llmcache_leases"] == "2" and info["llmcache_clients_blocked"] == "0"


def test_client_unblock(server, asker):
    asker()
    for how, expected in (("TIMEOUT", "BUSY"), ("ERROR", "UNBLOCKED")):
        other = Asker(server)
        id_ = other.wire("CLIENT", "ID")
        other.send(wait=60_000)
        waiting(server, 1)
        assert asker.wire("CLIENT", "UNBLOCK", id_, how) == 1
        told = other.receive()
        assert (told["status"] if isinstance(told, dict) else told.word) == expected
        waiting(server, 0)


def test_leases_are_neither_saved_nor_replicated(fleet):
    server = fleet.launch(appendonly="yes")
    ask = Asker(server)
    token = ask()["token"]
    server.restart()
    ask = Asker(server)
    assert word(ask.store(token)) == "LEASELOST"
    assert ask()["status"] == "LEAD"


BAD = {
    "no prompt": ["VALUES", 1, 1],
    "many": ["PROMPT", "p", "COUNT", 2],
    "explained": ["PROMPT", "p", "EXPLAIN"],
    "lease of nothing": ["PROMPT", "p", "LEASE", 0],
    "lease without end": ["PROMPT", "p", "LEASE", 10**9],
    "wait below": ["PROMPT", "p", "WAIT", -1],
    "beta below": ["PROMPT", "p", "BETA", "-1"],
    "beta no number": ["PROMPT", "p", "BETA", "nan"],
    "no loader": ["PROMPT", "p", "VIA"],
    "twice": ["PROMPT", "p", "WAIT", 1, "WAIT", 1],
    "unknown": ["PROMPT", "p", "FOO"],
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_bad_input(server, arguments):
    with server.wire() as wire:
        assert word(wire("LLMCACHE.FETCH", "faq", *arguments)) == "ERR"
        for command in ("FAIL", "EXTEND"):
            assert word(wire(f"LLMCACHE.{command}", "faq", "xyz", 1)) == "ERR", "no token"
        assert word(wire("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", "LEASE", "12")) == "ERR"
        assert word(wire("LLMCACHE.SETSEM", "new", "PROMPT", "p", "RESPONSE", "r", "LEASE", "0" * 16)) == "LEASELOST"
        assert wire("EXISTS", "new") == 0


def test_the_loader_stream_reads_through(server, asker, client):
    asker.wire("LLMCACHE.CREATE", "faq")
    asker.wire("LLMCACHE.CONFIG", "faq", "SET", "loader", "todo")
    client.xgroup_create("todo", "makers", mkstream=True)
    other, third = Asker(server), Asker(server)
    other.send("hi", via=True, wait=20_000, scope="eu")
    waiting(server, 1)
    third.send("hi", via=True, wait=20_000, scope="eu")
    waiting(server, 2)
    ((_, ((_, job),)),) = client.xreadgroup("makers", "me", {"todo": ">"}, count=10)
    assert (job[b"cache"], job[b"prompt"], job[b"scope"], job[b"context"]) == (b"faq", b"hi", b"eu", b"")
    assert abs(int(job[b"until"]) - time.time() * 1_000) < 40_000
    asker.store(job[b"token"], "hi", "made", scope="eu")
    assert [ask.receive()["hit"].response for ask in (other, third)] == [b"made", b"made"]
    assert client.xlen("todo") == 1
    told = asker("unwaited", via=True)
    assert told["status"] == "BUSY" and client.xlen("todo") == 2
    # A maker that dies: the oldest who waits leads.
    fourth = Asker(server)
    fourth.send("dies", via=True, wait=20_000, lease=200)
    assert fourth.receive()["status"] == "LEAD"


def test_the_sink_takes_every_answer_in_the_same_step(server, client, cache_by):
    cache_by.create()
    cache_by.config_set("sink", "done")
    id_ = cache_by.setsem("hi", "there", unit(1), scope="eu", meta={"a": 1})
    ((_, row),) = client.xrange("done")
    assert row[b"id"].decode() == id_ and row[b"response"] == b"there" and row[b"prompt"] == b"hi"
    assert row[b"scope"] == b"eu" and row[b"meta"] == b'{"a": 1}' and row[b"cache"] == b"faq"
    client.set("text", "x")
    with pytest.raises(Exception, match="something else than a stream"):
        cache_by.config_set("sink", "text")
    client.delete("done")
    client.set("done", "x")
    with pytest.raises(Exception, match="nothing was stored"):
        cache_by.set("ho", "r")
    assert cache_by.get("ho") is None
    cache_by.config_set("sink", "")
    assert cache_by.set("ho", "r")


def test_the_sink_is_replicated_with_the_answer(fleet):
    from harness.replication import pair

    both = pair(fleet)
    client = both.primary.client()
    client.execute_command("LLMCACHE.CREATE", "faq")
    client.execute_command("LLMCACHE.CONFIG", "faq", "SET", "sink", "done")
    for i in range(20):
        client.execute_command("LLMCACHE.SET", "faq", "PROMPT", f"p{i}", "RESPONSE", "r")
    both.assert_equal()
    assert both.replica.client().xlen("done") == 20


def test_streams_need_permission(server, client):
    client.execute_command("LLMCACHE.CREATE", "faq")
    client.execute_command("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~faq")
    with server.wire() as wire:
        wire("AUTH", "bob", "x")
        assert word(wire("LLMCACHE.CONFIG", "faq", "SET", "sink", "other")) == "NOPERM"
        assert wire("LLMCACHE.CONFIG", "faq", "SET", "ttl", "5") == "OK"
    client.execute_command("ACL", "DELUSER", "bob")


def test_a_replica_refuses_fetch_and_waiters_of_a_demoted_primary_are_let_go(fleet):
    from harness.replication import pair

    both = pair(fleet)
    ask = Asker(both.primary)
    ask.store(ask()["token"])
    both.catch_up()
    with both.replica.wire() as wire:
        assert word(wire("LLMCACHE.FETCH", "faq", "PROMPT", "hi")) == "READONLY"
        assert hit(wire("LLMCACHE.GETSEM", "faq", "PROMPT", "hi")).response == b"there"
    ask("slow")
    waiters = [Asker(both.primary) for _ in range(5)]
    for waiter in waiters:
        waiter.send("slow", wait=60_000)
    waiting(both.primary, 5)
    with both.primary.wire() as wire:
        assert wire("REPLICAOF", "127.0.0.1", both.replica.port) == "OK"
    for waiter in waiters:
        waiter.wire.socket.settimeout(10)
        try:
            assert isinstance(waiter.receive(), Failure)
        except (ConnectionError, EOFError, ValueError):
            pass  # closed is as good as an error: it does not hang


def stampede(server, questions, lose_first=False, **given):
    """All ask at once, each by a connection of its own; leaders answer. Answers what each was told, and
    how many milliseconds lay between the first question and the last."""
    askers = [Asker(server) for _ in questions]
    commands = [
        encode(asker._command(prompt, {"vector": vector, "wait": 60_000, **given}))
        for asker, (prompt, vector) in zip(askers, questions, strict=True)
    ]
    start = time.monotonic()
    for asker, command in zip(askers, commands, strict=True):
        asker.wire.socket.sendall(command)
    spread_ms = (time.monotonic() - start) * 1_000
    told = [None] * len(askers)
    with selectors.DefaultSelector() as selector:
        for i, asker in enumerate(askers):
            selector.register(asker.wire.socket, selectors.EVENT_READ, i)
        while selector.get_map():
            ready = selector.select(60)
            assert ready, "somebody hangs"
            for entry, _ in ready:
                i = entry.data
                told[i] = askers[i].receive()
                selector.unregister(entry.fileobj)
                if told[i]["status"] == "LEAD" and lose_first:
                    lose_first = False
                    askers[i].close()
                elif told[i]["status"] == "LEAD":
                    prompt, vector = questions[i]
                    askers[i].store(told[i]["token"], prompt, vector=vector)
    for asker in askers:
        asker.close()
    return [reply["status"] for reply in told], spread_ms


def commands_of(server):
    return int(server.info("stats")["total_commands_processed"])


def real_paraphrases():
    folder = Path(__file__).parent / "data"
    texts = [json.loads(line)["text"] for line in (folder / "paraphrases.jsonl").read_text().splitlines()]
    raw, size = (folder / "paraphrases.f16").read_bytes(), 384 * 2
    return [(text, ["FP16", raw[i * size : (i + 1) * size]]) for i, text in enumerate(texts)]


def test_a_thousand_clients_one_leader(fleet):
    server = fleet.launch(maxclients=4_000)
    before = commands_of(server)
    told, _ = stampede(server, [("hi", unit(1))] * 1_000)
    spent = commands_of(server) - before
    assert told.count("LEAD") == 1 and told.count("HIT") == 999
    assert spent <= 1_000 + 1 + 2, f"{spent} commands for 1,000 askers, one answer and two looks at the count"


def test_a_thousand_clients_ten_paraphrases_one_leader(fleet):
    server = fleet.launch(maxclients=4_000)
    questions = real_paraphrases()
    assert len(questions) == 10 and len({text for text, _ in questions}) == 10
    before = commands_of(server)
    told, spread_ms = stampede(server, [questions[i % 10] for i in range(1_000)])
    spent = commands_of(server) - before
    assert told.count("LEAD") == 1 and told.count("HIT") == 999, f"asked within {spread_ms:.0f} ms"
    assert spent <= 1_000 + 1 + 2, spent
    with server.wire() as wire:
        stats = fields(wire("LLMCACHE.STATS", "faq"))
    assert stats["lead"] == 1 and stats["coalesced"] + stats["hits"] >= 999
    assert stats["hits_semantic"] > 800, "most asked in other words than the leader"


def test_the_leader_of_a_thousand_dies_and_one_other_leads(fleet):
    server = fleet.launch(maxclients=4_000)
    questions = real_paraphrases()
    told, _ = stampede(server, [questions[i % 10] for i in range(1_000)], lose_first=True, lease=4_000)
    assert told.count("LEAD") == 2 and told.count("HIT") == 998


def test_a_lease_from_before_its_cache_was_restored_is_lost(asker):
    """What was invalidated on another server while the cache was there is known to nobody here."""
    token = asker(LEASE=60_000)["token"]
    dump = asker.wire("DUMP", "faq")
    assert asker.wire("MULTI") == "OK"
    assert asker.wire("RESTORE", "faq", 0, dump, "REPLACE") == "QUEUED"
    assert asker.store(token) == "QUEUED"
    restored, stored = asker.wire("EXEC")
    assert restored == "OK"
    assert word(stored) == "LEASELOST"
    assert asker()["status"] == "LEAD"
