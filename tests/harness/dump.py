"""DUMP payloads taken apart and put together again, to damage them where it hurts.

A payload of a module's value is: type byte 7, the module type's id, values with an opcode before
each, an end mark, then the RDB version (2 bytes) and a checksum (8 bytes) that the server can be told
to leave unchecked. What the module writes inside a string may be a section of its own: tag u16,
version u16, length u32, body, CRC-32 of all that.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass

FOOTER = 10
MODULE_HEAD = 1 + 9
SECTION_HEAD = struct.Struct("<HHI")


@dataclass(frozen=True)
class Payload:
    """Type and module id, which are left alone; what the module wrote; the footer."""

    head: bytes
    body: bytes
    footer: bytes

    @classmethod
    def parse(cls, dump: bytes) -> Payload:
        assert dump[0] == 7 and dump[1] == 0x81, "not the value of a module type"
        return cls(dump[:MODULE_HEAD], dump[MODULE_HEAD:-FOOTER], dump[-FOOTER:])

    def with_body(self, body: bytes) -> bytes:
        return self.head + body + self.footer


def sections(body: bytes) -> list[tuple[int, int]]:
    """Where whole sections with a right checksum lie, as (start, end)."""
    found = []
    at = 0
    while at + SECTION_HEAD.size + 4 <= len(body):
        _, _, length = SECTION_HEAD.unpack_from(body, at)
        end = at + SECTION_HEAD.size + length + 4
        if end <= len(body) and zlib.crc32(body[at : end - 4]) == struct.unpack_from("<I", body, end - 4)[0]:
            found.append((at, end))
            at = end
        else:
            at += 1
    return found


def resealed(body: bytes, where: list[tuple[int, int]]) -> bytes:
    """The checksums of these sections made right again, so that the damage gets past them."""
    out = bytearray(body)
    for start, end in where:
        struct.pack_into("<I", out, end - 4, zlib.crc32(bytes(out[start : end - 4])))
    return bytes(out)


def damaged(body: bytes, rng: random.Random) -> bytes:
    """One random mutation."""
    out = bytearray(body)
    at = rng.randrange(len(out))
    match rng.randrange(9):
        case 0 | 1 | 2:
            out[at] ^= 1 << rng.randrange(8)
        case 3:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 4:
            del out[at:]
        case 5:
            del out[at : at + rng.randrange(1, 16)]
        case 6:
            out[at:at] = rng.randbytes(rng.randrange(1, 16))
        case 7:
            width = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.getrandbits(64)))
            out[at : at + width] = (value & (2 ** (8 * width) - 1)).to_bytes(width, "little")
        case 8:
            other = rng.randrange(len(out))
            length = rng.randrange(1, 32)
            out[at : at + length] = out[other : other + length]
    return bytes(out)
