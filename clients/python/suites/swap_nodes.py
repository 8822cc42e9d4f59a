"""A pytest plugin that gives LangGraph's own test file of its Redis node cache llmcache's cache in place of theirs."""

import os

import langgraph.cache.redis as theirs
import redis

from llmcache.integrations.langgraph import LlmcacheNodeCache

PORT = int(os.environ["SUITE_PORT"])
_Redis = redis.Redis


class RedisCache(LlmcacheNodeCache):
    """Their constructor: the client, and a prefix that is the cache's name here."""

    def __init__(self, redis, *, serde=None, prefix="langgraph:cache:"):
        super().__init__(redis, name=prefix, serde=serde)
        self.redis, self.prefix = redis, prefix


def local(*args, **options):
    # Their file asks for port 6379, database 1.
    return _Redis(port=PORT, **{k: v for k, v in options.items() if k not in ("host", "port")})


if os.environ.get("SUITE_SWAP") == "ours":
    theirs.RedisCache = RedisCache
redis.Redis = local
