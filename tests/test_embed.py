"""Texts in the place of vectors: what is embedded, what is not, and that the answer is that of the vector."""

from __future__ import annotations


import pytest
import redis
from harness import vectors
from harness.cache import Cache
from harness.model import models_option, write_model
from harness.replication import Pair

ASKED = "ab cd ef gh ij"
NEAR = "ab cd ef gh ij?"
FAR = "mm nn oo"
GIVEN = vectors.unit(3, 64)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), threshold=0.8)


@pytest.fixture
def server(fleet, model):
    return fleet.launch(**{"llmcache.embed-models": models_option(small=model)})


@pytest.fixture
def embedding(cache) -> Cache:
    cache.create(embed="small")
    return cache


def count(client, name: str) -> int:
    return client.info("llmcache")[f"llmcache_{name}"]


def test_a_stored_answer_is_found_by_other_words(embedding):
    embedding.setsem(ASKED, "yes")
    assert embedding.getsem(prompt=ASKED).tier == "exact"
    found = embedding.getsem(prompt=NEAR)
    assert (found.tier, found.response) == ("semantic", b"yes")
    assert 0.8 <= found.similarity < 1
    assert embedding.getsem(prompt=FAR) is None
    assert embedding.getsem(prompt=NEAR, exact=True) is None


def test_settings_follow_from_the_model(embedding):
    config = embedding.config()
    assert config["dim"] == 64
    assert float(config["threshold"]) == 0.8
    assert config["model"].startswith(b"small@")
    # Asked for again it is the same cache.
    assert embedding.create(embed="small") == b"OK"
    with pytest.raises(redis.ResponseError, match="other settings"):
        embedding.create(embed="small", script="any")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["EMBED", "other"], "NOMODEL"),
        (["EMBED", "small", "DIM", "32"], "DIM must be 64"),
        (["EMBED", "small", "MODEL", "x"], "MODEL is left out"),
        (["SCRIPT", "ANY"], "SCRIPT is for"),
        (["EMBED", "small", "SCRIPT", "latin"], "SCRIPT must be ANY"),
        (["EMBED", "x" * 65], "TOOBIG"),
    ],
)
def test_what_create_refuses(cache, given, error):
    with pytest.raises(redis.ResponseError, match=error):
        cache.run("CREATE", *given)
    assert cache.client.dbsize() == 0


def test_a_given_vector_is_used_and_never_checked(embedding):
    before = count(embedding.client, "texts_embedded")
    embedding.setsem(ASKED, "yes", vector=GIVEN)
    assert embedding.getsem(prompt=NEAR, vector=GIVEN).response == b"yes"
    assert count(embedding.client, "texts_embedded") == before


def test_a_cache_without_a_model_is_as_before(cache):
    cache.create()
    cache.setsem(ASKED, "yes")
    assert cache.getsem(prompt=NEAR) is None
    assert count(cache.client, "texts_embedded") == 0


def test_the_default_model_embeds_for_caches_that_say_nothing(fleet, model):
    server = fleet.launch(
        **{"llmcache.embed-models": models_option(small=model), "llmcache.embed-default": "small"}
    )
    cache = Cache(server.client(), "auto")
    cache.setsem(ASKED, "yes")
    assert cache.getsem(prompt=NEAR).response == b"yes"
    # Vectors of another size make a cache of their own kind.
    other = Cache(server.client(), "other")
    other.setsem(ASKED, "yes", vector=vectors.unit(1, 2))
    assert other.config()["dim"] == 2
    plain = Cache(server.client(), "plain")
    plain.create(embed="none")
    assert plain.config()["model"] == b""


