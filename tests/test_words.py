"""RAG by words: what is found, in which order, alone and together with meaning; saved, replicated, moved, removed."""

import math
import random
import threading

import pytest
import redis
from harness.families import Documents
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.vectors import fp32
from harness.waiting import wait_until

TEXTS = {
    "heat": "Error ERR-4711 appears when the heat shield of the wing burns.",
    "plane": "The wings of a plane are long and thin; a plane has two wings.",
    "shield": "A shield of heat resistant tiles.",
    "other": "Nothing to see here, move along.",
}


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def docs(server):
    return filled(server.client())


def filled(client, **texts):
    client.execute_command("RAG.CREATE", "docs", "WORDS", "english")
    docs = Documents(client, "docs")
    for name, text in (texts or TEXTS).items():
        docs.run("ADD", name, "TEXT", text)
    return docs


def found(docs, *words, fields=("id",)):
    return docs.run("SEARCH", *words, "RETURN", len(fields), *fields)


def ids(docs, *words):
    return [as_dict(one)["id"].decode() for one in found(docs, *words)]


def as_dict(reply):
    if isinstance(reply, dict):
        return {(k.decode() if isinstance(k, bytes) else k): v for k, v in reply.items()}
    return dict(zip((k.decode() for k in reply[::2]), reply[1::2], strict=True))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("err-4711", ["heat"]),
        ("4711", ["heat"]),
        ("wings", ["plane", "heat"]),
        ("WING", ["plane", "heat"]),
        ("+wing -plane", ["heat"]),
        ('"heat shield"', ["heat"]),
        ('"shield of heat"', ["shield"]),
        ('shield -"heat shield"', ["shield"]),
        ("resis*", ["shield"]),
        ("sheild~", ["heat", "shield"]),
        ("tiels~", ["shield"]),
        ("nowhere", []),
        ("the of", []),
        ("", []),
    ],
)
def test_what_words_find(docs, words, expected):
    got = ids(docs, "WORDS", words)
    assert sorted(got) == sorted(expected)
    if len(expected) == 2 and "~" not in words:
        assert got == expected


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["WORDS", "-wing"], "only excludes"),
        (["WORDS", '"open'], "a quote has no end"),
        (["WORDS", "a*"], "at least 2 characters"),
        (["WORDS", "ab~"], "at least 3 characters"),
        (["WORDS", " ".join(f"w{i}" for i in range(129))], "128"),
        (["WORDS", "aa* bb* cc* dd* ee*"], "at most 4"),
        (["WORDS", "x" * 16_385], "WORDS"),
        (["WORDS", "wing", "FUSE", "RRF", "60"], "FUSE needs"),
        (["WORDS", "wing", "FUSE", "SUM", "1"], "FUSE must be"),
        (["WORDS", "wing", "FUSE", "LINEAR", "2"], "LINEAR"),
        (["WORDS", "wing", "SNIPPET", "5"], "SNIPPET and MARKS need"),
        (["COUNT", "5"], "WORDS is needed"),
    ],
)
def test_what_is_refused(docs, words, error):
    with pytest.raises(redis.ResponseError) as refused:
        docs.run("SEARCH", *words)
    assert error in str(refused.value)


def test_create_says_which_languages_there_are(server):
    client = server.client()
    with pytest.raises(redis.ResponseError, match="WORDS must be OFF or a language: none, arabic"):
        client.execute_command("RAG.CREATE", "docs", "WORDS", "klingon")
    with pytest.raises(redis.ResponseError, match="unknown option"):
        client.execute_command("LLMCACHE.CREATE", "faq", "WORDS", "english")
    assert client.dbsize() == 0
    client.execute_command("RAG.CREATE", "docs", "WORDS", "de")
    assert Documents(client, "docs").info()["words"] == b"german"
    client.execute_command("RAG.CREATE", "docs", "WORDS", "german")
    with pytest.raises(redis.ResponseError, match="other settings"):
        client.execute_command("RAG.CREATE", "docs")
    client.execute_command("RAG.CREATE", "plain")
    with pytest.raises(redis.ResponseError, match="the index has no words"):
        client.execute_command("RAG.SEARCH", "plain", "WORDS", "x")
    assert client.execute_command("RAG.SEARCH", "absent", "WORDS", "x") == []


def bm25(texts, words):
    """The formula of docs/rag.md for texts of plain words."""
    split = {name: text.split() for name, text in texts.items()}
    mean = sum(map(len, split.values())) / len(split)
    scores = {}
    for name, text in split.items():
        score = 0.0
        for word in words.split():
            having = sum(word in other for other in split.values())
            idf = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
            count = text.count(word)
            score += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(text) / mean))
        if score:
            scores[name] = score
    return scores


K1, B = 2.0, 0.75


