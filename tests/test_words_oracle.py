"""Searches by words against the formula computed by hand, whatever came, went, expired, was saved, replicated or moved."""

from __future__ import annotations

import math
import random

import pytest
from harness.cluster import Cluster
from harness.families import Documents
from harness.names import key_slot
from harness.persistence import save, wait_for_rewrite
from harness.replication import pair
from harness.vectors import fp32
from harness.waiting import wait_until
from harness.wire import Failure

K1, B = 2.0, 0.75
SEEDS = [1, 2]


class Oracle:
    """Texts of plain words by their ids, and what BM25 (docs/rag.md) makes of them."""

    def __init__(self, seed: int):
        self.draw = random.Random(seed)
        self.texts: dict[str, list[str]] = {}

    def word(self) -> str:
        return f"w{int(self.draw.random() ** 3 * 60)}"

    def step(self, docs: Documents) -> None:
        """Adds, replaces or removes a document, or adds one that expires at once."""
        name, what = f"d{self.draw.randrange(150)}", self.draw.random()
        if what < 0.2:
            docs.delete(name)
            self.texts.pop(name, None)
            return
        text = [self.word() for _ in range(self.draw.randrange(1, 40))]
        if what < 0.35:
            docs.run("ADD", name, "TEXT", " ".join(text), "PX", 1)
            self.texts.pop(name, None)
            return
        docs.run("ADD", name, "TEXT", " ".join(text), *(["EX", 5_000] if what < 0.5 else []))
        self.texts[name] = text

    def scores(self, words: list[str], must=(), mustnt=()) -> dict[str, float]:
        mean = sum(map(len, self.texts.values())) / len(self.texts)
        found = {}
        for name, text in self.texts.items():
            score = 0.0
            for word in [*words, *must]:
                having = sum(word in other for other in self.texts.values())
                idf = math.log(1 + (len(self.texts) - having + 0.5) / (having + 0.5))
                count = text.count(word)
                score += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(text) / mean))
            if score and all(word in text for word in must) and not any(word in text for word in mustnt):
                found[name] = score
        return found

    def check(self, docs: Documents, questions: int = 8) -> None:
        """The same documents in the same order with the same scores."""
        wait_until(lambda: docs.info()["entries"] == len(self.texts), "what expired is gone")
        wait_until(lambda: not docs.info()["unread_texts"], "all texts are read")
        for number in range(questions):
            words = sorted({self.word() for _ in range(3)})
            must, mustnt = ([self.word()], [self.word()]) if number % 2 else ([], [])
            if set(words) & {*must, *mustnt} or must == mustnt != []:
                continue
            asked = " ".join([*words, *(f"+{word}" for word in must), *(f"-{word}" for word in mustnt)])
            expected = sorted(self.scores(words, must, mustnt).items(), key=lambda item: (-item[1], item[0]))
            got = docs.run("SEARCH", "WORDS", asked, "COUNT", 1_000, "RETURN", 2, "id", "words")
            got = [as_dict(one) for one in got]
            # Equal scores may differ in their last bit by the order of a sum: they are compared by their ids.
            order = sorted(got, key=lambda one: (-round(float(one["words"]), 9), one["id"]))
            wanted = sorted(expected, key=lambda item: (-round(item[1], 9), item[0].encode()))
            assert [one["id"].decode() for one in order] == [name for name, _ in wanted], asked
            assert [float(one["words"]) for one in got] == sorted((float(one["words"]) for one in got), reverse=True)
            for one, (_, score) in zip(order, wanted, strict=True):
                assert float(one["words"]) == pytest.approx(score, rel=1e-12), asked


def as_dict(reply) -> dict:
    if isinstance(reply, dict):
        return {(k.decode() if isinstance(k, bytes) else k): v for k, v in reply.items()}
    return dict(zip((k.decode() for k in reply[::2]), reply[1::2], strict=True))


def made(client, language: str = "none") -> Documents:
    client.execute_command("RAG.CREATE", "docs", "WORDS", language)
    return Documents(client, "docs")


@pytest.fixture
def server(emptied):
    return emptied


