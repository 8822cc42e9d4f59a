"""Settings and figures: module configs, the INFO section, CONFIG, INFO and STATS of a cache."""

import re
from pathlib import Path

import pytest
from harness.cache import Cache
from harness.replies import fields
from harness.vectors import near, unit

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS = {
    "llmcache.threshold": "0.9",
    "llmcache.ttl": "0",
    "llmcache.jitter": "0",
    "llmcache.quant": "F16",
    "llmcache.auto-create": "yes",
    "llmcache.active-expire": "yes",
    "llmcache.orphan-grace": "600",
    "llmcache.kv-share": "75",
    "llmcache.kv-in-flight": "1073741824",
    "llmcache.reply-max-bytes": "67108864",
    "llmcache.reply-in-flight": "1073741824",
    "llmcache.search-threads": "2",
    "llmcache.search-inline-us": "400",
}


def config(client):
    return {k.decode(): v.decode() for k, v in zip_pairs(client.execute_command("CONFIG", "GET", "llmcache.*"))}


def zip_pairs(reply):
    return reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])


def test_config_get_lists_every_setting_with_its_default(client):
    settings = config(client)
    assert set(settings) >= {*DEFAULTS, "llmcache.sweep-interval-ms"}
    for name, value in DEFAULTS.items():
        if name == "llmcache.threshold":
            assert float(settings[name]) == float(value)
        else:
            assert settings[name].lower() == value.lower(), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", "0.75"),
        ("ttl", "120"),
        ("jitter", "20"),
        ("quant", "q8"),
        ("auto-create", "no"),
        ("active-expire", "no"),
        ("orphan-grace", "5"),
        ("kv-share", "50"),
        ("kv-in-flight", "0"),
        ("reply-max-bytes", "2000000"),
        ("reply-in-flight", "4000000"),
        ("search-threads", "0"),
        ("search-inline-us", "0"),
        ("sweep-interval-ms", "250"),
    ],
)
def test_config_set_is_seen_by_config_get(client, name, value):
    assert client.config_set(f"llmcache.{name}", value)
    assert config(client)[f"llmcache.{name}"].lower() == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("threshold", bad) for bad in ("1.5", "-2", "nan", "high", "")),
        *(("ttl", bad) for bad in ("-1", "x", "99999999999999999999")),
        *(("jitter", bad) for bad in ("101", "-1")),
        *(("quant", bad) for bad in ("f8", "")),
        ("auto-create", "maybe"),
        ("active-expire", "maybe"),
        ("orphan-grace", "-1"),
        ("kv-share", "101"),
        ("kv-in-flight", "-1"),
        ("reply-max-bytes", "1"),
        ("reply-in-flight", "0"),
        ("search-threads", "65"),
        ("search-inline-us", "-1"),
        ("sweep-interval-ms", "0"),
    ],
)
def test_config_set_refuses_what_is_out_of_range(server, client, name, value):
    before = config(client)
    with server.wire() as wire:
        assert wire("CONFIG", "SET", f"llmcache.{name}", value).word == "ERR"
    assert config(client) == before


def test_defaults_are_what_new_caches_get(client):
    client.config_set("llmcache.threshold", "0.75")
    client.config_set("llmcache.ttl", "500")
    client.config_set("llmcache.quant", "NONE")
    made, auto = Cache(client, "made"), Cache(client, "auto")
    made.create()
    auto.setsem("a", "A", unit(1))
    for cache in (made, auto):
        info = cache.info()
        assert (float(info["threshold"]), info["ttl"], info["quant"]) == (0.75, 500, b"NONE")
    assert 490 <= client.ttl(auto.key_of(auto.scan_ids()[0])) <= 500


