#!/usr/bin/env python3
"""Copies a RediSearch index over hashes into an index of RAG.*: SCAN and HGETALL there, RAG.MADD here.

    python clients/redisearch_to_rag.py --index idx --into docs --text content [--source URL] [--target URL]
    python clients/redisearch_to_rag.py --prefix doc: --vector embedding --into docs --text content

Owns: the copy. Needs redis-py, nothing else. The source is only read. A document is named by its hash key, without
the prefix where --strip is given; one that is there already is replaced, so the copy can be made again. Where it
stopped stands in the state file (--state): the next run goes on from there, or from the beginning where the source
was started anew, whose cursors are others. What has changed in between at the source is not seen: stop writing to
it, or run once more.

Of a hash the vector and the text are taken as such, TAG fields as they are and all other fields into META (NUMERIC ones as
numbers), so that FILTER finds them; a time to live goes along.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

# What RediSearch calls the types of vectors, and how Python's arrays do. bfloat16 has no such type.
WIDTHS = {"FLOAT16": 2, "FLOAT32": 4, "FLOAT64": 8}


@dataclass
class Schema:
    """What is known of the hashes."""

    prefixes: list[str]
    vector: str
    vector_type: str = "FLOAT32"
    numeric: set[str] = field(default_factory=set)
    documents: int | None = None


@dataclass
class State:
    """Where a copy stopped."""

    run_id: str
    into: str
    prefixes: list[str]
    prefix: int = 0
    cursor: int = 0
    copied: int = 0
    skipped: int = 0


class LoadError(Exception):
    """Why there is nothing to copy; told in one line."""


def text_of(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def pairs(reply) -> dict[str, object]:
    """A map of RESP3, or the flat array that RESP2 makes of it, with plain flags left out."""
    if isinstance(reply, dict):
        return {text_of(key): value for key, value in reply.items()}
    return {text_of(key): value for key, value in zip(reply[::2], reply[1::2], strict=False)}


def attribute(reply) -> dict[str, str]:
    """One attribute of FT.INFO: names and values in a row, flags such as SORTABLE at the end."""
    return {key.lower(): text_of(value) for key, value in pairs(reply).items() if isinstance(value, bytes | str | int)}


def schema_of(info, vector: str | None = None) -> Schema:
    """What FT.INFO says of an index over hashes; `vector` where it has several."""
    known = pairs(info)
    definition = pairs(known["index_definition"])
    if text_of(definition["key_type"]) != "HASH":
        raise LoadError("the index is not over hashes")
    attributes = [attribute(one) for one in known["attributes"]]
    # The field of the hash, not its alias in the index.
    vectors = {one["identifier"]: one for one in attributes if one["type"] == "VECTOR"}
    if vector is None and len(vectors) != 1:
        raise LoadError(f"the index has {len(vectors)} vector fields: name one with --vector")
    name = vector or next(iter(vectors))
    if name not in vectors:
        raise LoadError(f"the index has no vector field {name}")
    return Schema(
        prefixes=[text_of(prefix) for prefix in definition["prefixes"]],
        vector=name,
        vector_type=vectors[name].get("data_type", "FLOAT32"),
        numeric={one["identifier"] for one in attributes if one["type"] == "NUMERIC"},
        documents=int(known["num_docs"]),
    )


def vector_arguments(blob: bytes, vector_type: str) -> list:
    """The vector as RAG.ADD takes it."""
    if vector_type == "FLOAT64":
        wide = array("d", blob)
        return ["FP32", array("f", wide).tobytes()]
    return ["FP16" if vector_type == "FLOAT16" else "FP32", blob]


def number_or_text(value: bytes):
    with contextlib.suppress(ValueError):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return value.decode(errors="replace")


def document(key: bytes, fields: dict[bytes, bytes], deadline_ms: int, schema: Schema, options: Options) -> list | None:
    """The arguments of one document; None for a hash that has no usable vector or no text."""
    blob, text = fields.pop(schema.vector.encode(), None), fields.pop(options.text.encode(), None)
    if not blob or text is None or len(blob) % WIDTHS[schema.vector_type] or not any(blob):
        return None
    prefix = next(prefix for prefix in schema.prefixes if key.startswith(prefix.encode()))
    out = [key[len(prefix.encode()) :] or key if options.strip else key]
    out += [*vector_arguments(blob, schema.vector_type), "TEXT", text]
    if options.tags and (value := fields.get(options.tags.encode())):
        tags = [tag for tag in value.split(options.tag_separator.encode()) if tag.strip()]
        out += ["TAGS", len(tags), *tags] if tags else []
    meta = {
        name.decode(errors="replace"): number_or_text(value)
        if name.decode(errors="replace") in schema.numeric
        else value.decode(errors="replace")
        for name, value in fields.items()
    }
    out += ["META", json.dumps(meta, ensure_ascii=False)] if meta else []
    return [*out, "PXAT", deadline_ms] if deadline_ms > 0 else out


@dataclass
class Options:
    """What the caller said."""

    into: str
    text: str
    tags: str | None = None
    tag_separator: str = ","
    strip: bool = False
    batch: int = 200
    state: Path | None = None


class Loader:
    """One copy from one server to another."""

    def __init__(self, source: redis.Redis, target: redis.Redis, schema: Schema, options: Options):
        self.source, self.target, self.schema, self.options = source, target, schema, options
        self.state = self._resumed()

    def _resumed(self) -> State:
        """The state file, where it belongs to this copy and its cursors are still good."""
        fresh = State(self.source.info("server")["run_id"], self.options.into, self.schema.prefixes)
        if self.options.state is None or not self.options.state.exists():
            return fresh
        former = State(**json.loads(self.options.state.read_text()))
        same = (former.run_id, former.into, former.prefixes) == (fresh.run_id, fresh.into, fresh.prefixes)
        return former if same else fresh

    def _save(self) -> None:
        if self.options.state is not None:
            # Whole or not at all: a state file that is half a state would end the next run.
            draft = self.options.state.with_suffix(".new")
            draft.write_text(json.dumps(asdict(self.state)))
            os.replace(draft, self.options.state)

    def run(self, progress: Callable[[State], None] = lambda state: None) -> State:
        """Copies what is left; answers what was done in all runs."""
        state = self.state
        while state.prefix < len(self.schema.prefixes):
            pattern = escaped(self.schema.prefixes[state.prefix]) + "*"
            cursor, keys = self.source.scan(state.cursor, match=pattern, count=self.options.batch, _type="hash")
            for start in range(0, len(keys), self.options.batch):
                self._copy(keys[start : start + self.options.batch])
            state.cursor = int(cursor)
            if state.cursor == 0:
                state.prefix += 1
            # Only now: what is not acknowledged is read again.
            self._save()
            progress(state)
        return state

    def _copy(self, keys: list[bytes]) -> None:
        pipe = self.source.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(key)
            pipe.pexpiretime(key)
        read = pipe.execute()
        documents = [
            document(key, dict(fields), deadline, self.schema, self.options)
            for key, fields, deadline in zip(keys, read[::2], read[1::2], strict=True)
            # A key that went meanwhile is an empty hash.
            if fields
        ]
        there = [one for one in documents if one is not None]
        self.state.skipped += len(documents) - len(there)
        if there:
            self.target.execute_command("RAG.MADD", self.options.into, len(there), *flat(there))
            self.state.copied += len(there)


def flat(lists: Iterable[list]) -> list:
    return [part for one in lists for part in one]


def escaped(prefix: str) -> str:
    """A prefix in which no character is a pattern."""
    return "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in prefix)


class Bar:
    """A line that is written over: how many of how many, how fast, how long yet."""

    WIDTH = 30

    def __init__(self, total: int | None, out=None):
        self.total, self.out = total, out or sys.stderr
        self.start, self.before = time.monotonic(), None

    def __call__(self, state: State) -> None:
        done = state.copied + state.skipped
        self.before = done if self.before is None else self.before
        rate = (done - self.before) / max(time.monotonic() - self.start, 1e-3)
        line = f"{done:,} copied, {rate:,.0f}/s"
        if self.total:
            share = min(done / self.total, 1)
            filled = round(share * self.WIDTH)
            left = f", {(self.total - done) / rate:,.0f} s left" if rate > 0 and done < self.total else ""
            line = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {share:4.0%} {done:,} of {self.total:,}, {rate:,.0f}/s{left}"
        self.out.write(f"\r{line}\x1b[K")
        self.out.flush()

    def end(self) -> None:
        self.out.write("\n")


def main(arguments: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(description="copy a RediSearch index over hashes into RAG.*")
    where = words.add_mutually_exclusive_group(required=True)
    where.add_argument("--index", help="index of RediSearch: prefixes, vector field and types are asked from it")
    where.add_argument("--prefix", action="append", help="prefix of the hash keys, where the index is gone")
    words.add_argument("--into", required=True, help="key of the RAG index; made where it does not exist")
    words.add_argument("--text", required=True, help="hash field of the text")
    words.add_argument("--vector", help="hash field of the vector; needed with --prefix")
    words.add_argument("--vector-type", choices=WIDTHS, default="FLOAT32", help="with --prefix")
    words.add_argument("--numeric", action="append", default=[], help="hash field that is a number, with --prefix")
    words.add_argument("--tags", help="hash field whose parts become TAGS too")
    words.add_argument("--tag-separator", default=",")
    words.add_argument("--strip", action="store_true", help="leave the prefix out of the ids")
    words.add_argument("--source", default="redis://127.0.0.1:6379")
    words.add_argument("--target", help="the source, where nothing is said")
    words.add_argument("--batch", type=int, default=200, help="documents of one RAG.MADD, at most 1,000")
    words.add_argument("--state", type=Path, help="where to note how far it came; default .<into>.state.json")
    given = words.parse_args(arguments)
    if not 1 <= given.batch <= 1_000:
        words.error("--batch must be between 1 and 1,000")
    source = redis.from_url(given.source)
    target = redis.from_url(given.target or given.source)
    try:
        if given.index:
            schema = schema_of(source.execute_command("FT.INFO", given.index), given.vector)
        elif given.vector:
            schema = Schema(given.prefix, given.vector, given.vector_type, set(given.numeric))
        else:
            raise LoadError("--prefix needs --vector")
        if schema.vector_type not in WIDTHS:
            raise LoadError(f"vectors of type {schema.vector_type} cannot be copied")
        state = given.state or Path(f".{given.into.replace('/', '_')}.state.json")
        options = Options(given.into, given.text, given.tags, given.tag_separator, given.strip, given.batch, state)
        loader, bar = Loader(source, target, schema, options), Bar(schema.documents)
        if loader.state.copied:
            print(f"going on after {loader.state.copied:,} documents", file=sys.stderr)
        done = loader.run(bar)
        bar.end()
    except (LoadError, redis.RedisError) as why:
        print(f"redisearch_to_rag: {why}", file=sys.stderr)
        return 1
    state.unlink(missing_ok=True)
    print(f"{done.copied:,} documents copied into {given.into}, {done.skipped:,} hashes without vector or text left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