def test_scores_are_those_of_the_formula(server, resp):
    draw = random.Random(4)
    client = server.client(resp)
    client.execute_command("RAG.CREATE", "docs", "WORDS", "none")
    docs = Documents(client, "docs")
    texts = {}
    for step in range(600):
        name = f"d{draw.randrange(150)}"
        if draw.random() < 0.25:
            docs.delete(name)
            texts.pop(name, None)
        else:
            texts[name] = " ".join(f"w{int(draw.random() ** 3 * 60)}" for _ in range(draw.randrange(1, 40)))
            docs.run("ADD", name, "TEXT", texts[name])
        if step % 20:
            continue
        words = " ".join(sorted({f"w{int(draw.random() ** 2 * 60)}" for _ in range(3)}))
        expected = sorted(bm25(texts, words).items(), key=lambda item: (-item[1], item[0]))
        got = [as_dict(one) for one in found(docs, "WORDS", words, "COUNT", 1_000, fields=("id", "words", "score"))]
        assert [one["id"].decode() for one in got] == [name for name, _ in expected]
        for one, (_, score) in zip(got, expected, strict=True):
            assert float(one["words"]) == pytest.approx(score, rel=1e-12)
            assert float(one["score"]) == pytest.approx(score, rel=1e-12)


def test_filters_tags_count_offset_and_budget_hold_for_words(server):
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "WORDS", "english")
    docs = Documents(client, "docs")
    for number in range(30):
        docs.run("ADD", f"d{number:02}", "TEXT", "wing " * (30 - number) + "tail", "META", f'{{"n": {number}}}', "TOKENS", 10)
    everything = ids(docs, "WORDS", "wing tail", "COUNT", 100)
    assert len(everything) == 30
    assert ids(docs, "WORDS", "wing tail") == everything[:10]
    assert ids(docs, "WORDS", "wing tail", "OFFSET", 5, "COUNT", 3) == everything[5:8]
    even = [name for name in everything if int(name[1:]) < 20]
    assert ids(docs, "WORDS", "wing tail", "FILTER", ".n < 20", "COUNT", 100) == even
    assert ids(docs, "WORDS", "wing tail", "TOKENS", 35) == everything[:3]
    long = '{"n": 99, "text": "' + "x" * 2_000 + '"}'
    docs.run("ADD", "long", "TEXT", "wing wing", "META", long)
    assert "long" in ids(docs, "WORDS", "wing", "FILTER", '.text != "a"', "COUNT", 100)


def test_meaning_and_words_in_one_order(server):
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "WORDS", "english", "DIM", 4)
    docs = Documents(client, "docs")
    docs.run("ADD", "near", *fp32([1, 0, 0, 0]), "TEXT", "something else")
    docs.run("ADD", "both", *fp32([0.8, 0.6, 0, 0]), "TEXT", "a wing")
    docs.run("ADD", "worded", *fp32([0, 1, 0, 0]), "TEXT", "a wing and a wing")
    docs.run("ADD", "bare", "TEXT", "one wing of many things that are here")
    query = fp32([1, 0, 0, 0])
    fields = ("id", "similarity", "words", "score")
    got = [as_dict(one) for one in found(docs, *query, "WORDS", "wing", "FUSE", "RRF", 60, fields=fields)]
    # By meaning: near, both, worded; by words: worded, both, bare.
    assert [one["id"] for one in got] == [b"worded", b"both", b"near", b"bare"]
    by_id = {one["id"]: one for one in got}
    assert by_id[b"bare"]["similarity"] is None
    assert float(by_id[b"worded"]["similarity"]) == pytest.approx(0.0, abs=1e-6)
    assert float(by_id[b"near"]["words"]) == 0
    assert float(got[0]["score"]) == pytest.approx(1 / 63 + 1 / 61, rel=1e-12)
    assert float(got[1]["score"]) == pytest.approx(1 / 62 + 1 / 62, rel=1e-12)
    # A word that must occur keeps away what is near and has it not.
    assert set(ids(docs, *query, "WORDS", "+wing", "FUSE", "RRF", 60)) == {"both", "worded", "bare"}
    assert set(ids(docs, *query, "WORDS", '"a wing"', "FUSE", "LINEAR", 0.5)) == {"both", "worded"}
    assert ids(docs, *query, "WORDS", "wing", "FUSE", "LINEAR", 1)[0] == "near"
    assert ids(docs, *query, "WORDS", "wing", "FUSE", "LINEAR", 0)[0] == "worded"
    # Without FUSE it is RRF with 60.
    assert found(docs, *query, "WORDS", "wing", fields=fields) == found(
        docs, *query, "WORDS", "wing", "FUSE", "RRF", 60, fields=fields
    )
    assert len(ids(docs, *query, "WORDS", "wing", "MMR", 0.5, "COUNT", 2)) == 2


def test_snippets(docs):
    (one,) = found(docs, "WORDS", "err-4711", "SNIPPET", 4, fields=("snippet",))
    assert as_dict(one)["snippet"] == "Error <b>ERR</b>-<b>4711</b> appears\u2026".encode()
    (one,) = found(docs, "WORDS", "resistant", "SNIPPET", 2, "MARKS", "*", "*", fields=("snippet",))
    assert as_dict(one)["snippet"] == "\u2026*resistant* tiles.".encode()


def test_a_text_is_found_by_its_words_where_nothing_embeds(docs):
    assert ids(docs, "TEXT", "what of -wings?") == ["plane", "heat"]


