"""Containers of each kind that embed by the model "small", the commands that take a text, and what they left."""

from __future__ import annotations

from .server import Server
from .wire import Failure, Wire

# Tagged, so that all of them move together.
CACHE, DOCS, CHAT, KEPT = "{t}faq", "{t}docs", "{t}chat", "{t}emb"


def fill(wire: Wire, kept: str) -> None:
    """Makes them, each but the embeddings with one entry of this text."""
    for command in (
        ("LLMCACHE.CREATE", CACHE, "EMBED", "small"),
        ("RAG.CREATE", DOCS, "EMBED", "small"),
        ("LLMCACHE.SETSEM", CACHE, "PROMPT", kept, "RESPONSE", "kept"),
        ("RAG.ADD", DOCS, "kept", "TEXT", kept),
        ("SESSION.APPEND", CHAT, "EMBED", "small", "MSG", "user", kept),
        ("EMBCACHE.CREATE", KEPT, "EMBED", "small"),
    ):
        assert not isinstance(wire(*command), Failure)


def writes(text: str) -> dict[str, tuple]:
    """Commands that embed this text and change something."""
    return {
        "SETSEM": ("LLMCACHE.SETSEM", CACHE, "PROMPT", text, "RESPONSE", "yes"),
        "FETCH": ("LLMCACHE.FETCH", CACHE, "PROMPT", text, "WAIT", 0),
        "NEAR": ("LLMCACHE.INVALIDATE", CACHE, "NEAR", "PROMPT", text, "SIMILARITY", "-1"),
        "ADD": ("RAG.ADD", DOCS, "one", "TEXT", text),
        "EDIT": ("SESSION.EDIT", CHAT, 1, text),
    }


def reads(text: str) -> dict[str, tuple]:
    """Commands that embed this text and change nothing."""
    return {
        "GETSEM": ("LLMCACHE.GETSEM", CACHE, "PROMPT", text),
        "SEARCH": ("RAG.SEARCH", DOCS, "TEXT", text),
        "RECALL": ("SESSION.RECALL", CHAT, "TEXT", text),
    }


def effects(server: Server) -> tuple:
    """What there is of these containers."""
    with server.wire() as wire:
        return tuple((key, str(wire("DEBUG", "DIGEST-VALUE", key))) for key in sorted(wire("KEYS", "{t}*")))


def word(reply: object) -> object:
    """A reply, or the word of an error."""
    return reply.text if isinstance(reply, Failure) else reply


def shape(reply: object) -> object:
    """What stays the same of replies that have tokens, vectors and times in them."""
    if isinstance(reply, list):
        return [shape(one) for one in reply]
    if isinstance(reply, bytes) and len(reply) >= 8 and not reply.isalpha():
        return "bytes"
    return "number" if isinstance(reply, int) and reply > 1_000 else reply
