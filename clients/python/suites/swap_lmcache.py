"""A pytest plugin for LMCache's own tests of L2 adapters: where they make theirs they get ours.

`SUITE_SWAP=mock` swaps the adapter of the contract's tests, `resp` that of the tests over a real server, where both
the C++ client and its wrapper are replaced; without it their own classes are tested.
"""

import os

import lmcache.lmcache_redis as client
import lmcache.v1.distributed.l2_adapters.mock_l2_adapter as mock
import lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter as native
from lmc_external_l2_adapter import flush

from llmcache.lmcache import LLMCacheL2Adapter

PARAMS = {"port": int(os.environ["SUITE_PORT"]), "connections": 2}


class OursAsMock(LLMCacheL2Adapter):
    """By the config of the mock: its capacity is ours."""

    def __init__(self, config):
        flush()
        super().__init__({**PARAMS, "max_capacity_gb": config.max_size_gb})


class Address:
    """What the C++ client is made of."""

    def __init__(self, host, port, workers, *_):
        self.params = {"host": host, "port": port, "connections": workers}


class OursAsNative(LLMCacheL2Adapter):
    """By the client that the wrapper is given."""

    def __init__(self, address, *_, **__):
        super().__init__(address.params)


if os.environ.get("SUITE_SWAP") == "mock":
    mock.MockL2Adapter = OursAsMock
elif os.environ.get("SUITE_SWAP") == "resp":
    client.LMCacheRedisClient = Address
    native.NativeConnectorL2Adapter = OursAsNative
