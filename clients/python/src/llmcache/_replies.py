"""Replies of RESP2 and RESP3 turned into one form. Pure.

Commands are sent undecoded, so text is always bytes; maps are flat lists in RESP2 and dicts in RESP3, numbers with
a fraction are text in RESP2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def text(value: Any) -> str:
    """Bytes as text; what is no UTF-8 keeps its bytes as surrogates, so that none is lost."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _decoded(value)
    return "" if value is None else str(value)


def _decoded(value: bytes) -> str:
    # Half of a surrogate pair, as JSON may hold and a model may answer: `raw` wrote it so.
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")


def maybe_text(value: Any) -> str | None:
    return None if value is None else text(value)


def raw(value: str | bytes) -> bytes:
    """Text as the bytes that `text` made it from."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"text or bytes are needed, not {type(value).__name__}")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Two halves are one character; one alone keeps its number.
        whole = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return whole.encode("utf-8", "surrogatepass")


def joined(half: str, text: str | bytes) -> tuple[bytes, str]:
    """The bytes of a part of a stream behind `half` of a surrogate pair, and the half that it ends with.

    A model's parts come as JSON each by itself, and a character beyond the first 65,536 may be parted between two."""
    if not half and isinstance(text, str) and not "\ud800" <= text[-1:] <= "\udbff":
        return raw(text), ""
    if not isinstance(text, str):
        return raw(half) + raw(text), ""
    text = half + text
    parted = "\ud800" <= text[-1:] <= "\udbff"
    return (raw(text[:-1]), text[-1]) if parted else (raw(text), "")


def tagged(tags: Any) -> list[Any]:
    """Tags as the arguments of a command; a text is one tag that somebody forgot to put into a list."""
    if isinstance(tags, str | bytes):
        raise TypeError(f"tags are a list of them, not the text {tags!r}")
    tags = list(tags or ())
    return ["TAGS", len(tags), *tags] if tags else []


def mapping(reply: Any) -> dict[str, Any]:
    """A map, whichever protocol it came by."""
    if isinstance(reply, Mapping):
        return {text(name): value for name, value in reply.items()}
    pairs = iter(reply)
    return {text(name): value for name, value in zip(pairs, pairs, strict=True)}


def number(value: Any) -> float:
    return float(value)


def maybe_number(value: Any) -> float | None:
    return None if value is None else float(value)


def seconds(milliseconds: Any) -> float | None:
    """A time to live; None for never."""
    return None if milliseconds is None or int(milliseconds) < 0 else int(milliseconds) / 1_000


def document(value: Any) -> Any:
    """META."""
    return None if value is None else json.loads(value)


def texts(values: Any) -> list[str]:
    return [text(value) for value in values or ()]


FRACTIONS = frozenset(
    ("hit_ratio", "usd_saved", "threshold", "cost", "similarity", "similarity_histogram", "thresholds", "half_life")
)
"""Members whose numbers have a fraction, which RESP2 sends as text."""


def member(name: str, value: Any) -> Any:
    """A member of a map for a person."""
    return _numbers(value) if name in FRACTIONS else plain(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    return float(value) if isinstance(value, bytes) else value


def plain(value: Any) -> Any:
    """A reply for a person: text where bytes are."""
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, Mapping):
        return {text(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
