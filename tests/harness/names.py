"""Names of entries and hash slots, computed here from the documented rules, not by the module."""

from __future__ import annotations

import hashlib


def raw(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def entry_id(prompt: bytes | str, scope: bytes | str = b"", context: bytes | str = b"") -> str:
    """First 128 bits of SHA-256 over scope, context and prompt, each behind its length (u32, LE)."""
    digest = hashlib.sha256()
    for part in map(raw, (scope, context, prompt)):
        digest.update(len(part).to_bytes(4, "little"))
        digest.update(part)
    return digest.digest()[:16].hex()


def hash_tag(name: bytes) -> bytes | None:
    """What is between the first `{` and the next `}`, when there is anything."""
    start = name.find(b"{")
    if start < 0:
        return None
    end = name.find(b"}", start + 1)
    return name[start + 1 : end] if end > start + 1 else None


def entry_key(cache: bytes | str, uid: bytes | str, id_: bytes | str) -> bytes:
    """The Redis key of an entry."""
    cache = raw(cache)
    head = cache if hash_tag(cache) is not None else b"{" + cache + b"}"
    return head + b":" + raw(uid) + b":" + raw(id_)


def key_slot(key: bytes | str) -> int:
    """The cluster's hash slot of a key: CRC16 (XMODEM) of its tag, or of all of it, modulo 16384."""
    key = raw(key)
    tag = hash_tag(key)
    crc = 0
    for byte in key if tag is None else tag:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % 16384
