"""Servers of different CPUs, and servers without the model: all hold the same, and none embeds what another has embedded."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from harness import vectors
from harness.model import models_option, write_model
from harness.persistence import wait_for_rewrite
from harness.replication import Pair

TEXTS = [f"ab cd {one}{two} ef" for one in "abcdefgh" for two in "abcdefgh"]
GIVEN = vectors.fp32(vectors.unit(3, 64))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return models_option(small=write_model(tmp_path_factory.mktemp("model"), threshold=0.8))


def engines() -> list[str]:
    """What this CPU runs, the plainest first."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    faster = {"avx2": {"avx2", "fma"}, "vnni": {"avx512f", "avx512bw", "avx512_vnni", "fma"}}
    return ["scalar", *(name for name, needed in faster.items() if needed <= flags)]


def fill(client) -> None:
    """Every command that stores what it embeds."""
    run = client.execute_command
    run("LLMCACHE.CREATE", "faq", "EMBED", "small")
    run("RAG.CREATE", "docs", "EMBED", "small", "QUANT", "F16")
    run("EMBCACHE.CREATE", "emb", "EMBED", "small", "QUANT", "NONE")
    for number, text in enumerate(TEXTS):
        run("LLMCACHE.SETSEM", "faq", "PROMPT", text, "RESPONSE", str(number))
        run("RAG.ADD", "docs", str(number), "TEXT", text)
        run("EMBCACHE.FETCH", "emb", "TEXT", text)
    run("RAG.MADD", "docs", 2, "m1", "TEXT", "mm nn", "m2", "TEXT", " ".join(["oo"] * 90), "TRUNCATE")
    reply = run("LLMCACHE.FETCH", "faq", "PROMPT", "zz qq")
    run("LLMCACHE.SETSEM", "faq", "PROMPT", "zz qq", "RESPONSE", "made", "LEASE", reply[reply.index(b"token") + 1])
    run("LLMCACHE.INVALIDATE", "faq", "NEAR", "PROMPT", TEXTS[7], "SIMILARITY", "0.999")


def answers(client) -> list:
    """What questions by text find, with similarities to the last bit."""
    run = client.execute_command
    found = []
    for text in TEXTS[::5]:
        asked = f"{text} gh"
        found.append(run("LLMCACHE.GETSEM", "faq", "PROMPT", asked, "COUNT", 5, "THRESHOLD", "0.5", "RETURN", 2, "id", "similarity"))
        found.append(run("RAG.SEARCH", "docs", "TEXT", asked, "COUNT", 5, "RETURN", 2, "id", "similarity"))
        found.append(run("EMBCACHE.GET", "emb", "TEXT", asked))
    return found


def test_replicas_of_other_cpus_hold_and_answer_the_same(fleet, model):
    names = engines()
    option = {"llmcache.embed-models": model}
    primary = fleet.launch(**option, **{"llmcache.embed-engine": names[-1]})
    replicas = {
        name: fleet.launch(**option, **{"llmcache.embed-engine": name, "replicaof": ["127.0.0.1", primary.port]})
        for name in names
    }
    for replica in replicas.values():
        Pair(primary, replica).catch_up()
    fill(primary.client())
    wanted = answers(primary.client())
    for replica in replicas.values():
        Pair(primary, replica).assert_equal()
        before = int(replica.info("llmcache")["llmcache_texts_embedded"])
        assert before == 0
        assert answers(replica.client()) == wanted
        assert int(replica.info("llmcache")["llmcache_texts_embedded"]) > 0
    # Promoted, each embeds what it stores to the bits that the others would have stored.
    stored = set()
    for replica in replicas.values():
        client = replica.client()
        client.replicaof("NO", "ONE")
        client.execute_command("RAG.ADD", "docs", "new", "TEXT", "pp qq rr ss")
        stored.add(str(client.execute_command("RAG.SEARCH", "docs", *GIVEN, "COUNT", 100, "RETURN", 2, "id", "similarity")))
    assert len(stored) == 1


@pytest.mark.parametrize("how", ["rdb", "aof", "aof, rewritten"])
def test_a_restart_without_the_model(fleet, model, how):
    """All data is held; exact questions and vectors are served, texts refused with the reason."""
    server = fleet.launch(**{"llmcache.embed-models": model, "appendonly": "no" if how == "rdb" else "yes"})
    client = server.client()
    fill(client)
    by_vector = client.execute_command("RAG.SEARCH", "docs", *GIVEN, "COUNT", 9, "RETURN", 2, "id", "similarity")
    if how == "rdb":
        client.save()
    elif how == "aof, rewritten":
        client.execute_command("BGREWRITEAOF")
        wait_for_rewrite(client)
    digest = server.digest()
    server.stop()
    del server.options["llmcache.embed-models"]
    server.start()
    assert server.digest() == digest
    run = server.client().execute_command
    assert int(server.info("llmcache")["llmcache_models"]) == 0
    assert run("RAG.SEARCH", "docs", *GIVEN, "COUNT", 9, "RETURN", 2, "id", "similarity") == by_vector
    assert b"exact" in run("LLMCACHE.GETSEM", "faq", "PROMPT", TEXTS[0])
    assert len(run("EMBCACHE.GET", "emb", "TEXT", TEXTS[0])) == 256
    assert run("LLMCACHE.GETSEM", "faq", *GIVEN, "COUNT", 3, "THRESHOLD", "-1") != []
    for command in (
        ("LLMCACHE.GETSEM", "faq", "PROMPT", "other words"),
        ("LLMCACHE.SETSEM", "faq", "PROMPT", "other words", "RESPONSE", "x"),
        ("LLMCACHE.FETCH", "faq", "PROMPT", "other words"),
        ("RAG.ADD", "docs", "new", "TEXT", "other words"),
        ("RAG.SEARCH", "docs", "TEXT", "other words"),
        ("EMBCACHE.GET", "emb", "TEXT", "other words"),
        ("EMBCACHE.FETCH", "emb", "TEXT", "other words"),
    ):
        with pytest.raises(redis.ResponseError, match="NOMODEL"):
            run(*command)
    assert server.digest() == digest
    server.options["llmcache.embed-models"] = model
    server.restart()


def test_threads_are_named_for_what_they_do(fleet, model):
    server = fleet.launch(**{"llmcache.embed-models": model, "llmcache.embed-threads": 1})
    server.client().execute_command("LLMCACHE.CREATE", "faq", "EMBED", "small")
    server.client().execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", "ab cd")
    names = [path.read_text().strip() for path in Path(f"/proc/{server.pid}/task").glob("*/comm")]
    assert names.count("llmcache-embed") == 1
    assert {name for name in names if name.startswith("llmcache")} <= {"llmcache-embed", "llmcache-search", "llmcache-free"}
