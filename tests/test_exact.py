"""The exact tier: the same prompt again, byte for byte, needs no vector."""

import pytest
from harness.names import entry_id, entry_key


@pytest.fixture
def server(emptied):
    return emptied


def test_set_answers_the_id_that_the_documents_define(cache_by):
    id_ = cache_by.set("What is your refund policy?", "30 days.", scope="eu", context="gpt-5;t=0")
    assert id_ == entry_id("What is your refund policy?", "eu", "gpt-5;t=0")


def test_get_answers_the_response_alone(cache_by):
    cache_by.set("ping?", "pong")
    assert cache_by.get("ping?") == b"pong"


def test_get_of_an_unknown_prompt_is_null(cache_by):
    cache_by.set("ping?", "pong")
    assert cache_by.get("ping") is None


def test_get_on_an_absent_cache_is_null_and_creates_nothing(cache_by):
    assert cache_by.get("ping?") is None
    assert cache_by.client.dbsize() == 0


def test_getsem_finds_the_prompt_without_a_vector(cache_by):
    id_ = cache_by.set("ping?", "pong", tags=["a", "b"], meta={"year": 2024})
    hit = cache_by.getsem(prompt="ping?")
    assert (hit.id, hit.tier, hit.similarity) == (id_, "exact", 1.0)
    assert (hit.prompt, hit.response) == (b"ping?", b"pong")
    assert (hit.ttl, hit.stale) == (-1, 0)
    assert (hit.meta, hit.tags) == ({"year": 2024}, [b"a", b"b"])
    assert 0 <= hit.age < 60_000


def test_getsem_of_an_unknown_prompt_is_null(cache_by):
    cache_by.set("ping?", "pong")
    assert cache_by.getsem(prompt="pong?") is None


def test_an_exact_hit_needs_no_threshold(cache):
    cache.create(threshold=1)
    cache.set("ping?", "pong")
    assert cache.getsem(prompt="ping?").tier == "exact"


def test_prompts_are_compared_as_bytes(cache):
    cache.set("Café", "composed")
    assert cache.get("Cafe\u0301") is None
    assert cache.get("café") is None
    assert cache.get("Café ") is None


def test_binary_prompts_and_responses_come_back_unchanged(cache):
    every_byte = bytes(range(256))
    id_ = cache.set(b"\x00" + every_byte, every_byte + b"\x00")
    assert id_ == entry_id(b"\x00" + every_byte)
    assert cache.get(b"\x00" + every_byte) == every_byte + b"\x00"
    assert cache.get(every_byte) is None
    hit = cache.getsem(prompt=b"\x00" + every_byte)
    assert (hit.prompt, hit.response) == (b"\x00" + every_byte, every_byte + b"\x00")


def test_an_empty_response_is_a_hit(cache):
    cache.set("say nothing", "")
    assert cache.get("say nothing") == b""


def test_a_second_store_replaces_the_response(cache):
    first = cache.set("ping?", "pong")
    assert cache.set("ping?", "PONG", meta={"v": 2}) == first
    assert cache.get("ping?") == b"PONG"
    assert cache.info()["entries"] == 1


def test_each_entry_is_one_redis_key_named_by_cache_uid_and_id(cache):
    id_ = cache.set("ping?", "pong")
    key = entry_key("faq", cache.uid, entry_id("ping?"))
    assert sorted(cache.client.keys()) == sorted([b"faq", key])
    assert key == b"{faq}:" + cache.uid.encode() + b":" + id_.encode()
    assert cache.client.type("faq") == b"llm-cache"
    assert cache.client.type(key) == b"llm-entry"


def test_a_cache_name_with_a_hash_tag_keeps_it(cache):
    cache.name = "app:{tenant}:faq"
    id_ = cache.set("ping?", "pong")
    key = b"app:{tenant}:faq:" + cache.uid.encode() + b":" + id_.encode()
    assert cache.client.exists(key) == 1
    assert cache.get("ping?") == b"pong"


def test_a_long_prompt_and_response_are_kept_whole(cache):
    prompt, response = "p" * 1_000_000, "r" * 5_000_000
    cache.set(prompt, response)
    assert cache.get(prompt) == response.encode()
    assert cache.get(prompt[:-1]) is None
