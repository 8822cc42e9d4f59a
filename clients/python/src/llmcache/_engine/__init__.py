"""What inference engines need of `KVCHUNK.*`: chunks in and out of their own buffers, over sockets of its own.

Knows no engine: `llmcache.lmcache` and `llmcache.sglang` are the adapters. Imports nothing but the standard
library, and llmcache-native where it is installed.
"""

from .native import open_store
from .store import ChunkStore
from .terms import Found, Names, Options, Store
from .wire import Endpoint, ReplyError

__all__ = ["ChunkStore", "Endpoint", "Found", "Names", "Options", "ReplyError", "Store", "open_store"]
