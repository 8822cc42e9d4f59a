"""LangChain's own standard tests (`langchain-tests`), over llmcache. Only fixtures are given here."""

import os

import pytest
import redis
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    SyncCacheTestSuite,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from llmcache.integrations.langchain import LlmcacheCache, LlmcacheEmbeddings, LlmcacheVectorStore

PORT = int(os.environ["SUITE_PORT"])


def client() -> redis.Redis:
    made = redis.Redis(port=PORT)
    made.flushall()
    return made


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self):
        return LlmcacheCache(client(), "suite")


class TestAsyncCache(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self):
        return LlmcacheCache(client(), "suite")


class TestSemanticCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self):
        return LlmcacheCache(client(), "suite", embeddings=DeterministicFakeEmbedding(size=16), threshold=0.99)


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return LlmcacheVectorStore(client(), "suite", embeddings=self.get_embeddings())


class _Cached(LlmcacheEmbeddings):
    def __init__(self, size: int):
        super().__init__(redis.Redis(port=PORT), DeterministicFakeEmbedding(size=size), model=f"fake-{size}")


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return _Cached

    @property
    def embedding_model_params(self):
        return {"size": 16}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return _Cached

    @property
    def embedding_model_params(self):
        return {"size": 16}


def _retriever(k: int = 4) -> BaseRetriever:
    store = LlmcacheVectorStore(client(), "suite", embeddings=DeterministicFakeEmbedding(size=16))
    store.add_texts([f"text {n}" for n in range(20)])
    return store.as_retriever(search_kwargs={"k": k})


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return _retriever

    @property
    def retriever_constructor_params(self):
        return {"k": 4}

    @property
    def retriever_query_example(self):
        return "text 3"
