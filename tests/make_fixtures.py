#!/usr/bin/env python3
"""Writes the RDB and the AOF that a release makes of a little of everything, with what it answers from them.

    tests/make_fixtures.py path/to/libllmcache.so 0.1.0 [redis-server]

Run it once for each release whose format differs from the one before, with the module of that release, and commit
`tests/fixtures/<version>/`. `test_fixtures.py` loads every folder there in every run and asks the same questions.
`words-1` in place of a version makes those of an index of words whose texts are not packed, `words-2` of one whose are;
`maxerror-1` makes those of what MAXERROR learns, in the first form in which that is saved; `matryoshka-1` those of containers that
compare the first dimensions alone.
Deadlines lie in the year 2100. The server should be the oldest that is supported: its files load everywhere.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.server import Server
from harness.vectors import fp32, unit

FOLDER = Path(__file__).resolve().parent / "fixtures"
FAR = 4_102_444_800
DIM = 8
VECTORS = [unit(i, dim=DIM) for i in range(64)]


def vector(i: int) -> tuple:
    return fp32(VECTORS[i % len(VECTORS)])


def tokens(count: int) -> bytes:
    return b"".join(i.to_bytes(4, "little") for i in range(1, count + 1))


def fill(run) -> None:
    """Every family, with the options that leave a trace in what is saved."""
    run("LLMCACHE.CREATE", "faq", "DIM", DIM, "MODEL", "m", "THRESHOLD", "0.8", "MAXENTRIES", 1000, "QUANT", "F16", "GRACE", 60)
    for i in range(40):
        run("LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", f"answer {i}", *vector(i), "EXAT", FAR)
    run("LLMCACHE.SETSEM", "faq", "PROMPT", "rich", "RESPONSE", "R", *vector(40), "ID", "doc:1", "SCOPE", "eu", "CONTEXT", "c",
        "TAGS", 2, "a", "b", "META", '{"lang":"en","year":2026}', "EXAT", FAR, "TOKENS", 12, "COST", "0.01", "LATENCY", 900)  # fmt: skip
    run("LLMCACHE.SET", "faq", "PROMPT", "exact only", "RESPONSE", "E")
    run("LLMCACHE.SETSEM", "faq", "PROMPT", "tagged", "RESPONSE", "T", *vector(41), "TAGS", 1, "gone")
    run("LLMCACHE.INVALIDATE", "faq", "TAG", "gone")
    run("LLMCACHE.CREATE", "graph", "DIM", DIM, "INDEX", "HNSW", "QUANT", "Q8", "GUARD", "OFF")
    for i in range(60):
        run("LLMCACHE.SETSEM", "graph", "PROMPT", f"prompt {i}", "RESPONSE", f"answer {i}", *vector(i), "PERSIST")
    run("RAG.CREATE", "docs", "DIM", DIM)
    for i in range(20):
        run("RAG.ADD", "docs", f"d{i}", *vector(i), "TEXT", f"text {i}", "META", json.dumps({"n": i}), "TAGS", 1, "t", "TOKENS", 3)
    for quant in ("NONE", "F16", "Q8"):
        name = f"emb:{quant.lower()}"
        run("EMBCACHE.CREATE", name, "MODEL", "m", "DIM", DIM, "QUANT", quant)
        for i in range(5):
            run("EMBCACHE.SET", name, "TEXT", f"text {i}", *vector(i))
    for name, durable in (("ns", "FULL"), ("stubs", "META")):
        run("KVCHUNK.CREATE", name, "MODEL", "m", "CHUNK", 2, "DURABLE", durable)
        for count in (2, 4, 6):
            run("KVCHUNK.PUT", name, "TOKENS", tokens(count), "PAYLOAD", 1, f"payload {count}".encode() * 9, "META", '{"n":1}', "EXAT", FAR)
    run("SESSION.APPEND", "chat", "MSG", "system", "Be brief.", "PIN", "MSG", "user", "Where is my parcel?", "ID", "m1", "TOKENS", 5,
        "MSG", "assistant", "", "CALL", "c1", "MSG", "tool", '{"at":"sea"}', "RESULT", "c1", "META", '{"ok":true}')  # fmt: skip
    run("SESSION.APPEND", "chat", "OWNER", "chats", "MSG", "user", "a question", *vector(3))
    run("SESSION.BEGIN", "chat", "assistant", "ID", "a1")
    run("SESSION.DEL", "chat", 5)
    run("PEXPIREAT", "chat", FAR * 1000)


def axis(similarity_e4: int) -> tuple:
    """A vector that is so near to (1, 0), in the middle of a ten-thousandth."""
    cosine = (similarity_e4 + 0.5) / 10_000
    return ("VALUES", 2, repr(cosine), repr((1 - cosine * cosine) ** 0.5))


def fill_maxerror(run) -> None:
    """Caches that are warming up, unproven, proven with wrong answers among the labels, and after an alarm."""

    def look_up(name: str, similarity: int):
        reply = run("LLMCACHE.GETSEM", name, *axis(similarity), "AUDIT")
        return None if reply is None else dict(zip(reply[::2], reply[1::2], strict=True)).get(b"audit")

    def learn(name: str, labels: int, wrong_every: int = 0, similarity: int = 9_950) -> None:
        for label in range(labels):
            is_wrong = wrong_every and label % wrong_every == 0
            ticket = look_up(name, similarity - label % 300)
            # A new epoch begins with a warm-up, in which there are none.
            if ticket is not None:
                run("LLMCACHE.FEEDBACK", name, "TICKET", ticket, "WRONG" if is_wrong else "RIGHT")

    for name, looked_up in (("warming", 37), ("unproven", 100), ("proven", 100), ("alarmed", 100)):
        run("LLMCACHE.CREATE", name, "MAXERROR", "0.05", "AUDIT", "1", "QUANT", "NONE", "THRESHOLD", "0.90", "MINSIM", "0.70")
        run("LLMCACHE.SETSEM", name, "PROMPT", "stored", "RESPONSE", "answer", "ID", "one", "VALUES", 2, 1, 0)
        for number in range(looked_up):
            look_up(name, 9_950 - 20 * (number % 60))
    learn("unproven", 40, 11)
    learn("proven", 600, 120)
    learn("alarmed", 300)
    learn("alarmed", 40, 1)
    learn("alarmed", 10)


WORDS_TEXTS = {
    "heat": "Error ERR-4711 appears when the heat shield of the wing burns. " * 3,
    "plane": "The wings of a plane are long and thin; a plane has two wings.",
    "shield": "A shield of heat resistant tiles, of which each resists the heat of a wing that glows for a while. " * 2,
    "chinese": "水泵被石灰堵塞，阀门必须清洗。" * 9,
    "gone": "A wing that is no more.",
    "empty": "",
}


def fill_words(run) -> None:
    run("RAG.CREATE", "worded", "DIM", DIM, "WORDS", "english")
    for i, (name, text) in enumerate(WORDS_TEXTS.items()):
        run("RAG.ADD", "worded", name, *vector(i), "TEXT", text or " ")
    for i in range(200):
        run("RAG.ADD", "worded", f"n{i}", "NOVECTOR", "TEXT", " ".join(f"w{i * j % 41}" for j in range(1, 9 + i % 30)))
    run("RAG.DEL", "worded", "gone", *(f"n{i}" for i in range(0, 200, 7)))


NESTED_DIM = 64


def nested(i: int) -> tuple:
    return fp32(unit(i, dim=NESTED_DIM))


def fill_matryoshka(run) -> None:
    run("RAG.CREATE", "nested", "DIM", NESTED_DIM, "MATRYOSHKA", 32, "INDEX", "HNSW")
    for i in range(120):
        run("RAG.ADD", "nested", f"n{i}", *nested(i), "TEXT", f"text {i}", "META", json.dumps({"n": i}))
    run("LLMCACHE.CREATE", "narrow", "DIM", NESTED_DIM, "MATRYOSHKA", 32, "QUANT", "Q8", "GUARD", "OFF")
    for i in range(30):
        run("LLMCACHE.SETSEM", "narrow", "PROMPT", f"prompt {i}", "RESPONSE", f"answer {i}", *nested(i), "PERSIST")


MATRYOSHKA_QUESTIONS = [
    *(("RAG.SEARCH", "nested", *nested(i), "COUNT", 1, "RETURN", 3, "id", "similarity", "text") for i in range(0, 120, 9)),
    ("RAG.SEARCH", "nested", *nested(5), "COUNT", 2, "FILTER", ".n < 12", "RETURN", 1, "id"),
    *(("LLMCACHE.GETSEM", "narrow", *nested(i), "RETURN", 3, "id", "similarity", "response") for i in (0, 7, 29, 40)),
    ("LLMCACHE.CONFIG", "narrow", "GET", "matryoshka"),
]

MAXERROR_CACHES = ("warming", "unproven", "proven", "alarmed")
MAXERROR_FIELDS = (
    b"maxerror", b"confidence", b"maxerror_state", b"threshold_in_use", b"epoch", b"warm_up_left", b"labels", b"labels_wrong",
    b"next_threshold", b"labels_to_next", b"false_hits_upper", b"curve",
)  # fmt: skip
MAXERROR_QUESTIONS = [
    *(("LLMCACHE.STATS", name) for name in MAXERROR_CACHES),
    *(("LLMCACHE.GETSEM", name, *axis(similarity), "RETURN", 1, "id") for name in MAXERROR_CACHES for similarity in (9_960, 9_400)),
]

WORDS_QUESTIONS = [
    *(("RAG.GET", "worded", name) for name in WORDS_TEXTS if name != "gone"),
    *(
        ("RAG.SEARCH", "worded", "WORDS", words, "COUNT", 20, "RETURN", 4, "id", "words", "snippet", "tokens")
        for words in ("wing", "err-4711", '"heat shield"', "+wing -plane", "石灰", "w3 w5 w40", "resis*", "sheild~")
    ),
    ("RAG.SEARCH", "worded", *vector(2), "WORDS", "wing", "FUSE", "RRF", 60, "RETURN", 3, "id", "score", "text"),
    ("RAG.SEARCH", "worded", "TEXT", "which tiles resist heat", "RETURN", 2, "id", "words"),
]

QUESTIONS = [
    ("LLMCACHE.GET", "faq", "PROMPT", "prompt 7"),
    ("LLMCACHE.GET", "faq", "PROMPT", "exact only"),
    ("LLMCACHE.GET", "faq", "PROMPT", "tagged"),
    ("LLMCACHE.GETSEM", "faq", *vector(11), "RETURN", 4, "id", "prompt", "response", "tags"),
    ("LLMCACHE.GETSEM", "faq", *vector(40), "SCOPE", "eu", "CONTEXT", "c", "FILTER", ".year >= 2026", "RETURN", 4, "id", "response", "meta", "tags"),
    ("LLMCACHE.CONFIG", "faq", "GET", "threshold"),
    ("LLMCACHE.GETSEM", "graph", *vector(23), "RETURN", 3, "id", "similarity", "response"),
    ("RAG.SEARCH", "docs", *vector(5), "COUNT", 3, "FILTER", ".n < 12", "RETURN", 4, "id", "text", "meta", "tokens"),
    ("EMBCACHE.GET", "emb:none", "TEXT", "text 2"),
    ("EMBCACHE.GET", "emb:f16", "TEXT", "text 2"),
    ("EMBCACHE.GET", "emb:q8", "TEXT", "text 2"),
    ("KVCHUNK.FETCH", "ns", "TOKENS", tokens(6)),
    ("KVCHUNK.MATCH", "stubs", "TOKENS", tokens(6)),
    ("SESSION.RANGE", "chat", "-", "+"),
    ("SESSION.LEN", "chat"),
    ("SESSION.LIST", "chats"),
    ("PEXPIRETIME", "chat"),
]


def plain(reply):
    """A reply as JSON has it; bytes as hex digits."""
    if isinstance(reply, bytes):
        return reply.hex()
    if isinstance(reply, dict):
        return {plain(key): plain(value) for key, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return [plain(value) for value in reply]
    return reply


@dataclass(frozen=True)
class Recipe:
    fill: Callable
    questions: list[tuple]
    keys: frozenset[str]


RELEASE = Recipe(fill, QUESTIONS, frozenset({"faq", "graph", "docs", "emb:none", "emb:f16", "emb:q8", "ns", "stubs", "chat", "chats"}))
MAXERROR = Recipe(fill_maxerror, MAXERROR_QUESTIONS, frozenset(MAXERROR_CACHES))
WORDS = Recipe(fill_words, WORDS_QUESTIONS, frozenset({"worded"}))
MATRYOSHKA = Recipe(fill_matryoshka, MATRYOSHKA_QUESTIONS, frozenset({"nested", "narrow"}))


def recipe(version: str) -> Recipe:
    named = {"maxerror": MAXERROR, "words": WORDS, "matryoshka": MATRYOSHKA}
    return named.get(version.split("-")[0], RELEASE)


# What goes on by itself, or differs by how a file is loaded.
CHANGING = {b"age", b"hits"}


def told(question: tuple, reply):
    """What is recorded of a reply: of STATS what was learnt, as the rest counts what happened since the start."""
    if question[0] == "RAG.GET":
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {field.decode(): plain(value) for field, value in pairs if field not in CHANGING}
    if question[0] != "LLMCACHE.STATS":
        return plain(reply)
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {field.decode(): plain(value) for field, value in pairs if field in MAXERROR_FIELDS}


def answers(client, questions: list[tuple]) -> list:
    return [told(question, client.execute_command(*question)) for question in questions]


def main() -> None:
    module, version = Path(sys.argv[1]).absolute(), sys.argv[2]
    binary = Path(sys.argv[3] if len(sys.argv) > 3 else shutil.which("redis-server"))
    target = FOLDER / version
    with tempfile.TemporaryDirectory() as folder:
        options = {"appendonly": "yes", "aof-use-rdb-preamble": "no", "appendfsync": "always"}
        server = Server(binary, module, Path(folder), options).start()
        client = server.client()
        recipe(version).fill(client.execute_command)
        client.save()
        server.stop()
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "dump.rdb", target)
        shutil.copytree(Path(folder) / "appendonlydir", target / "appendonlydir", dirs_exist_ok=True)
        # What is recorded is what this release answers once it has loaded its own files.
        server = Server(binary, module, Path(folder) / "again", {})
        shutil.copy(target / "dump.rdb", server.folder)
        server.start()
        recorded = answers(server.client(), recipe(version).questions)
        server.stop()
    (target / "answers.json").write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{target}: {sum(f.stat().st_size for f in target.rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()
