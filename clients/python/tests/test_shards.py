"""One cache as several over a real cluster: where entries are, look-ups by meaning over all, more shards than before."""

from __future__ import annotations

import asyncio
import collections
import time

import numpy as np
import pytest
import redis.asyncio.cluster
import redis.cluster
from harness.cluster import Cluster

import llmcache.asyncio
from llmcache import Document, DocumentIndex, EmbeddingCache, KVChunks, LLMCache, Session, user
from llmcache._cache import CacheFlows
from llmcache._shards import Shards, entry_digest, jump
from llmcache.types import Fields


def test_entries_are_spread_evenly_and_few_move():
    keys = [str(n).encode() for n in range(20_000)]
    eight, nine = Shards("faq", 8), Shards("faq", 9)
    counts = collections.Counter(eight.place(key) for key in keys)
    assert set(counts) == {f"faq{{{k}}}" for k in range(8)}
    assert max(counts.values()) < 1.1 * min(counts.values())
    moved = [(eight.place(key), nine.place(key)) for key in keys if eight.place(key) != nine.place(key)]
    assert len(moved) / len(keys) == pytest.approx(1 / 9, abs=0.01)
    assert {place for _, place in moved} == {"faq{8}"}
    assert jump(b"\0" * 8, 1) == 0
    assert Shards("faq").names() == ["faq"]
    assert Shards("faq", 2, 1).every() == ["faq{0}", "faq{1}", "faq"]
    for wrong in ((0, None), (1, 0), (20_000, None)):
        with pytest.raises(ValueError, match="shards are"):
            Shards("faq", *wrong)
    with pytest.raises(ValueError, match="hash slot"):
        Shards("faq{1}", 2)


@pytest.fixture(scope="module")
def cluster(new_fleet):
    return Cluster(new_fleet(), [[(0, 5_460)], [(5_461, 10_922)], [(10_923, 16_383)]])


@pytest.fixture
def client(cluster):
    with redis.cluster.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        client.flushall(target_nodes=redis.cluster.RedisCluster.PRIMARIES)
        yield client


def test_a_cache_is_spread_over_a_cluster(client, cluster):
    cache = LLMCache(client, "faq", shards=8, threshold=0.95)
    cache.create(dim=64, guard="OFF")
    rows = np.random.default_rng(1).standard_normal((200, 64))
    for n, row in enumerate(rows):
        cache.set(f"q{n}", f"a{n}", vector=row, tags=[f"t{n % 2}"])
    held = [node.wire() for node in cluster.nodes]
    assert all(wire("DBSIZE") > 40 for wire in held)
    assert cache.get("q7") == "a7"
    assert cache.search("other words", vector=rows[9] + 0.01).response == "a9"
    assert cache.search_all(vector=rows[3], count=2, threshold=-1)[0].response == "a3"
    assert [hit and hit.response for hit in cache.search_many([(None, rows[n]) for n in (1, 2)])] == ["a1", "a2"]
    assert cache.explain(vector=rows[4]).hits[0].response == "a4"
    assert cache.stats().stores == 200
    assert cache.info().entries == 200
    assert len(cache.ids()) == 200
    # What another shard has is not made again.
    assert cache.get_or_make("q8 in other words", lambda: "never", vector=rows[8]) == "a8"
    assert cache.get_or_make("a new one", lambda: "made", vector=-rows[8]) == "made"
    assert cache.invalidate(tag="t0") == 100
    assert cache.get("q7") == "a7"
    assert cache.get("q8") is None


def test_a_tenant_is_in_one_shard(client):
    tenants = [LLMCache(client, "faq", shards=8, scope=f"tenant {n}") for n in range(20)]
    for n, cache in enumerate(tenants):
        cache.set("q", str(n), vector=[1.0, 0.0])
    assert [cache.search("other", vector=[1.0, 0.01]).response for cache in tenants] == [str(n) for n in range(20)]
    names = {cache.shards.place(f"tenant {n}".encode()) for n, cache in enumerate(tenants)}
    assert len(names) > 4


def test_more_shards_lose_nothing(client):
    rows = np.random.default_rng(2).standard_normal((60, 16))
    few = LLMCache(client, "faq", shards=2)
    for n, row in enumerate(rows):
        few.set(f"q{n}", f"a{n}", vector=row)
    more = LLMCache(client, "faq", shards=5, shards_before=2)
    assert [more.get(f"q{n}") for n in range(60)] == [f"a{n}" for n in range(60)]
    assert all(more.search(vector=row).response == f"a{n}" for n, row in enumerate(rows))
    more.set("q1", "new", vector=rows[1])
    assert more.get("q1") == "new"


