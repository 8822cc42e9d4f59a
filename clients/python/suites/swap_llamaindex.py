"""A pytest plugin that gives LlamaIndex's own test files of its chat stores llmcache's in place of theirs."""

import itertools
import os
import sys
import types

import llama_index.core.storage.chat_store.sql as sql
import redis
import redis.asyncio
from llama_index.core.bridge.pydantic import PrivateAttr

from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheDBChatStore

PORT = int(os.environ["SUITE_PORT"])
numbers = itertools.count()


class RedisChatStore(LlmcacheChatStore):
    """Their constructor takes the url of a server, which here is that of the suite; each store has a prefix of its own.

    Given clients it looks for the keys itself, so they have no prefix; and a message that was deleted is returned as
    theirs is, by its JSON, where `BaseChatStore` has the message.
    """

    def __init__(self, redis_url: str = "", ttl: int | None = None, redis_client=None, aredis_client=None):
        prefix = "" if redis_client is not None else f"llama{os.getpid()}-{next(numbers)}:"
        super().__init__(redis_client or redis.Redis(port=PORT), prefix=prefix, ttl=ttl)
        # The store makes its own client of asyncio, to the same database.
        if aredis_client is not None:
            self._json = str if redis_client.get_connection_kwargs().get("decode_responses") else str.encode

    def delete_message(self, key, idx):
        return self._told(super().delete_message(key, idx))

    async def adelete_message(self, key, idx):
        return self._told(await super().adelete_message(key, idx))

    def _told(self, message):
        return message if message is None or self._json is None else self._json(message.model_dump_json())

    _json = PrivateAttr(default=None)


class FakeServer:
    """A database of the suite's server, emptied: what `fakeredis` calls a server of its own."""

    def __init__(self):
        self.db = 1 + next(numbers) % 15
        redis.Redis(port=PORT, db=self.db).flushdb()


class FakeRedis(redis.Redis):
    def __init__(self, server, decode_responses):
        super().__init__(port=PORT, db=server.db, decode_responses=decode_responses)


class FakeAsyncRedis(redis.asyncio.Redis):
    def __init__(self, server, decode_responses):
        super().__init__(port=PORT, db=server.db, decode_responses=decode_responses)


class DBChatStore(LlmcacheDBChatStore):
    """Theirs is empty when it is made."""

    def __init__(self, **_):
        super().__init__(redis.asyncio.Redis(port=PORT), prefix=f"memory{os.getpid()}-{next(numbers)}:")


theirs = types.ModuleType("llama_index.storage.chat_store.redis")
theirs.RedisChatStore = RedisChatStore
sys.modules[theirs.__name__] = theirs
fake = types.ModuleType("fakeredis")
fake.FakeServer, fake.FakeRedis, fake.FakeAsyncRedis = FakeServer, FakeRedis, FakeAsyncRedis
sys.modules[fake.__name__] = fake
sql.SQLAlchemyChatStore = DBChatStore

# The file looks whether a server is at the usual port.
plain = redis.Redis.from_url
redis.Redis.from_url = classmethod(lambda cls, url, **options: plain(url.replace(":6379", f":{PORT}"), **options))