def test_documents_expire_only_where_a_command_says_so(client):
    """`llmcache.ttl` is for what can be regenerated: answers and embeddings."""
    client.config_set("llmcache.ttl", "500")
    client.execute_command("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 2)
    client.execute_command("RAG.ADD", "docs", "a", "VALUES", 2, 1, 0, "TEXT", "t")
    assert fields(client.execute_command("EMBCACHE.INFO", "emb"))["ttl"] == 500
    assert fields(client.execute_command("RAG.INFO", "docs"))["ttl"] == 0
    assert {client.ttl(key) for key in client.scan_iter()} == {-1}
    client.execute_command("RAG.CREATE", "news", "TTL", 60)
    assert fields(client.execute_command("RAG.INFO", "news"))["ttl"] == 60


def test_the_shipped_redis_conf_sets_defaults_and_evicts_no_conversation(fleet):
    """redis.conf lists every setting at its default but the TTL that its eviction policy needs."""
    text = (ROOT / "redis.conf").read_text()
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    given = {name: value for name, value in lines if name.startswith("llmcache.")}
    told = {line.lstrip("# ").split(None, 1)[0] for line in text.splitlines() if line.lstrip("# ").startswith("llmcache.")}
    assert given.pop("llmcache.ttl") == "86400"
    server = fleet.launch(**given)
    assert told >= set(config(server.client()))
    assert server.info()["llmcache_settings_changed"] == ""
    assert dict(lines)["maxmemory-policy"] == "volatile-lfu"


def test_conversations_and_documents_outlive_answers_under_the_shipped_layout(fleet):
    server = fleet.launch(**{"maxmemory-policy": "volatile-lfu", "llmcache.ttl": "86400", "maxmemory-samples": "10"})
    client = server.client()
    for at in range(20):
        client.execute_command("SESSION.APPEND", f"chat:{at}", "MSG", "user", "x" * 10_000)
        client.execute_command("RAG.ADD", "docs", str(at), "VALUES", 2, 1, at, "TEXT", "t" * 10_000)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 2_000_000)
    for at in range(1_000):
        client.execute_command("LLMCACHE.SET", "faq", "PROMPT", str(at), "RESPONSE", "r" * 10_000)
    assert client.info("stats")["evicted_keys"] > 500
    assert client.exists(*(f"chat:{at}" for at in range(20))) == 20
    assert fields(client.execute_command("RAG.INFO", "docs"))["entries"] == 20


def test_caches_that_exist_keep_what_they_had(client):
    cache = Cache(client)
    cache.create()
    client.config_set("llmcache.threshold", "0.5")
    assert float(cache.info()["threshold"]) == 0.9


def test_settings_of_the_start_command_and_the_file(fleet):
    client = fleet.launch(llmcache__threshold="0.66", llmcache__quant="Q8").client()
    settings = config(client)
    assert float(settings["llmcache.threshold"]) == 0.66
    assert settings["llmcache.quant"].lower() == "q8"


def test_config_rewrite_keeps_settings(fleet, module_path, tmp_path):
    file = tmp_path / "test.conf"
    file.write_text(f"loadmodule {module_path}\nllmcache.ttl 77\n")
    server = fleet.launch(module=False, config_file=file)
    client = server.client()
    assert config(client)["llmcache.ttl"] == "77"
    client.config_set("llmcache.ttl", 99)
    client.config_rewrite()
    assert "llmcache.ttl 99" in file.read_text()
    server.restart()
    assert config(server.client())["llmcache.ttl"] == "99"


# One cache.


def test_config_of_a_cache_shows_its_settings(cache_by):
    cache_by.create(dim=8, model="minilm", threshold="0.8", ttl=60, jitter=5, maxentries=10, maxmemory=1_000_000, quant="Q8", index="FLAT")
    settings = cache_by.config()
    assert float(settings["threshold"]) == pytest.approx(0.8)
    assert (settings["dim"], settings["model"]) == (8, b"minilm")
    assert (settings["ttl"], settings["jitter"]) == (60, 5)
    assert (settings["maxentries"], settings["maxmemory"]) == (10, 1_000_000)
    assert (settings["quant"], settings["index"]) == (b"Q8", b"FLAT")


@pytest.mark.parametrize(("name", "value"), [("THRESHOLD", 0.5), ("TTL", 60), ("JITTER", 7), ("MAXENTRIES", 12), ("MAXMEMORY", 2_000_000)])
def test_config_set_of_a_cache(cache_by, name, value):
    cache_by.create()
    assert cache_by.config_set(name, value) == b"OK"
    assert float(cache_by.config()[name.lower()]) == value
    assert float(cache_by.info()[name.lower()]) == value


def test_a_new_threshold_is_in_force_at_once(cache):
    cache.setsem("a", "A", unit(1))
    asked = near(unit(1), 0.8)
    assert cache.getsem(vector=asked) is None
    cache.config_set("THRESHOLD", "0.7")
    assert cache.getsem(vector=asked) is not None


def test_a_new_ttl_concerns_later_entries(cache):
    first = cache.set("a", "A")
    cache.config_set("TTL", 50)
    second = cache.set("b", "B")
    assert cache.client.ttl(cache.key_of(first)) == -1
    assert 45 <= cache.client.ttl(cache.key_of(second)) <= 50


def test_info_of_a_cache(cache_by):
    cache_by.create(threshold="0.8", model="minilm", maxentries=500)
    cache_by.fill(25, dim=48)
    info = cache_by.info()
    assert info["name"] == b"faq"
    assert (info["entries"], info["dim"], info["quant"]) == (25, 48, b"F16")
    assert (info["model"], info["maxentries"]) == (b"minilm", 500)
    assert float(info["threshold"]) == pytest.approx(0.8)
    assert info["bytes"] == info["index_bytes"] + info["entry_bytes"]
    assert info["entry_bytes"] > 25 * 64
    uid = info["uid"].decode()
    assert len(uid) == 16
    assert set(uid) <= set("0123456789abcdef")


