"""llmcache from Python: answers, embeddings, documents, conversations and KV-cache chunks in Redis or Valkey.

Classes take the client that the application has: `LLMCache(redis.Redis(), "faq")`. `llmcache.asyncio` has the same
for asyncio.
"""

# Not in `__all__`: a star import must not take the place of the standard library's asyncio.
from . import asyncio as asyncio
from . import errors
from ._flow import Pipeline
from ._session import assistant, system, tool, user
from ._streams import StreamWriter
from ._sync import DocumentIndex, EmbeddingCache, KVChunks, LLMCache, Session
from ._version import __version__
from .filters import F
from .types import Answer, Context, Document, Explanation, Fetched, Hit, Message, Part, Stats, Window
from .vectors import FP16

__all__ = [
    "FP16",
    "Answer",
    "Context",
    "Document",
    "DocumentIndex",
    "EmbeddingCache",
    "Explanation",
    "F",
    "Fetched",
    "Hit",
    "KVChunks",
    "LLMCache",
    "Message",
    "Part",
    "Pipeline",
    "Session",
    "Stats",
    "StreamWriter",
    "Window",
    "__version__",
    "assistant",
    "errors",
    "system",
    "tool",
    "user",
]
