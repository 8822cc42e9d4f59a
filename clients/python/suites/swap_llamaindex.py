"""A pytest plugin that gives LlamaIndex's own test files of its chat stores llmcache's in place of theirs."""

import itertools
import os
import sys
import types

import llama_index.core.storage.chat_store.sql as sql
import redis
import redis.asyncio

from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheDBChatStore

PORT = int(os.environ["SUITE_PORT"])
numbers = itertools.count()


class RedisChatStore(LlmcacheChatStore):
    """Their constructor takes the url of a server, which here is that of the suite; each store has a prefix of its own."""

    def __init__(self, redis_url: str, ttl: int):
        super().__init__(redis.Redis(port=PORT), prefix=f"llama{os.getpid()}-{next(numbers)}:", ttl=ttl)


class DBChatStore(LlmcacheDBChatStore):
    """Theirs is empty when it is made."""

    def __init__(self, **_):
        super().__init__(redis.asyncio.Redis(port=PORT), prefix=f"memory{os.getpid()}-{next(numbers)}:")


theirs = types.ModuleType("llama_index.storage.chat_store.redis")
theirs.RedisChatStore = RedisChatStore
sys.modules[theirs.__name__] = theirs
sql.SQLAlchemyChatStore = DBChatStore

# The file looks whether a server is at the usual port.
plain = redis.Redis.from_url
redis.Redis.from_url = classmethod(lambda cls, url, **options: plain(url.replace(":6379", f":{PORT}"), **options))