@pytest.mark.parametrize("seed", SEEDS)
def test_while_documents_come_go_and_expire(server, seed):
    oracle, docs = Oracle(seed), made(server.client())
    for _ in range(10):
        for _ in range(60):
            oracle.step(docs)
        oracle.check(docs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["rdb", "aof", "rewritten", "preamble"])
def test_after_a_restart(fleet, how, seed):
    preamble = "yes" if how == "preamble" else "no"
    server = fleet.launch(appendonly="no" if how == "rdb" else "yes", aof_use_rdb_preamble=preamble)
    oracle, docs = Oracle(seed), made(server.client())
    for _ in range(2):
        for _ in range(300):
            oracle.step(docs)
        if how == "rdb":
            save(server.client())
        elif how in ("rewritten", "preamble"):
            server.client().bgrewriteaof()
            for _ in range(20):
                oracle.step(docs)
            wait_for_rewrite(server.client())
        server.restart()
        docs = Documents(server.client(), "docs")
        oracle.check(docs)


@pytest.mark.parametrize("seed", SEEDS)
def test_on_a_replica_that_becomes_a_primary(fleet, seed):
    both, oracle = pair(fleet), Oracle(seed)
    docs, copy = made(both.primary.client()), Documents(both.replica.client(), "docs")
    for _ in range(3):
        for _ in range(150):
            oracle.step(docs)
        oracle.check(docs)
        both.catch_up()
        oracle.check(copy)
    both.primary.stop()
    both.replica.client().execute_command("REPLICAOF", "NO", "ONE")
    for _ in range(150):
        oracle.step(copy)
    oracle.check(copy)


def test_where_a_slot_moves(fleet):
    slot = key_slot(b"docs")
    cluster = Cluster(fleet, [[(slot, 16_383)], [(0, slot - 1)]])
    oracle, docs = Oracle(3), made(cluster.nodes[0].client())
    for _ in range(300):
        oracle.step(docs)
    oracle.check(docs)
    for source, target in ((0, 1), (1, 0)):
        cluster.start_move(slot, source, target)
        # The index itself in the midst of its documents.
        keys = cluster.keys_in_slot(source, slot)
        oracle.draw.shuffle(keys)
        cluster.move_keys(source, target, keys)
        cluster.end_move(slot, target)
        docs = Documents(cluster.nodes[target].client(), "docs")
        oracle.check(docs)
        for _ in range(100):
            oracle.step(docs)
        oracle.check(docs)


ALPHABETS = [
    "abcdefghij", "äöüßéèñç", "абвгд", "水泵石灰阀门清洗", "かなカナ", "กขคง", "한국어", "👍🏽🇩🇪", "0123456789", "-_./:#+@", " ", "'’", "\u200d\u0301",
]  # fmt: skip


def odd(draw: random.Random, length: int) -> str:
    """Words and what stands between them, of all scripts."""
    text = ""
    while len(text) < length:
        alphabet = draw.choice(ALPHABETS)
        text += "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 8))) + draw.choice(["", " ", " "])
    return text


@pytest.mark.parametrize("language", ["none", "english", "german", "russian"])
def test_odd_texts_and_questions(server, language):
    """Any text is taken, any question answered or refused; a text is found by each piece of it that has a word."""
    draw, docs = random.Random(language), made(server.client(), language)
    texts = {}
    for number in range(150):
        texts[f"d{number}"] = odd(draw, draw.randrange(1, 120))
        docs.run("ADD", f"d{number}", "TEXT", texts[f"d{number}"].encode() + (draw.randbytes(4) if number % 5 == 0 else b""))
    wholes = 0
    for name, text in texts.items():
        pieces = [piece for piece in text.split() if not set(piece) & set('"*~') and piece[0] not in "+-"]
        if not pieces:
            continue
        piece = draw.choice(pieces[:-1] or pieces)
        found = [as_dict(one)["id"].decode() for one in docs.run("SEARCH", "WORDS", piece, "COUNT", 1_000, "RETURN", 1, "id")]
        # A piece of signs or stop words has no word; one that has finds its text.
        if found and len(pieces) > 1:
            assert name in found, (piece, text)
            wholes += 1
    assert wholes > 60
    with server.wire() as wire:
        answered = 0
        for _ in range(1_500):
            question = draw.randbytes(draw.randrange(0, 40)) if draw.random() < 0.3 else odd(draw, draw.randrange(0, 50)).encode()
            question = b"".join(part + draw.choice([b"", b"*", b"~", b'"', b" +", b" -"]) for part in question.split(b" "))
            reply = wire("RAG.SEARCH", "docs", "WORDS", question, "COUNT", 5, "RETURN", 2, "id", "snippet")
            if isinstance(reply, Failure):
                assert reply.word in ("ERR", "LIMIT", "TOOBIG"), reply.text
            else:
                answered += 1
        assert wire("PING") == "PONG"
    assert answered > 300