def everywhere(docs):
    words = ["wing", "shield -plane", '"heat shield"', "resis*", "w3 w5 w7"]
    return [found(docs, "WORDS", one, "COUNT", 100, fields=("id", "words")) for one in words]


def much(client, count=700):
    docs = filled(client)
    draw = random.Random(1)
    for number in range(count):
        docs.run("ADD", f"n{number}", "TEXT", " ".join(f"w{draw.randrange(40)}" for _ in range(12)))
    docs.delete(*[f"n{number}" for number in range(0, count, 3)])
    return docs


@pytest.mark.parametrize("how", ["rdb", "aof", "rewritten"])
def test_words_outlive_a_restart(fleet, how):
    server = fleet.launch(appendonly="no" if how == "rdb" else "yes", aof_use_rdb_preamble="no")
    docs = much(server.client())
    before = everywhere(docs)
    if how == "rdb":
        server.client().save()
    elif how == "rewritten":
        server.client().bgrewriteaof()
        wait_for_rewrite(server.client())
    server.restart()
    docs = Documents(server.client(), "docs")
    wait_until(lambda: not docs.info()["unread_texts"], "all texts are read")
    assert everywhere(docs) == before


def test_a_replica_finds_the_same(fleet):
    both = pair(fleet)
    docs = much(both.primary.client())
    both.primary.client().execute_command("RAG.ADD", "docs", "late", "TEXT", "a late wing")
    wait_until(lambda: both.replica.digest() == both.primary.digest(), "equal digests")
    replica = Documents(both.replica.client(), "docs")
    wait_until(lambda: not replica.info()["unread_texts"], "all texts are read")
    assert everywhere(replica) == everywhere(docs)


def test_words_follow_when_a_container_comes_after_its_entries(server):
    client = server.client()
    docs = much(client, 200)
    before = everywhere(docs)
    (head,) = client.keys("docs")
    dumps = {key: client.dump(key) for key in client.keys()}
    client.flushall()
    for key in sorted(dumps, key=lambda key: key == head):
        client.restore(key, 0, dumps[key])
    wait_until(lambda: docs.info()["entries"] == len(dumps) - 1 and not docs.info()["unread_texts"], "all is known")
    assert everywhere(docs) == before


def test_what_goes_is_found_no_more(server):
    client = server.client()
    docs = filled(client)
    assert ids(docs, "WORDS", "wing") == ["plane", "heat"]
    docs.run("ADD", "plane", "TEXT", "no such word")
    assert ids(docs, "WORDS", "wing") == ["heat"]
    client.execute_command("RAG.ADD", "docs", "short", "TEXT", "a wing", "PX", 60)
    assert "short" in ids(docs, "WORDS", "wing")
    wait_until(lambda: ids(docs, "WORDS", "wing") == ["heat"], "it is gone")
    (key,) = [key for key in client.keys() if key.endswith(b":heat")]
    client.delete(key)
    assert ids(docs, "WORDS", "wing") == []
    client.flushall()
    assert docs.run("SEARCH", "WORDS", "wing") == []


def test_in_transactions_and_scripts(docs):
    pipe = docs.client.pipeline(transaction=True)
    pipe.execute_command("RAG.SEARCH", "docs", "WORDS", "wing", "RETURN", 1, "id")
    ((first, _),) = pipe.execute()
    assert as_dict(first)["id"] == b"plane"
    script = "return redis.call('RAG.SEARCH', 'docs', 'WORDS', 'wing', 'RETURN', 1, 'id')"
    assert [as_dict(one)["id"] for one in docs.client.eval(script, 0)] == [b"plane", b"heat"]


def test_memory_is_counted_and_given_back(server):
    client = server.client()
    docs = much(client, 300)
    assert docs.info()["word_bytes"] > 10_000 and docs.info()["terms"] > 40
    with_words = client.memory_usage("docs")
    docs.delete(*[f"n{number}" for number in range(300)], *TEXTS)
    wait_until(lambda: docs.info()["terms"] == 0, "words are taken out")
    assert docs.info()["word_bytes"] < 4_000
    assert client.memory_usage("docs") < with_words / 2


def test_long_searches_hold_up_nobody(server):
    """Many texts, a question of many words: others are served between its rounds."""
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "WORDS", "none")
    docs = Documents(client, "docs")
    text = " ".join(f"w{number}" for number in range(100))
    for start in range(0, 4_000, 500):
        batch = [x for n in range(start, start + 500) for x in (f"d{n}", "TEXT", f"{text} x{n}")]
        client.execute_command("RAG.MADD", "docs", 500, *batch)
    words = " ".join(f"w{number}" for number in range(100))
    got = []
    searching = threading.Thread(
        target=lambda: got.extend(found(docs, "WORDS", words, "COUNT", 1_000, fields=("id", "snippet")))
    )
    beside, served = server.client(), 0
    searching.start()
    while searching.is_alive():
        beside.ping()
        served += 1
    searching.join()
    assert len({as_dict(one)["id"] for one in got}) == 1_000
    # It took a hundred rounds and more: snippets alone are made of 1,000 texts of 100 words.
    assert served > 5
