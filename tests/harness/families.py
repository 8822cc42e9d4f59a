"""RAG and EMBCACHE as calls; and the three families behind one set of names, for tests of what holds for all.

A container of any family is filled with entries by number: entry i has the same content in every run, so
`held` can tell which of them come back as they were stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import names, vectors
from .cache import Cache, answer, options
from .replies import fields, number


class Answers(Cache):
    """LLMCACHE."""

    family = "LLMCACHE"
    type_name = b"llm-cache"
    dim = 32

    def make(self, **given):
        return self.create(**given)

    def held(self, numbers: Iterable[int]) -> set[int]:
        return self.found_by_meaning(list(numbers))

    def key_number(self, i: int) -> bytes:
        return self.key_of(names.entry_id(f"prompt {i}"))

    def drop_number(self, i: int) -> int:
        return self.delete(names.entry_id(f"prompt {i}"))

    def store_number(self, i: int) -> tuple:
        row = vectors.units(1, self.dim, 7, i)[0]
        return ("LLMCACHE.SETSEM", self.name, "PROMPT", f"prompt {i}", "RESPONSE", answer(i, 64), *vectors.fp32(row))

    def read_number(self, i: int) -> tuple:
        return ("LLMCACHE.GET", self.name, "PROMPT", f"prompt {i}")

    def number_of_entries(self) -> int:
        return self.info()["entries"]


class _Family(Cache):
    """What RAG and EMBCACHE have of the calls of a cache."""

    family = ""
    dim = 32

    def run(self, command: str, *arguments) -> Any:
        return self.client.execute_command(f"{self.family}.{command}", self.name, *arguments)

    def number_of_entries(self) -> int:
        return self.info()["entries"]


class Documents(_Family):
    """RAG: document i has the id `doc:i`."""

    family = "RAG"
    type_name = b"llm-docmt"

    def make(self, **given):
        return self.create(**given)

    def add(self, id_, vector, text, **given) -> int:
        return self.run("ADD", id_, *options({"vector": vector}), "TEXT", text, *options(given))

    def madd(self, *documents: Sequence) -> list[int]:
        """Documents as `(id, vector, text, **options as a map)`."""
        arguments: list = []
        for id_, vector, text, *given in documents:
            arguments += [id_, *options({"vector": vector}), "TEXT", text, *options(given[0] if given else {})]
        return self.run("MADD", len(documents), *arguments)

    def search(self, vector, **given) -> list[dict[str, Any]]:
        found = [fields(one) for one in self.run("SEARCH", *options({"vector": vector, **given}))]
        for one in found:
            if "similarity" in one:
                one["similarity"] = number(one["similarity"])
        return found

    def ids(self, vector, **given) -> list[bytes]:
        return [one["id"] for one in self.search(vector, **given)]

    def get(self, id_) -> dict[str, Any] | None:
        reply = self.run("GET", id_)
        return None if reply is None else fields(reply)

    def scan_ids(self, count=None, **given) -> list[str]:
        return super().scan_ids(count, **given)

    def fill(self, count, dim=32, seed=7, size=64, start=0, **given):
        self.bulk((*self.store_number(i, dim, seed, size), *options(given)) for i in range(start, start + count))
        return [f"doc:{i}" for i in range(start, start + count)]

    def held(self, numbers):
        numbers = list(numbers)
        rows = {i: vectors.units(1, self.dim, 7, i)[0] for i in numbers}
        replies = self.bulk(
            ("RAG.SEARCH", self.name, *vectors.fp32(rows[i]), "COUNT", 1, "SIMILARITY", 1) for i in numbers
        )
        texts = {i: self.get(f"doc:{i}") for i in numbers}
        found = {i for i, reply in zip(numbers, replies, strict=True) if reply and fields(reply[0])["id"] == b"doc:%d" % i}
        there = {i for i in numbers if texts[i] and texts[i]["text"].startswith(b"answer %d " % i)}
        # By meaning and by id alike.
        return found & there

    def key_number(self, i):
        return self.key_of(f"doc:{i}")

    def drop_number(self, i):
        return self.delete(f"doc:{i}")

    def store_number(self, i, dim=32, seed=7, size=64):
        row = vectors.units(1, dim, seed, i)[0]
        return ("RAG.ADD", self.name, f"doc:{i}", *vectors.fp32(row), "TEXT", answer(i, size))

    def read_number(self, i):
        return ("RAG.GET", self.name, f"doc:{i}")


def embedding_digest(model: bytes | str, text: bytes | str) -> str:
    """SHA-256 over model and text, each behind its length (u32, LE), as docs/formats.md has it."""
    digest = hashlib.sha256()
    for part in map(names.raw, (model, text)):
        digest.update(len(part).to_bytes(4, "little"))
        digest.update(part)
    return digest.hexdigest()


class Embeddings(_Family):
    """EMBCACHE: embedding i is of the text `prompt i`, under the model `m`."""

    family = "EMBCACHE"
    type_name = b"llm-embed"
    model = "m"

    def make(self, **given):
        return self.create(**{"model": self.model, "dim": self.dim, **given})

    def set(self, text, vector, **given):
        return self.run("SET", "TEXT", text, *options({"vector": vector, **given}))

    def get(self, text, *tail):
        return self.run("GET", "TEXT", text, *tail)

    def mget(self, texts, *tail):
        return self.run("MGET", "TEXTS", len(texts), *texts, *tail)

    def delete(self, *texts):
        return self.run("DEL", "TEXTS", len(texts), *texts)

    def text_key(self, text) -> bytes:
        return self.key_of(embedding_digest(self.model, text)[:32])

    def scan_ids(self, count=None, **given):
        """The family has no SCAN; that of the server lists the keys."""
        prefix = self.info()["prefix"]
        return [key[len(prefix) :].decode() for key in self.client.scan_iter(count=10_000) if key.startswith(prefix)]

    def fill(self, count, dim=32, seed=7, size=64, start=0, **given):
        del size
        tail = options(given)
        self.bulk((*self.store_number(i, dim, seed), *tail) for i in range(start, start + count))
        return [embedding_digest(self.model, f"prompt {i}")[:32] for i in range(start, start + count)]

    def held(self, numbers):
        numbers = list(numbers)
        blobs = self.mget([f"prompt {i}" for i in numbers]) if numbers else []
        found = set()
        for i, blob in zip(numbers, blobs, strict=True):
            if blob is not None:
                row = vectors.units(1, self.dim, 7, i)[0]
                assert np.abs(np.frombuffer(blob, "<f4") - row).max() <= 0.01
                found.add(i)
        return found

    def key_number(self, i):
        return self.text_key(f"prompt {i}")

    def drop_number(self, i):
        return self.delete(f"prompt {i}")

    def store_number(self, i, dim=32, seed=7):
        row = vectors.units(1, dim, seed, i)[0]
        return ("EMBCACHE.SET", self.name, "TEXT", f"prompt {i}", *vectors.fp32(row), "MODEL", self.model)

    def read_number(self, i):
        return ("EMBCACHE.GET", self.name, "TEXT", f"prompt {i}")


FAMILIES = [Answers, Documents, Embeddings]