def test_the_other_families(client):
    docs = DocumentIndex(client, "docs", shards=4)
    assert docs.add(Document(f"d{n}", f"text {n}", vector=np.eye(40)[n], tokens=5) for n in range(40)) == 40
    assert docs.search(np.eye(40)[7], k=1)[0].id == "d7"
    assert len(docs.search(np.eye(40)[7], k=10, tokens=22)) == 4
    assert [d and d.text for d in docs.get_many(["d3", "none"])] == ["text 3", None]
    nearest = [d.id for d in docs.search(np.eye(40)[7], k=6)]
    assert [d.id for d in docs.search(np.eye(40)[7], k=4, offset=2)] == nearest[2:]
    assert docs.delete("d3", "none") == 1
    emb = EmbeddingCache(client, "emb", model="m", shards=4)
    texts = [f"t{n}" for n in range(50)]
    emb.embed_many(texts, lambda missing: [[1.0, float(len(t))] for t in missing])
    assert all(v is not None for v in emb.get_many(texts))
    assert emb.info().entries == 50
    kv = KVChunks(client, "ns", chunk=4, shards=3)
    kv.create(budget=3_000_000)
    for n in range(12):
        tokens = [n] * 16
        assert [s.status for s in kv.put_many([b"x"] * 4, tokens)] == ["STORED"] * 4
        assert kv.match(tokens).chunks == 4
    assert kv.info().chunks == 48
    with pytest.raises(TypeError, match="shards"):
        kv.lease(1.0, b"x")
    with pytest.raises(TypeError, match="shards"):
        kv.put(b"x", hash=b"y")
    session = Session(client, "chat:1")
    session.append(user("hi"))
    with session.stream(id="a") as writer:
        writer.write("x")
    assert [part.text for part in session.follow(id="a")] == ["x"]


def test_asyncio_over_a_cluster(cluster, client):
    async def main():
        async with redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as aio:
            cache = llmcache.asyncio.LLMCache(aio, "faq", shards=4)
            made = []

            async def model():
                made.append(1)
                await asyncio.sleep(0.1)
                return "a"

            answers = await asyncio.gather(*(cache.get_or_make("q", model, vector=[1.0, 0.0]) for _ in range(20)))
            found = await cache.search(vector=[1.0, 0.01])
            return set(answers), len(made), found.response, (await cache.stats()).stores

    assert asyncio.run(main()) == ({"a"}, 1, "a", 1)


def told():
    """A progress bar of a test: what it was told."""
    seen: list[tuple[int, int]] = []
    return seen, lambda done, all: seen.append((done, all))


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2), (1, 3)])
def test_answers_are_moved_while_they_are_used(client, before, after):
    rows = np.random.default_rng(3).standard_normal((150, 16))
    old = LLMCache(client, "faq", shards=before, threshold=0.9)
    old.create(threshold=0.93, guard="OFF", ttl=5_000)
    for n, row in enumerate(rows):
        vector = row if n % 3 else None
        old.set(f"q{n}", f"a{n}", vector=vector, tags=[f"t{n % 2}"], meta={"n": n}, tokens=n + 1, cost=0.25, latency=0.5,
                id=f"e{n}" if n % 5 == 0 else None, ttl=1_000 if n % 7 else float("inf"))  # fmt: skip
    new = LLMCache(client, "faq", shards=after, shards_before=before, threshold=0.9)
    # What is stored meanwhile is newer, what is removed stays away.
    new.set("q1", "newer", vector=rows[1])
    new.delete("e10")
    seen, progress = told()
    new.move(progress=progress)
    assert seen[-1][0] == seen[-1][1] >= 149
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    only = LLMCache(client, "faq", shards=after, threshold=0.9)
    expected = [None if n == 10 else "newer" if n == 1 else f"a{n}" for n in range(150)]
    assert [only.get(f"q{n}") for n in range(150)] == expected
    for n in (1, 2, 4, 5):
        assert only.search(vector=rows[n]).response == expected[n]
    assert only.search(vector=rows[3]) is None
    entry = only.entry("e5")
    assert (entry.meta, entry.tags, entry.tokens, entry.latency) == ('{"n": 5}', ["t1"], 6, 500)
    assert float(entry.cost) == 0.25
    assert 0 < entry.ttl <= 1_000_000
    assert only.entry("e0").ttl == -1
    assert only.config()["threshold"] == pytest.approx(0.93)
    assert only.info().entries == 149
    assert new.move() == 0
    left = [name for name in old.shards.names() if name not in only.shards.names()]
    assert all(client.execute_command("LLMCACHE.SCAN", name, 0)[1] == [] for name in left)
    with pytest.raises(ValueError, match="nothing to move"):
        only.move()


