"""One cache as several over a real cluster: where entries are, look-ups by meaning over all, more shards than before."""

from __future__ import annotations

import asyncio
import collections

import numpy as np
import pytest
import redis.asyncio.cluster
import redis.cluster
from harness.cluster import Cluster

import llmcache.asyncio
from llmcache import Document, DocumentIndex, EmbeddingCache, KVChunks, LLMCache, Session, user
from llmcache._shards import Shards, jump


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
