"""Vectors as people hold them, turned into the blobs that commands take. Pure; numpy is never imported.

A vector is a sequence of numbers, an `array.array`, anything with numpy's interface, or a blob of little-endian
float32. `FP16(blob)` says that a blob is of float16.
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Sequence
from typing import Any, Protocol, cast


class ArrayLike(Protocol):
    """What numpy arrays, and the tensors that act like them, have."""

    dtype: Any

    def astype(self, dtype: Any, /) -> Any: ...

    def tobytes(self) -> bytes: ...


class FP16(bytes):
    """A blob of little-endian float16."""


Vector = Sequence[float] | ArrayLike | bytes | bytearray | memoryview
"""What stands for a vector wherever this package takes one."""


def blob(vector: Vector) -> tuple[bytes, bytes]:
    """The word and the bytes by which a command takes the vector: (b"FP32", ...) or (b"FP16", ...)."""
    if isinstance(vector, FP16):
        return b"FP16", bytes(vector)
    if isinstance(vector, bytes | bytearray | memoryview):
        return b"FP32", bytes(vector)
    if isinstance(vector, array.array):
        return b"FP32", _floats(vector)
    # Not isinstance: asking a protocol takes longer than all the rest.
    if hasattr(vector, "dtype") and hasattr(vector, "astype"):
        held = cast(ArrayLike, vector)
        if str(held.dtype).endswith("float16") and sys.byteorder == "little":
            return b"FP16", held.tobytes()
        return b"FP32", bytes(held.astype("<f4").tobytes())
    if hasattr(vector, "tolist"):
        return b"FP32", _floats(vector.tolist())
    return b"FP32", _floats(vector)


def _floats(vector: Sequence[float] | array.array[Any]) -> bytes:
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def floats(data: bytes) -> array.array[float]:
    """The numbers of a blob of little-endian float32."""
    packed = array.array("f")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed


def halves(data: bytes) -> array.array[float]:
    """The numbers of a blob of little-endian float16."""
    return array.array("f", struct.unpack(f"<{len(data) // 2}e", data))


def arguments(vector: Vector | None) -> list[bytes]:
    """The vector as arguments of a command; none for none."""
    return [] if vector is None else list(blob(vector))
