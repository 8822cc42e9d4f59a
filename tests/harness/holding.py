"""Holds the thread that embeds, for as long as a test wants, on a quick machine as on a slow one.

A batch of many texts of a slow model is given to the one thread, which takes them in their order: what is asked next
waits behind all of them, for half a minute. The hold ends when the client of the batch is ended: the texts that nobody
waits for any more are passed over, so what waits behind them is embedded after one pass, of some 50 ms, at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness.model import models_option, write_model
from harness.server import Server
from harness.waiting import wait_until
from harness.wire import Failure, Wire

LONG = " ".join(["ab", "cd", "ef"] * 20)
# Longer than a test needs by far: 25 s where a text takes 50 ms, and a test needs some 50 ms.
TEXTS = 500
BATCH = "busy"


def options(folder: Path) -> dict[str, object]:
    """Of a server with one thread that embeds: the model "small", and "slow" for the batch."""
    small, slow = write_model(folder / "small", threshold=0.8), write_model(folder / "slow", layers=8)
    return {
        "llmcache.embed-models": models_option(small=small, slow=slow),
        "llmcache.embed-engine": "scalar",
        "llmcache.embed-threads": 1,
        "llmcache.embed-timeout-ms": 600_000,
        "llmcache.embed-memo": 0,
    }


def create(server: Server) -> None:
    """Makes the container of the batch, which is never stored."""
    server.client().execute_command("RAG.CREATE", BATCH, "EMBED", "slow")


def queued(server: Server) -> int:
    """Texts that wait or are at work."""
    return int(server.info("llmcache")["llmcache_texts_queued"])


def blocked(server: Server) -> int:
    """Clients that wait; the one of the batch is one of them."""
    return int(server.info("clients")["blocked_clients"])


def all_told(server: Server, clients: int) -> bool:
    """Whether of so many clients beside the batch's, with one text each, all wait or were refused."""
    info = server.info()
    return int(info["blocked_clients"]) - 1 + int(info["llmcache_texts_busy"]) == clients


@contextlib.contextmanager
def held(server: Server, texts: int = TEXTS) -> Iterator[None]:
    """The thread embeds nothing else until the block ends. What happens to the server in it may end the batch."""
    documents = [x for n in range(texts) for x in (f"d{n}", "TEXT", f"{LONG} {chr(97 + n % 26)}{n}")]
    with server.wire() as batch:
        number = batch("CLIENT", "ID")
        batch.send("RAG.MADD", BATCH, texts, *documents)
        wait_until(lambda: queued(server) > texts // 2, "the thread is busy")
        try:
            yield
        finally:
            reply = _end(server, number, batch)
    assert reply is None or isinstance(reply, Failure), "the batch was done before the test: the hold was too short"


def _end(server: Server, number: int, batch: Wire):
    """Ends the client of the batch, if it and the server are still there; the reply that it had before, if any."""
    with contextlib.suppress(OSError), server.wire() as other:
        other("CLIENT", "KILL", "ID", number)
    with contextlib.suppress(OSError):
        return batch.read()
    return None
