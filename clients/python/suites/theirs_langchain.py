"""LangChain's own standard tests over `langchain-redis`, the existing implementation. Only fixtures are given here."""

import os

import pytest
import redis
from langchain_redis import RedisCache, RedisConfig, RedisVectorStore
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite, VectorStoreIntegrationTests

PORT = int(os.environ["SUITE_PORT"])
URL = f"redis://127.0.0.1:{PORT}"


def emptied() -> str:
    redis.Redis(port=PORT).flushall()
    return URL


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self):
        return RedisCache(redis_url=emptied())


class TestAsyncCache(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self):
        return RedisCache(redis_url=emptied())


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return RedisVectorStore(self.get_embeddings(), config=RedisConfig(index_name="suite", redis_url=emptied()))
