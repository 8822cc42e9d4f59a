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
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def maybe_text(value: Any) -> str | None:
    return None if value is None else text(value)


def raw(value: str | bytes) -> bytes:
    """Text as the bytes that `text` made it from."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


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


def plain(value: Any) -> Any:
    """A reply for a person: text where bytes are, numbers where text spells them."""
    if isinstance(value, bytes):
        shown = text(value)
        try:
            return float(shown) if "." in shown or "e" in shown else shown
        except ValueError:
            return shown
    if isinstance(value, Mapping):
        return {text(name): plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return value
