"""What inference engines need of `KVCHUNK.*`: chunks in and out of their own buffers, over sockets of its own.

Knows no engine: `llmcache.lmcache` and `llmcache.sglang` are the adapters. Imports nothing but the standard library.
"""

from .store import ChunkStore, Found, Options
from .wire import Endpoint, ReplyError

__all__ = ["ChunkStore", "Endpoint", "Found", "Options", "ReplyError"]
