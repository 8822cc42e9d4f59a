"""A pytest plugin that gives dogpile.cache's own test file of its Redis backend llmcache's in its place."""

import os

import redis
from dogpile.cache import register_backend

from llmcache.integrations.dogpile import LlmcacheBackend


class Backend(LlmcacheBackend):
    """Their arguments: where the server is, not a client."""

    def __init__(self, arguments):
        client = redis.Redis(host=arguments["host"], port=arguments["port"], db=arguments["db"])
        super().__init__({**arguments, "client": client})


os.environ["DOGPILE_REDIS_PORT"] = os.environ["SUITE_PORT"]
register_backend("dogpile.cache.redis", "swap_dogpile", "Backend")
