"""What guards and contexts make of labelled questions, measured through a server.

Owns: the sets of demo/data and tests/data/quality, and how they are asked. Used by `make quality`, which prints tables,
and by tests/test_quality.py, which holds them to bounds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .replies import fields
from .vectors import fp32
from .wire import Failure, Wire

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests/data/quality"
LEVELS = ("OFF", "ON", "STRICT")
THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.96, 0.97)

sys.path.insert(0, str(ROOT / "demo"))


@dataclass(frozen=True)
class Asked:
    """One question: how near its nearest entry that a guard let through was (-1: none), and whether its answer was right."""

    similarity: float
    is_right: bool


def checked(replies: list) -> list:
    failed = [reply for reply in replies if isinstance(reply, Failure)]
    assert not failed, failed[0].text
    return replies


def pairs(wire: Wire, level: str) -> list[tuple[float, bool]]:
    """The 600 pairs of demo/data: similarity at which each is served (-1: a guard refuses), whether it is a repeat."""
    from pairs import load

    every, name = load(), f"pairs-{level}"
    wire("LLMCACHE.CREATE", name, "GUARD", level)
    stores = (
        ("LLMCACHE.SETSEM", name, "PROMPT", p.first, "RESPONSE", "r", "FP16", p.first_vector, "SCOPE", p.id) for p in every
    )
    checked(wire.pipeline(stores))
    asked = (
        ("LLMCACHE.GETSEM", name, "PROMPT", p.second, "FP16", p.second_vector, "SCOPE", p.id, "THRESHOLD", -1, "RETURN", 1, "similarity")
        for p in every
    )  # fmt: skip
    found = [-1.0 if reply is None else float(reply[1]) for reply in checked(wire.pipeline(asked))]
    return [(similarity, pair.same_answer) for similarity, pair in zip(found, every, strict=True)]


def stream(wire: Wire, kind: str, level: str) -> list[Asked]:
    """Utterances of CLINC150, each asked of those before it and then stored: an answer is right for the same intent.

    `clinc` has those of all 150 intents, `banking` those of the 30 that are of banks and cards.
    """
    lines = (DATA / f"{kind}.tsv").read_text(encoding="utf-8").splitlines()
    vectors = np.fromfile(DATA / f"{kind}.f16", "<f2").reshape(-1, 384)
    name, asked = f"{kind}-{level}", []
    wire("LLMCACHE.CREATE", name, "GUARD", level)

    def commands():
        for number, line in enumerate(lines):
            intent, text = line.split("\t")
            question = ("PROMPT", text, "FP16", vectors[number].tobytes())
            yield "LLMCACHE.GETSEM", name, *question, "THRESHOLD", -1, "RETURN", 2, "similarity", "response"
            yield "LLMCACHE.SETSEM", name, *question, "RESPONSE", intent

    replies = checked(wire.pipeline(commands()))
    for reply, line in zip(replies[::2], lines, strict=True):
        if reply is None:
            asked.append(Asked(-1.0, False))
        else:
            found = fields(reply)
            asked.append(Asked(float(found["similarity"]), found["response"].decode() == line.split("\t")[0]))
    return asked


def conversations() -> list[dict]:
    with gzip.open(DATA / "conversations.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def digest(messages: list[dict]) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def served_conversations(wire: Wire, name: str, context: Callable[[list[dict]], tuple]) -> list[tuple[bool, bool, bool]]:
    """Each conversation's last message, asked of the pair's other: served, whether it is a repeat, whether it is long.

    A pair is alone in its scope, so that its two vectors need only be as near as the two messages' embeddings are.
    """
    every = conversations()
    wire("LLMCACHE.CREATE", name, "THRESHOLD", "0.90")
    served = []
    for number, pair in enumerate(every):
        cosine = min(pair["similarity"], 1.0)
        vector = fp32(np.array([cosine, (1 - cosine * cosine) ** 0.5]))
        (*before_a, last_a), (*before_b, last_b) = pair["a"], pair["b"]
        stored = ("PROMPT", last_a["content"], "RESPONSE", "a", "VALUES", 2, 1, 0, "SCOPE", number, *context(before_a))
        asked = ("PROMPT", last_b["content"], *vector, "SCOPE", number, *context(before_b), "RETURN", 1, "tier")
        checked([wire("LLMCACHE.SETSEM", name, *stored)])
        (reply,) = checked([wire("LLMCACHE.GETSEM", name, *asked)])
        served.append((reply is not None, pair["same_answer"], pair["long"]))
    return served


CONTEXTS: dict[str, Callable[[list[dict]], tuple]] = {
    "nothing": lambda _: (),
    "digest of the whole history": lambda before: ("CONTEXT", digest(before)),
    "the same, UNLESS-ALONE": lambda before: ("CONTEXT", digest(before), "UNLESS-ALONE"),
}


@dataclass(frozen=True)
class Turn:
    """What a user said in a conversation, and why it needs the turns before it: "" where people who rewrote it changed nothing."""

    year: int
    topic: int
    said: str
    kind: str


POINTING = frozenset("it its they them their he him his she her this that these those there one ones".split())


def kind_of_need(said: str, rewritten: str) -> str:
    before, after = (re.findall(r"\w+", text.lower()) for text in (said, rewritten))
    if before == after:
        return ""
    if any(before.count(word) > after.count(word) for word in POINTING):
        return "a pronoun or demonstrative was replaced"
    rest = iter(after)
    return "words were added" if all(word in rest for word in before) else "other words were replaced"


def rewritten_turns(folder: Path) -> list[Turn]:
    """TREC CAsT 2019 to 2022: turns of users, and the same rewritten by people so that they stand alone.

    The folder is a copy of github.com/daltonj/treccastweb. Topics are numbered from 1 in the order of their file.
    """
    turns = []

    def add(year: int, topic: int, said: str, rewritten: str) -> None:
        turns.append(Turn(year, topic, said, kind_of_need(said, rewritten)))

    first = folder / "2019/data/evaluation"
    lines = (first / "evaluation_topics_annotated_resolved_v1.0.tsv").read_text(encoding="utf-8").splitlines()
    resolved = dict(line.split("\t") for line in lines)
    for topic, talk in enumerate(json.loads((first / "evaluation_topics_v1.0.json").read_text(encoding="utf-8")), 1):
        for turn in talk["turn"]:
            add(2019, topic, turn["raw_utterance"], resolved[f"{talk['number']}_{turn['number']}"])
    for year, name in (
        (2020, "2020_manual_evaluation_topics_v1.0.json"),
        (2021, "2021_manual_evaluation_topics_v1.0.json"),
        (2022, "2022_evaluation_topics_tree_v1.0.json"),
    ):
        for topic, talk in enumerate(json.loads((folder / str(year) / name).read_text(encoding="utf-8")), 1):
            for turn in talk["turn"]:
                said = turn.get("raw_utterance") or turn.get("utterance")
                if said and turn.get("manual_rewritten_utterance"):
                    add(year, topic, said, turn["manual_rewritten_utterance"])
    return turns


def stand_alone(wire: Wire, messages: list[str]) -> list[bool]:
    """Which of the messages UNLESS-ALONE files under the empty context."""
    wire("LLMCACHE.CREATE", "said")
    asked = (
        ("LLMCACHE.GETSEM", "said", "PROMPT", message, "CONTEXT", "c", "UNLESS-ALONE", "EXPLAIN") for message in messages
    )
    return [fields(reply)["alone"] == 1 for reply in checked(wire.pipeline(asked))]


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)