def test_scripts_without_spaces_and_codes(server):
    docs = made(server.client(), "english")
    docs.run("ADD", "zh", "TEXT", "水泵被石灰堵塞，阀门必须清洗。")
    docs.run("ADD", "code", "TEXT", "Firmware v2.3.1 writes ERR-4711 and user_id into /var/log")
    docs.run("ADD", "near", "TEXT", "Firmware v2.3.2 writes ERR-4712")

    def found(words: str) -> list[str]:
        return sorted(as_dict(one)["id"].decode() for one in docs.run("SEARCH", "WORDS", words, "RETURN", 1, "id"))

    assert found("石灰") == ["zh"] and found("石灰堵塞") == ["zh"] and found('"阀门必须"') == ["zh"]
    assert found('"石灰阀门"') == []
    assert found("+v2.3.1") == ["code"] and found("v2") == ["code", "near"] and found("v2*") == ["code", "near"]
    assert found("+ERR-4711") == ["code"] and found("err") == ["code", "near"] and found("4711") == ["code"]
    assert found("+user_id") == ["code"] and found("id") == ["code"]


def test_as_many_words_as_are_allowed_stand_for_a_prefix_or_an_edit(server):
    """Of all words with a beginning the 32 count that most documents have, of those one edit away too."""
    docs = made(server.client())
    for number in range(45):
        for copy in range(2 if number >= 13 else 1):
            letters = "abcdefghijklmnopqrstuvwxyzäöüßéèñçабвгдежзийкл"
            docs.run("ADD", f"d{number:02}-{copy}", "TEXT", f"pump{letters[number]}")
    often = {f"d{number:02}-{copy}" for number in range(13, 45) for copy in range(2)}
    for words in ("pump*", "pump~"):
        got = docs.run("SEARCH", "WORDS", words, "COUNT", 1_000, "RETURN", 1, "id")
        assert {as_dict(one)["id"].decode() for one in got} == often, words


def test_diverse_hits_of_both_sides_within_a_budget(server):
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "WORDS", "english", "DIM", 4)
    docs = Documents(client, "docs")
    # Three that say the same, and one of another kind.
    for name in ("a1", "a2", "a3"):
        docs.run("ADD", name, *fp32([1, 0.01, 0, 0]), "TEXT", f"the pump of {name}", "TOKENS", 10)
    docs.run("ADD", "b", *fp32([0.1, 0.99, 0, 0]), "TEXT", "another pump is blocked by lime", "TOKENS", 10)
    fused = [*fp32([1, 0, 0, 0]), "WORDS", "pump", "FUSE", "LINEAR", 0.7, "RETURN", 4, "id", "similarity", "words", "score"]

    def ids(*more) -> list[str]:
        return [as_dict(one)["id"].decode() for one in docs.run("SEARCH", *fused[:-6], *more, *fused[-6:])]

    plain, diverse = ids("COUNT", 2), ids("COUNT", 2, "MMR", 0.3)
    assert plain[0] == diverse[0] and "b" not in plain and diverse[1] == "b"
    assert ids("COUNT", 4, "TOKENS", 25) == ids("COUNT", 4)[:2]
    assert ids("COUNT", 2, "OFFSET", 1) == ids("COUNT", 4)[1:3]
    (first, *_) = docs.run("SEARCH", *fused)
    first = as_dict(first)
    assert float(first["similarity"]) > 0.99 and float(first["words"]) > 0 and 0 < float(first["score"]) <= 1
