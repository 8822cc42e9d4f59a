"""What methods return, and what they take besides text and numbers. Pure data; times are in seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import _replies as r
from .vectors import floats


class Context:
    """What changes an answer besides the question: model, system prompt, tools, earlier turns, settings.

    Two contexts are equal when all their parts are. `str()` is what the server keeps: a digest.
    """

    __slots__ = ("_digest", "parts")

    def __init__(self, **parts: Any):
        self.parts = parts
        canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_canonical)
        self._digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()

    def __str__(self) -> str:
        return self._digest

    def __repr__(self) -> str:
        return f"Context({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


def _canonical(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    for name in ("model_dump", "dict"):
        dump = getattr(value, name, None)
        if callable(dump):
            return dump()
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    # A repr with an address would make every process another context, and each look-up a miss without a word.
    raise TypeError(f"a context cannot hold {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a maker may return instead of the bare text, to be stored with it."""

    text: str | bytes
    tokens: int | None = None
    cost: float | None = None
    meta: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()
    ttl: float | None = None
    store: bool = True


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that was found. `similarity` is 1 for an exact one."""

    id: str
    tier: str
    similarity: float
    prompt: str
    body: bytes
    age: float
    ttl: float | None
    stale: bool
    meta: Any
    tags: list[str]
    hits: int
    verified: bool | None = None
    audit: bytes | None = None

    @property
    def response(self) -> str:
        return r.text(self.body)

    @classmethod
    def of(cls, reply: Any) -> Hit:
        m = r.mapping(reply)
        return cls(
            id=r.text(m.get("id")),
            tier=r.text(m.get("tier")),
            similarity=float(m.get("similarity") or 0),
            prompt=r.text(m.get("prompt")),
            body=m.get("response") or b"",
            age=int(m.get("age") or 0) / 1_000,
            ttl=r.seconds(m.get("ttl")),
            stale=bool(int(m.get("stale") or 0)),
            meta=r.document(m.get("meta")),
            tags=r.texts(m.get("tags")),
            hits=int(m.get("hits") or 0),
            verified=None if m.get("verified") is None else bool(int(m["verified"])),
            audit=m.get("audit"),
        )

    @classmethod
    def maybe(cls, reply: Any) -> Hit | None:
        return None if reply is None else cls.of(reply)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The outcome of a fetch: `status` is HIT, STALE, LEAD, LEAD-STALE, BUSY, NEG or OPEN."""

    status: str
    hit: Hit | None = None
    token: bytes | None = None
    lease: float | None = None
    retry: float | None = None
    error: str | None = None
    audit: bytes | None = None
    candidate: Hit | None = None

    @classmethod
    def of(cls, reply: Any) -> Fetched:
        m = r.mapping(reply)
        return cls(
            status=r.text(m["status"]),
            hit=Hit.maybe(m.get("hit")),
            token=m.get("token"),
            lease=r.seconds(m.get("lease_ms")),
            retry=r.seconds(m.get("retry_ms")),
            error=r.maybe_text(m.get("error")),
            audit=m.get("audit"),
            candidate=Hit.maybe(m.get("candidate")),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """Two questions and two answers: whether `candidate`, the answer to `stored`, is right for `asked`, as `made`."""

    asked: str
    made: str
    stored: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a look-up found what it found, or nothing."""

    status: str
    reason: str | None
    threshold: float
    tier: str | None
    nearest: Mapping[str, Any] | None
    guard: str | None
    hits: list[Hit]
    all: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Any) -> Explanation:
        m = r.mapping(reply)
        nearest = m.get("nearest")
        found = m.get("hits") or []
        return cls(
            status=r.text(m.get("status")),
            reason=r.maybe_text(m.get("reason")),
            threshold=float(m.get("threshold") or 0),
            tier=r.maybe_text(m.get("tier")),
            nearest=_readable(nearest) if nearest else None,
            guard=r.maybe_text(m.get("guard")),
            hits=[Hit.of(one) for one in found],
            all={name: r.member(name, value) for name, value in m.items() if name not in ("hits", "nearest")},
        )


def _readable(reply: Any) -> dict[str, Any]:
    m = r.mapping(reply)
    return {
        name: float(value) if name == "similarity" else r.text(value) if isinstance(value, bytes) else value
        for name, value in m.items()
    }


class Fields(dict[str, Any]):
    """A map of the server, its fields also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def of(cls, reply: Any) -> Fields:
        return cls({name: r.member(name, value) for name, value in r.mapping(reply).items()})


class Stats(Fields):
    """Counts of a cache since the process started; `hit_ratio`, `usd_saved` and so on, as LLMCACHE.STATS names them."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document: to be added, or one that was found."""

    id: str
    text: str
    vector: Any = None
    meta: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()
    tokens: int | None = None
    ttl: float | None = None
    similarity: float | None = None
    age: float | None = None
    hits: int | None = None
    score: float | None = None
    snippet: str | None = None

    @classmethod
    def of(cls, reply: Any) -> Document:
        m = r.mapping(reply)
        blob = m.get("vector")
        return cls(
            id=r.text(m.get("id")),
            text=r.text(m.get("text")),
            vector=None if blob is None else floats(blob),
            meta=r.document(m.get("meta")),
            tags=r.texts(m.get("tags")),
            tokens=m.get("tokens"),
            ttl=r.seconds(m.get("ttl")),
            similarity=r.maybe_number(m.get("similarity")),
            age=r.seconds(m.get("age")),
            hits=m.get("hits"),
            score=r.maybe_number(m.get("score")),
            snippet=None if m.get("snippet") is None else r.text(m.get("snippet")),
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message: to be appended, or one that was read. `seq` is its place, given by the server."""

    role: str
    body: str | bytes
    id: str | None = None
    tokens: int | None = None
    meta: Any = None
    pinned: bool = False
    call: str | None = None
    result: str | None = None
    vector: Any = None
    seq: int = 0
    summary: bool = False
    status: str = "whole"
    estimated: bool = False

    @property
    def text(self) -> str:
        return r.text(self.body)

    @property
    def raw(self) -> bytes:
        return r.raw(self.body)

    @classmethod
    def of(cls, reply: Sequence[Any]) -> Message:
        """From the form `[seq, role, payload, tokens, name, value, ...]`."""
        seq, role, payload, tokens, *rest = reply
        return cls._from(seq, role, payload, tokens, r.mapping(rest))

    @classmethod
    def of_map(cls, reply: Any) -> Message:
        m = r.mapping(reply)
        return cls._from(m.pop("seq"), m.pop("role"), m.pop("payload"), m.pop("tokens"), m)

    @classmethod
    def _from(cls, seq: Any, role: Any, payload: Any, tokens: Any, m: Mapping[str, Any]) -> Message:
        return cls(
            role=r.text(role),
            body=payload if payload is not None else b"",
            id=r.maybe_text(m.get("id")),
            tokens=int(tokens),
            meta=r.document(m.get("meta")),
            pinned=bool(int(m.get("pinned") or 0)),
            call=r.maybe_text(m.get("call")),
            result=r.maybe_text(m.get("result")),
            seq=int(seq),
            summary=bool(int(m.get("summary") or 0)),
            status=r.text(m.get("status") or b"whole"),
            estimated=bool(int(m.get("estimated") or 0)),
        )


class Appended(NamedTuple):
    """Where messages went: `[(seq, whether it was new), ...]`, and what the session holds now."""

    places: list[tuple[int, bool]]
    messages: int
    tokens: int


class Window(NamedTuple):
    """The newest messages that fit, oldest first."""

    tokens: int
    first: int
    cut: bool
    messages: list[Message]


class Recalled(NamedTuple):
    """A message found by meaning, and its neighbours where they were asked for."""

    similarity: float
    message: Message
    before: list[Message]
    after: list[Message]


class Listed(NamedTuple):
    """A session of an owner; `at` is its last append in Unix seconds."""

    session: str
    at: float
    messages: int
    tokens: int


class Part(NamedTuple):
    """Text of a message that is being written, where it ends in bytes, and the message's status."""

    data: bytes
    offset: int
    status: str

    @property
    def text(self) -> str:
        return r.text(self.data)


class Match(NamedTuple):
    """The longest prefix of a prompt that is there, and the lease on it."""

    chunks: int
    tokens: int
    lease: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of attention KV cache."""

    digest: str
    meta: Any
    size: int
    segments: list[bytes] = field(repr=False)

    @property
    def payload(self) -> bytes:
        return b"".join(self.segments)


class Page(NamedTuple):
    """Chunks of one answer: how many the prefix has, and where to go on (None at the end)."""

    prefix: int
    next: int | None
    chunks: list[Chunk]
    lease: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a chunk: STORED, EXISTS or REJECTED, and then why."""

    status: str
    reason: str | None = None

    @classmethod
    def of(cls, reply: Any) -> Stored:
        head, _, tail = r.text(reply).partition(" ")
        return cls(head, tail or None)


Embed = Callable[[str], Any]
Judge = Callable[[Judged], Any]
EmbedMany = Callable[[list[str]], Any]
