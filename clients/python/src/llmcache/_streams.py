"""Writing a message while it is read, from a thread.

Owns: the place where the text ends, what is not sent yet, the lease that is renewed while the model thinks. One
writer belongs to one thread; a thread of its own sends what lingers and renews the lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from . import _replies as r
from .errors import is_outage

log = logging.getLogger("llmcache")

OPEN = ("open",)
ENDED = ("done", "stopped", "error", "whole")


class Writable(Protocol):
    """What a writer needs of a session."""

    key: Any

    @property
    def begin(self) -> Callable[..., tuple[int, bytes, int]]: ...

    @property
    def chunk(self) -> Callable[..., tuple[int, bool]]: ...

    @property
    def end(self) -> Callable[..., Any]: ...


class StreamWriter:
    """A message that is being written. Ends with the `with` block: `error` where that was left by an exception."""

    def __init__(
        self, session: Writable, role: str, *, id: str | None, lease: float, linger: float,
        meta: Mapping[str, Any] | None, takeover: bool,
    ):  # fmt: skip
        self._session, self._role, self._id = session, role, id
        self._lease, self._linger, self._meta, self._takeover = lease, linger, meta, takeover
        self._ended: dict[str, Any] = {}
        self._unsent = bytearray()
        self._half = ""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._token = b""
        self._thread: threading.Thread | None = None
        self._sent_at = 0.0
        self.seq = 0
        self.offset = 0
        self.stopped = False

    def __enter__(self) -> StreamWriter:
        self.seq, self._token, self.offset = self._session.begin(
            self._role, id=self._id, lease=self._lease, meta=self._meta, takeover=self._takeover
        )
        self._sent_at = time.monotonic()
        self._thread = threading.Thread(target=self._pump, name="llmcache-stream", daemon=True)
        self._thread.start()
        return self

    def write(self, text: str | bytes) -> bool:
        """Adds text; False when the message was stopped from outside, and nothing more is wanted."""
        with self._lock:
            self._raise()
            part, self._half = r.joined(self._half, text)
            self._unsent += part
            if not self._linger or time.monotonic() - self._sent_at >= self._linger:
                self._send()
        return not self.stopped

    def finish(self, **details: Any) -> None:
        """What the end tells: tokens, meta, cache and prompt (see `Session.end`)."""
        self._ended = details

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._closing.set()
        assert self._thread is not None
        self._thread.join()
        try:
            with self._lock:
                self._raise()
                self._unsent += r.raw(self._half)
                self._send()
            self._session.end(self.seq, self._token, error=kind is not None, **self._ended)
        except Exception as error:
            if kind is None:
                raise
            # The exception that ended the block is what the caller has to hear.
            log.warning("llmcache: message %d of %s was not ended: %s", self.seq, self._session.key, error)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._token:
            raise RuntimeError("the message has not begun: write within the `with` block of its writer")

    def _send(self, renew: bool = False) -> None:
        if self.stopped or not (self._unsent or renew):
            self._unsent.clear()
            return
        data = bytes(self._unsent)
        self.offset, self.stopped = self._session.chunk(self.seq, self._token, self.offset, data)
        self._unsent.clear()
        self._sent_at = time.monotonic()

    def _pump(self) -> None:
        pause = min(self._linger or self._lease / 3, self._lease / 3)
        while not self._closing.wait(pause):
            with self._lock:
                idle = time.monotonic() - self._sent_at
                try:
                    if self._unsent or idle >= self._lease / 3:
                        self._send(renew=True)
                except Exception as error:
                    if not is_outage(error):
                        self._failure = error
                        return
                    log.warning("llmcache: message %d of %s: %s", self.seq, self._session.key, error)
