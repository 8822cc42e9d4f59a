"""The three forms of a vector, and that each means the same."""

import numpy as np
import pytest
import redis
from harness import vectors
from harness.vectors import fp16, fp32, near, unit, values

FORMS = list(vectors.FORMS)


@pytest.fixture
def server(emptied):
    return emptied


@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize("stored", FORMS)
def test_a_vector_stored_in_one_form_is_found_in_any(cache_by, stored, asked):
    cache_by.setsem("a", "A", vectors.FORMS[stored](unit(1, 40)))
    cache_by.setsem("b", "B", vectors.FORMS[stored](unit(2, 40)))
    hit = cache_by.getsem(vector=vectors.FORMS[asked](near(unit(2, 40), 0.96)))
    assert hit.response == b"B"
    assert hit.similarity == pytest.approx(0.96, abs=3e-3)


def test_forms_of_equal_numbers_leave_equal_entries(cache):
    """Small powers of two are exact in each form, so the digests of the keys must agree."""
    numbers = np.array([0.5, -0.25, 1.0, 0.125, -2.0, 0.0, 4.0, -0.5])
    digests = set()
    for form in vectors.FORMS.values():
        cache.setsem("a", "A", form(numbers))
        assert cache.getsem(vector=fp32(numbers)).similarity == 1.0
        digests.add(cache.getsem(vector=values(near(numbers, 0.93))).similarity)
    assert len(digests) == 1


def test_values_take_numbers_as_people_write_them(cache):
    cache.setsem("a", "A", ["VALUES", 4, "1", "-.5", "2.5e-1", "+0.125"])
    assert cache.getsem(vector=fp32(np.array([1, -0.5, 0.25, 0.125]))).similarity == 1.0


def test_option_names_are_read_in_any_case(cache):
    cache.client.execute_command(
        *("llmcache.setsem", "faq", "prompt", "a", "response", "A", "fp32", fp32(unit(1))[1])
    )
    reply = cache.client.execute_command("LLMCache.GetSem", "faq", "Fp32", fp32(unit(1))[1])
    assert b"A" in reply


def test_options_may_stand_in_any_order(cache):
    cache.client.execute_command(
        *("LLMCACHE.SETSEM", "faq", "EX", 100, *fp16(unit(1)), "TAGS", 1, "t"),
        *("SCOPE", "s", "RESPONSE", "A", "META", '{"k":1}', "PROMPT", "a"),
    )
    hit = cache.getsem(threshold=0.5, vector=unit(1), scope="s")
    assert (hit.response, hit.tags, hit.meta) == (b"A", [b"t"], {"k": 1})


def test_values_that_look_like_options_are_values(cache):
    cache.setsem("PROMPT", "RESPONSE", unit(1), scope="CONTEXT", context="SCOPE", tags=["TAGS", "META"])
    hit = cache.getsem(prompt="PROMPT", scope="CONTEXT", context="SCOPE")
    assert (hit.response, hit.tags) == (b"RESPONSE", [b"TAGS", b"META"])


def test_an_entry_tells_its_vector_when_asked(server, resp):
    client = server.client(resp)
    client.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", "ID", "a", *fp32(unit(1, 40)))
    client.execute_command("LLMCACHE.SET", "faq", "PROMPT", "q", "RESPONSE", "r", "ID", "b")

    def entry(id_, *words):
        reply = client.execute_command("LLMCACHE.ENTRY", "faq", id_, *words)
        return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))

    assert b"vector" not in entry("a")
    told = entry("a", "vector")
    assert np.allclose(np.frombuffer(told[b"vector"], "<f4"), unit(1, 40), atol=0.02)
    assert {name: told[name] for name in entry("a") if name != b"age"} == {n: v for n, v in entry("a").items() if n != b"age"}
    assert entry("b", "VECTOR")[b"vector"] is None
    assert client.execute_command("LLMCACHE.ENTRY", "faq", "none", "VECTOR") is None
    for words in (("VECTOR", "VECTOR"), ("OTHER",)):
        with pytest.raises(redis.ResponseError, match="VECTOR|OTHER"):
            client.execute_command("LLMCACHE.ENTRY", "faq", "a", *words)