def test_a_move_leaves_nothing_of_an_answer_behind(client):
    """Age, hits, deadline, grace, and that it is stale: of what is served as stale nothing becomes fresh by a move."""
    old = LLMCache(client, "faq", shards=2)
    settings = {"grace": 600, "guard": "STRICT", "audit": 0, "nearmisses": 7, "minsim": 0.5, "numbers": "CONFLICT",
                "confidence": 0.9, "maxerror": 0.02, "exchange": "ON", "jitter": 3, "ttl": 7_000, "cold": "STATIC"}  # fmt: skip
    old.create(**settings)
    names, day = [f"q{n}" for n in range(40)], 86_400_000
    for n, name in enumerate(names):
        place = old._home(name, None, None)
        deadline = [] if n % 4 == 0 else ["PXAT", int(time.time() * 1_000) + 100_000 + n]
        # Of every fourth the time is past, and it is in its grace.
        moved = ["MOVED", day + n, n, 50_000 if n % 4 != 3 else 1_000_000, "FRESH"]
        args = [
            "PROMPT",
            name,
            "RESPONSE",
            f"a{n}",
            "FP32",
            np.eye(40, dtype="f4")[n].tobytes(),
            "TAGS",
            1,
            f"t{n % 5}",
        ]
        client.execute_command("LLMCACHE.SETSEM", place, *args, *deadline, *moved)
    assert old.invalidate(tag="t2", soft=True) == 8
    served = [old.get(name) for name in names]
    before = {name: entry_of(client, old, name) for name in names}
    assert collections.Counter(int(e["stale"]) for e in before.values()) == {1: 16, 0: 24}
    new = LLMCache(client, "faq", shards=5, shards_before=2)
    new.move()
    only = LLMCache(client, "faq", shards=5)
    for name in names:
        was, now = before[name], entry_of(client, only, name)
        assert 0 <= now.pop("age") - was.pop("age") < 60_000, name
        assert 0 <= was.pop("ttl") - now.pop("ttl") < 60_000, name
        assert abs(now.pop("created") - was.pop("created")) < 60_000, name
        assert now == was, name
    assert [only.get(name) for name in names] == served
    assert served.count(None) == 16
    for word, value in settings.items():
        for name in only.shards.names():
            told = client.execute_command("LLMCACHE.CONFIG", name, "GET", word)
            told = next(iter(told.values())) if isinstance(told, dict) else told[1]
            assert told == value or told.decode() == str(value), word


def entry_of(client, cache: LLMCache, prompt: str) -> dict:
    """All that the server tells of an entry, but for its key."""
    place = cache._home(prompt, None, None)
    id = entry_digest(b"", b"", prompt.encode()).hex()
    told = dict(Fields.of(client.execute_command("LLMCACHE.ENTRY", place, id, "VECTOR")))
    del told["key"]
    return told


def test_what_moves_between_two_questions_is_found(client):
    """Asked for where it belongs before it came, and where it was after it went: once more, where it belongs."""
    cache = LLMCache(client, "faq", shards=5, shards_before=2)
    prompt = next(f"q{n}" for n in range(99) if cache._home(f"q{n}", None, None) not in ("faq{0}", "faq{1}"))
    flow = CacheFlows.get(cache, prompt)
    asked = [next(flow), flow.send(None), flow.send(None)]
    home = cache._home(prompt, None, None)
    assert [command.args[1] for command in asked] == [home, asked[1].args[1], home]
    with pytest.raises(StopIteration) as told:
        flow.send(b"an answer")
    assert told.value.value == "an answer"
    flow = CacheFlows.search(cache, vector=[1.0, 0.0])
    nothing = next(flow)
    again = flow.send([None] * len(nothing.commands))
    assert again.commands == nothing.commands
    hit = [b"id", b"x", b"similarity", b"0.99", b"response", b"an answer"]
    with pytest.raises(StopIteration) as told:
        flow.send([hit, *[None] * (len(nothing.commands) - 1)])
    assert told.value.value.response == "an answer"
    # Nowhere: asked twice, and no more often; and once where nothing moves.
    assert cache.get("none") is None
    assert cache.search(vector=[1.0, 0.0]) is None
    flow = CacheFlows.search(LLMCache(client, "faq", shards=5), vector=[1.0, 0.0])
    with pytest.raises(StopIteration):
        flow.send([None] * len(next(flow).commands))