def test_stats_count_hits_by_tier_and_misses_by_reason(cache_by):
    cache_by.create(threshold="0.9")
    cache_by.setsem("a", "A", unit(1), meta={"n": 1}, tokens=100, cost="0.002", latency=1_500)
    cache_by.getsem(prompt="a")
    cache_by.get("a")
    cache_by.getsem(vector=near(unit(1), 0.95))
    cache_by.getsem(vector=near(unit(1), 0.5))
    cache_by.getsem(vector=unit(1), filter=".n == 2")
    cache_by.getsem(prompt="x", vector=unit(1), scope="empty")
    cache_by.get("unknown")
    stats = cache_by.stats()
    assert (stats["lookups"], stats["hits"], stats["misses"]) == (7, 3, 4)
    assert (stats["hits_exact"], stats["hits_semantic"]) == (2, 1)
    assert (stats["misses_threshold"], stats["misses_filter"], stats["misses_empty"]) == (1, 1, 2)
    assert (stats["misses_expired"], stats["misses_maxage"]) == (0, 0)
    assert (stats["stores"], stats["replaced"], stats["evicted"]) == (1, 0, 0)
    assert (stats["tokens_saved"], stats["ms_saved"]) == (300, 4_500)
    assert float(stats["usd_saved"]) == pytest.approx(0.006)


def test_stats_of_one_scope_and_reset(cache_by):
    cache_by.set("a", "A", scope="alice")
    cache_by.get("a", scope="alice")
    cache_by.get("b", scope="alice")
    cache_by.get("a", scope="bob")
    alice = cache_by.stats("SCOPE", "alice")
    assert (alice["lookups"], alice["hits"], alice["misses"]) == (2, 1, 1)
    assert cache_by.stats("SCOPE", "bob")["misses"] == 1
    assert cache_by.stats("SCOPE", "nobody")["lookups"] == 0
    told = cache_by.stats("RESET")
    assert told["lookups"] == 3
    after = cache_by.stats()
    assert (after["lookups"], after["hits"], after["misses"], after["stores"]) == (0, 0, 0, 0)
    assert cache_by.stats("SCOPE", "alice")["lookups"] == 0


def test_the_similarity_histogram_counts_lookups_by_meaning(cache):
    cache.setsem("a", "A", unit(1))
    for similarity in (0.97, 0.97, 0.52, 0.11, -0.4):
        cache.getsem(vector=near(unit(1), similarity))
    histogram = cache.stats()["similarity_histogram"]
    counts = [int(value) for value in flatten(histogram) if isinstance(value, int)]
    assert sum(counts) == 5
    assert sorted(count for count in counts if count) == [1, 1, 1, 2]


def flatten(value):
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        return [inner for part in value for inner in flatten(part)]
    return [value]


def test_info_of_the_server_has_a_section_of_the_module(server, cache):
    cache.fill(10)
    cache.get("prompt 1")
    cache.get("nothing")
    own = {k: v for k, v in server.info("llmcache").items() if k.startswith("llmcache_")}
    assert own, "INFO llmcache is empty"
    assert int(own["llmcache_caches"]) == 1
    assert int(own["llmcache_entries"]) == 10
    assert int(own["llmcache_hits"]) == 1
    assert int(own["llmcache_lookups"]) == 2
    assert set(own) <= set(server.info("everything"))


def version_of_cargo() -> str:
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def test_one_version_everywhere(server, client):
    version = version_of_cargo()
    major, minor, patch = map(int, version.split("."))
    (module,) = [fields(row) for row in client.execute_command("MODULE", "LIST") if b"llmcache" in flatten(row)]
    assert module["ver"] == major * 10_000 + minor * 100 + patch
    assert server.info("llmcache")["llmcache_version"] == version
    assert f"llmcache {version}, kernels " in server.log()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_settings_that_differ_are_told_in_the_log_and_in_info(fleet):
    assert "settings all at their defaults" in fleet.launch().log()
    server = fleet.launch(llmcache__ttl=60, llmcache__guard="strict", llmcache__auto_create="no", llmcache__threshold="0.8")
    told = "threshold=0.8,ttl=60,guard=strict,auto-create=no"
    assert told in server.log()
    assert server.info("llmcache")["llmcache_settings_changed"] == told
    server.client().config_set("llmcache.ttl", 0)
    assert server.info("llmcache")["llmcache_settings_changed"] == told.replace("ttl=60,", "")
