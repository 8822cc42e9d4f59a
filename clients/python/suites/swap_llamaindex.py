"""A pytest plugin that gives LlamaIndex's own test files of its chat stores llmcache's in place of theirs."""

import itertools
import os

import llama_index.core.storage.chat_store as stores
import llama_index.core.storage.chat_store.sql as sql
import redis
import redis.asyncio

from llmcache.integrations.llamaindex import LlmcacheChatStore, LlmcacheDBChatStore

PORT = int(os.environ["SUITE_PORT"])
numbers = itertools.count()


class ChatStore(LlmcacheChatStore):
    """Theirs is empty when it is made: here each has a prefix of its own."""

    def __init__(self):
        super().__init__(redis.Redis(port=PORT), prefix=f"llama{os.getpid()}-{next(numbers)}:")


class DBChatStore(LlmcacheDBChatStore):
    def __init__(self, **_):
        super().__init__(redis.asyncio.Redis(port=PORT), prefix=f"memory{os.getpid()}-{next(numbers)}:")


stores.SimpleChatStore = ChatStore
sql.SQLAlchemyChatStore = DBChatStore
