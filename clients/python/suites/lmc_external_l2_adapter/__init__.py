"""LMCache's example of an external L2 adapter, by name: its tests ask for these classes, and get those of llmcache.

Its config says how much memory the adapter may take; here that is the BUDGET of a namespace. Port in SUITE_PORT.
"""

import os
import socket

from llmcache.lmcache import LLMCacheL2Adapter, LLMCacheL2AdapterConfig

# What a chunk takes beside its 4 KiB: key, header, tree.
OVERHEAD = 1.15


class InMemoryL2AdapterConfig(LLMCacheL2AdapterConfig):
    """The example's parameters as ours."""

    @classmethod
    def from_dict(cls, d):
        room = int(float(d.get("max_size_gb", 1.0)) * (1 << 30) * OVERHEAD)
        return super().from_dict(
            {"port": int(os.environ["SUITE_PORT"]), "budget": room, "max_capacity_gb": d.get("max_size_gb", 1.0)}
        )


class InMemoryL2Adapter(LLMCacheL2Adapter):
    """Ours over an empty server."""

    def __init__(self, config, **more):
        flush()
        super().__init__(InMemoryL2AdapterConfig.from_dict(config) if isinstance(config, dict) else config, **more)


def flush():
    """Empties the server; not by redis-py, which their conftest replaces."""
    with socket.create_connection(("127.0.0.1", int(os.environ["SUITE_PORT"]))) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"
