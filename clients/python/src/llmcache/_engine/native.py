"""The store of chunks whose sockets are those of llmcache-native, a small extension in Rust.

Owns: nothing but the way there; threads, connections and pages are the extension's. It is used where it is installed,
but for TLS, which Python speaks.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .store import ChunkStore
from .terms import (
    Asked,
    Chunk,
    Command,
    Counts,
    Found,
    Names,
    Options,
    Store,
    Told,
    found,
    match_commands,
    nothing,
    settings,
    slices,
    waited,
)
from .wire import Endpoint, Reply

log = logging.getLogger("llmcache.engine")

# What the extension's functions take and answer.
_INTERFACE = 2


def open_store(endpoint: Endpoint, options: Options | None = None) -> Store:
    """A store by the extension, where it can do what is asked, else in Python."""
    options = options or Options()
    if options.native is False:
        return ChunkStore(endpoint, options)
    extension, why = _extension(endpoint)
    if extension is None:
        if options.native:
            raise ValueError(f"native is not to be had: {why}")
        return ChunkStore(endpoint, options)
    return NativeStore(extension, endpoint, options)


def _extension(endpoint: Endpoint) -> tuple[Any, str]:
    """The extension, or why it is none."""
    if endpoint.tls:
        return None, "llmcache-native does not speak TLS"
    try:
        extension = importlib.import_module("llmcache_native")
    except ImportError as error:
        return None, f"llmcache-native is not installed: {error}"
    if extension.INTERFACE != _INTERFACE:
        return None, f"llmcache-native {extension.__version__} is for another version of llmcache"
    return extension, ""


class NativeStore:
    """A `Store` by the extension."""

    is_native = True

    def __init__(self, extension: Any, endpoint: Endpoint, options: Options) -> None:
        self.endpoint, self._lease_ms = endpoint, options.lease_ms
        self._pack = extension.pack
        words = [str(word).encode() for word in settings(options)]
        self._native = extension.Store(endpoint, options, words, lambda text: log.warning("%s: %s", endpoint, text))

    def slices(self, hashes: Sequence[bytes], ranks: Sequence[int], groups: Sequence[int]) -> Names:
        packed, width = self._pack(hashes, ranks, groups)
        return Names(packed=packed, width=width) if width else slices(hashes, ranks, groups)

    def close(self) -> None:
        self._native.close()

    @property
    def counts(self) -> Counts:
        return Counts(**self._native.counts())

    @property
    def is_up(self) -> bool:
        return bool(self._native.is_up)

    def put(self, namespace: str, chunks: Sequence[Chunk], done: Told, ahead: bytes | None = None) -> None:
        if chunks:
            names, payloads = zip(*chunks, strict=True)
            self._native.put(namespace, names, payloads, ahead, done)
        else:
            done([])

    def load(self, namespace: str, chunks: Sequence[Chunk], done: Told) -> None:
        if chunks:
            names, payloads = zip(*chunks, strict=True)
            self._native.load(namespace, names, payloads, done)
        else:
            done([])

    def match(self, asked: Asked, done: Callable[[list[list[Found]]], None], lease_ms: int | None = None) -> None:
        def answered(replies: list[Reply] | None) -> None:
            try:
                told = None if replies is None else found(asked, replies)
            except (TypeError, ValueError, LookupError) as error:
                log.warning("%s answered a look-up something else: %r", self.endpoint, error)
                told = None
            done(nothing(asked) if told is None else told)

        self._native.ask(match_commands(asked, self._lease_ms if lease_ms is None else lease_ms), answered)

    def release(self, namespace: str, lease: int | bytes) -> None:
        self.ask(["KVCHUNK.RELEASE", namespace, lease], lambda _: None)

    def ask(self, args: Command, done: Callable[[Reply], None]) -> None:
        self._native.ask([args], lambda replies: done(replies[0] if replies else None))

    def call(self, args: Command, wait: float | None = None) -> Reply:
        return waited(self, args, wait)
