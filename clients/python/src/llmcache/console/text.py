"""Texts of users as they may be shown: cut, and without characters that a page would obey. Pure.

The page puts them into text nodes alone, so that HTML in them is text anyway.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from urllib.parse import quote, unquote_to_bytes

CUT_BYTES = 4_096
"""How much of a text is shown."""

# Controls but line breaks and tabs; what turns the direction of text around; what is no character.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with each character that would be obeyed written as its number."""
    return _OBEYED.sub(_numbered, text.replace("\r\n", "\n"))


def _numbered(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown(value: Any, whole: int | None = None, cut: int = CUT_BYTES) -> dict[str, Any] | None:
    """A text for the page: what is shown of it, how long it is in bytes, and whether it was cut."""
    if value is None:
        return None
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    length = len(raw) if whole is None else whole
    head = raw[:cut]
    if len(head) < length:
        head = _whole_characters(head)
    text = visible(head.decode("utf-8", "surrogateescape"))
    return {"text": text, "bytes": length, "cut": len(head) < length}


def _whole_characters(head: bytes) -> bytes:
    """Without the beginning of a character that was cut."""
    for back in range(1, min(4, len(head)) + 1):
        lead = head[-back]
        if lead & 0xC0 == 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return head[:-back] if back < needed else head
        if lead & 0x80 == 0:
            break
    return head


def line(value: Any, cut: int = 200) -> str:
    """A name or a short text on one line."""
    told = shown(value, cut=cut)
    if told is None:
        return ""
    return unicodedata.normalize("NFC", told["text"].replace("\n", "\\n").replace("\t", "\\t")) + (
        "…" if told["cut"] else ""
    )


def handle(value: bytes) -> str:
    """Bytes as a name that survives JSON and addresses: percent-encoded."""
    return quote(value, safe="-_.~{}@/:")


def bytes_of(value: str) -> bytes:
    """What `handle` was made of."""
    return unquote_to_bytes(value)
