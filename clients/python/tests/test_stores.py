"""EmbeddingCache, DocumentIndex and KVChunks over a real server."""

from __future__ import annotations

import struct
import threading
import time

import numpy as np
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from words import DIM, embed, embed_many

import llmcache.asyncio
from llmcache import Document, DocumentIndex, EmbeddingCache, F, KVChunks, errors
from llmcache._kv import digests, fingerprint


def test_embeddings_are_computed_once(any_r):
    cache, asked = EmbeddingCache(any_r, "emb", model="m"), []

    def compute(texts: list[str]) -> list[list[float]]:
        asked.append(list(texts))
        return embed_many(texts)

    assert cache.get("a") is None
    assert cache.get_many(["a", "b"]) == [None, None]
    assert cache.embed_many([], compute) == []
    first = cache.embed_many(["a", "b", "a"], compute)
    assert asked == [["a", "b"]]
    second = cache.embed_many(["b", "c", "a"], compute, ttl=60)
    assert asked[1:] == [["c"]]
    assert np.allclose(first[0], second[2], atol=0.01)
    assert np.allclose(cache.get("c"), embed("c"), atol=0.01)
    moved = cache.get_many(["a", "x"], ttl=100)
    assert moved[0] is not None
    assert moved[1] is None
    assert cache.info().entries == 3
    assert cache.delete("a", "x") == 1
    with pytest.raises(errors.ModelMismatch):
        EmbeddingCache(any_r, "emb", model="other").get("b")
    with pytest.raises(ValueError, match="vectors came"):
        cache.embed_many(["z"], lambda texts: [])
    with pytest.raises(errors.NoCache):
        EmbeddingCache(any_r, "absent", model="m").info()


def test_more_embeddings_than_one_command_takes(r):
    cache = EmbeddingCache(r, "emb", model="m")
    cache.create(2, quant="F16", ttl=3600, maxentries=100_000, maxmemory=10**9)
    texts = [f"text {n}" for n in range(12_345)]
    made = cache.embed_many(texts, lambda missing: [[1.0, n / 20_000] for n in range(len(missing))])
    assert len(made) == 12_345
    found = cache.get_many(texts)
    assert all(v is not None for v in found)
    assert r.info("commandstats")["cmdstat_EMBCACHE.MSET"]["calls"] == 13