def test_texts_are_embedded_once(embedding):
    client = embedding.client
    embedding.getsem(prompt=ASKED)
    embedding.setsem(ASKED, "yes")
    embedding.getsem(prompt=ASKED)
    assert count(client, "texts_embedded") == 1
    assert count(client, "texts_remembered") == 1
    # A digest, a vector of 64 dimensions, and what a table of them takes.
    assert count(client, "texts_memo") == 1
    assert 256 < count(client, "texts_memo_bytes") < 4_096
    for number in range(20):
        embedding.getsem(prompt=f"{ASKED} {chr(97 + number)}")
    assert count(client, "texts_memo") == 21
    client.config_set("llmcache.embed-memo", 2)
    embedding.getsem(prompt=f"{ASKED} zz")
    assert count(client, "texts_memo") == 2


def test_an_explanation_says_what_embedding_cost(embedding):
    embedding.setsem(FAR, "no")
    first, second = (embedding.explain(prompt=ASKED) for _ in range(2))
    assert (first["tokens"], second["tokens"]) == (7, 7)
    assert first["embed_us"] > 0
    assert second["embed_us"] == 0
    given = embedding.explain(vector=GIVEN)
    assert (given["tokens"], given["embed_us"]) == (None, None)


def test_texts_that_would_stand_for_others_are_not_embedded(embedding):
    head = " ".join(["ab"] * 62)
    for stored, asked, reason in [
        (f"{head} cd", f"{head} ef", "too-long"),
        ("ขอเงินคืนได้อย่างไร", "เปลี่ยนที่อยู่ได้อย่างไร", "script"),
        ("\u200b", " ", "empty"),
    ]:
        embedding.setsem(stored, "kept")
        assert embedding.getsem(prompt=stored).tier == "exact"
        explained = embedding.explain(prompt=asked)
        assert (explained["status"], explained["reason"]) == ("miss", reason)
        assert count(embedding.client, f"texts_refused_{reason.replace('-', '_')}") > 0
    assert embedding.info()["vectors"] == 0
    # Thai, for whoever knows that the model knows it.
    anyway = Cache(embedding.client, "any")
    anyway.create(embed="small", script="any")
    anyway.setsem("ขอเงินคืนได้อย่างไร", "kept")
    assert anyway.info()["vectors"] == 1


SMILE, PARTY = f"{ASKED} \U0001f600", f"{ASKED} \U0001f389"
ACCENT, OTHER_ACCENT = "ab cd \u00e9f gh ij", "ab cd e\u0302f gh ij"
LONG_WORDS = [f"ab cd ef gh ij {'x' * 120}{end}" for end in "yz"]


@pytest.mark.parametrize("guard", ["OFF", "ON", "STRICT"])
@pytest.mark.parametrize(("stored", "asked"), [
        (SMILE, PARTY),
        (SMILE, ASKED),
        (ASKED, SMILE),
        (ACCENT, ASKED),
        (ASKED, ACCENT),
        (ACCENT, OTHER_ACCENT),
        LONG_WORDS,
    ])
def test_words_that_the_model_does_not_know_must_be_the_same(embedding, guard, stored, asked):
    """To the model they are one unknown piece, and accents are stripped: vectors of questions that differ in nothing else are equal."""
    client = embedding.client
    embedding.run("CONFIG", "SET", "guard", guard)
    embedding.setsem(stored, "yes")
    explained = embedding.explain(prompt=asked)
    assert (explained["status"], explained["reason"], explained["guard"]) == ("miss", "guard", b"unseen")
    assert embedding.getsem(prompt=asked) is None
    assert embedding.getsem_many(9, prompt=asked) == []
    assert embedding.run("MGETSEM", 2, "PROMPT", asked, "PROMPT", stored)[0] is None
    assert client.eval("return redis.call('LLMCACHE.GETSEM', KEYS[1], 'PROMPT', ARGV[1])", 1, "faq", asked) is None
    assert b"LEAD" in embedding.run("FETCH", "PROMPT", asked)
    # The same words in another text are no hindrance; nor is it where the vector was given.
    found = embedding.getsem(prompt=stored.upper())
    assert (found.tier, found.response) == ("semantic", b"yes")
    embedding.setsem(stored, "given", vector=GIVEN)
    embedding.run("CONFIG", "SET", "guard", "OFF")
    assert embedding.getsem(prompt=asked, vector=GIVEN).response == b"given"