def test_a_tenants_answers_are_moved_together(client):
    old = [LLMCache(client, "faq", shards=3, scope=f"tenant {n}") for n in range(20)]
    for n, cache in enumerate(old):
        cache.set("q", str(n), vector=[1.0, 0.0])
    LLMCache(client, "faq", shards=7, shards_before=3, shard_by="scope").move()
    new = [LLMCache(client, "faq", shards=7, scope=f"tenant {n}") for n in range(20)]
    assert [cache.search("other", vector=[1.0, 0.01]).response for cache in new] == [str(n) for n in range(20)]


def test_documents_are_moved_and_newer_ones_stay(client):
    old = DocumentIndex(client, "docs", shards=2)
    old.create(maxentries=10_000)
    rows = np.random.default_rng(4).standard_normal((300, 8))
    old.add(
        Document(f"d{n}", f"text {n}", vector=rows[n], meta={"n": n}, tags=["a"], tokens=7, ttl=500) for n in range(250)
    )
    old.add((Document(f"d{n}", f"text {n}") for n in range(250, 300)), embed=False)
    place = old.shards.place(b"old")
    vector = rows[0].astype("f4").tobytes()
    client.execute_command("RAG.ADD", place, "old", "FP32", vector, "TEXT", "t", "MOVED", 86_400_000, 3)
    new = DocumentIndex(client, "docs", shards=5, shards_before=2)
    new.add([Document("d7", "newer", vector=rows[7])])
    new.delete("d8")
    seen, progress = told()
    new.move(progress=progress)
    assert seen[-1][0] == seen[-1][1]
    only = DocumentIndex(client, "docs", shards=5)
    found = only.get_many([f"d{n}" for n in range(300)])
    assert [d and d.text for d in found] == [None if n == 8 else "newer" if n == 7 else f"text {n}" for n in range(300)]
    assert (found[9].meta, found[9].tags, found[9].tokens) == ({"n": 9}, ["a"], 7)
    assert 0 < found[9].ttl <= 500
    aged = only.get_many(["old"])[0]
    assert aged.age > 86_000
    assert aged.hits == 4  # This one is counted.
    assert only.search(rows[9], k=1)[0].id == "d9"
    assert "d260" not in [d.id for d in only.search(rows[9], k=300)]
    assert only.info().entries == 300
    assert only.info().maxentries == 10_000
    assert new.move() == 0


def test_embeddings_go_where_they_are_asked_for(client):
    texts = [f"t{n}" for n in range(60)]
    old = EmbeddingCache(client, "emb", model="m", shards=2)
    old.set_many([(text, [1.0, float(n)]) for n, text in enumerate(texts)])
    new = EmbeddingCache(client, "emb", model="m", shards=5, shards_before=2)
    assert all(vector is not None for vector in new.get_many(texts))
    only = EmbeddingCache(client, "emb", model="m", shards=5)
    assert all(vector is not None for vector in only.get_many(texts))


def test_prompts_are_read_where_they_are_and_moved(client):
    old = KVChunks(client, "ns", chunk=4, shards=2)
    old.create()
    prompts = [[1] * 4 + [n] * 12 for n in range(30)]
    for n, tokens in enumerate(prompts):
        old.put_many([b"%d-%d" % (n, at) for at in range(4)], tokens, nx=True, ttl=900)
    new = KVChunks(client, "ns", chunk=4, shards=5, shards_before=2)
    assert [new.match(tokens).chunks for tokens in prompts] == [4] * 30
    assert [chunk.payload for chunk in new.fetch(prompts[9])][1:] == [b"9-1", b"9-2", b"9-3"]
    assert new.missing(prompts[3]) == []
    # What goes on a prefix goes where that is.
    longer = [*prompts[4], *[7] * 4]
    new.put_many([b"more"], longer, start=4)
    assert new.match(longer).chunks == 5
    seen, progress = told()
    assert new.move(progress=progress) > 0
    assert seen[-1][0] == seen[-1][1]
    only = KVChunks(client, "ns", chunk=4, shards=5)
    assert [only.match(tokens).chunks for tokens in prompts] == [4] * 30
    assert only.match(longer).chunks == 5
    assert [chunk.payload for chunk in only.fetch(longer)][1:] == [b"4-1", b"4-2", b"4-3", b"more"]
    assert new.move() == 0
