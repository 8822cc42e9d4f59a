"""Fills a server with what the console shows: answers and look-ups of the demo's questions, documents, conversations,
a message that is being written, and KV-cache chunks.

Owns: the names and the amounts. What is random is drawn from a fixed seed.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence

import redis

from pairs import Pair

TOKENS, COST_USD, LATENCY_MS = 250, "0.0025", 1_800
TENANTS = ("", "eu", "us")
DOCUMENT_TAGS = ("travel", "health", "money", "home")


def fill(client: redis.Redis, pairs: Sequence[Pair]) -> None:
    """Fills an empty server."""
    answers(client, pairs)
    documents(client, pairs[:200])
    conversations(client, pairs)
    chunks(client)


def answers(client: redis.Redis, pairs: Sequence[Pair]) -> None:
    client.execute_command("LLMCACHE.CREATE", "faq", "NEARMISSES", 200, "THRESHOLD", "0.9", "MAXERROR", "0.05", "COLD", "STATIC")
    client.execute_command("LLMCACHE.CREATE", "support", "TTL", 86_400)
    draw = random.Random(7)
    pipe = client.pipeline(transaction=False)
    for number, pair in enumerate(pairs):
        stored = ("PROMPT", pair.first, "RESPONSE", f"(the answer to: {pair.first})", "FP16", pair.first_vector)
        told = ("TOKENS", TOKENS, "COST", COST_USD, "LATENCY", LATENCY_MS, "TAGS", 2, pair.category, f"batch-{number % 5}")
        pipe.execute_command("LLMCACHE.SETSEM", "faq", *stored, *told, "SCOPE", TENANTS[number % 3 if number % 4 == 0 else 0])
        if number % 3 == 0:
            pipe.execute_command("LLMCACHE.SETSEM", "support", *stored, "TOKENS", 80)
    pipe.execute()
    for pair in draw.sample(list(pairs), 320):
        look_up(client, pair, draw)


def look_up(client: redis.Redis, pair: Pair, draw: random.Random) -> None:
    """A question as somebody asks it: the same words, other words, or a trap."""
    if draw.random() < 0.25:
        client.execute_command("LLMCACHE.GET", "faq", "PROMPT", pair.first)
    else:
        client.execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", pair.second, "FP16", pair.second_vector)


def documents(client: redis.Redis, pairs: Sequence[Pair]) -> None:
    client.execute_command("RAG.CREATE", "handbook", "WORDS", "english")
    pipe = client.pipeline(transaction=False)
    for number, pair in enumerate(pairs):
        meta = json.dumps({"year": 2020 + number % 7, "topic": DOCUMENT_TAGS[number % 4]})
        text = f"{pair.first} {pair.second} This page of the handbook answers both, with an example and whom to ask."
        tag = DOCUMENT_TAGS[number % 4]
        head = ("RAG.ADD", "handbook", f"page-{number + 1:03}", "FP16", pair.first_vector, "TEXT", text)
        pipe.execute_command(*head, "META", meta, "TAGS", 1, tag, "TOKENS", 20 + number % 30)
    pipe.execute()


def conversations(client: redis.Redis, pairs: Sequence[Pair]) -> None:
    for number in range(12):
        talk = ["MSG", "system", "You are brief and friendly.", "PIN"]
        for pair in pairs[number * 4 : number * 4 + 4]:
            talk += ["MSG", "user", pair.first, "MSG", "assistant", f"In short: it depends. ({pair.second})"]
        client.execute_command("SESSION.APPEND", f"chat:{number + 1}", "OWNER", "chats:alice", *talk)


def chunks(client: redis.Redis) -> None:
    """Prompts that begin alike: a system prompt, some templates below it, conversations below these."""
    client.execute_command("KVCHUNK.CREATE", "vllm@llama-3.1-8b", "MODEL", "llama-3.1-8b", "BUDGET", 400_000)
    draw = random.Random(11)

    def put(name: str, parent: str | None) -> None:
        above = ("PARENT", parent) if parent else ()
        client.execute_command("KVCHUNK.PUT", "vllm@llama-3.1-8b", "HASH", name, *above, "PAYLOAD", 1, "k" * 2_000)

    names: list[str] = []
    for at in range(3):
        put(f"s{at}", f"s{at - 1}" if at else None)
    for template in range(4):
        for at in range(2):
            put(f"t{template}.{at}", f"t{template}.{at - 1}" if at else "s2")
        for talk in range(2 + template * 2):
            for at in range(draw.randint(1, 5)):
                names.append(f"c{template}.{talk}.{at}")
                put(names[-1], f"c{template}.{talk}.{at - 1}" if at else f"t{template}.1")
    for _ in range(150):
        touched = draw.choice(names[: len(names) // 2]) if draw.random() < 0.7 else draw.choice(names)
        template = touched[1]
        path = ["s0", "s1", "s2", f"t{template}.0", f"t{template}.1", touched]
        client.execute_command("KVCHUNK.TOUCH", "vllm@llama-3.1-8b", *(name.encode().hex() for name in path))
    client.execute_command("KVCHUNK.PIN", "vllm@llama-3.1-8b", *(name.encode().hex() for name in ("s0", "s1", "s2")))
    client.execute_command("KVCHUNK.LEASE", "vllm@llama-3.1-8b", 600_000, names[3].encode().hex())


def write_live(client: redis.Redis, session: str, words: Sequence[str], each: float, ended: threading.Event) -> None:
    """A message that arrives word by word, as a model's does; ended early where `ended` is set."""
    seq, token, offset = client.execute_command("SESSION.BEGIN", session, "assistant")
    for word in words:
        offset, _ = client.execute_command("SESSION.CHUNK", session, seq, token, offset, word)
        if ended.wait(each):
            break
    client.execute_command("SESSION.END", session, seq, token)


def go_on(client: redis.Redis, pairs: Sequence[Pair], ended: threading.Event) -> None:
    """Look-ups and a stream, until `ended` is set."""
    draw = random.Random()

    def talk() -> None:
        while not ended.is_set():
            text = " ".join(pair.second for pair in draw.sample(list(pairs), 12))
            write_live(client, "chat:live", [f"{word} " for word in text.split()], 0.15, ended)
            client.execute_command("SESSION.TRIM", "chat:live", "MAXLEN", 8)

    writer = threading.Thread(target=talk)
    writer.start()
    while not ended.wait(0.05):
        look_up(client, draw.choice(pairs), draw)
    writer.join()