def test_an_answer_on_its_way_to_other_unknown_words_will_not_do(embedding):
    assert b"LEAD" in embedding.run("FETCH", "PROMPT", SMILE)
    assert b"BUSY" in embedding.run("FETCH", "PROMPT", SMILE.upper(), "WAIT", 0)
    assert b"LEAD" in embedding.run("FETCH", "PROMPT", PARTY, "WAIT", 0)


def test_what_is_no_utf8_is_not_embedded(embedding):
    """Bytes that are no text would be left out, and texts that differ in them be one."""
    embedding.setsem(b"ab cd ef gh caf\xe9", "yes")
    assert embedding.getsem(prompt=b"ab cd ef gh caf\xe9").tier == "exact"
    assert embedding.explain(prompt=b"ab cd ef gh caf\xe8")["reason"] == "script"


def test_a_vector_is_replicated_and_never_the_text_alone(fleet, model):
    option = {"llmcache.embed-models": models_option(small=model)}
    primary = fleet.launch(**option)
    of = {"replicaof": ["127.0.0.1", primary.port]}
    scalar = fleet.launch(**option, **{"llmcache.embed-engine": "scalar"}, **of)
    bare = fleet.launch(**of)
    cache = Cache(primary.client())
    cache.create(embed="small")
    for word in ("ab", "cd", "ef"):
        cache.setsem(f"{word} {ASKED}", word)
    for replica in (scalar, bare):
        Pair(primary, replica).assert_equal()
    # The replica embeds questions itself, to the same bits.
    asked = f"ab {NEAR}"
    on_replica, own = Cache(scalar.client()).getsem(prompt=asked), cache.getsem(prompt=asked)
    assert (on_replica.id, on_replica.similarity) == (own.id, own.similarity)
    # One without the model answers what needs none.
    other = Cache(bare.client())
    assert other.getsem(prompt=f"ab {ASKED}").tier == "exact"
    with pytest.raises(redis.ResponseError, match="NOMODEL"):
        other.getsem(prompt=asked)


def test_aof_holds_the_vector(fleet, model, server_binary):
    option = {"llmcache.embed-models": models_option(small=model), "appendonly": "yes"}
    server = fleet.launch(**option)
    cache = Cache(server.client())
    cache.create(embed="small")
    cache.setsem(ASKED, "yes")
    digest = server.client().execute_command("DEBUG", "DIGEST")
    server.client().execute_command("DEBUG", "LOADAOF")
    assert server.client().execute_command("DEBUG", "DIGEST") == digest
    assert cache.getsem(prompt=NEAR).response == b"yes"


def test_another_model_under_the_name_is_not_mixed_in(fleet, model, tmp_path):
    first = fleet.launch(**{"llmcache.embed-models": models_option(small=model)})
    cache = Cache(first.client())
    cache.create(embed="small")
    cache.setsem(ASKED, "yes")
    dump = first.client().dump("faq")
    second = fleet.launch(**{"llmcache.embed-models": models_option(small=write_model(tmp_path / "other", 2))})
    second.client().restore("faq", 0, dump)
    other = Cache(second.client())
    with pytest.raises(redis.ResponseError, match="MODELMISMATCH"):
        other.getsem(prompt=NEAR)
    with pytest.raises(redis.ResponseError, match="MODELMISMATCH"):
        other.setsem(NEAR, "no")
    assert other.getsem(vector=GIVEN) is None