def test_one_computes_an_embedding(r, loop_run):
    cache, asked, found = EmbeddingCache(r, "emb", model="m", lease=1.0), [], []
    cache.create(DIM)

    def slow(text: str) -> list[float]:
        asked.append(text)
        time.sleep(2.5)
        return embed(text)

    threads = [threading.Thread(target=lambda: found.append(cache.get_or_compute("t", slow))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert asked == ["t"]

    def broken(text: str) -> list[float]:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        cache.get_or_compute("u", broken)
    with pytest.raises(errors.MakingFailed, match="no model"):
        cache.get_or_compute("u", slow)

    async def work(client):
        cache = llmcache.asyncio.EmbeddingCache(client, "emb", model="m")

        async def compute(text: str) -> list[float]:
            return embed(text)

        return await cache.get_or_compute("v", compute), await cache.embed_many(["v"], embed_many)

    one, many = loop_run(work)
    assert np.allclose(one, many[0], atol=0.01)


def test_embeddings_do_without_the_server(fleet):
    server = fleet.launch()
    client = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
    cache = EmbeddingCache(client, "emb", model="m", wait=0.2)
    server.kill9()
    assert cache.embed_many(["a"], lambda t: [b"\x00\x00\x80\x3f"])[0][0] == 1.0
    assert cache.get_or_compute("a", embed) == embed("a")
    with pytest.raises(redis.exceptions.ConnectionError):
        EmbeddingCache(client, "emb", model="m", fail_open=False).embed_many(["a"], embed_many)


def test_documents(any_r):
    docs = DocumentIndex(any_r, "docs", embed=embed, embed_many=embed_many)
    new = docs.add([
        Document("returns", "returns are free within 30 days", meta={"year": 2026, "lang": "en"}, tags=["shop"], tokens=8),
        Document("refunds", "refunds take up to 5 days", meta={"year": 2026}, ttl=100),
        Document("META", "a document whose id is a word of the command", vector=embed("x")),
        Document("old", "returns are free within 14 days", meta={"year": 2019}),
    ])  # fmt: skip
    assert new == 4
    assert docs.add([Document("old", "returns are free within 14 days", meta={"year": 2019})]) == 0
    found = docs.search("are returns free", k=2, filter=F.year >= 2025)
    assert found[0].id == "returns"
    assert (found[0].meta, found[0].tags) == ({"year": 2026, "lang": "en"}, ["shop"])
    assert (found[0].similarity or 0) > 0.4
    assert (
        len(docs.search(embed("returns"), k=4, mmr=0.5, tokens=16, similarity=-1, ef=64, fields=("id", "tokens"))) <= 2
    )
    got = docs.get("refunds")
    assert got is not None
    assert 90 < (got.ttl or 0) <= 100
    assert docs.get("none") is None
    assert [d and d.id for d in docs.get_many(["old", "none", "META"])] == ["old", None, "META"]
    some = docs.get_many(["old"], fields=("id", "vector"))[0]
    assert some is not None
    assert np.allclose(some.vector, embed("returns are free within 14 days"), atol=0.01)
    assert [d.id for d in docs.search("returns free", k=1, offset=1)] == [docs.search("returns free", k=2)[1].id]
    assert sorted(docs.ids(filter=F.year == 2026)) == ["refunds", "returns"]
    assert docs.info().entries == 4
    assert docs.delete(filter=F.year < 2020) == 1
    assert docs.delete("META", "none") == 1
    assert len(docs.ids()) == 2
    with pytest.raises(TypeError, match="a filter or a tag"):
        docs.delete("a", filter=F.x == 1)
    assert docs.add([Document("imprint", "Example Ltd.", tags=["legal"], meta={"k": 1})], embed=False) == 1
    assert "imprint" not in [d.id for d in docs.search("Example Ltd.", k=10)]
    plain = docs.get_many(["imprint"], fields=("id", "text", "vector"))[0]
    assert plain is not None
    assert (plain.text, plain.vector) == ("Example Ltd.", None)
    assert docs.delete(tag="legal") == 1
    assert docs.get("imprint") is None
    assert docs.delete(tag="legal") == 0
    with pytest.raises(TypeError, match="a filter or a tag"):
        docs.delete(tag="a", filter=F.x == 1)
    assert docs.drop()
    assert docs.search("returns") == []
    assert docs.ids() == []
    bare = DocumentIndex(any_r, "docs2")
    bare.create(dim=2)
    with pytest.raises(ValueError, match="no vector"):
        bare.add([Document("a", "text")])
    with pytest.raises(ValueError, match="embed"):
        bare.search("text")
    with pytest.raises(TypeError, match="no setting"):
        bare.create(nonsense=1)
    with pytest.raises(errors.NoCache):
        DocumentIndex(any_r, "absent").info()


def test_documents_by_words(any_r):
    index = DocumentIndex(any_r, "docs", embed=embed)
    index.create(words="english")
    index.add([Document("a", "Error ERR-4711 of the pump"), Document("b", "Pumps need water")])
    (found,) = index.search(words="err-4711", fields=("id", "score", "snippet"))
    assert (found.id, found.snippet) == ("a", "Error <b>ERR</b>-<b>4711</b> of the pump")
    assert found.score > 0
    both = index.search("Pumps need water", words="pump", fuse=("rrf", 60))
    assert {one.id for one in both} == {"a", "b"}
    assert all(one.score for one in both)
    assert [one.id for one in index.search(words="+pump -water")] == ["a"]
    with pytest.raises(ValueError, match="a query or words are needed"):
        index.search()
    with pytest.raises(ValueError, match="of one shard"):
        DocumentIndex(any_r, "many", shards=2).search(words="x")


def test_more_documents_than_one_command_takes(r):
    docs = DocumentIndex(r, "docs", embed=lambda t: [1.0, len(t)])
    assert docs.add(Document(f"d{n}", "x" * (n % 50 + 1)) for n in range(2_500)) == 2_500
    assert r.info("commandstats")["cmdstat_RAG.MADD"]["calls"] == 3
    assert len(docs.ids()) == 2_500
    assert docs.delete(*docs.ids()) == 2_500


def test_more_text_than_one_reply_holds(fleet):
    with redis.Redis(port=fleet.launch(llmcache__reply_max_bytes=1 << 20).port) as r:
        docs = DocumentIndex(r, "docs")
        docs.add((Document(f"d{n}", "x" * 100_000) for n in range(30)), embed=False)
        found = docs.get_many([f"d{n}" for n in range(40)])
        assert [d is not None and len(d.text) == 100_000 for d in found] == [True] * 30 + [False] * 10


TOKENS = list(range(24))


def test_chunks(any_r):
    kv = KVChunks(any_r, "ns", model="m", chunk=4, ttl=100)
    kv.create(budget=100_000_000, checksum=True, durable="FULL", ttl=1000)
    stored = kv.put_many([bytes([n]) * 10 for n in range(6)], TOKENS, priority=2)
    assert [one.status for one in stored] == ["STORED"] * 6
    assert kv.put(b"again", TOKENS, nx=True, meta={"a": 1}).status == "EXISTS"
    assert kv.match([*TOKENS, 99, 99, 99, 99])[:2] == (6, 24)
    match = kv.match(TOKENS, lease=30)
    assert match.lease is not None
    assert kv.release(match.lease) == 6
    chunks = kv.fetch(TOKENS, max_bytes=25)
    assert [chunk.payload for chunk in chunks] == [bytes([n]) * 10 for n in range(6)]
    assert [bytes.fromhex(chunk.digest) for chunk in chunks] == kv.digests(TOKENS)
    assert any_r.info("commandstats")["cmdstat_KVCHUNK.FETCH"]["calls"] >= 3
    buffers = [bytearray(10) for _ in range(3)]
    assert len(kv.fetch(TOKENS, start=1, count=3, into=buffers)) == 3
    assert bytes(buffers[0]) == b"\x01" * 10
    with pytest.raises(ValueError, match="its buffer"):
        kv.fetch(TOKENS, into=[bytearray(3)] * 6)
    page = kv.fetch_page(TOKENS, range=(0, 2), lease=5, count=1)
    assert (page.prefix, page.next, page.chunks[0].payload, page.chunks[0].size) == (6, 1, b"\x00\x00", 10)
    digest = kv.digests(TOKENS)[5]
    got = kv.get(digest)
    assert got is not None
    assert got.payload == b"\x05" * 10
    assert kv.get("ab" * 32) is None
    assert kv.missing([*TOKENS, 1, 2, 3, 4]) == [6]
    assert kv.find(TOKENS[4:12])[0][:2] == (0, 4)
    assert kv.pin(digest, prefix=True) == 6
    assert kv.unpin(digest.hex(), prefix=True) == 6
    assert kv.touch(digest) == 1
    held, name = kv.lease(5, digest)
    assert held == 1
    assert name is not None
    kv.budget(200_000_000)
    assert len(kv.ids()) == 6
    assert kv.info().chunks == 6
    assert kv.stats(reset=True).stored == 6
    assert kv.verify(10)[0].checked == 6
    assert kv.delete(digest) == 1
    assert kv.delete(kv.digests(TOKENS)[0], subtree=True) == 5
    with pytest.raises(TypeError, match="tokens or its hashes"):
        kv.match()
    with pytest.raises(errors.NoCache):
        KVChunks(any_r, "absent").info()


def test_any_set_of_chunks_past_holes(any_r):
    kv = KVChunks(any_r, "ns")
    hashes = [bytes([n]) * 32 for n in range(9)]
    assert kv.fetch_set(hashes) == [None] * 9
    for n in (0, 3, 4, 8):
        kv.put(b"%d" % n * 1_000, hash=hashes[n])
    buffers = [bytearray(1_000) for _ in hashes]
    found = kv.fetch_set(hashes, into=buffers, max_bytes=2_500)
    assert [chunk and chunk.payload[:1] for chunk in found] == [b"0", None, None, b"3", b"4", None, None, None, b"8"]
    assert [bytes(buffer[:1]) for buffer in buffers] == [b"0", b"\0", b"\0", b"3", b"4", b"\0", b"\0", b"\0", b"8"]
    assert any_r.info("commandstats")["cmdstat_KVCHUNK.FETCH"]["calls"] == 3


def test_chunks_by_digests_of_ones_own(r):
    kv = KVChunks(r, "ns")
    hashes = [bytes([n]) * 32 for n in range(4)]
    big = bytes(range(256)) * 12_000
    assert [s.status for s in kv.put_many([b"a", big, b"c"], hashes=hashes, start=0)] == ["STORED"] * 3
    fetched = kv.fetch(hashes=hashes)
    assert [c.payload for c in fetched] == [b"a", big, b"c"]
    assert fetched[1].size == len(big)
    assert kv.put(b"d", hash=hashes[3], parent=hashes[2], meta={"x": 1}).status == "STORED"
    assert kv.match(hashes=hashes, filter=F.x == 1).chunks == 0
    assert kv.fetch(hashes=hashes)[3].meta == {"x": 1}
    assert kv.delete(*hashes) == 4


def test_digests_are_those_of_the_server_and_the_docs(r):
    assert fingerprint().hex() == "b940552052509cdb1684ab714ec0e46736580f05ce99fb3cbceafb8ce8101118"
    second = fingerprint("llama-3.1-8b", "bf16", "KV_2LTD", (2, 32, 256, 1024))
    assert second.hex() == "b8604e42f99b6d44d8e9882b1e09fdfffd0dbb2b1120daf2a61cd6568506a994"
    assert (
        digests(second, range(256), 256, b"tenant-1")[0].hex()
        == "090cff84d6502a1f3d1e42415cf7fe37ee881f19e88dcdf7e1dca3f212a807d3"
    )
    third = digests(fingerprint(chunk=4), struct.pack("<9I", 1, 2, 3, 4, 4294967295, 0, 7, 8, 9), 4)
    assert [d.hex()[:8] for d in third] == ["33c4360b", "1cee9f4f"]
    kv = KVChunks(r, "ns", model="m", dtype="bf16", form="f", shape=(2, 3), chunk=8, salt="s")
    kv.create()
    told = r.execute_command("KVCHUNK.DIGESTS", "ns", "TOKENS", struct.pack("<24I", *TOKENS), "SALT", "s")
    assert [d.hex().encode() for d in kv.digests(TOKENS)] == told
