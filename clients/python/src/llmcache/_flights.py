"""Callers of one process that want the same: the first does it, the others wait for what comes of it.

Owns: who is the first. Entered from any thread; knows no command and no connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class Flight:
    """What several callers of one process want: the first does it, the others wait for what comes of it."""

    __slots__ = ("done", "first", "future", "result")

    def __init__(self) -> None:
        self.first = True
        self.result: Any = None
        self.done: threading.Event | None = None
        self.future: asyncio.Future[Any] | None = None

    @classmethod
    def joined(cls, result: Any) -> Flight:
        """What one who waited gets."""
        flight = cls()
        flight.first = False
        flight.result = result
        return flight


class Flights:
    """The flights of one connection; entered and left from any thread, each event loop apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[Any, ...], Flight] = {}

    def enter(self, key: tuple[Any, ...], make: Callable[[Flight], None]) -> tuple[Flight, bool]:
        with self._lock:
            flight = self._open.get(key)
            if flight is not None:
                return flight, False
            flight = self._open[key] = Flight()
            make(flight)
            return flight, True

    def leave(self, key: tuple[Any, ...], result: Any) -> None:
        """The first tells the others; None has them try for themselves."""
        with self._lock:
            flight = self._open.pop(key, None)
        if flight is None:
            return
        flight.result = result
        if flight.done is not None:
            flight.done.set()
        if flight.future is not None and not flight.future.done():
            flight.future.set_result(result)
