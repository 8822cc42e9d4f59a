"""A pytest plugin that gives the OpenAI Agents SDK's own test files llmcache's session in place of theirs."""

import os

import agents
import agents.extensions.memory as extensions
import agents.extensions.memory.redis_session as theirs
import agents.memory as memory
import agents.memory.sqlite_session as sqlite
import redis.asyncio

from llmcache.integrations.openai_agents import LlmcacheSession

PORT = int(os.environ["SUITE_PORT"])
URL = f"redis://127.0.0.1:{PORT}/0"


class RedisSession(LlmcacheSession):
    """Their constructor: the client by keyword alone. Their tests read the hash of metadata, so it is kept."""

    def __init__(self, session_id, *, redis_client, **options):
        super().__init__(session_id, redis_client, metadata=True, **options)

    @classmethod
    def from_url(cls, session_id, *, url, redis_kwargs=None, **options):
        made = cls(session_id, redis_client=redis.asyncio.from_url(url, **(redis_kwargs or {})), **options)
        made._owns_client = True
        return made

    async def _atomic_replace_items(self, items):
        if type(self) is not RedisSession:
            return False
        kind, self.__class__ = self.__class__, LlmcacheSession
        try:
            return await LlmcacheSession._atomic_replace_items(self, items)
        finally:
            self.__class__ = kind


class SQLiteSession(LlmcacheSession):
    """Their constructor takes a file; here each file is a prefix."""

    def __init__(self, session_id, db_path=":memory:", *args, session_settings=None, **options):
        prefix = f"sqlite:{db_path}" if str(db_path) != ":memory:" else f"memory:{id(self)}"
        client = redis.asyncio.Redis(port=PORT)
        super().__init__(session_id, client, key_prefix=prefix, session_settings=session_settings)
        self.db_path = db_path

    def close(self):
        """Theirs is not awaited."""


if os.environ.get("SUITE_SWAP") == "redis":
    theirs.RedisSession = extensions.RedisSession = RedisSession
if os.environ.get("SUITE_SWAP") == "sqlite":
    sqlite.SQLiteSession = memory.SQLiteSession = agents.SQLiteSession = SQLiteSession


def pytest_collection_modifyitems(session, config, items):
    for module in {item.module for item in items}:
        if hasattr(module, "REDIS_URL"):
            module.REDIS_URL = URL
