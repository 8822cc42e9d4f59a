"""The same names as in `llmcache`, for asyncio."""

from .._flow import AsyncPipeline as Pipeline
from ._classes import DocumentIndex, EmbeddingCache, KVChunks, LLMCache, Session
from ._streams import Follower, StreamWriter

__all__ = [
    "DocumentIndex",
    "EmbeddingCache",
    "Follower",
    "KVChunks",
    "LLMCache",
    "Pipeline",
    "Session",
    "StreamWriter",
]