@pytest.mark.parametrize("words", [10, 40])
def test_multi_and_scripts_embed_short_texts_at_once(embedding, words):
    client, text = embedding.client, " ".join(["ab", "cd"] * (words // 2))
    embedding.setsem(text, "yes")
    asked = f"{text} ef"
    calls = [
        lambda: client.pipeline(transaction=True).execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", asked).execute()[0],
        lambda: client.eval("return redis.call('LLMCACHE.GETSEM', KEYS[1], 'PROMPT', ARGV[1])", 1, "faq", asked),
    ]
    client.execute_command("CONFIG", "SET", "llmcache.embed-memo", 0)
    for call in calls:
        if words <= 20:
            assert b"yes" in call()
        else:
            with pytest.raises(redis.ResponseError, match="EMBEDLONG"):
                call()


def test_settings_of_models_are_fixed(client):
    for name in ("embed-models", "embed-engine"):
        with pytest.raises(redis.ResponseError, match="immutable"):
            client.config_set(f"llmcache.{name}", "x=/etc")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"embed-models": "small=/nowhere"}, "config.json"),
        ({"embed-models": "small"}, "name=folder"),
        ({"embed-models": "a/b=/tmp"}, "letters, digits"),
        ({"embed-default": "small"}, "embed-default"),
        ({"embed-engine": "gpu"}, "embed-engine must be one of scalar"),
    ],
)
def test_a_bad_model_refuses_the_start(fleet, options, said):
    with pytest.raises(AssertionError, match=said):
        fleet.launch(**{f"llmcache.{name}": value for name, value in options.items()})
    fleet.servers.clear()


def test_many_questions_by_text(embedding):
    embedding.setsem(ASKED, "yes")
    reply = embedding.run("MGETSEM", 3, "PROMPT", NEAR, "PROMPT", ASKED, "PROMPT", FAR)
    assert [one and b"yes" in one for one in reply] == [True, True, None]
    given = embedding.run("MGETSEM", 2, *vectors.fp32(GIVEN), "PROMPT", ASKED, "PROMPT", NEAR, "RETURN", 1, "response")
    assert given == [[b"response", b"yes"]] * 2


def test_documents_by_text(client):
    client.execute_command("RAG.CREATE", "docs", "EMBED", "small")
    assert client.execute_command("RAG.ADD", "docs", "one", "TEXT", ASKED) == 1
    added = client.execute_command("RAG.MADD", "docs", 3, "two", "TEXT", FAR, "three", "TEXT", "qq rr", "one", "TEXT", ASKED)
    assert added == [1, 1, 0]
    found = client.execute_command("RAG.SEARCH", "docs", "TEXT", NEAR, "COUNT", 1)
    assert b"one" in found[0]
    assert client.execute_command("RAG.SEARCH", "nowhere", "TEXT", NEAR) == []
    for text in (" ".join(["ab"] * 90), "สวัสดี"):
        with pytest.raises(redis.ResponseError, match="not embedded"):
            client.execute_command("RAG.MADD", "docs", 2, "four", "TEXT", ASKED, "five", "TEXT", text)
    assert client.execute_command("RAG.GET", "docs", "four") is None
    # Of a long one the beginning, where that is asked for.
    long = " ".join(["ab"] * 90)
    assert client.execute_command("RAG.MADD", "docs", 2, "four", "TEXT", long, "TRUNCATE", "five", "TEXT", FAR) == [1, 1]
    assert client.execute_command("RAG.ADD", "docs", "six", "TEXT", f"{long} cd " * 1_000, "TRUNCATE", "TOKENS", 7) == 1
    assert long.encode() in client.execute_command("RAG.GET", "docs", "four")
    best = client.execute_command("RAG.SEARCH", "docs", "TEXT", " ".join(["ab"] * 62), "COUNT", 2, "RETURN", 2, "id", "similarity")
    assert {one[1] for one in best} == {b"four", b"six"}
    assert best[0][3] == best[1][3]
    client.execute_command("RAG.CREATE", "plain")
    for call in (("RAG.ADD", "plain", "one", "TEXT", ASKED), ("RAG.SEARCH", "plain", "TEXT", ASKED)):
        with pytest.raises(redis.ResponseError, match="a vector is needed"):
            client.execute_command(*call)
